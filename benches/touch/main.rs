//! A touch: resolve an id, enter, exit. `just bench touch`.
//!
//! Ids are random, and which is next depends on what the last touch found, so that nothing can be
//! fetched ahead. Beside the layer stand the least that it could cost, and what others would build.

#![allow(clippy::disallowed_methods, reason = "a bench measures the time of a clock")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]

#[path = "../common/mod.rs"]
mod common;
mod peers;

use std::{
    cell::OnceCell,
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use self::{
    common::ids::Ids,
    peers::{
        DelayQueues, ExactClock, Floor, InPlace, Layer, Locked, Moka, Peer, SharedClock, Tasks,
    },
};

/// So many touches, each by what the last one found.
fn touches(peer: &impl Peer, ids: &Ids, seed: u64, count: u64) {
    let mut next = seed;
    for _ in 0..count {
        let found = peer.touch(ids.get(next));
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(black_box(found) | 1);
    }
}

/// Every thread does `count` of them; as long as the slowest takes.
fn time(peer: &impl Peer, ids: &Ids, threads: u64, count: u64) -> Duration {
    if threads == 1 {
        let begin = Instant::now();
        touches(peer, ids, 1, count);
        return begin.elapsed();
    }
    let start = Barrier::new(threads as usize);
    thread::scope(|scope| {
        let start = &start;
        let run = |seed| {
            scope.spawn(move || {
                let _context = peer.context();
                start.wait();
                let begin = Instant::now();
                touches(peer, ids, seed, count);
                begin.elapsed()
            })
        };
        let running: Vec<_> = (1..=threads).map(run).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    })
}

fn opened<P: Peer>(ids: &Ids) -> P {
    let peer = P::new(ids.len());
    let context = peer.context();
    ids.iter().for_each(|id| peer.open(id));
    drop(context);
    peer
}

fn bench<P: Peer>(criterion: &mut Criterion, ids: &Ids) {
    let made = OnceCell::new();
    for threads in [1, 2] {
        let mut group = criterion.benchmark_group(format!("touch, threads: {threads}"));
        group.sample_size(20);
        group.warm_up_time(Duration::from_millis(500));
        group.measurement_time(Duration::from_millis(1_500));
        group.bench_function(BenchmarkId::new(P::NAME, ids.len()), |bencher| {
            // Made when it is wanted: a million tasks take their time.
            let peer = made.get_or_init(|| opened::<P>(ids));
            let _context = peer.context();
            bencher.iter_custom(|count| time(peer, ids, threads, count));
        });
        group.finish();
    }
}

fn touch(criterion: &mut Criterion) {
    let sizes: &[u64] =
        if common::is_test() { &[100] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    for &size in sizes {
        let ids = Ids::new(size);
        bench::<InPlace>(criterion, &ids);
        bench::<Floor>(criterion, &ids);
        bench::<Layer>(criterion, &ids);
        bench::<ExactClock>(criterion, &ids);
        bench::<SharedClock>(criterion, &ids);
        bench::<Moka>(criterion, &ids);
        bench::<Locked>(criterion, &ids);
        bench::<DelayQueues>(criterion, &ids);
        bench::<Tasks>(criterion, &ids);
    }
}

criterion_group!(benches, touch);
criterion_main!(benches);
