//! Where a session is born: from the permit to the table, or to nothing.

use std::sync::Arc;

use super::{
    activity::Exit,
    closer::Terminator,
    events::SessionEvent,
    guard::InFlight,
    handle::Session,
    openings::{Admitted, Place},
    owner::Owner,
    record::{Phase, Record},
    registry::Registry,
};
use crate::protocol::SessionId;

/// Who made up the id, and so who has a session to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Issuer {
    /// The server behind: it is told of the close.
    Inner,
    /// This layer: the server behind knows of no session.
    Layer,
}

/// The id is taken by a session that is live. Neither it nor the new one can be told which was
/// meant, so the new one is refused.
#[derive(Debug)]
pub(crate) struct Duplicate;

/// A session on its way. Dropped without [`Opening::complete`], nothing of it stays.
#[derive(Debug)]
pub(crate) struct Opening {
    registry: Arc<Registry>,
    record: Arc<Record>,
    completed: bool,
    /// Left when this is dropped, which is after the session stands in the table.
    _place: Place,
}

impl Opening {
    pub(super) fn new(registry: &Arc<Registry>, owner: Arc<Owner>, admitted: Admitted) -> Self {
        let Admitted { permit, place } = admitted;
        let record = Arc::new(Record::opening(registry.clock().now(), owner, Some(permit)));
        if let Some(reason) = place.fill(&record) {
            registry.close(&record, reason);
        }
        Self { registry: Arc::clone(registry), record, completed: false, _place: place }
    }

    /// The handle, without an id as yet.
    pub(crate) fn session(&self) -> Session {
        Session::of(&self.record)
    }

    /// Where it was asked for.
    pub(crate) fn endpoint(&self) -> &str {
        self.record.endpoint()
    }

    /// Gives the session its id before it is open, where that is known.
    pub(crate) fn name(&self, id: SessionId) {
        self.record.name(id, Issuer::Inner);
    }

    /// Puts the session into the table, held by the guard that is returned. If the session was
    /// closed meanwhile, it is torn down at once, and the guard's record says so.
    pub(crate) fn complete(
        mut self,
        id: SessionId,
        issuer: Issuer,
        terminate: Terminator,
        exit: Exit,
    ) -> Result<InFlight, Duplicate> {
        let (registry, record) = (&self.registry, &self.record);
        record.name(id, issuer);
        record.go_live(terminate);
        if !registry.insert(record) {
            return Err(Duplicate);
        }
        registry.events().emit(SessionEvent::Opened {
            session: record.fingerprint(),
            principal: record.principal().cloned(),
            client: record.client().cloned().map(Box::new),
        });
        registry.watch(record);
        self.completed = true;
        let phase = std::mem::replace(&mut self.record.cold().phase, Phase::Open);
        if let Phase::Opening { closed_early: Some(reason) } = phase {
            self.registry.tear_down(&self.record, reason, true, 0);
        }
        self.registry.close_if_shut_down(&self.record);
        Ok(InFlight::admitted(Arc::clone(&self.record), exit))
    }

    /// The upstream server opened a session for this that is not wanted: it is ended there, under
    /// this permit. It never was in the table, and there is no event. The id must not be that of a
    /// live session.
    pub(crate) fn end_at_server(mut self, id: SessionId, terminate: Terminator) {
        self.completed = true;
        self.registry.end_unwanted(&self.record, id, terminate);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.completed {
            self.record.activity.close();
            self.record.end_unopened(false).release();
        }
    }
}
