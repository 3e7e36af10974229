//! What has happened so far: what the server keeps, what clients were given, what broke a rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use super::{
    answer::Script,
    request::{SESSION_ID, Sent, Version, Who},
    settings::Settings,
    words::named,
};
use crate::Sessions;

named! {
    Rule {
        Cap = "I4: sessions exceed a cap",
        Excess = "I4: the server has more sessions than the cap and the answers under way allow",
        Permits = "I4: permits are missing at the end",
        Ghost = "I6: the server has a session that the layer does not have",
        Phantom = "I6: the layer has a session that the server does not have",
        Unreachable = "I6: a session lives that no client was given",
        Killed = "I6: the layer ends a live session at the server",
        Owner = "I7: a request reached the server with the id of a session that is not its own",
        Folded = "I7: a header that reads as one of MCP reached the server",
        Leak = "an answer names a session that is not a live one of this client",
        Repeated = "an answer has more than one id",
        Unmarked = "an id in an answer is not marked sensitive",
        Revoked = "a session lives that was being opened when it was revoked",
        Busy = "I5: something is in flight at rest",
        Outlived = "a stream outlives its session",
        Asked = "a request reached the server that the layer has to refuse",
        Ignored = "a request did not reach the server",
        Answer = "a client got another answer than the right one",
        Touched = "the layer changed what is none of its business",
        Unopened = "an initialize opened nothing",
        Opened = "a client was given an id for nothing",
        Lost = "a session was lost",
        Panic = "a request panicked",
    }
}

/// One promise that was broken, and by what.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    pub(super) words: String,
}

/// A request on its way, and the answer that waits for it.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) number: usize,
    pub(super) sent: Sent,
    pub(super) script: Script,
    /// Headers that name a session, as they were sent.
    pub(super) ids: Vec<(&'static str, String)>,
    /// The id was that of a live session of this client.
    pub(super) is_own: bool,
    /// Nothing else was under way.
    pub(super) is_alone: bool,
    /// Sessions closed before it was sent.
    pub(super) closed_before: u64,
}

impl Exchange {
    /// What the layer may go by.
    pub(super) fn id(&self) -> Option<&str> {
        let id = self.ids.iter().find(|(name, _)| *name == SESSION_ID);
        id.map(|(_, id)| id.as_str()).filter(|_| !self.is_modern())
    }

    pub(super) fn is_modern(&self) -> bool {
        self.sent.version == Version::Modern
    }
}

/// A session of the server.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// A DELETE of the layer has come.
    pub(super) is_asked: bool,
    /// And was not accepted.
    pub(super) is_refused: bool,
    /// And is being worked on.
    pub(super) is_ending: bool,
}

/// A session that a client was given.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: String,
    pub(super) sent: Sent,
}

/// What a client got.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) ids: usize,
    pub(super) content_type: Option<String>,
    pub(super) body: Bytes,
    pub(super) is_whole: bool,
}

#[derive(Default)]
pub(super) struct Book {
    pub(super) sessions: Option<Sessions>,
    pub(super) exchanges: Vec<Arc<Exchange>>,
    pub(super) kept: BTreeMap<String, Kept>,
    /// Each id that was ever named, with the last exchange in which it was new.
    pub(super) named: BTreeMap<String, usize>,
    /// Those the layer has made up.
    pub(super) minted: BTreeSet<String>,
    /// Ids that the server may or may not have.
    pub(super) loose: BTreeSet<String>,
    pub(super) held: Vec<Held>,
    /// How many ids an answer of the server named.
    pub(super) issued: BTreeMap<usize, usize>,
    pub(super) got: BTreeMap<usize, Got>,
    /// The exchanges that reached the server.
    pub(super) arrived: BTreeSet<usize>,
    /// Calls of clients, DELETEs of the layer, and bodies, at the server.
    pub(super) calls: usize,
    pub(super) endings: usize,
    pub(super) bodies: usize,
    /// Clients that are not through.
    pub(super) waiting: usize,
    /// Of them, those that read a body to its end, whenever that is.
    pub(super) staying: usize,
    /// Exchanges begun before the last close of a principal's sessions.
    pub(super) revoked: BTreeMap<String, usize>,
    pub(super) violations: Vec<Violation>,
    fresh: usize,
}

pub(super) struct Ledger {
    pub(super) settings: Settings,
    book: Mutex<Book>,
}

impl Ledger {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self { settings, book: Mutex::default() })
    }

    /// Not across a call of the layer that may call back.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn violate(&self, rule: Rule, words: impl Into<String>) {
        self.book().violate(rule, words);
    }

    /// An id of the layer's own.
    pub(super) fn mint(&self) -> String {
        let mut book = self.book();
        let id = book.fresh("minted");
        book.minted.insert(id.clone());
        let last = book.exchanges.len().saturating_sub(1);
        book.named.insert(id.clone(), last);
        id
    }

    /// Sessions never exceed a cap, at whatever moment.
    pub(super) fn count(&self) {
        let mut book = self.book();
        let Some(sessions) = book.sessions.clone() else { return };
        let stats = sessions.stats();
        let sum = stats.live + stats.opening + stats.closing;
        if sum > self.settings.cap {
            let words = format!(
                "{} live, {} opening, {} closing",
                stats.live, stats.opening, stats.closing
            );
            book.violate(Rule::Cap, words);
        }
    }
}

impl Book {
    pub(super) fn violate(&mut self, rule: Rule, words: impl Into<String>) {
        self.violations.push(Violation { rule, words: words.into() });
    }

    /// An id that nobody has had.
    pub(super) fn fresh(&mut self, kind: &str) -> String {
        self.fresh += 1;
        format!("{kind}-{}", self.fresh)
    }

    /// Whose live session of the layer this is.
    pub(super) fn owner(&self, id: &str) -> Option<Option<String>> {
        let session = self.sessions.as_ref()?.get(id)?;
        Some(session.principal().map(|principal| principal.as_str().to_owned()))
    }

    pub(super) fn is_live(&self, id: &str) -> bool {
        self.sessions.as_ref().is_some_and(|sessions| sessions.get(id).is_some())
    }

    /// How long the longest idle session was.
    pub(super) fn idle_for(&self) -> Duration {
        let Some(sessions) = &self.sessions else { return Duration::ZERO };
        let live = self.named.keys().filter_map(|id| sessions.get(id));
        live.map(|session| session.idle_for()).max().unwrap_or_default()
    }

    pub(super) fn closed_so_far(&self) -> u64 {
        self.sessions.as_ref().map_or(0, |sessions| sessions.stats().closed.total())
    }

    /// A client has the id of a live session of its own.
    pub(super) fn hold(&mut self, id: String, exchange: &Exchange) {
        // An id that was closed and came back is another session, perhaps of somebody else.
        let is_known = |held: &Held| held.id == id && held.sent.who == exchange.sent.who;
        if !self.held.iter().any(is_known) {
            self.held.push(Held { id, sent: exchange.sent });
        }
    }

    /// The session that this client, or another, was given last and that lives.
    pub(super) fn last_live(&self, who: Who, is_own: bool) -> Option<Held> {
        let mut held = self.held.iter().rev();
        held.find(|held| (held.sent.who == who) == is_own && self.is_live(&held.id)).cloned()
    }

    pub(super) fn last_closed(&self) -> Option<String> {
        let mut held = self.held.iter().rev();
        held.find(|held| !self.is_live(&held.id)).map(|held| held.id.clone())
    }

    /// Whether it was a session once, and is none any more.
    pub(super) fn is_closed(&self, id: &str) -> bool {
        self.held.iter().any(|held| held.id == id) && !self.is_live(id)
    }
}
