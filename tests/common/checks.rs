//! The invariants, checked while a test runs and at its end.
//!
//! I1 nothing is reaped with work in flight, before the absolute limit
//! I2 an expired or closed session never reaches the server
//! I3 exactly one close event for each open event
//! I4 live + opening + closing <= cap, and all permits are back at the end
//! I5 in-flight counters are 0 at quiescence
//! I8 no raw session id in any log line, event, listing or `Debug` output

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use mcp_session_layer::{CloseReason, Fingerprint, McpSessionLayer, SessionEvent, Sessions};
use tracing_subscriber::fmt::MakeWriter;

use super::server::FakeServer;

#[derive(Default)]
struct Ledger {
    opened: HashMap<Fingerprint, usize>,
    closed: HashMap<Fingerprint, usize>,
    events: Vec<String>,
    ids: Vec<String>,
    printed: String,
    violations: Vec<String>,
}

pub struct Checks {
    ledger: Arc<Mutex<Ledger>>,
    sessions: Arc<OnceLock<Sessions>>,
    cap: Arc<OnceLock<usize>>,
    server: FakeServer,
    log: Log,
    _logging: tracing::subscriber::DefaultGuard,
}

impl Checks {
    pub fn new(server: &FakeServer) -> Self {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("mcp_session_layer=trace")
            .with_writer(log.clone())
            .finish();
        Self {
            ledger: Arc::default(),
            sessions: Arc::default(),
            cap: Arc::default(),
            server: server.clone(),
            log,
            _logging: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The cap that I4 is checked against; without it, the default.
    pub fn watch(&self, layer: McpSessionLayer) -> McpSessionLayer {
        let debug = format!("{layer:?}");
        let cap = debug.split("max_sessions: ").nth(1).unwrap();
        let cap = cap.split(',').next().unwrap().trim().parse().unwrap();
        self.cap.set(cap).unwrap();
        let (ledger, sessions) = (Arc::clone(&self.ledger), Arc::clone(&self.sessions));
        let server = self.server.clone();
        layer.on_event(move |event| {
            let mut found = Vec::new();
            if let Some(sessions) = sessions.get() {
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

    /// An id that must not be seen again, and how its session prints itself.
    pub fn learn(&self, id: &str, sessions: &Sessions) {
        let handle = sessions.get(id).map(|session| format!("{session:?} {:?}", session.info()));
        let mut ledger = self.ledger.lock().unwrap();
        ledger.ids.push(id.to_owned());
        ledger.printed.push_str(&handle.unwrap_or_default());
    }

    pub fn look_for_ids_in(&self, printed: &str) {
        self.ledger.lock().unwrap().printed.push_str(printed);
    }

    pub fn events(&self) -> Vec<String> {
        self.ledger.lock().unwrap().events.clone()
    }

    pub async fn finish(self, sessions: Sessions, server: FakeServer) {
        let stats = sessions.stats();
        assert_eq!((stats.in_flight, stats.streams), (0, 0), "I5: {stats:?}");
        let listed = serde_json::to_string(&sessions.list()).unwrap();
        self.look_for_ids_in(&format!("{listed} {sessions:?} {stats:?}"));

        sessions.close_all();
        // Hung closes are given up after `close_timeout`, some at a time.
        tokio::time::sleep(Duration::from_secs(600)).await;
        let stats = sessions.stats();
        let permits = (stats.live, stats.opening, stats.closing);
        assert_eq!(permits, (0, 0, 0), "I4: permits are missing: {stats:?}");
        assert_eq!(server.busy(), 0, "I5: the server still works for somebody");
        assert_eq!(server.violations(), Vec::<String>::new());

        let ledger = self.ledger.lock().unwrap();
        assert_eq!(ledger.violations, Vec::<String>::new());
        assert_eq!(ledger.opened, ledger.closed, "I3: opened and closed differ");
        assert!(ledger.closed.values().all(|&times| times == 1), "I3: {:?}", ledger.closed);
        assert_eq!(stats.opened as usize, ledger.opened.len());
        assert_eq!(stats.closed.total() as usize, ledger.closed.len());
        let log = self.log.text();
        for id in &ledger.ids {
            assert!(!log.contains(id.as_str()), "I8: an id is in the log:\n{log}");
            assert!(!ledger.printed.contains(id.as_str()), "I8: an id was printed");
        }
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

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
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
