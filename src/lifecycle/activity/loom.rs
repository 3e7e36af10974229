//! Every interleaving of the word, by loom: `just loom`.
//!
//! The word passes. The two designs that it replaced are here as well, and must fail: a model that
//! finds nothing in them would prove nothing by finding nothing in the word.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use loom::thread;

use super::{Activity, Enter, Exit, Millis, Word};
use crate::lifecycle::loom::model;

/// Idle for so long is too long.
const SPAN: Millis = 5;

/// A session that was last used at 0 and has nothing in flight.
fn idle() -> Arc<Activity> {
    let activity = Activity::opening(0);
    activity.exit(Exit::Touch, || 0);
    Arc::new(activity)
}

fn is_expired(now: Millis) -> impl Fn(Word) -> bool {
    move |word| word.in_flight() == 0 && now >= word.last_activity() + SPAN
}

/// What the reaper does.
fn reap(activity: &Activity, now: Millis) -> bool {
    let seen = activity.load();
    !seen.is_closed() && is_expired(now)(seen) && activity.expire(seen)
}

/// What a request does, at `now`. True if it was admitted; then nobody but a close may have ended
/// the session under it.
fn request(activity: &Activity, now: Millis, closes: bool) -> bool {
    if activity.enter(is_expired(now)) != Enter::Admitted {
        return false;
    }
    assert!(closes || !activity.load().is_closed(), "reaped with work in flight");
    activity.exit(Exit::Touch, || now);
    true
}

#[test]
fn a_request_that_was_admitted_never_finds_its_session_reaped() {
    model(|| {
        let activity = idle();
        // A moment before the deadline, against a reaper at the deadline.
        let requests: Vec<_> = [4, 4]
            .map(|now| {
                let activity = Arc::clone(&activity);
                thread::spawn(move || request(&activity, now, false))
            })
            .into_iter()
            .collect();
        let reaped = reap(&activity, 5);
        let admitted: Vec<_> = requests.into_iter().map(|one| one.join().unwrap()).collect();
        let any = admitted.iter().any(|admitted| *admitted);
        assert!(!(any && reaped), "a deadline that had moved was used");
        assert_eq!(activity.load().is_closed(), reaped);
        assert_eq!(activity.load().in_flight(), 0);
    });
}

#[test]
fn a_session_is_closed_once_by_whoever_comes_first_and_stays_closed() {
    model(|| {
        let activity = idle();
        let won = Arc::new(AtomicUsize::new(0));
        let closer = {
            let (activity, won) = (Arc::clone(&activity), Arc::clone(&won));
            thread::spawn(move || won.fetch_add(usize::from(activity.close()), SeqCst))
        };
        let reaper = {
            let (activity, won) = (Arc::clone(&activity), Arc::clone(&won));
            thread::spawn(move || won.fetch_add(usize::from(reap(&activity, 9)), SeqCst))
        };
        request(&activity, 4, true);
        closer.join().unwrap();
        reaper.join().unwrap();
        assert_eq!(won.load(SeqCst), 1);
        assert!(activity.load().is_closed());
        assert_eq!(activity.enter(|_| false), Enter::Closed);
    });
}

#[test]
fn a_hold_that_ends_under_a_close_brings_nothing_back() {
    model(|| {
        let activity = idle();
        assert_eq!(activity.enter(is_expired(1)), Enter::Admitted);
        let hold = {
            let activity = Arc::clone(&activity);
            thread::spawn(move || activity.exit(Exit::Stamp, || 3))
        };
        let late = {
            let activity = Arc::clone(&activity);
            thread::spawn(move || request(&activity, 4, true))
        };
        assert!(activity.close());
        hold.join().unwrap();
        late.join().unwrap();
        assert!(activity.load().is_closed());
    });
}

#[test]
fn entries_and_exits_of_three_threads_add_up() {
    model(|| {
        let activity = idle();
        let others: Vec<_> = [(Exit::Touch, 3), (Exit::Quiet, 4)]
            .map(|(exit, now)| {
                let activity = Arc::clone(&activity);
                thread::spawn(move || {
                    assert_eq!(activity.enter(is_expired(now)), Enter::Admitted);
                    activity.exit(exit, || now);
                })
            })
            .into_iter()
            .collect();
        assert_eq!(activity.enter(is_expired(2)), Enter::Admitted);
        activity.exit(Exit::Stamp, || 2);
        others.into_iter().for_each(|other| other.join().unwrap());
        let word = activity.load();
        assert_eq!((word.in_flight(), word.last_activity(), word.is_used()), (0, 3, true));
    });
}

/// Designs that were not taken.
mod controls {
    use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::{Arc, Millis, SPAN, model, thread};

    const CLOSED: u64 = 1 << 32;

    /// Counter and closed bit in one word, the stamp in another.
    struct TwoWords {
        count: AtomicU64,
        stamp: AtomicU64,
    }

    impl TwoWords {
        fn idle() -> Arc<Self> {
            Arc::new(Self { count: AtomicU64::new(0), stamp: AtomicU64::new(0) })
        }

        fn enter(&self) -> bool {
            self.count.fetch_add(1, SeqCst) & CLOSED == 0
        }

        fn exit(&self, now: Millis) {
            self.stamp.fetch_max(now, SeqCst);
            self.count.fetch_sub(1, SeqCst);
        }

        /// Reads the stamp, then closes if the counter is zero.
        fn reap(&self, now: Millis) -> bool {
            let due = now >= self.stamp.load(SeqCst) + SPAN;
            due && self.count.compare_exchange(0, CLOSED, SeqCst, SeqCst).is_ok()
        }
    }

    #[test]
    #[should_panic(expected = "a deadline that had moved was used")]
    fn a_stamp_apart_from_the_counter_is_rejected() {
        model(|| {
            let session = TwoWords::idle();
            let request = {
                let session = Arc::clone(&session);
                thread::spawn(move || {
                    let admitted = session.enter();
                    session.exit(4);
                    admitted
                })
            };
            let reaped = session.reap(5);
            let admitted = request.join().unwrap();
            assert!(!(admitted && reaped), "a deadline that had moved was used");
        });
    }

    /// Three words: counter, stamp and closed flag.
    struct ThreeWords {
        count: AtomicU64,
        stamp: AtomicU64,
        closed: AtomicU64,
    }

    impl ThreeWords {
        fn enter(&self) -> bool {
            self.count.fetch_add(1, SeqCst);
            self.closed.load(SeqCst) == 0
        }

        fn exit(&self, now: Millis) {
            self.stamp.fetch_max(now, SeqCst);
            self.count.fetch_sub(1, SeqCst);
        }

        fn reap(&self, now: Millis) -> bool {
            let idle = self.count.load(SeqCst) == 0;
            let due = now >= self.stamp.load(SeqCst) + SPAN;
            idle && due && self.closed.compare_exchange(0, 1, SeqCst, SeqCst).is_ok()
        }
    }

    #[test]
    #[should_panic(expected = "reaped with work in flight")]
    fn a_flag_apart_from_the_counter_is_rejected() {
        model(|| {
            let session = Arc::new(ThreeWords {
                count: AtomicU64::new(0),
                stamp: AtomicU64::new(0),
                closed: AtomicU64::new(0),
            });
            let request = {
                let session = Arc::clone(&session);
                thread::spawn(move || {
                    if session.enter() {
                        let closed = session.closed.load(SeqCst) == 1;
                        assert!(!closed, "reaped with work in flight");
                    }
                    session.exit(4);
                })
            };
            session.reap(5);
            request.join().unwrap();
        });
    }
}
