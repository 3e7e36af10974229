//! Two namespaces and the wire between them.

use std::{
    fs::File,
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread::JoinHandle,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const SERVER: &str = "192.0.2.1";
const CLIENT: &str = "192.0.2.2";

/// A server's network and a client's; gone when dropped, however the test ends.
pub(crate) struct Pair {
    server: String,
    client: String,
}

impl Pair {
    pub(crate) fn new() -> Self {
        static PAIRS: AtomicU32 = AtomicU32::new(0);
        let pair = PAIRS.fetch_add(1, Ordering::SeqCst);
        let name = |side| format!("mcp-{}-{pair}-{side}", std::process::id());
        let new = Self { server: name("server"), client: name("client") };
        let (server, client) = (new.server.as_str(), new.client.as_str());
        for namespace in [server, client] {
            ip(&["netns", "add", namespace]);
        }
        ip(&[
            "link", "add", "wire", "netns", server, "type", "veth", "peer", "name", "wire",
            "netns", client,
        ]);
        for (namespace, address) in [(server, SERVER), (client, CLIENT)] {
            ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", "wire"]);
            ip(&["-n", namespace, "link", "set", "wire", "up"]);
        }
        // The server always finds its way to the client's device: what it sends is lost there, and
        // no failed look-up tells it so.
        let link = ip(&["-n", client, "-o", "link", "show", "wire"]);
        let mac = link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        ip(&[
            "-n",
            server,
            "neigh",
            "replace",
            CLIENT,
            "lladdr",
            mac,
            "nud",
            "permanent",
            "dev",
            "wire",
        ]);
        new
    }

    /// From now on the client is gone, and nobody says so.
    pub(crate) fn cut(&self) {
        ip(&["-n", &self.client, "addr", "flush", "dev", "wire"]);
    }

    /// Connections that the server's kernel believes in.
    pub(crate) fn connections(&self) -> usize {
        self.established().lines().filter(|line| line.contains(CLIENT)).count()
    }

    /// Whether the client has acknowledged all it was sent. Keepalive probes no connection that
    /// waits for an acknowledgement: such a one is sent again what it has not got, up to `retries`.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.established().lines().all(|line| line.split_whitespace().nth(1) == Some("0"))
    }

    /// A line for each: bytes not read, bytes not acknowledged, the ends.
    fn established(&self) -> String {
        ip(&["netns", "exec", &self.server, "ss", "-Htn", "state", "established"])
    }

    /// How often the server's kernel sends again before it gives a connection up; 15 by default,
    /// which is a quarter of an hour.
    pub(crate) fn retries(&self, retries: u32) {
        let write = format!("echo {retries} > /proc/sys/net/ipv4/tcp_retries2");
        ip(&["netns", "exec", &self.server, "sh", "-c", &write]);
    }

    pub(crate) fn in_server<T: Send + 'static>(
        &self,
        run: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        within(&self.server, run)
    }

    pub(crate) fn in_client<T: Send + 'static>(
        &self,
        run: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        within(&self.client, run)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            let deleted = Command::new("ip").args(["netns", "del", namespace]).status();
            if !deleted.is_ok_and(|status| status.success()) && !std::thread::panicking() {
                panic!("{namespace} is still there");
            }
        }
    }
}

/// Runs in a thread of its own, in this namespace.
fn within<T: Send + 'static>(
    namespace: &str,
    run: impl AsyncFnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run())
    })
}

/// What it printed. Without the rights, or without the program, the test fails here.
fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {}: {errors}", args.join(" "));
    String::from_utf8(output.stdout).unwrap()
}
