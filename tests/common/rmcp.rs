//! A server made with rmcp, what rmcp keeps for it, and what a client of it says.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{StatusCode, request::Parts};
use mcp_session_layer::Session;
use rmcp::{
    ErrorData, Peer, RoleServer, ServerHandler, ServiceError,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock,
        InitializeRequestParams, InitializeResult, ListToolsResult, PaginatedRequestParams,
        ProgressNotificationParam, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::common::net::{PATIENCE, Wire, ms, request, until};

pub type Service = StreamableHttpService<Tools, LocalSessionManager>;

pub const ACCEPT: &str = "application/json, text/event-stream";
pub const LEGACY: &str = "2025-11-25";

/// What becomes of `initialize`.
#[derive(Clone, Copy, Debug)]
pub enum Opens {
    AtOnce,
    After(Duration),
    Never,
}

/// What rmcp keeps.
#[derive(Clone, Default)]
pub struct Kept {
    pub manager: Arc<LocalSessionManager>,
    pub handlers: Arc<AtomicUsize>,
    /// Notifications that `spam` got rid of.
    pub spammed: Arc<AtomicUsize>,
}

impl Kept {
    pub fn service(opens: Opens) -> (Self, Service) {
        Self::service_with(opens, StreamableHttpServerConfig::default())
    }

    pub fn service_with(opens: Opens, config: StreamableHttpServerConfig) -> (Self, Service) {
        let mut manager = LocalSessionManager::default();
        manager.session_config.keep_alive = None;
        Self::of(manager, opens, config, usize::MAX)
    }

    /// A service that fails to make a handler when `cap` of them are alive.
    pub fn of(
        manager: LocalSessionManager,
        opens: Opens,
        config: StreamableHttpServerConfig,
        cap: usize,
    ) -> (Self, Service) {
        let kept = Self { manager: Arc::new(manager), ..Self::default() };
        let handlers = kept.clone();
        let service = StreamableHttpService::new(
            move || match handlers.handlers.load(Ordering::SeqCst) {
                alive if alive >= cap => Err(std::io::Error::other("too many sessions")),
                _ => Ok(Tools::new(handlers.clone(), opens)),
            },
            Arc::clone(&kept.manager),
            config,
        );
        (kept, service)
    }

    /// Sessions in rmcp's table, and handlers that are alive.
    pub async fn counts(&self) -> (usize, usize) {
        (self.manager.sessions.read().await.len(), self.handlers.load(Ordering::SeqCst))
    }

    #[track_caller]
    pub fn is_empty_within(&self, within: Duration) -> impl Future<Output = ()> + use<> {
        let kept = self.clone();
        until("rmcp has nothing left", within, async move || kept.counts().await == (0, 0))
    }
}

/// The handler of one session. rmcp makes one for a session and drops it with the session.
pub struct Tools {
    kept: Kept,
    opens: Opens,
}

impl Tools {
    pub fn new(kept: Kept, opens: Opens) -> Self {
        kept.handlers.fetch_add(1, Ordering::SeqCst);
        Self { kept, opens }
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        self.kept.handlers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How often `count` was called, in the session's own state.
#[derive(Default)]
pub struct Calls(pub AtomicUsize);

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        match self.opens {
            Opens::AtOnce => {}
            Opens::After(delay) => sleep(delay).await,
            Opens::Never => return Err(ErrorData::invalid_request("not today", None)),
        }
        context.peer.set_peer_info(request.clone());
        self.negotiate_initialize(&request)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(Vec::new()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let number = |name: &str| arguments.get(name).and_then(Value::as_u64).unwrap_or(0);
        let said = match request.name.as_ref() {
            "echo" => arguments["text"].as_str().unwrap_or("").to_owned(),
            "sleep" => {
                tokio::select! {
                    () = sleep(ms(number("ms"))) => "slept".to_owned(),
                    () = context.ct.cancelled() => "cancelled".to_owned(),
                    () = report(&context, ms(number("report_ms"))) => unreachable!(),
                }
            }
            "count" => {
                let parts = context.extensions.get::<Parts>();
                let session = parts.and_then(|parts| parts.extensions.get::<Session>());
                let Some(session) = session else {
                    return Err(ErrorData::invalid_request("there is no session", None));
                };
                let calls = session.state().get_or_insert_with(Calls::default);
                (calls.0.fetch_add(1, Ordering::SeqCst) + 1).to_string()
            }
            "spam" => {
                let (n, bytes) = (number("n"), number("bytes") as usize);
                let (peer, spammed) = (context.peer.clone(), Arc::clone(&self.kept.spammed));
                tokio::spawn(async move {
                    for _ in 0..n {
                        if notify(&peer, bytes).await.is_err() {
                            break;
                        }
                        spammed.fetch_add(1, Ordering::SeqCst);
                    }
                });
                "as you wish".to_owned()
            }
            // As `spam`, into the answer of this call.
            "flood" => {
                for _ in 0..number("n") {
                    if progress(&context, "x".repeat(number("bytes") as usize)).await.is_err() {
                        break;
                    }
                    self.kept.spammed.fetch_add(1, Ordering::SeqCst);
                }
                "as you wish".to_owned()
            }
            // Answers, works on, and says when it is done. Where there is a layer, it is asked to
            // hold the session meanwhile.
            "work" => {
                let parts = context.extensions.get::<Parts>();
                let session = parts.and_then(|parts| parts.extensions.get::<Session>());
                let hold = session.and_then(|session| session.hold().ok());
                let (peer, time) = (context.peer.clone(), ms(number("ms")));
                tokio::spawn(async move {
                    sleep(time).await;
                    // Whoever waits for it sees whether it came.
                    let _ = notify(&peer, 100).await;
                    drop(hold);
                });
                "begun".to_owned()
            }
            _ => return Err(ErrorData::invalid_params("there is no such tool", None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(said)]).into())
    }
}

/// Tells the client of progress, again and again, if it may.
async fn report(context: &RequestContext<RoleServer>, every: Duration) {
    if every.is_zero() {
        return std::future::pending().await;
    }
    loop {
        sleep(every).await;
        // A client that has not asked for it gets none.
        let _ = progress(context, String::new()).await;
    }
}

async fn progress(
    context: &RequestContext<RoleServer>,
    message: String,
) -> Result<(), ServiceError> {
    let token = context.meta.get_progress_token().ok_or(ServiceError::TransportClosed)?;
    let progress = ProgressNotificationParam::new(token, 1.0).with_message(message);
    context.peer.notify_progress(progress).await
}

#[expect(deprecated, reason = "MCP retires log notifications; nothing is as simple to send")]
pub async fn notify(peer: &Peer<RoleServer>, bytes: usize) -> Result<(), ServiceError> {
    use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
    let data = Value::String("x".repeat(bytes));
    let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, data);
    peer.notify_logging_message(message).await
}

pub fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub fn initialize(version: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": version, "capabilities": {},
            "clientInfo": { "name": "tester", "version": "1.0" },
        },
    })
}

pub fn tools_call(tool: &str, arguments: &Value) -> Value {
    // rmcp loses answers if two requests of a session share an id.
    static NEXT: AtomicUsize = AtomicUsize::new(2);
    let id = NEXT.fetch_add(1, Ordering::SeqCst);
    let meta = json!({ "progressToken": id });
    let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

/// Reads an answer to its end: the status, and the last message in it.
pub async fn read(answer: reqwest::Response) -> (StatusCode, Value) {
    let status = answer.status();
    let text = timeout(PATIENCE, answer.text()).await.unwrap().unwrap();
    let events = text.lines().rev().filter_map(|line| line.strip_prefix("data:"));
    let last = events.map(str::trim).find(|data| !data.is_empty()).unwrap_or(&text);
    (status, serde_json::from_str(last).unwrap_or(Value::Null))
}

pub fn said(message: &Value) -> String {
    message["result"]["content"][0]["text"].as_str().unwrap_or("").to_owned()
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
pub enum Leaves {
    Closing,
    Resetting,
    HalfClosing,
    InTheMiddleOfTheBody,
}

/// Sends `initialize` and leaves.
pub async fn hang_up(authority: &str, how: Leaves, after: Duration) {
    let addr = authority.parse().unwrap();
    let headers = [("Accept", ACCEPT), ("Content-Type", "application/json")];
    let bytes = request("POST", "/mcp", &headers, initialize(LEGACY).to_string().as_bytes());
    let mut wire = Wire::connect(addr).await;
    match how {
        Leaves::InTheMiddleOfTheBody => wire.send(&bytes[..bytes.len() - 40]).await,
        _ => wire.send(&bytes).await,
    }
    if !after.is_zero() {
        sleep(after).await;
    }
    match how {
        Leaves::Closing | Leaves::InTheMiddleOfTheBody => drop(wire),
        Leaves::Resetting => wire.reset(),
        Leaves::HalfClosing => {
            wire.half_close().await;
            sleep(ms(300)).await;
        }
    }
}
