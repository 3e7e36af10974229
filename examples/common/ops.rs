//! What the operator asks: is it up, and how many sessions has it?

use axum::{
    Json, Router,
    routing::{any, get},
};
use mcp_session_layer::{Sessions, Stats};
use serde::Serialize;

/// The figures name no session and no owner.
#[derive(Serialize)]
struct Figures<M> {
    #[serde(flatten)]
    layer: Stats,
    #[serde(flatten)]
    more: M,
}

/// `/health`, and `/stats` with the layer's figures and those of `more`.
pub(crate) fn routes<F, Fut>(sessions: Sessions, more: F) -> Router
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: Serialize + Send> + Send,
{
    let stats = async move || Json(Figures { layer: sessions.stats(), more: more().await });
    Router::new().route("/health", any(|| async { "ok" })).route("/stats", get(stats))
}
