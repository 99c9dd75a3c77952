//! One instance of an app, and what each of the two schemas says about it.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::app::{App, Kind};
use crate::random::Random;
use crate::resources::{Resources, allocated};

/// How a task ended, or what the master says of it without a word from its agent.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    Finished,
    Killed,
    FrameworkRemoved,
    /// The agent took leave.
    AgentLeft,
    /// An operator marked the agent gone.
    AgentGone,
    /// The task may still run.
    AgentUnreachable,
}

impl End {
    fn state(self, kind: Kind) -> &'static str {
        let is_partition_aware = kind == Kind::Marathon;
        match self {
            End::Finished => "TASK_FINISHED",
            End::Killed | End::FrameworkRemoved => "TASK_KILLED",
            End::AgentGone if is_partition_aware => "TASK_GONE_BY_OPERATOR",
            End::AgentUnreachable if is_partition_aware => "TASK_UNREACHABLE",
            End::AgentLeft | End::AgentGone | End::AgentUnreachable => "TASK_LOST",
        }
    }

    /// Why the master made the status, if it did.
    fn reason(self) -> Option<&'static str> {
        match self {
            End::Finished | End::Killed => None,
            End::FrameworkRemoved => Some("REASON_FRAMEWORK_REMOVED"),
            End::AgentLeft | End::AgentUnreachable => Some("REASON_AGENT_REMOVED"),
            End::AgentGone => Some("REASON_AGENT_REMOVED_BY_OPERATOR"),
        }
    }
}

/// A task never changes: one that ended or is otherwise is another value.  So its texts are made once.
pub(crate) struct Task {
    /// Counts the tasks of the cluster.
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) app: Arc<App>,
    /// The framework's index among the cluster's frameworks.
    pub(crate) framework: usize,
    pub(crate) framework_id: Arc<str>,
    pub(crate) place: Place,
    health: Option<Health>,
    /// What the identifiers of its container and updates come from.
    seed: u64,
    started: f64,
    end: Option<(End, f64)>,
    texts: [OnceLock<Box<str>>; 4],
}

/// What is written of a task.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// The task as /state has it.
    State,
    /// The task as the operator API has it.
    V1,
    /// Its executor as /state has it, if it has one of its own.
    StateExecutor,
    V1Executor,
}

/// Where a task runs and what it got there.
#[derive(Clone)]
pub(crate) struct Place {
    /// The agent's index among the cluster's agents.
    pub(crate) agent: usize,
    pub(crate) agent_id: Arc<str>,
    pub(crate) hostname: Arc<str>,
    /// The agent's own, or one of its own.
    pub(crate) address: Ipv4Addr,
    /// Ports of the agent.
    pub(crate) ports: Vec<u16>,
}

/// What the last health check said.
#[derive(Clone, Copy)]
struct Health {
    is_healthy: bool,
    at: f64,
    /// How many said otherwise before.
    flips: u64,
}

struct Status {
    state: &'static str,
    timestamp: f64,
    healthy: Option<bool>,
    uuid: String,
    end: Option<End>,
}

impl Task {
    /// A task of no framework yet.
    pub(crate) fn launch(app: Arc<App>, place: Place, random: &mut Random, started: f64) -> Task {
        let id = app.task_id(random);
        let is_healthy = !(app.can_fail() && random.below(20) == 0);
        Task {
            number: 0,
            id,
            framework: 0,
            framework_id: "".into(),
            place,
            health: app.is_checked().then_some(Health { is_healthy, at: started, flips: 0 }),
            seed: random.next(),
            app,
            started,
            end: None,
            texts: Default::default(),
        }
    }

    fn with(&self, change: impl FnOnce(&mut Task)) -> Arc<Task> {
        let mut task = Task {
            number: self.number,
            id: self.id.clone(),
            app: self.app.clone(),
            framework: self.framework,
            framework_id: self.framework_id.clone(),
            place: self.place.clone(),
            health: self.health,
            seed: self.seed,
            started: self.started,
            end: self.end,
            texts: Default::default(),
        };
        change(&mut task);
        Arc::new(task)
    }

    pub(crate) fn ended(&self, end: End, at: f64) -> Arc<Task> {
        self.with(|task| task.end = Some((end, at)))
    }

    pub(crate) fn checked(&self, is_healthy: bool, at: f64) -> Arc<Task> {
        let flips = self.health.map_or(0, |last| last.flips + 1);
        self.with(|task| task.health = Some(Health { is_healthy, at, flips }))
    }

    pub(crate) fn at_address(&self, address: Ipv4Addr) -> Arc<Task> {
        self.with(|task| task.place.address = address)
    }

    pub(crate) fn healthy(&self) -> Option<bool> {
        self.health.map(|last| last.is_healthy)
    }

    pub(crate) fn text(&self, part: Part) -> &str {
        self.texts[part as usize].get_or_init(|| {
            let value = match part {
                Part::State => self.in_state(),
                Part::V1 => self.in_v1(),
                Part::StateExecutor => self.executor_in_state(),
                Part::V1Executor => self.executor_in_v1(),
            };
            value.to_string().into()
        })
    }

    /// Whether its executor is not the one Mesos brings for commands.
    pub(crate) fn has_executor(&self) -> bool {
        self.app.kind == Kind::Aurora
    }

    fn executor_id(&self) -> Option<String> {
        self.has_executor().then(|| format!("thermos-{}", self.id))
    }

    fn executor_in_state(&self) -> Value {
        json!({"executor_id": self.executor_id(), "name": "thermos",
            "framework_id": *self.framework_id,
            "command": {"shell": true, "value": "./thermos_executor", "argv": [], "uris": []},
            "resources": {"disk": 0.0, "mem": 16.0, "gpus": 0.0, "cpus": 0.01}, "role": "*",
            "type": "CUSTOM", "slave_id": *self.place.agent_id})
    }

    fn executor_in_v1(&self) -> Value {
        let resources = Resources { cpus: 0.01, mem: 16.0, ..Resources::default() };
        json!({"agent_id": {"value": *self.place.agent_id}, "executor_info": {"type": "CUSTOM",
            "executor_id": {"value": self.executor_id()},
            "framework_id": {"value": *self.framework_id},
            "command": {"shell": true, "value": "./thermos_executor"},
            "resources": allocated(resources.listed()), "name": "thermos", "source": "thermos"}})
    }

    pub(crate) fn state(&self) -> &'static str {
        self.end.map_or("TASK_RUNNING", |(end, _)| end.state(self.app.kind))
    }

    /// The `nth` status of a task is the same wherever it is told.
    fn status(&self, nth: u64, state: &'static str, timestamp: f64) -> Status {
        let uuid = Random::new(self.seed.wrapping_add(nth)).uuid_base64();
        Status { state, timestamp, healthy: None, uuid, end: None }
    }

    fn starting(&self) -> Status {
        self.status(0, "TASK_STARTING", self.started - 0.25)
    }

    fn running(&self) -> Status {
        self.status(1, "TASK_RUNNING", self.started)
    }

    /// A health check's takes the place of the last status.
    fn checked_status(&self) -> Option<Status> {
        let Health { is_healthy, at, flips } = self.health?;
        let status = self.status(3 + flips, "TASK_RUNNING", at);
        Some(Status { healthy: Some(is_healthy), ..status })
    }

    fn statuses(&self) -> Vec<Status> {
        let last = self.checked_status().unwrap_or_else(|| self.running());
        let mut statuses = vec![self.starting(), last];
        if let Some((end, at)) = self.end {
            statuses.push(Status { end: Some(end), ..self.status(2, self.state(), at) });
        }
        statuses
    }

    fn container_status(&self) -> Value {
        let mut network =
            json!({"ip_addresses": [{"protocol": "IPv4", "ip_address": self.place.address}]});
        if let Some(name) = self.app.network_name() {
            network["name"] = name.into();
        }
        let container_id = Random::new(!self.seed).uuid();
        json!({"container_id": {"value": container_id}, "network_infos": [network]})
    }

    /// What both schemas say alike.
    fn common(&self) -> Value {
        let mut task = json!({"name": self.app.name});
        let parts = [
            ("discovery", self.app.discovery(&self.place.ports)),
            ("container", self.app.container(&self.place.ports)),
            ("health_check", self.app.health_check()),
        ];
        for (key, part) in parts {
            if let Some(part) = part {
                task[key] = part;
            }
        }
        task
    }

    fn in_state(&self) -> Value {
        let statuses = self.statuses().into_iter().map(|status| {
            let mut json = json!({"state": status.state, "timestamp": status.timestamp});
            if !status.is_by_master() {
                json["container_status"] = self.container_status();
            }
            if let Some(healthy) = status.healthy {
                json["healthy"] = healthy.into();
            }
            json
        });
        let mut task = self.common();
        task["id"] = self.id.as_str().into();
        task["state"] = self.state().into();
        task["framework_id"] = self.framework_id.as_ref().into();
        task["executor_id"] = self.executor_id().unwrap_or_default().into();
        task["slave_id"] = self.place.agent_id.as_ref().into();
        task["role"] = "*".into();
        task["resources"] = Resources::of([self]).summed();
        task["statuses"] = statuses.collect();
        let labels = self.app.labels();
        if !labels.is_empty() {
            task["labels"] = labels.into();
        }
        task
    }

    fn in_v1(&self) -> Value {
        let statuses = self.statuses();
        let mut task = self.staged_in_v1();
        task["state"] = self.state().into();
        // The last the agent sent.
        if let Some(last) = statuses.iter().rfind(|status| !status.is_by_master()) {
            task["status_update_state"] = last.state.into();
            task["status_update_uuid"] = last.uuid.as_str().into();
        }
        task["statuses"] = statuses.iter().map(|status| self.status_in_v1(status)).collect();
        task
    }

    /// The task as the operator API has it before its first status.
    pub(crate) fn staged_in_v1(&self) -> Value {
        let mut task = self.common();
        task["state"] = "TASK_STAGING".into();
        task["task_id"] = json!({"value": self.id});
        task["framework_id"] = json!({"value": *self.framework_id});
        if let Some(executor_id) = self.executor_id() {
            task["executor_id"] = json!({"value": executor_id});
        }
        task["agent_id"] = json!({"value": *self.place.agent_id});
        task["resources"] = allocated(Resources::of([self]).listed()).into();
        let labels = self.app.labels();
        if !labels.is_empty() {
            task["labels"] = json!({"labels": labels});
        }
        task
    }

    /// The statuses of a launch, one after another.
    pub(crate) fn launch_in_v1(&self) -> Vec<Value> {
        let statuses = [Some(self.starting()), Some(self.running()), self.checked_status()];
        statuses.iter().flatten().map(|status| self.status_in_v1(status)).collect()
    }

    pub(crate) fn last_status_in_v1(&self) -> Option<Value> {
        self.statuses().last().map(|status| self.status_in_v1(status))
    }

    fn status_in_v1(&self, status: &Status) -> Value {
        let mut json = json!({"task_id": {"value": self.id}, "state": status.state,
            "agent_id": {"value": *self.place.agent_id}, "timestamp": status.timestamp});
        match status.end.and_then(|end| Some((end, end.reason()?))) {
            Some((end, reason)) => {
                json["source"] = "SOURCE_MASTER".into();
                json["reason"] = reason.into();
                if end == End::AgentUnreachable {
                    let nanoseconds = (status.timestamp * 1e9) as u64;
                    json["unreachable_time"] = json!({"nanoseconds": nanoseconds});
                }
            }
            None => {
                let executor_id = self.executor_id().unwrap_or_else(|| self.id.clone());
                let mut container_status = self.container_status();
                container_status["executor_pid"] = (2000 + self.seed % 60_000).into();
                json["source"] = "SOURCE_EXECUTOR".into();
                json["executor_id"] = json!({"value": executor_id});
                json["uuid"] = status.uuid.as_str().into();
                json["container_status"] = container_status;
            }
        }
        if let Some(healthy) = status.healthy {
            json["healthy"] = healthy.into();
            json["reason"] = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED".into();
        }
        if let Some(end) = status.end {
            json["message"] = self.message(end).into();
        }
        json
    }

    fn message(&self, end: End) -> String {
        match end {
            End::Finished => "Command exited with status 0".to_owned(),
            End::Killed => "Command terminated with signal Terminated".to_owned(),
            End::FrameworkRemoved => format!("Framework {} removed", self.framework_id),
            End::AgentLeft => {
                format!("Agent {} removed: the agent unregistered", self.place.hostname)
            }
            End::AgentGone => "Agent has been marked gone".to_owned(),
            End::AgentUnreachable => "health check timed out".to_owned(),
        }
    }
}

impl Status {
    fn is_by_master(&self) -> bool {
        self.end.is_some_and(|end| end.reason().is_some())
    }
}
