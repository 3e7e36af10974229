//! Time, in whole milliseconds since the clock was made.
//!
//! The only place that reads time. It is monotonic, and it is tokio's, so that paused tests move
//! it; wall clocks jump and are banned by `clippy.toml`.
//!
//! A request reads it twice, and an exact reading takes as long as the rest of what the core does
//! for it. So requests go by bounds, [`Clock::at_least`] and [`Clock::at_most`]: where time cannot
//! be paused and the kernel keeps a coarse clock, which is behind by a few milliseconds at most, they
//! come of that. It needs no task or thread of ours to keep it going.

use std::time::Duration;

use tokio::time::Instant;

use self::coarse::Coarse;

/// Milliseconds since the origin of a [`Clock`]. 40 bits of them, which the activity word has
/// room for, are 34 years.
pub(crate) type Millis = u64;

/// The longest span that is told from "never": half of what the activity word can count.
const LONGEST: Millis = 1 << 39;

/// Reads the time, as a distance from when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    coarse: Option<Coarse>,
    #[cfg(any(all(test, not(mcp_loom)), fuzzing, feature = "__bench"))]
    mock: Option<mock::Mock>,
}

impl Clock {
    /// Every reading exact.
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            coarse: None,
            #[cfg(any(all(test, not(mcp_loom)), fuzzing, feature = "__bench"))]
            mock: None,
        }
    }

    /// The bounds are no further apart than `tolerance`.
    pub(crate) fn tolerating(tolerance: Millis) -> Self {
        let clock = Self::new();
        // Benches and programs under load run what production runs, and are built with what tests need.
        let stops = pausing::is_possible() && !cfg!(feature = "__bench");
        // In this order: a coarse reading is never ahead of an exact one.
        let coarse = if stops { None } else { Coarse::new(tolerance) };
        Self { coarse, ..clock }
    }

    pub(crate) fn now(self) -> Millis {
        if cfg!(all(test, mcp_loom)) {
            // It stands still: loom runs the same again and again, and must see the same.
            return 0;
        }
        #[cfg(any(all(test, not(mcp_loom)), fuzzing, feature = "__bench"))]
        if let Some(mock) = self.mock {
            return mock.now();
        }
        Instant::now().saturating_duration_since(self.origin).as_millis() as Millis
    }

    /// So late it surely is.
    #[inline]
    pub(crate) fn at_least(&self) -> Millis {
        self.coarse.as_ref().map_or_else(|| self.now(), Coarse::read)
    }

    /// Later it is not, unless the kernel is kept from its ticks.
    #[inline]
    pub(crate) fn at_most(&self) -> Millis {
        self.coarse.as_ref().map_or_else(|| self.now(), |coarse| coarse.read() + coarse.lag())
    }

    /// How far [`at_most`](Self::at_most) may be ahead of what it is.
    pub(crate) fn lead(&self) -> Millis {
        self.coarse.as_ref().map_or(0, Coarse::lag)
    }

    pub(crate) fn instant(self, at: Millis) -> Instant {
        self.origin + Duration::from_millis(at)
    }
}

/// The kernel's own reading of its monotonic clock, as of its last tick.
#[cfg(target_os = "linux")]
mod coarse {
    use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

    use super::Millis;

    const NANOS_A_MILLI: u64 = 1_000_000;

    const NANOS_A_SECOND: u32 = 1_000_000_000;

    /// It goes on once a tick, and by whole ticks.
    const TICKS_BEHIND: u64 = 2;

    /// Counts from when it was made, by the clock that `std` reads on Linux.
    ///
    /// In two parts, as the kernel says it: the end of a request waits for this, and to join them into
    /// nanoseconds first would take a long multiplication more, and a long division.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Coarse {
        /// Of one second before that.
        since: Millis,
        /// To the next whole second: with those of a reading, less than two.
        ahead: u32,
        lag: Millis,
    }

    impl Coarse {
        /// `None` if it would be behind by more than `tolerance`, or is none.
        pub(super) fn new(tolerance: Millis) -> Option<Self> {
            let lag = lag(nanos(clock_getres(ClockId::MonotonicCoarse)))?;
            (lag <= tolerance).then(|| Self::from(clock_gettime(ClockId::Monotonic), lag))
        }

        pub(super) fn from(origin: Timespec, lag: Millis) -> Self {
            let since = (origin.tv_sec as Millis + 1) * 1_000;
            Self { since, ahead: NANOS_A_SECOND - origin.tv_nsec as u32, lag }
        }

        #[inline]
        pub(super) fn read(&self) -> Millis {
            self.millis(clock_gettime(ClockId::MonotonicCoarse))
        }

        /// Zero before it was made.
        #[inline]
        pub(super) fn millis(&self, time: Timespec) -> Millis {
            let part = (time.tv_nsec as u32 + self.ahead) / NANOS_A_MILLI as u32;
            (time.tv_sec as Millis * 1_000 + Millis::from(part)).saturating_sub(self.since)
        }

        /// How far it may be behind.
        pub(super) fn lag(&self) -> Millis {
            self.lag
        }
    }

    /// By its tick, which is never finer than this. What says so is a sandbox that has no coarse clock (gVisor),
    /// and where a reading of it costs more than an exact one.
    pub(super) fn lag(tick: u64) -> Option<Millis> {
        (tick >= NANOS_A_MILLI / 2).then_some((tick * TICKS_BEHIND).div_ceil(NANOS_A_MILLI))
    }

    pub(super) fn nanos(time: Timespec) -> u64 {
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// Elsewhere there is none.
#[cfg(not(target_os = "linux"))]
mod coarse {
    use super::Millis;

    #[derive(Clone, Copy, Debug)]
    pub(super) enum Coarse {}

    impl Coarse {
        pub(super) fn new(_: Millis) -> Option<Self> {
            None
        }

        pub(super) fn read(&self) -> Millis {
            match *self {}
        }

        pub(super) fn lag(&self) -> Millis {
            match *self {}
        }
    }
}

/// Whether tests can stop time: whether tokio was built with its `test-util`. Then the kernel's clock
/// would go on where tokio's stands.
///
/// No `cfg` of ours tells, so it is asked of names: tokio's `pause` is there or it is not. Should tokio
/// change it, this says yes, or every test on paused time fails.
mod pausing {
    /// Found where tokio has none.
    #[allow(dead_code, reason = "it is hidden by tokio's, if there is one")]
    fn pause(_: Absent) {}

    struct Absent;

    pub(super) fn is_possible() -> bool {
        // Names of a block hide those around it, also where they come by a glob.
        #[allow(unused_imports, reason = "nothing of it is used if there is no `pause`")]
        use tokio::time::*;
        is_tokios(pause)
    }

    trait Pause<T> {
        const IS_TOKIOS: bool;
    }

    impl<F: Fn()> Pause<()> for F {
        const IS_TOKIOS: bool = true;
    }

    impl<F: Fn(Absent)> Pause<Absent> for F {
        const IS_TOKIOS: bool = false;
    }

    fn is_tokios<T, F: Pause<T>>(_: F) -> bool {
        F::IS_TOKIOS
    }
}

/// Time that stands still until it is moved, shared by threads. Not there in production.
#[cfg(any(all(test, not(mcp_loom)), fuzzing, feature = "__bench"))]
pub(crate) mod mock {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Clock, Millis};

    /// Time since the mock was made, of a source that moves for all who share it.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Mock {
        source: &'static AtomicU64,
        origin: Millis,
    }

    impl Mock {
        /// Zero is now. The source may have been used by others before.
        pub(crate) fn new(source: &'static AtomicU64) -> Self {
            Self { source, origin: source.load(Ordering::Acquire) }
        }

        pub(crate) fn now(self) -> Millis {
            self.source.load(Ordering::Acquire) - self.origin
        }

        pub(crate) fn advance(self, by: Millis) {
            self.source.fetch_add(by, Ordering::AcqRel);
        }

        pub(crate) fn clock(self) -> Clock {
            Clock { mock: Some(self), ..Clock::new() }
        }
    }
}

/// A span as the core counts it: rounded up to a millisecond, and `None` (never) from 17 years on,
/// which is how `Duration::MAX` works without overflow anywhere else.
pub(crate) fn span(duration: Duration) -> Option<Millis> {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    Millis::try_from(millis).ok().filter(|&millis| millis < LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_can_be_paused_in_tests_and_every_reading_is_tokios() {
        assert!(pausing::is_possible());
    }

    #[cfg(all(target_os = "linux", not(mcp_loom)))]
    #[test]
    fn coarse_bounds_lie_around_an_exact_reading() {
        let clock = Clock::new();
        let clock = Clock { coarse: Coarse::new(100), ..clock };
        assert!((1..=20).contains(&clock.lead()), "two of the kernel's ticks");
        let held = (0..20_000_000).any(|_| {
            let (least, now, most) = (clock.at_least(), clock.now(), clock.at_most());
            assert!(least <= now && least + clock.lead() <= most, "{least} {now} {most}");
            // A machine may keep the kernel from its ticks for once, while it runs us.
            now > 100 && now <= most
        });
        assert!(held);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_coarse_clock_counts_whole_milliseconds_since_its_origin_and_none_before() {
        let time = |nanos: u64| rustix::time::Timespec {
            tv_sec: (nanos / 1_000_000_000) as _,
            tv_nsec: (nanos % 1_000_000_000) as _,
        };
        assert_eq!(coarse::nanos(time(2_000_000_005)), 2_000_000_005);
        for origin in [0, 1, 999_999, 1_000_000, 123_456_789, 999_999_999, 5_000_000_000] {
            let coarse = Coarse::from(time(origin), 8);
            for step in 0..10_000 {
                // Of no common measure with a second or a millisecond.
                let now: u64 = step * 1_234_567;
                let exact = now.saturating_sub(origin) / 1_000_000;
                assert_eq!(coarse.millis(time(now)), exact, "{origin} {now}");
            }
            assert_eq!(coarse.millis(time(origin + 999_999)), 0);
            assert_eq!(coarse.millis(time(origin + 1_000_000)), 1);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_kernel_that_ticks_too_slowly_or_not_at_all_is_not_asked() {
        assert_eq!(coarse::lag(1), None);
        assert_eq!(coarse::lag(999_848), Some(2));
        assert_eq!(coarse::lag(4_000_000), Some(8));
        assert!(Coarse::new(0).is_none());
        assert!(Coarse::new(Millis::MAX).is_some());
    }

    #[test]
    fn spans_round_up_and_the_longest_are_never() {
        assert_eq!(span(Duration::from_nanos(1)), Some(1));
        assert_eq!(span(Duration::from_millis(7)), Some(7));
        assert_eq!(span(Duration::MAX), None);
        assert_eq!(span(Duration::from_millis(LONGEST)), None);
    }
}
