//! The layer among others: routers, nesting, tower-http, and several routes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{HeaderName, HeaderValue, StatusCode},
    routing::{any, post},
};
use common::*;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use mcp_session_layer::{McpSessionLayer, Session};
use serde_json::json;
use tower::{Layer, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, cors::CorsLayer,
    timeout::TimeoutLayer, trace::TraceLayer,
};

async fn ask(app: &Router, request: Request<Body>) -> (StatusCode, Option<String>, String) {
    let answer = app.clone().oneshot(request).await.unwrap();
    let id = answer.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, id, String::from_utf8_lossy(&body).into_owned())
}

fn at(mut request: Request<Body>, path: &str) -> Request<Body> {
    *request.uri_mut() = path.parse().unwrap();
    request
}

/// The fake server, at whatever path it is mounted.
fn server(
    fake: &FakeServer,
) -> impl tower::Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Send + use<>,
> + Clone
+ Send
+ Sync
+ use<> {
    let fake = fake.clone();
    service_fn(move |request: Request<Body>| fake.clone().oneshot(at(request, "/mcp")))
}

#[tokio::test(start_paused = true)]
async fn all_the_ways_to_mount_it_live_and_close_alike() {
    type Mount = fn(&FakeServer, McpSessionLayer) -> Router;
    let mounts: [(&str, Mount); 6] = [
        ("/mcp", |fake, layer| Router::new().route_service("/mcp", server(fake)).layer(layer)),
        ("/mcp", |fake, layer| Router::new().nest_service("/mcp", server(fake)).layer(layer)),
        ("/any/where", |fake, layer| Router::new().fallback_service(server(fake)).layer(layer)),
        ("/api/mcp", |fake, layer| {
            let inner = Router::new().route_service("/mcp", server(fake)).layer(layer);
            Router::new().nest("/api", inner)
        }),
        ("/api/mcp", |fake, layer| {
            let inner = Router::new().route_service("/mcp", server(fake));
            Router::new().nest("/api", inner).layer(layer)
        }),
        ("/mcp", |fake, layer| {
            let service = ServiceBuilder::new().layer(layer).service(server(fake));
            Router::new().route_service("/mcp", service)
        }),
    ];
    for (path, mount) in mounts {
        let fake = FakeServer::default();
        let (layer, watched) = watch(&fake, McpSessionLayer::new().idle_timeout(IDLE));
        let app = mount(&fake, layer);
        let (status, id, _) = ask(&app, at(initialize(), path)).await;
        let id = id.unwrap();
        watched.learn(&id);
        assert_eq!(status, 200);
        assert_eq!(ask(&app, at(call(&id, "ping"), path)).await.0, 200);
        pass(IDLE + TICK).await;
        assert_eq!((watched.sessions.len(), fake.sessions().len()), (0, 0), "at {path}");
        assert_eq!(ask(&app, at(call(&id, "ping"), path)).await.0, 404);
        assert_eq!(watched.sessions.stats().terminate_failures, 0);
        watched.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_route_under_one_layer_shares_one_table_and_is_closed_where_it_was_opened() {
    let (one, two) = (FakeServer::default(), FakeServer::default());
    let (layer, watched) = watch(&one, McpSessionLayer::new().idle_timeout(IDLE).max_sessions(2));
    let app = Router::new()
        .route_service("/one", server(&one))
        .route_service("/two", server(&two))
        .layer(layer);
    for path in ["/one", "/two"] {
        watched.learn(&ask(&app, at(initialize(), path)).await.1.unwrap());
    }
    assert_eq!(watched.sessions.len(), 2);
    assert_eq!(ask(&app, at(initialize(), "/one")).await.0, 503, "one cap for both");
    pass(IDLE + TICK).await;
    assert_eq!((one.sessions().len(), two.sessions().len()), (0, 0));
    assert_eq!((one.count(&Method::DELETE), two.count(&Method::DELETE)), (1, 1));
    watched.finish().await;
    assert_eq!(two.busy(), 0);
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_layer_share_its_sessions() {
    let fake = FakeServer::default();
    let (layer, watched) = watch(&fake, McpSessionLayer::new());
    let one = Router::new().fallback_service(server(&fake)).layer(layer.clone());
    let two = Router::new().fallback_service(server(&fake)).layer(layer.clone());
    let id = ask(&one, initialize()).await.1.unwrap();
    assert_eq!(ask(&two, call(&id, "ping")).await.0, 200);
    assert_eq!((layer.sessions().len(), watched.sessions.len()), (1, 1));
    watched.finish().await;
}

/// Not watched: who watches has the sessions, and it is the clone that must keep them.
#[tokio::test(start_paused = true)]
async fn the_last_clone_of_a_layer_keeps_its_sessions() {
    let fake = FakeServer::default();
    let layer = McpSessionLayer::new();
    let app = Router::new().fallback_service(server(&fake)).layer(layer.clone());
    ask(&app, initialize()).await.1.unwrap();
    let other = layer.clone();
    drop((app, layer));
    pass(SECOND).await;
    assert_eq!((other.sessions().len(), fake.sessions().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_changed_clone_is_a_layer_of_its_own() {
    let (base, fake) = (McpSessionLayer::new(), FakeServer::default());
    let (strict, of_strict) = watch(&fake, base.clone().max_sessions(1));
    let (base, of_base) = watch(&FakeServer::default(), base);
    let app = Router::new().fallback_service(server(&fake)).layer(strict.clone());
    ask(&app, initialize()).await;
    assert_eq!((strict.sessions().len(), base.sessions().len()), (1, 0));
    of_strict.finish().await;
    of_base.finish().await;
}

#[tokio::test(start_paused = true)]
async fn it_composes_with_tower_http() {
    let fake = FakeServer::default();
    let (layer, watched) = watch(&fake, McpSessionLayer::new().idle_timeout(IDLE));
    let app = Router::new()
        .route_service("/mcp", server(&fake))
        .route("/health", any(|| async { "ok" }))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SECOND * 30))
        .layer(layer)
        .layer(CatchPanicLayer::new())
        .layer(CompressionLayer::new())
        .layer(CorsLayer::permissive().expose_headers([HeaderName::from_static("mcp-session-id")]))
        .layer(ConcurrencyLimitLayer::new(64))
        .layer(TraceLayer::new_for_http());
    let id = ask(&app, initialize()).await.1.unwrap();
    watched.learn(&id);
    assert_eq!(ask(&app, call(&id, "ping")).await.0, 200);

    let slow = call_with(&id, "sleep", &json!({ "ms": 60_000 }));
    assert_eq!(ask(&app, slow).await.0, 504, "a timeout inside ends the call");
    assert_eq!(ask(&app, call(&id, "panic")).await.0, 500, "a panic inside ends the call");
    assert_eq!(watched.sessions.stats().in_flight, 0);

    let mut preflight = bare(Method::OPTIONS);
    for (name, value) in [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "mcp-session-id"),
    ] {
        preflight.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let preflight = app.clone().oneshot(preflight).await.unwrap();
    assert_eq!(preflight.status(), 200);
    assert_eq!(preflight.headers()["access-control-allow-headers"], "*");

    let lost = app.clone().oneshot(call("unknown", "ping")).await.unwrap();
    assert_eq!(lost.headers()["access-control-expose-headers"], "mcp-session-id");
    pass(IDLE + TICK).await;
    assert_eq!((watched.sessions.len(), fake.sessions().len()), (0, 0));
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_cancels_the_call_and_lets_go() {
    let fake = FakeServer::default();
    let (layer, watched) = watch(&fake, McpSessionLayer::new().idle_timeout(IDLE));
    let app = Router::new()
        .fallback_service(server(&fake))
        .layer(layer)
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SECOND));
    let id = ask(&app, initialize()).await.1.unwrap();
    watched.learn(&id);
    assert_eq!(ask(&app, call_with(&id, "sleep", &json!({ "ms": 5_000 }))).await.0, 504);
    assert_eq!(watched.sessions.stats().in_flight, 0);
    fake.change(|manners| manners.open_delay = SECOND * 5);
    assert_eq!(ask(&app, initialize()).await.0, 504);
    pass(SECOND * 10).await;
    let left = (watched.sessions.len(), fake.sessions().len());
    assert_eq!(left, (1, 1), "the late session was closed");
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn handlers_take_the_session_as_an_argument() {
    async fn must(session: Session) -> String {
        let calls = session.state().get_or_insert_with(std::sync::atomic::AtomicU32::default);
        let nth = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        format!("call {nth}")
    }
    async fn may(session: Option<Session>) -> String {
        session.is_some().to_string()
    }
    let layer = McpSessionLayer::new().idle_timeout(IDLE);
    let (layer, watched) = watch(&FakeServer::default(), layer);
    let app: Router = Router::new()
        .route("/mcp", post(must))
        .route("/may/{what}", post(|_: Path<String>, session: Option<Session>| may(session)))
        .layer(layer);
    let (_, id, body) = ask(&app, json_post(initialize_body().to_string())).await;
    assert_eq!((id, body.as_str()), (None, "call 0"), "text is no answer to initialize");
    let (status, _, body) = ask(&app, json_post("{}")).await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::BAD_REQUEST, "the request belongs to no MCP session")
    );
    assert_eq!(ask(&app, at(json_post("{}"), "/may/x")).await.2, "false");
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_inner_layer_that_wants_credentials_gets_them_from_the_hook() {
    let fake = FakeServer::default();
    let guarded = {
        let fake = server(&fake);
        service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                match request.headers().get("authorization") {
                    Some(key) if key == "Bearer inner" => fake.oneshot(request).await,
                    _ => Ok(Response::builder().status(401).body(Body::empty()).unwrap()),
                }
            }
        })
    };
    for with_hook in [true, false] {
        let mut layer = McpSessionLayer::new().idle_timeout(IDLE);
        if with_hook {
            layer = layer.terminate_with(|_, parts| {
                parts.headers.insert("authorization", HeaderValue::from_static("Bearer inner"));
            });
        }
        let (layer, watched) = watch(&fake, layer);
        let app = Router::new().fallback_service(guarded.clone()).layer(layer);
        let mut open = initialize();
        open.headers_mut().insert("authorization", HeaderValue::from_static("Bearer inner"));
        watched.learn(&ask(&app, open).await.1.unwrap());
        pass(IDLE + TICK).await;
        assert_eq!(watched.sessions.stats().terminate_failures, u64::from(!with_hook));
        assert_eq!(fake.sessions().is_empty(), with_hook);
        watched.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_must_be_polled_ready_is() {
    #[derive(Clone)]
    struct Strict {
        ready: bool,
        fake: FakeServer,
    }
    impl tower::Service<Request<Body>> for Strict {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = <FakeServer as tower::Service<Request<Body>>>::Future;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            self.ready = true;
            std::task::Poll::Ready(Ok(()))
        }
        fn call(&mut self, request: Request<Body>) -> Self::Future {
            assert!(std::mem::take(&mut self.ready), "called without being ready");
            self.fake.call(request)
        }
    }
    let fake = FakeServer::default();
    let (layer, watched) = watch(&fake, McpSessionLayer::new().idle_timeout(IDLE));
    let mut service = layer.layer(Strict { ready: false, fake: fake.clone() });
    let send = async |service: &mut mcp_session_layer::McpSessionService<Strict>, request| {
        let service = ServiceExt::<Request<Body>>::ready(service).await.unwrap();
        read(tower::Service::call(service, request).await.unwrap()).await
    };
    let id = send(&mut service, initialize()).await.id().unwrap().to_owned();
    watched.learn(&id);
    for _ in 0..3 {
        assert_eq!(send(&mut service, call(&id, "ping")).await.status, 200);
        assert_eq!(send(&mut service, json_post("{}")).await.status, 200);
    }
    pass(IDLE + TICK).await;
    assert_eq!((watched.sessions.len(), fake.sessions().len()), (0, 0));
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_layer_can_be_built_outside_of_a_runtime() {
    let fake = FakeServer::default();
    let behind = fake.clone();
    let layer = std::thread::spawn(move || {
        watch(&behind, McpSessionLayer::new().idle_timeout(Duration::from_millis(100)))
    });
    let (layer, watched) = layer.join().unwrap();
    let service = layer.layer(fake.clone());
    read(service.clone().oneshot(initialize()).await.unwrap()).await;
    // Closed from a thread without a runtime: told through the one where it was opened.
    let outside = watched.sessions.clone();
    std::thread::spawn(move || assert_eq!(outside.close_all(), 1)).join().unwrap();
    pass(SECOND).await;
    assert_eq!((fake.sessions().len(), watched.sessions.stats().closing), (0, 0));
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_method_router_given_whole_is_told_at_its_delete_handler() {
    let fake = FakeServer::default();
    let handler = |fake: &FakeServer| {
        let fake = fake.clone();
        move |request: Request<Body>| async move { fake.oneshot(request).await.unwrap() }
    };
    let methods: axum::routing::MethodRouter = post(handler(&fake)).delete(handler(&fake));
    let (layer, watched) = watch(&fake, McpSessionLayer::new().idle_timeout(IDLE));
    let app = Router::new().route_service("/mcp", layer.layer(methods));
    watched.learn(&ask(&app, initialize()).await.1.unwrap());
    pass(IDLE + TICK).await;
    assert_eq!((watched.sessions.stats().terminate_failures, fake.sessions().len()), (0, 0));
    watched.finish().await;
}
