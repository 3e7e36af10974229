//! Failed endings that wait for their next attempt.
//!
//! They wait in one list for all, and one entry of the registry's wheel stands for the next that is
//! due: no task for each, and none at all while nothing waits. The list ends with the registry. The
//! pauses double from one second to a minute, without jitter: what was closed at once comes back
//! through [`RETRY_WORKERS`](super::RETRY_WORKERS) calls at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use super::{Closer, Farewell, unended::Serial};
use crate::lifecycle::{clock::Millis, streams::Timed};

/// Sessions that are retried at once; beyond it, the oldest that waits is given up.
pub(super) const MOST_RETRIES: usize = 1_024;

/// In about ten minutes, if they fail at once.
const MOST_ATTEMPTS: u32 = 16;

/// No attempt is planned later than this after the first failure: where many hang, they wait for
/// each other.
const LONGEST: Millis = 600_000;

const FIRST_PAUSE: Millis = 1_000;
const LONGEST_PAUSE: Millis = 60_000;

/// How long to wait after so many attempts, that long after the first failed; `None` if it is time
/// to give up.
pub(super) fn pause(attempts: u32, elapsed: Millis) -> Option<Millis> {
    let doublings = attempts.saturating_sub(1);
    let pause = (FIRST_PAUSE << doublings.min(16)).min(LONGEST_PAUSE);
    (attempts < MOST_ATTEMPTS && elapsed < LONGEST).then_some(pause)
}

#[derive(Default)]
pub(super) struct Retries {
    /// By when they are due.
    waiting: BTreeMap<(Millis, Serial), Farewell>,
    alarm: Option<(Millis, Arc<Alarm>)>,
}

impl Retries {
    pub(super) fn insert(&mut self, due: Millis, farewell: Farewell) {
        let serial = farewell.serial.unwrap_or_default();
        self.waiting.insert((due, serial), farewell);
    }

    /// One that is due by now.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<Farewell> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// The one that failed first.
    pub(super) fn take_oldest(&mut self) -> Option<Farewell> {
        let oldest = *self.waiting.keys().min_by_key(|(_, serial)| *serial)?;
        self.waiting.remove(&oldest)
    }

    pub(super) fn take_all(&mut self) -> Vec<Farewell> {
        self.alarm = None;
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// When the next is due, for the alarm that has gone off.
    pub(super) fn next(&mut self) -> Option<Millis> {
        let next = self.waiting.first_key_value().map(|((due, _), _)| *due);
        self.alarm = next.and_then(|due| Some((due, self.alarm.take()?.1)));
        next
    }

    /// What the wheel is to be armed with at `due`, unless it looks before.
    pub(super) fn alarm(&mut self, due: Millis, closer: &Arc<Closer>) -> Option<Weak<dyn Timed>> {
        if self.alarm.as_ref().is_some_and(|(at, _)| *at <= due) {
            return None;
        }
        // The alarm before this one is dropped: its entry in the wheel is a husk.
        let alarm = Arc::new(Alarm(Arc::downgrade(closer)));
        let weak: Weak<Alarm> = Arc::downgrade(&alarm);
        self.alarm = Some((due, alarm));
        Some(weak)
    }
}

/// What the wheel looks at when a retry is due.
struct Alarm(Weak<Closer>);

impl Timed for Alarm {
    fn look_at(&self, now: Millis) -> Option<Millis> {
        self.0.upgrade()?.look_at(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_double_to_a_minute_and_end_after_ten() {
        let mut elapsed = 0;
        let pauses: Vec<_> = (1..)
            .map_while(|attempts| pause(attempts, elapsed).inspect(|pause| elapsed += pause))
            .collect();
        assert_eq!(pauses[..8], [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!((pauses.len() + 1, elapsed), (MOST_ATTEMPTS as usize, 603_000));
        assert_eq!((pause(2, LONGEST - 1), pause(2, LONGEST)), (Some(2_000), None));
    }
}
