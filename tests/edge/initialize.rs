//! `initialize` that fails inside a success, and the answer that reaches the client as it was.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use tower::ServiceExt;

use crate::{common::*, server::*, stage::*};

const ERROR: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"Unsupported"}}"#;

type Frames = Vec<Result<Frame<Bytes>, io::Error>>;

fn data(text: &str) -> Result<Frame<Bytes>, io::Error> {
    Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes())))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("x-end".parse().unwrap(), "of it".parse().unwrap())])
}

fn framed(kind: Option<&'static str>, frames: Frames) -> Response<Body> {
    answer(200, kind, Body::new(StreamBody::new(stream::iter(frames))))
}

/// What a server says in answer to an `initialize`, as a type and texts of frames.
const FAILURES: [(Option<&str>, &[&str]); 9] = [
    (JSON, &[ERROR]),
    (JSON, &["  ", ERROR, "\r\n"]),
    (JSON, &[r#"{"jsonrpc":"2.0","id":"#, r#"1,"error":{"code":1,"message":""}}"#]),
    (Some("application/json; charset=utf-8"), &[ERROR]),
    (EVENTS, &["data: ", ERROR, "\n\n"]),
    (EVENTS, &["event: message\r\ndata: ", ERROR, "\r\n\r\n"]),
    // Events that prime the client, then the message.
    (EVENTS, &["id: 1\ndata:\n\n", "data: ", ERROR, "\n\n"]),
    (EVENTS, &["retry: 5000\n\n", ": comment\n\n", "data: ", ERROR, "\n\n"]),
    (Some("text/event-stream; charset=utf-8"), &["data: ", ERROR, "\n\ndata: more\n\n"]),
];

const SUCCESSES: [(Option<&str>, &[&str]); 6] = [
    (JSON, &[RESULT]),
    (JSON, &[" ", RESULT, "\n"]),
    (EVENTS, &["data: ", RESULT, "\n\n"]),
    (EVENTS, &["id: 1\ndata:\n\n", "data: ", RESULT, "\n\n"]),
    // A message of the server comes first; the answer may be an error or not.
    (
        EVENTS,
        &["data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n", "data: x\n\n"],
    ),
    (None, &[ERROR]),
];

/// Whether the server issues an id of its own.
const ISSUES: [bool; 2] = [true, false];

fn answering(
    own: &Own,
    issues: bool,
    kind: Option<&'static str>,
    texts: &'static [&'static str],
) -> Inner {
    scripted(own, move |own, call| async move {
        if call.id().is_some() || call.body.is_empty() {
            return None;
        }
        if call.json()["params"]["protocolVersion"] != "2025-11-25" {
            return Some(if issues { named(result(), &own.open()) } else { result() });
        }
        let mut frames: Frames = texts.iter().map(|text| data(text)).collect();
        frames.push(Ok(Frame::trailers(trailers())));
        let response = framed(kind, frames);
        Some(if issues { named(response, &own.open()) } else { response })
    })
}

fn older() -> http::Request<Body> {
    let mut body = initialize_body();
    body["params"]["protocolVersion"] = "2025-06-18".into();
    json_post(body.to_string())
}

#[tokio::test(start_paused = true)]
async fn an_error_inside_a_success_opens_nothing_and_the_next_gets_the_place() {
    for issues in ISSUES {
        for (kind, texts) in FAILURES {
            let own = Own::default();
            let inner = answering(&own, issues, kind, texts);
            let stage = Stage::new(&own, inner, |layer| layer.max_sessions(1));
            for _ in 0..3 {
                let answer = stage.send(initialize()).await;
                assert_eq!(answer.status(), 200, "{texts:?}");
                assert!(!answer.headers().contains_key("mcp-session-id"), "{texts:?}");
                let collected = answer.into_body().collect().await.unwrap();
                assert_eq!(collected.trailers(), Some(&trailers()));
                assert_eq!(collected.to_bytes(), texts.concat());
            }
            let stats = stage.sessions.stats();
            assert_eq!((stats.opened, stats.live), (0, 0), "{texts:?}");
            let opened = stage.ask(older()).await;
            assert_eq!((opened.status.as_u16(), opened.id().is_some()), (200, true));
            let live = if issues { own.live() } else { 1 };
            assert_eq!((stage.sessions.len(), live), (1, 1), "{texts:?}");
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_error_opens_a_session_and_reaches_the_client_as_it_was() {
    for issues in ISSUES {
        for (kind, texts) in SUCCESSES {
            let own = Own::default();
            let stage = Stage::new(&own, answering(&own, issues, kind, texts), |layer| layer);
            let answer = stage.send(initialize()).await;
            assert!(answer.headers().contains_key("mcp-session-id"), "{texts:?}");
            let collected = answer.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers(), Some(&trailers()), "{texts:?}");
            assert_eq!(collected.to_bytes(), texts.concat());
            assert_eq!(stage.sessions.len(), 1);
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_size_of_the_answer_is_known_as_well_as_before() {
    for (text, kind) in [(RESULT, JSON), (ERROR, JSON), ("data: x\n\n", EVENTS), ("", JSON)] {
        for issues in ISSUES {
            let own = Own::default();
            let inner = scripted(&own, move |own, call| async move {
                let response = answer(200, kind, text);
                call.is_initialize()
                    .then(|| if issues { named(response, &own.open()) } else { response })
            });
            let stage = Stage::new(&own, inner, |layer| layer);
            let answer = stage.send(initialize()).await;
            assert_eq!(answer.body().size_hint().exact(), Some(text.len() as u64), "{text}");
            assert_eq!(answer.body().is_end_stream(), text.is_empty());
            assert_eq!(read(answer).await.body, text);
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_before_its_message_is_a_502_and_the_session_is_ended() {
    let cuts: [(Option<&str>, &[&str]); 5] = [
        (JSON, &[]),
        (JSON, &[r#"{"jsonrpc":"2.0","#]),
        (EVENTS, &[]),
        (EVENTS, &["id: 1\ndata:\n\n"]),
        (EVENTS, &["data: {}\n"]),
    ];
    for issues in ISSUES {
        for (kind, texts) in cuts {
            let own = Own::default();
            let inner = scripted(&own, move |own, call| async move {
                if !call.is_initialize() {
                    return None;
                }
                let mut frames: Frames = texts.iter().map(|text| data(text)).collect();
                frames.push(Err(io::Error::other("broken off")));
                let response = framed(kind, frames);
                Some(if issues { named(response, &own.open()) } else { response })
            });
            let stage = Stage::new(&own, inner, |layer| layer.max_sessions(1));
            for _ in 0..3 {
                let reply = stage.ask(initialize()).await;
                assert_eq!((reply.status.as_u16(), reply.id()), (502, None), "{texts:?}");
                pass(SECOND).await;
            }
            assert_eq!((own.live(), stage.sessions.stats().opened), (0, 0));
            stage.finish().await;
        }
    }
}

/// Some servers open a session for it and name none in their answer: nobody could end it.
#[tokio::test(start_paused = true)]
async fn an_initialize_without_an_id_is_refused_before_the_server_is_called() {
    let mut body = initialize_body();
    body.as_object_mut().unwrap().remove("id");
    let batch = serde_json::json!([initialize_body(), body]);
    for body in [body.to_string(), batch.to_string()] {
        for version in [None, Some("2025-11-25"), Some("2026-07-28"), Some("banana")] {
            let own = Own::default();
            let inner = scripted(&own, move |own, _| async move {
                own.open();
                Some(answer(202, None, ""))
            });
            let stage = Stage::new(&own, inner, |layer| layer);
            let mut request = json_post(body.clone());
            if let Some(version) = version {
                let version = HeaderValue::from_static(version);
                request.headers_mut().insert("mcp-protocol-version", version);
            }
            let reply = stage.ask(request).await;
            assert_eq!((reply.status.as_u16(), reply.id()), (400, None), "{version:?}");
            assert_eq!((own.opened().len(), stage.sessions.stats().opened), (0, 0), "{body}");
            stage.finish().await;
        }
    }
}

fn slow(kind: Option<&'static str>, frames: Vec<(Duration, &'static str)>) -> Response<Body> {
    let frames = stream::unfold(VecDeque::from(frames), |mut frames| async move {
        let (after, text) = frames.pop_front()?;
        pass(after).await;
        Some((Ok::<_, Infallible>(Bytes::from(text)), frames))
    });
    answer(200, kind, Body::from_stream(frames))
}

#[tokio::test(start_paused = true)]
async fn a_first_message_that_takes_its_time_opens_a_session_all_the_same() {
    for (first, second) in [(SECOND * 2, SECOND), (SECOND, SECOND * 60), (SECOND * 60, SECOND)] {
        for kind in [EVENTS, JSON] {
            let own = Own::default();
            let inner = scripted(&own, move |own, call| async move {
                let frames = vec![(first, "data: "), (second, "{\"result\":1}\n\n")];
                call.is_initialize().then(|| named(slow(kind, frames), &own.open()))
            });
            let stage = Stage::new(&own, inner, |layer| layer.open_timeout(SECOND * 5));
            let before = tokio::time::Instant::now();
            let answer = stage.send(initialize()).await;
            let limit = (first + second).min(SECOND * 5);
            assert_eq!(before.elapsed(), limit, "no longer than `initialize` may take");
            let id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
            assert_eq!(stage.ask(call(&id, "ping")).await.status, 200);
            assert_eq!(read(answer).await.body, "data: {\"result\":1}\n\n");
            assert_eq!(stage.sessions.len(), 1);
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_before_the_first_message_leaves_nothing() {
    for kind in [EVENTS, JSON] {
        let own = Own::default();
        let inner = scripted(&own, move |own, call| async move {
            let frames = vec![(SECOND, "data: "), (SECOND * 3, "{}\n\n")];
            call.is_initialize().then(|| named(slow(kind, frames), &own.open()))
        });
        let stage = Stage::new(&own, inner, |layer| layer);
        for after in [SECOND / 2, SECOND * 2, SECOND * 3] {
            stage.hang_up(after, initialize()).await;
            pass(SECOND).await;
            assert_eq!((own.live(), stage.sessions.len()), (0, 0), "after {after:?}");
        }
        assert_ended_once_each(&own);
        stage.finish().await;
    }
}

/// Panics when it is asked.
struct Bomb;

impl http_body::Body for Bomb {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("as you wish")
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_before_the_first_message_leaves_no_session_and_the_panic_is_seen() {
    for kind in [JSON, EVENTS] {
        let own = Own::default();
        let inner = scripted(&own, move |own, call| async move {
            call.is_initialize().then(|| named(answer(200, kind, Body::new(Bomb)), &own.open()))
        });
        let stage = Stage::new(&own, inner, |layer| layer.max_sessions(1));
        let service = stage.service.clone();
        let asking = tokio::spawn(async move { service.oneshot(initialize()).await.map(drop) });
        assert!(asking.await.unwrap_err().is_panic());
        pass(SECOND).await;
        assert_eq!((own.opened().len(), own.live(), stage.sessions.len()), (1, 0, 0));
        stage.finish().await;
    }
}
