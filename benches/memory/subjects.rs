//! Who keeps sessions here, and how one more is put there. Each runs in a process of its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::post};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::StreamBody;
use mcp_session_layer::{McpSessionLayer, Principal, bench::Core};
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio::runtime::Builder;
use tower::{Layer as _, Service, ServiceExt, service_fn};

use super::{
    common::ids::Ids,
    gauge::{Cost, Gauge},
    peers::{DelayQueues, Layer, Locked, Moka, Peer, Tasks},
};

const IDLE: Duration = Duration::from_secs(30 * 60);

/// By how they are asked for in the arguments, and as what they are told of.
pub const ALL: &[(&str, &str, &str)] = &[
    ("plain", "the layer", "plain"),
    ("owned", "the layer", "principal of its own, client info"),
    ("shared", "the layer", "principal shared by ten, client info"),
    ("http", "the layer", "opened over HTTP, client info"),
    ("stream", "the layer", "opened over HTTP, one stream open"),
    ("connections", "the layer", "by Router::layer, applied anew for each"),
    ("once", "the layer", "by Router::layer, applied once"),
    ("moka", "moka", "plain"),
    ("locked", "RwLock<HashMap>", "plain"),
    ("queue", "DelayQueue", "plain"),
    ("tasks", "task a session", "plain"),
    ("rmcp", "rmcp", "opened over HTTP, its own sessions"),
];

pub fn measure(subject: &str, sessions: u64) -> Cost {
    match subject {
        "plain" => peer::<Layer>(sessions),
        "owned" => owned(sessions, 1),
        "shared" => owned(sessions, 10),
        "http" => over_http(sessions),
        "stream" => streams(sessions),
        "connections" => by_router(sessions, |app| app),
        "once" => by_router(sessions, |app| app.with_state(())),
        "moka" => peer::<Moka>(sessions),
        "locked" => peer::<Locked>(sessions),
        "queue" => peer::<DelayQueues>(sessions),
        "tasks" => peer::<Tasks>(sessions),
        "rmcp" => sdk(sessions),
        _ => panic!("no subject is called {subject}"),
    }
}

fn peer<P: Peer>(sessions: u64) -> Cost {
    let ids = Ids::new(sessions);
    let empty = Gauge::now();
    let peer = P::new(sessions as usize);
    let _context = peer.context();
    let before = Gauge::settled();
    ids.iter().for_each(|id| peer.open(id));
    let after = Gauge::settled();
    assert!(peer.touch(ids.get(0)) < u64::MAX);
    after.since(&before, sessions).with_empty(&before, &empty)
}

fn owned(sessions: u64, sharing: usize) -> Cost {
    let ids = Ids::new(sessions);
    let core = Core::new(sessions as usize, IDLE);
    let before = Gauge::settled();
    let mut principal = Principal::from("");
    for (number, id) in ids.iter().enumerate() {
        if number % sharing == 0 {
            principal = Principal::from(format!("user-{number:07}@example.com"));
        }
        core.open_owned(id, &principal, "example-client", "1.0.0");
    }
    drop(principal);
    let after = Gauge::settled();
    assert_eq!(core.live(), sessions as usize);
    after.since(&before, sessions)
}

// --- over HTTP -------------------------------------------------------------------------------------

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{
    "protocolVersion":"2025-11-25","capabilities":{},
    "clientInfo":{"name":"example-client","version":"1.0.0"}}}"#;

/// Sessions that are being opened at once: each takes a while.
const AT_ONCE: usize = 500;

fn request(id: Option<&str>) -> Request<Body> {
    let request = match id {
        None => Request::post("http://localhost/mcp"),
        Some(id) => Request::get("http://localhost/mcp").header("mcp-session-id", id),
    };
    let request = request
        .header("host", "localhost")
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json");
    request.body(if id.is_none() { Body::from(INITIALIZE) } else { Body::empty() }).unwrap()
}

type Silence = StreamBody<stream::Pending<Result<Frame<Bytes>, Infallible>>>;

/// Answers POST with a result and GET with a stream in which nothing happens.
async fn answer(request: Request<Body>) -> Result<Response<Either>, Infallible> {
    let (kind, body) = if request.method() == "GET" {
        ("text/event-stream", Either::Right(StreamBody::new(stream::pending())))
    } else {
        ("application/json", Either::Left(Body::from(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)))
    };
    Ok(Response::builder().header("content-type", kind).body(body).unwrap())
}

type Either = http_body_util::Either<Body, Silence>;

fn layer(sessions: u64) -> McpSessionLayer {
    McpSessionLayer::new().idle_timeout(IDLE).max_sessions(sessions as usize)
}

/// Opens one, and gives back its id.
async fn open<S, B>(service: S) -> Box<str>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: HttpBody<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let (head, body) = service.oneshot(request(None)).await.unwrap().into_parts();
    let id = head.headers["mcp-session-id"].to_str().unwrap().into();
    let body = std::pin::pin!(body);
    http_body_util::BodyExt::collect(body).await.unwrap();
    id
}

async fn open_all<S, B>(service: &S, sessions: u64) -> Vec<Box<str>>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: HttpBody<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let mut ids = Vec::with_capacity(sessions as usize);
    while ids.len() < sessions as usize {
        let count = AT_ONCE.min(sessions as usize - ids.len());
        ids.extend(join_all((0..count).map(|_| open(service.clone()))).await);
    }
    ids
}

/// Once the tasks of this thread have come to rest too.
async fn settled() -> Gauge {
    tokio::time::sleep(Duration::from_millis(100)).await;
    Gauge::settled()
}

fn over_http(sessions: u64) -> Cost {
    run(async {
        let layer = layer(sessions);
        let service = layer.layer(service_fn(answer));
        let before = settled().await;
        let ids = open_all(&service, sessions).await;
        let after = settled().await;
        assert_eq!(layer.sessions().len(), sessions as usize);
        after.since(&before, sessions).without(&ids_alone(&ids))
    })
}

/// Of handlers under `Router::layer`, each session over a connection of its own, for which `axum::serve` makes
/// the router a service. What `ready` has done before, it need not do.
fn by_router(sessions: u64, ready: fn(Router) -> Router) -> Cost {
    run(async {
        let layer = layer(sessions);
        let app = Router::new().route("/mcp", post(answer)).layer(layer.clone());
        let app = ready(app);
        let before = settled().await;
        let mut ids = Vec::with_capacity(sessions as usize);
        while ids.len() < sessions as usize {
            let count = AT_ONCE.min(sessions as usize - ids.len());
            let connections = (0..count).map(|_| open(app.clone().with_state::<()>(())));
            ids.extend(join_all(connections).await);
        }
        let after = settled().await;
        assert_eq!(layer.sessions().len(), sessions as usize);
        after.since(&before, sessions).without(&ids_alone(&ids))
    })
}

/// What the ids take, which are kept by the clients.
fn ids_alone(ids: &[Box<str>]) -> Cost {
    let before = Gauge::now();
    let copy = ids.to_vec();
    let cost = Gauge::now().since(&before, ids.len() as u64);
    drop(copy);
    cost
}

/// The cost of session and stream, without what the caller keeps: the bodies as they are without the
/// layer.
fn streams(sessions: u64) -> Cost {
    run(async {
        let bare = service_fn(answer);
        let before = settled().await;
        let bodies = hold(&bare, &vec!["any".into(); sessions as usize]).await;
        let alone = settled().await.since(&before, sessions);
        drop(bodies);

        let layer = layer(sessions);
        let service = layer.layer(bare);
        let before = settled().await;
        let ids = open_all(&service, sessions).await;
        let bodies = hold(&service, &ids).await;
        let after = settled().await;
        assert_eq!(layer.sessions().stats().streams, sessions as usize);
        drop(bodies);
        let with = after.since(&before, sessions);
        with.without(&ids_alone(&ids)).without(&alone)
    })
}

async fn hold<S, B>(service: &S, ids: &[Box<str>]) -> Vec<B>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
{
    let mut bodies = Vec::with_capacity(ids.len());
    for id in ids {
        let response = service.clone().oneshot(request(Some(id))).await.unwrap();
        assert!(response.status().is_success());
        bodies.push(response.into_body());
    }
    bodies
}

#[derive(Clone)]
struct Nothing;

impl ServerHandler for Nothing {}

/// A session of the official SDK, without the layer: its task, its channels, its handler.
fn sdk(sessions: u64) -> Cost {
    run(async {
        let mut manager = LocalSessionManager::default();
        manager.session_config.keep_alive = Some(IDLE);
        let manager = Arc::new(manager);
        let config = StreamableHttpServerConfig::default();
        let service = StreamableHttpService::new(|| Ok(Nothing), Arc::clone(&manager), config);
        let before = settled().await;
        let mut ids = Vec::with_capacity(sessions as usize);
        for _ in 0..sessions {
            let response = service.clone().oneshot(request(None)).await.unwrap();
            let (head, body) = response.into_parts();
            ids.push(head.headers["mcp-session-id"].to_str().unwrap().into());
            let mut body = http_body_util::BodyDataStream::new(body);
            while body.next().await.is_some() {}
        }
        let after = settled().await;
        assert_eq!(manager.sessions.read().await.len(), sessions as usize);
        after.since(&before, sessions).without(&ids_alone(&ids))
    })
}

fn run(work: impl Future<Output = Cost>) -> Cost {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
