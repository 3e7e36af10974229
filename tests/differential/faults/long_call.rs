//! A call that takes longer than a session may be idle.

use serde_json::json;

use crate::{
    fault::{Asked, Fault, Load, flag},
    stage::{ALICE, Stage},
};

const ASKED: &[Asked] =
    &[Asked::yes("the answer arrives"), Asked::yes("the session is there afterwards")];

pub(crate) const FAULTS: [Fault; 3] = [
    Fault {
        name: "a call longer than idle",
        done: "A tool works for 2.5 × idle, silently. No GET stream is open.",
        asked: ASKED,
        setup: |_| {},
        run: |stage| Box::pin(call(stage, 0.0, false)),
        load: Load::Waits,
    },
    Fault {
        name: "the same, reporting progress",
        done: "The tool sends a progress notification every quarter of idle, and the client has \
               asked for them.",
        asked: ASKED,
        setup: |_| {},
        run: |stage| Box::pin(call(stage, 0.25, false)),
        load: Load::Waits,
    },
    Fault {
        name: "the same, with the GET stream open",
        done: "The tool is silent, and the client reads its GET stream meanwhile.",
        asked: ASKED,
        setup: |_| {},
        run: |stage| Box::pin(call(stage, 0.0, true)),
        load: Load::Waits,
    },
];

async fn call(stage: Stage, report: f64, listens: bool) -> Vec<f64> {
    let id = stage.open(ALICE).await;
    let stream = if listens { Some(stage.listen(ALICE, &id).await) } else { None };
    let time = stage.idle(2.5).as_millis() as u64;
    let arguments = json!({ "ms": time, "report_ms": stage.idle(report).as_millis() as u64 });
    let answer = stage.call(ALICE, &id, "sleep", arguments).await;
    let is_there = stage.serves(ALICE, &id).await;
    drop(stream);
    vec![flag(answer.1 == "slept"), flag(is_there)]
}
