//! Questions about names outside our zones: whom to ask, for whom, and what of the answer is
//! passed on.
//!
//! A query to an upstream is written anew from what the client asks, so that clients that ask the
//! same share it; the answer's octets stay the upstream's, records of every type unread. EDNS is
//! between neighbours (RFC 6891, section 6.2.1): size, cookies and other options of a client end
//! here, its DO goes on; options of an upstream, such as extended errors, reach the client.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::answer::{DNSSEC_OK, Transport, UDP_MAX, UDP_MIN, write_opt};
use crate::cookie;
use crate::name::Name;
use crate::network::Network;
use crate::rr::Type;
use crate::wire::{CLASS_IN, HEADER_LEN, Header, OPCODE_QUERY, Rcode, Reader, WireError};

/// Of an OPT record's owner, type, class, TTL and length.
const OPT_LEN: usize = 11;

/// Where questions about names outside our zones go, and whose.
#[derive(Clone, Default, Debug)]
pub struct Forwarding {
    /// The servers to ask for names at and below each zone, the preferred first, at least one. The
    /// root is for what is in no other; without it such names are refused.
    pub upstreams: BTreeMap<Name, Vec<SocketAddr>>,
    /// Who is forwarded for.
    pub clients: Vec<Network>,
}

impl Forwarding {
    /// Whether everything outside is refused.
    pub fn is_off(&self) -> bool {
        self.upstreams.is_empty()
    }

    /// The most specific zone that the name is in, and its servers.
    pub fn route(&self, name: &Name) -> Option<(&Name, &[SocketAddr])> {
        let zones = self.upstreams.iter().filter(|(zone, _)| name.is_within(zone));
        // All of them are above the name, so the longest is the lowest.
        let lowest = zones.max_by_key(|(zone, _)| zone.stored().len())?;
        Some((lowest.0, lowest.1))
    }

    pub fn serves(&self, client: IpAddr) -> bool {
        self.clients.iter().any(|network| network.contains(client))
    }

    /// An upstream that is one of the addresses we listen on. Of a wildcard only the machine's
    /// own loopback address is known.
    pub fn own_address(&self, listen: &[SocketAddr]) -> Option<SocketAddr> {
        let is_ours = |upstream: &SocketAddr| {
            let ip = upstream.ip().to_canonical();
            let local = match ip {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            listen.iter().filter(|listen| listen.port() == upstream.port()).any(|listen| {
                let is_wildcard = listen.ip().is_unspecified() && listen.is_ipv4() == ip.is_ipv4();
                listen.ip().to_canonical() == ip || is_wildcard && ip == local
            })
        };
        self.upstreams.values().flatten().copied().find(is_ours)
    }

    /// What becomes of a request about a name that is in no zone of ours.
    pub fn admit(&self, request: &[u8], client: IpAddr, transport: Transport) -> Admission {
        let Some(header) = Header::parse(request).ok().filter(|header| !header.is_response())
        else {
            return Admission::Silence;
        };
        let mut errand = Errand::plain(&header);
        if header.opcode() != OPCODE_QUERY {
            return Admission::Answer(errand.without_records(Rcode::NOTIMP));
        }
        let asked = Asked::read(request, &header);
        let Ok(Asked { name, rtype, class, question, edns }) = asked else {
            return Admission::Answer(errand.without_records(Rcode::FORMERR));
        };
        errand.ask(&header, question, edns, transport);
        if edns.is_some_and(|edns| edns.version > 0) {
            return Admission::Answer(errand.without_records(Rcode::BADVERS));
        }
        // Meta-types are between neighbours too, RFC 6895, section 3.1: no transfer goes through.
        let is_meta = rtype == Type::OPT || (128..255).contains(&rtype.0);
        match self.route(&name) {
            Some((zone, _)) if class == CLASS_IN && !is_meta && self.serves(client) => {
                errand.zone = zone.clone();
                errand.flags |= Header::RA;
                Admission::Ask(errand)
            }
            _ => Admission::Answer(errand.without_records(Rcode::REFUSED)),
        }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Admission {
    Ask(Errand),
    /// Without asking anybody.
    Answer(Vec<u8>),
    /// It is no message, or itself an answer.
    Silence,
}

/// What of a request its answer depends on.
struct Asked<'m> {
    name: Name,
    rtype: Type,
    class: u16,
    question: &'m [u8],
    edns: Option<Edns>,
}

/// What an OPT record says, RFC 6891, section 6.1, its options aside.
#[derive(Clone, Copy, Debug)]
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
    fn read(message: &'m [u8], header: &Header) -> Result<Asked<'m>, Malformed> {
        let (_, mut reader) = Reader::behind_question(message)?;
        let question = &message[HEADER_LEN..reader.position()];
        let [1, answers, authorities, _] = header.counts else { return Err(Malformed) };
        // From its own octets: a name that points elsewhere could not be echoed.
        let mut asked = Reader::new(question);
        let (name, rtype, class) = (asked.name()?, Type(asked.u16()?), asked.u16()?);
        let opts = opts(&mut reader, header)?;
        let edns = match opts[..] {
            [] => None,
            [Opt { index, at, root: true, .. }]
                if index >= usize::from(answers) + usize::from(authorities) =>
            {
                let (udp_size, word) = fixed_part(message, at)?;
                let dnssec_ok = word & DNSSEC_OK;
                Some(Edns { udp_size, version: (word >> 16) as u8, dnssec_ok })
            }
            _ => return Err(Malformed),
        };
        Ok(Asked { name, rtype, class, question, edns })
    }
}

/// Where an OPT record stands.
#[derive(Clone, Copy, Debug)]
struct Opt {
    /// Among all records.
    index: usize,
    /// Of its first octet, and of the first behind it.
    at: usize,
    end: usize,
    /// Whether its owner is the root, as it has to be.
    root: bool,
}

/// All OPT records, from a reader behind the question; it stands behind the last record then.
fn opts(reader: &mut Reader<'_>, header: &Header) -> Result<Vec<Opt>, WireError> {
    let records = header.counts[1..].iter().map(|count| usize::from(*count)).sum();
    let mut found = Vec::new();
    for index in 0..records {
        let (at, mut owner) = (reader.position(), reader.clone());
        if reader.skip_record()? == Type::OPT {
            let root = owner.take(1)?[0] == 0;
            found.push(Opt { index, at, end: reader.position(), root });
        }
    }
    Ok(found)
}

/// The class and the TTL of the OPT record that stands there, its owner the root.
fn fixed_part(message: &[u8], at: usize) -> Result<(u16, u32), WireError> {
    let mut record = Reader::new(message.get(at..).unwrap_or_default());
    record.take(3)?;
    Ok((record.u16()?, record.u32()?))
}

/// What is asked of an upstream, the same for all clients that ask the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Query {
    /// With id zero, its question in lower case.
    message: Vec<u8>,
    question_end: usize,
}

impl Query {
    fn new(header: &Header, question: &[u8], edns: Option<Edns>) -> Query {
        let flags = header.flags & (Header::RD | Header::AD | Header::CD);
        let mut message = written_header(0, flags, edns.is_some());
        let (name, type_and_class) = question.split_at(question.len() - 4);
        message.extend(name.to_ascii_lowercase()); // No length of a label is a letter.
        message.extend_from_slice(type_and_class);
        let question_end = message.len();
        if let Some(edns) = edns {
            write_opt(&mut message, edns.dnssec_ok, None);
        }
        Query { message, question_end }
    }

    /// The message, to be sent once.
    pub fn message(&self, id: u16) -> Vec<u8> {
        let mut message = self.message.clone();
        message[..2].copy_from_slice(&id.to_be_bytes());
        message
    }

    fn question(&self) -> &[u8] {
        &self.message[HEADER_LEN..self.question_end]
    }

    /// A reply to the message with this id; none where it is no reply, or one to something else.
    pub fn read_answer(&self, id: u16, mut reply: Vec<u8>) -> Option<Answer> {
        let (header, mut reader) = Reader::behind_question(&reply).ok()?;
        let answers = header.is_response() && header.opcode() == OPCODE_QUERY;
        let question = &reply[HEADER_LEN..reader.position()];
        let name_len = self.question().len() - 4;
        let same = question.eq_ignore_ascii_case(self.question())
            && question[name_len..] == self.question()[name_len..];
        if header.id != id || !answers || header.counts[0] != 1 || !same {
            return None;
        }
        let opt = opts(&mut reader, &header).ok()?.into_iter().find(|opt| opt.root);
        let end = reader.position();
        reply.truncate(end);
        Some(Answer { octets: Arc::from(reply), opt })
    }
}

/// An upstream's answer, shared by all clients that asked for it.
#[derive(Clone, Debug)]
pub struct Answer {
    octets: Arc<[u8]>,
    opt: Option<Opt>,
}

impl Answer {
    fn flags(&self) -> u16 {
        u16::from_be_bytes([self.octets[2], self.octets[3]])
    }

    pub fn rcode(&self) -> Rcode {
        Rcode(self.flags() & 0xf)
    }

    pub fn is_truncated(&self) -> bool {
        self.flags() & Header::TC != 0
    }

    /// Whether another upstream may know better: this one could or would not find out.
    pub fn is_poor(&self) -> bool {
        self.is_truncated() || matches!(self.rcode(), Rcode::SERVFAIL | Rcode::REFUSED)
    }
}

/// A client's question on its way, and how its answer is to be written.
#[derive(Debug)]
pub struct Errand {
    /// By which of [`Forwarding::upstreams`] it goes.
    pub zone: Name,
    pub query: Query,
    id: u16,
    /// Of an answer that is not an upstream's.
    flags: u16,
    /// In the client's spelling.
    question: Vec<u8>,
    edns: Option<Edns>,
    cookie: Option<[u8; cookie::ANSWER_LEN]>,
    octets_max: usize,
}

impl Errand {
    /// Of what is not understood.
    fn plain(header: &Header) -> Errand {
        Errand {
            zone: Name::root(),
            query: Query { message: Vec::new(), question_end: HEADER_LEN },
            id: header.id,
            flags: Header::QR | header.flags & (Header::OPCODE | Header::RD | Header::CD),
            question: Vec::new(),
            edns: None,
            cookie: None,
            octets_max: UDP_MIN.into(),
        }
    }

    fn ask(&mut self, header: &Header, question: &[u8], edns: Option<Edns>, transport: Transport) {
        self.query = Query::new(header, question, edns);
        self.question = question.to_vec();
        self.edns = edns;
        self.octets_max = transport.octets_max(edns.map(|edns| edns.udp_size));
    }

    /// The errand with this data of a COOKIE option in its answer.
    pub fn with_cookie(self, data: [u8; cookie::ANSWER_LEN]) -> Errand {
        Errand { cookie: Some(data), ..self }
    }

    /// The answer where the client is to ask again over TCP before anybody is asked.
    pub fn truncated(&self) -> Vec<u8> {
        self.empty(self.flags | Header::TC, 0)
    }

    /// The answer where no upstream gives one.
    pub fn failed(&self) -> Vec<u8> {
        self.without_records(Rcode::SERVFAIL)
    }

    fn without_records(&self, rcode: Rcode) -> Vec<u8> {
        self.empty(self.flags | rcode.0 & 0xf, u32::from(rcode.0 >> 4) << 24)
    }

    fn empty(&self, flags: u16, extended: u32) -> Vec<u8> {
        let mut octets = written_header(self.id, flags, self.edns.is_some());
        // None where it was not understood.
        octets[5] = u8::from(!self.question.is_empty());
        octets.extend_from_slice(&self.question);
        if let Some(edns) = self.edns {
            write_opt(&mut octets, extended | edns.dnssec_ok, self.cookie.as_ref());
        }
        octets
    }

    /// An upstream's answer as the client gets it: with its id and spelling, without authority, its
    /// own OPT record for the upstream's. Where that is more than the client takes, an empty one
    /// with TC.
    pub fn passed_on(&self, answer: &Answer) -> Vec<u8> {
        let mut octets = answer.octets.to_vec();
        let flags = answer.flags() & !(Header::AA | Header::RD) | self.flags;
        octets[..2].copy_from_slice(&self.id.to_be_bytes());
        octets[2..4].copy_from_slice(&flags.to_be_bytes());
        octets[HEADER_LEN..][..self.question.len()].copy_from_slice(&self.question);
        self.exchange_opt(&mut octets, answer);
        if octets.len() <= self.octets_max {
            return octets;
        }
        let extended = answer.opt.and_then(|opt| fixed_part(&octets, opt.at).ok());
        self.empty(flags | Header::TC, extended.map_or(0, |(_, word)| word & 0xff00_0000))
    }

    /// Nothing but the last record can be cut off or grow: names behind may point at what comes
    /// after it. Name servers put OPT last.
    fn exchange_opt(&self, octets: &mut Vec<u8>, answer: &Answer) {
        let last = answer.opt.filter(|opt| opt.end == octets.len());
        match (self.edns, answer.opt) {
            (None, _) => {
                if let Some(opt) = last {
                    octets.truncate(opt.at);
                    add_records(octets, -1);
                }
            }
            (Some(_), Some(opt)) => {
                octets[opt.at + 3..][..2].copy_from_slice(&UDP_MAX.to_be_bytes());
                if let (Some(opt), Some(cookie)) = (last, &self.cookie) {
                    let data = opt.end - opt.at - OPT_LEN + cookie::OPTION_LEN;
                    // More than a message can have is cut later.
                    let length = u16::try_from(data).unwrap_or(u16::MAX);
                    octets[opt.at + OPT_LEN - 2..][..2].copy_from_slice(&length.to_be_bytes());
                    cookie::write(octets, cookie);
                }
            }
            // Who knows no EDNS says so by FORMERR without it, and the client is to see that.
            (Some(_), None) if answer.rcode() == Rcode::FORMERR => {}
            (Some(_), None) => {
                write_opt(octets, 0, self.cookie.as_ref());
                add_records(octets, 1);
            }
        }
    }
}

/// A header with one question and an OPT record or none.
fn written_header(id: u16, flags: u16, has_opt: bool) -> Vec<u8> {
    let [id, flags, opt] = [id, flags, u16::from(has_opt)].map(u16::to_be_bytes);
    [id, flags, [0, 1], [0; 2], [0; 2], opt].concat()
}

/// Counts records more or less in the additional section.
fn add_records(octets: &mut [u8], more: i16) {
    let count = u16::from_be_bytes([octets[10], octets[11]]).saturating_add_signed(more);
    octets[10..HEADER_LEN].copy_from_slice(&count.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rr::{Rdata, Ttl};
    use crate::wire::Writer;
    use hickory_proto::op::Message;
    use hickory_proto::serialize::binary::BinDecodable;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn forwarding(zones: &[(&str, &[&str])]) -> Forwarding {
        let upstreams = zones
            .iter()
            .map(|(zone, servers)| (name(zone), servers.iter().map(|server| at(server)).collect()));
        Forwarding { upstreams: upstreams.collect(), clients: Network::PRIVATE.to_vec() }
    }

    fn everything() -> Forwarding {
        forwarding(&[(".", &["10.0.0.3:53"])])
    }

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

    /// A query whose spelling is kept, with id 0x1234 and RD.
    fn asked(owner: &str, rtype: Type) -> Vec<u8> {
        let mut octets = written_header(0x1234, Header::RD, false);
        for label in owner.split('.').filter(|label| !label.is_empty()) {
            octets.push(label.len() as u8);
            octets.extend(label.bytes());
        }
        octets.push(0);
        octets.extend(rtype.0.to_be_bytes());
        octets.extend(CLASS_IN.to_be_bytes());
        octets
    }

    /// With an OPT record of this size, version and flags, and these options.
    fn with_opt(mut message: Vec<u8>, size: u16, word: u32, options: &[u8]) -> Vec<u8> {
        add_records(&mut message, 1);
        message.extend([0, 0, 41]);
        message.extend(size.to_be_bytes());
        message.extend(word.to_be_bytes());
        message.extend((options.len() as u16).to_be_bytes());
        [&message[..], options].concat()
    }

    fn with(mut message: Vec<u8>, at: usize, octets: &[u8]) -> Vec<u8> {
        message[at..at + octets.len()].copy_from_slice(octets);
        message
    }

    #[track_caller]
    fn errand(request: &[u8], transport: Transport) -> Errand {
        match everything().admit(request, CLIENT, transport) {
            Admission::Ask(errand) => errand,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_most_specific_zone_says_whom_to_ask() {
        let check = |forwarding: &Forwarding, owner: &str, expected: Option<&str>| {
            let route = forwarding.route(&name(owner)).map(|(zone, servers)| {
                format!("{zone} {}", servers.iter().map(SocketAddr::to_string).collect::<String>())
            });
            assert_eq!(route.as_deref(), expected, "{owner}");
        };
        let zones: [(&str, &[&str]); 3] =
            [("weave", &["10.0.0.4:53"]), ("a.weave", &["10.0.0.5:53"]), ("b", &["10.0.0.6:53"])];
        let some = forwarding(&zones);
        check(&some, "weave", Some("weave. 10.0.0.4:53"));
        check(&some, "x.WEAVE", Some("weave. 10.0.0.4:53"));
        check(&some, "x.a.weave", Some("a.weave. 10.0.0.5:53"));
        check(&some, "ba.weave", Some("weave. 10.0.0.4:53"));
        check(&some, "example", None);
        check(&some, ".", None);
        let all = forwarding(&[&zones[..], &[(".", &["10.0.0.3:53"])]].concat());
        check(&all, "x.b", Some("b. 10.0.0.6:53"));
        check(&all, "example", Some(". 10.0.0.3:53"));
        check(&all, ".", Some(". 10.0.0.3:53"));
    }

    #[test]
    fn a_server_that_asks_itself_is_noticed() {
        let check = |upstream: &str, listen: &str, expected: bool| {
            let found = forwarding(&[(".", &[upstream])]).own_address(&[at(listen)]);
            assert_eq!(found, expected.then(|| at(upstream)), "{upstream} {listen}");
        };
        check("10.0.0.2:53", "10.0.0.2:53", true);
        check("10.0.0.2:54", "10.0.0.2:53", false);
        check("10.0.0.3:53", "10.0.0.2:53", false);
        check("[::ffff:10.0.0.2]:53", "10.0.0.2:53", true);
        check("127.0.0.1:53", "0.0.0.0:53", true);
        check("127.0.0.53:53", "0.0.0.0:53", false);
        check("[::1]:53", "[::]:53", true);
        check("[::1]:53", "0.0.0.0:53", false);
        check("10.0.0.3:53", "0.0.0.0:53", false);
    }

    /// The code of an answer that nobody was asked for, or what else is done.
    #[track_caller]
    fn check(forwarding: &Forwarding, request: &[u8], client: &str, expected: &str) {
        let done = match forwarding.admit(request, client.parse().unwrap(), Transport::Tcp) {
            Admission::Ask(_) => "asks".to_owned(),
            Admission::Silence => "silence".to_owned(),
            Admission::Answer(reply) => {
                let message = Message::from_bytes(&reply).unwrap();
                assert_eq!(reply[..2], request[..2]);
                Rcode(message.metadata.response_code.into()).to_string()
            }
        };
        assert_eq!(done, expected);
    }

    #[test]
    fn only_plain_questions_of_our_clients_are_asked() {
        let (all, request) = (everything(), asked("example", Type::A));
        check(&all, &request, "10.1.2.3", "asks");
        check(&all, &request, "::ffff:10.1.2.3", "asks");
        check(&all, &request, "8.8.8.8", "REFUSED");
        check(&forwarding(&[("weave", &["10.0.0.4:53"])]), &request, "10.1.2.3", "REFUSED");
        check(&Forwarding::default(), &request, "10.1.2.3", "REFUSED");
        let typed = |number| asked("example", Type(number));
        for number in [1, 6, 43, 65, 127, 255, 256, 65280] {
            check(&all, &typed(number), "10.1.2.3", "asks");
        }
        for number in [41, 128, 249, 250, 251, 252, 254] {
            check(&all, &typed(number), "10.1.2.3", "REFUSED");
        }
        let class_at = request.len() - 2;
        check(&all, &with(request.clone(), class_at, &[0, 3]), "10.1.2.3", "REFUSED");
        check(&all, &with(request.clone(), class_at, &[0, 255]), "10.1.2.3", "REFUSED");
        for opcode in 1..16 {
            check(&all, &with(request.clone(), 2, &[opcode << 3]), "10.1.2.3", "NOTIMP");
        }
        check(&all, &with(request.clone(), 2, &[0x80]), "10.1.2.3", "silence");
        check(&all, &request[..11], "10.1.2.3", "silence");
    }

    #[test]
    fn what_is_malformed_is_said_to_be() {
        let (all, request) = (everything(), asked("example", Type::A));
        let malformed = |request: &[u8]| check(&all, request, "10.1.2.3", "FORMERR");
        malformed(&with(request.clone(), 5, &[0]));
        malformed(&with([&request[..], &request[12..]].concat(), 5, &[2]));
        malformed(&request[..request.len() - 1]);
        malformed(&with(request.clone(), 12, &[0xc0, 0]));
        let opt = with_opt(request.clone(), 1232, 0, &[]);
        malformed(&with(opt.clone(), 6, &[0, 1, 0, 0, 0, 0]));
        malformed(&with(opt.clone(), request.len(), &[0xc0]));
        malformed(&with_opt(opt, 1232, 0, &[]));
        check(&all, &with_opt(request, 1232, 1 << 16, &[0, 9, 0, 0]), "10.1.2.3", "BADVERS");
    }

    #[test]
    fn clients_that_ask_the_same_share_a_query() {
        let query = |request: &[u8], transport| errand(request, transport).query;
        let (udp, tcp) = (Transport::Udp, Transport::Tcp);
        let request = asked("Www.Example", Type(65));
        let one = query(&request, udp);
        assert_eq!(one, query(&with(asked("wWW.eXAMPLE", Type(65)), 0, &[9, 9]), tcp));
        assert_ne!(one, query(&asked("www.example", Type(97)), udp));
        assert_ne!(one, query(&with(request.clone(), 2, &[0]), udp));
        let opt = query(&with_opt(request.clone(), 512, 0, &[]), udp);
        assert_ne!(one, opt);
        assert_eq!(opt, query(&with_opt(request.clone(), 4096, 0, &[0, 10, 0, 8]), udp));
        assert_ne!(opt, query(&with_opt(request, 4096, DNSSEC_OK, &[]), udp));
        let mut sent = asked("www.example", Type(65));
        assert_eq!(one.message(0x1234), sent);
        sent = with_opt(sent, UDP_MAX, 0, &[]);
        assert_eq!(opt.message(0x1234), sent);
    }

    /// A reply of so many address records and, where there is one, the OPT record behind them.
    fn reply(request: &[u8], id: u16, records: u8, opt: Option<&[u8]>) -> Vec<u8> {
        let question = &request[HEADER_LEN..Reader::behind_question(request).unwrap().1.position()];
        let owner = Reader::new(question).name().unwrap();
        let flags = Header::QR | Header::AA | Header::RD | Header::AD;
        let mut writer = Writer::new(id, flags);
        writer.raw_question(&owner, &question.to_ascii_lowercase());
        for last in 0..records {
            let rdata = Rdata::A([10, 0, 0, last].into());
            writer.record(1, (&owner, Type::A, CLASS_IN), Ttl::from_secs(5), Some(&rdata));
        }
        match opt {
            Some(options) => with_opt(writer.finish(), 4096, DNSSEC_OK, options),
            None => writer.finish(),
        }
    }

    #[test]
    fn only_what_answers_the_question_is_an_answer() {
        let request = with_opt(asked("www.example", Type::A), 1232, 0, &[]);
        let query = errand(&request, Transport::Udp).query;
        let good = reply(&request, 7, 2, Some(&[]));
        let check = |reply: Vec<u8>, expected: bool| {
            assert_eq!(query.read_answer(7, reply).is_some(), expected);
        };
        check(good.clone(), true);
        check([&good[..], &[0; 9]].concat(), true);
        check(with(good.clone(), 12, b"\x03WWW"), true);
        check(with(good.clone(), 0, &[0, 8]), false);
        check(with(good.clone(), 2, &[0x01]), false);
        check(with(good.clone(), 2, &[0xa8]), false);
        check(with(good.clone(), 12, b"\x03ww2"), false);
        let question_end = request.len() - OPT_LEN;
        check(with(good.clone(), question_end - 4, &[0, 28]), false);
        check(with(good.clone(), question_end - 4, &[0, 33]), false);
        check(with(good.clone(), question_end - 2, &[0, 3]), false);
        check(with(good.clone(), 5, &[0]), false);
        check(with(good.clone(), 5, &[2]), false);
        check(good[..good.len() - 1].to_vec(), false);
        check(good[..12].to_vec(), false);
        check(Vec::new(), false);
    }

    /// Octets, answers, flags, and the size and options of OPT.
    type Passed<'o> = (usize, u16, u16, Option<(u16, &'o [u8])>);

    /// How a reply of so many records and these options reaches a client.
    #[track_caller]
    fn check_passed(errand: &Errand, (records, opt): (u8, Option<&[u8]>), expected: Passed<'_>) {
        let upstream = reply(&errand.query.message(7), 7, records, opt);
        let answer = errand.query.read_answer(7, upstream).unwrap();
        let octets = errand.passed_on(&answer);
        assert_eq!(octets[..2], [0x12, 0x34]);
        let (header, mut reader) = Reader::behind_question(&octets).unwrap();
        assert_eq!(octets[HEADER_LEN..reader.position()], errand.question);
        let opts = opts(&mut reader, &header).unwrap();
        assert!(reader.is_at_end());
        let opt = opts.first().map(|opt| {
            let (size, _) = fixed_part(&octets, opt.at).unwrap();
            (size, &octets[opt.at + OPT_LEN..opt.end])
        });
        assert_eq!((octets.len(), header.counts[1], header.flags, opt), expected);
        Message::from_bytes(&octets).unwrap();
    }

    const PASSED: u16 = Header::QR | Header::RD | Header::RA | Header::AD;

    #[test]
    fn an_answer_is_passed_on_in_the_clients_words() {
        use Transport::{Tcp, Udp};
        let request = asked("Www.Example", Type::A);
        let opt = |size| with_opt(request.clone(), size, 0, &[0, 10, 0, 0]);
        let plain = errand(&request, Udp);
        let end = request.len();
        check_passed(&plain, (2, None), (end + 32, 2, PASSED, None));
        check_passed(&plain, (2, Some(&[])), (end + 32, 2, PASSED, None));
        check_passed(&plain, (29, None), (end + 464, 29, PASSED, None));
        check_passed(&plain, (31, None), (end, 0, PASSED | Header::TC, None));
        check_passed(&errand(&request, Tcp), (200, None), (end + 3200, 200, PASSED, None));
        let (ours, other): (_, &[u8]) = (Some((UDP_MAX, &[][..])), &[0, 15, 0, 2, 0, 3]);
        let wants = errand(&opt(800), Udp);
        check_passed(&wants, (2, Some(&[])), (end + 43, 2, PASSED, ours));
        check_passed(&wants, (2, None), (end + 43, 2, PASSED, ours));
        check_passed(&wants, (2, Some(other)), (end + 49, 2, PASSED, Some((UDP_MAX, other))));
        check_passed(&wants, (60, Some(other)), (end + 11, 0, PASSED | Header::TC, ours));
        check_passed(
            &errand(&opt(4096), Udp),
            (80, Some(&[])),
            (end + 11, 0, PASSED | Header::TC, ours),
        );
        let shows = errand(&opt(800), Udp).with_cookie([7; 24]);
        let both = [other, &[0, 10, 0, 24], &[7; 24]].concat();
        let cookie = Some((UDP_MAX, &both[6..]));
        check_passed(&shows, (2, Some(&[])), (end + 71, 2, PASSED, cookie));
        check_passed(&shows, (2, None), (end + 71, 2, PASSED, cookie));
        check_passed(&shows, (2, Some(other)), (end + 77, 2, PASSED, Some((UDP_MAX, &both))));
        check_passed(&shows, (60, None), (end + 39, 0, PASSED | Header::TC, cookie));
    }

    #[test]
    fn records_of_every_type_and_odd_places_of_opt_pass_unchanged() {
        let request = with_opt(asked("example", Type(65280)), 1232, DNSSEC_OK, &[]);
        let errand = errand(&request, Transport::Udp);
        // Type 65280 whose data looks like a pointer, then OPT, then a record that points back.
        let unknown =
            [&[0xc0, 12, 0xff, 0, 0, 1, 0, 0, 0, 9, 0, 4], &[0xc0, 12, 0xff, 0xff][..]].concat();
        let body = [&unknown[..], &[0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 0], &unknown].concat();
        let question = &request[HEADER_LEN..request.len() - OPT_LEN];
        let mut upstream = [&written_header(7, Header::QR, false), question, &body].concat();
        upstream[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 2]);
        let answer = errand.query.read_answer(7, upstream.clone()).unwrap();
        let passed = errand.with_cookie([7; 24]).passed_on(&answer);
        let size_at = request.len() - OPT_LEN + unknown.len() + 3;
        assert_eq!(passed[12..], with(upstream, size_at, &[4, 0xd0])[12..]);
    }

    #[test]
    fn who_knows_no_edns_is_heard_to_say_so() {
        let errand = errand(&with_opt(asked("example", Type::A), 1232, 0, &[]), Transport::Udp);
        let told = with(reply(&errand.query.message(7), 7, 0, None), 3, &[1]);
        let passed = errand.passed_on(&errand.query.read_answer(7, told).unwrap());
        assert!(Message::from_bytes(&passed).unwrap().edns.is_none());
        assert_eq!(passed[3] & 0xf, 1);
    }

    #[test]
    fn a_failure_is_told_as_any_answer_is() {
        let request = with_opt(asked("Example", Type::A), 1232, DNSSEC_OK, &[]);
        let errand = errand(&request, Transport::Udp).with_cookie([7; 24]);
        let failed = errand.failed();
        let cut = with(failed.clone(), 2, &[failed[2] | 2, failed[3] & 0xf0]);
        assert_eq!(errand.truncated(), cut);
        let message = Message::from_bytes(&failed).unwrap();
        assert_eq!(u16::from(message.metadata.response_code), Rcode::SERVFAIL.0);
        assert!(message.metadata.recursion_available && message.edns.unwrap().flags().dnssec_ok);
        assert_eq!(failed[HEADER_LEN..request.len() - 2], request[HEADER_LEN..request.len() - 2]);
        assert_eq!(failed.len(), request.len() + cookie::OPTION_LEN);
    }

    fn some_octets() -> impl Strategy<Value = Vec<u8>> {
        let request = asked("www.example", Type::A);
        let opt = with_opt(request.clone(), 800, 0, &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        let made =
            vec![reply(&request, 7, 3, None), reply(&request, 7, 90, Some(&[])), request, opt];
        let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        let flipped = (prop::sample::select(made), flips).prop_map(|(mut octets, flips)| {
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
        fn no_octets_panic_and_no_answer_is_too_large(
            request in some_octets(),
            answer in some_octets(),
            shows: bool,
        ) {
            for transport in [Transport::Udp, Transport::Tcp] {
                let errand = match everything().admit(&request, CLIENT, transport) {
                    Admission::Ask(errand) if shows => errand.with_cookie([7; 24]),
                    Admission::Ask(errand) => errand,
                    Admission::Answer(reply) => {
                        prop_assert!(Message::from_bytes(&reply).is_ok());
                        continue;
                    }
                    Admission::Silence => continue,
                };
                let fits = |octets: &[u8]| octets.len() <= errand.octets_max;
                prop_assert!(fits(&errand.failed()));
                let replies = [answer.clone(), reply(&request, 7, 90, None)];
                for answer in replies.into_iter().filter_map(|r| errand.query.read_answer(7, r)) {
                    let passed = errand.passed_on(&answer);
                    prop_assert!(fits(&passed));
                    let (header, mut reader) = Reader::behind_question(&passed).unwrap();
                    prop_assert_eq!(header.id.to_be_bytes(), [request[0], request[1]]);
                    prop_assert!(opts(&mut reader, &header).is_ok() && reader.is_at_end());
                }
            }
        }
    }
}
