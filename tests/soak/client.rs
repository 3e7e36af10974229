//! One client, from `initialize` to however it leaves.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    books::{Books, Rules, Verdict},
    load::{
        Dice, LOST,
        http::{Http, call, drain, initialize, initialized, long_initialize, read, session_id},
        ms,
    },
    tally::Count,
};

/// How a client leaves. In a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Says DELETE, as nearly nobody does.
    Delete,
    /// Hangs up while `initialize` is under way.
    GiveUp,
    /// Is never heard of after `initialize`; comes back when it is too late.
    Unused,
    /// Makes its calls and vanishes; comes back when it is too late.
    Vanish,
    /// As `Vanish`, and its `initialize` is longer than the layer looks.
    Long,
    /// Hangs up in the middle of an answer.
    HangUp,
    /// Stops reading in the middle of an answer, and stays connected.
    StopReading,
    /// Stops reading a stream, and stays connected.
    StopListening,
    /// Hangs up on a stream.
    DropStream,
    /// Listens until the stream ends, makes its calls meanwhile, and does not come back.
    Listen,
    /// Listens, and comes back when the stream ends.
    Reconnect,
}

const FATES: [(Fate, u64); 11] = [
    (Fate::Delete, 10),
    (Fate::GiveUp, 30),
    (Fate::Unused, 40),
    (Fate::Vanish, 90),
    (Fate::Long, 20),
    (Fate::HangUp, 40),
    (Fate::StopReading, 20),
    (Fate::StopListening, 30),
    (Fate::DropStream, 60),
    (Fate::Listen, 610),
    (Fate::Reconnect, 50),
];

impl Fate {
    pub fn cast(dice: &mut Dice) -> Self {
        let mut at = dice.roll(1000);
        for (fate, share) in FATES {
            if at < share {
                return fate;
            }
            at -= share;
        }
        unreachable!("the shares are a thousand")
    }
}

/// What all clients of a wave have in common.
pub struct World {
    pub rules: Rules,
    pub http: Http,
    pub narrow: Http,
    pub count: Count,
    pub sessions: Mutex<Vec<Arc<Session>>>,
    /// Answers that nobody reads.
    pub unread: Mutex<Vec<Response<Body>>>,
}

pub struct Session {
    pub id: String,
    pub books: Mutex<Books>,
}

/// What came of a request.
enum Outcome {
    /// The head of an answer with this success.
    Admitted(Response<Body>),
    Lost,
    Other,
}

impl World {
    /// `door` is the client's until it has come in.
    pub async fn live(self: Arc<Self>, seed: u64, door: OwnedSemaphorePermit) {
        let mut dice = Dice(seed);
        let fate = Fate::cast(&mut dice);
        if fate == Fate::GiveUp {
            return self.give_up(&mut dice).await;
        }
        let Some(session) = self.open(fate).await else { return };
        if fate == Fate::Unused {
            drop(door);
            return self.come_back_too_late(&session).await;
        }
        if !self.notify(&session).await {
            return;
        }
        drop(door);
        match fate {
            Fate::Listen | Fate::Reconnect => {
                let listening = async {
                    self.listen(&session).await;
                    if fate == Fate::Reconnect {
                        self.listen(&session).await;
                    }
                };
                tokio::join!(listening, self.talk(&session, &mut dice));
            }
            Fate::DropStream => {
                let (count, rest) = (dice.between(ms(0), self.rules.idle), &mut dice);
                tokio::join!(self.drop_stream(&session, count), self.talk(&session, rest));
            }
            Fate::StopListening => self.stop_listening(&session).await,
            Fate::StopReading => self.stop_reading(&session).await,
            Fate::HangUp => {
                self.talk(&session, &mut dice).await;
                self.hang_up(&session, &mut dice).await;
            }
            Fate::Delete => {
                self.talk(&session, &mut dice).await;
                self.delete(&session).await;
            }
            Fate::Vanish | Fate::Long | Fate::Unused | Fate::GiveUp => {
                if self.talk(&session, &mut dice).await {
                    self.come_back_too_late(&session).await;
                }
            }
        }
    }

    async fn open(&self, fate: Fate) -> Option<Arc<Session>> {
        let body = if fate == Fate::Long { long_initialize() } else { initialize() };
        let sent = Instant::now();
        self.count.lock().posts += 1;
        let answer = match self.http.post(None, &body).await {
            Ok(answer) => answer,
            Err(error) => {
                self.count.unexpected(format!("initialize: {error}"));
                return None;
            }
        };
        let books = Mutex::new(Books::open(self.rules, sent, Instant::now()));
        let Some(id) = session_id(&answer).filter(|_| answer.status() == 200) else {
            self.count.unexpected(format!("initialize: {}", answer.status()));
            return None;
        };
        let session = Arc::new(Session { id, books });
        self.count.lock().opened += 1;
        self.sessions.lock().unwrap().push(Arc::clone(&session));
        self.read(&session, answer, "serverInfo").await;
        Some(session)
    }

    /// Until when nobody can say whether the server has opened it.
    async fn give_up(&self, dice: &mut Dice) {
        let patience = dice.between(ms(0), ms(20));
        let body = initialize();
        let sent = Instant::now();
        self.count.lock().posts += 1;
        match timeout(patience, self.http.post(None, &body)).await {
            Err(_) => self.count.lock().given_up += 1,
            Ok(Err(error)) => self.count.unexpected(format!("initialize: {error}")),
            Ok(Ok(answer)) => {
                let mut books = Books::open(self.rules, sent, Instant::now());
                books.leave();
                let Some(id) = session_id(&answer).filter(|_| answer.status() == 200) else {
                    return self.count.unexpected(format!("initialize: {}", answer.status()));
                };
                let session = Session { id, books: Mutex::new(books) };
                self.count.lock().opened += 1;
                self.sessions.lock().unwrap().push(Arc::new(session));
            }
        }
    }

    async fn notify(&self, session: &Session) -> bool {
        match self.post(session, &self.http, &initialized(), ms(0), 202).await {
            Outcome::Admitted(answer) => self.read(session, answer, "").await,
            Outcome::Lost | Outcome::Other => false,
        }
    }

    /// A call now and then, never so late that it could be too late. Whether all went well.
    async fn talk(&self, session: &Session, dice: &mut Dice) -> bool {
        for _ in 0..dice.roll(4) {
            sleep(dice.between(ms(0), self.rules.idle * 7 / 10)).await;
            let echo = call("echo", &json!({ "text": "over and out" }));
            match self.post(session, &self.http, &echo, ms(0), 200).await {
                Outcome::Admitted(answer) => {
                    if !self.read(session, answer, "over and out").await {
                        return false;
                    }
                }
                Outcome::Lost | Outcome::Other => return false,
            }
        }
        true
    }

    async fn listen(&self, session: &Session) {
        let hold = self.rules.stream_lifetime;
        if let Outcome::Admitted(stream) = self.get(session, &self.http, hold).await {
            if let Err(error) = drain(stream).await {
                self.count.unexpected(format!("a stream did not end cleanly: {error}"));
            }
            session.books.lock().unwrap().end();
        }
    }

    async fn drop_stream(&self, session: &Session, after: Duration) {
        if let Outcome::Admitted(stream) = self.get(session, &self.http, ms(0)).await {
            let _ = timeout(after, drain(stream)).await;
            session.books.lock().unwrap().leave();
        }
    }

    /// Until the server can send no more, and what it holds for us waits.
    async fn stop_listening(&self, session: &Session) {
        let hold = self.rules.stream_lifetime;
        if let Outcome::Admitted(stream) = self.get(session, &self.narrow, hold).await {
            session.books.lock().unwrap().leave();
            self.unread.lock().unwrap().push(stream);
            let spam = call("spam", &json!({ "n": 32, "bytes": 16_384 }));
            if let Outcome::Admitted(answer) =
                self.post(session, &self.http, &spam, ms(0), 200).await
            {
                self.read(session, answer, "sending").await;
            }
        }
    }

    async fn stop_reading(&self, session: &Session) {
        let echo = call("echo", &json!({ "text": "x".repeat(512 * 1024) }));
        // It is in flight until the lifetime ends.
        let hold = self.rules.max_lifetime;
        if let Outcome::Admitted(answer) = self.post(session, &self.narrow, &echo, hold, 200).await
        {
            session.books.lock().unwrap().leave();
            self.unread.lock().unwrap().push(answer);
        }
    }

    async fn hang_up(&self, session: &Session, dice: &mut Dice) {
        let work = call("sleep", &json!({ "seconds": 0.3 }));
        let patience = dice.between(ms(0), ms(100));
        let before_the_head = dice.roll(2) == 0;
        session.books.lock().unwrap().leave();
        if before_the_head {
            self.count.lock().posts += 1;
            session.books.lock().unwrap().begin();
            let _ = timeout(patience / 20, self.http.post(Some(&session.id), &work)).await;
        } else if let Outcome::Admitted(answer) =
            self.post(session, &self.http, &work, ms(0), 200).await
        {
            session.books.lock().unwrap().leave();
            let _ = timeout(patience, drain(answer)).await;
        }
    }

    async fn delete(&self, session: &Session) {
        self.count.lock().deletes += 1;
        session.books.lock().unwrap().begin();
        let sent = Instant::now();
        let answer = self.http.delete(&session.id).await;
        let Outcome::Admitted(_) = self.outcome(session, answer, sent, ms(0), 204).await else {
            return;
        };
        session.books.lock().unwrap().delete(Instant::now());
        self.probe(session).await;
    }

    async fn come_back_too_late(&self, session: &Session) {
        let dead = session.books.lock().unwrap().dead_from();
        if let Some(dead) = dead {
            sleep_until(dead + ms(1)).await;
            self.probe(session).await;
        }
    }

    /// A request that has to find the session dead.
    pub async fn probe(&self, session: &Session) {
        let echo = call("echo", &json!({ "text": "anybody there?" }));
        let sent = Instant::now();
        session.books.lock().unwrap().begin();
        self.count.lock().probes += 1;
        let answer = self.http.post(Some(&session.id), &echo).await;
        match self.outcome(session, answer, sent, ms(0), 200).await {
            Outcome::Lost => {}
            Outcome::Admitted(answer) => drop(read(answer).await),
            Outcome::Other => {}
        }
    }

    async fn get(&self, session: &Session, http: &Http, hold: Duration) -> Outcome {
        self.count.lock().gets += 1;
        session.books.lock().unwrap().begin();
        let sent = Instant::now();
        let answer = http.get(&session.id).await;
        self.outcome(session, answer, sent, hold, 200).await
    }

    async fn post(
        &self,
        session: &Session,
        http: &Http,
        body: &Bytes,
        hold: Duration,
        expected: u16,
    ) -> Outcome {
        self.count.lock().posts += 1;
        session.books.lock().unwrap().begin();
        let sent = Instant::now();
        let answer = http.post(Some(&session.id), body).await;
        self.outcome(session, answer, sent, hold, expected).await
    }

    /// Judges the head of an answer, and writes down what it says of the session.
    async fn outcome(
        &self,
        session: &Session,
        answer: Result<Response<Body>, String>,
        sent: Instant,
        hold: Duration,
        expected: u16,
    ) -> Outcome {
        let received = Instant::now();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.count.unexpected(format!("no answer: {error}"));
                return Outcome::Other;
            }
        };
        let status = answer.status();
        let is_lost = status == 404;
        let verdict = session.books.lock().unwrap().judge(is_lost, sent, received);
        match verdict {
            Verdict::Fine if status == expected => {
                session.books.lock().unwrap().admit(sent, hold);
                return Outcome::Admitted(answer);
            }
            Verdict::Fine => {}
            Verdict::RightlyLost => self.count.lock().lost_rightly += 1,
            Verdict::WronglyLost => self.count.lock().lost_wrongly += 1,
            Verdict::Undead => self.count.lock().undead += 1,
        }
        let may_be_cut = session.books.lock().unwrap().may_be_cut(received);
        let is_json =
            answer.headers().get("content-type").is_some_and(|it| it == "application/json");
        let body = read(answer).await.map(|(_, body)| body);
        if is_lost && is_json && body.as_deref() == Ok(LOST) {
            return Outcome::Lost;
        }
        if verdict == Verdict::Undead && status == expected {
            return Outcome::Other;
        }
        if may_be_cut && matches!(status.as_u16(), 404 | 500) {
            // Admitted, and closed before the server behind had heard of it: in its own words.
            self.count.lock().cut += 1;
            return Outcome::Lost;
        }
        self.count.unexpected(format!("{status}: {body:.80?}"));
        Outcome::Other
    }

    /// Reads an answer to its end, and sees that it says what it has to.
    async fn read(&self, session: &Session, answer: Response<Body>, wanted: &str) -> bool {
        let body = read(answer).await;
        let received = Instant::now();
        session.books.lock().unwrap().end();
        match body {
            Ok((_, body)) if body.contains(wanted) => true,
            Ok(_) if session.books.lock().unwrap().may_be_cut(received) => {
                self.count.lock().cut += 1;
                false
            }
            Ok((status, body)) => {
                self.count.unexpected(format!("{status} without {wanted:?}: {body:.80?}"));
                false
            }
            Err(error) => {
                self.count.unexpected(format!("an answer broke off: {error}"));
                false
            }
        }
    }
}
