//! The server under load: rmcp behind the layer, as the production example has it.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
};

use axum::{
    Json, Router,
    extract::Request,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use http::{StatusCode, header::AUTHORIZATION};
use mcp_session_layer::{McpSessionLayer, Sessions, WhenFull};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::{limit::RequestBodyLimitLayer, timeout::TimeoutLayer};

use super::{
    figures::Figures,
    heap, ms,
    plant::{self, Plant},
};

#[path = "../../examples/common/tools.rs"]
mod tools;
use tools::{Kept, RmcpServer};

/// As in the production example.
const MAX_BODY: usize = 1 << 20;

/// Everything the server is told, in one argument. Times in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub idle: u64,
    pub unused: u64,
    pub stream_lifetime: u64,
    pub max_lifetime: u64,
    pub heartbeat: u64,
    pub open_timeout: u64,
    pub close_timeout: u64,
    pub response_head: u64,
    pub max_sessions: usize,
    /// With it, sessions have owners: the name in `Authorization: Bearer <name>`.
    pub per_principal: Option<usize>,
    pub plant: Option<Plant>,
}

/// Where the server listens; the first line it writes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Addresses {
    pub mcp: SocketAddr,
    pub ops: SocketAddr,
}

#[derive(Clone, Debug)]
struct User(String);

impl Setup {
    fn layer(&self) -> McpSessionLayer {
        let (idle, lifetime) = match self.plant {
            Some(Plant::Hasty) => (self.idle / 3, self.max_lifetime),
            Some(Plant::Undying) => (self.idle * 100, self.max_lifetime * 100),
            _ => (self.idle, self.max_lifetime),
        };
        let layer = McpSessionLayer::new()
            .path("/mcp")
            .idle_timeout(ms(idle))
            .unused_timeout(ms(self.unused))
            .stream_lifetime(ms(self.stream_lifetime))
            .max_lifetime(ms(lifetime))
            .heartbeat(ms(self.heartbeat))
            .open_timeout(ms(self.open_timeout))
            .close_timeout(ms(self.close_timeout))
            .max_sessions(self.max_sessions);
        let Some(most) = self.per_principal else { return layer };
        let layer =
            layer.principal(|parts| parts.extensions.get::<User>().map(|user| user.0.clone()));
        if self.plant == Some(Plant::Uncapped) {
            return layer;
        }
        layer.max_sessions_per_principal(most).when_full(WhenFull::EvictIdle)
    }
}

/// Serves until nobody holds its standard input any more.
pub async fn run(setup: Setup) {
    let stop = CancellationToken::new();
    let RmcpServer { service, kept } = RmcpServer::new(&stop, Vec::new());
    let layer = setup.layer();
    let sessions = layer.sessions();

    let mut app = Router::new().route_service("/mcp", service);
    if let Some(plant) = setup.plant {
        app = app.layer(from_fn_with_state(plant, plant::inside));
    }
    app = app
        .layer(layer)
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, ms(setup.response_head)))
        .layer(RequestBodyLimitLayer::new(MAX_BODY));
    if setup.per_principal.is_some() {
        app = app.layer(from_fn(authenticate));
    }
    if let Some(plant) = setup.plant {
        app = app.layer(from_fn_with_state(plant, plant::outside));
    }

    let (mcp, ops) = (listener().await, listener().await);
    let addresses = Addresses { mcp: mcp.local_addr().unwrap(), ops: ops.local_addr().unwrap() };
    let ops_app = Router::new().route("/stats", get(async move || stats(&sessions, &kept).await));
    let ops = axum::serve(ops, ops_app).into_future();
    let mcp = mcp.tap_io(|io| drop(io.set_nodelay(true)));
    let mcp = axum::serve(mcp, app).into_future();
    println!("{}", serde_json::to_string(&addresses).unwrap());
    std::io::stdout().flush().unwrap();

    let orphaned = tokio::task::spawn_blocking(|| {
        let mut rest = Vec::new();
        drop(std::io::stdin().read_to_end(&mut rest));
    });
    tokio::spawn(ops);
    tokio::spawn(mcp);
    drop(orphaned.await);
    std::process::exit(0);
}

async fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

async fn authenticate(mut request: Request, next: Next) -> Response {
    let user = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(name) = user.and_then(|value| value.strip_prefix("Bearer ")) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let user = User(name.to_owned());
    request.extensions_mut().insert(user);
    next.run(request).await
}

async fn stats(sessions: &Sessions, kept: &Kept) -> Json<Figures> {
    let stats = sessions.stats();
    let counts = kept.clone().count().await;
    let debug = format!("{sessions:?}");
    Json(Figures {
        live: stats.live,
        opening: stats.opening,
        closing: stats.closing,
        in_flight: stats.in_flight as usize,
        streams: stats.streams,
        inner: counts.inner,
        handlers: counts.handlers,
        unclaimed: field(&debug, "unclaimed"),
        queued: field(&debug, "queued"),
        waiting: field(&debug, "waiting"),
        shares: field(&debug, "shares"),
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        heap: heap(),
        opened: stats.opened as usize,
        closed: stats.closed.total() as usize,
        closed_by: stats.closed.iter().map(|(why, n)| (why.to_string(), n as usize)).collect(),
        rejected: stats.rejected as usize,
        terminate_failures: stats.terminate_failures as usize,
    })
}

/// What `Stats` does not count stands in the `Debug` output of the handle.
fn field(debug: &str, name: &str) -> usize {
    let value = debug.split(&format!("{name}: ")).nth(1).unwrap();
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}
