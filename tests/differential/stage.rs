//! A server that is up, and clients of it.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use http::StatusCode;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    column::Setup,
    common::net::{PATIENCE, Wire, ms, request},
    sdk::{ACCEPT, LEGACY, http, initialize, read, said, tools_call},
    server::Stats,
};

pub(crate) const ALICE: &str = "alice";
pub(crate) const MALLORY: &str = "mallory";

/// More messages than the buffers on the way take.
const MANY: usize = 5000;

/// Killed when dropped.
pub(crate) struct Stage {
    pub(crate) setup: Setup,
    pub(crate) addr: SocketAddr,
    pub(crate) child: Child,
    /// Without it, the server takes itself to be alone, and ends.
    _told: ChildStdin,
    pub(crate) http: Client,
}

impl Stage {
    pub(crate) async fn new(setup: Setup) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--serve", &serde_json::to_string(&setup).unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let told = child.stdin.take().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        timeout(PATIENCE, stdout.read_line(&mut line)).await.unwrap().unwrap();
        Self { setup, addr: line.trim().parse().unwrap(), child, _told: told, http: http() }
    }

    /// The idle timeout, so many times.
    pub(crate) fn idle(&self, times: f64) -> Duration {
        self.setup.idle.mul_f64(times)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn post(&self, who: &str, body: &Value) -> RequestBuilder {
        self.http.post(self.url("/mcp")).header("accept", ACCEPT).bearer_auth(who).json(body)
    }

    pub(crate) fn get(&self, who: &str, id: &str) -> RequestBuilder {
        let get = self.http.get(self.url("/mcp")).header("accept", ACCEPT).bearer_auth(who);
        get.header("mcp-session-id", id)
    }

    pub(crate) fn delete(&self, who: &str, id: &str) -> RequestBuilder {
        self.http.delete(self.url("/mcp")).bearer_auth(who).header("mcp-session-id", id)
    }

    /// Opens a session; `None` if the server refuses.
    pub(crate) async fn initialize(&self, who: &str) -> Option<String> {
        let answer = self.post(who, &initialize(LEGACY)).send().await.unwrap();
        let id = answer.headers().get("mcp-session-id").cloned();
        let (status, _) = read(answer).await;
        id.filter(|_| status == 200).map(|id| id.to_str().unwrap().to_owned())
    }

    /// Opens a session and says `initialized` in it.
    pub(crate) async fn try_open(&self, who: &str) -> Option<String> {
        let id = self.initialize(who).await?;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let request = self.post(who, &initialized).header("mcp-session-id", &id);
        (request.send().await.unwrap().status() == 202).then_some(id)
    }

    pub(crate) async fn open(&self, who: &str) -> String {
        self.try_open(who).await.unwrap()
    }

    /// Calls a tool: the status, and what the tool said. A server that hangs up says nothing.
    pub(crate) async fn call(
        &self,
        who: &str,
        id: &str,
        tool: &str,
        arguments: Value,
    ) -> (StatusCode, String) {
        let request = self.post(who, &tools_call(tool, &arguments)).header("mcp-session-id", id);
        let Ok(answer) = request.send().await else {
            return (StatusCode::BAD_GATEWAY, String::new());
        };
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let last = text.lines().rev().filter_map(|line| line.strip_prefix("data: ")).next();
        let message = serde_json::from_str(last.unwrap_or_default()).unwrap_or(Value::Null);
        (status, said(&message))
    }

    /// Whether a session is there and does something.
    pub(crate) async fn serves(&self, who: &str, id: &str) -> bool {
        let call = self.call(who, id, "echo", json!({ "text": "hi" }));
        let answer = timeout(PATIENCE, call).await;
        answer.is_ok_and(|answer| answer == (StatusCode::OK, "hi".to_owned()))
    }

    /// Its GET stream, being read.
    pub(crate) async fn listen(&self, who: &str, id: &str) -> Listener {
        let stream = self.get(who, id).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        Listener(stream)
    }

    /// A session whose GET stream, or the answer to a call of it, nobody reads, and which the
    /// server floods.
    pub(crate) async fn flood_unread(&self, how: Stalls) -> (String, Wire) {
        let id = self.open(ALICE).await;
        let mut wire = Wire::connect_narrow(self.addr).await;
        let headers = [
            ("Accept", ACCEPT),
            ("Content-Type", "application/json"),
            ("Authorization", "Bearer alice"),
            ("Mcp-Session-Id", id.as_str()),
        ];
        let flood = json!({ "n": MANY, "bytes": 65_536 });
        match how {
            Stalls::Get => {
                wire.send(request("GET", "/mcp", &headers, b"")).await;
                assert_eq!(wire.head().await.unwrap().status, 200);
                self.call(ALICE, &id, "spam", flood).await;
            }
            Stalls::Post => {
                let call = tools_call("flood", &flood).to_string();
                wire.send(request("POST", "/mcp", &headers, call.as_bytes())).await;
            }
        }
        (id, wire)
    }

    /// As [`flood_unread`](Self::flood_unread), until it is full: nothing moves, and rmcp's worker
    /// answers nobody in this session, while the server answers others again and again.
    pub(crate) async fn stall(&self, how: Stalls) -> (String, Wire) {
        let before = self.stats().await.sent;
        let (id, wire) = self.flood_unread(how).await;
        let is_still = async || {
            let sent = self.stats().await.sent;
            assert!(sent - before < MANY, "the buffers swallowed all of it");
            for _ in 0..20 {
                sleep(ms(50)).await;
                if self.stats().await.sent != sent {
                    return false;
                }
            }
            sent > before
        };
        loop {
            tokio::select! {
                is_still = is_still() => if is_still {
                    return (id, wire);
                },
                _ = self.serves(ALICE, &id) => sleep(ms(100)).await,
            }
        }
    }

    pub(crate) async fn stats(&self) -> Stats {
        let answer = timeout(3 * PATIENCE, self.http.get(self.url("/stats")).send()).await;
        answer.unwrap().unwrap().json().await.unwrap()
    }

    pub(crate) async fn stop(&self) {
        self.http.post(self.url("/stop")).send().await.unwrap();
    }

    /// How long it takes until no more than this is left of any session.
    pub(crate) async fn until_left(&self, left: usize, within: Duration) -> Option<Duration> {
        let begin = Instant::now();
        loop {
            if self.stats().await.left() <= left {
                return Some(begin.elapsed());
            }
            if begin.elapsed() > within {
                return None;
            }
            sleep(ms(10)).await;
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Stalls {
    Get,
    Post,
}

pub(crate) struct Listener(Response);

impl Listener {
    /// Whether this comes before the stream ends.
    pub(crate) async fn hears(&mut self, what: &str, within: Duration) -> bool {
        let mut heard = Vec::new();
        let hear = async {
            while let Ok(Some(chunk)) = self.0.chunk().await {
                heard.extend(chunk);
                if heard.windows(what.len()).any(|part| part == what.as_bytes()) {
                    return true;
                }
            }
            false
        };
        timeout(within, hear).await.unwrap_or(false)
    }

    /// Whether it is open for all of this time.
    pub(crate) async fn stays(&mut self, time: Duration) -> bool {
        timeout(time, async { while let Ok(Some(_)) = self.0.chunk().await {} }).await.is_err()
    }

    /// Whether it comes to a clean end.
    pub(crate) async fn ends(&mut self, within: Duration) -> bool {
        let end = async {
            loop {
                match self.0.chunk().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
        };
        timeout(within, end).await.unwrap_or(false)
    }
}
