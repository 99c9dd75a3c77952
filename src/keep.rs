//! Making one target follow the snapshots: when it is passed over, what is told of it, and how long
//! a server in trouble is left alone.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::candidacy::{Candidacy, Standing};
use crate::fence::{FenceError, Mandate};
use crate::follow::{Heard, stopped};
use crate::held::PlanId;
use crate::pass::{Order, Passed};
use crate::plan::Plan;
use crate::report::chain;
use crate::snapshot::{Completeness, Recovering, Snapshot};
use crate::target::{Cause, Step, Target, TargetError};

/// The first and the longest pause after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

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
    pub(crate) silence_max: Duration,
}

impl Followed {
    fn is_silent(&self) -> bool {
        self.heard.borrow().is_none_or(|at| at.elapsed() > self.silence_max)
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
    fn tell(&mut self, trouble: String) {
        match self.troubles.iter().position(|told| *told == trouble) {
            Some(at) => drop(self.troubles.remove(at)),
            None => warn!("{trouble}"),
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
}

/// Makes one target follow the snapshots until `stop` turns true, while we are elected if there is
/// an election; then releases its fence.
pub(crate) async fn keep(
    target: Target,
    mut followed: Followed,
    mut candidacy: Option<Candidacy>,
    mut stop: watch::Receiver<bool>,
) {
    let (told, pause) = (Told::default(), BACK_OFF.0);
    let mut keeper = Keeper { target, told, pause, stood: None, is_behind: false };
    while !*stop.borrow() {
        let snapshot = followed.latest.borrow_and_update().clone();
        let snapshot = snapshot.map(|snapshot| keeper.judge(snapshot, followed.is_silent()));
        let passed = keeper.pass(snapshot.as_deref(), &mut candidacy, &stop).await;
        let passed_at = Instant::now();
        let wait = keeper.wait(passed);
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
            () = changed(&mut candidacy) => {}
            () = sleep(wait) => {}
            () = stopped(&mut stop) => {}
        }
    }
    keeper.target.give_back().await;
}

async fn changed(candidacy: &mut Option<Candidacy>) {
    match candidacy {
        Some(candidacy) => candidacy.changed().await,
        None => pending().await,
    }
}

impl Keeper {
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
        let Some(snapshot) = snapshot else { return Ok(Passed::Done) };
        self.target.count(snapshot);
        if standing == Some(Standing::Waiting) {
            return self.stand_by(snapshot).await;
        }
        let told = &mut self.told;
        let mut tell = |target: &Target, plan: &Plan| tell_plan(target, plan, told);
        let order = Order { candidacy: candidacy.as_ref(), ..Order::run(stop) };
        self.target.pass(snapshot, &order, &mut tell).await
    }

    /// Reads the zone, now and then, so that what is wrong there is known before we are elected, and
    /// little is left to read then.
    async fn stand_by(&mut self, snapshot: &Snapshot) -> Result<Passed, TargetError> {
        if self.target.is_unread() {
            self.target.read(&snapshot.zone).await?;
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
                self.told.tell(chain(&failure));
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

/// Says what is held or not ours, when that is new.
fn tell_plan(target: &Target, plan: &Plan, told: &mut Told) {
    let name = &target.config.name;
    let held: Vec<Option<PlanId>> = plan.held.iter().map(|held| held.id).collect();
    for set in plan.held.iter().filter(|set| !told.held.contains(&set.id)) {
        let (count, why) = (set.entries.len(), set.why);
        warn!(
            "target {name}: {count} removals are held: {why}; `mesozone diff` shows them; to have \
             them removed, stop this process and run `mesozone sync --approve ID`"
        );
    }
    if told.blocked != plan.blocked.len() && !plan.blocked.is_empty() {
        let each = plan.blocked.iter().take(10).map(|b| format!("{} ({})", b.key.name, b.why));
        warn!(
            "target {name}: {} RRsets are not ours to publish: {}",
            plan.blocked.len(),
            each.collect::<Vec<_>>().join(", ")
        );
    }
    if plan.blocked.is_empty() && told.blocked > 0 {
        info!("target {name}: nothing keeps us from any RRset any more");
    }
    if plan.held.is_empty() && !told.held.is_empty() {
        info!("target {name}: nothing is held any more");
    }
    told.held = held;
    told.blocked = plan.blocked.len();
}
