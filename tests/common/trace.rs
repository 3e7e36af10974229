//! What is left of a run for `tests/secrets.rs`, if `MCP_TRACE_DIR` names a directory: every line that was
//! logged, every event, listing and `Debug` output, and every id.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::{
    fs::{File, OpenOptions, create_dir_all},
    io::Write,
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

/// What a test of the checks leaks on purpose: `tests/secrets.rs` has to find it.
pub const PLANTED: &str = "planted";

/// Where runs are left, if they are.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os("MCP_TRACE_DIR").map(PathBuf::from)
}

/// Appends to what this process has emitted.
pub fn emitted(bytes: &[u8]) {
    static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    append(FILE.get_or_init(|| open("emitted")), bytes);
}

/// Appends to the ids that must not be found in it.
pub fn secret(id: &str) {
    static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    append(FILE.get_or_init(|| open("ids")), format!("{id}\n").as_bytes());
}

fn append(file: &Option<Mutex<File>>, bytes: &[u8]) {
    if let Some(file) = file {
        file.lock().unwrap().write_all(bytes).unwrap();
    }
}

fn open(kind: &str) -> Option<Mutex<File>> {
    let directory = directory()?;
    create_dir_all(&directory).unwrap();
    let test = std::env::current_exe().unwrap();
    let name = format!("{}.{kind}", test.file_stem().unwrap().to_str().unwrap());
    let file = OpenOptions::new().create(true).append(true).open(directory.join(name));
    Some(Mutex::new(file.unwrap()))
}
