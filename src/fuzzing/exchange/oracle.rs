//! What has to be so: at every moment in which no task can go on, and when everything has come to rest.

use std::collections::BTreeSet;

use super::{
    ledger::{Book, Kept, Ledger, Rule, Violation},
    server::brief,
};

/// Ids that one answer may name. A session that comes of an answer is counted only when the answer has come, so
/// there may be as many too many at the server as its answers under way may bring.
const IDS_AN_ANSWER: usize = 2;

/// DELETEs that may be under way before others have to wait for their turn.
const ENDINGS_AT_ONCE: usize = 32;

/// What is wrong as soon as it is so. Nothing here may wait: sessions that idle out would hide it.
pub(super) fn at_once(ledger: &Ledger) {
    let mut book = ledger.book();
    let live: Vec<_> = book.named.keys().filter(|id| book.is_live(id)).cloned().collect();
    for id in &live {
        let is_known =
            book.kept.contains_key(id) || book.minted.contains(id) || book.loose.contains(id);
        let words = words_for(&book, id);
        if !is_known {
            book.violate(Rule::Phantom, words);
        } else if was_revoked(&book, id) {
            book.violate(Rule::Revoked, words);
        }
    }
    let count = book.sessions.as_ref().map_or(0, |sessions| sessions.len());
    if count > live.len() {
        book.violate(Rule::Phantom, format!("{count} live, {} named", live.len()));
    }
    let mut owners: Vec<_> = live.iter().filter_map(|id| book.owner(id).flatten()).collect();
    owners.sort();
    if owners.chunk_by(|a, b| a == b).any(|owned| owned.len() > ledger.settings.own_cap) {
        book.violate(Rule::Cap, format!("{owners:?}"));
    }
    let unasked =
        |(id, kept): &(&String, &Kept)| !kept.is_asked && !book.loose.contains(id.as_str());
    let unasked = book.kept.iter().filter(unasked).count();
    let under_way = book.waiting + book.calls + book.bodies;
    let most = ledger.settings.cap + IDS_AN_ANSWER * under_way;
    if unasked > most && book.endings < ENDINGS_AT_ONCE {
        book.violate(Rule::Excess, format!("{unasked} where {most} may be"));
    }
}

/// Whether it was being opened for somebody whose sessions were all closed meanwhile.
fn was_revoked(book: &Book, id: &str) -> bool {
    let (Some(owner), Some(&number)) = (book.owner(id), book.named.get(id)) else { return false };
    let revoked = book.revoked.get(&owner.unwrap_or_default());
    let exchange = book.exchanges.get(number);
    revoked.is_some_and(|revoked| number < *revoked)
        && exchange.is_some_and(|exchange| exchange.is_initialize())
}

/// Live sessions that no client has heard of, where none can hear of one any more.
pub(super) fn unreachable(ledger: &Ledger) -> BTreeSet<String> {
    let book = ledger.book();
    if book.waiting > book.staying || book.calls > 0 || book.bodies > book.staying {
        return BTreeSet::new();
    }
    let is_held = |id: &String| book.held.iter().any(|held| held.id == *id);
    let was_sent = |id: &String| {
        let mut ids = book.exchanges.iter().flat_map(|exchange| &exchange.ids);
        ids.any(|(_, sent)| sent == id)
    };
    let live = book.named.keys().filter(|id| book.is_live(id));
    live.filter(|id| !is_held(id) && !was_sent(id)).cloned().collect()
}

/// What is not so yet. `is_over`: the layer has closed everything.
pub(super) fn faults(ledger: &Ledger, is_over: bool) -> Vec<Violation> {
    let book = ledger.book();
    let Some(sessions) = book.sessions.clone() else { return Vec::new() };
    let stats = sessions.stats();
    let mut found = Vec::new();
    let mut fault = |rule, words: String| found.push(Violation { rule, words });
    for (id, kept) in &book.kept {
        let is_given_up = kept.is_refused && ledger.settings.endings.refuses();
        if !is_given_up && !book.loose.contains(id) && !book.is_live(id) {
            let words = if kept.is_asked { "did not agree at once" } else { "was not told" };
            fault(Rule::Ghost, format!("{}; it {words}", words_for(&book, id)));
        }
    }
    if book.waiting == 0 {
        let counts = (stats.in_flight, stats.streams, stats.opening, stats.closing);
        if counts != (0, 0, 0, 0) {
            let words = "in flight, streams, opening, closing";
            fault(Rule::Busy, format!("{words}: {counts:?}"));
        }
        if (book.calls, book.bodies) != (0, 0) {
            let words = format!("{} calls and {} bodies at the server", book.calls, book.bodies);
            fault(Rule::Busy, words);
        }
    }
    let permits = stats.live + stats.opening + stats.closing;
    if is_over && permits > 0 {
        fault(Rule::Permits, format!("{permits} of them"));
    }
    if is_over && book.waiting > 0 {
        fault(Rule::Outlived, format!("{} clients still read", book.waiting));
    }
    found
}

/// An id, and where it comes from.
pub(super) fn words_for(book: &Book, id: &str) -> String {
    let words = brief(id);
    match book.named.get(id) {
        Some(number) => format!("{words} of exchange {number}"),
        None => words,
    }
}
