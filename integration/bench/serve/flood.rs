//! Many queries at once, and one at a time.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrStorage, recvmmsg, sendmmsg};

/// Queries without an answer.
const WINDOW: usize = 192;
/// Queries that leave, and answers that are taken, at once.
const BATCH: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    A(Edns),
    Srv(Edns),
    Missing(Edns),
}

#[derive(Clone, Copy)]
pub(crate) enum Edns {
    With,
    Without,
}

impl Kind {
    pub(crate) const ALL: [Kind; 6] = [
        Kind::A(Edns::Without),
        Kind::A(Edns::With),
        Kind::Srv(Edns::Without),
        Kind::Srv(Edns::With),
        Kind::Missing(Edns::Without),
        Kind::Missing(Edns::With),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::A(Edns::Without) => "A",
            Kind::A(Edns::With) => "A, EDNS",
            Kind::Srv(Edns::Without) => "SRV",
            Kind::Srv(Edns::With) => "SRV, EDNS",
            Kind::Missing(Edns::Without) => "missing",
            Kind::Missing(Edns::With) => "missing, EDNS",
        }
    }

    /// Records in the answer section.
    pub(crate) fn answers(self) -> u8 {
        u8::from(!matches!(self, Kind::Missing(_)))
    }

    /// Queries for names of a zone of so many records, by chance, the same each time.
    pub(crate) fn questions(self, records: usize, count: usize) -> Vec<Vec<u8>> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut chance = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize % (records / 2)
        };
        let one = |n: usize| match self {
            Kind::A(edns) => question(&format!("task-{n}.marathon.mesos"), 1, edns),
            Kind::Srv(edns) => question(&format!("_task-{n}._tcp.marathon.mesos"), 33, edns),
            Kind::Missing(edns) => question(&format!("gone-{n}.marathon.mesos"), 1, edns),
        };
        (0..count).map(|_| one(chance())).collect()
    }
}

fn question(name: &str, rtype: u16, edns: Edns) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').chain([""]) {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend(label.as_bytes());
    }
    message.extend(rtype.to_be_bytes());
    message.extend([0, 1]);
    if let Edns::With = edns {
        message[11] = 1;
        message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    }
    message
}

/// Asks all of it, with a window of unanswered queries, and sees that each has as many records in
/// its answer as it should; how long that took.
pub(crate) fn flood(server: SocketAddr, questions: &[Vec<u8>], answers: u8) -> Duration {
    let SocketAddr::V4(v4) = server else { panic!("{server} is no IPv4 address") };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let fd = socket.as_raw_fd();
    let to = vec![Some(SockaddrIn::from(v4)); BATCH];
    let mut outgoing = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut incoming = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut replies = vec![vec![0; 2048]; BATCH];
    let (mut sent, mut received, started) = (0, 0, Instant::now());
    while received < questions.len() {
        let room = (WINDOW - (sent - received)).min(BATCH).min(questions.len() - sent);
        if room > 0 {
            let slices: Vec<[IoSlice<'_>; 1]> =
                questions[sent..sent + room].iter().map(|q| [IoSlice::new(q)]).collect();
            let nothing = [];
            let flags = MsgFlags::empty();
            let left = sendmmsg(fd, &mut outgoing, &slices, &to[..room], nothing, flags);
            sent += left.expect("a loopback address").count();
        }
        let mut slots: Vec<[IoSliceMut<'_>; 1]> =
            replies.iter_mut().map(|reply| [IoSliceMut::new(reply)]).collect();
        let came = recvmmsg(fd, &mut incoming, &mut slots, MsgFlags::MSG_WAITFORONE, None);
        let count = came.expect("an answer in time: one is lost").count();
        for reply in &replies[..count] {
            assert!(reply[2] & 0x82 == 0x80 && reply[7] == answers, "{:?}", &reply[..12]);
        }
        received += count;
    }
    started.elapsed()
}

/// How long each answer takes, a query every half a millisecond.
#[expect(clippy::disallowed_methods, reason = "questions come at their times")]
pub(crate) fn latencies(
    server: SocketAddr,
    questions: &[Vec<u8>],
    time: Duration,
) -> Vec<Duration> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    socket.connect(server).expect("a loopback address");
    let (started, mut due, mut waited) = (Instant::now(), Instant::now(), Vec::new());
    let mut reply = [0; 2048];
    for question in questions.iter().cycle() {
        if started.elapsed() > time {
            break;
        }
        // Who waited for the answer before asks late, and waits since the question was due.
        let is_late = Instant::now() > due;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = if is_late { due } else { Instant::now() };
        socket.send(question).expect("a loopback address");
        socket.recv(&mut reply).expect("an answer in time");
        waited.push(asked.elapsed());
        due += Duration::from_micros(500);
    }
    waited
}
