//! What a client knows of one session, and what it therefore must be told.
//!
//! # When a 404 is wrong
//!
//! A request that was admitted moves the deadline when its answer has ended, and that is never
//! before it was sent. So a session is certainly live until `idle` after the *sending* of the last
//! request that was admitted (later, if that is known to take its time), but for its absolute
//! lifetime, which began no sooner than `initialize` was sent. A 404 that is *received* before then
//! was decided before then: it is wrong, however slow the machine. There is no margin in this but
//! [`LIVE_SLACK`].
//!
//! # When anything else is wrong
//!
//! The other way round, a session is certainly dead when a request is *sent* later than `idle` after
//! the client saw the end of the last answer, or the lifetime after `initialize` was answered, or
//! when its DELETE was answered. The server may let go of an answer after the client has it all,
//! and it has but two processors: [`DEAD_SLACK`].

use std::time::Duration;

use tokio::time::Instant;

use crate::load::ms;

/// Both clocks count whole milliseconds.
const LIVE_SLACK: Duration = ms(5);
pub const DEAD_SLACK: Duration = ms(250);

/// What the client was told of the server's settings.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub idle: Duration,
    pub unused: Duration,
    pub stream_lifetime: Duration,
    pub max_lifetime: Duration,
}

#[derive(Debug)]
pub struct Books {
    rules: Rules,
    /// Before the first and after the second it was not born.
    born: (Instant, Instant),
    live_until: Instant,
    in_flight: usize,
    used: bool,
    /// When the last answer had ended; `None` if that cannot be known.
    quiet_since: Option<Instant>,
    deleted: Option<Instant>,
    drained: bool,
}

/// What a 404, or its absence, is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    RightlyLost,
    WronglyLost,
    Undead,
}

impl Books {
    /// Its `initialize` was sent and has been answered.
    pub fn open(rules: Rules, sent: Instant, received: Instant) -> Self {
        Self {
            rules,
            born: (sent, received),
            live_until: sent + rules.unused.min(rules.idle).min(rules.max_lifetime),
            in_flight: 1,
            used: false,
            quiet_since: None,
            deleted: None,
            drained: false,
        }
    }

    pub fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A request was answered with success, and is in flight for `hold` at the least.
    pub fn admit(&mut self, sent: Instant, hold: Duration) {
        self.used = true;
        let end = (sent + hold + self.rules.idle).min(self.born.0 + self.rules.max_lifetime);
        self.live_until = self.live_until.max(end);
    }

    /// An answer was read to its end.
    pub fn end(&mut self) {
        self.in_flight -= 1;
        self.quiet_since = (self.in_flight == 0).then(Instant::now);
    }

    /// An answer was hung up on, or is not read: when that ends is the server's to see.
    /// The count stays up for good.
    pub fn leave(&mut self) {
        self.quiet_since = None;
    }

    pub fn delete(&mut self, answered: Instant) {
        self.deleted = Some(answered);
    }

    /// The server says that it has no sessions left.
    pub fn drain(&mut self) {
        self.drained = true;
    }

    pub fn judge(&self, is_lost: bool, sent: Instant, received: Instant) -> Verdict {
        let is_dead = self.drained || self.dead_from().is_some_and(|dead| sent > dead);
        let is_live = self.deleted.is_none() && received + LIVE_SLACK < self.live_until;
        match is_lost {
            true if is_live && !self.drained => Verdict::WronglyLost,
            true => Verdict::RightlyLost,
            false if is_dead => Verdict::Undead,
            false => Verdict::Fine,
        }
    }

    /// Whether the end of its lifetime may have come between these moments: the one end that cuts
    /// what is in flight.
    pub fn may_be_cut(&self, received: Instant) -> bool {
        received + LIVE_SLACK >= self.born.0 + self.rules.max_lifetime
    }

    /// When the next request finds it dead for certain, if none comes before.
    pub fn dead_from(&self) -> Option<Instant> {
        let idle = if self.used { self.rules.idle } else { self.rules.unused.min(self.rules.idle) };
        let lifetime = self.born.1 + self.rules.max_lifetime + DEAD_SLACK;
        let idle = self.quiet_since.map(|since| since + idle + DEAD_SLACK);
        [self.deleted, idle, Some(lifetime)].into_iter().flatten().min()
    }
}
