//! What the benches in `benches/` measure of the core alone. Not part of the API.

#![allow(missing_docs, reason = "for the benches of this crate only")]

use std::{fmt, future::ready, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    lifecycle::{
        Clock, CloseReason, Exit, Hook, Issuer, Limits, Mock, Opener, Principal, Registry, Session,
        Terminate, Terminated, Terminator, Timeouts, WhenFull, span, tick, tolerance,
    },
    protocol::{ClientInfo, SessionId},
};

/// A registry without HTTP around it. Outside of a runtime it has no reaper: ticks are the bench's.
pub struct Core {
    registry: Arc<Registry>,
    server: Terminator,
    time: Option<Mock>,
}

/// Hears of closes at once.
struct Server;

impl Terminate for Server {
    fn terminate(&self, _: Session) -> BoxFuture<'static, Terminated> {
        Box::pin(ready(Terminated::Done))
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry.fmt(f)
    }
}

impl Core {
    /// On the clock of production.
    pub fn new(max_sessions: usize, idle: Duration) -> Self {
        Self::on(Clock::tolerating(tolerance(span(idle))), None, max_sessions, idle)
    }

    /// On one whose every reading is exact.
    pub fn on_exact_clock(max_sessions: usize, idle: Duration) -> Self {
        Self::on(Clock::new(), None, max_sessions, idle)
    }

    /// On a clock that only [`advance`](Self::advance) moves.
    pub fn on_mock_clock(max_sessions: usize, idle: Duration) -> Self {
        let time = Mock::new(Box::leak(Box::default()));
        Self::on(time.clock(), Some(time), max_sessions, idle)
    }

    fn on(clock: Clock, time: Option<Mock>, max_sessions: usize, idle: Duration) -> Self {
        let idle = span(idle);
        let timeouts = Timeouts { idle, unused: idle, lifetime: None };
        let limits = Limits {
            max_sessions,
            max_sessions_per_principal: None,
            when_full: WhenFull::Reject,
            close_timeout: Duration::from_secs(5),
            shortest: idle,
            remember_closed: false,
        };
        let registry = Registry::on(clock, timeouts, limits, Vec::<Hook>::new());
        Self { registry, server: Terminator::new(Server), time }
    }

    pub fn advance(&self, by: Duration) {
        if let (Some(time), Some(by)) = (self.time, span(by)) {
            time.advance(by);
        }
    }

    /// Opens a session whose id the layer made up: nobody is told of its close.
    pub fn open(&self, id: &str) {
        self.open_as(id, None, None);
    }

    /// The same with an owner and what the client said of itself.
    pub fn open_owned(&self, id: &str, principal: &Principal, name: &str, version: &str) {
        let client = ClientInfo {
            name: Some(name.into()),
            version: Some(version.into()),
            protocol_version: Some("2025-11-25".into()),
        };
        self.open_as(id, Some(principal.clone()), Some(Box::new(client)));
    }

    fn open_as(&self, id: &str, principal: Option<Principal>, client: Option<Box<ClientInfo>>) {
        let opener = Opener { principal, client, ..Opener::default() };
        let opening = self.registry.begin(opener).now_or_never();
        let (Some(Ok(opening)), Ok(id)) = (opening, SessionId::new(id)) else { return };
        drop(opening.complete(id, Issuer::Layer, self.server.clone(), Exit::Touch));
    }

    /// A whole touch: resolve, enter, exit. What it returns depends on what was found.
    pub fn touch(&self, id: &str) -> u64 {
        self.registry
            .enter(id.as_bytes(), None)
            .map_or(0, |in_flight| in_flight.record().word().in_flight())
    }

    /// What no touch can do without: a lookup in the same map that gives the session out, and two
    /// read-modify-writes.
    pub fn floor(&self, id: &str) -> u64 {
        self.registry.find(id.as_bytes()).map_or(0, |record| record.activity.floor())
    }

    /// The same without giving the session out: nothing could be held after the lookup.
    pub fn floor_in_place(&self, id: &str) -> u64 {
        self.registry.floor_in_place(id)
    }

    pub fn close(&self, id: &str) -> bool {
        let record = self.registry.find(id.as_bytes());
        record.is_some_and(|record| self.registry.close(&record, CloseReason::Client))
    }

    /// One tick of the reaper, at whatever time it is.
    pub async fn tick(&self) {
        tick(&self.registry, 0).await;
    }

    pub fn live(&self) -> usize {
        self.registry.live()
    }
}
