//! Bodies of declared length, and a 404 that is not about the session.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use mcp_session_layer::McpSessionLayer;

use crate::{common::*, server::*, stage::*};

/// So many bytes are declared, the first comes at once, and the others never.
struct Declared {
    left: u64,
    first: Option<Bytes>,
}

impl Declared {
    fn response(kind: Option<&str>, length: u64, first: &'static str) -> Response<Body> {
        let first = Some(Bytes::from(first)).filter(|first| !first.is_empty());
        let mut response = answer(200, kind, Body::new(Self { left: length, first }));
        response.headers_mut().insert("content-length", length.into());
        response
    }
}

impl http_body::Body for Declared {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(first) = self.first.take() else { return Poll::Pending };
        self.left -= first.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(first))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// `initialize` opens a session, and every other request of one is answered with such a body.
fn declaring(own: &Own, kind: Option<&'static str>, first: &'static str) -> Inner {
    scripted(own, move |own, call| async move {
        if call.method() == Method::DELETE {
            return None;
        }
        if call.is_initialize() && call.id().is_none() {
            return Some(named(result(), &own.open()));
        }
        if call.json()["method"] == "ping" {
            return Some(result());
        }
        Some(Declared::response(kind, 1_000_000, first))
    })
}

async fn frames(mut answer: Answer) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(frame) = answer.body_mut().frame().await {
        all.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    all
}

type Configure = fn(McpSessionLayer) -> McpSessionLayer;

/// What ends a stream: of which requests, when, and how.
const ENDS: [(&str, bool, Configure); 5] = [
    ("DELETE", true, |layer| layer),
    ("close", true, |layer| layer),
    ("kill", true, |layer| layer),
    ("max_lifetime", true, |layer| layer.max_lifetime(SECOND * 50)),
    ("stream_lifetime", false, |layer| layer.stream_lifetime(SECOND * 50)),
];

#[tokio::test(start_paused = true)]
async fn an_event_stream_of_declared_length_is_counted_and_ends_as_any_other() {
    for first in ["", "data: 1\n\n"] {
        for (what, ends_post, configure) in ENDS {
            for request in [get as fn(&str) -> Request<Body>, |id| call(id, "tools/call")] {
                let is_get = request("x").method() == Method::GET;
                if !is_get && !ends_post {
                    continue;
                }
                let own = Own::default();
                let stage = Stage::new(&own, declaring(&own, EVENTS, first), configure);
                let id = stage.open_used().await;
                let answer = stage.send(request(&id)).await;
                let reading = tokio::spawn(frames(answer));
                pass(SECOND).await;
                assert_eq!(stage.sessions.stats().streams, 1, "{what}");
                assert_eq!(stage.sessions.list()[0].streams, 1);
                match what {
                    "DELETE" => assert_eq!(stage.ask(delete(&id)).await.status, 204),
                    "close" => assert!(stage.sessions.close(&id)),
                    "kill" => assert_eq!(stage.sessions.close_all(), 1),
                    _ => pass(SECOND * 50 + TICK).await,
                }
                pass(SECOND).await;
                assert!(reading.is_finished(), "{what} does not end it");
                assert_eq!(reading.await.unwrap(), first.as_bytes());
                assert_eq!(stage.sessions.stats().streams, 0, "{what}");
                stage.finish().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_of_declared_length_take_the_seats_of_a_session() {
    let own = Own::default();
    let stage = Stage::new(&own, declaring(&own, EVENTS, ""), |layer| layer.max_streams(2));
    let id = stage.open_used().await;
    let held = [stage.send(get(&id)).await, stage.send(get(&id)).await];
    assert_eq!(stage.ask(get(&id)).await.status, 429);
    drop(held);
    assert_eq!(stage.send(get(&id)).await.status(), 200);
    stage.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_of_declared_length_that_is_read_slowly_is_cut_too() {
    for first in ["", "{\"jsonrpc\":"] {
        for kind in [JSON, Some("text/plain"), None] {
            let own = Own::default();
            let stage = Stage::new(&own, declaring(&own, kind, first), |layer| layer);
            let id = stage.open_used().await;
            let reading = tokio::spawn(frames(stage.send(call(&id, "tools/call")).await));
            pass(IDLE + TICK).await;
            assert_eq!(stage.sessions.len(), 1, "what is read is in flight");
            assert_eq!(stage.ask(delete(&id)).await.status, 204);
            pass(SECOND).await;
            assert!(reading.is_finished(), "{kind:?}");
            assert_eq!(reading.await.unwrap(), first.as_bytes());
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_whole_already_is_not_touched() {
    for kind in [JSON, Some("text/plain"), None] {
        let own = Own::default();
        let inner = scripted(&own, move |own, call| async move {
            if call.is_initialize() {
                return Some(named(result(), &own.open()));
            }
            (call.method() == Method::POST).then(|| answer(200, kind, "x".repeat(100_000)))
        });
        let stage = Stage::new(&own, inner, |layer| layer);
        let id = stage.open_used().await;
        let answer = stage.send(call(&id, "tools/call")).await;
        assert_eq!(answer.body().size_hint().exact(), Some(100_000));
        assert_eq!(stage.ask(delete(&id)).await.status, 204);
        assert_eq!(read(answer).await.body.len(), 100_000, "{kind:?}");
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_404_closes_a_session_for_post_and_delete_and_for_nothing_else() {
    for kind in [JSON, Some("text/html"), None] {
        for (method, closes) in [
            ("GET", false),
            ("HEAD", false),
            ("OPTIONS", false),
            ("PUT", false),
            ("PATCH", false),
            ("POST", true),
            ("DELETE", true),
        ] {
            let own = Own::default();
            let inner = scripted(&own, move |own, call| async move {
                if call.is_initialize() {
                    return Some(named(result(), &own.open()));
                }
                if call.json()["method"] == "ping" {
                    return Some(result());
                }
                // The layer's own DELETE has no such header.
                call.parts.headers.contains_key("x-lost").then(|| answer(404, kind, "no route"))
            });
            let stage = Stage::new(&own, inner, |layer| layer);
            let id = stage.open_used().await;
            pass(SECOND * 50).await;
            let request = with(with_id(bare(method.parse().unwrap()), &id), "x-lost", "yes");
            let reply = stage.ask(request).await;
            assert_eq!((reply.status.as_u16(), &reply.body[..]), (404, &b"no route"[..]));
            assert_eq!(stage.sessions.is_empty(), closes, "{method} {kind:?}");
            pass(SECOND).await;
            assert_eq!(own.live(), usize::from(!closes), "{method}");
            if !closes {
                pass(SECOND * 49 + TICK).await;
                assert_eq!(stage.sessions.len(), 0, "{method}: it moved the deadline");
            }
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_initialize_ends_with_its_session_whether_or_not_its_length_was_declared() {
    const FIRST: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";
    for kind in [EVENTS, None] {
        let own = Own::default();
        let inner = scripted(&own, move |own, call| async move {
            call.is_initialize()
                .then(|| named(Declared::response(kind, 1_000_000, FIRST), &own.open()))
        });
        let stage = Stage::new(&own, inner, |layer| layer);
        let answer = stage.send(initialize()).await;
        let id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let reading = tokio::spawn(frames(answer));
        pass(SECOND).await;
        assert_eq!(stage.sessions.stats().streams, 1, "{kind:?}");
        assert!(stage.sessions.close(&id));
        pass(SECOND).await;
        assert!(reading.is_finished(), "{kind:?}");
        assert_eq!(reading.await.unwrap(), FIRST.as_bytes());
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_of_which_the_answer_to_initialize_goes_on_is_unused_all_the_same() {
    let own = Own::default();
    let inner = scripted(&own, |own, call| async move {
        call.is_initialize()
            .then(|| named(Declared::response(EVENTS, 1_000, "data: {}\n\n"), &own.open()))
    });
    let stage = Stage::new(&own, inner, |layer| layer.unused_timeout(SECOND * 20));
    let reading = tokio::spawn(frames(stage.send(initialize()).await));
    pass(SECOND * 20 + TICK).await;
    assert_eq!(stage.sessions.len(), 0);
    assert!(reading.is_finished());
    stage.finish().await;
}
