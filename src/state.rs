//! A master's whole state as it arrives: `GET /state` and `GET /slaves` (`src/master/http.cpp`).
//!
//! A field of a wrong type costs its own task, agent or framework and is reported; only a text
//! that is no whole JSON object, or whose lists are no lists, is an error.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::cluster::{Cluster, Endpoint, FrameworkId, Task, TaskKey};
use crate::mesos::{self, Ids, Members, Unread};
use crate::splitter::{Keys, Leads, Splitter};
use crate::task::{self, TaskState, ToldTask};

/// A state read: the cluster, the tasks it lists as not running, and what could not be read.
#[derive(Default)]
pub struct State {
    pub cluster: Cluster,
    pub ended: HashSet<TaskKey>,
    /// Of those that do not run, the ones that may yet.
    pub waiting: Vec<(TaskKey, Arc<Task>)>,
    /// Frameworks that are over.
    pub completed: HashSet<FrameworkId>,
    pub unread: Vec<Unread>,
}

impl State {
    pub(crate) fn add(&mut self, told: ToldTask) {
        let ToldTask { key, state, task } = told;
        match state {
            TaskState::Running => {
                self.cluster.tasks.insert(key, Arc::new(task));
                return;
            }
            TaskState::Waiting => self.waiting.push((key.clone(), Arc::new(task))),
            TaskState::Over => {}
        }
        self.ended.insert(key);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("this is no Mesos state")]
pub struct StateError(#[from] serde_json::Error);

/// Reads a whole `/state` answer, without what tasks choose.
pub fn parse(body: &[u8]) -> Result<State, StateError> {
    let mut reader = StateReader::new(None);
    reader.push(body);
    reader.finish()
}

/// What the lists of a state hold.
#[derive(Clone, Copy)]
enum List {
    Agents,
    Recovered,
    Frameworks,
    CompletedFrameworks,
    Tasks,
    Ended,
    /// Nothing that names need.
    Other,
}

const LISTS: Keys<List> = &[
    ("slaves", Leads::List(List::Agents, &[])),
    ("recovered_slaves", Leads::List(List::Recovered, &[])),
    (
        "frameworks",
        Leads::List(
            List::Frameworks,
            &[
                ("tasks", Leads::List(List::Tasks, &[])),
                ("completed_tasks", Leads::List(List::Ended, &[])),
                ("unreachable_tasks", Leads::List(List::Ended, &[])),
                ("executors", Leads::List(List::Other, &[])),
                ("completed_executors", Leads::List(List::Other, &[])),
            ],
        ),
    ),
    (
        "completed_frameworks",
        Leads::List(
            List::CompletedFrameworks,
            &[
                ("tasks", Leads::List(List::Ended, &[])),
                ("completed_tasks", Leads::List(List::Ended, &[])),
                ("unreachable_tasks", Leads::List(List::Ended, &[])),
                ("executors", Leads::List(List::Other, &[])),
                ("completed_executors", Leads::List(List::Other, &[])),
            ],
        ),
    ),
];

/// Reads a `/state` as it comes.
pub struct StateReader {
    splitter: Splitter<List>,
    gathered: Gathered,
}

#[derive(Default)]
struct Gathered {
    state: State,
    ids: Ids,
    chooses: Option<Arc<str>>,
    /// Tasks of the framework being read: its own keys may come after them.
    tasks: Vec<ToldTask>,
    ended: Vec<TaskKey>,
    members: Members,
}

impl StateReader {
    /// Of the tasks' labels those of the key `chooses` are kept.
    pub fn new(chooses: Option<Arc<str>>) -> StateReader {
        let gathered = Gathered { chooses, ..Gathered::default() };
        StateReader { splitter: Splitter::new(LISTS), gathered }
    }

    /// Takes the next octets of the body.
    pub fn push(&mut self, chunk: &[u8]) {
        self.splitter.push(chunk, |list, text| self.gathered.member(list, text));
    }

    /// The state, once the body is whole.
    pub fn finish(self) -> Result<State, StateError> {
        let skeleton = self.splitter.skeleton();
        let raw: RawState<'_> = serde_json::from_slice(&skeleton)?;
        let _: (RawAgents, RawFrameworks) =
            (serde_json::from_slice(&skeleton)?, serde_json::from_slice(&skeleton)?);
        let mut state = self.gathered.whole()?;
        state.cluster.master_id = lenient::<String>(raw.id).unwrap_or_default().into();
        state.cluster.elected_time = lenient(raw.elected_time);
        let leader: Option<String> = lenient(raw.leader);
        if let Some(pid) = leader.as_deref().filter(|pid| !pid.is_empty()) {
            state.cluster.leader = Endpoint::parse_pid(pid);
            if state.cluster.leader.is_none() {
                let fault = format!("pid {pid:?} has no host and port");
                state.unread.push(Unread { kind: "master", id: "leader".to_owned(), fault });
            }
        }
        Ok(state)
    }

    /// The registered and the recovered agents, once a body of `/slaves` is whole.
    pub fn finish_agents(self) -> Result<State, StateError> {
        let skeleton = self.splitter.skeleton();
        let _: RawAgents = serde_json::from_slice(&skeleton)?;
        Ok(self.gathered.whole()?)
    }

    /// The frameworks, once a body of `/state-summary` is whole.
    pub fn finish_frameworks(self) -> Result<State, StateError> {
        let skeleton = self.splitter.skeleton();
        let _: RawFrameworks = serde_json::from_slice(&skeleton)?;
        Ok(self.gathered.whole()?)
    }
}

impl Gathered {
    fn whole(self) -> Result<State, serde_json::Error> {
        self.members.check()?;
        Ok(self.state)
    }

    fn member(&mut self, list: List, text: &[u8]) {
        let Gathered { state, ids, chooses, tasks, ended, members } = self;
        let unread = &mut state.unread;
        match list {
            List::Agents => {
                if let Some((id, agent)) = members.read("agent", text, mesos::agent(text), unread) {
                    state.cluster.agents.insert(id, Arc::new(agent));
                }
            }
            List::Recovered => {
                let id = members.read("agent", text, mesos::recovered(text), unread);
                state.cluster.recovered.extend(id);
            }
            List::Tasks => {
                let told = task::task(text, ids, chooses.as_deref());
                tasks.extend(members.read("task", text, told, unread));
            }
            List::Ended => {
                // One that cannot be read is left out: it makes no records either way.
                let key = task::task_key(text, ids);
                ended.extend(members.checked(text, key).and_then(Result::ok));
            }
            List::Frameworks | List::CompletedFrameworks => self.framework(list, text),
            List::Other => members.skip(text),
        }
    }

    fn framework(&mut self, list: List, text: &[u8]) {
        let (tasks, ended) = (std::mem::take(&mut self.tasks), std::mem::take(&mut self.ended));
        let read = mesos::framework(text);
        let read = self.members.read("framework", text, read, &mut self.state.unread);
        let Some((id, framework)) = read else { return };
        for mut told in tasks {
            told.key.framework = id.clone();
            self.state.add(told);
        }
        let named = ended.into_iter().map(|key| TaskKey { framework: id.clone(), ..key });
        self.state.ended.extend(named);
        match list {
            List::Frameworks => {
                self.state.cluster.frameworks.insert(id, Arc::new(framework));
            }
            _ => {
                self.state.completed.insert(id);
            }
        }
    }
}

/// A value of the master itself: of a wrong type it is as if it were missing, and costs its own
/// records.
fn lenient<'s, T: Deserialize<'s>>(value: Option<&'s RawValue>) -> Option<T> {
    value.and_then(|text| serde_json::from_str(text.get()).ok())
}

#[derive(Deserialize)]
struct RawState<'s> {
    #[serde(borrow)]
    id: Option<&'s RawValue>,
    #[serde(borrow)]
    elected_time: Option<&'s RawValue>,
    #[serde(borrow)]
    leader: Option<&'s RawValue>,
}

#[derive(Deserialize)]
struct RawAgents {
    #[serde(rename = "slaves")]
    _slaves: Vec<IgnoredAny>,
    /// Absent before Mesos 1.2. It decides what may be removed, so it is a list or an error.
    #[serde(rename = "recovered_slaves", default)]
    _recovered: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawFrameworks {
    #[serde(rename = "frameworks")]
    _frameworks: Vec<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::read(folder.join("integration/fixtures").join(name)).unwrap()
    }

    /// All of a state that can be compared.
    fn told(state: &State) -> impl PartialEq + std::fmt::Debug + use<> {
        let cluster = &state.cluster;
        let mut ended: Vec<TaskKey> = state.ended.iter().cloned().collect();
        ended.sort();
        let tasks: Vec<_> = cluster.tasks.clone().into_iter().collect();
        let agents: Vec<_> = cluster.agents.clone().into_iter().collect();
        let frameworks: Vec<_> = cluster.frameworks.clone().into_iter().collect();
        let recovered: Vec<_> = cluster.recovered.iter().cloned().collect();
        (tasks, agents, frameworks, recovered, ended, state.unread.clone())
    }

    #[test]
    fn neither_chunks_nor_the_order_of_keys_change_what_is_read() {
        let body = fixture("mesos/3-running/state.json");
        let whole = parse(&body).unwrap();
        assert_eq!(whole.cluster.tasks.len(), 44);
        for size in [1, 7, 1000] {
            let mut reader = StateReader::new(None);
            body.chunks(size).for_each(|chunk| reader.push(chunk));
            assert_eq!(told(&reader.finish().unwrap()), told(&whole), "chunks of {size}");
        }
        // serde_json sorts the keys: `frameworks` before `id`, `completed_tasks` before `id`.
        let sorted: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let sorted = parse(&serde_json::to_vec_pretty(&sorted).unwrap()).unwrap();
        assert_eq!(told(&sorted), told(&whole));
    }

    const ODD: &str = r#"{
        "leader": "master@10.0.0.1:5050",
        "slaves": [{"id": "S0", "pid": "slave(1)@10.0.0.2:5051"}, {"id": "S1", "pid": 7},
                   {"id": "S2", "pid": null}, 5],
        "frameworks": [
            {"id": "f", "name": "m", "tasks": [
                {"id": "good", "name": "t", "slave_id": "S0", "state": "TASK_RUNNING"},
                {"id": "bad", "name": 3, "slave_id": "S0", "state": "TASK_RUNNING"},
                {"id": "over", "name": "t", "slave_id": "S0", "state": "TASK_FAILED"}]},
            {"id": "g", "name": [], "tasks": []}]}"#;

    #[test]
    fn a_wrong_type_costs_its_own_task_agent_or_framework() {
        let state = parse(ODD.as_bytes()).unwrap();
        assert_eq!(state.cluster.agents.len(), 2);
        assert_eq!(state.cluster.frameworks.len(), 1);
        assert_eq!(state.cluster.tasks.len(), 1);
        assert_eq!(state.ended.len(), 1);
        let unread: Vec<(&str, &str)> = state.unread.iter().map(|u| (u.kind, &*u.id)).collect();
        assert_eq!(unread, [("agent", "S1"), ("agent", ""), ("task", "bad"), ("framework", "g")]);
    }

    #[test]
    fn a_body_cut_anywhere_is_an_error() {
        for end in 0..ODD.len() {
            assert!(parse(&ODD.as_bytes()[..end]).is_err(), "cut at {end}");
        }
        assert!(parse(b"[]").is_err());
        assert!(parse(b"{}").is_err(), "an answer without the lists is no empty cluster");
        assert!(parse(br#"{"frameworks": {}}"#).is_err());
        let gate = br#"{"slaves": [], "frameworks": [], "recovered_slaves": null}"#;
        assert!(parse(gate).is_err(), "what decides about removals is never guessed");
        let odd =
            br#"{"slaves": [], "frameworks": [], "leader": 5, "id": [], "elected_time": "x"}"#;
        assert!(parse(odd).unwrap().cluster.leader.is_none());
    }
}
