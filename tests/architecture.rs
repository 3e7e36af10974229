//! Imports run one way: protocol <- lifecycle <- middleware <- the handles on top.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

/// What a folder may not name. The rest of the crate sees all of them.
const RULES: [(&str, &[&str]); 3] = [
    ("src/protocol", &["crate::", "axum", "tower", "tokio", "hyper", "dashmap", "http_body"]),
    (
        "src/lifecycle",
        &[
            "crate::middleware",
            "crate::sessions",
            "crate::extract",
            "axum",
            "tower",
            "hyper",
            "http_body",
            "http",
        ],
    ),
    ("src/middleware", &["crate::extract", "hyper", "dashmap"]),
];

/// The layer's `sessions()` returns the handle on top: the one look upwards, by name.
const EXCEPTIONS: [(&str, &str); 1] = [("src/middleware/layer.rs", "crate::sessions::Sessions")];

fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// The code of a file, without comments and strings of tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let body = text.split("#[cfg(test)]").next().unwrap();
    body.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether `line` names `path`, as a word of its own and not as part of a longer one.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + path.len()..];
        let starts = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        let ends = path.ends_with("::") || after.starts_with("::");
        starts && ends
    })
}

fn violations(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, banned) in RULES {
        for (file, text) in sources(&root.join(folder)) {
            let name =
                file.strip_prefix(&format!("{}/", root.display())).unwrap_or(&file).to_owned();
            for (number, line) in code(&text) {
                let excused =
                    EXCEPTIONS.iter().any(|(at, use_)| name == *at && line.contains(use_));
                let hit = banned.iter().find(|path| names(line, path) || nested(line, path));
                let hit = hit.or_else(|| climbs(line).then_some(&"the root's re-exports"));
                if let Some(path) = hit.filter(|_| !excused) {
                    found.push(format!("{name}:{}: {path}: {line}", number + 1));
                }
            }
        }
    }
    found
}

/// `use crate::{middleware::x}`: the path stands apart from its root.
fn nested(line: &str, path: &str) -> bool {
    let Some(module) = path.strip_prefix("crate::").filter(|module| !module.is_empty()) else {
        return false;
    };
    let line = line.trim_start();
    line.starts_with(&format!("{module}::")) || line.contains(&format!("crate::{{{module}"))
}

/// `use crate::Session` is a way round: what the root re-exports may come from above.
fn climbs(line: &str) -> bool {
    line.match_indices("crate::").any(|(at, root)| {
        let next = line[at + root.len()..].trim_start_matches('{').chars().next();
        next.is_some_and(char::is_uppercase)
    }) || line.contains("super::super")
}

#[test]
fn imports_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(violations(root), Vec::<String>::new());
}

#[test]
fn the_check_above_can_fail() {
    let bad = std::env::temp_dir().join(format!("imports-{}", std::process::id()));
    for (folder, _) in RULES {
        fs::create_dir_all(bad.join(folder)).unwrap();
    }
    for (file, text) in [
        ("src/protocol/a.rs", "use crate::lifecycle::Clock;"),
        ("src/lifecycle/b.rs", "use crate::{\n    middleware::Slot,\n};"),
        ("src/lifecycle/c.rs", "fn f(body: axum::body::Body) {}"),
        ("src/lifecycle/d.rs", "use http::HeaderMap;"),
        ("src/lifecycle/f.rs", "use crate::McpSessionLayer;"),
        ("src/middleware/g.rs", "use super::super::extract::X;"),
        ("src/middleware/e.rs", "// crate::extract is fine in a comment\nuse crate::extract::X;"),
    ] {
        fs::write(bad.join(file), text).unwrap();
    }
    let found = violations(&bad);
    fs::remove_dir_all(&bad).unwrap();
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn a_guard_never_touches_the_map_and_only_the_registry_inserts_and_removes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut in_registry = 0;
    for (file, text) in sources(&root) {
        let is_registry = file.contains("lifecycle/registry/");
        for (number, line) in code(&text) {
            let touches = ["table().entry(", "table().remove", "table.entry(", "table.remove"]
                .iter()
                .any(|call| line.contains(call));
            assert!(!touches || is_registry, "{file}:{}: {line}", number + 1);
            in_registry += usize::from(touches);
        }
        if file.ends_with("lifecycle/guard.rs") {
            assert!(!code(&text).any(|(_, line)| line.contains("Registry")), "{file}");
        }
    }
    assert_eq!(
        in_registry, 2,
        "one place inserts and one removes: this test looks for them by name"
    );
}

/// Files of `src/middleware` with a line that has one of these words.
fn middleware_with(words: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/middleware");
    let mut files: Vec<_> = sources(&root)
        .into_iter()
        .filter(|(_, text)| {
            code(text).any(|(_, line)| words.iter().any(|word| line.contains(word)))
        })
        .map(|(file, _)| file.rsplit('/').next().unwrap().to_owned())
        .collect();
    files.sort();
    files
}

#[test]
fn the_inner_service_is_called_in_three_files_whose_answers_go_through_the_gate() {
    let calls = middleware_with(&["inner.call(", "service.call("]);
    assert_eq!(calls, ["detached.rs", "open.rs", "service.rs"]);
    // And once more, to end a session: that answer goes to nobody.
    assert_eq!(middleware_with(&[".oneshot("]), ["endpoint.rs"]);
}

#[test]
fn only_the_gate_puts_a_session_into_an_answer_or_takes_it_out() {
    let hands = middleware_with(&["insert(&SESSION_ID_HEADER", "remove(&SESSION_ID_HEADER"]);
    // `endpoint.rs` makes the closing DELETE, and `service.rs` strips modern requests.
    assert_eq!(hands, ["endpoint.rs", "gate.rs", "service.rs"]);
}
