//! A place to run mesozone in: a name server, a configuration, a Mesos state in a file.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::peer::{Peer, Running, Setup};

/// A name server and a configuration that publishes to it.
pub(crate) struct Site {
    pub(crate) peer: Running,
    dir: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The one line on stderr.
    #[track_caller]
    pub(crate) fn one_line(&self) -> &str {
        assert_eq!(self.stderr.lines().count(), 1, "{self:#?}");
        self.stderr.trim_end()
    }
}

impl Site {
    pub(crate) fn start(peer: Peer, setup: &Setup<'_>) -> Site {
        let site = Site { peer: peer.start(setup), dir: tempfile::tempdir().unwrap() };
        site.configure(&site.peer.addr().to_string(), site.peer.key_file(), "", "");
        site
    }

    /// A place beside a server that runs already, without a configuration.
    pub(crate) fn beside(peer: Running) -> Site {
        Site { peer, dir: tempfile::tempdir().unwrap() }
    }

    /// Writes the configuration: one target, more lines for it, more tables.
    pub(crate) fn configure(&self, server: &str, key: PathBuf, target: &str, more: &str) {
        let key = key.display();
        // A test that waits for a name to vanish says so.
        let more = match more.contains("[zone]") {
            true => more.replacen("[zone]", "[zone]\nhold_down = \"0s\"", 1),
            false => format!("[zone]\nhold_down = \"0s\"\n{more}"),
        };
        // And so does one that waits for an approval of what would go.
        let limit = if target.contains("max_shrink") { "" } else { "max_shrink = \"off\"\n" };
        let text = format!(
            "[mesos]\nmasters = [\"http://10.0.0.1:5050\"]\n\
             [[target]]\nname = \"lab\"\nserver = \"{server}\"\ntsig_key_file = \"{key}\"\n\
             check_interval = \"1s\"\n{limit}{target}\n{more}\n"
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// Has it read from these masters, with more lines for `[mesos]`.
    pub(crate) fn follow(&self, masters: &[String], mesos: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let (_, rest) = text.split_once("[[target]]").unwrap();
        let text = format!("[mesos]\nmasters = {masters:?}\n{mesos}\n[[target]]{rest}");
        std::fs::write(self.config(), text).unwrap();
    }

    /// Adds tables to the configuration.
    pub(crate) fn add(&self, tables: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), text + tables).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("mesozone.toml")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_with(&self.config(), args)
    }

    /// The same with another configuration.
    pub(crate) fn command_with(&self, config: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesozone"));
        command.arg("--config").arg(config).args(args).env("NO_COLOR", "1");
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Saves a state and runs a command on it.
    pub(crate) fn with(&self, state: &Value, args: &[&str]) -> Ran {
        let file = self.path("state.json");
        std::fs::write(&file, state.to_string()).unwrap();
        self.run(&[args, &["--state", file.to_str().unwrap()]].concat())
    }

    pub(crate) fn sync(&self, state: &Value) -> Ran {
        self.with(state, &["sync"])
    }

    pub(crate) fn diff(&self, state: &Value) -> Ran {
        self.with(state, &["diff"])
    }

    /// The records of the zone that mesozone publishes, as `records --format tsv` prints them,
    /// without those that were there before.
    pub(crate) fn published(&self, before: &[String]) -> String {
        let zone = self.peer.axfr().into_iter().filter(|line| !before.contains(line));
        let mut lines: Vec<String> = zone
            .filter_map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                let ours = ["A", "AAAA", "SRV", "PTR"].contains(&fields[2]);
                ours.then(|| format!("{}\t{}\t{}\n", fields[0], fields[2], fields[3]))
            })
            .collect();
        lines.sort();
        lines.concat()
    }
}

/// A state with one leader, two agents and these tasks of the framework `marathon`: name, and
/// the addresses that its status tells.
pub(crate) fn state(tasks: &[(&str, &[&str])]) -> Value {
    let tasks: Vec<Value> = tasks
        .iter()
        .enumerate()
        .map(|(at, (name, addresses))| {
            let addresses: Vec<Value> =
                addresses.iter().map(|address| json!({"ip_address": address})).collect();
            json!({
                "id": format!("{name}.{at}"), "name": name, "slave_id": format!("x-S{}", at % 2),
                "state": "TASK_RUNNING",
                "resources": {"ports": "[31000-31000]"},
                "statuses": [{"state": "TASK_RUNNING", "timestamp": 1.0,
                    "container_status": {"network_infos": [{"ip_addresses": addresses}]}}],
            })
        })
        .collect();
    json!({
        "id": "m1", "leader": "master@10.0.0.1:5050", "elected_time": 1.0,
        "slaves": [
            {"id": "x-S0", "pid": "slave(1)@10.0.1.1:5051"},
            {"id": "x-S1", "pid": "slave(1)@10.0.1.2:5051"},
        ],
        "recovered_slaves": [],
        "frameworks": [{"id": "f", "name": "marathon", "pid": "scheduler(1)@10.0.0.9:9000",
            "tasks": tasks}],
    })
}
