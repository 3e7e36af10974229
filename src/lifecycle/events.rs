//! What happened to a session, for hooks, subscribers, counters and the log.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use super::{cascade, principal::Principal, shield::shielded};
use crate::protocol::{ClientInfo, Fingerprint, Rejection};

/// Events a subscriber may lag behind before it misses some.
const BACKLOG: usize = 1024;

/// Why a session was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloseReason {
    /// Nothing was in flight for `idle_timeout`.
    Idle,
    /// No request followed `initialize` within `unused_timeout`.
    Unused,
    /// It reached `max_lifetime`.
    Lifetime,
    /// The client sent DELETE.
    Client,
    /// The server behind answered 404: it no longer knows the session.
    Inner,
    /// It made room for another (`WhenFull::EvictIdle`).
    Evicted,
    /// The client hung up before `initialize` was answered.
    Abandoned,
    /// A handler or an operator closed it.
    Requested,
    /// The layer shut down.
    Shutdown,
}

impl CloseReason {
    pub(super) const ALL: [Self; 9] = [
        Self::Idle,
        Self::Unused,
        Self::Lifetime,
        Self::Client,
        Self::Inner,
        Self::Evicted,
        Self::Abandoned,
        Self::Requested,
        Self::Shutdown,
    ];

    /// The reason in lower case, as in logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Unused => "unused",
            Self::Lifetime => "lifetime",
            Self::Client => "client",
            Self::Inner => "inner",
            Self::Evicted => "evicted",
            Self::Abandoned => "abandoned",
            Self::Requested => "requested",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened, as [`McpSessionLayer::on_event`](crate::McpSessionLayer::on_event) and
/// [`Sessions::subscribe`](crate::Sessions::subscribe) report it.
///
/// For every `Opened` there is exactly one `Closed`, later. No event carries a session id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A session was opened.
    #[non_exhaustive]
    Opened {
        /// Which session.
        session: Fingerprint,
        /// Whose.
        principal: Option<Principal>,
        /// What the client says of itself.
        client: Option<Box<ClientInfo>>,
    },
    /// A session was closed. The server behind is told after this, unless a hook has closed it:
    /// then it may be told before.
    #[non_exhaustive]
    Closed {
        /// Which session.
        session: Fingerprint,
        /// Whose.
        principal: Option<Principal>,
        /// Why.
        reason: CloseReason,
        /// From `initialize` to the close.
        lifetime: Duration,
        /// Requests admitted, `initialize` included.
        requests: u64,
    },
    /// A request was refused by the layer.
    #[non_exhaustive]
    Rejected {
        /// Why.
        why: Rejection,
    },
}

/// A hook on events.
pub(crate) type Hook = Arc<dyn Fn(&SessionEvent) + Send + Sync>;

pub(crate) struct Events {
    hooks: Vec<Hook>,
    feed: broadcast::Sender<SessionEvent>,
    /// Apart: a flood of bad requests must not push lives and deaths out of the backlog.
    rejections: broadcast::Sender<SessionEvent>,
    opened: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
    rejected: AtomicU64,
}

impl Events {
    pub(crate) fn new(hooks: Vec<Hook>) -> Self {
        Self {
            hooks,
            feed: broadcast::Sender::new(BACKLOG),
            rejections: broadcast::Sender::new(BACKLOG),
            opened: AtomicU64::new(0),
            closed: Default::default(),
            rejected: AtomicU64::new(0),
        }
    }

    /// Counts, logs and hands out, in this order; never call it with a lock held. What is emitted
    /// inside of a hook is handed out after that hook has returned.
    pub(crate) fn emit(&self, event: SessionEvent) {
        self.count(&event);
        shielded("tracing subscriber", || log(&event));
        if self.hooks.is_empty() {
            return self.publish(event);
        }
        cascade::in_turn(std::ptr::from_ref(self).addr(), event, |event| {
            for hook in &self.hooks {
                shielded("event hook", || hook(&event));
            }
            self.publish(event);
        });
    }

    fn publish(&self, event: SessionEvent) {
        let feed = match event {
            SessionEvent::Rejected { .. } => &self.rejections,
            _ => &self.feed,
        };
        if feed.receiver_count() > 0 {
            // Fails only when the last subscriber has just left.
            shielded("waker", || drop(feed.send(event)));
        }
    }

    pub(crate) fn subscribe(&self) -> SessionEvents {
        SessionEvents {
            feed: BroadcastStream::new(self.feed.subscribe()),
            rejections: BroadcastStream::new(self.rejections.subscribe()),
            missed: 0,
        }
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    pub(super) fn closed(&self) -> [u64; CloseReason::ALL.len()] {
        std::array::from_fn(|reason| self.closed[reason].load(Ordering::Relaxed))
    }

    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    fn count(&self, event: &SessionEvent) {
        let counter = match event {
            SessionEvent::Opened { .. } => &self.opened,
            SessionEvent::Closed { reason, .. } => &self.closed[*reason as usize],
            SessionEvent::Rejected { .. } => &self.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Events {
    /// The end of the feeds wakes who listens.
    fn drop(&mut self) {
        for feed in [&mut self.feed, &mut self.rejections] {
            let last = std::mem::replace(feed, broadcast::Sender::new(1));
            shielded("waker", || drop(last));
        }
    }
}

fn log(event: &SessionEvent) {
    match event {
        SessionEvent::Opened { session, .. } => tracing::debug!(%session, "session opened"),
        SessionEvent::Closed { session, reason, lifetime, requests, .. } => {
            let lifetime_ms = lifetime.as_millis() as u64;
            tracing::debug!(%session, %reason, lifetime_ms, requests, "session closed");
        }
        SessionEvent::Rejected { why } => {
            let status = why.status().as_u16();
            tracing::debug!(%why, status, "request rejected");
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("hooks", &self.hooks.len()).finish_non_exhaustive()
    }
}

/// A stream of events, from when it was made; ends when the layer is gone.
///
/// From [`Sessions::subscribe`](crate::Sessions::subscribe). It never holds the layer up: a
/// subscriber that falls 1,024 behind misses the oldest, see [`missed`](Self::missed). Rejections
/// are counted apart and come after what else there is, so a flood of them displaces nothing.
pub struct SessionEvents {
    feed: BroadcastStream<SessionEvent>,
    rejections: BroadcastStream<SessionEvent>,
    missed: u64,
}

impl SessionEvents {
    /// The next event; `None` when the layer is gone.
    pub async fn recv(&mut self) -> Option<SessionEvent> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// How many events this subscriber was too slow for.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl Stream for SessionEvents {
    type Item = SessionEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        for feed in [&mut this.feed, &mut this.rejections] {
            loop {
                match Pin::new(&mut *feed).poll_next(cx) {
                    Poll::Ready(Some(Ok(event))) => return Poll::Ready(Some(event)),
                    Poll::Ready(Some(Err(BroadcastStreamRecvError::Lagged(missed)))) => {
                        this.missed += missed;
                    }
                    // Both end with the layer.
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => break,
                }
            }
        }
        Poll::Pending
    }
}

impl fmt::Debug for SessionEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionEvents").field("missed", &self.missed).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(mcp_loom)))]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn rejected() -> SessionEvent {
        SessionEvent::Rejected { why: Rejection::TableFull }
    }

    fn closed(reason: CloseReason) -> SessionEvent {
        let (session, lifetime) = (Fingerprint::unnamed(), Duration::from_millis(3));
        SessionEvent::Closed { session, principal: None, reason, lifetime, requests: 2 }
    }

    #[test]
    fn every_reason_is_counted_under_its_own_name() {
        let events = Events::new(Vec::new());
        for (place, reason) in CloseReason::ALL.into_iter().enumerate() {
            (0..=place).for_each(|_| events.emit(closed(reason)));
            assert_eq!(events.closed()[place], place as u64 + 1, "{reason}");
            let json = serde_json::to_value(reason).unwrap();
            assert_eq!(json, reason.as_str());
            assert_eq!(reason.to_string(), reason.as_str());
        }
        let session = Fingerprint::unnamed();
        events.emit(SessionEvent::Opened { session, principal: None, client: None });
        (0..2).for_each(|_| events.emit(rejected()));
        assert_eq!((events.opened(), events.rejected()), (1, 2));
    }

    #[test]
    fn a_slow_subscriber_misses_the_oldest_and_knows_how_many() {
        let events = Events::new(Vec::new());
        let mut slow = events.subscribe();
        (0..BACKLOG).for_each(|_| events.emit(closed(CloseReason::Unused)));
        (0..7).for_each(|_| events.emit(closed(CloseReason::Idle)));
        let first = slow.recv().now_or_never().flatten();
        assert!(matches!(first, Some(SessionEvent::Closed { reason: CloseReason::Unused, .. })));
        assert_eq!(slow.missed(), 7);
        let rest = std::iter::from_fn(|| slow.recv().now_or_never()).count();
        assert_eq!(rest, BACKLOG - 1);
        assert_eq!(slow.missed(), 7);
    }

    #[test]
    fn a_flood_of_rejections_displaces_nothing_and_comes_last() {
        let events = Events::new(Vec::new());
        let mut feed = events.subscribe();
        (0..3 * BACKLOG).for_each(|_| events.emit(rejected()));
        events.emit(closed(CloseReason::Idle));
        let first = feed.recv().now_or_never().flatten();
        assert!(matches!(first, Some(SessionEvent::Closed { .. })), "{first:?}");
        let rest = std::iter::from_fn(|| feed.recv().now_or_never()).count();
        assert_eq!((rest, feed.missed()), (BACKLOG, 2 * BACKLOG as u64));
        drop(events);
        assert!(matches!(feed.recv().now_or_never(), Some(None)), "it ends with the layer");
    }

    #[test]
    fn hooks_hear_everything_and_one_that_panics_harms_nobody() {
        let heard = Arc::new(AtomicU64::new(0));
        let ears = Arc::clone(&heard);
        let hooks: Vec<Hook> = vec![
            Arc::new(|_| panic!("a hook")),
            Arc::new(move |_| {
                ears.fetch_add(1, Ordering::Relaxed);
            }),
        ];
        let events = Events::new(hooks);
        events.emit(rejected());
        events.emit(closed(CloseReason::Idle));
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }
}
