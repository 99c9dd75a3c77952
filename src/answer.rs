//! Answering a query from the zone as served: octets in, octets out.
//!
//! Every name at and below the apex is answered with authority, everything else is refused. The
//! zone holds no CNAME, no delegation and no wildcard, so an answer is one RRset or none.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::name::Name;
use crate::rr::{Rdata, Rrset, Serial, Ttl, Type};
use crate::wire::{
    CLASS_IN, HEADER_LEN, Header, MESSAGE_MAX, OPCODE_QUERY, Rcode, Reader, WireError, Writer,
};
use crate::zone::{Key, Zone};

/// The most octets over UDP for who says nothing of it, RFC 1035, section 2.3.4.
const UDP_MIN: u16 = 512;
/// The most octets over UDP for anyone, and what we say we take: what passes networks unfragmented.
const UDP_MAX: u16 = 1232;
/// The DO bit among the flags of an OPT record, RFC 6891, section 6.1.4.
const DNSSEC_OK: u32 = 0x8000;

const ANSWER: usize = 1;
const AUTHORITY: usize = 2;
const ADDITIONAL: usize = 3;

/// What only the server adds to the published zone: its apex.
#[derive(Clone, Debug)]
pub struct Authority {
    pub apex: Name,
    /// The name servers, the primary first, at least one. The addresses of those within the apex
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
        let data = vec![Rdata::Other(Arc::from(octets))];
        Rrset::new(ttl, data).expect("not empty: it was given one SOA")
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

/// Whether what the zone lacks is really gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Certainty {
    Whole,
    /// No complete zone was published yet: what is missing may exist, so it is not denied.
    Partial,
}

/// The zone as served: the published records and the apex.
#[derive(Clone, Debug)]
pub struct Served {
    authority: Arc<Authority>,
    content: Option<Content>,
}

#[derive(Clone, Debug)]
struct Content {
    published: Zone,
    zone: Zone,
    serial: Serial,
    certainty: Certainty,
    /// The SOA of negative answers, with their TTL (RFC 2308, section 3).
    denial: Rrset,
}

impl Served {
    /// Before anything is published: SERVFAIL for all names within the apex.
    pub fn nothing(authority: Arc<Authority>) -> Served {
        Served { authority, content: None }
    }

    /// What is served once `published` is. The serial stays while the zone does, and otherwise
    /// becomes `now`, in seconds of Unix time, or one more than it was.
    pub fn follow(&self, published: Zone, certainty: Certainty, now: Serial) -> Served {
        let serial = match &self.content {
            Some(last) if last.published == published => last.serial,
            Some(last) if last.serial < now => now,
            Some(last) => Serial(last.serial.0.wrapping_add(1)),
            None => now,
        };
        let authority = self.authority.clone();
        let negative_ttl = authority.ttl.secs().min(authority.negative_ttl.secs());
        let zone = authority.complete(published.clone(), serial);
        let denial = authority.soa(serial, Ttl::from_secs(negative_ttl));
        Served { authority, content: Some(Content { published, zone, serial, certainty, denial }) }
    }

    /// None before anything is published.
    pub fn serial(&self) -> Option<Serial> {
        self.content.as_ref().map(|content| content.serial)
    }

    /// Writes the answer's sections and says its code.
    fn respond(&self, question: &Question<'_>, random: u64, reply: &mut Reply) -> Rcode {
        let transfer = matches!(question.rtype, Type::AXFR | Type::IXFR);
        let inside = question.name.is_within(&self.authority.apex);
        if question.class != CLASS_IN || transfer || !inside {
            return Rcode::REFUSED;
        }
        let Some(content) = &self.content else { return Rcode::SERVFAIL };
        match content.find(question) {
            Some(found) => {
                reply.positive(question, found, random, &content.zone);
                Rcode::NOERROR
            }
            None if content.certainty == Certainty::Partial => Rcode::SERVFAIL,
            None => {
                reply.negative(&self.authority.apex, &content.denial);
                let exists = content.zone.has_within(&question.name);
                if exists { Rcode::NOERROR } else { Rcode::NXDOMAIN }
            }
        }
    }
}

impl Content {
    /// The RRset asked for; of ANY one that the name has, RFC 8482, section 4.1.
    fn find(&self, question: &Question<'_>) -> Option<(Type, &Rrset)> {
        let Question { name, rtype, .. } = question;
        match *rtype {
            Type::ANY => self.zone.at(name).next(),
            rtype => self.zone.get(&Key { name: name.clone(), rtype }).map(|set| (rtype, set)),
        }
    }
}

/// What a query came over, and its answer will go over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Udp,
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        })
    }
}

/// The answer to a request, none where silence is due: to what is no message, or itself an
/// answer. `random` chooses which record of an RRset comes first.
pub fn answer(
    served: &Served,
    request: &[u8],
    transport: Transport,
    random: u64,
) -> Option<Vec<u8>> {
    let header = Header::parse(request).ok().filter(|header| !header.is_response())?;
    let asked = Asked::read(request);
    let edns = asked.as_ref().ok().and_then(|asked| asked.edns);
    let mut reply = Reply::new(&header, edns, transport);
    if header.opcode() != OPCODE_QUERY {
        return Some(reply.finish(Rcode::NOTIMP));
    }
    let Some(question) = asked.ok().and_then(|asked| asked.question) else {
        return Some(reply.finish(Rcode::FORMERR));
    };
    reply.writer.raw_question(&question.name, question.octets);
    let rcode = match edns {
        Some(edns) if edns.version > 0 => Rcode::BADVERS,
        _ => served.respond(&question, random, &mut reply),
    };
    Some(reply.finish(rcode))
}

/// What of a request an answer depends on, its header aside.
struct Asked<'m> {
    /// None unless there is exactly one.
    question: Option<Question<'m>>,
    edns: Option<Edns>,
}

struct Question<'m> {
    name: Name,
    rtype: Type,
    class: u16,
    octets: &'m [u8],
}

/// What a request's OPT record says, RFC 6891, section 6.1.
#[derive(Clone, Copy)]
struct Edns {
    udp_size: u16,
    version: u8,
    /// [`DNSSEC_OK`] or zero.
    dnssec_ok: u32,
}

/// A request that earns FORMERR.
struct Malformed;

impl From<WireError> for Malformed {
    fn from(_: WireError) -> Malformed {
        Malformed
    }
}

impl<'m> Asked<'m> {
    fn read(message: &'m [u8]) -> Result<Asked<'m>, Malformed> {
        let (header, mut reader) = Reader::behind_question(message)?;
        let octets = &message[HEADER_LEN..reader.position()];
        let question = (header.counts[0] == 1).then(|| Question::read(octets)).transpose()?;
        let [_, answers, authorities, additionals] = header.counts.map(usize::from);
        let mut edns = None;
        for index in 0..answers + authorities + additionals {
            let record = reader.clone();
            if reader.skip_record()? != Type::OPT {
                continue;
            }
            if edns.is_some() || index < answers + authorities {
                return Err(Malformed);
            }
            edns = Some(Edns::read(record)?);
        }
        Ok(Asked { question, edns })
    }
}

impl<'m> Question<'m> {
    /// Reads from the question's own octets, so that a name which points elsewhere is refused:
    /// it could not be echoed.
    fn read(octets: &'m [u8]) -> Result<Question<'m>, WireError> {
        let mut reader = Reader::new(octets);
        let (name, rtype, class) = (reader.name()?, Type(reader.u16()?), reader.u16()?);
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
        let mut options = Reader::new(record.take(usize::from(len))?);
        while !options.is_at_end() {
            options.u16()?;
            let len = options.u16()?;
            options.take(usize::from(len))?;
        }
        Ok(Edns { udp_size, version: (word >> 16) as u8, dnssec_ok: word & DNSSEC_OK })
    }

    /// The octets of an OPT record without options.
    const LEN: usize = 11;
}

/// An answer being written.
struct Reply {
    writer: Writer,
    flags: u16,
    edns: Option<Edns>,
    /// The most octets before the OPT record.
    room: usize,
}

impl Reply {
    fn new(header: &Header, edns: Option<Edns>, transport: Transport) -> Reply {
        const OPCODE: u16 = 0x7800;
        let flags = Header::QR | header.flags & (OPCODE | Header::RD | Header::CD);
        let message_max = match transport {
            Transport::Tcp => MESSAGE_MAX,
            Transport::Udp => {
                edns.map_or(UDP_MIN, |edns| edns.udp_size.clamp(UDP_MIN, UDP_MAX)).into()
            }
        };
        let room = message_max - edns.map_or(0, |_| Edns::LEN);
        Reply { writer: Writer::new(header.id, flags), flags, edns, room }
    }

    /// One RRset. Only where all of it fits are other names' addresses worth the room.
    fn positive(
        &mut self,
        question: &Question<'_>,
        (rtype, rrset): (Type, &Rrset),
        random: u64,
        zone: &Zone,
    ) {
        self.flags |= Header::AA;
        if !self.rrset(ANSWER, (&question.name, rtype), rrset, random) {
            self.flags |= Header::TC;
        } else if matches!(rtype, Type::SRV | Type::NS) {
            self.addresses(rrset, random, zone);
        }
    }

    fn negative(&mut self, apex: &Name, soa: &Rrset) {
        self.flags |= Header::AA;
        if !self.rrset(AUTHORITY, (apex, Type::SOA), soa, 0) {
            self.flags |= Header::TC;
        }
    }

    /// The addresses of the names in an RRset, each name once, until one does not fit.
    fn addresses(&mut self, rrset: &Rrset, random: u64, zone: &Zone) {
        let mut seen = HashSet::new();
        for name in rotated(rrset, random).filter_map(target).filter(|name| seen.insert(*name)) {
            for rtype in [Type::A, Type::AAAA] {
                let Some(found) = zone.get(&Key { name: name.clone(), rtype }) else { continue };
                let mark = self.writer.mark();
                if !self.rrset(ADDITIONAL, (name, rtype), found, random) {
                    return self.writer.back_to(&mark);
                }
            }
        }
    }

    /// Writes as many records as fit, and says whether that was all.
    fn rrset(
        &mut self,
        section: usize,
        (owner, rtype): (&Name, Type),
        rrset: &Rrset,
        random: u64,
    ) -> bool {
        rotated(rrset, random).all(|rdata| {
            let mark = self.writer.mark();
            self.writer.record(section, (owner, rtype, CLASS_IN), rrset.ttl(), Some(rdata));
            let fits = self.writer.len() <= self.room;
            if !fits {
                self.writer.back_to(&mark);
            }
            fits
        })
    }

    fn finish(mut self, rcode: Rcode) -> Vec<u8> {
        self.writer.set_flags(self.flags | rcode.0 & 0xf);
        if let Some(edns) = self.edns {
            let word = u32::from(rcode.0 >> 4) << 24 | edns.dnssec_ok;
            let opt = (&Name::root(), Type::OPT, UDP_MAX);
            self.writer.record(ADDITIONAL, opt, Ttl::from_secs(word), None);
        }
        self.writer.finish()
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

    fn served() -> Served {
        let nothing = Served::nothing(Arc::new(authority()));
        nothing.follow(published(), Certainty::Whole, Serial(7))
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
        // Of `_ten`: 33 octets to the question's end, 37 a record, 28 the first address, 22 others.
        check_size("_ten._tcp.mesos", None, Udp, [497, 10, 4, 0]);
        check_size("_ten._tcp.mesos", Some(4096), Udp, [640, 10, 10, 0]);
        check_size("_twenty._tcp.mesos", None, Udp, [482, 12, 0, 1]);
        check_size("_twenty._tcp.mesos", Some(600), Udp, [569, 14, 0, 1]);
        check_size("_twenty._tcp.mesos", Some(4096), Udp, [1230, 20, 19, 0]);
        check_size("_twenty._tcp.mesos", None, Tcp, [1242, 20, 20, 0]);
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
        let nothing = Served::nothing(Arc::new(authority()));
        let partial = nothing.follow(published(), Certainty::Partial, Serial(7));
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

    #[test]
    fn the_serial_moves_with_the_zone_and_only_forward() {
        let nothing = Served::nothing(Arc::new(authority()));
        let first = nothing.follow(published(), Certainty::Partial, Serial(7));
        let same = first.follow(published(), Certainty::Whole, Serial(9));
        let less = same.follow(Zone::default(), Certainty::Whole, Serial(7));
        let later = less.follow(published(), Certainty::Whole, Serial(20));
        let serials = [nothing, first, same, less, later].map(|served| served.serial());
        let expected = [None, Some(7), Some(7), Some(8), Some(20)];
        assert_eq!(serials, expected.map(|serial| serial.map(Serial)));
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
                let Some(octets) = answer(&served(), &request, transport, random) else { continue };
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
