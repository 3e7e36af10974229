//! What the answer to a request means for the session it belongs to.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;

use super::{
    body::{SessionBody, carry},
    settle::mark_secret,
    shared::Shared,
    stray::adopt,
};
use crate::{
    lifecycle::{CloseReason, InFlight, Millis, Record, StreamSeat, Timed, span},
    protocol::{Rejection, SESSION_ID_HEADER},
};

/// A request of a live session, from its arrival to the head of its answer.
pub(super) struct Track {
    shared: Arc<Shared>,
    in_flight: InFlight,
    seat: Option<StreamSeat>,
    ending: Option<Ending>,
}

impl Track {
    /// `Err` if the session may not have another stream.
    pub(super) fn begin<T>(
        shared: &Arc<Shared>,
        in_flight: InFlight,
        request: &Request<T>,
    ) -> Result<Self, Rejection> {
        match *request.method() {
            Method::GET => Self::stream(shared, in_flight),
            Method::DELETE => Ok(Self::ending(shared, in_flight, request.uri().path())),
            _ => Ok(Self::plain(shared, in_flight)),
        }
    }

    /// Of a request that neither opens a stream nor ends the session.
    pub(super) fn plain(shared: &Arc<Shared>, in_flight: InFlight) -> Self {
        Self { shared: Arc::clone(shared), in_flight, seat: None, ending: None }
    }

    fn stream(shared: &Arc<Shared>, in_flight: InFlight) -> Result<Self, Rejection> {
        let refusal = if shared.registry.is_draining() {
            Rejection::ShuttingDown
        } else {
            match StreamSeat::take(in_flight.record(), shared.options.max_streams) {
                Some(seat) => {
                    return Ok(Self { seat: Some(seat), ..Self::plain(shared, in_flight) });
                }
                None => Rejection::TooManyStreams,
            }
        };
        turn_back(shared, in_flight);
        Err(refusal)
    }

    fn ending(shared: &Arc<Shared>, in_flight: InFlight, path: &str) -> Self {
        let ending = Ending::new(shared, in_flight.record(), path);
        Self { ending: Some(ending), ..Self::plain(shared, in_flight) }
    }

    /// The answer has come.
    #[inline]
    pub(super) fn finish<B>(self, mut response: Response<B>) -> Response<SessionBody<B>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let has_id = mark_secret(&mut response);
        if has_id || self.ending.is_some() || turns_away(response.status()) {
            return self.judge(response, has_id);
        }
        self.carry(response)
    }

    /// An answer that may be about the session itself.
    #[inline(never)]
    fn judge<B>(mut self, response: Response<B>, has_id: bool) -> Response<SessionBody<B>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let status = response.status();
        if self.ending.take().is_some_and(|ending| ending.end_if_agreed(status)) {
            return response.map(SessionBody::plain);
        }
        let record = self.in_flight.record();
        if status == StatusCode::NOT_FOUND {
            // Told all the same: the 404 may be that of another route, and the server behind
            // would keep what nobody can reach any more.
            self.shared.registry.close(record, CloseReason::Inner);
            return response.map(SessionBody::plain);
        }
        if turns_away(status) {
            turn_back(&self.shared, self.in_flight);
            return response.map(SessionBody::plain);
        }
        if has_id
            && has_another_id(&response, record)
            && let Some(terminate) = record.terminate()
        {
            let principal = record.principal().cloned();
            return adopt(&self.shared, response, principal, terminate).response;
        }
        self.carry(response)
    }

    #[inline]
    fn carry<B>(self, response: Response<B>) -> Response<SessionBody<B>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let (head, body) = response.into_parts();
        match carry(&self.shared, &head, body, self.in_flight, self.seat, true) {
            Some(body) => Response::from_parts(head, body),
            None => self.shared.reject(Rejection::SessionNotFound),
        }
    }
}

/// Whether the server got nothing done.
fn turns_away(status: StatusCode) -> bool {
    [
        StatusCode::NOT_FOUND,
        StatusCode::BAD_REQUEST,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
    ]
    .contains(&status)
}

/// Ends a request that got nothing done: it does not move the deadline. It is not held for its
/// body, and if the deadline has passed while it was in flight, it falls to us to see that.
fn turn_back(shared: &Shared, in_flight: InFlight) {
    let record = Arc::clone(in_flight.record());
    in_flight.end_quietly();
    shared.registry.look_at(&record);
}

/// Whether the server behind answered with a session that is not the request's.
fn has_another_id<B>(response: &Response<B>, record: &Record) -> bool {
    let id = response.headers().get(&SESSION_ID_HEADER);
    id.is_some_and(|id| {
        response.status().is_success()
            && record.id().is_none_or(|own| own.as_str().as_bytes() != id.as_bytes())
    })
}

/// A DELETE under way. The client wants the session gone: if it hangs up before the answer, or none
/// comes within `close_timeout`, that is still so, and the server behind may have obeyed already.
struct Ending(Arc<Delete>);

struct Delete {
    shared: Arc<Shared>,
    record: Arc<Record>,
    /// Whether this DELETE went where the session was opened, so that it needs no other.
    at_endpoint: bool,
    decided: AtomicBool,
}

impl Ending {
    fn new(shared: &Arc<Shared>, record: &Arc<Record>, path: &str) -> Self {
        let at_endpoint = record.terminate().is_some_and(|terminate| terminate.is_at(path));
        let (shared, record) = (Arc::clone(shared), Arc::clone(record));
        let decided = AtomicBool::new(false);
        let delete = Arc::new(Delete { shared, record, at_endpoint, decided });
        if let Some(patience) = span(delete.shared.options.close_timeout) {
            let registry = &delete.shared.registry;
            let weak: Weak<Delete> = Arc::downgrade(&delete);
            registry.watch_timed(weak, registry.clock().now().saturating_add(patience));
        }
        Self(delete)
    }

    /// Closes the session if the server behind agrees.
    fn end_if_agreed(self, status: StatusCode) -> bool {
        let Delete { shared, record, at_endpoint, .. } = &*self.0;
        self.0.decide();
        if status.is_success() && *at_endpoint {
            shared.registry.close_untold(record, CloseReason::Client);
        } else if status.is_success() || status == StatusCode::NOT_FOUND {
            shared.registry.close(record, CloseReason::Client);
        } else {
            return false;
        }
        true
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl Delete {
    /// Its answer has come.
    fn decide(&self) {
        self.decided.store(true, Ordering::Release);
    }

    /// Nobody will say what came of it.
    fn give_up(&self) {
        if !self.decided.swap(true, Ordering::AcqRel) {
            self.shared.registry.close(&self.record, CloseReason::Client);
        }
    }
}

impl Timed for Delete {
    fn look_at(&self, _: Millis) -> Option<Millis> {
        self.give_up();
        None
    }
}
