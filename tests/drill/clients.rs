//! One hundred who behave: each opens a session, listens, calls tools at a steady pace, and says
//! DELETE; again and again.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response, header::AUTHORIZATION};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::load::{
    Dice,
    http::{Http, call, initialize, initialized, read, session_id},
    ms,
};

const CLIENTS: usize = 100;
const PACE: Duration = ms(200);
/// Calls of one session; then comes the next.
const CALLS: usize = 10;
/// No answer takes longer, unless something is wrong.
const PATIENCE: Duration = ms(5_000);

/// What the clients saw since they were last asked.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// How long each call of a tool took, to the end of its answer.
    pub calls: Vec<Duration>,
    pub opens: Vec<Duration>,
    /// From the call that makes the server send something to its arrival on the stream.
    pub events: Vec<Duration>,
    pub errors: BTreeMap<String, usize>,
}

#[derive(Debug)]
pub struct Clients {
    measured: Arc<Mutex<Measured>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

struct Client {
    name: String,
    http: Http,
    measured: Arc<Mutex<Measured>>,
    stop: CancellationToken,
}

impl Clients {
    pub fn start(addr: SocketAddr) -> Self {
        let (measured, stop) = (Arc::default(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        for n in 0..CLIENTS {
            let client = Client {
                name: format!("client-{n}"),
                http: Http::new(addr),
                measured: Arc::clone(&measured),
                stop: stop.clone(),
            };
            tasks.spawn(client.live(n as u64));
        }
        Self { measured, stop, tasks }
    }

    pub fn take(&self) -> Measured {
        std::mem::take(&mut *self.measured.lock().unwrap())
    }

    /// They finish what they are at, and say DELETE.
    pub async fn end(mut self) -> Measured {
        self.stop.cancel();
        while let Some(client) = self.tasks.join_next().await {
            client.unwrap();
        }
        self.take()
    }
}

impl Client {
    async fn live(self, n: u64) {
        let mut dice = Dice(n);
        // Not all at once.
        let start = Instant::now() + dice.between(ms(0), PACE);
        let mut ticks = interval_at(start, PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.stop.is_cancelled() {
            ticks.tick().await;
            if let Err(error) = self.session(&mut ticks).await {
                *self.measured.lock().unwrap().errors.entry(error).or_default() += 1;
            }
        }
    }

    async fn session(&self, ticks: &mut tokio::time::Interval) -> Result<(), String> {
        let begin = Instant::now();
        let answer = self.send("initialize", Method::POST, None, initialize(), 200).await?;
        let id = session_id(&answer).ok_or("no session id")?;
        self.read("initialize", answer, "serverInfo").await?;
        self.measured.lock().unwrap().opens.push(begin.elapsed());
        let notified = self.send("initialized", Method::POST, Some(&id), initialized(), 202);
        self.read("initialized", notified.await?, "").await?;
        let mut stream = self.send("GET", Method::GET, Some(&id), Bytes::new(), 200).await?;
        for n in 0..CALLS {
            ticks.tick().await;
            if n == CALLS / 2 {
                self.hear(&id, &mut stream).await?;
                continue;
            }
            let echo = call("echo", &json!({ "text": "all is well" }));
            let begin = Instant::now();
            let answer = self.send("call", Method::POST, Some(&id), echo, 200).await?;
            self.read("call", answer, "all is well").await?;
            self.measured.lock().unwrap().calls.push(begin.elapsed());
        }
        let deleted = self.send("DELETE", Method::DELETE, Some(&id), Bytes::new(), 204);
        self.read("DELETE", deleted.await?, "").await?;
        // Closing the session ends its stream.
        let end = timeout(PATIENCE, stream.into_body().collect()).await;
        end.map_err(|_| "the stream did not end")?.map_err(|error| format!("stream: {error}"))?;
        Ok(())
    }

    /// Has the server send a notification, and waits for it on the stream.
    async fn hear(&self, id: &str, stream: &mut Response<Body>) -> Result<(), String> {
        let begin = Instant::now();
        let spam = call("spam", &json!({ "n": 1, "bytes": 10 }));
        let answer = self.send("spam", Method::POST, Some(id), spam, 200).await?;
        self.read("spam", answer, "sending").await?;
        let mut heard = String::new();
        while !heard.contains("xxxxxxxxxx") {
            let frame = timeout(PATIENCE, stream.body_mut().frame()).await;
            let frame = frame.map_err(|_| "nothing came on the stream")?;
            let frame = frame.ok_or("the stream ended")?.map_err(|error| error.to_string())?;
            heard.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        }
        self.measured.lock().unwrap().events.push(begin.elapsed());
        Ok(())
    }

    async fn send(
        &self,
        what: &str,
        method: Method,
        id: Option<&str>,
        body: Bytes,
        expected: u16,
    ) -> Result<Response<Body>, String> {
        let mut request = self.http.request(&method, id, body);
        let bearer = format!("Bearer {}", self.name).parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let answer = timeout(PATIENCE, self.http.send(request)).await;
        let answer = answer.map_err(|_| format!("{what}: no answer within {PATIENCE:?}"))?;
        let answer = answer.map_err(|error| format!("{what}: {error}"))?;
        if answer.status() == expected {
            return Ok(answer);
        }
        let (status, body) = read(answer).await?;
        Err(format!("{what}: {status}: {body:.80}"))
    }

    async fn read(&self, what: &str, answer: Response<Body>, wanted: &str) -> Result<(), String> {
        let body = timeout(PATIENCE, read(answer)).await;
        let (_, body) = body.map_err(|_| format!("{what}: no end within {PATIENCE:?}"))??;
        if body.contains(wanted) { Ok(()) } else { Err(format!("{what}: says {body:.80}")) }
    }
}
