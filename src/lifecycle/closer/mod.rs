//! Tells the upstream server that a session has ended, in the background and within bounds.
//!
//! Deciding and telling are apart: when a close gets here, the session is gone from the map, its
//! streams are cut and its event is out. What is left is one call to the server, with a time limit,
//! at most [`WORKERS`] at once. The permit waits in the queue with it: a server that does not answer
//! DELETE fills the cap, not the memory.
//!
//! A failed attempt is repeated ([`retries`]) without the permit, by workers of its own, so that no
//! first attempt waits for it.
//!
//! Workers are tasks that end when their queue is empty. If their runtime dies, the calls under way
//! have failed (which gives their permits back) and the queues wait for the next [`Closer::kick`].

mod ending;
mod failure;
mod farewell;
mod retries;
mod terminate;
#[cfg(all(test, not(mcp_loom)))]
mod tests;
mod unclaimed;
mod unended;
mod warning;
mod workers;

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{runtime::Handle, time::timeout};

pub(in crate::lifecycle) use self::farewell::Farewell;
pub(crate) use self::terminate::{Terminate, Terminated, Terminator, WeakTerminator};
use self::{
    ending::{Ending, Mark},
    failure::Failure,
    retries::{MOST_RETRIES, Retries, pause},
    unclaimed::{Counted, Unclaimed},
    unended::Unended,
    warning::Warnings,
    workers::{Lane, Turn},
};
use super::{
    clock::{Clock, Millis},
    handle::Session,
    principal::Principal,
    registry::Registry,
    shield::shielded,
    snapshot::UnendedSession,
};
use crate::protocol::SessionId;

/// First attempts at once: so that one that hangs does not keep the others waiting, and no burst
/// for an upstream behind a proxy.
const WORKERS: usize = 64;

/// Repeated attempts at once, beside the first.
const RETRY_WORKERS: usize = 16;

pub(super) struct Closer {
    limit: Duration,
    clock: Clock,
    /// Retries end with it.
    registry: Weak<Registry>,
    inner: Mutex<Inner>,
    failures: AtomicU64,
    unclaimed: Arc<Unclaimed>,
    ending: Arc<Ending>,
    warnings: Warnings,
}

/// No farewell is dropped under the lock: the user's destructors run there.
struct Inner {
    lanes: [Lane; 2],
    retries: Retries,
    unended: Unended,
    /// Where sessions were last opened: closes may come from outside of any runtime.
    runtime: Option<Handle>,
}

impl Closer {
    pub(super) fn new(limit: Duration, clock: Clock, registry: Weak<Registry>) -> Self {
        Self {
            limit,
            clock,
            registry,
            inner: Mutex::new(Inner {
                lanes: [Lane::new(WORKERS), Lane::new(RETRY_WORKERS)],
                retries: Retries::default(),
                unended: Unended::default(),
                runtime: None,
            }),
            failures: AtomicU64::new(0),
            unclaimed: Arc::default(),
            ending: Arc::default(),
            warnings: Warnings::default(),
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Sessions whose first attempt failed.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Endings under way of sessions of this principal that no permit counts.
    pub(super) fn unclaimed(&self, principal: Option<&Principal>) -> usize {
        self.unclaimed.count(principal)
    }

    /// Resolves when no ending that no permit counts is under way.
    pub(super) async fn all_unclaimed_ended(&self) {
        loop {
            let ended = self.unclaimed.ended();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.unclaimed.is_empty() {
                return;
            }
            ended.await;
        }
    }

    pub(super) fn count_unclaimed(&self, principal: Option<Principal>) -> Counted {
        self.unclaimed.add(principal)
    }

    /// Sessions that the upstream server may still have: the last that were given up, and all that
    /// are being retried.
    pub(super) fn unended(&self) -> Vec<UnendedSession> {
        self.inner().unended.list()
    }

    /// How many were given up since the start, and how many are being retried.
    pub(super) fn unended_counts(&self) -> (u64, usize) {
        let inner = self.inner();
        (inner.unended.given_up(), inner.unended.retrying())
    }

    /// Whether a session of this id is being ended at the upstream server right now.
    pub(super) fn is_ending(&self, id: &SessionId) -> bool {
        self.ending.has(id)
    }

    pub(super) fn mark(&self, id: &SessionId) -> Mark {
        self.ending.add(id.clone())
    }

    pub(super) fn push(self: &Arc<Self>, mut farewell: Farewell) {
        farewell.mark = farewell.session.session_id().map(|id| self.mark(id));
        self.inner().lane(Turn::First).queue.push_back(farewell);
        self.staff(Turn::First, 1);
    }

    /// Sees to it that workers are there if there is work.
    pub(super) fn kick(self: &Arc<Self>) {
        if self.has_work() {
            self.staff(Turn::First, usize::MAX);
            self.staff(Turn::Again, usize::MAX);
        }
    }

    /// The registry is gone: tries once more what is due, and gives the rest up.
    pub(super) fn end(self: &Arc<Self>) {
        let now = self.clock.now();
        let (due, left) = {
            let mut inner = self.inner();
            (inner.queue_due(now), inner.retries.take_all())
        };
        self.staff(Turn::Again, due);
        left.into_iter().for_each(|farewell| self.give_up(farewell));
    }

    /// Queues the retries that are due, and says when the next is.
    fn look_at(self: &Arc<Self>, now: Millis) -> Option<Millis> {
        let (due, next) = {
            let mut inner = self.inner();
            (inner.queue_due(now), inner.retries.next())
        };
        self.staff(Turn::Again, due);
        next
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(self: &Arc<Self>, farewell: Farewell) {
        let mut attempt = Attempt { closer: self, farewell: Some(farewell) };
        let Some(farewell) = &mut attempt.farewell else { return };
        // Before the look: an answer with this id either sees the mark, or is seen.
        if farewell.mark.is_none() {
            farewell.mark = farewell.session.session_id().map(|id| self.mark(id));
        }
        if self.is_taken(&farewell.session) {
            return attempt.ended(None);
        }
        let farewell = &*farewell;
        let call = || farewell.terminate.terminate(farewell.session.clone());
        let Some(call) = shielded("terminate", call) else {
            return attempt.ended(Some(Failure::Panicked));
        };
        let outcome = timeout(self.limit, AssertUnwindSafe(call).catch_unwind()).await;
        let failure = match outcome {
            Ok(Ok(Terminated::Done)) => None,
            Ok(Ok(Terminated::Refused(status))) => Some(Failure::Refused(status)),
            Ok(Ok(Terminated::Failed)) => Some(Failure::Failed),
            Ok(Err(payload)) => {
                shielded("payload of a panic", || drop(payload));
                Some(Failure::Panicked)
            }
            Err(_) => Some(Failure::Silent(self.limit)),
        };
        attempt.ended(failure);
    }

    /// The server has given the id out again, and that session is live: a DELETE would end it. A server that counts
    /// its sessions does so when it was restarted.
    fn is_taken(&self, session: &Session) -> bool {
        let registry = self.registry.upgrade();
        registry
            .zip(session.id())
            .is_some_and(|(registry, id)| registry.find(id.as_bytes()).is_some())
    }

    /// An attempt has ended: done, to be repeated, or given up.
    fn settle(self: &Arc<Self>, mut farewell: Farewell, failure: Option<Failure>) {
        farewell.release();
        let Some(failure) = failure else {
            self.inner().unended.ended(farewell.serial);
            return;
        };
        if farewell.attempts == 0 {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        farewell.attempts += 1;
        farewell.failure = Some(failure);
        // Held until the retry is listed: `end` finds it then.
        let registry = self.registry.upgrade();
        let now = self.clock.now();
        let elapsed = now.saturating_sub(*farewell.since.get_or_insert(now));
        let pause = pause(farewell.attempts, elapsed).filter(|_| !failure.is_final());
        match registry.zip(pause) {
            Some((registry, pause)) => self.retry(&registry, farewell, pause),
            None => self.give_up(farewell),
        }
    }

    fn retry(self: &Arc<Self>, registry: &Registry, mut farewell: Farewell, pause: Millis) {
        let due = self.clock.now() + pause;
        let (attempts, failure, info) =
            (farewell.attempts, farewell.failure, farewell.unended(true));
        let (alarm, oldest) = {
            let mut inner = self.inner();
            farewell.serial = Some(inner.unended.retry(farewell.serial, info.clone()));
            inner.retries.insert(due, farewell);
            let is_full = inner.unended.retrying() > MOST_RETRIES;
            let oldest = if is_full { inner.retries.take_oldest() } else { None };
            (inner.retries.alarm(due, self), oldest)
        };
        if attempts == 1 {
            self.warnings.warn(&info, failure, self.clock.now());
        }
        if let Some(oldest) = oldest {
            self.give_up(oldest);
        }
        if let Some(alarm) = alarm {
            registry.watch_timed(alarm, due);
        }
    }

    /// The upstream server keeps the session, unless it ends it by itself.
    fn give_up(&self, farewell: Farewell) {
        let info = farewell.unended(false);
        self.inner().unended.give_up(farewell.serial, info.clone());
        self.warnings.warn(&info, farewell.failure, self.clock.now());
        drop(farewell);
    }
}

/// An attempt under way. However it ends, its farewell is settled.
struct Attempt<'a> {
    closer: &'a Arc<Closer>,
    farewell: Option<Farewell>,
}

impl Attempt<'_> {
    fn ended(mut self, failure: Option<Failure>) {
        if let Some(farewell) = self.farewell.take() {
            self.closer.settle(farewell, failure);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // The runtime has died under the call, or something panicked on the way.
        if let Some(farewell) = self.farewell.take() {
            self.closer.settle(farewell, Some(Failure::Interrupted));
        }
    }
}

impl Inner {
    fn lane(&mut self, turn: Turn) -> &mut Lane {
        &mut self.lanes[turn as usize]
    }

    /// Queues the retries that are due, and says how many they are.
    fn queue_due(&mut self, now: Millis) -> usize {
        let mut count = 0;
        while let Some(farewell) = self.retries.take_due(now) {
            self.lane(Turn::Again).queue.push_back(farewell);
            count += 1;
        }
        count
    }
}

impl fmt::Debug for Closer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        f.debug_struct("Closer")
            .field("queued", &inner.lanes.iter().map(Lane::queued).sum::<usize>())
            .field("lanes", &inner.lanes)
            .field("retrying", &inner.unended.retrying())
            .field("unended", &inner.unended.given_up())
            .field("unclaimed", &self.unclaimed.total())
            .finish_non_exhaustive()
    }
}
