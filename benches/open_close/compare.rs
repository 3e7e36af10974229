//! What is told of the rounds: each server by itself, and the layer next to the server without it.

use crate::{
    MANY,
    common::Row,
    drive::Outcome,
    server::{Kind, Server},
};

pub struct Measured {
    pub server: Server,
    pub at_once: usize,
    pub live: usize,
    pub outcomes: Vec<Outcome>,
}

impl Measured {
    pub fn new(server: Server, at_once: usize, live: usize) -> Self {
        Self { server, at_once, live, outcomes: Vec::new() }
    }

    fn kind(&self) -> &'static str {
        match self.server.kind {
            Kind::Handler => "handler",
            Kind::Rmcp => "rmcp",
        }
    }

    fn row(&self, metric: &str, runs: &[f64]) -> Row {
        let subject = if self.server.layered { "the layer" } else { "bare" };
        let threads = self.server.threads;
        let case = format!("{}, {} at once, threads: {threads}", self.kind(), self.at_once);
        Row::of(subject, &case, self.live as u64, metric, runs)
    }

    fn all(&self, figure: fn(&Outcome) -> f64) -> Vec<f64> {
        self.outcomes.iter().map(figure).collect()
    }

    /// Round by round.
    fn pairs(&self, to: &Self, figure: fn(&Outcome) -> f64) -> Vec<(f64, f64)> {
        self.all(figure).into_iter().zip(to.all(figure)).collect()
    }

    fn is_with(&self, other: &Self) -> bool {
        self.server.kind == other.server.kind && self.server.threads == other.server.threads
    }
}

pub fn rows(measured: &[Measured]) -> Vec<Row> {
    let mut rows = Vec::new();
    for one in measured {
        rows.push(one.row("sessions a second", &one.all(Outcome::throughput)));
        let each = one.all(Outcome::processor_micros);
        rows.push(one.row("µs of processor time a session", &each));
        if one.at_once == 1 {
            rows.push(one.row("µs to open, median", &one.all(Outcome::open_micros)));
        }
    }
    for one in measured.iter().filter(|one| one.server.layered) {
        let mut others = measured.iter().filter(|other| other.is_with(one) && other.live == 0);
        if one.live == 0 {
            let bare = others.find(|bare| !bare.server.layered && bare.at_once == one.at_once);
            rows.extend(bare.into_iter().flat_map(|bare| beside(one, bare)));
        } else {
            let empty = others.find(|none| none.server.layered && none.at_once == MANY);
            rows.extend(empty.map(|empty| {
                let pairs = one.pairs(empty, Outcome::processor_micros);
                one.row("ratio of processor time a session, to none live", &ratios(&pairs))
            }));
        }
    }
    rows
}

fn beside(one: &Measured, bare: &Measured) -> Vec<Row> {
    let kind = one.kind();
    let throughput = ratios(&one.pairs(bare, Outcome::throughput));
    let processor = one.pairs(bare, Outcome::processor_micros);
    let more: Vec<f64> = processor.iter().map(|(ours, theirs)| ours - theirs).collect();
    let opens = one.pairs(bare, Outcome::open_micros);
    let later: Vec<f64> = opens.iter().map(|(ours, theirs)| ours - theirs).collect();
    let mut rows = vec![
        one.row(&format!("ratio of sessions a second, layer to bare {kind}"), &throughput),
        one.row(&format!("µs of processor time a session more, layer to bare {kind}"), &more),
    ];
    if one.at_once == 1 {
        rows.push(one.row(&format!("µs to open more, median, layer to bare {kind}"), &later));
    }
    rows
}

fn ratios(pairs: &[(f64, f64)]) -> Vec<f64> {
    pairs.iter().map(|(ours, theirs)| ours / theirs).collect()
}
