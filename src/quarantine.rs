//! Names that a server refuses: kept apart, so that the others go on, and tried again at growing
//! intervals.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::name::Name;
use crate::rr::Rrset;
use crate::wire::Rcode;
use crate::zone::Key;

/// The first and the longest pause before a refused name is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3_600));

/// What a name was to become.
pub type Wanted = BTreeMap<Key, Option<Rrset>>;

/// One refused name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub rcode: Rcode,
    wanted: Wanted,
    tries: u32,
    refused_at: Duration,
    /// When it is tried again.
    again_at: Duration,
    /// What the plan under way wants of it, before anything is held back or split.
    offered: Option<Wanted>,
}

impl Refusal {
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

/// The names that one server refuses.
#[derive(Clone, Default, Debug)]
pub struct Quarantine(BTreeMap<Name, Refusal>);

impl Quarantine {
    /// Why this change of a name is not tried at `now`; none if it may be. What is wanted
    /// otherwise than when it was refused waits no longer than the first pause.
    pub fn keeps(&self, name: &Name, wanted: &Wanted, now: Duration) -> Option<&Refusal> {
        let refusal = self.0.get(name)?;
        let until = match refusal.wanted == *wanted {
            true => refusal.again_at,
            false => refusal.again_at.min(refusal.refused_at + PAUSES.0),
        };
        (now < until).then_some(refusal)
    }

    pub fn contains(&self, name: &Name) -> bool {
        self.0.contains_key(name)
    }

    /// Notes what a plan wants of a name. What is then sent of it may be less, and by that it
    /// would not be known again.
    pub fn offer(&mut self, name: &Name, wanted: Wanted) {
        if let Some(refusal) = self.0.get_mut(name) {
            refusal.offered = Some(wanted);
        }
    }

    /// The server refused this at `now`. Answers when it is tried again, from now on.
    pub fn refuse(&mut self, name: Name, sent: Wanted, rcode: Rcode, now: Duration) -> Duration {
        let offered = self.0.get_mut(&name).and_then(|refusal| refusal.offered.take());
        let wanted = offered.unwrap_or(sent);
        let before = self.0.get(&name).filter(|refusal| refusal.wanted == wanted);
        let tries = before.map_or(1, |refusal| refusal.tries.saturating_add(1));
        let doubled = PAUSES.0 * 2_u32.saturating_pow(tries - 1).min(1 << 16);
        let pause = doubled.min(PAUSES.1);
        let (refused_at, again_at) = (now, now + pause);
        let refusal = Refusal { rcode, wanted, tries, refused_at, again_at, offered: None };
        self.0.insert(name, refusal);
        pause
    }

    /// The server took it, or it is wanted no more.
    pub fn release(&mut self, name: &Name) -> bool {
        self.0.remove(name).is_some()
    }

    /// Forgets the names that are not to change any more.
    pub fn retain(&mut self, still: impl Fn(&Name) -> bool) {
        self.0.retain(|name, _| still(name));
    }

    /// When the next of them is due, after `now`. What is due and was not tried is held back by
    /// something else, which this does not end.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        self.0.values().map(|refusal| refusal.again_at).filter(|at| *at > now).min()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, Rcode)> {
        self.0.iter().map(|(name, refusal)| (name, refusal.rcode))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rr::{Rdata, Ttl, Type};
    use std::net::Ipv4Addr;

    fn wanted(last: u8) -> Wanted {
        let key = Key { name: "a.mesos".parse().unwrap(), rtype: Type::A };
        let rdata = Rdata::A(Ipv4Addr::new(10, 0, 0, last));
        Wanted::from([(key, Some(Rrset::of_one(Ttl::from_secs(60), rdata)))])
    }

    #[test]
    fn a_refused_name_is_tried_again_at_growing_intervals() {
        let (mut quarantine, mut now) = (Quarantine::default(), Duration::ZERO);
        let name: Name = "a.mesos".parse().unwrap();
        let mut pauses = Vec::new();
        for _ in 0..11 {
            let pause = quarantine.refuse(name.clone(), wanted(1), Rcode::REFUSED, now);
            let just_before = now + pause - Duration::from_millis(1);
            assert!(quarantine.keeps(&name, &wanted(1), just_before).is_some());
            assert_eq!(quarantine.next(now), Some(now + pause));
            now += pause;
            assert_eq!(quarantine.next(now), None, "what is due is no reason to hurry");
            assert!(quarantine.keeps(&name, &wanted(1), now).is_none());
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert!(quarantine.release(&name) && !quarantine.release(&name));
    }

    #[test]
    fn what_is_wanted_otherwise_waits_the_first_pause_at_most_and_starts_anew() {
        let mut quarantine = Quarantine::default();
        let name: Name = "a.mesos".parse().unwrap();
        for _ in 0..3 {
            quarantine.refuse(name.clone(), wanted(1), Rcode::REFUSED, Duration::ZERO);
        }
        let at = |secs| Duration::from_secs(secs);
        assert!(quarantine.keeps(&name, &wanted(2), at(9)).is_some());
        assert!(quarantine.keeps(&name, &wanted(2), at(10)).is_none());
        assert!(quarantine.keeps(&name, &wanted(1), at(10)).is_some());
        let pause = quarantine.refuse(name.clone(), wanted(2), Rcode::SERVFAIL, at(10));
        assert_eq!(pause, PAUSES.0);
        quarantine.retain(|_| false);
        assert!(quarantine.is_empty());
    }

    #[test]
    fn a_name_of_which_a_part_is_held_back_waits_ever_longer_too() {
        let mut quarantine = Quarantine::default();
        let name: Name = "a.mesos".parse().unwrap();
        let (mut now, mut pauses) = (Duration::ZERO, Vec::new());
        for _ in 0..4 {
            quarantine.offer(&name, wanted(1));
            now += quarantine.refuse(name.clone(), wanted(2), Rcode::REFUSED, now);
            pauses.push(now.as_secs());
            let early = now - Duration::from_secs(1);
            assert!(quarantine.keeps(&name, &wanted(1), early).is_some());
        }
        assert_eq!(pauses, [10, 20, 40, 80], "the first is known by what was sent of it");
    }
}
