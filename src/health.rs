//! What is known of a target while it is kept: whether it is well, and what waits.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::fence::Adoption;
use crate::held::{HeldSet, PlanId};
use crate::name::Name;
use crate::plan::{Change, Withheld};
use crate::report::{self, About, Report};
use crate::rr::Serial;
use crate::snapshot::Completeness;

/// For so long a target may fail before the process is not ready.
const FAILING_MAX: Duration = Duration::from_secs(60);

/// How a target fares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// Nothing is desired yet, or it was not reached yet, since then.
    Starting(SystemTime),
    /// The zone is what is desired, save for what is held back.
    Well,
    /// Another publishes, which this is.
    StandingBy(String),
    /// Since then.
    Failing(SystemTime),
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    pub text: String,
    pub at: SystemTime,
}

/// What a target needs, as far as is known.
#[derive(Clone, Debug)]
pub struct Outlook {
    pub serial: Serial,
    pub adoption: Adoption,
    pub completeness: Completeness,
    /// Under way, or waiting until the server is well.
    pub changes: Arc<[Change]>,
    pub withheld: Arc<Withheld>,
}

/// A target and how it fares.
#[derive(Clone, Debug)]
pub struct Health {
    pub target: String,
    pub server: String,
    pub zone: Name,
    pub condition: Condition,
    /// The last one, though it may be over.
    pub trouble: Option<Trouble>,
    /// Whether this process publishes there.
    pub holds_fence: bool,
    /// When the masters told what the zone was last made equal to.
    pub reached: Option<SystemTime>,
    /// When they told the first thing that the zone may lack.
    pub behind_since: Option<SystemTime>,
    /// Records that others took away or added, since the start.
    pub drift_count: u64,
    /// None before the zone was read.
    pub outlook: Option<Outlook>,
}

impl Health {
    /// Of a target that was not looked at yet.
    pub fn unknown((target, server, zone): (String, String, Name), now: SystemTime) -> Health {
        Health {
            target,
            server,
            zone,
            condition: Condition::Starting(now),
            trouble: None,
            holds_fence: false,
            reached: None,
            behind_since: None,
            drift_count: 0,
            outlook: None,
        }
    }

    /// Another publishes: what this process would do there is of no account.
    pub fn stand_by(&mut self, why: String) {
        self.condition = Condition::StandingBy(why);
        self.behind_since = None;
        if let Some(outlook) = &mut self.outlook {
            (outlook.changes, outlook.withheld) = (Arc::from([]), Arc::default());
        }
    }

    /// Whether it was reached last time, or is left to another.
    pub fn is_up(&self) -> bool {
        matches!(self.condition, Condition::Well | Condition::StandingBy(_))
    }

    /// Whether whoever asks may count on it: a short trouble is none.
    pub fn is_ready(&self, now: SystemTime) -> bool {
        match self.condition {
            Condition::Well | Condition::StandingBy(_) => true,
            // One that takes its time at first is like one in trouble.
            Condition::Failing(since) | Condition::Starting(since) => age(since, now) < FAILING_MAX,
        }
    }

    /// For how long the oldest thing has waited that the zone may lack, given when the masters
    /// told something last; what is held back on purpose does not count.
    pub fn lag(&self, told: Option<SystemTime>, now: SystemTime) -> Duration {
        if matches!(self.condition, Condition::StandingBy(_)) || self.reached >= told {
            return Duration::ZERO;
        }
        self.behind_since.or(told).map_or(Duration::ZERO, |since| age(since, now))
    }

    /// What went wrong last, without the words that say where.
    pub fn trouble_text(&self) -> Option<&str> {
        let text = &self.trouble.as_ref()?.text;
        let Health { target, server, zone, .. } = self;
        let here = format!("target {target}, server {server}, zone {zone}: ");
        Some(text.strip_prefix(&here).unwrap_or(text))
    }

    /// The removals that wait for an approval.
    pub fn held(&self) -> &[HeldSet] {
        self.outlook.as_ref().map_or(&[], |outlook| &outlook.withheld.held)
    }

    /// The held set of this id.
    pub fn held_by(&self, id: PlanId) -> Option<&HeldSet> {
        self.held().iter().find(|set| set.id == Some(id))
    }

    /// So many removals wait for an approval.
    pub fn held_count(&self) -> usize {
        self.held().iter().map(|set| set.entries.len()).sum()
    }

    /// So many removals wait until the cluster is whole again; nobody can approve them.
    pub fn recovering_count(&self) -> usize {
        self.outlook.as_ref().map_or(0, |outlook| outlook.withheld.recovering.len())
    }

    /// In the shape of `diff --format json`; none before the zone was read.
    pub fn report(&self) -> Option<Report> {
        let outlook = self.outlook.as_ref()?;
        let about = About {
            target: &self.target,
            server: &self.server,
            zone: &self.zone,
            serial: outlook.serial,
            adoption: outlook.adoption,
            completeness: outlook.completeness,
        };
        Some(report::json(&about, &outlook.changes, &outlook.withheld))
    }
}

/// How long ago that was; nothing by a clock that was set back since.
pub fn age(at: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn health(condition: Condition) -> Health {
        let zone = "mesos".parse().unwrap();
        let target = ("bind".into(), "10.0.0.53:53".into(), zone);
        Health { condition, ..Health::unknown(target, at(0)) }
    }

    #[test]
    fn a_target_is_ready_when_reached_left_to_another_or_failing_for_less_than_a_minute() {
        let ready = |condition| health(condition).is_ready(at(100));
        assert!(ready(Condition::Starting(at(41))));
        assert!(!ready(Condition::Starting(at(40))));
        assert!(ready(Condition::Well));
        assert!(ready(Condition::StandingBy("it is held".into())));
        assert!(ready(Condition::Failing(at(41))));
        assert!(!ready(Condition::Failing(at(40))));
    }

    #[test]
    fn lag_counts_from_the_first_thing_that_the_zone_may_lack() {
        let mut health = health(Condition::Well);
        let lag = |health: &Health, told| health.lag(told, at(100)).as_secs();
        assert_eq!(lag(&health, None), 0, "nothing was told yet");
        assert_eq!(lag(&health, Some(at(90))), 10, "nothing was reached yet");
        health.reached = Some(at(90));
        assert_eq!(lag(&health, Some(at(90))), 0);
        assert_eq!(lag(&health, Some(at(95))), 5, "told, and not looked at yet");
        health.behind_since = Some(at(93));
        assert_eq!(lag(&health, Some(at(95))), 7);
        health.condition = Condition::StandingBy("it is held".into());
        assert_eq!(lag(&health, Some(at(95))), 0, "another publishes");
    }
}
