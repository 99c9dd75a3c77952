//! Plans for people, as lines, and for programs, as JSON of a fixed shape.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::fence::Adoption;
use crate::held::{Entry, HeldSet, Why};
use crate::name::Name;
use crate::plan::{Change, Plan, Withheld};
use crate::rr::{Rdata, Rrset, Serial, Ttl, Type};
use crate::snapshot::{Completeness, Snapshot};
use crate::wire::Rcode;
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
    for cut in &plan.withheld.cut {
        let Key { name, rtype } = &cut.key;
        put(&format!("cut {name} {rtype}: {} of {} records", cut.published, cut.desired));
    }
    for blocked in &plan.withheld.blocked {
        let Key { name, rtype } = &blocked.key;
        put(&style.paint("33", &format!("not ours {name} {rtype}: {}", blocked.why)));
    }
    for refused in &plan.withheld.refused {
        put(&style.paint("33", &refusal(&refused.name, refused.rcode)));
    }
    for held in &plan.withheld.held {
        put(&style.paint("33", &held_line(held)));
        held.entries.iter().for_each(|entry| put(&format!("  - {}", short(entry))));
    }
    if !plan.withheld.recovering.is_empty() {
        let why = uncertainty(about.completeness);
        put(&style.paint("33", &format!("held: {why}; nobody can approve these")));
        plan.withheld.recovering.iter().for_each(|record| put(&format!("  - {}", short(record))));
    }
    for change in &plan.withheld.waiting {
        let (_, come) = line_parts(change);
        come.iter().for_each(|line| put(&format!("waiting for that + {line}")));
    }
    out
}

/// A name that is not changed, since the server refused it.
pub fn refusal(name: &Name, rcode: Rcode) -> String {
    format!("refused {name}: the server answered {rcode} to it alone; it stays as it is")
}

fn held_line(held: &HeldSet) -> String {
    let records = match held.entries.len() {
        1 => "1 record".to_owned(),
        count => format!("{count} records"),
    };
    let them = if held.entries.len() == 1 { "it" } else { "them" };
    match (held.id, held.why) {
        (Some(id), Why::FirstContact) => {
            format!("held {id}: {records} found there; `sync --approve {id}` removes {them}")
        }
        (Some(id), why) => {
            format!("held {id}: {records}, as {why}; `sync --approve {id}` removes {them}")
        }
        (None, why) => format!("held: {records} more; {why}"),
    }
}

/// Why removals are not certain.
pub(crate) fn uncertainty(completeness: Completeness) -> String {
    match completeness {
        Completeness::Recovering(why) => why.to_string(),
        Completeness::Complete => "a host name of the cluster cannot be resolved".to_owned(),
    }
}

fn short((key, rdata): &Entry) -> String {
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
    refused: Vec<ReportedRefusal>,
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

#[derive(Serialize, Deserialize, Debug)]
struct ReportedHold {
    /// None: nobody can approve it.
    plan_id: Option<String>,
    reason: String,
    records: Vec<ReportedRecord>,
}

#[derive(Serialize, Deserialize, Debug)]
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

#[derive(Serialize, Debug)]
struct ReportedRefusal {
    name: String,
    rcode: String,
    tries: u32,
}

/// A plan in the shape of `diff --format json`.
pub fn json(about: &About<'_>, changes: &[Change], withheld: &Withheld) -> Report {
    let mut held = Vec::new();
    for set in &withheld.held {
        let (plan_id, reason) = (set.id.map(|id| id.to_string()), set.why.to_string());
        held.push(ReportedHold { plan_id, reason, records: reported(&set.entries) });
    }
    if !withheld.recovering.is_empty() {
        let (reason, records) = (uncertainty(about.completeness), reported(&withheld.recovering));
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
    let refused = |refused: &crate::plan::Refused| ReportedRefusal {
        name: refused.name.to_string(),
        rcode: refused.rcode.to_string(),
        tries: refused.tries,
    };
    Report {
        target: about.target.to_owned(),
        server: about.server.to_owned(),
        zone: about.zone.to_string(),
        serial: about.serial.0,
        complete: about.completeness.is_complete(),
        adopted: about.adoption == Adoption::Adopted,
        changes: changes.iter().map(reported_change).collect(),
        held,
        waiting: withheld.waiting.iter().map(reported_change).collect(),
        not_ours: withheld.blocked.iter().map(block).collect(),
        cut: withheld.cut.iter().map(cut).collect(),
        refused: withheld.refused.iter().map(refused).collect(),
    }
}

fn reported(records: &[Entry]) -> Vec<ReportedRecord> {
    let one = |(key, rdata): &Entry| ReportedRecord {
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

/// The desired records in the shape of `records --format json`, keys in order.
#[derive(Serialize)]
pub struct Records {
    complete: bool,
    records: Vec<DesiredRecord>,
    version: u32,
}

#[derive(Serialize)]
struct DesiredRecord {
    name: String,
    rdata: String,
    ttl: u32,
    #[serde(rename = "type")]
    rtype: String,
}

/// What a snapshot desires.
pub fn records(snapshot: &Snapshot) -> Records {
    let record = |(Key { name, rtype }, ttl, rdata): (&Key, Ttl, &Rdata)| DesiredRecord {
        name: name.to_string(),
        rdata: rdata.to_string(),
        ttl: ttl.secs(),
        rtype: rtype.to_string(),
    };
    Records {
        complete: snapshot.completeness.is_complete(),
        records: snapshot.records().map(record).collect(),
        version: JSON_VERSION,
    }
}

/// What of a saved `diff --format json` says which removals were held.
#[derive(Deserialize, Debug)]
pub struct SavedPlan {
    version: u32,
    targets: Vec<SavedTarget>,
}

#[derive(Deserialize, Debug)]
struct SavedTarget {
    target: String,
    zone: String,
    held: Vec<ReportedHold>,
}

#[derive(Debug, thiserror::Error)]
pub enum SavedPlanError {
    #[error("its version is {0}, not {JSON_VERSION}")]
    Version(u32),
    #[error("it holds the record \"{0} {1} {2}\", which mesozone cannot have written")]
    Record(String, String, String),
}

impl SavedPlan {
    /// The removals held there that can be approved.
    pub fn held(&self, target: &str, zone: &Name) -> Result<BTreeSet<Entry>, SavedPlanError> {
        if self.version != JSON_VERSION {
            return Err(SavedPlanError::Version(self.version));
        }
        let here = |saved: &&SavedTarget| saved.target == target && saved.zone == zone.to_string();
        let sets = self.targets.iter().filter(here).flat_map(|saved| &saved.held);
        let records = sets.filter(|set| set.plan_id.is_some()).flat_map(|set| &set.records);
        records.map(ReportedRecord::entry).collect()
    }
}

impl ReportedRecord {
    fn entry(&self) -> Result<Entry, SavedPlanError> {
        let parsed = || {
            let (rtype, rdata) = match self.rtype.as_str() {
                "A" => (Type::A, Rdata::A(self.rdata.parse().ok()?)),
                "AAAA" => (Type::AAAA, Rdata::Aaaa(self.rdata.parse().ok()?)),
                "SRV" => (Type::SRV, srv(&self.rdata)?),
                "PTR" => (Type::PTR, Rdata::Ptr(self.rdata.parse().ok()?)),
                _ => return None,
            };
            Some((Key { name: self.name.parse().ok()?, rtype }, rdata))
        };
        parsed().ok_or_else(|| {
            let text = |field: &String| field.clone();
            SavedPlanError::Record(text(&self.name), text(&self.rtype), text(&self.rdata))
        })
    }
}

fn srv(text: &str) -> Option<Rdata> {
    let mut fields = text.split(' ');
    let mut number = || fields.next()?.parse().ok();
    let (priority, weight, port) = (number()?, number()?, number()?);
    let target = fields.next()?.parse().ok()?;
    fields.next().is_none().then_some(Rdata::Srv { priority, weight, port, target })
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_plan_gives_back_what_it_held() {
        let record = |rtype: &str, rdata: &str| {
            format!(r#"{{"name": "a.mesos.", "type": "{rtype}", "rdata": "{rdata}"}}"#)
        };
        let plan = |version: u32, target: &str, id: &str, records: &[String]| -> SavedPlan {
            let records = records.join(",");
            serde_json::from_str(&format!(
                r#"{{"version": {version}, "more": 1, "targets": [{{"target": "{target}", "zone": "mesos.",
                "held": [{{"plan_id": {id}, "reason": "x", "records": [{records}]}}]}}]}}"#
            ))
            .unwrap()
        };
        let zone = "mesos".parse().unwrap();
        let held = |plan: SavedPlan| plan.held("bind", &zone).map(|entries| entries.len());
        let all = [
            ("A", "10.0.0.1"),
            ("AAAA", "fd00::1"),
            ("SRV", "0 1 80 b.mesos."),
            ("PTR", "b.mesos."),
        ];
        let all = all.map(|(rtype, rdata)| record(rtype, rdata));
        let id = r#""0123456789ab""#;
        assert_eq!(held(plan(1, "bind", id, &all)).unwrap(), 4);
        assert_eq!(held(plan(1, "knot", id, &all)).unwrap(), 0);
        assert_eq!(held(plan(1, "bind", "null", &all)).unwrap(), 0);
        assert!(held(plan(2, "bind", id, &all)).is_err());
        for (rtype, rdata) in [("A", "x"), ("TXT", "a"), ("SRV", "0 1 b."), ("SRV", "0 1 2 b. c")] {
            let error = held(plan(1, "bind", id, &[record(rtype, rdata)])).unwrap_err();
            assert!(error.to_string().contains(rdata), "{error}");
        }
    }
}
