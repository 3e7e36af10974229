//! An MCP server built on rmcp, with tools that show what happens to sessions.

#![expect(deprecated, reason = "MCP retires log notifications; nothing is as simple to send")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::request::Parts;
use mcp_session_layer::Session;
use rmcp::{
    ErrorData, Peer, RoleServer, ServerHandler,
    handler::server::{common::Extension, router::tool::ToolRouter, wrapper::Parameters},
    model::{
        Implementation, LoggingLevel, LoggingMessageNotificationParam, ServerCapabilities,
        ServerConfig, SetLevelRequestParams,
    },
    schemars,
    service::RequestContext,
    tool, tool_handler, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio_util::sync::CancellationToken;

/// The largest notification `spam` sends.
const MAX_SPAM: usize = 16 << 20;

/// rmcp's Streamable HTTP service, to be mounted at `/mcp`, and what rmcp keeps for it.
pub(crate) struct RmcpServer {
    pub(crate) service: StreamableHttpService<Tools, LocalSessionManager>,
    pub(crate) kept: Kept,
}

impl RmcpServer {
    /// Cancelling `stop` ends what rmcp does outside of sessions. Besides loopback, requests are
    /// answered that name one of `hosts`.
    pub(crate) fn new(stop: &CancellationToken, hosts: Vec<String>) -> Self {
        let kept = Kept::default();
        let handlers = Arc::clone(&kept.handlers);
        let mut config =
            StreamableHttpServerConfig::default().with_cancellation_token(stop.clone());
        config.allowed_hosts.extend(hosts);
        let service = StreamableHttpService::new(
            move || Ok(Tools::new(Arc::clone(&handlers))),
            Arc::clone(&kept.manager),
            config,
        );
        Self { service, kept }
    }
}

/// What rmcp keeps: the same as the layer, unless one of them leaks.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) manager: Arc<LocalSessionManager>,
    handlers: Arc<AtomicUsize>,
}

impl Default for Kept {
    fn default() -> Self {
        let mut manager = LocalSessionManager::default();
        // rmcp's own timer counts requests received, not work in progress: it would end a session
        // in the middle of a long call. When a session is idle is the layer's to say.
        manager.session_config.keep_alive = None;
        Self { manager: Arc::new(manager), handlers: Arc::default() }
    }
}

impl Kept {
    pub(crate) async fn count(self) -> Counts {
        Counts {
            inner: self.manager.sessions.read().await.len(),
            handlers: self.handlers.load(Ordering::Relaxed),
        }
    }
}

/// How much rmcp keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
pub(crate) struct Counts {
    /// Sessions in rmcp's own table.
    pub(crate) inner: usize,
    /// Handler objects that are alive.
    pub(crate) handlers: usize,
}

/// Counts itself in `handlers` for as long as it lives.
#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The handler of one session. Clones share the guard, and so count as one.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    tool_router: ToolRouter<Self>,
    _alive: Arc<Alive>,
}

/// How often `count` was called in one session; goes with the session.
#[derive(Debug, Default)]
struct Calls(AtomicU64);

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    /// What to say back
    text: String,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Sleep {
    /// For how long
    seconds: f64,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Spam {
    /// How many notifications to send
    n: u32,
    /// The size of each
    bytes: usize,
}

#[tool_router]
impl Tools {
    fn new(handlers: Arc<AtomicUsize>) -> Self {
        handlers.fetch_add(1, Ordering::Relaxed);
        Self { tool_router: Self::tool_router(), _alive: Arc::new(Alive(handlers)) }
    }

    /// Say the text back
    #[tool]
    async fn echo(&self, Parameters(Echo { text }): Parameters<Echo>) -> String {
        text
    }

    /// Work silently for some seconds
    #[tool]
    async fn sleep(
        &self,
        Parameters(Sleep { seconds }): Parameters<Sleep>,
        cancelled: CancellationToken,
    ) -> Result<String, ErrorData> {
        let duration = Duration::try_from_secs_f64(seconds)
            .map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
        tokio::select! {
            () = tokio::time::sleep(duration) => Ok(format!("slept {seconds} s")),
            () = cancelled.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
        }
    }

    /// Count the calls of this tool in this session
    #[tool]
    async fn count(&self, Extension(parts): Extension<Parts>) -> Result<String, ErrorData> {
        // rmcp hands the parts of the HTTP request on to the tool, and the layer put the session
        // into them. A client of the revisions without sessions has none.
        let session = parts
            .extensions
            .get::<Session>()
            .ok_or_else(|| ErrorData::invalid_request("there is no session to count in", None))?;
        let calls = session.state().get_or_insert_with::<Calls>(Calls::default);
        Ok((calls.0.fetch_add(1, Ordering::Relaxed) + 1).to_string())
    }

    /// Send n log notifications of some size on the session's GET stream, in the background
    #[tool]
    async fn spam(
        &self,
        Parameters(Spam { n, bytes }): Parameters<Spam>,
        peer: Peer<RoleServer>,
    ) -> Result<String, ErrorData> {
        if bytes > MAX_SPAM {
            return Err(ErrorData::invalid_params(format!("more than {MAX_SPAM} bytes"), None));
        }
        // A task of its own: it waits when the client reads slowly, and ends with the session.
        tokio::spawn(async move {
            for sent in 0..n {
                if let Err(error) = notify(&peer, bytes).await {
                    tracing::debug!(sent, %error, "spam ended early");
                    break;
                }
            }
        });
        Ok(format!("sending {n} times {bytes} bytes"))
    }
}

#[expect(deprecated, reason = "MCP retires logging, yet nothing else is as simple to send")]
async fn notify(peer: &Peer<RoleServer>, bytes: usize) -> Result<(), rmcp::ServiceError> {
    let data = serde_json::Value::String("x".repeat(bytes));
    peer.notify_logging_message(LoggingMessageNotificationParam::new(LoggingLevel::Info, data))
        .await
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_logging().build())
            .with_server_info(Implementation::new("mcp-session-layer-example", "0.1.0"))
    }

    async fn set_level(
        &self,
        _request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }
}
