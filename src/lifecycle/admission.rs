//! A place for a new session, or the reason why there is none.
//!
//! At the cap, in this order: reclaim what has expired, evict if that is wanted, wait for closes
//! that are under way (their permits are about to come back), refuse.

use std::sync::Arc;

use tokio::time::timeout;

use super::{
    activity::Word,
    clock::Millis,
    deadline::Verdict,
    opening::Opening,
    openings::Admitted,
    owner::Opener,
    permits::{Full, WhenFull},
    principal::Principal,
    record::Record,
    registry::{Mode, Registry},
};
use crate::protocol::Rejection;

/// Expired sessions closed in one go, so that one unlucky client does not close a million.
const RECLAIM_AT_ONCE: usize = 64;

/// Walks for one that stays idle until it is evicted.
const EVICT_ATTEMPTS: usize = 4;

impl Registry {
    /// Takes a permit and starts a session under it.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        opener: impl Into<Opener>,
    ) -> Result<Opening, Rejection> {
        let opener = opener.into();
        let admitted = self.admit(opener.principal.as_ref()).await?;
        Ok(Opening::new(self, self.owners().find(opener), admitted))
    }

    /// As [`begin`](Self::begin), if there is a place without waiting.
    pub(crate) fn begin_now(
        self: &Arc<Self>,
        opener: impl Into<Opener>,
    ) -> Result<Opening, Rejection> {
        let opener = opener.into();
        let principal = opener.principal.as_ref();
        let mut attempt = self.try_admit(principal)?;
        // Nobody is evicted for it: the place would not be free before it is asked for.
        if attempt.is_err() && !self.reclaim_expired().is_empty() {
            attempt = self.try_admit(principal)?;
        }
        let admitted = attempt.map_err(rejection)?;
        Ok(Opening::new(self, self.owners().find(opener), admitted))
    }

    async fn admit(&self, principal: Option<&Principal>) -> Result<Admitted, Rejection> {
        let mut full = match self.try_admit(principal)? {
            Ok(admitted) => return Ok(admitted),
            Err(full) => full,
        };
        // What is closing may have been left by a runtime that died: it is told on ours.
        self.closer().kick();
        let waited = timeout(self.closer().limit(), async {
            loop {
                // Armed before the attempt: a permit that comes back in between wakes us.
                let released = self.permits().released();
                tokio::pin!(released);
                released.as_mut().enable();
                full = match self.try_admit(principal)? {
                    Ok(admitted) => return Ok(admitted),
                    Err(full) => full,
                };
                // One session closed is one permit to come. Whoever is woken by another's waits
                // again, and closes no second one.
                if let Some(_waiting) = self.permits().queue(full, principal) {
                    released.await;
                } else if !self.make_room(full, principal) {
                    return Err(rejection(full));
                }
            }
        });
        let waited = waited.await;
        waited.unwrap_or(Err(rejection(full)))
    }

    fn try_admit(
        &self,
        principal: Option<&Principal>,
    ) -> Result<Result<Admitted, Full>, Rejection> {
        if self.mode() != Mode::Serving {
            return Err(Rejection::ShuttingDown);
        }
        Ok(self.openings().admit(self.permits(), principal))
    }

    /// True if a session was closed whose permit we may get.
    fn make_room(&self, full: Full, principal: Option<&Principal>) -> bool {
        let reclaimed = self.reclaim_expired();
        let helps = |record: &Arc<Record>| full == Full::Table || record.principal() == principal;
        reclaimed.iter().any(helps)
            || self.limits().when_full == WhenFull::EvictIdle && self.evict_idle(principal)
    }

    /// Closes what has expired and the reaper has not come to.
    ///
    /// Walks the table, but not again before anything can have expired since: deadlines only move
    /// away, and a session opened meanwhile lowers the mark. A flood at the cap pays for a lock.
    fn reclaim_expired(&self) -> Vec<Arc<Record>> {
        // One walk at a time: who comes second finds what the first has found out.
        let mut reclaim_at = self.reclaim_at();
        let now = self.clock().now();
        if now < *reclaim_at {
            return Vec::new();
        }
        let mut expired = Vec::new();
        let mut next = Millis::MAX;
        self.scan(|record| match self.timeouts().verdict(record.word(), record.opened_at(), now) {
            Verdict::LookAgain(at) => next = next.min(at.unwrap_or(Millis::MAX)),
            _ if expired.len() < RECLAIM_AT_ONCE => expired.push(Arc::clone(record)),
            _ => next = now,
        });
        *reclaim_at = next;
        drop(reclaim_at);
        for record in &expired {
            if let Some(at) = self.look_at(record) {
                self.expect_expiry(at);
            }
        }
        expired
    }

    /// Closes the longest idle session of the same principal, if one is idle.
    fn evict_idle(&self, principal: Option<&Principal>) -> bool {
        // The one that was found may have been used meanwhile; then another is the longest idle.
        (0..EVICT_ATTEMPTS).any(|_| {
            self.longest_idle(principal).is_some_and(|(word, record)| self.evict(&record, word))
        })
    }

    fn longest_idle(&self, principal: Option<&Principal>) -> Option<(Word, Arc<Record>)> {
        let mut longest: Option<(Word, Arc<Record>)> = None;
        self.scan(|record| {
            let word = record.word();
            let eligible =
                !word.is_closed() && word.in_flight() == 0 && record.principal() == principal;
            let since = |word: Word| word.last_activity();
            if eligible && longest.as_ref().is_none_or(|(longest, _)| since(word) < since(*longest))
            {
                longest = Some((word, Arc::clone(record)));
            }
        });
        longest
    }
}

fn rejection(full: Full) -> Rejection {
    match full {
        Full::Table => Rejection::TableFull,
        Full::Principal => Rejection::TooManySessions,
    }
}

#[cfg(test)]
#[cfg(not(mcp_loom))]
mod tests {
    use std::sync::atomic::AtomicU64;

    use futures_util::FutureExt;

    use super::*;
    use crate::{
        lifecycle::{
            activity::Exit,
            clock::mock::Mock,
            closer::{Terminated, Terminator},
            deadline::Timeouts,
            events::CloseReason,
            opening::Issuer,
            registry::Limits,
            testing::{Answer, LIMITS, NEVER, Server},
        },
        protocol::SessionId,
    };

    const IDLE: Timeouts = Timeouts { idle: Some(100), ..NEVER };

    fn registry(clock: Mock, max_sessions: usize, when_full: WhenFull) -> Arc<Registry> {
        let limits = Limits { max_sessions, when_full, ..LIMITS };
        Registry::on(clock.clock(), IDLE, limits, Vec::new())
    }

    /// A session whose permit comes back as soon as it is closed, used and idle.
    fn open(registry: &Arc<Registry>, id: &str, principal: Option<&Principal>) {
        let opening = registry.begin_now(principal.cloned()).unwrap();
        let server = Terminator::new(Server::new(Answer::With(Terminated::Done)));
        let id = SessionId::new(id).unwrap();
        drop(opening.complete(id, Issuer::Layer, server, Exit::Touch).unwrap());
    }

    fn closed(registry: &Registry) -> [u64; 2] {
        let closed = registry.stats().closed;
        [closed.get(CloseReason::Idle), closed.get(CloseReason::Evicted)]
    }

    #[test]
    fn at_the_cap_what_has_expired_makes_room_for_64_and_what_is_live_does_not() {
        static TIME: AtomicU64 = AtomicU64::new(0);
        let clock = Mock::new(&TIME);
        let registry = registry(clock, 100, WhenFull::Reject);
        (0..100).for_each(|n| open(&registry, &n.to_string(), None));
        assert_eq!(registry.begin_now(None).unwrap_err(), Rejection::TableFull);
        clock.advance(99);
        assert_eq!(registry.begin_now(None).unwrap_err(), Rejection::TableFull);
        assert_eq!(closed(&registry), [0, 0]);
        clock.advance(1);
        let opening = registry.begin_now(None).unwrap();
        assert_eq!(closed(&registry), [64, 0], "and no more, for the sake of who asked");
        drop(opening);
        (100..164).for_each(|n| open(&registry, &n.to_string(), None));
        assert_eq!(closed(&registry), [64, 0], "there was room");
        open(&registry, "another", None);
        assert_eq!(closed(&registry), [100, 0], "the rest");
    }

    #[tokio::test(start_paused = true)]
    async fn a_principal_at_its_cap_gets_the_place_of_its_own_expired_session() {
        static TIME: AtomicU64 = AtomicU64::new(0);
        let clock = Mock::new(&TIME);
        let limits = Limits { max_sessions_per_principal: Some(1), ..LIMITS };
        let registry = Registry::on(clock.clock(), IDLE, limits, Vec::new());
        let (alice, bob) = (Principal::from("alice"), Principal::from("bob"));
        open(&registry, "a", Some(&alice));
        clock.advance(50);
        open(&registry, "b", Some(&bob));
        let begin = |who: &Principal| registry.begin(Some(who.clone())).now_or_never();
        assert_eq!(begin(&alice).unwrap().unwrap_err(), Rejection::TooManySessions);
        clock.advance(50);
        assert_eq!(begin(&bob).unwrap().unwrap_err(), Rejection::TooManySessions);
        assert_eq!(closed(&registry), [1, 0], "alice's, which was in nobody's way");
        open(&registry, "a", Some(&alice));
        clock.advance(100);
        assert!(begin(&alice).unwrap().is_ok(), "her own had expired");
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_is_evicted_first_wherever_it_stands_in_the_table() {
        static TIME: AtomicU64 = AtomicU64::new(0);
        let clock = Mock::new(&TIME);
        let registry = registry(clock, 16, WhenFull::EvictIdle);
        for n in 0..16 {
            open(&registry, &n.to_string(), None);
            clock.advance(1);
        }
        for n in 0..16 {
            drop(registry.begin(None).now_or_never().unwrap().unwrap());
            assert!(registry.find(n.to_string().as_bytes()).is_none(), "{n} was idle for longest");
            assert_eq!(closed(&registry), [0, n + 1]);
            open(&registry, &format!("{n}-again"), None);
        }
    }
}
