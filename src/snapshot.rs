//! What is published: one whole view of the cluster at a time, and whether it may be believed
//! where something is missing from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use imbl::OrdMap;

use crate::cluster::Cluster;
use crate::mesos::Unread;
use crate::name::Name;
use crate::records::{Skip, Subject};
use crate::rr::{Rdata, Ttl};
use crate::unknown::Unknown;
use crate::zone::{Key, Zone};

/// Whether what a snapshot lacks is really gone. A new leading master first shows an empty
/// cluster, then agents come back over seconds to minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completeness {
    Complete,
    Recovering(Recovering),
}

/// What a recovering cluster still waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recovering {
    /// So many agents of the registry have not come back.
    Agents(usize),
    /// A young leader has not confirmed that its registry is read.
    Registry,
    /// The masters have been silent for so long that others may know more.
    Silence,
}

impl fmt::Display for Recovering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recovering::Agents(0) => f.write_str("the last agents are just back"),
            Recovering::Agents(1) => f.write_str("1 agent not back"),
            Recovering::Agents(count) => write!(f, "{count} agents not back"),
            Recovering::Registry => {
                f.write_str("the leading master has not confirmed its registry")
            }
            Recovering::Silence => f.write_str("no master has been heard for a while"),
        }
    }
}

/// What `/api/v1` said beside a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confirmation {
    /// It answered 200: the registry is read.
    Given,
    /// It answered 503: the registry is not read.
    Withheld,
    /// It is refused to us, or not there.
    Unavailable,
}

/// What to know of a leader to judge its state.
#[derive(Clone, Copy, Debug)]
pub struct Leadership {
    /// By the leader's own clock, or since it was first seen to lead; none: nobody knows.
    pub elected_for: Option<Duration>,
    pub confirmation: Confirmation,
    pub failover_hold: Duration,
}

impl Completeness {
    /// Judges a state that the leading master answered.
    pub fn of_answer(cluster: &Cluster, leadership: &Leadership) -> Completeness {
        if leadership.elected_for.is_some_and(|age| age >= leadership.failover_hold) {
            return Completeness::Complete;
        }
        let agents_listed = !cluster.agents.is_empty() || !cluster.recovered.is_empty();
        let confirmed = match leadership.confirmation {
            Confirmation::Given => true,
            Confirmation::Withheld => false,
            Confirmation::Unavailable => agents_listed,
        };
        match confirmed {
            true => Completeness::of_file(cluster),
            false => Completeness::Recovering(Recovering::Registry),
        }
    }

    /// Judges a saved state, which has only its recovered agents to tell.
    pub fn of_file(cluster: &Cluster) -> Completeness {
        match cluster.recovered.len() {
            0 => Completeness::Complete,
            count => Completeness::Recovering(Recovering::Agents(count)),
        }
    }

    pub fn is_complete(self) -> bool {
        self == Completeness::Complete
    }
}

/// One published view.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub domain: Name,
    pub zone: Zone,
    /// The reverse zones, by their apex.
    pub reverse: BTreeMap<Name, Zone>,
    pub cluster: Cluster,
    /// What made fewer records than it would, and why.
    pub skipped: OrdMap<Subject, Arc<[Skip]>>,
    /// What the state held that could not be read at all.
    pub unread: Arc<[Unread]>,
    pub completeness: Completeness,
    /// The names of what has a host name that could not be resolved: what they have elsewhere
    /// is not known to be wrong.
    pub unknown: Arc<Unknown>,
    /// Whether this process has published a complete snapshot, this one or one before.
    pub complete_once: bool,
    pub read_at: SystemTime,
    /// When the masters told what this says and the one before did not.
    pub told_at: SystemTime,
}

impl Snapshot {
    /// Whether it says what is desired in a zone of this apex. It does not of a reverse zone that was
    /// not configured when it was made.
    pub fn is_about(&self, apex: &Name) -> bool {
        self.domain.is_within(apex) || self.reverse.contains_key(apex)
    }

    /// What is desired in a zone of this apex: a reverse zone, or the one that the domain is in.
    pub fn zone_of(&self, apex: &Name) -> &Zone {
        self.reverse.get(apex).unwrap_or(&self.zone)
    }

    /// All records in the canonical order of names.
    pub fn records(&self) -> impl Iterator<Item = (&Key, Ttl, &Rdata)> {
        let mut zones: Vec<&Zone> = [&self.zone].into_iter().chain(self.reverse.values()).collect();
        // None of them is within another, so one ends before the next begins.
        let first = |zone: &&Zone| zone.iter().next().map(|(key, _)| key.clone());
        zones.sort_by_cached_key(first);
        zones.into_iter().flat_map(Zone::records)
    }

    /// The number of records in all zones.
    pub fn record_count(&self) -> usize {
        let reverse: usize = self.reverse.values().map(Zone::record_count).sum();
        self.zone.record_count() + reverse
    }

    /// Whether whoever followed one has nothing to do for the other. Costs what differs.
    pub fn says_the_same(&self, other: &Snapshot) -> bool {
        self.zone == other.zone
            && self.reverse == other.reverse
            && self.completeness == other.completeness
            && self.unknown == other.unknown
            && self.complete_once == other.complete_once
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Agent, AgentId};

    const HOLD: Duration = Duration::from_secs(600);

    fn cluster(agents: usize, recovered: usize) -> Cluster {
        let id = |prefix: &str, n: usize| AgentId(Arc::from(format!("{prefix}{n}")));
        let agent = Arc::new(Agent { endpoint: None, faults: Vec::new() });
        Cluster {
            agents: (0..agents).map(|n| (id("a", n), agent.clone())).collect(),
            recovered: (0..recovered).map(|n| id("r", n)).collect(),
            ..Cluster::default()
        }
    }

    #[track_caller]
    fn check(
        (agents, recovered): (usize, usize),
        elected_for: Option<u64>,
        confirmation: Confirmation,
        expected: Completeness,
    ) {
        let elected_for = elected_for.map(Duration::from_secs);
        let leadership = Leadership { elected_for, confirmation, failover_hold: HOLD };
        assert_eq!(Completeness::of_answer(&cluster(agents, recovered), &leadership), expected);
    }

    #[test]
    fn a_young_leader_is_believed_once_confirmed_and_nobody_is_missing() {
        use Completeness::{Complete, Recovering as Gated};
        use Confirmation::{Given, Unavailable, Withheld};
        let registry = Gated(Recovering::Registry);
        check((0, 0), Some(5), Withheld, registry);
        check((0, 0), Some(5), Unavailable, registry);
        check((0, 0), Some(5), Given, Complete);
        check((2, 0), Some(5), Unavailable, Complete);
        check((2, 0), None, Withheld, registry);
        check((0, 2), Some(5), Given, Gated(Recovering::Agents(2)));
        check((1, 1), Some(5), Unavailable, Gated(Recovering::Agents(1)));
        check((1, 1), Some(599), Given, Gated(Recovering::Agents(1)));
        check((1, 1), Some(600), Given, Complete);
        check((0, 0), Some(600), Withheld, Complete);
    }
}
