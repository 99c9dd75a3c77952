//! Telling the secondaries of every edition, RFC 1996, and hearing from them which they have.

use std::cmp::Ordering::Less;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::cluster::{Endpoint, Host};
use crate::connection::{Connection, ConnectionError, now, random};
use crate::name::Name;
use crate::outgoing::Secondaries;
use crate::rr::{Rrset, Serial, Type};
use crate::tsig::{self, Key, Stamp, TsigError, Verifier};
use crate::wire::{CLASS_IN, Header, OPCODE_NOTIFY, Rcode, WireError, Writer};

/// How long an answer is awaited. Nothing is looked up for it, so one that comes later is lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The pause before the second try; each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A secondary that misses as many in a row is said not to answer: one or two may be lost.
const MISSES_SAID: u32 = 3;
/// How long a secondary is asked for its serial.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// The newest edition of a zone.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Newest {
    pub(crate) serial: Serial,
    pub(crate) soa: Rrset,
}

/// Why a secondary was not told.
#[derive(Debug, thiserror::Error)]
enum NotifyError {
    #[error("cannot send: {0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", ANSWER_LIMIT.as_secs())]
    Limit,
    #[error("it answered {0}: does it know us as its primary?")]
    Rcode(Rcode),
    #[error(transparent)]
    Tsig(#[from] TsigError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// One secondary of one zone.
pub(crate) struct Notifier {
    pub(crate) zone: Name,
    pub(crate) secondary: SocketAddr,
    pub(crate) key: Option<Key>,
    /// Where we listen: a secondary believes only the address that it has as its primary's.
    pub(crate) listening: Vec<SocketAddr>,
    /// Where it is told which serial the secondary has.
    pub(crate) has: mpsc::Sender<(Name, Serial)>,
}

/// How a secondary has answered so far.
struct Standing {
    /// In a row.
    misses: u32,
    /// The edition it took note of last.
    noted: Option<Serial>,
    /// Whether it said which serial it has since it was away.
    has_told: bool,
    /// Until it is told or looked at again.
    pause: Duration,
}

impl Notifier {
    /// Tells each edition at once, and again until the secondary has it or there is a newer one.
    pub(crate) async fn run(self, mut editions: watch::Receiver<Option<Newest>>) {
        let mut standing = Standing { misses: 0, noted: None, has_told: false, pause: PAUSE_MIN };
        loop {
            let newest = editions.borrow_and_update().clone();
            let again = match newest {
                Some(newest) => self.bring(&newest, &mut standing).await,
                None => None,
            };
            tokio::select! {
                changed = editions.changed() => match changed {
                    Ok(()) if standing.misses == 0 => standing.pause = PAUSE_MIN,
                    Ok(()) => {}
                    Err(_) => return,
                },
                () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }

    /// Does what is next for the secondary to have this edition. None once it has it, or else the
    /// time after which more is to be done: BIND, for one, takes note and does nothing of it while
    /// it waits for us to answer what it asked before we were there.
    async fn bring(&self, newest: &Newest, standing: &mut Standing) -> Option<Duration> {
        if standing.noted == Some(newest.serial) {
            let has = self.hear(standing).await;
            if has.is_some_and(|has| !matches!(has.partial_cmp(&newest.serial), Some(Less))) {
                standing.pause = PAUSE_MIN;
                return None;
            }
        }
        match self.tell(newest).await {
            Ok(()) => {
                self.note_answer(standing);
                standing.noted = Some(newest.serial);
                if !standing.has_told {
                    self.hear(standing).await;
                }
            }
            Err(error) => self.note_miss(standing, &error),
        }
        let again = standing.pause;
        standing.pause = PAUSE_MAX.min(2 * again);
        Some(again)
    }

    /// Which serial the secondary has.
    async fn hear(&self, standing: &mut Standing) -> Option<Serial> {
        match ask(&self.zone, self.secondary, self.key.as_ref()).await {
            Ok(has) => {
                standing.has_told = true;
                // Where many are heard already, this one is when it is asked the next time.
                let _ = self.has.try_send((self.zone.clone(), has));
                Some(has)
            }
            Err(error) => {
                let (zone, secondary) = (&self.zone, self.secondary);
                debug!(%zone, %secondary, %error, "which serial it has is not known");
                None
            }
        }
    }

    fn note_answer(&self, standing: &mut Standing) {
        if standing.misses >= MISSES_SAID {
            let (zone, secondary) = (&self.zone, self.secondary);
            info!(%zone, "the secondary {secondary} answers again");
        }
        standing.misses = 0;
    }

    fn note_miss(&self, standing: &mut Standing, error: &NotifyError) {
        standing.misses = standing.misses.saturating_add(1);
        standing.noted = None;
        if standing.misses == MISSES_SAID {
            standing.has_told = false;
            let (zone, secondary) = (&self.zone, self.secondary);
            warn!(%zone, "the secondary {secondary} does not take note of changes: {error}");
        }
    }

    async fn tell(&self, newest: &Newest) -> Result<(), NotifyError> {
        let told = timeout(ANSWER_LIMIT, self.exchange(newest)).await;
        told.unwrap_or(Err(NotifyError::Limit))
    }

    /// Sends one message and waits for its answer.
    async fn exchange(&self, newest: &Newest) -> Result<(), NotifyError> {
        let socket = self.socket().await?;
        let id = random() as u16; // Any sixteen bits of it.
        let flags = u16::from(OPCODE_NOTIFY) << 11 | Header::AA;
        let mut writer = Writer::new(id, flags);
        writer.question(&self.zone, Type::SOA, CLASS_IN);
        for rdata in newest.soa.rdata() {
            let owner = (&self.zone, Type::SOA, CLASS_IN);
            writer.record(1, owner, newest.soa.ttl(), Some(rdata));
        }
        let mut request = writer.finish();
        let mac = self.key.as_ref().map(|key| (key, tsig::sign(&mut request, key, now())));
        socket.send(&request).await?;
        let mut reply = vec![0; 4096];
        loop {
            let len = socket.recv(&mut reply).await?;
            let Ok(header) = Header::parse(&reply[..len]) else { continue };
            if header.id != id || !header.is_response() || header.opcode() != OPCODE_NOTIFY {
                continue;
            }
            if let Some((key, mac)) = mac {
                Verifier::new(key, mac).take(&reply[..len], now())?;
            }
            return match header.rcode() {
                Rcode::NOERROR => Ok(()),
                rcode => Err(NotifyError::Rcode(rcode)),
            };
        }
    }

    /// A socket towards the secondary, from an address that we listen at.
    async fn socket(&self) -> io::Result<UdpSocket> {
        let any: IpAddr = match self.secondary {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(self.secondary).await?;
        let chosen = socket.local_addr()?.ip();
        let ours = || self.listening.iter().map(SocketAddr::ip);
        let reaches =
            |ip: &IpAddr| ip.is_ipv4() == any.is_ipv4() && ip.is_loopback() == chosen.is_loopback();
        match ours().find(reaches) {
            Some(first) if !ours().any(|ip| ip == chosen) => {
                let socket = UdpSocket::bind((first, 0)).await?;
                socket.connect(self.secondary).await?;
                Ok(socket)
            }
            _ => Ok(socket),
        }
    }
}

/// The serial that a secondary has, by TCP, so that nobody else can tell us one.
async fn ask(
    zone: &Name,
    secondary: SocketAddr,
    key: Option<&Key>,
) -> Result<Serial, ConnectionError> {
    let endpoint = Endpoint::new(Host::Address(secondary.ip()), Some(secondary.port()));
    let asked = async {
        let mut connection = Connection::open(&endpoint, None).await?;
        let answer = match key {
            Some(key) => connection.soa(zone, key, Stamp::usual(now())).await?,
            None => connection.plain_soa(zone).await?,
        };
        Ok(answer.soa.serial)
    };
    timeout(ASK_LIMIT, asked).await.map_err(|_| ConnectionError::ReplyLimit(ASK_LIMIT))?
}

/// The serials that those secondaries have that answer soon enough.
pub(crate) async fn ask_all(zone: &Name, secondaries: &Secondaries) -> Vec<Serial> {
    let mut asked = JoinSet::new();
    for secondary in secondaries.addresses.iter().copied() {
        let (zone, key) = (zone.clone(), secondaries.key.clone());
        asked.spawn(async move { ask(&zone, secondary, key.as_ref()).await });
    }
    let answers = asked.join_all().await;
    answers.into_iter().filter_map(Result::ok).collect()
}
