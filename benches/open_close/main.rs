//! Sessions opened and closed: `initialize` and DELETE, as many as go, in this process and without a
//! network. `just bench open_close`.
//!
//! Clients are calm here, so no answer to `initialize` is held back. One client at a time shows how much later it gets
//! its session; many at once, how many there can be.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]
#![allow(clippy::disallowed_methods, reason = "the time measured here is the system's")]

#[path = "../common/mod.rs"]
mod common;
mod compare;
mod drive;
#[path = "../common/processor.rs"]
mod processor;
mod server;

use std::{env, time::Duration};

use self::{
    common::is_test,
    compare::Measured,
    drive::drive,
    server::{Kind, Server},
};

/// Openings at once, where others than their number are compared.
const MANY: usize = 1_024;

struct Size {
    at_once: &'static [usize],
    live: &'static [usize],
    rounds: usize,
    slice: Duration,
}

const SMOKE: Size =
    Size { at_once: &[1, 16], live: &[50], rounds: 1, slice: Duration::from_millis(20) };

const FULL: Size = Size {
    at_once: &[1, 256, MANY, 4_096],
    live: &[1_000, 10_000, 100_000],
    rounds: 5,
    slice: Duration::from_secs(1),
};

fn main() {
    let mut size = if is_test() { SMOKE } else { FULL };
    if let Ok(rounds) = env::var("OPEN_CLOSE_ROUNDS") {
        size.rounds = rounds.parse().unwrap();
    }
    let mut measured = Vec::new();
    for threads in [1, 2] {
        measured.extend(with_threads(threads, &size));
    }
    let rows = compare::rows(&measured);
    assert!(!rows.is_empty(), "nothing was measured");
    if !is_test() {
        common::save("open_close", &rows);
    }
}

fn with_threads(threads: usize, size: &Size) -> Vec<Measured> {
    let mut measured = Vec::new();
    for kind in [Kind::Handler, Kind::Rmcp] {
        for layered in [false, true] {
            for &at_once in size.at_once {
                let server = Server::new(kind, layered, threads);
                measured.push(Measured::new(server, at_once, 0));
            }
        }
    }
    for &live in size.live {
        let server = Server::new(Kind::Handler, true, threads);
        server.fill(live);
        measured.push(Measured::new(server, MANY, live));
    }
    for round in 0..size.rounds {
        let mut order: Vec<&mut Measured> = measured.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for subject in order {
            let outcome = drive(&subject.server, subject.at_once, subject.live, size.slice);
            subject.server.is_at_rest(subject.live);
            subject.outcomes.push(outcome);
        }
        eprintln!("{} of {} rounds, threads: {threads}", round + 1, size.rounds);
    }
    measured
}
