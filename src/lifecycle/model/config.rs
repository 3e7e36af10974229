//! The settings that a sequence runs under.

use std::time::Duration;

use crate::lifecycle::{clock::Millis, deadline::Timeouts, permits::WhenFull, registry::Limits};

/// Bytes that settings are made of.
pub(crate) const CONFIG: usize = 7;

/// Spans from nothing to the longest that is told from never.
const SPANS: [Option<Millis>; 8] = [
    Some(60),
    Some(1),
    Some(7),
    Some(1_000),
    Some(1_800_000),
    None,
    Some((1 << 39) - 1),
    Some(100_000),
];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(super) timeouts: Timeouts,
    pub(super) cap: usize,
    pub(super) cap_per_principal: Option<usize>,
    pub(super) when_full: WhenFull,
    pub(super) remember_closed: bool,
    pub(super) max_streams: usize,
}

impl Config {
    pub(crate) fn decode(bytes: [u8; CONFIG]) -> Self {
        let [idle, unused, lifetime, cap, own, full, seats] = bytes.map(usize::from);
        Self {
            timeouts: Timeouts {
                idle: SPANS[idle % SPANS.len()],
                unused: SPANS[unused % SPANS.len()],
                // Most sessions have no lifetime, or none that matters.
                lifetime: SPANS[lifetime % SPANS.len()].filter(|_| lifetime >= 128),
            },
            cap: 1 + cap % 12,
            cap_per_principal: [None, Some(1 + own % 5)][own / 5 % 2],
            when_full: [WhenFull::Reject, WhenFull::EvictIdle][full % 2],
            remember_closed: full / 2 % 4 == 1,
            max_streams: 1 + seats % 3,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_sessions: self.cap,
            max_sessions_per_principal: self.cap_per_principal,
            when_full: self.when_full,
            // The model answers for the server, and only when it says so.
            close_timeout: Duration::from_secs(3_600),
            shortest: self.shortest(),
            remember_closed: self.remember_closed,
        }
    }

    fn shortest(&self) -> Option<Millis> {
        let Timeouts { idle, unused, lifetime } = self.timeouts;
        [idle, unused, lifetime].into_iter().flatten().min()
    }

    /// What is promised: a 64th of the shortest, 10 ms to 1 s.
    pub(super) fn tick(&self) -> Millis {
        self.shortest().map_or(1_000, |span| (span / 64).clamp(10, 1_000))
    }
}
