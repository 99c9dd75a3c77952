//! Plans for people, as lines, and for programs, as JSON of a fixed shape.

use std::fmt::Write as _;

use serde::Serialize;

use crate::fence::Adoption;
use crate::name::Name;
use crate::plan::{Change, Plan};
use crate::rr::{Rdata, Rrset, Serial};
use crate::snapshot::Completeness;
use crate::zone::Key;

/// The number of the JSON shape; a key that changes its meaning changes it.
pub const JSON_VERSION: u32 = 1;

/// Where a plan belongs.
#[derive(Clone, Debug)]
pub struct About<'p> {
    pub target: &'p str,
    pub server: &'p str,
    pub zone: &'p Name,
    pub serial: Serial,
    pub adoption: Adoption,
    pub completeness: Completeness,
}

/// Whether text is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    Plain,
    Coloured,
}

impl Style {
    pub(crate) fn paint(self, colour: &str, text: &str) -> String {
        match self {
            Style::Plain => text.to_owned(),
            Style::Coloured => format!("\x1b[{colour}m{text}\x1b[0m"),
        }
    }
}

/// The lines of a plan.
pub fn text(about: &About<'_>, plan: &Plan, style: Style) -> String {
    let (mut lines, mut added, mut removed) = (Vec::new(), 0, 0);
    for change in plan.approved.changes() {
        let (gone, come) = line_parts(change);
        removed += gone.len();
        added += come.len();
        lines.extend(gone.iter().map(|line| style.paint("31", &format!("- {line}"))));
        lines.extend(come.iter().map(|line| style.paint("32", &format!("+ {line}"))));
    }
    let mut out = String::new();
    let mut put = |line: &str| writeln!(out, "{line}").expect("writing to a String cannot fail");
    put(&format!(
        "target {}, server {}, zone {}, serial {}: {added} to add, {removed} to remove",
        about.target, about.server, about.zone, about.serial
    ));
    lines.iter().for_each(|line| put(line));
    for cut in &plan.cut {
        let Key { name, rtype } = &cut.key;
        put(&format!("cut {name} {rtype}: {} of {} records", cut.published, cut.desired));
    }
    for blocked in &plan.blocked {
        let Key { name, rtype } = &blocked.key;
        put(&style.paint("33", &format!("not ours {name} {rtype}: {}", blocked.why)));
    }
    if let Some(held) = &plan.held {
        let (id, count) = (held.id, held.records.len());
        let line = match count {
            1 => format!("held {id}: 1 record found there; `sync --approve {id}` removes it"),
            _ => format!(
                "held {id}: {count} records found there; `sync --approve {id}` removes them"
            ),
        };
        put(&style.paint("33", &line));
        held.records.iter().for_each(|record| put(&format!("  - {}", short(record))));
    }
    if !plan.recovering.is_empty() {
        let why = uncertainty(about.completeness);
        put(&style.paint("33", &format!("held: {why}; nobody can approve these")));
        plan.recovering.iter().for_each(|record| put(&format!("  - {}", short(record))));
    }
    for change in &plan.waiting {
        let (_, come) = line_parts(change);
        come.iter().for_each(|line| put(&format!("waiting for that + {line}")));
    }
    out
}

/// Why removals are not certain.
fn uncertainty(completeness: Completeness) -> String {
    match completeness {
        Completeness::Recovering(why) => why.to_string(),
        Completeness::Complete => "a host name of the cluster cannot be resolved".to_owned(),
    }
}

fn short((key, rdata): &(Key, Rdata)) -> String {
    format!("{} {} {rdata}", key.name, key.rtype)
}

/// The records that go and those that come, a changed TTL as both.
fn line_parts(change: &Change) -> (Vec<String>, Vec<String>) {
    let Key { name, rtype } = &change.key;
    let one_sided = |here: &Option<Rrset>, there: &Option<Rrset>| {
        let Some(set) = here else { return Vec::new() };
        let same_ttl = there.as_ref().filter(|other| other.ttl() == set.ttl());
        let line = |rdata: &Rdata| format!("{name} {} {rtype} {rdata}", set.ttl());
        set.minus(same_ttl).map(line).collect()
    };
    (one_sided(&change.old, &change.new), one_sided(&change.new, &change.old))
}

/// One target of `diff --format json`.
#[derive(Serialize, Debug)]
pub struct Report {
    target: String,
    server: String,
    zone: String,
    serial: u32,
    complete: bool,
    adopted: bool,
    changes: Vec<ReportedChange>,
    held: Vec<ReportedHold>,
    waiting: Vec<ReportedChange>,
    not_ours: Vec<ReportedBlock>,
    cut: Vec<ReportedCut>,
}

#[derive(Serialize, Debug)]
struct ReportedChange {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    /// None where there is no RRset.
    old_ttl: Option<u32>,
    new_ttl: Option<u32>,
    remove: Vec<String>,
    add: Vec<String>,
}

#[derive(Serialize, Debug)]
struct ReportedHold {
    /// None: nobody can approve it.
    plan_id: Option<String>,
    reason: String,
    records: Vec<ReportedRecord>,
}

#[derive(Serialize, Debug)]
struct ReportedRecord {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    rdata: String,
}

#[derive(Serialize, Debug)]
struct ReportedBlock {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    reason: String,
}

#[derive(Serialize, Debug)]
struct ReportedCut {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    desired: usize,
    published: usize,
}

/// A plan in the shape of `diff --format json`.
pub fn json(about: &About<'_>, plan: &Plan) -> Report {
    let mut held = Vec::new();
    if let Some(set) = &plan.held {
        let reason = "found there at first contact".to_owned();
        let plan_id = Some(set.id.to_string());
        held.push(ReportedHold { plan_id, reason, records: reported(&set.records) });
    }
    if !plan.recovering.is_empty() {
        let (reason, records) = (uncertainty(about.completeness), reported(&plan.recovering));
        held.push(ReportedHold { plan_id: None, reason, records });
    }
    let block = |blocked: &crate::plan::Blocked| ReportedBlock {
        name: blocked.key.name.to_string(),
        rtype: blocked.key.rtype.to_string(),
        reason: blocked.why.to_string(),
    };
    let cut = |cut: &crate::plan::Cut| ReportedCut {
        name: cut.key.name.to_string(),
        rtype: cut.key.rtype.to_string(),
        desired: cut.desired,
        published: cut.published,
    };
    Report {
        target: about.target.to_owned(),
        server: about.server.to_owned(),
        zone: about.zone.to_string(),
        serial: about.serial.0,
        complete: about.completeness.is_complete(),
        adopted: about.adoption == Adoption::Adopted,
        changes: plan.approved.changes().iter().map(reported_change).collect(),
        held,
        waiting: plan.waiting.iter().map(reported_change).collect(),
        not_ours: plan.blocked.iter().map(block).collect(),
        cut: plan.cut.iter().map(cut).collect(),
    }
}

fn reported(records: &[(Key, Rdata)]) -> Vec<ReportedRecord> {
    let one = |(key, rdata): &(Key, Rdata)| ReportedRecord {
        name: key.name.to_string(),
        rtype: key.rtype.to_string(),
        rdata: rdata.to_string(),
    };
    records.iter().map(one).collect()
}

fn reported_change(change: &Change) -> ReportedChange {
    ReportedChange {
        name: change.key.name.to_string(),
        rtype: change.key.rtype.to_string(),
        old_ttl: change.old.as_ref().map(|set| set.ttl().secs()),
        new_ttl: change.new.as_ref().map(|set| set.ttl().secs()),
        remove: change.removed().map(Rdata::to_string).collect(),
        add: change.added().map(Rdata::to_string).collect(),
    }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
