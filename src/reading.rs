//! What a transfer tells of our space: our records, what is foreign beside them, and the fence.

use std::collections::BTreeSet;

use crate::current::Current;
use crate::fence::Found;
use crate::name::Name;
use crate::rr::{Rdata, Rrset, Serial, Ttl, Type};
use crate::scope::{Claimed, Foreign, Scope};
use crate::transfer::Item;
use crate::wire::{Record, WireError};
use crate::zone::{Key, Zone};

/// A zone as read from a server, as far as it concerns us.
#[derive(Clone, Debug)]
pub struct View {
    pub serial: Serial,
    pub current: Current,
    pub foreign: Foreign,
    pub fence: Found,
}

/// Gathers the records of a transfer.
pub struct Gathering {
    scope: Scope,
    fence_name: Name,
    whole: Vec<(Key, Ttl, Rdata)>,
    foreign: Foreign,
    fence: BTreeSet<Rdata>,
    deltas: Vec<Delta>,
    fence_deltas: Vec<(Rdata, Way)>,
    /// What other owners' fences claimed that came or went: one that is only renewed does both.
    came: Vec<Claimed>,
    went: Vec<Claimed>,
    /// A record came or went that decides what is ours.
    decisive: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Came,
    Went,
}

struct Delta {
    key: Key,
    ttl: Ttl,
    rdata: Rdata,
    way: Way,
}

impl Gathering {
    pub fn new(scope: Scope, fence_name: Name) -> Gathering {
        Gathering {
            scope,
            fence_name,
            whole: Vec::new(),
            foreign: Foreign::default(),
            fence: BTreeSet::new(),
            deltas: Vec::new(),
            fence_deltas: Vec::new(),
            came: Vec::new(),
            went: Vec::new(),
            decisive: false,
        }
    }

    pub fn take(&mut self, item: Item<'_, '_>) -> Result<(), WireError> {
        match item {
            Item::Record(record) => self.record(record),
            Item::Deleted(record) => self.delta(record, Way::Went),
            Item::Added(record) => self.delta(record, Way::Came),
        }
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), WireError> {
        if self.scope.could_own(&record.owner, record.rtype) {
            self.whole.push((key(record), record.ttl, record.rdata()?));
        } else if self.is_fence(record) {
            self.fence.insert(record.rdata()?);
        } else {
            self.foreign.note(&self.scope, record)?;
        }
        Ok(())
    }

    fn delta(&mut self, record: &Record<'_>, way: Way) -> Result<(), WireError> {
        if self.scope.could_own(&record.owner, record.rtype) {
            let (key, ttl, rdata) = (key(record), record.ttl, record.rdata()?);
            self.deltas.push(Delta { key, ttl, rdata, way });
        } else if self.is_fence(record) {
            self.fence_deltas.push((record.rdata()?, way));
        } else {
            self.decisive |= self.scope.decides(record);
            match self.scope.claimed(record)? {
                // Which fence exactly counts for whoever takes it over.
                Some(Claimed::Everything) => self.decisive = true,
                Some(part) if way == Way::Came => self.came.push(part),
                Some(part) => self.went.push(part),
                None => {}
            }
        }
        Ok(())
    }

    fn is_fence(&self, record: &Record<'_>) -> bool {
        record.rtype == Type::TXT && record.owner == self.fence_name
    }

    /// The view of a whole zone, compared with `desired`.
    pub fn into_view(mut self, serial: Serial, desired: &Zone, seen: &Foreign) -> View {
        let is_ours = |(_, _, rdata): &(Key, Ttl, Rdata)| self.scope.is_ours(rdata, &self.foreign);
        let (mut ours, others): (Vec<_>, Vec<_>) = self.whole.into_iter().partition(is_ours);
        others.iter().for_each(|(key, ttl, _)| self.foreign.neighbour_came(&key.name, *ttl));
        ours.sort_by(|a, b| a.0.cmp(&b.0));
        let rrsets = ours.chunk_by(|a, b| a.0 == b.0).filter_map(|group| {
            let data = group.iter().map(|(_, _, rdata)| rdata.clone()).collect();
            // PowerDNS can hold an RRset of several TTLs, which is none we could wish for.
            let one_ttl = group.iter().all(|(_, ttl, _)| *ttl == group[0].1);
            let ttl = if one_ttl { group[0].1 } else { Ttl::ZERO };
            Some((group[0].0.clone(), Rrset::new(ttl, data)?))
        });
        let read: Zone = rrsets.collect();
        self.foreign.remember_name_servers(seen);
        let fence: Vec<Rdata> = self.fence.into_iter().collect();
        View {
            serial,
            current: Current::of_reading(desired, &read),
            foreign: self.foreign,
            fence: Found::of(&fence),
        }
    }

    /// The view that differences make of an earlier one; none when they do not fit it, or decide
    /// about ownership, which only a whole reading settles.
    pub fn applied_to(mut self, view: &View, serial: Serial) -> Option<View> {
        self.came.sort_unstable();
        self.went.sort_unstable();
        if self.decisive || self.came != self.went {
            return None;
        }
        let mut view = View { serial, ..view.clone() };
        for Delta { key, ttl, rdata, way } in self.deltas {
            match (way, self.scope.is_ours(&rdata, &view.foreign)) {
                (Way::Came, true) => view.current.add(&key, ttl, rdata)?,
                (Way::Went, true) => view.current.remove(&key, &rdata)?,
                (Way::Came, false) => view.foreign.neighbour_came(&key.name, ttl),
                (Way::Went, false) => view.foreign.neighbour_went(&key.name)?,
            }
        }
        if !self.fence_deltas.is_empty() {
            let mut records: BTreeSet<Rdata> = match &view.fence {
                Found::Absent => BTreeSet::new(),
                Found::Fence(fence) => BTreeSet::from([fence.rdata()]),
                Found::Other(records) => records.iter().cloned().collect(),
            };
            for (rdata, way) in self.fence_deltas {
                match way {
                    Way::Came => records.insert(rdata),
                    Way::Went => records.remove(&rdata),
                };
            }
            view.fence = Found::of(&records.into_iter().collect::<Vec<_>>());
        }
        Some(view)
    }
}

fn key(record: &Record<'_>) -> Key {
    Key { name: record.owner.clone(), rtype: record.rtype }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::RrsetLimit;
    use crate::fence::{Adoption, Fence, Instance, Owner, Until};
    use crate::plan;
    use crate::scope::{NotOurs, Space};
    use crate::wire::{CLASS_IN, Reader, Writer};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn scope() -> Scope {
        Scope {
            zone: name("10.in-addr.arpa"),
            domain: name("mesos"),
            owner: Owner::parse("a").unwrap(),
            protect: Vec::new(),
            space: Space::Reverse,
        }
    }

    fn key(rest: &str) -> Key {
        Key { name: name(&format!("{rest}.10.in-addr.arpa")), rtype: Type::PTR }
    }

    /// A record of the zone, `1=web.mesos` or, with a TTL, `1@30=web.mesos`; or the fence of an owner,
    /// `fence b 7 prod.mesos` with its epoch and domain.
    fn record(word: &str) -> (Key, Ttl, Rdata) {
        if let Some(fence) = word.strip_prefix("fence ") {
            let [owner, epoch, domain] = *fence.split(' ').collect::<Vec<_>>() else { panic!() };
            let key = key(&format!("_mesozone-{owner}"));
            let fence = Fence {
                owner: Owner::parse(owner).unwrap(),
                instance: Instance(1),
                epoch: epoch.parse().unwrap(),
                adoption: Adoption::Adopted,
                until: Until::Run,
                domain: domain.parse().ok(),
            };
            return (Key { rtype: Type::TXT, ..key }, Ttl::ZERO, fence.rdata());
        }
        let (place, target) = word.split_once('=').unwrap();
        let (place, ttl) = place.split_once('@').unwrap_or((place, "60"));
        (key(place), Ttl::from_secs(ttl.parse().unwrap()), Rdata::Ptr(name(target)))
    }

    /// Takes records in, each with `+`, `-` or no sign before it.
    fn gathered(words: &[&str]) -> Gathering {
        let fence = scope().fence_name().unwrap();
        let mut gathering = Gathering::new(scope(), fence);
        for word in words {
            let (key, ttl, rdata) = record(word.trim_start_matches(['+', '-']));
            let mut writer = Writer::new(1, 0);
            writer.record(1, (&key.name, key.rtype, CLASS_IN), ttl, Some(&rdata));
            let message = writer.finish();
            let (_, mut reader) = Reader::behind_question(&message).unwrap();
            let read = reader.record().unwrap();
            let item = match &word[..1] {
                "+" => Item::Added(&read),
                "-" => Item::Deleted(&read),
                _ => Item::Record(&read),
            };
            gathering.take(item).unwrap();
        }
        gathering
    }

    fn whole(words: &[&str]) -> View {
        gathered(words).into_view(Serial(1), &Zone::default(), &Foreign::default())
    }

    fn zone(words: &[&str]) -> Zone {
        let records = words.iter().map(|word| record(word));
        records.map(|(key, ttl, rdata)| (key, Rrset::of_one(ttl, rdata))).collect()
    }

    /// The changes that make these records of a view, `1:old>new`.
    fn changes(view: &View, desired: &[&str]) -> String {
        let (scope, limit) = (scope(), RrsetLimit::default());
        let diff = plan::diff(&view.current, &zone(desired), &scope, &view.foreign, limit);
        let side = |set: &Option<Rrset>| {
            let each = set.iter().flat_map(|set| set.rdata().iter().map(|r| (set.ttl(), r)));
            each.map(|(ttl, r)| format!("{ttl} {r}")).collect::<Vec<_>>().join(",")
        };
        let blocked = diff.blocked.iter().map(|blocked| match &blocked.why {
            NotOurs::OtherOwner(domain) => format!("theirs {domain}"),
            why => why.to_string(),
        });
        let changed = diff.changes.iter().map(|change| {
            let place = change.key.name.to_string().replace(".10.in-addr.arpa.", "");
            format!("{place}:{}>{}", side(&change.old), side(&change.new))
        });
        changed.chain(blocked).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn of_a_reverse_zone_only_targets_within_the_domain_are_looked_at() {
        let view = whole(&["1=a.mesos", "1=printer.example", "2=b.mesos", "3=c.example"]);
        assert_eq!(view.current.record_count(), 2);
        assert_eq!(changes(&view, &["1=a.mesos", "2=b.mesos"]), "");
        assert_eq!(changes(&view, &["1=a.mesos"]), "2:60 b.mesos.>");
        assert_eq!(changes(&view, &["2=b.mesos", "3=c.mesos"]), "1:60 a.mesos.>; 3:>60 c.mesos.");
    }

    #[test]
    fn beside_records_of_others_their_ttl_counts() {
        let shared = whole(&["1@300=a.mesos", "1@300=printer.example"]);
        assert_eq!(changes(&shared, &["1=a.mesos"]), "");
        assert_eq!(changes(&shared, &["1=b.mesos"]), "1:300 a.mesos.>300 b.mesos.");
        let alone = whole(&["1@300=a.mesos"]);
        assert_eq!(changes(&alone, &["1=a.mesos"]), "1:300 a.mesos.>60 a.mesos.");
        let left = gathered(&["-1@300=printer.example"]).applied_to(&shared, Serial(2)).unwrap();
        assert_eq!(changes(&left, &["1=a.mesos"]), "1:300 a.mesos.>60 a.mesos.");
        let more = gathered(&["+1@300=more.example"]).applied_to(&left, Serial(3)).unwrap();
        assert_eq!(changes(&more, &["1=a.mesos"]), "");
        assert!(gathered(&["-1=absent.example"]).applied_to(&alone, Serial(2)).is_none());
    }

    #[test]
    fn what_the_fence_of_a_longer_domain_claims_is_never_looked_at() {
        let view = whole(&["1=a.mesos", "2=b.prod.mesos", "fence p 1 prod.mesos", "3=prod.mesos"]);
        assert_eq!(view.current.record_count(), 1);
        assert_eq!(changes(&view, &["1=a.mesos"]), "");
        assert_eq!(changes(&view, &["1=a.mesos", "4=c.prod.mesos"]), "theirs prod.mesos.");
        let theirs = gathered(&["-2=b.prod.mesos", "+5=e.prod.mesos", "+6=f.mesos"]);
        let later = theirs.applied_to(&view, Serial(2)).unwrap();
        assert_eq!(changes(&later, &["1=a.mesos"]), "6:60 f.mesos.>");
    }

    #[test]
    fn a_fence_that_is_only_renewed_decides_nothing_anew() {
        let view = whole(&["1=a.mesos", "fence p 1 prod.mesos"]);
        let applied = |words: &[&str]| gathered(words).applied_to(&view, Serial(2)).is_some();
        assert!(applied(&["-fence p 1 prod.mesos", "+fence p 2 prod.mesos"]));
        assert!(applied(&["+fence x 1 example", "+fence a 1 mesos"]));
        assert!(!applied(&["-fence p 1 prod.mesos"]));
        assert!(!applied(&["-fence p 1 prod.mesos", "+fence p 1 x.mesos"]));
        assert!(!applied(&["+fence q 1 lab.mesos"]));
        assert!(!applied(&["+fence r 1 mesos"]), "a rival");
    }
}
