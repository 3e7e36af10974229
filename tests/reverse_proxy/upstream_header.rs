//! `--upstream-header`.

use axum::response::IntoResponse as _;
use http::{Method, StatusCode};

use super::*;

const SECRET: &str = "the-upstreams-secret";

#[tokio::test]
async fn an_upstream_that_authenticates_sees_the_header_also_when_a_session_is_ended() {
    let credential = format!("Bearer {SECRET}");
    let expected = credential.clone();
    let upstream = Upstream::answering(move |seen| {
        let mut values = seen.headers.get_all("authorization").iter();
        let is_known = values.next().is_some_and(|value| *value == *expected);
        (!is_known || values.next().is_some()).then(|| StatusCode::UNAUTHORIZED.into_response())
    })
    .await;
    let header = format!("authorization:{credential}");
    let flags =
        ["--upstream-header", &header, "--upstream-header", "X-Two: a", "--upstream-header"];
    let flags = [&flags[..], &["x-two: b", "--idle-timeout", "300ms"]].concat();
    let proxy = Proxy::to(&upstream, &flags).await;
    let mut request = proxy.initialize().header("x-two", "of the client");
    for guess in ["Bearer guess", "Bearer other"] {
        request = request.header("authorization", guess);
    }
    assert_eq!(reply(request).await.status, 200);
    let two: Vec<_> = upstream.last().headers.get_all("x-two").iter().cloned().collect();
    assert_eq!(two, ["a", "b"]);
    // A client cannot take it away.
    let connection =
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close, authorization, x-two\r\n\r\n";
    assert!(proxy.raw(connection).await.starts_with("HTTP/1.1 200"));
    until("the session is ended", || {
        let seen = upstream.seen();
        let end = seen.iter().find(|seen| seen.method == Method::DELETE);
        end.is_some_and(|seen| seen.header("authorization") == Some(&credential))
    })
    .await;
    assert_eq!(proxy.stats().await["terminate_failures"], 0);
    let trace = proxy.ask(Method::TRACE, "/mcp");
    assert_eq!(reply(trace).await.status, 405, "it would be answered with the header in it");
    assert!(!proxy.log().is_empty() && !proxy.log().contains(SECRET), "{}", proxy.log());
}

#[tokio::test]
async fn a_header_that_is_not_the_operators_to_set_is_refused_without_its_value() {
    for (name, why) in [
        ("Connection", "one connection"),
        ("transfer-encoding", "one connection"),
        ("Upgrade", "one connection"),
        ("TE", "one connection"),
        ("Host", "the proxy's own"),
        ("Content-Length", "the proxy's own"),
        ("Mcp-Session-Id", "MCP"),
        ("mcp-protocol-version", "MCP"),
        ("Mcp-Anything", "MCP"),
        ("Last-Event-ID", "MCP"),
        ("Content-Type", "MCP"),
        ("mcp_session_id", "hyphens"),
        ("a b", "hyphens"),
        ("", "hyphens"),
    ] {
        let (code, said) =
            Proxy::refused(&["--upstream-header", &format!("{name}: {SECRET}")]).await;
        assert_eq!(code, Some(1), "{name}: {said}");
        assert!(said.contains(why) && said.contains("--upstream-header"), "{name}: {said}");
        assert!(!said.contains(SECRET), "{name}: {said}");
    }
    for text in [SECRET.to_owned(), format!("x: {SECRET}\u{1}"), format!("x: {SECRET}\ny: z")] {
        let (code, said) = Proxy::refused(&["--upstream-header", &text]).await;
        assert!(!said.contains(SECRET), "{said}");
        assert!(code == Some(1), "{said}");
    }
}
