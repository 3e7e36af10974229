//! HTTP: what a request means for its session, and what a session means for its streams.
//!
//! Start at [`service`] (`call`): it sorts requests by the table in `ARCHITECTURE.md`. A request
//! with a live id goes through [`track`]; one that may open a session through [`open`], [`attend`]
//! and [`settle`] (or [`stray`], where it was not seen to); response bodies through [`body`] and, if they stream, [`slot`].

mod attend;
mod body;
mod endpoint;
mod future;
mod heartbeat;
mod layer;
mod open;
mod options;
mod reject;
mod replay;
mod service;
mod settle;
mod shared;
mod slot;
mod stray;
mod track;
mod turns;

#[cfg(any(all(test, not(mcp_loom)), fuzzing))]
pub(crate) use self::replay::{LIMIT, Sniffed, sniff};
pub use self::{
    body::SessionBody, future::ResponseFuture, layer::McpSessionLayer, options::UnknownIds,
    service::McpSessionService,
};
