//! The gate: decides about every answer that names a session.
//!
//! Every answer of the inner service goes through [`names_a_session`] on its way out, and if it names one, through
//! [`Gate::rule`]. It rules that the answer is handed on, that the session is to be owned, or that the session is
//! ended at the server and its id removed. A client never sees an id that is not the id of a live session of its own,
//! and never a second one.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};

use super::{
    heartbeat::{is_event_stream, is_type},
    route::Kept,
    shared::Shared,
};
use crate::{
    lifecycle::{Opening, Principal, Terminator},
    protocol::{SESSION_ID_HEADER, SessionId},
};

/// How the client asked, as far as it decides about ids in the answer.
#[derive(Clone, Copy)]
pub(super) enum Asked<'a> {
    /// By a legacy POST without an id: a 2xx in a type of MCP may open a session.
    ForSession,
    /// In any other way without an id: no answer opens a session.
    Sessionless,
    /// With the id of a live session; a POST may open another.
    Live { id: &'a [u8], is_post: bool },
    /// With an id that only the server may know.
    Restore(&'a SessionId),
}

impl Asked<'_> {
    fn id(&self) -> Option<&[u8]> {
        match self {
            Self::ForSession | Self::Sessionless => None,
            Self::Live { id, .. } => Some(id),
            Self::Restore(id) => Some(id.as_bytes()),
        }
    }

    fn may_open(&self) -> bool {
        matches!(self, Self::ForSession | Self::Live { is_post: true, .. })
    }
}

/// What becomes of the answer.
#[derive(Debug)]
pub(super) enum Ruling {
    /// It names no session any more, or only the client's own.
    HandOn,
    /// It opened this session, which is to be owned. The header is gone until that is done.
    Own(SessionId),
    /// It opened a session that cannot be owned.
    Unusable,
    /// It named a session that the client may not know of. That one is being ended.
    Stripped,
}

/// What it takes to end a session at its server.
pub(super) struct Gate<'a> {
    pub(super) shared: &'a Shared,
    /// Where the session was opened. `None` if that is not known any more.
    pub(super) endpoint: Option<Terminator>,
    pub(super) principal: Option<&'a Principal>,
    /// The permit that the request was made under, if it took one.
    pub(super) opening: Option<Opening>,
    /// What the request had that the closing DELETE needs.
    pub(super) kept: Option<Kept>,
}

impl Gate<'_> {
    /// Decides about the ids in `response`, ends the sessions that may not stay, and marks the id that does as a
    /// secret.
    pub(super) fn rule<B>(&mut self, response: &mut Response<B>, asked: Asked<'_>) -> Ruling {
        let fits = asked.may_open() && response.status().is_success() && is_mcp(response);
        let headers = response.headers_mut();
        let own = asked.id();
        let mut others: Vec<HeaderValue> = Vec::new();
        let mut is_own = false;
        for value in headers.get_all(&SESSION_ID_HEADER) {
            if own == Some(value.as_bytes()) {
                is_own = true;
            } else if !others.contains(value) {
                others.push(value.clone());
            }
        }
        headers.remove(&SESSION_ID_HEADER);
        if let Some(id) = own.filter(|_| is_own).and_then(|id| HeaderValue::from_bytes(id).ok()) {
            insert(headers, id);
        }
        if fits && !is_own {
            match others.as_slice() {
                [] => {}
                [one] if self.is_usable(one) => {
                    if let Ok(id) = SessionId::new(one.as_bytes()) {
                        return Ruling::Own(id);
                    }
                }
                _ => {
                    others.iter().for_each(|value| self.end_issued(value));
                    return Ruling::Unusable;
                }
            }
        }
        others.iter().for_each(|value| self.end_issued(value));
        if others.is_empty() { Ruling::HandOn } else { Ruling::Stripped }
    }

    /// Whether a session could be opened under this id: none is live under it, none was closed under it, and none is
    /// being ended under it.
    fn is_usable(&self, value: &HeaderValue) -> bool {
        let registry = &self.shared.registry;
        SessionId::new(value.as_bytes()).is_ok_and(|id| {
            registry.find(id.as_bytes()).is_none()
                && !registry.was_closed(&id)
                && !registry.is_ending(&id)
        })
    }

    fn end_issued(&mut self, value: &HeaderValue) {
        match SessionId::issued(value.as_bytes()) {
            Some(id) => self.end(id),
            None => tracing::warn!(
                "the server issued a session id that is none: its session cannot be ended"
            ),
        }
    }

    /// Ends a session that the server opened and nobody may have, unless it is live: then it has an owner.
    pub(super) fn end(&mut self, id: SessionId) {
        let registry = &self.shared.registry;
        if registry.find(id.as_bytes()).is_some() {
            return;
        }
        let Some(endpoint) = self.endpoint.clone() else {
            tracing::warn!(session = %id.fingerprint(), "a session that the server opened after its client's was closed stays there");
            return;
        };
        match self.opening.take() {
            Some(opening) => opening.end_at_server(id, endpoint),
            None => registry.end_unclaimed(id, endpoint, self.principal, |session| {
                if let Some(kept) = self.kept.clone() {
                    kept.put(session);
                }
            }),
        }
    }
}

/// Takes the client's own id out of an answer with which its session is no more.
pub(super) fn strip<B>(response: &mut Response<B>) {
    response.headers_mut().remove(&SESSION_ID_HEADER);
}

/// Puts the id into an answer, as a secret.
pub(super) fn insert(headers: &mut HeaderMap, mut id: HeaderValue) {
    id.set_sensitive(true);
    headers.insert(&SESSION_ID_HEADER, id);
}

/// Whether the answer names a session; false for most. Keeps the id out of the logs of HTTP layers outside.
#[inline]
pub(super) fn names_a_session<B>(response: &mut Response<B>) -> bool {
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

/// Whether this can be an answer of an MCP server: JSON, an event stream, or untyped.
pub(super) fn is_mcp<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    !headers.contains_key(CONTENT_TYPE)
        || is_event_stream(headers)
        || is_type(headers, "application/json")
}

/// The answer of a path that the layer does not manage: handed on. That it names a session hints at a wrong path.
pub(super) fn pass_unmanaged<B>(shared: &Shared, path: &str, response: &mut Response<B>) {
    if names_a_session(response) {
        shared.warn_of_unmanaged(path);
    }
}

/// A body without bytes.
pub(super) fn is_empty<B: http_body::Body<Data = Bytes>>(body: &B) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}
