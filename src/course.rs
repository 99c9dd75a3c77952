//! Where the following of the masters stands: what was read, told and listed, and when what is to
//! be asked for next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::cluster::Hosts;
use crate::config;
use crate::events::Event;
use crate::live::Asks;
use crate::masters::{Base, MasterError, Masters, ReadError, Whole};
use crate::report::chain;
use crate::snapshot::{Completeness, Recovering, Snapshot};
use crate::state::State;
use crate::stream::{StreamError, Subscription};
use crate::watch::{Reading, Watch};

/// The first and the longest pause before masters that gave no state are asked again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// A stream that ended sooner is not asked for again at once: others may push us off.
const STREAM_AGE: Duration = Duration::from_secs(10);
/// The longest pause before a stream that keeps ending is asked for again.
const STREAM_BACK_OFF: Duration = Duration::from_secs(30);
/// The least time between two polls, or two whole readings, that events ask for.
const ASK_SPACING: Duration = Duration::from_secs(1);
/// The least time before everything is read again because of what is likely the same the next
/// time: a task that cannot be read is never told, and of many agents one comes after the other.
const UNTOLD_SPACING: Duration = Duration::from_secs(30);

/// A whole reading with the addresses of its host names.
pub(crate) type Read = Result<(Box<Whole>, Hosts), ReadError>;

/// What a poll listed.
pub(crate) struct Listed {
    pub(crate) agents: Result<State, MasterError>,
    /// None where they were not asked for, or may not be read.
    pub(crate) frameworks: Result<Option<State>, MasterError>,
}

pub(crate) struct Course<'c> {
    mesos: &'c config::Mesos,
    pub(crate) watch: Watch,
    pub(crate) leader: Option<Base>,
    /// Who leads by the election heard of last.
    elected: Option<Base>,
    pub(crate) stream: Option<Subscription>,
    stream_began: Instant,
    stream_pause: Duration,
    /// The stream is refused, and not asked for before.
    refused_until: Option<Instant>,
    /// What the refusal was, said once.
    refusal: Option<String>,
    /// When all is read next, and when agents are listed next.
    pub(crate) read_at: Instant,
    pub(crate) list_at: Instant,
    asked_at: Instant,
    /// Nothing asks for a reading sooner: the last one failed.
    not_before: Instant,
    pub(crate) list_frameworks: bool,
    /// Host names may be new, or old enough to be looked up again.
    pub(crate) resolve: bool,
    /// Why the masters give no state, and since when.
    pub(crate) trouble: Option<(Arc<str>, Instant)>,
    pause: Duration,
    list_fails: bool,
}

/// What is known when following begins, and what was when it ended.
pub struct Known {
    pub(crate) watch: Watch,
    leader: Option<Base>,
    trouble: Option<(Arc<str>, Instant)>,
}

impl Known {
    /// Nothing was read yet.
    pub fn of(watch: Watch) -> Known {
        Known { watch, leader: None, trouble: None }
    }
}

impl<'c> Course<'c> {
    pub(crate) fn new(mesos: &'c config::Mesos, known: Known) -> Course<'c> {
        let (now, Known { watch, leader, trouble }) = (Instant::now(), known);
        Course {
            mesos,
            watch,
            leader,
            elected: None,
            stream: None,
            stream_began: now,
            stream_pause: Duration::ZERO,
            refused_until: None,
            refusal: None,
            read_at: now,
            list_at: now,
            asked_at: now,
            not_before: now,
            list_frameworks: false,
            resolve: false,
            trouble,
            pause: BACK_OFF.0,
            list_fails: false,
        }
    }

    pub(crate) fn into_known(self) -> Known {
        Known { watch: self.watch, leader: self.leader, trouble: self.trouble }
    }

    /// Everything is asked for now; answers in which way.
    pub(crate) fn ask(&mut self) -> config::Watch {
        self.asked_at = Instant::now();
        match self.refused_until.is_some_and(|until| self.asked_at < until) {
            true => config::Watch::Poll,
            false => self.mesos.watch,
        }
    }

    /// Everything is to be read again, this long after it was asked for last.
    fn read_soon(&mut self, spacing: Duration) {
        let soon = (self.asked_at + spacing).max(self.not_before).max(Instant::now());
        self.read_at = self.read_at.min(soon);
    }

    /// Takes in a whole reading, with what its events told since.
    pub(crate) fn read(&mut self, read: Read, masters: &Masters) -> Option<Snapshot> {
        let now = Instant::now();
        let (mut whole, hosts) = match read {
            Ok(read) => read,
            Err(error) => {
                self.unread(&error, now);
                return None;
            }
        };
        let over = whole.subscription.as_ref().and_then(Subscription::over);
        if let (Some(_), Some(error)) = (&self.stream, over) {
            // The stream before it goes on, and may know more already.
            self.unread(&ReadError::behind(&whole.leader, error), now);
            return None;
        }
        self.pause = BACK_OFF.0;
        if let Some((_, since)) = self.trouble.take() {
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
            self.list_frameworks = false;
        }
        if !whole.hold_left.is_zero() {
            next = next.min(whole.hold_left.max(ASK_SPACING));
        }
        self.read_at = now + next;
        let events = whole.subscription.as_mut().map(Subscription::take).unwrap_or_default();
        self.stream = whole.subscription;
        let before = (self.watch.cluster().master_id.clone(), self.watch.completeness());
        let (state, completeness, hold_left) = (whole.state, whole.completeness, whole.hold_left);
        let (snapshot, asks) = tokio::task::block_in_place(|| {
            self.watch.know(masters.endpoints());
            self.watch.read(Reading { state, completeness, hold_left, hosts, events })
        });
        self.take_up(asks);
        let same = before == (snapshot.cluster.master_id.clone(), completeness);
        say(&snapshot, &whole.leader, same && self.leader.is_some());
        self.leader = Some(whole.leader);
        Some(snapshot)
    }

    /// Whether an election tells of another leader than it told before: that one is read at once.
    pub(crate) fn is_overtaken(&mut self, masters: &Masters) -> bool {
        let Some(leader) = masters.elected_leader() else { return false };
        let before = self.elected.replace(leader.clone());
        let overtaken = before.is_some_and(|before| before != leader);
        if overtaken {
            self.read_at = Instant::now();
        }
        overtaken
    }

    /// Who else stands for election is in the names that number the masters.
    pub(crate) fn elected(&mut self, masters: &Masters) -> Option<Snapshot> {
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
        self.not_before = now + self.pause;
        self.read_at = self.not_before;
        self.pause = (self.pause * 2).min(BACK_OFF.1);
        if self.trouble.is_none() {
            let meanwhile = match (&self.stream, self.watch.has_read()) {
                (Some(_), _) => "the event stream goes on",
                (None, true) => "the last snapshot stays",
                (None, false) => "nothing was read yet: the zones stay as they are",
            };
            warn!("{text}; {meanwhile}");
        }
        let since = self.trouble.as_ref().map_or(now, |(_, since)| *since);
        self.trouble = Some((text.into(), since));
    }

    /// Takes in events, or the end of the stream.
    pub(crate) fn told(&mut self, told: Result<Vec<Event>, StreamError>) -> Option<Snapshot> {
        match told {
            Ok(events) => Some(self.tell(events)),
            Err(error) => {
                self.broken(&error);
                None
            }
        }
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
                let (kind, id, fault) = (unread.kind, &unread.id, &unread.fault);
                debug!("an event cannot be read: {kind} {id:?}: {fault}");
            }
        }
        let (snapshot, asks) = self.watch.tell(events);
        self.take_up(asks);
        self.settled(&snapshot);
        snapshot
    }

    fn take_up(&mut self, asks: Asks) {
        self.resolve |= asks >= Asks::Hosts;
        match asks {
            Asks::Nothing | Asks::Hosts => {}
            Asks::Frameworks => {
                self.list_frameworks = true;
                self.list_at = self.list_at.min(Instant::now() + ASK_SPACING);
            }
            Asks::Back | Asks::Untold => self.read_soon(UNTOLD_SPACING),
            Asks::Everything => self.read_soon(ASK_SPACING),
        }
    }

    /// A poll is asked for now; answers of whom, and whether of frameworks as well.
    pub(crate) fn poll(&mut self) -> Option<(Base, bool)> {
        self.list_at = Instant::now() + self.mesos.poll_interval;
        self.watch.poll();
        Some((self.leader.clone()?, std::mem::take(&mut self.list_frameworks)))
    }

    pub(crate) fn list(&mut self, listed: Listed) -> Snapshot {
        let Listed { agents, frameworks } = listed;
        match &agents {
            Ok(_) if std::mem::take(&mut self.list_fails) => info!("the agents are listed again"),
            Ok(_) => {}
            Err(error) => {
                if !self.list_fails {
                    warn!("the agents cannot be listed: {}; the stream goes on", chain(error));
                }
                self.list_fails = true;
                // The stream may be of a master that is gone, without having been told.
                if !matches!(error, MasterError::Status(status) if status.is_client_error()) {
                    self.read_soon(UNTOLD_SPACING);
                }
            }
        }
        self.list_frameworks |= frameworks.is_err();
        self.resolve = true;
        let frameworks = frameworks.as_ref().ok().and_then(Option::as_ref);
        let (snapshot, asks) = self.watch.list(agents.as_ref().ok(), frameworks);
        self.take_up(asks);
        self.settled(&snapshot);
        snapshot
    }

    /// When the last agent is back, a whole reading tells which of its tasks are not.
    fn settled(&mut self, snapshot: &Snapshot) {
        if snapshot.completeness == Completeness::Recovering(Recovering::Agents(0)) {
            self.read_soon(ASK_SPACING);
        }
    }
}

/// One line when something about the cluster is new.
fn say(snapshot: &Snapshot, leader: &Base, same: bool) {
    let tasks = snapshot.cluster.tasks.len();
    if same {
        debug!(tasks, "state read from {leader}");
        return;
    }
    let records = snapshot.record_count();
    let skipped = snapshot.skipped.len() + snapshot.unread.len();
    match snapshot.completeness {
        Completeness::Complete => info!(tasks, records, skipped, "state read from {leader}"),
        Completeness::Recovering(why) => {
            warn!(tasks, records, skipped, "state read from {leader}: {why}; nothing is removed");
        }
    }
}
