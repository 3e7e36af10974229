//! Clients that hang up while they open a session, or as soon as it is open.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use crate::{
    common::net::{Dice, ms},
    fault::{Asked, Bound, Fault, Load, Near, SLACK, Unit},
    sdk::{Leaves, hang_up},
    stage::Stage,
};

const LEAVERS: u64 = 300;
const LEFT_SOON: Asked = Asked::none("of 300, left idle and 2 s later", Near::By(60.0));

pub(crate) const FAULTS: [Fault; 3] = [
    Fault {
        name: "hang-up during a slow initialize",
        done: "`initialize` takes 400 ms; 300 clients leave after 0 to 200 of them. `unused_timeout` \
               is an hour.",
        asked: &[LEFT_SOON],
        setup: |setup| {
            setup.each = None;
            setup.unused = Duration::from_secs(3600);
            setup.initialize = ms(400);
        },
        run: |stage| {
            Box::pin(async move {
                all_hang_up(&stage, 100, |dice| dice.roll(201)).await;
                sleep(stage.idle(1.0) + SLACK).await;
                vec![stage.stats().await.left() as f64]
            })
        },
        load: Load::Works,
    },
    Fault {
        name: "hang-up at once, initialize takes 20 ms",
        done: "300 clients send `initialize` and leave, 4 at a time. `unused_timeout` \
               is an hour.",
        asked: &[LEFT_SOON],
        setup: |setup| {
            setup.each = None;
            setup.unused = Duration::from_secs(3600);
            setup.initialize = ms(20);
        },
        run: |stage| {
            Box::pin(async move {
                all_hang_up(&stage, 4, |_| 0).await;
                sleep(stage.idle(1.0) + SLACK).await;
                vec![stage.stats().await.left() as f64]
            })
        },
        load: Load::Works,
    },
    Fault {
        name: "hang-up around the answer",
        done: "`initialize` takes 20 ms; 300 clients leave 0 to 40 ms after they sent it, 16 at a \
               time. Who leaves after the answer cannot be told from one who thinks, and with the \
               layer a session may be unused for half of idle.",
        asked: &[
            Asked::new(
                "of 300, left when the last has gone",
                Unit::Count,
                Bound::Nothing,
                Near::Any,
            ),
            Asked::none("left idle and 2 s later", Near::By(150.0)),
        ],
        setup: |setup| {
            setup.each = None;
            setup.initialize = ms(20);
        },
        run: |stage| {
            Box::pin(async move {
                all_hang_up(&stage, 16, |dice| dice.roll(41)).await;
                let at_first = stage.stats().await.left();
                sleep(stage.idle(1.0) + SLACK).await;
                vec![at_first as f64, stage.stats().await.left() as f64]
            })
        },
        load: Load::Works,
    },
];

async fn all_hang_up(stage: &Stage, at_once: usize, after: fn(&mut Dice) -> u64) {
    let (mut dice, authority) = (Dice(7), stage.addr.to_string());
    let leavers = (0..LEAVERS).map(|_| {
        let how = if dice.roll(4) == 0 { Leaves::Resetting } else { Leaves::Closing };
        hang_up(&authority, how, ms(after(&mut dice)))
    });
    stream::iter(leavers).buffer_unordered(at_once).collect::<()>().await;
}
