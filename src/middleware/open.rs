//! Requests that may open a session: sniffed, given a permit, and shielded from their client.
//!
//! A client that hangs up during `initialize` would otherwise leave a session behind whose id
//! nobody knows: dropping the call to the server does not undo what the server has done. So the
//! call runs in a task of its own to its end, and what it opened for nobody is closed.

use std::{pin::pin, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::{
    sync::oneshot,
    time::{timeout, timeout_at},
};
use tower::Service;
use tracing::Instrument;

use super::{
    body::SessionBody,
    endpoint::{Calls, Origin, Site},
    replay::{Sniffed, sniff},
    settle::{Birth, Kind, Settled, adopt_unasked},
    shared::Shared,
};
use crate::{
    lifecycle::{CloseReason, Millis, Principal, Record},
    protocol::{ClientInfo, Era, Message, Rejection, SESSION_ID_HEADER, SessionId},
};

/// The soonest that `initialize` is answered, from the call on. Once an answer is written, nobody can
/// tell that its client had already gone, and the session stays until it was unused for too long:
/// of 1,500 clients that hung up at once, 20 to 300 left one without this, and none with it. A
/// server that takes as long anyway is not held back.
const HANG_UP_GRACE: Millis = 5;

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
            Message::Other if era == Era::Legacy && !self.shared.options.forward_missing_ids => {
                Ok(self.shared.reject(Rejection::IdMissing))
            }
            Message::Other | Message::Foreign => {
                let (watch, request) = Watch::begin(&self.shared, &self.origin, request);
                let response = self.service.call(request).await?;
                Ok(watch.finish(response))
            }
        }
    }

    /// A request with an id that only the server behind may know.
    pub(super) async fn restore(self, request: Request<Body>, id: SessionId) -> Answer<S, B> {
        let is_get = request.method() == http::Method::GET;
        self.launch(request, None, Kind::Restore { id, is_get }).await
    }

    async fn initialize(self, request: Request<Body>, client: Box<ClientInfo>) -> Answer<S, B> {
        self.launch(request, Some(client), Kind::Initialize).await
    }

    async fn launch(
        self,
        request: Request<Body>,
        client: Option<Box<ClientInfo>>,
        kind: Kind,
    ) -> Answer<S, B> {
        let Self { shared, origin, service } = self;
        let (principal, mut request) = shared.identify(request);
        if let Err(rejection) = shared.may_open(principal.as_ref()) {
            return Ok(shared.reject(rejection));
        }
        let opening = match shared.registry.begin(principal, client).await {
            Ok(opening) => opening,
            Err(rejection) => return Ok(shared.reject(rejection)),
        };
        request.extensions_mut().insert(opening.session());
        let site = Site::of(&request, origin);
        let birth = Birth { shared: Arc::clone(&shared), opening, site, kind };
        let (reply, answer) = oneshot::channel();
        let task = tokio::spawn(attend(birth, service, request, reply).in_current_span());
        match answer.await {
            Ok(delivery) => delivery.map(Delivery::accept),
            // No reply: the service panicked, which is the caller's to see as without us, or the
            // runtime is going down.
            Err(_) => match task.await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => Ok(shared.reject(Rejection::ShuttingDown)),
            },
        }
    }
}

/// Calls the service, whether or not anybody still waits for the answer.
async fn attend<S, B>(
    birth: Birth,
    mut service: S,
    request: Request<Body>,
    mut reply: oneshot::Sender<Result<Delivery<B>, S::Error>>,
) where
    S: Service<Request<Body>, Response = Response<B>>,
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    let shared = Arc::clone(&birth.shared);
    let limit = shared.options.open_timeout;
    let deliver = |settled| Delivery::new(&shared, settled);
    let clock = shared.registry.clock();
    let heard = clock.instant(clock.now() + HANG_UP_GRACE);
    let mut call = pin!(service.call(request));
    // A reply that finds nobody comes back and is dropped, which closes the session.
    match timeout(limit, &mut call).await {
        Ok(Ok(response)) => {
            let _ = timeout_at(heard, reply.closed()).await;
            drop(reply.send(Ok(deliver(birth.settle(response)))));
        }
        Ok(Err(error)) => drop(reply.send(Err(error))),
        Err(_) => {
            let refusal = Settled::nothing(shared.reject(Rejection::OpenTimeout));
            drop(reply.send(Ok(deliver(refusal))));
            // The client is answered, but the server may still open a session: as long again, to
            // learn its id and close it.
            if let Ok(Ok(response)) = timeout(limit, call).await {
                drop(deliver(birth.settle(response)));
            }
        }
    }
}

/// An answer on its way to the client, and the session to close if it does not get there.
struct Delivery<B> {
    response: Response<SessionBody<B>>,
    undo: Undo,
}

impl<B> Delivery<B> {
    fn new(shared: &Arc<Shared>, settled: Settled<B>) -> Self {
        let undo = Undo { shared: Arc::clone(shared), record: settled.opened };
        Self { response: settled.response, undo }
    }

    fn accept(mut self) -> Response<SessionBody<B>> {
        self.undo.record = None;
        self.response
    }
}

struct Undo {
    shared: Arc<Shared>,
    record: Option<Arc<Record>>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.shared.registry.close(&record, CloseReason::Abandoned);
        }
    }
}

/// A request that belongs to no session, in case its answer carries one.
pub(super) struct Watch {
    shared: Arc<Shared>,
    site: Site,
    principal: Option<Principal>,
}

impl Watch {
    pub(super) fn begin<S>(
        shared: &Arc<Shared>,
        origin: &Arc<Origin<S>>,
        request: Request<Body>,
    ) -> (Self, Request<Body>)
    where
        Origin<S>: Calls + 'static,
    {
        let (principal, request) = shared.identify(request);
        let site = Site::of(&request, Arc::clone(origin) as Arc<dyn Calls>);
        (Self { shared: Arc::clone(shared), site, principal }, request)
    }

    pub(super) fn finish<B>(self, response: Response<B>) -> Response<SessionBody<B>>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    {
        let Self { shared, site, principal } = self;
        let has_id = response.headers().contains_key(SESSION_ID_HEADER);
        if !has_id || !response.status().is_success() {
            return response.map(SessionBody::plain);
        }
        let endpoint = site.endpoint(shared.options.terminate.clone());
        adopt_unasked(&shared, response, principal, endpoint)
    }
}
