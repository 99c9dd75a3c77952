//! What a cluster costs: from a master's state to the zone ready, and staying there.
//!
//!     cargo bench --bench load -- [TASKS]... [rounds=3]
//!
//! `mesozone run` with its bundled server, so little but watching, once by the event stream
//! and once by polls. `ready` is CPU time and memory when the first snapshot is published;
//! `again` what each further whole reading of an unchanged cluster takes, with the most memory
//! there ever was.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

#[path = ".."]
#[expect(dead_code, reason = "the tests use the rest")]
mod tests {
    pub(crate) mod simulated;
}

mod running;

use std::path::Path;
use std::process::Command;

use running::Daemon;
use simulated::Simulated;
use tempfile::TempDir;
use tests::simulated;

fn main() {
    let (mut sizes, mut rounds) = (Vec::new(), 3);
    // Cargo adds `--bench`.
    for arg in std::env::args().skip(1).filter(|arg| arg != "--bench") {
        match arg.split_once('=').unwrap_or((&arg, "")) {
            ("rounds", count) => rounds = count.parse().expect("rounds=NUMBER"),
            (size, _) => sizes.push(size.parse().expect("a number of tasks")),
        }
    }
    if sizes.is_empty() {
        sizes = vec![1_000, 100_000, 150_000];
    }
    println!(
        "{:<8}{:>9}{:>10}{:>13}{:>11}{:>13}{:>10}",
        "by", "tasks", "records", "ready CPU s", "ready MiB", "again CPU s", "most MiB"
    );
    let dir = TempDir::new().expect("a temporary directory");
    for tasks in sizes {
        let agents = (tasks / 100).max(3);
        let (tasks, agents) = (tasks.to_string(), agents.to_string());
        let options = ["--tasks", &tasks, "--agents", &agents];
        let master = Simulated::start(&options);
        for by in ["stream", "poll"] {
            measure(by, &tasks, &master, rounds, dir.path());
        }
    }
}

fn measure(by: &str, tasks: &str, master: &Simulated, rounds: u32, dir: &Path) {
    let config = dir.join("mesozone.toml");
    let text = format!(
        "[mesos]\nmasters = [\"http://{}\"]\nwatch = \"{by}\"\n\
         poll_interval = \"3s\"\nreconcile_interval = \"3s\"\n\
         [server]\nlisten = [\"127.0.0.1:0\"]\n",
        master.address
    );
    std::fs::write(&config, text).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesozone"));
    command.args(["run", "-v", "--config"]).arg(&config).env("NO_COLOR", "1");
    let daemon = Daemon::start(command);
    let line = daemon.says("state read from");
    let (ready, (resident, _)) = (daemon.cpu(), daemon.resident());
    for _ in 0..rounds {
        daemon.says("state read from");
    }
    let again = (daemon.cpu() - ready) / rounds;
    let records = line.split("records=").nth(1).and_then(|rest| rest.split(' ').next());
    println!(
        "{by:<8}{tasks:>9}{:>10}{:>13.2}{resident:>11}{:>13.2}{:>10}",
        records.unwrap_or("?"),
        ready.as_secs_f64(),
        again.as_secs_f64(),
        daemon.resident().1,
    );
}
