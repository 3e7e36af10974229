//! The cap: live + opening + closing sessions never exceed it, not even for a moment.
//!
//! # Ground rules
//!
//! * A [`Permit`] is one place under the cap. It is taken before the server behind hears of a new
//!   session and given back, by dropping it, when the server has been told of the close or that was
//!   given up. It travels opening -> record -> closer; wherever it is dropped, the counts are right.
//! * The three counts of a cap are one word, so their sum is exact at any moment:
//!
//! ```text
//! [ closing : 21 | live : 21 | opening : 21 ]
//! ```
//!
//! * Whoever waits for a permit waits for one that is closing. There are never more who wait than
//!   closes under way: the others are told at once that there is no place.

use std::sync::Arc;

use dashmap::{DashMap, Entry};
use tokio::sync::{Notify, futures::Notified};

use super::{
    principal::Principal,
    shield::shielded,
    sync::{AtomicU64, AtomicUsize, Ordering},
};

/// Bits of one count.
const WIDTH: u32 = 21;

/// The highest cap that can be counted, and more than a machine holds.
const MOST: usize = (1 << WIDTH) - 1;

/// Each who waits may hold a request body; the rest is refused.
const LONGEST_QUEUE: usize = 256;

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

/// The counts of one cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts(u64);

impl Counts {
    const fn one(stage: Stage) -> u64 {
        1 << (WIDTH * stage as u32)
    }

    fn of(self, stage: Stage) -> usize {
        (self.0 >> (WIDTH * stage as u32)) as usize & MOST
    }

    fn total(self) -> usize {
        self.of(Stage::Opening) + self.of(Stage::Live) + self.of(Stage::Closing)
    }
}

/// What one principal has.
#[derive(Debug, Default)]
struct Share {
    counts: Counts,
    waiting: usize,
}

pub(crate) struct Permits {
    max: usize,
    max_per_principal: Option<usize>,
    counts: AtomicU64,
    waiting: AtomicUsize,
    shares: DashMap<Principal, Share, foldhash::fast::RandomState>,
    released: Notify,
}

impl Permits {
    pub(crate) fn new(max: usize, max_per_principal: Option<usize>) -> Self {
        Self {
            max: max.min(MOST),
            max_per_principal: max_per_principal.map(|max| max.min(MOST)),
            counts: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            shares: DashMap::default(),
            released: Notify::new(),
        }
    }

    pub(crate) fn acquire(self: &Arc<Self>, principal: Option<&Principal>) -> Result<Permit, Full> {
        // The principal first: a place in the table that is taken and given back would be missed by
        // others meanwhile, and would wake those who wait for one, the caller included.
        let principal = principal.zip(self.max_per_principal);
        if let Some((principal, max)) = principal {
            self.enlist(principal, max)
                .map_err(|full| if self.used() < self.max { full } else { Full::Table })?;
        }
        let place = self.counts.fetch_update(Ordering::AcqRel, Ordering::Acquire, |counts| {
            (Counts(counts).total() < self.max).then_some(counts + Counts::one(Stage::Opening))
        });
        let principal = principal.map(|(principal, _)| principal);
        if place.is_err() {
            self.change(principal, |share| share.counts.0 -= Counts::one(Stage::Opening));
            return Err(Full::Table);
        }
        Ok(Permit {
            permits: Arc::clone(self),
            principal: principal.cloned(),
            stage: Stage::Opening,
            stowed: false,
        })
    }

    /// Permits out.
    pub(crate) fn used(&self) -> usize {
        self.counts().total()
    }

    pub(crate) fn count(&self, stage: Stage) -> usize {
        self.counts().of(stage)
    }

    /// Opening, live and closing, as they are at one moment.
    pub(crate) fn stages(&self) -> [usize; 3] {
        let counts = self.counts();
        [Stage::Opening, Stage::Live, Stage::Closing].map(|stage| counts.of(stage))
    }

    /// Resolves when a permit comes back.
    pub(crate) fn released(&self) -> Notified<'_> {
        self.released.notified()
    }

    /// A place among those who wait for a permit under this cap, if one is about to come back that
    /// nobody waits for.
    pub(crate) fn queue<'a>(
        &'a self,
        full: Full,
        principal: Option<&'a Principal>,
    ) -> Option<Waiting<'a>> {
        let in_line = |waiting: usize, closing: usize| waiting < closing.min(LONGEST_QUEUE);
        let of = principal.filter(|_| full == Full::Principal);
        match of {
            None => self
                .waiting
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
                    in_line(waiting, self.count(Stage::Closing)).then_some(waiting + 1)
                })
                .ok()
                .map(drop)?,
            Some(principal) => {
                let mut share = self.shares.get_mut(principal)?;
                if !in_line(share.waiting, share.counts.of(Stage::Closing)) {
                    return None;
                }
                share.waiting += 1;
            }
        }
        Some(Waiting { permits: self, of })
    }

    fn counts(&self) -> Counts {
        Counts(self.counts.load(Ordering::Acquire))
    }

    fn enlist(&self, principal: &Principal, max: usize) -> Result<(), Full> {
        let mut share = self.shares.entry(principal.clone()).or_default();
        if share.counts.total() >= max {
            return Err(Full::Principal);
        }
        share.counts.0 += Counts::one(Stage::Opening);
        Ok(())
    }

    /// Changes what a principal has, and forgets it if that is nothing.
    fn change(&self, principal: Option<&Principal>, change: impl FnOnce(&mut Share)) {
        let Some(principal) = principal else { return };
        if let Entry::Occupied(mut entry) = self.shares.entry(principal.clone()) {
            let share = entry.get_mut();
            change(share);
            if share.counts.total() == 0 && share.waiting == 0 {
                entry.remove();
            }
        }
    }
}

impl std::fmt::Debug for Permits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permits")
            .field("max", &self.max)
            .field("counts", &self.counts())
            .field("waiting", &self.waiting)
            .field("shares", &self.shares.len())
            .finish_non_exhaustive()
    }
}

/// One place under the cap, and under its principal's.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    /// Set if this permit counts for a principal.
    principal: Option<Principal>,
    stage: Stage,
    stowed: bool,
}

impl Permit {
    /// Takes the permit apart: of a million, only the stage is kept. Whoever has it owes an
    /// [`unstow`](Self::unstow).
    pub(super) fn stow(mut self) -> Stage {
        self.stowed = true;
        self.stage
    }

    /// The permit of a session of `principal` that was stowed at `stage`.
    pub(super) fn unstow(
        permits: &Arc<Permits>,
        principal: Option<&Principal>,
        stage: Stage,
    ) -> Self {
        let principal = principal.filter(|_| permits.max_per_principal.is_some()).cloned();
        Self { permits: Arc::clone(permits), principal, stage, stowed: false }
    }

    pub(crate) fn advance(&mut self, to: Stage) {
        // One addition from one count to another: the sum does not move in between.
        let step = Counts::one(to).wrapping_sub(Counts::one(self.stage));
        self.permits.counts.fetch_add(step, Ordering::AcqRel);
        self.permits.change(self.principal.as_ref(), |share| {
            share.counts.0 = share.counts.0.wrapping_add(step);
        });
        self.stage = to;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.stowed {
            return;
        }
        let one = Counts::one(self.stage);
        self.permits.change(self.principal.as_ref(), |share| share.counts.0 -= one);
        self.permits.counts.fetch_sub(one, Ordering::AcqRel);
        shielded("waker", || self.permits.released.notify_waiters());
    }
}

/// One who waits for a permit.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    permits: &'a Permits,
    of: Option<&'a Principal>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        match self.of {
            None => drop(self.permits.waiting.fetch_sub(1, Ordering::AcqRel)),
            of => self.permits.change(of, |share| share.waiting -= 1),
        }
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
        first.advance(Stage::Closing);
        assert_eq!((permits.used(), permits.count(Stage::Closing)), (2, 1));
        drop((first, second));
        assert_eq!(permits.counts(), Counts(0));
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
        assert_eq!(permits.shares.len(), 1, "a share of nothing is not kept");
    }

    #[test]
    fn as_many_wait_as_are_closing_and_each_for_its_own() {
        let permits = Arc::new(Permits::new(2, Some(1)));
        let (alice, bob) = (Principal::from("alice"), Principal::from("bob"));
        let mut closing = permits.acquire(Some(&alice)).unwrap();
        let _live = permits.acquire(Some(&bob)).unwrap();
        assert!(permits.queue(Full::Table, None).is_none());
        closing.advance(Stage::Live);
        closing.advance(Stage::Closing);
        let first = permits.queue(Full::Table, None);
        assert!(first.is_some() && permits.queue(Full::Table, Some(&bob)).is_none());
        assert!(permits.queue(Full::Principal, Some(&bob)).is_none());
        let own = permits.queue(Full::Principal, Some(&alice));
        assert!(own.is_some() && permits.queue(Full::Principal, Some(&alice)).is_none());
        drop((first, own, closing));
        assert!(!permits.shares.contains_key(&alice));
    }

    #[test]
    fn a_permit_that_was_stowed_counts_until_it_was_taken_out_and_dropped() {
        for max_per_principal in [None, Some(1)] {
            let permits = Arc::new(Permits::new(2, max_per_principal));
            let alice = Principal::from("alice");
            let stage = permits.acquire(Some(&alice)).unwrap().stow();
            assert_eq!(permits.stages(), [1, 0, 0]);
            assert_eq!(permits.acquire(Some(&alice)).is_err(), max_per_principal.is_some());
            let mut permit = Permit::unstow(&permits, Some(&alice), stage);
            permit.advance(Stage::Live);
            assert_eq!(permits.stages(), [0, 1, 0]);
            drop(permit);
            assert_eq!((permits.used(), permits.shares.len()), (0, 0));
        }
    }

    #[test]
    fn the_three_stages_are_counted_apart_and_in_order() {
        let permits = Arc::new(Permits::new(9, None));
        let mut all: Vec<_> = (0..6).map(|_| permits.acquire(None).unwrap()).collect();
        all[3..].iter_mut().for_each(|permit| permit.advance(Stage::Live));
        all[5].advance(Stage::Closing);
        assert_eq!(permits.stages(), [3, 2, 1]);
        assert_eq!(permits.used(), 6);
    }

    #[test]
    fn a_cap_that_cannot_be_counted_is_the_highest_that_can() {
        let permits = Permits::new(usize::MAX, Some(usize::MAX));
        assert_eq!((permits.max, permits.max_per_principal), (MOST, Some(MOST)));
    }

    #[test]
    fn a_full_table_is_what_is_in_the_way_and_leaves_no_share() {
        let permits = Arc::new(Permits::new(2, Some(1)));
        let (alice, bob) = (Principal::from("alice"), Principal::from("bob"));
        let _held = (permits.acquire(Some(&alice)).unwrap(), permits.acquire(None).unwrap());
        assert_eq!(permits.acquire(Some(&alice)).unwrap_err(), Full::Table);
        assert_eq!(permits.acquire(Some(&bob)).unwrap_err(), Full::Table);
        assert!(!permits.shares.contains_key(&bob));
    }

    #[test]
    fn a_place_in_the_queue_comes_back_and_no_queue_is_longer_than_256() {
        let permits = Arc::new(Permits::new(400, Some(300)));
        let alice = Principal::from("alice");
        let mut closing: Vec<_> =
            (0..300).map(|_| permits.acquire(Some(&alice)).unwrap()).collect();
        closing.iter_mut().for_each(|permit| permit.advance(Stage::Closing));
        for (full, principal) in [(Full::Table, None), (Full::Principal, Some(&alice))] {
            let waiting: Vec<_> =
                std::iter::from_fn(|| permits.queue(full, principal)).take(300).collect();
            assert_eq!(waiting.len(), LONGEST_QUEUE, "{full:?}");
            drop(waiting);
            assert!(permits.queue(full, principal).is_some());
        }
    }

    #[test]
    fn a_permit_that_comes_back_wakes_all_who_wait() {
        use futures_util::FutureExt;
        let permits = Arc::new(Permits::new(1, None));
        let held = permits.acquire(None).unwrap();
        let mut waiting = [Box::pin(permits.released()), Box::pin(permits.released())];
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        drop(held);
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_some()));
    }
}
