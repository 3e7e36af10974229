//! Whose session it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::*;
use http::{Method, Request};
use mcp_session_layer::{McpSessionLayer, Principal};

fn owned(layer: McpSessionLayer) -> McpSessionLayer {
    layer.principal(|parts| {
        parts.headers.get("x-user").map(|user| user.to_str().unwrap().to_owned())
    })
}

fn as_user<T>(mut request: Request<T>, user: &str) -> Request<T> {
    request.headers_mut().insert("x-user", user.parse().unwrap());
    request
}

async fn open_as(world: &World, user: &str) -> String {
    let id = world.ask(as_user(initialize(), user)).await.id().unwrap().to_owned();
    assert_eq!(world.ask(as_user(call(&id, "ping"), user)).await.status, 200);
    id
}

#[tokio::test(start_paused = true)]
async fn the_id_alone_is_worth_nothing() {
    let world = World::new(owned);
    let id = open_as(&world, "alice").await;
    let calls = world.server.seen().len();
    for request in [call(&id, "ping"), get(&id), delete(&id), with_id(initialize(), &id)] {
        let stolen = world.ask(as_user(request, "mallory")).await;
        stolen.assert_lost();
    }
    for method in [Method::GET, Method::DELETE, Method::OPTIONS, Method::PUT] {
        world.ask(with_id(bare(method), &id)).await.assert_lost();
    }
    let unknown = world.ask(as_user(call("no-such-session", "ping"), "mallory")).await;
    unknown.assert_lost();
    assert_eq!(world.server.seen().len(), calls, "the server was not called");
    assert_eq!(world.ask(as_user(call(&id, "ping"), "alice")).await.status, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_thief_does_not_keep_the_session_alive() {
    let world = World::new(owned);
    let id = open_as(&world, "alice").await;
    for _ in 0..4 {
        pass(IDLE / 4).await;
        world.ask(as_user(call(&id, "ping"), "mallory")).await.assert_lost();
    }
    pass(TICK).await;
    assert_eq!(world.sessions.len(), 0);
    assert_eq!(world.sessions.stats().closed.get(mcp_session_layer::CloseReason::Idle), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_may_open_unless_anonymous_sessions_are_allowed() {
    let world = World::new(owned);
    let refused = world.ask(initialize()).await;
    assert_eq!(
        (refused.status.as_u16(), &*refused.body),
        (
            403,
            &br#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"An identified caller is required"}}"#[..]
        )
    );
    assert_eq!(world.server.seen().len(), 0);
    world.finish().await;

    let world = World::new(|layer| owned(layer).allow_anonymous());
    let id = world.open_used().await;
    world.ask(as_user(call(&id, "ping"), "mallory")).await.assert_lost();
    assert_eq!(world.ping(&id).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_closes_all_of_one_principal() {
    let world = World::new(owned);
    let alices = [open_as(&world, "alice").await, open_as(&world, "alice").await];
    let bobs = open_as(&world, "bob").await;
    assert_eq!(world.sessions.close_principal(&Principal::from("alice")), 2);
    assert_eq!(world.sessions.close_principal(&Principal::from("nobody")), 0);
    for id in &alices {
        world.ask(as_user(call(id, "ping"), "alice")).await.assert_lost();
    }
    assert_eq!(world.ask(as_user(call(&bobs, "ping"), "bob")).await.status, 200);
    pass(SECOND).await;
    assert_eq!(world.server.sessions(), [bobs].into());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_unrecognised_initialize_of_nobody_is_closed_again() {
    let world = World::new(owned);
    let mut request = initialize();
    request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    let refused = world.ask(request).await;
    assert_eq!((refused.status.as_u16(), refused.id()), (403, None));
    pass(SECOND).await;
    assert_eq!(world.server.sessions().len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn there_is_no_way_past_the_owner_below_the_managed_path() {
    use tower::{Layer, ServiceExt};
    let fake = FakeServer::default();
    let server = fake.clone();
    let server = tower::service_fn(move |mut request: Request<axum::body::Body>| {
        // As rmcp does: the path is not looked at.
        *request.uri_mut() = "/mcp".parse().unwrap();
        server.clone().oneshot(request)
    });
    let (layer, watched) = watch(&fake, owned(McpSessionLayer::new()).path("/mcp"));
    let app = axum::Router::new().nest_service("/mcp", server).layer(layer.clone());
    let ask = |request: Request<axum::body::Body>, path: &str| {
        let mut request = request;
        *request.uri_mut() = path.parse().unwrap();
        app.clone().oneshot(request)
    };
    let opened = ask(as_user(initialize(), "alice"), "/mcp").await.unwrap();
    let id = opened.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    drop(opened);
    watched.learn(&id);
    for path in ["/mcp", "/mcp/", "/mcp/x", "/mcp//"] {
        let stolen = ask(as_user(call(&id, "ping"), "mallory"), path).await.unwrap();
        assert_eq!(stolen.status(), 404, "{path}");
        let nobody = ask(initialize(), path).await.unwrap();
        assert_eq!(nobody.status(), 403, "{path}");
    }
    assert_eq!(fake.seen().len(), 1);
    drop(layer.layer(fake));
    watched.finish().await;
}
