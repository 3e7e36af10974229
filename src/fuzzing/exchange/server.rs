//! A server that counts its own sessions, and answers as its script says.

use std::{
    fmt,
    future::pending,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::sleep;
use tower::Service;

use super::{
    answer::{Delay, Issues, Status},
    ledger::{Book, Exchange, Kept, Ledger, Rule},
    request::{Message, NUMBER, SESSION_ID, Verb, folds_into},
    settings::Endings,
};

#[derive(Clone)]
pub(super) struct Server(pub(super) Arc<Ledger>);

/// The service failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as the script says")
    }
}

impl std::error::Error for Failed {}

impl Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Response<Body>, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self(ledger) = self.clone();
        Box::pin(async move {
            ledger.count();
            let (parts, body) = request.into_parts();
            let number = parts.headers.get(NUMBER).and_then(|number| number.to_str().ok());
            let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else {
                let _call = Call::new(&ledger, true);
                return Ok(end(&ledger, &parts.headers).await);
            };
            let _call = Call::new(&ledger, false);
            let exchange = Arc::clone(&ledger.book().exchanges[number]);
            let restores = arrive(&ledger, &exchange, &parts.headers);
            let _ = body.collect().await;
            match exchange.script.delay {
                Delay::None => {}
                Delay::Never => pending().await,
                delay => sleep(delay.time()).await,
            }
            if exchange.script.status == Status::Fails {
                return Err(Failed);
            }
            Ok(answer(&ledger, &exchange, restores))
        })
    }
}

/// A call under way.
struct Call {
    ledger: Arc<Ledger>,
    is_ending: bool,
}

impl Call {
    fn new(ledger: &Arc<Ledger>, is_ending: bool) -> Self {
        let call = Self { ledger: Arc::clone(ledger), is_ending };
        call.count(1);
        call
    }

    fn count(&self, change: isize) {
        let mut book = self.ledger.book();
        let count = if self.is_ending { &mut book.endings } else { &mut book.calls };
        *count = count.saturating_add_signed(change);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.count(-1);
    }
}

/// The layer says that a session has closed.
async fn end(ledger: &Ledger, headers: &HeaderMap) -> Response<Body> {
    let ids: Vec<_> = headers.get_all(SESSION_ID).iter().collect();
    let &[id] = ids.as_slice() else {
        ledger.violate(Rule::Killed, format!("a DELETE of the layer with {} ids", ids.len()));
        return plain(StatusCode::BAD_REQUEST);
    };
    let id = String::from_utf8_lossy(id.as_bytes()).into_owned();
    let endings = ledger.settings.endings;
    let was_refused = {
        let mut book = ledger.book();
        if book.is_live(&id) && !book.loose.contains(&id) {
            book.violate(Rule::Killed, brief(&id));
        }
        let Some(kept) = book.kept.get_mut(&id) else { return plain(StatusCode::NOT_FOUND) };
        kept.is_asked = true;
        kept.is_ending = endings == Endings::Slow;
        std::mem::replace(&mut kept.is_refused, endings.refuses() || endings == Endings::Once)
    };
    let status = match endings {
        Endings::Accepted => StatusCode::ACCEPTED,
        Endings::NotFound => StatusCode::NOT_FOUND,
        Endings::Once if !was_refused => return plain(StatusCode::SERVICE_UNAVAILABLE),
        Endings::NoContent | Endings::Once => StatusCode::NO_CONTENT,
        Endings::NotAllowed => return plain(StatusCode::METHOD_NOT_ALLOWED),
        Endings::Fails => return plain(StatusCode::INTERNAL_SERVER_ERROR),
        Endings::Never => pending().await,
        Endings::Slow => {
            sleep(Duration::from_secs(3)).await;
            StatusCode::NO_CONTENT
        }
    };
    ledger.book().kept.remove(&id);
    plain(status)
}

/// What a request of a client may not bring. True if it asks for a session that only the server may know.
fn arrive(ledger: &Ledger, exchange: &Exchange, headers: &HeaderMap) -> bool {
    let mut book = ledger.book();
    book.arrived.insert(exchange.number);
    let ids: Vec<_> = headers.get_all(SESSION_ID).iter().map(HeaderValue::as_bytes).collect();
    if !ledger.settings.manages(exchange.sent.place) {
        let sent = exchange.ids.iter();
        for (name, id) in sent {
            if !headers.get_all(*name).iter().any(|value| value == id.as_str()) {
                book.violate(Rule::Touched, format!("{name} did not reach the server"));
            }
        }
        return false;
    }
    for name in headers.keys() {
        if folds_into(name, SESSION_ID) || folds_into(name, "mcp-protocol-version") {
            book.violate(Rule::Folded, name.as_str());
        }
    }
    let id = match ids.as_slice() {
        [] => return false,
        _ if exchange.is_modern() => {
            book.violate(Rule::Owner, "a modern request reached the server with an id");
            return false;
        }
        [id] => String::from_utf8_lossy(id).into_owned(),
        _ => {
            book.violate(Rule::Owner, format!("{} ids in one request", ids.len()));
            return false;
        }
    };
    let principal = ledger.settings.principal(exchange.sent.who);
    let is_forwarded = ledger.settings.forwards && !book.is_closed(&id);
    match book.owner(&id) {
        Some(owner) if owner == principal => false,
        Some(owner) => {
            let words = format!("{} of {owner:?} in a request of {principal:?}", brief(&id));
            book.violate(Rule::Owner, words);
            false
        }
        // It was closed on the way.
        None if exchange.is_own => false,
        None if is_forwarded => true,
        None => {
            book.violate(Rule::Owner, format!("{}, which is of no session", brief(&id)));
            false
        }
    }
}

fn answer(ledger: &Arc<Ledger>, exchange: &Exchange, restores: bool) -> Response<Body> {
    let script = exchange.script;
    let mut response = Response::new(Body::new(script.shape.body(ledger)));
    *response.status_mut() = StatusCode::from_u16(script.status.code()).unwrap_or_default();
    if let Some(kind) = script.shape.content_type() {
        response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    }
    let mut book = ledger.book();
    let is_managed = ledger.settings.manages(exchange.sent.place);
    if let Some(id) = exchange.id().filter(|_| is_managed) {
        if exchange.sent.verb == Verb::Delete && script.status.is_success() {
            book.kept.remove(id);
        } else if restores {
            restore(&mut book, exchange, id);
        }
    }
    for id in ids(&mut book, exchange, is_managed, restores) {
        if let Ok(value) = HeaderValue::from_bytes(id.as_bytes()) {
            response.headers_mut().append(SESSION_ID, value);
        }
    }
    let issued = response.headers().get_all(SESSION_ID).iter().count();
    book.issued.insert(exchange.number, issued);
    response
}

/// The server had the session all the time, if it says so.
fn restore(book: &mut Book, exchange: &Exchange, id: &str) {
    let script = exchange.script;
    let can_adopt = matches!(exchange.sent.verb, Verb::Get | Verb::Post);
    let is_mcp = script.shape.content_type() != Some("text/html");
    if !can_adopt || !is_mcp || !script.status.is_success() {
        return;
    }
    let says_nothing_else = matches!(script.issues, Issues::None | Issues::Own)
        && script.shape.is_result()
        && exchange.sent.message != Message::Initialize;
    if !says_nothing_else {
        book.loose.insert(id.to_owned());
    }
    book.named.insert(id.to_owned(), exchange.number);
    book.kept.insert(id.to_owned(), Kept::default());
}

/// The ids that the answer names. At an endpoint the new ones are sessions from here on.
fn ids(book: &mut Book, exchange: &Exchange, is_managed: bool, restores: bool) -> Vec<String> {
    let own = exchange.ids.first().map(|(_, id)| id.clone());
    let others = book.last_live(exchange.sent.who, false).map(|held| held.id);
    let mut fresh = |make: fn(String) -> String| {
        let id = make(book.fresh("inner"));
        Some(id)
    };
    let new = |id: String| id;
    let named: Vec<Option<String>> = match exchange.script.issues {
        Issues::None => vec![],
        Issues::Fresh => vec![fresh(new)],
        Issues::Own => vec![own.clone()],
        Issues::Others => vec![others],
        Issues::OwnAndFresh => vec![own.clone(), fresh(new)],
        Issues::TwoFresh => vec![fresh(new), fresh(new)],
        Issues::TooLong => vec![fresh(|id| format!("{id}-{}", "x".repeat(5_000)))],
        Issues::Jwt => vec![fresh(|id| format!("{id}-{}", "x".repeat(500)))],
        Issues::Spaced => vec![fresh(|id| format!("{id} spaced"))],
        Issues::Empty => return vec![String::new()],
        Issues::Closed => vec![book.last_closed()],
        Issues::OthersAndFresh => vec![others, fresh(new)],
    };
    let named: Vec<_> = named.into_iter().flatten().collect();
    for id in &named {
        let is_sent = own.as_ref() == Some(id);
        let echoes = is_sent && (exchange.is_own || restores);
        if is_managed && !echoes && !book.is_live(id) {
            // A server that gives out an id while it ends the session of that id: nobody knows which of the two ends.
            if book.kept.get(id).is_some_and(|kept| kept.is_ending) {
                book.loose.insert(id.clone());
            } else {
                book.loose.remove(id);
            }
            book.named.insert(id.clone(), exchange.number);
            book.kept.insert(id.clone(), Kept::default());
        }
    }
    named
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An id in words.
pub(super) fn brief(id: &str) -> String {
    let end = id.char_indices().nth(24).map_or(id.len(), |(at, _)| at);
    if end < id.len() { format!("{}... of {} bytes", &id[..end], id.len()) } else { id.to_owned() }
}
