//! A `mesozone run` and what it costs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(300);

/// The process; it ends with the value.
pub(crate) struct Daemon {
    process: Child,
    lines: Receiver<String>,
}

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Daemon {
        let mut process = command.stderr(Stdio::piped()).spawn().expect("mesozone runs");
        let stderr = BufReader::new(process.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Daemon { process, lines }
    }

    /// Waits for a line of the log that has `part` in it.
    pub(crate) fn says(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("never: {part}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// CPU time of all its threads, those that ended included.
    pub(crate) fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/task", self.process.id());
        let threads = std::fs::read_dir(path).expect("a running process");
        let nanos = threads.filter_map(|thread| {
            // Nanoseconds on a processor come first; a thread may end meanwhile.
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Resident memory in MiB: now, and the most there was.
    pub(crate) fn resident(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("a running process");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            let kib = line.split_whitespace().next().expect("a number");
            kib.parse::<u64>().expect("a number") / 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
