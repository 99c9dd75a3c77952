//! The answers of /state, /slaves, /version and /metrics/snapshot.

use std::net::SocketAddrV4;

use serde_json::{Value, json};

use crate::app::Kind;
use crate::body::Pieces;
use crate::cluster::{Agent, Cluster, Framework};
use crate::resources::{Ports, Resources, allocated, unreserved};
use crate::task::Task;

/// The master as it names itself.
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) address: SocketAddrV4,
    pub(crate) start_time: f64,
    pub(crate) elected_time: f64,
}

pub(crate) const AGENT_CAPABILITIES: [&str; 8] = [
    "MULTI_ROLE",
    "HIERARCHICAL_ROLE",
    "RESERVATION_REFINEMENT",
    "RESOURCE_PROVIDER",
    "RESIZE_VOLUME",
    "AGENT_OPERATION_FEEDBACK",
    "AGENT_DRAINING",
    "TASK_RESOURCE_LIMITS",
];

pub(crate) fn capabilities(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Marathon => &["MULTI_ROLE", "PARTITION_AWARE", "TASK_KILLING_STATE", "REGION_AWARE"],
        Kind::Chronos => &["MULTI_ROLE"],
        Kind::Aurora => &[],
    }
}

pub(crate) fn domain(zone: &str) -> Value {
    json!({"fault_domain": {"region": {"name": "eu-west"}, "zone": {"name": zone}}})
}

pub(crate) fn version() -> Value {
    json!({"build_date": "2020-11-24 15:38:37", "build_time": 1_606_232_317.0,
        "build_user": "ubuntu", "git_sha": "04bc7ee1984d86fbb0bd782ccc69ce44c13ae4b9",
        "git_tag": "1.11.0", "version": "1.11.0"})
}

/// /state; no cluster is one whose registry has not been read yet.
pub(crate) fn state(master: &Identity, cluster: Option<&Cluster>) -> Pieces {
    let mut body = Pieces::default();
    body.open(&head(master, cluster));
    body.text(",");
    write_agents(&mut body, cluster, agent);
    body.text(r#","frameworks":["#);
    for (index, framework) in cluster.iter().flat_map(|cluster| &cluster.frameworks).enumerate() {
        body.text(if index > 0 { "," } else { "" });
        let shown = |task: &Task| cluster.is_some_and(|cluster| cluster.shows(task));
        write_framework(&mut body, framework, shown);
    }
    body.text(r#"],"completed_frameworks":[],"orphan_tasks":[],"unregistered_frameworks":[]}"#);
    body
}

pub(crate) fn slaves(cluster: Option<&Cluster>) -> Pieces {
    let mut body = Pieces::default();
    body.text("{");
    write_agents(&mut body, cluster, agent_in_full);
    body.text("}");
    body
}

pub(crate) fn metrics(is_elected: bool, is_recovered: bool, cluster: Option<&Cluster>) -> Value {
    let agents = present(cluster).count();
    let shown = |task: &&Task| cluster.is_some_and(|cluster| cluster.shows(task));
    let tasks = cluster.iter().flat_map(|cluster| &cluster.frameworks);
    let running = tasks.flat_map(|framework| &framework.tasks).map(AsRef::as_ref).filter(shown);
    json!({
        "master/elected": f64::from(u8::from(is_elected)),
        "master/slaves_active": agents as f64,
        "master/slaves_connected": agents as f64,
        "master/tasks_running": running.count() as f64,
        "registrar/log/recovered": f64::from(u8::from(is_recovered)),
    })
}

fn head(master: &Identity, cluster: Option<&Cluster>) -> Value {
    let pid = format!("master@{}", master.address);
    let hostname = master.address.ip().to_string();
    let mut head = version();
    let more = json!({"start_time": master.start_time, "elected_time": master.elected_time,
        "id": master.id, "pid": pid, "hostname": hostname,
        "capabilities": ["AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2"],
        "activated_slaves": present(cluster).count() as f64, "deactivated_slaves": 0.0,
        "unreachable_slaves": 0.0, "domain": domain("a"), "leader": pid,
        "leader_info": {"id": master.id, "pid": pid, "port": master.address.port(),
            "hostname": hostname, "domain": domain("a")},
        "cluster": "simulated", "flags": flags(master)});
    if let (Value::Object(head), Value::Object(more)) = (&mut head, more) {
        head.extend(more);
    }
    head
}

fn flags(master: &Identity) -> Value {
    let mut flags: Value =
        serde_json::from_str(include_str!("flags.json")).expect("the file beside this one is JSON");
    flags["ip"] = master.address.ip().to_string().into();
    flags["hostname"] = flags["ip"].clone();
    flags["port"] = master.address.port().to_string().into();
    flags
}

fn present(cluster: Option<&Cluster>) -> impl Iterator<Item = &Agent> {
    cluster.into_iter().flat_map(|cluster| &cluster.agents).filter(|agent| !agent.is_lost)
}

fn write_agents(
    body: &mut Pieces,
    cluster: Option<&Cluster>,
    shape: fn(&Agent, &Resources, &Resources) -> Value,
) {
    let mut agents = Vec::new();
    let mut recovered = Vec::new();
    if let Some(cluster) = cluster {
        let total = cluster.agent_resources();
        for (known, used) in cluster.agents.iter().zip(cluster.used_by_agent()) {
            match known.is_lost {
                false => agents.push(shape(known, &total, &used)),
                true => recovered.push(identity(known)),
            }
        }
    }
    body.text(r#""slaves":"#);
    body.value(&agents.into());
    body.text(r#","recovered_slaves":"#);
    body.value(&recovered.into());
}

/// All that is known of an agent that has not come back.
fn identity(agent: &Agent) -> Value {
    json!({"id": *agent.id, "hostname": agent.hostname, "port": 5051,
        "attributes": {"rack": agent.rack, "os": "debian"}, "domain": domain(agent.zone)})
}

fn agent(agent: &Agent, total: &Resources, used: &Resources) -> Value {
    let none = Resources::default().summed();
    let mut reserved = none.clone();
    reserved["ports"] = RESERVED_PORTS.into();
    let mut all = total.summed();
    all["ports"] = total.ports.beside(RESERVED_PORTS).into();
    let mut json = identity(agent);
    json["pid"] = agent.pid().into();
    json["registered_time"] = agent.registered.into();
    if let Some(time) = agent.reregistered {
        json["reregistered_time"] = time.into();
    }
    json["resources"] = all;
    json["used_resources"] = used.summed();
    json["offered_resources"] = none;
    json["reserved_resources"] = json!({"slave_public": reserved});
    json["unreserved_resources"] = total.summed();
    json["active"] = true.into();
    json["deactivated"] = false.into();
    json["version"] = "1.11.0".into();
    json["capabilities"] = AGENT_CAPABILITIES.as_slice().into();
    json
}

/// What /slaves says of an agent beyond /state.
fn agent_in_full(known: &Agent, total: &Resources, used: &Resources) -> Value {
    let mut json = agent(known, total, used);
    let mut reserved = reserved_ports();
    reserved["role"] = "slave_public".into();
    json["reserved_resources_full"] = json!({"slave_public": [reserved]});
    json["unreserved_resources_full"] = unreserved(total.listed()).into();
    json["used_resources_full"] = allocated(unreserved(used.listed())).into();
    json["offered_resources_full"] = json!([]);
    json
}

const RESERVED_PORTS: &str = "[53-53, 80-80, 443-443]";

/// Every agent keeps these for the role `slave_public`; no task here takes them.
pub(crate) fn reserved_ports() -> Value {
    json!({"name": "ports", "type": "RANGES", "ranges": Ports::of([53, 80, 443]).ranges(),
        "reservations": [{"type": "STATIC", "role": "slave_public"}]})
}

fn write_framework(body: &mut Pieces, framework: &Framework, shown: impl Fn(&Task) -> bool) {
    let tasks = || framework.tasks.iter().filter(|task| shown(task));
    let used = Resources::of(tasks().map(AsRef::as_ref)).summed();
    let mut json = json!({"id": *framework.id, "name": framework.name, "used_resources": used,
        "offered_resources": Resources::default().summed(),
        "capabilities": capabilities(framework.kind), "hostname": "", "webui_url": "",
        "active": true, "connected": true, "recovered": false, "user": "root",
        "failover_timeout": 604_800.0, "checkpoint": true,
        "registered_time": framework.registered, "unregistered_time": 0.0, "resources": used,
        "offers": [], "offer_constraints": {}});
    match framework.kind {
        Kind::Marathon => {
            json["hostname"] = "marathon.sim.example".into();
            json["webui_url"] = "http://marathon.sim.example:8080".into();
            json["principal"] = "marathon".into();
            json["labels"] = json!([{"key": "team", "value": "platform"}]);
            json["roles"] = json!(["*"]);
        }
        Kind::Chronos => json["roles"] = json!(["*"]),
        Kind::Aurora => {
            json["hostname"] = "aurora.sim.example".into();
            json["role"] = "*".into();
        }
    }
    body.open(&json);
    body.text(r#","tasks":["#);
    body.state_tasks(tasks());
    body.text(r#"],"unreachable_tasks":[],"completed_tasks":["#);
    body.state_tasks(framework.completed.iter());
    body.text(r#"],"executors":"#);
    body.value(&tasks().filter_map(|task| executor(task)).collect());
    body.text("}");
}

fn executor(task: &Task) -> Option<Value> {
    let id = task.executor_id()?;
    Some(json!({"executor_id": id, "name": "thermos", "framework_id": *task.framework_id,
        "command": {"shell": true, "value": "./thermos_executor", "argv": [], "uris": []},
        "resources": {"disk": 0.0, "mem": 16.0, "gpus": 0.0, "cpus": 0.01}, "role": "*",
        "type": "CUSTOM", "slave_id": *task.place.agent_id}))
}
