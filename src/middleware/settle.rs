//! What comes of an answer that may open a session: the id, the table, the guard.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Body;

use super::{
    body::{SessionBody, carry},
    endpoint::Site,
    gate::{self, Asked, Gate, Ruling, is_mcp, names_a_session},
    peek::{Peeked, Verdict},
    route::Kept,
    shared::Shared,
    turns::Turn,
};
use crate::{
    lifecycle::{Exit, InFlight, Issuer, Opening, Record, StreamSeat, Terminator},
    protocol::{Rejection, SessionId},
};

/// What is known of a session before the inner service has answered.
pub(super) struct Birth {
    pub(super) shared: Arc<Shared>,
    pub(super) opening: Opening,
    pub(super) site: Site,
    pub(super) kind: Kind,
}

/// How the session came to be asked for.
pub(super) enum Kind {
    Initialize,
    /// By a request with an id that only the inner service may know.
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
    /// What the answer makes of it. `peeked` was read off its body.
    pub(super) fn settle<B>(self, response: Response<B>, peeked: Peeked) -> Settled<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        match self.kind {
            Kind::Initialize => self.initialized(response, peeked),
            Kind::Restore { .. } => self.restored(response),
        }
    }

    fn initialized<B>(self, mut response: Response<B>, peeked: Peeked) -> Settled<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let Self { shared, opening, site, .. } = self;
        let terminator = site.endpoint(shared.options.terminate.clone());
        let principal = opening.session().principal().cloned();
        let may_open = peeked.verdict == Verdict::Fine;
        let asked = if may_open { Asked::ForSession } else { Asked::Sessionless };
        let mut gate = Gate {
            shared: &shared,
            endpoint: Some(terminator.clone()),
            principal: principal.as_ref(),
            kept: Kept::of(&opening.session()),
            opening: Some(opening),
        };
        let ruling = if names_a_session(&mut response) {
            gate.rule(&mut response, asked)
        } else {
            Ruling::HandOn
        };
        if peeked.verdict == Verdict::BrokeOff {
            return Settled::nothing(shared.reject(Rejection::OpenFailed));
        }
        let settled = match (ruling, gate.opening.take()) {
            (Ruling::Unusable, _) => Settled::nothing(shared.reject(Rejection::UnusableId)),
            (Ruling::Own(id), Some(opening)) => opened(&shared, opening, id, terminator, response),
            (Ruling::HandOn, Some(opening))
                if may_open && shared.options.mint_ids && opens_by_status(&response) =>
            {
                minted(&shared, opening, terminator, response)
            }
            _ => Settled::plain(response),
        };
        settled.after(peeked)
    }

    fn restored<B>(self, mut response: Response<B>) -> Settled<B>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let Self { shared, opening, site, kind } = self;
        let Kind::Restore { id, is_get, _turn } = kind else {
            return Settled::plain(response);
        };
        let terminator = site.endpoint(shared.options.terminate.clone());
        let principal = opening.session().principal().cloned();
        let mut gate = Gate {
            shared: &shared,
            endpoint: Some(terminator.clone()),
            principal: principal.as_ref(),
            kept: Kept::of(&opening.session()),
            opening: Some(opening),
        };
        let ruling = if names_a_session(&mut response) {
            gate.rule(&mut response, Asked::Restore(&id))
        } else {
            Ruling::HandOn
        };
        let opening = gate.opening.take();
        // Ours, or it would tell ids that nobody has from those of others. A server that answers with another session
        // does not know this one.
        let is_known =
            response.status() != StatusCode::NOT_FOUND && matches!(ruling, Ruling::HandOn);
        let Some(opening) = opening.filter(|_| is_known) else {
            return Settled::nothing(shared.reject(Rejection::SessionNotFound));
        };
        // It may have been a route that answers anything to anybody.
        if !opens_by_status(&response) {
            gate::strip(&mut response);
            return Settled::plain(response);
        }
        let endpoint: Box<str> = opening.endpoint().into();
        let entered = opening
            .complete(id.clone(), Issuer::Inner, terminator, Exit::Touch)
            // Another request of this client was faster: join it, if it is this client's and came here.
            .or_else(|_| shared.registry.enter(id.as_bytes(), principal.as_ref()))
            .and_then(|in_flight| {
                if in_flight.record().is_at(&endpoint) {
                    return Ok(in_flight);
                }
                shared.misplaced(in_flight);
                Err(Rejection::SessionNotFound)
            });
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

/// Whether this answer can be of a session: a success, in a type of MCP.
fn opens_by_status<B>(response: &Response<B>) -> bool {
    response.status().is_success() && is_mcp(response)
}

/// Owns a session that the inner service opened under this id, which the gate has let through.
pub(super) fn opened<B>(
    shared: &Arc<Shared>,
    opening: Opening,
    id: SessionId,
    terminator: Terminator,
    response: Response<B>,
) -> Settled<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let Some(header) = id.to_header() else {
        return Settled::nothing(shared.reject(Rejection::UnusableId));
    };
    match opening.complete(id, Issuer::Inner, terminator, Exit::Stamp) {
        Ok(in_flight) => named(shared, response, in_flight, header),
        // Somebody else's, since the gate looked.
        Err(_) => Settled::nothing(shared.reject(Rejection::UnusableId)),
    }
}

/// Gives a session of a server without ids one of ours.
fn minted<B>(
    shared: &Arc<Shared>,
    opening: Opening,
    terminator: Terminator,
    response: Response<B>,
) -> Settled<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let minted = shared.mint().and_then(|id| {
        let header = id.to_header().ok_or(Rejection::UnusableId)?;
        let opened = opening.complete(id, Issuer::Layer, terminator, Exit::Stamp);
        opened.map(|in_flight| (in_flight, header)).map_err(|_| Rejection::UnusableId)
    });
    match minted {
        Ok((in_flight, header)) => named(shared, response, in_flight, header),
        Err(rejection) => Settled::nothing(shared.reject(rejection)),
    }
}

fn named<B>(
    shared: &Arc<Shared>,
    mut response: Response<B>,
    in_flight: InFlight,
    id: http::HeaderValue,
) -> Settled<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    gate::insert(response.headers_mut(), id);
    hand_over(shared, response, in_flight, None, false)
}

/// `holds`: whether the body keeps the session. That of `initialize` does not: until its first
/// follow-up request a session has its unused timeout and nothing else.
fn hand_over<B>(
    shared: &Arc<Shared>,
    response: Response<B>,
    in_flight: InFlight,
    seat: Option<StreamSeat>,
    holds: bool,
) -> Settled<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    // Closed by its own handler, with its principal, or by a shutdown.
    if in_flight.record().word().is_closed() {
        return Settled::nothing(shared.reject(shared.why_closed()));
    }
    let opened = Some(Arc::clone(in_flight.record()));
    let (head, body) = response.into_parts();
    match carry(Arc::clone(shared), &head, body, in_flight, seat, holds) {
        Ok(body) => Settled { response: Response::from_parts(head, body), opened },
        // Since we looked.
        Err(shared) => Settled::nothing(shared.reject(shared.why_closed())),
    }
}

impl<B> Settled<B> {
    /// Puts back in front of the body what was read off it.
    pub(super) fn after(self, peeked: Peeked) -> Self {
        let Self { response, opened } = self;
        let response = response.map(|body| body.after(peeked.frames, peeked.is_over));
        Self { response, opened }
    }
}
