//! Load in waves, for as long as one likes, and nothing stays.
//!
//! ```text
//! cargo test --release --test soak -- 60       # seconds
//! cargo test --release --test soak -- prove    # that each check can fail
//! ```
//!
//! A server process with rmcp behind the layer, and thousands of clients of whom 99 in 100 never say
//! goodbye: they vanish, hang up, or stop reading. After each wave everything must be as it was.

#![allow(clippy::unwrap_used, reason = "a program that cannot go on has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]

use std::{process::ExitCode, time::Duration};

#[path = "../load/mod.rs"]
mod load;

mod books;
mod client;
mod report;
mod tally;
mod verdict;
mod wave;

use books::Rules;
use load::{
    figures::{Figures, descriptors},
    ms,
    plant::Plant,
    program::{Program, want_descriptors},
    server::{Setup, run as serve},
};
use tokio::time::{Instant, sleep};
use verdict::{Complaint, Fault, Least, of_load, of_memory, of_wave};
use wave::{Plan, Target};

/// For connections of both ends, and then some.
const DESCRIPTORS: u64 = 12_000;
const RULES: Rules =
    Rules { idle: ms(1500), unused: ms(1200), stream_lifetime: ms(5000), max_lifetime: ms(7000) };

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    want_descriptors(DESCRIPTORS);
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", setup] => {
            serve(serde_json::from_str(setup).unwrap()).await;
            ExitCode::SUCCESS
        }
        ["prove"] => prove("").await,
        ["prove", only] => prove(only).await,
        [] => judge(&soak(&plan(60), None, LEAST).await),
        [seconds] => judge(&soak(&plan(seconds.parse().unwrap()), None, LEAST).await),
        _ => panic!("how many seconds, or `prove`"),
    }
}

const LEAST: Least = Least { streams: 2000, posts_per_second: 500 };

/// Six waves in a minute or so; longer ones where there is more time.
fn plan(seconds: u64) -> Plan {
    Plan {
        least_waves: 6,
        time: Duration::from_secs(seconds),
        load: if seconds < 300 { ms(3_500) } else { ms(12_000) },
        opens_per_second: 1000,
        rules: RULES,
        close_timeout: ms(2000),
    }
}

fn judge(complaints: &[Complaint]) -> ExitCode {
    for complaint in complaints {
        println!("FAILED {complaint}");
    }
    if !complaints.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("soak: nothing stayed");
    ExitCode::SUCCESS
}

async fn soak(plan: &Plan, plant: Option<Plant>, least: Least) -> Vec<Complaint> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let setup = Setup {
        idle: millis(plan.rules.idle),
        unused: millis(plan.rules.unused),
        stream_lifetime: millis(plan.rules.stream_lifetime),
        max_lifetime: millis(plan.rules.max_lifetime),
        heartbeat: 500,
        open_timeout: 5000,
        close_timeout: millis(plan.close_timeout),
        response_head: 60_000,
        max_sessions: 50_000,
        per_principal: None,
        plant,
    };
    let (mut server, at) = Program::server(&setup).await;
    // All that it does by itself is under way.
    sleep(ms(300)).await;
    let before = Figures::ask(at.ops).await;
    let pid = server.pid();
    // The reaper, a task of the layer, sleeps from the first session on.
    let target = Target { at, pid, descriptors: descriptors(pid), tasks: before.tasks + 1 };
    println!("{plan:?}");
    report::head();
    let (mut waves, mut complaints) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let (mut number, mut longest) = (0, ms(0));
    while number < plan.least_waves || start.elapsed() + longest < plan.time {
        number += 1;
        let begin = Instant::now();
        let wave = wave::run(plan, &target, number).await;
        longest = longest.max(begin.elapsed());
        report::line(&wave);
        complaints.extend(of_wave(&wave, &target));
        waves.push(wave);
        assert!(server.is_running(), "the server has ended");
        if complaints.iter().any(|complaint| complaint.fault == Fault::NotAtRest) {
            return complaints;
        }
    }
    complaints.extend(of_load(&waves, least));
    complaints.extend(of_memory(&waves));
    report::write(&waves);
    complaints
}

/// Breaks the server in each way there is a check for, and sees that the check finds it. With `only`,
/// in ways of that name.
async fn prove(only: &str) -> ExitCode {
    let rules =
        Rules { idle: ms(600), unused: ms(400), stream_lifetime: ms(800), max_lifetime: ms(1500) };
    let plan = Plan {
        least_waves: 6,
        time: ms(0),
        load: ms(1500),
        opens_per_second: 500,
        rules,
        close_timeout: ms(1000),
    };
    let least = Least { streams: 1, posts_per_second: 1 };
    let cases = [
        (None, None, 6),
        (Some(Plant::Hasty), Some(Fault::WrongNotFound), 1),
        (Some(Plant::Undying), Some(Fault::Undead), 1),
        (Some(Plant::Undying), Some(Fault::NotAtRest), 1),
        (Some(Plant::Deaf), Some(Fault::NotAtRest), 1),
        (Some(Plant::Failing), Some(Fault::Unexpected), 1),
        (Some(Plant::Open), Some(Fault::Descriptors), 1),
        (Some(Plant::Lingering), Some(Fault::Tasks), 1),
        (Some(Plant::Refusing), Some(Fault::Untold), 1),
        (Some(Plant::Leaking), Some(Fault::Heap), 6),
        (Some(Plant::Hoarding), Some(Fault::Resident), 6),
    ];
    let mut failures = 0;
    for (plant, fault, waves) in cases {
        if !format!("{plant:?}").contains(only) {
            continue;
        }
        let complaints = soak(&Plan { least_waves: waves, ..plan }, plant, least).await;
        let is_found = match fault {
            Some(fault) => complaints.iter().any(|complaint| complaint.fault == fault),
            None => complaints.is_empty(),
        };
        for complaint in &complaints {
            println!("  {complaint}");
        }
        let said = if is_found { "found" } else { "NOT FOUND" };
        println!("{plant:?}: {fault:?} {said}\n");
        failures += usize::from(!is_found);
    }
    if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
