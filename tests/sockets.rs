//! A server written by hand, without any SDK, over real sockets: the layer issues the ids.
//!
//! What a client can do to a connection, and what it can put on one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, RawQuery, State},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, Method, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use mcp_session_layer::{CloseReason, McpSessionLayer, Session, Sessions, Stats};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

mod common;

use common::{
    FakeServer, Watched,
    net::{Answer, Dice, PATIENCE, Wire, ms, quiescence, rampage, request, serve, until},
    watch,
};

const MIB: usize = 1024 * 1024;
const JSON: (&str, &str) = ("Content-Type", "application/json");
const LOST: &str = r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#;
const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
const PING: &[u8] = br#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;

// --- the server ----------------------------------------------------------------------------------

/// | method | what it does |
/// | --- | --- |
/// | `initialize` | answers, late if told so |
/// | `count` | says how often it was called in this session |
/// | `sleep {ms}` | answers later |
/// | `stream {events, ms}` | answers with that many events, that far apart |
/// | anything else | answers |
///
/// GET is an event and then silence; with `?flood` events without end.
#[derive(Clone, Default)]
struct Server {
    /// Streaming bodies that are alive.
    bodies: Arc<AtomicUsize>,
    /// How long `initialize` takes, in milliseconds.
    delay: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Calls(AtomicUsize);

impl Server {
    fn routes(self) -> Router {
        Router::new()
            .route("/mcp", post(message).get(listen))
            .layer(DefaultBodyLimit::max(8 * MIB))
            .with_state(self)
    }

    fn bodies(&self) -> usize {
        self.bodies.load(Ordering::SeqCst)
    }

    fn events(&self, events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
        self.bodies.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(Arc::clone(&self.bodies));
        let events = events.map(move |event| {
            let _ = &alive;
            Ok::<_, Infallible>(event)
        });
        ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
    }
}

/// A body, for as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn message(State(server): State<Server>, session: Option<Session>, body: Bytes) -> Response {
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, "not JSON").into_response();
    };
    let number = |name: &str| message["params"][name].as_u64().unwrap_or(0);
    let mut result = json!({});
    match message["method"].as_str() {
        Some("initialize") => {
            // As long as the delay is now, not as it was: a test may hold all back, and let them go.
            let begin = Instant::now();
            while begin.elapsed() < ms(server.delay.load(Ordering::SeqCst) as u64) {
                sleep(ms(2)).await;
            }
        }
        Some("sleep") => sleep(ms(number("ms"))).await,
        Some("count") => {
            let Some(session) = session else {
                return (StatusCode::BAD_REQUEST, "no session").into_response();
            };
            let calls = session.state().get_or_insert_with(Calls::default);
            result = json!(calls.0.fetch_add(1, Ordering::SeqCst) + 1);
        }
        Some("stream") => {
            let apart = ms(number("ms"));
            return server.events(stream::iter(0..number("events")).then(move |n| async move {
                sleep(apart).await;
                Bytes::from(format!("data: {n}\n\n"))
            }));
        }
        _ => {}
    }
    Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response()
}

async fn listen(State(server): State<Server>, RawQuery(query): RawQuery) -> Response {
    if query.as_deref() == Some("flood") {
        let event = Bytes::from(format!("data: {}\n\n", "x".repeat(65_536)));
        return server.events(stream::repeat(event));
    }
    server.events(stream::iter([Bytes::from_static(b"data: hello\n\n")]).chain(stream::pending()))
}

// --- the stage -----------------------------------------------------------------------------------

struct Stage {
    addr: SocketAddr,
    sessions: Sessions,
    watched: Watched,
    server: Server,
}

impl Stage {
    async fn new(layer: McpSessionLayer) -> Self {
        let (layer, watched) = watch(&FakeServer::default(), layer);
        let (sessions, server) = (watched.sessions.clone(), Server::default());
        let routes = server.clone().routes().route("/health", any(|| async { "ok" }));
        let addr = serve(watched.learn_from(routes.layer(layer))).await;
        Self { addr, sessions, watched, server }
    }

    async fn wire(&self) -> Wire {
        Wire::connect(self.addr).await
    }

    /// The answer to these bytes, on a connection of their own.
    async fn ask(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        wire.answer().await
    }

    async fn open(&self) -> String {
        let answer = self.ask(request("POST", "/mcp", &[JSON], INITIALIZE)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.id().to_owned()
    }

    async fn ping(&self, id: &str) -> u16 {
        self.ask(call(id, PING)).await.status
    }

    /// Still there, and as good as new.
    async fn assert_serves(&self) {
        let id = self.open().await;
        assert_eq!(self.ping(&id).await, 200);
        assert_eq!(self.ask(with_id("DELETE", &id)).await.status, 204);
    }

    #[track_caller]
    fn finish(self) -> impl Future<Output = Stats> {
        let server = self.server;
        let no_bodies = until("no body is left", PATIENCE, async move || server.bodies() == 0);
        async move {
            let stats = self.watched.finish_in_real_time().await;
            no_bodies.await;
            stats
        }
    }
}

fn with_id(method: &str, id: &str) -> Vec<u8> {
    request(method, "/mcp", &[("Mcp-Session-Id", id)], b"")
}

fn call(id: &str, body: &[u8]) -> Vec<u8> {
    request("POST", "/mcp", &[JSON, ("Mcp-Session-Id", id)], body)
}

fn rpc(method: &str, params: &Value) -> Vec<u8> {
    json!({ "jsonrpc": "2.0", "id": 3, "method": method, "params": params })
        .to_string()
        .into_bytes()
}

/// A 4xx that says what is wrong in JSON-RPC, without an `id`.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, message: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(body["error"]["message"].as_str().unwrap().contains(message), "{body}");
    assert!(body.get("id").is_none(), "{body}");
}

// --- life ----------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_issued_served_and_lost_after_the_idle_timeout() {
    let stage = Stage::new(McpSessionLayer::new().idle_timeout(ms(400))).await;
    let (id, other) = (stage.open().await, stage.open().await);
    assert_ne!(id, other);
    let count = rpc("count", &json!({}));
    let mut counted = Vec::new();
    for each in [&id, &id, &other, &id] {
        let answer = stage.ask(call(each, &count)).await;
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        counted.push(body["result"].as_u64().unwrap());
        assert_eq!(answer.header("mcp-session-id"), None, "told once, in initialize");
    }
    assert_eq!(counted, [1, 2, 1, 3]);
    let before = Instant::now();
    assert_eq!(stage.ping(&id).await, 200);
    until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
    let idle = before.elapsed();
    assert!((ms(400)..ms(1400)).contains(&idle), "gone after {idle:?}");
    let lost = stage.ask(call(&id, PING)).await;
    assert_eq!((lost.status, lost.text()), (404, LOST));
    let stats = stage.finish().await;
    assert_eq!((stats.opened, stats.closed.get(CloseReason::Idle)), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_streams_longer_than_the_idle_timeout_come_to_their_end() {
    let stage = Stage::new(McpSessionLayer::new().idle_timeout(ms(400))).await;
    for (method, params, end) in [
        ("sleep", json!({ "ms": 1000 }), "\"result\":{}"),
        ("stream", json!({ "events": 10, "ms": 100 }), "data: 9\n\n"),
    ] {
        let id = stage.open().await;
        let answer = stage.ask(call(&id, &rpc(method, &params))).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains(end), "{answer:?}");
        assert_eq!(stage.ping(&id).await, 200, "idle since the end of the answer");
    }
    until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
    assert_eq!(stage.finish().await.closed.get(CloseReason::Idle), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_is_answered_204_and_cuts_the_streams_cleanly() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let id = stage.open().await;
    let (mut get, mut post) = (stage.wire().await, stage.wire().await);
    get.send(with_id("GET", &id)).await;
    post.send(call(&id, &rpc("stream", &json!({ "events": 1000, "ms": 20 })))).await;
    for wire in [&mut get, &mut post] {
        assert_eq!(wire.head().await.unwrap().status, 200);
        assert!(wire.chunk().await.unwrap().is_some());
    }
    assert_eq!(stage.sessions.stats().streams, 2);

    let answer = stage.ask(with_id("DELETE", &id)).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(stage.sessions.stats().streams, 0);
    for mut wire in [get, post] {
        let end = timeout(ms(1000), async {
            while wire.chunk().await.expect("no hang-up before the end").is_some() {}
        });
        end.await.unwrap();
        // The connection is as good as new.
        wire.send(with_id("GET", &id)).await;
        assert_eq!(wire.answer().await.text(), LOST);
    }
    assert_eq!(stage.server.bodies(), 0);
    assert_eq!(stage.ask(with_id("DELETE", &id)).await.text(), LOST);
    assert_eq!(stage.finish().await.closed.get(CloseReason::Client), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_holds_its_session_until_its_client_is_gone() {
    let stage = Stage::new(McpSessionLayer::new().idle_timeout(ms(300))).await;
    for resets in [false, true] {
        let id = stage.open().await;
        let mut wire = stage.wire().await;
        wire.send(with_id("GET", &id)).await;
        assert_eq!(wire.head().await.unwrap().status, 200);
        sleep(ms(900)).await;
        assert_eq!(stage.sessions.len(), 1);
        if resets {
            wire.reset();
        } else {
            drop(wire);
        }
        until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
        assert_eq!(stage.server.bodies(), 0);
    }
    assert_eq!(stage.finish().await.closed.get(CloseReason::Idle), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_does_not_outlive_its_session() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    for path in ["/mcp?flood", "/mcp"] {
        let id = stage.open().await;
        let mut wire = Wire::connect_narrow(stage.addr).await;
        wire.send(request("GET", path, &[("Mcp-Session-Id", &id)], b"")).await;
        until("open", PATIENCE, async || stage.sessions.stats().streams == 1).await;
        // Long enough to fill every buffer on the way.
        sleep(ms(300)).await;
        assert_eq!(stage.server.bodies(), 1);
        assert_eq!(stage.ask(with_id("DELETE", &id)).await.status, 204);
        assert_eq!(stage.server.bodies(), 0, "at once, whatever the socket does");
        drop(wire);
    }
    assert_eq!(stage.finish().await.closed.get(CloseReason::Client), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_carries_many_sessions_and_mistakes() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let mut wire = stage.wire().await;
    for _ in 0..3 {
        wire.send(request("POST", "/mcp", &[JSON], INITIALIZE)).await;
        let id = wire.answer().await.id().to_owned();
        let malformed = with_id("GET", "a b");
        let requests: [(&[u8], u16); 9] = [
            (&call(&id, PING), 200),
            (&call("nobody's", PING), 404),
            (&malformed, 400),
            (&request("POST", "/mcp", &[JSON], PING), 400),
            (&request("POST", "/mcp", &[JSON], b"nonsense"), 400),
            (&call(&id, PING), 200),
            (&request("GET", "/health", &[], b""), 200),
            (&with_id("DELETE", &id), 204),
            (&call(&id, PING), 404),
        ];
        for (bytes, status) in requests {
            wire.send(bytes).await;
            assert_eq!(wire.answer().await.status, status, "{}", String::from_utf8_lossy(bytes));
        }
        // All in one go, without waiting for the answers.
        let all: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
        wire.send(all).await;
        for expected in [404, 404, 400, 400, 400, 404, 200, 404, 404] {
            assert_eq!(wire.answer().await.status, expected);
        }
    }
    assert_eq!(stage.finish().await.opened, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_before_initialize_is_answered_leave_nothing() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    stage.server.delay.store(60_000, Ordering::SeqCst);
    let mut wires = Vec::new();
    for _ in 0..100 {
        let mut wire = stage.wire().await;
        wire.send(request("POST", "/mcp", &[JSON], INITIALIZE)).await;
        wires.push(wire);
    }
    until("all are opening", PATIENCE, async || stage.sessions.stats().opening == 100).await;
    for (n, mut wire) in wires.into_iter().enumerate() {
        match n % 3 {
            0 => drop(wire),
            1 => wire.reset(),
            _ => wire.half_close().await,
        }
    }
    sleep(ms(500)).await;
    stage.server.delay.store(0, Ordering::SeqCst);
    until("nothing is left", ms(2000), async || {
        let stats = stage.sessions.stats();
        stats.live + stats.opening + stats.closing == 0
    })
    .await;
    stage.assert_serves().await;
    let stats = stage.finish().await;
    assert_eq!((stats.opened, stats.closed.get(CloseReason::Abandoned)), (101, 100));
}

// --- bad input -----------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_ids_are_refused_in_plain_words_and_move_no_deadline() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let live = stage.open().await;
    assert_eq!(stage.ping(&live).await, 200);
    let requests = stage.sessions.list()[0].requests;
    let header = |value: &[u8]| [b"Mcp-Session-Id: ", value, b"\r\n"].concat();
    let one = header(live.as_bytes());
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        ([&*one, &*one].concat(), 400, "sent once"),
        ([&*one, b"mcp-session-id: other\r\n"].concat(), 400, "sent once"),
        (header(b""), 400, "empty"),
        (header(b"  \t "), 400, "empty"),
        (header(&[b'x'; 4096]), 404, "not found"),
        (header(&[b'x'; 4097]), 400, "4096"),
        (header(&[b'x'; 60_000]), 400, "4096"),
        (header("für".as_bytes()), 400, "ASCII"),
        (header(b"\xff\xfe"), 400, "ASCII"),
        (header(b"a b"), 400, "ASCII"),
        (header(b"a\tb"), 400, "ASCII"),
        (header(format!("{live},{live}").as_bytes()), 404, "not found"),
        (header(format!("\"{live}\"").as_bytes()), 404, "not found"),
        (header(live.to_uppercase().as_bytes()), 404, "not found"),
        (header(&live.as_bytes()[1..]), 404, "not found"),
    ];
    for method in ["POST", "GET", "DELETE", "PUT"] {
        for (header, status, words) in &cases {
            let head = format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\n");
            let rest =
                format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", PING.len());
            let answer = stage.ask([head.as_bytes(), header, rest.as_bytes(), PING].concat()).await;
            assert_refused(&answer, *status, words);
        }
        // Not even HTTP: these do not get as far as the layer.
        for broken in [&b"a\0b"[..], b"a\x01b", b"a\r\n b", &[b'x'; 600_000]] {
            let head = format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\n");
            let mut wire = stage.wire().await;
            wire.try_send([head.as_bytes(), &header(broken), b"\r\n"].concat()).await;
            // It may hang up with half of that unread, and then the answer is lost on the way.
            let answer = timeout(PATIENCE, wire.try_answer(false)).await.unwrap();
            let status = answer.map_or(400, |answer| answer.status);
            assert!(matches!(status, 400 | 431), "{status}");
        }
    }
    assert_eq!(stage.sessions.list()[0].requests, requests, "none was let in");
    // In any spelling of the header's name, it is the same.
    for name in ["mcp-session-id", "MCP-SESSION-ID", "mCp-sEsSiOn-Id"] {
        let ping = request("POST", "/mcp", &[JSON, (name, &live)], PING);
        assert_eq!(stage.ask(ping).await.status, 200);
    }
    stage.assert_serves().await;
    assert_eq!(stage.finish().await.opened, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bodies_are_refused_by_the_layer_or_left_to_the_server_and_open_nothing() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    let deep = nested("[", "]", 1_000_000);
    let deep_objects = nested(r#"{"":"#, "}", 1_000_000);
    assert!(deep_objects.len() < 5 * MIB);
    let hidden = |nested: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{nested}}}"#)
            .into_bytes()
    };
    let padded = |by: usize| [INITIALIZE, &vec![b' '; by], b"x"].concat();
    // Left to the server, which says "not JSON".
    let left: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"nonsense".to_vec(),
        b"{".to_vec(),
        b"\0\0\0\0".to_vec(),
        INITIALIZE[..INITIALIZE.len() - 1].to_vec(),
        [INITIALIZE, b"}"].concat(),
        [INITIALIZE, INITIALIZE].concat(),
        ["\u{feff}".as_bytes(), INITIALIZE].concat(),
        INITIALIZE.iter().flat_map(|&byte| [byte, 0]).collect(),
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"x\":\"\xff\"}".to_vec(),
        deep.clone().into_bytes(),
        deep_objects.clone().into_bytes(),
        hidden(&nested("[", "]", 30_000)),
        hidden(&nested(r#"{"":"#, "}", 10_000)),
        hidden(&deep),
        hidden(&deep_objects),
        "[".repeat(5 * MIB).into_bytes(),
        vec![b'x'; 5 * MIB],
        vec![0; 5 * MIB],
        padded(5 * MIB),
        padded(64 * 1024),
    ];
    for body in &left {
        let what = String::from_utf8_lossy(&body[..body.len().min(60)]);
        let answer = stage.ask(request("POST", "/mcp", &[JSON], body)).await;
        assert_eq!((answer.status, answer.text()), (400, "not JSON"), "{} B: {what}", body.len());
        assert_eq!(answer.header("mcp-session-id"), None);
    }
    // Refused here.
    for (body, words) in [
        (PING, "required"),
        (br#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#, "required"),
        (br#"[{"jsonrpc":"2.0","id":1,"method":"ping"},1]"#, "required"),
        (br#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "required"),
        (br#"{"jsonrpc":"2.0","id":1}"#, "required"),
        (br#"{"jsonrpc":"2.0","method":"ping","method":"initialize"}"#, "repeats"),
        (br#"{"jsonrpc":"2.0","method":"initialize","m\u0065thod":"ping"}"#, "repeats"),
        (br#"{"jsonrpc":"1.0","jsonrpc":"2.0","method":"initialize"}"#, "repeats"),
    ] {
        let answer = stage.ask(request("POST", "/mcp", &[JSON], body)).await;
        assert_refused(&answer, 400, words);
    }
    // Not typed as JSON: not the layer's to read, and without a session for the server.
    for content_type in ["text/plain", "application/jsonx", "", "multipart/form-data"] {
        let headers = [("Content-Type", content_type)];
        let answer = stage.ask(request("POST", "/mcp", &headers, INITIALIZE)).await;
        assert_eq!((answer.status, answer.header("mcp-session-id")), (200, None));
    }
    // Longer than anything the layer reads: answered without a session.
    let spaced = [INITIALIZE, &vec![b' '; 5 * MIB]].concat();
    let answer = stage.ask(request("POST", "/mcp", &[JSON], &spaced)).await;
    assert_eq!((answer.status, answer.header("mcp-session-id")), (200, None));
    assert_eq!(stage.sessions.stats().opened, 0);

    stage.assert_serves().await;
    assert_eq!(stage.finish().await.opened, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bodies_in_a_session_are_the_servers_to_refuse_and_end_with_their_answer() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let id = stage.open().await;
    let five = vec![b'x'; 5 * MIB];
    let deep = "[".repeat(1_000_000);
    for body in [&b""[..], b"nonsense", &five, deep.as_bytes()] {
        assert_eq!(stage.ask(call(&id, body)).await.text(), "not JSON");
    }
    let big = [PING, &vec![b' '; 5 * MIB]].concat();
    assert_eq!(stage.ask(call(&id, &big)).await.status, 200);
    // Over the server's limit. It does not wait for the rest, so its answer may get lost.
    let mut wire = stage.wire().await;
    wire.try_send(call(&id, &vec![b' '; 9 * MIB])).await;
    let answer = timeout(PATIENCE, wire.try_answer(false)).await.unwrap();
    assert!(answer.is_none_or(|answer| answer.status == 413));
    assert_eq!(stage.ping(&id).await, 200);
    assert_eq!(stage.finish().await.opened, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_under_an_unknown_id_is_refused_before_it_is_sent() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let length = (5 * MIB).to_string();
    let headers = [JSON, ("Mcp-Session-Id", "nobody's"), ("Expect", "100-continue")];
    let bytes = request("POST", "/mcp", &headers, b"");
    let bytes = String::from_utf8(bytes).unwrap();
    let bytes = bytes.replace("Content-Length: 0", &format!("Content-Length: {length}"));
    let mut wire = stage.wire().await;
    wire.send(&bytes).await;
    assert_eq!(wire.answer().await.text(), LOST, "and no 100 before it");
    // Who sends it all the same is answered, or cut off.
    let mut wire = stage.wire().await;
    let all_sent = wire.try_send(call("nobody's", &vec![b'x'; 5 * MIB])).await;
    let answer = timeout(PATIENCE, wire.try_answer(false)).await.unwrap();
    eprintln!(
        "5 MiB under an unknown id: sent {all_sent}, answer {:?}",
        answer.as_ref().map(|a| a.status)
    );
    assert!(answer.is_none_or(|answer| answer.text() == LOST));
    // An honest client of a large initialize is asked for it.
    let headers = [JSON, ("Expect", "100-continue")];
    let bytes = String::from_utf8(request("POST", "/mcp", &headers, INITIALIZE)).unwrap();
    let (head, body) = bytes.split_once("\r\n\r\n").unwrap();
    let mut wire = stage.wire().await;
    wire.send(format!("{head}\r\n\r\n")).await;
    assert_eq!(wire.head().await.unwrap().status, 100);
    wire.send(body).await;
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(stage.finish().await.opened, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_body_and_a_hang_up_leave_nothing_in_flight() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let id = stage.open().await;
    let big = vec![b' '; MIB];
    let messages = [
        request("POST", "/mcp", &[JSON], INITIALIZE),
        request("POST", "/mcp", &[JSON], &[INITIALIZE, &big].concat()),
        call(&id, PING),
        call(&id, &[PING, &big].concat()),
        call("nobody's", PING),
        chunked("", INITIALIZE, 7),
        chunked(&format!("Mcp-Session-Id: {id}\r\n"), PING, 7),
    ];
    let mut dice = Dice(1);
    for message in &messages {
        for cut in [10, 50, message.len() / 2, message.len() - 1] {
            for leaves in 0..3 {
                let mut wire = stage.wire().await;
                wire.send(&message[..cut]).await;
                sleep(ms(dice.roll(4))).await;
                match leaves {
                    0 => drop(wire),
                    1 => wire.reset(),
                    _ => wire.half_close().await,
                }
            }
        }
    }
    quiescence(&stage.sessions).await;
    assert_eq!(stage.sessions.len(), 1);
    assert_eq!(stage.ping(&id).await, 200);
    stage.assert_serves().await;
    assert_eq!(stage.finish().await.opened, 2);
}

fn chunked(headers: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\
         Transfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_chunks_of_one_byte_sent_one_by_one_is_a_body() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let mut wire = stage.wire().await;
    for byte in chunked("", INITIALIZE, 1) {
        wire.send([byte]).await;
    }
    let answer = wire.answer().await;
    assert_eq!(answer.status, 200);
    let id = answer.id().to_owned();
    for byte in chunked(&format!("Mcp-Session-Id: {id}\r\n"), &rpc("count", &json!({})), 1) {
        wire.send([byte]).await;
    }
    assert!(wire.answer().await.text().contains("\"result\":1"));
    // Trailers, chunk extensions, and chunks in one write.
    let mut odd = String::from_utf8(chunked("", INITIALIZE, 10)).unwrap();
    odd = odd.replace("a\r\n{", "a;ext=1\r\n{").replace("0\r\n\r\n", "0\r\nTrailer: x\r\n\r\n");
    wire.send(odd).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("mcp-session-id").is_some());
    // A chunk that lies about its size breaks the body off, for the server as well.
    let lies =
        String::from_utf8(chunked("", INITIALIZE, 10)).unwrap().replacen("a\r\n", "zz\r\n", 1);
    let mut wire = stage.wire().await;
    wire.send(lies).await;
    assert_eq!(wire.answer().await.status, 400);
    // Two lengths: not a message of HTTP/1.1 that anybody may guess at.
    let mut both = String::from_utf8(chunked("Content-Length: 3\r\n", INITIALIZE, 10)).unwrap();
    both.push_str("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut wire = stage.wire().await;
    wire.send(both).await;
    let status = wire.answer().await.status;
    assert!(matches!(status, 200 | 400), "{status}");
    quiescence(&stage.sessions).await;
    assert!((2..=3).contains(&stage.finish().await.opened));
}

// --- beside it -----------------------------------------------------------------------------------

/// Routes that are none of the layer's business, some of them looking as if.
fn beside() -> Router {
    async fn echo(method: Method, headers: HeaderMap, body: Bytes) -> Response {
        let seen: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
        let said = format!("{method} {seen:?} {}", body.len());
        ([("mcp-session-id", "mine"), ("x-seen", "yes")], said).into_response()
    }
    async fn streamed() -> Response {
        let parts = stream::iter(["one", "two", "three"]).map(Ok::<_, Infallible>);
        let headers = [("content-type", "text/event-stream"), ("mcp-session-id", "ours")];
        (headers, Body::from_stream(parts)).into_response()
    }
    async fn rpc(body: Bytes) -> Response {
        ([("content-type", "application/json")], body).into_response()
    }
    Router::new()
        .route("/health", any(|| async { "ok" }))
        .route("/health/lost", any(|| async { StatusCode::NOT_FOUND }))
        .route("/health/empty", any(|| async { StatusCode::NO_CONTENT }))
        .route("/echo", any(echo))
        .route("/streamed", any(streamed))
        .route("/rpc", any(rpc))
        .route("/mcpx", any(echo))
        .layer(DefaultBodyLimit::max(8 * MIB))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_path_everything_beside_it_is_answered_as_if_the_layer_were_not_there() {
    let layer = McpSessionLayer::new().path("/mcp").principal(|_| None::<String>).heartbeat(ms(50));
    let (layer, watched) = watch(&FakeServer::default(), layer);
    let bare = serve(beside().merge(Server::default().routes())).await;
    let layered = serve(beside().merge(Server::default().routes()).layer(layer)).await;

    let paths = [
        "/health",
        "/health?mcp",
        "/health/lost",
        "/health/empty",
        "/echo",
        "/streamed",
        "/rpc",
        "/nowhere",
        "/mcpx",
        "/MCP",
        "//mcp",
        "/mcp%20",
    ];
    let bodies: [&[u8]; 5] = [b"", INITIALIZE, PING, b"\0garbage\xff", b"[[[[[["];
    let ids: [&[&str]; 6] = [&[], &["nobody's"], &[""], &["a b"], &["für"], &["twice", "twice"]];
    let mut compared = 0;
    for path in paths {
        let (mut one, mut two) = (Wire::connect(bare).await, Wire::connect(layered).await);
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
        {
            for (n, body) in bodies.iter().enumerate() {
                for (m, ids) in ids.iter().enumerate() {
                    let mut headers: Vec<_> =
                        ids.iter().map(|id| ("Mcp-Session-Id", *id)).collect();
                    let types = ["application/json", "text/plain", "text/event-stream"];
                    headers.push(("Content-Type", types[(n + m) % 3]));
                    if m % 2 == 0 {
                        headers.push(("MCP-Protocol-Version", ["2025-11-25", "2026-07-28"][n % 2]));
                    }
                    let bytes = request(method, path, &headers, body);
                    let mut answers = Vec::new();
                    for wire in [&mut one, &mut two] {
                        wire.send(&bytes).await;
                        answers.push(match method {
                            "HEAD" => wire.answer_to_head().await,
                            _ => wire.answer().await,
                        });
                    }
                    assert_eq!(answers[0], answers[1], "{}", String::from_utf8_lossy(&bytes));
                    compared += 1;
                }
            }
        }
    }
    eprintln!("{compared} pairs of answers compared");
    // And large ones, streamed both ways.
    for body in [vec![b'x'; 5 * MIB], "[".repeat(1_000_000).into_bytes()] {
        let headers = [JSON, ("Mcp-Session-Id", "nobody's")];
        let bytes = request("POST", "/rpc", &headers, &body);
        let (mut one, mut two) = (Wire::connect(bare).await, Wire::connect(layered).await);
        one.send(&bytes).await;
        two.send(&bytes).await;
        let answer = one.answer().await;
        assert_eq!(answer.body.len(), body.len());
        assert!(answer == two.answer().await);
    }
    let stats = watched.finish_in_real_time().await;
    assert_eq!((stats.opened, stats.rejected), (0, 0));
}

// --- HTTP/2 --------------------------------------------------------------------------------------

type Http2 = Client<HttpConnector, Body>;

fn http2() -> Http2 {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

impl Stage {
    fn h2(&self, method: Method, path: &str, id: Option<&str>, body: &[u8]) -> Request<Body> {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.addr));
        let request = request.header("content-type", "application/json");
        let request = match id {
            Some(id) => request.header("mcp-session-id", id),
            None => request,
        };
        request.body(Body::from(body.to_vec())).unwrap()
    }

    async fn open_h2(&self, http: &Http2) -> String {
        let answer = http.request(self.h2(Method::POST, "/mcp", None, INITIALIZE)).await.unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, http::Version::HTTP_2));
        let id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        answer.into_body().collect().await.unwrap();
        id
    }

    async fn h2_status(&self, http: &Http2, method: Method, id: &str, body: &[u8]) -> u16 {
        let answer = http.request(self.h2(method, "/mcp", Some(id), body)).await.unwrap();
        let status = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        status
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_sessions_live_idle_out_and_are_deleted_alike() {
    let stage = Stage::new(McpSessionLayer::new().idle_timeout(ms(400))).await;
    let http = http2();
    let id = stage.open_h2(&http).await;
    let long = rpc("stream", &json!({ "events": 10, "ms": 100 }));
    let nap = rpc("sleep", &json!({ "ms": 900 }));
    let (one, two) = tokio::join!(
        stage.h2_status(&http, Method::POST, &id, &long),
        stage.h2_status(&http, Method::POST, &id, &nap),
    );
    assert_eq!((one, two), (200, 200), "longer than the idle timeout, on one connection");
    assert_eq!(stage.h2_status(&http, Method::POST, &id, PING).await, 200);
    until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
    assert_eq!(stage.h2_status(&http, Method::POST, &id, PING).await, 404);

    let id = stage.open_h2(&http).await;
    let get = http.request(stage.h2(Method::GET, "/mcp", Some(&id), b"")).await.unwrap();
    assert_eq!(get.status(), 200);
    sleep(ms(900)).await;
    assert_eq!(stage.sessions.stats().streams, 1, "held by its stream");
    assert_eq!(stage.h2_status(&http, Method::DELETE, &id, b"").await, 204);
    let text = timeout(ms(1000), get.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(text, "data: hello\n\n", "a clean end, no RST_STREAM");
    assert_eq!(stage.server.bodies(), 0);
    for (method, body) in [(Method::GET, &b""[..]), (Method::DELETE, b""), (Method::POST, PING)] {
        assert_eq!(stage.h2_status(&http, method, &id, body).await, 404);
    }
    let stats = stage.finish().await;
    assert_eq!((stats.opened, stats.closed.get(CloseReason::Client)), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_client_that_resets_its_stream_leaves_nothing() {
    let stage = Stage::new(McpSessionLayer::new().idle_timeout(ms(300))).await;
    let http = http2();
    // The stream of `initialize`: the session is abandoned.
    stage.server.delay.store(60_000, Ordering::SeqCst);
    let mut opening = JoinSet::new();
    for _ in 0..50 {
        opening.spawn(http.request(stage.h2(Method::POST, "/mcp", None, INITIALIZE)));
    }
    until("all are opening", PATIENCE, async || stage.sessions.stats().opening == 50).await;
    opening.shutdown().await;
    sleep(ms(300)).await;
    stage.server.delay.store(0, Ordering::SeqCst);
    until("nothing is left", ms(2000), async || {
        let stats = stage.sessions.stats();
        stats.live + stats.opening + stats.closing == 0
    })
    .await;
    assert_eq!(stage.sessions.stats().closed.get(CloseReason::Abandoned), 50);

    // A GET stream: the session is idle from then on. The connection lives.
    let id = stage.open_h2(&http).await;
    let get = http.request(stage.h2(Method::GET, "/mcp", Some(&id), b"")).await.unwrap();
    until("open", PATIENCE, async || stage.sessions.stats().streams == 1).await;
    drop(get);
    until("reaped", PATIENCE, async || stage.sessions.is_empty()).await;
    assert_eq!(stage.server.bodies(), 0);
    assert_eq!(stage.h2_status(&http, Method::POST, &id, PING).await, 404);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_a_client_that_does_not_read_does_not_outlive_its_session() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let http = http2();
    let id = stage.open_h2(&http).await;
    let get = stage.h2(Method::GET, "/mcp?flood", Some(&id), b"");
    let get = http.request(get).await.unwrap();
    // Until the flow-control window is closed.
    sleep(ms(300)).await;
    assert_eq!(stage.server.bodies(), 1);
    assert_eq!(stage.h2_status(&http, Method::DELETE, &id, b"").await, 204);
    assert_eq!(stage.server.bodies(), 0, "at once, whatever the window is");
    // If it reads after all, it finds an end.
    let rest = timeout(PATIENCE, get.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert!(rest.len() > 65_536, "{}", rest.len());
    assert_eq!(stage.finish().await.closed.get(CloseReason::Client), 1);
}

// --- all at once ---------------------------------------------------------------------------------

fn whatever(dice: &mut Dice, id: &str) -> Vec<u8> {
    match dice.roll(10) {
        0 | 1 => request("POST", "/mcp", &[JSON], INITIALIZE),
        2 => with_id("DELETE", id),
        3 => with_id("GET", id),
        4 => request("GET", "/mcp?flood", &[("Mcp-Session-Id", id)], b""),
        5 => call(id, &rpc("sleep", &json!({ "ms": dice.roll(30) }))),
        6 => call(id, &rpc("stream", &json!({ "events": 5, "ms": dice.roll(10) }))),
        _ => call(id, PING),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_clients_that_do_as_they_like_leave_nothing_behind() {
    let layer = McpSessionLayer::new()
        .idle_timeout(ms(100))
        .unused_timeout(ms(60))
        .stream_lifetime(ms(80))
        .max_lifetime(ms(500))
        .heartbeat(ms(20))
        .max_sessions(30)
        .max_streams(3);
    let stage = Stage::new(layer).await;
    let mut clients = JoinSet::new();
    for seed in 0..40 {
        clients.spawn(rampage(stage.addr, seed, 40, whatever));
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
        // The three are read one after the other, and a session may move on in between.
        let mut readings = (0..10).map(|_| stage.sessions.stats());
        assert!(readings.any(|stats| stats.live + stats.opening + stats.closing <= 30));
    }
    until("all of it is over by itself", PATIENCE, async || {
        let stats = stage.sessions.stats();
        stats.live + stats.opening + stats.closing == 0 && stage.server.bodies() == 0
    })
    .await;
    // A session may be unused for 60 ms here, and a busy machine takes longer now and then.
    until("it serves", PATIENCE, async || {
        let id = stage.open().await;
        stage.ping(&id).await == 200 && stage.ask(with_id("DELETE", &id)).await.status == 204
    })
    .await;
    let stats = stage.finish().await;
    eprintln!("forty clients: {}", serde_json::to_string(&stats).unwrap());
    assert!(stats.opened > 100, "{stats:?}");
}

/// One write, and one connection: what a request is must not rub off on the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_each_judged_by_themselves() {
    let stage = Stage::new(McpSessionLayer::new()).await;
    let live = stage.open().await;
    let with = |name: &str, id: &str| request("POST", "/mcp", &[JSON, (name, id)], PING);
    let unnamed = br#"{"jsonrpc":"2.0","method":"initialize"}"#;
    let delete = request("DELETE", "/mcp", &[("mcp-session-id", &live)], b"");
    let pipeline = [
        with("mcp-session-id", &live),
        with("mcp-session-id", "unknown"),
        with("Mcp_Session_Id", &live),
        with("mcp-session-id", &live),
        request("POST", "/mcp", &[JSON], unnamed),
        with("mcp.session.id", &live),
        delete,
        with("mcp-session-id", &live),
    ];
    let mut wire = stage.wire().await;
    wire.send(pipeline.concat()).await;
    let mut statuses = Vec::new();
    for _ in 0..pipeline.len() {
        statuses.push(wire.answer().await.status);
    }
    assert_eq!(statuses, [200, 404, 400, 200, 400, 400, 204, 404]);
    assert_eq!(stage.finish().await.opened, 1);
}
