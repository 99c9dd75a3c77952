//! A TCP proxy before a name server that writes down what is asked of it, so that a test can say
//! how many messages something takes.

use hickory_proto::rr::RecordType;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A client's message. Displayed as `UPDATE SOA mesos.`: opcode, and type and name of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) opcode: u8,
    pub(crate) qtype: u16,
    /// In lower case, with the final dot.
    pub(crate) qname: String,
    /// Without the two of the length.
    pub(crate) octets: usize,
    /// That of the first reply, once there is one.
    pub(crate) rcode: Option<u8>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.opcode {
            0 => f.write_str("QUERY")?,
            5 => f.write_str("UPDATE")?,
            other => write!(f, "OPCODE{other}")?,
        }
        write!(f, " {} {}", RecordType::from(self.qtype), self.qname)
    }
}

impl Seen {
    fn read(message: &[u8]) -> Option<Seen> {
        let mut rest = message.get(12..)?;
        let mut qname = String::new();
        loop {
            let (&length, after) = rest.split_first()?;
            let (label, after) = after.split_at_checked(length.into())?;
            rest = after;
            if label.is_empty() {
                break;
            }
            qname += &String::from_utf8_lossy(label).to_lowercase();
            qname.push('.');
        }
        let qtype = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
        let opcode = message[2] >> 3 & 0x0f;
        Some(Seen { opcode, qtype, qname, octets: message.len(), rcode: None })
    }
}

/// A message, and by what its reply is known: the connection and the message's id.
struct Exchange {
    key: (usize, [u8; 2]),
    seen: Seen,
}

/// What the connections have in common.
#[derive(Default)]
struct Record {
    exchanges: Mutex<Vec<Exchange>>,
    streams: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
    /// The reply to the next update is to be lost.
    lossy: AtomicBool,
}

pub(crate) struct Proxy {
    addr: SocketAddr,
    record: Arc<Record>,
}

impl Proxy {
    /// Listens on a port of its own until it is dropped, together with its connections.
    pub(crate) fn to(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let record = Arc::new(Record::default());
        let shared = Arc::clone(&record);
        thread::spawn(move || accept(&listener, server, &shared));
        Proxy { addr, record }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The messages since the last `clear`, in the order in which they came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.record.exchanges).iter().map(|exchange| exchange.seen.clone()).collect()
    }

    /// Passes the next update on and breaks the connection in place of its reply.
    pub(crate) fn lose_next_reply(&self) {
        self.record.lossy.store(true, Ordering::Release);
    }

    /// Breaks every connection, as a server does that has waited long enough.
    pub(crate) fn close_all(&self) {
        for stream in lock(&self.record.streams).drain(..) {
            // An end that is closed already is what is wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn clear(&self) {
        lock(&self.record.exchanges).clear();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.record.stopped.store(true, Ordering::Release);
        // Wakes the accepting thread. Where there is none, nothing needs to be woken.
        let _ = TcpStream::connect(self.addr);
        for stream in lock(&self.record.streams).iter() {
            // An end that is closed already is what is wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Every value behind these locks is whole at all times, also after a test's panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, server: SocketAddr, record: &Arc<Record>) {
    for (connection, client) in listener.incoming().enumerate() {
        if record.stopped.load(Ordering::Acquire) {
            return;
        }
        // A client that is gone, or a server that is down: the client sees its connection close.
        let _ = client.and_then(|client| connect(connection, client, server, record));
    }
}

/// Starts a thread for either direction.
fn connect(
    connection: usize,
    client: TcpStream,
    server: SocketAddr,
    record: &Arc<Record>,
) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    lock(&record.streams).extend([client.try_clone()?, server.try_clone()?]);
    let (from, to, shared) = (client.try_clone()?, server.try_clone()?, Arc::clone(record));
    thread::spawn(move || {
        forward(from, to, |id, message| {
            let seen = Seen::read(message).expect("a client's question");
            lock(&shared.exchanges).push(Exchange { key: (connection, id), seen });
            true
        });
    });
    let shared = Arc::clone(record);
    thread::spawn(move || {
        forward(server, client, |id, reply| {
            let mut exchanges = lock(&shared.exchanges);
            let is_update = reply[2] >> 3 & 0x0f == 5;
            let asked = exchanges.iter_mut().rev().find(|asked| asked.key == (connection, id));
            if let Some(asked) = asked {
                asked.seen.rcode.get_or_insert(reply[3] & 0x0f);
            }
            !(is_update && shared.lossy.swap(false, Ordering::AcqRel))
        });
    });
    Ok(())
}

/// Passes messages on until one end closes, or `note` says that it is enough, then closes both.
fn forward(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut([u8; 2], &[u8]) -> bool) {
    // In one piece with its length, and noted first: who has the reply finds it noted.
    while let Ok(framed) = read_message(&mut from) {
        if !note([framed[2], framed[3]], &framed[2..]) || to.write_all(&framed).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // An end that is closed already is what is wanted.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// A message of at least a header, with its length before it.
fn read_message(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    from.read_exact(&mut length)?;
    let octets = usize::from(u16::from_be_bytes(length));
    if octets < 12 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut framed = vec![0; 2 + octets];
    framed[..2].copy_from_slice(&length);
    from.read_exact(&mut framed[2..])?;
    Ok(framed)
}
