//! Reads what was measured: the rows that benches wrote, and what criterion keeps.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::common::{self, Row};

/// The rows of a topic: of its file, of those named after it, and of criterion's groups "TOPIC, CASE".
pub fn of(topic: &str) -> Vec<Row> {
    let mut rows = common::load(topic).unwrap_or_default();
    let criterion = common::folder().with_file_name("criterion");
    let mut found = Vec::new();
    collect(&criterion, &mut found);
    found.sort();
    rows.extend(found.iter().filter_map(|folder| read(folder, topic)));
    if topic == "instructions" {
        rows.extend(counted());
    }
    rows
}

/// So many of each are counted in a row.
const ROUNDS: f64 = 100.0;

/// What callgrind has counted, from folders named "FUNCTION.CASE".
fn counted() -> Vec<Row> {
    const PLACE: &str = concat!("gungraun/", env!("CARGO_PKG_NAME"), "/instructions/instructions");
    let root = common::folder().with_file_name(PLACE);
    let folders = fs::read_dir(&root).into_iter().flatten().flatten();
    let mut names: Vec<_> = folders.filter_map(|one| one.file_name().into_string().ok()).collect();
    names.sort();
    let row = |name: String| {
        let file = root.join(&name).join(format!("callgrind.{name}.out"));
        let text = fs::read_to_string(file).ok()?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
        let count = total.split_whitespace().next()?.parse::<f64>().ok()? / ROUNDS;
        let (function, case) = name.split_once('.')?;
        let (what, subject) = match function.split_once("_through_a_") {
            Some((what, layer)) => (what, layer.replace("no_op", "no-op").replace('_', " ")),
            None => (function, "the layer".to_owned()),
        };
        let case = format!("{what}, {}", case.replace('_', " "));
        Some(Row::of(&subject, &case, 1_000, "instructions", &[count]))
    };
    names.into_iter().filter_map(row).collect()
}

/// The topics that have a file.
pub fn files() -> Vec<String> {
    let files = fs::read_dir(common::folder()).into_iter().flatten().flatten();
    let names = files.filter_map(|file| {
        let path = file.path();
        let json = path.extension().is_some_and(|extension| extension == "json");
        json.then(|| path.file_stem()?.to_str().map(str::to_owned)).flatten()
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Every folder that holds the last results of something.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.join("new/benchmark.json").is_file() {
            found.push(path.join("new"));
        } else if path.is_dir() {
            collect(&path, found);
        }
    }
}

fn read(folder: &Path, topic: &str) -> Option<Row> {
    let json = |file: &str| -> Option<Value> {
        serde_json::from_slice(&fs::read(folder.join(file)).ok()?).ok()
    };
    let benchmark = json("benchmark.json")?;
    let text = |key: &str| benchmark[key].as_str();
    let (named, case) = text("group_id")?.split_once(", ")?;
    if named != topic {
        return None;
    }
    let sample = json("sample.json")?;
    let numbers = |key: &str| -> Vec<f64> {
        sample[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let runs: Vec<_> = numbers("times").iter().zip(numbers("iters")).map(|(t, n)| t / n).collect();
    let sessions = text("value_str").and_then(|value| value.parse().ok()).unwrap_or(0);
    let metric = format!("ns a {}", topic.replace('_', " or "));
    let mut row = Row::of(text("function_id")?, case, sessions, &metric, &runs);
    row.median = json("estimates.json")?["median"]["point_estimate"].as_f64()?;
    Some(row)
}
