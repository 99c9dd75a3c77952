//! Answering over UDP: threads of their own, each with its socket, that read, answer and send many
//! datagrams with two system calls.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, sendto};
use tokio::runtime::Handle;

use crate::answer::Transport;
use crate::answering::{Answering, Chance, Current, Outcome};
use crate::connection::now;
use crate::forward::Held;
use crate::metrics::Counts;
use crate::shares::Failing;

/// Datagrams taken at once.
const BATCH: usize = 64;
/// A longer request is cut, and is none then.
const REQUEST_MAX: usize = 4096;
/// How long a thread waits for a request before it looks whether it is to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The wait after a socket failed, lest one that fails for long takes a whole core.
const PAUSE: Duration = Duration::from_millis(100);

/// Threads that answer until this is dropped.
pub(crate) struct Datagrams {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Datagrams {
    /// Starts a thread for each socket, inside a tokio runtime, which carries questions elsewhere.
    pub(crate) fn start(sockets: Vec<UdpSocket>, current: &Arc<Current>) -> io::Result<Datagrams> {
        let mut datagrams = Datagrams { stop: Arc::default(), threads: Vec::new() };
        for socket in sockets {
            socket.set_read_timeout(Some(LOOK_AGAIN))?;
            let (stop, current) = (datagrams.stop.clone(), current.clone());
            let (named, runtime) =
                (thread::Builder::new().name("udp".to_owned()), Handle::current());
            let worker = Worker::new(Arc::new(socket), current, runtime);
            let thread = named.spawn(move || worker.run(&stop))?;
            datagrams.threads.push(thread);
        }
        Ok(datagrams)
    }

    /// Whether one of them has ended, which none does by itself.
    pub(crate) fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends them, each with its last answer sent.
    pub(crate) fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in mem::take(&mut self.threads) {
            if thread.join().is_err() {
                tracing::error!("a thread that answers over UDP ended");
            }
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// One socket and its buffers.
struct Worker {
    socket: Arc<UdpSocket>,
    current: Arc<Current>,
    runtime: Handle,
    counts: Counts,
    chance: Chance,
    requests: Vec<Vec<u8>>,
    /// Of each request that came: its length, and from whom.
    came: Vec<(usize, Option<SockaddrStorage>)>,
    replies: Vec<Vec<u8>>,
    /// To whom each reply goes.
    clients: Vec<Option<SockaddrStorage>>,
}

impl Worker {
    fn new(socket: Arc<UdpSocket>, current: Arc<Current>, runtime: Handle) -> Worker {
        Worker {
            socket,
            current,
            runtime,
            counts: Counts::default(),
            chance: Chance::new(),
            requests: vec![vec![0; REQUEST_MAX]; BATCH],
            came: Vec::with_capacity(BATCH),
            replies: vec![Vec::new(); BATCH],
            clients: Vec::with_capacity(BATCH),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of its own, which has nothing else to do"
    )]
    fn run(mut self, stop: &AtomicBool) {
        // Apart: what was sent leaves addresses of clients behind, into which nothing may be received.
        let mut incoming = MultiHeaders::preallocate(BATCH, None);
        let mut outgoing = MultiHeaders::preallocate(BATCH, None);
        let mut failing = Failing::default();
        while !stop.load(Ordering::Acquire) {
            match self.receive(&mut incoming) {
                Ok(()) => {
                    failing.ends("UDP");
                    self.answer();
                    self.send(&mut outgoing);
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => {
                    failing.tell("UDP", &error.into());
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Waits for a request, and takes those that are there with it.
    fn receive(&mut self, headers: &mut MultiHeaders<SockaddrStorage>) -> nix::Result<()> {
        self.came.clear();
        let socket = self.socket.as_raw_fd();
        let mut slots: Vec<[IoSliceMut<'_>; 1]> =
            self.requests.iter_mut().map(|request| [IoSliceMut::new(request)]).collect();
        let came = recvmmsg(socket, headers, &mut slots, MsgFlags::MSG_WAITFORONE, None)?;
        self.came.extend(came.map(|request| (request.bytes, request.address)));
        Ok(())
    }

    fn answer(&mut self) {
        self.clients.clear();
        let answering = self.current.load_full();
        let (served, moment) = (answering.served(), answering.moment());
        for (request, (length, client)) in self.requests.iter().zip(&self.came) {
            let Some(ip) = client.as_ref().and_then(address) else { continue };
            let request = &request[..(*length).min(REQUEST_MAX)];
            let reply = &mut self.replies[self.clients.len()];
            let asked = (ip.ip(), Transport::Udp, moment);
            match answering.answer(&served, request, asked, &mut self.chance, reply) {
                Outcome::Silence => self.counts.silence(),
                Outcome::Transfer(mut outgoing) => {
                    // Over UDP there is but one message.
                    if let Some(message) = outgoing.next_message(now()) {
                        *reply = message;
                        self.clients.push(*client);
                    }
                }
                Outcome::Forward(errand) => match answering.forwarder.hold(errand, ip.ip()) {
                    Ok(held) => {
                        let (answering, socket) = (answering.clone(), self.socket.clone());
                        self.runtime.spawn(carry(answering, held, socket, ip));
                    }
                    Err(failed) => {
                        *reply = failed;
                        self.clients.push(*client);
                    }
                },
                Outcome::Answer => self.clients.push(*client),
            }
        }
        for reply in &self.replies[..self.clients.len()] {
            self.counts.answer(reply);
        }
        self.counts.add_to(&answering.metrics.queries);
    }

    fn send(&mut self, headers: &mut MultiHeaders<SockaddrStorage>) {
        let socket = self.socket.as_raw_fd();
        let slices: Vec<[IoSlice<'_>; 1]> =
            self.replies.iter().map(|reply| [IoSlice::new(reply)]).collect();
        let (mut at, nothing) = (0, []);
        while at < self.clients.len() {
            let rest = &self.clients[at..];
            // A client that nobody can reach fills the buffer: its answers are lost, not ours to wait for.
            let flags = MsgFlags::MSG_DONTWAIT;
            let sent = sendmmsg(socket, headers, &slices[at..], rest, nothing, flags);
            at += match sent.map(Iterator::count) {
                Ok(count) => count.max(1),
                Err(Errno::EINTR) => 0,
                // The first of them cannot be sent: the others may.
                Err(error) => {
                    tracing::debug!(%error, "cannot answer over UDP");
                    1
                }
            };
        }
    }
}

/// Asks another name server, and sends its answer on.
async fn carry(answering: Arc<Answering>, held: Held, socket: Arc<UdpSocket>, client: SocketAddr) {
    let reply = answering.forwarder.carry(held).await;
    count(&reply, &answering);
    let to = SockaddrStorage::from(client);
    // Never waits: this is not the thread's only task.
    if let Err(error) = sendto(socket.as_raw_fd(), &reply, &to, MsgFlags::MSG_DONTWAIT) {
        tracing::debug!(%client, %error, "cannot answer over UDP");
    }
}

fn count(reply: &[u8], answering: &Answering) {
    let mut counts = Counts::default();
    counts.answer(reply);
    counts.add_to(&answering.metrics.queries);
}

/// The address that a datagram came from.
fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in().map(|v4| (IpAddr::V4(v4.ip()), v4.port()));
    let v6 = || from.as_sockaddr_in6().map(|v6| (IpAddr::V6(v6.ip()), v6.port()));
    v4.or_else(v6).map(|(ip, port)| SocketAddr::new(ip, port))
}
