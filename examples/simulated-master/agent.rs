//! Agents, and how the master comes to know and to lose them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::cluster::{Change, Cluster, FIRST_PORT};
use crate::framework::Presence;
use crate::task::{End, Task};

/// What the master holds of an agent.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Standing {
    Active,
    /// Registered; its connection is down, its tasks still run.
    Disconnected,
    /// Registered; an operator wants no new task there.
    Deactivated,
    /// Known from the registry only: it has not come back since the last failover.
    Recovered,
    /// Its pings are unanswered since then; what ran there is known.
    Unreachable(f64),
    /// Unreachable, and what ran there was never told to this master.
    Forgotten,
    /// Gone for good: it left, or an operator marked it gone.
    Removed,
}

pub(crate) struct Agent {
    pub(crate) id: Arc<str>,
    pub(crate) hostname: Arc<str>,
    pub(crate) address: Ipv4Addr,
    pub(crate) zone: &'static str,
    pub(crate) rack: String,
    pub(crate) standing: Standing,
    pub(crate) registered: f64,
    pub(crate) reregistered: Option<f64>,
    ports_taken: BTreeSet<u16>,
    next_port: u16,
}

impl Agent {
    pub(crate) fn numbered(cluster: &str, number: usize, registered: f64) -> Agent {
        Agent {
            id: format!("{cluster}-S{number}").into(),
            hostname: format!("agent{number}.sim.example").into(),
            address: Ipv4Addr::new(10, 0, (number / 250) as u8, (number % 250 + 1) as u8),
            zone: ["a", "b", "c"][number % 3],
            rack: format!("r{}", number % 20),
            standing: Standing::Active,
            registered,
            reregistered: None,
            ports_taken: BTreeSet::new(),
            next_port: FIRST_PORT,
        }
    }

    pub(crate) fn pid(&self) -> String {
        format!("slave(1)@{}:5051", self.address)
    }

    pub(crate) fn is_registered(&self) -> bool {
        matches!(self.standing, Standing::Active | Standing::Disconnected | Standing::Deactivated)
    }

    fn is_unreachable(&self) -> bool {
        matches!(self.standing, Standing::Unreachable(_) | Standing::Forgotten)
    }

    fn register(&mut self, now: f64) {
        self.standing = Standing::Active;
        self.registered = now;
        self.reregistered = Some(now);
    }

    /// Free ports in turn, so that one is not given again at once; none when too few are free.
    pub(crate) fn take_ports(&mut self, count: usize, last: u16) -> Vec<u16> {
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

    pub(crate) fn free_ports(&mut self, ports: &[u16]) {
        for port in ports {
            self.ports_taken.remove(port);
        }
    }
}

impl Cluster {
    pub(crate) fn registered(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.is_registered())
    }

    pub(crate) fn recovered(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.standing == Standing::Recovered)
    }

    pub(crate) fn unreachable(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.is_unreachable())
    }

    /// The tasks of agents that became unreachable while this master led, as it reports them.
    pub(crate) fn unreachable_tasks(&self) -> Vec<Arc<Task>> {
        let mut tasks = Vec::new();
        for (index, agent) in self.agents.iter().enumerate() {
            if let Standing::Unreachable(since) = agent.standing {
                let here = self.tasks.on_agent(index);
                tasks.extend(here.map(|task| task.ended(End::AgentUnreachable, since)));
            }
        }
        tasks
    }

    /// A short failover: the last `count` agents are not back yet, the others are.
    pub(crate) fn lose_agents(&mut self, count: usize, now: f64) {
        let in_registry =
            |agent: &&mut Agent| agent.is_registered() || agent.standing == Standing::Recovered;
        let mut agents: Vec<_> = self.agents.iter_mut().filter(in_registry).collect();
        let kept = agents.len().saturating_sub(count);
        for (index, agent) in agents.iter_mut().enumerate() {
            match index < kept {
                true => agent.register(now),
                false => agent.standing = Standing::Recovered,
            }
        }
    }

    /// A new leader that has read the registry: agents by name only, no framework and no history.
    pub(crate) fn fail_over(&mut self) {
        for agent in &mut self.agents {
            match agent.standing {
                Standing::Active | Standing::Disconnected | Standing::Deactivated => {
                    agent.standing = Standing::Recovered;
                }
                Standing::Unreachable(_) => agent.standing = Standing::Forgotten,
                Standing::Recovered | Standing::Forgotten | Standing::Removed => {}
            }
        }
        self.forget_frameworks();
    }

    /// The first `count` agents known from the registry only come back; answers how many did.
    pub(crate) fn agents_back(&mut self, count: usize, now: f64) -> (usize, Vec<Change>) {
        let indexed = self.agents.iter().enumerate();
        let lost = indexed.filter(|(_, agent)| agent.standing == Standing::Recovered);
        let back: Vec<usize> = lost.map(|(index, _)| index).take(count).collect();
        let changes = back.iter().flat_map(|&index| self.agent_registers(index, now)).collect();
        (back.len(), changes)
    }

    /// The first `count` agents known from the registry only are given up, which no event tells.
    pub(crate) fn agents_gone(&mut self, count: usize) -> usize {
        let lost = self.agents.iter_mut().filter(|agent| agent.standing == Standing::Recovered);
        lost.take(count).map(|agent| agent.standing = Standing::Forgotten).count()
    }

    /// The agent is as it was before whatever happened to it.
    pub(crate) fn agent_back(&mut self, index: usize, now: f64) -> Result<Vec<Change>, String> {
        let agent = self.agent_mut(index)?;
        match agent.standing {
            Standing::Recovered | Standing::Unreachable(_) | Standing::Forgotten => {
                Ok(self.agent_registers(index, now))
            }
            Standing::Disconnected => {
                agent.standing = Standing::Active;
                agent.reregistered = Some(now);
                Ok(vec![])
            }
            Standing::Deactivated => {
                agent.standing = Standing::Active;
                Ok(vec![])
            }
            Standing::Active => Err(format!("agent {index} was not away")),
            Standing::Removed => Err(format!("agent {index} is gone for good")),
        }
    }

    /// The agent with its tasks, in a master's order: first the tasks of frameworks it knows, then
    /// the agent, then each framework it learns of through the agent, with its tasks.
    fn agent_registers(&mut self, index: usize, now: f64) -> Vec<Change> {
        self.agents[index].register(now);
        let mut changes = Vec::new();
        let mut learned: BTreeMap<usize, Vec<Change>> = BTreeMap::new();
        for task in self.tasks.on_agent(index) {
            let unknown = self.frameworks[task.framework].presence == Presence::Unknown;
            let among =
                if unknown { learned.entry(task.framework).or_default() } else { &mut changes };
            among.push(Change::Reported(task.clone()));
        }
        changes.push(Change::AgentAdded(index));
        for (framework, tasks) in learned {
            self.frameworks[framework].presence = Presence::Recovered;
            changes.push(Change::FrameworkAdded(framework, Presence::Recovered));
            changes.extend(tasks);
        }
        changes
    }

    /// The agent answers no pings; its tasks are reported, itself is not.
    pub(crate) fn agent_unreachable(
        &mut self,
        index: usize,
        now: f64,
    ) -> Result<Vec<Change>, String> {
        self.registered_agent(index)?.standing = Standing::Unreachable(now);
        let here = self.tasks.on_agent(index);
        let mut lost: Vec<_> = here.map(|task| task.ended(End::AgentUnreachable, now)).collect();
        lost.sort_by_key(|task| task.framework);
        Ok(lost.into_iter().map(Change::Updated).collect())
    }

    /// An operator marks the agent gone; its tasks are reported, itself is not.
    pub(crate) fn agent_marked_gone(
        &mut self,
        index: usize,
        now: f64,
    ) -> Result<Vec<Change>, String> {
        self.registered_agent(index)?.standing = Standing::Removed;
        Ok(self.end_all_on(index, End::AgentGone, now))
    }

    /// The agent takes leave.
    pub(crate) fn agent_leaves(&mut self, index: usize, now: f64) -> Result<Vec<Change>, String> {
        self.registered_agent(index)?.standing = Standing::Removed;
        let mut changes = self.end_all_on(index, End::AgentLeft, now);
        changes.push(Change::AgentRemoved(index));
        Ok(changes)
    }

    fn end_all_on(&mut self, index: usize, end: End, now: f64) -> Vec<Change> {
        let mut here: Vec<_> = self.tasks.on_agent(index).cloned().collect();
        here.sort_by_key(|task| task.framework);
        here.iter().map(|task| self.end(task, end, now)).collect()
    }

    /// The agent's connection is down, or it is deactivated: no event tells.
    pub(crate) fn agent_stands(&mut self, index: usize, standing: Standing) -> Result<(), String> {
        self.registered_agent(index)?.standing = standing;
        Ok(())
    }

    /// The agent registered again from another address: no event tells.
    pub(crate) fn agent_address(
        &mut self,
        index: usize,
        address: Ipv4Addr,
        now: f64,
    ) -> Result<(), String> {
        let agent = self.registered_agent(index)?;
        agent.address = address;
        agent.reregistered = Some(now);
        Ok(())
    }

    /// An agent that was never seen before; answers its index.
    pub(crate) fn new_agent(&mut self, now: f64) -> usize {
        let index = self.agents.len();
        self.agents.push(Agent::numbered(&self.id, index, now));
        index
    }

    fn agent_mut(&mut self, index: usize) -> Result<&mut Agent, String> {
        self.agents.get_mut(index).ok_or_else(|| format!("there is no agent {index}"))
    }

    fn registered_agent(&mut self, index: usize) -> Result<&mut Agent, String> {
        let agent = self.agent_mut(index)?;
        if agent.is_registered() { Ok(agent) } else { Err(format!("agent {index} is away")) }
    }
}
