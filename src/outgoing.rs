//! Transfers to secondaries: a request for a zone into the messages of its answer, AXFR (RFC 5936)
//! and IXFR (RFC 1995), one by one and never gathered.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::answer::Transport;
use crate::countersign::Countersigner;
use crate::edition::{Change, Step};
use crate::name::Name;
use crate::rr::{Rdata, Rrset, Serial, Ttl, Type};
use crate::served::Served;
use crate::tsig::Key as TsigKey;
use crate::wire::{CLASS_IN, HEADER_LEN, Header, Rcode, Reader, WireError, Writer};
use crate::zone::{Key, Zone};

/// Octets of a message: behind them no name can be pointed at.
const MESSAGE_FULL: usize = 0x4000;

/// Who has the zones by transfer. By default nobody.
#[derive(Clone, Default, Debug)]
pub struct Secondaries {
    /// Where each of them answers. They are told of every edition.
    pub addresses: Vec<SocketAddr>,
    /// What their requests are signed with, and what they are told.
    pub key: Option<TsigKey>,
}

impl Secondaries {
    /// Whether one of them has this address.
    pub fn has(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.addresses.iter().any(|at| at.ip().to_canonical() == client)
    }

    /// Whether this client may have the zones: where both addresses and a key are given, both must
    /// fit.
    fn permit(&self, asker: &Asker<'_>) -> bool {
        let is_listed = self.has(asker.client);
        let is_signed = asker.signer.is_some();
        match (self.addresses.is_empty(), &self.key) {
            (true, None) => false,
            (true, Some(_)) => is_signed,
            (false, None) => is_listed,
            (false, Some(_)) => is_listed && is_signed,
        }
    }
}

/// Who asks.
#[derive(Debug)]
pub struct Asker<'k> {
    pub client: IpAddr,
    pub transport: Transport,
    /// Signs the answer where the request was signed.
    pub signer: Option<Countersigner<'k>>,
}

/// An answer on its way.
#[derive(Debug)]
pub struct Outgoing<'k> {
    id: u16,
    flags: u16,
    /// What the first message alone has, until it is made.
    first: Option<First>,
    parts: VecDeque<Part>,
    signer: Option<Countersigner<'k>>,
    ahead: Option<(Name, Serial)>,
    message_full: usize,
}

#[derive(Debug)]
struct First {
    name: Name,
    question: Vec<u8>,
    /// The OPT record, if any.
    additional: Vec<u8>,
}

/// Records in their order, and how far they are written.
#[derive(Debug)]
enum Part {
    Soa(Key, Rrset),
    /// All but the SOA, from this record of this RRset on.
    Whole(Zone, Key, usize),
    Changes(Arc<[Change]>, usize),
}

/// What a request is answered with.
struct Content {
    parts: VecDeque<Part>,
    /// The serial that the client has, where it is later than ours.
    ahead: Option<Serial>,
}

impl<'k> Outgoing<'k> {
    /// The answer to a request for a zone. `refusal` is what refuses it, unsigned.
    pub fn new(
        served: &Served,
        request: &[u8],
        refusal: &[u8],
        asker: Asker<'k>,
        secondaries: &Secondaries,
    ) -> Result<Outgoing<'k>, WireError> {
        const RCODE: u16 = 0xf;
        let (header, behind) = Reader::behind_question(refusal)?;
        let mut question = Reader::new(&refusal[HEADER_LEN..]);
        let (name, rtype) = (question.name()?, Type(question.u16()?));
        let content = match secondaries.permit(&asker) {
            true => content(served, request, (&name, rtype), asker.transport),
            false => Err(Rcode::REFUSED),
        };
        let (flags, content) = match content {
            Ok(content) => (header.flags & !RCODE | Header::AA, content),
            Err(rcode) => {
                let nothing = Content { parts: VecDeque::new(), ahead: None };
                (header.flags & !RCODE | rcode.0, nothing)
            }
        };
        let (question, additional) = refusal.split_at(behind.position());
        let (question, additional) = (question[HEADER_LEN..].to_vec(), additional.to_vec());
        let ahead = content.ahead.map(|serial| (name.clone(), serial));
        Ok(Outgoing {
            id: header.id,
            flags,
            first: Some(First { name, question, additional }),
            parts: content.parts,
            signer: asker.signer,
            ahead,
            message_full: MESSAGE_FULL,
        })
    }

    /// Whether records of a zone go out, and not its SOA or an error alone.
    pub fn is_transfer(&self) -> bool {
        self.parts.len() > 1
    }

    /// The zone of which the client has a serial later than ours, which is then none of ours.
    pub fn ahead(&self) -> Option<&(Name, Serial)> {
        self.ahead.as_ref()
    }

    /// The next message, at `now`, in seconds since 1970.
    pub fn next_message(&mut self, now: u64) -> Option<Vec<u8>> {
        let first = self.first.take();
        if first.is_none() && self.parts.is_empty() {
            return None;
        }
        let mut room = self.message_full;
        room -= self.signer.as_ref().map_or(0, Countersigner::signature_len);
        let mut writer = Writer::new(self.id, self.flags);
        if let Some(first) = &first {
            writer.raw_question(&first.name, &first.question);
            room -= first.additional.len();
        }
        let mut page = Page { writer, room, count: 0 };
        while let Some(part) = self.parts.front_mut()
            && part.write(&mut page)
        {
            self.parts.pop_front();
        }
        let mut writer = page.writer;
        if let Some(first) = first.filter(|first| !first.additional.is_empty()) {
            writer.raw_record(3, &first.additional);
        }
        let mut message = writer.finish();
        if let Some(signer) = &mut self.signer {
            signer.sign(&mut message, now);
        }
        Some(message)
    }
}

fn content(
    served: &Served,
    request: &[u8],
    (name, rtype): (&Name, Type),
    transport: Transport,
) -> Result<Content, Rcode> {
    let zone = served.zone_of(name.stored()).filter(|zone| zone.apex() == name);
    let editions = zone.ok_or(Rcode::NOTAUTH)?.transferable().ok_or(Rcode::SERVFAIL)?;
    let key = Key { name: name.clone(), rtype: Type::SOA };
    let soa = editions.zone().get(&key).ok_or(Rcode::SERVFAIL)?.clone();
    let newest = || Part::Soa(key.clone(), soa.clone());
    let whole = || {
        let first = Key { name: name.clone(), rtype: Type(0) };
        let all = Part::Whole(editions.zone().clone(), first, 0);
        Content { parts: VecDeque::from([newest(), all, newest()]), ahead: None }
    };
    let lone = |ahead| Content { parts: VecDeque::from([newest()]), ahead };
    if rtype == Type::AXFR {
        return match transport {
            Transport::Tcp => Ok(whole()),
            Transport::Udp => Err(Rcode::FORMERR),
        };
    }
    let has = asked_from(request, name).ok().flatten().ok_or(Rcode::FORMERR)?;
    Ok(match (transport, has.partial_cmp(&editions.serial())) {
        // Over UDP it tells who lacks something to come again over TCP, RFC 1995, section 2.
        (Transport::Udp, _) | (_, Some(Ordering::Equal)) => lone(None),
        (Transport::Tcp, Some(Ordering::Greater)) => lone(Some(has)),
        (Transport::Tcp, Some(Ordering::Less) | None) => match editions.since(has) {
            Some(steps) => {
                let between = steps.iter().enumerate().flat_map(|(at, step)| {
                    let next = steps.get(at + 1).map_or(&soa, |next| &next.soa);
                    differences(&key, step, next)
                });
                let parts = [newest()].into_iter().chain(between).chain([newest()]).collect();
                Content { parts, ahead: None }
            }
            None => whole(),
        },
    })
}

/// One step as IXFR tells it, RFC 1995, section 4.
fn differences(key: &Key, step: &Step, next: &Rrset) -> [Part; 4] {
    [
        Part::Soa(key.clone(), step.soa.clone()),
        Part::Changes(step.deleted.clone(), 0),
        Part::Soa(key.clone(), next.clone()),
        Part::Changes(step.added.clone(), 0),
    ]
}

/// The serial from which on differences are asked for, RFC 1995, section 3.
fn asked_from(request: &[u8], zone: &Name) -> Result<Option<Serial>, WireError> {
    let (header, mut reader) = Reader::behind_question(request)?;
    for _ in 0..header.counts[1] {
        reader.skip_record()?;
    }
    for _ in 0..header.counts[2] {
        let record = reader.record()?;
        if record.rtype == Type::SOA && record.owner == *zone {
            return record.soa_serial().map(Some);
        }
    }
    Ok(None)
}

/// A message being filled.
struct Page {
    writer: Writer,
    /// Octets up to which records are added.
    room: usize,
    count: usize,
}

impl Page {
    /// Writes a record if there is room, and the first in any case, lest there be no end.
    fn put(&mut self, key: &Key, ttl: Ttl, rdata: &Rdata) -> bool {
        let mark = self.writer.mark();
        self.writer.record(1, (&key.name, key.rtype, CLASS_IN), ttl, Some(rdata));
        if self.writer.len() > self.room && self.count > 0 {
            self.writer.back_to(&mark);
            return false;
        }
        self.count += 1;
        true
    }
}

impl Part {
    /// Goes on where it was until the page is full, and says whether that was all.
    fn write(&mut self, page: &mut Page) -> bool {
        match self {
            Part::Soa(key, soa) => soa.rdata().iter().all(|rdata| page.put(key, soa.ttl(), rdata)),
            Part::Changes(changes, at) => changes[*at..].iter().all(|change| {
                let is_written = page.put(&change.key, change.ttl, &change.rdata);
                *at += usize::from(is_written);
                is_written
            }),
            Part::Whole(zone, from, at) => {
                let (start, mut skipped) = (from.clone(), *at);
                for (key, set) in zone.iter_from(start).filter(|(key, _)| key.rtype != Type::SOA) {
                    for (place, rdata) in set.rdata().iter().enumerate().skip(skipped) {
                        if !page.put(key, set.ttl(), rdata) {
                            (*from, *at) = (key.clone(), place);
                            return false;
                        }
                    }
                    skipped = 0;
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Circumstances, Recursion, answer};
    use crate::countersign::{Opened, open};
    use crate::served::{Authority, Certainty, Hosted};
    use crate::transfer::{Ask, Item, Outcome, Transfer};
    use crate::tsig::{Verifier, sign};
    use hickory_proto::op::Message;
    use hickory_proto::serialize::binary::BinDecodable;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: u64 = 1_800_000_000;
    const CLIENT: &str = "192.0.2.7";

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn tsig_key() -> TsigKey {
        TsigKey::parse("key k { algorithm hmac-sha256; secret qvn1; };").unwrap()
    }

    /// Names with their TTL and the last octets of their addresses.
    type Words = Vec<(String, u32, Vec<u8>)>;

    fn zone(words: &Words) -> Zone {
        let sets = words.iter().filter_map(|(owner, ttl, last)| {
            let key = Key { name: name(&format!("{owner}.mesos")), rtype: Type::A };
            let data = last.iter().map(|last| Rdata::A([10, 0, 0, *last].into())).collect();
            Some((key, Rrset::new(Ttl::from_secs(*ttl), data)?))
        });
        sets.collect()
    }

    /// A server that made an edition of each of these, the serials counting from 1.
    fn served(all: &[Words]) -> (Served, Vec<Zone>) {
        let ttl = Ttl::from_secs(60);
        let mut hosted = Hosted::nothing(Arc::new(Authority {
            apex: name("mesos"),
            servers: vec![(name("ns1.mesos"), vec!["10.0.0.2".parse().unwrap()])],
            rname: name("root.ns1.mesos"),
            refresh: ttl,
            retry: ttl,
            expire: ttl,
            negative_ttl: ttl,
            ttl,
        }));
        let mut editions = Vec::new();
        for (at, words) in all.iter().enumerate() {
            hosted.follow(zone(words), Certainty::Whole, Serial(1));
            if at > 0 {
                hosted.advance(Serial(at as u32 + 1));
            }
            editions.push(hosted.editions().unwrap().zone().clone());
        }
        (Served::of(vec![hosted]), editions)
    }

    fn request(owner: &str, ask: Ask) -> Vec<u8> {
        let mut writer = Writer::new(4711, Header::RD);
        let rtype = if ask == Ask::Axfr { Type::AXFR } else { Type::IXFR };
        writer.question(&name(owner), rtype, CLASS_IN);
        if let Ask::Ixfr(serial) | Ask::Differences(serial) = ask {
            let octets = [&[0, 0][..], &serial.0.to_be_bytes(), &[0; 16]].concat();
            let soa = Rdata::Other(octets.into());
            writer.record(2, (&name(owner), Type::SOA, CLASS_IN), Ttl::ZERO, Some(&soa));
        }
        writer.record(3, (&Name::root(), Type::OPT, 1232), Ttl::ZERO, None);
        writer.finish()
    }

    fn by_address() -> Secondaries {
        Secondaries { addresses: vec![format!("{CLIENT}:53").parse().unwrap()], key: None }
    }

    fn outgoing<'k>(
        served: &Served,
        request: &[u8],
        transport: Transport,
        signer: Option<Countersigner<'k>>,
        secondaries: &Secondaries,
    ) -> Outgoing<'k> {
        let recursion = Recursion::Refused;
        let (client, cookies) = ([192, 0, 2, 1].into(), None);
        let circumstances =
            Circumstances { client, transport, cookies, random: 0, recursion, reserved: 0 };
        let mut refusal = Vec::new();
        answer(served, request, &circumstances, &mut refusal);
        let asker = Asker { client: CLIENT.parse().unwrap(), transport, signer };
        Outgoing::new(served, request, &refusal, asker, secondaries).unwrap()
    }

    fn messages(mut outgoing: Outgoing<'_>) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| outgoing.next_message(NOW)).collect()
    }

    /// Records as texts, the SOA's data cut to what differs between editions.
    fn texts(zone: &Zone) -> BTreeSet<String> {
        zone.records().map(|(key, ttl, rdata)| text(&key.name, key.rtype, ttl, rdata)).collect()
    }

    fn text(owner: &Name, rtype: Type, ttl: Ttl, rdata: &Rdata) -> String {
        // NS data is one name to a zone and octets to who reads a transfer.
        let mut octets = Vec::new();
        rdata.write(&mut octets);
        format!("{owner} {ttl} {rtype} {octets:02x?}")
    }

    /// What a client that had `zone` has once it has read these messages.
    fn apply(zone: &Zone, ask: Ask, messages: &[Vec<u8>]) -> (Outcome, BTreeSet<String>) {
        let mut records = texts(zone);
        let mut whole = BTreeSet::new();
        let (mut transfer, mut outcome) = (Transfer::new(name("mesos"), ask), None);
        for message in messages {
            assert_eq!(outcome, None, "messages behind the end");
            let taken = transfer.take(message, &mut |item| {
                let (Item::Record(r) | Item::Deleted(r) | Item::Added(r)) = &item;
                let text = text(&r.owner, r.rtype, r.ttl, &r.rdata()?);
                match item {
                    Item::Record(_) => assert!(whole.insert(text)),
                    Item::Deleted(_) => assert!(records.remove(&text), "{text}"),
                    Item::Added(_) => assert!(records.insert(text)),
                }
                Ok(())
            });
            outcome = taken.unwrap();
        }
        let outcome = outcome.expect("the messages lead to an end");
        let is_whole = matches!(outcome, Outcome::Whole(_));
        (outcome, if is_whole { whole } else { records })
    }

    fn words() -> impl Strategy<Value = Words> {
        let word = (1..3_u32, prop::collection::vec(1..9_u8, 0..6));
        prop::collection::btree_map("[a-f]{1,2}(\\.[ab])?", word, 0..8).prop_map(|words| {
            words.into_iter().map(|(owner, (ttl, last))| (owner, ttl, last)).collect()
        })
    }

    fn without_soa(records: BTreeSet<String>) -> BTreeSet<String> {
        records.into_iter().filter(|text| !text.contains(" SOA ")).collect()
    }

    proptest! {
        #[test]
        fn a_client_comes_from_each_edition_to_the_newest(
            all in prop::collection::vec(words(), 1..6),
            message_full in prop::sample::select(vec![60, 150, 400, MESSAGE_FULL]),
        ) {
            let (served, editions) = served(&all);
            let newest = Serial(editions.len() as u32);
            for (at, edition) in editions.iter().enumerate() {
                let serial = Serial(at as u32 + 1);
                for ask in [Ask::Axfr, Ask::Ixfr(serial)] {
                    let asked = request("mesos", ask);
                    let mut out = outgoing(&served, &asked, Transport::Tcp, None, &by_address());
                    out.message_full = message_full;
                    let sent = messages(out);
                    prop_assert!(sent[1..].iter().all(|message| message.len() <= 80.max(message_full)));
                    let (outcome, records) = apply(edition, ask, &sent);
                    match outcome {
                        Outcome::Whole(to) | Outcome::Differences(to) => prop_assert_eq!(to, newest),
                        Outcome::UpToDate => prop_assert_eq!(serial, newest),
                        other => prop_assert!(false, "{:?}", other),
                    }
                    let expected = texts(&editions[editions.len() - 1]);
                    prop_assert_eq!(without_soa(records), without_soa(expected));
                    for message in &sent {
                        Message::from_bytes(message).unwrap();
                    }
                }
            }
        }
    }

    /// Code, flags and how many records come, over however many messages.
    #[track_caller]
    fn check(
        request: &[u8],
        transport: Transport,
        secondaries: &Secondaries,
        expected: (Rcode, usize),
    ) {
        let (served, _) = served(&[few(1), few(2)]);
        let sent = messages(outgoing(&served, request, transport, None, secondaries));
        let headers: Vec<Header> = sent.iter().map(|m| Header::parse(m).unwrap()).collect();
        let count = headers.iter().map(|header| usize::from(header.counts[1])).sum();
        assert_eq!((headers[0].rcode(), count), expected);
        assert_eq!((headers[0].id, headers[0].counts[0], headers[0].counts[3]), (4711, 1, 1));
        let aa = headers[0].flags & Header::AA != 0;
        assert_eq!(aa, expected.0 == Rcode::NOERROR);
    }

    fn few(last: u8) -> Words {
        vec![("a".to_owned(), 60, vec![last]), ("b".to_owned(), 60, vec![1, 2])]
    }

    #[test]
    fn each_request_has_its_answer() {
        use Transport::{Tcp, Udp};
        let ixfr = |serial| request("mesos", Ask::Ixfr(Serial(serial)));
        let check = |request: &[u8], transport, expected| {
            check(request, transport, &by_address(), expected);
        };
        let axfr = request("mesos", Ask::Axfr);
        check(&axfr, Tcp, (Rcode::NOERROR, 7));
        check(&axfr, Udp, (Rcode::FORMERR, 0));
        check(&ixfr(1), Tcp, (Rcode::NOERROR, 6));
        check(&ixfr(2), Tcp, (Rcode::NOERROR, 1));
        check(&ixfr(3), Tcp, (Rcode::NOERROR, 1));
        check(&ixfr(0), Tcp, (Rcode::NOERROR, 7));
        check(&ixfr(0x8000_0002), Tcp, (Rcode::NOERROR, 7));
        check(&ixfr(1), Udp, (Rcode::NOERROR, 1));
        check(&request("a.mesos", Ask::Axfr), Tcp, (Rcode::NOTAUTH, 0));
        let mut no_soa = axfr.clone();
        no_soa[12 + 7 + 1] = 251;
        check(&no_soa, Tcp, (Rcode::FORMERR, 0));
    }

    #[test]
    fn what_may_not_be_all_is_kept_from_secondaries() {
        let (served, _) = served(&[few(1)]);
        let mut zone = served.zones()[0].clone();
        zone.follow(Zone::default(), Certainty::Partial, Serial(1));
        let served = Served::of(vec![zone]);
        let asked = request("mesos", Ask::Axfr);
        let sent = messages(outgoing(&served, &asked, Transport::Tcp, None, &by_address()));
        assert_eq!(Header::parse(&sent[0]).unwrap().rcode(), Rcode::SERVFAIL);
    }

    #[test]
    fn nobody_else_has_the_zone() {
        let address = |text: &str| vec![format!("{text}:53").parse().unwrap()];
        let others = Secondaries { addresses: address("192.0.2.8"), key: None };
        let both = Secondaries { key: Some(tsig_key()), ..by_address() };
        let by_key = Secondaries { key: Some(tsig_key()), ..Secondaries::default() };
        for secondaries in [Secondaries::default(), others.clone(), both.clone(), by_key.clone()] {
            for ask in [Ask::Axfr, Ask::Ixfr(Serial(2))] {
                let asked = request("mesos", ask);
                check(&asked, Transport::Tcp, &secondaries, (Rcode::REFUSED, 0));
            }
        }
        let elsewhere = Secondaries { key: Some(tsig_key()), ..others };
        let (served, _) = served(&[few(1)]);
        for (secondaries, expected) in
            [(both, Rcode::NOERROR), (by_key, Rcode::NOERROR), (elsewhere, Rcode::REFUSED)]
        {
            let mut asked = request("mesos", Ask::Axfr);
            sign(&mut asked, &tsig_key(), NOW);
            let Opened::Signed(asked, signer) = open(&asked, secondaries.key.as_ref(), NOW) else {
                panic!("the signature is refused");
            };
            let out = outgoing(&served, &asked, Transport::Tcp, Some(signer), &secondaries);
            let first = &messages(out)[0];
            assert_eq!(Header::parse(first).unwrap().rcode(), expected);
        }
    }

    #[test]
    fn every_message_is_signed_and_none_is_too_long() {
        let crowd: Words = (0..3_000).map(|n| (format!("n{n}"), 60, vec![1, 2, 3])).collect();
        let (served, editions) = served(&[crowd]);
        let (key, mut asked) = (tsig_key(), request("mesos", Ask::Axfr));
        let mac = sign(&mut asked, &key, NOW);
        let by_key = Secondaries { key: Some(key.clone()), ..Secondaries::default() };
        let Opened::Signed(asked, signer) = open(&asked, Some(&key), NOW) else {
            panic!("the signature is refused");
        };
        let sent = messages(outgoing(&served, &asked, Transport::Tcp, Some(signer), &by_key));
        assert!(sent.len() > 5);
        let (last, full) = sent.split_last().unwrap();
        assert!(full.iter().all(|m| (MESSAGE_FULL - 100..=MESSAGE_FULL).contains(&m.len())));
        assert!(last.len() <= MESSAGE_FULL);
        let mut verifier = Verifier::new(&key, mac);
        for message in &sent {
            verifier.take(message, NOW).unwrap();
            verifier.finish().expect("each of them is signed");
        }
        let (outcome, records) = apply(&Zone::default(), Ask::Axfr, &sent);
        assert_eq!((outcome, records), (Outcome::Whole(Serial(1)), texts(&editions[0])));
    }

    #[test]
    fn a_client_that_has_a_later_serial_is_noticed() {
        let (served, _) = served(&[few(1)]);
        let ahead = |serial, transport| {
            let asked = request("mesos", Ask::Ixfr(Serial(serial)));
            let out = outgoing(&served, &asked, transport, None, &by_address());
            out.ahead().map(|(_, serial)| *serial)
        };
        assert_eq!(ahead(9, Transport::Tcp), Some(Serial(9)));
        assert_eq!(ahead(9, Transport::Udp), None, "anybody could say so");
        assert_eq!((ahead(1, Transport::Tcp), ahead(0, Transport::Tcp)), (None, None));
    }
}
