//! A request body that can be sent again, as long as it is small.
//!
//! It is passed on as it comes and copied meanwhile. A redirect may come before all of it has: the next
//! attempt starts with the copy and goes on with the rest. A copy is kept until the answer begins, so a
//! request in flight costs up to 1 MiB.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

/// What of a body is kept.
const LIMIT: usize = 1 << 20;

#[derive(Clone)]
pub(crate) struct Replay(Arc<Mutex<Source>>);

struct Source {
    body: Body,
    is_over: bool,
    /// What has come of the body, or nothing if it was too much or is needed no more.
    copy: Option<Vec<u8>>,
    /// The length of the whole, if it is known.
    length: Option<u64>,
    /// Of the latest attempt. Only that one may read.
    attempt: u32,
    /// Of who waits for the body, to be told when it comes to another.
    waits: Option<Waker>,
}

impl Replay {
    pub(crate) fn new(body: Body) -> Self {
        let length = body.size_hint().exact();
        let is_small = length.is_none_or(|length| length <= LIMIT as u64);
        let copy = is_small.then(Vec::new);
        let source = Source { body, is_over: false, copy, length, attempt: 0, waits: None };
        Self(Arc::new(Mutex::new(source)))
    }

    /// The body from its beginning. Ends those that were made before. `None` if it is not whole.
    pub(crate) fn attempt(&self) -> Option<Attempt> {
        let mut source = self.lock();
        if source.attempt > 0 && source.copy.is_none() {
            return None;
        }
        source.attempt += 1;
        if let Some(waits) = source.waits.take() {
            waits.wake();
        }
        let (number, left) = (source.attempt, source.length);
        Some(Attempt { replay: self.clone(), number, sent: 0, left })
    }

    /// Whether there can be another attempt.
    pub(crate) fn is_whole(&self) -> bool {
        self.lock().copy.is_some()
    }

    /// Keeps nothing any more.
    pub(crate) fn forget(&self) {
        self.lock().copy = None;
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Attempt {
    replay: Replay,
    number: u32,
    /// How much of the copy this attempt has sent.
    sent: usize,
    left: Option<u64>,
}

impl HttpBody for Attempt {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let data = match ready!(this.replay.lock().poll(cx, this.number, this.sent)) {
            Some(Ok(data)) => data,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        this.sent += data.len();
        this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        let source = self.replay.lock();
        let has_sent_all = source.copy.as_ref().is_none_or(|copy| copy.len() <= self.sent);
        has_sent_all && (source.is_over || source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

type Polled = Option<Result<Bytes, Box<dyn Error + Send + Sync>>>;

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>, attempt: u32, sent: usize) -> Poll<Polled> {
        if attempt != self.attempt {
            return Poll::Ready(Some(Err("another attempt was made".into())));
        }
        let rest = self.copy.as_ref().and_then(|copy| copy.get(sent..)).unwrap_or_default();
        if !rest.is_empty() {
            return Poll::Ready(Some(Ok(Bytes::copy_from_slice(rest))));
        }
        while !self.is_over {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                self.waits = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let frame = frame.transpose().inspect_err(|_| self.stop())?;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    self.keep(&data);
                    return Poll::Ready(Some(Ok(data)));
                }
                // Trailers end here, like the header that announces them.
                Some(Err(_)) => {}
                None => self.is_over = true,
            }
        }
        Poll::Ready(None)
    }

    fn keep(&mut self, data: &[u8]) {
        let copy = self.copy.take().filter(|copy| copy.len() + data.len() <= LIMIT);
        self.copy = copy.map(|mut copy| {
            copy.extend_from_slice(data);
            copy
        });
    }

    /// The client is gone: what has come of its body is of no use.
    fn stop(&mut self) {
        self.is_over = true;
        self.copy = None;
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("number", &self.number).finish_non_exhaustive()
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replay").finish_non_exhaustive()
    }
}
