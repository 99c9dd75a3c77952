//! Everything that is known at one moment, for whoever looks: the page, the status in JSON, metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::fence::Adoption;
use crate::health::{Condition, Health, age};
use crate::held::HeldSet;
use crate::mesos::Unread;
use crate::name::Name;
use crate::plan::Refused;
use crate::records::{Skip, Subject};
use crate::snapshot::{Completeness, Snapshot};

/// So many of what was skipped are listed in the status; `mesozone records -v` lists all.
const SKIPPED_MAX: usize = 1_000;

/// One look at everything.
#[derive(Clone, Debug)]
pub struct Overview {
    pub now: SystemTime,
    /// How long ago a master told something last; none before the first time.
    pub heard_ago: Option<Duration>,
    /// The master that led then, as its URL.
    pub leader: Option<String>,
    /// Whether it tells of changes as they happen.
    pub streams: bool,
    /// Why no master gives its state, and for how long that is so.
    pub trouble: Option<(String, Duration)>,
    pub snapshot: Option<Arc<Snapshot>>,
    /// In the order of the configuration.
    pub targets: Vec<Health>,
    /// None where the bundled server is off.
    pub server: Option<ServerSeen>,
    pub approvals: Approvals,
}

/// Whether somebody could approve what is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Approvals {
    WithToken,
    /// No token is configured, so nothing can be written over HTTP.
    Off,
}

/// The bundled server as seen from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerSeen {
    pub listen: Vec<SocketAddr>,
    pub zones: Vec<Name>,
}

/// What was skipped for one reason.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SkippedGroup {
    pub count: usize,
    /// The first of them: what it is, and why in full.
    pub first: Vec<(String, String)>,
}

/// What makes no record, or fewer than it would.
enum Skipped<'s> {
    Thing(&'s Subject, &'s Skip),
    Unread(&'s Unread),
}

impl Skipped<'_> {
    /// What it is, and why.
    fn words(&self) -> (String, String) {
        match self {
            Skipped::Thing(subject, skip) => (subject.to_string(), skip.to_string()),
            Skipped::Unread(unread) => {
                (format!("{} {}", unread.kind, unread.id), unread.fault.clone())
            }
        }
    }
}

impl Overview {
    /// When the masters told what is desired now.
    pub fn told_at(&self) -> Option<SystemTime> {
        self.snapshot.as_ref().map(|snapshot| snapshot.told_at)
    }

    /// Each thing that makes no record, or fewer than it would: a word for the reason, and the thing
    /// and the reason in full, which are put into words only where they are shown.
    fn skips(&self) -> impl Iterator<Item = (&'static str, Skipped<'_>)> {
        let snapshot = self.snapshot.as_deref();
        let unread = snapshot.into_iter().flat_map(|snapshot| snapshot.unread.iter());
        let skipped = snapshot.into_iter().flat_map(|snapshot| snapshot.skipped.iter());
        let skipped = skipped.flat_map(|(subject, skips)| {
            skips.iter().map(move |skip| (skip.kind(), Skipped::Thing(subject, skip)))
        });
        unread.map(|unread| ("unread", Skipped::Unread(unread))).chain(skipped)
    }

    /// How many that are in all.
    pub fn skipped_count(&self) -> usize {
        self.skips().count()
    }

    /// They by the word for the reason, with the first `max` of each.
    pub fn skipped_groups(&self, max: usize) -> BTreeMap<&'static str, SkippedGroup> {
        let mut groups: BTreeMap<&'static str, SkippedGroup> = BTreeMap::new();
        for (word, skipped) in self.skips() {
            let group = groups.entry(word).or_default();
            group.count += 1;
            if group.first.len() < max {
                group.first.push(skipped.words());
            }
        }
        groups
    }

    /// Why the process is not ready; nothing when it is.
    pub fn unready(&self) -> Vec<String> {
        let mut why = Vec::new();
        if !self.snapshot.as_ref().is_some_and(|snapshot| snapshot.complete_once) {
            why.push("no whole snapshot is published yet".to_owned());
        }
        for health in self.targets.iter().filter(|health| !health.is_ready(self.now)) {
            let what = match &health.condition {
                Condition::Failing(since) => {
                    format!("failing for {} s", age(*since, self.now).as_secs())
                }
                _ => "nothing was published there yet".to_owned(),
            };
            why.push(format!("target {}: {what}", health.target));
        }
        why
    }

    /// In the shape of `/v1/status`.
    pub fn status(&self) -> Status {
        let snapshot = self.snapshot.as_deref();
        let skipped = self.skips().take(SKIPPED_MAX).map(|(_, skipped)| skipped.words());
        Status {
            version: env!("CARGO_PKG_VERSION"),
            ready: self.unready().is_empty(),
            mesos: self.mesos(),
            zone: ZoneStatus {
                records: snapshot.map_or(0, Snapshot::record_count),
                rrsets: snapshot.map_or(0, |snapshot| snapshot.zone.len()),
                told_unix: self.told_at().map(unix),
            },
            targets: self.targets.iter().map(|health| self.target(health)).collect(),
            server: self.server.as_ref().map(|server| ServerStatus {
                listen: server.listen.iter().map(ToString::to_string).collect(),
                zones: server.zones.iter().map(ToString::to_string).collect(),
            }),
            skipped: skipped.map(|(what, reason)| SkippedStatus { what, reason }).collect(),
            skipped_count: self.skipped_count(),
        }
    }

    fn mesos(&self) -> MesosStatus {
        let snapshot = self.snapshot.as_deref();
        let count = |count: fn(&Snapshot) -> usize| snapshot.map_or(0, count);
        MesosStatus {
            leader: self.leader.clone(),
            watch: if self.streams { "stream" } else { "poll" },
            heard_seconds_ago: self.heard_ago.map(|ago| ago.as_secs_f64()),
            complete: snapshot.is_some_and(|snapshot| snapshot.completeness.is_complete()),
            recovering: snapshot.and_then(|snapshot| match snapshot.completeness {
                Completeness::Recovering(why) => Some(why.to_string()),
                Completeness::Complete => None,
            }),
            error: self.trouble.as_ref().map(|(text, _)| text.clone()),
            error_seconds: self.trouble.as_ref().map(|(_, span)| span.as_secs()),
            agents: count(|snapshot| snapshot.cluster.agents.len()),
            frameworks: count(|snapshot| snapshot.cluster.frameworks.len()),
            tasks: count(|snapshot| snapshot.cluster.tasks.len()),
        }
    }

    fn target(&self, health: &Health) -> TargetStatus {
        let outlook = health.outlook.as_ref();
        let since = match health.condition {
            Condition::Failing(since) => Some(unix(since)),
            _ => None,
        };
        TargetStatus {
            name: health.target.clone(),
            server: health.server.clone(),
            zone: health.zone.to_string(),
            state: health.condition.word(),
            failing_since_unix: since,
            standing_by: match &health.condition {
                Condition::StandingBy(why) => Some(why.clone()),
                _ => None,
            },
            serial: outlook.map(|outlook| outlook.serial.0),
            adopted: outlook.map(|outlook| outlook.adoption == Adoption::Adopted),
            fence_held: health.holds_fence,
            lag_seconds: health.lag(self.told_at(), self.now).as_secs_f64(),
            changes: outlook.map_or(0, |outlook| outlook.changes.len()),
            held: health.held().iter().map(HeldStatus::of).collect(),
            held_records: health.held_count(),
            recovering_records: health.recovering_count(),
            quarantined: outlook.map_or_else(Vec::new, |outlook| {
                let refused = outlook.withheld.refused.iter();
                let one = |refused: &Refused| RefusedStatus {
                    name: refused.name.to_string(),
                    rcode: refused.rcode.to_string(),
                };
                refused.map(one).collect()
            }),
            not_ours: outlook.map_or(0, |outlook| outlook.withheld.blocked.len()),
            cut: outlook.map_or(0, |outlook| outlook.withheld.cut.len()),
            drift: health.drift_count,
            last_error: health.trouble.as_ref().map(|trouble| trouble.text.clone()),
            last_error_unix: health.trouble.as_ref().map(|trouble| unix(trouble.at)),
        }
    }
}

impl Condition {
    /// One word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Condition::Starting(_) => "starting",
            Condition::Well => "well",
            Condition::StandingBy(_) => "standing-by",
            Condition::Failing(_) => "failing",
        }
    }
}

fn unix(at: SystemTime) -> u64 {
    age(SystemTime::UNIX_EPOCH, at).as_secs()
}

/// The answer of `/v1/status`. Times are Unix seconds or spans in seconds.
#[derive(Serialize, Debug)]
pub struct Status {
    version: &'static str,
    ready: bool,
    mesos: MesosStatus,
    zone: ZoneStatus,
    targets: Vec<TargetStatus>,
    /// Null where the bundled server is off.
    server: Option<ServerStatus>,
    /// The first thousand.
    skipped: Vec<SkippedStatus>,
    skipped_count: usize,
}

#[derive(Serialize, Debug)]
struct MesosStatus {
    leader: Option<String>,
    watch: &'static str,
    heard_seconds_ago: Option<f64>,
    complete: bool,
    recovering: Option<String>,
    error: Option<String>,
    error_seconds: Option<u64>,
    agents: usize,
    frameworks: usize,
    tasks: usize,
}

#[derive(Serialize, Debug)]
struct ZoneStatus {
    records: usize,
    rrsets: usize,
    told_unix: Option<u64>,
}

#[derive(Serialize, Debug)]
struct TargetStatus {
    name: String,
    server: String,
    zone: String,
    state: &'static str,
    failing_since_unix: Option<u64>,
    standing_by: Option<String>,
    serial: Option<u32>,
    adopted: Option<bool>,
    fence_held: bool,
    lag_seconds: f64,
    changes: usize,
    held: Vec<HeldStatus>,
    held_records: usize,
    recovering_records: usize,
    quarantined: Vec<RefusedStatus>,
    not_ours: usize,
    cut: usize,
    drift: u64,
    last_error: Option<String>,
    last_error_unix: Option<u64>,
}

#[derive(Serialize, Debug)]
struct HeldStatus {
    /// Null: it cannot be approved yet.
    plan_id: Option<String>,
    reason: String,
    records: usize,
}

impl HeldStatus {
    fn of(set: &HeldSet) -> HeldStatus {
        let (plan_id, reason) = (set.id.map(|id| id.to_string()), set.why.to_string());
        HeldStatus { plan_id, reason, records: set.entries.len() }
    }
}

#[derive(Serialize, Debug)]
struct RefusedStatus {
    name: String,
    rcode: String,
}

#[derive(Serialize, Debug)]
struct ServerStatus {
    listen: Vec<String>,
    zones: Vec<String>,
}

#[derive(Serialize, Debug)]
struct SkippedStatus {
    what: String,
    reason: String,
}
