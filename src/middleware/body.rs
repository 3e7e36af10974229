//! The body of a response that went through the layer.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, response::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use super::{
    heartbeat::{Heartbeat, Timing},
    shared::Shared,
    slot::Slot,
};
use crate::lifecycle::{Grip, InFlight, Lease, OpenStream, StreamSeat};

pin_project! {
    /// The response body of [`McpSessionService`](crate::McpSessionService).
    ///
    /// It holds the session until its end or its drop. A body of known size that is whole with its first frame passes
    /// through unchanged; every other ends when its session closes. Data, trailers, errors, size hint and
    /// end-of-stream are those of the body inside.
    pub struct SessionBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        // Known size, or not watched.
        Inline { #[pin] body: B, held: Option<Held> },
        // The layer is kept while a stream is open: nobody else would end or reclaim its session.
        Owned { slot: Option<Arc<Slot<B>>>, layer: Arc<Shared> },
        // What was read already comes first.
        Peeked { peeked: Box<Peeked<B>> },
        // An answer of our own.
        Fixed { body: Full<Bytes> },
    }
}

/// What a body of known size has of its session until it is over.
struct Held {
    grip: Grip,
    layer: Arc<Shared>,
}

/// What was read already, and what comes after it.
struct Peeked<B> {
    frames: VecDeque<Frame<Bytes>>,
    rest: Option<SessionBody<B>>,
}

impl<B> SessionBody<B> {
    pub(super) fn fixed(body: Bytes) -> Self {
        Self { kind: Kind::Fixed { body: Full::new(body) } }
    }

    /// Not watched.
    pub(super) fn plain(body: B) -> Self {
        Self { kind: Kind::Inline { body, held: None } }
    }

    /// Puts back in front of a body what was read off it. If that was all, the body is not asked again.
    pub(super) fn after(self, frames: VecDeque<Frame<Bytes>>, is_over: bool) -> Self {
        if matches!(self.kind, Kind::Fixed { .. }) || frames.is_empty() && !is_over {
            return self;
        }
        let rest = (!is_over).then_some(self);
        Self { kind: Kind::Peeked { peeked: Box::new(Peeked { frames, rest }) } }
    }
}

/// Lets the body of the answer to a session's request go, holding the session as long as it needs it.
///
/// `Err` with the layer if it is a stream and the session has closed meanwhile.
#[inline]
pub(super) fn carry<B>(
    layer: Arc<Shared>,
    head: &Parts,
    body: B,
    in_flight: InFlight,
    seat: Option<StreamSeat>,
    holds: bool,
) -> Result<SessionBody<B>, Arc<Shared>>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    if body.is_end_stream() {
        return Ok(SessionBody::plain(body));
    }
    let is_sized = body.size_hint().exact().is_some();
    let grip = if holds && (seat.is_none() || layer.options.streams_hold) {
        Grip::InFlight(in_flight)
    } else {
        Grip::Record(Arc::clone(in_flight.record()))
    };
    if !is_sized || seat.is_some() {
        // One of declared length has no room for a heartbeat.
        let headers = Some(&head.headers).filter(|_| !is_sized);
        return stream(layer, headers, body, grip, seat);
    }
    Ok(SessionBody { kind: Kind::Inline { body, held: Some(Held { grip, layer }) } })
}

/// The same for a body that its session can take away. `headers` are those of an answer that may have a heartbeat.
#[inline(never)]
fn stream<B>(
    layer: Arc<Shared>,
    headers: Option<&HeaderMap>,
    body: B,
    grip: Grip,
    seat: Option<StreamSeat>,
) -> Result<SessionBody<B>, Arc<Shared>>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let is_get = seat.is_some();
    let timing = timing(&layer, headers, is_get);
    let look = timing.as_ref().and_then(|timing| timing.next_look());
    let Some(slot) = Slot::open(body, timing, |stream| Lease::list(grip, stream, seat)) else {
        return Err(layer);
    };
    let registry = &layer.registry;
    if let Some(at) = look {
        let stream: Weak<Slot<B>> = Arc::downgrade(&slot);
        registry.watch_timed(stream, at);
    }
    if is_get && registry.is_draining() {
        // It was not in the list yet when the others were ended.
        slot.cut();
    }
    Ok(SessionBody { kind: Kind::Owned { slot: Some(slot), layer } })
}

/// The timers of a stream, if it has any.
fn timing(shared: &Shared, headers: Option<&HeaderMap>, is_get: bool) -> Option<Box<Timing>> {
    let lifetime = shared.stream_lifetime.filter(|_| is_get);
    let heartbeat = shared.heartbeat.zip(headers);
    if lifetime.is_none() && heartbeat.is_none() {
        return None;
    }
    let clock = shared.registry.clock();
    let now = clock.now();
    let ends_at = lifetime.map(|lifetime| now.saturating_add(lifetime));
    let heartbeat = heartbeat.and_then(|(every, headers)| Heartbeat::of(headers, every, now));
    let timing = Timing { clock, ends_at, heartbeat };
    timing.next_look().is_some().then(|| Box::new(timing))
}

impl<B> SessionBody<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    /// A body of known size turned out not to be whole with its first frame, so its session must be able to take it
    /// away: its client may read it as slowly as it likes.
    #[inline(never)]
    fn own(
        &mut self,
        frame: Poll<Option<Result<Frame<Bytes>, B::Error>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let gone = Kind::Fixed { body: Full::default() };
        let Kind::Inline { body, held: Some(Held { grip, layer }) } =
            mem::replace(&mut self.kind, gone)
        else {
            return frame;
        };
        match stream(layer, None, body, grip, None) {
            Ok(owned) => *self = owned,
            // The session has closed meanwhile.
            Err(_) => return Poll::Ready(None),
        }
        if frame.is_pending() { Pin::new(self).poll_frame(cx) } else { frame }
    }
}

impl<B> Body for SessionBody<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.kind).project() {
            KindProj::Inline { mut body, held } => {
                let frame = body.as_mut().poll_frame(cx);
                let is_over = match &frame {
                    Poll::Pending => false,
                    // The consumer may stop asking after the last frame of a known size.
                    Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
                    Poll::Ready(_) => true,
                };
                if is_over {
                    *held = None;
                } else if held.is_some() {
                    return this.own(frame, cx);
                }
                frame
            }
            KindProj::Owned { slot, .. } => Slot::poll_frame(slot, cx),
            KindProj::Peeked { peeked } => {
                if let Some(frame) = peeked.frames.pop_front() {
                    return Poll::Ready(Some(Ok(frame)));
                }
                let rest = peeked.rest.as_mut();
                rest.map_or(Poll::Ready(None), |rest| Pin::new(rest).poll_frame(cx))
            }
            KindProj::Fixed { body } => {
                Pin::new(body).poll_frame(cx).map_err(|never| match never {})
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inline { body, .. } => body.is_end_stream(),
            Kind::Owned { slot, .. } => slot.is_none(),
            Kind::Peeked { peeked } => {
                let rest = peeked.rest.as_ref();
                peeked.frames.is_empty() && rest.is_none_or(|rest| rest.is_end_stream())
            }
            Kind::Fixed { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inline { body, .. } => body.size_hint(),
            Kind::Owned { slot, .. } => {
                slot.as_ref().map_or_else(|| SizeHint::with_exact(0), |slot| slot.size_hint())
            }
            Kind::Peeked { peeked } => {
                let Peeked { frames, rest } = &**peeked;
                let read: usize = frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
                let rest = rest.as_ref().map_or(SizeHint::with_exact(0), |rest| rest.size_hint());
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(read as u64));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(read as u64));
                }
                hint
            }
            Kind::Fixed { body } => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for SessionBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Inline { .. } => "SessionBody::Inline",
            Kind::Owned { .. } => "SessionBody::Owned",
            Kind::Peeked { .. } => "SessionBody::Peeked",
            Kind::Fixed { .. } => "SessionBody::Fixed",
        })
    }
}
