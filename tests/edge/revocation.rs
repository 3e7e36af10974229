//! Who is revoked while a session is being opened gets none.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use mcp_session_layer::{McpSessionLayer, Principal, Session, Sessions};
use tokio::task::JoinHandle;
use tower::ServiceExt;

use crate::{common::*, server::*, stage::*};

/// Takes two seconds for `initialize`, and knows its session after one; leaves the id to the layer if it issues none.
fn slow(own: &Own, issues: bool, kind: Option<&'static str>) -> Inner {
    scripted(own, move |own, call| async move {
        if !call.is_initialize() {
            return if issues { None } else { Some(result()) };
        }
        pass(SECOND).await;
        let id = issues.then(|| own.open());
        pass(SECOND).await;
        let response = answer(200, kind, body_of(kind));
        Some(id.map_or_else(|| answer(200, kind, body_of(kind)), |id| named(response, &id)))
    })
}

type Revoke = fn(&Sessions) -> usize;

const REVOCATIONS: [(&str, Revoke); 2] = [
    ("close_principal", |sessions| sessions.close_principal(&Principal::from("alice"))),
    ("close_all", Sessions::close_all),
];

fn begin(stage: &Stage, request: Request<Body>) -> JoinHandle<Answer> {
    let service = stage.service.clone();
    tokio::spawn(async move { service.oneshot(sent(request)).await.unwrap() })
}

/// Whether this is the answer to who has no session.
async fn has_none(answer: JoinHandle<Answer>) -> bool {
    let reply = read(answer.await.unwrap()).await;
    reply.id().is_none() && !reply.status.is_success()
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_being_opened_is_closed_with_the_others_and_counted() {
    for (what, revoke) in REVOCATIONS {
        for issues in [true, false] {
            for kind in [JSON, EVENTS] {
                for after in [Duration::from_millis(500), Duration::from_millis(1_500)] {
                    let own = Own::default();
                    let stage = Stage::new(&own, slow(&own, issues, kind), by_user);
                    let live = begin(&stage, of("alice", initialize()));
                    let live = read(live.await.unwrap()).await;
                    stage.learn(live.id().unwrap_or("unnamed-id-of-the-layer"));
                    let opening = begin(&stage, of("alice", initialize()));
                    pass(after).await;
                    assert_eq!(revoke(&stage.sessions), 2, "{what} {issues} {after:?}");
                    assert_eq!(revoke(&stage.sessions), 0, "{what}: once is enough");
                    assert!(has_none(opening).await, "{what} {issues} {kind:?} {after:?}");
                    pass(SECOND * 5).await;
                    assert_eq!((stage.sessions.len(), own.live()), (0, 0), "{what} {issues}");
                    stage.finish().await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_who_was_revoked_loses_it_and_may_come_again() {
    let own = Own::default();
    let stage = Stage::new(&own, slow(&own, true, JSON), by_user);
    let hers = begin(&stage, of("alice", initialize()));
    let his = begin(&stage, of("bob", initialize()));
    pass(SECOND / 2).await;
    assert_eq!(stage.sessions.close_principal(&Principal::from("alice")), 1);
    assert_eq!(stage.sessions.close_principal(&Principal::from("carol")), 0);
    assert!(has_none(hers).await);
    let his = read(his.await.unwrap()).await;
    assert_eq!((his.status.as_u16(), stage.sessions.len()), (200, 1));
    stage.learn(his.id().unwrap());
    assert_eq!(stage.ask(of("alice", initialize())).await.status, 200);
    assert_eq!(stage.sessions.len(), 2);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_when_revoked_does_not_get_it() {
    for (what, revoke) in REVOCATIONS {
        let own = Own::default();
        own.delete_takes(SECOND * 2);
        let stage =
            Stage::new(&own, slow(&own, true, JSON), |layer| by_user(layer).max_sessions(1));
        let id = stage.ask(of("alice", initialize())).await.id().unwrap().to_owned();
        assert!(stage.sessions.close(&id));
        let waiting = begin(&stage, of("alice", initialize()));
        pass(SECOND).await;
        revoke(&stage.sessions);
        assert!(has_none(waiting).await, "{what}");
        pass(SECOND * 3).await;
        assert_eq!((own.live(), stage.sessions.len()), (0, 0), "{what}");
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_closes_what_is_being_opened_when_its_grace_is_over() {
    for issues in [true, false] {
        for grace in [Duration::ZERO, SECOND / 2, SECOND * 3] {
            let own = Own::default();
            let stage = Stage::new(&own, slow(&own, issues, JSON), |layer| layer);
            let opening = begin(&stage, initialize());
            pass(SECOND / 4).await;
            stage.sessions.shutdown(grace).await;
            let reply = read(opening.await.unwrap()).await;
            if grace < SECOND {
                assert!(reply.id().is_none() && !reply.status.is_success(), "{grace:?}");
            } else if let Some(id) = reply.id() {
                stage.learn(id);
            }
            pass(SECOND * 5).await;
            assert_eq!((stage.sessions.len(), own.live()), (0, 0), "{grace:?} {issues}");
            assert_eq!(stage.ask(initialize()).await.status, 503);
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_closes_the_session_it_opens_leaves_none() {
    for issues in [true, false] {
        for kind in [JSON, EVENTS, None] {
            let own = Own::default();
            let inner = scripted(&own, move |own, call| async move {
                if !call.is_initialize() {
                    return None;
                }
                let session = call.parts.extensions.get::<Session>().unwrap().clone();
                let response = answer(200, kind, body_of(kind));
                let response = if issues { named(response, &own.open()) } else { response };
                pass(SECOND).await;
                assert!(session.close());
                assert!(!session.close());
                Some(response)
            });
            let stage = Stage::new(&own, inner, |layer: McpSessionLayer| layer);
            for _ in 0..3 {
                let opening = begin(&stage, initialize());
                assert!(has_none(opening).await, "{issues} {kind:?}");
            }
            pass(SECOND).await;
            assert_eq!((stage.sessions.len(), own.live()), (0, 0), "{issues}");
            assert_eq!(stage.sessions.stats().live, 0);
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_end_of_what_no_permit_counts_too() {
    let own = Own::default();
    own.delete_takes(SECOND);
    let stage =
        Stage::new(&own, generous(&own, 406, JSON), |layer| layer.close_timeout(SECOND * 3));
    assert_eq!(stage.ask(bare(http::Method::GET)).await.status, 406);
    assert_eq!((own.live(), stage.sessions.len()), (1, 0));
    stage.sessions.shutdown(SECOND).await;
    assert_eq!(own.live(), 0, "the program ends now");
    stage.finish().await;
}

/// What may open a session without our knowing is in no list of openings.
#[tokio::test(start_paused = true)]
async fn an_initialize_that_we_cannot_read_is_revoked_as_well() {
    let long = || {
        let mut body = initialize_body();
        body["params"]["padding"] = serde_json::json!("x".repeat(100_000));
        json_post(body.to_string())
    };
    let untyped = || {
        let mut request = initialize();
        request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        request
    };
    for (what, revoke) in REVOCATIONS {
        for disguised in [long, untyped] {
            let own = Own::default();
            let inner = scripted(&own, |own, call| async move {
                if call.id().is_some() {
                    return None;
                }
                pass(SECOND).await;
                Some(named(result(), &own.open()))
            });
            let stage = Stage::new(&own, inner, by_user);
            let opening = begin(&stage, of("alice", disguised()));
            pass(SECOND / 2).await;
            revoke(&stage.sessions);
            assert!(has_none(opening).await, "{what}");
            pass(SECOND).await;
            assert_eq!((own.live(), stage.sessions.len()), (0, 0), "{what}");
            assert!(!has_none(begin(&stage, of("alice", disguised()))).await, "and may come again");
            stage.sessions.close_all();
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_call_opens_after_its_own_session_was_revoked_is_ended() {
    let own = Own::default();
    let inner = scripted(&own, |own, call| async move {
        if call.method() == http::Method::DELETE {
            return None;
        }
        if call.id().is_some() {
            pass(SECOND).await;
        }
        Some(named(result(), &own.open()))
    });
    let stage = Stage::new(&own, inner, by_user);
    let id = stage.ask(of("alice", initialize())).await.id().unwrap().to_owned();
    let late = begin(&stage, of("alice", call(&id, "ping")));
    pass(SECOND / 2).await;
    assert_eq!(stage.sessions.close_principal(&Principal::from("alice")), 1);
    assert!(has_none(late).await);
    pass(SECOND).await;
    assert_eq!((own.opened().len(), own.live(), stage.sessions.len()), (2, 0, 0));
    stage.finish().await;
}
