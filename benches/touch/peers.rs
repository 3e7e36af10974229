//! Who is touched: the layer's core, the least it could cost, and what else one might take.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use mcp_session_layer::bench::Core;
use moka::sync::Cache;
use tokio::{
    runtime::{Builder, EnterGuard, Runtime},
    sync::{Notify, RwLock},
    time::{Instant, sleep, timeout},
};
use tokio_util::time::{DelayQueue, delay_queue};

/// Nothing comes of age while a bench runs.
const IDLE: Duration = Duration::from_secs(30 * 60);

pub trait Peer: Sync {
    const NAME: &str;
    fn new(sessions: usize) -> Self;
    /// What a thread must be in to touch.
    fn context(&self) -> Option<EnterGuard<'_>> {
        None
    }
    fn open(&self, id: &str);
    /// Says something that could not be known before.
    fn touch(&self, id: &str) -> u64;
}

/// What we make, with its reaper at work on another thread.
pub struct Layer {
    core: Core,
    runtime: Runtime,
}

impl Peer for Layer {
    const NAME: &str = "the layer";
    fn new(sessions: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        Self { core: Core::new(sessions, IDLE), runtime }
    }
    fn context(&self) -> Option<EnterGuard<'_>> {
        Some(self.runtime.enter())
    }
    fn open(&self, id: &str) {
        self.core.open(id);
    }
    fn touch(&self, id: &str) -> u64 {
        self.core.touch(id)
    }
}

/// The layer where tests can stop time, and where there is no coarse clock.
pub struct ExactClock(Layer);

impl Peer for ExactClock {
    const NAME: &str = "the layer, exact clock";
    fn new(sessions: usize) -> Self {
        Self(Layer { core: Core::on_exact_clock(sessions, IDLE), ..Layer::new(0) })
    }
    fn context(&self) -> Option<EnterGuard<'_>> {
        self.0.context()
    }
    fn open(&self, id: &str) {
        self.0.open(id);
    }
    fn touch(&self, id: &str) -> u64 {
        self.0.touch(id)
    }
}

/// The layer, if time were a number in memory that somebody else keeps up to date.
pub struct SharedClock {
    core: Core,
    runtime: Runtime,
}

impl Peer for SharedClock {
    const NAME: &str = "the layer, clock not read";
    fn new(sessions: usize) -> Self {
        // Not driven: its reaper would try to keep up with a clock that stands still.
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        Self { core: Core::on_mock_clock(sessions, IDLE), runtime }
    }
    fn context(&self) -> Option<EnterGuard<'_>> {
        Some(self.runtime.enter())
    }
    fn open(&self, id: &str) {
        self.core.open(id);
    }
    fn touch(&self, id: &str) -> u64 {
        self.core.touch(id)
    }
}

/// The same map and record: a lookup that hands the session out, and two read-modify-writes.
pub struct Floor(Core);

impl Peer for Floor {
    const NAME: &str = "floor";
    fn new(sessions: usize) -> Self {
        Self(Core::new(sessions, IDLE))
    }
    fn open(&self, id: &str) {
        self.0.open(id);
    }
    fn touch(&self, id: &str) -> u64 {
        self.0.floor(id)
    }
}

/// As the floor, but under the lock of the map: the session could not be held after the lookup.
pub struct InPlace(Core);

impl Peer for InPlace {
    const NAME: &str = "floor, nothing held";
    fn new(sessions: usize) -> Self {
        Self(Core::new(sessions, IDLE))
    }
    fn open(&self, id: &str) {
        self.0.open(id);
    }
    fn touch(&self, id: &str) -> u64 {
        self.0.floor_in_place(id)
    }
}

/// One `get`, which is all that its `time_to_idle` asks for; it counts nothing in flight.
pub struct Moka(Cache<Arc<str>, Arc<AtomicU64>>);

impl Peer for Moka {
    const NAME: &str = "moka";
    fn new(sessions: usize) -> Self {
        Self(Cache::builder().max_capacity(2 * sessions as u64).time_to_idle(IDLE).build())
    }
    fn open(&self, id: &str) {
        self.0.insert(id.into(), Arc::default());
    }
    fn touch(&self, id: &str) -> u64 {
        self.0.get(id).map_or(0, |entry| entry.load(Ordering::Relaxed))
    }
}

/// The map of the official SDK, with a count and a stamp, to be walked by a timer.
pub struct Locked(RwLock<HashMap<Arc<str>, Arc<Entry>>>);

pub struct Entry {
    in_flight: AtomicU64,
    last: Mutex<Instant>,
}

impl Peer for Locked {
    const NAME: &str = "RwLock<HashMap>";
    fn new(_: usize) -> Self {
        Self(RwLock::default())
    }
    fn open(&self, id: &str) {
        let entry = Entry { in_flight: AtomicU64::new(0), last: Mutex::new(Instant::now()) };
        self.0.try_write().unwrap().insert(id.into(), Arc::new(entry));
    }
    fn touch(&self, id: &str) -> u64 {
        let Some(entry) = self.0.try_read().unwrap().get(id).cloned() else { return 0 };
        entry.in_flight.fetch_add(1, Ordering::AcqRel);
        *entry.last.lock().unwrap() = Instant::now();
        entry.in_flight.fetch_sub(1, Ordering::AcqRel)
    }
}

/// tokio-util's queue of deadlines, reset at each touch.
pub struct DelayQueues {
    runtime: Runtime,
    inner: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    keys: HashMap<Arc<str>, delay_queue::Key>,
    queue: DelayQueue<Arc<str>>,
}

impl Peer for DelayQueues {
    const NAME: &str = "DelayQueue";
    fn new(_: usize) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let inner = {
            let _context = runtime.enter();
            Mutex::default()
        };
        Self { runtime, inner }
    }
    fn context(&self) -> Option<EnterGuard<'_>> {
        Some(self.runtime.enter())
    }
    fn open(&self, id: &str) {
        let id: Arc<str> = id.into();
        let mut inner = self.inner.lock().unwrap();
        let key = inner.queue.insert(Arc::clone(&id), IDLE);
        inner.keys.insert(id, key);
    }
    fn touch(&self, id: &str) -> u64 {
        let mut inner = self.inner.lock().unwrap();
        let Some(key) = inner.keys.get(id).copied() else { return 0 };
        inner.queue.reset(&key, IDLE);
        key_number(key)
    }
}

fn key_number(key: delay_queue::Key) -> u64 {
    // What it is does not matter, only that it comes from the lookup.
    u64::from(std::hint::black_box(key) == key)
}

/// A task and a timer for each session. The touch wakes it; what it does then is not counted here,
/// but in the other core.
pub struct Tasks {
    runtime: Runtime,
    sessions: DashMap<Arc<str>, Arc<Notify>>,
}

impl Peer for Tasks {
    const NAME: &str = "task a session";
    fn new(_: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        Self { runtime, sessions: DashMap::new() }
    }
    fn open(&self, id: &str) {
        let touched = Arc::new(Notify::new());
        self.sessions.insert(id.into(), Arc::clone(&touched));
        self.runtime.spawn(async move {
            // A client would be told here that its session is over.
            while timeout(IDLE, touched.notified()).await.is_ok() {}
            sleep(Duration::ZERO).await;
        });
    }
    fn touch(&self, id: &str) -> u64 {
        let Some(touched) = self.sessions.get(id).map(|entry| Arc::clone(&entry)) else { return 0 };
        touched.notify_one();
        Arc::strong_count(&touched) as u64
    }
}
