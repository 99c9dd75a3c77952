//! A zone and what updates make of it, RFC 2136, with what each server makes of the RFC.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv4Addr;

use mesozone::name::Name;
use mesozone::rr::{Serial, Type};
use mesozone::wire::{CLASS_ANY, CLASS_IN, CLASS_NONE, Rcode, Reader, Record, WireError};

use crate::peer::Peer;

/// An RRset. Names in its data are written out, in lower case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Set {
    pub(crate) ttl: u32,
    pub(crate) data: BTreeSet<Vec<u8>>,
}

pub(crate) type Content = BTreeMap<(Name, Type), Set>;

/// One record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rr {
    pub(crate) owner: Name,
    pub(crate) rtype: Type,
    pub(crate) ttl: u32,
    pub(crate) rdata: Vec<u8>,
}

impl fmt::Debug for Rr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rr { owner, rtype, ttl, rdata } = self;
        write!(f, "{owner} {ttl} {rtype} {}", rdata.escape_ascii())
    }
}

impl Rr {
    pub(crate) fn a(owner: &str, ttl: u32, address: [u8; 4]) -> Rr {
        let rdata = Ipv4Addr::from(address).octets().to_vec();
        Rr { owner: owner.parse().expect("a name"), rtype: Type::A, ttl, rdata }
    }

    /// A record whose data is one name.
    pub(crate) fn of_name(owner: &str, rtype: Type, ttl: u32, target: &str) -> Rr {
        let mut rdata = Vec::new();
        target.parse::<Name>().expect("a name").write(&mut rdata);
        Rr { owner: owner.parse().expect("a name"), rtype, ttl, rdata }
    }

    pub(crate) fn txt(owner: &str, ttl: u32, text: &str) -> Rr {
        let length = u8::try_from(text.len()).expect("one character-string");
        let rdata = [&[length], text.as_bytes()].concat();
        Rr { owner: owner.parse().expect("a name"), rtype: Type::TXT, ttl, rdata }
    }
}

/// Every record of a zone, in order.
pub(crate) fn records(content: &Content) -> impl Iterator<Item = Rr> + '_ {
    content.iter().flat_map(|((owner, rtype), set)| {
        set.data.iter().map(|rdata| Rr {
            owner: owner.clone(),
            rtype: *rtype,
            ttl: set.ttl,
            rdata: rdata.clone(),
        })
    })
}

/// From one serial to the next, both SOAs left out.
#[derive(Clone, Debug)]
pub(super) struct Delta {
    pub(super) from: Rr,
    pub(super) to: Rr,
    pub(super) deleted: Vec<Rr>,
    pub(super) added: Vec<Rr>,
}

/// Who sends an update, and what of.
#[derive(Clone, Debug)]
pub(crate) enum Rights {
    All,
    /// A, AAAA, SRV and TXT at and below this name.
    Below(Name),
}

impl Rights {
    fn permit(&self, owner: &Name, rtype: Type) -> bool {
        const TYPES: [Type; 4] = [Type::A, Type::AAAA, Type::SRV, Type::TXT];
        match self {
            Rights::All => true,
            Rights::Below(domain) => owner.is_within(domain) && TYPES.contains(&rtype),
        }
    }
}

/// One record of a prerequisite or an update section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) class: u16,
    /// Its data is empty where the class says that there is none.
    pub(crate) rr: Rr,
}

/// A message as RFC 2136 sees it.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub(crate) zone: Name,
    pub(crate) prerequisites: Vec<Entry>,
    pub(crate) updates: Vec<Entry>,
}

impl Update {
    pub(crate) fn read(message: &[u8]) -> Result<Update, WireError> {
        let (header, mut reader) = Reader::behind_question(message)?;
        let mut zone = Reader::new(message);
        zone.take(12)?;
        let zone = zone.name()?;
        let mut entries = |count: u16| {
            let each = (0..count).map(|_| {
                let record = reader.record()?;
                let rdata = rdata(message, &record, reader.position())?;
                let (ttl, rtype, class) = (record.ttl.secs(), record.rtype, record.class);
                Ok(Entry { class, rr: Rr { owner: record.owner, rtype, ttl, rdata } })
            });
            each.collect::<Result<Vec<Entry>, WireError>>()
        };
        let prerequisites = entries(header.counts[1])?;
        let updates = entries(header.counts[2])?;
        Ok(Update { zone, prerequisites, updates })
    }
}

/// Data with its names written out, up to the octet at `end` of the message.
pub(super) fn rdata(message: &[u8], record: &Record<'_>, end: usize) -> Result<Vec<u8>, WireError> {
    let octets = record.octets();
    // Octets before the names, and how many names.
    let (before, names) = match record.rtype {
        Type::NS | Type::CNAME | Type::DNAME | Type::PTR => (0, 1),
        Type::SOA => (0, 2),
        Type(15) => (2, 1), // MX
        Type::SRV => (6, 1),
        _ => return Ok(octets.to_vec()),
    };
    if octets.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(&message[..end]);
    reader.take(end - octets.len())?;
    let mut written = reader.take(before)?.to_vec();
    for _ in 0..names {
        reader.name()?.write(&mut written);
    }
    let rest = end - reader.position();
    written.extend(reader.take(rest)?);
    Ok(written)
}

/// A zone on a server of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    pub(crate) peer: Peer,
    pub(crate) apex: Name,
    pub(crate) content: Content,
    /// Serials that differences reach back to, oldest first.
    pub(super) journal: VecDeque<Delta>,
    /// Takes no updates.
    pub(crate) frozen: bool,
    /// Names that a policy of the server refuses.
    pub(crate) refused: BTreeSet<Name>,
    /// Nobody has seen the serial since it last moved: Knot may carry out more under it.
    pub(super) unseen: bool,
    /// The highest serial that it had before it was restored.
    used: Option<u32>,
}

/// Knot's `journal-max-depth`.
const KNOT_DEPTH: usize = 20;
/// BIND's `max-records-per-type`.
const BIND_RECORD_MAX: usize = 100;

impl Zone {
    /// A zone with an SOA and one name server, and these records.
    pub(crate) fn new(peer: Peer, apex: &str, more: Vec<Rr>) -> Zone {
        let apex_name: Name = apex.parse().expect("a name");
        let server = format!("ns1.{apex}");
        let mut soa = Rr::of_name(apex, Type::SOA, 60, &server);
        apex_name.child(b"hostmaster").expect("a short name").write(&mut soa.rdata);
        soa.rdata.extend([1, 3600, 600, 86_400, 10_u32].map(u32::to_be_bytes).concat());
        let first =
            [soa, Rr::of_name(apex, Type::NS, 60, &server), Rr::a(&server, 60, [127, 0, 0, 1])];
        let mut content = Content::new();
        for rr in first.into_iter().chain(more) {
            add(&mut content, rr);
        }
        let (journal, refused) = Default::default();
        Zone {
            peer,
            apex: apex_name,
            content,
            journal,
            frozen: false,
            refused,
            unseen: false,
            used: None,
        }
    }

    pub(crate) fn soa(&self) -> Rr {
        soa(&self.content, &self.apex)
    }

    pub(crate) fn serial(&self) -> Serial {
        serial(&self.soa())
    }

    /// Carries an update out, or says why not.
    pub(crate) fn update(&mut self, rights: &Rights, message: &[u8]) -> Rcode {
        let Ok(update) = Update::read(message) else { return Rcode::FORMERR };
        self.carry_out(rights, &update).err().unwrap_or(Rcode::NOERROR)
    }

    fn carry_out(&mut self, rights: &Rights, update: &Update) -> Result<(), Rcode> {
        if update.zone != self.apex {
            return Err(Rcode::NOTAUTH);
        }
        match self.peer {
            Peer::Bind => {
                self.prescan(&update.updates)?;
                self.check_rights(rights, update)?;
                self.check_frozen()?;
                self.check_prerequisites(&update.prerequisites)?;
            }
            Peer::Knot => {
                self.check_rights(rights, update)?;
                self.check_frozen()?;
                self.check_prerequisites(&update.prerequisites)?;
                self.prescan(&update.updates)?;
            }
            Peer::PowerDns => {
                self.check_frozen()?;
                self.check_prerequisites(&update.prerequisites)?;
                self.prescan(&update.updates)?;
                check_together(&update.updates)?;
                self.check_rights(rights, update)?;
            }
        }
        let mut next = self.content.clone();
        let mut touched = false;
        for entry in self.in_turn(&update.updates) {
            touched |= self.step(&mut next, entry)?;
        }
        self.commit(next, touched);
        Ok(())
    }

    /// The policy's word on every name. That of our example for PowerDNS fails at other types.
    fn check_rights(&self, rights: &Rights, update: &Update) -> Result<(), Rcode> {
        for Entry { rr, .. } in &update.updates {
            let permitted = rights.permit(&rr.owner, rr.rtype);
            if permitted && !self.refused.contains(&rr.owner) {
                continue;
            }
            return Err(match self.peer {
                Peer::PowerDns if !permitted => Rcode::SERVFAIL,
                Peer::Bind | Peer::PowerDns => Rcode::REFUSED,
                Peer::Knot => Rcode::NOTAUTH,
            });
        }
        Ok(())
    }

    fn check_frozen(&self) -> Result<(), Rcode> {
        match (self.frozen, self.peer) {
            (false, _) => Ok(()),
            (true, Peer::Bind | Peer::Knot) => Err(Rcode::REFUSED),
            // It knows no freezing; a database that cannot be written.
            (true, Peer::PowerDns) => Err(Rcode::SERVFAIL),
        }
    }

    /// RFC 2136, section 3.2.
    fn check_prerequisites(&self, prerequisites: &[Entry]) -> Result<(), Rcode> {
        let mut exact: BTreeMap<(Name, Type), BTreeSet<Vec<u8>>> = BTreeMap::new();
        for Entry { class, rr } in prerequisites {
            if rr.ttl != 0 {
                return Err(Rcode::FORMERR);
            }
            if !rr.owner.is_within(&self.apex) {
                return Err(Rcode::NOTZONE);
            }
            let key = (rr.owner.clone(), rr.rtype);
            let (in_use, there) = (self.is_in_use(&rr.owner), self.content.contains_key(&key));
            match (*class, rr.rtype) {
                (CLASS_ANY, Type::ANY) if !in_use => return Err(Rcode::NXDOMAIN),
                (CLASS_NONE, Type::ANY) if in_use => return Err(Rcode::YXDOMAIN),
                (CLASS_ANY | CLASS_NONE, Type::ANY) => {}
                (CLASS_ANY, _) if !there => return Err(Rcode::NXRRSET),
                (CLASS_NONE, _) if there => return Err(Rcode::YXRRSET),
                (CLASS_ANY | CLASS_NONE, _) => {}
                (CLASS_IN, _) => {
                    exact.entry(key).or_default().insert(rr.rdata.clone());
                }
                _ => return Err(Rcode::FORMERR),
            }
        }
        let is_exact = |(key, data): (&(Name, Type), &BTreeSet<Vec<u8>>)| {
            self.content.get(key).is_some_and(|set| set.data == *data)
        };
        if exact.iter().all(is_exact) { Ok(()) } else { Err(Rcode::NXRRSET) }
    }

    fn is_in_use(&self, owner: &Name) -> bool {
        self.content.keys().any(|(name, _)| name == owner)
    }

    /// RFC 2136, section 3.4.1.
    fn prescan(&self, updates: &[Entry]) -> Result<(), Rcode> {
        for Entry { class, rr } in updates {
            if !rr.owner.is_within(&self.apex) {
                return Err(Rcode::NOTZONE);
            }
            let is_meta = rr.rtype.0 >= 128 && rr.rtype.0 < 256;
            let wrong = match *class {
                CLASS_IN => is_meta,
                CLASS_ANY => {
                    rr.ttl != 0 || !rr.rdata.is_empty() || is_meta && rr.rtype != Type::ANY
                }
                CLASS_NONE => rr.ttl != 0 || is_meta,
                _ => true,
            };
            if wrong {
                return Err(Rcode::FORMERR);
            }
        }
        Ok(())
    }

    /// The steps as they are taken. PowerDNS deletes nothing that the message itself adds.
    fn in_turn<'u>(&self, updates: &'u [Entry]) -> Vec<&'u Entry> {
        let mut steps: Vec<&Entry> = updates.iter().collect();
        if self.peer == Peer::PowerDns {
            steps.sort_by_key(|entry| entry.class == CLASS_IN);
        }
        steps
    }

    /// One step of the update section, section 3.4.2; whether it did anything.
    fn step(&self, next: &mut Content, Entry { class, rr }: &Entry) -> Result<bool, Rcode> {
        let at_apex = rr.owner == self.apex;
        let key = (rr.owner.clone(), rr.rtype);
        let vital = |rtype: Type| at_apex && matches!(rtype, Type::SOA | Type::NS);
        match *class {
            CLASS_ANY if rr.rtype == Type::ANY => {
                let before = next.len();
                next.retain(|(owner, rtype), _| *owner != rr.owner || vital(*rtype));
                Ok(next.len() < before)
            }
            CLASS_ANY if vital(rr.rtype) => Ok(false),
            CLASS_ANY => Ok(next.remove(&key).is_some()),
            CLASS_NONE => {
                let last = |set: &Set| set.data.len() == 1;
                let is_kept = at_apex && rr.rtype == Type::SOA
                    || at_apex && rr.rtype == Type::NS && next.get(&key).is_some_and(last);
                Ok(!is_kept && remove(next, rr))
            }
            _ => self.add(next, rr),
        }
    }

    fn add(&self, next: &mut Content, rr: &Rr) -> Result<bool, Rcode> {
        let key = (rr.owner.clone(), rr.rtype);
        if rr.rtype == Type::SOA {
            let newer = serial(rr) > serial(&soa(next, &self.apex));
            if rr.owner != self.apex || !newer {
                return Ok(false);
            }
            next.remove(&key);
            return Ok(add(next, rr.clone()));
        }
        if self.peer == Peer::Bind && !is_host(rr) {
            return Err(Rcode::REFUSED);
        }
        let has_cname = next.contains_key(&(rr.owner.clone(), Type::CNAME));
        let has_other = next.keys().any(|(owner, t)| *owner == rr.owner && *t != Type::CNAME);
        let clashes = if rr.rtype == Type::CNAME { has_other } else { has_cname };
        if clashes {
            return if self.peer == Peer::PowerDns { Err(Rcode::REFUSED) } else { Ok(false) };
        }
        if rr.rtype == Type::CNAME
            && next.get(&key).is_some_and(|set| !set.data.contains(&rr.rdata))
        {
            next.remove(&key);
        }
        let set = next.get(&key);
        let (known, size) = set.map_or((false, 0), |s| (s.data.contains(&rr.rdata), s.data.len()));
        if known && self.peer == Peer::Knot {
            return Ok(false);
        }
        if self.peer == Peer::Bind && !known && size >= BIND_RECORD_MAX {
            return Err(Rcode::SERVFAIL);
        }
        let same = set.is_some_and(|set| known && set.ttl == rr.ttl);
        Ok(!same && add(next, rr.clone()))
    }

    /// Makes the content the zone's, under the next serial if it differs.
    fn commit(&mut self, mut next: Content, touched: bool) {
        let same = next == self.content;
        if same && !(touched && self.peer == Peer::PowerDns) {
            return;
        }
        let before = self.soa();
        if soa(&next, &self.apex) == before {
            // Knot commits what waits together.
            let joins = self.peer == Peer::Knot && self.unseen && !self.journal.is_empty();
            let step = if joins { 0 } else { 1 };
            // One that was used before the zone was restored would be believed to be that one by
            // whoever polls serials.
            let serial = self.used.take().map_or(serial(&before).0 + step, |used| used + 1);
            set_serial(&mut next, &self.apex, serial);
        }
        let plain = |content: &Content| -> BTreeSet<Rr> {
            records(content).filter(|rr| rr.rtype != Type::SOA).collect()
        };
        let (old, new) = (plain(&self.content), plain(&next));
        let to = soa(&next, &self.apex);
        if serial(&before) == serial(&to)
            && let Some(last) = self.journal.back_mut()
        {
            last.join(&old, &new);
        } else {
            let deleted = old.difference(&new).cloned().collect();
            let added = new.difference(&old).cloned().collect();
            self.journal.push_back(Delta { from: before, to, deleted, added });
        }
        if self.peer == Peer::Knot && self.journal.len() > KNOT_DEPTH {
            self.journal.pop_front();
        }
        self.content = next;
        self.unseen = true;
    }

    /// Another hand's change.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Content)) {
        let mut next = self.content.clone();
        edit(&mut next);
        self.unseen = false;
        self.commit(next, false);
    }

    /// Somebody asks, and may learn the serial.
    pub(super) fn seen(&mut self) {
        self.unseen = false;
    }

    /// Forgets how it came to be what it is.
    pub(crate) fn roll_journal(&mut self) {
        self.journal.clear();
    }

    /// Goes back to an earlier content, its serial included.
    pub(crate) fn restore(&mut self, content: Content) {
        self.used = self.used.max(Some(self.serial().0));
        self.content = content;
        self.journal.clear();
    }
}

impl Delta {
    /// Octets in BIND's journal.
    pub(super) fn octets(&self) -> usize {
        let rr = |rr: &Rr| 4 + rr.owner.wire_len() + 10 + rr.rdata.len();
        let all = [&self.from, &self.to].into_iter().chain(&self.deleted).chain(&self.added);
        12 + all.map(rr).sum::<usize>()
    }

    /// Takes in what the zone became next under the same serial.
    fn join(&mut self, old: &BTreeSet<Rr>, new: &BTreeSet<Rr>) {
        for rr in old.difference(new) {
            match self.added.iter().position(|added| added == rr) {
                Some(at) => drop(self.added.remove(at)),
                None => self.deleted.push(rr.clone()),
            }
        }
        for rr in new.difference(old) {
            match self.deleted.iter().position(|deleted| deleted == rr) {
                Some(at) => drop(self.deleted.remove(at)),
                None => self.added.push(rr.clone()),
            }
        }
    }
}

/// PowerDNS takes no message that adds a CNAME and something else to a name.
fn check_together(updates: &[Entry]) -> Result<(), Rcode> {
    let mut added = updates.iter().filter(|entry| entry.class == CLASS_IN).map(|entry| &entry.rr);
    let clash = |rr: &Rr| {
        let others = updates.iter().filter(|entry| entry.class == CLASS_IN);
        others.into_iter().any(|other| other.rr.owner == rr.owner && other.rr.rtype != Type::CNAME)
    };
    match added.any(|rr| rr.rtype == Type::CNAME && clash(rr)) {
        true => Err(Rcode::FORMERR),
        false => Ok(()),
    }
}

/// Puts a record into its RRset, which takes its TTL.
pub(crate) fn add(content: &mut Content, rr: Rr) -> bool {
    let none = || Set { ttl: rr.ttl, data: BTreeSet::new() };
    let set = content.entry((rr.owner.clone(), rr.rtype)).or_insert_with(none);
    set.ttl = rr.ttl;
    set.data.insert(rr.rdata);
    true
}

/// Takes a record out of its RRset, whatever its TTL.
pub(crate) fn remove(content: &mut Content, rr: &Rr) -> bool {
    let key = (rr.owner.clone(), rr.rtype);
    let Some(set) = content.get_mut(&key) else { return false };
    let removed = set.data.remove(&rr.rdata);
    if set.data.is_empty() {
        content.remove(&key);
    }
    removed
}

/// Octets of a zone as BIND counts them.
pub(super) fn octets(content: &Content) -> usize {
    let set = |((owner, _), set): (&(Name, Type), &Set)| {
        owner.wire_len() + 10 + set.data.iter().map(|rdata| 2 + rdata.len()).sum::<usize>()
    };
    content.iter().map(set).sum()
}

fn soa(content: &Content, apex: &Name) -> Rr {
    let set = &content[&(apex.clone(), Type::SOA)];
    let rdata = set.data.first().expect("an RRset is never empty").clone();
    Rr { owner: apex.clone(), rtype: Type::SOA, ttl: set.ttl, rdata }
}

/// Twenty octets of numbers end an SOA, its serial first.
pub(super) fn serial(soa: &Rr) -> Serial {
    let at = soa.rdata.len() - 20;
    let octets = soa.rdata[at..at + 4].try_into().expect("four octets");
    Serial(u32::from_be_bytes(octets))
}

pub(super) fn set_serial(content: &mut Content, apex: &Name, serial: u32) {
    let mut rr = soa(content, apex);
    let at = rr.rdata.len() - 20;
    rr.rdata[at..at + 4].copy_from_slice(&serial.to_be_bytes());
    content.remove(&(apex.clone(), Type::SOA));
    add(content, rr);
}

/// Whether BIND's `check-names` lets it pass: owners of addresses and targets of SRV are hosts.
fn is_host(rr: &Rr) -> bool {
    let name = match rr.rtype {
        Type::A | Type::AAAA => rr.owner.clone(),
        Type::SRV => match Reader::new(&rr.rdata[6.min(rr.rdata.len())..]).name() {
            Ok(target) => target,
            Err(_) => return true,
        },
        _ => return true,
    };
    name.labels().enumerate().all(|(at, label)| {
        let word = |octet: &u8| octet.is_ascii_alphanumeric();
        let middle = label.iter().all(|octet| word(octet) || *octet == b'-');
        let ends = label.first().is_some_and(word) && label.last().is_some_and(word);
        middle && ends || at == 0 && *label == *b"*"
    })
}
