//! An MCP server that issues ids and can be told to answer otherwise.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, Version};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::answering(|_| None).await
    }

    /// Answers like this, and where that is `None`, like an MCP server.
    pub(crate) async fn answering(
        answer: impl Fn(&Seen) -> Option<Response> + Clone + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let handler = move |request: Request| {
            let (record, answer) = (Arc::clone(&record), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap_or_default().to_vec();
                let seen = Seen {
                    method: parts.method,
                    target: parts.uri.to_string(),
                    version: parts.version,
                    headers: parts.headers,
                    body,
                };
                let count = {
                    let mut record = record.lock().unwrap();
                    record.push(seen.clone());
                    record.len()
                };
                answer(&seen).unwrap_or_else(|| mcp(&seen, count))
            }
        };
        let addr = serve(Router::new().fallback(handler)).await;
        Self { addr, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The latest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }

    pub(crate) fn count(&self, method: &Method) -> usize {
        self.seen().iter().filter(|seen| seen.method == *method).count()
    }
}

pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    addr
}

fn mcp(seen: &Seen, count: usize) -> Response {
    let message: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    if seen.method == Method::DELETE {
        StatusCode::NO_CONTENT.into_response()
    } else if message["method"] == "initialize" {
        let result = json!({"jsonrpc": "2.0", "id": 1, "result": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "serverInfo": {"name": "upstream", "version": "1"},
        }});
        let id = format!("upstream-{}-{count}", std::process::id());
        super::trace::secret(&id);
        ([("mcp-session-id", id)], axum::Json(result)).into_response()
    } else {
        axum::Json(json!({"jsonrpc": "2.0", "id": 2, "result": {}})).into_response()
    }
}

/// An answer with this status and these headers.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)]) -> Response {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(Body::from("the upstream's own text")).unwrap()
}
