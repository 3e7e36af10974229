//! Caps: exact, reclaimed before anyone is refused, and never a way to hurt another.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::*;
use http::Request;
use mcp_session_layer::{CloseReason, McpSessionLayer, WhenFull};
use serde_json::json;
use tokio::time::{Instant, advance};

/// The caller named in `x-user`.
fn by_user(layer: McpSessionLayer) -> McpSessionLayer {
    layer.allow_anonymous().principal(|parts| {
        let user = parts.headers.get("x-user")?;
        user.to_str().ok().map(str::to_owned)
    })
}

fn as_user<T>(mut request: Request<T>, user: &str) -> Request<T> {
    request.headers_mut().insert("x-user", user.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn a_full_table_refuses_with_503_and_closes_nobody() {
    let world = World::new(|layer| layer.max_sessions(3));
    let kept = [world.open_used().await, world.open_used().await, world.open_used().await];
    let reply = world.ask(initialize()).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers["retry-after"], "5");
    assert_eq!(
        reply.body,
        r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Server is at capacity"}}"#
    );
    assert_eq!(world.server.sessions().len(), 3, "the server was not called");
    for id in &kept {
        assert_eq!(world.ping(id).await, 200);
    }
    world.ask(delete(&kept[0])).await;
    world.open_used().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_expired_are_reclaimed_before_anyone_is_refused_without_the_reaper() {
    for issues_ids in [true, false] {
        let server = FakeServer::with(|manners| manners.issues_ids = issues_ids);
        let world = World::around(server, |layer| layer.max_sessions(2));
        let old = world.open_used().await;
        advance(IDLE / 2).await;
        let young = world.open_used().await;
        advance(IDLE / 2).await;
        // Nothing has run since the clock was moved: the reaper is as late as it can be.
        let new = world.open().await;
        assert_eq!(world.ping(&old).await, 404);
        assert_eq!(world.ping(&young).await, 200);
        assert_eq!(world.ping(&new).await, 200);
        assert_eq!(world.ask(initialize()).await.status, 503);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_being_opened_and_closed_count_too() {
    let world = World::new(|layer| layer.max_sessions(2));
    world.server.change(|manners| manners.open_delay = SECOND);
    let (one, two, three) =
        tokio::join!(world.ask(initialize()), world.ask(initialize()), world.ask(initialize()),);
    let mut statuses = [one.status.as_u16(), two.status.as_u16(), three.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);

    world.server.change(|manners| {
        manners.open_delay = Duration::ZERO;
        manners.delete_delay = SECOND * 3;
    });
    let id = [&one, &two, &three].into_iter().find_map(|reply| reply.id()).unwrap();
    assert!(world.sessions.close(id));
    assert_eq!(world.sessions.stats().closing, 1);
    let before = Instant::now();
    assert_eq!(world.ask(initialize()).await.status, 200, "waited for the close under way");
    assert_eq!(before.elapsed(), SECOND * 3);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_close_timeout_nor_more_than_can_be_served() {
    let world = World::new(|layer| layer.max_sessions(1).close_timeout(SECOND * 4));
    let id = world.open_used().await;
    world.server.change(|manners| manners.delete_status = None);
    world.sessions.close(&id);
    let before = Instant::now();
    let (one, two) = tokio::join!(world.ask(initialize()), async {
        tokio::task::yield_now().await;
        let refused = world.ask(initialize()).await;
        (refused.status, before.elapsed())
    });
    assert_eq!(
        two,
        (http::StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO),
        "one close, one waits"
    );
    assert!(before.elapsed() <= SECOND * 4);
    assert!([200, 503].contains(&one.status.as_u16()));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn evict_idle_closes_the_longest_idle_and_nothing_that_works() {
    let world = World::new(|layer| layer.max_sessions(3).when_full(WhenFull::EvictIdle));
    let busy = world.open_used().await;
    let work = world.send(call(&busy, "endless")).await;
    pass(SECOND).await;
    let idlest = world.open_used().await;
    pass(SECOND).await;
    let fresh = world.open_used().await;
    pass(SECOND).await;
    world.open_used().await;
    assert_eq!(world.ping(&busy).await, 200);
    assert_eq!(world.ping(&idlest).await, 404);
    assert_eq!(world.ping(&fresh).await, 200);
    assert!(world.events().contains(&"closed evicted".to_owned()));
    drop(work);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn evict_idle_refuses_when_everything_works() {
    let world = World::new(|layer| layer.max_sessions(1).when_full(WhenFull::EvictIdle));
    let busy = world.open_used().await;
    let work = world.send(call(&busy, "endless")).await;
    assert_eq!(world.ask(initialize()).await.status, 503);
    drop(work);
    world.open_used().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_principal_at_its_cap_gets_429_and_others_are_served() {
    let world = World::new(|layer| by_user(layer).max_sessions_per_principal(2));
    for _ in 0..2 {
        assert_eq!(world.ask(as_user(initialize(), "alice")).await.status, 200);
    }
    let refused = world.ask(as_user(initialize(), "alice")).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["retry-after"].to_str().unwrap()),
        (429, &"5")
    );
    assert_eq!(refused.json()["error"]["message"], "Too many sessions");
    assert_eq!(world.ask(as_user(initialize(), "bob")).await.status, 200);
    for _ in 0..3 {
        assert_eq!(world.ask(initialize()).await.status, 200, "nobody is not a principal");
    }
    pass(IDLE + TICK).await;
    assert_eq!(world.ask(as_user(initialize(), "alice")).await.status, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn eviction_never_hits_another_principal() {
    let world = World::new(|layer| by_user(layer).max_sessions(2).when_full(WhenFull::EvictIdle));
    let alice = world.ask(as_user(initialize(), "alice")).await.id().unwrap().to_owned();
    let bob = world.ask(as_user(initialize(), "bob")).await.id().unwrap().to_owned();
    for _ in 0..10 {
        assert_eq!(world.ask(as_user(initialize(), "mallory")).await.status, 503);
        assert_eq!(world.ask(initialize()).await.status, 503);
    }
    assert_eq!(world.ask(as_user(call(&alice, "ping"), "alice")).await.status, 200);
    pass(SECOND).await;
    let again = world.ask(as_user(initialize(), "bob")).await;
    assert_eq!(again.status, 200, "bob may give up one of his own");
    assert_eq!(world.ask(as_user(call(&bob, "ping"), "bob")).await.status, 404);
    assert_eq!(world.ask(as_user(call(&alice, "ping"), "alice")).await.status, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_principal_at_its_cap_evicts_its_own() {
    let world = World::new(|layer| {
        by_user(layer).max_sessions_per_principal(1).when_full(WhenFull::EvictIdle)
    });
    let first = world.ask(as_user(initialize(), "alice")).await.id().unwrap().to_owned();
    assert_eq!(world.ask(as_user(initialize(), "alice")).await.status, 200);
    assert_eq!(world.ask(as_user(call(&first, "ping"), "alice")).await.status, 404);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_newcomer_evicts_one_session_however_long_its_close_takes() {
    for per_principal in [true, false] {
        let world = World::new(|layer| {
            let layer = by_user(layer).max_sessions(20).when_full(WhenFull::EvictIdle);
            if per_principal {
                layer.max_sessions_per_principal(10)
            } else {
                layer.max_sessions(10)
            }
        });
        for _ in 0..10 {
            assert_eq!(world.ask(as_user(initialize(), "alice")).await.status, 200);
        }
        world.server.change(|manners| manners.delete_delay = SECOND / 2);
        for n in 1..=3 {
            assert_eq!(world.ask(as_user(initialize(), "alice")).await.status, 200);
            let evicted = world.sessions.stats().closed.get(CloseReason::Evicted);
            assert_eq!((evicted, world.sessions.len()), (n, 10));
        }
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_principal_that_waits_in_vain_is_told_of_its_own_cap() {
    let world = World::new(|layer| {
        by_user(layer).max_sessions_per_principal(1).when_full(WhenFull::EvictIdle)
    });
    world.server.change(|manners| manners.delete_status = None);
    let statuses = [
        world.ask(as_user(initialize(), "alice")).await.status.as_u16(),
        world.ask(as_user(initialize(), "alice")).await.status.as_u16(),
    ];
    assert!(statuses == [200, 429] || statuses == [200, 200], "{statuses:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_recovers_from_a_404_gets_the_place_of_its_lost_session() {
    for per_principal in [true, false] {
        let world = World::new(|layer| {
            let layer = by_user(layer);
            if per_principal { layer.max_sessions_per_principal(1) } else { layer.max_sessions(1) }
        });
        world.server.change(|manners| manners.delete_delay = Duration::from_millis(20));
        let opened = world.ask(as_user(initialize(), "alice")).await;
        let id = opened.id().unwrap().to_owned();
        assert_eq!(world.ask(as_user(call(&id, "ping"), "alice")).await.status, 200);
        advance(IDLE).await;
        world.ask(as_user(call(&id, "ping"), "alice")).await.assert_lost();
        assert_eq!(world.ask(as_user(initialize(), "alice")).await.status, 200);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_turned_away_does_not_hide_an_expiry_from_a_newcomer() {
    let world = World::new(|layer| layer.max_sessions(1));
    let id = world.open_used().await;
    pass(IDLE / 2).await;
    assert_eq!(world.ping(&id).await, 200);
    pass(IDLE / 2 - SECOND).await;
    // In flight when the newcomer walks the table, and turned away before the deadline.
    let turned_away = call_with(&id, "status", &json!({ "code": 400, "ms": 2_000 }));
    let (_, refused) = tokio::join!(world.ask(turned_away), async {
        pass(SECOND).await;
        world.ask(initialize()).await.status
    });
    assert_eq!(refused, 503);
    advance(IDLE / 2 - SECOND).await;
    assert_eq!(world.ask(initialize()).await.status, 200, "it expired just now");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_openings_and_closings_never_exceeds_the_cap() {
    let world = World::new(|layer| layer.max_sessions(10).when_full(WhenFull::EvictIdle));
    world.server.change(|manners| {
        manners.open_delay = Duration::from_millis(7);
        manners.delete_delay = Duration::from_millis(11);
    });
    let storm = (0..500u64).map(|n| {
        let world = &world;
        async move {
            pass(Duration::from_millis(n % 97)).await;
            let reply = world.ask(initialize()).await;
            if let Some(id) = reply.id() {
                world.ping(id).await;
                if n % 3 == 0 {
                    world.ask(delete(id)).await;
                }
            }
            reply.status.as_u16()
        }
    });
    let statuses = futures_util::future::join_all(storm).await;
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 200).count() > 20);
    world.finish().await;
}

/// Not watched: no request is made.
#[test]
fn a_cap_without_a_timeout_is_warned_of() {
    #[derive(Clone, Default)]
    struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let warns = |layer: McpSessionLayer| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || drop(layer.sessions()));
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap().contains("WARN")
    };
    assert!(warns(McpSessionLayer::new().no_idle_timeout()));
    assert!(warns(McpSessionLayer::new().idle_timeout(Duration::MAX)));
    assert!(!warns(McpSessionLayer::new()));
    assert!(!warns(McpSessionLayer::new().no_idle_timeout().max_lifetime(SECOND)));
}
