//! What is compared: rmcp as it comes, rmcp with its own means, rmcp behind the layer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Column {
    /// `LocalSessionManager::default()`, `StreamableHttpServerConfig::default()`.
    Bare,
    /// `keep_alive` and `init_timeout` are the idle timeout, the factory of handlers refuses at a cap, and the
    /// cancellation token is cancelled a grace after the signal to stop.
    Tuned,
    /// `keep_alive` is off, and the layer around it.
    Layered,
}

impl Column {
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::Tuned, Self::Layered];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "rmcp as it comes",
            Self::Tuned => "rmcp, tuned",
            Self::Layered => "rmcp + layer",
        }
    }
}

/// How a server is set up. A fault changes what it needs otherwise, for all columns alike.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) column: Column,
    /// Tuned and layered: how long a session may be idle.
    pub(crate) idle: Duration,
    /// Layered: how long a session may be unused.
    pub(crate) unused: Duration,
    /// Tuned and layered: how many sessions there may be.
    pub(crate) cap: usize,
    /// Layered: sessions belong to who is named as bearer, each may have this many, and who wants
    /// more loses the one that is idle longest. Otherwise nobody has a name, and a full table
    /// refuses.
    pub(crate) each: Option<usize>,
    /// Layered: the age at which a GET stream is cut.
    pub(crate) stream_lifetime: Option<Duration>,
    /// How long `initialize` takes.
    pub(crate) initialize: Duration,
    /// Tuned and layered: how long calls may take to end when the server is to stop.
    pub(crate) grace: Duration,
}

impl Setup {
    pub(crate) fn new(column: Column, idle: Duration) -> Self {
        Self {
            column,
            idle,
            unused: idle / 2,
            cap: 300,
            each: Some(20),
            stream_lifetime: None,
            initialize: Duration::ZERO,
            grace: Duration::from_secs(4),
        }
    }

    /// For a fault that idling has no part in: it shall not, on a busy machine either.
    pub(crate) const fn never_idle(&mut self) {
        self.idle = Duration::from_secs(600);
        self.unused = self.idle;
    }
}
