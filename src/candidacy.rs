//! Stands for election in ZooKeeper among those of one owner, and goes on for ever. Each candidate
//! holds an ephemeral node with a number, and the lowest is elected. A session in trouble is given
//! up with all that it made, so that no node of ours that we do not know of stands in our way.

use std::convert::Infallible;
use std::fmt::Write;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use nix::unistd::gethostname;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use zeroize::Zeroizing;
use zookeeper_client::{Acl, Acls, Client, CreateMode, Error, Permission, SessionState};

use crate::config::Ensemble;
use crate::fence::Owner;
use crate::report::chain;
use crate::zookeeper::{PAUSE_MAX, PAUSE_MIN, REREAD, bounded, connect, is_out_of_reach};

/// For ZooKeeper to say that we are elected still.
const CONFIRM_LIMIT: Duration = Duration::from_secs(2);

/// For a session to be closed; one that is not runs out by itself.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Everybody may look who stands; who made a node may change it.
static OF_ONE_USER: [Acl; 2] = [
    Acl::new_const(Permission::ALL, "auth", ""),
    Acl::new_const(Permission::READ, "world", "anyone"),
];

/// How the election stands for this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Another is elected, or nothing is known yet.
    Waiting,
    /// We are, for this time since the process started. Nobody else is while our session lives.
    Elected(u64),
    /// We were. ZooKeeper has been out of reach for so long that another may be by now.
    CutOff,
}

/// Why this process cannot stand for election.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum Trouble {
    #[error("no contact with any of its servers")]
    Unreachable,
    #[error("not everybody may stand for election there: give election_auth_file")]
    Anonymous,
    #[error("the user of election_auth_file may not stand for election there")]
    Forbidden,
    #[error("it does not accept what election_auth_file holds")]
    Refused,
    #[error("the session failed")]
    Session(#[source] Error),
}

/// The election as those see it who wait to be elected.
#[derive(Clone)]
pub struct Candidacy {
    standing: watch::Receiver<Standing>,
    asks: mpsc::Sender<oneshot::Sender<()>>,
}

impl Candidacy {
    /// How it stands now; [`Candidacy::changed`] tells of what comes after.
    pub fn standing(&mut self) -> Standing {
        *self.standing.borrow_and_update()
    }

    pub async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            pending().await
        }
    }

    /// Whether we are elected, by the word of ZooKeeper and later than this was asked: a process
    /// that was stopped for a while knows only what was.
    pub async fn confirm(&self) -> bool {
        let (confirm, confirmed) = oneshot::channel();
        let asked = async {
            self.asks.send(confirm).await.ok()?;
            confirmed.await.ok()
        };
        timeout(CONFIRM_LIMIT, asked).await.ok().flatten().is_some()
    }
}

/// The end of a candidacy. Dropping it ends it as well, and waits for nothing.
pub struct Resignation {
    _sign: oneshot::Sender<Infallible>,
    standing: JoinHandle<()>,
}

impl Resignation {
    /// Has the next one elected at once, if ZooKeeper is there to hear of it.
    pub async fn hand_in(self) {
        let Resignation { _sign: sign, standing } = self;
        drop(sign);
        if let Err(panic) = standing.await {
            warn!("standing for election ended: {panic}");
        }
    }
}

/// Stands for election from now on. `auth` is `user:password` for the digest scheme, the only user
/// that may change the nodes then.
pub fn stand(
    ensemble: Ensemble,
    auth: Option<Zeroizing<String>>,
    owner: Owner,
) -> (Candidacy, Resignation) {
    let (publisher, standing) = watch::channel(Standing::Waiting);
    let (asks, asked) = mpsc::channel(16);
    let (sign, signed) = oneshot::channel::<Infallible>();
    let data = about_us(&owner).into_bytes();
    let mut candidate = Candidate {
        ensemble,
        auth,
        owner,
        data,
        standing: publisher,
        asked,
        client: None,
        wins: 0,
        told: None,
        trouble: None,
        pause: PAUSE_MIN,
    };
    let standing_for = tokio::spawn(async move {
        tokio::select! {
            // Nothing is ever sent: it is dropped.
            _ = signed => {}
            _ = candidate.stand() => {}
        }
        candidate.close().await;
    });
    let resignation = Resignation { _sign: sign, standing: standing_for };
    (Candidacy { standing, asks }, resignation)
}

/// What people read in our node.
fn about_us(owner: &Owner) -> String {
    let mut text = format!("mesozone {}", env!("CARGO_PKG_VERSION"));
    if let Ok(host) = gethostname() {
        // Writing to a string does not fail.
        let _ = write!(text, " on {}", host.to_string_lossy());
    }
    let _ = write!(text, ", process {}, owner {owner}", std::process::id());
    text
}

/// The lowest of an owner's nodes. Others may have theirs beside them.
fn lowest<'a>(children: &'a [String], owner: &Owner) -> Option<&'a str> {
    let prefix = format!("{owner}-");
    let number = |name: &str| {
        let digits = name.strip_prefix(&prefix)?;
        let is_number = digits.bytes().all(|octet| octet.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| is_number)
    };
    let numbered = children.iter().filter_map(|name| Some((number(name)?, name.as_str())));
    numbered.min().map(|(_, name)| name)
}

struct Candidate {
    ensemble: Ensemble,
    auth: Option<Zeroizing<String>>,
    owner: Owner,
    data: Vec<u8>,
    standing: watch::Sender<Standing>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    /// The session that we stand in.
    client: Option<Client>,
    wins: u64,
    /// Whose election was told last.
    told: Option<String>,
    trouble: Option<Trouble>,
    pause: Duration,
}

impl Candidate {
    async fn stand(&mut self) -> Infallible {
        loop {
            let Err(error) = self.session().await;
            self.client = None;
            self.fail(error);
            sleep(self.pause).await;
            self.pause = PAUSE_MAX.min(self.pause * 2);
        }
    }

    /// One session, until it fails.
    async fn session(&mut self) -> Result<Infallible, Error> {
        let client = connect(&self.ensemble, self.auth.as_ref()).await?;
        self.client = Some(client.clone());
        // What was won before was won in a session that is over.
        self.publish(Standing::Waiting);
        loop {
            let node = self.enter(&client).await?;
            self.pause = PAUSE_MIN;
            if self.trouble.take().is_some() {
                info!("{}: standing for election again", self.ensemble);
            }
            self.campaign(&client, &node).await?;
            self.publish(Standing::Waiting);
            let ensemble = &self.ensemble;
            warn!("{ensemble}: somebody removed our node {node}; standing for election anew");
        }
    }

    /// Makes our node, and its parents where they are missing. An answer that was lost ends the
    /// session, and with it a node that we do not know of.
    async fn enter(&self, client: &Client) -> Result<String, Error> {
        let acls = match self.auth {
            Some(_) => Acls::new(&OF_ONE_USER),
            None => Acls::anyone_all(),
        };
        let path = &self.ensemble.path;
        let prefix = format!("{path}/{}-", self.owner);
        let node = CreateMode::EphemeralSequential.with_acls(acls);
        loop {
            match bounded(client.create(&prefix, &self.data, &node)).await {
                Ok((_, number)) => return Ok(format!("{}-{number}", self.owner)),
                // Not made first: who may not make it may still find it.
                Err(Error::NoNode) => {
                    let parent = CreateMode::Persistent.with_acls(acls);
                    bounded(client.mkdir(path, &parent)).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Follows the election until our node is gone.
    async fn campaign(&mut self, client: &Client, node: &str) -> Result<(), Error> {
        let path = self.ensemble.path.clone();
        let mut state = client.state_watcher();
        loop {
            let (children, watcher) = match bounded(client.get_and_watch_children(&path)).await {
                Ok((children, _, watcher)) => (children, watcher),
                // The next waits for the connection, or is told that the session is over.
                Err(Error::ConnectionLoss) => continue,
                Err(Error::NoNode) => return Ok(()),
                Err(error) => return Err(error),
            };
            if !self.count(client, node, &children).await {
                return Ok(());
            }
            let mut fired = pin!(watcher.changed());
            loop {
                tokio::select! {
                    // Also when the session has ended, which the next listing will say.
                    _ = &mut fired => break,
                    now = state.changed() => if now == SessionState::Disconnected {
                        continue;
                    },
                    Some(confirm) = self.asked.recv() => {
                        self.confirm(client, node, confirm).await;
                        continue;
                    }
                    () = sleep(REREAD) => {}
                }
                // The watch outlives this: servers before 3.5 end the session of who removes one.
                match bounded(client.get_children(&path)).await {
                    Ok((children, _)) if self.count(client, node, &children).await => {}
                    Ok(_) | Err(Error::NoNode) => return Ok(()),
                    Err(Error::ConnectionLoss) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Publishes whom the nodes elect; false where ours is not among them.
    async fn count(&mut self, client: &Client, node: &str, children: &[String]) -> bool {
        if !children.iter().any(|child| child == node) {
            return false;
        }
        let elected = lowest(children, &self.owner).unwrap_or(node);
        if elected != node {
            self.publish(Standing::Waiting);
            self.tell_elected(client, elected).await;
        } else if !matches!(*self.standing.borrow(), Standing::Elected(_)) {
            self.wins += 1;
            self.told = None;
            info!("{}: elected", self.ensemble);
            self.publish(Standing::Elected(self.wins));
        }
        true
    }

    async fn tell_elected(&mut self, client: &Client, elected: &str) {
        if self.told.as_deref() == Some(elected) {
            return;
        }
        let path = format!("{}/{elected}", self.ensemble.path);
        let data = bounded(client.get_data(&path)).await.map(|(data, _)| data);
        // Only for people: a node may be gone by now, or not be ours to read.
        let who = data.map_or_else(
            |_| elected.to_owned(),
            |data| format!("{:?}", String::from_utf8_lossy(&data)),
        );
        info!("{}: another mesozone is elected; standing by. It is {who}", self.ensemble);
        self.told = Some(elected.to_owned());
    }

    /// Asks by a write, which no server can answer by what it remembers.
    async fn confirm(&self, client: &Client, node: &str, confirm: oneshot::Sender<()>) {
        let elected = matches!(*self.standing.borrow(), Standing::Elected(_));
        if confirm.is_closed() || !elected {
            return;
        }
        let path = format!("{}/{node}", self.ensemble.path);
        let written = timeout(CONFIRM_LIMIT, client.set_data(&path, &self.data, None)).await;
        if matches!(written, Ok(Ok(_))) {
            // Who asked waits no longer: nobody is to be told.
            let _ = confirm.send(());
        }
    }

    fn publish(&self, standing: Standing) {
        self.standing.send_if_modified(|last| std::mem::replace(last, standing) != standing);
    }

    /// Says what has changed; what has not is said once.
    fn fail(&mut self, error: Error) {
        let trouble = match error {
            error if is_out_of_reach(&error) => Trouble::Unreachable,
            Error::NoAuth | Error::InvalidAcl if self.auth.is_none() => Trouble::Anonymous,
            Error::NoAuth => Trouble::Forbidden,
            Error::AuthFailed => Trouble::Refused,
            other => Trouble::Session(other),
        };
        let elected = matches!(*self.standing.borrow(), Standing::Elected(_));
        if elected {
            self.publish(Standing::CutOff);
        }
        if self.trouble.as_ref() != Some(&trouble) {
            let until = match *self.standing.borrow() {
                Standing::CutOff => "publishing goes on while the fence is ours",
                Standing::Waiting | Standing::Elected(_) => "standing by",
            };
            warn!("[ha] election {}: {}; {until}", self.ensemble, chain(&trouble));
        }
        self.trouble = Some(trouble);
    }

    /// Closes the session, which removes its nodes.
    async fn close(&mut self) {
        let Some(client) = self.client.take() else { return };
        let mut state = client.state_watcher();
        drop(client);
        let closed = async { while !state.changed().await.is_terminated() {} };
        if timeout(CLOSE_LIMIT, closed).await.is_err() {
            info!("{}: not there to resign; the session runs out by itself", self.ensemble);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(children: &[&str], expected: Option<&str>) {
        let children: Vec<String> = children.iter().map(|child| child.to_string()).collect();
        assert_eq!(lowest(&children, &Owner::parse("a").unwrap()), expected);
    }

    #[test]
    fn the_lowest_number_of_an_owner_is_elected() {
        check(&[], None);
        check(&["a-0000000010", "a-0000000009"], Some("a-0000000009"));
        // Past 2^31 they grow longer.
        check(&["a-0000002147483648", "a-2147483647"], Some("a-2147483647"));
        for foreign in ["b-0000000001", "a-b-0000000001", "a-0-0000000001", "a", "a-", "a-+1"] {
            check(&[foreign, "a-0000000002"], Some("a-0000000002"));
        }
    }
}
