//! What is told of the rounds: each subject by itself, and next to the others of its round.

use crate::{
    common::Row,
    server::{Behind, Subject},
    wrk::{CONNECTIONS, Outcome},
};

type Figure = fn(&Outcome) -> f64;

const THROUGHPUT: Figure = Outcome::throughput;
const P99: Figure = |outcome| outcome.p99;

pub fn rows(family: &[Subject], outcomes: &[Vec<Outcome>], sessions: u64) -> Vec<Row> {
    let case = format!("{}, {CONNECTIONS} connections", family[0].server());
    let mut rows = Vec::new();
    let mut row = |at: usize, metric: &str, runs: &[f64]| {
        rows.push(Row::of(subject(family[at]), &case, sessions, metric, runs));
    };
    let all = |at: usize, figure: Figure| -> Vec<f64> { outcomes[at].iter().map(figure).collect() };
    for at in 0..family.len() {
        row(at, "requests a second", &all(at, THROUGHPUT));
        row(at, "µs of latency, median", &all(at, |outcome| outcome.p50));
        row(at, "µs of latency, 99th percentile", &all(at, P99));
        row(at, "µs of processor time a request", &all(at, Outcome::processor_micros));
    }
    for at in 0..family.len() {
        for to in 0..at {
            let Some(names) = names(family[at], family[to]) else { continue };
            let by = |figure: Figure, by: fn((f64, f64)) -> f64| -> Vec<f64> {
                all(at, figure).into_iter().zip(all(to, figure)).map(by).collect()
            };
            let ratio = |(ours, theirs): (f64, f64)| ours / theirs;
            row(at, &format!("ratio of throughput, {names}"), &by(THROUGHPUT, ratio));
            row(at, &format!("ratio of latency, 99th percentile, {names}"), &by(P99, ratio));
            let more = by(Outcome::processor_micros, |(ours, theirs)| ours - theirs);
            row(at, &format!("µs of processor time a request more, {names}"), &more);
        }
    }
    rows
}

fn subject(subject: Subject) -> &'static str {
    match subject.behind {
        Behind::Nothing if subject.again => "bare, again",
        Behind::Nothing => "bare",
        Behind::NoOp => "no-op layer",
        Behind::Delay => "layer of 200 ns",
        Behind::Least => "a header, a lookup, an extension",
        Behind::Layer => "the layer",
    }
}

/// Of those that are worth a comparison: "layer to bare axum".
fn names(one: Subject, to: Subject) -> Option<String> {
    let name = match one.behind {
        Behind::Nothing => "bare again",
        Behind::NoOp => "no-op",
        Behind::Delay => "200 ns",
        Behind::Least => "a header, a lookup, an extension",
        Behind::Layer => "layer",
    };
    match (one.behind, to.behind) {
        (_, Behind::Nothing) => Some(format!("{name} to bare {}", to.server())),
        (Behind::Layer, Behind::NoOp) => Some(format!("{name} to no-op")),
        _ => None,
    }
}
