//! Asks every master what it is and every ensemble whom it elected, and reads the cluster as `run`
//! would.

use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::timeout;

use crate::cluster::Numbered;
use crate::config::{Config, Watch as Watching};
use crate::diagnosis::{self, Cluster, Standing};
use crate::findings::{Finding, count};
use crate::masters::{Base, MasterError, Masters, ReadError, Role, Whole};
use crate::report::chain;
use crate::resolve::Resolver;
use crate::snapshot::Snapshot;
use crate::watch::{Reading, Watch};
use crate::zookeeper::Detected;

/// For the cluster's whole state: nobody who checks waits longer.
const READ_LIMIT: Duration = Duration::from_secs(120);

/// The masters and their elections, and what the leader tells of the cluster.
pub async fn canvass(config: &Config) -> (Vec<Finding>, Option<Snapshot>) {
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
    let mut watch =
        Watch::new(config.rules.clone(), Numbered::Told(masters.endpoints()), Duration::ZERO);
    let mut names = watch.host_names();
    names.extend(state.cluster.host_names());
    let hosts = Resolver::default().hosts_of(names).await;
    let events = Vec::new();
    watch.read(Reading { state, completeness, hold_left, hosts, events }).0
}
