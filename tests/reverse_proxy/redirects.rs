//! What becomes of an upstream that redirects.

use http::Method;

use super::{upstream::answer, *};

/// Sends `/mcp` on to here, and serves what is below it.
pub(crate) async fn redirecting(status: u16, location: &'static str) -> Upstream {
    Upstream::answering(move |seen| {
        let own = seen.header("host").unwrap();
        let location = location.replace("OWN", own);
        (seen.path() == "/mcp").then(|| answer(status, &[("location", &location)]))
    })
    .await
}

#[tokio::test]
async fn a_307_or_308_to_the_upstream_itself_is_followed_with_the_body() {
    for status in [307, 308] {
        for location in [
            "http://OWN/mcp/",
            "HTTP://OWN/mcp/#top",
            "//OWN/mcp/",
            "/mcp/",
            "mcp/",
            "./x/../mcp/",
            "http://somebody@OWN/mcp/",
            "http:\\\\OWN\\mcp/",
        ] {
            let upstream = redirecting(status, location).await;
            let proxy = Proxy::to(&upstream, &["--idle-timeout", "300ms"]).await;
            let opened = reply(proxy.initialize()).await;
            assert_eq!(opened.status, 200, "{status} {location}: {opened:?}");
            assert_eq!(opened.json()["result"]["serverInfo"]["name"], "upstream");
            let id = opened.header("mcp-session-id").unwrap();
            assert_eq!(reply(proxy.ping(&id)).await.status, 200);
            let [first, second] = [0, 1].map(|at| upstream.seen()[at].clone());
            assert_eq!((first.path(), second.path()), ("/mcp", "/mcp/"));
            assert_eq!((first.method, &first.body), (Method::POST, &second.body));
            assert_eq!(first.headers, second.headers);

            // The layer ends the session the same way.
            until("the session is ended where it is", || {
                let is_end = |seen: &upstream::Seen| {
                    seen.method == Method::DELETE
                        && seen.path() == "/mcp/"
                        && seen.header("mcp-session-id") == Some(&id)
                };
                upstream.seen().iter().any(is_end)
            })
            .await;
            if status == 308 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_query_stays_with_the_request() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    proxy.raw("GET /mcp?a=%20'b&c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(upstream.last().target, "/mcp?a=%20'b&c");
    let deep = Proxy::start(&format!("http://{}/deep/mcp/", upstream.addr), &[]).await;
    reply(deep.ask(Method::GET, "/mcp/?a")).await;
    assert_eq!(upstream.last().target, "/deep/mcp/?a");
}

#[tokio::test]
async fn any_other_location_at_the_upstream_becomes_one_of_the_proxy() {
    for (status, location, expected) in [
        (301, "http://OWN/mcp/", "/mcp/"),
        (302, "http://OWN/login?next=%2Fmcp#x", "/login?next=%2Fmcp"),
        (303, "//OWN/mcp", "/mcp"),
        (302, "other/../login", "/login"),
        // Not a host by the way.
        (302, "http://OWN//evil.example/x", "/evil.example/x"),
        (302, "http://OWN/\\evil.example/x", "/evil.example/x"),
        (201, "http://OWN/mcp/thing", "/mcp/thing"),
    ] {
        let upstream = redirecting(status, location).await;
        let proxy = Proxy::to(&upstream, &[]).await;
        let answer = reply(proxy.initialize()).await;
        assert_eq!(answer.status, status, "{location}: {answer:?}");
        assert_eq!(answer.header("location").as_deref(), Some(expected), "{location}");
        assert!(!format!("{answer:?}").contains(&upstream.addr.to_string()), "{answer:?}");
    }
    // Where the endpoint has another path there, it is ours that clients are told.
    let upstream = Upstream::answering(|seen| {
        let location = format!("http://{}/deep/api/?q", seen.header("host").unwrap());
        Some(answer(302, &[("location", &location)]))
    })
    .await;
    let proxy = Proxy::start(&format!("http://{}/deep/api", upstream.addr), &[]).await;
    let answer = reply(proxy.initialize()).await;
    assert_eq!(answer.header("location").as_deref(), Some("/mcp/?q"));
}

#[tokio::test]
async fn a_redirect_to_another_authority_is_refused_and_nobody_learns_where_to() {
    let other = Upstream::start().await;
    let port = other.addr.port();
    for location in [
        format!("http://127.0.0.1:{port}/mcp"),
        format!("http://localhost:{port}/mcp"),
        format!("//127.0.0.1:{port}/mcp"),
        "https://OWN/mcp".to_owned(),
        "http://evil.example/".to_owned(),
        "http://OWN@evil.example/".to_owned(),
        "http://[".to_owned(),
        "data:text/html,x".to_owned(),
    ] {
        for status in [301, 302, 307, 308] {
            let location: &'static str = location.clone().leak();
            let upstream = redirecting(status, location).await;
            let proxy = Proxy::to(&upstream, &[]).await;
            let refused = reply(proxy.initialize()).await;
            assert_eq!(refused.status, 502, "{status} {location}: {refused:?}");
            assert_eq!(refused.text, "the upstream redirects elsewhere");
            assert_eq!(refused.header("location"), None);
        }
    }
    assert!(other.seen().is_empty(), "the body went there");
    // Of what is no redirect, the rest goes on.
    let upstream = redirecting(201, "http://evil.example/thing").await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let created = reply(proxy.initialize()).await;
    assert_eq!((created.status.as_u16(), created.header("location")), (201, None));
}

#[tokio::test]
async fn a_second_location_is_not_overlooked() {
    for foreign in ["http://evil.example/", "/login"] {
        let upstream = Upstream::answering(move |seen| {
            let own = format!("http://{}/", seen.header("host").unwrap());
            Some(answer(302, &[("location", foreign), ("location", &own)]))
        })
        .await;
        let proxy = Proxy::to(&upstream, &[]).await;
        let answer = reply(proxy.initialize()).await;
        assert!(!format!("{answer:?}").contains(&upstream.addr.to_string()), "{answer:?}");
        assert!(answer.headers.get_all("location").iter().count() <= 1, "{answer:?}");
    }
}

#[tokio::test]
async fn a_redirect_in_circles_ends() {
    let upstream = redirecting(307, "/mcp").await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let refused = reply(proxy.initialize()).await;
    assert_eq!((refused.status.as_u16(), refused.text.as_str()), (502, "the upstream failed"));
    assert_eq!(upstream.seen().len(), 6, "the request and five redirects");
}

#[tokio::test]
async fn a_redirect_that_names_a_session_is_left_to_the_layer() {
    let upstream = Upstream::answering(|seen| {
        let redirect = [("location", "/mcp/"), ("mcp-session-id", "made-for-nobody")];
        (seen.path() == "/mcp").then(|| answer(307, &redirect))
    })
    .await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let answer = reply(proxy.initialize()).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (307, Some("/mcp/".into())));
    assert!(upstream.seen().iter().all(|seen| seen.path() == "/mcp"), "it was followed");
}

#[tokio::test]
async fn headers_that_name_the_upstream_do_not_reach_the_client() {
    let upstream = Upstream::answering(|seen| {
        let own = seen.header("host").unwrap().to_ascii_uppercase();
        let challenge = format!("Bearer resource_metadata=\"http://{own}/.well-known/x\"");
        let link = format!("<//{own}>; rel=next");
        let via = format!("1.1 {own}");
        let alias = format!("<http://{}/>", own.replace("127.0.0.1", "LocalHost"));
        let longer = format!("http://{own}0/");
        let headers = [
            ("www-authenticate", challenge.as_str()),
            ("link", &link),
            ("content-location", &link),
            ("via", &via),
            ("x-alias", &alias),
            ("x-longer", &longer),
            ("x-plain", "http://other.example"),
        ];
        Some(answer(401, &headers))
    })
    .await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let answer = reply(proxy.initialize()).await;
    assert_eq!(answer.status, 401);
    for gone in ["www-authenticate", "link", "content-location", "via", "x-alias"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert!(answer.header("x-plain").is_some() && answer.header("x-longer").is_some());
}
