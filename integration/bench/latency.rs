//! How long after a task's start its name is answered, and what one such event costs.
//!
//!     cargo bench --bench latency -- [bind|knot|powerdns]... [TASKS]... [events=300]
//!
//! A simulated master of so many running tasks is asked to start one more. Time runs from just
//! before that request until the name server answers with the new name's address, so it holds the
//! master's own work and the question as well. The CPU time is that of mesozone alone, per event:
//! one task that starts, staged and then running.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

#[path = ".."]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod tests {
    pub(crate) mod peer;
    pub(crate) mod simulated;
    pub(crate) mod site;
}

#[expect(dead_code, reason = "the load is measured by another")]
mod running;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use peer::{Peer, Setup};
use running::Daemon;
use serde_json::json;
use simulated::Simulated;
use site::Site;
use tests::{peer, simulated, site};

/// So long a name may be missing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two events: each finds everything at rest.
const REST: Duration = Duration::from_millis(150);

fn main() {
    let (mut peers, mut sizes, mut events) = (Vec::new(), Vec::new(), 300);
    // Cargo adds `--bench`.
    for arg in std::env::args().skip(1).filter(|arg| arg != "--bench") {
        match arg.split_once('=').unwrap_or((&arg, "")) {
            ("bind", _) => peers.push(Peer::Bind),
            ("knot", _) => peers.push(Peer::Knot),
            ("powerdns", _) => peers.push(Peer::PowerDns),
            ("events", count) => events = count.parse().expect("events=NUMBER"),
            (size, _) => sizes.push(size.parse().expect("a server or a number of tasks")),
        }
    }
    if peers.is_empty() {
        peers = vec![Peer::Bind, Peer::Knot];
    }
    if sizes.is_empty() {
        sizes = vec![1_000, 100_000];
    }
    println!(
        "{:<10}{:>9}{:>8}{:>12}{:>9}{:>9}{:>15}",
        "server", "tasks", "events", "median ms", "p99 ms", "max ms", "CPU ms/event"
    );
    for peer in peers {
        sizes.iter().for_each(|tasks| measure(peer, *tasks, events));
    }
}

fn measure(peer: Peer, tasks: usize, events: usize) {
    let agents = (tasks / 100).max(3);
    let master =
        Simulated::start(&["--tasks", &tasks.to_string(), "--agents", &agents.to_string()]);
    let site = Site::start(peer, &Setup::default());
    let config = std::fs::read_to_string(site.config()).expect("a configuration");
    let config = config.replace("10.0.0.1:5050", &master.address);
    std::fs::write(site.config(), config.replace("check_interval = \"1s\"\n", "")).expect("a file");
    let daemon = Daemon::start(site.command(&["run"]));
    daemon.says("published");
    let start = |name: &str| {
        master.control(json!({"start": {"framework": "marathon", "name": name}}));
    };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    for event in 0..events / 10 {
        start(&format!("warm-{event}"));
        until_answered(&socket, site.peer.addr(), &format!("warm-{event}"));
    }
    rest(REST);
    let before = daemon.cpu();
    let mut took: Vec<Duration> = (0..events)
        .map(|event| {
            rest(REST);
            let (name, started) = (format!("event-{event}"), Instant::now());
            start(&name);
            until_answered(&socket, site.peer.addr(), &name);
            started.elapsed()
        })
        .collect();
    rest(REST);
    let cpu = (daemon.cpu() - before) / u32::try_from(events).expect("some events");
    took.sort_unstable();
    let millis = |at: usize| took[at].as_secs_f64() * 1e3;
    println!(
        "{:<10}{:>9}{:>8}{:>12.2}{:>9.2}{:>9.2}{:>15.3}",
        format!("{peer:?}"),
        tasks,
        events,
        millis(events / 2),
        millis(events * 99 / 100),
        millis(events - 1),
        cpu.as_secs_f64() * 1e3,
    );
}

#[expect(clippy::disallowed_methods, reason = "what is measured is one event at rest")]
fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// Asks again and again, one question at a time.
fn until_answered(socket: &UdpSocket, server: SocketAddr, name: &str) {
    let question = question(name);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut reply = [0; 512];
        socket.send_to(&question, server).expect("a loopback address");
        let length = socket.recv(&mut reply).expect("an answer in time");
        let answers = u16::from_be_bytes([reply[6], reply[7]]);
        if length > 12 && reply[3] & 0x0f == 0 && answers > 0 {
            return;
        }
        assert!(Instant::now() < deadline, "never answered: {name}");
        rest(Duration::from_micros(100));
    }
}

/// A plain question for the address of a Marathon task.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [name, "marathon", "mesos", ""] {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend(label.as_bytes());
    }
    message.extend([0, 1, 0, 1]);
    message
}
