//! Every name that exists, found by its hash, with what it has: a query costs the same in a zone of
//! a thousand names and in one of a million, and a changed name costs the few that share its shard.
//!
//! The names are spread over shards, small tables that never change. An index that follows a zone
//! has new shards where names changed and shares all others with the one before it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::name::Name;
use crate::rr::{Rrset, Type};
use crate::zone::Zone;

/// Names in a shard, in the mean: with more, there are to be more shards.
const NAMES_MAX: usize = 16;
/// Shards that are replaced together with one of them.
const GROUP: usize = 64;

/// The names at and below an apex, empty non-terminals among them. Cloning is free.
#[derive(Clone)]
pub struct Index {
    hasher: RandomState,
    /// Of a name's hash, so many bits choose its shard.
    bits: u32,
    groups: Arc<[Group]>,
    len: usize,
}

type Group = Arc<[Arc<Shard>]>;

#[derive(Default)]
struct Shard {
    /// The other end of each name's hash, looked through first.
    tags: Box<[u32]>,
    names: Box<[(Name, Node)]>,
}

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

/// What names are to have; none: they do not exist any more.
type Changes = HashMap<Name, Option<Node>>;

impl Default for Index {
    fn default() -> Index {
        let empty: Group = Arc::from([Arc::default()]);
        Index { hasher: RandomState::new(), bits: 0, groups: Arc::from([empty]), len: 0 }
    }
}

impl Index {
    /// The name of these octets, as [`Name::stored`] has them.
    pub fn get(&self, stored: &[u8]) -> Option<Entry<'_>> {
        let hash = self.hasher.hash_one(stored);
        let number = number(hash, self.bits);
        let shard = &self.groups[number / GROUP][number % GROUP];
        let tagged = shard.tags.iter().zip(&shard.names).filter(|(tag, _)| **tag == hash as u32);
        let mut found = tagged.filter(|(_, (name, _))| name.stored() == stored);
        found.next().map(|(_, (_, node))| Entry(node))
    }

    /// How many names exist.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the index of `old` that of `new`, at the cost of what differs between the two.
    pub fn follow(&mut self, old: &Zone, new: &Zone) {
        let mut changes = Changes::new();
        let mut last = None;
        for (key, ..) in old.diff(new) {
            if last != Some(&key.name) {
                self.note(&key.name, new, &mut changes);
                last = Some(&key.name);
            }
        }
        self.apply(changes);
    }

    /// Takes note of what becomes of a name, and of those above it.
    fn note(&self, name: &Name, zone: &Zone, changes: &mut Changes) {
        let exists = |name: &Name, changes: &Changes| match changes.get(name) {
            Some(change) => change.is_some(),
            None => self.get(name.stored()).is_some(),
        };
        let (existed, node) = (exists(name, changes), Node::of(name, zone));
        let is_gone = node.is_none();
        changes.insert(name.clone(), node);
        for above in name.ancestors().skip(1) {
            match is_gone {
                // With the last name below it an empty non-terminal is gone.
                true if existed && !zone.has_within(&above) => changes.insert(above, None),
                // A new name makes those above it exist.
                false if !existed && !exists(&above, changes) => {
                    changes.insert(above, Some(Node::NonTerminal))
                }
                _ => return,
            };
        }
    }

    fn apply(&mut self, changes: Changes) {
        let mut changes: Vec<(u64, Name, Option<Node>)> = changes
            .into_iter()
            .map(|(name, node)| (self.hasher.hash_one(name.stored()), name, node))
            .collect();
        changes.sort_unstable_by_key(|(hash, ..)| Reverse(*hash));
        let come = changes.iter().filter(|(.., node)| node.is_some()).count();
        let bits = bits_for(self.len + come);
        if bits > self.bits {
            self.spread(bits);
        }
        let mut groups: Vec<Group> = self.groups.to_vec();
        while let Some((hash, ..)) = changes.last() {
            let at = number(*hash, self.bits) / GROUP;
            let mut group: Vec<Arc<Shard>> = groups[at].to_vec();
            while let Some((hash, ..)) = changes.last()
                && number(*hash, self.bits) / GROUP == at
            {
                let number = number(*hash, self.bits);
                let first =
                    changes.iter().rposition(|(hash, ..)| self::number(*hash, self.bits) != number);
                let of_shard = changes.split_off(first.map_or(0, |at| at + 1));
                let shard = &mut group[number % GROUP];
                self.len -= shard.names.len();
                *shard = Arc::new(shard.changed(&self.hasher, of_shard));
                self.len += shard.names.len();
            }
            groups[at] = Arc::from(group);
        }
        self.groups = Arc::from(groups);
    }

    /// Spreads what is there over more shards.
    fn spread(&mut self, bits: u32) {
        let more = bits - self.bits;
        let shards = self.groups.iter().flat_map(|group| group.iter());
        let spread = shards.flat_map(|shard| shard.split(&self.hasher, bits, more));
        let spread: Vec<Arc<Shard>> = spread.map(Arc::new).collect();
        self.groups = spread.chunks(GROUP).map(Group::from).collect();
        self.bits = bits;
    }
}

/// The shard of a name: the first bits of its hash.
fn number(hash: u64, bits: u32) -> usize {
    hash.checked_shr(64 - bits).unwrap_or(0) as usize
}

/// How many bits it takes to choose a shard among enough for so many names.
fn bits_for(names: usize) -> u32 {
    names.div_ceil(NAMES_MAX).next_power_of_two().trailing_zeros()
}

impl Shard {
    fn of(hasher: &RandomState, names: Vec<(Name, Node)>) -> Shard {
        let tags = names.iter().map(|(name, _)| hasher.hash_one(name.stored()) as u32).collect();
        Shard { tags, names: names.into() }
    }

    fn changed(&self, hasher: &RandomState, changes: Vec<(u64, Name, Option<Node>)>) -> Shard {
        let stays = |name: &Name| changes.iter().all(|(_, changed, _)| changed != name);
        let kept = self.names.iter().filter(|(name, _)| stays(name)).cloned();
        let mut names: Vec<(Name, Node)> = kept.collect();
        names.extend(changes.into_iter().filter_map(|(_, name, node)| Some((name, node?))));
        Shard::of(hasher, names)
    }

    /// The shards that so many bits more make of this one.
    fn split(&self, hasher: &RandomState, bits: u32, more: u32) -> Vec<Shard> {
        let mut parts = vec![Vec::new(); 1 << more];
        for entry in &self.names {
            let number = number(hasher.hash_one(entry.0.stored()), bits);
            parts[number % (1 << more)].push(entry.clone());
        }
        parts.into_iter().map(|names| Shard::of(hasher, names)).collect()
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

    #[test]
    fn names_are_found_however_many_there_are() {
        let word = |n: usize| (format!("n{n}.x{}.mesos", n % 7), 1);
        let of = |numbers: std::ops::Range<usize>| zone(&numbers.map(word).collect::<Vec<_>>());
        let (mut index, mut last) = (Index::default(), Zone::default());
        for numbers in [0..1, 0..40, 0..3_000, 100..3_100, 3_000..3_100, 0..2_000] {
            let next = of(numbers.clone());
            index.follow(&last, &next);
            last = next;
            // Seven names above them, and the apex.
            let above = numbers.len().min(7) + 1;
            assert_eq!(index.len(), numbers.len() + above, "{numbers:?}");
            for n in 0..3_200 {
                let name: Name = word(n).0.parse().unwrap();
                assert_eq!(index.get(name.stored()).is_some(), numbers.contains(&n), "{n}");
            }
        }
    }

    #[test]
    fn a_change_leaves_all_but_its_own_shards_shared() {
        let words: Vec<_> = (0..10_000).map(|n| (format!("n{n}.mesos"), 1)).collect();
        let (mut index, all) = (Index::default(), zone(&words));
        index.follow(&Zone::default(), &all);
        let before = index.clone();
        let mut changed = all.clone();
        let key = Key { name: "n77.mesos".parse().unwrap(), rtype: Type(1) };
        changed.set(key, None);
        index.follow(&all, &changed);
        let pairs = before.groups.iter().zip(index.groups.iter());
        let shards = pairs.flat_map(|(before, now)| before.iter().zip(now.iter()));
        assert_eq!(shards.filter(|(before, now)| !Arc::ptr_eq(before, now)).count(), 1);
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
