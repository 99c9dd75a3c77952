//! `mesozone check`: looks at everything that `run` needs, and changes nothing anywhere.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::timeout;

use crate::cluster::{Endpoint, Host, Numbered};
use crate::config::{self, Auth, Config, Secret, Watch as Watching};
use crate::connection::{ConnectionError, now, random};
use crate::diagnosis::{self, About, Cluster, Inspected, Standing, Trouble};
use crate::fence::{self, Instance};
use crate::findings::{Finding, count};
use crate::inspect::{self, Inspection};
use crate::masters::{Base, MasterError, Masters, ReadError, Role, Whole};
use crate::name::Name;
use crate::report::chain;
use crate::resolve::Resolver;
use crate::scope::Foreign;
use crate::secret::{self, Keys};
use crate::server::{BindError, Bound};
use crate::snapshot::Snapshot;
use crate::target::{Cause, Target};
use crate::tsig::TsigError;
use crate::watch::{Reading, Watch};
use crate::zone::Zone;
use crate::zookeeper::Detected;

/// For the cluster's whole state: nobody who checks waits longer.
const READ_LIMIT: Duration = Duration::from_secs(120);
/// For a whole zone.
const TRANSFER_LIMIT: Duration = Duration::from_secs(120);

/// Looks at everything; `tell` gets the findings in their order, as soon as they are known.
pub async fn check<E>(
    path: &Path,
    config: &Config,
    mut tell: impl FnMut(Vec<Finding>) -> Result<(), E>,
) -> Result<(), E> {
    tell(configuration(path, config))?;
    let inspected = join_all(config.targets.iter().map(|target| inspect(config, target)));
    let masters = async {
        let (found, snapshot) = cluster(config).await;
        tell(found).map(|()| snapshot)
    };
    let (inspected, snapshot) = join(inspected, masters).await;
    let snapshot = snapshot?;
    let each = config.targets.iter().zip(inspected);
    let targets = each.map(|(target, seen)| async {
        match seen {
            Ok(seen) => compare(config, target, seen, snapshot.as_ref()).await,
            Err(failed) => vec![failed],
        }
    });
    for found in join_all(targets).await {
        tell(found)?;
    }
    if let Some(server) = &config.server {
        tell(listening(server, config).await)?;
    }
    Ok(())
}

/// The configuration, and the secrets that it names.
fn configuration(path: &Path, config: &Config) -> Vec<Finding> {
    let about = format!("configuration {}", path.display());
    let mesos = &config.mesos;
    let mut parts = vec![count(mesos.masters.len(), "master", "masters")];
    if !mesos.ensembles.is_empty() {
        parts.push(count(mesos.ensembles.len(), "ensemble", "ensembles"));
    }
    parts.push(count(config.targets.len(), "target", "targets"));
    parts.extend(config.server.as_ref().map(|_| "bundled server".to_owned()));
    let mut found = vec![match config.check_purpose() {
        Ok(()) => Finding::well(about, parts.join(", ")),
        Err(error) => Finding::failure(about, error.to_string(), "configure one of them"),
    }];
    let secrets = secrets(config);
    let files = secrets.iter().filter_map(|(about, secret)| match secret {
        Secret::File(path) => Some((about.as_str(), path)),
        Secret::Env(_) => None,
    });
    let private_key = mesos.tls.key_file.iter().map(|path| ("[mesos] tls", path));
    for (about, path) in files.chain(private_key) {
        if secret::others_can_read(path) {
            let text = format!("others can read the secret in {}", path.display());
            found.push(Finding::warning(about, text, format!("chmod o-r {}", path.display())));
        }
    }
    found
}

/// Each secret once, and what it is for.
fn secrets(config: &Config) -> Vec<(String, &Secret)> {
    let auth = config.mesos.auth.as_ref().map(|auth| match auth {
        Auth::Basic { secret, .. } | Auth::Header(secret) => ("[mesos] auth".to_owned(), secret),
    });
    let zk_auth =
        config.mesos.zk_auth.as_ref().map(|secret| ("[mesos] zk_auth".to_owned(), secret));
    let keys = config.targets.iter().flat_map(|target| {
        [&target.update_key, &target.transfer_key]
            .map(|key| (format!("target {}", target.name), key))
    });
    let mut all: Vec<(String, &Secret)> = auth.into_iter().chain(zk_auth).chain(keys).collect();
    let mut seen = Vec::new();
    all.retain(|(_, secret)| {
        !seen.contains(secret) && {
            seen.push(*secret);
            true
        }
    });
    all
}

/// The masters and their elections, and what the leader tells of the cluster.
async fn cluster(config: &Config) -> (Vec<Finding>, Option<Snapshot>) {
    let masters = match Masters::new(&config.mesos) {
        Ok(masters) => masters,
        Err(error) => {
            let remedy = "correct the file that it names";
            return (vec![Finding::failure("masters", chain(&error), remedy)], None);
        }
    };
    let ((read, events), asked) = join(read(&masters, config), ask_everyone(&masters)).await;
    let state = if read.is_ok() { Cluster::Read } else { Cluster::Unread };
    let mut found = Vec::new();
    for (base, role, version) in &asked {
        found.push(diagnosis::master(
            &base.to_string(),
            &standing(role),
            version.as_deref(),
            state,
        ));
    }
    for (ensemble, detected) in config.mesos.ensembles.iter().zip(masters.elections()) {
        found.extend(election(&ensemble.to_string(), &detected.borrow(), config, state));
    }
    match read {
        Ok(whole) => {
            found.extend(events);
            let snapshot = snapshot(config, &masters, whole).await;
            found.extend(diagnosis::cluster(&snapshot));
            (found, Some(snapshot))
        }
        Err(words) => {
            let led = asked.iter().any(|(_, role, _)| matches!(role, Ok(Role::Leads)));
            let text = if led { words } else { "no master that we may ask leads".to_owned() };
            let remedy = "see above; nothing is published meanwhile, and nothing removed";
            found.push(Finding::failure("cluster", text, remedy));
            (found, None)
        }
    }
}

/// Reads the cluster as `run` does, and says how it may follow it.
async fn read(masters: &Masters, config: &Config) -> (Result<Whole, String>, Option<Finding>) {
    let events = match config.mesos.watch {
        Watching::Poll => None,
        Watching::Stream => match timeout(READ_LIMIT, masters.read(Watching::Stream)).await {
            Ok(Ok(whole)) => {
                let told = Finding::well("events", format!("{} sends them", whole.leader));
                return (Ok(whole), Some(told));
            }
            Ok(Err(error @ ReadError::Refused(..))) => Some(chain(&error)),
            Ok(Err(_)) => Some("no event stream could be had".to_owned()),
            Err(_) => Some("no event stream in time".to_owned()),
        },
    };
    let events = events.map(|words| {
        let every = config.mesos.poll_interval.as_secs_f64();
        let text = format!("{words}; `run` polls the state every {every} s instead");
        let remedy = "let this principal use /api/v1, or choose that: [mesos] watch = \"poll\"";
        Finding::warning("events", text, remedy)
    });
    let read = match timeout(READ_LIMIT, masters.read(Watching::Poll)).await {
        Ok(read) => read.map_err(|error| chain(&error)),
        Err(_) => Err(format!("the state was not read within {} s", READ_LIMIT.as_secs())),
    };
    (read, events)
}

type Asked = (Base, Result<Role, MasterError>, Option<String>);

/// What each master is that is named, elected, or named by another.
async fn ask_everyone(masters: &Masters) -> Vec<Asked> {
    let ask = |base: Base| async {
        let both = join(masters.role(&base), masters.version(&base));
        match timeout(READ_LIMIT, both).await {
            Ok((role, version)) => (base, role, version.ok()),
            Err(_) => (base, Err(MasterError::Late), None),
        }
    };
    let mut asked = join_all(masters.everyone().await.into_iter().map(ask)).await;
    let mut pointed_at: Vec<Base> = Vec::new();
    for (_, role, _) in &asked {
        if let Ok(Role::Follows(leader)) = role
            && !pointed_at.contains(leader)
            && asked.iter().all(|(base, ..)| base != leader)
        {
            pointed_at.push(leader.clone());
        }
    }
    asked.extend(join_all(pointed_at.into_iter().map(ask)).await);
    asked
}

fn standing(role: &Result<Role, MasterError>) -> Standing {
    match role {
        Ok(Role::Leads) => Standing::Leads,
        Ok(Role::Follows(leader)) => Standing::Follows(leader.to_string()),
        Err(error @ MasterError::Status(status)) if [401, 403].contains(&status.as_u16()) => {
            Standing::Barred(error.to_string())
        }
        Err(MasterError::Http(error)) if error.is_timeout() => {
            Standing::Failed("no answer in time".to_owned())
        }
        Err(MasterError::Http(error)) if error.is_connect() => {
            let words = chain(error);
            let cause = words.rsplit(": ").next().unwrap_or_default();
            Standing::Failed(format!("cannot connect: {}", plain(cause)))
        }
        Err(error) => Standing::Failed(chain(error)),
    }
}

/// Without the number that the system has for it.
fn plain(words: &str) -> &str {
    words.split(" (os error").next().unwrap_or(words)
}

/// What one ensemble tells.
fn election(ensemble: &str, seen: &Detected, config: &Config, state: Cluster) -> Vec<Finding> {
    let digest = match config.mesos.zk_auth {
        Some(_) => ", digest accepted",
        None => "",
    };
    let unread = seen.elected.iter().flat_map(|elected| &elected.unread).map(|node| {
        let text = format!("the node {} cannot be read: {}", node.id, node.fault);
        Finding::warning(ensemble, text, "see who made it")
    });
    let leader = seen.elected.as_ref().filter(|_| seen.trouble.is_none());
    let leader = leader.and_then(|elected| Some((elected.leader.as_ref()?, &elected.masters)));
    let first = match (leader, &seen.trouble, state) {
        (Some((leader, masters)), ..) => {
            let (leader, stand) = (leader.authority(5050), count(masters.len(), "stands", "stand"));
            Finding::well(ensemble, format!("{leader} leads, {stand} for election{digest}"))
        }
        (None, trouble, state) => {
            let text = match trouble {
                Some(trouble) => chain(trouble),
                None if seen.elected.is_some() => format!("no master leads{digest}"),
                None => "no answer in time".to_owned(),
            };
            let remedy = "see that the ensemble runs, that its path is right, and zk_auth_file";
            match state {
                Cluster::Read => Finding::warning(ensemble, text, remedy),
                Cluster::Unread => Finding::failure(ensemble, text, remedy),
            }
        }
    };
    std::iter::once(first).chain(unread).collect()
}

async fn snapshot(config: &Config, masters: &Masters, whole: Whole) -> Snapshot {
    let Whole { state, completeness, hold_left, .. } = whole;
    let mut watch = Watch::new(config.rules.clone(), Numbered::Told(masters.endpoints()));
    let mut names = watch.host_names();
    names.extend(state.cluster.host_names());
    let hosts = Resolver::default().hosts_of(names).await;
    let events = Vec::new();
    watch.read(Reading { state, completeness, hold_left, hosts, events }).0
}

/// A target whose name server was asked.
struct Seen {
    keys: Keys,
    fence: Name,
    answers: Result<Inspected, Trouble>,
}

async fn inspect(config: &Config, target: &config::Target) -> Result<Seen, Finding> {
    let about = || format!("target {}", target.name);
    let keys = secret::keys(target).map_err(|error| {
        Finding::failure(about(), chain(&error), "give it a key as `tsig-keygen` writes it")
    })?;
    let fence = fence::name(&config.rules.domain).map_err(|error| {
        let text = format!("no room for the fence's name: {error}");
        Finding::failure(about(), text, "choose a shorter domain")
    })?;
    let answers = Inspection::new(target, &keys, &fence).inspect().await;
    Ok(Seen { keys, fence, answers })
}

/// Transfers the zone and compares it with what is desired.
async fn compare(
    config: &Config,
    target: &config::Target,
    seen: Seen,
    snapshot: Option<&Snapshot>,
) -> Vec<Finding> {
    let about = About {
        target: &target.name,
        server: target.server.authority(53),
        scope: &target.scope,
        update_key: seen.keys.update.name(),
        fence: &seen.fence,
        ttl: config.rules.ttl,
        rrset_max: target.rrset_max,
    };
    let answers = match seen.answers {
        Ok(answers) => answers,
        Err(trouble) => {
            let mut found = vec![diagnosis::no_server(&about, &trouble)];
            found.extend(desired(&about, snapshot, &Foreign::default()));
            return found;
        }
    };
    let nothing = Zone::default();
    let zone = snapshot.map_or(&nothing, |snapshot| &snapshot.zone);
    let transferred = transfer(target, &seen.keys, zone).await;
    match transferred.as_ref().map(|reached| (reached, reached.view())) {
        Ok((reached, Some(view))) => {
            // A question may have been answered from a wildcard.
            let answers = Inspected { fence: Ok(view.fence.clone()), ..answers };
            let mut found = diagnosis::inspected(&about, &answers, now());
            let plan = snapshot.map(|snapshot| reached.plan(snapshot, &[]));
            found.extend(diagnosis::transferred(&about, view, plan.as_ref()));
            found.extend(desired(&about, snapshot, &view.foreign));
            found
        }
        Ok((_, None)) => diagnosis::inspected(&about, &answers, now()),
        Err(words) => {
            let mut found = diagnosis::inspected(&about, &answers, now());
            found.push(diagnosis::no_transfer(&about, words));
            found.extend(desired(&about, snapshot, &Foreign::default()));
            found
        }
    }
}

fn desired(about: &About<'_>, snapshot: Option<&Snapshot>, foreign: &Foreign) -> Vec<Finding> {
    snapshot.map_or_else(Vec::new, |s| diagnosis::desired(about, &s.zone, foreign))
}

async fn transfer(target: &config::Target, keys: &Keys, zone: &Zone) -> Result<Target, String> {
    let opened = Target::new(target.clone(), keys.clone(), Instance(random()));
    let mut opened = opened.map_err(|error| error.to_string())?;
    match timeout(TRANSFER_LIMIT, opened.read(zone)).await {
        Ok(Ok(())) => Ok(opened),
        Ok(Err(error)) => Err(match &*error.cause {
            // The key was good for the SOA.
            Cause::Connection(ConnectionError::Tsig(TsigError::Unsigned(rcode))) => format!(
                "the server answered {rcode} unsigned, as PowerDNS does where it does not allow it"
            ),
            Cause::Connection(ConnectionError::Tsig(TsigError::BadKey { .. })) => {
                "the server answered BADKEY, as Knot does where its acl does not allow it"
                    .to_owned()
            }
            cause => chain(cause),
        }),
        Err(_) => Err(format!("not over within {} s", TRANSFER_LIMIT.as_secs())),
    }
}

/// Whether the bundled server can have its addresses.
async fn listening(server: &config::Server, config: &Config) -> Vec<Finding> {
    match Bound::bind(&server.listen) {
        Ok(bound) => {
            let free = |at: SocketAddr| Finding::well("server", format!("{at} is free"));
            bound.addresses().map(free).collect()
        }
        Err(error) => vec![taken(server, config, error).await],
    }
}

async fn taken(server: &config::Server, config: &Config, error: BindError) -> Finding {
    let words = chain(&error);
    let words = plain(&words);
    let BindError::Socket { address, source, .. } = &error else {
        return Finding::failure("server", words, "choose another address to listen on");
    };
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            let endpoint = Endpoint::new(Host::Address(address.ip()), Some(address.port()));
            match inspect::answers_as(&endpoint, &config.rules.domain, server).await {
                inspect::Identity::Ours => Finding::warning(
                    "server",
                    format!("{address} is in use by a mesozone of this configuration"),
                    "nothing, if that is the `run` that shall have it",
                ),
                inspect::Identity::Other => {
                    Finding::failure("server", words, "stop what listens there, or choose another")
                }
            }
        }
        io::ErrorKind::PermissionDenied => {
            let remedy = "check as the user of `run`, who needs CAP_NET_BIND_SERVICE below 1024";
            Finding::warning("server", words, remedy)
        }
        _ => Finding::failure("server", words, "choose an address that this machine has"),
    }
}
