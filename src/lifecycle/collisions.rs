//! Real threads at the deadline: `just threads`.
//!
//! Loom explores every interleaving of a few steps; this is the other half: the whole core, optimised,
//! on the machine's own memory model, millions of times. Sizes come from the environment.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::HashSet,
    env,
    hint::spin_loop,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Waker},
    thread,
    time::Duration,
};

use dashmap::DashMap;
use futures_util::future::{BoxFuture, ready};

use super::{
    activity::Exit,
    clock::{Millis, mock::Mock},
    closer::{Terminate, Terminated, Terminator},
    deadline::Timeouts,
    events::{CloseReason, Hook, SessionEvent},
    guard::InFlight,
    handle::Session,
    opening::Issuer,
    permits::WhenFull,
    principal::Principal,
    reaper,
    record::Record,
    registry::{Limits, Registry},
};
use crate::protocol::{Fingerprint, SessionId};

fn size(variable: &str, small: u64) -> u64 {
    env::var(variable).map_or(small, |size| size.parse().unwrap())
}

fn time() -> Mock {
    Mock::new(Box::leak(Box::default()))
}

fn limits(max_sessions: usize) -> Limits {
    Limits {
        max_sessions,
        max_sessions_per_principal: None,
        when_full: WhenFull::EvictIdle,
        close_timeout: Duration::from_secs(60),
        shortest: None,
        remember_closed: false,
    }
}

/// What the reaper's task does at a tick.
fn tick(registry: &Registry) {
    let mut tick = Box::pin(reaper::tick(registry, 0));
    let context = &mut Context::from_waker(Waker::noop());
    while tick.as_mut().poll(context).is_pending() {}
}

/// Cheap, and different on each thread.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

// --- two threads at one deadline -----------------------------------------------------------------

/// Something that a request enters and a reaper closes.
trait Subject: Sync {
    type Session: Send + Sync;
    type Guard;

    /// A session that is idle, a moment before its deadline.
    fn renew(&self, last: Option<Arc<Self::Session>>) -> Arc<Self::Session>;
    /// A request, at that moment.
    fn enter(&self, session: &Self::Session) -> Option<Self::Guard>;
    /// Its end.
    fn exit(&self, session: &Self::Session, guard: Self::Guard);
    /// The deadline comes, and the reaper with it.
    fn reap(&self, session: &Self::Session);
    fn is_closed(&self, session: &Self::Session) -> bool;
    /// Whatever else must hold between rounds.
    fn is_sound(&self, _: &Self::Session) -> bool {
        true
    }
}

/// Where two threads meet, without sleeping: they leave within nanoseconds of each other.
#[derive(Default)]
struct Gate {
    sides: [Line; 2],
    broken: AtomicBool,
}

/// Has the other side fail too if this one does.
struct Breaks<'a>(&'a Gate);

impl Drop for Breaks<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.broken.store(true, SeqCst);
        }
    }
}

/// Alone on its cache line.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Gate {
    fn meet(&self, side: usize) {
        let mine = self.sides[side].0.fetch_add(1, SeqCst) + 1;
        let mut spins = 0_u32;
        while self.sides[1 - side].0.load(SeqCst) < mine {
            assert!(!self.broken.load(SeqCst), "the other side has failed");
            spins += 1;
            if spins < 500 {
                spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

#[derive(Debug, Default)]
struct Outcome {
    entered: u64,
    expired: u64,
    violations: u64,
}

/// Sends a request and the reaper at the same session, `rounds` times or until `enough` violations.
fn collide<S: Subject>(subject: &S, rounds: u64, enough: u64) -> Outcome {
    let gate = Gate::default();
    let slot: Mutex<Option<Arc<S::Session>>> = Mutex::default();
    // Which of the two is held up, and how long: whoever keeps winning.
    let lead = AtomicU64::new(1_000);
    let over = AtomicBool::new(false);
    let mut outcome = Outcome::default();
    let pause = |spins: u64| (0..spins).for_each(|_| spin_loop());
    thread::scope(|scope| {
        scope.spawn(|| {
            let _breaks = Breaks(&gate);
            let mut dice = Dice(0x9E37_79B9);
            loop {
                gate.meet(1);
                if over.load(SeqCst) {
                    return;
                }
                let session = slot.lock().unwrap().clone().unwrap();
                let delay = 1_000_u64.saturating_sub(lead.load(SeqCst)) + dice.roll(4);
                gate.meet(1);
                pause(delay);
                subject.reap(&session);
                gate.meet(1);
            }
        });
        let _breaks = Breaks(&gate);
        let mut dice = Dice(0x2545_F491);
        let mut last = None;
        for _ in 0..rounds {
            let session = subject.renew(last.take());
            *slot.lock().unwrap() = Some(Arc::clone(&session));
            gate.meet(0);
            let delay = lead.load(SeqCst).saturating_sub(1_000) + dice.roll(4);
            gate.meet(0);
            pause(delay);
            let guard = subject.enter(&session);
            let admitted = guard.is_some();
            // What was admitted reaches the server behind, where it must be alive until it ends.
            let mut torn = admitted && subject.is_closed(&session);
            if let Some(guard) = guard {
                pause(dice.roll(8));
                torn |= subject.is_closed(&session);
                subject.exit(&session, guard);
            }
            gate.meet(0);
            let closed = subject.is_closed(&session);
            let sound = !torn && closed != admitted && subject.is_sound(&session);
            outcome.violations += u64::from(!sound);
            outcome.entered += u64::from(admitted);
            outcome.expired += u64::from(!admitted);
            let now = lead.load(SeqCst);
            lead.store(if admitted { (now + 1).min(2_000) } else { now.saturating_sub(1) }, SeqCst);
            last = Some(session);
            if outcome.violations >= enough {
                break;
            }
        }
        over.store(true, SeqCst);
        gate.meet(0);
    });
    outcome
}

/// The real table, with one session in it at a time.
struct Table {
    registry: Arc<Registry>,
    time: Mock,
    opened: Arc<AtomicU64>,
    closed: Arc<AtomicU64>,
    made: AtomicU64,
}

const IDLE: Millis = 10;

impl Table {
    fn new() -> Self {
        let (opened, closed): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let hook: Hook = {
            let (opened, closed) = (Arc::clone(&opened), Arc::clone(&closed));
            Arc::new(move |event| {
                match event {
                    SessionEvent::Opened { .. } => opened.fetch_add(1, SeqCst),
                    SessionEvent::Closed { reason: CloseReason::Idle, .. } => {
                        closed.fetch_add(1, SeqCst)
                    }
                    other => panic!("neither opened nor expired: {other:?}"),
                };
            })
        };
        let time = time();
        let timeouts = Timeouts { idle: Some(IDLE), unused: Some(IDLE), lifetime: None };
        let registry = Registry::on(time.clock(), timeouts, limits(1), vec![hook]);
        Self { registry, time, opened, closed, made: AtomicU64::new(0) }
    }

    fn open(&self) -> Arc<Record> {
        let made = self.made.fetch_add(1, SeqCst);
        if made.is_multiple_of(1_024) {
            // Frees what the wheel holds of sessions that are gone.
            tick(&self.registry);
        }
        let opening = self.registry.begin_now(None).unwrap();
        let id = SessionId::new(made.to_string()).unwrap();
        let server = Terminator::new(Server::default());
        let in_flight = opening.complete(id, Issuer::Layer, server, Exit::Touch).unwrap();
        Arc::clone(in_flight.record())
    }
}

impl Subject for Table {
    type Session = Arc<Record>;
    type Guard = InFlight;

    fn renew(&self, last: Option<Arc<Self::Session>>) -> Arc<Self::Session> {
        let alive = last.filter(|record| !record.word().is_closed());
        let record = alive.unwrap_or_else(|| Arc::new(self.open()));
        let before = record.word().last_activity() + IDLE - 1;
        self.time.advance(before - self.time.now());
        record
    }

    fn enter(&self, session: &Self::Session) -> Option<InFlight> {
        self.registry.enter(session.id()?.as_bytes(), None).ok()
    }

    fn exit(&self, _: &Self::Session, guard: InFlight) {
        drop(guard);
    }

    fn reap(&self, session: &Self::Session) {
        self.time.advance(1);
        self.registry.look_at(session);
    }

    fn is_closed(&self, session: &Self::Session) -> bool {
        session.word().is_closed()
    }

    /// One close event for each that is closed, a permit for each that lives, nothing in flight.
    fn is_sound(&self, session: &Self::Session) -> bool {
        let (opened, closed) = (self.opened.load(SeqCst), self.closed.load(SeqCst));
        let live = u64::from(!self.is_closed(session));
        let found = session.id().is_some_and(|id| self.registry.find(id.as_bytes()).is_some());
        opened - closed == live
            && self.registry.permits().used() as u64 == live
            && found == (live == 1)
            && session.word().in_flight() == 0
    }
}

#[test]
fn of_a_request_and_the_reaper_at_the_deadline_exactly_one_wins() {
    let rounds = size("COLLISIONS", 4_000);
    let table = Table::new();
    let outcome = collide(&table, rounds, u64::MAX);
    println!("{rounds} collisions: {outcome:?}");
    assert_eq!(outcome.violations, 0, "{outcome:?}");
    assert!(outcome.entered.min(outcome.expired) > rounds / 50, "both won: {outcome:?}");
    table.time.advance(1_000_000);
    tick(&table.registry);
    tick(&table.registry);
    assert_eq!(table.registry.live(), 0);
    assert_eq!(table.registry.permits().used(), 0);
    assert_eq!(table.opened.load(SeqCst), table.closed.load(SeqCst));
}

/// The design that one word has replaced: counter and stamp apart.
struct TwoWords;

#[derive(Default)]
struct Apart {
    count: Line,
    stamp: Line,
}

const CLOSED: u64 = 1 << 32;

impl Subject for TwoWords {
    type Session = Apart;
    type Guard = ();

    fn renew(&self, _: Option<Arc<Apart>>) -> Arc<Apart> {
        Arc::default()
    }

    fn enter(&self, session: &Apart) -> Option<()> {
        (session.count.0.fetch_add(1, SeqCst) & CLOSED == 0).then_some(())
    }

    fn exit(&self, session: &Apart, (): ()) {
        session.stamp.0.fetch_max(IDLE - 1, SeqCst);
        session.count.0.fetch_sub(1, SeqCst);
    }

    /// Is it due by the stamp? Then close it, if the counter is zero.
    fn reap(&self, session: &Apart) {
        let due = session.stamp.0.load(SeqCst) + IDLE <= IDLE;
        if due {
            let _ = session.count.0.compare_exchange(0, CLOSED, SeqCst, SeqCst);
        }
    }

    fn is_closed(&self, session: &Apart) -> bool {
        session.count.0.load(SeqCst) & CLOSED != 0
    }
}

#[test]
fn the_collisions_above_find_what_is_wrong_with_two_words() {
    let outcome = collide(&TwoWords, 50_000_000, 1);
    println!("two words: {outcome:?}");
    assert_eq!(outcome.violations, 1, "{outcome:?}");
}

// --- many threads and everything at once ---------------------------------------------------------

/// The server behind: told of each session once at the most.
#[derive(Default)]
struct Server {
    told: Mutex<HashSet<String>>,
    twice: AtomicU64,
}

impl Terminate for Server {
    fn terminate(&self, session: Session) -> BoxFuture<'static, Terminated> {
        let id = session.id().unwrap().to_owned();
        if !self.told.lock().unwrap().insert(id) {
            self.twice.fetch_add(1, SeqCst);
        }
        Box::pin(ready(Terminated::Done))
    }
}

/// A session that others may touch.
type Slot = (String, Arc<Tally>);

/// One session, as the churn sees it.
#[derive(Default)]
struct Tally {
    in_flight: AtomicUsize,
    /// Reaped, not deleted.
    reaped: AtomicBool,
}

#[derive(Default)]
struct Book {
    tallies: DashMap<Fingerprint, Arc<Tally>>,
    /// I1: reaped with work in flight.
    torn: AtomicU64,
    /// I3: closed without having been opened, or twice.
    unpaired: AtomicU64,
}

impl Book {
    fn hear(&self, event: &SessionEvent) {
        match event {
            SessionEvent::Opened { session, .. } => {
                let before = self.tallies.insert(*session, Arc::default());
                self.unpaired.fetch_add(u64::from(before.is_some()), SeqCst);
            }
            SessionEvent::Closed { session, reason, .. } => {
                let Some((_, tally)) = self.tallies.remove(session) else {
                    self.unpaired.fetch_add(1, SeqCst);
                    return;
                };
                let spares = [CloseReason::Idle, CloseReason::Unused, CloseReason::Evicted];
                if spares.contains(reason) {
                    tally.reaped.store(true, SeqCst);
                    self.torn.fetch_add(u64::from(tally.in_flight.load(SeqCst) > 0), SeqCst);
                }
            }
            SessionEvent::Rejected { .. } => {}
        }
    }
}

struct Churn {
    registry: Arc<Registry>,
    time: Mock,
    book: Arc<Book>,
    server: Arc<Server>,
    slots: Vec<Mutex<Option<Slot>>>,
    reaper: Mutex<()>,
    made: AtomicU64,
    issued: AtomicU64,
    untold: AtomicU64,
    over_cap: AtomicU64,
    admitted: AtomicU64,
}

const CAP: usize = 48;

impl Churn {
    /// Opens sessions and does to all of them whatever can be done, until `sessions` were made.
    fn run(&self, thread: u64, sessions: u64, runtime: &tokio::runtime::Handle) {
        let _inside = runtime.enter();
        let mut dice = Dice(0x1234_5678 + thread * 0x9E37);
        while self.made.load(SeqCst) < sessions {
            self.open(&mut dice, runtime);
            for _ in 0..3 {
                self.touch(&mut dice);
            }
            // Between leaps of time the table is full, and somebody is evicted.
            if dice.roll(48) == 0 {
                self.time.advance(15 + dice.roll(40));
            }
            if dice.roll(16) == 0
                && let Ok(_alone) = self.reaper.try_lock()
            {
                tick(&self.registry);
            }
            // Also those that other threads are opening.
            if dice.roll(256) == 0 {
                let alice = Principal::from("alice");
                let of_alice = |owner: Option<&Principal>| owner == Some(&alice);
                self.registry.close_where(CloseReason::Requested, of_alice);
            }
            let stages = self.registry.permits().stages();
            let over = stages.iter().sum::<usize>() > CAP;
            self.over_cap.fetch_add(u64::from(over), SeqCst);
        }
    }

    fn open(&self, dice: &mut Dice, runtime: &tokio::runtime::Handle) {
        let principal = [None, Some(Principal::from("alice"))][dice.roll(2) as usize].clone();
        let begun = self.registry.begin_now(principal.clone());
        // Full: have one evicted, and wait for its permit.
        let begun = begun.or_else(|_| runtime.block_on(self.registry.begin(principal)));
        let Ok(opening) = begun else { return };
        let made = self.made.fetch_add(1, SeqCst);
        let id = made.to_string();
        let name = SessionId::new(&id).unwrap();
        let fingerprint = name.fingerprint();
        let issuer = if made.is_multiple_of(8) { Issuer::Inner } else { Issuer::Layer };
        self.issued.fetch_add(u64::from(issuer == Issuer::Inner), SeqCst);
        let server = Terminator::new(Arc::clone(&self.server));
        let in_flight = opening.complete(name, issuer, server, Exit::Stamp).unwrap();
        let tally = self.book.tallies.get(&fingerprint).map(|tally| Arc::clone(&tally));
        drop(in_flight);
        if let Some(tally) = tally {
            let slot = dice.roll(self.slots.len() as u64) as usize;
            *self.slots[slot].lock().unwrap() = Some((id, tally));
        }
    }

    fn touch(&self, dice: &mut Dice) {
        let slot = dice.roll(self.slots.len() as u64) as usize;
        let Some((id, tally)) = self.slots[slot].lock().unwrap().clone() else { return };
        let alice = Principal::from("alice");
        let entered = self.registry.enter(id.as_bytes(), None);
        let Ok(in_flight) = entered.or_else(|_| self.registry.enter(id.as_bytes(), Some(&alice)))
        else {
            return;
        };
        self.admitted.fetch_add(1, SeqCst);
        tally.in_flight.fetch_add(1, SeqCst);
        match dice.roll(12) {
            0 => {
                self.registry.close(in_flight.record(), CloseReason::Client);
            }
            1 => {
                let record = in_flight.record();
                let untold = self.registry.close_untold(record, CloseReason::Client);
                let counts = untold && !record.is_issued_by_layer();
                self.untold.fetch_add(u64::from(counts), SeqCst);
            }
            2 => thread::yield_now(),
            spins => (0..spins).for_each(|_| spin_loop()),
        }
        self.book.torn.fetch_add(u64::from(tally.reaped.load(SeqCst)), SeqCst);
        tally.in_flight.fetch_sub(1, SeqCst);
        if dice.roll(5) == 0 {
            let record = Arc::clone(in_flight.record());
            in_flight.end_quietly();
            self.registry.look_at(&record);
        }
    }
}

#[test]
fn sessions_that_are_made_touched_expired_and_deleted_at_once_leave_nothing() {
    let sessions = size("CHURNS", 2_000);
    let book: Arc<Book> = Arc::default();
    let ears = Arc::clone(&book);
    let hook: Hook = Arc::new(move |event| ears.hear(event));
    let time = time();
    let timeouts = Timeouts { idle: Some(30), unused: Some(20), lifetime: Some(2_000) };
    let churn = Churn {
        registry: Registry::on(time.clock(), timeouts, limits(CAP), vec![hook]),
        time,
        book,
        server: Arc::default(),
        slots: (0..32).map(|_| Mutex::default()).collect(),
        reaper: Mutex::default(),
        made: AtomicU64::new(0),
        issued: AtomicU64::new(0),
        untold: AtomicU64::new(0),
        over_cap: AtomicU64::new(0),
        admitted: AtomicU64::new(0),
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_time().build().unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (churn, runtime) = (&churn, runtime.handle());
            scope.spawn(move || churn.run(thread, sessions, runtime));
        }
    });
    churn.time.advance(1_000_000);
    while churn.registry.live() > 0 {
        // The runtime's own reaper may be at it as well.
        tick(&churn.registry);
    }
    let registry = &churn.registry;
    let waited = runtime.block_on(async {
        let all_back = async {
            while registry.permits().used() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all_back).await
    });
    let stats = registry.stats();
    let admitted = churn.admitted.load(SeqCst);
    println!("{sessions} sessions, {admitted} requests: {:?}", stats.closed);
    assert!(waited.is_ok(), "all permits are back: {stats:?}");
    assert_eq!(registry.records().len(), 0, "the table is empty");
    let book = &churn.book;
    assert_eq!(book.torn.load(SeqCst), 0, "reaped with work in flight");
    assert_eq!(book.unpaired.load(SeqCst), 0, "one close event for each open event");
    assert_eq!(book.tallies.len(), 0, "sessions without a close event");
    assert_eq!(churn.over_cap.load(SeqCst), 0, "the cap");
    assert_eq!(stats.opened, stats.closed.total());
    assert_eq!((stats.in_flight, stats.live, stats.opening, stats.closing), (0, 0, 0, 0));
    assert_eq!(churn.server.twice.load(SeqCst), 0, "told once at the most");
    let told = churn.server.told.lock().unwrap().len() as u64;
    assert_eq!(told, churn.issued.load(SeqCst) - churn.untold.load(SeqCst), "all were told");
    for reason in
        [CloseReason::Idle, CloseReason::Unused, CloseReason::Client, CloseReason::Evicted]
    {
        assert!(stats.closed.get(reason) > 0, "none closed as {reason}: {:?}", stats.closed);
    }
}
