//! The bundled authoritative server: its sockets, and the snapshots that it follows.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use socket2::{Domain, Socket};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::Transport;
use crate::answering::{Answering, Current, SECRET_AGE, Terms};
use crate::datagrams::Datagrams;
use crate::forwarding::Forwarding;
use crate::metrics::Metrics;
use crate::name::Name;
use crate::notify::{Newest, Notifier, ask_all};
use crate::outgoing::Secondaries;
use crate::rr::{Serial, Type};
use crate::served::{Authority, Certainty, Hosted, Served};
use crate::snapshot::Snapshot;
use crate::streams::{accept, places};
use crate::zone::Key;

/// The transferable zone advances no more often, so that its serial can be Unix time.
const EDITION: Duration = Duration::from_secs(1);
/// What may wait in the kernel for a thread to come, where the system allows it: more than one
/// moment's burst.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Threads over all addresses, at least one for each.
const THREADS_MAX: usize = 256;
/// How often it is seen to that all threads are there.
const CHECK: Duration = Duration::from_secs(1);
/// What secondaries tell of their serials waits here, and what is too much is told again.
const HEARD_MAX: usize = 64;
/// How often another port is tried where any will do and TCP has not the one that UDP got.
const PORT_TRIES: usize = 16;

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot list the interface addresses that {listen} stands for")]
    Interfaces { listen: SocketAddr, source: io::Error },
    #[error("{0} stands for no address of any interface")]
    NoAddress(SocketAddr),
    #[error("cannot listen on {address} over {transport}")]
    Socket { address: SocketAddr, transport: Transport, source: io::Error },
}

/// Open sockets: on each address one for TCP and one for each thread that answers over UDP.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<(SocketAddr, Vec<UdpSocket>, TcpListener)>,
}

impl Bound {
    /// Opens every address. `0.0.0.0` and `::` stand for the addresses of that family that the
    /// interfaces have now, link-local ones aside, each with sockets of its own: an answer then
    /// leaves from the address that was asked. Port 0 is any port that both transports can have.
    ///
    /// Belongs inside a tokio runtime.
    pub fn bind(listen: &[SocketAddr]) -> Result<Bound, BindError> {
        let mut addresses = Vec::new();
        for address in listen {
            addresses.extend(concrete(*address)?);
        }
        addresses.sort_unstable();
        addresses.dedup();
        let threads = available_parallelism().map_or(1, usize::from);
        let threads = threads.min(THREADS_MAX / addresses.len().max(1)).max(1);
        let sockets = addresses.into_iter().map(|address| open(address, threads));
        Ok(Bound { sockets: sockets.collect::<Result<_, BindError>>()? })
    }

    /// Where queries are heard, ports as they are.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().map(|(address, ..)| *address)
    }
}

/// The addresses that a listen address stands for: itself, unless it is a wildcard.
fn concrete(listen: SocketAddr) -> Result<Vec<SocketAddr>, BindError> {
    if !listen.ip().is_unspecified() {
        return Ok(vec![listen]);
    }
    let interfaces = getifaddrs()
        .map_err(|errno| BindError::Interfaces { listen, source: io::Error::from(errno) })?;
    let addresses: Vec<SocketAddr> = interfaces
        .filter_map(|interface| internet_address(&interface))
        .filter(|ip| ip.is_ipv4() == listen.is_ipv4() && !is_link_local(ip))
        .map(|ip| SocketAddr::new(ip, listen.port()))
        .collect();
    if addresses.is_empty() { Err(BindError::NoAddress(listen)) } else { Ok(addresses) }
}

fn internet_address(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}

/// Such an IPv6 address is no address without its interface, and cannot be had while an
/// interface comes up.
fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

type Opened = (SocketAddr, Vec<UdpSocket>, TcpListener);

fn open(address: SocketAddr, threads: usize) -> Result<Opened, BindError> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match open_once(address, threads) {
            Err(BindError::Socket { transport: Transport::Udp, .. }) if tries > 0 => {}
            opened => return opened,
        }
    }
}

/// TCP first, which no two servers can share: the sockets for UDP would share it with any of the
/// same user.
fn open_once(address: SocketAddr, threads: usize) -> Result<Opened, BindError> {
    let failed = |transport| move |source| BindError::Socket { address, transport, source };
    let (tcp, bound) = open_tcp(address).map_err(failed(Transport::Tcp))?;
    let udp = (0..threads).map(|_| open_udp(bound)).collect::<io::Result<_>>();
    Ok((bound, udp.map_err(failed(Transport::Udp))?, tcp))
}

fn open_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), socket2::Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    // Less will do where the system's limit is lower.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn open_tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, bound))
}

/// How is answered.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Of the domain's zone, and of each reverse zone.
    pub authorities: Vec<Authority>,
    pub secondaries: Secondaries,
    pub forwarding: Forwarding,
    /// Answers over UDP, a second and client network; none: as many as are asked for.
    pub rate_limit: Option<NonZeroU32>,
    pub metrics: Metrics,
}

impl Manner {
    fn terms(&self) -> Terms {
        Terms {
            secondaries: Arc::new(self.secondaries.clone()),
            forwarding: self.forwarding.clone(),
            rate_limit: self.rate_limit,
            metrics: self.metrics.clone(),
        }
    }
}

/// Answers on every socket from the snapshot published last, in the manner told last, and keeps the
/// secondaries told of it, until `shutdown`.
pub async fn serve(
    bound: Bound,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    mut manners: watch::Receiver<Manner>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let manner = manners.borrow_and_update().clone();
    let (has, heard) = mpsc::channel(HEARD_MAX);
    let mut shutdown = pin!(shutdown);
    let zones = manner.authorities.iter().cloned().map(|a| Hosted::nothing(Arc::new(a)));
    let served = tokio::select! {
        served = number(Served::of(zones.collect()), &manner.secondaries) => served,
        () = &mut shutdown => return Ok(()),
    };
    let answering = Answering::new(served.clone(), has.clone(), manner.terms());
    let current = Arc::new(Current::from_pointee(answering));
    let listening = bound.addresses().collect();
    let mut follower = Follower {
        served,
        current: current.clone(),
        advanced: None,
        newest: Vec::new(),
        notifiers: JoinSet::new(),
        listening,
        heard,
        has,
    };
    follower.notify(&manner.secondaries);
    follower.follow_latest(&mut snapshots);
    let (mut tasks, mut datagrams) = (JoinSet::new(), Vec::new());
    let places = places();
    for (_, udp, tcp) in bound.sockets {
        datagrams.extend(udp);
        tasks.spawn(accept(tcp, current.clone(), places.clone()));
    }
    tasks.spawn(renew_secrets(current.clone()));
    let datagrams = Datagrams::start(datagrams, &current)?;
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        ended = follower.follow(snapshots, manners) => Err(ended),
        () = broken(&datagrams) => Err(io::Error::other("a thread that answers over UDP ended")),
        // None of them ends by itself.
        Some(ended) = tasks.join_next() => {
            Err(ended.err().map_or_else(|| io::Error::other("a task ended"), io::Error::other))
        }
    };
    tasks.shutdown().await;
    tokio::task::block_in_place(|| datagrams.stop());
    ended
}

/// Has cookies made with a new secret now and then, for ever.
async fn renew_secrets(current: Arc<Current>) {
    loop {
        sleep(SECRET_AGE).await;
        current.load().renew_secret();
    }
}

/// Ends when a thread has.
async fn broken(datagrams: &Datagrams) {
    while !datagrams.is_broken() {
        sleep(CHECK).await;
    }
}

/// Makes what is served follow the snapshots.
struct Follower {
    served: Served,
    current: Arc<Current>,
    /// When the newest edition was made.
    advanced: Option<Instant>,
    /// Of each zone: where its newest edition is announced.
    newest: Vec<watch::Sender<Option<Newest>>>,
    /// Who tell the secondaries. None of them ends by itself.
    notifiers: JoinSet<()>,
    listening: Vec<SocketAddr>,
    /// Which serials secondaries have.
    heard: mpsc::Receiver<(Name, Serial)>,
    has: mpsc::Sender<(Name, Serial)>,
}

impl Follower {
    /// Serves each snapshot as it is published, and the last one for ever.
    async fn follow(
        mut self,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        mut manners: watch::Receiver<Manner>,
    ) -> io::Error {
        let (mut last, mut settled) = (None, None);
        loop {
            let edition = self.advanced.map_or_else(Instant::now, |advanced| advanced + EDITION);
            let is_ahead = self.served.zones().iter().any(Hosted::is_ahead);
            tokio::select! {
                changed = snapshots.changed(), if last.is_none() => match changed {
                    Ok(()) => self.follow_latest(&mut snapshots),
                    Err(error) => last = Some(error),
                },
                changed = manners.changed(), if settled.is_none() => match changed {
                    Ok(()) => {
                        let manner = manners.borrow_and_update().clone();
                        self.renew(&manner);
                        self.follow_latest(&mut snapshots);
                    }
                    Err(error) => settled = Some(error),
                },
                () = sleep_until(edition), if is_ahead => self.advance(),
                Some((zone, serial)) = self.heard.recv() => self.hear(&zone, serial),
                Some(ended) = self.notifiers.join_next() => {
                    return ended.err().map_or_else(|| io::Error::other("a task ended"), io::Error::other);
                }
            }
        }
    }

    /// Answers in another manner from now on; zones that stay keep their numbers.
    fn renew(&mut self, manner: &Manner) {
        let mut zones = std::mem::take(&mut self.served).into_zones();
        let renewed = manner.authorities.iter().cloned().map(|authority| {
            match zones.iter().position(|zone| *zone.apex() == authority.apex) {
                Some(at) => {
                    let mut zone = zones.swap_remove(at);
                    zone.renew(Arc::new(authority));
                    zone
                }
                None => {
                    let mut zone = Hosted::nothing(Arc::new(authority));
                    zone.rise_above(unix_time());
                    zone
                }
            }
        });
        self.served = Served::of(renewed.collect());
        let answering = self.current.load().on(self.served.clone(), manner.terms());
        self.current.store(Arc::new(answering));
        self.notify(&manner.secondaries);
    }

    /// Tells these secondaries from now on, and no others.
    fn notify(&mut self, secondaries: &Secondaries) {
        (self.newest, self.notifiers) = (Vec::new(), JoinSet::new());
        for zone in self.served.zones() {
            let (sender, editions) = watch::channel(None);
            self.newest.push(sender);
            for secondary in secondaries.addresses.iter().copied() {
                let (zone, key) = (zone.apex().clone(), secondaries.key.clone());
                let (has, listening) = (self.has.clone(), self.listening.clone());
                let notifier = Notifier { zone, secondary, key, listening, has };
                self.notifiers.spawn(notifier.run(editions.clone()));
            }
        }
    }

    /// A serial later than ours is from before this process: the next edition goes above it.
    fn hear(&mut self, zone: &Name, serial: Serial) {
        let zones = self.served.zones_mut().iter_mut();
        for hosted in zones.filter(|hosted| hosted.apex() == zone) {
            if hosted.rise_above(serial) {
                tracing::info!(%zone, "a secondary has the serial {serial}: going on above it");
            }
        }
    }

    fn follow_latest(&mut self, snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>) {
        let Some(snapshot) = snapshots.borrow_and_update().clone() else { return };
        let certainty = if snapshot.complete_once { Certainty::Whole } else { Certainty::Partial };
        let now = unix_time();
        let zones = self.served.zones_mut().iter_mut();
        for zone in zones.filter(|zone| snapshot.is_about(zone.apex())) {
            if zone.editions().is_none() {
                self.advanced = Some(Instant::now());
            }
            zone.follow(snapshot.zone_of(zone.apex()).clone(), certainty, now);
        }
        self.publish();
    }

    /// What is answered first, then what is told of it, so that who is told finds it.
    fn publish(&self) {
        self.current.load().publish(self.served.clone());
        for (zone, newest) in self.served.zones().iter().zip(&self.newest) {
            let Some((serial, soa)) = zone.transferable().and_then(|editions| {
                let key = Key { name: zone.apex().clone(), rtype: Type::SOA };
                Some((editions.serial(), editions.zone().get(&key)?.clone()))
            }) else {
                continue;
            };
            let next = Some(Newest { serial, soa });
            newest.send_if_modified(|newest| {
                let is_new = *newest != next;
                *newest = next;
                is_new
            });
        }
    }

    fn advance(&mut self) {
        let now = unix_time();
        self.served.zones_mut().iter_mut().filter(|zone| zone.is_ahead()).for_each(|zone| {
            zone.advance(now);
        });
        self.advanced = Some(Instant::now());
        self.publish();
    }
}

/// Has the serials of this process begin above those of earlier ones: above the clock's, for one
/// that ended this very second may have issued it, and above those that secondaries tell; far above
/// where they are later than the clock and some secondary does not tell.
async fn number(mut served: Served, secondaries: &Secondaries) -> Served {
    const FAR: u32 = 1 << 20;
    let started = unix_time();
    let asked = served.zones().iter().map(|zone| ask_all(zone.apex(), secondaries));
    let answers = join_all(asked).await;
    for (zone, heard) in served.zones_mut().iter_mut().zip(answers) {
        zone.rise_above(started);
        let is_quiet = heard.len() < secondaries.addresses.len();
        for serial in heard {
            if zone.rise_above(serial) && is_quiet {
                zone.rise_above(Serial(serial.0.wrapping_add(FAR)));
            }
        }
    }
    served
}

/// Seconds since 1970 as a serial, which may go around.
fn unix_time() -> Serial {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Serial(since.map_or(0, |since| since.as_secs() as u32))
}
