//! The bundled server over real sockets, asked by `dig`, and against BIND serving the same zone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::Message;
use hickory_proto::rr::{Record, RecordType};
use hickory_proto::serialize::binary::BinDecodable;
use mesozone::answer::Transport;
use mesozone::cluster::Cluster;
use mesozone::name::Name;
use mesozone::outgoing::Secondaries;
use mesozone::rr::{Rdata, Rrset, Ttl, Type};
use mesozone::served::Authority;
use mesozone::server::{BindError, Bound, serve};
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

fn authority() -> Arc<Authority> {
    let [refresh, retry, expire, negative_ttl, ttl] = [60, 600, 86400, 10, 60].map(Ttl::from_secs);
    let servers = vec![(name("ns1.mesos"), vec!["10.0.0.2".parse().unwrap()])];
    let (apex, rname) = (name("mesos"), name("root.ns1.mesos"));
    Arc::new(Authority { apex, servers, rname, refresh, retry, expire, negative_ttl, ttl })
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
    let mut rrsets: BTreeMap<Key, Vec<Rdata>> = BTreeMap::new();
    for line in records().lines() {
        let [owner, rtype, text] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let (rtype, rdata) = rdata(rtype, text);
        rrsets.entry(Key { name: name(owner), rtype }).or_default().push(rdata);
    }
    let ttl = Ttl::from_secs(60);
    rrsets.into_iter().map(|(key, rdata)| (key, Rrset::new(ttl, rdata).unwrap())).collect()
}

fn snapshot(zone: Zone) -> Option<Arc<Snapshot>> {
    Some(Arc::new(Snapshot {
        unknown: Arc::default(),
        zone,
        cluster: Cluster::default(),
        skipped: imbl::OrdMap::new(),
        unread: Arc::from([]),
        completeness: Completeness::Complete,
        complete_once: true,
        read_at: SystemTime::now(),
    }))
}

/// The server on a loopback port, stopped on drop.
struct Serving {
    runtime: Runtime,
    address: SocketAddr,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Serving {
    fn start(first: Option<Arc<Snapshot>>) -> Serving {
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
            serve(bound, published, authority(), Secondaries::default(), stopped)
                .await
                .expect("threads");
        });
        Serving { runtime, address, snapshots, shutdown, ended }
    }

    fn serial(&self) -> u32 {
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

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn connect(address: SocketAddr) -> TcpStream {
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
    let queries: Vec<Vec<u8>> = (0..50)
        .map(|id| framed(&query(id, "123.marathon.mesos", Type::A, Edns::Without)))
        .collect();
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
    let asked = framed(&query(1, "mesos", Type::SOA, Edns::Without));
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
    stream.write_all(&framed(&query(1, "mesos", Type::SOA, Edns::Without))).unwrap();
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
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Bound::bind(&[address]).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {address} over UDP"));
    let BindError::Socket { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Edns {
    Without,
    With(u16),
}

fn query(id: u16, owner: &str, rtype: Type, edns: Edns) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    let additionals = u8::from(edns != Edns::Without);
    octets.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, additionals]);
    for label in owner.split('.').filter(|label| !label.is_empty()) {
        octets.push(label.len() as u8);
        octets.extend(label.bytes());
    }
    octets.push(0);
    octets.extend([rtype.0.to_be_bytes(), CLASS_IN.to_be_bytes()].concat());
    if let Edns::With(size) = edns {
        octets.extend([0, 0, 41]);
        octets.extend(size.to_be_bytes());
        octets.extend([0; 6]);
    }
    octets
}

/// BIND serving the zone with the same SOA and NS, killed on drop.
struct Named {
    process: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Drop for Named {
    fn drop(&mut self) {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        killed.expect("named runs until killed");
    }
}

impl Named {
    fn start(serial: u32) -> Named {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut zone = format!(
            "$TTL 60\n\
             mesos. SOA ns1.mesos. root.ns1.mesos. {serial} 60 600 86400 10\n\
             mesos. NS ns1.mesos.\n\
             ns1.mesos. A 10.0.0.2\n"
        );
        zone += &records();
        std::fs::write(folder.path().join("zone"), zone).unwrap();
        let configuration = named_configuration(folder.path(), address.port());
        std::fs::write(folder.path().join("named.conf"), configuration).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("named")
            .args(["-g", "-n", "1", "-c"])
            .arg(folder.path().join("named.conf"))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let mut named = Named { process, address, folder };
        named.wait_until_ready();
        named
    }

    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        let asked = framed(&query(1, "mesos", Type::SOA, Edns::Without));
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("named: {status}\n{}", self.log());
            }
            if let Ok(mut stream) = TcpStream::connect(self.address) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(&asked).unwrap();
                if read_framed(&mut stream)[3] & 0xf == 0 {
                    return;
                }
            }
            assert!(start.elapsed() < PATIENCE, "named is not ready\n{}", self.log());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// `minimal-responses no-auth` leaves BIND's answers the additional section and takes from them the
/// NS RRset that it would put into the authority section of positive ones. `zero-no-soa-ttl no`: by
/// default it denies a SOA with a TTL of zero, which RFC 2308 does not ask for.
fn named_configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        r#"options {{
    directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; allow-transfer {{ none; }}; notify no; dnssec-validation no;
    empty-zones-enable no; minimal-responses no-auth; zero-no-soa-ttl no;
    check-names primary ignore;
}};
controls {{ }};
zone "mesos" {{ type primary; file "{folder}/zone"; }};
"#
    )
}

/// A loopback port that is free for both transports.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    UdpSocket::bind(address).map_or_else(|_| free_address(), |_| address)
}

/// What is compared of an answer.
#[derive(PartialEq, Debug)]
struct Seen {
    rcode: u16,
    authoritative: bool,
    truncated: bool,
    recursion_available: bool,
    /// Size, version and DO.
    edns: Option<(u16, u8, bool)>,
    question: String,
    answers: BTreeSet<String>,
    authorities: BTreeSet<String>,
    additionals: BTreeSet<String>,
}

impl Seen {
    fn of(octets: &[u8]) -> Seen {
        let message = Message::from_bytes(octets).unwrap();
        // Spelling aside, RFC 4343: BIND spells a zone's names as its file does, we as the question.
        let text = |r: &Record| {
            format!("{} {} {} {}", r.name.to_lowercase(), r.ttl, r.record_type(), r.data)
        };
        let texts = |records: &[Record]| -> BTreeSet<String> {
            records.iter().filter(|r| r.record_type() != RecordType::OPT).map(text).collect()
        };
        let metadata = &message.metadata;
        Seen {
            rcode: metadata.response_code.into(),
            authoritative: metadata.authoritative,
            truncated: metadata.truncation,
            recursion_available: metadata.recursion_available,
            edns: message
                .edns
                .as_ref()
                .map(|edns| (edns.max_payload(), edns.version(), edns.flags().dnssec_ok)),
            question: message.queries.iter().map(|q| q.to_string()).collect(),
            answers: texts(&message.answers),
            authorities: texts(&message.authorities),
            additionals: texts(&message.additionals),
        }
    }

    /// Takes out what may differ from BIND.
    fn permit(mut self, transport: Transport) -> Seen {
        // BIND looks for no addresses where an RRset has more records than this, to save work.
        const LOOKED_FOR_MAX: usize = 13;
        // Over UDP, which of the addresses fit is each server's choice, RFC 2181, section 9.
        if transport == Transport::Udp || self.answers.len() > LOOKED_FOR_MAX {
            self.additionals.clear();
        }
        // Which answers are left of a truncated message is too: who wants any asks over TCP.
        if self.truncated {
            self.answers.clear();
        }
        self
    }
}

/// Asks over UDP.
fn asked(socket: &UdpSocket, query: &[u8]) -> Seen {
    socket.send(query).unwrap();
    let mut octets = vec![0; 65_535];
    let len = socket.recv(&mut octets).unwrap();
    assert_eq!(octets[..2], query[..2]);
    Seen::of(&octets[..len])
}

fn asked_over_tcp(stream: &mut TcpStream, query: &[u8]) -> Seen {
    stream.write_all(&framed(query)).unwrap();
    Seen::of(&read_framed(stream))
}

fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Every name of the zone, every name between it and the apex, and names beside and below.
fn names() -> BTreeSet<String> {
    let zone = published();
    let owners = zone.iter().map(|(key, _)| key.name.clone());
    let standing: BTreeSet<Name> =
        owners.flat_map(|name| name.ancestors().collect::<Vec<_>>()).collect();
    let misses = standing.iter().enumerate().map(|(n, name)| match n % 2 {
        0 => format!("no.{name}"),
        _ => format!("x{name}"),
    });
    let others = ["*.mesos.", "ns1.mesos.", "no.ns1.mesos.", "example.", "."].map(String::from);
    misses.chain(standing.iter().map(Name::to_string)).chain(others).collect()
}

/// Every other letter in upper case.
fn mixed(name: &str) -> String {
    let octets = name.char_indices();
    octets.map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect()
}

#[test]
fn answers_are_those_of_bind() {
    let serving = Serving::start(snapshot(published()));
    let named = Named::start(serving.serial());
    let [ours, binds] = [serving.address, named.address].map(client);
    let [mut our_stream, mut their_stream] = [serving.address, named.address].map(connect);
    let types = [Type::A, Type::AAAA, Type::SRV, Type::TXT, Type::SOA, Type::NS, Type::DS];
    let mut truncated = 0;
    for name in names() {
        for rtype in types {
            for edns in [Edns::Without, Edns::With(4096)] {
                let query = query(7, &mixed(&name), rtype, edns);
                let what = format!("{} {rtype} {edns:?}", mixed(&name));
                let [our, their] =
                    [&ours, &binds].map(|socket| asked(socket, &query).permit(Transport::Udp));
                assert_eq!(our, their, "{what}");
                truncated += usize::from(our.truncated);
            }
            let query = query(7, &name, rtype, Edns::Without);
            let [our, their] = [&mut our_stream, &mut their_stream]
                .map(|stream| asked_over_tcp(stream, &query).permit(Transport::Tcp));
            assert_eq!(our, their, "{name} {rtype} over TCP");
        }
    }
    assert!(truncated > 0, "nothing was long enough to be truncated");
}
