//! Sessions that are live and in use.

use std::net::SocketAddr;

use futures_util::{StreamExt as _, stream};
use reqwest::{Client, Response};
use tokio::runtime::Builder;
use uuid::Uuid;

pub const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
pub const ACCEPT: &str = "application/json, text/event-stream";

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1.0"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

const AT_ONCE: usize = 64;

/// The ids of as many sessions, each of which has answered.
pub fn open(address: SocketAddr, count: usize) -> Vec<String> {
    let client = Client::builder().no_proxy().tcp_nodelay(true).build().unwrap();
    let url = format!("http://{address}/mcp");
    let opening = stream::iter(0..count).map(|_| open_one(&client, &url));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(opening.buffer_unordered(AT_ONCE).collect())
}

async fn open_one(client: &Client, url: &str) -> String {
    let opened = post(client, url, None, INITIALIZE).await;
    let id = opened.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
    opened.text().await.unwrap();
    // A server that knows of no sessions is told of one all the same.
    let id = id.unwrap_or_else(|| Uuid::new_v4().to_string());
    post(client, url, Some(&id), INITIALIZED).await.text().await.unwrap();
    let answer = post(client, url, Some(&id), PING).await.text().await.unwrap();
    assert!(answer.contains(r#""result":{}"#), "ping was answered by {answer:?}");
    id
}

async fn post(client: &Client, url: &str, id: Option<&str>, message: &'static str) -> Response {
    let request = client.post(url).header("content-type", "application/json");
    let request = request.header("accept", ACCEPT).body(message);
    let request = id.into_iter().fold(request, |request, id| request.header("mcp-session-id", id));
    request.send().await.unwrap().error_for_status().unwrap()
}
