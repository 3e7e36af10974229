//! All sessions are due at once, as when a whole fleet of clients has gone away.

use std::{
    thread,
    time::{Duration, Instant},
};

use mcp_session_layer::bench::Core;

use super::{
    common::{Row, ids::Ids},
    peers::{IDLE, LAYER, Moka, Store, Walked, cap},
    ticks::{Effort, tick},
    times::Times,
};

const CASE: &str = "all due at once";

/// The wheel turns in 1,023 s: what is due later is looked at then, and armed again.
const ONE_TURN: Duration = Duration::from_secs(1_023);

pub fn rows(ids: &Ids, effort: Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    layer(ids, effort, CASE, IDLE + Duration::from_secs(1), 0, &mut rows);
    layer(ids, effort, "all looked at at once, none due", ONE_TURN, ids.len(), &mut rows);
    walked(ids, effort, &mut rows);
    moka(ids, effort, &mut rows);
    rows
}

fn layer(ids: &Ids, effort: Effort, case: &str, after: Duration, left: usize, rows: &mut Vec<Row>) {
    let (mut totals, mut p99, mut longest, mut on_cpu) = (vec![], vec![], vec![], vec![]);
    for _ in 0..effort.runs {
        let core = Core::on_mock_clock(cap(ids.len()), IDLE);
        ids.iter().for_each(|id| core.open(id));
        core.advance(after);
        let polls = tick(&core);
        assert_eq!(core.live(), left);
        totals.push(polls.total().as_secs_f64() * 1e3);
        let wall = Times::of(polls.wall);
        p99.push(wall.at(0.99) / 1e3);
        longest.push(wall.longest() / 1e3);
        on_cpu.push(Times::of(polls.cpu).longest() / 1e3);
    }
    let mut row = |metric: &str, runs: &[f64]| {
        rows.push(Row::of(LAYER, case, ids.len() as u64, metric, runs));
    };
    row("ms for all", &totals);
    row("µs a poll, p99", &p99);
    row("µs, longest poll", &longest);
    row("µs, longest poll, on the CPU", &on_cpu);
}

/// One walk is one poll.
fn walked(ids: &Ids, effort: Effort, rows: &mut Vec<Row>) {
    let runs = (0..effort.runs).map(|_| {
        let map = Walked::new(ids.len());
        ids.iter().for_each(|id| map.open(id, 0));
        let begin = Instant::now();
        map.retain(1);
        let took = begin.elapsed();
        assert_eq!(map.live(), 0);
        took.as_secs_f64() * 1e3
    });
    let runs: Vec<_> = runs.collect();
    let polls: Vec<_> = runs.iter().map(|millis| millis * 1e3).collect();
    let sessions = ids.len() as u64;
    rows.push(Row::of(Walked::NAME, CASE, sessions, "ms for all", &runs));
    rows.push(Row::of(Walked::NAME, CASE, sessions, "µs, longest poll", &polls));
}

/// One call of its housekeeping is one poll.
fn moka(ids: &Ids, effort: Effort, rows: &mut Vec<Row>) {
    let idle = effort.idle.max(Duration::from_micros(5) * ids.len() as u32);
    let (mut totals, mut longest) = (vec![], vec![]);
    for _ in 0..effort.runs.min(3) {
        let cache = Moka::idle(ids.len(), idle);
        ids.iter().for_each(|id| cache.open(id));
        cache.settle(ids.len() as u64);
        thread::sleep(idle);
        let calls = cache.settle(0);
        totals.push(calls.iter().sum::<Duration>().as_secs_f64() * 1e3);
        longest.push(Times::of(calls).longest() / 1e3);
    }
    let sessions = ids.len() as u64;
    rows.push(Row::of(Moka::NAME, CASE, sessions, "ms for all", &totals));
    rows.push(Row::of(Moka::NAME, CASE, sessions, "µs, longest poll", &longest));
}
