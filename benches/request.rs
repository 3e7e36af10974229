//! What the layer adds to a request: a JSON answer without it, with a layer that does nothing, and
//! with it on a session that is open. `cargo bench --bench touch`.

use std::{convert::Infallible, hint::black_box};

use axum::body::Body;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use mcp_session_layer::McpSessionLayer;
use tokio::runtime::Builder;
use tower::{Layer, Service, ServiceExt, layer::util::Identity, service_fn};

async fn answer(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from("{}")))
}

fn post(id: Option<&str>) -> Request<Body> {
    let request = Request::post("/mcp").header("content-type", "application/json");
    let request = id.into_iter().fold(request, |request, id| request.header("mcp-session-id", id));
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
    request.body(Body::from(body)).unwrap_or_default()
}

fn run<S, B>(criterion: &mut Criterion, name: &str, service: &S, id: Option<&str>)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
{
    let runtime = Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    criterion.bench_function(name, |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || (service.clone(), post(id)),
            |(service, request)| async { drop(black_box(service.oneshot(request).await)) },
            criterion::BatchSize::SmallInput,
        );
    });
}

fn touch(criterion: &mut Criterion) {
    let server = service_fn(answer);
    run(criterion, "bare", &server, None);
    run(criterion, "no-op layer", &Identity::new().layer(server), None);

    let layer = McpSessionLayer::new();
    let service = layer.layer(server);
    let runtime = Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    for live in [1_000, 9_000] {
        let mut id = String::new();
        runtime.block_on(async {
            while layer.sessions().len() < live {
                let Ok(opened) = service.clone().oneshot(post(None)).await;
                let header = opened.headers().get("mcp-session-id");
                id = header.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
            }
        });
        run(criterion, &format!("session layer, {live} live"), &service, Some(&id));
    }
}

criterion_group!(benches, touch);
criterion_main!(benches);
