//! An attack on a server that others use, who must not notice.
//!
//! ```text
//! cargo test --release --test drill -- 6 3       # so many rounds of so many seconds calm and attack
//! cargo test --release --test drill -- prove     # that each check can fail
//! ```
//!
//! Three processes: the server (rmcp behind the layer, set up as in the production example), one
//! hundred well-behaved clients with names of their own, and the attacker, whom the operating system gives
//! what the others leave of the processor. In each round the clients are measured calm, while another
//! server (a fourth process) is attacked, and while theirs is: what the second takes is the
//! machine's, and only what the third takes on top of it is their server's.

#![allow(clippy::unwrap_used, reason = "a program that cannot go on has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]

use std::{net::SocketAddr, process::ExitCode, time::Duration};

#[path = "../load/mod.rs"]
mod load;

mod attacker;
mod clients;
mod verdict;

use clients::{Clients, Measured};
use load::{
    figures::{Figures, descriptors},
    ms,
    plant::Plant,
    program::{Program, want_descriptors},
    server::{Setup, run as serve},
};
use tokio::time::{Instant, sleep};
use verdict::{Fault, Round, Verdict};

/// Slow bodies on both ends, and then some.
const DESCRIPTORS: u64 = 8_000;
/// What the attacker gets, when the server or the clients want the processor too: nearly nothing.
const NICENESS: u8 = 19;
/// Until everything is over after the last round.
const PATIENCE: Duration = ms(15_000);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    want_descriptors(DESCRIPTORS);
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", setup] => {
            serve(serde_json::from_str(setup).unwrap()).await;
            ExitCode::SUCCESS
        }
        ["attacker", addr] => {
            attacker::run(addr.parse::<SocketAddr>().unwrap()).await;
            ExitCode::SUCCESS
        }
        ["prove"] => prove().await,
        [] => judge(&drill(6, ms(3000), None).await),
        [rounds, seconds] => {
            let span = Duration::from_secs_f64(seconds.parse().unwrap());
            judge(&drill(rounds.parse().unwrap(), span, None).await)
        }
        _ => panic!("two arguments or none: how many rounds, of how many seconds; or `prove`"),
    }
}

/// As in the production example, but for sizes that a flood can reach within seconds, and times that
/// it can outlive.
fn setup(plant: Option<Plant>) -> Setup {
    Setup {
        idle: 5_000,
        unused: 5_000,
        stream_lifetime: 60_000,
        max_lifetime: 300_000,
        heartbeat: 15_000,
        open_timeout: 5_000,
        close_timeout: 5_000,
        response_head: 60_000,
        max_sessions: 400,
        per_principal: Some(20),
        plant,
    }
}

fn judge(verdict: &Verdict) -> ExitCode {
    verdict.print();
    if verdict.faults().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn drill(rounds: usize, span: Duration, plant: Option<Plant>) -> Verdict {
    let (mut server, at) = Program::server(&setup(plant)).await;
    // All that it does by itself is under way.
    sleep(ms(300)).await;
    let before = Figures::ask(at.ops).await;
    let open = descriptors(server.pid());
    let addr = at.mcp.to_string();
    let mut attacker = Program::start(&["attacker", &addr], Some(NICENESS));
    let (_decoy, elsewhere) = Program::server(&setup(None)).await;
    let elsewhere = elsewhere.mcp.to_string();
    let mut feint = Program::start(&["attacker", &elsewhere], Some(NICENESS));
    let clients = Clients::start(at.mcp);
    sleep(ms(1000)).await;
    drop(clients.take());

    let mut measured: Vec<Round> = Vec::new();
    // On a machine that others use too, chance may have it that they were busier in the attacks.
    // Then twice as many rounds decide.
    while measured.len() < rounds
        || measured.len() < 2 * rounds && verdict::is_slow(&measured).next().is_some()
    {
        let calm = phase(&clients, span).await;
        feint.say("attack").await;
        let elsewhere = phase(&clients, span).await;
        feint.say("stop").await;
        drop(feint.line().await);
        sleep(ms(500)).await;
        drop(clients.take());
        attacker.say("attack").await;
        let attacked = phase(&clients, span).await;
        let figures = Figures::ask(at.ops).await;
        attacker.say("stop").await;
        let done = serde_json::from_str(&attacker.line().await).unwrap();
        let round = Round { calm, elsewhere, attacked, done, live: figures.live };
        round.print();
        measured.push(round);
        // What an attack leaves behind is not calm.
        sleep(ms(500)).await;
        drop(clients.take());
    }
    attacker.say("end").await;
    feint.say("end").await;
    let end = clients.end().await;
    let deadline = Instant::now() + PATIENCE;
    let mut rest = Figures::ask(at.ops).await;
    // The reaper, a task of the layer, sleeps from the first session on.
    while !(rest.is_at_rest()
        && rest.tasks <= before.tasks + 1
        && descriptors(server.pid()) <= open)
        && Instant::now() < deadline
    {
        sleep(ms(100)).await;
        rest = Figures::ask(at.ops).await;
    }
    assert!(server.is_running(), "the server has ended");
    let descriptors = (open, descriptors(server.pid()));
    Verdict { span, rounds: measured, end, before, rest, descriptors }
}

async fn phase(clients: &Clients, span: Duration) -> Measured {
    sleep(span).await;
    clients.take()
}

/// Breaks the server in ways that an attack would show, and sees that it is found.
async fn prove() -> ExitCode {
    let cases = [
        (None, None),
        (Some(Plant::Uncapped), Some(Fault::Errors)),
        (Some(Plant::Failing), Some(Fault::Errors)),
        (Some(Plant::Blocking), Some(Fault::Slow)),
        (Some(Plant::Deaf), Some(Fault::NotAtRest)),
        (Some(Plant::Lingering), Some(Fault::NotAtRest)),
        (Some(Plant::Open), Some(Fault::NotAtRest)),
    ];
    let mut failures = 0;
    for (plant, fault) in cases {
        let verdict = drill(3, ms(3000), plant).await;
        verdict.print();
        let faults = verdict.faults();
        let is_found = match fault {
            Some(fault) => faults.iter().any(|(found, _)| *found == fault),
            None => faults.is_empty(),
        };
        let said = if is_found { "found" } else { "NOT FOUND" };
        println!("{plant:?}: {fault:?} {said}\n");
        failures += usize::from(!is_found);
    }
    if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
