//! The operator's handle.

use std::{sync::Arc, time::Duration};

use crate::{
    lifecycle::{
        CloseReason, Principal, Registry, Session, SessionEvents, SessionInfo, Stats,
        UnendedSession,
    },
    protocol::Fingerprint,
};

/// Sees and closes the sessions of a layer, from outside of any request.
///
/// From [`McpSessionLayer::sessions`](crate::McpSessionLayer::sessions). Cheap to clone; all clones
/// see the same sessions.
///
/// ```
/// use axum::{Json, Router, extract::State, routing::get};
/// use mcp_session_layer::{McpSessionLayer, SessionInfo, Sessions};
///
/// async fn list(State(sessions): State<Sessions>) -> Json<Vec<SessionInfo>> {
///     Json(sessions.list())
/// }
///
/// let layer = McpSessionLayer::new();
/// let admin: Router = Router::new().route("/sessions", get(list)).with_state(layer.sessions());
/// ```
#[derive(Clone, Debug)]
pub struct Sessions {
    registry: Arc<Registry>,
}

impl Sessions {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    /// Sessions in the table. An expired session counts until it is reclaimed, a tick later.
    pub fn len(&self) -> usize {
        self.registry.live()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The session with this id. Does not count as activity.
    pub fn get(&self, id: &str) -> Option<Session> {
        self.registry.find(id.as_bytes()).map(|record| Session::of(&record))
    }

    /// The session that logs, events and listings show under this name. Walks the table.
    pub fn find(&self, session: Fingerprint) -> Option<Session> {
        let records = self.registry.records();
        let record = records.iter().find(|record| record.fingerprint() == session)?;
        Some(Session::of(record))
    }

    /// Every session, as it is now: a copy without ids that can be printed or serialized.
    pub fn list(&self) -> Vec<SessionInfo> {
        let records = self.registry.records();
        records.iter().map(|record| Session::of(record).info()).collect()
    }

    /// Counts over the whole layer. Walks the table.
    pub fn stats(&self) -> Stats {
        self.registry.stats()
    }

    /// Sessions that were closed here and that the upstream server may still have, because its closing
    /// DELETE failed: the last 256 that were given up, the oldest first, then all that are being
    /// retried. How many there were in all is in [`Stats::unended`].
    pub fn unended(&self) -> Vec<UnendedSession> {
        self.registry.unended()
    }

    /// Closes the session with this id. False if there is none.
    pub fn close(&self, id: &str) -> bool {
        self.get(id).is_some_and(|session| session.close())
    }

    /// Closes every session of this principal, and says how many. Walks the table in one go. One whose
    /// `initialize` is being answered counts: its client gets no session.
    pub fn close_principal(&self, principal: &Principal) -> usize {
        self.registry.close_where(CloseReason::Requested, |owner| owner == Some(principal))
    }

    /// Closes every session, those that are being opened included, and says how many. New ones may be
    /// opened meanwhile and after.
    pub fn close_all(&self) -> usize {
        self.registry.close_where(CloseReason::Requested, |_| true)
    }

    /// The events from now on.
    pub fn subscribe(&self) -> SessionEvents {
        self.registry.events().subscribe()
    }

    /// Ends in order: refuses new sessions with 503, ends GET streams and refuses new ones, lets
    /// what is in flight finish for up to `grace`, closes all sessions, and waits up to
    /// `close_timeout` until the server behind has been told.
    ///
    /// Give it to axum before the listener stops, so that the last answers still get out. `serve`
    /// itself also waits for connections of clients that do not read what they were sent: bound it
    /// with a timeout, as the `production` example does.
    ///
    /// ```no_run
    /// # use std::{future::pending, time::Duration};
    /// # use axum::Router;
    /// # use mcp_session_layer::McpSessionLayer;
    /// # async fn signal() { pending::<()>().await }
    /// # async fn serve() -> std::io::Result<()> {
    /// let layer = McpSessionLayer::new();
    /// let sessions = layer.sessions();
    /// let app: Router = Router::new().layer(layer);
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    /// axum::serve(listener, app)
    ///     .with_graceful_shutdown(async move {
    ///         signal().await;
    ///         sessions.shutdown(Duration::from_secs(5)).await;
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// It cannot be undone. Calling it again, or dropping it half-way, does no harm.
    pub async fn shutdown(&self, grace: Duration) {
        self.registry.shut_down(grace).await;
    }
}
