//! Work that goes on when the call has been answered.

use serde_json::json;
use tokio::time::sleep;

use crate::{
    fault::{Asked, Fault, Load, SLACK, flag},
    stage::{ALICE, Stage},
};

pub(crate) const FAULTS: [Fault; 2] = [
    Fault {
        name: "work after the answer, GET stream open",
        done: "A tool answers at once, works on for 2.5 × idle, and then notifies its client, \
               which listens.",
        asked: &[
            Asked::yes("the notification arrives"),
            Asked::yes("the session is there afterwards"),
        ],
        setup: |_| {},
        run: |stage| Box::pin(listening(stage)),
        load: Load::Waits,
    },
    Fault {
        name: "work after the answer, nothing open",
        done: "The same for a client that comes back after 2.25 × idle. With the layer, the tool \
               takes a `Session::hold()`; rmcp has no such thing.",
        asked: &[Asked::yes("the session is there during the work")],
        setup: |_| {},
        run: |stage| Box::pin(holding(stage)),
        load: Load::Waits,
    },
];

async fn listening(stage: Stage) -> Vec<f64> {
    let id = stage.open(ALICE).await;
    let mut stream = stage.listen(ALICE, &id).await;
    let time = stage.idle(2.5);
    let begun = stage.call(ALICE, &id, "work", json!({ "ms": time.as_millis() as u64 })).await;
    assert_eq!(begun.1, "begun");
    let arrives = stream.hears("notifications/message", time + SLACK).await;
    vec![flag(arrives), flag(stage.serves(ALICE, &id).await)]
}

async fn holding(stage: Stage) -> Vec<f64> {
    let id = stage.open(ALICE).await;
    let time = stage.idle(2.5).as_millis() as u64;
    assert_eq!(stage.call(ALICE, &id, "work", json!({ "ms": time })).await.1, "begun");
    sleep(stage.idle(2.25)).await;
    vec![flag(stage.serves(ALICE, &id).await)]
}
