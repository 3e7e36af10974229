//! HTTP: what a request means for its session, and what a session means for its streams.
//!
//! Start at [`service`] (`call`): it sorts requests by the table in `ARCHITECTURE.md`. A request
//! with a live id goes through [`track`]; one that may open a session through [`open`], [`detached`]
//! and [`settle`] (or [`unclaimed`], where it was not seen to); every answer that names a session through [`gate`]; response
//! bodies through [`body`] and, if they stream, [`slot`].

mod body;
mod class;
mod counts;
mod detached;
mod endpoint;
mod future;
mod gate;
mod hang_ups;
mod heartbeat;
mod layer;
mod open;
mod options;
mod paths;
mod peek;
mod reject;
mod replay;
mod route;
mod service;
mod settle;
mod shared;
mod slot;
mod track;
mod turns;
mod unclaimed;
mod under;

#[cfg(any(all(test, not(mcp_loom)), fuzzing))]
pub(crate) use self::replay::{LIMIT, Sniffed, sniff};
pub use self::{
    body::SessionBody,
    future::ResponseFuture,
    layer::McpSessionLayer,
    options::{HangUpGrace, UnknownIds},
    service::McpSessionService,
};
