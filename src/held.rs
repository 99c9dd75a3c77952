//! Removals that wait for an approval.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::mark::Loss;
use crate::name::Name;
use crate::rr::Rdata;
use crate::zone::Key;

/// A record by its owner, type and data.
pub type Entry = (Key, Rdata);

/// Names one held set: the hash of its target, zone and records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PlanId([u8; 6]);

impl PlanId {
    /// The id of a set of records on a target.
    pub fn of<'r>(target: &str, zone: &Name, records: impl Iterator<Item = &'r Entry>) -> PlanId {
        let mut lines: Vec<String> = records
            .map(|(key, rdata): &Entry| format!("{} {} {rdata}\n", key.name, key.rtype))
            .collect();
        lines.sort_unstable();
        let mut hash = Sha256::new();
        hash.update(format!("{target}\n{zone}\n"));
        lines.iter().for_each(|line| hash.update(line));
        let digest = hash.finalize();
        let mut id = [0; 6];
        id.copy_from_slice(&digest[..6]);
        PlanId(id)
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no plan id: 12 hexadecimal digits")]
pub struct PlanIdError(String);

impl FromStr for PlanId {
    type Err = PlanIdError;

    fn from_str(text: &str) -> Result<PlanId, PlanIdError> {
        let mut id = [0; 6];
        let digits = text.len() == 12 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        for (at, octet) in id.iter_mut().enumerate() {
            let two = text.get(2 * at..2 * at + 2).filter(|_| digits);
            let value = two.and_then(|two| u8::from_str_radix(two, 16).ok());
            *octet = value.ok_or_else(|| PlanIdError(text.to_owned()))?;
        }
        Ok(PlanId(id))
    }
}

/// What an operator released.
#[derive(Clone, Debug)]
pub enum Approval {
    /// The held set of this id, while it is unchanged.
    Id(PlanId),
    /// Those of these records that are held.
    Entries(BTreeSet<Entry>),
}

impl Approval {
    /// Whether it releases this record of the held set `id`.
    pub fn releases(&self, id: PlanId, entry: &Entry) -> bool {
        match self {
            Approval::Id(approved) => *approved == id,
            Approval::Entries(_) => self.lists(entry),
        }
    }

    /// Whether it names this very record.
    fn lists(&self, entry: &Entry) -> bool {
        matches!(self, Approval::Entries(entries) if entries.contains(entry))
    }
}

/// Why removals wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// They were there before us.
    FirstContact,
    /// Too much would go.
    Loss(Loss),
    /// They came after the set of this id, which is decided about first.
    Behind(PlanId),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::FirstContact => f.write_str("found there at first contact"),
            Why::Loss(loss) => loss.fmt(f),
            Why::Behind(id) => write!(f, "{id} is decided about first"),
        }
    }
}

/// Removals that wait for an approval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldSet {
    /// None: it cannot be approved yet.
    pub id: Option<PlanId>,
    pub why: Why,
    /// In the order of names.
    pub entries: Vec<Entry>,
}

/// The removals of one target that wait because too much would go: a frozen set, whose id stands
/// for it until it is approved or empty, and whatever came later.
#[derive(Clone, Default, Debug)]
pub struct Holds {
    frozen: Option<(PlanId, BTreeSet<Entry>)>,
}

/// What of the removals wanted may happen.
#[derive(Default, Debug)]
pub struct Judged {
    pub released: BTreeSet<Entry>,
    pub held: Vec<HeldSet>,
}

impl Holds {
    /// Nothing is held any more.
    pub fn clear(&mut self) {
        self.frozen = None;
    }

    /// Holds the removals that are wanted now, but for those approved.
    pub fn judge(
        &mut self,
        (target, zone): (&str, &Name),
        wanted: BTreeSet<Entry>,
        approvals: &[Approval],
        loss: Loss,
    ) -> Judged {
        let named = |entry: &Entry| approvals.iter().any(|approval| approval.lists(entry));
        let (mut released, mut waiting): (BTreeSet<Entry>, BTreeSet<Entry>) =
            wanted.into_iter().partition(named);
        loop {
            self.frozen.take_if(|(_, entries)| entries.is_disjoint(&waiting));
            if self.frozen.is_none() && !waiting.is_empty() {
                self.frozen = Some((PlanId::of(target, zone, waiting.iter()), waiting.clone()));
            }
            let is_approved = |(id, _): &mut (PlanId, BTreeSet<Entry>)| {
                approvals.iter().any(|approval| matches!(approval, Approval::Id(i) if i == id))
            };
            let Some((_, approved)) = self.frozen.take_if(is_approved) else { break };
            released.extend(approved.iter().filter_map(|entry| waiting.take(entry)));
        }
        let Some((id, frozen)) = &self.frozen else { return Judged { released, held: Vec::new() } };
        let (first, later): (Vec<Entry>, Vec<Entry>) =
            waiting.into_iter().partition(|entry| frozen.contains(entry));
        let mut held = vec![HeldSet { id: Some(*id), why: Why::Loss(loss), entries: first }];
        if !later.is_empty() {
            held.push(HeldSet { id: None, why: Why::Behind(*id), entries: later });
        }
        Judged { released, held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rr::Type;
    use std::net::Ipv4Addr;

    fn entry(name: char) -> Entry {
        let key = Key { name: format!("{name}.mesos").parse().unwrap(), rtype: Type::A };
        (key, Rdata::A(Ipv4Addr::new(10, 0, 0, 1)))
    }

    fn entries(names: &str) -> BTreeSet<Entry> {
        names.chars().map(entry).collect()
    }

    fn text<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> String {
        entries.into_iter().map(|(key, _)| key.name.to_string()[..1].to_owned()).collect()
    }

    const LOSS: Loss = Loss { mark: 100, desired: 50 };

    /// Judges what is wanted; answers `released|frozen|later` and the id of the frozen set.
    fn judge(holds: &mut Holds, wanted: &str, by: &[Approval]) -> (String, Option<PlanId>) {
        let zone = "mesos".parse().unwrap();
        let judged = holds.judge(("bind", &zone), entries(wanted), by, LOSS);
        let held = |at: usize| judged.held.get(at).map_or(String::new(), |h| text(&h.entries));
        let said = format!("{}|{}|{}", text(&judged.released), held(0), held(1));
        (said, judged.held.first().and_then(|held| held.id))
    }

    #[test]
    fn a_frozen_set_keeps_its_id_while_more_comes_and_some_is_wanted_again() {
        let mut holds = Holds::default();
        let (said, id) = judge(&mut holds, "abc", &[]);
        assert_eq!(said, "|abc|");
        assert_eq!(judge(&mut holds, "abcd", &[]), ("|abc|d".to_owned(), id));
        assert_eq!(judge(&mut holds, "bd", &[]), ("|b|d".to_owned(), id));
        let (said, next) = judge(&mut holds, "de", &[]);
        assert_eq!(said, "|de|", "the first is empty: what came later is frozen");
        assert_ne!(next, id);
    }

    #[test]
    fn an_approval_releases_what_is_still_unwanted_and_nothing_that_came_later() {
        let mut holds = Holds::default();
        let (_, id) = judge(&mut holds, "abc", &[]);
        let by = [Approval::Id(id.unwrap())];
        let (said, next) = judge(&mut holds, "bcd", &by);
        assert_eq!(said, "bc|d|");
        assert_eq!(judge(&mut holds, "d", &by), ("|d|".to_owned(), next), "it is spent");
        assert_eq!(judge(&mut Holds::default(), "abc", &by).0, "abc||");
        assert_eq!(judge(&mut Holds::default(), "abcd", &by).0, "|abcd|", "another set");
    }

    #[test]
    fn a_saved_plan_releases_what_it_lists() {
        let by = [Approval::Entries(entries("abx"))];
        assert_eq!(judge(&mut Holds::default(), "abc", &by).0, "ab|c|");
        assert_eq!(judge(&mut Holds::default(), "ab", &by).0, "ab||");
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let zone = "mesos".parse().unwrap();
        let id = PlanId::of("bind", &zone, entries("ab").iter());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_ne!(id, PlanId::of("knot", &zone, entries("ab").iter()));
        assert!("0123".parse::<PlanId>().is_err());
        assert!("01234567890é".parse::<PlanId>().is_err());
    }
}
