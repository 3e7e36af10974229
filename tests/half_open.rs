//! Clients that vanish without a word: no FIN, no RST, nothing that answers. The server's TCP
//! believes in them for as long as its kernel likes, so what ends their sessions is the layer.
//!
//! Server and client are threads in network namespaces of their own, joined by a pair of virtual
//! devices. In the middle of a stream the client's namespace loses its address: from then on every
//! packet for it falls on the floor.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

#[cfg(target_os = "linux")]
#[path = "half_open/net.rs"]
mod net;
#[cfg(target_os = "linux")]
#[path = "half_open/promises.rs"]
mod promises;
#[cfg(target_os = "linux")]
#[path = "half_open/stage.rs"]
mod stage;

#[cfg(not(target_os = "linux"))]
#[test]
#[ignore = "needs root: just half-open"]
fn network_namespaces_are_of_linux() {
    panic!("nothing here can be shown on another system");
}
