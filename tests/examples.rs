//! The example programs as what they are: processes on the loopback, told what to do by flags and
//! signals, and asked over TCP.
//!
//! `cargo test` builds them along with this file; they are looked for next to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/trace.rs"]
mod trace;

use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, Method, StatusCode};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// More than any answer takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const LOST: &str = r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}"#;
const ACCEPT: &str = "application/json, text/event-stream";
/// The flags of the layer, which every server has.
const FLAGS: [&str; 7] = [
    "--addr",
    "--idle-timeout",
    "--unused-timeout",
    "--max-lifetime",
    "--max-sessions",
    "--heartbeat",
    "--stream-lifetime",
];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

// --- programs ------------------------------------------------------------------------------------

/// A server that is running; killed when dropped.
struct Program {
    child: Child,
    addr: SocketAddr,
    http: Client,
    log: Arc<Mutex<String>>,
}

/// Where cargo puts an example: this test is `target/PROFILE/deps/examples-HASH`.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let path = test.parent().unwrap().with_file_name("examples").join(file);
    assert!(path.exists(), "{} is not there: run `cargo build --examples`", path.display());
    path
}

/// As it logs by itself, or all that the layer has to say if that is kept.
fn log_for(command: &mut Command) {
    command.env_remove("RUST_LOG");
    if trace::directory().is_some() {
        command.env("RUST_LOG", "info,rmcp=warn,mcp_session_layer=trace");
    }
}

/// With connections of its own.
fn http_client() -> Client {
    let client = Client::builder().no_proxy().tcp_nodelay(true).timeout(2 * PATIENCE);
    client.build().unwrap()
}

/// A program that is to end by itself.
async fn run(name: &str, args: &[&str]) -> Output {
    let mut command = Command::new(binary(name));
    log_for(&mut command);
    command.args(args).kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.unwrap().unwrap()
}

impl Program {
    async fn start(name: &str, args: &[&str]) -> Self {
        let (program, log) = Self::try_start(name, args).await;
        program.unwrap_or_else(|| panic!("{name} did not start: {}", log.lock().unwrap()))
    }

    /// `None` if it ends instead of listening; and what it writes to stderr.
    async fn try_start(name: &str, args: &[&str]) -> (Option<Self>, Arc<Mutex<String>>) {
        let mut command = Command::new(binary(name));
        log_for(&mut command);
        let mut child = command
            .args(["--addr", "127.0.0.1:0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                trace::emitted(format!("{line}\n").as_bytes());
                let mut log = lines.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut first = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        timeout(PATIENCE, stdout.read_line(&mut first)).await.unwrap().unwrap();
        let addr = first.trim().strip_prefix("listening on http://");
        let addr = addr.and_then(|rest| rest.strip_suffix("/mcp"));
        let program = addr.map(|addr| Self {
            child,
            addr: addr.parse().unwrap(),
            http: http_client(),
            log: Arc::clone(&log),
        });
        (program, log)
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.addr))
    }

    fn mcp(&self, method: Method) -> RequestBuilder {
        self.ask(method, "/mcp").header("accept", ACCEPT)
    }

    fn initialize(&self) -> RequestBuilder {
        self.mcp(Method::POST).json(&initialize())
    }

    /// A JSON-RPC message in a session.
    fn post(&self, id: &str, message: &Value) -> RequestBuilder {
        self.mcp(Method::POST).header("mcp-session-id", id).json(message)
    }

    fn ping(&self, id: &str) -> RequestBuilder {
        self.post(id, &json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}))
    }

    fn tool(&self, id: &str, name: &str, arguments: &Value) -> RequestBuilder {
        let params = json!({"name": name, "arguments": arguments});
        self.post(id, &json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params}))
    }

    /// Opens a session the way a client does, and returns its id.
    async fn open(&self) -> String {
        self.open_as(|request| request).await
    }

    async fn open_as(&self, dress: impl Fn(RequestBuilder) -> RequestBuilder) -> String {
        let answer = reply(dress(self.initialize())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.message()["result"]["protocolVersion"], "2025-11-25");
        let id = answer.headers["mcp-session-id"].to_str().unwrap().to_owned();
        trace::secret(&id);
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(reply(dress(self.post(&id, &initialized))).await.status, 202);
        id
    }

    /// Calls a tool and returns the text it answers.
    async fn call(&self, id: &str, name: &str, arguments: Value) -> String {
        reply(self.tool(id, name, &arguments)).await.tool_text()
    }

    /// Opens the GET stream of a session.
    async fn listen(&self, id: &str) -> Response {
        let stream = self.mcp(Method::GET).header("mcp-session-id", id).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        stream
    }

    async fn stats(&self) -> Value {
        let answer = reply(self.ask(Method::GET, "/stats")).await;
        assert_eq!(answer.status, 200);
        answer.message()
    }

    /// Waits until a figure in `/stats` (`/closed/idle`, say) is this.
    #[track_caller]
    fn stat(&self, pointer: &str, is: u64, within: Duration) -> impl Future<Output = ()> {
        let so = self.stats_where(format!("{pointer} is {is}"), within, move |stats| {
            stats.pointer(pointer) == Some(&json!(is))
        });
        async {
            so.await;
        }
    }

    /// Waits until neither the layer nor rmcp keeps anything.
    #[track_caller]
    fn empty(&self, within: Duration) -> impl Future<Output = Value> {
        self.stats_where("nothing is kept".to_owned(), within, |stats| {
            kept(stats) == [0, 0, 0] && stats["closing"] == 0
        })
    }

    #[track_caller]
    fn stats_where(
        &self,
        what: String,
        within: Duration,
        is_so: impl Fn(&Value) -> bool,
    ) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        let deadline = Instant::now() + within;
        async move {
            loop {
                let stats = self.stats().await;
                if is_so(&stats) {
                    return stats;
                }
                assert!(
                    Instant::now() < deadline,
                    "{caller}: not within {within:?}: {what}: {stats}"
                );
                sleep(ms(20)).await;
            }
        }
    }

    /// Waits until the log, which comes by a pipe, says this.
    async fn logs(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(what) {
            assert!(Instant::now() < deadline, "{what:?} is not in the log: {}", self.log());
            sleep(ms(20)).await;
        }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().await.unwrap();
        assert!(sent.success());
    }
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
    /// The JSON-RPC message in it: the body, or the data of its last event.
    #[track_caller]
    fn message(&self) -> Value {
        let mut data =
            self.text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
        let json = data.rfind(|data| !data.is_empty()).unwrap_or(&self.text);
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn tool_text(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        let message = self.message();
        let text = message["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("no text in {message}")).to_owned()
    }

    #[track_caller]
    fn assert_lost(&self) {
        assert_eq!((self.status.as_u16(), self.text.as_str()), (404, LOST));
        assert_eq!(self.headers["content-type"], "application/json");
        assert!(!self.headers.contains_key("mcp-session-id"));
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

/// `live`, `inner` and `handlers`.
fn kept(stats: &Value) -> [u64; 3] {
    ["live", "inner", "handlers"].map(|key| stats[key].as_u64().unwrap())
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Reads a stream until the server ends it.
async fn to_the_end(stream: &mut Response) -> String {
    let mut read = Vec::new();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        read.extend(chunk);
    }
    String::from_utf8(read).unwrap()
}

// --- all of them ---------------------------------------------------------------------------------

#[tokio::test]
async fn every_program_answers_help_and_lists_its_flags() {
    let own: [(&str, &[&str], bool); 5] = [
        ("quickstart", &["--idle-timeout"], false),
        ("rmcp_server", &["--bearer-principal", "--allowed-host"], true),
        ("axum_handler", &["--bearer-principal", "--notify-every"], true),
        (
            "reverse_proxy",
            &[
                "--bearer-principal",
                "--upstream",
                "--upstream-header",
                "--allowed-host",
                "--allowed-origin",
                "--cors-origin",
                "--stateless",
            ],
            true,
        ),
        ("production", &["--ops-addr", "--user", "--allow-origin", "--allowed-host"], true),
    ];
    for (name, own, serves) in own {
        let output = run(name, &["--help"]).await;
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        let listed: BTreeSet<&str> =
            help.lines().filter_map(|line| line.split_whitespace().next()).collect();
        let shared: &[&str] = if serves { &FLAGS } else { &[] };
        for flag in own.iter().chain(shared) {
            assert!(listed.contains(flag), "{name} does not list {flag}:\n{help}");
        }
    }
}

#[tokio::test]
async fn no_program_starts_with_a_setting_that_makes_no_sense() {
    let cases: &[(&str, &[&str])] = &[
        ("quickstart", &["--idle-timeout", "0s"]),
        ("quickstart", &["--idle-timeout", "soon"]),
        ("rmcp_server", &["--addr", "127.0.0.1:0", "--idle-timeout", "0s"]),
        ("rmcp_server", &["--addr", "127.0.0.1:0", "--max-lifetime", "0s"]),
        ("rmcp_server", &["--addr", "127.0.0.1:0", "--max-sessions", "0"]),
        ("axum_handler", &["--addr", "nowhere"]),
        ("reverse_proxy", &["--addr", "127.0.0.1:0"]),
        ("reverse_proxy", &["--addr", "127.0.0.1:0", "--upstream", "https://127.0.0.1:9"]),
        ("production", &["--addr", "127.0.0.1:0", "--user", "alice"]),
    ];
    for (name, args) in cases {
        let output = run(name, args).await;
        let code = output.status.code();
        assert!(code.is_some_and(|code| code != 0), "{name} {args:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{name} {args:?} does not say why");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("listening"), "{name} {args:?} listened: {said}");
    }
}

// --- rmcp_server ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_long_call_and_an_open_stream_outlive_the_idle_timeout_and_silence_does_not() {
    let server = Program::start("rmcp_server", &["--idle-timeout", "2s"]).await;
    let [calls, listens, idles] = [server.open().await, server.open().await, server.open().await];
    assert_eq!(server.call(&calls, "echo", json!({"text": "hello"})).await, "hello");
    let stream = server.listen(&listens).await;
    server.stat("/streams", 1, PATIENCE).await;
    let stats = server.stats().await;
    assert_eq!((kept(&stats), &stats["in_flight"]), ([3; 3], &json!(1)), "{stats}");

    let silent = server.stat("/closed/idle", 1, ms(4_000));
    let called = server.call(&calls, "sleep", json!({"seconds": 3}));
    let (slept, ()) = tokio::join!(called, silent);
    assert_eq!(slept, "slept 3 s");

    reply(server.ping(&idles)).await.assert_lost();
    assert_eq!(reply(server.ping(&calls)).await.status, 200);
    assert_eq!(reply(server.ping(&listens)).await.status, 200, "an open stream holds its session");

    drop(stream);
    let stats = server.empty(PATIENCE).await;
    assert_eq!((&stats["opened"], &stats["closed"]["idle"]), (&json!(3), &json!(3)), "{stats}");
    assert_eq!((&stats["in_flight"], &stats["streams"]), (&json!(0), &json!(0)), "{stats}");
    for id in [calls, listens, idles] {
        reply(server.ping(&id)).await.assert_lost();
        assert!(!server.log().contains(&id), "an id is in the log: {}", server.log());
    }
}

#[tokio::test]
async fn stats_name_what_the_layer_and_what_rmcp_keep() {
    let server = Program::start("rmcp_server", &[]).await;
    let stats = server.stats().await;
    let expected = "live inner handlers opening closing opened closed rejected in_flight streams \
                    terminate_failures retrying unended";
    assert_eq!(keys(&stats), expected.split_whitespace().collect());
    let reasons = "idle unused lifetime client inner evicted abandoned requested shutdown";
    assert_eq!(keys(&stats["closed"]), reasons.split_whitespace().collect());
}

#[cfg(unix)]
#[tokio::test]
async fn clients_that_hang_up_during_initialize_leave_nothing_behind() {
    let server = Program::start("rmcp_server", &["--unused-timeout", "5s"]).await;
    let body = initialize().to_string();
    let headers = [("Content-Type", "application/json"), ("Accept", ACCEPT)];
    let bytes = request("POST", &headers, &body);
    // The server is halted meanwhile: a client that is kept from hanging up until it has its answer
    // has a session, and the scheduler may do that to one of 300. Few at a time, and the next when
    // these were accepted: with the backlog full, a halted server would have us wait for ever.
    for _ in 0..6 {
        server.signal("-STOP").await;
        for _ in 0..50 {
            let mut stream = std::net::TcpStream::connect(server.addr).unwrap();
            stream.write_all(bytes.as_bytes()).unwrap();
        }
        server.signal("-CONT").await;
        // On a connection of its own, behind all of them.
        let behind = http_client().get(format!("http://{}/health", server.addr));
        assert_eq!(reply(behind).await.status, 200);
    }
    // Not `empty`: it may be so before the server has seen all of them.
    sleep(ms(2_000)).await;
    let stats = server.stats().await;
    assert_eq!((&stats["opening"], &stats["closing"]), (&json!(0), &json!(0)), "{stats}");
    // Nobody is held back before the first hang-up is seen: of those that come before it, an answer may overtake its
    // client's hang-up, and that session goes when it was unused for too long.
    let missed = stats["live"].as_u64().unwrap();
    assert!(missed <= 8, "{stats}");
    let abandoned = stats["closed"]["abandoned"].as_u64().unwrap();
    assert_eq!(stats["opened"].as_u64().unwrap(), abandoned + missed, "{stats}");
    server.empty(PATIENCE).await;
    assert_ne!(stats["opened"], 0, "some got as far as rmcp");
    let id = server.open().await;
    assert_eq!(server.call(&id, "count", json!({})).await, "1");
    assert_eq!(kept(&server.stats().await), [1, 1, 1]);
}

/// An HTTP/1.1 request for `/mcp`.
fn request(method: &str, headers: &[(&str, &str)], body: &str) -> String {
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers: String = headers.collect();
    let length = body.len();
    format!(
        "{method} /mcp HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// A session whose client has its GET stream open, reads nothing, and is sent more than fits.
async fn flooded(server: &Program) -> (String, TcpStream) {
    let id = server.open().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let mut unread = socket.connect(server.addr).await.unwrap();
    let headers = [("Accept", "text/event-stream"), ("Mcp-Session-Id", &id)];
    unread.write_all(request("GET", &headers, "").as_bytes()).await.unwrap();
    server.stat("/streams", 1, PATIENCE).await;
    server.call(&id, "spam", json!({"n": 1_000, "bytes": 100_000})).await;
    (id, unread)
}

#[tokio::test]
async fn a_client_that_stopped_reading_does_not_outlive_its_delete() {
    let server = Program::start("rmcp_server", &[]).await;
    let (id, unread) = flooded(&server).await;
    // Let the buffers on the way fill up.
    sleep(ms(500)).await;
    assert_eq!(kept(&server.stats().await), [1, 1, 1]);
    let deleted = reply(server.mcp(Method::DELETE).header("mcp-session-id", &id)).await;
    assert!(deleted.status.is_success(), "{deleted:?}");
    let stats = server.empty(ms(5_000)).await;
    assert_eq!(stats["closed"]["client"], 1, "{stats}");
    reply(server.ping(&id)).await.assert_lost();
    drop(unread);
}

#[tokio::test]
async fn a_client_that_stopped_reading_does_not_outlive_the_max_lifetime() {
    let server = Program::start("rmcp_server", &["--max-lifetime", "2s"]).await;
    let (id, unread) = flooded(&server).await;
    assert_eq!(kept(&server.stats().await), [1, 1, 1]);
    // Two seconds to the limit, and five from there.
    let stats = server.empty(ms(7_000)).await;
    assert_eq!(stats["closed"]["lifetime"], 1, "{stats}");
    reply(server.ping(&id)).await.assert_lost();
    drop(unread);
}

#[tokio::test]
async fn health_answers_anything_and_never_speaks_of_sessions() {
    let server = Program::start("rmcp_server", &[]).await;
    let live = server.open().await;
    let bodies = [
        Vec::new(),
        initialize().to_string().into_bytes(),
        br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_vec(),
        b"\x00\xff{ not json".to_vec(),
    ];
    let ids = [None, Some(live.as_str()), Some("no-such-session"), Some(""), Some("\u{e9}, x")];
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"];
    for method in methods {
        for (body, id) in bodies.iter().flat_map(|body| ids.map(|id| (body, id))) {
            let request = server.ask(method.parse().unwrap(), "/health");
            let request = request.header("content-type", "application/json").body(body.clone());
            let request = match id {
                Some(id) => request.header("mcp-session-id", id.as_bytes()),
                None => request,
            };
            let answer = reply(request).await;
            assert_eq!(answer.status, 200, "{method} {id:?}: {answer:?}");
            assert_eq!(answer.text, if method == "HEAD" { "" } else { "ok" }, "{method} {id:?}");
            assert!(!answer.headers.contains_key("mcp-session-id"), "{method} {id:?}: {answer:?}");
        }
    }
    let stats = server.stats().await;
    assert_eq!(kept(&stats), [1, 1, 1], "{stats}");
    assert_eq!((&stats["opened"], &stats["rejected"]), (&json!(1), &json!(0)), "{stats}");
    assert_eq!(reply(server.ping(&live)).await.status, 200);
}

#[tokio::test]
async fn with_bearer_principal_a_session_serves_its_owner_only() {
    let server = Program::start("rmcp_server", &["--bearer-principal"]).await;
    let nobody = reply(server.initialize()).await;
    assert_eq!(nobody.status, 403, "{nobody:?}");
    assert!(!nobody.headers.contains_key("mcp-session-id"));
    assert_eq!(kept(&server.stats().await), [0, 0, 0]);

    let alice = |request: RequestBuilder| request.header("authorization", "Bearer alice");
    let bob = |request: RequestBuilder| request.header("authorization", "Bearer bob");
    let id = server.open_as(alice).await;
    let listens = || server.mcp(Method::GET).header("mcp-session-id", &id);
    let deletes = || server.mcp(Method::DELETE).header("mcp-session-id", &id);
    reply(bob(server.ping(&id))).await.assert_lost();
    reply(bob(listens())).await.assert_lost();
    reply(bob(deletes())).await.assert_lost();
    reply(server.ping(&id)).await.assert_lost();
    let owned = reply(alice(server.tool(&id, "echo", &json!({"text": "mine"})))).await;
    assert_eq!(owned.tool_text(), "mine");
    assert!(reply(alice(deletes())).await.status.is_success());
    reply(alice(server.ping(&id))).await.assert_lost();
    server.empty(PATIENCE).await;
}

#[tokio::test]
async fn count_counts_in_each_session_by_itself() {
    let server = Program::start("rmcp_server", &[]).await;
    let [a, b] = [server.open().await, server.open().await];
    let mut counts = Vec::new();
    for id in [&a, &a, &b, &a, &b] {
        counts.push(server.call(id, "count", json!({})).await);
    }
    assert_eq!(counts, ["1", "2", "1", "3", "2"]);
}

#[cfg(unix)]
#[tokio::test]
async fn sigterm_ends_streams_spares_the_call_in_flight_and_exits_with_0() {
    let mut server = Program::start("rmcp_server", &[]).await;
    let id = server.open().await;
    let mut stream = server.listen(&id).await;
    let called = tokio::spawn(reply(server.tool(&id, "sleep", &json!({"seconds": 2}))));
    server.stat("/in_flight", 2, PATIENCE).await;

    server.signal("-TERM").await;
    let deadline = Instant::now() + Duration::from_secs(10);
    timeout(ms(1_500), to_the_end(&mut stream)).await.unwrap();
    assert!(!called.is_finished(), "streams end before the calls do");
    let late = reply(server.initialize()).await;
    assert_eq!(late.status, 503, "no new session while draining: {late:?}");
    assert_eq!(called.await.unwrap().tool_text(), "slept 2 s");
    let exit = tokio::time::timeout_at(deadline, server.child.wait()).await;
    assert_eq!(exit.unwrap().unwrap().code(), Some(0), "{}", server.log());
    assert!(!server.log().contains(&id), "an id is in the log: {}", server.log());
}

// --- reverse_proxy -------------------------------------------------------------------------------

async fn proxy(upstream: &Program, args: &[&str]) -> Program {
    let upstream = format!("http://{}", upstream.addr);
    Program::start("reverse_proxy", &[&["--upstream", upstream.as_str()], args].concat()).await
}

#[tokio::test]
async fn the_proxy_ends_idle_sessions_of_a_server_that_would_keep_them() {
    let upstream = Program::start("rmcp_server", &["--idle-timeout", "10m"]).await;
    let proxy = proxy(&upstream, &["--idle-timeout", "1s"]).await;
    let id = proxy.open().await;
    assert_eq!(proxy.call(&id, "echo", json!({"text": "through"})).await, "through");
    assert_eq!(proxy.call(&id, "sleep", json!({"seconds": 2.5})).await, "slept 2.5 s");
    assert_eq!(proxy.call(&id, "count", json!({})).await, "1");
    assert_eq!(kept(&upstream.stats().await), [1, 1, 1]);

    proxy.stat("/closed/idle", 1, ms(4_000)).await;
    reply(proxy.ping(&id)).await.assert_lost();
    let stats = upstream.empty(PATIENCE).await;
    assert_eq!(stats["closed"]["client"], 1, "{stats}");
    reply(upstream.ping(&id)).await.assert_lost();
    let stats = proxy.stats().await;
    assert_eq!((&stats["live"], &stats["terminate_failures"]), (&json!(0), &json!(0)), "{stats}");
}

#[tokio::test]
async fn the_proxy_answers_health_and_stats_by_itself() {
    let upstream = Program::start("rmcp_server", &[]).await;
    let proxy = proxy(&upstream, &[]).await;
    drop(upstream);
    let health = reply(proxy.ask(Method::GET, "/health")).await;
    assert_eq!((health.status.as_u16(), health.text.as_str()), (200, "ok"));
    let stats = proxy.stats().await;
    for key in ["live", "opened", "closed", "in_flight", "streams"] {
        assert!(stats.get(key).is_some(), "no {key}: {stats}");
    }
    for key in ["inner", "handlers"] {
        assert!(stats.get(key).is_none(), "the proxy cannot know {key}: {stats}");
    }
}

#[tokio::test]
async fn the_proxy_answers_502_while_its_upstream_is_down() {
    let mut upstream = Program::start("rmcp_server", &[]).await;
    let proxy = proxy(&upstream, &[]).await;
    let id = proxy.open().await;
    upstream.child.kill().await.unwrap();
    assert_eq!(reply(proxy.ping(&id)).await.status, 502);
    let refused = reply(proxy.initialize()).await;
    assert_eq!(refused.status, 502, "{refused:?}");
    assert!(!refused.headers.contains_key("mcp-session-id"));
    let stats = proxy.stats().await;
    assert_eq!((&stats["opened"], &stats["opening"]), (&json!(1), &json!(0)), "{stats}");
}

// --- axum_handler --------------------------------------------------------------------------------

#[tokio::test]
async fn the_handler_by_hand_has_ids_state_and_delete_from_the_layer() {
    let server = Program::start("axum_handler", &["--notify-every", "50ms"]).await;
    let [a, b] = [server.open().await, server.open().await];
    for id in [&a, &b] {
        let uuid = uuid::Uuid::parse_str(id).unwrap();
        assert_eq!(uuid.get_version_num(), 4);
    }
    let mut counts = Vec::new();
    for id in [&a, &a, &b, &a, &b] {
        counts.push(server.call(id, "count", json!({})).await);
    }
    assert_eq!(counts, ["1", "2", "1", "3", "2"]);
    reply(server.ping(&uuid::Uuid::new_v4().to_string())).await.assert_lost();

    let mut stream = server.listen(&a).await;
    let event = timeout(PATIENCE, stream.chunk()).await.unwrap().unwrap().unwrap();
    assert!(event.starts_with(b"data: "), "{event:?}");
    let deleted = reply(server.mcp(Method::DELETE).header("mcp-session-id", &a)).await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    timeout(PATIENCE, to_the_end(&mut stream)).await.unwrap();
    reply(server.ping(&a)).await.assert_lost();
    reply(server.mcp(Method::DELETE).header("mcp-session-id", &a)).await.assert_lost();
    assert_eq!(server.call(&b, "count", json!({})).await, "3");

    let stats = server.stats().await;
    assert_eq!((&stats["live"], &stats["closed"]["client"]), (&json!(1), &json!(1)), "{stats}");
    assert!(stats.get("inner").is_none() && stats.get("handlers").is_none(), "{stats}");
    // The state of the session was dropped with it.
    server.logs("calls=3").await;
    assert!(!server.log().contains(&a), "an id is in the log: {}", server.log());
}

// --- production ----------------------------------------------------------------------------------

const PAGE: &str = "https://page.example";

/// It and the operator's address. It does not say which port it took for that, so we choose one
/// that is free, and another if somebody else was faster.
async fn production() -> (Program, SocketAddr) {
    for _ in 0..5 {
        let ops = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let args = ["--ops-addr", &ops.to_string(), "--allow-origin", PAGE];
        if let (Some(program), _) = Program::try_start("production", &args).await {
            return (program, ops);
        }
    }
    panic!("production never started");
}

/// Whether a header is a list that names this.
fn names(answer: &Reply, header: &str, name: &str) -> bool {
    let value = answer.headers.get(header).map(|value| value.to_str().unwrap());
    value.is_some_and(|list| list.split(',').any(|each| each.trim().eq_ignore_ascii_case(name)))
}

#[tokio::test]
async fn in_production_only_users_get_in_and_each_sees_its_own_sessions() {
    let (server, ops) = production().await;
    let nobody = reply(server.initialize()).await;
    assert_eq!(nobody.status, 401);
    assert_eq!(nobody.headers["www-authenticate"], "Bearer");
    assert_eq!(reply(server.initialize().bearer_auth("guess")).await.status, 401);

    let alice = |request: RequestBuilder| request.bearer_auth("alices-token");
    let bob = |request: RequestBuilder| request.bearer_auth("bobs-token");
    let id = server.open_as(alice).await;
    let owned = reply(alice(server.tool(&id, "count", &json!({})))).await;
    assert_eq!(owned.tool_text(), "1");
    reply(bob(server.ping(&id))).await.assert_lost();
    assert_eq!(reply(server.ping(&id)).await.status, 401);

    let operator = |path| server.http.get(format!("http://{ops}{path}"));
    let health = reply(operator("/health")).await;
    assert_eq!((health.status.as_u16(), health.text.as_str()), (200, "ok"));
    assert_eq!(kept(&reply(operator("/stats")).await.message()), [1, 1, 1]);
    for path in ["/health", "/stats"] {
        let public = reply(alice(server.ask(Method::GET, path))).await;
        assert_eq!(public.status, 404, "{path} is kept from the public: {public:?}");
    }
    server.logs("session opened").await;
    for secret in [id.as_str(), "alices-token"] {
        assert!(!server.log().contains(secret), "a secret is in the log: {}", server.log());
    }
}

#[tokio::test]
async fn in_production_a_page_of_an_allowed_origin_can_use_sessions_and_no_other() {
    let (server, _) = production().await;
    let preflight = |origin| {
        let request = server.ask(Method::OPTIONS, "/mcp").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization,mcp-session-id")
    };
    let allowed = reply(preflight(PAGE)).await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert_eq!(allowed.headers["access-control-allow-origin"], PAGE);
    for name in ["authorization", "content-type", "mcp-session-id", "mcp-protocol-version"] {
        assert!(names(&allowed, "access-control-allow-headers", name), "{name}: {allowed:?}");
    }
    for name in ["GET", "POST", "DELETE"] {
        assert!(names(&allowed, "access-control-allow-methods", name), "{name}: {allowed:?}");
    }

    let page = |request: RequestBuilder| request.header("origin", PAGE);
    let opened = reply(page(server.initialize().bearer_auth("alices-token"))).await;
    let refused = reply(page(server.initialize())).await;
    let lost = reply(page(server.ping("gone").bearer_auth("alices-token"))).await;
    let answers = [(opened, 200), (refused, 401), (lost, 404)];
    for (answer, status) in &answers {
        assert_eq!(answer.status, *status, "{answer:?}");
        assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
        assert!(names(answer, "access-control-expose-headers", "mcp-session-id"), "{answer:?}");
    }
    assert!(answers[0].0.headers.contains_key("mcp-session-id"));

    let other = reply(preflight("https://evil.example")).await;
    assert!(!other.headers.contains_key("access-control-allow-origin"), "{other:?}");
}
