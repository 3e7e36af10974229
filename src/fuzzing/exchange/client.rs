//! A client: sends one request, looks at the answer, and leaves when it has had enough.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::ServiceExt;

use super::{
    ledger::{Exchange, Got, Ledger, Rule},
    request::{Patience, SESSION_ID},
    server::{Server, brief},
};
use crate::{McpSessionService, SessionBody};

/// Longer than anything that the layer or the server takes, but for ever.
const LONG: Duration = Duration::from_secs(300);

/// After all that an endless body says.
const SILENCE: Duration = Duration::from_secs(1);

/// A client that is counted until it is through.
struct Waiting {
    ledger: Arc<Ledger>,
    stays: bool,
}

impl Waiting {
    fn new(ledger: &Arc<Ledger>) -> Self {
        ledger.book().waiting += 1;
        Self { ledger: Arc::clone(ledger), stays: false }
    }

    /// It has its answer, and reads on.
    fn stay(&mut self) {
        self.stays = true;
        self.ledger.book().staying += 1;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        book.waiting -= 1;
        book.staying -= usize::from(self.stays);
    }
}

pub(super) async fn attend(
    ledger: Arc<Ledger>,
    service: McpSessionService<Server>,
    exchange: Arc<Exchange>,
) {
    let mut waiting = Waiting::new(&ledger);
    let request = exchange.sent.request(exchange.number, &exchange.ids);
    let limit = match exchange.sent.patience {
        Patience::LeavesAtOnce => Duration::ZERO,
        Patience::LeavesSoon => Duration::from_millis(5),
        Patience::LeavesLate => Duration::from_secs(40),
        _ => LONG,
    };
    let answer = timeout(limit, service.oneshot(request)).await;
    ledger.count();
    let Ok(Ok(response)) = answer else { return };
    if ledger.settings.manages(exchange.sent.place) {
        look(&ledger, &exchange, &response);
    }
    if exchange.sent.patience == Patience::Stays {
        waiting.stay();
    }
    let got = note(&exchange, response).await;
    ledger.book().got.insert(exchange.number, got);
    drop(waiting);
}

/// What an answer may name.
fn look(ledger: &Ledger, exchange: &Exchange, response: &Response<SessionBody<Body>>) {
    let values: Vec<_> = response.headers().get_all(SESSION_ID).iter().collect();
    let mut book = ledger.book();
    if values.len() > 1 {
        book.violate(Rule::Repeated, format!("{} of them", values.len()));
    }
    let principal = ledger.settings.principal(exchange.sent.who);
    for value in values {
        if !value.is_sensitive() {
            book.violate(Rule::Unmarked, "a client got it");
        }
        let id = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let owner = book.owner(&id);
        // Somebody else may have closed it since it was given.
        let was_closed =
            !exchange.is_alone && owner.is_none() && book.closed_so_far() > exchange.closed_before;
        if owner != Some(principal.clone()) && !was_closed {
            let words = match owner {
                Some(owner) => format!("{} of {owner:?} came to {principal:?}", brief(&id)),
                None => format!("{} came to {principal:?}", brief(&id)),
            };
            book.violate(Rule::Leak, words);
        }
        // One that the layer made up was not new to the exchange that was last then.
        if book.minted.contains(&id) && !book.held.iter().any(|held| held.id == id) {
            book.named.insert(id.clone(), exchange.number);
        }
        book.hold(id, exchange);
    }
    // A session that only the server knew, until now.
    if let Some(id) = exchange.id().filter(|id| book.owner(id) == Some(principal)) {
        let id = id.to_owned();
        book.hold(id, exchange);
    }
}

async fn note(exchange: &Exchange, response: Response<SessionBody<Body>>) -> Got {
    let (head, mut body) = response.into_parts();
    let ids = head.headers.get_all(SESSION_ID);
    let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok());
    let mut got = Got {
        status: head.status.as_u16(),
        ids: ids.iter().count(),
        content_type: kind.map(str::to_owned),
        body: Bytes::new(),
        is_whole: false,
    };
    let (limit, most) = match exchange.sent.patience {
        Patience::DropsBody => return got,
        Patience::ReadsOne => (SILENCE, 1),
        Patience::Stays => (Duration::MAX, usize::MAX),
        _ if exchange.script.shape.ends() => (LONG, usize::MAX),
        _ => (SILENCE, usize::MAX),
    };
    let mut data = BytesMut::new();
    for _ in 0..most {
        match timeout(limit, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                data.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
            }
            Ok(end) => {
                got.is_whole = end.is_none();
                break;
            }
            Err(_) => break,
        }
    }
    got.body = data.freeze();
    got
}
