//! What decides who closes a session: the standard library's, or loom's where it explores every
//! interleaving. Everything else (wheel, queue, counters for display) is locked for a statement at
//! a time and decides nothing.

#[cfg(not(all(test, mcp_loom)))]
pub(super) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    thread_local,
};

#[cfg(all(test, mcp_loom))]
pub(super) use ::loom::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    thread_local,
};
