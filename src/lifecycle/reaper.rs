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
    registry::{Registry, Watched},
    shield::shielded,
};

/// Looked at in one poll, so that many that are due at once do not keep others waiting.
const BATCH: usize = 256;

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
pub(super) async fn tick(registry: &Registry, floor: usize) -> usize {
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
        let mut due = Due { registry, entries: due };
        while !due.entries.is_empty() {
            for _ in 0..BATCH {
                let Some(watched) = due.entries.pop() else {
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
struct Due<'a> {
    registry: &'a Registry,
    entries: Vec<Watched>,
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        for watched in self.entries.drain(..) {
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
        registry.wheel().compact(slot, |watched| match watched {
            Watched::Session(record) => record.strong_count() > 0,
            Watched::Timed(timed) => timed.strong_count() > 0,
        });
        if slot % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    registry.wheel().len()
}
