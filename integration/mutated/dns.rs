//! What name servers answer, and what strangers ask of ours.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::base::name::ToName;
use hickory_proto::op::Message;
use hickory_proto::serialize::binary::BinDecodable;
use mesozone::answer::{Circumstances, Recursion, Transport, Verdict, answer};
use mesozone::cluster::Endpoint;
use mesozone::connection::{Connection, now};
use mesozone::cookie::Secrets;
use mesozone::countersign::{self, Opened};
use mesozone::name::{NAME_MAX, Name};
use mesozone::rr::{Rdata, Rrset, Serial, Ttl, Type};
use mesozone::served::{Authority, Certainty, Hosted, Served};
use mesozone::transfer::{Ask, Item, Outcome, Transfer};
use mesozone::tsig::Key;
use mesozone::wire::{
    CLASS_ANY, CLASS_IN, CLASS_NONE, HEADER_LEN, Header, MESSAGE_MAX, OPCODE_UPDATE, Rcode, Reader,
    Writer,
};
use mesozone::zone;
use proptest::prelude::*;
use proptest::sample::Index;

use super::change::{Change, changed, changes, seeded};
use crate::hunting::{Said, hunt};
use crate::signing::Shared;

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn soa(serial: u32) -> Rdata {
    let mut octets = Vec::new();
    name("ns1.mesos").write(&mut octets);
    name("root.mesos").write(&mut octets);
    octets.extend([serial, 60, 60, 60, 60].map(u32::to_be_bytes).concat());
    Rdata::Other(octets.into())
}

/// A record of the zone by its number.
fn record(number: u32) -> (Name, Type, Rdata) {
    let owner = name(&format!("t{}.marathon.mesos", number / 3));
    match number % 3 {
        0 => (owner, Type::A, Rdata::A(Ipv4Addr::from(0x0a00_0000 + number))),
        1 => (owner, Type::TXT, Rdata::Other(Arc::from(*b"\x03a=b"))),
        _ => {
            let target = name("t1.marathon.mesos");
            (owner, Type::SRV, Rdata::Srv { priority: 0, weight: 1, port: 31_000, target })
        }
    }
}

/// A part of an answer.
#[derive(Clone, Copy)]
enum Part {
    Soa(u32),
    Record(u32),
}

/// An answer of these parts: its question, then them.
fn answered(id: u16, rtype: Type, parts: &[Part]) -> Vec<u8> {
    let mut writer = Writer::new(id, Header::QR | Header::AA);
    writer.question(&name("mesos"), rtype, CLASS_IN);
    for part in parts {
        let (owner, rtype, rdata) = match part {
            Part::Soa(serial) => (name("mesos"), Type::SOA, soa(*serial)),
            Part::Record(number) => record(*number),
        };
        writer.record(1, (&owner, rtype, CLASS_IN), Ttl::from_secs(60), Some(&rdata));
    }
    writer.finish()
}

/// A transfer as messages: the zone of serial 5, or what changed from 3 to 5.
fn transfer(id: u16, ask: Ask) -> Vec<Vec<u8>> {
    let numbers = |range: std::ops::Range<u32>| range.map(Part::Record);
    let parts: Vec<Part> = match ask {
        Ask::Axfr => [Part::Soa(5)].into_iter().chain(numbers(0..40)).collect(),
        _ => {
            let first = [Part::Soa(5), Part::Soa(3)].into_iter().chain(numbers(0..5));
            let first = first.chain([Part::Soa(4)]).chain(numbers(5..9)).chain([Part::Soa(4)]);
            first.chain(numbers(5..6)).chain([Part::Soa(5)]).chain(numbers(9..20)).collect()
        }
    };
    let parts = [parts, vec![Part::Soa(5)]].concat();
    let rtype = if ask == Ask::Axfr { Type::AXFR } else { Type::IXFR };
    parts.chunks(9).map(|part| answered(id, rtype, part)).collect()
}

fn update() -> Vec<u8> {
    let mut writer = Writer::new(7, u16::from(OPCODE_UPDATE) << 11);
    writer.question(&name("mesos"), Type::SOA, CLASS_IN);
    let fence = name("_mesozone.mesos");
    writer.record(1, (&fence, Type::TXT, CLASS_NONE), Ttl::ZERO, None);
    for number in 0..12 {
        let (owner, rtype, rdata) = record(number);
        writer.record(2, (&owner, rtype, CLASS_ANY), Ttl::ZERO, None);
        writer.record(2, (&owner, rtype, CLASS_IN), Ttl::from_secs(60), Some(&rdata));
    }
    writer.finish()
}

fn query(owner: &str, rtype: Type, size: Option<u16>) -> Vec<u8> {
    let mut writer = Writer::new(9, Header::RD);
    writer.question(&name(owner), rtype, CLASS_IN);
    let mut message = writer.finish();
    if let Some(size) = size {
        message[11] = 1;
        message.extend([0, 0, 41]);
        message.extend(size.to_be_bytes());
        message.extend([0, 0, 0, 0, 0, 0]);
    }
    message
}

fn queries() -> Vec<Vec<u8>> {
    let types = [1, 2, 6, 16, 28, 33, 41, 43, 252, 255].map(Type);
    let owners = ["mesos", "web.mesos", "huge.mesos", "_twenty._tcp.mesos", "no.mesos", "example"];
    let sizes = [None, Some(0), Some(512), Some(1232), Some(65_535)];
    let each = owners.iter().flat_map(|owner| types.map(|rtype| (*owner, rtype)));
    each.flat_map(|(owner, rtype)| sizes.map(|size| query(owner, rtype, size))).collect()
}

fn messages() -> Vec<Vec<u8>> {
    let transfers = [transfer(1, Ask::Axfr), transfer(1, Ask::Ixfr(Serial(3)))].concat();
    let messages = [transfers, vec![update()], queries()].concat();
    messages.into_iter().step_by(3).collect()
}

/// The owners of a message's records as octets, as far as it can be read.
fn owners(message: &[u8]) -> Vec<Vec<u8>> {
    let Ok((header, mut reader)) = Reader::behind_question(message) else { return Vec::new() };
    let count: u32 = header.counts[1..].iter().map(|count| u32::from(*count)).sum();
    let mut owners = Vec::new();
    for _ in 0..count {
        let Ok(record) = reader.record() else { break };
        let mut octets = Vec::new();
        record.owner.write(&mut octets);
        owners.push(octets);
    }
    owners
}

/// The same, read by another.
fn owners_by_domain(message: &[u8]) -> Vec<Vec<u8>> {
    let Ok(message) = domain::base::Message::from_octets(message) else { return Vec::new() };
    let records = message.iter().take_while(Result::is_ok).flatten();
    records.map(|(record, _)| record.owner().to_vec().as_slice().to_ascii_lowercase()).collect()
}

#[test]
fn a_message_is_read_as_others_read_it_or_refused() {
    let messages = messages();
    hunt(2_000, (any::<Index>(), changes()), |(at, octets)| {
        let message = seeded(&messages, &at, &octets);
        let (ours, theirs) = (owners(&message), owners_by_domain(&message));
        let both = ours.len().min(theirs.len());
        prop_assert_eq!(&ours[..both], &theirs[..both]);
        prop_assert!(ours.len() * 11 <= message.len());
        let Ok((_, mut reader)) = Reader::behind_question(&message) else { return Ok(()) };
        while let Ok(record) = reader.record() {
            prop_assert!(record.owner.wire_len() <= NAME_MAX);
            if let Ok(rdata) = record.rdata() {
                prop_assert!(rdata.wire_len() <= 6 + NAME_MAX.max(record.octets().len()));
            }
            let _read = (record.target(), record.soa_serial());
        }
        Ok(())
    });
}

/// Whether the messages, read one after the other, are a zone from one SOA to the same.
fn is_whole(messages: &[Vec<u8>]) -> bool {
    let mut serials = Vec::new();
    let mut last_is_soa = false;
    for message in messages {
        let Ok((header, mut reader)) = Reader::behind_question(message) else { return false };
        for _ in 0..header.counts[1] {
            let Ok(record) = reader.record() else { return false };
            last_is_soa = record.rtype == Type::SOA && record.owner == name("mesos");
            match record.soa_serial() {
                Ok(serial) if last_is_soa => serials.push(serial),
                _ if serials.is_empty() => return false,
                _ => {}
            }
        }
    }
    last_is_soa && serials.len() == 2 && serials[0] == serials[1]
}

#[test]
fn a_transfer_is_whole_only_from_one_soa_to_the_same() {
    // Which messages come, by their number, and what is changed in which of them.
    let order = prop_oneof![
        1 => Just((0..5).collect::<Vec<usize>>()),
        1 => prop::collection::vec(0..5_usize, 0..8),
    ];
    let ask =
        prop::sample::select(vec![Ask::Axfr, Ask::Ixfr(Serial(3)), Ask::Differences(Serial(3))]);
    hunt(1_000, (ask, any::<bool>(), order, any::<Index>(), changes()), |case| {
        let (ask, whole, order, place, octets) = case;
        let sent = transfer(1, if whole { Ask::Axfr } else { ask });
        let mut messages: Vec<Vec<u8>> =
            order.iter().filter_map(|at| sent.get(*at)).cloned().collect();
        if !messages.is_empty() {
            let at = place.index(messages.len());
            messages[at] = changed(&messages[at], &octets, &sent);
        }
        let (mut reading, mut count) = (Transfer::new(name("mesos"), ask), 0);
        let mut sink = |_: Item<'_, '_>| {
            count += 1;
            Ok(())
        };
        for (at, message) in messages.iter().enumerate() {
            match reading.take(message, &mut sink) {
                Ok(None) => {}
                Ok(Some(Outcome::Whole(_))) => {
                    prop_assert!(is_whole(&messages[..=at]));
                    prop_assert!(!matches!(ask, Ask::Differences(_)) || at == 0);
                    break;
                }
                Ok(Some(_)) => {
                    prop_assert!(ask != Ask::Axfr);
                    break;
                }
                Err(_) => break,
            }
        }
        let size: usize = messages.iter().map(Vec::len).sum();
        prop_assert!(count * 11 <= size);
        Ok(())
    });
}

const SECRET: &str = "qvn1CquTPVExE7Spq9HjVHqTGGrDAEdqCzrKVZF2YnA=";

fn key() -> Key {
    let text = format!("key k {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};");
    Key::parse(&text).expect("a key")
}

/// The answer to a question, signed, as it goes over TCP.
fn stream(shared: &Shared, request: &[u8]) -> Vec<u8> {
    let opened = shared.open(request).expect("the question is signed");
    let header = Header::parse(&opened.message).expect("a header");
    let mut reader = Reader::new(&opened.message[HEADER_LEN..]);
    reader.skip_name().expect("a question");
    let rtype = Type(reader.u16().expect("a question"));
    let answers = match rtype {
        _ if header.opcode() == OPCODE_UPDATE => {
            vec![Writer::new(header.id, Header::QR | header.flags).finish()]
        }
        Type::AXFR => transfer(header.id, Ask::Axfr),
        Type::IXFR => transfer(header.id, Ask::Ixfr(Serial(3))),
        Type::SOA => vec![answered(header.id, rtype, &[Part::Soa(5)])],
        _ => vec![answered(header.id, rtype, &[Part::Record(1)])],
    };
    let (mut prior, mut first, mut octets) = (opened.mac, true, Vec::new());
    for mut answer in answers {
        prior = shared.sign(&mut answer, &prior, first, now());
        first = false;
        octets.extend((answer.len() as u16).to_be_bytes());
        octets.extend(answer);
    }
    octets
}

/// Answers one question a connection, each answer changed as was told before it.
fn serve(listener: &TcpListener, told: &std::sync::mpsc::Receiver<Vec<Change>>) {
    let secret = BASE64.decode(SECRET).expect("base64");
    let shared = Shared { name: name("k"), secret };
    for (client, changes) in listener.incoming().zip(told) {
        let mut client = client.expect("a connection");
        let mut length = [0; 2];
        client.read_exact(&mut length).expect("a question");
        let mut request = vec![0; u16::from_be_bytes(length).into()];
        client.read_exact(&mut request).expect("a question");
        let octets = changed(&stream(&shared, &request), &changes, &[]);
        // Who has read enough to refuse the answer may be gone.
        let _ = client.write_all(&octets);
    }
}

/// What a question came to; none if its answer was refused.
async fn asked(server: SocketAddr, kind: usize) -> Option<String> {
    let server = Endpoint::parse(&server.to_string()).expect("an address");
    let mut connection = Connection::open(&server, None).await.expect("a server that listens");
    let (zone, key) = (name("mesos"), key());
    match kind {
        0 => connection.serial(&zone, &key).await.ok().map(|serial| serial.to_string()),
        1 => connection.txt(&name("t0.marathon.mesos"), &key).await.ok().map(|t| format!("{t:?}")),
        2 => {
            connection.send_update(update(), &key).await.expect("a server that reads");
            let answered = connection.receive_update(&key).await.ok()?;
            Some(format!("{} {}", answered.id, answered.rcode))
        }
        _ => {
            let ask = if kind == 3 { Ask::Axfr } else { Ask::Ixfr(Serial(3)) };
            let mut items = String::new();
            let mut sink = |item: Item<'_, '_>| {
                let (sign, record) = match item {
                    Item::Record(record) => ("=", record),
                    Item::Deleted(record) => ("-", record),
                    Item::Added(record) => ("+", record),
                };
                let (owner, rtype, ttl) = (&record.owner, record.rtype, record.ttl);
                items += &format!("{sign}{owner} {ttl} {rtype} {:?};", record.rdata()?);
                Ok(())
            };
            let outcome = connection.transfer(&zone, ask, &key, &mut sink).await.ok()?;
            Some(format!("{outcome:?} {items}"))
        }
    }
}

#[test]
fn an_answer_that_was_changed_on_its_way_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = listener.local_addr().unwrap();
    let (tell, told): (Sender<Vec<Change>>, _) = channel();
    thread::spawn(move || serve(&listener, &told));
    let ask = |kind, changes: Vec<Change>| {
        tell.send(changes).expect("the server waits");
        runtime.block_on(asked(server, kind))
    };
    let right: Vec<String> = (0..5)
        .map(|kind| ask(kind, Vec::new()).unwrap_or_else(|| panic!("{kind} is refused as it is")))
        .collect();
    hunt(300, (0..5_usize, changes()), |(kind, changes)| {
        if let Some(said) = ask(kind, changes) {
            prop_assert_eq!(&said, &right[kind]);
        }
        Ok(())
    });
    drop(tell);
    // The server waits for one more before it finds nothing told.
    drop(TcpStream::connect(server).expect("the server waits"));
}

fn served() -> Served {
    let addresses = |count: u32| {
        let data = (0..count).map(|n| Rdata::A(Ipv4Addr::from(0x0a00_0000 + n))).collect();
        Rrset::new(Ttl::from_secs(60), data).expect("some records")
    };
    let srv = (0..20).map(|n| Rdata::Srv {
        priority: 0,
        weight: 1,
        port: 31_000 + n,
        target: name("huge.mesos"),
    });
    let at = |text: &str, rtype| zone::Key { name: name(text), rtype };
    let zone = [
        (at("web.mesos", Type::A), addresses(1)),
        (at("huge.mesos", Type::A), addresses(3_000)),
        (
            at("_twenty._tcp.mesos", Type::SRV),
            Rrset::new(Ttl::from_secs(60), srv.collect()).expect("some records"),
        ),
    ];
    let authority = Authority {
        apex: name("mesos"),
        servers: vec![(name("ns1.mesos"), vec![Ipv4Addr::LOCALHOST.into()])],
        rname: name("root.ns1.mesos"),
        refresh: Ttl::from_secs(60),
        retry: Ttl::from_secs(60),
        expire: Ttl::from_secs(60),
        negative_ttl: Ttl::from_secs(10),
        ttl: Ttl::from_secs(60),
    };
    let zone = zone.into_iter().collect();
    let mut hosted = Hosted::nothing(Arc::new(authority));
    hosted.follow(zone, Certainty::Whole, Serial(7));
    Served::of(vec![hosted])
}

fn check_answer(served: &Served, request: &[u8], transport: Transport, random: u64) -> Said {
    let (client, recursion) = (Ipv4Addr::LOCALHOST.into(), Recursion::Available);
    let secrets = Secrets::new([7; 16]);
    let cookies = Some((&secrets, 1));
    let circumstances =
        Circumstances { client, transport, cookies, random, recursion, reserved: 0 };
    let mut reply = Vec::new();
    match answer(served, request, &circumstances, &mut reply).verdict {
        Verdict::Silence => {
            prop_assert!(request.len() < HEADER_LEN || request[2] & 0x80 != 0);
            return Ok(());
        }
        // Who asked may have signed what nobody can verify.
        Verdict::Signed => {
            let opened = countersign::open(request, None, 0);
            prop_assert!(matches!(opened, Opened::Malformed | Opened::Refused(_)));
            let refused = countersign::error(request, Rcode::FORMERR);
            prop_assert!(refused.is_ok_and(|reply| Message::from_bytes(&reply).is_ok()));
            return Ok(());
        }
        Verdict::Answer | Verdict::Elsewhere | Verdict::Transfer => {}
    }
    prop_assert_eq!(&reply[..2], &request[..2]);
    prop_assert!(reply[2] & 0x80 != 0, "an answer that may be answered in turn");
    let read = Message::from_bytes(&reply);
    prop_assert!(read.is_ok(), "{:?}", read);
    let limit = match (transport, read.is_ok_and(|read| read.edns.is_some())) {
        (Transport::Tcp, _) => MESSAGE_MAX,
        (Transport::Udp, true) => 1_232,
        (Transport::Udp, false) => 512,
    };
    prop_assert!(reply.len() <= limit);
    Ok(())
}

#[test]
fn whatever_is_asked_is_answered_within_its_limits() {
    let (served, messages) = (served(), [messages(), queries()].concat());
    hunt(2_000, (any::<Index>(), changes(), any::<u64>()), |(at, octets, random)| {
        let request = seeded(&messages, &at, &octets);
        check_answer(&served, &request, Transport::Udp, random)?;
        check_answer(&served, &request, Transport::Tcp, random)
    });
}
