//! This program again, as another process.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::server::{Addresses, Setup};

/// Killed when dropped; and ends by itself when this process does, for it loses its input.
pub struct Program {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// With `niceness`, it gets what the others leave of the processor.
    pub fn start(args: &[&str], niceness: Option<u8>) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut command = match niceness {
            None => Command::new(this),
            Some(niceness) => {
                let mut command = Command::new("nice");
                command.arg(format!("-n{niceness}")).arg(this);
                command
            }
        };
        let mut child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, lines }
    }

    pub async fn server(setup: &Setup) -> (Self, Addresses) {
        let setup = serde_json::to_string(setup).unwrap();
        let mut server = Self::start(&["server", &setup], None);
        let addresses = serde_json::from_str(&server.line().await).unwrap();
        (server, addresses)
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub async fn line(&mut self) -> String {
        let line = self.lines.next_line().await.unwrap();
        line.unwrap_or_else(|| panic!("the other process has ended"))
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Files this process and those it starts may open. Ends the program where that is too few: with
/// fewer connections, less would be proven than is said.
pub fn want_descriptors(wanted: u64) {
    let most = rlimit::increase_nofile_limit(wanted).unwrap();
    if most < wanted {
        eprintln!("may open {most} files, and needs {wanted}: raise the hard limit (ulimit -Hn)");
        std::process::exit(2);
    }
}
