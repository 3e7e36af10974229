//! Load on, load off, and what is left.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    books::Rules,
    client::World,
    load::{
        figures::{Figures, descriptors, resident},
        http::Http,
        ms,
        server::Addresses,
    },
    tally::{Count, Tally},
};

/// What the server cannot need longer for, on the slowest machine.
const PATIENCE: Duration = ms(10_000);

/// Clients that come in at once. A machine that is slower than planned has as many sessions, only
/// later: were they all to wait for their `initialize` at once, they would be too late for the rest.
const COMING_IN: usize = 100;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub least_waves: usize,
    /// No wave begins that could end later.
    pub time: Duration,
    pub load: Duration,
    pub opens_per_second: u64,
    pub rules: Rules,
    pub close_timeout: Duration,
}

/// The server process, and what it held before anything happened.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub at: Addresses,
    pub pid: u32,
    pub descriptors: usize,
    pub tasks: usize,
}

/// What a wave was, and what was left after it.
#[derive(Clone, Debug, Serialize)]
pub struct Wave {
    pub number: usize,
    #[serde(flatten)]
    pub tally: Tally,
    pub posts_per_second: usize,
    pub most_streams: usize,
    pub most_live: usize,
    pub most_heap: usize,
    /// From the end of the load until the layer and rmcp had nothing left, in milliseconds.
    pub drained_in: Option<usize>,
    pub left: Figures,
    pub descriptors: usize,
    pub resident: usize,
    pub closed_by: BTreeMap<String, usize>,
}

pub async fn run(plan: &Plan, target: &Target, number: usize) -> Wave {
    let world = Arc::new(World {
        rules: plan.rules,
        http: Http::new(target.at.mcp),
        narrow: Http::narrow(target.at.mcp),
        count: Count::default(),
        sessions: Mutex::default(),
        unread: Mutex::default(),
    });
    let before = Figures::ask(target.at.ops).await;
    let peaks = Arc::new(Mutex::new([0; 3]));
    let watcher = tokio::spawn(watch(target.at, Arc::clone(&peaks)));
    let mut clients = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / plan.opens_per_second as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let doors = Arc::new(Semaphore::new(COMING_IN));
    let start = Instant::now();
    let planned = plan.load.as_millis() as u64 * plan.opens_per_second / 1000;
    for n in 0..planned {
        ticks.tick().await;
        let door = Arc::clone(&doors).acquire_owned().await.unwrap();
        clients.spawn(Arc::clone(&world).live((number as u64) << 32 | n, door));
    }
    let load = start.elapsed();
    let posts = world.count.lock().posts;
    watcher.abort();
    let end = Instant::now();

    // Everybody leaves in their own time; some stay connected for good.
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let within = plan.rules.max_lifetime + plan.close_timeout + PATIENCE;
    let rest = until(target, within, Figures::is_at_rest).await;
    let drained_in = rest.is_some().then(|| end.elapsed().as_millis() as usize);
    if drained_in.is_some() {
        probe_all(&world).await;
    }

    // All connections go, also those that nobody has read.
    let tally = world.count.lock().clone();
    drop(Arc::into_inner(world));
    let mut left = None;
    let deadline = Instant::now() + PATIENCE;
    while left.is_none() && Instant::now() < deadline {
        let calm = |figures: &Figures| {
            figures.tasks <= target.tasks && descriptors(target.pid) <= target.descriptors
        };
        left = until(target, ms(500), calm).await;
    }
    let left = match left {
        Some(left) => left,
        None => Figures::ask(target.at.ops).await,
    };
    let [most_streams, most_live, most_heap] = *peaks.lock().unwrap();
    let closed_by = left.closed_by.iter().map(|(why, now)| {
        (why.clone(), now - before.closed_by.get(why).copied().unwrap_or_default())
    });
    Wave {
        number,
        posts_per_second: (posts as f64 / load.as_secs_f64()) as usize,
        tally,
        most_streams,
        most_live,
        most_heap,
        drained_in,
        descriptors: descriptors(target.pid),
        resident: resident(target.pid),
        closed_by: closed_by.filter(|(_, times)| *times > 0).collect(),
        left,
    }
}

async fn watch(at: Addresses, peaks: Arc<Mutex<[usize; 3]>>) {
    loop {
        let figures = Figures::ask(at.ops).await;
        let now = [figures.streams, figures.live, figures.heap];
        for (peak, now) in peaks.lock().unwrap().iter_mut().zip(now) {
            *peak = now.max(*peak);
        }
        sleep(ms(250)).await;
    }
}

/// The first figures that are so; `None` if there are none in time.
async fn until(
    target: &Target,
    within: Duration,
    is_so: impl Fn(&Figures) -> bool,
) -> Option<Figures> {
    let deadline = Instant::now() + within;
    loop {
        let figures = Figures::ask(target.at.ops).await;
        if is_so(&figures) {
            return Some(figures);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(ms(50)).await;
    }
}

/// The server says that it has no session: then each one there was must be a 404.
async fn probe_all(world: &Arc<World>) {
    let sessions = world.sessions.lock().unwrap().clone();
    let mut probes = JoinSet::new();
    for (n, session) in sessions.into_iter().enumerate() {
        session.books.lock().unwrap().drain();
        let world = Arc::clone(world);
        probes.spawn(async move { world.probe(&session).await });
        // No more at once than the client would have connections for.
        if n >= 100 {
            probes.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(probe) = probes.join_next().await {
        probe.unwrap();
    }
}
