//! What else one might keep sessions in, and how each would be rid of them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use mcp_session_layer::bench::Core;
use moka::sync::Cache;

/// Nothing comes of age but by a clock that is moved.
pub const IDLE: Duration = Duration::from_secs(30 * 60);

/// A cap that is in nobody's way.
pub fn cap(sessions: usize) -> usize {
    sessions + sessions / 2
}

/// As many as the layer has under that cap.
fn shards(sessions: usize) -> usize {
    cap(sessions).div_ceil(512).next_power_of_two().clamp(64, 4_096)
}

/// What sessions are put into and looked up in.
pub trait Store: Sync {
    const NAME: &str;
    fn new(sessions: usize) -> Self;
    fn open(&self, id: &str);
    fn touch(&self, id: &str) -> u64;
}

pub const LAYER: &str = "the layer";

impl Store for Core {
    const NAME: &str = LAYER;
    fn new(sessions: usize) -> Self {
        Self::on_mock_clock(cap(sessions), IDLE)
    }
    fn open(&self, id: &str) {
        self.open(id);
    }
    fn touch(&self, id: &str) -> u64 {
        self.touch(id)
    }
}

/// A stamp for each session, in seconds, that a timer compares for all of them.
pub struct Walked(DashMap<Arc<str>, Arc<AtomicU64>, foldhash::fast::RandomState>);

impl Walked {
    pub const NAME: &str = "DashMap::retain";

    pub fn new(sessions: usize) -> Self {
        Self(DashMap::with_hasher_and_shard_amount(Default::default(), shards(sessions)))
    }

    pub fn open(&self, id: &str, now: u64) {
        self.0.insert(id.into(), Arc::new(now.into()));
    }

    pub fn touch(&self, id: &str) -> u64 {
        self.0.get(id).map_or(0, |entry| entry.fetch_or(0, Ordering::AcqRel))
    }

    /// Throws out what was not touched since.
    pub fn retain(&self, since: u64) {
        self.0.retain(|_, last| last.load(Ordering::Acquire) > since);
    }

    pub fn live(&self) -> usize {
        self.0.len()
    }
}

/// A DashMap as it comes, with four shards for each processor.
pub struct Sharded(DashMap<Arc<str>, Arc<AtomicU64>>);

impl Store for Sharded {
    const NAME: &str = "DashMap as it comes";
    fn new(_: usize) -> Self {
        Self(DashMap::new())
    }
    fn open(&self, id: &str) {
        self.0.insert(id.into(), Arc::default());
    }
    fn touch(&self, id: &str) -> u64 {
        self.0.get(id).map_or(0, |entry| entry.fetch_or(0, Ordering::AcqRel))
    }
}

/// One map under one lock.
pub struct Locked(Mutex<HashMap<Arc<str>, Arc<AtomicU64>>>);

impl Store for Locked {
    const NAME: &str = "Mutex<HashMap>";
    fn new(_: usize) -> Self {
        Self(Mutex::default())
    }
    fn open(&self, id: &str) {
        self.0.lock().unwrap().insert(id.into(), Arc::default());
    }
    fn touch(&self, id: &str) -> u64 {
        self.0.lock().unwrap().get(id).map_or(0, |entry| entry.fetch_or(0, Ordering::AcqRel))
    }
}

/// A cache whose entries go when they were idle for some real time.
pub struct Moka(Cache<Arc<str>, Arc<AtomicU64>>);

impl Store for Moka {
    const NAME: &str = "moka";
    fn new(sessions: usize) -> Self {
        Self::idle(sessions, IDLE)
    }
    fn open(&self, id: &str) {
        self.0.insert(id.into(), Arc::default());
    }
    fn touch(&self, id: &str) -> u64 {
        self.0.get(id).map_or(0, |entry| entry.fetch_or(0, Ordering::AcqRel))
    }
}

impl Moka {
    pub fn idle(sessions: usize, after: Duration) -> Self {
        Self(Cache::builder().max_capacity(cap(sessions) as u64).time_to_idle(after).build())
    }

    pub fn live(&self) -> u64 {
        self.0.entry_count()
    }

    /// Has it do all that it has put off. How long each call took, of which the last found no more
    /// than `keep`.
    pub fn settle(&self, keep: u64) -> Vec<Duration> {
        let mut calls = Vec::new();
        loop {
            let begin = Instant::now();
            self.0.run_pending_tasks();
            calls.push(begin.elapsed());
            if self.live() <= keep || calls.len() > 100_000 {
                return calls;
            }
        }
    }
}
