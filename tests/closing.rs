//! How the upstream server is told of a close: with what, how often, and what becomes of a failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use common::*;
use mcp_session_layer::{Principal, SessionEvent};

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

#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_for_a_while_is_left_without_a_session() {
    for status in [Some(503), Some(429), None] {
        let world = World::new(|layer| layer.max_sessions(1));
        let id = world.open_used().await;
        world.server.change(|manners| manners.delete_status = status);
        assert!(world.sessions.close(&id));
        pass(SECOND * 60).await;
        let stats = world.sessions.stats();
        assert_eq!((stats.closing, stats.retrying, stats.unended), (0, 1, 0), "{status:?}");
        assert!(world.server.has(&id));
        world.server.change(|manners| manners.delete_status = Some(202));
        pass(SECOND * 70).await;
        let stats = world.sessions.stats();
        assert_eq!((stats.retrying, stats.unended, stats.terminate_failures), (0, 0, 1));
        assert!(!world.server.has(&id) && world.sessions.unended().is_empty());
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_sees_what_the_server_kept_and_why() {
    let alice = |parts: &http::request::Parts| {
        parts.headers.get("x-user").map(|_| Principal::from("alice"))
    };
    let world = World::new(|layer| layer.principal(alice));
    let mut request = initialize();
    request.headers_mut().insert("x-user", "alice".parse().unwrap());
    let id = world.ask(request).await.id().unwrap().to_owned();
    let session = world.sessions.get(&id).unwrap().fingerprint();
    world.server.change(|manners| manners.delete_status = Some(401));
    assert!(world.sessions.close(&id));
    pass(SECOND).await;
    let unended = serde_json::to_value(world.sessions.unended()).unwrap();
    let expected = serde_json::json!([{
        "session": session.to_string(), "principal": "alice", "failure": "answered 401",
        "attempts": 1, "retrying": false,
    }]);
    assert_eq!(unended, expected);
    assert_eq!(world.sessions.stats().unended, 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_line_a_second_names_the_cure_for_a_failed_delete() {
    let log: Log = Arc::default();
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || Lines(Arc::clone(&writer)))
        .finish();
    let _logs = tracing::subscriber::set_default(subscriber);
    let causes = [
        (Some(401), "add credentials with `terminate_with`"),
        (Some(403), "add credentials with `terminate_with`"),
        (Some(501), "the method router must accept DELETE"),
        (Some(415), "the method router must accept DELETE"),
        (Some(500), "`keep_extension`"),
        (None, "`close_timeout`"),
    ];
    for (status, cure) in causes {
        let world = World::new(|layer| layer);
        world.server.change(|manners| manners.delete_status = status);
        for _ in 0..10 {
            world.open_used().await;
        }
        world.sessions.close_all();
        pass(SECOND * 6).await;
        let text = String::from_utf8(std::mem::take(&mut *log.lock().unwrap())).unwrap();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.contains("failed to terminate the upstream session"))
            .collect();
        assert_eq!(lines.len(), 1, "{status:?}: {text}");
        assert!(lines[0].contains(cure) && lines[0].contains(" WARN "), "{text}");
        // The next one says how many there were.
        world.server.change(|manners| manners.delete_status = Some(400));
        let last = world.open_used().await;
        assert!(world.sessions.close(&last));
        pass(SECOND / 2).await;
        let text = String::from_utf8(std::mem::take(&mut *log.lock().unwrap())).unwrap();
        assert!(text.contains("suppressed=9"), "{text}");
        assert!(!text.contains(&last), "an id is in the log");
        world.server.change(|manners| manners.delete_status = Some(202));
        world.finish().await;
        log.lock().unwrap().clear();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_being_opened_is_closed_with_its_principal() {
    let named = |parts: &http::request::Parts| {
        parts.headers.get("x-user").map(|name| Principal::from(name.to_str().unwrap()))
    };
    let world = World::new(|layer| layer.principal(named));
    world.server.change(|manners| manners.open_delay = SECOND);
    let open = |name: &'static str| {
        let mut request = initialize();
        request.headers_mut().insert("x-user", name.parse().unwrap());
        world.ask(request)
    };
    let sessions = world.sessions.clone();
    let revoked = async {
        pass(SECOND / 2).await;
        sessions.close_principal(&"alice".into())
    };
    let (_, _, revoked) = tokio::join!(open("alice"), open("bob"), revoked);
    assert_eq!(revoked, 1);
    pass(SECOND).await;
    let left: Vec<_> = world.sessions.list().into_iter().map(|one| one.principal).collect();
    assert_eq!(left, [Some("bob".into())]);
    assert_eq!(world.server.sessions().len(), 1, "the server was told");
    world.finish().await;
}

type Log = Arc<Mutex<Vec<u8>>>;

struct Lines(Log);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
