//! A session's whole life in one process: an rmcp server behind the layer, and rmcp's own client.
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! It opens a session, uses it, lets a call run longer than the idle timeout, falls silent, sees
//! the session reaped in the layer and in rmcp, shows what a client with the old id is told, and
//! how rmcp's client gets over it. It ends with an error if any of that goes otherwise.
//!
//! No curl needed; `rmcp_server` is the same server for trying by hand.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use axum::{Router, serve::Listener as _};
use clap::Parser;
use mcp_session_layer::{CloseReason, McpSessionLayer, SessionEvent, SessionEvents, Sessions};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

mod common {
    pub(crate) mod client;
    pub(crate) mod log;
    pub(crate) mod net;
    pub(crate) mod tools;
}
use common::{
    client::{Client, call, connect},
    log, net,
    tools::{Counts, Kept, RmcpServer},
};

/// What should happen has happened by then, or it will not.
const SOON: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_millis(200);

/// Opens a session, uses it, lets it idle out, and recovers: the life of a session as a timeline.
#[derive(Debug, Parser)]
struct Args {
    /// Close a session after this long with nothing in flight
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { idle_timeout } = Args::parse();
    log::init("error");
    ensure!(
        idle_timeout >= SHORTEST,
        "an idle timeout below {SHORTEST:?} ends before the steps do"
    );
    let patience = 4 * idle_timeout + 10 * SOON;
    timeout(patience, tell(idle_timeout)).await.context("a step never ended")?
}

async fn tell(idle_timeout: Duration) -> anyhow::Result<()> {
    let mut story = Story::begin(idle_timeout).await?;
    let client = story.open().await?;
    story.work(&client).await?;
    let old_id = story.fall_silent().await?;
    story.knock_with(&old_id).await?;
    story.recover(&client, &old_id).await?;
    story.leave(client).await
}

/// The server's side of what happens, and the clock it happens by.
struct Story {
    start: Instant,
    idle_timeout: Duration,
    url: String,
    http: reqwest::Client,
    sessions: Sessions,
    events: SessionEvents,
    rmcp: Kept,
}

impl Story {
    async fn begin(idle_timeout: Duration) -> anyhow::Result<Self> {
        let RmcpServer { service, kept } = RmcpServer::new(&CancellationToken::new(), Vec::new());
        // rmcp's client has a GET stream open all the time, and by default that keeps a session.
        // Not here: who only listens is idle.
        let layer = McpSessionLayer::new().idle_timeout(idle_timeout).streams_hold(false);
        let sessions = layer.sessions();
        let events = sessions.subscribe();

        let listener = net::listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let url = format!("http://{}/mcp", listener.local_addr()?);
        let app = Router::new().route_service("/mcp", service).layer(layer);
        tokio::spawn(axum::serve(listener, app).into_future());

        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        let start = Instant::now();
        let story = Self { start, idle_timeout, url, http, sessions, events, rmcp: kept };
        story.say(format_args!("rmcp serves {}, idle timeout {idle_timeout:?}", story.url));
        Ok(story)
    }

    fn say(&self, what: impl std::fmt::Display) {
        println!("{:6.2} s  {what}", self.start.elapsed().as_secs_f64());
    }

    /// A client connects.
    async fn open(&mut self) -> anyhow::Result<Client> {
        let client = connect(self.http.clone(), &self.url).await?;
        self.expect_opened().await?;
        self.expect_rmcp_to_keep(1).await?;
        Ok(client)
    }

    /// Two short calls, then one that takes longer than the idle timeout.
    async fn work(&self, client: &Client) -> anyhow::Result<()> {
        let echoed = call(client, "echo", json!({"text": "hello"})).await?;
        self.say(format_args!("called echo: {echoed:?}"));
        ensure!(echoed == "hello", "echo answered {echoed:?}");
        let count = call(client, "count", json!({})).await?;
        self.say(format_args!("called count: {count}, kept in the state of the session"));
        ensure!(count == "1", "the first count was {count}");

        let long = self.idle_timeout.mul_f64(1.5);
        self.say(format_args!("calling sleep for {long:?}, which is longer than the timeout"));
        let slept = call(client, "sleep", json!({"seconds": long.as_secs_f64()})).await?;
        self.say(format_args!("the call was spared: {slept:?}"));
        ensure!(self.sessions.len() == 1, "the session ended during the call");
        Ok(())
    }

    /// The client does nothing until its session is gone; returns the id it had.
    async fn fall_silent(&mut self) -> anyhow::Result<String> {
        let id = self.rmcp_session_id().await?;
        self.say(format_args!("the client falls silent; {}", self.rmcp_keeps().await));
        let since = Instant::now();
        let reason = self.expect_closed(self.idle_timeout + SOON).await?;
        let idle = since.elapsed();
        ensure!(reason == CloseReason::Idle, "closed as {reason}, not as idle");
        ensure!(idle >= self.idle_timeout.mul_f64(0.9), "closed after {idle:?} already");
        self.expect_rmcp_to_keep(0).await?;
        Ok(id)
    }

    /// What a client is told that comes back with the id of a session that has ended.
    async fn knock_with(&self, old_id: &str) -> anyhow::Result<()> {
        let answer = self
            .http
            .post(&self.url)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-session-id", old_id)
            .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
            .send()
            .await?;
        let status = answer.status();
        let body = answer.text().await?;
        self.say(format_args!("a request with the old id: {status}, {body}"));
        ensure!(status == reqwest::StatusCode::NOT_FOUND, "expected a 404");
        let body: Value = serde_json::from_str(&body)?;
        ensure!(body["error"]["code"] == -32001, "expected the error code -32001");
        Ok(())
    }

    /// The client calls a tool as if nothing had happened.
    async fn recover(&mut self, client: &Client, old_id: &str) -> anyhow::Result<()> {
        self.say("the client calls count again, still with its old session");
        let count = call(client, "count", json!({})).await?;
        self.expect_opened().await?;
        self.say(format_args!(
            "its transport saw the 404, initialized anew by itself, and repeated the call: {count}"
        ));
        ensure!(count == "1", "the state of the old session is still there: {count}");
        ensure!(self.rmcp_session_id().await? != old_id, "the session has the old id");
        self.expect_rmcp_to_keep(1).await
    }

    /// The client says goodbye, as few do.
    async fn leave(&mut self, client: Client) -> anyhow::Result<()> {
        client.cancel().await?;
        let reason = self.expect_closed(SOON).await?;
        ensure!(reason == CloseReason::Client, "closed as {reason}, not by the client");
        self.expect_rmcp_to_keep(0).await?;
        let stats = self.sessions.stats();
        self.say(format_args!("{} sessions opened, {} closed", stats.opened, stats.closed.total()));
        Ok(())
    }

    async fn expect_opened(&mut self) -> anyhow::Result<()> {
        match self.next_event(SOON).await? {
            SessionEvent::Opened { session, client, .. } => {
                let client = client.and_then(|client| client.name).unwrap_or_default();
                self.say(format_args!("opened session {session} for the client {client:?}"));
                Ok(())
            }
            other => bail!("expected a session to open, and saw {other:?}"),
        }
    }

    async fn expect_closed(&mut self, within: Duration) -> anyhow::Result<CloseReason> {
        match self.next_event(within).await? {
            SessionEvent::Closed { session, reason, lifetime, requests, .. } => {
                let age = lifetime.as_secs_f64();
                self.say(format_args!(
                    "closed session {session}, reason: {reason}; it had {requests} requests in \
                     {age:.2} s"
                ));
                Ok(reason)
            }
            other => bail!("expected a session to close, and saw {other:?}"),
        }
    }

    /// The next event, but for refusals: rmcp's client tries again and again, on a clock of its
    /// own, to get back the GET stream of a session it has lost.
    async fn next_event(&mut self, within: Duration) -> anyhow::Result<SessionEvent> {
        let next = async {
            loop {
                match self.events.recv().await {
                    Some(SessionEvent::Rejected { .. }) => {}
                    other => break other,
                }
            }
        };
        let event = timeout(within, next).await;
        event.context("no session opened or closed in time")?.context("the events have ended")
    }

    /// The layer tells rmcp after it has closed a session: that takes a moment.
    async fn expect_rmcp_to_keep(&self, sessions: usize) -> anyhow::Result<()> {
        let expected = Counts { inner: sessions, handlers: sessions };
        let keeps = async {
            while self.rmcp.clone().count().await != expected {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let kept = timeout(SOON, keeps).await;
        self.say(self.rmcp_keeps().await);
        kept.with_context(|| format!("expected {expected:?}"))
    }

    async fn rmcp_keeps(&self) -> String {
        let Counts { inner, handlers } = self.rmcp.clone().count().await;
        format!("rmcp keeps: sessions {inner}, handlers {handlers}")
    }

    /// rmcp's client does not tell its session id; rmcp's server has only the one.
    async fn rmcp_session_id(&self) -> anyhow::Result<String> {
        let sessions = self.rmcp.manager.sessions.read().await;
        Ok(sessions.keys().next().context("rmcp keeps no session")?.to_string())
    }
}
