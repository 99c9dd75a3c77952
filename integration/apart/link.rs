//! Two hosts and the link between them: each host a network namespace, the link a router of our
//! own that delays, loses and withholds packets, whatever the kernel has for that.
//!
//! Each host has a veth pair to a third namespace, the router's, and a VXLAN interface that wraps
//! its packets in UDP to a socket of ours there; what comes in from one host goes out to the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

/// The port of VXLAN.
const PORT: u16 = 4789;
/// What a link holds that is slower than its senders, before it drops.
const QUEUE: Duration = Duration::from_millis(500);

/// The router's socket towards a host, and the host's address there.
type End = (UdpSocket, SocketAddr);

/// A network namespace, which goes with the last that uses it.
pub(crate) struct Host {
    namespace: File,
    pub(crate) address: Ipv4Addr,
}

impl Host {
    fn new(address: Ipv4Addr) -> Host {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
            File::open("/proc/thread-self/ns/net").expect("this thread's namespace")
        });
        Host { namespace: made.join().expect("a new network namespace"), address }
    }

    /// Does something on this host: sockets and processes that come of it belong there.
    #[track_caller]
    pub(crate) fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let done = thread::scope(|scope| {
            let there = scope.spawn(|| {
                setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("a namespace of ours");
                task()
            });
            there.join()
        });
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// The last octet stands for the host in the addresses of either layer.
    fn hardware_address(&self) -> String {
        format!("02:00:00:00:00:{:02x}", self.address.octets()[3])
    }

    /// The interface `far` towards another host, and the router's socket behind it.
    fn join(&self, other: &Host, router: &Host) -> End {
        let [own, to] = [self, other].map(Host::hardware_address);
        let (own_octet, path) = (self.address.octets()[3], self.path());
        let [gateway, below] = [1, 2].map(|last| Ipv4Addr::new(10, 0, own_octet, last));
        let socket = router.run(|| {
            let pair = format!("to{own_octet}");
            ip(&format!("link add {pair} type veth peer name near netns {path}"));
            ip(&format!("address add {gateway}/24 dev {pair}"));
            ip(&format!("link set {pair} up"));
            UdpSocket::bind((gateway, PORT)).expect("an address of the router's")
        });
        self.run(|| {
            ip("link set lo up");
            ip(&format!("address add {below}/24 dev near"));
            ip("link set near up");
            ip(&format!(
                "link add far address {own} mtu 1400 type vxlan id 1 dstport {PORT} local {below} \
                 remote {gateway} nolearning"
            ));
            // Packets as they would be on a wire, with their checksums.
            let whole = ["-K", "far", "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
            succeeds(Command::new("/usr/sbin/ethtool").args(whole));
            ip(&format!("address add {}/24 dev far", self.address));
            ip("link set far up");
            // As behind a router: a partition is not told by the neighbour's silence.
            ip(&format!("neighbour add {} lladdr {to} dev far nud permanent", other.address));
        });
        (socket, (below, PORT).into())
    }

    /// Where others find the namespace while this is there.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }
}

#[track_caller]
fn ip(words: &str) {
    succeeds(Command::new("/usr/sbin/ip").args(words.split_whitespace()));
}

#[track_caller]
fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// What the link does to what passes, either way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Quality {
    pub(crate) delay: Duration,
    /// Of a hundred packets.
    pub(crate) loss: u32,
    /// Octets a second; zero: as many as there are.
    pub(crate) rate: u32,
    /// Nothing passes.
    pub(crate) cut: bool,
}

#[derive(Default)]
struct State {
    quality: Quality,
    /// Packets that did not arrive.
    dropped: usize,
    passed_octets: usize,
    closed: bool,
}

pub(crate) struct Link {
    pub(crate) near: Host,
    pub(crate) far: Host,
    state: Arc<Mutex<State>>,
}

impl Link {
    pub(crate) fn new(quality: Quality) -> Link {
        let [near, far] = [1, 53].map(|last| Host::new(Ipv4Addr::new(192, 0, 2, last)));
        let router = Host::new(Ipv4Addr::UNSPECIFIED);
        let ends = [near.join(&far, &router), far.join(&near, &router)];
        // Its sockets keep the router.
        let state = Arc::new(Mutex::new(State { quality, ..State::default() }));
        let [one, other] = ends.map(Arc::new);
        carry(one.clone(), other.clone(), &state);
        carry(other, one, &state);
        Link { near, far, state }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Quality)) {
        change(&mut lock(&self.state).quality);
    }

    pub(crate) fn dropped(&self) -> usize {
        lock(&self.state).dropped
    }

    pub(crate) fn passed_octets(&self) -> usize {
        lock(&self.state).passed_octets
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        lock(&self.state).closed = true;
    }
}

/// The state is whole at all times, also after a test's panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Packets on their way, with the time of their arrival, and whether no more will come.
type Way = (Mutex<(VecDeque<(Instant, Vec<u8>)>, bool)>, Condvar);

/// Carries packets one way until the link is closed.
fn carry(from: Arc<End>, to: Arc<End>, state: &Arc<Mutex<State>>) {
    let (way, state) = (Arc::new(Way::default()), state.clone());
    let arriving = way.clone();
    thread::spawn(move || take(&from.0, &way, &state).expect("a socket of ours"));
    thread::spawn(move || give(&to, &arriving));
}

fn take(from: &UdpSocket, way: &Way, state: &Mutex<State>) -> io::Result<()> {
    // Often enough to see that the link is closed.
    from.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut packet, mut free_at, mut chance) = ([0; 4096], Instant::now(), 0x2545_f491_u32);
    loop {
        let length = match from.recv(&mut packet) {
            Ok(length) => Some(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(error) => return Err(error),
        };
        let mut state = lock(state);
        if state.closed {
            lock(&way.0).1 = true;
            way.1.notify_one();
            return Ok(());
        }
        let Some(length) = length else { continue };
        // Marsaglia's xorshift: the same losses in each run.
        chance ^= chance << 13;
        chance ^= chance >> 17;
        chance ^= chance << 5;
        let (quality, now) = (state.quality, Instant::now());
        free_at = free_at.max(now);
        if quality.cut || chance % 100 < quality.loss || free_at > now + QUEUE {
            state.dropped += 1;
            continue;
        }
        state.passed_octets += length;
        if quality.rate > 0 {
            free_at += Duration::from_secs_f64(length as f64 / f64::from(quality.rate));
        }
        lock(&way.0).0.push_back((free_at + quality.delay, packet[..length].to_vec()));
        way.1.notify_one();
    }
}

fn give(to: &End, way: &Way) {
    let mut waiting = lock(&way.0);
    while !waiting.1 {
        let now = Instant::now();
        let left = waiting.0.front().map(|(at, _)| at.saturating_duration_since(now));
        match left {
            Some(Duration::ZERO) => {
                if let Some((_, packet)) = waiting.0.pop_front() {
                    // A host that is gone takes nothing.
                    let _ = to.0.send_to(&packet, to.1);
                }
            }
            Some(left) => {
                let woken = way.1.wait_timeout(waiting, left);
                waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            None => waiting = way.1.wait(waiting).unwrap_or_else(PoisonError::into_inner),
        }
    }
}
