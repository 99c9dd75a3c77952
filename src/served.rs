//! What the bundled server answers from: the published zones, each with an apex of its own.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::edition::{Editions, next_serial};
use crate::index::Index;
use crate::name::Name;
use crate::rr::{Rdata, Rrset, Serial, Ttl, Type};
use crate::zone::{Key, Zone};

/// What only the server adds to a published zone: its apex.
#[derive(Clone, Debug)]
pub struct Authority {
    pub apex: Name,
    /// The name servers, at least one, the SOA's primary first. The addresses of those within the apex
    /// are served, in place of whatever else has these names.
    pub servers: Vec<(Name, Vec<IpAddr>)>,
    pub rname: Name,
    pub refresh: Ttl,
    pub retry: Ttl,
    pub expire: Ttl,
    pub negative_ttl: Ttl,
    /// Of the SOA, NS and address records made here.
    pub ttl: Ttl,
}

impl Authority {
    /// The SOA at the apex, RFC 1035, section 3.3.13.
    fn soa(&self, serial: Serial, ttl: Ttl) -> Rrset {
        let mut octets = Vec::new();
        self.servers.first().map_or(&self.apex, |(name, _)| name).write(&mut octets);
        self.rname.write(&mut octets);
        for word in [serial.0, self.refresh.secs(), self.retry.secs(), self.expire.secs()] {
            octets.extend(word.to_be_bytes());
        }
        octets.extend(self.negative_ttl.secs().to_be_bytes());
        Rrset::of_one(ttl, Rdata::Other(Arc::from(octets)))
    }

    /// The SOA of negative answers, RFC 2308, section 3.
    fn denial(&self, serial: Serial) -> Rrset {
        let ttl = self.ttl.secs().min(self.negative_ttl.secs());
        self.soa(serial, Ttl::from_secs(ttl))
    }

    /// The published zone with the SOA, the NS RRset and the addresses of the name servers.
    fn complete(&self, mut zone: Zone, serial: Serial) -> Zone {
        let at = |name: &Name, rtype| Key { name: name.clone(), rtype };
        // NS data has the form of PTR data: one name.
        let servers = self.servers.iter().map(|(name, _)| Rdata::Ptr(name.clone())).collect();
        zone.set(at(&self.apex, Type::SOA), Some(self.soa(serial, self.ttl)));
        zone.set(at(&self.apex, Type::NS), Rrset::new(self.ttl, servers));
        for (name, addresses) in self.servers.iter().filter(|(name, _)| name.is_within(&self.apex))
        {
            let (v4, v6) = addresses
                .iter()
                .map(|address| Rdata::of_address(*address))
                .partition(|rdata| matches!(rdata, Rdata::A(_)));
            zone.set(at(name, Type::A), Rrset::new(self.ttl, v4));
            zone.set(at(name, Type::AAAA), Rrset::new(self.ttl, v6));
        }
        zone
    }
}

/// Whether what a zone lacks is really gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Certainty {
    Whole,
    /// No complete zone was published yet: what is missing may exist, so it is not denied.
    Partial,
}

/// One zone as served. Cloning is cheap.
#[derive(Clone)]
pub struct Hosted {
    authority: Arc<Authority>,
    content: Option<Content>,
    /// The latest serial that was issued before this process, as far as is known.
    before: Option<Serial>,
}

#[derive(Clone)]
struct Content {
    /// What is published, with the apex.
    zone: Zone,
    index: Index,
    editions: Editions,
    certainty: Certainty,
    denial: Rrset,
}

impl Hosted {
    /// Before anything is published.
    pub fn nothing(authority: Arc<Authority>) -> Hosted {
        Hosted { authority, content: None, before: None }
    }

    /// Has another apex from now on. Answers show it with the next zone that is followed.
    pub fn renew(&mut self, authority: Arc<Authority>) {
        self.authority = authority;
    }

    /// Answers from `published` from now on; the serial stays, and so does what is transferred.
    /// The first one makes an edition of its own at `now`, in seconds of Unix time.
    pub fn follow(&mut self, published: Zone, certainty: Certainty, now: Serial) {
        let Some(content) = &mut self.content else {
            let serial = next_serial(now, self.before);
            let zone = self.authority.complete(published, serial);
            let mut index = Index::default();
            index.follow(&Zone::default(), &zone);
            let editions = Editions::of(serial, zone.clone());
            let denial = self.authority.denial(serial);
            self.content = Some(Content { zone, index, editions, certainty, denial });
            return;
        };
        let before = std::mem::replace(&mut content.certainty, certainty);
        let zone = self.authority.complete(published, content.editions.serial());
        content.index.follow(&content.zone, &zone);
        content.zone = zone;
        if (before, certainty) == (Certainty::Partial, Certainty::Whole) {
            // The edition until now lacks what nobody was told is missing.
            self.advance(now);
        }
    }

    /// Takes note of a serial that somebody has, and says whether it is later than ours. Then it was
    /// issued before this process was there, and the next edition's will be above it.
    pub fn rise_above(&mut self, serial: Serial) -> bool {
        let issued = self.editions().map(Editions::serial).into_iter().chain(self.before);
        let is_later = next_serial(serial, issued) == serial;
        if is_later {
            self.before = Some(serial);
        }
        is_later
    }

    /// Whether an edition is due: answers differ from the newest, or its serial is not above those
    /// from before this process.
    pub fn is_ahead(&self) -> bool {
        self.content.as_ref().is_some_and(|content| {
            let serial = content.editions.serial();
            next_serial(serial, self.before) != serial || content.zone != *content.editions.zone()
        })
    }

    /// Makes an edition of what is answered, at `now`, in seconds of Unix time.
    pub fn advance(&mut self, now: Serial) {
        let Some(content) = &mut self.content else { return };
        let issued = [content.editions.serial()].into_iter().chain(self.before);
        let serial = next_serial(now, issued);
        // Complete already, but for the serial.
        let zone = self.authority.complete(content.zone.clone(), serial);
        content.index.follow(&content.zone, &zone);
        content.denial = self.authority.denial(serial);
        content.zone = zone.clone();
        content.editions.add(serial, zone);
    }

    pub fn apex(&self) -> &Name {
        &self.authority.apex
    }

    /// The zone as it was numbered; none before anything is published.
    pub fn editions(&self) -> Option<&Editions> {
        self.content.as_ref().map(|content| &content.editions)
    }

    /// What is transferred; none before a whole zone is published, for a secondary would deny what
    /// is not denied here.
    pub fn transferable(&self) -> Option<&Editions> {
        let content = self.content.as_ref()?;
        (content.certainty == Certainty::Whole).then_some(&content.editions)
    }

    /// What is answered from; none before anything is published.
    pub(crate) fn answers(&self) -> Option<Answers<'_>> {
        let content = self.content.as_ref()?;
        let Content { index, certainty, denial, .. } = content;
        Some(Answers { index, certainty: *certainty, denial })
    }
}

/// What the answers of one zone are made of.
#[derive(Clone, Copy)]
pub(crate) struct Answers<'s> {
    pub(crate) index: &'s Index,
    pub(crate) certainty: Certainty,
    /// The SOA of negative answers.
    pub(crate) denial: &'s Rrset,
}

/// All zones as served.
#[derive(Clone, Default)]
pub struct Served {
    /// The deepest first, so that the first that a name is within is the nearest.
    zones: Vec<Hosted>,
}

impl Served {
    pub fn into_zones(self) -> Vec<Hosted> {
        self.zones
    }

    pub fn of(mut zones: Vec<Hosted>) -> Served {
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.apex().wire_len()));
        Served { zones }
    }

    pub fn zones(&self) -> &[Hosted] {
        &self.zones
    }

    pub fn zones_mut(&mut self) -> &mut [Hosted] {
        &mut self.zones
    }

    /// The zone that a name is in, by its octets as [`Name::stored`] has them.
    pub fn zone_of(&self, stored: &[u8]) -> Option<&Hosted> {
        self.zones.iter().find(|zone| stored.starts_with(zone.apex().stored()))
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.zones.iter().map(Hosted::apex)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosted() -> Hosted {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let [refresh, retry, expire, negative_ttl, ttl] =
            [60, 600, 86400, 10, 30].map(Ttl::from_secs);
        let servers = vec![(name("ns1.mesos"), vec!["10.0.0.2".parse().unwrap()])];
        let (apex, rname) = (name("mesos"), name("root.ns1.mesos"));
        let authority =
            Authority { apex, servers, rname, refresh, retry, expire, negative_ttl, ttl };
        Hosted::nothing(Arc::new(authority))
    }

    fn published(names: &[&str]) -> Zone {
        let data = || Rrset::of_one(Ttl::from_secs(60), Rdata::A([10, 0, 0, 1].into()));
        let key = |name: &str| Key { name: name.parse().unwrap(), rtype: Type::A };
        names.iter().map(|name| (key(name), data())).collect()
    }

    fn serial(zone: &Hosted) -> Option<Serial> {
        zone.editions().map(Editions::serial)
    }

    fn knows(zone: &Hosted, name: &str) -> bool {
        let name: Name = name.parse().unwrap();
        zone.answers().is_some_and(|answers| answers.index.get(name.stored()).is_some())
    }

    #[test]
    fn answers_follow_at_once_and_editions_when_they_are_made() {
        let mut zone = hosted();
        assert_eq!((serial(&zone), zone.is_ahead()), (None, false));
        zone.follow(published(&["a.mesos"]), Certainty::Whole, Serial(7));
        assert_eq!((serial(&zone), zone.is_ahead()), (Some(Serial(7)), false));
        zone.follow(published(&["b.mesos"]), Certainty::Whole, Serial(7));
        assert!(knows(&zone, "b.mesos") && !knows(&zone, "a.mesos") && zone.is_ahead());
        assert_eq!(serial(&zone), Some(Serial(7)));
        zone.advance(Serial(7));
        assert_eq!((serial(&zone), zone.is_ahead()), (Some(Serial(8)), false));
        zone.follow(published(&["c.mesos"]), Certainty::Whole, Serial(20));
        zone.advance(Serial(20));
        assert_eq!(serial(&zone), Some(Serial(20)));
        zone.follow(published(&["c.mesos"]), Certainty::Whole, Serial(30));
        assert!(!zone.is_ahead(), "nothing changed");
    }

    #[test]
    fn serials_are_above_those_of_an_earlier_process() {
        let mut zone = hosted();
        assert_eq!([12, 10].map(|serial| zone.rise_above(Serial(serial))), [true, false]);
        zone.follow(published(&["a.mesos"]), Certainty::Whole, Serial(9));
        assert_eq!((serial(&zone), zone.is_ahead()), (Some(Serial(13)), false));
        assert!(!zone.rise_above(Serial(13)) && !zone.is_ahead(), "that one is ours");
        zone.follow(published(&["b.mesos"]), Certainty::Whole, Serial(9));
        zone.advance(Serial(9));
        assert_eq!((serial(&zone), zone.is_ahead()), (Some(Serial(14)), false));
        assert!(
            zone.rise_above(Serial(30)) && zone.is_ahead(),
            "nothing changed, but it is numbered below what others have"
        );
        zone.advance(Serial(40));
        assert_eq!(serial(&zone), Some(Serial(40)));
    }

    #[test]
    fn nothing_is_transferred_before_a_whole_zone() {
        let mut zone = hosted();
        zone.follow(published(&["a.mesos"]), Certainty::Partial, Serial(9));
        assert!(zone.transferable().is_none() && zone.editions().is_some());
        zone.follow(published(&["a.mesos"]), Certainty::Whole, Serial(9));
        assert!(zone.transferable().is_some());
    }

    #[test]
    fn what_is_transferred_first_is_whole() {
        let mut zone = hosted();
        zone.follow(published(&["a.mesos"]), Certainty::Partial, Serial(7));
        assert!(zone.transferable().is_none());
        zone.follow(published(&["a.mesos", "b.mesos"]), Certainty::Whole, Serial(7));
        let editions = zone.transferable().unwrap();
        let key = Key { name: "b.mesos".parse().unwrap(), rtype: Type::A };
        assert!(editions.zone().get(&key).is_some() && !zone.is_ahead());
    }

    #[test]
    fn the_soa_that_is_answered_is_that_of_the_newest_edition() {
        let mut zone = hosted();
        zone.follow(published(&["a.mesos"]), Certainty::Whole, Serial(7));
        zone.follow(published(&[]), Certainty::Whole, Serial(9));
        zone.advance(Serial(9));
        let soa = |zone: &Hosted| {
            let answers = zone.answers().unwrap();
            let entry = answers.index.get(zone.apex().stored()).unwrap();
            entry.get(Type::SOA).cloned()
        };
        assert_eq!(soa(&zone), Some(zone.authority.soa(Serial(9), Ttl::from_secs(30))));
        assert_eq!(*zone.answers().unwrap().denial, zone.authority.denial(Serial(9)));
    }
}
