//! How a session comes to be, and that nothing stays where it does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use common::*;
use http::{HeaderValue, Method, Request, Response};
use mcp_session_layer::{HangUpGrace, McpSessionLayer, Session};
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};

/// Nothing is left of whatever was tried.
fn assert_nothing_stayed(world: &World) {
    let stats = world.sessions.stats();
    assert_eq!((stats.live, stats.opening, stats.closing), (0, 0, 0), "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn the_id_of_the_server_is_adopted() {
    let world = World::new(|layer| layer);
    let id = unique("!~");
    world.server.change(|manners| manners.next_ids = vec![id.clone()]);
    let reply = world.ask(initialize()).await;
    assert_eq!(reply.id(), Some(id.as_str()));
    assert_eq!(world.ping(&id).await, 200);
    assert_eq!(world.server.last().id, Some(id));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_id_is_minted_where_the_server_issues_none() {
    let server = FakeServer::with(|manners| manners.issues_ids = false);
    let world = World::around(server, |layer| layer);
    let reply = world.ask(initialize()).await;
    assert_eq!(reply.headers.get_all("mcp-session-id").iter().count(), 1);
    let id = uuid::Uuid::parse_str(reply.id().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), 4);
    assert_eq!(world.ping(reply.id().unwrap()).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_generator_of_ids_is_used_and_not_trusted() {
    let tries = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = tries.clone();
    let mine = [unique("mine"), unique("mine")];
    let [first, second] = mine.clone();
    let server = FakeServer::with(|manners| manners.issues_ids = false);
    let world = World::around(server, |layer| {
        layer.id_generator(move || {
            match counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => first.clone(),
                1 => "not valid".to_owned(),
                2 => panic!("out of ids"),
                3 => first.clone(),
                4 => second.clone(),
                _ => String::new(),
            }
        })
    });
    assert_eq!(world.open().await, mine[0]);
    assert_eq!(world.open().await, mine[1], "after a bad one, a panic and one that is taken");
    assert_eq!(world.ask(initialize()).await.status, 502);
    assert_eq!(world.sessions.len(), 2);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_success_opens_nothing_and_passes_through() {
    for status in [400, 401, 404, 405, 500, 503] {
        let world = World::new(|layer| layer);
        world.server.change(|manners| manners.open_status = status);
        let reply = world.ask(initialize()).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.json()["result"], json!({}));
        assert_eq!(reply.id(), None);
        assert_nothing_stayed(&world);
        assert_eq!(world.events(), Vec::<String>::new());
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_taken_is_refused_and_its_owner_keeps_it() {
    let world = World::new(|layer| layer);
    let twin = unique("twin");
    world.server.change(|manners| manners.next_ids = vec![twin.clone(), twin.clone()]);
    assert_eq!(world.open_used().await, twin);
    assert_eq!(world.ask(initialize()).await.status, 502);
    assert_eq!(world.ping(&twin).await, 200);
    assert_eq!(world.events(), ["opened", "rejected 502"]);
    assert_eq!(world.server.count(&Method::DELETE), 0, "a DELETE would have hit the owner");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn ids_that_cannot_be_used_are_refused_and_closed_again() {
    let (good, better) = (unique("good"), unique("good"));
    for ids in [vec!["a b"], vec![""], vec![&*good, &*better], vec![&*good, "bad id"]] {
        let deleted = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = deleted.clone();
        let issued: Vec<_> = ids.iter().map(|id| HeaderValue::from_str(id).unwrap()).collect();
        let server = service_fn(move |request: Request<Body>| {
            let mut response = Response::new(Body::from("{}"));
            if request.method() == Method::DELETE {
                let id = request.headers()["mcp-session-id"].to_str().unwrap().to_owned();
                seen.lock().unwrap().push(id);
            } else {
                for id in &issued {
                    response.headers_mut().append("mcp-session-id", id.clone());
                }
            }
            async { Ok::<_, std::convert::Infallible>(response) }
        });
        let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
        ids.iter().for_each(|id| watched.learn(id));
        let reply = read(layer.layer(server).oneshot(initialize()).await.unwrap()).await;
        assert_eq!((reply.status.as_u16(), reply.id()), (502, None), "{ids:?}");
        pass(SECOND).await;
        let ended: Vec<_> = ids.into_iter().filter(|id| !id.is_empty()).collect();
        assert_eq!(*deleted.lock().unwrap(), ended);
        let stats = watched.sessions.stats();
        assert_eq!((stats.live, stats.opening, stats.closing), (0, 0, 0));
        watched.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_beside_mcp_that_answers_anything_opens_nothing() {
    let world = World::new(|layer| layer);
    for body in [initialize_body().to_string(), "{}".to_owned(), "not json".to_owned()] {
        let mut request = json_post(body);
        *request.uri_mut() = "/health".parse().unwrap();
        let reply = world.ask(request).await;
        assert_eq!(
            (reply.status.as_u16(), &*reply.body, reply.headers.len()),
            (200, &b"ok"[..], 1)
        );
    }
    assert_nothing_stayed(&world);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_json_rpc_is_forwarded_untouched() {
    let world = World::new(|layer| layer);
    for body in ["", "not json", "{}", "[]", r#"{"jsonrpc":"1.0","method":"ping"}"#] {
        assert_eq!(world.ask(json_post(body)).await.status, 200, "{body}");
        assert_eq!(world.server.last().body, body);
    }
    for content_type in ["text/plain", "application/json-rpc", "application/x-www-form-urlencoded"]
    {
        let mut request = json_post(message("ping", &json!({})));
        request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        assert_eq!(world.ask(request).await.status, 200, "{content_type}");
    }
    for method in [Method::GET, Method::DELETE, Method::OPTIONS, Method::HEAD, Method::PUT] {
        let before = world.server.seen().len();
        drop(world.send(bare(method.clone())).await);
        assert_eq!(world.server.seen().len(), before + 1, "{method}");
    }
    assert!(world.server.seen().iter().all(|seen| seen.session.is_none()));
    assert_eq!(world.events(), Vec::<String>::new());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_json_rpc_message_without_an_id_is_a_400() {
    let world = World::new(|layer| layer);
    for body in [
        message("tools/list", &json!({})),
        json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string(),
        json!([{ "jsonrpc": "2.0", "id": 1, "method": "initialize" }]).to_string(),
    ] {
        let mut request = json_post(body);
        let typed = HeaderValue::from_static("Application/JSON; charset=utf-8");
        request.headers_mut().insert("content-type", typed);
        let reply = world.ask(request).await;
        assert_eq!(reply.status, 400);
        assert_eq!(
            reply.body,
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Mcp-Session-Id is required"}}"#
        );
    }
    assert_eq!(world.server.seen().len(), 0, "the server was not called");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn messages_without_an_id_are_forwarded_if_the_user_wants_it() {
    let world = World::new(McpSessionLayer::forward_missing_ids);
    let body = message("tools/list", &json!({}));
    assert_eq!(world.ask(json_post(body.clone())).await.status, 200);
    assert_eq!(world.server.last().body, body);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_with_a_member_twice_is_refused() {
    let world = World::new(|layer| layer);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"initialize"}"#;
    let reply = world.ask(json_post(body)).await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["error"]["code"].as_i64()),
        (400, Some(-32000))
    );
    assert_eq!(world.server.seen().len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_initialize_too_long_to_recognise_is_adopted_by_its_answer() {
    let world = World::new(|layer| layer);
    let mut body = initialize_body();
    body["params"]["padding"] = json!("x".repeat(100_000));
    let body = body.to_string();
    let reply = world.ask(json_post(body.clone())).await;
    assert_eq!(world.server.last().body, body, "bit for bit");
    assert_eq!(world.sessions.len(), 1);
    assert_eq!(world.ping(reply.id().unwrap()).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_unrecognised_session_without_a_place_is_closed_at_once() {
    let world = World::new(|layer| layer.max_sessions(1));
    let kept = world.open_used().await;
    let mut body = initialize_body();
    body["params"]["padding"] = json!("x".repeat(100_000));
    let reply = world.ask(json_post(body.to_string())).await;
    assert_eq!((reply.status.as_u16(), reply.id()), (503, None));
    pass(SECOND).await;
    assert_eq!(world.server.sessions(), [kept].into());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_the_id_of_another_session_is_not_passed_on() {
    let world = World::new(|layer| layer);
    let alive = world.open_used().await;
    world.server.change(|manners| manners.next_ids = vec![alive.clone()]);
    let mut request = json_post(initialize_body().to_string());
    request.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    let reply = world.ask(request).await;
    assert_eq!((reply.status.as_u16(), reply.id()), (502, None));
    assert_eq!(world.ping(&alive).await, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_opens_anew_under_a_live_id_has_both_its_sessions_owned() {
    let world = World::new(|layer| layer);
    let first = world.open_used().await;
    let reply = world.ask(with_id(initialize(), &first)).await;
    let second = reply.id().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!(world.sessions.len(), 2);
    assert_eq!(world.ping(&second).await, 200);
    pass(IDLE + TICK).await;
    assert_eq!(world.server.sessions().len(), 0, "no ghost");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_during_initialize_leaves_nothing_behind() {
    for after in [0, 1, 500, 999] {
        let world = World::new(|layer| layer);
        world.server.change(|manners| manners.open_delay = SECOND);
        let hang_up = Duration::from_millis(after);
        assert!(tokio::time::timeout(hang_up, world.send(initialize())).await.is_err());
        pass(SECOND * 2).await;
        assert_eq!(world.server.sessions().len(), 0, "hung up after {after} ms");
        assert_nothing_stayed(&world);
        assert_eq!(world.events(), ["opened", "closed abandoned"]);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_held_back_while_clients_are_calm() {
    let world = World::new(|layer| layer);
    let before = tokio::time::Instant::now();
    world.open().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    world.server.change(|manners| manners.open_delay = SECOND);
    assert!(tokio::time::timeout(SECOND / 2, world.send(initialize())).await.is_err());
    pass(SECOND).await;
    world.server.change(|manners| manners.open_delay = Duration::ZERO);
    for (later, held_back) in [(SECOND * 58, HELD_BACK), (SECOND * 3, Duration::ZERO)] {
        pass(later).await;
        let before = tokio::time::Instant::now();
        world.open().await;
        assert_eq!(before.elapsed(), held_back, "a hang-up is remembered for a minute");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_ever_held_back_if_the_user_wants_it() {
    let world = World::new(|layer| layer.hang_up_grace(HangUpGrace::Never));
    world.server.change(|manners| manners.open_delay = SECOND);
    assert!(tokio::time::timeout(SECOND / 2, world.send(initialize())).await.is_err());
    world.server.change(|manners| manners.open_delay = Duration::ZERO);
    let before = tokio::time::Instant::now();
    world.open().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    pass(SECOND).await;
    assert_eq!(
        world.server.sessions().len(),
        1,
        "a hang-up before the answer is seen all the same"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_a_moment_after_the_server_has_answered_is_seen_to() {
    let world = World::new(|layer| layer.hang_up_grace(HangUpGrace::Always));
    let hang_up = Duration::from_millis(4);
    assert!(tokio::time::timeout(hang_up, world.send(initialize())).await.is_err());
    pass(SECOND).await;
    assert_eq!(world.server.sessions().len(), 0);
    assert_eq!(world.events(), ["opened", "closed abandoned"]);
    let before = tokio::time::Instant::now();
    world.open().await;
    assert_eq!(before.elapsed(), HELD_BACK);
    world.server.change(|manners| manners.open_delay = SECOND);
    world.open().await;
    assert_eq!(before.elapsed(), SECOND + HELD_BACK, "a slow one is not held back");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_never_taken_is_abandoned_too() {
    let world = World::new(|layer| layer);
    world.server.change(|manners| manners.open_delay = Duration::from_millis(1));
    let mut call = Box::pin(world.send(initialize()));
    assert!(futures_util::poll!(&mut call).is_pending());
    // The session is opened and its answer is on its way, but nobody will fetch it.
    pass(SECOND).await;
    assert_eq!(world.sessions.len(), 1);
    drop(call);
    pass(SECOND).await;
    assert_eq!(world.server.sessions().len(), 0);
    assert_eq!(world.events(), ["opened", "closed abandoned"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_slower_than_the_open_timeout_is_a_504_and_leaves_no_ghost() {
    let world = World::new(|layer| layer.open_timeout(SECOND));
    world.server.change(|manners| manners.open_delay = SECOND * 3 / 2);
    let reply = world.ask(initialize()).await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["error"]["code"].as_i64()),
        (504, Some(-32000))
    );
    pass(SECOND).await;
    assert_eq!(world.server.sessions().len(), 0, "closed when its id was learned");
    assert_nothing_stayed(&world);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_gives_its_permit_back() {
    let world = World::new(|layer| layer.open_timeout(SECOND).max_sessions(1));
    world.server.change(|manners| manners.open_delay = SECOND * 1_000);
    assert_eq!(world.ask(initialize()).await.status, 504);
    pass(SECOND * 2).await;
    world.server.change(|manners| manners.open_delay = Duration::ZERO);
    world.open_used().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_panics_in_initialize_panics_for_its_caller_and_keeps_nothing() {
    let server = service_fn(|_: Request<Body>| async {
        if true {
            panic!("as you wish");
        }
        Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let call = tokio::spawn(layer.layer(server).oneshot(initialize()));
    assert!(call.await.unwrap_err().is_panic());
    let stats = watched.sessions.stats();
    assert_eq!((stats.live, stats.opening), (0, 0));
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_is_passed_on_and_lets_go() {
    let fails = service_fn(|request: Request<Body>| async move {
        match request.headers().contains_key("mcp-session-id") {
            true => Err("broken"),
            false => Ok(Response::new(Body::from("{}"))),
        }
    });
    let layer = McpSessionLayer::new().idle_timeout(IDLE);
    let (layer, watched) = watch(&FakeServer::default(), layer);
    let service = layer.layer(fails);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    watched.learn(opened.id().unwrap());
    let error = service.clone().oneshot(call(opened.id().unwrap(), "ping")).await.unwrap_err();
    assert_eq!(error, "broken");
    assert_eq!(watched.sessions.stats().in_flight, 0);
    let never = layer
        .layer(service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>("broken too") }));
    assert_eq!(never.oneshot(initialize()).await.unwrap_err(), "broken too");
    assert_eq!(watched.sessions.stats().opening, 0);
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_handler_of_initialize_sees_the_session_before_it_has_an_id() {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let slot = seen.clone();
    let server = service_fn(move |request: Request<Body>| {
        let session = request.extensions().get::<Session>().unwrap().clone();
        assert_eq!(session.id(), None);
        assert_eq!(session.client().unwrap().name.as_deref(), Some("tester"));
        session.state().get_or_insert_with(|| 7u32);
        let _held = session.hold().unwrap();
        *slot.lock().unwrap() = Some(session);
        async { Ok::<_, std::convert::Infallible>(Response::new(Body::from("{}"))) }
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let opened = read(layer.layer(server).oneshot(initialize()).await.unwrap()).await;
    watched.learn(opened.id().unwrap());
    let session = seen.lock().unwrap().take().unwrap();
    assert_eq!(session.id(), opened.id());
    let found = layer.sessions().get(opened.id().unwrap()).unwrap();
    assert_eq!(found.state().get::<u32>().as_deref(), Some(&7));
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_closed_by_its_own_initialize_is_opened_and_closed_once() {
    let closing = service_fn(|request: Request<Body>| async move {
        if let Some(session) = request.extensions().get::<Session>() {
            session.close();
        }
        Ok::<_, std::convert::Infallible>(Response::new(Body::from("{}")))
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let service = layer.layer(closing);
    read(service.oneshot(initialize()).await.unwrap()).await.assert_lost();
    let events = watched.events().into_iter().filter(|event| !event.starts_with("rejected"));
    assert_eq!(events.collect::<Vec<_>>(), ["opened", "closed requested"]);
    assert_eq!((watched.sessions.len(), watched.sessions.stats().closing), (0, 0));
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_initialize_resolves_closed_for_its_handler() {
    let slot = Arc::new(std::sync::Mutex::new(None));
    let keep = slot.clone();
    let server = service_fn(move |request: Request<Body>| {
        *keep.lock().unwrap() = request.extensions().get::<Session>().cloned();
        let response = Response::builder().status(500).body(Body::empty()).unwrap();
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    layer.layer(server).oneshot(initialize()).await.unwrap();
    let session = slot.lock().unwrap().take().unwrap();
    session.closed().await;
    assert!(session.hold().is_err());
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_unread_answer_to_initialize_does_not_keep_its_session() {
    let slow = service_fn(|_: Request<Body>| async {
        let stream = futures_util::stream::pending::<Result<&str, std::convert::Infallible>>();
        let response = Response::builder().header("content-type", "text/event-stream");
        Ok::<_, std::convert::Infallible>(response.body(Body::from_stream(stream)).unwrap())
    });
    let layer = McpSessionLayer::new().unused_timeout(SECOND);
    let (layer, watched) = watch(&FakeServer::default(), layer);
    let answer = layer.layer(slow).oneshot(initialize()).await.unwrap();
    watched.learn(answer.headers()["mcp-session-id"].to_str().unwrap());
    assert_eq!(watched.sessions.len(), 1);
    pass(SECOND + TICK).await;
    assert_eq!(watched.sessions.len(), 0);
    assert_eq!(read(answer).await.body, "", "and ends with it");
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_hold_during_initialize_is_no_use_of_the_session() {
    let holding = service_fn(|request: Request<Body>| async move {
        drop(request.extensions().get::<Session>().map(Session::hold));
        Ok::<_, std::convert::Infallible>(Response::new(Body::from("{}")))
    });
    let layer = McpSessionLayer::new().unused_timeout(SECOND);
    let (layer, watched) = watch(&FakeServer::default(), layer);
    let opened = read(layer.layer(holding).oneshot(initialize()).await.unwrap()).await;
    watched.learn(opened.id().unwrap());
    pass(SECOND + TICK).await;
    let closed = watched.sessions.stats().closed;
    assert_eq!(closed.get(mcp_session_layer::CloseReason::Unused), 1);
    watched.finish().await;
}

/// Bodies that some server may take for an `initialize` and we do not.
fn disguised() -> Vec<Request<Body>> {
    let plain = initialize_body().to_string();
    let mut requests: Vec<_> = [
        format!("{plain}{}", " ".repeat(70_000)),
        format!("\u{feff}{plain}"),
        plain.replace("\"id\":1", "\"id\":NaN"),
    ]
    .into_iter()
    .map(json_post)
    .collect();
    for content_type in ["text/plain", "application/json-rpc", "application/octet-stream"] {
        let mut request = json_post(plain.clone());
        request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        requests.push(request);
    }
    requests
}

/// A server that opens a session for any POST.
fn gullible(
    open: Arc<std::sync::Mutex<std::collections::HashSet<String>>>,
) -> impl tower::Service<
    Request<Body>,
    Response = Response<Body>,
    Error = std::convert::Infallible,
    Future = impl Send,
> + Clone
+ Send {
    service_fn(move |request: Request<Body>| {
        let open = open.clone();
        async move {
            if request.method() == Method::DELETE {
                let id = request.headers()["mcp-session-id"].to_str().unwrap().to_owned();
                tokio::time::sleep(SECOND).await;
                open.lock().unwrap().remove(&id);
                return Ok(Response::new(Body::empty()));
            }
            tokio::time::sleep(SECOND).await;
            let id = uuid::Uuid::new_v4().to_string();
            open.lock().unwrap().insert(id.clone());
            let response = Response::builder().header("mcp-session-id", id);
            Ok(response.body(Body::from("{}")).unwrap())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_hang_up_leaves_nothing_also_where_no_initialize_was_recognised() {
    for request in disguised() {
        let open = Arc::default();
        let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
        let call = layer.layer(gullible(Arc::clone(&open))).oneshot(request);
        assert!(tokio::time::timeout(SECOND / 2, call).await.is_err());
        pass(SECOND * 5).await;
        assert_eq!(open.lock().unwrap().len(), 0);
        let stats = watched.sessions.stats();
        assert_eq!((stats.live, stats.closing), (0, 0));
        watched.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_without_a_place_are_turned_away_in_bounds() {
    let open = Arc::default();
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new().max_sessions(1));
    let service = layer.layer(gullible(Arc::clone(&open)));
    let flood = (0..2_000u64).map(|n| {
        let service = service.clone();
        async move {
            pass(Duration::from_millis(n * 10)).await;
            let request = disguised().swap_remove(0);
            service.oneshot(request).await.unwrap().status().as_u16()
        }
    });
    let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (high, seen) = (most.clone(), open.clone());
    let watcher = tokio::spawn(async move {
        loop {
            high.fetch_max(seen.lock().unwrap().len(), std::sync::atomic::Ordering::SeqCst);
            pass(Duration::from_millis(5)).await;
        }
    });
    let statuses = futures_util::future::join_all(flood).await;
    watcher.abort();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)));
    let most = most.load(std::sync::atomic::Ordering::SeqCst);
    assert!(most < 500, "the server had {most} sessions at once, under a cap of 1");
    pass(SECOND * 120).await;
    assert_eq!(open.lock().unwrap().len(), 0);
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_id_of_the_server_is_marked_as_a_secret() {
    let world = World::new(|layer| layer);
    let reply = world.ask(initialize()).await;
    assert!(reply.headers["mcp-session-id"].is_sensitive());
    assert_eq!(reply.headers.get_all("mcp-session-id").iter().count(), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_call_that_opens_runs_in_the_span_of_the_request() {
    use tracing::Instrument;
    let name = Arc::new(std::sync::Mutex::new(None));
    let slot = name.clone();
    let server = service_fn(move |_: Request<Body>| {
        *slot.lock().unwrap() = tracing::Span::current().metadata().map(|meta| meta.name());
        async { Ok::<_, std::convert::Infallible>(Response::new(Body::from("{}"))) }
    });
    let _log = tracing::subscriber::set_default(tracing_subscriber::registry());
    let span = tracing::info_span!("the request");
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    read(layer.layer(server).oneshot(initialize()).instrument(span).await.unwrap()).await;
    assert_eq!(*name.lock().unwrap(), Some("the request"));
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_choose_what_a_session_costs() {
    let world = World::new(|layer| layer);
    let mut long_uri = initialize();
    *long_uri.uri_mut() = format!("/mcp?{}", "x".repeat(5_000)).parse().unwrap();
    let mut long_host = initialize();
    long_host.headers_mut().insert("host", "x".repeat(5_000).parse().unwrap());
    for request in [long_uri, long_host] {
        assert_eq!(world.ask(request).await.status, 414);
    }
    assert_eq!(world.server.seen().len(), 0);
    let mut unrecognised = initialize();
    unrecognised.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    *unrecognised.uri_mut() = format!("/mcp?{}", "x".repeat(5_000)).parse().unwrap();
    assert_eq!(world.ask(unrecognised).await.status, 414);
    pass(SECOND).await;
    assert_eq!(world.server.sessions().len(), 0, "and what it opened is closed");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_evicted_for_an_initialize_that_was_not_recognised() {
    use mcp_session_layer::WhenFull;
    let world = World::new(|layer| layer.max_sessions(2).when_full(WhenFull::EvictIdle));
    let kept = [world.open_used().await, world.open_used().await];
    let mut request = initialize();
    request.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    assert_eq!(world.ask(request).await.status, 503);
    for id in &kept {
        assert_eq!(world.ping(id).await, 200);
    }
    world.finish().await;
}
