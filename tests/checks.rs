//! The checks at the end of every test, that they do find what they look for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

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
