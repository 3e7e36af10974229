//! Two eras on one endpoint.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use axum::body::Body;
use common::*;
use http::{Method, Request};
use serde_json::json;

fn version(mut request: Request<Body>, version: &str) -> Request<Body> {
    request.headers_mut().insert("mcp-protocol-version", version.parse().unwrap());
    request
}

fn modern(request: Request<Body>) -> Request<Body> {
    version(request, "2026-07-28")
}

#[tokio::test(start_paused = true)]
async fn modern_requests_pass_through_without_the_id_they_came_with() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    world.server.change(|manners| manners.issues_ids = false);
    for request in [call(&id, "tools/list"), get(&id), delete(&id), call("a b", "ping")] {
        let method = request.method().clone();
        let body = modern(request);
        drop(world.send(body).await);
        let seen = world.server.last();
        assert_eq!((seen.method, seen.id, seen.session), (method, None, None));
    }
    let mut twice = call(&id, "ping");
    twice.headers_mut().append("mcp-session-id", id.parse().unwrap());
    assert_eq!(world.ask(modern(twice)).await.status, 200);
    assert_eq!(world.server.last().id, None, "both headers are gone");
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.len(), 0, "none of it counted as activity");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_modern_body_is_handed_on_bit_for_bit() {
    let world = World::new(|layer| layer);
    world.server.change(|manners| manners.issues_ids = false);
    for body in [message("subscriptions/listen", &json!({})), "x".repeat(200_000), String::new()] {
        assert_eq!(world.ask(modern(json_post(body.clone()))).await.status, 200);
        assert_eq!(world.server.last().body, body);
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn modern_streams_are_never_cut() {
    let world = World::new(|layer| {
        layer.max_lifetime(SECOND * 10).stream_lifetime(SECOND).heartbeat(SECOND)
    });
    world.server.change(|manners| manners.issues_ids = false);
    world.open_used().await;
    let listen = modern(json_post(message("endless", &json!({}))));
    let mut listening = world.send(listen).await;
    assert_eq!(frame(&mut listening).await.unwrap(), "data: 0\n\n");
    let quiet = tokio::time::timeout(IDLE * 100, frame(&mut listening)).await;
    assert!(quiet.is_err(), "neither an end nor a heartbeat");
    world.sessions.shutdown(SECOND).await;
    assert!(tokio::time::timeout(SECOND, frame(&mut listening)).await.is_err());
    drop(listening);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_modern_404_closes_no_session() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let request = modern(call_with(&id, "status", &json!({ "code": 404 })));
    assert_eq!(world.ask(request).await.status, 404);
    assert_eq!(world.ping(&id).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn initialize_is_legacy_whatever_its_header_says() {
    let world = World::new(|layer| layer.max_sessions(1));
    let reply = world.ask(modern(initialize())).await;
    let id = reply.id().unwrap().to_owned();
    assert_eq!(world.sessions.len(), 1, "owned, or it would leak in the server");
    assert_eq!(world.ping(&id).await, 200);
    assert_eq!(world.ask(modern(initialize())).await.status, 503, "and counted");
    pass(IDLE + TICK).await;
    assert!(!world.server.has(&id));
    // With an id it had no business to send.
    let again = world.ask(modern(with_id(initialize(), &id))).await;
    assert_eq!(again.status, 200);
    assert_eq!(world.server.count(&Method::POST), 3);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn with_an_id_other_versions_and_what_is_no_version_are_legacy() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    for legacy in ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-27", "banana", "2026-07"] {
        assert_eq!(world.ask(version(call(&id, "ping"), legacy)).await.status, 200);
        let seen = world.server.last();
        assert!(seen.session.is_some(), "{legacy}");
        assert_eq!(seen.headers["mcp-protocol-version"], legacy, "the server owns the 400");
        world.ask(version(call("unknown", "ping"), legacy)).await.assert_lost();
    }
    world.finish().await;
}

/// A server that speaks both eras lists the versions it supports in its answer.
#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_version_is_the_servers_to_say() {
    let world = World::new(|layer| layer);
    world.server.change(|manners| manners.issues_ids = false);
    for unknown in ["v999.0.0", "1999-01-01", "2026-07-27", "banana", ""] {
        let reply = world.ask(version(json_post(message("tools/list", &json!({}))), unknown)).await;
        assert_eq!(reply.status, 200, "{unknown:?}");
        assert_eq!(world.server.last().headers["mcp-protocol-version"], unknown);
    }
    let reached = world.server.seen().len();
    for legacy in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let reply = world.ask(version(json_post(message("tools/list", &json!({}))), legacy)).await;
        assert_eq!(reply.status, 400, "{legacy}");
    }
    assert_eq!(world.server.seen().len(), reached);
    // One that opens a session all the same has opened it for the layer.
    world.server.change(|manners| manners.issues_ids = true);
    let reply = world.ask(version(initialize(), "banana")).await;
    assert_eq!(world.ping(reply.id().unwrap()).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_version_header_that_stands_twice_is_no_way_past_the_owner() {
    let world = World::new(|layer| {
        layer.principal(|parts| {
            parts.headers.get("x-user").map(|user| user.to_str().unwrap().to_owned())
        })
    });
    let mut open = initialize();
    open.headers_mut().insert("x-user", "alice".parse().unwrap());
    let id = world.ask(open).await.id().unwrap().to_owned();
    for versions in [["2026-07-28", "2025-11-25"], ["2025-11-25", "2026-07-28"]] {
        let mut request = call(&id, "ping");
        for version in versions {
            request.headers_mut().append("mcp-protocol-version", version.parse().unwrap());
        }
        let before = world.server.seen().len();
        let reply = world.ask(request).await;
        let reached = world.server.seen().split_off(before);
        assert!(reached.iter().all(|seen| seen.id.is_none()), "{versions:?}: {reply:?}");
    }
    world.finish().await;
}
