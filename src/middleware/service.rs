//! The service: sorts requests, and gets out of the way.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use tower::Service;

use super::{
    body::SessionBody,
    class::{Class, Head},
    endpoint::{Calls, Origin},
    future::ResponseFuture,
    open::Caller,
    options::UnknownIds,
    shared::{Shared, endpoint_of},
    track::Track,
    unclaimed::Unclaimed,
};
use crate::{
    lifecycle::{CloseReason, InFlight, Principal, Session},
    protocol::{Era, Rejection, SESSION_ID_HEADER, SessionHeaders, SessionId, remove_folded},
};

/// The service that [`McpSessionLayer`](crate::McpSessionLayer) makes around an MCP server.
///
/// A [`Service`] of `Request<axum::body::Body>` around any that is `Clone + Send + 'static` and
/// whose response body yields [`Bytes`] and is `Unpin`, as axum's `Body` is. A body that is not
/// goes through `tower_http::map_response_body::MapResponseBodyLayer::new(axum::body::Body::new)`
/// first; `Router::layer` does that by itself.
///
/// Errors of the inner service are passed on. Errors of the layer are responses: see
/// [`crate::Rejection`].
pub struct McpSessionService<S> {
    inner: S,
    common: Arc<Common<S>>,
}

/// What the clones of a service have in common, behind one count: a server clones it for each request.
struct Common<S> {
    origin: Arc<Origin<S>>,
    shared: Arc<Shared>,
}

impl<S: Clone> McpSessionService<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        let origin = Arc::new(Origin::new(inner.clone()));
        Self { inner, common: Arc::new(Common { origin, shared }) }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to be changed. Sessions are closed through a clone of the service as it
    /// was when the layer was applied.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<Body>> for McpSessionService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    type Response = Response<SessionBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, B, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !self.common.shared.manages(request.uri()) {
            return self.pass(request);
        }
        let SessionHeaders { era, id, has_folded } = SessionHeaders::read(request.headers());
        if has_folded {
            return self.unfolded(request);
        }
        if era == Era::Modern {
            return self.modern(request);
        }
        // Who asks is found out only where there is something to ask for.
        if self.common.shared.identifies() && id != Ok(None) {
            return self.identified(request, era);
        }
        match self.resolve(&request, id, None) {
            Ok(in_flight) => self.track(request, in_flight),
            Err(why) => self.elsewhere(request, why, era, None),
        }
    }
}

/// Why a request is of no live session.
enum Elsewhere {
    /// It has no id.
    Absent,
    /// Its id was never seen here, and the server behind may know it.
    Unknown(SessionId),
    Refused(Rejection),
}

/// What every request goes through stands above, and in [`resolve`](Self::resolve) and [`track`](Self::track). The
/// rest is not inlined into it: a request leaves little of the cache to its code.
impl<S, B> McpSessionService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    /// Unmanaged path: passed through.
    #[inline(never)]
    fn pass(&mut self, request: Request<Body>) -> ResponseFuture<S::Future, B, S::Error> {
        let uri = request.uri().clone();
        ResponseFuture::passing(self.inner.call(request), &self.common.shared, &uri)
    }

    /// With another spelling of one of our headers, which the inner service may take for it: it is removed before
    /// anything is decided.
    #[inline(never)]
    fn unfolded(&mut self, mut request: Request<Body>) -> ResponseFuture<S::Future, B, S::Error> {
        remove_folded(request.headers_mut());
        self.call(request)
    }

    /// Of the era without sessions.
    #[inline(never)]
    fn modern(&mut self, mut request: Request<Body>) -> ResponseFuture<S::Future, B, S::Error> {
        // A server that goes by the id and not by the version must not see one that nobody has checked.
        request.headers_mut().remove(&SESSION_ID_HEADER);
        self.without_id(request, Era::Modern)
    }

    /// Where it matters who asks.
    #[inline(never)]
    fn identified(
        &mut self,
        request: Request<Body>,
        era: Era,
    ) -> ResponseFuture<S::Future, B, S::Error> {
        let (principal, request) = self.common.shared.identify(request);
        let id = SessionHeaders::read(request.headers()).id;
        match self.resolve(&request, id, principal.as_ref()) {
            Ok(in_flight) => self.track(request, in_flight),
            Err(why) => self.elsewhere(request, why, era, principal),
        }
    }

    /// Of no live session.
    #[inline(never)]
    fn elsewhere(
        &mut self,
        request: Request<Body>,
        why: Elsewhere,
        era: Era,
        principal: Option<Principal>,
    ) -> ResponseFuture<S::Future, B, S::Error> {
        match why {
            Elsewhere::Absent => self.without_id(request, era),
            Elsewhere::Unknown(id) => self.unknown(request, id, principal),
            Elsewhere::Refused(why) => self.refuse(why),
        }
    }

    #[inline(never)]
    fn refuse(&mut self, why: Rejection) -> ResponseFuture<S::Future, B, S::Error> {
        let response = self.common.shared.reject(why);
        self.answer(response)
    }

    /// Our own answer. The service that was polled ready is not called, so it is replaced by one that was not: what it
    /// reserved is free again.
    fn answer(
        &mut self,
        response: Response<SessionBody<B>>,
    ) -> ResponseFuture<S::Future, B, S::Error> {
        let fresh = self.inner.clone();
        self.inner = fresh;
        ResponseFuture::answered(response)
    }

    #[inline]
    fn resolve(
        &self,
        request: &Request<Body>,
        id: Result<Option<&[u8]>, Rejection>,
        principal: Option<&Principal>,
    ) -> Result<InFlight, Elsewhere> {
        let Some(id) = id.map_err(Elsewhere::Refused)? else { return Err(Elsewhere::Absent) };
        match self.common.shared.registry.enter(id, principal) {
            Ok(in_flight) if in_flight.record().is_at(endpoint_of(request)) => Ok(in_flight),
            Ok(in_flight) => {
                self.common.shared.misplaced(in_flight);
                Err(Elsewhere::Refused(Rejection::SessionNotFound))
            }
            Err(lost) => Err(self.lost(request, id, principal, lost)),
        }
    }

    /// There is no such session here, or not for this principal.
    #[cold]
    fn lost(
        &self,
        request: &Request<Body>,
        id: &[u8],
        principal: Option<&Principal>,
        lost: Rejection,
    ) -> Elsewhere {
        let shared = &self.common.shared;
        let id = match SessionId::new(id) {
            Ok(id) => id,
            Err(why) => return Elsewhere::Refused(why),
        };
        // Who could not own the session is not told that it may be there.
        let may_ask = [Method::GET, Method::POST, Method::DELETE].contains(request.method())
            && lost == Rejection::SessionNotFound
            && shared.options.unknown_ids == UnknownIds::Forward
            && shared.may_open(principal).is_ok()
            && shared.registry.find(id.as_bytes()).is_none();
        if may_ask && !shared.registry.was_closed(&id) {
            return Elsewhere::Unknown(id);
        }
        Elsewhere::Refused(lost)
    }

    #[inline]
    fn track(
        &mut self,
        mut request: Request<Body>,
        in_flight: InFlight,
    ) -> ResponseFuture<S::Future, B, S::Error> {
        let session = Session::of(in_flight.record());
        let track = if *request.method() == Method::POST {
            if self.common.shared.calls.any() && self.common.shared.is_wary() {
                return ResponseFuture::opening(self.caller().live(request, in_flight));
            }
            Track::plain(&self.common.shared, in_flight)
        } else {
            match self.begin(in_flight, &request) {
                Ok(track) => track,
                Err(answered) => return answered,
            }
        };
        self.common.shared.insert(session, &mut request);
        ResponseFuture::tracked(self.inner.call(request), track)
    }

    /// What opens a stream, or ends the session. `Err` is the answer, if it is ours.
    #[inline(never)]
    fn begin(
        &mut self,
        in_flight: InFlight,
        request: &Request<Body>,
    ) -> Result<Track, ResponseFuture<S::Future, B, S::Error>> {
        let shared = Arc::clone(&self.common.shared);
        if request.method() == Method::DELETE && in_flight.record().is_issued_by_layer() {
            // The server behind knows of no session, so there is nobody to ask.
            shared.registry.close(in_flight.record(), CloseReason::Client);
            let mut response = Response::new(SessionBody::fixed(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Err(self.answer(response));
        }
        Track::begin(&shared, in_flight, request).map_err(|why| self.refuse(why))
    }

    fn unknown(
        &mut self,
        request: Request<Body>,
        id: SessionId,
        principal: Option<Principal>,
    ) -> ResponseFuture<S::Future, B, S::Error> {
        if request.method() == Method::DELETE {
            return self.watch(request, Era::Legacy, Some(id));
        }
        ResponseFuture::opening(self.caller().restore(request, id, principal))
    }

    fn without_id(
        &mut self,
        request: Request<Body>,
        era: Era,
    ) -> ResponseFuture<S::Future, B, S::Error> {
        let shared = &self.common.shared;
        let head = Head::of(&request, era, shared.options.forward_missing_ids);
        // At an endpoint that the user named, what the server opens for nobody is ended. Elsewhere, hanging up ends
        // the call at once.
        if head.class(None) == Class::Sessionless && !shared.names_paths() {
            return self.watch(request, era, None);
        }
        ResponseFuture::opening(self.caller().classed(request, head))
    }

    /// Not shielded; its answer is gated.
    fn watch(
        &mut self,
        request: Request<Body>,
        era: Era,
        named: Option<SessionId>,
    ) -> ResponseFuture<S::Future, B, S::Error> {
        let Common { origin, shared } = &*self.common;
        let (principal, request) = shared.identify(request);
        let origin: Arc<dyn Calls> = Arc::clone(origin) as _;
        let unclaimed = Unclaimed::new(shared, origin, era, principal, &request);
        match unclaimed.if_there_is_room() {
            Ok(mut unclaimed) => {
                unclaimed.named = named;
                ResponseFuture::watched(self.inner.call(request), unclaimed)
            }
            Err(why) => self.refuse(why),
        }
    }

    /// The service that was polled ready, to be called later; the clone that stays was not.
    fn caller(&mut self) -> Caller<S> {
        let clone = self.inner.clone();
        Caller {
            shared: Arc::clone(&self.common.shared),
            origin: Arc::clone(&self.common.origin),
            service: std::mem::replace(&mut self.inner, clone),
            is_ready: true,
        }
    }
}

impl<S: Clone> Clone for McpSessionService<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), common: Arc::clone(&self.common) }
    }
}

impl<S> fmt::Debug for McpSessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpSessionService")
            .field("shared", &self.common.shared)
            .finish_non_exhaustive()
    }
}
