//! This program again, as a server in a process of its own.

use std::{
    env,
    io::{BufRead, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::server::Subject;

/// Ended when dropped; and ends by itself when this process does, for it loses its input.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub address: SocketAddr,
}

impl Program {
    pub fn start(subject: Subject) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["server", &subject.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let address = line(&mut output).parse().unwrap();
        Self { child, input, output, address }
    }

    /// What the server has had of the processor since it was started.
    pub fn processor_time(&mut self) -> Duration {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
        Duration::from_nanos(line(&mut self.output).parse().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        // If it is gone already, so much the better.
        let _ = self.child.wait();
    }
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the server has ended");
    line.trim_end().to_owned()
}
