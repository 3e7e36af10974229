//! The attacker: one principal with a good token, who floods `initialize`, sends 5,000 bodies a byte
//! at a time, and every header and body that somebody may have forgotten to think of.
//!
//! Told on the standard input when to `attack` and when to `stop`, it then says what it has done.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::load::{
    Dice,
    http::{Http, initialize, long_initialize, read},
    ms,
};

/// What one second of the attack is made of.
pub const INITIALIZES: u64 = 200;
pub const LONG_INITIALIZES: u64 = 20;
pub const BAD: u64 = 300;
pub const SLOW: usize = 5_000;
/// Between two bytes of a slow body: 2,500 bytes a second in all.
const DRIBBLE: Duration = ms(2_000);
/// Slow bodies that connect in a second: faster, and the accepting is what is attacked.
const CONNECTS: u64 = 2_500;
/// How long an answer is waited for.
const PATIENCE: Duration = ms(3_000);
/// Who it is.
const BEARER: &str = "Bearer mallory";

/// What was done, and what it was answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Slow bodies on the way at the end.
    pub slow: usize,
    /// Slow bodies that the server ended.
    pub ended: usize,
    /// Answers, by what was sent and their status.
    pub answers: BTreeMap<String, BTreeMap<u16, usize>>,
}

impl Done {
    pub fn answers(&self) -> usize {
        self.answers.values().flat_map(BTreeMap::values).sum()
    }
}

#[derive(Clone)]
struct Attack {
    addr: SocketAddr,
    http: Http,
    stop: CancellationToken,
    done: Arc<Mutex<Done>>,
}

pub async fn run(addr: SocketAddr) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut attack: Option<(Attack, tokio::task::JoinHandle<()>)> = None;
    while let Ok(Some(line)) = lines.next_line().await {
        match line.as_str() {
            "attack" => {
                let (stop, done) = (CancellationToken::new(), Arc::default());
                let next = Attack { addr, http: Http::new(addr), stop, done };
                attack = Some((next.clone(), tokio::spawn(next.run())));
            }
            "stop" => {
                let (attack, task) = attack.take().unwrap();
                attack.stop.cancel();
                task.await.unwrap();
                let done = attack.done.lock().unwrap().clone();
                println!("{}", serde_json::to_string(&done).unwrap());
            }
            _ => return,
        }
    }
}

impl Attack {
    async fn run(self) {
        tokio::join!(self.flood(), self.malform(), self.dribble());
    }

    fn note(&self, what: &str, status: u16) {
        let mut done = self.done.lock().unwrap();
        *done.answers.entry(what.to_owned()).or_default().entry(status).or_default() += 1;
    }

    /// Calls `act` so many times a second, without waiting for what comes of it.
    async fn pace<F>(&self, rate: u64, mut act: impl FnMut(u64) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut ticks = interval(Duration::from_secs(1) / rate as u32);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut acts = JoinSet::new();
        for n in 0.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stop.cancelled() => break,
            }
            acts.spawn(act(n));
            while acts.try_join_next().is_some() {}
        }
        acts.abort_all();
    }

    /// Good requests, too many.
    async fn flood(&self) {
        let each = INITIALIZES / LONG_INITIALIZES;
        let (short, long) = (initialize(), long_initialize());
        self.pace(INITIALIZES + LONG_INITIALIZES, |n| {
            let is_long = n.is_multiple_of(each + 1);
            let body = if is_long { long.clone() } else { short.clone() };
            let attack = self.clone();
            async move {
                let mut request = attack.http.request(&Method::POST, None, body);
                request.headers_mut().insert(AUTHORIZATION, BEARER.parse().unwrap());
                let what = if is_long { "long initialize" } else { "initialize" };
                if let Ok(Ok(answer)) = timeout(PATIENCE, attack.http.send(request)).await {
                    attack.note(what, answer.status().as_u16());
                    drop(read(answer).await);
                }
            }
        })
        .await;
    }

    async fn malform(&self) {
        let kinds = Arc::new(bad_requests());
        self.pace(BAD, |n| {
            let (attack, kinds) = (self.clone(), Arc::clone(&kinds));
            async move {
                let (what, bytes) = &kinds[n as usize % kinds.len()];
                let answer = timeout(PATIENCE, exchange(attack.addr, bytes)).await;
                // 0: no answer.
                attack.note(what, answer.ok().flatten().unwrap_or_default());
            }
        })
        .await;
    }

    async fn dribble(&self) {
        let mut ticks = interval(ms(20));
        let mut bodies = JoinSet::new();
        for n in 0..SLOW {
            if (n as u64).is_multiple_of(CONNECTS / 50) {
                ticks.tick().await;
            }
            let attack = self.clone();
            bodies.spawn(async move {
                tokio::select! {
                    ended = attack.dribble_one(n as u64) => {
                        attack.done.lock().unwrap().ended += usize::from(ended.is_none());
                    }
                    () = attack.stop.cancelled() => {}
                }
            });
        }
        while bodies.join_next().await.is_some() {}
    }

    /// Ends when the server does not want any more.
    async fn dribble_one(&self, seed: u64) -> Option<()> {
        let mut stream = TcpStream::connect(self.addr).await.ok()?;
        let mut begin = post(&[], 60_000);
        begin.extend(br#"{"jsonrpc":"2.0","id":1,"#);
        stream.write_all(&begin).await.ok()?;
        self.done.lock().unwrap().slow += 1;
        let mut wait = Dice(seed).between(ms(0), DRIBBLE);
        loop {
            sleep(wait).await;
            wait = DRIBBLE;
            stream.write_all(b" ").await.ok()?;
        }
    }
}

/// The status of the answer.
async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    // The server may have answered and hung up before it has read it all.
    let _ = stream.write_all(bytes).await;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

fn request(method: &str, headers: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Accept: application/json, text/event-stream\r\nAuthorization: {BEARER}\r\n"
    )
    .into_bytes();
    for (name, value) in headers {
        bytes.extend(name.bytes());
        bytes.extend(b": ");
        bytes.extend(*value);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// The head of a POST.
fn post(headers: &[(&str, &[u8])], length: usize) -> Vec<u8> {
    let mut bytes = request("POST", headers);
    let rest = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    bytes.extend(rest.bytes());
    bytes
}

fn post_all(headers: &[(&str, &[u8])], body: &[u8]) -> Vec<u8> {
    let mut bytes = post(headers, body.len());
    bytes.extend(body);
    bytes
}

const ID: &str = "Mcp-Session-Id";

/// What is sent, and by what name; the answers that must come stand in the verdict.
fn bad_requests() -> Vec<(&'static str, Vec<u8>)> {
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let batch = format!("[{}]", vec![std::str::from_utf8(ping).unwrap(); 1_500].join(","));
    let unknown: &[u8] = b"0a0a0a0a-0b0b-0c0c-0d0d-0e0e0e0e0e0e";
    let long = [b'a'; 5_000];
    let initialize = initialize();
    let initialize = std::str::from_utf8(&initialize).unwrap();
    let twice = br#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"initialize"}"#;
    let mut get = request("GET", &[(ID, unknown)]);
    let mut delete = request("DELETE", &[(ID, unknown)]);
    let mut bare_get = request("GET", &[]);
    bare_get.extend(b"\r\n");
    get.extend(b"\r\n");
    delete.extend(b"\r\n");
    vec![
        ("an unknown id", post_all(&[(ID, unknown)], ping)),
        ("GET of an unknown id", get),
        ("DELETE of an unknown id", delete),
        ("an id of 5,000 bytes", post_all(&[(ID, &long)], ping)),
        ("an id of garbage", post_all(&[(ID, b"\xff\xfe\x80 \x7e")], ping)),
        ("an empty id", post_all(&[(ID, b"")], ping)),
        ("two ids", post_all(&[(ID, unknown), (ID, b"another")], ping)),
        ("no id", post_all(&[], ping)),
        ("a batch of 1,500", post_all(&[], batch.as_bytes())),
        ("50,000 arrays, one in the other", post_all(&[], &[b'['; 50_000])),
        ("a method twice", post_all(&[], twice)),
        ("not JSON", post_all(&[], b"\x00\x01 not JSON")),
        ("a body over the limit", post(&[], 2 << 20)),
        ("an id under another spelling", post_all(&[("Mcp_Session_Id", unknown)], ping)),
        ("an initialize without an id", {
            post_all(&[], br#"{"jsonrpc":"2.0","method":"initialize","params":{}}"#)
        }),
        ("an initialize in another case", {
            post_all(&[], initialize.replace("method", "Method").as_bytes())
        }),
        ("a modern batch with an initialize", {
            let batch = format!("[{initialize}]");
            post_all(&[("MCP-Protocol-Version", b"2026-07-28")], batch.as_bytes())
        }),
        ("GET without an id", bare_get),
        ("a modern ping with an id", {
            post_all(&[(ID, unknown), ("MCP-Protocol-Version", b"2026-07-28")], ping)
        }),
    ]
}
