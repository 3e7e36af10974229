//! What was recorded, and what has changed since.

use crate::{
    column::Column,
    fault::{Near, Unit},
    run::Seen,
};

/// Where rmcp alone does otherwise than recorded. The layer is measured by what it promises.
pub(crate) fn changes(recorded: &str, seen: &[Seen]) -> Vec<String> {
    let mut changes = Vec::new();
    for each in seen {
        let name = each.fault.name;
        let mut rows = rows(recorded).skip_while(|row| row[0] != format!("**{name}**"));
        if rows.next().is_none() {
            changes.push(format!("NOT RECORDED: {name}"));
            continue;
        }
        let rows: Vec<_> = rows.take(each.fault.asked.len()).collect();
        for (at, column) in Column::ALL.into_iter().enumerate() {
            if column == Column::Layered {
                continue;
            }
            for ((nth, asked), &figure) in
                each.fault.asked.iter().enumerate().zip(&each.figures[at])
            {
                let row = rows.get(nth).filter(|row| row[0] == asked.what);
                let was = row.map(|row| row[2 + at].trim_matches('*'));
                let Some(before) = was.and_then(Unit::parse) else {
                    changes.push(format!("NOT RECORDED: {name}: {}", asked.what));
                    continue;
                };
                if !is_near(asked.near, before, figure) {
                    let (what, is) = (asked.what, asked.unit.text(figure));
                    let (column, was) = (column.name(), was.unwrap_or_default());
                    let change = format!("{column}: {was} before, {is} now");
                    changes.push(format!("CHANGED: {name}: {what}: {change}"));
                }
            }
        }
    }
    changes
}

fn is_near(near: Near, before: f64, now: f64) -> bool {
    match near {
        Near::Any => true,
        // Also where both are infinite.
        _ if before == now => true,
        Near::Exact => false,
        Near::By(by) => (before - now).abs() <= by,
    }
}

/// The cells of each row of the table.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>()).filter(|row| row.len() == 5)
}
