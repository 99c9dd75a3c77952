//! Whose a record is, said apart from the program's own rules, and what follows for messages.

use std::collections::BTreeSet;

use mesozone::fence::Fence;
use mesozone::name::Name;
use mesozone::rr::{Rdata, Type};
use mesozone::wire::{CLASS_IN, CLASS_NONE, Rcode};

use crate::model::{Content, Entry, Logged, Rr};

const TYPES: [Type; 3] = [Type::A, Type::AAAA, Type::SRV];

/// The space of one owner.
#[derive(Clone)]
pub(super) struct Space {
    pub(super) apex: Name,
    pub(super) domain: Name,
    pub(super) owner: &'static str,
}

impl Space {
    pub(super) fn fence_name(&self) -> Name {
        self.domain.child(b"_mesozone").expect("a short domain")
    }

    /// Whether an RRset is ours by its name and type alone.
    pub(super) fn could_own(&self, owner: &Name, rtype: Type) -> bool {
        TYPES.contains(&rtype) && owner.is_below(&self.domain) && !self.is_protected(owner)
    }

    fn is_protected(&self, owner: &Name) -> bool {
        let first = owner.labels().next().unwrap_or_default().into_owned();
        let vip = first.starts_with(b"vip-") && owner.parent().as_ref() == Some(&self.domain);
        vip || owner.to_string() == "ns1.mesos."
    }

    /// Whether it is ours beside what the zone holds.
    pub(super) fn owns(&self, content: &Content, owner: &Name, rtype: Type) -> bool {
        self.could_own(owner, rtype)
            && !content.keys().any(|(at, t)| self.bars(content, at, *t, owner))
    }

    /// Whether the RRset at `at` keeps us from `owner`.
    fn bars(&self, content: &Content, at: &Name, rtype: Type, owner: &Name) -> bool {
        match rtype {
            Type::CNAME => at == owner,
            Type::DNAME => owner.is_within(at),
            Type::NS => {
                let data = &content[&(at.clone(), rtype)].data;
                let names_it = data.iter().any(|rdata| target(rdata).as_ref() == Some(owner));
                names_it || *at != self.apex && owner.is_within(at)
            }
            Type::TXT => {
                let label = at.labels().next().is_some_and(|label| *label == *b"_mesozone");
                let parent = at.parent().filter(|parent| label && parent.is_below(&self.domain));
                let Some(parent) = parent.filter(|parent| owner.is_within(parent)) else {
                    return false;
                };
                let data = &content[&(at.clone(), rtype)].data;
                parent.is_below(&self.domain) && data.iter().any(|rdata| !self.is_own_fence(rdata))
            }
            _ => false,
        }
    }

    fn is_own_fence(&self, rdata: &[u8]) -> bool {
        fence(rdata).is_some_and(|fence| fence.owner.to_string() == self.owner)
    }

    /// What is wrong with a message of this owner; `late`: it was sent some time ago.
    pub(super) fn check(
        &self,
        logged: &Logged,
        instances: &BTreeSet<u64>,
        late: bool,
    ) -> Result<(), String> {
        let Logged { update, before, rcode, .. } = logged;
        let [Entry { class, rr: guard }] = &update.prerequisites[..] else {
            return Err(format!("not one prerequisite: {update:?}"));
        };
        if guard.owner != self.fence_name() || guard.rtype != Type::TXT {
            return Err(format!("no fence is its prerequisite: {guard:?}"));
        }
        for Entry { rr, .. } in &update.updates {
            let is_fence = rr.owner == self.fence_name() && rr.rtype == Type::TXT;
            let is_ours = match late {
                true => self.could_own(&rr.owner, rr.rtype),
                false => self.owns(before, &rr.owner, rr.rtype),
            };
            if !is_fence && !is_ours {
                return Err(format!("{} {} is not ours: {update:?}", rr.owner, rr.rtype));
            }
        }
        if *rcode != Rcode::NOERROR {
            return Ok(());
        }
        // Of whom the zone is once it is carried out.
        let taken = update
            .updates
            .iter()
            .rev()
            .find(|entry| entry.rr.owner == self.fence_name() && entry.class == CLASS_IN);
        let after = match (taken, *class) {
            (Some(taken), _) => Some(&taken.rr.rdata),
            (None, CLASS_NONE) => None,
            (None, _) => Some(&guard.rdata),
        };
        let holder = after.and_then(|rdata| fence(rdata));
        match holder {
            Some(fence) if instances.contains(&fence.instance.0) => Ok(()),
            _ => Err(format!("carried out under the fence of another: {holder:?}")),
        }
    }

    /// The records of our space, each without its TTL.
    pub(super) fn held(&self, content: &Content) -> BTreeSet<(Name, Type, Vec<u8>)> {
        let ours = content.iter().filter(|((owner, rtype), _)| self.owns(content, owner, *rtype));
        ours.flat_map(|((owner, rtype), set)| {
            set.data.iter().map(|rdata| (owner.clone(), *rtype, rdata.clone()))
        })
        .collect()
    }
}

/// Everything in a zone that no publisher writes, the SOA aside.
pub(super) fn foreign(content: &Content, spaces: &[&Space]) -> BTreeSet<Rr> {
    crate::model::records(content)
        .filter(|rr| rr.rtype != Type::SOA)
        .filter(|rr| !spaces.iter().any(|space| space.could_own(&rr.owner, rr.rtype)))
        .filter(|rr| {
            !spaces.iter().any(|space| space.fence_name() == rr.owner && rr.rtype == Type::TXT)
        })
        .collect()
}

fn fence(rdata: &[u8]) -> Option<Fence> {
    Fence::parse(&Rdata::Other(rdata.into()))
}

fn target(rdata: &[u8]) -> Option<Name> {
    mesozone::wire::Reader::new(rdata).name().ok()
}
