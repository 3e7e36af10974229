//! A streaming body that its session can take away.
//!
//! # Ground rules
//!
//! * While a socket is full, hyper does not poll. A flag looked at in `poll_frame` would leave the
//!   body of a client that stopped reading, and all it holds, alive for as long as that client
//!   likes. So the body lives here, shared by the response and the session, and [`OpenStream::cut`] drops
//!   it from outside.
//! * The lock is never held while the body is polled or dropped: it is taken out for that. A body
//!   may close its own session.
//! * Time is the reaper's: it looks at the slot when its stream may be too old or too silent.
//! * Whoever finds the body takes it; whoever comes second finds it [`State::Ended`]. The lease goes
//!   with whoever cuts the body, or with the slot, of which the response lets go when its body is over:
//!   either way it is given back once.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::heartbeat::Timing;
use crate::lifecycle::{Lease, Millis, OpenStream, Timed, shielded};

pub(super) struct Slot<B> {
    inner: Mutex<Inner<B>>,
}

struct Inner<B> {
    state: State<B>,
    lease: Option<Lease>,
    waker: Option<Waker>,
    timing: Option<Box<Timing>>,
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
        timing: Option<Box<Timing>>,
        list: impl FnOnce(Weak<dyn OpenStream>) -> Option<Lease>,
    ) -> Option<Arc<Self>> {
        let inner = Inner { state: State::Here(body), lease: None, waker: None, timing };
        let slot = Arc::new(Self { inner: Mutex::new(inner) });
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

    /// Asks the body in `place`, which is empty once it is over.
    pub(super) fn poll_frame(
        place: &mut Option<Arc<Self>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        // Out of its place meanwhile: a body that panics is over, and whoever keeps its response keeps
        // nothing of the session.
        let Some(slot) = place.take() else { return Poll::Ready(None) };
        let Some((mut body, known)) = slot.take_out() else { return Poll::Ready(None) };
        let mut polled = Pin::new(&mut body).poll_frame(cx);
        let waker = match &polled {
            Poll::Ready(None | Some(Err(_))) => return polled,
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => return polled,
            // Whoever is given a frame asks for the next, without being woken.
            Poll::Ready(Some(Ok(_))) => known,
            Poll::Pending => Some(match known {
                Some(known) if known.will_wake(cx.waker()) => known,
                _ => cx.waker().clone(),
            }),
        };
        match slot.put_back(body, waker) {
            Ok(Beats(beats)) => {
                if beats {
                    slot.heed(&mut polled);
                }
                *place = Some(slot);
            }
            // Cut while it was away: whatever it just said, the session is closed.
            Err(body) => {
                shielded("response body", || drop(body));
                polled = Poll::Ready(None);
            }
        }
        polled
    }

    /// Keeps the heartbeat in step with what the body says, or speaks for it.
    #[inline(never)]
    fn heed(&self, polled: &mut Poll<Option<Result<Frame<Bytes>, B::Error>>>) {
        let mut inner = self.inner();
        let Some(Timing { clock, heartbeat: Some(heartbeat), .. }) = inner.timing.as_deref_mut()
        else {
            return;
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    heartbeat.hear(data, clock.now());
                }
            }
            Poll::Ready(_) => {}
            Poll::Pending => {
                if let Some(comment) = heartbeat.take_beat() {
                    *polled = Poll::Ready(Some(Ok(Frame::data(comment))));
                }
            }
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

/// Whether a stream has a heartbeat.
struct Beats(bool);

impl<B> Slot<B> {
    fn inner(&self) -> MutexGuard<'_, Inner<B>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body, and who was to be woken for it: while it is out, its own poll sees to what happens.
    fn take_out(&self) -> Option<(B, Option<Waker>)> {
        let mut inner = self.inner();
        match mem::replace(&mut inner.state, State::Away) {
            State::Here(body) => Some((body, inner.waker.take())),
            State::Away | State::Ended => {
                inner.state = State::Ended;
                None
            }
        }
    }

    /// Gives the body back to the caller if it is not wanted any more.
    fn put_back(&self, body: B, waker: Option<Waker>) -> Result<Beats, B> {
        // The last of a task may be its waker, and with the task goes whatever it holds: neither is
        // dropped under the lock.
        let (replaced, beats) = {
            let mut inner = self.inner();
            match inner.state {
                State::Ended => return Err(body),
                State::Here(_) | State::Away => {
                    inner.state = State::Here(body);
                    let heart = inner.timing.as_ref().and_then(|it| it.heartbeat.as_ref());
                    let beats = Beats(heart.is_some());
                    (mem::replace(&mut inner.waker, waker), beats)
                }
            }
        };
        drop(replaced);
        Ok(beats)
    }

    /// Ends the slot and hands out what it held, to be dropped without the lock.
    fn end(&self) -> (State<B>, Option<Lease>, Option<Waker>) {
        let mut inner = self.inner();
        let state = mem::replace(&mut inner.state, State::Ended);
        (state, inner.lease.take(), inner.waker.take())
    }
}

impl<B: Send> OpenStream for Slot<B> {
    fn cut(&self) {
        let (state, lease, waker) = self.end();
        shielded("response body", || drop(state));
        drop(lease);
        wake(waker);
    }
}

impl<B: Send> Timed for Slot<B> {
    fn look_at(&self, now: Millis) -> Option<Millis> {
        let look = {
            let mut inner = self.inner();
            if matches!(inner.state, State::Ended) {
                return None;
            }
            let timing = inner.timing.as_deref_mut()?;
            if timing.is_over(now) {
                None
            } else {
                let heart = timing.heartbeat.as_mut();
                let beats = heart.is_some_and(|heartbeat| heartbeat.look_at(now));
                let next = timing.next_look();
                Some((if beats { inner.waker.take() } else { None }, next))
            }
        };
        let Some((waker, next)) = look else {
            self.cut();
            return None;
        };
        wake(waker);
        next
    }
}

/// An executor that is gone may panic when it is asked to poll, which must not keep the others of
/// the session from being cut.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        shielded("waker", || waker.wake());
    }
}
