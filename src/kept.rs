//! The targets that are kept: one task each, which stay when the configuration is read again as
//! far as they are in it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{error, info};

use crate::candidacy::Candidacy;
use crate::config;
use crate::health::{Condition, Health, Trouble};
use crate::held::PlanId;
use crate::keep::{Door, Followed, Opened, Request, keep};
use crate::metrics::Metrics;
use crate::name::NameError;
use crate::scope::Scope;

/// How long a target waits for the one that it replaces to give back the fence.
const RELEASE_MAX: Duration = Duration::from_secs(5);
/// What is asked of a target that is busy waits here.
const REQUESTS_MAX: usize = 16;

/// A kept target as seen from outside.
#[derive(Clone)]
pub struct Seen {
    health: watch::Receiver<Health>,
    requests: mpsc::Sender<Request>,
}

impl Seen {
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Lets go what is held by this id. Answers how many removals that are; none if nothing is held
    /// by it any more. An error if the target is not kept any more.
    pub async fn approve(&self, id: PlanId) -> Result<Option<usize>, Leaving> {
        let (reply, replied) = oneshot::channel();
        let asked = self.requests.send(Request::Approve(id, reply)).await;
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
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl One {
    /// Whether it can go on as the target of this configuration.
    fn is_at(&self, config: &config::Target) -> bool {
        let protect = config.scope.protect.clone();
        let scope = Scope { protect, ..self.config.scope.clone() };
        self.config.server == config.server && scope == config.scope
    }
}

/// The targets that are kept.
pub(crate) struct Kept {
    followed: Followed,
    candidacy: Option<Candidacy>,
    metrics: Metrics,
    ones: Vec<One>,
    /// Those that were told to stop.
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
        let (ones, leaving) = (Vec::new(), JoinSet::new());
        (Kept { followed, candidacy, metrics, ones, leaving, seen }, all_seen)
    }

    /// Keeps these from now on: those that are kept already go on, the others of these start, and
    /// the rest give back their fences.
    pub(crate) fn keep(&mut self, targets: Vec<Opened>) -> Result<(), NameError> {
        let mut before = std::mem::take(&mut self.ones);
        for opened in targets {
            let is_named = |one: &One| one.config.name == opened.config.name;
            let is_at = |one: &One| one.is_at(&opened.config);
            let at = before.iter().position(is_named).or_else(|| before.iter().position(is_at));
            let old = at.map(|at| before.remove(at));
            let one = match old {
                Some(old) if is_named(&old) && is_at(&old) => self.renew(old, opened)?,
                Some(old) => {
                    info!(
                        "target {}: another name, server or zone: it starts anew",
                        opened.config.name
                    );
                    let left = self.dismiss(old);
                    self.start(opened, Some(left))?
                }
                None => self.start(opened, None)?,
            };
            self.ones.push(one);
        }
        for old in before {
            info!("target {}: not configured any more: its zone stays as it is", old.config.name);
            self.dismiss(old);
        }
        self.seen.send_replace(self.ones.iter().map(|one| one.seen.clone()).collect());
        Ok(())
    }

    /// The same zone of the same server, by other settings or keys.
    fn renew(&mut self, mut one: One, opened: Opened) -> Result<One, NameError> {
        one.config = opened.config.clone();
        match one.seen.requests.try_send(Request::Renew(Box::new(opened))) {
            Ok(()) => Ok(one),
            // It is not to be reached: a new one takes its place.
            Err(refused) => match refused.into_inner() {
                Request::Renew(opened) => {
                    let left = self.dismiss(one);
                    self.start(*opened, Some(left))
                }
                Request::Approve(..) => Ok(one),
            },
        }
    }

    /// Starts to keep a target, once the one that it replaces has left.
    fn start(
        &self,
        opened: Opened,
        replaced: Option<oneshot::Receiver<()>>,
    ) -> Result<One, NameError> {
        let config = opened.config.clone();
        let mut target = opened.target()?;
        target.metrics = Some(self.metrics.of_target(&config.name));
        let unknown = Health::unknown(config.name.clone(), target.server(), target.zone().clone());
        let ((health, seen_health), (requests, asked)) =
            (watch::channel(unknown), mpsc::channel(REQUESTS_MAX));
        let (stop, stopping) = watch::channel(false);
        let door = Door { health: health.clone(), requests: asked };
        let (followed, candidacy) = (self.followed.clone(), self.candidacy.clone());
        let kept = tokio::spawn(async move {
            if let Some(left) = replaced {
                // One whose server is in trouble may take longer, and is not waited for.
                let _ = timeout(RELEASE_MAX, left).await;
            }
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
        Ok(One { config, seen: Seen { health: seen_health, requests }, stop, task })
    }

    /// Has one stop; the answer comes when it has given back its fence.
    fn dismiss(&mut self, one: One) -> oneshot::Receiver<()> {
        let (leaves, left) = oneshot::channel();
        let metrics = self.metrics.of_target(&one.config.name);
        one.stop.send_replace(true);
        self.leaving.spawn(async move {
            // What it has to say of its end is said.
            let _ = one.task.await;
            metrics.forget();
            // Nobody may wait for it.
            let _ = leaves.send(());
        });
        left
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
