//! The cluster: agents, frameworks and their tasks, and how the tasks change.  Pure: the same shape
//! and the same calls make the same cluster, times aside.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::agent::{Agent, Standing};
use crate::app::{App, Network};
use crate::framework::{Framework, Presence};
use crate::random::Random;
use crate::resources::{Ports, Resources};
use crate::roster::Roster;
use crate::task::{End, Place, Task};

pub(crate) const FIRST_PORT: u16 = 31_000;
/// How often a task is drawn for replacement before none counts as replaceable.
const DRAWS: usize = 16;

pub(crate) struct Shape {
    pub(crate) tasks: usize,
    pub(crate) agents: usize,
    pub(crate) frameworks: usize,
    pub(crate) seed: u64,
}

pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) agents: Vec<Agent>,
    pub(crate) frameworks: Vec<Framework>,
    pub(crate) tasks: Roster,
    last_port: u16,
    launched: u64,
    addresses_given: usize,
    random: Random,
}

/// What a stream is told, of tasks as they are then.
pub(crate) enum Change {
    Started(Arc<Task>),
    /// The last status of the task is new.
    Updated(Arc<Task>),
    /// The task of an agent that came back.
    Reported(Arc<Task>),
    AgentAdded(usize),
    AgentRemoved(usize),
    /// With the presence it was added with.
    FrameworkAdded(usize, Presence),
    FrameworkUpdated(usize),
    FrameworkRemoved(usize),
}

impl Cluster {
    /// A cluster that has been running for a while at `now`.
    pub(crate) fn new(shape: &Shape, now: f64) -> Cluster {
        let mut random = Random::new(shape.seed);
        let id = random.uuid();
        let share = shape.tasks / shape.agents + 1;
        let agent = |number| Agent::numbered(&id, number, now - 3500.0);
        let framework = |number| Framework::numbered(&id, number, now - 3400.0);
        let mut cluster = Cluster {
            agents: (0..shape.agents).map(agent).collect(),
            frameworks: (0..shape.frameworks).map(framework).collect(),
            tasks: Roster::default(),
            id,
            // 31000-32000 is what an agent offers by default; a crowded one needs more.
            last_port: FIRST_PORT + (4 * share).clamp(1000, 30_000) as u16,
            launched: 0,
            addresses_given: 0,
            random,
        };
        for framework in 0..shape.frameworks {
            cluster.fill(framework, shape.share_of(framework), now);
        }
        cluster
    }

    fn fill(&mut self, framework: usize, tasks: usize, now: f64) {
        let kind = self.frameworks[framework].kind;
        let mut left = tasks;
        for number in 0.. {
            if left == 0 {
                break;
            }
            let app = Arc::new(App::numbered(kind, number));
            let instances = app.instances().min(left);
            for instance in 0..instances {
                let agent = (7 * number + instance) % self.agents.len();
                let started = now - 1.0 - self.random.below(3000) as f64;
                self.launch(framework, &app, agent, started);
            }
            left -= instances;
        }
    }

    /// What an agent has to give: more than its tasks take.
    pub(crate) fn agent_resources(&self) -> Resources {
        let share = self.tasks.len() / self.agents.len() + 1;
        Resources {
            cpus: share.max(8) as f64,
            mem: (512 * share.max(16)) as f64,
            disk: 10_240.0,
            ports: Ports::range(FIRST_PORT, self.last_port),
        }
    }

    /// What the running tasks of an agent use.
    pub(crate) fn used_on(&self, agent: usize) -> Resources {
        Resources::of(self.tasks.on_agent(agent).map(AsRef::as_ref))
    }

    /// Whether the master shows the task: the agent it runs on is there.
    pub(crate) fn shows(&self, task: &Task) -> bool {
        self.agents[task.place.agent].is_registered()
    }

    pub(crate) fn shown(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().filter(|task| self.shows(task))
    }

    /// The tasks the master shows of each framework, in the order of the frameworks.
    pub(crate) fn shown_by_framework(&self) -> Vec<Vec<&Arc<Task>>> {
        let mut tasks = vec![vec![]; self.frameworks.len()];
        for task in self.shown() {
            tasks[task.framework].push(task);
        }
        tasks
    }

    /// One task ends, another of the same app starts on some agent.
    pub(crate) fn churn(&mut self, now: f64) -> Vec<Change> {
        for _ in 0..DRAWS.min(self.tasks.len()) {
            let task = self.tasks.at(self.random.below(self.tasks.len())).clone();
            let presence = self.frameworks[task.framework].presence;
            if self.shows(&task) && presence == Presence::Connected {
                let agent = self.some_agent().unwrap_or(task.place.agent);
                return self.move_to(&task, agent, now);
            }
        }
        vec![]
    }

    /// Starts tasks of this name, with the features of the first app of the framework; none if
    /// there is no such framework to start them, or no agent.
    pub(crate) fn start(
        &mut self,
        framework: &str,
        name: &str,
        count: usize,
        now: f64,
    ) -> Vec<Change> {
        let mut started = Vec::new();
        let Ok(framework) = self.framework(framework) else { return started };
        if self.frameworks[framework].presence != Presence::Connected {
            return started;
        }
        let app = Arc::new(App::named(self.frameworks[framework].kind, name));
        while started.len() < count
            && let Some(agent) = self.some_agent()
        {
            started.push(Change::Started(self.launch(framework, &app, agent, now)));
        }
        started
    }

    pub(crate) fn kill(&mut self, name: &str, count: usize, now: f64) -> Vec<Change> {
        let tasks = self.named(name, count, |_| true);
        tasks.iter().map(|task| self.end(task, End::Killed, now)).collect()
    }

    /// One task of the name ends and starts again on the next agent.
    pub(crate) fn move_one(&mut self, name: &str, now: f64) -> Vec<Change> {
        let Some(task) = self.named(name, 1, |_| true).pop() else { return vec![] };
        let from = task.place.agent;
        let next = (1..=self.agents.len()).map(|step| (from + step) % self.agents.len());
        let to = next.into_iter().find(|&agent| self.takes_tasks(agent)).unwrap_or(from);
        self.move_to(&task, to, now)
    }

    /// Health checks of the first `count` tasks of the name that were otherwise say so now.
    pub(crate) fn health(
        &mut self,
        name: &str,
        healthy: bool,
        count: usize,
        now: f64,
    ) -> Vec<Change> {
        let tasks = self.named(name, count, |task| task.healthy() != Some(healthy));
        let flip = |task: Arc<Task>| Change::Updated(self.change(task.checked(healthy, now)));
        tasks.into_iter().map(flip).collect()
    }

    /// The first task of the name reports another address in the state it is in: no event tells.
    pub(crate) fn task_address(&mut self, name: &str, address: Ipv4Addr) -> Option<Arc<Task>> {
        let task = self.named(name, 1, |_| true).pop()?;
        Some(self.change(task.at_address(address)))
    }

    fn change(&mut self, task: Arc<Task>) -> Arc<Task> {
        self.tasks.replace(task.clone());
        task
    }

    /// The first `count` tasks of the name among those the master shows.
    fn named(&self, name: &str, count: usize, wanted: impl Fn(&Task) -> bool) -> Vec<Arc<Task>> {
        let shown = self.tasks.named(name).filter(|task| self.shows(task) && wanted(task));
        shown.take(count).cloned().collect()
    }

    fn takes_tasks(&self, agent: usize) -> bool {
        self.agents[agent].standing == Standing::Active
    }

    /// An agent that takes tasks, or else one that is to come back with them.
    fn some_agent(&mut self) -> Option<usize> {
        let first = self.random.below(self.agents.len());
        let from_first = || (0..self.agents.len()).map(|step| (first + step) % self.agents.len());
        let is_recovered = |&agent: &usize| self.agents[agent].standing == Standing::Recovered;
        from_first()
            .find(|&agent| self.takes_tasks(agent))
            .or_else(|| from_first().find(is_recovered))
    }

    fn move_to(&mut self, task: &Task, agent: usize, now: f64) -> Vec<Change> {
        let ended = self.end(task, End::Finished, now);
        let started = self.launch(task.framework, &task.app, agent, now);
        vec![ended, Change::Started(started)]
    }

    pub(crate) fn end(&mut self, task: &Task, end: End, now: f64) -> Change {
        self.tasks.remove(task);
        self.agents[task.place.agent].free_ports(&task.place.ports);
        let ended = task.ended(end, now);
        self.frameworks[task.framework].complete(ended.clone());
        Change::Updated(ended)
    }

    fn launch(&mut self, framework: usize, app: &Arc<App>, agent: usize, at: f64) -> Arc<Task> {
        let host = &mut self.agents[agent];
        let ports = host.take_ports(app.agent_ports(), self.last_port);
        let address = match app.network() {
            Network::Host => host.address,
            Network::Bridge | Network::User => {
                self.addresses_given += 1;
                container_address(self.addresses_given)
            }
        };
        let (agent_id, hostname) = (host.id.clone(), host.hostname.clone());
        let place = Place { agent, agent_id, hostname, address, ports };
        self.launched += 1;
        let mut task = Task::launch(app.clone(), place, &mut self.random, at);
        task.number = self.launched;
        task.framework = framework;
        task.framework_id = self.frameworks[framework].id.clone();
        let task = Arc::new(task);
        self.tasks.insert(task.clone());
        task
    }
}

impl Shape {
    /// Marathon has seven tasks in ten, the other frameworks share the rest.
    fn share_of(&self, framework: usize) -> usize {
        let rest = if self.frameworks == 1 { 0 } else { self.tasks * 3 / 10 };
        match framework {
            0 => self.tasks - rest,
            _ => {
                let others = self.frameworks - 1;
                rest / others + usize::from(framework <= rest % others)
            }
        }
    }
}

/// The addresses from 10.64.0.1 on, which no two of twelve million tasks share.
fn container_address(number: usize) -> Ipv4Addr {
    let (high, low) = (number / 250, number % 250 + 1);
    Ipv4Addr::new(10, (64 + high / 250 % 192) as u8, (high % 250) as u8, low as u8)
}
