//! Servers that do not end sessions, and runtimes that end before they were told to.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt, future::join_all};
use mcp_session_layer::CloseReason;

use crate::common::*;

/// Calls to the server behind at once.
const AT_ONCE: usize = 64;
/// A thousand of them, and who is reaped meanwhile: `tests/lifecycle.rs`.
const HUNG: usize = 300;

#[tokio::test(start_paused = true)]
async fn hung_closes_keep_their_permits_for_the_close_timeout_and_no_longer() {
    let patience = SECOND * 5;
    let world = World::new(|layer| layer.max_sessions(HUNG + 1).close_timeout(patience));
    world.server.change(|manners| manners.delete_status = None);
    // All at once, so that they are due at once.
    join_all((0..HUNG).map(|_| world.open_used())).await;
    pass(IDLE + TICK).await;
    let stats = world.sessions.stats();
    assert_eq!((stats.live, stats.closed.get(CloseReason::Idle)), (0, HUNG as u64));
    assert_eq!(stats.closing, HUNG, "all reaped at their deadline, and none told yet");

    // The cap holds: one place is left, and the next waits for one that comes back.
    let last = world.open_used().await;
    assert_eq!(world.sessions.stats().closing, HUNG);
    let before = tokio::time::Instant::now();
    world.open_used().await;
    assert!(before.elapsed() <= patience, "waited {:?}", before.elapsed());

    // As many at once as there are workers, each for the close timeout.
    pass(patience * HUNG.div_ceil(AT_ONCE) as u32).await;
    let stats = world.sessions.stats();
    assert_eq!((stats.live, stats.closing, stats.terminate_failures), (2, 0, HUNG as u64));

    assert_eq!(world.ping(&last).await, 200);
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.len(), 0, "and the reaper goes on");
    world.server.change(|manners| manners.delete_status = Some(202));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn closes_of_any_answer_give_their_permits_back() {
    for (status, refused) in
        [(Some(202), 0), (Some(404), 0), (Some(405), 0), (Some(500), 70), (None, 70)]
    {
        let world = World::new(|layer| layer.max_sessions(70).close_timeout(SECOND));
        world.server.change(|manners| manners.delete_status = status);
        for round in 1..=2 {
            for _ in 0..70 {
                world.open().await;
            }
            assert_eq!(world.sessions.close_all(), 70);
            // More than are told at once: those that hang take two turns.
            pass(SECOND * 3).await;
            let stats = world.sessions.stats();
            assert_eq!((stats.live, stats.closing), (0, 0), "{status:?}");
            assert_eq!(stats.terminate_failures, round * refused, "{status:?}");
        }
        world.finish().await;
    }
}

/// The other half of a panic while a close is told: the log.
#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_stops_no_close() {
    struct Panics;
    impl tracing::Subscriber for Panics {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target().starts_with("mcp_session_layer")
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            panic!("as subscribers do");
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let world = World::new(|layer| layer.max_sessions(200));
    world.server.change(|manners| manners.delete_status = Some(500));
    let _panics = tracing::subscriber::set_default(Panics);
    for _ in 0..200 {
        world.open_used().await;
    }
    world.sessions.close_all();
    pass(SECOND).await;
    let stats = world.sessions.stats();
    assert_eq!((stats.closing, stats.terminate_failures), (0, 200));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_close_during_any_request_is_told_once() {
    for method in ["sleep", "endless", "status"] {
        let world = World::new(|layer| layer.max_sessions(1));
        let id = world.open_used().await;
        let params = serde_json::json!({ "ms": 1_000, "code": 200 });
        let answer = {
            let mut answer = Box::pin(world.send(call_with(&id, method, &params)));
            let early = tokio::time::timeout(Duration::from_millis(500), &mut answer).await.ok();
            assert!(world.sessions.close(&id));
            match early {
                Some(answer) => answer,
                None => AssertUnwindSafe(answer).catch_unwind().await.unwrap(),
            }
        };
        drop(answer);
        pass(SECOND).await;
        assert_eq!(world.server.count(&http::Method::DELETE), 1);
        world.open_used().await;
        world.finish().await;
    }
}
