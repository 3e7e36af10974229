//! Sessions at both paths, and servers that have none.

use http::Method;

use super::{upstream::answer, *};

#[tokio::test]
async fn a_session_of_one_path_is_one_of_the_other_with_a_slash() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &["--idle-timeout", "400ms"]).await;
    for (opens, uses) in [("/mcp", "/mcp/"), ("/mcp/", "/mcp")] {
        let opened = reply(proxy.ask(Method::POST, opens).json(&initialize())).await;
        let id = opened.header("mcp-session-id").unwrap();
        for path in [opens, uses] {
            let used = proxy.ask(Method::GET, path).header("mcp-session-id", &id);
            assert_eq!(reply(used).await.status, 200, "{opens} {path}");
        }
        let deleted = proxy.ask(Method::DELETE, uses).header("mcp-session-id", &id);
        assert_eq!(reply(deleted).await.status, 204);
        for path in [opens, uses] {
            let used = proxy.ask(Method::GET, path).header("mcp-session-id", &id);
            assert_eq!(reply(used).await.status, 404, "{opens} {path}");
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.path() == "/mcp"));
    // Ended by the layer, wherever it was opened.
    let opened = reply(proxy.ask(Method::POST, "/mcp/").json(&initialize())).await;
    let id = opened.header("mcp-session-id");
    until("it is closed for idleness", || {
        let seen = upstream.last();
        seen.method == Method::DELETE && seen.header("mcp-session-id") == id.as_deref()
    })
    .await;
    for path in ["/mcp//", "/mcp/x", "/mcp%2f", "/%6dcp", "//mcp", "/", "/MCP"] {
        let before = upstream.seen().len();
        assert_eq!(
            reply(proxy.ask(Method::POST, path).json(&initialize())).await.status,
            404,
            "{path}"
        );
        assert_eq!(upstream.seen().len(), before, "{path} is a way around the layer");
    }
}

#[tokio::test]
async fn a_stateless_upstream_is_asked_without_ids_and_none_is_issued() {
    let stateless = || {
        Upstream::answering(|seen| {
            let is_post = seen.method == Method::POST;
            is_post.then(|| answer(200, &[("content-type", "application/json")]))
        })
    };
    let upstream = stateless().await;
    let proxy = Proxy::to(&upstream, &["--stateless"]).await;
    let opened = reply(proxy.initialize()).await;
    assert_eq!((opened.status.as_u16(), opened.header("mcp-session-id")), (200, None));
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let listed = reply(proxy.ask(Method::POST, "/mcp").json(&list)).await;
    assert_eq!((listed.status.as_u16(), listed.header("mcp-session-id")), (200, None));
    assert_eq!(upstream.seen().len(), 2);
    let stats = proxy.stats().await;
    assert_eq!((&stats["opened"], &stats["opening"]), (&json!(0), &json!(0)), "{stats}");

    // Without the flag the layer issues ids, and wants to see them.
    let upstream = stateless().await;
    let proxy = Proxy::to(&upstream, &[]).await;
    assert!(reply(proxy.initialize()).await.header("mcp-session-id").is_some());
    assert_eq!(reply(proxy.ask(Method::POST, "/mcp").json(&list)).await.status, 400);

    // A server that issues ids all the same has its sessions managed.
    let upstream = Upstream::start().await;
    let proxy = Proxy::to(&upstream, &["--stateless", "--idle-timeout", "300ms"]).await;
    let id = proxy.open().await;
    assert_eq!(reply(proxy.ping(&id)).await.status, 200);
    until("it is closed for idleness", || upstream.count(&Method::DELETE) == 1).await;
}
