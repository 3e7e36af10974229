//! Requests of no session whose answer carries one all the same.
//!
//! Our sniffer and the parser of the server behind may disagree: a body that is too long or too
//! slow for us, in an encoding that only the server reads, or JSON that is not quite. A session that
//! comes of it is adopted if there is a place for it, and closed at once if not.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;

use super::{
    endpoint::{Calls, Origin, Site},
    settle::{Settled, hand_over, mark_secret, turn_all_away},
    shared::Shared,
};
use crate::{
    lifecycle::{Exit, Issuer, Principal, Terminator},
    protocol::{Rejection, SessionHeaders, SessionId},
};

pub(super) struct Stray {
    pub(super) shared: Arc<Shared>,
    site: Site,
    principal: Option<Principal>,
}

impl Stray {
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

    pub(super) fn settle<B>(self, mut response: Response<B>) -> Settled<B>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    {
        let Self { shared, site, principal } = self;
        let has_id = mark_secret(&mut response);
        if !has_id || !response.status().is_success() {
            return Settled::plain(response);
        }
        let too_long = site.is_too_long();
        let endpoint = site.endpoint(shared.options.terminate.clone());
        if too_long {
            turn_all_away(&shared, &response, &endpoint);
            return Settled::nothing(shared.reject(Rejection::EndpointTooLong));
        }
        adopt(&shared, response, principal, endpoint)
    }
}

/// Owns the session that the answer carries, or refuses the answer.
pub(super) fn adopt<B>(
    shared: &Arc<Shared>,
    response: Response<B>,
    principal: Option<Principal>,
    endpoint: Terminator,
) -> Settled<B>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
{
    let id = match SessionHeaders::read(response.headers()).id.map(|id| id.map(SessionId::new)) {
        Ok(Some(Ok(id))) => id,
        Ok(None) => return Settled::plain(response),
        Ok(Some(Err(_))) | Err(_) => {
            turn_all_away(shared, &response, &endpoint);
            return Settled::nothing(shared.reject(Rejection::UnusableId));
        }
    };
    if shared.registry.find(id.as_bytes()).is_some() {
        // The id of a live session, given to somebody who did not send it.
        return Settled::nothing(shared.reject(Rejection::UnusableId));
    }
    let opening =
        shared.may_open(principal.as_ref()).and_then(|()| shared.registry.begin_now(principal));
    match opening {
        Ok(opening) => match opening.complete(id, Issuer::Inner, endpoint, Exit::Stamp) {
            Ok(in_flight) => hand_over(shared, response, in_flight, None, false),
            Err(_) => Settled::nothing(shared.reject(Rejection::UnusableId)),
        },
        Err(why) => {
            shared.registry.turn_away(id, endpoint);
            Settled::nothing(shared.reject(why))
        }
    }
}
