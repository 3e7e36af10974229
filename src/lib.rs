//! Sessions for MCP servers.
#![allow(dead_code, unused_imports)]
mod lifecycle;
mod protocol;
pub use lifecycle::*;
pub use protocol::{ClientInfo, Fingerprint, ParseFingerprintError, Rejection};
