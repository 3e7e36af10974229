//! A request that the layer answers itself leaves nothing reserved in the service inside.

use axum::body::Body;
use http::{Request, Response};
use mcp_session_layer::{McpSessionLayer, SessionBody, WhenFull};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, buffer::Buffer,
    limit::ConcurrencyLimitLayer, util::BoxCloneSyncService,
};

use crate::{common::*, server::*, stage::*};

type Outside = BoxCloneSyncService<Request<Body>, Response<SessionBody<Body>>, BoxError>;
type Refusal = (&'static str, u16, fn(&str) -> Request<Body>);

/// What the layer answers without a call, at a session of alice's with one stream.
const REFUSALS: [Refusal; 13] = [
    ("an unknown id", 404, |_| of("alice", call("unknown", "ping"))),
    ("an unknown id with GET", 404, |_| of("alice", get("unknown"))),
    ("an unknown id with DELETE", 404, |_| of("alice", delete("unknown"))),
    ("the id of another", 404, |id| of("bob", call(id, "ping"))),
    ("the id at another path", 404, |id| of("alice", at(call(id, "ping"), "/other"))),
    ("an empty id", 400, |_| of("alice", call("", "ping"))),
    ("two ids", 400, |id| of("alice", with_id(call(id, "ping"), id))),
    ("a long id", 400, |_| of("alice", call(&"x".repeat(5_000), "ping"))),
    ("no id", 400, |_| of("alice", json_post(message("ping", &serde_json::json!({}))))),
    ("a repeated member", 400, |_| {
        of("alice", json_post(r#"{"jsonrpc":"2.0","method":"a","method":"b"}"#))
    }),
    ("nobody", 403, |_| initialize()),
    ("nobody in disguise", 403, |_| json_post("?")),
    ("a long path", 414, |_| of("alice", at(initialize(), &format!("/mcp?{}", "x".repeat(5_000))))),
];

/// `ConcurrencyLimit(1)` inside of the layer, which opens five sessions of alice.
struct Rig<S> {
    own: Own,
    service: S,
    ids: Vec<String>,
    watched: Watched,
}

async fn ask_ready<S, B>(service: &mut S, request: Request<Body>) -> Reply
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = bytes::Bytes>,
    B::Error: std::fmt::Debug,
{
    let answer = service.ready().await.unwrap().call(sent(request)).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    Reply { status: parts.status, headers: parts.headers, body }
}

impl Rig<Outside> {
    async fn new(buffered: bool, configure: fn(McpSessionLayer) -> McpSessionLayer) -> Self {
        let own = Own::default();
        let layer = by_user(McpSessionLayer::new().idle_timeout(IDLE));
        let (layer, watched) = watch(&FakeServer::default(), configure(layer));
        let inner = ServiceBuilder::new()
            .layer(ConcurrencyLimitLayer::new(1))
            .service(proper(&own).map_err(|never| match never {}));
        let layered = layer.layer(inner);
        let mut service = if buffered {
            Outside::new(Buffer::new(layered, 8))
        } else {
            Outside::new(layered.map_err(|never: std::convert::Infallible| match never {}))
        };
        let mut ids = Vec::new();
        for _ in 0..5 {
            let reply = ask_ready(&mut service, of("alice", initialize())).await;
            let id = reply.id().unwrap().to_owned();
            watched.learn(&id);
            assert_eq!(ask_ready(&mut service, of("alice", call(&id, "ping"))).await.status, 200);
            ids.push(id);
        }
        Self { own, service, ids, watched }
    }
}

#[tokio::test(start_paused = true)]
async fn the_layers_own_delete_gets_the_place_that_a_refused_request_had_reserved() {
    for buffered in [true, false] {
        for (what, code, refused) in REFUSALS {
            let Rig { own, mut service, ids, watched } = Rig::new(buffered, |layer| layer).await;
            let reply = ask_ready(&mut service, refused(&ids[0])).await;
            assert_eq!(reply.status, code, "{what}");
            pass(IDLE + TICK).await;
            assert_eq!(
                (watched.sessions.len(), own.live()),
                (0, 0),
                "{what}, buffered: {buffered}"
            );
            assert_eq!(watched.sessions.stats().terminate_failures, 0, "{what}");
            drop(service);
            watched.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_too_many_and_a_full_table_reserve_nothing_either() {
    for buffered in [true, false] {
        let Rig { own, mut service, ids, watched } =
            Rig::new(buffered, |layer| layer.max_streams(1).max_sessions(5)).await;
        let request = of("alice", initialize());
        assert_eq!(ask_ready(&mut service, request).await.status, 503);
        let stream = service.ready().await.unwrap().call(sent(of("alice", get(&ids[0])))).await;
        drop(stream.unwrap());
        pass(IDLE + TICK).await;
        assert_eq!(own.live(), 0);
        drop(service);
        watched.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_newcomer_waits_for_the_place_of_another_session_that_ones_delete_can_be_sent() {
    for buffered in [true, false] {
        let evicting: fn(McpSessionLayer) -> McpSessionLayer =
            |layer| layer.max_sessions(5).when_full(WhenFull::EvictIdle);
        let Rig { own, mut service, ids, watched } = Rig::new(buffered, evicting).await;
        own.delete_takes(SECOND);
        let before = tokio::time::Instant::now();
        let next = ask_ready(&mut service, of("alice", initialize())).await;
        assert_eq!((next.status.as_u16(), before.elapsed()), (200, SECOND), "{buffered}");
        assert!(own.ended().len() == 1 && ids.contains(&own.ended()[0]));
        watched.learn(next.id().unwrap());
        drop(service);
        watched.finish().await;
        assert_eq!(own.live(), 0);
    }
}
