//! What others change in our space between two readings of a zone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::current::Current;
use crate::held::Entry;
use crate::rr::{Rdata, Rrset};
use crate::zone::{Key, Zone};

/// Records that others took away or added.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Drift {
    /// Desired, and no longer there.
    pub gone: Vec<Entry>,
    /// There, and not desired.
    pub come: Vec<Entry>,
}

impl Drift {
    /// What differs between two views with one base, where it concerns us.
    pub fn between(
        before: &Current,
        now: &Current,
        desired: &Zone,
        is_ours: impl Fn(&Key) -> bool,
    ) -> Drift {
        let mut drift = Drift::default();
        for (key, old, new) in before.drift(now) {
            if !is_ours(&key) {
                continue;
            }
            let is_wanted = |rdata: &&Rdata| desired.get(&key).is_some_and(|d| d.contains(rdata));
            let entry = |rdata: &Rdata| (key.clone(), rdata.clone());
            let missing = |here: Option<&Rrset>, there: Option<&Rrset>| {
                here.into_iter().flat_map(|set| set.minus(there)).cloned().collect::<Vec<_>>()
            };
            let (went, came) = (missing(old, new), missing(new, old));
            drift.gone.extend(went.iter().filter(is_wanted).map(entry));
            drift.come.extend(came.iter().filter(|rdata| !is_wanted(rdata)).map(entry));
        }
        drift
    }

    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty()
    }
}

/// What others added, each until it is removed.
#[derive(Clone, Default, Debug)]
pub struct Young(BTreeMap<Entry, Duration>);

impl Young {
    /// Each of these is removed at `due`, unless it is waited for already.
    pub fn note(&mut self, come: Vec<Entry>, due: Duration) {
        for entry in come {
            self.0.entry(entry).or_insert(due);
        }
    }

    /// Those that are there still and not due yet; the others are forgotten.
    pub fn at(&mut self, now: Duration, current: &Current) -> BTreeSet<Entry> {
        let is_there = |(key, rdata): &Entry| current.get(key).is_some_and(|s| s.contains(rdata));
        self.0.retain(|entry, due| *due > now && is_there(entry));
        self.0.keys().cloned().collect()
    }

    /// When the next of them is due, after `now`.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        self.0.values().filter(|due| **due > now).min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rr::{Ttl, Type};
    use std::net::Ipv4Addr;

    fn key(name: char) -> Key {
        Key { name: format!("{name}.mesos").parse().unwrap(), rtype: Type::A }
    }

    fn entry(name: char, last: u8) -> Entry {
        (key(name), Rdata::A(Ipv4Addr::new(10, 0, 0, last)))
    }

    /// A zone of words `a12`: a.mesos with 10.0.0.1 and 10.0.0.2.
    fn zone(text: &str) -> Zone {
        let rrset = |word: &str| {
            let mut chars = word.chars();
            let name = chars.next()?;
            let data = chars.filter_map(|c| Some(entry(name, c.to_digit(10)? as u8).1)).collect();
            Some((key(name), Rrset::new(Ttl::from_secs(60), data)?))
        };
        text.split_whitespace().filter_map(rrset).collect()
    }

    #[track_caller]
    fn check(before: &str, now: &str, desired: &str, gone: &[Entry], come: &[Entry]) {
        let desired = zone(desired);
        let [before, now] = [before, now].map(|t| Current::of_reading(&desired, &zone(t)));
        let is_ours = |key: &Key| key.name.to_string() != "p.mesos.";
        let drift = Drift::between(&before, &now, &desired, is_ours);
        assert_eq!((drift.gone.as_slice(), drift.come.as_slice()), (gone, come));
        assert_eq!(drift.is_empty(), gone.is_empty() && come.is_empty());
    }

    #[test]
    fn what_was_taken_and_what_was_added_is_told_apart_from_what_is_wanted() {
        check("a1", "a1", "a1", &[], &[]);
        check("a12", "a1", "a12", &[entry('a', 2)], &[]);
        check("a12", "a1", "a1", &[], &[]);
        check("a1", "a13 b7", "a1", &[], &[entry('a', 3), entry('b', 7)]);
        check("a1", "a13", "a13", &[], &[]);
        check("a1 p1", "a1 p2", "a1", &[], &[]);
    }

    #[test]
    fn what_was_added_stays_until_it_is_due_or_gone() {
        let mut young = Young::default();
        let at = Duration::from_secs;
        young.note(vec![entry('a', 1), entry('b', 2)], at(30));
        young.note(vec![entry('a', 1)], at(40));
        let there = Current::of_reading(&Zone::default(), &zone("a1"));
        assert_eq!((young.next(at(0)), young.next(at(30))), (Some(at(30)), None));
        assert_eq!(young.at(at(29), &there), BTreeSet::from([entry('a', 1)]));
        assert_eq!(young.at(at(30), &there), BTreeSet::new());
    }
}
