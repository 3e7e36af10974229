//! How the upstream server is told of a close: with what, how often, and what becomes of a failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use common::*;
use mcp_session_layer::SessionEvent;

/// Left in the state by a handler; counts when it is dropped.
struct Token(Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_reads_what_a_handler_left_and_it_is_dropped_when_the_server_was_told() {
    let drops = Arc::new(AtomicUsize::new(0));
    let seen: Arc<Mutex<Vec<(bool, usize)>>> = Arc::default();
    let (hook_drops, hook_seen) = (Arc::clone(&drops), Arc::clone(&seen));
    let world = World::new(|layer| {
        layer.terminate_with(move |session, _| {
            let token = session.state().get::<Token>();
            let dropped = hook_drops.load(Ordering::SeqCst);
            hook_seen.lock().unwrap().push((token.is_some(), dropped));
        })
    });
    let id = world.open_used().await;
    let session = world.sessions.get(&id).unwrap();
    session.state().get_or_insert_with(|| Token(Arc::clone(&drops)));
    assert!(session.close());
    assert_eq!(drops.load(Ordering::SeqCst), 0, "the server has not been told yet");
    pass(SECOND).await;
    assert_eq!(*seen.lock().unwrap(), [(true, 0)]);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert!(session.state().get::<Token>().is_none());
    drop(session);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn state_is_dropped_at_the_close_where_the_server_knows_of_it() {
    let drops = Arc::new(AtomicUsize::new(0));
    let at_event = Arc::new(AtomicUsize::new(0));
    let (hook_drops, hook_event) = (Arc::clone(&drops), Arc::clone(&at_event));
    let world = World::new(|layer| {
        layer.on_event(move |event| {
            if matches!(event, SessionEvent::Closed { .. }) {
                hook_event.store(hook_drops.load(Ordering::SeqCst), Ordering::SeqCst);
            }
        })
    });
    let id = world.open_used().await;
    let session = world.sessions.get(&id).unwrap();
    session.state().get_or_insert_with(|| Token(Arc::clone(&drops)));
    drop(session);
    assert!(world.ask(delete(&id)).await.status.is_success());
    assert_eq!(at_event.load(Ordering::SeqCst), 1);
    world.finish().await;
}
