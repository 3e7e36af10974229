//! What all clones of a layer, and all services made from it, share.

use std::sync::Arc;

use http::{Extensions, Request, Uri};

use super::{options::Options, turns::Turns};
use crate::{
    lifecycle::{Millis, Principal, Registry, Session, shielded, span},
    protocol::{Rejection, SessionId},
};

/// Tries to make up an id that is not taken, before giving up on the generator.
const ATTEMPTS: usize = 4;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) registry: Arc<Registry>,
    pub(super) options: Options,
    pub(super) turns: Turns,
    pub(super) stream_lifetime: Option<Millis>,
    pub(super) heartbeat: Option<Millis>,
    /// Empty, with room for what a router and we put there: a request's own would have to grow.
    room: Extensions,
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        options.warn_of_traps();
        let registry = Registry::new(options.timeouts(), options.limits(), options.events.clone());
        Self {
            registry,
            stream_lifetime: options.stream_lifetime.and_then(span),
            heartbeat: options.heartbeat.and_then(span),
            options,
            turns: Turns::default(),
            room: room(),
        }
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Whether requests to this path are the layer's business.
    pub(super) fn manages(&self, uri: &Uri) -> bool {
        let paths = &self.options.paths;
        paths.is_empty() || paths.iter().any(|managed| covers(managed, uri.path()))
    }

    /// Whether anybody asks who sent a request.
    pub(super) fn identifies(&self) -> bool {
        self.options.identify.is_some()
    }

    /// Puts the session into the request.
    pub(super) fn insert<T>(&self, session: Session, request: &mut Request<T>) {
        let extensions = request.extensions_mut();
        if extensions.is_empty() {
            extensions.clone_from(&self.room);
        }
        extensions.insert(session);
    }

    /// Who sent the request, if anybody asks. The hook wants `Parts`, so the request is taken
    /// apart and put together again, but only where there is a hook.
    pub(super) fn identify<T>(&self, request: Request<T>) -> (Option<Principal>, Request<T>) {
        let Some(identify) = &self.options.identify else {
            return (None, request);
        };
        let (parts, body) = request.into_parts();
        let principal = identify(&parts);
        (principal, Request::from_parts(parts, body))
    }

    /// Whether this caller may open a session.
    pub(super) fn may_open(&self, principal: Option<&Principal>) -> Result<(), Rejection> {
        let anonymous = principal.is_none() && self.options.identify.is_some();
        if anonymous && !self.options.allow_anonymous {
            return Err(Rejection::PrincipalRequired);
        }
        Ok(())
    }

    /// An id for a server that issues none.
    pub(super) fn mint(&self) -> Result<SessionId, Rejection> {
        let Some(generator) = &self.options.id_generator else {
            return SessionId::new(uuid::Uuid::new_v4().to_string());
        };
        (0..ATTEMPTS)
            .filter_map(|_| shielded("id generator", || generator()))
            .filter_map(|id| SessionId::new(&id).ok())
            .find(|id| self.registry.find(id.as_bytes()).is_none() && !self.registry.was_closed(id))
            .ok_or(Rejection::UnusableId)
    }
}

/// A map keeps its room when it is cleared and when it is cloned. axum adds three: with ours that is one more
/// than the smallest map holds.
fn room() -> Extensions {
    #[derive(Clone)]
    struct Filler<const N: usize>;

    let mut room = Extensions::new();
    room.insert(Filler::<0>);
    room.insert(Filler::<1>);
    room.insert(Filler::<2>);
    room.insert(Filler::<3>);
    room.clear();
    room
}

/// Whether `path` is `managed` or lies below it: what reaches the server must not pass unseen, and
/// `nest_service` hands it both.
fn covers(managed: &str, path: &str) -> bool {
    let managed = managed.trim_end_matches('/');
    path.strip_prefix(managed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_path_covers_itself_and_what_lies_below() {
        for path in ["/mcp", "/mcp/", "/mcp/x", "/mcp//"] {
            assert!(covers("/mcp", path) && covers("/mcp/", path), "{path}");
        }
        for path in ["/", "/mc", "/mcpx", "/health", "/a/mcp"] {
            assert!(!covers("/mcp", path), "{path}");
        }
        assert!(covers("/", "/anything"));
    }
}
