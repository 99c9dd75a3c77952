//! Forwarding over real sockets: upstreams that lie, are late, refuse, cut short or are down, real
//! name servers as upstreams, and forwarders that point at each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::unix::net::UnixListener;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use hickory_proto::op::Message;
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::BinDecodable;
use mesozone::answer::Transport;
use mesozone::forward::Forwarder;
use mesozone::forwarding::Forwarding;
use mesozone::name::Name;
use mesozone::network::Network;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::peer::{Peer, Setup, claim_port, debian, on_every_peer};

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4321);
/// A question that no upstream answers is over by then.
const OVER: Duration = Duration::from_secs(10);

const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

/// A message that an upstream got.
#[derive(Clone)]
struct Asked {
    from: SocketAddr,
    transport: Transport,
    message: Vec<u8>,
}

impl Asked {
    fn name(&self) -> String {
        Message::from_bytes(&self.message).unwrap().queries[0].name().to_string()
    }

    /// The answer of so many records, its code, and TC where its answer is cut.
    fn answer(&self, records: u8, rcode: u8, cut: u8) -> (SocketAddr, Vec<u8>) {
        // An OPT record of a forwarder is without options.
        let (question, opt) =
            self.message.split_at(self.message.len() - 11 * usize::from(self.message[11]));
        let mut reply = question.to_vec();
        reply[2] |= 0x84 | cut;
        reply[3] = rcode;
        reply[7] = records;
        for last in 0..records {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 9, 0, last]);
        }
        reply.extend_from_slice(opt);
        (self.from, reply)
    }
}

const CUT: u8 = 0x02;

/// A name server of the test's own over both transports, and what it was asked.
struct Upstream {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _sockets: JoinSet<()>,
    _claim: UnixListener,
}

impl Upstream {
    /// It sends what `reply` makes of all that it was asked so far, the latest last.
    async fn start(
        reply: impl Fn(&[Asked]) -> Vec<(SocketAddr, Vec<u8>)> + Send + Sync + 'static,
    ) -> Upstream {
        let (address, claim) = claim_port();
        let (udp, tcp) =
            (UdpSocket::bind(address).await.unwrap(), TcpListener::bind(address).await.unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let hear = {
            let asked = asked.clone();
            move |from, transport, message: &[u8]| {
                let mut asked = asked.lock().unwrap();
                asked.push(Asked { from, transport, message: message.to_vec() });
                reply(&asked)
            }
        };
        let (hear, mut sockets) = (Arc::new(hear), JoinSet::new());
        let heard = hear.clone();
        sockets.spawn(async move {
            let mut message = [0; 4096];
            loop {
                let (len, from) = udp.recv_from(&mut message).await.unwrap();
                for (to, reply) in heard(from, Transport::Udp, &message[..len]) {
                    udp.send_to(&reply, to).await.unwrap();
                }
            }
        });
        sockets.spawn(async move {
            loop {
                let (mut stream, from) = tcp.accept().await.unwrap();
                let mut message = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut message).await.unwrap();
                for (_, reply) in hear(from, Transport::Tcp, &message) {
                    stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            }
        });
        Upstream { address, asked, _sockets: sockets, _claim: claim }
    }

    async fn good() -> Upstream {
        Upstream::start(|asked| vec![asked.last().unwrap().answer(1, 0, 0)]).await
    }

    async fn says(rcode: u8) -> Upstream {
        Upstream::start(move |asked| vec![asked.last().unwrap().answer(0, rcode, 0)]).await
    }

    async fn silent() -> Upstream {
        Upstream::start(|_| Vec::new()).await
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Forwards names in each zone to its upstreams.
fn forwarder(zones: &[(&str, &[SocketAddr])]) -> Arc<Forwarder> {
    let upstreams = zones.iter().map(|(zone, servers)| (name(zone), servers.to_vec()));
    let upstreams: BTreeMap<Name, Vec<SocketAddr>> = upstreams.collect();
    Forwarder::new(Forwarding { upstreams, clients: Network::PRIVATE.to_vec() })
}

fn to(upstreams: &[&Upstream]) -> Arc<Forwarder> {
    let addresses: Vec<SocketAddr> = upstreams.iter().map(|upstream| upstream.address).collect();
    forwarder(&[(".", &addresses)])
}

/// A query with id 0x1234 and RD, its spelling kept.
fn query(owner: &str, rtype: u16) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in owner.split('.').filter(|label| !label.is_empty()) {
        octets.push(label.len() as u8);
        octets.extend(label.bytes());
    }
    octets.push(0);
    octets.extend(rtype.to_be_bytes());
    octets.extend([0, 1]);
    octets
}

fn with_opt(mut query: Vec<u8>, options: &[u8]) -> Vec<u8> {
    query[11] = 1;
    query.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, u8::try_from(options.len()).unwrap()]);
    [&query[..], options].concat()
}

/// The code, TC, and the answers.
fn shown(reply: &[u8]) -> String {
    assert_eq!(reply[..2], [0x12, 0x34]);
    let message = Message::from_bytes(reply).unwrap();
    assert!(message.metadata.recursion_available);
    let code = mesozone::wire::Rcode(message.metadata.response_code.into());
    let cut = if message.metadata.truncation { " tc" } else { "" };
    let answers: Vec<String> =
        message.answers.iter().map(|r: &Record| r.data.to_string()).collect();
    format!("{code}{cut} {}", answers.join(" ")).trim_end().to_owned()
}

async fn ask(forwarder: &Arc<Forwarder>, owner: &str, transport: Transport) -> String {
    ask_from(forwarder, owner, transport, CLIENT.ip()).await
}

async fn ask_from(
    forwarder: &Arc<Forwarder>,
    owner: &str,
    transport: Transport,
    client: impl Into<IpAddr>,
) -> String {
    let request = query(owner, 1);
    let reply = forwarder.forward(&request, SocketAddr::new(client.into(), 53), transport);
    let reply = tokio::time::timeout(OVER, reply).await.expect("an answer in time");
    shown(&reply.expect("an answer"))
}

#[track_caller]
fn check(answer: &str, expected: &str, counts: &[(&Upstream, usize)]) {
    let counted: Vec<usize> = counts.iter().map(|(upstream, _)| upstream.asked().len()).collect();
    let expected_counts: Vec<usize> = counts.iter().map(|(_, count)| *count).collect();
    assert_eq!((answer, counted), (expected, expected_counts));
}

const GOOD: &str = "NOERROR 10.9.0.0";

#[tokio::test]
async fn a_question_goes_on_without_what_is_the_clients_and_its_answer_comes_back() {
    let upstream = Upstream::good().await;
    let forwarder = to(&[&upstream]);
    let request = with_opt(query("Www.Example", 1), &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    let reply = forwarder.forward(&request, CLIENT, Transport::Udp).await.unwrap();
    assert_eq!(shown(&reply), GOOD);
    assert_eq!(reply[12..25], request[12..25]);
    let [asked] = &upstream.asked()[..] else { panic!("one question") };
    let expected = with_opt(query("www.example", 1), &[]);
    let ours = [&expected[2..expected.len() - 8], &[4, 0xd0], &expected[expected.len() - 6..]];
    assert_eq!(asked.message[2..], ours.concat());
}

#[tokio::test]
async fn who_may_not_ask_and_what_is_no_question_reach_no_upstream() {
    let upstream = Upstream::good().await;
    let forwarder = to(&[&upstream]);
    let stranger = SocketAddr::from(([8, 8, 8, 8], 53));
    let request = query("example", 1);
    let refused = forwarder.forward(&request, stranger, Transport::Udp).await.unwrap();
    assert_eq!(refused[3] & 0xf, REFUSED);
    let axfr = forwarder.forward(&query("example", 252), CLIENT, Transport::Tcp).await.unwrap();
    assert_eq!(axfr[3] & 0xf, REFUSED);
    assert_eq!(forwarder.forward(&request[..9], CLIENT, Transport::Udp).await, None);
    assert!(upstream.asked().is_empty());
}

#[tokio::test]
async fn lies_are_ignored_and_the_truth_is_waited_for() {
    let spoofer = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let upstream = Upstream::start(move |asked| {
        let asked = asked.last().unwrap();
        let (client, truth) = asked.answer(1, 0, 0);
        let (_, mut lie) = asked.answer(2, 0, 0);
        // From another socket all else is right.
        spoofer.send_to(&lie, client).unwrap();
        lie[1] ^= 1;
        let other_id = lie.clone();
        lie[1] ^= 1;
        let mut lies = vec![other_id];
        // QR, the number of questions, the name, the type, the class, the number of records.
        for (at, turned) in [(2, 0x80), (5, 3), (14, 1), (26, 1), (28, 2), (7, 8)] {
            let mut lie = lie.clone();
            lie[at] ^= turned;
            lies.push(lie);
        }
        lies.push(lie[..20].to_vec());
        lies.push(Vec::new());
        lies.into_iter().chain([truth]).map(|reply| (client, reply)).collect()
    })
    .await;
    let answer = ask(&to(&[&upstream]), "www.example", Transport::Udp).await;
    check(&answer, GOOD, &[(&upstream, 1)]);
}

#[tokio::test]
async fn who_only_lies_is_asked_three_times_and_then_it_is_over() {
    let upstream = Upstream::start(|asked| {
        let (client, mut lie) = asked.last().unwrap().answer(1, 0, 0);
        lie[0] ^= 0x80;
        vec![(client, lie)]
    })
    .await;
    let answer = ask(&to(&[&upstream]), "www.example", Transport::Udp).await;
    check(&answer, "SERVFAIL", &[(&upstream, 3)]);
    let asked = upstream.asked();
    let ids: BTreeSet<&[u8]> = asked.iter().map(|asked| &asked.message[..2]).collect();
    let ports: BTreeSet<SocketAddr> = asked.iter().map(|asked| asked.from).collect();
    // Two of three may be equal by chance.
    assert!(ids.len() > 1 && ports.len() > 1, "{ids:?} {ports:?}");
}

#[tokio::test]
async fn a_late_answer_to_an_earlier_try_is_no_answer_to_the_next() {
    let upstream = Upstream::start(|asked| match asked {
        [.., before, last] => vec![before.answer(2, 0, 0), last.answer(1, 0, 0)],
        _ => Vec::new(),
    })
    .await;
    let answer = ask(&to(&[&upstream]), "www.example", Transport::Udp).await;
    check(&answer, GOOD, &[(&upstream, 2)]);
}

#[tokio::test]
async fn another_is_asked_where_one_cannot_or_will_not_answer() {
    let good = Upstream::good().await;
    let bad =
        [Upstream::says(SERVFAIL).await, Upstream::says(REFUSED).await, Upstream::silent().await];
    for (at, bad) in bad.iter().enumerate() {
        let answer = ask(&to(&[bad, &good]), "example", Transport::Udp).await;
        check(&answer, GOOD, &[(bad, 1), (&good, at + 1)]);
    }
    let (down, _claim) = claim_port();
    let start = Instant::now();
    let answer = ask(&forwarder(&[(".", &[down, good.address])]), "example", Transport::Udp).await;
    check(&answer, GOOD, &[(&good, 4)]);
    assert_eq!(ask(&forwarder(&[(".", &[down])]), "example", Transport::Udp).await, "SERVFAIL");
    assert!(start.elapsed() < Duration::from_secs(1), "nobody is waited for");
}

#[tokio::test]
async fn of_poor_answers_the_first_is_given() {
    let (refuses, fails) = (Upstream::says(REFUSED).await, Upstream::says(SERVFAIL).await);
    let answer = ask(&to(&[&refuses, &fails]), "example", Transport::Udp).await;
    check(&answer, "REFUSED", &[(&refuses, 1), (&fails, 1)]);
    let silent = Upstream::silent().await;
    let answer = ask(&to(&[&refuses, &silent]), "example", Transport::Udp).await;
    check(&answer, "REFUSED", &[(&refuses, 2), (&silent, 1)]);
}

#[tokio::test]
async fn what_is_no_failure_is_passed_on_at_once() {
    let good = Upstream::good().await;
    for (rcode, expected) in [(1, "FORMERR"), (3, "NXDOMAIN"), (4, "NOTIMP"), (9, "NOTAUTH")] {
        let upstream = Upstream::says(rcode).await;
        let answer = ask(&to(&[&upstream, &good]), "example", Transport::Udp).await;
        check(&answer, expected, &[(&upstream, 1), (&good, 0)]);
    }
}

#[tokio::test]
async fn one_that_was_silent_is_asked_after_the_others_for_a_while() {
    let (silent, good) = (Upstream::silent().await, Upstream::good().await);
    let forwarder = to(&[&silent, &good]);
    check(&ask(&forwarder, "a.example", Transport::Udp).await, GOOD, &[(&silent, 1), (&good, 1)]);
    check(&ask(&forwarder, "b.example", Transport::Udp).await, GOOD, &[(&silent, 1), (&good, 2)]);
}

#[tokio::test]
async fn what_is_cut_short_is_asked_again_over_tcp() {
    let upstream = Upstream::start(|asked| {
        let asked = asked.last().unwrap();
        match asked.transport {
            Transport::Udp => vec![asked.answer(0, 0, CUT)],
            Transport::Tcp if asked.name().starts_with("few") => vec![asked.answer(3, 0, 0)],
            Transport::Tcp => vec![asked.answer(200, 0, 0)],
        }
    })
    .await;
    let forwarder = to(&[&upstream]);
    let few = "NOERROR 10.9.0.0 10.9.0.1 10.9.0.2";
    check(&ask(&forwarder, "few.example", Transport::Udp).await, few, &[(&upstream, 2)]);
    check(&ask(&forwarder, "example", Transport::Udp).await, "NOERROR tc", &[(&upstream, 4)]);
    let all = ask(&forwarder, "example", Transport::Tcp).await;
    assert_eq!(all.split(' ').count(), 201);
    let asked = upstream.asked();
    assert_eq!([asked[0].transport, asked[1].transport], [Transport::Udp, Transport::Tcp]);
}

#[tokio::test]
async fn where_tcp_fails_another_is_asked_and_else_the_short_answer_is_given() {
    let cut = Upstream::start(|asked| match asked.last().unwrap() {
        asked if asked.transport == Transport::Udp => vec![asked.answer(1, 0, CUT)],
        // An answer to something else; the connection ends behind it.
        asked => {
            let (from, mut lie) = asked.answer(2, 0, 0);
            lie[0] ^= 1;
            vec![(from, lie)]
        }
    })
    .await;
    let alone = ask(&to(&[&cut]), "example", Transport::Udp).await;
    check(&alone, "NOERROR tc 10.9.0.0", &[(&cut, 2)]);
    let good = Upstream::good().await;
    let answer = ask(&to(&[&cut, &good]), "example", Transport::Udp).await;
    check(&answer, GOOD, &[(&cut, 4), (&good, 1)]);
}

/// Answers all of its questions once it is asked for `now.`.
async fn patient() -> Upstream {
    Upstream::start(|asked| match asked.last().unwrap().name() == "now." {
        true => asked.iter().map(|asked| asked.answer(1, 0, 0)).collect(),
        false => Vec::new(),
    })
    .await
}

/// Has it answer, once it was asked something.
async fn answers_now(upstream: &Upstream, forwarder: &Arc<Forwarder>) {
    let before = upstream.asked().len();
    while upstream.asked().len() == before {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(forwarder, "now", Transport::Udp).await, GOOD);
}

#[tokio::test]
async fn who_asks_the_same_waits_for_one_answer() {
    let upstream = patient().await;
    let forwarder = to(&[&upstream]);
    let same = (0..100).map(|n| {
        let owner = if n % 2 == 0 { "example" } else { "EXAMPLE" };
        let transport = if n % 3 == 0 { Transport::Tcp } else { Transport::Udp };
        ask(&forwarder, owner, transport)
    });
    let (all, ()) = tokio::join!(join_all(same), answers_now(&upstream, &forwarder));
    assert_eq!(all, [GOOD; 100]);
    assert_eq!(upstream.asked().len(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_costs_no_other_its_answer() {
    let upstream = patient().await;
    let forwarder = to(&[&upstream]);
    let mut first = Box::pin(ask(&forwarder, "example", Transport::Tcp));
    let mut second = Box::pin(ask(&forwarder, "example", Transport::Udp));
    assert_eq!(first.as_mut().now_or_never(), None);
    assert_eq!(second.as_mut().now_or_never(), None);
    drop(first);
    assert_eq!(tokio::join!(second, answers_now(&upstream, &forwarder)).0, GOOD);
    // And when all leave, the next begins anew.
    let mut left = Box::pin(ask(&forwarder, "other", Transport::Udp));
    assert_eq!(left.as_mut().now_or_never(), None);
    drop(left);
    let next = ask(&forwarder, "other", Transport::Udp);
    assert_eq!(tokio::join!(next, answers_now(&upstream, &forwarder)).0, GOOD);
}

#[tokio::test]
async fn beyond_its_room_a_zone_fails_at_once_and_others_do_not() {
    let (silent, good) = (Upstream::silent().await, Upstream::good().await);
    let zones = [("silent", &[silent.address][..]), ("good", &[good.address])];
    let forwarder = forwarder(&zones);
    let owners: Vec<String> = (0..256).map(|n| format!("n{n}.silent")).collect();
    let mut waiting = Vec::new();
    // Of four networks, each of which has its share of the room.
    let asks = async |owner: &str, at: usize| {
        ask_from(&forwarder, owner, Transport::Udp, [10, 0, 0, (at / 128) as u8]).await
    };
    for (at, owner) in owners.iter().enumerate() {
        let mut question = Box::pin(asks(owner, at));
        assert_eq!(question.as_mut().now_or_never(), None);
        waiting.push(question);
    }
    let next = asks("www.good", 0).now_or_never();
    assert_eq!(next.as_deref(), Some("SERVFAIL"), "its share is taken");
    let next = asks("next.silent", 300).now_or_never();
    assert_eq!(next.as_deref(), Some("SERVFAIL"));
    assert_eq!(asks("www.good", 300).await, GOOD);
    // The same again needs no socket, but room.
    for at in 256..512 {
        let mut question = Box::pin(asks("n0.silent", at));
        assert_eq!(question.as_mut().now_or_never(), None);
        waiting.push(question);
    }
    let next = asks("www.good", 600).now_or_never();
    assert_eq!(next.as_deref(), Some("SERVFAIL"));
    drop(waiting);
    assert_eq!(asks("www.good", 0).await, GOOD);
}

/// A forwarder behind a socket, and how many questions it heard.
struct Relay {
    address: SocketAddr,
    socket: StdUdpSocket,
    heard: Arc<Mutex<usize>>,
    _claim: UnixListener,
}

impl Relay {
    fn open() -> Relay {
        let (address, claim) = claim_port();
        let socket = StdUdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        Relay { address, socket, heard: Arc::default(), _claim: claim }
    }

    async fn serve(socket: StdUdpSocket, heard: Arc<Mutex<usize>>, forwarder: Arc<Forwarder>) {
        let socket = Arc::new(UdpSocket::from_std(socket).unwrap());
        let mut message = [0; 4096];
        loop {
            let (len, client) = socket.recv_from(&mut message).await.unwrap();
            *heard.lock().unwrap() += 1;
            let (socket, forwarder) = (socket.clone(), forwarder.clone());
            let request = message[..len].to_vec();
            tokio::spawn(async move {
                let reply = forwarder.forward(&request, client, Transport::Udp).await.unwrap();
                // Whoever asked may have given up.
                let _ = socket.send_to(&reply, client).await;
            });
        }
    }
}

/// So many forwarders in a circle.
async fn check_circle(count: usize) {
    let relays: Vec<Relay> = (0..count).map(|_| Relay::open()).collect();
    let next = relays.iter().cycle().skip(1).map(|relay| relay.address);
    let forwarders: Vec<Arc<Forwarder>> =
        next.take(count).map(|next| forwarder(&[(".", &[next])])).collect();
    let mut serving = JoinSet::new();
    for (relay, forwarder) in relays.iter().zip(&forwarders) {
        let socket = relay.socket.try_clone().unwrap();
        serving.spawn(Relay::serve(socket, relay.heard.clone(), forwarder.clone()));
    }
    let questions = ["a.example", "b.example", "a.example"];
    let answers = questions.map(|owner| ask(&forwarders[0], owner, Transport::Udp));
    assert_eq!(join_all(answers).await, ["SERVFAIL"; 3]);
    for relay in &relays {
        // Two questions, three tries of each.
        let heard = *relay.heard.lock().unwrap();
        assert!(heard <= 6, "{heard} of {count}");
    }
}

#[tokio::test]
async fn forwarders_that_point_at_each_other_end_in_an_answer() {
    join_all((1..=3).map(check_circle)).await;
}

/// BIND as a resolver that asks only us.
struct Resolver {
    address: SocketAddr,
    process: Child,
    _dir: TempDir,
    _claim: UnixListener,
}

impl Resolver {
    async fn start(forwards_to: SocketAddr) -> Resolver {
        let (address, claim) = claim_port();
        let dir = tempfile::tempdir().unwrap();
        let (port, to) = (address.port(), forwards_to.port());
        let config = format!(
            "options {{
                 directory \"{}\"; pid-file none; lock-file none; session-keyfile none;
                 listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
                 recursion yes; dnssec-validation no;
                 forward only; forwarders {{ 127.0.0.1 port {to}; }};
             }};
             controls {{ }};\n",
            dir.path().display()
        );
        let file = dir.path().join("named.conf");
        std::fs::write(&file, config).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let process = debian("named").args(["-g", "-4", "-c"]).arg(file).stderr(log).spawn();
        let mut resolver =
            Resolver { address, process: process.unwrap(), _dir: dir, _claim: claim };
        resolver.wait_until_it_answers().await;
        resolver
    }

    async fn wait_until_it_answers(&mut self) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // Of no recursion: what it knows itself.
        let request = [&query("version.bind", 16)[..28], &[0, 3]].concat();
        let start = Instant::now();
        loop {
            socket.send_to(&request, self.address).await.unwrap();
            let mut reply = [0; 512];
            let heard = tokio::time::timeout(Duration::from_millis(20), socket.recv(&mut reply));
            if let Ok(Ok(_)) = heard.await {
                return;
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < OVER, "{ended:?}");
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_resolver_that_points_back_ends_in_an_answer_too() {
    let relay = Relay::open();
    let resolver = Resolver::start(relay.address).await;
    let forwarder = forwarder(&[(".", &[resolver.address])]);
    let mut serving = JoinSet::new();
    serving.spawn(Relay::serve(relay.socket, relay.heard.clone(), forwarder.clone()));
    for question in 1..=2 {
        let answer = ask(&forwarder, &format!("n{question}.example"), Transport::Udp).await;
        assert_eq!(answer, "SERVFAIL");
        let heard = *relay.heard.lock().unwrap();
        assert!((question..=10 * question).contains(&heard), "{heard} after {question}");
    }
}

/// What a server says itself over UDP, or over TCP where that is cut.
async fn direct(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(request).await.unwrap();
    let mut reply = vec![0; 65_535];
    let len = tokio::time::timeout(OVER, socket.recv(&mut reply)).await.unwrap().unwrap();
    reply.truncate(len);
    if reply[2] & CUT == 0 {
        return reply;
    }
    let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
    stream.write_u16(u16::try_from(request.len()).unwrap()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut reply).await.unwrap();
    reply
}

/// The code and all records, each behind the number of its section. Servers differ in whose
/// spelling a name gets.
fn records(reply: &[u8]) -> BTreeSet<String> {
    let message = Message::from_bytes(reply).unwrap();
    let sections = [&message.answers, &message.authorities, &message.additionals];
    let numbered = sections.iter().enumerate().flat_map(|(section, records)| {
        records.iter().map(move |record| format!("{section} {record}").to_lowercase())
    });
    numbered.chain([message.metadata.response_code.to_string()]).collect()
}

#[test]
fn what_real_servers_say_comes_through() {
    let many = (1..=90).map(|last| format!("many A 10.9.0.{last}\n")).collect::<String>();
    let zone = "www A 10.9.0.1\nodd TYPE65280 \\# 5 C00CFF0001\nalias CNAME www\n\
                sub NS ns.sub\nns.sub A 10.9.0.2\n*.wild TXT \"any\" \"thing\"\n";
    let zone = format!("{zone}{many}");
    on_every_peer(|peer| {
        let setup = Setup { zone: "example", records: &zone, ..Setup::default() };
        let server = peer.start(&setup);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let forwarder = forwarder(&[("example", &[server.addr()])]);
            let asked = [("www", 1), ("odd", 65280), ("alias", 28), ("alias", 1), ("x.wild", 16)];
            let others = [("missing", 1), ("www", 15), ("x.sub", 1), ("many", 1), ("www", 255)];
            for (owner, rtype) in asked.into_iter().chain(others) {
                let plain = query(&format!("{owner}.Example"), rtype);
                for request in [plain.clone(), with_opt(plain.clone(), &[])] {
                    let theirs = direct(server.addr(), &request).await;
                    let ours = forwarder.forward(&request, CLIENT, Transport::Tcp).await.unwrap();
                    assert_eq!(records(&ours), records(&theirs), "{peer:?} {owner} {rtype}");
                    let question = 12..plain.len();
                    assert_eq!(ours[question.clone()], request[question]);
                    let udp = forwarder.forward(&request, CLIENT, Transport::Udp).await.unwrap();
                    let fits = ours.len() <= if request == plain { 512 } else { 1232 };
                    assert_eq!(udp[2] & CUT == 0, fits, "{peer:?} {owner} {rtype}");
                }
            }
            // Of a zone that the server has not.
            let elsewhere = ask_any(server.addr(), "elsewhere").await;
            assert!(["REFUSED", "SERVFAIL"].contains(&&*elsewhere), "{peer:?}: {elsewhere}");
        });
    });
}

async fn ask_any(server: SocketAddr, owner: &str) -> String {
    ask(&forwarder(&[(".", &[server])]), owner, Transport::Udp).await
}

#[test]
fn a_server_that_comes_back_is_asked_again() {
    let mut server = Peer::Bind.start(&Setup { records: "www A 10.9.0.0", ..Setup::default() });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let forwarder = forwarder(&[(".", &[server.addr()])]);
    let www = || runtime.block_on(ask(&forwarder, "www.mesos", Transport::Udp));
    assert_eq!(www(), GOOD);
    server.kill();
    assert_eq!(www(), "SERVFAIL");
    server.start();
    assert_eq!(www(), GOOD);
}
