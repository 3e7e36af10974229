//! What a session costs that does nothing.

use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use crate::{
    common::net::ms,
    fault::{Asked, Bound, Fault, Load, Near, Unit},
    stage::Stage,
};

const SESSIONS: usize = 1000;

pub(crate) const FAULTS: [Fault; 1] = [Fault {
    name: "1,000 idle sessions",
    done: "1,000 sessions are opened by 100 clients, which keep no connection.",
    asked: &[
        Asked::new("tasks a session", Unit::Count, Bound::Most(3.1), Near::By(0.5)),
        Asked::new("memory a session", Unit::Kib, Bound::Most(80.0), Near::By(25.0)),
    ],
    setup: |setup| {
        setup.cap = 2 * SESSIONS;
        setup.never_idle();
    },
    run: |stage| Box::pin(weigh(stage)),
    load: Load::Works,
}];

async fn weigh(mut stage: Stage) -> Vec<f64> {
    // What is made once is not to be counted.
    open(&stage, 50).await;
    stage.http = crate::sdk::http();
    sleep(ms(300)).await;
    let before = stage.stats().await;
    open(&stage, SESSIONS).await;
    stage.http = crate::sdk::http();
    sleep(ms(300)).await;
    let after = stage.stats().await;
    assert_eq!(after.left() - before.left(), SESSIONS);
    let sessions = SESSIONS as f64;
    vec![
        (after.tasks as f64 - before.tasks as f64) / sessions,
        (after.resident as f64 - before.resident as f64) / sessions,
    ]
}

async fn open(stage: &Stage, many: usize) {
    let all = (0..many).map(async |nth| {
        stage.open(&format!("client {many} {}", nth % 100)).await;
    });
    stream::iter(all).buffer_unordered(16).collect::<()>().await;
}
