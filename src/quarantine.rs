//! Names that a server refuses: kept apart, so that the others go on, and tried again at growing
//! intervals.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::name::Name;
use crate::rr::Rrset;
use crate::wire::Rcode;
use crate::zone::Key;

/// The first and the longest pause before a refused name is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3_600));

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

    /// The server refused this at `now`. Answers when it is tried again, from now on.
    pub fn refuse(&mut self, name: Name, wanted: Wanted, rcode: Rcode, now: Duration) -> Duration {
        let before = self.0.get(&name).filter(|refusal| refusal.wanted == wanted);
        let tries = before.map_or(1, |refusal| refusal.tries.saturating_add(1));
        let doubled = PAUSES.0 * 2_u32.saturating_pow(tries - 1).min(1 << 16);
        let pause = doubled.min(PAUSES.1);
        self.0
            .insert(name, Refusal { rcode, wanted, tries, refused_at: now, again_at: now + pause });
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

    /// When each of them is tried again.
    pub fn dues(&self) -> impl Iterator<Item = Duration> {
        self.0.values().map(|refusal| refusal.again_at)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, Rcode)> {
        self.0.iter().map(|(name, refusal)| (name, refusal.rcode))
    }

    pub fn len(&self) -> usize {
        self.0.len()
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
        for _ in 0..9 {
            let pause = quarantine.refuse(name.clone(), wanted(1), Rcode::REFUSED, now);
            let just_before = now + pause - Duration::from_millis(1);
            assert!(quarantine.keeps(&name, &wanted(1), just_before).is_some());
            now += pause;
            assert_eq!(quarantine.dues().collect::<Vec<_>>(), [now]);
            assert!(quarantine.keeps(&name, &wanted(1), now).is_none());
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert!(quarantine.release(&name) && !quarantine.release(&name));
    }

    #[test]
    fn what_is_wanted_otherwise_waits_a_minute_at_most_and_starts_anew() {
        let mut quarantine = Quarantine::default();
        let name: Name = "a.mesos".parse().unwrap();
        for _ in 0..3 {
            quarantine.refuse(name.clone(), wanted(1), Rcode::REFUSED, Duration::ZERO);
        }
        let at = |secs| Duration::from_secs(secs);
        assert!(quarantine.keeps(&name, &wanted(2), at(59)).is_some());
        assert!(quarantine.keeps(&name, &wanted(2), at(60)).is_none());
        assert!(quarantine.keeps(&name, &wanted(1), at(60)).is_some());
        let pause = quarantine.refuse(name.clone(), wanted(2), Rcode::SERVFAIL, at(60));
        assert_eq!(pause, PAUSES.0);
        quarantine.retain(|_| false);
        assert!(quarantine.is_empty());
    }
}
