//! One pass over a target: reading what it has, planning, writing and verifying.

use std::time::Instant;

use tokio::sync::watch;
use tracing::info;

use crate::held::Approval;
use crate::plan::Plan;
use crate::publish::Applied;
use crate::snapshot::Snapshot;
use crate::target::{Hold, Target, TargetError};

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

impl Target {
    /// Makes the zone that of the snapshot, as far as it may be. `tell` hears each plan before it
    /// is carried out.
    pub async fn pass(
        &mut self,
        snapshot: &Snapshot,
        hold: Hold,
        approvals: &[Approval],
        stop: &watch::Receiver<bool>,
        tell: &mut (dyn FnMut(&Target, &Plan) + Send),
    ) -> Result<Passed, TargetError> {
        if self.doubt {
            self.raise_epoch(hold).await?;
        }
        for _ in 0..ROUNDS_MAX {
            self.read(&snapshot.zone).await?;
            match hold {
                Hold::Keep => self.may_publish(hold.until())?,
                // Who finds nothing to write needs no fence.
                Hold::Release => self.check_owner()?,
            }
            let plan = self.plan(snapshot, approvals);
            tell(self, &plan);
            if plan.approved.is_empty() && (hold == Hold::Release || self.holds_fence()) {
                self.settle(&snapshot.zone);
                return Ok(Passed::Done);
            }
            let (started, changes) = (Instant::now(), plan.approved.changes().len());
            let ended = self.apply(plan.approved, hold, stop).await?;
            if ended == Applied::Stopped {
                return Ok(Passed::Stopped);
            }
            self.released(plan.released_count);
            let millis = started.elapsed().as_millis();
            info!(target = self.config.name, rrsets = changes, millis, "published");
            self.verify(&snapshot.zone, hold).await?;
            if ended == Applied::Done {
                return Ok(Passed::Done);
            }
        }
        Ok(Passed::Unfinished)
    }
}
