//! What a server has of our space, held as the published zone it last reached and the few RRsets
//! in which it differs, on purpose or by accident. So comparing it with the next published zone
//! costs what changed.

use imbl::OrdMap;

use crate::name::Name;
use crate::rr::{Rdata, Rrset, Ttl, Type};
use crate::scope::TYPES;
use crate::zone::{Key, Zone};

/// Cloning is free.
#[derive(Clone, Default, Debug)]
pub struct Current {
    base: Zone,
    /// What the server has where it is not what `base` has; none: it has nothing there.
    except: OrdMap<Key, Option<Rrset>>,
    rrset_count: usize,
    record_count: usize,
}

impl Current {
    /// What was read from the server, `base` being the zone published now. The one comparison
    /// that costs the whole zone; `read` is then dropped.
    pub fn of_reading(base: &Zone, read: &Zone) -> Current {
        let mut current = Current {
            base: base.clone(),
            except: OrdMap::new(),
            rrset_count: read.len(),
            record_count: read.record_count(),
        };
        for (key, _, on_server) in base.diff(read) {
            current.except.insert(key.clone(), on_server.cloned());
        }
        current
    }

    pub fn get(&self, key: &Key) -> Option<&Rrset> {
        match self.except.get(key) {
            Some(on_server) => on_server.as_ref(),
            None => self.base.get(key),
        }
    }

    /// Takes note of what the server has now.
    pub fn set(&mut self, key: &Key, on_server: Option<Rrset>) {
        let counts = |set: Option<&Rrset>| set.map_or((0, 0), |set| (1, set.rdata().len()));
        let ((old_sets, old_records), (sets, records)) =
            (counts(self.get(key)), counts(on_server.as_ref()));
        self.rrset_count = self.rrset_count - old_sets + sets;
        self.record_count = self.record_count - old_records + records;
        match self.base.get(key) == on_server.as_ref() {
            true => self.except.remove(key),
            false => self.except.insert(key.clone(), on_server),
        };
    }

    /// Adds one record that the server reports; none when it is there already.
    pub fn add(&mut self, key: &Key, ttl: Ttl, rdata: Rdata) -> Option<()> {
        if self.get(key).is_some_and(|set| set.contains(&rdata)) {
            return None;
        }
        let data = self.get(key).map_or(&[][..], Rrset::rdata);
        let data = data.iter().cloned().chain([rdata]).collect();
        self.set(key, Rrset::new(ttl, data));
        Some(())
    }

    /// Takes away one record that the server reports as gone; none when it is not there.
    pub fn remove(&mut self, key: &Key, rdata: &Rdata) -> Option<()> {
        let rrset = self.get(key).filter(|set| set.contains(rdata))?;
        let left = rrset.rdata().iter().filter(|data| *data != rdata).cloned().collect();
        self.set(key, Rrset::new(rrset.ttl(), left));
        Some(())
    }

    /// Makes a newer published zone the base: what the server has stays what it was.
    pub fn rebase(&mut self, desired: &Zone) {
        let old = std::mem::replace(&mut self.base, desired.clone());
        for (key, before, now) in old.diff(desired) {
            let on_server = match self.except.get(key) {
                Some(on_server) => on_server.clone(),
                None => before.cloned(),
            };
            match on_server.as_ref() == now {
                true => self.except.remove(key),
                false => self.except.insert(key.clone(), on_server),
            };
        }
    }

    /// The keys at which the server may differ from `desired`, in order.
    pub fn differing(&self, desired: &Zone) -> Vec<Key> {
        let changed = self.base.diff(desired).map(|(key, ..)| key);
        let mut keys: Vec<Key> = changed.chain(self.except.keys()).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Whether the server has any record of ours at this very name.
    pub fn has_name(&self, name: &Name) -> bool {
        let has = |rtype: &Type| self.get(&Key { name: name.clone(), rtype: *rtype }).is_some();
        !self.is_empty() && TYPES.iter().any(has)
    }

    /// Whether the server has no other record of ours at this very name than `desired` has.
    pub fn is_at(&self, name: &Name, desired: &Zone) -> bool {
        TYPES.iter().all(|rtype| {
            let key = Key { name: name.clone(), rtype: *rtype };
            self.get(&key).is_none_or(|set| set.minus(desired.get(&key)).next().is_none())
        })
    }

    /// Some RRset that the server has and that fits.
    pub fn find(&self, fits: impl Fn(&Key, &Rrset) -> bool) -> Option<(Key, Rrset)> {
        let unchanged = self.base.iter().filter(|(key, _)| !self.except.contains_key(*key));
        let others = self.except.iter().filter_map(|(key, set)| Some((key, set.as_ref()?)));
        let found = unchanged.chain(others).find(|(key, set)| fits(key, set));
        found.map(|(key, set)| (key.clone(), set.clone()))
    }

    /// The number of records on the server.
    pub fn record_count(&self) -> usize {
        self.record_count
    }

    pub fn is_empty(&self) -> bool {
        self.rrset_count == 0
    }

    /// Where two views with one base differ: key, here, there.
    pub fn drift<'c>(
        &'c self,
        other: &'c Current,
    ) -> Vec<(Key, Option<&'c Rrset>, Option<&'c Rrset>)> {
        let mut keys: Vec<&Key> = self.except.keys().chain(other.except.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let each = keys.into_iter().map(|key| (key.clone(), self.get(key), other.get(key)));
        each.filter(|(_, here, there)| here != there).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn key(name: &str) -> Key {
        Key { name: name.parse().unwrap(), rtype: Type::A }
    }

    fn set(last: u8) -> Option<Rrset> {
        Rrset::new(Ttl::from_secs(60), vec![Rdata::A(Ipv4Addr::new(10, 0, 0, last))])
    }

    fn some_zone() -> impl Strategy<Value = Zone> {
        prop::collection::btree_map("[a-f]", 1..4_u8, 0..6).prop_map(|names| {
            names.into_iter().filter_map(|(name, last)| Some((key(&name), set(last)?))).collect()
        })
    }

    #[track_caller]
    fn check_is(current: &Current, server: &Zone) {
        for name in ["a", "b", "c", "d", "e", "f"] {
            assert_eq!(current.get(&key(name)), server.get(&key(name)));
        }
        assert_eq!(current.record_count(), server.records().count());
        assert_eq!(current.is_empty(), server.is_empty());
    }

    proptest! {
        #[test]
        fn what_the_server_has_survives_every_rebase(
            server in some_zone(), published in prop::collection::vec(some_zone(), 1..5)
        ) {
            let mut current = Current::of_reading(&published[0], &server);
            check_is(&current, &server);
            for desired in &published {
                current.rebase(desired);
                check_is(&current, &server);
                let differing = current.differing(desired);
                for name in ["a", "b", "c", "d", "e", "f"] {
                    let differs = server.get(&key(name)) != desired.get(&key(name));
                    prop_assert_eq!(differing.contains(&key(name)), differs);
                }
            }
        }

        #[test]
        fn reaching_the_desired_zone_leaves_nothing(server in some_zone(), desired in some_zone()) {
            let mut current = Current::of_reading(&desired, &server);
            for key in current.differing(&desired) {
                current.set(&key, desired.get(&key).cloned());
            }
            check_is(&current, &desired);
            prop_assert!(current.differing(&desired).is_empty());
            prop_assert!(current.drift(&Current::of_reading(&desired, &desired)).is_empty());
        }
    }

    #[test]
    fn records_come_and_go_one_by_one() {
        let mut current = Current::default();
        let a = Rdata::A(Ipv4Addr::new(10, 0, 0, 1));
        assert!(current.add(&key("x"), Ttl::from_secs(60), a.clone()).is_some());
        assert!(current.add(&key("x"), Ttl::from_secs(60), a.clone()).is_none());
        assert_eq!(current.get(&key("x")), set(1).as_ref());
        assert!(current.has_name(&"x".parse().unwrap()));
        assert!(current.remove(&key("x"), &a).is_some());
        assert!(current.is_empty());
        assert!(current.remove(&key("x"), &a).is_none());
        assert_eq!(current.record_count(), 0);
    }
}
