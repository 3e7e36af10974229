//! Rows as a table.

use std::fmt::Write;

use super::{
    common::Row,
    topics::{FLOOR, LAYER, MOKA, NO_OP},
};

/// With as many digits as mean something.
pub fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Each of a kind once, in the order in which they come.
pub fn each<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut each = Vec::new();
    for one in all {
        if !each.contains(&one) {
            each.push(one);
        }
    }
    each
}

pub fn sizes(rows: &[Row]) -> Vec<u64> {
    let mut sizes = each(rows.iter().map(|row| row.sessions));
    sizes.sort_unstable();
    sizes
}

fn find<'a>(rows: &'a [Row], subject: &str, case: &str, sessions: u64) -> Option<&'a Row> {
    rows.iter().find(|row| row.subject == subject && row.case == case && row.sessions == sessions)
}

fn line(table: &mut String, cells: &[String]) {
    // "Mutex<HashMap>" is no HTML.
    writeln!(table, "| {} |", cells.join(" | ").replace('<', "&lt;")).unwrap();
}

fn head(table: &mut String, cells: &[String], left: usize) {
    line(table, cells);
    let rule = |at| if at < left { "---" } else { "---:" }.to_owned();
    line(table, &(0..cells.len()).map(rule).collect::<Vec<_>>());
}

fn median(row: Option<&Row>) -> String {
    row.map_or("–".to_owned(), |row| number(row.median))
}

fn ratio(of: Option<&Row>, to: Option<&Row>) -> String {
    let ratio = of.zip(to).map(|(of, to)| of.median / to.median);
    ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// A line for each number of sessions, a column for each subject, and how we stand to the floor and to
/// moka.
pub fn touch(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut subjects = each(rows.iter().map(|row| row.subject.as_str()));
    subjects
        .sort_by_key(|&subject| (subject != LAYER, !subject.starts_with(FLOOR), subject != MOKA));
    for case in each(rows.iter().map(|row| row.case.as_str())) {
        writeln!(text, "Median ns a touch, {case}:\n").unwrap();
        let mut cells = vec!["sessions".to_owned()];
        cells.extend(subjects.iter().map(|&subject| subject.to_owned()));
        cells.extend(["layer / floor".to_owned(), "layer / moka".to_owned()]);
        head(&mut text, &cells, 0);
        for size in sizes(rows) {
            let of = |subject: &str| find(rows, subject, case, size);
            let mut cells = vec![number(size as f64)];
            cells.extend(subjects.iter().map(|subject| median(of(subject))));
            cells.extend([ratio(of(LAYER), of(FLOOR)), ratio(of(LAYER), of(MOKA))]);
            line(&mut text, &cells);
        }
        text.push('\n');
    }
    text
}

/// As many ns more than behind a layer that does nothing, put there in the same way.
pub fn added(rows: &[Row]) -> Vec<Row> {
    let added = rows.iter().filter(|row| !row.subject.starts_with(NO_OP)).filter_map(|row| {
        let way = row.subject.strip_prefix(LAYER).unwrap_or_default();
        let floor = format!("{NO_OP}{way}");
        let mut floors = rows.iter().filter(|one| one.subject == floor && one.case == row.case);
        // What does nothing does not care how many sessions there are.
        let floor = floors.clone().find(|one| one.sessions == row.sessions).or(floors.next())?;
        let mut row = row.clone();
        row.metric = format!("ns added over the {NO_OP}");
        row.median -= floor.median;
        row.low -= floor.median;
        row.high -= floor.median;
        Some(row)
    });
    added.collect()
}

/// A table for each metric, and one for all that compare two subjects run by run.
pub fn general(rows: &[Row]) -> String {
    let compares = |metric: &str| metric.starts_with("ratio ") || metric.contains(" more, ");
    let (compared, rows): (Vec<_>, Vec<_>) =
        rows.iter().cloned().partition(|row| compares(&row.metric));
    let mut text = String::new();
    for metric in each(rows.iter().map(|row| row.metric.as_str())) {
        let rows: Vec<_> = rows.iter().filter(|row| row.metric == metric).cloned().collect();
        writeln!(text, "{}:\n", capitalized(metric)).unwrap();
        lines(&mut text, &rows);
    }
    if !compared.is_empty() {
        let rows = compared.into_iter().map(|row| Row { subject: row.metric.clone(), ..row });
        writeln!(text, "Two beside each other, run by run:\n").unwrap();
        lines(&mut text, &rows.collect::<Vec<_>>());
    }
    text
}

/// A line for each subject and case, a column for each number of sessions.
fn lines(text: &mut String, rows: &[Row]) {
    let sizes = sizes(rows);
    let mut cells = vec!["case".to_owned(), String::new()];
    cells.extend(sizes.iter().map(|&size| match size {
        0 => "no sessions".to_owned(),
        size => format!("{} sessions", number(size as f64)),
    }));
    head(text, &cells, 2);
    for case in each(rows.iter().map(|row| row.case.as_str())) {
        let subjects = rows.iter().filter(|row| row.case == case);
        for subject in each(subjects.map(|row| row.subject.as_str())) {
            let mut cells = vec![case.to_owned(), subject.to_owned()];
            cells.extend(sizes.iter().map(|&size| cell(rows, subject, case, size)));
            line(text, &cells);
        }
    }
    text.push('\n');
}

/// The median, the quartiles if there are any, and what it is of ours.
fn cell(rows: &[Row], subject: &str, case: &str, size: u64) -> String {
    let Some(row) = find(rows, subject, case, size) else { return String::new() };
    let mut cell = number(row.median);
    if row.low < row.high {
        write!(cell, " ({} – {})", number(row.low), number(row.high)).unwrap();
    }
    if let Some(ours) = find(rows, LAYER, case, size).filter(|_| subject != LAYER)
        && ours.median > 0.0
    {
        write!(cell, ", {}×", number(row.median / ours.median)).unwrap();
    }
    cell
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    // A unit keeps its case.
    match letters.next() {
        Some(first) if text.starts_with("bytes") || text.starts_with("allocations") => {
            first.to_uppercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}
