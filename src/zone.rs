//! A zone as a persistent ordered map: cloning is free, and comparing two zones that share
//! structure costs their differences, not their size.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::name::Name;
use crate::rr::{Rdata, Rrset, Ttl, Type};

/// What a zone is ordered by: the canonical order of names, then the type.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    pub name: Name,
    pub rtype: Type,
}

/// RRsets by name and type.
#[derive(Clone, Default, Debug)]
pub struct Zone {
    rrsets: OrdMap<Key, Rrset>,
    record_count: usize,
}

impl Zone {
    pub fn get(&self, key: &Key) -> Option<&Rrset> {
        self.rrsets.get(key)
    }

    /// Puts an RRset in, or takes it out with none. Returns what was there.
    pub fn set(&mut self, key: Key, rrset: Option<Rrset>) -> Option<Rrset> {
        self.record_count += rrset.as_ref().map_or(0, |set| set.rdata().len());
        let before = match rrset {
            Some(rrset) => self.rrsets.insert(key, rrset),
            None => self.rrsets.remove(&key),
        };
        self.record_count -= before.as_ref().map_or(0, |set| set.rdata().len());
        before
    }

    /// RRsets in the canonical order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Rrset)> {
        self.rrsets.iter()
    }

    /// Those at and behind a place of that order.
    pub fn iter_from(&self, start: Key) -> impl Iterator<Item = (&Key, &Rrset)> {
        self.rrsets.range(start..)
    }

    /// Records in the canonical order of names.
    pub fn records(&self) -> impl Iterator<Item = (&Key, Ttl, &Rdata)> {
        self.rrsets
            .iter()
            .flat_map(|(key, set)| set.rdata().iter().map(move |rdata| (key, set.ttl(), rdata)))
    }

    /// The number of RRsets.
    pub fn len(&self) -> usize {
        self.rrsets.len()
    }

    /// The number of records.
    pub fn record_count(&self) -> usize {
        self.record_count
    }

    pub fn is_empty(&self) -> bool {
        self.rrsets.is_empty()
    }

    /// The RRsets of one name.
    pub fn at<'z>(&'z self, name: &Name) -> impl Iterator<Item = (Type, &'z Rrset)> + use<'z> {
        let start = Key { name: name.clone(), rtype: Type(0) };
        let end = Key { name: name.clone(), rtype: Type(u16::MAX) };
        self.rrsets.range(start..=end).map(|(key, set)| (key.rtype, set))
    }

    /// Whether anything stands at or below `name`: if so the name exists (RFC 8020), though it
    /// may be an empty non-terminal.
    pub fn has_within(&self, name: &Name) -> bool {
        let start = Key { name: name.clone(), rtype: Type(0) };
        self.rrsets.range(start..).next().is_some_and(|(key, _)| key.name.is_within(name))
    }

    /// What makes `newer` of this zone, in order: key, RRset here, RRset there.
    pub fn diff<'z>(
        &'z self,
        newer: &'z Zone,
    ) -> impl Iterator<Item = (&'z Key, Option<&'z Rrset>, Option<&'z Rrset>)> {
        self.rrsets.diff(&newer.rrsets).map(|item| match item {
            DiffItem::Add(key, new) => (key, None, Some(new)),
            DiffItem::Remove(key, old) => (key, Some(old), None),
            DiffItem::Update { old: (key, old), new: (_, new) } => (key, Some(old), Some(new)),
        })
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Zone) -> bool {
        self.diff(other).next().is_none()
    }
}

impl FromIterator<(Key, Rrset)> for Zone {
    fn from_iter<I: IntoIterator<Item = (Key, Rrset)>>(rrsets: I) -> Zone {
        let mut zone = Zone::default();
        for (key, rrset) in rrsets {
            zone.set(key, Some(rrset));
        }
        zone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn key(text: &str) -> Key {
        Key { name: text.parse().unwrap(), rtype: Type::A }
    }

    fn set(last: u8) -> Option<Rrset> {
        Rrset::new(Ttl::from_secs(60), vec![Rdata::A(Ipv4Addr::new(10, 0, 0, last))])
    }

    #[test]
    fn an_empty_non_terminal_exists() {
        let mut zone = Zone::default();
        zone.set(key("a.b.mesos"), set(1));
        assert!(zone.has_within(&"b.mesos".parse().unwrap()));
        assert!(!zone.has_within(&"c.mesos".parse().unwrap()));
        assert_eq!(zone.at(&"b.mesos".parse().unwrap()).count(), 0);
        assert_eq!(zone.at(&"a.b.mesos".parse().unwrap()).count(), 1);
    }

    fn some_zone() -> impl Strategy<Value = Zone> {
        prop::collection::btree_map("[a-f]", 1..4u8, 0..6).prop_map(|names| {
            names.into_iter().filter_map(|(name, last)| Some((key(&name), set(last)?))).collect()
        })
    }

    proptest! {
        #[test]
        fn applying_a_diff_makes_the_newer_zone(older in some_zone(), newer in some_zone()) {
            let mut made = older.clone();
            for (key, _, new) in older.diff(&newer) {
                made.set(key.clone(), new.cloned());
            }
            prop_assert!(made == newer);
            prop_assert_eq!(made.record_count(), newer.records().count());
            prop_assert_eq!(newer.diff(&newer).count(), 0);
        }
    }
}
