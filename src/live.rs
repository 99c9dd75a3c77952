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
}

/// What an event asks for beyond the change of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asks {
    Nothing,
    /// A host name may be new.
    Hosts,
    /// A framework is new, and only a poll tells where its scheduler is.
    Frameworks,
    /// The stream spoke of a task it never told before: read everything again.
    Everything,
}

impl Live {
    /// Begins with a whole state.
    pub fn new(waiting: Vec<(TaskKey, Arc<Task>)>) -> Live {
        Live { waiting: waiting.into_iter().collect(), absent: BTreeSet::new() }
    }

    /// Makes the cluster what it is after the event. A repeated event changes nothing.
    pub fn apply(&mut self, cluster: &mut Cluster, event: Event) -> Asks {
        match event {
            Event::TaskAdded(told) => self.add(cluster, told),
            Event::TaskUpdated(update) => return self.update(cluster, update),
            Event::AgentAdded(id, agent) => {
                cluster.recovered.remove(&id);
                self.absent.remove(&id);
                put_agent(cluster, id, agent);
                return Asks::Hosts;
            }
            Event::AgentRemoved(id) => {
                cluster.recovered.remove(&id);
                cluster.agents.remove(&id);
            }
            Event::Framework(id, mut framework) => {
                // The stream never tells a pid; one that a poll told is still good.
                let old = cluster.frameworks.get(&id).and_then(|old| old.scheduler.as_ref());
                if let Some(by_pid) = old.filter(|scheduler| scheduler.port.is_some()) {
                    framework.scheduler = Some(by_pid.clone());
                }
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
        let Some(key) = self.key(cluster, &update) else {
            return match update.state {
                TaskState::Over => Asks::Nothing,
                TaskState::Running | TaskState::Waiting => Asks::Everything,
            };
        };
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
                let Some(known) = known else { return Asks::Everything };
                let mut task = (*known).clone();
                if let Some(running) = update.running {
                    running.into_task(&mut task);
                }
                put_task(cluster, key, task);
            }
        }
        Asks::Nothing
    }

    /// The key of the task that an update is about; a status that the master makes names no agent.
    fn key(&self, cluster: &Cluster, update: &Update) -> Option<TaskKey> {
        let Update { framework, task, .. } = update;
        let of = |agent| TaskKey { framework: framework.clone(), task: task.clone(), agent };
        if let Some(agent) = &update.agent {
            let key = of(agent.clone());
            let known = cluster.tasks.contains_key(&key) || self.waiting.contains_key(&key);
            return known.then_some(key);
        }
        let first = of(AgentId(Arc::from("")));
        let same = |key: &&TaskKey| key.framework == *framework && key.task == *task;
        let running = cluster.tasks.range(first.clone()..).next().map(|(key, _)| key);
        let waiting = self.waiting.range(first..).next().map(|(key, _)| key);
        running.filter(same).or(waiting.filter(same)).cloned()
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

    /// Takes in what `/slaves` listed. The stream does not tell of an agent that became
    /// unreachable, was marked gone or came back with another address. An agent's absence is
    /// believed at the second poll, and not before the cluster is complete.
    pub fn agents_polled(
        &mut self,
        cluster: &mut Cluster,
        listed: &Cluster,
        completeness: Completeness,
    ) {
        for (id, agent) in &listed.agents {
            if cluster.agents.get(id) != Some(agent) {
                put_agent(cluster, id.clone(), (**agent).clone());
            }
        }
        let back = |id: &AgentId| listed.agents.contains_key(id) || !listed.recovered.contains(id);
        for id in cluster.recovered.clone().into_iter().filter(back) {
            cluster.recovered.remove(&id);
        }
        if !completeness.is_complete() {
            return;
        }
        let unlisted = cluster.agents.keys().filter(|id| !listed.agents.contains_key(*id));
        let unlisted: BTreeSet<AgentId> = unlisted.cloned().collect();
        for id in unlisted.intersection(&self.absent) {
            cluster.agents.remove(id);
        }
        self.absent = unlisted;
    }
}

/// Takes in what `/state-summary` listed: where the schedulers are whose frameworks the stream
/// has told.
pub fn frameworks_polled(cluster: &mut Cluster, listed: &Cluster) {
    for (id, framework) in &listed.frameworks {
        let known = cluster.frameworks.get(id);
        if known.is_some_and(|known| known != framework) {
            put_framework(cluster, id.clone(), (**framework).clone());
        }
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
    use crate::state::{self, State};

    fn fixture(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::read(folder.join("integration/fixtures/mesos").join(name)).unwrap()
    }

    /// The cluster and the waiting tasks at the end of a recorded stream, in chunks of this size.
    fn replayed(name: &str, size: usize) -> (Cluster, Live) {
        let (mut reader, mut cluster) = (EventReader::default(), Cluster::default());
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
}
