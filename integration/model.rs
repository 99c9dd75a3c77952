//! A name server in this process: one zone in memory, RFC 2136 as BIND, Knot or PowerDNS does it,
//! transfers, signatures. `modelled` holds it to the real ones.

mod answers;
mod zone;

pub(crate) use zone::{Content, Entry, Rights, Rr, Update, Zone, add, records, remove};

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mesozone::connection::now;
use mesozone::name::Name;
use mesozone::wire::{Header, OPCODE_UPDATE, Rcode, Writer};

use crate::signing::Shared;
use answers::{Question, answers};

/// So long a connection may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whoever may read the zone and write in it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) key: Shared,
    pub(crate) rights: Rights,
}

/// An update that came.
#[derive(Clone)]
pub(crate) struct Logged {
    /// The name of its key.
    pub(crate) who: Name,
    pub(crate) id: u16,
    pub(crate) update: Update,
    pub(crate) rcode: Rcode,
    /// The zone that it came upon.
    pub(crate) before: Content,
}

impl fmt::Debug for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Update { prerequisites, updates, .. } = &self.update;
        let Logged { who, rcode, .. } = self;
        write!(f, "{who} {rcode}: if {prerequisites:?} then {updates:?}")
    }
}

struct State {
    zone: Zone,
    clients: Vec<Client>,
    log: Vec<Logged>,
    /// In a message of a transfer.
    records_max: usize,
    streams: Vec<TcpStream>,
    /// Connections that have not ended.
    open: usize,
}

pub(crate) struct Model {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
}

impl Model {
    /// Serves until it is dropped.
    pub(crate) fn start(zone: Zone, clients: Vec<Client>, records_max: usize) -> Model {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let (log, streams) = Default::default();
        let state = State { zone, clients, log, records_max, streams, open: 0 };
        let state = Arc::new(Mutex::new(state));
        let stopped = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (Arc::clone(&state), Arc::clone(&stopped));
        thread::spawn(move || accept(&listener, &shared, &ended));
        Model { addr, state, stopped }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The zone as it is.
    pub(crate) fn zone(&self) -> Zone {
        lock(&self.state).zone.clone()
    }

    /// Does something to the zone that no client does.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Zone) -> T) -> T {
        act(&mut lock(&self.state).zone)
    }

    /// The updates since it was asked last.
    pub(crate) fn take_log(&self) -> Vec<Logged> {
        std::mem::take(&mut lock(&self.state).log)
    }

    /// Closes every connection, as a server does that starts again, once it has carried out what
    /// came over them.
    pub(crate) fn restart(&self) {
        // Connections are accepted in turn: once this one is, all before it are.
        let last = TcpStream::connect(self.addr).expect("it listens");
        let addr = last.local_addr().expect("a connected socket");
        let is_last = |stream: &TcpStream| stream.peer_addr().is_ok_and(|peer| peer == addr);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut state = lock(&self.state);
            if state.streams.iter().any(is_last) {
                state.close();
            }
            if state.streams.is_empty() && state.open == 0 {
                return;
            }
            drop(state);
            assert!(Instant::now() < deadline, "a connection does not end");
            thread::yield_now();
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the accepting thread. Where there is none, nothing needs to be woken.
        let _ = TcpStream::connect(self.addr);
        lock(&self.state).close();
    }
}

/// Every value behind the lock is whole at all times, also after a test's panic.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>, stopped: &AtomicBool) {
    for client in listener.incoming() {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = client else { continue };
        let shared = Arc::clone(state);
        let Ok(kept) = client.try_clone() else { continue };
        let mut known = lock(state);
        known.streams.push(kept);
        known.open += 1;
        drop(known);
        thread::spawn(move || {
            // Either end closes both.
            let _ = serve(&client, &shared);
            let _ = client.shutdown(Shutdown::Both);
            lock(&shared).open -= 1;
        });
    }
}

fn serve(mut client: &TcpStream, state: &Mutex<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    loop {
        let mut length = [0; 2];
        client.read_exact(&mut length)?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        client.read_exact(&mut message)?;
        let replies = lock(state).reply(&message).ok_or(io::ErrorKind::InvalidData)?;
        let framed: Vec<u8> = replies
            .iter()
            .flat_map(|reply| [&(reply.len() as u16).to_be_bytes(), reply.as_slice()].concat())
            .collect();
        client.write_all(&framed)?;
    }
}

impl State {
    fn close(&mut self) {
        for stream in self.streams.drain(..) {
            // An end that is closed already is what is wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// None where there is nothing to answer to.
    fn reply(&mut self, message: &[u8]) -> Option<Vec<Vec<u8>>> {
        let header = Header::parse(message).ok()?;
        let opened = self
            .clients
            .iter()
            .find_map(|client| Some((client.clone(), client.key.open(message)?)));
        let Some((client, opened)) = opened else {
            let flags = Header::QR | header.flags & 0x7800 | Rcode::NOTAUTH.0;
            return Some(vec![Writer::new(header.id, flags).finish()]);
        };
        let replies = match header.opcode() {
            OPCODE_UPDATE => {
                let before = self.zone.content.clone();
                let rcode = self.zone.update(&client.rights, &opened.message);
                let update = Update::read(&opened.message).ok()?;
                let (who, id) = (client.key.name.clone(), header.id);
                self.log.push(Logged { who, id, update, rcode, before });
                let flags = Header::QR | u16::from(OPCODE_UPDATE) << 11 | rcode.0;
                vec![Writer::new(header.id, flags).finish()]
            }
            _ => {
                self.zone.seen();
                answers(&self.zone, &Question::read(&opened.message)?, self.records_max)
            }
        };
        let (mut prior, mut first) = (opened.mac, true);
        let signed = replies.into_iter().map(|mut reply| {
            prior = client.key.sign(&mut reply, &prior, first, now());
            first = false;
            reply
        });
        Some(signed.collect())
    }
}
