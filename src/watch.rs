//! From what the masters tell to what is published: one snapshot after the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::catalog::Catalog;
use crate::cluster::{Cluster, Endpoint, Hosts, Numbered};
use crate::events::Event;
use crate::live::{Asks, Live};
use crate::mesos::Unread;
use crate::records::Rules;
use crate::snapshot::{Completeness, Recovering, Snapshot};
use crate::state::State;

/// So many things that could not be read are listed; the rest of a flood is not.
const UNREAD_MAX: usize = 1000;

/// A whole state, and what belongs to it.
pub struct Reading {
    pub state: State,
    pub completeness: Completeness,
    /// For how long what an earlier leader knew is still waited for.
    pub hold_left: Duration,
    /// Addresses of the host names in it.
    pub hosts: Hosts,
    /// What was told since.
    pub events: Vec<Event>,
}

/// The one writer of snapshots.
pub struct Watch {
    catalog: Catalog,
    masters: Numbered,
    hosts: Hosts,
    live: Live,
    unread: Arc<[Unread]>,
    completeness: Completeness,
    complete_once: bool,
    read_at: SystemTime,
    started: Instant,
}

impl Watch {
    /// A name vanishes `hold_down` after the last thing it stands for.
    pub fn new(rules: Rules, masters: Numbered, hold_down: Duration) -> Watch {
        Watch {
            catalog: Catalog::new(rules, hold_down),
            masters,
            hosts: Hosts::new(),
            live: Live::default(),
            unread: Arc::from([]),
            completeness: Completeness::Recovering(Recovering::Registry),
            complete_once: false,
            read_at: SystemTime::UNIX_EPOCH,
            started: Instant::now(),
        }
    }

    /// Makes records by other rules from now on, of the same cluster. Names that stand for nothing
    /// any more are not held down over that.
    pub fn by(self, rules: Rules, hold_down: Duration) -> Watch {
        let mut catalog = Catalog::new(rules, hold_down);
        catalog.update(self.catalog.cluster().clone(), self.started.elapsed());
        Watch { catalog, ..self }
    }

    /// What is known now; none before anything was read.
    pub fn known(&self) -> Option<Snapshot> {
        self.has_read().then(|| self.snapshot())
    }

    pub(crate) fn has_read(&self) -> bool {
        self.read_at != SystemTime::UNIX_EPOCH
    }

    /// Takes in the masters in the order of the names that number them; no snapshot if they are
    /// the same as before.
    pub fn know(&mut self, masters: Vec<Endpoint>) -> Option<Snapshot> {
        let masters = Numbered::Told(masters);
        if self.masters == masters {
            return None;
        }
        self.masters = masters;
        let mut cluster = self.catalog.cluster().clone();
        cluster.masters.clone_from(&self.masters);
        cluster.resolve(&self.hosts);
        Some(self.put(cluster))
    }

    /// The host names that stand in place of addresses, in the cluster and among the masters.
    pub fn host_names(&self) -> BTreeSet<Arc<str>> {
        let masters = Cluster { masters: self.masters.clone(), ..Cluster::default() };
        let names = [self.catalog.cluster(), &masters].map(Cluster::host_names);
        names.into_iter().flatten().collect()
    }

    /// Takes in a whole state. While the cluster recovers it only grows.
    pub fn read(&mut self, reading: Reading) -> (Snapshot, Asks) {
        let Reading { state, completeness, hold_left, hosts, events } = reading;
        let State { mut cluster, ended, waiting, completed, unread } = state;
        let before = self.catalog.cluster();
        if !completeness.is_complete() {
            cluster.keep(before, &ended);
        }
        if !completeness.is_complete() || !hold_left.is_zero() {
            cluster.keep_frameworks(before, &completed);
        }
        cluster.keep_pids(before);
        cluster.masters.clone_from(&self.masters);
        self.live = Live::new(waiting);
        self.unread = Arc::from(unread);
        self.completeness = completeness;
        self.complete_once |= completeness.is_complete();
        self.hosts = hosts;
        let asks = self.apply(&mut cluster, events);
        cluster.resolve(&self.hosts);
        (self.put(cluster), asks)
    }

    /// Takes in events, and says what more they ask for. What they lack is never believed gone
    /// while the cluster recovers: that takes a whole state.
    pub fn tell(&mut self, events: Vec<Event>) -> (Snapshot, Asks) {
        let mut cluster = self.catalog.cluster().clone();
        let asks = self.apply(&mut cluster, events);
        if asks >= Asks::Hosts {
            cluster.resolve(&self.hosts);
        }
        (self.put(cluster), asks)
    }

    fn apply(&mut self, cluster: &mut Cluster, events: Vec<Event>) -> Asks {
        let mut asks = Asks::Nothing;
        for event in events {
            if let Event::Unread(unread) = &event
                && self.unread.len() < UNREAD_MAX
            {
                self.unread = self.unread.iter().chain([unread]).cloned().collect();
            }
            asks = asks.max(self.live.apply(cluster, event));
        }
        asks
    }

    /// A poll is asked for.
    pub fn poll(&mut self) {
        self.live.poll();
    }

    /// Takes in the agents and frameworks that a poll listed, each where it did.
    pub fn list(&mut self, agents: Option<&State>, frameworks: Option<&State>) -> (Snapshot, Asks) {
        let mut cluster = self.catalog.cluster().clone();
        let mut asks = Asks::Nothing;
        if let Some(agents) = agents {
            asks = self.live.agents_polled(&mut cluster, &agents.cluster, self.completeness);
        }
        if let Some(frameworks) = frameworks {
            self.live.frameworks_polled(&mut cluster, &frameworks.cluster);
        }
        cluster.resolve(&self.hosts);
        (self.put(cluster), asks)
    }

    /// Takes in addresses of host names.
    pub fn resolve(&mut self, hosts: Hosts) -> Snapshot {
        let mut cluster = self.catalog.cluster().clone();
        self.hosts = hosts;
        cluster.resolve(&self.hosts);
        self.put(cluster)
    }

    /// In how long the next name vanishes to which nothing contributes any more.
    pub fn next_due(&self) -> Option<Duration> {
        let at = self.catalog.next_due();
        at.map(|at| at.saturating_sub(self.started.elapsed()))
    }

    /// Lets names vanish that are due.
    pub fn expire(&mut self) -> Snapshot {
        self.catalog.expire(self.started.elapsed());
        self.snapshot()
    }

    pub fn completeness(&self) -> Completeness {
        self.completeness
    }

    pub fn cluster(&self) -> &Cluster {
        self.catalog.cluster()
    }

    fn put(&mut self, cluster: Cluster) -> Snapshot {
        if let Completeness::Recovering(Recovering::Agents(count)) = &mut self.completeness {
            *count = cluster.recovered.len();
        }
        self.catalog.update(cluster, self.started.elapsed());
        self.read_at = SystemTime::now();
        self.snapshot()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            domain: self.catalog.rules().domain.clone(),
            zone: self.catalog.zone().clone(),
            reverse: self.catalog.reverse(),
            cluster: self.catalog.cluster().clone(),
            skipped: self.catalog.skipped().clone(),
            unread: self.unread.clone(),
            completeness: self.completeness,
            unknown: self.catalog.unknown().clone(),
            complete_once: self.complete_once,
            read_at: self.read_at,
            told_at: self.read_at,
        }
    }
}
