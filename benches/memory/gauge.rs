//! What this process holds, and what one session more makes of it.

use std::{fs, thread, time::Duration};

use serde::{Deserialize, Serialize};

use super::ALLOCATOR;

/// What is held at one moment.
#[derive(Debug)]
pub struct Gauge {
    bytes: f64,
    blocks: f64,
    made: f64,
    resident: f64,
}

impl Gauge {
    pub fn now() -> Self {
        let stats = ALLOCATOR.stats();
        Self {
            bytes: stats.bytes_allocated as f64 - stats.bytes_deallocated as f64,
            blocks: stats.allocations as f64 - stats.deallocations as f64,
            made: (stats.allocations + stats.reallocations) as f64,
            resident: resident(),
        }
    }

    /// Once no other thread allocates any more.
    pub fn settled() -> Self {
        let mut last = Self::now();
        loop {
            thread::sleep(Duration::from_millis(50));
            let now = Self::now();
            if now.bytes == last.bytes && now.blocks == last.blocks {
                return now;
            }
            last = now;
        }
    }

    pub fn since(&self, before: &Self, sessions: u64) -> Cost {
        let each = |now: f64, before: f64| (now - before) / sessions as f64;
        Cost {
            bytes: each(self.bytes, before.bytes),
            blocks: each(self.blocks, before.blocks),
            made: each(self.made, before.made),
            resident: each(self.resident, before.resident),
            empty: None,
        }
    }
}

/// By the session.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cost {
    pub bytes: f64,
    /// Allocations held.
    pub blocks: f64,
    /// Allocations made on the way, growth of tables included.
    pub made: f64,
    pub resident: f64,
    /// Bytes of a table without sessions.
    pub empty: Option<f64>,
}

impl Cost {
    pub fn without(mut self, other: &Self) -> Self {
        self.bytes -= other.bytes;
        self.blocks -= other.blocks;
        self.made -= other.made;
        self.resident -= other.resident;
        self
    }

    pub fn with_empty(mut self, with: &Gauge, without: &Gauge) -> Self {
        self.empty = Some(with.bytes - without.bytes);
        self
    }
}

/// Bytes of this process in memory.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() * 1024.0
}
