//! The servers that are compared, each with the same zone and one core.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use mesozone::cluster::Cluster;
use mesozone::name::Name;
use mesozone::rr::{Rdata, Rrset, Ttl, Type};
use mesozone::served::Authority;
use mesozone::server::{Bound, Manner, serve};
use mesozone::snapshot::{Completeness, Snapshot};
use mesozone::zone::{Key, Zone};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::peer::claim_port;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Server {
    Mesozone,
    Knot,
    Nsd,
    Bind,
}

impl Server {
    pub(crate) const ALL: [Server; 4] = [Server::Mesozone, Server::Knot, Server::Nsd, Server::Bind];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Server::Mesozone => "mesozone",
            Server::Knot => "Knot",
            Server::Nsd => "NSD",
            Server::Bind => "BIND",
        }
    }

    /// Writes its configuration; the command that starts it in the foreground.
    fn lay_out(self, dir: &Path, port: u16, records: usize) -> Vec<String> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let write = |name: &str, text: String| fs::write(dir.join(name), text).expect("a file");
        match self {
            Server::Mesozone => {
                let program = std::env::current_exe().expect("this program");
                vec![program.display().to_string(), format!("child {port} {records}")]
            }
            Server::Knot => {
                let conf = format!(
                    "server:\n    rundir: {0}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    \
                     tcp-workers: 1\n    background-workers: 1\ndatabase:\n    storage: {0}\n\
                     log:\n  - target: stdout\n    any: error\nzone:\n  - domain: mesos\n    \
                     file: {0}/mesos.zone\n    zonefile-sync: -1\n",
                    dir.display()
                );
                write("knot.conf", conf);
                words("/usr/sbin/knotd -c knot.conf")
            }
            Server::Nsd => {
                let conf = format!(
                    "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: \"\"\n  \
                     chroot: \"\"\n  zonesdir: \"{0}\"\n  pidfile: \"\"\n  xfrdir: \"{0}\"\n  \
                     xfrdfile: \"\"\n  minimal-responses: yes\n  zonelistfile: \"{0}/zone.list\"\n  rrl-ratelimit: 0\n\
                     remote-control:\n  control-enable: no\nzone:\n  name: mesos\n  \
                     zonefile: mesos.zone\n",
                    dir.display()
                );
                write("nsd.conf", conf);
                words("/usr/sbin/nsd -d -c nsd.conf")
            }
            Server::Bind => {
                let conf = format!(
                    "options {{ directory \"{}\"; pid-file none; lock-file none; session-keyfile none; \
                     listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; \
                     notify no; dnssec-validation no; minimal-responses no-auth; }};\ncontrols {{ }};\n\
                     zone \"mesos\" {{ type primary; file \"mesos.zone\"; check-names ignore; }};\n",
                    dir.display()
                );
                write("named.conf", conf);
                words("/usr/sbin/named -f -4 -n 1 -L log -c named.conf")
            }
        }
    }
}

struct Running {
    server: Server,
    addr: SocketAddr,
    child: Child,
    _claim: UnixListener,
}

/// All of them. They end with the value.
pub(crate) struct Stand {
    servers: Vec<Running>,
    stdin: Mutex<Option<ChildStdin>>,
    /// Resident memory of ours beyond the zone's, in KiB.
    over_zone: u64,
    _dir: TempDir,
}

impl Stand {
    pub(crate) fn start(records: usize) -> Stand {
        let dir = TempDir::new().expect("a temporary directory");
        fs::write(dir.path().join("mesos.zone"), zone_file(records)).expect("a zone file");
        let (mut servers, mut stdin, mut over_zone) = (Vec::new(), None, 0);
        for server in Server::ALL {
            let (addr, claim) = claim_port();
            let words = server.lay_out(dir.path(), addr.port(), records);
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).args(words).current_dir(dir.path());
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().expect("taskset, and the server");
            let output = BufReader::new(child.stdout.take().expect("a pipe"));
            if server == Server::Mesozone {
                stdin = child.stdin.take();
                let line = output.lines().next().expect("a line").expect("in UTF-8");
                over_zone = line.parse().expect("a number of KiB");
            } else {
                std::thread::spawn(move || output.lines().for_each(drop));
            }
            servers.push(Running { server, addr, child, _claim: claim });
        }
        let stand = Stand { servers, stdin: Mutex::new(stdin), over_zone, _dir: dir };
        Server::ALL.iter().for_each(|server| until_it_answers(stand.addr(*server)));
        stand
    }

    fn running(&self, server: Server) -> &Running {
        self.servers.iter().find(|running| running.server == server).expect("all are started")
    }

    pub(crate) fn addr(&self, server: Server) -> SocketAddr {
        self.running(server).addr
    }

    /// The processor time of the server's processes so far.
    pub(crate) fn cpu(&self, server: Server) -> Duration {
        let mut processes = vec![self.running(server).child.id()];
        let mut nanos = 0;
        while let Some(id) = processes.pop() {
            for thread in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
                let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
                let spent = read("schedstat");
                nanos += spent.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
                processes
                    .extend(read("children").split(' ').filter_map(|id| id.parse::<u32>().ok()));
            }
        }
        Duration::from_nanos(nanos)
    }

    pub(crate) fn ours_over_zone(&self) -> u64 {
        self.over_zone
    }

    /// Has so many records a second of ours change from now on.
    pub(crate) fn churn(&self, records: usize) {
        let mut stdin = self.stdin.lock().expect("no panic under the lock");
        writeln!(stdin.as_mut().expect("ours is started"), "{records}").expect("ours runs");
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        for running in &mut self.servers {
            // One that has ended by itself is as good.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a server that loads a zone is not to be disturbed")]
fn until_it_answers(addr: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout above zero");
    let question = b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x05mesos\0\0\x06\0\x01";
    let (deadline, mut reply) = (Instant::now() + Duration::from_secs(120), [0; 512]);
    loop {
        let came = socket.send_to(question, addr).and_then(|_| socket.recv(&mut reply));
        if came.is_ok() && reply[3] & 0x0f == 0 && reply[7] == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "no answer from {addr}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Half the records are addresses, half services.
fn zone_file(records: usize) -> String {
    let mut text = "$ORIGIN mesos.\n$TTL 60\n@ SOA ns1 root.ns1 1 60 600 86400 10\n@ NS ns1\n\
                    ns1 A 127.0.0.1\n"
        .to_owned();
    for n in 0..records / 2 {
        let [_, a, b, c] = (n as u32).to_be_bytes();
        writeln!(text, "task-{n}.marathon A 10.{a}.{b}.{c}").expect("into a String");
        writeln!(text, "_task-{n}._tcp.marathon SRV 0 1 31000 task-{n}.marathon")
            .expect("the same");
    }
    text
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn address(n: usize, last: u8) -> (Key, Rrset) {
    let [_, a, b, _] = (n as u32).to_be_bytes();
    let key = Key { name: name(&format!("task-{n}.marathon.mesos")), rtype: Type::A };
    (key, Rrset::of_one(Ttl::from_secs(60), Rdata::A([10, a, b, last].into())))
}

fn service(n: usize) -> (Key, Rrset) {
    let target = name(&format!("task-{n}.marathon.mesos"));
    let data = Rdata::Srv { priority: 0, weight: 1, port: 31_000, target };
    let key = Key { name: name(&format!("_task-{n}._tcp.marathon.mesos")), rtype: Type::SRV };
    (key, Rrset::of_one(Ttl::from_secs(60), data))
}

fn authority() -> Authority {
    let [refresh, retry, expire, negative_ttl, ttl] = [60, 600, 86400, 10, 60].map(Ttl::from_secs);
    let servers = vec![(name("ns1.mesos"), vec!["127.0.0.1".parse().expect("an address")])];
    let (apex, rname) = (name("mesos"), name("root.ns1.mesos"));
    Authority { apex, servers, rname, refresh, retry, expire, negative_ttl, ttl }
}

fn snapshot(zone: &Zone) -> Option<Arc<Snapshot>> {
    Some(Arc::new(Snapshot {
        unknown: Arc::default(),
        zone: zone.clone(),
        reverse: BTreeMap::new(),
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

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The bundled server, in a process of its own: prints its memory beyond the zone's once it
/// answers, and takes from its input how many records are to change a second.
#[expect(
    clippy::disallowed_methods,
    reason = "the process is over with its input, and leaves nothing"
)]
pub(crate) fn child(args: &str) {
    let (port, records) = args.split_once(' ').expect("a port and a number of records");
    let (addr, records): (SocketAddr, usize) =
        (format!("127.0.0.1:{port}").parse().expect("a port"), records.parse().expect("a number"));
    let mut zone: Zone = (0..records / 2).flat_map(|n| [address(n, n as u8), service(n)]).collect();
    let zone_alone = resident();
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let (publisher, snapshots) = watch::channel(snapshot(&zone));
    let bound = {
        let _inside = runtime.enter();
        Bound::bind(&[addr]).expect("a free port")
    };
    runtime.spawn(async move {
        let manner = Manner { authorities: vec![authority()], ..Manner::default() };
        serve(bound, snapshots, watch::channel(manner).1, std::future::pending())
            .await
            .expect("threads");
    });
    until_it_answers(addr);
    println!("{}", resident() - zone_alone);
    let rate = Arc::new(AtomicUsize::new(0));
    let told = rate.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            told.store(line.parse().expect("a number"), Ordering::Release);
        }
        std::process::exit(0);
    });
    let mut at = 0;
    loop {
        pause();
        let count = rate.load(Ordering::Acquire) / 20;
        for _ in 0..count {
            at += 7;
            let (key, rrset) = address(at % (records / 2), (at / 3) as u8);
            zone.set(key, Some(rrset));
        }
        if count > 0 {
            publisher.send_replace(snapshot(&zone));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "changes come at their times")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// Has this process run on that core alone.
pub(crate) fn pin_to_core(core: usize) {
    let id = std::process::id().to_string();
    let mut taskset = Command::new("taskset");
    taskset.args(["-cp", &core.to_string(), &id]).stdout(Stdio::null());
    assert!(taskset.status().expect("taskset runs").success());
}
