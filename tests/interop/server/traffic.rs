//! What a client asked for over HTTP, and what it was told.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, Method};
use tokio::time::Instant;

/// One request, by what can be seen of it from outside.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Exchange {
    /// Milliseconds since the first request.
    at: u128,
    method: String,
    /// Which session it names: the first to be seen is 1.
    session: Option<usize>,
    /// Which session the answer names.
    opened: Option<usize>,
    version: Option<String>,
    last_event_id: Option<String>,
    status: u16,
}

#[derive(Debug, Default)]
struct Log {
    begin: Option<Instant>,
    sessions: Vec<String>,
    exchanges: Vec<Exchange>,
}

impl Log {
    /// Ids are told apart, and not told.
    fn number(&mut self, headers: &HeaderMap) -> Option<usize> {
        let id = header(headers, "mcp-session-id")?;
        let at = self.sessions.iter().position(|known| *known == id).unwrap_or_else(|| {
            self.sessions.push(id);
            self.sessions.len() - 1
        });
        Some(at + 1)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(Arc<Mutex<Log>>);

impl Traffic {
    pub(crate) fn read(&self) -> Vec<Exchange> {
        self.with(|log| log.exchanges.clone())
    }

    fn with<T>(&self, then: impl FnOnce(&mut Log) -> T) -> T {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Records every exchange, in the order of the answers' heads.
pub(crate) async fn record(
    State(traffic): State<Traffic>,
    request: Request,
    next: Next,
) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let at = traffic.with(|log| log.begin.get_or_insert_with(Instant::now).elapsed().as_millis());
    let mut unanswered = Unanswered { traffic, method, headers, at, armed: true };
    let response = next.run(request).await;
    unanswered.armed = false;
    unanswered.write(response.status().as_u16(), response.headers());
    response
}

/// Records also a request that its client hung up on; its status is 0.
struct Unanswered {
    traffic: Traffic,
    method: Method,
    headers: HeaderMap,
    at: u128,
    armed: bool,
}

impl Unanswered {
    fn write(&self, status: u16, answer: &HeaderMap) {
        self.traffic.with(|log| {
            let exchange = Exchange {
                at: self.at,
                method: self.method.to_string(),
                session: log.number(&self.headers),
                opened: log.number(answer),
                version: header(&self.headers, "mcp-protocol-version"),
                last_event_id: header(&self.headers, "last-event-id"),
                status,
            };
            log.exchanges.push(exchange);
        });
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.armed {
            self.write(0, &HeaderMap::new());
        }
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
