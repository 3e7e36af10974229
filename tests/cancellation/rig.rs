//! rmcp behind the layer, in process, and what must be true of both when nobody is there.

use std::{
    collections::{HashMap, HashSet},
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use mcp_session_layer::{McpSessionLayer, McpSessionService, Sessions, UnknownIds};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock,
        InitializeRequestParams, InitializeResult, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService,
        session::{SessionState, SessionStore, SessionStoreError, local::LocalSessionManager},
    },
};
use serde_json::json;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt};

use super::{Twist, exchange::Exchange};
use crate::common::{FakeServer, Watched, initialize, json_post, net::ms, unique, watch, with_id};

pub(crate) type Service = StreamableHttpService<Tools, LocalSessionManager>;

/// Longer than any exchange takes, where no deadline is wanted.
const IDLE: Duration = Duration::from_secs(600);
/// Where one is.
pub(crate) const IDLE_SOON: Duration = Duration::from_millis(60);
pub(crate) const TOO_OLD: Duration = Duration::from_millis(80);
/// Few, so that a permit that does not come back is missed at once.
const CAP: usize = 2;
/// More than anything takes to be over. In paused time this costs nothing.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    Paused,
    Real,
}

/// The handler of one session; rmcp drops it with the session.
pub(crate) struct Tools(Arc<AtomicUsize>);

impl Tools {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(alive))
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        sleep(ms(2)).await;
        context.peer.set_peer_info(request.clone());
        self.negotiate_initialize(&request)
    }

    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        sleep(ms(5)).await;
        Ok(CallToolResult::success(vec![ContentBlock::text("slept")]).into())
    }
}

pub(crate) struct Rig {
    service: McpSessionService<Service>,
    pub(crate) sessions: Sessions,
    watched: Watched,
    manager: Arc<LocalSessionManager>,
    handlers: Arc<AtomicUsize>,
    store: Arc<Store>,
    /// What rmcp's store keeps of a session.
    state: Option<SessionState>,
    times: Times,
    /// Sessions may be gone before they are used.
    short_lived: bool,
    shut_down: bool,
    restores: bool,
    /// Whether to look for the ids in the log: that takes longer the longer the log is.
    learns: bool,
    cases: usize,
}

impl Rig {
    pub(crate) async fn new(twist: Twist, exchange: Exchange, times: Times, learns: bool) -> Self {
        let layer = McpSessionLayer::new().max_sessions(CAP);
        let layer = match twist {
            Twist::PastTheDeadline | Twist::AroundTheDeadline => {
                layer.idle_timeout(IDLE_SOON).unused_timeout(IDLE_SOON)
            }
            Twist::TooOld => layer.idle_timeout(IDLE).max_lifetime(TOO_OLD),
            _ => layer.idle_timeout(IDLE).unused_timeout(IDLE),
        };
        let mut config = StreamableHttpServerConfig::default();
        config.sse_keep_alive = Some(ms(3));
        let store = Arc::new(Store::default());
        let layer = if exchange.restores() {
            config.session_store = Some(Arc::clone(&store) as Arc<dyn SessionStore>);
            layer.unknown_ids(UnknownIds::Forward)
        } else {
            layer
        };
        let mut manager = LocalSessionManager::default();
        manager.session_config.keep_alive = None;
        let manager = Arc::new(manager);
        let handlers = Arc::new(AtomicUsize::new(0));
        let alive = Arc::clone(&handlers);
        let rmcp = StreamableHttpService::new(
            move || Ok(Tools::new(&alive)),
            Arc::clone(&manager),
            config,
        );
        let (layer, watched) = watch(&FakeServer::default(), layer);
        let mut rig = Self {
            service: layer.layer(rmcp),
            sessions: watched.sessions.clone(),
            watched,
            manager,
            handlers,
            store,
            state: None,
            times,
            short_lived: !matches!(
                twist,
                Twist::Nothing
                    | Twist::ClosedHalfWay
                    | Twist::ClosedBefore
                    | Twist::ClosedAfter
                    | Twist::ShuttingDown
            ),
            shut_down: twist == Twist::ShuttingDown,
            restores: exchange.restores(),
            learns,
            cases: 0,
        };
        if rig.restores {
            rig.open().await;
            let state = rig.store.0.lock().unwrap().values().next().cloned();
            rig.state = Some(state.unwrap());
            rig.clear("the first session").await;
        }
        rig
    }

    pub(crate) fn service(&self) -> McpSessionService<Service> {
        self.service.clone()
    }

    /// Opens a session as a client does.
    async fn open(&self) -> String {
        let (status, id) = self.send(initialize()).await;
        assert_eq!(status, 200, "the cap is usable");
        let id = id.unwrap();
        if self.learns && self.cases < 8 {
            self.watched.learn(&id);
        }
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let (status, _) = self.send(with_id(json_post(initialized.to_string()), &id)).await;
        assert!(status == 202 || status == 404 && self.short_lived, "{status}");
        id
    }

    async fn send(&self, mut request: http::Request<axum::body::Body>) -> (u16, Option<String>) {
        let accept = "application/json, text/event-stream".parse().unwrap();
        request.headers_mut().insert("accept", accept);
        let answer = self.service().oneshot(request).await.unwrap();
        let id = answer.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        (status, id)
    }

    /// The session that the exchange takes place in.
    pub(crate) async fn prepare(&mut self, exchange: Exchange) -> Option<String> {
        self.cases += 1;
        if let Some(state) = self.state.clone() {
            let id = unique("stored");
            self.store.0.lock().unwrap().insert(id.clone(), state);
            return Some(id);
        }
        let id = if exchange.is_in_a_session() { Some(self.open().await) } else { None };
        if exchange == Exchange::Delete {
            self.keep_rmcp_busy().await;
        }
        id
    }

    /// For a moment nobody can take a session out of rmcp's table, or DELETE would be over at once.
    async fn keep_rmcp_busy(&self) {
        let (manager, (ready, is_held)) = (Arc::clone(&self.manager), oneshot::channel());
        tokio::spawn(async move {
            let _held = manager.sessions.read().await;
            ready.send(()).unwrap();
            sleep(ms(4)).await;
        });
        is_held.await.unwrap();
    }

    /// What must be true as soon as the client is gone; `left` is how many sessions there are then.
    pub(crate) async fn assert_clean(&self, what: &str, left: Option<usize>) {
        self.until(what, "nothing in flight", async || {
            let stats = self.sessions.stats();
            (stats.in_flight, stats.streams, stats.opening, stats.closing) == (0, 0, 0, 0)
        })
        .await;
        if !self.outlives_the_layer() {
            self.until(what, "I6: no ghost on either side", async || self.ghosts().await == 0)
                .await;
        }
        if let Some(left) = left {
            // A session that nobody knows the id of comes and goes.
            let so = format!("{left} sessions are left");
            self.until(what, &so, async || self.sessions.stats().live == left).await;
        }
        self.clear(what).await;
        if self.shut_down {
            return;
        }
        // The counts have shown it already; this is to see that they do not lie.
        if self.cases.is_multiple_of(8) {
            let mut opened = Vec::new();
            for _ in 0..CAP {
                opened.push(self.send(initialize()).await.0);
            }
            let full = self.send(initialize()).await.0;
            if !self.short_lived {
                assert_eq!((opened, full), (vec![200; CAP], 503), "{what}: the cap is not whole");
            }
            self.clear(what).await;
        }
    }

    /// A layer that forwards unknown ids leaves rmcp its sessions when it is shut down.
    fn outlives_the_layer(&self) -> bool {
        self.shut_down && self.restores
    }

    /// Closes what is left, and sees that it is closed.
    async fn clear(&self, what: &str) {
        self.sessions.close_all();
        self.store.0.lock().unwrap().clear();
        self.until(what, "I4: all permits are back", async || {
            let stats = self.sessions.stats();
            (stats.live, stats.opening, stats.closing) == (0, 0, 0)
        })
        .await;
        if !self.outlives_the_layer() {
            self.until(what, "I6: rmcp has nothing left", async || {
                let handlers = self.handlers.load(Ordering::SeqCst);
                (self.manager.sessions.read().await.len(), handlers) == (0, 0)
            })
            .await;
        }
    }

    /// Sessions that one side has and the other has not.
    async fn ghosts(&self) -> usize {
        let held = self.manager.sessions.read().await;
        let of_rmcp: HashSet<_> = held.keys().map(ToString::to_string).collect();
        let common = of_rmcp.iter().filter(|id| self.sessions.get(id).is_some()).count();
        of_rmcp.len().abs_diff(common) + self.sessions.list().len().abs_diff(common)
    }

    async fn until(&self, what: &str, so: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so().await {
            let stats = self.sessions.stats();
            assert!(Instant::now() < deadline, "{what}: not in time: {so}: {stats:?}");
            sleep(ms(1)).await;
        }
    }

    /// The rest of the invariants: I3, I4 and I8 over all that has happened here.
    pub(crate) async fn finish(self) {
        drop(self.service);
        match self.times {
            Times::Paused => self.watched.finish().await,
            Times::Real => {
                self.watched.finish_in_real_time().await;
            }
        }
        assert_eq!(self.sessions.stats().terminate_failures, 0);
    }
}

/// rmcp's store of sessions.
#[derive(Default)]
pub(crate) struct Store(Mutex<HashMap<String, SessionState>>);

type Stored<'a, T> = BoxFuture<'a, Result<T, SessionStoreError>>;

// As `async_trait` would write it.
impl SessionStore for Store {
    fn load<'a, 'b, 'c>(&'a self, id: &'b str) -> Stored<'c, Option<SessionState>>
    where
        'a: 'c,
        'b: 'c,
    {
        let state = self.0.lock().unwrap().get(id).cloned();
        Box::pin(ready(Ok(state)))
    }

    fn store<'a, 'b, 'c, 'd>(&'a self, id: &'b str, state: &'c SessionState) -> Stored<'d, ()>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
    {
        self.0.lock().unwrap().insert(id.to_owned(), state.clone());
        Box::pin(ready(Ok(())))
    }

    fn delete<'a, 'b, 'c>(&'a self, id: &'b str) -> Stored<'c, ()>
    where
        'a: 'c,
        'b: 'c,
    {
        self.0.lock().unwrap().remove(id);
        Box::pin(ready(Ok(())))
    }
}
