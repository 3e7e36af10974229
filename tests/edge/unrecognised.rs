//! POSTs that are not one JSON-RPC object read without doubt, at a server that reads them all.

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use mcp_session_layer::{McpSessionLayer, UnknownIds};
use serde_json::json;

use crate::{common::*, server::*, stage::*};

const CAP: usize = 5;

/// What a lenient server may take for an `initialize`: how it is called, its type, and its body.
fn disguises() -> Vec<(&'static str, &'static str, Bytes)> {
    let plain = initialize_body().to_string();
    let json = "application/json";
    let padded = plain.replace(
        "capabilities\":{}",
        &format!("capabilities\":{{\"x\":\"{}\"}}", "x".repeat(70_000)),
    );
    assert!(padded.len() > 70_000);
    vec![
        ("a batch of one", json, format!("[{plain}]").into()),
        ("a batch of two", json, format!("[{plain},{}]", message("ping", &json!({}))).into()),
        ("a batch with blanks", json, format!(" \n[ {plain} ] ").into()),
        ("a batch of something else first", json, format!("[1,null,{plain}]").into()),
        ("a name in another case", json, plain.replace("\"method\"", "\"Method\"").into()),
        ("all names in another case", json, plain.to_uppercase().into()),
        ("a long s", json, plain.replace("jsonrpc", "j\u{17f}onrpc").into()),
        ("a byte order mark", json, format!("\u{feff}{plain}").into()),
        ("a comment", json, format!("/* */{plain}").into()),
        ("a comment at the end", json, format!("{plain}// x").into()),
        ("a comma at the end", json, format!("{},}}", &plain[..plain.len() - 1]).into()),
        ("single quotes", json, plain.replace('"', "'").into()),
        ("two messages", json, format!("{plain}\n{plain}").into()),
        ("another version", json, plain.replace("2.0", "2").into()),
        (
            "UTF-16",
            json,
            plain.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>().into(),
        ),
        ("gzip", json, gzip(&plain)),
        ("padding", json, padded.into()),
        ("text", "text/plain", plain.clone().into()),
        ("a form", "application/x-www-form-urlencoded", plain.clone().into()),
        ("no type of MCP", "application/vnd.api+json", plain.into()),
    ]
}

/// As `gzip` makes it, in one block that is stored as it is (RFC 1952, RFC 1951 section 3.2.4).
fn gzip(text: &str) -> Bytes {
    let length = text.len() as u16;
    let mut all = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    all.extend(length.to_le_bytes().into_iter().chain((!length).to_le_bytes()));
    all.extend(text.bytes());
    let crc = !text.bytes().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    });
    all.extend(crc.to_le_bytes().into_iter().chain(u32::from(length).to_le_bytes()));
    all.into()
}

fn disguised(how: &str, kind: &'static str, body: &Bytes, is_modern: bool) -> Request<Body> {
    let mut request = post(Some(kind), body.clone());
    if how == "gzip" {
        request = with(request, "content-encoding", "gzip");
    }
    if is_modern { modern(request) } else { request }
}

fn capped(layer: McpSessionLayer) -> McpSessionLayer {
    by_user(layer).max_sessions(CAP).forward_missing_ids()
}

#[tokio::test(start_paused = true)]
async fn nobody_is_refused_before_the_server_is_asked() {
    for (how, kind, body) in disguises() {
        for is_modern in [false, true] {
            let own = Own::default();
            let stage = Stage::new(&own, generous(&own, 200, JSON), capped);
            let reply = stage.ask(disguised(how, kind, &body, is_modern)).await;
            // One message of the modern era that is merely long opens nothing, and is the server's to refuse.
            let passes = how == "padding" && is_modern;
            assert_eq!(reply.status, if passes { 200 } else { 403 }, "{how} {is_modern}");
            assert_eq!(reply.id(), None);
            assert_eq!(own.calls(), usize::from(passes), "{how} {is_modern}");
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_it_looks_like_the_server_never_has_more_sessions_than_the_cap() {
    for (how, kind, body) in disguises() {
        for is_modern in [false, true] {
            for takes in [std::time::Duration::ZERO, SECOND / 2] {
                let own = Own::default();
                own.delete_takes(takes);
                let stage = Stage::new(&own, generous(&own, 200, JSON), capped);
                for _ in 0..200 {
                    stage.ask(of("alice", disguised(how, kind, &body, is_modern))).await;
                    pass(SECOND / 100).await;
                }
                let bound = bound(how, is_modern);
                assert!(own.most() <= bound, "{how} {is_modern} {takes:?}: {}", own.most());
                stage.finish().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_at_once_does_not_get_past_the_cap_either() {
    for (how, kind, body) in disguises() {
        for is_modern in [false, true] {
            let own = Own::default();
            own.delete_takes(SECOND / 2);
            let slow = scripted(&own, |own, call| async move {
                if call.id().is_some() {
                    return None;
                }
                let id = own.open();
                pass(SECOND).await;
                Some(named(result(), &id))
            });
            let stage = Stage::new(&own, slow, capped);
            let crowd =
                (0..200).map(|_| stage.ask(of("alice", disguised(how, kind, &body, is_modern))));
            join_all(crowd).await;
            let bound = bound(how, is_modern);
            assert!(own.most() <= bound, "{how} {is_modern}: {}", own.most());
            stage.finish().await;
        }
    }
}

/// What stands for no message in our eyes takes its permit afterwards: until then, 64 a principal may be under way.
fn bound(how: &str, is_modern: bool) -> usize {
    match how {
        "padding" if is_modern => usize::MAX,
        "padding" | "text" | "a form" | "no type of MCP" => CAP + 64,
        _ => CAP,
    }
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_leaves_nothing() {
    for (how, kind, body) in disguises() {
        for is_modern in [false, true] {
            let own = Own::default();
            let slow = scripted(&own, |own, call| async move {
                if call.id().is_some() {
                    return None;
                }
                pass(SECOND).await;
                Some(named(result(), &own.open()))
            });
            let stage = Stage::new(&own, slow, capped);
            for _ in 0..3 {
                let request = of("alice", disguised(how, kind, &body, is_modern));
                stage.hang_up(SECOND / 2, request).await;
            }
            pass(SECOND * 2).await;
            let shielded = if how == "padding" && is_modern { 0 } else { 3 };
            assert_eq!((own.opened().len(), own.live()), (shielded, 0), "{how} {is_modern}");
            assert_eq!(stage.sessions.len(), 0, "{how}");
            stage.finish().await;
        }
    }
}

/// Answered 503 of so many requests that each of `who` sends in a row on so many connections.
async fn refused(
    stage: &Stage,
    who: &str,
    connections: usize,
    each: usize,
    request: impl Fn() -> Request<Body>,
) -> usize {
    let connection = || async {
        let mut refused = 0;
        for _ in 0..each {
            let reply = stage.ask(of(who, request())).await;
            refused += usize::from(reply.status == 503);
            pass(std::time::Duration::from_millis(5)).await;
        }
        refused
    };
    join_all((0..connections).map(|_| connection())).await.into_iter().sum()
}

#[tokio::test(start_paused = true)]
async fn the_flood_of_one_never_makes_the_request_of_another_a_503() {
    for (how, kind, body) in disguises() {
        for is_modern in [false, true] {
            let own = Own::default();
            own.delete_takes(SECOND * 2 / 5);
            let inner = scripted(&own, |own, call| async move {
                if call.id().is_some() {
                    return None;
                }
                let id = own.open();
                pass(SECOND / 5).await;
                Some(named(answer(406, JSON, RESULT), &id))
            });
            let stage = Stage::new(&own, inner, |layer| by_user(layer).forward_missing_ids());
            let flood = || disguised(how, kind, &body, is_modern);
            let long = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "x": "x".repeat(70_000) } });
            let bobs = [
                modern(json_post(long.to_string())),
                modern(json_post(message("tools/list", &json!({})))),
                json_post("[{\"jsonrpc\":\"2.0\"}]"),
                post(Some("text/plain"), "hello"),
                initialize(),
            ];
            let bob = async {
                let mut refused = 0;
                for request in bobs {
                    pass(SECOND / 20).await;
                    let reply = stage.ask(of("bob", request)).await;
                    refused += usize::from(reply.status != 406);
                }
                refused
            };
            let (alice, bob) = tokio::join!(refused(&stage, "alice", 80, 10, flood), bob);
            assert_eq!(bob, 0, "{how} {is_modern}; alice was refused {alice} times");
            pass(SECOND * 10).await;
            assert_eq!(own.live(), 0);
            stage.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_flood_of_nobody_never_makes_the_request_of_somebody_a_503() {
    let own = Own::default();
    own.delete_takes(SECOND * 2 / 5);
    let inner = generous(&own, 406, JSON);
    let stage = Stage::new(&own, inner, |layer| by_user(layer).allow_anonymous());
    let long = initialize_body().to_string().replace("{}", &format!("\"{}\"", "x".repeat(70_000)));
    let bob = async {
        for _ in 0..20 {
            pass(SECOND / 20).await;
            let call = modern(json_post(long.replace("initialize", "tools/call")));
            assert_eq!(stage.ask(of("bob", call)).await.status, 406);
        }
    };
    let flood = (0..400).map(|_| stage.ask(json_post(long.clone())));
    tokio::join!(bob, join_all(flood));
    stage.finish().await;
}

/// Requests that take no place: how they are called, the layer, and one of them.
type Placeless = (&'static str, fn(McpSessionLayer) -> McpSessionLayer, fn() -> Request<Body>);

fn ping() -> Request<Body> {
    json_post(message("ping", &json!({})))
}

const PLACELESS: [Placeless; 5] = [
    ("a modern call", |layer| layer, || modern(ping())),
    ("a version that is none", |layer| layer, || with(ping(), "mcp-protocol-version", "latest")),
    ("a message without an id", |layer| layer.forward_missing_ids(), ping),
    ("a GET", |layer| layer, || bare(http::Method::GET)),
    (
        "a DELETE of an unknown id",
        |layer| layer.unknown_ids(UnknownIds::Forward),
        || delete("unknown"),
    ),
];

#[tokio::test(start_paused = true)]
async fn a_server_that_opens_a_session_for_anything_is_asked_no_faster_than_it_ends_them() {
    for (what, configure, request) in PLACELESS {
        let own = Own::default();
        own.delete_takes(SECOND * 2);
        let inner = scripted(&own, |own, call| async move {
            let is_end =
                call.method() == http::Method::DELETE && call.id() != Some("unknown".into());
            (!is_end).then(|| named(answer(400, JSON, RESULT), &own.open()))
        });
        let stage = Stage::new(&own, inner, |layer| configure(by_user(layer).max_sessions(CAP)));
        for (user, most) in [(Some("alice"), 64), (None, 256)] {
            let before = own.opened().len();
            for _ in 0..1_000 {
                let request = request();
                let asked = match user {
                    Some(user) => of(user, request),
                    None => request,
                };
                stage.ask(asked).await;
            }
            let opened = own.opened().len() - before;
            assert!(opened <= most, "{what}: {opened} of {user:?} at once");
        }
        let reply = stage.ask(of("bob", request())).await;
        assert_ne!(reply.status, 503, "{what}: the flood of others is none of bob's business");
        pass(SECOND * 60).await;
        stage.finish().await;
    }
}
