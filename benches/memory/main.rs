//! What a session weighs. `just bench memory`.
//!
//! Bytes are those asked of the allocator and not given back; what the allocator itself needs for them
//! shows in the resident set alone. Each figure is from a process of its own, so that nothing is found
//! freed by another. What an empty table takes is told apart.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]

#[path = "../common/mod.rs"]
mod common;
mod gauge;
#[allow(dead_code, reason = "this bench opens, and does not touch")]
#[path = "../touch/peers.rs"]
mod peers;
mod subjects;

use std::{
    alloc::System,
    env,
    process::{Command, Stdio},
};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::{common::Row, gauge::Cost};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Says to a process which subject is its.
const CHILD: &str = "--subject";

fn main() {
    let arguments: Vec<_> = env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == CHILD) {
        let cost = subjects::measure(&arguments[at + 1], arguments[at + 2].parse().unwrap());
        println!("{}", serde_json::to_string(&cost).unwrap());
        return;
    }
    let sizes: &[u64] =
        if common::is_test() { &[100] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let mut rows = Vec::new();
    for &(name, subject, case) in subjects::ALL {
        // A session of an SDK is no small thing.
        let sizes = match name {
            "rmcp" if !common::is_test() => &[1_000, 5_000],
            _ => sizes,
        };
        for &sessions in sizes {
            rows.extend(apart(name, subject, case, sessions));
        }
    }
    common::save("memory", &rows);
}

/// Measures in a process of its own.
fn apart(name: &str, subject: &str, case: &str, sessions: u64) -> Vec<Row> {
    let child = Command::new(env::current_exe().unwrap())
        .args([CHILD, name, &sessions.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(child.status.success(), "{name} with {sessions} sessions failed");
    let cost: Cost = serde_json::from_slice(&child.stdout).unwrap();
    let row = |metric: &str, value: f64| Row::of(subject, case, sessions, metric, &[value]);
    let mut rows = vec![
        row("bytes a session", cost.bytes),
        row("allocations a session", cost.blocks),
        row("allocations made a session", cost.made),
    ];
    // In pages, of which some are there already: with few sessions it says nothing.
    if cost.resident * sessions as f64 > 16e6 {
        rows.push(row("bytes resident a session", cost.resident));
    }
    if let Some(empty) = cost.empty.filter(|_| sessions <= 1_000) {
        rows.push(Row::of(subject, "empty", 0, "bytes in all", &[empty]));
    }
    rows
}
