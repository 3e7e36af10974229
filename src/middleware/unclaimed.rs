//! Requests without an id that are not read as `initialize`, and whose answer may name a session all the same.
//!
//! Our sniffer and the parser of the inner service may disagree: over a body that is too long or too slow for us, in
//! another encoding, or JSON that is not quite. And some servers open a session for any request without an id.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;

use super::{
    counts::Counted,
    endpoint::{Calls, Site},
    gate::{self, Asked, Gate, Ruling, names_a_session},
    route::Kept,
    settle::{Settled, opened},
    shared::{Bucket, Shared, endpoint_of},
};
use crate::{
    lifecycle::{Opener, Opening, Principal},
    protocol::{Era, Rejection, SessionId},
};

/// Requests for which another session may have to be ended that a principal may have under way, together with sessions
/// without a permit that are on their way out for it. A bound for each principal, so that the flood of one client never
/// makes another's request a 503.
const MOST_OF_ONE: usize = 64;

/// The same for all callers without a principal together.
const MOST_OF_NOBODY: usize = 256;

fn most_unclaimed(principal: Option<&Principal>) -> usize {
    if principal.is_some() { MOST_OF_ONE } else { MOST_OF_NOBODY }
}

impl Shared {
    /// Whether not too many sessions that the server opened for this principal are on their way out.
    pub(super) fn has_room(&self, principal: Option<&Principal>) -> bool {
        self.registry.unclaimed(principal) < most_unclaimed(principal)
    }
}

/// Such a request, from its arrival to the head of its answer.
pub(super) struct Unclaimed {
    pub(super) shared: Arc<Shared>,
    site: Site,
    principal: Option<Principal>,
    /// Empty where the answer cannot open a session.
    endpoint: Option<Box<str>>,
    /// The id that it came with, if only the inner service may know it.
    pub(super) named: Option<SessionId>,
    opening: Option<Opening>,
    /// When it arrived: a revocation since may have been of this principal.
    revocations: u64,
    kept: Option<Kept>,
    _counted: Option<Counted<Bucket>>,
}

impl Unclaimed {
    pub(super) fn new(
        shared: &Arc<Shared>,
        origin: Arc<dyn Calls>,
        era: Era,
        principal: Option<Principal>,
        request: &Request<Body>,
    ) -> Self {
        let site = Site::of(request, origin);
        let may_open = era != Era::Modern && request.method() == Method::POST;
        let endpoint = may_open.then(|| endpoint_of(request).into());
        let (shared, kept) = (Arc::clone(shared), shared.kept(request));
        let revocations = shared.registry.revocations();
        Self {
            shared,
            site,
            principal,
            endpoint,
            named: None,
            opening: None,
            revocations,
            kept,
            _counted: None,
        }
    }

    /// Whether its answer may open a session that is handed on.
    pub(super) fn asks_for_session(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Whether this caller could own a session that comes of it.
    pub(super) fn may_open(&self) -> Result<(), Rejection> {
        self.shared.may_open(self.principal.as_ref())
    }

    /// Takes a place among the requests of this principal for which another session may have to be ended.
    pub(super) fn counted(mut self) -> Result<Self, Rejection> {
        let principal = self.principal.as_ref();
        let on_their_way_out = self.shared.registry.unclaimed(principal);
        let room = most_unclaimed(principal).saturating_sub(on_their_way_out);
        let bucket = Bucket::Principal(self.principal.clone());
        let counted = self.shared.doubtful.take(bucket, room).ok_or(Rejection::TableFull)?;
        self._counted = Some(counted);
        Ok(self)
    }

    /// The same for what may be any upload of any other route. Where all callers are nobody and the user named no
    /// endpoint, one bound for all would refuse those: only the sessions on their way out are bounded there.
    pub(super) fn counted_if_told_apart(self) -> Result<Self, Rejection> {
        if self.shared.names_paths() || self.principal.is_some() {
            return self.counted();
        }
        self.if_there_is_room()
    }

    /// For a request that takes no place. It is refused while too many sessions that the server opened for this
    /// principal are on their way out: a server that opens one for each is asked no faster than it ends them.
    pub(super) fn if_there_is_room(self) -> Result<Self, Rejection> {
        if self.shared.has_room(self.principal.as_ref()) {
            Ok(self)
        } else {
            Err(Rejection::TableFull)
        }
    }

    /// Takes a place among the doubtful requests of this principal and, at `endpoint`, a permit for a session that may
    /// come of it. A body that was not read to its end takes none: thousands of slow ones would hold them all.
    pub(super) fn doubtful(self, endpoint: Option<&str>) -> Result<Self, Rejection> {
        if self.site.is_too_long() {
            return Err(Rejection::EndpointTooLong);
        }
        let mut counted = self.counted()?;
        if let Some(endpoint) = endpoint {
            let principal = counted.principal.clone();
            let opener = Opener { principal, client: None, endpoint: endpoint.into() };
            counted.opening = Some(counted.shared.registry.begin_now(opener)?);
        }
        Ok(counted)
    }

    pub(super) fn settle<B>(self, mut response: Response<B>) -> Settled<B>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    {
        if !names_a_session(&mut response) {
            return Settled::plain(response);
        }
        let Self { shared, site, principal, endpoint, named, opening, revocations, kept, _counted } =
            self;
        let is_too_long = site.is_too_long();
        let terminator = site.endpoint(shared.options.terminate.clone());
        let mut gate = Gate {
            shared: &shared,
            endpoint: Some(terminator.clone()),
            principal: principal.as_ref(),
            opening,
            kept,
        };
        let asked = match &named {
            Some(id) => Asked::Restore(id),
            None if endpoint.is_some() => Asked::ForSession,
            None => Asked::Sessionless,
        };
        let id = match gate.rule(&mut response, asked) {
            Ruling::HandOn | Ruling::Stripped => {
                // A DELETE of an id that only the server may know: the layer owns no such session.
                if named.is_some() {
                    gate::strip(&mut response);
                }
                return Settled::plain(response);
            }
            Ruling::Unusable => return Settled::nothing(shared.reject(Rejection::UnusableId)),
            Ruling::Own(id) => id,
        };
        let opening = match gate.opening.take() {
            _ if is_too_long => Err(Rejection::EndpointTooLong),
            Some(opening) => Ok(opening),
            None if shared.registry.revocations() != revocations => Err(shared.why_closed()),
            None => shared.may_open(principal.as_ref()).and_then(|()| {
                let endpoint = endpoint.unwrap_or_default();
                let principal = principal.clone();
                shared.registry.begin_now(Opener { principal, client: None, endpoint })
            }),
        };
        match opening {
            Ok(opening) => {
                if let Some(kept) = gate.kept {
                    kept.put(&opening.session());
                }
                opened(&shared, opening, id, terminator, response)
            }
            Err(why) => {
                gate.end(id);
                Settled::nothing(shared.reject(why))
            }
        }
    }
}
