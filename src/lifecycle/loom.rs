//! Every interleaving of open and close, by loom: `just loom`.
//!
//! The registry itself, with two other threads at it. There is no runtime, so the farewell of a
//! session stays in the closer's queue with its permit: a permit that is closing is a server that
//! is going to be told. At the end stands the order that [`Phase`](super::record::Phase) exists to
//! prevent, which must fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use ::loom::thread;
use futures_util::future::BoxFuture;

use super::{
    activity::Exit,
    clock::Millis,
    closer::{Terminate, Terminated, Terminator},
    deadline::Timeouts,
    events::{CloseReason, Hook, SessionEvent},
    guard::InFlight,
    handle::Session,
    opening::{Issuer, Opening},
    permits::{Permits, WhenFull},
    principal::Principal,
    record::Record,
    registry::{Limits, Mode, Registry},
    streams::{Grip, Lease, OpenStream},
};
use crate::protocol::SessionId;

/// Runs it in every order of up to 2 preemptions, or as many as the build was told.
pub(super) fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = ::loom::model::Builder::new();
    let bound = option_env!("LOOM_MAX_PREEMPTIONS").and_then(|bound| bound.parse().ok());
    builder.preemption_bound = Some(bound.unwrap_or(2));
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        run();
    });
    let orders = orders.load(SeqCst);
    println!("{}: {orders} orders", std::thread::current().name().unwrap_or_default());
    assert!(orders > 1, "nothing was explored");
}

const ID: &str = "the-id";

/// A server behind that nobody gets to call.
struct Inner;

impl Terminate for Inner {
    fn terminate(&self, _: Session) -> BoxFuture<'static, Terminated> {
        unreachable!("there is no runtime")
    }
}

#[derive(Default)]
struct Tally {
    opened: AtomicUsize,
    closed: AtomicUsize,
}

struct World {
    registry: Arc<Registry>,
    tally: Arc<Tally>,
}

impl World {
    /// Sessions that are idle for `idle` expire; at 0, whenever nothing is in flight.
    fn new(idle: Option<Millis>) -> Self {
        let tally = Arc::new(Tally::default());
        let hook: Hook = {
            let tally = Arc::clone(&tally);
            Arc::new(move |event| {
                let count = match event {
                    SessionEvent::Opened { .. } => &tally.opened,
                    SessionEvent::Closed { .. } => &tally.closed,
                    SessionEvent::Rejected { .. } => return,
                };
                count.fetch_add(1, SeqCst);
            })
        };
        let timeouts = Timeouts { idle, unused: None, lifetime: None };
        let limits = Limits {
            max_sessions: 2,
            max_sessions_per_principal: None,
            when_full: WhenFull::Reject,
            close_timeout: Duration::from_secs(1),
            shortest: idle,
            remember_closed: false,
        };
        Self { registry: Registry::new(timeouts, limits, vec![hook]), tally }
    }

    fn begin(&self) -> Opening {
        self.registry.begin_now(None).unwrap()
    }

    /// A session that is open, and the request that opened it.
    fn open(&self) -> InFlight {
        complete(self.begin())
    }

    fn spawn<T: 'static>(
        &self,
        run: impl FnOnce(&Arc<Registry>) -> T + 'static,
    ) -> thread::JoinHandle<T> {
        let registry = Arc::clone(&self.registry);
        thread::spawn(move || run(&registry))
    }

    /// The session is gone without a trace, and the server behind is told of it or not.
    fn assert_gone(&self, told: bool) {
        assert!(
            self.registry.find(ID.as_bytes()).is_none(),
            "a closed session stayed in the table"
        );
        let events = (self.tally.opened.load(SeqCst), self.tally.closed.load(SeqCst));
        assert_eq!(events, (1, 1), "opened and closed once each");
        assert_eq!(self.registry.permits().stages(), [0, 0, usize::from(told)]);
    }
}

fn complete(opening: Opening) -> InFlight {
    let id = SessionId::new(ID).unwrap();
    opening.complete(id, Issuer::Inner, Terminator::new(Inner), Exit::Stamp).unwrap()
}

fn delete(registry: &Arc<Registry>) -> bool {
    let record = registry.find(ID.as_bytes());
    record.is_some_and(|record| registry.close_untold(&record, CloseReason::Client))
}

#[test]
fn a_close_while_the_session_is_being_opened_leaves_nothing_of_it() {
    model(|| {
        let world = World::new(None);
        let opening = world.begin();
        let session = opening.session();
        let operator = thread::spawn(move || session.close());
        let request = world.spawn(|registry| registry.enter(ID.as_bytes(), None).is_ok());
        drop(complete(opening));
        assert!(operator.join().unwrap(), "nobody else closes it");
        request.join().unwrap();
        world.assert_gone(true);
    });
}

#[test]
fn of_two_who_close_while_the_session_is_being_opened_one_succeeds() {
    model(|| {
        let world = World::new(None);
        let opening = world.begin();
        let session = opening.session();
        let operator = thread::spawn(move || session.close());
        let client = world.spawn(delete);
        drop(complete(opening));
        let (operator, client) = (operator.join().unwrap(), client.join().unwrap());
        assert!(operator ^ client);
        // A close that came early is told by the opener, which cannot know that the server knows:
        // once more does no harm.
        assert!(world.registry.permits().used() <= 1);
        world.assert_gone(world.registry.permits().used() == 1);
    });
}

#[test]
fn a_session_that_opens_while_everything_is_shut_down_does_not_survive() {
    model(|| {
        let world = World::new(None);
        let opening = world.begin();
        let shutdown = world.spawn(|registry| {
            registry.set_mode(Mode::ShutDown);
            for record in registry.records() {
                registry.close(&record, CloseReason::Shutdown);
            }
        });
        drop(complete(opening));
        shutdown.join().unwrap();
        world.assert_gone(true);
    });
}

#[test]
fn a_revocation_finds_every_session_that_has_a_permit() {
    model(|| {
        let world = World::new(None);
        let operator = world.spawn(|registry| {
            let has_permit = registry.permits().used() > 0;
            (has_permit, registry.close_where(CloseReason::Requested, |_| true))
        });
        let in_flight = complete(world.begin());
        let (had_permit, closed) = operator.join().unwrap();
        assert!(closed == 1 || !had_permit, "a session slipped through");
        assert_eq!(in_flight.record().word().is_closed(), closed == 1);
        drop(in_flight);
        if closed == 1 {
            world.assert_gone(true);
        }
    });
}

#[test]
fn an_open_that_is_given_up_leaves_nothing_under_a_close_and_a_hold() {
    model(|| {
        let world = World::new(None);
        let opening = world.begin();
        let (one, other) = (opening.session(), opening.session());
        let operator = thread::spawn(move || one.close());
        let handler = thread::spawn(move || drop(other.hold()));
        drop(opening);
        operator.join().unwrap();
        handler.join().unwrap();
        assert_eq!(world.tally.opened.load(SeqCst) + world.tally.closed.load(SeqCst), 0);
        assert_eq!(world.registry.permits().used(), 0);
    });
}

#[test]
fn an_unwanted_session_is_ended_once_and_silently_under_a_close() {
    model(|| {
        let world = World::new(None);
        let opening = world.begin();
        let session = opening.session();
        let operator = thread::spawn(move || session.close());
        opening.end_at_server(SessionId::new(ID).unwrap(), Terminator::new(Inner));
        operator.join().unwrap();
        assert_eq!(world.tally.opened.load(SeqCst) + world.tally.closed.load(SeqCst), 0);
        assert_eq!(world.registry.permits().stages(), [0, 0, 1]);
    });
}

#[test]
fn reaper_access_and_delete_close_an_expired_session_once() {
    model(|| {
        let world = World::new(Some(0));
        let opened = world.open();
        let record = Arc::clone(opened.record());
        drop(opened);
        let reaper = world.spawn(move |registry| assert_eq!(registry.look_at(&record), None));
        let client = world.spawn(delete);
        assert!(world.registry.enter(ID.as_bytes(), None).is_err(), "it has expired");
        reaper.join().unwrap();
        let told = !client.join().unwrap();
        world.assert_gone(told);
    });
}

#[test]
fn what_is_held_is_not_reaped_and_what_is_reaped_is_not_held() {
    model(|| {
        let world = World::new(Some(0));
        let opened = world.open();
        let record = Arc::clone(opened.record());
        let session = Session::of(&record);
        let handler = thread::spawn(move || match session.hold() {
            Ok(_held) => assert!(!session.is_closed(), "reaped while held"),
            Err(_) => assert!(session.is_closed(), "refused while open"),
        });
        let reaper = world.spawn(move |registry| _ = registry.look_at(&record));
        let record = Arc::clone(opened.record());
        drop(opened);
        handler.join().unwrap();
        reaper.join().unwrap();
        world.registry.look_at(&record);
        world.assert_gone(true);
    });
}

struct Stream(AtomicUsize);

impl OpenStream for Stream {
    fn cut(&self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_stream_that_opens_under_a_close_is_cut_or_refused() {
    model(|| {
        let world = World::new(None);
        let opened = world.open();
        let record = Arc::clone(opened.record());
        let stream = Arc::new(Stream(AtomicUsize::new(0)));
        let opener = {
            let (stream, record) = (Arc::clone(&stream), Arc::clone(&record));
            thread::spawn(move || {
                let weak: Weak<dyn OpenStream> = Arc::downgrade(&stream) as _;
                // Left open, so that nothing but the close can end it.
                Lease::list(Grip::Record(record), weak, None)
            })
        };
        let client = world.spawn(delete);
        assert!(client.join().unwrap());
        let lease = opener.join().unwrap();
        assert_eq!(stream.0.load(SeqCst), usize::from(lease.is_some()), "neither cut nor refused");
        drop((lease, opened));
        assert_eq!(record.streams(), 0);
        world.assert_gone(false);
    });
}

#[test]
fn whoever_waits_for_the_close_hears_of_it() {
    model(|| {
        let world = World::new(None);
        let opened = world.open();
        let record: Arc<Record> = Arc::clone(opened.record());
        let client = world.spawn(delete);
        let mut closed = pin!(record.closed());
        let mut cx = Context::from_waker(Waker::noop());
        let early = closed.as_mut().poll(&mut cx);
        assert!(client.join().unwrap());
        let heard = early.is_ready() || closed.poll(&mut cx) == Poll::Ready(());
        assert!(heard, "closed, and nobody said so");
    });
}

#[test]
fn permits_never_exceed_the_cap_and_come_back() {
    model(|| {
        let permits = Arc::new(Permits::new(1, Some(1)));
        let alice = Principal::from("alice");
        let holders = Arc::new(AtomicUsize::new(0));
        let attempt = |permits: &Arc<Permits>, holders: &AtomicUsize, who: Option<&Principal>| {
            if let Ok(permit) = permits.acquire(who) {
                assert_eq!(holders.fetch_add(1, SeqCst), 0, "two under a cap of one");
                assert_eq!(permits.used(), 1);
                holders.fetch_sub(1, SeqCst);
                drop(permit);
            }
        };
        let others: Vec<_> = [Some(alice.clone()), None]
            .map(|who| {
                let (permits, holders) = (Arc::clone(&permits), Arc::clone(&holders));
                thread::spawn(move || attempt(&permits, &holders, who.as_ref()))
            })
            .into_iter()
            .collect();
        attempt(&permits, &holders, Some(&alice));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(permits.used(), 0);
        assert!(permits.acquire(Some(&alice)).is_ok());
    });
}

/// The order that was not taken.
mod controls {
    use ::loom::sync::{Mutex, atomic::AtomicBool};

    use super::{Arc, SeqCst, model, thread};

    /// Closed by whoever sets the flag, who then takes it out of the table, published or not.
    #[derive(Default)]
    struct NoPhase {
        closed: AtomicBool,
        table: Mutex<Option<&'static str>>,
    }

    impl NoPhase {
        fn complete(&self) {
            *self.table.lock().unwrap() = Some(super::ID);
        }

        fn close(&self) {
            if !self.closed.swap(true, SeqCst) {
                *self.table.lock().unwrap() = None;
            }
        }
    }

    #[test]
    #[should_panic(expected = "a closed session stayed in the table")]
    fn a_close_that_does_not_know_of_the_opening_is_rejected() {
        model(|| {
            let session = Arc::new(NoPhase::default());
            let operator = {
                let session = Arc::clone(&session);
                thread::spawn(move || session.close())
            };
            session.complete();
            operator.join().unwrap();
            let stays = session.table.lock().unwrap().is_some();
            assert!(!stays, "a closed session stayed in the table");
        });
    }
}
