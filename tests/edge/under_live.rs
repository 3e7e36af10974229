//! `initialize` under a live id, at a server that opens another session for each.

use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use http::Request;
use serde_json::json;

use crate::{common::*, server::*, stage::*};

/// Opens a session for every `initialize`, whatever id it came with, as the Java SDK does.
fn prolific(own: &Own, takes: Duration) -> Inner {
    scripted(own, move |own, call| async move {
        if !String::from_utf8_lossy(&call.body).to_lowercase().contains("initialize") {
            return None;
        }
        let id = own.open();
        pass(takes).await;
        Some(named(result(), &id))
    })
}

fn under(id: &str) -> Request<Body> {
    with_id(initialize(), id)
}

/// Calls of one session that may be under way at once, and the first, which teaches the layer.
const AT_ONCE: usize = 4 + 1;

#[tokio::test(start_paused = true)]
async fn the_server_never_has_more_than_the_cap_and_one_however_many_come() {
    for delete_takes in [Duration::ZERO, SECOND / 2] {
        let own = Own::default();
        own.delete_takes(delete_takes);
        let stage = Stage::new(&own, prolific(&own, Duration::ZERO), |layer| layer.max_sessions(3));
        let id = stage.open_used().await;
        let mut given = 0;
        for _ in 0..2_000 {
            let reply = stage.ask(under(&id)).await;
            given += usize::from(reply.id().is_some_and(|other| other != id));
            assert!([200, 503].contains(&reply.status.as_u16()), "{reply:?}");
        }
        assert_eq!(given, 2, "as many as there were places");
        assert!(own.most() <= 3 + 1, "{}", own.most());
        assert_eq!(stage.ask(call(&id, "ping")).await.status, 200, "the session itself goes on");
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_them_at_once_is_bounded_a_session() {
    let own = Own::default();
    let stage = Stage::new(&own, prolific(&own, SECOND), |layer| layer);
    let id = stage.open_used().await;
    // The server does it once, and is known from then on.
    assert_ne!(stage.ask(under(&id)).await.id(), Some(&*id));
    let before = own.opened().len();
    let replies = join_all((0..2_000).map(|_| stage.ask(under(&id)))).await;
    let count = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
    assert_eq!((count(200), count(429)), (4, 1_996));
    assert_eq!(own.opened().len() - before, 4);
    assert!(own.most() <= 2 + AT_ONCE);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn of_500_that_hang_up_the_first_may_stay_and_no_other() {
    for gap in [Duration::ZERO, SECOND / 100, SECOND] {
        let own = Own::default();
        let stage = Stage::new(&own, prolific(&own, SECOND), |layer| layer.max_sessions(3));
        let id = stage.open_used().await;
        for _ in 0..500 {
            stage.give_up(SECOND / 2, under(&id)).await;
            assert_eq!(stage.ask(call(&id, "ping")).await.status, 200);
            pass(gap).await;
        }
        pass(SECOND * 5).await;
        // Nobody reads bodies while clients are calm, so the call of the first went down with its client: the server
        // had opened a session by then, whose id nobody has heard.
        let unheard: Vec<_> =
            own.opened().into_iter().filter(|one| own.has(one) && *one != id).collect();
        assert_eq!(unheard.len(), 1, "after each {gap:?}");
        assert_eq!(unheard[0], own.opened()[1], "the first");
        assert!(own.most() <= 3 + 1, "{}", own.most());
        own.end(&unheard[0]);
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_500_that_hang_up_none_stays_once_the_server_is_known() {
    let own = Own::default();
    let stage = Stage::new(&own, prolific(&own, SECOND), |layer| layer.max_sessions(3));
    let id = stage.open_used().await;
    let other = stage.ask(under(&id)).await.id().unwrap().to_owned();
    assert_eq!(stage.ask(delete(&other)).await.status, 204);
    for _ in 0..500 {
        stage.give_up(SECOND / 2, under(&id)).await;
    }
    pass(SECOND * 5).await;
    assert_eq!(own.live(), 1, "the session itself");
    assert!(own.most() <= 3, "{}", own.most());
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn in_every_disguise_it_is_bounded_once_the_server_is_known() {
    let plain = initialize_body().to_string();
    for body in [
        plain.clone(),
        format!("[{plain}]"),
        format!("\u{feff}{plain}"),
        plain.replace("\"method\"", "\"Method\""),
        format!("{plain}{}", " ".repeat(70_000)),
        plain.replace("\"id\"", "\"no\""),
        format!("/**/{plain}"),
    ] {
        let own = Own::default();
        own.delete_takes(SECOND);
        let stage = Stage::new(&own, prolific(&own, Duration::ZERO), |layer| layer.max_sessions(3));
        let id = stage.open_used().await;
        for _ in 0..200 {
            stage.ask(with_id(json_post(body.clone()), &id)).await;
        }
        // What is longer than the layer reads takes none: 64 of those may be under way, or on their way out.
        let bound = if body.len() > 70_000 { 3 + 64 } else { 3 + 1 };
        assert!(own.most() <= bound, "{}: {}", body.len(), own.most());
        join_all((0..200).map(|_| stage.ask(with_id(json_post(body.clone()), &id)))).await;
        assert!(own.most() <= bound, "at once, {}: {}", body.len(), own.most());
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn other_calls_of_the_session_are_served_as_before_while_bodies_are_read() {
    let own = Own::default();
    let stage = Stage::new(&own, prolific(&own, Duration::ZERO), |layer| layer);
    let id = stage.open_used().await;
    stage.ask(under(&id)).await;
    for method in ["ping", "tools/list", "tools/call"] {
        let request = call_with(&id, method, &json!({ "x": "y".repeat(70_000) }));
        assert_eq!(stage.ask(request).await.body, RESULT);
    }
    assert_eq!(stage.sessions.len(), 2);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_second_session_keeps_no_longer_uri_than_the_first_may() {
    let own = Own::default();
    let stage = Stage::new(&own, prolific(&own, Duration::ZERO), |layer| layer);
    let id = stage.open_used().await;
    // The server does it once, and is known from then on.
    assert_ne!(stage.ask(under(&id)).await.id(), Some(&*id));
    let opened = own.opened().len();
    let long = format!("/mcp?{}", "x".repeat(60_000));
    assert_eq!(stage.ask(at(under(&id), &long)).await.status, 414);
    assert_eq!(own.opened().len(), opened, "the server was not asked");
    assert_eq!(stage.ask(at(call(&id, "ping"), &long)).await.status, 200);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_opens_one_for_anything_under_a_live_id_is_asked_no_faster_than_it_ends_them()
{
    let requests: [fn(&str) -> Request<Body>; 3] =
        [get, |id| with_id(bare(http::Method::PUT), id), |id| call(id, "tools/list")];
    for request in requests {
        let own = Own::default();
        own.delete_takes(SECOND);
        let inner = scripted(&own, |own, call| async move {
            let is_end = call.method() == http::Method::DELETE;
            if is_end || call.json()["method"] == "ping" {
                return None;
            }
            Some(named(
                answer(if call.is_initialize() { 200 } else { 500 }, JSON, RESULT),
                &own.open(),
            ))
        });
        let stage = Stage::new(&own, inner, |layer| by_user(layer).max_sessions(3));
        let id = stage.ask(of("alice", initialize())).await.id().unwrap().to_owned();
        for _ in 0..1_000 {
            stage.ask(of("alice", request(&id))).await;
        }
        assert!(own.most() <= 64 + 1, "{}", own.most());
        pass(SECOND * 3).await;
        assert_eq!(stage.ask(of("alice", call(&id, "ping"))).await.status, 200);
        stage.finish().await;
    }
}

/// Known to open sessions under live ones; then it opens one and says in a success that it failed.
#[tokio::test(start_paused = true)]
async fn an_error_inside_a_success_opens_nothing_under_a_live_id_either() {
    const ERROR: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"No"}}"#;
    let own = Own::default();
    let inner = scripted(&own, |own, call| async move {
        if !call.is_initialize() {
            return None;
        }
        let fails = call.id().is_some() && own.opened().len() >= 2;
        let response = if fails { answer(200, JSON, ERROR) } else { result() };
        Some(named(response, &own.open()))
    });
    let stage = Stage::new(&own, inner, |layer| layer);
    let id = stage.open_used().await;
    assert_ne!(stage.ask(under(&id)).await.id(), Some(&*id), "it opens another");
    let live = own.live();
    for _ in 0..5 {
        let reply = stage.ask(under(&id)).await;
        assert_eq!((reply.status.as_u16(), reply.id()), (200, None));
        assert_eq!(reply.body, ERROR);
        pass(SECOND).await;
        assert_eq!((own.live(), stage.sessions.len()), (live, live));
    }
    stage.finish().await;
}
