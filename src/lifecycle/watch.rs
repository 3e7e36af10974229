//! What the reaper is to look at, and when.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::{
    clock::Millis,
    record::Record,
    streams::Timed,
    wheel::{Slot, Wheel},
};

/// One thing to look at. Weak: what is gone by then is a husk.
#[derive(Clone)]
pub(super) enum Watched {
    Session(Weak<Record>),
    Timed(Weak<dyn Timed>),
}

/// Two wheels that turn together, because there may be a million sessions: an entry of either kind
/// would take three times the room of a session's.
pub(super) struct Watch {
    sessions: Wheel<Weak<Record>>,
    timed: Wheel<Weak<dyn Timed>>,
}

/// What was due at one tick, to be looked at one by one.
pub(super) enum Due {
    Sessions(Slot<Weak<Record>>),
    Timed(Slot<Weak<dyn Timed>>),
}

impl Watch {
    pub(super) fn new(tick: Millis) -> Self {
        Self { sessions: Wheel::new(tick), timed: Wheel::new(tick) }
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len() + self.timed.len()
    }

    /// To be looked at then, and not more than a tick later.
    pub(super) fn arm(&mut self, watched: Watched, at: Millis, now: Millis) {
        match watched {
            Watched::Session(record) => self.sessions.arm(record, at, now),
            Watched::Timed(timed) => self.timed.arm(timed, at, now),
        }
    }

    /// Call until `None`.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<Due> {
        let sessions = self.sessions.take_due(now).map(Due::Sessions);
        sessions.or_else(|| self.timed.take_due(now).map(Due::Timed))
    }

    pub(super) fn next_tick(&self, now: Millis) -> Millis {
        self.sessions.next_tick(now)
    }

    /// Frees the husks of one slot; 0 to [`slots`](Self::slots) are all of them.
    pub(super) fn compact(&mut self, slot: usize) {
        self.sessions.compact(slot, |record| record.strong_count() > 0);
        self.timed.compact(slot, |timed| timed.strong_count() > 0);
    }

    pub(super) fn slots(&self) -> usize {
        self.sessions.slots()
    }
}

impl Watched {
    pub(super) fn session(record: &Arc<Record>) -> Self {
        Self::Session(Arc::downgrade(record))
    }
}

impl Iterator for Due {
    type Item = Watched;

    fn next(&mut self) -> Option<Watched> {
        match self {
            Self::Sessions(slot) => slot.next().map(Watched::Session),
            Self::Timed(slot) => slot.next().map(Watched::Timed),
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session(_) => "Session",
            Self::Timed(_) => "Timed",
        })
    }
}
