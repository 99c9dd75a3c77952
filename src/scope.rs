//! Which of a zone's RRsets are ours. Settled before any comparison: what is not ours is never
//! looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use imbl::OrdMap;

use crate::fence::{FENCE_LABEL, Fence, Owner};
use crate::glob;
use crate::name::{Name, NameError};
use crate::rr::{Rdata, Rrset, Ttl, Type};
use crate::wire::{Record, WireError};
use crate::zone::Key;

/// Which part of a zone a configuration gave us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// A, AAAA and SRV strictly below the domain.
    Below,
    /// And at the domain, which tasks may choose for a name, unless it is the zone's apex.
    Within,
    /// In a reverse zone: PTR records whose target is at or below the domain.
    Reverse,
}

impl Space {
    /// The types that are published there.
    pub fn types(self) -> &'static [Type] {
        match self {
            Space::Below | Space::Within => &[Type::A, Type::AAAA, Type::SRV],
            Space::Reverse => &[Type::PTR],
        }
    }

    /// What a key has to be allowed there, in words.
    pub fn rights(self) -> &'static str {
        match self {
            Space::Below | Space::Within => "A, AAAA, SRV and TXT at and below the domain",
            Space::Reverse => "PTR and TXT below the zone's apex",
        }
    }
}

/// A name that is left alone, `*` for any run within a label, a leading `**.` for any labels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// Leaf first, lower case.
    labels: Vec<Vec<u8>>,
    any_depth: bool,
    text: String,
}

impl Pattern {
    /// Reads an absolute pattern.
    pub fn parse(text: &str) -> Result<Pattern, NameError> {
        let (any_depth, rest) = match text.strip_prefix("**.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let name: Name = rest.parse()?;
        let labels = name.labels().map(|label| label.into_owned()).collect();
        Ok(Pattern { labels, any_depth, text: text.to_owned() })
    }

    /// Whether everything it matches lies within `zone`.
    pub fn is_within(&self, zone: &Name) -> bool {
        let ending: Vec<_> = zone.labels().collect();
        let deeper = self.labels.len().checked_sub(ending.len());
        deeper.is_some_and(|at| self.labels[at..].iter().zip(&ending).all(|(p, l)| **p == **l))
    }

    pub fn matches(&self, name: &Name) -> bool {
        let labels: Vec<_> = name.labels().collect();
        let Some(deeper) = labels.len().checked_sub(self.labels.len()) else { return false };
        let depth_fits = if self.any_depth { deeper > 0 } else { deeper == 0 };
        depth_fits && self.labels.iter().zip(&labels[deeper..]).all(|(p, l)| glob::fits(p, l))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The space that a configuration gave us in one zone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    pub zone: Name,
    pub domain: Name,
    pub owner: Owner,
    pub protect: Vec<Pattern>,
    pub space: Space,
}

/// Why an RRset is not ours.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotOurs {
    #[error("it is not below the domain")]
    Outside,
    #[error("it is the zone's apex")]
    Apex,
    #[error("mesozone does not publish this type")]
    Type,
    #[error("a foreign CNAME is there")]
    Cname,
    #[error("{0} is delegated")]
    Delegated(Name),
    #[error("a DNAME is at {0}")]
    Dname(Name),
    #[error("it is the address of a name server of the zone")]
    Glue,
    #[error("protected by {0:?}")]
    Protected(String),
    #[error("another owner publishes at and below {0}")]
    OtherOwner(Name),
}

/// What a zone holds that decides about ownership. Cloning costs what is rare.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Foreign {
    cnames: BTreeSet<Name>,
    cuts: BTreeSet<Name>,
    dnames: BTreeSet<Name>,
    name_servers: BTreeSet<Name>,
    /// At and below these names others publish. In a reverse zone they are names of targets.
    other_owners: BTreeSet<Name>,
    /// In a reverse zone: the fences of other owners for the very domain that is ours.
    rivals: BTreeMap<Name, Fence>,
    /// In a reverse zone: how many PTR records of others stand at a name, and their TTL.
    neighbours: OrdMap<Name, (usize, Ttl)>,
}

/// What the fence of another owner takes from our space.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Claimed {
    /// All at and below a name.
    Part(Name),
    /// All of it.
    Everything,
}

impl Scope {
    /// The name at which our fence stands.
    pub fn fence_name(&self) -> Result<Name, NameError> {
        match self.space {
            Space::Below | Space::Within => self.domain.child(FENCE_LABEL),
            Space::Reverse => {
                let label = [FENCE_LABEL, format!("-{}", self.owner).as_bytes()].concat();
                self.zone.child(&label)
            }
        }
    }

    /// What our fence says of the names it is for, where its place does not.
    pub fn fence_domain(&self) -> Option<&Name> {
        (self.space == Space::Reverse).then_some(&self.domain)
    }

    /// Whether the RRset may hold records of ours, as far as its name and type tell.
    pub fn could_own(&self, name: &Name, rtype: Type) -> bool {
        self.space.types().contains(&rtype) && *name != self.zone && self.has_within(name)
    }

    fn has_within(&self, name: &Name) -> bool {
        match self.space {
            Space::Below => name.is_below(&self.domain),
            Space::Within => name.is_within(&self.domain),
            Space::Reverse => name.is_within(&self.zone),
        }
    }

    /// Whether a record in an RRset that could hold ours is ours.
    pub fn is_ours(&self, rdata: &Rdata, foreign: &Foreign) -> bool {
        match (self.space, rdata) {
            (Space::Reverse, Rdata::Ptr(target)) => {
                target.is_within(&self.domain)
                    && at_or_above(target, &foreign.other_owners).is_none()
            }
            _ => true,
        }
    }

    /// The part of a desired RRset that is ours to publish, and how many records are not.
    pub fn share(
        &self,
        set: &Rrset,
        foreign: &Foreign,
    ) -> (Option<Rrset>, Option<(usize, NotOurs)>) {
        let is_ours = |rdata: &&Rdata| self.is_ours(rdata, foreign);
        let Some(Rdata::Ptr(target)) = set.rdata().iter().find(|rdata| !is_ours(rdata)) else {
            return (Some(set.clone()), None);
        };
        let why = match at_or_above(target, &foreign.other_owners) {
            Some(domain) => NotOurs::OtherOwner(domain),
            None => NotOurs::Outside,
        };
        let ours: Vec<Rdata> = set.rdata().iter().filter(is_ours).cloned().collect();
        let count = set.rdata().len() - ours.len();
        (Rrset::new(set.ttl(), ours), Some((count, why)))
    }

    /// Whether the RRset is ours, beside what else the zone holds.
    pub fn check(&self, key: &Key, foreign: &Foreign) -> Result<(), NotOurs> {
        let name = &key.name;
        if !self.space.types().contains(&key.rtype) {
            return Err(NotOurs::Type);
        }
        if !self.could_own(name, key.rtype) {
            let is_apex = *name == self.zone && self.has_within(name);
            return Err(if is_apex { NotOurs::Apex } else { NotOurs::Outside });
        }
        if let Some(pattern) = self.protect.iter().find(|pattern| pattern.matches(name)) {
            return Err(NotOurs::Protected(pattern.to_string()));
        }
        if foreign.name_servers.contains(name) {
            return Err(NotOurs::Glue);
        }
        if foreign.cnames.contains(name) {
            return Err(NotOurs::Cname);
        }
        if let Some(cut) = at_or_above(name, &foreign.cuts) {
            return Err(NotOurs::Delegated(cut));
        }
        if let Some(dname) = at_or_above(name, &foreign.dnames) {
            return Err(NotOurs::Dname(dname));
        }
        match at_or_above(name, &foreign.other_owners) {
            Some(parent) if self.space != Space::Reverse => Err(NotOurs::OtherOwner(parent)),
            _ => Ok(()),
        }
    }

    /// Whether a change of this record may change what is ours; what fences claim aside.
    pub fn decides(&self, record: &Record<'_>) -> bool {
        matches!(record.rtype, Type::NS | Type::CNAME | Type::DNAME)
    }

    /// What a record claims of our space, if it is the fence of another owner.
    pub fn claimed(&self, record: &Record<'_>) -> Result<Option<Claimed>, WireError> {
        if record.rtype != Type::TXT {
            return Ok(None);
        }
        let place = record.owner.parent();
        let label = record.owner.labels().next().unwrap_or_default();
        let others = |fence: &Fence| fence.owner != self.owner;
        Ok(match (self.space, place) {
            (Space::Below | Space::Within, Some(parent)) => {
                let is_place = *label == *FENCE_LABEL && parent.is_below(&self.domain);
                let claims = is_place && Fence::parse(&record.rdata()?).as_ref().is_none_or(others);
                claims.then_some(Claimed::Part(parent))
            }
            (Space::Reverse, Some(parent)) => {
                if !label.starts_with(FENCE_LABEL) || parent != self.zone {
                    return Ok(None);
                }
                let fence = Fence::parse(&record.rdata()?).filter(others);
                fence.and_then(|fence| fence.domain).and_then(|domain| match domain {
                    domain if domain == self.domain => Some(Claimed::Everything),
                    domain if domain.is_below(&self.domain) => Some(Claimed::Part(domain)),
                    _ => None,
                })
            }
            (_, None) => None,
        })
    }
}

/// The name itself, or one above it, that is in the set.
fn at_or_above(name: &Name, set: &BTreeSet<Name>) -> Option<Name> {
    let found = (!set.is_empty()).then(|| name.ancestors().find(|up| set.contains(up)));
    found.flatten()
}

impl Foreign {
    /// Takes note of one record of the zone.
    pub fn note(&mut self, scope: &Scope, record: &Record<'_>) -> Result<(), WireError> {
        match record.rtype {
            Type::CNAME => {
                self.cnames.insert(record.owner.clone());
            }
            Type::DNAME => {
                self.dnames.insert(record.owner.clone());
            }
            Type::NS => {
                self.name_servers.insert(record.target()?);
                if record.owner != scope.zone {
                    self.cuts.insert(record.owner.clone());
                }
            }
            Type::TXT => match scope.claimed(record)? {
                Some(Claimed::Part(name)) => drop(self.other_owners.insert(name)),
                Some(Claimed::Everything) => {
                    let fence = Fence::parse(&record.rdata()?);
                    self.rivals.extend(fence.map(|fence| (record.owner.clone(), fence)));
                }
                None => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// Whether it leaves us the same part of the zone.
    pub fn decides_like(&self, other: &Foreign) -> bool {
        // Neighbours decide nothing, and may be many.
        let Foreign { cnames, cuts, dnames, name_servers, other_owners, rivals, neighbours: _ } =
            self;
        (cnames, cuts, dnames) == (&other.cnames, &other.cuts, &other.dnames)
            && (name_servers, other_owners) == (&other.name_servers, &other.other_owners)
            && *rivals == other.rivals
    }

    /// Takes note of a PTR record of others.
    pub fn neighbour_came(&mut self, name: &Name, ttl: Ttl) {
        let count = self.neighbours.get(name).map_or(0, |(count, _)| *count);
        self.neighbours.insert(name.clone(), (count + 1, ttl));
    }

    /// Takes note that it is gone; none when it was not there.
    pub fn neighbour_went(&mut self, name: &Name) -> Option<()> {
        let (count, ttl) = self.neighbours.remove(name)?;
        if count > 1 {
            self.neighbours.insert(name.clone(), (count - 1, ttl));
        }
        Some(())
    }

    /// The TTL of an RRset that has records of others, which ours there follow.
    pub fn ttl_at(&self, key: &Key) -> Option<Ttl> {
        let shared = (key.rtype == Type::PTR).then(|| self.neighbours.get(&key.name));
        shared.flatten().map(|(_, ttl)| *ttl)
    }

    /// The fences of other owners for the very domain that is ours.
    pub fn rivals(&self) -> impl Iterator<Item = (&Name, &Fence)> {
        self.rivals.iter()
    }

    /// The fence of a rival was replaced by ours.
    pub fn forget_rival(&mut self, fence: &Name) {
        self.rivals.remove(fence);
    }

    /// Keeps the name servers of an earlier reading: an address stays theirs while a delegation
    /// is being changed.
    pub fn remember_name_servers(&mut self, earlier: &Foreign) {
        self.name_servers.extend(earlier.name_servers.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{Adoption, Instance, Until};
    use crate::wire::{CLASS_IN, Reader, Writer};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check_pattern(pattern: &str, matching: &[&str], others: &[&str]) {
        let pattern = Pattern::parse(pattern).unwrap();
        matching.iter().for_each(|text| assert!(pattern.matches(&name(text)), "{text}"));
        others.iter().for_each(|text| assert!(!pattern.matches(&name(text)), "{text}"));
    }

    #[test]
    fn patterns_match_whole_names() {
        check_pattern("NS1.mesos", &["ns1.mesos"], &["a.ns1.mesos", "ns2.mesos", "mesos"]);
        check_pattern(
            "vip-*.mesos.",
            &["vip-1.mesos", "vip-.mesos"],
            &["vip.mesos", "a.vip-1.mesos"],
        );
        check_pattern("*.mesos", &["a.mesos"], &["a.b.mesos", "mesos"]);
        check_pattern(
            "**.lab.mesos",
            &["a.lab.mesos", "a.b.lab.mesos"],
            &["lab.mesos", "lab.x.mesos"],
        );
        check_pattern("a*b*c.mesos", &["abc.mesos", "axbbxc.mesos"], &["ab.mesos", "acb.mesos"]);
    }

    fn scope() -> Scope {
        Scope {
            zone: name("mesos"),
            domain: name("mesos"),
            owner: Owner::parse("mesos").unwrap(),
            protect: vec![Pattern::parse("vip-*.mesos").unwrap()],
            space: Space::Below,
        }
    }

    fn foreign(scope: &Scope, records: &[(&str, Type, Rdata)]) -> Foreign {
        let mut writer = Writer::new(1, 0);
        for (owner, rtype, rdata) in records {
            writer.record(1, (&name(owner), *rtype, CLASS_IN), Ttl::ZERO, Some(rdata));
        }
        let message = writer.finish();
        let (_, mut reader) = Reader::behind_question(&message).unwrap();
        let mut foreign = Foreign::default();
        for _ in records {
            foreign.note(scope, &reader.record().unwrap()).unwrap();
        }
        foreign
    }

    #[track_caller]
    fn check(owner: &str, rtype: Type, expected: Result<(), NotOurs>) {
        let foreign = foreign(
            &scope(),
            &[
                ("mesos", Type::NS, to("ns1.mesos")),
                ("alias.mesos", Type::CNAME, to("elsewhere.example")),
                ("sub.mesos", Type::NS, to("ns.sub.mesos")),
                ("moved.mesos", Type::DNAME, to("elsewhere.example")),
                ("_mesozone.other.mesos", Type::TXT, to("x")),
            ],
        );
        assert_eq!(scope().check(&Key { name: name(owner), rtype }, &foreign), expected);
    }

    fn to(target: &str) -> Rdata {
        Rdata::Ptr(name(target))
    }

    #[test]
    fn where_tasks_choose_names_the_domain_is_ours_unless_it_is_the_apex() {
        let within = Scope { space: Space::Within, ..scope() };
        let deeper = Scope { domain: name("prod.mesos"), ..within.clone() };
        let check = |scope: &Scope, text: &str| {
            scope.check(&Key { name: name(text), rtype: Type::A }, &Foreign::default())
        };
        assert_eq!(check(&within, "mesos"), Err(NotOurs::Apex));
        assert_eq!(check(&deeper, "prod.mesos"), Ok(()));
        assert_eq!(check(&deeper, "mesos"), Err(NotOurs::Outside));
        let below = Scope { space: Space::Below, ..deeper };
        assert_eq!(check(&below, "prod.mesos"), Err(NotOurs::Outside));
    }

    fn reverse() -> Scope {
        Scope {
            zone: name("10.in-addr.arpa"),
            protect: vec![Pattern::parse("*.0.0.10.in-addr.arpa").unwrap()],
            space: Space::Reverse,
            ..scope()
        }
    }

    fn fence(owner: &str, domain: &str) -> Rdata {
        let fence = Fence {
            owner: Owner::parse(owner).unwrap(),
            instance: Instance(1),
            epoch: 1,
            adoption: Adoption::Adopted,
            until: Until::Run,
            domain: domain.parse().ok(),
        };
        fence.rdata()
    }

    /// A reverse zone with the fences of others.
    fn shared() -> Foreign {
        foreign(
            &reverse(),
            &[
                ("10.in-addr.arpa", Type::NS, to("ns1.mesos")),
                ("9.0.10.in-addr.arpa", Type::NS, to("ns.sub.mesos")),
                ("7.1.0.10.in-addr.arpa", Type::CNAME, to("7.sub.example")),
                ("_mesozone-mesos.10.in-addr.arpa", Type::TXT, fence("mesos", "mesos")),
                ("_mesozone-prod.10.in-addr.arpa", Type::TXT, fence("prod", "prod.mesos")),
                ("_mesozone-x.10.in-addr.arpa", Type::TXT, fence("x", "example")),
                ("_mesozone-y.1.10.in-addr.arpa", Type::TXT, fence("y", "y.mesos")),
            ],
        )
    }

    #[track_caller]
    fn check_reverse(owner: &str, rtype: Type, expected: Result<(), NotOurs>) {
        let key = Key { name: name(owner), rtype };
        assert_eq!(reverse().check(&key, &shared()), expected);
    }

    #[test]
    fn in_a_reverse_zone_names_of_addresses_may_have_records_of_ours() {
        check_reverse("1.1.0.10.in-addr.arpa", Type::PTR, Ok(()));
        check_reverse("1.1.0.10.in-addr.arpa", Type::A, Err(NotOurs::Type));
        check_reverse("10.in-addr.arpa", Type::PTR, Err(NotOurs::Apex));
        check_reverse("web.mesos", Type::PTR, Err(NotOurs::Outside));
        let protected = NotOurs::Protected("*.0.0.10.in-addr.arpa".to_owned());
        check_reverse("1.0.0.10.in-addr.arpa", Type::PTR, Err(protected));
        check_reverse("7.1.0.10.in-addr.arpa", Type::PTR, Err(NotOurs::Cname));
        let cut = NotOurs::Delegated(name("9.0.10.in-addr.arpa"));
        check_reverse("1.9.0.10.in-addr.arpa", Type::PTR, Err(cut));
    }

    #[track_caller]
    fn check_share(targets: &[&str], ours: usize, others: Option<(usize, &str)>) {
        let set = Rrset::new(Ttl::ZERO, targets.iter().map(|target| to(target)).collect()).unwrap();
        let (share, rest) = reverse().share(&set, &shared());
        assert_eq!(share.map_or(0, |share| share.rdata().len()), ours);
        let why = |domain: &str| NotOurs::OtherOwner(name(domain));
        assert_eq!(rest, others.map(|(count, domain)| (count, why(domain))));
    }

    #[test]
    fn below_the_longer_domain_of_another_fence_targets_are_theirs() {
        check_share(&["a.mesos", "y.mesos"], 2, None);
        check_share(&["a.mesos", "b.prod.mesos"], 1, Some((1, "prod.mesos")));
        check_share(&["prod.mesos"], 0, Some((1, "prod.mesos")));
        assert!(!reverse().is_ours(&to("printer.example"), &shared()));
        assert!(shared().rivals().next().is_none());
    }

    #[test]
    fn another_fence_for_our_domain_is_a_rival() {
        let place = "_mesozone-other.10.in-addr.arpa";
        let foreign = foreign(&reverse(), &[(place, Type::TXT, fence("other", "mesos"))]);
        let rivals: Vec<_> = foreign.rivals().map(|(at, f)| (at.clone(), f.rdata())).collect();
        assert_eq!(rivals, [(name(place), fence("other", "mesos"))]);
    }

    #[test]
    fn a_fence_in_a_reverse_zone_is_named_for_its_owner() {
        let fence = |scope: Scope| scope.fence_name().unwrap().to_string();
        assert_eq!(fence(scope()), "_mesozone.mesos.");
        assert_eq!(fence(reverse()), "_mesozone-mesos.10.in-addr.arpa.");
        assert_eq!(reverse().fence_domain(), Some(&name("mesos")));
    }

    #[test]
    fn the_ttl_of_others_counts_while_any_of_them_is_there() {
        let key = Key { name: name("1.1.0.10.in-addr.arpa"), rtype: Type::PTR };
        let mut foreign = Foreign::default();
        foreign.neighbour_came(&key.name, Ttl::from_secs(30));
        foreign.neighbour_came(&key.name, Ttl::from_secs(90));
        assert_eq!(foreign.ttl_at(&key), Some(Ttl::from_secs(90)));
        assert!(foreign.neighbour_went(&key.name).is_some());
        assert_eq!(foreign.ttl_at(&key), Some(Ttl::from_secs(90)));
        assert!(foreign.neighbour_went(&key.name).is_some());
        assert_eq!((foreign.ttl_at(&key), foreign.neighbour_went(&key.name)), (None, None));
    }

    #[test]
    fn what_is_ours_is_settled_by_name_type_and_neighbours() {
        check("web.marathon.mesos", Type::A, Ok(()));
        check("_web._tcp.marathon.mesos", Type::SRV, Ok(()));
        check("mesos", Type::A, Err(NotOurs::Outside));
        check("web.example", Type::A, Err(NotOurs::Outside));
        check("web.mesos", Type::TXT, Err(NotOurs::Type));
        check("ns1.mesos", Type::A, Err(NotOurs::Glue));
        check("vip-7.mesos", Type::A, Err(NotOurs::Protected("vip-*.mesos".to_owned())));
        check("alias.mesos", Type::A, Err(NotOurs::Cname));
        check("b.alias.mesos", Type::A, Ok(()));
        check("sub.mesos", Type::A, Err(NotOurs::Delegated(name("sub.mesos"))));
        check("a.b.sub.mesos", Type::A, Err(NotOurs::Delegated(name("sub.mesos"))));
        check("a.moved.mesos", Type::A, Err(NotOurs::Dname(name("moved.mesos"))));
        check("other.mesos", Type::A, Err(NotOurs::OtherOwner(name("other.mesos"))));
        check("a.other.mesos", Type::A, Err(NotOurs::OtherOwner(name("other.mesos"))));
    }
}
