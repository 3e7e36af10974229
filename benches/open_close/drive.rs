//! Clients that open a session, close it, and open the next.

use std::time::{Duration, Instant};

use axum::{Router, body::Body};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt as _;
use tokio::task::{JoinSet, yield_now};
use tower::ServiceExt as _;

use crate::{processor, server::Server};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1.0"}}}"#;

/// Of one slice of time.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub sessions: u64,
    elapsed: Duration,
    processor: Duration,
    /// Of `initialize`, from the call to the end of its answer's body.
    open: Duration,
}

impl Outcome {
    pub fn throughput(&self) -> f64 {
        self.sessions as f64 / self.elapsed.as_secs_f64()
    }

    pub fn open_micros(&self) -> f64 {
        self.open.as_secs_f64() * 1e6
    }

    pub fn processor_micros(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.sessions as f64
    }
}

pub async fn open(app: &Router) -> HeaderValue {
    let request = Request::post("/mcp")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    let answer = send(app, request.header("host", "localhost").body(INITIALIZE.into())).await;
    answer.headers()["mcp-session-id"].clone()
}

async fn close(app: &Router, id: HeaderValue) {
    let request = Request::builder().method(Method::DELETE).uri("/mcp").header("host", "localhost");
    send(app, request.header("mcp-session-id", id).body(Body::empty())).await;
}

/// The answer, with its body read to the end.
async fn send(app: &Router, request: http::Result<Request<Body>>) -> Response<()> {
    let Ok(answer) = app.clone().oneshot(request.unwrap()).await;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert!(head.status.is_success(), "{} {}", head.status, String::from_utf8_lossy(&body));
    Response::from_parts(head, ())
}

/// So many clients at once, each until the slice is over and its last session is closed.
pub fn drive(server: &Server, at_once: usize, live: usize, slice: Duration) -> Outcome {
    let processor = processor::time();
    let begin = Instant::now();
    let (sessions, mut opens) = server.runtime.block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..at_once {
            let app = server.app.clone();
            clients.spawn(async move {
                let mut opens = Vec::new();
                while opens.is_empty() || begin.elapsed() < slice {
                    let opening = Instant::now();
                    let id = open(&app).await;
                    opens.push(opening.elapsed());
                    close(&app, id).await;
                    // A server that never waits would serve one client until the end.
                    yield_now().await;
                }
                opens
            });
        }
        let opens = clients.join_all().await.concat();
        (opens.len() as u64, opens)
    });
    let elapsed = begin.elapsed();
    server.loses_all_but(live);
    // What a server puts off until the client has its answer is its cost all the same.
    let processor = processor::time() - processor;
    let middle = opens.len() / 2;
    let (_, &mut open, _) = opens.select_nth_unstable(middle);
    Outcome { sessions, elapsed, processor, open }
}
