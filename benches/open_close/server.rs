//! The servers, each on a runtime of its own.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
    routing::any,
};
use http::{Method, StatusCode, header::CONTENT_TYPE};
use mcp_session_layer::{CloseReason, McpSessionLayer, Sessions};
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::sleep,
};
use uuid::Uuid;

use crate::{MANY, drive::open};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By hand; keeps nothing.
    Handler,
    Rmcp,
}

pub struct Server {
    pub kind: Kind,
    pub layered: bool,
    pub threads: usize,
    pub runtime: Runtime,
    pub app: Router,
    sessions: Option<Sessions>,
    manager: Arc<LocalSessionManager>,
}

impl Server {
    pub fn new(kind: Kind, layered: bool, threads: usize) -> Self {
        let mut runtime = match threads {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        let runtime = runtime.worker_threads(threads).enable_all().build().unwrap();
        let mut manager = LocalSessionManager::default();
        manager.session_config.keep_alive = None;
        let manager = Arc::new(manager);
        let app = Router::new();
        let mut app = match kind {
            Kind::Handler => app.route("/mcp", any(answer)),
            Kind::Rmcp => app.route_service("/mcp", rmcp(&manager)),
        };
        let mut sessions = None;
        if layered {
            let layer = layer();
            sessions = Some(layer.sessions());
            app = app.layer(layer);
        }
        Self { kind, layered, threads, runtime, app, sessions, manager }
    }

    /// Opens as many, and leaves them open.
    pub fn fill(&self, live: usize) {
        self.runtime.block_on(async {
            let mut opening = JoinSet::new();
            for part in 0..MANY {
                let app = self.app.clone();
                opening.spawn(async move {
                    for _ in (part..live).step_by(MANY) {
                        open(&app).await;
                    }
                });
            }
            opening.join_all().await;
        });
        self.is_at_rest(live);
    }

    /// Waits until the sessions that were closed are in nobody's table.
    pub fn loses_all_but(&self, live: usize) {
        self.runtime.block_on(async {
            let table = || self.sessions.as_ref().map_or(live, Sessions::len);
            while table() != live || !self.manager.sessions.read().await.is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
        });
    }

    /// Panics if anything went otherwise than that clients opened and closed.
    pub fn is_at_rest(&self, live: usize) {
        let Some(stats) = self.sessions.as_ref().map(Sessions::stats) else { return };
        let others = stats.opened - stats.closed.get(CloseReason::Client);
        assert_eq!((stats.live, others), (live, live as u64), "{stats:?}");
        assert_eq!((stats.opening, stats.closing), (0, 0), "{stats:?}");
    }
}

/// None of the sessions ends by itself, nor is one turned away.
fn layer() -> McpSessionLayer {
    let hour = Duration::from_secs(60 * 60);
    McpSessionLayer::new().unused_timeout(hour).idle_timeout(hour).max_sessions(1_000_000)
}

async fn answer(request: Request) -> Response {
    if request.method() == Method::DELETE {
        return StatusCode::NO_CONTENT.into_response();
    }
    let id = Uuid::new_v4().to_string();
    let head = [("mcp-session-id", id.as_str()), (CONTENT_TYPE.as_str(), "application/json")];
    (head, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).into_response()
}

#[derive(Clone)]
struct Quiet;

impl ServerHandler for Quiet {}

fn rmcp(manager: &Arc<LocalSessionManager>) -> StreamableHttpService<Quiet, LocalSessionManager> {
    let config = StreamableHttpServerConfig::default();
    StreamableHttpService::new(|| Ok(Quiet), Arc::clone(manager), config)
}
