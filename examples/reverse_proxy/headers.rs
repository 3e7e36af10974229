//! Which headers go on, and which end here.

use axum::http::{
    HeaderMap, HeaderName,
    header::{self, CONTENT_LENGTH, TRANSFER_ENCODING},
};

/// What concerns one connection only. `Expect` is one of them here, for the `100 Continue` it asks
/// for has been sent by the time the body is read.
const HOP_BY_HOP: [&str; 12] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What `Connection` may not take away, beside `mcp-*`. The layer has decided by these headers, or the
/// upstream is about to: without them it would decide something else.
const END_TO_END: [HeaderName; 11] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::ORIGIN,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("last-event-id"),
];

/// What only a proxy may say, and we say nothing: who the client is, and what it has asked for. A stranger
/// could say anything. CGI makes a setting of `Proxy` ("httpoxy").
const OF_PROXIES: [&str; 6] =
    ["forwarded", "proxy", "true-client-ip", "x-client-ip", "x-real-ip", "x-rewrite-url"];
const OF_PROXIES_PREFIXES: [&str; 2] = ["x-forwarded", "x-original-"];

/// Takes out of a request what the upstream must not see.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip(headers, |name| {
        OF_PROXIES.contains(&name)
            || OF_PROXIES_PREFIXES.iter().any(|start| name.starts_with(start))
    });
}

/// Takes out of an answer what the client must not see. `Alt-Svc` would lead it around us.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    strip(headers, |name| name == "alt-svc");
}

pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// Letters, digits and hyphens. WSGI, CGI and PHP take `_`, and some of them any separator, for `-`: to
/// them `Mcp_Session_Id` is the session id, and neither the layer nor a check of ours has looked at
/// it. nginx drops such headers for that reason.
pub(crate) fn is_plain(name: &HeaderName) -> bool {
    name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn strip(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // Two lengths: the other one counts (RFC 9112, section 6.3), and this one must not go on.
        headers.remove(CONTENT_LENGTH);
    }
    let unwanted = headers
        .keys()
        .filter(|name| is_hop_by_hop(name) || !is_plain(name) || is_unwanted(name.as_str()));
    for name in unwanted.cloned().chain(named_by_connection(headers)).collect::<Vec<_>>() {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|names| names.split(','));
    let names = names.filter_map(|name| name.trim().parse::<HeaderName>().ok());
    names.filter(|name| !name.as_str().starts_with("mcp-") && !END_TO_END.contains(name))
}
