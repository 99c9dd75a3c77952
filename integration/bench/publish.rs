//! How fast a zone is published, beside `nsupdate` and `knsupdate` in the same run, and what a
//! pass costs that finds nothing to do.
//!
//!     cargo bench --bench publish -- [bind|knot|powerdns]... [NAMES]... [rounds=5] [idle]
//!
//! Each client is timed as a process, from the outside. mesozone parses the state, reads the
//! zone, takes the fence, sends, and reads the zone again to verify it; the others have a script of
//! the same records ready, 500 a send. Every round has a fresh server for each client.
//! `OCTODNS_SYNC` may tell the path of an `octodns-sync` with octodns-bind beside it.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

#[path = ".."]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod tests {
    pub(crate) mod peer;
    pub(crate) mod proxy;
    pub(crate) mod site;
}

mod client;
mod idle;
mod names;

use std::time::Duration;

use client::{Client, Sample};
use names::Load;
use peer::Peer;
use tempfile::TempDir;
use tests::{peer, proxy, site};

/// What the command line chose.
struct Choice {
    peers: Vec<Peer>,
    sizes: Vec<usize>,
    rounds: usize,
    idle: bool,
}

/// Panics at a word it does not know.
fn choice(args: impl Iterator<Item = String>) -> Choice {
    let mut choice = Choice { peers: Vec::new(), sizes: Vec::new(), rounds: 5, idle: false };
    // Cargo adds `--bench`.
    let args: Vec<String> = args.filter(|arg| arg != "--bench").collect();
    for arg in &args {
        match arg.split_once('=').unwrap_or((arg, "")) {
            ("bind", _) => choice.peers.push(Peer::Bind),
            ("knot", _) => choice.peers.push(Peer::Knot),
            ("powerdns", _) => choice.peers.push(Peer::PowerDns),
            ("idle", _) => choice.idle = true,
            ("rounds", rounds) => choice.rounds = rounds.parse().expect("rounds=NUMBER"),
            (size, _) => choice.sizes.push(size.parse().expect("a server, a size, or idle")),
        }
    }
    if choice.peers.is_empty() {
        choice.peers = Peer::ALL.to_vec();
    }
    if choice.sizes.is_empty() && !choice.idle {
        choice.sizes = vec![10_000, 100_000];
        choice.idle = true;
    }
    choice
}

fn main() {
    let choice = choice(std::env::args().skip(1));
    let dir = TempDir::new().expect("a temporary directory");
    for size in &choice.sizes {
        let load = Load::of(*size, dir.path());
        println!("\ncold publish, {} records, {} rounds", load.records.len(), choice.rounds);
        println!(
            "{:<10}{:<11}{:>9}{:>9}{:>9}{:>8}  ",
            "server", "client", "median s", "best s", "CPU s", "ratio"
        );
        choice.peers.iter().for_each(|peer| publish(*peer, &load, choice.rounds));
    }
    if choice.idle {
        println!("\na pass with nothing to do");
        println!(
            "{:<10}{:>8}{:>14}{:>11}{:>11}{:>11}",
            "server", "names", "messages", "median ms", "p99 ms", "max ms"
        );
        for peer in choice.peers {
            for size in [1_000, 100_000] {
                idle::measure(peer, &Load::of(size, dir.path()));
            }
        }
    }
}

/// One server's rows: the ratio is to the quickest client but mesozone.
fn publish(peer: Peer, load: &Load, rounds: usize) {
    let clients = client::of(peer, load);
    let mut samples: Vec<Vec<Sample>> = clients.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..clients.len() {
            let at = (round + turn) % clients.len();
            samples[at].push(client::measure(clients[at], peer, load));
        }
    }
    let walls = |at: usize| samples[at].iter().map(|sample| sample.wall).collect::<Vec<_>>();
    let others = (0..clients.len()).filter(|at| clients[*at] != Client::Mesozone);
    let best = others.map(|at| median(walls(at))).min().expect("a client but mesozone");
    for (at, client) in clients.iter().enumerate() {
        let wall = median(walls(at));
        let cpu = median(samples[at].iter().map(|sample| sample.cpu).collect());
        println!(
            "{:<10}{:<11}{:>9.3}{:>9.3}{:>9.2}{:>8.2}  {}",
            format!("{peer:?}"),
            format!("{client:?}"),
            wall.as_secs_f64(),
            walls(at).into_iter().min().unwrap_or_default().as_secs_f64(),
            cpu.as_secs_f64(),
            wall.as_secs_f64() / best.as_secs_f64(),
            samples[at].last().map_or("", |sample| &sample.note),
        );
    }
}

pub(crate) fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
