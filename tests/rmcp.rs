//! The official Rust SDK behind the layer, over real sockets and in real time.
//!
//! rmcp's own timer is off (`keep_alive = None`): what ends here, the layer has ended. What rmcp
//! keeps is looked at in two places, its table of sessions and the handlers that are alive.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use axum::{Router, routing::any};
use futures_util::{
    StreamExt,
    future::{BoxFuture, join_all},
    stream,
};
use http::StatusCode;
use mcp_session_layer::{CloseReason, McpSessionLayer, Sessions, Stats, UnknownIds};
use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    model::{CallToolRequestParams, ProtocolVersion},
    service::{ClientLifecycleMode, ClientServiceExt, RunningService},
    transport::{
        StreamableHttpClientTransport,
        streamable_http_client::StreamableHttpClientTransportConfig,
        streamable_http_server::{
            StreamableHttpServerConfig, StreamableHttpService,
            session::{
                SessionManager, SessionState, SessionStore, SessionStoreError,
                local::LocalSessionManager,
            },
        },
    },
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::Layer;

mod common;

use common::{
    FakeServer, Watched,
    net::{Dice, PATIENCE, Wire, bind, ms, rampage, request, serve, until},
    watch,
};

#[path = "common/rmcp.rs"]
mod sdk;

use sdk::{
    ACCEPT, Calls, Kept, LEGACY, Leaves, Opens, Service, Tools, hang_up, http, initialize, read,
    said, tools_call,
};

const MODERN: &str = "2026-07-28";

// --- the stage -----------------------------------------------------------------------------------

/// A server that is up.
struct Stage {
    authority: String,
    sessions: Sessions,
    watched: Watched,
    kept: Kept,
    http: reqwest::Client,
}

impl Stage {
    /// rmcp at `/mcp`, `/health` beside it, one layer around both.
    async fn new(layer: McpSessionLayer) -> Self {
        Self::opening(Opens::AtOnce, layer).await
    }

    async fn opening(opens: Opens, layer: McpSessionLayer) -> Self {
        Self::around(Kept::service(opens), layer).await
    }

    async fn around((kept, service): (Kept, Service), layer: McpSessionLayer) -> Self {
        let (layer, watched) = watch(&FakeServer::default(), layer);
        let addr = serve(watched.learn_from(app(service, layer))).await;
        Self::at(addr, kept, watched)
    }

    fn at(addr: SocketAddr, kept: Kept, watched: Watched) -> Self {
        let sessions = watched.sessions.clone();
        Self { authority: addr.to_string(), sessions, watched, kept, http: http() }
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.authority)
    }

    fn post(&self, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(self.url()).header("accept", ACCEPT).json(body)
    }

    fn get(&self, id: &str) -> reqwest::RequestBuilder {
        self.http.get(self.url()).header("accept", ACCEPT).header("mcp-session-id", id)
    }

    fn delete(&self, id: &str) -> reqwest::RequestBuilder {
        self.http.delete(self.url()).header("mcp-session-id", id)
    }

    /// Opens a session and says `initialized` in it.
    async fn open(&self) -> String {
        self.open_as("").await
    }

    async fn open_as(&self, bearer: &str) -> String {
        let answer = self.post(&initialize(LEGACY)).bearer_auth(bearer).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        assert_eq!(read(answer).await.1["result"]["protocolVersion"], LEGACY);
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let request = self.post(&initialized).header("mcp-session-id", &id).bearer_auth(bearer);
        assert_eq!(request.send().await.unwrap().status(), 202);
        id
    }

    /// Calls a tool: the status, and what the tool said.
    async fn call(&self, id: &str, tool: &str, arguments: Value) -> (StatusCode, String) {
        let request = self.post(&tools_call(tool, &arguments)).header("mcp-session-id", id);
        let (status, message) = read(request.send().await.unwrap()).await;
        (status, said(&message))
    }

    async fn echo(&self, id: &str) -> bool {
        self.call(id, "echo", json!({ "text": "hi" })).await == (StatusCode::OK, "hi".to_owned())
    }

    async fn rmcp_client(&self) -> Client {
        let config = StreamableHttpClientTransportConfig::with_uri(self.url());
        self.rmcp_client_with(config).await
    }

    async fn rmcp_client_with(&self, config: StreamableHttpClientTransportConfig) -> Client {
        let transport = StreamableHttpClientTransport::with_client(http(), config);
        ().serve(transport).await.unwrap()
    }

    /// The layer's table and rmcp's agree.
    async fn assert_holds(&self, sessions: usize) {
        assert_eq!(self.sessions.len(), sessions);
        assert_eq!(self.kept.counts().await, (sessions, sessions));
    }

    /// Waits until nothing is in flight, closes what is left, and sees that nothing stays.
    #[track_caller]
    fn finish(self) -> impl Future<Output = Stats> {
        let empty = self.kept.is_empty_within(PATIENCE);
        async move {
            drop(self.http);
            let stats = self.watched.finish_in_real_time().await;
            empty.await;
            assert_eq!(stats.terminate_failures, 0);
            stats
        }
    }
}

fn app(service: Service, layer: McpSessionLayer) -> Router {
    Router::new()
        .route_service("/mcp", service)
        .route("/health", any(|| async { "ok" }))
        .layer(layer)
}

type Client = RunningService<RoleClient, ()>;

async fn call(
    client: &Client,
    tool: &'static str,
    arguments: Value,
) -> Result<String, ServiceError> {
    let Value::Object(arguments) = arguments else { unreachable!() };
    let request = CallToolRequestParams::new(tool).with_arguments(arguments);
    let result = client.call_tool(request).await?;
    Ok(result.content[0].as_text().unwrap().text.clone())
}

/// An answer that was cut in the middle by a client that reads on.
async fn read_to_a_clean_end(answer: reqwest::Response) -> String {
    timeout(PATIENCE, answer.text()).await.unwrap().expect("a clean end")
}

// --- the tests -----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_served_and_lost_after_the_idle_timeout_and_nothing_is_left_anywhere() {
    for path in [None, Some("/mcp")] {
        let layer = McpSessionLayer::new().idle_timeout(ms(500));
        let layer = path.map_or(layer.clone(), |path| layer.path(path));
        let stage = Stage::new(layer).await;
        let id = stage.open().await;
        assert!(stage.echo(&id).await);
        stage.assert_holds(1).await;
        let before = Instant::now();
        assert!(stage.echo(&id).await);
        until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
        let idle = before.elapsed();
        assert!(idle >= ms(500), "gone after {idle:?}");
        assert!(idle < ms(1500), "gone after {idle:?}");
        stage.kept.is_empty_within(ms(1000)).await;

        let lost = stage.post(&tools_call("echo", &json!({}))).header("mcp-session-id", &id);
        let lost = lost.send().await.unwrap();
        assert_eq!(lost.status(), 404);
        assert_eq!(
            lost.text().await.unwrap(),
            r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#
        );
        let stats = stage.finish().await;
        assert_eq!((stats.opened, stats.closed.get(CloseReason::Idle)), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_route_beside_it_is_served_with_and_without_a_path() {
    for path in [None, Some("/mcp")] {
        let layer = McpSessionLayer::new();
        let layer = path.map_or(layer.clone(), |path| layer.path(path));
        let stage = Stage::new(layer).await;
        let url = format!("http://{}/health", stage.authority);
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = stage.http.request(method.parse().unwrap(), &url).send().await.unwrap();
            assert_eq!(
                (answer.status(), answer.text().await.unwrap().as_str()),
                (StatusCode::OK, "ok")
            );
        }
        // Not answered in a type of MCP, so no session came of it.
        let answer = stage.http.post(&url).json(&initialize(LEGACY)).send().await.unwrap();
        assert!(!answer.headers().contains_key("mcp-session-id"));
        assert_eq!(answer.text().await.unwrap(), "ok");
        // On every path, an id is the layer's business; with `path`, on that one only.
        let stray = stage.http.get(&url).header("mcp-session-id", "stray").send().await.unwrap();
        assert_eq!(stray.status(), if path.is_some() { 200 } else { 404 });
        assert_eq!(stage.finish().await.opened, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_longer_than_the_idle_timeout_returns_its_result_to_a_raw_client() {
    let stage = Stage::new(McpSessionLayer::new().idle_timeout(ms(400))).await;
    let id = stage.open().await;
    let before = Instant::now();
    let slept = stage.call(&id, "sleep", json!({ "ms": 1500 })).await;
    assert_eq!(slept, (StatusCode::OK, "slept".to_owned()));
    assert!(before.elapsed() >= ms(1500));
    assert!(stage.echo(&id).await, "idle since the answer, not since the request");
    until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
    assert_eq!(stage.finish().await.closed.get(CloseReason::Idle), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_longer_than_the_idle_timeout_returns_its_result_to_an_rmcp_client() {
    // Its GET stream would hold the session too: it is the call that must.
    let layer = McpSessionLayer::new().idle_timeout(ms(400)).streams_hold(false);
    let stage = Stage::new(layer).await;
    let client = stage.rmcp_client().await;
    assert_eq!(call(&client, "sleep", json!({ "ms": 1500 })).await.unwrap(), "slept");
    assert_eq!(call(&client, "echo", json!({ "text": "hi" })).await.unwrap(), "hi");
    stage.assert_holds(1).await;
    client.cancel().await.unwrap();
    let stats = stage.finish().await;
    assert_eq!((stats.opened, stats.closed.get(CloseReason::Client)), (1, 1));
}

/// Why `keep_alive` is off wherever the layer is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_longer_than_rmcps_own_keep_alive_ends_without_a_result() {
    let kept = Kept::default();
    let mut manager = LocalSessionManager::default();
    manager.session_config.keep_alive = Some(ms(500));
    let service = StreamableHttpService::new(
        move || Ok(Tools::new(kept.clone(), Opens::AtOnce)),
        Arc::new(manager),
        StreamableHttpServerConfig::default(),
    );
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let app = Router::new().route_service("/mcp", service).layer(layer);
    let url = format!("http://{}/mcp", serve(watched.learn_from(app)).await);
    let http = reqwest::Client::new();
    let post = |body: Value| http.post(&url).header("accept", ACCEPT).json(&body);
    let opened = post(initialize(LEGACY)).send().await.unwrap();
    let id = opened.headers()["mcp-session-id"].clone();
    let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    post(ready).header("mcp-session-id", id.clone()).send().await.unwrap();
    let before = Instant::now();
    let sleep = tools_call("sleep", &json!({ "ms": 3000 }));
    let answer = post(sleep).header("mcp-session-id", id).send().await.unwrap();
    let (_, message) = read(answer).await;
    assert_eq!(message["result"], Value::Null);
    assert!(before.elapsed() < ms(2500), "it ended after {:?}", before.elapsed());
    watched.finish_in_real_time().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_get_stream_holds_its_session_past_the_idle_timeout_and_no_longer() {
    let stage = Stage::new(McpSessionLayer::new().idle_timeout(ms(400))).await;
    let id = stage.open().await;
    let stream = stage.get(&id).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    sleep(ms(1300)).await;
    stage.assert_holds(1).await;
    assert_eq!(stage.sessions.stats().streams, 1);
    let before = Instant::now();
    drop(stream);
    until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
    let idle = before.elapsed();
    assert!((ms(400)..ms(1400)).contains(&idle), "gone {idle:?} after the stream");
    stage.kept.is_empty_within(ms(1000)).await;
    assert_eq!(stage.finish().await.closed.get(CloseReason::Idle), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_streams_hold_false_a_session_idles_out_under_its_get_stream_which_ends() {
    let layer = McpSessionLayer::new().idle_timeout(ms(400)).streams_hold(false);
    let stage = Stage::new(layer).await;
    let id = stage.open().await;
    let before = Instant::now();
    let stream = stage.get(&id).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let text = read_to_a_clean_end(stream).await;
    let idle = before.elapsed();
    assert!((ms(390)..ms(1400)).contains(&idle), "ended after {idle:?}");
    assert!(text.contains("retry:"), "it was rmcp's stream: {text:?}");
    assert!(stage.sessions.is_empty());
    stage.kept.is_empty_within(ms(1000)).await;
    assert_eq!(stage.get(&id).send().await.unwrap().status(), 404);
    assert_eq!(stage.finish().await.closed.get(CloseReason::Idle), 1);
}

const LEAVERS: u64 = 300;

/// All of them leave, each in one of the ways and after `delay` milliseconds, `at_once` at a time.
async fn many_hang_up(authority: &str, at_once: usize, delay: impl Fn(&mut Dice) -> u64) {
    let mut dice = Dice(7);
    let leavers = (0..LEAVERS).map(|_| {
        let how = match dice.roll(5) {
            0 => Leaves::InTheMiddleOfTheBody,
            1 => Leaves::Resetting,
            2 => Leaves::HalfClosing,
            _ => Leaves::Closing,
        };
        hang_up(authority, how, ms(delay(&mut dice)))
    });
    stream::iter(leavers).buffer_unordered(at_once).collect::<()>().await;
}

/// Half of them at once to 5 ms later, the others when the server has surely begun.
fn before_the_answer(dice: &mut Dice) -> u64 {
    if dice.roll(2) == 0 { dice.roll(6) } else { 100 + dice.roll(200) }
}

const SLOW: Opens = Opens::After(Duration::from_millis(800));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_300_clients_that_hang_up_before_initialize_is_answered_nothing_is_left() {
    let stage = Stage::opening(SLOW, McpSessionLayer::new()).await;
    many_hang_up(&stage.authority, 300, before_the_answer).await;
    until("nothing is left in the layer", ms(2000), async || {
        let stats = stage.sessions.stats();
        stats.live + stats.opening + stats.closing == 0
    })
    .await;
    stage.kept.is_empty_within(ms(2000)).await;
    let stats = stage.finish().await;
    eprintln!("slow initialize: {} opened, closed: {}", stats.opened, by_reason(&stats));
    assert!(stats.opened > LEAVERS / 10, "only {} got as far as rmcp", stats.opened);
    assert_eq!(stats.closed.get(CloseReason::Abandoned), stats.opened);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_300_clients_that_hang_up_around_the_answer_nothing_is_left_after_unused_timeout() {
    // Whoever leaves after the answer cannot be told from one who thinks: it is unused.
    for (most, at_once) in [(0, 16), (5, 16), (5, 300)] {
        let stage = Stage::new(McpSessionLayer::new().unused_timeout(ms(400))).await;
        many_hang_up(&stage.authority, at_once, |dice| dice.roll(most + 1)).await;
        stage.kept.is_empty_within(ms(2000)).await;
        let stats = stage.finish().await;
        eprintln!(
            "quick initialize, leaving within {most} ms, {at_once} at once: {} opened, closed: {}",
            stats.opened,
            by_reason(&stats)
        );
        let known = [CloseReason::Abandoned, CloseReason::Unused];
        assert_eq!(known.map(|why| stats.closed.get(why)).iter().sum::<u64>(), stats.opened);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_300_clients_that_hang_up_at_once_nothing_is_left_two_seconds_later() {
    // Long before an unused session would go. The server takes 20 ms: how a quick one is waited
    // for is tested on paused time, where no scheduler keeps a client from hanging up at once.
    let slow = Opens::After(ms(20));
    let stage = Stage::opening(slow, McpSessionLayer::new()).await;
    many_hang_up(&stage.authority, 4, |_| 0).await;
    sleep(ms(2000)).await;
    assert_eq!((stage.kept.counts().await, stage.sessions.len()), ((0, 0), 0));
    let stats = stage.finish().await;
    eprintln!("hung up at once: {} opened, closed: {}", stats.opened, by_reason(&stats));
    assert_eq!(stats.closed.get(CloseReason::Abandoned), stats.opened);
}

/// What the test above is worth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_300_clients_that_hang_up_around_the_answer_rmcp_alone_keeps_many_for_ever() {
    let (kept, service) = Kept::service(Opens::AtOnce);
    let addr = serve(Router::new().route_service("/mcp", service)).await;
    many_hang_up(&addr.to_string(), 16, |dice| dice.roll(6)).await;
    sleep(ms(1000)).await;
    let (sessions, handlers) = kept.counts().await;
    eprintln!("quick initialize, no layer: rmcp keeps {sessions} sessions, {handlers} handlers");
    assert!(sessions > LEAVERS as usize / 20, "rmcp keeps {sessions}");
}

fn by_reason(stats: &Stats) -> String {
    serde_json::to_string(&stats.closed).unwrap()
}

/// A session whose GET stream is full to the brim: its client has stopped reading.
async fn wedged(stage: &Stage) -> (String, Wire) {
    const SPAM: usize = 2000;
    let id = stage.open().await;
    let mut wire = Wire::connect_narrow(stage.authority.parse().unwrap()).await;
    let headers = [("Accept", ACCEPT), ("Mcp-Session-Id", id.as_str())];
    wire.send(request("GET", "/mcp", &headers, b"")).await;
    until("the stream is open", PATIENCE, async || stage.sessions.stats().streams == 1).await;
    let spam = stage.call(&id, "spam", json!({ "n": SPAM, "bytes": 65_536 })).await;
    assert_eq!(spam.0, 200);
    // Full is when nothing moves, and rmcp's worker answers nobody in this session any more.
    until("the stream is full", PATIENCE, async || {
        let before = stage.kept.spammed.load(Ordering::SeqCst);
        assert!(before < SPAM, "the buffers swallowed all of it");
        let is_stuck = timeout(ms(500), stage.echo(&id)).await.is_err();
        is_stuck && before > 0 && stage.kept.spammed.load(Ordering::SeqCst) == before
    })
    .await;
    until("it alone is still open", PATIENCE, async || stage.sessions.stats().streams == 1).await;
    (id, wire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_stream_does_not_outlive_its_delete() {
    let close_timeout = ms(1000);
    let stage = Stage::new(McpSessionLayer::new().close_timeout(close_timeout)).await;
    let (id, wire) = wedged(&stage).await;
    let before = Instant::now();
    let deleted = timeout(PATIENCE, stage.delete(&id).send()).await.unwrap().unwrap();
    assert_eq!(deleted.status(), 204);
    assert!(stage.sessions.is_empty());
    stage.kept.is_empty_within(close_timeout).await;
    eprintln!("wedged: rmcp was rid of it {:?} after the DELETE was sent", before.elapsed());
    drop(wire);
    assert_eq!(stage.finish().await.closed.get(CloseReason::Client), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_stream_does_not_outlive_max_lifetime() {
    let lifetime = ms(4000);
    let layer = McpSessionLayer::new().max_lifetime(lifetime).close_timeout(ms(1000));
    let stage = Stage::new(layer).await;
    let before = Instant::now();
    let (_, mut wire) = wedged(&stage).await;
    stage.kept.is_empty_within(lifetime + ms(1000)).await;
    let lived = before.elapsed();
    assert!((lifetime..lifetime + ms(1000)).contains(&lived), "lived {lived:?}");
    // If it reads after all, it sees what was sent, and a clean end.
    assert_eq!(wire.head().await.unwrap().status, 200);
    let mut read = 0;
    while let Some(chunk) = wire.chunk().await.expect("no hang-up before the end") {
        read += chunk.len();
    }
    eprintln!("wedged: {read} bytes were on their way when the stream was cut");
    drop(wire);
    assert_eq!(stage.finish().await.closed.get(CloseReason::Lifetime), 1);
}

/// rmcp's worker hangs on the full stream; calls pile up behind it until its queue is full as well.
async fn pile_up(stage: &Stage, id: &str) -> JoinSet<()> {
    let mut pile = JoinSet::new();
    for _ in 0..40 {
        let request = stage.post(&tools_call("echo", &json!({ "text": "hi" })));
        let call = request.header("mcp-session-id", id).send();
        pile.spawn(async move { drop(call.await) });
    }
    until("the pile is there", PATIENCE, async || stage.sessions.stats().in_flight > 40).await;
    sleep(ms(100)).await;
    pile
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wedged_session_with_a_full_queue_is_freed_by_an_operator() {
    let stage = Stage::new(McpSessionLayer::new().close_timeout(ms(1000))).await;
    let (id, wire) = wedged(&stage).await;
    let pile = pile_up(&stage, &id).await;
    assert!(stage.sessions.close(&id));
    stage.kept.is_empty_within(ms(1000)).await;
    drop((wire, pile));
    assert_eq!(stage.finish().await.closed.get(CloseReason::Requested), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wedged_session_with_a_full_queue_is_freed_by_its_delete() {
    let stage = Stage::new(McpSessionLayer::new().close_timeout(ms(1000))).await;
    let (id, wire) = wedged(&stage).await;
    let pile = pile_up(&stage, &id).await;
    // rmcp does not answer this one either; its client waits.
    let delete = tokio::spawn(stage.delete(&id).send());
    until("the layer is rid of it", ms(2000), async || stage.sessions.is_empty()).await;
    stage.kept.is_empty_within(ms(1000)).await;
    let deleted = timeout(ms(1000), delete).await.unwrap().unwrap().unwrap();
    assert!(deleted.status().is_success(), "{}", deleted.status());
    drop((wire, pile));
    assert_eq!(stage.finish().await.closed.get(CloseReason::Client), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_cut_for_its_age_can_be_opened_again_and_misses_nothing() {
    let layer = McpSessionLayer::new().stream_lifetime(ms(300)).idle_timeout(ms(800));
    let stage = Stage::new(layer).await;
    let id = stage.open().await;
    let before = Instant::now();
    for nth in 1..=3 {
        let stream = stage.get(&id).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        stage.call(&id, "spam", json!({ "n": 1, "bytes": nth })).await;
        let text = read_to_a_clean_end(stream).await;
        assert!(text.contains(&format!("\"{}\"", "x".repeat(nth as usize))), "{nth}: {text}");
    }
    assert!(before.elapsed() > ms(850), "longer than a session idles");
    stage.assert_holds(1).await;
    assert_eq!(stage.sessions.stats().streams, 0);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_in_a_session_counts_for_that_session_alone_and_through_rmcp_tools() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let (one, two) = (stage.open().await, stage.open().await);
    let client = stage.rmcp_client().await;
    let mut counted = Vec::new();
    for id in [&one, &one, &two, &one, &two] {
        counted.push(stage.call(id, "count", json!({})).await.1);
    }
    assert_eq!(counted, ["1", "2", "1", "3", "2"]);
    assert_eq!(call(&client, "count", json!({})).await.unwrap(), "1");
    assert_eq!(call(&client, "count", json!({})).await.unwrap(), "2");
    let session = stage.sessions.get(&one).unwrap();
    let calls = session.state().get::<Calls>().unwrap();
    assert_eq!(calls.0.load(Ordering::SeqCst), 3, "seen from outside");
    drop(calls);
    let weak = Arc::downgrade(&session.state().get::<Calls>().unwrap());
    assert!(session.close());
    until("gone when the server was told", PATIENCE, async || weak.upgrade().is_none()).await;
    assert_eq!(stage.call(&two, "count", json!({})).await.1, "3");
    client.cancel().await.unwrap();
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_id_is_answered_like_an_unknown_one_and_the_owner_notices_nothing() {
    let layer = McpSessionLayer::new().principal(|parts| {
        let bearer = parts.headers.get("authorization")?.to_str().ok()?;
        bearer.strip_prefix("Bearer ").filter(|name| !name.is_empty()).map(str::to_owned)
    });
    let stage = Stage::new(layer).await;
    let id = stage.open_as("alice").await;
    let info = || stage.sessions.list().remove(0);
    let requests = info().requests;
    let unknown = "00000000-0000-4000-8000-000000000000";
    let idle = info().idle_for;
    for thief in [Some("Bearer mallory"), Some("Bearer ALICE"), None] {
        for method in ["POST", "GET", "DELETE", "PUT", "OPTIONS"] {
            let mut answers = Vec::new();
            for each in [id.as_str(), unknown] {
                let mut headers = vec![
                    ("Accept", ACCEPT),
                    ("Content-Type", "application/json"),
                    ("Mcp-Session-Id", each),
                ];
                headers.extend(thief.map(|thief| ("Authorization", thief)));
                let body = tools_call("count", &json!({})).to_string();
                let body = if method == "POST" { body.as_bytes() } else { b"" };
                let mut wire = Wire::connect(stage.authority.parse().unwrap()).await;
                wire.send(request(method, "/mcp", &headers, body)).await;
                answers.push(wire.answer().await);
            }
            assert_eq!(answers[0], answers[1], "{method} by {thief:?}");
            assert_eq!(answers[0].status, 404);
            assert!(answers[0].text().contains("-32001"));
        }
    }
    assert_eq!(info().requests, requests, "nothing was let in");
    assert!(info().idle_for >= idle, "no deadline was moved");
    stage.assert_holds(1).await;
    let owner = stage.post(&tools_call("count", &json!({}))).header("mcp-session-id", &id);
    let (status, message) = read(owner.bearer_auth("alice").send().await.unwrap()).await;
    assert_eq!((status, said(&message).as_str()), (StatusCode::OK, "1"));
    // And without a name, nobody opens anything.
    let nobody = stage.post(&initialize(LEGACY)).send().await.unwrap();
    assert_eq!(nobody.status(), 403);
    stage.assert_holds(1).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rmcp_client_that_says_goodbye_closes_its_session_as_the_client() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let mut client = stage.rmcp_client().await;
    assert_eq!(call(&client, "echo", json!({ "text": "hi" })).await.unwrap(), "hi");
    stage.assert_holds(1).await;
    assert_eq!(stage.sessions.list()[0].client.as_ref().unwrap().name.as_deref(), Some("rmcp"));
    // Until then: its stream ends with the session, and if it is quick it asks for another one.
    assert_eq!(stage.sessions.stats().rejected, 0);
    client.close().await.unwrap();
    assert!(stage.sessions.is_empty(), "at once");
    stage.kept.is_empty_within(ms(1000)).await;
    let stats = stage.finish().await;
    assert_eq!((stats.opened, stats.closed.get(CloseReason::Client)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_close_ends_rmcps_session_and_the_rmcp_client_opens_another() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let client = stage.rmcp_client().await;
    assert_eq!(call(&client, "count", json!({})).await.unwrap(), "1");
    let first = stage.sessions.list()[0].session;
    assert!(stage.sessions.find(first).unwrap().close());
    stage.kept.is_empty_within(ms(1000)).await;
    // It gets a 404, opens a new session behind its user's back, and calls again.
    assert_eq!(call(&client, "count", json!({})).await.unwrap(), "1", "the state went as well");
    stage.assert_holds(1).await;
    assert_ne!(stage.sessions.list()[0].session, first);
    client.cancel().await.unwrap();
    let stats = stage.finish().await;
    assert_eq!(stats.opened, 2);
    assert_eq!(stats.closed.get(CloseReason::Requested), 1);
    assert_eq!(stats.closed.get(CloseReason::Client), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rmcp_client_that_may_not_open_another_session_is_told_that_its_own_expired() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let config = StreamableHttpClientTransportConfig::with_uri(stage.url());
    let client = stage.rmcp_client_with(config.reinit_on_expired_session(false)).await;
    assert_eq!(stage.sessions.close_all(), 1);
    stage.kept.is_empty_within(ms(1000)).await;
    let error = call(&client, "count", json!({})).await.unwrap_err();
    assert!(matches!(error, ServiceError::TransportSend(_)), "{error:?}");
    assert!(error.to_string().contains("Session expired"), "{error}");
    client.cancel().await.unwrap();
    assert_eq!(stage.finish().await.opened, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_initialize_that_rmcp_rejects_opens_nothing_and_leaves_nothing() {
    let stage = Stage::opening(Opens::Never, McpSessionLayer::new()).await;
    let answer = stage.post(&initialize(LEGACY)).send().await.unwrap();
    // rmcp says no with 200 and an id.
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("mcp-session-id"));
    assert_eq!(read(answer).await.1["error"]["message"], "not today");
    let config = StreamableHttpClientTransportConfig::with_uri(stage.url());
    let transport = StreamableHttpClientTransport::with_client(http(), config);
    assert!(().serve(transport).await.is_err());
    stage.kept.is_empty_within(ms(1000)).await;
    assert_eq!(stage.finish().await.opened, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_initialize_in_modern_dress_opens_a_session_that_the_layer_owns() {
    let stage = Stage::new(McpSessionLayer::new().unused_timeout(ms(600))).await;
    let victim = stage.open().await;
    let before = stage.sessions.list().remove(0);
    // With somebody else's id for good measure: it is stripped.
    let request = stage.post(&initialize(MODERN)).header("mcp-protocol-version", MODERN);
    let answer = request.header("mcp-session-id", &victim).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    assert_ne!(id, victim);
    assert_eq!(read(answer).await.1["result"]["protocolVersion"], LEGACY, "as rmcp negotiates");
    stage.assert_holds(2).await;
    assert!(stage.sessions.get(&id).is_some());
    until("the unused one is gone", PATIENCE, async || stage.sessions.len() == 1).await;
    until("rmcp's too", ms(1000), async || stage.kept.counts().await == (1, 1)).await;
    assert_eq!(stage.sessions.list()[0].requests, before.requests);
    let stats = stage.finish().await;
    assert_eq!(stats.closed.get(CloseReason::Unused), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modern_requests_with_a_stolen_id_never_touch_the_session() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let id = stage.open().await;
    assert_eq!(stage.call(&id, "count", json!({})).await.1, "1");
    let before = stage.sessions.list().remove(0);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": "thief", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let modern = |method: &str, name: Option<&str>, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let request = stage.post(&body).header("mcp-protocol-version", MODERN);
        let request = request.header("mcp-method", method).header("mcp-session-id", &id);
        match name {
            Some(name) => request.header("mcp-name", name),
            None => request,
        }
    };

    // Served without a session.
    let (status, message) =
        read(modern("tools/list", None, json!({ "_meta": meta })).send().await.unwrap()).await;
    assert_eq!(status, 200, "{message}");
    assert_eq!(message["result"]["tools"], json!([]));
    let params = json!({ "name": "echo", "arguments": { "text": "hi" }, "_meta": meta });
    let (_, message) = read(modern("tools/call", Some("echo"), params).send().await.unwrap()).await;
    assert_eq!(said(&message), "hi", "{message}");
    // Wants the session, and gets none.
    let params = json!({ "name": "count", "arguments": {}, "_meta": meta });
    let (_, message) =
        read(modern("tools/call", Some("count"), params).send().await.unwrap()).await;
    assert_eq!(message["error"]["message"], "there is no session", "{message}");
    // Refused: it lacks what modern requests must say.
    let (status, message) = read(modern("tools/list", None, json!({})).send().await.unwrap()).await;
    assert_eq!(status, 400, "{message}");
    // Modern, so these do not exist.
    for request in [stage.get(&id), stage.delete(&id)] {
        let answer = request.header("mcp-protocol-version", MODERN).send().await.unwrap();
        assert_eq!(answer.status(), 405);
    }

    // rmcp makes a handler for each modern request, and drops it some time after the answer.
    until("their handlers are gone", ms(1000), async || stage.kept.counts().await == (1, 1)).await;
    stage.assert_holds(1).await;
    let after = stage.sessions.list().remove(0);
    assert_eq!(after.requests, before.requests);
    assert!(after.idle_for >= before.idle_for, "no deadline was moved");
    assert_eq!(stage.call(&id, "count", json!({})).await.1, "2");
    assert_eq!(stage.finish().await.opened, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_modern_rmcp_client_is_served_and_opens_nothing() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let config = StreamableHttpClientTransportConfig::with_uri(stage.url());
    let transport = StreamableHttpClientTransport::with_client(http(), config);
    let lifecycle =
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    let client = ().serve_with_lifecycle(transport, lifecycle).await.unwrap();
    assert_eq!(call(&client, "echo", json!({ "text": "hi" })).await.unwrap(), "hi");
    assert_eq!(call(&client, "sleep", json!({ "ms": 50 })).await.unwrap(), "slept");
    client.cancel().await.unwrap();
    let stats = stage.finish().await;
    assert_eq!((stats.opened, stats.rejected), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_a_call_finish_ends_streams_refuses_sessions_and_leaves_nothing() {
    let (kept, service) = Kept::service(Opens::AtOnce);
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let app = watched.learn_from(app(service, layer));
    let (listener, addr) = bind().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let ending = watched.sessions.clone();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        stopped.await.unwrap();
        ending.shutdown(ms(5000)).await;
    });
    let server = tokio::spawn(server.into_future());
    let stage = Stage::at(addr, kept, watched);

    let (busy, idle) = (stage.open().await, stage.open().await);
    let stream = stage.get(&busy).send().await.unwrap();
    let call = stage.post(&tools_call("sleep", &json!({ "ms": 1200 })));
    let call = tokio::spawn(call.header("mcp-session-id", &busy).send());
    until("the call is under way", PATIENCE, async || stage.sessions.stats().streams == 2).await;
    let before = Instant::now();
    stop.send(()).unwrap();

    read_to_a_clean_end(stream).await;
    assert!(before.elapsed() < ms(1000), "the stream did not wait for the call");
    let refused = stage.post(&initialize(LEGACY)).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(stage.get(&idle).send().await.unwrap().status(), 503, "no new streams either");
    assert!(stage.echo(&idle).await, "requests of open sessions are served");
    assert!(before.elapsed() < ms(1200), "all that while the call ran");

    let (status, message) = read(call.await.unwrap().unwrap()).await;
    assert_eq!((status, said(&message).as_str()), (StatusCode::OK, "slept"));
    timeout(PATIENCE, server).await.unwrap().unwrap().unwrap();
    let took = before.elapsed();
    assert!(took < ms(3500), "it waits for the call, not for the grace: {took:?}");
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
    // The server behind was told before the shutdown returned.
    assert_eq!(stage.kept.manager.sessions.read().await.len(), 0);
    assert_eq!(stage.finish().await.closed.get(CloseReason::Shutdown), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_behind_is_told_wherever_it_is_mounted() {
    type Mount = fn(Service, McpSessionLayer) -> Router;
    fn boxed(service: Service) -> Router {
        Router::new().route_service("/mcp", service)
    }
    let mounts: [(&str, &str, Mount); 9] = [
        ("route_service", "/mcp", |service, layer| boxed(service).layer(layer)),
        ("nest_service", "/mcp", |service, layer| {
            Router::new().nest_service("/mcp", service).layer(layer)
        }),
        ("fallback_service", "/anywhere", |service, layer| {
            Router::new().fallback_service(service).layer(layer)
        }),
        ("nest, layer outside", "/api/mcp", |service, layer| {
            Router::new().nest("/api", boxed(service)).layer(layer)
        }),
        ("nest, layer inside", "/api/mcp", |service, layer| {
            Router::new().nest("/api", boxed(service).layer(layer))
        }),
        ("nest in nest, layer in the middle", "/v1/api/mcp", |service, layer| {
            let inner = Router::new().nest("/api", boxed(service)).layer(layer);
            Router::new().nest("/v1", inner)
        }),
        ("route_layer", "/mcp", |service, layer| boxed(service).route_layer(layer)),
        ("the service alone", "/mcp", |service, layer| {
            Router::new().route_service("/mcp", layer.layer(service))
        }),
        ("a path with a parameter", "/tenant/7/mcp", |service, layer| {
            Router::new().route_service("/tenant/{id}/mcp", service).layer(layer)
        }),
    ];
    for (name, path, mount) in mounts {
        let (kept, service) = Kept::service(Opens::AtOnce);
        let layer = McpSessionLayer::new().idle_timeout(ms(500)).close_timeout(ms(1000));
        let (layer, watched) = watch(&FakeServer::default(), layer);
        let addr = serve(watched.learn_from(mount(service, layer))).await;
        let stage = Stage::at(addr, kept, watched);
        let url = format!("http://{addr}{path}?a=b");
        let open = async || {
            let request = stage.http.post(&url).header("accept", ACCEPT).json(&initialize(LEGACY));
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{name}");
            let id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
            read(answer).await;
            id
        };
        let (closed, idle) = (open().await, open().await);
        stage.assert_holds(2).await;
        assert!(stage.sessions.close(&closed), "{name}");
        until(name, ms(1000), async || stage.kept.counts().await == (1, 1)).await;
        assert!(stage.sessions.get(&idle).is_some());
        until(name, ms(2000), async || stage.kept.counts().await == (0, 0)).await;
        let stats = stage.finish().await;
        assert_eq!((stats.opened, stats.terminate_failures), (2, 0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_rmcp_has_lost_is_lost_to_the_layer_with_the_first_404() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let id = stage.open().await;
    stage.kept.manager.close_session(&id.as_str().into()).await.unwrap();
    assert_eq!(stage.sessions.len(), 1, "nobody has told the layer");
    let lost = stage.post(&tools_call("echo", &json!({}))).header("mcp-session-id", &id);
    let lost = lost.send().await.unwrap();
    assert_eq!(lost.status(), 404);
    assert_eq!(lost.text().await.unwrap(), "Not Found: Session not found", "in rmcp's words");
    assert!(stage.sessions.is_empty());
    assert_eq!(stage.finish().await.closed.get(CloseReason::Inner), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rmcp_without_sessions_gets_them_from_the_layer() {
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false);
    let layer = McpSessionLayer::new().idle_timeout(ms(600));
    let stage = Stage::around(Kept::service_with(Opens::AtOnce, config), layer).await;
    let (id, other) = (stage.open().await, stage.open().await);
    assert_eq!(stage.call(&id, "count", json!({})).await.1, "1");
    assert_eq!(stage.call(&id, "count", json!({})).await.1, "2");
    assert_eq!(stage.call(&other, "count", json!({})).await.1, "1");
    assert_eq!(stage.get(&id).send().await.unwrap().status(), 405, "as rmcp says");
    assert_eq!(stage.delete(&id).send().await.unwrap().status(), 204, "as the layer says");
    assert_eq!(stage.call(&id, "count", json!({})).await.0, 404);
    let client = stage.rmcp_client().await;
    assert_eq!(call(&client, "count", json!({})).await.unwrap(), "1");
    client.cancel().await.unwrap();
    until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
    let stats = stage.finish().await;
    assert_eq!(stats.closed.get(CloseReason::Client), 2);
    assert_eq!(stats.closed.get(CloseReason::Idle), 1);
}

/// A store that outlives servers.
#[derive(Default)]
struct Store(Mutex<HashMap<String, SessionState>>);

type Stored<'a, T> = BoxFuture<'a, Result<T, SessionStoreError>>;

// As `async_trait` would write it.
impl SessionStore for Store {
    fn load<'a, 'b, 'c>(&'a self, id: &'b str) -> Stored<'c, Option<SessionState>>
    where
        'a: 'c,
        'b: 'c,
    {
        let state = self.0.lock().unwrap().get(id).cloned();
        Box::pin(ready(Ok(state)))
    }

    fn store<'a, 'b, 'c, 'd>(&'a self, id: &'b str, state: &'c SessionState) -> Stored<'d, ()>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
    {
        self.0.lock().unwrap().insert(id.to_owned(), state.clone());
        Box::pin(ready(Ok(())))
    }

    fn delete<'a, 'b, 'c>(&'a self, id: &'b str) -> Stored<'c, ()>
    where
        'a: 'c,
        'b: 'c,
    {
        self.0.lock().unwrap().remove(id);
        Box::pin(ready(Ok(())))
    }
}

impl Store {
    /// A server that remembers sessions by this store.
    async fn server(self: &Arc<Self>, layer: McpSessionLayer) -> Stage {
        let mut config = StreamableHttpServerConfig::default();
        config.session_store = Some(Arc::clone(self) as Arc<dyn SessionStore>);
        let layer = layer.unknown_ids(UnknownIds::Forward);
        Stage::around(Kept::service_with(Opens::AtOnce, config), layer).await
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_rmcps_store_is_owned_again_after_a_restart_and_dies_for_good() {
    let store = Arc::new(Store::default());
    let crashed = store.server(McpSessionLayer::new()).await;
    let (id, idle, gone) = (crashed.open().await, crashed.open().await, crashed.open().await);
    assert!(crashed.sessions.close(&gone));
    until("rmcp was told", PATIENCE, async || store.len() == 2).await;

    let stage = store.server(McpSessionLayer::new().idle_timeout(ms(600))).await;
    assert_eq!(stage.call(&id, "count", json!({})).await.1, "1", "the layer's state is not stored");
    assert_eq!(stage.call(&id, "count", json!({})).await.1, "2");
    assert!(stage.echo(&idle).await);
    stage.assert_holds(2).await;
    for nobodys in [gone.as_str(), "made-up"] {
        assert_eq!(stage.call(nobodys, "echo", json!({})).await.0, 404);
    }
    stage.assert_holds(2).await;
    assert_eq!(stage.delete(&id).send().await.unwrap().status(), 204);
    until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
    until("rmcp was told", ms(1000), async || store.len() == 0).await;
    for over in [&id, &idle] {
        assert_eq!(stage.call(over, "echo", json!({})).await.0, 404);
    }
    let stats = stage.finish().await;
    assert_eq!((stats.opened, stats.closed.get(CloseReason::Idle)), (2, 1));
    assert_eq!(crashed.finish().await.opened, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_restore_a_session_together_share_its_state() {
    for round in 0..20 {
        let store = Arc::new(Store::default());
        let crashed = store.server(McpSessionLayer::new()).await;
        let id = crashed.open().await;
        let stage = store.server(McpSessionLayer::new()).await;
        let calls = join_all((0..8).map(|_| stage.call(&id, "count", json!({})))).await;
        // rmcp 3.11 has a race of its own here and answers 500 now and then, without us as well.
        let counted: Vec<_> = calls.iter().filter(|(status, _)| *status == 200).collect();
        let distinct: HashSet<_> = counted.iter().map(|(_, said)| said).collect();
        assert_eq!(distinct.len(), counted.len(), "round {round}: counted {counted:?}");
        assert_eq!(stage.sessions.len(), 1);
        stage.finish().await;
        crashed.finish().await;
    }
}

/// A shutdown ends sessions; it does not pause them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_leaves_rmcps_store_its_sessions_for_the_next_process() {
    let store = Arc::new(Store::default());
    let first = store.server(McpSessionLayer::new()).await;
    let id = first.open().await;
    assert_eq!(store.len(), 1);
    first.sessions.shutdown(ms(1000)).await;
    assert_eq!((first.sessions.len(), store.len()), (0, 1));
    // The process ends here, and with it what its rmcp had in memory.
    first.watched.finish_in_real_time().await;
    let second = store.server(McpSessionLayer::new()).await;
    assert_eq!(second.call(&id, "echo", json!({ "text": "x" })).await.0, 200);
    second.finish().await;
}

fn whatever(dice: &mut Dice, id: &str) -> Vec<u8> {
    let headers =
        [("Accept", ACCEPT), ("Content-Type", "application/json"), ("Mcp-Session-Id", id)];
    let post = |message: Value| request("POST", "/mcp", &headers, message.to_string().as_bytes());
    match dice.roll(10) {
        0 | 1 => request("POST", "/mcp", &headers[..2], initialize(LEGACY).to_string().as_bytes()),
        2 => request("DELETE", "/mcp", &headers, b""),
        3 | 4 => request("GET", "/mcp", &headers, b""),
        5 => post(tools_call("sleep", &json!({ "ms": dice.roll(60) }))),
        6 => post(tools_call("spam", &json!({ "n": 40, "bytes": 65_536 }))),
        7 => post(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })),
        _ => post(tools_call("count", &json!({}))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_clients_that_do_as_they_like_leave_nothing_behind_in_rmcp() {
    let layer = McpSessionLayer::new()
        .idle_timeout(ms(150))
        .unused_timeout(ms(100))
        .stream_lifetime(ms(100))
        .max_lifetime(ms(600))
        .close_timeout(ms(1000))
        .max_sessions(30);
    let stage = Stage::new(layer).await;
    let mut clients = JoinSet::new();
    for seed in 0..40 {
        clients.spawn(rampage(stage.authority.parse().unwrap(), seed, 60, whatever));
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    until("all of it is over by itself", PATIENCE, async || {
        let stats = stage.sessions.stats();
        stats.live + stats.opening + stats.closing == 0 && stage.kept.counts().await == (0, 0)
    })
    .await;
    let stats = stage.finish().await;
    eprintln!("forty clients: {}", serde_json::to_string(&stats).unwrap());
    assert!(stats.opened > 100, "{stats:?}");
}

/// The layer takes any service; this is only to see that rmcp's is one of them as it comes. Not
/// watched: no request is made.
#[test]
fn rmcps_service_needs_no_adapter() {
    fn check<S>(_: S)
    where
        S: tower::Service<http::Request<axum::body::Body>, Error = Infallible> + Clone + Send,
    {
    }
    check(McpSessionLayer::new().layer(Kept::service(Opens::AtOnce).1));
}
