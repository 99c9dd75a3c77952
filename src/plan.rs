//! What would change on a server, and which of it may. A [`Plan`] leaves no choice to whoever
//! carries it out: only what [`approve`] let through can be sent at all.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::current::Current;
use crate::fence::Adoption;
use crate::name::Name;
use crate::rr::{Rdata, Rrset};
use crate::scope::{Foreign, NotOurs, Scope};
use crate::snapshot::Completeness;
use crate::unknown::Unknown;
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

    /// The change without its removals, and with as many additions as then still fit; none when
    /// nothing is left of it.
    fn without_removals(self, limit: RrsetLimit) -> Option<Change> {
        let new = match (&self.old, self.new) {
            (Some(old), Some(new)) => Some(limit.grown(old, &new)),
            (Some(old), None) => Some(old.clone()),
            (None, new) => new,
        };
        (new != self.old).then_some(Change { key: self.key, old: self.old, new })
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

/// Everything in which a server differs from the desired zone.
#[derive(Default, Debug)]
pub struct Diff {
    pub changes: Vec<Change>,
    pub blocked: Vec<Blocked>,
    pub cut: Vec<Cut>,
}

/// How large an RRset may become; none: whatever it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RrsetLimit {
    pub record_max: Option<usize>,
    /// As answered: twelve octets a record and its data.
    pub octets_max: Option<usize>,
    /// To so many records an earlier process may have had to cut: what it left is not tried
    /// again until it changes.
    pub earlier_max: Option<usize>,
}

impl RrsetLimit {
    /// All of `old`, with the TTL of `new` and as much of it as fits.
    fn grown(&self, old: &Rrset, new: &Rrset) -> Rrset {
        let record_max =
            self.record_max.or(self.earlier_max.filter(|max| old.rdata().len() == *max));
        let mut data = old.rdata().to_vec();
        let mut size: usize = data.iter().map(octets).sum();
        for rdata in new.minus(Some(old)) {
            size += octets(rdata);
            if record_max.is_some_and(|max| data.len() >= max)
                || self.octets_max.is_some_and(|max| size > max)
            {
                break;
            }
            data.push(rdata.clone());
        }
        Rrset::new(new.ttl(), data).unwrap_or_else(|| old.clone())
    }

    fn is_earlier_cut(&self, old: &Rrset, wanted: &Rrset) -> bool {
        self.earlier_max.is_some_and(|max| {
            let limit = RrsetLimit { record_max: Some(max), ..RrsetLimit::default() };
            old.rdata().len() == max && wanted.rdata().len() > max && cut(wanted, limit) == *old
        })
    }
}

/// Compares, ownership settled first.
pub fn diff(
    current: &Current,
    desired: &Zone,
    scope: &Scope,
    foreign: &Foreign,
    limit: RrsetLimit,
) -> Diff {
    let mut diff = Diff::default();
    for key in current.differing(desired) {
        let wanted = desired.get(&key);
        if let Err(why) = scope.check(&key, foreign) {
            diff.blocked.extend(wanted.map(|_| Blocked { key, why }));
            continue;
        }
        let mut new = wanted.map(|set| cut(set, limit));
        let old = current.get(&key);
        if let (Some(old), Some(set)) = (old, wanted)
            && limit.is_earlier_cut(old, set)
        {
            new = Some(old.clone());
        }
        if let (Some(set), Some(new)) = (wanted, &new)
            && new.rdata().len() < set.rdata().len()
        {
            let (desired, published) = (set.rdata().len(), new.rdata().len());
            diff.cut.push(Cut { key: key.clone(), desired, published });
        }
        if old != new.as_ref() {
            diff.changes.push(Change { old: old.cloned(), key, new });
        }
    }
    diff
}

/// Octets of a record in an answer, its owner compressed.
fn octets(rdata: &Rdata) -> usize {
    12 + rdata.wire_len()
}

/// Those records of a large RRset that have the lowest hash: the same ones on every run, and
/// one that leaves is replaced by one.
fn cut(set: &Rrset, limit: RrsetLimit) -> Rrset {
    let record_max = limit.record_max.unwrap_or(usize::MAX);
    let octets_max = limit.octets_max.unwrap_or(usize::MAX);
    let size: usize = set.rdata().iter().map(octets).sum();
    if set.rdata().len() <= record_max && size <= octets_max {
        return set.clone();
    }
    let hash = |rdata: &Rdata| -> [u8; 20] {
        let mut octets = Vec::with_capacity(64);
        rdata.write(&mut octets);
        Sha1::digest(&octets).into()
    };
    let mut hashed: Vec<_> = set.rdata().iter().map(|rdata| (hash(rdata), rdata)).collect();
    hashed.sort_unstable();
    let mut size = 0;
    let fits = |(_, rdata): &([u8; 20], &Rdata)| {
        size += octets(rdata);
        size <= octets_max
    };
    let kept = hashed.into_iter().take(record_max).take_while(fits);
    let kept = kept.map(|(_, rdata)| rdata.clone()).collect();
    Rrset::new(set.ttl(), kept).unwrap_or_else(|| set.clone())
}

/// Names one held set: the hash of its target, zone and records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PlanId([u8; 6]);

impl PlanId {
    fn of<'r>(
        target: &str,
        zone: &Name,
        records: impl Iterator<Item = (&'r Key, &'r Rdata)>,
    ) -> PlanId {
        let mut lines: Vec<String> =
            records.map(|(key, rdata)| format!("{} {} {rdata}\n", key.name, key.rtype)).collect();
        lines.sort_unstable();
        let mut hash = Sha256::new();
        hash.update(format!("{target}\n{zone}\n"));
        lines.iter().for_each(|line| hash.update(line));
        let digest = hash.finalize();
        let mut id = [0; 6];
        id.copy_from_slice(&digest[..6]);
        PlanId(id)
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no plan id: 12 hexadecimal digits")]
pub struct PlanIdError(String);

impl FromStr for PlanId {
    type Err = PlanIdError;

    fn from_str(text: &str) -> Result<PlanId, PlanIdError> {
        let mut id = [0; 6];
        let digits = text.len() == 12 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        for (at, octet) in id.iter_mut().enumerate() {
            let two = text.get(2 * at..2 * at + 2).filter(|_| digits);
            let value = two.and_then(|two| u8::from_str_radix(two, 16).ok());
            *octet = value.ok_or_else(|| PlanIdError(text.to_owned()))?;
        }
        Ok(PlanId(id))
    }
}

/// Removals that wait for an approval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldSet {
    pub id: PlanId,
    /// In the order of names.
    pub records: Vec<(Key, Rdata)>,
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
    /// The held sets that an operator released.
    pub approved: &'g [PlanId],
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
    /// Removals of a first contact.
    pub held: Option<HeldSet>,
    /// Removals that wait until the cluster is complete again; nobody can approve them.
    pub recovering: Vec<(Key, Rdata)>,
    /// Changes of names found at first contact, which wait until the space is adopted.
    pub waiting: Vec<Change>,
    pub blocked: Vec<Blocked>,
    pub cut: Vec<Cut>,
}

impl Plan {
    /// Whether anything waits for somebody.
    pub fn holds(&self) -> bool {
        self.held.is_some() || !self.recovering.is_empty()
    }
}

/// Decides what of a difference may be sent now.
pub fn approve(
    diff: Diff,
    current: &Current,
    scope: &Scope,
    gate: &Gate<'_>,
    limit: RrsetLimit,
) -> Plan {
    let Diff { changes, blocked, cut } = diff;
    let mut plan = Plan { blocked, cut, ..Plan::default() };
    let going = match gate.adoption {
        Adoption::Adopted => changes,
        Adoption::FirstContact => first_contact(changes, current, scope, gate, &mut plan),
    };
    for change in going {
        let certain = gate.completeness.is_complete() && !gate.unknown.contains(&change.key.name);
        if certain {
            plan.approved.changes.push(change);
            continue;
        }
        let gone = change.removed().map(|rdata| (change.key.clone(), rdata.clone()));
        plan.recovering.extend(gone);
        plan.approved.changes.extend(change.without_removals(limit));
    }
    plan
}

/// In a space not adopted yet only names absent from it are created, and those that this process
/// created are kept; a space that holds nothing undesired is adopted at once.
fn first_contact(
    changes: Vec<Change>,
    current: &Current,
    scope: &Scope,
    gate: &Gate<'_>,
    plan: &mut Plan,
) -> Vec<Change> {
    let is_found = |change: &Change| {
        !gate.created.contains(&change.key.name) && current.has_name(&change.key.name)
    };
    let (found, free): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(is_found);
    let removals = found
        .iter()
        .flat_map(|change| change.removed().map(|rdata| (change.key.clone(), rdata.clone())));
    let certain = |(key, _): &(Key, Rdata)| {
        gate.completeness.is_complete() && !gate.unknown.contains(&key.name)
    };
    let (undesired, uncertain): (Vec<_>, Vec<_>) = removals.partition(certain);
    let records = undesired.iter().map(|(key, rdata)| (key, rdata));
    let id = PlanId::of(gate.target, &scope.zone, records);
    let released = undesired.is_empty() || gate.approved.contains(&id);
    let all_certain = gate.completeness.is_complete() && uncertain.is_empty();
    if current.is_empty() || all_certain && released {
        plan.approved.adopts = true;
        let mut all = [free, found].concat();
        all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        return all;
    }
    plan.recovering = uncertain;
    plan.held = (!undesired.is_empty()).then_some(HeldSet { id, records: undesired });
    plan.waiting = found.into_iter().filter(|change| !change.is_ttl_alone()).collect();
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Owner;
    use crate::rr::{Ttl, Type};
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
        words.extend(
            plan.held
                .iter()
                .flat_map(|held| held.records.iter())
                .map(|r| format!("held {}", record(r))),
        );
        words.extend(plan.recovering.iter().map(|r| format!("recovering {}", record(r))));
        words.extend(plan.waiting.iter().map(|c| format!("waiting {}", short(&c.key))));
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
        }
    }

    /// `unknown.mesos`: a framework whose host name is not resolved.
    fn unknown() -> Unknown {
        use crate::cluster::{Cluster, Endpoint, Framework, FrameworkId};
        use crate::records::{IpSource, LabelRules, Rules, Unhealthy};
        let rules = Rules {
            domain: "mesos".parse().unwrap(),
            ttl: Ttl::from_secs(60),
            ip_sources: vec![IpSource::Host],
            label_rules: LabelRules::Rfc1123,
            srv_weight: 1,
            unhealthy: Unhealthy::Publish,
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
        approved: &[PlanId],
    ) -> Plan {
        let desired = zone(desired);
        let current = Current::of_reading(&desired, &zone(server));
        let diff = diff(&current, &desired, &scope(), &Foreign::default(), RrsetLimit::default());
        let created = HashSet::from(["made.mesos".parse().unwrap()]);
        let unknown = unknown();
        let target = "bind";
        let gate =
            Gate { target, completeness, unknown: &unknown, adoption, created: &created, approved };
        approve(diff, &current, &scope(), &gate, RrsetLimit::default())
    }

    #[track_caller]
    fn check(
        server: &str,
        desired: &str,
        adoption: Adoption,
        completeness: Completeness,
        expected: &str,
    ) {
        assert_eq!(told(&plan(server, desired, adoption, completeness, &[])), expected);
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
    fn an_rrset_that_only_grows_stays_within_its_limit() {
        let set = |text: &str| zone(text).iter().next().unwrap().1.clone();
        let grown =
            |limit: RrsetLimit| limit.grown(&set("a=1,2,3"), &set("a@30=3,4,5")).rdata().len();
        assert_eq!(grown(RrsetLimit::default()), 5);
        assert_eq!(grown(RrsetLimit { record_max: Some(4), ..RrsetLimit::default() }), 4);
        assert_eq!(grown(RrsetLimit { earlier_max: Some(3), ..RrsetLimit::default() }), 3);
        assert_eq!(grown(RrsetLimit { octets_max: Some(70), ..RrsetLimit::default() }), 4);
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
        let held = plan("old=9", "b=2", Adoption::FirstContact, Completeness::Complete, &[]);
        let id = held.held.unwrap().id;
        let with = |server, ids: &[PlanId]| {
            told(&plan(server, "b=2", Adoption::FirstContact, Completeness::Complete, ids))
        };
        assert_eq!(with("old=9", &[id]), "b:>2; old:9>; adopts");
        assert_eq!(
            with("old=9 more=8", &[id]),
            "b:>2; held more=8; held old=9; waiting more; waiting old"
        );
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0123".parse::<PlanId>().is_err());
        assert!("01234567890é".parse::<PlanId>().is_err());
    }

    #[test]
    fn a_large_rrset_is_cut_the_same_way_each_time() {
        let numbers =
            |range: std::ops::Range<u8>| range.map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let large = zone(&format!("a={}", numbers(1..151)));
        let smaller = zone(&format!("a={}", numbers(1..150)));
        let key = Key { name: "a.mesos".parse().unwrap(), rtype: Type::A };
        let limit = RrsetLimit { record_max: Some(100), ..RrsetLimit::default() };
        let cut_of = |zone: &Zone| cut(zone.get(&key).unwrap(), limit);
        assert_eq!(cut_of(&large).rdata().len(), 100);
        assert!(cut_of(&large).minus(Some(&cut_of(&smaller))).count() <= 1);
        let octets = RrsetLimit { octets_max: Some(16 * 70 + 5), ..RrsetLimit::default() };
        assert_eq!(cut(large.get(&key).unwrap(), octets).rdata().len(), 70);
        let current = Current::of_reading(&large, &Zone::default());
        let first = diff(&current, &large, &scope(), &Foreign::default(), limit);
        assert_eq!(first.cut, [Cut { key: key.clone(), desired: 150, published: 100 }]);
        let mut reached = current.clone();
        reached.set(&key, first.changes[0].new.clone());
        assert_eq!(diff(&reached, &large, &scope(), &Foreign::default(), limit).changes, []);
        let fresh = RrsetLimit { earlier_max: Some(100), ..RrsetLimit::default() };
        let again = diff(&reached, &large, &scope(), &Foreign::default(), fresh);
        assert_eq!((again.changes, again.cut), (vec![], first.cut));
    }
}
