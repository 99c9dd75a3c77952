//! Asking other name servers for the clients of the bundled one.
//!
//! **A question that is under way is not asked again**: whoever asks the same waits for the one
//! answer (RFC 5452, section 5: several under way at once would help who guesses). That is also
//! what ends a loop, whoever else is in it, since all that goes round in one is the same question:
//! here it waits for its own answer until its time is over, and then all of the loop answers
//! SERVFAIL.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, error::Elapsed, timeout_at};

use crate::answer::Transport;
use crate::forwarding::{Admission, Answer, Errand, Forwarding, Query};
use crate::metrics::{Forwarded, Metrics};
use crate::name::Name;
use crate::shares::{Share, Shares};

/// Questions at once, with those that wait for another's answer; the next is answered SERVFAIL.
const HELD_MAX: usize = 512;
/// Of them those of one client network, so that it leaves room for others.
const PER_CLIENT_MAX: usize = 128;
/// Of them, questions being asked in one zone, so that upstreams which do not answer leave room for
/// others. Each has one socket.
const ASKED_MAX: usize = 256;
/// How long an upstream may take to answer over UDP, and again over TCP.
const TRY_MAX: Duration = Duration::from_millis(1_500);
/// How long a question may take; clients by default ask again after five seconds.
const QUESTION_MAX: Duration = Duration::from_millis(4_500);
/// For how long others are asked before an upstream that did not answer.
const AVOIDED: Duration = Duration::from_secs(5);
/// The most octets taken over UDP; no server should send more than we tell it we take.
const RECEIVED_MAX: usize = 4_096;

/// Why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
enum Missed {
    #[error("no answer in time")]
    Silent(#[from] Elapsed),
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error("no random message id")]
    Chance(#[from] getrandom::Error),
}

/// The answer to come, none if no upstream gives one.
type Answering = BoxFuture<'static, Option<Answer>>;
/// A question under way, for all who ask it.
type Flight = Shared<Answering>;

/// What all questions share.
#[derive(Debug)]
pub struct Forwarder {
    forwarding: Forwarding,
    held: Arc<Shares>,
    /// Of each zone, how many more may be asked.
    asked: HashMap<Name, Arc<Semaphore>>,
    /// Until when others are asked first; none while it answers.
    avoided: HashMap<SocketAddr, Mutex<Option<Instant>>>,
    flights: Mutex<Flights>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Flights {
    by_query: HashMap<Query, (u64, WeakShared<Answering>)>,
    last: u64,
}

/// A question that there is room for.
#[derive(Debug)]
pub struct Held {
    errand: Errand,
    _room: Share,
}

impl Forwarder {
    pub fn new(forwarding: Forwarding) -> Arc<Forwarder> {
        Forwarder::counted(forwarding, Metrics::default())
    }

    /// One that counts its questions.
    pub(crate) fn counted(forwarding: Forwarding, metrics: Metrics) -> Arc<Forwarder> {
        let zones = forwarding.upstreams.keys();
        let asked = zones.map(|zone| (zone.clone(), Arc::new(Semaphore::new(ASKED_MAX)))).collect();
        let upstreams = forwarding.upstreams.values().flatten();
        let avoided = upstreams.map(|upstream| (*upstream, Mutex::default())).collect();
        let held = Shares::new(HELD_MAX, PER_CLIENT_MAX);
        let flights = Mutex::default();
        Arc::new(Forwarder { forwarding, held, asked, avoided, flights, metrics })
    }

    /// Whether everything outside is refused.
    pub fn is_off(&self) -> bool {
        self.forwarding.is_off()
    }

    /// Whether names elsewhere are asked for on behalf of this client.
    pub fn serves(&self, client: IpAddr) -> bool {
        self.forwarding.serves(client)
    }

    /// See [`Forwarding::admit`].
    pub fn admit(&self, request: &[u8], client: IpAddr, transport: Transport) -> Admission {
        self.forwarding.admit(request, client, transport)
    }

    /// Takes room for a question; where there is none, the answer that says so.
    pub fn hold(&self, errand: Errand, client: IpAddr) -> Result<Held, Vec<u8>> {
        match self.held.take(client, 0) {
            Some(room) => Ok(Held { errand, _room: room }),
            None => {
                tracing::debug!(zone = %errand.zone, "too many questions to forward another");
                self.metrics.count_forwarded(Forwarded::Refused);
                Err(errand.failed())
            }
        }
    }

    /// The answer to a question, a few seconds later at most. Dropped, it costs no other client
    /// the answer.
    pub async fn carry(self: &Arc<Self>, held: Held) -> Vec<u8> {
        let answer = match self.flight(&held.errand) {
            Some(flight) => flight.await,
            None => None,
        };
        let is_answered = answer.as_ref().is_some_and(|answer| !answer.is_poor());
        self.metrics.count_forwarded(match is_answered {
            true => Forwarded::Answered,
            false => Forwarded::Failed,
        });
        answer.map_or_else(|| held.errand.failed(), |answer| held.errand.passed_on(&answer))
    }

    /// Answers a request about a name that is in no zone of ours; none where silence is due.
    pub async fn forward(
        self: &Arc<Self>,
        request: &[u8],
        client: SocketAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        match self.admit(request, client.ip(), transport) {
            Admission::Silence => None,
            Admission::Answer(reply) => Some(reply),
            Admission::Ask(errand) => Some(match self.hold(errand, client.ip()) {
                Ok(held) => self.carry(held).await,
                Err(reply) => reply,
            }),
        }
    }

    /// The flight of this question, begun unless it is under way; none while its zone has too many.
    fn flight(self: &Arc<Self>, errand: &Errand) -> Option<Flight> {
        let mut flights = locked(&self.flights);
        let under_way = flights.by_query.get(&errand.query);
        if let Some(flight) = under_way.and_then(|(_, flight)| flight.upgrade()) {
            return Some(flight);
        }
        let Ok(room) = self.asked.get(&errand.zone)?.clone().try_acquire_owned() else {
            tracing::debug!(zone = %errand.zone, "too many questions are being asked in it");
            return None;
        };
        flights.last += 1;
        let number = flights.last;
        let (zone, query) = (errand.zone.clone(), errand.query.clone());
        let landing = Landing { forwarder: self.clone(), query: query.clone(), number };
        let flight = async move {
            let answer = landing.forwarder.ask_around(&zone, &landing.query).await;
            drop((landing, room));
            answer
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.by_query.insert(query, (number, weak));
        }
        Some(flight)
    }

    /// Asks one upstream after the other. One that is silent is asked again while there is time;
    /// one that could not be reached or would not find out, SERVFAIL or REFUSED, is not. Where no
    /// answer is better, the first such one is given.
    async fn ask_around(&self, zone: &Name, query: &Query) -> Option<Answer> {
        let end = Instant::now() + QUESTION_MAX;
        let mut next = self.preferred(zone);
        let mut poor = None;
        while let Some(upstream) = next.pop_front()
            && Instant::now() < end
        {
            match ask(upstream, query, end).await {
                Ok(answer) => {
                    self.prefer(upstream);
                    if !answer.is_poor() {
                        return Some(answer);
                    }
                    poor.get_or_insert(answer);
                }
                Err(missed) => {
                    self.avoid(zone, upstream, &missed);
                    if poor.is_none() && matches!(missed, Missed::Silent(_)) {
                        next.push_back(upstream);
                    }
                }
            }
        }
        poor
    }

    /// The upstreams of a zone in the order of configuration, those that were silent lately last.
    fn preferred(&self, zone: &Name) -> VecDeque<SocketAddr> {
        let upstreams = self.forwarding.upstreams.get(zone).into_iter().flatten().copied();
        let (mut first, last): (VecDeque<_>, VecDeque<_>) =
            upstreams.partition(|upstream| self.is_due(*upstream));
        first.extend(last);
        first
    }

    /// Whether it is asked before others: it answers, or this is the question that finds out.
    fn is_due(&self, upstream: SocketAddr) -> bool {
        let Some(avoided) = self.avoided.get(&upstream) else { return true };
        let (mut avoided, now) = (locked(avoided), Instant::now());
        match *avoided {
            Some(until) if until > now => false,
            Some(_) => {
                *avoided = Some(now + AVOIDED);
                true
            }
            None => true,
        }
    }

    fn avoid(&self, zone: &Name, upstream: SocketAddr, missed: &Missed) {
        let Some(avoided) = self.avoided.get(&upstream) else { return };
        let before = locked(avoided).replace(Instant::now() + AVOIDED);
        match before {
            None => {
                tracing::warn!(%upstream, %zone, error = %missed, "cannot forward: others are asked, or SERVFAIL is answered")
            }
            Some(_) => tracing::debug!(%upstream, %zone, error = %missed, "cannot forward"),
        }
    }

    fn prefer(&self, upstream: SocketAddr) {
        let Some(avoided) = self.avoided.get(&upstream) else { return };
        if locked(avoided).take().is_some() {
            tracing::info!(%upstream, "answers again");
        }
    }
}

/// What is locked is whole between two statements, so a panic elsewhere spoils nothing.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a flight, also one that nobody waits for any more.
struct Landing {
    forwarder: Arc<Forwarder>,
    query: Query,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = locked(&self.forwarder.flights);
        // Another may have begun since everybody left this one.
        if flights.by_query.get(&self.query).is_some_and(|(number, _)| *number == self.number) {
            flights.by_query.remove(&self.query);
        }
    }
}

/// One try: over UDP, and again over TCP if that is truncated. An answer that stays truncated is
/// better than none.
async fn ask(upstream: SocketAddr, query: &Query, end: Instant) -> Result<Answer, Missed> {
    let due = || end.min(Instant::now() + TRY_MAX);
    let answer = timeout_at(due(), over_udp(upstream, query)).await??;
    if !answer.is_truncated() {
        return Ok(answer);
    }
    let whole = async { timeout_at(due(), over_tcp(upstream, query)).await? };
    match whole.await {
        Ok(whole) => Ok(whole),
        Err(error) => {
            tracing::debug!(%upstream, %error, "cannot get the rest over TCP");
            Ok(answer)
        }
    }
}

/// Waits for the answer; what is none is ignored. The socket is new and connected: the kernel
/// chooses its port by chance and lets in nothing from another address or port.
async fn over_udp(upstream: SocketAddr, query: &Query) -> Result<Answer, Missed> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    let id = random_id()?;
    socket.send(&query.message(id)).await?;
    let mut received = vec![0; RECEIVED_MAX];
    loop {
        let len = socket.recv(&mut received).await?;
        if let Some(answer) = query.read_answer(id, received[..len].to_vec()) {
            return Ok(answer);
        }
        tracing::debug!(%upstream, "what does not answer the question is ignored");
    }
}

async fn over_tcp(upstream: SocketAddr, query: &Query) -> Result<Answer, Missed> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let id = random_id()?;
    let message = query.message(id);
    let length = message.len() as u16; // A question and an OPT record.
    stream.write_all(&[&length.to_be_bytes(), &message[..]].concat()).await?;
    let mut reply = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut reply).await?;
    let other = || io::Error::new(io::ErrorKind::InvalidData, "another question was answered");
    query.read_answer(id, reply).ok_or_else(other).map_err(Missed::from)
}

fn random_id() -> Result<u16, getrandom::Error> {
    getrandom::u32().map(|random| random as u16)
}
