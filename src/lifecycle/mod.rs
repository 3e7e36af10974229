//! The life of a session: no I/O, no HTTP.
//!
//! Where a session dies: `registry/closing.rs` (`tear_down`, the only way), which the reaper, an access to an
//! expired session, the middleware and the operator's handle all call. Where it is born:
//! [`opening`] (`complete`). What decides *when*: [`activity`] (the word) and [`deadline`].
//! Guards hold an `Arc<Record>` and never the registry; dropping one is an atomic write.

mod activity;
mod admission;
mod cascade;
mod clock;
mod closer;
#[cfg(all(test, not(mcp_loom)))]
mod collisions;
mod deadline;
mod events;
mod guard;
mod handle;
#[cfg(all(test, mcp_loom))]
mod loom;
#[cfg(any(all(test, not(mcp_loom)), fuzzing))]
pub(crate) mod model;
mod opening;
mod openings;
mod owner;
mod permits;
mod principal;
mod reaper;
mod record;
mod registry;
mod shield;
mod shutdown;
mod snapshot;
mod state;
mod streams;
mod sync;
#[cfg(all(test, not(mcp_loom)))]
mod testing;
mod tombstones;
mod watch;
mod wheel;

pub(crate) use self::{
    activity::Exit,
    clock::{Clock, Millis, span},
    closer::{Terminate, Terminated, Terminator, WeakTerminator},
    deadline::Timeouts,
    events::Hook,
    guard::InFlight,
    opening::{Issuer, Opening},
    owner::Opener,
    record::Record,
    registry::{Limits, Registry},
    shield::shielded,
    streams::{Grip, Lease, OpenStream, StreamSeat, Timed},
};
#[cfg(feature = "__bench")]
pub(crate) use self::{clock::mock::Mock, reaper::tick, registry::tolerance};
pub use self::{
    events::{CloseReason, SessionEvent, SessionEvents},
    guard::Hold,
    handle::{Session, SessionClosed},
    permits::WhenFull,
    principal::Principal,
    snapshot::{Closed, SessionInfo, Stats, UnendedSession},
    state::State,
};
