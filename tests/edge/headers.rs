//! Headers that a server takes for ours, and layers outside that see ours.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use serde_json::json;

use crate::{common::*, server::*, stage::*};

/// Spellings that CGI, WSGI or PHP hand on as `HTTP_MCP_SESSION_ID`.
const SPELLINGS: [&str; 9] = [
    "mcp_session_id",
    "Mcp_Session_Id",
    "MCP_SESSION_ID",
    "mcp-session_id",
    "mcp_session-id",
    "Mcp-Session_Id",
    "mcp.session.id",
    "mcp-session.id",
    "mcp~session_id",
];

const VERSIONS: [&str; 4] = [
    "mcp_protocol_version",
    "mcp-protocol_version",
    "MCP_Protocol-Version",
    "mcp.protocol.version",
];

/// The last header that folds into this name, as a WSGI server would say.
fn folded(headers: &HeaderMap, name: &str) -> Option<String> {
    let fold = |name: &str| name.replace(|byte: char| !byte.is_ascii_alphanumeric(), "_");
    let found = headers.iter().filter(|(key, _)| fold(key.as_str()) == fold(name)).last();
    found.map(|(_, value)| value.to_str().unwrap().to_owned())
}

/// A WSGI server: serves every session that exists to everybody, whatever the header is called.
fn wsgi(own: &Own) -> Inner {
    scripted(own, |own, call| async move {
        if call.method() == Method::DELETE {
            return None;
        }
        let id = folded(&call.parts.headers, "mcp-session-id");
        let version = folded(&call.parts.headers, "mcp-protocol-version");
        match id.filter(|id| own.has(id)) {
            Some(id) => Some(answer(200, JSON, json!({ "of": id, "as": version }).to_string())),
            None if call.is_initialize() => Some(named(result(), &own.open())),
            None => Some(answer(200, JSON, json!({ "of": null, "as": version }).to_string())),
        }
    })
}

fn requests() -> Vec<Request<Bytes>> {
    let empty = |method: &str| bare(method.parse().unwrap()).map(|_| Bytes::new());
    let message = message("tools/call", &json!({ "arguments": {} }));
    let post = |kind: &str, body: &str| {
        with(empty("POST"), "content-type", kind).map(|_| Bytes::copy_from_slice(body.as_bytes()))
    };
    let mut all: Vec<_> =
        ["GET", "HEAD", "DELETE", "PUT", "OPTIONS", "PATCH"].into_iter().map(empty).collect();
    for body in [
        message.clone(),
        format!("\u{feff}{message}"),
        format!("[{message}]"),
        message.replace("arguments", &"x".repeat(70_000)),
        initialize_body().to_string(),
    ] {
        all.push(post("application/json", &body));
    }
    all.push(post("text/plain", &message));
    all
}

/// The same requests in every era, with one header more.
fn eras(name: &str, value: &str) -> Vec<Request<Bytes>> {
    let versions = [None, Some("2025-11-25"), Some("2026-07-28"), Some("nonsense")];
    let in_era = |version: Option<&str>| {
        let dated = |request| match version {
            Some(version) => with(request, "mcp-protocol-version", version),
            None => request,
        };
        requests().into_iter().map(dated).collect::<Vec<_>>()
    };
    versions.into_iter().flat_map(in_era).map(|request| with(request, name, value)).collect()
}

#[tokio::test(start_paused = true)]
async fn nobody_reaches_the_session_of_another_by_another_spelling_of_the_header() {
    for spelling in SPELLINGS {
        let own = Own::default();
        let stage = Stage::new(&own, wsgi(&own), |layer| by_user(layer).forward_missing_ids());
        let open = async |who: &str| {
            let reply = stage.ask(of(who, initialize())).await;
            reply.id().unwrap().to_owned()
        };
        let hers = open("alice").await;
        let hers_answers =
            async || stage.ask(of("alice", call(&hers, "ping"))).await.json()["of"] == *hers;
        assert!(hers_answers().await);
        let mut his = open("bob").await;
        for request in eras(spelling, &hers) {
            let request = || request.clone().map(Body::from);
            for who in [Some("bob"), Some("alice"), None] {
                let request = who.map_or(request(), |who| of(who, request()));
                let body = stage.ask(request).await.body;
                assert!(!holds(&body, &hers), "{spelling} as {who:?}");
            }
            // Beside his own id, it is his own session that answers.
            let body = stage.ask(of("bob", with_id(request(), &his))).await.body;
            assert!(!holds(&body, &hers), "{spelling} beside his own");
            if !own.has(&his) {
                his = open("bob").await;
            }
            let stolen = stage.ask(of("bob", with_id(request(), &hers))).await.body;
            assert!(!holds(&stolen, &hers), "{spelling} beside hers");
        }
        assert!(hers_answers().await, "{spelling}");
        stage.finish().await;
    }
}

fn holds(body: &[u8], id: &str) -> bool {
    String::from_utf8_lossy(body).contains(id)
}

#[tokio::test(start_paused = true)]
async fn no_other_spelling_of_the_version_reaches_the_server() {
    for spelling in VERSIONS {
        let own = Own::default();
        let stage = Stage::new(&own, wsgi(&own), |layer| layer.forward_missing_ids());
        let id = stage.open().await;
        for version in ["2026-07-28", "2025-11-25"] {
            let reply = stage.ask(with(call(&id, "ping"), spelling, version)).await;
            assert_eq!(reply.json(), json!({ "of": id, "as": null }), "{spelling}");
            let both = with(modern(json_post(message("ping", &json!({})))), spelling, version);
            assert_eq!(stage.ask(both).await.json(), json!({ "of": null, "as": "2026-07-28" }));
        }
        stage.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_only_looks_alike_is_none_of_ours() {
    let own = Own::default();
    let inner = scripted(&own, |own, call| async move {
        if call.is_initialize() {
            return Some(named(result(), &own.open()));
        }
        let seen = ["mcpxsessionxid", "xmcp_session_id", "mcp_session_idx", "session_id"];
        let all = seen.iter().all(|name| call.parts.headers.contains_key(*name));
        (call.method() == Method::POST).then(|| status(if all { 200 } else { 500 }))
    });
    let stage = Stage::new(&own, inner, |layer| layer);
    let id = stage.open().await;
    let mut request = call(&id, "ping");
    for name in ["mcpxsessionxid", "xmcp_session_id", "mcp_session_idx", "session_id"] {
        request = with(request, name, "kept");
    }
    assert_eq!(stage.ask(request).await.status, 200);
    stage.finish().await;
}
