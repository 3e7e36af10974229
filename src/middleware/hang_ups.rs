//! Whether clients are hanging up these days.
//!
//! Some care costs every client a little, and matters only where clients hang up: holding back the answer to
//! `initialize`, and reading the body of every POST. It is taken for a minute after a hang-up was seen.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::lifecycle::Millis;

/// How long a hang-up is remembered.
const MEMORY: Millis = 60_000;

const NEVER: u64 = 0;
const ALWAYS: u64 = u64::MAX;

/// Until when to be wary.
#[derive(Debug, Default)]
pub(super) struct HangUps(AtomicU64);

impl HangUps {
    /// Seen just now.
    pub(super) fn note(&self, now: Millis) {
        self.0.fetch_max(now.saturating_add(MEMORY).max(1), Ordering::Relaxed);
    }

    /// From now on, care is always taken.
    pub(super) fn expect_always(&self) {
        self.0.store(ALWAYS, Ordering::Relaxed);
    }

    /// False if none was ever seen: all that most requests ask.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) != NEVER
    }

    pub(super) fn are_recent(&self, now: Millis) -> bool {
        now < self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_up_is_remembered_for_a_minute_and_a_lesson_for_ever() {
        let hang_ups = HangUps::default();
        assert!(!hang_ups.any() && !hang_ups.are_recent(0));
        hang_ups.note(1_000);
        assert!(hang_ups.any() && hang_ups.are_recent(1_000) && hang_ups.are_recent(60_999));
        assert!(!hang_ups.are_recent(61_000));
        hang_ups.note(500);
        assert!(hang_ups.are_recent(60_999), "an earlier one shortens nothing");
        hang_ups.expect_always();
        hang_ups.note(1_000);
        assert!(hang_ups.are_recent(u64::MAX - 1));
    }
}
