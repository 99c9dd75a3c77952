//! `mesozone check`: looks at everything that `run` needs, and changes nothing anywhere.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::timeout;

use crate::canvass;
use crate::cluster::{Endpoint, Host};
use crate::config::{self, Auth, Config, Election, Secret};
use crate::connection::{ConnectionError, now, random};
use crate::diagnosis::{self, About, Inspected, Trouble};
use crate::fence::Instance;
use crate::findings::{Finding, count};
use crate::inspect::{self, Inspection};
use crate::name::Name;
use crate::report::chain;
use crate::scope::Foreign;
use crate::secret::{self, Keys};
use crate::server::{BindError, Bound};
use crate::snapshot::Snapshot;
use crate::target::{Cause, Target};
use crate::tls::Tls;
use crate::tsig::TsigError;
use crate::zone::Zone;
use crate::zookeeper;

/// For a whole zone.
const TRANSFER_LIMIT: Duration = Duration::from_secs(120);

/// Looks at everything; `tell` gets the findings in their order, as soon as they are known.
pub async fn check<E>(
    path: &Path,
    config: &Config,
    mut tell: impl FnMut(Vec<Finding>) -> Result<(), E>,
) -> Result<(), E> {
    tell(configuration(path, config))?;
    if let Some(election) = &config.election {
        tell(vec![candidacy(election).await])?;
    }
    let inspected = join_all(config.targets.iter().map(inspect));
    let masters = async {
        let (found, snapshot) = canvass::canvass(config).await;
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
    if let Some(http) = &config.http {
        tell(heard(http))?;
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
    parts.extend(config.http.as_ref().map(|_| "HTTP".to_owned()));
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

/// Whether a session can be had where `run` stands for election.
async fn candidacy(election: &Election) -> Finding {
    let about = format!("[ha] election {}", election.ensemble);
    let auth = match election.auth.as_ref().map(secret::pair).transpose() {
        Ok(auth) => auth,
        Err(error) => {
            return Finding::failure(about, chain(&error), "name a file that holds user:password");
        }
    };
    match zookeeper::connect(&election.ensemble, auth.as_ref()).await {
        Ok(_) => Finding::well(about, "ZooKeeper answers"),
        Err(error) => {
            let text = format!("no session: {error}");
            Finding::failure(about, text, "see that the ensemble runs, and election_auth_file")
        }
    }
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
    let election = config.election.as_ref().and_then(|election| election.auth.as_ref());
    let election = election.map(|secret| ("[ha] election_auth".to_owned(), secret));
    let transfer = config.server.as_ref().and_then(|server| server.transfer.as_ref()?.key.as_ref());
    let transfer = transfer.map(|secret| ("[server] transfer".to_owned(), secret));
    let token = config.http.as_ref().and_then(|http| http.token.as_ref());
    let token = token.map(|secret| ("[http] token".to_owned(), secret));
    let others = auth.into_iter().chain(zk_auth).chain(election).chain(transfer).chain(token);
    let mut all: Vec<(String, &Secret)> = others.chain(keys).collect();
    let mut seen = Vec::new();
    all.retain(|(_, secret)| {
        !seen.contains(secret) && {
            seen.push(*secret);
            true
        }
    });
    all
}

/// A target whose name server was asked.
struct Seen {
    keys: (Keys, Option<Tls>),
    fence: Name,
    answers: Result<Inspected, Trouble>,
}

async fn inspect(target: &config::Target) -> Result<Seen, Finding> {
    let about = || format!("target {}", target.name);
    let keys = secret::keys(target).map_err(|error| {
        Finding::failure(about(), chain(&error), "give it a key as `tsig-keygen` writes it")
    })?;
    let fence = target.scope.fence_name().map_err(|error| {
        let text = format!("no room for the fence's name: {error}");
        Finding::failure(about(), text, "choose a shorter domain")
    })?;
    let tls = target.tls.as_ref().map(Tls::new).transpose().map_err(|error| {
        let text = chain(&error);
        Finding::failure(about(), text, "name a file of PEM certificates as ca_file")
    })?;
    let keys = (keys, tls);
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
        update_key: seen.keys.0.update.name(),
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
    let zone = snapshot.map_or(&nothing, |snapshot| snapshot.zone_of(&target.scope.zone));
    let transferred = transfer(target, seen.keys.clone(), zone).await;
    match transferred.map(|reached| (reached.view().cloned(), reached)) {
        Ok((Some(view), mut reached)) => {
            // A question may have been answered from a wildcard.
            let answers = Inspected { fence: Ok(view.fence.clone()), ..answers };
            let mut found = diagnosis::inspected(&about, &answers, now());
            let plan = snapshot.map(|snapshot| reached.plan(snapshot, &[]));
            found.extend(diagnosis::transferred(&about, &view, plan.as_ref()));
            found.extend(desired(&about, snapshot, &view.foreign));
            found
        }
        Ok((None, _)) => diagnosis::inspected(&about, &answers, now()),
        Err(words) => {
            let mut found = diagnosis::inspected(&about, &answers, now());
            found.push(diagnosis::no_transfer(&about, &words));
            found.extend(desired(&about, snapshot, &Foreign::default()));
            found
        }
    }
}

fn desired(about: &About<'_>, snapshot: Option<&Snapshot>, foreign: &Foreign) -> Vec<Finding> {
    snapshot
        .map_or_else(Vec::new, |s| diagnosis::desired(about, s.zone_of(&about.scope.zone), foreign))
}

async fn transfer(
    target: &config::Target,
    keys: (Keys, Option<Tls>),
    zone: &Zone,
) -> Result<Target, String> {
    let opened = Target::new(target.clone(), keys, Instance(random()));
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
    let mut found = match Bound::bind(&server.listen) {
        Ok(bound) => {
            let free = |at: SocketAddr| Finding::well("server", format!("{at} is free"));
            bound.addresses().map(free).collect()
        }
        Err(error) => vec![taken(server, config, error).await],
    };
    let key = server.transfer.as_ref().and_then(|transfer| transfer.key.as_ref());
    if let Some(Err(error)) = key.map(secret::key) {
        let remedy = "give it a key as `tsig-keygen` writes it";
        found.push(Finding::failure("[server] transfer", chain(&error), remedy));
    }
    found
}

/// Whether the token and the address of HTTP can be had.
fn heard(http: &config::Http) -> Vec<Finding> {
    let about = || format!("http {}", http.listen);
    let mut found = vec![match TcpListener::bind(http.listen) {
        Ok(_) => Finding::well(about(), "the address is free"),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let remedy = "nothing, if that is the `run` of this configuration";
            Finding::warning(about(), "the address is in use", remedy)
        }
        Err(error) => {
            let remedy = "choose another address to listen on";
            Finding::failure(about(), format!("cannot listen: {error}"), remedy)
        }
    }];
    let token = http.token.as_ref().map(secret::token);
    if let Some(Err(error)) = token {
        let remedy = "put a line into it that nobody guesses";
        found.push(Finding::failure("[http] token", chain(&error), remedy));
    }
    found
}

async fn taken(server: &config::Server, config: &Config, error: BindError) -> Finding {
    let words = chain(&error);
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
