//! Answering a query from the zones as served: octets in, octets out, and nothing allocated.
//!
//! Every name at and below an apex is answered with authority. The zones hold no CNAME, no
//! delegation and no wildcard, so an answer is one RRset or none. A name stands in an answer once:
//! the owner is the question's name, a host that SRV or NS data names is pointed at where it is.

use std::fmt;
use std::net::IpAddr;

use crate::cookie::{self, Cookie, Secrets};
use crate::name::{LABEL_MAX, NAME_MAX, Name, Octets};
use crate::rr::{Rdata, Rrset, Ttl, Type};
use crate::served::{Answers, Certainty, Hosted, Served};
use crate::wire::{
    CLASS_IN, HEADER_LEN, Header, MESSAGE_MAX, OPCODE_QUERY, Rcode, Reader, WireError,
};

/// The most octets over UDP for who says nothing of it, RFC 1035, section 2.3.4.
pub(crate) const UDP_MIN: u16 = 512;
/// The most octets over UDP for anyone, and what we say we take: what passes networks unfragmented.
pub(crate) const UDP_MAX: u16 = 1232;
/// The DO bit among the flags of an OPT record, RFC 6891, section 6.1.4.
pub(crate) const DNSSEC_OK: u32 = 0x8000;
/// The highest place in a message that a compression pointer reaches.
const POINTER_MAX: usize = 0x3fff;
/// A name of 255 octets has no more labels.
const LABELS_MAX: usize = NAME_MAX / 2;

/// The addresses of more hosts are asked for one by one, should anybody want them.
const HOSTS_MAX: usize = 32;

const ANSWER: usize = 1;
const AUTHORITY: usize = 2;
const ADDITIONAL: usize = 3;

/// What a query came over, and its answer will go over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    /// The most octets of an answer to a client that takes so many; none: it has no EDNS.
    pub(crate) fn octets_max(self, udp_size: Option<u16>) -> usize {
        match self {
            Transport::Tcp => MESSAGE_MAX,
            Transport::Udp => udp_size.map_or(UDP_MIN, |size| size.clamp(UDP_MIN, UDP_MAX)).into(),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        })
    }
}

/// Whether who asks is told that names elsewhere are asked for as well: the RA bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recursion {
    Available,
    Refused,
}

/// What an answer depends on, beside the question and the zones.
#[derive(Clone, Copy)]
pub struct Circumstances<'c> {
    pub client: IpAddr,
    pub transport: Transport,
    /// What makes cookies, and the time for them, in seconds of Unix time; none: there are none.
    pub cookies: Option<(&'c Secrets, u32)>,
    /// Chooses which record of an RRset comes first.
    pub random: u64,
    pub recursion: Recursion,
    /// Octets of the message that are left free for a signature.
    pub reserved: usize,
}

/// Whether the client's address is its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// It showed a cookie that it got there.
    Proven,
    Claimed,
}

/// What is to be done with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is no message, or itself an answer.
    Silence,
    /// What was written is the answer.
    Answer,
    /// It asks for a name of none of our zones. What was written refuses it.
    Elsewhere,
    /// It asks for a zone of ours, whole or its differences. What was written refuses it.
    Transfer,
    /// It ends in a signature. Nothing was written: it is to be answered as what was signed.
    Signed,
}

/// What was made of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered {
    pub verdict: Verdict,
    pub identity: Identity,
    /// The data of the cookie that the client is to show the next time.
    pub cookie: Option<[u8; cookie::ANSWER_LEN]>,
}

impl Answered {
    /// Without a word about the client.
    fn unknown(verdict: Verdict) -> Answered {
        Answered { verdict, identity: Identity::Claimed, cookie: None }
    }
}

/// Writes the answer to a request, in place of whatever `reply` held.
pub fn answer(
    served: &Served,
    request: &[u8],
    circumstances: &Circumstances<'_>,
    reply: &mut Vec<u8>,
) -> Answered {
    let header = Header::parse(request).ok().filter(|header| !header.is_response());
    let Some(header) = header else { return Answered::unknown(Verdict::Silence) };
    let asked = Asked::read(&header, request);
    let edns = asked.as_ref().ok().and_then(|asked| asked.edns);
    if asked.as_ref().is_ok_and(|asked| asked.ending == Ending::Signature) {
        reply.clear();
        return Answered::unknown(Verdict::Signed);
    }
    let mut reply = Reply::new(&header, edns, circumstances, reply);
    let (identity, cookie) = (reply.identity, reply.cookie);
    let answered = |verdict| Answered { verdict, identity, cookie };
    if header.opcode() != OPCODE_QUERY {
        reply.finish(Rcode::NOTIMP);
        return answered(Verdict::Answer);
    }
    let Some(question) = asked.ok().and_then(|asked| asked.question) else {
        reply.finish(Rcode::FORMERR);
        return answered(Verdict::Answer);
    };
    reply.question(&question);
    let (rcode, verdict) = match edns {
        Some(edns) if edns.version > 0 => (Rcode::BADVERS, Verdict::Answer),
        _ => reply.respond(served, &question),
    };
    reply.finish(rcode);
    answered(verdict)
}

/// Makes of an answer one that is cut short before its first record, so that who asked comes again
/// over TCP.
pub fn cut_short(reply: &mut Vec<u8>) {
    let Ok((header, behind)) = Reader::behind_question(reply) else { return };
    let flags = header.flags | Header::TC;
    let end = behind.position();
    reply.truncate(end);
    reply[2..4].copy_from_slice(&flags.to_be_bytes());
    reply[6..HEADER_LEN].fill(0);
}

/// What of a request an answer depends on, its header aside.
struct Asked<'m> {
    /// None unless there is exactly one.
    question: Option<Question<'m>>,
    edns: Option<Edns>,
    ending: Ending,
}

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Plain,
    /// A TSIG record, RFC 8945, which can stand nowhere else.
    Signature,
}

struct Question<'m> {
    name: Octets,
    rtype: Type,
    class: u16,
    /// As it was spelled.
    octets: &'m [u8],
}

/// What a request's OPT record says, RFC 6891, section 6.1.
#[derive(Clone, Copy)]
struct Edns {
    udp_size: u16,
    version: u8,
    /// [`DNSSEC_OK`] or zero.
    dnssec_ok: u32,
    cookie: Option<Cookie>,
}

/// A request that earns FORMERR.
struct Malformed;

impl From<WireError> for Malformed {
    fn from(_: WireError) -> Malformed {
        Malformed
    }
}

impl<'m> Asked<'m> {
    fn read(header: &Header, message: &'m [u8]) -> Result<Asked<'m>, Malformed> {
        let (_, mut reader) = Reader::behind_question(message)?;
        let octets = &message[HEADER_LEN..reader.position()];
        let question = (header.counts[0] == 1).then(|| Question::read(octets)).transpose()?;
        let [_, answers, authorities, additionals] = header.counts.map(usize::from);
        let (mut edns, mut ending) = (None, Ending::Plain);
        let count = answers + authorities + additionals;
        for index in 0..count {
            let record = reader.clone();
            match reader.skip_record()? {
                Type::OPT => {}
                Type::TSIG if additionals > 0 && index + 1 == count => {
                    ending = Ending::Signature;
                    continue;
                }
                Type::TSIG => return Err(Malformed),
                _ => continue,
            }
            if edns.is_some() || index < answers + authorities {
                return Err(Malformed);
            }
            edns = Some(Edns::read(record)?);
        }
        Ok(Asked { question, edns, ending })
    }
}

impl<'m> Question<'m> {
    /// Reads from the question's own octets, so that a name which points elsewhere is refused:
    /// it could not be echoed.
    fn read(octets: &'m [u8]) -> Result<Question<'m>, Malformed> {
        // Where each label begins, by its length.
        let (mut starts, mut count) = ([0_u8; LABELS_MAX], 0);
        let mut reader = Reader::new(octets);
        loop {
            let start = reader.position();
            let length = usize::from(reader.take(1)?[0]);
            if length == 0 {
                break;
            }
            if length > LABEL_MAX || count == LABELS_MAX || start > NAME_MAX {
                return Err(Malformed);
            }
            starts[count] = start as u8; // NAME_MAX.
            count += 1;
            reader.take(length)?;
        }
        let label = |start: &u8| {
            let start = usize::from(*start);
            &octets[start + 1..start + 1 + usize::from(octets[start])]
        };
        let name = Octets::from_wire_labels(starts[..count].iter().map(label));
        let name = name.map_err(|_| Malformed)?;
        let (rtype, class) = (Type(reader.u16()?), reader.u16()?);
        Ok(Question { name, rtype, class, octets })
    }
}

impl Edns {
    fn read(mut record: Reader<'_>) -> Result<Edns, Malformed> {
        let owner_and_type = record.take(3)?;
        if owner_and_type[0] != 0 {
            return Err(Malformed);
        }
        let (udp_size, word, len) = (record.u16()?, record.u32()?, record.u16()?);
        let cookie = cookie::read(record.take(usize::from(len))?).map_err(|_| Malformed)?;
        let version = (word >> 16) as u8;
        Ok(Edns { udp_size, version, dnssec_ok: word & DNSSEC_OK, cookie })
    }

    /// The octets of an OPT record without options.
    const LEN: usize = 11;
}

/// Appends our OPT record, `word` in place of a TTL: extended code, version and flags.
pub(crate) fn write_opt(
    octets: &mut Vec<u8>,
    word: u32,
    cookie: Option<&[u8; cookie::ANSWER_LEN]>,
) {
    octets.push(0);
    octets.extend(Type::OPT.0.to_be_bytes());
    octets.extend(UDP_MAX.to_be_bytes());
    octets.extend(word.to_be_bytes());
    let data_len = cookie.map_or(0, |_| cookie::OPTION_LEN as u16);
    octets.extend(data_len.to_be_bytes());
    if let Some(cookie) = cookie {
        cookie::write(octets, cookie);
    }
}

/// The owner of a record in an answer.
#[derive(Clone, Copy)]
enum Owner<'n> {
    /// It stands in the message already, within reach of a pointer.
    At(usize),
    Spelled(&'n Name),
}

/// An answer being written.
struct Reply<'r> {
    octets: &'r mut Vec<u8>,
    flags: u16,
    counts: [u16; 4],
    edns: Option<Edns>,
    /// The data of the cookie that the client is to show the next time.
    cookie: Option<[u8; cookie::ANSWER_LEN]>,
    identity: Identity,
    random: u64,
    /// The most octets before the OPT record.
    room: usize,
}

impl<'r> Reply<'r> {
    fn new(
        header: &Header,
        edns: Option<Edns>,
        circumstances: &Circumstances<'_>,
        octets: &'r mut Vec<u8>,
    ) -> Reply<'r> {
        let available = match circumstances.recursion {
            Recursion::Available => Header::RA,
            Recursion::Refused => 0,
        };
        let flags =
            Header::QR | header.flags & (Header::OPCODE | Header::RD | Header::CD) | available;
        let message_max = circumstances.transport.octets_max(edns.map(|edns| edns.udp_size));
        let shown = edns.and_then(|edns| edns.cookie).zip(circumstances.cookies);
        let client = circumstances.client;
        let identity = match shown {
            Some((cookie, (secrets, now))) if secrets.is_valid(&cookie, client, now) => {
                Identity::Proven
            }
            _ => Identity::Claimed,
        };
        let cookie =
            shown.map(|(cookie, (secrets, now))| secrets.answer_option(&cookie, client, now));
        let opt_len = edns.map_or(0, |_| Edns::LEN) + cookie.map_or(0, |_| cookie::OPTION_LEN);
        let room = message_max - circumstances.reserved - opt_len;
        octets.clear();
        octets.extend(header.id.to_be_bytes());
        octets.extend([0; HEADER_LEN - 2]);
        let random = circumstances.random;
        Reply { octets, flags, counts: [0; 4], edns, cookie, identity, random, room }
    }

    fn question(&mut self, question: &Question<'_>) {
        self.octets.extend_from_slice(question.octets);
        self.counts[0] = 1;
    }

    /// Writes the answer's sections and says its code.
    fn respond(&mut self, served: &Served, question: &Question<'_>) -> (Rcode, Verdict) {
        let Some(zone) = served.zone_of(question.name.stored()) else {
            return (Rcode::REFUSED, Verdict::Elsewhere);
        };
        if question.class != CLASS_IN {
            return (Rcode::REFUSED, Verdict::Answer);
        }
        if matches!(question.rtype, Type::AXFR | Type::IXFR) {
            return (Rcode::REFUSED, Verdict::Transfer);
        }
        let rcode = match zone.answers() {
            Some(answers) => self.within(zone, &answers, question),
            None => Rcode::SERVFAIL,
        };
        (rcode, Verdict::Answer)
    }

    fn within(&mut self, zone: &Hosted, answers: &Answers<'_>, asked: &Question<'_>) -> Rcode {
        let entry = answers.index.get(asked.name.stored());
        // Of ANY one RRset that the name has, RFC 8482, section 4.1.
        let found = entry.and_then(|entry| match asked.rtype {
            Type::ANY => entry.first(),
            rtype => entry.get(rtype).map(|set| (rtype, set)),
        });
        if let Some(found) = found {
            self.positive(found, answers);
            return Rcode::NOERROR;
        }
        if answers.certainty == Certainty::Partial {
            return Rcode::SERVFAIL;
        }
        self.flags |= Header::AA;
        // The apex is the end of the question's name.
        let apex = Owner::At(HEADER_LEN + asked.name.wire_len() - zone.apex().wire_len());
        if !self.rrset(AUTHORITY, (apex, Type::SOA), answers.denial, 0) {
            self.flags |= Header::TC;
        }
        if entry.is_some() { Rcode::NOERROR } else { Rcode::NXDOMAIN }
    }

    /// One RRset. Only where all of it fits are other names' addresses worth the room.
    fn positive(&mut self, (rtype, rrset): (Type, &Rrset), answers: &Answers<'_>) {
        self.flags |= Header::AA;
        let start = self.octets.len();
        if !self.rrset(ANSWER, (Owner::At(HEADER_LEN), rtype), rrset, self.random) {
            self.flags |= Header::TC;
        } else if matches!(rtype, Type::SRV | Type::NS) {
            self.addresses(start, rrset, answers);
        }
    }

    /// The addresses of the names in an RRset that was written from `start` on, each name once,
    /// until one does not fit.
    fn addresses(&mut self, start: usize, rrset: &Rrset, answers: &Answers<'_>) {
        // Pointer, type, class, TTL and length, then for SRV three numbers.
        const FIXED: usize = 12;
        const NUMBERS: usize = 6;
        let mut at = start;
        for (place, rdata) in rotated(rrset, self.random).enumerate().take(HOSTS_MAX) {
            let (name, numbers) = match rdata {
                Rdata::Srv { target, .. } => (target, NUMBERS),
                Rdata::Ptr(target) => (target, 0),
                Rdata::A(_) | Rdata::Aaaa(_) | Rdata::Other(_) => continue,
            };
            let here = at + FIXED + numbers;
            at = here + name.wire_len();
            let owner = if here <= POINTER_MAX { Owner::At(here) } else { Owner::Spelled(name) };
            let mut before = rotated(rrset, self.random).take(place).filter_map(target);
            if before.any(|earlier| earlier == name) {
                continue;
            }
            let Some(entry) = answers.index.get(name.stored()) else { continue };
            for rtype in [Type::A, Type::AAAA] {
                let Some(found) = entry.get(rtype) else { continue };
                let (len, counts) = (self.octets.len(), self.counts);
                if !self.rrset(ADDITIONAL, (owner, rtype), found, self.random) {
                    self.octets.truncate(len);
                    self.counts = counts;
                    return;
                }
            }
        }
    }

    /// Writes as many records as fit, and says whether that was all.
    fn rrset(
        &mut self,
        section: usize,
        (owner, rtype): (Owner<'_>, Type),
        rrset: &Rrset,
        random: u64,
    ) -> bool {
        for rdata in rotated(rrset, random) {
            let len = self.octets.len();
            self.record((owner, rtype), rrset.ttl(), rdata);
            if self.octets.len() > self.room {
                self.octets.truncate(len);
                return false;
            }
            self.counts[section] += 1;
        }
        true
    }

    fn record(&mut self, (owner, rtype): (Owner<'_>, Type), ttl: Ttl, rdata: &Rdata) {
        match owner {
            Owner::At(at) => self.octets.extend((0xc000 | at as u16).to_be_bytes()), // POINTER_MAX.
            Owner::Spelled(name) => name.write(self.octets),
        }
        self.octets.extend(rtype.0.to_be_bytes());
        self.octets.extend(CLASS_IN.to_be_bytes());
        self.octets.extend(ttl.secs().to_be_bytes());
        let length_at = self.octets.len();
        self.octets.extend([0; 2]);
        rdata.write(self.octets);
        let length = (self.octets.len() - length_at - 2) as u16; // Rdata of ours fits a record.
        self.octets[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    fn finish(mut self, rcode: Rcode) {
        if let Some(edns) = self.edns {
            let word = u32::from(rcode.0 >> 4) << 24 | edns.dnssec_ok;
            write_opt(self.octets, word, self.cookie.as_ref());
            self.counts[ADDITIONAL] += 1;
        }
        let flags = self.flags | rcode.0 & 0xf;
        self.octets[2..4].copy_from_slice(&flags.to_be_bytes());
        for (place, count) in self.counts.iter().enumerate() {
            self.octets[4 + 2 * place..6 + 2 * place].copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// The data of an RRset, begun at a place that `random` chooses.
fn rotated(rrset: &Rrset, random: u64) -> impl Iterator<Item = &Rdata> {
    let (before, after) = rrset.rdata().split_at((random % rrset.rdata().len() as u64) as usize);
    after.iter().chain(before)
}

/// The host that SRV or NS data names.
fn target(rdata: &Rdata) -> Option<&Name> {
    match rdata {
        Rdata::Srv { target, .. } | Rdata::Ptr(target) => Some(target),
        Rdata::A(_) | Rdata::Aaaa(_) | Rdata::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::rr::Serial;
    use crate::served::Authority;
    use crate::zone::{Key, Zone};
    use hickory_proto::op::Message;
    use hickory_proto::rr::Record;
    use hickory_proto::serialize::binary::BinDecodable;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn authority() -> Authority {
        let [refresh, retry, expire, negative_ttl, ttl] =
            [60, 600, 86400, 10, 30].map(Ttl::from_secs);
        let servers = vec![
            (name("ns1.mesos"), vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]),
            (name("ns.example"), vec!["192.0.2.9".parse().unwrap()]),
        ];
        let (apex, rname) = (name("mesos"), name("root.ns1.mesos"));
        Authority { apex, servers, rname, refresh, retry, expire, negative_ttl, ttl }
    }

    fn a(last: usize) -> Rdata {
        Rdata::A([10, 1, (last >> 8) as u8, last as u8].into())
    }

    fn srv(port: u16, target: &str) -> Rdata {
        Rdata::Srv { priority: 0, weight: 1, port, target: name(target) }
    }

    fn published() -> Zone {
        let set = |owner: &str, rtype, rdata: Vec<Rdata>| {
            let key = Key { name: name(owner), rtype };
            (key, Rrset::new(Ttl::from_secs(60), rdata).unwrap())
        };
        let host = |n: usize| format!("host{n}.hosts.mesos");
        let all_hosts = |count: usize| (0..count).map(|n| srv(n as u16, &host(n))).collect();
        let hosts = (0..20).map(|n| set(&host(n), Type::A, vec![a(n)]));
        let others = [
            set("web.mesos", Type::A, vec![a(1)]),
            set("web.mesos", Type::AAAA, vec![Rdata::Aaaa("fd00::1".parse().unwrap())]),
            set("three.mesos", Type::A, vec![a(1), a(2), a(3)]),
            set("_web._tcp.mesos", Type::SRV, vec![srv(80, "web.mesos"), srv(81, "web.mesos")]),
            set("_out._tcp.mesos", Type::SRV, vec![srv(80, "web.example")]),
            set("_ten._tcp.mesos", Type::SRV, all_hosts(10)),
            set("_twenty._tcp.mesos", Type::SRV, all_hosts(20)),
            set("huge.mesos", Type::A, (0..5000).map(a).collect()),
            set("*.mesos", Type::A, vec![a(9)]),
            set("ns1.mesos", Type::A, vec![a(8)]),
        ];
        hosts.chain(others).collect()
    }

    fn served_as(certainty: Certainty) -> Served {
        let mut zone = Hosted::nothing(Arc::new(authority()));
        zone.follow(published(), certainty, Serial(7));
        Served::of(vec![zone])
    }

    fn served() -> Served {
        served_as(Certainty::Whole)
    }

    fn circumstances(transport: Transport, random: u64, reserved: usize) -> Circumstances<'static> {
        let (client, recursion) = ([192, 0, 2, 1].into(), Recursion::Refused);
        Circumstances { client, transport, cookies: None, random, recursion, reserved }
    }

    /// The answer's octets, none where silence is due.
    fn answer(
        served: &Served,
        request: &[u8],
        transport: Transport,
        random: u64,
    ) -> Option<Vec<u8>> {
        let circumstances = circumstances(transport, random, 0);
        let mut reply = vec![7; 3];
        let verdict = super::answer(served, request, &circumstances, &mut reply).verdict;
        (verdict != Verdict::Silence).then_some(reply)
    }

    /// A query whose spelling is kept, with id 0x1234 and RD.
    fn query(owner: &str, rtype: Type) -> Vec<u8> {
        let mut octets = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in owner.split('.').filter(|label| !label.is_empty()) {
            octets.push(label.len() as u8);
            octets.extend(label.bytes());
        }
        octets.push(0);
        octets.extend(rtype.0.to_be_bytes());
        octets.extend(CLASS_IN.to_be_bytes());
        octets
    }

    fn with(mut request: Vec<u8>, at: usize, octets: &[u8]) -> Vec<u8> {
        request[at..at + octets.len()].copy_from_slice(octets);
        request
    }

    /// The request with an OPT record of this size, version and flags.
    fn with_opt(mut request: Vec<u8>, size: u16, version: u8, flags: u16) -> Vec<u8> {
        request[11] += 1;
        request.extend([0, 0, 41]);
        request.extend(size.to_be_bytes());
        request.extend([0, version]);
        request.extend(flags.to_be_bytes());
        request.extend([0, 0]);
        request
    }

    fn reply(request: &[u8], transport: Transport) -> Message {
        let octets = answer(&served(), request, transport, 0).unwrap();
        Message::from_bytes(&octets).unwrap()
    }

    fn section(records: &[Record]) -> String {
        let shown = records
            .iter()
            .map(|r| format!("{} {} {} {}", r.name.to_ascii(), r.ttl, r.record_type(), r.data));
        shown.collect::<Vec<String>>().join(", ")
    }

    /// The code, AA and TC, then the sections that are not empty, each behind its letter.
    fn shown(message: &Message) -> String {
        let code = u16::from(message.metadata.response_code);
        let mut text = format!("{:?}", Rcode(code));
        let flags = [(message.metadata.authoritative, " aa"), (message.metadata.truncation, " tc")];
        text.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag));
        let sections = [&message.answers, &message.authorities, &message.additionals];
        for (letter, records) in ["AN", "NS", "AR"].iter().zip(sections) {
            if !records.is_empty() {
                text += &format!("; {letter} {}", section(records));
            }
        }
        text
    }

    #[track_caller]
    fn check(owner: &str, rtype: Type, expected: &str) {
        assert_eq!(shown(&reply(&query(owner, rtype), Transport::Udp)), expected);
    }

    #[track_caller]
    fn check_octets(request: &[u8], expected: &str) {
        assert_eq!(shown(&reply(request, Transport::Tcp)), expected);
    }

    const SOA: &str = "SOA ns1.mesos. root.ns1.mesos. 7 60 600 86400 10";

    #[test]
    fn what_exists_is_answered_with_authority() {
        check("web.mesos", Type::A, "NOERROR aa; AN web.mesos. 60 A 10.1.0.1");
        check("web.mesos", Type::AAAA, "NOERROR aa; AN web.mesos. 60 AAAA fd00::1");
        check("mesos", Type::SOA, &format!("NOERROR aa; AN mesos. 30 {SOA}"));
        check("ns1.mesos", Type::A, "NOERROR aa; AN ns1.mesos. 30 A 10.0.0.2");
    }

    #[test]
    fn ns_and_srv_bring_each_hosts_addresses_once() {
        let servers = "AN mesos. 30 NS ns.example., mesos. 30 NS ns1.mesos.";
        let addresses = "AR ns1.mesos. 30 A 10.0.0.2, ns1.mesos. 30 AAAA fd00::2";
        check("mesos", Type::NS, &format!("NOERROR aa; {servers}; {addresses}"));
        let owner = "_web._tcp.mesos.";
        let ports = format!("{owner} 60 SRV 0 1 80 web.mesos., {owner} 60 SRV 0 1 81 web.mesos.");
        let addresses = "AR web.mesos. 60 A 10.1.0.1, web.mesos. 60 AAAA fd00::1";
        check(owner, Type::SRV, &format!("NOERROR aa; AN {ports}; {addresses}"));
        let outside = "NOERROR aa; AN _out._tcp.mesos. 60 SRV 0 1 80 web.example.";
        check("_out._tcp.mesos", Type::SRV, outside);
    }

    #[test]
    fn what_does_not_exist_is_denied_with_the_soa() {
        let missing = format!("NXDOMAIN aa; NS mesos. 10 {SOA}");
        check("no.mesos", Type::A, &missing);
        check("no.web.mesos", Type::A, &missing);
        check("tcp.mesos", Type::SRV, &missing);
        check("no.mesos", Type::DS, &missing);
    }

    #[test]
    fn a_name_without_the_type_has_no_data() {
        let empty = format!("NOERROR aa; NS mesos. 10 {SOA}");
        check("web.mesos", Type::TXT, &empty);
        check("web.mesos", Type(65280), &empty);
        check("web.mesos", Type::DS, &empty);
        check("_tcp.mesos", Type::A, &empty);
        check("hosts.mesos", Type::ANY, &empty);
        check("mesos", Type::A, &empty);
        check("mesos", Type::DS, &empty);
        check("mesos", Type::CNAME, &empty);
    }

    #[test]
    fn any_is_one_rrset() {
        check("web.mesos", Type::ANY, "NOERROR aa; AN web.mesos. 60 A 10.1.0.1");
    }

    #[test]
    fn an_asterisk_stands_for_itself() {
        check("*.mesos", Type::A, "NOERROR aa; AN *.mesos. 60 A 10.1.0.9");
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        check("example", Type::A, "REFUSED");
        check("xmesos", Type::A, "REFUSED");
        check("", Type::NS, "REFUSED");
        check("mesos", Type::AXFR, "REFUSED");
        check_octets(&query("mesos", Type::AXFR), "REFUSED");
        check_octets(&query("mesos", Type::IXFR), "REFUSED");
        let classed = |class| with(query("web.mesos", Type::A), 12 + 11 + 2, &[0, class]);
        check_octets(&classed(3), "REFUSED");
        check_octets(&classed(255), "REFUSED");
    }

    #[test]
    fn only_queries_are_implemented() {
        for opcode in 1..16 {
            check_octets(&with(query("web.mesos", Type::A), 2, &[opcode << 3]), "NOTIMP");
        }
        let notify = with(with_opt(query("mesos", Type::SOA), 1232, 0, 0), 2, &[4 << 3]);
        assert!(reply(&notify, Transport::Udp).edns.is_some());
    }

    #[test]
    fn what_is_malformed_is_said_to_be() {
        let asked = query("web.mesos", Type::A);
        check_octets(&with(asked.clone(), 5, &[0]), "FORMERR");
        check_octets(&with([&asked[..], &asked[12..]].concat(), 5, &[2]), "FORMERR");
        check_octets(&asked[..asked.len() - 1], "FORMERR");
        check_octets(&asked[..12], "FORMERR");
        check_octets(&with(asked.clone(), 12, &[0xc0, 0]), "FORMERR");
        let opt = with_opt(asked.clone(), 1232, 0, 0);
        check_octets(&with_opt(opt.clone(), 1232, 0, 0), "FORMERR");
        check_octets(&with(opt.clone(), 6, &[0, 1, 0, 0, 0, 0]), "FORMERR");
        check_octets(&with([&opt[..], &[0, 10, 0]].concat(), opt.len() - 1, &[3]), "FORMERR");
    }

    #[test]
    fn answers_and_fragments_meet_silence() {
        let asked = query("web.mesos", Type::A);
        assert_eq!(answer(&served(), &with(asked.clone(), 2, &[0x80]), Transport::Udp, 0), None);
        assert_eq!(answer(&served(), &asked[..11], Transport::Udp, 0), None);
    }

    #[test]
    fn the_questions_spelling_comes_back() {
        let asked = query("WeB.mEsOs", Type::A);
        let octets = answer(&served(), &asked, Transport::Udp, 0).unwrap();
        assert_eq!(octets[12..asked.len()], asked[12..]);
        assert_eq!(octets[asked.len()..][..2], [0xc0, 12]);
        check("WeB.mEsOs", Type::A, "NOERROR aa; AN WeB.mEsOs. 60 A 10.1.0.1");
    }

    #[test]
    fn rd_and_cd_are_copied_and_nothing_else() {
        let flags = |asked: u16| {
            let asked = with(query("web.mesos", Type::A), 2, &asked.to_be_bytes());
            Header::parse(&answer(&served(), &asked, Transport::Udp, 0).unwrap()).unwrap().flags
        };
        assert_eq!(flags(0), Header::QR | Header::AA);
        assert_eq!(flags(0x07ff), Header::QR | Header::AA | Header::RD | Header::CD);
    }

    #[test]
    fn an_opt_record_is_answered_by_one() {
        let asked = query("web.mesos", Type::A);
        assert!(reply(&asked, Transport::Udp).edns.is_none());
        let opt = |size, version, flags| {
            let message = reply(&with_opt(asked.clone(), size, version, flags), Transport::Udp);
            let edns = message.edns.clone().unwrap();
            let dnssec_ok = edns.flags().dnssec_ok;
            (edns.max_payload(), edns.version(), dnssec_ok, shown(&message))
        };
        let found = "NOERROR aa; AN web.mesos. 60 A 10.1.0.1".to_owned();
        assert_eq!(opt(4096, 0, 0x8000), (1232, 0, true, found.clone()));
        assert_eq!(opt(0, 0, 0), (1232, 0, false, found));
        assert_eq!(opt(1232, 1, 0), (1232, 0, false, "BADVERS".to_owned()));
    }

    /// Octets, answers, additionals and TC of the answer to an SRV query.
    #[track_caller]
    fn check_size(owner: &str, size: Option<u16>, transport: Transport, expected: [usize; 4]) {
        let asked = query(owner, Type::SRV);
        let asked = size.map_or(asked.clone(), |size| with_opt(asked, size, 0, 0));
        let octets = answer(&served(), &asked, transport, 0).unwrap();
        let message = Message::from_bytes(&octets).unwrap();
        let truncated = usize::from(message.metadata.truncation);
        let counts = [message.answers.len(), message.additionals.len(), truncated];
        assert_eq!([&[octets.len()], &counts[..]].concat(), expected);
    }

    #[test]
    fn an_answer_keeps_to_its_limit_and_additionals_never_truncate_it() {
        use Transport::{Tcp, Udp};
        // Of `_ten`: 33 octets to the question's end, 37 a record, 16 an address.
        check_size("_ten._tcp.mesos", None, Udp, [499, 10, 6, 0]);
        check_size("_ten._tcp.mesos", Some(4096), Udp, [574, 10, 10, 0]);
        check_size("_twenty._tcp.mesos", None, Udp, [482, 12, 0, 1]);
        check_size("_twenty._tcp.mesos", Some(600), Udp, [569, 14, 0, 1]);
        check_size("_twenty._tcp.mesos", Some(1104), Udp, [1101, 20, 19, 0]);
        check_size("_twenty._tcp.mesos", None, Tcp, [1106, 20, 20, 0]);
    }

    #[test]
    fn room_is_left_for_a_signature() {
        let octets = |reserved| {
            let circumstances = circumstances(Transport::Udp, 0, reserved);
            let mut reply = Vec::new();
            let asked = query("_twenty._tcp.mesos", Type::SRV);
            super::answer(&served(), &asked, &circumstances, &mut reply);
            reply.len()
        };
        assert_eq!([octets(0), octets(100)], [482, 406]);
    }

    #[test]
    fn an_rrset_beyond_a_message_is_shown_in_part_and_by_chance() {
        let first = |random| {
            let asked = query("huge.mesos", Type::A);
            let octets = answer(&served(), &asked, Transport::Tcp, random).unwrap();
            let message = Message::from_bytes(&octets).unwrap();
            assert!(message.metadata.truncation);
            assert_eq!(message.answers.len(), (MESSAGE_MAX - asked.len()) / 16);
            message.answers[0].data.to_string()
        };
        assert_eq!([first(0), first(4321)], ["10.1.0.0", "10.1.16.225"]);
    }

    #[test]
    fn chance_puts_each_record_first() {
        let asked = query("three.mesos", Type::A);
        let order = |random| {
            let octets = answer(&served(), &asked, Transport::Udp, random).unwrap();
            let last = |record: &Record| record.data.to_string().pop().unwrap();
            Message::from_bytes(&octets).unwrap().answers.iter().map(last).collect::<String>()
        };
        assert_eq!([0, 1, 2, u64::MAX].map(order), ["123", "231", "312", "123"]);
    }

    #[test]
    fn nothing_is_denied_before_a_whole_zone() {
        let nothing = Served::of(vec![Hosted::nothing(Arc::new(authority()))]);
        let partial = served_as(Certainty::Partial);
        let asked = |served: &Served, owner, rtype| {
            let octets = answer(served, &query(owner, rtype), Transport::Udp, 0).unwrap();
            shown(&Message::from_bytes(&octets).unwrap())
        };
        let found = "NOERROR aa; AN web.mesos. 60 A 10.1.0.1";
        assert_eq!(asked(&partial, "web.mesos", Type::A), found);
        assert_eq!(asked(&partial, "web.mesos", Type::TXT), "SERVFAIL");
        assert_eq!(asked(&partial, "no.mesos", Type::A), "SERVFAIL");
        assert_eq!(asked(&partial, "example", Type::A), "REFUSED");
        assert_eq!(asked(&nothing, "mesos", Type::SOA), "SERVFAIL");
        assert_eq!(asked(&nothing, "example", Type::A), "REFUSED");
    }

    #[track_caller]
    fn check_verdict(owner: &str, rtype: Type, expected: Verdict) {
        let (transport, recursion) = (Transport::Tcp, Recursion::Available);
        let circumstances = Circumstances { recursion, ..circumstances(transport, 0, 0) };
        let mut reply = Vec::new();
        let asked = query(owner, rtype);
        let Answered { verdict, .. } = super::answer(&served(), &asked, &circumstances, &mut reply);
        assert_eq!(verdict, expected);
        assert_eq!(Header::parse(&reply).unwrap().flags & Header::RA, Header::RA);
    }

    #[test]
    fn who_answers_is_said_with_the_answer() {
        check_verdict("web.mesos", Type::A, Verdict::Answer);
        check_verdict("no.mesos", Type::A, Verdict::Answer);
        check_verdict("example", Type::AXFR, Verdict::Elsewhere);
        check_verdict("mesos", Type::AXFR, Verdict::Transfer);
        check_verdict("mesos", Type::IXFR, Verdict::Transfer);
    }

    #[test]
    fn a_signature_ends_a_request_and_stands_nowhere_else() {
        let tsig = |mut request: Vec<u8>| {
            request[11] += 1;
            request.extend([0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
            request
        };
        let asked = query("web.mesos", Type::A);
        let signed = tsig(with_opt(asked.clone(), 1232, 0, 0));
        assert_eq!(answer(&served(), &signed, Transport::Udp, 0), Some(Vec::new()));
        check_octets(&with_opt(tsig(asked.clone()), 1232, 0, 0), "FORMERR");
        check_octets(&with(tsig(asked), 6, &[0, 1, 0, 0, 0, 0]), "FORMERR");
    }

    #[test]
    fn an_answer_cut_short_keeps_its_question() {
        let asked = with_opt(query("web.mesos", Type::A), 1232, 0, 0);
        let mut octets = answer(&served(), &asked, Transport::Udp, 0).unwrap();
        cut_short(&mut octets);
        assert_eq!(shown(&Message::from_bytes(&octets).unwrap()), "NOERROR aa tc");
        assert_eq!(octets[12..], asked[12..asked.len() - 11]);
    }

    #[test]
    fn the_nearest_zone_answers() {
        let hosted = |apex: &str| {
            let mut zone = Hosted::nothing(Arc::new(Authority { apex: name(apex), ..authority() }));
            zone.follow(Zone::default(), Certainty::Whole, Serial(7));
            zone
        };
        let served =
            Served::of(vec![hosted("mesos"), hosted("10.in-addr.arpa"), hosted("b.mesos")]);
        let soa_of = |owner: &str| {
            let octets = answer(&served, &query(owner, Type::TXT), Transport::Udp, 0).unwrap();
            let authorities = Message::from_bytes(&octets).unwrap().authorities;
            authorities.first().map(|soa| soa.name.to_ascii())
        };
        assert_eq!(soa_of("x.b.mesos").unwrap(), "b.mesos.");
        assert_eq!(soa_of("x.mesos").unwrap(), "mesos.");
        assert_eq!(soa_of("1.2.10.in-addr.arpa").unwrap(), "10.in-addr.arpa.");
        assert_eq!(soa_of("11.in-addr.arpa"), None);
    }

    #[test]
    fn who_shows_the_cookie_it_was_given_is_who_it_says() {
        let secrets = Secrets::new([7; 16]);
        let option = |data: &[u8]| {
            let mut asked = with_opt(query("web.mesos", Type::A), 1232, 0, 0);
            let end = asked.len() - 2;
            asked[end + 1] = 4 + data.len() as u8;
            asked.extend([0, 10, 0, data.len() as u8]);
            asked.extend(data);
            asked
        };
        let ask = |asked: &[u8], client: [u8; 4]| {
            let cookies = Some((&secrets, 1_000_000));
            let circumstances = circumstances(Transport::Udp, 0, 0);
            let circumstances = Circumstances { client: client.into(), cookies, ..circumstances };
            let mut reply = Vec::new();
            let answered = super::answer(&served(), asked, &circumstances, &mut reply);
            assert_eq!(answered.verdict, Verdict::Answer);
            (reply, answered.identity)
        };
        let (reply, identity) = ask(&option(b"sthlient"), [192, 0, 2, 1]);
        assert_eq!(identity, Identity::Claimed);
        let given = reply[reply.len() - cookie::ANSWER_LEN..].to_vec();
        assert!(given.starts_with(b"sthlient"), "{reply:?}");
        assert_eq!(
            shown(&Message::from_bytes(&reply).unwrap()),
            "NOERROR aa; AN web.mesos. 60 A 10.1.0.1"
        );
        assert_eq!(ask(&option(&given), [192, 0, 2, 1]).1, Identity::Proven);
        assert_eq!(ask(&option(&given), [192, 0, 2, 2]).1, Identity::Claimed);
        let (reply, identity) = ask(&option(b"short"), [192, 0, 2, 1]);
        assert_eq!((reply[3] & 0xf, identity), (1, Identity::Claimed), "FORMERR");
    }

    fn some_request() -> impl Strategy<Value = Vec<u8>> {
        let owner = prop::sample::select(vec!["web.mesos", "huge.mesos", "_twenty._tcp.mesos"]);
        let rtype = prop::sample::select(vec![1, 2, 6, 16, 33, 43, 255]);
        let asked = (owner, rtype, any::<[u16; 2]>()).prop_map(|(owner, rtype, [size, flags])| {
            with_opt(query(owner, Type(rtype)), size, 0, flags)
        });
        let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        let flipped = (asked, flips).prop_map(|(mut octets, flips)| {
            for (index, octet) in flips {
                let at = index.index(octets.len());
                octets[at] = octet;
            }
            octets
        });
        prop_oneof![flipped, prop::collection::vec(any::<u8>(), 0..80)]
    }

    proptest! {
        #[test]
        fn no_octets_panic_answer(request in some_request(), random in any::<u64>()) {
            for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, MESSAGE_MAX)] {
                let octets = answer(&served(), &request, transport, random);
                let Some(octets) = octets.filter(|octets| !octets.is_empty()) else { continue };
                prop_assert!(octets.len() <= limit);
                prop_assert_eq!(&octets[..2], &request[..2]);
                prop_assert_eq!(octets[2] & 0x80, 0x80);
                let message = Message::from_bytes(&octets).unwrap();
                if message.edns.is_none() {
                    prop_assert!(transport == Transport::Tcp || octets.len() <= 512);
                }
            }
        }
    }
}
