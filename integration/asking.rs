//! Who asks name servers for the same names without pause, and writes down every wrong answer.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use hickory_proto::serialize::binary::BinDecodable;

use crate::server::{framed, read_framed};

/// Longer than a name server takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A name with its type.
pub(crate) type Question = (String, RecordType);

/// The questions to which these records, as `records --format tsv` prints them, are the answers:
/// the rdata of each, sorted.
pub(crate) fn questions(records: &str) -> BTreeMap<Question, Vec<String>> {
    let mut questions: BTreeMap<Question, Vec<String>> = BTreeMap::new();
    for line in records.lines() {
        let [name, rtype, rdata] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let question = (name.to_owned(), rtype.parse().unwrap());
        questions.entry(question).or_default().push(rdata.to_owned());
    }
    questions.values_mut().for_each(|rdata| rdata.sort());
    questions
}

/// What a server says: the rcode, none where nobody answers, and the rdata, sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Said {
    pub(crate) rcode: Option<ResponseCode>,
    pub(crate) rdata: Vec<String>,
}

impl Said {
    pub(crate) fn is_found(&self) -> bool {
        self.rcode == Some(ResponseCode::NoError) && !self.rdata.is_empty()
    }

    /// The name, or the record, is denied.
    pub(crate) fn is_denied(&self) -> bool {
        let nodata = self.rcode == Some(ResponseCode::NoError) && self.rdata.is_empty();
        nodata || self.rcode == Some(ResponseCode::NXDomain)
    }
}

/// Asks one server from a socket of its own.
pub(crate) struct Asker {
    socket: UdpSocket,
    next: u16,
}

impl Asker {
    pub(crate) fn of(server: SocketAddr) -> Asker {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Asker { socket, next: 0 }
    }

    /// The answer, asked for again where it fails to come.
    pub(crate) fn ask(&mut self, (name, rtype): &Question) -> Said {
        self.next = self.next.wrapping_add(1);
        let query = query(self.next, name, *rtype);
        let started = Instant::now();
        let mut reply = [0; 4096];
        while started.elapsed() < PATIENCE {
            let received = self.socket.send(&query).and_then(|_| self.socket.recv(&mut reply));
            match received {
                Ok(octets) if reply[..2] == query[..2] => return read(&reply[..octets]),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // Nobody listens.
                Err(_) => break,
            }
        }
        Said { rcode: None, rdata: Vec::new() }
    }
}

/// The whole answer, over a connection.
pub(crate) fn ask_over(connection: &mut TcpStream, (name, rtype): &Question) -> Said {
    connection.write_all(&framed(&query(1, name, *rtype))).unwrap();
    read(&read_framed(connection))
}

/// A question without recursion, with room for a large answer.
fn query(id: u16, name: &str, rtype: RecordType) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 1]].concat();
    for label in name.trim_end_matches('.').split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(u16::from(rtype).to_be_bytes());
    // Class IN, then OPT: 4,096 octets.
    message.extend([0, 1, 0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    message
}

fn read(reply: &[u8]) -> Said {
    let message = Message::from_bytes(reply).unwrap();
    let mut rdata: Vec<String> = message.answers.iter().map(|record| text(&record.data)).collect();
    rdata.sort();
    Said { rcode: Some(message.metadata.response_code), rdata }
}

fn text(rdata: &RData) -> String {
    rdata.to_string().to_lowercase()
}

/// Whether what one server says of one question is right; the right rdata is given.
pub(crate) type Judge = fn(&Said, &[String]) -> bool;

/// All there is and nothing else.
pub(crate) fn exactly(said: &Said, right: &[String]) -> bool {
    said.rcode == Some(ResponseCode::NoError) && said.rdata == right
}

/// From one who may not know all, or not yet run: no name and no record is denied, and nothing is
/// invented.
pub(crate) fn without_denial(said: &Said, right: &[String]) -> bool {
    !said.is_denied() && said.rdata.iter().all(|rdata| right.contains(rdata))
}

/// Asks every server every question, over and over, until it is told to stop.
pub(crate) struct Watcher {
    rounds: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Watcher {
    pub(crate) fn start(records: &str, servers: Vec<(SocketAddr, Judge)>) -> Watcher {
        let questions = questions(records);
        assert!(questions.len() > 10, "few names to ask for: {records}");
        let (rounds, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, stop) = (rounds.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            let mut wrong = Vec::new();
            let mut askers: Vec<_> =
                servers.iter().map(|(server, judge)| (Asker::of(*server), *judge)).collect();
            while !stop.load(Ordering::Acquire) {
                for (question, right) in &questions {
                    for (asker, judge) in &mut askers {
                        let said = asker.ask(question);
                        if !judge(&said, right) {
                            let server = asker.socket.peer_addr().unwrap();
                            wrong.push(format!("{server} {question:?}: {said:?}, not {right:?}"));
                        }
                    }
                }
                count.fetch_add(1, Ordering::AcqRel);
                // The other programs of the test need the processors as well.
                std::thread::park_timeout(Duration::from_millis(2));
            }
            wrong
        });
        Watcher { rounds, stopped, thread: Some(thread) }
    }

    /// Waits until everything was asked so many times more.
    #[track_caller]
    pub(crate) fn rounds(&self, count: usize) {
        let wanted = self.rounds.load(Ordering::Acquire) + count;
        let started = Instant::now();
        while self.rounds.load(Ordering::Acquire) < wanted {
            assert!(started.elapsed() < 6 * PATIENCE, "the servers hardly answer");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Stops, and tells what was wrong.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.stopped.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().unwrap_or_else(|_| vec!["who asks has panicked".to_owned()])
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
    }
}
