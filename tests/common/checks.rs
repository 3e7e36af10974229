//! The invariants, checked while a test runs and at its end.
//!
//! I1 nothing is reaped with work in flight, before the absolute limit
//! I2 no request that is sent after its session expired or closed reaches the server
//! I3 exactly one close event for each open event
//! I4 live + opening + closing <= cap, and all permits are back at the end
//! I5 in-flight counters are 0 at quiescence
//! I8 no raw session id in any log line, event, listing or `Debug` output

use std::{
    collections::{HashMap, HashSet},
    io::Write,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use mcp_session_layer::{CloseReason, Fingerprint, McpSessionLayer, SessionEvent, Sessions, Stats};
use tokio::time::{Instant, sleep};
use tracing_subscriber::fmt::MakeWriter;

use super::{server::FakeServer, trace};

/// More than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A shorter id may stand in a log by chance.
const UNGUESSABLE: usize = 16;

#[derive(Default)]
struct Ledger {
    opened: HashMap<Fingerprint, usize>,
    closed: HashMap<Fingerprint, usize>,
    events: Vec<String>,
    ids: Vec<String>,
    printed: String,
    violations: Vec<String>,
}

/// Dropped without [`finish`](Self::finish), it fails the test.
pub struct Checks {
    ledger: Arc<Mutex<Ledger>>,
    sessions: Arc<OnceLock<Sessions>>,
    server: FakeServer,
    finished: bool,
}

impl Checks {
    pub fn new(server: &FakeServer) -> Self {
        log();
        Self {
            ledger: Arc::default(),
            sessions: Arc::default(),
            server: server.clone(),
            finished: false,
        }
    }

    /// The cap that I4 is checked against; without it, the default.
    pub fn watch(&self, layer: McpSessionLayer) -> McpSessionLayer {
        let debug = format!("{layer:?}");
        let cap = debug.split("max_sessions: ").nth(1).unwrap();
        let cap = cap.split(',').next().unwrap().trim().parse().unwrap();
        // Weak: what the layer keeps must not keep the layer.
        let (ledger, sessions) = (Arc::clone(&self.ledger), Arc::downgrade(&self.sessions));
        let server = self.server.clone();
        layer.on_event(move |event| {
            let mut found = Vec::new();
            let slot = sessions.upgrade();
            if let Some(sessions) = slot.as_ref().and_then(|slot| slot.get()) {
                let stats = sessions.stats();
                if stats.live + stats.opening + stats.closing > cap {
                    found.push(format!("I4: {stats:?} over {cap}"));
                }
            }
            let mut ledger = ledger.lock().unwrap();
            ledger.printed.push_str(&format!("{event:?}"));
            ledger.events.push(brief(event));
            match event {
                SessionEvent::Opened { session, .. } => {
                    *ledger.opened.entry(*session).or_default() += 1;
                }
                SessionEvent::Closed { session, reason, .. } => {
                    *ledger.closed.entry(*session).or_default() += 1;
                    let reaped = [CloseReason::Idle, CloseReason::Unused, CloseReason::Evicted];
                    if reaped.contains(reason) && server.in_flight(*session) > 0 {
                        found.push(format!("I1: {session} closed as {reason} with work in flight"));
                    }
                    if !ledger.opened.contains_key(session) {
                        found.push(format!("I3: {session} closed before it was opened"));
                    }
                    server.mark_closed(*session);
                }
                _ => {}
            }
            ledger.violations.append(&mut found);
        })
    }

    pub fn know(&self, sessions: &Sessions) {
        self.sessions.set(sessions.clone()).unwrap();
    }

    /// Takes ids that must not be seen again, and how their sessions print themselves.
    pub fn learner(&self) -> impl Fn(&str) + Clone + Send + Sync + 'static {
        let (ledger, sessions) = (Arc::clone(&self.ledger), Arc::downgrade(&self.sessions));
        move |id| {
            let slot = sessions.upgrade();
            let session = slot.as_ref().and_then(|slot| slot.get()?.get(id));
            let printed = session.map(|session| format!("{session:?} {:?}", session.info()));
            trace::secret(id);
            let mut ledger = ledger.lock().unwrap();
            ledger.ids.push(id.to_owned());
            ledger.printed.push_str(&printed.unwrap_or_default());
        }
    }

    pub fn look_for_ids_in(&self, printed: &str) {
        self.ledger.lock().unwrap().printed.push_str(printed);
    }

    pub fn events(&self) -> Vec<String> {
        self.ledger.lock().unwrap().events.clone()
    }

    /// The end of a test in paused time. Whatever was in flight must be over.
    pub async fn finish(self, sessions: Sessions) -> Stats {
        self.close_all(&sessions);
        // Hung closes are given up after `close_timeout`, some at a time.
        sleep(Duration::from_secs(600)).await;
        // And repeated, each for ten minutes, some at a time.
        for _ in 0..60 {
            if sessions.stats().retrying == 0 {
                break;
            }
            sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(sessions.stats().retrying, 0, "a retry that does not end");
        self.verdict(&sessions)
    }

    /// The end of a test in real time: as soon as everything is over, and that must be soon.
    pub async fn finish_in_real_time(self, sessions: Sessions) -> Stats {
        let within = Instant::now() + PATIENCE;
        let in_time = async |what: &str, is_so: &dyn Fn(Stats) -> bool| {
            while !is_so(sessions.stats()) {
                assert!(Instant::now() < within, "not in time: {what}: {:?}", sessions.stats());
                sleep(Duration::from_millis(5)).await;
            }
        };
        in_time("I5: nothing in flight", &|stats| {
            (stats.in_flight, stats.streams, stats.opening) == (0, 0, 0)
        })
        .await;
        self.close_all(&sessions);
        in_time("I4: all permits back", &|stats| stats.live + stats.opening + stats.closing == 0)
            .await;
        // Counted, but its hook may still be running.
        in_time("I3: the last event", &|stats| {
            let heard = self.ledger.lock().unwrap().closed.values().sum::<usize>();
            heard as u64 >= stats.closed.total()
        })
        .await;
        self.verdict(&sessions)
    }

    fn close_all(&self, sessions: &Sessions) {
        let stats = sessions.stats();
        assert_eq!((stats.in_flight, stats.streams), (0, 0), "I5: {stats:?}");
        let listed = serde_json::to_string(&sessions.list()).unwrap();
        self.look_for_ids_in(&format!("{listed} {sessions:?} {stats:?}"));
        sessions.close_all();
    }

    fn verdict(mut self, sessions: &Sessions) -> Stats {
        self.finished = true;
        let stats = sessions.stats();
        let permits = (stats.live, stats.opening, stats.closing);
        assert_eq!(permits, (0, 0, 0), "I4: permits are missing: {stats:?}");
        assert_eq!((stats.in_flight, stats.streams), (0, 0), "I5: {stats:?}");
        assert!(sessions.is_empty() && sessions.list().is_empty());
        assert_eq!(self.server.busy(), 0, "I5: the server still works for somebody");
        assert_eq!(self.server.violations(), Vec::<String>::new());

        let ledger = self.ledger.lock().unwrap();
        assert_eq!(ledger.violations, Vec::<String>::new());
        assert_eq!(ledger.opened, ledger.closed, "I3: opened and closed differ");
        assert!(ledger.closed.values().all(|&times| times == 1), "I3: {:?}", ledger.closed);
        assert_eq!(stats.opened as usize, ledger.opened.len());
        assert_eq!(stats.closed.total() as usize, ledger.closed.len());

        let log = log().text();
        let issued = self.server.ids();
        trace::emitted(ledger.printed.as_bytes());
        issued.iter().for_each(|id| trace::secret(id));
        let ids = ledger.ids.iter().chain(&issued).filter(|id| id.len() >= UNGUESSABLE);
        for id in ids.collect::<HashSet<_>>() {
            let at = log.find(id.as_str());
            assert!(at.is_none(), "I8: an id is in the log, at {at:?}:\n{log}");
            assert!(!ledger.printed.contains(id.as_str()), "I8: an id was printed");
        }
        stats
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        assert!(self.finished || std::thread::panicking(), "the test does not end in its checks");
    }
}

/// An event in a word or two.
fn brief(event: &SessionEvent) -> String {
    match event {
        SessionEvent::Opened { .. } => "opened".to_owned(),
        SessionEvent::Closed { reason, .. } => format!("closed {reason}"),
        SessionEvent::Rejected { why, .. } => format!("rejected {}", why.status().as_u16()),
        other => format!("{other:?}"),
    }
}

/// All that the layer has logged in this process, in whatever thread and test.
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("mcp_session_layer=trace")
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    })
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        trace::emitted(bytes);
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
