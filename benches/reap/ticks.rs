//! Ticks, one after the other, at each of which the same share of all sessions is due.

use std::{
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use mcp_session_layer::bench::Core;

use super::{
    common::{Row, ids::Ids},
    peers::{IDLE, LAYER, Moka, Store, Walked, cap},
    times::{Times, on_cpu},
};

const SECOND: Duration = Duration::from_secs(1);

/// How much of what is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Runs, of which the median is told.
    pub runs: usize,
    /// Ticks in each.
    pub ticks: usize,
    /// How long moka's entries stay, at least.
    pub idle: Duration,
}

/// What a tick of the reaper took, poll by poll.
pub struct Polls {
    pub wall: Vec<Duration>,
    pub cpu: Vec<Duration>,
}

impl Polls {
    pub fn total(&self) -> Duration {
        self.wall.iter().sum()
    }
}

/// Runs a tick as a runtime would, and takes the time of each poll.
pub fn tick(core: &Core) -> Polls {
    let mut tick = pin!(core.tick());
    // Room for all: to grow among so much that was just freed takes the allocator longer than a poll.
    let polls = || Vec::with_capacity(16_384);
    let mut polls = Polls { wall: polls(), cpu: polls() };
    loop {
        let (on, begin) = (on_cpu(), Instant::now());
        let polled = tick.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        polls.wall.push(begin.elapsed());
        polls.cpu.push(on_cpu() - on);
        if polled == Poll::Ready(()) {
            return polls;
        }
    }
}

/// Which share of all sessions is due, and what is found then.
#[derive(Clone, Copy)]
enum Due {
    None,
    /// One in so many, which go.
    Gone(usize),
    /// One in so many, which were touched meanwhile and stay.
    Touched(usize),
}

impl Due {
    fn case(self) -> String {
        match self {
            Self::None => "nothing due".to_owned(),
            Self::Gone(part) => format!("{} % due", 100.0 / part as f64),
            Self::Touched(part) => format!("{} % looked at, none due", 100.0 / part as f64),
        }
    }

    fn part(self) -> usize {
        match self {
            Self::None => 0,
            Self::Gone(part) | Self::Touched(part) => part,
        }
    }
}

pub fn rows(ids: &Ids, effort: Effort) -> Vec<Row> {
    let cases = [Due::None, Due::Gone(1_000), Due::Gone(100), Due::Touched(100)];
    let layer = cases.into_iter().flat_map(|due| layer(ids, due, effort));
    let walked = cases.into_iter().take(3).flat_map(|due| walked(ids, due, effort));
    // It takes the real time that its entries are idle for.
    let moka = [Due::None, Due::Gone(100)].into_iter().map(|due| moka(ids, due, effort));
    layer.chain(walked).chain(moka).collect()
}

/// The median and the p99 of the ticks of each run.
fn summed(subject: &str, due: Due, ids: &Ids, runs: &[Times]) -> Vec<Row> {
    let row = |metric: &str, share: f64| {
        let runs: Vec<_> = runs.iter().map(|times| times.at(share) / 1e3).collect();
        Row::of(subject, &due.case(), ids.len() as u64, metric, &runs)
    };
    vec![row("µs a tick", 0.5), row("µs a tick, p99", 0.99)]
}

fn layer(ids: &Ids, due: Due, effort: Effort) -> Vec<Row> {
    let all: Vec<_> = ids.iter().collect();
    // A tick is a second, whatever the idle timeout is from 64 s on.
    let parts = match due.part() {
        0 => 1,
        part => part.min(all.len()),
    };
    let idle = match due {
        Due::None => IDLE,
        Due::Gone(_) => SECOND * parts as u32,
        // They are touched in time, once a turn, and looked at as often.
        Due::Touched(_) => SECOND * parts as u32 * 3 / 2,
    };
    let core = Core::on_mock_clock(cap(ids.len()), idle);
    let mut groups = all.chunks(all.len() / parts).take(parts).cycle();
    for group in groups.by_ref().take(parts) {
        group.iter().for_each(|id| core.open(id));
        core.advance(SECOND);
        tick(&core);
    }
    let touch = |group: &[&str]| {
        for id in group {
            black_box(core.touch(id));
        }
    };
    if matches!(due, Due::Touched(_)) {
        for group in groups.by_ref().take(parts) {
            touch(group);
            core.advance(SECOND);
            tick(&core);
        }
    }
    let (mut ticks, mut longest, mut on_cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.runs {
        let mut run = Vec::new();
        let (mut wall, mut cpu) = (Times::new(), Times::new());
        for _ in 0..effort.ticks {
            match due {
                Due::None => {}
                Due::Gone(_) => groups.next().unwrap().iter().for_each(|id| core.open(id)),
                Due::Touched(_) => touch(groups.next().unwrap()),
            }
            core.advance(SECOND);
            let polls = tick(&core);
            run.push(polls.total());
            polls.wall.into_iter().for_each(|poll| wall.add(poll));
            polls.cpu.into_iter().for_each(|poll| cpu.add(poll));
        }
        ticks.push(Times::of(run));
        longest.push(wall.longest() / 1e3);
        on_cpu.push(cpu.longest() / 1e3);
    }
    let gone = if let Due::Gone(_) = due { all.len() / parts } else { 0 };
    assert_eq!(core.live(), all.len() - gone, "{}", due.case());
    let sessions = all.len() as u64;
    let mut rows = summed(LAYER, due, ids, &ticks);
    rows.push(Row::of(LAYER, &due.case(), sessions, "µs, longest poll", &longest));
    rows.push(Row::of(LAYER, &due.case(), sessions, "µs, longest poll, on the CPU", &on_cpu));
    rows
}

/// All are walked at each tick, and it cannot let others run.
fn walked(ids: &Ids, due: Due, effort: Effort) -> Vec<Row> {
    let all: Vec<_> = ids.iter().collect();
    let parts = due.part().clamp(1, all.len());
    let map = Walked::new(ids.len());
    let mut groups = all.chunks(all.len() / parts).take(parts).cycle();
    let mut now = 0;
    for group in groups.by_ref().take(parts) {
        now += 1;
        group.iter().for_each(|id| map.open(id, now));
    }
    // A walk costs by the entry: fewer of them will do.
    let ticks = effort.ticks.min(100_000_000 / all.len() / effort.runs / 4).max(4);
    let runs = (0..effort.runs).map(|_| {
        let walks = (0..ticks).map(|_| {
            now += 1;
            let since = if parts == 1 { 0 } else { now - parts as u64 - 1 };
            if parts > 1 {
                groups.next().unwrap().iter().for_each(|id| map.open(id, now - 1));
            }
            let begin = Instant::now();
            map.retain(since);
            begin.elapsed()
        });
        Times::of(walks)
    });
    let runs: Vec<_> = runs.collect();
    black_box(map.live());
    summed(Walked::NAME, due, ids, &runs)
}

/// Everything is put in, half its time later all but the share is touched, and then the share's time
/// is over.
fn moka(ids: &Ids, due: Due, effort: Effort) -> Row {
    let all: Vec<_> = ids.iter().collect();
    let gone = due.part().checked_rem(all.len() + 1).filter(|&part| part > 0);
    let gone = gone.map_or(0, |part| all.len() / part);
    let mut idle = effort.idle.max(Duration::from_micros(8) * all.len() as u32);
    let mut runs = Vec::new();
    while runs.len() < effort.runs.min(3) {
        let cache = Moka::idle(ids.len(), idle);
        all.iter().for_each(|id| cache.open(id));
        cache.settle(all.len() as u64);
        let due_at = Instant::now() + idle;
        thread::sleep(idle / 2);
        all[gone..].iter().for_each(|id| {
            black_box(cache.touch(id));
        });
        thread::sleep(due_at.saturating_duration_since(Instant::now()));
        let begin = Instant::now();
        let calls = cache.settle((all.len() - gone) as u64);
        let took = begin.elapsed();
        // On a machine that is too slow, others have come of age too.
        if cache.live() == (all.len() - gone) as u64 {
            runs.push(took.as_secs_f64() * 1e6);
        } else {
            println!("moka: {} of {} left; again", cache.live(), all.len() - gone);
            idle *= 2;
        }
        black_box(calls);
    }
    Row::of(Moka::NAME, &due.case(), all.len() as u64, "µs a tick", &runs)
}
