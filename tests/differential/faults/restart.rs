//! A client that vanishes and comes again.

use tokio::time::sleep;

use crate::{
    fault::{Asked, Bound, Fault, Load, Near, SLACK, Unit},
    stage::{ALICE, Stage},
};

const RESTARTS: usize = 100;

pub(crate) const FAULTS: [Fault; 1] = [Fault {
    name: "a client restarted 100 times",
    done: "Each time it opens a session and its GET stream, calls a tool, and its process is gone: \
           no DELETE. With the layer a client may have 20 sessions, and the oldest goes first.",
    asked: &[
        Asked::new("times it got in", Unit::Count, Bound::Exactly(100.0), Near::Exact),
        Asked::new("most sessions at a time", Unit::Count, Bound::Most(21.0), Near::By(75.0)),
        Asked::none("left idle and 2 s later", Near::Exact),
    ],
    // A busy machine may take a while from `initialize` to what comes next.
    setup: |setup| setup.unused = setup.idle,
    run: |stage| Box::pin(restarts(stage)),
    load: Load::Works,
}];

async fn restarts(mut stage: Stage) -> Vec<f64> {
    let (mut got_in, mut most) = (0, 0);
    for _ in 0..RESTARTS {
        if let Some(id) = stage.try_open(ALICE).await {
            got_in += 1;
            stage.serves(ALICE, &id).await;
            drop(stage.get(ALICE, &id).send().await);
        }
        most = stage.stats().await.sessions.max(most);
        // With all its connections.
        stage.http = crate::sdk::http();
    }
    sleep(stage.idle(1.0) + SLACK).await;
    vec![f64::from(got_in), most as f64, stage.stats().await.left() as f64]
}
