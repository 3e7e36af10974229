//! The activity word: one atomic that decides whether a session lives.
//!
//! # Ground rules
//!
//! * Everything that admission and expiry depend on is in this one word. Designs with two (a
//!   counter and a timestamp apart; a closed bit with the counter, the timestamp apart) lose a
//!   request that was admitted: the reaper reads the old stamp, the request enters and leaves, and
//!   the close succeeds on a counter that reads zero again.
//! * The word only leaves "closed" by never: all ones is final.
//! * Exactly one caller sees a close succeed, whichever of [`Activity::expire`] and
//!   [`Activity::close`] it came through. That caller, and nobody else, tears the session down.
//!
//! # The word
//!
//! ```text
//! [ last activity, ms : 40 | used : 1 | in flight : 23 ]      all ones = closed
//! ```
//!
//! * `last activity` moves forward when a request that counts *ends*; entering does not stamp, for
//!   a session in flight cannot expire by idleness.
//! * `used` is set by the first such end. Until then the session has only its unused timeout.
//! * `in flight` counts guards. It never reaches its maximum, so a live word is never all ones.
//!
//! A word that reads equal to an earlier one is as good as unchanged: the deadline is a function of
//! the word, so a compare-and-swap that succeeds after enter and exit inside one millisecond still
//! decides by the truth.

#[cfg(all(test, mcp_loom))]
mod loom;

use std::fmt;

use super::{
    clock::Millis,
    sync::{AtomicU64, Ordering},
};

const CLOSED: u64 = u64::MAX;
const IN_FLIGHT: u64 = (1 << 23) - 1;
const USED: u64 = 1 << 23;
const STAMP_SHIFT: u32 = 24;

/// One reading of the word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    fn new(last: Millis, used: bool, in_flight: u64) -> Self {
        Self(last << STAMP_SHIFT | if used { USED } else { 0 } | in_flight)
    }

    pub(crate) fn is_closed(self) -> bool {
        self.0 == CLOSED
    }

    pub(crate) fn last_activity(self) -> Millis {
        self.0 >> STAMP_SHIFT
    }

    pub(crate) fn is_used(self) -> bool {
        self.0 & USED != 0
    }

    /// Guards alive; 0 once closed, when nobody counts any more.
    pub(crate) fn in_flight(self) -> u64 {
        if self.is_closed() { 0 } else { self.0 & IN_FLIGHT }
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_closed() {
            return f.write_str("closed");
        }
        f.debug_struct("Word")
            .field("last_activity", &self.last_activity())
            .field("used", &self.is_used())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

/// What came of an attempt to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enter {
    Admitted,
    /// Past its deadline; the word read, for [`Activity::expire`].
    Expired(Word),
    Closed,
    /// The counter is full.
    Saturated,
}

/// How leaving moves the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A request that counts: stamps the word and marks the session used.
    Touch,
    /// The `initialize` that opened the session, or a hold: stamps, but makes no use of it.
    Stamp,
    /// A request that the server turned away: the deadline stays where it was.
    Quiet,
}

#[derive(Debug)]
pub(crate) struct Activity(AtomicU64);

impl Activity {
    /// A session that its opening request holds.
    pub(crate) fn opening(now: Millis) -> Self {
        Self(AtomicU64::new(Word::new(now, false, 1).0))
    }

    pub(crate) fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    /// Counts one more in flight, unless the session is closed or `is_expired` says so of the word.
    #[inline]
    pub(crate) fn enter(&self, mut is_expired: impl FnMut(Word) -> bool) -> Enter {
        let mut word = self.load();
        loop {
            if word.is_closed() {
                return Enter::Closed;
            }
            if is_expired(word) {
                return Enter::Expired(word);
            }
            if word.in_flight() == IN_FLIGHT - 1 {
                return Enter::Saturated;
            }
            match self.exchange(word, Word(word.0 + 1)) {
                Ok(()) => return Enter::Admitted,
                Err(current) => word = current,
            }
        }
    }

    /// Counts one less in flight. On a closed session there is nothing left to count, and the answer is false.
    #[inline]
    pub(crate) fn exit(&self, exit: Exit, now: impl FnOnce() -> Millis) -> bool {
        let stamp = if exit == Exit::Quiet { 0 } else { now() };
        let mut word = self.load();
        while !word.is_closed() {
            let next = Word::new(
                word.last_activity().max(stamp),
                word.is_used() || exit == Exit::Touch,
                word.in_flight() - 1,
            );
            match self.exchange(word, next) {
                Ok(()) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Closes the session if nothing happened since `seen` was read, and nothing was in flight.
    pub(crate) fn expire(&self, seen: Word) -> bool {
        // Not the weak exchange: a failure means that something happened.
        seen.in_flight() == 0
            && !seen.is_closed()
            && self.0.compare_exchange(seen.0, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Closes the session, whatever is in flight. True for exactly one caller.
    pub(crate) fn close(&self) -> bool {
        self.close_at().is_some()
    }

    /// As [`close`](Self::close); how the word read before. `None` if it was closed already.
    pub(crate) fn close_at(&self) -> Option<Word> {
        Some(Word(self.0.swap(CLOSED, Ordering::AcqRel))).filter(|word| !word.is_closed())
    }

    /// The least that enter and exit can cost.
    #[cfg(feature = "__bench")]
    pub(crate) fn floor(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel);
        self.0.fetch_sub(1, Ordering::AcqRel) & IN_FLIGHT
    }

    fn exchange(&self, from: Word, to: Word) -> Result<(), Word> {
        self.0
            .compare_exchange_weak(from.0, to.0, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(Word)
    }
}

#[cfg(all(test, not(mcp_loom)))]
mod tests {
    use super::*;

    const NEVER: fn(Word) -> bool = |_| false;

    fn idle_at(last: Millis) -> Activity {
        let activity = Activity::opening(0);
        activity.exit(Exit::Touch, || last);
        activity
    }

    #[test]
    fn entering_counts_and_only_leaving_stamps() {
        let activity = idle_at(5);
        assert_eq!(activity.enter(NEVER), Enter::Admitted);
        assert_eq!(activity.load(), Word::new(5, true, 1));
        activity.exit(Exit::Touch, || 9);
        assert_eq!(activity.load(), Word::new(9, true, 0));
    }

    #[test]
    fn a_stamp_never_moves_back() {
        let activity = idle_at(9);
        activity.enter(NEVER);
        activity.exit(Exit::Touch, || 3);
        assert_eq!(activity.load().last_activity(), 9);
    }

    #[test]
    fn a_quiet_exit_leaves_stamp_and_use_alone() {
        let activity = Activity::opening(7);
        activity.enter(NEVER);
        activity.exit(Exit::Quiet, || unreachable!("the time is not read"));
        assert_eq!(activity.load(), Word::new(7, false, 1));
        activity.exit(Exit::Stamp, || 8);
        assert_eq!(activity.load(), Word::new(8, false, 0));
    }

    #[test]
    fn expiry_fails_on_any_word_but_the_idle_one_it_saw() {
        let activity = idle_at(5);
        let seen = activity.load();
        activity.enter(NEVER);
        assert!(!activity.expire(seen), "a request came in between");
        assert!(!activity.expire(activity.load()), "a request is in flight");
        activity.exit(Exit::Touch, || 6);
        assert!(!activity.expire(seen), "the deadline moved");
        assert!(activity.expire(activity.load()));
        assert!(activity.load().is_closed());
    }

    #[test]
    fn exactly_one_close_succeeds_and_the_word_stays_closed() {
        let activity = idle_at(5);
        activity.enter(NEVER);
        assert!(activity.close());
        assert!(!activity.close());
        activity.exit(Exit::Touch, || 10);
        assert!(activity.load().is_closed());
        assert_eq!(activity.enter(NEVER), Enter::Closed);
        assert!(!activity.expire(activity.load()));
    }

    #[test]
    fn a_full_counter_turns_away_instead_of_wrapping_into_the_used_bit() {
        let activity = Activity(AtomicU64::new(Word::new(1, false, IN_FLIGHT - 2).0));
        assert_eq!(activity.enter(NEVER), Enter::Admitted);
        assert_eq!(activity.enter(NEVER), Enter::Saturated);
        assert_eq!(activity.load(), Word::new(1, false, IN_FLIGHT - 1));
    }
}
