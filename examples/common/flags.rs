//! The command-line flags of the layer.

use std::{fmt, net::SocketAddr, num::NonZeroUsize, str::FromStr, time::Duration};

use anyhow::ensure;
use mcp_session_layer::McpSessionLayer;

/// Where to listen, and when sessions end.
#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub(crate) addr: SocketAddr,

    /// Close a session after this long with nothing in flight
    #[arg(long, default_value = "30s", value_parser = duration)]
    idle_timeout: Duration,

    /// Close a session that saw no request after its `initialize` for this long
    #[arg(long, default_value = "60s", value_parser = duration)]
    unused_timeout: Duration,

    /// Close a session at this age, whatever it is doing, or `off`
    #[arg(long, default_value = "8h")]
    max_lifetime: Limit,

    /// Keep at most this many sessions
    #[arg(long, default_value = "10000")]
    max_sessions: NonZeroUsize,

    /// Write a comment to an event stream that has been silent for this long, or `off`
    #[arg(long, default_value = "15s")]
    heartbeat: Limit,

    /// End a GET stream at this age, so that only a live client comes back, or `off`
    #[arg(long, default_value = "1h")]
    stream_lifetime: Limit,
}

impl Flags {
    /// A layer that manages `/mcp` by these flags, and lets every other path pass untouched.
    pub(crate) fn layer(&self) -> McpSessionLayer {
        let mut layer = McpSessionLayer::new()
            .path("/mcp")
            .idle_timeout(self.idle_timeout)
            .unused_timeout(self.unused_timeout)
            .max_sessions(self.max_sessions.get());
        if let Limit(Some(age)) = self.max_lifetime {
            layer = layer.max_lifetime(age);
        }
        if let Limit(Some(silence)) = self.heartbeat {
            layer = layer.heartbeat(silence);
        }
        if let Limit(Some(age)) = self.stream_lifetime {
            layer = layer.stream_lifetime(age);
        }
        layer
    }
}

/// A duration, or none.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<Duration>);

/// The layer takes no zero: a session would end before it begins.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration = humantime::parse_duration(text)?;
    ensure!(!duration.is_zero(), "must be longer than nothing");
    Ok(duration)
}

impl FromStr for Limit {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self(None)),
            text => duration(text).map(|limit| Self(Some(limit))),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(limit) => humantime::format_duration(limit).fmt(f),
            None => f.write_str("off"),
        }
    }
}
