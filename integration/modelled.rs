//! The model name server is as the real ones: the same updates have the same effects.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mesozone::cluster::Endpoint;
use mesozone::connection::Connection;
use mesozone::rr::{Serial, Type};
use mesozone::transfer::{Ask, Item, Outcome};
use mesozone::tsig::Key;
use std::net::SocketAddr;
use tokio::runtime::Runtime;

use crate::model::{Client, Model, Rights, Zone};
use crate::peer::{Peer, Running, Setup, nsupdate, on_every_peer};
use crate::proxy::Proxy;
use crate::signing::Shared;

/// Who sends a script.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Mesozone,
    Admin,
}

/// Scripts one after the other, on one zone.
const SCRIPTS: &[(By, &str)] = &[
    (By::Mesozone, "add a.mesos 60 A 10.0.0.1"),
    // The same again; then with another TTL; then more data with a third.
    (By::Mesozone, "add a.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "add a.mesos 90 A 10.0.0.1"),
    (By::Mesozone, "add a.mesos 30 A 10.0.0.2"),
    // A changed TTL that replaces, and two TTLs in one message.
    (By::Mesozone, "del a.mesos A\nadd a.mesos 120 A 10.0.0.1\nadd a.mesos 120 A 10.0.0.2"),
    (By::Mesozone, "add b.mesos 60 A 10.0.0.1\nadd b.mesos 70 A 10.0.0.2"),
    // Nothing changes in the end.
    (By::Mesozone, "del b.mesos A\nadd b.mesos 70 A 10.0.0.1\nadd b.mesos 70 A 10.0.0.2"),
    (By::Mesozone, "add n.mesos 60 A 10.0.0.1\ndel n.mesos A"),
    (By::Mesozone, "del absent.mesos A"),
    (By::Mesozone, "del absent.mesos A 10.0.0.1"),
    (By::Mesozone, "del b.mesos A 10.0.0.9"),
    (By::Mesozone, "del b.mesos A 10.0.0.1"),
    (By::Mesozone, "del b.mesos A 10.0.0.2"),
    // Another TTL in a deletion of one record does not matter.
    (
        By::Mesozone,
        "add c.mesos 60 AAAA fd00::1\nadd c.mesos 60 A 10.0.0.3\ndel c.mesos AAAA fd00::1",
    ),
    (By::Mesozone, "add _c._tcp.mesos 60 SRV 0 1 31000 c.mesos."),
    (By::Mesozone, "add _c._tcp.mesos 60 SRV 0 1 31000 C.MESOS."),
    (By::Mesozone, "del _c._tcp.mesos SRV 0 1 31000 c.mesos."),
    // Prerequisites: each kind, met and not.
    (By::Mesozone, "prereq yxdomain a.mesos\nadd p.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq yxdomain absent.mesos\nadd q.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq nxdomain absent.mesos\nadd q.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq nxdomain a.mesos\nadd r.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq yxrrset a.mesos A\nadd r.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq yxrrset a.mesos TXT\nadd s.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq nxrrset a.mesos TXT\nadd s.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq nxrrset a.mesos A\nadd t.mesos 60 A 10.0.0.1"),
    (
        By::Mesozone,
        "prereq yxrrset a.mesos A 10.0.0.2\nprereq yxrrset a.mesos A 10.0.0.1\nadd t.mesos 60 A 10.0.0.1",
    ),
    (By::Mesozone, "prereq yxrrset a.mesos A 10.0.0.2\nadd u.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq yxrrset other.example A\nadd u.mesos 60 A 10.0.0.1"),
    // The fence: made, kept, changed, gone.
    (
        By::Mesozone,
        "prereq nxrrset _mesozone.mesos TXT\nadd _mesozone.mesos 0 TXT \"v=1 a\"\nadd f.mesos 60 A 10.0.0.1",
    ),
    (By::Mesozone, "prereq nxrrset _mesozone.mesos TXT\nadd g.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq yxrrset _mesozone.mesos TXT \"v=1 a\"\nadd g.mesos 60 A 10.0.0.1"),
    (
        By::Mesozone,
        "prereq yxrrset _mesozone.mesos TXT \"v=1 a\"\ndel _mesozone.mesos TXT\nadd _mesozone.mesos 0 TXT \"v=1 b\"",
    ),
    (By::Mesozone, "prereq yxrrset _mesozone.mesos TXT \"v=1 a\"\nadd h.mesos 60 A 10.0.0.1"),
    (
        By::Mesozone,
        "prereq yxrrset _mesozone.mesos TXT \"v=1 b\"\ndel g.mesos A\nadd h.mesos 60 A 10.0.0.1",
    ),
    (By::Mesozone, "del _mesozone.mesos TXT"),
    // What is not allowed, with what is, and behind a prerequisite that fails.
    (By::Mesozone, "add i.mesos 60 MX 10 a.mesos."),
    (By::Mesozone, "add i.mesos 60 A 10.0.0.1\nadd i.mesos 60 CNAME a.mesos."),
    (By::Mesozone, "prereq yxdomain absent.mesos\nadd i.mesos 60 MX 10 a.mesos."),
    (By::Mesozone, "add i.mesos 60 A 10.0.0.1\nadd i.example 60 A 10.0.0.1"),
    // Names that BIND checks.
    (By::Mesozone, "add under_score.mesos 60 A 10.0.0.1\nadd beside.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "add hyphen-.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "add -hyphen.mesos 60 AAAA fd00::1"),
    (By::Mesozone, "add _d._tcp.mesos 60 SRV 0 1 31000 under_score.mesos."),
    (By::Mesozone, "add under_score.mesos 60 TXT x"),
    (By::Mesozone, "add *.wild.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "prereq yxdomain x.wild.mesos\nadd j.mesos 60 A 10.0.0.1"),
    // CNAMEs, with data beside them.
    (By::Admin, "add alias.mesos 60 CNAME a.mesos."),
    (By::Admin, "add alias.mesos 60 A 10.0.0.1"),
    (By::Admin, "add a.mesos 60 CNAME c.mesos."),
    (By::Admin, "add alias.mesos 60 CNAME c.mesos."),
    (By::Admin, "add alias.mesos 60 A 10.0.0.1\nadd k.mesos 60 A 10.0.0.1"),
    (By::Admin, "del alias.mesos CNAME\nadd alias.mesos 60 A 10.0.0.1"),
    // The apex: what cannot be taken away, and its serial.
    (By::Admin, "del mesos NS"),
    (By::Admin, "del mesos NS ns1.mesos."),
    (By::Admin, "del mesos"),
    (By::Admin, "add mesos 60 TXT x\nadd ns2.mesos 60 A 10.0.0.2\nadd mesos 60 NS ns2.mesos."),
    (By::Admin, "del mesos"),
    (By::Admin, "del mesos NS ns2.mesos."),
    (By::Admin, "add mesos 60 SOA ns1.mesos. hostmaster.mesos. 1000 3600 600 86400 10"),
    (By::Admin, "add mesos 60 SOA ns1.mesos. hostmaster.mesos. 900 3600 600 86400 10"),
    // A delegation, and what is below it.
    (By::Admin, "add sub.mesos 60 NS ns.sub.mesos.\nadd ns.sub.mesos 60 A 10.0.0.9"),
    (By::Mesozone, "add x.sub.mesos 60 A 10.0.0.1"),
    (By::Mesozone, "del x.sub.mesos A"),
    // Everything at a name, of each type, and a name that is only above another.
    (By::Admin, "add m.mesos 60 A 10.0.0.1\nadd m.mesos 60 AAAA fd00::1\nadd m.mesos 60 TXT y"),
    (By::Admin, "del m.mesos"),
    (By::Mesozone, "del wild.mesos A"),
];

/// A hundred addresses at a name, and a message that has more for a moment or for good.
fn large_sets() -> Vec<(By, String)> {
    let add = |range: std::ops::Range<u8>| {
        range.map(|n| format!("add large.mesos 60 A 10.0.1.{n}\n")).collect::<String>()
    };
    vec![
        (By::Mesozone, add(0..99)),
        (By::Mesozone, add(99..101) + "add innocent.mesos 60 A 10.0.0.1"),
        (By::Mesozone, add(99..100)),
        (By::Mesozone, add(100..101) + "del large.mesos A 10.0.1.0"),
        (By::Mesozone, "del large.mesos A 10.0.1.0\n".to_owned() + &add(100..101)),
        (By::Mesozone, add(1..2)),
        (By::Mesozone, "del large.mesos A".to_owned()),
    ]
}

/// A server to compare, real or not, behind a proxy that sees its rcodes.
struct Side {
    addr: SocketAddr,
    proxy: Proxy,
}

impl Side {
    fn new(addr: SocketAddr) -> Side {
        Side { addr, proxy: Proxy::to(addr) }
    }

    /// The rcode of a script.
    fn send(&self, key_file: &Path, script: &str) -> Option<u8> {
        self.proxy.clear();
        // Why it was refused is seen in the rcode.
        let _ = nsupdate(self.proxy.addr(), "mesos", key_file, script);
        self.proxy.seen().last().and_then(|seen| seen.rcode)
    }

    /// How a transfer ends, and its records as text: sign, owner, TTL, type and data.
    fn transfer(&self, runtime: &Runtime, key: &Key, ask: Ask) -> (Outcome, Vec<String>) {
        let server = Endpoint::parse(&self.addr.to_string()).unwrap();
        let mut lines = Vec::new();
        let outcome = runtime.block_on(async {
            let mut connection = Connection::open(&server, None).await.unwrap();
            let mut sink = |item: Item<'_, '_>| {
                let (sign, record) = match item {
                    Item::Record(record) => ("", record),
                    Item::Deleted(record) => ("-", record),
                    Item::Added(record) => ("+", record),
                };
                if record.rtype != Type::SOA {
                    let (owner, ttl, rtype) = (&record.owner, record.ttl, record.rtype);
                    let data = match rtype {
                        Type::NS | Type::CNAME => record.target()?.to_string(),
                        _ => format!("{:?}", record.rdata()?),
                    };
                    lines.push(format!("{sign}{owner} {ttl} {rtype} {data}"));
                }
                Ok(())
            };
            connection.transfer(&"mesos".parse().unwrap(), ask, key, &mut sink).await.unwrap()
        });
        lines.sort();
        (outcome, lines)
    }
}

fn key(file: &Path) -> Key {
    Key::parse(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A key file's key as the model takes it.
fn shared(file: &Path) -> Shared {
    let text = std::fs::read_to_string(file).unwrap();
    let quoted: Vec<&str> = text.split('"').collect();
    let secret = BASE64.decode(quoted[3]).unwrap();
    Shared { name: quoted[1].parse().unwrap(), secret }
}

/// The model of a server that was just started from the examples.
fn model_of(server: &Running, peer: Peer) -> Model {
    let below = Rights::Below("mesos".parse().unwrap());
    let clients = [(server.key_file(), below), (server.admin_key_file(), Rights::All)];
    let clients = clients.map(|(file, rights)| Client { key: shared(&file), rights });
    Model::start(Zone::new(peer, "mesos", Vec::new()), clients.to_vec(), 7)
}

fn serial(whole: &Outcome) -> Serial {
    match whole {
        Outcome::Whole(serial) => *serial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_model_does_as_the_real_servers_do() {
    on_every_peer(|peer| {
        let server = peer.start(&Setup::default());
        let model = model_of(&server, peer);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (real, modelled) = (Side::new(server.addr()), Side::new(model.addr()));
        let key = key(&server.admin_key_file());
        // So that differences are less than the zone, which BIND else sends in their place.
        let filler = (0..60).map(|n| format!("add filler{n}.mesos 60 TXT \"{n}\"\n"));
        let filler = (By::Admin, filler.collect::<String>());
        let scripts = SCRIPTS.iter().map(|(by, script)| (*by, (*script).to_owned()));
        let mut serials = vec![Serial(1)];
        for (by, script) in [filler].into_iter().chain(scripts).chain(large_sets()) {
            let key_file = match by {
                By::Mesozone => server.key_file(),
                By::Admin => server.admin_key_file(),
            };
            let of = |side: &Side| {
                let rcode = side.send(&key_file, &script);
                let (outcome, zone) = side.transfer(&runtime, &key, Ask::Axfr);
                let since = [1, 4, 25].map(|back| {
                    let from = serials[serials.len().saturating_sub(back)];
                    side.transfer(&runtime, &key, Ask::Ixfr(from))
                });
                (rcode, serial(&outcome), zone, since)
            };
            let (theirs, ours) = (of(&real), of(&modelled));
            assert_eq!(ours.0, theirs.0, "{peer:?} {script}: rcode, the model's first");
            assert_eq!(ours.2, theirs.2, "{peer:?} {script}: zone, the model's first");
            assert_eq!(ours.1, theirs.1, "{peer:?} {script}: serial, the model's first");
            assert_eq!(ours.3, theirs.3, "{peer:?} {script}: differences, the model's first");
            serials.push(theirs.1);
        }
    });
}
