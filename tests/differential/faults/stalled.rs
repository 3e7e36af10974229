//! Clients that stop reading, while the server has much to say.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::{
    column::Setup,
    fault::{Asked, Bound, Fault, Load, Near, SLACK, Unit, flag, seconds},
    stage::{ALICE, Stage, Stalls},
};

/// rmcp gives a tool 5 s to end.
const FREED: Bound = Bound::Most(7.0);
const LOOK: Duration = Duration::from_secs(8);

const DELETED: &[Asked] = &[
    Asked::yes("DELETE is answered"),
    Asked::new("freed after DELETE", Unit::Seconds, FREED, Near::By(4.0)),
    Asked::new("or when the client hangs up as well", Unit::Seconds, FREED, Near::By(4.0)),
];

pub(crate) const FAULTS: [Fault; 4] = [
    Fault {
        name: "stalled GET stream, then DELETE",
        done: "The client stops reading its GET stream, the server floods it until nothing moves, \
               and another connection sends DELETE.",
        asked: DELETED,
        setup: |_| {},
        run: |stage| Box::pin(deleted(stage, Stalls::Get)),
        load: Load::Waits,
    },
    Fault {
        name: "stalled answer of a call, then DELETE",
        done: "The same with the event stream that answers a call.",
        asked: DELETED,
        setup: |_| {},
        run: |stage| Box::pin(deleted(stage, Stalls::Post)),
        load: Load::Waits,
    },
    Fault {
        name: "stalled GET stream, no DELETE",
        done: "The client stops reading and stays connected. With the layer, `stream_lifetime` is \
               idle as well: by default an open stream holds its session.",
        asked: &[Asked::new("freed after", Unit::Seconds, Bound::WithinIdle(2.0), Near::By(2.0))],
        setup: |setup| setup.stream_lifetime = Some(setup.idle),
        run: |stage| Box::pin(left_alone(stage)),
        load: Load::Waits,
    },
    Fault {
        name: "memory of stalled sessions",
        done: "Three times, 6 clients stop reading under a flood of 64 KiB messages and DELETE \
               their sessions; all stay connected. Memory is compared between the first time and \
               the last. What hyper holds for a connection that is not read stays in any case.",
        asked: &[
            Asked::none("sessions left", Near::By(6.0)),
            Asked::new("memory a stalled client", Unit::Kib, Bound::Nothing, Near::By(900.0)),
        ],
        setup: Setup::never_idle,
        run: |stage| Box::pin(waves(stage)),
        load: Load::Works,
    },
];

async fn deletes(stage: &Stage, id: &str) -> bool {
    let answer = timeout(Duration::from_secs(8), stage.delete(ALICE, id).send()).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status().is_success()))
}

async fn deleted(stage: Stage, how: Stalls) -> Vec<f64> {
    let (id, wire) = stage.stall(how).await;
    let answered = deletes(&stage, &id).await;
    let by_delete = stage.until_left(0, LOOK).await;
    drop(wire);
    let by_hang_up = stage.until_left(0, LOOK).await;
    vec![flag(answered), seconds(by_delete), seconds(by_hang_up)]
}

async fn left_alone(stage: Stage) -> Vec<f64> {
    let (_, wire) = stage.flood_unread(Stalls::Get).await;
    let freed = stage.until_left(0, stage.idle(2.0) + 2 * SLACK).await;
    drop(wire);
    vec![seconds(freed)]
}

async fn waves(stage: Stage) -> Vec<f64> {
    const WAVES: usize = 3;
    const CLIENTS: usize = 6;
    let (mut wires, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..WAVES {
        let stalled = join_all((0..CLIENTS).map(|_| stage.stall(Stalls::Get))).await;
        let (ids, connected): (Vec<_>, Vec<_>) = stalled.into_iter().unzip();
        wires.extend(connected);
        for id in &ids {
            deletes(&stage, id).await;
        }
        // No longer than it takes, where it ends at all.
        stage.until_left(0, SLACK / 2).await;
        resident.push(stage.stats().await.resident as f64);
    }
    let grown = resident[WAVES - 1] - resident[0];
    vec![stage.stats().await.left() as f64, grown / ((WAVES - 1) * CLIENTS) as f64]
}
