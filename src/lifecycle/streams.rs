//! The streams of a session, as far as the core knows them: things that can be cut.

use std::sync::{Arc, Weak};

use super::{clock::Millis, guard::InFlight, record::Record};

/// A streaming response whose body the session can take away. The middleware's slot is one.
pub(crate) trait OpenStream: Send + Sync {
    /// Drops the body, and lets the client see a clean end, also when the transport is not asking
    /// for more.
    fn cut(&self);
}

/// What the reaper looks at beside sessions.
pub(crate) trait Timed: Send + Sync {
    /// Does what is due, and says when to look again.
    fn look_at(&self, now: Millis) -> Option<Millis>;
}

/// A stream in its session's list.
pub(super) struct Listed {
    pub(super) stream: Weak<dyn OpenStream>,
    /// Whether a GET opened it: those are ended first on shutdown.
    pub(super) is_get: bool,
}

/// A place among the GET streams a session may have open.
#[derive(Debug)]
pub(crate) struct StreamSeat {
    record: Arc<Record>,
}

impl StreamSeat {
    /// `None` if all are taken, or the session is closed.
    pub(crate) fn take(record: &Arc<Record>, max: usize) -> Option<Self> {
        let mut cold = record.cold();
        let extras = cold.extras_mut()?;
        if extras.seats >= max {
            return None;
        }
        extras.seats += 1;
        Some(Self { record: Arc::clone(record) })
    }
}

impl Drop for StreamSeat {
    fn drop(&mut self) {
        if let Some(extras) = self.record.cold().extras_mut() {
            extras.seats -= 1;
        }
    }
}

/// How a stream holds on to its session.
#[derive(Debug)]
pub(crate) enum Grip {
    /// It keeps it from idling.
    InFlight(InFlight),
    Record(Arc<Record>),
}

impl Grip {
    fn record(&self) -> &Record {
        match self {
            Self::InFlight(in_flight) => in_flight.record(),
            Self::Record(record) => record,
        }
    }
}

/// What an open stream holds of its session: its place in the list, and what keeps it from idling.
#[derive(Debug)]
pub(crate) struct Lease {
    key: usize,
    grip: Grip,
    _seat: Option<StreamSeat>,
}

impl Lease {
    /// Lists the stream with its session. `None` if the session has closed: nobody would cut it.
    pub(crate) fn list(
        grip: Grip,
        stream: Weak<dyn OpenStream>,
        seat: Option<StreamSeat>,
    ) -> Option<Self> {
        let is_get = seat.is_some();
        let key = grip.record().cold().extras_mut()?.streams.insert(Listed { stream, is_get });
        Some(Self { key, grip, _seat: seat })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A closed session has given its list away.
        if let Some(extras) = self.grip.record().cold().extras_mut() {
            extras.streams.try_remove(self.key);
        }
    }
}
