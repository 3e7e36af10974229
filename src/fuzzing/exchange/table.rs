//! Every kind of request against every kind of answer, each in a world of its own.

use std::{collections::BTreeMap, env};

use super::{
    answer::{Delay, Issues, Script, Shape, Status},
    request::{IdSent, Message, Patience, Place, Sent, Verb, Version, Who},
    run::{Failure, Run, run},
    settings::{Endings, Owners, Settings},
};

/// Exchanges of the table that a plain run of the tests looks at; `EXCHANGES` says another number.
const EXCHANGES: usize = 2_000;

/// To go through the table by. A prime that divides no length of it, so that each exchange comes once.
const STRIDE: usize = 7_368_787;

const USUAL: Settings = Settings {
    owners: Owners::Required,
    endings: Endings::Accepted,
    cap: 5,
    own_cap: 2,
    forwards: false,
    passes_missing: false,
    evicts: false,
    has_path: true,
    shuts_down: false,
};

const SETTINGS: [Settings; 8] = [
    USUAL,
    Settings { owners: Owners::Anonymous, endings: Endings::NoContent, ..USUAL },
    Settings { owners: Owners::None, has_path: false, ..USUAL },
    Settings { forwards: true, endings: Endings::NotFound, ..USUAL },
    Settings { passes_missing: true, has_path: false, ..USUAL },
    Settings { endings: Endings::Once, ..USUAL },
    Settings { evicts: true, cap: 3, endings: Endings::Slow, ..USUAL },
    Settings { forwards: true, owners: Owners::Anonymous, shuts_down: true, ..USUAL },
];

/// An honest `initialize`.
fn initialize(who: Who) -> Sent {
    Sent {
        verb: Verb::Post,
        version: Version::Absent,
        message: Message::Initialize,
        who,
        id: IdSent::None,
        place: Place::Endpoint,
        patience: Patience::Waits,
    }
}

/// And the usual answer to it.
const OPENS: Script =
    Script { status: Status::Ok, shape: Shape::Result, issues: Issues::Fresh, delay: Delay::None };

fn requests() -> Vec<Sent> {
    let mut requests = Vec::new();
    for &verb in Verb::ALL {
        // The body of one that has none is said by no message.
        let messages = match verb {
            Verb::Post => Message::ALL,
            Verb::Put => &Message::ALL[..3],
            _ => &Message::ALL[..1],
        };
        for &message in messages {
            for &version in Version::ALL {
                for &id in IdSent::ALL {
                    for (&who, &place) in Who::ALL.iter().zip(Place::ALL.iter().cycle()) {
                        let honest = initialize(who);
                        requests.push(Sent { verb, message, version, id, ..honest });
                        if id != IdSent::None {
                            requests.push(Sent { verb, message, version, id, place, ..honest });
                        }
                    }
                }
            }
        }
    }
    requests
}

fn answers() -> Vec<Script> {
    let mut answers = Vec::new();
    for &status in Status::ALL {
        for &shape in Shape::ALL {
            for &issues in Issues::ALL {
                answers.push(Script { status, shape, issues, delay: Delay::None });
            }
        }
    }
    answers
}

/// Those that most depends on: each of them against all that the server may say.
fn usual() -> Vec<(Sent, Script)> {
    let honest = initialize(Who::Alice);
    let call = Sent { message: Message::Call, id: IdSent::Own, ..honest };
    let requests = [
        honest,
        Sent { message: Message::Mark, ..honest },
        Sent { message: Message::Batch, version: Version::Modern, ..honest },
        Sent { message: Message::Call, version: Version::Modern, ..honest },
        Sent { id: IdSent::Own, ..honest },
        call,
        Sent { verb: Verb::Get, ..call },
        Sent { verb: Verb::Delete, ..call },
        Sent { verb: Verb::Get, id: IdSent::None, ..call },
    ];
    let statuses = [Status::Ok, Status::BadRequest, Status::NotFound];
    let shapes = [
        Shape::Result,
        Shape::Error,
        Shape::Events,
        Shape::ErrorEvents,
        Shape::EventsOfLength,
        Shape::Html,
    ];
    let answers = answers()
        .into_iter()
        .filter(|script| statuses.contains(&script.status) && shapes.contains(&script.shape));
    let all = |script| requests.into_iter().map(move |sent| (sent, script));
    answers.flat_map(all).collect()
}

/// Alice and Bob have a session each, and one of Bob's was closed.
async fn after_others(run: &mut Run, sent: Sent, script: Script) -> Outcome {
    let bob = initialize(Who::Bob);
    run.exchange(bob, OPENS).await?;
    let delete = Sent { verb: Verb::Delete, id: IdSent::Own, ..bob };
    let accepted = Script { issues: Issues::None, shape: Shape::Empty, ..OPENS };
    run.exchange(delete, accepted).await?;
    run.exchange(bob, OPENS).await?;
    run.exchange(initialize(Who::Alice), OPENS).await?;
    run.exchange(sent, script).await?;
    run.rest(false).await
}

type Outcome = Result<(), super::ledger::Violation>;

/// Each rule that was broken, how often, and how for the first time.
fn report(failures: Vec<Failure>) -> String {
    let mut broken = BTreeMap::<String, (usize, String)>::new();
    for Failure { violation, trace } in failures {
        let first = format!("{}\n{trace}", violation.words);
        broken.entry(violation.rule.to_string()).or_insert((0, first)).0 += 1;
    }
    let lines =
        broken.iter().map(|(rule, (times, first))| format!("{rule}, {times} times: {first}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn whatever_comes_and_whatever_is_answered_no_session_is_left_on_either_side() {
    let (requests, answers) = (requests(), answers());
    let all = requests.len() * answers.len() * SETTINGS.len();
    let count = env::var("EXCHANGES").ok().and_then(|count| count.parse().ok());
    let count = count.unwrap_or(EXCHANGES).min(all);
    let strides = (0..count).map(|n| n * STRIDE % all).map(|at| {
        let (request, rest) = (at % requests.len(), at / requests.len());
        let (answer, settings) = (rest % answers.len(), rest / answers.len());
        (SETTINGS[settings], requests[request], answers[answer])
    });
    let usual = usual().into_iter().map(|(sent, script)| (USUAL, sent, script));
    let exchanges: Vec<_> = usual.chain(strides).collect();
    // One that fails waits long for what never comes.
    let most = 100;
    let outcomes = exchanges.iter().map(|(settings, sent, script)| {
        run(*settings, async |run: &mut Run| after_others(run, *sent, *script).await)
    });
    let failures: Vec<_> = outcomes.filter_map(Result::err).take(most).collect();
    let broken = failures.len();
    assert!(
        failures.is_empty(),
        "{broken} of {} exchanges:\n{}",
        exchanges.len(),
        report(failures)
    );
}
