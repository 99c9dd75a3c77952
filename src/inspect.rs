//! Asks one name server what it lets a target do, and changes nothing there.

use std::time::Duration;

use tokio::time::timeout;

use crate::cluster::Endpoint;
use crate::config;
use crate::connection::{Connection, ConnectionError, SoaAnswer, now, random};
use crate::diagnosis::{Differences, Inspected, Right, Trouble};
use crate::fence::Found;
use crate::name::{Name, NameError};
use crate::probe::{self, Place, Skew, Taken};
use crate::report::chain;
use crate::rr::{Serial, Type};
use crate::secret::Keys;
use crate::tls::Tls;
use crate::transfer::{Ask, Outcome};
use crate::tsig::{FUDGE, Key, Stamp, TsigError};
use crate::wire::{Rcode, Soa};

/// For each question: a server that takes longer cannot be worked with.
const STEP_LIMIT: Duration = Duration::from_secs(15);

/// A name server, and what is asked of it.
pub struct Inspection<'t> {
    pub target: &'t config::Target,
    pub keys: &'t Keys,
    tls: Option<&'t Tls>,
    pub fence: &'t Name,
    connection: Option<Connection>,
}

type Asked<T> = Result<T, ConnectionError>;

impl<'t> Inspection<'t> {
    pub fn new(
        target: &'t config::Target,
        (keys, tls): &'t (Keys, Option<Tls>),
        fence: &'t Name,
    ) -> Inspection<'t> {
        Inspection { target, keys, tls: tls.as_ref(), fence, connection: None }
    }

    fn zone(&self) -> &'t Name {
        &self.target.scope.zone
    }

    /// The connection kept, or a new one.
    async fn connect(&mut self) -> Asked<&mut Connection> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.target.server, self.tls).await?);
        }
        Ok(self.connection.as_mut().expect("opened just now if it was not"))
    }

    /// One question within its time. After a failure nothing more is asked by that connection.
    async fn step<T>(
        &mut self,
        ask: impl AsyncFnOnce(&mut Connection) -> Asked<T>,
    ) -> Result<T, ConnectionError> {
        let asked = timeout(STEP_LIMIT, async { ask(self.connect().await?).await }).await;
        let answer = asked.unwrap_or(Err(ConnectionError::ReplyLimit(STEP_LIMIT)));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// Asks everything, or what keeps anything from being asked.
    pub async fn inspect(mut self) -> Result<Inspected, Trouble> {
        let keys = self.keys;
        let (answer, skew) = self.soa(&keys.transfer).await?;
        if !answer.authoritative {
            return Err(Trouble::NoZone("the server answers without authority".to_owned()));
        }
        let update_key = match self.target.update_key == self.target.transfer_key {
            true => None,
            false => self.soa(&keys.update).await.err(),
        };
        let fence = self.fence().await;
        let rights = match &update_key {
            None => self.rights().await,
            Some(_) => Vec::new(),
        };
        let differences = self.differences(answer.soa.serial).await;
        Ok(Inspected { soa: answer.soa, skew, update_key, fence, rights, differences })
    }

    /// The zone's SOA by a key, and how far the clocks are apart.
    async fn soa(&mut self, key: &Key) -> Result<(SoaAnswer, Skew), Trouble> {
        let zone = self.zone();
        let asked_at = now();
        let answer = self.step(async |c| c.soa(zone, key, Stamp::usual(asked_at)).await).await;
        match answer {
            Ok(answer) => {
                let skew = self.skew(key, asked_at, answer.signed_at).await;
                Ok((answer, skew))
            }
            Err(ConnectionError::Tsig(TsigError::Unsigned(rcode))) => {
                Err(self.unsigned(key, rcode).await)
            }
            Err(error) => Err(trouble(&error)),
        }
    }

    /// By the time in an answer, unless the server only repeats what the question said.
    async fn skew(&mut self, key: &Key, asked_at: u64, signed_at: Option<u64>) -> Skew {
        const EARLIER: u64 = 45;
        let told = |at: u64| Skew::exactly(at as i64 - now() as i64); // Both have 48 bits.
        match signed_at {
            Some(at) if at != asked_at => told(at),
            _ => {
                let stamp = Stamp::usual(now() - EARLIER);
                let zone = self.zone();
                let again = self.step(async |c| c.soa(zone, key, stamp).await).await;
                match again.map(|answer| answer.signed_at) {
                    Ok(Some(at)) if at != stamp.time => told(at),
                    _ => self.halve(key, Skew::within(FUDGE)).await,
                }
            }
        }
    }

    /// Finds the clock of a server that tells no time by what signatures it takes.
    async fn halve(&mut self, key: &Key, mut skew: Skew) -> Skew {
        let zone = self.zone();
        while let Some(stamp) = skew.question(now()) {
            skew = match self.step(async |c| c.soa(zone, key, stamp).await).await {
                Ok(_) => skew.narrowed(Taken::Yes),
                Err(ConnectionError::Tsig(_)) => skew.narrowed(Taken::No),
                Err(_) => return skew,
            };
        }
        skew
    }

    /// What an answer without a signature means, which by itself says nothing.
    async fn unsigned(&mut self, key: &Key, rcode: Rcode) -> Trouble {
        let zone = self.zone();
        match self.step(async |c| c.plain_soa(zone).await).await {
            Ok(_) => {}
            Err(error) => return trouble(&error),
        }
        let stamp = Stamp { time: now(), fudge: u16::MAX };
        match self.step(async |c| c.soa(zone, key, stamp).await).await {
            Ok(_) => {
                let skew = self.halve(key, Skew::within(u16::MAX)).await.seconds();
                let way = if skew < 0 { "behind" } else { "ahead of" };
                Trouble::Clock(format!(
                    "clocks differ: the server's is about {} s {way} ours ({rcode})",
                    skew.abs()
                ))
            }
            Err(_) => Trouble::Key(format!(
                "the server answered {rcode} to the key {}: it does not know it, or by another \
                 secret or algorithm, or does not allow it to ask",
                key.name()
            )),
        }
    }

    async fn fence(&mut self) -> Result<Found, Trouble> {
        let (name, key) = (self.fence, &self.keys.transfer);
        let asked = self.step(async |c| c.txt(name, key).await).await;
        asked.map(|records| Found::of(&records)).map_err(|error| trouble(&error))
    }

    async fn rights(&mut self) -> Vec<(Type, Right)> {
        let mut rights = Vec::new();
        for rtype in probe::types(self.target.scope.space) {
            rights.push((rtype, self.right(rtype).await));
        }
        rights
    }

    async fn right(&mut self, rtype: Type) -> Right {
        let (zone, key) = (self.zone(), &self.keys.update);
        let absent = match probe::absent_name(&self.target.scope, random()) {
            Ok(absent) => absent,
            Err(error) => return Right::Unknown(no_room(&error)),
        };
        let place = Place { zone, absent: &absent, fence: self.fence };
        let id = random() as u16; // Any sixteen bits of it.
        for message in probe::updates(&place, rtype, [id, id.wrapping_add(1)]) {
            let answered = self.step(async |c| {
                c.send_update(message, key).await?;
                c.receive_update(key).await
            });
            match answered.await {
                Ok(answered) if answered.denied.is_some() => return Right::DeniedKey,
                Ok(answered) if probe::grants(answered.rcode) => {}
                Ok(answered) => return Right::Denied(answered.rcode),
                Err(error) => return Right::Unknown(chain(&error)),
            }
        }
        Right::Granted
    }

    /// Whether the server would tell what changed since the serial before.
    async fn differences(&mut self, serial: Serial) -> Option<Differences> {
        let (zone, key) = (self.zone(), &self.keys.transfer);
        let ask = Ask::Differences(Serial(serial.0.wrapping_sub(1)));
        let asked = self.step(async |c| c.transfer(zone, ask, key, &mut |_| Ok(())).await).await;
        // What is left of that answer is not for the next question.
        self.connection = None;
        match asked.ok()? {
            Outcome::Differences(_) | Outcome::UpToDate => Some(Differences::Told),
            Outcome::Whole(_) | Outcome::WholeComing => Some(Differences::Whole),
            Outcome::AskAxfr => Some(Differences::None),
        }
    }
}

/// Who answers at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// By its SOA, a bundled server of this configuration.
    Ours,
    Other,
}

/// Asks whoever answers for the domain at an address.
pub async fn answers_as(at: &Endpoint, domain: &Name, server: &config::Server) -> Identity {
    let asked =
        timeout(STEP_LIMIT, async { Connection::open(at, None).await?.plain_soa(domain).await });
    let is_ours = |soa: &Soa| {
        server.name_servers.contains_key(&soa.primary)
            && soa.responsible == server.rname
            && u64::from(soa.minimum.secs()) == server.negative_ttl.as_secs()
    };
    match asked.await {
        Ok(Ok(answer)) if is_ours(&answer.soa) => Identity::Ours,
        _ => Identity::Other,
    }
}

fn no_room(error: &NameError) -> String {
    format!("no name is left to try it at: {error}")
}

fn trouble(error: &ConnectionError) -> Trouble {
    let words = chain(error);
    match error {
        ConnectionError::Connect(_)
        | ConnectionError::ConnectLimit(_)
        | ConnectionError::ReplyLimit(_) => Trouble::Unreachable(words),
        ConnectionError::NoZone => Trouble::NoZone(words),
        ConnectionError::Rcode(rcode) => Trouble::NoZone(format!(
            "the server answered {rcode}: it has no such zone, or does not let us ask"
        )),
        ConnectionError::Tsig(TsigError::BadTime(_)) => Trouble::Clock(words),
        ConnectionError::Tsig(_) => Trouble::Key(words),
        _ => Trouble::Other(words),
    }
}
