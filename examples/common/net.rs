//! A TCP listener fit for server-sent events.

use std::{io, net::SocketAddr};

use axum::serve::{Listener, ListenerExt};
use tokio::net::{TcpListener, TcpStream};

/// Binds `addr`, with `TCP_NODELAY` on every connection.
///
/// An SSE answer is several small writes. With Nagle's algorithm on, the second waits for the
/// peer's delayed acknowledgement of the first: some 40 ms on every call over a kept-alive
/// connection.
pub(crate) async fn listen(
    addr: SocketAddr,
) -> io::Result<impl Listener<Io = TcpStream, Addr = SocketAddr>> {
    let listener = TcpListener::bind(addr).await?;
    Ok(listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
    }))
}
