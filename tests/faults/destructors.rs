//! Destructors of state and of bodies that panic, or that come back to the layer.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::body::Body;
use futures_util::FutureExt;
use http::{Request, Response};
use mcp_session_layer::{McpSessionLayer, Session, Sessions};
use tower::{Layer, ServiceExt, service_fn};

use crate::common::*;

/// Goes off when it is dropped, and counts it.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("tick");
    }
}

#[tokio::test(start_paused = true)]
async fn state_that_panics_goes_off_once_on_every_way_down_and_harms_nobody() {
    type Way = fn(&World, String) -> futures_util::future::BoxFuture<'_, ()>;
    let ways: [(&str, Way); 7] = [
        ("close", |world, id| Box::pin(async move { assert!(world.sessions.close(&id)) })),
        ("delete", |world, id| Box::pin(async move { drop(world.ask(delete(&id)).await) })),
        ("404 of the server", |world, id| {
            Box::pin(async move {
                world.server.forget(&id);
                world.ask(call(&id, "ping")).await;
            })
        }),
        ("idle", |_, _| Box::pin(pass(IDLE + TICK))),
        ("found expired", |world, id| {
            Box::pin(async move {
                tokio::time::advance(IDLE * 2).await;
                world.ask(call(&id, "ping")).await.assert_lost();
            })
        }),
        ("evicted", |world, _| Box::pin(async move { drop(world.open().await) })),
        ("shutdown", |world, _| Box::pin(async move { world.sessions.shutdown(SECOND).await })),
    ];
    for (name, way) in ways {
        let world = World::new(|layer| {
            layer.max_sessions(1).when_full(mcp_session_layer::WhenFull::EvictIdle)
        });
        let drops = Arc::new(AtomicUsize::new(0));
        let id = world.open_used().await;
        let session = world.sessions.get(&id).unwrap();
        session.state().get_or_insert_with(|| Bomb(Arc::clone(&drops)));
        drop(session);
        way(&world, id.clone()).await;
        pass(SECOND).await;
        assert_eq!(drops.load(Ordering::SeqCst), 1, "{name}");
        assert!(world.sessions.get(&id).is_none() && !world.server.has(&id), "{name}");
        let closed = world.events().iter().filter(|event| event.starts_with("closed")).count();
        assert_eq!(closed, 1, "{name}");
        world.finish().await;
    }
}

/// Its handler leaves state that panics, and panics itself: the one while the other unwinds.
#[tokio::test(start_paused = true)]
async fn state_that_panics_while_initialize_unwinds_aborts_nothing() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&drops);
    let server = service_fn(move |request: Request<Body>| {
        let counted = Arc::clone(&counted);
        async move {
            let session = request.extensions().get::<Session>().unwrap().clone();
            session.state().get_or_insert_with(|| Bomb(counted));
            drop(session);
            if request.headers().contains_key("x-panic") {
                panic!("in initialize");
            }
            let refused = Response::builder().status(500).body(Body::empty()).unwrap();
            Ok::<_, Infallible>(refused)
        }
    });
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new().max_sessions(1));
    let service = layer.layer(server);
    for n in 1..=3 {
        let mut request = initialize();
        request.headers_mut().insert("x-panic", "now".parse().unwrap());
        let panicked = AssertUnwindSafe(service.clone().oneshot(request)).catch_unwind().await;
        assert!(panicked.is_err());
        let refused = service.clone().oneshot(initialize()).await.unwrap();
        assert_eq!(refused.status(), 500);
        assert_eq!(drops.load(Ordering::SeqCst), 2 * n);
        assert_eq!(watched.sessions.stats().opening, 0);
    }
    watched.finish().await;
}

/// Runs when it is dropped.
struct Then(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Then {
    fn new(then: impl FnOnce() + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(then))))
    }
}

impl Drop for Then {
    fn drop(&mut self) {
        if let Some(then) = self.0.lock().unwrap().take() {
            then();
        }
    }
}

/// Everything that an operator may call, called from inside of a close.
fn rummage(sessions: &Sessions, own: &Session) {
    assert!(own.is_closed() && !own.close() && own.hold().is_err());
    own.state().get_or_insert_with(|| 7_u32);
    assert!(own.state().get::<u32>().is_none());
    let _ = (sessions.stats(), sessions.list(), sessions.len(), own.info());
    let _ = sessions.find(own.fingerprint());
    sessions.close_all();
}

#[tokio::test(start_paused = true)]
async fn a_destructor_of_state_may_use_the_layer_and_close_everything() {
    let world = World::new(|layer| layer);
    for _ in 0..100 {
        let id = world.open_used().await;
        let session = world.sessions.get(&id).unwrap();
        let (own, sessions) = (session.clone(), world.sessions.clone());
        session.state().get_or_insert_with(|| Then::new(move || rummage(&sessions, &own)));
    }
    // One closes the next, a hundred deep.
    pass(IDLE + TICK).await;
    assert!(world.sessions.is_empty());
    pass(SECOND).await;
    assert_eq!(world.server.sessions().len(), 0);
    world.finish().await;
}

/// A stream that does something when it is dropped.
fn streaming(then: Then) -> Body {
    let endless = futures_util::stream::pending::<Result<bytes::Bytes, Infallible>>();
    Body::from_stream(futures_util::StreamExt::map(endless, move |item| {
        let _kept = &then;
        item
    }))
}

type Thens = Arc<Mutex<Vec<Then>>>;

/// Answers with JSON, or with a stream that does what comes next.
fn with_streams(
    thens: Thens,
) -> impl tower::Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    service_fn(move |request: Request<Body>| {
        let then = match request.method() {
            &http::Method::GET => thens.lock().unwrap().pop(),
            _ => None,
        };
        async move { Ok(Response::new(then.map_or("{}".into(), streaming))) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_body_may_panic_or_close_everything_when_it_is_cut() {
    let thens = Thens::default();
    let (layer, watched) = watch(&FakeServer::default(), McpSessionLayer::new());
    let service = layer.layer(with_streams(Arc::clone(&thens)));
    let mut streams = Vec::new();
    for n in 0..20 {
        let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
        let id = opened.id().unwrap();
        watched.learn(id);
        let (sessions, own) = (watched.sessions.clone(), watched.sessions.get(id).unwrap());
        thens.lock().unwrap().push(Then::new(move || {
            rummage(&sessions, &own);
            assert!(n % 2 == 0, "as destructors do");
        }));
        streams.push(service.clone().oneshot(get(id)).await.unwrap());
    }
    assert_eq!(watched.sessions.stats().streams, 20);
    assert!(watched.sessions.list().len() == 20);
    watched.sessions.close_all();
    assert!(watched.sessions.is_empty());
    for mut stream in streams {
        assert_eq!(frame(&mut stream).await, None);
    }
    watched.finish().await;
}

/// Not watched: who watches has the sessions, and here the last handle goes in a destructor.
#[tokio::test(start_paused = true)]
async fn the_last_handle_of_a_layer_may_go_in_the_middle_of_a_close() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let thens = Thens::default();
    let layer = McpSessionLayer::new().on_event(move |event| {
        log.lock().unwrap().push(format!("{event:?}").split(' ').next().unwrap().to_owned());
    });
    let last = Arc::new(OnceLock::new());
    let service = layer.layer(with_streams(Arc::clone(&thens)));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let opened = read(service.clone().oneshot(initialize()).await.unwrap()).await;
        ids.push(opened.id().unwrap().to_owned());
    }
    let goes = Arc::clone(&last);
    thens.lock().unwrap().push(Then::new(move || drop(goes)));
    let stream = service.clone().oneshot(get(&ids[0])).await.unwrap();
    let session = layer.sessions().get(&ids[0]).unwrap();
    drop((service, layer.sessions()));
    assert!(last.set(layer).is_ok());
    drop(last);
    // Now the stream keeps the layer, and has the last handle to it in its own body.
    assert!(session.close());
    drop(stream);
    tokio::task::yield_now().await;
    let events = events.lock().unwrap();
    let count = |kind: &str| events.iter().filter(|event| *event == kind).count();
    assert_eq!((count("Opened"), count("Closed")), (3, 3), "{events:?}");
}
