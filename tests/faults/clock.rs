//! Clocks that jump.

use std::time::Duration;

use serde_json::json;
use tokio::time::advance;

use crate::common::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(start_paused = true)]
async fn months_that_pass_at_once_close_the_idle_once_and_spare_what_is_held() {
    let world = World::new(|layer| layer.max_sessions(2_000));
    let mut held = Vec::new();
    for n in 0..300 {
        let id = world.open_used().await;
        match n % 3 {
            // A hold of the handler's, for a hundred days.
            0 => {
                let ms = 100 * DAY.as_millis() as u64;
                world.ask(call_with(&id, "hold", &json!({ "ms": ms }))).await;
                held.push((id, None));
            }
            1 => {
                let stream = world.send(get(&id)).await;
                held.push((id, Some(stream)));
            }
            _ => {}
        }
    }
    // The tasks that hold have begun to sleep.
    pass(SECOND).await;
    for jump in 1..=3 {
        advance(DAY * 30).await;
        pass(TICK).await;
        assert_eq!(world.sessions.len(), 200, "after jump {jump}");
    }
    for (id, _) in &held {
        assert_eq!(world.ping(id).await, 200);
    }
    let closed = world.events().iter().filter(|event| *event == "closed idle").count();
    assert_eq!(closed, 100);
    drop(held);
    // The holds of the handler are over as well.
    advance(DAY * 30).await;
    pass(IDLE + TICK).await;
    assert!(world.sessions.is_empty());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_jump_does_not_depend_on_where_in_the_wheel_it_lands() {
    let world = World::new(|layer| layer);
    for n in 0..60_u32 {
        let (idle, held) = (world.open_used().await, world.open_used().await);
        let stream = world.send(get(&held)).await;
        // Around a turn of the wheel, many turns, and a part of a tick.
        advance(Duration::from_millis(1 + 997) * (9 * n * n)).await;
        advance(IDLE).await;
        world.ask(call(&idle, "ping")).await.assert_lost();
        assert_eq!(world.ping(&held).await, 200);
        drop(stream);
        advance(IDLE - Duration::from_millis(1)).await;
        assert_eq!(world.ping(&held).await, 200, "a whole timeout since the last of it");
        pass(IDLE + TICK).await;
        assert!(world.sessions.is_empty());
    }
    world.finish().await;
}

/// The activity word counts 34 years of milliseconds.
#[tokio::test(start_paused = true)]
async fn sessions_live_and_die_alike_after_thirty_four_years() {
    let world = World::new(|layer| layer.max_lifetime(DAY * 365 * 10).heartbeat(SECOND));
    let young = world.open_used().await;
    let years = Duration::from_millis((1 << 40) - 1) - DAY;
    advance(years).await;
    pass(TICK).await;
    assert!(world.sessions.is_empty());
    world.ask(call(&young, "ping")).await.assert_lost();
    let (idle, held) = (world.open_used().await, world.open_used().await);
    let mut stream = world.send(get(&held)).await;
    assert!(frame(&mut stream).await.is_some());
    assert!(frame(&mut stream).await.is_some(), "hearts beat");
    pass(IDLE - TICK * 4).await;
    assert_eq!(world.ping(&idle).await, 200);
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.len(), 1);
    drop(stream);
    pass(IDLE + TICK).await;
    assert!(world.sessions.is_empty());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stopped_gets_one_heartbeat_for_all_that_were_due_and_harms_nobody() {
    let world = World::new(|layer| layer.heartbeat(SECOND).stream_lifetime(SECOND * 500));
    let (stalled, other) = (world.open_used().await, world.open_used().await);
    let mut stuck = world.send(get(&stalled)).await;
    let mut reading = world.send(get(&other)).await;
    assert!(frame(&mut stuck).await.is_some() && frame(&mut reading).await.is_some());
    for _ in 0..100 {
        assert_eq!(frame(&mut reading).await.unwrap(), ":\n\n");
    }
    assert_eq!(frame(&mut stuck).await.unwrap(), ":\n\n");
    let before = tokio::time::Instant::now();
    assert_eq!(frame(&mut stuck).await.unwrap(), ":\n\n");
    assert!(before.elapsed() >= SECOND / 2, "the next is due in its time");
    world.sessions.close(&stalled);
    assert_eq!(world.server.open_bodies(), 1, "cut, though nobody asks it");
    assert_eq!(frame(&mut reading).await.unwrap(), ":\n\n", "the other goes on");
    assert_eq!(frame(&mut stuck).await, None);
    // Left unread until it is too old.
    pass(SECOND * 501).await;
    assert_eq!(world.server.open_bodies(), 0);
    pass(IDLE + TICK).await;
    assert!(world.sessions.is_empty());
    drop((stuck, reading));
    world.finish().await;
}
