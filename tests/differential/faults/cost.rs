//! What a client waits for its answers.

use tokio::time::Instant;

use crate::{
    column::Setup,
    fault::{Asked, Bound, Fault, Load, Near, Unit},
    stage::{ALICE, Stage},
};

const ROUNDS: usize = 100;

pub(crate) const FAULTS: [Fault; 1] = [Fault {
    name: "no fault: what it costs",
    done: "A client opens a session, calls a tool and sends DELETE, 100 times, on one connection \
           that stays open; the three columns at the same time. The median, of an unoptimised build.",
    asked: &[
        Asked::new("initialize", Unit::Millis, Bound::Nothing, Near::Any),
        Asked::new("a call", Unit::Millis, Bound::Nothing, Near::Any),
        Asked::new("DELETE", Unit::Millis, Bound::Nothing, Near::Any),
    ],
    setup: Setup::never_idle,
    run: |stage| Box::pin(cost(stage)),
    load: Load::Alone,
}];

async fn cost(stage: Stage) -> Vec<f64> {
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let id = stage.initialize(ALICE).await.unwrap();
        times[0].push(begin.elapsed());
        let begin = Instant::now();
        assert!(stage.serves(ALICE, &id).await);
        times[1].push(begin.elapsed());
        let begin = Instant::now();
        let deleted = stage.delete(ALICE, &id).send().await.unwrap();
        assert!(deleted.status().is_success());
        times[2].push(begin.elapsed());
    }
    times
        .map(|mut times| {
            times.sort_unstable();
            times[ROUNDS / 2].as_secs_f64() * 1000.0
        })
        .to_vec()
}
