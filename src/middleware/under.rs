//! `initialize` under a live id.
//!
//! No honest client sends it, and some servers open another session for it (the Java SDK). That is not known before
//! such a server has done it once: reading the body of every POST would cost every request. From then on, and for a
//! minute after a client hung up on a POST of its session, bodies are read; what may open a session takes a permit
//! first and runs to its end.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body::Body as HttpBody;

use super::{
    counts::Counted,
    endpoint::Site,
    gate::{Asked, Gate, Ruling, names_a_session},
    peek::{Peeked, Verdict},
    route::Kept,
    settle::{Settled, opened},
    shared::{Bucket, Shared},
    track::Track,
};
use crate::{
    lifecycle::Opening,
    protocol::{Rejection, SESSION_ID_HEADER, SessionId},
};

/// Such calls a session may have under way.
pub(super) const MOST_UNDER_ONE: usize = 4;

/// The same for calls that were not read to their end. Nearly all are honest, so they take no permit.
pub(super) const MOST_LONG_UNDER_ONE: usize = 64;

/// A POST of a live session that may open another.
pub(super) struct UnderLive {
    pub(super) track: Track,
    pub(super) site: Site,
    /// A permit for it, unless the body was not read to its end.
    pub(super) opening: Option<Opening>,
    pub(super) counted: Counted<Bucket>,
}

impl UnderLive {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.track.shared()
    }

    pub(super) fn is_another_named<B>(&self, response: &Response<B>) -> bool {
        let own = self.track.record().id().map(SessionId::as_bytes);
        let mut named = response.headers().get_all(&SESSION_ID_HEADER).iter();
        named.any(|id| Some(id.as_bytes()) != own)
    }

    /// What the answer makes of it. `peeked` was read off its body.
    pub(super) fn settle<B>(self, mut response: Response<B>, peeked: Peeked) -> Settled<B>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    {
        let Self { track, site, opening, counted } = self;
        if !names_a_session(&mut response) || opening.is_none() {
            drop(opening);
            let may_open = peeked.verdict == Verdict::Fine;
            return track.settle(response, may_open).after(peeked);
        }
        let shared = Arc::clone(track.shared());
        let terminator = site.endpoint(shared.options.terminate.clone());
        let record = Arc::clone(track.record());
        let principal = record.principal();
        let endpoint = Some(terminator.clone());
        let kept = opening.as_ref().and_then(|opening| Kept::of(&opening.session()));
        let mut gate = Gate { shared: &shared, endpoint, principal, opening, kept };
        let id = record.id().map_or(&[][..], |id| id.as_bytes());
        let may_open = peeked.verdict == Verdict::Fine;
        let ruling = gate.rule(&mut response, Asked::Live { id, is_post: may_open });
        if !matches!(ruling, Ruling::HandOn) {
            // Hang-ups are forgotten after a while, and what such a server does is not.
            shared.calls.expect_always();
        }
        let settled = match (ruling, gate.opening.take()) {
            _ if peeked.verdict == Verdict::BrokeOff => {
                track.let_go();
                Settled::nothing(shared.reject(Rejection::OpenFailed))
            }
            (Ruling::Own(id), Some(opening)) => {
                track.let_go();
                opened(&shared, opening, id, terminator, response)
            }
            (Ruling::Unusable | Ruling::Own(_), _) => {
                track.let_go();
                Settled::nothing(shared.reject(Rejection::UnusableId))
            }
            (Ruling::HandOn | Ruling::Stripped, opening) => {
                drop(opening);
                Settled::nothing(track.finish(response))
            }
        };
        drop(counted);
        settled.after(peeked)
    }
}
