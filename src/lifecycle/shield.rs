//! Other people's code, run so that its panic ends there.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a hook or a destructor of the user's. A panic is logged and swallowed: one bad hook must
/// not stop the reaper, leak a permit or take a neighbour's request down.
pub(crate) fn shielded<T>(what: &'static str, run: impl FnOnce() -> T) -> Option<T> {
    // Nothing of ours is half done while `run` runs: no lock is held and no count is open.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(payload) => {
            // So may the subscriber that is told, and the payload in its destructor.
            let _ = catch_unwind(AssertUnwindSafe(|| tracing::error!(what, "panicked; ignored")));
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            None
        }
    }
}
