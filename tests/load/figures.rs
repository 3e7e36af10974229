//! What the server tells of itself, and what the system tells of the server.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The answer of `/stats`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    pub live: usize,
    pub opening: usize,
    pub closing: usize,
    pub in_flight: usize,
    pub streams: usize,
    /// Sessions in rmcp's table.
    pub inner: usize,
    /// Handler objects that rmcp keeps alive.
    pub handlers: usize,
    /// Sessions that were turned away and are being closed without a permit.
    pub unclaimed: usize,
    /// Closes that the server behind has not been told of.
    pub queued: usize,
    /// Requests that wait for a permit.
    pub waiting: usize,
    /// Principals of whom anything is counted.
    pub shares: usize,
    pub tasks: usize,
    /// Bytes allocated and not freed.
    pub heap: usize,
    pub opened: usize,
    pub closed: usize,
    pub closed_by: BTreeMap<String, usize>,
    pub rejected: usize,
    pub terminate_failures: usize,
}

impl Figures {
    /// Asks on a connection that does not stay.
    pub async fn ask(ops: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(ops).await.unwrap();
        let request = b"GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// What must be zero when no session is left, by name.
    pub fn rest(&self) -> [(&'static str, usize); 10] {
        [
            ("live", self.live),
            ("opening", self.opening),
            ("closing", self.closing),
            ("in_flight", self.in_flight),
            ("streams", self.streams),
            ("inner", self.inner),
            ("handlers", self.handlers),
            ("unclaimed", self.unclaimed),
            ("queued", self.queued),
            ("shares", self.shares + self.waiting),
        ]
    }

    pub fn is_at_rest(&self) -> bool {
        self.rest().iter().all(|(_, count)| *count == 0)
    }
}

/// Open file descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Resident memory of a process, in bytes.
pub fn resident(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}
