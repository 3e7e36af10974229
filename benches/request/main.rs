//! What the layer adds to a request: an axum app called in process, without anything around it, with
//! a layer that does nothing, with `axum::middleware::from_fn`, and with the session layer.
//! `just bench request`.
//!
//! The request is of a live session that was chosen at random; making it and dropping it is not counted.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]

#[path = "../request/app.rs"]
mod app;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/least.rs"]
mod least;

use std::{convert::Infallible, time::Duration};

use axum::{Router, extract::Request, response::Response};
use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http_body::Body;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service};

use self::{
    app::{Answer, NoOp},
    common::ids::Ids,
    least::Least,
};

struct Bench<'a> {
    criterion: &'a mut Criterion,
    runtime: &'a Runtime,
    answer: Answer,
}

impl Bench<'_> {
    /// What `make` makes is made when it is wanted: some of the others take their time.
    fn run<S, B>(&mut self, name: &str, sessions: usize, make: impl FnOnce() -> (S, Vec<String>))
    where
        S: Service<Request, Response = Response<B>, Error = Infallible>,
        B: Body<Data = Bytes> + Unpin,
    {
        let mut group = self.criterion.benchmark_group(format!("request, {}", self.answer.name()));
        group.sample_size(30);
        group.warm_up_time(Duration::from_millis(500));
        group.measurement_time(Duration::from_secs(2));
        let mut random = 1_u64;
        let (mut make, mut made) = (Some(make), None);
        group.bench_function(BenchmarkId::new(name, sessions), |bencher| {
            if let Some(make) = make.take() {
                made = Some(make());
            }
            let (service, ids) = made.as_mut().unwrap();
            let _context = self.runtime.enter();
            let next = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                app::request(&ids[(random >> 33) as usize % ids.len()])
            };
            let exchange = |request| app::exchange(service, request);
            // Few ahead: a request that was just read from a socket is in the cache.
            bencher.iter_batched(next, exchange, BatchSize::NumIterations(16));
        });
        group.finish();
    }

    /// Ids that nobody looks up.
    fn without<S, B>(&mut self, name: &str, service: S)
    where
        S: Service<Request, Response = Response<B>, Error = Infallible>,
        B: Body<Data = Bytes> + Unpin,
    {
        let ids = || Ids::new(1_000).iter().map(str::to_owned).collect();
        self.run(name, 0, || (service, ids()));
    }

    fn behind_the_layer(&mut self, sessions: usize) {
        let app = self.answer.app();
        self.run("a header, a lookup, an extension", sessions, || {
            let ids: Vec<_> = Ids::new(sessions as u64).iter().map(str::to_owned).collect();
            (Least::new(sessions).with(&ids).layer(app), ids)
        });
        let (app, runtime) = (self.answer.app(), self.runtime);
        self.run("the layer", sessions, || {
            let service = app::layer(sessions).layer(app);
            let ids = app::open(runtime, &service, sessions);
            (service, ids)
        });
        let app = self.answer.app();
        self.run("the layer, by Router::layer", sessions, || {
            let router = app.layer(app::layer(sessions));
            let ids = app::open(runtime, &router, sessions);
            (router, ids)
        });
    }
}

fn request(criterion: &mut Criterion) {
    let sizes: &[usize] =
        if common::is_test() { &[10] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for answer in Answer::ALL {
        let mut bench = Bench { criterion, runtime: &runtime, answer };
        let app: Router = answer.app();
        bench.without("bare", app.clone());
        bench.without("no-op layer", NoOp.layer(app.clone()));
        bench.without("no-op layer, by Router::layer", app.clone().layer(NoOp));
        bench.without("from_fn", app::through_from_fn(app));
        for &size in sizes {
            bench.behind_the_layer(size);
        }
    }
}

criterion_group!(benches, request);
criterion_main!(benches);
