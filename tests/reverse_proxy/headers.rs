//! What of a request's and of an answer's headers goes on.

use http::Method;

use super::{upstream::answer, *};

/// A GET with these header lines.
async fn get(proxy: &Proxy, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    proxy.raw(&format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await
}

#[tokio::test]
async fn what_concerns_one_connection_ends_here_both_ways() {
    let upstream = Upstream::answering(|_| {
        let headers = [
            ("connection", "x-private, mcp-session-id, keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("x-private", "of the upstream's connection"),
            ("alt-svc", "h2=\"elsewhere:1\""),
            ("mcp_session_id", "folded"),
            ("mcp-session-id", "kept"),
            ("x-public", "kept"),
        ];
        Some(answer(400, &headers))
    })
    .await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let answer = get(
        &proxy,
        &[
            "Connection: close, X-Private , te",
            "Connection: x-other",
            "X-Private: 1",
            "X-Other: 1",
            "TE: trailers",
            "Trailer: x",
            "Upgrade: h2c",
            "HTTP2-Settings: x",
            "Keep-Alive: 5",
            "Proxy-Connection: close",
            "Proxy-Authorization: Basic x",
            "Expect: x",
            "X-Public: 1",
        ],
    )
    .await;
    // The session that the answer named is ended by a DELETE of the layer's.
    let seen = upstream.seen().into_iter().find(|seen| seen.method == Method::GET).unwrap();
    let names: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(seen.header("x-public"), Some("1"));
    assert_eq!(seen.header("host"), Some(upstream.addr.to_string().as_str()));
    let answer = answer.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 400") && answer.contains("x-public: kept"), "{answer}");
    for gone in ["x-private", "keep-alive", "proxy-authenticate", "alt-svc", "folded"] {
        assert!(!answer.contains(gone), "{gone}: {answer}");
    }
}

#[tokio::test]
async fn connection_takes_away_nothing_by_which_the_layer_or_the_upstream_decides() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let id = proxy.open().await;
    let kept = [
        ("mcp-session-id", id.as_str()),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-any", "1"),
        ("last-event-id", "7"),
        ("authorization", "Bearer x"),
        ("content-type", "text/plain"),
        ("accept", "text/event-stream"),
        ("origin", "http://localhost"),
        ("cookie", "a=b"),
        ("content-encoding", "identity"),
    ];
    let names: Vec<_> = kept.iter().map(|(name, _)| *name).collect();
    let connection = format!("Connection: close, host, {}", names.join(", "));
    let lines: Vec<_> = kept.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).chain([connection.as_str()]).collect();
    assert!(get(&proxy, &lines).await.starts_with("HTTP/1.1 200"));
    let seen = upstream.last();
    for (name, value) in kept {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn no_header_reaches_the_upstream_that_some_server_reads_as_another() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &["--bearer-principal"]).await;
    let id = reply(proxy.initialize().bearer_auth("alice")).await.header("mcp-session-id").unwrap();
    let opened = upstream.seen().len();
    let spellings = [
        "mcp_session_id",
        "Mcp-Session_Id",
        "mcp.session.id",
        "MCP~Session~Id",
        "mcp|session!id",
        "mcp_protocol_version",
        "mcp-protocol.version",
        "content_length",
        "transfer_encoding",
        "x_forwarded_for",
        "last_event_id",
        "x_api_key",
    ];
    for version in ["2025-11-25", "2026-07-28"] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let mut request = proxy.ask(method, "/mcp").bearer_auth("bob");
            request = request.header("mcp-protocol-version", version).body("\u{feff}{}");
            for name in spellings {
                request = request.header(name, &id);
            }
            reply(request).await;
        }
    }
    let seen = upstream.seen().split_off(opened);
    assert_eq!(seen.len(), 6, "they are no reason to refuse a request");
    for seen in seen {
        assert!(!format!("{seen:?}").contains(&id), "{seen:?}");
    }
    // Nor what may be named in a chunked body's end.
    let trailers = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer bob\r\nTE: trailers\r\n\
         Connection: close\r\nTrailer: mcp-session-id\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\n{}\r\n0\r\nMcp-Session-Id: ";
    proxy.raw(&format!("{trailers}{id}\r\n\r\n")).await;
    let seen = upstream.last();
    assert_eq!((seen.body.as_slice(), seen.header("trailer")), (&b"{}"[..], None));
}

#[tokio::test]
async fn what_strangers_say_of_where_they_are_ends_here() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let names = [
        "forwarded",
        "proxy",
        "true-client-ip",
        "x-client-ip",
        "x-forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-original-url",
        "x-original-host",
        "x-real-ip",
        "x-rewrite-url",
    ];
    let mut request = proxy.ask(Method::GET, "/mcp");
    for name in names {
        request = request.header(name, "127.0.0.1");
    }
    assert_eq!(reply(request).await.status, 200);
    let seen = upstream.last();
    for name in names {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_message_with_two_lengths_goes_on_with_one() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let smuggled = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\
                    Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n";
    proxy.raw(smuggled).await;
    let [seen] = upstream.seen().try_into().unwrap();
    assert_eq!((seen.header("content-length"), seen.body.as_slice()), (None, &b"whole"[..]));
}

#[tokio::test]
async fn the_upstream_is_asked_for_no_tunnel() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let connect =
        "CONNECT http://localhost/mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = proxy.raw(connect).await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(upstream.seen().is_empty());
}
