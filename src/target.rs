//! One zone on one name server: what is known of it, whether it may be changed, and what would be.
//! Reading it is in [`mirror`](crate::mirror), sending in [`publish`](crate::publish).

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::config::{self, RrsetMax};
use crate::connection::{Connection, ConnectionError, now, random};
use crate::cut::{RECORD_MAX_OF_BIND, RrsetLimit};
use crate::drift::Young;
use crate::fence::{
    self, Adoption, Claim, Fence, FenceError, Found, Instance, Mandate, Owner, Until,
};
use crate::held::{Approval, Holds};
use crate::mark::{Loss, Mark};
use crate::metrics::TargetMetrics;
use crate::name::{Name, NameError};
use crate::pace::Pace;
use crate::plan::{self, Diff, Gate, Plan};
use crate::quarantine::Quarantine;
use crate::reading::View;
use crate::rr::Rdata;
use crate::scope::{Foreign, Space};
use crate::secret::Keys;
use crate::snapshot::Snapshot;
use crate::tls::Tls;
use crate::update::Limits;
use crate::wire::Rcode;
use crate::zone::Zone;

/// What fits one DNS message, and so can be answered at all. Knot takes a larger RRset, and then
/// answers every transfer of its zone with SERVFAIL.
const RRSET_OCTETS_MAX: usize = 60_000;

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

/// Whether the fence is kept behind a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// `run` keeps it.
    Keep,
    /// `sync` releases it with its last message.
    Release,
}

/// How long a `sync` may hold the fence, in seconds.
const SYNC_LIMIT: u64 = 300;

impl Hold {
    pub fn until(self) -> Until {
        match self {
            Hold::Keep => Until::Run,
            Hold::Release => Until::Time(now() + SYNC_LIMIT),
        }
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
    #[error(
        "the fence changed under us: another publisher has taken it, or the zone was set back; nothing of \
             this message was changed, and the zone is read again"
    )]
    FenceLost,
    #[error("the server answered {rcode} to a message that changes {names}{hint}", hint = update_hint(*.rcode, *.also, *.space))]
    Refused { rcode: Rcode, names: String, also: Also, space: Space },
    #[error("{count} RRsets are not what was sent, {first} first: somebody else writes there")]
    Drift { count: usize, first: String },
}

/// What else a server refuses that refused a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Also {
    /// That is not known.
    Unknown,
    /// A change of the fence alone, too.
    Everything,
    /// It takes the fence, but no other record.
    Records,
}

fn rrset_limit(max: RrsetMax) -> RrsetLimit {
    match max {
        RrsetMax::Auto => RrsetLimit {
            octets_max: Some(RRSET_OCTETS_MAX),
            earlier_max: Some(RECORD_MAX_OF_BIND),
            ..RrsetLimit::default()
        },
        RrsetMax::At(max) => RrsetLimit { record_max: Some(max), ..RrsetLimit::default() },
        RrsetMax::Never => RrsetLimit::default(),
    }
}

fn update_hint(rcode: Rcode, also: Also, space: Space) -> String {
    let needed = space.rights();
    let types = space.types().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (also, rcode) {
        (Also::Everything, Rcode::SERVFAIL) => {
            ", and to a change of the fence alone: it cannot write the zone; its log says why"
                .into()
        }
        (Also::Everything, _) => format!(
            ", and to a change of the fence alone: the zone is frozen, or this server is not its \
             primary, or does not know this key, or does not let it update ({needed} are needed)"
        ),
        (Also::Records, _) => format!(
            ", though it takes the fence: the key may change TXT, but not {types}, or the server's \
             name checks refuse them"
        ),
        (Also::Unknown, Rcode::REFUSED) => format!(
            ": it does not allow this key to update these names and types ({types}, TXT are \
             needed), or its name checks refuse one"
        ),
        // Knot's word for an update that its ACL does not permit.
        (Also::Unknown, Rcode::NOTAUTH) => format!(
            ": it is not the zone's primary, or does not allow this key to update these names and \
             types ({types}, TXT are needed)"
        ),
        (Also::Unknown, Rcode::SERVFAIL) => ": its log says why".into(),
        (Also::Unknown, Rcode::NOTIMP) => {
            ": it does not do dynamic updates; make it a secondary".into()
        }
        _ => String::new(),
    }
}

/// A target and what is known of it.
pub struct Target {
    pub config: config::Target,
    pub(crate) keys: Keys,
    pub(crate) tls: Option<Tls>,
    instance: Instance,
    fence_name: Name,
    pub(crate) connection: Option<Connection>,
    pub(crate) view: Option<View>,
    /// Name servers seen since the start: their addresses are never ours.
    pub(crate) seen: Foreign,
    /// The view before the last burst, with the serial that the server had then.
    pub(crate) before: Option<View>,
    /// Messages accepted since then, each a step of the serial.
    pub(crate) accepted: u32,
    pub(crate) held: Option<Fence>,
    mandate: Mandate,
    /// Names this process created in a space not adopted yet.
    pub(crate) created: HashSet<Name>,
    /// Those it meant to create with messages that were never answered.
    pub(crate) unsure: HashSet<Name>,
    /// The epoch of the fence found first since the start, or since another was elected.
    pub(crate) epoch_seen: Option<u64>,
    pub(crate) pace: Pace,
    pub(crate) rrset_limit: RrsetLimit,
    /// How many times in a row a burst was answered with the whole zone, not its differences.
    pub(crate) whole_answers: u8,
    /// When the whole zone was read last.
    pub(crate) read_at: Option<Instant>,
    /// How long that is good.
    pub(crate) read_again: Duration,
    /// A reply was lost or not believed: one of our messages may still arrive.
    pub(crate) doubt: bool,
    /// Whose fence an operator lets us replace.
    pub take_over: Option<Owner>,
    /// The view before a server could not be asked.
    pub(crate) known: Option<View>,
    mark: Mark,
    /// Desired records that are not ours to publish, or cut, when they were last counted.
    excluded_count: usize,
    /// Those of them that are not ours.
    blocked_count: usize,
    holds: Holds,
    pub(crate) quarantine: Quarantine,
    pub(crate) young: Young,
    /// Records that others took away or added, since the start.
    pub(crate) drift_count: u64,
    /// Where `run` counts what it does.
    pub(crate) metrics: Option<TargetMetrics>,
    started: Instant,
}

impl Target {
    pub fn new(
        config: config::Target,
        (keys, tls): (Keys, Option<Tls>),
        instance: Instance,
    ) -> Result<Target, NameError> {
        let rrset_limit = rrset_limit(config.rrset_max);
        Ok(Target {
            fence_name: config.scope.fence_name()?,
            config,
            keys,
            tls,
            instance,
            connection: None,
            view: None,
            seen: Foreign::default(),
            before: None,
            accepted: 0,
            held: None,
            mandate: Mandate::Take,
            created: HashSet::new(),
            unsure: HashSet::new(),
            epoch_seen: None,
            pace: Pace::default(),
            rrset_limit,
            whole_answers: 0,
            read_at: None,
            read_again: READ_AGAIN + Duration::from_secs(random() % 600),
            doubt: false,
            take_over: None,
            known: None,
            mark: Mark::default(),
            excluded_count: 0,
            blocked_count: 0,
            holds: Holds::default(),
            quarantine: Quarantine::default(),
            young: Young::default(),
            drift_count: 0,
            metrics: None,
            started: Instant::now(),
        })
    }

    /// Goes on with other settings and keys, towards the same zone of the same server.
    pub(crate) fn renew(&mut self, config: config::Target, keys: Keys, tls: Option<Tls>) {
        if config.rrset_max != self.config.rrset_max {
            self.rrset_limit = rrset_limit(config.rrset_max);
        }
        if config.scope != self.config.scope {
            // What `protect` gives up is there to be lost, as what is found at the start.
            self.mark = Mark::default();
        }
        (self.config, self.keys, self.tls, self.connection) = (config, keys, tls, None);
        // What the server refused it may take by another key.
        self.quarantine = Quarantine::default();
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

    /// Records that others took away or added in our space, since the start.
    pub fn drift_count(&self) -> u64 {
        self.drift_count
    }

    /// Time since this target was opened.
    pub(crate) fn clock(&self) -> Duration {
        self.started.elapsed()
    }

    /// In how long something is due, though nothing new is desired.
    pub fn next_due(&self) -> Option<Duration> {
        let now = self.clock();
        let next = self.young.next(now).into_iter().chain(self.quarantine.next(now)).min();
        next.map(|at| at.saturating_sub(now))
    }

    /// What would change, and what of it may. Needs a view: call [`Target::read`] before.
    pub fn plan(&mut self, snapshot: &Snapshot, approvals: &[Approval]) -> Plan {
        let (now, limit, holds_fence) = (self.clock(), self.rrset_limit, self.holds_fence());
        let Some(view) = self.view.take() else { return Plan::default() };
        self.created.retain(|name| view.current.has_name(name));
        // Where anything else stands than we would write, it may be somebody else's.
        let desired = snapshot.zone_of(&self.config.scope.zone);
        let is_ours =
            |name: &Name| view.current.has_name(name) && view.current.is_at(name, desired);
        self.created.extend(self.unsure.drain().filter(is_ours));
        let scope = &self.config.scope;
        let mut diff = plan::diff(&view.current, desired, scope, &view.foreign, limit);
        self.excluded_count = desired.record_count() - diff.desired_count;
        let adoption = self.adoption(&view);
        let is_removed = view.fence == Found::Absent && self.held.is_some();
        if !holds_fence && !is_removed {
            // Whoever takes the fence from another starts from what is in the zone.
            self.mark = Mark::default();
        }
        let loss = self.loss(&diff, adoption, now);
        self.note_offers(&diff);
        diff.set_apart(&self.quarantine, now);
        let removes = diff.changes.iter().any(|change| change.removed().next().is_some());
        if loss.is_some() && snapshot.completeness.is_complete() && !removes {
            self.mark.restart(now, diff.desired_count);
        }
        let gate = Gate {
            target: &self.config.name,
            completeness: snapshot.completeness,
            adoption,
            created: &self.created,
            unknown: &snapshot.unknown,
            approvals,
            loss,
            young: &self.young.at(now, &view.current),
        };
        let scope = &self.config.scope;
        let plan = plan::approve(diff, &view.current, scope, &gate, limit, &mut self.holds);
        self.view = Some(view);
        plan
    }

    /// Whether more is lost than may go at once.
    fn loss(&mut self, diff: &Diff, adoption: Adoption, now: Duration) -> Option<Loss> {
        self.mark.exclude(self.blocked_count, diff.blocked_count);
        self.blocked_count = diff.blocked_count;
        if !self.mark.is_set() {
            // In a space that is not adopted yet nothing found is ours to lose.
            let found = if adoption == Adoption::Adopted { diff.current_count } else { 0 };
            self.mark.count(now, found.max(diff.desired_count));
        }
        self.mark.loss(now, diff.desired_count, self.config.shrink)
    }

    /// Keeps the books of refused names: what is wanted of them now, and which are wanted no more.
    fn note_offers(&mut self, diff: &Diff) {
        if self.quarantine.is_empty() {
            return;
        }
        let differing: BTreeSet<&Name> = diff.changes.iter().map(|c| &c.key.name).collect();
        self.quarantine.retain(|name| differing.contains(name));
        for group in diff.changes.chunk_by(|a, b| a.key.name == b.key.name) {
            self.quarantine.offer(&group[0].key.name, plan::wanted(group));
        }
    }

    /// Takes note of how many records a snapshot desires, whether or not it can be published.
    pub fn count(&mut self, snapshot: &Snapshot) {
        if self.mark.is_set() {
            let desired = snapshot.zone_of(self.zone()).record_count();
            let desired = desired.saturating_sub(self.excluded_count);
            // A loss while the server is out of reach is one when it is back.
            self.mark.watch(self.clock(), desired, self.config.shrink);
        }
    }

    /// Whether an operator has us take a fence that is not ours, or that another process holds.
    pub(crate) fn takes_over(&self) -> bool {
        let ours = |found: &Fence| {
            found.owner == self.config.scope.owner && found.until == Until::Released
        };
        let found = self.view.as_ref().map(|view| &view.fence);
        self.take_over.is_some() && matches!(found, Some(Found::Fence(found)) if !ours(found))
            || !self.replaced().is_empty()
    }

    /// In a reverse zone: the fences of a rival that an operator has us replace by ours.
    pub(crate) fn replaced(&self) -> Vec<(Name, Rdata)> {
        let rivals = self.view.iter().flat_map(|view| view.foreign.rivals());
        let replaced = rivals.filter(|(_, fence)| self.take_over.as_ref() == Some(&fence.owner));
        replaced.map(|(name, fence)| (name.clone(), fence.rdata())).collect()
    }

    /// So many records of the zone became ours that nobody desires.
    pub(crate) fn admit(&mut self, count: usize) {
        self.mark.admit(count);
    }

    /// So many removals were released by an approval and carried out.
    pub(crate) fn released(&mut self, count: usize) {
        self.mark.lower(count);
    }

    /// The fence to publish under, given what is in the zone.
    pub(crate) fn claim(&self, until: Until) -> Result<(Found, Fence), TargetError> {
        let found = self.view.as_ref().map(|view| view.fence.clone()).unwrap_or_default();
        let mut rivals = self.view.iter().flat_map(|view| view.foreign.rivals()).peekable();
        let is_shared = rivals.peek().is_some();
        if let Some((_, rival)) = rivals.find(|(_, r)| self.take_over.as_ref() != Some(&r.owner)) {
            let (theirs, ours) = (rival.owner.clone(), self.config.scope.owner.clone());
            return Err(self.error(Step::Fence, FenceError::ForeignOwner(theirs, ours)));
        }
        let next = fence::next(&found, &self.claim_until(until), now());
        let mut next = next.map_err(|cause| self.error(Step::Fence, cause))?;
        if is_shared {
            // What another owner adopted is not adopted by us.
            next = Fence { adoption: Adoption::FirstContact, epoch: next.epoch + 1, ..next };
        }
        Ok((found, next))
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
            seen: self.epoch_seen,
            take_over: self.take_over.clone(),
            domain: self.config.scope.fence_domain().cloned(),
        }
    }

    /// What this process may do from now on to a fence that is not its own.
    pub fn give(&mut self, mandate: Mandate) {
        self.mandate = mandate;
    }

    /// Forgets that we held the fence: the next time is as after the start of the process.
    pub fn start_over(&mut self) {
        (self.held, self.epoch_seen) = (None, None);
    }

    /// Whether the fence was never held since the start.
    pub fn is_starting(&self) -> bool {
        self.held.is_none()
    }

    /// Whether a publisher of ours may write here now; `run` stands by when not.
    pub fn may_publish(&self, until: Until) -> Result<(), TargetError> {
        self.claim(until).map(drop)
    }

    /// Whether the space is adopted: as our owner's fence says, or as it said while we held it.
    pub(crate) fn adoption(&self, view: &View) -> Adoption {
        let scope = &self.config.scope;
        let is_ours = |fence: &Fence| {
            (&fence.owner, fence.domain.as_ref()) == (&scope.owner, scope.fence_domain())
        };
        match (&view.fence, &self.held) {
            _ if view.foreign.rivals().next().is_some() => Adoption::FirstContact,
            (Found::Absent, Some(held)) => held.adoption,
            (Found::Fence(fence), _) if !is_ours(fence) => Adoption::FirstContact,
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

    /// The names that the server refused, and how.
    pub fn refused_names(&self) -> impl Iterator<Item = (&Name, Rcode)> {
        self.quarantine.iter()
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
        let (target, server, zone) = (&self.config.name, self.server(), self.zone());
        warn!(
            "target {target}, server {server}, zone {zone}: it refuses RRsets above \
             {RECORD_MAX_OF_BIND} records: they are cut; raise its max-records-per-type and restart, \
             or set rrset_max"
        );
        self.rrset_limit.record_max = Some(RECORD_MAX_OF_BIND);
        // What is cut is not lost.
        self.mark = Mark::default();
        true
    }
}
