//! A layer, a server and clients on a clock that goes on when everybody waits.

use std::{collections::BTreeSet, fmt::Write, sync::Arc, time::Duration};

use tokio::{
    runtime::Builder,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tower::Layer;

use super::{
    answer::Script,
    client,
    expect::Expected,
    ledger::{Exchange, Ledger, Rule, Violation},
    oracle,
    request::{IdSent, Message, Patience, SESSION_ID, Sent, Verb, Who},
    server::Server,
    settings::{Endings, Settings},
};
use crate::{McpSessionService, Principal, Sessions};

/// Clients at once.
const CROWD: usize = 8;

/// When to look whether everything has come to rest. In sum a little more than the layer may go on telling
/// a server that does not listen.
const PAUSES: [Duration; 9] = [
    Duration::from_millis(1),
    Duration::from_millis(20),
    Duration::from_millis(500),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(150),
    Duration::from_secs(300),
    Duration::from_secs(600),
];

/// What broke, and all that led to it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) violation: Violation,
    pub(super) trace: String,
}

pub(super) struct Run {
    ledger: Arc<Ledger>,
    sessions: Sessions,
    service: McpSessionService<Server>,
    clients: JoinSet<()>,
    began: Instant,
    trace: String,
}

type Outcome = Result<(), Violation>;

/// Runs to the end, or to the first promise that is broken.
pub(super) fn run<F>(settings: Settings, what: F) -> Result<(), Failure>
where
    F: AsyncFnOnce(&mut Run) -> Outcome,
{
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut run = Run::new(settings);
        let mut outcome = what(&mut run).await;
        if outcome.is_ok() {
            outcome = run.finish().await;
        }
        run.ledger.book().sessions = None;
        outcome.map_err(|violation| Failure { violation, trace: run.trace })
    })
}

impl Run {
    fn new(settings: Settings) -> Self {
        let ledger = Ledger::new(settings);
        let layer = settings.layer(&ledger);
        let sessions = layer.sessions();
        ledger.book().sessions = Some(sessions.clone());
        let service = layer.layer(Server(Arc::clone(&ledger)));
        let trace = format!("{settings}\n");
        Self { ledger, sessions, service, clients: JoinSet::new(), began: Instant::now(), trace }
    }

    fn say(&mut self, words: &str) {
        let at = self.began.elapsed().as_millis();
        let _ = writeln!(self.trace, "{at:>8} ms  {words}");
    }

    /// Sends a request. The client is on its own from here on.
    fn begin(
        &mut self,
        mut sent: Sent,
        script: Script,
        is_alone: bool,
    ) -> (Arc<Exchange>, AbortHandle) {
        let mut book = self.ledger.book();
        let number = book.exchanges.len();
        let ids = ids(&mut book, &mut sent);
        let principal = self.ledger.settings.principal(sent.who);
        let is_own = ids.first().is_some_and(|(_, id)| book.owner(id) == Some(principal));
        let exchange = Arc::new(Exchange {
            number,
            sent,
            script,
            ids,
            is_own,
            is_alone: is_alone && book.waiting == 0 && book.calls == 0,
            closed_before: book.closed_so_far(),
        });
        book.exchanges.push(Arc::clone(&exchange));
        drop(book);
        self.say(&format!("{number}: {sent}; {script}"));
        let ledger = Arc::clone(&self.ledger);
        let client = client::attend(ledger, self.service.clone(), Arc::clone(&exchange));
        let client = self.clients.spawn(client);
        (exchange, client)
    }

    /// One exchange from its beginning to its end.
    pub(super) async fn exchange(&mut self, sent: Sent, script: Script) -> Outcome {
        let (exchange, client) = self.begin(sent, script, true);
        let expected = Expected::of(&self.ledger, &exchange);
        if sent.patience == Patience::Stays {
            sleep(PAUSES[2]).await;
        } else {
            while !client.is_finished() {
                self.join().await;
            }
        }
        if let Some(expected) = expected {
            expected.check(&self.ledger, &exchange);
        }
        self.verdict()
    }

    /// One exchange that others run beside.
    pub(super) async fn beside(&mut self, sent: Sent, script: Script) -> Outcome {
        while self.clients.len() >= CROWD {
            // Those that stay for good make room.
            if timeout(Duration::from_secs(400), self.join()).await.is_err() {
                self.hang_up().await;
            }
        }
        self.begin(sent, script, false);
        self.wait(Duration::from_millis(1)).await
    }

    async fn join(&mut self) {
        if let Some(Err(error)) = self.clients.join_next().await {
            self.ledger.violate(Rule::Panic, error.to_string());
        }
    }

    async fn hang_up(&mut self) {
        self.clients.abort_all();
        while self.clients.join_next().await.is_some() {}
    }

    pub(super) async fn wait(&mut self, span: Duration) -> Outcome {
        sleep(span).await;
        oracle::at_once(&self.ledger);
        self.verdict()
    }

    pub(super) fn say_and_wait(&mut self, span: Duration) -> impl Future<Output = Outcome> {
        self.say(&format!("{span:?} pass"));
        self.wait(span)
    }

    pub(super) fn close_principal(&mut self, who: Who) -> Outcome {
        self.say(&format!("close_principal {who}"));
        if let Some(principal) = self.ledger.settings.principal(who) {
            self.revoke(Some(&principal));
            self.sessions.close_principal(&Principal::from(principal));
        }
        self.verdict()
    }

    pub(super) fn close_all(&mut self) -> Outcome {
        self.say("close_all");
        self.revoke(None);
        self.sessions.close_all();
        self.verdict()
    }

    /// What is being opened for it now may not live.
    fn revoke(&self, principal: Option<&str>) {
        let mut book = self.ledger.book();
        let number = book.exchanges.len();
        match principal {
            Some(principal) => drop(book.revoked.insert(principal.to_owned(), number)),
            None => {
                for who in Who::ALL {
                    let principal = self.ledger.settings.principal(*who).unwrap_or_default();
                    book.revoked.insert(principal, number);
                }
            }
        }
    }

    /// Waits until nothing is left to be done.
    pub(super) async fn rest(&mut self, is_over: bool) -> Outcome {
        let mut faults = Vec::new();
        let mut lonely = BTreeSet::new();
        for pause in PAUSES {
            self.wait(pause).await?;
            let unreachable = oracle::unreachable(&self.ledger);
            if let Some(id) = unreachable.intersection(&lonely).next() {
                let words = oracle::words_for(&self.ledger.book(), id);
                return Err(Violation { rule: Rule::Unreachable, words });
            }
            lonely = unreachable;
            faults = oracle::faults(&self.ledger, is_over);
            let book = self.ledger.book();
            if faults.is_empty() && lonely.is_empty() && book.waiting == book.staying {
                return Ok(());
            }
        }
        faults.into_iter().next().map_or(Ok(()), Err)
    }

    /// Everybody goes, and then the layer does.
    async fn finish(&mut self) -> Outcome {
        self.say("the end");
        // A client that reads a stream of its session sees it end; the others have to go.
        let reads_on = {
            let book = self.ledger.book();
            let mut exchanges = book.exchanges.iter();
            exchanges.all(|exchange| {
                let is_managed = self.ledger.settings.manages(exchange.sent.place);
                exchange.sent.patience != Patience::Stays
                    || is_managed && exchange.streams_of_session()
            })
        };
        while !reads_on && !self.clients.is_empty() {
            self.hang_up().await;
        }
        self.rest(false).await?;
        if self.ledger.settings.shuts_down {
            self.shut_down().await;
        } else {
            self.close_all()?;
        }
        self.rest(true).await
    }

    async fn shut_down(&mut self) {
        self.say("shutdown");
        let Settings { forwards, endings, .. } = self.ledger.settings;
        {
            let mut book = self.ledger.book();
            // The server keeps them for the next process, or would have to be told again after the end.
            if forwards || endings == Endings::Once {
                let kept: Vec<_> = book.kept.keys().cloned().collect();
                book.loose.extend(kept);
            }
        }
        self.sessions.shutdown(Duration::from_secs(1)).await;
    }

    /// The first promise that was broken, if one was.
    fn verdict(&mut self) -> Outcome {
        let violations = std::mem::take(&mut self.ledger.book().violations);
        violations.into_iter().next().map_or(Ok(()), Err)
    }
}

/// The headers that name a session. What is not there to be named is not sent.
fn ids(book: &mut super::ledger::Book, sent: &mut Sent) -> Vec<(&'static str, String)> {
    let own = book.last_live(sent.who, true).map(|held| held.id);
    let others = book.last_live(sent.who, false).map(|held| held.id);
    let one = |name, id: Option<String>| id.map(|id| vec![(name, id)]);
    let ids = match sent.id {
        IdSent::None => None,
        IdSent::Own => one(SESSION_ID, own),
        IdSent::Others => one(SESSION_ID, others),
        IdSent::Unknown => {
            let id = book.fresh("unknown");
            book.named.insert(id.clone(), book.exchanges.len());
            one(SESSION_ID, Some(id))
        }
        IdSent::Closed => one(SESSION_ID, book.last_closed()),
        IdSent::OwnFolded => one("mcp_session_id", own),
        IdSent::OthersFolded => one("mcp_session_id", others),
        IdSent::OthersDotted => one("mcp.session-id", others),
        IdSent::Twice => own.map(|id| vec![(SESSION_ID, id.clone()), (SESSION_ID, id)]),
        IdSent::Malformed => one(SESSION_ID, Some("no id".to_owned())),
    };
    if ids.is_none() {
        sent.id = IdSent::None;
    }
    ids.unwrap_or_default()
}

impl Exchange {
    /// Opens a session, and is known to before the server is asked.
    pub(super) fn is_initialize(&self) -> bool {
        self.sent.message == Message::Initialize && self.id().is_none() && self.sent.has_body()
    }
    /// Whether its answer is a stream of its session.
    fn streams_of_session(&self) -> bool {
        let turned_away = [400, 401, 404].contains(&self.script.status.code());
        let is_delete = self.sent.verb == Verb::Delete;
        self.is_own && self.id().is_some() && !turned_away && !is_delete
    }
}
