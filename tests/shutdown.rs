//! The orderly end, and the operator's handle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::*;
use mcp_session_layer::{CloseReason, McpSessionLayer, SessionEvent};
use serde_json::json;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

#[tokio::test(start_paused = true)]
async fn shutdown_lets_work_finish_ends_get_streams_and_closes_all() {
    let world = World::new(|layer| layer);
    let (working, listening) = (world.open_used().await, world.open_used().await);
    let mut stream = world.send(get(&listening)).await;
    assert!(frame(&mut stream).await.is_some());
    let work = call_with(&working, "sleep", &json!({ "ms": 3_000 }));
    let sessions = world.sessions.clone();
    let before = Instant::now();
    let (reply, (), end) = tokio::join!(
        world.ask(work),
        async {
            tokio::task::yield_now().await;
            sessions.shutdown(SECOND * 10).await;
        },
        async {
            let end = frame(&mut stream).await;
            (end, before.elapsed())
        }
    );
    assert_eq!(reply.status, 200, "work in flight gets its result");
    assert_eq!(end, (None, Duration::ZERO), "a GET stream ends at once, cleanly");
    assert!(before.elapsed() < SECOND * 4, "and nobody waits for the rest of the grace");
    assert_eq!(world.server.sessions().len(), 0, "the server was told before it returned");
    assert_eq!(world.sessions.stats().closed.get(CloseReason::Shutdown), 2);
    drop(stream);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_cuts_what_is_still_there_when_the_grace_ends() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let mut endless = world.send(call(&id, "endless")).await;
    assert!(frame(&mut endless).await.is_some());
    let before = Instant::now();
    world.sessions.shutdown(SECOND * 10).await;
    assert_eq!(before.elapsed(), SECOND * 10);
    assert_eq!(frame(&mut endless).await, None);
    drop(endless);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn while_shutting_down_new_sessions_and_streams_are_503_and_calls_are_served() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let endless = world.send(call(&id, "endless")).await;
    let sessions = world.sessions.clone();
    let shutdown = tokio::spawn(async move { sessions.shutdown(SECOND * 10).await });
    pass(SECOND).await;
    for request in [initialize(), get(&id)] {
        let refused = world.ask(request).await;
        assert_eq!(refused.status, 503);
        assert_eq!(
            refused.body,
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Server is shutting down"}}"#
        );
        assert_eq!(refused.headers["retry-after"], "5");
    }
    assert_eq!(world.ping(&id).await, 200);
    drop(endless);
    shutdown.await.unwrap();
    world.ask(call(&id, "ping")).await.assert_lost();
    assert_eq!(world.ask(initialize()).await.status, 503, "for good");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_opens_while_everything_is_closed_goes_too() {
    let world = World::new(|layer| layer);
    world.server.change(|manners| manners.open_delay = SECOND * 20);
    let sessions = world.sessions.clone();
    let (reply, ()) = tokio::join!(world.ask(initialize()), async {
        tokio::task::yield_now().await;
        sessions.shutdown(SECOND).await;
    });
    assert_eq!((reply.status.as_u16(), reply.id()), (503, None));
    pass(SECOND).await;
    assert_eq!(world.server.sessions().len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_a_server_that_never_answers() {
    let world = World::new(|layer| layer.close_timeout(SECOND * 5));
    for _ in 0..200 {
        world.open_used().await;
    }
    world.server.change(|manners| manners.delete_status = None);
    let before = Instant::now();
    world.sessions.shutdown(SECOND).await;
    assert!(before.elapsed() <= SECOND * 6);
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_get_that_is_answered_after_the_shutdown_began_ends_at_once() {
    let late = tower::service_fn(|request: http::Request<axum::body::Body>| async move {
        if request.method() != http::Method::GET {
            return Ok::<_, std::convert::Infallible>(http::Response::new("{}".into()));
        }
        tokio::time::sleep(SECOND).await;
        let silence = futures_util::stream::pending::<Result<&str, std::convert::Infallible>>();
        Ok(http::Response::new(axum::body::Body::from_stream(silence)))
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let service = layer.layer(late);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    watched.learn(opened.id().unwrap());
    let before = Instant::now();
    let (answer, ()) = tokio::join!(service.oneshot(get(opened.id().unwrap())), async {
        tokio::task::yield_now().await;
        layer.sessions().shutdown(SECOND * 30).await;
    });
    assert!(before.elapsed() < SECOND * 2, "{:?}", before.elapsed());
    assert_eq!(read(answer.unwrap()).await.body, "");
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_may_be_called_twice_and_dropped_half_way() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let endless = world.send(call(&id, "endless")).await;
    let half = tokio::time::timeout(SECOND, world.sessions.shutdown(SECOND * 10)).await;
    assert!(half.is_err());
    assert_eq!(world.ping(&id).await, 200);
    tokio::join!(world.sessions.shutdown(SECOND), world.sessions.shutdown(SECOND * 2));
    assert_eq!(world.sessions.len(), 0);
    drop(endless);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_operator_sees_what_there_is_without_an_id() {
    let world = World::new(|layer| layer.principal(|_| Some("alice")));
    assert!(world.sessions.is_empty());
    let id = world.open_used().await;
    let stream = world.send(get(&id)).await;
    pass(SECOND * 7).await;
    let session = world.sessions.get(&id).unwrap();
    let name = session.fingerprint();
    assert_eq!(
        serde_json::to_value(world.sessions.list()).unwrap(),
        json!([{
            "session": name.to_string(),
            "principal": "alice",
            "client": { "name": "tester", "version": "1.0", "protocol_version": "2025-11-25" },
            "age_ms": 7_000, "idle_ms": 0, "in_flight": 1, "streams": 1, "requests": 3,
        }])
    );
    let stats = serde_json::to_value(world.sessions.stats()).unwrap();
    assert_eq!(
        stats,
        json!({
            "live": 1, "opening": 0, "closing": 0, "opened": 1,
            "closed": {
                "idle": 0, "unused": 0, "lifetime": 0, "client": 0, "inner": 0, "evicted": 0,
                "abandoned": 0, "requested": 0, "shutdown": 0,
            },
            "rejected": 0, "in_flight": 1, "streams": 1, "terminate_failures": 0,
            "retrying": 0, "unended": 0,
        })
    );
    let found = world.sessions.find(name.to_string().parse().unwrap()).unwrap();
    assert_eq!(found.id(), Some(id.as_str()));
    assert!(found.close());
    assert!(world.sessions.find(name).is_none());
    assert!(!world.sessions.close(&id));
    drop(stream);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn looking_at_a_session_does_not_keep_it() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    for _ in 0..4 {
        pass(IDLE / 4).await;
        world.sessions.get(&id);
        world.sessions.list();
        world.sessions.stats();
    }
    pass(TICK).await;
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_the_events_and_one_that_sleeps_holds_nobody_up() {
    let world = World::new(|layer| layer);
    let mut events = world.sessions.subscribe();
    let mut sleeper = world.sessions.subscribe();
    let id = world.open_used().await;
    pass(SECOND * 5).await;
    world.ask(delete(&id)).await;
    world.ask(call(&id, "ping")).await.assert_lost();

    let SessionEvent::Opened { session, principal: None, client: Some(client), .. } =
        events.recv().await.unwrap()
    else {
        panic!("not opened");
    };
    assert_eq!(client.name.as_deref(), Some("tester"));
    let closed = events.recv().await.unwrap();
    let SessionEvent::Closed { session: closed, reason, lifetime, requests, .. } = closed else {
        panic!("not closed");
    };
    assert_eq!((closed, reason), (session, CloseReason::Client));
    assert_eq!((lifetime, requests), (SECOND * 5, 3));
    let SessionEvent::Rejected { why, .. } = events.recv().await.unwrap() else {
        panic!("not rejected");
    };
    assert_eq!(why, mcp_session_layer::Rejection::SessionNotFound);

    for _ in 0..3_000 {
        world.ask(call("unknown", "ping")).await;
    }
    for kind in ["Opened", "Closed", "Rejected"] {
        let event = format!("{:?}", sleeper.recv().await.unwrap());
        assert!(event.starts_with(kind), "a flood of rejections displaces nothing: {event}");
    }
    assert_eq!(sleeper.missed(), 3_001 - 1_024);
    world.finish().await;
}

/// Not watched: who watches has the sessions, and here everything is dropped.
#[tokio::test(start_paused = true)]
async fn the_stream_of_events_ends_with_the_layer() {
    let layer = McpSessionLayer::new();
    let mut events = layer.sessions().subscribe();
    let service = layer.layer(FakeServer::default());
    read(service.oneshot(initialize()).await.unwrap()).await;
    drop(layer);
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    assert!(matches!(last, Some(SessionEvent::Closed { reason: CloseReason::Shutdown, .. })));
}
