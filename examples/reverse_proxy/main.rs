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
//!
//! # What a request goes through
//!
//! 1. `guard`: `Host` and `Origin` have to be allowed, or it is 403. The upstream cannot check them any
//!    more, for it sees its own address as `Host`. `/health` answers anybody, `/stats` does not.
//! 2. `cors`, with `--cors-origin`: preflights are answered here.
//! 3. The session layer, around `/mcp` and `/mcp/`, which are one endpoint.
//! 4. `headers`: nothing that concerns one connection goes on; nothing that a proxy would say
//!    (`X-Forwarded-*`, `Forwarded`, `X-Real-IP`), as strangers could say it too; and no header whose name has
//!    more than letters, digits and hyphens, since servers read `Mcp_Session_Id` as the session id.
//! 5. `upstream_header`: what `--upstream-header` adds, also to the `DELETE` of the layer.
//! 6. `proxy`: HTTP/1.1 to the upstream. It has 5 seconds to accept the connection, and then its time:
//!    calls may be long. `open_timeout` and `close_timeout` of the layer bound the others.
//! 7. `redirect`: 307 and 308 to the upstream's own authority are followed, five times at the most, if
//!    the body was of 1 MiB or less (`replay` keeps it). Any other `Location` there becomes a path of the
//!    proxy; a redirect to another authority is 502, for it may be the upstream by another name.
//!
//! Headers that name the upstream do not reach the client. Bodies are not looked through.

use std::sync::Arc;

use axum::{Router, middleware::from_fn_with_state, routing::any};
use clap::Parser;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

#[path = "../common"]
mod common {
    pub(crate) mod bearer;
    pub(crate) mod flags;
    pub(crate) mod log;
    pub(crate) mod net;
    pub(crate) mod ops;
    pub(crate) mod serve;
}
mod cors;
mod guard;
mod headers;
mod names;
mod proxy;
mod redirect;
mod replay;
mod trailers;
mod upstream;
mod upstream_header;

use common::{
    bearer::Owner,
    flags::Flags,
    log, ops,
    serve::{LOG, serve},
};
use guard::Guard;
use names::{Authority, Origin};
use proxy::{Proxy, forward};
use upstream::Upstream;

/// A reverse proxy that manages the sessions of the MCP server behind it.
///
/// MCP is at /mcp; /health and /stats are beside it. Put TLS and authentication in front.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    flags: Flags,

    #[command(flatten)]
    owner: Owner,

    /// The MCP server, as http://HOST:PORT with an optional path (without: /mcp)
    ///
    /// If it answers 301 or 302 at a path without a final slash, name the path with it.
    #[arg(long, value_name = "URL")]
    upstream: Upstream,

    /// Add this header to every request to the upstream, also to the DELETE that ends a session (may be
    /// repeated)
    ///
    /// It replaces the client's header of this name: 'Authorization: Bearer ...', for an upstream that
    /// authenticates. It is never logged, but other users of this machine may see it in the list of
    /// processes.
    #[arg(long = "upstream-header", value_name = "NAME: VALUE")]
    upstream_headers: Vec<upstream_header::Raw>,

    /// Answer requests for this host too, as HOST (any port) or HOST:PORT (may be repeated)
    ///
    /// By default the Host of a request has to be `localhost`, `127.0.0.1`, `[::1]` or the address of --addr,
    /// with any port, else the answer is 403: a web page can make any other name lead to this machine. With
    /// --addr 0.0.0.0 or `[::]`, name each host by which clients come.
    #[arg(long = "allowed-host", value_name = "HOST")]
    hosts: Vec<Authority>,

    /// Answer pages of this origin too (may be repeated)
    ///
    /// By default the Origin of a request has to be of a host that is allowed without a flag, with http or
    /// https and any port, else the answer is 403. Clients that are no browsers send none. A page needs CORS
    /// as well: that of the upstream, or --cors-origin.
    #[arg(long = "allowed-origin", value_name = "SCHEME://HOST[:PORT]")]
    origins: Vec<Origin>,

    /// Let pages of this origin use MCP by CORS; implies --allowed-origin (may be repeated)
    ///
    /// Preflights are answered here, and Mcp-Session-Id can be read. If the upstream refuses the page's Origin, put
    /// another in its place: --upstream-header 'Origin: ...'.
    #[arg(long = "cors-origin", value_name = "SCHEME://HOST[:PORT]")]
    cors_origins: Vec<Origin>,

    /// The upstream issues no session ids: let messages without one pass, and issue none
    ///
    /// If it issues one after all, that session is managed.
    #[arg(long)]
    stateless: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log::init(LOG);

    let mut layer = args.owner.apply(args.flags.layer());
    if args.stateless {
        layer = layer.mint_ids(false).forward_missing_ids();
    }
    let sessions = layer.sessions();
    let proxy = Proxy::new(args.upstream, upstream_header::parse(&args.upstream_headers)?);
    // One service for both paths, so that a session opened at one is known at the other.
    let mcp = layer.layer(any(forward).with_state(proxy));
    let mcp = Router::new().route_service("/mcp", mcp.clone()).route_service("/mcp/", mcp);
    let pages = args.cors_origins.iter().map(Origin::header).collect::<Result<_, _>>()?;
    let origins = [args.origins, args.cors_origins].concat();
    let guard = Guard::new(args.flags.addr, args.hosts, origins);
    let app = cors::apply(mcp, pages)
        .merge(ops::routes(sessions.clone(), || async { json!({}) }))
        // Outermost: what is refused opens nothing.
        .layer(from_fn_with_state(Arc::new(guard), guard::check));
    serve(args.flags.addr, app, sessions, CancellationToken::new()).await
}
