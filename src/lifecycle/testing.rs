//! What unit tests of the core share.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::{
    activity::Exit,
    closer::{Terminate, Terminated, Terminator},
    deadline::Timeouts,
    guard::InFlight,
    handle::Session,
    opening::Issuer,
    permits::WhenFull,
    registry::{Limits, Registry},
};
use crate::protocol::SessionId;

pub(super) const LIMITS: Limits = Limits {
    max_sessions: 10_000,
    max_sessions_per_principal: None,
    when_full: WhenFull::Reject,
    close_timeout: Duration::from_secs(5),
    shortest: Some(640),
    remember_closed: false,
};

pub(super) const NEVER: Timeouts = Timeouts { idle: None, unused: None, lifetime: None };

/// How the server behind answers a DELETE.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    With(Terminated),
    Never,
    Panic,
}

pub(super) struct Server {
    pub(super) answer: Answer,
    pub(super) calls: AtomicUsize,
}

impl Server {
    pub(super) fn new(answer: Answer) -> Arc<Self> {
        Arc::new(Self { answer, calls: AtomicUsize::new(0) })
    }
}

impl Terminate for Server {
    fn terminate(&self, _: Session) -> BoxFuture<'static, Terminated> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.answer {
            Answer::With(outcome) => Box::pin(ready(outcome)),
            Answer::Never => Box::pin(pending()),
            Answer::Panic => panic!("the server behind"),
        }
    }
}

/// Opens a session that the server behind knows of.
pub(super) fn open(registry: &Arc<Registry>, id: &str, server: &Arc<Server>) -> InFlight {
    let opening = registry.begin_now(None).unwrap();
    let server = Terminator::new(Arc::clone(server));
    opening.complete(SessionId::new(id).unwrap(), Issuer::Inner, server, Exit::Touch).unwrap()
}
