//! Which records a cluster makes. Every rule of mesos-dns's `records/generator.go`, less its
//! mistakes; each function makes the records of one thing and says what it had to skip.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use sha1::{Digest, Sha1};

use crate::cluster::{
    Agent, AgentId, Cluster, DiscoveryPort, Endpoint, Framework, FrameworkId, Network, Task,
    TaskKey,
};
use crate::name::{LABEL_MAX, Name, NameError};
use crate::rr::{Rdata, Ttl, Type};
use crate::zone::Key;

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

/// How texts become labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LabelRules {
    /// At most 63 octets.
    Rfc1123,
    /// At most 24 octets, beginning with a letter.
    Rfc952,
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
        }
    }
}

/// The records of one thing, maybe with duplicates, and what could not be made.
#[derive(Default, Debug)]
pub struct Made {
    pub records: Vec<(Key, Rdata)>,
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
    for endpoint in cluster.masters.iter().chain(&cluster.leader) {
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

/// Names of which it is not known what they should have, because a host name could not be
/// resolved.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Unknown {
    names: BTreeSet<Name>,
    /// Some master is unresolved, so none of the numbered names below this domain is certain.
    masters_of: Option<Name>,
}

impl Unknown {
    pub fn of(rules: &Rules, cluster: &Cluster) -> Unknown {
        let mut unknown = Unknown::default();
        for framework in cluster.frameworks.values().filter(|f| is_unresolved(&f.scheduler)) {
            if let Ok(name) = framework_name(rules, &rules.domain, framework) {
                unknown.names.extend(name.below([b"_tcp".as_slice(), b"_framework"]));
                unknown.names.insert(name);
            }
        }
        if is_unresolved(&cluster.leader) {
            unknown.add(rules, &[&[b"leader"], &[b"_tcp", b"_leader"], &[b"_udp", b"_leader"]]);
        }
        let mut masters = cluster.masters.iter().chain(&cluster.leader);
        if masters.any(|master| master.addresses.is_empty()) {
            unknown.add(rules, &[&[b"master"]]);
            unknown.masters_of = Some(rules.domain.clone());
        }
        unknown.add_agents(rules, cluster);
        unknown
    }

    pub fn contains(&self, name: &Name) -> bool {
        let numbered = || self.masters_of.as_ref().is_some_and(|domain| is_master(domain, name));
        self.names.contains(name) || numbered()
    }

    fn add(&mut self, rules: &Rules, names: &[&[&[u8]]]) {
        let names = names.iter().map(|labels| rules.domain.below(labels.iter().copied()));
        self.names.extend(names.flatten());
    }

    /// The agents' own names, and those of every task on an unresolved one.
    fn add_agents(&mut self, rules: &Rules, cluster: &Cluster) {
        let unresolved = cluster.agents.iter().filter(|(_, agent)| is_unresolved(&agent.endpoint));
        let unresolved: BTreeSet<&AgentId> = unresolved.map(|(id, _)| id).collect();
        if unresolved.is_empty() {
            return;
        }
        self.add(rules, &[&[b"slave"], &[b"_tcp", b"_slave"]]);
        for (key, task) in cluster.tasks.iter().filter(|(key, _)| unresolved.contains(&key.agent)) {
            let Some(framework) = cluster.frameworks.get(&key.framework) else { continue };
            if let Ok(names) = TaskNames::new(rules, key, task, framework) {
                self.names.extend([names.shared, names.canonical]);
                self.names.extend([names.shared_slave, names.canonical_slave]);
            }
        }
    }
}

fn is_unresolved(endpoint: &Option<Endpoint>) -> bool {
    endpoint.as_ref().is_some_and(|endpoint| endpoint.addresses.is_empty())
}

/// Whether the name is `masterN` of the domain.
fn is_master(domain: &Name, name: &Name) -> bool {
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

/// Everything a running task makes.
pub fn of_task(
    rules: &Rules,
    key: &TaskKey,
    task: &Task,
    agent: Option<&Agent>,
    framework: Option<&Framework>,
) -> Made {
    let mut made = Made::default();
    let Some(agent) = agent else {
        made.skipped.push(Skip::UnknownAgent(key.agent.0.to_string()));
        return made;
    };
    let Some(framework) = framework else {
        made.skipped.push(Skip::UnknownFramework);
        return made;
    };
    made.skipped.extend(task.faults.iter().map(|fault| Skip::Fault(fault.0.clone())));
    let Some(names) = made.keep(TaskNames::new(rules, key, task, framework)) else { return made };
    let agents = agent.endpoint.as_ref().map_or(&[][..], |endpoint| &endpoint.addresses);

    let own = addresses(rules, task, agents);
    if own.is_empty() {
        made.skipped.push(Skip::NoAddress);
    }
    made.addresses(&names.shared, &own);
    made.addresses(&names.canonical, &own);
    made.addresses(&names.shared_slave, agents);
    made.addresses(&names.canonical_slave, agents);

    let named = task.discovery.as_ref().filter(|discovery| !discovery.name.is_empty());
    for (low, high) in &task.host_ports {
        host_ports(rules, &names, (*low, *high), named.is_some(), &mut made);
    }
    for port in named.iter().flat_map(|discovery| &discovery.ports) {
        discovery_port(rules, &names, port, &mut made);
    }
    made
}

struct TaskNames {
    /// The label after `_`, cut to leave room for it.
    service: String,
    framework: Name,
    framework_slave: Name,
    /// `n.fw.D`
    shared: Name,
    /// `n-hash-tail.fw.D`
    canonical: Name,
    shared_slave: Name,
    canonical_slave: Name,
}

impl TaskNames {
    fn new(
        rules: &Rules,
        key: &TaskKey,
        task: &Task,
        framework: &Framework,
    ) -> Result<TaskNames, Skip> {
        let discovered = task.discovery.as_ref().map(|discovery| &discovery.name);
        let text = discovered.filter(|name| !name.is_empty()).unwrap_or(&task.name);
        let n = label(text, rules.label_rules);
        if n.is_empty() {
            return Err(Skip::EmptyLabel(text.to_string()));
        }
        let c = canonical_label(&n, key)?;
        let slave = rules.domain.child(b"slave")?;
        let framework_slave = framework_name(rules, &slave, framework)?;
        let framework = framework_name(rules, &rules.domain, framework)?;
        Ok(TaskNames {
            service: underscored(&n),
            shared: framework.child(n.as_bytes())?,
            canonical: framework.child(c.as_bytes())?,
            shared_slave: framework_slave.child(n.as_bytes())?,
            canonical_slave: framework_slave.child(c.as_bytes())?,
            framework,
            framework_slave,
        })
    }
}

/// `n-hash5(task id)-tail(agent id)`, `n` cut so that the whole fits a label.
fn canonical_label(n: &str, key: &TaskKey) -> Result<String, Skip> {
    let tail = key.agent.0.rsplit_once('-').map_or(&*key.agent.0, |(_, tail)| tail);
    // Digits are most of what a tail is, so it never follows RFC 952.
    let tail = label(tail, LabelRules::Rfc1123);
    if tail.is_empty() {
        return Err(Skip::EmptyLabel(key.agent.0.to_string()));
    }
    let ending = format!("-{}-{tail}", hash5(&key.task));
    let room = LABEL_MAX.saturating_sub(ending.len());
    Ok(format!("{}{ending}", cut(n, room)))
}

fn cut(text: &str, length: usize) -> &str {
    text[..text.len().min(length)].trim_end_matches('-') // Labels are ASCII.
}

fn underscored(label: &str) -> String {
    format!("_{}", cut(label, LABEL_MAX - 1))
}

/// `fw` or `fw.slave` below a base: the framework's name, split at its dots.
fn framework_name(rules: &Rules, base: &Name, framework: &Framework) -> Result<Name, Skip> {
    let labels: Vec<String> = framework
        .name
        .split('.')
        .map(|part| label(part, rules.label_rules))
        .filter(|part| !part.is_empty())
        .collect();
    match labels.is_empty() {
        true => Err(Skip::EmptyLabel(framework.name.to_string())),
        false => Ok(base.below(labels.iter().rev().map(|part| part.as_bytes()))?),
    }
}

/// The task's addresses: of the first source that gives any.
fn addresses(rules: &Rules, task: &Task, agents: &[IpAddr]) -> Vec<IpAddr> {
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
    rules
        .ip_sources
        .iter()
        .map(of_source)
        .find(|found| !found.is_empty())
        .unwrap_or_default()
        .to_vec()
}

/// `_n._tcp.fw.slave.D` and, for tasks without a discovery name, `_n._tcp.fw.D`; the same for udp.
fn host_ports(
    rules: &Rules,
    names: &TaskNames,
    (low, high): (i64, i64),
    discovered: bool,
    made: &mut Made,
) {
    let inside = low.max(1)..=high.min(i64::from(u16::MAX));
    if low <= high && (low < 1 || high > i64::from(u16::MAX)) {
        made.skipped.push(Skip::Port(if low < 1 { low } else { high }));
    }
    for protocol in ["_tcp", "_udp"] {
        let labels = [protocol.as_bytes(), names.service.as_bytes()];
        let slave = made.keep(names.framework_slave.below(labels));
        let plain = made.keep(names.framework.below(labels)).filter(|_| !discovered);
        for name in slave.iter().chain(&plain) {
            for port in inside.clone() {
                made.srv(name, rules.srv_weight, port as u16, &names.canonical_slave); // In range.
            }
        }
    }
}

/// `_n._P.fw.D` and `_port._n._P.fw.D`.
fn discovery_port(rules: &Rules, names: &TaskNames, port: &DiscoveryPort, made: &mut Made) {
    let Some(number) = made.port(port.number) else { return };
    let on_agent = port.on_agent && rules.ip_sources.contains(&IpSource::Auto);
    let target = if on_agent { &names.canonical_slave } else { &names.canonical };
    let protocols: Vec<String> = port
        .protocol
        .split(',')
        .map(|protocol| label(protocol, rules.label_rules))
        .filter(|protocol| !protocol.is_empty())
        .collect();
    let protocols = match protocols.is_empty() {
        true => vec!["tcp".to_owned(), "udp".to_owned()],
        false => protocols,
    };
    let port_label = label(&port.name, rules.label_rules);
    for protocol in protocols {
        let protocol = underscored(&protocol);
        let service = names.framework.below([protocol.as_bytes(), names.service.as_bytes()]);
        let Some(service) = made.keep(service) else { continue };
        made.srv(&service, rules.srv_weight, number, target);
        if port_label.is_empty() {
            continue;
        }
        if let Some(named) = made.keep(service.child(underscored(&port_label).as_bytes())) {
            made.srv(&named, rules.srv_weight, number, target);
        }
    }
}

/// The label rule of mesos-dns (`records/labels`), less the trailing dash that it can leave.
pub fn label(text: &str, rules: LabelRules) -> String {
    let kept = text.chars().filter_map(|c| match c {
        'A'..='Z' | 'a'..='z' | '0'..='9' => Some(c.to_ascii_lowercase()),
        '-' | '.' | '_' => Some('-'),
        _ => None,
    });
    let kept: String = kept.collect();
    let (longest, kept) = match rules {
        LabelRules::Rfc1123 => (LABEL_MAX, kept.trim_start_matches('-')),
        LabelRules::Rfc952 => {
            (24, kept.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit()))
        }
    };
    let (whole, rest) = kept.split_at(kept.len().min(longest));
    let head = whole.trim_end_matches('-');
    if head.len() == whole.len() {
        return head.to_owned();
    }
    let rest = rest.trim_start_matches('-');
    let filled = [head, &rest[..rest.len().min(longest - head.len())]].concat();
    filled.trim_end_matches('-').to_owned()
}

/// The first five characters of the z-base-32 of SHA-1 of a task id.
fn hash5(task_id: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
    let digest = Sha1::digest(task_id.as_bytes());
    let bits = digest[..4].iter().fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet));
    let digit = |at: u32| (bits >> (27 - 5 * at)) as usize & 31; // Five bits.
    (0..5).map(|at| char::from(ALPHABET[digit(at)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_label(text: &str, expected: &str) {
        assert_eq!(label(text, LabelRules::Rfc1123), expected);
    }

    #[test]
    fn labels_follow_the_rule() {
        check_label("Search.App_1", "search-app-1");
        check_label("/group/app one", "groupappone");
        check_label("--a--", "a");
        check_label("日本", "");
        check_label(&"a".repeat(70), &"a".repeat(63));
        let run = format!("hello{}f", "-".repeat(58));
        check_label(&run, "hellof");
        let joined = format!("{}---ab-c", "q".repeat(60));
        check_label(&joined, &format!("{}ab", "q".repeat(60)));
        assert_eq!(label("9lives", LabelRules::Rfc952), "lives");
        assert_eq!(label(&"b".repeat(30), LabelRules::Rfc952), "b".repeat(24));
    }

    #[test]
    fn what_an_unresolved_host_name_makes_is_unknown_and_nothing_else() {
        let rules = Rules {
            domain: "mesos".parse().unwrap(),
            ttl: Ttl::from_secs(60),
            ip_sources: vec![IpSource::Host],
            label_rules: LabelRules::Rfc1123,
            srv_weight: 1,
            unhealthy: Unhealthy::Publish,
        };
        let endpoint = |text: &str| Endpoint::parse(text).unwrap();
        let framework = |scheduler| Framework {
            name: "m".into(),
            scheduler: Some(endpoint(scheduler)),
            faults: Vec::new(),
        };
        let id = FrameworkId("f".into());
        let mut cluster = Cluster { leader: Some(endpoint("10.0.0.1:5050")), ..Cluster::default() };
        let known = |cluster: &Cluster, name: &str| {
            !Unknown::of(&rules, cluster).contains(&name.parse().unwrap())
        };
        cluster.frameworks.insert(id.clone(), framework("10.0.0.9:1").into());
        assert_eq!(Unknown::of(&rules, &cluster), Unknown::default());
        cluster.frameworks.insert(id, framework("host.example:1").into());
        assert!(!known(&cluster, "m.mesos") && !known(&cluster, "_framework._tcp.m.mesos"));
        assert!(known(&cluster, "leader.mesos") && known(&cluster, "_slave._tcp.mesos"));
        cluster.masters = vec![endpoint("master.example:5050")];
        assert!(!known(&cluster, "master5.mesos") && !known(&cluster, "master.mesos"));
        assert!(known(&cluster, "leader.mesos") && known(&cluster, "master5.m.mesos"));
        let agent = Agent { endpoint: Some(endpoint("agent.example:5051")), faults: Vec::new() };
        cluster.agents.insert(AgentId("x-S1".into()), agent.into());
        assert!(!known(&cluster, "slave.mesos") && !known(&cluster, "_slave._tcp.mesos"));
    }

    #[test]
    fn the_hash_is_the_one_of_mesos_dns() {
        assert_eq!(hash5("test"), "iffe9");
    }
}
