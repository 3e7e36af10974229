//! The handler: what the conformance suite asks for, part by part.

#![expect(deprecated, reason = "MCP retires log notifications; the suite asks for them")]

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams,
        CompleteResult, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult,
        Implementation, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        ListToolsResult, PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams,
        ReadResourceResponse, ServerCapabilities, ServerConfig, SetLevelRequestParams,
        SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
        UpdateTaskParams,
    },
    service::{RequestContext, SubscriptionContext, SubscriptionSink},
    task_manager::TaskManager,
    transport::streamable_http_server::session::local::LocalSessionManager,
};
use tokio::time::sleep;

use crate::{content, inputs, jobs, tools};

pub(crate) type Context = RequestContext<RoleServer>;

/// Shared by all sessions, and by the requests that have none.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) manager: Arc<LocalSessionManager>,
    pub(crate) tasks: TaskManager,
    legacy_only: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Who listens for changes, in the revisions without sessions.
    listeners: Mutex<HashMap<u64, SubscriptionSink>>,
    next_listener: AtomicU64,
    /// Who will listen: rmcp tells the client so before it calls `listen`.
    accepted: AtomicU64,
    /// How far a conversation by `requestState` has come. The state is a handle that cannot be
    /// guessed: one that was tampered with is not in here.
    rounds: Mutex<HashMap<String, u32>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fixture {
    pub(crate) fn new(manager: Arc<LocalSessionManager>, legacy_only: bool) -> Self {
        Self { manager, tasks: TaskManager::new(), legacy_only, shared: Arc::default() }
    }

    /// All who were told that they are, if they are in a moment: a client may ask for a change at once.
    pub(crate) async fn listeners(&self) -> Vec<SubscriptionSink> {
        let Shared { accepted, next_listener, .. } = &*self.shared;
        for _ in 0..100 {
            if next_listener.load(Ordering::SeqCst) >= accepted.load(Ordering::SeqCst) {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        lock(&self.shared.listeners).values().cloned().collect()
    }

    pub(crate) fn seal(&self, round: u32) -> String {
        let state = uuid::Uuid::new_v4().to_string();
        lock(&self.shared.rounds).insert(state.clone(), round);
        state
    }

    pub(crate) fn unseal(&self, state: &str) -> Result<u32, ErrorData> {
        lock(&self.shared.rounds)
            .get(state)
            .copied()
            .ok_or_else(|| ErrorData::invalid_params("requestState is not what was given", None))
    }
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_resources_list_changed()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_logging()
            .enable_completions()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("interop-server", "0.1.0"))
            .with_instructions("For interoperability runs")
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(match self.legacy_only {
            true => ProtocolVersion::known_up_to(&ProtocolVersion::V_2025_11_25),
            false => ProtocolVersion::KNOWN_VERSIONS,
        })
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::all().into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(content::cached(ListToolsResult::with_all_items(tools::all())))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        if inputs::NAMES.contains(&request.name.as_ref()) {
            inputs::call(self, &request, &context)
        } else if jobs::is_one(&request.name) {
            jobs::call(self, request, &context).await
        } else {
            tools::call(self, request, context).await.map(Into::into)
        }
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: Context,
    ) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(&self, request: UpdateTaskParams, _: Context) -> Result<(), ErrorData> {
        self.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: Context) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        self.shared.accepted.fetch_add(1, Ordering::SeqCst);
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let key = {
            let mut listeners = lock(&self.shared.listeners);
            let key = self.shared.next_listener.fetch_add(1, Ordering::SeqCst);
            listeners.insert(key, context.sink().clone());
            key
        };
        context.cancelled().await;
        lock(&self.shared.listeners).remove(&key);
        Ok(())
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: Context,
    ) -> Result<CompleteResult, ErrorData> {
        content::complete(&request)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(content::resources())
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(content::templates())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        content::read(&request.uri)
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(content::prompts())
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        if request.name == inputs::PROMPT {
            return inputs::prompt(&request);
        }
        content::prompt(&request)
    }
}
