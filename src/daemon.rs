//! `mesozone run`: one task follows the masters and publishes snapshots, one task a target makes its
//! zone follow them.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{error, info};

use crate::candidacy::{self, Candidacy, Resignation};
use crate::config::{self, Config};
use crate::connection::random;
use crate::fence::Instance;
use crate::follow::{self, stopped};
use crate::http::SetupError;
use crate::keep::{Followed, keep};
use crate::masters::Masters;
use crate::name::{Name, NameError};
use crate::outgoing::Secondaries;
use crate::records::Rules;
use crate::rr::Ttl;
use crate::secret::{self, SecretError};
use crate::served::Authority;
use crate::server::{self, BindError, Bound, Manner};
use crate::target::Target;
use crate::tls::{Tls, TrustError};

/// How long a stop waits for the fences to be released before another is elected.
const RESIGN_AFTER: Duration = Duration::from_secs(5);

/// Polls that may fail, the last by its time limit, before masters count as silent.
const SILENT_POLLS: u32 = 3;

/// Why `run` cannot start, or cannot go on: once it runs, a signal ends it, or a fault of its own.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("target {0:?}")]
    Secret(String, #[source] SecretError),
    #[error("target {0:?}")]
    Trust(String, #[source] TrustError),
    #[error("[server] transfer")]
    Transfer(#[source] SecretError),
    #[error("[ha] election_auth_file")]
    ElectionAuth(#[source] SecretError),
    #[error("target {0:?}: no room for the fence's name")]
    Name(String, #[source] NameError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the bundled server ended")]
    Serving(#[source] io::Error),
    #[error("[server] forward: {0} is this server itself: questions would go in circles")]
    Circle(SocketAddr),
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
fn authority(apex: &Name, ttl: Ttl, server: &config::Server, bound: &Bound) -> Authority {
    let listened = || bound.addresses().map(|address| address.ip()).filter(|ip| !ip.is_loopback());
    let servers = server.name_servers.clone().into_iter().map(|(name, addresses)| {
        // Listening on a wildcard and told no address: those of the interfaces.
        let addresses = if addresses.is_empty() { listened().collect() } else { addresses };
        (name, addresses)
    });
    let span = |span: Duration| Ttl::from_secs(span.as_secs() as u32); // Bounded when configured.
    Authority {
        apex: apex.clone(),
        servers: servers.collect(),
        rname: server.rname.clone(),
        refresh: span(server.refresh),
        retry: span(server.retry),
        expire: span(server.expire),
        negative_ttl: span(server.negative_ttl),
        ttl,
    }
}

/// How the bundled server answers on these addresses.
fn manner(rules: &Rules, server: &config::Server, bound: &Bound) -> Result<Manner, StartError> {
    let addresses: Vec<SocketAddr> = bound.addresses().collect();
    // What a wildcard stands for is known only now.
    if let Some(upstream) = server.forwarding.own_address(&addresses) {
        return Err(StartError::Circle(upstream));
    }
    let zones = [&rules.domain].into_iter().chain(&rules.reverse);
    Ok(Manner {
        authorities: zones.map(|apex| authority(apex, rules.ttl, server, bound)).collect(),
        secondaries: secondaries(server)?,
        forwarding: server.forwarding.clone(),
        rate_limit: server.rate_limit,
    })
}

/// As many open files as the system lets us have: each connection of a client is one.
fn open_more_files() {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limit.and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        info!("the limit of open files stays as it is: {error}");
    }
}

/// Who has the zone by transfer.
fn secondaries(server: &config::Server) -> Result<Secondaries, StartError> {
    let Some(config::Transfer { secondaries, key }) = &server.transfer else {
        return Ok(Secondaries::default());
    };
    let key = key.as_ref().map(secret::key).transpose().map_err(StartError::Transfer)?;
    Ok(Secondaries { addresses: secondaries.clone(), key })
}

/// Runs until `stop` turns true; then finishes the messages in flight and releases the fences.
pub async fn run(
    config: &Config,
    targets: Vec<Target>,
    stop: watch::Receiver<bool>,
) -> Result<(), StartError> {
    let masters = Masters::new(&config.mesos)?;
    let ((publisher, latest), (hearing, heard)) = (watch::channel(None), watch::channel(None));
    let (mut tasks, mut serving) = (JoinSet::new(), None);
    if let Some(server) = &config.server {
        open_more_files();
        let bound = Bound::bind(&server.listen)?;
        let manner = manner(&config.rules, server, &bound)?;
        for address in bound.addresses() {
            info!("answering for {} on {address}", config.rules.domain);
        }
        let mut stop = stop.clone();
        let latest = latest.clone();
        serving = Some(tokio::spawn(async move {
            server::serve(bound, latest, manner, stopped(&mut stop)).await
        }));
    }
    let (candidacy, resignation) = stand(config)?.unzip();
    let silence_max = config.mesos.poll_interval * SILENT_POLLS + config.mesos.timeout;
    let followed = Followed { latest, heard, silence_max };
    for target in targets {
        tasks.spawn(keep(target, followed.clone(), candidacy.clone(), stop.clone()));
    }
    tokio::select! {
        () = follow::follow(config, masters, (publisher, hearing), stop.clone()) => {}
        // Who restarts us brings it back; without a word nobody would know that it is gone.
        error = broken(&mut serving), if !*stop.borrow() => return Err(StartError::Serving(error)),
    }
    if let Some(serving) = serving
        && let Err(panic) = serving.await
    {
        error!("answering ended: {panic}");
    }
    if let Some(resignation) = resignation {
        // The fences first, so that the next one finds them free. A server in trouble keeps no
        // other target from being followed.
        let _ = timeout(RESIGN_AFTER, finish(&mut tasks)).await;
        resignation.hand_in().await;
    }
    finish(&mut tasks).await;
    Ok(())
}

/// Why the bundled server ended, once it did by itself.
async fn broken(serving: &mut Option<JoinHandle<io::Result<()>>>) -> io::Error {
    let Some(running) = serving else { return pending().await };
    let ended = running.await;
    *serving = None;
    match ended {
        Ok(Ok(())) => pending().await,
        Ok(Err(error)) => error,
        Err(panic) => io::Error::other(panic),
    }
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
