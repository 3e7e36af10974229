//! Where and with what it was measured.

use std::{fs, path::Path, process::Command, thread};

const PEERS: &[&str] = &[
    "axum",
    "criterion",
    "dashmap",
    "foldhash",
    "hyper",
    "moka",
    "rmcp",
    "tokio",
    "tokio-util",
    "tower",
];

pub fn describe(root: &Path) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let memory = memory.split(' ').next().and_then(|kib| kib.parse::<f64>().ok());
    let rows = [
        ("Date", run("date", &["-u", "+%Y-%m-%d"])),
        ("Processor", field("/proc/cpuinfo", "model name").unwrap_or_default()),
        ("Processors for us", cores.to_string()),
        ("Memory", memory.map_or_else(String::new, |kib| format!("{:.0} GiB", kib / 1048576.0))),
        ("Kernel", run("uname", &["-sr"])),
        ("Compiler", run("rustc", &["-V"])),
        ("Beside us", versions(root)),
    ];
    let mut table = "| | |\n| --- | --- |\n".to_owned();
    for (name, value) in rows {
        let value = if value.is_empty() { "unknown" } else { &value };
        table += &format!("| {name} | {value} |\n");
    }
    table
}

fn field(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |out| String::from_utf8_lossy(&out.stdout).trim().into())
}

/// Those that Cargo.lock names.
fn versions(root: &Path) -> String {
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    let quoted = |line: &str, key: &str| -> Option<String> {
        Some(line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
    };
    let lines: Vec<_> = lock.lines().collect();
    let versions = lines.windows(2).filter_map(|pair| {
        let name = quoted(pair[0], "name")?;
        let version = quoted(pair[1], "version")?;
        PEERS.contains(&name.as_str()).then(|| format!("{name} {version}"))
    });
    versions.collect::<Vec<_>>().join(", ")
}
