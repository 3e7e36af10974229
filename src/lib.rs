#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "__bench")]
#[doc(hidden)]
pub mod bench;
mod extract;
#[cfg(any(fuzzing, all(test, not(mcp_loom))))]
#[doc(hidden)]
pub mod fuzzing;
mod lifecycle;
mod middleware;
mod protocol;
mod sessions;

pub use self::{
    extract::MissingSession,
    lifecycle::{
        CloseReason, Closed, Hold, Principal, Session, SessionClosed, SessionEvent, SessionEvents,
        SessionInfo, State, Stats, UnendedSession, WhenFull,
    },
    middleware::{
        HangUpGrace, McpSessionLayer, McpSessionService, ResponseFuture, SessionBody, UnknownIds,
    },
    protocol::{ClientInfo, Fingerprint, ParseFingerprintError, Rejection},
    sessions::Sessions,
};
