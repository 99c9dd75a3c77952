//! The answers of the operator API (`POST /api/v1`), in JSON.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Agent, Standing};
use crate::app::Kind;
use crate::body::{Pieces, Record};
use crate::cluster::{Change, Cluster};
use crate::framework::{Framework, Presence};
use crate::resources::{Resources, allocated, unreserved};
use crate::state::{self, AGENT_CAPABILITIES, Identity, capabilities, domain, reserved_ports};
use crate::task::{Part, Task};

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
pub(crate) fn subscribed(cluster: &Cluster, heartbeat: Duration) -> Pieces {
    let mut body = Pieces::default();
    body.text(r#"{"type":"SUBSCRIBED","subscribed":{"get_state":"#);
    write_state(&mut body, cluster);
    body.text(&format!(r#","heartbeat_interval_seconds":{:?}}}}}"#, heartbeat.as_secs_f64()));
    body
}

pub(crate) fn heartbeat() -> Value {
    json!({"type": "HEARTBEAT"})
}

/// The records a stream carries for a change: a task is staged, then each of its statuses comes.
pub(crate) fn records(change: &Change, cluster: &Cluster) -> Vec<Record> {
    let record = match change {
        // It runs where the master does not look yet.
        Change::Started(task) if !cluster.shows(task) => return vec![],
        Change::Started(task) => {
            let statuses = task.launch_in_v1();
            let updates = statuses.into_iter().map(|status| updated(task, status).into());
            return [task_added(task.staged_in_v1()).into()].into_iter().chain(updates).collect();
        }
        Change::Updated(task) => match task.last_status_in_v1() {
            Some(status) => updated(task, status),
            None => return vec![],
        },
        Change::Reported(task) => return vec![Record::TaskAdded(task.clone())],
        Change::AgentAdded(index) => {
            let (total, used) = (cluster.agent_resources(), cluster.used_on(*index));
            let mut added = agent(&cluster.agents[*index], &total, &used);
            // Only what comes from the registry has it.
            if let Some(info) = added["agent_info"].as_object_mut() {
                info.remove("checkpoint");
            }
            json!({"type": "AGENT_ADDED", "agent_added": {"agent": added}})
        }
        Change::AgentRemoved(index) => {
            let id = json!({"value": *cluster.agents[*index].id});
            json!({"type": "AGENT_REMOVED", "agent_removed": {"agent_id": id}})
        }
        Change::FrameworkAdded(index, presence) => {
            let added = framework_alone(&cluster.frameworks[*index], *presence);
            json!({"type": "FRAMEWORK_ADDED", "framework_added": {"framework": added}})
        }
        Change::FrameworkUpdated(index) => {
            let updated = framework_alone(&cluster.frameworks[*index], Presence::Connected);
            json!({"type": "FRAMEWORK_UPDATED", "framework_updated": {"framework": updated}})
        }
        Change::FrameworkRemoved(index) => {
            let info = framework_info(&cluster.frameworks[*index]);
            json!({"type": "FRAMEWORK_REMOVED", "framework_removed": {"framework_info": info}})
        }
    };
    vec![record.into()]
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
    let shown = cluster.shown_by_framework();
    let tasks = || shown.iter().flatten().copied();
    let unreachable = cluster.unreachable_tasks();
    body.text(r#"{"get_tasks":{"tasks":["#);
    body.tasks(tasks(), Part::V1);
    body.text(r#"],"unreachable_tasks":["#);
    body.tasks(unreachable.iter(), Part::V1);
    body.text(r#"],"completed_tasks":["#);
    body.tasks(frameworks().flat_map(|framework| &framework.completed), Part::V1);
    body.text(r#"]},"get_executors":{"executors":["#);
    body.tasks(tasks().filter(|task| task.has_executor()), Part::V1Executor);
    body.text(r#"]},"get_frameworks":{"frameworks":"#);
    let listed = frameworks().zip(&shown).filter(|(known, _)| known.is_listed());
    body.array(listed.map(|(known, tasks)| framework(known, tasks)));
    body.text(r#","completed_frameworks":"#);
    let torn_down = frameworks().filter(|known| known.is_torn_down());
    body.array(torn_down.map(|known| framework(known, &[])));
    body.text(r#"},"get_agents":{"agents":"#);
    let total = cluster.agent_resources();
    let known = cluster.agents.iter().enumerate().filter(|(_, known)| known.is_registered());
    body.array(known.map(|(index, known)| agent(known, &total, &cluster.used_on(index))));
    body.text(r#","recovered_agents":"#);
    body.array(cluster.recovered().map(|known| agent_info(known, &total)));
    body.text("}}");
}

fn framework_info(framework: &Framework) -> Value {
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
    info
}

fn framework(framework: &Framework, tasks: &[&Arc<Task>]) -> Value {
    let mut json = presence(framework, framework.presence);
    if framework.presence != Presence::Recovered {
        let reregistered = framework.reregistered.unwrap_or(framework.registered);
        json["registered_time"] = nanoseconds(framework.registered);
        json["reregistered_time"] = nanoseconds(reregistered);
    }
    if let Presence::TornDown(at) = framework.presence {
        json["unregistered_time"] = nanoseconds(at);
    }
    json["offer_constraints"] = json!({});
    let used = Resources::of(tasks.iter().map(|task| task.as_ref())).listed();
    if !used.is_empty() {
        json["allocated_resources"] = allocated(unreserved(used)).into();
    }
    json
}

/// The framework as an event has it: without what its tasks use.
fn framework_alone(framework: &Framework, as_of: Presence) -> Value {
    let mut json = presence(framework, as_of);
    let (registered, reregistered) = match as_of {
        Presence::Recovered => (0.0, 0.0),
        _ => (framework.registered, framework.reregistered.unwrap_or(framework.registered)),
    };
    json["registered_time"] = nanoseconds(registered);
    json["reregistered_time"] = nanoseconds(reregistered);
    json["unregistered_time"] = nanoseconds(0.0);
    json
}

fn presence(framework: &Framework, as_of: Presence) -> Value {
    let is_connected = as_of == Presence::Connected;
    json!({"framework_info": framework_info(framework), "active": is_connected,
        "connected": is_connected, "recovered": as_of == Presence::Recovered})
}

fn agent_info(agent: &Agent, total: &Resources) -> Value {
    let text = |name, value: &str| json!({"name": name, "type": "TEXT", "text": {"value": value}});
    let mut resources = total.listed();
    resources.push(reserved_ports());
    json!({"hostname": *agent.hostname, "port": 5051, "resources": resources,
        "attributes": [text("rack", &agent.rack), text("os", "debian")],
        "id": {"value": *agent.id}, "domain": domain(agent.zone), "checkpoint": true})
}

fn agent(agent: &Agent, total: &Resources, used: &Resources) -> Value {
    let mut reserved = reserved_ports();
    reserved["role"] = "slave_public".into();
    let mut all = unreserved(total.listed());
    all.push(reserved);
    let capability = |name: &&str| json!({"type": name});
    let mut json = json!({"agent_info": agent_info(agent, total), 
        "active": agent.standing == Standing::Active,
        "deactivated": agent.standing == Standing::Deactivated, "version": "1.11.0", "pid": agent.pid(),
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
