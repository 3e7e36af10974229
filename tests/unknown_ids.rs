//! Ids that are not in the table, and servers that know them all the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::*;
use http::Method;
use mcp_session_layer::{McpSessionLayer, UnknownIds};
use serde_json::json;

/// Of a session that the server has from before a restart.
const FROM_BEFORE: &str = "from-before-d3c1f6a8-7a41-4c55-9a53-0f8d3c6b2e17";

fn remember(world: &World) {
    world.server.remember(FROM_BEFORE);
    world.learn(FROM_BEFORE);
}

fn forwarding(layer: McpSessionLayer) -> McpSessionLayer {
    layer.unknown_ids(UnknownIds::Forward)
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_is_the_same_404_for_any_method_and_the_server_is_not_called() {
    let world = World::new(|layer| layer);
    for method in ["GET", "POST", "DELETE", "PUT", "OPTIONS", "PATCH", "HEAD"] {
        let method: Method = method.parse().unwrap();
        world.ask(with_id(bare(method), "unknown")).await.assert_lost();
    }
    world.ask(call("unknown", "ping")).await.assert_lost();
    world.ask(with_id(initialize(), "unknown")).await.assert_lost();
    assert_eq!(world.server.seen().len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_server_restores_is_adopted() {
    let world = World::new(forwarding);
    remember(&world);
    assert_eq!(world.ping(FROM_BEFORE).await, 200);
    assert_eq!(world.sessions.len(), 1);
    assert_eq!(world.ping(FROM_BEFORE).await, 200);
    assert_eq!(world.events(), ["opened"]);
    pass(IDLE + TICK).await;
    assert!(!world.server.has(FROM_BEFORE), "and is closed like any other");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_stream_is_owned_too() {
    let world = World::new(|layer| forwarding(layer).max_streams(1));
    remember(&world);
    let stream = world.send(get(FROM_BEFORE)).await;
    assert_eq!(stream.status(), 200);
    assert_eq!(world.ask(get(FROM_BEFORE)).await.status, 429);
    assert!(world.sessions.close(FROM_BEFORE));
    assert_eq!(world.server.open_bodies(), 0);
    drop(stream);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_server_does_not_know_either_is_not_adopted() {
    let world = World::new(forwarding);
    world.ask(call("unknown", "ping")).await.assert_lost();
    assert_eq!(world.server.seen().len(), 1, "it was asked");
    world.server.remember("failing");
    let failing = call_with("failing", "status", &json!({ "code": 500 }));
    assert_eq!(world.ask(failing).await.status, 500);
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn delete_is_passed_on_and_never_adopts() {
    let world = World::new(forwarding);
    remember(&world);
    assert_eq!(world.ask(delete(FROM_BEFORE)).await.status, 202);
    assert_eq!(world.ask(delete("never-was")).await.status, 202);
    assert_eq!(world.sessions.len(), 0);
    assert!(!world.server.has(FROM_BEFORE));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_closed_here_stays_closed() {
    let world = World::new(forwarding);
    let id = world.open_used().await;
    world.ask(delete(&id)).await;
    // As if the store had not taken notice.
    world.server.remember(&id);
    let calls = world.server.seen().len();
    for request in [call(&id, "ping"), get(&id), delete(&id)] {
        world.ask(request).await.assert_lost();
    }
    assert_eq!(world.server.seen().len(), calls);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn two_requests_that_restore_at_once_share_one_session() {
    let world = World::new(forwarding);
    remember(&world);
    let sleep = || call_with(FROM_BEFORE, "sleep", &json!({ "ms": 100 }));
    let (one, two) = tokio::join!(world.ask(sleep()), world.ask(sleep()));
    assert_eq!((one.status.as_u16(), two.status.as_u16()), (200, 200));
    assert_eq!((world.sessions.len(), world.events()), (1, vec!["opened".to_owned()]));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_session_belongs_to_who_restored_it() {
    let world = World::new(|layer| {
        forwarding(layer).principal(|parts| {
            parts.headers.get("x-user").map(|user| user.to_str().unwrap().to_owned())
        })
    });
    remember(&world);
    let as_user = |user: &str| {
        let mut request = call(FROM_BEFORE, "ping");
        request.headers_mut().insert("x-user", user.parse().unwrap());
        request
    };
    world.ask(call(FROM_BEFORE, "ping")).await.assert_lost();
    world.ask(delete(FROM_BEFORE)).await.assert_lost();
    assert!(world.server.has(FROM_BEFORE), "who cannot own it cannot end it");
    assert_eq!(world.ask(as_user("alice")).await.status, 200);
    world.ask(as_user("mallory")).await.assert_lost();
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn restoring_counts_against_the_cap() {
    let world = World::new(|layer| forwarding(layer).max_sessions(1));
    world.open_used().await;
    remember(&world);
    assert_eq!(world.ping(FROM_BEFORE).await, 503);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_during_a_restore_ends_the_session_at_its_next_request() {
    let world = World::new(forwarding);
    remember(&world);
    let slow = call_with(FROM_BEFORE, "sleep", &json!({ "ms": 1_000 }));
    let (slow, ()) = tokio::join!(world.ask(slow), async {
        pass(SECOND / 2).await;
        // The client gives up on its first call, and on the session.
        world.ask(delete(FROM_BEFORE)).await;
    });
    assert_eq!(slow.status, 200);
    assert_eq!(world.ping(FROM_BEFORE).await, 404);
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_restore_together_all_get_a_handle_that_works() {
    let world = World::new(forwarding);
    remember(&world);
    let calls = (0..8).map(|_| world.ask(call_with(FROM_BEFORE, "hold", &json!({ "ms": 10 }))));
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.status, 200);
    }
    let named = world.server.seen().iter().filter(|seen| seen.session.is_some()).count();
    assert_eq!((named, world.sessions.len()), (8, 1));
    let names: std::collections::HashSet<_> =
        world.server.seen().iter().map(|seen| seen.session).collect();
    assert_eq!(names.len(), 1, "one session, under its id from the start");
    pass(SECOND).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_call_takes_as_long_as_it_takes() {
    let world = World::new(|layer| forwarding(layer).open_timeout(SECOND));
    remember(&world);
    let long = call_with(FROM_BEFORE, "sleep", &json!({ "ms": 40_000 }));
    assert_eq!(world.ask(long).await.status, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_the_store_its_sessions() {
    let world = World::new(forwarding);
    let id = world.open_used().await;
    world.sessions.shutdown(SECOND).await;
    assert!(world.server.has(&id), "for the next process");
    assert_eq!(world.server.count(&Method::DELETE), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_whose_turn_does_not_come_goes_on_without() {
    let world = World::new(|layer| forwarding(layer).open_timeout(SECOND));
    remember(&world);
    let long = call_with(FROM_BEFORE, "sleep", &json!({ "ms": 60_000 }));
    let before = tokio::time::Instant::now();
    let (long, quick) = tokio::join!(world.ask(long), async {
        tokio::task::yield_now().await;
        (world.ping(FROM_BEFORE).await, before.elapsed())
    });
    assert_eq!((long.status.as_u16(), quick.0.as_u16()), (200, 200));
    assert!(quick.1 < SECOND * 2, "{:?}", quick.1);
    assert_eq!((world.sessions.len(), world.events().len()), (1, 1));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_that_answers_anything_restores_nothing() {
    let world = World::new(forwarding);
    for method in [Method::GET, Method::POST, Method::OPTIONS, Method::PUT] {
        let mut request = with_id(bare(method), "made-up");
        *request.uri_mut() = "/health".parse().unwrap();
        world.ask(request).await;
    }
    assert_eq!(world.sessions.stats().opened, 0);
    world.finish().await;
}
