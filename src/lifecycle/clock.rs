//! Time, in whole milliseconds since the clock was made.
//!
//! The only place that reads time. It is monotonic, and it is tokio's, so that paused tests move
//! it; wall clocks jump and are banned by `clippy.toml`.

use std::time::Duration;

use tokio::time::Instant;

/// Milliseconds since the origin of a [`Clock`]. 40 bits of them, which the activity word has
/// room for, are 34 years.
pub(crate) type Millis = u64;

/// The longest span that is told from "never": half of what the activity word can count.
const LONGEST: Millis = 1 << 39;

/// Reads the time, as a distance from when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    #[cfg(any(all(test, not(mcp_loom)), fuzzing, feature = "__bench"))]
    mock: Option<mock::Mock>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            #[cfg(any(all(test, not(mcp_loom)), fuzzing, feature = "__bench"))]
            mock: None,
        }
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

    pub(crate) fn instant(self, at: Millis) -> Instant {
        self.origin + Duration::from_millis(at)
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
    fn spans_round_up_and_the_longest_are_never() {
        assert_eq!(span(Duration::from_nanos(1)), Some(1));
        assert_eq!(span(Duration::from_millis(7)), Some(7));
        assert_eq!(span(Duration::MAX), None);
        assert_eq!(span(Duration::from_millis(LONGEST)), None);
    }
}
