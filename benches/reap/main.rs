//! What it costs to be rid of sessions, and whom it keeps waiting. `just bench reap`.
//!
//! The reaper is polled by hand, and the time of each poll taken: as long as a poll takes, nothing else
//! runs on its thread. A longest of many times is mostly the machine's doing (another process had the
//! core), so it is taken several times over and the median is told; of a poll, also the time that its
//! thread had a core for.

#![allow(clippy::disallowed_methods, reason = "a bench measures the time of a clock")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]
#![cfg_attr(not(target_os = "linux"), allow(unused, reason = "it has no clock for a thread"))]

mod all;
#[path = "../common/mod.rs"]
mod common;
mod peers;
mod stalls;
mod ticks;
mod times;

use std::time::Duration;

use self::{common::ids::Ids, ticks::Effort};

fn main() {
    let (sizes, effort): (&[u64], _) = if common::is_test() {
        (&[1_000], Effort { runs: 1, ticks: 5, idle: Duration::from_millis(100) })
    } else {
        let effort = Effort { runs: 5, ticks: 100, idle: Duration::from_millis(500) };
        (&[1_000, 10_000, 100_000, 1_000_000], effort)
    };
    // `-- stalls` does only that, at the full size, shows it and keeps nothing.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_asked = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let most = *sizes.last().unwrap();
    let mut rows = Vec::new();
    for &size in sizes.iter().filter(|&&size| only.is_none() || size == most) {
        let ids = Ids::new(size);
        if is_asked("ticks") {
            rows.extend(ticks::rows(&ids, effort));
        }
        if is_asked("all") {
            rows.extend(all::rows(&ids, effort));
        }
        if is_asked("stalls") && size == most {
            rows.extend(stalls::rows(&ids, &Ids::new(size / 10), effort));
        }
    }
    if only.is_some() { common::show("reap", &rows) } else { common::save("reap", &rows) }
}
