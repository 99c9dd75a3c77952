//! Tasks in a Mesos master's JSON, in both its schemas: that of `GET /state`
//! (`src/master/http.cpp`) and that of the operator API, v1 (`mesos/v1/mesos.proto`).
//!
//! A field of a wrong type costs its own task; a text that is no address or port costs itself and
//! is a fault of the task.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::cluster::{
    AgentId, Discovery, DiscoveryPort, Fault, FrameworkId, Network, Task, TaskKey, Visibility,
};
use crate::mesos::{Id, Ids, Text};

/// What a task's `state` means for its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskState {
    /// TASK_RUNNING.
    Running,
    /// It does not run, but may: staging, starting, being killed.
    Waiting,
    /// It ended, or nobody knows of it any more.
    Over,
}

impl TaskState {
    fn of(state: &str) -> TaskState {
        match state {
            "TASK_RUNNING" => TaskState::Running,
            "TASK_FINISHED"
            | "TASK_FAILED"
            | "TASK_KILLED"
            | "TASK_ERROR"
            | "TASK_LOST"
            | "TASK_DROPPED"
            | "TASK_UNREACHABLE"
            | "TASK_GONE"
            | "TASK_GONE_BY_OPERATOR"
            | "TASK_UNKNOWN" => TaskState::Over,
            _ => TaskState::Waiting,
        }
    }
}

/// A task as it was told.
pub struct ToldTask {
    pub key: TaskKey,
    pub state: TaskState,
    pub task: Task,
}

/// A task in either schema. In `/state` it stands in its framework's list, which counts. Of its
/// labels those of the key `chooses` are kept.
pub fn task(text: &[u8], ids: &mut Ids, chooses: Option<&str>) -> serde_json::Result<ToldTask> {
    let raw: RawTask<'_> = serde_json::from_slice(text)?;
    let mut faults = Vec::new();
    let host_ports = match &raw.resources {
        None => Vec::new(),
        Some(Resources::Summed(raw)) => match &raw.ports {
            None => Vec::new(),
            Some(text) => port_ranges(&text.0, &mut faults),
        },
        Some(Resources::Listed(listed)) => listed_ports(listed),
    };
    let key = key(raw.framework_id.as_ref(), &raw.id, &raw.slave_id, ids);
    let state = TaskState::of(&raw.state.0);
    let chosen = chooses.zip(raw.labels).map(|(key, labels)| labelled(labels, key)).transpose()?;
    let task = raw.read(host_ports, faults);
    Ok(ToldTask { key, state, task: Task { chosen: chosen.unwrap_or_default(), ..task } })
}

/// The values of the labels of one key.
fn labelled(labels: &RawValue, key: &str) -> serde_json::Result<Box<[Box<str>]>> {
    let labels: Option<Labels<'_>> = serde_json::from_str(labels.get())?;
    let labels = labels.iter().flat_map(|labels| &labels.0).filter(|label| label.key.0 == key);
    Ok(labels.filter_map(|label| Some((*label.value.as_ref()?.0).into())).collect())
}

/// The key of a task in either schema.
pub fn task_key(text: &[u8], ids: &mut Ids) -> serde_json::Result<TaskKey> {
    let raw: RawTaskIds<'_> = serde_json::from_slice(text)?;
    Ok(key(raw.framework_id.as_ref(), &raw.id, &raw.slave_id, ids))
}

fn key(framework: Option<&Id<'_>>, task: &Id<'_>, agent: &Id<'_>, ids: &mut Ids) -> TaskKey {
    TaskKey {
        framework: FrameworkId(ids.get(framework.map_or("", |id| &id.0))),
        task: Arc::from(&*task.0),
        agent: AgentId(ids.get(&agent.0)),
    }
}

/// What a status update of v1 says.
pub struct Update {
    pub framework: FrameworkId,
    pub task: Arc<str>,
    /// Not told by statuses that the master makes.
    pub agent: Option<AgentId>,
    pub state: TaskState,
    /// Of a status that is itself TASK_RUNNING.
    pub running: Option<Running>,
}

/// What the status that counts says of a task.
#[derive(Default)]
pub struct Running {
    pub netinfo: Vec<IpAddr>,
    pub docker: Vec<IpAddr>,
    pub mesos: Vec<IpAddr>,
    pub healthy: Option<bool>,
    pub faults: Vec<Fault>,
}

impl Running {
    /// Makes it what the task says of itself now.
    pub fn into_task(self, task: &mut Task) {
        task.netinfo = self.netinfo;
        task.docker = self.docker;
        task.mesos = self.mesos;
        // A cluster has many tasks, and most have one address.
        let addresses = [&mut task.netinfo, &mut task.docker, &mut task.mesos];
        addresses.into_iter().for_each(Vec::shrink_to_fit);
        task.healthy = self.healthy;
        task.status_faults = self.faults;
    }
}

/// A `task_updated` of v1.
pub fn update_v1(text: &[u8], ids: &mut Ids) -> serde_json::Result<Update> {
    let raw: RawUpdate<'_> = serde_json::from_slice(text)?;
    let ids_told: RawStatusIds<'_> = serde_json::from_str(raw.status.get())?;
    let state = TaskState::of(&raw.state.0);
    // Only of a task that runs: its end counts whatever else its status says.
    let status: Option<RawStatus<'_>> = match state {
        TaskState::Running => Some(serde_json::from_str(raw.status.get())?),
        TaskState::Waiting | TaskState::Over => None,
    };
    Ok(Update {
        framework: FrameworkId(ids.get(&raw.framework_id.0)),
        task: Arc::from(&*ids_told.task_id.0),
        agent: ids_told.agent_id.map(|id| AgentId(ids.get(&id.0))),
        state,
        running: status.filter(RawStatus::is_running).map(|status| status.read()),
    })
}

#[derive(Deserialize)]
struct RawTaskIds<'t> {
    #[serde(borrow, alias = "task_id")]
    id: Id<'t>,
    #[serde(borrow, alias = "agent_id")]
    slave_id: Id<'t>,
    #[serde(borrow)]
    framework_id: Option<Id<'t>>,
}

#[derive(Deserialize)]
struct RawTask<'t> {
    #[serde(borrow, alias = "task_id")]
    id: Id<'t>,
    #[serde(borrow, alias = "agent_id")]
    slave_id: Id<'t>,
    #[serde(borrow)]
    framework_id: Option<Id<'t>>,
    #[serde(borrow)]
    state: Text<'t>,
    #[serde(borrow)]
    name: Option<Text<'t>>,
    #[serde(borrow)]
    resources: Option<Resources<'t>>,
    #[serde(borrow)]
    discovery: Option<RawDiscovery<'t>>,
    #[serde(borrow)]
    container: Option<RawContainer<'t>>,
    #[serde(borrow)]
    statuses: Option<Vec<RawStatus<'t>>>,
    /// Read only where names are chosen by them.
    #[serde(borrow)]
    labels: Option<&'t RawValue>,
}

#[derive(Deserialize)]
struct RawUpdate<'t> {
    #[serde(borrow)]
    framework_id: Id<'t>,
    #[serde(borrow)]
    state: Text<'t>,
    #[serde(borrow)]
    status: &'t RawValue,
}

#[derive(Deserialize)]
struct RawStatusIds<'t> {
    #[serde(borrow)]
    task_id: Id<'t>,
    #[serde(borrow)]
    agent_id: Option<Id<'t>>,
}

/// In `/state` an object with the sum of each kind, in v1 a list of them.
enum Resources<'t> {
    Summed(RawResources<'t>),
    Listed(Vec<RawResource<'t>>),
}

impl<'de: 't, 't> Deserialize<'de> for Resources<'t> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Resources<'t>, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Resources<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("resources")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                let list = de::value::SeqAccessDeserializer::new(list);
                Vec::deserialize(list).map(Resources::Listed)
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
                let object = de::value::MapAccessDeserializer::new(object);
                RawResources::deserialize(object).map(Resources::Summed)
            }
        }
        from.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
struct RawResources<'t> {
    #[serde(borrow)]
    ports: Option<Text<'t>>,
}

#[derive(Deserialize)]
struct RawResource<'t> {
    #[serde(borrow)]
    name: Text<'t>,
    ranges: Option<RawRanges>,
}

#[derive(Deserialize)]
struct RawRanges {
    #[serde(default)]
    range: Vec<RawRange>,
}

#[derive(Deserialize)]
struct RawRange {
    begin: i64,
    end: i64,
}

#[derive(Deserialize)]
struct RawDiscovery<'t> {
    #[serde(borrow)]
    name: Option<Text<'t>>,
    #[serde(borrow)]
    visibility: Option<Text<'t>>,
    #[serde(borrow)]
    ports: Option<RawPorts<'t>>,
}

#[derive(Deserialize)]
struct RawPorts<'t> {
    #[serde(borrow)]
    ports: Option<Vec<RawPort<'t>>>,
}

#[derive(Deserialize)]
struct RawPort<'t> {
    number: Option<f64>,
    #[serde(borrow)]
    name: Option<Text<'t>>,
    #[serde(borrow)]
    protocol: Option<Text<'t>>,
    #[serde(borrow)]
    labels: Option<Labels<'t>>,
}

#[derive(Deserialize)]
struct RawLabel<'t> {
    #[serde(borrow)]
    key: Text<'t>,
    #[serde(borrow)]
    value: Option<Text<'t>>,
}

/// Labels in a list, as `/state` has those of statuses, or in an object around the list, as all
/// others are.
struct Labels<'t>(Vec<RawLabel<'t>>);

impl<'de: 't, 't> Deserialize<'de> for Labels<'t> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Labels<'t>, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Labels<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                let list = de::value::SeqAccessDeserializer::new(list);
                Vec::deserialize(list).map(Labels)
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
                #[derive(Deserialize)]
                struct Wrapped<'t> {
                    #[serde(borrow)]
                    labels: Option<Vec<RawLabel<'t>>>,
                }
                let object = de::value::MapAccessDeserializer::new(object);
                let Wrapped { labels } = Wrapped::deserialize(object)?;
                Ok(Labels(labels.unwrap_or_default()))
            }
        }
        from.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
struct RawContainer<'t> {
    #[serde(rename = "type", borrow)]
    kind: Option<Text<'t>>,
    #[serde(borrow)]
    docker: Option<RawDocker<'t>>,
    network_infos: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct RawDocker<'t> {
    #[serde(borrow)]
    network: Option<Text<'t>>,
}

#[derive(Deserialize)]
struct RawStatus<'t> {
    #[serde(borrow)]
    state: Option<Text<'t>>,
    timestamp: Option<f64>,
    #[serde(borrow)]
    labels: Option<Labels<'t>>,
    #[serde(borrow)]
    container_status: Option<RawContainerStatus<'t>>,
    healthy: Option<bool>,
}

#[derive(Deserialize)]
struct RawContainerStatus<'t> {
    #[serde(borrow)]
    network_infos: Option<Vec<RawNetworkInfo<'t>>>,
}

#[derive(Deserialize)]
struct RawNetworkInfo<'t> {
    #[serde(borrow)]
    ip_addresses: Option<Vec<RawAddress<'t>>>,
    #[serde(borrow)]
    ip_address: Option<Text<'t>>,
}

#[derive(Deserialize)]
struct RawAddress<'t> {
    #[serde(borrow)]
    ip_address: Option<Text<'t>>,
}

impl RawTask<'_> {
    fn read(self, host_ports: Vec<(i64, i64)>, mut faults: Vec<Fault>) -> Task {
        let network = self.container.as_ref().map_or(Network::Agents, RawContainer::network);
        let discovery = self.discovery.map(|raw| raw.read(&mut faults));
        let status = status_that_counts(self.statuses.as_deref().unwrap_or_default());
        let running = status.map(RawStatus::read).unwrap_or_default();
        let mut task = Task {
            name: text(self.name.as_ref()),
            discovery,
            chosen: Box::default(),
            host_ports,
            netinfo: Vec::new(),
            docker: Vec::new(),
            mesos: Vec::new(),
            network,
            healthy: None,
            faults,
            status_faults: Vec::new(),
        };
        running.into_task(&mut task);
        task.host_ports.shrink_to_fit();
        task
    }
}

fn text(text: Option<&Text<'_>>) -> Box<str> {
    text.map_or("", |text| &*text.0).into()
}

/// The TASK_RUNNING status with the highest timestamp; missing is 0, of equals the first, and
/// one at or below -1 never counts (mesos-dns, `records/state`).
fn status_that_counts<'s, 't>(statuses: &'s [RawStatus<'t>]) -> Option<&'s RawStatus<'t>> {
    let running = statuses.iter().filter(|status| status.is_running());
    let mut best: Option<(&RawStatus<'t>, f64)> = None;
    for status in running {
        let time = status.timestamp.unwrap_or(0.0);
        if time > best.map_or(-1.0, |(_, found)| found) {
            best = Some((status, time));
        }
    }
    best.map(|(status, _)| status)
}

impl RawStatus<'_> {
    fn is_running(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.0 == "TASK_RUNNING")
    }

    fn read(&self) -> Running {
        let mut faults = Vec::new();
        let mut labelled = |key: &str| {
            let labels = self.labels.iter().flat_map(|labels| &labels.0);
            let labels = labels.filter(|label| label.key.0 == key);
            addresses(labels.filter_map(|label| label.value.as_ref()), &mut faults)
        };
        let docker = labelled("Docker.NetworkSettings.IPAddress");
        let mesos = labelled("MesosContainerizer.NetworkSettings.IPAddress");
        let infos = self.container_status.iter().filter_map(|status| status.network_infos.as_ref());
        let netinfo = infos.flatten().flat_map(|info| {
            let listed = info.ip_addresses.as_deref().unwrap_or_default();
            let old = info.ip_address.as_ref().filter(|_| listed.is_empty());
            listed.iter().filter_map(|address| address.ip_address.as_ref()).chain(old)
        });
        let netinfo = addresses(netinfo, &mut faults);
        Running { netinfo, docker, mesos, healthy: self.healthy, faults }
    }
}

fn addresses<'t>(
    texts: impl Iterator<Item = &'t Text<'t>>,
    faults: &mut Vec<Fault>,
) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for text in texts {
        match text.0.parse() {
            Ok(address) => found.push(address),
            Err(_) => faults.push(Fault(format!("{:?} is no address", text.0))),
        }
    }
    found
}

impl RawContainer<'_> {
    fn network(&self) -> Network {
        let docker = self.docker.as_ref().and_then(|docker| docker.network.as_ref());
        let attached = self.network_infos.as_ref().is_some_and(|infos| !infos.is_empty());
        match (self.kind.as_ref().map(|kind| &*kind.0), docker.map(|network| &*network.0)) {
            (_, Some("USER")) => Network::Own,
            (Some("MESOS"), _) if attached => Network::Own,
            _ => Network::Agents,
        }
    }
}

impl RawDiscovery<'_> {
    fn read(self, faults: &mut Vec<Fault>) -> Discovery {
        let visibility = self.visibility.as_ref().and_then(|text| {
            let known = Visibility::parse(&text.0);
            if known.is_none() {
                faults.push(Fault(format!("{:?} is no visibility", text.0)));
            }
            known
        });
        let ports = self.ports.and_then(|ports| ports.ports).unwrap_or_default();
        let ports = ports.into_iter().filter_map(|port| {
            let number = port.number.filter(|number| number.fract() == 0.0);
            if number.is_none() {
                faults.push(Fault("a discovery port without a whole number".to_owned()));
            }
            let on_agent = port.labels.iter().flat_map(|labels| &labels.0).any(|label| {
                label.key.0 == "network-scope"
                    && label.value.as_ref().is_some_and(|value| value.0 == "host")
            });
            Some(DiscoveryPort {
                number: number? as i64, // Whole; one out of range saturates and is refused later.
                name: text(port.name.as_ref()),
                protocol: text(port.protocol.as_ref()),
                on_agent,
            })
        });
        // Collected in place, it has the room of what it was made of.
        let mut ports: Vec<DiscoveryPort> = ports.collect();
        ports.shrink_to_fit();
        Discovery { name: text(self.name.as_ref()), visibility, ports }
    }
}

/// The ranges in `[31000-31003, 31053]`: what stands between the first bracket and the next.
fn port_ranges(text: &str, faults: &mut Vec<Fault>) -> Vec<(i64, i64)> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    let Some((inside, _)) = inside else {
        faults.push(Fault(format!("ports {text:?} are not in brackets")));
        return Vec::new();
    };
    let mut ranges = Vec::new();
    for part in inside.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let mut ends = part.split('-').map(|end| end.trim().parse::<i64>());
        match (ends.next(), ends.next(), ends.next()) {
            (Some(Ok(port)), None, None) => ranges.push((port, port)),
            (Some(Ok(low)), Some(Ok(high)), None) => ranges.push((low, high)),
            _ => faults.push(Fault(format!("{part:?} is no range of ports"))),
        }
    }
    // A port told twice makes its records once: a long list of all ports is not to cost the memory
    // of each.
    joined(ranges, |next, last| next.0 <= last.1)
}

/// The ranges in order, each with those that belong to it in one.
fn joined(
    mut ranges: Vec<(i64, i64)>,
    belongs: impl Fn(&(i64, i64), &(i64, i64)) -> bool,
) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let one = belongs(next, last);
        if one {
            last.1 = last.1.max(next.1);
        }
        one
    });
    ranges
}

/// The ranges of the resources named "ports", reserved and not, put together as `/state` does.
fn listed_ports(resources: &[RawResource<'_>]) -> Vec<(i64, i64)> {
    let ports = resources.iter().filter(|resource| resource.name.0 == "ports");
    let ranges = ports.filter_map(|resource| resource.ranges.as_ref()).flat_map(|r| &r.range);
    let ranges = ranges.map(|range| (range.begin, range.end)).collect();
    joined(ranges, |next, last| next.0 <= last.1.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ports(text: &str, expected: &[(i64, i64)], fault_count: usize) {
        let mut faults = Vec::new();
        assert_eq!(port_ranges(text, &mut faults), expected, "{text}");
        assert_eq!(faults.len(), fault_count, "{faults:?}");
    }

    #[test]
    fn a_malformed_range_costs_itself() {
        check_ports("[31000-31003, 31053-31053]", &[(31000, 31003), (31053, 31053)], 0);
        check_ports("[31000]", &[(31000, 31000)], 0);
        check_ports(" x [ 5-6 , 7-7 ] junk [9-9]", &[(5, 6), (7, 7)], 0);
        check_ports("[a-2, 3-b, 12-12]", &[(12, 12)], 2);
        check_ports("[1-2-3]", &[], 1);
        check_ports("[9-9, 1-65535, 5-6, 1-65535]", &[(1, 65535)], 0);
        check_ports("[9-3, 4-8]", &[(4, 8), (9, 3)], 0);
        check_ports("[]", &[], 0);
        check_ports("", &[], 0);
        check_ports("31000-31003", &[], 1);
    }

    #[track_caller]
    fn check_chosen(labels: &str, key: Option<&str>, expected: Result<&[&str], ()>) {
        let text = format!(
            r#"{{"id": "t", "slave_id": "s", "state": "TASK_RUNNING", "labels": {labels}}}"#
        );
        let read = task(text.as_bytes(), &mut Ids::default(), key).map(|told| told.task.chosen);
        let read = read.as_ref().map(|chosen| chosen.iter().map(|text| &**text).collect());
        assert_eq!(read.map_err(|_| ()), expected.map(<[&str]>::to_vec), "{labels}");
    }

    #[test]
    fn of_the_labels_of_a_task_one_key_is_read_in_either_schema() {
        let list = r#"[{"key": "dns", "value": "a,b"}, {"key": "x", "value": "c"},
            {"key": "dns", "value": "d"}, {"key": "dns"}]"#;
        check_chosen(list, Some("dns"), Ok(&["a,b", "d"]));
        check_chosen(&format!(r#"{{"labels": {list}}}"#), Some("dns"), Ok(&["a,b", "d"]));
        check_chosen("null", Some("dns"), Ok(&[]));
        check_chosen("{}", Some("dns"), Ok(&[]));
        check_chosen(list, None, Ok(&[]));
        check_chosen(r#"[{"key": 5}]"#, None, Ok(&[]));
        check_chosen(r#"[{"key": 5}]"#, Some("dns"), Err(()));
    }

    #[test]
    fn a_visibility_that_mesos_does_not_know_is_a_fault() {
        let read = |word: &str| {
            let text = format!(
                r#"{{"id": "t", "slave_id": "s", "state": "X", "discovery": {{"visibility": "{word}"}}}}"#
            );
            let told = task(text.as_bytes(), &mut Ids::default(), None).unwrap().task;
            (told.discovery.unwrap().visibility, told.faults.len())
        };
        assert_eq!(read("CLUSTER"), (Some(Visibility::Cluster), 0));
        assert_eq!(read("cluster"), (None, 1));
    }

    #[test]
    fn ranges_of_all_resources_are_one_list() {
        let text = r#"[{"name": "ports", "ranges": {"range": [{"begin": 5, "end": 6}]}},
            {"name": "cpus", "scalar": {"value": 1}},
            {"name": "ports", "ranges": {"range": [{"begin": 1, "end": 2}, {"begin": 3, "end": 3}]}}]"#;
        let resources: Vec<RawResource<'_>> = serde_json::from_str(text).unwrap();
        assert_eq!(listed_ports(&resources), [(1, 3), (5, 6)]);
    }
}
