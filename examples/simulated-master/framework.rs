//! Frameworks, and how the master comes to know and to lose them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::app::Kind;
use crate::cluster::{Change, Cluster};
use crate::random::Random;
use crate::task::{End, Task};

/// What a real master keeps by default (`--max_completed_tasks_per_framework`).
const COMPLETED_MAX: usize = 1000;

/// What the master holds of a framework.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Presence {
    Connected,
    /// Its tasks still run.
    Disconnected,
    /// Known through the tasks of agents that came back after a failover.
    Recovered,
    /// Not heard of since the last failover.
    Unknown,
    /// Torn down at that time.
    TornDown(f64),
    /// Torn down before the last failover.
    Forgotten,
}

pub(crate) struct Framework {
    pub(crate) id: Arc<str>,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The address of its scheduler, if that uses the old driver.
    pub(crate) pid: Option<String>,
    pub(crate) presence: Presence,
    pub(crate) registered: f64,
    pub(crate) reregistered: Option<f64>,
    pub(crate) completed: VecDeque<Arc<Task>>,
}

impl Framework {
    pub(crate) fn new(
        cluster: &str,
        number: usize,
        name: String,
        kind: Kind,
        at: f64,
    ) -> Framework {
        Framework {
            id: format!("{cluster}-{number:04}").into(),
            name,
            kind,
            pid: None,
            presence: Presence::Connected,
            registered: at,
            reregistered: None,
            completed: VecDeque::new(),
        }
    }

    pub(crate) fn numbered(cluster: &str, number: usize, registered: f64) -> Framework {
        let kind = Kind::ALL[number % 3];
        let name = match number / 3 {
            0 => kind.name().to_owned(),
            more => format!("{}-{}", kind.name(), more + 1),
        };
        Framework::new(cluster, number, name, kind, registered)
    }

    /// Whether the master lists it among those it has.
    pub(crate) fn is_listed(&self) -> bool {
        matches!(self.presence, Presence::Connected | Presence::Disconnected | Presence::Recovered)
    }

    pub(crate) fn is_torn_down(&self) -> bool {
        matches!(self.presence, Presence::TornDown(_))
    }

    pub(crate) fn complete(&mut self, task: Arc<Task>) {
        self.completed.push_back(task);
        if self.completed.len() > COMPLETED_MAX {
            self.completed.pop_front();
        }
    }
}

impl Cluster {
    /// The framework of that name that was not torn down.
    pub(crate) fn framework(&self, name: &str) -> Result<usize, String> {
        let lives = |framework: &Framework| {
            framework.name == name
                && !matches!(framework.presence, Presence::TornDown(_) | Presence::Forgotten)
        };
        self.frameworks.iter().position(lives).ok_or_else(|| format!("there is no {name}"))
    }

    /// Every framework so far uses the old driver.
    pub(crate) fn give_scheduler_pids(&mut self, seed: u64) {
        let mut random = Random::new(!seed);
        for (index, framework) in self.frameworks.iter_mut().enumerate() {
            let (last, port) = (index % 254 + 1, 36_000 + index);
            framework.pid = Some(format!("scheduler-{}@10.0.255.{last}:{port}", random.uuid()));
        }
    }

    /// What a failover leaves of frameworks.
    pub(crate) fn forget_frameworks(&mut self) {
        for framework in &mut self.frameworks {
            framework.completed.clear();
            framework.presence = match framework.presence {
                Presence::TornDown(_) | Presence::Forgotten => Presence::Forgotten,
                _ => Presence::Unknown,
            };
        }
    }

    /// The framework subscribes again.  One that the master has not heard of since a failover is
    /// added as recovered first.
    pub(crate) fn framework_back(&mut self, index: usize, now: f64) -> Vec<Change> {
        let framework = &mut self.frameworks[index];
        let mut changes = Vec::new();
        match framework.presence {
            Presence::Connected | Presence::TornDown(_) | Presence::Forgotten => return changes,
            Presence::Disconnected => framework.reregistered = Some(now),
            Presence::Recovered | Presence::Unknown => {
                (framework.registered, framework.reregistered) = (now, None);
            }
        }
        if framework.presence == Presence::Unknown {
            changes.push(Change::FrameworkAdded(index, Presence::Recovered));
        }
        framework.presence = Presence::Connected;
        changes.push(Change::FrameworkUpdated(index));
        changes
    }

    /// The framework's connection is lost: no event tells.
    pub(crate) fn framework_disconnected(&mut self, name: &str) -> Result<usize, String> {
        let index = self.framework(name)?;
        let framework = &mut self.frameworks[index];
        if framework.presence != Presence::Connected {
            return Err(format!("{name} is not connected"));
        }
        framework.presence = Presence::Disconnected;
        Ok(index)
    }

    /// The framework ends, and its tasks with it: reported if the master had them.
    pub(crate) fn tear_down(&mut self, name: &str, now: f64) -> Result<Vec<Change>, String> {
        let index = self.framework(name)?;
        if !self.frameworks[index].is_listed() {
            return Err(format!("{name} is not known since the failover"));
        }
        let all = self.tasks.iter().filter(|task| task.framework == index);
        let tasks: Vec<_> = all.cloned().collect();
        let mut changes = Vec::new();
        for task in tasks {
            let shown = self.shows(&task);
            let ended = self.end(&task, End::FrameworkRemoved, now);
            if shown {
                changes.push(ended);
            }
        }
        self.frameworks[index].presence = Presence::TornDown(now);
        changes.push(Change::FrameworkRemoved(index));
        Ok(changes)
    }

    /// A framework that was never seen before; answers its index.
    pub(crate) fn new_framework(
        &mut self,
        name: &str,
        kind: Kind,
        now: f64,
    ) -> Result<usize, String> {
        if self.framework(name).is_ok() {
            return Err(format!("there is a {name} already"));
        }
        let index = self.frameworks.len();
        self.frameworks.push(Framework::new(&self.id, index, name.to_owned(), kind, now));
        Ok(index)
    }
}
