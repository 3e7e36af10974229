//! A client of thousands of connections.

use std::{net::SocketAddr, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Requests without an answer yet. It bounds how many connect at once: more than the listener's
/// backlog would have to be sent twice, a second apart.
const AT_ONCE: usize = 200;

const ACCEPT: &str = "application/json, text/event-stream";

#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    gate: Arc<Semaphore>,
}

/// Why there was no answer.
pub type Failure = String;

impl Http {
    pub fn new(addr: SocketAddr) -> Self {
        Self::with_connector(addr, HttpConnector::new())
    }

    /// Its peer can soon send no more, unless we read.
    pub fn narrow(addr: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_recv_buffer_size(Some(4096));
        Self::with_connector(addr, connector)
    }

    fn with_connector(addr: SocketAddr, mut connector: HttpConnector) -> Self {
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, url: format!("http://{addr}/mcp"), gate: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    pub fn request(&self, method: &Method, id: Option<&str>, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(&self.url).header("accept", ACCEPT);
        if *method == Method::POST {
            request = request.header("content-type", "application/json");
        }
        if let Some(id) = id {
            request = request.header("mcp-session-id", id);
        }
        request.body(Full::new(body)).unwrap()
    }

    /// Up to the head of the answer. An answer that is dropped is hung up on.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Body>, Failure> {
        let _place = self.gate.acquire().await.unwrap();
        let answer = self.client.request(request).await;
        answer.map(|answer| answer.map(Body::new)).map_err(|error| reason(&error))
    }

    pub async fn post(&self, id: Option<&str>, body: &Bytes) -> Result<Response<Body>, Failure> {
        self.send(self.request(&Method::POST, id, body.clone())).await
    }

    pub async fn get(&self, id: &str) -> Result<Response<Body>, Failure> {
        self.send(self.request(&Method::GET, Some(id), Bytes::new())).await
    }

    pub async fn delete(&self, id: &str) -> Result<Response<Body>, Failure> {
        self.send(self.request(&Method::DELETE, Some(id), Bytes::new())).await
    }
}

fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The whole body.
pub async fn read(answer: Response<Body>) -> Result<(StatusCode, String), Failure> {
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.map_err(|error| reason(&error))?.to_bytes();
    Ok((parts.status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Waits for a body to end, and lets go of what comes.
pub async fn drain(answer: Response<Body>) -> Result<(), Failure> {
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| reason(&error))?;
    }
    Ok(())
}

pub fn session_id(answer: &Response<Body>) -> Option<String> {
    Some(answer.headers().get("mcp-session-id")?.to_str().ok()?.to_owned())
}

fn bytes(message: &Value) -> Bytes {
    message.to_string().into()
}

pub fn initialize() -> Bytes {
    bytes(&json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "load", "version": "1.0" },
        },
    }))
}

/// Longer than the layer looks, and read by the server behind all the same.
pub fn long_initialize() -> Bytes {
    let mut body = initialize().to_vec();
    body.splice(1..1, std::iter::repeat_n(b' ', 70 * 1024));
    body.into()
}

pub fn initialized() -> Bytes {
    bytes(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
}

pub fn call(tool: &str, arguments: &Value) -> Bytes {
    bytes(&json!({
        "jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments },
    }))
}
