//! The server, in a process of its own.

use std::io::Read;

use axum::{
    Json, Router,
    routing::{get, post},
};
use http::request::Parts;
use mcp_session_layer::{McpSessionLayer, Sessions, WhenFull};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, session::local::LocalSessionManager,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    column::{Column, Setup},
    common::net::bind,
    sdk::{Kept, Opens},
};

/// What a server keeps.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// In rmcp's table.
    pub(crate) sessions: usize,
    /// Handlers that are alive: what a session costs does not end with its entry in the table.
    pub(crate) handlers: usize,
    /// Messages that found room on their way to the client.
    pub(crate) sent: usize,
    pub(crate) tasks: usize,
    /// Resident memory in KiB.
    pub(crate) resident: usize,
}

impl Stats {
    /// Sessions of which anything is left.
    pub(crate) fn left(&self) -> usize {
        self.sessions.max(self.handlers)
    }
}

/// Serves until told to stop, or until nobody is there any more to tell it.
pub(crate) async fn serve(setup: Setup) {
    let stop = CancellationToken::new();
    let mut manager = LocalSessionManager::default();
    let mut config = StreamableHttpServerConfig::default();
    let mut cap = usize::MAX;
    match setup.column {
        Column::Bare => {}
        Column::Tuned => {
            manager.session_config.keep_alive = Some(setup.idle);
            manager.session_config.init_timeout = Some(setup.idle);
            config = config.with_cancellation_token(stop.clone());
            cap = setup.cap;
        }
        Column::Layered => {
            manager.session_config.keep_alive = None;
            config = config.with_cancellation_token(stop.clone());
        }
    }
    let (kept, service) = Kept::of(manager, Opens::After(setup.initialize), config, cap);
    let mut app = Router::new().route_service("/mcp", service);
    let mut sessions = None;
    if setup.column == Column::Layered {
        let layer = layer(&setup);
        sessions = Some(layer.sessions());
        app = app.layer(layer);
    }

    let (told, mut to_stop) = mpsc::channel::<()>(1);
    let operator =
        Router::new().route("/stats", get(async move || Json(stats(&kept).await))).route(
            "/stop",
            post(async move || {
                // Once is enough.
                let _ = told.try_send(());
            }),
        );
    let (listener, addr) = bind().await;
    let closing = CancellationToken::new();
    let serving = axum::serve(listener, app.merge(operator))
        .with_graceful_shutdown(closing.clone().cancelled_owned());
    let serving = tokio::spawn(serving.into_future());
    println!("{addr}");

    // Not tokio's: a read of stdin would keep the runtime from ending.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    to_stop.recv().await;
    drain(&setup, sessions, closing, stop).await;
    serving.await.unwrap().unwrap();
}

/// The best order there is for each of them.
async fn drain(
    setup: &Setup,
    sessions: Option<Sessions>,
    closing: CancellationToken,
    stop: CancellationToken,
) {
    if let Some(sessions) = sessions {
        sessions.shutdown(setup.grace).await;
        closing.cancel();
        stop.cancel();
        return;
    }
    closing.cancel();
    if setup.column == Column::Tuned {
        // Nothing tells when the calls are over, and streams end by the token alone.
        sleep(setup.grace).await;
        stop.cancel();
    }
}

fn layer(setup: &Setup) -> McpSessionLayer {
    let mut layer = McpSessionLayer::new()
        .path("/mcp")
        .idle_timeout(setup.idle)
        .unused_timeout(setup.unused)
        .max_sessions(setup.cap);
    if let Some(each) = setup.each {
        layer =
            layer.principal(bearer).max_sessions_per_principal(each).when_full(WhenFull::EvictIdle);
    }
    if let Some(age) = setup.stream_lifetime {
        layer = layer.stream_lifetime(age);
    }
    layer
}

/// Stands for an authentication that has verified the name.
fn bearer(parts: &Parts) -> Option<String> {
    let value = parts.headers.get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

async fn stats(kept: &Kept) -> Stats {
    let (sessions, handlers) = kept.counts().await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let sent = kept.spammed.load(std::sync::atomic::Ordering::SeqCst);
    Stats { sessions, handlers, sent, tasks, resident }
}
