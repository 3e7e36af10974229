//! What is kept of a session.
//!
//! The map holds it, guards hold it, and it holds nothing that points back: neither the map nor
//! the registry. What every request reads stands first; the rest is behind a lock, and what most
//! sessions never need behind a box.

use std::{
    fmt,
    sync::{Arc, OnceLock, PoisonError, Weak, atomic},
};

use slab::Slab;
use tokio::sync::Notify;

use super::{
    activity::{Activity, Word},
    clock::Millis,
    closer::Terminate,
    events::CloseReason,
    opening::Issuer,
    permits::Permit,
    principal::Principal,
    state::StateMap,
    streams::{Listed, OpenStream},
    sync::{Mutex, MutexGuard},
};
use crate::protocol::{ClientInfo, Fingerprint, SessionId};

pub(crate) struct Record {
    pub(crate) activity: Activity,
    requests: atomic::AtomicU64,
    opened_at: Millis,
    identity: OnceLock<Identity>,
    principal: Option<Principal>,
    client: Option<Box<ClientInfo>>,
    cold: Mutex<Cold>,
}

/// Set once, when the session is opened.
struct Identity {
    id: SessionId,
    issuer: Issuer,
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
    pub(super) permit: Option<Permit>,
    pub(super) terminate: Option<Arc<dyn Terminate>>,
    extras: Option<Box<Extras>>,
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
    pub(super) terminate: Option<Arc<dyn Terminate>>,
    pub(super) extras: Option<Box<Extras>>,
}

impl Record {
    pub(super) fn opening(
        now: Millis,
        principal: Option<Principal>,
        client: Option<Box<ClientInfo>>,
    ) -> Self {
        Self {
            activity: Activity::opening(now),
            requests: atomic::AtomicU64::new(1),
            opened_at: now,
            identity: OnceLock::new(),
            principal,
            client,
            cold: Mutex::new(Cold {
                phase: Phase::Opening { closed_early: None },
                permit: None,
                terminate: None,
                extras: None,
            }),
        }
    }

    pub(super) fn name(&self, id: SessionId, issuer: Issuer) {
        // Named once, by the opener that owns this record.
        let _ = self.identity.set(Identity { id, issuer });
    }

    pub(crate) fn id(&self) -> Option<&SessionId> {
        self.identity.get().map(|identity| &identity.id)
    }

    pub(crate) fn is_issued_by_layer(&self) -> bool {
        self.identity.get().is_some_and(|identity| identity.issuer == Issuer::Layer)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.id().map_or(Fingerprint::unnamed(), SessionId::fingerprint)
    }

    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    pub(crate) fn client(&self) -> Option<&ClientInfo> {
        self.client.as_deref()
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

    /// What the server behind is told through, while the session is open.
    pub(crate) fn terminate(&self) -> Option<Arc<dyn Terminate>> {
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

    /// Ends the last phase and hands out what it held.
    pub(super) fn close(&mut self) -> Remains {
        self.phase = Phase::Closed;
        Remains {
            permit: self.permit.take(),
            terminate: self.terminate.take(),
            extras: self.extras.take(),
        }
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
