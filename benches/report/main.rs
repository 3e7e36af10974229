//! Makes `BENCHMARKS.md` and its plots of what the other benches have left. `just bench report`.
//!
//! Fails if something was not measured, unless told `--partial`; what is missing is said either way.

#![allow(clippy::unwrap_used, reason = "a report that cannot be written has failed")]
#![allow(unreachable_pub, reason = "`pub` is as far as a program reaches")]

#[path = "../common/mod.rs"]
mod common;
mod figures;
mod machine;
mod plot;
mod table;
mod topics;

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    // A try-out must not overwrite what was measured.
    let out = if common::is_test() { common::folder().join("try-out") } else { root.clone() };
    let partial = common::is_test() || env::args().any(|argument| argument == "--partial");

    let mut report = text(&root, "intro");
    writeln!(report, "\n{}", machine::describe(&root)).unwrap();
    let mut missing = Vec::new();
    let plots = out.join("benches/plots");
    // Those that nothing shows any more go.
    drop(fs::remove_dir_all(&plots));
    fs::create_dir_all(&plots).unwrap();
    for topic in topics::all() {
        let rows = figures::of(&topic.name);
        writeln!(report, "## {}\n\n{}", topic.title, text(&root, &topic.name)).unwrap();
        writeln!(report, "`just bench {}`\n", topic.name).unwrap();
        for case in topic.missing(&rows) {
            writeln!(report, "**Not measured: {case}.**\n").unwrap();
            missing.push(case);
        }
        for panel in topic.panels(&rows) {
            let file = format!("{}.svg", panel.file);
            plot::draw(&plots.join(&file), &panel);
            writeln!(report, "![{}](benches/plots/{file})\n", panel.title).unwrap();
        }
        report += &topic.tables(&rows);
    }
    writeln!(report, "## What did not help\n\n{}", text(&root, "did_not_help")).unwrap();
    let file = out.join("BENCHMARKS.md");
    fs::write(&file, report.trim_end().to_owned() + "\n").unwrap();
    println!("{}", file.display());
    for case in &missing {
        println!("not measured: {case}");
    }
    if missing.is_empty() || partial { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was written by hand; of a topic that nobody knows, nothing.
fn text(root: &Path, name: &str) -> String {
    let file = root.join(format!("benches/report/text/{name}.md"));
    fs::read_to_string(file).unwrap_or_default()
}
