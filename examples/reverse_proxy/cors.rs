//! Web pages as clients.

use axum::{
    Router,
    http::{
        HeaderName, HeaderValue, Method,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    middleware::map_response,
    response::Response,
};
use tower_http::cors::{AllowHeaders, CorsLayer};

/// Lets pages of these origins use `mcp`. With none, the upstream's own answer stands.
pub(crate) fn apply(mcp: Router, origins: Vec<HeaderValue>) -> Router {
    if origins.is_empty() {
        return mcp;
    }
    let cors = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // MCP has an open list of them (`Mcp-Param-*`), and these pages are trusted.
        .allow_headers(AllowHeaders::mirror_request())
        // A page reads no header that is not named here.
        .expose_headers([
            HeaderName::from_static("mcp-session-id"),
            HeaderName::from_static("mcp-protocol-version"),
            RETRY_AFTER,
            WWW_AUTHENTICATE,
        ]);
    mcp.layer(map_response(without_others)).layer(cors)
}

/// What the upstream says of CORS is of its own address.
async fn without_others(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    let names = headers.keys().filter(|name| name.as_str().starts_with("access-control-"));
    for name in names.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
    answer
}
