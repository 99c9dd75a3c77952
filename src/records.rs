//! Which records a cluster makes. Every rule of mesos-dns's `records/generator.go`, less its
//! mistakes; each function makes the records of one thing and says what it had to skip.

use std::fmt;
use std::net::IpAddr;

use crate::chosen::{self, ChosenError};
use crate::cluster::{
    Agent, AgentId, Cluster, DiscoveryPort, Endpoint, Framework, FrameworkId, Network, Numbered,
    Task, TaskKey,
};
use crate::label::Label;
use crate::name::{Name, NameError};
use crate::reverse;
use crate::rr::{Rdata, Ttl, Type};
use crate::selection::Selection;
use crate::zone::Key;

pub use crate::label::LabelRules;

/// Where a task's addresses are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IpSource {
    /// `container_status.network_infos` of the status that counts.
    Netinfo,
    /// Its label `Docker.NetworkSettings.IPAddress`.
    Docker,
    /// Its label `MesosContainerizer.NetworkSettings.IPAddress`.
    Mesos,
    /// The agent's addresses.
    Host,
    /// Where the task really listens: its own addresses on a network of its own, else the agent's.
    Auto,
}

impl IpSource {
    /// As it is configured.
    pub fn word(self) -> &'static str {
        match self {
            IpSource::Netinfo => "netinfo",
            IpSource::Docker => "docker",
            IpSource::Mesos => "mesos",
            IpSource::Host => "host",
            IpSource::Auto => "auto",
        }
    }
}

/// What becomes of a task whose health check fails while others of its name are well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unhealthy {
    Withhold,
    Publish,
}

/// The rules a site chose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    pub domain: Name,
    pub ttl: Ttl,
    pub ip_sources: Vec<IpSource>,
    pub label_rules: LabelRules,
    pub srv_weight: u16,
    pub unhealthy: Unhealthy,
    /// Reverse zones, none of them within another or the domain.
    pub reverse: Vec<Name>,
    pub selection: Selection,
}

impl Rules {
    /// The rules of a site that chose nothing but its domain.
    pub fn of(domain: Name) -> Rules {
        Rules {
            domain,
            ttl: Ttl::from_secs(60),
            ip_sources: vec![IpSource::Netinfo, IpSource::Mesos, IpSource::Host],
            label_rules: LabelRules::Rfc1123,
            srv_weight: 1,
            unhealthy: Unhealthy::Withhold,
            reverse: Vec::new(),
            selection: Selection::default(),
        }
    }
}

/// What a record was made of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    Leader,
    Masters,
    Agent(AgentId),
    Framework(FrameworkId),
    Task(TaskKey),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Leader => f.write_str("leading master"),
            Subject::Masters => f.write_str("masters"),
            Subject::Agent(id) => write!(f, "agent {}", id.0),
            Subject::Framework(id) => write!(f, "framework {}", id.0),
            Subject::Task(key) => {
                write!(f, "task {} of framework {}", key.task, key.framework.0)
            }
        }
    }
}

/// Why something makes fewer records than it would.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Skip {
    #[error("{0}")]
    Fault(String),
    #[error("no label is left of the name {0:?}")]
    EmptyLabel(String),
    #[error("name: {0}")]
    Name(#[from] NameError),
    #[error("its name {0} belongs to the cluster")]
    Reserved(Name),
    #[error("port {0} is not within 1 to 65535")]
    Port(i64),
    #[error("no address")]
    NoAddress,
    #[error("host name {0} cannot be resolved")]
    Unresolved(String),
    #[error("its agent {0} is not known")]
    UnknownAgent(String),
    #[error("its framework is not known")]
    UnknownFramework,
    #[error("the name {name:?} that it chooses: {why}")]
    Chosen { name: String, why: ChosenError },
}

impl Skip {
    /// A word for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Skip::Fault(_) => "malformed",
            Skip::EmptyLabel(_) => "empty-label",
            Skip::Name(_) => "name",
            Skip::Reserved(_) => "reserved",
            Skip::Port(_) => "port",
            Skip::NoAddress => "no-address",
            Skip::Unresolved(_) => "unresolved",
            Skip::UnknownAgent(_) => "unknown-agent",
            Skip::UnknownFramework => "unknown-framework",
            Skip::Chosen { .. } => "chosen-name",
        }
    }
}

/// The records of one thing, maybe with duplicates, and what could not be made.
#[derive(Default, Debug)]
pub struct Made {
    pub records: Vec<(Key, Rdata)>,
    /// PTR records, in reverse zones.
    pub pointers: Vec<(Key, Rdata)>,
    pub skipped: Vec<Skip>,
}

impl Made {
    fn addresses(&mut self, name: &Name, addresses: &[IpAddr]) {
        for address in addresses {
            let rdata = Rdata::of_address(*address);
            let rtype = if matches!(rdata, Rdata::A(_)) { Type::A } else { Type::AAAA };
            self.records.push((Key { name: name.clone(), rtype }, rdata));
        }
    }

    fn srv(&mut self, name: &Name, weight: u16, port: u16, target: &Name) {
        let rdata = Rdata::Srv { priority: 0, weight, port, target: target.clone() };
        self.records.push((Key { name: name.clone(), rtype: Type::SRV }, rdata));
    }

    fn port(&mut self, number: i64) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.skipped.push(Skip::Port(number));
        }
        port
    }

    /// The value, or its skip noted.
    fn keep<T>(&mut self, made: Result<T, impl Into<Skip>>) -> Option<T> {
        made.map_err(|skip| self.skipped.push(skip.into())).ok()
    }

    fn endpoint<'e>(&mut self, endpoint: Option<&'e Endpoint>) -> Option<&'e Endpoint> {
        let Some(endpoint) = endpoint else {
            self.skipped.push(Skip::NoAddress);
            return None;
        };
        if endpoint.addresses.is_empty() {
            self.skipped.push(Skip::Unresolved(endpoint.host.to_string()));
            return None;
        }
        Some(endpoint)
    }
}

/// `leader.D`, `master.D`.
pub fn of_leader(rules: &Rules, cluster: &Cluster) -> Made {
    let mut made = Made::default();
    let Some(leader) = made.endpoint(cluster.leader.as_ref()) else { return made };
    let names = ["leader", "master"].map(|label| rules.domain.child(label.as_bytes()));
    for name in names {
        if let Some(name) = made.keep(name) {
            made.addresses(&name, &leader.addresses);
        }
    }
    for protocol in ["_tcp", "_udp"] {
        let Some(port) = leader.port else { break };
        let name = rules.domain.below([protocol.as_bytes(), b"_leader"]);
        let target = rules.domain.child(b"leader");
        if let (Some(name), Some(target)) = (made.keep(name), made.keep(target)) {
            made.srv(&name, rules.srv_weight, port, &target);
        }
    }
    made
}

/// `master.D` and `masterN.D`: one number an address, in the order in which the masters are known,
/// the leader last if it is in no list.
pub fn of_masters(rules: &Rules, cluster: &Cluster) -> Made {
    let mut made = Made::default();
    let mut numbered: Vec<IpAddr> = Vec::new();
    if cluster.masters == Numbered::Untold {
        return made;
    }
    for endpoint in cluster.masters.told().iter().chain(&cluster.leader) {
        let Some(endpoint) = made.endpoint(Some(endpoint)) else { continue };
        for address in &endpoint.addresses {
            let address = address.to_canonical();
            if numbered.contains(&address) {
                continue;
            }
            let label = format!("master{}", numbered.len());
            numbered.push(address);
            let names = [rules.domain.child(b"master"), rules.domain.child(label.as_bytes())];
            for name in names.into_iter().filter_map(|name| made.keep(name)).collect::<Vec<_>>() {
                made.addresses(&name, &[address]);
            }
        }
    }
    made
}

/// `slave.D`.
pub fn of_agent(rules: &Rules, agent: &Agent) -> Made {
    let mut made = Made::default();
    made.skipped.extend(agent.faults.iter().map(|fault| Skip::Fault(fault.0.clone())));
    let Some(endpoint) = &agent.endpoint else { return made };
    let Some(endpoint) = made.endpoint(Some(endpoint)) else { return made };
    let Some(name) = made.keep(rules.domain.child(b"slave")) else { return made };
    made.addresses(&name, &endpoint.addresses);
    let port = endpoint.port.and_then(|port| made.port(port.into()));
    let service = made.keep(rules.domain.below([b"_tcp".as_slice(), b"_slave"]));
    if let (Some(port), Some(service)) = (port, service) {
        made.srv(&service, rules.srv_weight, port, &name);
    }
    made
}

/// `F.D`: the scheduler.
pub fn of_framework(rules: &Rules, framework: &Framework) -> Made {
    let mut made = Made::default();
    if !rules.selection.has_framework(framework) {
        return made;
    }
    made.skipped.extend(framework.faults.iter().map(|fault| Skip::Fault(fault.0.clone())));
    let Some(scheduler) = &framework.scheduler else { return made };
    let Some(name) = made.keep(framework_name(rules, &rules.domain, framework)) else {
        return made;
    };
    if is_reserved(rules, &name) {
        made.skipped.push(Skip::Reserved(name));
        return made;
    }
    let Some(scheduler) = made.endpoint(Some(scheduler)) else { return made };
    made.addresses(&name, &scheduler.addresses);
    let port = scheduler.port.and_then(|port| made.port(port.into()));
    let service = made.keep(name.below([b"_tcp".as_slice(), b"_framework"]));
    if let (Some(port), Some(service)) = (port, service) {
        made.srv(&service, rules.srv_weight, port, &name);
    }
    made
}

/// Whether the name is `masterN` of the domain.
pub(crate) fn is_master(domain: &Name, name: &Name) -> bool {
    let first = name.labels().next().unwrap_or_default();
    let number = first.strip_prefix(b"master");
    number.is_some_and(|number| number.iter().all(u8::is_ascii_digit))
        && name.parent().as_ref() == Some(domain)
}

/// The names of the cluster itself, which no framework may capture.
fn is_reserved(rules: &Rules, name: &Name) -> bool {
    if name.parent().as_ref() != Some(&rules.domain) {
        return false;
    }
    let first = name.labels().next().unwrap_or_default();
    matches!(&*first, b"leader" | b"slave" | b"ns1") || is_master(&rules.domain, name)
}

#[cfg(test)]
thread_local! {
    /// How many tasks' records this thread made: what a change of the cluster costs.
    pub(crate) static MADE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many records a task makes, or few more.
const RECORDS_OF_TASK: usize = 16;

/// Everything a running task makes.
pub fn of_task(
    memo: &mut Memo,
    key: &TaskKey,
    task: &Task,
    agent: Option<&Agent>,
    framework: Option<&Framework>,
) -> Made {
    #[cfg(test)]
    MADE.set(MADE.get() + 1);
    let mut made = Made::default();
    let faults = || task.faults.iter().chain(&task.status_faults);
    let selection = &memo.rules.selection;
    if framework.is_some_and(|framework| !selection.has_framework(framework)) {
        return made;
    }
    if !selection.has_task(task) {
        // It may be left out only because its visibility cannot be read.
        let is_unread = task.discovery.as_ref().is_some_and(|d| d.visibility.is_none());
        made.skipped.extend(faults().filter(|_| is_unread).map(|f| Skip::Fault(f.0.clone())));
        return made;
    }
    let Some(agent) = agent else {
        made.skipped.push(Skip::UnknownAgent(key.agent.0.to_string()));
        return made;
    };
    let Some(framework) = framework else {
        made.skipped.push(Skip::UnknownFramework);
        return made;
    };
    made.skipped.extend(faults().map(|fault| Skip::Fault(fault.0.clone())));
    made.records.reserve(RECORDS_OF_TASK);
    let Some(names) = made.keep(memo.names(key, task, framework)) else { return made };
    let rules = names.rules;
    let agents = agent.endpoint.as_ref().map_or(&[][..], |endpoint| &endpoint.addresses);

    let own = addresses(rules, task, agents);
    if own.is_empty() {
        made.skipped.push(Skip::NoAddress);
    }
    made.addresses(&names.shared.plain, own);
    made.addresses(&names.canonical, own);
    made.addresses(&names.shared.slave, agents);
    made.addresses(&names.canonical_slave, agents);
    for name in chosen_names(rules, task, &mut made) {
        made.addresses(&name, own);
    }
    pointers(&names, (own, agents), &mut made);

    let named = task.discovery.as_ref().filter(|discovery| !discovery.name.is_empty());
    for (low, high) in &task.host_ports {
        host_ports(&names, (*low, *high), named.is_some(), &mut made);
    }
    for port in named.iter().flat_map(|discovery| &discovery.ports) {
        discovery_port(&names, port, &mut made);
    }
    made
}

/// The names last made for a framework and for a task's name in it. Tasks come ordered by their
/// framework and id, so that the next one mostly has them too: they are made once and shared.
pub struct Memo {
    rules: Rules,
    framework: Option<FrameworkNames>,
    shared: Option<SharedNames>,
}

/// `fw.D` and `fw.slave.D`.
#[derive(Clone)]
struct FrameworkNames {
    text: Box<str>,
    plain: Name,
    slave: Name,
}

/// What tasks of one name in one framework share.
pub(crate) struct SharedNames {
    text: Box<str>,
    framework: FrameworkNames,
    label: Label,
    /// The label after `_`, cut to leave room for it.
    service: Label,
    /// `n.fw.D`
    pub(crate) plain: Name,
    /// `n.fw.slave.D`
    pub(crate) slave: Name,
    /// `_n._tcp.fw.D` and `_n._udp.fw.D`
    services: [Result<Name, NameError>; 2],
    /// `_n._tcp.fw.slave.D` and `_n._udp.fw.slave.D`
    slave_services: [Result<Name, NameError>; 2],
}

pub(crate) struct TaskNames<'m> {
    rules: &'m Rules,
    pub(crate) shared: &'m SharedNames,
    /// `n-hash-tail.fw.D`
    pub(crate) canonical: Name,
    pub(crate) canonical_slave: Name,
}

impl Memo {
    pub fn new(rules: Rules) -> Memo {
        Memo { rules, framework: None, shared: None }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn names(
        &mut self,
        key: &TaskKey,
        task: &Task,
        framework: &Framework,
    ) -> Result<TaskNames<'_>, Skip> {
        let discovered = task.discovery.as_ref().map(|discovery| &discovery.name);
        let text = discovered.filter(|name| !name.is_empty()).unwrap_or(&task.name);
        let is_same =
            |names: &SharedNames| names.text == *text && names.framework.text == framework.name;
        let shared = match self.shared.take().filter(is_same) {
            Some(shared) => shared,
            None => {
                let framework = self.framework(framework)?;
                SharedNames::new(&self.rules, framework, text)?
            }
        };
        let shared = self.shared.insert(shared);
        let tail = key.agent.0.rsplit_once('-').map_or(&*key.agent.0, |(_, tail)| tail);
        // Digits are most of what a tail is, so it never follows RFC 952.
        let tail = Label::of(tail, LabelRules::Rfc1123);
        if tail.is_empty() {
            return Err(Skip::EmptyLabel(key.agent.0.to_string()));
        }
        let canonical = Label::canonical(&shared.label, &key.task, &tail)?;
        Ok(TaskNames {
            rules: &self.rules,
            canonical: shared.framework.plain.child(canonical.as_bytes())?,
            canonical_slave: shared.framework.slave.child(canonical.as_bytes())?,
            shared,
        })
    }

    fn framework(&mut self, framework: &Framework) -> Result<FrameworkNames, Skip> {
        let names = match self.framework.take().filter(|names| names.text == framework.name) {
            Some(names) => names,
            None => {
                let slave = self.rules.domain.child(b"slave")?;
                FrameworkNames {
                    text: framework.name.clone(),
                    slave: framework_name(&self.rules, &slave, framework)?,
                    plain: framework_name(&self.rules, &self.rules.domain, framework)?,
                }
            }
        };
        Ok(self.framework.insert(names).clone())
    }
}

const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

impl SharedNames {
    fn new(rules: &Rules, framework: FrameworkNames, text: &str) -> Result<SharedNames, Skip> {
        let label = Label::of(text, rules.label_rules);
        if label.is_empty() {
            return Err(Skip::EmptyLabel(text.to_string()));
        }
        let service = label.underscored();
        let services = |base: &Name| {
            [b"_tcp", b"_udp"].map(|protocol| base.below([protocol, service.as_bytes()]))
        };
        Ok(SharedNames {
            text: text.into(),
            plain: framework.plain.child(label.as_bytes())?,
            slave: framework.slave.child(label.as_bytes())?,
            services: services(&framework.plain),
            slave_services: services(&framework.slave),
            framework,
            label,
            service,
        })
    }

    /// `_n._P.fw.D`
    fn service(&self, protocol: &Label) -> Result<Name, NameError> {
        match PROTOCOLS.iter().position(|known| known.as_bytes() == protocol.as_bytes()) {
            Some(at) => self.services[at].clone(),
            None => {
                let protocol = protocol.underscored();
                self.framework.plain.below([protocol.as_bytes(), self.service.as_bytes()])
            }
        }
    }
}

/// `fw` or `fw.slave` below a base: the framework's name, split at its dots.
pub(crate) fn framework_name(
    rules: &Rules,
    base: &Name,
    framework: &Framework,
) -> Result<Name, Skip> {
    let labels: Vec<Label> = framework
        .name
        .split('.')
        .map(|part| Label::of(part, rules.label_rules))
        .filter(|part| !part.is_empty())
        .collect();
    match labels.is_empty() {
        true => Err(Skip::EmptyLabel(framework.name.to_string())),
        false => Ok(base.below(labels.iter().rev().map(Label::as_bytes))?),
    }
}

/// The task's addresses: of the first source that gives any.
fn addresses<'t>(rules: &Rules, task: &'t Task, agents: &'t [IpAddr]) -> &'t [IpAddr] {
    let of_source = |source: &IpSource| match source {
        IpSource::Netinfo => &task.netinfo,
        IpSource::Docker => &task.docker,
        IpSource::Mesos => &task.mesos,
        IpSource::Host => agents,
        IpSource::Auto => match task.network {
            Network::Agents => agents,
            Network::Own => {
                let own: [&[IpAddr]; 3] = [&task.netinfo, &task.docker, &task.mesos];
                own.into_iter().find(|source| !source.is_empty()).unwrap_or_default()
            }
        },
    };
    let mut found = rules.ip_sources.iter().map(of_source).filter(|found| !found.is_empty());
    found.next().unwrap_or_default()
}

/// The names that the task chooses; those that it may not have are noted.
pub(crate) fn chosen_names(rules: &Rules, task: &Task, made: &mut Made) -> Vec<Name> {
    let mut names = Vec::new();
    let each = task.chosen.iter().flat_map(|text| chosen::names(text, &rules.domain));
    for (text, read) in each {
        match read {
            Ok(name) if is_reserved(rules, &name) => made.skipped.push(Skip::Reserved(name)),
            Ok(name) => names.push(name),
            Err(why) => made.skipped.push(Skip::Chosen { name: text.to_owned(), why }),
        }
    }
    names
}

/// PTR records to `c.fw.D` from the task's own addresses. That none is another agent's either is
/// for [`pointers`](crate::pointers) to see to.
fn pointers(names: &TaskNames<'_>, (own, agents): (&[IpAddr], &[IpAddr]), made: &mut Made) {
    let is_agents =
        |own: &IpAddr| agents.iter().any(|agent| agent.to_canonical() == own.to_canonical());
    let reverse = &names.rules.reverse;
    for address in own.iter().filter(|own| !reverse.is_empty() && !is_agents(own)) {
        let name = reverse::name(*address);
        if reverse.iter().any(|zone| name.is_below(zone)) {
            let rdata = Rdata::Ptr(names.canonical.clone());
            made.pointers.push((Key { name, rtype: Type::PTR }, rdata));
        }
    }
}

/// `_n._tcp.fw.slave.D` and, for tasks without a discovery name, `_n._tcp.fw.D`; the same for udp.
fn host_ports(names: &TaskNames<'_>, (low, high): (i64, i64), discovered: bool, made: &mut Made) {
    let inside = low.max(1)..=high.min(i64::from(u16::MAX));
    if low <= high && (low < 1 || high > i64::from(u16::MAX)) {
        made.skipped.push(Skip::Port(if low < 1 { low } else { high }));
    }
    for (slave, plain) in names.shared.slave_services.iter().zip(&names.shared.services) {
        let slave = made.keep(slave.clone());
        let plain = made.keep(plain.clone()).filter(|_| !discovered);
        for name in slave.iter().chain(&plain) {
            for port in inside.clone() {
                let port = port as u16; // In range.
                made.srv(name, names.rules.srv_weight, port, &names.canonical_slave);
            }
        }
    }
}

/// `_n._P.fw.D` and `_port._n._P.fw.D`.
fn discovery_port(names: &TaskNames<'_>, port: &DiscoveryPort, made: &mut Made) {
    let rules = names.rules;
    let Some(number) = made.port(port.number) else { return };
    let on_agent = port.on_agent && rules.ip_sources.contains(&IpSource::Auto);
    let target = if on_agent { &names.canonical_slave } else { &names.canonical };
    let label = |text| Label::of(text, rules.label_rules);
    let told = port.protocol.split(',').map(label).filter(|protocol| !protocol.is_empty());
    let mut protocols = told.peekable();
    let both = protocols.peek().is_none().then(|| PROTOCOLS.map(label)).into_iter().flatten();
    let port_label = label(&port.name);
    for protocol in protocols.chain(both) {
        let Some(service) = made.keep(names.shared.service(&protocol)) else { continue };
        made.srv(&service, rules.srv_weight, number, target);
        if port_label.is_empty() {
            continue;
        }
        if let Some(named) = made.keep(service.child(port_label.underscored().as_bytes())) {
            made.srv(&named, rules.srv_weight, number, target);
        }
    }
}
