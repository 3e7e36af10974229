//! When a session's time is up: a function of its word, when it was opened, and the settings.

use super::{activity::Word, clock::Millis, events::CloseReason};

/// Later than any time there is, and still to be added to one.
const NEVER: Millis = 1 << 62;

/// The three timeouts; `None` is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) idle: Option<Millis>,
    pub(crate) unused: Option<Millis>,
    pub(crate) lifetime: Option<Millis>,
}

/// What is to be done about a session at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Idle past its deadline: close it, if it still reads as it did.
    Expire(CloseReason),
    /// Past its absolute lifetime: close it, whatever is in flight.
    Close(CloseReason),
    /// Nothing before then; `None` if nothing ever.
    LookAgain(Option<Millis>),
}

impl Timeouts {
    /// The one place that decides. `opened_at` and `now` are of the same clock.
    pub(crate) fn verdict(&self, word: Word, opened_at: Millis, now: Millis) -> Verdict {
        let lifetime = self.lifetime.map(|span| opened_at.saturating_add(span));
        if lifetime.is_some_and(|end| now >= end) {
            return Verdict::Close(CloseReason::Lifetime);
        }
        let Some((span, reason)) = self.patience(word) else {
            return Verdict::LookAgain(lifetime);
        };
        let mut idle_end = word.last_activity().saturating_add(span);
        if now >= idle_end {
            if word.in_flight() == 0 {
                return Verdict::Expire(reason);
            }
            // Held past the deadline. If what holds it counts, the next deadline is a whole span
            // after its end; if it is turned away, its exit looks at once.
            idle_end = now.saturating_add(span);
        }
        Verdict::LookAgain(Some(lifetime.map_or(idle_end, |end| end.min(idle_end))))
    }

    /// A session that was active less than so long ago has no deadline behind it, whatever else is true of it.
    /// `None` if activity alone does not tell.
    pub(crate) fn shortest_idle(&self) -> Option<Millis> {
        let shortest = [self.idle, self.unused].into_iter().flatten().min().unwrap_or(NEVER);
        self.lifetime.is_none().then_some(shortest)
    }

    /// Whether time passing can end this session while it has nothing in flight.
    pub(crate) fn reclaims_idle(&self) -> bool {
        self.idle.is_some() || self.lifetime.is_some()
    }

    /// How long the session may stay idle, and what its end is then called.
    fn patience(&self, word: Word) -> Option<(Millis, CloseReason)> {
        let idle = self.idle.map(|span| (span, CloseReason::Idle));
        if word.is_used() {
            return idle;
        }
        let unused = self.unused.map(|span| (span, CloseReason::Unused));
        match (idle, unused) {
            (Some(idle), Some(unused)) => Some(if idle.0 <= unused.0 { idle } else { unused }),
            (idle, unused) => idle.or(unused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::activity::{Activity, Exit};

    const ALL: Timeouts = Timeouts { idle: Some(100), unused: Some(10), lifetime: Some(1_000) };

    fn used_at(last: Millis) -> Word {
        let activity = Activity::opening(0);
        activity.exit(Exit::Touch, || last);
        activity.load()
    }

    fn unused_at(last: Millis) -> Word {
        let activity = Activity::opening(0);
        activity.exit(Exit::Stamp, || last);
        activity.load()
    }

    fn in_flight() -> Word {
        Activity::opening(0).load()
    }

    #[test]
    fn a_session_expires_at_its_deadline_and_not_before() {
        assert_eq!(ALL.verdict(used_at(50), 0, 149), Verdict::LookAgain(Some(150)));
        assert_eq!(ALL.verdict(used_at(50), 0, 150), Verdict::Expire(CloseReason::Idle));
    }

    #[test]
    fn an_unused_session_has_the_shorter_of_both_timeouts() {
        assert_eq!(ALL.verdict(unused_at(5), 0, 15), Verdict::Expire(CloseReason::Unused));
        let quick = Timeouts { idle: Some(3), ..ALL };
        assert_eq!(quick.verdict(unused_at(5), 0, 8), Verdict::Expire(CloseReason::Idle));
        let no_idle = Timeouts { idle: None, ..ALL };
        assert_eq!(no_idle.verdict(unused_at(5), 0, 15), Verdict::Expire(CloseReason::Unused));
    }

    #[test]
    fn work_in_flight_is_ended_by_the_lifetime_alone() {
        let spans = Timeouts { unused: None, ..ALL };
        assert_eq!(spans.verdict(in_flight(), 0, 60), Verdict::LookAgain(Some(100)));
        assert_eq!(spans.verdict(in_flight(), 0, 100), Verdict::LookAgain(Some(200)));
        assert_eq!(ALL.verdict(in_flight(), 0, 999), Verdict::LookAgain(Some(1_000)));
        assert_eq!(ALL.verdict(in_flight(), 0, 1_000), Verdict::Close(CloseReason::Lifetime));
    }

    #[test]
    fn without_timeouts_nothing_is_ever_due() {
        let none = Timeouts { idle: None, unused: None, lifetime: None };
        assert_eq!(none.verdict(used_at(0), 0, u64::MAX), Verdict::LookAgain(None));
        assert!(!none.reclaims_idle());
    }

    #[test]
    fn what_ends_first_is_what_is_looked_for() {
        assert_eq!(ALL.verdict(used_at(950), 0, 999), Verdict::LookAgain(Some(1_000)));
        assert_eq!(ALL.verdict(used_at(800), 0, 899), Verdict::LookAgain(Some(900)));
        assert_eq!(ALL.verdict(used_at(800), 7, 1_006), Verdict::Expire(CloseReason::Idle));
        assert_eq!(ALL.verdict(used_at(1_000), 7, 1_007), Verdict::Close(CloseReason::Lifetime));
        let alone = Timeouts { idle: None, unused: None, lifetime: Some(10) };
        assert_eq!(alone.verdict(used_at(3), 1, 4), Verdict::LookAgain(Some(11)));
        let equal = Timeouts { idle: Some(10), unused: Some(10), lifetime: None };
        assert_eq!(equal.verdict(unused_at(5), 0, 15), Verdict::Expire(CloseReason::Idle));
    }

    #[test]
    fn nothing_is_due_within_the_shortest_idle_time() {
        let spans = [None, Some(0), Some(3), Some(7)];
        let all = (0..64).map(|n| Timeouts {
            idle: spans[n % 4],
            unused: spans[n / 4 % 4],
            lifetime: spans[n / 16],
        });
        for timeouts in all {
            for word in [used_at(5), unused_at(5), in_flight()] {
                let Some(shortest) = timeouts.shortest_idle() else { continue };
                for now in (0..20).filter(|&now| now < word.last_activity() + shortest) {
                    let verdict = timeouts.verdict(word, 0, now);
                    assert!(
                        matches!(verdict, Verdict::LookAgain(_)),
                        "{timeouts:?} {word:?} {now}"
                    );
                }
            }
        }
        let unused_only = Timeouts { idle: None, unused: Some(7), lifetime: None };
        assert_eq!(unused_only.shortest_idle(), Some(7));
        assert_eq!(Timeouts { idle: Some(3), ..unused_only }.shortest_idle(), Some(3));
        assert_eq!(Timeouts { lifetime: Some(9), ..unused_only }.shortest_idle(), None);
    }

    #[test]
    fn either_an_idle_timeout_or_a_lifetime_reclaims_what_is_idle() {
        let none = Timeouts { idle: None, unused: Some(1), lifetime: None };
        assert!(!none.reclaims_idle());
        assert!(Timeouts { idle: Some(1), ..none }.reclaims_idle());
        assert!(Timeouts { lifetime: Some(1), ..none }.reclaims_idle());
    }
}
