//! The operations guide is complete, and does what it says: every alarm, reason and state that the
//! program has is in it, and its commands are run as they stand where the trouble is real.

mod changes;
mod night;

use std::collections::BTreeSet;

use mesozone::fence::{Adoption, Fence, FenceError, Instance, Owner, Until};
use mesozone::held::{PlanId, Why};
use mesozone::mark::Loss;
use mesozone::scope::NotOurs;
use mesozone::snapshot::Recovering;
use serde_json::Value;

use crate::documents::blocks;
use crate::peer::example;
use night::Night;

/// The sections whose commands are played in [`night`] and [`changes`].
const PLAYED: [&str; 8] = [
    "BIND is frozen",
    "Changing `protect`",
    "Held removals",
    "Moving to a new primary",
    "Removing mesozone",
    "Rotating the key",
    "The fence",
    "What to look at first",
];

fn guide() -> String {
    example("operations/README.md")
}

/// A section of the second level, without its heading.
#[track_caller]
fn section(heading: &str) -> String {
    let guide = guide();
    let sections = guide.split("\n## ").skip(1);
    let mut found = sections.filter_map(|section| section.strip_prefix(&format!("{heading}\n")));
    found.next().unwrap_or_else(|| panic!("no section {heading:?}")).to_owned()
}

/// The commands of a section.
#[track_caller]
fn commands(heading: &str) -> Vec<String> {
    assert!(PLAYED.contains(&heading), "{heading} is not listed as played");
    blocks(&section(heading), "sh")
}

#[test]
fn every_section_with_commands_is_played() {
    let guide = guide();
    let headings = guide.split("\n## ").skip(1).filter(|section| section.contains("```sh\n"));
    let headings: BTreeSet<&str> = headings.map(|text| text.lines().next().unwrap()).collect();
    let played: BTreeSet<&str> = PLAYED.into_iter().collect();
    assert_eq!(headings, played);
}

#[test]
fn the_guide_has_an_entry_for_every_alarm_and_no_other() {
    let alerts = example("monitoring/alerts.yml");
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let told = section("Alarms");
    let entries = told.lines().filter_map(|line| line.strip_prefix("### "));
    let (alerts, entries): (BTreeSet<&str>, BTreeSet<&str>) = (alerts.collect(), entries.collect());
    assert!(alerts.len() > 5, "{alerts:?}");
    assert_eq!(alerts, entries);
}

#[test]
fn the_guide_has_every_reason_for_removals_to_wait() {
    let id: PlanId = "ea62a23cec88".parse().unwrap();
    let held = section("Held removals");
    let all = [Why::FirstContact, Why::Loss(Loss { mark: 100, desired: 40 }), Why::Behind(id)];
    for why in all {
        // Another one is told here by the compiler.
        match why {
            Why::FirstContact | Why::Loss(_) | Why::Behind(_) => {}
        }
        assert!(held.contains(&format!("### `{why}`")), "{why}");
    }
    use Recovering::{Agents, Registry, Silence};
    for why in [Agents(0), Agents(1), Agents(3), Registry, Silence] {
        match why {
            Agents(_) | Registry | Silence => {}
        }
        assert!(held.contains(&format!("`{why}`")), "{why}");
    }
    let source = include_str!("../src/report.rs");
    let unresolved = "a host name of the cluster cannot be resolved";
    assert!(source.contains(unresolved) && held.contains(unresolved));
}

#[test]
fn the_guide_has_every_reason_for_a_name_not_to_be_ours() {
    let name = |text: &str| text.parse().unwrap();
    let all = [
        NotOurs::Outside,
        NotOurs::Apex,
        NotOurs::Type,
        NotOurs::Cname,
        NotOurs::Delegated(name("db.mesos")),
        NotOurs::Dname(name("old.mesos")),
        NotOurs::Glue,
        NotOurs::Protected("vip-*.mesos".to_owned()),
        NotOurs::OtherOwner(name("prod.mesos")),
    ];
    let told = section("Not ours");
    for why in all {
        match why {
            NotOurs::Outside | NotOurs::Apex | NotOurs::Type | NotOurs::Cname => {}
            NotOurs::Delegated(_) | NotOurs::Dname(_) | NotOurs::Glue => {}
            NotOurs::Protected(_) | NotOurs::OtherOwner(_) => {}
        }
        assert!(told.contains(&format!("`{why}`")), "{why}");
    }
}

#[test]
fn the_guide_has_every_state_in_which_the_fence_is_not_ours() {
    let owner = |text: &str| Owner::parse(text).unwrap();
    let fence = Fence {
        owner: owner("mesos"),
        instance: Instance(1),
        epoch: 1,
        adoption: Adoption::Adopted,
        until: Until::Run,
        domain: None,
    };
    let all = [
        FenceError::ForeignOwner(owner("other"), owner("mesos")),
        FenceError::Held(fence.clone()),
        FenceError::OtherOwner(owner("other"), owner("mesos")),
        FenceError::OtherNames(fence),
        FenceError::NotElected,
        FenceError::NoFence(Vec::new()),
    ];
    let told = section("The fence");
    for error in all {
        match error {
            FenceError::ForeignOwner(..) | FenceError::OtherOwner(..) => {}
            FenceError::Held(_) | FenceError::OtherNames(_) => {}
            FenceError::NotElected | FenceError::NoFence(_) => {}
        }
        let text = error.to_string();
        // Up to what differs from case to case, and what to do about it.
        let part = text.split(": ").next().unwrap();
        let part = part.split(", v=1").next().unwrap().split(", as --take-over").next().unwrap();
        assert!(told.contains(&format!("| `{part}` |")), "{part}");
    }
}

#[test]
fn what_the_guide_reads_in_the_status_is_there() {
    let night = Night::start("");
    let status: Value = night.json("/v1/status");
    let table = section("What to look at first");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let mut count = 0;
    for row in rows {
        let cell = row.trim_start_matches("| ").split(" |").next().unwrap();
        for word in cell.split('`').skip(1).step_by(2) {
            let key = word.rsplit('.').next().unwrap();
            let there = [&status, &status["mesos"], &status["targets"][0]];
            let is_value = ["failing", "standing-by"].contains(&word);
            assert!(is_value || there.iter().any(|at| at.get(key).is_some()), "{word}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

/// A text in which a line ends where a word does.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_log_says_what_the_guide_looks_for() {
    let guide = guide();
    let errors = ["connection", "target", "keep", "daemon", "tsig"].map(|file| {
        let path = format!("{}/src/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    });
    for part in [
        "connecting",
        "BADKEY",
        "BADSIG",
        "BADTIME",
        "transferring the zone",
        "and to a change of the fence alone",
        "though it takes the fence",
        "taking the fence",
        "well again",
        "the configuration stays as it was",
    ] {
        assert!(words(&guide).contains(part), "{part}");
        assert!(errors.iter().any(|source| source.contains(part)), "{part}");
    }
}
