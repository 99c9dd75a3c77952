//! The bundled server over real sockets, asked by `dig` and by hand.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesozone::cluster::Cluster;
use mesozone::name::Name;
use mesozone::outgoing::Secondaries;
use mesozone::rr::{Rdata, Rrset, Ttl, Type};
use mesozone::served::Authority;
use mesozone::server::{BindError, Bound, Manner, serve};
use mesozone::snapshot::{Completeness, Snapshot};
use mesozone::wire::CLASS_IN;
use mesozone::zone::{Key, Zone};
use socket2::{Domain, Socket};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);
const RECORDS: &str = include_str!("fixtures/cases/real-mesos-running/records.txt");

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn manner(secondaries: Secondaries) -> Manner {
    let [refresh, retry, expire, negative_ttl, ttl] = [60, 600, 86400, 10, 60].map(Ttl::from_secs);
    let servers = vec![(name("ns1.mesos"), vec!["10.0.0.2".parse().unwrap()])];
    let (apex, rname) = (name("mesos"), name("root.ns1.mesos"));
    let authority = Authority { apex, servers, rname, refresh, retry, expire, negative_ttl, ttl };
    Manner { authorities: vec![authority], secondaries, ..Manner::default() }
}

fn rdata(rtype: &str, text: &str) -> (Type, Rdata) {
    match rtype {
        "A" => (Type::A, Rdata::A(text.parse().unwrap())),
        "AAAA" => (Type::AAAA, Rdata::Aaaa(text.parse().unwrap())),
        "SRV" => {
            let fields: Vec<&str> = text.split(' ').collect();
            let [priority, weight, port] = [0, 1, 2].map(|at| fields[at].parse().unwrap());
            (Type::SRV, Rdata::Srv { priority, weight, port, target: name(fields[3]) })
        }
        other => panic!("no {other} in this zone"),
    }
}

/// The records of a case, and an RRset of each kind that takes more than one datagram.
fn records() -> String {
    let many = (1..100).map(|n| {
        format!("many.mesos.\tA\t10.0.1.{n}\n_many._tcp.mesos.\tSRV\t0 1 {n} leader.mesos.\n")
    });
    many.fold(RECORDS.to_owned(), |records, more| records + &more)
}

fn published() -> Zone {
    zone_of(&records())
}

/// The zone of lines as `records --format tsv` prints them.
pub(crate) fn zone_of(records: &str) -> Zone {
    let mut rrsets: BTreeMap<Key, Vec<Rdata>> = BTreeMap::new();
    for line in records.lines() {
        let [owner, rtype, text] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let (rtype, rdata) = rdata(rtype, text);
        rrsets.entry(Key { name: name(owner), rtype }).or_default().push(rdata);
    }
    let ttl = Ttl::from_secs(60);
    rrsets.into_iter().map(|(key, rdata)| (key, Rrset::new(ttl, rdata).unwrap())).collect()
}

pub(crate) fn snapshot(zone: Zone) -> Option<Arc<Snapshot>> {
    Some(Arc::new(Snapshot {
        unknown: Arc::default(),
        zone,
        reverse: Default::default(),
        cluster: Cluster::default(),
        skipped: imbl::OrdMap::new(),
        unread: Arc::from([]),
        completeness: Completeness::Complete,
        complete_once: true,
        domain: "mesos".parse().unwrap(),
        read_at: SystemTime::now(),
        told_at: SystemTime::now(),
    }))
}

/// The server on a loopback port, stopped on drop.
pub(crate) struct Serving {
    runtime: Runtime,
    pub(crate) address: SocketAddr,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Serving {
    pub(crate) fn start(first: Option<Arc<Snapshot>>) -> Serving {
        let runtime = Runtime::new().unwrap();
        let bound = {
            let _inside = runtime.enter();
            Bound::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap()
        };
        let address = bound.addresses().next().unwrap();
        let (snapshots, published) = watch::channel(first);
        let (shutdown, stopped) = oneshot::channel::<()>();
        let stopped = async move { stopped.await.unwrap_or_default() };
        let ended = runtime.spawn(async move {
            serve(bound, published, watch::channel(manner(Secondaries::default())).1, stopped)
                .await
                .expect("threads");
        });
        Serving { runtime, address, snapshots, shutdown, ended }
    }

    pub(crate) fn serial(&self) -> u32 {
        let answer = dig(self.address, &["+short", "mesos", "SOA"]);
        answer.split(' ').nth(2).unwrap_or_else(|| panic!("no SOA: {answer}")).parse().unwrap()
    }
}

/// What `dig` prints.
fn dig(server: SocketAddr, arguments: &[&str]) -> String {
    let port = server.port().to_string();
    let ip = format!("@{}", server.ip());
    let fixed = [&ip, "-p", &port, "+norec", "+tries=2", "+time=5"];
    let output = Command::new("dig").args(fixed).args(arguments).output().unwrap();
    assert!(output.status.success(), "dig {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Asks until the answer is as wanted.
fn until(wanted: &str, mut asked: impl FnMut() -> String) {
    let start = Instant::now();
    loop {
        let answer = asked();
        if answer == wanted {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "never {wanted:?}, at last {answer:?}");
    }
}

#[test]
fn dig_is_answered_over_udp_and_tcp() {
    let serving = Serving::start(snapshot(published()));
    for transport in ["+notcp", "+tcp"] {
        let ask = |arguments: &[&str]| dig(serving.address, &[&[transport], arguments].concat());
        assert_eq!(ask(&["+short", "123.marathon.mesos"]), "127.0.0.3");
        assert_eq!(ask(&["+short", "mesos", "NS"]), "ns1.mesos.");
        let missing = ask(&["No.Mesos"]);
        assert!(
            missing.contains("status: NXDOMAIN") && missing.contains(";No.Mesos."),
            "{missing}"
        );
        assert!(missing.contains("flags: qr aa; QUERY: 1, ANSWER: 0, AUTHORITY: 1"), "{missing}");
        assert!(ask(&["mesos", "+edns=1", "+noednsneg"]).contains("status: BADVERS"));
        assert!(ask(&["example", "+noedns"]).contains("status: REFUSED"));
    }
    let refused = dig(serving.address, &["mesos", "AXFR"]);
    assert!(refused.contains("Transfer failed"), "{refused}");
}

#[test]
fn a_truncated_answer_is_had_over_tcp() {
    let serving = Serving::start(snapshot(published()));
    let asked = ["+noedns", "_many._tcp.mesos", "SRV"];
    let cut = dig(serving.address, &[&asked[..], &["+ignore"]].concat());
    assert!(cut.contains("flags: qr aa tc;"), "{cut}");
    let whole = dig(serving.address, &asked);
    assert!(whole.contains("ANSWER: 99,") && !whole.contains(" tc"), "{whole}");
}

#[test]
fn a_snapshot_is_served_once_published_and_moves_the_serial_within_a_second() {
    let serving = Serving::start(None);
    let status = || dig(serving.address, &["mesos", "SOA"]);
    assert!(status().contains("status: SERVFAIL"));
    serving.snapshots.send_replace(snapshot(published()));
    let address = || dig(serving.address, &["+short", "late.mesos"]);
    let web = || dig(serving.address, &["+short", "123.marathon.mesos"]);
    until("127.0.0.3", web);
    let first = serving.serial();
    let mut changed = published();
    let late = Rrset::new(Ttl::ZERO, vec![Rdata::A(Ipv4Addr::LOCALHOST)]);
    changed.set(Key { name: name("late.mesos"), rtype: Type::A }, late);
    serving.snapshots.send_replace(snapshot(changed.clone()));
    until("127.0.0.1", address);
    let start = Instant::now();
    while serving.serial() == first {
        assert!(start.elapsed() < PATIENCE, "the serial stays");
    }
    let second = serving.serial();
    assert!(second > first);
    serving.snapshots.send_replace(snapshot(changed));
    assert_eq!(serving.serial(), second);
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

pub(crate) fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A client with another address of the loopback interface.
fn connect_from(from: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn queries_of_one_connection_are_answered_in_order() {
    let serving = Serving::start(snapshot(published()));
    let mut stream = connect(serving.address);
    let queries: Vec<Vec<u8>> =
        (0..50).map(|id| framed(&query(id, "123.marathon.mesos", Type::A))).collect();
    let octets = queries.concat();
    stream.write_all(&octets[..5]).unwrap();
    stream.write_all(&octets[5..]).unwrap();
    for id in 0..50 {
        assert_eq!(read_framed(&mut stream)[..2], u16::to_be_bytes(id));
    }
}

#[test]
fn one_connection_of_a_client_too_many_is_closed_and_leaves_the_others() {
    let serving = Serving::start(snapshot(published()));
    let asked = framed(&query(1, "mesos", Type::SOA));
    let mut open: Vec<TcpStream> = (0..128).map(|_| connect(serving.address)).collect();
    for stream in &mut open {
        stream.write_all(&asked).unwrap();
        read_framed(stream);
    }
    let closed = connect(serving.address).read(&mut [0]);
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    for stream in [&mut connect_from(Ipv4Addr::new(127, 0, 0, 2), serving.address), &mut open[127]]
    {
        stream.write_all(&asked).unwrap();
        read_framed(stream);
    }
}

#[test]
fn shutting_down_ends_connections_and_frees_the_addresses() {
    let Serving { runtime, address, snapshots, shutdown, ended } =
        Serving::start(snapshot(published()));
    let mut stream = connect(address);
    stream.write_all(&framed(&query(1, "mesos", Type::SOA))).unwrap();
    read_framed(&mut stream);
    shutdown.send(()).unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, ended).await });
    ended.unwrap().unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let _inside = runtime.enter();
    Bound::bind(&[address]).unwrap();
    drop(snapshots);
}

#[tokio::test]
async fn a_wildcard_is_each_interface_address_and_never_itself() {
    let bound = Bound::bind(&["0.0.0.0:0".parse().unwrap()]).unwrap();
    let addresses: Vec<SocketAddr> = bound.addresses().collect();
    assert!(addresses.iter().any(|address| address.ip() == Ipv4Addr::LOCALHOST));
    assert!(addresses.iter().all(|address| !address.ip().is_unspecified()));
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named() {
    let udp = loop {
        // Another may have the same port of TCP, and that is tried first.
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if TcpListener::bind(udp.local_addr().unwrap()).is_ok() {
            break udp;
        }
    };
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    for (taken, transport) in [(udp.local_addr(), "UDP"), (tcp.local_addr(), "TCP")] {
        let address = taken.unwrap();
        let error = Bound::bind(&[address]).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address} over {transport}"));
        let BindError::Socket { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
    }
}

fn query(id: u16, owner: &str, rtype: Type) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in owner.split('.').filter(|label| !label.is_empty()) {
        octets.push(label.len() as u8);
        octets.extend(label.bytes());
    }
    octets.push(0);
    octets.extend([rtype.0.to_be_bytes(), CLASS_IN.to_be_bytes()].concat());
    octets
}

/// A socket that asks one server.
pub(crate) fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
