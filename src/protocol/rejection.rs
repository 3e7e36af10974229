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
    /// 400: an id of more than 4096 bytes.
    IdTooLong,
    /// 400: an id with a byte outside 0x21 to 0x7E.
    IdMalformed,
    /// 400: a JSON-RPC message other than `initialize` came without an id.
    IdMissing,
    /// 400: an `initialize` without an `id` member, by itself or in a batch. It asks for no answer, so no answer could
    /// name the session that some servers open for it all the same.
    InitializeWithoutId,
    /// 400: `jsonrpc` or `method` stands twice in the message, and two parsers may disagree on
    /// which counts.
    MessageAmbiguous,
    /// 414: the URI and `Host` of the request that opens a session are over 4 KiB together. They are
    /// kept for as long as the session lives.
    EndpointTooLong,
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
    /// 502: the inner service broke off its answer to `initialize` before the first message.
    OpenFailed,
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
            Self::IdTooLong => row!(BAD_REQUEST, -32000, "Mcp-Session-Id is over 4096 bytes"),
            Self::IdMalformed => row!(BAD_REQUEST, -32000, "Mcp-Session-Id must be visible ASCII"),
            Self::IdMissing => row!(BAD_REQUEST, -32000, "Mcp-Session-Id is required"),
            Self::InitializeWithoutId => row!(BAD_REQUEST, -32000, "initialize needs an id"),
            Self::MessageAmbiguous => row!(BAD_REQUEST, -32000, "Message repeats a member"),
            Self::EndpointTooLong => row!(URI_TOO_LONG, -32000, "URI and Host are over 4 KiB"),
            Self::PrincipalRequired => row!(FORBIDDEN, -32000, "An identified caller is required"),
            Self::TooManySessions => row!(TOO_MANY_REQUESTS, -32000, "Too many sessions"),
            Self::TooManyStreams => row!(TOO_MANY_REQUESTS, -32000, "Too many streams"),
            Self::TooManyRequests => row!(TOO_MANY_REQUESTS, -32000, "Too many requests"),
            Self::TableFull => row!(SERVICE_UNAVAILABLE, -32000, "Server is at capacity"),
            Self::ShuttingDown => row!(SERVICE_UNAVAILABLE, -32000, "Server is shutting down"),
            Self::UnusableId => row!(BAD_GATEWAY, -32000, "Server issued an unusable session id"),
            Self::OpenFailed => row!(BAD_GATEWAY, -32000, "Server broke off its answer"),
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

    /// The wire, spelled out: whoever changes a row changes it here too.
    const WIRE: [(Rejection, u16, &str); 18] = [
        (Rejection::SessionNotFound, 404, r#"-32001,"message":"Session not found""#),
        (Rejection::IdRepeated, 400, r#"-32000,"message":"Mcp-Session-Id must be sent once""#),
        (Rejection::IdEmpty, 400, r#"-32000,"message":"Mcp-Session-Id must not be empty""#),
        (Rejection::IdTooLong, 400, r#"-32000,"message":"Mcp-Session-Id is over 4096 bytes""#),
        (Rejection::IdMalformed, 400, r#"-32000,"message":"Mcp-Session-Id must be visible ASCII""#),
        (Rejection::IdMissing, 400, r#"-32000,"message":"Mcp-Session-Id is required""#),
        (Rejection::InitializeWithoutId, 400, r#"-32000,"message":"initialize needs an id""#),
        (Rejection::MessageAmbiguous, 400, r#"-32000,"message":"Message repeats a member""#),
        (Rejection::EndpointTooLong, 414, r#"-32000,"message":"URI and Host are over 4 KiB""#),
        (
            Rejection::PrincipalRequired,
            403,
            r#"-32000,"message":"An identified caller is required""#,
        ),
        (Rejection::TooManySessions, 429, r#"-32000,"message":"Too many sessions""#),
        (Rejection::TooManyStreams, 429, r#"-32000,"message":"Too many streams""#),
        (Rejection::TooManyRequests, 429, r#"-32000,"message":"Too many requests""#),
        (Rejection::TableFull, 503, r#"-32000,"message":"Server is at capacity""#),
        (Rejection::ShuttingDown, 503, r#"-32000,"message":"Server is shutting down""#),
        (Rejection::UnusableId, 502, r#"-32000,"message":"Server issued an unusable session id""#),
        (Rejection::OpenFailed, 502, r#"-32000,"message":"Server broke off its answer""#),
        (Rejection::OpenTimeout, 504, r#"-32000,"message":"Server did not answer in time""#),
    ];

    #[test]
    fn every_answer_is_a_json_rpc_error_without_an_id_byte_for_byte() {
        for (rejection, status, error) in WIRE {
            assert_eq!(rejection.status().as_u16(), status);
            let body = format!(r#"{{"jsonrpc":"2.0","error":{{"code":{error}}}}}"#);
            assert_eq!(rejection.body(), body);
            let json: serde_json::Value = serde_json::from_str(rejection.body()).unwrap();
            assert_eq!(json["error"]["code"], rejection.code());
            assert_eq!(json["error"]["message"], rejection.message());
            assert_eq!(rejection.is_retryable(), status == 429 || status == 503);
        }
    }

    #[test]
    fn a_rejection_reads_as_its_message() {
        for (rejection, ..) in WIRE {
            assert_eq!(rejection.to_string(), rejection.message());
        }
    }
}
