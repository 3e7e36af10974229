//! How axum's router saw a request, kept so that the closing DELETE is seen the same way.
//!
//! A handler behind the layer may take `Path`, `MatchedPath` or `OriginalUri`. A router outside of the layer puts them
//! into the extensions of each request, and the closing DELETE does not come by that router. What they say follows
//! from the URI and the route, so it is made again from those two. Other extensions may be credentials: the user names
//! the ones to keep (`keep_extension`).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use axum::extract::{MatchedPath, OriginalUri};
use axum::{Router, body::Body};
use futures_util::FutureExt;
use http::{Extensions, Request, Response, Uri};
use tower::{Service, service_fn};

use crate::lifecycle::Session;

/// What axum calls routes and parameters that are none of the user's.
const PRIVATE: &str = "__private__axum";

/// The extensions of a request that the user named, kept in the state of the session that came of it.
#[derive(Clone)]
pub(super) struct Kept(pub(super) Extensions);

impl Kept {
    /// What is kept for this session.
    pub(super) fn of(session: &Session) -> Option<Self> {
        session.state().get().map(|kept| Self::clone(&kept))
    }

    pub(super) fn put(self, session: &Session) {
        session.state().get_or_insert_with(|| self);
    }
}

/// The route that a request came by, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    /// The pattern, nests included.
    matched: Option<MatchedPath>,
    /// Outside of nests, where that is another.
    original: Option<Uri>,
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        let [ours, theirs] = [self, other].map(|it| it.matched.as_ref().map(MatchedPath::as_str));
        self.original == other.original && ours == theirs
    }
}

impl Route {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let original = request.extensions().get::<OriginalUri>();
        let original = original.filter(|original| original.0 != *request.uri());
        let matched = request.extensions().get::<MatchedPath>().cloned();
        Self { matched, original: original.map(|original| original.0.clone()) }
    }

    pub(super) fn length(&self) -> usize {
        self.original.as_ref().map_or(0, length)
    }

    pub(super) fn detached(&self) -> Self {
        let original = self.original.as_ref().map(detached);
        Self { matched: self.matched.clone(), original }
    }

    /// What a router puts into a request of this route for `uri`.
    pub(super) fn extensions(&self, uri: &Uri) -> Extensions {
        let Some(matched) = &self.matched else { return Extensions::new() };
        let (pattern, uri) = (matched.as_str(), self.original.as_ref().unwrap_or(uri));
        let is_known = !pattern.contains(PRIVATE) && pattern.starts_with('/');
        let mut extensions = is_known.then(|| routed(pattern, uri)).flatten().unwrap_or_default();
        extensions.insert(OriginalUri(uri.clone()));
        extensions
    }
}

/// Sends a request for `uri` through a router with this one route, and looks at what arrives.
fn routed(pattern: &str, uri: &Uri) -> Option<Extensions> {
    let found = Arc::new(Mutex::new(None));
    let finder = Arc::clone(&found);
    let look = service_fn(move |request: Request<Body>| {
        let extensions = request.extensions().clone();
        *finder.lock().unwrap_or_else(PoisonError::into_inner) = Some(extensions);
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    });
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri.path().parse().ok()?;
    let mut router: Router = Router::new().without_v07_checks().route_service(pattern, look);
    drop(router.call(request).now_or_never()?);
    found.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A copy of its own. What hyper parses are slices of its read buffer: a clone would keep the whole head of the
/// request, credentials included, for as long as the session lives.
pub(super) fn detached(uri: &Uri) -> Uri {
    uri.to_string().parse().unwrap_or_default()
}

/// Bytes of authority, path and query.
pub(super) fn length(uri: &Uri) -> usize {
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    authority + uri.path_and_query().map_or(0, |path| path.as_str().len())
}
