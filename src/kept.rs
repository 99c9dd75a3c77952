//! The targets that are kept: one task each, which stay when the configuration is read again as
//! far as they are in it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{error, info};

use crate::candidacy::Candidacy;
use crate::config;
use crate::health::{Condition, Health, Trouble};
use crate::held::PlanId;
use crate::keep::{Approve, Door, Followed, NoRoom, Opened, keep};
use crate::metrics::Metrics;
use crate::scope::Scope;

/// How long a target waits for the one that it replaces to give back the fence.
const RELEASE_MAX: Duration = Duration::from_secs(5);
/// Approvals for a target that is busy wait here.
const APPROVALS_MAX: usize = 16;

/// A kept target as seen from outside.
#[derive(Clone)]
pub struct Seen {
    health: watch::Receiver<Health>,
    approvals: mpsc::Sender<Approve>,
}

impl Seen {
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Lets go what is held by this id. Answers how many removals that are; none if nothing is held
    /// by it any more. An error if the target is not kept any more.
    pub async fn approve(&self, id: PlanId) -> Result<Option<usize>, Leaving> {
        let (reply, replied) = oneshot::channel();
        let asked = self.approvals.send(Approve(id, reply)).await;
        asked.map_err(|_| Leaving)?;
        replied.await.map_err(|_| Leaving)
    }
}

/// A target that is not kept any more cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("the target is being replaced: ask again")]
pub struct Leaving;

/// All kept targets, in the order of the configuration.
pub type AllSeen = watch::Receiver<Arc<[Seen]>>;

/// A task that keeps a target.
struct One {
    config: config::Target,
    seen: Seen,
    renew: watch::Sender<Opened>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Whether two configurations are about the same names of the same zone on the same server.
fn is_one_place(a: &config::Target, b: &config::Target) -> bool {
    let scope = Scope { protect: b.scope.protect.clone(), ..a.scope.clone() };
    a.server == b.server && scope == b.scope
}

/// One that was told to stop, until it has: the other end is dropped then.
struct Leaver {
    config: config::Target,
    left: watch::Receiver<()>,
}

impl Leaver {
    fn is_there(&self) -> bool {
        self.left.has_changed().is_ok()
    }
}

/// The targets that are kept.
pub(crate) struct Kept {
    followed: Followed,
    candidacy: Option<Candidacy>,
    metrics: Metrics,
    ones: Vec<One>,
    leavers: Vec<Leaver>,
    leaving: JoinSet<()>,
    seen: watch::Sender<Arc<[Seen]>>,
}

impl Kept {
    pub(crate) fn new(
        followed: Followed,
        candidacy: Option<Candidacy>,
        metrics: Metrics,
    ) -> (Kept, AllSeen) {
        let (seen, all_seen) = watch::channel(Arc::from([]));
        let (ones, leavers, leaving) = (Vec::new(), Vec::new(), JoinSet::new());
        (Kept { followed, candidacy, metrics, ones, leavers, leaving, seen }, all_seen)
    }

    /// Keeps these from now on: those that are kept already go on, by their names, the others of
    /// these start, and the rest give back their fences.
    pub(crate) fn keep(&mut self, targets: Vec<Opened>) -> Result<(), NoRoom> {
        let mut before = std::mem::take(&mut self.ones);
        let mut goes_on = |opened: &Opened| {
            let is_it = |one: &One| {
                one.config.name == opened.config.name && is_one_place(&one.config, &opened.config)
            };
            before.iter().position(is_it).map(|at| before.remove(at))
        };
        let matched: Vec<(Opened, Option<One>)> = targets
            .into_iter()
            .map(|opened| {
                let one = goes_on(&opened);
                (opened, one)
            })
            .collect();
        let go_on = matched.iter().filter_map(|(_, one)| one.as_ref());
        self.seen.send_replace(go_on.map(|one| one.seen.clone()).collect());
        for old in before {
            let name = &old.config.name;
            match matched.iter().any(|(opened, _)| opened.config.name == *name) {
                true => info!("target {name}: another server or zone: it starts anew"),
                false => info!("target {name}: not configured any more: its zone stays as it is"),
            }
            self.dismiss(old);
        }
        for (opened, one) in matched {
            let one = match one {
                Some(mut one) => {
                    one.config = opened.config.clone();
                    one.renew.send_replace(opened);
                    one
                }
                None => self.start(opened)?,
            };
            self.ones.push(one);
        }
        self.seen.send_replace(self.ones.iter().map(|one| one.seen.clone()).collect());
        Ok(())
    }

    /// Starts to keep a target, once those that were there before it have left.
    fn start(&mut self, opened: Opened) -> Result<One, NoRoom> {
        let config = opened.config.clone();
        self.leavers.retain(Leaver::is_there);
        let there = self.leavers.iter().filter(|leaver| is_one_place(&leaver.config, &config));
        let there: Vec<watch::Receiver<()>> = there.map(|leaver| leaver.left.clone()).collect();
        let mut target = opened.clone().target()?;
        target.metrics = Some(self.metrics.of_target(&config.name));
        let about = (config.name.clone(), target.server(), target.zone().clone());
        let (health, seen_health) = watch::channel(Health::unknown(about, SystemTime::now()));
        let (approvals, asked) = mpsc::channel(APPROVALS_MAX);
        let (renew, renewed) = watch::channel(opened);
        let (stop, stopping) = watch::channel(false);
        let door = Door { health: health.clone(), approvals: asked, renewed };
        let (followed, candidacy) = (self.followed.clone(), self.candidacy.clone());
        let kept = tokio::spawn(async move {
            // One whose server is in trouble may take longer, and is not waited for.
            let left = join_all(there.into_iter().map(async |mut left| left.changed().await));
            let _ = timeout(RELEASE_MAX, left).await;
            keep(target, followed, candidacy, door, stopping).await;
        });
        let task = tokio::spawn(async move {
            if let Err(panic) = kept.await {
                health.send_modify(|health| {
                    let text = format!("its task ended, restart this process: {panic}");
                    error!("target {}: {text}", health.target);
                    let at = SystemTime::now();
                    health.condition = Condition::Failing(at);
                    health.holds_fence = false;
                    health.trouble = Some(Trouble { text, at });
                });
            }
        });
        Ok(One { config, seen: Seen { health: seen_health, approvals }, renew, stop, task })
    }

    /// Has one stop, and give back its fence.
    fn dismiss(&mut self, one: One) {
        let One { config, stop, task, .. } = one;
        let (leaves, left) = watch::channel(());
        let (metrics, all) = (self.metrics.of_target(&config.name), self.seen.subscribe());
        let name = config.name.clone();
        self.leavers.push(Leaver { config, left });
        stop.send_replace(true);
        self.leaving.spawn(async move {
            // What it has to say of its end is said.
            let _ = task.await;
            drop((leaves, stop));
            let is_named = |seen: &Seen| seen.health.borrow().target == name;
            if !all.borrow().iter().any(is_named) {
                metrics.forget();
            }
        });
    }

    /// Has all of them stop.
    pub(crate) fn stop(&mut self) {
        for one in std::mem::take(&mut self.ones) {
            self.dismiss(one);
        }
    }

    /// When those that were told to stop have.
    pub(crate) async fn left(&mut self) {
        while self.leaving.join_next().await.is_some() {}
    }
}
