//! BIND, Knot and NSD as secondaries of the bundled server: they have what it answers, through many
//! changes, restarts and serials that went ahead of the clock; and nobody else has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesozone::cluster::Cluster;
use mesozone::countersign::{self, Opened};
use mesozone::name::Name;
use mesozone::outgoing::Secondaries;
use mesozone::rr::{Rdata, Rrset, Ttl, Type};
use mesozone::served::Authority;
use mesozone::server::{Bound, Manner, serve};
use mesozone::snapshot::{Completeness, Snapshot};
use mesozone::tsig;
use mesozone::wire::{CLASS_IN, Header, OPCODE_NOTIFY, Rcode, Reader, Writer};
use mesozone::zone::{Key, Zone};
use socket2::{Domain, Socket};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::answering::Daemon;
use crate::peer::{claim_port, debian};
use crate::running::{between_looks, until};
use crate::simulated::Simulated;

const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &str = "key \"transfer-key\" {\n  algorithm hmac-sha256;\n  secret \
                   \"qvn1CquTPVExE7Spq9HjVHqTGGrDAEdqCzrKVZF2YnA=\";\n};\n";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn key() -> tsig::Key {
    tsig::Key::parse(KEY).unwrap()
}

/// The zone and the server's own part of it.
struct Served {
    zone: Zone,
}

impl Served {
    /// So many names, with an A record each and an SRV record for every third.
    fn of(count: usize) -> Served {
        let mut served = Served { zone: Zone::default() };
        (0..count).for_each(|at| served.set(at, 0));
        served
    }

    fn set(&mut self, at: usize, turn: usize) {
        let owner = format!("task-{at}.marathon.mesos");
        let set = |rdata| Some(Rrset::of_one(Ttl::from_secs(60), rdata));
        let address = Rdata::A([10, turn as u8, (at >> 8) as u8, at as u8].into());
        self.zone.set(Key { name: name(&owner), rtype: Type::A }, set(address));
        if at.is_multiple_of(3) {
            let key = Key { name: name(&format!("_{owner}")), rtype: Type::SRV };
            let port = 1_000 + turn as u16;
            let target = name(&owner);
            self.zone.set(key, set(Rdata::Srv { priority: 0, weight: 1, port, target }));
        }
    }

    fn unset(&mut self, at: usize) {
        let owner = format!("task-{at}.marathon.mesos");
        self.zone.set(Key { name: name(&owner), rtype: Type::A }, None);
        self.zone.set(Key { name: name(&format!("_{owner}")), rtype: Type::SRV }, None);
    }

    /// As `dig` prints it, sorted, without the SOA.
    fn lines(&self) -> BTreeSet<String> {
        let apex = ["mesos. 60 NS ns1.mesos.", "ns1.mesos. 60 A 10.0.0.2"].map(str::to_owned);
        let records = self.zone.records();
        let records =
            records.map(|(key, ttl, rdata)| format!("{} {ttl} {} {rdata}", key.name, key.rtype));
        apex.into_iter().chain(records).collect()
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        Some(Arc::new(Snapshot {
            unknown: Arc::default(),
            zone: self.zone.clone(),
            cluster: Cluster::default(),
            skipped: imbl::OrdMap::new(),
            unread: Arc::from([]),
            completeness: Completeness::Complete,
            complete_once: true,
            domain: "mesos".parse().unwrap(),
            reverse: BTreeMap::new(),
            read_at: SystemTime::now(),
            told_at: SystemTime::now(),
        }))
    }
}

fn manner(secondaries: Secondaries) -> Manner {
    let [refresh, retry, expire, negative_ttl, ttl] = [60, 5, 86400, 10, 60].map(Ttl::from_secs);
    let servers = vec![(name("ns1.mesos"), vec!["10.0.0.2".parse().unwrap()])];
    let (apex, rname) = (name("mesos"), name("root.ns1.mesos"));
    let authority = Authority { apex, servers, rname, refresh, retry, expire, negative_ttl, ttl };
    Manner { authorities: vec![authority], secondaries, ..Manner::default() }
}

/// The bundled server.
struct Primary {
    runtime: Runtime,
    address: SocketAddr,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Primary {
    fn start(address: SocketAddr, served: &Served, secondaries: Secondaries) -> Primary {
        let runtime = Runtime::new().unwrap();
        let bound = {
            let _inside = runtime.enter();
            Bound::bind(&[address]).unwrap()
        };
        let (snapshots, published) = watch::channel(served.snapshot());
        let (shutdown, stopped) = oneshot::channel::<()>();
        let stopped = async move { stopped.await.unwrap_or_default() };
        let ended = runtime.spawn(async move {
            serve(bound, published, watch::channel(manner(secondaries)).1, stopped)
                .await
                .expect("threads");
        });
        Primary { runtime, address, snapshots, shutdown, ended }
    }

    fn publish(&self, served: &Served) {
        self.snapshots.send_replace(served.snapshot());
    }

    fn stop(self) {
        self.shutdown.send(()).unwrap();
        self.runtime.block_on(self.ended).unwrap();
    }

    fn serial(&self) -> u32 {
        serial(self.address).expect("it serves the zone")
    }
}

/// What `dig` prints of the answers' records, blanks as single ones.
fn dig(server: SocketAddr, arguments: &[&str]) -> Vec<String> {
    let output = said(server, &[arguments, &["+noall", "+answer"]].concat());
    let records = output.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    let words = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "IN").collect();
        words
            .join(" ")
            .to_lowercase()
            .replace(" ns ", " NS ")
            .replace(" a ", " A ")
            .replace(" srv ", " SRV ")
            .replace(" soa ", " SOA ")
    };
    records.map(words).collect()
}

/// All of it.
fn said(server: SocketAddr, arguments: &[&str]) -> String {
    let (ip, port) = (format!("@{}", server.ip()), server.port().to_string());
    let mut command = debian("dig");
    command.args([&ip, "-p", &port, "+norec", "+tries=1", "+time=30"]).args(arguments);
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// None unless it answers for the zone.
fn serial(server: SocketAddr) -> Option<u32> {
    let answer = dig(server, &["mesos", "SOA", "+time=5", "+tries=4"]);
    answer.first()?.split(' ').nth(5)?.parse().ok()
}

/// The records of a transfer, sorted, without the SOA; none where it is refused.
fn axfr(server: SocketAddr, arguments: &[&str]) -> BTreeSet<String> {
    let is_soa = |line: &String| line.contains(" SOA ");
    let mut records = dig(server, &[arguments, &["mesos", "AXFR"]].concat());
    // Knot closes a connection whose reader had to wait for a processor.
    until("a transfer comes to its end", || {
        if records.iter().filter(|line| is_soa(line)).count() == 1 {
            records = dig(server, &[arguments, &["mesos", "AXFR"]].concat());
        }
        records.iter().filter(|line| is_soa(line)).count() != 1
    });
    records.into_iter().filter(|line| !is_soa(line)).collect()
}

/// Whether a server tells what changed since a serial, which it knows only if it was told so.
fn tells_differences(server: SocketAddr, since: u32) -> bool {
    let records = dig(server, &["mesos", &format!("IXFR={since}")]);
    let old = records.get(1).filter(|line| line.contains(" SOA "));
    old.is_some_and(|soa| soa.split(' ').nth(5) == Some(since.to_string().as_str()))
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kind {
    Bind,
    Knot,
    Nsd,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum By {
    Key,
    Address,
}

/// A secondary, killed on drop.
pub(crate) struct Secondary {
    kind: Kind,
    dir: TempDir,
    pub(crate) address: SocketAddr,
    _claim: UnixListener,
    child: Option<Child>,
}

impl Secondary {
    fn start(kind: Kind, primary: SocketAddr, by: By) -> Secondary {
        let (address, claim) = claim_port();
        Secondary::at(kind, (address, claim), |dir| {
            kind.configuration(dir, address.port(), primary.port(), by)
        })
    }

    /// One with a configuration for its directory.
    pub(crate) fn at(
        kind: Kind,
        (address, claim): (SocketAddr, UnixListener),
        configuration: impl FnOnce(&Path) -> String,
    ) -> Secondary {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(kind.file()), configuration(dir.path())).unwrap();
        let mut secondary = Secondary { kind, dir, address, _claim: claim, child: None };
        secondary.run();
        secondary
    }

    fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"));
        let log = log.unwrap();
        let mut command = match self.kind {
            Kind::Bind => debian("named"),
            Kind::Knot => debian("knotd"),
            Kind::Nsd => debian("nsd"),
        };
        command.current_dir(self.dir.path()).args(match self.kind {
            Kind::Bind => ["-g", "-c", "named.conf"],
            Kind::Knot => ["-v", "-c", "knot.conf"],
            Kind::Nsd => ["-d", "-c", "nsd.conf"],
        });
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// A clean stop, as by systemd.
    fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        // The child is not reaped before `wait`, so the id can belong to nobody else.
        let sent = Command::new("kill").arg(child.id().to_string()).status();
        assert!(sent.unwrap().success());
        child.wait().unwrap();
    }

    /// Waits until it has this edition, and compares all of it.
    #[track_caller]
    fn has(&self, served: &Served, edition: u32) {
        let start = Instant::now();
        while serial(self.address) != Some(edition) {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
            let has = serial(self.address);
            let late = start.elapsed() > PATIENCE;
            assert!(!late, "{:?} has {has:?}, not {edition}: {}", self.kind, log());
            between_looks();
        }
        let (has, wanted) = (axfr(self.address, &[]), served.lines());
        let differing: Vec<_> = has.symmetric_difference(&wanted).take(9).collect();
        assert!(differing.is_empty(), "{:?}: {differing:#?}", self.kind);
    }
}

impl Drop for Secondary {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended by itself is as good as one that was killed. NSD's processes end
            // with the first only where that is asked to stop.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Kind::Bind => "named.conf",
            Kind::Knot => "knot.conf",
            Kind::Nsd => "nsd.conf",
        }
    }

    fn configuration(self, dir: &Path, port: u16, primary: u16, by: By) -> String {
        let dir = dir.display();
        let secret = KEY.split('"').nth(3).unwrap();
        let with = |with: &'static str| if by == By::Key { with } else { "" };
        match self {
            Kind::Bind => {
                let key = with(" key transfer-key");
                format!(
                    r#"{KEY}
options {{
    directory "{dir}"; pid-file none; session-keyfile none; lock-file none;
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; allow-transfer {{ any; }}; notify no; dnssec-validation no;
    empty-zones-enable no;
}};
controls {{ }};
zone "mesos" {{
    type secondary; file "mesos.db";
    primaries {{ 127.0.0.1 port {primary}{key}; }};
}};
"#
                )
            }
            Kind::Knot => {
                let key = with(", key: transfer-key").replace(", ", "\n    ");
                format!(
                    r#"server:
    rundir: "{dir}"
    listen: 127.0.0.1@{port}
    tcp-io-timeout: 10000
database:
    storage: "{dir}"
log:
  - target: stdout
    any: info
key:
  - id: transfer-key
    algorithm: hmac-sha256
    secret: {secret}
remote:
  - id: primary
    address: 127.0.0.1@{primary}{key}
acl:
  - id: told
    address: 127.0.0.1
    action: notify{key}
  - id: anybody
    address: 127.0.0.1
    action: transfer
zone:
  - domain: mesos
    storage: "{dir}"
    master: primary
    acl: [told, anybody]
"#
                )
            }
            Kind::Nsd => {
                let key = if by == By::Key { "transfer-key" } else { "NOKEY" };
                format!(
                    r#"server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    zonesdir: "{dir}"
    database: ""
    zonelistfile: "{dir}/zone.list"
    xfrdfile: "{dir}/xfrd.state"
    xfrdir: "{dir}"
    pidfile: "{dir}/nsd.pid"
    verbosity: 2
remote-control:
    control-enable: no
key:
    name: transfer-key
    algorithm: hmac-sha256
    secret: "{secret}"
zone:
    name: mesos
    zonefile: mesos.zone
    store-ixfr: yes
    request-xfr: 127.0.0.1@{primary} {key}
    allow-notify: 127.0.0.1 {key}
    provide-xfr: 127.0.0.1 NOKEY
"#
                )
            }
        }
    }
}

/// Runs the claim for each kind of secondary at once.
#[track_caller]
fn on_each(claim: impl Fn(Kind) + Sync) {
    std::thread::scope(|scope| {
        let claim = &claim;
        let threads = [Kind::Bind, Kind::Knot, Kind::Nsd]
            .map(|kind| (kind, scope.spawn(move || claim(kind))));
        let threads = threads.into_iter();
        let failed: Vec<Kind> =
            threads.filter_map(|(kind, thread)| thread.join().is_err().then_some(kind)).collect();
        assert!(failed.is_empty(), "fails on {failed:?}");
    });
}

fn of(secondary: &Secondary, by: By) -> Secondaries {
    let key = (by == By::Key).then(key);
    Secondaries { addresses: vec![secondary.address], key }
}

/// Waits until the serial is another one.
#[track_caller]
fn moved(primary: &Primary, from: u32) -> u32 {
    until("the serial moves", || primary.serial() != from);
    primary.serial()
}

/// So many bursts of changes of so many names each.
fn follow(kind: Kind, by: By, (bursts, changes): (usize, usize)) {
    let count = 12 * changes / 5;

    let (address, _claim) = claim_port();
    let mut secondary = Secondary::start(kind, address, by);
    let mut served = Served::of(count);
    let primary = Primary::start(address, &served, of(&secondary, by));
    let mut edition = primary.serial();
    secondary.has(&served, edition);
    for turn in 1..=bursts {
        for at in (0..changes).map(|change| (change * 7 + turn * 11) % count) {
            match at % 10 {
                0 => served.unset(at),
                _ => served.set(at, turn),
            }
            primary.publish(&served);
        }
        let before = edition;
        until("all of it is an edition", || {
            edition = primary.serial();
            let is_whole = axfr(primary.address, &credentials(by)) == served.lines();
            is_whole && primary.serial() == edition
        });
        secondary.has(&served, edition);
        assert!(tells_differences(secondary.address, before), "{kind:?} was sent the whole zone");
    }
    secondary.stop();
    served.set(1, 77);
    primary.publish(&served);
    edition = moved(&primary, edition);
    secondary.run();
    secondary.has(&served, edition);
    served.set(2, 77);
    primary.publish(&served);
    edition = moved(&primary, edition);
    secondary.has(&served, edition);
}

/// For `dig`: how it proves to be one of the secondaries.
fn credentials(by: By) -> Vec<&'static str> {
    let key = "hmac-sha256:transfer-key:qvn1CquTPVExE7Spq9HjVHqTGGrDAEdqCzrKVZF2YnA=";
    if by == By::Key { vec!["-y", key] } else { Vec::new() }
}

#[test]
fn a_secondary_by_key_has_each_edition_of_ten_thousand_changes_and_those_it_missed() {
    on_each(|kind| follow(kind, By::Key, (4, 2_500)));
}

#[test]
fn a_secondary_by_address_has_each_edition_and_those_it_missed() {
    on_each(|kind| follow(kind, By::Address, (1, 500)));
}

#[test]
fn serials_go_on_above_what_a_secondary_has_and_never_back() {
    on_each(|kind| {
        let (address, _claim) = claim_port();
        let secondary = Secondary::start(kind, address, By::Key);
        let mut served = Served::of(20);
        let primary = Primary::start(address, &served, of(&secondary, By::Key));
        let first = primary.serial();
        secondary.has(&served, first);
        let ahead = first + 1_000_000;
        let asked = format!("IXFR={ahead}");
        let answer = dig(address, &[&credentials(By::Key)[..], &["mesos", &asked]].concat());
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert_eq!(moved(&primary, first), ahead + 1);
        secondary.has(&served, ahead + 1);
        primary.stop();
        served.set(1, 9);
        let primary = Primary::start(address, &served, of(&secondary, By::Key));
        assert_eq!(primary.serial(), ahead + 2, "the secondary was asked which it has");
        secondary.has(&served, ahead + 2);
        primary.stop();
        let primary = Primary::start(address, &served, Secondaries::default());
        assert!(primary.serial() > first, "the clock alone goes on");
    });
}

#[test]
fn a_server_that_starts_anew_within_the_second_has_another_serial() {
    let (address, _claim) = claim_port();
    let mut last = 0;
    for turn in 0..3 {
        let mut served = Served::of(20);
        served.set(1, turn);
        let primary = Primary::start(address, &served, Secondaries::default());
        assert!(primary.serial() >= last, "{} after {last}", primary.serial());
        last = primary.serial();
        primary.stop();
    }
}

/// A server whose zone this host may have with the key, on a port that nobody else has.
fn guarded(served: &Served) -> (Primary, UdpSocket) {
    let (address, _claim) = claim_port();
    let fake = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    fake.set_read_timeout(Some(PATIENCE)).unwrap();
    let secondaries = Secondaries { addresses: vec![fake.local_addr().unwrap()], key: Some(key()) };
    (Primary::start(address, served, secondaries), fake)
}

#[test]
fn a_transfer_needs_the_key_and_the_address_where_both_are_given() {
    let served = Served::of(20);
    let (primary, _fake) = guarded(&served);
    let ours = credentials(By::Key);
    let ask = |arguments: &[&str]| said(primary.address, arguments);
    assert_eq!(axfr(primary.address, &ours), served.lines());
    for refused in [&["mesos", "AXFR"][..], &["mesos", "IXFR=1"]] {
        assert!(ask(refused).contains("Transfer failed"), "{}", ask(refused));
        let elsewhere = [&ours[..], &["-b", "127.0.0.2"], refused].concat();
        assert!(ask(&elsewhere).contains("Transfer failed"), "{}", ask(&elsewhere));
    }
    let below = ask(&[&ours[..], &["task-1.marathon.mesos", "AXFR"]].concat());
    assert!(below.contains("Transfer failed"), "{below}");
    for transport in ["+tcp", "+notcp"] {
        let soa = ask(&[&ours[..], &["mesos", "SOA", transport]].concat());
        assert!(soa.contains("status: NOERROR") && soa.contains("TSIG PSEUDOSECTION"), "{soa}");
        assert!(!soa.contains("WARNING") && !soa.contains("verify"), "{soa}");
        for (key, error) in [
            ("hmac-sha256:transfer-key:qvn1", "BADSIG"),
            ("hmac-sha512:transfer-key:qvn1", "BADKEY"),
            ("hmac-sha256:other:qvn1", "BADKEY"),
        ] {
            let soa = ask(&["-y", key, "mesos", "SOA", transport]);
            assert!(soa.contains("status: NOTAUTH") && soa.contains(error), "{soa}");
            assert!(ask(&["-y", key, "mesos", "AXFR"]).contains("ransfer failed"));
        }
    }
    let over_udp = dig(primary.address, &[&ours[..], &["mesos", "IXFR=1", "+notcp"]].concat());
    assert_eq!(over_udp.len(), 1, "{over_udp:?}");
}

#[test]
fn dig_is_told_what_changed() {
    let mut served = Served::of(2);
    let (primary, _fake) = guarded(&served);
    let first = primary.serial();
    served.unset(0);
    served.set(1, 7);
    primary.publish(&served);
    let second = moved(&primary, first);
    let soa = |serial| format!("mesos. 60 SOA ns1.mesos. root.ns1.mesos. {serial} 60 5 86400 10");
    let ask = |serial: u32| {
        let asked = format!("IXFR={serial}");
        dig(primary.address, &[&credentials(By::Key)[..], &["mesos", &asked]].concat())
    };
    let differences = [
        &soa(second),
        &soa(first),
        "task-0.marathon.mesos. 60 A 10.0.0.0",
        "task-1.marathon.mesos. 60 A 10.0.0.1",
        "_task-0.marathon.mesos. 60 SRV 0 1 1000 task-0.marathon.mesos.",
        &soa(second),
        "task-1.marathon.mesos. 60 A 10.7.0.1",
        &soa(second),
    ];
    let sorted = |mut lines: Vec<String>| {
        lines[2..5].sort();
        lines
    };
    assert_eq!(sorted(ask(first)), sorted(differences.map(String::from).to_vec()));
    assert_eq!(ask(second), [soa(second)]);
    let whole = ask(first - 1);
    assert_eq!((whole.len(), &whole[0]), (served.lines().len() + 2, &soa(second)));
}

/// The serial in a NOTIFY, and the whole of it; signed with our key.
fn told(fake: &UdpSocket) -> (u32, Vec<u8>, SocketAddr) {
    let mut message = vec![0; 512];
    let (len, from) = fake.recv_from(&mut message).unwrap();
    message.truncate(len);
    let (header, mut reader) = Reader::behind_question(&message).unwrap();
    assert_eq!((header.opcode(), header.counts), (OPCODE_NOTIFY, [1, 1, 0, 1]));
    let record = reader.record().unwrap();
    (record.soa_serial().unwrap().0, message, from)
}

/// Answers a NOTIFY, signed.
fn take_note(fake: &UdpSocket, request: &[u8], from: SocketAddr) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let key = key();
    let opened = countersign::open(request, Some(&key), now);
    let Opened::Signed(_, mut signer) = opened else { panic!("unsigned") };
    let mut reply = countersign::error(request, Rcode::NOERROR).unwrap();
    signer.sign(&mut reply, now);
    fake.send_to(&reply, from).unwrap();
}

#[test]
fn a_secondary_is_told_until_it_has_what_it_is_told_of() {
    let mut served = Served::of(2);
    let (primary, fake) = guarded(&served);
    let first = primary.serial();
    let [(serial, early, _), (again, late, from)] = [told(&fake), told(&fake)];
    assert_eq!((serial, again), (first, first));
    assert_eq!(from.ip(), primary.address.ip());
    assert_ne!(early[..2], late[..2], "another id");
    // What is not signed is nobody's answer.
    let unsigned = countersign::error(&late, Rcode::NOERROR).unwrap();
    fake.send_to(&unsigned, from).unwrap();
    let (serial, request, from) = told(&fake);
    assert_eq!(serial, first);
    take_note(&fake, &request, from);
    assert_eq!(told(&fake).0, first, "it took note, but does not have it");
    served.set(1, 8);
    primary.publish(&served);
    let second = moved(&primary, first);
    until("it is told of the second", || told(&fake).0 == second);
}

#[test]
fn run_tells_its_secondaries_and_says_when_one_does_not_listen_and_when_it_does_again() {
    let master = Simulated::start(&["--tasks", "5"]);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, KEY).unwrap();
    let (address, _claim) = claim_port();
    let server = format!(
        "transfer = {{ secondaries = [\"{address}\"], tsig_key_file = \"{}\" }}",
        file.display()
    );
    let daemon = Daemon::with(&[format!("http://{}", master.address)], "", &server);
    daemon.says(&format!("the secondary {address} does not take note of changes"));
    let fake = UdpSocket::bind(address).unwrap();
    fake.set_read_timeout(Some(PATIENCE)).unwrap();
    let (edition, request, from) = told(&fake);
    assert_eq!(serial(daemon.address), Some(edition));
    take_note(&fake, &request, from);
    daemon.says(&format!("the secondary {address} answers again"));
    let records = axfr(daemon.address, &credentials(By::Key));
    assert!(records.iter().any(|line| line.contains(".marathon.mesos. 60 A ")), "{records:?}");
    assert!(axfr(daemon.address, &[]).is_empty());
}

#[test]
fn slow_readers_lose_their_places_to_others() {
    const PLACES: usize = 8;
    // More than kernels keep for a connection: a long target for each name.
    let mut served = Served::of(0);
    let label = "x".repeat(60);
    for at in 0..40_000_u32 {
        let target = name(&format!("{label}.{label}.{label}.t{at}.mesos"));
        let rdata = Rdata::Srv { priority: 0, weight: 1, port: 1, target };
        let key = Key { name: name(&format!("_s{at}.mesos")), rtype: Type::SRV };
        served.zone.set(key, Some(Rrset::of_one(Ttl::from_secs(60), rdata)));
    }
    let (address, _claim) = claim_port();
    let nobody = vec!["127.0.0.1:9".parse().unwrap()];
    let secondaries = Secondaries { addresses: nobody, key: None };
    let primary = Primary::start(address, &served, secondaries);
    let mut writer = Writer::new(7, 0);
    writer.question(&name("mesos"), Type::AXFR, CLASS_IN);
    let request = writer.finish();
    let framed = [&(request.len() as u16).to_be_bytes(), &request[..]].concat();
    let start = Instant::now();
    let mut slow: Vec<TcpStream> = (0..PLACES).map(|_| narrow(primary.address)).collect();
    for stream in &mut slow {
        stream.write_all(&framed).unwrap();
        let mut opening = [0; 6];
        stream.read_exact(&mut opening).unwrap();
        let header = Header::parse(&[&opening[2..], &[0; 8]].concat()).unwrap();
        assert_eq!((header.id, header.rcode().0), (7, 0));
    }
    assert_eq!(axfr(primary.address, &["+time=50"]).len(), served.lines().len());
    assert!(start.elapsed() > Duration::from_secs(9), "it did not wait for its place");
    let cut = slow.into_iter().filter_map(|mut stream| {
        let mut rest = Vec::new();
        // A connection that was cut may end in an error as well.
        let _ = stream.read_to_end(&mut rest);
        (rest.len() < 40_000 * 200).then_some(stream)
    });
    assert!(cut.count() > 0, "who waited had no place of theirs");
}

/// A connection that takes little before it is read.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}
