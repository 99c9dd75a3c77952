//! `POST /control`: changes to the running simulation.  No part of Mesos.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::Change;
use crate::master::{Simulation, Stage};
use crate::v1;

/// One request, a JSON object with one member.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Control {
    Start(Start),
    Kill(Kill),
    Move(Move),
    Stage(Target),
    LoseAgents(usize),
    AgentsBack(True),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    framework: String,
    name: String,
    #[serde(default = "one")]
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kill {
    name: String,
    #[serde(default = "one")]
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Move {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    Recovering,
    Running,
    NoLeader,
}

/// `true`, the only value `agents-back` has.
#[derive(Deserialize)]
#[serde(try_from = "bool")]
pub(crate) struct True;

impl TryFrom<bool> for True {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<True, &'static str> {
        if value { Ok(True) } else { Err("only true is understood") }
    }
}

fn one() -> usize {
    1
}

/// Does what was asked, and says what changed.
pub(crate) fn apply(simulation: &mut Simulation, control: Control, now: f64) -> Value {
    let cluster = &mut simulation.cluster;
    let changes = match control {
        Control::Start(Start { framework, name, count }) => {
            cluster.start(&framework, &name, count, now)
        }
        Control::Kill(Kill { name, count }) => cluster.kill(&name, count, now),
        Control::Move(Move { name }) => cluster.move_one(&name, now),
        Control::Stage(target) => return enter(simulation, target, now),
        Control::LoseAgents(count) => {
            cluster.lose_agents(count, now);
            simulation.break_streams();
            return json!({"lost": simulation.cluster.agents.iter().filter(|a| a.is_lost).count()});
        }
        Control::AgentsBack(True) => {
            let came_back = cluster.agents_back(now);
            simulation.send(v1::records_of_agents(&simulation.cluster, &came_back));
            simulation.version += 1;
            return json!({"back": came_back.len()});
        }
    };
    simulation.publish(&changes);
    let (mut started, mut ended) = (vec![], vec![]);
    for change in &changes {
        match change {
            Change::Started(task) => started.push(&task.id),
            Change::Ended(task) => ended.push(&task.id),
        }
    }
    json!({"started": started, "ended": ended})
}

fn enter(simulation: &mut Simulation, target: Target, now: f64) -> Value {
    let (stage, name) = match target {
        Target::Recovering => (Stage::Recovering, "recovering"),
        Target::Running => (Stage::Leading, "running"),
        Target::NoLeader => (Stage::NoLeader, "no-leader"),
    };
    simulation.enter(stage, now);
    json!({"stage": name})
}
