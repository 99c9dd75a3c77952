//! Which of a zone's RRsets are ours. Settled before any comparison: what is not ours is never
//! looked at again.

use std::collections::BTreeSet;
use std::fmt;

use crate::fence::{FENCE_LABEL, Fence, Owner};
use crate::name::{Name, NameError};
use crate::rr::Type;
use crate::wire::{Record, WireError};
use crate::zone::Key;

/// The types that are published into a forward zone.
pub const TYPES: [Type; 3] = [Type::A, Type::AAAA, Type::SRV];

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
        depth_fits && self.labels.iter().zip(&labels[deeper..]).all(|(p, l)| glob(p, l))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether `text` is `pattern` with each `*` standing for some run of octets.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let mut parts = pattern.split(|octet| *octet == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let found = rest.windows(part.len().max(1)).position(|window| window.starts_with(part));
        let Some(at) = found.or(part.is_empty().then_some(0)) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// The space that a configuration gave us in one zone.
#[derive(Clone, Debug)]
pub struct Scope {
    pub zone: Name,
    pub domain: Name,
    pub owner: Owner,
    pub protect: Vec<Pattern>,
}

/// Why an RRset is not ours.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotOurs {
    #[error("it is not below the domain")]
    Outside,
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

/// What a zone holds that decides about ownership.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Foreign {
    cnames: BTreeSet<Name>,
    cuts: BTreeSet<Name>,
    dnames: BTreeSet<Name>,
    name_servers: BTreeSet<Name>,
    other_owners: BTreeSet<Name>,
}

impl Scope {
    /// Whether the RRset is ours, as far as its name and type tell.
    pub fn could_own(&self, name: &Name, rtype: Type) -> bool {
        TYPES.contains(&rtype) && name.is_below(&self.domain) && *name != self.zone
    }

    /// Whether the RRset is ours, beside what else the zone holds.
    pub fn check(&self, key: &Key, foreign: &Foreign) -> Result<(), NotOurs> {
        let name = &key.name;
        if !TYPES.contains(&key.rtype) {
            return Err(NotOurs::Type);
        }
        if !self.could_own(name, key.rtype) {
            return Err(NotOurs::Outside);
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
        let at_or_above = |set: &BTreeSet<Name>| {
            let found = (!set.is_empty()).then(|| name.ancestors().find(|up| set.contains(up)));
            found.flatten()
        };
        if let Some(cut) = at_or_above(&foreign.cuts) {
            return Err(NotOurs::Delegated(cut));
        }
        if let Some(dname) = at_or_above(&foreign.dnames) {
            return Err(NotOurs::Dname(dname));
        }
        match at_or_above(&foreign.other_owners) {
            Some(parent) => Err(NotOurs::OtherOwner(parent)),
            None => Ok(()),
        }
    }

    /// Whether a change of this record may change what is ours.
    pub fn decides(&self, record: &Record<'_>) -> bool {
        match record.rtype {
            Type::NS | Type::CNAME | Type::DNAME => true,
            Type::TXT => self.is_other_fence(&record.owner),
            _ => false,
        }
    }

    fn is_other_fence(&self, name: &Name) -> bool {
        let is_fence = name.labels().next().is_some_and(|label| *label == *FENCE_LABEL);
        is_fence && name.parent().is_some_and(|parent| parent.is_below(&self.domain))
    }
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
            Type::TXT if scope.is_other_fence(&record.owner) => {
                let fence = Fence::parse(&record.rdata()?);
                if fence.is_none_or(|fence| fence.owner != scope.owner) {
                    self.other_owners.extend(record.owner.parent());
                }
            }
            _ => {}
        }
        Ok(())
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
    use crate::rr::{Rdata, Ttl};
    use crate::wire::{CLASS_IN, Reader, Writer};
    use std::sync::Arc;

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
        }
    }

    fn foreign(records: &[(&str, Type, &str)]) -> Foreign {
        let mut writer = Writer::new(1, 0);
        for (owner, rtype, target) in records {
            let mut octets = Vec::new();
            name(target).write(&mut octets);
            let rdata = Rdata::Other(Arc::from(octets));
            writer.record(1, (&name(owner), *rtype, CLASS_IN), Ttl::ZERO, Some(&rdata));
        }
        let message = writer.finish();
        let (_, mut reader) = Reader::behind_question(&message).unwrap();
        let mut foreign = Foreign::default();
        for _ in records {
            foreign.note(&scope(), &reader.record().unwrap()).unwrap();
        }
        foreign
    }

    #[track_caller]
    fn check(owner: &str, rtype: Type, expected: Result<(), NotOurs>) {
        let foreign = foreign(&[
            ("mesos", Type::NS, "ns1.mesos"),
            ("alias.mesos", Type::CNAME, "elsewhere.example"),
            ("sub.mesos", Type::NS, "ns.sub.mesos"),
            ("moved.mesos", Type::DNAME, "elsewhere.example"),
            ("_mesozone.other.mesos", Type::TXT, "x"),
        ]);
        assert_eq!(scope().check(&Key { name: name(owner), rtype }, &foreign), expected);
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
