//! Real sockets: a listener like in production, a client that speaks bytes, and waiting.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    serve::{Listener, ListenerExt},
};
use mcp_session_layer::Sessions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

/// More than any answer takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A listener on a free port of the loopback, with `TCP_NODELAY` on every connection.
pub async fn bind() -> (impl Listener<Io = TcpStream, Addr = SocketAddr>, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener.tap_io(|stream| stream.set_nodelay(true).unwrap()), addr)
}

/// Serves until the runtime of the test ends.
pub async fn serve(app: Router) -> SocketAddr {
    let (listener, addr) = bind().await;
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    addr
}

/// Asks again and again, until it is so.
#[track_caller]
pub fn until(
    what: &str,
    within: Duration,
    mut is_so: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + within;
        while !is_so().await {
            assert!(Instant::now() < deadline, "{caller}: not within {within:?}: {what}");
            sleep(ms(5)).await;
        }
    }
}

/// Waits until nothing is in flight any more; the clients must be gone.
#[track_caller]
pub fn quiescence(sessions: &Sessions) -> impl Future<Output = ()> + use<> {
    let sessions = sessions.clone();
    until("nothing in flight", PATIENCE, async move || {
        let stats = sessions.stats();
        (stats.in_flight, stats.streams, stats.opening) == (0, 0, 0)
    })
}

/// An answer off the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// As sent: order, spelling and all, but without `date`.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(each, _)| each.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn id(&self) -> &str {
        self.header("mcp-session-id").unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One connection, byte by byte.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// A connection whose peer can soon send no more, unless we read.
    pub async fn connect_narrow(addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        let stream = socket.connect(addr).await.unwrap();
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// As [`send`](Self::send), by a client that does not mind if the server has hung up.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// The next answer. Panics if the server hangs up before its end.
    pub async fn answer(&mut self) -> Answer {
        timeout(PATIENCE, self.try_answer(false)).await.unwrap().unwrap()
    }

    /// The next answer, to a HEAD request.
    pub async fn answer_to_head(&mut self) -> Answer {
        timeout(PATIENCE, self.try_answer(true)).await.unwrap().unwrap()
    }

    /// The next answer; `None` if the server hangs up before its end.
    pub async fn try_answer(&mut self, to_head: bool) -> Option<Answer> {
        let mut answer = self.head().await?;
        let length = answer.header("content-length").map(|length| length.parse().unwrap());
        if to_head || matches!(answer.status, 204 | 304) {
            return Some(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await? {
                answer.body.extend(chunk);
            }
        } else if let Some(length) = length {
            while self.read.len() < length {
                self.more().await?;
            }
            answer.body = self.read.drain(..length).collect();
        } else {
            while self.more().await.is_some() {}
            answer.body = std::mem::take(&mut self.read);
        }
        Some(answer)
    }

    /// Status and headers of the next answer; the body is left where it is.
    pub async fn head(&mut self) -> Option<Answer> {
        let head = self.up_to(b"\r\n\r\n").await?;
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap_or((line, "")))
            .filter(|(name, _)| !name.eq_ignore_ascii_case("date"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Answer { status, headers, body: Vec::new() })
    }

    /// The next chunk of a chunked body; the inner `None` is its clean end, the outer a hang-up.
    pub async fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let size = self.up_to(b"\r\n").await?;
        let size = std::str::from_utf8(&size).unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap();
        while self.read.len() < size + 2 {
            self.more().await?;
        }
        let mut chunk: Vec<u8> = self.read.drain(..size + 2).collect();
        chunk.truncate(size);
        Some(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    async fn up_to(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.read.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return Some(self.read.drain(..at + end.len()).collect());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 16 * 1024];
        let n = self.stream.read(&mut buffer).await.ok().filter(|&n| n > 0)?;
        self.read.extend_from_slice(&buffer[..n]);
        Some(())
    }

    /// Says that nothing more will be sent, and goes on listening.
    pub async fn half_close(&mut self) {
        // The server may have hung up already.
        let _ = self.stream.shutdown().await;
    }

    /// Hangs up with a RST, like a process that was killed with bytes unread.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

/// An HTTP/1.1 request in bytes.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    if !body.is_empty() || method == "POST" {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// Numbers that are spread out and the same in every run (`SplitMix64`).
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// One client, doing whatever comes to its mind, and not always to the end. What that is, in a
/// session it was given or made up, `choose` says; it waits less than `patience` milliseconds.
pub async fn rampage(
    addr: SocketAddr,
    seed: u64,
    patience: u64,
    choose: impl Fn(&mut Dice, &str) -> Vec<u8>,
) {
    let mut dice = Dice(seed);
    let mut id = "nobody's".to_owned();
    let end = Instant::now() + ms(2500);
    while Instant::now() < end {
        let mut wire = Wire::connect(addr).await;
        let bytes = choose(&mut dice, &id);
        if dice.roll(10) == 0 {
            let cut = dice.roll(bytes.len() as u64) as usize;
            wire.try_send(&bytes[..cut]).await;
        } else {
            wire.try_send(&bytes).await;
            let patience = ms(dice.roll(patience));
            if let Ok(Some(answer)) = timeout(patience, wire.try_answer(false)).await
                && let Some(fresh) = answer.header("mcp-session-id")
            {
                id = fresh.to_owned();
            }
        }
        match dice.roll(3) {
            0 => wire.reset(),
            1 => wire.half_close().await,
            _ => drop(wire),
        }
        sleep(ms(dice.roll(30))).await;
    }
}
