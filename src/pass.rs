//! One pass over a target: reading what it has, planning, writing and verifying.

use std::time::{Instant, SystemTime};

use tokio::sync::watch;
use tracing::info;

use crate::candidacy::Candidacy;
use crate::fence::{Found, Mandate};
use crate::health::age;
use crate::held::Approval;
use crate::plan::Plan;
use crate::publish::Applied;
use crate::snapshot::Snapshot;
use crate::target::{Hold, Target, TargetError};
use crate::zone::Zone;

/// A pass plans again at most so often: a server that refuses ever more names is asked later.
const ROUNDS_MAX: usize = 10;

/// How a pass ended that did not fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passed {
    /// The zone is what the last plan wanted, save for what it held back.
    Done,
    /// More is to do, with the next pass.
    Unfinished,
    /// Asked to stop; every message sent was answered.
    Stopped,
}

/// How a pass is made.
pub struct Order<'p> {
    pub hold: Hold,
    pub approvals: &'p [Approval],
    /// Who has to confirm that we are elected before a fence is taken; none: there is no election.
    pub candidacy: Option<&'p Candidacy>,
    /// When the first thing was told that the zone may lack.
    pub since: Option<SystemTime>,
    pub stop: &'p watch::Receiver<bool>,
}

impl<'p> Order<'p> {
    /// That of a `run`.
    pub fn run(stop: &'p watch::Receiver<bool>) -> Order<'p> {
        Order { hold: Hold::Keep, approvals: &[], candidacy: None, since: None, stop }
    }

    /// That of a `sync`.
    pub fn sync(approvals: &'p [Approval], stop: &'p watch::Receiver<bool>) -> Order<'p> {
        Order { hold: Hold::Release, approvals, candidacy: None, since: None, stop }
    }
}

impl Target {
    /// Makes the zone that of the snapshot, as far as it may be. `tell` hears each plan before it
    /// is carried out.
    pub async fn pass(
        &mut self,
        snapshot: &Snapshot,
        order: &Order<'_>,
        tell: &mut (dyn FnMut(&Target, &Plan) + Send),
    ) -> Result<Passed, TargetError> {
        let hold = order.hold;
        for _ in 0..ROUNDS_MAX {
            self.look(snapshot, order).await?;
            match hold {
                Hold::Keep => self.may_publish(hold.until())?,
                // Who finds nothing to write needs no fence.
                Hold::Release => self.check_owner()?,
            }
            let plan = self.plan(snapshot, order.approvals);
            tell(self, &plan);
            let takes_nothing = match hold {
                Hold::Keep => self.holds_fence(),
                Hold::Release => !self.takes_over(),
            };
            if plan.approved.is_empty() && takes_nothing {
                self.settle(snapshot.zone_of(&self.config.scope.zone));
                return Ok(Passed::Done);
            }
            let (started, changes) = (Instant::now(), plan.approved.changes().len());
            let ended = self.apply(plan.approved, hold, order.stop).await?;
            if ended == Applied::Stopped {
                return Ok(Passed::Stopped);
            }
            self.released(plan.released_count);
            if let (Some(metrics), Some(since)) = (&self.metrics, order.since) {
                metrics.published(age(since, SystemTime::now()));
            }
            let millis = started.elapsed().as_millis();
            info!(target = self.config.name, rrsets = changes, millis, "published");
            self.verify(snapshot.zone_of(&self.config.scope.zone), hold).await?;
            if ended == Applied::Done {
                return Ok(Passed::Done);
            }
        }
        Ok(Passed::Unfinished)
    }

    /// Reads the zone, and then has the election confirmed, before a fence is taken from whoever
    /// holds it. In this order: who is elected after the confirmation changes a fence that was read
    /// before it, so that our message, which names the fence as read, fails.
    async fn look(&mut self, snapshot: &Snapshot, order: &Order<'_>) -> Result<(), TargetError> {
        let desired = snapshot.zone_of(&self.config.scope.zone);
        let unconfirmed = order.candidacy.filter(|_| self.is_starting());
        if self.doubt && unconfirmed.is_none() {
            let found = match self.find_fence().await? {
                // A wildcard answers for a fence that is not there, and a transfer shows none.
                Found::Other(_) => self.read_fence(desired).await?,
                found => found,
            };
            self.raise_epoch(&found, order.hold).await?;
        }
        let found = self.read_fence(desired).await?;
        let Some(candidacy) = unconfirmed else { return Ok(()) };
        if !candidacy.confirm().await {
            self.give(Mandate::Keep);
        }
        if self.doubt {
            self.raise_epoch(&found, order.hold).await?;
            self.read(desired).await?;
        }
        Ok(())
    }

    /// Reads the zone; the fence in it.
    async fn read_fence(&mut self, desired: &Zone) -> Result<Found, TargetError> {
        self.read(desired).await?;
        Ok(self.view().map(|view| view.fence.clone()).unwrap_or_default())
    }
}
