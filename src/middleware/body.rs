//! The body of a response that went through the layer.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::response::Parts;
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
    /// It holds the session until its end or its drop. A body of known size passes through
    /// unchanged; a streaming one ends cleanly when its session closes. Data, trailers, errors,
    /// size hint and end-of-stream are those of the body inside.
    pub struct SessionBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        // Known size, or none of our business.
        Inline { #[pin] body: B, in_flight: Option<InFlight> },
        // The layer is kept while a stream is open: nobody else would end or reclaim its session.
        Owned { slot: Option<Arc<Slot<B>>>, layer: Arc<Shared> },
        // An answer of our own.
        Fixed { body: Full<Bytes> },
    }
}

impl<B> SessionBody<B> {
    pub(super) fn fixed(body: Bytes) -> Self {
        Self { kind: Kind::Fixed { body: Full::new(body) } }
    }

    /// Not watched.
    pub(super) fn plain(body: B) -> Self {
        Self { kind: Kind::Inline { body, in_flight: None } }
    }
}

/// Lets the body of the answer to a session's request go, holding the session as long as it needs it.
///
/// `None` if it is a stream and the session has closed meanwhile.
#[inline]
pub(super) fn carry<B>(
    shared: &Arc<Shared>,
    head: &Parts,
    body: B,
    in_flight: InFlight,
    seat: Option<StreamSeat>,
    holds: bool,
) -> Option<SessionBody<B>>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let is_over = body.is_end_stream();
    if !is_over && body.size_hint().exact().is_none() {
        return stream(shared, head, body, in_flight, seat, holds);
    }
    let in_flight = Some(in_flight).filter(|_| holds && !is_over);
    Some(SessionBody { kind: Kind::Inline { body, in_flight } })
}

/// The same for a body whose end nobody knows.
#[inline(never)]
fn stream<B>(
    shared: &Arc<Shared>,
    head: &Parts,
    body: B,
    in_flight: InFlight,
    seat: Option<StreamSeat>,
    holds: bool,
) -> Option<SessionBody<B>>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let is_get = seat.is_some();
    let grip = if holds && (!is_get || shared.options.streams_hold) {
        Grip::InFlight(in_flight)
    } else {
        Grip::Record(Arc::clone(in_flight.record()))
    };
    let timing = timing(shared, head, is_get);
    let look = timing.as_ref().and_then(|timing| timing.next_look());
    let registry = &shared.registry;
    let slot = Slot::open(body, timing, |stream| Lease::list(grip, stream, seat))?;
    if let Some(at) = look {
        let stream: Weak<Slot<B>> = Arc::downgrade(&slot);
        registry.watch_timed(stream, at);
    }
    if is_get && registry.is_draining() {
        // It was not in the list yet when the others were ended.
        slot.cut();
    }
    Some(SessionBody { kind: Kind::Owned { slot: Some(slot), layer: Arc::clone(shared) } })
}

/// What of a stream goes by the clock, if anything does.
fn timing(shared: &Shared, head: &Parts, is_get: bool) -> Option<Box<Timing>> {
    let lifetime = shared.stream_lifetime.filter(|_| is_get);
    if lifetime.is_none() && shared.heartbeat.is_none() {
        return None;
    }
    let clock = shared.registry.clock();
    let now = clock.now();
    let ends_at = lifetime.map(|lifetime| now.saturating_add(lifetime));
    let heartbeat = shared.heartbeat.and_then(|every| Heartbeat::of(&head.headers, every, now));
    let timing = Timing { clock, ends_at, heartbeat };
    timing.next_look().is_some().then(|| Box::new(timing))
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
        match self.project().kind.project() {
            KindProj::Inline { mut body, in_flight } => {
                let frame = body.as_mut().poll_frame(cx);
                let is_over = match &frame {
                    Poll::Pending => false,
                    // The consumer may stop asking after the last frame of a known size.
                    Poll::Ready(Some(Ok(_))) => body.is_end_stream(),
                    Poll::Ready(_) => true,
                };
                if is_over {
                    *in_flight = None;
                }
                frame
            }
            KindProj::Owned { slot, .. } => Slot::poll_frame(slot, cx),
            KindProj::Fixed { body } => {
                Pin::new(body).poll_frame(cx).map_err(|never| match never {})
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inline { body, .. } => body.is_end_stream(),
            Kind::Owned { slot, .. } => slot.is_none(),
            Kind::Fixed { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inline { body, .. } => body.size_hint(),
            Kind::Owned { slot, .. } => {
                slot.as_ref().map_or_else(|| SizeHint::with_exact(0), |slot| slot.size_hint())
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
            Kind::Fixed { .. } => "SessionBody::Fixed",
        })
    }
}
