//! The MCP server that requests go to.

use std::str::FromStr;

use anyhow::{Context as _, ensure};
use axum::http::{
    self, HeaderMap, HeaderValue, Uri,
    uri::{Authority, Scheme},
};

use super::names;

/// Where MCP is, here and, unless the flag names another path, there.
pub(crate) const MCP: &str = "/mcp";
/// An answer with this header is the layer's to judge, whatever else it is.
pub(crate) const SESSION_ID: &str = "mcp-session-id";

#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    authority: Authority,
    /// What it sees as `Host`.
    pub(crate) host: HeaderValue,
    pub(crate) path: String,
    /// How an answer may name it.
    names: Vec<String>,
}

impl FromStr for Upstream {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let uri: Uri = url.parse()?;
        ensure!(uri.scheme() == Some(&Scheme::HTTP), "not an http:// URL");
        ensure!(uri.query().is_none(), "a query does not belong here");
        let authority = uri.authority().context("no host")?.clone();
        ensure!(!authority.as_str().contains('@'), "credentials go into --upstream-header");
        let host = HeaderValue::from_str(authority.as_str())?;
        let path = if uri.path() == "/" { MCP } else { uri.path() }.to_owned();
        let names = names(&authority);
        Ok(Self { authority, host, path, names })
    }
}

impl Upstream {
    /// Its endpoint, whatever path led to ours: `/mcp/` is `/mcp` here.
    pub(crate) fn uri(&self, query: Option<&str>) -> Result<Uri, http::Error> {
        match query {
            Some(query) => self.at(&format!("{}?{query}", self.path)),
            None => self.at(&self.path),
        }
    }

    /// A path, and perhaps a query, there.
    pub(crate) fn at(&self, target: &str) -> Result<Uri, http::Error> {
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone());
        uri.path_and_query(target).build()
    }

    /// Takes out what names this server: the challenge of one that takes its `Host` for its public name, or
    /// a `Via`. Clients would go there, around the layer.
    pub(crate) fn conceal(&self, headers: &mut HeaderMap) {
        let named = headers
            .iter()
            .filter(|(name, value)| *name != SESSION_ID && self.is_named_in(value.as_bytes()));
        for name in named.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            headers.remove(name);
        }
    }

    fn is_named_in(&self, value: &[u8]) -> bool {
        let value = value.to_ascii_lowercase();
        let is_letter = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte))
        };
        self.names.iter().any(|name| {
            value.windows(name.len()).enumerate().any(|(at, window)| {
                let before = at.checked_sub(1).and_then(|at| value.get(at));
                // Or it is a part of a longer name.
                let is_part = is_letter(before) || is_letter(value.get(at + name.len()));
                window == name.as_bytes() && !is_part
            })
        })
    }
}

/// A server on the loopback may know itself by another name of it. A host alone may be any word, so it counts
/// in a URL only.
fn names(authority: &Authority) -> Vec<String> {
    let host = authority.host().to_ascii_lowercase();
    let mut hosts = vec![host];
    let name = names::Authority::read(authority.as_str()).map(|authority| authority.name);
    if name.is_some_and(|name| name.is_loopback()) {
        hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(String::from));
    }
    let port = authority.port_u16().filter(|port| *port != 80);
    let name = |host| match port {
        Some(port) => format!("{host}:{port}"),
        None => format!("//{host}"),
    };
    hosts.into_iter().map(name).collect()
}
