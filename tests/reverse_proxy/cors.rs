//! Web pages as clients.

use http::Method;

use super::{upstream::answer, *};

const PAGE: &str = "https://page.example";

fn preflight(proxy: &Proxy, origin: &str) -> RequestBuilder {
    let request = proxy.ask(Method::OPTIONS, "/mcp").header("origin", origin);
    let request = request.header("access-control-request-method", "DELETE");
    request.header("access-control-request-headers", "mcp-session-id,mcp-param-x,authorization")
}

/// Whether a header is a list that names this.
fn names(answer: &Reply, header: &str, name: &str) -> bool {
    let list = answer.header(header).unwrap_or_default();
    list.split(',').any(|each| each.trim().eq_ignore_ascii_case(name))
}

#[tokio::test]
async fn a_page_of_a_cors_origin_opens_uses_and_ends_sessions_and_no_other_page_does() {
    let upstream = Upstream::answering(|seen| {
        // Its own page is another one.
        let own = [("access-control-allow-origin", "*"), ("mcp-session-id", "its-own")];
        let has_id = seen.header("mcp-session-id").is_some();
        (!has_id).then(|| answer(200, &own[..if seen.method == Method::POST { 2 } else { 1 }]))
    })
    .await;
    let flags =
        ["--cors-origin", "HTTPS://Page.example:443", "--cors-origin", "http://two.example:81"];
    let proxy = Proxy::to(&upstream, &flags).await;
    for page in [PAGE, "http://two.example:81"] {
        let allowed = reply(preflight(&proxy, page)).await;
        assert_eq!(allowed.status, 200, "{allowed:?}");
        assert_eq!(allowed.header("access-control-allow-origin").as_deref(), Some(page));
        for name in ["mcp-session-id", "mcp-param-x", "authorization"] {
            assert!(names(&allowed, "access-control-allow-headers", name), "{name}: {allowed:?}");
        }
        for name in ["GET", "POST", "DELETE"] {
            assert!(names(&allowed, "access-control-allow-methods", name), "{name}: {allowed:?}");
        }
    }
    assert!(upstream.seen().is_empty(), "preflights are answered here");

    let opened = reply(proxy.initialize().header("origin", PAGE)).await;
    assert_eq!(opened.header("access-control-allow-origin").as_deref(), Some(PAGE));
    assert!(names(&opened, "access-control-expose-headers", "mcp-session-id"), "{opened:?}");
    let id = opened.header("mcp-session-id").unwrap();
    let pinged = reply(proxy.ping(&id).header("origin", PAGE)).await;
    assert_eq!(pinged.header("access-control-allow-origin").as_deref(), Some(PAGE));
    let lost = reply(proxy.ping("gone").header("origin", PAGE)).await;
    assert_eq!(lost.status, 404);
    assert_eq!(lost.header("access-control-allow-origin").as_deref(), Some(PAGE), "it can be read");

    let asked = upstream.seen().len();
    let foreign = reply(preflight(&proxy, "https://evil.example")).await;
    assert_eq!(
        (foreign.status.as_u16(), foreign.header("access-control-allow-origin")),
        (403, None)
    );
    let rebound = reply(preflight(&proxy, PAGE).header("host", "evil.example")).await;
    assert_eq!(
        (rebound.status.as_u16(), rebound.header("access-control-allow-origin")),
        (403, None)
    );
    assert_eq!(
        reply(proxy.initialize().header("origin", "https://evil.example")).await.status,
        403
    );
    assert_eq!(upstream.seen().len(), asked);
    // A page on this machine may ask, and without CORS it reads nothing.
    let local = proxy.ask(Method::GET, "/mcp").header("origin", "http://localhost:3000");
    let local = reply(local).await;
    assert_eq!((local.status.as_u16(), local.header("access-control-allow-origin")), (200, None));
}

#[tokio::test]
async fn without_the_flag_cors_is_the_upstreams() {
    let upstream =
        Upstream::answering(|_| Some(answer(204, &[("access-control-allow-origin", "*")]))).await;
    let proxy = Proxy::to(&upstream, &["--allowed-origin", PAGE]).await;
    let answer = reply(preflight(&proxy, PAGE)).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("*"));
    assert_eq!(upstream.last().method, Method::OPTIONS);
}
