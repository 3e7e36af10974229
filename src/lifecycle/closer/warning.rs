//! The log of failed endings: one line a second at most.

use std::sync::{Mutex, PoisonError};

use super::Failure;
use crate::lifecycle::{clock::Millis, shield::shielded, snapshot::UnendedSession};

const INTERVAL: Millis = 1_000;

#[derive(Debug, Default)]
pub(super) struct Warnings(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// No line before then.
    next: Millis,
    suppressed: u64,
}

impl Warnings {
    /// Logs one failure, or counts it for the next line.
    pub(super) fn warn(&self, session: &UnendedSession, failure: Option<Failure>, now: Millis) {
        let Some(suppressed) = self.admit(now) else { return };
        let UnendedSession { session, failure: why, attempts, retrying, .. } = session;
        let cure = failure.and_then(Failure::cure);
        shielded("tracing subscriber", || {
            tracing::warn!(
                %session,
                failure = why,
                attempts,
                retrying,
                suppressed,
                cure,
                "failed to terminate the upstream session"
            );
        });
    }

    /// How many were suppressed since the last line; `None` if this one is.
    fn admit(&self, now: Millis) -> Option<u64> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now < inner.next {
            inner.suppressed += 1;
            return None;
        }
        inner.next = now + INTERVAL;
        Some(std::mem::take(&mut inner.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_counts_those_that_were_suppressed() {
        let warnings = Warnings::default();
        assert_eq!(warnings.admit(0), Some(0));
        assert!([1, 500, 999].into_iter().all(|now| warnings.admit(now).is_none()));
        assert_eq!(warnings.admit(1_000), Some(3));
        assert_eq!(warnings.admit(1_999), None);
        assert_eq!(warnings.admit(60_000), Some(1));
    }
}
