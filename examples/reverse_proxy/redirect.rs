//! Where an upstream sends its clients: never to itself, for they would go around the layer.

use anyhow::Context as _;
use axum::http::{
    HeaderValue, StatusCode, Uri,
    header::{HeaderMap, LOCATION},
};
use url::{Position, Url};

use super::upstream::{MCP, SESSION_ID, Upstream};

/// Where a `Location` leads.
pub(crate) enum Target {
    /// To the upstream itself.
    Upstream(Url),
    /// To another scheme, host or port; which, for the log.
    Elsewhere(String),
}

impl Upstream {
    /// What the `Location` says in an answer to a request for `uri`; `None` without one.
    pub(crate) fn target(&self, uri: &Uri, headers: &HeaderMap) -> Option<Target> {
        let location = std::str::from_utf8(headers.get(LOCATION)?.as_bytes()).ok();
        let at = Url::parse(&uri.to_string()).ok();
        let to = at.as_ref().zip(location).and_then(|(at, location)| at.join(location).ok());
        Some(match (at, to) {
            (Some(at), Some(url)) if url.origin() == at.origin() => Target::Upstream(url),
            (_, Some(url)) => Target::Elsewhere(url.origin().ascii_serialization()),
            (_, None) => Target::Elsewhere("no URL".to_owned()),
        })
    }

    /// Where to send the request again: after a 307 or 308, which promise that this is fine, to the upstream.
    /// One that names a session is not followed, or nobody would ever close that session.
    pub(crate) fn next(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        target: Option<&Target>,
    ) -> Option<Uri> {
        let promises = [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT];
        match target {
            Some(Target::Upstream(url))
                if promises.contains(&status) && !headers.contains_key(SESSION_ID) =>
            {
                // The user name that may stand before it is not for us.
                self.at(&url[Position::BeforePath..Position::AfterQuery]).ok()
            }
            _ => None,
        }
    }

    /// The same place as we have it: a path alone.
    pub(crate) fn ours(&self, target: &Url) -> anyhow::Result<HeaderValue> {
        let endpoint = self.path.trim_end_matches('/');
        let path = match target.path().strip_prefix(endpoint) {
            Some("") => MCP.to_owned(),
            Some("/") => format!("{MCP}/"),
            // Two slashes at the beginning would make a host of what follows.
            _ => format!("/{}", target.path().trim_start_matches('/')),
        };
        let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
        HeaderValue::from_str(&format!("{path}{query}")).context("a Location that is no header")
    }
}

/// The headers of a refusal: of the answer, only what names a session, for the layer to end it.
pub(crate) fn of_session(headers: &HeaderMap) -> HeaderMap {
    let ids = headers.iter().filter(|(name, _)| *name == SESSION_ID);
    ids.map(|(name, value)| (name.clone(), value.clone())).collect()
}
