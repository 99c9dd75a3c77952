//! One publisher: the only place that knows how a pass is made.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mesozone::cluster::Cluster;
use mesozone::config::Config;
use mesozone::fence::Instance;
use mesozone::held::{Approval, PlanId};
use mesozone::pass::{Order, Passed};
use mesozone::plan::Plan;
use mesozone::secret::Keys;
use mesozone::snapshot::{Completeness, Recovering, Snapshot};
use mesozone::target::{Hold, Target, TargetError};
use mesozone::tsig::Key;
use mesozone::zone::Zone;
use tokio::sync::watch;

use crate::signing::Shared;

pub(super) struct Publisher {
    target: Target,
    hold: Hold,
    stop: watch::Receiver<bool>,
    /// Never used: it keeps `stop` from being told anything.
    _stopper: watch::Sender<bool>,
}

/// Who publishes what, where.
pub(super) struct Part {
    pub(super) server: String,
    pub(super) domain: String,
    pub(super) owner: &'static str,
    pub(super) key: Shared,
    pub(super) hold: Hold,
    /// How much may go at once.
    pub(super) shrink: &'static str,
}

impl Publisher {
    pub(super) fn new(part: &Part, instance: u64) -> Publisher {
        let text = format!(
            "[mesos]\nmasters = [\"http://10.0.0.1:5050\"]\n[zone]\ndomain = \"{domain}\"\n\
             [[target]]\nname = \"{owner}\"\nserver = \"{server}\"\nzone = \"mesos\"\n\
             tsig_key_file = \"none\"\n{shrink}\nprotect = [\"ns1.mesos\", \"vip-*.{domain}\"]\n\
             [ha]\nowner = \"{owner}\"\n",
            domain = part.domain,
            owner = part.owner,
            server = part.server,
            shrink = part.shrink,
        );
        let config = Config::parse(&text).expect("a configuration");
        let secret = BASE64.encode(&part.key.secret);
        let key =
            format!("key {} {{ algorithm hmac-sha256; secret \"{secret}\"; }};", part.key.name);
        let key = Key::parse(&key).expect("a key");
        let keys = Keys { update: key.clone(), transfer: key };
        let target = Target::new(config.targets[0].clone(), (keys, None), Instance(instance));
        let (stopper, stop) = watch::channel(false);
        Publisher {
            target: target.expect("a short domain"),
            hold: part.hold,
            stop,
            _stopper: stopper,
        }
    }

    /// Reads, plans, writes, verifies, as `run` and `sync` do; with what waits for an approval.
    pub(super) async fn pass(
        &mut self,
        snapshot: &Snapshot,
        approvals: &[Approval],
    ) -> Result<(Passed, Vec<PlanId>), TargetError> {
        let mut held = Vec::new();
        let mut tell = |_: &Target, plan: &Plan| {
            held = plan.withheld.held.iter().filter_map(|set| set.id).collect();
        };
        let order = Order { hold: self.hold, approvals, ..Order::run(&self.stop) };
        self.target.count(snapshot);
        let passed = self.target.pass(snapshot, &order, &mut tell).await?;
        Ok((passed, held))
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
        reverse: Default::default(),
        cluster: Cluster::default(),
        skipped: Default::default(),
        unread: Arc::from([]),
        completeness: match complete {
            true => Completeness::Complete,
            false => Completeness::Recovering(Recovering::Registry),
        },
        unknown: Arc::default(),
        complete_once: true,
        domain: "mesos".parse().unwrap(),
        read_at: SystemTime::UNIX_EPOCH,
        told_at: SystemTime::UNIX_EPOCH,
    }
}
