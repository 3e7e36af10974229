//! A scripted MCP server that keeps its own books: which sessions it has, and how many it had at most.

#![allow(unreachable_pub, reason = "helpers of one test binary")]

use std::{
    collections::HashSet,
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::{service_fn, util::BoxCloneSyncService};

pub type Inner = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// One call, as it arrived.
pub struct Call {
    pub parts: Parts,
    pub body: Bytes,
}

impl Call {
    pub fn id(&self) -> Option<String> {
        self.parts.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned())
    }

    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn is_initialize(&self) -> bool {
        self.json()["method"] == "initialize"
    }
}

#[derive(Default)]
struct Books {
    live: HashSet<String>,
    opened: Vec<String>,
    ended: Vec<String>,
    most: usize,
    calls: usize,
    busy: usize,
    delete_takes: Duration,
}

/// The books of a server.
#[derive(Clone, Default)]
pub struct Own(Arc<Mutex<Books>>);

impl Own {
    /// A session under an id that nobody guesses.
    pub fn open(&self) -> String {
        self.open_as(&crate::common::unique("own"))
    }

    pub fn open_as(&self, id: &str) -> String {
        let mut books = self.0.lock().unwrap();
        books.opened.push(id.to_owned());
        books.live.insert(id.to_owned());
        books.most = books.most.max(books.live.len());
        id.to_owned()
    }

    pub fn has(&self, id: &str) -> bool {
        self.0.lock().unwrap().live.contains(id)
    }

    pub fn live(&self) -> usize {
        self.0.lock().unwrap().live.len()
    }

    /// The most that there were at once.
    pub fn most(&self) -> usize {
        self.0.lock().unwrap().most
    }

    pub fn opened(&self) -> Vec<String> {
        self.0.lock().unwrap().opened.clone()
    }

    /// What DELETE was asked for, in order.
    pub fn ended(&self) -> Vec<String> {
        self.0.lock().unwrap().ended.clone()
    }

    /// Calls but the DELETEs with an id.
    pub fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    pub fn busy(&self) -> usize {
        self.0.lock().unwrap().busy
    }

    pub fn delete_takes(&self, time: Duration) {
        self.0.lock().unwrap().delete_takes = time;
    }

    /// Ends this session, as DELETE does; false if it was not there.
    pub fn end(&self, id: &str) -> bool {
        let mut books = self.0.lock().unwrap();
        books.ended.push(id.to_owned());
        books.live.remove(id)
    }

    async fn delete(&self, id: &str) -> Response<Body> {
        let takes = self.0.lock().unwrap().delete_takes;
        tokio::time::sleep(takes).await;
        status(if self.end(id) { 204 } else { 404 })
    }
}

/// Counts a call until it was answered, or dropped.
struct Busy(Own);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().busy -= 1;
    }
}

/// A server that answers as `script` says; where that says nothing, DELETE ends the session that it names.
pub fn scripted<F, A>(own: &Own, script: F) -> Inner
where
    F: Fn(Own, Call) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Option<Response<Body>>> + Send + 'static,
{
    let own = own.clone();
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let (own, script) = (own.clone(), script.clone());
        async move {
            own.0.lock().unwrap().busy += 1;
            let _busy = Busy(own.clone());
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await else { return Ok(status(400)) };
            let call = Call { parts, body: body.to_bytes() };
            let (is_delete, id) = (call.method() == Method::DELETE, call.id());
            if !is_delete || id.is_none() {
                own.0.lock().unwrap().calls += 1;
            }
            Ok(match (script(own.clone(), call).await, id) {
                (Some(answer), _) => answer,
                (None, Some(id)) if is_delete => own.delete(&id).await,
                (None, Some(id)) if !own.has(&id) => status(404),
                (None, _) => result(),
            })
        }
    }))
}

/// One that opens a session for every request without an id, and answers `status` in this type.
pub fn generous(own: &Own, code: u16, kind: Option<&'static str>) -> Inner {
    scripted(own, move |own, call| async move {
        if call.id().is_some() {
            return None;
        }
        Some(named(answer(code, kind, body_of(kind)), &own.open()))
    })
}

/// One that opens a session for `initialize` only.
pub fn proper(own: &Own) -> Inner {
    scripted(own, |own, call| async move {
        (call.is_initialize() && call.id().is_none()).then(|| named(result(), &own.open()))
    })
}

pub const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
pub const JSON: Option<&str> = Some("application/json");
pub const EVENTS: Option<&str> = Some("text/event-stream");

/// A body that fits a type.
pub fn body_of(kind: Option<&str>) -> String {
    if kind == EVENTS { format!("data: {RESULT}\n\n") } else { RESULT.to_owned() }
}

pub fn answer(code: u16, kind: Option<&str>, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::builder().status(code);
    if let Some(kind) = kind {
        response = response.header("content-type", kind);
    }
    response.body(body.into()).unwrap()
}

pub fn result() -> Response<Body> {
    answer(200, JSON, RESULT)
}

pub fn status(code: u16) -> Response<Body> {
    answer(code, None, Body::empty())
}

/// The same answer, which names this session too.
pub fn named(mut response: Response<Body>, id: &str) -> Response<Body> {
    response.headers_mut().append("mcp-session-id", id.parse().unwrap());
    response
}
