//! The answer of /state-summary: agents and frameworks with how many tasks are in which state.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::resources::Resources;
use crate::state::{Identity, agent, framework};
use crate::task::Task;

/// The states that are counted; there are others.
const STATES: [&str; 10] = [
    "TASK_STAGING",
    "TASK_STARTING",
    "TASK_RUNNING",
    "TASK_KILLING",
    "TASK_FINISHED",
    "TASK_KILLED",
    "TASK_FAILED",
    "TASK_LOST",
    "TASK_ERROR",
    "TASK_UNREACHABLE",
];

/// The tasks of one agent or framework: how many of each state, and on which agents or of which
/// frameworks.
#[derive(Clone, Default)]
struct Count {
    states: [usize; STATES.len()],
    others: BTreeSet<usize>,
}

impl Count {
    fn add(&mut self, task: &Task, other: usize) {
        if let Some(state) = STATES.iter().position(|state| *state == task.state()) {
            self.states[state] += 1;
        }
        self.others.insert(other);
    }

    fn write<'a>(&self, json: &mut Value, key: &str, id: impl Fn(usize) -> &'a str) {
        for (state, count) in STATES.iter().zip(self.states) {
            json[state] = count.into();
        }
        json[key] = self.others.iter().map(|&other| id(other)).collect();
    }
}

/// No cluster is one whose registry has not been read yet.
pub(crate) fn summary(master: &Identity, cluster: Option<&Cluster>) -> Value {
    let mut json = json!({"hostname": master.address.ip(), "cluster": "simulated",
        "slaves": [], "frameworks": []});
    if let Some(cluster) = cluster {
        (json["slaves"], json["frameworks"]) = lists(cluster);
    }
    json
}

fn lists(cluster: &Cluster) -> (Value, Value) {
    let mut agents = vec![Count::default(); cluster.agents.len()];
    let mut frameworks = vec![Count::default(); cluster.frameworks.len()];
    let unreachable = cluster.unreachable_tasks();
    let listed = cluster.frameworks.iter().filter(|framework| framework.is_listed());
    let completed = listed.flat_map(|framework| &framework.completed);
    for task in cluster.shown().chain(&unreachable).chain(completed) {
        agents[task.place.agent].add(task, task.framework);
        frameworks[task.framework].add(task, task.place.agent);
    }
    let total = cluster.agent_resources();
    let known = cluster.agents.iter().zip(agents).enumerate();
    let slaves =
        known.filter(|(_, (known, _))| known.is_registered()).map(|(index, (known, count))| {
            let mut json = agent(known, &total, &cluster.used_on(index));
            count.write(&mut json, "framework_ids", |other| &cluster.frameworks[other].id);
            json
        });
    let shown = cluster.shown_by_framework();
    let known = cluster.frameworks.iter().zip(frameworks).zip(&shown);
    let listed =
        known.filter(|((known, _), _)| known.is_listed()).map(|((known, count), tasks)| {
            let used = Resources::of(tasks.iter().map(|task| task.as_ref())).summed();
            let mut json = framework(known, &used);
            count.write(&mut json, "slave_ids", |other| &cluster.agents[other].id);
            json
        });
    (slaves.collect(), listed.collect())
}
