//! The everyday case: a client goes away and says nothing; or it is there and only listens.

use tokio::time::{Instant, sleep};

use crate::{
    common::net::ms,
    fault::{Asked, Bound, Fault, Load, Near, SLACK, Unit, flag, seconds},
    sdk::{read, tools_call},
    stage::{ALICE, Stage},
};

pub(crate) const FAULTS: [Fault; 3] = [
    Fault {
        name: "abandoned without DELETE",
        done: "A client opens a session, calls a tool, and goes away. Then it comes back with the \
               old id.",
        asked: &[
            Asked::new("freed after", Unit::Seconds, Bound::AfterIdle, Near::By(2.0)),
            Asked::yes("the old id is a 404"),
            Asked::yes("and the 404 is JSON-RPC"),
        ],
        setup: |_| {},
        run: |stage| Box::pin(abandoned(stage)),
        load: Load::Waits,
    },
    Fault {
        name: "a client that only listens",
        done: "A client reads its GET stream for 2.5 × idle and sends nothing, then calls a tool.",
        asked: &[
            Asked::yes("the stream stays open"),
            Asked::yes("the session is there afterwards"),
        ],
        setup: |_| {},
        run: |stage| Box::pin(listens(stage)),
        load: Load::Waits,
    },
    Fault {
        name: "a client that is slow to begin",
        done: "A client sends `initialize` and nothing else for 0.75 × idle, then calls a tool. With \
               the layer a session may be unused for half of idle: that is the price of what it \
               does about floods, and `unused_timeout` sets it.",
        asked: &[Asked::new(
            "the session is there afterwards",
            Unit::Flag,
            Bound::Nothing,
            Near::Exact,
        )],
        setup: |_| {},
        run: |stage| Box::pin(slow_to_begin(stage)),
        load: Load::Waits,
    },
];

async fn abandoned(stage: Stage) -> Vec<f64> {
    let id = stage.open(ALICE).await;
    let since = Instant::now();
    assert!(stage.serves(ALICE, &id).await);
    let freed = stage.until_left(0, stage.idle(1.0) + 2 * SLACK).await;
    let freed = freed.map(|_| since.elapsed());
    let call = tools_call("echo", &serde_json::json!({ "text": "hi" }));
    let lost = stage.post(ALICE, &call).header("mcp-session-id", &id).send().await.unwrap();
    let (status, message) = read(lost).await;
    // rmcp, while it has the session, answers.
    vec![seconds(freed), flag(status == 404), flag(status == 404 && message["error"].is_object())]
}

async fn listens(stage: Stage) -> Vec<f64> {
    let id = stage.open(ALICE).await;
    let mut stream = stage.listen(ALICE, &id).await;
    let stays = stream.stays(stage.idle(2.5)).await;
    sleep(ms(100)).await;
    vec![flag(stays), flag(stage.serves(ALICE, &id).await)]
}

async fn slow_to_begin(stage: Stage) -> Vec<f64> {
    let id = stage.initialize(ALICE).await.unwrap();
    sleep(stage.idle(0.75)).await;
    let initialized =
        serde_json::json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let request = stage.post(ALICE, &initialized).header("mcp-session-id", &id);
    let is_there = request.send().await.unwrap().status() == 202;
    vec![flag(is_there && stage.serves(ALICE, &id).await)]
}
