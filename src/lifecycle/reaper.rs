//! The reaper: one task that looks at what the wheel says is due.
//!
//! It decides nothing that an access would not decide as well; it gives back what nobody asks for.
//! It holds the registry weakly, sleeps while the wheel is empty, lets others run between batches,
//! and is spawned again by the next request if its runtime has died under it.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    registry::Registry,
    shield::shielded,
    watch::{Due, Watched},
};

/// Looked at in one poll, so that many that are due at once do not keep others waiting. How long a poll
/// takes with a million live stands in `BENCHMARKS.md`.
const BATCH: usize = 128;

#[derive(Debug)]
pub(super) struct Reaper {
    running: AtomicBool,
    wake: Notify,
}

impl Reaper {
    pub(super) fn new() -> Self {
        Self { running: AtomicBool::new(false), wake: Notify::new() }
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Never spawns the task: a model reaps by itself.
    #[cfg(any(all(test, not(mcp_loom)), fuzzing))]
    pub(super) fn stand_down(&self) {
        self.running.store(true, Ordering::Release);
    }

    /// Spawns the task if there is none. One load when there is.
    pub(super) fn ensure(self: &Arc<Self>, registry: &Weak<Registry>) {
        if self.running.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let alive = Alive(Arc::clone(self));
        runtime.spawn(run(alive, registry.clone()));
    }
}

/// Says that there is no task, however it ended.
struct Alive(Arc<Reaper>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

async fn run(alive: Alive, registry: Weak<Registry>) {
    let reaper = &alive.0;
    let mut floor = 0;
    loop {
        // Not held while asleep: the task must not keep the registry alive.
        let Some(next) = registry.upgrade().map(|registry| next_tick(&registry)) else { return };
        let Some(next) = next else {
            reaper.wake.notified().await;
            continue;
        };
        sleep_until(next).await;
        let Some(registry) = registry.upgrade() else {
            return;
        };
        floor = tick(&registry, floor).await;
    }
}

/// What is done at a tick, at whatever time the clock says it is.
pub(crate) async fn tick(registry: &Registry, floor: usize) -> usize {
    reap(registry).await;
    let floor = compact(registry, floor).await;
    registry.closer().kick();
    floor
}

/// When the next slot of the wheel is due; `None` if there is nothing in any.
///
/// On the wheel's own grid: ticks of another phase would be late by up to two.
fn next_tick(registry: &Registry) -> Option<Instant> {
    let wheel = registry.wheel();
    let clock = registry.clock();
    (wheel.len() > 0).then(|| clock.instant(wheel.next_tick(clock.now())))
}

async fn reap(registry: &Registry) {
    let now = registry.clock().now();
    loop {
        let Some(due) = registry.wheel().take_due(now) else {
            return;
        };
        let mut taken = Taken { registry, due };
        let mut left = true;
        while left {
            for _ in 0..BATCH {
                let Some(watched) = taken.due.next() else {
                    left = false;
                    break;
                };
                // A stream may be dropped here for the last time, and its body with it.
                shielded("what the reaper looked at", || look(registry, watched));
            }
            tokio::task::yield_now().await;
        }
    }
}

fn look(registry: &Registry, watched: Watched) {
    match &watched {
        Watched::Session(record) => {
            let Some(record) = record.upgrade() else {
                return;
            };
            if let Some(at) = registry.look_at(&record) {
                registry.arm(watched, at);
            }
        }
        Watched::Timed(stream) => {
            let Some(stream) = stream.upgrade() else {
                return;
            };
            if let Some(at) = stream.look_at(registry.clock().now()) {
                registry.arm(watched, at);
            }
        }
    }
}

/// Taken out of the wheel and not looked at yet: goes back if the task is dropped.
struct Taken<'a> {
    registry: &'a Registry,
    due: Due,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for watched in self.due.by_ref() {
            self.registry.arm(watched, 0);
        }
    }
}

/// Frees the husks that traffic full of DELETEs leaves in far slots, when they may be more than
/// half. `floor` is what the last time found to be alive: streams stand in the wheel as well.
async fn compact(registry: &Registry, floor: usize) -> usize {
    let (len, slots) = {
        let wheel = registry.wheel();
        (wheel.len(), wheel.slots())
    };
    if len <= 2 * registry.live().max(floor) + 1024 {
        return floor.min(len);
    }
    for slot in 0..slots {
        registry.wheel().compact(slot);
        if slot % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    registry.wheel().len()
}

#[cfg(all(test, not(mcp_loom)))]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        task::{Context, Waker},
        time::Duration,
    };

    use super::*;
    use crate::lifecycle::{
        clock::{Millis, mock::Mock},
        closer::Terminated,
        deadline::Timeouts,
        events::CloseReason,
        streams::Timed,
        testing::{Answer, LIMITS, NEVER, Server, open},
    };

    const IDLE: Timeouts = Timeouts { idle: Some(640), ..NEVER };

    fn server() -> Arc<Server> {
        Server::new(Answer::With(Terminated::Done))
    }

    async fn sleep(millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_wakes_for_what_expires_and_again_after_there_was_nothing() {
        let registry = Registry::new(IDLE, LIMITS, Vec::new());
        for round in ["a", "b"] {
            drop(open(&registry, round, &server()));
            sleep(639).await;
            assert_eq!(registry.live(), 1);
            sleep(12).await;
            assert_eq!(registry.live(), 0, "round {round}");
            sleep(5_000).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_registry() {
        let registry = Registry::new(IDLE, LIMITS, Vec::new());
        drop(open(&registry, "a", &server()));
        let before = Handle::current().metrics().num_alive_tasks();
        assert!(before > 0);
        drop(registry);
        sleep(1_000).await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }

    #[test]
    fn a_task_whose_runtime_has_died_is_spawned_by_the_next_request() {
        let registry = Registry::new(IDLE, LIMITS, Vec::new());
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_time().start_paused(true).build().unwrap()
        };
        drop(open(&registry, "a", &server()));
        runtime().block_on(async { drop(registry.enter(b"a", None).unwrap()) });
        runtime().block_on(async {
            drop(registry.enter(b"a", None).unwrap());
            sleep(2_000).await;
            assert_eq!(registry.live(), 0);
        });
    }

    /// Wants to be looked at every 10 ms, three times.
    struct Thrice(AtomicUsize);

    impl Timed for Thrice {
        fn look_at(&self, now: Millis) -> Option<Millis> {
            let looks = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            (looks < 3).then_some(now + 10)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_timed_is_looked_at_as_often_as_it_asks() {
        let registry = Registry::new(IDLE, LIMITS, Vec::new());
        let timed = Arc::new(Thrice(AtomicUsize::new(0)));
        let weak: Weak<Thrice> = Arc::downgrade(&timed);
        registry.watch_timed(weak, registry.clock().now() + 10);
        sleep(15).await;
        assert_eq!(timed.0.load(Ordering::SeqCst), 1);
        sleep(1_000).await;
        assert_eq!(timed.0.load(Ordering::SeqCst), 3);
        assert_eq!(registry.wheel().len(), 0);
    }

    /// A registry on a mock clock, and one tick of it; the polls that it took.
    fn at_rest() -> (Arc<Registry>, Mock) {
        let time = Mock::new(Box::leak(Box::default()));
        let far = Timeouts { idle: Some(1_800_000), ..NEVER };
        (Registry::on(time.clock(), far, LIMITS, Vec::new()), time)
    }

    fn run(registry: &Registry, floor: usize) -> (usize, usize) {
        let mut task = Box::pin(tick(registry, floor));
        let mut polls = 1;
        loop {
            let context = &mut Context::from_waker(Waker::noop());
            if let std::task::Poll::Ready(floor) = task.as_mut().poll(context) {
                return (floor, polls);
            }
            polls += 1;
        }
    }

    fn open_and_close(registry: &Arc<Registry>, count: usize) {
        for id in 0..count {
            let in_flight = open(registry, &id.to_string(), &server());
            registry.close_untold(in_flight.record(), CloseReason::Client);
        }
    }

    #[test]
    fn husks_are_freed_when_they_are_more_than_half() {
        let (registry, _) = at_rest();
        open_and_close(&registry, 1_024);
        assert_eq!(run(&registry, 0).0, 0);
        assert_eq!(registry.wheel().len(), 1_024, "few enough to stay");
        let _live = open(&registry, "live", &server());
        open_and_close(&registry, 2);
        assert_eq!(registry.wheel().len(), 1_027);
        assert_eq!(run(&registry, 0).0, 1, "one for each that lives may stay as well");
        open_and_close(&registry, 1_024);
        assert_eq!(registry.wheel().len(), 1_025);
    }

    #[test]
    fn streams_that_are_gone_are_freed_and_those_that_are_there_are_not() {
        let (registry, _) = at_rest();
        let there = Arc::new(Thrice(AtomicUsize::new(0)));
        let watch = |timed: &Arc<Thrice>| {
            let weak: Weak<Thrice> = Arc::downgrade(timed);
            registry.watch_timed(weak, 100_000);
        };
        watch(&there);
        (0..1_030).for_each(|_| watch(&Arc::new(Thrice(AtomicUsize::new(0)))));
        let (left, polls) = run(&registry, 0);
        assert_eq!((left, registry.wheel().len()), (1, 1));
        let yields = registry.wheel().slots().div_ceil(64);
        assert_eq!(polls, 1 + yields, "others get their turn every 64 slots");
    }

    #[test]
    fn entries_that_are_alive_are_not_looked_for_again() {
        let (registry, _) = at_rest();
        open_and_close(&registry, 1_030);
        assert_eq!(run(&registry, 3), (3, 1), "three of them are said to be alive");
        assert_eq!(registry.wheel().len(), 1_030);
        assert_eq!(run(&registry, 2).0, 0);
        assert_eq!(registry.wheel().len(), 0);
    }

    #[test]
    fn many_that_are_due_at_once_are_looked_at_in_batches() {
        let (registry, time) = at_rest();
        (0..600).for_each(|id| drop(open(&registry, &id.to_string(), &server())));
        time.advance(1_800_010);
        let (_, polls) = run(&registry, 0);
        assert_eq!(registry.live(), 0);
        assert_eq!(polls, 6, "four times 128, and 88, and a yield after each");
    }

    #[test]
    fn what_was_taken_and_not_looked_at_goes_back() {
        let (registry, time) = at_rest();
        (0..600).for_each(|id| drop(open(&registry, &id.to_string(), &server())));
        time.advance(1_800_010);
        let mut task = Box::pin(tick(&registry, 0));
        assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(task);
        assert_eq!(registry.live(), 600 - BATCH);
        time.advance(20);
        run(&registry, 0);
        assert_eq!(registry.live(), 0);
    }
}
