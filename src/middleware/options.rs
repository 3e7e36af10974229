//! What a user can set, with its defaults, before a registry is made of it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Extensions, Response, request::Parts};

use crate::{
    lifecycle::{Hook, Limits, Principal, Session, Timeouts, WhenFull, span},
    protocol::Rejection,
};

pub(super) type IdentifyHook = Arc<dyn Fn(&Parts) -> Option<Principal> + Send + Sync>;
pub(super) type RejectHook =
    Arc<dyn Fn(Rejection, Response<Bytes>) -> Response<Bytes> + Send + Sync>;
pub(super) type TerminateHook = Arc<dyn Fn(&Session, &mut Parts) + Send + Sync>;
pub(super) type IdGenerator = Arc<dyn Fn() -> String + Send + Sync>;

/// What to do with a well-formed id that is not in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownIds {
    /// Answer 404, which makes the client open a new session. The default: the server behind is
    /// not bothered with ids that this layer never saw opened.
    #[default]
    Reject,
    /// Ask the server behind, and adopt the session if it answers with success. For servers that
    /// restore sessions from a store of their own after a restart (rmcp's `SessionStore`).
    ///
    /// The first caller to present such an id becomes its owner, so the store must check owners
    /// itself. Ids that were closed here (the last 16,384) stay 404. DELETE is passed on and never
    /// adopts. Requests with one id are restored one after the other. A shutdown does not tell the
    /// server behind of its closes: the store keeps the sessions for the next process. Name the
    /// endpoint with [`path`](crate::McpSessionLayer::path): any other route that answers JSON would
    /// seem to know every id.
    Forward,
}

/// When the answer to `initialize` is held back for up to 10 ms, to see whether its client hangs up.
///
/// Once the answer is written, nobody can tell that its client had already gone: the session stays until
/// [`unused_timeout`](crate::McpSessionLayer::unused_timeout). A client that hangs up *before* the answer is always
/// seen, whatever is chosen here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HangUpGrace {
    /// For a minute after a client hung up while its session was being opened. The default: costs nothing while
    /// clients are calm. Of a burst of hang-ups, those before the first that is seen may each leave a session for
    /// `unused_timeout`.
    #[default]
    WhenSeen,
    /// Always: every `initialize` takes 10 ms, or as long as the server if that is longer.
    Always,
    /// Never: a client that hangs up as the answer is written leaves a session for `unused_timeout`.
    Never,
}

/// Takes an extension of one type over, if it is there.
pub(super) type KeepExtension = Arc<dyn Fn(&Extensions, &mut Extensions) + Send + Sync>;

#[derive(Clone)]
pub(super) struct Options {
    pub(super) idle_timeout: Option<Duration>,
    pub(super) unused_timeout: Duration,
    pub(super) max_lifetime: Option<Duration>,
    pub(super) open_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) stream_lifetime: Option<Duration>,
    pub(super) heartbeat: Option<Duration>,
    pub(super) streams_hold: bool,
    pub(super) max_streams: usize,
    pub(super) max_sessions: usize,
    pub(super) max_sessions_per_principal: Option<usize>,
    pub(super) when_full: WhenFull,
    pub(super) unknown_ids: UnknownIds,
    pub(super) forward_missing_ids: bool,
    pub(super) mint_ids: bool,
    pub(super) allow_anonymous: bool,
    pub(super) paths: Vec<Box<str>>,
    pub(super) identify: Option<IdentifyHook>,
    pub(super) events: Vec<Hook>,
    pub(super) reject: Option<RejectHook>,
    pub(super) terminate: Option<TerminateHook>,
    pub(super) id_generator: Option<IdGenerator>,
    pub(super) hang_up_grace: HangUpGrace,
    pub(super) keep: Vec<KeepExtension>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(30 * 60)),
            unused_timeout: Duration::from_secs(60),
            max_lifetime: None,
            open_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            stream_lifetime: None,
            heartbeat: None,
            streams_hold: true,
            max_streams: 16,
            max_sessions: 10_000,
            max_sessions_per_principal: None,
            when_full: WhenFull::Reject,
            unknown_ids: UnknownIds::Reject,
            forward_missing_ids: false,
            mint_ids: true,
            allow_anonymous: false,
            paths: Vec::new(),
            identify: None,
            events: Vec::new(),
            reject: None,
            terminate: None,
            id_generator: None,
            hang_up_grace: HangUpGrace::default(),
            keep: Vec::new(),
        }
    }
}

impl Options {
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts {
            idle: self.idle_timeout.and_then(span),
            unused: span(self.unused_timeout),
            lifetime: self.max_lifetime.and_then(span),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        let Timeouts { idle, unused, lifetime } = self.timeouts();
        let [stream, beat] = [self.stream_lifetime, self.heartbeat].map(|d| d.and_then(span));
        Limits {
            max_sessions: self.max_sessions,
            max_sessions_per_principal: self.max_sessions_per_principal,
            when_full: self.when_full,
            close_timeout: self.close_timeout,
            shortest: [idle, unused, lifetime, stream, beat].into_iter().flatten().min(),
            remember_closed: self.unknown_ids == UnknownIds::Forward,
        }
    }

    /// Says aloud what will hurt later.
    pub(super) fn warn_of_traps(&self) {
        if !self.timeouts().reclaims_idle() {
            tracing::warn!(
                max_sessions = self.max_sessions,
                "a cap without an idle timeout or a maximum lifetime: most clients never close \
                 their session, so the table fills up and then refuses everyone"
            );
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("idle_timeout", &self.idle_timeout)
            .field("unused_timeout", &self.unused_timeout)
            .field("max_lifetime", &self.max_lifetime)
            .field("max_sessions", &self.max_sessions)
            .field("max_sessions_per_principal", &self.max_sessions_per_principal)
            .field("when_full", &self.when_full)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}
