//! Somebody else knows a session id.

use serde_json::json;

use crate::{
    column::Setup,
    fault::{Asked, Fault, Load, flag},
    stage::{ALICE, MALLORY, Stage},
};

pub(crate) const FAULTS: [Fault; 1] = [Fault {
    name: "a stolen session id",
    done: "A client with another verified name uses the id. rmcp has no notion of an owner: a tool \
           may look at the `Parts` of its request, and GET and DELETE never reach one.",
    asked: &[
        Asked::no("the thief's call is answered"),
        Asked::no("the thief's GET is let in"),
        Asked::no("the thief's DELETE is accepted"),
        Asked::yes("the owner is served afterwards"),
    ],
    setup: Setup::never_idle,
    run: |stage| Box::pin(stolen(stage)),
    load: Load::Waits,
}];

async fn stolen(stage: Stage) -> Vec<f64> {
    let id = stage.open(ALICE).await;
    let call = stage.call(MALLORY, &id, "echo", json!({ "text": "hi" })).await;
    let get = stage.get(MALLORY, &id).send().await.unwrap().status();
    let delete = stage.delete(MALLORY, &id).send().await.unwrap().status();
    let owner = stage.serves(ALICE, &id).await;
    vec![flag(call.1 == "hi"), flag(get.is_success()), flag(delete.is_success()), flag(owner)]
}
