//! What is published: a Mesos state of so many names, and the records that mesozone makes of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Records that the others put into one message.
const SEND: usize = 500;
/// A task without ports has an A record at each of these many names.
const NAMES_OF_TASK: usize = 4;

pub(crate) struct Load {
    pub(crate) names: usize,
    pub(crate) state: PathBuf,
    /// As `mesozone records --format zone` prints them.
    pub(crate) records: Vec<String>,
}

impl Load {
    pub(crate) fn of(names: usize, dir: &Path) -> Load {
        let state = dir.join(format!("{names}.json"));
        std::fs::write(&state, cluster(names / NAMES_OF_TASK).to_string()).expect("a state");
        let config = dir.join("records.toml");
        std::fs::write(&config, "[mesos]\nmasters = [\"http://10.0.0.1:5050\"]\n").expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesozone"));
        command.arg("--config").arg(config).arg("records").arg("--state").arg(&state);
        let output = command.output().expect("mesozone runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("records in ASCII");
        Load { names, state, records: text.lines().map(str::to_owned).collect() }
    }

    /// Commands for `nsupdate` and `knsupdate`.
    pub(crate) fn script(&self, server: std::net::SocketAddr) -> String {
        let mut text = format!("server {} {}\nzone mesos.\n", server.ip(), server.port());
        for chunk in self.records.chunks(SEND) {
            for record in chunk {
                writeln!(text, "update add {record}").expect("writing to a String cannot fail");
            }
            text.push_str("send\n");
        }
        text
    }

    /// The records as `dig` tells of them after a transfer.
    pub(crate) fn transferred(&self) -> Vec<String> {
        let mut lines: Vec<_> =
            self.records.iter().map(|line| line.replace("\tIN\t", "\t")).collect();
        lines.sort_unstable();
        lines
    }
}

/// One framework's tasks, each with an address of its own.
fn cluster(tasks: usize) -> Value {
    let tasks: Vec<Value> = (0..tasks)
        .map(|n| {
            let address = format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
            json!({
                "id": format!("n{n:05}.1"), "name": format!("n{n:05}"),
                "slave_id": format!("x-S{}", n % 2), "state": "TASK_RUNNING", "resources": {},
                "statuses": [{"state": "TASK_RUNNING", "timestamp": 1.0, "container_status":
                    {"network_infos": [{"ip_addresses": [{"ip_address": address}]}]}}],
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
        "frameworks": [{"id": "f", "name": "bench", "pid": "scheduler(1)@10.0.0.9:9000",
            "tasks": tasks}],
    })
}
