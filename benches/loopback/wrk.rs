//! The load: `wrk`, 64 connections that stay, the sessions in turn.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde::Deserialize;

use crate::{processor, sessions::ACCEPT};

pub const CONNECTIONS: usize = 64;

/// Times in microseconds, as `wrk` has them.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Outcome {
    pub requests: u64,
    duration: f64,
    pub p50: f64,
    pub p99: f64,
    /// Of the server, for all of them.
    #[serde(skip)]
    pub processor: Duration,
}

impl Outcome {
    pub fn throughput(&self) -> f64 {
        self.requests as f64 / self.duration * 1e6
    }

    pub fn processor_micros(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.requests as f64
    }
}

/// Ends the program if it is not there.
pub fn find() {
    let mut wrk = Command::new("wrk");
    wrk.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = wrk.status() {
        eprintln!("cannot run wrk, which this bench loads its servers with: {error}");
        eprintln!("on Debian and Ubuntu: apt-get install wrk");
        process::exit(2);
    }
}

pub struct Load {
    url: String,
    script: PathBuf,
    ids: PathBuf,
}

impl Load {
    pub fn new(address: SocketAddr, ids: &[String]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = |extension| {
            let name = format!("mcp-loopback-{}-{number}.{extension}", process::id());
            std::env::temp_dir().join(name)
        };
        let load =
            Self { url: format!("http://{address}/mcp"), script: file("lua"), ids: file("ids") };
        fs::write(&load.script, include_str!("wrk.lua")).unwrap();
        fs::write(&load.ids, ids.join("\n")).unwrap();
        load
    }

    /// Panics if anything was answered but by 2xx.
    pub fn run(&self, seconds: u64) -> Outcome {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads=1", "--latency", "--timeout=5s"])
            .args([format!("--connections={CONNECTIONS}"), format!("--duration={seconds}s")])
            .arg(format!("--header=Accept: {ACCEPT}"))
            .arg("--header=Content-Type: application/json")
            .arg("--script")
            .args([&self.script, Path::new(&self.url), Path::new("--"), &self.ids]);
        // It runs where the thread may that starts it.
        let output = thread::scope(|scope| {
            let run = || {
                processor::keep_to(|cores| cores - 1..cores);
                wrk.output().unwrap()
            };
            scope.spawn(run).join().unwrap()
        });
        let text = String::from_utf8_lossy(&output.stdout);
        let told = text.lines().find_map(|line| line.strip_prefix("outcome: "));
        let told = told.filter(|_| output.status.success() && !text.contains("Non-2xx"));
        let told = told.filter(|_| !text.contains("Socket errors"));
        let Some(told) = told else {
            panic!("{} of wrk: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        };
        serde_json::from_str(told).unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // What stays behind is in the folder for that.
        let _ = (fs::remove_file(&self.script), fs::remove_file(&self.ids));
    }
}
