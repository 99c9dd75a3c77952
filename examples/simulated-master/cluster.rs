//! The cluster: agents, frameworks and their tasks, and how they change.  Pure: the same shape and
//! the same calls make the same cluster, times aside.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::app::{App, Kind, Network};
use crate::random::Random;
use crate::resources::{Ports, Resources};
use crate::task::{End, Place, Task};

const FIRST_PORT: u16 = 31_000;
/// What a real master keeps by default (`--max_completed_tasks_per_framework`).
const COMPLETED_MAX: usize = 1000;

pub(crate) struct Shape {
    pub(crate) tasks: usize,
    pub(crate) agents: usize,
    pub(crate) frameworks: usize,
    pub(crate) seed: u64,
}

pub(crate) struct Agent {
    pub(crate) id: Arc<str>,
    pub(crate) hostname: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) zone: &'static str,
    pub(crate) rack: String,
    /// Known from the registry only: the agent has not come back since the last failover.
    pub(crate) is_lost: bool,
    pub(crate) registered: f64,
    pub(crate) reregistered: Option<f64>,
    ports_taken: BTreeSet<u16>,
    next_port: u16,
}

pub(crate) struct Framework {
    pub(crate) id: Arc<str>,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) registered: f64,
    pub(crate) tasks: Vec<Arc<Task>>,
    pub(crate) completed: VecDeque<Arc<Task>>,
}

pub(crate) struct Cluster {
    pub(crate) agents: Vec<Agent>,
    pub(crate) frameworks: Vec<Framework>,
    last_port: u16,
    addresses_given: usize,
    random: Random,
}

/// One task that began or ended.
pub(crate) enum Change {
    Started(Arc<Task>),
    Ended(Arc<Task>),
}

impl Cluster {
    /// A cluster that has been running for a while at `now`.
    pub(crate) fn new(shape: &Shape, now: f64) -> Cluster {
        let mut random = Random::new(shape.seed);
        let id = random.uuid();
        let share = shape.tasks / shape.agents + 1;
        let mut cluster = Cluster {
            agents: (0..shape.agents).map(|number| Agent::numbered(&id, number, now)).collect(),
            frameworks: (0..shape.frameworks)
                .map(|number| Framework::numbered(&id, number, now))
                .collect(),
            // 31000-32000 is what an agent offers by default; a crowded one needs more.
            last_port: FIRST_PORT + (4 * share).clamp(1000, 30_000) as u16,
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
        let tasks: usize = self.frameworks.iter().map(|framework| framework.tasks.len()).sum();
        let share = tasks / self.agents.len() + 1;
        Resources {
            cpus: share.max(8) as f64,
            mem: (512 * share.max(16)) as f64,
            disk: 10_240.0,
            ports: Ports::range(FIRST_PORT, self.last_port),
        }
    }

    /// What the running tasks of each agent use, in the order of the agents.
    pub(crate) fn used_by_agent(&self) -> Vec<Resources> {
        let mut tasks: Vec<Vec<&Task>> = vec![vec![]; self.agents.len()];
        for task in self.frameworks.iter().flat_map(|framework| &framework.tasks) {
            tasks[task.place.agent].push(task);
        }
        tasks.into_iter().map(Resources::of).collect()
    }

    /// Whether the master shows the task: the agent it runs on has come back.
    pub(crate) fn shows(&self, task: &Task) -> bool {
        !self.agents[task.place.agent].is_lost
    }

    /// One task ends, another of the same app starts on some agent.
    pub(crate) fn churn(&mut self, now: f64) -> Vec<Change> {
        let total: usize = self.frameworks.iter().map(|framework| framework.tasks.len()).sum();
        if total == 0 {
            return vec![];
        }
        let mut index = self.random.below(total);
        for framework in 0..self.frameworks.len() {
            let tasks = self.frameworks[framework].tasks.len();
            if index < tasks {
                let agent = self.some_agent();
                return self.replace(framework, index, agent, now);
            }
            index -= tasks;
        }
        vec![]
    }

    /// Starts tasks of this name, with the features of the first app of the framework; an empty
    /// answer if there is no such framework.
    pub(crate) fn start(
        &mut self,
        framework: &str,
        name: &str,
        count: usize,
        now: f64,
    ) -> Vec<Change> {
        let Some(framework) = self.frameworks.iter().position(|known| known.name == framework)
        else {
            return vec![];
        };
        let app = Arc::new(App::named(self.frameworks[framework].kind, name));
        let started = (0..count).map(|_| {
            let agent = self.some_agent();
            Change::Started(self.launch(framework, &app, agent, now))
        });
        started.collect()
    }

    pub(crate) fn kill(&mut self, name: &str, count: usize, now: f64) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < count
            && let Some((framework, task)) = self.find(name)
        {
            changes.push(self.end(framework, task, End::Killed, now));
        }
        changes
    }

    /// One task of the name ends and starts again on the next agent.
    pub(crate) fn move_one(&mut self, name: &str, now: f64) -> Vec<Change> {
        let Some((framework, task)) = self.find(name) else { return vec![] };
        let from = self.frameworks[framework].tasks[task].place.agent;
        let next = (1..=self.agents.len()).map(|step| (from + step) % self.agents.len());
        let to = next.into_iter().find(|&agent| !self.agents[agent].is_lost).unwrap_or(from);
        self.replace(framework, task, to, now)
    }

    /// What a failover looks like: the last `count` agents are not back yet, the others are.
    pub(crate) fn lose_agents(&mut self, count: usize, now: f64) {
        let kept = self.agents.len().saturating_sub(count);
        for (index, agent) in self.agents.iter_mut().enumerate() {
            agent.is_lost = index >= kept;
            agent.reregistered = (index < kept).then_some(now);
        }
    }

    /// The lost agents come back; answers which they are.
    pub(crate) fn agents_back(&mut self, now: f64) -> Vec<usize> {
        let mut came_back = Vec::new();
        for (index, agent) in self.agents.iter_mut().enumerate().filter(|(_, a)| a.is_lost) {
            agent.is_lost = false;
            agent.reregistered = Some(now);
            came_back.push(index);
        }
        came_back
    }

    fn find(&self, name: &str) -> Option<(usize, usize)> {
        self.frameworks.iter().enumerate().find_map(|(index, framework)| {
            let task = framework.tasks.iter().position(|task| task.app.name == name)?;
            Some((index, task))
        })
    }

    /// An agent that is not lost, or any if all are.
    fn some_agent(&mut self) -> usize {
        let first = self.random.below(self.agents.len());
        let from_first = (0..self.agents.len()).map(|step| (first + step) % self.agents.len());
        from_first.into_iter().find(|&agent| !self.agents[agent].is_lost).unwrap_or(first)
    }

    fn replace(&mut self, framework: usize, task: usize, agent: usize, now: f64) -> Vec<Change> {
        let app = self.frameworks[framework].tasks[task].app.clone();
        let ended = self.end(framework, task, End::Finished, now);
        vec![ended, Change::Started(self.launch(framework, &app, agent, now))]
    }

    fn end(&mut self, framework: usize, task: usize, end: End, now: f64) -> Change {
        let framework = &mut self.frameworks[framework];
        let task = framework.tasks.swap_remove(task);
        for port in &task.place.ports {
            self.agents[task.place.agent].ports_taken.remove(port);
        }
        let ended = Arc::new(task.end(end, now));
        framework.completed.push_back(ended.clone());
        if framework.completed.len() > COMPLETED_MAX {
            framework.completed.pop_front();
        }
        Change::Ended(ended)
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
        let place = Place { agent, agent_id: host.id.clone(), address, ports };
        let framework = &mut self.frameworks[framework];
        let id = framework.id.clone();
        let task = Arc::new(Task::launch(app.clone(), id, place, &mut self.random, at));
        framework.tasks.push(task.clone());
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

impl Agent {
    fn numbered(cluster: &str, number: usize, now: f64) -> Agent {
        Agent {
            id: format!("{cluster}-S{number}").into(),
            hostname: format!("agent{number}.sim.example"),
            address: Ipv4Addr::new(10, 0, (number / 250) as u8, (number % 250 + 1) as u8),
            zone: ["a", "b", "c"][number % 3],
            rack: format!("r{}", number % 20),
            is_lost: false,
            registered: now - 3500.0,
            reregistered: None,
            ports_taken: BTreeSet::new(),
            next_port: FIRST_PORT,
        }
    }

    pub(crate) fn pid(&self) -> String {
        format!("slave(1)@{}:5051", self.address)
    }

    /// Free ports in turn, so that one is not given again at once; none when too few are free.
    fn take_ports(&mut self, count: usize, last: u16) -> Vec<u16> {
        let mut ports = Vec::new();
        if self.ports_taken.len() + count > usize::from(last - FIRST_PORT) {
            return ports;
        }
        while ports.len() < count {
            let port = self.next_port;
            self.next_port = if port >= last { FIRST_PORT } else { port + 1 };
            if self.ports_taken.insert(port) {
                ports.push(port);
            }
        }
        ports
    }
}

impl Framework {
    fn numbered(cluster: &str, number: usize, now: f64) -> Framework {
        let kind = Kind::ALL[number % 3];
        let name = match number / 3 {
            0 => kind.name().to_owned(),
            more => format!("{}-{}", kind.name(), more + 1),
        };
        Framework {
            id: format!("{cluster}-{number:04}").into(),
            name,
            kind,
            registered: now - 3400.0,
            tasks: vec![],
            completed: VecDeque::new(),
        }
    }
}

/// The addresses from 10.64.0.1 on, which no two of twelve million tasks share.
fn container_address(number: usize) -> Ipv4Addr {
    let (high, low) = (number / 250, number % 250 + 1);
    Ipv4Addr::new(10, (64 + high / 250 % 192) as u8, (high % 250) as u8, low as u8)
}
