//! The example `reverse_proxy` as what it is: a process, between clients of every kind and an upstream
//! that records what it was asked.
//!
//! `cargo test` builds it along with this file; it is looked for next to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/trace.rs"]
mod trace;

mod bodies;
mod cors;
mod failures;
mod guard;
mod headers;
mod redirects;
mod sessions;
mod upstream;
mod upstream_header;

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, Method, Request, StatusCode};
use hyper_util::{
    client::legacy::{self, ResponseFuture, connect::HttpConnector},
    rt::TokioExecutor,
};
use reqwest::{Client, RequestBuilder, redirect::Policy};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tower::service_fn;
use upstream::Upstream;

/// More than any answer takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program, running; killed when dropped.
struct Proxy {
    addr: SocketAddr,
    http: Client,
    log: Arc<Mutex<String>>,
    _child: Child,
}

/// Where cargo puts an example: this test is `target/PROFILE/deps/reverse_proxy-HASH`.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let file = format!("reverse_proxy{}", std::env::consts::EXE_SUFFIX);
    let path = test.parent().unwrap().with_file_name("examples").join(file);
    assert!(path.exists(), "{} is not there: run `cargo build --examples`", path.display());
    path
}

impl Proxy {
    async fn to(upstream: &Upstream, args: &[&str]) -> Self {
        Self::start(&format!("http://{}", upstream.addr), args).await
    }

    async fn start(upstream: &str, args: &[&str]) -> Self {
        Self::at("127.0.0.1:0", upstream, args).await
    }

    async fn at(addr: &str, upstream: &str, args: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["--addr", addr, "--upstream", upstream]).args(args);
        command.env("RUST_LOG", "trace");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                trace::emitted(format!("{line}\n").as_bytes());
                *lines.lock().unwrap() += &format!("{line}\n");
            }
        });
        let mut first = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        timeout(PATIENCE, stdout.read_line(&mut first)).await.unwrap().unwrap();
        let addr = first.trim().strip_prefix("listening on http://");
        let addr = addr.and_then(|rest| rest.strip_suffix("/mcp"));
        let addr = addr.unwrap_or_else(|| panic!("not started: {}", log.lock().unwrap()));
        let addr = addr.parse().unwrap();
        let http = Client::builder().no_proxy().redirect(Policy::none()).timeout(2 * PATIENCE);
        Self { addr, http: http.build().unwrap(), log, _child: child }
    }

    /// How it ends where it is not to start: its code, and what it says.
    async fn refused(args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(binary());
        command.args(["--addr", "127.0.0.1:0"]).args(args);
        if !args.contains(&"--upstream") {
            command.args(["--upstream", "http://127.0.0.1:9"]);
        }
        let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await.unwrap().unwrap();
        assert!(output.stdout.is_empty(), "{args:?} was accepted");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", self.addr));
        request.header("accept", "application/json, text/event-stream")
    }

    fn initialize(&self) -> RequestBuilder {
        self.ask(Method::POST, "/mcp").json(&initialize())
    }

    fn ping(&self, id: &str) -> RequestBuilder {
        let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"});
        self.ask(Method::POST, "/mcp").header("mcp-session-id", id).json(&ping)
    }

    async fn open(&self) -> String {
        let reply = reply(self.initialize()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.header("mcp-session-id").unwrap()
    }

    /// Sends a request head and body as they stand here, and reads all that comes back.
    async fn raw(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// A client that speaks HTTP/2 to the proxy, whatever host it asks for.
    fn http_2(&self) -> impl Fn(Request<String>) -> ResponseFuture {
        let addr = self.addr;
        let here =
            service_fn(move |_| async move { Ok::<_, std::io::Error>(std::iter::once(addr)) });
        let client = legacy::Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build(HttpConnector::new_with_resolver(here));
        move |request| client.request(request)
    }

    async fn stats(&self) -> Value {
        reply(self.ask(Method::GET, "/stats")).await.json()
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

fn initialize() -> Value {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "tester", "version": "1.0"},
        },
    })
}

/// An answer that was read to its end.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

async fn reply(request: RequestBuilder) -> Reply {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    Reply { status, headers, text: answer.text().await.unwrap() }
}

impl Reply {
    fn header(&self, name: &str) -> Option<String> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(values.next(), None, "{name} comes twice: {self:?}");
        value
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
