//! What goes wrong between mesozone and a name server, and how long it takes until the zone is the
//! desired one again.
//!
//!     cargo bench --bench faults -- [bind|knot|powerdns]... [fault=WORDS]
//!
//! The faults are those of the tests, each on a server of its own with records of others in the
//! zone. `zone s` runs from the end of the fault until the zone is the desired one, `well s` until
//! mesozone has said that all is well again; `messages` are those since the fault struck, with
//! the rest of the burst. `check_interval` is one second.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

#[path = ".."]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod tests {
    pub(crate) mod faults;
    pub(crate) mod peer;
    pub(crate) mod proxy;
    pub(crate) mod running;
    pub(crate) mod simulated;
    pub(crate) mod site;
}

use std::thread;

use peer::Peer;
use tests::{faults, peer, proxy, running, simulated, site};

fn main() {
    let (mut peers, mut words) = (Vec::new(), String::new());
    // Cargo adds `--bench`.
    for arg in std::env::args().skip(1).filter(|arg| arg != "--bench") {
        match arg.split_once('=').unwrap_or((&arg, "")) {
            ("bind", _) => peers.push(Peer::Bind),
            ("knot", _) => peers.push(Peer::Knot),
            ("powerdns", _) => peers.push(Peer::PowerDns),
            ("fault", part) => part.clone_into(&mut words),
            _ => panic!("{arg}: a server, or fault=WORDS"),
        }
    }
    if peers.is_empty() {
        peers = Peer::ALL.to_vec();
    }
    println!(
        "{:<52}{:<10}{:>7}{:>8}{:>10}{:>9}  what mesozone said",
        "fault", "server", "zone s", "well s", "messages", "foreign"
    );
    for scenario in faults::all().iter().filter(|scenario| scenario.fault.contains(&words)) {
        thread::scope(|scope| {
            let on = |peer: Peer| scope.spawn(move || scenario.on(peer));
            let played: Vec<_> = peers.iter().map(|peer| (*peer, on(*peer))).collect();
            for (peer, outcome) in played {
                let row = outcome.join().expect("a fault that ends").row();
                println!("{:<52}{:<10}{row}", scenario.fault, format!("{peer:?}"));
            }
        });
    }
}
