//! Allocations that the layer adds to a request. `just bench allocations`.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]

#[path = "../request/app.rs"]
mod app;
#[path = "../common/mod.rs"]
mod common;

use std::{alloc::System, convert::Infallible, sync::Arc};

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use http_body::Body;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Builder;
use tower::{Layer, Service};

use self::{
    app::{Answer, NoOp},
    common::Row,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const METRIC: &str = "allocations a request";

/// Of one request, the session in its extensions or not. `extended`: somebody outside has put an
/// extension into the request already, as `ConnectInfo` is.
fn count<S, B>(service: &mut S, id: &str, extended: bool, edit: impl Fn(&mut Request)) -> usize
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes> + Unpin,
{
    let mut counts = (0..100).map(|_| {
        let mut request = app::request(id);
        if extended {
            request.extensions_mut().insert(Outside);
        }
        let region = Region::new(ALLOCATOR);
        edit(&mut request);
        app::exchange(service, request);
        region.change().allocations
    });
    let first = counts.next().unwrap();
    counts.min().unwrap().min(first)
}

#[derive(Clone)]
struct Outside;

/// As large as what the layer inserts.
#[derive(Clone)]
struct Extension(#[allow(dead_code, reason = "only its size matters")] Arc<()>);

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _context = runtime.enter();
    let mut rows = Vec::new();
    for answer in Answer::ALL {
        for extended in [false, true] {
            let app = answer.app();
            let mut service = app::layer(1_000).layer(app.clone());
            let ids = app::open(&runtime, &service, 1_000);
            let id = &ids[0];
            let case = match (answer, extended) {
                (_, false) => answer.name().to_owned(),
                (_, true) => format!("{}, an extension there already", answer.name()),
            };
            let mut note = |subject: &str, count: usize| {
                rows.push(Row::of(subject, &case, 1_000, METRIC, &[count as f64]));
            };
            let nothing = |_: &mut Request| {};
            note("bare", count(&mut app.clone(), id, extended, nothing));
            note("no-op layer", count(&mut NoOp.layer(app.clone()), id, extended, nothing));
            let insert = |request: &mut Request| {
                request.extensions_mut().insert(Extension(Arc::clone(&SHARED)));
            };
            note("bare, with an extension inserted", count(&mut app.clone(), id, extended, insert));
            note("from_fn", count(&mut app::through_from_fn(app), id, extended, nothing));
            note("the layer", count(&mut service, id, extended, nothing));
        }
    }
    common::save("allocations", &rows);
}

static SHARED: std::sync::LazyLock<Arc<()>> = std::sync::LazyLock::new(Arc::default);
