//! The fence: one TXT record in the zone that says who publishes. Every update carries it as a
//! prerequisite, so the name server itself refuses a stale or rival publisher.

use std::fmt;
use std::sync::Arc;

use crate::name::Name;
use crate::rr::Rdata;

/// The first label of the fence's name; in a reverse zone the owner follows it.
pub const FENCE_LABEL: &[u8] = b"_mesozone";
/// The most octets of a domain's text that leave room for the rest of a fence in one
/// character-string.
pub const DOMAIN_MAX: usize = 100;
/// The most octets of an owner.
pub const OWNER_MAX: usize = 40;

/// Who publishes: one label of letters, digits and dashes, at most 40 octets, lower case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no owner: letters, digits and dashes, 1 to 40 of them")]
pub struct OwnerError(String);

impl Owner {
    pub fn parse(text: &str) -> Result<Owner, OwnerError> {
        let fits = (1..=OWNER_MAX).contains(&text.len());
        match fits && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
            true => Ok(Owner(text.to_ascii_lowercase())),
            false => Err(OwnerError(text.to_owned())),
        }
    }

    /// The owner of a site that names none: its domain, dots as dashes, cut.
    pub fn of_domain(domain: &Name) -> Owner {
        let text: String = domain
            .to_string()
            .trim_end_matches('.')
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(OWNER_MAX)
            .collect();
        Owner(text)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One process of ours, by a random number of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instance(pub u64);

/// How long a fence is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    Released,
    /// By a `sync`, up to this second since 1970.
    Time(u64),
    /// By a `run`, until it releases it or another takes it.
    Run,
}

/// Whether the removals of a first contact have been approved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Adoption {
    FirstContact,
    Adopted,
}

/// What a process may do to a fence that is not its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mandate {
    /// Take it where that is right.
    Take,
    /// Leave it: another may be elected.
    Keep,
}

/// The fence's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fence {
    pub owner: Owner,
    pub instance: Instance,
    pub epoch: u64,
    pub adoption: Adoption,
    pub until: Until,
    /// In a reverse zone: whose names the records are for.
    pub domain: Option<Name>,
}

impl Fence {
    /// Reads TXT data: exactly one character-string of exactly this form.
    pub fn parse(rdata: &Rdata) -> Option<Fence> {
        let Rdata::Other(octets) = rdata else { return None };
        let (length, text) = octets.split_first()?;
        if usize::from(*length) != text.len() {
            return None;
        }
        let mut fields = std::str::from_utf8(text).ok()?.split(' ');
        let mut field = |key: &str| fields.next()?.strip_prefix(key)?.strip_prefix('=');
        let version = field("v")?;
        let fence = Fence {
            owner: Owner::parse(field("owner")?).ok()?,
            instance: Instance(u64::from_str_radix(field("instance")?, 16).ok()?),
            epoch: field("epoch")?.parse().ok()?,
            adoption: match field("adopted")? {
                "yes" => Adoption::Adopted,
                "no" => Adoption::FirstContact,
                _ => return None,
            },
            until: match field("until")? {
                "0" => Until::Released,
                "run" => Until::Run,
                time => Until::Time(time.parse().ok()?),
            },
            domain: field("domain").map(str::parse).transpose().ok()?,
        };
        (version == "1" && fence.rdata() == *rdata).then_some(fence)
    }

    /// The TXT data of this fence.
    pub fn rdata(&self) -> Rdata {
        let text = self.to_string();
        // An owner of 40, numbers, and a domain of DOMAIN_MAX: never above 255.
        let length = text.len() as u8;
        Rdata::Other(Arc::from([&[length][..], text.as_bytes()].concat()))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let adopted = if self.adoption == Adoption::Adopted { "yes" } else { "no" };
        write!(f, "v=1 owner={} instance={:016x} ", self.owner, self.instance.0)?;
        write!(f, "epoch={} adopted={adopted} until=", self.epoch)?;
        match self.until {
            Until::Released => f.write_str("0"),
            Until::Time(time) => time.fmt(f),
            Until::Run => f.write_str("run"),
        }?;
        self.domain.as_ref().map_or(Ok(()), |domain| write!(f, " domain={domain}"))
    }
}

/// The TXT records found at the fence's name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Found {
    #[default]
    Absent,
    Fence(Fence),
    /// More than one record, or one that is no fence.
    Other(Vec<Rdata>),
}

impl Found {
    pub fn of(records: &[Rdata]) -> Found {
        match records {
            [] => Found::Absent,
            [one] => {
                Fence::parse(one).map_or_else(|| Found::Other(vec![one.clone()]), Found::Fence)
            }
            more => Found::Other(more.to_vec()),
        }
    }

    /// Adoption as the zone tells it.
    pub fn adoption(&self) -> Adoption {
        match self {
            Found::Fence(fence) => fence.adoption,
            Found::Absent | Found::Other(_) => Adoption::FirstContact,
        }
    }
}

/// Who asks, and how it would hold the fence.
#[derive(Clone, Debug)]
pub struct Claim {
    pub owner: Owner,
    pub instance: Instance,
    pub until: Until,
    pub mandate: Mandate,
    /// The fence this process held last.
    pub held: Option<Fence>,
    /// The epoch found first since the start: a higher one by another is of somebody newer.
    pub seen: Option<u64>,
    /// Whose fence an operator lets us replace.
    pub take_over: Option<Owner>,
    /// In a reverse zone: whose names the records are for.
    pub domain: Option<Name>,
}

/// Why somebody else publishes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    #[error(
        "the fence belongs to the owner \"{0}\", not to \"{1}\": two configurations publish into \
         the same space; if that one is gone, `sync --take-over {0}`"
    )]
    ForeignOwner(Owner, Owner),
    #[error(
        "another process of the same owner holds the fence: {0}; if it is a `run`, it publishes \
         by itself, and `mesozone approve ID` lets go what it holds; if it is gone, `sync \
         --take-over {owner}`", owner = .0.owner
    )]
    Held(Fence),
    #[error("the fence belongs to the owner \"{0}\", not to \"{1}\", as --take-over says")]
    OtherOwner(Owner, Owner),
    #[error(
        "the fence of the owner \"{owner}\" is for other names, {0}: give this configuration another \
         [ha] owner; if those names are gone for good, `sync --take-over {owner}`", owner = .0.owner
    )]
    OtherNames(Fence),
    #[error(
        "the fence is not ours, and ZooKeeper does not confirm that we are elected to take it: see [ha] \
             election"
    )]
    NotElected,
    #[error(
        "the TXT records at the fence's name are not one fence: {0:?}; remove them if nobody \
         else needs them"
    )]
    NoFence(Vec<Rdata>),
}

/// The fence that this claim may put in place of what was found: its own unchanged, or the next
/// epoch.
pub fn next(found: &Found, claim: &Claim, now: u64) -> Result<Fence, FenceError> {
    let held_epoch = claim.held.as_ref().map_or(0, |fence| fence.epoch);
    let take = |epoch: u64, adoption: Adoption| Fence {
        owner: claim.owner.clone(),
        instance: claim.instance,
        epoch,
        adoption,
        until: claim.until,
        domain: claim.domain.clone(),
    };
    let found = match found {
        Found::Absent if claim.mandate == Mandate::Keep => return Err(FenceError::NotElected),
        Found::Absent => {
            let adoption = claim.held.as_ref().map_or(Adoption::FirstContact, |f| f.adoption);
            return Ok(take(held_epoch + 1, adoption));
        }
        Found::Other(records) => return Err(FenceError::NoFence(records.clone())),
        Found::Fence(found) => found,
    };
    match &claim.take_over {
        Some(owner) if *owner != found.owner && found.owner != claim.owner => {
            return Err(FenceError::OtherOwner(found.owner.clone(), owner.clone()));
        }
        // What another owner adopted is not adopted by us.
        Some(_) if found.owner != claim.owner => {
            return Ok(take(found.epoch + 1, Adoption::FirstContact));
        }
        None if found.owner != claim.owner => {
            return Err(FenceError::ForeignOwner(found.owner.clone(), claim.owner.clone()));
        }
        _ => {}
    }
    if found.domain != claim.domain {
        // What was adopted for other names is not adopted for these.
        return match claim.take_over.as_ref() == Some(&found.owner) {
            true => Ok(take(found.epoch.max(held_epoch) + 1, Adoption::FirstContact)),
            false => Err(FenceError::OtherNames(found.clone())),
        };
    }
    if found.instance == claim.instance && found.until != Until::Released {
        // In a zone that was set back an older epoch of ours may still be on messages under way.
        let is_set_back = found.epoch < held_epoch;
        return Ok(if is_set_back { take(held_epoch + 1, found.adoption) } else { found.clone() });
    }
    if claim.mandate == Mandate::Keep {
        return Err(FenceError::NotElected);
    }
    // `run` takes the fence at its start whoever has it: the newest wins.
    let is_newest = claim.seen.is_none_or(|seen| found.epoch <= seen);
    let starting_run = claim.until == Until::Run && claim.held.is_none() && is_newest;
    let free = match found.until {
        Until::Released => true,
        Until::Time(time) => time < now,
        Until::Run => false,
    };
    let forced = claim.take_over.as_ref() == Some(&found.owner) && claim.held.is_none();
    match free || starting_run || forced || found.epoch < held_epoch {
        true => Ok(take(found.epoch.max(held_epoch) + 1, found.adoption)),
        false => Err(FenceError::Held(found.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(owner: &str, instance: u64, epoch: u64, until: Until) -> Fence {
        let owner = Owner::parse(owner).unwrap();
        let adoption = Adoption::Adopted;
        Fence { owner, instance: Instance(instance), epoch, adoption, until, domain: None }
    }

    #[test]
    fn a_fence_is_read_as_it_was_written_and_no_other_text_is_one() {
        for until in [Until::Released, Until::Run, Until::Time(1_800_000_000)] {
            let written = fence("cluster-a", 7, 3, until);
            assert_eq!(Fence::parse(&written.rdata()), Some(written));
        }
        let text = fence("cluster-a", 7, 3, Until::Run).to_string();
        assert_eq!(
            text,
            "v=1 owner=cluster-a instance=0000000000000007 epoch=3 adopted=yes until=run"
        );
        for (from, to) in [("v=1", "v=2"), ("epoch=3", "epoch=03"), ("run", "run x"), ("yes", "y")]
        {
            let other = text.replace(from, to);
            let octets = [&[other.len() as u8][..], other.as_bytes()].concat();
            assert_eq!(Fence::parse(&Rdata::Other(Arc::from(octets))), None, "{other}");
        }
        assert_eq!(Fence::parse(&Rdata::Other(Arc::from([]))), None);
        let reverse = Fence { domain: "mesos".parse().ok(), ..fence("a", 7, 3, Until::Run) };
        assert!(reverse.to_string().ends_with(" until=run domain=mesos."));
        assert_eq!(Fence::parse(&reverse.rdata()), Some(reverse));
    }

    #[test]
    fn owners_are_one_short_label() {
        let domain = "Prod.Mesos.example.com".parse().unwrap();
        assert_eq!(Owner::of_domain(&domain).to_string(), "prod-mesos-example-com");
        assert!(Owner::parse("a b").is_err());
        assert!(Owner::parse(&"a".repeat(41)).is_err());
        assert!(Owner::parse("").is_err());
    }

    #[track_caller]
    fn check(found: Found, until: Until, held: Option<Fence>, expected: Result<u64, &str>) {
        check_with((Mandate::Take, None), found, until, held, expected);
    }

    #[track_caller]
    fn check_over(found: Found, until: Until, owner: &str, expected: Result<u64, &str>) {
        check_with((Mandate::Take, Some(owner)), found, until, None, expected);
    }

    #[track_caller]
    fn check_with(
        (mandate, take_over): (Mandate, Option<&str>),
        found: Found,
        until: Until,
        held: Option<Fence>,
        expected: Result<u64, &str>,
    ) {
        let owner = Owner::parse("a").unwrap();
        let take_over = take_over.map(|owner| Owner::parse(owner).unwrap());
        let (instance, seen, domain) = (Instance(1), None, None);
        let claim = Claim { owner, instance, until, mandate, held, seen, take_over, domain };
        let taken = next(&found, &claim, 1_000).map(|fence| fence.epoch);
        assert_eq!(
            taken.map_err(|error| error.to_string()[..10].to_owned()),
            expected.map_err(str::to_owned)
        );
    }

    #[test]
    fn who_may_take_the_fence() {
        let sync = Until::Time(1_300);
        let found = |owner, instance, until| Found::Fence(fence(owner, instance, 5, until));
        check(Found::Absent, sync, None, Ok(1));
        check(Found::Absent, Until::Run, Some(fence("a", 1, 5, Until::Run)), Ok(6));
        check(found("a", 1, Until::Run), Until::Run, None, Ok(5));
        check(found("a", 1, Until::Run), Until::Run, Some(fence("a", 1, 3, Until::Run)), Ok(5));
        check(found("a", 1, Until::Run), Until::Run, Some(fence("a", 1, 9, Until::Run)), Ok(10));
        check(found("a", 1, Until::Released), sync, None, Ok(6));
        check(found("a", 2, Until::Released), sync, None, Ok(6));
        check(found("a", 2, Until::Time(999)), sync, None, Ok(6));
        check(found("a", 2, Until::Time(1_000)), sync, None, Err("another pr"));
        check(found("a", 2, Until::Run), sync, None, Err("another pr"));
        check(found("a", 2, Until::Run), Until::Run, None, Ok(6));
        check(
            found("a", 2, Until::Run),
            Until::Run,
            Some(fence("a", 1, 4, Until::Run)),
            Err("another pr"),
        );
        check(found("a", 2, Until::Run), Until::Run, Some(fence("a", 1, 9, Until::Run)), Ok(10));
        check(found("b", 2, Until::Released), sync, None, Err("the fence "));
        check(Found::Other(Vec::new()), sync, None, Err("the TXT re"));
    }

    #[test]
    fn a_take_over_replaces_exactly_the_owner_it_names() {
        let sync = Until::Time(1_300);
        let found = |owner, until| Found::Fence(fence(owner, 2, 5, until));
        check_over(found("b", Until::Run), sync, "b", Ok(6));
        check_over(found("c", Until::Released), sync, "b", Err("the fence "));
        check_over(found("a", Until::Run), sync, "a", Ok(6));
        check_over(found("a", Until::Run), sync, "b", Err("another pr"));
        check_over(found("a", Until::Released), sync, "b", Ok(6));
        check_over(Found::Absent, sync, "b", Ok(1));
        check_over(Found::Other(Vec::new()), sync, "b", Err("the TXT re"));
        let owner = Owner::parse("a").unwrap();
        let take_over = Owner::parse("b").ok();
        let (mandate, held) = (Mandate::Take, None);
        let (instance, until, seen, domain) = (Instance(1), sync, None, None);
        let claim = Claim { owner, instance, until, mandate, held, seen, take_over, domain };
        let taken = next(&found("b", Until::Run), &claim, 1_000).unwrap();
        assert_eq!(taken.adoption, Adoption::FirstContact, "what they adopted is not ours");
    }

    #[test]
    fn a_fence_for_other_names_is_replaced_only_by_its_name() {
        let owner = Owner::parse("a").unwrap();
        let domain: Option<Name> = "mesos".parse().ok();
        let (instance, until) = (Instance(1), Until::Time(1_300));
        let claim = |take_over| Claim {
            owner: owner.clone(),
            instance,
            until,
            mandate: Mandate::Take,
            held: None,
            seen: None,
            take_over,
            domain: domain.clone(),
        };
        let found = |domain: &str| {
            let domain = domain.parse().ok();
            Found::Fence(Fence { domain, ..fence("a", 2, 5, Until::Released) })
        };
        let taken = next(&found("mesos"), &claim(None), 1_000).unwrap();
        assert_eq!((taken.epoch, taken.adoption, &taken.domain), (6, Adoption::Adopted, &domain));
        let refused = next(&found("other"), &claim(None), 1_000);
        assert!(matches!(refused, Err(FenceError::OtherNames(_))));
        let taken = next(&found("other"), &claim(Some(owner.clone())), 1_000).unwrap();
        assert_eq!((taken.adoption, &taken.domain), (Adoption::FirstContact, &domain));
    }

    #[test]
    fn who_starts_leaves_the_fence_to_whoever_started_later() {
        let owner = || Owner::parse("a").unwrap();
        let (mandate, held, take_over) = (Mandate::Take, None, None);
        let instance = Instance(1);
        let mut claim = Claim {
            owner: owner(),
            instance,
            until: Until::Run,
            mandate,
            held,
            seen: None,
            take_over,
            domain: None,
        };
        let found = Found::Fence(fence("a", 2, 5, Until::Run));
        for (seen, taken) in [(None, true), (Some(5), true), (Some(4), false), (Some(0), false)] {
            claim.seen = seen;
            assert_eq!(next(&found, &claim, 1_000).is_ok(), taken, "{seen:?}");
        }
        let released = Found::Fence(fence("a", 2, 5, Until::Released));
        assert!(next(&released, &claim, 1_000).is_ok());
    }

    #[test]
    fn who_may_not_take_the_fence_keeps_its_own() {
        let found = |owner, instance, until| Found::Fence(fence(owner, instance, 5, until));
        let keep = |found, held: Option<u64>, expected| {
            let held = held.map(|epoch| fence("a", 1, epoch, Until::Run));
            check_with((Mandate::Keep, None), found, Until::Run, held, expected);
        };
        let refused = Err("the fence ");
        keep(found("a", 1, Until::Run), Some(5), Ok(5));
        keep(Found::Absent, None, refused);
        keep(Found::Absent, Some(5), refused);
        keep(found("a", 1, Until::Released), Some(5), refused);
        keep(found("a", 2, Until::Released), Some(5), refused);
        keep(found("a", 2, Until::Run), None, refused);
        keep(found("a", 2, Until::Run), Some(9), refused);
    }
}
