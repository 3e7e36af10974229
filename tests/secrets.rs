//! No id in anything that the whole suite made the layer emit: `just secrets`.
//!
//! Every test looks for its own ids already. This looks for those of every test in what all of
//! them have left, which includes what other processes have logged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/trace.rs"]
mod trace;

use std::{collections::HashSet, fs};

use aho_corasick::AhoCorasick;
use trace::{PLANTED, directory};

/// A shorter id may stand in a log by chance.
const UNGUESSABLE: usize = 16;

#[test]
fn no_id_is_in_anything_that_the_suite_emitted_but_the_planted_ones() {
    let directory = directory().expect("MCP_TRACE_DIR names where the suite was left");
    let files = |kind: &str| {
        let files = fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path());
        let of_kind = files.filter(|path| path.extension().is_some_and(|of| of == kind));
        let texts = of_kind.map(|path| {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), text)
        });
        texts.collect::<Vec<_>>()
    };
    let (ids, emitted) = (files("ids"), files("emitted"));
    let ids: HashSet<_> =
        ids.iter().flat_map(|(_, ids)| ids.lines()).filter(|id| id.len() >= UNGUESSABLE).collect();
    let secrets = AhoCorasick::new(&ids).unwrap();
    let (mut planted, mut lines, mut leaks) = (0, 0, Vec::new());
    for (test, text) in &emitted {
        for line in text.lines() {
            lines += 1;
            if !secrets.is_match(line) {
                continue;
            }
            if test.starts_with("checks-") && line.contains(PLANTED) {
                planted += 1;
            } else {
                leaks.push(format!("{test}: {line}"));
            }
        }
    }
    println!("{} ids, {lines} lines of {} programs", ids.len(), emitted.len());
    assert!(leaks.is_empty(), "an id got out:\n{}", leaks.join("\n"));
    // Twice, and so this would have seen others.
    assert_eq!(planted, 2, "what was leaked on purpose was not found");
    assert!(
        ids.len() > 1_000 && lines > 5_000 && emitted.len() > 12,
        "this was not the whole suite"
    );
}
