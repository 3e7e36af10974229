//! `--upstream-header`: what the upstream wants to see in every request, a credential most of the time.

use std::fmt;

use anyhow::{Context as _, ensure};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::headers::{is_hop_by_hop, is_plain};

/// A flag as it was given. It is not parsed by clap, which would repeat a value that it refuses.
#[derive(Clone)]
pub(crate) struct Raw(String);

impl From<String> for Raw {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NAME: VALUE")
    }
}

/// Puts these headers into a request, instead of the client's.
pub(crate) fn dress(headers: &mut HeaderMap, ours: &HeaderMap) {
    for name in ours.keys() {
        headers.remove(name);
    }
    for (name, value) in ours {
        headers.append(name, value.clone());
    }
}

/// Errors have the name at the most, never the value.
pub(crate) fn parse(flags: &[Raw]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for Raw(text) in flags {
        let (name, value) =
            text.split_once(':').context("--upstream-header takes 'NAME: VALUE'")?;
        let of = || format!("--upstream-header {name:?}");
        let parsed = name.trim().parse::<HeaderName>().ok().filter(is_plain);
        let parsed =
            parsed.with_context(|| format!("{}: a name has letters, digits and hyphens", of()))?;
        ensure!(!is_hop_by_hop(&parsed), "{}: that header belongs to one connection", of());
        ensure!(!is_ours(&parsed), "{}: that header is the proxy's own", of());
        ensure!(!is_mcp(&parsed), "{}: that header is the client's, it belongs to MCP", of());
        let mut value = HeaderValue::from_str(value.trim())
            .ok()
            .with_context(|| format!("{}: its value has control characters", of()))?;
        value.set_sensitive(true);
        headers.append(parsed, value);
    }
    Ok(headers)
}

fn is_ours(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH].contains(name)
}

fn is_mcp(name: &HeaderName) -> bool {
    let of_messages = [header::ACCEPT, header::CONTENT_TYPE, header::CONTENT_ENCODING];
    name.as_str().starts_with("mcp-") || name == "last-event-id" || of_messages.contains(name)
}
