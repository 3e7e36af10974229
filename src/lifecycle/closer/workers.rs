//! The tasks that tell: a queue and its workers, once for first attempts and once for retries.

use std::{collections::VecDeque, fmt, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::{Closer, Farewell};
use crate::lifecycle::shield::shielded;

/// Which attempts wait in a lane.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    First = 0,
    Again = 1,
}

pub(super) struct Lane {
    pub(super) queue: VecDeque<Farewell>,
    workers: usize,
    most: usize,
}

impl Lane {
    pub(super) fn new(most: usize) -> Self {
        Self { queue: VecDeque::new(), workers: 0, most }
    }
}

impl Lane {
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} queued, {} workers", self.queue.len(), self.workers)
    }
}

impl Closer {
    /// Remembers the runtime, and says whether anything is queued.
    pub(super) fn has_work(&self) -> bool {
        let current = Handle::try_current().ok();
        let mut inner = self.inner();
        if current.is_some() {
            inner.runtime = current;
        }
        inner.lanes.iter().any(|lane| !lane.queue.is_empty())
    }

    /// Spawns up to `count` workers, if there is work, and as many as there may be.
    pub(super) fn staff(self: &Arc<Self>, turn: Turn, count: usize) {
        let current = Handle::try_current().ok();
        let (runtime, count) = {
            let mut inner = self.inner();
            if current.is_some() {
                inner.runtime = current;
            }
            let Some(runtime) = inner.runtime.clone() else { return };
            let lane = inner.lane(turn);
            let count = count.min(lane.queue.len()).min(lane.most.saturating_sub(lane.workers));
            lane.workers += count;
            (runtime, count)
        };
        for _ in 0..count {
            let worker = Worker { closer: Arc::clone(self), turn, retired: false };
            runtime.spawn(worker.run());
        }
    }
}

/// One place among the workers, given back however its task ends.
struct Worker {
    closer: Arc<Closer>,
    turn: Turn,
    retired: bool,
}

impl Worker {
    async fn run(mut self) {
        while let Some(farewell) = self.next() {
            // Whatever panics on the way (a subscriber, a payload, a destructor): the next close is
            // another's, and nobody may come to start another worker.
            let told = AssertUnwindSafe(self.closer.tell(farewell)).catch_unwind().await;
            if let Err(payload) = told {
                shielded("payload of a panic", || drop(payload));
            }
        }
    }

    /// Looks for work and retires in one step, or a push in between would find a worker that is
    /// about to leave.
    fn next(&mut self) -> Option<Farewell> {
        let mut inner = self.closer.inner();
        let lane = inner.lane(self.turn);
        let farewell = lane.queue.pop_front();
        if farewell.is_none() {
            lane.workers -= 1;
            self.retired = true;
        }
        farewell
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.retired {
            self.closer.inner().lane(self.turn).workers -= 1;
        }
    }
}
