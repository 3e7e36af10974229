//! How the upstream server is told that a session has ended.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use futures_util::future::BoxFuture;

use crate::lifecycle::handle::Session;

/// How a session is ended at the upstream server.
///
/// One for all sessions that were opened at the same endpoint.
pub(crate) trait Terminate: Any + Send + Sync {
    /// Tells it. `session` has its id.
    fn terminate(&self, session: Session) -> BoxFuture<'static, Terminated>;
}

/// Behind one thin pointer, because every session keeps one.
#[derive(Clone)]
pub(crate) struct Terminator(Arc<Box<dyn Terminate>>);

impl Terminator {
    pub(crate) fn new(terminate: impl Terminate + 'static) -> Self {
        Self(Arc::new(Box::new(terminate)))
    }

    pub(crate) fn downgrade(&self) -> WeakTerminator {
        WeakTerminator(Arc::downgrade(&self.0))
    }

    /// What it was made of, if it was that.
    pub(crate) fn made_of<T: Terminate>(&self) -> Option<&T> {
        let made: &dyn Any = &**self.0;
        made.downcast_ref()
    }
}

/// A [`Terminator`] that later sessions can share, as long as one session has it.
pub(crate) struct WeakTerminator(Weak<Box<dyn Terminate>>);

impl WeakTerminator {
    pub(crate) fn upgrade(&self) -> Option<Terminator> {
        self.0.upgrade().map(Terminator)
    }

    pub(crate) fn is_of_use(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// Tests keep the server that they give away.
#[cfg(any(test, fuzzing))]
impl<T: Terminate + ?Sized> Terminate for Arc<T> {
    fn terminate(&self, session: Session) -> BoxFuture<'static, Terminated> {
        (**self).terminate(session)
    }
}

impl std::ops::Deref for Terminator {
    type Target = dyn Terminate;

    fn deref(&self) -> &Self::Target {
        &**self.0
    }
}

/// What came of telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminated {
    /// It is gone there too, or was never kept, or cannot be ended from outside.
    Done,
    /// An unexpected status.
    Refused(u16),
    /// The call failed.
    Failed,
}
