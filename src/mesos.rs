//! Reads what a Mesos master answers to `GET /state` (`src/master/http.cpp`), into a [`Cluster`].
//!
//! A field of a wrong type costs its own task, agent or framework and is reported; only a text
//! that is no whole JSON object, or whose lists are no lists, is an error.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::cluster::{
    Agent, AgentId, Cluster, Discovery, DiscoveryPort, Endpoint, Fault, Framework, FrameworkId,
    Host, Network, Task, TaskKey,
};

/// A state read: the cluster, the tasks it lists as not running, and what could not be read.
pub struct State {
    pub cluster: Cluster,
    pub ended: HashSet<TaskKey>,
    pub unread: Vec<Unread>,
}

/// A task, agent or framework that is not in the cluster because it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// "agent", "framework", "task" or "master".
    pub kind: &'static str,
    pub id: String,
    pub fault: String,
}

#[derive(Debug, thiserror::Error)]
#[error("this is no Mesos state")]
pub struct StateError(#[from] serde_json::Error);

/// Reads a whole `/state` answer.
pub fn parse(body: &[u8]) -> Result<State, StateError> {
    let raw: RawState<'_> = serde_json::from_slice(body)?;
    let mut cluster = Cluster {
        master_id: lenient::<String>(raw.id).unwrap_or_default().into(),
        elected_time: lenient(raw.elected_time),
        ..Cluster::default()
    };
    let mut unread = Vec::new();
    let leader: Option<String> = lenient(raw.leader);
    if let Some(pid) = leader.as_deref().filter(|pid| !pid.is_empty()) {
        cluster.leader = Endpoint::parse_pid(pid);
        if cluster.leader.is_none() {
            let fault = format!("pid {pid:?} has no host and port");
            unread.push(Unread { kind: "master", id: "leader".to_owned(), fault });
        }
    }
    for text in raw.slaves {
        match serde_json::from_str::<RawAgent>(text.get()) {
            Ok(agent) => {
                cluster.agents.insert(AgentId(Arc::from(&*agent.id)), Arc::new(agent.read()));
            }
            Err(error) => unread.push(Unread::new("agent", text, &error)),
        }
    }
    for text in raw.recovered_slaves {
        match serde_json::from_str::<RawId>(text.get()) {
            Ok(agent) => {
                cluster.recovered.insert(AgentId(Arc::from(&*agent.id)));
            }
            Err(error) => unread.push(Unread::new("agent", text, &error)),
        }
    }
    let mut state = State { cluster, ended: HashSet::new(), unread };
    for text in raw.frameworks {
        match serde_json::from_str::<RawFramework<'_>>(text.get()) {
            Ok(framework) => state.add_framework(framework),
            Err(error) => state.unread.push(Unread::new("framework", text, &error)),
        }
    }
    let completed: Option<Vec<&RawValue>> =
        raw.completed_frameworks.and_then(|list| serde_json::from_str(list.get()).ok());
    for text in completed.unwrap_or_default() {
        match serde_json::from_str::<RawFramework<'_>>(text.get()) {
            Ok(framework) => state.add_ended(&framework),
            Err(error) => state.unread.push(Unread::new("framework", text, &error)),
        }
    }
    Ok(state)
}

impl State {
    fn add_framework(&mut self, raw: RawFramework<'_>) {
        let id = FrameworkId(Arc::from(&*raw.id));
        self.add_ended(&raw);
        for text in raw.tasks.as_deref().unwrap_or_default() {
            let task: RawTask = match serde_json::from_str(text.get()) {
                Ok(task) => task,
                Err(error) => {
                    self.unread.push(Unread::new("task", text, &error));
                    continue;
                }
            };
            let key = task.key(&id);
            match task.state.as_str() {
                "TASK_RUNNING" => {
                    self.cluster.tasks.insert(key, Arc::new(task.read()));
                }
                _ => {
                    self.ended.insert(key);
                }
            }
        }
        self.cluster.frameworks.insert(id, Arc::new(raw.read()));
    }

    /// Notes the tasks that a framework lists as over. One that cannot be read is left out: it
    /// makes no records either way.
    fn add_ended(&mut self, raw: &RawFramework<'_>) {
        let id = FrameworkId(Arc::from(&*raw.id));
        let lists = [&raw.completed_tasks, &raw.unreachable_tasks];
        for text in lists.into_iter().flatten().flatten() {
            if let Ok(task) = serde_json::from_str::<RawTaskIds>(text.get()) {
                let task_key = TaskKey {
                    framework: id.clone(),
                    task: Arc::from(task.id),
                    agent: AgentId(Arc::from(task.slave_id)),
                };
                self.ended.insert(task_key);
            }
        }
    }
}

impl Unread {
    fn new(kind: &'static str, text: &RawValue, error: &serde_json::Error) -> Unread {
        let id = serde_json::from_str::<RawId>(text.get()).map(|raw| raw.id).unwrap_or_default();
        Unread { kind, id, fault: error.to_string() }
    }
}

/// A value of the master itself: of a wrong type it is as if it were missing, and costs its own
/// records.
fn lenient<'s, T: Deserialize<'s>>(value: Option<&'s RawValue>) -> Option<T> {
    value.and_then(|text| serde_json::from_str(text.get()).ok())
}

/// A list, or `null`, which Mesos never writes and mesos-dns took for an empty one.
type RawList<'s> = Option<Vec<&'s RawValue>>;

#[derive(Deserialize)]
struct RawState<'s> {
    #[serde(borrow)]
    id: Option<&'s RawValue>,
    #[serde(borrow)]
    elected_time: Option<&'s RawValue>,
    #[serde(borrow)]
    leader: Option<&'s RawValue>,
    #[serde(borrow)]
    slaves: Vec<&'s RawValue>,
    /// Absent before Mesos 1.2. It decides what may be removed, so it is a list or an error.
    #[serde(borrow, default)]
    recovered_slaves: Vec<&'s RawValue>,
    #[serde(borrow)]
    frameworks: Vec<&'s RawValue>,
    #[serde(borrow)]
    completed_frameworks: Option<&'s RawValue>,
}

#[derive(Deserialize)]
struct RawId {
    id: String,
}

#[derive(Deserialize)]
struct RawAgent {
    id: String,
    pid: Option<String>,
}

impl RawAgent {
    fn read(&self) -> Agent {
        let endpoint = self.pid.as_deref().and_then(Endpoint::parse_pid);
        let fault = match (&self.pid, &endpoint) {
            (_, Some(_)) => None,
            (None, None) => Some(Fault("no pid".to_owned())),
            (Some(pid), None) => Some(Fault(format!("pid {pid:?} has no host and port"))),
        };
        Agent { endpoint, faults: fault.into_iter().collect() }
    }
}

#[derive(Deserialize)]
struct RawFramework<'s> {
    id: String,
    #[serde(default)]
    name: Option<String>,
    pid: Option<String>,
    hostname: Option<String>,
    #[serde(borrow)]
    tasks: RawList<'s>,
    #[serde(borrow)]
    completed_tasks: RawList<'s>,
    #[serde(borrow)]
    unreachable_tasks: RawList<'s>,
}

impl RawFramework<'_> {
    fn read(&self) -> Framework {
        let pid = self.pid.as_deref().filter(|pid| !pid.is_empty());
        let by_pid = pid.and_then(Endpoint::parse_pid);
        let fault = match (pid, &by_pid) {
            (Some(pid), None) => Some(Fault(format!("pid {pid:?} has no host and port"))),
            _ => None,
        };
        let by_hostname = || {
            let host = Host::parse(self.hostname.as_deref()?)?;
            Some(Endpoint::new(host, None))
        };
        Framework {
            name: self.name.as_deref().unwrap_or_default().into(),
            scheduler: by_pid.or_else(by_hostname),
            faults: fault.into_iter().collect(),
        }
    }
}

#[derive(Deserialize)]
struct RawTaskIds {
    id: String,
    slave_id: String,
}

#[derive(Deserialize)]
struct RawTask {
    id: String,
    #[serde(default)]
    name: Option<String>,
    slave_id: String,
    state: String,
    resources: Option<RawResources>,
    discovery: Option<RawDiscovery>,
    container: Option<RawContainer>,
    statuses: Option<Vec<RawStatus>>,
}

#[derive(Deserialize)]
struct RawResources {
    ports: Option<String>,
}

#[derive(Deserialize)]
struct RawDiscovery {
    name: Option<String>,
    ports: Option<RawPorts>,
}

#[derive(Deserialize)]
struct RawPorts {
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
struct RawPort {
    #[serde(default, deserialize_with = "number_or_none")]
    number: Option<f64>,
    name: Option<String>,
    protocol: Option<String>,
    labels: Option<RawLabels>,
}

#[derive(Deserialize)]
struct RawLabels {
    labels: Option<Vec<RawLabel>>,
}

#[derive(Deserialize)]
struct RawLabel {
    key: String,
    value: Option<String>,
}

#[derive(Deserialize)]
struct RawContainer {
    #[serde(rename = "type")]
    kind: Option<String>,
    docker: Option<RawDocker>,
    network_infos: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct RawDocker {
    network: Option<String>,
}

#[derive(Deserialize)]
struct RawStatus {
    #[serde(default)]
    state: Option<String>,
    #[serde(default, deserialize_with = "number_or_none")]
    timestamp: Option<f64>,
    labels: Option<Vec<RawLabel>>,
    container_status: Option<RawContainerStatus>,
    healthy: Option<bool>,
}

#[derive(Deserialize)]
struct RawContainerStatus {
    network_infos: Option<Vec<RawNetworkInfo>>,
}

#[derive(Deserialize)]
struct RawNetworkInfo {
    ip_addresses: Option<Vec<RawAddress>>,
    ip_address: Option<String>,
}

#[derive(Deserialize)]
struct RawAddress {
    ip_address: Option<String>,
}

/// A JSON number as it is, `null` as none.
fn number_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Option::<f64>::deserialize(from)
}

impl RawTask {
    fn key(&self, framework: &FrameworkId) -> TaskKey {
        TaskKey {
            framework: framework.clone(),
            task: Arc::from(&*self.id),
            agent: AgentId(Arc::from(&*self.slave_id)),
        }
    }

    fn read(self) -> Task {
        let mut faults = Vec::new();
        let ports = self.resources.and_then(|resources| resources.ports).unwrap_or_default();
        let host_ports = port_ranges(&ports, &mut faults);
        let network = self.container.as_ref().map_or(Network::Agents, RawContainer::network);
        let discovery = self.discovery.map(|raw| raw.read(&mut faults));
        let statuses = self.statuses.unwrap_or_default();
        let status = status_that_counts(&statuses);
        let mut labelled = |key| status.map_or_else(Vec::new, |s| s.labelled(key, &mut faults));
        let docker = labelled("Docker.NetworkSettings.IPAddress");
        let mesos = labelled("MesosContainerizer.NetworkSettings.IPAddress");
        let netinfo = status.map_or_else(Vec::new, |status| status.netinfo(&mut faults));
        Task {
            name: self.name.unwrap_or_default().into(),
            discovery,
            host_ports,
            netinfo,
            docker,
            mesos,
            network,
            healthy: status.and_then(|status| status.healthy),
            faults,
        }
    }
}

/// The TASK_RUNNING status with the highest timestamp; missing is 0, of equals the first, and
/// one at or below -1 never counts (mesos-dns, `records/state`).
fn status_that_counts(statuses: &[RawStatus]) -> Option<&RawStatus> {
    let running = statuses.iter().filter(|s| s.state.as_deref() == Some("TASK_RUNNING"));
    let mut best: Option<(&RawStatus, f64)> = None;
    for status in running {
        let time = status.timestamp.unwrap_or(0.0);
        if time > best.map_or(-1.0, |(_, found)| found) {
            best = Some((status, time));
        }
    }
    best.map(|(status, _)| status)
}

impl RawStatus {
    fn labelled(&self, key: &str, faults: &mut Vec<Fault>) -> Vec<IpAddr> {
        let labels = self.labels.iter().flatten().filter(|label| label.key == key);
        addresses(labels.filter_map(|label| label.value.as_deref()), faults)
    }

    fn netinfo(&self, faults: &mut Vec<Fault>) -> Vec<IpAddr> {
        let status = self.container_status.iter();
        let infos = status.flat_map(|status| status.network_infos.iter().flatten());
        let texts = infos.flat_map(|info| {
            let listed = info.ip_addresses.as_deref().unwrap_or_default();
            let old = info.ip_address.as_deref().filter(|_| listed.is_empty());
            listed.iter().filter_map(|address| address.ip_address.as_deref()).chain(old)
        });
        addresses(texts, faults)
    }
}

fn addresses<'t>(texts: impl Iterator<Item = &'t str>, faults: &mut Vec<Fault>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(address) => found.push(address),
            Err(_) => faults.push(Fault(format!("{text:?} is no address"))),
        }
    }
    found
}

impl RawContainer {
    fn network(&self) -> Network {
        let docker = self.docker.as_ref().and_then(|docker| docker.network.as_deref());
        let attached = self.network_infos.as_ref().is_some_and(|infos| !infos.is_empty());
        match (self.kind.as_deref(), docker) {
            (_, Some("USER")) => Network::Own,
            (Some("MESOS"), _) if attached => Network::Own,
            _ => Network::Agents,
        }
    }
}

impl RawDiscovery {
    fn read(self, faults: &mut Vec<Fault>) -> Discovery {
        let ports = self.ports.and_then(|ports| ports.ports).unwrap_or_default();
        let ports = ports.into_iter().filter_map(|port| {
            let number = port.number.filter(|number| number.fract() == 0.0);
            if number.is_none() {
                faults.push(Fault("a discovery port without a whole number".to_owned()));
            }
            let labels = port.labels.and_then(|labels| labels.labels).unwrap_or_default();
            let on_agent = labels.iter().any(|label| {
                label.key == "network-scope" && label.value.as_deref() == Some("host")
            });
            Some(DiscoveryPort {
                number: number? as i64, // Whole; one out of range saturates and is refused later.
                name: port.name.unwrap_or_default().into(),
                protocol: port.protocol.unwrap_or_default().into(),
                on_agent,
            })
        });
        let ports = ports.collect();
        Discovery { name: self.name.unwrap_or_default().into(), ports }
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
    ranges
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
        check_ports("[]", &[], 0);
        check_ports("", &[], 0);
        check_ports("31000-31003", &[], 1);
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
