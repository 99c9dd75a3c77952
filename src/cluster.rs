//! What runs on a Mesos cluster, as far as names need it: agents, frameworks and running tasks in
//! persistent maps, so that a changed task costs one entry and snapshots share the rest.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AgentId(pub Arc<str>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameworkId(pub Arc<str>);

/// What tells tasks apart: a task id is unique only in its framework, and an id that an agent
/// reports again after a failover may meet its like on another agent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskKey {
    pub framework: FrameworkId,
    pub task: Arc<str>,
    pub agent: AgentId,
}

/// A host as some process named it: an address, or a name yet to be resolved.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Host {
    Address(IpAddr),
    Name(Arc<str>),
}

impl Host {
    /// Reads `10.0.0.1`, `2001:db8::1`, `[2001:db8::1]` or a host name; none for an empty text.
    pub fn parse(text: &str) -> Option<Host> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match bare.parse() {
            Ok(address) => Some(Host::Address(address)),
            Err(_) if text.is_empty() || bare.len() != text.len() => None,
            Err(_) => Some(Host::Name(Arc::from(text))),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => address.fmt(f),
            Host::Name(name) => name.fmt(f),
        }
    }
}

/// Where a process listens, and the addresses that its host has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub host: Host,
    pub port: Option<u16>,
    /// Of a host name: empty until resolved, and when it cannot be.
    pub addresses: Vec<IpAddr>,
}

impl Endpoint {
    pub fn new(host: Host, port: Option<u16>) -> Endpoint {
        let addresses = match &host {
            Host::Address(address) => vec![*address],
            Host::Name(_) => Vec::new(),
        };
        Endpoint { host, port, addresses }
    }

    /// Reads `host:port`, the port optional, IPv6 in brackets.
    pub fn parse(text: &str) -> Option<Endpoint> {
        if let Some(host @ Host::Address(_)) = Host::parse(text) {
            return Some(Endpoint::new(host, None));
        }
        match text.rsplit_once(':') {
            Some((host, port)) => Some(Endpoint::new(Host::parse(host)?, Some(port.parse().ok()?))),
            None => Some(Endpoint::new(Host::parse(text)?, None)),
        }
    }

    /// `host:port` with this port where none is known, IPv6 in brackets.
    pub fn authority(&self, default_port: u16) -> String {
        let port = self.port.unwrap_or(default_port);
        match &self.host {
            Host::Address(address) => std::net::SocketAddr::new(*address, port).to_string(),
            Host::Name(name) => format!("{name}:{port}"),
        }
    }

    /// Reads a libprocess id, `slave(1)@10.0.0.1:5051`.
    pub fn parse_pid(text: &str) -> Option<Endpoint> {
        let (_, place) = text.split_once('@')?;
        Endpoint::parse(place).filter(|endpoint| endpoint.port.is_some() && !place.contains('@'))
    }
}

/// Something in the state that could not be read, kept beside what could.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault(pub String);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agent {
    /// From its `pid`, the only address that Mesos tells.
    pub endpoint: Option<Endpoint>,
    pub faults: Vec<Fault>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Framework {
    pub name: Box<str>,
    /// The scheduler: the `pid`, else the `hostname`, then without a port.
    pub scheduler: Option<Endpoint>,
    /// Since a failover it is known through its agents only: no `pid` is told before its scheduler
    /// subscribes again.
    pub recovered: bool,
    pub faults: Vec<Fault>,
}

impl Framework {
    /// Whether its scheduler may have a `pid` that nobody tells.
    pub fn may_have_pid(&self) -> bool {
        self.recovered && self.pid().is_none()
    }

    /// The `pid` that was told before is good until another can be.
    pub fn keep_pid(&mut self, before: &Framework) {
        if self.may_have_pid() && before.pid().is_some() {
            self.scheduler.clone_from(&before.scheduler);
        }
    }

    fn pid(&self) -> Option<&Endpoint> {
        self.scheduler.as_ref().filter(|scheduler| scheduler.port.is_some())
    }
}

/// Where a task's container is attached, `docs/networking.md` of Mesos.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// It listens on its agent's addresses: HOST and BRIDGE mode.
    Agents,
    /// It has addresses of its own: USER mode and CNI networks.
    Own,
}

/// A port of `discovery.ports`, its strings as the framework wrote them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiscoveryPort {
    pub number: i64,
    pub name: Box<str>,
    pub protocol: Box<str>,
    /// Labelled `network-scope = host`: the number is one of the agent's.
    pub on_agent: bool,
}

/// How far a service is to be seen, as its framework wishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visibility {
    Framework,
    Cluster,
    External,
}

impl Visibility {
    /// Reads the word of Mesos.
    pub fn parse(text: &str) -> Option<Visibility> {
        match text {
            "FRAMEWORK" => Some(Visibility::Framework),
            "CLUSTER" => Some(Visibility::Cluster),
            "EXTERNAL" => Some(Visibility::External),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovery {
    pub name: Box<str>,
    /// None: nothing that is known was told.
    pub visibility: Option<Visibility>,
    pub ports: Vec<DiscoveryPort>,
}

/// A task in state TASK_RUNNING.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    pub name: Box<str>,
    pub discovery: Option<Discovery>,
    /// The values of its label by which tasks choose names, where that is read.
    pub chosen: Box<[Box<str>]>,
    /// `resources.ports`: ranges of agent ports, both ends included.
    pub host_ports: Vec<(i64, i64)>,
    /// What the status that counts says of addresses, by source.
    pub netinfo: Vec<IpAddr>,
    pub docker: Vec<IpAddr>,
    pub mesos: Vec<IpAddr>,
    pub network: Network,
    /// None: no health check ever reported.
    pub healthy: Option<bool>,
    pub faults: Vec<Fault>,
    /// Of the status that counts.
    pub status_faults: Vec<Fault>,
}

/// The masters in the order of the names that number them: as configured, else as they would come
/// to lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Numbered {
    Told(Vec<Endpoint>),
    /// They are known to an election that nobody asked: nothing is said of their names.
    Untold,
}

impl Default for Numbered {
    fn default() -> Numbered {
        Numbered::Told(Vec::new())
    }
}

impl Numbered {
    /// Those that were told.
    pub fn told(&self) -> &[Endpoint] {
        match self {
            Numbered::Told(masters) => masters,
            Numbered::Untold => &[],
        }
    }

    fn told_mut(&mut self) -> &mut [Endpoint] {
        match self {
            Numbered::Told(masters) => masters,
            Numbered::Untold => &mut [],
        }
    }
}

/// The cluster as one master told it.
#[derive(Clone, Default, Debug)]
pub struct Cluster {
    /// New for each master process.
    pub master_id: Box<str>,
    /// Seconds since 1970; none for a master that is not elected or does not say.
    pub elected_time: Option<f64>,
    pub leader: Option<Endpoint>,
    /// Every known master.
    pub masters: Numbered,
    pub agents: OrdMap<AgentId, Arc<Agent>>,
    /// Agents that the registry knows and that have not come back yet.
    pub recovered: OrdSet<AgentId>,
    pub frameworks: OrdMap<FrameworkId, Arc<Framework>>,
    pub tasks: OrdMap<TaskKey, Arc<Task>>,
}

/// Addresses of host names.
pub type Hosts = std::collections::BTreeMap<Arc<str>, Vec<IpAddr>>;

impl Cluster {
    /// The host names that stand in place of addresses.
    pub fn host_names(&self) -> BTreeSet<Arc<str>> {
        let agents = self.agents.values().filter_map(|agent| agent.endpoint.as_ref());
        let schedulers = self.frameworks.values().filter_map(|f| f.scheduler.as_ref());
        let masters = self.leader.iter().chain(self.masters.told());
        let named = |endpoint: &Endpoint| match &endpoint.host {
            Host::Name(name) => Some(name.clone()),
            Host::Address(_) => None,
        };
        agents.chain(schedulers).chain(masters).filter_map(named).collect()
    }

    /// Fills in the addresses of host names.
    pub fn resolve(&mut self, hosts: &Hosts) {
        let addresses = |endpoint: &Endpoint| match &endpoint.host {
            Host::Name(name) => hosts.get(name).filter(|found| **found != endpoint.addresses),
            Host::Address(_) => None,
        };
        for endpoint in self.leader.iter_mut().chain(self.masters.told_mut()) {
            if let Some(found) = addresses(endpoint) {
                endpoint.addresses = found.clone();
            }
        }
        for (id, agent) in self.agents.clone() {
            let Some(found) = agent.endpoint.as_ref().and_then(addresses) else { continue };
            let mut agent = (*agent).clone();
            agent.endpoint.iter_mut().for_each(|endpoint| endpoint.addresses = found.clone());
            self.agents.insert(id, Arc::new(agent));
        }
        for (id, framework) in self.frameworks.clone() {
            let Some(found) = framework.scheduler.as_ref().and_then(addresses) else { continue };
            let mut framework = (*framework).clone();
            framework.scheduler.iter_mut().for_each(|endpoint| endpoint.addresses = found.clone());
            self.frameworks.insert(id, Arc::new(framework));
        }
    }

    /// Schedulers that have not subscribed since a failover are where they were before.
    pub fn keep_pids(&mut self, before: &Cluster) {
        let untold = self.frameworks.iter().filter(|(_, framework)| framework.may_have_pid());
        let untold: Vec<_> =
            untold.map(|(id, framework)| (id.clone(), framework.clone())).collect();
        for (id, mut framework) in untold {
            if let Some(before) = before.frameworks.get(&id) {
                Arc::make_mut(&mut framework).keep_pid(before);
                self.frameworks.insert(id, framework);
            }
        }
    }

    /// A scheduler without tasks is unknown to a new leader until it subscribes: what `before`
    /// knew stays, unless it is over.
    pub fn keep_frameworks(&mut self, before: &Cluster, completed: &HashSet<FrameworkId>) {
        for (id, framework) in &before.frameworks {
            if !self.frameworks.contains_key(id) && !completed.contains(id) {
                self.frameworks.insert(id.clone(), framework.clone());
            }
        }
    }

    /// This cluster grown by what `before` knew, for the time after a failover: every agent
    /// and task stays, unless the new leader lists the task as ended (`ended`) or its
    /// agent as registered without it.
    pub fn keep(&mut self, before: &Cluster, ended: &HashSet<TaskKey>) {
        for (key, task) in &before.tasks {
            let told = self.tasks.contains_key(key)
                || self.agents.contains_key(&key.agent)
                || ended.contains(key);
            if !told {
                self.tasks.insert(key.clone(), task.clone());
            }
        }
        for (id, agent) in &before.agents {
            if !self.agents.contains_key(id) {
                self.agents.insert(id.clone(), agent.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_pid(text: &str, expected: Option<(&str, u16)>) {
        let read = Endpoint::parse_pid(text).map(|e| (e.host.to_string(), e.port.unwrap()));
        assert_eq!(read, expected.map(|(host, port)| (host.to_owned(), port)), "{text}");
    }

    #[test]
    fn pids_are_read_or_refused_whole() {
        check_pid("slave(1)@10.0.0.1:5051", Some(("10.0.0.1", 5051)));
        check_pid("slave(1)@[2001:DB8::A]:5051", Some(("2001:db8::a", 5051)));
        check_pid("master@m1.example:5050", Some(("m1.example", 5050)));
        for bad in ["", "x", "a@b@1.2.3.4:5", "a@1.2.3.4", "a@:5", "a@1.2.3.4:99999", "a@[x]:5"] {
            check_pid(bad, None);
        }
    }

    fn cluster(agents: &[&str], tasks: &[(&str, &str)]) -> Cluster {
        let agent = Arc::new(Agent { endpoint: None, faults: Vec::new() });
        let task = Arc::new(Task {
            name: "t".into(),
            discovery: None,
            chosen: Box::default(),
            host_ports: Vec::new(),
            netinfo: Vec::new(),
            docker: Vec::new(),
            mesos: Vec::new(),
            network: Network::Agents,
            healthy: None,
            faults: Vec::new(),
            status_faults: Vec::new(),
        });
        let agents = agents.iter().map(|id| (AgentId(Arc::from(*id)), agent.clone()));
        let tasks = tasks.iter().map(|(id, agent)| (key(id, agent), task.clone()));
        Cluster { agents: agents.collect(), tasks: tasks.collect(), ..Cluster::default() }
    }

    fn key(task: &str, agent: &str) -> TaskKey {
        TaskKey {
            framework: FrameworkId(Arc::from("f")),
            task: Arc::from(task),
            agent: AgentId(Arc::from(agent)),
        }
    }

    #[test]
    fn while_recovering_only_what_is_told_goes() {
        let before = cluster(&["a", "b"], &[("1", "a"), ("2", "a"), ("3", "b"), ("4", "b")]);
        let mut now = cluster(&["a"], &[("1", "a"), ("5", "a")]);
        now.keep(&before, &HashSet::from([key("4", "b")]));
        let left: Vec<&str> = now.tasks.keys().map(|key| &*key.task).collect();
        assert_eq!(left, ["1", "3", "5"]);
        assert_eq!(now.agents.len(), 2);
    }
}
