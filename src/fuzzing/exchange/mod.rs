//! Whole exchanges through the layer, against a server that counts its own sessions.
//!
//! A run is a sequence of requests, each with the answer that the server will give to it, and of what operators do.
//! It goes through the public service, on paused time. After each exchange, and at the end, both sides have to have
//! the same sessions: see [`ledger::Rule`] for all that is promised. The table ([`table`]) runs every kind of request
//! against every kind of answer; the fuzzer runs sequences, also of requests that run beside each other.

#![allow(clippy::expect_used, clippy::panic, reason = "a run that breaks a promise must end")]

mod answer;
mod client;
mod expect;
mod ledger;
mod oracle;
mod request;
mod run;
mod server;
mod settings;
#[cfg(test)]
mod table;
mod words;

use std::time::Duration;

use self::{
    answer::{Delay, Issues, Script, Shape, Status},
    request::{IdSent, Message, Patience, Place, Sent, Verb, Version, Who},
    run::{Run, run},
    settings::{SETTINGS, Settings},
};

/// Bytes that a step is made of.
const STEP: usize = 12;

/// Longer sequences find nothing that shorter ones do not.
const LONGEST: usize = 40;

/// Spans that pass: up to what the layer waits for.
const SPANS: [Duration; 8] = [
    Duration::from_millis(10),
    Duration::from_millis(1),
    Duration::from_millis(100),
    Duration::from_secs(3),
    Duration::from_secs(15),
    Duration::from_secs(35),
    Duration::from_secs(61),
    Duration::from_secs(101),
];

/// Settings and a sequence of exchanges, done to a layer and a server.
///
/// # Panics
///
/// If a promise is broken, with all that led to it.
pub fn exchange(data: &[u8]) {
    let Some((settings, steps)) = data.split_first_chunk::<SETTINGS>() else { return };
    let (steps, _) = steps.as_chunks::<STEP>();
    let outcome = run(Settings::decode(*settings), async |run: &mut Run| {
        for step in steps.iter().take(LONGEST) {
            apply(run, *step).await?;
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        let violation = failure.violation;
        panic!("{}: {}\n{}", violation.rule, violation.words, failure.trace);
    }
}

/// A letter for each: `@` is the usual one.
async fn apply(run: &mut Run, step: [u8; STEP]) -> Result<(), ledger::Violation> {
    let [kind, verb, version, message, who, id, place, patience, status, shape, issues, delay] =
        step;
    let sent = Sent {
        verb: Verb::pick(verb),
        version: Version::pick(version),
        message: Message::pick(message),
        who: Who::pick(who),
        id: IdSent::pick(id),
        place: Place::pick(place),
        patience: Patience::pick(patience),
    };
    let script = Script {
        status: Status::pick(status),
        shape: Shape::pick(shape),
        issues: Issues::pick(issues),
        delay: Delay::pick(delay),
    };
    match kind & 31 {
        1 | 2 => run.beside(sent, script).await,
        3 => run.exchange(sent, script).await,
        4 => run.say_and_wait(SPANS[usize::from(verb % 8)]).await,
        5 => run.close_principal(sent.who),
        6 => run.close_all(),
        7 => run.rest(false).await,
        _ => {
            run.exchange(sent, script).await?;
            run.rest(false).await
        }
    }
}
