//! One session that is to be ended at the upstream server.

use super::{Counted, Failure, Mark, Terminator, unended::Serial};
use crate::lifecycle::{clock::Millis, handle::Session, permits::Permit, snapshot::UnendedSession};

/// A session that has ended here and not yet at the upstream server. The session's state stays
/// until this is dropped.
pub(in crate::lifecycle) struct Farewell {
    pub(super) session: Session,
    pub(super) terminate: Terminator,
    /// Released when the first attempt has ended.
    permit: Option<Permit>,
    /// Set instead of a permit if no permit counts the session.
    unclaimed: Option<Counted>,
    /// Marks the id while an attempt is due or under way.
    pub(super) mark: Option<Mark>,
    /// Attempts that failed, and why the last did.
    pub(super) attempts: u32,
    pub(super) failure: Option<Failure>,
    /// When the first attempt failed.
    pub(super) since: Option<Millis>,
    /// Set if it is retried.
    pub(super) serial: Option<Serial>,
}

impl Farewell {
    pub(in crate::lifecycle) fn new(
        session: Session,
        terminate: Terminator,
        permit: Option<Permit>,
        unclaimed: Option<Counted>,
    ) -> Self {
        Self {
            session,
            terminate,
            permit,
            unclaimed,
            mark: None,
            attempts: 0,
            failure: None,
            since: None,
            serial: None,
        }
    }

    /// Gives back what counts the session while it ends.
    pub(super) fn release(&mut self) {
        drop((self.permit.take(), self.unclaimed.take(), self.mark.take()));
    }

    pub(super) fn unended(&self, retrying: bool) -> UnendedSession {
        UnendedSession {
            session: self.session.fingerprint(),
            principal: self.session.principal().cloned(),
            failure: self.failure.map(|failure| failure.to_string()).unwrap_or_default(),
            attempts: self.attempts,
            retrying,
        }
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.session.forget_state();
        self.release();
    }
}
