//! The defence against DNS rebinding: a page whose name was made to resolve to this machine.
//!
//! Servers on the loopback defend themselves by looking at `Host`. Behind this proxy they see their
//! own name there, so the check has to happen here, before the session layer opens anything.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::names::{Authority, Name, Origin};

/// Who may be asked for, and from which pages.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The address that we listen on, unless it is all of them.
    own: Option<IpAddr>,
    hosts: Vec<Authority>,
    origins: Vec<Origin>,
}

impl Guard {
    pub(crate) fn new(bound: SocketAddr, hosts: Vec<Authority>, origins: Vec<Origin>) -> Self {
        let own = Some(bound.ip().to_canonical()).filter(|address| !address.is_unspecified());
        if own.is_none() && hosts.is_empty() {
            tracing::warn!(
                "listening on every address, and answering to loopback names only: name the others \
                 by --allowed-host"
            );
        }
        Self { own, hosts, origins }
    }

    /// The request's host and origin, or why it is refused.
    fn check(&self, request: &Request) -> Result<(), &'static str> {
        let headers = request.headers();
        let hosts: Vec<_> = headers.get_all(HOST).iter().map(HeaderValue::to_str).collect();
        // HTTP/2 and requests in absolute form name the host in the URI, and may do so twice.
        let uri = request.uri().authority().map(|authority| authority.as_str());
        let mut named = hosts.iter().map(|host| host.as_ref().ok().copied()).chain(uri.map(Some));
        let is_one = hosts.len() <= 1 && (hosts.len() == 1 || uri.is_some());
        if !is_one || !named.all(|host| host.is_some_and(|host| self.allows_host(host))) {
            return Err("this Host is not allowed (--allowed-host)");
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next().map(HeaderValue::to_str), origins.next()) {
            // No browser, or a GET of one: that says by another header if it is of a foreign page.
            (None, _) => match headers.get("sec-fetch-site") {
                Some(site) if site == "cross-site" => Err("requests of other sites name an Origin"),
                _ => Ok(()),
            },
            (Some(Ok(origin)), None) if self.allows_origin(origin) => Ok(()),
            _ => Err("this Origin is not allowed (--allowed-origin)"),
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        let Some(Authority { name, port }) = Authority::read(host) else { return false };
        let is_allowed = |allowed: &Authority| {
            allowed.name == name
                && match (allowed.port, port) {
                    (None, _) => true,
                    // Where the scheme has this port, clients leave it out. Ours is not known:
                    // something in front may speak TLS.
                    (Some(allowed), None) => allowed == 80 || allowed == 443,
                    (allowed, port) => allowed == port,
                }
        };
        self.is_own(&name) || self.hosts.iter().any(is_allowed)
    }

    fn allows_origin(&self, origin: &str) -> bool {
        let Some(origin) = Origin::read(origin) else { return false };
        let is_web = origin.scheme == "http" || origin.scheme == "https";
        is_web && self.is_own(&origin.at.name) || self.origins.contains(&origin)
    }

    fn is_own(&self, name: &Name) -> bool {
        name.is_loopback() || self.own.is_some_and(|own| *name == Name::Ip(own))
    }
}

/// Answers 403 to what is not allowed. `/health` is for probes, which know an address and no name; it
/// says nothing but that we are up.
pub(crate) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path() == "/health" {
        return next.run(request).await;
    }
    match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(why) => {
            tracing::debug!(why, "refused");
            (StatusCode::FORBIDDEN, why).into_response()
        }
    }
}
