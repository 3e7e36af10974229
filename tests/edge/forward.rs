//! `UnknownIds::Forward` at a server that answers with other ids than it was asked for.

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request};
use mcp_session_layer::{McpSessionLayer, UnknownIds};
use serde_json::json;

use crate::{common::*, server::*, stage::*};

fn forwarding(layer: McpSessionLayer) -> McpSessionLayer {
    layer.unknown_ids(UnknownIds::Forward).max_sessions(5)
}

/// Answers every request with an id that it does not know as if it had none: under a new id.
fn reissuing(own: &Own, code: u16, kind: Option<&'static str>) -> Inner {
    scripted(own, move |own, call| async move {
        if call.id().is_some_and(|id| own.has(&id)) {
            return None;
        }
        Some(named(answer(code, kind, body_of(kind)), &own.open()))
    })
}

fn requests(id: &str) -> [Request<Body>; 5] {
    [call(id, "ping"), get(id), with_id(initialize(), id), with_id(json_post("?"), id), delete(id)]
}

#[tokio::test(start_paused = true)]
async fn a_new_id_for_an_unknown_one_is_ended_and_never_given() {
    for (code, kind) in [
        (200, JSON),
        (200, EVENTS),
        (200, None),
        (202, JSON),
        (404, JSON),
        (406, JSON),
        (500, None),
    ] {
        let own = Own::default();
        own.delete_takes(SECOND / 2);
        let stage = Stage::new(&own, reissuing(&own, code, kind), forwarding);
        for n in 0..25 {
            for request in requests(&unique("unknown")) {
                let method = request.method().clone();
                let reply = stage.ask(request).await;
                assert_eq!(reply.id(), None, "{method} {code}");
                if method != Method::DELETE {
                    reply.assert_lost();
                }
            }
            assert_eq!(stage.sessions.len(), 0, "{n}");
        }
        pass(SECOND * 5).await;
        assert_eq!((own.opened().len(), own.live()), (125, 0), "{code}");
        assert_ended_once_each(&own);
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_has_no_more_than_the_cap_of_them_at_once() {
    let own = Own::default();
    own.delete_takes(SECOND * 2 / 5);
    let stage = Stage::new(&own, reissuing(&own, 200, JSON), forwarding);
    for _ in 0..25 {
        stage.ask(call(&unique("unknown"), "ping")).await;
    }
    assert!(own.most() <= 5, "one after the other: {}", own.most());
    join_all((0..25).map(|_| stage.ask(call(&unique("unknown"), "ping")))).await;
    assert!(own.most() <= 5, "at once: {}", own.most());
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_closed_here_is_a_502_and_ended_when_the_server_gives_it_again() {
    let own = Own::default();
    let inner = scripted(&own, |own, call| async move {
        call.is_initialize().then(|| named(result(), &own.open_as("again-7f1d-a2c4-and-again")))
    });
    let stage = Stage::new(&own, inner, forwarding);
    let id = stage.open_used().await;
    assert_eq!(stage.ask(delete(&id)).await.status, 204);
    for _ in 0..3 {
        let reply = stage.ask(initialize()).await;
        assert_eq!((reply.status.as_u16(), reply.id()), (502, None));
        pass(SECOND).await;
        assert_eq!((own.live(), stage.sessions.len()), (0, 0));
    }
    stage.ask(call(&id, "ping")).await.assert_lost();
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_of_ids_that_nobody_knows_changes_nothing() {
    let own = Own::default();
    let stage = Stage::new(&own, proper(&own), forwarding);
    let id = stage.open_used().await;
    for _ in 0..25 {
        assert_eq!(stage.ask(delete(&unique("unknown"))).await.status, 404);
    }
    own.open_as("from-before-the-restart-0001");
    assert_eq!(stage.ask(delete("from-before-the-restart-0001")).await.status, 204);
    assert_eq!((own.live(), stage.sessions.len()), (1, 1));
    assert_eq!(stage.ask(call(&id, "ping")).await.status, 200);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_delete_of_an_id_that_only_the_server_knew_names_no_session() {
    let own = Own::default();
    let echo = scripted(&own, |_, call| async move {
        let id = call.id().filter(|_| call.method() == Method::DELETE)?;
        Some(named(answer(204, None, ""), &id))
    });
    let stage = Stage::new(&own, echo, forwarding);
    let reply = stage.ask(delete("from-before-the-restart-0001")).await;
    assert_eq!((reply.status.as_u16(), reply.id()), (204, None));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_session_names_itself_as_a_secret_and_only_itself() {
    let own = Own::default();
    let inner = scripted(&own, |own, call| async move {
        let id = call.id().filter(|_| call.method() == Method::POST)?;
        own.has(&id).then(|| named(result(), &id))
    });
    let stage = Stage::new(&own, inner, forwarding);
    let id = own.open();
    stage.learn(&id);
    for _ in 0..3 {
        assert_eq!(stage.ask(call(&id, "ping")).await.id(), Some(&*id));
    }
    assert_eq!(stage.sessions.len(), 1);
    stage.finish().await;
}

/// A body that never ends.
fn endless() -> Body {
    Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>())
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_is_slow_with_her_id_keeps_its_owner_from_nothing() {
    let own = Own::default();
    // A store that checks owners, as it must.
    let inner = scripted(&own, |own, call| async move {
        let id = call.id()?;
        let hers = call.parts.headers.get("x-user").is_some_and(|user| user == "alice");
        (own.has(&id) && !hers && call.method() != Method::DELETE).then(|| status(404))
    });
    let stage =
        Stage::new(&own, inner, |layer| by_user(forwarding(layer)).open_timeout(SECOND * 30));
    let id = own.open();
    stage.learn(&id);
    let service = stage.service.clone();
    let strangers: Vec<_> = ["bob", "mallory"]
        .map(|who| {
            let request = of(who, with_id(json_post(endless()), &id));
            tokio::spawn(tower::ServiceExt::oneshot(service.clone(), sent(request)))
        })
        .into();
    pass(SECOND).await;
    let before = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(stage.ask(of("alice", call(&id, "ping"))).await.status, 200);
    }
    assert_eq!(before.elapsed(), std::time::Duration::ZERO, "she waited");
    strangers.iter().for_each(tokio::task::JoinHandle::abort);
    drop((strangers, service));
    pass(SECOND * 60).await;
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn her_own_requests_restore_it_once() {
    let own = Own::default();
    let inner = scripted(&own, |_, call| async move {
        pass(SECOND).await;
        (call.method() == Method::POST).then(|| answer(200, JSON, json!({}).to_string()))
    });
    let stage = Stage::new(&own, inner, |layer| by_user(forwarding(layer)));
    let id = own.open();
    stage.learn(&id);
    let replies = join_all((0..4).map(|_| stage.ask(of("alice", call(&id, "ping"))))).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(stage.events(), ["opened"]);
    stage.finish().await;
}
