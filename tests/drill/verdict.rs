//! What the clients noticed, if anything.

use std::time::Duration;

use crate::{
    attacker::{self, Done},
    clients::Measured,
    load::{figures::Figures, ms},
};

/// Under attack a p99 may be this many times what it was calm.
const TIMES: u32 = 2;
/// Below this, a p99 is as good as any, where the machine is not as busy when it is calm. Three processes share two processors, and whoever wakes up may
/// have to wait for a slice of the scheduler (1.5 ms by default) of each of the others.
const FLOOR: Duration = ms(3);
/// Of the planned attack, in a hundred: with less, nothing is proven.
const LEAST_SLOW: usize = 90;
const LEAST_ANSWERS: usize = 50;

/// What must be answered, where there is but one answer. 0 is none.
const ANSWERS: [(&str, &[u16]); 21] = [
    ("initialize", &[200, 429]),
    ("long initialize", &[200, 429, 503]),
    ("an unknown id", &[404]),
    ("GET of an unknown id", &[404]),
    ("DELETE of an unknown id", &[404]),
    ("an id of 5,000 bytes", &[400]),
    ("an id of garbage", &[400]),
    ("an empty id", &[400]),
    ("two ids", &[400]),
    ("no id", &[400]),
    ("a batch of 1,500", &[400]),
    // A permit comes first, and the attacker has as many sessions as it may.
    ("50,000 arrays, one in the other", &[400, 415, 429, 503]),
    ("a method twice", &[400]),
    ("not JSON", &[400, 415, 429, 503]),
    ("an id under another spelling", &[400]),
    ("an initialize without an id", &[400]),
    ("an initialize in another case", &[400, 415, 422, 429, 503]),
    ("a modern batch with an initialize", &[400, 415, 422, 429, 503]),
    ("GET without an id", &[400, 405, 406, 503]),
    ("a body over the limit", &[413]),
    ("a modern ping with an id", &[400]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A client was not served.
    Errors,
    Slow,
    /// The attacker was answered what it should not have been.
    Answered,
    /// Something of it all is left.
    NotAtRest,
    /// The attack was not what it is said to be, or too little was measured.
    TooLittle,
}

pub struct Round {
    pub calm: Measured,
    /// While another server on the same machine was attacked.
    pub elsewhere: Measured,
    pub attacked: Measured,
    pub done: Done,
    /// Sessions at the end of the attack.
    pub live: usize,
}

pub struct Verdict {
    /// How long a phase is.
    pub span: Duration,
    pub rounds: Vec<Round>,
    pub end: Measured,
    pub before: Figures,
    pub rest: Figures,
    /// Before and after.
    pub descriptors: (usize, usize),
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or(Duration::MAX)
}

fn median<T: Ord + Copy>(mut all: Vec<T>) -> T {
    all.sort_unstable();
    all[all.len() / 2]
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

type Times = fn(&Measured) -> &[Duration];

/// What is measured.
const KINDS: [(&str, Times); 3] = [
    ("calls", |measured| &measured.calls),
    ("initialize", |measured| &measured.opens),
    ("events", |measured| &measured.events),
];

impl Round {
    fn phases(&self) -> [&Measured; 3] {
        [&self.calm, &self.elsewhere, &self.attacked]
    }

    pub fn print(&self) {
        for (phase, measured) in ["calm", "elsewhere", "attack"].iter().zip(self.phases()) {
            print!("{phase:>9}");
            for (kind, times) in KINDS {
                let times = times(measured);
                let [middle, high] = [50, 99].map(|percent| millis(percentile(times, percent)));
                print!(" | {:>5} {kind}, p50 {middle:>6}, p99 {high:>6} ms", times.len());
            }
            println!(" | {} errors", measured.errors.values().sum::<usize>());
        }
        let (Done { slow, ended, .. }, answers) = (&self.done, self.done.answers());
        let live = self.live;
        println!("          {slow} slow bodies ({ended} ended), {answers} answers; {live} live");
    }
}

/// Calm, with another server attacked, and under attack: the median of the rounds' p99.
fn high(rounds: &[Round], times: Times) -> [Duration; 3] {
    let of = |pick: fn(&Round) -> &Measured| {
        median(rounds.iter().map(|round| percentile(times(pick(round)), 99)).collect())
    };
    [of(|round| &round.calm), of(|round| &round.elsewhere), of(|round| &round.attacked)]
}

fn said(kind: &str, high: [Duration; 3]) -> String {
    let [calm, elsewhere, attacked] = high.map(millis);
    format!(
        "p99 of {kind}: {calm} ms calm, {elsewhere} ms with another server attacked, {attacked} ms attacked"
    )
}

/// What an attack makes slow.
pub fn is_slow(rounds: &[Round]) -> impl Iterator<Item = String> {
    KINDS.iter().filter_map(|(kind, times)| {
        let [calm, elsewhere, attacked] = high(rounds, *times);
        let most = calm.saturating_mul(TIMES).max(FLOOR).min(elsewhere.saturating_mul(TIMES));
        (attacked > most).then(|| said(kind, [calm, elsewhere, attacked]))
    })
}

impl Verdict {
    pub fn print(&self) {
        let last = self.rounds.last().unwrap();
        println!("answers to the attacker in the last round: {:?}", last.done.answers);
        println!("closed: {:?}", self.rest.closed_by);
        println!("left: {:?}, tasks {}", self.rest.rest(), self.rest.tasks);
        for (kind, times) in KINDS {
            println!("{}", said(kind, high(&self.rounds, times)));
        }
        for (fault, what) in self.faults() {
            println!("FAILED {fault:?}: {what}");
        }
    }

    pub fn faults(&self) -> Vec<(Fault, String)> {
        let mut found = Vec::new();
        let phases = self.rounds.iter().flat_map(Round::phases);
        for measured in phases.chain([&self.end]) {
            if !measured.errors.is_empty() {
                found.push((Fault::Errors, format!("{:?}", measured.errors)));
            }
        }
        found.extend(is_slow(&self.rounds).map(|what| (Fault::Slow, what)));
        for round in &self.rounds {
            found.extend(answered(&round.done));
            if round.calm.calls.len().min(round.attacked.calls.len()) < 500 {
                found.push((Fault::TooLittle, "fewer than 500 calls in a phase".to_owned()));
            }
        }
        found.extend(self.too_little());
        found.extend(self.left());
        found
    }

    /// By the median: a machine that others use too may be short of time in one round.
    fn too_little(&self) -> Option<(Fault, String)> {
        let of = |what: fn(&Done) -> usize| {
            median(self.rounds.iter().map(|round| what(&round.done)).collect())
        };
        let (slow, answers) = (of(|done| done.slow), of(Done::answers));
        let is_enough = slow * 100 >= attacker::SLOW * LEAST_SLOW
            && answers * 100 >= self.planned_answers() * LEAST_ANSWERS;
        let what = || format!("{slow} slow bodies, {answers} answers to the attacker a phase");
        (!is_enough).then(|| (Fault::TooLittle, what()))
    }

    /// In one phase.
    fn planned_answers(&self) -> usize {
        let rate = attacker::INITIALIZES + attacker::LONG_INITIALIZES + attacker::BAD;
        (rate as f64 * self.span.as_secs_f64()) as usize
    }

    fn left(&self) -> Option<(Fault, String)> {
        let rest = &self.rest;
        let (open, still) = self.descriptors;
        let is_at_rest = rest.is_at_rest()
            && rest.opened == rest.closed
            && rest.terminate_failures == 0
            && rest.tasks <= self.before.tasks + 1
            && still <= open;
        let what = || format!("{rest:?}; descriptors: {open} before, {still} now");
        (!is_at_rest).then(|| (Fault::NotAtRest, what()))
    }
}

fn answered(done: &Done) -> Vec<(Fault, String)> {
    let mut found = Vec::new();
    for (what, expected) in ANSWERS {
        let Some(answers) = done.answers.get(what) else {
            found.push((Fault::TooLittle, format!("{what}: no answer at all")));
            continue;
        };
        if answers.keys().any(|status| !expected.contains(status)) {
            found.push((Fault::Answered, format!("{what}: {answers:?}, not {expected:?}")));
        }
    }
    found
}
