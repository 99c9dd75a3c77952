//! What SUBSCRIBE on `/api/v1` answers (`mesos/v1/master/master.proto`): first the whole state,
//! then each change of it, as records that arrive in any chunks.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::cluster::{Agent, AgentId, Framework, FrameworkId};
use crate::mesos::{self, Ids, Members, Text, Unread};
use crate::recordio::{FramingError, Part, RecordIo};
use crate::splitter::{Keys, Leads, Splitter};
use crate::state::State;
use crate::task::{self, ToldTask, Update};

pub enum Event {
    /// The first: all there is, without who leads.
    Subscribed {
        state: Box<State>,
        /// How often a heartbeat comes.
        heartbeat: Option<Duration>,
    },
    Heartbeat,
    /// A task that is new, or that its agent has reported again.
    TaskAdded(ToldTask),
    TaskUpdated(Update),
    AgentAdded(AgentId, Agent),
    AgentRemoved(AgentId),
    /// Added or updated.
    Framework(FrameworkId, Framework),
    FrameworkRemoved(FrameworkId),
    /// One with a value of a wrong type.
    Unread(Unread),
    /// Of a kind that names do not need.
    Other,
}

impl Event {
    /// What the first of a stream is counted as.
    pub const SUBSCRIBED: &'static str = "subscribed";

    /// Everything that one is counted as.
    pub const KINDS: [&'static str; 10] = [
        Event::SUBSCRIBED,
        "heartbeat",
        "task_added",
        "task_updated",
        "agent_added",
        "agent_removed",
        "framework",
        "framework_removed",
        "unread",
        "other",
    ];

    /// What it is counted as.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Subscribed { .. } => Event::SUBSCRIBED,
            Event::Heartbeat => "heartbeat",
            Event::TaskAdded(_) => "task_added",
            Event::TaskUpdated(_) => "task_updated",
            Event::AgentAdded(..) => "agent_added",
            Event::AgentRemoved(_) => "agent_removed",
            Event::Framework(..) => "framework",
            Event::FrameworkRemoved(_) => "framework_removed",
            Event::Unread(_) => "unread",
            Event::Other => "other",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("a record of the stream cannot be read")]
    Json(#[from] serde_json::Error),
}

/// What the lists of a first record hold.
#[derive(Clone, Copy)]
enum List {
    Agents,
    Recovered,
    Frameworks,
    Completed,
    Tasks,
    Ended,
    /// Nothing that names need.
    Other,
}

const LISTS: Keys<List> = &[("subscribed", Leads::To(&[("get_state", Leads::To(PARTS))]))];

const PARTS: Keys<List> = &[
    (
        "get_tasks",
        Leads::To(&[
            ("tasks", Leads::List(List::Tasks, &[])),
            ("completed_tasks", Leads::List(List::Ended, &[])),
            ("unreachable_tasks", Leads::List(List::Ended, &[])),
        ]),
    ),
    ("get_executors", Leads::To(&[("executors", Leads::List(List::Other, &[]))])),
    (
        "get_frameworks",
        Leads::To(&[
            ("frameworks", Leads::List(List::Frameworks, &[])),
            ("completed_frameworks", Leads::List(List::Completed, &[])),
        ]),
    ),
    (
        "get_agents",
        Leads::To(&[
            ("agents", Leads::List(List::Agents, &[])),
            ("recovered_agents", Leads::List(List::Recovered, &[])),
        ]),
    ),
];

/// Reads a stream as it comes.
pub struct EventReader {
    framing: RecordIo,
    record: Splitter<List>,
    gathered: Gathered,
    told: Told,
}

/// What reading a task goes by.
#[derive(Default)]
struct Told {
    ids: Ids,
    chooses: Option<Arc<str>>,
}

impl Told {
    fn task(&mut self, text: &[u8]) -> serde_json::Result<ToldTask> {
        task::task(text, &mut self.ids, self.chooses.as_deref())
    }
}

#[derive(Default)]
struct Gathered {
    state: State,
    members: Members,
}

impl EventReader {
    /// Of the tasks' labels those of the key `chooses` are kept.
    pub fn new(chooses: Option<Arc<str>>) -> EventReader {
        EventReader {
            framing: RecordIo::default(),
            record: Splitter::new(LISTS),
            gathered: Gathered::default(),
            told: Told { ids: Ids::default(), chooses },
        }
    }

    /// Takes the next octets; gives the events that they complete. After an error the stream is
    /// of no more use.
    pub fn push(&mut self, chunk: &[u8], mut give: impl FnMut(Event)) -> Result<(), EventError> {
        let EventReader { framing, record, gathered, told } = self;
        let mut broken = None;
        framing.push(chunk, |part| match part {
            Part::Octets(octets) => {
                record.push(octets, |list, text| gathered.member(list, text, told));
            }
            Part::End => {
                let record = std::mem::replace(record, Splitter::new(LISTS));
                match event(&record.skeleton(), std::mem::take(gathered), told) {
                    Ok(event) => give(event),
                    Err(error) => broken = broken.take().or(Some(error)),
                }
            }
        })?;
        broken.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Gathered {
    fn member(&mut self, list: List, text: &[u8], tasks: &mut Told) {
        let Gathered { state, members } = self;
        let unread = &mut state.unread;
        match list {
            List::Agents => {
                let read = members.read("agent", text, mesos::agent_v1(text), unread);
                if let Some((id, agent)) = read {
                    state.cluster.agents.insert(id, Arc::new(agent));
                }
            }
            List::Recovered => {
                let id = members.read("agent", text, mesos::recovered_v1(text), unread);
                state.cluster.recovered.extend(id);
            }
            List::Frameworks => {
                let read = members.read("framework", text, mesos::framework_v1(text), unread);
                if let Some((id, framework)) = read {
                    state.cluster.frameworks.insert(id, Arc::new(framework));
                }
            }
            List::Completed => {
                let id = members.checked(text, mesos::framework_v1(text)).and_then(Result::ok);
                state.completed.extend(id.map(|(id, _)| id));
            }
            List::Tasks => {
                let read = members.read("task", text, tasks.task(text), unread);
                if let Some(told) = read {
                    state.add(told);
                }
            }
            List::Ended => {
                // One that cannot be read is left out: it makes no records either way.
                let key = members.checked(text, task::task_key(text, &mut tasks.ids));
                state.ended.extend(key.and_then(Result::ok));
            }
            List::Other => members.skip(text),
        }
    }
}

/// The event of one record, its long lists gathered before.
fn event(text: &[u8], gathered: Gathered, tasks: &mut Told) -> serde_json::Result<Event> {
    gathered.members.check()?;
    let raw: RawEvent<'_> = match serde_json::from_slice(text) {
        Ok(raw) => raw,
        Err(error) => return unread("event", text, error),
    };
    let kind = raw.kind.as_ref().map_or("", |kind| &*kind.0);
    let read = match (kind, raw.told()) {
        ("SUBSCRIBED", Some(told)) => return subscribed(told, gathered.state),
        ("HEARTBEAT", _) => return Ok(Event::Heartbeat),
        ("TASK_ADDED", Some(told)) => {
            within(told, "task", |text| tasks.task(text).map(Event::TaskAdded))
        }
        ("TASK_UPDATED", Some(told)) => {
            task::update_v1(told.as_bytes(), &mut tasks.ids).map(Event::TaskUpdated)
        }
        ("AGENT_ADDED", Some(told)) => within(told, "agent", |text| {
            mesos::agent_v1(text).map(|(id, agent)| Event::AgentAdded(id, agent))
        }),
        ("AGENT_REMOVED", Some(told)) => {
            mesos::agent_removed_v1(told.as_bytes()).map(Event::AgentRemoved)
        }
        ("FRAMEWORK_ADDED" | "FRAMEWORK_UPDATED", Some(told)) => {
            within(told, "framework", |text| {
                mesos::framework_v1(text).map(|(id, framework)| Event::Framework(id, framework))
            })
        }
        ("FRAMEWORK_REMOVED", Some(told)) => {
            mesos::framework_removed_v1(told.as_bytes()).map(Event::FrameworkRemoved)
        }
        _ => return Ok(Event::Other),
    };
    read.or_else(|error| unread("event", text, error))
}

/// An event that costs itself, unless it is no JSON.
fn unread(kind: &'static str, text: &[u8], error: serde_json::Error) -> serde_json::Result<Event> {
    serde_json::from_slice::<IgnoredAny>(text)?;
    Ok(Event::Unread(Unread::new(kind, text, &error)))
}

/// Reads the member of this key.
fn within<T>(
    object: &str,
    key: &str,
    read: impl FnOnce(&[u8]) -> serde_json::Result<T>,
) -> serde_json::Result<T> {
    let members: std::collections::HashMap<&str, &RawValue> = serde_json::from_str(object)?;
    let missing = || serde::de::Error::custom(format!("no {key}"));
    read(members.get(key).ok_or_else(missing)?.get().as_bytes())
}

/// The first record. Its parts decide what may be removed, so each of them must be there.
fn subscribed(text: &str, state: State) -> serde_json::Result<Event> {
    let raw: RawSubscribed = serde_json::from_str(text)?;
    let seconds = raw.heartbeat_interval_seconds.filter(|seconds| *seconds > 0.0);
    let heartbeat = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(Event::Subscribed { state: Box::new(state), heartbeat })
}

#[derive(Deserialize)]
struct RawEvent<'t> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'t>>,
    #[serde(borrow)]
    subscribed: Option<&'t RawValue>,
    #[serde(borrow)]
    task_added: Option<&'t RawValue>,
    #[serde(borrow)]
    task_updated: Option<&'t RawValue>,
    #[serde(borrow)]
    agent_added: Option<&'t RawValue>,
    #[serde(borrow)]
    agent_removed: Option<&'t RawValue>,
    #[serde(borrow)]
    framework_added: Option<&'t RawValue>,
    #[serde(borrow)]
    framework_updated: Option<&'t RawValue>,
    #[serde(borrow)]
    framework_removed: Option<&'t RawValue>,
}

impl<'t> RawEvent<'t> {
    /// The one member beside the kind: an event has no other.
    fn told(&self) -> Option<&'t str> {
        let told = [
            self.subscribed,
            self.task_added,
            self.task_updated,
            self.agent_added,
            self.agent_removed,
            self.framework_added,
            self.framework_updated,
            self.framework_removed,
        ];
        told.into_iter().flatten().next().map(RawValue::get)
    }
}

#[derive(Deserialize)]
struct RawSubscribed {
    #[serde(rename = "get_state")]
    _state: RawState,
    heartbeat_interval_seconds: Option<f64>,
}

/// Absent lists are empty: older masters leave them out.
#[derive(Deserialize)]
struct RawState {
    #[serde(rename = "get_tasks")]
    _tasks: RawTasks,
    #[serde(rename = "get_frameworks")]
    _frameworks: RawFrameworks,
    #[serde(rename = "get_agents")]
    _agents: RawAgents,
}

#[derive(Deserialize)]
struct RawTasks {
    #[serde(rename = "tasks", default)]
    _tasks: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawFrameworks {
    #[serde(rename = "frameworks", default)]
    _frameworks: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawAgents {
    #[serde(rename = "agents", default)]
    _agents: Vec<IgnoredAny>,
    #[serde(rename = "recovered_agents", default)]
    _recovered: Vec<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kinds of the events in these records, or that the stream is of no use.
    fn read(records: &[&str]) -> Result<Vec<String>, EventError> {
        let (mut reader, mut kinds) = (EventReader::new(None), Vec::new());
        for record in records {
            let framed = format!("{}\n{record}", record.len());
            reader.push(framed.as_bytes(), |event| {
                kinds.push(match event {
                    Event::Subscribed { state, heartbeat } => {
                        format!("{} tasks, {heartbeat:?}", state.cluster.tasks.len())
                    }
                    Event::Heartbeat => "heartbeat".to_owned(),
                    Event::TaskAdded(told) => format!("task {}", told.key.task),
                    Event::Unread(unread) => format!("unread {:?}", unread.id),
                    Event::Other => "other".to_owned(),
                    _ => "else".to_owned(),
                });
            })?;
        }
        Ok(kinds)
    }

    #[track_caller]
    fn check(record: &str, expected: &str) {
        assert_eq!(read(&[record]).unwrap(), [expected], "{record}");
    }

    const SUBSCRIBED: &str = r#"{"type": "SUBSCRIBED", "subscribed": {"get_state": {
        "get_tasks": {"tasks": [{"task_id": {"value": "t"}, "framework_id": {"value": "f"},
            "agent_id": {"value": "a"}, "state": "TASK_RUNNING"}, {"task_id": 5}]},
        "get_frameworks": {}, "get_agents": {"agents": []}}, "heartbeat_interval_seconds": 15}}"#;

    #[test]
    fn an_event_of_a_wrong_form_costs_itself() {
        check(SUBSCRIBED, "1 tasks, Some(15s)");
        check(r#"{"type": "HEARTBEAT"}"#, "heartbeat");
        check(r#"{"type": "SOMETHING_NEW", "something_new": {}}"#, "other");
        check(r#"{"type": {}}"#, "unread \"\"");
        check(r#"{"type": "TASK_ADDED", "task_added": {}}"#, "unread \"\"");
        check(
            r#"{"type": "TASK_ADDED", "task_added": {"task": {"task_id": {"value": 1}}}}"#,
            "unread \"\"",
        );
        check(
            r#"{"type": "TASK_ADDED", "task_added": {"task": {"task_id": {"value": "t"},
                "agent_id": {"value": "a"}, "framework_id": {"value": "f"}, "state": "X"}}}"#,
            "task t",
        );
        check(r#"{"type": "TASK_UPDATED", "task_updated": []}"#, "unread \"\"");
        for odd in ["1e300", "-1", "0", "\"x\""] {
            let record = SUBSCRIBED.replace("\": 15}}", &format!("\": {odd}}}}}"));
            let none = if odd == "\"x\"" { None } else { Some("1 tasks, None") };
            assert_eq!(read(&[&record]).ok().as_ref().map(|kinds| &*kinds[0]), none, "{odd}");
        }
    }

    #[test]
    fn a_first_record_that_is_not_whole_is_no_smaller_cluster() {
        for part in ["get_tasks", "get_frameworks", "get_agents", "get_state"] {
            assert!(read(&[&SUBSCRIBED.replace(part, "x")]).is_err(), "{part}");
        }
        for end in 0..SUBSCRIBED.len() {
            assert!(read(&[&SUBSCRIBED[..end]]).is_err(), "cut at {end}");
        }
        assert!(read(&["{}}"]).is_err());
    }
}
