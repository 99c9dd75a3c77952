//! Name servers under test: processes of their own on loopback, made from the files in
//! `examples/`, so that what is shipped is what is tested.

mod ask;
mod policy;
mod shipped;

pub(crate) use ask::nsupdate;
pub(crate) use policy::Frozen;
pub(crate) use shipped::{accepts, example};

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Bind,
    Knot,
    PowerDns,
}

/// What the key `mesozone` may do. The key `admin`, which only the tests have, may do everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// What the examples grant, and nothing else.
    Exact,
    TransferOnly,
    UpdateOnly,
    None,
}

impl Grant {
    fn transfer(self) -> bool {
        matches!(self, Grant::Exact | Grant::TransferOnly)
    }

    fn update(self) -> bool {
        matches!(self, Grant::Exact | Grant::UpdateOnly)
    }
}

pub(crate) struct Setup<'a> {
    /// Without the final dot.
    pub(crate) zone: &'a str,
    /// At and below which the key may update; `None`: the zone.
    pub(crate) domain: Option<&'a str>,
    /// Lines of a zone file, relative to the zone.
    pub(crate) records: &'a str,
    pub(crate) grant: Grant,
    /// Seconds by which the server's clock is ahead.
    pub(crate) clock: i64,
    /// Lines for the zone's block in the configuration; with PowerDNS, for its only block.
    pub(crate) extra: &'a str,
    /// Of the key `mesozone`.
    pub(crate) algorithm: &'a str,
    /// The types that the key may update; none: what the examples grant.
    pub(crate) types: &'a [&'a str],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Setup {
            zone: "mesos",
            domain: None,
            records: "",
            grant: Grant::Exact,
            clock: 0,
            extra: "",
            algorithm: "hmac-sha256",
            types: &[],
        }
    }
}

impl Setup<'_> {
    fn domain(&self) -> &str {
        self.domain.unwrap_or(self.zone)
    }
}

impl Peer {
    pub(crate) const ALL: [Peer; 3] = [Peer::Bind, Peer::Knot, Peer::PowerDns];

    /// A new server that answers for its zone.
    #[track_caller]
    pub(crate) fn start(self, setup: &Setup) -> Running {
        let dir = TempDir::new().expect("a temporary directory");
        let (addr, claim) = claim_port();
        shipped::lay_out(self, setup, dir.path(), addr);
        let (zone, clock) = (setup.zone.to_owned(), setup.clock);
        let mut running =
            Running { peer: self, dir, addr, _claim: claim, zone, clock, child: None };
        running.start();
        running
    }

    fn command(self, dir: &Path) -> Command {
        let (program, args): (&str, &[&str]) = match self {
            Peer::Bind => ("named", &["-f", "-4", "-L", "log", "-c", "named.conf"]),
            Peer::Knot => ("knotd", &["-c", "knot.conf"]),
            Peer::PowerDns => (
                "pdns_server",
                &["--config-dir=.", "--daemon=no", "--guardian=no", "--disable-syslog"],
            ),
        };
        let mut command = debian(program);
        command.args(args).current_dir(dir);
        command
    }
}

/// Runs the claim on every peer at once.
#[track_caller]
pub(crate) fn on_every_peer(claim: impl Fn(Peer) + Sync) {
    std::thread::scope(|scope| {
        let claim = &claim;
        let threads = Peer::ALL.map(|peer| (peer, scope.spawn(move || claim(peer))));
        let failed: Vec<Peer> = threads
            .into_iter()
            .filter_map(|(peer, thread)| thread.join().is_err().then_some(peer))
            .collect();
        assert!(failed.is_empty(), "fails on {failed:?}");
    });
}

/// A server process. It is killed when this is dropped, and its directory goes with it.
pub(crate) struct Running {
    peer: Peer,
    dir: TempDir,
    addr: SocketAddr,
    _claim: UnixListener,
    zone: String,
    clock: i64,
    child: Option<Child>,
}

impl Running {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.dir().join("mesozone.key")
    }

    /// The name of the key with another secret: BADSIG.
    pub(crate) fn wrong_secret_key_file(&self) -> PathBuf {
        self.dir().join("wrong-secret.key")
    }

    /// A key that the server has never heard of: BADKEY.
    pub(crate) fn unknown_key_file(&self) -> PathBuf {
        self.dir().join("unknown.key")
    }

    pub(crate) fn admin_key_file(&self) -> PathBuf {
        self.dir().join("admin.key")
    }

    /// Starts the server where it left off, on the same port.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{:?} runs already", self.peer);
        let log = File::options().create(true).append(true).open(self.dir().join("out"));
        let log = log.expect("a file for the server's output");
        let mut command = self.peer.command(self.dir());
        set_clock(&mut command, self.clock);
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child =
            Some(command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}")));
        self.wait_until_it_answers();
    }

    /// A clean stop, as by systemd.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("a server that runs");
        // The child is not reaped before `wait`, so the id can belong to nobody else.
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        child.wait().expect("a child of ours");
    }

    /// A stop without warning.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        let child = self.child.take().expect("a server that runs");
        self.end(child).expect("a child of ours");
    }

    /// Sends it a signal, `STOP` or `CONT`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("a server that runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn end(&self, mut child: Child) -> io::Result<()> {
        child.kill()?;
        child.wait()?;
        if self.clock != 0 {
            // Named for the process, and in the way of the next that has its id.
            for name in ["faketime_shm", "sem.faketime_sem"] {
                fs::remove_file(format!("/dev/shm/{name}_{}", child.id()))?;
            }
        }
        Ok(())
    }

    #[track_caller]
    fn wait_until_it_answers(&mut self) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
        // The wait between two tries: a socket that is not connected hears of no closed port.
        socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout above zero");
        let question = soa_question(&self.zone);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !(answers(&socket, self.addr, &question) && TcpStream::connect(self.addr).is_ok()) {
            let child = self.child.as_mut().expect("the server just started");
            let ended = child.try_wait().expect("a child of ours");
            if ended.is_some() || Instant::now() > deadline {
                panic!(
                    "{:?} at {} does not answer ({ended:?}):\n{}",
                    self.peer,
                    self.addr,
                    self.log()
                );
            }
        }
    }

    /// What the server wrote so far.
    pub(crate) fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.dir().join(name)).unwrap_or_default();
        read("out") + &read("log")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // A server that has ended by itself is as good as one that was killed.
            let _ = self.end(child);
        }
    }
}

/// A program of Debian's, also where PATH has no sbin.
pub(crate) fn debian(program: &str) -> Command {
    let sbin = Path::new("/usr/sbin").join(program);
    if sbin.exists() { Command::new(sbin) } else { Command::new(program) }
}

fn set_clock(command: &mut Command, ahead: i64) {
    if ahead == 0 {
        return;
    }
    let library = fs::read_dir("/usr/lib")
        .expect("/usr/lib")
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|library| library.exists())
        .expect("the package faketime");
    // BIND's own allocator asks for the time before the library is ready, and hangs; with libc's
    // in front of it, it does not.
    command.env("LD_PRELOAD", format!("{}:libc.so.6", library.display()));
    command.env("FAKETIME", format!("{ahead:+}"));
    // Timers run on the monotonic clock, and are to expire when they should.
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

/// A port of 127.0.0.1 and the claim to it, so that it stays ours between a stop and a start. It
/// is below those that the kernel gives to clients; BIND takes no other loopback address.
pub(crate) fn claim_port() -> (SocketAddr, UnixListener) {
    static PORTS: Mutex<Range<u16>> = Mutex::new(20_000..32_768);
    loop {
        let port = PORTS.lock().expect("no panic under the lock").next().expect("a port is free");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // The kernel takes the claim back when this process ends, however it ends.
        let name = unix::SocketAddr::from_abstract_name(format!("mesozone-test-{port}"));
        let claim = name.and_then(|name| UnixListener::bind_addr(&name));
        if let (Ok(claim), Ok(_), Ok(_)) = (claim, UdpSocket::bind(addr), TcpListener::bind(addr)) {
            return (addr, claim);
        }
    }
}

fn soa_question(zone: &str) -> Vec<u8> {
    // Id 1, a plain query, one question.
    let mut message = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in zone.split('.') {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend(label.as_bytes());
    }
    // The root, type SOA, class IN.
    message.extend([0, 0, 6, 0, 1]);
    message
}

/// Whether there is an authoritative answer, NOERROR with a record, within the socket's timeout.
fn answers(socket: &UdpSocket, addr: SocketAddr, question: &[u8]) -> bool {
    let mut reply = [0; 512];
    let received = socket.send_to(question, addr).and_then(|_| socket.recv(&mut reply));
    match received {
        Ok(octets) if octets > 12 => {
            reply[2] & 0x84 == 0x84 && reply[3] & 0x0f == 0 && reply[6..8] != [0, 0]
        }
        Ok(_) => false,
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => false,
        Err(e) => panic!("cannot ask {addr}: {e}"),
    }
}
