//! One publisher: the only place that knows how a pass is made.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mesozone::cluster::Cluster;
use mesozone::config::Config;
use mesozone::fence::Instance;
use mesozone::plan::PlanId;
use mesozone::publish::{Applied, Hold};
use mesozone::secret::Keys;
use mesozone::snapshot::{Completeness, Recovering, Snapshot};
use mesozone::target::{Cause, Target, TargetError};
use mesozone::tsig::Key;
use mesozone::zone::Zone;
use tokio::sync::watch;

use crate::signing::Shared;

/// A target, and what its process knows beside it.
pub(super) struct Publisher {
    target: Target,
    hold: Hold,
    /// A reply was lost in the last pass.
    doubt: bool,
    stop: watch::Receiver<bool>,
    /// Never used: it keeps `stop` from being told anything.
    _stopper: watch::Sender<bool>,
}

/// How a pass ended.
#[derive(Debug)]
pub(super) struct Passed {
    /// A held set that waits for its approval.
    pub(super) held: Option<PlanId>,
    /// Nothing is left to do, and the fence is its own.
    pub(super) at_rest: bool,
}

/// Who publishes what, where.
pub(super) struct Part {
    pub(super) server: String,
    pub(super) domain: String,
    pub(super) owner: &'static str,
    pub(super) key: Shared,
    pub(super) hold: Hold,
}

impl Publisher {
    pub(super) fn new(part: &Part, instance: u64) -> Publisher {
        let text = format!(
            "[mesos]\nmasters = [\"http://10.0.0.1:5050\"]\n[zone]\ndomain = \"{domain}\"\n\
             [[target]]\nname = \"{owner}\"\nserver = \"{server}\"\nzone = \"mesos\"\n\
             tsig_key_file = \"none\"\nprotect = [\"ns1.mesos\", \"vip-*.{domain}\"]\n\
             [ha]\nowner = \"{owner}\"\n",
            domain = part.domain,
            owner = part.owner,
            server = part.server,
        );
        let config = Config::parse(&text).expect("a configuration");
        let secret = BASE64.encode(&part.key.secret);
        let key =
            format!("key {} {{ algorithm hmac-sha256; secret \"{secret}\"; }};", part.key.name);
        let key = Key::parse(&key).expect("a key");
        let keys = Keys { update: key.clone(), transfer: key };
        let target = Target::new(config.targets[0].clone(), keys, Instance(instance));
        let (stopper, stop) = watch::channel(false);
        Publisher {
            target: target.expect("a short domain"),
            hold: part.hold,
            doubt: false,
            stop,
            _stopper: stopper,
        }
    }

    /// Reads, plans, writes, verifies, as `run` and `sync` do.
    pub(super) async fn pass(
        &mut self,
        snapshot: &Snapshot,
        approved: &[PlanId],
    ) -> Result<Passed, TargetError> {
        let passed = self.try_pass(snapshot, approved).await;
        if let Err(error) = &passed {
            self.doubt |= matches!(*error.cause, Cause::Connection(_));
        }
        passed
    }

    async fn try_pass(
        &mut self,
        snapshot: &Snapshot,
        approved: &[PlanId],
    ) -> Result<Passed, TargetError> {
        if self.doubt {
            self.target.raise_epoch(self.hold).await?;
            self.doubt = false;
        }
        self.target.read(&snapshot.zone).await?;
        self.target.may_publish(self.hold.until())?;
        loop {
            let plan = self.target.plan(snapshot, approved);
            let held = plan.held.as_ref().map(|held| held.id);
            let rests = self.hold == Hold::Release || self.target.holds_fence();
            if plan.approved.is_empty() && rests {
                self.target.settle(&snapshot.zone);
                return Ok(Passed { held, at_rest: true });
            }
            match self.target.apply(plan.approved, self.hold, &self.stop).await? {
                Applied::PlanAgain => self.target.read(&snapshot.zone).await?,
                Applied::Stopped => unreachable!("nobody asks it to stop"),
                Applied::Done => {
                    self.target.verify(&snapshot.zone).await?;
                    return Ok(Passed { held, at_rest: false });
                }
            }
        }
    }

    /// What a process does at its end.
    pub(super) async fn give_back(&mut self) {
        self.target.give_back().await;
    }
}

/// What is published.
pub(super) fn snapshot(zone: Zone, complete: bool) -> Snapshot {
    Snapshot {
        zone,
        cluster: Cluster::default(),
        skipped: Default::default(),
        unread: Arc::from([]),
        completeness: match complete {
            true => Completeness::Complete,
            false => Completeness::Recovering(Recovering::Registry),
        },
        unknown: Arc::default(),
        complete_once: true,
        read_at: SystemTime::UNIX_EPOCH,
    }
}
