//! Bad input gets a clear answer and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use common::*;
use futures_util::{StreamExt, stream};
use http::HeaderValue;
use serde_json::json;

const REFUSED: [(&[&[u8]], &str); 7] = [
    (&[b"a", b"a"], "Mcp-Session-Id must be sent once"),
    (&[b"a", b""], "Mcp-Session-Id must be sent once"),
    (&[b""], "Mcp-Session-Id must not be empty"),
    (&[&[b'x'; 4097]], "Mcp-Session-Id is over 4096 bytes"),
    (&[b"with space"], "Mcp-Session-Id must be visible ASCII"),
    (&[b"with\ttab"], "Mcp-Session-Id must be visible ASCII"),
    (&["ünïcode".as_bytes()], "Mcp-Session-Id must be visible ASCII"),
];

#[tokio::test(start_paused = true)]
async fn a_malformed_id_is_a_400_that_says_which() {
    let world = World::new(|layer| layer);
    for (values, message) in REFUSED {
        for method in ["GET", "POST", "DELETE", "OPTIONS"] {
            let mut request = bare(method.parse().unwrap());
            for value in values {
                let value = HeaderValue::from_bytes(value).unwrap();
                request.headers_mut().append("mcp-session-id", value);
            }
            let reply = world.ask(request).await;
            assert_eq!(reply.status, 400, "{method} {values:?}");
            let body = json!({ "jsonrpc": "2.0", "error": { "code": -32000, "message": message } });
            assert_eq!(reply.json(), body);
            assert_eq!(reply.headers["content-type"], "application/json");
            assert_eq!(reply.headers["cache-control"], "no-store");
        }
    }
    assert_eq!(world.server.seen().len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_longest_id_and_every_allowed_byte_are_ids() {
    let world = World::new(|layer| layer);
    let every: String = (0x21u8..=0x7e).map(char::from).collect();
    for id in ["x".repeat(4096), every] {
        world.ask(call(&id, "ping")).await.assert_lost();
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn huge_and_deep_bodies_are_handed_on_and_leave_nothing() {
    let world = World::new(|layer| layer);
    let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
    let deep_object = r#"{"a":"#.repeat(1_000_000) + "1" + &"}".repeat(1_000_000);
    let big = format!(r#"{{"jsonrpc":"2.0","method":"ping","x":"{}"}}"#, "x".repeat(5 << 20));
    let short_and_deep = "[".repeat(30_000) + &"]".repeat(30_000);
    for body in [deep, deep_object, big, short_and_deep, "[".repeat(65_536), "\"".to_owned()] {
        let reply = world.ask(json_post(body.clone())).await;
        assert_eq!(reply.status, 200, "not ours to refuse");
        assert_eq!(world.server.last().body, body);
    }
    let nested = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}{}}}"#,
        "[".repeat(30_000),
        "]".repeat(30_000)
    );
    assert_eq!(world.ask(json_post(nested)).await.status, 200);
    assert_eq!(world.sessions.len(), 1, "an initialize all the same");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_body_and_a_hang_up_open_nothing() {
    let world = World::new(|layer| layer);
    let body = initialize_body().to_string();
    for cut in [0, 1, body.len() / 2, body.len() - 1] {
        let half = Bytes::copy_from_slice(&body.as_bytes()[..cut]);
        let frames = stream::iter([Ok(half), Err(std::io::Error::other("hang up"))]);
        let reply = world.ask(json_post(Body::from_stream(frames))).await;
        assert_eq!((reply.status.as_u16(), &*reply.body), (400, &b"broken body"[..]));
    }
    assert_eq!(world.sessions.stats().opened, 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_in_single_bytes_is_recognised() {
    let world = World::new(|layer| layer);
    let bytes = initialize_body().to_string().into_bytes();
    let drip = stream::iter(bytes).map(|byte| Ok::<_, Infallible>(Bytes::copy_from_slice(&[byte])));
    assert_eq!(world.ask(json_post(Body::from_stream(drip))).await.status, 200);
    assert_eq!(world.sessions.len(), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_takes_no_permit() {
    let world = World::new(|layer| layer.max_sessions(1));
    let slow = || {
        let endless = stream::pending::<Result<Bytes, Infallible>>();
        json_post(Body::from_stream(endless))
    };
    let service = &world.service;
    let calls: Vec<_> = (0..100)
        .map(|_| tokio::spawn(tower::ServiceExt::oneshot(service.clone(), slow())))
        .collect();
    pass(SECOND).await;
    let id = world.open().await;
    assert_eq!(world.ping(&id).await, 200);
    pass(SECOND * 20).await;
    assert_eq!(world.sessions.stats().opening, 0);
    for call in calls {
        call.abort();
        assert!(call.await.is_err());
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_may_replace_an_answer_and_its_panic_does_not() {
    use mcp_session_layer::Rejection;
    let world = World::new(|layer| {
        layer.reject_with(|why, mut response| match why {
            Rejection::IdEmpty => panic!("as hooks do"),
            Rejection::SessionNotFound => {
                response.headers_mut().insert("x-why", HeaderValue::from_static("gone"));
                response.map(|_| Bytes::from_static(b"custom"))
            }
            _ => response,
        })
    });
    let reply = world.ask(call("unknown", "ping")).await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (404, &b"custom"[..]));
    assert_eq!(reply.headers["x-why"], "gone");
    assert_eq!(world.ask(with_id(bare(http::Method::GET), "")).await.status, 400);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn paths_that_are_not_managed_are_not_looked_at() {
    let world = World::new(|layer| layer.path("/mcp"));
    for mut request in [
        initialize(),
        call("unknown", "ping"),
        json_post(message("ping", &json!({}))),
        with_id(bare(http::Method::DELETE), "not an id"),
        with_id(call("one", "ping"), "two"),
    ] {
        *request.uri_mut() = "/health?deep=1".parse().unwrap();
        let sent = request.headers().clone();
        let reply = world.ask(request).await;
        assert_eq!((reply.status.as_u16(), &*reply.body, reply.id()), (200, &b"ok"[..], None));
        assert_eq!(world.server.last().headers, sent);
    }
    world.ask(call("unknown", "ping")).await.assert_lost();
    assert_eq!(world.sessions.stats().opened, 0);
    world.finish().await;
}
