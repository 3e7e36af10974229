//! Telling the server behind that a session is closed, in the background and within bounds.
//!
//! Deciding and telling are apart: when a close gets here, the session is gone from the map, its
//! streams are cut and its event is out. What is left is one call to the server, with a time limit,
//! at most [`WORKERS`] at once. The permit waits in the queue with it: a server that does not answer
//! DELETE fills the cap, not the memory.
//!
//! Workers are tasks that end when the queue is empty. If their runtime dies, the calls under way
//! are dropped (which gives their permits back) and the queue waits for the next [`Closer::kick`].

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{runtime::Handle, time::timeout};

use super::{handle::Session, permits::Permit, shield::shielded};

/// Calls to the server behind at once: so that one that hangs does not keep the others waiting, and
/// no burst for an upstream behind a proxy.
const WORKERS: usize = 64;

/// How the server behind is told that one of its sessions is closed.
///
/// One for all the sessions that were opened at the same place, which whoever made it can tell again.
pub(crate) trait Terminate: Any + Send + Sync {
    /// Tells it. `session` has its id.
    fn terminate(&self, session: Session) -> BoxFuture<'static, Terminated>;

    /// Whether a request to `path` reaches the place where the sessions were opened.
    fn is_at(&self, path: &str) -> bool;
}

/// Shared by a million sessions, each of which keeps one pointer instead of two.
#[derive(Clone)]
pub(crate) struct Terminator(Arc<Box<dyn Terminate>>);

impl Terminator {
    pub(crate) fn new(terminate: impl Terminate + 'static) -> Self {
        Self(Arc::new(Box::new(terminate)))
    }

    pub(crate) fn downgrade(&self) -> WeakTerminator {
        WeakTerminator(Arc::downgrade(&self.0))
    }

    /// What it was made of, if it was that.
    pub(crate) fn made_of<T: Terminate>(&self) -> Option<&T> {
        let made: &dyn Any = &**self.0;
        made.downcast_ref()
    }
}

/// A [`Terminator`] that is kept for whoever comes next, as long as a session has it.
pub(crate) struct WeakTerminator(Weak<Box<dyn Terminate>>);

impl WeakTerminator {
    pub(crate) fn upgrade(&self) -> Option<Terminator> {
        self.0.upgrade().map(Terminator)
    }

    pub(crate) fn is_of_use(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// Tests keep the server that they give away.
#[cfg(any(test, fuzzing))]
impl<T: Terminate + ?Sized> Terminate for Arc<T> {
    fn terminate(&self, session: Session) -> BoxFuture<'static, Terminated> {
        (**self).terminate(session)
    }

    fn is_at(&self, path: &str) -> bool {
        (**self).is_at(path)
    }
}

impl std::ops::Deref for Terminator {
    type Target = dyn Terminate;

    fn deref(&self) -> &Self::Target {
        &**self.0
    }
}

/// What came of telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminated {
    /// It is gone there too, or was never kept, or cannot be ended from outside.
    Done,
    /// An unexpected status.
    Refused(u16),
    /// The call failed.
    Failed,
}

/// A close to be told.
pub(super) struct Farewell {
    pub(super) session: Session,
    pub(super) terminate: Terminator,
    /// Given back when the telling is over.
    pub(super) permit: Option<Permit>,
    /// Set instead of a permit if there was no place to be had for the session.
    pub(super) stray: Option<Stray>,
}

/// One session of the server behind that no permit counts.
pub(super) struct Stray(Arc<Closer>);

impl Drop for Stray {
    fn drop(&mut self) {
        self.0.strays.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) struct Closer {
    limit: Duration,
    inner: Mutex<Inner>,
    failures: AtomicU64,
    strays: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Farewell>,
    workers: usize,
    /// Where sessions were last opened: closes may come from outside of any runtime.
    runtime: Option<Handle>,
}

impl Closer {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            inner: Mutex::default(),
            failures: AtomicU64::new(0),
            strays: AtomicUsize::new(0),
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Sessions that are being closed without a permit.
    pub(super) fn strays(&self) -> usize {
        self.strays.load(Ordering::Acquire)
    }

    pub(super) fn stray(self: &Arc<Self>) -> Stray {
        self.strays.fetch_add(1, Ordering::AcqRel);
        Stray(Arc::clone(self))
    }

    pub(super) fn push(self: &Arc<Self>, farewell: Farewell) {
        self.inner().queue.push_back(farewell);
        self.kick();
    }

    /// Sees to it that a worker is there if there is work.
    pub(super) fn kick(self: &Arc<Self>) {
        let current = Handle::try_current().ok();
        let (runtime, worker) = {
            let mut inner = self.inner();
            if current.is_some() {
                inner.runtime = current;
            }
            if inner.queue.is_empty() || inner.workers >= WORKERS {
                return;
            }
            let Some(runtime) = inner.runtime.clone() else {
                return;
            };
            inner.workers += 1;
            (runtime, Worker { closer: Arc::clone(self), retired: false })
        };
        runtime.spawn(worker.run());
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, farewell: Farewell) {
        let Farewell { session, terminate, permit, stray } = farewell;
        let name = session.fingerprint();
        let Some(call) = shielded("terminate", || terminate.terminate(session)) else {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let outcome = timeout(self.limit, AssertUnwindSafe(call).catch_unwind()).await;
        let failure = match outcome {
            Ok(Ok(Terminated::Done)) => None,
            Ok(Ok(Terminated::Refused(status))) => Some(format!("answered {status}")),
            Ok(Ok(Terminated::Failed)) => Some("the call failed".to_owned()),
            Ok(Err(_)) => Some("panicked".to_owned()),
            Err(_) => Some(format!("no answer within {:?}", self.limit)),
        };
        if let Some(failure) = failure {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(session = %name, failure, "the server behind may still have the session");
        }
        drop((permit, stray));
    }
}

/// One place among the workers, given back however its task ends.
struct Worker {
    closer: Arc<Closer>,
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
        let farewell = inner.queue.pop_front();
        if farewell.is_none() {
            inner.workers -= 1;
            self.retired = true;
        }
        farewell
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.retired {
            self.closer.inner().workers -= 1;
        }
    }
}

impl fmt::Debug for Closer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        f.debug_struct("Closer")
            .field("queued", &inner.queue.len())
            .field("workers", &inner.workers)
            .field("strays", &self.strays)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mcp_loom)))]
mod tests {
    use super::*;
    use crate::lifecycle::{
        events::CloseReason,
        registry::Registry,
        testing::{Answer, LIMITS, NEVER, Server, open},
    };

    /// Closes `count` sessions of a server that answers like this; failures and permits out, once
    /// all that can happen within `wait` has.
    async fn close(answer: Answer, count: usize, wait: Duration) -> (u64, usize, usize) {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let server = Server::new(answer);
        for id in 0..count {
            let in_flight = open(&registry, &id.to_string(), &server);
            assert!(registry.close(in_flight.record(), CloseReason::Requested));
        }
        tokio::time::sleep(wait).await;
        let calls = server.calls.load(Ordering::SeqCst);
        (registry.closer().failures(), registry.permits().used(), calls)
    }

    const SHORTLY: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn what_the_server_answers_decides_whether_it_counts_as_told() {
        let refused = Answer::With(Terminated::Refused(500));
        assert_eq!(close(Answer::With(Terminated::Done), 3, SHORTLY).await, (0, 0, 3));
        assert_eq!(close(refused, 3, SHORTLY).await, (3, 0, 3));
        assert_eq!(close(Answer::With(Terminated::Failed), 3, SHORTLY).await, (3, 0, 3));
        assert_eq!(close(Answer::Panic, 3, SHORTLY).await, (3, 0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up_64_at_a_time() {
        let limit = LIMITS.close_timeout;
        assert_eq!(close(Answer::Never, 100, SHORTLY).await, (0, 100, 64));
        assert_eq!(close(Answer::Never, 100, limit - SHORTLY).await, (0, 100, 64));
        assert_eq!(close(Answer::Never, 100, limit + SHORTLY).await, (64, 36, 100));
        assert_eq!(close(Answer::Never, 100, 2 * limit + SHORTLY).await, (100, 0, 100));
    }

    #[test]
    fn what_was_closed_outside_of_a_runtime_is_told_by_the_next() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let server = Server::new(Answer::With(Terminated::Done));
        let in_flight = open(&registry, "a", &server);
        registry.close(in_flight.record(), CloseReason::Requested);
        assert_eq!((registry.permits().used(), server.calls.load(Ordering::SeqCst)), (1, 0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            registry.closer().kick();
            tokio::task::yield_now().await;
        });
        assert_eq!((registry.permits().used(), server.calls.load(Ordering::SeqCst)), (0, 1));
    }

    #[test]
    fn calls_that_die_with_their_runtime_give_their_places_back() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let server = Server::new(Answer::Never);
        for round in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.unwrap().block_on(async {
                for id in 0..64 {
                    let in_flight = open(&registry, &format!("{round}-{id}"), &server);
                    registry.close(in_flight.record(), CloseReason::Requested);
                }
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            });
            assert_eq!(server.calls.load(Ordering::SeqCst), 64 * (round + 1));
            assert_eq!(registry.permits().used(), 0, "dropped with the runtime");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_without_a_place_are_counted_until_they_are_told() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let server = Server::new(Answer::Never);
        for id in 0..256 {
            assert!(!registry.is_swamped(), "after {id}");
            let id = crate::protocol::SessionId::new(id.to_string()).unwrap();
            registry.turn_away(id, Terminator::new(Arc::clone(&server)));
        }
        assert!(registry.is_swamped());
        tokio::time::sleep(LIMITS.close_timeout + SHORTLY).await;
        assert_eq!(registry.closer().strays(), 192);
        assert!(!registry.is_swamped());
    }
}
