//! Where a session dies.

use std::{sync::Arc, time::Duration};

use super::{Mode, Registry};
use crate::{
    lifecycle::{
        activity::Word,
        clock::Millis,
        closer::{Farewell, Terminator},
        deadline::Verdict,
        events::{CloseReason, SessionEvent},
        handle::Session,
        opening::Issuer,
        owner::Owner,
        permits::{Permit, Stage},
        principal::Principal,
        record::{Extras, Record, Remains},
        shield::shielded,
    },
    protocol::SessionId,
};

impl Registry {
    /// Closes the session and tells the server behind. False if somebody else already has.
    pub(crate) fn close(&self, record: &Arc<Record>, reason: CloseReason) -> bool {
        self.close_as(record, reason, true)
    }

    /// Closes a session whose end the server behind knows of.
    pub(crate) fn close_untold(&self, record: &Arc<Record>, reason: CloseReason) -> bool {
        self.close_as(record, reason, false)
    }

    fn close_as(&self, record: &Arc<Record>, reason: CloseReason, tell: bool) -> bool {
        let Some(word) = record.activity.close_at() else { return false };
        self.tear_down(record, reason, tell, word.in_flight());
        true
    }

    /// Closes the session if its time is up; otherwise says when to look again.
    pub(crate) fn look_at(&self, record: &Arc<Record>) -> Option<Millis> {
        loop {
            let (word, now) = (record.word(), self.clock.now());
            if word.is_closed() {
                return None;
            }
            match self.timeouts.verdict(word, record.opened_at(), now) {
                Verdict::LookAgain(at) => return at,
                Verdict::Close(reason) => {
                    self.close(record, reason);
                    return None;
                }
                // Fails if the word has moved since: then the verdict may be another.
                Verdict::Expire(reason) => {
                    if record.activity.expire(word) {
                        self.tear_down(record, reason, true, 0);
                        return None;
                    }
                }
            }
        }
    }

    /// Closes the session if nothing happened since `seen` and nothing is in flight. For eviction.
    pub(in crate::lifecycle) fn evict(&self, record: &Arc<Record>, seen: Word) -> bool {
        let evicted = record.activity.expire(seen);
        if evicted {
            self.tear_down(record, CloseReason::Evicted, true, 0);
        }
        evicted
    }

    /// The one way down. Called once, by the caller that closed the word, on which `in_flight` guards were then.
    pub(in crate::lifecycle) fn tear_down(
        &self,
        record: &Arc<Record>,
        reason: CloseReason,
        tell: bool,
        in_flight: u64,
    ) {
        // A server that restores sessions from a store keeps them over a shutdown: that is what the
        // store is for.
        let kept = reason == CloseReason::Shutdown && self.tombstones.is_some();
        let told = tell && !kept && !record.is_issued_by_layer();
        let Some(mut remains) = record.end(reason, told, in_flight) else { return };
        let Some(id) = record.id() else { return };
        if let Some(tombstones) = &self.tombstones {
            tombstones.bury(id);
        }
        // From before it leaves the map, until the farewell has a mark of its own.
        let _mark = told.then(|| self.closer.mark(id));
        self.remove(id, record);
        if let Some(permit) = &mut remains.permit {
            permit.advance(Stage::Closing);
        }
        let (permit, terminate) = remains.release();
        let lifetime = self.clock.now().saturating_sub(record.opened_at());
        self.events.emit(SessionEvent::Closed {
            session: record.fingerprint(),
            principal: record.principal().cloned(),
            reason,
            lifetime: Duration::from_millis(lifetime),
            requests: record.requests(),
        });
        if let Some(terminate) = terminate.filter(|_| told) {
            self.closer.push(Farewell::new(Session::of(record), terminate, permit, None));
        }
    }

    /// Whether a DELETE of this id is on its way, which would end a new session under it.
    pub(crate) fn is_ending(&self, id: &SessionId) -> bool {
        self.closer.is_ending(id)
    }

    /// Endings under way of sessions that the upstream server opened for this principal and that
    /// no permit counts.
    pub(crate) fn unclaimed(&self, principal: Option<&Principal>) -> usize {
        self.closer.unclaimed(principal)
    }

    /// Ends a session at the upstream server that no permit counts: there was no place for it, or
    /// its id cannot be used. It never was in the table, and there is no event. `prepare` may leave something in its
    /// state.
    pub(crate) fn end_unclaimed(
        &self,
        id: SessionId,
        terminate: Terminator,
        principal: Option<&Principal>,
        prepare: impl FnOnce(&Session),
    ) {
        let owner = self.owners.find(principal.cloned().into());
        let session = self.closed(id, owner, |record| prepare(&Session::of(record)));
        let unclaimed = Some(self.closer.count_unclaimed(principal.cloned()));
        self.closer.push(Farewell::new(session, terminate, None, unclaimed));
    }

    /// Ends a session at the upstream server that came of an opening and is not wanted, under the
    /// opening's permit.
    pub(in crate::lifecycle) fn end_unwanted(
        &self,
        opening: &Arc<Record>,
        id: SessionId,
        terminate: Terminator,
    ) {
        opening.activity.close();
        opening.name(id.clone(), Issuer::Inner);
        // An opening that was named before may get another session, which needs what was left in its state.
        let is_named_so = opening.id() == Some(&id);
        let mut remains = opening.end_unopened(true);
        if let Some(permit) = &mut remains.permit {
            permit.advance(Stage::Closing);
        }
        let (permit, _) = remains.release();
        let session = if is_named_so {
            Session::of(opening)
        } else {
            self.closed(id, Arc::clone(opening.owner()), |record| {
                record.give_state(opening.take_state());
            })
        };
        self.closer.push(Farewell::new(session, terminate, permit, None));
    }

    /// A session that is closed and never was in the table.
    fn closed(
        &self,
        id: SessionId,
        owner: Arc<Owner>,
        prepare: impl FnOnce(&Arc<Record>),
    ) -> Session {
        let record = Arc::new(Record::opening(self.clock.now(), owner, None));
        record.name(id, Issuer::Inner);
        prepare(&record);
        record.activity.close();
        drop(record.end_unopened(true));
        Session::of(&record)
    }

    /// A session that came in while everything was being closed goes too.
    pub(in crate::lifecycle) fn close_if_shut_down(&self, record: &Arc<Record>) {
        if self.mode() == Mode::ShutDown {
            self.close(record, CloseReason::Shutdown);
        }
    }
}

impl Remains {
    /// Cuts the streams, drops the state (unless it stayed in the record) and wakes those who wait
    /// for the close, with no lock held.
    pub(in crate::lifecycle) fn release(self) -> (Option<Permit>, Option<Terminator>) {
        if let Some(extras) = self.extras {
            let Extras { state, streams, closed, .. } = *extras;
            for stream in streams.into_iter().filter_map(|(_, one)| one.stream.upgrade()) {
                stream.cut();
            }
            shielded("session state", || drop(state));
            if let Some(closed) = closed {
                shielded("waker", || closed.notify_waiters());
            }
        }
        (self.permit, self.terminate)
    }
}

impl Drop for Registry {
    /// The last layer, service and handle are gone: nobody will ask for these sessions again.
    fn drop(&mut self) {
        for record in self.records() {
            self.close(&record, CloseReason::Shutdown);
        }
        self.closer.end();
        self.reaper.wake();
    }
}
