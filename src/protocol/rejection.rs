//! The errors this layer answers with, byte for byte.
//!
//! Every body is a JSON-RPC error *without* an `id` member: the request was not parsed, and with
//! `id: null` the official Go client takes the answer for a reply to nobody and misses that its
//! session is lost.

use std::fmt;

use http::StatusCode;
use serde::Serialize;

/// Why a request was answered by the layer instead of the server behind it.
///
/// [`status`](Self::status), [`code`](Self::code) and [`message`](Self::message) are what goes out
/// on the wire; [`McpSessionLayer::reject_with`](crate::McpSessionLayer::reject_with) can replace
/// the response. A lost session is always 404 with -32001, because clients recover on nothing
/// else (MCP 2025-11-25, "Session Management").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rejection {
    /// 404: the id is unknown, expired, closed, or another principal's. The four are not told
    /// apart on purpose.
    SessionNotFound,
    /// 400: more than one `Mcp-Session-Id` header.
    IdRepeated,
    /// 400: an empty `Mcp-Session-Id`.
    IdEmpty,
    /// 400: an id of more than 256 bytes.
    IdTooLong,
    /// 400: an id with a byte outside 0x21 to 0x7E.
    IdMalformed,
    /// 400: a JSON-RPC message other than `initialize` came without an id.
    IdMissing,
    /// 400: `jsonrpc` or `method` stands twice in the message, and two parsers may disagree on
    /// which counts.
    MessageAmbiguous,
    /// 403: `principal` found nobody and anonymous sessions are not allowed.
    PrincipalRequired,
    /// 429: this principal has as many sessions as it may.
    TooManySessions,
    /// 429: this session has as many GET streams as it may.
    TooManyStreams,
    /// 429: this session has as many requests in flight as can be counted (8,388,606).
    TooManyRequests,
    /// 503: the table is full.
    TableFull,
    /// 503: the layer is shutting down.
    ShuttingDown,
    /// 502: the server behind answered `initialize` with an id that cannot be used: malformed,
    /// repeated, or the id of a session that is live.
    UnusableId,
    /// 504: the server behind did not answer `initialize` in time.
    OpenTimeout,
}

/// Status, JSON-RPC code, message and body of one row; the body is put together at compile time.
macro_rules! row {
    ($status:ident, $code:literal, $message:literal) => {
        Row {
            status: StatusCode::$status,
            code: $code,
            message: $message,
            body: concat!(
                r#"{"jsonrpc":"2.0","error":{"code":"#,
                stringify!($code),
                r#","message":""#,
                $message,
                r#""}}"#
            ),
        }
    };
}

struct Row {
    status: StatusCode,
    code: i32,
    message: &'static str,
    body: &'static str,
}

impl Rejection {
    const fn row(self) -> Row {
        match self {
            Self::SessionNotFound => row!(NOT_FOUND, -32001, "Session not found"),
            Self::IdRepeated => row!(BAD_REQUEST, -32000, "Mcp-Session-Id must be sent once"),
            Self::IdEmpty => row!(BAD_REQUEST, -32000, "Mcp-Session-Id must not be empty"),
            Self::IdTooLong => row!(BAD_REQUEST, -32000, "Mcp-Session-Id is over 256 bytes"),
            Self::IdMalformed => row!(BAD_REQUEST, -32000, "Mcp-Session-Id must be visible ASCII"),
            Self::IdMissing => row!(BAD_REQUEST, -32000, "Mcp-Session-Id is required"),
            Self::MessageAmbiguous => row!(BAD_REQUEST, -32000, "Message repeats a member"),
            Self::PrincipalRequired => row!(FORBIDDEN, -32000, "An identified caller is required"),
            Self::TooManySessions => row!(TOO_MANY_REQUESTS, -32000, "Too many sessions"),
            Self::TooManyStreams => row!(TOO_MANY_REQUESTS, -32000, "Too many streams"),
            Self::TooManyRequests => row!(TOO_MANY_REQUESTS, -32000, "Too many requests"),
            Self::TableFull => row!(SERVICE_UNAVAILABLE, -32000, "Server is at capacity"),
            Self::ShuttingDown => row!(SERVICE_UNAVAILABLE, -32000, "Server is shutting down"),
            Self::UnusableId => row!(BAD_GATEWAY, -32000, "Server issued an unusable session id"),
            Self::OpenTimeout => row!(GATEWAY_TIMEOUT, -32000, "Server did not answer in time"),
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    /// The JSON-RPC error code: -32001 for a lost session, -32000 for the rest.
    pub const fn code(self) -> i32 {
        self.row().code
    }

    /// The JSON-RPC error message.
    pub const fn message(self) -> &'static str {
        self.row().message
    }

    /// The whole body.
    pub(crate) const fn body(self) -> &'static str {
        self.row().body
    }

    /// Whether trying again later can help; such answers carry `Retry-After`.
    pub const fn is_retryable(self) -> bool {
        matches!(self.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_json_rpc_error_without_an_id_that_says_what_the_accessors_say() {
        for rejection in [
            Rejection::SessionNotFound,
            Rejection::IdRepeated,
            Rejection::PrincipalRequired,
            Rejection::TableFull,
            Rejection::UnusableId,
        ] {
            let body: serde_json::Value = serde_json::from_str(rejection.body()).unwrap();
            let expected = serde_json::json!({
                "jsonrpc": "2.0",
                "error": { "code": rejection.code(), "message": rejection.message() },
            });
            assert_eq!(body, expected);
        }
    }
}
