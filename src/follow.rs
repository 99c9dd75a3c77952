//! Follows the masters: reads all there is, takes in the events that go on from there, polls what
//! they never tell, and reads all again. Start, reconnection and reconciliation are one: a new
//! reading that, once whole and caught up with, takes the place of what was before.

use std::collections::BTreeSet;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::Hosts;
use crate::config;
use crate::course::{Course, Known, Listed, Read};
use crate::events::Event;
use crate::masters::{Base, Masters};
use crate::metrics::Metrics;
use crate::resolve::Resolver;
use crate::snapshot::Snapshot;
use crate::stream::{StreamError, Subscription};
use crate::zookeeper::Detected;

/// For so long a new stream is heard before it takes the place of the old one, which is not heard
/// meanwhile: whatever the old one told has then come by the new one too.
const CATCH_UP: Duration = Duration::from_millis(20);

/// What the masters let us hear of themselves.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Hearing {
    /// When they told something last; none before the first time.
    pub at: Option<Instant>,
    /// Who led then.
    pub leader: Option<Base>,
    /// Whether it tells of changes as they happen.
    pub streams: bool,
    /// Why none of them gives its state, and since when.
    pub trouble: Option<(Arc<str>, Instant)>,
}

pub type Heard = watch::Receiver<Hearing>;

type InBox<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;
type Waiting<'f, T> = Option<InBox<'f, T>>;

fn in_box<'f, T>(future: impl Future<Output = T> + Send + 'f) -> InBox<'f, T> {
    Box::pin(future)
}

enum Happened {
    Read(Read),
    Told(Result<Vec<Event>, StreamError>),
    Listed(Box<Listed>),
    Resolved(Hosts),
    /// An election tells something new.
    Elected,
    ReadTime,
    ListTime,
    /// A name has stood long enough after its last task.
    Faded,
}

impl Happened {
    /// Counts what was told, and says whether a master told something.
    fn count(&self, metrics: &Metrics) -> bool {
        match self {
            Happened::Told(Ok(events)) => metrics.count_events(events),
            Happened::Read(Ok((whole, _))) if whole.subscription.is_some() => {
                metrics.count_event(Event::SUBSCRIBED);
            }
            _ => {}
        }
        match self {
            Happened::Read(read) => read.is_ok(),
            Happened::Told(told) => told.is_ok(),
            Happened::Listed(listed) => listed.agents.is_ok(),
            _ => false,
        }
    }
}

/// Where is told what is followed.
#[derive(Clone)]
pub struct Tells {
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub hearing: watch::Sender<Hearing>,
    pub metrics: Metrics,
}

/// Follows until `stop` turns true; what is known then is good for going on. A failure keeps the
/// last good snapshot.
pub async fn follow(
    mesos: &config::Mesos,
    masters: Masters,
    known: Known,
    tells: &Tells,
    mut stop: watch::Receiver<bool>,
) -> Known {
    let mut course = Course::new(mesos, known);
    let (resolver, held) = (Resolver::default(), AtomicBool::new(false));
    let (masters, resolver, held) = (&masters, &resolver, &held);
    let mut elections = masters.elections();
    let mut reading: Waiting<'_, Read> = None;
    let mut listing: Waiting<'_, Box<Listed>> = None;
    let mut resolving: Waiting<'_, Hosts> = None;
    loop {
        let (read, list) = (reading.is_none(), listing.is_none() && course.stream.is_some());
        let happened = tokio::select! {
            () = stopped(&mut stop) => return course.into_known(),
            told = next(&mut course.stream, held) => Happened::Told(told),
            read = finished(&mut reading) => Happened::Read(read),
            listed = finished(&mut listing) => Happened::Listed(listed),
            hosts = finished(&mut resolving) => Happened::Resolved(hosts),
            () = elected(&mut elections) => Happened::Elected,
            () = sleep_until(course.read_at), if read => Happened::ReadTime,
            () = sleep_until(course.list_at), if list => Happened::ListTime,
            () = lapse(course.watch.next_due()) => Happened::Faded,
        };
        let (happened_at, is_told) = (SystemTime::now(), happened.count(&tells.metrics));
        let snapshot = match happened {
            Happened::Told(told) => course.told(told),
            Happened::Elected => {
                if course.is_overtaken(masters) {
                    // What is being read now comes from who led before.
                    reading = None;
                    held.store(false, Ordering::Relaxed);
                }
                course.elected(masters)
            }
            Happened::Read(read) => {
                held.store(false, Ordering::Relaxed);
                if read.is_ok() {
                    // What is being listed is older.
                    listing = None;
                }
                course.read(read, masters)
            }
            Happened::Listed(listed) => Some(course.list(*listed)),
            Happened::Resolved(hosts) => Some(course.watch.resolve(hosts)),
            Happened::Faded => Some(course.watch.expire()),
            Happened::ReadTime => {
                let (by, names) = (course.ask(), course.watch.host_names());
                reading = Some(in_box(read_all(masters, by, resolver, names, held)));
                None
            }
            Happened::ListTime => {
                let ask = |(leader, all)| in_box(list_all(masters, leader, all));
                listing = course.poll().map(ask);
                None
            }
        };
        if course.resolve && resolving.is_none() {
            course.resolve = false;
            let names = Some(course.watch.host_names()).filter(|names| !names.is_empty());
            resolving = names.map(|names| in_box(resolver.hosts_of(names)));
        }
        // First: a snapshot of masters that are not known to be heard is believed less.
        tell_hearing(&tells.hearing, &course, is_told);
        if let Some(snapshot) = snapshot {
            publish(tells, snapshot, happened_at);
        }
    }
}

/// Reads everything, up to where the events that go on from it have caught up with those of the
/// stream before, which `held` stops for the last moment.
async fn read_all(
    masters: &Masters,
    by: config::Watch,
    resolver: &Resolver,
    mut names: BTreeSet<Arc<str>>,
    held: &AtomicBool,
) -> Read {
    let mut whole = Box::new(masters.read(by).await?);
    names.extend(whole.state.cluster.host_names());
    let lookup = resolver.hosts_of(names);
    let Some(subscription) = &mut whole.subscription else {
        let hosts = lookup.await;
        return Ok((whole, hosts));
    };
    let hosts = subscription.meanwhile(lookup).await;
    held.store(true, Ordering::Relaxed);
    subscription.meanwhile(sleep(CATCH_UP)).await;
    Ok((whole, hosts))
}

async fn list_all(masters: &Masters, leader: Base, frameworks: bool) -> Box<Listed> {
    let agents = masters.agents(&leader).await;
    let frameworks = match frameworks {
        true => masters.frameworks(&leader).await,
        false => Ok(None),
    };
    Box::new(Listed { agents, frameworks })
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

async fn lapse(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => pending().await,
    }
}

async fn elected(elections: &mut [watch::Receiver<Detected>]) {
    if elections.is_empty() {
        return pending().await;
    }
    let changed = elections.iter_mut().map(|election| {
        Box::pin(async {
            if election.changed().await.is_err() {
                // Nobody follows it any more: it tells nothing new.
                pending().await
            }
        })
    });
    futures_util::future::select_all(changed).await;
}

/// The next events, unless the stream is held.
async fn next(
    stream: &mut Option<Subscription>,
    held: &AtomicBool,
) -> Result<Vec<Event>, StreamError> {
    let Some(stream) = stream else { return pending().await };
    let mut told = pin!(stream.next());
    poll_fn(|context| match held.load(Ordering::Relaxed) {
        true => Poll::Pending,
        false => told.as_mut().poll(context),
    })
    .await
}

/// Wakes those who follow the snapshots only for one that says something new.
pub(crate) fn publish(tells: &Tells, mut snapshot: Snapshot, told_at: SystemTime) {
    tells.snapshots.send_if_modified(|latest| {
        let is_new = latest.as_ref().is_none_or(|latest| !latest.says_the_same(&snapshot));
        snapshot.told_at = told_at;
        if let Some(latest) = latest {
            if latest.cluster.master_id != snapshot.cluster.master_id {
                tells.metrics.leader_changes.inc();
            }
            if !is_new {
                snapshot.told_at = latest.told_at;
            }
        }
        *latest = Some(Arc::new(snapshot));
        is_new
    });
}

fn tell_hearing(hearing: &watch::Sender<Hearing>, course: &Course<'_>, is_told: bool) {
    hearing.send_if_modified(|hearing| {
        if is_told {
            hearing.at = Some(Instant::now());
        }
        hearing.streams = course.stream.is_some();
        // They seldom change, and events come by the thousand.
        if hearing.leader != course.leader {
            hearing.leader.clone_from(&course.leader);
        }
        hearing.trouble.clone_from(&course.trouble);
        // Nobody waits for it.
        false
    });
}

/// When `stop` turns true.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}
