//! Ids where no session may come of the answer, and ids of every length.

use http::{Method, Request};
use mcp_session_layer::McpSessionLayer;
use serde_json::json;

use crate::{common::*, server::*, stage::*};

const STATUSES: [u16; 12] = [200, 201, 202, 204, 302, 307, 400, 404, 406, 415, 500, 503];
const KINDS: [Option<&str>; 6] =
    [JSON, EVENTS, Some("text/html"), Some("text/plain"), Some("application/problem+json"), None];

/// Every way to ask without an id that reaches the server.
fn idless() -> Vec<(&'static str, Request<axum::body::Body>)> {
    let mut all: Vec<_> = ["GET", "HEAD", "PUT", "PATCH", "OPTIONS", "DELETE"]
        .into_iter()
        .map(|method| (method, bare(method.parse().unwrap())))
        .collect();
    all.push(("initialize", initialize()));
    all.push(("not JSON", json_post("not JSON")));
    all.push(("text", post(Some("text/plain"), "hello")));
    all.push(("untyped", post(None, initialize_body().to_string())));
    all
}

/// Whether a session may come of such an answer.
fn opens(request: &Request<axum::body::Body>, status: u16, kind: Option<&str>) -> bool {
    let is_mcp = [JSON, EVENTS, None].contains(&kind);
    request.method() == Method::POST && is_mcp && status < 300
}

#[tokio::test(start_paused = true)]
async fn no_id_that_comes_with_a_refusal_reaches_the_client_and_each_session_is_ended_once() {
    type Configure = fn(McpSessionLayer) -> McpSessionLayer;
    let layers: [Configure; 2] = [|layer| layer, |layer| layer.path("/mcp")];
    for (configure, kind) in layers.into_iter().flat_map(|one| KINDS.map(|kind| (one, kind))) {
        for status in STATUSES {
            let own = Own::default();
            let stage = Stage::new(&own, generous(&own, status, kind), configure);
            let mut owned = 0;
            for (how, request) in idless() {
                let opens = opens(&request, status, kind);
                let reply = stage.ask(request).await;
                assert_eq!(reply.status, status, "{how} {kind:?}");
                assert_eq!(reply.body, body_of(kind), "{how} {kind:?} {status}");
                let is_there = reply.headers.contains_key("mcp-session-id");
                assert_eq!(is_there, opens, "{how} {kind:?} {status}");
                owned += usize::from(opens);
            }
            pass(SECOND).await;
            assert_eq!(own.opened().len(), idless().len());
            assert_eq!((own.live(), stage.sessions.len()), (owned, owned), "{kind:?} {status}");
            stage.sessions.close_all();
            pass(SECOND).await;
            assert_ended_once_each(&own);
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_before_such_an_answer_leaves_nothing_at_an_endpoint_with_a_name() {
    for status in [200, 302, 406, 500] {
        let own = Own::default();
        let slow = scripted(&own, move |own, call| async move {
            if call.id().is_some() {
                return None;
            }
            let id = own.open();
            pass(SECOND * 5).await;
            Some(named(answer(status, JSON, RESULT), &id))
        });
        let stage = Stage::new(&own, slow, |layer| layer.path("/mcp"));
        for (_, request) in idless() {
            stage.hang_up(SECOND, request).await;
        }
        pass(SECOND * 6).await;
        assert_eq!(own.opened().len(), idless().len());
        assert_eq!((own.live(), stage.sessions.len()), (0, 0), "{status}");
        assert_ended_once_each(&own);
        assert_eq!(stage.sessions.stats().opened > 0, status == 200, "{status}");
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_id_in_a_modern_answer_reaches_the_client_and_the_answer_is_otherwise_untouched() {
    for (status, kind) in
        [(200, JSON), (200, EVENTS), (202, None), (400, JSON), (500, Some("text/plain"))]
    {
        let own = Own::default();
        let inner = scripted(&own, move |own, call| async move {
            if call.id().is_some() {
                return None;
            }
            let mut response = named(answer(status, kind, body_of(kind)), &own.open());
            response.headers_mut().append("x-more", "one".parse().unwrap());
            response.headers_mut().append("x-more", "two".parse().unwrap());
            Some(response)
        });
        let stage = Stage::new(&own, inner, |layer| layer.max_sessions(2));
        let long = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": "x".repeat(70_000) });
        for _ in 0..5 {
            for request in [
                modern(json_post(message("tools/list", &json!({})))),
                modern(with_id(
                    json_post(message("tools/list", &json!({}))),
                    "never-opened-by-anybody",
                )),
                modern(json_post(long.to_string())),
                modern(bare(Method::GET)),
                modern(bare(Method::DELETE)),
            ] {
                let reply = stage.ask(request).await;
                assert_eq!((reply.status.as_u16(), reply.id()), (status, None));
                assert_eq!(reply.body, body_of(kind));
                assert_eq!(reply.headers.get("content-type").map(|it| it.to_str().unwrap()), kind);
                let more: Vec<_> = reply.headers.get_all("x-more").iter().collect();
                assert_eq!(more, ["one", "two"]);
                assert_eq!(reply.headers.len(), 2 + usize::from(kind.is_some()));
            }
        }
        pass(SECOND).await;
        assert_eq!((own.opened().len(), own.live()), (25, 0));
        assert_ended_once_each(&own);
        assert_eq!(stage.sessions.stats().opened, 0);
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_is_served_up_to_4096_bytes_and_ended_beyond() {
    for length in [1, 38, 39, 256, 257, 496, 2_000, 4_096] {
        let own = Own::default();
        let id = "j".repeat(length);
        let issued = id.clone();
        let inner = scripted(&own, move |own, call| {
            let issued = issued.clone();
            async move { call.is_initialize().then(|| named(result(), &own.open_as(&issued))) }
        });
        let stage = Stage::new(&own, inner, |layer| layer);
        assert_eq!(stage.open_used().await, id);
        let stream = stage.send(get(&id)).await;
        assert_eq!(stream.status(), 200);
        drop(stream);
        assert_eq!(stage.ask(delete(&id)).await.status, 204, "{length}");
        assert_eq!((own.live(), stage.sessions.len()), (0, 0));
        stage.ask(call(&id, "ping")).await.assert_lost();
        stage.finish().await;
    }
    for length in [4_097, 5_000, 60_000] {
        let own = Own::default();
        let id = "j".repeat(length);
        let issued = id.clone();
        let inner = scripted(&own, move |own, call| {
            let issued = issued.clone();
            async move { call.is_initialize().then(|| named(result(), &own.open_as(&issued))) }
        });
        let stage = Stage::new(&own, inner, |layer| layer);
        let reply = stage.ask(initialize()).await;
        assert_eq!((reply.status.as_u16(), reply.id()), (502, None), "{length}");
        pass(SECOND).await;
        assert_eq!((own.live(), own.ended()), (0, vec![id]), "{length}");
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_ids_in_one_answer_none_is_given_and_all_are_ended() {
    let own = Own::default();
    let inner = scripted(&own, |own, call| async move {
        call.id()
            .is_none()
            .then(|| named(named(named(result(), &own.open()), &own.open()), &"j".repeat(5_000)))
    });
    let stage = Stage::new(&own, inner, |layer| layer);
    own.open_as(&"j".repeat(5_000));
    for (request, status) in
        [(initialize(), 502), (bare(Method::GET), 200), (json_post("not JSON"), 502)]
    {
        let reply = stage.ask(request).await;
        assert_eq!((reply.status.as_u16(), reply.id()), (status, None));
    }
    pass(SECOND).await;
    assert_eq!((own.opened().len(), own.live()), (7, 0));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_none_is_a_502_and_does_no_harm() {
    for bad in ["", "a b", "\u{e9}"] {
        let own = Own::default();
        let inner = scripted(&own, move |_, call| async move {
            let mut response = result();
            let id = http::HeaderValue::from_bytes(bad.as_bytes()).unwrap();
            response.headers_mut().insert("mcp-session-id", id);
            call.is_initialize().then_some(response)
        });
        let stage = Stage::new(&own, inner, |layer| layer);
        let reply = stage.ask(initialize()).await;
        assert_eq!((reply.status.as_u16(), reply.headers.get("mcp-session-id")), (502, None));
        stage.finish().await;
    }
}
