//! Host and Origin.

use http::{Method, Request};

use super::*;

const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"a","version":"1"}}}"#;

/// The status of an `initialize` with this target and these header lines.
async fn status(proxy: &Proxy, target: &str, headers: &[String]) -> u16 {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let answer = proxy
        .raw(&format!(
            "POST {target} HTTP/1.1\r\n{headers}Content-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{BODY}",
            BODY.len()
        ))
        .await;
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn host(proxy: &Proxy, host: &str) -> u16 {
    status(proxy, "/mcp", &[format!("Host: {host}")]).await
}

async fn origin(proxy: &Proxy, origin: &str) -> u16 {
    let headers = ["Host: localhost".to_owned(), format!("Origin: {origin}")];
    status(proxy, "/mcp", &headers).await
}

#[tokio::test]
async fn a_request_names_this_machine_as_its_host_or_never_reaches_the_upstream() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let own = proxy.addr.to_string();
    let fine = [
        own.as_str(),
        "localhost",
        "LocalHost:1",
        "localhost.:80",
        "localhost:",
        "127.0.0.1",
        "[::1]:8000",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
    ];
    for name in fine {
        assert_eq!(host(&proxy, name).await, 200, "{name}");
    }
    assert_eq!(upstream.seen().len(), fine.len());
    for name in [
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost, evil.example",
        "localhost:80:80",
        "localhost:x",
        "localhost:99999",
        "localhost/",
        "localhost#",
        "::1",
        "[::1",
        "[::1]x",
        "[::1%25lo]",
        "local%68ost",
        "0.0.0.0",
        "[::]",
        "127.0.0.2",
        "127.1",
        "2130706433",
        "localhost..",
        ".",
        "",
        "evil\tlocalhost",
        "xn--lcalhost-54a",
        "\u{ff4c}ocalhost",
    ] {
        assert_eq!(host(&proxy, name).await, 403, "{name:?}");
    }
    let two = |a: &str, b: &str| [format!("Host: {a}"), format!("Host: {b}")];
    for (target, headers) in [
        ("/mcp", Vec::new()),
        ("/mcp", two("localhost", "localhost").to_vec()),
        ("/mcp", two("localhost", "evil.example").to_vec()),
        ("/mcp", two("evil.example", "localhost").to_vec()),
        ("http://evil.example/mcp", vec!["Host: localhost".into()]),
        ("http://localhost/mcp", vec!["Host: evil.example".into()]),
        ("http://evil@localhost/mcp", vec!["Host: localhost".into()]),
        ("http://evil.example/mcp", Vec::new()),
    ] {
        let status = status(&proxy, target, &headers).await;
        assert!(status == 403 || status == 400, "{target} {headers:?}: {status}");
    }
    assert_eq!(upstream.seen().len(), fine.len(), "the upstream was asked");
    assert_eq!(status(&proxy, "http://localhost/mcp", &["Host: localhost".into()]).await, 200);
    let stats = proxy.stats().await;
    assert_eq!(stats["opened"], fine.len() + 1, "nothing else was opened: {stats}");
}

#[tokio::test]
async fn a_request_of_http_2_is_judged_by_its_authority() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let (addr, client) = (proxy.addr, proxy.http_2());
    for (authority, host, status) in [
        ("localhost", None, 200),
        ("evil.example", None, 403),
        ("evil.example", Some("localhost"), 403),
        ("localhost", Some("evil.example"), 403),
    ] {
        let uri = format!("http://{authority}:{}/mcp", addr.port());
        let mut request = Request::post(uri).header("content-type", "application/json");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let answer = client(request.body(BODY.to_owned()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{authority} {host:?}");
    }
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(upstream.last().version, http::Version::HTTP_11);
    assert_eq!(upstream.last().header("host"), Some(upstream.addr.to_string().as_str()));
}

#[tokio::test]
async fn a_page_is_of_this_machine_or_never_reaches_the_upstream() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    for page in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:9", "HTTP://LOCALHOST"]
    {
        assert_eq!(origin(&proxy, page).await, 200, "{page}");
    }
    let asked = upstream.seen().len();
    for page in [
        "http://evil.example",
        "null",
        "",
        "localhost",
        "http://localhost@evil.example",
        "http://localhost.evil.example",
        "http://localhost/",
        "http://localhost http://evil.example",
        "file://localhost",
        "chrome-extension://localhost",
        "http:localhost",
        "://localhost",
    ] {
        assert_eq!(origin(&proxy, page).await, 403, "{page:?}");
    }
    let twice = ["Host: localhost", "Origin: http://localhost", "Origin: http://evil.example"];
    assert_eq!(status(&proxy, "/mcp", &twice.map(String::from)).await, 403);
    // A GET that a foreign page makes without CORS has no Origin.
    let hidden = ["Host: localhost", "Sec-Fetch-Site: cross-site"];
    assert_eq!(status(&proxy, "/mcp", &hidden.map(String::from)).await, 403);
    assert_eq!(upstream.seen().len(), asked, "the upstream was asked");
}

#[tokio::test]
async fn hosts_and_origins_of_the_flags_are_allowed_and_nothing_beside_them() {
    let upstream = Upstream::start().await;
    let flags = "--allowed-host Any.Example --allowed-host one.example:8443 --allowed-host 2001:db8::1 \
                 --allowed-host tls.example:443 --allowed-origin https://Page.example \
                 --allowed-origin http://page.example:8080 --allowed-origin vscode-webview://abc123";
    let flags: Vec<_> = flags.split_whitespace().collect();
    let proxy = Proxy::to(&upstream, &flags).await;
    for (name, expected) in [
        ("any.example", 200),
        ("ANY.example.:77", 200),
        ("one.example:8443", 200),
        ("one.example", 403),
        ("one.example:80", 403),
        ("tls.example", 200),
        ("tls.example:443", 200),
        ("tls.example:80", 403),
        ("[2001:db8:0::1]:5", 200),
        ("[2001:db8::2]", 403),
        ("sub.any.example", 403),
        ("localhost", 200),
    ] {
        assert_eq!(host(&proxy, name).await, expected, "{name}");
    }
    for (page, expected) in [
        ("https://page.example", 200),
        ("https://page.example:443", 200),
        ("http://page.example", 403),
        ("https://page.example:444", 403),
        ("http://page.example:8080", 200),
        ("vscode-webview://abc123", 200),
        ("vscode-webview://abc124", 403),
        ("https://any.example", 403),
        ("null", 403),
    ] {
        assert_eq!(origin(&proxy, page).await, expected, "{page}");
    }
    for flags in [
        ["--allowed-host", "*"],
        ["--allowed-host", "http://a.example"],
        ["--allowed-host", ""],
        ["--allowed-origin", "null"],
        ["--allowed-origin", "*"],
        ["--allowed-origin", "https://a.example/path"],
        ["--cors-origin", "a.example"],
    ] {
        let (code, said) = Proxy::refused(&flags).await;
        assert_eq!(code, Some(2), "{flags:?}: {said}");
        assert_eq!(flags[1] == "null", said.contains("sandboxed"), "{said}");
    }
}

#[tokio::test]
async fn health_answers_anybody_and_stats_only_who_is_allowed() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    for (path, expected) in [("/health", 200), ("/stats", 403), ("/mcp/", 403), ("/other", 403)] {
        let foreign = reply(proxy.ask(Method::GET, path).header("host", "evil.example")).await;
        assert_eq!(foreign.status, expected, "{path}: {foreign:?}");
    }
    assert_eq!(reply(proxy.ask(Method::GET, "/stats")).await.status, 200);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_proxy_on_every_address_answers_to_the_names_it_was_told() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &["--allowed-host", "mcp.example"]).await;
    assert!(!proxy.log().contains("every address"));
    let all = Proxy::at("0.0.0.0:0", &format!("http://{}", upstream.addr), &[]).await;
    for (name, expected) in [("localhost", 200), ("0.0.0.0", 403), ("mcp.example", 403)] {
        assert_eq!(host(&all, name).await, expected, "{name}");
    }
    until("the log says what is missing", || all.log().contains("every address")).await;
    let other = Proxy::at("127.0.0.2:0", &format!("http://{}", upstream.addr), &[]).await;
    for (name, expected) in [("127.0.0.2", 200), ("127.0.0.2:1", 200), ("127.0.0.3", 403)] {
        assert_eq!(host(&other, name).await, expected, "{name}");
    }
}
