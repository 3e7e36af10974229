//! A fake MCP server that does as it is told and remembers what it saw.
//!
//! | JSON-RPC method | what it does |
//! | --- | --- |
//! | `initialize` | opens a session (or leaves the id to the layer), answers JSON |
//! | `sleep {ms}` | waits, then answers JSON |
//! | `stream {events, ms}` | SSE: that many events, that far apart, then the end |
//! | `endless` | SSE: one event, then silence for ever |
//! | `status {code, ms}` | waits, then answers that |
//! | `hold {ms}` | answers at once and holds the session so long |
//! | `panic` | panics |
//! | anything else | answers JSON |

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use mcp_session_layer::{Fingerprint, Session};
use serde_json::{Value, json};
use tower::Service;

/// How the server behaves; change it at any time.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Whether it makes up ids.
    pub issues_ids: bool,
    /// The ids it will give out next, before random ones.
    pub next_ids: Vec<String>,
    /// How long `initialize` takes.
    pub open_delay: Duration,
    /// Its status for `initialize`.
    pub open_status: u16,
    /// Its answer to DELETE; `None` never answers.
    pub delete_status: Option<u16>,
    /// How long DELETE takes.
    pub delete_delay: Duration,
    /// Whether it answers GET with a stream.
    pub gets_stream: bool,
    /// Whether it knows ids of its own that the layer does not.
    pub restores: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            issues_ids: true,
            next_ids: Vec::new(),
            open_delay: Duration::ZERO,
            open_status: 200,
            delete_status: Some(202),
            delete_delay: Duration::ZERO,
            gets_stream: true,
            restores: false,
        }
    }
}

/// One call, as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub id: Option<String>,
    pub body: Bytes,
    pub headers: http::HeaderMap,
    /// The name of the layer's session, if the request has one.
    pub session: Option<Fingerprint>,
}

/// When a request was sent, in the order in which closes are heard of too.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Moment(u64);

impl Moment {
    fn now() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::SeqCst))
    }
}

/// Notes that the layer gets this request now. One that is let in just before its session closes may
/// well reach the server after: whether it should have been is a matter of when it was sent.
pub fn sent(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Moment::now());
    request
}

#[derive(Default)]
struct Inner {
    manners: Manners,
    sessions: HashSet<String>,
    issued: Vec<String>,
    seen: Vec<Seen>,
    in_flight: HashMap<Fingerprint, usize>,
    open_bodies: usize,
    calls: usize,
    closed: HashMap<Fingerprint, Moment>,
    violations: Vec<String>,
}

#[derive(Clone, Default)]
pub struct FakeServer(Arc<Mutex<Inner>>);

impl FakeServer {
    pub fn with(change: impl FnOnce(&mut Manners)) -> Self {
        let server = Self::default();
        server.change(change);
        server
    }

    pub fn change(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.0.lock().unwrap().manners);
    }

    pub fn manners(&self) -> Manners {
        self.0.lock().unwrap().manners.clone()
    }

    pub fn sessions(&self) -> HashSet<String> {
        self.0.lock().unwrap().sessions.clone()
    }

    pub fn has(&self, id: &str) -> bool {
        self.0.lock().unwrap().sessions.contains(id)
    }

    /// As if it had been opened elsewhere, or before a restart.
    pub fn remember(&self, id: &str) {
        self.0.lock().unwrap().sessions.insert(id.to_owned());
    }

    pub fn forget(&self, id: &str) {
        self.0.lock().unwrap().sessions.remove(id);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().seen.clone()
    }

    /// Every id that it gave out or was asked for.
    pub fn ids(&self) -> Vec<String> {
        let inner = self.0.lock().unwrap();
        let asked_for = inner.seen.iter().filter_map(|seen| seen.id.clone());
        inner.issued.iter().cloned().chain(asked_for).collect()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }

    pub fn count(&self, method: &Method) -> usize {
        self.seen().iter().filter(|seen| seen.method == method).count()
    }

    /// Calls that have not been answered, and bodies that are alive.
    pub fn busy(&self) -> usize {
        let inner = self.0.lock().unwrap();
        inner.calls + inner.open_bodies
    }

    pub fn open_bodies(&self) -> usize {
        self.0.lock().unwrap().open_bodies
    }

    pub fn in_flight(&self, session: Fingerprint) -> usize {
        self.0.lock().unwrap().in_flight.get(&session).copied().unwrap_or(0)
    }

    /// A request for this session that is sent from here on must not come: I2.
    pub fn mark_closed(&self, session: Fingerprint) {
        self.0.lock().unwrap().closed.entry(session).or_insert_with(Moment::now);
    }

    pub fn violations(&self) -> Vec<String> {
        self.0.lock().unwrap().violations.clone()
    }

    fn note(&self, request: &Request<()>, id: Option<String>, body: &Bytes) -> Presence {
        let session = request.extensions().get::<Session>().map(Session::fingerprint);
        let sent = request.extensions().get::<Moment>();
        let method = request.method();
        let mut inner = self.0.lock().unwrap();
        if let Some(session) = session {
            let closed = inner.closed.get(&session);
            match sent {
                Some(sent) if closed.is_some_and(|closed| closed < sent) => {
                    inner.violations.push(format!("I2: {method} of closed {session}"));
                }
                // The layer's own.
                None if method == Method::DELETE => {}
                None => inner.violations.push(format!("nobody knows when a {method} was sent")),
                Some(_) => {}
            }
            *inner.in_flight.entry(session).or_default() += 1;
        }
        inner.calls += 1;
        inner.seen.push(Seen {
            method: method.clone(),
            path: request.uri().path().to_owned(),
            id,
            body: body.clone(),
            headers: request.headers().clone(),
            session,
        });
        Presence { server: self.clone(), session, is_body: false }
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return plain(400, "broken body"),
        };
        let request = Request::from_parts(parts, ());
        let id = request.headers().get("mcp-session-id");
        let id = id.map(|id| id.to_str().unwrap().to_owned());
        let presence = self.note(&request, id.clone(), &body);
        if request.uri().path() != "/mcp" {
            return plain(200, "ok");
        }
        let manners = self.manners();
        match *request.method() {
            Method::DELETE => self.end(&manners, id).await,
            _ if manners.issues_ids && id.as_ref().is_some_and(|id| !self.has(id)) => {
                plain(404, "the server does not know this session")
            }
            Method::GET if !manners.gets_stream => plain(200, "whole"),
            Method::GET => presence.stream(first_then_silence()),
            Method::POST => {
                let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
                self.post(&request, &message, presence).await
            }
            _ => plain(405, ""),
        }
    }

    async fn end(self, manners: &Manners, id: Option<String>) -> Response<Body> {
        tokio::time::sleep(manners.delete_delay).await;
        let Some(status) = manners.delete_status else {
            std::future::pending::<()>().await;
            unreachable!()
        };
        if let Some(id) = id.filter(|_| status < 300 || status == 404) {
            self.forget(&id);
        }
        plain(status, "")
    }

    async fn post(
        self,
        request: &Request<()>,
        message: &Value,
        presence: Presence,
    ) -> Response<Body> {
        let params = &message["params"];
        let ms = Duration::from_millis(params["ms"].as_u64().unwrap_or(0));
        match message["method"].as_str().unwrap_or("") {
            "initialize" => self.initialize().await,
            "sleep" => {
                tokio::time::sleep(ms).await;
                ok()
            }
            "stream" => {
                let events = params["events"].as_u64().unwrap_or(1);
                presence.stream(stream::iter(0..events).then(move |n| async move {
                    tokio::time::sleep(ms).await;
                    event(n)
                }))
            }
            "endless" => presence.stream(first_then_silence()),
            "status" => {
                tokio::time::sleep(ms).await;
                plain(params["code"].as_u64().unwrap() as u16, "as you wish")
            }
            "hold" => {
                let hold = request.extensions().get::<Session>().unwrap().hold().unwrap();
                tokio::spawn(async move {
                    tokio::time::sleep(ms).await;
                    drop(hold);
                });
                ok()
            }
            "close" => {
                request.extensions().get::<Session>().unwrap().close();
                ok()
            }
            "panic" => panic!("as you wish"),
            _ => ok(),
        }
    }

    async fn initialize(self) -> Response<Body> {
        let manners = self.manners();
        tokio::time::sleep(manners.open_delay).await;
        let mut response = ok();
        *response.status_mut() = StatusCode::from_u16(manners.open_status).unwrap();
        if manners.issues_ids && manners.open_status == 200 {
            let mut inner = self.0.lock().unwrap();
            let id = inner.manners.next_ids.pop();
            let id = id.unwrap_or_else(|| format!("inner-{}", uuid::Uuid::new_v4()));
            inner.issued.push(id.clone());
            inner.sessions.insert(id.clone());
            response.headers_mut().insert("mcp-session-id", id.parse().unwrap());
        }
        response
    }
}

/// A call that is being answered, or a body that is alive.
struct Presence {
    server: FakeServer,
    session: Option<Fingerprint>,
    is_body: bool,
}

impl Presence {
    /// Turns the call into a body that is alive until dropped.
    fn stream(mut self, events: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
        {
            let mut inner = self.server.0.lock().unwrap();
            inner.calls -= 1;
            inner.open_bodies += 1;
        }
        self.is_body = true;
        let body = Present { events: Box::pin(events), _presence: self };
        let response = Response::builder().header("content-type", "text/event-stream");
        response.body(Body::from_stream(body)).unwrap()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut inner = self.server.0.lock().unwrap();
        if self.is_body {
            inner.open_bodies -= 1;
        } else {
            inner.calls -= 1;
        }
        if let Some(session) = self.session {
            *inner.in_flight.get_mut(&session).unwrap() -= 1;
        }
    }
}

struct Present {
    events: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    _presence: Presence,
}

impl Stream for Present {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx).map(|event| event.map(Ok))
    }
}

pub fn event(n: u64) -> Bytes {
    Bytes::from(format!("data: {n}\n\n"))
}

fn first_then_silence() -> impl Stream<Item = Bytes> + Send {
    stream::once(async { event(0) }).chain(stream::pending())
}

fn ok() -> Response<Body> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string();
    let response = Response::builder().header("content-type", "application/json");
    response.body(Body::from(body)).unwrap()
}

fn plain(status: u16, body: &'static str) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "text/plain");
    response.body(Body::from(body)).unwrap()
}

impl Service<Request<Body>> for FakeServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.answer(request).await) })
    }
}
