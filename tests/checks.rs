//! The checks at the end of every test, that they do find what they look for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use axum::body::Body;
use common::{trace::PLANTED, *};
use mcp_session_layer::McpSessionLayer;
use tower::ServiceExt;

#[tokio::test(start_paused = true)]
#[should_panic(expected = "I8: an id is in the log")]
async fn an_id_that_is_logged_in_another_thread_is_found() {
    let world = World::new(|layer| layer);
    let id = world.open().await;
    let log = move || tracing::trace!(target: "mcp_session_layer", "{PLANTED}: closing {id}");
    std::thread::spawn(log).join().unwrap();
    world.finish().await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "I5")]
async fn an_answer_that_is_still_alive_is_found() {
    let world = World::new(|layer| layer);
    let id = world.open().await;
    let _stream = world.send(get(&id)).await;
    world.finish().await;
}

#[tokio::test]
#[should_panic(expected = "I8: an id is in the log")]
async fn an_id_that_is_logged_is_found_in_real_time_too() {
    let (_, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let id = unique("logged");
    watched.learn(&id);
    tracing::trace!(target: "mcp_session_layer::somewhere", id, "{PLANTED}");
    watched.finish_in_real_time().await;
}

#[test]
#[should_panic(expected = "the test does not end in its checks")]
fn a_test_that_forgets_its_checks_is_found() {
    let _ = World::new(|layer| layer);
}

/// As a layer with a hole would let it through.
async fn ask_of_a_closed_session(request: impl Fn(&str) -> http::Request<Body>) {
    let world = World::new(|layer| layer);
    let id = world.open().await;
    let session = world.sessions.get(&id).unwrap();
    assert!(session.close());
    let mut request = request(&id);
    request.extensions_mut().insert(session);
    world.server.clone().oneshot(request).await.unwrap();
    world.finish().await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "I2: POST of closed")]
async fn a_call_of_a_session_that_was_closed_before_is_found() {
    ask_of_a_closed_session(|id| call(id, "ping")).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "I2: DELETE of closed")]
async fn a_clients_delete_of_a_session_that_was_closed_before_is_found() {
    ask_of_a_closed_session(delete).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "nobody knows when a POST was sent")]
async fn a_call_that_was_sent_nobody_knows_when_is_found() {
    ask_of_a_closed_session(|id| {
        let request = http::Request::post("/mcp").header("mcp-session-id", id);
        request.body(Body::from(message("ping", &serde_json::json!({})))).unwrap()
    })
    .await;
}

/// Let in, and then overtaken by a DELETE: nobody could have known.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_let_in_before_the_close_may_be_read_after_it() {
    let world = World::new(|layer| layer);
    let id = world.open().await;
    let (body, read) = tokio::sync::oneshot::channel::<String>();
    let body_comes = Body::from_stream(futures_util::stream::once(read));
    let service = world.service.clone();
    let late = tokio::spawn(service.oneshot(with_id(json_post(body_comes), &id)));
    pass(SECOND).await;
    assert_eq!(world.ask(delete(&id)).await.status, 204);
    assert!(world.sessions.is_empty());
    body.send(message("ping", &serde_json::json!({}))).unwrap();
    drop(late.await.unwrap().unwrap());
    world.finish().await;
}

/// The fake server takes every call for what it is, also when another one arrives meanwhile.
#[test]
fn calls_that_arrive_at_once_are_not_taken_for_one_another() {
    let server = FakeServer::default();
    let hammer = |request: fn() -> http::Request<Body>, status: u16| {
        let server = server.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                for _ in 0..500 {
                    let answer = server.clone().oneshot(request()).await.unwrap();
                    assert_eq!(answer.status(), status);
                }
            });
        })
    };
    let opening = hammer(initialize, 200);
    let unknown = hammer(|| call("nobody's", "ping"), 404);
    opening.join().unwrap();
    unknown.join().unwrap();
}
