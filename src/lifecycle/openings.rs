//! The sessions that are being opened, so that a close of their principal finds them.
//!
//! An opening is listed in the same step that takes its permit: a close comes before both, or it
//! finds the opening. It leaves the list when it is dropped, after the session stands in the table.
//! A close looks here first and into the table second, so that none slips through in between.

use std::{
    fmt,
    sync::{Arc, PoisonError, Weak},
};

use slab::Slab;

use super::{
    events::CloseReason,
    permits::{Full, Permit, Permits},
    principal::Principal,
    record::Record,
    sync::{Mutex, MutexGuard},
};

#[derive(Default)]
pub(super) struct Openings(Mutex<Slab<Entry>>);

struct Entry {
    principal: Option<Principal>,
    /// Set once the session has a record.
    record: Option<Weak<Record>>,
    /// Set if it was closed before that.
    closed: Option<CloseReason>,
}

/// A permit for a session, and its place in the list.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) permit: Permit,
    pub(super) place: Place,
}

impl Openings {
    pub(super) fn admit(
        self: &Arc<Self>,
        permits: &Arc<Permits>,
        principal: Option<&Principal>,
    ) -> Result<Admitted, Full> {
        let mut entries = self.entries();
        let permit = permits.acquire(principal)?;
        let entry = Entry { principal: principal.cloned(), record: None, closed: None };
        let key = entries.insert(entry);
        drop(entries);
        Ok(Admitted { permit, place: Place { openings: Arc::clone(self), key } })
    }

    /// Those that match, to be closed by the caller, and how many have no record yet: these close
    /// as soon as they have one.
    pub(super) fn matching(
        &self,
        reason: CloseReason,
        matches: impl Fn(Option<&Principal>) -> bool,
    ) -> (Vec<Arc<Record>>, usize) {
        let (mut found, mut marked) = (Vec::new(), 0);
        for (_, entry) in self.entries().iter_mut() {
            if !matches(entry.principal.as_ref()) {
                continue;
            }
            match &entry.record {
                Some(record) => found.extend(record.upgrade()),
                None => marked += usize::from(entry.closed.replace(reason).is_none()),
            }
        }
        (found, marked)
    }

    fn entries(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Openings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Openings").field(&self.entries().len()).finish()
    }
}

/// One place in the list.
#[derive(Debug)]
pub(super) struct Place {
    openings: Arc<Openings>,
    key: usize,
}

impl Place {
    /// Lists the record. The reason, if the session was closed before it had one.
    pub(super) fn fill(&self, record: &Arc<Record>) -> Option<CloseReason> {
        let mut entries = self.openings.entries();
        let entry = entries.get_mut(self.key)?;
        entry.record = Some(Arc::downgrade(record));
        entry.closed
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.openings.entries().try_remove(self.key);
    }
}

#[cfg(all(test, not(mcp_loom)))]
mod tests {
    use super::*;
    use crate::lifecycle::owner::nowhere;

    const REASON: CloseReason = CloseReason::Requested;

    #[test]
    fn an_opening_is_found_by_its_principal_until_it_is_dropped() {
        let (openings, permits) = (Arc::new(Openings::default()), Arc::new(Permits::new(9, None)));
        let alice = Principal::from("alice");
        let record = Arc::new(Record::opening(0, nowhere().find(None.into()), None));
        let hers = openings.admit(&permits, Some(&alice)).unwrap();
        assert_eq!(hers.place.fill(&record), None);
        let anyone = openings.admit(&permits, None).unwrap();
        let find = |who: Option<&Principal>| openings.matching(REASON, |owner| owner == who);
        let (found, marked) = find(Some(&alice));
        assert_eq!((found.len(), marked), (1, 0));
        drop(hers);
        assert!(find(Some(&alice)).0.is_empty());
        drop(anyone);
        assert_eq!((openings.entries().len(), permits.used()), (0, 0));
    }

    #[test]
    fn one_that_has_no_record_yet_learns_once_that_it_is_closed() {
        let (openings, permits) = (Arc::new(Openings::default()), Arc::new(Permits::new(9, None)));
        let admitted = openings.admit(&permits, None).unwrap();
        assert_eq!(openings.matching(REASON, |_| true).1, 1);
        assert_eq!(openings.matching(REASON, |_| true).1, 0, "counted once");
        let record = Arc::new(Record::opening(0, nowhere().find(None.into()), None));
        assert_eq!(admitted.place.fill(&record), Some(REASON));
    }

    #[test]
    fn nothing_is_listed_without_a_permit() {
        let (openings, permits) = (Arc::new(Openings::default()), Arc::new(Permits::new(0, None)));
        assert_eq!(openings.admit(&permits, None).unwrap_err(), Full::Table);
        assert_eq!(openings.entries().len(), 0);
    }
}
