//! One close that the upstream server is to be told of.

use super::{Counted, Terminator};
use crate::lifecycle::{handle::Session, permits::Permit};

/// A session that has ended here and not yet at the upstream server. The session's state stays
/// until this is dropped.
pub(in crate::lifecycle) struct Farewell {
    pub(super) session: Session,
    pub(super) terminate: Terminator,
    /// Released when the first attempt has ended.
    permit: Option<Permit>,
    /// Set instead of a permit if no permit counts the session.
    unclaimed: Option<Counted>,
}

impl Farewell {
    pub(in crate::lifecycle) fn new(
        session: Session,
        terminate: Terminator,
        permit: Option<Permit>,
        unclaimed: Option<Counted>,
    ) -> Self {
        Self { session, terminate, permit, unclaimed }
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.session.forget_state();
        drop((self.permit.take(), self.unclaimed.take()));
    }
}
