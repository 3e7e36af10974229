//! What the benches share: how a figure is written down, and what comes of many of them.
//!
//! A bench writes what it measured to `target/bench/TOPIC.json`; `benches/report` makes `BENCHMARKS.md`
//! and the plots of all of them.

#![allow(dead_code, reason = "each bench uses its part")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

pub mod ids;

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

/// One figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What was measured: "the layer", "moka", "no-op layer".
    pub subject: String,
    /// Under which circumstances: "2 threads", "1 % due".
    pub case: String,
    /// Sessions live meanwhile.
    pub sessions: u64,
    /// Of what, with its unit: "ns a touch", "bytes a session", "requests a second".
    pub metric: String,
    pub median: f64,
    /// The spread: quartiles of the repetitions.
    pub low: f64,
    pub high: f64,
}

impl Row {
    /// The median and quartiles of several runs of one thing.
    pub fn of(subject: &str, case: &str, sessions: u64, metric: &str, runs: &[f64]) -> Self {
        let mut runs = runs.to_vec();
        assert!(!runs.is_empty(), "nothing measured of {subject}, {case}");
        runs.sort_by(f64::total_cmp);
        // Between two runs where none is at the place: an upper one would flatter or slander.
        let at = |share: f64| {
            let place = (runs.len() - 1) as f64 * share;
            let (below, above) = (runs[place.floor() as usize], runs[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Self {
            subject: subject.to_owned(),
            case: case.to_owned(),
            sessions,
            metric: metric.to_owned(),
            median: at(0.5),
            low: at(0.25),
            high: at(0.75),
        }
    }
}

/// `target/bench`, or where cargo was told to build.
pub fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let folder = target.join("bench");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A ratio needs more decimals than a count.
fn short(figure: f64) -> String {
    if figure.abs() < 10.0 { format!("{figure:.3}") } else { format!("{figure:.1}") }
}

/// Keeps the rows of one topic for the report, and shows them. Those of a try-out are not kept.
pub fn save(topic: &str, rows: &[Row]) {
    show(topic, rows);
    if is_test() {
        return;
    }
    fs::write(folder().join(format!("{topic}.json")), serde_json::to_vec_pretty(rows).unwrap())
        .unwrap();
}

/// Shows them.
pub fn show(topic: &str, rows: &[Row]) {
    for row in rows {
        println!(
            "{topic}: {} | {} | {} sessions | {} ({} to {}) {}",
            row.subject,
            row.case,
            row.sessions,
            short(row.median),
            short(row.low),
            short(row.high),
            row.metric
        );
    }
}

/// The rows of one topic, if it was measured.
pub fn load(topic: &str) -> Option<Vec<Row>> {
    let json = fs::read(folder().join(format!("{topic}.json"))).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Whether the bench is run by `cargo test --benches`, only to see that it runs.
pub fn is_test() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}
