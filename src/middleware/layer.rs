//! The layer and its settings.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, Response, request::Parts};
use tower::Layer;

use super::{
    options::{HangUpGrace, Options, UnknownIds},
    paths,
    service::McpSessionService,
    shared::Shared,
};
use crate::{
    lifecycle::{Principal, Session, SessionEvent, WhenFull},
    protocol::Rejection,
    sessions::Sessions,
};

/// Owns the sessions of the MCP server it is applied to.
///
/// A [`tower::Layer`] for [`axum::Router::layer`] or any `Service<Request<axum::body::Body>>`. All
/// clones, and all services made from them, share one table of sessions.
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::post};
/// use mcp_session_layer::McpSessionLayer;
///
/// let app: Router = Router::new()
///     .route("/mcp", post(|| async { "an MCP server" }))
///     .layer(McpSessionLayer::new().idle_timeout(Duration::from_secs(30 * 60)))
///     .with_state(());
/// ```
///
/// Around handlers, axum applies a layer when the router is made a service, which `axum::serve` does for
/// every connection. A session keeps what it was opened through, to tell the server there of its close: if
/// that is its own connection's, it weighs four times as much. End such a router with `.with_state(())`, and
/// the layer is applied once. Services (`route_service`) have it applied once anyway.
///
/// The server behind is told of a close through the service that opened the session. On a
/// `MethodRouter` with several methods `Router::layer` wraps each of them on its own, so a server
/// that issues its ids and has a DELETE handler goes to the layer whole:
///
/// ```
/// use axum::{Router, routing::post};
/// use mcp_session_layer::McpSessionLayer;
/// use tower::Layer;
///
/// # async fn open_or_call() {}
/// # async fn end() {}
/// let server = post(open_or_call).delete(end);
/// let app: Router = Router::new().route_service("/mcp", McpSessionLayer::new().layer(server));
/// ```
///
/// # Panics
///
/// Setters panic on a zero duration or count, and on a layer that is already in use (it was applied
/// or asked for its [`sessions`](Self::sessions)): the running sessions would not follow.
#[derive(Clone)]
pub struct McpSessionLayer {
    // Behind one count: axum clones and applies a layer for every connection that it serves.
    setup: Arc<Setup>,
}

#[derive(Default)]
struct Setup {
    options: Options,
    shared: OnceLock<Arc<Shared>>,
}

impl Default for McpSessionLayer {
    fn default() -> Self {
        Self::new()
    }
}

/// # Time
impl McpSessionLayer {
    /// A layer with the defaults that each setter names.
    pub fn new() -> Self {
        Self { setup: Arc::default() }
    }

    /// Closes a session after this long with nothing in flight. Default: 30 minutes, longer than a
    /// person thinks and shorter than a forgotten laptop.
    ///
    /// A session is idle from the moment its last response *body* has ended or was dropped: a long
    /// call, an open POST stream, a [`Session::hold`] and, unless
    /// [`streams_hold(false)`](Self::streams_hold), an open GET stream keep it. It answers 404 from
    /// its deadline on and is gone at most a 64th of the shortest timeout later (10 ms to 1 s).
    /// `Duration::MAX` is never.
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        non_zero("idle_timeout", timeout);
        self.set(|options| options.idle_timeout = Some(timeout))
    }

    /// Never closes a session for idleness. Set [`max_lifetime`](Self::max_lifetime) then, or the
    /// table fills up: most clients never say goodbye. A warning is logged if neither is there.
    pub fn no_idle_timeout(self) -> Self {
        self.set(|options| options.idle_timeout = None)
    }

    /// Closes a session that no request followed after `initialize`, after this long (or after
    /// `idle_timeout`, if that is shorter). Default: 60 seconds, because an honest client goes on
    /// at once and a flood of `initialize` does not.
    pub fn unused_timeout(self, timeout: Duration) -> Self {
        non_zero("unused_timeout", timeout);
        self.set(|options| options.unused_timeout = timeout)
    }

    /// Closes every session at this age, also in the middle of a request. Default: never, because
    /// it cuts live work.
    pub fn max_lifetime(self, lifetime: Duration) -> Self {
        non_zero("max_lifetime", lifetime);
        self.set(|options| options.max_lifetime = Some(lifetime))
    }

    /// How long the server behind may take to answer `initialize`; then the client gets 504.
    /// Default: 30 seconds. The call goes on for as long again, to close a session that comes of
    /// it after all.
    pub fn open_timeout(self, timeout: Duration) -> Self {
        non_zero("open_timeout", timeout);
        self.set(|options| options.open_timeout = timeout)
    }

    /// When the answer to `initialize` is held back, to see its client hang up. Default:
    /// [`HangUpGrace::WhenSeen`].
    pub fn hang_up_grace(self, grace: HangUpGrace) -> Self {
        self.set(|options| options.hang_up_grace = grace)
    }

    /// How long the server behind may take to hear of one close, a client's own DELETE included, and
    /// a new session may wait for the place of one that is closing. Default: 5 seconds.
    pub fn close_timeout(self, timeout: Duration) -> Self {
        non_zero("close_timeout", timeout);
        self.set(|options| options.close_timeout = timeout)
    }
}

/// # Streams
impl McpSessionLayer {
    /// Ends every GET stream at this age, cleanly: a live client reconnects, a dead one does not,
    /// and its session can idle out. Default: never.
    pub fn stream_lifetime(self, lifetime: Duration) -> Self {
        non_zero("stream_lifetime", lifetime);
        self.set(|options| options.stream_lifetime = Some(lifetime))
    }

    /// Writes an SSE comment into an event stream that was silent for this long, so that a proxy
    /// keeps the connection and the kernel has something to send to a peer that may be gone. When
    /// it gives up is its own affair (a quarter of an hour; `TCP_USER_TIMEOUT` on the socket makes
    /// it shorter): for a bound, set [`stream_lifetime`](Self::stream_lifetime). Default: off,
    /// because some servers (rmcp) do it themselves. Only between events, and only into unencoded `text/event-stream`: put
    /// compression outside of this layer.
    pub fn heartbeat(self, every: Duration) -> Self {
        non_zero("heartbeat", every);
        self.set(|options| options.heartbeat = Some(every))
    }

    /// Whether an open GET stream keeps its session from idling out. Default: true, because a
    /// client that listens is there. POST responses always hold.
    pub fn streams_hold(self, hold: bool) -> Self {
        self.set(|options| options.streams_hold = hold)
    }

    /// GET streams a session may have open; one more is 429. Default: 16, room for reconnects
    /// whose dead predecessors were not noticed yet.
    pub fn max_streams(self, max: usize) -> Self {
        let max = non_zero_count("max_streams", max);
        self.set(|options| options.max_streams = max)
    }
}

/// # Limits and owners
impl McpSessionLayer {
    /// Sessions that may exist at once, counting those being opened and closed; 2,097,151 at the
    /// most. Default: 10,000,
    /// because there must be a bound; size it by what a session costs the server behind. What
    /// happens at the cap is [`when_full`](Self::when_full)'s.
    pub fn max_sessions(self, max: usize) -> Self {
        let max = non_zero_count("max_sessions", max);
        self.set(|options| options.max_sessions = max)
    }

    /// What to do at a cap. Default: [`WhenFull::Reject`].
    pub fn when_full(self, policy: WhenFull) -> Self {
        self.set(|options| options.when_full = policy)
    }

    /// Sessions one principal may have; one more is 429. Default: no limit but `max_sessions`.
    /// Without [`principal`](Self::principal) there is nobody to count.
    pub fn max_sessions_per_principal(self, max: usize) -> Self {
        let max = non_zero_count("max_sessions_per_principal", max);
        self.set(|options| options.max_sessions_per_principal = Some(max))
    }

    /// Binds sessions to who opened them. `identify` reads the *verified* identity that an
    /// authentication layer outside of this one left in the request; never a token, which would be
    /// kept and shown in listings, and which changes when it is refreshed.
    ///
    /// From then on the session id alone is worth nothing: a request with another identity, or none,
    /// gets the same 404 as an unknown id. Opening without an identity is 403 unless
    /// [`allow_anonymous`](Self::allow_anonymous). Default: sessions belong to whoever has the id.
    /// A panic of `identify` is that of the request.
    ///
    /// ```
    /// use mcp_session_layer::McpSessionLayer;
    ///
    /// #[derive(Clone)]
    /// struct User { subject: String }
    ///
    /// let layer = McpSessionLayer::new()
    ///     .principal(|parts| parts.extensions.get::<User>().map(|user| user.subject.clone()));
    /// ```
    pub fn principal<F, P>(self, identify: F) -> Self
    where
        F: Fn(&Parts) -> Option<P> + Send + Sync + 'static,
        P: Into<Principal>,
    {
        let identify = move |parts: &Parts| identify(parts).map(Into::into);
        self.set(|options| options.identify = Some(Arc::new(identify)))
    }

    /// Lets callers without an identity open sessions too. Those belong to nobody: any other caller
    /// without an identity that has the id may use them.
    pub fn allow_anonymous(self) -> Self {
        self.set(|options| options.allow_anonymous = true)
    }
}

/// # Where and how
impl McpSessionLayer {
    /// Minds only requests to this path and below it, as the layer sees it (inside `Router::nest`
    /// that is without the prefix); everything else passes through as if the layer were not there.
    /// May be given more than once. Default: every path, where what is not MCP passes through too,
    /// but a stray `Mcp-Session-Id` or JSON-RPC message on another route is answered as on this one,
    /// a JSON body is read (64 KiB, 10 s at the most) before the handler sees it, and the hang-up of
    /// a client cancels a POST without an id only within `open_timeout`.
    ///
    /// `{name}` stands for one segment and `{*name}`, at the end, for the rest, as in axum's router.
    ///
    /// Every path by which a request can reach the MCP server must be covered: what is not passes
    /// without a look at whose session it is. Paths are compared as they are sent, undecoded. An answer outside of
    /// the managed paths that names a session is logged, once.
    ///
    /// # Panics
    ///
    /// On a path that no request could match: it must start with `/`, be visible ASCII, and have no query; a
    /// parameter must be a whole segment.
    ///
    /// ```
    /// let layer = mcp_session_layer::McpSessionLayer::new().path("/{tenant}/mcp");
    /// ```
    pub fn path(self, path: impl Into<String>) -> Self {
        let path = path.into().into_boxed_str();
        if let Err(why) = paths::check(&path) {
            panic!("McpSessionLayer: no request matches the path {path:?}: {why}");
        }
        self.set(|options| options.paths.push(path))
    }

    /// What to do with ids that are not in the table. Default: [`UnknownIds::Reject`].
    pub fn unknown_ids(self, policy: UnknownIds) -> Self {
        self.set(|options| options.unknown_ids = policy)
    }

    /// Passes JSON-RPC messages without an id on to the server behind, instead of answering 400:
    /// for servers that answer some of them without a session.
    pub fn forward_missing_ids(self) -> Self {
        self.set(|options| options.forward_missing_ids = true)
    }

    /// Whether the layer makes up an id, and so a session, where the inner service answers `initialize` without one.
    /// Default: true. With `false`, such a server is taken for stateless: its answer passes, nothing is counted, and
    /// together with [`forward_missing_ids`](Self::forward_missing_ids) all its requests do.
    pub fn mint_ids(self, mint: bool) -> Self {
        self.set(|options| options.mint_ids = mint)
    }

    /// Makes up ids where the server behind issues none. Default: random UUIDs (version 4). They
    /// must be unguessable, unique, and 1 to 4096 bytes of visible ASCII: after four that are not,
    /// or are taken, `initialize` is answered 502.
    pub fn id_generator(self, generate: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.set(|options| options.id_generator = Some(Arc::new(generate)))
    }
}

/// # Hooks
///
/// They run on the path of a request or in the reaper, so they must be quick. A panic is logged and
/// ignored. A hook that keeps a [`Sessions`] keeps the layer alive.
impl McpSessionLayer {
    /// Calls `hook` with every [`SessionEvent`], in the thread in which it happened. May be given
    /// more than once.
    ///
    /// A hook may close sessions. Events that it causes are delivered after it has returned, to
    /// hooks and subscribers in the order in which they happened; [`Sessions::stats`] counts them
    /// at once. Only a session that a hook has opened is told of at once, before anybody can close
    /// it.
    pub fn on_event(self, hook: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        self.set(|options| options.events.push(Arc::new(hook)))
    }

    /// Lets `hook` replace the answer to a refused request; it is given the standard one.
    ///
    /// Keep the status of [`Rejection::SessionNotFound`]: clients recover from 404 and nothing else.
    ///
    /// ```
    /// use http::HeaderValue;
    /// use mcp_session_layer::{McpSessionLayer, Rejection};
    ///
    /// let layer = McpSessionLayer::new().reject_with(|why, mut response| {
    ///     if why == Rejection::TableFull {
    ///         response.headers_mut().insert("retry-after", HeaderValue::from_static("60"));
    ///     }
    ///     response
    /// });
    /// ```
    pub fn reject_with(
        self,
        hook: impl Fn(Rejection, Response<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.set(|options| options.reject = Some(Arc::new(hook)))
    }

    /// Lets `hook` add to the DELETE that tells the server behind of a close: a header for an
    /// authentication layer *inside* of this one, say. The request has the URI and `Host` of
    /// `initialize`, the session id and no other header; none with a credential is ever kept.
    pub fn terminate_with(
        self,
        hook: impl Fn(&Session, &mut Parts) + Send + Sync + 'static,
    ) -> Self {
        self.set(|options| options.terminate = Some(Arc::new(hook)))
    }
}

/// # The closing DELETE
impl McpSessionLayer {
    /// Keeps a clone of the extension `T` of `initialize`, and gives it to the DELETE that ends the session at the
    /// inner service. For handlers that insist on it: `ConnectInfo`, or an `Extension` that a layer outside of this
    /// one sets. Default: none, because an extension may be a credential, and costs memory a session.
    ///
    /// `Path`, `MatchedPath` and `OriginalUri` are there anyway: they follow from the URI.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use mcp_session_layer::McpSessionLayer;
    ///
    /// let layer = McpSessionLayer::new().keep_extension::<ConnectInfo<SocketAddr>>();
    /// ```
    pub fn keep_extension<T: Clone + Send + Sync + 'static>(self) -> Self {
        let keep = |from: &Extensions, to: &mut Extensions| {
            if let Some(extension) = from.get::<T>() {
                to.insert(extension.clone());
            }
        };
        self.set(|options| options.keep.push(Arc::new(keep)))
    }
}

impl McpSessionLayer {
    /// The operator's handle to the sessions of this layer and its clones.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(Arc::clone(self.shared().registry()))
    }

    fn shared(&self) -> &Arc<Shared> {
        let Setup { options, shared } = &*self.setup;
        shared.get_or_init(|| Arc::new(Shared::new(options.clone())))
    }

    /// A changed layer is another layer: it does not share with clones made before.
    fn set(self, change: impl FnOnce(&mut Options)) -> Self {
        assert!(
            self.setup.shared.get().is_none(),
            "McpSessionLayer: configure the layer before it is applied or asked for its sessions"
        );
        let mut options = self.setup.options.clone();
        change(&mut options);
        Self { setup: Arc::new(Setup { options, ..Setup::default() }) }
    }
}

fn non_zero(name: &str, duration: Duration) {
    assert!(!duration.is_zero(), "McpSessionLayer: {name} must not be zero");
}

fn non_zero_count(name: &str, count: usize) -> usize {
    assert!(NonZeroUsize::new(count).is_some(), "McpSessionLayer: {name} must not be zero");
    count
}

impl<S: Clone> Layer<S> for McpSessionLayer {
    type Service = McpSessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        McpSessionService::new(inner, Arc::clone(self.shared()))
    }
}

impl fmt::Debug for McpSessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpSessionLayer")
            .field("options", &self.setup.options)
            .finish_non_exhaustive()
    }
}
