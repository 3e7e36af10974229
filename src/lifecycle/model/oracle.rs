//! What must be true, as plainly as it can be said: a map of what is known of each session.

use std::collections::{HashMap, HashSet};

use super::config::Config;
use crate::{
    lifecycle::{clock::Millis, events::CloseReason, permits::WhenFull, registry::Mode},
    protocol::Rejection,
};

/// Who: nobody in particular, or one of three.
pub(super) type Who = Option<u8>;

/// A session, by when it was begun. Ids come again; serials do not.
pub(super) type Serial = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Live,
    Closed,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) phase: Phase,
    /// Closed while it was opening: for what.
    pub(super) closed_early: Option<CloseReason>,
    pub(super) id: Option<String>,
    pub(super) who: Who,
    pub(super) by_layer: bool,
    pub(super) opened_at: Millis,
    pub(super) last: Millis,
    pub(super) used: bool,
    pub(super) in_flight: u64,
    pub(super) requests: u64,
    pub(super) streams: usize,
    pub(super) seats: usize,
}

impl Entry {
    /// Whether nothing can be done with it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed || self.closed_early.is_some()
    }
}

/// What was heard, or is to be heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Opened { id: String, who: Who },
    Closed { id: String, who: Who, reason: CloseReason, lifetime: Millis, requests: u64 },
}

/// One who waits for a place.
#[derive(Clone, Debug)]
struct Waiter {
    serial: Serial,
    who: Who,
    scope: Option<Who>,
    woken: bool,
}

/// The server behind is being told.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    pub(super) id: String,
    /// The session, if it was begun here.
    serial: Option<Serial>,
    counted: Counted,
    /// Attempts that have failed, and when the first did.
    failed: u32,
    since: Millis,
    /// Whether the attempt has begun.
    begun: bool,
}

/// What counts a session that is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    ByPermit(Who),
    Unclaimed(Who),
    /// It is retried.
    Nowhere,
}

/// What the server behind answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// Worth another attempt.
    Failed,
    Refused,
}

/// Attempts, then it is given up.
const MOST_ATTEMPTS: u32 = 16;

pub(super) struct Oracle {
    config: Config,
    pub(super) now: Millis,
    pub(super) mode: Mode,
    pub(super) sessions: HashMap<Serial, Entry>,
    pub(super) buried: HashSet<String>,
    pub(super) tellings: Vec<Telling>,
    /// Failed, and when the next attempt is due.
    retries: Vec<(Millis, Telling)>,
    waiters: Vec<Waiter>,
    pub(super) given_up: u64,
    pub(super) opened: u64,
    pub(super) closed: HashMap<CloseReason, u64>,
    pub(super) failures: u64,
    /// What the operation under way should have been heard to do.
    pub(super) expected: Vec<Heard>,
    /// What it was heard to do: which of two that are equally idle is evicted, nobody says.
    pub(super) heard: Vec<Heard>,
}

impl Oracle {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            now: 0,
            mode: Mode::Serving,
            sessions: HashMap::new(),
            buried: HashSet::new(),
            tellings: Vec::new(),
            retries: Vec::new(),
            waiters: Vec::new(),
            given_up: 0,
            opened: 0,
            closed: HashMap::new(),
            failures: 0,
            expected: Vec::new(),
            heard: Vec::new(),
        }
    }

    // --- what is known ---------------------------------------------------------------------------

    pub(super) fn live(&self) -> impl Iterator<Item = (Serial, &Entry)> {
        let all = self.sessions.iter().map(|(serial, entry)| (*serial, entry));
        all.filter(|(_, entry)| entry.phase == Phase::Live)
    }

    /// The session in the table under this id.
    pub(super) fn find(&self, id: &str) -> Option<Serial> {
        self.live().find(|(_, entry)| entry.id.as_deref() == Some(id)).map(|(serial, _)| serial)
    }

    pub(super) fn count(&self, phase: Phase) -> usize {
        self.sessions.values().filter(|entry| entry.phase == phase).count()
    }

    pub(super) fn closing(&self) -> usize {
        let by_permit = |one: &&Telling| matches!(one.counted, Counted::ByPermit(_));
        self.tellings.iter().filter(by_permit).count()
    }

    /// Endings under way that no permit counts.
    pub(super) fn unclaimed(&self, who: Who) -> usize {
        self.tellings.iter().filter(|one| one.counted == Counted::Unclaimed(who)).count()
    }

    pub(super) fn all_unclaimed(&self) -> usize {
        let is_unclaimed = |one: &&Telling| matches!(one.counted, Counted::Unclaimed(_));
        self.tellings.iter().filter(is_unclaimed).count()
    }

    /// Failed attempts of each session that is retried.
    pub(super) fn retrying(&self) -> Vec<u32> {
        let waiting = self.retries.iter().map(|(_, telling)| telling);
        let all = waiting.chain(&self.tellings).map(|telling| telling.failed);
        let mut failed: Vec<_> = all.filter(|failed| *failed > 0).collect();
        failed.sort_unstable();
        failed
    }

    /// When the next retry is due.
    pub(super) fn next_retry(&self) -> Option<Millis> {
        self.retries.iter().map(|(due, _)| *due).min()
    }

    /// Places taken under the cap.
    pub(super) fn used(&self) -> usize {
        self.count(Phase::Opening) + self.count(Phase::Live) + self.closing()
    }

    /// And of these, one principal's.
    fn used_by(&self, who: Who) -> usize {
        let alive = self.sessions.values().filter(|entry| entry.phase != Phase::Closed);
        alive.filter(|entry| entry.who == who).count() + self.closing_of(who)
    }

    fn closing_of(&self, who: Who) -> usize {
        self.tellings.iter().filter(|one| one.counted == Counted::ByPermit(who)).count()
    }

    /// Whether the session's state is to be kept: until the server behind was told of its end.
    pub(super) fn keeps_state(&self, serial: Serial) -> bool {
        let phase = self.sessions.get(&serial).map(|entry| entry.phase);
        let is_over = phase.is_none_or(|phase| phase == Phase::Closed);
        let waiting = self.retries.iter().map(|(_, telling)| telling);
        !is_over || waiting.chain(&self.tellings).any(|telling| telling.serial == Some(serial))
    }

    /// When and why it ends if nothing happens to it.
    pub(super) fn deadline(&self, serial: Serial) -> Option<(Millis, CloseReason)> {
        let (entry, spans) = (self.sessions.get(&serial)?, self.config.timeouts);
        if entry.is_closed() {
            return None;
        }
        let mut ends = Vec::new();
        // In the order in which they are blamed for what falls together.
        if let Some(lifetime) = spans.lifetime {
            ends.push((entry.opened_at + lifetime, CloseReason::Lifetime));
        }
        if entry.in_flight == 0 {
            if let Some(idle) = spans.idle {
                ends.push((entry.last + idle, CloseReason::Idle));
            }
            if let Some(unused) = spans.unused.filter(|_| !entry.used) {
                ends.push((entry.last + unused, CloseReason::Unused));
            }
        }
        ends.into_iter().min_by_key(|(end, _)| *end)
    }

    /// What its time is up for. The lifetime is blamed for all that has passed.
    fn verdict(&self, serial: Serial) -> Option<CloseReason> {
        let entry = self.sessions.get(&serial)?;
        let (end, reason) = self.deadline(serial)?;
        let lifetime = self.config.timeouts.lifetime;
        match lifetime {
            _ if end > self.now => None,
            Some(lifetime) if entry.opened_at + lifetime <= self.now => Some(CloseReason::Lifetime),
            _ => Some(reason),
        }
    }

    // --- how it ends -----------------------------------------------------------------------------

    /// Closes it, unless it is closed. The server behind is told of what it opened.
    pub(super) fn close(&mut self, serial: Serial, reason: CloseReason, tell: bool) -> bool {
        let Some(entry) = self.sessions.get_mut(&serial) else { return false };
        if entry.is_closed() {
            return false;
        }
        entry.in_flight = 0;
        if entry.phase == Phase::Opening {
            entry.closed_early = Some(reason);
        } else {
            self.bury(serial, reason, tell);
        }
        true
    }

    fn bury(&mut self, serial: Serial, reason: CloseReason, tell: bool) {
        let Some(entry) = self.sessions.get_mut(&serial) else { return };
        entry.phase = Phase::Closed;
        entry.in_flight = 0;
        let id = entry.id.clone().unwrap_or_default();
        *self.closed.entry(reason).or_default() += 1;
        self.expected.push(Heard::Closed {
            id: id.clone(),
            who: entry.who,
            reason,
            lifetime: self.now - entry.opened_at,
            requests: entry.requests,
        });
        let kept = self.config.remember_closed && reason == CloseReason::Shutdown;
        if tell && !kept && !entry.by_layer {
            let counted = Counted::ByPermit(entry.who);
            self.tellings.push(Telling {
                id: id.clone(),
                serial: Some(serial),
                counted,
                failed: 0,
                since: 0,
                begun: false,
            });
        } else {
            self.wake();
        }
        if self.config.remember_closed {
            self.buried.insert(id);
        }
    }

    /// Closes it if its time is up.
    pub(super) fn look(&mut self, serial: Serial) -> bool {
        self.verdict(serial).is_some_and(|reason| self.close(serial, reason, true))
    }

    /// Whatever has expired is gone after a tick.
    pub(super) fn reap(&mut self) {
        let live: Vec<_> = self.live().map(|(serial, _)| serial).collect();
        for serial in live {
            self.look(serial);
        }
        self.repeat();
    }

    /// Whatever is due is told again.
    pub(super) fn repeat(&mut self) {
        let now = self.now;
        let mut due: Vec<_> = self.retries.extract_if(.., |(due, _)| *due <= now).collect();
        due.sort_by_key(|(due, _)| *due);
        self.tellings.extend(due.into_iter().map(|(_, telling)| telling));
    }

    pub(super) fn close_where(
        &mut self,
        reason: CloseReason,
        matches: impl Fn(&Entry) -> bool,
    ) -> usize {
        let alive = self.sessions.iter().filter(|(_, entry)| !entry.is_closed() && matches(entry));
        let found: Vec<_> = alive.map(|(serial, _)| *serial).collect();
        found.into_iter().filter(|serial| self.close(*serial, reason, true)).count()
    }

    /// Whatever can be told is being told now, but of no id that another session has by then.
    pub(super) fn begin_tellings(&mut self) {
        let taken: HashSet<_> = self.live().filter_map(|(_, entry)| entry.id.clone()).collect();
        let is_over = |one: &mut Telling| !one.begun && taken.contains(&one.id);
        let over: Vec<_> = self.tellings.extract_if(.., is_over).collect();
        self.tellings.iter_mut().for_each(|one| one.begun = true);
        if over.iter().any(|one| matches!(one.counted, Counted::ByPermit(_))) {
            self.wake();
        }
    }

    pub(super) fn answered(&mut self, id: &str, answer: Answer) {
        let at = self.tellings.iter().position(|telling| telling.id == id);
        let mut telling = self.tellings.remove(at.expect("the server behind was told of this id"));
        if matches!(telling.counted, Counted::ByPermit(_)) {
            self.wake();
        }
        if answer == Answer::Done {
            return;
        }
        if telling.failed == 0 {
            self.failures += 1;
            telling.since = self.now;
        }
        telling.failed += 1;
        telling.counted = Counted::Nowhere;
        telling.begun = false;
        let enough = telling.failed == MOST_ATTEMPTS || self.now - telling.since >= 600_000;
        if answer == Answer::Refused || enough {
            self.given_up += 1;
        } else {
            let pause = (1_000 << (telling.failed - 1)).min(60_000);
            self.retries.push((self.now + pause, telling));
        }
    }

    pub(super) fn end_unclaimed(&mut self, id: String, who: Who) {
        let counted = Counted::Unclaimed(who);
        self.tellings.push(Telling {
            id,
            serial: None,
            counted,
            failed: 0,
            since: 0,
            begun: false,
        });
    }

    // --- how it begins ---------------------------------------------------------------------------

    /// Takes a place without more ado, or says whose cap is in the way.
    fn attempt(&mut self, serial: Serial, who: Who) -> Result<(), Option<Who>> {
        let cap = who.and(self.config.cap_per_principal);
        if self.used() >= self.config.cap {
            return Err(None);
        }
        if cap.is_some_and(|cap| self.used_by(who) >= cap) {
            return Err(Some(who));
        }
        self.sessions.insert(serial, self.newborn(who));
        Ok(())
    }

    /// Closes all that have expired, and says whose they were.
    fn reclaim(&mut self) -> Vec<Who> {
        let live: Vec<_> = self.live().map(|(serial, entry)| (serial, entry.who)).collect();
        let expired = live.into_iter().filter(|(serial, _)| self.look(*serial));
        expired.map(|(_, who)| who).collect()
    }

    pub(super) fn begin_now(&mut self, serial: Serial, who: Who) -> Result<(), Rejection> {
        if self.mode != Mode::Serving {
            return Err(Rejection::ShuttingDown);
        }
        let mut attempt = self.attempt(serial, who);
        if attempt.is_err() && !self.reclaim().is_empty() {
            attempt = self.attempt(serial, who);
        }
        attempt.map_err(refusal)
    }

    /// `None`: it waits for a close that is under way and that nobody else waits for.
    pub(super) fn begin(&mut self, serial: Serial, who: Who) -> Option<Result<(), Rejection>> {
        loop {
            if self.mode != Mode::Serving {
                return Some(Err(Rejection::ShuttingDown));
            }
            let Err(scope) = self.attempt(serial, who) else { return Some(Ok(())) };
            let waiting = self.waiters.iter().filter(|waiter| waiter.scope == scope).count();
            let closing = scope.map_or(self.closing(), |who| self.closing_of(who));
            if waiting < closing {
                self.waiters.push(Waiter { serial, who, scope, woken: false });
                return None;
            }
            let helped = self.reclaim().iter().any(|owner| scope.is_none() || *owner == who);
            let evicts = self.config.when_full == WhenFull::EvictIdle;
            if !(helped || evicts && self.evict(who)) {
                return Some(Err(refusal(scope)));
            }
        }
    }

    fn newborn(&self, who: Who) -> Entry {
        Entry {
            phase: Phase::Opening,
            closed_early: None,
            id: None,
            who,
            by_layer: false,
            opened_at: self.now,
            last: self.now,
            used: false,
            in_flight: 1,
            requests: 1,
            streams: 0,
            seats: 0,
        }
    }

    /// Evicts the longest idle of the same principal.
    fn evict(&mut self, who: Who) -> bool {
        let idle = |entry: &Entry| entry.who == who && entry.in_flight == 0;
        let Some(last) = self.live().filter(|(_, e)| idle(e)).map(|(_, e)| e.last).min() else {
            return false;
        };
        let longest = self.live().filter(|(_, e)| idle(e) && e.last == last);
        let evicted = longest.map(|(serial, entry)| (serial, entry.id.clone())).find(|(_, own)| {
            self.heard.iter().any(|heard| {
                matches!(heard, Heard::Closed { id, reason: CloseReason::Evicted, .. }
                    if Some(id) == own.as_ref())
            })
        });
        let (serial, _) = evicted.expect("one of the longest idle was evicted");
        self.close(serial, CloseReason::Evicted, true)
    }

    pub(super) fn left(&mut self, serial: Serial) {
        self.waiters.retain(|waiter| waiter.serial != serial);
    }

    /// A permit has come back: all who wait try again.
    fn wake(&mut self) {
        self.waiters.iter_mut().for_each(|waiter| waiter.woken = true);
    }

    /// Those who were woken try again, in the order in which they came.
    pub(super) fn retry(&mut self) -> Vec<(Serial, Result<(), Rejection>)> {
        let mut order: Vec<_> = self.waiters.iter().map(|waiter| waiter.serial).collect();
        order.sort_unstable();
        let mut resolved = Vec::new();
        for serial in order {
            let at = self.waiters.iter().position(|one| one.serial == serial && one.woken);
            let Some(waiter) = at.map(|at| self.waiters.remove(at)) else { continue };
            if let Some(outcome) = self.begin(serial, waiter.who) {
                resolved.push((serial, outcome));
            }
        }
        resolved
    }

    /// Nothing of it stays.
    pub(super) fn abandoned(&mut self, serial: Serial) {
        if let Some(entry) = self.sessions.get_mut(&serial) {
            entry.phase = Phase::Closed;
            entry.in_flight = 0;
        }
        self.wake();
    }

    /// It is ended at the server behind, under its permit.
    pub(super) fn unwanted(&mut self, serial: Serial, id: String) {
        let Some(entry) = self.sessions.get_mut(&serial) else { return };
        entry.phase = Phase::Closed;
        entry.in_flight = 0;
        entry.id.get_or_insert_with(|| id.clone());
        let counted = Counted::ByPermit(entry.who);
        // What was left in its state is there until then, also for a session of another name.
        self.tellings.push(Telling {
            id,
            serial: Some(serial),
            counted,
            failed: 0,
            since: 0,
            begun: false,
        });
    }

    /// False if the id is taken, or was closed here and must stay so.
    pub(super) fn completed(&mut self, serial: Serial, id: &str, by_layer: bool) -> bool {
        let Some(entry) = self.sessions.get_mut(&serial) else { return false };
        let named = entry.id.is_some();
        let id = entry.id.get_or_insert_with(|| id.to_owned()).clone();
        // Who was named before is the server's to know.
        entry.by_layer = by_layer && !named;
        let (who, early) = (entry.who, entry.closed_early.take());
        if self.find(&id).is_some() || self.buried.contains(&id) {
            self.abandoned(serial);
            return false;
        }
        self.opened += 1;
        self.expected.push(Heard::Opened { id, who });
        if let Some(entry) = self.sessions.get_mut(&serial) {
            entry.phase = Phase::Live;
        }
        match early {
            Some(reason) => self.bury(serial, reason, true),
            None => drop(self.look(serial)),
        }
        if self.mode == Mode::ShutDown {
            self.close(serial, CloseReason::Shutdown, true);
        }
        true
    }

    // --- what happens to it ----------------------------------------------------------------------

    /// An operator's or a request's access to a session that is at hand.
    pub(super) fn hold(&mut self, serial: Serial) -> bool {
        if self.look(serial) {
            return false;
        }
        let alive = self.sessions.get_mut(&serial).filter(|entry| !entry.is_closed());
        alive.map(|entry| entry.in_flight += 1).is_some()
    }

    pub(super) fn enter(&mut self, id: &str, who: Who) -> Option<Serial> {
        let serial = self.find(id)?;
        if self.sessions.get(&serial)?.who != who || !self.hold(serial) {
            return None;
        }
        self.sessions.get_mut(&serial)?.requests += 1;
        Some(serial)
    }

    pub(super) fn exit(&mut self, serial: Serial, stamps: bool, uses: bool) {
        let Some(entry) = self.sessions.get_mut(&serial) else { return };
        if entry.is_closed() {
            return;
        }
        entry.in_flight -= 1;
        entry.used |= uses;
        if stamps {
            entry.last = self.now;
        }
    }
}

fn refusal(scope: Option<Who>) -> Rejection {
    scope.map_or(Rejection::TableFull, |_| Rejection::TooManySessions)
}
