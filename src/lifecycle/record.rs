//! What is kept of a session.
//!
//! The map holds it, guards hold it, and it holds nothing that points back: neither the map nor
//! the registry. What every request reads stands first; the rest is behind a lock, what sessions
//! have in common is shared, and what most never need is behind a box. There may be a million: a
//! test below weighs it.

use std::{
    fmt,
    sync::{Arc, OnceLock, PoisonError, Weak, atomic},
};

use slab::Slab;
use tokio::sync::Notify;

use super::{
    activity::{Activity, Word},
    clock::Millis,
    closer::Terminator,
    events::CloseReason,
    opening::Issuer,
    owner::{Home, Owner},
    permits::{Permit, Stage},
    principal::Principal,
    state::StateMap,
    streams::{Listed, OpenStream},
    sync::{Mutex, MutexGuard},
};
use crate::protocol::{ClientInfo, Fingerprint, SessionId};

// In this order: a request finds what it needs in one line of the cache, or in two that lie together.
#[repr(C)]
pub(crate) struct Record {
    pub(crate) activity: Activity,
    /// Set once, when the session is opened.
    id: OnceLock<SessionId>,
    owner: Arc<Owner>,
    requests: atomic::AtomicU64,
    opened_at: Millis,
    cold: Mutex<Cold>,
}

/// Where a session is in its life, for what needs more than the word.
///
/// The word is won first and the phase follows, so a close that comes before the session is
/// published cannot tear it down: it leaves its reason and the opener does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opening { closed_early: Option<CloseReason> },
    Open,
    Closed,
}

/// What is used at open, at close and by streams.
pub(super) struct Cold {
    pub(super) phase: Phase,
    issuer: Issuer,
    /// Of the permit, which is stowed here.
    stage: Option<Stage>,
    pub(super) terminate: Option<Terminator>,
    extras: Option<Box<Extras>>,
    /// Guards that were there when the session closed and are still. The endpoint is kept for them: the answer to their
    /// request may name another session.
    late: i32,
}

/// What most sessions never have.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) state: StateMap,
    pub(super) streams: Slab<Listed>,
    pub(super) seats: usize,
    pub(super) closed: Option<Arc<Notify>>,
}

/// What a close takes out of the record, to be dropped without a lock held.
pub(super) struct Remains {
    pub(super) permit: Option<Permit>,
    pub(super) terminate: Option<Terminator>,
    pub(super) extras: Option<Box<Extras>>,
}

impl Record {
    pub(super) fn opening(now: Millis, owner: Arc<Owner>, permit: Option<Permit>) -> Self {
        Self {
            activity: Activity::opening(now),
            id: OnceLock::new(),
            owner,
            requests: atomic::AtomicU64::new(1),
            opened_at: now,
            cold: Mutex::new(Cold {
                phase: Phase::Opening { closed_early: None },
                issuer: Issuer::Inner,
                stage: permit.map(Permit::stow),
                terminate: None,
                extras: None,
                late: 0,
            }),
        }
    }

    /// Names the session, if it has no name yet: it has one opener.
    pub(super) fn name(&self, id: SessionId, issuer: Issuer) {
        let mut cold = self.cold();
        if self.id.set(id).is_ok() {
            cold.issuer = issuer;
        }
    }

    pub(crate) fn id(&self) -> Option<&SessionId> {
        self.id.get()
    }

    pub(crate) fn is_issued_by_layer(&self) -> bool {
        self.cold().issuer == Issuer::Layer
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.id().map_or(Fingerprint::unnamed(), SessionId::fingerprint)
    }

    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.owner.principal()
    }

    pub(crate) fn client(&self) -> Option<&ClientInfo> {
        self.owner.client()
    }

    /// Where the session was opened, as its opener calls it.
    pub(crate) fn endpoint(&self) -> &str {
        self.owner.endpoint()
    }

    /// Whether requests at this endpoint belong to the session.
    #[inline]
    pub(crate) fn is_at(&self, endpoint: &str) -> bool {
        self.owner.endpoint() == endpoint
    }

    pub(super) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    pub(super) fn home(&self) -> &Home {
        self.owner.home()
    }

    pub(crate) fn opened_at(&self) -> Millis {
        self.opened_at
    }

    pub(crate) fn word(&self) -> Word {
        self.activity.load()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(atomic::Ordering::Relaxed)
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, atomic::Ordering::Relaxed);
    }

    /// Forgets a request that turned out not to be the session's.
    pub(crate) fn uncount_request(&self) {
        self.requests.fetch_sub(1, atomic::Ordering::Relaxed);
    }

    /// What the server behind is told through, while the session is open.
    pub(crate) fn terminate(&self) -> Option<Terminator> {
        self.cold().terminate.clone()
    }

    /// Streams open now.
    pub(crate) fn streams(&self) -> usize {
        self.cold().extras().map_or(0, |extras| extras.streams.len())
    }

    pub(super) fn get_streams(&self) -> Vec<Weak<dyn OpenStream>> {
        let cold = self.cold();
        let listed = cold.extras().into_iter().flat_map(|extras| extras.streams.iter());
        listed.filter(|(_, one)| one.is_get).map(|(_, one)| one.stream.clone()).collect()
    }

    /// Resolves when the session has closed.
    pub(super) async fn closed(&self) {
        let notify = {
            let mut cold = self.cold();
            let Some(extras) = cold.extras_mut() else {
                return;
            };
            Arc::clone(extras.closed.get_or_insert_default())
        };
        let closed = notify.notified();
        // The close takes the notify out under the lock we just left, then wakes those who wait:
        // look again before waiting, or a close in between would be missed.
        tokio::pin!(closed);
        closed.as_mut().enable();
        if self.cold().phase != Phase::Closed {
            closed.await;
        }
    }

    /// The server behind has opened the session, and can be told of its end.
    pub(super) fn go_live(&self, terminate: Terminator) {
        let mut cold = self.cold();
        cold.terminate = Some(terminate);
        if let Some(stage) = cold.stage.take() {
            let mut permit = self.owner.permit(stage);
            permit.advance(Stage::Live);
            cold.stage = Some(permit.stow());
        }
    }

    /// Ends the last phase and hands out what the session held, unless it is still being opened: then
    /// the opener does that, for the reason that is left behind. With `keeps_state`, the state stays
    /// until [`take_state`](Self::take_state).
    ///
    /// `in_flight` guards have yet to leave.
    pub(super) fn end(
        &self,
        reason: CloseReason,
        keeps_state: bool,
        in_flight: u64,
    ) -> Option<Remains> {
        let mut cold = self.cold();
        match &mut cold.phase {
            Phase::Opening { closed_early } => {
                *closed_early = Some(reason);
                None
            }
            Phase::Open => {
                // Some may have left since the word was closed.
                cold.late += in_flight as i32;
                let kept = cold.terminate.clone().filter(|_| cold.late > 0);
                let remains = cold.close(&self.owner, keeps_state);
                cold.terminate = kept;
                Some(remains)
            }
            // The opening was given up between the word and this: it never was in the table.
            Phase::Closed => None,
        }
    }

    /// A guard has left a session that is closed.
    #[cold]
    pub(super) fn left_closed(&self) {
        let endpoint = {
            let mut cold = self.cold();
            cold.late -= 1;
            if cold.late == 0 && cold.phase == Phase::Closed { cold.terminate.take() } else { None }
        };
        drop(endpoint);
    }

    /// The same for a session that never was open.
    pub(super) fn end_unopened(&self, keeps_state: bool) -> Remains {
        self.cold().close(&self.owner, keeps_state)
    }

    /// The state that stayed when the session closed, to be dropped without a lock held.
    pub(super) fn take_state(&self) -> StateMap {
        let extras = self.cold().extras.take();
        extras.map_or_else(StateMap::new, |extras| extras.state)
    }

    /// Takes over the state of another, which has none of its own yet.
    pub(super) fn give_state(&self, state: StateMap) {
        if let Some(extras) = self.cold().extras_mut().filter(|_| !state.is_empty()) {
            extras.state = state;
        }
    }

    pub(super) fn cold(&self) -> MutexGuard<'_, Cold> {
        // No user code runs under this lock; a poisoned one is as consistent as any.
        self.cold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cold {
    pub(super) fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// `None` once closed: what would be put there, nobody would take out.
    pub(super) fn extras_mut(&mut self) -> Option<&mut Extras> {
        if self.phase == Phase::Closed {
            return None;
        }
        Some(self.extras.get_or_insert_default())
    }

    fn close(&mut self, owner: &Owner, keeps_state: bool) -> Remains {
        self.phase = Phase::Closed;
        let mut extras = self.extras.take();
        if let Some(extras) = extras.as_mut().filter(|all| keeps_state && !all.state.is_empty()) {
            let state = std::mem::take(&mut extras.state);
            self.extras = Some(Box::new(Extras { state, ..Extras::default() }));
        }
        Remains {
            permit: self.stage.take().map(|stage| owner.permit(stage)),
            terminate: self.terminate.take(),
            extras,
        }
    }
}

impl Drop for Record {
    /// A session is closed before it is dropped. Were it not, its place would be given back here.
    fn drop(&mut self) {
        let cold = self.cold.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(cold.stage.take().map(|stage| self.owner.permit(stage)));
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("session", &self.fingerprint())
            .field("activity", &self.word())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mcp_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_record_weighs_no_more_than_it_has_to() {
        assert_eq!(size_of::<Record>(), 112);
    }
}
