//! What the right answer to one request is, where the rules leave no choice.
//!
//! Only for an exchange that had the layer to itself and whose client waited for an answer that came in time.

use std::time::Duration;

use super::{
    answer::{Delay, Issues, Shape, Status},
    ledger::{Book, Exchange, Ledger, Rule},
    request::{IdSent, Message, Patience, Place, SESSION_ID, Verb, Version},
    settings::Settings,
};

/// A session that was idle for longer may expire meanwhile, or has.
const FRESH: Duration = Duration::from_secs(45);

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// A refusal of the layer; the server is not asked.
    Refused(u16),
    /// What the server said, without an id.
    Passed,
    /// The same, and perhaps its own id.
    PassedOn,
    /// The same, with the id of a session that lives.
    Opens,
    /// As if the layer were not there.
    Untouched,
    /// The server is asked, and no id comes of it.
    Nothing,
    /// The layer refuses it, with whatever status.
    Unasked,
    Anything,
}

/// What was right when the request was sent.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    answer: Answer,
    /// The session of the id that was sent, and whether it has to live on.
    session: Option<(String, bool)>,
}

impl Expected {
    pub(super) fn of(ledger: &Ledger, exchange: &Exchange) -> Option<Self> {
        let in_time = matches!(exchange.script.delay, Delay::None | Delay::Short);
        let waits = exchange.sent.patience == Patience::Waits;
        if !in_time || !waits || !exchange.is_alone || exchange.script.status == Status::Fails {
            return None;
        }
        let book = ledger.book();
        if book.idle_for() > FRESH {
            return None;
        }
        let settings = &ledger.settings;
        let answer = right(settings, &book, exchange);
        let session = exchange.ids.first().and_then(|(_, id)| {
            let lives = lives_on(settings, &book, exchange)?;
            book.is_live(id).then(|| (id.clone(), lives))
        });
        Some(Self { answer, session })
    }

    pub(super) fn check(&self, ledger: &Ledger, exchange: &Exchange) {
        let mut book = ledger.book();
        let script = exchange.script;
        if let Some((id, lives)) = &self.session
            && book.is_live(id) != *lives
        {
            let words = if *lives { "it has closed" } else { "it lives" };
            book.violate(Rule::Lost, words);
        }
        let was_asked = book.arrived.contains(&exchange.number);
        let Some(got) = book.got.get(&exchange.number) else {
            if self.answer != Answer::Anything {
                book.violate(Rule::Answer, "there was none");
            }
            return;
        };
        let status = got.status;
        let ids = got.ids;
        let issued = book.issued.get(&exchange.number).copied().unwrap_or_default();
        let body = script.shape.bytes();
        let is_passed = status == script.status.code()
            && got.content_type.as_deref() == script.shape.content_type()
            && got.body == body
            && (got.is_whole || !script.shape.ends());
        let is_opened = ids == 1;
        let mut violate = |rule, words: &str| {
            book.violate(rule, format!("{words}; it got {status}, {ids} ids"));
        };
        match self.answer {
            Answer::Anything => {}
            Answer::Refused(_) | Answer::Unasked if was_asked => {
                violate(Rule::Asked, "the server was asked");
            }
            Answer::Refused(right) if status != right => {
                violate(Rule::Answer, &format!("{right} would be right"));
            }
            Answer::Refused(_) | Answer::Unasked => {}
            _ if !was_asked => violate(Rule::Ignored, "the server was not asked"),
            Answer::Nothing if ids > 0 => violate(Rule::Opened, "no session may come of it"),
            Answer::Nothing => {}
            Answer::Opens if !is_opened => violate(Rule::Unopened, "a session was there to own"),
            Answer::Untouched if !is_passed || ids != issued => {
                violate(Rule::Touched, "it passes through");
            }
            _ if !is_passed => violate(Rule::Answer, "the answer of the server would be right"),
            Answer::Passed if ids > 0 => violate(Rule::Opened, "no id may come with it"),
            _ => {}
        }
    }
}

fn right(settings: &Settings, book: &Book, exchange: &Exchange) -> Answer {
    let sent = exchange.sent;
    if !settings.manages(sent.place) {
        return Answer::Untouched;
    }
    let is_post = sent.verb == Verb::Post;
    if exchange.is_modern() {
        return match sent.message {
            _ if !is_post => Answer::Passed,
            Message::Initialize => opening(settings, book, exchange),
            Message::Notification if !settings.may_own(sent.who) => Answer::Refused(403),
            Message::Notification => Answer::Refused(400),
            Message::Call | Message::PaddedCall | Message::Padded => Answer::Passed,
            Message::Ambiguous => Answer::Refused(400),
            // As good as a longer one, or as one of another kind.
            Message::Slow => Answer::Anything,
            _ => unrecognised(settings, book, exchange),
        };
    }
    if exchange.id().is_some() {
        return with_id(settings, book, exchange);
    }
    let passes_missing = settings.passes_missing || sent.version == Version::Garbage;
    match sent.message {
        _ if !is_post => Answer::Passed,
        Message::Initialize => opening(settings, book, exchange),
        Message::Notification if !settings.may_own(sent.who) => Answer::Refused(403),
        Message::Notification => Answer::Refused(400),
        Message::Ambiguous => Answer::Refused(400),
        Message::Call if !passes_missing => Answer::Refused(400),
        Message::Call => Answer::Anything,
        // Refused as a message without an id, or let through as one that nobody recognises.
        Message::Batch | Message::CallBatch if settings.may_own(sent.who) => Answer::Anything,
        _ => unrecognised(settings, book, exchange),
    }
}

/// An `initialize`: one JSON-RPC object read without doubt.
fn opening(settings: &Settings, book: &Book, exchange: &Exchange) -> Answer {
    let sent = exchange.sent;
    if !settings.may_own(sent.who) {
        return Answer::Refused(403);
    }
    let script = exchange.script;
    if !has_room(settings, book, exchange) {
        return Answer::Anything;
    }
    if !script.status.is_success() {
        return Answer::Passed;
    }
    let has_others = book.last_live(sent.who, false).is_some();
    match (script.shape, script.issues) {
        (shape, Issues::None | Issues::Fresh | Issues::Jwt)
            if shape.is_result() && script.status == Status::Ok =>
        {
            Answer::Opens
        }
        (Shape::Error | Shape::ErrorEvents, Issues::None | Issues::Fresh) => Answer::Passed,
        (_, Issues::TwoFresh | Issues::TooLong | Issues::Spaced | Issues::Empty) => Answer::Nothing,
        (_, Issues::Others | Issues::OthersAndFresh) if has_others => Answer::Nothing,
        _ => Answer::Anything,
    }
}

/// A POST that is not one JSON-RPC object read without doubt.
fn unrecognised(settings: &Settings, book: &Book, exchange: &Exchange) -> Answer {
    if !settings.may_own(exchange.sent.who) {
        return Answer::Unasked;
    }
    let script = exchange.script;
    // It may take a permit before the server is asked.
    if !has_room(settings, book, exchange) {
        return Answer::Anything;
    }
    if !script.status.is_success() {
        return Answer::Passed;
    }
    let is_legacy = !exchange.is_modern();
    let opens = is_legacy
        && script.status == Status::Ok
        && script.shape.is_result()
        && matches!(script.issues, Issues::Fresh | Issues::Jwt);
    match script.issues {
        _ if opens => Answer::Opens,
        Issues::TwoFresh | Issues::TooLong | Issues::Spaced => Answer::Nothing,
        Issues::None => Answer::Passed,
        _ => Answer::Anything,
    }
}

fn with_id(settings: &Settings, book: &Book, exchange: &Exchange) -> Answer {
    let sent = exchange.sent;
    if matches!(sent.id, IdSent::Twice | IdSent::Malformed) {
        return Answer::Refused(400);
    }
    let Some(id) = exchange.id() else { return Answer::Anything };
    if !exchange.is_own {
        let is_lost = !settings.forwards || book.is_live(id) || book.is_closed(id);
        let cannot_own = !settings.may_own(sent.who);
        return if is_lost || cannot_own { Answer::Refused(404) } else { Answer::Anything };
    }
    let Some(opened_at) = opened_at(book, id) else { return Answer::Anything };
    if !is_same(opened_at, sent.place) {
        return Answer::Refused(404);
    }
    let is_call = matches!(sent.message, Message::Call | Message::PaddedCall);
    let may_open = sent.verb == Verb::Post && !is_call;
    // What may open another session may take a permit first.
    if sent.verb == Verb::Delete || may_open && !has_room(settings, book, exchange) {
        return Answer::Anything;
    }
    match exchange.script.issues {
        Issues::None | Issues::Own => Answer::PassedOn,
        _ => Answer::Anything,
    }
}

/// Whether the session of the id has to be there afterwards.
fn lives_on(settings: &Settings, book: &Book, exchange: &Exchange) -> Option<bool> {
    let sent = exchange.sent;
    let (name, id) = exchange.ids.first()?;
    let is_taken = settings.manages(sent.place)
        && *name == SESSION_ID
        && exchange.is_own
        && !exchange.is_modern()
        && sent.id != IdSent::Twice
        && is_same(opened_at(book, id)?, sent.place);
    // Where there is no room, what may open another session is refused, and the server is not asked.
    let is_call = matches!(sent.message, Message::Call | Message::PaddedCall);
    if is_taken && sent.verb == Verb::Post && !is_call && !has_room(settings, book, exchange) {
        return None;
    }
    let status = exchange.script.status;
    let ends = match sent.verb {
        Verb::Post => status == Status::NotFound,
        Verb::Delete => {
            status.is_success() || status == Status::NotFound || book.minted.contains(id)
        }
        _ => false,
    };
    // One that only a response holds may idle out while the client reads.
    let in_time = exchange.script.shape.ends() && sent.message != Message::Slow;
    (in_time && !settings.evicts).then_some(!(is_taken && ends))
}

fn opened_at(book: &Book, id: &str) -> Option<Place> {
    book.exchanges.get(*book.named.get(id)?).map(|exchange| exchange.sent.place)
}

/// A trailing slash makes no difference.
fn is_same(one: Place, other: Place) -> bool {
    let plain = |place| if place == Place::Slash { Place::Endpoint } else { place };
    plain(one) == plain(other)
}

fn has_room(settings: &Settings, book: &Book, exchange: &Exchange) -> bool {
    let Some(sessions) = &book.sessions else { return false };
    let stats = sessions.stats();
    let principal = settings.principal(exchange.sent.who);
    let ids = book.named.keys();
    let own = ids.filter(|id| book.owner(id) == Some(principal.clone())).count();
    let has_own_room = principal.is_none() || own < settings.own_cap;
    stats.closing == 0 && stats.live + stats.opening < settings.cap && has_own_room
}
