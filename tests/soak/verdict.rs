//! What is wrong, if anything is.

use std::fmt;

use crate::wave::{Target, Wave};

/// Waves before the last two thirds warm up: tables, pools and the allocator find their size.
const THIRDS: usize = 3;

/// What the heap may hold more at rest in the last third of the waves than in the second. It is
/// counted to the byte, and what stays is the capacity of tables and queues, which doubles when a
/// wave was higher than those before.
const HEAP_SLACK: usize = 1 << 20;
/// What the resident set may be more. The allocator keeps freed pages, in whatever arena they are.
const RESIDENT_SLACK: usize = 4 << 20;
/// In a hundred.
const RESIDENT_SHARE: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    WrongNotFound,
    Undead,
    Unexpected,
    NotAtRest,
    Untold,
    Descriptors,
    Tasks,
    Heap,
    Resident,
    TooLittleLoad,
}

#[derive(Clone, Debug)]
pub struct Complaint {
    pub fault: Fault,
    pub what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.fault, self.what)
    }
}

/// The least that most waves must have been, or the run says less than it seems to.
#[derive(Clone, Copy, Debug)]
pub struct Least {
    pub streams: usize,
    pub posts_per_second: usize,
}

pub fn of_wave(wave: &Wave, target: &Target) -> Vec<Complaint> {
    let n = wave.number;
    let tally = &wave.tally;
    let mut found = Vec::new();
    let mut complain = |is_so: bool, fault: Fault, what: String| {
        if is_so {
            found.push(Complaint { fault, what: format!("wave {n}: {what}") });
        }
    };
    let lost = tally.lost_wrongly;
    complain(lost > 0, Fault::WrongNotFound, format!("{lost} 404s for sessions that were live"));
    let undead = tally.undead;
    complain(undead > 0, Fault::Undead, format!("{undead} of dead sessions answered"));
    let unexpected = &tally.unexpected;
    complain(!unexpected.is_empty(), Fault::Unexpected, format!("{unexpected:?}"));
    let left: Vec<_> = wave.left.rest().into_iter().filter(|(_, count)| *count > 0).collect();
    complain(!left.is_empty() || wave.drained_in.is_none(), Fault::NotAtRest, format!("{left:?}"));
    let (opened, closed) = (wave.left.opened, wave.left.closed);
    complain(opened != closed, Fault::NotAtRest, format!("{opened} opened, {closed} closed"));
    let untold = wave.left.terminate_failures;
    complain(untold > 0, Fault::Untold, format!("{untold} closes that rmcp was not told of"));
    let open = (wave.descriptors, target.descriptors);
    complain(open.0 > open.1, Fault::Descriptors, format!("{} open, {} before", open.0, open.1));
    let tasks = (wave.left.tasks, target.tasks);
    complain(tasks.0 > tasks.1, Fault::Tasks, format!("{} alive, {} before", tasks.0, tasks.1));
    found
}

/// Growth from the second third of the waves to the last, by the highest of each.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    pub second: usize,
    pub last: usize,
    /// Sessions opened in the last third.
    pub sessions: usize,
}

impl Growth {
    pub fn of(waves: &[Wave], what: impl Fn(&Wave) -> usize) -> Self {
        let third = waves.len() / THIRDS;
        let last = &waves[waves.len() - third..];
        let second = &waves[waves.len() - 2 * third..waves.len() - third];
        let most = |waves: &[Wave]| waves.iter().map(&what).max().unwrap_or_default();
        let sessions = last.iter().map(|wave| wave.tally.opened).sum();
        Self { second: most(second), last: most(last), sessions }
    }

    pub fn bytes(&self) -> usize {
        self.last.saturating_sub(self.second)
    }
}

/// By the median, for a machine that others use too may be short of time in one wave.
pub fn of_load(waves: &[Wave], least: Least) -> Vec<Complaint> {
    let median = |what: fn(&Wave) -> usize| {
        let mut all: Vec<_> = waves.iter().map(what).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    let streams = median(|wave| wave.most_streams);
    let posts = median(|wave| wave.posts_per_second);
    let is_enough = streams >= least.streams && posts >= least.posts_per_second;
    let what = format!("{streams} streams at once and {posts} POSTs a second, not {least:?}");
    (!is_enough).then_some(Complaint { fault: Fault::TooLittleLoad, what }).into_iter().collect()
}

pub fn of_memory(waves: &[Wave]) -> Vec<Complaint> {
    let heap = Growth::of(waves, |wave| wave.left.heap);
    let resident = Growth::of(waves, |wave| wave.resident);
    println!(
        "at rest, the most of the last third against the second: heap {:+} bytes (a leak of {} \
         bytes a session would fail), resident {:+} KiB",
        heap.last as isize - heap.second as isize,
        HEAP_SLACK / heap.sessions.max(1) + 1,
        (resident.last as isize - resident.second as isize) / 1024,
    );
    let mut found = Vec::new();
    if heap.bytes() > HEAP_SLACK {
        found.push(Complaint { fault: Fault::Heap, what: format!("still grows: {heap:?}") });
    }
    let most = resident.second + resident.second * RESIDENT_SHARE / 100 + RESIDENT_SLACK;
    if resident.last > most {
        let what = format!("still grows: {resident:?}, at the most {most}");
        found.push(Complaint { fault: Fault::Resident, what });
    }
    found
}
