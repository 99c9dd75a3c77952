//! Making one target follow the snapshots: when it is passed over, what is told of it, and how long
//! a server in trouble is left alone.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::candidacy::{Candidacy, Standing};
use crate::config;
use crate::connection::random;
use crate::fence::{FenceError, Instance, Mandate};
use crate::follow::{Heard, stopped};
use crate::health::{Condition, Health, Outlook, Trouble};
use crate::held::{Approval, PlanId};
use crate::name::NameError;
use crate::pass::{Order, Passed};
use crate::plan::Plan;
use crate::report::chain;
use crate::secret::Keys;
use crate::snapshot::{Completeness, Recovering, Snapshot};
use crate::target::{Cause, Step, Target, TargetError};
use crate::tls::Tls;

/// The first and the longest pause after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How long a server may take to have the fence released.
const GIVE_BACK_MAX: Duration = Duration::from_secs(10);

/// So many RRsets that are not ours are named in the log.
const BLOCKED_TOLD: usize = 10;

/// So many troubles of one target are remembered, to be told once.
const TROUBLES_MAX: usize = 16;

/// The longest pause before a server that cannot be reached is tried again: that costs it nothing,
/// and it is to be brought up to date as soon as it is back.
const RECONNECT: Duration = Duration::from_secs(2);

/// The newest snapshot; none before the first.
pub type Latest = watch::Receiver<Option<Arc<Snapshot>>>;

/// What a target follows.
#[derive(Clone)]
pub(crate) struct Followed {
    pub(crate) latest: Latest,
    pub(crate) heard: Heard,
    /// Masters that have been silent for longer may be out of our reach, and in that of others.
    pub(crate) silence_max: watch::Receiver<Duration>,
}

impl Followed {
    fn is_silent(&self) -> bool {
        let silence_max = *self.silence_max.borrow();
        self.heard.borrow().at.is_none_or(|at| at.elapsed() > silence_max)
    }
}

/// A target as configured, its secrets read.
#[derive(Clone)]
pub struct Opened {
    pub(crate) config: config::Target,
    pub(crate) keys: Keys,
    pub(crate) tls: Option<Tls>,
}

impl Opened {
    /// Whether it can be looked at, before anything else is changed for it.
    pub(crate) fn check(self) -> Result<Opened, NoRoom> {
        match self.config.scope.fence_name() {
            Ok(_) => Ok(self),
            Err(source) => Err(NoRoom { target: self.config.name, source }),
        }
    }

    /// Ready to be looked at.
    pub(crate) fn target(self) -> Result<Target, NoRoom> {
        let Opened { config, keys, tls } = self;
        let target = config.name.clone();
        // Each of its own: two targets may be one zone by different keys.
        let opened = Target::new(config, (keys, tls), Instance(random()));
        opened.map_err(|source| NoRoom { target, source })
    }
}

/// The domain leaves no room for the fence.
#[derive(Debug, thiserror::Error)]
#[error("target {target:?}: no room for the fence's name")]
pub struct NoRoom {
    target: String,
    source: NameError,
}

/// The removals held by this id may go; answers how many they are, none if nothing is.
pub(crate) struct Approve(pub(crate) PlanId, pub(crate) oneshot::Sender<Option<usize>>);

/// Where a kept target is seen and asked.
pub(crate) struct Door {
    pub(crate) health: watch::Sender<Health>,
    pub(crate) approvals: mpsc::Receiver<Approve>,
    /// Other settings for the same zone of the same server.
    pub(crate) renewed: watch::Receiver<Opened>,
}

/// Whether a trouble may pass by itself.
#[derive(Clone, Copy, PartialEq)]
enum Weight {
    /// A server that goes down or comes up.
    Passing,
    /// Somebody has to do something about it.
    Lasting,
}

impl Weight {
    fn of(failure: &TargetError) -> Weight {
        match &*failure.cause {
            Cause::Connection(error) if error.is_passing() => Weight::Passing,
            Cause::Drift { .. } | Cause::FenceLost => Weight::Passing,
            _ => Weight::Lasting,
        }
    }
}

/// What a target told last, so that it is told once.
#[derive(PartialEq, Default)]
struct Told {
    /// Since it was well last, the newest at the end.
    troubles: Vec<String>,
    held: Vec<Option<PlanId>>,
    blocked: usize,
}

impl Told {
    /// A server that goes down or comes up fails in ways that alternate.
    fn tell(&mut self, trouble: String, weight: Weight) {
        match self.troubles.iter().position(|told| *told == trouble) {
            Some(at) => drop(self.troubles.remove(at)),
            None if self.troubles.is_empty() || weight == Weight::Lasting => warn!("{trouble}"),
            None => info!("{trouble}"),
        }
        if self.troubles.len() == TROUBLES_MAX {
            self.troubles.remove(0);
        }
        self.troubles.push(trouble);
    }
}

/// A target and how it fared.
struct Keeper {
    target: Target,
    told: Told,
    /// Before the next try, should this one fail.
    pause: Duration,
    /// How the election stood.
    stood: Option<Standing>,
    /// The fence was taken, or is about to be, while the masters were silent, and they are still:
    /// whoever held it before us may have known more.
    is_behind: bool,
    health: Health,
    /// What an operator released, until a pass was carried out with it.
    approvals: Vec<Approval>,
}

/// Makes one target follow the snapshots until `stop` turns true, while we are elected if there is
/// an election; then releases its fence.
pub(crate) async fn keep(
    target: Target,
    mut followed: Followed,
    mut candidacy: Option<Candidacy>,
    mut door: Door,
    mut stop: watch::Receiver<bool>,
) {
    let mut keeper = Keeper::new(target);
    while !*stop.borrow() {
        let snapshot = followed.latest.borrow_and_update().clone();
        let snapshot = snapshot.map(|snapshot| keeper.judge(snapshot, followed.is_silent()));
        let passed = keeper.pass(snapshot.as_deref(), &mut candidacy, &door, &stop).await;
        let passed_at = Instant::now();
        keeper.note(snapshot.as_deref(), &passed);
        let wait = keeper.wait(passed);
        door.health.send_replace(keeper.health.clone());
        tokio::select! {
            // A snapshot is no reason to hurry back to a server in trouble.
            changed = followed.latest.changed(), if keeper.told.troubles.is_empty() => {
                if changed.is_err() {
                    break;
                }
                // After a quiet window at once; what follows closely is gathered.
                let window = keeper.target.config.batch_window;
                tokio::select! {
                    () = sleep(window.saturating_sub(passed_at.elapsed())) => {}
                    () = stopped(&mut stop) => {}
                }
            }
            Some(approve) = door.approvals.recv() => keeper.release(approve),
            Ok(()) = door.renewed.changed() => {
                let renewed = door.renewed.borrow_and_update().clone();
                keeper.renew(renewed);
            }
            () = changed(&mut candidacy) => {}
            () = sleep(wait) => {}
            () = stopped(&mut stop) => {}
        }
    }
    if timeout(GIVE_BACK_MAX, keeper.target.give_back()).await.is_err() {
        let (name, within) = (&keeper.target.config.name, GIVE_BACK_MAX.as_secs());
        warn!("target {name}: the fence is not released: no answer within {within} s");
    }
}

async fn changed(candidacy: &mut Option<Candidacy>) {
    match candidacy {
        Some(candidacy) => candidacy.changed().await,
        None => pending().await,
    }
}

impl Keeper {
    fn new(target: Target) -> Keeper {
        let (told, pause) = (Told::default(), BACK_OFF.0);
        let (name, server) = (target.config.name.clone(), target.server());
        let zone = target.zone().clone();
        let health = Health::unknown((name, server, zone), SystemTime::now());
        let (stood, is_behind, approvals) = (None, false, Vec::new());
        Keeper { target, told, pause, stood, is_behind, health, approvals }
    }

    /// Lets go, with the next pass, what is held by an id.
    fn release(&mut self, Approve(id, reply): Approve) {
        let held = self.health.held_by(id);
        let count = held.map(|set| set.entries.len());
        if let Some(set) = held {
            let name = &self.target.config.name;
            info!("target {name}: {id} is approved, {} removals", set.entries.len());
            let entries = set.entries.iter().cloned().collect();
            self.approvals.push(Approval::Entries(entries));
        }
        // Who asked may be gone.
        let _ = reply.send(count);
    }

    /// Goes on with other settings and keys.
    fn renew(&mut self, Opened { config, keys, tls }: Opened) {
        self.target.renew(config, keys, tls);
        self.pause = BACK_OFF.0;
    }

    /// The snapshot as far as it is believed: while we may be behind it only adds.
    fn judge(&mut self, snapshot: Arc<Snapshot>, is_silent: bool) -> Arc<Snapshot> {
        self.is_behind = is_silent && (self.is_behind || !self.target.holds_fence());
        if !self.is_behind || !snapshot.completeness.is_complete() {
            return snapshot;
        }
        let completeness = Completeness::Recovering(Recovering::Silence);
        Arc::new(Snapshot { completeness, ..Snapshot::clone(&snapshot) })
    }

    async fn pass(
        &mut self,
        snapshot: Option<&Snapshot>,
        candidacy: &mut Option<Candidacy>,
        door: &Door,
        stop: &watch::Receiver<bool>,
    ) -> Result<Passed, TargetError> {
        let standing = candidacy.as_mut().map(Candidacy::standing);
        if standing != self.stood {
            (self.told, self.pause) = (Told::default(), BACK_OFF.0);
            if standing != Some(Standing::CutOff) {
                self.target.start_over();
            }
            self.stood = standing;
        }
        self.target.give(match standing {
            None | Some(Standing::Elected(_)) => Mandate::Take,
            Some(Standing::Waiting | Standing::CutOff) => Mandate::Keep,
        });
        let apex = &self.target.config.scope.zone;
        let Some(snapshot) = snapshot.filter(|snapshot| snapshot.is_about(apex)) else {
            return Ok(Passed::Done);
        };
        self.target.count(snapshot);
        if standing == Some(Standing::Waiting) {
            return self.stand_by(snapshot).await;
        }
        let (told, health) = (&mut self.told, &mut self.health);
        if health.reached != Some(snapshot.told_at) {
            health.behind_since.get_or_insert(snapshot.told_at);
        }
        let (since, approvals) = (health.behind_since, self.approvals.as_slice());
        let mut tell = |target: &Target, plan: &Plan| {
            tell_plan(target, plan, told);
            health.outlook = outlook(target, plan, snapshot.completeness);
            if !plan.approved.changes().is_empty() {
                door.health.send_replace(health.clone());
            }
        };
        let candidacy = candidacy.as_ref();
        let order = Order { candidacy, approvals, since, ..Order::run(stop) };
        self.target.pass(snapshot, &order, &mut tell).await
    }

    /// Takes note of how a pass went.
    fn note(&mut self, snapshot: Option<&Snapshot>, passed: &Result<Passed, TargetError>) {
        let (health, now) = (&mut self.health, SystemTime::now());
        health.holds_fence = self.target.holds_fence();
        health.drift_count = self.target.drift_count();
        let apex = &self.target.config.scope.zone;
        let Some(snapshot) = snapshot.filter(|snapshot| snapshot.is_about(apex)) else { return };
        let is_elected = self.stood != Some(Standing::Waiting);
        match passed {
            Ok(_) if !is_elected => {
                let why = "not elected to publish: another is, or ZooKeeper is out of reach";
                health.stand_by(why.to_owned());
                self.approvals.clear();
            }
            Ok(passed) => {
                health.condition = Condition::Well;
                if let (Some(outlook), Some(view)) = (&mut health.outlook, self.target.view()) {
                    (outlook.serial, outlook.adoption) = (view.serial, self.target.adoption(view));
                }
                if *passed == Passed::Done {
                    (health.reached, health.behind_since) = (Some(snapshot.told_at), None);
                    health.outlook.iter_mut().for_each(|outlook| outlook.changes = Arc::from([]));
                    if snapshot.completeness.is_complete() {
                        self.approvals.clear();
                    }
                }
            }
            Err(failure) => {
                let text = chain(failure);
                let is_rival = matches!(
                    *failure.cause,
                    Cause::Fence(FenceError::Held(_) | FenceError::NotElected)
                );
                match health.condition {
                    _ if is_rival => {
                        health.stand_by(text.clone());
                        self.approvals.clear();
                    }
                    Condition::Failing(_) => {}
                    _ => health.condition = Condition::Failing(now),
                }
                health.trouble = Some(Trouble { text, at: now });
            }
        }
    }

    /// Reads the zone, now and then, so that what is wrong there is known before we are elected, and
    /// little is left to read then.
    async fn stand_by(&mut self, snapshot: &Snapshot) -> Result<Passed, TargetError> {
        if self.target.is_unread() {
            let desired = snapshot.zone_of(&self.target.config.scope.zone);
            self.target.read(desired).await?;
        }
        Ok(Passed::Done)
    }

    /// How long until the next pass, if nothing else asks for one sooner.
    fn wait(&mut self, passed: Result<Passed, TargetError>) -> Duration {
        let check_interval = self.target.config.check_interval;
        match passed {
            Ok(passed) => {
                self.pause = BACK_OFF.0;
                if let Some(before) = std::mem::take(&mut self.told.troubles).pop() {
                    info!("target {}: well again; it was: {before}", self.target.config.name);
                }
                let again = Some(BACK_OFF.0).filter(|_| passed == Passed::Unfinished);
                let due = self.target.next_due().into_iter().chain(again).min();
                due.unwrap_or(Duration::MAX).min(check_interval)
            }
            Err(failure) => {
                let rival = matches!(*failure.cause, Cause::Fence(FenceError::Held(_)));
                if rival && matches!(self.stood, Some(Standing::Elected(_))) {
                    // Who was elected before us took it late, and does not keep it any more.
                    self.target.start_over();
                }
                self.told.tell(chain(&failure), Weight::of(&failure));
                let pause = self.pause;
                self.pause = (pause * 2).min(BACK_OFF.1);
                // What ends a trouble, or releases the fence, is seen as soon as any change.
                pause.min(match failure.step {
                    Step::Connect => RECONNECT.min(check_interval),
                    _ => check_interval,
                })
            }
        }
    }
}

/// What a plan says of a target.
fn outlook(target: &Target, plan: &Plan, completeness: Completeness) -> Option<Outlook> {
    let view = target.view()?;
    Some(Outlook {
        serial: view.serial,
        adoption: target.adoption(view),
        completeness,
        changes: plan.approved.changes().into(),
        withheld: Arc::new(plan.withheld.clone()),
    })
}

/// Says what is held or not ours, when that is new.
fn tell_plan(target: &Target, plan: &Plan, told: &mut Told) {
    let name = &target.config.name;
    let held: Vec<Option<PlanId>> = plan.withheld.held.iter().map(|held| held.id).collect();
    for set in plan.withheld.held.iter().filter(|set| !told.held.contains(&set.id)) {
        let (count, why) = (set.entries.len(), set.why);
        match set.id {
            Some(id) => warn!(
                "target {name}: {count} removals are held: {why}; /v1/plan and the page list them, \
                 `mesozone approve {id}` lets them go (these need [http]); without, stop this \
                 process, and see `mesozone diff` and `mesozone sync --approve ID`"
            ),
            None => warn!("target {name}: {count} more removals are held: {why}"),
        }
    }
    if told.blocked != plan.withheld.blocked.len() && !plan.withheld.blocked.is_empty() {
        let each = plan
            .withheld
            .blocked
            .iter()
            .take(BLOCKED_TOLD)
            .map(|b| format!("{} ({})", b.key.name, b.why));
        let more = plan.withheld.blocked.len().saturating_sub(BLOCKED_TOLD);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        warn!(
            "target {name}: {} RRsets are not ours to publish: {}{more}; `mesozone check` lists them",
            plan.withheld.blocked.len(),
            each.collect::<Vec<_>>().join(", ")
        );
    }
    if plan.withheld.blocked.is_empty() && told.blocked > 0 {
        info!("target {name}: nothing keeps us from any RRset any more");
    }
    if plan.withheld.held.is_empty() && !told.held.is_empty() {
        info!("target {name}: nothing is held any more");
    }
    told.held = held;
    told.blocked = plan.withheld.blocked.len();
}
