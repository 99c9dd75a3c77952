//! From "this task changed" to the few zone entries that change.
//!
//! Both the old and the new thing go through [`records`](crate::records); what they contribute is
//! differenced, and counts are kept only where above one. Contributions are not stored, save
//! those of unhealthy tasks. A full read goes through the same door, so entries that did not
//! change stay shared with every zone published before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::cluster::{Agent, Cluster, Framework, Task, TaskKey};
use crate::records::{self, Made, Rules, Skip, Subject, Unhealthy};
use crate::rr::{Rdata, Rrset};
use crate::zone::{Key, Zone};

/// How many contributions are gathered before they are put into the zone: bounds the memory of a
/// first load, and lets an RRset of thousands be built a few times instead of record by record.
const BATCH_MAX: usize = 200_000;

/// The zone of a cluster, and what it takes to keep it.
pub struct Catalog {
    rules: Rules,
    cluster: Cluster,
    zone: Zone,
    /// How many things contribute a record of the zone, where more than one.
    counts: HashMap<(Key, Rdata), u32>,
    unhealthy: HashMap<Key, Withheld>,
    skipped: OrdMap<Subject, Arc<[Skip]>>,
}

/// What unhealthy tasks contribute to one RRset.
#[derive(Default)]
struct Withheld {
    records: BTreeMap<Rdata, u32>,
    /// No healthy task contributes, so these are what the zone shows.
    shown: bool,
}

/// One contribution that comes or goes.
struct Step {
    key: Key,
    rdata: Rdata,
    healthy: bool,
    comes: bool,
}

impl Catalog {
    pub fn new(rules: Rules) -> Catalog {
        Catalog {
            rules,
            cluster: Cluster::default(),
            zone: Zone::default(),
            counts: HashMap::new(),
            unhealthy: HashMap::new(),
            skipped: OrdMap::new(),
        }
    }

    /// The records of the cluster last given.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What makes fewer records than it would, and why.
    pub fn skipped(&self) -> &OrdMap<Subject, Arc<[Skip]>> {
        &self.skipped
    }

    /// Makes the zone that of `cluster`, at the cost of what changed.
    pub fn update(&mut self, mut cluster: Cluster) {
        let old = std::mem::take(&mut self.cluster);
        share(&old.agents, &mut cluster.agents);
        share(&old.frameworks, &mut cluster.frameworks);
        share(&old.tasks, &mut cluster.tasks);
        let new = &cluster;
        let mut steps = Vec::new();
        self.change(Subject::Leader, &mut steps, |rules| {
            (Some(records::of_leader(rules, &old)), Some(records::of_leader(rules, new)))
        });
        self.change(Subject::Masters, &mut steps, |rules| {
            (Some(records::of_masters(rules, &old)), Some(records::of_masters(rules, new)))
        });
        for (id, before, now) in changes(&old.agents, &new.agents) {
            self.change(Subject::Agent(id.clone()), &mut steps, |rules| {
                let made = |agent: &Arc<Agent>| records::of_agent(rules, agent);
                (before.map(made), now.map(made))
            });
        }
        for (id, before, now) in changes(&old.frameworks, &new.frameworks) {
            self.change(Subject::Framework(id.clone()), &mut steps, |rules| {
                let made = |framework: &Arc<Framework>| records::of_framework(rules, framework);
                (before.map(made), now.map(made))
            });
        }
        for (key, before, now) in changes(&old.tasks, &new.tasks) {
            self.change_task(key, (&old, before), (new, now), &mut steps);
        }
        for (key, before, now) in unchanged_tasks_elsewhere(&old, new) {
            self.change_task(key, (&old, Some(before)), (new, Some(now)), &mut steps);
        }
        self.apply(&mut steps);
        self.cluster = cluster;
    }

    fn change_task(
        &mut self,
        key: &TaskKey,
        (old, before): (&Cluster, Option<&Arc<Task>>),
        (new, now): (&Cluster, Option<&Arc<Task>>),
        steps: &mut Vec<Step>,
    ) {
        let made = |rules: &Rules, cluster: &Cluster, task: &Arc<Task>| {
            let agent = cluster.agents.get(&key.agent).map(Arc::as_ref);
            let framework = cluster.frameworks.get(&key.framework).map(Arc::as_ref);
            records::of_task(rules, key, task, agent, framework)
        };
        let healthy = |task: Option<&Arc<Task>>| {
            self.rules.unhealthy == Unhealthy::Publish
                || task.is_none_or(|task| task.healthy != Some(false))
        };
        let (was_healthy, is_healthy) = (healthy(before), healthy(now));
        let gone = before.map(|task| made(&self.rules, old, task)).unwrap_or_default();
        let come = now.map(|task| made(&self.rules, new, task)).unwrap_or_default();
        self.note_skips(Subject::Task(key.clone()), come.skipped);
        step(gone.records, was_healthy, false, steps);
        step(come.records, is_healthy, true, steps);
        if steps.len() > BATCH_MAX {
            self.apply(steps);
        }
    }

    fn change(
        &mut self,
        subject: Subject,
        steps: &mut Vec<Step>,
        made: impl FnOnce(&Rules) -> (Option<Made>, Option<Made>),
    ) {
        let (gone, come) = made(&self.rules);
        let come = come.unwrap_or_default();
        self.note_skips(subject, come.skipped);
        step(gone.unwrap_or_default().records, true, false, steps);
        step(come.records, true, true, steps);
    }

    fn note_skips(&mut self, subject: Subject, skips: Vec<Skip>) {
        match skips.is_empty() {
            true => self.skipped.remove(&subject),
            false => self.skipped.insert(subject, Arc::from(skips)),
        };
    }

    fn apply(&mut self, steps: &mut Vec<Step>) {
        // What goes before what comes would count below zero: order is by key alone, and each
        // key's steps are summed.
        steps.sort_by(|a, b| a.key.cmp(&b.key));
        for group in steps.chunk_by(|a, b| a.key == b.key) {
            self.apply_to_rrset(&group[0].key, group);
        }
        steps.clear();
    }

    fn apply_to_rrset(&mut self, key: &Key, steps: &[Step]) {
        let (mut healthy, mut sick) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            let side = if step.healthy { &mut healthy } else { &mut sick };
            *side.entry(&step.rdata).or_insert(0_i64) += if step.comes { 1 } else { -1 };
        }
        healthy.retain(|_, change| *change != 0);
        sick.retain(|_, change| *change != 0);
        if healthy.is_empty() && sick.is_empty() {
            return;
        }
        let mut withheld = self.unhealthy.remove(key).unwrap_or_default();
        let shown = self.zone.get(key).filter(|_| !withheld.shown);
        let mut data: Vec<Rdata> = shown.map_or_else(Vec::new, |set| set.rdata().to_vec());
        let mut gone: Vec<&Rdata> = Vec::new();
        for (rdata, change) in healthy {
            let counted = (key.clone(), rdata.clone());
            let before = match shown.is_some_and(|set| set.contains(rdata)) {
                true => self.counts.get(&counted).copied().unwrap_or(1),
                false => 0,
            };
            let now = changed(before, change);
            match now {
                0 | 1 => self.counts.remove(&counted),
                _ => self.counts.insert(counted, now),
            };
            match (before, now) {
                (0, 1..) => data.push(rdata.clone()),
                (1.., 0) => gone.push(rdata),
                _ => {}
            }
        }
        data.retain(|rdata| gone.binary_search(&rdata).is_err());
        for (rdata, change) in sick {
            let now = changed(withheld.records.get(rdata).copied().unwrap_or(0), change);
            match now {
                0 => withheld.records.remove(rdata),
                _ => withheld.records.insert(rdata.clone(), now),
            };
        }
        // A bad health check never makes a name vanish: with nobody well, all are published.
        withheld.shown = data.is_empty();
        if withheld.shown {
            data = withheld.records.keys().cloned().collect();
        }
        if !withheld.records.is_empty() {
            self.unhealthy.insert(key.clone(), withheld);
        }
        let rrset = Rrset::new(self.rules.ttl, data);
        if self.zone.get(key) != rrset.as_ref() {
            self.zone.set(key.clone(), rrset);
        }
    }
}

fn changed(before: u32, change: i64) -> u32 {
    // Each thing that goes came before by the same rules, so no count falls below zero.
    u32::try_from(i64::from(before) + change).unwrap_or(0)
}

/// Adds the steps of one thing, each of its records once.
fn step(mut records: Vec<(Key, Rdata)>, healthy: bool, comes: bool, steps: &mut Vec<Step>) {
    records.sort_unstable();
    records.dedup();
    steps.extend(records.into_iter().map(|(key, rdata)| Step { key, rdata, healthy, comes }));
}

/// Makes `new` share all that it has in common with `old`: a full read builds a map of its own.
fn share<K: Ord + Clone, V: PartialEq + Clone>(old: &OrdMap<K, V>, new: &mut OrdMap<K, V>) {
    let mut shared = old.clone();
    for (key, _, now) in changes(old, new) {
        match now {
            Some(now) => shared.insert(key.clone(), now.clone()),
            None => shared.remove(key),
        };
    }
    *new = shared;
}

/// The entries that differ, at the cost of those that do.
fn changes<'m, K: Ord, V: PartialEq>(
    old: &'m OrdMap<K, V>,
    new: &'m OrdMap<K, V>,
) -> impl Iterator<Item = (&'m K, Option<&'m V>, Option<&'m V>)> {
    old.diff(new).map(|item| match item {
        DiffItem::Add(key, now) => (key, None, Some(now)),
        DiffItem::Remove(key, before) => (key, Some(before), None),
        DiffItem::Update { old: (key, before), new: (_, now) } => (key, Some(before), Some(now)),
    })
}

/// The tasks that did not change, but whose agent or framework did.
fn unchanged_tasks_elsewhere<'c>(
    old: &'c Cluster,
    new: &'c Cluster,
) -> Vec<(&'c TaskKey, &'c Arc<Task>, &'c Arc<Task>)> {
    let endpoint = |agent: Option<&Arc<Agent>>| agent.map(|agent| agent.endpoint.clone());
    let agents: std::collections::HashSet<_> = changes(&old.agents, &new.agents)
        .filter(|(_, before, now)| endpoint(*before) != endpoint(*now))
        .map(|(id, ..)| id)
        .collect();
    let name = |framework: Option<&Arc<Framework>>| framework.map(|f| f.name.clone());
    let frameworks: std::collections::HashSet<_> = changes(&old.frameworks, &new.frameworks)
        .filter(|(_, before, now)| name(*before) != name(*now))
        .map(|(id, ..)| id)
        .collect();
    if agents.is_empty() && frameworks.is_empty() || old.tasks.is_empty() {
        return Vec::new();
    }
    let elsewhere =
        |key: &TaskKey| agents.contains(&key.agent) || frameworks.contains(&key.framework);
    let kept = new.tasks.iter().filter(|(key, _)| elsewhere(key));
    kept.filter_map(|(key, now)| {
        let (key, before) = old.tasks.get_key_value(key)?;
        (before == now).then_some((key, before, now))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{AgentId, Endpoint, FrameworkId, Network};
    use crate::current::Current;
    use crate::records::{IpSource, LabelRules};
    use crate::rr::{COMPARED, Ttl};
    use proptest::prelude::*;

    fn rules(unhealthy: Unhealthy) -> Rules {
        Rules {
            domain: "mesos".parse().unwrap(),
            ttl: Ttl::from_secs(60),
            ip_sources: vec![IpSource::Netinfo, IpSource::Host],
            label_rules: LabelRules::Rfc1123,
            srv_weight: 1,
            unhealthy,
        }
    }

    fn key(id: usize, agent: usize) -> TaskKey {
        TaskKey {
            framework: FrameworkId(Arc::from("f")),
            task: Arc::from(format!("t{id}")),
            agent: AgentId(Arc::from(format!("x-S{agent}"))),
        }
    }

    fn task(name: &str, address: u32, healthy: Option<bool>) -> Arc<Task> {
        Arc::new(Task {
            name: name.into(),
            discovery: None,
            host_ports: vec![(31000, 31001)],
            netinfo: vec![std::net::Ipv4Addr::from(0x0a00_0000 + address).into()],
            docker: Vec::new(),
            mesos: Vec::new(),
            network: Network::Agents,
            healthy,
            faults: Vec::new(),
        })
    }

    fn cluster(agents: usize) -> Cluster {
        let agent = |n: usize| {
            let endpoint = Endpoint::parse(&format!("10.200.0.{}:5051", n + 1));
            let id = AgentId(Arc::from(format!("x-S{n}")));
            (id, Arc::new(Agent { endpoint, faults: Vec::new() }))
        };
        let framework = Framework { name: "m".into(), scheduler: None, faults: Vec::new() };
        Cluster {
            agents: (0..agents).map(agent).collect(),
            frameworks: [(FrameworkId(Arc::from("f")), Arc::new(framework))].into_iter().collect(),
            ..Cluster::default()
        }
    }

    /// The zone made at once of what the last update gave.
    fn made_afresh(unhealthy: Unhealthy, cluster: &Cluster) -> Zone {
        let mut catalog = Catalog::new(rules(unhealthy));
        catalog.update(cluster.clone());
        catalog.zone
    }

    #[test]
    fn a_changed_task_costs_the_same_after_ten_thousand_changes() {
        let mut cluster = cluster(10);
        for id in 0..5_000 {
            cluster
                .tasks
                .insert(key(id, id % 10), task(&format!("app{}", id / 5), id as u32, None));
        }
        let mut catalog = Catalog::new(rules(Unhealthy::Withhold));
        catalog.update(cluster.clone());
        let mut current = Current::of_reading(catalog.zone(), catalog.zone());
        let mut visit = |number: usize| {
            let id = number * 7 % 5_000;
            let name = format!("app{}", id / 5);
            cluster.tasks.insert(key(id, id % 10), task(&name, 10_000 + number as u32, None));
            catalog.update(cluster.clone());
            COMPARED.set(0);
            let differing = current.differing(catalog.zone());
            let visited = COMPARED.get();
            assert!(!differing.is_empty());
            for key in &differing {
                current.set(key, catalog.zone().get(key).cloned());
            }
            current.rebase(catalog.zone());
            assert!(current.differing(catalog.zone()).is_empty());
            visited
        };
        let at_first = (0..50).map(&mut visit).max().unwrap();
        (50..9_950).map(&mut visit).for_each(drop);
        let at_last = (9_950..10_000).map(&mut visit).max().unwrap();
        assert!(
            at_first < 1_000 && at_last < 1_000,
            "{at_first}, then {at_last} of {}",
            catalog.zone().len()
        );
    }

    #[test]
    fn an_unhealthy_task_is_withheld_while_another_is_well() {
        let mut cluster = cluster(1);
        let addresses = |cluster: &Cluster, unhealthy| {
            let zone = made_afresh(unhealthy, cluster);
            let key = Key { name: "web.m.mesos".parse().unwrap(), rtype: crate::rr::Type::A };
            zone.get(&key).map_or(0, |set| set.rdata().len())
        };
        cluster.tasks.insert(key(1, 0), task("web", 1, Some(false)));
        cluster.tasks.insert(key(2, 0), task("web", 2, Some(true)));
        assert_eq!(addresses(&cluster, Unhealthy::Withhold), 1);
        assert_eq!(addresses(&cluster, Unhealthy::Publish), 2);
        cluster.tasks.insert(key(2, 0), task("web", 2, Some(false)));
        assert_eq!(addresses(&cluster, Unhealthy::Withhold), 2, "a bad check hides no name");
    }

    /// What happens to one of a few tasks: gone, or there with a name, an address, a health.
    type Event = (usize, usize, Option<(u8, u32, Option<bool>)>);

    fn event() -> impl Strategy<Value = Event> {
        let there = (0..3_u8, 0..3_u32, proptest::option::of(any::<bool>()));
        (0..6_usize, 0..2_usize, proptest::option::of(there))
    }

    proptest! {
        #[test]
        fn any_history_ends_in_the_zone_made_at_once(
            events in prop::collection::vec((event(), any::<bool>()), 1..40),
        ) {
            let mut catalog = Catalog::new(rules(Unhealthy::Withhold));
            let mut now = cluster(2);
            for ((id, agent, there), agent_moves) in events {
                match there {
                    Some((name, address, healthy)) => {
                        let name = ["web", "db", "x"][usize::from(name)];
                        now.tasks.insert(key(id, agent), task(name, address, healthy));
                    }
                    None => {
                        now.tasks.remove(&key(id, agent));
                    }
                }
                if agent_moves {
                    let moved = Agent {
                        endpoint: Endpoint::parse(&format!("10.201.0.{}:5051", id + 1)),
                        faults: Vec::new(),
                    };
                    now.agents.insert(AgentId(Arc::from("x-S0")), Arc::new(moved));
                }
                catalog.update(now.clone());
                let afresh = made_afresh(Unhealthy::Withhold, &now);
                prop_assert!(catalog.zone == afresh, "{:#?}\n{:#?}", catalog.zone, afresh);
            }
        }
    }
}
