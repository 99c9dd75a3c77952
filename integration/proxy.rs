//! A TCP proxy before a name server that writes down what is asked of it, so that a test can say
//! how many messages something takes, and that breaks what it is told to break.
//!
//! A fault is armed for one message to come and strikes once.

use hickory_proto::rr::RecordType;
use socket2::SockRef;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// So long a server may take to answer a message that was held back.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's message. Displayed as `UPDATE SOA mesos.`: opcode, and type and name of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The connection it came over, by number, from 0.
    pub(crate) connection: usize,
    pub(crate) opcode: u8,
    pub(crate) qtype: u16,
    /// In lower case, with the final dot.
    pub(crate) qname: String,
    /// In the update section; of a query, in the authority section.
    pub(crate) records: usize,
    /// Without the two of the length.
    pub(crate) octets: usize,
    /// That of the first reply, once the server has given one, whether or not it was passed on.
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
    fn read(connection: usize, message: &[u8]) -> Option<Seen> {
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
        let records = u16::from_be_bytes([message[8], message[9]]).into();
        let opcode = message[2] >> 3 & 0x0f;
        let octets = message.len();
        Some(Seen { connection, opcode, qtype, qname, records, octets, rcode: None })
    }
}

/// Which message to come a fault is for, counted from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Update(usize),
    Message(usize),
}

/// When a connection breaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// The message never reaches the server.
    Before,
    /// Right behind the message: the server may carry it out or not.
    Behind,
    /// In place of the reply: the server has carried it out.
    Reply,
}

/// How both ends of a connection see it break.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    Fin,
    Rst,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Break(Moment, How),
    /// The message is never passed on, and the connection stays open whatever the server does.
    SwallowRequest,
    /// The reply is never passed on, and the connection stays open whatever the server does.
    SwallowReply,
    /// The message waits for [`Proxy::deliver`], and so does what comes behind it.
    Hold,
    /// The connection breaks behind so many messages of the answer and so many octets of the next,
    /// all of it but one at most.
    CutAnswer(usize, usize, How),
    /// This bit of the reply is another, counted modulo its bits.
    Flip(usize),
    /// NOERROR without a signature, and nothing is passed on.
    Forge,
    /// The reply is passed on behind the next one.
    Overtaken,
}

struct Armed {
    which: Which,
    fault: Fault,
}

/// A message, and by what its reply is known: the connection and the message's id.
struct Exchange {
    key: (usize, [u8; 2]),
    seen: Seen,
    /// What becomes of its answer.
    fault: Option<Fault>,
    /// Messages of the answer so far.
    replies: usize,
}

/// One client and its connection to the server, closed when both its threads are done with it.
struct Line {
    number: usize,
    client: TcpStream,
    server: TcpStream,
    /// Messages that will yet be sent to the server, whatever becomes of the client.
    held: AtomicUsize,
    is_reset: AtomicBool,
    /// The client is to wait, though the server has closed its end.
    is_silent: AtomicBool,
    /// Either thread may answer.
    answering: Mutex<()>,
}

struct Held {
    line: Arc<Line>,
    framed: Vec<u8>,
}

/// What the connections have in common.
#[derive(Default)]
struct Record {
    exchanges: Mutex<Vec<Exchange>>,
    /// Wakes whoever waits for an exchange.
    answered: Condvar,
    lines: Mutex<Vec<Weak<Line>>>,
    armed: Mutex<Vec<Armed>>,
    held: Mutex<Vec<Held>>,
    /// Faults after which the client waits for nothing.
    silent: AtomicUsize,
    /// Faults after which the server may yet carry out a message.
    behind: AtomicUsize,
    stopped: AtomicBool,
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

    /// Has the fault strike a message to come. Several can be armed at once.
    pub(crate) fn arm(&self, which: Which, fault: Fault) {
        lock(&self.record.armed).push(Armed { which, fault });
    }

    /// How many faults have not struck yet.
    pub(crate) fn armed(&self) -> usize {
        lock(&self.record.armed).len()
    }

    /// How many faults have not struck; they no longer will.
    pub(crate) fn disarm(&self) -> usize {
        lock(&self.record.armed).drain(..).count()
    }

    /// How many times a client was left waiting for nothing.
    pub(crate) fn silences(&self) -> usize {
        self.record.silent.load(Ordering::Acquire)
    }

    /// The ids of the messages that wait for their delivery.
    pub(crate) fn held(&self) -> Vec<u16> {
        let id = |held: &Held| u16::from_be_bytes([held.framed[2], held.framed[3]]);
        lock(&self.record.held).iter().map(id).collect()
    }

    /// How many connections broke behind a message.
    pub(crate) fn behind(&self) -> usize {
        self.record.behind.load(Ordering::Acquire)
    }

    /// Passes the next update on and breaks the connection in place of its reply.
    pub(crate) fn lose_next_reply(&self) {
        self.arm(Which::Update(1), Fault::Break(Moment::Reply, How::Fin));
    }

    /// Sends the server what was held back, on the connections it came over, and waits for the
    /// replies: their rcodes, none where the server closed the connection.
    pub(crate) fn deliver(&self) -> Vec<Option<u8>> {
        let held: Vec<Held> = lock(&self.record.held).drain(..).collect();
        held.iter().map(|held| self.deliver_one(held)).collect()
    }

    fn deliver_one(&self, Held { line, framed }: &Held) -> Option<u8> {
        let key = (line.number, [framed[2], framed[3]]);
        let written = (&line.server).write_all(framed);
        let exchanges = lock(&self.record.exchanges);
        let rcode = |exchanges: &[Exchange]| {
            exchanges.iter().rev().find(|asked| asked.key == key)?.seen.rcode
        };
        let waits = |exchanges: &mut Vec<Exchange>| {
            written.is_ok() && rcode(exchanges).is_none() && line.held.load(Ordering::Acquire) > 0
        };
        let waited = self.record.answered.wait_timeout_while(exchanges, PATIENCE, waits);
        let (exchanges, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let answered = rcode(&exchanges);
        drop(exchanges);
        // The server's end stays for those behind it; the last lets it go.
        let left = |held: usize| held.checked_sub(1);
        if line.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, left) == Ok(1) {
            line.end();
        }
        answered
    }

    /// Breaks every connection, as a server does that has waited long enough. Of those with a
    /// message held back only the client's end.
    pub(crate) fn close_all(&self) {
        for line in lock(&self.record.lines).drain(..).filter_map(|line| line.upgrade()) {
            line.end_client();
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
        lock(&self.record.held).clear();
        for line in lock(&self.record.lines).iter().filter_map(Weak::upgrade) {
            line.end();
        }
    }
}

impl Line {
    fn end(&self) {
        for stream in [&self.client, &self.server] {
            // An end that is closed already is what is wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends what no message is waiting for.
    fn end_client(&self) {
        match self.held.load(Ordering::Acquire) {
            0 => self.end(),
            // An end that is closed already is what is wanted.
            _ => drop(self.client.shutdown(Shutdown::Both)),
        }
    }

    fn break_off(&self, how: How) {
        if how == How::Fin {
            return self.end();
        }
        self.is_reset.store(true, Ordering::Release);
        for stream in [&self.client, &self.server] {
            // Closed with nothing to linger for, both ends are reset: the threads that read wake
            // and let go of them. One that is closed already cannot be reset, and need not be.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    fn answer(&self, framed: &[u8]) -> io::Result<()> {
        let _turn = lock(&self.answering);
        (&self.client).write_all(framed)
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
    number: usize,
    client: TcpStream,
    server: SocketAddr,
    record: &Arc<Record>,
) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (held, is_reset, is_silent, answering) = Default::default();
    let line = Arc::new(Line { number, client, server, held, is_reset, is_silent, answering });
    lock(&record.lines).push(Arc::downgrade(&line));
    let (shared, asking) = (Arc::clone(record), Arc::clone(&line));
    thread::spawn(move || {
        // Either end closes both.
        let _ = ask(&asking, &shared);
        if !asking.is_reset.load(Ordering::Acquire) {
            asking.end_client();
        }
    });
    let shared = Arc::clone(record);
    thread::spawn(move || {
        // Either end closes both.
        let _ = answer(&line, &shared);
        line.held.store(0, Ordering::Release);
        drop(lock(&shared.exchanges));
        shared.answered.notify_all();
        let is_left =
            line.is_reset.load(Ordering::Acquire) || line.is_silent.load(Ordering::Acquire);
        if !is_left {
            line.end();
        }
    });
    Ok(())
}

/// Passes the client's messages on until one end closes or a fault ends the connection. Each is
/// noted first: who has the reply finds it noted.
fn ask(line: &Arc<Line>, record: &Record) -> io::Result<()> {
    loop {
        let framed = read_message(&line.client)?;
        let fault = record.asked(line.number, &framed[2..]);
        let waits = line.held.load(Ordering::Acquire) > 0;
        match fault.or(waits.then_some(Fault::Hold)) {
            Some(Fault::Break(Moment::Before, how)) => {
                line.break_off(how);
                return Ok(());
            }
            Some(Fault::Break(Moment::Behind, how)) => {
                (&line.server).write_all(&framed)?;
                record.behind.fetch_add(1, Ordering::AcqRel);
                line.break_off(how);
                return Ok(());
            }
            Some(Fault::SwallowRequest) => {
                line.is_silent.store(true, Ordering::Release);
                record.be_silent();
            }
            Some(Fault::Hold) => {
                line.held.fetch_add(1, Ordering::AcqRel);
                lock(&record.held).push(Held { line: Arc::clone(line), framed });
                record.be_silent();
            }
            Some(Fault::Forge) => {
                let head = [framed[2], framed[3], framed[4] | 0x80, 0];
                line.answer(&[&[0, 12][..], &head, &[0; 8]].concat())?;
            }
            _ => (&line.server).write_all(&framed)?,
        }
    }
}

/// Passes the server's replies on, in one piece with their length.
fn answer(line: &Line, record: &Record) -> io::Result<()> {
    let mut overtaken = None;
    loop {
        let mut framed = read_message(&line.server)?;
        let (fault, replies) = record.answered(line.number, &framed[2..]);
        let passed = match fault {
            Some(Fault::Break(_, how)) => {
                line.break_off(how);
                return Ok(());
            }
            Some(Fault::CutAnswer(after, octets, how)) if replies == after => {
                let part = line.answer(&framed[..octets.min(framed.len() - 1)]);
                line.break_off(how);
                return part;
            }
            Some(Fault::SwallowReply) => {
                line.is_silent.store(true, Ordering::Release);
                record.be_silent();
                Ok(())
            }
            Some(Fault::Flip(bit)) => {
                let bit = bit % (8 * (framed.len() - 2));
                framed[2 + bit / 8] ^= 1 << (bit % 8);
                line.answer(&framed)
            }
            Some(Fault::Overtaken) => {
                overtaken = Some(framed);
                continue;
            }
            _ => line.answer(&framed),
        };
        let passed = passed.and_then(|()| match overtaken.take() {
            Some(earlier) => line.answer(&earlier),
            None => Ok(()),
        });
        // Whoever held a message back wants its reply noted, if only here.
        if line.held.load(Ordering::Acquire) == 0 {
            passed?;
        }
    }
}

impl Record {
    /// Notes a message, and finds the fault that strikes it.
    fn asked(&self, connection: usize, message: &[u8]) -> Option<Fault> {
        let seen = Seen::read(connection, message).expect("a client's question");
        let mut struck = None;
        lock(&self.armed).retain_mut(|Armed { which, fault }| {
            let left = match which {
                Which::Update(_) if seen.opcode != 5 => return true,
                Which::Update(left) | Which::Message(left) => left,
            };
            *left = left.saturating_sub(1);
            if *left > 0 || struck.is_some() {
                return true;
            }
            struck = Some(*fault);
            false
        });
        let key = (connection, [message[0], message[1]]);
        lock(&self.exchanges).push(Exchange { key, seen, fault: struck, replies: 0 });
        struck
    }

    /// Notes a reply: the fault that strikes it, and how many came before it.
    fn answered(&self, connection: usize, reply: &[u8]) -> (Option<Fault>, usize) {
        let mut exchanges = lock(&self.exchanges);
        let key = (connection, [reply[0], reply[1]]);
        let asked = exchanges.iter_mut().rev().find(|asked| asked.key == key);
        let Some(asked) = asked else { return (None, 0) };
        asked.seen.rcode.get_or_insert(reply[3] & 0x0f);
        asked.replies += 1;
        self.answered.notify_all();
        (asked.fault, asked.replies - 1)
    }

    fn be_silent(&self) {
        self.silent.fetch_add(1, Ordering::AcqRel);
    }
}

/// A message of at least a header, with its length before it.
fn read_message(mut from: &TcpStream) -> io::Result<Vec<u8>> {
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
