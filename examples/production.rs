//! The layer among the others a public server has: traces, CORS, a body limit, authentication, a
//! timeout.
//!
//! ```text
//! cargo run --example production -- --user alice=s3cret --user bob=hunter2
//! ```
//!
//! ```text
//! curl -si http://127.0.0.1:8000/mcp -d '{}'                      # 401, before the layer
//! curl -si http://127.0.0.1:8000/mcp -H 'Authorization: Bearer s3cret' \
//!   -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \
//!   -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",
//!   "capabilities":{},"clientInfo":{"name":"curl","version":"8"}}}'
//!
//! ID=...   # the Mcp-Session-Id of the answer: alice's. To bob it does not exist.
//! curl -si http://127.0.0.1:8000/mcp -H 'Authorization: Bearer hunter2' \
//!   -H "Mcp-Session-Id: $ID" -H 'Content-Type: application/json' \
//!   -d '{"jsonrpc":"2.0","id":2,"method":"ping"}'                 # 404
//!
//! curl -s http://127.0.0.1:8001/stats                             # the operator's own port
//! ```

use std::{collections::HashMap, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use clap::Parser;
use mcp_session_layer::{McpSessionLayer, SessionEvent, WhenFull};
use tokio_util::sync::CancellationToken;
use tower_http::{
    cors::CorsLayer,
    limit::RequestBodyLimitLayer,
    timeout::TimeoutLayer,
    trace::{DefaultMakeSpan, DefaultOnResponse, TraceLayer},
};
use tracing::Level;

mod common {
    pub(crate) mod flags;
    pub(crate) mod log;
    pub(crate) mod net;
    pub(crate) mod ops;
    pub(crate) mod serve;
    pub(crate) mod tools;
}
use common::{
    flags::Flags,
    log, net, ops,
    serve::{LOG, serve},
    tools::RmcpServer,
};

/// How long the head of a response may take. It has to be longer than the layer waits for an
/// `initialize` (30 s), or the client sees this timeout where the layer had a better answer.
const RESPONSE_HEAD: Duration = Duration::from_secs(60);
const MAX_BODY: usize = 1 << 20;

/// An MCP server with authentication, CORS, limits and traces around the session layer.
///
/// MCP is at /mcp; /health and /stats are on the operator's address.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    flags: Flags,

    /// Address for /health and /stats, to be kept from the public
    #[arg(long, default_value = "127.0.0.1:8001")]
    ops_addr: SocketAddr,

    /// Who may come in, by which bearer token (may be repeated)
    #[arg(long = "user", value_name = "NAME=TOKEN", value_parser = user,
          default_values = ["alice=alices-token", "bob=bobs-token"])]
    users: Vec<(User, String)>,

    /// Keep at most this many sessions for one user
    #[arg(long, default_value = "20")]
    max_sessions_per_user: NonZeroUsize,

    /// A web page's origin that may use this server (may be repeated)
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    origins: Vec<HeaderValue>,

    /// Answer requests for this host name too (may be repeated)
    #[arg(long = "allowed-host", value_name = "HOST")]
    hosts: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log::init(LOG);

    let stop = CancellationToken::new();
    let rmcp = RmcpServer::new(&stop, args.hosts);
    let layer = session_layer(&args.flags, args.max_sessions_per_user);
    let sessions = layer.sessions();

    let operator = net::listen(args.ops_addr).await.context("the operator's address")?;
    let kept = rmcp.kept;
    let ops = ops::routes(sessions.clone(), move || kept.clone().count());
    // Not stopped by a signal: it answers until the last call in flight has ended.
    tokio::spawn(axum::serve(operator, ops).into_future());

    // The layer added last is the outermost. From the inside out:
    let app = Router::new()
        .route_service("/mcp", rmcp.service)
        // The session layer is the innermost. When it closes a session, it sends a DELETE to what
        // is inside of it, and to nothing else. Were authentication inside, that DELETE would
        // need credentials, and `terminate_with` would be the place to add them.
        .layer(layer)
        // It bounds the time to the head of the response only. rmcp sends the head of an SSE
        // answer at once, so neither long calls nor streams are cut. A server that answers long
        // calls with plain JSON sends the head with the result, and needs a limit longer than its
        // longest call. (A timeout on the *body* would cut every stream silent for that long.)
        //
        // It is outside of the session layer because that one can be dropped at any time: it ends
        // an `initialize` on its own, and closes what came of it. rmcp, dropped in the middle of
        // one, keeps a session whose id nobody has ever seen.
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, RESPONSE_HEAD))
        // Who is it? Outside of the session layer, which asks for the answer in `principal`: a
        // request without a good token never learns whether a session exists.
        .layer(from_fn_with_state(Arc::new(Users::new(args.users)), authenticate))
        // Before anything reads the body. One of unknown length is cut at the limit instead, and
        // the server behind says so in its own way.
        .layer(RequestBodyLimitLayer::new(MAX_BODY))
        // Outside of authentication: a browser's preflight carries no token, and a page can read
        // a 401 or a 404 only if it comes with these headers.
        .layer(cors(args.origins))
        // Sees everything. The default span has the method and the URI, and no headers: a session
        // id is a secret and has no place in a log.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(DefaultMakeSpan::new().level(Level::INFO))
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        );
    serve(args.flags.addr, app, sessions, stop).await
}

fn session_layer(flags: &Flags, per_user: NonZeroUsize) -> McpSessionLayer {
    flags
        .layer()
        .principal(|parts| parts.extensions.get::<User>().map(|user| user.0.clone()))
        .max_sessions_per_principal(per_user.get())
        // Users of a full server who are idle make room before anybody is turned away.
        .when_full(WhenFull::EvictIdle)
        .on_event(log_event)
}

/// Events name a session by its fingerprint, which is safe to write down.
fn log_event(event: &SessionEvent) {
    match event {
        SessionEvent::Opened { session, principal, client, .. } => {
            let user = principal.as_ref().map(|principal| principal.as_str());
            let client = client.as_ref().and_then(|client| client.name.as_deref());
            tracing::info!(%session, user, client, "session opened");
        }
        SessionEvent::Closed { session, reason, lifetime, requests, .. } => {
            tracing::info!(%session, %reason, ?lifetime, requests, "session closed");
        }
        SessionEvent::Rejected { why, .. } => tracing::info!(%why, "request refused"),
        _ => {}
    }
}

/// A user whose token was verified.
#[derive(Clone, Debug)]
struct User(String);

fn user(text: &str) -> Result<(User, String), &'static str> {
    match text.split_once('=') {
        Some((name, token)) if !name.is_empty() && !token.is_empty() => {
            Ok((User(name.to_owned()), token.to_owned()))
        }
        _ => Err("not NAME=TOKEN"),
    }
}

/// A toy. A real one verifies a signature, or compares digests of tokens in constant time: a map
/// looked up by the token itself gives away, by how long it takes, how near a guess was.
#[derive(Debug)]
struct Users(HashMap<String, User>);

impl Users {
    fn new(users: Vec<(User, String)>) -> Self {
        Self(users.into_iter().map(|(user, token)| (token, user)).collect())
    }

    fn verify(&self, headers: &HeaderMap) -> Option<&User> {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
        self.0.get(value.strip_prefix("Bearer ")?)
    }
}

/// Lets pass whoever has a good token, and notes down who it is.
async fn authenticate(
    State(users): State<Arc<Users>>,
    mut request: Request,
    next: Next,
) -> Response {
    match users.verify(request.headers()) {
        Some(user) => {
            request.extensions_mut().insert(user.clone());
            next.run(request).await
        }
        None => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response(),
    }
}

/// A web page reads `Mcp-Session-Id` only if it is exposed, and sends MCP's headers only if they
/// are allowed.
fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    let session_id = HeaderName::from_static("mcp-session-id");
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            ACCEPT,
            AUTHORIZATION,
            CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("mcp-method"),
            HeaderName::from_static("mcp-name"),
            HeaderName::from_static("mcp-protocol-version"),
            session_id.clone(),
        ])
        .expose_headers([session_id, RETRY_AFTER, WWW_AUTHENTICATE])
}
