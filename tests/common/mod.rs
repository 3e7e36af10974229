//! What every test stands on: a fake MCP server, the layer around it, and the invariants.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

pub mod checks;
pub mod net;
pub mod server;
pub mod trace;

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    middleware::{map_request, map_response},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use mcp_session_layer::{McpSessionLayer, McpSessionService, SessionBody, Sessions, Stats};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};

use self::checks::Checks;
pub use self::server::{FakeServer, sent};

pub const SECOND: Duration = Duration::from_secs(1);
pub const IDLE: Duration = Duration::from_secs(100);
/// How long the answer to `initialize` is held back, to see a client hang up.
pub const HELD_BACK: Duration = Duration::from_millis(10);
/// More than a tick of any layer here.
pub const TICK: Duration = Duration::from_millis(1100);

pub type Answer = Response<SessionBody<Body>>;

/// A fake server behind the layer, watched.
pub struct World {
    pub server: FakeServer,
    pub sessions: Sessions,
    pub service: McpSessionService<FakeServer>,
    watched: Watched,
}

/// A layer in whatever a test builds of it, watched.
#[must_use]
pub struct Watched {
    pub sessions: Sessions,
    checks: Checks,
}

/// Watches this layer, which must not be in use yet. What stands behind it is `server`; where that
/// is another one, pass a `FakeServer` that nobody calls.
pub fn watch(server: &FakeServer, layer: McpSessionLayer) -> (McpSessionLayer, Watched) {
    let checks = Checks::new(server);
    let layer = checks.watch(layer);
    let sessions = layer.sessions();
    checks.know(&sessions);
    checks.look_for_ids_in(&format!("{layer:?}"));
    (layer, Watched { sessions, checks })
}

impl Watched {
    /// An id that must not be seen in any log line or anything that is printed.
    pub fn learn(&self, id: &str) {
        self.checks.learner()(id);
    }

    /// Learns the ids in all that this answers, and knows when it was asked.
    pub fn learn_from(&self, app: Router) -> Router {
        let learn = self.checks.learner();
        app.layer(map_response(move |answer: Response<Body>| {
            let ids = answer.headers().get_all("mcp-session-id");
            ids.iter().filter_map(|id| id.to_str().ok()).for_each(&learn);
            std::future::ready(answer)
        }))
        .layer(map_request(async |request: Request<Body>| sent(request)))
    }

    pub fn events(&self) -> Vec<String> {
        self.checks.events()
    }

    /// Everything that must hold when nothing is going on any more. Drop every answer first.
    pub async fn finish(self) {
        self.checks.finish(self.sessions).await;
    }

    /// As [`finish`](Self::finish), where time is not paused.
    pub async fn finish_in_real_time(self) -> Stats {
        self.checks.finish_in_real_time(self.sessions).await
    }
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn id(&self) -> Option<&str> {
        self.headers.get("mcp-session-id").map(|id| id.to_str().unwrap())
    }

    /// Whether this is the answer to a session that is not there, byte for byte.
    #[track_caller]
    pub fn assert_lost(&self) {
        assert_eq!(self.status, 404);
        assert_eq!(
            self.body,
            r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#
        );
        assert_eq!(self.headers["content-type"], "application/json");
        assert_eq!(self.headers["cache-control"], "no-store");
        assert_eq!(self.headers.len(), 2, "nothing else gives the reason away");
    }
}

impl World {
    /// Idle after 100 s, and whatever `configure` says.
    pub fn new(configure: impl FnOnce(McpSessionLayer) -> McpSessionLayer) -> Self {
        Self::around(FakeServer::default(), configure)
    }

    pub fn around(
        server: FakeServer,
        configure: impl FnOnce(McpSessionLayer) -> McpSessionLayer,
    ) -> Self {
        let layer = configure(McpSessionLayer::new().idle_timeout(IDLE));
        let (layer, watched) = watch(&server, layer);
        let service = layer.layer(server.clone());
        watched.checks.look_for_ids_in(&format!("{service:?}"));
        Self { server, sessions: watched.sessions.clone(), service, watched }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.service.clone().oneshot(sent(request)).await.unwrap();
        if let Some(id) = answer.headers().get("mcp-session-id") {
            self.watched.learn(id.to_str().unwrap());
        }
        answer
    }

    pub async fn ask(&self, request: Request<Body>) -> Reply {
        read(self.send(request).await).await
    }

    /// Opens a session and reads the answer to its end.
    pub async fn open(&self) -> String {
        let reply = self.ask(initialize()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.id().unwrap().to_owned()
    }

    /// Opens a session and uses it once.
    pub async fn open_used(&self) -> String {
        let id = self.open().await;
        assert_eq!(self.ask(call(&id, "ping")).await.status, 200);
        id
    }

    pub async fn ping(&self, id: &str) -> StatusCode {
        self.ask(call(id, "ping")).await.status
    }

    /// Everything that must hold when nothing is going on any more. Drop every answer first.
    pub async fn finish(self) {
        self.watched.finish().await;
    }

    pub fn events(&self) -> Vec<String> {
        self.watched.events()
    }

    /// An id that the server does not give out, but knows.
    pub fn learn(&self, id: &str) {
        self.watched.learn(id);
    }
}

/// An id that is nowhere in any log by chance.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4())
}

pub async fn read(answer: Answer) -> Reply {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply { status: parts.status, headers: parts.headers, body }
}

/// Lets time pass; everything that is due meanwhile runs.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub fn json_post(body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/mcp")
        .header("host", "localhost")
        .header("content-type", "application/json");
    sent(request.body(body.into()).unwrap())
}

pub fn initialize() -> Request<Body> {
    json_post(initialize_body().to_string())
}

pub fn initialize_body() -> Value {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "tester", "version": "1.0" },
        },
    })
}

pub fn message(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 2, "method": method, "params": params }).to_string()
}

/// A POST of a live session. What the fake server does with `method` stands in its table.
pub fn call(id: &str, method: &str) -> Request<Body> {
    call_with(id, method, &json!({}))
}

pub fn call_with(id: &str, method: &str, params: &Value) -> Request<Body> {
    with_id(json_post(message(method, params)), id)
}

pub fn with_id(mut request: Request<Body>, id: &str) -> Request<Body> {
    request.headers_mut().append("mcp-session-id", id.parse().unwrap());
    request
}

pub fn bare(method: Method) -> Request<Body> {
    let request = Request::builder().method(method).uri("/mcp").header("host", "localhost");
    sent(request.body(Body::empty()).unwrap())
}

pub fn get(id: &str) -> Request<Body> {
    with_id(bare(Method::GET), id)
}

pub fn delete(id: &str) -> Request<Body> {
    with_id(bare(Method::DELETE), id)
}

/// The next frame of a body, if it comes without waiting.
pub async fn frame(answer: &mut Answer) -> Option<Bytes> {
    let frame = answer.body_mut().frame().await?;
    Some(frame.unwrap().into_data().unwrap())
}
