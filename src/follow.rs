//! Follows the masters: reads all there is, takes in the events that go on from there, polls what
//! they never tell, and reads all again. Start, reconnection and reconciliation are one: a new
//! reading that, once whole, takes the place of what was before.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::cluster::{Hosts, Numbered};
use crate::config::{self, Config};
use crate::events::Event;
use crate::live::Asks;
use crate::masters::{Base, MasterError, Masters, ReadError, Whole};
use crate::report::chain;
use crate::resolve::Resolver;
use crate::snapshot::{Completeness, Recovering, Snapshot};
use crate::state::State;
use crate::stream::{StreamError, Subscription};
use crate::watch::Watch;
use crate::zookeeper::Detected;

/// The first and the longest pause before masters that gave no state are asked again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// A stream that ended sooner is not asked for again at once: others may push us off.
const STREAM_AGE: Duration = Duration::from_secs(10);
/// The longest pause before a stream that keeps ending is asked for again.
const STREAM_BACK_OFF: Duration = Duration::from_secs(30);
/// The least time between two polls, or two whole readings, that events ask for.
const ASK_SPACING: Duration = Duration::from_secs(1);
/// The least time before everything is read again because of a task that was never told: one that
/// cannot be read is not told the next time either.
const UNTOLD_SPACING: Duration = Duration::from_secs(30);

type Publisher = watch::Sender<Option<Arc<Snapshot>>>;

type Waiting<'f, T> = Option<Pin<Box<dyn Future<Output = T> + Send + 'f>>>;

/// What a poll listed: the agents and, where asked for, the frameworks.
type Listed = Result<Box<(State, Option<State>)>, MasterError>;

enum Happened {
    Read(Result<(Box<Whole>, Hosts), ReadError>),
    Told(Result<Vec<Event>, StreamError>),
    Listed(Listed),
    Resolved(Hosts),
    /// An election tells something new.
    Elected,
    ReadTime,
    ListTime,
    Stopped,
}

/// Follows until `stop` turns true. A failure keeps the last good snapshot.
pub async fn follow(
    config: &Config,
    masters: Masters,
    publisher: Publisher,
    mut stop: watch::Receiver<bool>,
) {
    let (mesos, resolver) = (&config.mesos, Resolver::default());
    let mut course =
        Course::new(mesos, Watch::new(config.rules.clone(), Numbered::Told(masters.endpoints())));
    let mut reading: Waiting<'_, _> = None;
    let mut listing: Waiting<'_, Listed> = None;
    let mut resolving: Waiting<'_, Hosts> = None;
    let (masters, resolver) = (&masters, &resolver);
    let mut elections = masters.elections();
    loop {
        let (idle, listed) = (reading.is_none(), listing.is_none() && course.stream.is_some());
        let happened = tokio::select! {
            () = stopped(&mut stop) => Happened::Stopped,
            told = next(&mut course.stream) => Happened::Told(told),
            read = finished(&mut reading) => Happened::Read(read),
            listed = finished(&mut listing) => Happened::Listed(listed),
            hosts = finished(&mut resolving) => Happened::Resolved(hosts),
            () = elected(&mut elections) => Happened::Elected,
            () = sleep_until(course.read_at), if idle => Happened::ReadTime,
            () = sleep_until(course.list_at), if listed => Happened::ListTime,
        };
        let snapshot = match happened {
            Happened::Stopped => return,
            Happened::Told(Ok(events)) => Some(course.tell(events)),
            Happened::Told(Err(error)) => {
                course.broken(&error);
                None
            }
            Happened::Elected => {
                if course.is_overtaken(masters) {
                    // What is being read now comes from who led before.
                    reading = None;
                }
                course.elected(masters)
            }
            Happened::Read(read) => course.read(read, masters),
            Happened::Listed(listed) => course.list(listed),
            Happened::Resolved(hosts) => Some(course.resolved(hosts)),
            Happened::ReadTime => {
                let (by, known) = (course.way(), course.watch.cluster().clone());
                let names = course.watch.host_names(&known);
                reading = Some(Box::pin(async move {
                    let whole = masters.read(by).await?;
                    let mut names = names;
                    names.extend(whole.state.cluster.host_names());
                    let hosts = resolver.hosts_of(names).await;
                    Ok((Box::new(whole), hosts))
                }));
                None
            }
            Happened::ListTime => {
                listing = course.leader.clone().map(|leader| {
                    let frameworks = std::mem::take(&mut course.list_frameworks);
                    let listed: Pin<Box<dyn Future<Output = Listed> + Send>> =
                        Box::pin(list(masters, leader, frameworks));
                    listed
                });
                course.list_at = Instant::now() + mesos.poll_interval;
                None
            }
        };
        if std::mem::take(&mut course.stale) && listing.take().is_some() {
            // Whether frameworks were to be listed is forgotten with it.
            course.list_frameworks = course.stream.is_some();
        }
        if std::mem::take(&mut course.resolve) && resolving.is_none() {
            let names = course.watch.host_names(course.watch.cluster());
            if !names.is_empty() {
                resolving = Some(Box::pin(resolver.hosts_of(names)));
            }
        }
        if let Some(snapshot) = snapshot {
            publish(&publisher, snapshot);
        }
    }
}

/// Where the following stands.
struct Course<'c> {
    mesos: &'c config::Mesos,
    watch: Watch,
    leader: Option<Base>,
    stream: Option<Subscription>,
    stream_began: Instant,
    stream_pause: Duration,
    /// The stream is refused, and not asked for before.
    refused_until: Option<Instant>,
    /// What the refusal was, said once.
    refusal: Option<String>,
    /// When all is read next, and when agents are listed next.
    read_at: Instant,
    list_at: Instant,
    last_read: Instant,
    list_frameworks: bool,
    /// What is being listed now was asked for before something newer was told.
    stale: bool,
    /// Host names may be new, or old enough to be looked up again.
    resolve: bool,
    failing_since: Option<Instant>,
    pause: Duration,
    list_fails: bool,
}

impl<'c> Course<'c> {
    fn new(mesos: &'c config::Mesos, watch: Watch) -> Course<'c> {
        let now = Instant::now();
        Course {
            mesos,
            watch,
            leader: None,
            stream: None,
            stream_began: now,
            stream_pause: Duration::ZERO,
            refused_until: None,
            refusal: None,
            read_at: now,
            list_at: now,
            last_read: now,
            list_frameworks: false,
            stale: false,
            resolve: false,
            failing_since: None,
            pause: BACK_OFF.0,
            list_fails: false,
        }
    }

    fn way(&self) -> config::Watch {
        match self.refused_until.is_some_and(|until| Instant::now() < until) {
            true => config::Watch::Poll,
            false => self.mesos.watch,
        }
    }

    fn read(
        &mut self,
        read: Result<(Box<Whole>, Hosts), ReadError>,
        masters: &Masters,
    ) -> Option<Snapshot> {
        let now = Instant::now();
        let (whole, hosts) = match read {
            Ok(read) => read,
            Err(error) => {
                self.unread(&error, now);
                return None;
            }
        };
        self.pause = BACK_OFF.0;
        if let Some(since) = self.failing_since.take() {
            info!("masters answer again after {} s", since.elapsed().as_secs());
        }
        let mut next = self.mesos.poll_interval;
        if whole.subscription.is_some() {
            next = self.mesos.reconcile_interval;
            if self.refusal.take().is_some() {
                info!("the event stream is open to us again");
            }
            self.refused_until = None;
            self.stream_began = now;
            self.list_at = now + self.mesos.poll_interval;
        }
        let before = (self.watch.cluster().master_id.clone(), self.watch.completeness());
        if !whole.completeness.is_complete() && !whole.hold_left.is_zero() {
            next = next.min(whole.hold_left.max(ASK_SPACING));
        }
        (self.last_read, self.read_at) = (now, now + next);
        self.stale = true;
        self.stream = whole.subscription;
        let (state, completeness) = (whole.state, whole.completeness);
        let snapshot = tokio::task::block_in_place(|| {
            self.watch.know(masters.endpoints());
            self.watch.read(state, completeness, hosts)
        });
        let same = before == (snapshot.cluster.master_id.clone(), completeness);
        say(&snapshot, &whole.leader, same && self.leader.is_some());
        self.leader = Some(whole.leader);
        Some(snapshot)
    }

    /// Whether an election tells of another leader than the one that is followed: it is read at
    /// once.
    fn is_overtaken(&mut self, masters: &Masters) -> bool {
        let leader = masters.elected_leader();
        let overtaken = leader.is_some() && leader != self.leader;
        if overtaken {
            self.read_at = Instant::now();
        }
        overtaken
    }

    /// Who else stands for election is in the names that number the masters.
    fn elected(&mut self, masters: &Masters) -> Option<Snapshot> {
        // Before the first reading there is nothing to publish.
        self.leader.as_ref()?;
        self.watch.know(masters.endpoints())
    }

    /// Nobody gave the state.
    fn unread(&mut self, error: &ReadError, now: Instant) {
        let text = chain(error);
        if let ReadError::Refused(..) = error {
            if self.refusal.as_ref() != Some(&text) {
                let every = self.mesos.poll_interval.as_secs_f64();
                warn!("{text}; the state is polled instead, every {every} s");
            }
            self.refusal = Some(text);
            self.refused_until = Some(now + self.mesos.reconcile_interval);
            self.read_at = now;
            return;
        }
        self.read_at = now + self.pause;
        self.pause = (self.pause * 2).min(BACK_OFF.1);
        if self.failing_since.is_none() {
            match &self.stream {
                None => warn!("{text}; the last snapshot stays"),
                Some(_) => warn!("{text}; the event stream goes on"),
            }
        }
        self.failing_since.get_or_insert(now);
    }

    /// The stream is over: subscribe again.
    fn broken(&mut self, error: &StreamError) {
        let (now, text) = (Instant::now(), chain(error));
        self.stream = None;
        let old = now - self.stream_began >= STREAM_AGE;
        self.stream_pause = match old {
            true => Duration::ZERO,
            false => (self.stream_pause * 2).clamp(BACK_OFF.0, STREAM_BACK_OFF),
        };
        self.read_at = self.read_at.min(now + self.stream_pause);
        let leader = self.leader.as_ref().map(Base::to_string).unwrap_or_default();
        info!("the event stream of {leader} is over: {text}; subscribing again");
    }

    fn tell(&mut self, events: Vec<Event>) -> Snapshot {
        for event in &events {
            if let Event::Unread(unread) = event {
                debug!(
                    "an event cannot be read: {} {:?}: {}",
                    unread.kind, unread.id, unread.fault
                );
            }
        }
        let now = Instant::now();
        let (snapshot, asks) = self.watch.tell(events);
        match asks {
            Asks::Nothing => {}
            Asks::Hosts => {
                self.resolve = true;
                self.stale = true;
            }
            Asks::Frameworks => {
                self.resolve = true;
                self.stale = true;
                self.list_frameworks = true;
                self.list_at = self.list_at.min(now + ASK_SPACING);
            }
            Asks::Everything => self.read_at = self.read_at.min(self.last_read + UNTOLD_SPACING),
        }
        self.settled(&snapshot);
        snapshot
    }

    fn list(&mut self, listed: Listed) -> Option<Snapshot> {
        match listed {
            Ok(listed) => {
                let (agents, frameworks) = *listed;
                self.list_fails = false;
                self.resolve = true;
                let snapshot = self.watch.list(&agents, frameworks.as_ref());
                self.settled(&snapshot);
                Some(snapshot)
            }
            Err(error) => {
                if !self.list_fails {
                    warn!("the agents cannot be listed: {}; the stream goes on", chain(&error));
                }
                self.list_fails = true;
                None
            }
        }
    }

    fn resolved(&mut self, hosts: Hosts) -> Snapshot {
        self.watch.resolve(self.watch.cluster().clone(), hosts)
    }

    /// When the last agent is back, a whole reading tells which of its tasks are not.
    fn settled(&mut self, snapshot: &Snapshot) {
        if snapshot.completeness == Completeness::Recovering(Recovering::Agents(0)) {
            self.read_at = self.read_at.min(self.last_read + ASK_SPACING);
        }
    }
}

async fn list(masters: &Masters, leader: Base, frameworks: bool) -> Listed {
    let agents = masters.agents(&leader).await?;
    let frameworks = match frameworks {
        true => masters.frameworks(&leader).await?,
        false => None,
    };
    Ok(Box::new((agents, frameworks)))
}

/// What is waited for, once there is something.
async fn finished<T>(waiting: &mut Waiting<'_, T>) -> T {
    match waiting {
        None => pending().await,
        Some(future) => {
            let done = future.await;
            *waiting = None;
            done
        }
    }
}

async fn elected(elections: &mut [watch::Receiver<Detected>]) {
    if elections.is_empty() {
        return pending().await;
    }
    let changed = elections.iter_mut().map(|election| Box::pin(election.changed()));
    // Whoever follows the elections lives as long as the masters.
    let _ = futures_util::future::select_all(changed).await;
}

async fn next(stream: &mut Option<Subscription>) -> Result<Vec<Event>, StreamError> {
    match stream {
        Some(stream) => stream.next().await,
        None => pending().await,
    }
}

/// Wakes those who follow the snapshots only for one that says something new.
fn publish(publisher: &Publisher, snapshot: Snapshot) {
    publisher.send_if_modified(|latest| {
        let new = latest.as_ref().is_none_or(|latest| !latest.says_the_same(&snapshot));
        *latest = Some(Arc::new(snapshot));
        new
    });
}

/// One line when something about the cluster is new.
fn say(snapshot: &Snapshot, leader: &Base, same: bool) {
    let tasks = snapshot.cluster.tasks.len();
    if same {
        debug!(tasks, "state read from {leader}");
        return;
    }
    let records = snapshot.zone.record_count();
    let skipped = snapshot.skipped.len() + snapshot.unread.len();
    match snapshot.completeness {
        Completeness::Complete => info!(tasks, records, skipped, "state read from {leader}"),
        Completeness::Recovering(why) => {
            warn!(tasks, records, skipped, "state read from {leader}: {why}; nothing is removed");
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}
