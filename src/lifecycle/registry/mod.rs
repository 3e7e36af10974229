//! The table of sessions: the only place where one is opened or closed.
//!
//! # Ground rules
//!
//! * A session is closed by whoever wins its word, once, in `tear_down` ([`closing`]): phase, map,
//!   streams and state, `closed()`, event, the server behind, permit, in this order.
//! * Expiry is decided on access ([`Registry::enter`]); the reaper only reclaims what nobody asks
//!   for.
//! * No `Ref` of the map outlives the statement that made it, and no lock is held while code of
//!   the user's runs: hooks, destructors and bodies may call back into the registry.
//! * Keys are ids that this layer or the server behind made up. What a client sends is looked up
//!   and never inserted.

mod closing;
mod key;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use dashmap::{DashMap, Entry as MapEntry};

use self::key::Key;
use super::{
    activity::{Enter, Exit, Word},
    clock::{Clock, Millis},
    closer::Closer,
    deadline::{Timeouts, Verdict},
    events::{Events, Hook},
    guard::InFlight,
    openings::Openings,
    owner::{Home, Owners},
    permits::{Permits, WhenFull},
    principal::Principal,
    reaper::Reaper,
    record::Record,
    streams::Timed,
    sync::{AtomicU8, AtomicU64, Ordering},
    tombstones::Tombstones,
    watch::{Watch, Watched},
};
use crate::protocol::{Rejection, SessionId};

/// So many sessions, at the cap, share a lock of the table, which a scan, or the shard's growth, holds
/// for as long as it takes to look at them.
const SESSIONS_A_SHARD: usize = 512;

/// A shard is 128 bytes: from 8 KiB for a small cap to half a byte a session for a million. A model that
/// makes a table for each of 10,000 sequences, and scans it after each operation, does with fewer.
fn shards(max_sessions: usize) -> usize {
    let least = if cfg!(any(test, fuzzing)) { 16 } else { 64 };
    max_sessions.div_ceil(SESSIONS_A_SHARD).next_power_of_two().clamp(least, 4_096)
}

/// The bounds of a registry.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_sessions: usize,
    pub(crate) max_sessions_per_principal: Option<usize>,
    pub(crate) when_full: WhenFull,
    pub(crate) close_timeout: Duration,
    /// The shortest time that anything is armed for; decides the tick.
    pub(crate) shortest: Option<Millis>,
    /// Whether ids closed here are kept apart from ids never seen.
    pub(crate) remember_closed: bool,
}

/// Whether sessions may be opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Mode {
    Serving = 0,
    Draining = 1,
    ShutDown = 2,
}

type Table = DashMap<Key, (), foldhash::fast::RandomState>;

pub(crate) struct Registry {
    table: Table,
    #[cfg(all(test, mcp_loom))]
    order: super::sync::Mutex<()>,
    clock: Clock,
    timeouts: Timeouts,
    /// Of the timeouts: most requests need no more of them.
    shortest_idle: Option<Millis>,
    limits: Limits,
    permits: Arc<Permits>,
    openings: Arc<Openings>,
    owners: Owners,
    events: Events,
    closer: Arc<Closer>,
    wheel: Mutex<Watch>,
    reaper: Arc<Reaper>,
    tombstones: Option<Tombstones>,
    mode: AtomicU8,
    revocations: AtomicU64,
    /// No session can expire before then; see `admission`.
    reclaim_at: Mutex<Millis>,
    me: Weak<Registry>,
}

impl Registry {
    pub(crate) fn new(timeouts: Timeouts, limits: Limits, hooks: Vec<Hook>) -> Arc<Self> {
        Self::on(Clock::tolerating(tolerance(limits.shortest)), timeouts, limits, hooks)
    }

    /// As [`new`](Self::new), on a clock that is there already.
    pub(crate) fn on(
        clock: Clock,
        timeouts: Timeouts,
        limits: Limits,
        hooks: Vec<Hook>,
    ) -> Arc<Self> {
        // What a request's end is taken to be later than it was comes off the tick, so that nothing is closed
        // later for it.
        let tick = tick(limits.shortest) - clock.lead();
        let shards = shards(limits.max_sessions);
        let permits =
            Arc::new(Permits::new(limits.max_sessions, limits.max_sessions_per_principal));
        Arc::new_cyclic(|me| Self {
            table: Table::with_hasher_and_shard_amount(Default::default(), shards),
            #[cfg(all(test, mcp_loom))]
            order: Default::default(),
            clock,
            shortest_idle: timeouts.shortest_idle(),
            timeouts,
            owners: Owners::new(
                Home { registry: me.clone(), permits: Arc::clone(&permits), clock },
                shards,
            ),
            permits,
            openings: Arc::default(),
            events: Events::new(hooks),
            closer: Arc::new(Closer::new(limits.close_timeout, clock, me.clone())),
            wheel: Mutex::new(Watch::new(tick)),
            reaper: Arc::new(Reaper::new()),
            tombstones: limits.remember_closed.then(Tombstones::default),
            mode: AtomicU8::new(Mode::Serving as u8),
            revocations: AtomicU64::new(0),
            reclaim_at: Mutex::new(0),
            limits,
            me: me.clone(),
        })
    }

    // --- reading -------------------------------------------------------------------------------

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    pub(super) fn openings(&self) -> &Arc<Openings> {
        &self.openings
    }

    pub(super) fn owners(&self) -> &Owners {
        &self.owners
    }

    pub(super) fn closer(&self) -> &Arc<Closer> {
        &self.closer
    }

    #[cfg(any(all(test, not(mcp_loom)), fuzzing))]
    pub(super) fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    fn table(&self) -> &Table {
        // The table's own locks order what happens around them; loom has to be shown one.
        #[cfg(all(test, mcp_loom))]
        drop(self.order.lock());
        &self.table
    }

    pub(crate) fn find(&self, id: &[u8]) -> Option<Arc<Record>> {
        self.table().get(id).map(|entry| Arc::clone(&entry.key().0))
    }

    /// What a bench compares a touch with: a lookup and two read-modify-writes.
    #[cfg(feature = "__bench")]
    pub(crate) fn floor_in_place(&self, id: &str) -> u64 {
        self.table().get(id.as_bytes()).map_or(0, |entry| entry.key().0.activity.floor())
    }

    pub(crate) fn was_closed(&self, id: &SessionId) -> bool {
        self.tombstones.as_ref().is_some_and(|tombstones| tombstones.holds(id))
    }

    /// Every session in the table. A copy: the map is not locked while the caller works.
    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        self.table().iter().map(|entry| Arc::clone(&entry.key().0)).collect()
    }

    /// Visits every session with a shard locked: `visit` must not come back here.
    pub(super) fn scan(&self, mut visit: impl FnMut(&Arc<Record>)) {
        self.table().iter().for_each(|entry| visit(&entry.key().0));
    }

    // --- a request arrives ---------------------------------------------------------------------

    /// Admits a request to a live session of this principal. Everything else is the same 404, and
    /// moves no deadline.
    pub(crate) fn enter(
        &self,
        id: &[u8],
        principal: Option<&Principal>,
    ) -> Result<InFlight, Rejection> {
        // Before the lookup, in whose shadow it takes half as long.
        let now = self.clock.at_least();
        let record = self.find(id).ok_or(Rejection::SessionNotFound)?;
        if record.principal() != principal {
            return Err(Rejection::SessionNotFound);
        }
        self.reaper.ensure(&self.me);
        let in_flight = self.hold_at(record, Exit::Touch, now)?;
        in_flight.record().count_request();
        Ok(in_flight)
    }

    /// Holds a session that is already at hand.
    pub(super) fn hold(&self, record: Arc<Record>, exit: Exit) -> Result<InFlight, Rejection> {
        self.hold_at(record, exit, self.clock.at_least())
    }

    fn hold_at(&self, record: Arc<Record>, exit: Exit, now: Millis) -> Result<InFlight, Rejection> {
        match record.activity.enter(|word| self.is_expired(&record, word, now)) {
            Enter::Admitted => Ok(InFlight::admitted(record, exit)),
            Enter::Saturated => Err(Rejection::TooManyRequests),
            Enter::Closed => Err(Rejection::SessionNotFound),
            Enter::Expired(_) => {
                self.look_at(&record);
                Err(Rejection::SessionNotFound)
            }
        }
    }

    fn is_expired(&self, record: &Record, word: Word, now: Millis) -> bool {
        let may_be = self.shortest_idle.is_none_or(|span| now >= word.last_activity() + span);
        may_be && self.is_overdue(record, word, now)
    }

    #[cold]
    fn is_overdue(&self, record: &Record, word: Word, now: Millis) -> bool {
        let verdict = self.timeouts.verdict(word, record.opened_at(), now);
        !matches!(verdict, Verdict::LookAgain(_))
    }

    // --- opening (see `opening`) ---------------------------------------------------------------

    /// False if the id is taken, or was closed here and must stay so.
    pub(super) fn insert(&self, record: &Arc<Record>) -> bool {
        let Some(id) = record.id() else { return false };
        match self.table().entry(Key(Arc::clone(record))) {
            MapEntry::Occupied(_) => false,
            // Ids are buried before they leave the map: one that was closed here is seen to be.
            MapEntry::Vacant(_) if self.was_closed(id) => false,
            MapEntry::Vacant(entry) => {
                entry.insert(());
                true
            }
        }
    }

    fn remove(&self, id: &SessionId, record: &Arc<Record>) {
        self.table().remove_if(id.as_bytes(), |key, ()| Arc::ptr_eq(&key.0, record));
    }

    /// Has the reaper look at the session when its time may be up.
    pub(super) fn watch(&self, record: &Arc<Record>) {
        if let Some(at) = self.look_at(record) {
            self.expect_expiry(at);
            self.arm(Watched::session(record), at);
        }
        self.reaper.ensure(&self.me);
        // Closes may come from outside of any runtime: this one will do.
        self.closer.kick();
    }

    // --- time ----------------------------------------------------------------------------------

    /// Has the reaper look at it then.
    pub(crate) fn watch_timed(&self, timed: Weak<dyn Timed>, at: Millis) {
        self.arm(Watched::Timed(timed), at);
        self.reaper.ensure(&self.me);
    }

    pub(super) fn arm(&self, watched: Watched, at: Millis) {
        let now = self.clock.now();
        let was_empty = {
            let mut wheel = self.wheel();
            let was_empty = wheel.len() == 0;
            wheel.arm(watched, at, now);
            was_empty
        };
        if was_empty {
            self.reaper.wake();
        }
    }

    /// Before then, nothing can have expired that has not been seen to.
    pub(super) fn reclaim_at(&self) -> MutexGuard<'_, Millis> {
        self.reclaim_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expect_expiry(&self, at: Millis) {
        let mut reclaim_at = self.reclaim_at();
        *reclaim_at = at.min(*reclaim_at);
    }

    pub(super) fn wheel(&self) -> MutexGuard<'_, Watch> {
        self.wheel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    // --- shutting down (see `shutdown`) --------------------------------------------------------

    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::SeqCst) {
            0 => Mode::Serving,
            1 => Mode::Draining,
            _ => Mode::ShutDown,
        }
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.fetch_max(mode as u8, Ordering::SeqCst);
    }

    /// How often sessions were closed by their principal, or all of them. A request that may open a session without our
    /// knowing is in no list: it compares.
    pub(crate) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::SeqCst)
    }

    pub(super) fn count_revocation(&self) {
        self.revocations.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.mode() != Mode::Serving
    }
}

/// A tick is that part of the shortest time that anything is armed for, but no finer than the timer is worth
/// and no coarser than a person notices.
fn tick(shortest: Option<Millis>) -> Millis {
    shortest.map_or(1_000, |span| (span / 64).clamp(10, 1_000))
}

/// How far from the truth the time may be that a request goes by. One may end that much late, and the next be let in
/// that much late: with nobody but requests to see to it, a session still lives no longer than a tick too long.
pub(crate) fn tolerance(shortest: Option<Millis>) -> Millis {
    tick(shortest) / 2
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("clock", &self.clock)
            .field("timeouts", &self.timeouts)
            .field("permits", &self.permits)
            .field("closer", &self.closer)
            .finish_non_exhaustive()
    }
}
