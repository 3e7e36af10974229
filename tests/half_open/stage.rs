//! rmcp behind the layer in one namespace, a client in the other.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use axum::{Router, serve::ListenerExt};
use mcp_session_layer::{McpSessionLayer, Sessions, Stats};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Instant, sleep},
};

use super::net::{Pair, SERVER};
use crate::common::{
    FakeServer, Watched, initialize_body,
    net::{PATIENCE, Wire, ms, request, until},
    watch,
};

const ACCEPT: (&str, &str) = ("Accept", "application/json, text/event-stream");
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// What the server asks of its kernel for each connection.
#[derive(Clone, Copy)]
pub(crate) enum Sockets {
    /// Nothing but `TCP_NODELAY`, as axum's listener comes.
    Plain,
    /// What was sent must be acknowledged within this (`TCP_USER_TIMEOUT`).
    UserTimeout(Duration),
    /// A silent peer is probed after a second, each second, twice (`SO_KEEPALIVE`).
    Keepalive,
}

impl Sockets {
    fn set(self, stream: &TcpStream) {
        stream.set_nodelay(true).unwrap();
        let socket = SockRef::from(stream);
        match self {
            Self::Plain => {}
            Self::UserTimeout(timeout) => socket.set_tcp_user_timeout(Some(timeout)).unwrap(),
            Self::Keepalive => {
                let keepalive = TcpKeepalive::new().with_time(ms(1000)).with_interval(ms(1000));
                socket.set_tcp_keepalive(&keepalive.with_retries(2)).unwrap();
            }
        }
    }
}

/// What the client is in the middle of when it vanishes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amid {
    /// A GET stream, of which it has read the head.
    Listening,
    /// A tool that takes so long.
    Call(Duration),
    /// A result of eight megabytes, of which it has read the head.
    Large,
    /// A request of which it has sent the half.
    HalfARequest,
}

/// A tool server. rmcp drops it with its session.
struct Tools(Arc<AtomicUsize>);

impl Drop for Tools {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let number = |name: &str| arguments.get(name).and_then(Value::as_u64).unwrap_or(0);
        sleep(ms(number("ms"))).await;
        let text = "x".repeat(number("bytes") as usize);
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

/// A server, and one client that has vanished.
pub(crate) struct Stage {
    pub(crate) sessions: Sessions,
    pub(crate) pair: Pair,
    /// When the client was in the middle of what it did, and when it had vanished.
    pub(crate) opened: Instant,
    pub(crate) cut: Instant,
    watched: Watched,
    manager: Arc<LocalSessionManager>,
    handlers: Arc<AtomicUsize>,
    server: (oneshot::Sender<()>, JoinHandle<()>),
    client: (oneshot::Sender<()>, JoinHandle<()>),
}

impl Stage {
    /// The layer, with an idle timeout of a second.
    pub(crate) async fn vanish(
        amid: Amid,
        sockets: Sockets,
        configure: impl FnOnce(McpSessionLayer) -> McpSessionLayer,
    ) -> Self {
        let pair = Pair::new();
        let layer = configure(McpSessionLayer::new().idle_timeout(ms(1000)));
        let (layer, watched) = watch(&FakeServer::default(), layer);
        let handlers = Arc::new(AtomicUsize::new(0));
        let mut manager = LocalSessionManager::default();
        manager.session_config.keep_alive = None;
        let manager = Arc::new(manager);
        let mut config = StreamableHttpServerConfig::default();
        // It writes nothing that nobody asked for: heartbeats here are the layer's.
        config.sse_keep_alive = None;
        let alive = Arc::clone(&handlers);
        let make = move || {
            alive.fetch_add(1, Ordering::SeqCst);
            Ok(Tools(Arc::clone(&alive)))
        };
        let rmcp = StreamableHttpService::new(make, Arc::clone(&manager), config);
        let app = watched.learn_from(Router::new().route_service("/mcp", rmcp).layer(layer));

        let (stop, stopped) = oneshot::channel();
        let (listening, addr) = mpsc::channel();
        let server = pair.in_server(async move || {
            let listener = TcpListener::bind((SERVER, 0)).await.unwrap();
            listening.send(listener.local_addr().unwrap()).unwrap();
            let listener = listener.tap_io(move |stream| sockets.set(stream));
            tokio::select! {
                served = axum::serve(listener, app) => served.unwrap(),
                _ = stopped => {}
            }
        });
        let addr = addr.recv_timeout(PATIENCE).unwrap();
        let (leave, left) = oneshot::channel();
        let (there, is_there) = mpsc::channel();
        let client = pair.in_client(async move || {
            let _wire = get_amid(amid, addr).await;
            there.send(Instant::now()).unwrap();
            let _ = left.await;
        });
        let there = tokio::task::spawn_blocking(move || is_there.recv_timeout(PATIENCE));
        let sessions = watched.sessions.clone();
        let opened = there.await.unwrap().unwrap();
        // Streams count as open, whether or not they hold.
        until("the session works", PATIENCE, async || {
            let stats = sessions.stats();
            stats.in_flight + stats.streams as u64 > 0
        })
        .await;
        if amid != Amid::Large {
            until("acknowledged", PATIENCE, async || pair.is_acknowledged()).await;
        }
        pair.cut();
        let (server, client) = ((stop, server), (leave, client));
        let cut = Instant::now();
        Self { sessions, pair, opened, cut, watched, manager, handlers, server, client }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.sessions.stats()
    }

    /// Sleeps until so long after the client was in the middle of what it did.
    pub(crate) async fn after(&self, time: Duration) {
        tokio::time::sleep_until(self.opened + time).await;
    }

    /// How long after the cut the session is closed: it, rmcp's, and the permit back.
    pub(crate) async fn closes(&self) -> Duration {
        let all_gone = async || {
            let stats = self.sessions.stats();
            let handlers = self.handlers.load(Ordering::SeqCst);
            let of_rmcp = self.manager.sessions.read().await.len();
            (stats.live, stats.closing, of_rmcp, handlers) == (0, 0, 0, 0)
        };
        until("the session is closed on both sides", 2 * PATIENCE, all_gone).await;
        self.cut.elapsed()
    }

    pub(crate) async fn finish(self) {
        let stats = self.watched.finish_in_real_time().await;
        assert_eq!((stats.opened, stats.terminate_failures), (1, 0));
        for (stop, thread) in [self.client, self.server] {
            // It may have failed, which its thread says.
            let _ = stop.send(());
            tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
        }
    }
}

/// Opens a session as a client does, and gets into the middle of something.
async fn get_amid(amid: Amid, addr: SocketAddr) -> Wire {
    let mut wire = match amid {
        Amid::Large => Wire::connect_narrow(addr).await,
        _ => Wire::connect(addr).await,
    };
    let post = |id: Option<&str>, body: &Value| {
        let mut headers = vec![ACCEPT, JSON];
        headers.extend(id.map(|id| ("Mcp-Session-Id", id)));
        request("POST", "/mcp", &headers, body.to_string().as_bytes())
    };
    wire.send(post(None, &initialize_body())).await;
    let opened = wire.answer().await;
    let id = opened.id();
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    wire.send(post(Some(id), &initialized)).await;
    assert_eq!(wire.answer().await.status, 202);
    let call = |arguments: Value| {
        let params = json!({ "name": "any", "arguments": arguments });
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params })
    };
    match amid {
        Amid::Listening => {
            wire.send(request("GET", "/mcp", &[ACCEPT, ("Mcp-Session-Id", id)], b"")).await;
            assert_eq!(wire.head().await.unwrap().status, 200);
        }
        Amid::Call(time) => {
            wire.send(post(Some(id), &call(json!({ "ms": time.as_millis() as u64 })))).await;
        }
        Amid::Large => {
            wire.send(post(Some(id), &call(json!({ "bytes": 8 << 20 })))).await;
            assert_eq!(wire.head().await.unwrap().status, 200);
        }
        Amid::HalfARequest => {
            let whole = post(Some(id), &call(json!({ "padding": "x".repeat(1000) })));
            wire.send(&whole[..whole.len() - 500]).await;
        }
    }
    wire
}
