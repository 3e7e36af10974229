//! An MCP endpoint written by hand, without any SDK: axum, `serde_json` and the layer.
//!
//! ```text
//! cargo run --example axum_handler -- --idle-timeout 10s
//! ```
//!
//! The handlers know nothing of session ids. The layer issues one for every `initialize` that
//! succeeds, refuses what it did not issue, and gives each session a place for typed state, which
//! goes when the session goes:
//!
//! ```text
//! curl -si http://127.0.0.1:8000/mcp -H 'Content-Type: application/json' \
//!   -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",
//!   "capabilities":{},"clientInfo":{"name":"curl","version":"8"}}}'
//!
//! ID=...   # the Mcp-Session-Id of the answer
//! curl -s http://127.0.0.1:8000/mcp -H "Mcp-Session-Id: $ID" -H 'Content-Type: application/json' \
//!   -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"count"}}'
//! curl -sN http://127.0.0.1:8000/mcp -H "Mcp-Session-Id: $ID" -H 'Accept: text/event-stream'
//! curl -si -X DELETE http://127.0.0.1:8000/mcp -H "Mcp-Session-Id: $ID"
//! ```
//!
//! It does not check `Origin`, as a server that browsers can reach has to.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::post,
};
use clap::Parser;
use futures_util::{Stream, stream};
use mcp_session_layer::Session;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

mod common {
    pub(crate) mod bearer;
    pub(crate) mod flags;
    pub(crate) mod log;
    pub(crate) mod net;
    pub(crate) mod ops;
    pub(crate) mod serve;
}
use common::{
    bearer::Owner,
    flags::Flags,
    log, ops,
    serve::{LOG, serve},
};

/// The revisions spoken here, the latest first: those that have sessions.
const VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// An MCP server written by hand with axum, its sessions managed by the layer.
///
/// MCP is at /mcp; /health and /stats are beside it. Tools: echo, count.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    flags: Flags,

    #[command(flatten)]
    owner: Owner,

    /// Send a notification on every GET stream this often
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    notify_every: Duration,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log::init(LOG);

    let layer = args.owner.apply(args.flags.layer());
    let sessions = layer.sessions();
    // No route for DELETE: the layer issued the ids, so it answers that itself.
    let mcp = post(receive).get(move |session| notifications(session, args.notify_every));
    let app = Router::new()
        .route("/mcp", mcp)
        .merge(ops::routes(sessions.clone(), || async { json!({}) }))
        .layer(layer)
        // Once, and not for every connection.
        .with_state(());
    serve(args.flags.addr, app, sessions, CancellationToken::new()).await
}

/// How often `count` was called in one session.
#[derive(Debug, Default)]
struct Calls(AtomicU64);

impl Drop for Calls {
    fn drop(&mut self) {
        tracing::info!(calls = self.0.load(Ordering::Relaxed), "a session took its counter along");
    }
}

/// A JSON-RPC error: its code and its message.
type RpcError = (i32, String);

/// `Session` is an extractor. It is optional here, for there is none before `initialize`.
async fn receive(session: Option<Session>, headers: HeaderMap, body: Bytes) -> Response {
    if !speaks(&headers) {
        return refuse(-32000, "unsupported MCP-Protocol-Version");
    }
    let message: Value = match serde_json::from_slice(&body) {
        Ok(message @ Value::Object(_)) => message,
        Ok(_) => return refuse(-32600, "not one JSON-RPC message"),
        Err(_) => return refuse(-32700, "not JSON"),
    };
    // Without an id it is a notification, without a method an answer; we ask nothing.
    let (Some(id), Some(method)) = (message.get("id"), message["method"].as_str()) else {
        return StatusCode::ACCEPTED.into_response();
    };
    Json(match answer(method, &message["params"], session.as_ref()) {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    })
    .into_response()
}

/// No `MCP-Protocol-Version` means an early revision.
fn speaks(headers: &HeaderMap) -> bool {
    headers
        .get("mcp-protocol-version")
        .is_none_or(|version| VERSIONS.iter().any(|known| version == known))
}

fn refuse(code: i32, message: &str) -> Response {
    let error = json!({"jsonrpc": "2.0", "error": {"code": code, "message": message}});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}

fn answer(method: &str, params: &Value, session: Option<&Session>) -> Result<Value, RpcError> {
    match method {
        "initialize" => Ok(initialize(params)),
        "ping" | "logging/setLevel" => Ok(json!({})),
        "tools/list" => Ok(tools()),
        "tools/call" => call(params, session),
        unknown => Err((-32601, format!("method not found: {unknown}"))),
    }
}

fn initialize(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str();
    let version = VERSIONS.into_iter().find(|known| Some(*known) == asked).unwrap_or(VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}, "logging": {}},
        "serverInfo": {"name": "mcp-session-layer-by-hand", "version": "0.1.0"},
    })
}

fn tools() -> Value {
    json!({"tools": [
        {
            "name": "echo",
            "description": "Say the text back",
            "inputSchema": {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
            },
        },
        {
            "name": "count",
            "description": "Count the calls of this tool in this session",
            "inputSchema": {"type": "object"},
        },
    ]})
}

fn call(params: &Value, session: Option<&Session>) -> Result<Value, RpcError> {
    let text = match params["name"].as_str() {
        Some("echo") => match params["arguments"]["text"].as_str() {
            Some(text) => text.to_owned(),
            None => return Err((-32602, "echo needs a text".to_owned())),
        },
        Some("count") => count(session)?.to_string(),
        _ => return Err((-32602, "unknown tool".to_owned())),
    };
    Ok(json!({"content": [{"type": "text", "text": text}]}))
}

fn count(session: Option<&Session>) -> Result<u64, RpcError> {
    let session = session.ok_or_else(|| (-32600, "there is no session to count in".to_owned()))?;
    let calls = session.state().get_or_insert_with::<Calls>(Calls::default);
    Ok(calls.0.fetch_add(1, Ordering::Relaxed) + 1)
}

/// The GET stream. It has no end of its own: the layer ends it together with the session.
async fn notifications(
    _session: Session,
    every: Duration,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::unfold(0_u64, move |n| async move {
        tokio::time::sleep(every).await;
        let params = json!({"level": "info", "data": format!("notification {n}")});
        let message =
            json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
        Some((Ok(Event::default().data(message.to_string())), n + 1))
    }))
}
