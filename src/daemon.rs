//! `mesozone run`: one task follows the masters and publishes snapshots, one task a target makes its
//! zone follow them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::answer::Authority;
use crate::config::{self, Config};
use crate::connection::random;
use crate::fence::{Instance, Until};
use crate::follow::{self, stopped};
use crate::http::SetupError;
use crate::masters::Masters;
use crate::name::NameError;
use crate::plan::{Plan, PlanId};
use crate::publish::{Applied, Hold};
use crate::records::Rules;
use crate::report::chain;
use crate::rr::Ttl;
use crate::secret::{self, SecretError};
use crate::server::{self, BindError, Bound};
use crate::snapshot::Snapshot;
use crate::target::{Step, Target, TargetError};
use crate::tls::{Tls, TrustError};

/// The first and the longest pause after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The longest pause before a server that cannot be reached is tried again: that costs it nothing,
/// and it is to be brought up to date as soon as it is back.
const RECONNECT: Duration = Duration::from_secs(2);

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
    for target in targets {
        tasks.spawn(keep(target, latest.clone(), stop.clone()));
    }
    follow::follow(config, masters, publisher, stop).await;
    while let Some(ended) = tasks.join_next().await {
        if let Err(panic) = ended {
            error!("a task ended: {panic}");
        }
    }
    Ok(())
}

/// What a target told last, so that it is told once.
#[derive(PartialEq, Default)]
struct Told {
    trouble: Option<String>,
    held: Option<PlanId>,
    blocked: usize,
}

/// Makes one target follow the snapshots.
async fn keep(mut target: Target, mut latest: Latest, mut stop: watch::Receiver<bool>) {
    let mut pause = BACK_OFF.0;
    let mut told = Told::default();
    while !*stop.borrow() {
        let snapshot = latest.borrow_and_update().clone();
        let passed = match &snapshot {
            None => Ok(()),
            Some(snapshot) => pass(&mut target, snapshot, &stop, &mut told).await,
        };
        let passed_at = Instant::now();
        let wait = match passed {
            Ok(()) => {
                pause = BACK_OFF.0;
                if let Some(before) = told.trouble.take() {
                    info!("target {}: well again; it was: {before}", target.config.name);
                }
                target.config.check_interval
            }
            Err(failure) => {
                let text = chain(&failure);
                if told.trouble.as_ref() != Some(&text) {
                    warn!("{text}");
                }
                told.trouble = Some(text);
                let wait = match failure.step {
                    Step::Connect => pause.min(RECONNECT),
                    _ => pause,
                };
                pause = (pause * 2).min(BACK_OFF.1);
                wait
            }
        };
        let failing = told.trouble.is_some();
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
            () = sleep(wait) => {}
            () = stopped(&mut stop) => {}
        }
    }
    target.give_back().await;
}

/// Reads, plans, writes, verifies.
async fn pass(
    target: &mut Target,
    snapshot: &Snapshot,
    stop: &watch::Receiver<bool>,
    told: &mut Told,
) -> Result<(), TargetError> {
    if target.doubt {
        target.raise_epoch(Hold::Keep).await?;
    }
    target.read(&snapshot.zone).await?;
    target.may_publish(Until::Run)?;
    loop {
        let plan = target.plan(snapshot, &[]);
        tell_plan(target, &plan, told);
        if plan.approved.is_empty() && target.holds_fence() {
            target.settle(&snapshot.zone);
            return Ok(());
        }
        let started = Instant::now();
        let changes = plan.approved.changes().len();
        match target.apply(plan.approved, Hold::Keep, stop).await? {
            Applied::PlanAgain => target.read(&snapshot.zone).await?,
            Applied::Stopped => return Ok(()),
            Applied::Done => {
                let millis = started.elapsed().as_millis();
                info!(target = target.config.name, rrsets = changes, millis, "published");
                return target.verify(&snapshot.zone).await;
            }
        }
    }
}

/// Says what is held or not ours, when that is new.
fn tell_plan(target: &Target, plan: &Plan, told: &mut Told) {
    let name = &target.config.name;
    let held = plan.held.as_ref().map(|held| held.id);
    if let Some(set) = plan.held.as_ref().filter(|_| told.held != held) {
        warn!(
            "target {name}: {} records were there before us and are held: see `mesozone diff`; stop \
             this process and `mesozone sync --approve {}` removes them",
            set.records.len(),
            set.id
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
    told.held = held;
    told.blocked = plan.blocked.len();
}
