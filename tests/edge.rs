//! Servers and clients as they are: whatever they send and answer, nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

#[path = "edge/server.rs"]
mod server;
#[path = "edge/stage.rs"]
mod stage;

#[path = "edge/closing.rs"]
mod closing;
#[path = "edge/endpoints.rs"]
mod endpoints;
#[path = "edge/extractors.rs"]
mod extractors;
#[path = "edge/forward.rs"]
mod forward;
#[path = "edge/headers.rs"]
mod headers;
#[path = "edge/ids.rs"]
mod ids;
#[path = "edge/initialize.rs"]
mod initialize;
#[path = "edge/paths.rs"]
mod paths;
#[path = "edge/readiness.rs"]
mod readiness;
#[path = "edge/revocation.rs"]
mod revocation;
#[path = "edge/streams.rs"]
mod streams;
#[path = "edge/under_live.rs"]
mod under_live;
#[path = "edge/unrecognised.rs"]
mod unrecognised;
