//! Names of which it is not known what they should have, because a host name could not be
//! resolved, or because a scheduler has yet to subscribe to a new leader.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::{AgentId, Cluster, Endpoint, Framework, Numbered};
use crate::name::Name;
use crate::records::{Made, Memo, Rules, chosen_names, framework_name, is_master};

/// The names, and nothing when all is resolved.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Unknown {
    names: BTreeSet<Name>,
    /// Some master is unresolved or untold, so none of the numbered names below this domain is certain.
    masters_of: Option<Name>,
    /// Some agent is unresolved, and so are the names of its tasks.
    with_tasks: bool,
}

impl Unknown {
    pub fn of(rules: &Rules, cluster: &Cluster) -> Unknown {
        let mut unknown = Unknown::default();
        let is_unknown = |f: &&Arc<Framework>| {
            rules.selection.has_framework(f) && (is_unresolved(&f.scheduler) || f.may_have_pid())
        };
        for framework in cluster.frameworks.values().filter(is_unknown) {
            if let Ok(name) = framework_name(rules, &rules.domain, framework) {
                unknown.names.extend(name.below([b"_tcp".as_slice(), b"_framework"]));
                unknown.names.insert(name);
            }
        }
        if is_unresolved(&cluster.leader) {
            unknown.add(rules, &[&[b"leader"], &[b"_tcp", b"_leader"], &[b"_udp", b"_leader"]]);
        }
        let mut masters = cluster.masters.told().iter().chain(&cluster.leader);
        let untold = cluster.masters == Numbered::Untold;
        if untold || masters.any(|master| master.addresses.is_empty()) {
            unknown.add(rules, &[&[b"master"]]);
            unknown.masters_of = Some(rules.domain.clone());
        }
        unknown.add_agents(rules, cluster);
        unknown
    }

    /// Whether it depends on tasks, and not only on masters, agents and frameworks.
    pub fn follows_tasks(&self) -> bool {
        self.with_tasks
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
        self.with_tasks = true;
        self.add(rules, &[&[b"slave"], &[b"_tcp", b"_slave"]]);
        let mut memo = Memo::new(rules.clone());
        for (key, task) in cluster.tasks.iter().filter(|(key, _)| unresolved.contains(&key.agent)) {
            let Some(framework) = cluster.frameworks.get(&key.framework) else { continue };
            if !(rules.selection.has_framework(framework) && rules.selection.has_task(task)) {
                continue;
            }
            self.names.extend(chosen_names(rules, task, &mut Made::default()));
            if let Ok(names) = memo.names(key, task, framework) {
                self.names.extend([names.shared.plain.clone(), names.canonical]);
                self.names.extend([names.shared.slave.clone(), names.canonical_slave]);
            }
        }
    }
}

fn is_unresolved(endpoint: &Option<Endpoint>) -> bool {
    endpoint.as_ref().is_some_and(|endpoint| endpoint.addresses.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Agent, FrameworkId};
    use crate::records::{IpSource, Unhealthy};

    #[test]
    fn what_an_unresolved_host_name_makes_is_unknown_and_nothing_else() {
        let rules = Rules {
            ip_sources: vec![IpSource::Host],
            unhealthy: Unhealthy::Publish,
            ..Rules::of("mesos".parse().unwrap())
        };
        let endpoint = |text: &str| Endpoint::parse(text).unwrap();
        let framework = |scheduler| Framework {
            name: "m".into(),
            scheduler: Some(endpoint(scheduler)),
            recovered: false,
            faults: Vec::new(),
        };
        let id = FrameworkId("f".into());
        let mut cluster = Cluster { leader: Some(endpoint("10.0.0.1:5050")), ..Cluster::default() };
        let known = |cluster: &Cluster, name: &str| {
            !Unknown::of(&rules, cluster).contains(&name.parse().unwrap())
        };
        cluster.frameworks.insert(id.clone(), framework("10.0.0.9:1").into());
        assert_eq!(Unknown::of(&rules, &cluster), Unknown::default());
        let recovered = Framework { recovered: true, ..framework("10.0.0.9") };
        cluster.frameworks.insert(id.clone(), recovered.into());
        assert!(!known(&cluster, "m.mesos") && !known(&cluster, "_framework._tcp.m.mesos"));
        let kept = Framework { recovered: true, ..framework("10.0.0.9:1") };
        cluster.frameworks.insert(id.clone(), kept.into());
        assert_eq!(Unknown::of(&rules, &cluster), Unknown::default());
        cluster.frameworks.insert(id, framework("host.example:1").into());
        assert!(!known(&cluster, "m.mesos") && !known(&cluster, "_framework._tcp.m.mesos"));
        assert!(known(&cluster, "leader.mesos") && known(&cluster, "_slave._tcp.mesos"));
        cluster.masters = Numbered::Told(vec![endpoint("master.example:5050")]);
        assert!(!known(&cluster, "master5.mesos") && !known(&cluster, "master.mesos"));
        assert!(known(&cluster, "leader.mesos") && known(&cluster, "master5.m.mesos"));
        let agent = Agent { endpoint: Some(endpoint("agent.example:5051")), faults: Vec::new() };
        cluster.agents.insert(AgentId("x-S1".into()), agent.into());
        assert!(!known(&cluster, "slave.mesos") && !known(&cluster, "_slave._tcp.mesos"));
    }
}
