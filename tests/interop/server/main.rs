//! The server of the interoperability runs: rmcp with all that the conformance suite asks a server
//! for, behind the layer or bare. The two differ in nothing else.
//!
//! MCP is at `/mcp`. Beside it, `/traffic` lists the requests that came to `/mcp`, as the client
//! sent them and was answered, and `/sessions` counts what the layer and rmcp keep. It prints where
//! it listens, and ends with its standard input: no server outlives the run that started it.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, middleware, routing::get, serve::ListenerExt as _};
use clap::{Parser, ValueEnum};
use mcp_session_layer::McpSessionLayer;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

mod content;
mod fixture;
mod inputs;
mod jobs;
mod questions;
mod tools;
mod traffic;

use fixture::Fixture;
use traffic::Traffic;

#[derive(Debug, Parser)]
struct Args {
    /// Whether the layer is in front of rmcp
    #[arg(long)]
    layer: Switch,

    /// Port of the loopback to listen on; 0 takes a free one
    #[arg(long, default_value = "0")]
    port: u16,

    /// The idle timeout of the layer, or of rmcp itself if it is bare
    #[arg(long, default_value = "30m", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,

    /// Whether an open GET stream keeps its session from being idle
    #[arg(long, default_value = "on")]
    streams_hold: Switch,

    /// Whether the layer ends GET streams at an age
    #[arg(long, value_parser = humantime::parse_duration)]
    stream_lifetime: Option<Duration>,

    /// Whether rmcp has sessions of its own; without, it is the layer that issues the ids
    #[arg(long, default_value = "on")]
    rmcp_sessions: Switch,

    /// Speak only the revisions that have sessions
    #[arg(long)]
    legacy_only: bool,

    /// What rmcp tells clients to wait before they reconnect a stream
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    retry: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let layered = args.layer == Switch::On;

    let mut manager = LocalSessionManager::default();
    // rmcp's own timer is the layer's to replace.
    manager.session_config.keep_alive = (!layered).then_some(args.idle_timeout);
    manager.session_config.sse_retry = Some(args.retry);
    let manager = Arc::new(manager);
    let fixture = Fixture::new(Arc::clone(&manager), args.legacy_only);
    let service = StreamableHttpService::new(
        move || Ok(fixture.clone()),
        Arc::clone(&manager),
        StreamableHttpServerConfig::default()
            .with_sse_retry(Some(args.retry))
            .with_legacy_session_mode(args.rmcp_sessions == Switch::On),
    );

    let mcp = Router::new().route_service("/mcp", service);
    let layer = McpSessionLayer::new()
        .path("/mcp")
        .idle_timeout(args.idle_timeout)
        // A slow client is not what is tried here.
        .unused_timeout(Duration::from_secs(60))
        .streams_hold(args.streams_hold == Switch::On);
    let layer = match args.stream_lifetime {
        Some(age) => layer.stream_lifetime(age),
        None => layer,
    };
    let sessions = layer.sessions();
    let mcp = if layered { mcp.layer(layer) } else { mcp };

    let traffic = Traffic::default();
    let log = traffic.clone();
    let app = mcp
        .layer(middleware::from_fn_with_state(traffic, traffic::record))
        .route("/traffic", get(async move || Json(log.read())))
        .route(
            "/sessions",
            get(async move || {
                let rmcp = manager.sessions.read().await.len();
                Json(serde_json::json!({ "layer": sessions.len(), "rmcp": rmcp }))
            }),
        );

    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    println!("listening on http://{}/mcp", listener.local_addr()?);
    let serving = axum::serve(listener.tap_io(|io| drop(io.set_nodelay(true))), app);
    tokio::select! {
        served = serving => Ok(served?),
        _ = end_of_input() => Ok(()),
    }
}

async fn end_of_input() -> std::io::Result<()> {
    let (mut input, mut buffer) = (tokio::io::stdin(), [0; 64]);
    while input.read(&mut buffer).await? > 0 {}
    Ok(())
}
