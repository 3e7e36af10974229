//! The core against an oracle: after each operation, everything that can be seen of both is the same.
//!
//! The real registry, wheel, reaper, closer and admission run on a clock that the model moves, with a
//! server behind that the model answers for, and on no thread but this. The oracle is a map and a
//! few plain rules. Which operations come in which order is said by proptest ([`machine`]) or by a
//! fuzzer (`crate::fuzzing`).
//!
//! What is compared: the outcome of the operation, the events (each of them, with reason, age and
//! requests), who is told, the table, each session's counts, the permits, and at the end that
//! nothing is left: no permit, no entry in the wheel, no record in memory.

#![allow(clippy::expect_used, clippy::panic, reason = "a comparison that fails must end the run")]

mod config;
mod known;
#[cfg(test)]
mod machine;
mod operation;
mod oracle;
mod real;

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

pub(crate) use self::{
    config::{CONFIG, Config},
    known::Known,
    operation::{OPERATION, Operation},
};
use self::{
    oracle::{Answer, Oracle, Phase, Serial, Who},
    real::{Cuttable, Guard, Real, Stream, principal, session_id},
};
use super::{
    activity::Exit,
    clock::Millis,
    closer::{Terminated, Terminator},
    events::CloseReason,
    guard::InFlight,
    handle::Session,
    opening::Issuer,
    registry::Mode,
    streams::{Grip, Lease, OpenStream, StreamSeat},
};
use crate::protocol::Rejection;

/// Ids that come again; the others are used once.
const COMMON_IDS: u8 = 6;

/// Ticks that are walked one by one; more are one jump, as if the reaper had been kept from running.
const STEPS: u64 = 80;

/// No jump is longer: the clock counts 34 years.
const LONGEST_JUMP: Millis = 1 << 32;

/// The core and its oracle.
pub(crate) struct Pair {
    config: Config,
    real: Real,
    oracle: Oracle,
    begun: Serial,
}

impl Pair {
    pub(crate) fn new(config: Config) -> Self {
        let (real, oracle) = (Real::new(&config), Oracle::new(config));
        (0..COMMON_IDS).for_each(|id| drop(session_id(&format!("common-{id}"))));
        Self { config, real, oracle, begun: 0 }
    }

    /// Does it to both, and compares.
    pub(crate) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Begin { who } => self.begin(self::who(who)),
            Operation::Open { who, counts } => self.open(who, counts),
            Operation::BeginNow { who } => self.begin_now(self::who(who)),
            Operation::Leave { waiter } => {
                if let Some(at) = pick(waiter, self.real.waiters.len()) {
                    let (serial, _) = self.real.waiters.remove(at);
                    self.oracle.left(serial);
                }
            }
            Operation::Name { opening, id } => self.name(opening, id),
            Operation::Complete { opening, id, by_layer, counts } => {
                self.complete(opening, id, by_layer, counts);
            }
            Operation::Abandon { opening } => {
                if let Some(at) = pick(opening, self.real.openings.len()) {
                    let (serial, opening) = self.real.openings.remove(at);
                    drop(opening);
                    self.oracle.abandoned(serial);
                }
            }
            Operation::EndAtServer { opening, id } => {
                if let Some(at) = pick(opening, self.real.openings.len()) {
                    let id = self.id(id);
                    let (serial, opening) = self.real.openings.remove(at);
                    let terminate = Terminator::new(Arc::clone(&self.real.server));
                    opening.end_at_server(session_id(&id), terminate);
                    self.oracle.unwanted(serial, id);
                }
            }
            Operation::Enter { session, stranger } => self.enter(session, stranger),
            Operation::Exit { guard } => {
                if let Some(at) = pick(guard, self.real.guards.len()) {
                    let Guard { serial, uses, in_flight } = self.real.guards.remove(at);
                    drop(in_flight);
                    self.oracle.exit(serial, true, uses);
                }
            }
            Operation::Quit { guard } => self.quit(guard),
            Operation::Stream { guard, is_get } => self.stream(guard, is_get),
            Operation::End { stream } => {
                if let Some(at) = pick(stream, self.real.streams.len()) {
                    let stream = self.real.streams.remove(at);
                    self.end(stream);
                }
            }
            Operation::Hold { session } => self.hold(session),
            Operation::Release { hold } => {
                if let Some(at) = pick(hold, self.real.holds.len()) {
                    let (serial, hold) = self.real.holds.remove(at);
                    drop(hold);
                    self.oracle.exit(serial, true, false);
                }
            }
            Operation::Close { session, why } => self.close(session, why),
            Operation::CloseOf { who } => {
                let who = self::who(who);
                let principal = principal(who);
                let closed = self
                    .real
                    .registry
                    .close_where(CloseReason::Requested, |owner| owner == principal.as_ref());
                let expected =
                    self.oracle.close_where(CloseReason::Requested, |entry| entry.who == who);
                assert_eq!(closed, expected, "sessions of one principal closed");
            }
            Operation::CloseAll => {
                let closed = self.real.registry.close_where(CloseReason::Requested, |_| true);
                let expected = self.oracle.close_where(CloseReason::Requested, |_| true);
                assert_eq!(closed, expected, "sessions closed");
            }
            Operation::Answer { telling, how } => self.answer(telling, how),
            Operation::EndUnclaimed { id, who } => {
                let who = self::who(who);
                if self.oracle.unclaimed(who) < 10 {
                    let id = self.id(id);
                    let terminate = Terminator::new(Arc::clone(&self.real.server));
                    let principal = principal(who);
                    let registry = &self.real.registry;
                    registry.end_unclaimed(session_id(&id), terminate, principal.as_ref(), |_| {});
                    self.oracle.end_unclaimed(id, who);
                }
            }
            Operation::Wait { span } => self.wait(span),
            Operation::Run { span } => self.run(span),
            Operation::Approach { session, offset, reaps } => {
                self.approach(session, offset, reaps);
            }
            Operation::Drain => {
                self.real.registry.set_mode(Mode::Draining);
                if self.oracle.mode == Mode::Serving {
                    self.oracle.mode = Mode::Draining;
                }
            }
            Operation::ShutDown => self.shut_down(),
        }
        self.settle();
        self.compare();
    }

    // --- operations ------------------------------------------------------------------------------

    fn begin(&mut self, who: Who) {
        let serial = self.next();
        let begun = self.real.begin(serial, who);
        self.hear();
        assert_eq!(begun, self.oracle.begin(serial, who), "an initialize");
    }

    fn open(&mut self, who: u8, counts: bool) {
        let before = self.real.openings.len();
        self.apply(Operation::Begin { who });
        if let Some(last) = self.real.openings.len().checked_sub(1).filter(|last| *last == before) {
            let opening = last as u8;
            self.apply(Operation::Complete { opening, id: u8::MAX, by_layer: false, counts });
            let guard = (self.real.guards.len() - 1) as u8;
            self.apply(Operation::Exit { guard });
        }
    }

    fn begin_now(&mut self, who: Who) {
        let serial = self.next();
        let begun = self.real.registry.begin_now(principal(who));
        let begun = self.real.begun(serial, begun);
        self.hear();
        assert_eq!(begun, self.oracle.begin_now(serial, who), "a session that may not wait");
    }

    fn next(&mut self) -> Serial {
        self.begun += 1;
        self.begun
    }

    /// A common id, or one that nobody has had.
    fn id(&mut self, id: u8) -> String {
        if id < 96 {
            return format!("common-{}", id % COMMON_IDS);
        }
        let serial = self.next();
        format!("own-{serial}")
    }

    fn name(&mut self, opening: u8, id: u8) {
        let Some(at) = pick(opening, self.real.openings.len()) else { return };
        let name = self.id(id);
        let (serial, opening) = &self.real.openings[at];
        opening.name(session_id(&name));
        let entry = self.oracle.sessions.get_mut(serial).expect("it was begun");
        entry.id.get_or_insert(name);
    }

    fn complete(&mut self, opening: u8, id: u8, by_layer: bool, counts: bool) {
        let Some(at) = pick(opening, self.real.openings.len()) else { return };
        let id = self.id(id);
        let (serial, opening) = self.real.openings.remove(at);
        let issuer = if by_layer { Issuer::Layer } else { Issuer::Inner };
        let exit = if counts { Exit::Touch } else { Exit::Stamp };
        let terminate = Terminator::new(Arc::clone(&self.real.server));
        let completed = opening.complete(session_id(&id), issuer, terminate, exit);
        self.hear();
        let expected = self.oracle.completed(serial, &id, by_layer);
        assert_eq!(completed.is_ok(), expected, "whether {id} is free");
        let Ok(in_flight) = completed else { return };
        if let Some(trace) = self.real.traces.get_mut(&serial) {
            trace.record = Arc::downgrade(in_flight.record());
        }
        self.real.guards.push(Guard { serial, uses: counts, in_flight });
    }

    fn enter(&mut self, session: u8, stranger: bool) {
        let (id, mut who) = match self.known(session) {
            Some(serial) => {
                let entry = &self.oracle.sessions[&serial];
                (entry.id.clone().unwrap_or_default(), entry.who)
            }
            None => (format!("common-{}", session % COMMON_IDS), None),
        };
        if stranger {
            who = self::who(session);
        }
        let entered = self.real.registry.enter(id.as_bytes(), principal(who).as_ref());
        self.hear();
        let expected = self.oracle.enter(&id, who);
        match (entered, expected) {
            (Ok(in_flight), Some(serial)) => {
                self.real.guards.push(Guard { serial, uses: true, in_flight });
            }
            (Err(rejection), None) => {
                assert_eq!(rejection, Rejection::SessionNotFound, "why {id} is refused");
            }
            (entered, expected) => panic!("{id}: {entered:?}, but expected {expected:?}"),
        }
    }

    fn quit(&mut self, guard: u8) {
        let Some(at) = pick(guard, self.real.guards.len()) else { return };
        let Guard { serial, in_flight, .. } = self.real.guards.remove(at);
        // As the middleware does it.
        let record = Arc::clone(in_flight.record());
        in_flight.end_quietly();
        self.real.registry.look_at(&record);
        self.oracle.exit(serial, false, false);
        self.oracle.look(serial);
    }

    fn stream(&mut self, guard: u8, is_get: bool) {
        let Some(at) = pick(guard, self.real.guards.len()) else { return };
        if !self.real.guards[at].uses {
            return;
        }
        let Guard { serial, in_flight, .. } = self.real.guards.remove(at);
        let entry = self.oracle.sessions.get_mut(&serial).expect("it was entered");
        let is_closed = entry.is_closed();
        let mut seat = None;
        if is_get {
            seat = StreamSeat::take(in_flight.record(), self.config.max_streams);
            let expected = !is_closed && entry.seats < self.config.max_streams;
            assert_eq!(seat.is_some(), expected, "a seat for a stream");
            if seat.is_none() {
                self.real.guards.push(Guard { serial, uses: true, in_flight });
                return;
            }
        }
        let body = Arc::new(Cuttable::default());
        let weak: Weak<Cuttable> = Arc::downgrade(&body);
        let weak: Weak<dyn OpenStream> = weak;
        let lease = Lease::list(Grip::InFlight(in_flight), weak, seat);
        assert_eq!(lease.is_none(), is_closed, "a stream of a closed session is not listed");
        let Some(lease) = lease else { return };
        entry.streams += 1;
        entry.seats += usize::from(is_get);
        self.real.streams.push(Stream { serial, body, is_get, _lease: lease });
    }

    fn end(&mut self, stream: Stream) {
        let (serial, is_get) = (stream.serial, stream.is_get);
        drop(stream);
        let entry = self.oracle.sessions.get_mut(&serial).expect("it was entered");
        entry.streams -= 1;
        entry.seats -= usize::from(is_get);
        self.oracle.exit(serial, true, true);
    }

    fn hold(&mut self, session: u8) {
        let Some(serial) = self.begun_at(session) else { return };
        let held = self.real.traces[&serial].session.hold();
        self.hear();
        assert_eq!(held.is_ok(), self.oracle.hold(serial), "a hold of {serial}");
        self.real.holds.extend(held.ok().map(|hold| (serial, hold)));
    }

    fn close(&mut self, session: u8, why: u8) {
        let Some(serial) = self.begun_at(session) else { return };
        let session = &self.real.traces[&serial].session;
        let guard = self.real.guards.iter().find(|guard| guard.serial == serial);
        let record = guard.map(|guard| InFlight::record(&guard.in_flight));
        let registry = &self.real.registry;
        // Requests close what they are in; everybody else has a handle.
        let (closed, reason, tell) = match (record, why % 4) {
            (Some(record), 0) => {
                (registry.close_untold(record, CloseReason::Client), CloseReason::Client, false)
            }
            (Some(record), 1) => {
                (registry.close(record, CloseReason::Inner), CloseReason::Inner, true)
            }
            (Some(record), 2) => {
                (registry.close(record, CloseReason::Abandoned), CloseReason::Abandoned, true)
            }
            _ => (session.close(), CloseReason::Requested, true),
        };
        self.hear();
        assert_eq!(closed, self.oracle.close(serial, reason, tell), "a close of {serial}");
    }

    fn answer(&mut self, telling: u8, how: u8) {
        let count = self.real.server.calls().len();
        let Some(at) = pick(telling, count) else { return };
        let id = self.real.server.calls()[at].id.clone();
        // As many are retried as may be under way at once: none waits for another.
        let (outcome, answer) = match how % 8 {
            2 | 6 if self.oracle.retrying().len() < 16 => {
                (Terminated::Refused(500), Answer::Failed)
            }
            3 if self.oracle.retrying().len() < 16 => (Terminated::Failed, Answer::Failed),
            7 => (Terminated::Refused(401), Answer::Refused),
            _ => (Terminated::Done, Answer::Done),
        };
        self.real.answer(&id, outcome);
        self.oracle.answered(&id, answer);
    }

    fn shut_down(&mut self) {
        if self.oracle.mode == Mode::ShutDown {
            return;
        }
        self.real.shut_down();
        self.oracle.mode = Mode::ShutDown;
        self.oracle.close_where(CloseReason::Shutdown, |_| true);
    }

    // --- time ------------------------------------------------------------------------------------

    fn wait(&mut self, span: Millis) {
        self.real.time.advance(span);
        self.oracle.now += span;
        assert_eq!(self.real.time.now(), self.oracle.now);
    }

    /// The reaper is woken on its grid, and at each tick what has expired by then is gone.
    fn run(&mut self, span: Millis) {
        let (tick, end) = (self.config.tick(), self.oracle.now + span);
        if span / tick > STEPS {
            self.wait(end / tick * tick - self.oracle.now);
            self.reap();
        }
        loop {
            let next = (self.oracle.now / tick + 1) * tick;
            if next > end {
                return self.wait(end - self.oracle.now);
            }
            self.wait(next - self.oracle.now);
            self.reap();
        }
    }

    fn reap(&mut self) {
        self.real.reap();
        self.hear();
        self.oracle.reap();
        self.settle();
    }

    fn approach(&mut self, session: u8, offset: i8, reaps: bool) {
        let live: Vec<_> = self.oracle.live().map(|(serial, _)| serial).collect();
        let Some(at) = pick(session, live.len()) else { return };
        let mut live = live;
        live.sort_unstable();
        let Some((end, _)) = self.oracle.deadline(live[at]) else { return };
        let span = end.saturating_add_signed(offset.into()).saturating_sub(self.oracle.now);
        match span {
            LONGEST_JUMP.. => {}
            _ if reaps => self.run(span),
            _ => self.wait(span),
        }
    }

    // --- comparing -------------------------------------------------------------------------------

    /// Has the oracle know what was heard, for what it leaves open.
    fn hear(&mut self) {
        let heard = self.real.heard();
        self.oracle.heard.extend(heard);
    }

    /// What was heard is what was to be heard.
    fn agree(&mut self) {
        self.hear();
        let mut heard = std::mem::take(&mut self.oracle.heard);
        for expected in std::mem::take(&mut self.oracle.expected) {
            let at = heard.iter().position(|heard| *heard == expected);
            let at = at.unwrap_or_else(|| panic!("not heard: {expected:?}, but {heard:?}"));
            heard.swap_remove(at);
        }
        assert!(heard.is_empty(), "heard beyond what was expected: {heard:?}");
    }

    /// Lets all that was set off come to rest.
    fn settle(&mut self) {
        loop {
            self.agree();
            self.oracle.begin_tellings();
            self.real.drive();
            let resolved = self.real.retry();
            self.hear();
            let is_quiet = resolved.is_empty() && self.oracle.heard.is_empty();
            assert_eq!(resolved, self.oracle.retry(), "what those who waited got");
            if is_quiet {
                return self.agree();
            }
        }
    }

    fn compare(&mut self) {
        let mut expected = BTreeMap::new();
        for (_, entry) in self.oracle.live() {
            let idle = if entry.in_flight > 0 { 0 } else { self.oracle.now - entry.last };
            let seen = (entry.in_flight, entry.requests, entry.streams, idle);
            expected.insert(entry.id.clone().unwrap_or_default(), (entry.who, seen));
        }
        let mut found = BTreeMap::new();
        for record in self.real.registry.records() {
            let session = Session::of(&record);
            let info = session.info();
            let idle = info.idle_for.as_millis() as Millis;
            let seen = (info.in_flight, info.requests, info.streams, idle);
            let who = (0..3).find(|who| principal(Some(*who)).as_ref() == record.principal());
            let id = session.id().unwrap_or_default().to_owned();
            assert!(found.insert(id, (who, seen)).is_none(), "an id stands in the table once");
        }
        assert_eq!(found, expected, "the table: who, in flight, requests, streams, idle");
        self.compare_counts();
        self.compare_traces();
        let mut told: Vec<_> =
            self.real.server.calls().iter().map(|call| call.id.clone()).collect();
        let mut to_tell: Vec<_> = self.oracle.tellings.iter().map(|one| one.id.clone()).collect();
        told.sort_unstable();
        to_tell.sort_unstable();
        assert_eq!(told, to_tell, "what the server behind is being told");
        for id in 0..COMMON_IDS {
            let id = format!("common-{id}");
            let found = self.real.registry.find(id.as_bytes()).is_some();
            assert_eq!(found, self.oracle.find(&id).is_some(), "whether {id} is found");
            let buried = self.real.registry.was_closed(&session_id(&id));
            assert_eq!(buried, self.oracle.buried.contains(&id), "whether {id} was closed here");
        }
    }

    fn compare_counts(&mut self) {
        let (stats, oracle) = (self.real.registry.stats(), &self.oracle);
        let stages = [stats.opening, stats.live, stats.closing];
        let expected = [oracle.count(Phase::Opening), oracle.count(Phase::Live), oracle.closing()];
        assert_eq!(stages, expected, "opening, live, closing");
        assert!(stages.iter().sum::<usize>() <= self.config.cap, "the cap");
        assert_eq!(stats.opened, oracle.opened, "opened");
        for (reason, count) in stats.closed.iter() {
            let expected = oracle.closed.get(&reason).copied().unwrap_or_default();
            assert_eq!(count, expected, "closed: {reason}");
        }
        let in_flight: u64 = oracle.live().map(|(_, entry)| entry.in_flight).sum();
        let streams: usize = oracle.live().map(|(_, entry)| entry.streams).sum();
        assert_eq!((stats.in_flight, stats.streams), (in_flight, streams), "in flight, streams");
        assert_eq!(stats.terminate_failures, oracle.failures, "failures");
        assert_eq!((stats.retrying, stats.unended), (oracle.retrying().len(), oracle.given_up));
        let unended = self.real.registry.unended().into_iter();
        let mut failed: Vec<_> =
            unended.filter(|one| one.retrying).map(|one| one.attempts).collect();
        failed.sort_unstable();
        assert_eq!(failed, oracle.retrying(), "attempts of those that are retried");
        for who in [None, Some(0), Some(1), Some(2)] {
            let unclaimed = self.real.registry.unclaimed(principal(who).as_ref());
            assert_eq!(unclaimed, oracle.unclaimed(who), "ends without a permit: {who:?}");
        }
        if let Some(mut end) = self.real.end.take() {
            let is_over = self.real.poll(end.as_mut()).is_ready();
            let is_told = oracle.used() == 0 && oracle.all_unclaimed() == 0;
            assert_eq!(is_over, is_told, "a shutdown waits for the server behind");
            self.real.end = (!is_over).then_some(end);
        }
    }

    fn compare_traces(&mut self) {
        for (serial, entry) in &self.oracle.sessions {
            let Some(trace) = self.real.traces.get_mut(serial) else { continue };
            assert_eq!(trace.session.is_closed(), entry.is_closed(), "whether {serial} is closed");
            let over = entry.phase == Phase::Closed;
            if !trace.was_closed {
                let waker = &mut std::task::Context::from_waker(std::task::Waker::noop());
                trace.was_closed = trace.closed.as_mut().poll(waker).is_ready();
            }
            assert_eq!(trace.was_closed, over, "whether closed() of {serial} has resolved");
            let kept = Arc::strong_count(&trace.token) > 1;
            assert_eq!(kept, self.oracle.keeps_state(*serial), "whether {serial} has its state");
        }
        for stream in &self.real.streams {
            let is_closed = self.oracle.sessions[&stream.serial].is_closed();
            let drained = stream.is_get && self.oracle.mode == Mode::ShutDown;
            assert!(stream.body.is_cut() == is_closed || drained, "a stream is cut by the close");
        }
    }

    /// Ends everything, and looks for what is left.
    pub(crate) fn finish(mut self) {
        while !self.real.guards.is_empty() {
            self.apply(Operation::Exit { guard: 0 });
        }
        while !self.real.holds.is_empty() {
            self.apply(Operation::Release { hold: 0 });
        }
        while !self.real.streams.is_empty() {
            self.apply(Operation::End { stream: 0 });
        }
        while !self.real.waiters.is_empty() {
            self.apply(Operation::Leave { waiter: 0 });
        }
        while !self.real.openings.is_empty() {
            self.apply(Operation::Abandon { opening: 0 });
        }
        self.answer_all();
        self.expire_all();
        let Self { real, mut oracle, .. } = self;
        // The last handle goes: what is live is closed by it.
        oracle.close_where(CloseReason::Shutdown, |_| true);
        oracle.repeat();
        let left = real.leave();
        assert_eq!(left.heard.len(), oracle.expected.len(), "closed by the end");
        for one in &oracle.expected {
            assert!(left.heard.contains(one), "not heard at the end: {one:?}");
        }
        let (told, to_tell) = (left.told.len(), oracle.tellings.len());
        assert_eq!(told, to_tell, "told at the end");
        assert_eq!(left.registries, 0, "the registry is gone");
        assert_eq!(left.permits, 0, "all permits are back");
        assert_eq!(left.records, 0, "every record is gone");
    }

    fn answer_all(&mut self) {
        while !self.real.server.calls().is_empty() {
            self.apply(Operation::Answer { telling: 0, how: 0 });
        }
    }

    /// With nothing in flight, time alone empties the table.
    fn expire_all(&mut self) {
        let deadlines: Option<Vec<_>> =
            self.oracle.live().map(|(serial, _)| self.oracle.deadline(serial)).collect();
        let last = deadlines.and_then(|all| all.into_iter().map(|(end, _)| end).max());
        let Some(end) = last.filter(|end| end.saturating_sub(self.oracle.now) < LONGEST_JUMP)
        else {
            return;
        };
        self.run(end.saturating_sub(self.oracle.now) + self.config.tick());
        assert_eq!(self.real.registry.live(), 0, "nothing outlives its deadline and a tick");
        self.answer_all();
        while let Some(due) = self.oracle.next_retry() {
            self.run(due.saturating_sub(self.oracle.now) + self.config.tick());
            self.answer_all();
        }
        // Once around: whatever the wheel still has are husks.
        self.run(self.config.tick() * 1_024 * 2);
        assert_eq!(self.real.registry.wheel().len(), 0, "nothing is left in the wheel");
        self.compare();
    }
}

fn who(byte: u8) -> Who {
    (byte % 4).checked_sub(1)
}

fn pick(selector: u8, count: usize) -> Option<usize> {
    usize::from(selector).checked_rem(count)
}

impl Pair {
    /// One of those that have been open, or are opening; the latest are likelier.
    fn begun_at(&self, selector: u8) -> Option<Serial> {
        let mut all: Vec<_> = self.real.traces.keys().copied().collect();
        all.sort_unstable();
        let recent = all.len().saturating_sub(16);
        pick(selector, all.len() - recent).map(|at| all[recent + at])
    }

    /// One that has had an id.
    fn known(&self, selector: u8) -> Option<Serial> {
        self.begun_at(selector).filter(|serial| self.oracle.sessions[serial].id.is_some())
    }
}
