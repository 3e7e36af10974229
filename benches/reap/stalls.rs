//! What a touch on another thread suffers while sessions go or come.

use std::{
    collections::HashMap,
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use mcp_session_layer::bench::Core;

use super::{
    common::{Row, ids::Ids, is_test},
    peers::{IDLE, LAYER, Locked, Moka, Sharded, Store, Walked, cap},
    ticks::{Effort, tick},
    times::{Gate, Times, touches},
};

const REST: Duration = Duration::from_millis(300);

/// What the touches of several runs were like.
struct Case<'a> {
    subject: &'a str,
    case: &'a str,
    sessions: u64,
    p999: Vec<f64>,
    longest: Vec<f64>,
}

impl<'a> Case<'a> {
    fn new(subject: &'a str, case: &'a str, sessions: u64) -> Self {
        Self { subject, case, sessions, p999: vec![], longest: vec![] }
    }

    fn add(&mut self, times: &Times) {
        // What is reaped of a small table is gone before the other thread has its turn.
        assert!(!times.is_empty() || is_test(), "nothing was touched: {}", self.case);
        self.p999.push(times.at(0.999));
        self.longest.push(times.longest() / 1e3);
    }

    fn rows(&self) -> [Row; 2] {
        let row = |metric: &str, runs: &[f64]| {
            Row::of(self.subject, self.case, self.sessions, metric, runs)
        };
        [row("ns a touch, p99.9", &self.p999), row("µs, longest touch", &self.longest)]
    }
}

/// `live` are touched all the time, while `ids` come and go.
pub fn rows(ids: &Ids, live: &Ids, effort: Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(reaping(ids, live, effort));
    rows.extend(retaining(ids, live, effort));
    rows.extend(expiring(ids, live, effort));
    opening::<Core>(ids, live, effort, &mut rows);
    opening::<Sharded>(ids, live, effort, &mut rows);
    opening::<Locked>(ids, live, effort, &mut rows);
    opening::<Moka>(ids, live, effort, &mut rows);
    rows
}

fn reaping(ids: &Ids, live: &Ids, effort: Effort) -> Vec<Row> {
    let case = |case| Case::new(LAYER, case, ids.len() as u64);
    let mut rest = case("at rest");
    let mut beside = case("at rest, the other core busy");
    let mut some = case("1 % due");
    let mut all = case("all due at once");
    let second = Duration::from_secs(1);
    let every: Vec<_> = ids.iter().collect();
    for _ in 0..effort.runs {
        // A hundredth of them a second, and those that stay last.
        let core = Core::on_mock_clock(cap(ids.len()), IDLE);
        for group in every.chunks(every.len().div_ceil(100)) {
            group.iter().for_each(|id| core.open(id));
            core.advance(second);
        }
        core.advance(second * 100);
        live.iter().for_each(|id| core.open(id));
        let touch = |next| core.touch(live.get(next));
        rest.add(&touches(touch, |gate| gate.during(|| thread::sleep(REST))).0);
        beside.add(&touches(touch, |gate| gate.during(busy)).0);
        core.advance(IDLE - second * 201);
        let (times, ()) = touches(touch, |gate| {
            // What the first turn of the wheel could not reach is armed again here.
            tick(&core);
            for _ in 0..100 {
                core.advance(second);
                gate.during(|| tick(&core));
            }
        });
        some.add(&times);
    }
    for _ in 0..effort.runs {
        let core = Core::on_mock_clock(cap(ids.len()), IDLE);
        ids.iter().for_each(|id| core.open(id));
        core.advance(IDLE);
        live.iter().for_each(|id| core.open(id));
        let touch = |next| core.touch(live.get(next));
        core.advance(second);
        all.add(&touches(touch, |gate| gate.during(|| tick(&core))).0);
        assert_eq!(core.live(), live.len());
    }
    [rest, beside, some, all].iter().flat_map(Case::rows).collect()
}

/// As much traffic in the memory as a reaper has, and none of it anybody else's.
fn busy() {
    let end = Instant::now() + REST;
    let mut map: HashMap<u64, Box<[u8; 128]>> = HashMap::new();
    let mut next = 1_u64;
    while Instant::now() < end {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        map.insert(next >> 44, Box::new([0; 128]));
    }
    black_box(map);
}

/// A walk over all that takes a lock for each shard.
fn retaining(ids: &Ids, live: &Ids, effort: Effort) -> Vec<Row> {
    let case = |case| Case::new(Walked::NAME, case, ids.len() as u64);
    let (mut rest, mut some, mut all) = (case("at rest"), case("1 % due"), case("all due at once"));
    for _ in 0..effort.runs {
        let map = Walked::new(ids.len());
        live.iter().for_each(|id| map.open(id, u64::MAX));
        ids.iter().enumerate().for_each(|(at, id)| map.open(id, (at % 100) as u64));
        let touch = |next| map.touch(live.get(next));
        rest.add(&touches(touch, |gate| gate.during(|| thread::sleep(REST))).0);
        let walks = |gate: &Gate| gate.during(|| (0..10).for_each(|since| map.retain(since)));
        some.add(&touches(touch, walks).0);
        all.add(&touches(touch, |gate| gate.during(|| map.retain(100))).0);
        assert_eq!(map.live(), live.len());
    }
    [rest, some, all].iter().flat_map(Case::rows).collect()
}

/// Its gets do the housekeeping themselves when it is due, so from before it is.
fn expiring(ids: &Ids, live: &Ids, effort: Effort) -> Vec<Row> {
    let case = |case| Case::new(Moka::NAME, case, ids.len() as u64);
    let (mut rest, mut all) = (case("at rest"), case("all due at once"));
    let idle = effort.idle.max(Duration::from_micros(5) * ids.len() as u32);
    for _ in 0..effort.runs.min(3) {
        let cache = Moka::idle(ids.len(), idle);
        ids.iter().for_each(|id| cache.open(id));
        live.iter().for_each(|id| cache.open(id));
        cache.settle((ids.len() + live.len()) as u64);
        let due = Instant::now() + idle;
        let touch = |next| cache.touch(live.get(next));
        let begin = REST.min(idle / 4);
        rest.add(&touches(touch, |gate| gate.during(|| thread::sleep(begin))).0);
        let (times, ()) = touches(touch, |gate| {
            thread::sleep(due.saturating_duration_since(Instant::now() + idle / 4));
            gate.during(|| {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                cache.settle(live.len() as u64);
            });
        });
        all.add(&times);
    }
    [rest, all].iter().flat_map(Case::rows).collect()
}

/// From none to all: the longest that one takes to open; and then, beside some that are touched, what
/// those touches take.
fn opening<S: Store>(ids: &Ids, live: &Ids, effort: Effort, rows: &mut Vec<Row>) {
    let sessions = ids.len() as u64;
    let mut case = Case::new(S::NAME, "while all are opened", sessions);
    let (mut longest, mut mean) = (vec![], vec![]);
    for _ in 0..effort.runs {
        let store = S::new(ids.len());
        let mut times = Times::new();
        let begin = Instant::now();
        for id in ids.iter() {
            let begin = Instant::now();
            store.open(id);
            times.add(begin.elapsed());
        }
        mean.push(begin.elapsed().as_secs_f64() * 1e9 / sessions as f64);
        longest.push(times.longest() / 1e3);
    }
    for _ in 0..effort.runs {
        let store = S::new(ids.len());
        live.iter().for_each(|id| store.open(id));
        let touch = |next| store.touch(live.get(next));
        let open = || ids.iter().for_each(|id| store.open(id));
        case.add(&touches(touch, |gate| gate.during(open)).0);
    }
    rows.extend(case.rows());
    rows.push(Row::of(S::NAME, "opened one by one", sessions, "ns an open", &mean));
    rows.push(Row::of(S::NAME, "opened one by one", sessions, "µs, longest open", &longest));
}
