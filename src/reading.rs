//! What a transfer tells of our space: our records, what is foreign beside them, and the fence.

use std::collections::BTreeSet;

use crate::current::Current;
use crate::fence::Found;
use crate::name::Name;
use crate::rr::{Rdata, Rrset, Serial, Ttl, Type};
use crate::scope::{Claimed, Foreign, Scope};
use crate::transfer::Item;
use crate::wire::{Record, WireError};
use crate::zone::{Key, Zone};

/// A zone as read from a server, as far as it concerns us.
#[derive(Clone, Debug)]
pub struct View {
    pub serial: Serial,
    pub current: Current,
    pub foreign: Foreign,
    pub fence: Found,
}

/// Gathers the records of a transfer.
pub struct Gathering {
    scope: Scope,
    fence_name: Name,
    whole: Vec<(Key, Ttl, Rdata)>,
    foreign: Foreign,
    fence: BTreeSet<Rdata>,
    deltas: Vec<Delta>,
    fence_deltas: Vec<(Rdata, Way)>,
    /// What other owners' fences claimed that came or went: one that is only renewed does both.
    came: Vec<Claimed>,
    went: Vec<Claimed>,
    /// A record came or went that decides what is ours.
    decisive: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Came,
    Went,
}

struct Delta {
    key: Key,
    ttl: Ttl,
    rdata: Rdata,
    way: Way,
}

impl Gathering {
    pub fn new(scope: Scope, fence_name: Name) -> Gathering {
        Gathering {
            scope,
            fence_name,
            whole: Vec::new(),
            foreign: Foreign::default(),
            fence: BTreeSet::new(),
            deltas: Vec::new(),
            fence_deltas: Vec::new(),
            came: Vec::new(),
            went: Vec::new(),
            decisive: false,
        }
    }

    pub fn take(&mut self, item: Item<'_, '_>) -> Result<(), WireError> {
        match item {
            Item::Record(record) => self.record(record),
            Item::Deleted(record) => self.delta(record, Way::Went),
            Item::Added(record) => self.delta(record, Way::Came),
        }
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), WireError> {
        if self.scope.could_own(&record.owner, record.rtype) {
            self.whole.push((key(record), record.ttl, record.rdata()?));
        } else if self.is_fence(record) {
            self.fence.insert(record.rdata()?);
        } else {
            self.foreign.note(&self.scope, record)?;
        }
        Ok(())
    }

    fn delta(&mut self, record: &Record<'_>, way: Way) -> Result<(), WireError> {
        if self.scope.could_own(&record.owner, record.rtype) {
            let (key, ttl, rdata) = (key(record), record.ttl, record.rdata()?);
            self.deltas.push(Delta { key, ttl, rdata, way });
        } else if self.is_fence(record) {
            self.fence_deltas.push((record.rdata()?, way));
        } else {
            self.decisive |= self.scope.decides(record);
            match self.scope.claimed(record)? {
                // Which fence exactly counts for whoever takes it over.
                Some(Claimed::Everything) => self.decisive = true,
                Some(part) if way == Way::Came => self.came.push(part),
                Some(part) => self.went.push(part),
                None => {}
            }
        }
        Ok(())
    }

    fn is_fence(&self, record: &Record<'_>) -> bool {
        record.rtype == Type::TXT && record.owner == self.fence_name
    }

    /// The view of a whole zone, compared with `desired`.
    pub fn into_view(mut self, serial: Serial, desired: &Zone, seen: &Foreign) -> View {
        let is_ours = |(_, _, rdata): &(Key, Ttl, Rdata)| self.scope.is_ours(rdata, &self.foreign);
        let (mut ours, others): (Vec<_>, Vec<_>) = self.whole.into_iter().partition(is_ours);
        others.iter().for_each(|(key, ttl, _)| self.foreign.neighbour_came(&key.name, *ttl));
        ours.sort_by(|a, b| a.0.cmp(&b.0));
        let rrsets = ours.chunk_by(|a, b| a.0 == b.0).filter_map(|group| {
            let data = group.iter().map(|(_, _, rdata)| rdata.clone()).collect();
            // PowerDNS can hold an RRset of several TTLs, which is none we could wish for.
            let one_ttl = group.iter().all(|(_, ttl, _)| *ttl == group[0].1);
            let ttl = if one_ttl { group[0].1 } else { Ttl::ZERO };
            Some((group[0].0.clone(), Rrset::new(ttl, data)?))
        });
        let read: Zone = rrsets.collect();
        self.foreign.remember_name_servers(seen);
        let fence: Vec<Rdata> = self.fence.into_iter().collect();
        View {
            serial,
            current: Current::of_reading(desired, &read),
            foreign: self.foreign,
            fence: Found::of(&fence),
        }
    }

    /// The view that differences make of an earlier one; none when they do not fit it, or decide
    /// about ownership, which only a whole reading settles.
    pub fn applied_to(mut self, view: &View, serial: Serial) -> Option<View> {
        self.came.sort_unstable();
        self.went.sort_unstable();
        if self.decisive || self.came != self.went {
            return None;
        }
        let mut view = View { serial, ..view.clone() };
        for Delta { key, ttl, rdata, way } in self.deltas {
            match (way, self.scope.is_ours(&rdata, &view.foreign)) {
                (Way::Came, true) => view.current.add(&key, ttl, rdata)?,
                (Way::Went, true) => view.current.remove(&key, &rdata)?,
                (Way::Came, false) => view.foreign.neighbour_came(&key.name, ttl),
                (Way::Went, false) => view.foreign.neighbour_went(&key.name)?,
            }
        }
        if !self.fence_deltas.is_empty() {
            let mut records: BTreeSet<Rdata> = match &view.fence {
                Found::Absent => BTreeSet::new(),
                Found::Fence(fence) => BTreeSet::from([fence.rdata()]),
                Found::Other(records) => records.iter().cloned().collect(),
            };
            for (rdata, way) in self.fence_deltas {
                match way {
                    Way::Came => records.insert(rdata),
                    Way::Went => records.remove(&rdata),
                };
            }
            view.fence = Found::of(&records.into_iter().collect::<Vec<_>>());
        }
        Some(view)
    }
}

fn key(record: &Record<'_>) -> Key {
    Key { name: record.owner.clone(), rtype: record.rtype }
}
