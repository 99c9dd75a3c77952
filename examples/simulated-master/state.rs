//! The answers of /state, /slaves, /version and /metrics/snapshot.

use std::net::SocketAddrV4;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::agent::{Agent, Standing};
use crate::app::Kind;
use crate::body::Pieces;
use crate::cluster::Cluster;
use crate::framework::{Framework, Presence};
use crate::random::Random;
use crate::resources::{Ports, Resources, allocated, unreserved};
use crate::task::{Part, Task};

/// The master as it names itself.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) address: SocketAddrV4,
    pub(crate) start_time: f64,
    pub(crate) elected_time: f64,
    /// What its ids come from, one for each process.
    ids: Random,
}

impl Identity {
    pub(crate) fn new(address: SocketAddrV4, seed: u64, elected_time: f64) -> Identity {
        let mut ids = Random::new(seed ^ u64::from(address.port()) << 32);
        let start_time = elected_time - 0.05;
        Identity { id: ids.uuid(), address, start_time, elected_time, ids }
    }

    /// Another process at the same address.
    pub(crate) fn renew(&mut self, now: f64) {
        self.id = self.ids.uuid();
        self.start_time = now;
        self.elected_time = now;
    }
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
    if let Some(cluster) = cluster {
        write_frameworks(&mut body, cluster);
    }
    body.text(r#"],"completed_frameworks":["#);
    let torn_down = cluster.iter().flat_map(|cluster| &cluster.frameworks);
    for (index, framework) in torn_down.filter(|known| known.is_torn_down()).enumerate() {
        body.text(if index > 0 { "," } else { "" });
        write_framework(&mut body, framework, &[], &[]);
    }
    body.text(r#"],"orphan_tasks":[],"unregistered_frameworks":[]}"#);
    body
}

fn write_frameworks(body: &mut Pieces, cluster: &Cluster) {
    let shown = cluster.shown_by_framework();
    let mut unreachable = vec![vec![]; shown.len()];
    for task in cluster.unreachable_tasks() {
        unreachable[task.framework].push(task);
    }
    let all = cluster.frameworks.iter().zip(shown.iter().zip(&unreachable));
    let listed = all.filter(|(framework, _)| framework.is_listed());
    for (index, (framework, (tasks, unreachable))) in listed.enumerate() {
        body.text(if index > 0 { "," } else { "" });
        write_framework(body, framework, tasks, unreachable);
    }
}

pub(crate) fn slaves(cluster: Option<&Cluster>) -> Pieces {
    let mut body = Pieces::default();
    body.text("{");
    write_agents(&mut body, cluster, agent_in_full);
    body.text("}");
    body
}

pub(crate) fn metrics(is_elected: bool, is_recovered: bool, cluster: Option<&Cluster>) -> Value {
    let agents = Counts::of(cluster);
    let tasks = cluster.map_or(0, |cluster| cluster.shown().count());
    json!({
        "master/elected": f64::from(u8::from(is_elected)),
        "master/slaves_active": agents.active as f64,
        "master/slaves_connected": agents.connected as f64,
        "master/slaves_unreachable": agents.unreachable as f64,
        "master/tasks_running": tasks as f64,
        "registrar/log/recovered": f64::from(u8::from(is_recovered)),
    })
}

/// How many agents there are.
#[derive(Default)]
struct Counts {
    registered: usize,
    active: usize,
    connected: usize,
    unreachable: usize,
}

impl Counts {
    fn of(cluster: Option<&Cluster>) -> Counts {
        let Some(cluster) = cluster else { return Counts::default() };
        let standing = |wanted| cluster.agents.iter().filter(move |a| a.standing == wanted).count();
        let registered = cluster.registered().count();
        Counts {
            registered,
            active: standing(Standing::Active),
            connected: registered - standing(Standing::Disconnected),
            unreachable: cluster.unreachable().count(),
        }
    }
}

fn head(master: &Identity, cluster: Option<&Cluster>) -> Value {
    let pid = format!("master@{}", master.address);
    let hostname = master.address.ip().to_string();
    let agents = Counts::of(cluster);
    let mut head = version();
    let more = json!({"start_time": master.start_time, "elected_time": master.elected_time,
        "id": master.id, "pid": pid, "hostname": hostname,
        "capabilities": ["AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2"],
        "activated_slaves": agents.active as f64,
        "deactivated_slaves": (agents.registered - agents.active) as f64,
        "unreachable_slaves": agents.unreachable as f64, "domain": domain("a"), "leader": pid,
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

fn write_agents(
    body: &mut Pieces,
    cluster: Option<&Cluster>,
    shape: fn(&Agent, &Resources, &Resources) -> Value,
) {
    let Some(cluster) = cluster else {
        body.text(r#""slaves":[],"recovered_slaves":[]"#);
        return;
    };
    let total = cluster.agent_resources();
    let known = cluster.agents.iter().enumerate().filter(|(_, known)| known.is_registered());
    body.text(r#""slaves":"#);
    body.array(known.map(|(index, known)| shape(known, &total, &cluster.used_on(index))));
    body.text(r#","recovered_slaves":"#);
    body.array(cluster.recovered().map(identity));
}

/// All that is known of an agent that has not come back.
fn identity(agent: &Agent) -> Value {
    json!({"id": *agent.id, "hostname": *agent.hostname, "port": 5051,
        "attributes": {"rack": agent.rack, "os": "debian"}, "domain": domain(agent.zone)})
}

pub(crate) fn agent(agent: &Agent, total: &Resources, used: &Resources) -> Value {
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
    json["active"] = (agent.standing == Standing::Active).into();
    json["deactivated"] = (agent.standing == Standing::Deactivated).into();
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

/// What /state and /state-summary both say of a framework.
pub(crate) fn framework(framework: &Framework, used: &Value) -> Value {
    let is_connected = framework.presence == Presence::Connected;
    let mut json = json!({"id": *framework.id, "name": framework.name, "used_resources": used,
        "offered_resources": Resources::default().summed(),
        "capabilities": capabilities(framework.kind), "hostname": "", "webui_url": "",
        "active": is_connected, "connected": is_connected,
        "recovered": framework.presence == Presence::Recovered});
    match framework.kind {
        Kind::Marathon => {
            json["hostname"] = "marathon.sim.example".into();
            json["webui_url"] = "http://marathon.sim.example:8080".into();
        }
        Kind::Chronos => {}
        Kind::Aurora => json["hostname"] = "aurora.sim.example".into(),
    }
    // A scheduler tells where it is when it subscribes, and no agent knows it.
    if let Some(pid) = framework.pid.as_ref().filter(|_| framework.presence != Presence::Recovered)
    {
        json["pid"] = pid.as_str().into();
    }
    json
}

fn framework_in_full(known: &Framework, used: &Value) -> Value {
    let (mut registered, mut unregistered) = (known.registered, 0.0);
    match known.presence {
        Presence::Recovered => registered = 0.0,
        Presence::TornDown(at) => unregistered = at,
        _ => {}
    }
    let mut json = framework(known, used);
    let more = json!({"user": "root", "failover_timeout": 604_800.0, "checkpoint": true,
        "registered_time": registered, "unregistered_time": unregistered, "resources": used,
        "offers": [], "offer_constraints": {}});
    if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
        json.extend(more);
    }
    if let Some(time) = known.reregistered {
        json["reregistered_time"] = time.into();
    }
    match known.kind {
        Kind::Marathon => {
            json["principal"] = "marathon".into();
            json["labels"] = json!([{"key": "team", "value": "platform"}]);
            json["roles"] = json!(["*"]);
        }
        Kind::Chronos => json["roles"] = json!(["*"]),
        Kind::Aurora => json["role"] = "*".into(),
    }
    json
}

fn write_framework(
    body: &mut Pieces,
    framework: &Framework,
    tasks: &[&Arc<Task>],
    unreachable: &[Arc<Task>],
) {
    let used = Resources::of(tasks.iter().map(|task| task.as_ref())).summed();
    body.open(&framework_in_full(framework, &used));
    body.text(r#","tasks":["#);
    body.tasks(tasks.iter().copied(), Part::State);
    body.text(r#"],"unreachable_tasks":["#);
    body.tasks(unreachable.iter(), Part::State);
    body.text(r#"],"completed_tasks":["#);
    body.tasks(framework.completed.iter(), Part::State);
    body.text(r#"],"executors":["#);
    body.tasks(tasks.iter().copied().filter(|task| task.has_executor()), Part::StateExecutor);
    body.text("]}");
}
