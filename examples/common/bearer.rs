//! Owners of sessions, for trying out and for tests: a bearer token taken at its word.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use mcp_session_layer::McpSessionLayer;

/// Whether sessions have owners.
#[derive(Debug, clap::Args)]
pub(crate) struct Owner {
    /// Bind each session to the name in `Authorization: Bearer <name>`, unverified: for tests only
    #[arg(long)]
    bearer_principal: bool,
}

impl Owner {
    /// With the flag, a session belongs to the name that opened it, and nobody opens one without.
    pub(crate) fn apply(&self, layer: McpSessionLayer) -> McpSessionLayer {
        if self.bearer_principal { layer.principal(|parts| bearer(&parts.headers)) } else { layer }
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, name) = value.split_once(' ')?;
    let name = name.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !name.is_empty()).then(|| name.to_owned())
}
