//! One client that opens sessions and nothing else.

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use crate::{
    common::net::ms,
    fault::{Asked, Bound, Fault, Load, Near, SLACK, Unit, flag, seconds},
    stage::{ALICE, MALLORY, Stage},
};

const FLOOD: usize = 500;

pub(crate) const FAULTS: [Fault; 2] = [
    Fault {
        name: "a flood of initialize by one client",
        done: "500 `initialize`, 8 at a time, from one client; meanwhile another one opens \
               sessions, uses and ends them. Each client has a name, and with the layer may have \
               20 sessions; the cap is 100 for all, tuned or layered.",
        asked: &[
            Asked::new("most sessions at a time", Unit::Count, Bound::Most(40.0), Near::By(250.0)),
            Asked::new("the other one is always served", Unit::Flag, Bound::Yes, Near::Any),
            Asked::none("left idle and 2 s later", Near::By(60.0)),
            Asked::new("memory grown by", Unit::Mib, Bound::Nothing, Near::Any),
        ],
        setup: |setup| {
            setup.cap = 100;
            // A busy machine may take a while from `initialize` to what comes next.
            setup.unused = setup.idle;
        },
        run: |stage| Box::pin(named(stage)),
        load: Load::Works,
    },
    Fault {
        name: "a flood of initialize where nobody has a name",
        done: "The same, and nothing tells the two apart. The cap is 60 for all, tuned or layered; \
               with the layer a session may be unused for half of idle.",
        asked: &[
            Asked::new("most sessions at a time", Unit::Count, Bound::Most(60.0), Near::By(60.0)),
            Asked::new("of 100 tries, the other got in", Unit::Count, Bound::Nothing, Near::Any),
            Asked::new(
                "after the flood, it gets in after",
                Unit::Seconds,
                Bound::WithinIdle(1.0),
                Near::By(2.0),
            ),
            Asked::none("left idle and 2 s later", Near::By(60.0)),
        ],
        setup: |setup| {
            setup.each = None;
            setup.cap = 60;
        },
        run: |stage| Box::pin(nameless(stage)),
        load: Load::Works,
    },
];

/// Floods, and returns when the last answer is there.
async fn flood(stage: &Stage) {
    let calls = (0..FLOOD).map(|_| stage.initialize(MALLORY));
    stream::iter(calls).buffer_unordered(8).for_each(async |_| {}).await;
}

/// The most sessions there are, until dropped.
async fn most(stage: &Stage, most: &mut usize) {
    loop {
        *most = stage.stats().await.sessions.max(*most);
        sleep(ms(20)).await;
    }
}

/// One who comes and goes; whether it was served, each time.
async fn come_and_go(stage: &Stage, served: &mut Vec<bool>) {
    loop {
        served.push(match stage.try_open(ALICE).await {
            Some(id) => stage.serves(ALICE, &id).await && leaves(stage, &id).await,
            None => false,
        });
        sleep(ms(5)).await;
    }
}

async fn leaves(stage: &Stage, id: &str) -> bool {
    stage.delete(ALICE, id).send().await.unwrap().status().is_success()
}

/// The most sessions there were, and whether the other one was served each time.
async fn flood_and_watch(stage: &Stage) -> (usize, Vec<bool>) {
    let (mut peak, mut served) = (0, Vec::new());
    tokio::select! {
        () = flood(stage) => {}
        () = come_and_go(stage, &mut served) => {}
        () = most(stage, &mut peak) => {}
    }
    assert!(!served.is_empty());
    (stage.stats().await.sessions.max(peak), served)
}

async fn named(stage: Stage) -> Vec<f64> {
    let before = stage.stats().await.resident;
    let (peak, served) = flood_and_watch(&stage).await;
    let grown = stage.stats().await.resident.saturating_sub(before);
    sleep(stage.idle(1.0) + SLACK).await;
    let left = stage.stats().await.left();
    let always = served.iter().all(|&served| served);
    vec![peak as f64, flag(always), left as f64, grown as f64 / 1024.0]
}

async fn nameless(stage: Stage) -> Vec<f64> {
    let (peak, served) = flood_and_watch(&stage).await;
    let begin = Instant::now();
    let patience = stage.idle(1.0) + 2 * SLACK;
    let gets_in = loop {
        if let Some(id) = stage.try_open(ALICE).await {
            let after = begin.elapsed();
            assert!(leaves(&stage, &id).await);
            break Some(after);
        }
        if begin.elapsed() > patience {
            break None;
        }
        sleep(ms(20)).await;
    };
    sleep((stage.idle(1.0) + SLACK).saturating_sub(begin.elapsed())).await;
    let share = 100 * served.iter().filter(|&&served| served).count() / served.len();
    vec![peak as f64, share as f64, seconds(gets_in), stage.stats().await.left() as f64]
}
