//! What the parties around the layer do at their worst: servers that panic anywhere, lie and hang,
//! hooks and destructors that panic, runtimes that die, clocks that jump, peers that misuse what
//! they were given. Each test ends in the invariants of `common`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/closes.rs"]
mod closes;
#[path = "faults/destructors.rs"]
mod destructors;
#[path = "faults/grenade.rs"]
mod grenade;
#[path = "faults/hooks.rs"]
mod hooks;
#[path = "faults/misuse.rs"]
mod misuse;
#[path = "faults/panics.rs"]
mod panics;
#[path = "faults/runtimes.rs"]
mod runtimes;
