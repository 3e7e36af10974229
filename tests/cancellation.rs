//! Every exchange with rmcp, dropped after every poll, and nothing of it stays: no session on one
//! side only, nothing in flight, no permit out, no event without its other half.
//!
//! An exchange is a request and its answer read frame by frame. It is polled by hand, up to `k`
//! times, with the rest of the program run in between, and then dropped; `k` rises from 0 until
//! the exchange comes to its end. So every await point of the layer, and every frame, is one at
//! which a client has hung up. What else may happen at that moment is a [`Twist`].
//!
//! `CANCELLATION_ROUNDS` says how often all of it is done (`just cancellation`); each round has
//! another rhythm between the polls. Without it, two of the twists are a sample.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::{future::join_all, poll};
use tokio::time::sleep;

#[path = "cancellation/exchange.rs"]
mod exchange;
#[path = "cancellation/rig.rs"]
mod rig;

mod common;

use common::net::{Dice, ms};
use exchange::Exchange;
use rig::{Rig, Times};

/// Seeds of one round.
const SEEDS: u64 = 300;

/// What happens to the session, or to the layer, when the client hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twist {
    Nothing,
    /// An operator closes everything half way, and the client goes on until it hangs up.
    ClosedHalfWay,
    /// An operator closes everything just before.
    ClosedBefore,
    /// An operator closes everything just after.
    ClosedAfter,
    /// The idle timeout has passed since the exchange began.
    PastTheDeadline,
    /// The idle timeout runs out while the exchange goes on.
    AroundTheDeadline,
    /// The session is too old, whatever it does.
    TooOld,
    /// The layer is shutting down, and has not finished.
    ShuttingDown,
}

const TWISTS: [Twist; 8] = [
    Twist::Nothing,
    Twist::ClosedHalfWay,
    Twist::ClosedBefore,
    Twist::ClosedAfter,
    Twist::PastTheDeadline,
    Twist::AroundTheDeadline,
    Twist::TooOld,
    Twist::ShuttingDown,
];

impl Twist {
    fn is_in_the_sample(self) -> bool {
        matches!(self, Self::Nothing | Self::ClosedHalfWay | Self::AroundTheDeadline)
    }
}

/// What runs between two polls.
struct Rhythm {
    dice: Dice,
    /// Of ten breaths, so many let time pass; the others let every task that can run do a step.
    timed: u64,
}

impl Rhythm {
    fn new(seed: u64, times: Times) -> Self {
        // In real time a step is too short for anything to happen in.
        let timed = match times {
            Times::Paused => [3, 10, 6][seed as usize % 3],
            Times::Real => 8,
        };
        Self { dice: Dice(seed), timed }
    }

    async fn breathe(&mut self) {
        if self.dice.roll(10) < self.timed {
            sleep(ms(1)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Polls the exchange up to `k` times and drops it. True if it was over by then; and how many
/// sessions must be left, where that is certain.
async fn hang_up_after(
    k: usize,
    exchange: Exchange,
    twist: Twist,
    rig: &mut Rig,
    rhythm: &mut Rhythm,
) -> (bool, Option<usize>) {
    let id = rig.prepare(exchange).await;
    if twist == Twist::AroundTheDeadline {
        sleep(rig::IDLE_SOON - ms(rhythm.dice.roll(12))).await;
    }
    let answered = Arc::new(AtomicBool::new(false));
    let mut call = Box::pin(exchange.run(rig.service(), id, Arc::clone(&answered)));
    let mut over = false;
    for n in 0..k {
        if twist == Twist::ClosedHalfWay && n == k / 2 {
            rig.sessions.close_all();
        }
        over = poll!(&mut call).is_ready();
        if over {
            break;
        }
        rhythm.breathe().await;
    }
    let shutdown = match twist {
        Twist::ClosedBefore => {
            rig.sessions.close_all();
            None
        }
        Twist::PastTheDeadline => {
            sleep(rig::IDLE_SOON).await;
            None
        }
        Twist::TooOld => {
            sleep(rig::TOO_OLD).await;
            None
        }
        Twist::ShuttingDown => {
            let sessions = rig.sessions.clone();
            let shutdown = tokio::spawn(async move { sessions.shutdown(ms(50)).await });
            rhythm.breathe().await;
            Some(shutdown)
        }
        _ => None,
    };
    drop(call);
    if twist == Twist::ClosedAfter {
        rig.sessions.close_all();
    }
    if let Some(shutdown) = shutdown {
        shutdown.await.unwrap();
    }
    let left = exchange.leaves(k, answered.load(Ordering::SeqCst));
    (over, left.filter(|_| twist == Twist::Nothing))
}

/// Drops the exchange after every poll; how many there are.
async fn every_poll(exchange: Exchange, twist: Twist, times: Times, seed: u64) -> usize {
    let is_first = seed < SEEDS;
    let mut rig = Rig::new(twist, exchange, times, is_first).await;
    for k in 0.. {
        let what = format!("{exchange:?}, {twist:?}, {times:?}, seed {seed}: dropped at poll {k}");
        // The same rhythm up to the same poll: with paused time, poll `k` is always the same.
        let mut rhythm = Rhythm::new(seed, times);
        let (over, left) = hang_up_after(k, exchange, twist, &mut rig, &mut rhythm).await;
        rig.assert_clean(&what, left).await;
        if over {
            rig.finish().await;
            return k;
        }
        assert!(k < 10_000, "{what}: it does not come to its end");
        if twist == Twist::ShuttingDown {
            rig.finish().await;
            rig = Rig::new(twist, exchange, times, is_first).await;
        }
    }
    unreachable!()
}

fn rounds() -> Option<u64> {
    std::env::var("CANCELLATION_ROUNDS").ok().map(|rounds| rounds.parse().unwrap())
}

/// All of it, so many times; prints how often something was dropped.
async fn every_exchange(times: Times, twists: &[Twist]) {
    let mut drops = 0;
    let twists = twists.iter().filter(|twist| rounds().is_some() || twist.is_in_the_sample());
    for round in 0..rounds().unwrap_or(1) {
        for &twist in twists.clone() {
            let all = Exchange::ALL.map(|exchange| async move {
                // In a round, all have the same share of timed breaths.
                let seed = SEEDS * round + 3 * exchange as u64 + round % 3;
                let polls = every_poll(exchange, twist, times, seed).await;
                (exchange, polls)
            });
            let all = match times {
                Times::Real => join_all(all).await,
                // One by one: whoever sleeps moves the clock for all.
                Times::Paused => {
                    let mut done = Vec::new();
                    for one in all {
                        done.push(one.await);
                    }
                    done
                }
            };
            println!("{times:?}, {twist:?}: polls to the end: {all:?}");
            for (exchange, polls) in all {
                // Where nothing else ends it and nobody is late, an exchange has its fewest polls.
                let steady = (times, twist) == (Times::Paused, Twist::Nothing);
                let least = if steady { exchange.least_polls() } else { 1 };
                assert!(polls >= least, "{exchange:?}, {twist:?}: over after {polls} polls");
                drops += polls + 1;
            }
        }
    }
    println!("{times:?}: {drops} exchanges dropped");
}

#[tokio::test(start_paused = true)]
async fn an_exchange_dropped_after_any_poll_leaves_nothing() {
    every_exchange(Times::Paused, &[Twist::Nothing]).await;
}

#[tokio::test(start_paused = true)]
async fn an_exchange_dropped_after_any_poll_while_its_session_ends_leaves_nothing() {
    every_exchange(Times::Paused, &TWISTS[1..]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_exchange_dropped_after_any_poll_in_real_time_leaves_nothing() {
    every_exchange(Times::Real, &TWISTS).await;
}

/// The machine itself: something that is dropped too late would be dropped never.
#[tokio::test(start_paused = true)]
async fn the_polls_of_an_exchange_are_all_found() {
    let mut rig = Rig::new(Twist::Nothing, Exchange::Call, Times::Paused, true).await;
    let mut seen = Vec::new();
    for k in 0..200 {
        let mut rhythm = Rhythm::new(1, Times::Paused);
        let call = hang_up_after(k, Exchange::Call, Twist::Nothing, &mut rig, &mut rhythm);
        let (over, left) = call.await;
        seen.push(over);
        rig.assert_clean("", left).await;
    }
    let first = seen.iter().position(|&over| over).unwrap();
    assert!(first >= Exchange::Call.least_polls());
    assert!(seen[first..].iter().all(|&over| over), "over once, over with every more poll");
    rig.finish().await;
}
