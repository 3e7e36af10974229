//! A server built on rmcp, the official Rust SDK, with its sessions in the layer's hands.
//!
//! ```text
//! cargo run --example rmcp_server -- --idle-timeout 10s
//! ```
//!
//! Open a session, use it, and watch it go:
//!
//! ```text
//! curl -si http://127.0.0.1:8000/mcp -H 'Content-Type: application/json' \
//!   -H 'Accept: application/json, text/event-stream' -d '{"jsonrpc":"2.0","id":1,
//!   "method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},
//!   "clientInfo":{"name":"curl","version":"8"}}}'
//!
//! ID=...   # the Mcp-Session-Id of the answer
//! curl -s http://127.0.0.1:8000/mcp -H "Mcp-Session-Id: $ID" \
//!   -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \
//!   -d '{"jsonrpc":"2.0","method":"notifications/initialized"}'
//! curl -sN http://127.0.0.1:8000/mcp -H "Mcp-Session-Id: $ID" \
//!   -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \
//!   -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"count"}}'
//!
//! curl -s http://127.0.0.1:8000/stats
//! ```
//!
//! In `/stats`, `live` is the layer's table, `inner` is rmcp's, and `handlers` counts the handler
//! objects that rmcp keeps alive: at rest the three are equal. With
//! `RUST_LOG=mcp_session_layer=debug` the log tells of every session that opens or closes.
//!
//! rmcp answers only requests for a loopback `Host`, unless told otherwise by `--allowed-host`.

use axum::Router;
use clap::Parser;
use tokio_util::sync::CancellationToken;

mod common {
    pub(crate) mod bearer;
    pub(crate) mod flags;
    pub(crate) mod log;
    pub(crate) mod net;
    pub(crate) mod ops;
    pub(crate) mod serve;
    pub(crate) mod tools;
}
use common::{
    bearer::Owner,
    flags::Flags,
    log, ops,
    serve::{LOG, serve},
    tools::RmcpServer,
};

/// An MCP server built on rmcp, with its sessions managed by the layer.
///
/// MCP is at /mcp; /health and /stats are beside it. Tools: echo, sleep, count, spam.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    flags: Flags,

    #[command(flatten)]
    owner: Owner,

    /// Answer requests for this host name too (may be repeated)
    #[arg(long, value_name = "HOST")]
    allowed_host: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log::init(LOG);

    let stop = CancellationToken::new();
    let RmcpServer { service, kept } = RmcpServer::new(&stop, args.allowed_host);
    let layer = args.owner.apply(args.flags.layer());
    let sessions = layer.sessions();

    // One layer around all routes: it looks at `/mcp` only.
    let app = Router::new()
        .route_service("/mcp", service)
        .merge(ops::routes(sessions.clone(), move || kept.clone().count()))
        .layer(layer);
    serve(args.flags.addr, app, sessions, stop).await
}
