//! A streaming body that its session can take away.
//!
//! # Ground rules
//!
//! * While a socket is full, hyper does not poll. A flag looked at in `poll_frame` would leave the
//!   body of a client that stopped reading, and all it holds, alive for as long as that client
//!   likes. So the body lives here, shared by the response and the session, and [`Cut::cut`] drops
//!   it from outside.
//! * The lock is never held while the body is polled or dropped: it is taken out for that. A body
//!   may close its own session.
//! * Whoever finds the body takes it; whoever comes second finds it [`State::Ended`]. The lease goes
//!   with the body, so it is given back once.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::lifecycle::{Cut, Lease, shielded};

pub(super) struct Slot<B> {
    inner: Mutex<Inner<B>>,
}

struct Inner<B> {
    state: State<B>,
    lease: Option<Lease>,
    waker: Option<Waker>,
}

enum State<B> {
    Here(B),
    /// Out to be polled.
    Away,
    Ended,
}

impl<B> Slot<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    /// Puts `body` where `list` can register it. `None` if `list` refuses: the session is closed.
    pub(super) fn open(
        body: B,
        list: impl FnOnce(Weak<dyn Cut>) -> Option<Lease>,
    ) -> Option<Arc<Self>> {
        let inner = Inner {
            state: State::Here(body),
            lease: None,
            waker: None,
        };
        let slot = Arc::new(Self {
            inner: Mutex::new(inner),
        });
        let weak: Weak<Self> = Arc::downgrade(&slot);
        let lease = list(weak)?;
        let unwanted = {
            let mut inner = slot.inner();
            match inner.state {
                // Cut before we were back: there is nothing left to keep a lease for.
                State::Ended => Some(lease),
                State::Here(_) | State::Away => {
                    inner.lease = Some(lease);
                    None
                }
            }
        };
        drop(unwanted);
        Some(slot)
    }

    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(mut body) = self.take_out(cx) else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut body).poll_frame(cx);
        let over = match &polled {
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
            Poll::Pending => false,
        };
        if over {
            drop(self.end());
            return polled;
        }
        match self.put_back(body) {
            None => polled,
            // Cut while it was away: whatever it just said, the session is closed.
            Some(body) => {
                shielded("response body", || drop(body));
                Poll::Ready(None)
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match &self.inner().state {
            State::Here(body) => body.is_end_stream(),
            State::Away => false,
            State::Ended => true,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.inner().state {
            State::Here(body) => body.size_hint(),
            State::Away => SizeHint::default(),
            State::Ended => SizeHint::with_exact(0),
        }
    }
}

impl<B> Slot<B> {
    fn inner(&self) -> MutexGuard<'_, Inner<B>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_out(&self, cx: &Context<'_>) -> Option<B> {
        let mut inner = self.inner();
        match mem::replace(&mut inner.state, State::Away) {
            State::Here(body) => {
                match &mut inner.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Some(body)
            }
            // `Away`: the body panicked while it was polled, and is gone.
            State::Away | State::Ended => {
                inner.state = State::Ended;
                None
            }
        }
    }

    /// Gives the body back to the caller if it is not wanted any more.
    fn put_back(&self, body: B) -> Option<B> {
        let mut inner = self.inner();
        match inner.state {
            State::Ended => Some(body),
            State::Here(_) | State::Away => {
                inner.state = State::Here(body);
                None
            }
        }
    }

    /// Ends the slot and hands out what it held, to be dropped without the lock.
    fn end(&self) -> (State<B>, Option<Lease>, Option<Waker>) {
        let mut inner = self.inner();
        let state = mem::replace(&mut inner.state, State::Ended);
        (state, inner.lease.take(), inner.waker.take())
    }
}

impl<B: Send> Cut for Slot<B> {
    fn cut(&self) {
        let (state, lease, waker) = self.end();
        shielded("response body", || drop(state));
        drop(lease);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
