//! When a session lives and when it dies.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use axum::body::Body;
use common::*;
use http::{Method, Request};
use mcp_session_layer::{McpSessionLayer, Session};
use serde_json::json;
use tokio::time::advance;

#[tokio::test(start_paused = true)]
async fn a_session_and_its_transport_exist_before_the_idle_timeout_and_are_gone_after_it() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    pass(IDLE - Duration::from_millis(10)).await;
    assert_eq!(world.sessions.len(), 1);
    assert!(world.server.has(&id), "the server's own session is there");
    pass(TICK * 2).await;
    assert_eq!(world.sessions.len(), 0);
    assert!(!world.server.has(&id), "the server's own session is gone");
    world.ask(call(&id, "ping")).await.assert_lost();
    assert_eq!(world.events(), ["opened", "closed idle", "rejected 404"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn expiry_is_decided_on_access_to_the_millisecond_with_the_reaper_asleep() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    // `advance` moves the clock without letting the reaper run first.
    advance(IDLE - Duration::from_millis(1)).await;
    assert_eq!(world.ping(&id).await, 200);
    advance(IDLE).await;
    world.ask(call(&id, "ping")).await.assert_lost();
    assert_eq!(world.sessions.len(), 0, "the access has reclaimed it as well");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn every_request_resets_the_deadline_when_it_ends() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    for _ in 0..10 {
        pass(IDLE - SECOND).await;
        assert_eq!(world.ping(&id).await, 200);
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_longer_than_the_idle_timeout_returns_its_result() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let reply = world.ask(call_with(&id, "sleep", &json!({ "ms": 1_000_000 }))).await;
    assert_eq!(reply.status, 200);
    pass(IDLE - SECOND).await;
    assert_eq!(world.ping(&id).await, 200, "idle since the call has ended");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_response_body_holds_the_session_until_it_ends_or_is_dropped() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let answer = world.send(call(&id, "endless")).await;
    let unread = world.send(call(&id, "ping")).await;
    pass(IDLE * 5).await;
    drop(answer);
    pass(IDLE * 5).await;
    assert_eq!(world.sessions.len(), 1, "a body of known size holds it as well");
    drop(unread);
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_cancelled_lets_go() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let sleep = world.send(call_with(&id, "sleep", &json!({ "ms": 1_000_000 })));
    assert!(tokio::time::timeout(IDLE * 2, sleep).await.is_err());
    assert_eq!(world.ping(&id).await, 200);
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_never_used_has_the_unused_timeout_only() {
    let world = World::new(|layer| layer.unused_timeout(SECOND * 10));
    let (unused, used) = (world.open().await, world.open_used().await);
    pass(SECOND * 10 + TICK).await;
    world.ask(call(&unused, "ping")).await.assert_lost();
    assert_eq!(world.ping(&used).await, 200);
    assert_eq!(world.events(), ["opened", "opened", "closed unused", "rejected 404"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_unused_timeout_applies_without_an_idle_timeout() {
    let world = World::new(|layer| layer.no_idle_timeout().unused_timeout(SECOND));
    let (unused, used) = (world.open().await, world.open_used().await);
    pass(Duration::from_secs(30 * 24 * 3600)).await;
    assert_eq!(world.ping(&unused).await, 404);
    assert_eq!(world.ping(&used).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn max_lifetime_cuts_a_session_in_the_middle_of_its_work() {
    let world = World::new(|layer| layer.max_lifetime(SECOND * 50));
    let id = world.open_used().await;
    let mut stream = world.send(call(&id, "endless")).await;
    assert!(frame(&mut stream).await.is_some());
    let end = tokio::spawn(async move { frame(&mut stream).await });
    pass(SECOND * 49).await;
    assert_eq!(world.ping(&id).await, 200);
    assert!(!end.is_finished());
    pass(SECOND + TICK).await;
    assert_eq!(end.await.unwrap(), None, "a clean end");
    world.ask(call(&id, "ping")).await.assert_lost();
    assert_eq!(world.events(), ["opened", "closed lifetime", "rejected 404"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn max_lifetime_is_decided_on_access_too() {
    let world = World::new(|layer| layer.max_lifetime(SECOND * 50));
    let id = world.open_used().await;
    let busy = world.send(call(&id, "endless")).await;
    advance(SECOND * 50).await;
    world.ask(call(&id, "ping")).await.assert_lost();
    drop(busy);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn durations_without_end_are_never_due() {
    let world = World::new(|layer| {
        layer
            .idle_timeout(Duration::MAX)
            .unused_timeout(Duration::MAX)
            .max_lifetime(Duration::MAX)
            .stream_lifetime(Duration::MAX)
            .heartbeat(Duration::MAX)
            .open_timeout(Duration::MAX)
    });
    let id = world.open().await;
    advance(Duration::from_secs(400 * 24 * 3600)).await;
    assert_eq!(world.ping(&id).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_a_month_closes_each_session_once() {
    let world = World::new(|layer| layer);
    for _ in 0..50 {
        world.open_used().await;
    }
    advance(Duration::from_secs(30 * 24 * 3600)).await;
    pass(TICK).await;
    assert_eq!(world.sessions.len(), 0);
    assert_eq!(world.sessions.stats().closed.total(), 50);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_turn_the_client_away_do_not_move_the_deadline() {
    for code in [400, 401, 403] {
        let world = World::new(|layer| layer);
        let id = world.open_used().await;
        pass(IDLE - SECOND).await;
        let reply = world.ask(call_with(&id, "status", &json!({ "code": code }))).await;
        assert_eq!((reply.status.as_u16(), &*reply.body), (code, &b"as you wish"[..]));
        pass(SECOND + TICK).await;
        assert_eq!(world.ping(&id).await, 404, "{code} kept the session alive");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_turned_away_after_the_deadline_takes_the_session_with_it() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    pass(IDLE - SECOND).await;
    let late = call_with(&id, "status", &json!({ "code": 401, "ms": 5_000 }));
    assert_eq!(world.ask(late).await.status, 401);
    assert_eq!(world.sessions.len(), 0, "at once, not when the reaper comes by");
    assert_eq!(world.events(), ["opened", "closed idle"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_turned_away_beside_one_that_counts_takes_nothing() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    pass(IDLE - SECOND).await;
    let slow = world.send(call_with(&id, "sleep", &json!({ "ms": 5_000 })));
    let (slow, ()) = tokio::join!(slow, async {
        pass(SECOND * 2).await;
        world.ask(call_with(&id, "status", &json!({ "code": 401 }))).await;
    });
    assert_eq!(read(slow).await.status, 200);
    pass(IDLE - SECOND).await;
    assert_eq!(world.ping(&id).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_gone_one_tick_after_its_deadline_whatever_was_turned_away_before() {
    let tick = Duration::from_millis(156);
    for (after, length) in [(100, 50), (4_900, 600), (9_000, 900), (9_900, 99), (9_900, 600)] {
        let world = World::new(|layer| layer.idle_timeout(SECOND * 10).unused_timeout(IDLE));
        let id = world.open().await;
        pass(SECOND * 5).await;
        assert_eq!(world.ping(&id).await, 200);
        let deadline = tokio::time::Instant::now() + SECOND * 10;
        pass(Duration::from_millis(after)).await;
        world.ask(call_with(&id, "status", &json!({ "code": 400, "ms": length }))).await;
        let due = deadline.max(tokio::time::Instant::now());
        while !world.sessions.is_empty() {
            pass(Duration::from_millis(1)).await;
        }
        let late = tokio::time::Instant::now() - due;
        assert!(late <= tick, "{late:?} late after a 400 of {length} ms, {after} ms in");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_tick_is_the_same_for_sessions_that_open_at_any_time() {
    let world = World::new(|layer| layer.unused_timeout(SECOND * 640));
    for offset in [0, 1, 100, 499, 777, 999] {
        let held = world.open_used().await;
        let stream = world.send(call(&held, "endless")).await;
        pass(Duration::from_millis(offset)).await;
        let id = world.open_used().await;
        let deadline = tokio::time::Instant::now() + IDLE;
        let session = world.sessions.get(&id).unwrap();
        session.closed().await;
        let late = tokio::time::Instant::now() - deadline;
        assert!(late <= SECOND, "{late:?} late");
        drop(stream);
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_is_not_answered_closes_after_the_close_timeout() {
    let world = World::new(|layer| layer.close_timeout(SECOND * 5));
    let id = world.open_used().await;
    let unread = world.send(get(&id)).await;
    world.server.change(|manners| manners.delete_status = None);
    let answer = tokio::time::timeout(SECOND * 5 + TICK, world.send(delete(&id))).await;
    assert!(answer.is_err());
    assert_eq!((world.sessions.len(), world.server.open_bodies()), (0, 0));
    assert_eq!(world.events()[1], "closed client");
    drop(unread);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn other_failures_of_the_server_count_as_activity() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    for code in [202, 405, 409, 500, 503] {
        pass(IDLE - SECOND).await;
        let reply = world.ask(call_with(&id, "status", &json!({ "code": code }))).await;
        assert_eq!(reply.status, code);
    }
    assert_eq!(world.ping(&id).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_404_of_the_server_passes_through_and_closes_the_session() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    world.server.forget(&id);
    let reply = world.ask(call(&id, "ping")).await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.body),
        (404, &b"the server does not know this session"[..])
    );
    assert_eq!(world.sessions.len(), 0);
    world.ask(call(&id, "ping")).await.assert_lost();
    assert_eq!(world.events(), ["opened", "closed inner", "rejected 404"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn delete_is_the_servers_to_answer_where_it_issued_the_id() {
    for (status, gone) in
        [(200, true), (202, true), (204, true), (404, true), (405, false), (500, false)]
    {
        let world = World::new(|layer| layer);
        let id = world.open_used().await;
        world.server.change(|manners| manners.delete_status = Some(status));
        let reply = world.ask(delete(&id)).await;
        assert_eq!(reply.status, if status < 300 { 204 } else { status });
        assert_eq!(world.sessions.is_empty(), gone, "after {status}");
        assert_eq!(world.ping(&id).await.as_u16(), if gone { 404 } else { 200 });
        if gone {
            assert_eq!(world.events()[1], "closed client");
        }
        if status < 300 {
            pass(SECOND).await;
            assert_eq!(world.server.count(&Method::DELETE), 1, "told once is enough");
        }
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn delete_is_the_layers_to_answer_where_it_issued_the_id() {
    let server = FakeServer::with(|manners| manners.issues_ids = false);
    let world = World::around(server, |layer| layer);
    let id = world.open_used().await;
    let reply = world.ask(delete(&id)).await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (204, 0));
    world.ask(delete(&id)).await.assert_lost();
    assert_eq!(world.events()[1], "closed client");
    assert_eq!(world.server.count(&Method::DELETE), 0, "the server knows of no session");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_whose_client_hangs_up_still_ends_the_session() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    world.server.change(|manners| manners.delete_delay = SECOND);
    assert!(tokio::time::timeout(SECOND / 2, world.send(delete(&id))).await.is_err());
    pass(SECOND * 2).await;
    world.ask(call(&id, "ping")).await.assert_lost();
    assert!(!world.server.has(&id));
    assert_eq!(world.events()[1], "closed client");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_at_another_path_is_of_no_session_and_the_session_lives() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let mut request = delete(&id);
    *request.uri_mut() = "/health".parse().unwrap();
    let calls = world.server.seen().len();
    world.ask(request).await.assert_lost();
    assert_eq!(world.server.seen().len(), calls, "the server was not called");
    pass(SECOND).await;
    assert!(world.server.has(&id));
    assert_eq!(world.ping(&id).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_of_a_close_where_the_session_was_opened() {
    let world = World::new(|layer| layer);
    let mut request = initialize();
    *request.uri_mut() = "/mcp?tenant=7".parse().unwrap();
    for (name, value) in [
        ("host", "mcp.example:8443"),
        ("origin", "https://app.example"),
        ("authorization", "Bearer very-secret"),
        ("cookie", "very=secret"),
        ("mcp-protocol-version", "2025-11-25"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let id = world.ask(request).await.id().unwrap().to_owned();
    pass(IDLE + TICK).await;
    let told = world.server.last();
    assert_eq!((told.method, told.path.as_str()), (Method::DELETE, "/mcp"));
    let headers: Vec<_> = told.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
    assert_eq!(headers.len(), 2, "{headers:?}");
    assert_eq!(told.headers["host"], "mcp.example:8443");
    assert_eq!(told.headers["mcp-session-id"], id.as_str());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn terminate_with_may_add_what_an_inner_layer_needs() {
    let world = World::new(|layer| {
        layer.principal(|_| Some("alice")).terminate_with(|session, parts| {
            let who = session.principal().unwrap().as_str().to_owned();
            parts.headers.insert("x-user", who.parse().unwrap());
        })
    });
    world.open_used().await;
    pass(IDLE + TICK).await;
    assert_eq!(world.server.last().headers["x-user"], "alice");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_or_never_answers_the_close_is_given_up() {
    for status in [Some(500), Some(401), None] {
        let world = World::new(|layer| layer.close_timeout(SECOND * 5));
        world.server.change(|manners| manners.delete_status = status);
        world.open_used().await;
        pass(IDLE + TICK).await;
        assert_eq!(world.sessions.len(), 0);
        pass(SECOND * 5).await;
        let stats = world.sessions.stats();
        assert_eq!((stats.closing, stats.terminate_failures), (0, 1), "{status:?}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_without_delete_is_no_failure() {
    let world = World::new(|layer| layer);
    world.server.change(|manners| manners.delete_status = Some(405));
    world.open_used().await;
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.stats().terminate_failures, 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_hung_closes_do_not_keep_the_next_session_from_being_reaped() {
    let world = World::new(|layer| layer.max_sessions(1_001));
    world.server.change(|manners| manners.delete_status = None);
    for _ in 0..1_000 {
        world.open_used().await;
    }
    pass(IDLE / 2).await;
    let last = world.open_used().await;
    pass(IDLE / 2 + TICK).await;
    assert_eq!(world.sessions.len(), 1, "all but the last are closing");
    pass(IDLE / 2).await;
    assert_eq!(world.ping(&last).await, 404);
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_hold_keeps_the_session_after_its_response_has_ended() {
    let world = World::new(|layer| layer);
    let id = world.open().await;
    world.ask(call_with(&id, "hold", &json!({ "ms": 500_000 }))).await;
    pass(IDLE * 4).await;
    assert_eq!(world.sessions.len(), 1);
    pass(IDLE).await;
    assert_eq!(world.sessions.len(), 1, "idle since the hold was dropped");
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn closed_resolves_for_everyone_who_waits_and_everyone_who_asks_later() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let session = world.sessions.get(&id).unwrap();
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.closed().await })
        })
        .collect();
    pass(SECOND).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    assert!(session.close());
    assert!(!session.close(), "closed once");
    for task in waiting {
        task.await.unwrap();
    }
    session.closed().await;
    assert!(session.is_closed());
    assert!(session.hold().is_err());
    assert_eq!(world.events(), ["opened", "closed requested"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn typed_state_lives_and_dies_with_its_session() {
    struct Dropped(std::sync::Arc<std::sync::atomic::AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let drops = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = || drops.load(std::sync::atomic::Ordering::SeqCst);

    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let session = world.sessions.get(&id).unwrap();
    session.state().get_or_insert_with(|| Dropped(drops.clone()));
    session.state().get_or_insert_with::<Dropped>(|| unreachable!("it is there"));
    // Made with the session at hand: no lock is held.
    let seven =
        session.state().get_or_insert_with(|| session.state().get::<Dropped>().map_or(0u32, |_| 7));
    assert_eq!((*seven, count()), (7, 0));
    pass(IDLE + TICK).await;
    assert_eq!(count(), 1, "dropped on close, though a handle is still there");
    session.state().get_or_insert_with(|| Dropped(drops.clone()));
    assert_eq!(count(), 2, "nothing is kept for a closed session");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn state_whose_destructor_panics_harms_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("tick");
        }
    }
    let world = World::new(|layer| layer);
    let (bomb, other) = (world.open_used().await, world.open_used().await);
    let session = world.sessions.get(&bomb).unwrap();
    session.state().get_or_insert_with(|| Bomb);
    drop(session);
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.len(), 0);
    assert_eq!(world.ping(&other).await, 404);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_tells_a_handler_about_itself() {
    let world = World::new(|layer| layer.principal(|_| Some("alice")));
    let opened = tokio::time::Instant::now();
    let id = world.open_used().await;
    let session = world.sessions.get(&id).unwrap();
    pass(SECOND * 3).await;
    assert_eq!(session.id(), Some(id.as_str()));
    assert_eq!(session.principal().unwrap().as_str(), "alice");
    let client = session.client().unwrap();
    assert_eq!(client.name.as_deref(), Some("tester"));
    assert_eq!(client.version.as_deref(), Some("1.0"));
    assert_eq!(client.protocol_version.as_deref(), Some("2025-11-25"));
    assert_eq!(session.opened_at(), opened);
    assert_eq!(session.idle_for(), SECOND * 3);
    let busy = world.send(call(&id, "endless")).await;
    assert_eq!(session.idle_for(), Duration::ZERO);
    drop(busy);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_harms_nobody() {
    let world = World::new(|layer| layer.on_event(|_| panic!("as hooks do")));
    let id = world.open_used().await;
    pass(IDLE + TICK).await;
    world.ask(call(&id, "ping")).await.assert_lost();
    assert_eq!(world.events(), ["opened", "closed idle", "rejected 404"]);
    let again = world.open_used().await;
    assert_eq!(world.ping(&again).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_may_close_sessions() {
    let slot = std::sync::Arc::new(std::sync::OnceLock::<mcp_session_layer::Sessions>::new());
    let hook = slot.clone();
    let world = World::new(|layer| {
        layer.on_event(move |event| {
            if matches!(event, mcp_session_layer::SessionEvent::Closed { .. }) {
                hook.get().unwrap().close_all();
            }
        })
    });
    slot.set(world.sessions.clone()).unwrap();
    let first = world.open_used().await;
    world.open_used().await;
    assert!(world.sessions.close(&first));
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[test]
fn the_reaper_comes_back_when_its_runtime_has_died() {
    use tower::{Layer, ServiceExt};
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = FakeServer::default();
    let layer = McpSessionLayer::new().idle_timeout(Duration::from_millis(50));
    let (layer, watched) = watch(&server, layer);
    let sessions = watched.sessions.clone();
    let service = layer.layer(server.clone());
    let open = || async {
        service.clone().oneshot(initialize()).await.unwrap();
    };
    let first = runtime();
    first.block_on(open());
    drop(first);
    assert_eq!(sessions.len(), 1, "nobody is there to reap");
    runtime().block_on(async {
        open().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(sessions.len(), 0, "both were reaped, that of the dead runtime too");
        assert_eq!(server.sessions().len(), 0);
        watched.finish_in_real_time().await;
    });
}

/// Not watched: who watches has the sessions, and here everything is dropped.
#[tokio::test(start_paused = true)]
async fn dropping_everything_closes_the_sessions_that_are_left() {
    use tower::{Layer, ServiceExt};
    let server = FakeServer::default();
    let layer = McpSessionLayer::new();
    let opened = layer.layer(server.clone()).oneshot(initialize()).await.unwrap();
    let id = read(opened).await.id().unwrap().to_owned();
    let session = layer.sessions().get(&id).unwrap();
    let before = tokio::time::Instant::now();
    drop(layer);
    session.closed().await;
    assert!(!session.close());
    while server.has(&id) {
        tokio::task::yield_now().await;
    }
    assert_eq!(before.elapsed(), Duration::ZERO, "the server was told at once");
}

/// Not watched: who watches has the sessions, and here everything is dropped.
#[tokio::test(start_paused = true)]
async fn a_stream_outlives_the_service_that_answered_it() {
    use tower::{Layer, ServiceExt};
    let server = FakeServer::default();
    let service = McpSessionLayer::new().layer(server.clone());
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    let stream = call_with(opened.id().unwrap(), "stream", &json!({ "events": 3, "ms": 1_000 }));
    let answer = service.oneshot(stream).await.unwrap();
    assert_eq!(read(answer).await.body, "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    pass(SECOND).await;
    assert_eq!(server.sessions().len(), 0, "then there was nobody left");
}

// Not watched, and neither are the next two: they are over before any layer is in use.
#[test]
#[should_panic(expected = "idle_timeout must not be zero")]
fn a_zero_timeout_is_refused_where_it_is_set() {
    let _ = McpSessionLayer::new().idle_timeout(Duration::ZERO);
}

#[test]
#[should_panic(expected = "configure the layer before")]
fn a_layer_in_use_is_not_reconfigured() {
    let layer = McpSessionLayer::new();
    let _sessions = layer.sessions();
    let _ = layer.idle_timeout(SECOND);
}

#[test]
fn every_duration_setter_refuses_zero_and_every_count_setter_too() {
    type Set = fn(McpSessionLayer) -> McpSessionLayer;
    let setters: [(&str, Set); 10] = [
        ("idle_timeout", |layer| layer.idle_timeout(Duration::ZERO)),
        ("unused_timeout", |layer| layer.unused_timeout(Duration::ZERO)),
        ("max_lifetime", |layer| layer.max_lifetime(Duration::ZERO)),
        ("open_timeout", |layer| layer.open_timeout(Duration::ZERO)),
        ("close_timeout", |layer| layer.close_timeout(Duration::ZERO)),
        ("stream_lifetime", |layer| layer.stream_lifetime(Duration::ZERO)),
        ("heartbeat", |layer| layer.heartbeat(Duration::ZERO)),
        ("max_streams", |layer| layer.max_streams(0)),
        ("max_sessions", |layer| layer.max_sessions(0)),
        ("max_sessions_per_principal", |layer| layer.max_sessions_per_principal(0)),
    ];
    for (name, set) in setters {
        let refused = std::panic::catch_unwind(|| set(McpSessionLayer::new())).unwrap_err();
        let message = refused.downcast_ref::<String>().unwrap();
        assert!(message.contains(name) && message.contains("must not be zero"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_layer_and_its_parts_can_be_shared_and_printed() {
    fn check<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    let world = World::new(|layer| layer);
    check(&McpSessionLayer::new());
    check(&world.service);
    check(&world.sessions);
    fn handler_argument<T: axum::extract::FromRequestParts<()>>() {}
    handler_argument::<Session>();
    handler_argument::<Option<Session>>();
    let _: Request<Body> = initialize();
    world.finish().await;
}
