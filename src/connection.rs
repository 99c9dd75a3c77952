//! One connection to a name server, over TCP or TLS: framing, time limits, signed questions and answers.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name as HickoryName, RecordType};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::Endpoint;
use crate::name::Name;
use crate::rr::{Rdata, Serial, Ttl, Type};
use crate::tls::{HandshakeError, Tls};
use crate::transfer::{Ask, Item, Outcome, Transfer, TransferError};
use crate::tsig::{self, Key, Mac, Stamp, TsigError, Verifier};
use crate::wire::{CLASS_IN, Header, Rcode, Reader, Soa, WireError, Writer};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long what was sent may stay unacknowledged by the server's host, which is quick however
/// slow the server is.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(15);
/// The host is asked for a sign of life when nothing else is under way, this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a reply is awaited. PowerDNS takes 17 s to delete 200 names of 100,000.
pub const REPLY_LIMIT: Duration = Duration::from_secs(60);

/// Why no answer came that can be believed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("no connection within {} s", .0.as_secs())]
    ConnectLimit(Duration),
    #[error("TLS")]
    Handshake(#[from] HandshakeError),
    #[error("no TLS handshake within {} s: does the server speak TLS on this port?", .0.as_secs())]
    HandshakeLimit(Duration),
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("no answer within {} s", .0.as_secs())]
    ReplyLimit(Duration),
    #[error("the answer belongs to another question")]
    OtherId,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Tsig(#[from] TsigError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("the server answered {0}{hint}", hint = rcode_hint(*.0))]
    Rcode(Rcode),
    #[error("the server has no such zone")]
    NoZone,
    #[error("cannot write the question")]
    Question(#[source] hickory_proto::ProtoError),
}

fn rcode_hint(rcode: Rcode) -> &'static str {
    match rcode {
        Rcode::REFUSED => ": it does not allow this key to ask",
        Rcode::NOTAUTH | Rcode::NXDOMAIN => ": it is not authoritative for the zone",
        _ => "",
    }
}

impl ConnectionError {
    /// Whether the connection is what is wrong, not what was said over it.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            ConnectionError::Connect(_)
                | ConnectionError::ConnectLimit(_)
                | ConnectionError::HandshakeLimit(_)
                | ConnectionError::Io(_)
                | ConnectionError::Closed
                | ConnectionError::ReplyLimit(_)
        )
    }

    /// Whether a connection that had been idle may simply have been closed.
    pub fn is_loss(&self) -> bool {
        matches!(self, ConnectionError::Io(_) | ConnectionError::Closed)
    }
}

/// An answered update.
pub struct Answered {
    pub id: u16,
    pub rcode: Rcode,
    pub latency: Duration,
    /// The key is refused, at all, or, by Knot's `acl`, for what this message changes. Nobody has
    /// signed that, and only another message tells which.
    pub denied: Option<TsigError>,
}

/// The SOA that a server answered.
#[derive(Clone, Debug)]
pub struct SoaAnswer {
    pub soa: Soa,
    /// Whether it is an answer with authority.
    pub authoritative: bool,
    /// By the server's clock; none where nothing was signed.
    pub signed_at: Option<u64>,
}

impl SoaAnswer {
    fn read(
        reply: &[u8],
        zone: &Name,
        signed_at: Option<u64>,
    ) -> Result<SoaAnswer, ConnectionError> {
        let (header, mut reader) = Reader::behind_question(reply)?;
        for _ in 0..header.counts[1] {
            let record = reader.record()?;
            if record.rtype == Type::SOA && record.owner == *zone {
                let authoritative = header.flags & Header::AA != 0;
                return Ok(SoaAnswer { soa: record.soa()?, authoritative, signed_at });
            }
        }
        Err(ConnectionError::NoZone)
    }
}

/// The records of a name and type in an answer.
fn records(reply: &[u8], name: &Name, rtype: Type) -> Result<Vec<(Ttl, Rdata)>, ConnectionError> {
    let (header, mut reader) = Reader::behind_question(reply)?;
    let mut found = Vec::new();
    for _ in 0..header.counts[1] {
        let record = reader.record()?;
        if record.rtype == rtype && record.owner == *name {
            found.push((record.ttl, record.rdata()?));
        }
    }
    Ok(found)
}

struct Unanswered {
    id: u16,
    mac: Mac,
    sent_at: Instant,
}

/// What carries octets both ways.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection in use by one target.
pub struct Connection {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    unanswered: VecDeque<Unanswered>,
}

impl Connection {
    /// Connects, and has the server prove who it is where that is asked for.
    pub async fn open(server: &Endpoint, tls: Option<&Tls>) -> Result<Connection, ConnectionError> {
        let host = server.host.to_string();
        let connect = TcpStream::connect((host.as_str(), server.port.unwrap_or(53)));
        let stream = timeout(CONNECT_LIMIT, connect)
            .await
            .map_err(|_| ConnectionError::ConnectLimit(CONNECT_LIMIT))?
            .map_err(ConnectionError::Connect)?;
        stream.set_nodelay(true)?;
        watch_host(&stream)?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(tls) => Box::new(
                timeout(CONNECT_LIMIT, tls.connect(stream))
                    .await
                    .map_err(|_| ConnectionError::HandshakeLimit(CONNECT_LIMIT))??,
            ),
        };
        Ok(Connection { stream, received: Vec::new(), unanswered: VecDeque::new() })
    }

    /// The zone's serial, RFC 1035.
    pub async fn serial(&mut self, zone: &Name, key: &Key) -> Result<Serial, ConnectionError> {
        let reply = self.ask(zone, Type::SOA, key).await?;
        let (header, mut reader) = Reader::behind_question(&reply)?;
        for _ in 0..header.counts[1] {
            let record = reader.record()?;
            if record.rtype == Type::SOA && record.owner == *zone {
                return Ok(record.soa_serial()?);
            }
        }
        Err(ConnectionError::NoZone)
    }

    /// The zone's SOA, asked with a signature of any time.
    pub async fn soa(
        &mut self,
        zone: &Name,
        key: &Key,
        stamp: Stamp,
    ) -> Result<SoaAnswer, ConnectionError> {
        let (reply, signed_at) = self.ask_at(zone, Type::SOA, key, stamp).await?;
        SoaAnswer::read(&reply, zone, signed_at)
    }

    /// The zone's SOA as anybody is told it.
    pub async fn plain_soa(&mut self, zone: &Name) -> Result<SoaAnswer, ConnectionError> {
        match self.ask_plainly(zone, Type::SOA).await? {
            (Rcode::NOERROR, reply) => SoaAnswer::read(&reply, zone, None),
            (rcode, _) => Err(ConnectionError::Rcode(rcode)),
        }
    }

    /// The records at a name as anybody is told them; none where it does not exist.
    pub async fn plain(
        &mut self,
        name: &Name,
        rtype: Type,
    ) -> Result<Vec<(Ttl, Rdata)>, ConnectionError> {
        let (rcode, reply) = self.ask_plainly(name, rtype).await?;
        match rcode {
            Rcode::NOERROR => {}
            Rcode::NXDOMAIN => return Ok(Vec::new()),
            rcode => return Err(ConnectionError::Rcode(rcode)),
        }
        records(&reply, name, rtype)
    }

    /// A question without a signature, and the answer.
    async fn ask_plainly(
        &mut self,
        name: &Name,
        rtype: Type,
    ) -> Result<(Rcode, Vec<u8>), ConnectionError> {
        let mut writer = Writer::new(random_id(), 0);
        writer.question(name, rtype, CLASS_IN);
        let request = writer.finish();
        self.send(&request).await?;
        let reply = self.receive(REPLY_LIMIT).await?;
        let header = Header::parse(&reply)?;
        if request[..2] != reply[..2] || !header.is_response() {
            return Err(ConnectionError::OtherId);
        }
        Ok((header.rcode(), reply))
    }

    /// The data of the TXT records at a name.
    pub async fn txt(&mut self, name: &Name, key: &Key) -> Result<Vec<Rdata>, ConnectionError> {
        let reply = match self.ask(name, Type::TXT, key).await {
            Err(ConnectionError::Rcode(Rcode::NXDOMAIN)) => return Ok(Vec::new()),
            reply => reply?,
        };
        let found = records(&reply, name, Type::TXT)?;
        Ok(found.into_iter().map(|(_, rdata)| rdata).collect())
    }

    /// A plain question and its verified answer.
    async fn ask(
        &mut self,
        name: &Name,
        rtype: Type,
        key: &Key,
    ) -> Result<Vec<u8>, ConnectionError> {
        self.ask_at(name, rtype, key, Stamp::usual(now())).await.map(|(reply, _)| reply)
    }

    /// The same with a signature of any time, and the time that the answer was signed at.
    async fn ask_at(
        &mut self,
        name: &Name,
        rtype: Type,
        key: &Key,
        stamp: Stamp,
    ) -> Result<(Vec<u8>, Option<u64>), ConnectionError> {
        let mut message = Message::new(random_id(), MessageType::Query, OpCode::Query);
        let labels = name.labels().map(|label| label.into_owned());
        let mut owner = HickoryName::from_labels(labels.collect::<Vec<_>>())
            .map_err(ConnectionError::Question)?;
        owner.set_fqdn(true);
        let mut query = Query::query(owner, RecordType::from(rtype.0));
        query.set_query_class(DNSClass::IN);
        message.add_query(query);
        let mut octets = message.to_vec().map_err(ConnectionError::Question)?;
        let id = message.metadata.id;
        let (mac, sent_at) = (tsig::sign_at(&mut octets, key, stamp), now());
        self.send(&octets).await?;
        let reply = self.receive(REPLY_LIMIT).await?;
        let header = Header::parse(&reply)?;
        if header.id != id || !header.is_response() {
            return Err(ConnectionError::OtherId);
        }
        let mut verifier = Verifier::new(key, mac);
        verifier.take(&reply, stamp.time + now().saturating_sub(sent_at))?;
        match header.rcode() {
            Rcode::NOERROR => Ok((reply, verifier.signed_at())),
            rcode => Err(ConnectionError::Rcode(rcode)),
        }
    }

    /// Transfers the zone or what changed in it; records go to `sink` as they come, to be
    /// believed only once this returns.
    pub async fn transfer(
        &mut self,
        zone: &Name,
        ask: Ask,
        key: &Key,
        sink: &mut impl FnMut(Item<'_, '_>) -> Result<(), WireError>,
    ) -> Result<Outcome, ConnectionError> {
        let id = random_id();
        let mut writer = Writer::new(id, 0);
        let rtype = if ask == Ask::Axfr { Type::AXFR } else { Type::IXFR };
        writer.question(zone, rtype, CLASS_IN);
        if let Ask::Ixfr(serial) | Ask::Differences(serial) = ask {
            // RFC 1995, section 3: our SOA, of which only the serial is looked at.
            let octets = [&[0, 0][..], &serial.0.to_be_bytes(), &[0; 16]].concat();
            let soa = Rdata::Other(octets.into());
            writer.record(2, (zone, Type::SOA, CLASS_IN), Ttl::ZERO, Some(&soa));
        }
        let mut request = writer.finish();
        let mac = tsig::sign(&mut request, key, now());
        self.send(&request).await?;
        let mut verifier = Verifier::new(key, mac);
        let mut transfer = Transfer::new(zone.clone(), ask);
        loop {
            let message = self.receive(REPLY_LIMIT).await?;
            if Header::parse(&message)?.id != id {
                return Err(ConnectionError::OtherId);
            }
            verifier.take(&message, now())?;
            if let Some(outcome) = transfer.take(&message, sink)? {
                verifier.finish()?;
                return Ok(outcome);
            }
        }
    }

    /// Signs and sends an update without waiting for its answer.
    pub async fn send_update(
        &mut self,
        mut message: Vec<u8>,
        key: &Key,
    ) -> Result<(), ConnectionError> {
        let id = Header::parse(&message)?.id;
        let mac = tsig::sign(&mut message, key, now());
        self.unanswered.push_back(Unanswered { id, mac, sent_at: Instant::now() });
        self.send(&message).await
    }

    /// The next answer to an update. Answers may come in any order (RFC 7766, section 6.2.1.1).
    pub async fn receive_update(&mut self, key: &Key) -> Result<Answered, ConnectionError> {
        let reply = self.receive(REPLY_LIMIT).await?;
        let header = Header::parse(&reply)?;
        let at = self.unanswered.iter().position(|sent| sent.id == header.id);
        let sent = at.and_then(|at| self.unanswered.remove(at)).ok_or(ConnectionError::OtherId)?;
        let denied = match Verifier::new(key, sent.mac).take(&reply, now()) {
            Ok(_) => None,
            Err(denied @ TsigError::BadKey { .. }) => Some(denied),
            Err(error) => return Err(error.into()),
        };
        let latency = sent.sent_at.elapsed();
        Ok(Answered { id: sent.id, rcode: header.rcode(), latency, denied })
    }

    /// An id that no unanswered update has.
    pub fn fresh_id(&self) -> u16 {
        let mut id = random_id();
        while self.unanswered.iter().any(|sent| sent.id == id) {
            id = id.wrapping_add(1);
        }
        id
    }

    async fn send(&mut self, message: &[u8]) -> Result<(), ConnectionError> {
        // Every message is built below the limit of 65,535 octets.
        let framed = [&(message.len() as u16).to_be_bytes(), message].concat();
        let write = async {
            self.stream.write_all(&framed).await?;
            // TLS keeps what it could not send at once.
            self.stream.flush().await
        };
        let written = timeout(REPLY_LIMIT, write).await;
        Ok(written.map_err(|_| ConnectionError::ReplyLimit(REPLY_LIMIT))??)
    }

    async fn receive(&mut self, limit: Duration) -> Result<Vec<u8>, ConnectionError> {
        timeout(limit, self.read_frame()).await.map_err(|_| ConnectionError::ReplyLimit(limit))?
    }

    async fn read_frame(&mut self) -> Result<Vec<u8>, ConnectionError> {
        loop {
            if let [high, low, rest @ ..] = self.received.as_slice() {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if let Some(message) = rest.get(..length) {
                    let message = message.to_vec();
                    self.received.drain(..2 + length);
                    return Ok(message);
                }
            }
            self.received.reserve(64 * 1024);
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err(ConnectionError::Closed),
                // TLS closed without a word, as most servers do.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(ConnectionError::Closed);
                }
                read => read?,
            };
        }
    }
}

/// Has the connection break when the server's host is gone without a word, as behind a partition.
fn watch_host(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_user_timeout(Some(ACKNOWLEDGE_LIMIT))
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_secs())
}

/// A number nobody can guess.
pub fn random() -> u64 {
    getrandom::u64().expect("the operating system has random numbers")
}

fn random_id() -> u16 {
    random() as u16 // Any sixteen bits of it.
}
