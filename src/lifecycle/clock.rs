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
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now() }
    }

    pub(crate) fn now(self) -> Millis {
        if cfg!(all(test, mcp_loom)) {
            // It stands still: loom runs the same again and again, and must see the same.
            return 0;
        }
        Instant::now().saturating_duration_since(self.origin).as_millis() as Millis
    }

    pub(crate) fn instant(self, at: Millis) -> Instant {
        self.origin + Duration::from_millis(at)
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
