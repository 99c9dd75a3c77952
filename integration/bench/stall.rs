//! How long a name server takes to answer while mesozone publishes into it.
//!
//!     cargo bench --bench stall -- [bind|knot|powerdns]... [names=100000] [churn=20] [seconds=15]
//!
//! A thousand questions a second over UDP, in turn from sixteen ports, which a server that has several
//! threads shares out among them, each for one of 500 addresses that others keep in the zone. Time
//! runs from when a question was due, so that a server standing still delays all that come meanwhile.
//! First nothing is published; then `sync` publishes so many names; then `run`
//! follows a cluster of which so many tasks a second are replaced. The ratio is to the idle server.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

#[path = ".."]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod tests {
    pub(crate) mod peer;
    pub(crate) mod simulated;
    pub(crate) mod site;
}

#[expect(dead_code, reason = "others publish a script")]
mod names;
#[expect(dead_code, reason = "the load is measured by another")]
mod running;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use names::Load;
use peer::{Peer, Setup};
use running::Daemon;
use simulated::Simulated;
use site::Site;
use tempfile::TempDir;
use tests::{peer, simulated, site};

/// Addresses asked for, in turn.
const ASKED: usize = 500;
const CLIENTS: u32 = 16;
/// Between two questions.
const EVERY: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);
const TASKS: usize = 1_000;

struct Choice {
    peers: Vec<Peer>,
    names: usize,
    churn: usize,
    time: Duration,
}

fn choice() -> Choice {
    let time = Duration::from_secs(15);
    let mut choice = Choice { peers: Vec::new(), names: 100_000, churn: 20, time };
    // Cargo adds `--bench`.
    for arg in std::env::args().skip(1).filter(|arg| arg != "--bench") {
        let (key, number) = arg.split_once('=').unwrap_or((&arg, "0"));
        let number: usize = number.parse().expect("KEY=NUMBER");
        match key {
            "bind" => choice.peers.push(Peer::Bind),
            "knot" => choice.peers.push(Peer::Knot),
            "powerdns" => choice.peers.push(Peer::PowerDns),
            "names" => choice.names = number,
            "churn" => choice.churn = number,
            "seconds" => choice.time = Duration::from_secs(number as u64),
            _ => panic!("{arg}: a server, names=, churn= or seconds="),
        }
    }
    if choice.peers.is_empty() {
        choice.peers = Peer::ALL.to_vec();
    }
    choice
}

fn main() {
    let choice = choice();
    let dir = TempDir::new().expect("a temporary directory");
    let load = Load::of(choice.names, dir.path());
    println!(
        "{:<10}{:<14}{:>10}{:>9}{:>9}{:>9}{:>9}{:>8}  ",
        "server", "publishing", "questions", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "ratio"
    );
    for peer in &choice.peers {
        measure(*peer, &load, &choice);
    }
}

fn measure(peer: Peer, load: &Load, choice: &Choice) {
    let site = site(peer);
    let idle = while_running(&site, || rest(choice.time));
    let base = print(peer, "nothing", &idle, None, "");
    let mut note = String::new();
    let cold = while_running(&site, || {
        let output =
            site.command(&["-vv", "sync", "--state"]).arg(&load.state).output().expect("mesozone");
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let updated = stderr.lines().rev().find_map(|line| line.split_once("zone updated "));
        note = updated.map_or_else(String::new, |(_, told)| told.to_owned());
    });
    print(peer, "cold sync", &cold, Some(base), &note);
    drop(site);

    let site = self::site(peer);
    let (tasks, churn) = (TASKS.to_string(), format!("{}/s", choice.churn));
    let master = Simulated::start(&["--tasks", &tasks, "--churn", &churn]);
    site.follow(&[format!("http://{}", master.address)], "");
    let daemon = Daemon::start(site.command(&["run", "-vv"]));
    daemon.says("published");
    let (started, mut records) = (Instant::now(), 0);
    let steady = while_running(&site, || {
        while started.elapsed() < choice.time {
            let line = daemon.says("zone updated");
            let count = line.split("records=").nth(1).and_then(|rest| rest.split(' ').next());
            records += count.and_then(|count| count.parse::<usize>().ok()).expect("a count");
        }
    });
    let rate = records as f64 / started.elapsed().as_secs_f64();
    print(peer, "run", &steady, Some(base), &format!("{rate:.0} records a second"));
}

/// A server with the addresses that are asked for.
fn site(peer: Peer) -> Site {
    let records: String = (0..ASKED).map(|n| format!("{} IN A 192.0.2.1\n", asked(n))).collect();
    let site = Site::start(peer, &Setup { records: &records, ..Setup::default() });
    let (server, protect) = (site.peer.addr().to_string(), "protect = [\"asked-*.mesos\"]");
    site.configure(&server, site.peer.key_file(), protect, "");
    site
}

fn asked(n: usize) -> String {
    format!("asked-{n:03}")
}

/// How long each question waited that was due while something ran, sorted.
fn while_running(site: &Site, work: impl FnOnce()) -> Vec<Duration> {
    let (over, server, start) = (AtomicBool::new(false), site.peer.addr(), Instant::now());
    std::thread::scope(|scope| {
        let over = &over;
        let client = |n: u32| scope.spawn(move || ask(server, start + n * EVERY, over));
        let asking: Vec<_> = (0..CLIENTS).map(client).collect();
        work();
        over.store(true, Ordering::Release);
        let waited = asking.into_iter().flat_map(|client| client.join().expect("answers"));
        let mut waited: Vec<Duration> = waited.collect();
        waited.sort_unstable();
        waited
    })
}

fn ask(server: SocketAddr, mut due: Instant, over: &AtomicBool) -> Vec<Duration> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let mut waited = Vec::new();
    while !over.load(Ordering::Acquire) {
        rest(due.saturating_duration_since(Instant::now()));
        let mut reply = [0; 512];
        socket.send_to(&question(waited.len() % ASKED), server).expect("a loopback address");
        socket.recv(&mut reply).expect("an answer in time");
        assert!(reply[3] & 0x0f == 0 && reply[7] == 1, "no address in {reply:?}");
        waited.push(due.elapsed());
        due += CLIENTS * EVERY;
    }
    waited
}

#[expect(clippy::disallowed_methods, reason = "questions come at their times")]
fn rest(time: Duration) {
    std::thread::sleep(time);
}

fn question(n: usize) -> Vec<u8> {
    let mut message = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [&asked(n), "mesos", ""] {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend(label.as_bytes());
    }
    message.extend([0, 1, 0, 1]);
    message
}

/// A row; its p99.
fn print(peer: Peer, what: &str, waited: &[Duration], base: Option<f64>, note: &str) -> f64 {
    let millis = |at: usize| waited[at.min(waited.len() - 1)].as_secs_f64() * 1e3;
    let p99 = millis(waited.len() * 99 / 100);
    println!(
        "{:<10}{what:<14}{:>10}{:>9.2}{p99:>9.2}{:>9.2}{:>9.2}{:>8.1}  {note}",
        format!("{peer:?}"),
        waited.len(),
        millis(waited.len() / 2),
        millis(waited.len() * 999 / 1000),
        millis(waited.len() - 1),
        p99 / base.unwrap_or(p99),
    );
    p99
}
