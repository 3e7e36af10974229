//! The table.

use std::{fmt::Write, time::Duration};

use crate::{column::Column, run::Seen};

/// What becomes of a fault, by what is asked for and by nothing else: the same for every column.
pub(crate) fn verdict(seen: &Seen, column: usize) -> &'static str {
    let figures = seen.fault.asked.iter().zip(&seen.figures[column]);
    let held: Vec<bool> =
        figures.filter_map(|(asked, &figure)| asked.holds(figure, seen.idle)).collect();
    match held.iter().filter(|&&held| held).count() {
        _ if held.is_empty() => "figures",
        n if n == held.len() => "holds",
        0 => "fails",
        _ => "partly",
    }
}

/// Verdicts in a row of each fault's own; a figure that is not what is asked for is bold.
pub(crate) fn table(seen: &[Seen]) -> String {
    let names = Column::ALL.map(Column::name).join(" | ");
    let mut table = format!("| fault | asked | {names} |\n| --- | --- | --- | --- | --- |\n");
    for each in seen {
        let verdicts = [0, 1, 2].map(|column| verdict(each, column)).join(" | ");
        let _ = writeln!(table, "| **{}** | | {verdicts} |", each.fault.name);
        for (at, asked) in each.fault.asked.iter().enumerate() {
            let figures = each.figures.each_ref().map(|figures| {
                let text = asked.unit.text(figures[at]);
                match asked.holds(figures[at], each.idle) {
                    Some(false) => format!("**{text}**"),
                    _ => text,
                }
            });
            let figures = figures.join(" | ");
            let _ = writeln!(table, "| {} | {} | {figures} |", asked.what, asked.bound_text());
        }
    }
    table
}

/// What the layer does not hold.
pub(crate) fn broken_promises(seen: &[Seen]) -> Vec<String> {
    let layered = Column::ALL.len() - 1;
    let mut broken = Vec::new();
    for each in seen {
        for (asked, &figure) in each.fault.asked.iter().zip(&each.figures[layered]) {
            if asked.holds(figure, each.idle) == Some(false) {
                let (name, what, figure) = (each.fault.name, asked.what, asked.unit.text(figure));
                let bound = asked.bound_text();
                broken.push(format!("BROKEN: {name}: {what}: {figure}, and {bound} is asked"));
            }
        }
    }
    broken
}

/// What is committed: the table, how to read it, and what is done for each row.
pub(crate) fn document(seen: &[Seen], idle: Duration) -> String {
    let by = if idle < Duration::from_secs(60) { "record" } else { "real-time" };
    let idle = humantime::format_duration(idle);
    let mut text = format!(
        "# rmcp alone, and behind the layer\n\nWritten by `just differential-{by}`, with an idle \
         timeout of {idle}.\n\n"
    );
    let (how, notes) = include_str!("notes.md").split_once("<!-- table -->").unwrap();
    let _ = write!(text, "{how}{}\n## What is done\n\n", table(seen));
    for each in seen {
        let _ = writeln!(text, "- **{}**: {}", each.fault.name, each.fault.done);
    }
    text + notes
}
