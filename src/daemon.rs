//! `mesozone run`: one task follows the masters and publishes snapshots, one task a target makes its
//! zone follow them.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info};

use crate::api::{self, Configured, ListenError, Rooms, Sight};
use crate::approval::Token;
use crate::candidacy::{self, Candidacy, Resignation};
use crate::cluster::Numbered;
use crate::config::{self, Config, ConfigError};
use crate::course::Known;
use crate::follow::{self, Hearing, Tells, stopped};
use crate::http::SetupError;
use crate::keep::{Followed, Latest, NoRoom, Opened};
use crate::kept::Kept;
use crate::masters::Masters;
use crate::metrics::Metrics;
use crate::name::Name;
use crate::outgoing::Secondaries;
use crate::records::Rules;
use crate::report::chain;
use crate::rr::Ttl;
use crate::secret::{self, SecretError};
use crate::served::Authority;
use crate::server::{self, BindError, Bound, Manner};
use crate::supervisor::Supervisor;
use crate::target::Target;
use crate::tls::{Tls, TrustError};
use crate::watch::Watch;

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
    #[error(transparent)]
    Fence(#[from] NoRoom),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the bundled server ended")]
    Serving(#[source] io::Error),
    #[error("following the masters ended")]
    Following(#[source] io::Error),
    #[error("[http] token_file")]
    Token(#[source] SecretError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("[server] forward: {0} is this server itself: questions would go in circles")]
    Circle(SocketAddr),
}

/// Opens every target of a configuration.
pub fn targets(config: &Config) -> Result<Vec<Target>, StartError> {
    let targets = config.targets.iter().map(|target| Ok(open(target)?.target()?));
    targets.collect()
}

fn open(target: &config::Target) -> Result<Opened, StartError> {
    let name = || target.name.clone();
    let keys = secret::keys(target).map_err(|error| StartError::Secret(name(), error))?;
    let tls = target.tls.as_ref().map(Tls::new).transpose();
    let tls = tls.map_err(|error| StartError::Trust(name(), error))?;
    Ok(Opened { config: target.clone(), keys, tls }.check()?)
}

/// Everything that a configuration asks for, its secrets read: what can fail has not.
struct Ready {
    config: Arc<Config>,
    masters: Masters,
    targets: Vec<Opened>,
    secondaries: Secondaries,
    token: Option<Token>,
}

impl Ready {
    fn of(config: Config) -> Result<Ready, StartError> {
        let http = config.http.as_ref().and_then(|http| http.token.as_ref());
        Ok(Ready {
            masters: Masters::new(&config.mesos)?,
            targets: config.targets.iter().map(open).collect::<Result<_, _>>()?,
            secondaries: config
                .server
                .as_ref()
                .map_or_else(|| Ok(Secondaries::default()), secondaries)?,
            token: http.map(secret::token).transpose().map_err(StartError::Token)?.map(Token::new),
            config: Arc::new(config),
        })
    }
}

/// The zone's own records, which only the bundled server adds.
fn authority(apex: &Name, ttl: Ttl, server: &config::Server, bound: &[SocketAddr]) -> Authority {
    let listened = || bound.iter().map(SocketAddr::ip).filter(|ip| !ip.is_loopback());
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
fn manner(
    rules: &Rules,
    server: &config::Server,
    secondaries: Secondaries,
    bound: &[SocketAddr],
    metrics: &Metrics,
) -> Result<Manner, StartError> {
    // What a wildcard stands for is known only now.
    if let Some(upstream) = server.forwarding.own_address(bound) {
        return Err(StartError::Circle(upstream));
    }
    let zones = [&rules.domain].into_iter().chain(&rules.reverse);
    Ok(Manner {
        authorities: zones.map(|apex| authority(apex, rules.ttl, server, bound)).collect(),
        secondaries,
        forwarding: server.forwarding.clone(),
        rate_limit: server.rate_limit,
        metrics: metrics.clone(),
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

/// What `run` is told from outside.
pub struct Signals<'s> {
    /// Turns true for a stop.
    pub stop: watch::Receiver<bool>,
    /// Tells when the configuration is to be read again.
    pub reload: mpsc::Receiver<()>,
    /// Reads it; what is wrong with it in words.
    pub read: &'s (dyn Fn() -> Result<Config, String> + Sync),
}

/// The bundled server at work.
struct Serving {
    bound: Vec<SocketAddr>,
    manners: watch::Sender<Manner>,
    task: JoinHandle<io::Result<()>>,
}

/// Following the masters at work.
struct Following {
    stop: watch::Sender<bool>,
    task: JoinHandle<Known>,
}

impl Following {
    fn start(mesos: config::Mesos, masters: Masters, known: Known, tells: &Tells) -> Following {
        let (stop, stopping) = watch::channel(false);
        let tells = tells.clone();
        let follow = async move { follow::follow(&mesos, masters, known, &tells, stopping).await };
        Following { stop, task: tokio::spawn(follow) }
    }

    /// What was known at the end.
    async fn end(self) -> io::Result<Known> {
        self.stop.send_replace(true);
        self.task.await.map_err(io::Error::other)
    }
}

/// Everything at work.
struct House {
    config: Arc<Config>,
    tells: Tells,
    silence_max: watch::Sender<Duration>,
    following: Option<Following>,
    serving: Option<Serving>,
    kept: Kept,
    resignation: Option<Resignation>,
    api: Option<(JoinHandle<()>, watch::Sender<Configured>)>,
}

/// Runs until it is told to stop; then finishes the messages in flight and releases the fences.
pub async fn run(config: Config, mut signals: Signals<'_>) -> Result<(), StartError> {
    let mut house = House::start(Ready::of(config)?).await?;
    let mut supervisor = Supervisor::ready();
    loop {
        tokio::select! {
            () = stopped(&mut signals.stop) => break,
            Some(()) = signals.reload.recv() => {
                supervisor.reloading();
                match (signals.read)() {
                    Ok(config) => house.reload(config).await?,
                    Err(error) => error!("the configuration stays as it was: {error}"),
                }
                supervisor.reloaded();
            }
            () = supervisor.due() => supervisor.alive(),
            // Who restarts us brings it back; without a word nobody would know that it is gone.
            error = broken(&mut house.serving) => return Err(StartError::Serving(error)),
            error = lost(&mut house.following) => return Err(StartError::Following(error)),
        }
    }
    supervisor.stopping();
    house.stop().await;
    Ok(())
}

impl House {
    async fn start(ready: Ready) -> Result<House, StartError> {
        let Ready { config, masters, targets, secondaries, token } = ready;
        let metrics = Metrics::default();
        let (snapshots, latest) = watch::channel(None);
        let (hearing, heard) = watch::channel(Hearing::default());
        let tells = Tells { snapshots, hearing, metrics: metrics.clone() };
        let http = match &config.http {
            Some(http) => Some(api::bind(http.listen).await?),
            None => None,
        };
        let serving = match &config.server {
            Some(server) => {
                Some(serve(&config.rules, server, secondaries, latest.clone(), &metrics)?)
            }
            None => None,
        };
        let (candidacy, resignation) = stand(&config)?.unzip();
        let (silence_max, told) = watch::channel(silence_max(&config));
        let followed = Followed { latest: latest.clone(), heard: heard.clone(), silence_max: told };
        let (mut kept, seen) = Kept::new(followed, candidacy, metrics.clone());
        kept.keep(targets)?;
        let api = http.map(|listener| {
            let (settings, told) = watch::channel(Configured { config: config.clone(), token });
            let bound = serving.as_ref().map(|serving| serving.bound.clone());
            let rooms = Rooms::default();
            let sight = Sight { latest, heard, seen, metrics, bound, settings: told, rooms };
            (tokio::spawn(api::serve(listener, sight)), settings)
        });
        let numbered = Numbered::Told(masters.endpoints());
        let watch = Watch::new(config.rules.clone(), numbered, config.hold_down);
        let mesos = config.mesos.clone();
        let following = Some(Following::start(mesos, masters, Known::of(watch), &tells));
        Ok(House { config, tells, silence_max, following, serving, kept, resignation, api })
    }

    /// Goes on with another configuration, or as before if there is anything wrong with it.
    async fn reload(&mut self, config: Config) -> Result<(), StartError> {
        let ready = self.config.check_reload(&config).map_err(StartError::from);
        let ready = ready.and_then(|()| Ready::of(config)).and_then(|ready| {
            let manner = match (&self.serving, &ready.config.server) {
                (Some(serving), Some(server)) => Some(manner(
                    &ready.config.rules,
                    server,
                    ready.secondaries.clone(),
                    &serving.bound,
                    &self.tells.metrics,
                )?),
                _ => None,
            };
            Ok((ready, manner))
        });
        let (Ready { config, masters, targets, token, .. }, manner) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                error!("the configuration stays as it was: {}", chain(&error));
                return Ok(());
            }
        };
        // First what is desired, so that nobody goes by the new configuration and the old desires.
        let Some(following) = self.following.take() else { return Ok(()) };
        let mut known = following.end().await.map_err(StartError::Following)?;
        if (&config.rules, config.hold_down) != (&self.config.rules, self.config.hold_down) {
            let (rules, hold_down) = (config.rules.clone(), config.hold_down);
            known.watch = tokio::task::block_in_place(|| known.watch.by(rules, hold_down));
            if let Some(snapshot) = known.watch.known() {
                follow::publish(&self.tells, snapshot, SystemTime::now());
            }
        }
        self.silence_max.send_replace(silence_max(&config));
        self.kept.keep(targets)?;
        if let (Some(serving), Some(manner)) = (&self.serving, manner) {
            serving.manners.send_replace(manner);
        }
        if let Some((_, settings)) = &self.api {
            settings.send_replace(Configured { config: config.clone(), token });
        }
        let mesos = config.mesos.clone();
        self.following = Some(Following::start(mesos, masters, known, &self.tells));
        self.config = config;
        let count = self.config.targets.len();
        info!(
            "the configuration is read again: {count} {}",
            if count == 1 { "target" } else { "targets" }
        );
        Ok(())
    }

    async fn stop(mut self) {
        self.kept.stop();
        if let Some((api, _)) = self.api {
            api.abort();
        }
        if let Some(Err(panic)) = match self.following {
            Some(following) => Some(following.end().await),
            None => None,
        } {
            error!("following the masters ended: {panic}");
        }
        if let Some(resignation) = self.resignation {
            // The fences first, so that the next one finds them free. A server in trouble keeps no
            // other target from being followed.
            let _ = timeout(RESIGN_AFTER, self.kept.left()).await;
            resignation.hand_in().await;
        }
        self.kept.left().await;
        // Last: a name server that hangs is no reason to answer nobody.
        if let Some(Serving { manners, task, .. }) = self.serving {
            // Without anybody to tell it more it ends.
            drop(manners);
            if let Err(panic) = task.await {
                error!("answering ended: {panic}");
            }
        }
    }
}

/// Masters that have been silent for longer may be out of our reach, and in that of others.
fn silence_max(config: &Config) -> Duration {
    config.mesos.poll_interval * SILENT_POLLS + config.mesos.timeout
}

/// Starts the bundled server.
fn serve(
    rules: &Rules,
    server: &config::Server,
    secondaries: Secondaries,
    latest: Latest,
    metrics: &Metrics,
) -> Result<Serving, StartError> {
    open_more_files();
    let sockets = Bound::bind(&server.listen)?;
    let bound: Vec<SocketAddr> = sockets.addresses().collect();
    let (manners, told) = watch::channel(manner(rules, server, secondaries, &bound, metrics)?);
    for address in &bound {
        info!("answering for {} on {address}", rules.domain);
    }
    let mut end = told.clone();
    let ended = async move { while end.changed().await.is_ok() {} };
    let task = tokio::spawn(server::serve(sockets, latest, told, ended));
    Ok(Serving { bound, manners, task })
}

/// Why following the masters ended, which it never does by itself.
async fn lost(following: &mut Option<Following>) -> io::Error {
    let Some(running) = following else { return pending().await };
    let ended = (&mut running.task).await;
    *following = None;
    ended.err().map_or_else(|| io::Error::other("it ended"), io::Error::other)
}

/// Why the bundled server ended, once it did by itself.
async fn broken(serving: &mut Option<Serving>) -> io::Error {
    let Some(running) = serving else { return pending().await };
    let ended = (&mut running.task).await;
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
