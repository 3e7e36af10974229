//! A session is known where it was opened, and nowhere else.

use std::time::Duration;

use axum::{Router, body::Body};
use http::{Method, Request};
use mcp_session_layer::McpSessionLayer;

use crate::{common::*, server::*, stage::*};

/// One that leaves the ids to the layer.
fn without_ids(own: &Own) -> Inner {
    scripted(own, |_, _| async { Some(result()) })
}

type Server = fn(&Own) -> Inner;
type Mount = fn(Inner, Inner, McpSessionLayer) -> Router;

/// One layer around two servers, at `/a/mcp` and `/b/mcp`.
const MOUNTS: [(&str, Mount); 4] = [
    ("one router", |a, b, layer| {
        Router::new().route_service("/a/mcp", a).route_service("/b/mcp", b).layer(layer)
    }),
    ("nests inside", |a, b, layer| {
        let nest = |inner| Router::new().route_service("/mcp", inner);
        Router::new().nest("/a", nest(a)).nest("/b", nest(b)).layer(layer)
    }),
    ("nests outside", |a, b, layer| {
        let nest = |inner| Router::new().route_service("/mcp", inner).layer(layer.clone());
        Router::new().nest("/a", nest(a)).nest("/b", nest(b))
    }),
    ("nests with a parameter", |a, b, layer| {
        let nest = |inner| Router::new().route_service("/{what}", inner).layer(layer.clone());
        Router::new().nest("/a", nest(a)).nest("/b", nest(b))
    }),
];

const SERVERS: [(&str, Server); 2] =
    [("ids of the server", proper), ("ids of the layer", without_ids)];

struct Twins {
    a: Own,
    b: Own,
    app: Router,
    watched: Watched,
}

impl Twins {
    fn new(server: Server, mount: Mount) -> Self {
        let (a, b) = (Own::default(), Own::default());
        let layer = McpSessionLayer::new().idle_timeout(IDLE);
        let (layer, watched) = watch(&FakeServer::default(), layer);
        let app = watched.learn_from(mount(server(&a), server(&b), layer));
        Self { a, b, app, watched }
    }

    async fn ask(&self, path: &str, request: Request<Body>) -> Reply {
        ask(&self.app, at(request, path)).await
    }

    async fn open(&self) -> String {
        let id = self.ask("/a/mcp", initialize()).await.id().unwrap().to_owned();
        assert_eq!(self.ask("/a/mcp", call(&id, "ping")).await.status, 200);
        id
    }

    /// Events but rejections.
    fn deeds(&self) -> Vec<String> {
        let all = self.watched.events().into_iter();
        all.filter(|event| !event.starts_with("rejected")).collect()
    }

    async fn finish(self) {
        drop(self.app);
        self.watched.finish().await;
        assert_eq!((self.a.live(), self.b.live()), (0, 0));
    }
}

fn every_request(id: &str) -> Vec<Request<Body>> {
    let mut all = vec![call(id, "ping"), with_id(initialize(), id), with_id(json_post("?"), id)];
    for method in ["GET", "HEAD", "DELETE", "PUT", "OPTIONS", "PATCH"] {
        all.push(with_id(bare(method.parse().unwrap()), id));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn an_id_of_one_server_is_unknown_at_the_other_and_its_session_lives() {
    for ((mounted, mount), (ids, server)) in
        MOUNTS.into_iter().flat_map(|mount| SERVERS.map(|server| (mount, server)))
    {
        let twins = Twins::new(server, mount);
        let id = twins.open().await;
        let before = (twins.a.calls(), twins.watched.sessions.list()[0].clone());
        for request in every_request(&id) {
            let method = request.method().clone();
            let reply = twins.ask("/b/mcp", request).await;
            assert_eq!(reply.status, 404, "{mounted}, {ids}: {method}");
            if method != Method::HEAD {
                reply.assert_lost();
            }
        }
        assert_eq!(twins.b.calls(), 0, "{mounted}, {ids}: the other server was called");
        let after = (twins.a.calls(), twins.watched.sessions.list()[0].clone());
        assert_eq!((before.0, before.1.requests), (after.0, after.1.requests), "{mounted}, {ids}");
        assert_eq!((after.1.in_flight, after.1.streams), (0, 0));
        assert_eq!(twins.ask("/a/mcp", call(&id, "ping")).await.status, 200);
        assert_eq!(twins.deeds(), ["opened"]);
        twins.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_another_endpoint_moves_no_deadline() {
    for ((mounted, mount), (_, server)) in
        MOUNTS.into_iter().flat_map(|mount| SERVERS.map(|server| (mount, server)))
    {
        let twins = Twins::new(server, mount);
        let id = twins.open().await;
        for _ in 0..9 {
            pass(SECOND * 10).await;
            for request in every_request(&id) {
                assert_eq!(twins.ask("/b/mcp", request).await.status, 404);
            }
        }
        assert_eq!(twins.watched.sessions.len(), 1);
        pass(SECOND * 10 + TICK).await;
        assert_eq!(twins.watched.sessions.len(), 0, "{mounted}: its deadline was moved");
        assert_eq!(twins.deeds(), ["opened", "closed idle"]);
        twins.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_at_the_other_endpoint_after_the_deadline_finds_no_session_to_keep() {
    let twins = Twins::new(proper, MOUNTS[0].1);
    let id = twins.open().await;
    pass(IDLE + Duration::from_millis(1)).await;
    twins.ask("/b/mcp", call(&id, "ping")).await.assert_lost();
    twins.ask("/a/mcp", call(&id, "ping")).await.assert_lost();
    twins.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_at_the_twin_ends_nothing_200_times() {
    for (mounted, mount) in MOUNTS {
        // Says yes to any DELETE, as rmcp does, whatever it is called with.
        let agreeable: Server = |own| {
            scripted(own, |own, call| async move {
                if call.method() == Method::DELETE {
                    call.id().map(|id| own.end(&id));
                    return Some(status(202));
                }
                call.is_initialize().then(|| named(result(), &own.open()))
            })
        };
        let twins = Twins::new(agreeable, mount);
        for _ in 0..200 {
            let id = twins.open().await;
            twins.ask("/b/mcp", delete(&id)).await.assert_lost();
            assert!(twins.a.has(&id));
        }
        assert_eq!((twins.b.ended().len(), twins.watched.sessions.len()), (0, 200));
        pass(IDLE + TICK).await;
        assert_eq!(twins.a.live(), 0, "{mounted}: sessions stay in a");
        twins.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_below_the_endpoint_is_another_and_the_routers_404_closes_nothing() {
    for (ids, server) in SERVERS {
        let own = Own::default();
        let layer = McpSessionLayer::new().idle_timeout(IDLE);
        let (layer, watched) = watch(&FakeServer::default(), layer);
        let app = Router::new().route_service("/mcp", server(&own)).fallback(async || "fallback");
        let app = watched.learn_from(app.layer(layer));
        let id = ask(&app, initialize()).await.id().unwrap().to_owned();
        let calls = own.calls();
        for path in
            ["/mcp/anything", "/mcp/a/b", "/", "/mcpx", "/MCP", "/mcp%2f", "/%6dcp", "/x/mcp"]
        {
            for request in every_request(&id) {
                assert_eq!(ask(&app, at(request, path)).await.status, 404, "{path}");
            }
        }
        assert_eq!((own.calls(), watched.sessions.len()), (calls, 1));
        for path in ["/mcp", "/mcp?x=1", "/mcp?"] {
            let status = ask(&app, at(call(&id, "ping"), path)).await.status;
            assert_eq!(status, 200, "{path}, {ids}");
        }
        drop(app);
        watched.finish().await;
        assert_eq!(own.live(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slash_at_the_end_makes_no_difference() {
    for (opened, used) in [("/mcp", "/mcp/"), ("/mcp/", "/mcp")] {
        let own = Own::default();
        let layer = McpSessionLayer::new().idle_timeout(IDLE);
        let (layer, watched) = watch(&FakeServer::default(), layer);
        let app =
            Router::new().route_service("/mcp", proper(&own)).route_service("/mcp/", proper(&own));
        let app = watched.learn_from(app.layer(layer));
        let id = ask(&app, at(initialize(), opened)).await.id().unwrap().to_owned();
        assert_eq!(ask(&app, at(call(&id, "ping"), used)).await.status, 200);
        assert_eq!(ask(&app, at(delete(&id), used)).await.status, 204);
        assert_eq!((own.live(), watched.sessions.len()), (0, 0));
        drop(app);
        watched.finish().await;
    }
}
