//! From "this task changed" to the few zone entries that change.
//!
//! Both the old and the new thing go through [`records`](crate::records), and the
//! [`tally`](crate::tally) makes of what goes and what comes what changes. Contributions are not
//! stored, save those of unhealthy tasks. A full read goes through the same door, so entries that
//! did not change stay shared with every zone published before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::cluster::{Agent, AgentId, Cluster, Framework, FrameworkId, Task, TaskKey};
use crate::name::Name;
use crate::pointers::Pointers;
use crate::records::{self, Made, Memo, Rules, Skip, Subject, Unhealthy};
use crate::tally::{Health, Tally};
use crate::unknown::Unknown;
use crate::zone::Zone;

/// The zone of a cluster, and what it takes to keep it.
pub struct Catalog {
    memo: Memo,
    cluster: Cluster,
    /// None until an agent changes under its tasks, which few do.
    on_agents: Option<TasksOnAgents>,
    tally: Tally,
    pointers: Pointers,
    skipped: OrdMap<Subject, Arc<[Skip]>>,
    unknown: Arc<Unknown>,
}

/// Which tasks change with an agent.
#[derive(Default)]
struct TasksOnAgents(HashMap<AgentId, BTreeSet<(FrameworkId, Arc<str>)>>);

impl Catalog {
    /// A name vanishes `hold_down` after the last thing it stands for.
    pub fn new(rules: Rules, hold_down: Duration) -> Catalog {
        let cluster = Cluster::default();
        let mut catalog = Catalog {
            tally: Tally::new(rules.ttl, hold_down),
            pointers: Pointers::new(&rules.reverse, rules.ttl, hold_down),
            memo: Memo::new(rules),
            on_agents: None,
            skipped: OrdMap::new(),
            unknown: Arc::default(),
            cluster: Cluster::default(),
        };
        let leaderless = records::of_leader(catalog.memo.rules(), &cluster);
        catalog.change(Subject::Leader, (None, Some(leaderless)));
        catalog
    }

    pub fn rules(&self) -> &Rules {
        self.memo.rules()
    }

    /// The records of the cluster last given.
    pub fn zone(&self) -> &Zone {
        self.tally.zone()
    }

    /// The reverse zones of the cluster last given, by their apex.
    pub fn reverse(&self) -> BTreeMap<Name, Zone> {
        self.pointers.zones()
    }

    /// Lets names vanish that nothing contributes to and that are due at `now`.
    pub fn expire(&mut self, now: Duration) {
        self.tally.advance(now);
        self.pointers.advance(now);
    }

    /// When the next name vanishes to which nothing contributes.
    pub fn next_due(&self) -> Option<Duration> {
        self.tally.next_due().into_iter().chain(self.pointers.next_due()).min()
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What makes fewer records than it would, and why.
    pub fn skipped(&self) -> &OrdMap<Subject, Arc<[Skip]>> {
        &self.skipped
    }

    /// The names of what has a host name that is not resolved.
    pub fn unknown(&self) -> &Arc<Unknown> {
        &self.unknown
    }

    /// Makes the zone that of `cluster` at `now`, by a clock that only goes forward, at the cost
    /// of what changed.
    pub fn update(&mut self, mut cluster: Cluster, now: Duration) {
        self.expire(now);
        let old = std::mem::take(&mut self.cluster);
        share(&old.agents, &mut cluster.agents);
        share(&old.frameworks, &mut cluster.frameworks);
        share(&old.tasks, &mut cluster.tasks);
        let new = &cluster;
        self.change_masters(&old, new);
        for (id, before, now) in changes(&old.agents, &new.agents) {
            let made = |agent: &Arc<Agent>| records::of_agent(self.memo.rules(), agent);
            self.change(Subject::Agent(id.clone()), (before.map(made), now.map(made)));
            self.pointers.move_agent(addresses(before), addresses(now));
        }
        for (id, before, now) in changes(&old.frameworks, &new.frameworks) {
            let made =
                |framework: &Arc<Framework>| records::of_framework(self.memo.rules(), framework);
            self.change(Subject::Framework(id.clone()), (before.map(made), now.map(made)));
        }
        for (key, before, now) in changes(&old.tasks, &new.tasks) {
            match (&mut self.on_agents, before, now) {
                (Some(on_agents), None, Some(_)) => on_agents.insert(key),
                (Some(on_agents), Some(_), None) => on_agents.remove(key),
                _ => {}
            }
            self.change_task(key, (&old, before), (new, now));
        }
        for (key, before, now) in self.unchanged_tasks_elsewhere(&old, new) {
            self.change_task(&key, (&old, Some(before)), (new, Some(now)));
        }
        self.tally.settle();
        self.pointers.settle();
        if self.unknown.follows_tasks() || !is_same_but_tasks(&old, new) {
            self.unknown = Arc::new(Unknown::of(self.memo.rules(), new));
        }
        self.cluster = cluster;
    }

    fn change_masters(&mut self, old: &Cluster, new: &Cluster) {
        if old.leader == new.leader && old.masters == new.masters {
            return;
        }
        let made = |of: fn(&Rules, &Cluster) -> Made| {
            let rules = self.memo.rules();
            (Some(of(rules, old)), Some(of(rules, new)))
        };
        let (leader, masters) = (made(records::of_leader), made(records::of_masters));
        self.change(Subject::Leader, leader);
        self.change(Subject::Masters, masters);
    }

    fn change_task(
        &mut self,
        key: &TaskKey,
        (old, before): (&Cluster, Option<&Arc<Task>>),
        (new, now): (&Cluster, Option<&Arc<Task>>),
    ) {
        let mut made = |cluster: &Cluster, task: &Arc<Task>| {
            let agent = cluster.agents.get(&key.agent).map(Arc::as_ref);
            let framework = cluster.frameworks.get(&key.framework).map(Arc::as_ref);
            records::of_task(&mut self.memo, key, task, agent, framework)
        };
        let gone = before.map(|task| made(old, task));
        let come = now.map(|task| made(new, task)).unwrap_or_default();
        if gone.is_some() || !come.skipped.is_empty() {
            self.note_skips(Subject::Task(key.clone()), come.skipped);
        }
        let gone = gone.unwrap_or_default();
        let [was, is] = [before, now].map(|task| self.health(task));
        self.tally.go(gone.records, was);
        self.tally.come(come.records, is);
        self.pointers.go(gone.pointers, was);
        self.pointers.come(come.pointers, is);
    }

    fn health(&self, task: Option<&Arc<Task>>) -> Health {
        let publishes = self.memo.rules().unhealthy == Unhealthy::Publish;
        match task.is_none_or(|task| publishes || task.healthy != Some(false)) {
            true => Health::Well,
            false => Health::Sick,
        }
    }

    fn change(&mut self, subject: Subject, (gone, come): (Option<Made>, Option<Made>)) {
        let come = come.unwrap_or_default();
        self.note_skips(subject, come.skipped);
        self.tally.go(gone.unwrap_or_default().records, Health::Well);
        self.tally.come(come.records, Health::Well);
    }

    fn note_skips(&mut self, subject: Subject, skips: Vec<Skip>) {
        match skips.is_empty() {
            true => self.skipped.remove(&subject),
            false => self.skipped.insert(subject, Arc::from(skips)),
        };
    }

    /// The tasks that did not change, but whose agent or framework did.
    fn unchanged_tasks_elsewhere<'c>(
        &mut self,
        old: &'c Cluster,
        new: &'c Cluster,
    ) -> Vec<(TaskKey, &'c Arc<Task>, &'c Arc<Task>)> {
        let mut elsewhere = BTreeSet::new();
        if old.tasks.is_empty() {
            return Vec::new();
        }
        for (id, before, now) in changes(&old.agents, &new.agents) {
            let endpoint = |agent: Option<&'c Arc<Agent>>| agent.map(|agent| &agent.endpoint);
            if endpoint(before) != endpoint(now) {
                let on_agents = self.on_agents.get_or_insert_with(|| TasksOnAgents::of(new));
                elsewhere.extend(on_agents.on(id));
            }
        }
        for (id, before, now) in changes(&old.frameworks, &new.frameworks) {
            let name = |framework: Option<&'c Arc<Framework>>| framework.map(|f| &f.name);
            if name(before) != name(now) {
                elsewhere.extend(tasks_of(id, new));
            }
        }
        let both = elsewhere.into_iter().filter_map(|key| {
            let (before, now) = (old.tasks.get(&key)?, new.tasks.get(&key)?);
            (before == now).then_some((key, before, now))
        });
        both.collect()
    }
}

impl TasksOnAgents {
    fn of(cluster: &Cluster) -> TasksOnAgents {
        let mut tasks = TasksOnAgents::default();
        cluster.tasks.keys().for_each(|key| tasks.insert(key));
        tasks
    }

    fn insert(&mut self, key: &TaskKey) {
        let task = (key.framework.clone(), key.task.clone());
        match self.0.get_mut(&key.agent) {
            Some(tasks) => tasks.insert(task),
            None => self.0.entry(key.agent.clone()).or_default().insert(task),
        };
    }

    fn remove(&mut self, key: &TaskKey) {
        let Some(tasks) = self.0.get_mut(&key.agent) else { return };
        tasks.remove(&(key.framework.clone(), key.task.clone()));
        if tasks.is_empty() {
            self.0.remove(&key.agent);
        }
    }

    fn on(&self, agent: &AgentId) -> impl Iterator<Item = TaskKey> {
        self.0.get(agent).into_iter().flatten().map(|(framework, task)| TaskKey {
            framework: framework.clone(),
            task: task.clone(),
            agent: agent.clone(),
        })
    }
}

/// The tasks of one framework, which stand together.
fn tasks_of(id: &FrameworkId, cluster: &Cluster) -> impl Iterator<Item = TaskKey> {
    let nothing: Arc<str> = Arc::default();
    let first = TaskKey { framework: id.clone(), task: nothing.clone(), agent: AgentId(nothing) };
    let tasks = cluster.tasks.range(first..).map(|(key, _)| key);
    tasks.take_while(move |key| key.framework == *id).cloned()
}

fn addresses(agent: Option<&Arc<Agent>>) -> &[IpAddr] {
    let endpoint = agent.and_then(|agent| agent.endpoint.as_ref());
    endpoint.map_or(&[], |endpoint| &endpoint.addresses)
}

fn is_same_but_tasks(old: &Cluster, new: &Cluster) -> bool {
    (&old.leader, &old.masters) == (&new.leader, &new.masters)
        && old.agents.ptr_eq(&new.agents)
        && old.frameworks.ptr_eq(&new.frameworks)
}

/// Makes `new` share all that it has in common with `old`: a full read builds a map of its own.
fn share<K: Ord + Clone, V: PartialEq>(old: &OrdMap<K, Arc<V>>, new: &mut OrdMap<K, Arc<V>>) {
    if old.is_empty() || is_made_of(old, new) {
        return;
    }
    let mut shared = old.clone();
    for (key, _, now) in changes(old, new) {
        match now {
            Some(now) => shared.insert(key.clone(), now.clone()),
            None => shared.remove(key),
        };
    }
    *new = shared;
}

/// Whether `new` is `old` with changes: then an unchanged entry is the very same, and so is the
/// first or the last of them unless just these changed. Sharing twice costs only time.
fn is_made_of<K: Ord, V>(old: &OrdMap<K, Arc<V>>, new: &OrdMap<K, Arc<V>>) -> bool {
    let ends = [(old.get_min(), new.get_min()), (old.get_max(), new.get_max())];
    let mut both = ends.into_iter().filter_map(|(old, new)| old.zip(new));
    both.any(|((_, old), (_, new))| Arc::ptr_eq(old, new))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Endpoint, Network};
    use crate::current::Current;
    use crate::records::{IpSource, MADE};
    use crate::rr::COMPARED;
    use crate::zone::Key;
    use proptest::prelude::*;

    fn rules(unhealthy: Unhealthy) -> Rules {
        Rules {
            ip_sources: vec![IpSource::Netinfo, IpSource::Host],
            unhealthy,
            reverse: vec!["10.in-addr.arpa".parse().unwrap()],
            ..Rules::of("mesos".parse().unwrap())
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
            chosen: Box::default(),
            host_ports: vec![(31000, 31001)],
            netinfo: vec![std::net::Ipv4Addr::from(0x0a00_0000 + address).into()],
            docker: Vec::new(),
            mesos: Vec::new(),
            network: Network::Agents,
            healthy,
            faults: Vec::new(),
            status_faults: Vec::new(),
        })
    }

    fn cluster(agents: usize) -> Cluster {
        let agent = |n: usize| {
            let endpoint = Endpoint::parse(&format!("10.200.0.{}:5051", n + 1));
            let id = AgentId(Arc::from(format!("x-S{n}")));
            (id, Arc::new(Agent { endpoint, faults: Vec::new() }))
        };
        let framework =
            Framework { name: "m".into(), scheduler: None, recovered: false, faults: Vec::new() };
        Cluster {
            agents: (0..agents).map(agent).collect(),
            frameworks: [(FrameworkId(Arc::from("f")), Arc::new(framework))].into_iter().collect(),
            ..Cluster::default()
        }
    }

    /// The zone made at once of what the last update gave.
    fn made_afresh(unhealthy: Unhealthy, cluster: &Cluster) -> Zone {
        let mut catalog = Catalog::new(rules(unhealthy), Duration::ZERO);
        catalog.update(cluster.clone(), Duration::ZERO);
        catalog.zone().clone()
    }

    #[test]
    fn a_changed_task_costs_the_same_after_ten_thousand_changes() {
        let mut cluster = cluster_of(5_000);
        let mut catalog = Catalog::new(rules(Unhealthy::Withhold), Duration::ZERO);
        catalog.update(cluster.clone(), Duration::ZERO);
        let mut current = Current::of_reading(catalog.zone(), catalog.zone());
        let mut visit = |number: usize| {
            let id = number * 7 % 5_000;
            let name = format!("app{}", id / 5);
            cluster.tasks.insert(key(id, id % 10), task(&name, 10_000 + number as u32, None));
            catalog.update(cluster.clone(), Duration::ZERO);
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

    /// Tasks on ten agents, five to an app.
    fn cluster_of(tasks: usize) -> Cluster {
        let mut cluster = cluster(10);
        for id in 0..tasks {
            let task = task(&format!("app{}", id / 5), id as u32, None);
            cluster.tasks.insert(key(id, id % 10), task);
        }
        cluster
    }

    /// How many tasks' records an update makes, and how many RRsets it compares.
    fn cost(catalog: &mut Catalog, cluster: &Cluster) -> (usize, usize) {
        MADE.set(0);
        COMPARED.set(0);
        catalog.update(cluster.clone(), Duration::ZERO);
        (MADE.get(), COMPARED.get())
    }

    #[test]
    fn one_changed_task_costs_the_same_among_a_thousand_and_among_fifty_thousand() {
        let costs = [1_000, 50_000].map(|tasks| {
            let mut cluster = cluster_of(tasks);
            let forward = Rules { reverse: Vec::new(), ..rules(Unhealthy::Withhold) };
            let mut catalog = Catalog::new(forward, Duration::ZERO);
            catalog.update(cluster.clone(), Duration::ZERO);
            [7, 501, 502].map(|id| {
                cluster.tasks.insert(key(id, id % 10), task(&format!("app{}", id / 5), 9, None));
                cost(&mut catalog, &cluster)
            })
        });
        assert_eq!(costs[0], costs[1]);
        assert_eq!(costs[0][0].0, 2, "the task before and the task after");
    }

    #[test]
    fn agents_that_come_make_only_the_records_of_their_tasks() {
        let mut cluster = cluster_of(5_000);
        let agents = std::mem::take(&mut cluster.agents);
        let mut catalog = Catalog::new(rules(Unhealthy::Withhold), Duration::ZERO);
        catalog.update(cluster.clone(), Duration::ZERO);
        assert_eq!(catalog.skipped().len(), 5_001, "no leader, and tasks before their agents");
        for (id, agent) in &agents {
            cluster.agents.insert(id.clone(), agent.clone());
            assert_eq!(cost(&mut catalog, &cluster).0, 2 * 500);
        }
        assert_eq!(catalog.skipped().len(), 1);
        for number in 1..200 {
            let agent = agents.values().next().unwrap().clone();
            cluster.agents.insert(AgentId(Arc::from(format!("y-S{number}"))), agent);
            assert_eq!(cost(&mut catalog, &cluster).0, 0, "no task is on it");
        }
        assert!(*catalog.zone() == made_afresh(Unhealthy::Withhold, &cluster));
    }

    #[test]
    fn an_rrset_of_thousands_is_built_a_few_times() {
        let mut cluster = cluster(10);
        let app = (0..20_000).map(|id| (key(id, id % 10), task("app", id as u32, None)));
        cluster.tasks = app.collect();
        let mut catalog = Catalog::new(rules(Unhealthy::Withhold), Duration::ZERO);
        let (_, compared) = cost(&mut catalog, &cluster);
        assert!(compared < 1_000, "{compared}");
        assert_eq!(catalog.zone().record_count(), catalog.zone().records().count());
        catalog.update(Cluster::default(), Duration::ZERO);
        assert!(catalog.zone().is_empty());
    }

    #[test]
    fn a_full_read_of_the_same_shares_what_was_published() {
        let mut catalog = Catalog::new(rules(Unhealthy::Withhold), Duration::ZERO);
        catalog.update(cluster_of(1_000), Duration::ZERO);
        let tasks = catalog.cluster().tasks.clone();
        assert_eq!(cost(&mut catalog, &cluster_of(1_000)), (0, 0));
        assert!(catalog.cluster().tasks.ptr_eq(&tasks));
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// Gone, or there with a name, an address, a health.
        Task(usize, usize, Option<(usize, u32, Option<bool>)>),
        /// Gone, or there with an endpoint; the last of them cannot be resolved.
        Agent(usize, Option<usize>),
        /// Gone, or there with a name and a scheduler.
        Framework(Option<(usize, usize)>),
        Leader(Option<usize>),
    }

    /// The first of them has the address of some tasks.
    const HOSTS: [&str; 3] = ["10.0.0.1:5051", "10.201.0.2:5051", "host.example:5051"];

    fn event() -> impl Strategy<Value = Event> {
        let there = (0..3_usize, 0..3_u32, proptest::option::of(any::<bool>()));
        let host = || proptest::option::of(0..HOSTS.len());
        prop_oneof![
            6 => (0..6_usize, 0..3_usize, proptest::option::of(there))
                .prop_map(|(id, agent, there)| Event::Task(id, agent, there)),
            2 => (0..3_usize, host()).prop_map(|(agent, host)| Event::Agent(agent, host)),
            1 => proptest::option::of((0..3_usize, 0..HOSTS.len())).prop_map(Event::Framework),
            1 => host().prop_map(Event::Leader),
        ]
    }

    fn happen(cluster: &mut Cluster, event: Event) {
        let endpoint = |host: usize| Endpoint::parse(HOSTS[host]);
        match event {
            Event::Task(id, agent, Some((name, address, healthy))) => {
                let mut task = task(["web", "db", "--"][name], address, healthy);
                let chosen = ["www", "www, db.m", "leader"][name];
                Arc::make_mut(&mut task).chosen = [chosen.into()].into();
                cluster.tasks.insert(key(id, agent), task);
            }
            Event::Task(id, agent, None) => {
                cluster.tasks.remove(&key(id, agent));
            }
            Event::Agent(agent, host) => {
                let id = key(0, agent).agent;
                match host.map(|host| Agent { endpoint: endpoint(host), faults: Vec::new() }) {
                    Some(agent) => cluster.agents.insert(id, Arc::new(agent)),
                    None => cluster.agents.remove(&id),
                };
            }
            Event::Framework(there) => {
                let id = key(0, 0).framework;
                let framework = there.map(|(name, host)| Framework {
                    name: ["m", "n.m", "slave"][name].into(),
                    scheduler: endpoint(host),
                    recovered: false,
                    faults: Vec::new(),
                });
                match framework {
                    Some(framework) => cluster.frameworks.insert(id, Arc::new(framework)),
                    None => cluster.frameworks.remove(&id),
                };
            }
            Event::Leader(host) => cluster.leader = host.and_then(endpoint),
        }
    }

    /// The same cluster as another read of it tells: maps of its own.
    fn read_again(cluster: &Cluster) -> Cluster {
        let own = |agent: &Arc<Agent>| Arc::new((**agent).clone());
        Cluster {
            agents: cluster.agents.iter().map(|(id, agent)| (id.clone(), own(agent))).collect(),
            tasks: cluster
                .tasks
                .iter()
                .map(|(key, task)| (key.clone(), Arc::new((**task).clone())))
                .collect(),
            ..cluster.clone()
        }
    }

    proptest! {
        #[test]
        fn any_history_ends_in_the_catalog_made_at_once(
            updates in prop::collection::vec(
                (prop::collection::vec(event(), 1..4), any::<bool>()), 1..30
            ),
        ) {
            let mut catalog = Catalog::new(rules(Unhealthy::Withhold), Duration::ZERO);
            let mut held = held_down();
            let mut now = cluster(2);
            for (at, (events, again)) in (0..).step_by(9).map(Duration::from_secs).zip(updates) {
                events.into_iter().for_each(|event| happen(&mut now, event));
                held.update(now.clone(), at);
                catalog.update(if again { read_again(&now) } else { now.clone() }, Duration::ZERO);
                let mut afresh = Catalog::new(rules(Unhealthy::Withhold), Duration::ZERO);
                afresh.update(now.clone(), Duration::ZERO);
                let (zone, expected) = (catalog.zone(), afresh.zone());
                prop_assert!(zone == expected, "{:#?}\n{:#?}", zone, expected);
                prop_assert_eq!(catalog.reverse(), afresh.reverse());
                prop_assert_eq!(zone.record_count(), expected.record_count());
                prop_assert_eq!(catalog.skipped(), afresh.skipped());
                prop_assert_eq!(catalog.unknown(), afresh.unknown());
                let (reverse, held_reverse) = (reverse(&afresh), reverse(&held));
                for (expected, held) in [(expected, held.zone()), (&reverse, &held_reverse)] {
                    for (key, is, held) in expected.diff(held) {
                        let alone = is.is_none() && expected.at(&key.name).next().is_none();
                        prop_assert!(alone, "{}: {:?}, held {:?}", key.name, is, held);
                    }
                }
            }
            held.expire(Duration::from_secs(1_000));
            prop_assert!(held.zone() == catalog.zone());
            prop_assert_eq!(held.reverse(), catalog.reverse());
        }
    }

    fn reverse(catalog: &Catalog) -> Zone {
        catalog.reverse().pop_first().unwrap().1
    }

    #[test]
    fn a_changed_task_or_agent_costs_its_own_pointers_only() {
        let mut cluster = cluster_of(5_000);
        let mut catalog = Catalog::new(rules(Unhealthy::Withhold), Duration::ZERO);
        catalog.update(cluster.clone(), Duration::ZERO);
        let mut cost = |cluster: &Cluster| {
            let before = reverse(&catalog);
            MADE.set(0);
            COMPARED.set(0);
            catalog.update(cluster.clone(), Duration::ZERO);
            let changed = before.diff(&reverse(&catalog)).count();
            assert!(COMPARED.get() < 1_000, "{}", COMPARED.get());
            (changed, MADE.get())
        };
        cluster.tasks.insert(key(7, 7), task("app1", 9_000, None));
        assert_eq!(cost(&cluster), (2, 2), "one address for another");
        let agent = |n: u8| Agent {
            endpoint: Endpoint::parse(&format!("10.0.0.{n}:5051")),
            faults: Vec::new(),
        };
        for n in 1..50 {
            let id = AgentId(Arc::from(format!("y-S{n}")));
            cluster.agents.insert(id, Arc::new(agent(n)));
            assert_eq!(
                cost(&cluster),
                (usize::from(n != 7), 0),
                "it hides the task at its address"
            );
        }
        cluster.agents.remove(&AgentId(Arc::from("y-S9")));
        assert_eq!(cost(&cluster), (1, 0));
    }

    fn held_down() -> Catalog {
        Catalog::new(rules(Unhealthy::Withhold), Duration::from_secs(30))
    }

    fn names(catalog: &Catalog, name: &str) -> Vec<String> {
        let name = format!("{name}.m.mesos").parse().unwrap();
        let at = catalog.zone().at(&name);
        at.flat_map(|(_, set)| set.rdata().iter().map(ToString::to_string)).collect()
    }

    #[test]
    fn a_name_stays_for_a_while_after_its_last_task_and_its_records_do_not() {
        let (mut catalog, at) = (held_down(), Duration::from_secs);
        let mut cluster = cluster(1);
        cluster.tasks.insert(key(1, 0), task("web", 1, None));
        cluster.tasks.insert(key(2, 0), task("web", 2, None));
        catalog.update(cluster.clone(), at(0));
        cluster.tasks.remove(&key(2, 0));
        catalog.update(cluster.clone(), at(1));
        assert_eq!(names(&catalog, "web"), ["10.0.0.1"], "another task keeps the name");
        assert_eq!(catalog.next_due(), Some(at(31)), "that of the task alone");
        cluster.tasks.remove(&key(1, 0));
        catalog.update(cluster.clone(), at(2));
        assert_eq!(names(&catalog, "web"), ["10.0.0.1"]);
        catalog.expire(at(31));
        assert_eq!(names(&catalog, "web"), ["10.0.0.1"]);
        catalog.expire(at(32));
        assert_eq!((names(&catalog, "web"), catalog.next_due()), (Vec::new(), None));
        let mut empty = Catalog::new(rules(Unhealthy::Withhold), Duration::ZERO);
        empty.update(cluster, Duration::ZERO);
        assert!(*catalog.zone() == *empty.zone(), "nothing else is left");
    }

    #[test]
    fn a_new_task_takes_over_a_name_that_is_held() {
        let (mut catalog, at) = (held_down(), Duration::from_secs);
        let mut cluster = cluster(1);
        cluster.tasks.insert(key(1, 0), task("web", 1, None));
        catalog.update(cluster.clone(), at(0));
        cluster.tasks.remove(&key(1, 0));
        catalog.update(cluster.clone(), at(1));
        cluster.tasks.insert(key(2, 0), task("web", 2, None));
        catalog.update(cluster.clone(), at(2));
        assert_eq!(names(&catalog, "web"), ["10.0.0.2"], "the old address goes at once");
        catalog.expire(at(100));
        assert_eq!(names(&catalog, "web"), ["10.0.0.2"]);
        let mut afresh = Catalog::new(rules(Unhealthy::Withhold), Duration::ZERO);
        afresh.update(cluster, Duration::ZERO);
        assert!(*catalog.zone() == *afresh.zone());
    }
}
