//! Redirects and the body of the request.

use std::convert::Infallible;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use http::Method;
use http_body_util::BodyExt as _;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};

use super::{
    redirects::redirecting,
    upstream::{answer, serve},
    *,
};

#[tokio::test]
async fn a_body_of_over_a_mib_is_not_kept_and_its_redirect_is_the_clients() {
    let upstream = redirecting(307, "http://OWN/mcp/").await;
    let proxy = Proxy::to(&upstream, &[]).await;
    let id = proxy_session(&upstream, &proxy).await;
    for (size, is_chunked, status) in [
        (1 << 20, false, 200),
        ((1 << 20) + 1, false, 307),
        (1 << 20, true, 200),
        (3 << 20, true, 307),
    ] {
        let before = upstream.seen().len();
        let body = vec![b'x'; size];
        let request = proxy.ask(Method::POST, "/mcp").header("mcp-session-id", &id);
        let request = match is_chunked {
            true => {
                let parts = body.chunks(100_000).map(|part| Ok::<_, Infallible>(part.to_vec()));
                let parts: Vec<_> = parts.collect();
                request.body(reqwest::Body::wrap_stream(tokio_stream::iter(parts)))
            }
            false => request.body(body.clone()),
        };
        let answer = reply(request).await;
        assert_eq!(answer.status, status, "{size} {is_chunked}: {answer:?}");
        let seen = upstream.seen().split_off(before);
        assert!(seen.iter().all(|seen| seen.body == body), "{size} {is_chunked}");
        if status == 307 {
            assert_eq!((seen.len(), answer.header("location")), (1, Some("/mcp/".into())));
        } else {
            assert_eq!(seen.len(), 2);
        }
    }
}

async fn proxy_session(upstream: &Upstream, proxy: &Proxy) -> String {
    let id = proxy.open().await;
    assert_eq!(upstream.last().path(), "/mcp/");
    id
}

/// Answers `/mcp` before it has read anything, and says what it reads elsewhere as it comes.
async fn hasty(came: mpsc::UnboundedSender<Bytes>) -> SocketAddr {
    let handler = move |request: Request| {
        let came = came.clone();
        async move {
            if request.uri().path() == "/mcp" {
                return answer(307, &[("location", "/mcp/")]);
            }
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                came.send(frame.into_data().unwrap()).unwrap();
            }
            Response::new(Body::from("read"))
        }
    };
    serve(Router::new().fallback(handler)).await
}

#[tokio::test]
async fn a_redirect_before_the_body_has_come_is_followed_and_the_rest_streams_through() {
    let (came, mut comes) = mpsc::unbounded_channel();
    let upstream = hasty(came).await;
    let proxy = Proxy::start(&format!("http://{upstream}"), &[]).await;
    let (send, body) = mpsc::unbounded_channel::<&'static str>();
    let body = UnboundedReceiverStream::new(body).map(Ok::<_, Infallible>);
    let request = proxy.ask(Method::POST, "/mcp").header("content-type", "text/plain");
    let request = request.body(reqwest::Body::wrap_stream(body));
    send.send("first").unwrap();
    let answer = tokio::spawn(reply(request));
    for part in ["first", "second", "third"] {
        if part != "first" {
            send.send(part).unwrap();
        }
        let read = timeout(PATIENCE, comes.recv()).await.unwrap().unwrap();
        assert_eq!(read, part, "each before the next is sent");
    }
    drop(send);
    let answer = answer.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "read"));
}

/// Reads from a connection until this has come, or its end.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    let mut part = [0; 4096];
    while !read.ends_with(end.as_bytes()) {
        match timeout(PATIENCE, stream.read(&mut part)).await.unwrap() {
            Ok(0) | Err(_) => break,
            Ok(count) => read.extend_from_slice(&part[..count]),
        }
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_message_that_went_on_elsewhere_does_not_look_whole_where_it_began() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy = Proxy::start(&format!("http://{}", listener.local_addr().unwrap()), &[]).await;
    let (send, body) = mpsc::unbounded_channel::<&'static str>();
    let body = UnboundedReceiverStream::new(body).map(Ok::<_, Infallible>);
    let request = proxy.ask(Method::POST, "/mcp").header("content-type", "text/plain");
    let answer = tokio::spawn(reply(request.body(reqwest::Body::wrap_stream(body))));
    send.send("first").unwrap();
    let (mut one, _) = listener.accept().await.unwrap();
    assert!(read_until(&mut one, "first\r\n").await.ends_with("5\r\nfirst\r\n"));
    let redirect = "HTTP/1.1 307 There\r\nLocation: /mcp/\r\nContent-Length: 0\r\n\r\n";
    one.write_all(redirect.as_bytes()).await.unwrap();
    let (mut two, _) = listener.accept().await.unwrap();
    send.send("rest").unwrap();
    drop(send);
    let whole = read_until(&mut two, "0\r\n\r\n").await;
    assert!(whole.ends_with("5\r\nfirst\r\n4\r\nrest\r\n0\r\n\r\n"), "{whole}");
    two.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.unwrap();
    assert_eq!(answer.await.unwrap().text, "done");
    let left = read_until(&mut one, "0\r\n\r\n").await;
    assert_eq!(left, "", "the connection ends where it was");
}

#[tokio::test]
async fn a_body_that_is_known_to_be_over_a_mib_is_not_kept_even_where_the_redirect_comes_first() {
    let upstream = hasty(mpsc::unbounded_channel().0).await;
    let proxy = Proxy::start(&format!("http://{upstream}"), &[]).await;
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
                Connection: close\r\nContent-Length: 1048577\r\n\r\nfirst";
    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 307"), "{:?}", String::from_utf8_lossy(&answer));
}
