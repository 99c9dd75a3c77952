//! The answers of the operator API (`POST /api/v1`), in JSON.

use serde_json::{Value, json};

use crate::app::Kind;
use crate::body::Pieces;
use crate::cluster::{Agent, Change, Cluster, Framework};
use crate::resources::{Resources, allocated, unreserved};
use crate::state::{self, AGENT_CAPABILITIES, Identity, capabilities, domain, reserved_ports};
use crate::task::Task;

pub(crate) const HEARTBEAT_SECONDS: u64 = 15;

pub(crate) fn health() -> Value {
    json!({"type": "GET_HEALTH", "get_health": {"healthy": true}})
}

pub(crate) fn version() -> Value {
    json!({"type": "GET_VERSION", "get_version": {"version_info": state::version()}})
}

pub(crate) fn master(master: &Identity) -> Value {
    let (ip, port) = (master.address.ip(), master.address.port());
    // A capability this schema does not know is written as an empty object.
    let capabilities = json!([{"type": "AGENT_UPDATE"}, {"type": "AGENT_DRAINING"}, {}]);
    json!({"type": "GET_MASTER", "get_master": {"master_info": {"id": master.id,
        "ip": u32::from_le_bytes(ip.octets()), "port": port,
        "pid": format!("master@{}", master.address), "hostname": ip, "version": "1.11.0",
        "address": {"hostname": ip, "ip": ip, "port": port}, "domain": domain("a"),
        "capabilities": capabilities},
        "start_time": master.start_time, "elected_time": master.elected_time}})
}

pub(crate) fn state(cluster: &Cluster) -> Pieces {
    let mut body = Pieces::default();
    body.text(r#"{"type":"GET_STATE","get_state":"#);
    write_state(&mut body, cluster);
    body.text("}");
    body
}

/// The first record of a stream.
pub(crate) fn subscribed(cluster: &Cluster) -> Pieces {
    let mut body = Pieces::default();
    body.text(r#"{"type":"SUBSCRIBED","subscribed":{"get_state":"#);
    write_state(&mut body, cluster);
    body.text(&format!(r#","heartbeat_interval_seconds":{HEARTBEAT_SECONDS}.0}}}}"#));
    body
}

pub(crate) fn heartbeat() -> Value {
    json!({"type": "HEARTBEAT"})
}

/// The records a stream carries for a change: a task is staged, then each of its statuses comes.
pub(crate) fn records(change: &Change) -> Vec<Value> {
    match change {
        Change::Started(task) => {
            let mut records = vec![task_added(task.staged_in_v1())];
            records.extend(task.statuses_in_v1().into_iter().map(|last| updated(task, last)));
            records
        }
        Change::Ended(task) => {
            task.statuses_in_v1().pop().into_iter().map(|last| updated(task, last)).collect()
        }
    }
}

/// The records for the agents that came back after a failover, each with its tasks.
pub(crate) fn records_of_agents(cluster: &Cluster, came_back: &[usize]) -> Vec<Value> {
    let mut records = Vec::new();
    let total = cluster.agent_resources();
    let used = cluster.used_by_agent();
    for &index in came_back {
        let added = agent(&cluster.agents[index], &total, &used[index]);
        records.push(json!({"type": "AGENT_ADDED", "agent_added": {"agent": added}}));
        let tasks = cluster.frameworks.iter().flat_map(|framework| &framework.tasks);
        let here = tasks.filter(|task| task.place.agent == index);
        records.extend(here.map(|task| task_added(task.in_v1())));
    }
    records
}

fn task_added(task: Value) -> Value {
    json!({"type": "TASK_ADDED", "task_added": {"task": task}})
}

fn updated(task: &Task, status: Value) -> Value {
    json!({"type": "TASK_UPDATED", "task_updated": {"framework_id": {"value": *task.framework_id},
        "state": status["state"], "status": status}})
}

fn write_state(body: &mut Pieces, cluster: &Cluster) {
    let frameworks = || cluster.frameworks.iter();
    let tasks = || {
        let all = frameworks().flat_map(|framework| &framework.tasks);
        all.filter(|task| cluster.shows(task))
    };
    body.text(r#"{"get_tasks":{"tasks":["#);
    body.v1_tasks(tasks());
    body.text(r#"],"unreachable_tasks":[],"completed_tasks":["#);
    body.v1_tasks(frameworks().flat_map(|framework| &framework.completed));
    body.text(r#"]},"get_executors":{"executors":"#);
    body.value(&tasks().filter_map(|task| executor(task)).collect());
    body.text(r#"},"get_frameworks":{"frameworks":"#);
    body.value(&frameworks().map(|known| framework(known, cluster)).collect());
    body.text(r#","completed_frameworks":[]},"get_agents":"#);
    body.value(&agents(cluster));
    body.text("}");
}

fn agents(cluster: &Cluster) -> Value {
    let (mut agents, mut recovered) = (Vec::new(), Vec::new());
    let total = cluster.agent_resources();
    for (known, used) in cluster.agents.iter().zip(cluster.used_by_agent()) {
        match known.is_lost {
            false => agents.push(agent(known, &total, &used)),
            true => recovered.push(agent_info(known, &total)),
        }
    }
    json!({"agents": agents, "recovered_agents": recovered})
}

fn executor(task: &Task) -> Option<Value> {
    let id = task.executor_id()?;
    let resources = Resources { cpus: 0.01, mem: 16.0, ..Resources::default() };
    Some(json!({"agent_id": {"value": *task.place.agent_id}, "executor_info": {"type": "CUSTOM",
        "executor_id": {"value": id}, "framework_id": {"value": *task.framework_id},
        "command": {"shell": true, "value": "./thermos_executor"},
        "resources": allocated(resources.listed()), "name": "thermos", "source": "thermos"}}))
}

fn framework(framework: &Framework, cluster: &Cluster) -> Value {
    let mut info = json!({"user": "root", "name": framework.name,
        "id": {"value": *framework.id}, "failover_timeout": 604_800.0, "checkpoint": true});
    let named = capabilities(framework.kind).iter().map(|name| json!({"type": name}));
    match framework.kind {
        Kind::Marathon => {
            info["hostname"] = "marathon.sim.example".into();
            info["webui_url"] = "http://marathon.sim.example:8080".into();
            info["principal"] = "marathon".into();
            info["labels"] = json!({"labels": [{"key": "team", "value": "platform"}]});
            info["roles"] = json!(["*"]);
            info["capabilities"] = named.collect();
        }
        Kind::Chronos => {
            info["roles"] = json!(["*"]);
            info["capabilities"] = named.collect();
        }
        Kind::Aurora => {
            info["hostname"] = "aurora.sim.example".into();
            info["role"] = "*".into();
        }
    }
    let shown = framework.tasks.iter().map(AsRef::as_ref).filter(|task| cluster.shows(task));
    let used = Resources::of(shown).listed();
    let registered = nanoseconds(framework.registered);
    let mut json = json!({"framework_info": info, "active": true, "connected": true,
        "recovered": false, "registered_time": registered, "reregistered_time": registered,
        "offer_constraints": {}});
    if !used.is_empty() {
        json["allocated_resources"] = allocated(unreserved(used)).into();
    }
    json
}

fn agent_info(agent: &Agent, total: &Resources) -> Value {
    let text = |name, value: &str| json!({"name": name, "type": "TEXT", "text": {"value": value}});
    let mut resources = total.listed();
    resources.push(reserved_ports());
    json!({"hostname": agent.hostname, "port": 5051, "resources": resources,
        "attributes": [text("rack", &agent.rack), text("os", "debian")],
        "id": {"value": *agent.id}, "domain": domain(agent.zone), "checkpoint": true})
}

fn agent(agent: &Agent, total: &Resources, used: &Resources) -> Value {
    let mut reserved = reserved_ports();
    reserved["role"] = "slave_public".into();
    let mut all = unreserved(total.listed());
    all.push(reserved);
    let capability = |name: &&str| json!({"type": name});
    let mut json = json!({"agent_info": agent_info(agent, total), "active": true,
        "deactivated": false, "version": "1.11.0", "pid": agent.pid(),
        "registered_time": nanoseconds(agent.registered), "total_resources": all,
        "capabilities": AGENT_CAPABILITIES.iter().map(capability).collect::<Vec<_>>()});
    if let Some(time) = agent.reregistered {
        json["reregistered_time"] = nanoseconds(time);
    }
    if used.mem > 0.0 {
        json["allocated_resources"] = allocated(unreserved(used.listed())).into();
    }
    json
}

fn nanoseconds(seconds: f64) -> Value {
    json!({"nanoseconds": (seconds * 1e9) as u64})
}
