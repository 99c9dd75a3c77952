//! Agents, frameworks and masters in a Mesos master's JSON, in both its schemas: that of
//! `GET /state` (`src/master/http.cpp`) and that of the operator API, v1 (`mesos/v1/mesos.proto`).
//!
//! A field of a wrong type costs its own agent or framework.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::cluster::{Agent, AgentId, Endpoint, Fault, Framework, FrameworkId, Host};

/// A task, agent or framework that is not in the cluster because it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// "agent", "framework", "task" or "master".
    pub kind: &'static str,
    pub id: String,
    pub fault: String,
}

impl Unread {
    /// Of a text in either schema.
    pub fn new(kind: &'static str, text: &[u8], error: &serde_json::Error) -> Unread {
        let ids: Option<RawIds<'_>> = serde_json::from_slice(text).ok();
        let id = ids.and_then(|ids| ids.id).map(|id| id.0.into_owned()).unwrap_or_default();
        Unread { kind, id, fault: error.to_string() }
    }
}

/// Members of long lists: one of a wrong form costs itself, one that is no JSON costs the whole.
#[derive(Default)]
pub(crate) struct Members {
    /// The first that is no JSON.
    broken: Option<serde_json::Error>,
}

impl Members {
    /// An error if any member was no JSON.
    pub(crate) fn check(self) -> serde_json::Result<()> {
        self.broken.map_or(Ok(()), Err)
    }

    /// A value; of a wrong form it is noted and none.
    pub(crate) fn read<T>(
        &mut self,
        kind: &'static str,
        text: &[u8],
        read: serde_json::Result<T>,
        unread: &mut Vec<Unread>,
    ) -> Option<T> {
        let read = self.checked(text, read)?;
        read.map_err(|error| unread.push(Unread::new(kind, text, &error))).ok()
    }

    /// None for what is no JSON.
    pub(crate) fn checked<T>(
        &mut self,
        text: &[u8],
        read: serde_json::Result<T>,
    ) -> Option<serde_json::Result<T>> {
        // Reading stops at a value of a wrong type, whatever comes behind it.
        let syntax = match &read {
            Err(_) => serde_json::from_slice::<IgnoredAny>(text).err(),
            Ok(_) => None,
        };
        let broken = syntax.is_some();
        self.broken = self.broken.take().or(syntax);
        (!broken).then_some(read)
    }

    /// A member that names do not need.
    pub(crate) fn skip(&mut self, text: &[u8]) {
        let syntax = serde_json::from_slice::<IgnoredAny>(text).err();
        self.broken = self.broken.take().or(syntax);
    }
}

/// Ids met before: each is kept once, however many tasks bear it.
#[derive(Default)]
pub struct Ids(HashSet<Arc<str>>);

impl Ids {
    pub(crate) fn get(&mut self, id: &str) -> Arc<str> {
        if let Some(known) = self.0.get(id) {
            return known.clone();
        }
        let id: Arc<str> = Arc::from(id);
        self.0.insert(id.clone());
        id
    }
}

/// An agent of `/state` or `/slaves`.
pub fn agent(text: &[u8]) -> serde_json::Result<(AgentId, Agent)> {
    let raw: RawAgent<'_> = serde_json::from_slice(text)?;
    Ok((AgentId(Arc::from(&*raw.id.0)), read_agent(raw.pid.as_ref())))
}

/// An agent of v1.
pub fn agent_v1(text: &[u8]) -> serde_json::Result<(AgentId, Agent)> {
    let raw: RawAgentV1<'_> = serde_json::from_slice(text)?;
    Ok((AgentId(Arc::from(&*raw.agent_info.id.0)), read_agent(raw.pid.as_ref())))
}

/// The id of an agent that has not come back, in `/state` or `/slaves`.
pub fn recovered(text: &[u8]) -> serde_json::Result<AgentId> {
    let raw: RawRecovered<'_> = serde_json::from_slice(text)?;
    Ok(AgentId(Arc::from(&*raw.id.0)))
}

/// The same of v1.
pub fn recovered_v1(text: &[u8]) -> serde_json::Result<AgentId> {
    let raw: RawAgentInfo<'_> = serde_json::from_slice(text)?;
    Ok(AgentId(Arc::from(&*raw.id.0)))
}

/// A framework of `/state` or `/state-summary`, whatever its lists hold.
pub fn framework(text: &[u8]) -> serde_json::Result<(FrameworkId, Framework)> {
    let raw: RawFramework<'_> = serde_json::from_slice(text)?;
    let id = FrameworkId(Arc::from(&*raw.id.0));
    let pid = raw.pid.as_ref().map(|pid| &*pid.0).filter(|pid| !pid.is_empty());
    let by_pid = pid.and_then(Endpoint::parse_pid);
    let fault = match (pid, &by_pid) {
        (Some(pid), None) => Some(Fault(format!("pid {pid:?} has no host and port"))),
        _ => None,
    };
    let framework = Framework {
        name: raw.name.as_ref().map_or("", |name| &*name.0).into(),
        scheduler: by_pid.or_else(|| by_hostname(raw.hostname.as_ref())),
        recovered: raw.recovered.unwrap_or(false),
        faults: fault.into_iter().collect(),
    };
    Ok((id, framework))
}

/// A framework of v1, which never tells a scheduler's pid.
pub fn framework_v1(text: &[u8]) -> serde_json::Result<(FrameworkId, Framework)> {
    let RawFrameworkV1 { framework_info: raw, recovered } = serde_json::from_slice(text)?;
    let framework = Framework {
        name: raw.name.as_ref().map_or("", |name| &*name.0).into(),
        scheduler: by_hostname(raw.hostname.as_ref()),
        recovered: recovered.unwrap_or(false),
        faults: Vec::new(),
    };
    Ok((FrameworkId(Arc::from(&*raw.id.0)), framework))
}

/// The agent in an `agent_removed`.
pub fn agent_removed_v1(text: &[u8]) -> serde_json::Result<AgentId> {
    let raw: RawAgentRemoved<'_> = serde_json::from_slice(text)?;
    Ok(AgentId(Arc::from(&*raw.agent_id.0)))
}

/// The framework in a `framework_removed`.
pub fn framework_removed_v1(text: &[u8]) -> serde_json::Result<FrameworkId> {
    let RawFrameworkV1 { framework_info: raw, .. } = serde_json::from_slice(text)?;
    Ok(FrameworkId(Arc::from(&*raw.id.0)))
}

/// The leading master about itself.
pub struct Leader {
    pub id: Box<str>,
    /// Seconds since 1970.
    pub elected_time: Option<f64>,
    pub endpoint: Option<Endpoint>,
}

/// What GET_MASTER answers.
pub fn master_v1(text: &[u8]) -> serde_json::Result<Leader> {
    let RawGetMaster { get_master: raw } = serde_json::from_slice(text)?;
    let info = raw.master_info;
    Ok(Leader {
        id: info.id.0.into(),
        elected_time: raw.elected_time,
        endpoint: info.pid.and_then(|pid| Endpoint::parse_pid(&pid.0)),
    })
}

/// The version in what `/version` answers.
pub fn version(text: &[u8]) -> serde_json::Result<String> {
    #[derive(Deserialize)]
    struct Raw {
        version: String,
    }
    serde_json::from_slice(text).map(|raw: Raw| raw.version)
}

/// A text that is copied only if it has escapes.
#[derive(Deserialize)]
pub(crate) struct Text<'t>(#[serde(borrow)] pub(crate) Cow<'t, str>);

/// An id: a text in `/state`, `{"value": "..."}` in v1.
pub(crate) struct Id<'t>(pub(crate) Cow<'t, str>);

impl<'de: 't, 't> Deserialize<'de> for Id<'t> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Id<'t>, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Id<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Id(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Id(Cow::Owned(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
                #[derive(Deserialize)]
                struct Wrapped<'t> {
                    #[serde(borrow)]
                    value: Text<'t>,
                }
                let object = de::value::MapAccessDeserializer::new(object);
                let Wrapped { value } = Wrapped::deserialize(object)?;
                Ok(Id(value.0))
            }
        }
        from.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
struct RawIds<'t> {
    #[serde(borrow, alias = "task_id")]
    id: Option<Id<'t>>,
}

#[derive(Deserialize)]
struct RawRecovered<'t> {
    #[serde(borrow)]
    id: Text<'t>,
}

#[derive(Deserialize)]
struct RawAgent<'t> {
    #[serde(borrow)]
    id: Text<'t>,
    #[serde(borrow)]
    pid: Option<Text<'t>>,
}

#[derive(Deserialize)]
struct RawAgentV1<'t> {
    #[serde(borrow)]
    agent_info: RawAgentInfo<'t>,
    #[serde(borrow)]
    pid: Option<Text<'t>>,
}

#[derive(Deserialize)]
struct RawAgentInfo<'t> {
    #[serde(borrow)]
    id: Id<'t>,
}

#[derive(Deserialize)]
struct RawAgentRemoved<'t> {
    #[serde(borrow)]
    agent_id: Id<'t>,
}

fn read_agent(pid: Option<&Text<'_>>) -> Agent {
    let endpoint = pid.and_then(|pid| Endpoint::parse_pid(&pid.0));
    let fault = match (pid, &endpoint) {
        (_, Some(_)) => None,
        (None, None) => Some(Fault("no pid".to_owned())),
        (Some(pid), None) => Some(Fault(format!("pid {:?} has no host and port", pid.0))),
    };
    Agent { endpoint, faults: fault.into_iter().collect() }
}

/// A list, or `null`, which Mesos never writes and mesos-dns took for an empty one.
type RawList = Option<Vec<IgnoredAny>>;

#[derive(Deserialize)]
struct RawFramework<'t> {
    #[serde(borrow)]
    id: Text<'t>,
    #[serde(borrow)]
    name: Option<Text<'t>>,
    #[serde(borrow)]
    pid: Option<Text<'t>>,
    #[serde(borrow)]
    hostname: Option<Text<'t>>,
    recovered: Option<bool>,
    #[serde(rename = "tasks")]
    _tasks: RawList,
    #[serde(rename = "completed_tasks")]
    _completed_tasks: RawList,
    #[serde(rename = "unreachable_tasks")]
    _unreachable_tasks: RawList,
}

#[derive(Deserialize)]
struct RawFrameworkV1<'t> {
    #[serde(borrow)]
    framework_info: RawFrameworkInfo<'t>,
    recovered: Option<bool>,
}

#[derive(Deserialize)]
struct RawFrameworkInfo<'t> {
    #[serde(borrow)]
    id: Id<'t>,
    #[serde(borrow)]
    name: Option<Text<'t>>,
    #[serde(borrow)]
    hostname: Option<Text<'t>>,
}

fn by_hostname(hostname: Option<&Text<'_>>) -> Option<Endpoint> {
    Some(Endpoint::new(Host::parse(&hostname?.0)?, None))
}

#[derive(Deserialize)]
struct RawGetMaster<'t> {
    #[serde(borrow)]
    get_master: RawMaster<'t>,
}

#[derive(Deserialize)]
struct RawMaster<'t> {
    #[serde(borrow)]
    master_info: RawMasterInfo<'t>,
    elected_time: Option<f64>,
}

#[derive(Deserialize)]
struct RawMasterInfo<'t> {
    #[serde(borrow)]
    id: Text<'t>,
    #[serde(borrow)]
    pid: Option<Text<'t>>,
}
