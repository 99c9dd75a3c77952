//! The cluster as a stream's events change it, and as polls of its agents and frameworks tell
//! what the stream never does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::{Agent, AgentId, Cluster, Endpoint, Framework, FrameworkId, Task, TaskKey};
use crate::events::Event;
use crate::snapshot::Completeness;
use crate::task::{TaskState, ToldTask, Update};

/// What has to be known beside the cluster to follow it.
#[derive(Default)]
pub struct Live {
    /// Tasks that may run: an update tells neither their names nor their ports.
    waiting: BTreeMap<TaskKey, Arc<Task>>,
    /// Agents that the last poll did not list.
    absent: BTreeSet<AgentId>,
    /// What events told since the poll that is under way was asked for: it knows less of them.
    told_agents: BTreeSet<AgentId>,
    told_frameworks: BTreeSet<FrameworkId>,
}

/// What an event asks for beyond the change of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asks {
    Nothing,
    /// A host name may be new.
    Hosts,
    /// A framework is new, and only a poll tells where its scheduler is.
    Frameworks,
    /// An agent is back while others are not: reading everything tells which of its tasks are not.
    Back,
    /// The stream spoke of a task it never told before, or of either of two: read everything
    /// again, some time.
    Untold,
    /// Whoever answers knows less than was known before: read everything again.
    Everything,
}

impl Live {
    /// Begins with a whole state.
    pub fn new(waiting: Vec<(TaskKey, Arc<Task>)>) -> Live {
        Live { waiting: waiting.into_iter().collect(), ..Live::default() }
    }

    /// Makes the cluster what it is after the event. A repeated event changes nothing.
    pub fn apply(&mut self, cluster: &mut Cluster, event: Event) -> Asks {
        match event {
            Event::TaskAdded(told) => self.add(cluster, told),
            Event::TaskUpdated(update) => return self.update(cluster, update),
            Event::AgentAdded(id, agent) => {
                self.absent.remove(&id);
                self.told_agents.insert(id.clone());
                let back = cluster.recovered.remove(&id).is_some();
                put_agent(cluster, id, agent);
                return if back { Asks::Back } else { Asks::Hosts };
            }
            Event::AgentRemoved(id) => {
                cluster.recovered.remove(&id);
                cluster.agents.remove(&id);
                self.told_agents.insert(id);
            }
            Event::Framework(id, mut framework) => {
                // The stream never tells a pid; one that a poll told is still good.
                let old = cluster.frameworks.get(&id).and_then(|old| old.scheduler.as_ref());
                if let Some(by_pid) = old.filter(|scheduler| scheduler.port.is_some()) {
                    framework.scheduler = Some(by_pid.clone());
                }
                self.told_frameworks.insert(id.clone());
                put_framework(cluster, id, framework);
                return Asks::Frameworks;
            }
            Event::FrameworkRemoved(id) => self.remove_framework(cluster, &id),
            Event::Subscribed { .. } | Event::Heartbeat | Event::Unread(_) | Event::Other => {}
        }
        Asks::Nothing
    }

    fn add(&mut self, cluster: &mut Cluster, told: ToldTask) {
        let ToldTask { key, state, task } = told;
        match state {
            TaskState::Running => {
                self.waiting.remove(&key);
                put_task(cluster, key, task);
            }
            TaskState::Waiting => {
                cluster.tasks.remove(&key);
                self.waiting.insert(key, Arc::new(task));
            }
            TaskState::Over => {
                cluster.tasks.remove(&key);
                self.waiting.remove(&key);
            }
        }
    }

    fn update(&mut self, cluster: &mut Cluster, update: Update) -> Asks {
        let keys = self.keys(cluster, &update);
        let [key] = &keys[..] else {
            return match update.state {
                TaskState::Over if keys.is_empty() => Asks::Nothing,
                TaskState::Over | TaskState::Running | TaskState::Waiting => Asks::Untold,
            };
        };
        let key = key.clone();
        match update.state {
            TaskState::Over => {
                cluster.tasks.remove(&key);
                self.waiting.remove(&key);
            }
            TaskState::Waiting => {
                if let Some(task) = cluster.tasks.remove(&key) {
                    self.waiting.insert(key, task);
                }
            }
            TaskState::Running => {
                let known = self.waiting.remove(&key).or_else(|| cluster.tasks.get(&key).cloned());
                let Some(known) = known else { return Asks::Untold };
                let mut task = (*known).clone();
                if let Some(running) = update.running {
                    running.into_task(&mut task);
                }
                put_task(cluster, key, task);
            }
        }
        Asks::Nothing
    }

    /// The keys of the tasks that an update may be about: a status that the master makes names no
    /// agent.
    fn keys(&self, cluster: &Cluster, update: &Update) -> Vec<TaskKey> {
        let Update { framework, task, .. } = update;
        let of = |agent| TaskKey { framework: framework.clone(), task: task.clone(), agent };
        if let Some(agent) = &update.agent {
            let key = of(agent.clone());
            let known = cluster.tasks.contains_key(&key) || self.waiting.contains_key(&key);
            return known.then_some(key).into_iter().collect();
        }
        let first = of(AgentId(Arc::from("")));
        let same = |key: &&TaskKey| key.framework == *framework && key.task == *task;
        let running = cluster.tasks.range(first.clone()..).map(|(key, _)| key).take_while(same);
        let waiting = self.waiting.range(first..).map(|(key, _)| key).take_while(same);
        running.chain(waiting).cloned().collect()
    }

    fn remove_framework(&mut self, cluster: &mut Cluster, id: &FrameworkId) {
        cluster.frameworks.remove(id);
        let (task, agent) = (Arc::from(""), AgentId(Arc::from("")));
        let first = TaskKey { framework: id.clone(), task, agent };
        let own = cluster.tasks.range(first..).map(|(key, _)| key);
        let own: Vec<TaskKey> = own.take_while(|key| key.framework == *id).cloned().collect();
        for key in own {
            cluster.tasks.remove(&key);
        }
        self.waiting.retain(|key, _| key.framework != *id);
    }

    /// A poll is asked for: what events tell from now on it may not know yet.
    pub fn poll(&mut self) {
        self.told_agents.clear();
        self.told_frameworks.clear();
    }

    /// Takes in what `/slaves` listed. The stream does not tell of an agent that became
    /// unreachable, was marked gone or came back with another address. An agent's absence is
    /// believed at the second poll, and not before the cluster is complete; nor from a master that
    /// waits for agents the stream did not wait for, or has none: that is another master.
    pub fn agents_polled(
        &mut self,
        cluster: &mut Cluster,
        listed: &Cluster,
        completeness: Completeness,
    ) -> Asks {
        let waits = listed.recovered.iter().any(|id| !cluster.recovered.contains(id));
        let fewer = waits || listed.agents.is_empty() && !cluster.agents.is_empty();
        if completeness.is_complete() && fewer {
            return Asks::Everything;
        }
        let told = |id: &AgentId| self.told_agents.contains(id);
        for (id, agent) in listed.agents.iter().filter(|(id, _)| !told(id)) {
            if cluster.agents.get(id) != Some(agent) {
                put_agent(cluster, id.clone(), (**agent).clone());
            }
        }
        let back = |id: &AgentId| listed.agents.contains_key(id) || !listed.recovered.contains(id);
        for id in cluster.recovered.clone().into_iter().filter(back) {
            cluster.recovered.remove(&id);
        }
        if !completeness.is_complete() {
            return Asks::Hosts;
        }
        let unlisted = |id: &&AgentId| !listed.agents.contains_key(*id) && !told(id);
        let unlisted: BTreeSet<AgentId> = cluster.agents.keys().filter(unlisted).cloned().collect();
        for id in unlisted.intersection(&self.absent) {
            cluster.agents.remove(id);
        }
        self.absent = unlisted;
        Asks::Hosts
    }

    /// Takes in what `/state-summary` listed of frameworks that no event told since.
    pub fn frameworks_polled(&self, cluster: &mut Cluster, listed: &Cluster) {
        let told = |id: &FrameworkId| self.told_frameworks.contains(id);
        for (id, framework) in listed.frameworks.iter().filter(|(id, _)| !told(id)) {
            put_scheduler(cluster, id, framework);
        }
    }
}

/// Takes in what `/state-summary` listed: where the schedulers are whose frameworks the stream
/// has told.
pub fn schedulers(cluster: &mut Cluster, listed: &Cluster) {
    for (id, framework) in &listed.frameworks {
        put_scheduler(cluster, id, framework);
    }
}

fn put_scheduler(cluster: &mut Cluster, id: &FrameworkId, framework: &Arc<Framework>) {
    if cluster.frameworks.get(id).is_some_and(|known| known != framework) {
        put_framework(cluster, id.clone(), (**framework).clone());
    }
}

fn put_task(cluster: &mut Cluster, key: TaskKey, task: Task) {
    if cluster.tasks.get(&key).is_none_or(|known| **known != task) {
        cluster.tasks.insert(key, Arc::new(task));
    }
}

fn put_agent(cluster: &mut Cluster, id: AgentId, mut agent: Agent) {
    let known = cluster.agents.get(&id);
    keep_addresses(known.and_then(|known| known.endpoint.as_ref()), &mut agent.endpoint);
    if known.is_none_or(|known| **known != agent) {
        cluster.agents.insert(id, Arc::new(agent));
    }
}

fn put_framework(cluster: &mut Cluster, id: FrameworkId, mut framework: Framework) {
    let known = cluster.frameworks.get(&id);
    known.into_iter().for_each(|known| framework.keep_pid(known));
    keep_addresses(known.and_then(|known| known.scheduler.as_ref()), &mut framework.scheduler);
    if known.is_none_or(|known| **known != framework) {
        cluster.frameworks.insert(id, Arc::new(framework));
    }
}

/// A host name that was resolved before is still.
fn keep_addresses(known: Option<&Endpoint>, told: &mut Option<Endpoint>) {
    if let (Some(known), Some(told)) = (known, told)
        && known.host == told.host
    {
        told.addresses.clone_from(&known.addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventReader;
    use crate::snapshot::Recovering;
    use crate::state::{self, State, StateReader};

    fn fixture(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::read(folder.join("integration/fixtures/mesos").join(name)).unwrap()
    }

    /// The cluster and the waiting tasks at the end of a recorded stream, in chunks of this size.
    fn replayed(name: &str, size: usize) -> (Cluster, Live) {
        let (mut reader, mut cluster) = (EventReader::new(None), Cluster::default());
        let mut live = Live::default();
        for chunk in fixture(name).chunks(size) {
            let taken = reader.push(chunk, |event| match event {
                Event::Subscribed { state, .. } => {
                    cluster = state.cluster;
                    live = Live::new(state.waiting);
                }
                event => {
                    assert!(!matches!(event, Event::Unread(_) | Event::Other));
                    assert_ne!(live.apply(&mut cluster, event), Asks::Everything);
                }
            });
            taken.unwrap();
        }
        (cluster, live)
    }

    fn recorded(name: &str) -> State {
        state::parse(&fixture(name)).unwrap()
    }

    /// Running tasks by id, less those that the recordings' README names as never told.
    fn running(cluster: &Cluster, untold: &[&str]) -> BTreeMap<TaskKey, Arc<Task>> {
        let told = cluster.tasks.iter().filter(|(key, _)| !untold.contains(&&*key.task));
        told.map(|(key, task)| (key.clone(), task.clone())).collect()
    }

    #[track_caller]
    fn check_replay(stream: &str, last: &str, untold: &[&str]) {
        for size in [1, 100, usize::MAX] {
            let (cluster, live) = replayed(stream, size);
            let last = recorded(last);
            assert_eq!(running(&cluster, untold), running(&last.cluster, untold));
            for task in untold {
                let has = |cluster: &Cluster| cluster.tasks.keys().any(|key| &*key.task == *task);
                assert_eq!(has(&cluster), has(&last.cluster), "{task}");
            }
            let waiting: Vec<&TaskKey> = live.waiting.keys().collect();
            let mut expected: Vec<&TaskKey> = last.waiting.iter().map(|(key, _)| key).collect();
            expected.sort();
            assert_eq!(waiting, expected);
            let names = |cluster: &Cluster| -> Vec<(FrameworkId, Box<str>)> {
                let each = cluster.frameworks.iter();
                each.map(|(id, framework)| (id.clone(), framework.name.clone())).collect()
            };
            assert_eq!(names(&cluster), names(&last.cluster));
        }
    }

    #[test]
    fn a_recorded_stream_ends_in_the_recorded_state() {
        check_replay(
            "2-stream/subscribe-json.recordio",
            "8b-agent-deactivated/state.json",
            &["ip-change.1", "flapping.1"],
        );
        check_replay(
            "9-failover-stream/subscribe-json.recordio",
            "9e-failover-all-back/state.json",
            &[],
        );
    }

    const LOST: &str = "5-after-kills-teardown-disconnect";
    const RECOVERING: Completeness = Completeness::Recovering(Recovering::Agents(1));

    /// The agents of a recorded `/slaves`, from anything that is in its text.
    fn listed(text: &[u8]) -> Cluster {
        let mut reader = StateReader::new(None);
        reader.push(text);
        reader.finish_agents().unwrap().cluster
    }

    fn agents_of(folder: &str) -> Cluster {
        listed(&fixture(&format!("{folder}/slaves.json")))
    }

    /// A recorded state, then recorded polls; how many agents there are after each, and the end.
    fn polled(state: &str, polls: &[(&str, Completeness)]) -> (Vec<usize>, Cluster) {
        let State { mut cluster, waiting, .. } = recorded(&format!("{state}/state.json"));
        let mut live = Live::new(waiting);
        let poll = |(folder, completeness): &(&str, Completeness)| {
            live.agents_polled(&mut cluster, &agents_of(folder), *completeness);
            cluster.agents.len()
        };
        (polls.iter().map(poll).collect(), cluster)
    }

    #[test]
    fn an_agent_that_is_not_listed_is_believed_gone_at_the_second_poll() {
        use Completeness::Complete;
        let (lost, back) = (("6-agent-lost", Complete), ("7-agent-back", Complete));
        let (counts, cluster) = polled(LOST, &[lost, lost, lost]);
        assert_eq!(counts, [2, 1, 1]);
        assert_eq!(cluster.agents, recorded("6-agent-lost/state.json").cluster.agents);
        assert_eq!(polled(LOST, &[lost, back, lost]).0, [2, 2, 2], "absent twice, not in a row");
    }

    #[test]
    fn no_absence_is_believed_while_the_cluster_recovers() {
        let (held, lost) = (("6-agent-lost", RECOVERING), ("6-agent-lost", Completeness::Complete));
        assert_eq!(polled(LOST, &[held, held, held]).0, [2, 2, 2]);
        assert_eq!(polled(LOST, &[held, held, lost, lost]).0, [2, 2, 2, 1]);
    }

    #[test]
    fn an_agent_that_is_back_is_listed_as_it_was() {
        use Completeness::Complete;
        let (lost, back) = (("6-agent-lost", Complete), ("7-agent-back", Complete));
        let before = recorded(&format!("{LOST}/state.json")).cluster;
        let (counts, cluster) = polled(LOST, &[lost, lost, back]);
        assert_eq!(counts, [2, 1, 2]);
        assert_eq!(cluster.agents, before.agents);
        assert_eq!(cluster.agents, recorded("7-agent-back/state.json").cluster.agents);
        // One who was gone is missed twice again.
        assert_eq!(polled(LOST, &[lost, lost, back, lost, lost]).0, [2, 1, 2, 2, 1]);
    }

    #[test]
    fn an_agent_is_where_it_was_last_listed() {
        let text = String::from_utf8(fixture("7-agent-back/slaves.json")).unwrap();
        let moved = listed(text.replace("127.0.0.3:5051", "127.0.0.33:5052").as_bytes());
        let State { mut cluster, waiting, .. } = recorded("7-agent-back/state.json");
        let tasks = cluster.tasks.clone();
        for completeness in [RECOVERING, Completeness::Complete] {
            Live::new(waiting.clone()).agents_polled(&mut cluster, &moved, completeness);
            let endpoints = cluster.agents.values().filter_map(|agent| agent.endpoint.as_ref());
            let hosts: Vec<String> = endpoints.map(|endpoint| endpoint.authority(0)).collect();
            assert_eq!(hosts, ["127.0.0.33:5052", "127.0.0.2:5051"]);
            assert_eq!(cluster.tasks, tasks);
        }
    }

    #[test]
    fn agents_that_are_disconnected_restarted_or_deactivated_stay_with_their_tasks() {
        use Completeness::Complete;
        for (state, folder) in [
            ("16a-agent-disconnected", "16b-agent-restarted"),
            ("16b-agent-restarted", "16a-agent-disconnected"),
            ("16b-agent-restarted", "16c-framework-disconnected"),
            ("8-agent-left-agent-gone", "8b-agent-deactivated"),
        ] {
            let before = recorded(&format!("{state}/state.json")).cluster;
            let (counts, cluster) = polled(state, &[(folder, Complete); 3]);
            assert_eq!(counts, [2, 2, 2], "{folder}");
            assert_eq!(cluster.agents, before.agents, "{folder}");
            assert_eq!(cluster.tasks, before.tasks, "{folder}");
            let after = recorded(&format!("{folder}/state.json")).cluster;
            assert_eq!(cluster.agents, after.agents, "{folder}");
        }
    }

    #[test]
    fn polls_tell_of_the_agents_that_a_stream_did_not_see_go() {
        let (mut cluster, mut live) = replayed("2-stream/subscribe-json.recordio", usize::MAX);
        let last = recorded("8b-agent-deactivated/state.json").cluster;
        assert!(cluster.agents.len() > last.agents.len(), "one was marked gone");
        for _ in 0..2 {
            let agents = agents_of("8b-agent-deactivated");
            live.poll();
            live.agents_polled(&mut cluster, &agents, Completeness::Complete);
        }
        assert_eq!(cluster.agents, last.agents);
    }

    #[test]
    fn recovered_agents_are_waited_for_until_they_are_back_or_gone_from_both_lists() {
        let nobody = "9a-failover-nobody-back";
        let back = |folder| polled(nobody, &[(folder, RECOVERING)]).1;
        assert_eq!(back(nobody).recovered.len(), 2);
        let one = back("9c-failover-one-agent-back");
        assert_eq!((one.agents.len(), one.recovered.len()), (1, 1));
        let both = back("9d-failover-both-agents-back");
        assert_eq!((both.agents.len(), both.recovered.len()), (2, 0));
        // One of them is registered there, and the other unreachable.
        let gone = back("6-agent-lost");
        assert_eq!((gone.agents.len(), gone.recovered.len()), (1, 0));
    }

    #[test]
    fn a_disconnected_framework_keeps_its_name_and_its_tasks() {
        let mut cluster = recorded("16b-agent-restarted/state.json").cluster;
        let (before, after) = (cluster.clone(), recorded("16c-framework-disconnected/state.json"));
        Live::default().frameworks_polled(&mut cluster, &after.cluster);
        for other in [&before, &after.cluster] {
            assert_eq!(cluster.frameworks, other.frameworks);
            assert_eq!(cluster.tasks, other.tasks);
        }
        let mut cluster = recorded(&format!("{LOST}/state.json")).cluster;
        let before = cluster.clone();
        let mut reader = StateReader::new(None);
        reader.push(&fixture(&format!("{LOST}/state-summary.json")));
        Live::default()
            .frameworks_polled(&mut cluster, &reader.finish_frameworks().unwrap().cluster);
        assert_eq!(cluster.frameworks, before.frameworks);
        assert_eq!(cluster.tasks, before.tasks);
    }

    #[test]
    fn a_poll_of_a_master_that_knows_fewer_takes_nothing_away() {
        let before = recorded("3-running/state.json").cluster;
        for folder in
            ["9a-failover-nobody-back", "11-elected-but-recovering", "9c-failover-one-agent-back"]
        {
            let (mut cluster, mut live) = (before.clone(), Live::default());
            for _ in 0..3 {
                let listed = recorded(&format!("{folder}/state.json")).cluster;
                let asks = live.agents_polled(&mut cluster, &listed, Completeness::Complete);
                assert_eq!(asks, Asks::Everything, "{folder}");
            }
            assert_eq!(cluster.agents, before.agents, "{folder}");
        }
    }

    #[test]
    fn agents_waited_for_after_the_hold_keep_no_poll_from_being_believed() {
        let mut cluster = recorded("9c-failover-one-agent-back/state.json").cluster;
        let mut listed = cluster.clone();
        listed.agents = listed
            .agents
            .iter()
            .map(|(id, agent)| {
                let endpoint = Endpoint::parse("10.9.9.9:5051");
                (id.clone(), Arc::new(Agent { endpoint, ..(**agent).clone() }))
            })
            .collect();
        let asks = Live::default().agents_polled(&mut cluster, &listed, Completeness::Complete);
        assert_eq!((asks, cluster.agents), (Asks::Hosts, listed.agents));
    }

    #[test]
    fn a_poll_asked_for_before_an_event_does_not_undo_it() {
        let mut cluster = recorded("3-running/state.json").cluster;
        let listed = cluster.clone();
        let (gone, agent) = cluster.agents.iter().next().unwrap();
        let (gone, agent) = (gone.clone(), (**agent).clone());
        let mut live = Live::default();
        live.poll();
        live.apply(&mut cluster, Event::AgentRemoved(gone.clone()));
        live.agents_polled(&mut cluster, &listed, Completeness::Complete);
        assert!(!cluster.agents.contains_key(&gone), "the poll is older");
        live.poll();
        live.apply(&mut cluster, Event::AgentAdded(gone.clone(), agent));
        let without = listed.agents.without(&gone);
        let older = Cluster { agents: without, ..listed.clone() };
        for _ in 0..2 {
            live.agents_polled(&mut cluster, &older, Completeness::Complete);
            assert!(cluster.agents.contains_key(&gone), "the poll is older");
        }
        for believed in [false, true] {
            live.poll();
            live.agents_polled(&mut cluster, &older, Completeness::Complete);
            assert_eq!(!cluster.agents.contains_key(&gone), believed);
        }
    }

    #[test]
    fn a_status_without_an_agent_ends_no_task_that_may_be_another() {
        let mut cluster = recorded("3-running/state.json").cluster;
        let (key, task) = cluster.tasks.iter().next().unwrap();
        let (key, task) = (key.clone(), task.clone());
        let update = || Update {
            framework: key.framework.clone(),
            task: key.task.clone(),
            agent: None,
            state: TaskState::Over,
            running: None,
        };
        let elsewhere = TaskKey { agent: AgentId(Arc::from("elsewhere")), ..key.clone() };
        cluster.tasks.insert(elsewhere.clone(), task);
        let mut live = Live::default();
        assert_eq!(live.apply(&mut cluster, Event::TaskUpdated(update())), Asks::Untold);
        assert!(cluster.tasks.contains_key(&key) && cluster.tasks.contains_key(&elsewhere));
        cluster.tasks.remove(&elsewhere);
        assert_eq!(live.apply(&mut cluster, Event::TaskUpdated(update())), Asks::Nothing);
        assert!(!cluster.tasks.contains_key(&key));
    }
}
