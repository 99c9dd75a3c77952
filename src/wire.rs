//! The DNS message on the wire, RFC 1035, section 4: reading without trusting, writing by hand.
//!
//! Data of types that nobody here needs stays opaque, so that no foreign record, however odd,
//! costs a message.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::name::{NAME_MAX, Name, NameError};
use crate::rr::{Rdata, Serial, Ttl, Type};

pub const HEADER_LEN: usize = 12;
/// The most octets of a message over TCP.
pub const MESSAGE_MAX: usize = 65_535;

/// No name has more labels, and each pointer on the way to one leads to at least a label.
const POINTERS_MAX: usize = NAME_MAX / 2;

pub const CLASS_IN: u16 = 1;
pub const CLASS_NONE: u16 = 254;
pub const CLASS_ANY: u16 = 255;

pub const OPCODE_QUERY: u8 = 0;
pub const OPCODE_NOTIFY: u8 = 4;
pub const OPCODE_UPDATE: u8 = 5;

/// Response codes, RFC 1035, RFC 2136 section 2.2, and RFC 8945 for TSIG.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

impl Rcode {
    pub const NOERROR: Rcode = Rcode(0);
    pub const FORMERR: Rcode = Rcode(1);
    pub const SERVFAIL: Rcode = Rcode(2);
    pub const NXDOMAIN: Rcode = Rcode(3);
    pub const NOTIMP: Rcode = Rcode(4);
    pub const REFUSED: Rcode = Rcode(5);
    pub const YXDOMAIN: Rcode = Rcode(6);
    pub const YXRRSET: Rcode = Rcode(7);
    pub const NXRRSET: Rcode = Rcode(8);
    pub const NOTAUTH: Rcode = Rcode(9);
    pub const NOTZONE: Rcode = Rcode(10);
    pub const BADVERS: Rcode = Rcode(16);
}

impl std::fmt::Display for Rcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [&str; 11] = [
            "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN",
            "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
        ];
        match NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None if *self == Rcode::BADVERS => f.write_str("BADVERS"),
            None => write!(f, "RCODE{}", self.0),
        }
    }
}

impl std::fmt::Debug for Rcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Why octets are no DNS message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("message cut short")]
    Short,
    #[error("compression pointer that does not point back, or one of too many")]
    Pointer,
    #[error("label of an unknown kind")]
    LabelKind,
    #[error("bad name: {0}")]
    Name(#[from] NameError),
    #[error("{0} data of a wrong length")]
    Rdata(Type),
}

/// The fixed header. Counts are of question, answer, authority and additional; in an UPDATE of
/// zone, prerequisite, update and additional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: u16,
    pub flags: u16,
    pub counts: [u16; 4],
}

impl Header {
    pub const QR: u16 = 0x8000;
    /// The four bits of the opcode.
    pub const OPCODE: u16 = 0x7800;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;

    pub fn parse(message: &[u8]) -> Result<Header, WireError> {
        let mut reader = Reader::new(message);
        let id = reader.u16()?;
        let flags = reader.u16()?;
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = reader.u16()?;
        }
        Ok(Header { id, flags, counts })
    }

    pub fn opcode(&self) -> u8 {
        (self.flags >> 11) as u8 & 0xf
    }

    pub fn rcode(&self) -> Rcode {
        Rcode(self.flags & 0xf)
    }

    pub fn is_response(&self) -> bool {
        self.flags & Header::QR != 0
    }
}

/// What an SOA record says, less the timers of secondaries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Soa {
    pub primary: Name,
    pub responsible: Name,
    pub serial: Serial,
    pub minimum: Ttl,
    pub ttl: Ttl,
}

impl Soa {
    /// For how long the absence of a name is remembered, RFC 2308, section 5.
    pub fn negative_ttl(&self) -> Ttl {
        Ttl::from_secs(self.minimum.secs().min(self.ttl.secs()))
    }
}

/// A record as it stands in a message. The data may hold compressed names: [`Record::rdata`]
/// reads it in the message's light.
#[derive(Clone)]
pub struct Record<'m> {
    pub owner: Name,
    pub rtype: Type,
    pub class: u16,
    pub ttl: Ttl,
    message: &'m [u8],
    at: usize,
    len: usize,
}

impl<'m> Record<'m> {
    /// The data's octets as they stand in the message.
    pub fn octets(&self) -> &'m [u8] {
        &self.message[self.at..self.at + self.len]
    }

    fn reader(&self) -> Reader<'m> {
        Reader { message: &self.message[..self.at + self.len], at: self.at }
    }

    /// The data, understood as far as a zone of ours needs it.
    pub fn rdata(&self) -> Result<Rdata, WireError> {
        let wrong = WireError::Rdata(self.rtype);
        match self.rtype {
            Type::A => <[u8; 4]>::try_from(self.octets())
                .map(|octets| Rdata::A(Ipv4Addr::from(octets)))
                .map_err(|_| wrong),
            Type::AAAA => <[u8; 16]>::try_from(self.octets())
                .map(|octets| Rdata::Aaaa(Ipv6Addr::from(octets)))
                .map_err(|_| wrong),
            Type::SRV => {
                let mut reader = self.reader();
                let (priority, weight, port) = (reader.u16()?, reader.u16()?, reader.u16()?);
                let target = reader.name()?;
                match reader.is_at_end() {
                    true => Ok(Rdata::Srv { priority, weight, port, target }),
                    false => Err(wrong),
                }
            }
            Type::PTR => self.target().map(Rdata::Ptr),
            _ => Ok(Rdata::Other(Arc::from(self.octets()))),
        }
    }

    /// The one name that NS, CNAME, DNAME and PTR data is.
    pub fn target(&self) -> Result<Name, WireError> {
        let mut reader = self.reader();
        let name = reader.name()?;
        if reader.is_at_end() { Ok(name) } else { Err(WireError::Rdata(self.rtype)) }
    }

    /// SOA data, RFC 1035, section 3.3.13.
    pub fn soa(&self) -> Result<Soa, WireError> {
        let mut reader = self.reader();
        let (primary, responsible) = (reader.name()?, reader.name()?);
        let serial = Serial(reader.u32()?);
        reader.take(12)?;
        let minimum = Ttl::from_secs(reader.u32()?);
        Ok(Soa { primary, responsible, serial, minimum, ttl: self.ttl })
    }

    /// The serial of SOA data, RFC 1035, section 3.3.13.
    pub fn soa_serial(&self) -> Result<Serial, WireError> {
        let mut reader = self.reader();
        reader.skip_name()?;
        reader.skip_name()?;
        reader.u32().map(Serial)
    }
}

/// A place in a message, moving forward.
#[derive(Clone)]
pub struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    pub fn new(message: &'m [u8]) -> Reader<'m> {
        Reader { message, at: 0 }
    }

    /// A reader behind the header and the question (or zone) section.
    pub fn behind_question(message: &'m [u8]) -> Result<(Header, Reader<'m>), WireError> {
        let header = Header::parse(message)?;
        let mut reader = Reader { message, at: HEADER_LEN };
        for _ in 0..header.counts[0] {
            reader.skip_name()?;
            reader.take(4)?;
        }
        Ok((header, reader))
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.message.len()
    }

    pub fn take(&mut self, count: usize) -> Result<&'m [u8], WireError> {
        let end = self.at.checked_add(count).ok_or(WireError::Short)?;
        let octets = self.message.get(self.at..end).ok_or(WireError::Short)?;
        self.at = end;
        Ok(octets)
    }

    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.take(2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }

    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.take(4).map(|o| u32::from_be_bytes([o[0], o[1], o[2], o[3]]))
    }

    /// A name, its compression followed (RFC 1035, section 4.1.4): pointers only ever go back,
    /// so reading ends, and soon: a message may be full of names that share a row of them.
    pub fn name(&mut self) -> Result<Name, WireError> {
        let mut labels: Vec<&'m [u8]> = Vec::with_capacity(8);
        let (mut at, mut floor, mut octets) = (self.at, self.at, 1);
        let (mut end, mut pointers) = (None, 0);
        loop {
            let length = *self.message.get(at).ok_or(WireError::Short)?;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(length));
                    labels.push(label.ok_or(WireError::Short)?);
                    octets += usize::from(length) + 1;
                    if octets > NAME_MAX {
                        return Err(NameError::TooLong(octets).into());
                    }
                    at += 1 + usize::from(length);
                }
                0xc0.. => {
                    let low = *self.message.get(at + 1).ok_or(WireError::Short)?;
                    end.get_or_insert(at + 2);
                    at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    pointers += 1;
                    if at >= floor || pointers > POINTERS_MAX {
                        return Err(WireError::Pointer);
                    }
                    floor = at;
                }
                _ => return Err(WireError::LabelKind),
            }
        }
        self.at = end.unwrap_or(at + 1);
        Ok(Name::from_wire_labels(labels.into_iter())?)
    }

    /// Moves past a name without reading what a pointer in it points at.
    pub fn skip_name(&mut self) -> Result<(), WireError> {
        loop {
            let length = self.take(1)?[0];
            match length {
                0 => return Ok(()),
                1..=63 => self.take(usize::from(length))?,
                0xc0.. => return self.take(1).map(drop),
                _ => return Err(WireError::LabelKind),
            };
        }
    }

    pub fn record(&mut self) -> Result<Record<'m>, WireError> {
        let owner = self.name()?;
        let rtype = Type(self.u16()?);
        let class = self.u16()?;
        let ttl = Ttl::from_secs(self.u32()?);
        let len = usize::from(self.u16()?);
        let at = self.at;
        self.take(len)?;
        Ok(Record { owner, rtype, class, ttl, message: self.message, at, len })
    }

    /// Moves past a record and says its type.
    pub fn skip_record(&mut self) -> Result<Type, WireError> {
        self.skip_name()?;
        let rtype = Type(self.u16()?);
        self.take(6)?;
        let len = usize::from(self.u16()?);
        self.take(len)?;
        Ok(rtype)
    }
}

/// Writes a message. Owner names are compressed against the owner written before: records come
/// in the order of names, where that one shares the most.
pub struct Writer {
    octets: Vec<u8>,
    last: Vec<u8>,
    /// For each label of `last`, root first: how much of it that is, and where it stands.
    suffixes: Vec<(usize, u16)>,
}

/// A place to go back to when what came after does not fit.
pub struct Mark {
    len: usize,
    counts: [u8; 8],
}

impl Writer {
    pub fn new(id: u16, flags: u16) -> Writer {
        let mut octets = Vec::with_capacity(512);
        octets.extend(id.to_be_bytes());
        octets.extend(flags.to_be_bytes());
        octets.extend([0; 8]);
        Writer { octets, last: Vec::new(), suffixes: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.octets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.octets.len() <= HEADER_LEN
    }

    pub fn mark(&self) -> Mark {
        let mut counts = [0; 8];
        counts.copy_from_slice(&self.octets[4..HEADER_LEN]);
        Mark { len: self.octets.len(), counts }
    }

    /// Takes back everything written since `mark`.
    pub fn back_to(&mut self, mark: &Mark) {
        self.octets.truncate(mark.len);
        self.octets[4..HEADER_LEN].copy_from_slice(&mark.counts);
        self.suffixes.retain(|(_, at)| usize::from(*at) < mark.len);
    }

    pub fn set_flags(&mut self, flags: u16) {
        self.octets[2..4].copy_from_slice(&flags.to_be_bytes());
    }

    pub fn question(&mut self, name: &Name, rtype: Type, class: u16) {
        self.name(name);
        self.octets.extend(rtype.0.to_be_bytes());
        self.octets.extend(class.to_be_bytes());
        self.count(0);
    }

    /// A question section copied octet by octet, so that its spelling is kept.
    pub fn raw_question(&mut self, name: &Name, octets: &[u8]) {
        let start = self.octets.len();
        self.octets.extend_from_slice(octets);
        self.remember(name, start, name.labels().count());
        self.count(0);
    }

    /// A record in `section`: 1 to 3, as in [`Header::counts`].
    pub fn record(
        &mut self,
        section: usize,
        (owner, rtype, class): (&Name, Type, u16),
        ttl: Ttl,
        rdata: Option<&Rdata>,
    ) {
        self.name(owner);
        self.octets.extend(rtype.0.to_be_bytes());
        self.octets.extend(class.to_be_bytes());
        self.octets.extend(ttl.secs().to_be_bytes());
        let length_at = self.octets.len();
        self.octets.extend([0; 2]);
        if let Some(rdata) = rdata {
            rdata.write(&mut self.octets);
        }
        let length = (self.octets.len() - length_at - 2) as u16; // Rdata of ours fits a record.
        self.octets[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        self.count(section);
    }

    /// A record in `section` copied octet by octet: without a name that points elsewhere.
    pub fn raw_record(&mut self, section: usize, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
        self.count(section);
    }

    pub fn finish(self) -> Vec<u8> {
        self.octets
    }

    fn count(&mut self, section: usize) {
        let at = 4 + 2 * section;
        let count = u16::from_be_bytes([self.octets[at], self.octets[at + 1]]) + 1;
        self.octets[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }

    fn name(&mut self, name: &Name) {
        let stored = name.stored();
        let known = self
            .suffixes
            .iter()
            .rev()
            .find(|(len, _)| stored.len() >= *len && stored[..*len] == self.last[..*len])
            .copied();
        let start = self.octets.len();
        let (shared, pointer) = known.map_or((0, None), |(len, at)| (len, Some(at)));
        let fresh = stored[shared..].iter().filter(|octet| **octet == 0).count();
        for label in name.labels().take(fresh) {
            self.octets.push(label.len() as u8); // At most 63.
            self.octets.extend_from_slice(&label);
        }
        match pointer {
            Some(at) => self.octets.extend((0xc000 | at).to_be_bytes()),
            None => self.octets.push(0),
        }
        self.remember(name, start, fresh);
    }

    /// Notes where the `fresh` first labels of `name` stand, beginning at `start`.
    fn remember(&mut self, name: &Name, start: usize, fresh: usize) {
        let stored = name.stored();
        let fresh_from = {
            let mut ends = stored.iter().enumerate().rev().filter(|(_, octet)| **octet == 0);
            ends.nth(fresh).map_or(0, |(at, _)| at + 1)
        };
        self.suffixes.retain(|(len, _)| *len <= fresh_from);
        let (mut at, mut len) = (start, stored.len());
        let mut found: Vec<(usize, u16)> = Vec::with_capacity(fresh);
        for label in name.labels().take(fresh) {
            if at < 0x4000 {
                found.push((len, at as u16));
            }
            at += label.len() + 1;
            len -= 1 + label.iter().map(|octet| 1 + usize::from(*octet < 2)).sum::<usize>();
        }
        self.suffixes.extend(found.into_iter().rev());
        self.last.clear();
        self.last.extend_from_slice(stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Message;
    use hickory_proto::serialize::binary::BinDecodable;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn written(owners: &[Name]) -> Vec<u8> {
        let mut writer = Writer::new(7, Header::QR);
        writer.question(&name("mesos"), Type::SOA, CLASS_IN);
        for owner in owners {
            let rdata = Rdata::A(Ipv4Addr::LOCALHOST);
            writer.record(1, (owner, Type::A, CLASS_IN), Ttl::from_secs(60), Some(&rdata));
        }
        writer.finish()
    }

    fn owners_read(message: &[u8]) -> Vec<Name> {
        let (header, mut reader) = Reader::behind_question(message).unwrap();
        (0..header.counts[1]).map(|_| reader.record().unwrap().owner).collect()
    }

    #[test]
    fn neighbours_share_their_endings() {
        let owners = [name("a.marathon.mesos"), name("b.marathon.mesos"), name("mesos")];
        let message = written(&owners);
        assert_eq!(owners_read(&message), owners);
        // Header, question, then 2 labels and a pointer, 1 label and a pointer, a pointer.
        assert_eq!(message.len(), 12 + 11 + (2 + 9 + 2 + 14) + (2 + 2 + 14) + (2 + 14));
    }

    #[test]
    fn what_was_taken_back_is_never_pointed_at() {
        let mut writer = Writer::new(7, 0);
        writer.question(&name("mesos"), Type::SOA, CLASS_IN);
        let mark = writer.mark();
        writer.record(1, (&name("a.b.mesos"), Type::A, CLASS_ANY), Ttl::ZERO, None);
        writer.back_to(&mark);
        writer.record(1, (&name("c.b.mesos"), Type::A, CLASS_ANY), Ttl::ZERO, None);
        assert_eq!(owners_read(&writer.finish()), [name("c.b.mesos")]);
    }

    #[test]
    fn pointers_that_loop_are_refused() {
        let looping = [&[0; 12][..], &[0xc0, 12]].concat();
        let mut reader = Reader { message: &looping, at: 12 };
        assert_eq!(reader.name(), Err(WireError::Pointer));
    }

    #[test]
    fn a_row_of_pointers_is_as_long_as_a_name_can_be() {
        // An empty name, then each pointer at the one before it.
        let row: Vec<u8> = (0..200_u16).flat_map(|at| (0xc000 | (2 * at)).to_be_bytes()).collect();
        let row = [&[0, 0][..], &row].concat();
        let read = |pointers: usize| Reader { message: &row, at: 2 * pointers }.name();
        assert_eq!(read(127), Ok(Name::root()));
        assert_eq!(read(128), Err(WireError::Pointer));
    }

    fn some_name() -> impl Strategy<Value = Name> {
        prop::collection::vec("[a-c]{1,3}", 0..6)
            .prop_map(|labels| labels.join(".").parse().unwrap_or_else(|_| Name::root()))
    }

    proptest! {
        #[test]
        fn hickory_reads_the_names_we_write(owners in prop::collection::vec(some_name(), 0..40)) {
            let message = written(&owners);
            prop_assert_eq!(owners_read(&message), owners.clone());
            let theirs = Message::from_bytes(&message).unwrap();
            let read: Vec<String> = theirs.answers.iter().map(|r| r.name.to_ascii()).collect();
            let ours: Vec<String> = owners.iter().map(Name::to_string).collect();
            prop_assert_eq!(read, ours);
        }

        #[test]
        fn no_octets_panic_the_reader(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((header, mut reader)) = Reader::behind_question(&octets) {
                for _ in 0..header.counts[1] {
                    let Ok(record) = reader.record() else { break };
                    let _read = (record.rdata(), record.target(), record.soa_serial());
                }
            }
        }
    }
}
