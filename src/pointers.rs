//! Reverse zones: the PTR records of tasks, less those at addresses that an agent has. Which these
//! are changes with agents that the tasks have nothing to do with, so what such an agent hides is
//! kept, and shown once it is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use crate::name::Name;
use crate::reverse;
use crate::rr::{Rdata, Ttl, Type};
use crate::tally::{Health, Tally};
use crate::zone::{Key, Zone};

pub struct Pointers {
    zones: Vec<Reverse>,
    /// How many agents have an address, by its name.
    agents: HashMap<Name, usize>,
    /// The names of addresses that agents came to or left since the last settling.
    moved: BTreeSet<Name>,
}

struct Reverse {
    apex: Name,
    tally: Tally,
    /// The tally's zone when it was last looked at.
    settled: Zone,
    /// What of it is at an agent's address.
    hidden: BTreeSet<Key>,
    /// The rest of it.
    shown: Zone,
}

impl Pointers {
    /// None of these zones is within another. A name vanishes `hold_down` after the last record for
    /// it.
    pub fn new(apexes: &[Name], ttl: Ttl, hold_down: Duration) -> Pointers {
        let zone = |apex: &Name| Reverse {
            apex: apex.clone(),
            tally: Tally::new(ttl, hold_down),
            settled: Zone::default(),
            hidden: BTreeSet::new(),
            shown: Zone::default(),
        };
        let zones = apexes.iter().map(zone).collect();
        Pointers { zones, agents: HashMap::new(), moved: BTreeSet::new() }
    }

    /// The zones by their apex.
    pub fn zones(&self) -> BTreeMap<Name, Zone> {
        self.zones.iter().map(|zone| (zone.apex.clone(), zone.shown.clone())).collect()
    }

    pub fn come(&mut self, records: Vec<(Key, Rdata)>, health: Health) {
        self.step(records, |tally, records| tally.come(records, health));
    }

    /// Takes back what came before, with the same health.
    pub fn go(&mut self, records: Vec<(Key, Rdata)>, health: Health) {
        self.step(records, |tally, records| tally.go(records, health));
    }

    fn step(
        &mut self,
        mut records: Vec<(Key, Rdata)>,
        step: impl Fn(&mut Tally, Vec<(Key, Rdata)>),
    ) {
        for zone in &mut self.zones {
            if records.is_empty() {
                return;
            }
            let (own, others): (Vec<_>, Vec<_>) =
                records.into_iter().partition(|(key, _)| key.name.is_below(&zone.apex));
            step(&mut zone.tally, own);
            records = others;
        }
    }

    /// An agent has other addresses than before. What that hides and shows is settled with the rest.
    pub fn move_agent(&mut self, before: &[IpAddr], now: &[IpAddr]) {
        if self.zones.is_empty() || before == now {
            return;
        }
        let names = |addresses: &[IpAddr]| -> BTreeSet<Name> {
            addresses.iter().map(|address| reverse::name(*address)).collect()
        };
        for name in names(now) {
            *self.agents.entry(name.clone()).or_default() += 1;
            self.moved.insert(name);
        }
        for name in names(before) {
            // Each that goes was counted when it came.
            let count = self.agents.remove(&name).unwrap_or(0);
            if count > 1 {
                self.agents.insert(name.clone(), count - 1);
            }
            self.moved.insert(name);
        }
    }

    /// Puts into the zones all that came and went.
    pub fn settle(&mut self) {
        for zone in &mut self.zones {
            zone.tally.settle();
            zone.show(&self.agents, &self.moved);
        }
        self.moved.clear();
    }

    /// It is `now`: what has faded for long enough vanishes.
    pub fn advance(&mut self, now: Duration) {
        for zone in &mut self.zones {
            zone.tally.advance(now);
            zone.show(&self.agents, &self.moved);
        }
    }

    /// When the next name vanishes.
    pub fn next_due(&self) -> Option<Duration> {
        self.zones.iter().filter_map(|zone| zone.tally.next_due()).min()
    }
}

impl Reverse {
    /// Looks at what changed, and at what agents moved to or from.
    fn show(&mut self, agents: &HashMap<Name, usize>, moved: &BTreeSet<Name>) {
        let now = self.tally.zone();
        let (mut changed, mut hides) =
            (false, |key: &Key| match now.get(key).is_some() && agents.contains_key(&key.name) {
                true => self.hidden.insert(key.clone()),
                false => self.hidden.remove(key),
            });
        for (key, ..) in self.settled.diff(now) {
            changed = true;
            hides(key);
        }
        for name in moved.iter().filter(|name| name.is_below(&self.apex)) {
            changed |= hides(&Key { name: name.clone(), rtype: Type::PTR });
        }
        if !changed {
            return;
        }
        self.settled = now.clone();
        self.shown = now.clone();
        for key in &self.hidden {
            self.shown.set(key.clone(), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(address: &str, target: &str) -> Vec<(Key, Rdata)> {
        let key = Key { name: reverse::name(address.parse().unwrap()), rtype: Type::PTR };
        vec![(key, Rdata::Ptr(format!("{target}.mesos").parse().unwrap()))]
    }

    fn pointers() -> Pointers {
        let apexes = ["10.in-addr.arpa", "d.f.ip6.arpa"].map(|text| text.parse().unwrap());
        Pointers::new(&apexes, Ttl::from_secs(60), Duration::ZERO)
    }

    /// What is shown, a word each: `10.0.0.1=a`.
    fn shown(pointers: &mut Pointers) -> String {
        pointers.settle();
        let zones = pointers.zones();
        let records = zones.values().flat_map(Zone::records);
        let word = |(key, _, rdata): (&Key, Ttl, &Rdata)| {
            let owner = key.name.to_string();
            let owner = owner.split(".in-addr").next().unwrap();
            format!("{owner}={}", rdata.to_string().replace(".mesos.", ""))
        };
        records.map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_an_agent_hides_is_shown_when_the_last_that_hides_it_is_gone() {
        let mut pointers = pointers();
        let address = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
        pointers.come(record("10.0.0.1", "a"), Health::Well);
        assert_eq!(shown(&mut pointers), "1.0.0.10=a");
        pointers.move_agent(&[], &address("10.0.0.1"));
        pointers.move_agent(&[], &address("::ffff:10.0.0.1"));
        assert_eq!(shown(&mut pointers), "");
        pointers.come(record("10.0.0.1", "b"), Health::Well);
        pointers.come(record("10.0.0.2", "b"), Health::Well);
        assert_eq!(shown(&mut pointers), "2.0.0.10=b");
        pointers.move_agent(&address("10.0.0.1"), &address("10.0.0.2"));
        assert_eq!(shown(&mut pointers), "");
        pointers.move_agent(&address("10.0.0.1"), &[]);
        pointers.go(record("10.0.0.1", "a"), Health::Well);
        assert_eq!(shown(&mut pointers), "1.0.0.10=b");
        pointers.move_agent(&address("10.0.0.2"), &[]);
        assert_eq!(shown(&mut pointers), "1.0.0.10=b 2.0.0.10=b");
    }

    #[test]
    fn each_record_is_in_the_zone_of_its_address() {
        let mut pointers = pointers();
        pointers.come(record("10.0.0.1", "a"), Health::Well);
        pointers.come(record("fd00::1", "a"), Health::Well);
        pointers.come(record("192.0.2.1", "a"), Health::Well);
        pointers.settle();
        let counts: Vec<usize> = pointers.zones().values().map(Zone::record_count).collect();
        assert_eq!(counts, [1, 1]);
        pointers.go(record("fd00::1", "a"), Health::Well);
        pointers.settle();
        let counts: Vec<usize> = pointers.zones().values().map(Zone::record_count).collect();
        assert_eq!(counts, [1, 0]);
    }
}
