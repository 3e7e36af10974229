//! What the layer costs a server over TCP: requests a second, the slowest in a hundred, and the
//! processor's time for each. `just bench loopback`; needs `wrk`.
//!
//! Each subject is a process of its own, on all cores but the last, which is `wrk`'s: what is
//! measured is the server, not how the two share. In a round the subjects of a family take
//! turns, each in a new process, for two processes of one program are not alike either; the first
//! of a family takes part twice, and how it compares with itself is what a ratio can tell at best.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "the time measured here is the system's")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]

#[path = "../common/mod.rs"]
mod common;
mod compare;
#[path = "../common/least.rs"]
mod least;
#[path = "../common/processor.rs"]
mod processor;
mod program;
mod server;
mod sessions;
mod wrk;

use std::{env, thread};

use self::{
    common::is_test,
    program::Program,
    server::{FAMILIES, Subject},
    wrk::{Load, Outcome},
};

const SESSIONS: usize = 1_000;

/// A server from its start to its end.
fn measure(subject: Subject, sessions: usize, seconds: u64, warm_up: bool) -> Outcome {
    let mut server = Program::start(subject);
    let ids = sessions::open(server.address, sessions);
    let load = Load::new(server.address, &ids);
    if warm_up {
        load.run(1);
    }
    let before = server.processor_time();
    let mut outcome = load.run(seconds);
    outcome.processor = server.processor_time() - before;
    outcome
}

fn number(name: &str, default: u64) -> u64 {
    let set = env::var(name).ok();
    set.map_or(default, |set| set.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

fn smoke() {
    thread::scope(|scope| {
        for subject in FAMILIES.into_iter().flatten() {
            scope.spawn(move || {
                let outcome = measure(*subject, 20, 1, false);
                assert!(outcome.requests > 0, "{subject:?} answered nothing");
            });
        }
    });
}

fn main() {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some("server") {
        return server::run(Subject::of(&arguments.next().unwrap()));
    }
    wrk::find();
    if is_test() {
        return smoke();
    }
    let (rounds, seconds) = (number("LOOPBACK_ROUNDS", 10), number("LOOPBACK_SECONDS", 3));
    let mut rows = Vec::new();
    for family in FAMILIES {
        let mut family: Vec<Subject> = family.to_vec();
        family.push(family[0].again());
        let mut outcomes = vec![Vec::new(); family.len()];
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..family.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                outcomes[at].push(measure(family[at], SESSIONS, seconds, true));
            }
            eprintln!("{} of {rounds} rounds: {}", round + 1, family[0].server());
        }
        rows.extend(compare::rows(&family, &outcomes, SESSIONS as u64));
    }
    common::save("loopback", &rows);
}
