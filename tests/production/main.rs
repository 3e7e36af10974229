//! Where tests cannot stop time, requests go by the kernel's coarse clock: `cargo run` here.

use axum::Router;
use mcp_session_layer::McpSessionLayer;
use tower::Layer as _;

fn main() {
    let service = format!("{:?}", McpSessionLayer::new().layer(Router::<()>::new()));
    let is_coarse = service.contains("coarse: Some");
    assert_eq!(is_coarse, cfg!(target_os = "linux"), "{service}");
    println!("{service}");
}
