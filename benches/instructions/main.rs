//! Instructions of a touch and of a request, counted by callgrind: the same on a machine that is busy.
//! `just bench instructions`; needs valgrind, and the runner of this gungraun: `cargo install gungraun-runner`.
//!
//! More than 5 % above the baseline fails. A change that is worth more raises it, here, where it is seen.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]
#![allow(missing_docs, reason = "the macros make public functions")]

#[path = "../request/app.rs"]
mod app;
#[path = "../common/mod.rs"]
mod common;

use std::{convert::Infallible, time::Duration};

use axum::{Router, extract::Request, response::Response};
use bytes::Bytes;
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use http_body::Body;
use mcp_session_layer::bench::Core;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service};

use self::{
    app::{Answer, NoOp},
    common::ids::Ids,
};

/// Of each kind, so many in a row.
const ROUNDS: u64 = 100;

/// Instructions of one, with rustc 1.95 for `x86_64` (AVX2).
mod baseline {
    pub const TOUCH: u64 = 429;
    pub const JSON: u64 = 9_408;
    pub const SSE: u64 = 10_120;
}

fn at_most(baseline: u64) -> LibraryBenchmarkConfig {
    let limit = baseline * ROUNDS * 21 / 20;
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, limit)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// One that is not driven: the reaper is there and sleeps.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

struct Touched {
    core: Core,
    ids: Ids,
    runtime: Runtime,
}

fn sessions() -> Touched {
    let (core, ids, runtime) =
        (Core::new(10_000, Duration::from_secs(1_800)), Ids::new(1_000), runtime());
    {
        let _context = runtime.enter();
        ids.iter().for_each(|id| core.open(id));
        ids.iter().for_each(|id| assert!(core.touch(id) > 0));
    }
    Touched { core, ids, runtime }
}

#[library_benchmark(config = at_most(baseline::TOUCH), setup = sessions)]
#[bench::of_a_thousand_sessions()]
fn touch(touched: Touched) -> (Touched, u64) {
    let context = touched.runtime.enter();
    let step = u64::MAX / ROUNDS;
    let found = (0..ROUNDS).map(|n| touched.core.touch(touched.ids.get(n * step))).sum();
    drop(context);
    (touched, found)
}

struct Called<S> {
    service: S,
    requests: Vec<Request>,
    runtime: Runtime,
}

impl<S, B> Called<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes> + Unpin,
{
    fn new(mut service: S, id: &str, runtime: Runtime) -> Self {
        let context = runtime.enter();
        (0..10).for_each(|_| app::exchange(&mut service, app::request(id)));
        drop(context);
        let requests = (0..ROUNDS).map(|_| app::request(id)).collect();
        Self { service, requests, runtime }
    }

    fn run(mut self) -> Self {
        let context = self.runtime.enter();
        for request in self.requests.drain(..) {
            app::exchange(&mut self.service, request);
        }
        drop(context);
        self
    }
}

type Behind = mcp_session_layer::McpSessionService<Router>;

fn behind(answer: Answer) -> Called<Behind> {
    let runtime = runtime();
    let service = app::layer(1_000).layer(answer.app());
    let ids = app::open(&runtime, &service, 1_000);
    Called::new(service, &ids[500], runtime)
}

fn beside(answer: Answer) -> Called<app::NoOpService<Router>> {
    Called::new(NoOp.layer(answer.app()), "an-id", runtime())
}

#[library_benchmark]
#[bench::json(args = (Answer::Json), config = at_most(baseline::JSON), setup = behind)]
#[bench::sse(args = (Answer::Sse), config = at_most(baseline::SSE), setup = behind)]
fn request(called: Called<Behind>) -> Called<Behind> {
    called.run()
}

#[library_benchmark]
#[bench::json(args = (Answer::Json), setup = beside)]
#[bench::sse(args = (Answer::Sse), setup = beside)]
fn request_through_a_no_op_layer(
    called: Called<app::NoOpService<Router>>,
) -> Called<app::NoOpService<Router>> {
    called.run()
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [touch, request, request_through_a_no_op_layer]
);

main!(library_benchmark_groups = instructions);
