//! A zone, and how often each record of it is contributed. Contributions come and go in any
//! order and are put into the zone in batches, so that an RRset of thousands is built a few
//! times instead of record by record.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::name::Name;
use crate::rr::{Rdata, Rrset, Ttl, Type};
use crate::zone::{Key, Zone};

/// How many contributions are gathered before they are put into the zone. Few enough to be sorted
/// in a processor's cache: they come ordered by task id, which mostly groups them by name.
const BATCH_MAX: usize = 4_000;

/// Whether what contributes is well: where anybody is, nobody else is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Health {
    Sick,
    Well,
}

pub struct Tally {
    ttl: Ttl,
    zone: Zone,
    /// How often a record of the zone is contributed, where more than once.
    counts: HashMap<(Key, Rdata), u32>,
    withheld: HashMap<Key, Withheld>,
    /// What is not yet in the zone.
    steps: Vec<Step>,
    /// RRsets of the zone that lost their last contribution with these steps.
    emptied: Vec<Key>,
    fading: Fading,
}

/// Names to which nothing is contributed any more. They keep what they had for a while, unless
/// something new comes for them.
#[derive(Default)]
struct Fading {
    hold_down: Duration,
    now: Duration,
    until: HashMap<Name, Duration>,
    due: BTreeSet<(Duration, Name)>,
}

impl Fading {
    fn contains(&self, name: &Name) -> bool {
        !self.until.is_empty() && self.until.contains_key(name)
    }

    fn insert(&mut self, name: Name) {
        let until = self.now + self.hold_down;
        self.due.insert((until, name.clone()));
        self.until.insert(name, until);
    }

    fn remove(&mut self, name: &Name) {
        if let Some(until) = self.until.remove(name) {
            self.due.remove(&(until, name.clone()));
        }
    }
}

/// What is contributed to one RRset by those who are not well.
#[derive(Default)]
struct Withheld {
    records: BTreeMap<Rdata, u32>,
    /// Nobody well contributes, so these are what the zone shows.
    shown: bool,
}

/// One contribution that comes or goes.
struct Step {
    key: Key,
    rdata: Rdata,
    health: Health,
    change: i32,
}

impl Step {
    fn order(&self) -> impl Ord {
        (&self.key, self.health, &self.rdata)
    }
}

impl Tally {
    /// A name vanishes `hold_down` after the last contribution to it.
    pub fn new(ttl: Ttl, hold_down: Duration) -> Tally {
        Tally {
            ttl,
            zone: Zone::default(),
            counts: HashMap::new(),
            withheld: HashMap::new(),
            steps: Vec::new(),
            emptied: Vec::new(),
            fading: Fading { hold_down, ..Fading::default() },
        }
    }

    /// It is `now`, by a clock that only goes forward: what has faded for long enough vanishes.
    pub fn advance(&mut self, now: Duration) {
        self.fading.now = now;
        while let Some((_, name)) = self.fading.due.first().filter(|(until, _)| *until <= now) {
            let name = name.clone();
            self.fading.remove(&name);
            self.clear(&name);
        }
    }

    /// When the next name vanishes.
    pub fn next_due(&self) -> Option<Duration> {
        self.fading.due.first().map(|(until, _)| *until)
    }

    /// Takes out all that a name has.
    fn clear(&mut self, name: &Name) {
        let types: Vec<Type> = self.zone.at(name).map(|(rtype, _)| rtype).collect();
        for rtype in types {
            self.zone.set(Key { name: name.clone(), rtype }, None);
        }
    }

    /// Puts an RRset in; what its name has only kept for a while goes.
    fn put(&mut self, key: Key, rrset: Rrset) {
        if self.fading.contains(&key.name) {
            self.fading.remove(&key.name);
            self.clear(&key.name);
        }
        self.zone.set(key, Some(rrset));
    }

    /// Takes out the RRsets that lost their last contribution, where their names have others.
    fn fade(&mut self) {
        let emptied = std::mem::take(&mut self.emptied);
        for keys in emptied.chunk_by(|a, b| a.name == b.name) {
            let name = &keys[0].name;
            let goes = |rtype: Type| keys.iter().any(|key| key.rtype == rtype);
            let lives = self.zone.at(name).any(|(rtype, _)| !goes(rtype));
            if lives || self.fading.hold_down.is_zero() {
                keys.iter().for_each(|key| drop(self.zone.set(key.clone(), None)));
            } else {
                self.fading.insert(name.clone());
            }
        }
    }

    /// The zone as last settled.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    pub fn come(&mut self, records: Vec<(Key, Rdata)>, health: Health) {
        self.step(records, health, 1);
    }

    /// Takes back what came before, with the same health.
    pub fn go(&mut self, records: Vec<(Key, Rdata)>, health: Health) {
        self.step(records, health, -1);
    }

    fn step(&mut self, records: Vec<(Key, Rdata)>, health: Health, change: i32) {
        let steps = records.into_iter().map(|(key, rdata)| Step { key, rdata, health, change });
        self.steps.extend(steps);
        if self.steps.len() > BATCH_MAX {
            self.settle();
        }
    }

    /// Puts into the zone all that came and went.
    pub fn settle(&mut self) {
        let mut steps = std::mem::take(&mut self.steps);
        steps.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        for group in steps.chunk_by(|a, b| a.key == b.key) {
            self.settle_rrset(&group[0].key, group);
        }
        steps.clear();
        self.steps = steps;
        self.fade();
    }

    /// Settles the steps of one key, ordered by health and data.
    fn settle_rrset(&mut self, key: &Key, steps: &[Step]) {
        // What goes before what comes would count below zero, so each record's steps are summed.
        if sums(steps).next().is_none() {
            return;
        }
        let fades = self.fading.contains(&key.name);
        let before = self.zone.get(key).filter(|_| !fades);
        if let (None, [Step { rdata, health: Health::Well, change: 1, .. }]) = (before, steps) {
            self.put(key.clone(), Rrset::of_one(self.ttl, rdata.clone()));
            return;
        }
        let (sick, well) = steps.split_at(steps.partition_point(|step| step.health < Health::Well));
        // Whatever is contributed, the zone shows something of it.
        let withheld = before.and_then(|_| self.withheld.remove(key));
        let mut withheld = withheld.unwrap_or_default();
        let shown = before.filter(|_| !withheld.shown).map_or(&[][..], Rrset::rdata);
        let data = changed(&mut self.counts, key, shown, well);
        for (rdata, change) in sums(sick) {
            let before = withheld.records.get(rdata).copied().unwrap_or(0);
            match count(before, change) {
                0 => withheld.records.remove(rdata),
                now => withheld.records.insert(rdata.clone(), now),
            };
        }
        // A bad health check never makes a name vanish: with nobody well, all are published.
        let was_shown = std::mem::replace(&mut withheld.shown, data.is_empty());
        let data = match data {
            _ if withheld.shown => Some(withheld.records.keys().cloned().collect()),
            Cow::Borrowed(_) if !was_shown => None,
            data => Some(data.into_owned()),
        };
        if !withheld.records.is_empty() {
            self.withheld.insert(key.clone(), withheld);
        }
        let Some(data) = data else { return };
        match Rrset::new(self.ttl, data) {
            None if before.is_some() => self.emptied.push(key.clone()),
            None => {}
            rrset if before == rrset.as_ref() => {}
            Some(rrset) => self.put(key.clone(), rrset),
        }
    }
}

/// By how much each record's count changes, those left out that keep theirs.
fn sums(steps: &[Step]) -> impl Iterator<Item = (&Rdata, i32)> {
    let groups = steps.chunk_by(|a, b| (a.health, &a.rdata) == (b.health, &b.rdata));
    let sum = |group: &[Step]| group.iter().map(|step| step.change).sum();
    groups.map(move |group| (&group[0].rdata, sum(group))).filter(|(_, change)| *change != 0)
}

fn count(before: u32, change: i32) -> u32 {
    // Each thing that goes came before by the same rules, so no count falls below zero.
    before.checked_add_signed(change).unwrap_or(0)
}

/// An RRset's data after these steps, borrowed if only counts changed.
fn changed<'d>(
    counts: &mut HashMap<(Key, Rdata), u32>,
    key: &Key,
    data: &'d [Rdata],
    steps: &[Step],
) -> Cow<'d, [Rdata]> {
    let mut made: Vec<Rdata> = Vec::new();
    let (mut taken, mut alters) = (0, false);
    for (rdata, change) in sums(steps) {
        let (at, is_there) = match data[taken..].binary_search(rdata) {
            Ok(at) => (taken + at, true),
            Err(at) => (taken + at, false),
        };
        let counted = || (key.clone(), rdata.clone());
        let before = match is_there {
            true => counts.get(&counted()).copied().unwrap_or(1),
            false => 0,
        };
        let now = count(before, change);
        if now > 1 {
            counts.insert(counted(), now);
        } else if before > 1 {
            counts.remove(&counted());
        }
        if (before > 0) == (now > 0) {
            continue;
        }
        alters = true;
        made.extend_from_slice(&data[taken..at]);
        taken = at + usize::from(is_there);
        made.extend((now > 0).then(|| rdata.clone()));
    }
    made.extend_from_slice(&data[taken..]);
    if alters { Cow::Owned(made) } else { Cow::Borrowed(data) }
}
