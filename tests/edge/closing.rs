//! The closing DELETE: one that fails for a moment, and one that a client sent.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Method, Request, Response};
use mcp_session_layer::{McpSessionLayer, Session};
use tower::{
    BoxError, Layer, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer,
    load_shed::LoadShedLayer, service_fn,
};

use crate::{common::*, server::*, stage::*};

/// What a server does to the first DELETEs before it comes to itself.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Status(u16),
    Silence,
    Panic,
}

/// Idle sessions, at a server whose first `times` DELETEs fail like this.
async fn idle_out(trouble: Trouble, times: usize, count: usize) -> (Stage, Duration) {
    let own = Own::default();
    let left = Arc::new(AtomicUsize::new(times));
    let inner = scripted(&own, move |own, call| {
        let left = Arc::clone(&left);
        async move {
            if call.is_initialize() {
                return Some(named(result(), &own.open()));
            }
            let fails = call.method() == Method::DELETE
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok();
            if !fails {
                return None;
            }
            match trouble {
                Trouble::Status(code) => Some(status(code)),
                Trouble::Silence => std::future::pending().await,
                Trouble::Panic => panic!("as you wish"),
            }
        }
    });
    let stage = Stage::new(&own, inner, |layer| layer.max_sessions(count));
    for _ in 0..count {
        stage.open_used().await;
    }
    pass(IDLE + TICK).await;
    assert_eq!((stage.sessions.len(), own.live()), (0, count), "{trouble:?}");
    let since = tokio::time::Instant::now();
    while own.live() > 0 && since.elapsed() < SECOND * 600 {
        pass(SECOND).await;
    }
    (stage, since.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_fails_once_is_sent_again_and_the_session_is_gone() {
    let troubles = [408, 429, 500, 502, 503, 504].map(Trouble::Status);
    for trouble in troubles.into_iter().chain([Trouble::Silence, Trouble::Panic]) {
        let (stage, took) = idle_out(trouble, 1, 1).await;
        assert!(took <= SECOND * 8, "{trouble:?}: {took:?}");
        assert_eq!(stage.sessions.stats().terminate_failures, 1);
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_for_minutes_has_no_session_left_in_the_end() {
    for trouble in [Trouble::Status(503), Trouble::Silence] {
        let (stage, took) = idle_out(trouble, 80, 10).await;
        assert!(took < SECOND * 600, "{trouble:?}");
        assert!(stage.sessions.unended().is_empty());
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_session_whose_delete_fails_is_free_after_the_first_attempt() {
    for trouble in [Trouble::Status(503), Trouble::Silence] {
        let own = Own::default();
        let inner = scripted(&own, move |own, call| async move {
            match trouble {
                _ if call.is_initialize() => Some(named(result(), &own.open())),
                Trouble::Status(code) if call.method() == Method::DELETE => Some(status(code)),
                Trouble::Silence if call.method() == Method::DELETE => std::future::pending().await,
                _ => None,
            }
        });
        let stage =
            Stage::new(&own, inner, |layer| layer.max_sessions(1).close_timeout(SECOND * 2));
        let id = stage.open_used().await;
        assert!(stage.sessions.close(&id));
        // It waits for a place as long as a close may take, and came a second later.
        pass(SECOND).await;
        stage.open_used().await;
        assert_eq!((own.live(), stage.sessions.stats().retrying), (2, 1), "{trouble:?}");
        own.opened().iter().for_each(|id| assert!(own.end(id)));
        stage.finish().await;
    }
}

/// A layer around what a server answers with errors of its own now and then.
macro_rules! errant {
    ($own:expr, $inner:expr) => {{
        let (layer, watched) =
            watch(&FakeServer::default(), McpSessionLayer::new().idle_timeout(IDLE));
        let service = layer.layer($inner);
        for _ in 0..5 {
            let answer = service.clone().oneshot(initialize()).await.unwrap();
            let id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
            watched.learn(&id);
            drop(answer);
            let ping = service.clone().oneshot(call(&id, "ping")).await.unwrap();
            assert_eq!(ping.status(), 200);
        }
        (service, watched)
    }};
}

#[tokio::test(start_paused = true)]
async fn a_delete_is_sent_again_after_an_error_of_the_service() {
    let own = Own::default();
    let (server, left) = (proper(&own), Arc::new(AtomicUsize::new(7)));
    let inner = service_fn(move |request: Request<Body>| {
        let (server, left) = (server.clone(), Arc::clone(&left));
        async move {
            if request.method() == Method::DELETE
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok()
            {
                return Err::<Response<Body>, BoxError>("not now".into());
            }
            Ok(server.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {}))
        }
    });
    let (service, watched) = errant!(own, inner);
    pass(IDLE + TICK + SECOND * 10).await;
    assert_eq!(own.live(), 0);
    drop(service);
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_is_sent_again_after_a_limit_inside_had_no_room_for_it() {
    type Limited =
        fn(Inner) -> tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;
    // One sheds, and with the other the DELETE waits for longer than it may.
    let limits: [(&str, Limited); 2] = [
        ("load shed", |inner| {
            tower::util::BoxCloneSyncService::new(
                ServiceBuilder::new()
                    .layer(LoadShedLayer::new())
                    .layer(ConcurrencyLimitLayer::new(1))
                    .service(inner),
            )
        }),
        ("concurrency limit", |inner| {
            tower::util::BoxCloneSyncService::new(
                ServiceBuilder::new()
                    .map_err(BoxError::from)
                    .layer(ConcurrencyLimitLayer::new(1))
                    .service(inner),
            )
        }),
    ];
    for (what, limited) in limits {
        let own = Own::default();
        let inner = scripted(&own, |own, call| async move {
            if call.is_initialize() {
                return Some(named(result(), &own.open()));
            }
            if call.json()["method"] == "long" {
                pass(SECOND * 120).await;
            }
            None
        });
        let (service, watched) = errant!(own, limited(inner));
        // A request of one of them takes the only place while the others idle out.
        let busy = own.opened()[0].clone();
        pass(IDLE - SECOND * 10).await;
        let long = tokio::spawn(service.clone().oneshot(sent(call(&busy, "long"))));
        pass(SECOND * 10 + TICK).await;
        assert_eq!((watched.sessions.len(), own.live()), (1, 5), "{what}: saturated");
        drop(long.await.unwrap().unwrap());
        pass(SECOND * 240).await;
        assert_eq!(own.live(), 0, "{what}");
        drop(service);
        watched.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_of_the_client_that_ends_its_session_is_a_204_if_it_says_nothing() {
    let answers: [(u16, Option<&str>, &str, u16); 8] = [
        (200, None, "", 204),
        (200, JSON, "", 204),
        (202, Some("text/plain"), "", 204),
        (204, None, "", 204),
        (200, JSON, r#"{"ended":true}"#, 200),
        (202, Some("text/plain"), "bye", 202),
        (404, JSON, "", 404),
        (404, Some("text/plain"), "never heard of it", 404),
    ];
    for (code, kind, body, seen) in answers {
        let own = Own::default();
        let inner = scripted(&own, move |own, call| async move {
            if call.method() != Method::DELETE {
                return call.is_initialize().then(|| named(result(), &own.open()));
            }
            own.end(&call.id()?);
            let mut response = answer(code, kind, body);
            response.headers_mut().insert("content-length", body.len().into());
            response.headers_mut().insert("x-more", "kept".parse().unwrap());
            Some(response)
        });
        let stage = Stage::new(&own, inner, |layer| layer);
        let id = stage.open_used().await;
        let reply = stage.ask(delete(&id)).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (seen, body.as_bytes()), "{code}");
        let has_content = ["content-length", "content-type", "transfer-encoding"]
            .map(|name| reply.headers.contains_key(name));
        let keeps = seen != 204;
        assert_eq!(has_content, [keeps, keeps && kind.is_some(), false], "{code} {body}");
        assert_eq!(reply.headers["x-more"], "kept");
        assert_eq!(stage.sessions.len(), 0);
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_the_server_refuses_is_as_it_was_and_the_session_stays() {
    for code in [301, 400, 401, 403, 405, 409, 429, 500, 503] {
        let own = Own::default();
        let inner = scripted(&own, move |own, call| async move {
            if call.is_initialize() {
                return Some(named(result(), &own.open()));
            }
            // The layer's own DELETE has no such header.
            call.parts.headers.contains_key("x-no").then(|| answer(code, JSON, "{}"))
        });
        let stage = Stage::new(&own, inner, |layer| layer);
        let id = stage.open_used().await;
        let reply = stage.ask(with(delete(&id), "x-no", "yes")).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (code, &b"{}"[..]));
        assert_eq!(reply.headers["content-type"], "application/json");
        assert_eq!(stage.ask(call(&id, "ping")).await.status, 200);
        stage.finish().await;
    }
}

/// What a handler leaves in the session for its closing DELETE.
struct Token(String);

#[tokio::test(start_paused = true)]
async fn an_upstream_that_authenticates_is_told_with_what_the_handler_left_in_the_state() {
    type End = fn(&Stage, &str);
    let ends: [(&str, End); 4] = [
        ("idle", |_, _| {}),
        ("close", |stage, id| assert!(stage.sessions.close(id))),
        ("close_all", |stage, _| assert_eq!(stage.sessions.close_all(), 1)),
        ("handle", |stage, id| assert!(stage.sessions.get(id).unwrap().close())),
    ];
    for (what, end) in ends {
        let own = Own::default();
        let inner = scripted(&own, |own, call| async move {
            let Some(token) = call.parts.headers.get("authorization") else {
                return Some(status(401));
            };
            let token = token.to_str().unwrap().to_owned();
            if let Some(session) = call.parts.extensions.get::<Session>() {
                session.state().get_or_insert_with(|| Token(token));
            }
            call.is_initialize().then(|| named(result(), &own.open()))
        });
        let stage = Stage::new(&own, inner, |layer| {
            layer.terminate_with(|session, parts| {
                if let Some(token) = session.state().get::<Token>() {
                    parts.headers.insert("authorization", token.0.parse().unwrap());
                }
            })
        });
        let id = stage.ask(with(initialize(), "authorization", "Bearer x")).await;
        let id = id.id().unwrap().to_owned();
        end(&stage, &id);
        pass(IDLE + TICK).await;
        assert_eq!((own.live(), stage.sessions.len()), (0, 0), "{what}");
        assert_eq!(stage.sessions.stats().terminate_failures, 0, "{what}");
        stage.finish().await;
    }
}

/// A server that counts its sessions, and was restarted before it could say that the first is gone.
#[tokio::test(start_paused = true)]
async fn an_id_that_the_server_gives_out_again_is_not_ended_by_the_retry_of_the_session_before() {
    let own = Own::default();
    let id = unique("counted");
    let left = Arc::new(AtomicUsize::new(1));
    let issued = id.clone();
    let inner = scripted(&own, move |own, call| {
        let (left, id) = (Arc::clone(&left), issued.clone());
        async move {
            if call.is_initialize() {
                return Some(named(result(), &own.open_as(&id)));
            }
            let is_first = call.method() == Method::DELETE && left.swap(0, Ordering::SeqCst) == 1;
            is_first.then(|| {
                own.end(&id);
                status(503)
            })
        }
    });
    // Not on a stage: in its checks, two sessions with one id are one.
    let layer = by_user(McpSessionLayer::new().idle_timeout(IDLE));
    let (sessions, service) = (layer.sessions(), layer.layer(inner));
    let ask = async |request| read(service.clone().oneshot(request).await.unwrap()).await;
    assert_eq!(ask(of("alice", initialize())).await.id(), Some(&*id));
    assert!(sessions.close(&id));
    pass(Duration::from_millis(100)).await;
    assert_eq!((own.live(), sessions.stats().retrying), (0, 1));
    assert_eq!(ask(of("bob", initialize())).await.id(), Some(&*id));
    pass(SECOND * 30).await;
    assert!(own.has(&id), "the retry for alice's session has ended bob's");
    assert_eq!(ask(of("bob", call(&id, "ping"))).await.status, 200);
    assert_eq!((sessions.stats().retrying, sessions.unended().len()), (0, 0));
    pass(IDLE + TICK).await;
    assert_eq!((own.live(), sessions.len()), (0, 0), "and bob's own end reaches the server");
}
