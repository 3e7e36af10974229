//! Telling the server behind that a session is closed, in the background and within bounds.
//!
//! Deciding and telling are apart: when a close gets here, the session is gone from the map, its
//! streams are cut and its event is out. What is left is one call to the server, with a time limit,
//! at most [`WORKERS`] at once. The permit waits in the queue with it: a server that does not answer
//! DELETE fills the cap, not the memory.
//!
//! Workers are tasks that end when the queue is empty. If their runtime dies, the calls under way
//! are dropped (which gives their permits back) and the queue waits for the next [`Closer::kick`].

mod farewell;
mod terminate;
mod unclaimed;

use std::{
    collections::VecDeque,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{runtime::Handle, time::timeout};

pub(in crate::lifecycle) use self::farewell::Farewell;
pub(crate) use self::terminate::{Terminate, Terminated, Terminator, WeakTerminator};
use self::unclaimed::{Counted, Unclaimed};
use super::{principal::Principal, shield::shielded};

/// Calls to the server behind at once: so that one that hangs does not keep the others waiting, and
/// no burst for an upstream behind a proxy.
const WORKERS: usize = 64;

pub(super) struct Closer {
    limit: Duration,
    inner: Mutex<Inner>,
    failures: AtomicU64,
    unclaimed: Arc<Unclaimed>,
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
            unclaimed: Arc::default(),
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Endings under way of sessions of this principal that no permit counts.
    pub(super) fn unclaimed(&self, principal: Option<&Principal>) -> usize {
        self.unclaimed.count(principal)
    }

    pub(super) fn count_unclaimed(&self, principal: Option<Principal>) -> Counted {
        self.unclaimed.add(principal)
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
        let name = farewell.session.fingerprint();
        let call = || farewell.terminate.terminate(farewell.session.clone());
        let Some(call) = shielded("terminate", call) else {
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
        drop(farewell);
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
            .field("unclaimed", &self.unclaimed)
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

    fn end_unclaimed(
        registry: &Registry,
        id: usize,
        server: &Arc<Server>,
        who: Option<&Principal>,
    ) {
        let id = crate::protocol::SessionId::new(id.to_string()).unwrap();
        registry.end_unclaimed(id, Terminator::new(Arc::clone(server)), who);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_without_a_permit_are_counted_per_principal_until_the_server_was_told() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let server = Server::new(Answer::Never);
        let alice = Principal::from("alice");
        for id in 0..100 {
            end_unclaimed(&registry, id, &server, Some(&alice));
        }
        assert_eq!((registry.unclaimed(Some(&alice)), registry.unclaimed(None)), (100, 0));
        tokio::time::sleep(LIMITS.close_timeout + SHORTLY).await;
        assert_eq!(registry.unclaimed(Some(&alice)), 36, "64 have had their time");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_risked_for_the_anonymous_at_256_without_a_permit() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let server = Server::new(Answer::Never);
        for id in 0..256 {
            assert!(!registry.is_swamped(), "after {id}");
            let id = crate::protocol::SessionId::new(id.to_string()).unwrap();
            registry.turn_away(id, Terminator::new(Arc::clone(&server)));
        }
        assert!(registry.is_swamped());
        tokio::time::sleep(LIMITS.close_timeout + SHORTLY).await;
        assert!(!registry.is_swamped());
    }

    #[test]
    fn a_session_without_a_permit_that_no_runtime_tells_keeps_nothing_alive() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let server = Server::new(Answer::With(Terminated::Done));
        end_unclaimed(&registry, 0, &server, None);
        assert_eq!(registry.unclaimed(None), 1);
        drop(registry);
        assert_eq!(Arc::strong_count(&server), 1, "the queue went with the registry");
    }
}
