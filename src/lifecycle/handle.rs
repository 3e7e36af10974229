//! The handle to one session, for handlers and operators.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    activity::Exit, clock::Clock, events::CloseReason, guard::Hold, principal::Principal,
    record::Record, registry::Registry, shield::shielded, snapshot::SessionInfo, state::State,
};
use crate::protocol::{ClientInfo, Fingerprint, SessionId};

/// The session that a request belongs to.
///
/// An axum extractor; the layer also puts it into the request's extensions, through which it
/// reaches handlers of the official Rust SDK (`http::request::Parts` in their context). Cloning is
/// cheap, and a clone does not keep the session open: see [`hold`](Self::hold) for that.
///
/// ```
/// use mcp_session_layer::Session;
///
/// async fn handler(session: Session) -> String {
///     format!("idle for {:?}", session.idle_for())
/// }
/// ```
#[derive(Clone)]
pub struct Session {
    record: Arc<Record>,
}

/// The session is closed or has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionClosed;

impl fmt::Display for SessionClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the session is closed")
    }
}

impl std::error::Error for SessionClosed {}

impl Session {
    pub(crate) fn of(record: &Arc<Record>) -> Self {
        Self { record: Arc::clone(record) }
    }

    /// Drops the state that stayed for the upstream server to be told.
    pub(super) fn forget_state(&self) {
        let state = self.record.take_state();
        shielded("session state", || drop(state));
    }

    pub(super) fn session_id(&self) -> Option<&SessionId> {
        self.record.id()
    }

    fn clock(&self) -> Clock {
        self.record.home().clock
    }

    fn registry(&self) -> Option<Arc<Registry>> {
        self.record.home().registry.upgrade()
    }

    /// The id, as in `Mcp-Session-Id`. `None` only while `initialize` is being answered: the
    /// server behind may be about to issue it.
    ///
    /// A secret: whoever has it may be taken for the client. Log
    /// [`fingerprint`](Self::fingerprint) instead.
    pub fn id(&self) -> Option<&str> {
        self.record.id().map(SessionId::as_str)
    }

    /// The name under which this session appears in logs, events and listings; all zeros while it
    /// has no id.
    pub fn fingerprint(&self) -> Fingerprint {
        self.record.fingerprint()
    }

    /// Whose session it is: what `principal` found when it was opened. `None` if it is anonymous.
    pub fn principal(&self) -> Option<&Principal> {
        self.record.principal()
    }

    /// What the client said of itself in `initialize`. `None` if that was not readable.
    pub fn client(&self) -> Option<&ClientInfo> {
        self.record.client()
    }

    /// When `initialize` arrived, on tokio's clock.
    pub fn opened_at(&self) -> Instant {
        self.clock().instant(self.record.opened_at())
    }

    /// Since the last request ended; zero while one is in flight, as inside a handler, and once
    /// closed.
    pub fn idle_for(&self) -> Duration {
        let word = self.record.word();
        if word.is_closed() || word.in_flight() > 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(self.clock().now().saturating_sub(word.last_activity()))
    }

    /// Typed values that live as long as the session, and until the upstream server has been told
    /// of its end.
    pub fn state(&self) -> State<'_> {
        State::new(&self.record)
    }

    /// Keeps the session from idling out until the guard is dropped, for work that outlives its
    /// response.
    ///
    /// ```
    /// use mcp_session_layer::{Session, SessionClosed};
    ///
    /// async fn start_job(session: Session) -> Result<(), SessionClosed> {
    ///     let hold = session.hold()?;
    ///     tokio::spawn(async move {
    ///         // ... the job ...
    ///         drop(hold);
    ///     });
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SessionClosed`] if there is nothing left to hold.
    pub fn hold(&self) -> Result<Hold, SessionClosed> {
        let registry = self.registry().ok_or(SessionClosed)?;
        // Not a use: a handler may hold the session while `initialize` is being answered.
        let held = registry.hold(Arc::clone(&self.record), Exit::Stamp);
        held.map(Hold::new).map_err(|_| SessionClosed)
    }

    /// Resolves when the session has closed, for whatever reason; at once if it already has.
    pub async fn closed(&self) {
        self.record.closed().await;
    }

    /// Whether the session has closed.
    pub fn is_closed(&self) -> bool {
        self.record.word().is_closed()
    }

    /// Closes the session (reason [`Requested`](CloseReason::Requested)): its streams end, its next
    /// request is a 404, the server behind is told. False if it was closed already.
    pub fn close(&self) -> bool {
        let registry = self.registry();
        registry.is_some_and(|registry| registry.close(&self.record, CloseReason::Requested))
    }

    /// A copy of what there is to see.
    pub fn info(&self) -> SessionInfo {
        SessionInfo {
            session: self.fingerprint(),
            principal: self.principal().cloned(),
            client: self.client().cloned(),
            age: self
                .clock()
                .instant(self.clock().now())
                .saturating_duration_since(self.opened_at()),
            idle_for: self.idle_for(),
            in_flight: self.record.word().in_flight(),
            streams: self.record.streams(),
            requests: self.record.requests(),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("session", &self.fingerprint())
            .field("principal", &self.principal())
            .field("activity", &self.record.word())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_session_says_so() {
        assert_eq!(SessionClosed.to_string(), "the session is closed");
    }
}
