//! The same faults against rmcp alone, as it comes and tuned, and against rmcp behind the layer.
//!
//! ```text
//! just differential            # runs all, prints the table, compares it with RESULTS.md
//! just differential-record     # the same, and writes RESULTS.md
//! just differential-real-time  # with an idle timeout of 5 min, rmcp's own; into REAL-TIME.md
//! ```
//!
//! It ends with an error if the layer does not hold what is asked of it, or if rmcp alone does
//! otherwise than what is recorded. Each server is a process of its own, on the loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/rmcp.rs"]
mod sdk;

mod column;
mod fault;
mod faults;
mod record;
mod report;
mod run;
mod server;
mod stage;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;

/// Faults against rmcp alone and behind the layer, side by side.
#[derive(Debug, Parser)]
struct Args {
    /// Compare with what is recorded (the default)
    #[arg(long, conflicts_with = "record")]
    check: bool,

    /// Record what was seen, instead of comparing with it
    #[arg(long)]
    record: bool,

    /// Only faults whose name has this in it
    #[arg(long, conflicts_with = "record")]
    only: Option<String>,

    /// The idle timeout of the layer, and the `keep_alive` of the tuned rmcp
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    idle: Duration,

    /// Where the record is
    #[arg(long, default_value_os_t = recorded())]
    file: PathBuf,

    /// Be a server, told how
    #[arg(long, hide = true)]
    serve: Option<String>,
}

fn recorded() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/differential/RESULTS.md")
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(setup) = args.serve {
        server::serve(serde_json::from_str(&setup).unwrap()).await;
        return ExitCode::SUCCESS;
    }
    let faults = faults::all()
        .filter(|fault| args.only.as_ref().is_none_or(|part| fault.name.contains(part.as_str())));
    let seen = run::all(faults.collect(), args.idle).await;
    let table = report::table(&seen);
    println!("{table}");

    let mut wrong = report::broken_promises(&seen);
    if args.record {
        std::fs::write(&args.file, report::document(&seen, args.idle)).unwrap();
        println!("recorded in {}", args.file.display());
    } else {
        let recorded = std::fs::read_to_string(&args.file).unwrap_or_default();
        wrong.extend(record::changes(&recorded, &seen));
    }
    for each in &wrong {
        eprintln!("{each}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
