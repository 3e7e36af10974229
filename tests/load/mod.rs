//! What the soak and the drill stand on: a server in a process of its own, and a client of thousands
//! of connections.
//!
//! These are programs, not `#[test]`s: the same file is the server when it is started with a
//! [`Setup`](server::Setup), and the load when it is not.

#![allow(dead_code, unreachable_pub, reason = "each program uses a part")]

pub mod figures;
pub mod http;
pub mod plant;
pub mod program;
pub mod server;

use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;

/// The allocator of the platform, counted: what a server holds is known to the byte, where the
/// resident set also shows what the allocator keeps for itself.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated and not freed.
pub fn heap() -> usize {
    let stats = INSTRUMENTED_SYSTEM.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated)
}

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The answer to a session that is not there, byte for byte.
pub const LOST: &str = r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#;

/// Numbers that are spread out and the same in every run (`SplitMix64`).
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_micros() as u64;
        least + Duration::from_micros(self.roll(span.max(1)))
    }
}
