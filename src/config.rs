//! The configuration, in types that exist only when valid. Secrets stay where they are and are named,
//! not held. How it is read is in [`written`](crate::written).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::cluster::Endpoint;
use crate::fence::{DOMAIN_MAX, Owner};
use crate::forwarding::Forwarding;
use crate::mark::Shrink;
use crate::name::Name;
use crate::records::Rules;
use crate::scope::Scope;
pub use crate::setting::{Ensemble, Master, Scheme, Watch};

/// A whole, valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub mesos: Mesos,
    pub rules: Rules,
    /// `run`: a name vanishes this long after the last thing it stands for.
    pub hold_down: Duration,
    pub owner: Owner,
    /// Where `run` stands for election before it publishes; there are targets then.
    pub election: Option<Election>,
    pub targets: Vec<Target>,
    pub server: Option<Server>,
    /// None: nothing is heard over HTTP.
    pub http: Option<Http>,
}

/// Where the cluster is read.
#[derive(Clone, Debug)]
pub struct Mesos {
    /// Those named one by one; there is at least one of them or one ensemble.
    pub masters: Vec<Master>,
    /// Where masters are found by their election.
    pub ensembles: Vec<Ensemble>,
    /// `user:password` for every ensemble.
    pub zk_auth: Option<Secret>,
    pub watch: Watch,
    /// Polling: of the state. Streaming: of the agents.
    pub poll_interval: Duration,
    /// Streaming: how often everything is read again.
    pub reconcile_interval: Duration,
    pub failover_hold: Duration,
    /// To connect, and of silence while reading.
    pub timeout: Duration,
    pub auth: Option<Auth>,
    pub tls: Tls,
    /// The key of the label by which tasks choose names: the one that is read of them.
    pub task_label: Option<Arc<str>>,
}

/// Where a secret is: never in the configuration itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Secret {
    File(PathBuf),
    Env(String),
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::File(path) => write!(f, "{}", path.display()),
            Secret::Env(name) => write!(f, "${name}"),
        }
    }
}

/// What the masters want to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Auth {
    Basic {
        principal: String,
        secret: Secret,
    },
    /// An `Authorization` value, verbatim.
    Header(Secret),
}

/// Where those of one owner elect the one that publishes.
#[derive(Clone, Debug)]
pub struct Election {
    pub ensemble: Ensemble,
    /// `user:password`.
    pub auth: Option<Secret>,
}

#[derive(Clone, Default, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// One zone on one name server.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    /// The primary; its port is always there.
    pub server: Endpoint,
    /// None: plain TCP.
    pub tls: Option<Trust>,
    pub scope: Scope,
    pub update_key: Secret,
    pub transfer_key: Secret,
    /// How much may go without an approval.
    pub shrink: Shrink,
    /// What others add in our space is removed this long after.
    pub hold_down: Duration,
    pub check_interval: Duration,
    pub batch_window: Duration,
    pub rrset_max: RrsetMax,
}

/// Who a server has to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trust {
    /// Authorities, in PEM.
    pub ca_file: PathBuf,
    /// What its certificate is for.
    pub name: ServerName<'static>,
}

/// How many records of an RRset are published.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum RrsetMax {
    /// What fits one message; where the server refuses, the hundred it takes by default.
    #[default]
    Auto,
    Never,
    At(usize),
}

/// The bundled server.
#[derive(Clone, Debug)]
pub struct Server {
    pub listen: Vec<SocketAddr>,
    pub name_servers: BTreeMap<Name, Vec<IpAddr>>,
    pub rname: Name,
    pub refresh: Duration,
    pub retry: Duration,
    pub expire: Duration,
    pub negative_ttl: Duration,
    /// What becomes of questions about other names.
    pub forwarding: Forwarding,
    /// Answers over UDP, a second and client network; none: as many as are asked for.
    pub rate_limit: Option<NonZeroU32>,
    /// Who has the zones by transfer; none: nobody.
    pub transfer: Option<Transfer>,
}

/// Who has the zones by transfer: at least one address, or a key. Where there are both, both must
/// fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// They are told of every edition there, too.
    pub secondaries: Vec<SocketAddr>,
    pub key: Option<Secret>,
}

/// The HTTP server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Http {
    pub listen: SocketAddr,
    /// What who writes has to show; none: nothing writes.
    pub token: Option<Secret>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{text}{hint}", text = .0.to_string().trim_end(), hint = nearest_known_key(.0))]
    Toml(toml::de::Error),
    #[error("two targets are named {0:?}")]
    SameName(String),
    #[error("the targets {0:?} and {1:?} have one server, zone and key")]
    SameTarget(String, String),
    #[error(
        "target {target:?}: the zone {zone} is neither the domain {domain} nor above it, nor one of \
         [zone] reverse"
    )]
    ZoneElsewhere { target: String, zone: Name, domain: Name },
    #[error("target {target:?}: protect pattern {pattern:?} is not inside the zone {zone}")]
    ProtectElsewhere { target: String, pattern: String, zone: Name },
    #[error("[zone] reverse: {0} and {1} are within one another")]
    NestedReverse(Name, Name),
    #[error("[zone] reverse: {reverse} and the domain {domain} are within one another")]
    ReverseAndDomain { reverse: Name, domain: Name },
    #[error("[zone] frameworks: include needs at least one pattern")]
    NothingIncluded,
    #[error(
        "target {target:?}: the domain {domain} is too long for a fence in a reverse zone: \
         {DOMAIN_MAX} characters are the limit"
    )]
    DomainTooLong { target: String, domain: Name },
    #[error("target {0:?}: give tsig_key_file or tsig_key_env, one of them")]
    NoKey(String),
    #[error("target {0:?}: give transfer_key_file or transfer_key_env, not both")]
    TwoTransferKeys(String),
    #[error("target {0:?}: transport = \"tls\" needs ca_file, the certificates to trust")]
    NoTargetCa(String),
    #[error("target {0:?}: ca_file and tls_name are for transport = \"tls\"")]
    NoTls(String),
    #[error("target {target:?}: no certificate is for {host:?}: give tls_name, the name in it")]
    NoCertificateName { target: String, host: String },
    #[error(
        "[mesos] auth: give principal and secret_file (or secret_env), or header_file (or \
         header_env)"
    )]
    Auth,
    #[error("[mesos] tls: cert_file and key_file go together")]
    HalfCertificate,
    #[error("[mesos] tls: masters by https need ca_file, the certificates to trust")]
    NoCa,
    #[error("[mesos] masters: at least one is needed")]
    NoMaster,
    #[error(
        "[mesos] masters: a zk:// entry holds no user and password; put `user:password` into a \
         file and name it, zk_auth_file"
    )]
    Password,
    #[error("[mesos]: give zk_auth_file or zk_auth_env, not both")]
    TwoZkAuths,
    #[error("[ha] election: write it as zk://10.0.0.1:2181,10.0.0.2:2181/mesozone")]
    NoEnsemble,
    #[error(
        "[ha] election: it holds no user and password; put `user:password` into a file and name \
         it, election_auth_file"
    )]
    ElectionPassword,
    #[error("[ha]: give election_auth_file or election_auth_env, not both")]
    TwoElectionAuths,
    #[error(
        "[ha]: election_auth_file and election_auth_env are for an election, and there is none"
    )]
    AuthWithoutElection,
    #[error("[ha] election: who is elected publishes, and there is no [[target]] to publish into")]
    ElectionWithoutTarget,
    #[error("[server] listen: at least one address is needed")]
    NoListen,
    #[error(
        "[server] forward_zones: {zone} is the zone {ours}, inside it or above it, and what is at \
         and below {ours} is answered here"
    )]
    ForwardedZone { zone: Name, ours: Name },
    #[error("[server] forward_zones: {0} is there twice")]
    ForwardedTwice(Name),
    #[error("[server] forward_zones: {0} needs at least one server to ask")]
    NoUpstream(Name),
    #[error(
        "[server] forward: {0} is this server itself, by listen: questions would go in circles"
    )]
    ForwardToItself(SocketAddr),
    #[error("[server] from: at least one network is needed, or \"private\" or \"any\"")]
    NoClients,
    #[error("[server] transfer: give secondaries, tsig_key_file (or tsig_key_env), or both")]
    NobodyToTransferTo,
    #[error("[server] transfer: give tsig_key_file or tsig_key_env, not both")]
    TwoServerKeys,
    #[error("[http]: give token_file or token_env, not both")]
    TwoTokens,
    #[error("{0} is read at the start only: restart to change it")]
    AtStart(&'static str),
    #[error("nothing to do: neither a [[target]] nor a [server] is configured")]
    NothingToDo,
}

/// Not a source as well: it is told whole already.
impl From<toml::de::Error> for ConfigError {
    fn from(error: toml::de::Error) -> ConfigError {
        ConfigError::Toml(error)
    }
}

impl Config {
    /// Whether `run` would have anything to do.
    pub fn check_purpose(&self) -> Result<(), ConfigError> {
        match self.targets.is_empty() && self.server.is_none() {
            true => Err(ConfigError::NothingToDo),
            false => Ok(()),
        }
    }
}

impl Config {
    /// Whether a process that started with `self` can go on with `next`.
    pub fn check_reload(&self, next: &Config) -> Result<(), ConfigError> {
        let listen = |config: &Config| config.server.as_ref().map(|server| server.listen.clone());
        let http = |config: &Config| config.http.as_ref().map(|http| http.listen);
        let election = |config: &Config| {
            let election = config.election.as_ref();
            election.map(|election| (election.ensemble.clone(), election.auth.clone()))
        };
        let changed = [
            ("[zone] domain", self.rules.domain != next.rules.domain),
            ("[server] listen", listen(self) != listen(next)),
            ("[http] listen", http(self) != http(next)),
            ("[ha] owner", self.owner != next.owner),
            ("[ha] election", election(self) != election(next)),
        ];
        match changed.into_iter().find(|(_, changed)| *changed) {
            Some((key, _)) => Err(ConfigError::AtStart(key)),
            None => next.check_purpose(),
        }
    }
}

/// "; did you mean `domain`?": serde's message lists the keys it knows between backticks.
fn nearest_known_key(error: &toml::de::Error) -> String {
    let mut words = error.message().split('`').skip(1).step_by(2);
    let unknown = words.next().filter(|_| error.message().starts_with("unknown field"));
    let nearest = unknown.and_then(|word| words.min_by_key(|known| distance(word, known)));
    nearest.map_or_else(String::new, |known| format!("\ndid you mean `{known}`?"))
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
