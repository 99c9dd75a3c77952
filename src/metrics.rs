//! What is counted since the start, and how things stand, for Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::events::Event;
use crate::health::Health;
use crate::overview::Overview;
use crate::plan::Change;
use crate::wire::Rcode;

/// Upper bounds in seconds.
const PUBLISH_BUCKETS: [f64; 14] =
    [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Those of a header, which are all that four bits can say.
const RCODES: usize = 16;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfTarget {
    target: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfChange {
    target: String,
    op: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfMessage {
    target: String,
    rcode: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfType {
    r#type: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfRcode {
    rcode: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

/// Counters of everything that runs. A clone counts in the same place.
#[derive(Clone, Debug)]
pub struct Metrics {
    events: Family<OfType, Counter>,
    pub(crate) leader_changes: Counter,
    messages: Family<OfMessage, Counter>,
    changes: Family<OfChange, Counter>,
    publish: Family<OfTarget, Histogram, fn() -> Histogram>,
    /// Of the bundled server.
    pub(crate) queries: Arc<Queries>,
    forwarded: Family<OfResult, Counter>,
    pub(crate) transfers: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let metrics = Metrics {
            events: Family::default(),
            leader_changes: Counter::default(),
            messages: Family::default(),
            changes: Family::default(),
            publish: Family::new_with_constructor(|| Histogram::new(PUBLISH_BUCKETS)),
            queries: Arc::default(),
            forwarded: Family::default(),
            transfers: Counter::default(),
        };
        // What has not happened yet is told as nought, so that its first time shows.
        for kind in Event::KINDS {
            drop(metrics.events.get_or_create(&OfType { r#type: kind }));
        }
        for result in Forwarded::ALL.map(Forwarded::word) {
            drop(metrics.forwarded.get_or_create(&OfResult { result }));
        }
        metrics
    }
}

/// What became of a question about a name elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forwarded {
    Answered,
    /// No upstream did, or all of them had trouble.
    Failed,
    /// There was no room for it.
    Refused,
}

impl Forwarded {
    const ALL: [Forwarded; 3] = [Forwarded::Answered, Forwarded::Failed, Forwarded::Refused];

    fn word(self) -> &'static str {
        match self {
            Forwarded::Answered => "answered",
            Forwarded::Failed => "failed",
            Forwarded::Refused => "refused",
        }
    }
}

impl Metrics {
    pub(crate) fn count_events(&self, events: &[Event]) {
        events.iter().for_each(|event| self.count_event(event.kind()));
    }

    pub(crate) fn count_event(&self, kind: &'static str) {
        self.events.get_or_create(&OfType { r#type: kind }).inc();
    }

    pub(crate) fn count_forwarded(&self, forwarded: Forwarded) {
        self.forwarded.get_or_create(&OfResult { result: forwarded.word() }).inc();
    }

    /// Where a target is counted.
    pub fn of_target(&self, target: &str) -> TargetMetrics {
        TargetMetrics { target: target.to_owned(), all: self.clone() }
    }

    /// How everything stands, in the text form of OpenMetrics 1.0.
    pub fn text(&self, overview: &Overview) -> String {
        let mut registry = Registry::with_prefix("mesozone");
        self.register(&mut registry);
        register_cluster(&mut registry, overview);
        register_targets(&mut registry, &overview.targets, overview.told_at(), overview.now);
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing to a String does not fail.
            Err(error) => format!("# {error}\n"),
        }
    }

    fn register(&self, registry: &mut Registry) {
        let help = "Events that masters told";
        registry.register("events", help, self.events.clone());
        let help = "How often another master took the lead";
        registry.register("leader_changes", help, self.leader_changes.clone());
        let help = "Records added to and removed from a target's zone";
        registry.register("target_changes", help, self.changes.clone());
        let help = "Update messages that a target answered";
        registry.register("target_messages", help, self.messages.clone());
        let help = "From a change told by a master to the target's last NOERROR for it";
        registry.register("publish_seconds", help, self.publish.clone());
        let queries: Family<OfRcode, Counter> = Family::default();
        for (rcode, count) in self.queries.by_rcode() {
            queries.get_or_create(&OfRcode { rcode }).inc_by(count);
        }
        let help = "Queries that the bundled server answered, and those it left unanswered";
        registry.register("queries", help, queries);
        let truncated: Counter = Counter::default();
        truncated.inc_by(self.queries.truncated.load(Ordering::Relaxed));
        registry.register("query_truncated", "Answers sent with TC set", truncated);
        let help = "Questions about names elsewhere";
        registry.register("forwarded", help, self.forwarded.clone());
        let help = "Zone transfers sent to their end";
        registry.register("transfers", help, self.transfers.clone());
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge: Gauge<f64, AtomicU64> = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn register_cluster(registry: &mut Registry, overview: &Overview) {
    let heard = overview.heard_ago.map_or(f64::NAN, |ago| ago.as_secs_f64());
    gauge(registry, "snapshot_age_seconds", "Since a master told something last", heard);
    let snapshot = overview.snapshot.as_deref();
    let is_complete = snapshot.is_some_and(|snapshot| snapshot.completeness.is_complete());
    let help = "Whether what the snapshot lacks is believed gone";
    gauge(registry, "snapshot_complete", help, flag(is_complete));
    let tasks = snapshot.map_or(0, |snapshot| snapshot.cluster.tasks.len());
    gauge(registry, "tasks", "Tasks known", tasks as f64);
    let records = snapshot.map_or(0, |snapshot| snapshot.record_count());
    gauge(registry, "records", "Records desired, in all zones", records as f64);
    let skipped: Family<OfReason, Gauge> = Family::default();
    for (reason, group) in overview.skipped_groups(0) {
        skipped.get_or_create(&OfReason { reason }).set(group.count as i64);
    }
    registry.register("skipped", "What makes no record, or fewer", skipped);
    let help = "Whether a master tells of changes as they happen";
    gauge(registry, "stream_connected", help, flag(overview.streams));
}

fn register_targets(
    registry: &mut Registry,
    targets: &[Health],
    told: Option<SystemTime>,
    now: SystemTime,
) {
    type Value<'a> = &'a dyn Fn(&Health) -> Option<f64>;
    let mut each = |name: &str, help: &str, value: Value<'_>| {
        let family: Family<OfTarget, Gauge<f64, AtomicU64>> = Family::default();
        for health in targets {
            if let Some(value) = value(health) {
                family.get_or_create(&OfTarget { target: health.target.clone() }).set(value);
            }
        }
        registry.register(name, help, family);
    };
    let help = "Whether the server was reached last time, or the zone is left to another";
    each("target_up", help, &|health| Some(flag(health.is_up())));
    each("target_serial", "Serial of the zone", &|health| {
        health.outlook.as_ref().map(|outlook| f64::from(outlook.serial.0))
    });
    let help = "For how long the oldest change has waited that the zone lacks";
    each("target_lag_seconds", help, &|health| Some(health.lag(told, now).as_secs_f64()));
    let help = "Removals that wait for an approval";
    each("target_held", help, &|health| Some(health.held_count() as f64));
    let help = "Names that the server refuses";
    each("target_quarantined", help, &|health| {
        Some(health.outlook.as_ref().map_or(0, |o| o.withheld.refused.len()) as f64)
    });
    let help = "Whether this process is the one that publishes there";
    each("target_fence_held", help, &|health| Some(flag(health.holds_fence)));
    let drift: Family<OfTarget, Counter> = Family::default();
    for health in targets {
        let counter = drift.get_or_create(&OfTarget { target: health.target.clone() });
        counter.inc_by(health.drift_count);
    }
    registry.register("target_drift", "Records that others took away or added", drift);
}

/// Where one target is counted.
#[derive(Clone, Debug)]
pub struct TargetMetrics {
    target: String,
    all: Metrics,
}

impl TargetMetrics {
    /// The target answered an update message.
    pub(crate) fn answered(&self, rcode: Rcode) {
        let of = OfMessage { target: self.target.clone(), rcode: rcode.to_string() };
        self.all.messages.get_or_create(&of).inc();
    }

    /// The target took these changes.
    pub(crate) fn changed(&self, changes: &[Change]) {
        let added = changes.iter().map(|change| change.added().count()).sum();
        let removed = changes.iter().map(|change| change.removed().count()).sum();
        for (op, count) in [("add", added), ("remove", removed)] {
            let count: usize = count;
            let of = OfChange { target: self.target.clone(), op };
            self.all.changes.get_or_create(&of).inc_by(count as u64);
        }
    }

    /// A burst was answered whole, this long after its first change was told.
    pub(crate) fn published(&self, after: Duration) {
        let of = OfTarget { target: self.target.clone() };
        self.all.publish.get_or_create(&of).observe(after.as_secs_f64());
    }

    /// The target is no more.
    pub(crate) fn forget(&self) {
        let target = || self.target.clone();
        for op in ["add", "remove"] {
            self.all.changes.remove(&OfChange { target: target(), op });
        }
        for rcode in 0..=u16::from(u8::MAX) {
            let rcode = Rcode(rcode).to_string();
            self.all.messages.remove(&OfMessage { target: target(), rcode });
        }
        self.all.publish.remove(&OfTarget { target: target() });
    }
}

/// Answers of the bundled server, counted by all threads.
#[derive(Default, Debug)]
pub(crate) struct Queries {
    by_rcode: [AtomicU64; RCODES],
    unanswered: AtomicU64,
    truncated: AtomicU64,
}

impl Queries {
    fn by_rcode(&self) -> Vec<(String, u64)> {
        let named = |(rcode, count): (usize, &AtomicU64)| {
            (Rcode(rcode as u16).to_string(), count.load(Ordering::Relaxed))
        };
        let mut counted: Vec<_> = self.by_rcode.iter().enumerate().map(named).collect();
        counted.push(("none".to_owned(), self.unanswered.load(Ordering::Relaxed)));
        counted.retain(|(_, count)| *count > 0);
        counted
    }
}

/// Answers that one thread counts by itself, until it adds them to those of all.
#[derive(Default)]
pub(crate) struct Counts {
    by_rcode: [u64; RCODES],
    unanswered: u64,
    truncated: u64,
}

impl Counts {
    /// Counts an answer by its header, RFC 1035, section 4.1.1.
    pub(crate) fn answer(&mut self, answer: &[u8]) {
        let [_, _, high, low, ..] = answer else { return };
        self.by_rcode[usize::from(low & 0x0f)] += 1;
        self.truncated += u64::from(high >> 1 & 1);
    }

    /// Counts a query that gets no answer.
    pub(crate) fn silence(&mut self) {
        self.unanswered += 1;
    }

    pub(crate) fn add_to(&mut self, queries: &Queries) {
        let add = |to: &AtomicU64, count: u64| {
            if count > 0 {
                to.fetch_add(count, Ordering::Relaxed);
            }
        };
        queries.by_rcode.iter().zip(self.by_rcode).for_each(|(to, count)| add(to, count));
        add(&queries.unanswered, self.unanswered);
        add(&queries.truncated, self.truncated);
        *self = Counts::default();
    }
}
