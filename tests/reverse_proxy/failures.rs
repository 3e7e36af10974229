//! Upstreams that are not there, or do not speak MCP.

use http::{Method, Request};
use http_body_util::BodyExt as _;
use tokio::net::{TcpListener, TcpSocket};

use super::*;

/// What a client is told, and nothing else.
fn assert_plain(answer: &Reply, upstream: SocketAddr) {
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (502, "the upstream failed"));
    let all = format!("{answer:?}");
    assert!(!all.contains(&upstream.port().to_string()) && !all.contains("onnect"), "{all}");
    assert_eq!(answer.header("mcp-session-id"), None);
}

#[tokio::test]
async fn an_upstream_that_refuses_the_connection_is_a_502_that_tells_nothing() {
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let proxy = Proxy::start(&format!("http://{addr}"), &[]).await;
    assert_plain(&reply(proxy.initialize()).await, addr);
    assert_plain(&reply(proxy.ask(Method::GET, "/mcp")).await, addr);
}

/// Linux leaves a connection unanswered where the backlog is full. In real time: the five seconds are those
/// of the program.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_upstream_that_does_not_accept_the_connection_is_a_502_after_five_seconds() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let full = socket.listen(1).unwrap();
    let addr = full.local_addr().unwrap();
    let mut taken = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(addr)).await {
        taken.push(stream);
        assert!(taken.len() < 100, "the backlog has no end");
    }
    let proxy = Proxy::start(&format!("http://{addr}"), &[]).await;
    let begin = Instant::now();
    assert_plain(&reply(proxy.ask(Method::GET, "/mcp")).await, addr);
    assert!(begin.elapsed() >= Duration::from_secs(4), "{:?}", begin.elapsed());
}

/// Takes one connection after the other, reads a little, says this and hangs up.
async fn saying(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap_or_default();
            assert!(read > 0, "nothing was sent");
            stream.write_all(text.as_bytes()).await.ok();
        }
    });
    addr
}

#[tokio::test]
async fn an_upstream_that_speaks_something_else_is_a_502_that_tells_nothing() {
    for text in
        ["", "SSH-2.0-OpenSSH_9\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"]
    {
        let addr = saying(text).await;
        let proxy = Proxy::start(&format!("http://{addr}"), &[]).await;
        assert_plain(&reply(proxy.initialize()).await, addr);
    }
}

#[tokio::test]
async fn an_answer_with_two_lengths_is_handed_on_whole_and_without_its_trailers() {
    let text = "HTTP/1.1 400 Bad\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\
                Trailer: mcp-session-id\r\n\r\n5\r\nwhole\r\n0\r\nMcp-Session-Id: stolen\r\n\r\n";
    let addr = saying(text).await;
    let proxy = Proxy::start(&format!("http://{addr}"), &[]).await;
    let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = proxy.raw(get).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("whole"), "{answer}");
    assert!(!answer.contains("content-length: 2"), "{answer}");
    // HTTP/2 has room for trailers that nobody announced.
    let uri = format!("http://localhost:{}/mcp", proxy.addr.port());
    let client = proxy.http_2();
    let answer = client(Request::get(uri).body(String::new()).unwrap()).await.unwrap();
    let answer = answer.into_body().collect().await.unwrap();
    assert_eq!(answer.trailers(), None);
    assert_eq!(answer.to_bytes(), "whole");
}

#[tokio::test]
async fn an_upstream_is_named_without_credentials_and_query() {
    for url in
        ["https://127.0.0.1:9", "http://a:b@127.0.0.1:9", "http://127.0.0.1:9/?q", "127.0.0.1:9"]
    {
        let (code, said) = Proxy::refused(&["--upstream", url]).await;
        assert_eq!(code, Some(2), "{url}: {said}");
    }
}
