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
    permits::{Full, Permit, WhenFull},
    principal::Principal,
    record::Record,
    registry::{Mode, Registry},
};
use crate::protocol::{ClientInfo, Rejection};

/// Expired sessions closed in one go, so that one unlucky client does not close a million.
const RECLAIM_AT_ONCE: usize = 64;

/// Walks for one that stays idle until it is evicted.
const EVICT_ATTEMPTS: usize = 4;

impl Registry {
    /// Takes a permit and starts a session under it.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        principal: Option<Principal>,
        client: Option<Box<ClientInfo>>,
    ) -> Result<Opening, Rejection> {
        let permit = self.admit(principal.as_ref()).await?;
        Ok(Opening::new(self, principal, client, permit))
    }

    /// As [`begin`](Self::begin), if there is a place without waiting.
    pub(crate) fn begin_now(
        self: &Arc<Self>,
        principal: Option<Principal>,
    ) -> Result<Opening, Rejection> {
        let mut attempt = self.try_admit(principal.as_ref())?;
        // Nobody is evicted for it: the place would not be free before it is asked for.
        if attempt.is_err() && !self.reclaim_expired().is_empty() {
            attempt = self.try_admit(principal.as_ref())?;
        }
        Ok(Opening::new(self, principal, None, attempt.map_err(rejection)?))
    }

    async fn admit(&self, principal: Option<&Principal>) -> Result<Permit, Rejection> {
        let mut full = match self.try_admit(principal)? {
            Ok(permit) => return Ok(permit),
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
                    Ok(permit) => return Ok(permit),
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

    fn try_admit(&self, principal: Option<&Principal>) -> Result<Result<Permit, Full>, Rejection> {
        if self.mode() != Mode::Serving {
            return Err(Rejection::ShuttingDown);
        }
        Ok(self.permits().acquire(principal))
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
