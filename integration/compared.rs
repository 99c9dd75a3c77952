//! The bundled server's answers beside those of BIND and Knot with the same zone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::{Record, RecordType};
use hickory_proto::serialize::binary::BinDecodable;
use mesozone::answer::Transport;
use mesozone::name::Name;
use mesozone::rr::Type;
use mesozone::wire::{CLASS_IN, Rcode};
use mesozone::zone::Zone;
use tempfile::TempDir;

use crate::peer::claim_port;
use crate::server::{Serving, client, connect, framed, read_framed, snapshot, zone_of};

const PATIENCE: Duration = Duration::from_secs(20);

/// A reason, and the questions that it is one for.
type Permission = (&'static str, fn(&Query) -> bool);

/// In what the three may differ, and why. All else has to be equal.
const PERMITTED: [Permission; 3] = [
    (
        "class ANY: BIND says FORMERR, Knot looks into IN and NOTIMP for type 0; RFC 1035 has it for \
         queries across classes, of which we have one, and we refuse it as other classes",
        |query| query.class == 255,
    ),
    (
        "a NOTIFY without a serial: BIND says FORMERR, Knot NOTAUTH, for a zone of which they are the \
         primary; we are nobody's secondary, and say NOTIMP",
        |query| query.opcode == 4,
    ),
    (
        "an UPDATE that is a question: both read it as one and say FORMERR; we take none, NOTIMP by \
         RFC 2136, section 3.1, and do not look at it",
        |query| query.opcode == 5,
    ),
];

/// What is asked.
#[derive(Clone, Debug)]
struct Query {
    owner: String,
    rtype: Type,
    class: u16,
    opcode: u8,
    /// Size and version.
    edns: Option<(u16, u8)>,
}

impl Query {
    fn of(owner: &str, rtype: Type) -> Query {
        Query { owner: owner.to_owned(), rtype, class: CLASS_IN, opcode: 0, edns: None }
    }

    fn octets(&self) -> Vec<u8> {
        let mut octets = vec![0, 7, self.opcode << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        octets[11] = u8::from(self.edns.is_some());
        let name: Name = self.owner.parse().unwrap();
        let start = octets.len();
        name.write(&mut octets);
        // The spelling of the question, which a name does not keep.
        let spelled = self.owner.trim_end_matches('.');
        if octets[start..].iter().all(u8::is_ascii) && !spelled.contains('\\') {
            octets.truncate(start);
            for label in spelled.split('.').filter(|label| !label.is_empty()) {
                octets.push(label.len() as u8);
                octets.extend(label.bytes());
            }
            octets.push(0);
        }
        octets.extend([self.rtype.0.to_be_bytes(), self.class.to_be_bytes()].concat());
        if let Some((size, version)) = self.edns {
            octets.extend([0, 0, 41]);
            octets.extend(size.to_be_bytes());
            octets.extend([0, version, 0, 0, 0, 0]);
        }
        octets
    }
}

/// What is compared of an answer.
#[derive(Clone, PartialEq, Debug)]
struct Seen {
    rcode: Rcode,
    authoritative: bool,
    truncated: bool,
    recursion_available: bool,
    /// Version and DO; the size is a server's own.
    edns: Option<(u8, bool)>,
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
            rcode: Rcode(metadata.response_code.into()),
            authoritative: metadata.authoritative,
            truncated: metadata.truncation,
            recursion_available: metadata.recursion_available,
            edns: message.edns.as_ref().map(|edns| (edns.version(), edns.flags().dnssec_ok)),
            question: message.queries.iter().map(|q| q.to_string()).collect(),
            answers: texts(&message.answers),
            authorities: texts(&message.authorities),
            additionals: texts(&message.additionals),
        }
    }

    /// Takes out what no standard fixes.
    fn fixed(mut self, transport: Transport) -> Seen {
        // BIND looks for no addresses where an RRset has more records than this, to save work.
        const LOOKED_FOR_MAX: usize = 13;
        // Over UDP, which of the addresses fit is each server's choice, RFC 2181, section 9.
        if transport == Transport::Udp || self.answers.len() > LOOKED_FOR_MAX {
            self.additionals.clear();
        }
        // Which answers are left of a truncated message is too: who wants any asks over TCP.
        if self.truncated {
            self.answers.clear();
            self.authorities.clear();
        }
        // Knot answers without an OPT record where it refuses, RFC 6891, section 7, asks for one.
        if self.rcode == Rcode::REFUSED {
            self.edns = None;
        }
        self
    }
}

/// A name server of others with the zone, killed on drop.
struct Other {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
    _claim: UnixListener,
}

impl Drop for Other {
    fn drop(&mut self) {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        killed.expect("it runs until killed");
    }
}

/// `minimal-responses no-auth` leaves BIND's answers the additional section and takes from them the
/// NS RRset that it would put into the authority section of positive ones. `zero-no-soa-ttl no`: by
/// default it denies a SOA with a TTL of zero, which RFC 2308 does not ask for.
fn named(folder: &Path, port: u16) -> (Command, String) {
    let path = folder.display();
    let configuration = format!(
        r#"options {{
    directory "{path}"; pid-file none; session-keyfile none; lock-file none;
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; allow-transfer {{ none; }}; notify no; dnssec-validation no;
    empty-zones-enable no; minimal-responses no-auth; zero-no-soa-ttl no;
    max-records-per-type 0; check-names primary ignore;
}};
controls {{ }};
zone "mesos" {{ type primary; file "{path}/zone"; }};
"#
    );
    let mut command = Command::new("/usr/sbin/named");
    command.args(["-f", "-n", "1", "-L", "log", "-c", "conf"]);
    (command, configuration)
}

fn knotd(folder: &Path, port: u16) -> (Command, String) {
    let path = folder.display();
    let configuration = format!(
        "server:\n    rundir: {path}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    \
         tcp-workers: 1\ndatabase:\n    storage: {path}\nlog:\n  - target: {path}/log\n    \
         any: info\nzone:\n  - domain: mesos\n    file: {path}/zone\n    zonefile-sync: -1\n    \
         semantic-checks: off\n"
    );
    let mut command = Command::new("/usr/sbin/knotd");
    command.args(["-c", "conf"]);
    (command, configuration)
}

impl Other {
    fn start(lay_out: fn(&Path, u16) -> (Command, String), zone: &str) -> Other {
        let folder = tempfile::tempdir().unwrap();
        let (address, claim) = claim_port();
        let (mut command, configuration) = lay_out(folder.path(), address.port());
        std::fs::write(folder.path().join("zone"), zone).unwrap();
        std::fs::write(folder.path().join("conf"), configuration).unwrap();
        command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let mut other = Other { process, address, folder, _claim: claim };
        other.wait_until_ready();
        other
    }

    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        let asked = framed(&Query::of("mesos", Type::SOA).octets());
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("it ends with {status}\n{}", self.log());
            }
            if let Ok(stream) = TcpStream::connect(self.address) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut stream = stream;
                std::io::Write::write_all(&mut stream, &asked).unwrap();
                if read_framed(&mut stream)[3] & 0xf == 0 {
                    return;
                }
            }
            assert!(start.elapsed() < PATIENCE, "it is not ready\n{}", self.log());
            crate::running::between_looks();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// The three of them, each over UDP and TCP.
struct Three {
    _serving: Serving,
    _others: [Other; 2],
    udp: [UdpSocket; 3],
    tcp: [TcpStream; 3],
    failures: Vec<String>,
    /// How often each permission was needed.
    permitted: [usize; PERMITTED.len()],
    truncated_count: usize,
}

impl Three {
    fn start(zone: Zone) -> Three {
        let records = zone.records().fold(String::new(), |mut text, (key, ttl, rdata)| {
            writeln!(text, "{} {ttl} {} {rdata}", key.name, key.rtype).unwrap();
            text
        });
        let serving = Serving::start(snapshot(zone));
        let serial = serving.serial();
        let zone = format!(
            "$TTL 60\nmesos. SOA ns1.mesos. root.ns1.mesos. {serial} 60 600 86400 10\n\
             mesos. NS ns1.mesos.\nns1.mesos. A 10.0.0.2\n{records}"
        );
        let others = [Other::start(named, &zone), Other::start(knotd, &zone)];
        let addresses = [serving.address, others[0].address, others[1].address];
        let (udp, tcp) = (addresses.map(client), addresses.map(connect));
        let (failures, permitted, truncated_count) = (Vec::new(), Default::default(), 0);
        Three { _serving: serving, _others: others, udp, tcp, failures, permitted, truncated_count }
    }

    fn ask(&mut self, query: &Query, transport: Transport) {
        let octets = query.octets();
        let [ours, binds, knots] = match transport {
            Transport::Udp => self.udp.each_ref().map(|socket| asked(socket, &octets)),
            Transport::Tcp => self.tcp.each_mut().map(|stream| asked_over_tcp(stream, &octets)),
        }
        .map(|seen| seen.fixed(transport));
        self.truncated_count += usize::from(ours.truncated);
        let is_theirs = match binds == knots {
            true => ours == binds,
            // Where they differ, either will do.
            false => ours == binds || ours == knots,
        };
        if is_theirs {
            return;
        }
        match PERMITTED.iter().position(|(_, permits)| permits(query)) {
            Some(at) => self.permitted[at] += 1,
            None => self.failures.push(format!(
                "{query:?} over {transport}\nours  {ours:?}\nBIND  {binds:?}\nKnot  {knots:?}"
            )),
        }
    }

    #[track_caller]
    fn end(self) -> usize {
        let count = self.failures.len();
        let first = self.failures.into_iter().take(5).collect::<Vec<_>>().join("\n\n");
        assert_eq!(count, 0, "{first}");
        self.truncated_count
    }
}

fn asked(socket: &UdpSocket, query: &[u8]) -> Seen {
    socket.send(query).unwrap();
    let mut octets = vec![0; 65_535];
    let len = socket.recv(&mut octets).unwrap_or_else(|error| panic!("{query:?}: {error}"));
    assert_eq!(octets[..2], query[..2]);
    Seen::of(&octets[..len])
}

fn asked_over_tcp(stream: &mut TcpStream, query: &[u8]) -> Seen {
    std::io::Write::write_all(stream, &framed(query)).unwrap();
    Seen::of(&read_framed(stream))
}

/// Every name of the zone, every name between it and the apex, and names beside and below.
fn names(zone: &Zone) -> BTreeSet<String> {
    let owners = zone.iter().map(|(key, _)| key.name.clone());
    let standing: BTreeSet<Name> =
        owners.flat_map(|name| name.ancestors().collect::<Vec<_>>()).collect();
    let misses = standing.iter().enumerate().filter_map(|(n, name)| {
        let label: &[u8] = if n % 2 == 0 { b"no" } else { b"_no" };
        Some(name.child(label).ok()?.to_string())
    });
    let others = ["*.mesos.", "ns1.mesos.", "no.ns1.mesos.", "example.", "."].map(String::from);
    misses.chain(standing.iter().map(Name::to_string)).chain(others).collect()
}

/// Every other letter in upper case.
fn mixed(name: &str) -> String {
    let octets = name.char_indices();
    octets.map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect()
}

const TYPES: [Type; 7] = [Type::A, Type::AAAA, Type::SRV, Type::TXT, Type::SOA, Type::NS, Type::DS];

/// The records of every case, and an RRset of each kind that takes more than one datagram.
fn cases() -> BTreeMap<String, Zone> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/cases");
    let many = (1..100).fold(String::new(), |mut text, n| {
        writeln!(text, "many.mesos.\tA\t10.0.1.{n}").unwrap();
        writeln!(text, "_many._tcp.mesos.\tSRV\t0 1 {n} leader.mesos.").unwrap();
        text
    });
    let case = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let records = std::fs::read_to_string(path.join("records.txt")).unwrap();
        // Those of the domain's zone.
        let records = records.lines().filter(|line| !line.contains("\tPTR\t"));
        let records: String = records.map(|line| format!("{line}\n")).collect();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, zone_of(&(records + &many)))
    };
    std::fs::read_dir(folder).unwrap().map(case).collect()
}

#[test]
fn answers_are_those_of_bind_and_knot() {
    let mut truncated_count = 0;
    for (case, zone) in cases() {
        let names = names(&zone);
        let mut three = Three::start(zone);
        // Of a large case every so many names: the kinds of names come again and again.
        let step = names.len().div_ceil(600);
        for (at, name) in names.iter().enumerate().filter(|(at, _)| at % step == 0) {
            let spelled = if at % 2 == 0 { mixed(name) } else { name.clone() };
            for rtype in TYPES {
                let query = Query::of(&spelled, rtype);
                let size = [0, 511, 512, 1232, 1233, 4096][at % 6];
                three.ask(&query, Transport::Udp);
                three.ask(&Query { edns: Some((size, 0)), ..query.clone() }, Transport::Udp);
                three.ask(&query, Transport::Tcp);
            }
        }
        truncated_count += three.end();
        assert!(!names.is_empty(), "{case}");
    }
    assert!(truncated_count > 0, "nothing was long enough to be truncated");
}

#[test]
fn odd_questions_are_answered_as_bind_or_knot_answer_them() {
    let zone = cases().remove("real-mesos-running").unwrap();
    let mut three = Three::start(zone);
    for owner in
        ["mesos", "leader.mesos", "_leader._tcp.mesos", "_tcp.mesos", "no.mesos", "example"]
    {
        for rtype in [
            0, 41, 128, 249, 250, 253, 254, 1, 5, 12, 15, 28, 33, 35, 39, 43, 46, 47, 64, 65, 99,
            255, 256, 257, 65_280,
        ] {
            let query = Query::of(owner, Type(rtype));
            three.ask(&query, Transport::Udp);
            three.ask(&query, Transport::Tcp);
            three.ask(&Query { edns: Some((4096, 0)), ..query.clone() }, Transport::Udp);
            for opcode in 1..16 {
                three.ask(&Query { opcode, ..query.clone() }, Transport::Udp);
            }
            // Not of class CH: BIND limits how many of these it answers.
            for class in [4, 255] {
                three.ask(&Query { class, ..query.clone() }, Transport::Udp);
            }
        }
        for size in [0, 1, 511, 512, 513, 1231, 1232, 1233, 4096, 65_535] {
            let query = Query { edns: Some((size, 0)), ..Query::of(owner, Type::A) };
            three.ask(&query, Transport::Udp);
            for version in [1, 255] {
                three.ask(&Query { edns: Some((size, version)), ..query.clone() }, Transport::Udp);
            }
        }
    }
    for (count, (why, _)) in three.permitted.iter().zip(PERMITTED) {
        assert!(*count > 0, "no such difference any more: {why}");
    }
    three.end();
}
