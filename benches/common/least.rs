//! The least that a layer can do which finds a request's session.

#![allow(dead_code, reason = "each bench uses its part")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::extract::Request;
use http::header::HeaderName;
use mcp_session_layer::bench::Core;
use tower::{Layer, Service};

/// What no layer can do without that finds a request's session and hands it to the server: a header, a lookup with two
/// read-modify-writes, and an extension.
#[derive(Clone)]
pub struct Least(Arc<Core>);

#[derive(Clone)]
pub struct LeastService<S> {
    core: Arc<Core>,
    inner: S,
}

#[derive(Clone)]
struct Handle(#[allow(dead_code, reason = "to be there is all that it does")] Arc<Core>);

impl Least {
    /// Takes any session that it is asked for as live, up to so many.
    pub fn new(sessions: usize) -> Self {
        Self(Arc::new(Core::new(sessions.max(10_000), Duration::from_secs(3_600))))
    }

    /// These are live from the beginning.
    pub fn with(self, ids: &[String]) -> Self {
        ids.iter().for_each(|id| self.0.open(id));
        self
    }
}

impl<S> Layer<S> for Least {
    type Service = LeastService<S>;
    fn layer(&self, inner: S) -> LeastService<S> {
        LeastService { core: Arc::clone(&self.0), inner }
    }
}

impl<S: Service<Request>> Service<Request> for LeastService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }
    fn call(&mut self, mut request: Request) -> S::Future {
        let id = request.headers().get(&SESSION_ID).and_then(|id| id.to_str().ok());
        if let Some(id) = id {
            if self.core.floor(id) == 0 {
                self.meet(id);
            }
            request.extensions_mut().insert(Handle(Arc::clone(&self.core)));
        }
        self.inner.call(request)
    }
}

impl<S> LeastService<S> {
    #[cold]
    fn meet(&self, id: &str) {
        self.core.open(id);
        assert!(self.core.floor(id) > 0, "there is room for the session");
    }
}

static SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
