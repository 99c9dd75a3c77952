//! `POST /control`: changes to the running simulation.  No part of Mesos.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Value, json};

use crate::agent::Standing;
use crate::app::Kind;
use crate::cluster::Change;
use crate::framework::Presence;
use crate::master::{Simulation, Stage};

/// One request, a JSON object with one member; only that of `stage` may have another.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    Start(Start),
    Kill(Kill),
    Move(Move),
    Health(Health),
    TaskAddress(TaskAddress),
    Stage(Target),
    Leader(String),
    LoseAgents(usize),
    AgentsBack(Count),
    AgentsGone(Count),
    NewAgent(True),
    AgentBack(usize),
    AgentUnreachable(usize),
    AgentMarkedGone(usize),
    AgentLeaves(usize),
    AgentDisconnected(usize),
    AgentDeactivated(usize),
    AgentAddress(AgentAddress),
    FrameworksBack(Names),
    FrameworkDisconnected(String),
    Teardown(String),
    NewFramework(NewFramework),
    Silence(bool),
}

/// A request, and whether a stage begins with another process.
pub(crate) struct Control {
    request: Request,
    is_new_process: bool,
}

impl Control {
    pub(crate) fn parse(body: &[u8]) -> serde_json::Result<Control> {
        let mut asked: serde_json::Map<String, Value> = serde_json::from_slice(body)?;
        let new_process = asked.remove("new-process").map(serde_json::from_value).transpose()?;
        let request = serde_json::from_value(asked.into())?;
        if new_process.is_some() && !matches!(request, Request::Stage(_)) {
            return Err(serde_json::Error::custom("new-process goes with stage only"));
        }
        Ok(Control { request, is_new_process: new_process.unwrap_or(false) })
    }

    /// Whether the process ends, and with it every connection.
    pub(crate) fn is_down(&self) -> bool {
        matches!(self.request, Request::Stage(Target::Down))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    framework: String,
    name: String,
    #[serde(default = "one")]
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kill {
    name: String,
    #[serde(default = "one")]
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Health {
    name: String,
    healthy: bool,
    #[serde(default = "one")]
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskAddress {
    name: String,
    address: Ipv4Addr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentAddress {
    agent: usize,
    address: Ipv4Addr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFramework {
    name: String,
    #[serde(default)]
    kind: Kind,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Target {
    Down,
    Recovering,
    Recovered,
    Running,
    NoLeader,
}

/// So many, or `true` for all.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Some(usize),
    All(True),
}

impl Count {
    fn max(&self) -> usize {
        match self {
            Count::Some(count) => *count,
            Count::All(True) => usize::MAX,
        }
    }
}

/// These, or `true` for all.
#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    Some(Vec<String>),
    All(True),
}

/// `true`, the only value some requests have.
#[derive(Deserialize)]
#[serde(try_from = "bool")]
struct True;

impl TryFrom<bool> for True {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<True, &'static str> {
        if value { Ok(True) } else { Err("only true is understood") }
    }
}

fn one() -> usize {
    1
}

/// Does what was asked, and says what changed; an error if it cannot be done.
pub(crate) fn apply(
    simulation: &mut Simulation,
    control: Control,
    now: f64,
) -> Result<Value, String> {
    match control.request {
        Request::Stage(target) => Ok(enter(simulation, target, control.is_new_process, now)),
        Request::Leader(leader) => {
            simulation.enter(Stage::Standby(leader.clone()));
            Ok(json!({"leader": leader}))
        }
        Request::LoseAgents(count) => {
            simulation.cluster.lose_agents(count, now);
            simulation.break_streams();
            Ok(json!({"lost": simulation.cluster.recovered().count()}))
        }
        Request::Silence(is_silent) => {
            Ok(json!({"streams": simulation.subscribers.silence(is_silent)}))
        }
        request => {
            let (changes, answer) = change(simulation, request, now)?;
            simulation.publish(&changes);
            Ok(answer)
        }
    }
}

/// What changes in the cluster while the master stays as it is, and the answer.
fn change(
    simulation: &mut Simulation,
    request: Request,
    now: f64,
) -> Result<(Vec<Change>, Value), String> {
    let cluster = &mut simulation.cluster;
    let changes = match request {
        Request::Start(Start { framework, name, count }) => {
            cluster.start(&framework, &name, count, now)
        }
        Request::Kill(Kill { name, count }) => cluster.kill(&name, count, now),
        Request::Move(Move { name }) => cluster.move_one(&name, now),
        Request::Health(Health { name, healthy, count }) => {
            let changes = cluster.health(&name, healthy, count, now);
            let updated = json!({"updated": ids(&changes)});
            return Ok((changes, updated));
        }
        Request::TaskAddress(TaskAddress { name, address }) => {
            let task = cluster.task_address(&name, address);
            let task = task.ok_or_else(|| format!("there is no task {name}"))?;
            return Ok((vec![], json!({"updated": [task.id]})));
        }
        Request::AgentsBack(count) => {
            let (back, changes) = cluster.agents_back(count.max(), now);
            return Ok((changes, json!({"back": back})));
        }
        Request::AgentsGone(count) => {
            return Ok((vec![], json!({"gone": cluster.agents_gone(count.max())})));
        }
        Request::FrameworksBack(_)
        | Request::FrameworkDisconnected(_)
        | Request::Teardown(_)
        | Request::NewFramework(_) => return change_framework(simulation, request, now),
        request => return change_agent(simulation, request, now),
    };
    let (mut started, mut ended) = (vec![], vec![]);
    for change in &changes {
        match change {
            Change::Started(task) => started.push(task.id.as_str()),
            Change::Updated(task) => ended.push(task.id.as_str()),
            _ => {}
        }
    }
    let answer = json!({"started": started, "ended": ended});
    Ok((changes, answer))
}

/// One agent comes, goes or changes; the answer names it and the tasks that were reported.
fn change_agent(
    simulation: &mut Simulation,
    request: Request,
    now: f64,
) -> Result<(Vec<Change>, Value), String> {
    let cluster = &mut simulation.cluster;
    let (index, changes) = match request {
        Request::NewAgent(True) => {
            let index = cluster.new_agent(now);
            (index, vec![Change::AgentAdded(index)])
        }
        Request::AgentBack(index) => (index, cluster.agent_back(index, now)?),
        Request::AgentUnreachable(index) => (index, cluster.agent_unreachable(index, now)?),
        Request::AgentMarkedGone(index) => (index, cluster.agent_marked_gone(index, now)?),
        Request::AgentLeaves(index) => (index, cluster.agent_leaves(index, now)?),
        Request::AgentDisconnected(index) => {
            cluster.agent_stands(index, Standing::Disconnected)?;
            (index, vec![])
        }
        Request::AgentDeactivated(index) => {
            cluster.agent_stands(index, Standing::Deactivated)?;
            (index, vec![])
        }
        Request::AgentAddress(AgentAddress { agent, address }) => {
            cluster.agent_address(agent, address, now)?;
            (agent, vec![])
        }
        _ => unreachable!("the others are answered before"),
    };
    let id = cluster.agents[index].id.clone();
    let answer = json!({"index": index, "agent": *id, "tasks": ids(&changes)});
    Ok((changes, answer))
}

/// Frameworks come, go or change; the answer names them and the tasks that were reported.
fn change_framework(
    simulation: &mut Simulation,
    request: Request,
    now: f64,
) -> Result<(Vec<Change>, Value), String> {
    let cluster = &mut simulation.cluster;
    let (index, changes) = match request {
        Request::FrameworksBack(names) => {
            let indexes = match names {
                Names::Some(names) => names
                    .iter()
                    .map(|name| cluster.framework(name))
                    .collect::<Result<Vec<_>, _>>()?,
                Names::All(True) => (0..cluster.frameworks.len()).collect(),
            };
            let changes: Vec<_> =
                indexes.into_iter().flat_map(|index| cluster.framework_back(index, now)).collect();
            let back = changes.iter().filter_map(|change| match change {
                Change::FrameworkUpdated(index) => Some(&cluster.frameworks[*index].name),
                _ => None,
            });
            let back = json!({"back": back.collect::<Vec<_>>()});
            return Ok((changes, back));
        }
        Request::FrameworkDisconnected(name) => (cluster.framework_disconnected(&name)?, vec![]),
        Request::Teardown(name) => (cluster.framework(&name)?, cluster.tear_down(&name, now)?),
        Request::NewFramework(NewFramework { name, kind }) => {
            let index = cluster.new_framework(&name, kind, now)?;
            (index, vec![Change::FrameworkAdded(index, Presence::Connected)])
        }
        _ => unreachable!("the others are answered before"),
    };
    let id = cluster.frameworks[index].id.clone();
    let answer = json!({"framework": *id, "tasks": ids(&changes)});
    Ok((changes, answer))
}

fn ids(changes: &[Change]) -> Vec<&str> {
    let id = |change| match change {
        &Change::Updated(ref task) | &Change::Reported(ref task) => Some(task.id.as_str()),
        _ => None,
    };
    changes.iter().filter_map(id).collect()
}

/// Enters the stage.  Who is elected by that was elected just now, as is who was elected before and
/// knows nothing any more.
fn enter(simulation: &mut Simulation, target: Target, is_new_process: bool, now: f64) -> Value {
    let (stage, name) = match target {
        Target::Down => (Stage::Down, "down"),
        Target::Recovering => (Stage::Recovering, "recovering"),
        Target::Recovered => (Stage::Leading, "recovered"),
        Target::Running => (Stage::Leading, "running"),
        Target::NoLeader => (Stage::NoLeader, "no-leader"),
    };
    let loses_all = matches!((&simulation.stage, target), (Stage::Leading, Target::Recovered));
    if is_new_process {
        simulation.identity.renew(now);
    }
    if stage.is_elected() && (loses_all || !simulation.stage.is_elected()) {
        simulation.identity.elected_time = now;
    }
    if matches!(target, Target::Recovered) {
        simulation.cluster.fail_over();
    }
    simulation.enter(stage);
    json!({"stage": name})
}
