//! Sessions for MCP servers.
#![allow(dead_code, unused_imports)]
mod protocol;
pub use protocol::{ClientInfo, Fingerprint, ParseFingerprintError, Rejection};
