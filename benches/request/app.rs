//! An axum app that answers JSON or a short event stream, and what is put around it.

#![allow(dead_code, reason = "each bench uses its part")]

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use futures_util::future::FutureExt;
use http::header::CONTENT_TYPE;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use mcp_session_layer::McpSessionLayer;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Json,
    Sse,
}

impl Answer {
    pub const ALL: [Self; 2] = [Self::Json, Self::Sse];

    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Sse => "SSE",
        }
    }

    /// The server: of its own it knows nothing of sessions. Made ready as `axum::serve` does it for every connection;
    /// otherwise each request would make its handler a service first, and apply the layers to it.
    pub fn app(self) -> Router {
        Router::new().route("/mcp", post(move || std::future::ready(self.respond()))).with_state(())
    }

    fn respond(self) -> Response {
        let (kind, body) = match self {
            Self::Json => {
                let body = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
                ("application/json", Body::from(body))
            }
            Self::Sse => ("text/event-stream", Body::new(Events(3))),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
        response
    }
}

/// So many events, and nobody knows how many there will be.
struct Events(u8);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.0.checked_sub(1) else { return Poll::Ready(None) };
        self.0 = left;
        let event = Bytes::from_static(b"data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n");
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

/// A layer that does nothing: what any layer costs.
#[derive(Clone, Copy)]
pub struct NoOp;

#[derive(Clone)]
pub struct NoOpService<S>(S);

impl<S> Layer<S> for NoOp {
    type Service = NoOpService<S>;
    fn layer(&self, inner: S) -> NoOpService<S> {
        NoOpService(inner)
    }
}

impl<S: Service<Request>> Service<Request> for NoOpService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request) -> S::Future {
        self.0.call(request)
    }
}

pub fn through_from_fn(app: Router) -> Router {
    app.layer(from_fn(|request: Request, next: Next| next.run(request)))
}

/// A request as a client with a session sends it.
pub fn request(id: &str) -> Request {
    message(PING).header("mcp-session-id", id).body(Body::from(PING)).unwrap()
}

fn message(body: &str) -> http::request::Builder {
    Request::post("/mcp")
        .header("host", "localhost:8000")
        .header("accept", "application/json, text/event-stream")
        .header(CONTENT_TYPE, "application/json")
        .header("content-length", body.len())
        .header("mcp-protocol-version", "2025-11-25")
}

/// Calls, and reads the answer to its end. Nothing in it waits.
pub fn exchange<S, B>(service: &mut S, request: Request)
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: HttpBody<Data = Bytes> + Unpin,
{
    let response = service.call(request).now_or_never().unwrap();
    let Ok(mut response) = response;
    let body = response.body_mut();
    let mut frames = 0;
    while let Some(frame) = body.frame().now_or_never().unwrap() {
        frames += usize::from(frame.is_ok());
    }
    assert!(frames > 0 && response.status().is_success());
}

/// Opens sessions; their ids.
pub fn open<S, B>(runtime: &Runtime, service: &S, count: usize) -> Vec<String>
where
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    let open_one = |service: S| async move {
        let request = message(INITIALIZE).body(Body::from(INITIALIZE)).unwrap();
        let Ok(response) = service.oneshot(request).await;
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    };
    let mut ids = Vec::with_capacity(count);
    // Each takes 10 ms: many at a time.
    while ids.len() < count {
        let many = (count - ids.len()).min(10_000);
        let opening: Vec<_> = (0..many).map(|_| runtime.spawn(open_one(service.clone()))).collect();
        for one in opening {
            ids.push(runtime.block_on(one).unwrap());
        }
    }
    ids
}

pub fn layer(sessions: usize) -> McpSessionLayer {
    let hour = Duration::from_secs(3_600);
    McpSessionLayer::new()
        .max_sessions(sessions.max(10_000))
        .idle_timeout(hour)
        .unused_timeout(hour)
}
