//! `mesozone run`: one task follows the masters and publishes snapshots, one task a target makes its
//! zone follow them.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::answer::Authority;
use crate::candidacy::{self, Candidacy, Resignation, Standing};
use crate::config::{self, Config};
use crate::connection::random;
use crate::fence::{Instance, Mandate};
use crate::follow::{self, stopped};
use crate::held::PlanId;
use crate::http::SetupError;
use crate::masters::Masters;
use crate::name::NameError;
use crate::pass::{Order, Passed};
use crate::plan::Plan;
use crate::records::Rules;
use crate::report::chain;
use crate::rr::Ttl;
use crate::secret::{self, SecretError};
use crate::server::{self, BindError, Bound};
use crate::snapshot::Snapshot;
use crate::target::{Target, TargetError};
use crate::tls::{Tls, TrustError};

/// The first and the longest pause after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// So many troubles of one target are remembered, to be told once.
const TROUBLES_MAX: usize = 16;

/// How long a stop waits for the fences to be released before another is elected.
const RESIGN_AFTER: Duration = Duration::from_secs(5);

/// The newest snapshot; none before the first.
pub type Latest = watch::Receiver<Option<Arc<Snapshot>>>;

/// Why `run` cannot start. Once it runs, nothing but a signal ends it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("target {0:?}")]
    Secret(String, #[source] SecretError),
    #[error("target {0:?}")]
    Trust(String, #[source] TrustError),
    #[error("[ha] election_auth_file")]
    ElectionAuth(#[source] SecretError),
    #[error("target {0:?}: no room for the fence's name")]
    Name(String, #[source] NameError),
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Opens every target of a configuration.
pub fn targets(config: &Config) -> Result<Vec<Target>, StartError> {
    let open = |target: &config::Target| {
        let name = || target.name.clone();
        let keys = secret::keys(target).map_err(|error| StartError::Secret(name(), error))?;
        // Each of its own: two targets may be one zone by different keys.
        let instance = Instance(random());
        let tls = target.tls.as_ref().map(Tls::new).transpose();
        let tls = tls.map_err(|error| StartError::Trust(name(), error))?;
        Target::new(target.clone(), (keys, tls), instance)
            .map_err(|error| StartError::Name(name(), error))
    };
    config.targets.iter().map(open).collect()
}

/// The zone's own records, which only the bundled server adds.
fn authority(rules: &Rules, server: &config::Server, bound: &Bound) -> Authority {
    let listened = || bound.addresses().map(|address| address.ip()).filter(|ip| !ip.is_loopback());
    let servers = server.name_servers.clone().into_iter().map(|(name, addresses)| {
        // Listening on a wildcard and told no address: those of the interfaces.
        let addresses = if addresses.is_empty() { listened().collect() } else { addresses };
        (name, addresses)
    });
    let ttl = |span: Duration| Ttl::from_secs(span.as_secs() as u32); // Bounded when configured.
    Authority {
        apex: rules.domain.clone(),
        servers: servers.collect(),
        rname: server.rname.clone(),
        refresh: ttl(server.refresh),
        retry: ttl(server.retry),
        expire: ttl(server.expire),
        negative_ttl: ttl(server.negative_ttl),
        ttl: rules.ttl,
    }
}

/// Runs until `stop` turns true; then finishes the messages in flight and releases the fences.
pub async fn run(
    config: &Config,
    targets: Vec<Target>,
    stop: watch::Receiver<bool>,
) -> Result<(), StartError> {
    let masters = Masters::new(&config.mesos)?;
    let (publisher, latest) = watch::channel(None);
    let mut tasks = JoinSet::new();
    if let Some(server) = &config.server {
        let bound = Bound::bind(&server.listen)?;
        let authority = Arc::new(authority(&config.rules, server, &bound));
        for address in bound.addresses() {
            info!("answering for {} on {address}", config.rules.domain);
        }
        let mut stop = stop.clone();
        tasks.spawn(server::serve(bound, latest.clone(), authority, async move {
            stopped(&mut stop).await;
        }));
    }
    let (candidacy, resignation) = stand(config)?.unzip();
    for target in targets {
        tasks.spawn(keep(target, latest.clone(), candidacy.clone(), stop.clone()));
    }
    follow::follow(config, masters, publisher, stop).await;
    if let Some(resignation) = resignation {
        // The fences first, so that the next one finds them free. A server in trouble keeps no
        // other target from being followed.
        let _ = timeout(RESIGN_AFTER, finish(&mut tasks)).await;
        resignation.hand_in().await;
    }
    finish(&mut tasks).await;
    Ok(())
}

/// Stands for election where that is configured.
fn stand(config: &Config) -> Result<Option<(Candidacy, Resignation)>, StartError> {
    let Some(election) = &config.election else { return Ok(None) };
    let auth = election.auth.as_ref().map(secret::pair).transpose();
    let auth = auth.map_err(StartError::ElectionAuth)?;
    Ok(Some(candidacy::stand(election.ensemble.clone(), auth, config.owner.clone())))
}

async fn finish(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(panic) = ended {
            error!("a task ended: {panic}");
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

/// Makes one target follow the snapshots, while we are elected if there is an election.
async fn keep(
    mut target: Target,
    mut latest: Latest,
    mut candidacy: Option<Candidacy>,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = BACK_OFF.0;
    let mut told = Told::default();
    let mut stood = None;
    while !*stop.borrow() {
        let snapshot = latest.borrow_and_update().clone();
        let standing = candidacy.as_mut().map(Candidacy::standing);
        if standing != stood {
            (told, pause) = (Told::default(), BACK_OFF.0);
            if standing != Some(Standing::CutOff) {
                target.start_over();
            }
            stood = standing;
        }
        target.give(mandate(standing));
        let passed = match &snapshot {
            None => Ok(Passed::Done),
            Some(snapshot) if standing == Some(Standing::Waiting) => {
                target.count(snapshot);
                stand_by(&mut target, snapshot).await
            }
            Some(snapshot) => {
                target.count(snapshot);
                let mut tell = |target: &Target, plan: &Plan| tell_plan(target, plan, &mut told);
                let order = Order { candidacy: candidacy.as_ref(), ..Order::run(&stop) };
                target.pass(snapshot, &order, &mut tell).await
            }
        };
        let passed_at = Instant::now();
        let wait = match passed {
            Ok(passed) => {
                pause = BACK_OFF.0;
                if let Some(before) = std::mem::take(&mut told.troubles).pop() {
                    info!("target {}: well again; it was: {before}", target.config.name);
                }
                let again = Some(BACK_OFF.0).filter(|_| passed == Passed::Unfinished);
                let due = target.next_due().into_iter().chain(again).min();
                due.unwrap_or(Duration::MAX).min(target.config.check_interval)
            }
            Err(failure) => {
                told.tell(chain(&failure));
                let wait = pause;
                pause = (pause * 2).min(BACK_OFF.1);
                // What ends a trouble, or releases the fence, is seen as soon as any change.
                wait.min(target.config.check_interval)
            }
        };
        let failing = !told.troubles.is_empty();
        tokio::select! {
            // A snapshot is no reason to hurry back to a server in trouble.
            changed = latest.changed(), if !failing => {
                if changed.is_err() {
                    break;
                }
                // After a quiet window at once; what follows closely is gathered.
                let gather = target.config.batch_window.saturating_sub(passed_at.elapsed());
                tokio::select! {
                    () = sleep(gather) => {}
                    () = stopped(&mut stop) => {}
                }
            }
            () = changed(&mut candidacy) => {}
            () = sleep(wait) => {}
            () = stopped(&mut stop) => {}
        }
    }
    target.give_back().await;
}

async fn changed(candidacy: &mut Option<Candidacy>) {
    match candidacy {
        Some(candidacy) => candidacy.changed().await,
        None => pending().await,
    }
}

fn mandate(standing: Option<Standing>) -> Mandate {
    match standing {
        None | Some(Standing::Elected(_)) => Mandate::Take,
        Some(Standing::Waiting | Standing::CutOff) => Mandate::Keep,
    }
}

/// Reads the zone, now and then, so that what is wrong there is known before we are elected, and
/// little is left to read then.
async fn stand_by(target: &mut Target, snapshot: &Snapshot) -> Result<Passed, TargetError> {
    if target.is_unread() {
        target.read(&snapshot.zone).await?;
    }
    Ok(Passed::Done)
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
    if told.blocked != plan.blocked.len() {
        let each = plan.blocked.iter().take(10).map(|b| format!("{} ({})", b.key.name, b.why));
        warn!(
            "target {name}: {} RRsets are not ours to publish: {}",
            plan.blocked.len(),
            each.collect::<Vec<_>>().join(", ")
        );
    }
    if plan.held.is_empty() && !told.held.is_empty() {
        info!("target {name}: nothing is held any more");
    }
    told.held = held;
    told.blocked = plan.blocked.len();
}
