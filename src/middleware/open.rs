//! Requests that may open a session: sniffed, given a permit, and shielded from their client.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use tokio::{sync::oneshot, time::timeout};
use tower::Service;
use tracing::Instrument;

use super::{
    body::SessionBody,
    class::{Class, Head, Read},
    counts::Counted,
    detached::{Delivery, Errand, attend},
    endpoint::{Calls, Origin, Site},
    replay::{Sniffed, sniff},
    settle::{Birth, Kind},
    shared::{Bucket, Shared, endpoint_of},
    track::Track,
    unclaimed::Unclaimed,
    under::{MOST_LONG_UNDER_ONE, MOST_UNDER_ONE, UnderLive},
};
use crate::{
    lifecycle::{InFlight, Opener, Opening, Principal, Session},
    protocol::{ClientInfo, Era, Rejection, SessionId},
};

/// A service that is ready, and what is needed to call it for a session that is not there yet.
pub(super) struct Caller<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) origin: Arc<Origin<S>>,
    pub(super) service: S,
    /// Whether `service` is the one that was polled ready.
    pub(super) is_ready: bool,
}

type Answer<S, B> = Result<Response<SessionBody<B>>, <S as Service<Request<Body>>>::Error>;

impl<S, B> Caller<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    /// A request of no live session, of a class that its head decides or not yet.
    pub(super) async fn classed(self, request: Request<Body>, head: Head) -> Answer<S, B> {
        let class = head.class(None);
        if class != Class::Unread {
            return self.open_as(class, request, head.era()).await;
        }
        let (parts, body) = request.into_parts();
        let Sniffed { message, is_cut_short, body } = sniff(body).await;
        let class = head.class(Some(Read { message, is_cut_short }));
        self.open_as(class, Request::from_parts(parts, body), head.era()).await
    }

    async fn open_as(mut self, class: Class, request: Request<Body>, era: Era) -> Answer<S, B> {
        match class {
            Class::Initialize(client) => self.initialize(request, client).await,
            Class::Notification => Ok(self.not_opened(request)),
            Class::Refused(why) => Ok(self.shared.reject(why)),
            Class::Modern => self.modern(request).await,
            Class::Message => self.message(request, era).await,
            Class::Doubtful { is_cut_short } => self.doubtful(request, era, is_cut_short).await,
            Class::Foreign | Class::Unread => self.foreign(request, era).await,
            Class::Sessionless => self.sessionless(request, era).await,
        }
    }

    /// A message without an id that is passed on.
    async fn message(self, request: Request<Body>, era: Era) -> Answer<S, B> {
        let (unclaimed, request) = self.unclaimed(request, era);
        match unclaimed.if_there_is_room() {
            Ok(unclaimed) => self.launch(request, Errand::Unclaimed(unclaimed)).await,
            Err(why) => Ok(self.shared.reject(why)),
        }
    }

    /// One message of the modern era: hanging up is its cancellation, so it is not shielded.
    async fn modern(&mut self, request: Request<Body>) -> Answer<S, B> {
        let (unclaimed, request) = self.unclaimed(request, Era::Modern);
        let unclaimed = match unclaimed.if_there_is_room() {
            Ok(unclaimed) => unclaimed,
            Err(why) => return Ok(self.shared.reject(why)),
        };
        let response = self.service.call(request).await?;
        Ok(unclaimed.settle(response).response)
    }

    /// A POST in which we see no message for sure, and another parser may see an `initialize`.
    async fn doubtful(self, request: Request<Body>, era: Era, is_cut_short: bool) -> Answer<S, B> {
        let (unclaimed, request) = self.unclaimed(request, era);
        let endpoint = Some(endpoint_of(&request)).filter(|_| !is_cut_short);
        let taken = unclaimed.may_open().and_then(|()| unclaimed.doubtful(endpoint));
        match taken {
            Ok(unclaimed) => self.launch(request, Errand::Unclaimed(unclaimed)).await,
            Err(why) => Ok(self.shared.reject(why)),
        }
    }

    /// A POST of something else, which a lenient server may take for a message all the same.
    async fn foreign(self, request: Request<Body>, era: Era) -> Answer<S, B> {
        let (unclaimed, request) = self.unclaimed(request, era);
        match unclaimed.may_open().and_then(|()| unclaimed.counted_if_told_apart()) {
            Ok(unclaimed) => self.launch(request, Errand::Unclaimed(unclaimed)).await,
            Err(why) => Ok(self.shared.reject(why)),
        }
    }

    /// A request without an id by another method than POST.
    async fn sessionless(self, request: Request<Body>, era: Era) -> Answer<S, B> {
        let (unclaimed, request) = self.unclaimed(request, era);
        match unclaimed.counted() {
            Ok(unclaimed) => self.launch(request, Errand::Unclaimed(unclaimed)).await,
            Err(why) => Ok(self.shared.reject(why)),
        }
    }

    fn unclaimed(&self, request: Request<Body>, era: Era) -> (Unclaimed, Request<Body>) {
        let (principal, request) = self.shared.identify(request);
        let origin: Arc<dyn Calls> = Arc::clone(&self.origin) as _;
        (Unclaimed::new(&self.shared, origin, era, principal, &request), request)
    }

    /// A request with an id that only the inner service may know.
    pub(super) async fn restore(
        mut self,
        mut request: Request<Body>,
        id: SessionId,
        principal: Option<Principal>,
    ) -> Answer<S, B> {
        // Bounded: the first may be at it for as long as a call takes. A request that goes on without a turn joins
        // the session that comes first.
        self.unready();
        let turn = Arc::clone(&self.shared).turn(principal.clone(), id.clone());
        let turn = timeout(self.shared.options.open_timeout, turn).await.ok();
        // The first may have restored it, or ended it.
        let registry = Arc::clone(&self.shared.registry);
        if let Ok(in_flight) = registry.enter(id.as_bytes(), principal.as_ref()) {
            drop(turn);
            if !in_flight.record().is_at(endpoint_of(&request)) {
                self.shared.misplaced(in_flight);
                return Ok(self.shared.reject(Rejection::SessionNotFound));
            }
            let session = Session::of(in_flight.record());
            let track = match Track::begin(&self.shared, in_flight, &request) {
                Ok(track) => track,
                Err(why) => return Ok(self.shared.reject(why)),
            };
            request.extensions_mut().insert(session);
            self.ready().await?;
            let response = self.service.call(request).await?;
            return Ok(track.finish(response));
        }
        let is_over = registry.was_closed(&id) || registry.is_ending(&id);
        if is_over || registry.find(id.as_bytes()).is_some() {
            return Ok(self.shared.reject(Rejection::SessionNotFound));
        }
        let is_get = request.method() == Method::GET;
        self.open(request, principal, None, Kind::Restore { id, is_get, _turn: turn }).await
    }

    /// An `initialize` that asks for no answer.
    fn not_opened(&self, request: Request<Body>) -> Response<SessionBody<B>> {
        let (principal, _) = self.shared.identify(request);
        let who = self.shared.may_open(principal.as_ref());
        self.shared.reject(who.err().unwrap_or(Rejection::InitializeWithoutId))
    }

    async fn initialize(self, request: Request<Body>, client: Box<ClientInfo>) -> Answer<S, B> {
        let (principal, request) = self.shared.identify(request);
        if let Err(why) = self.shared.may_open(principal.as_ref()) {
            return Ok(self.shared.reject(why));
        }
        self.open(request, principal, Some(client), Kind::Initialize).await
    }

    async fn open(
        mut self,
        mut request: Request<Body>,
        principal: Option<Principal>,
        client: Option<Box<ClientInfo>>,
        kind: Kind,
    ) -> Answer<S, B> {
        let site = Site::of(&request, Arc::clone(&self.origin) as _);
        if site.is_too_long() {
            return Ok(self.shared.reject(Rejection::EndpointTooLong));
        }
        let opener = Opener { principal, client, endpoint: endpoint_of(&request).into() };
        let registry = Arc::clone(&self.shared.registry);
        let mut begin = pin!(registry.begin(opener));
        let begun = match poll_fn(|cx| Poll::Ready(begin.as_mut().poll(cx))).await {
            Poll::Ready(begun) => begun,
            Poll::Pending => {
                self.unready();
                let revocations = registry.revocations();
                let begun = begin.await;
                // It asked before a revocation, which may have been of its principal: it may ask again.
                if registry.revocations() != revocations {
                    return Ok(self.shared.reject(Rejection::TableFull));
                }
                begun
            }
        };
        let opening = match begun {
            Ok(opening) => opening,
            Err(why) => return Ok(self.shared.reject(why)),
        };
        self.ready().await?;
        if let Kind::Restore { id, .. } = &kind {
            opening.name(id.clone());
        }
        self.shared.keep_extensions(&opening.session(), &request);
        request.extensions_mut().insert(opening.session());
        let birth = Birth { shared: Arc::clone(&self.shared), opening, site, kind };
        self.launch(request, Errand::Birth(birth)).await
    }

    /// A POST of a live session, while bodies are read: see [`super::under`].
    pub(super) async fn live(
        mut self,
        request: Request<Body>,
        in_flight: InFlight,
    ) -> Answer<S, B> {
        if !self.shared.has_room(in_flight.record().principal()) {
            Track::plain(&self.shared, in_flight).let_go();
            return Ok(self.shared.reject(Rejection::TableFull));
        }
        let (parts, body) = request.into_parts();
        let Sniffed { message, is_cut_short, body } = sniff(body).await;
        let mut request = Request::from_parts(parts, body);
        let session = Session::of(in_flight.record());
        let track = Track::plain(&self.shared, in_flight);
        if !message.may_open() {
            self.shared.insert(session, &mut request);
            let response = self.service.call(request).await?;
            return Ok(track.finish(response));
        }
        let site = Site::of(&request, Arc::clone(&self.origin) as _);
        let taken = match site.is_too_long() && !is_cut_short {
            true => Err(Rejection::EndpointTooLong),
            false => self.take_under(&session, &request, is_cut_short),
        };
        let (opening, counted) = match taken {
            Ok(taken) => taken,
            Err(why) => {
                track.let_go();
                return Ok(self.shared.reject(why));
            }
        };
        self.shared.insert(session, &mut request);
        let under = UnderLive { track, site, opening, counted };
        self.launch(request, Errand::Under(under)).await
    }

    /// A place among such calls of this session, and a permit. A long call is no reason to take one: it is shielded, and
    /// its answer is gated.
    fn take_under(
        &self,
        session: &Session,
        request: &Request<Body>,
        is_long: bool,
    ) -> Result<(Option<Opening>, Counted<Bucket>), Rejection> {
        let Shared { doubtful, registry, .. } = &*self.shared;
        let principal = session.principal();
        let name = session.fingerprint();
        let (bucket, most) = if is_long {
            // What was opened for the last ones, and is not wanted, is on its way out.
            let room = MOST_LONG_UNDER_ONE.saturating_sub(registry.unclaimed(principal));
            (Bucket::LongOf(name), room)
        } else {
            (Bucket::Session(name), MOST_UNDER_ONE)
        };
        let counted = doubtful.take(bucket, most).ok_or(Rejection::TooManySessions)?;
        if is_long {
            return Ok((None, counted));
        }
        let (principal, endpoint) = (principal.cloned(), endpoint_of(request).into());
        let opening = registry.begin_now(Opener { principal, client: None, endpoint })?;
        self.shared.keep_extensions(&opening.session(), request);
        Ok((Some(opening), counted))
    }

    /// Lets go of what the service reserved when it was polled ready. While a request waits here, the closing DELETE
    /// that it waits for may need it.
    fn unready(&mut self) {
        let fresh = self.service.clone();
        self.service = fresh;
        self.is_ready = false;
    }

    async fn ready(&mut self) -> Result<(), S::Error> {
        if !self.is_ready {
            poll_fn(|cx| self.service.poll_ready(cx)).await?;
            self.is_ready = true;
        }
        Ok(())
    }

    /// Calls the service so that the call goes on when the client hangs up: in a task of its own, unless the answer is
    /// there at once.
    async fn launch(self, request: Request<Body>, errand: Errand) -> Answer<S, B> {
        let (reply, answer) = oneshot::channel();
        let is_alone = Arc::new(AtomicBool::new(false));
        let call = attend(errand, self.service, request, reply, Arc::clone(&is_alone));
        let mut call = Box::pin(call.in_current_span());
        let task = match poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
            Poll::Ready(()) => None,
            Poll::Pending => {
                is_alone.store(true, Ordering::Relaxed);
                Some(tokio::spawn(call))
            }
        };
        match (answer.await, task) {
            (Ok(delivery), _) => delivery.map(Delivery::accept),
            // No reply: the service panicked, which is the caller's to see as without us, or the
            // runtime is going down.
            (Err(_), Some(task)) => match task.await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => Ok(self.shared.reject(Rejection::ShuttingDown)),
            },
            (Err(_), None) => Ok(self.shared.reject(Rejection::ShuttingDown)),
        }
    }
}
