//! Streams are owned: held, capped, cut, and kept warm.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use axum::body::Body;
use common::*;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use mcp_session_layer::McpSessionLayer;
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test(start_paused = true)]
async fn an_open_get_stream_holds_its_session() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let stream = world.send(get(&id)).await;
    pass(IDLE * 10).await;
    assert_eq!(world.sessions.len(), 1);
    assert_eq!(world.sessions.stats().streams, 1);
    drop(stream);
    pass(IDLE + TICK).await;
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_idles_out_under_an_open_get_if_streams_do_not_hold() {
    let world = World::new(|layer| layer.streams_hold(false));
    let id = world.open_used().await;
    let mut stream = world.send(get(&id)).await;
    assert!(frame(&mut stream).await.is_some());
    pass(IDLE / 2).await;
    assert_eq!(world.ping(&id).await, 200);
    let started = tokio::time::Instant::now();
    assert_eq!(frame(&mut stream).await, None, "a clean end");
    assert!(started.elapsed() >= IDLE && started.elapsed() <= IDLE + TICK);
    assert_eq!(world.sessions.len(), 0);
    assert_eq!(world.server.open_bodies(), 0);
    drop(stream);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_post_stream_holds_whatever_the_option_says() {
    let world = World::new(|layer| layer.streams_hold(false));
    let id = world.open_used().await;
    let stream = world.send(call(&id, "endless")).await;
    pass(IDLE * 3).await;
    assert_eq!(world.sessions.len(), 1);
    drop(stream);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn closing_drops_the_body_of_a_client_that_stopped_reading() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let (unread_get, unread_post) =
        (world.send(get(&id)).await, world.send(call(&id, "endless")).await);
    assert_eq!(world.server.open_bodies(), 2);
    assert!(world.sessions.close(&id));
    assert_eq!(world.server.open_bodies(), 0, "dropped out of band, without a poll");
    drop((unread_get, unread_post));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn closing_wakes_a_stream_that_waits_and_ends_it_cleanly() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let mut stream = world.send(get(&id)).await;
    assert!(frame(&mut stream).await.is_some());
    let end = tokio::spawn(async move {
        let end = stream.body_mut().frame().await;
        (end.is_none(), stream.body().is_end_stream())
    });
    pass(SECOND).await;
    assert!(!end.is_finished());
    world.ask(delete(&id)).await;
    assert_eq!(end.await.unwrap(), (true, true));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_may_close_its_own_session_while_it_is_polled() {
    let server = service_fn(|request: Request<Body>| async move {
        let session = request.extensions().get::<mcp_session_layer::Session>().cloned();
        let body = match session.filter(|session| session.id().is_some()) {
            None => Body::from("{}"),
            Some(session) => Body::from_stream(futures_util::stream::poll_fn(move |_| {
                session.close();
                std::task::Poll::Ready(Some(Ok::<_, std::convert::Infallible>("data: x\n\n")))
            })),
        };
        Ok::<_, std::convert::Infallible>(Response::new(body))
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let service = layer.layer(server);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    watched.learn(opened.id().unwrap());
    let answer = service.oneshot(get(opened.id().unwrap())).await.unwrap();
    assert_eq!(read(answer).await.body, "", "ended, and did not hang");
    assert!(layer.sessions().is_empty());
    watched.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_may_have_so_many_get_streams_and_no_more() {
    let world = World::new(|layer| layer.max_streams(2));
    let id = world.open_used().await;
    let first = world.send(get(&id)).await;
    let second = world.send(get(&id)).await;
    let third = world.ask(get(&id)).await;
    assert_eq!(
        (third.status.as_u16(), &third.headers["retry-after"]),
        (429, &HeaderValue::from_static("5"))
    );
    assert_eq!(third.json()["error"]["code"], -32000);
    let post = world.send(call(&id, "endless")).await;
    assert_eq!(post.status(), 200, "a POST stream is none of them");
    drop(first);
    let again = world.send(get(&id)).await;
    assert_eq!(again.status(), 200);
    drop((second, post, again));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_does_not_keep_the_session() {
    let world = World::new(|layer| layer.max_streams(1).streams_hold(false));
    let id = world.open_used().await;
    let only = world.send(get(&id)).await;
    for _ in 0..3 {
        pass(IDLE / 4).await;
        assert_eq!(world.ask(get(&id)).await.status, 429);
    }
    pass(IDLE / 4 + TICK).await;
    assert_eq!(world.sessions.len(), 0);
    drop(only);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_get_that_does_not_stream_gives_its_seat_back() {
    let world = World::new(|layer| layer.max_streams(1));
    world.server.change(|manners| manners.gets_stream = false);
    let id = world.open_used().await;
    for _ in 0..3 {
        assert_eq!(world.ask(get(&id)).await.body, "whole");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_get_stream_ends_at_its_age_read_or_not_and_a_post_stream_does_not() {
    let world = World::new(|layer| layer.stream_lifetime(SECOND * 20));
    let id = world.open_used().await;
    let unread = world.send(get(&id)).await;
    let post = world.send(call(&id, "endless")).await;
    let mut stream = world.send(get(&id)).await;
    let started = tokio::time::Instant::now();
    assert!(frame(&mut stream).await.is_some());
    assert_eq!(frame(&mut stream).await, None, "a clean end");
    assert!(started.elapsed() >= SECOND * 20 && started.elapsed() <= SECOND * 20 + TICK);
    assert_eq!(world.server.open_bodies(), 1, "that of the POST");
    drop((unread, stream));
    let again = world.send(get(&id)).await;
    assert_eq!(again.status(), 200, "a live client reconnects");
    drop((post, again));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_ghost_that_does_not_reconnect_idles_out_after_the_stream_lifetime() {
    let world = World::new(|layer| layer.stream_lifetime(SECOND * 20));
    let id = world.open_used().await;
    let ghost = world.send(get(&id)).await;
    pass(SECOND * 20 + IDLE + TICK * 2).await;
    assert_eq!(world.sessions.len(), 0);
    assert!(!world.server.has(&id));
    drop(ghost);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_event_stream_gets_comments_and_a_talking_one_does_not() {
    let world = World::new(|layer| layer.heartbeat(SECOND * 10));
    let id = world.open_used().await;
    let started = tokio::time::Instant::now();
    let mut silent = world.send(get(&id)).await;
    assert_eq!(frame(&mut silent).await.unwrap(), "data: 0\n\n");
    for beat in 1..=5 {
        assert_eq!(frame(&mut silent).await.unwrap(), ":\n\n");
        let late = started.elapsed() - SECOND * 10 * beat;
        assert!(late <= TICK * beat, "beat {beat} came {late:?} late");
    }
    drop(silent);
    let talking = call_with(&id, "stream", &json!({ "events": 5, "ms": 9_000 }));
    let reply = world.ask(talking).await;
    assert_eq!(reply.body, (0..5).map(|n| format!("data: {n}\n\n")).collect::<String>());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_do_not_count_as_activity() {
    let world = World::new(|layer| layer.heartbeat(SECOND).streams_hold(false));
    let id = world.open_used().await;
    let reply = world.ask(get(&id)).await;
    let beats = reply.body.windows(3).filter(|bytes| bytes == b":\n\n").count();
    assert!((90..=101).contains(&beats), "{beats} beats");
    assert_eq!(world.sessions.len(), 0);
    world.finish().await;
}

/// Opens a session on a server whose GET answers so, and reads that with heartbeats on.
async fn with_heartbeats(
    headers: &'static [(&'static str, &'static str)],
    frames: &'static [(u64, &'static str)],
) -> String {
    let server = service_fn(move |request: Request<Body>| async move {
        if request.method() != http::Method::GET {
            return Ok::<_, std::convert::Infallible>(Response::new(Body::from("{}")));
        }
        let frames = futures_util::stream::unfold(frames.iter(), |mut frames| async {
            let (seconds, text) = frames.next()?;
            tokio::time::sleep(SECOND * *seconds as u32).await;
            Some((Ok::<_, std::convert::Infallible>(*text), frames))
        });
        let mut response = Response::new(Body::from_stream(frames));
        for (name, value) in headers {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        Ok(response)
    });
    let layer = McpSessionLayer::new().heartbeat(SECOND * 10);
    let (layer, watched) = watch(&FakeServer::default(), layer);
    let service = layer.layer(server);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    watched.learn(opened.id().unwrap());
    let reply = read(service.oneshot(get(opened.id().unwrap())).await.unwrap()).await;
    watched.finish().await;
    String::from_utf8(reply.body.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_comment_never_stands_inside_an_event() {
    const SSE: &[(&str, &str)] = &[("content-type", "text/event-stream; charset=utf-8")];
    let split = with_heartbeats(SSE, &[(0, "data: a\n"), (25, "data: b\n\n"), (15, "")]).await;
    assert_eq!(split, "data: a\ndata: b\n\n:\n\n");
    let crlf = with_heartbeats(SSE, &[(0, "data: a\r\n\r\n"), (15, "")]).await;
    assert_eq!(crlf, "data: a\r\n\r\n:\n\n");
    let before_the_first = with_heartbeats(SSE, &[(15, "data: a\n\n")]).await;
    assert_eq!(before_the_first, ":\n\ndata: a\n\n");
}

#[tokio::test(start_paused = true)]
async fn a_comment_is_only_written_into_plain_event_streams() {
    const OTHER: &[(&str, &str)] = &[("content-type", "application/json")];
    const ZIPPED: &[(&str, &str)] =
        &[("content-type", "text/event-stream"), ("content-encoding", "gzip")];
    for headers in [OTHER, ZIPPED, &[]] {
        assert_eq!(with_heartbeats(headers, &[(0, "x\n\n"), (50, "y")]).await, "x\n\ny");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_comes_after_its_session_has_closed_is_a_lost_session() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let server = world.server.clone();
    let slow = call_with(&id, "sleep", &json!({ "ms": 1_000 }));
    let sessions = world.sessions.clone();
    let (reply, ()) = tokio::join!(world.ask(slow), async {
        pass(SECOND / 2).await;
        sessions.close(&id);
    });
    assert_eq!(reply.status, 200, "a result of known size still gets out");
    drop(server);
    let late = service_fn(|request: Request<Body>| async move {
        if request.method() != http::Method::GET {
            return Ok::<_, std::convert::Infallible>(Response::new(Body::from("{}")));
        }
        tokio::time::sleep(SECOND).await;
        Ok(Response::new(Body::from_stream(futures_util::stream::pending::<
            Result<&str, std::convert::Infallible>,
        >())))
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let service = layer.layer(late);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    watched.learn(opened.id().unwrap());
    let (answer, ()) = tokio::join!(service.oneshot(get(opened.id().unwrap())), async {
        pass(SECOND / 2).await;
        layer.sessions().close_all();
    });
    read(answer.unwrap()).await.assert_lost();
    watched.finish().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn size_hints_trailers_and_errors_pass_through() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let sized = world.send(call(&id, "ping")).await;
    let hint = sized.body().size_hint().exact().unwrap();
    assert_eq!(read(sized).await.body.len() as u64, hint);
    let stream = world.send(get(&id)).await;
    assert_eq!(stream.body().size_hint().exact(), None);
    assert!(!stream.body().is_end_stream());
    drop(stream);

    let odd = service_fn(|request: Request<Body>| async move {
        use http_body::Frame;
        if !request.headers().contains_key("mcp-session-id") {
            return Ok::<_, std::convert::Infallible>(Response::new(Body::from("{}")));
        }
        let trailers =
            http::HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]);
        let frames: Vec<Result<_, std::io::Error>> = vec![
            Ok(Frame::data(bytes::Bytes::from("one"))),
            Ok(Frame::trailers(trailers)),
            Err(std::io::Error::other("broken")),
        ];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        Ok(Response::new(Body::new(body)))
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let service = layer.layer(odd);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    watched.learn(opened.id().unwrap());
    let mut answer = service.oneshot(get(opened.id().unwrap())).await.unwrap();
    let body = answer.body_mut();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert_eq!(layer.sessions().stats().in_flight, 1);
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(layer.sessions().stats().in_flight, 0, "released by the error, before the drop");
    drop(answer);
    watched.finish().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_body_releases_the_session_before_it_is_dropped() {
    let world = World::new(|layer| layer);
    let id = world.open_used().await;
    let mut answer = world.send(call_with(&id, "stream", &json!({ "events": 1 }))).await;
    assert!(frame(&mut answer).await.is_some());
    assert_eq!(frame(&mut answer).await, None);
    assert_eq!(world.sessions.stats().in_flight, 0);
    assert_eq!(world.sessions.stats().streams, 0);
    assert_eq!(frame(&mut answer).await, None, "and stays ended");
    let mut sized = world.send(call(&id, "ping")).await;
    frame(&mut sized).await;
    assert_eq!(world.sessions.stats().in_flight, 0, "the last frame of a known size is the end");
    let empty = world.send(call_with(&id, "status", &json!({ "code": 202 }))).await;
    drop((answer, sized, empty));
    world.finish().await;
}
