//! Serving until told to stop, and leaving nothing half done.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use axum::Router;
use mcp_session_layer::Sessions;
use tokio_util::sync::CancellationToken;

use super::net::listen;

/// What a server logs by default. rmcp writes whole session ids into its `info` lines, and an id
/// is a secret: whoever reads the log could speak in that session.
pub(crate) const LOG: &str = "info,rmcp::=warn";

/// How long calls in flight may take to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long the whole exit may take. Closing tells every server behind, and a connection may be
/// stuck: neither may keep the process.
const EXIT: Duration = Duration::from_secs(8);

/// Serves `app` on `addr` until SIGTERM or SIGINT, then drains. A second signal ends it at once.
///
/// The order matters. `Sessions::shutdown` comes first, while connections are still accepted: a
/// call in flight may need its client to answer a question of the server, and that answer is a
/// new request. Only then `stop` is cancelled, which ends the listening, and whatever else the
/// example has hung on it.
pub(crate) async fn serve(
    addr: SocketAddr,
    app: Router,
    sessions: Sessions,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = listen(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
    let bound = axum::serve::Listener::local_addr(&listener)?;
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut serving = tokio::spawn(serving.into_future());
    println!("listening on http://{bound}/mcp");

    tokio::select! {
        ended = &mut serving => return Ok(ended??),
        () = signals.next() => tracing::info!("draining"),
    }
    let drain = async {
        sessions.shutdown(GRACE).await;
        stop.cancel();
        serving.await
    };
    tokio::select! {
        drained = tokio::time::timeout(EXIT, drain) => match drained {
            Ok(ended) => ended??,
            Err(_) => tracing::warn!("left with connections still open"),
        },
        () = signals.next() => tracing::warn!("left without draining"),
    }
    Ok(())
}

/// The signals that ask for an end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
