//! Where a session was opened, and how it is ended there: by the DELETE that its client never sent.

use std::{
    future::ready,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{Extensions, HeaderValue, Method, Request, Response, StatusCode, Uri, header::HOST};
use tower::{Service, ServiceExt};

use super::{
    options::TerminateHook,
    route::{Kept, Route, detached, length},
};
use crate::{
    lifecycle::{Session, Terminate, Terminated, Terminator, WeakTerminator},
    protocol::SESSION_ID_HEADER,
};

/// Endpoints of one origin that are kept to be shared; more come and go with their sessions.
const INTERNED: usize = 64;

/// Bytes of a URI and a `Host` together.
const LONGEST: usize = 4096;

/// A service to make clones of. Behind a lock, because a service need not be `Sync`; the lock is
/// held for a clone only.
pub(super) struct Origin<S> {
    service: Mutex<S>,
    endpoints: Mutex<Vec<WeakTerminator>>,
}

impl<S> Origin<S> {
    pub(super) fn new(service: S) -> Self {
        Self { service: Mutex::new(service), endpoints: Mutex::default() }
    }
}

/// An [`Origin`] of some service.
pub(super) trait Calls: Send + Sync {
    /// Sends a request through a fresh clone; the status of the answer, if there was one.
    fn call(&self, request: Request<Body>) -> BoxFuture<'static, Option<StatusCode>>;

    /// The endpoints made so far that are still of use.
    fn endpoints(&self) -> MutexGuard<'_, Vec<WeakTerminator>>;
}

impl<S, B> Calls for Origin<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
{
    fn call(&self, request: Request<Body>) -> BoxFuture<'static, Option<StatusCode>> {
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            let response = service.oneshot(request).await;
            response.ok().map(|response| response.status())
        })
    }

    fn endpoints(&self) -> MutexGuard<'_, Vec<WeakTerminator>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a request went: what an [`Endpoint`] is made of, if a session comes of it.
#[derive(Clone)]
pub(super) struct Site {
    origin: Arc<dyn Calls>,
    uri: Uri,
    host: Option<HeaderValue>,
    route: Route,
}

impl Site {
    pub(super) fn of<T>(request: &Request<T>, origin: Arc<dyn Calls>) -> Self {
        let host = request.headers().get(HOST).cloned();
        Self { origin, uri: request.uri().clone(), host, route: Route::of(request) }
    }

    /// The endpoint of this site, shared by the sessions that were opened there.
    pub(super) fn endpoint(self, hook: Option<TerminateHook>) -> Terminator {
        let mut known = self.origin.endpoints();
        // An endpoint that is dropped here is not the last of its origin: we hold one.
        let mut shared = known.iter().filter_map(WeakTerminator::upgrade);
        if let Some(shared) = shared.find(|endpoint| self.is_of(endpoint)) {
            return shared;
        }
        known.retain(WeakTerminator::is_of_use);
        let site = self.detached();
        let endpoint = Terminator::new(Endpoint { site, hook, extensions: OnceLock::new() });
        if known.len() < INTERNED {
            if known.is_empty() {
                // Most origins have one endpoint, and where axum applies the layer anew for every connection there are
                // as many as sessions.
                known.reserve_exact(1);
            }
            known.push(endpoint.downgrade());
        }
        endpoint
    }

    fn is_of(&self, endpoint: &Terminator) -> bool {
        let site = endpoint.made_of::<Endpoint>().map(|endpoint| &endpoint.site);
        site.is_some_and(|site| {
            site.uri == self.uri && site.host == self.host && site.route == self.route
        })
    }

    /// Whether keeping it for a session would let a client choose what that session costs.
    pub(super) fn is_too_long(&self) -> bool {
        let host = self.host.as_ref().map_or(0, HeaderValue::len);
        length(&self.uri).max(self.route.length()) + host > LONGEST
    }

    /// A copy of its own. What hyper parses are slices of its read buffer: a clone would keep the
    /// whole head of the request, credentials included, for as long as the session lives.
    fn detached(&self) -> Self {
        let uri = detached(&self.uri);
        let host =
            self.host.as_ref().and_then(|host| HeaderValue::from_bytes(host.as_bytes()).ok());
        Self { origin: Arc::clone(&self.origin), uri, host, route: self.route.detached() }
    }
}

/// A site where sessions were opened. Of its request it keeps the URI, the `Host`, which the official SDK insists on,
/// and what axum's router made of the URI; nothing that a client or an authentication layer put there.
pub(super) struct Endpoint {
    site: Site,
    hook: Option<TerminateHook>,
    /// Made when they are first needed.
    extensions: OnceLock<Extensions>,
}

impl Terminate for Endpoint {
    fn terminate(&self, session: Session) -> BoxFuture<'static, Terminated> {
        let Some(request) = self.farewell(&session) else {
            return Box::pin(ready(Terminated::Failed));
        };
        let answer = self.site.origin.call(request);
        Box::pin(async move {
            match answer.await {
                None => Terminated::Failed,
                // 404: it knew already. 405: it does not let clients end sessions; its own
                // timeout has to (MCP 2025-11-25, "Session Management").
                Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => Terminated::Done,
                Some(status) if status.is_success() => Terminated::Done,
                Some(status) => Terminated::Refused(status.as_u16()),
            }
        })
    }
}

impl Endpoint {
    /// The DELETE that the client never sent.
    fn farewell(&self, session: &Session) -> Option<Request<Body>> {
        let mut id = HeaderValue::from_str(session.id()?).ok()?;
        id.set_sensitive(true);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = self.site.uri.clone();
        request.headers_mut().insert(&SESSION_ID_HEADER, id);
        if let Some(host) = &self.site.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        let routed = self.extensions.get_or_init(|| self.site.route.extensions(&self.site.uri));
        request.extensions_mut().clone_from(routed);
        if let Some(kept) = session.state().get::<Kept>() {
            request.extensions_mut().extend(kept.0.clone());
        }
        request.extensions_mut().insert(session.clone());
        let Some(hook) = &self.hook else {
            return Some(request);
        };
        let (mut parts, body) = request.into_parts();
        hook(session, &mut parts);
        Some(Request::from_parts(parts, body))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::service_fn;

    use super::*;

    #[test]
    fn sessions_of_one_place_share_an_endpoint_as_long_as_one_has_it_and_others_have_their_own() {
        let service = service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(())));
        let origin: Arc<dyn Calls> = Arc::new(Origin::new(service));
        let endpoint = |uri: &str, host: Option<&str>| {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            Site::of(&request.body(()).unwrap(), Arc::clone(&origin)).endpoint(None)
        };
        let places = [("/mcp", None), ("/mcp", Some("a")), ("/mcp", Some("b")), ("/mcp?x", None)];
        let held: Vec<_> = places.map(|(uri, host)| endpoint(uri, host)).into();
        for (at, (uri, host)) in places.into_iter().enumerate() {
            let again = endpoint(uri, host);
            let is_it: Vec<_> = held.iter().map(|one| std::ptr::addr_eq(&**one, &*again)).collect();
            assert_eq!(is_it, [0, 1, 2, 3].map(|other| other == at), "{uri} {host:?}");
        }
        assert_eq!(origin.endpoints().len(), places.len());
        drop(held);
        let _last = endpoint("/other", None);
        assert_eq!(origin.endpoints().len(), 1, "nobody has the others any more");
    }
}
