#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::*;
use crate::{
    lifecycle::{
        activity::Exit,
        clock::mock::Mock,
        events::CloseReason,
        handle::Session,
        opening::Issuer,
        registry::Registry,
        testing::{Answer, LIMITS, NEVER, Server, open},
    },
    protocol::SessionId,
};

/// Closes `count` sessions of a server that answers like this; failures and permits out, once
/// all that can happen within `wait` has.
async fn close(answer: Answer, count: usize, wait: Duration) -> (u64, usize, usize) {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let server = Server::new(answer);
    for id in 0..count {
        let in_flight = open(&registry, &id.to_string(), &server);
        assert!(registry.close(in_flight.record(), CloseReason::Requested));
    }
    tokio::time::sleep(wait).await;
    let calls = server.calls.load(Ordering::SeqCst);
    (registry.closer().failures(), registry.permits().used(), calls)
}

const SHORTLY: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn what_the_server_answers_decides_whether_it_counts_as_told() {
    let refused = Answer::With(Terminated::Refused(500));
    assert_eq!(close(Answer::With(Terminated::Done), 3, SHORTLY).await, (0, 0, 3));
    assert_eq!(close(refused, 3, SHORTLY).await, (3, 0, 3));
    assert_eq!(close(Answer::With(Terminated::Failed), 3, SHORTLY).await, (3, 0, 3));
    assert_eq!(close(Answer::Panic, 3, SHORTLY).await, (3, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_64_at_a_time() {
    let limit = LIMITS.close_timeout;
    assert_eq!(close(Answer::Never, 100, SHORTLY).await, (0, 100, 64));
    assert_eq!(close(Answer::Never, 100, limit - SHORTLY).await, (0, 100, 64));
    assert_eq!(close(Answer::Never, 100, limit + SHORTLY).await, (64, 36, 100));
    // By then, as many retries as there may be at once are under way.
    assert_eq!(close(Answer::Never, 100, 2 * limit + SHORTLY).await, (100, 0, 100 + 16));
}

#[test]
fn what_was_closed_outside_of_a_runtime_is_told_by_the_next() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let server = Server::new(Answer::With(Terminated::Done));
    let in_flight = open(&registry, "a", &server);
    registry.close(in_flight.record(), CloseReason::Requested);
    assert_eq!((registry.permits().used(), server.calls.load(Ordering::SeqCst)), (1, 0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        registry.closer().kick();
        tokio::task::yield_now().await;
    });
    assert_eq!((registry.permits().used(), server.calls.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn calls_that_die_with_their_runtime_give_their_places_back() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let server = Server::new(Answer::Never);
    for round in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(async {
            for id in 0..64 {
                let in_flight = open(&registry, &format!("{round}-{id}"), &server);
                registry.close(in_flight.record(), CloseReason::Requested);
            }
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        });
        assert_eq!(server.calls.load(Ordering::SeqCst), 64 * (round + 1));
        assert_eq!(registry.permits().used(), 0, "dropped with the runtime");
    }
}

fn end_unclaimed(registry: &Registry, id: usize, server: &Arc<Server>, who: Option<&Principal>) {
    let id = SessionId::new(id.to_string()).unwrap();
    registry.end_unclaimed(id, Terminator::new(Arc::clone(server)), who, |_| {});
}

#[tokio::test(start_paused = true)]
async fn sessions_without_a_permit_are_counted_per_principal_until_the_server_was_told() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let server = Server::new(Answer::Never);
    let alice = Principal::from("alice");
    for id in 0..100 {
        end_unclaimed(&registry, id, &server, Some(&alice));
    }
    assert_eq!((registry.unclaimed(Some(&alice)), registry.unclaimed(None)), (100, 0));
    tokio::time::sleep(LIMITS.close_timeout + SHORTLY).await;
    assert_eq!(registry.unclaimed(Some(&alice)), 36, "64 have had their time");
}

/// Writes down the ids of what it is to end.
#[derive(Default)]
struct Ids(Mutex<Vec<String>>);

impl Terminate for Ids {
    fn terminate(&self, session: Session) -> BoxFuture<'static, Terminated> {
        self.0.lock().unwrap().push(session.id().unwrap_or_default().to_owned());
        Box::pin(std::future::ready(Terminated::Done))
    }
}

#[tokio::test(start_paused = true)]
async fn an_unwanted_session_keeps_the_permit_of_its_opening_until_the_server_was_told() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let id = |id: &str| SessionId::new(id).unwrap();
    let server = Arc::new(Ids::default());
    for named in [None, Some("own"), Some("other")] {
        let opening = registry.begin_now(Some("alice".into())).unwrap();
        if let Some(name) = named {
            opening.name(id(name));
        }
        opening.end_at_server(id("own"), Terminator::new(Arc::clone(&server)));
        assert_eq!(registry.permits().stages(), [0, 0, 1], "{named:?}");
        tokio::time::sleep(SHORTLY).await;
        assert_eq!(registry.permits().stages(), [0, 0, 0], "{named:?}");
    }
    assert_eq!(*server.0.lock().unwrap(), ["own", "own", "own"]);
    let stats = registry.stats();
    assert_eq!((stats.opened, stats.closed.total(), registry.records().len()), (0, 0, 0));
    assert_eq!(registry.unclaimed(Some(&"alice".into())), 0);
}

#[test]
fn a_session_without_a_permit_that_no_runtime_tells_keeps_nothing_alive() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let server = Server::new(Answer::With(Terminated::Done));
    end_unclaimed(&registry, 0, &server, None);
    assert_eq!(registry.unclaimed(None), 1);
    drop(registry);
    assert_eq!(Arc::strong_count(&server), 1, "the queue went with the registry");
}

/// Fails so many calls, and says when they came.
struct Flaky {
    fails: usize,
    at: Mutex<Vec<Instant>>,
}

impl Flaky {
    fn new(fails: usize) -> Arc<Self> {
        Arc::new(Self { fails, at: Mutex::default() })
    }

    fn calls(&self) -> usize {
        self.at.lock().unwrap().len()
    }

    /// Whole seconds between one call and the next.
    fn pauses(&self) -> Vec<u64> {
        let at = self.at.lock().unwrap();
        at.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect()
    }
}

impl Terminate for Flaky {
    fn terminate(&self, _: Session) -> BoxFuture<'static, Terminated> {
        let mut at = self.at.lock().unwrap();
        at.push(Instant::now());
        let outcome =
            if at.len() > self.fails { Terminated::Done } else { Terminated::Refused(503) };
        Box::pin(std::future::ready(outcome))
    }
}

fn open_at<T: Terminate>(registry: &Arc<Registry>, id: usize, server: &Arc<T>) -> Session {
    let opening = registry.begin_now(None).unwrap();
    let id = SessionId::new(id.to_string()).unwrap();
    let server = Terminator::new(Arc::clone(server));
    let in_flight = opening.complete(id, Issuer::Inner, server, Exit::Touch).unwrap();
    Session::of(in_flight.record())
}

fn counts(registry: &Registry) -> (u64, usize) {
    let stats = registry.stats();
    (stats.unended, stats.retrying)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_ending_is_repeated_without_its_permit_until_it_succeeds() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let server = Flaky::new(4);
    let session = open_at(&registry, 0, &server);
    let kept = session.state().get_or_insert_with(|| 7_u8);
    assert!(session.close());
    tokio::time::sleep(SHORTLY).await;
    assert_eq!((registry.permits().used(), counts(&registry)), (0, (0, 1)));
    let listed = registry.unended();
    assert_eq!(listed[0].session, session.fingerprint());
    assert_eq!((listed[0].failure.as_str(), listed[0].attempts), ("answered 503", 1));
    assert!(listed[0].retrying && listed.len() == 1);
    pass(8).await;
    assert_eq!(registry.unended()[0].attempts, 4);
    assert_eq!(Arc::strong_count(&kept), 2, "the state stays for the next attempt");
    pass(8).await;
    assert_eq!(server.pauses(), [1, 2, 4, 8]);
    assert_eq!((counts(&registry), registry.unended().len()), ((0, 0), 0));
    assert_eq!(Arc::strong_count(&kept), 1);
    pass(1_000).await;
    assert_eq!((server.calls(), registry.closer().failures()), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn it_is_given_up_after_ten_minutes_and_listed_with_its_cause() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let server = Flaky::new(usize::MAX);
    let session = open_at(&registry, 0, &server);
    let kept = session.state().get_or_insert_with(|| 7_u8);
    assert!(session.close());
    pass(600).await;
    assert_eq!(counts(&registry), (0, 1));
    pass(10).await;
    assert_eq!((counts(&registry), server.calls()), ((1, 0), 16));
    let listed = registry.unended();
    assert_eq!((listed[0].attempts, listed[0].retrying, listed.len()), (16, false, 1));
    assert_eq!(Arc::strong_count(&kept), 1);
    pass(1_000).await;
    assert_eq!((server.calls(), registry.wheel().len()), (16, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_will_not_change_is_not_asked_for_again() {
    for status in [400, 401, 403, 415, 501] {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let server = Server::new(Answer::With(Terminated::Refused(status)));
        assert!(open_at(&registry, 0, &server).close());
        pass(1_000).await;
        assert_eq!(server.calls.load(Ordering::SeqCst), 1, "{status}");
        assert_eq!((counts(&registry), registry.unended()[0].attempts), ((1, 0), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn of_more_than_1024_retries_the_oldest_are_given_up() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let server = Flaky::new(usize::MAX);
    let sessions: Vec<_> = (0..1_034).map(|id| open_at(&registry, id, &server)).collect();
    for session in &sessions {
        assert!(session.close());
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(SHORTLY).await;
    assert_eq!(counts(&registry), (10, 1_024));
    let listed = registry.unended();
    let given_up: Vec<_> =
        listed.iter().filter(|one| !one.retrying).map(|one| one.session).collect();
    let oldest: Vec<_> = sessions[..10].iter().map(Session::fingerprint).collect();
    assert_eq!((given_up, listed.len()), (oldest, 1_034));
}

#[tokio::test(start_paused = true)]
async fn no_first_attempt_waits_for_retries_that_hang() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let hangs = Server::new(Answer::Never);
    for id in 0..64 {
        assert!(open_at(&registry, id, &hangs).close());
    }
    pass(5 + 2).await;
    assert_eq!(hangs.calls.load(Ordering::SeqCst), 64 + 16, "the retries are under way");
    let answers = Flaky::new(0);
    for id in 100..164 {
        assert!(open_at(&registry, id, &answers).close());
    }
    tokio::time::sleep(SHORTLY).await;
    assert_eq!(answers.calls(), 64);
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_registry_after_what_was_due() {
    let time = Mock::new(Box::leak(Box::default()));
    let registry = Registry::on(time.clock(), NEVER, LIMITS, Vec::new());
    let (due, later) = (Flaky::new(1), Flaky::new(usize::MAX));
    assert!(open_at(&registry, 0, &due).close());
    tokio::time::sleep(SHORTLY).await;
    let session = open_at(&registry, 1, &later);
    let kept = session.state().get_or_insert_with(|| 7_u8);
    session.close();
    // The second call, to be retried in a second.
    time.advance(500);
    tokio::time::sleep(SHORTLY).await;
    assert_eq!((due.calls(), later.calls(), counts(&registry)), (1, 1, (0, 2)));
    // The first is due, and the reaper does not get to run.
    time.advance(500);
    drop((registry, session));
    pass(1_000).await;
    assert_eq!((due.calls(), later.calls()), (2, 1));
    assert_eq!((Arc::strong_count(&due), Arc::strong_count(&later)), (1, 1));
    assert_eq!(Arc::strong_count(&kept), 1);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[test]
fn retries_of_a_runtime_that_has_died_go_on_with_the_next_request() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let hangs = Server::new(Answer::Never);
    let fails = Flaky::new(1);
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    runtime().block_on(async {
        open_at(&registry, 0, &hangs).close();
        open_at(&registry, 1, &fails).close();
        tokio::time::sleep(SHORTLY).await;
    });
    assert_eq!((registry.permits().used(), counts(&registry)), (0, (0, 2)));
    let failures: Vec<_> = registry.unended().into_iter().map(|one| one.failure).collect();
    assert_eq!(failures, ["answered 503", "interrupted"]);
    runtime().block_on(async {
        let _next = open_at(&registry, 2, &fails);
        pass(3).await;
    });
    assert_eq!((fails.calls(), hangs.calls.load(Ordering::SeqCst)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_is_kept_for_the_last_request_of_a_closed_session_and_no_longer() {
    let registry = Registry::new(NEVER, LIMITS, Vec::new());
    let server = Server::new(Answer::With(Terminated::Done));
    let first = open(&registry, "a", &server);
    let second = registry.enter(b"a", None).unwrap();
    let session = Session::of(first.record());
    assert!(registry.close(first.record(), CloseReason::Requested));
    tokio::time::sleep(SHORTLY).await;
    assert!(second.record().terminate().is_some());
    drop(first);
    assert!(second.record().terminate().is_some(), "for the other");
    let record = Arc::clone(second.record());
    drop(second);
    assert!(record.terminate().is_none(), "a session that somebody keeps does not keep the server");
    assert!(session.is_closed());
    drop(open(&registry, "b", &server));
    let idle = registry.find(b"b").unwrap();
    assert!(registry.close(&idle, CloseReason::Requested));
    assert!(idle.terminate().is_none(), "nobody is there to need it");
    tokio::time::sleep(SHORTLY).await;
    assert_eq!(Arc::strong_count(&server), 1);
}
