//! What ends the session of a client that has vanished, and when.
//!
//! The idle timeout is a second in all of them. A bound is what is promised, and some seconds for a
//! machine that is busy with something else.

use std::time::Duration;

use mcp_session_layer::CloseReason;

use super::stage::{Amid, Sockets, Stage};
use crate::common::net::ms;

const SLACK: Duration = Duration::from_secs(4);

/// Waits for the close. `earliest` counts from when the client was in the middle of what it did,
/// `latest` from when it had vanished, a moment later.
async fn assert_closes_between(stage: &Stage, earliest: Duration, latest: Duration) {
    let after_the_cut = stage.closes().await;
    println!("closed {after_the_cut:?} after its client vanished; promised: {latest:?}");
    assert!(stage.opened.elapsed() >= earliest, "too early: {after_the_cut:?}");
    assert!(after_the_cut <= latest + SLACK, "too late: {after_the_cut:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn without_a_heartbeat_the_stream_of_a_vanished_client_holds_its_session_to_max_lifetime() {
    let stage =
        Stage::vanish(Amid::Listening, Sockets::Plain, |layer| layer.max_lifetime(ms(8000))).await;
    stage.after(ms(4000)).await;
    let stats = stage.stats();
    assert_eq!((stats.live, stats.streams, stats.in_flight), (1, 1, 1), "four idle timeouts later");
    // The age counts from `initialize`, a moment before.
    assert_closes_between(&stage, ms(5000), ms(8000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Lifetime), 1);
    assert_eq!(stage.pair.connections(), 1, "TCP has not learned of it");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn a_stream_lifetime_ends_the_stream_of_a_vanished_client_and_then_it_is_idle() {
    let stage =
        Stage::vanish(Amid::Listening, Sockets::Plain, |layer| layer.stream_lifetime(ms(2000)))
            .await;
    assert_closes_between(&stage, ms(2900), ms(3000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Idle), 1);
    assert_eq!(stage.pair.connections(), 1, "TCP has not learned of it");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn by_default_the_stream_of_a_vanished_client_holds_until_an_operator_ends_it() {
    let stage = Stage::vanish(Amid::Listening, Sockets::Plain, |layer| layer).await;
    stage.after(ms(3000)).await;
    assert_eq!((stage.stats().live, stage.stats().streams), (1, 1), "three idle timeouts later");
    assert_eq!(stage.sessions.close_all(), 1);
    assert_closes_between(&stage, ms(3000), ms(3000)).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn where_streams_do_not_hold_a_vanished_client_is_idle_as_any_other() {
    let stage =
        Stage::vanish(Amid::Listening, Sockets::Plain, |layer| layer.streams_hold(false)).await;
    assert_closes_between(&stage, ms(900), ms(1000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Idle), 1);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn a_heartbeat_and_a_user_timeout_find_a_vanished_client() {
    let sockets = Sockets::UserTimeout(ms(2000));
    let stage = Stage::vanish(Amid::Listening, sockets, |layer| layer.heartbeat(ms(500))).await;
    stage.after(ms(1500)).await;
    assert_eq!(stage.stats().streams, 1);
    // Silent for so long, not acknowledged for so long, idle for so long; the kernel looks when it
    // sends again, which is up to as long again.
    assert_closes_between(&stage, ms(3000), ms(500 + 2 * 2000 + 1000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Idle), 1);
    assert_eq!(stage.pair.connections(), 0);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn a_heartbeat_alone_finds_a_vanished_client_when_the_kernel_gives_up() {
    let stage = Stage::vanish(Amid::Listening, Sockets::Plain, |layer| {
        layer.heartbeat(ms(500)).max_lifetime(ms(20_000))
    })
    .await;
    stage.pair.retries(3);
    // 0.2 + 0.4 + 0.8 + 1.6 s of sending again, or more where the way is slow; 15 times, the
    // default, are a quarter of an hour.
    assert_closes_between(&stage, ms(3000), ms(500 + 2 * 3000 + 1000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Idle), 1);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn keepalive_finds_a_vanished_client_without_a_heartbeat() {
    let stage = Stage::vanish(Amid::Listening, Sockets::Keepalive, |layer| layer).await;
    assert_closes_between(&stage, ms(3000), ms(1000 + 2 * 1000 + 1000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Idle), 1);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn a_call_whose_client_has_vanished_ends_with_its_answer_and_then_it_is_idle() {
    let stage = Stage::vanish(Amid::Call(ms(4000)), Sockets::Plain, |layer| layer).await;
    stage.after(ms(2500)).await;
    assert_eq!(stage.stats().in_flight, 1, "the tool works, longer than the idle timeout");
    // The answer fits into the buffers of the kernel: for the layer it was sent.
    assert_closes_between(&stage, ms(4900), ms(4000 + 1000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Idle), 1);
    assert_eq!(stage.pair.connections(), 1, "TCP has not learned of it");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn an_answer_too_large_for_the_kernel_holds_the_session_to_max_lifetime() {
    let stage =
        Stage::vanish(Amid::Large, Sockets::Plain, |layer| layer.max_lifetime(ms(8000))).await;
    stage.after(ms(4000)).await;
    let stats = stage.stats();
    assert_eq!((stats.live, stats.streams, stats.in_flight), (1, 1, 1));
    assert_closes_between(&stage, ms(5000), ms(8000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Lifetime), 1);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn an_answer_too_large_for_the_kernel_ends_with_its_user_timeout() {
    let sockets = Sockets::UserTimeout(ms(2000));
    let stage = Stage::vanish(Amid::Large, sockets, |layer| layer).await;
    assert_closes_between(&stage, ms(2900), ms(2 * 2000 + 1000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Idle), 1);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn half_a_request_holds_the_session_to_max_lifetime() {
    let stage =
        Stage::vanish(Amid::HalfARequest, Sockets::Plain, |layer| layer.max_lifetime(ms(8000)))
            .await;
    stage.after(ms(4000)).await;
    assert_eq!(stage.stats().in_flight, 1);
    assert_closes_between(&stage, ms(5000), ms(8000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Lifetime), 1);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs root: just half-open"]
async fn half_a_request_ends_with_keepalive() {
    let stage = Stage::vanish(Amid::HalfARequest, Sockets::Keepalive, |layer| layer).await;
    assert_closes_between(&stage, ms(3000), ms(1000 + 2 * 1000 + 1000)).await;
    assert_eq!(stage.stats().closed.get(CloseReason::Idle), 1);
    stage.finish().await;
}
