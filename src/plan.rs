//! What would change on a server, and which of it may. A [`Plan`] leaves no choice to whoever
//! carries it out: only what [`approve`] let through can be sent at all.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::current::Current;
use crate::cut::{RrsetLimit, cut};
use crate::fence::Adoption;
use crate::held::{Approval, Entry, HeldSet, Holds, PlanId, Why};
use crate::mark::Loss;
use crate::name::Name;
use crate::quarantine::{Quarantine, Wanted};
use crate::rr::{Rdata, Rrset};
use crate::scope::{Foreign, NotOurs, Scope};
use crate::snapshot::Completeness;
use crate::unknown::Unknown;
use crate::wire::Rcode;
use crate::zone::{Key, Zone};

/// One RRset as it is and as it shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub key: Key,
    pub old: Option<Rrset>,
    pub new: Option<Rrset>,
}

impl Change {
    /// The records that would go.
    pub fn removed(&self) -> impl Iterator<Item = &Rdata> {
        self.old.iter().flat_map(|old| old.minus(self.new.as_ref()))
    }

    /// The records that would come.
    pub fn added(&self) -> impl Iterator<Item = &Rdata> {
        self.new.iter().flat_map(|new| new.minus(self.old.as_ref()))
    }

    fn is_ttl_alone(&self) -> bool {
        matches!((&self.old, &self.new), (Some(old), Some(new)) if old.same_data(new))
    }

    /// The change without the removal of `kept`, and with as many additions as then still fit;
    /// none when nothing is left of it.
    fn keeping(self, kept: &BTreeSet<Rdata>, limit: RrsetLimit) -> Option<Change> {
        if kept.is_empty() {
            return Some(self);
        }
        let old = self.old.as_ref()?;
        let stays = |rdata: &&Rdata| {
            kept.contains(rdata) || self.new.as_ref().is_some_and(|new| new.contains(rdata))
        };
        let data: Vec<Rdata> = old.rdata().iter().filter(stays).cloned().collect();
        let least = Rrset::new(old.ttl(), data)?;
        let new = match &self.new {
            Some(new) => limit.grown(&least, new),
            None => least,
        };
        (*old != new).then_some(Change { key: self.key, old: self.old, new: Some(new) })
    }
}

/// A desired RRset that may not be published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blocked {
    pub key: Key,
    pub why: NotOurs,
}

/// An RRset published in part: the server takes no more records of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    pub key: Key,
    pub desired: usize,
    pub published: usize,
}

/// A name that is not changed, since the server refused it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub name: Name,
    pub rcode: Rcode,
    pub tries: u32,
}

/// Everything in which a server differs from the desired zone.
#[derive(Default, Debug)]
pub struct Diff {
    pub changes: Vec<Change>,
    pub blocked: Vec<Blocked>,
    pub cut: Vec<Cut>,
    pub refused: Vec<Refused>,
    /// Desired records, less those that are blocked or cut.
    pub desired_count: usize,
    /// Desired records that are blocked.
    pub blocked_count: usize,
    /// Records found that are ours.
    pub current_count: usize,
}

/// Compares, ownership settled first.
pub fn diff(
    current: &Current,
    desired: &Zone,
    scope: &Scope,
    foreign: &Foreign,
    limit: RrsetLimit,
) -> Diff {
    let mut diff = Diff {
        desired_count: desired.record_count(),
        current_count: current.record_count(),
        ..Diff::default()
    };
    let count = |set: Option<&Rrset>| set.map_or(0, |set| set.rdata().len());
    for key in current.differing(desired) {
        let (wanted, old) = (desired.get(&key), current.get(&key));
        if let Err(why) = scope.check(&key, foreign) {
            diff.desired_count -= count(wanted);
            diff.blocked_count += count(wanted);
            diff.current_count -= count(old);
            diff.blocked.extend(wanted.map(|_| Blocked { key, why }));
            continue;
        }
        let (wanted, others) = wanted.map_or((None, None), |set| scope.share(set, foreign));
        if let Some((count, why)) = others {
            diff.desired_count -= count;
            diff.blocked_count += count;
            diff.blocked.push(Blocked { key: key.clone(), why });
        }
        // Records of others share the RRset's TTL, and it is theirs.
        let ttl = foreign.ttl_at(&key);
        let beside = |set: Rrset| ttl.map_or_else(|| set.clone(), |ttl| set.with_ttl(ttl));
        let (wanted, old) = (wanted.map(beside), old.cloned().map(beside));
        let mut new = wanted.as_ref().map(|set| cut(set, limit));
        if let (Some(old), Some(set)) = (&old, &wanted)
            && limit.is_earlier_cut(old, set)
        {
            new = Some(old.clone());
        }
        if let (Some(set), Some(new)) = (&wanted, &new)
            && new.rdata().len() < set.rdata().len()
        {
            let (desired, published) = (set.rdata().len(), new.rdata().len());
            diff.desired_count -= desired - published;
            diff.cut.push(Cut { key: key.clone(), desired, published });
        }
        if old != new {
            diff.changes.push(Change { old, key, new });
        }
    }
    diff
}

/// What the changes of one name want it to become.
pub fn wanted(changes: &[Change]) -> Wanted {
    changes.iter().map(|change| (change.key.clone(), change.new.clone())).collect()
}

impl Diff {
    /// Leaves out the names that the server refused a while ago.
    pub fn set_apart(&mut self, quarantine: &Quarantine, now: Duration) {
        if quarantine.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.changes);
        for group in changes.chunk_by(|a, b| a.key.name == b.key.name) {
            let name = &group[0].key.name;
            match quarantine.keeps(name, &wanted(group), now) {
                None => self.changes.extend_from_slice(group),
                Some(refusal) => {
                    let (rcode, tries) = (refusal.rcode, refusal.tries());
                    self.refused.push(Refused { name: name.clone(), rcode, tries });
                }
            }
        }
    }
}

/// What a plan is judged by.
pub struct Gate<'g> {
    /// The target's name, for plan ids.
    pub target: &'g str,
    pub completeness: Completeness,
    /// Names of which it is not known what they should have.
    pub unknown: &'g Unknown,
    pub adoption: Adoption,
    /// The names that this process created in a space not adopted yet.
    pub created: &'g HashSet<Name>,
    /// What an operator released.
    pub approvals: &'g [Approval],
    /// More is lost than may go at once.
    pub loss: Option<Loss>,
    /// What others added so lately that it is not removed yet.
    pub young: &'g BTreeSet<Entry>,
}

/// The changes that may be sent. Made by [`approve`] alone.
#[derive(Debug, Default)]
pub struct Approved {
    changes: Vec<Change>,
    adopts: bool,
}

impl Approved {
    /// In the order of names.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Whether the space becomes ours with this plan: what is found in it may be removed from
    /// now on.
    pub fn adopts(&self) -> bool {
        self.adopts
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.adopts
    }
}

/// What happens, what is held back and why.
#[derive(Debug, Default)]
pub struct Plan {
    pub approved: Approved,
    pub withheld: Withheld,
    /// Removals released by an approval, though too much is lost.
    pub released_count: usize,
}

/// What does not happen, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Withheld {
    /// Removals that wait for an approval.
    pub held: Vec<HeldSet>,
    /// Removals that wait until the cluster is complete again; nobody can approve them.
    pub recovering: Vec<Entry>,
    /// What others added lately, and what is removed soon.
    pub young: Vec<Entry>,
    /// Changes of names found at first contact, which wait until the space is adopted.
    pub waiting: Vec<Change>,
    pub blocked: Vec<Blocked>,
    pub cut: Vec<Cut>,
    pub refused: Vec<Refused>,
}

impl Withheld {
    /// Whether anything waits for somebody.
    pub fn waits(&self) -> bool {
        let waits = !(self.waiting.is_empty() && self.recovering.is_empty());
        waits || !(self.held.is_empty() && self.refused.is_empty())
    }
}

/// A change on its way, its removals sorted.
struct Sifted {
    change: Change,
    /// Not removed now.
    kept: BTreeSet<Rdata>,
    /// Removed unless too much is lost.
    removable: Vec<Rdata>,
}

/// Decides what of a difference may be sent now.
pub fn approve(
    diff: Diff,
    current: &Current,
    scope: &Scope,
    gate: &Gate<'_>,
    limit: RrsetLimit,
    holds: &mut Holds,
) -> Plan {
    let Diff { changes, blocked, cut, refused, .. } = diff;
    let withheld = Withheld { blocked, cut, refused, ..Withheld::default() };
    let mut plan = Plan { withheld, ..Plan::default() };
    let (going, adopted) = match gate.adoption {
        Adoption::Adopted => (changes, HashSet::new()),
        Adoption::FirstContact => first_contact(changes, current, scope, gate, &mut plan),
    };
    let mut sifted: Vec<Sifted> =
        going.into_iter().map(|change| sift(change, gate, &mut plan)).collect();
    match gate.loss {
        None => holds.clear(),
        Some(loss) => {
            let wanted = sifted.iter().filter(|s| !adopted.contains(&s.change.key)).flat_map(|s| {
                s.removable.iter().map(|rdata| (s.change.key.clone(), rdata.clone()))
            });
            let place = (gate.target, &scope.zone);
            let judged = holds.judge(place, wanted.collect(), gate.approvals, loss);
            plan.released_count += judged.released.len();
            let held: BTreeSet<&Entry> =
                judged.held.iter().flat_map(|set| set.entries.iter()).collect();
            for Sifted { change, kept, removable } in &mut sifted {
                let is_held = |rdata: &Rdata| held.contains(&(change.key.clone(), rdata.clone()));
                kept.extend(removable.drain(..).filter(is_held));
            }
            plan.withheld.held.extend(judged.held);
        }
    }
    let going = sifted.into_iter().filter_map(|s| s.change.keeping(&s.kept, limit));
    plan.approved.changes = going.collect();
    plan
}

/// Sorts the removals of a change into those that are certain and those that are not.
fn sift(change: Change, gate: &Gate<'_>, plan: &mut Plan) -> Sifted {
    let (mut kept, mut removable) = (BTreeSet::new(), Vec::new());
    for rdata in change.removed() {
        let entry = || (change.key.clone(), rdata.clone());
        if !gate.is_certain(&change.key, rdata) {
            plan.withheld.recovering.push(entry());
        } else if !gate.young.is_empty() && gate.young.contains(&entry()) {
            plan.withheld.young.push(entry());
        } else {
            removable.push(rdata.clone());
            continue;
        }
        kept.insert(rdata.clone());
    }
    Sifted { change, kept, removable }
}

impl Gate<'_> {
    /// Whether a record that the desired zone lacks is known to be gone.
    fn is_certain(&self, key: &Key, rdata: &Rdata) -> bool {
        let name = if let Rdata::Ptr(target) = rdata { target } else { &key.name };
        self.completeness.is_complete() && !self.unknown.contains(name)
    }
}

/// In a space not adopted yet only names absent from it are created, and those that this process
/// created are kept; a space that holds nothing undesired is adopted at once. Answers what goes
/// on, and the keys found there of which all removals are approved.
fn first_contact(
    changes: Vec<Change>,
    current: &Current,
    scope: &Scope,
    gate: &Gate<'_>,
    plan: &mut Plan,
) -> (Vec<Change>, HashSet<Key>) {
    let is_found = |change: &Change| {
        !gate.created.contains(&change.key.name) && current.has_name(&change.key.name)
    };
    let (found, mut free): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(is_found);
    let removals = found
        .iter()
        .flat_map(|change| change.removed().map(|rdata| (change.key.clone(), rdata.clone())));
    let (undesired, uncertain): (Vec<Entry>, Vec<Entry>) =
        removals.partition(|(key, rdata)| gate.is_certain(key, rdata));
    let ids = |entries: &[Entry]| PlanId::of(gate.target, &scope.zone, entries.iter());
    let id = (!gate.approvals.is_empty()).then(|| ids(&undesired));
    let is_released =
        |entry: &Entry| id.is_some_and(|id| gate.approvals.iter().any(|by| by.releases(id, entry)));
    let (released, held): (Vec<Entry>, Vec<Entry>) = undesired.into_iter().partition(is_released);
    let all_certain = gate.completeness.is_complete() && uncertain.is_empty();
    plan.released_count = released.len();
    plan.approved.adopts = current.is_empty() || all_certain && held.is_empty();
    let released: BTreeSet<Entry> = released.into_iter().collect();
    let goes = |change: &Change| {
        let mut removed = change.removed().map(|rdata| (change.key.clone(), rdata.clone()));
        plan.approved.adopts
            || change.removed().next().is_some() && removed.all(|entry| released.contains(&entry))
    };
    let (going, waiting): (Vec<Change>, Vec<Change>) = found.into_iter().partition(goes);
    let keys = going.iter().map(|change| change.key.clone()).collect();
    free.extend(going);
    free.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    if !plan.approved.adopts {
        plan.withheld.recovering = uncertain;
        if !held.is_empty() {
            let id = Some(ids(&held));
            plan.withheld.held = vec![HeldSet { id, why: Why::FirstContact, entries: held }];
        }
        plan.withheld.waiting =
            waiting.into_iter().filter(|change| !change.is_ttl_alone()).collect();
    }
    (free, keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Owner;
    use crate::rr::{Ttl, Type};
    use crate::scope::Space;
    use crate::snapshot::Recovering;
    use std::net::Ipv4Addr;

    /// A zone of words `name=1,2`: addresses 10.0.0.1 and 10.0.0.2, TTL 60 or `name@30=1`.
    fn zone(text: &str) -> Zone {
        let rrset = |word: &str| {
            let (name, data) = word.split_once('=')?;
            let (name, ttl) = name.split_once('@').unwrap_or((name, "60"));
            let rdata = |n: &str| Some(Rdata::A(Ipv4Addr::new(10, 0, 0, n.parse().ok()?)));
            let data = data.split(',').filter_map(rdata).collect();
            let key = Key { name: format!("{name}.mesos").parse().ok()?, rtype: Type::A };
            Some((key, Rrset::new(Ttl::from_secs(ttl.parse().ok()?), data)?))
        };
        text.split_whitespace().filter_map(rrset).collect()
    }

    /// What goes as `name:old>new`, then `held`, `recovering`, `waiting` and `adopts` if so.
    fn told(plan: &Plan) -> String {
        let data = |set: &Option<Rrset>| {
            let octet = |rdata: &Rdata| match rdata {
                Rdata::A(address) => address.octets()[3].to_string(),
                other => other.to_string(),
            };
            let data = set.iter().flat_map(|set| set.rdata());
            data.map(octet).collect::<Vec<_>>().join(",")
        };
        let short = |key: &Key| key.name.to_string().replace(".mesos.", "");
        let mut words: Vec<String> = plan
            .approved
            .changes
            .iter()
            .map(|c| format!("{}:{}>{}", short(&c.key), data(&c.old), data(&c.new)))
            .collect();
        let record =
            |(key, rdata): &(Key, Rdata)| format!("{}={rdata}", short(key)).replace("10.0.0.", "");
        let held = plan.withheld.held.iter().flat_map(|held| held.entries.iter());
        words.extend(held.map(|entry| format!("held {}", record(entry))));
        words.extend(plan.withheld.young.iter().map(|entry| format!("young {}", record(entry))));
        words.extend(plan.withheld.recovering.iter().map(|r| format!("recovering {}", record(r))));
        words.extend(plan.withheld.waiting.iter().map(|c| format!("waiting {}", short(&c.key))));
        words.extend(plan.approved.adopts.then(|| "adopts".to_owned()));
        words.join("; ")
    }

    fn scope() -> Scope {
        let mesos: Name = "mesos".parse().unwrap();
        Scope {
            zone: mesos.clone(),
            domain: mesos,
            owner: Owner::parse("m").unwrap(),
            protect: Vec::new(),
            space: Space::Below,
        }
    }

    /// `unknown.mesos`: a framework whose host name is not resolved.
    fn unknown() -> Unknown {
        use crate::cluster::{Cluster, Endpoint, Framework, FrameworkId};
        use crate::records::{IpSource, Rules, Unhealthy};
        let rules = Rules {
            ip_sources: vec![IpSource::Host],
            unhealthy: Unhealthy::Publish,
            ..Rules::of("mesos".parse().unwrap())
        };
        let scheduler = Endpoint::parse("host.example:1");
        let framework =
            Framework { name: "unknown".into(), scheduler, recovered: false, faults: Vec::new() };
        let framework = std::sync::Arc::new(framework);
        let frameworks = [(FrameworkId("f".into()), framework)].into_iter().collect();
        Unknown::of(&rules, &Cluster { frameworks, ..Cluster::default() })
    }

    const RECOVERING: Completeness = Completeness::Recovering(Recovering::Registry);

    fn plan(
        server: &str,
        desired: &str,
        adoption: Adoption,
        completeness: Completeness,
        approvals: &[Approval],
        loss: Option<Loss>,
    ) -> Plan {
        let desired = zone(desired);
        let current = Current::of_reading(&desired, &zone(server));
        let diff = diff(&current, &desired, &scope(), &Foreign::default(), RrsetLimit::default());
        let created = HashSet::from(["made.mesos".parse().unwrap()]);
        let young = zone("young=1").records().map(|(k, _, r)| (k.clone(), r.clone())).collect();
        let gate = Gate {
            target: "bind",
            completeness,
            unknown: &unknown(),
            adoption,
            created: &created,
            approvals,
            loss,
            young: &young,
        };
        let limit = RrsetLimit::default();
        approve(diff, &current, &scope(), &gate, limit, &mut Holds::default())
    }

    #[track_caller]
    fn check(
        server: &str,
        desired: &str,
        adoption: Adoption,
        completeness: Completeness,
        expected: &str,
    ) {
        let plan = plan(server, desired, adoption, completeness, &[], None);
        assert_eq!(told(&plan), expected);
    }

    #[test]
    fn an_adopted_space_becomes_the_desired_zone() {
        let adopted = |server, desired, expected| {
            check(server, desired, Adoption::Adopted, Completeness::Complete, expected);
        };
        adopted("", "a=1", "a:>1");
        adopted("a=1", "", "a:1>");
        adopted("a=1", "a=1", "");
        adopted("a=1,2", "a=2,3", "a:1,2>2,3");
        adopted("a@30=1", "a=1", "a:1>1");
    }

    #[test]
    fn nothing_is_removed_while_the_cluster_recovers() {
        let recovering = |server, desired, expected| {
            check(server, desired, Adoption::Adopted, RECOVERING, expected);
        };
        recovering("a=1", "b=2", "b:>2; recovering a=1");
        recovering("a=1,2", "a=2,3", "a:1,2>1,2,3; recovering a=1");
        recovering("a@30=1,2", "a=1", "a:1,2>1,2; recovering a=2");
    }

    #[test]
    fn what_is_not_known_to_be_gone_stays() {
        let adopted = |server, desired, expected| {
            check(server, desired, Adoption::Adopted, Completeness::Complete, expected);
        };
        adopted("unknown=1 a=1", "", "a:1>; recovering unknown=1");
        adopted("unknown=1", "unknown=2", "unknown:1>1,2; recovering unknown=1");
    }

    #[test]
    fn what_others_added_lately_stays_for_a_while() {
        let adopted = |server, desired, expected| {
            check(server, desired, Adoption::Adopted, Completeness::Complete, expected);
        };
        adopted("young=1", "", "young young=1");
        adopted("young=1,2", "young=3", "young:1,2>1,3; young young=1");
        adopted("young=1 old=1", "young=1", "old:1>");
    }

    #[test]
    fn while_too_much_is_lost_removals_are_held_and_additions_go_out() {
        let lossy = |server, desired, approvals: &[Approval]| {
            let loss = Some(Loss { mark: 9, desired: 1 });
            plan(server, desired, Adoption::Adopted, Completeness::Complete, approvals, loss)
        };
        let (server, desired) = ("a=1 b=1,2 c=1", "b=2,3 d=1 c=1");
        let held = lossy(server, desired, &[]);
        assert_eq!(told(&held), "b:1,2>1,2,3; d:>1; held a=1; held b=1");
        assert!(held.withheld.waits());
        let id = held.withheld.held[0].id.unwrap();
        let released = lossy(server, desired, &[Approval::Id(id)]);
        assert_eq!(told(&released), "a:1>; b:1,2>2,3; d:>1");
        assert_eq!((released.released_count, released.withheld.waits()), (2, false));
        let some = zone("a=1").records().map(|(k, _, r)| (k.clone(), r.clone())).collect();
        let partly = lossy(server, desired, &[Approval::Entries(some)]);
        assert_eq!(told(&partly), "a:1>; b:1,2>1,2,3; d:>1; held b=1");
        assert_eq!(told(&lossy("a@30=1,2", "a=1", &[])), "a:1,2>1,2; held a=2");
    }

    #[test]
    fn first_contact_replaces_nothing_it_finds() {
        let first = |server, desired, expected| {
            check(server, desired, Adoption::FirstContact, Completeness::Complete, expected);
        };
        first("", "a=1", "a:>1; adopts");
        first("a=1", "a=1", "adopts");
        first("a@30=1", "a=1 b=2", "a:1>1; b:>2; adopts");
        first("a=1", "a=1,2", "a:1>1,2; adopts");
        first("a=9", "a=1 b=2", "b:>2; held a=9; waiting a");
        first("old=9", "b=2", "b:>2; held old=9; waiting old");
        first("old=9 a=1", "a=1,2 b=2", "b:>2; held old=9; waiting a; waiting old");
        first("old=9 a@30=1", "a=1", "held old=9; waiting old");
        first("old=9 made=1", "made=2", "made:1>2; held old=9; waiting old");
        first("old=9 made=1", "", "made:1>; held old=9; waiting old");
        first("unknown=1", "b=2", "b:>2; recovering unknown=1; waiting unknown");
        first(
            "unknown=1 old=9",
            "",
            "held old=9; recovering unknown=1; waiting old; waiting unknown",
        );
    }

    #[test]
    fn first_contact_while_recovering_offers_nothing_to_approve() {
        let first = |server, desired, expected| {
            check(server, desired, Adoption::FirstContact, RECOVERING, expected);
        };
        first("old=9", "b=2", "b:>2; recovering old=9; waiting old");
        first("", "b=2", "b:>2; adopts");
        first("a=1", "a=1", "");
    }

    #[test]
    fn an_approval_releases_exactly_the_set_it_names() {
        let first = |server, approvals: &[Approval]| {
            let loss = Some(Loss { mark: 9, desired: 1 });
            plan(server, "b=2", Adoption::FirstContact, Completeness::Complete, approvals, loss)
        };
        let id = first("old=9", &[]).withheld.held[0].id.unwrap();
        let with = |server, by: Approval| told(&first(server, &[by]));
        assert_eq!(with("old=9", Approval::Id(id)), "b:>2; old:9>; adopts", "the loss is known");
        assert_eq!(
            with("old=9 more=8", Approval::Id(id)),
            "b:>2; held more=8; held old=9; waiting more; waiting old"
        );
        let saved: BTreeSet<Entry> =
            zone("old=9 x=1").records().map(|(k, _, r)| (k.clone(), r.clone())).collect();
        assert_eq!(with("old=9", Approval::Entries(saved.clone())), "b:>2; old:9>; adopts");
        assert_eq!(
            with("old=9 more=8", Approval::Entries(saved)),
            "b:>2; old:9>; held more=8; waiting more"
        );
    }

    #[test]
    fn a_large_rrset_that_was_cut_is_no_change() {
        let numbers =
            |range: std::ops::Range<u8>| range.map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let large = zone(&format!("a={}", numbers(1..151)));
        let key = Key { name: "a.mesos".parse().unwrap(), rtype: Type::A };
        let limit = RrsetLimit { record_max: Some(100), ..RrsetLimit::default() };
        let current = Current::of_reading(&large, &Zone::default());
        let first = diff(&current, &large, &scope(), &Foreign::default(), limit);
        assert_eq!(first.cut, [Cut { key: key.clone(), desired: 150, published: 100 }]);
        assert_eq!((first.desired_count, first.current_count), (100, 0));
        let mut reached = current.clone();
        reached.set(&key, first.changes[0].new.clone());
        assert_eq!(diff(&reached, &large, &scope(), &Foreign::default(), limit).changes, []);
        let fresh = RrsetLimit { earlier_max: Some(100), ..RrsetLimit::default() };
        let again = diff(&reached, &large, &scope(), &Foreign::default(), fresh);
        assert_eq!((again.changes, again.cut), (vec![], first.cut));
    }

    #[test]
    fn what_is_not_ours_does_not_count() {
        let mut scope = scope();
        scope.protect = vec![crate::scope::Pattern::parse("vip-*.mesos").unwrap()];
        let (server, desired) = (zone("a=1,2 vip-a=7,8,9"), zone("a=1 vip-a=1 vip-b=2"));
        let current = Current::of_reading(&desired, &server);
        let diff = diff(&current, &desired, &scope, &Foreign::default(), RrsetLimit::default());
        assert_eq!((diff.current_count, diff.desired_count), (2, 1));
    }

    #[test]
    fn a_refused_name_is_set_apart_until_it_is_due() {
        let desired = zone("a=1 b=2");
        let current = Current::of_reading(&desired, &Zone::default());
        let differing =
            || diff(&current, &desired, &scope(), &Foreign::default(), RrsetLimit::default());
        let mut quarantine = Quarantine::default();
        let name: Name = "a.mesos".parse().unwrap();
        let refused = wanted(&differing().changes[..1]);
        let pause = quarantine.refuse(name.clone(), refused, Rcode::REFUSED, Duration::ZERO);
        let mut early = differing();
        early.set_apart(&quarantine, Duration::ZERO);
        assert_eq!(early.changes.len(), 1);
        assert_eq!(early.refused, [Refused { name, rcode: Rcode::REFUSED, tries: 1 }]);
        let mut due = differing();
        due.set_apart(&quarantine, pause);
        assert_eq!((due.changes.len(), due.refused.len()), (2, 0));
    }
}
