//! Many durations, of which the rare long ones are what is asked for.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// To the nanosecond below a millisecond.
const FINE: usize = 1_000_000;

pub struct Times {
    fine: Vec<u32>,
    /// Those of a millisecond and more.
    long: Vec<u64>,
    count: u64,
}

impl Times {
    pub fn new() -> Self {
        Self { fine: vec![0; FINE], long: Vec::new(), count: 0 }
    }

    pub fn of(all: impl IntoIterator<Item = Duration>) -> Self {
        let mut times = Self::new();
        all.into_iter().for_each(|one| times.add(one));
        times
    }

    pub fn add(&mut self, time: Duration) {
        let nanos = time.as_nanos() as u64;
        match self.fine.get_mut(nanos as usize) {
            Some(count) => *count += 1,
            None => self.long.push(nanos),
        }
        self.count += 1;
    }

    /// The time, in ns, that this share of all is not above.
    pub fn at(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        for (nanos, &count) in self.fine.iter().enumerate() {
            below += u64::from(count);
            if below >= rank {
                return nanos as f64;
            }
        }
        let mut long = self.long.clone();
        long.sort_unstable();
        let at = (rank - below - 1) as usize;
        long.get(at).or(long.last()).copied().unwrap_or_default() as f64
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn longest(&self) -> f64 {
        self.at(1.0)
    }
}

/// What the thread that touches does.
pub struct Gate(AtomicU8);

const WAIT: u8 = 0;
const RECORD: u8 = 1;
const STOP: u8 = 2;

impl Gate {
    /// What is touched while `work` runs is recorded.
    pub fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        self.0.store(RECORD, Ordering::SeqCst);
        let result = work();
        self.0.store(WAIT, Ordering::SeqCst);
        result
    }
}

/// Touches again and again on another thread, and records how long each took while the gate that
/// `work` is given is open. A touch is given a number that depends on what the last one found.
pub fn touches<R>(touch: impl Fn(u64) -> u64 + Send, work: impl FnOnce(&Gate) -> R) -> (Times, R) {
    let (gate, start) = (Gate(AtomicU8::new(WAIT)), Barrier::new(2));
    thread::scope(|scope| {
        let (gate, start) = (&gate, &start);
        let touching = scope.spawn(move || {
            let (mut times, mut next) = (Times::new(), 1_u64);
            start.wait();
            loop {
                let state = gate.0.load(Ordering::Relaxed);
                if state == STOP {
                    return times;
                }
                let begin = Instant::now();
                let found = touch(next);
                let took = begin.elapsed();
                // One that began before the work did and ends after it may be the worst of all.
                if state == RECORD || gate.0.load(Ordering::Relaxed) == RECORD {
                    times.add(took);
                }
                next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(found | 1);
            }
        });
        start.wait();
        // Until what it needs is in its caches.
        thread::sleep(Duration::from_millis(20));
        let result = work(gate);
        gate.0.store(STOP, Ordering::SeqCst);
        let times = touching.join().unwrap();
        (times, result)
    })
}

/// Time that this thread had a processor for: what others take from it is not counted, and neither
/// is what it waits for.
#[cfg(target_os = "linux")]
pub fn on_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
