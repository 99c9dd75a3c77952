//! The zone as secondaries get it: editions of it, each with its serial.
//!
//! Answers follow the cluster at once. The transferable zone follows it at most once a second, so
//! that its serial can be Unix time and a process that starts anew goes on where the last one was.

use std::cmp::Ordering;
use std::sync::Arc;

use imbl::Vector;

use crate::rr::{Rdata, Rrset, Serial, Ttl, Type};
use crate::zone::{Key, Zone};

/// How many changed records are kept of earlier editions. They are counted and not the editions,
/// for it is they that take memory, some 150 octets each, and they that a secondary would be sent.
const CHANGES_MAX: usize = 100_000;

/// The newest edition, and what led to it from earlier ones of this process. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Editions {
    serial: Serial,
    zone: Zone,
    /// The newest last; each leads to the next one, the last to the newest edition.
    history: Vector<Arc<Step>>,
    change_count: usize,
}

/// A record that came or went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub key: Key,
    pub ttl: Ttl,
    pub rdata: Rdata,
}

/// What made the next edition of an earlier one. Records and not zones: a zone of old would keep
/// alive all of it that has changed since.
#[derive(PartialEq, Eq, Debug)]
pub struct Step {
    pub from: Serial,
    /// The SOA of the earlier edition.
    pub soa: Rrset,
    /// Neither holds an SOA.
    pub deleted: Arc<[Change]>,
    pub added: Arc<[Change]>,
}

impl Step {
    /// None between zones without an SOA, which are no editions.
    fn between(from: Serial, older: &Zone, newer: &Zone) -> Option<Step> {
        let (mut soa, mut deleted, mut added) = (None, Vec::new(), Vec::new());
        for (key, old, new) in older.diff(newer) {
            if key.rtype == Type::SOA {
                soa = old.cloned();
                continue;
            }
            // Another TTL makes of each record another one, RFC 1995, section 4.
            let same_ttl = old.map(Rrset::ttl) == new.map(Rrset::ttl);
            let only = |set: Option<&Rrset>, other: Option<&Rrset>| -> Vec<Change> {
                let Some(set) = set else { return Vec::new() };
                let data = set.minus(other.filter(|_| same_ttl));
                let (key, ttl) = (key.clone(), set.ttl());
                data.map(|rdata| Change { key: key.clone(), ttl, rdata: rdata.clone() }).collect()
            };
            deleted.extend(only(old, new));
            added.extend(only(new, old));
        }
        soa.map(|soa| Step { from, soa, deleted: deleted.into(), added: added.into() })
    }

    pub fn change_count(&self) -> usize {
        self.deleted.len() + self.added.len()
    }
}

impl Editions {
    pub fn of(serial: Serial, zone: Zone) -> Editions {
        Editions { serial, zone, history: Vector::new(), change_count: 0 }
    }

    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The whole zone, its SOA and NS among the RRsets.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    pub fn add(&mut self, serial: Serial, zone: Zone) {
        match Step::between(self.serial, &self.zone, &zone) {
            Some(step) => {
                self.change_count += step.change_count();
                self.history.push_back(Arc::new(step));
            }
            None => self.forget(),
        }
        while self.change_count > CHANGES_MAX {
            let Some(oldest) = self.history.pop_front() else { break };
            self.change_count -= oldest.change_count();
        }
        (self.serial, self.zone) = (serial, zone);
    }

    fn forget(&mut self) {
        (self.history, self.change_count) = (Vector::new(), 0);
    }

    /// What leads from the edition with this serial to the newest, in order. None if this process
    /// issued no such serial or remembers it no more, or if that is more than the whole zone.
    pub fn since(&self, serial: Serial) -> Option<Vec<Arc<Step>>> {
        let at = self.history.iter().rposition(|step| step.from == serial)?;
        let steps: Vec<Arc<Step>> = self.history.skip(at).into_iter().collect();
        let change_count: usize = steps.iter().map(|step| step.change_count()).sum();
        (change_count <= self.zone.record_count()).then_some(steps)
    }
}

/// The serial to issue at `now`, in seconds of Unix time: that, or one above what was issued
/// before where that is not below it, RFC 1982.
pub fn next_serial(now: Serial, issued: impl IntoIterator<Item = Serial>) -> Serial {
    issued.into_iter().fold(now, |next, issued| match next.partial_cmp(&issued) {
        Some(Ordering::Greater) => next,
        Some(Ordering::Less | Ordering::Equal) | None => Serial(issued.0.wrapping_add(1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_next(now: u32, issued: &[u32], expected: u32) {
        let issued = issued.iter().copied().map(Serial);
        assert_eq!(next_serial(Serial(now), issued), Serial(expected));
    }

    #[test]
    fn a_serial_is_unix_time_or_one_above_those_before() {
        check_next(9, &[], 9);
        check_next(9, &[8], 9);
        check_next(9, &[9], 10);
        check_next(9, &[20, 12], 21);
        check_next(9, &[12, 20], 21);
        check_next(9, &[u32::MAX], 9);
        check_next(u32::MAX, &[u32::MAX], 0);
        check_next(9, &[0x8000_0009], 0x8000_000a);
    }

    /// A zone with an SOA of this serial and records of words `a 60 1`: name, TTL, address.
    pub(crate) fn edition(serial: u32, words: &[(String, u32, Vec<u8>)]) -> Zone {
        let apex = Key { name: "mesos".parse().unwrap(), rtype: Type::SOA };
        let octets = [&[0, 0][..], &serial.to_be_bytes(), &[0; 16]].concat();
        let soa = Rrset::of_one(Ttl::from_secs(30), Rdata::Other(octets.into()));
        let sets = words.iter().filter_map(|(name, ttl, last)| {
            let key = Key { name: format!("{name}.mesos").parse().unwrap(), rtype: Type::A };
            let data = last.iter().map(|last| Rdata::A([10, 0, 0, *last].into())).collect();
            Some((key, Rrset::new(Ttl::from_secs(*ttl), data)?))
        });
        sets.chain([(apex, soa)]).collect()
    }

    pub(crate) fn words() -> impl Strategy<Value = Vec<(String, u32, Vec<u8>)>> {
        let word = ("[a-f]", 1..3_u32, prop::collection::vec(1..5_u8, 0..4));
        prop::collection::btree_map(word.0, (word.1, word.2), 0..6).prop_map(|words| {
            words.into_iter().map(|(name, (ttl, last))| (name, ttl, last)).collect()
        })
    }

    /// The zone with the changes of a step, each of which must be one.
    fn apply(zone: &Zone, step: &Step) -> Zone {
        let mut zone = zone.clone();
        let sets =
            |zone: &Zone, key: &Key| zone.get(key).map_or(Vec::new(), |set| set.rdata().to_vec());
        for change in &*step.deleted {
            let mut data = sets(&zone, &change.key);
            assert_eq!(zone.get(&change.key).unwrap().ttl(), change.ttl);
            data.remove(data.iter().position(|rdata| *rdata == change.rdata).unwrap());
            zone.set(change.key.clone(), Rrset::new(change.ttl, data));
        }
        for change in &*step.added {
            let mut data = sets(&zone, &change.key);
            assert!(!data.contains(&change.rdata));
            data.push(change.rdata.clone());
            zone.set(change.key.clone(), Rrset::new(change.ttl, data));
        }
        zone
    }

    proptest! {
        #[test]
        fn steps_lead_from_each_edition_to_the_newest(all in prop::collection::vec(words(), 1..6)) {
            let zones: Vec<Zone> =
                all.iter().enumerate().map(|(at, words)| edition(at as u32, words)).collect();
            let mut editions = Editions::of(Serial(0), zones[0].clone());
            for (serial, zone) in zones.iter().enumerate().skip(1) {
                editions.add(Serial(serial as u32), zone.clone());
            }
            let newest = zones.last().unwrap();
            for (serial, zone) in zones.iter().enumerate().rev().skip(1) {
                let Some(steps) = editions.since(Serial(serial as u32)) else { continue };
                let mut made = zone.clone();
                for (at, step) in steps.iter().enumerate() {
                    prop_assert_eq!(step.from, Serial((serial + at) as u32));
                    made = apply(&made, step);
                }
                let soa = Key { name: "mesos".parse().unwrap(), rtype: Type::SOA };
                made.set(soa.clone(), newest.get(&soa).cloned());
                prop_assert!(made == *newest);
            }
            prop_assert_eq!(editions.since(editions.serial()), None);
        }
    }

    #[test]
    fn what_is_not_remembered_or_more_than_the_zone_is_told_as_a_whole() {
        let word = |name: &str, last: u8| (name.to_owned(), 60, vec![last]);
        let mut editions = Editions::of(Serial(1), edition(1, &[word("a", 1), word("b", 1)]));
        editions.add(Serial(2), edition(2, &[word("a", 2), word("b", 1)]));
        assert_eq!(editions.since(Serial(1)).unwrap()[0].change_count(), 2);
        assert_eq!(editions.since(Serial(0)), None);
        editions.add(Serial(3), edition(3, &[word("a", 3), word("b", 1)]));
        assert_eq!(editions.since(Serial(1)), None, "four changes to a zone of three records");
        assert!(editions.since(Serial(2)).is_some());
    }

    #[test]
    fn the_oldest_changes_are_forgotten_first() {
        let crowd = |third: u8, count: usize| -> Vec<(String, u32, Vec<u8>)> {
            (0..count).map(|n| (format!("{third}-{n}"), 60, vec![1])).collect()
        };
        let mut editions = Editions::of(Serial(1), edition(1, &[]));
        editions.add(Serial(2), edition(2, &crowd(1, 60_000)));
        editions.add(Serial(3), edition(3, &[&crowd(1, 60_000)[..], &crowd(2, 39_000)].concat()));
        assert_eq!(editions.since(Serial(1)).unwrap().len(), 2);
        let more = [crowd(1, 60_000), crowd(2, 39_000), crowd(3, 2_000)].concat();
        editions.add(Serial(4), edition(4, &more));
        assert_eq!((editions.since(Serial(1)), editions.change_count), (None, 41_000));
        assert_eq!(editions.since(Serial(2)).unwrap().len(), 2);
    }
}
