//! One instance of an app, and what each of the two schemas says about it.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::app::{App, Kind};
use crate::random::Random;
use crate::resources::{Resources, allocated};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    Finished,
    Killed,
}

impl End {
    fn state(self) -> &'static str {
        match self {
            End::Finished => "TASK_FINISHED",
            End::Killed => "TASK_KILLED",
        }
    }

    fn message(self) -> &'static str {
        match self {
            End::Finished => "Command exited with status 0",
            End::Killed => "Command terminated with signal Terminated",
        }
    }
}

/// A task never changes: one that ended is another value.  So its texts are made once.
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) app: Arc<App>,
    pub(crate) framework_id: Arc<str>,
    pub(crate) place: Place,
    is_healthy: bool,
    /// What the identifiers of its container and updates come from.
    seed: u64,
    started: f64,
    ended: Option<(End, f64)>,
    texts: [OnceLock<Box<str>>; 2],
}

/// Where a task runs and what it got there.
#[derive(Clone)]
pub(crate) struct Place {
    /// The agent's index among the cluster's agents.
    pub(crate) agent: usize,
    pub(crate) agent_id: Arc<str>,
    /// The agent's own, or one of its own.
    pub(crate) address: Ipv4Addr,
    /// Ports of the agent.
    pub(crate) ports: Vec<u16>,
}

struct Status {
    state: &'static str,
    timestamp: f64,
    message: Option<&'static str>,
    healthy: Option<bool>,
    uuid: String,
}

impl Task {
    pub(crate) fn launch(
        app: Arc<App>,
        framework_id: Arc<str>,
        place: Place,
        random: &mut Random,
        started: f64,
    ) -> Task {
        Task {
            id: app.task_id(random),
            is_healthy: !(app.can_fail() && random.below(20) == 0),
            seed: random.next(),
            app,
            framework_id,
            place,
            started,
            ended: None,
            texts: Default::default(),
        }
    }

    pub(crate) fn end(&self, end: End, at: f64) -> Task {
        Task {
            id: self.id.clone(),
            app: self.app.clone(),
            framework_id: self.framework_id.clone(),
            place: self.place.clone(),
            is_healthy: self.is_healthy,
            seed: self.seed,
            started: self.started,
            ended: Some((end, at)),
            texts: Default::default(),
        }
    }

    /// The task as /state has it.
    pub(crate) fn state_text(&self) -> &str {
        self.texts[0].get_or_init(|| self.in_state().to_string().into())
    }

    /// The task as the operator API has it.
    pub(crate) fn v1_text(&self) -> &str {
        self.texts[1].get_or_init(|| self.in_v1().to_string().into())
    }

    /// The executor of the task, if it is not the one Mesos brings for commands.
    pub(crate) fn executor_id(&self) -> Option<String> {
        (self.app.kind == Kind::Aurora).then(|| format!("thermos-{}", self.id))
    }

    fn state(&self) -> &'static str {
        self.ended.map_or("TASK_RUNNING", |(end, _)| end.state())
    }

    fn statuses(&self) -> Vec<Status> {
        let mut random = Random::new(self.seed);
        let mut status = |state, timestamp, message, healthy| Status {
            state,
            timestamp,
            message,
            healthy,
            uuid: random.uuid_base64(),
        };
        let healthy = self.app.is_checked().then_some(self.is_healthy);
        let mut statuses = vec![
            status("TASK_STARTING", self.started - 0.25, None, None),
            status("TASK_RUNNING", self.started, None, healthy),
        ];
        if let Some((end, at)) = self.ended {
            statuses.push(status(end.state(), at, Some(end.message()), None));
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
            let mut json = json!({"state": status.state, "timestamp": status.timestamp,
                "container_status": self.container_status()});
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

    pub(crate) fn in_v1(&self) -> Value {
        let statuses = self.statuses_in_v1();
        let mut task = self.staged_in_v1();
        task["state"] = self.state().into();
        if let Some(last) = statuses.last() {
            task["status_update_state"] = last["state"].clone();
            task["status_update_uuid"] = last["uuid"].clone();
        }
        task["statuses"] = statuses.into();
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

    pub(crate) fn statuses_in_v1(&self) -> Vec<Value> {
        self.statuses().iter().map(|status| self.status_in_v1(status)).collect()
    }

    fn status_in_v1(&self, status: &Status) -> Value {
        let mut container_status = self.container_status();
        container_status["executor_pid"] = (2000 + self.seed % 60_000).into();
        let mut json = json!({"task_id": {"value": self.id}, "state": status.state,
            "source": "SOURCE_EXECUTOR", "agent_id": {"value": *self.place.agent_id},
            "executor_id": {"value": self.executor_id().unwrap_or_else(|| self.id.clone())},
            "timestamp": status.timestamp, "uuid": status.uuid,
            "container_status": container_status});
        if let Some(healthy) = status.healthy {
            json["healthy"] = healthy.into();
            json["reason"] = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED".into();
        }
        if let Some(message) = status.message {
            json["message"] = message.into();
        }
        json
    }
}
