//! The closing DELETE reaches handlers that insist on what a router or a layer outside puts into a request.

use std::net::{Ipv4Addr, SocketAddr};

use axum::{
    Extension, Router,
    body::Body,
    extract::{ConnectInfo, MatchedPath, OriginalUri, Path, Query, State},
    middleware::map_request,
    response::Response as AxumResponse,
    routing::{MethodRouter, any},
};
use http::{HeaderMap, Method, Request};
use mcp_session_layer::{McpSessionLayer, Session, UnknownIds};

use crate::{common::*, server::*, stage::*};

/// What a layer outside sets.
#[derive(Clone)]
struct Tenant(&'static str);

/// The rest of every handler here: a server that opens sessions of its own.
async fn serve(own: &Own, method: Method, headers: &HeaderMap) -> AxumResponse {
    let id = headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
    match id {
        Some(id) if method == Method::DELETE => status(if own.end(&id) { 204 } else { 404 }),
        Some(_) if headers.contains_key("x-another") => named(result(), &own.open()),
        Some(id) => status(if own.has(&id) { 200 } else { 404 }),
        None => named(result(), &own.open()),
    }
}

type Ours = (State<Own>, Method, HeaderMap);

fn handlers() -> Vec<(&'static str, MethodRouter<Own>)> {
    let one = any(|Path(ws): Path<String>, (State(own), method, headers): Ours| async move {
        assert!(ws.starts_with("team"), "{ws}");
        serve(&own, method, &headers).await
    });
    let matched = any(|matched: MatchedPath, (State(own), method, headers): Ours| async move {
        assert!(matched.as_str().ends_with("{ws}/mcp"), "{matched:?}");
        serve(&own, method, &headers).await
    });
    let original =
        any(|OriginalUri(uri): OriginalUri, (State(own), method, headers): Ours| async move {
            assert!(uri.path().contains("/w/team"), "{uri}");
            assert_eq!(uri.query(), Some("x=1"));
            serve(&own, method, &headers).await
        });
    let query = any(
        |Query(query): Query<Vec<(String, u8)>>, (State(own), method, headers): Ours| async move {
            assert_eq!(query, [("x".to_owned(), 1)]);
            serve(&own, method, &headers).await
        },
    );
    let extension = any(
        |Extension(Tenant(name)): Extension<Tenant>, (State(own), method, headers): Ours| async move {
            assert_eq!(name, "acme");
            serve(&own, method, &headers).await
        },
    );
    let connected = any(
        |ConnectInfo(peer): ConnectInfo<SocketAddr>, (State(own), method, headers): Ours| async move {
            assert_eq!(peer.port(), 4_711);
            serve(&own, method, &headers).await
        },
    );
    vec![
        ("Path", one),
        ("MatchedPath", matched),
        ("OriginalUri", original),
        ("Query", query),
        ("Extension", extension),
        ("ConnectInfo", connected),
    ]
}

/// With more than one parameter.
fn nested_handlers() -> Vec<(&'static str, MethodRouter<Own>)> {
    let both = any(
        |Path((x, ws)): Path<(String, String)>, (State(own), method, headers): Ours| async move {
            assert_eq!((x.as_str(), ws.as_str()), ("out er", "team-1"));
            serve(&own, method, &headers).await
        },
    );
    let mut all = handlers();
    all[0] = ("Path of two", both);
    all
}

type Mount = fn(MethodRouter<Own>, McpSessionLayer, &Own) -> Router;

const FLAT: [(&str, Mount); 3] = [
    ("around the router", |handler, layer, own| {
        Router::new().route("/w/{ws}/mcp", handler).layer(layer).with_state(own.clone())
    }),
    ("around the route", |handler, layer, own| {
        Router::new().route("/w/{ws}/mcp", handler).route_layer(layer).with_state(own.clone())
    }),
    ("around the handler", |handler, layer, own| {
        Router::new().route("/w/{ws}/mcp", handler.layer(layer)).with_state(own.clone())
    }),
];

const NESTED: [(&str, Mount); 3] = [
    ("inside of the nest", |handler, layer, own| {
        let inner = Router::new().route("/w/{ws}/mcp", handler).layer(layer);
        Router::new().nest("/a/{x}", inner).with_state(own.clone())
    }),
    ("outside of the nest", |handler, layer, own| {
        let inner = Router::new().route("/w/{ws}/mcp", handler);
        Router::new().nest("/a/{x}", inner).layer(layer).with_state(own.clone())
    }),
    ("inside of two nests", |handler, layer, own| {
        let inner = Router::new().route("/{ws}/mcp", handler).layer(layer);
        Router::new().nest("/a/{x}", Router::new().nest("/w", inner)).with_state(own.clone())
    }),
];

/// How the server came to open a session.
#[derive(Clone, Copy, Debug)]
enum Way {
    Initialize,
    /// A GET without an id is given one.
    Refused,
    /// By what the layer does not read for sure.
    Batch,
    Text,
    /// Under another, twice: the second is expected.
    UnderLive,
}

async fn idles_out(what: &str, path: &str, handler: MethodRouter<Own>, mount: Mount, way: Way) {
    let own = Own::default();
    let layer = McpSessionLayer::new()
        .idle_timeout(IDLE)
        .forward_missing_ids()
        .keep_extension::<Tenant>()
        .keep_extension::<ConnectInfo<SocketAddr>>();
    let (layer, watched) = watch(&FakeServer::default(), layer);
    let app = mount(handler, layer, &own).layer(map_request(async |mut request: Request<Body>| {
        request.extensions_mut().insert(Tenant("acme"));
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 4_711));
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    }));
    let app = watched.learn_from(app);
    let send = async |request| ask(&app, at(request, path)).await;
    let given = async |request| {
        let reply = send(request).await;
        reply.id().unwrap_or_else(|| panic!("{what}: {reply:?}")).to_owned()
    };
    let body = initialize_body().to_string();
    let opened = match way {
        Way::Refused => {
            assert_eq!(send(bare(Method::GET)).await.id(), None, "{what}");
            1
        }
        Way::Batch => given(json_post(format!("[{body}]"))).await.len().min(1),
        Way::Text => given(post(Some("text/plain"), body)).await.len().min(1),
        Way::Initialize => {
            let id = given(initialize()).await;
            assert_eq!(send(call(&id, "ping")).await.status, 200, "{what}");
            1
        }
        Way::UnderLive => {
            let id = given(initialize()).await;
            for _ in 0..2 {
                let other = given(with(with_id(initialize(), &id), "x-another", "yes")).await;
                assert_ne!(other, id);
            }
            3
        }
    };
    assert_eq!(own.opened().len(), opened, "{what}");
    pass(IDLE + TICK).await;
    assert_eq!((watched.sessions.len(), own.live()), (0, 0), "{what}");
    assert_eq!(watched.sessions.stats().terminate_failures, 0, "{what}");
    drop(app);
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn it_reaches_a_handler_whatever_that_takes() {
    for (mounted, mount) in FLAT {
        for (taken, handler) in handlers() {
            idles_out(
                &format!("{taken}, {mounted}"),
                "/w/team-1/mcp?x=1",
                handler,
                mount,
                Way::Initialize,
            )
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_reaches_a_handler_inside_of_nests_with_parameters() {
    for (mounted, mount) in NESTED {
        for (taken, handler) in nested_handlers() {
            let path = "/a/out%20er/w/team-1/mcp?x=1";
            idles_out(&format!("{taken}, {mounted}"), path, handler, mount, Way::Initialize).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_reaches_them_however_the_session_was_opened() {
    for way in [Way::Refused, Way::Batch, Way::Text, Way::UnderLive] {
        for (mounted, mount) in FLAT {
            for (taken, handler) in handlers() {
                let what = format!("{taken}, {mounted}, {way:?}");
                idles_out(&what, "/w/team-1/mcp?x=1", handler, mount, way).await;
            }
        }
        for (mounted, mount) in NESTED {
            for (taken, handler) in nested_handlers() {
                let what = format!("{taken}, {mounted}, {way:?}");
                idles_out(&what, "/a/out%20er/w/team-1/mcp?x=1", handler, mount, way).await;
            }
        }
    }
}

/// A session that is opened, and is not wanted after all.
#[tokio::test(start_paused = true)]
async fn what_was_kept_and_left_in_the_state_is_there_for_a_session_that_never_was_open() {
    #[derive(Debug)]
    struct Left;

    let failure = r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#;
    for unknown_ids in [UnknownIds::Reject, UnknownIds::Forward] {
        let own = Own::default();
        let inner = scripted(&own, move |own, call| async move {
            let extensions = &call.parts.extensions;
            if call.method() == Method::DELETE {
                let has = extensions.get::<Tenant>().is_some()
                    && call.parts.headers.contains_key("x-left");
                return (!has).then(|| status(401));
            }
            extensions.get::<Session>()?.state().get_or_insert_with(|| Left);
            Some(named(answer(200, JSON, failure), &own.open()))
        });
        let stage = Stage::new(&own, inner, |layer| {
            layer.unknown_ids(unknown_ids).keep_extension::<Tenant>().terminate_with(
                |session, parts| {
                    if session.state().get::<Left>().is_some() {
                        parts.headers.insert("x-left", "yes".parse().unwrap());
                    }
                },
            )
        });
        for mut request in [initialize(), call(&unique("unknown"), "ping")] {
            request.extensions_mut().insert(Tenant("acme"));
            assert_eq!(stage.ask(request).await.id(), None);
        }
        pass(SECOND).await;
        let opened = if unknown_ids == UnknownIds::Forward { 2 } else { 1 };
        assert_eq!((own.opened().len(), own.live()), (opened, 0), "{unknown_ids:?}");
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_to_keep_is_not_kept() {
    #[derive(Clone)]
    struct Secret;

    let own = Own::default();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&seen);
    let inner = scripted(&own, move |own, call| {
        let log = std::sync::Arc::clone(&log);
        async move {
            let extensions = &call.parts.extensions;
            let has = (extensions.get::<Tenant>().is_some(), extensions.get::<Secret>().is_some());
            log.lock().unwrap().push((call.method().clone(), has, call.parts.headers.clone()));
            call.is_initialize().then(|| named(result(), &own.open()))
        }
    });
    let stage = Stage::new(&own, inner, |layer| layer.keep_extension::<Tenant>());
    let mut request = with(initialize(), "authorization", "Bearer secret");
    request.extensions_mut().insert(Tenant("acme"));
    request.extensions_mut().insert(Secret);
    stage.ask(request).await;
    stage.sessions.close_all();
    pass(SECOND).await;
    let seen: Vec<_> = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!((seen[0].1, seen[1].1), ((true, true), (true, false)));
    assert_eq!(seen[1].0, Method::DELETE);
    let names: Vec<_> = seen[1].2.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&"host") && names.contains(&"mcp-session-id"));
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_route_with_a_literal_colon_is_found_again_too() {
    let own = Own::default();
    let handler = any(|matched: MatchedPath, (State(own), method, headers): Ours| async move {
        assert_eq!(matched.as_str(), "/:literal/mcp");
        serve(&own, method, &headers).await
    });
    let layer = McpSessionLayer::new().idle_timeout(IDLE);
    let (layer, watched) = watch(&FakeServer::default(), layer);
    let routes = Router::new().without_v07_checks().route("/:literal/mcp", handler);
    let app = watched.learn_from(routes.with_state(own.clone()).layer(layer).with_state(()));
    let reply = ask(&app, at(initialize(), "/:literal/mcp")).await;
    assert_eq!((reply.status.as_u16(), own.live()), (200, 1), "{reply:?}");
    assert_eq!(watched.sessions.close_all(), 1);
    pass(SECOND / 2).await;
    assert_eq!((own.live(), watched.sessions.stats().terminate_failures), (0, 0));
    drop(app);
    watched.finish().await;
}
