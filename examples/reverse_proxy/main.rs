//! The layer in front of an MCP server in any language, which keeps no timers of its own.
//!
//! ```text
//! cargo run --example rmcp_server -- --addr 127.0.0.1:9000   # or any other server
//! cargo run --example reverse_proxy -- --upstream http://127.0.0.1:9000 --idle-timeout 10s
//! ```
//!
//! Requests and answers stream through, both ways. When the layer closes a session, the upstream
//! hears of it as an ordinary `DELETE` with the session's id: nothing has to be done for that
//! here, because the layer sends it down the same way the `initialize` went.
//!
//! ```text
//! curl -si http://127.0.0.1:8000/mcp -H 'Content-Type: application/json' \
//!   -H 'Accept: application/json, text/event-stream' -d '{"jsonrpc":"2.0","id":1,
//!   "method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},
//!   "clientInfo":{"name":"curl","version":"8"}}}'
//! curl -s http://127.0.0.1:8000/stats
//! ```

use std::{str::FromStr, time::Duration};

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version,
        header::{self, HOST},
        uri::{Authority, PathAndQuery, Scheme},
    },
    response::{IntoResponse, Response},
    routing::any,
};
use clap::Parser;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[path = "../common"]
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

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than servers commonly keep an idle connection, so that we close it and not they.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// A reverse proxy that manages the sessions of the MCP server behind it.
///
/// MCP is at /mcp; /health and /stats are beside it.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    flags: Flags,

    #[command(flatten)]
    owner: Owner,

    /// The MCP server, as http://HOST:PORT with an optional path (without: the same path as here)
    #[arg(long, value_name = "URL")]
    upstream: Upstream,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log::init(LOG);

    let layer = args.owner.apply(args.flags.layer());
    let sessions = layer.sessions();
    let app = Router::new()
        .route("/mcp", any(forward))
        .with_state(Proxy::new(args.upstream))
        .merge(ops::routes(sessions.clone(), || async { json!({}) }))
        .layer(layer);
    serve(args.flags.addr, app, sessions, CancellationToken::new()).await
}

/// Where requests go.
#[derive(Clone, Debug)]
struct Upstream {
    authority: Authority,
    host: HeaderValue,
    /// Instead of the path the request has here.
    path: Option<String>,
}

impl FromStr for Upstream {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let uri: Uri = url.parse()?;
        ensure!(uri.scheme() == Some(&Scheme::HTTP), "not an http:// URL");
        ensure!(uri.query().is_none(), "a query does not belong here");
        let authority = uri.authority().context("no host")?.clone();
        let host = HeaderValue::from_str(authority.as_str())?;
        let path = Some(uri.path().to_owned()).filter(|path| path != "/");
        Ok(Self { authority, host, path })
    }
}

impl Upstream {
    fn uri(&self, asked: &Uri) -> Result<Uri, http::Error> {
        let target = match (&self.path, asked.query()) {
            (Some(path), Some(query)) => format!("{path}?{query}"),
            (Some(path), None) => path.clone(),
            (None, _) => asked.path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
        };
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
    }
}

#[derive(Clone, Debug)]
struct Proxy {
    upstream: Upstream,
    client: Client<HttpConnector, Body>,
}

impl Proxy {
    fn new(upstream: Upstream) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        Self { upstream, client }
    }

    async fn send(&self, request: Request) -> anyhow::Result<Response> {
        let (mut parts, body) = request.into_parts();
        parts.uri = self.upstream.uri(&parts.uri)?;
        // The client may have come by HTTP/2; the way on is HTTP/1.1.
        parts.version = Version::HTTP_11;
        strip_hop_by_hop(&mut parts.headers);
        parts.headers.insert(HOST, self.upstream.host.clone());

        let answer = self.client.request(Request::from_parts(parts, body)).await?;
        let (mut parts, body) = answer.into_parts();
        parts.version = Version::HTTP_11;
        strip_hop_by_hop(&mut parts.headers);
        // Not collected: the body goes to the client as it comes, and when the client leaves, or
        // the layer ends the stream, dropping it closes the connection to the upstream.
        Ok(Response::from_parts(parts, Body::new(body)))
    }
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    proxy.send(request).await.unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "upstream failed");
        (StatusCode::BAD_GATEWAY, "upstream unreachable").into_response()
    })
}

/// Takes out what concerns one connection only. `Expect` is one of them here, for the `100
/// Continue` it asks for has been sent by the time the body is read. The session id never is: a
/// client that names it in `Connection` would reach the upstream without one.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const HOP_BY_HOP: [HeaderName; 10] = [
        header::CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::EXPECT,
    ];
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|names| names.split(','));
    let names = names.filter_map(|name| name.trim().parse::<HeaderName>().ok());
    names.filter(|name| name != "mcp-session-id").collect()
}
