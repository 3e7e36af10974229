//! Panics of the server behind, of hooks and of the subscriber.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::body::Body;
use futures_util::FutureExt;
use http::Request;
use http_body_util::BodyExt;
use mcp_session_layer::{McpSessionLayer, McpSessionService, Sessions, UnknownIds};
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;

use super::grenade::{Grenade, PLACES};
use crate::common::*;

type Service = McpSessionService<Grenade>;

fn armed(mut request: Request<Body>, place: &str) -> Request<Body> {
    request.headers_mut().insert("x-panic", place.parse().unwrap());
    request
}

async fn ping(service: &Service, id: &str) -> u16 {
    let answer = service.clone().oneshot(call(id, "ping")).await.unwrap();
    read(answer).await.status.as_u16()
}

async fn open(service: &Service, watched: &Watched) -> String {
    let answer = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    let id = answer.id().unwrap().to_owned();
    watched.learn(&id);
    assert_eq!(ping(service, &id).await, 200);
    id
}

/// Sends it and reads the answer to its end, or until it goes off. True if it did.
async fn goes_off(service: &Service, request: Request<Body>) -> bool {
    let exchange = async {
        let mut answer = service.clone().oneshot(request).await.unwrap();
        for _ in 0..3 {
            if let Some(Some(frame)) = answer.body_mut().frame().now_or_never() {
                frame.unwrap();
            }
        }
    };
    AssertUnwindSafe(exchange).catch_unwind().await.is_err()
}

#[track_caller]
fn assert_lets_go(sessions: &Sessions, what: &str) {
    let stats = sessions.stats();
    assert_eq!((stats.in_flight, stats.streams, stats.opening), (0, 0, 0), "{what}: {stats:?}");
}

/// What a client may ask of a session.
fn requests(id: &str) -> [(&'static str, Request<Body>); 5] {
    [
        ("POST of known size", call(id, "ping")),
        ("POST stream", call_with(id, "stream", &json!({ "events": 2 }))),
        ("endless POST stream", call(id, "endless")),
        ("GET", get(id)),
        ("DELETE", delete(id)),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_server_that_panics_anywhere_keeps_nothing_of_its_session() {
    let server = FakeServer::default();
    let (layer, watched) = watch(&server, McpSessionLayer::new().idle_timeout(IDLE).max_streams(1));
    let service = layer.layer(Grenade(server.clone()));
    let mut went_off = 0;
    for place in PLACES {
        for nth in 0..5 {
            let id = open(&service, &watched).await;
            let (name, request) = requests(&id).into_iter().nth(nth).unwrap();
            let what = format!("{name}, panic at {place}");
            went_off += usize::from(goes_off(&service, armed(request, place)).await);
            assert_lets_go(&watched.sessions, &what);
            if name != "DELETE" {
                assert_eq!(ping(&service, &id).await, 200, "{what}: the session lives");
                assert!(!goes_off(&service, get(&id)).await, "{what}: its seat is free");
            }
            watched.sessions.close(&id);
        }
    }
    // A body of known size has no second frame, an answer to DELETE may be empty.
    assert!(went_off >= 35, "{went_off} of 45 went off");
    pass(SECOND).await;
    assert_eq!(server.sessions().len(), 0, "I6");
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_panics_anywhere_in_initialize_keeps_no_permit() {
    let server = FakeServer::default();
    let layer = McpSessionLayer::new().max_sessions(1).unknown_ids(UnknownIds::Forward);
    let (layer, watched) = watch(&server, layer);
    let service = layer.layer(Grenade(server.clone()));
    let long = || json_post(format!("{}{}", " ".repeat(65 * 1024), initialize_body()));
    for place in PLACES {
        let restored = unique("restored");
        server.remember(&restored);
        watched.learn(&restored);
        let requests = [
            ("initialize", initialize()),
            ("one that is not recognised", long()),
            ("a restore", call(&restored, "ping")),
            ("a restored stream", get(&restored)),
        ];
        for (name, request) in requests {
            let what = format!("{name}, panic at {place}");
            goes_off(&service, armed(request, place)).await;
            pass(SECOND).await;
            assert_lets_go(&watched.sessions, &what);
            watched.sessions.close_all();
            pass(SECOND).await;
            let stats = watched.sessions.stats();
            assert_eq!((stats.live, stats.closing), (0, 0), "{what}");
            // The cap is one.
            open(&service, &watched).await;
            watched.sessions.close_all();
            pass(SECOND).await;
            // What it made before it panicked, nobody was told the id of.
            server.sessions().iter().for_each(|id| server.forget(id));
            server.remember(&restored);
        }
        server.forget(&restored);
    }
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_answer_under_catch_panic_outside() {
    let server = FakeServer::default();
    let (layer, watched) = watch(&server, McpSessionLayer::new().idle_timeout(IDLE));
    let service = layer.layer(Grenade(server.clone()));
    let id = open(&service, &watched).await;
    let outside = CatchPanicLayer::new().layer(service.clone());
    for place in ["call", "first poll", "second poll", "is_end_stream"] {
        for (name, request) in
            [("POST", call(&id, "ping")), ("GET", get(&id)), ("initialize", initialize())]
        {
            let answer = outside.clone().oneshot(armed(request, place)).await.unwrap();
            assert_eq!(answer.status(), 500, "{name}, panic at {place}");
            assert_lets_go(&watched.sessions, name);
        }
    }
    assert_eq!(ping(&service, &id).await, 200);
    let answer = outside.clone().oneshot(armed(delete(&id), "first poll")).await.unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(ping(&service, &id).await, 404, "nobody knows what came of the DELETE");
    pass(SECOND).await;
    assert!(!server.has(&id), "so the server was told again");
    watched.finish().await;
}

/// Whoever keeps a body that has panicked, and asks it again.
#[tokio::test(start_paused = true)]
async fn a_stream_that_panicked_has_ended_and_holds_nothing() {
    let server = FakeServer::default();
    let (layer, watched) = watch(&server, McpSessionLayer::new().idle_timeout(IDLE));
    let service = layer.layer(Grenade(server.clone()));
    let id = open(&service, &watched).await;
    for request in [get(&id), call(&id, "endless")] {
        let mut answer = service.clone().oneshot(armed(request, "frame 1")).await.unwrap();
        assert!(frame(&mut answer).await.is_some());
        assert!(AssertUnwindSafe(frame(&mut answer)).catch_unwind().await.is_err());
        assert_lets_go(&watched.sessions, "the body is alive, and over");
        assert_eq!(frame(&mut answer).await, None);
    }
    pass(IDLE + TICK).await;
    assert!(watched.sessions.is_empty());
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_principal_hook_that_panics_panics_for_its_caller_and_keeps_nothing() {
    let world = World::new(|layer| {
        layer.max_sessions(1).unknown_ids(UnknownIds::Forward).principal(|parts| {
            assert!(!parts.headers.contains_key("x-panic"), "as hooks do");
            Some("alice")
        })
    });
    let id = world.open_used().await;
    let long = json_post(format!("{}{}", " ".repeat(65 * 1024), initialize_body()));
    for request in [initialize(), long, call(&id, "ping"), get(&id), call("unknown", "ping")] {
        let asked = AssertUnwindSafe(world.ask(armed(request, "hook"))).catch_unwind().await;
        assert!(asked.is_err());
        assert_lets_go(&world.sessions, "after a panic of the hook");
    }
    assert_eq!(world.ping(&id).await, 200);
    world.sessions.close(&id);
    pass(SECOND).await;
    world.open_used().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_terminate_hook_that_panics_costs_no_permit_and_stops_no_other_close() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let world = World::new(|layer| {
        layer.max_sessions(200).terminate_with(move |_, _| {
            // Nine of ten, so that more panic than there are workers.
            assert!(counted.fetch_add(1, Ordering::SeqCst).is_multiple_of(10), "as hooks do");
        })
    });
    for _ in 0..200 {
        world.open_used().await;
    }
    world.sessions.close_all();
    pass(SECOND).await;
    let stats = world.sessions.stats();
    assert_eq!((stats.closing, stats.terminate_failures), (0, 180));
    assert_eq!(world.server.sessions().len(), 180);
    world.finish().await;
}

/// A payload that panics again when the panic is over.
struct Payload(Arc<AtomicUsize>);

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_panics_panic_stops_no_close() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dropped);
    let server = FakeServer::default();
    let inner = server.clone();
    let wild = tower::service_fn(move |request: Request<Body>| {
        let (inner, counted) = (inner.clone(), Arc::clone(&counted));
        async move {
            if request.method() == http::Method::DELETE {
                std::panic::panic_any(Payload(counted));
            }
            inner.oneshot(request).await
        }
    });
    let (layer, watched) = watch(&server, McpSessionLayer::new().max_sessions(200));
    let service = layer.layer(wild);
    for _ in 0..200 {
        let answer = read(service.clone().oneshot(initialize()).await.unwrap()).await;
        watched.learn(answer.id().unwrap());
    }
    watched.sessions.close_all();
    // Nobody opens anything, and nothing else wakes the closer; the retries come later.
    pass(SECOND / 2).await;
    assert_eq!(dropped.load(Ordering::SeqCst), 200);
    assert_eq!(watched.sessions.stats().closing, 0);
    watched.finish().await;
}
