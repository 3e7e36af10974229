//! What comes of an answer that opens a session: the id, the table, the guard.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Body;

use super::{
    body::{SessionBody, carry},
    endpoint::Site,
    heartbeat::{is_event_stream, is_type},
    shared::Shared,
    turns::Turn,
};
use crate::{
    lifecycle::{Exit, InFlight, Issuer, Opening, Record, StreamSeat, Terminator},
    protocol::{Rejection, SESSION_ID_HEADER, SessionHeaders, SessionId},
};

/// What is known of a session before the server behind has answered.
pub(super) struct Birth {
    pub(super) shared: Arc<Shared>,
    pub(super) opening: Opening,
    pub(super) site: Site,
    pub(super) kind: Kind,
}

/// How the session came to be asked for.
pub(super) enum Kind {
    Initialize,
    /// A request with an id that only the server behind may know.
    Restore {
        id: SessionId,
        is_get: bool,
        _turn: Option<Turn>,
    },
}

/// An answer, and the session that came of it, if one did.
pub(super) struct Settled<B> {
    pub(super) response: Response<SessionBody<B>>,
    pub(super) opened: Option<Arc<Record>>,
}

impl<B> Settled<B> {
    pub(super) fn nothing(response: Response<SessionBody<B>>) -> Self {
        Self { response, opened: None }
    }

    pub(super) fn plain(response: Response<B>) -> Self {
        Self::nothing(response.map(SessionBody::plain))
    }
}

impl Birth {
    /// What the answer makes of it.
    pub(super) fn settle<B>(self, response: Response<B>) -> Settled<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let restores = matches!(self.kind, Kind::Restore { .. });
        if restores && response.status() == StatusCode::NOT_FOUND {
            // Ours, or it would tell ids that nobody has from those of others.
            return Settled::nothing(self.shared.reject(Rejection::SessionNotFound));
        }
        // A restore may have reached a route that answers anything to anybody.
        if !response.status().is_success() || restores && !is_mcp(&response) {
            return Settled::plain(response);
        }
        match self.kind {
            Kind::Initialize => self.initialized(response),
            Kind::Restore { .. } => self.restored(response),
        }
    }

    fn initialized<B>(self, mut response: Response<B>) -> Settled<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let Self { shared, opening, site, .. } = self;
        let endpoint = site.endpoint(shared.options.terminate.clone());
        let issued = match SessionHeaders::read(response.headers()).id {
            Ok(issued) => issued.map(SessionId::new),
            Err(_) => {
                turn_all_away(&shared, &response, &endpoint);
                return Settled::nothing(shared.reject(Rejection::UnusableId));
            }
        };
        let (id, issuer) = match issued {
            Some(id) => (id, Issuer::Inner),
            // Not MCP (a route beside it that answers anything): no session came of it.
            None if !shared.options.mint_ids || !is_mcp(&response) => {
                return Settled::plain(response);
            }
            None => (shared.mint(), Issuer::Layer),
        };
        let opened = id.and_then(|id| {
            let header = id.to_header().ok_or(Rejection::UnusableId)?;
            let opened = opening.complete(id, issuer, endpoint, Exit::Stamp);
            opened.map(|in_flight| (in_flight, header)).map_err(|_| Rejection::UnusableId)
        });
        match opened {
            Ok((in_flight, header)) => {
                // Also where it is there: ours is marked as a secret.
                response.headers_mut().insert(&SESSION_ID_HEADER, header);
                hand_over(&shared, response, in_flight, None, false)
            }
            Err(rejection) => Settled::nothing(shared.reject(rejection)),
        }
    }

    fn restored<B>(self, response: Response<B>) -> Settled<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let Self { shared, opening, site, kind } = self;
        let Kind::Restore { id, is_get, _turn } = kind else {
            return Settled::plain(response);
        };
        let endpoint = site.endpoint(shared.options.terminate.clone());
        let principal = opening.session().principal().cloned();
        let entered = opening
            .complete(id.clone(), Issuer::Inner, endpoint, Exit::Touch)
            // Another request of this client was faster: join it, if it is this client's.
            .or_else(|_| shared.registry.enter(id.as_bytes(), principal.as_ref()));
        match entered {
            Ok(in_flight) => {
                let mut seat = None;
                if is_get {
                    seat = StreamSeat::take(in_flight.record(), shared.options.max_streams);
                    if seat.is_none() {
                        return Settled::nothing(shared.reject(Rejection::TooManyStreams));
                    }
                }
                let mut settled = hand_over(&shared, response, in_flight, seat, true);
                // It was not opened here: a client that hung up may come back for it.
                settled.opened = None;
                settled
            }
            Err(rejection) => Settled::nothing(shared.reject(rejection)),
        }
    }
}

/// `holds`: whether the body keeps the session. That of `initialize` does not: until its first
/// follow-up request a session has its unused timeout and nothing else.
pub(super) fn hand_over<B>(
    shared: &Arc<Shared>,
    response: Response<B>,
    in_flight: InFlight,
    seat: Option<StreamSeat>,
    holds: bool,
) -> Settled<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let opened = Some(Arc::clone(in_flight.record()));
    let (head, body) = response.into_parts();
    match carry(shared, &head, body, in_flight, seat, holds) {
        Some(body) => Settled { response: Response::from_parts(head, body), opened },
        // Closed by its own handler, or by a shutdown.
        None => Settled::nothing(shared.reject(Rejection::SessionNotFound)),
    }
}

/// Has the server behind close what it opened under ids that cannot be used, where they are ids.
pub(super) fn turn_all_away<B>(shared: &Shared, response: &Response<B>, endpoint: &Terminator) {
    for value in response.headers().get_all(&SESSION_ID_HEADER) {
        let id = value.to_str().ok().and_then(|id| SessionId::new(id).ok());
        if let Some(id) = id.filter(|id| shared.registry.find(id.as_bytes()).is_none()) {
            shared.registry.turn_away(id, endpoint.clone());
        }
    }
}

/// Keeps the id out of the logs of HTTP layers outside. False if there is none, as in most answers.
pub(super) fn mark_secret<B>(response: &mut Response<B>) -> bool {
    let is_there = response.headers().keys().any(|name| *name == SESSION_ID_HEADER);
    if is_there {
        mark(response.headers_mut());
    }
    is_there
}

#[cold]
fn mark(headers: &mut HeaderMap) {
    for (name, value) in headers {
        if *name == SESSION_ID_HEADER {
            value.set_sensitive(true);
        }
    }
}

/// Whether this can be the answer to an `initialize`: JSON, an event stream, or untyped.
fn is_mcp<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    !headers.contains_key(CONTENT_TYPE)
        || is_event_stream(headers)
        || is_type(headers, "application/json")
}
