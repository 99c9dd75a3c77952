//! One zone on one name server: reading it, planning, and verifying what was written. Sending is
//! in [`publish`](crate::publish).

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::config::{self, RrsetMax};
use crate::connection::{Connection, ConnectionError, now, random};
use crate::current::Current;
use crate::fence::{self, Adoption, Claim, Fence, FenceError, Found, Instance, Mandate, Until};
use crate::name::{Name, NameError};
use crate::pace::Pace;
use crate::plan::{self, Gate, Plan, PlanId, RrsetLimit};
use crate::reading::{Gathering, View};
use crate::rr::{Rdata, Serial};
use crate::scope::Foreign;
use crate::secret::Keys;
use crate::snapshot::Snapshot;
use crate::transfer::{Ask, Item, Outcome, TransferError};
use crate::update::Limits;
use crate::wire::Rcode;
use crate::zone::Zone;

/// What BIND takes in an RRset unless told otherwise (`max-records-per-type`).
pub(crate) const RRSET_MAX_OF_BIND: usize = 100;

/// What fits one DNS message, and so can be answered at all. Knot takes a larger RRset, and then
/// answers every transfer of its zone with SERVFAIL.
const RRSET_OCTETS_MAX: usize = 60_000;

/// After so many whole answers in a row a server is taken to know no differences (PowerDNS); any
/// server answers whole when the difference is larger than the zone.
const WHOLE_ANSWERS: u8 = 3;

/// The whole zone is compared this often, and up to ten minutes later: what others change during a
/// burst that is verified by its replies alone shows nowhere else.
const READ_AGAIN: Duration = Duration::from_secs(3_600);

/// What was being done when something failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Connect,
    Soa,
    Transfer,
    Fence,
    Update,
    Verify,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Connect => "connecting",
            Step::Soa => "asking for the SOA",
            Step::Transfer => "transferring the zone",
            Step::Fence => "taking the fence",
            Step::Update => "updating",
            Step::Verify => "verifying what was written",
        })
    }
}

/// A failure, with the target, server, zone and step it belongs to.
#[derive(Debug, thiserror::Error)]
#[error("target {target}, server {server}, zone {zone}: {step}")]
pub struct TargetError {
    pub target: String,
    pub server: String,
    pub zone: Name,
    pub step: Step,
    #[source]
    pub cause: Box<Cause>,
}

#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Fence(#[from] FenceError),
    #[error("the fence changed under us: another publisher has taken it")]
    FenceLost,
    #[error("the server answered {rcode} to a message that changes {names}{hint}", hint = update_hint(*.rcode))]
    Refused { rcode: Rcode, names: String },
    #[error("{count} RRsets are not what was sent, {first} first: somebody else writes there")]
    Drift { count: usize, first: String },
}

fn update_hint(rcode: Rcode) -> &'static str {
    match rcode {
        Rcode::REFUSED => {
            ": it does not allow this key to update these names and types (A, AAAA, SRV, TXT are \
             needed), or its name checks refuse one"
        }
        // Knot's word for an update that its ACL does not permit.
        Rcode::NOTAUTH => {
            ": it is not the zone's primary, or does not allow this key to update these names and \
             types (A, AAAA, SRV, TXT are needed)"
        }
        Rcode::SERVFAIL => ": its log says why",
        Rcode::NOTIMP => ": it does not do dynamic updates; make it a secondary",
        _ => "",
    }
}

/// A target and what is known of it.
pub struct Target {
    pub config: config::Target,
    pub(crate) keys: Keys,
    instance: Instance,
    fence_name: Name,
    pub(crate) connection: Option<Connection>,
    pub(crate) view: Option<View>,
    /// Name servers seen since the start: their addresses are never ours.
    seen: Foreign,
    /// The view before the last burst, with the serial that the server had then.
    pub(crate) before: Option<View>,
    /// Messages accepted since then, each a step of the serial.
    pub(crate) accepted: u32,
    pub(crate) held: Option<Fence>,
    mandate: Mandate,
    /// Names this process created in a space not adopted yet.
    pub(crate) created: HashSet<Name>,
    pub(crate) pace: Pace,
    rrset_limit: RrsetLimit,
    /// How many times in a row a burst was answered with the whole zone, not its differences.
    whole_answers: u8,
    /// When the whole zone was read last.
    read_at: Option<Instant>,
    /// How long that is good.
    read_again: Duration,
    /// A reply was lost or not believed: one of our messages may still arrive.
    pub(crate) doubt: bool,
}

impl Target {
    pub fn new(
        config: config::Target,
        keys: Keys,
        instance: Instance,
    ) -> Result<Target, NameError> {
        let rrset_limit = match config.rrset_max {
            RrsetMax::Auto => RrsetLimit {
                octets_max: Some(RRSET_OCTETS_MAX),
                earlier_max: Some(RRSET_MAX_OF_BIND),
                ..RrsetLimit::default()
            },
            RrsetMax::At(max) => RrsetLimit { record_max: Some(max), ..RrsetLimit::default() },
            RrsetMax::Never => RrsetLimit::default(),
        };
        Ok(Target {
            fence_name: fence::name(&config.scope.domain)?,
            config,
            keys,
            instance,
            connection: None,
            view: None,
            seen: Foreign::default(),
            before: None,
            accepted: 0,
            held: None,
            mandate: Mandate::Take,
            created: HashSet::new(),
            pace: Pace::default(),
            rrset_limit,
            whole_answers: 0,
            read_at: None,
            read_again: READ_AGAIN + Duration::from_secs(random() % 600),
            doubt: false,
        })
    }

    pub fn zone(&self) -> &Name {
        &self.config.scope.zone
    }

    pub fn fence_name(&self) -> &Name {
        &self.fence_name
    }

    /// The server's address as configured, with its port.
    pub fn server(&self) -> String {
        self.config.server.authority(53)
    }

    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    pub(crate) fn error(&self, step: Step, cause: impl Into<Cause>) -> TargetError {
        let (target, server) = (self.config.name.clone(), self.server());
        TargetError {
            target,
            server,
            zone: self.zone().clone(),
            step,
            cause: Box::new(cause.into()),
        }
    }

    /// Brings the view up to date: one SOA question when nothing changed, the difference when
    /// something did, the whole zone when there is no other way.
    pub async fn read(&mut self, desired: &Zone) -> Result<(), TargetError> {
        if self.is_unread() {
            return self.read_whole(desired).await;
        }
        let serial = self.serial().await?;
        match self.view.take() {
            Some(view) if view.serial == serial => {
                self.view = Some(view);
                Ok(())
            }
            Some(view) => self.read_since(view, desired).await,
            None => self.read_whole(desired).await,
        }
    }

    /// Whether the next reading is one of the whole zone.
    pub fn is_unread(&self) -> bool {
        let due = self.read_at.is_none_or(|at| at.elapsed() > self.read_again);
        self.view.is_none() || due
    }

    pub(crate) async fn serial(&mut self) -> Result<Serial, TargetError> {
        let zone = self.zone().clone();
        let reused = self.connection.is_some();
        let key = self.keys.transfer.clone();
        let mut answer = self.connect().await?.serial(&zone, &key).await;
        // A server closes connections that have been idle: that is no failure.
        if reused && answer.as_ref().is_err_and(ConnectionError::is_loss) {
            self.connection = None;
            answer = self.connect().await?.serial(&zone, &key).await;
        }
        answer.map_err(|cause| self.failed(Step::Soa, cause))
    }

    async fn read_whole(&mut self, desired: &Zone) -> Result<(), TargetError> {
        self.view = None;
        let (outcome, gathering) = self.transfer(Ask::Axfr).await?;
        match outcome {
            Outcome::Whole(serial) => {
                debug!(target = self.config.name, %serial, "zone transferred");
                let view = gathering.into_view(serial, desired, &self.seen);
                self.seen.remember_name_servers(&view.foreign);
                self.view = Some(view);
                self.read_at = Some(Instant::now());
                Ok(())
            }
            // An AXFR ends whole or not at all.
            _ => Err(self.failed(Step::Transfer, TransferError::NoSoa)),
        }
    }

    async fn read_since(&mut self, view: View, desired: &Zone) -> Result<(), TargetError> {
        let (outcome, gathering) = self.transfer(Ask::Ixfr(view.serial)).await?;
        self.view = match outcome {
            Outcome::UpToDate => Some(view),
            Outcome::Differences(serial) => gathering.applied_to(&view, serial),
            Outcome::Whole(serial) => Some(gathering.into_view(serial, desired, &self.seen)),
            Outcome::WholeComing | Outcome::AskAxfr => {
                // What is left of that answer is not for the next question.
                self.connection = None;
                None
            }
        };
        if let Some(view) = &self.view {
            self.seen.remember_name_servers(&view.foreign);
        }
        match self.view {
            Some(_) => Ok(()),
            None => self.read_whole(desired).await,
        }
    }

    async fn transfer(&mut self, ask: Ask) -> Result<(Outcome, Gathering), TargetError> {
        let (zone, key) = (self.zone().clone(), self.keys.transfer.clone());
        let mut gathering = Gathering::new(self.config.scope.clone(), self.fence_name.clone());
        let mut sink = |item: Item<'_, '_>| gathering.take(item);
        let outcome = self.connect().await?.transfer(&zone, ask, &key, &mut sink).await;
        match outcome {
            Ok(outcome) => Ok((outcome, gathering)),
            Err(cause) => Err(self.failed(Step::Transfer, cause)),
        }
    }

    pub(crate) async fn connect(&mut self) -> Result<&mut Connection, TargetError> {
        if self.connection.is_none() {
            let opened = Connection::open(&self.config.server).await;
            self.connection = Some(opened.map_err(|cause| self.error(Step::Connect, cause))?);
        }
        Ok(self.connection.as_mut().expect("opened just now if it was not"))
    }

    /// Drops a connection on which something went wrong: what else it may carry is not for us.
    pub(crate) fn failed(&mut self, step: Step, cause: impl Into<ConnectionError>) -> TargetError {
        self.connection = None;
        self.view = None;
        self.before = None;
        self.error(step, cause.into())
    }

    /// What would change, and what of it may. Needs a view: call [`Target::read`] before.
    pub fn plan(&self, snapshot: &Snapshot, approved: &[PlanId]) -> Plan {
        let Some(view) = &self.view else { return Plan::default() };
        let scope = &self.config.scope;
        let diff =
            plan::diff(&view.current, &snapshot.zone, scope, &view.foreign, self.rrset_limit);
        let gate = Gate {
            target: &self.config.name,
            completeness: snapshot.completeness,
            adoption: self.adoption(&view.fence),
            created: &self.created,
            unknown: &snapshot.unknown,
            approved,
        };
        plan::approve(diff, &view.current, scope, &gate, self.rrset_limit)
    }

    /// The fence to publish under, given what is in the zone.
    pub(crate) fn claim(&self, until: Until) -> Result<(Found, Fence), TargetError> {
        let found = self.view.as_ref().map(|view| view.fence.clone()).unwrap_or_default();
        let next = fence::next(&found, &self.claim_until(until), now());
        next.map(|fence| (found, fence)).map_err(|cause| self.error(Step::Fence, cause))
    }

    /// The fence with the next epoch, and the data that it replaces.
    pub(crate) fn next_epoch(
        &self,
        found: &Found,
        until: Until,
    ) -> Result<(Fence, Option<Rdata>), TargetError> {
        let claim = self.claim_until(until);
        let next = fence::next(found, &claim, now());
        let next = next.map_err(|cause| self.error(Step::Fence, cause))?;
        Ok(match found {
            Found::Fence(found) if *found == next => {
                (Fence { epoch: next.epoch + 1, ..next }, Some(found.rdata()))
            }
            Found::Fence(found) => (next, Some(found.rdata())),
            Found::Absent | Found::Other(_) => (next, None),
        })
    }

    fn claim_until(&self, until: Until) -> Claim {
        Claim {
            owner: self.config.scope.owner.clone(),
            instance: self.instance,
            until,
            mandate: self.mandate,
            held: self.held.clone(),
        }
    }

    /// What this process may do from now on to a fence that is not its own.
    pub fn give(&mut self, mandate: Mandate) {
        self.mandate = mandate;
    }

    /// Forgets that we held the fence: the next time is as after the start of the process.
    pub fn start_over(&mut self) {
        self.held = None;
    }

    /// Whether the fence was never held since the start.
    pub fn is_starting(&self) -> bool {
        self.held.is_none()
    }

    /// Whether a publisher of ours may write here now; `run` stands by when not.
    pub fn may_publish(&self, until: Until) -> Result<(), TargetError> {
        self.claim(until).map(drop)
    }

    /// Whether the space is adopted: as the fence says, or as it said while we held it.
    pub(crate) fn adoption(&self, found: &Found) -> Adoption {
        match (found, &self.held) {
            (Found::Absent, Some(held)) => held.adoption,
            (found, _) => found.adoption(),
        }
    }

    /// Whether the space is free of another owner's fence, so that a plan means anything.
    pub fn check_owner(&self) -> Result<(), TargetError> {
        match self.claim(Until::Run) {
            Err(error) if matches!(*error.cause, Cause::Fence(FenceError::Held(_))) => Ok(()),
            claimed => claimed.map(drop),
        }
    }

    /// How large the next messages are.
    pub fn limits(&self) -> Limits {
        self.pace.limits()
    }

    /// Whether the fence in the zone is the one that this process holds.
    pub fn holds_fence(&self) -> bool {
        let found = self.view.as_ref().map(|view| &view.fence);
        matches!((found, &self.held), (Some(Found::Fence(found)), Some(held)) if found == held)
    }

    /// Makes the published zone the one that the next comparison starts from.
    pub fn settle(&mut self, desired: &Zone) {
        if let Some(view) = &mut self.view {
            view.current.rebase(desired);
        }
    }

    /// Cuts RRsets to what BIND takes, for the rest of this process. False when that is done
    /// already or not wanted.
    pub(crate) fn cut_rrsets(&mut self) -> bool {
        if self.config.rrset_max != RrsetMax::Auto || self.rrset_limit.record_max.is_some() {
            return false;
        }
        let (target, zone) = (&self.config.name, self.zone());
        warn!(target, %zone, "the server refuses RRsets above {RRSET_MAX_OF_BIND} records: cutting them");
        self.rrset_limit.record_max = Some(RRSET_MAX_OF_BIND);
        true
    }

    /// Reads back what a burst made of the zone, and compares. Where the server answers with the
    /// whole zone, its replies must do, if they explain the serial: one step a message.
    pub async fn verify(&mut self, desired: &Zone) -> Result<(), TargetError> {
        let (Some(before), Some(mut expected)) = (self.before.take(), self.view.take()) else {
            return Ok(());
        };
        expected.current.rebase(desired);
        let explained = Serial(before.serial.0.wrapping_add(self.accepted));
        self.view = self.differences(before, desired).await?;
        if self.view.is_none() {
            expected.serial = self.serial().await?;
            if expected.serial == explained {
                self.view = Some(expected);
                return Ok(());
            }
            self.read_whole(desired).await?;
        }
        let Some(actual) = &mut self.view else { return Ok(()) };
        self.seen.remember_name_servers(&actual.foreign);
        actual.current.rebase(desired);
        match drift(&expected.current, &actual.current) {
            None => Ok(()),
            Some(cause) => Err(self.error(Step::Verify, cause)),
        }
    }

    /// The view now, by the differences since an earlier one; none where the server tells none.
    async fn differences(
        &mut self,
        before: View,
        desired: &Zone,
    ) -> Result<Option<View>, TargetError> {
        if self.whole_answers >= WHOLE_ANSWERS {
            return Ok(None);
        }
        let (outcome, gathering) = self.transfer(Ask::Differences(before.serial)).await?;
        Ok(match outcome {
            Outcome::UpToDate => Some(before),
            Outcome::Differences(serial) => {
                self.whole_answers = 0;
                match gathering.applied_to(&before, serial) {
                    Some(view) => Some(view),
                    None => {
                        self.read_whole(desired).await?;
                        self.view.take()
                    }
                }
            }
            Outcome::Whole(serial) => Some(gathering.into_view(serial, desired, &self.seen)),
            Outcome::WholeComing | Outcome::AskAxfr => {
                self.connection = None;
                self.whole_answers += 1;
                None
            }
        })
    }
}

fn drift(expected: &Current, actual: &Current) -> Option<Cause> {
    let drift = expected.drift(actual);
    let (key, ..) = drift.first()?;
    Some(Cause::Drift { count: drift.len(), first: format!("{} {}", key.name, key.rtype) })
}
