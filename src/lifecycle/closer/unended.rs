//! Sessions that the upstream server may still have, for the operator.

use std::collections::{BTreeMap, VecDeque};

use crate::lifecycle::snapshot::UnendedSession;

/// Given up and still listed; older ones are only counted.
const LISTED: usize = 256;

/// Identifies a session among those that are retried, in the order of their first failure.
pub(super) type Serial = u64;

#[derive(Default)]
pub(super) struct Unended {
    next: Serial,
    /// Waiting, queued or under way.
    retrying: BTreeMap<Serial, UnendedSession>,
    given_up: VecDeque<UnendedSession>,
    count: u64,
}

impl Unended {
    /// An attempt failed, and there will be another.
    pub(super) fn retry(&mut self, serial: Option<Serial>, session: UnendedSession) -> Serial {
        let serial = serial.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        self.retrying.insert(serial, session);
        serial
    }

    /// An attempt succeeded.
    pub(super) fn ended(&mut self, serial: Option<Serial>) {
        if let Some(serial) = serial {
            self.retrying.remove(&serial);
        }
    }

    pub(super) fn give_up(&mut self, serial: Option<Serial>, session: UnendedSession) {
        self.ended(serial);
        self.count += 1;
        if self.given_up.len() == LISTED {
            self.given_up.pop_front();
        }
        self.given_up.push_back(session);
    }

    /// Since the start.
    pub(super) fn given_up(&self) -> u64 {
        self.count
    }

    pub(super) fn retrying(&self) -> usize {
        self.retrying.len()
    }

    pub(super) fn list(&self) -> Vec<UnendedSession> {
        self.given_up.iter().chain(self.retrying.values()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Fingerprint;

    fn session(attempts: u32, retrying: bool) -> UnendedSession {
        UnendedSession {
            session: Fingerprint::unnamed(),
            principal: None,
            failure: "answered 401".to_owned(),
            attempts,
            retrying,
        }
    }

    #[test]
    fn the_last_256_are_listed_and_all_are_counted() {
        let mut unended = Unended::default();
        for attempts in 0..300 {
            unended.give_up(None, session(attempts, false));
        }
        let listed = unended.list();
        assert_eq!((unended.given_up(), listed.len()), (300, LISTED));
        assert_eq!((listed[0].attempts, listed[LISTED - 1].attempts), (44, 299));
    }

    #[test]
    fn a_session_is_listed_once_however_often_it_fails() {
        let mut unended = Unended::default();
        let serial = unended.retry(None, session(1, true));
        assert_eq!(unended.retry(Some(serial), session(2, true)), serial);
        let other = unended.retry(None, session(1, true));
        assert_eq!(unended.retrying(), 2);
        unended.ended(Some(other));
        assert_eq!(unended.list().iter().map(|one| one.attempts).collect::<Vec<_>>(), [2]);
        unended.give_up(Some(serial), session(3, false));
        assert_eq!((unended.retrying(), unended.given_up(), unended.list().len()), (0, 1, 1));
    }
}
