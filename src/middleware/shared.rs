//! What all clones of a layer, and all services made from it, share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::extract::OriginalUri;
use http::{Extensions, Request, Uri};

use super::{
    counts::Counts,
    hang_ups::HangUps,
    options::{HangUpGrace, Options},
    paths::Paths,
    route::Kept,
    turns::Turns,
};
use crate::{
    lifecycle::{InFlight, Millis, Principal, Registry, Session, shielded, span},
    protocol::{Fingerprint, Rejection, SessionId},
};

/// Tries to make up an id that is not taken, before giving up on the generator.
const ATTEMPTS: usize = 4;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) registry: Arc<Registry>,
    pub(super) options: Options,
    pub(super) turns: Turns,
    /// POSTs under way that may open a session without our knowing.
    pub(super) doubtful: Counts<Bucket>,
    /// Clients that hung up while a session was opened for them.
    openings: HangUps,
    /// Clients that hung up on a POST of a live session; see [`super::under`].
    pub(super) calls: HangUps,
    paths: Paths,
    warned_of_unmanaged: AtomicBool,
    pub(super) stream_lifetime: Option<Millis>,
    pub(super) heartbeat: Option<Millis>,
    /// Empty, with room for what a router and we put there: a request's own would have to grow.
    room: Extensions,
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        options.warn_of_traps();
        let registry = Registry::new(options.timeouts(), options.limits(), options.events.clone());
        Self {
            registry,
            stream_lifetime: options.stream_lifetime.and_then(span),
            heartbeat: options.heartbeat.and_then(span),
            paths: Paths::new(&options.paths),
            options,
            turns: Turns::default(),
            doubtful: Counts::default(),
            openings: HangUps::default(),
            calls: HangUps::default(),
            warned_of_unmanaged: AtomicBool::new(false),
            room: room(),
        }
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Whether requests to this path are the layer's business.
    #[inline]
    pub(super) fn manages(&self, uri: &Uri) -> bool {
        self.paths.cover(uri.path())
    }

    /// Whether every managed path is known to be an MCP endpoint: the user named it.
    pub(super) fn names_paths(&self) -> bool {
        !self.options.paths.is_empty()
    }

    /// Says once that the paths may be wrong: a session passes by.
    #[cold]
    pub(super) fn warn_of_unmanaged(&self, path: &str) {
        if !self.warned_of_unmanaged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                path,
                managed = ?self.options.paths,
                "an answer outside of the managed paths names a session: nobody will end it. \
                 `path` takes the path as the layer sees it, inside `nest` without the prefix"
            );
        }
    }

    /// The request came to another endpoint than its session's: there the id is unknown, and it counts for nothing.
    #[cold]
    pub(super) fn misplaced(&self, in_flight: InFlight) {
        let record = Arc::clone(in_flight.record());
        record.uncount_request();
        in_flight.end_quietly();
        self.registry.look_at(&record);
    }

    /// The answer to a request whose session has closed meanwhile.
    #[cold]
    pub(super) fn why_closed(&self) -> Rejection {
        if self.registry.is_draining() {
            Rejection::ShuttingDown
        } else {
            Rejection::SessionNotFound
        }
    }

    /// Whether the bodies of POSTs under live ids are to be read.
    #[cold]
    pub(super) fn is_wary(&self) -> bool {
        self.calls.are_recent(self.registry.clock().now())
    }

    /// Whether answers to `initialize` are held back now, to see their clients hang up.
    pub(super) fn holds_back(&self) -> bool {
        match self.options.hang_up_grace {
            HangUpGrace::WhenSeen => self.openings.are_recent(self.registry.clock().now()),
            HangUpGrace::Always => true,
            HangUpGrace::Never => false,
        }
    }

    /// A client hung up while a session was opened for it.
    pub(super) fn note_hang_up(&self) {
        self.openings.note(self.registry.clock().now());
    }

    /// What the user wants of the request for the closing DELETE of a session that comes of it.
    pub(super) fn kept<T>(&self, request: &Request<T>) -> Option<Kept> {
        if self.options.keep.is_empty() {
            return None;
        }
        let mut kept = Extensions::new();
        for keep in &self.options.keep {
            keep(request.extensions(), &mut kept);
        }
        Some(Kept(kept))
    }

    /// Keeps that in the session's state.
    pub(super) fn keep_extensions<T>(&self, session: &Session, request: &Request<T>) {
        if let Some(kept) = self.kept(request) {
            kept.put(session);
        }
    }

    /// Whether anybody asks who sent a request.
    pub(super) fn identifies(&self) -> bool {
        self.options.identify.is_some()
    }

    /// Puts the session into the request.
    #[inline]
    pub(super) fn insert<T>(&self, session: Session, request: &mut Request<T>) {
        let extensions = request.extensions_mut();
        if extensions.is_empty() {
            extensions.clone_from(&self.room);
        }
        extensions.insert(session);
    }

    /// Who sent the request, if anybody asks. The hook wants `Parts`, so the request is taken
    /// apart and put together again, but only where there is a hook.
    pub(super) fn identify<T>(&self, request: Request<T>) -> (Option<Principal>, Request<T>) {
        let Some(identify) = &self.options.identify else {
            return (None, request);
        };
        let (parts, body) = request.into_parts();
        let principal = identify(&parts);
        (principal, Request::from_parts(parts, body))
    }

    /// Whether this caller may open a session.
    pub(super) fn may_open(&self, principal: Option<&Principal>) -> Result<(), Rejection> {
        let anonymous = principal.is_none() && self.options.identify.is_some();
        if anonymous && !self.options.allow_anonymous {
            return Err(Rejection::PrincipalRequired);
        }
        Ok(())
    }

    /// An id for a server that issues none.
    pub(super) fn mint(&self) -> Result<SessionId, Rejection> {
        let Some(generator) = &self.options.id_generator else {
            return SessionId::new(uuid::Uuid::new_v4().to_string());
        };
        (0..ATTEMPTS)
            .filter_map(|_| shielded("id generator", || generator()))
            .filter_map(|id| SessionId::new(&id).ok())
            .find(|id| self.registry.find(id.as_bytes()).is_none() && !self.registry.was_closed(id))
            .ok_or(Rejection::UnusableId)
    }
}

/// A map keeps its room when it is cleared and when it is cloned. axum adds three: with ours that is one more
/// than the smallest map holds.
fn room() -> Extensions {
    #[derive(Clone)]
    struct Filler<const N: usize>;

    let mut room = Extensions::new();
    room.insert(Filler::<0>);
    room.insert(Filler::<1>);
    room.insert(Filler::<2>);
    room.insert(Filler::<3>);
    room.clear();
    room
}

/// The endpoint of a request: its path outside of every `nest`. A slash at the end makes no difference. The inner
/// service is not part of it: axum applies the layer anew for every connection, so one service cannot be told from
/// another.
#[inline]
pub(super) fn endpoint_of<T>(request: &Request<T>) -> &str {
    let uri = request.extensions().get::<OriginalUri>().map_or(request.uri(), |uri| &uri.0);
    let mut path = uri.path();
    while let Some(shorter) = path.strip_suffix('/') {
        path = shorter;
    }
    path
}

/// Of whom doubtful requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bucket {
    Principal(Option<Principal>),
    Session(Fingerprint),
    LongOf(Fingerprint),
}
