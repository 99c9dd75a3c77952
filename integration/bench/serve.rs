//! What an answer costs: the bundled server beside Knot, NSD and BIND with the same zone.
//!
//!     cargo bench --bench serve -- [RECORDS]... [rounds=5] [queries=100000] [seconds=4]
//!
//! Every server has one thread on one core, the generator has another. All run at once and are
//! asked in turn, so many queries each in every round: addresses, services and names that do not
//! exist, each with EDNS and without. The cost is the processor time that the kernel counts for the
//! server's process. Knot, BIND and mesozone add the addresses of a service's host, and none adds
//! what it was not asked for else; NSD then leaves these out as well. Then mesozone is asked for
//! some seconds while 500 records a second change, and for some while none do, in turns.

#![expect(clippy::print_stdout, reason = "the figures are for people")]

#[path = ".."]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod tests {
    pub(crate) mod peer;
}

#[path = "serve/flood.rs"]
mod flood;
#[path = "serve/stand.rs"]
mod stand;

use std::time::Duration;

use flood::{Kind, flood, latencies};
use stand::{Server, Stand};
use tests::peer;

const CHURN: usize = 500;

struct Choice {
    records: Vec<usize>,
    rounds: usize,
    queries: usize,
    time: Duration,
}

fn choice() -> Choice {
    let time = Duration::from_secs(4);
    let mut choice = Choice { records: Vec::new(), rounds: 5, queries: 100_000, time };
    // Cargo adds `--bench`.
    for arg in std::env::args().skip(1).filter(|arg| arg != "--bench") {
        let (key, number) = arg.split_once('=').unwrap_or(("records", &arg));
        let number: usize = number.parse().expect("a number, or KEY=NUMBER");
        match key {
            "records" => choice.records.push(number),
            "rounds" => choice.rounds = number,
            "queries" => choice.queries = number,
            "seconds" => choice.time = Duration::from_secs(number as u64),
            _ => panic!("{arg}: a number of records, rounds=, queries= or seconds="),
        }
    }
    if choice.records.is_empty() {
        choice.records = vec![1_000, 100_000, 1_000_000];
    }
    choice
}

fn main() {
    if let Some(("child", rest)) =
        std::env::args().nth(1).as_deref().and_then(|arg| arg.split_once(' '))
    {
        return stand::child(rest);
    }
    let choice = choice();
    stand::pin_to_core(1);
    for records in &choice.records {
        let stand = Stand::start(*records);
        println!("\n{records} records; processor time a query in microseconds, median [range]");
        print!("{:<16}", "");
        Server::ALL.iter().for_each(|server| print!("{:<22}", server.name()));
        println!("queries a second, best: {}", Server::ALL.map(Server::name).join(", "));
        for kind in Kind::ALL {
            compare(&stand, kind, *records, &choice);
        }
        let kib = stand.ours_over_zone();
        println!("memory on top of the zone: {:.1} MB", kib as f64 / 1e3);
        change(&stand, *records, &choice);
    }
}

/// One row: every server in turn, several times.
fn compare(stand: &Stand, kind: Kind, records: usize, choice: &Choice) {
    let questions = kind.questions(records, choice.queries);
    let mut costs: [Vec<f64>; 4] = Default::default();
    let mut speeds: [Vec<f64>; 4] = Default::default();
    for round in 0..=choice.rounds {
        for (at, server) in Server::ALL.into_iter().enumerate() {
            let before = stand.cpu(server);
            let took = flood(stand.addr(server), &questions, kind.answers());
            let cpu = stand.cpu(server) - before;
            // The first round fills caches.
            if round > 0 {
                costs[at].push(cpu.as_secs_f64() * 1e6 / questions.len() as f64);
                speeds[at].push(questions.len() as f64 / took.as_secs_f64());
            }
        }
    }
    print!("{:<16}", kind.name());
    for costs in &mut costs {
        costs.sort_unstable_by(f64::total_cmp);
        let (median, last) = (costs[costs.len() / 2], costs[costs.len() - 1]);
        print!("{:<22}", format!("{median:.2} [{:.2}-{last:.2}]", costs[0]));
    }
    let best = speeds.map(|speeds| format!("{:.0}k", speeds.into_iter().fold(0.0, f64::max) / 1e3));
    println!("{}", best.join(", "));
}

/// What changes cost those who ask: the median of as many turns of either kind as there are rounds.
fn change(stand: &Stand, records: usize, choice: &Choice) {
    let questions = Kind::ALL[0].questions(records, 100_000);
    let mut figures: [Vec<[f64; 3]>; 2] = Default::default();
    for _ in 0..choice.rounds {
        for (figures, churn) in figures.iter_mut().zip([0, CHURN]) {
            stand.churn(churn);
            let mut waited = latencies(stand.addr(Server::Mesozone), &questions, choice.time);
            waited.sort_unstable();
            let at = |share: f64| waited[(waited.len() as f64 * share) as usize];
            figures.push([0.5, 0.99, 0.999].map(|share| at(share).as_secs_f64() * 1e6));
        }
    }
    stand.churn(0);
    let median = |figures: &[[f64; 3]], at: usize| {
        let mut figures: Vec<f64> = figures.iter().map(|turn| turn[at]).collect();
        figures.sort_unstable_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    for (what, figures_of) in ["nothing changes", "500 a second change"].iter().zip(&figures) {
        let [p50, p99, p999] = [0, 1, 2].map(|at| median(figures_of, at));
        let ratio = p999 / median(&figures[0], 2);
        println!(
            "{what:<22} p50 {p50:.0}, p99 {p99:.0}, p99.9 {p999:.0} microseconds; ratio {ratio:.2}"
        );
    }
}
