//! Every name that exists, found by its hash, with what it has: a query costs the same in a zone of
//! a thousand names and in one of a million, and a changed name costs its own entry.

use std::sync::Arc;

use imbl::HashMap;

use crate::name::Name;
use crate::rr::{Rrset, Type};
use crate::zone::Zone;

/// The names at and below an apex, empty non-terminals among them. Cloning is free.
#[derive(Clone, Default)]
pub struct Index(HashMap<Name, Node>);

/// What one name has. Most have one RRset, which then stands where the name does.
#[derive(Clone)]
enum Node {
    /// Only names below it, RFC 8020.
    NonTerminal,
    One(Type, Rrset),
    Many(Arc<[(Type, Rrset)]>),
}

/// A name that exists.
#[derive(Clone, Copy)]
pub struct Entry<'i>(&'i Node);

impl Index {
    /// The name of these octets, as [`Name::stored`] has them.
    pub fn get(&self, stored: &[u8]) -> Option<Entry<'_>> {
        self.0.get(stored).map(Entry)
    }

    /// How many names exist.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the index of `old` that of `new`, at the cost of what differs between the two.
    pub fn follow(&mut self, old: &Zone, new: &Zone) {
        let mut last = None;
        for (key, ..) in old.diff(new) {
            if last != Some(&key.name) {
                self.update(&key.name, new);
                last = Some(&key.name);
            }
        }
    }

    fn update(&mut self, name: &Name, zone: &Zone) {
        match Node::of(name, zone) {
            Some(node) => {
                if self.0.insert(name.clone(), node).is_none() {
                    self.add_above(name);
                }
            }
            None => {
                self.0.remove(name);
                self.drop_above(name, zone);
            }
        }
    }

    /// A new name makes those above it exist.
    fn add_above(&mut self, name: &Name) {
        for above in name.ancestors().skip(1) {
            if self.0.contains_key(&above) {
                return;
            }
            self.0.insert(above, Node::NonTerminal);
        }
    }

    /// With the last name below it an empty non-terminal is gone.
    fn drop_above(&mut self, name: &Name, zone: &Zone) {
        for above in name.ancestors().skip(1) {
            let is_empty = matches!(self.0.get(&above), Some(Node::NonTerminal));
            if !is_empty || zone.has_within(&above) {
                return;
            }
            self.0.remove(&above);
        }
    }
}

impl Node {
    fn of(name: &Name, zone: &Zone) -> Option<Node> {
        let mut sets = zone.at(name).map(|(rtype, set)| (rtype, set.clone()));
        match (sets.next(), sets.next()) {
            (None, _) => zone.has_within(name).then_some(Node::NonTerminal),
            (Some((rtype, set)), None) => Some(Node::One(rtype, set)),
            (Some(first), Some(second)) => {
                Some(Node::Many([first, second].into_iter().chain(sets).collect()))
            }
        }
    }
}

impl<'i> Entry<'i> {
    /// The RRset of this type.
    pub fn get(self, rtype: Type) -> Option<&'i Rrset> {
        match self.0 {
            Node::One(one, set) => (*one == rtype).then_some(set),
            Node::Many(sets) => sets.iter().find(|(of, _)| *of == rtype).map(|(_, set)| set),
            Node::NonTerminal => None,
        }
    }

    /// The RRset of the lowest type.
    pub fn first(self) -> Option<(Type, &'i Rrset)> {
        match self.0 {
            Node::One(rtype, set) => Some((*rtype, set)),
            Node::Many(sets) => sets.first().map(|(rtype, set)| (*rtype, set)),
            Node::NonTerminal => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rr::{Rdata, Ttl};
    use crate::zone::Key;
    use proptest::prelude::*;

    /// A zone of words `a.b.mesos/1`: a name and a type.
    fn zone(words: &[(String, u16)]) -> Zone {
        let data = || Rrset::of_one(Ttl::from_secs(60), Rdata::A([10, 0, 0, 1].into()));
        let key = |(name, rtype): &(String, u16)| Key {
            name: name.parse().unwrap(),
            rtype: Type(*rtype),
        };
        words.iter().map(|word| (key(word), data())).collect()
    }

    fn words() -> impl Strategy<Value = Vec<(String, u16)>> {
        prop::collection::vec(("([ab]\\.){0,4}mesos", 1..4_u16), 0..12)
    }

    proptest! {
        #[test]
        fn an_index_that_followed_knows_what_the_zone_knows(steps in prop::collection::vec(words(), 1..6)) {
            let (mut index, mut last) = (Index::default(), Zone::default());
            for words in &steps {
                let next = zone(words);
                index.follow(&last, &next);
                last = next;
            }
            let mut names: Vec<Name> = steps.iter().flatten().map(|(n, _)| n.parse().unwrap()).collect();
            names.extend(names.clone().iter().flat_map(Name::ancestors));
            for name in &names {
                let entry = index.get(name.stored());
                prop_assert_eq!(entry.is_some(), last.has_within(name), "{}", name);
                for rtype in (1..4).map(Type) {
                    let found = entry.and_then(|entry| entry.get(rtype)).is_some();
                    prop_assert_eq!(found, last.get(&Key { name: name.clone(), rtype }).is_some());
                }
                let first = entry.and_then(Entry::first).map(|(rtype, _)| rtype);
                prop_assert_eq!(first, last.at(name).next().map(|(rtype, _)| rtype));
            }
            index.follow(&last, &Zone::default());
            prop_assert!(index.is_empty());
        }
    }
}
