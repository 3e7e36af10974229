//! The core itself, with everything around it in the hands of the model: time, the server behind,
//! and when the reaper and the closer get to run.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

use super::{
    config::Config,
    oracle::{Heard, Serial, Who},
};
use crate::{
    lifecycle::{
        clock::mock::Mock,
        closer::{Terminate, Terminated},
        events::{Hook, SessionEvent},
        guard::{Hold, InFlight},
        handle::Session,
        opening::Opening,
        principal::Principal,
        reaper,
        record::Record,
        registry::Registry,
        streams::{Lease, OpenStream},
    },
    protocol::{Fingerprint, Rejection, SessionId},
};

thread_local! {
    /// One for all sequences that a thread runs, one after the other: mocks share a static.
    static TIME: &'static AtomicU64 = Box::leak(Box::default());
    /// Names by fingerprint, for fingerprints tell nothing.
    static NAMES: RefCell<std::collections::HashMap<Fingerprint, String>> = RefCell::default();
}

pub(super) fn session_id(name: &str) -> SessionId {
    let id = SessionId::new(name).expect("the model's ids are ids");
    NAMES.with_borrow_mut(|names| {
        names.entry(id.fingerprint()).or_insert_with(|| name.to_owned());
    });
    id
}

fn name_of(session: Fingerprint) -> String {
    NAMES.with_borrow(|names| names.get(&session).cloned()).unwrap_or_default()
}

pub(super) fn principal(who: Who) -> Option<Principal> {
    who.map(|who| Principal::from(["alice", "bob", "carol"][usize::from(who) % 3]))
}

fn who(principal: Option<&Principal>) -> Who {
    (0..3).find(|who| self::principal(Some(*who)).as_ref() == principal)
}

/// A call to the server behind that it has not answered.
pub(super) struct Call {
    pub(super) id: String,
    reply: oneshot::Sender<Terminated>,
}

/// The server behind: writes down what it is told, and answers when the model says so.
#[derive(Default)]
pub(super) struct Server {
    calls: Mutex<Vec<Call>>,
}

impl Server {
    pub(super) fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Terminate for Server {
    fn terminate(&self, session: Session) -> BoxFuture<'static, Terminated> {
        let (reply, answer) = oneshot::channel();
        let id = session.id().unwrap_or_default().to_owned();
        self.calls().push(Call { id, reply });
        Box::pin(async { answer.await.unwrap_or(Terminated::Failed) })
    }
}

/// A stream whose session may take it away.
#[derive(Default)]
pub(super) struct Cuttable(AtomicBool);

impl Cuttable {
    pub(super) fn is_cut(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl OpenStream for Cuttable {
    fn cut(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) struct Stream {
    pub(super) serial: Serial,
    pub(super) body: Arc<Cuttable>,
    pub(super) is_get: bool,
    pub(super) _lease: Lease,
}

/// What is left of a session in the hands of those who once had to do with it.
pub(super) struct Trace {
    pub(super) session: Session,
    pub(super) closed: BoxFuture<'static, ()>,
    pub(super) was_closed: bool,
    /// Kept by the session's state until the server behind was told of its close.
    pub(super) token: Arc<()>,
    pub(super) record: Weak<Record>,
}

/// A guard whose end counts as use, or only stamps.
pub(super) struct Guard {
    pub(super) serial: Serial,
    pub(super) uses: bool,
    pub(super) in_flight: InFlight,
}

pub(super) type Begun = Result<Opening, Rejection>;

pub(super) struct Real {
    pub(super) registry: Arc<Registry>,
    pub(super) time: Mock,
    pub(super) server: Arc<Server>,
    pub(super) waiters: Vec<(Serial, BoxFuture<'static, Begun>)>,
    pub(super) openings: Vec<(Serial, Opening)>,
    pub(super) guards: Vec<Guard>,
    pub(super) holds: Vec<(Serial, Hold)>,
    pub(super) streams: Vec<Stream>,
    pub(super) traces: std::collections::HashMap<Serial, Trace>,
    pub(super) end: Option<BoxFuture<'static, ()>>,
    heard: Arc<Mutex<Vec<Heard>>>,
    floor: usize,
    runtime: Runtime,
}

impl Real {
    pub(super) fn new(config: &Config) -> Self {
        let time = Mock::new(TIME.with(|time| *time));
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let ears = Arc::clone(&heard);
        let hook: Hook = Arc::new(move |event| {
            ears.lock().unwrap_or_else(PoisonError::into_inner).extend(hear(event));
        });
        let registry = Registry::on(time.clock(), config.timeouts, config.limits(), vec![hook]);
        registry.reaper().stand_down();
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        {
            // From now on the closer knows where to run.
            let _inside = runtime.enter();
            registry.closer().kick();
        }
        Self {
            registry,
            time,
            server: Arc::default(),
            waiters: Vec::new(),
            openings: Vec::new(),
            guards: Vec::new(),
            holds: Vec::new(),
            streams: Vec::new(),
            traces: std::collections::HashMap::new(),
            end: None,
            heard,
            floor: 0,
            runtime,
        }
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Polls something that may need timers, which never fire: nothing here takes an hour.
    pub(super) fn poll<T>(&self, future: Pin<&mut (dyn Future<Output = T> + Send)>) -> Poll<T> {
        let _inside = self.runtime.enter();
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// `None`: it waits.
    pub(super) fn begin(&mut self, serial: Serial, who: Who) -> Option<Result<(), Rejection>> {
        let (registry, principal) = (Arc::clone(&self.registry), principal(who));
        let future = Box::pin(async move { registry.begin(principal).await });
        self.waiters.push((serial, future));
        self.retry_at(self.waiters.len() - 1)
    }

    /// One more attempt of one who waits.
    fn retry_at(&mut self, at: usize) -> Option<Result<(), Rejection>> {
        let (serial, mut future) = self.waiters.remove(at);
        match self.poll(future.as_mut()) {
            Poll::Pending => {
                self.waiters.insert(at, (serial, future));
                None
            }
            Poll::Ready(begun) => Some(self.begun(serial, begun)),
        }
    }

    pub(super) fn begun(&mut self, serial: Serial, begun: Begun) -> Result<(), Rejection> {
        begun.map(|opening| {
            let session = opening.session();
            let handle = session.clone();
            let token: Arc<()> = Arc::default();
            drop(session.state().get_or_insert_with(|| Arc::clone(&token)));
            let closed = Box::pin(async move { handle.closed().await });
            let trace = Trace { session, closed, was_closed: false, token, record: Weak::new() };
            self.traces.insert(serial, trace);
            self.openings.push((serial, opening));
        })
    }

    /// All who wait are polled once, in the order in which they came.
    pub(super) fn retry(&mut self) -> Vec<(Serial, Result<(), Rejection>)> {
        let order: Vec<_> = self.waiters.iter().map(|(serial, _)| *serial).collect();
        let mut resolved = Vec::new();
        for serial in order {
            let at = self.waiters.iter().position(|(one, _)| *one == serial);
            let outcome = at.and_then(|at| self.retry_at(at));
            resolved.extend(outcome.map(|outcome| (serial, outcome)));
        }
        resolved
    }

    /// Lets the closer's tasks run until they have nothing to do.
    pub(super) fn drive(&self) {
        self.runtime.block_on(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        });
    }

    /// What the reaper's task does when it wakes up.
    pub(super) fn reap(&mut self) {
        let mut tick = Box::pin(reaper::tick(&self.registry, self.floor));
        self.floor = loop {
            // Outside of the runtime: between batches it lets nobody else run.
            if let Poll::Ready(floor) = tick.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                break floor;
            }
        };
    }

    pub(super) fn answer(&self, id: &str, outcome: Terminated) {
        let mut calls = self.server.calls();
        let at = calls.iter().position(|call| call.id == id).expect("a call to be answered");
        // It fails if the closer has given up, which the counts would show.
        let _ = calls.remove(at).reply.send(outcome);
    }

    /// Starts a shutdown and lets it come past its grace, which is none.
    pub(super) fn shut_down(&mut self) {
        let registry = Arc::clone(&self.registry);
        let mut end: BoxFuture<'static, ()> =
            Box::pin(async move { registry.shut_down(Duration::ZERO).await });
        let mut is_over = self.poll(end.as_mut()).is_ready();
        while !is_over && self.registry.mode() != crate::lifecycle::registry::Mode::ShutDown {
            self.drive();
            is_over = self.poll(end.as_mut()).is_ready();
        }
        if !is_over {
            // Past the yield after the last batch.
            is_over = self.poll(end.as_mut()).is_ready();
        }
        self.end = (!is_over).then_some(end);
    }
}

/// What there is when everything was dropped.
pub(super) struct Left {
    pub(super) heard: Vec<Heard>,
    pub(super) told: Vec<String>,
    pub(super) registries: usize,
    pub(super) permits: usize,
    pub(super) records: usize,
}

impl Real {
    /// Drops the last handle of the registry, then all else.
    pub(super) fn leave(self) -> Left {
        let permits = Arc::clone(self.registry.permits());
        let registry = Arc::downgrade(&self.registry);
        drop(self.registry);
        let calls = |server: &Server| std::mem::take(&mut *server.calls());
        let mut told = Vec::new();
        for _ in 0..2 {
            self.runtime.block_on(tokio::task::yield_now());
            for call in calls(&self.server) {
                told.push(call.id);
                let _ = call.reply.send(Terminated::Done);
            }
            self.runtime.block_on(tokio::task::yield_now());
        }
        let records: Vec<_> = self.traces.values().map(|trace| trace.record.clone()).collect();
        drop(self.traces);
        drop(self.runtime);
        Left {
            heard: std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner)),
            told,
            registries: registry.strong_count(),
            permits: permits.used(),
            records: records.iter().map(Weak::strong_count).sum(),
        }
    }
}

fn hear(event: &SessionEvent) -> Option<Heard> {
    match event {
        SessionEvent::Opened { session, principal, .. } => {
            Some(Heard::Opened { id: name_of(*session), who: who(principal.as_ref()) })
        }
        SessionEvent::Closed { session, principal, reason, lifetime, requests } => {
            Some(Heard::Closed {
                id: name_of(*session),
                who: who(principal.as_ref()),
                reason: *reason,
                lifetime: lifetime.as_millis() as u64,
                requests: *requests,
            })
        }
        SessionEvent::Rejected { .. } => None,
    }
}
