//! What a run is set to.

use std::{
    fmt::{self, Display, Formatter},
    sync::Arc,
    time::Duration,
};

use super::{
    ledger::Ledger,
    request::{Place, USER, Who},
    words::choices,
};
use crate::{McpSessionLayer, UnknownIds, WhenFull};

/// Bytes that settings are made of.
pub(super) const SETTINGS: usize = 7;

choices! {
    /// Whose a session is.
    Owners {
        Required = "a principal is required",
        Anonymous = "there are principals and anonymous callers",
        None = "there are no principals",
    }
}

choices! {
    /// What the server says to the DELETEs of the layer.
    Endings {
        Accepted = "accepts DELETE with 202",
        NoContent = "accepts DELETE with 204",
        NotFound = "answers 404 to DELETE, and has ended the session",
        Once = "answers 503 to the first DELETE of each session, and then 204",
        NotAllowed = "answers 405 to every DELETE",
        Fails = "answers 500 to every DELETE",
        Never = "never answers DELETE",
        Slow = "accepts DELETE with 204 after 3 s",
    }
}

impl Endings {
    /// Whether a session that the server was told to end may stay there.
    pub(super) fn refuses(self) -> bool {
        matches!(self, Self::NotAllowed | Self::Fails | Self::Never)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) owners: Owners,
    pub(super) endings: Endings,
    pub(super) cap: usize,
    pub(super) own_cap: usize,
    pub(super) forwards: bool,
    pub(super) passes_missing: bool,
    pub(super) evicts: bool,
    pub(super) has_path: bool,
    pub(super) shuts_down: bool,
}

impl Settings {
    /// Letters again: those that are `@` are the usual.
    pub(super) fn decode(
        [owners, endings, cap, forwards, missing, evicts, end]: [u8; SETTINGS],
    ) -> Self {
        Self {
            owners: Owners::pick(owners),
            endings: Endings::pick(endings),
            cap: [5, 3, 4].get(usize::from(cap & 31)).copied().unwrap_or(5),
            own_cap: 2,
            forwards: forwards % 2 == 1,
            passes_missing: missing % 2 == 1,
            evicts: evicts % 2 == 1,
            has_path: end % 2 == 0,
            shuts_down: end & 2 == 2,
        }
    }

    pub(super) fn layer(&self, ledger: &Arc<Ledger>) -> McpSessionLayer {
        let minted = Arc::clone(ledger);
        let mut layer = McpSessionLayer::new()
            .max_sessions(self.cap)
            .idle_timeout(Duration::from_secs(100))
            .unused_timeout(Duration::from_secs(60))
            .open_timeout(Duration::from_secs(30))
            .close_timeout(Duration::from_secs(5))
            .id_generator(move || minted.mint());
        if self.owners != Owners::None {
            layer = layer.max_sessions_per_principal(self.own_cap).principal(|parts| {
                let user = parts.headers.get(USER)?;
                user.to_str().ok().map(str::to_owned)
            });
        }
        if self.owners == Owners::Anonymous {
            layer = layer.allow_anonymous();
        }
        if self.forwards {
            layer = layer.unknown_ids(UnknownIds::Forward);
        }
        if self.passes_missing {
            layer = layer.forward_missing_ids();
        }
        if self.evicts {
            layer = layer.when_full(WhenFull::EvictIdle);
        }
        if self.has_path {
            layer = layer.path("/mcp");
        }
        layer
    }

    pub(super) fn manages(&self, place: Place) -> bool {
        !self.has_path || place != Place::Beside
    }

    /// The name under which a session of this caller is owned.
    pub(super) fn principal(&self, who: Who) -> Option<String> {
        let has_one = self.owners != Owners::None && who != Who::Nobody;
        has_one.then(|| who.to_string())
    }

    pub(super) fn may_own(&self, who: Who) -> bool {
        self.owners != Owners::Required || who != Who::Nobody
    }
}

impl Display for Settings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at most {} sessions", self.owners, self.cap)?;
        if self.owners != Owners::None {
            write!(f, " and {} of one principal", self.own_cap)?;
        }
        for (is_so, words) in [
            (self.forwards, "unknown ids are forwarded"),
            (self.passes_missing, "missing ids are forwarded"),
            (self.evicts, "the idle are evicted"),
            (self.has_path, "the path is /mcp"),
            (self.shuts_down, "it ends with a shutdown"),
        ] {
            if is_so {
                write!(f, ", {words}")?;
            }
        }
        write!(f, "; the server {}", self.endings)
    }
}
