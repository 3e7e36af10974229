//! What there is to tell, in this order.

use super::{
    common::Row,
    figures,
    plot::{Line, Panel},
    table,
};

pub const LAYER: &str = "the layer";
pub const FLOOR: &str = "floor";
pub const MOKA: &str = "moka";
pub const NO_OP: &str = "no-op layer";

pub struct Topic {
    pub name: String,
    pub title: String,
    /// Must have been measured of the layer; empty if anything will do.
    cases: &'static [&'static str],
    /// The cases and metrics of which there is a plot; empty for a plot of each metric.
    plots: &'static [(&'static str, &'static str)],
}

type Known =
    (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const KNOWN: &[Known] = &[
    (
        "touch",
        "A touch",
        &["threads: 1", "threads: 2"],
        &[("threads: 1", "ns a touch"), ("threads: 2", "ns a touch")],
    ),
    (
        "request",
        "A request",
        &["JSON", "SSE"],
        &[("JSON", "ns added over the no-op layer"), ("SSE", "ns added over the no-op layer")],
    ),
    ("allocations", "Allocations of a request", &["JSON", "SSE"], &[]),
    (
        "open_close",
        "Open and close",
        &[],
        &[
            ("handler, 1024 at once, threads: 1", "µs of processor time a session"),
            ("handler, 1024 at once, threads: 2", "µs of processor time a session"),
        ],
    ),
    (
        "reap",
        "Reaping",
        &["nothing due", "0.1 % due", "1 % due", "all due at once", "while all are opened"],
        &[
            ("nothing due", "µs a tick"),
            ("1 % due", "µs a tick"),
            ("all due at once", "ms for all"),
            ("all due at once", "µs, longest poll"),
        ],
    ),
    (
        "memory",
        "Memory",
        &["plain", "opened over HTTP, one stream open"],
        &[("plain", "bytes a session"), ("", "bytes a session")],
    ),
    (
        "loopback",
        "Over loopback",
        &[],
        &[
            ("", "requests a second"),
            ("", "µs of latency, 99th percentile"),
            ("", "µs of processor time a request"),
        ],
    ),
    ("instructions", "Instructions", &[], &[]),
];

/// The known, and then whatever else has left a file.
pub fn all() -> Vec<Topic> {
    let known = KNOWN.iter().map(|&(name, title, cases, plots)| Topic {
        name: name.to_owned(),
        title: title.to_owned(),
        cases,
        plots,
    });
    let others = figures::files().into_iter().filter(|file| KNOWN.iter().all(|one| one.0 != file));
    let others =
        others.map(|name| Topic { title: name.replace('_', " "), name, cases: &[], plots: &[] });
    known.chain(others).collect()
}

impl Topic {
    /// What ought to be there, and is not.
    pub fn missing(&self, rows: &[Row]) -> Vec<String> {
        if rows.is_empty() {
            return vec![self.name.clone()];
        }
        let measured = |case: &str| rows.iter().any(|row| row.subject == LAYER && row.case == case);
        let cases = self.cases.iter().filter(|case| !measured(case));
        let cases = cases.map(|case| format!("{}, {case}", self.name));
        // Nobody would miss a plot of what has another name now.
        let plots = self.all_panels(rows).into_iter().filter(|panel| panel.lines.is_empty());
        cases.chain(plots.map(|panel| format!("plot of {}", panel.title))).collect()
    }

    pub fn tables(&self, rows: &[Row]) -> String {
        match self.name.as_str() {
            "touch" => table::touch(rows),
            "request" => table::general(&table::added(rows)) + &table::general(rows),
            _ => table::general(rows),
        }
    }

    pub fn panels(&self, rows: &[Row]) -> Vec<Panel> {
        let mut panels = self.all_panels(rows);
        panels.retain(|panel| !panel.lines.is_empty());
        panels
    }

    fn all_panels(&self, rows: &[Row]) -> Vec<Panel> {
        let mut rows = rows.to_vec();
        if self.name == "request" {
            rows.extend(table::added(&rows));
        }
        let metrics = table::each(rows.iter().map(|row| row.metric.as_str()));
        let all: Vec<_> = metrics.into_iter().map(|metric| ("", metric)).collect();
        let plots = if self.plots.is_empty() { &all[..] } else { self.plots };
        plots.iter().map(|&(case, metric)| self.panel(&rows, case, metric)).collect()
    }

    /// One line for each subject, or for each subject and case if no case is named.
    fn panel(&self, rows: &[Row], case: &str, metric: &str) -> Panel {
        let of_it = |row: &&Row| row.metric == metric && (case.is_empty() || row.case == case);
        let rows: Vec<_> = rows.iter().filter(of_it).collect();
        let several = table::each(rows.iter().map(|row| &row.case)).len() > 1;
        let label = |row: &Row| match several {
            true => format!("{}, {}", row.subject, row.case),
            false => row.subject.clone(),
        };
        let lines = table::each(rows.iter().map(|row| label(row))).into_iter().map(|name| {
            let of_line = rows.iter().filter(|row| label(row) == name);
            let mut points: Vec<_> =
                of_line.clone().map(|row| (row.sessions as f64, row.median)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let ours = of_line.clone().any(|row| row.subject == LAYER);
            let variant = of_line.clone().any(|row| row.subject.starts_with(LAYER));
            let floor = of_line.clone().any(|row| row.subject.starts_with(FLOOR));
            Line { name, points, ours, variant, floor }
        });
        let title = match case {
            "" => format!("{}: {metric}", self.title),
            _ => format!("{}, {case}: {metric}", self.title),
        };
        let file = format!("{} {case} {metric}", self.name);
        Panel { file: slug(&file), title, unit: metric.to_owned(), lines: lines.collect() }
    }
}

/// What may stand in the name of a file anywhere.
fn slug(text: &str) -> String {
    let text = text.replace('µ', "u");
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-").to_lowercase()
}
