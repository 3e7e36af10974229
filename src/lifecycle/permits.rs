//! The cap: live + opening + closing sessions never exceed it, not even for a moment.
//!
//! A [`Permit`] is one place under the cap. It is taken before the server behind hears of a new
//! session and given back, by dropping it, when the server has been told of the close or that was
//! given up. It travels opening -> record -> closer; wherever it is dropped, the counts are right.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dashmap::{DashMap, Entry};
use tokio::sync::{Notify, futures::Notified};

use super::principal::Principal;

/// What to do when a cap is reached and nothing expired can be reclaimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// Refuse: 503 for a full table, 429 for a principal at its cap. The default, because closing
    /// one client's session for another's sake is a choice only the operator can make.
    #[default]
    Reject,
    /// Close the session that has been idle longest and has nothing in flight, among those of the
    /// same principal (anonymous sessions count as one). Finding it walks the whole table.
    EvictIdle,
}

/// Which cap was in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Table,
    Principal,
}

/// Which part of its life a permit is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Opening,
    Live,
    Closing,
}

#[derive(Debug)]
pub(crate) struct Permits {
    max: usize,
    max_per_principal: Option<usize>,
    used: AtomicUsize,
    stages: [AtomicUsize; 3],
    by_principal: DashMap<Principal, usize, foldhash::fast::RandomState>,
    released: Notify,
}

impl Permits {
    pub(crate) fn new(max: usize, max_per_principal: Option<usize>) -> Self {
        Self {
            max,
            max_per_principal,
            used: AtomicUsize::new(0),
            stages: Default::default(),
            by_principal: DashMap::default(),
            released: Notify::new(),
        }
    }

    pub(crate) fn acquire(self: &Arc<Self>, principal: Option<&Principal>) -> Result<Permit, Full> {
        // The principal first: a place in the table that is taken and given back would be missed by
        // others meanwhile, and would wake those who wait for one, the caller included.
        let principal = principal.filter(|_| self.max_per_principal.is_some());
        if let Some(principal) = principal {
            self.enlist(principal)?;
        }
        let place = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            (used < self.max).then_some(used + 1)
        });
        if place.is_err() {
            if let Some(principal) = principal {
                self.delist(principal.clone());
            }
            return Err(Full::Table);
        }
        self.stage(Stage::Opening).fetch_add(1, Ordering::AcqRel);
        Ok(Permit {
            permits: Arc::clone(self),
            principal: principal.cloned(),
            stage: Stage::Opening,
        })
    }

    /// Permits out.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn count(&self, stage: Stage) -> usize {
        self.stage(stage).load(Ordering::Acquire)
    }

    /// Resolves when a permit comes back.
    pub(crate) fn released(&self) -> Notified<'_> {
        self.released.notified()
    }

    fn stage(&self, stage: Stage) -> &AtomicUsize {
        &self.stages[stage as usize]
    }

    fn enlist(&self, principal: &Principal) -> Result<(), Full> {
        let max = self.max_per_principal.unwrap_or(usize::MAX);
        match self.by_principal.entry(principal.clone()) {
            Entry::Occupied(mut entry) if *entry.get() < max => *entry.get_mut() += 1,
            Entry::Occupied(_) => return Err(Full::Principal),
            Entry::Vacant(entry) => drop(entry.insert(1)),
        }
        Ok(())
    }

    fn delist(&self, principal: Principal) {
        if let Entry::Occupied(mut entry) = self.by_principal.entry(principal) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// One place under the cap, and under its principal's.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    /// Set if this permit counts for a principal.
    principal: Option<Principal>,
    stage: Stage,
}

impl Permit {
    pub(crate) fn advance(&mut self, to: Stage) {
        self.permits.stage(to).fetch_add(1, Ordering::AcqRel);
        self.permits.stage(self.stage).fetch_sub(1, Ordering::AcqRel);
        self.stage = to;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(principal) = self.principal.take() {
            self.permits.delist(principal);
        }
        self.permits.stage(self.stage).fetch_sub(1, Ordering::AcqRel);
        self.permits.used.fetch_sub(1, Ordering::AcqRel);
        self.permits.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_stop_at_the_cap_and_come_back_when_dropped() {
        let permits = Arc::new(Permits::new(2, None));
        let mut first = permits.acquire(None).unwrap();
        let second = permits.acquire(None).unwrap();
        assert_eq!(permits.acquire(None).unwrap_err(), Full::Table);
        first.advance(Stage::Live);
        assert_eq!((permits.count(Stage::Opening), permits.count(Stage::Live)), (1, 1));
        drop((first, second));
        assert_eq!(permits.used(), 0);
        assert!([Stage::Opening, Stage::Live, Stage::Closing].map(|s| permits.count(s)) == [0; 3]);
    }

    #[test]
    fn a_principal_at_its_cap_takes_nothing_from_the_table() {
        let permits = Arc::new(Permits::new(10, Some(1)));
        let (alice, bob) = (Principal::from("alice"), Principal::from("bob"));
        let held = permits.acquire(Some(&alice)).unwrap();
        assert_eq!(permits.acquire(Some(&alice)).unwrap_err(), Full::Principal);
        assert_eq!(permits.used(), 1);
        let _bob = permits.acquire(Some(&bob)).unwrap();
        let _anyone = (permits.acquire(None).unwrap(), permits.acquire(None).unwrap());
        drop(held);
        assert!(permits.acquire(Some(&alice)).is_ok());
        assert_eq!(permits.by_principal.len(), 1, "a count of zero is not kept");
    }
}
