//! Guards: what holds a session open. Dropping one is an atomic write; no guard touches the map.

use std::{fmt, sync::Arc};

use super::{activity::Exit, record::Record};

/// One request, stream or piece of work in flight.
pub(crate) struct InFlight {
    record: Arc<Record>,
    exit: Exit,
}

impl InFlight {
    /// For a count that [`Activity::enter`](super::activity::Activity::enter) has already taken.
    pub(super) fn admitted(record: Arc<Record>, exit: Exit) -> Self {
        Self { record, exit }
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Ends the request without moving the deadline.
    pub(crate) fn end_quietly(mut self) {
        self.exit = Exit::Quiet;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.record.activity.exit(self.exit, || self.record.home().clock.at_most()) {
            self.record.left_closed();
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(&self.record.fingerprint()).finish()
    }
}

/// Keeps a session from idling out while work goes on after its response has ended.
///
/// From [`Session::hold`](crate::Session::hold). Dropping it resets the idle deadline, as the end
/// of a request does. `max_lifetime`, a DELETE, an operator's close and shutdown end the session all
/// the same.
#[derive(Debug)]
#[must_use = "the session is held only as long as this lives"]
pub struct Hold {
    _in_flight: InFlight,
}

impl Hold {
    pub(super) fn new(in_flight: InFlight) -> Self {
        Self { _in_flight: in_flight }
    }
}
