//! What the answer to a request means for the session it belongs to.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use http_body::Body;

use super::{
    body::{SessionBody, carry},
    gate::{self, Asked, Gate, Ruling, is_empty, names_a_session},
    route::Kept,
    settle::{Settled, opened},
    shared::Shared,
};
use crate::{
    lifecycle::{
        CloseReason, InFlight, Millis, Opener, Opening, Record, Session, StreamSeat, Terminator,
        Timed, span,
    },
    protocol::{Rejection, SessionId},
};

/// A request of a live session, from its arrival to the head of its answer.
pub(super) struct Track {
    shared: Arc<Shared>,
    in_flight: InFlight,
    /// `None` for a POST.
    other: Option<Box<OtherMethod>>,
}

/// What a request by another method than POST has.
struct OtherMethod {
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
        let record = in_flight.record();
        let (mut seat, mut ending) = (None, None);
        let may_be_refused = ![Method::POST, Method::DELETE].contains(request.method());
        // Only a server that was seen to open sessions under live ones is asked no faster than it ends them.
        if may_be_refused && shared.calls.any() && !shared.has_room(record.principal()) {
            turn_back(shared, in_flight);
            return Err(Rejection::TableFull);
        }
        match *request.method() {
            Method::POST => return Ok(Self::plain(shared, in_flight)),
            Method::GET => match Self::seat(shared, record) {
                Ok(taken) => seat = Some(taken),
                Err(refusal) => {
                    turn_back(shared, in_flight);
                    return Err(refusal);
                }
            },
            Method::DELETE => ending = Some(Ending::new(shared, record)),
            _ => {}
        }
        let other = Some(Box::new(OtherMethod { seat, ending }));
        Ok(Self { other, ..Self::plain(shared, in_flight) })
    }

    fn seat(shared: &Shared, record: &Arc<Record>) -> Result<StreamSeat, Rejection> {
        if shared.registry.is_draining() {
            return Err(Rejection::ShuttingDown);
        }
        StreamSeat::take(record, shared.options.max_streams).ok_or(Rejection::TooManyStreams)
    }

    /// Of a POST.
    #[inline]
    pub(super) fn plain(shared: &Arc<Shared>, in_flight: InFlight) -> Self {
        Self { shared: Arc::clone(shared), in_flight, other: None }
    }

    fn is_post(&self) -> bool {
        self.other.is_none()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn record(&self) -> &Arc<Record> {
        self.in_flight.record()
    }

    /// Ends a request that got nothing done.
    pub(super) fn let_go(self) {
        turn_back(&self.shared, self.in_flight);
    }

    /// The client hung up before there was an answer. If this was an `initialize` and the server opens a session for
    /// it, nobody will know: bodies are read for a while.
    pub(super) fn hung_up(&self) {
        if self.is_post() {
            self.shared.calls.note(self.shared.registry.clock().now());
        }
    }

    /// The answer has come.
    #[inline]
    pub(super) fn finish<B>(self, mut response: Response<B>) -> Response<SessionBody<B>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let has_id = names_a_session(&mut response);
        let is_delete = || self.other.as_ref().is_some_and(|other| other.ending.is_some());
        if has_id || turns_away(response.status()) || is_delete() {
            return self.judge(response, has_id);
        }
        self.carry(response)
    }

    /// As [`finish`](Self::finish), where the client may be gone: what the answer opened is closed if it is not taken.
    pub(super) fn settle<B>(self, mut response: Response<B>, may_open: bool) -> Settled<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        if names_a_session(&mut response)
            && let Some(other) = self.rule(&mut response, may_open)
        {
            return other.settle(self, response);
        }
        Settled::nothing(self.judge(response, false))
    }

    /// An answer that may be about the session itself.
    #[inline(never)]
    fn judge<B>(mut self, mut response: Response<B>, has_id: bool) -> Response<SessionBody<B>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let status = response.status();
        if has_id && let Some(other) = self.rule(&mut response, true) {
            return other.settle(self, response).response;
        }
        // Closed while the answer was under way: by its deadline, an operator, or a DELETE that waited too long.
        if self.record().word().is_closed() {
            gate::strip(&mut response);
        }
        let is_post = self.is_post();
        let ending = self.other.as_mut().and_then(|other| other.ending.take());
        let is_delete = ending.is_some();
        if ending.is_some_and(|ending| ending.end_if_agreed(status)) {
            gate::strip(&mut response);
            if status.is_success() && is_empty(response.body()) {
                no_content(&mut response);
            }
            return response.map(SessionBody::plain);
        }
        if status == StatusCode::NOT_FOUND && (is_post || is_delete) {
            // The server is told all the same: it may be a balancer's other node that answered, and the session would
            // stay where nobody can reach it any more.
            self.shared.registry.close(self.in_flight.record(), CloseReason::Inner);
            gate::strip(&mut response);
            return response.map(SessionBody::plain);
        }
        if turns_away(status) {
            let record = Arc::clone(self.in_flight.record());
            turn_back(&self.shared, self.in_flight);
            // The deadline may have passed while it was under way.
            if record.word().is_closed() {
                gate::strip(&mut response);
            }
            return response.map(SessionBody::plain);
        }
        self.carry(response)
    }

    /// `Some` if the answer opened another session, and it may.
    fn rule<B>(&self, response: &mut Response<B>, may_open: bool) -> Option<Other> {
        let record = self.in_flight.record();
        let terminate = record.terminate();
        let mut gate = Gate {
            shared: &self.shared,
            endpoint: terminate.clone(),
            principal: record.principal(),
            opening: None,
            kept: Kept::of(&Session::of(record)),
        };
        let id = record.id().map_or(&[][..], |id| id.as_bytes());
        let ruling = gate.rule(response, Asked::Live { id, is_post: self.is_post() && may_open });
        if !matches!(ruling, Ruling::HandOn) {
            // Such a server opens sessions under live ones: from now on, a permit comes first.
            self.shared.calls.expect_always();
        }
        let id = match ruling {
            Ruling::HandOn | Ruling::Stripped => return None,
            Ruling::Unusable => return Some(Other::Refused(Rejection::UnusableId)),
            Ruling::Own(id) => id,
        };
        let opener = Opener {
            principal: record.principal().cloned(),
            client: None,
            endpoint: record.endpoint().into(),
        };
        // With its own session, whatever came of it is over.
        let is_closed = record.word().is_closed();
        let opening = terminate
            .filter(|_| !is_closed)
            .ok_or_else(|| self.shared.why_closed())
            .and_then(|it| self.shared.registry.begin_now(opener).map(|opening| (opening, it)));
        match opening {
            Ok((opening, terminator)) => {
                if let Some(kept) = gate.kept {
                    kept.put(&opening.session());
                }
                Some(Other::Opened { opening, terminator, id })
            }
            Err(why) => {
                gate.end(id);
                Some(Other::Refused(why))
            }
        }
    }

    #[inline]
    fn carry<B>(self, response: Response<B>) -> Response<SessionBody<B>>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let (head, body) = response.into_parts();
        let seat = self.other.and_then(|other| other.seat);
        match carry(self.shared, &head, body, self.in_flight, seat, true) {
            Ok(body) => Response::from_parts(head, body),
            Err(shared) => shared.reject(shared.why_closed()),
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

/// Another session than the request's, which its answer opened.
enum Other {
    Opened { opening: Opening, terminator: Terminator, id: SessionId },
    Refused(Rejection),
}

impl Other {
    fn settle<B>(self, track: Track, response: Response<B>) -> Settled<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let shared = Arc::clone(&track.shared);
        track.let_go();
        match self {
            Self::Opened { opening, terminator, id } => {
                opened(&shared, opening, id, terminator, response)
            }
            Self::Refused(why) => Settled::nothing(shared.reject(why)),
        }
    }
}

/// Clients take 204 for the end of a session; the official Python client logs any other success as a failure.
fn no_content<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::NO_CONTENT;
    for header in [CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING] {
        response.headers_mut().remove(header);
    }
}

/// A DELETE under way. The client wants the session gone: if it hangs up before the answer, or none
/// comes within `close_timeout`, that is still so, and the server behind may have obeyed already.
struct Ending(Arc<Delete>);

struct Delete {
    shared: Arc<Shared>,
    record: Arc<Record>,
    decided: AtomicBool,
}

impl Ending {
    fn new(shared: &Arc<Shared>, record: &Arc<Record>) -> Self {
        let (shared, record) = (Arc::clone(shared), Arc::clone(record));
        let decided = AtomicBool::new(false);
        let delete = Arc::new(Delete { shared, record, decided });
        if let Some(patience) = span(delete.shared.options.close_timeout) {
            let registry = &delete.shared.registry;
            let weak: Weak<Delete> = Arc::downgrade(&delete);
            registry.watch_timed(weak, registry.clock().now().saturating_add(patience));
        }
        Self(delete)
    }

    /// Closes the session if the server behind agrees.
    fn end_if_agreed(self, status: StatusCode) -> bool {
        let Delete { shared, record, .. } = &*self.0;
        self.0.decide();
        if status.is_success() {
            shared.registry.close_untold(record, CloseReason::Client);
        } else if status == StatusCode::NOT_FOUND {
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
