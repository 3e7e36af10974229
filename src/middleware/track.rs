//! What the answer to a request means for the session it belongs to.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;

use super::{
    body::{SessionBody, carry},
    settle::adopt_unasked,
    shared::Shared,
};
use crate::{
    lifecycle::{CloseReason, InFlight, Record, StreamSeat},
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
        let mut seat = None;
        if request.method() == Method::GET {
            let record = in_flight.record();
            let refusal = if shared.registry.is_draining() {
                Some(Rejection::ShuttingDown)
            } else {
                seat = StreamSeat::take(record, shared.options.max_streams);
                seat.is_none().then_some(Rejection::TooManyStreams)
            };
            if let Some(refusal) = refusal {
                // A request that got nothing done does not keep the session.
                in_flight.end_quietly();
                return Err(refusal);
            }
        }
        let ending = (request.method() == Method::DELETE)
            .then(|| Ending::new(shared, in_flight.record(), request.uri().path()));
        Ok(Self { shared: Arc::clone(shared), in_flight, seat, ending })
    }

    /// The answer has come.
    pub(super) fn finish<B>(self, response: Response<B>) -> Response<SessionBody<B>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let Self { shared, in_flight, seat, ending } = self;
        let status = response.status();
        if let Some(ending) = ending
            && ending.end_if_agreed(status)
        {
            return response.map(SessionBody::plain);
        }
        let record = Arc::clone(in_flight.record());
        match status {
            StatusCode::NOT_FOUND => {
                // Told all the same: the 404 may be that of another route, and the server behind
                // would keep what nobody can reach any more.
                shared.registry.close(&record, CloseReason::Inner);
                return response.map(SessionBody::plain);
            }
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                // Not held for the body: the reaper took this request for one that will refresh
                // the deadline, so if it is past, it falls to us to see that.
                in_flight.end_quietly();
                shared.registry.look_at(&record);
                return response.map(SessionBody::plain);
            }
            _ => {}
        }
        if has_another_id(&response, &record)
            && let Some(terminate) = record.terminate()
        {
            return adopt_unasked(&shared, response, record.principal().cloned(), terminate);
        }
        carry(&shared, response, in_flight, seat)
            .unwrap_or_else(|| shared.reject(Rejection::SessionNotFound))
    }
}

/// Whether the server behind answered with a session that is not the request's.
fn has_another_id<B>(response: &Response<B>, record: &Record) -> bool {
    let id = response.headers().get(SESSION_ID_HEADER);
    id.is_some_and(|id| {
        response.status().is_success()
            && record.id().is_none_or(|own| own.as_str().as_bytes() != id.as_bytes())
    })
}

/// A DELETE under way. The client wants the session gone: if it hangs up before the answer, that
/// is still so, and the server behind may have obeyed already.
struct Ending {
    shared: Arc<Shared>,
    record: Arc<Record>,
    /// Whether this DELETE went where the session was opened, so that it needs no other.
    at_endpoint: bool,
    decided: bool,
}

impl Ending {
    fn new(shared: &Arc<Shared>, record: &Arc<Record>, path: &str) -> Self {
        let at_endpoint = record.terminate().is_some_and(|terminate| terminate.is_at(path));
        Self { shared: Arc::clone(shared), record: Arc::clone(record), at_endpoint, decided: false }
    }

    /// Closes the session if the server behind agrees.
    fn end_if_agreed(mut self, status: StatusCode) -> bool {
        self.decided = true;
        let registry = &self.shared.registry;
        if status.is_success() && self.at_endpoint {
            registry.close_untold(&self.record, CloseReason::Client);
        } else if status.is_success() || status == StatusCode::NOT_FOUND {
            registry.close(&self.record, CloseReason::Client);
        } else {
            return false;
        }
        true
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.decided {
            self.shared.registry.close(&self.record, CloseReason::Client);
        }
    }
}
