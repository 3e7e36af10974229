//! Bodies, futures and wakers that are used otherwise than they should, and bodies that lie.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use mcp_session_layer::{McpSessionLayer, Sessions};
use serde_json::json;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::common::*;

/// Panics if it is polled after its end, as some streams do.
fn unfused(pieces: Vec<String>) -> Body {
    Body::from_stream(stream::unfold(pieces.into_iter(), |mut pieces| async move {
        tokio::task::yield_now().await;
        pieces.next().map(|piece| (Ok::<_, Infallible>(piece), pieces))
    }))
}

#[tokio::test(start_paused = true)]
async fn a_request_body_is_not_polled_after_its_end() {
    let world = World::new(|layer| layer.forward_missing_ids());
    for body in [initialize_body().to_string(), message("ping", &json!({})), "[]".to_owned()] {
        let (one, two) = body.split_at(body.len() / 2);
        let pieces = unfused(vec![one.to_owned(), two.to_owned()]);
        let answer = world.ask(json_post(pieces)).await;
        assert_eq!(answer.status, 200, "{body}");
        assert_eq!(world.server.last().body, body);
    }
    let id = world.open_used().await;
    let answer = world.ask(with_id(json_post(unfused(vec![message("ping", &json!({}))])), &id));
    assert_eq!(answer.await.status, 200);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_asked_after_its_end_stays_ended_whatever_is_inside() {
    let server = service_fn(|request: Request<Body>| async move {
        let stream = request.headers().contains_key("mcp-session-id");
        let body = if stream { unfused(vec!["data: 1\n\n".to_owned()]) } else { "{}".into() };
        Ok::<_, Infallible>(Response::new(body))
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let service = layer.layer(server);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    let id = opened.id().unwrap();
    watched.learn(id);
    let mut answer = service.clone().oneshot(get(id)).await.unwrap();
    assert!(frame(&mut answer).await.is_some());
    for _ in 0..3 {
        assert_eq!(frame(&mut answer).await, None);
        let body = answer.body();
        assert!(body.is_end_stream() && body.size_hint().exact() == Some(0));
        assert_eq!(watched.sessions.stats().in_flight, 0);
    }
    let mut cut = service.oneshot(get(id)).await.unwrap();
    watched.sessions.close_all();
    for _ in 0..3 {
        assert_eq!(frame(&mut cut).await, None, "after a cut too");
    }
    drop((answer, cut));
    watched.finish().await;
}

/// A future that is ready as often as it is asked.
struct Again(bool);

impl Future for Again {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let body = if self.0 {
            Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
        } else {
            "{}".into()
        };
        Poll::Ready(Ok(Response::new(body)))
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_given_twice_is_counted_once() {
    let server = service_fn(|request: Request<Body>| {
        Again(request.headers().contains_key("mcp-session-id"))
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let mut service = layer.layer(server);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    let id = opened.id().unwrap().to_owned();
    watched.learn(&id);
    for request in [get(&id), call(&id, "ping")] {
        let mut future = Box::pin(service.call(request));
        let first = (&mut future).await.unwrap();
        let second = (&mut future).await.unwrap();
        let stats = watched.sessions.stats();
        assert!(stats.in_flight <= 1 && stats.streams <= 1, "{stats:?}");
        drop((first, second));
        assert_eq!(watched.sessions.stats().in_flight, 0);
    }
    // An answer of the layer itself is given once.
    let mut deleted = Box::pin(service.call(delete(&id)));
    assert_eq!((&mut deleted).await.unwrap().status(), 204);
    assert!(deleted.now_or_never().is_none(), "nothing is left to say");
    watched.finish().await;
}

/// Says what it likes of its length.
struct Liar {
    frames: usize,
    hint: Option<u64>,
    /// Says that it is over from this frame on.
    over_at: usize,
    polled: usize,
}

impl HttpBody for Liar {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.polled += 1;
        let more = self.polled <= self.frames;
        Poll::Ready(more.then(|| Ok(Frame::data(Bytes::from_static(b"data: x\n\n")))))
    }

    fn is_end_stream(&self) -> bool {
        self.polled >= self.over_at
    }

    fn size_hint(&self) -> SizeHint {
        self.hint.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_lies_about_its_end_is_let_go_of_once() {
    let server = service_fn(|request: Request<Body>| async move {
        let number = |name: &str| {
            let value = request.headers().get(name)?.to_str().unwrap();
            value.parse::<usize>().ok()
        };
        let body = Liar {
            frames: number("frames").unwrap_or(0),
            hint: number("hint").map(|hint| hint as u64),
            over_at: number("over-at").unwrap_or(usize::MAX),
            polled: 0,
        };
        let untyped = if number("frames").is_some() { Body::new(body) } else { "{}".into() };
        Ok::<_, Infallible>(Response::new(untyped))
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let service = layer.layer(server);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    let id = opened.id().unwrap().to_owned();
    watched.learn(&id);
    for hint in [None, Some(0), Some(9), Some(1_000_000)] {
        for over_at in [0, 1, 2, usize::MAX] {
            for frames in 0..4_usize {
                for mut request in [get(&id), call(&id, "ping")] {
                    let headers = request.headers_mut();
                    headers.insert("frames", frames.into());
                    if let Some(hint) = hint {
                        headers.insert("hint", u64::into(hint));
                    }
                    headers.insert("over-at", over_at.into());
                    let mut answer = service.clone().oneshot(request).await.unwrap();
                    assert!(watched.sessions.stats().in_flight <= 1);
                    for _ in 0..5 {
                        frame(&mut answer).await;
                        let _ = (answer.body().is_end_stream(), answer.body().size_hint());
                    }
                    let stats = watched.sessions.stats();
                    assert_eq!(
                        (stats.in_flight, stats.streams),
                        (0, 0),
                        "{frames} {hint:?} {over_at}"
                    );
                }
            }
        }
    }
    watched.finish().await;
}

/// A waker of an executor that is gone.
struct Gone(AtomicUsize);

impl Wake for Gone {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("nobody is there to be woken");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_keeps_no_session_from_its_end() {
    let world = World::new(|layer| layer.heartbeat(SECOND).stream_lifetime(SECOND * 10));
    let gone = Arc::new(Gone(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&gone));
    let (id, other) = (world.open_used().await, world.open_used().await);
    let mut streams = Vec::new();
    let ask = |answer: &mut Answer| {
        let polled = answer.body_mut().frame().poll_unpin(&mut Context::from_waker(&waker));
        polled.is_pending()
    };
    for id in [&id, &id, &other] {
        let mut answer = world.send(get(id)).await;
        assert!(frame(&mut answer).await.is_some());
        assert!(ask(&mut answer));
        streams.push(answer);
    }
    // Heartbeats wake, and one of them has more to wake than one.
    pass(SECOND * 2).await;
    assert_eq!(gone.0.load(Ordering::SeqCst), 3, "the reaper goes on after each");
    for answer in &mut streams {
        assert!(!ask(answer), "the comment");
        assert!(ask(answer));
    }
    assert!(world.sessions.close(&id), "the close goes on too");
    assert_eq!(world.sessions.stats().streams, 1);
    pass(SECOND * 10).await;
    assert_eq!(world.sessions.stats().streams, 0, "cut for its age");
    pass(IDLE + TICK).await;
    assert!(world.sessions.is_empty());
    assert_eq!(world.server.sessions().len(), 0, "I6");
    assert_eq!(world.events().iter().filter(|event| event.starts_with("closed")).count(), 2);
    drop(streams);
    world.finish().await;
}

/// Polls it once, for somebody who panics when told that there is more.
fn poll_for<F: Future + Unpin>(gone: &Arc<Gone>, future: &mut F) -> Poll<F::Output> {
    future.poll_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(gone))))
}

/// Those who listen for events, and those who wait for the end of a session.
#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_in_the_middle_of_a_close_stops_nothing() {
    let world = World::new(|layer| layer);
    let id = world.open().await;
    let gone = Arc::new(Gone(AtomicUsize::new(0)));
    let mut subscriber = world.sessions.subscribe();
    let mut heard = Box::pin(subscriber.recv());
    assert!(poll_for(&gone, &mut heard).is_pending());
    let session = world.sessions.get(&id).unwrap();
    let mut closed = Box::pin(session.closed());
    assert!(poll_for(&gone, &mut closed).is_pending());
    assert!(world.sessions.close(&id));
    assert_eq!(gone.0.load(Ordering::SeqCst), 2);
    assert!(heard.await.is_some());
    closed.await;
    pass(SECOND).await;
    assert!(!world.server.has(&id), "the server was told");
    // Still listens for rejections, and is woken by the end of the layer.
    world.finish().await;
    assert_eq!(gone.0.load(Ordering::SeqCst), 3);
}

/// It waits for a place, and is woken by somebody who leaves.
#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_when_a_place_is_free_is_not_the_trouble_of_who_left() {
    let world = World::new(|layer| layer.max_sessions(2));
    let (hung, leaves) = (world.open().await, world.open().await);
    world.server.change(|manners| manners.delete_status = None);
    assert!(world.sessions.close(&hung));
    pass(SECOND).await;
    world.server.change(|manners| manners.delete_status = Some(204));
    let gone = Arc::new(Gone(AtomicUsize::new(0)));
    let mut waits = Box::pin(world.send(initialize()));
    assert!(poll_for(&gone, &mut waits).is_pending());
    assert_eq!(world.ask(delete(&leaves)).await.status, 204);
    assert_eq!(gone.0.load(Ordering::SeqCst), 1);
    assert_eq!(waits.await.status(), 200);
    world.finish().await;
}

/// A waker whose last clone does something when it is dropped, as that of a task does.
struct Last(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Last {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(last) = self.0.lock().unwrap().take() {
            last();
        }
    }
}

/// Fails by hanging: hence a thread of its own, and a look at whether it has come back.
#[test]
fn a_waker_that_closes_the_session_when_it_is_replaced_does_not_hang() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new(|layer| layer);
            let id = world.open_used().await;
            let mut answer = world.send(get(&id)).await;
            assert!(frame(&mut answer).await.is_some());
            let sessions = world.sessions.clone();
            let close: Box<dyn FnOnce() + Send> =
                Box::new(move || assert_eq!(sessions.close_all(), 1));
            let waker = Waker::from(Arc::new(Last(Mutex::new(Some(close)))));
            let asked = answer.body_mut().frame().poll_unpin(&mut Context::from_waker(&waker));
            assert!(asked.is_pending());
            drop(waker);
            assert_eq!(frame(&mut answer).await, None, "closed by the waker that was replaced");
            drop(answer);
            world.finish().await;
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
}

/// A service that is never ready.
#[derive(Clone)]
struct Unready(FakeServer, Arc<AtomicUsize>);

impl Service<Request<Body>> for Unready {
    type Response = Response<Body>;
    type Error = &'static str;
    type Future = futures_util::future::BoxFuture<'static, Result<Response<Body>, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        let left =
            self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        Poll::Ready(left.map(drop).map_err(|_| "not ready"))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.0.call(request);
        Box::pin(async move { call.await.map_err(|never| match never {}) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_be_ready_is_told_of_no_close_and_keeps_no_permit() {
    let server = FakeServer::default();
    let (layer, watched) = watch(&server, McpSessionLayer::new().max_sessions(1));
    let ready = Arc::new(AtomicUsize::new(1));
    let service = layer.layer(Unready(server.clone(), Arc::clone(&ready)));
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    let id = opened.id().unwrap();
    watched.learn(id);
    for request in [get(id), call(id, "ping"), delete(id), initialize()] {
        assert_eq!(service.clone().oneshot(request).await.unwrap_err(), "not ready");
    }
    assert!(watched.sessions.close(id));
    pass(SECOND).await;
    let stats = watched.sessions.stats();
    assert_eq!((stats.closing, stats.terminate_failures), (0, 1));
    ready.store(1, Ordering::SeqCst);
    let again = service.oneshot(initialize()).await.unwrap();
    assert_eq!(again.status(), 200, "the permit is back");
    watched.learn(again.headers()["mcp-session-id"].to_str().unwrap());
    drop(again);
    watched.finish().await;
}

/// A body that is asked by whoever it wakes, while it is being asked.
#[tokio::test(start_paused = true)]
async fn a_close_in_the_middle_of_a_frame_is_the_end_of_the_stream() {
    let sessions = Arc::new(Mutex::new(None::<Sessions>));
    let closer = Arc::clone(&sessions);
    let server = service_fn(move |request: Request<Body>| {
        let closer = Arc::clone(&closer);
        async move {
            let stream = request.headers().contains_key("mcp-session-id");
            let endless = stream::poll_fn(move |_| {
                let sessions = closer.lock().unwrap().clone();
                sessions.unwrap().close_all();
                panic!("after it was closed");
                #[expect(unreachable_code, reason = "says what the stream is of")]
                Poll::Ready(Some(Ok::<Bytes, Infallible>(Bytes::new())))
            });
            let body = if stream { Body::from_stream(endless) } else { "{}".into() };
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    *sessions.lock().unwrap() = Some(watched.sessions.clone());
    let service = layer.layer(server);
    let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
    watched.learn(opened.id().unwrap());
    let mut answer = service.oneshot(get(opened.id().unwrap())).await.unwrap();
    assert!(AssertUnwindSafe(frame(&mut answer)).catch_unwind().await.is_err());
    assert_eq!(frame(&mut answer).await, None);
    assert!(watched.sessions.is_empty());
    drop(answer);
    *sessions.lock().unwrap() = None;
    watched.finish().await;
}
