//! Follows the election of the masters in ZooKeeper: connects to any server of the ensemble, reads
//! the candidates' nodes, watches for changes, and goes on for ever. What was read last stays
//! known while nobody answers.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tracing::{info, warn};
use zeroize::Zeroizing;
use zookeeper_client::{Client, Error, OneshotWatcher, SessionState};

use crate::config::Ensemble;
use crate::election::{Candidate, Elected, candidates, elect};
use crate::report::chain;

/// Asked of the server: for how long a session outlives its connection.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// To connect, and of silence of a server that is pinged meanwhile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For a whole reading. The client gives a session up after 7/5 of its timeout without a server,
/// which is told as what it is only if nothing here ends before.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the nodes are read although no watch has fired: a right may have been given, or a
/// watch lost.
pub(crate) const REREAD: Duration = Duration::from_secs(60);

/// Between two sessions: the first pause, and the longest that it grows to.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(500);
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What is known of an election.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Detected {
    /// Whom the nodes elected when they were last read; none until the first time.
    pub elected: Option<Elected>,
    /// Why that is not to be relied on; none while it is as ZooKeeper has it now.
    pub trouble: Option<Trouble>,
}

/// Why an election cannot be followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Trouble {
    #[error("no contact with any of its servers")]
    Unreachable,
    /// Nobody is elected then: a master makes the node when it starts.
    #[error("there is no such node; waiting for a master to make it")]
    Absent,
    #[error("not everybody may read the node: give zk_auth_file")]
    Anonymous,
    #[error("the user of zk_auth_file may not read the node")]
    Forbidden,
    #[error("it does not accept what zk_auth_file holds")]
    Refused,
    #[error("the session failed")]
    Session(#[source] Error),
}

/// The candidates and the data of their nodes, none where it may not be read.
type Nodes = Vec<(Candidate, Option<Vec<u8>>)>;

/// Publishes to `to` whom the masters elect, from the first reading on, whenever it changes. Ends
/// only by being dropped. `auth` is `user:password` for the digest scheme.
pub async fn follow(
    ensemble: Ensemble,
    auth: Option<Zeroizing<String>>,
    to: watch::Sender<Detected>,
) -> Infallible {
    let mut follower = Follower { ensemble, auth, to, pause: PAUSE_MIN };
    loop {
        let Err(error) = follower.session().await;
        follower.fail(error);
        tokio::time::sleep(follower.pause).await;
        follower.pause = PAUSE_MAX.min(follower.pause * 2);
    }
}

struct Follower {
    ensemble: Ensemble,
    auth: Option<Zeroizing<String>>,
    to: watch::Sender<Detected>,
    pause: Duration,
}

impl Follower {
    /// One session, until it fails.
    async fn session(&mut self) -> Result<Infallible, Error> {
        let client = connect(&self.ensemble, self.auth.as_ref()).await?;
        let mut state = client.state_watcher();
        loop {
            let (nodes, watcher) = bounded(watch_nodes(&client, &self.ensemble.path)).await?;
            self.publish(nodes);
            let mut fired = pin!(watcher.changed());
            loop {
                tokio::select! {
                    // Also when the session has ended, which the next reading will say.
                    _ = &mut fired => break,
                    now = state.changed() => if now != SessionState::SyncConnected {
                        self.fail(Error::ConnectionLoss);
                        continue;
                    },
                    () = tokio::time::sleep(REREAD) => {}
                }
                // The watch outlives this: servers before 3.5 end the session of who removes one.
                let nodes = bounded(read_nodes(&client, &self.ensemble.path)).await?;
                self.publish(nodes);
            }
        }
    }

    fn publish(&mut self, nodes: Option<Nodes>) {
        self.pause = PAUSE_MIN;
        let trouble = nodes.is_none().then_some(Trouble::Absent);
        let elected = Some(elect(&nodes.unwrap_or_default()));
        self.tell(Detected { elected, trouble });
    }

    /// Keeps what was read last.
    fn fail(&self, error: Error) {
        let trouble = match error {
            error if is_out_of_reach(&error) => Trouble::Unreachable,
            Error::NoAuth if self.auth.is_none() => Trouble::Anonymous,
            Error::NoAuth => Trouble::Forbidden,
            Error::AuthFailed => Trouble::Refused,
            other => Trouble::Session(other),
        };
        let elected = self.to.borrow().elected.clone();
        self.tell(Detected { elected, trouble: Some(trouble) });
    }

    /// Publishes and logs what has changed; what has not is said once.
    fn tell(&self, new: Detected) {
        let old = self.to.borrow().clone();
        if new == old {
            return;
        }
        let ensemble = &self.ensemble;
        match &new.trouble {
            Some(trouble) if old.trouble.as_ref() != Some(trouble) => {
                warn!(
                    "[mesos] masters {ensemble}: {}; who led last is asked meanwhile",
                    chain(trouble)
                );
            }
            None if old.trouble.is_some() => info!("{ensemble}: read again"),
            _ => {}
        }
        if let Some(elected) = &new.elected {
            let before = old.elected.unwrap_or_default();
            for node in elected.unread.iter().filter(|node| !before.unread.contains(node)) {
                warn!(
                    "{ensemble}: the master's node {} cannot be read, and is left out: {}",
                    node.id, node.fault
                );
            }
            match &elected.leader {
                leader if *leader == before.leader => {}
                Some(leader) => info!("{ensemble}: {} leads", leader.authority(5050)),
                None => info!("{ensemble}: no master leads"),
            }
        }
        self.to.send_replace(new);
    }
}

/// A new session with any server of an ensemble.
pub(crate) async fn connect(
    ensemble: &Ensemble,
    auth: Option<&Zeroizing<String>>,
) -> Result<Client, Error> {
    let connector = Client::connector()
        .with_session_timeout(SESSION_TIMEOUT)
        .with_connection_timeout(CONNECT_TIMEOUT)
        .with_fail_eagerly();
    let connector = match auth {
        Some(auth) => connector.with_auth("digest", auth.as_bytes()),
        None => connector,
    };
    bounded(connector.connect(&ensemble.connect_string())).await
}

/// Whether an error says that nobody answers, or that nobody has for too long.
pub(crate) fn is_out_of_reach(error: &Error) -> bool {
    matches!(
        error,
        Error::NoHosts
            | Error::Timeout
            | Error::ConnectionLoss
            | Error::SessionExpired
            | Error::SessionMoved
            | Error::ClientClosed
            | Error::Custom(_)
    )
}

pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(READ_TIMEOUT, work).await.unwrap_or(Err(Error::Timeout))
}

/// The nodes, none where their parent is absent, and a watch on what they are now.
async fn watch_nodes(
    client: &Client,
    path: &str,
) -> Result<(Option<Nodes>, OneshotWatcher), Error> {
    loop {
        match client.get_and_watch_children(path).await {
            Ok((children, _, watcher)) => {
                if let Some(nodes) = data(client, path, children).await? {
                    return Ok((Some(nodes), watcher));
                }
            }
            Err(Error::NoNode) => {
                let (made_meanwhile, watcher) = client.check_and_watch_stat(path).await?;
                if made_meanwhile.is_none() {
                    return Ok((None, watcher));
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// The same without a watch.
async fn read_nodes(client: &Client, path: &str) -> Result<Option<Nodes>, Error> {
    loop {
        match client.get_children(path).await {
            Ok((children, _)) => {
                if let Some(nodes) = data(client, path, children).await? {
                    return Ok(Some(nodes));
                }
            }
            Err(Error::NoNode) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// What the candidates among the children hold; none if one of them has gone meanwhile.
async fn data(client: &Client, path: &str, children: Vec<String>) -> Result<Option<Nodes>, Error> {
    let candidates = candidates(children);
    let asked = candidates.iter().map(|one| client.get_data(&format!("{path}/{}", one.name)));
    let answers = join_all(asked).await;
    let mut nodes = Vec::with_capacity(candidates.len());
    for (candidate, answer) in candidates.into_iter().zip(answers) {
        match answer {
            Ok((data, _)) => nodes.push((candidate, Some(data))),
            Err(Error::NoAuth) => nodes.push((candidate, None)),
            Err(Error::NoNode) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(nodes))
}
