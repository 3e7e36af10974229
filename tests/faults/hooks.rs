//! Hooks on events that cause events.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Body;
use futures_util::FutureExt;
use http::{Request, Response};
use mcp_session_layer::{Fingerprint, McpSessionLayer, McpSessionService, SessionEvent, Sessions};
use tower::{Layer, ServiceExt, service_fn, util::ServiceFn};

use crate::common::*;

/// What somebody has heard, in their order.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(&'static str, Fingerprint)>>>);

impl Heard {
    fn note(&self, event: &SessionEvent) {
        let heard = match event {
            SessionEvent::Opened { session, .. } => ("opened", *session),
            SessionEvent::Closed { session, .. } => ("closed", *session),
            _ => return,
        };
        self.0.lock().unwrap().push(heard);
    }

    fn all(&self) -> Vec<(&'static str, Fingerprint)> {
        self.0.lock().unwrap().clone()
    }
}

type Slot = Arc<OnceLock<Sessions>>;

/// Told of a close, it closes all there are.
fn closes_all(slot: &Slot) -> impl Fn(&SessionEvent) + Send + Sync + 'static {
    let slot = Arc::clone(slot);
    move |event| {
        if matches!(event, SessionEvent::Closed { .. }) {
            slot.get().unwrap().close_all();
        }
    }
}

/// The hooks before the one that causes it, those after, and subscribers.
#[tokio::test(start_paused = true)]
async fn everybody_hears_of_what_a_hook_has_caused_in_the_same_order() {
    let slot = Slot::default();
    let (before, after) = (Heard::default(), Heard::default());
    let (early, late) = (before.clone(), after.clone());
    let world = World::new(|layer| {
        layer
            .on_event(move |event| early.note(event))
            .on_event(closes_all(&slot))
            .on_event(move |event| late.note(event))
    });
    slot.set(world.sessions.clone()).unwrap();
    let mut subscriber = world.sessions.subscribe();
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(world.open().await);
    }
    let first = world.sessions.get(&ids[7]).unwrap();
    assert!(first.close());
    assert_eq!(world.sessions.stats().closed.total(), 20);
    let streamed = Heard::default();
    for _ in 0..40 {
        streamed.note(&subscriber.recv().await.unwrap());
    }
    let all = streamed.all();
    assert_eq!(all[20], ("closed", first.fingerprint()), "what was asked for comes first");
    assert_eq!(before.all(), all);
    assert_eq!(after.all(), all);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn another_layers_hook_inside_of_a_hook_is_called_at_once() {
    let heard = Heard::default();
    let hears = heard.clone();
    let other = World::new(|layer| layer.on_event(move |event| hears.note(event)));
    let session = {
        let id = other.open().await;
        other.sessions.get(&id).unwrap()
    };
    let (closing, seen) = (session.clone(), heard.clone());
    let at_once = Arc::new(OnceLock::new());
    let answer = Arc::clone(&at_once);
    let world = World::new(|layer| {
        layer.on_event(move |event| {
            if matches!(event, SessionEvent::Closed { .. }) {
                assert!(closing.close());
                answer.set(seen.all().last() == Some(&("closed", closing.fingerprint()))).unwrap();
            }
        })
    });
    let id = world.open().await;
    assert!(world.sessions.close(&id));
    assert_eq!(at_once.get(), Some(&true));
    world.finish().await;
    other.finish().await;
}

type Answers = Ready<Result<Response<Body>, Infallible>>;

/// Gives everybody a session, also who has asked for none.
fn generous(_: Request<Body>) -> Answers {
    let answer = Response::builder().header("mcp-session-id", unique("given"));
    ready(Ok(answer.body("{}".into()).unwrap()))
}

/// A hook that opens a session, which another thread closes before the hook has returned.
#[tokio::test(start_paused = true)]
async fn a_session_that_a_hook_opens_is_told_of_before_anybody_can_close_it() {
    type Service = McpSessionService<ServiceFn<fn(Request<Body>) -> Answers>>;
    let slot = Arc::new(OnceLock::<(Service, Sessions, String)>::new());
    let (inside, fired) = (Arc::clone(&slot), AtomicBool::new(false));
    let layer = McpSessionLayer::new().on_event(move |event| {
        if !matches!(event, SessionEvent::Closed { .. }) || fired.swap(true, Ordering::SeqCst) {
            return;
        }
        let (service, sessions, open) = inside.get().unwrap();
        let answer = service.clone().oneshot(call(open, "ping")).now_or_never().unwrap().unwrap();
        let id = answer.headers()["mcp-session-id"].to_str().unwrap();
        std::thread::scope(|scope| {
            let closed = scope.spawn(|| sessions.close(id)).join();
            assert!(closed.unwrap());
        });
    });
    let (layer, watched) = watch(&FakeServer::default(), layer);
    let service = layer.layer(service_fn(generous as fn(_) -> _));
    let open = async || {
        let reply = read(service.clone().oneshot(initialize()).await.unwrap()).await;
        reply.id().unwrap().to_owned()
    };
    let (stays, goes) = (open().await, open().await);
    assert!(slot.set((service.clone(), watched.sessions.clone(), stays)).is_ok());
    assert!(watched.sessions.close(&goes));
    let order = ["opened", "opened", "opened", "closed requested", "closed requested"];
    assert_eq!(watched.events(), order);
    watched.finish().await;
}
