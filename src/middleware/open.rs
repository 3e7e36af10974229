//! Requests that may open a session: sniffed, given a permit, and shielded from their client.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use tokio::{sync::oneshot, time::timeout};
use tower::Service;
use tracing::Instrument;

use super::{
    attend::{Delivery, Errand, attend},
    body::SessionBody,
    endpoint::{Origin, Site},
    replay::{Sniffed, sniff},
    settle::{Birth, Kind},
    shared::Shared,
    stray::Stray,
    track::Track,
};
use crate::{
    lifecycle::{Principal, Session},
    protocol::{ClientInfo, Era, Message, Rejection, SessionId},
};

/// A service that is ready, and what is needed to call it for a session that is not there yet.
pub(super) struct Caller<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) origin: Arc<Origin<S>>,
    pub(super) service: S,
}

type Answer<S, B> = Result<Response<SessionBody<B>>, <S as Service<Request<Body>>>::Error>;

impl<S, B> Caller<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    /// A POST of JSON without a usable id.
    pub(super) async fn sniffed(mut self, request: Request<Body>, era: Era) -> Answer<S, B> {
        let (parts, body) = request.into_parts();
        let Sniffed { message, body } = sniff(body).await;
        let request = Request::from_parts(parts, body);
        match message {
            Message::Initialize(client) => self.initialize(request, client).await,
            Message::Ambiguous => Ok(self.shared.reject(Rejection::MessageAmbiguous)),
            Message::Foreign => self.stray(request).await,
            Message::Other if era == Era::Modern => {
                let response = self.service.call(request).await?;
                Ok(response.map(SessionBody::plain))
            }
            Message::Other if era == Era::Unknown || self.shared.options.forward_missing_ids => {
                self.stray(request).await
            }
            Message::Other => Ok(self.shared.reject(Rejection::IdMissing)),
        }
    }

    /// A POST in which we see no `initialize`, though the server behind may see one.
    pub(super) async fn stray(self, request: Request<Body>) -> Answer<S, B> {
        if self.shared.registry.is_swamped() {
            return Ok(self.shared.reject(Rejection::TableFull));
        }
        let (stray, request) = Stray::begin(&self.shared, &self.origin, request);
        self.launch(request, Errand::Stray(stray)).await
    }

    /// A request with an id that only the server behind may know.
    pub(super) async fn restore(
        mut self,
        mut request: Request<Body>,
        id: SessionId,
        principal: Option<Principal>,
    ) -> Answer<S, B> {
        // Bounded: whoever is first may be at it for as long as a call takes. Who goes on without
        // a turn joins the session that comes first.
        let turn = Arc::clone(&self.shared).turn(id.clone());
        let turn = timeout(self.shared.options.open_timeout, turn).await.ok();
        // Whoever was first may have restored it, or ended it.
        let registry = Arc::clone(&self.shared.registry);
        if let Ok(in_flight) = registry.enter(id.as_bytes(), principal.as_ref()) {
            drop(turn);
            let session = Session::of(in_flight.record());
            let track = match Track::begin(&self.shared, in_flight, &request) {
                Ok(track) => track,
                Err(why) => return Ok(self.shared.reject(why)),
            };
            request.extensions_mut().insert(session);
            let response = self.service.call(request).await?;
            return Ok(track.finish(response));
        }
        if registry.find(id.as_bytes()).is_some() || registry.was_closed(&id) {
            return Ok(self.shared.reject(Rejection::SessionNotFound));
        }
        let is_get = request.method() == Method::GET;
        self.open(request, principal, None, Kind::Restore { id, is_get, _turn: turn }).await
    }

    async fn initialize(self, request: Request<Body>, client: Box<ClientInfo>) -> Answer<S, B> {
        let (principal, request) = self.shared.identify(request);
        if let Err(why) = self.shared.may_open(principal.as_ref()) {
            return Ok(self.shared.reject(why));
        }
        self.open(request, principal, Some(client), Kind::Initialize).await
    }

    async fn open(
        self,
        mut request: Request<Body>,
        principal: Option<Principal>,
        client: Option<Box<ClientInfo>>,
        kind: Kind,
    ) -> Answer<S, B> {
        let site = Site::of(&request, Arc::clone(&self.origin) as _);
        if site.is_too_long() {
            return Ok(self.shared.reject(Rejection::EndpointTooLong));
        }
        let opening = match self.shared.registry.begin(principal, client).await {
            Ok(opening) => opening,
            Err(why) => return Ok(self.shared.reject(why)),
        };
        if let Kind::Restore { id, .. } = &kind {
            opening.name(id.clone());
        }
        request.extensions_mut().insert(opening.session());
        let birth = Birth { shared: Arc::clone(&self.shared), opening, site, kind };
        self.launch(request, Errand::Birth(birth)).await
    }

    /// Calls the service in a task of its own.
    async fn launch(self, request: Request<Body>, errand: Errand) -> Answer<S, B> {
        let (reply, answer) = oneshot::channel();
        let task = attend(errand, self.service, request, reply).in_current_span();
        let task = tokio::spawn(task);
        match answer.await {
            Ok(delivery) => delivery.map(Delivery::accept),
            // No reply: the service panicked, which is the caller's to see as without us, or the
            // runtime is going down.
            Err(_) => match task.await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => Ok(self.shared.reject(Rejection::ShuttingDown)),
            },
        }
    }
}
