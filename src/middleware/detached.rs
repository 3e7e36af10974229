//! A call that goes on when its client hangs up.
//!
//! A client that hangs up during `initialize` would otherwise leave a session behind whose id nobody knows: dropping
//! the call does not undo what the server has done. So the call runs in a task of its own, and what it opened for
//! nobody is closed.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, timeout, timeout_at},
};
use tower::Service;

use super::{
    body::SessionBody,
    peek::{Peeked, peek},
    settle::{Birth, Kind, Settled},
    shared::Shared,
    unclaimed::Unclaimed,
    under::UnderLive,
};
use crate::{
    lifecycle::{CloseReason, Record},
    protocol::{Rejection, SESSION_ID_HEADER},
};

/// What a call is made for.
pub(super) enum Errand {
    Birth(Birth),
    Unclaimed(Unclaimed),
    Under(UnderLive),
}

impl Errand {
    fn shared(&self) -> Arc<Shared> {
        Arc::clone(match self {
            Self::Birth(birth) => &birth.shared,
            Self::Unclaimed(unclaimed) => &unclaimed.shared,
            Self::Under(under) => under.shared(),
        })
    }

    fn is_initialize(&self) -> bool {
        matches!(self, Self::Birth(Birth { kind: Kind::Initialize, .. }))
    }

    /// How long the client may have to wait. Only `initialize` is known to be quick: the others
    /// may be any work.
    fn limit(&self, shared: &Shared) -> Duration {
        if self.is_initialize() { shared.options.open_timeout } else { Duration::MAX }
    }

    /// Whether this answer may bring a session that nobody has yet.
    fn may_be_lost<B>(&self, response: &Response<B>) -> bool {
        match self {
            Self::Birth(Birth { kind: Kind::Initialize, .. }) => true,
            Self::Unclaimed(unclaimed) if !unclaimed.asks_for_session() => false,
            _ => response.headers().contains_key(&SESSION_ID_HEADER),
        }
    }

    /// Reads as much of the answer as decides whether a session came of it.
    async fn peek<B>(&self, response: &mut Response<B>, limit: Duration) -> Peeked
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let opens = match self {
            // Most are honest calls: only an answer that names another session is looked at.
            Self::Under(under) => under.is_another_named(response),
            _ => self.is_initialize(),
        };
        if opens && response.status().is_success() {
            peek(response, limit).await
        } else {
            Peeked::default()
        }
    }

    fn settle<B>(self, response: Response<B>, peeked: Peeked) -> Settled<B>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    {
        match self {
            Self::Birth(birth) => birth.settle(response, peeked),
            Self::Unclaimed(unclaimed) => unclaimed.settle(response),
            Self::Under(under) => under.settle(response, peeked),
        }
    }
}

/// Calls the service, whether or not anybody still waits for the answer. `is_alone` once it runs in a task of its own.
pub(super) async fn attend<S, B>(
    errand: Errand,
    mut service: S,
    request: Request<Body>,
    mut reply: oneshot::Sender<Result<Delivery<B>, S::Error>>,
    is_alone: Arc<AtomicBool>,
) where
    S: Service<Request<Body>, Response = Response<B>>,
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    let shared = errand.shared();
    let limit = errand.limit(&shared);
    let begin = Instant::now();
    let mut call = pin!(service.call(request));
    let waited = {
        let hang_up = pin!(reply.closed());
        timeout(limit, select(&mut call, hang_up)).await.map(|first| match first {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        })
    };
    let answer = match waited {
        Ok(Some(answer)) => answer,
        Ok(None) => {
            shared.note_hang_up();
            return drop(settle_for_nobody(&shared, errand, call).await);
        }
        Err(_) => {
            let refusal = Settled::nothing(shared.reject(Rejection::OpenTimeout));
            drop(reply.send(Ok(Delivery::new(&shared, refusal))));
            return drop(settle_for_nobody(&shared, errand, call).await);
        }
    };
    // A reply that finds nobody comes back and is dropped, which closes the session.
    match answer {
        Ok(mut response) => {
            let peeked = {
                let peeking = errand.peek(&mut response, limit.saturating_sub(begin.elapsed()));
                let peeking = pin!(AssertUnwindSafe(peeking).catch_unwind());
                match select(peeking, pin!(reply.closed())).await {
                    Either::Left((peeked, _)) => peeked,
                    // What was read is lost, and so is the client.
                    Either::Right(_) => Ok(Peeked::default()),
                }
            };
            let peeked = match peeked {
                Ok(peeked) => peeked,
                // The body's panic is the caller's to see, but its head may have named a session.
                Err(payload) => {
                    drop(errand.settle(response, Peeked::broke_off()));
                    resume_unwind(payload);
                }
            };
            if errand.may_be_lost(&response) {
                hold_back(&shared, begin, &mut reply, &is_alone).await;
            }
            drop(reply.send(Ok(Delivery::new(&shared, errand.settle(response, peeked)))));
        }
        Err(error) => drop(reply.send(Err(error))),
    }
}

/// The soonest that an answer with a new session is given while clients hang up, from the call on. Once it is written,
/// nobody can tell that its client had already gone, and the session stays until it was unused for too long. A server
/// that takes as long anyway is not held back.
const HANG_UP_GRACE: Duration = Duration::from_millis(10);

/// Waits for as long as a hang-up may still be seen.
async fn hold_back<T>(
    shared: &Shared,
    begin: Instant,
    reply: &mut oneshot::Sender<T>,
    is_alone: &AtomicBool,
) {
    // While clients are calm, everything else that is ready runs first: a hang-up that has arrived is then seen by its
    // connection. An answer that is there at once overtakes none: the connection has just looked.
    if is_alone.load(Ordering::Relaxed) && !reply.is_closed() && !shared.holds_back() {
        yield_now().await;
    }
    if shared.holds_back() {
        let _ = timeout_at(begin + HANG_UP_GRACE, reply.closed()).await;
    }
    if reply.is_closed() {
        shared.note_hang_up();
    }
}

/// Nobody waits any more, but the server may still open a session: as long as an `initialize` may
/// take, to learn its id and close it.
async fn settle_for_nobody<B, E>(
    shared: &Arc<Shared>,
    errand: Errand,
    call: impl Future<Output = Result<Response<B>, E>>,
) -> Option<Delivery<B>>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    let answer = timeout(shared.options.open_timeout, call).await;
    let response = answer.ok()?.ok()?;
    Some(Delivery::new(shared, errand.settle(response, Peeked::default())))
}

/// An answer on its way to the client, and the session to close if it does not get there.
pub(super) struct Delivery<B> {
    response: Response<SessionBody<B>>,
    undo: Undo,
}

impl<B> Delivery<B> {
    fn new(shared: &Arc<Shared>, settled: Settled<B>) -> Self {
        let undo = Undo { shared: Arc::clone(shared), record: settled.opened };
        Self { response: settled.response, undo }
    }

    pub(super) fn accept(mut self) -> Response<SessionBody<B>> {
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
