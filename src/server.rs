//! The bundled authoritative server: sockets around [`answer`], and the snapshots behind it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::answer::{Authority, Certainty, Served, Transport, answer};
use crate::rr::Serial;
use crate::snapshot::Snapshot;
use crate::wire::MESSAGE_MAX;

/// TCP connections at once, over all addresses; the next is closed.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may take to send its next query.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a connection may take to read an answer.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// The wait after a socket failed, lest one that fails for long takes a whole core.
const PAUSE: Duration = Duration::from_millis(100);
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

/// Open sockets, one for UDP and one for TCP on each address.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<(SocketAddr, UdpSocket, TcpListener)>,
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
        let sockets = addresses.into_iter().map(open).collect::<Result<_, BindError>>()?;
        Ok(Bound { sockets })
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

fn open(address: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener), BindError> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match open_once(address) {
            Err(BindError::Socket { transport: Transport::Tcp, .. }) if tries > 0 => {}
            opened => return opened,
        }
    }
}

fn open_once(address: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener), BindError> {
    let failed = |transport| move |source| BindError::Socket { address, transport, source };
    let (udp, bound) = open_udp(address).map_err(failed(Transport::Udp))?;
    let tcp = open_tcp(bound).map_err(failed(Transport::Tcp))?;
    Ok((bound, udp, tcp))
}

fn open_udp(address: SocketAddr) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let bound = socket.local_addr()?;
    Ok((UdpSocket::from_std(socket)?, bound))
}

fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Answers on every socket from the snapshot published last, until `shutdown`.
pub async fn serve(
    bound: Bound,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    authority: Arc<Authority>,
    shutdown: impl Future<Output = ()>,
) {
    let (publish, served) = watch::channel(Arc::new(Served::nothing(authority)));
    publish_latest(&mut snapshots, &publish);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut sockets = JoinSet::new();
    for (_, udp, tcp) in bound.sockets {
        sockets.spawn(answer_datagrams(udp, served.clone()));
        sockets.spawn(accept(tcp, served.clone(), connections.clone()));
    }
    tokio::select! {
        () = shutdown => {}
        () = follow(snapshots, publish) => {}
        Some(Err(ended)) = sockets.join_next() => {
            // Sockets are served for ever. A panic goes on here, rather than leave one silent.
            if let Ok(panic) = ended.try_into_panic() {
                std::panic::resume_unwind(panic);
            }
        }
    }
    sockets.shutdown().await;
}

/// Serves each snapshot as it is published, and the last one for ever.
async fn follow(
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    publish: watch::Sender<Arc<Served>>,
) {
    while snapshots.changed().await.is_ok() {
        publish_latest(&mut snapshots, &publish);
    }
    std::future::pending().await
}

fn publish_latest(
    snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>,
    publish: &watch::Sender<Arc<Served>>,
) {
    let Some(snapshot) = snapshots.borrow_and_update().clone() else { return };
    let certainty = if snapshot.complete_once { Certainty::Whole } else { Certainty::Partial };
    let served = publish.borrow().follow(snapshot.zone.clone(), certainty, unix_time());
    publish.send_replace(Arc::new(served));
}

/// Seconds since 1970 as a serial, which may go around.
fn unix_time() -> Serial {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Serial(since.map_or(0, |since| since.as_secs() as u32))
}

async fn answer_datagrams(socket: UdpSocket, served: watch::Receiver<Arc<Served>>) {
    let mut chance = Chance::new();
    let mut request = vec![0; MESSAGE_MAX];
    loop {
        let (len, client) = match socket.recv_from(&mut request).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "cannot receive over UDP");
                sleep(PAUSE).await;
                continue;
            }
        };
        let served = served.borrow().clone();
        let reply = answer(&served, &request[..len], Transport::Udp, chance.next());
        let Some(reply) = reply else { continue };
        if let Err(error) = socket.send_to(&reply, client).await {
            tracing::debug!(%client, %error, "cannot answer over UDP");
        }
    }
}

async fn accept(
    listener: TcpListener,
    served: watch::Receiver<Arc<Served>>,
    connections: Arc<Semaphore>,
) {
    let mut open = JoinSet::new();
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept over TCP");
                sleep(PAUSE).await;
                continue;
            }
        };
        while open.try_join_next().is_some() {}
        let Ok(permit) = connections.clone().try_acquire_owned() else { continue };
        let served = served.clone();
        open.spawn(async move {
            if let Err(error) = answer_stream(stream, served).await {
                tracing::debug!(%client, %error, "connection ended");
            }
            drop(permit);
        });
    }
}

/// Answers the queries of a connection in their order, RFC 7766, until it has no more, or is too
/// slow, or sends what no server answers.
async fn answer_stream(
    mut stream: TcpStream,
    served: watch::Receiver<Arc<Served>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, writing) = stream.split();
    let (mut reading, mut writing) = (BufReader::new(reading), BufWriter::new(writing));
    let mut chance = Chance::new();
    while let Some(request) = timeout(IDLE_MAX, read_message(&mut reading)).await?? {
        let served = served.borrow().clone();
        let reply = answer(&served, &request, Transport::Tcp, chance.next());
        let Some(reply) = reply else { break };
        timeout(WRITE_MAX, write_message(&mut writing, &reply)).await??;
    }
    Ok(())
}

/// The next message behind its length, RFC 1035, section 4.2.2; none at the stream's end.
async fn read_message(reading: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<Vec<u8>>> {
    if reading.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let mut message = vec![0; usize::from(reading.read_u16().await?)];
    reading.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write_message(
    writing: &mut (impl AsyncWriteExt + Unpin),
    message: &[u8],
) -> io::Result<()> {
    writing.write_u16(message.len() as u16).await?; // At most MESSAGE_MAX.
    writing.write_all(message).await?;
    writing.flush().await
}

/// Which record comes first, anew for each answer: SplitMix64. Nothing secret hangs on it.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        // Without entropy a fixed start costs only the variety between sockets.
        Chance(getrandom::u64().unwrap_or_default())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
