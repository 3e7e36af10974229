//! The server is to stop, while a stream is open and a call in flight.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    column::Setup,
    common::net::ms,
    fault::{Asked, Bound, Fault, Load, Near, SLACK, Unit, flag, seconds},
    stage::{ALICE, Stage},
};

const CALL: Duration = Duration::from_millis(1500);

pub(crate) const FAULTS: [Fault; 1] = [Fault {
    name: "graceful shutdown",
    done: "One client has its GET stream open and a call in flight that takes 1.5 s more; calls \
           have a grace of 4 s. rmcp as it comes: axum's graceful shutdown. Tuned: that, and its \
           `cancellation_token` after the grace. The layer: `Sessions::shutdown`, then axum's.",
    asked: &[
        Asked::yes("the stream ends cleanly"),
        Asked::yes("the call is answered"),
        Asked::new("the process has ended after", Unit::Seconds, Bound::Most(3.5), Near::By(1.5)),
    ],
    setup: Setup::never_idle,
    run: |stage| Box::pin(shutdown(stage)),
    load: Load::Waits,
}];

async fn shutdown(mut stage: Stage) -> Vec<f64> {
    let id = stage.open(ALICE).await;
    let mut stream = stage.listen(ALICE, &id).await;
    let call =
        async { stage.call(ALICE, &id, "sleep", json!({ "ms": CALL.as_millis() as u64 })).await.1 };
    let stop = async {
        sleep(ms(200)).await;
        stage.stop().await;
        Instant::now()
    };
    let within = stage.setup.grace + SLACK;
    let (said, stopping, ended) = tokio::join!(call, stop, stream.ends(within));
    // Connections that do nothing keep no server from ending; the stream is one that does.
    let left = within.saturating_sub(stopping.elapsed());
    let exit = timeout(left.max(ms(100)), stage.child.wait()).await;
    let exit = exit.ok().filter(|exit| exit.as_ref().unwrap().success());
    vec![flag(ended), flag(said == "slept"), seconds(exit.map(|_| stopping.elapsed()))]
}
