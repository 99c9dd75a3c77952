//! The answers of the HTTP API of mesos-dns, in its shapes (mesos-dns, resolver/resolver.go and
//! records/generator.go), less its faults: nothing found is an empty list, nothing is listed for
//! one task alone that others make too, and no secret is shown.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use crate::cluster::{FrameworkId, Task, TaskKey};
use crate::config::{Config, Scheme};
use crate::name::Name;
use crate::records::{LabelRules, Memo, Rules, of_task};
use crate::rr::{Rdata, Rrset, Serial, Type};
use crate::snapshot::Snapshot;
use crate::zone::{Key, Zone};

/// `/v1/version`.
#[derive(Serialize, Debug)]
pub struct Version {
    #[serde(rename = "Service")]
    service: &'static str,
    #[serde(rename = "URL")]
    url: &'static str,
    #[serde(rename = "Version")]
    version: &'static str,
}

/// Which program this is.
pub fn version() -> Version {
    Version { service: "mesozone", url: "", version: env!("CARGO_PKG_VERSION") }
}

/// One address of `/v1/hosts/{host}`.
#[derive(Serialize, PartialEq, Eq, Debug)]
pub struct Host {
    host: String,
    ip: String,
}

/// The addresses of a name, A before AAAA.
pub fn hosts(zone: &Zone, name: &Name) -> Vec<Host> {
    let host = |rdata: &Rdata| Host { host: name.to_string(), ip: rdata.to_string() };
    [Type::A, Type::AAAA].into_iter().flat_map(|rtype| data(zone, name, rtype)).map(host).collect()
}

fn data<'z>(zone: &'z Zone, name: &Name, rtype: Type) -> &'z [Rdata] {
    zone.get(&Key { name: name.clone(), rtype }).map_or(&[], Rrset::rdata)
}

/// One way to a service, of `/v1/services/{service}`.
#[derive(Serialize, PartialEq, Eq, Debug)]
pub struct ServiceAddress {
    /// As it was asked for.
    service: String,
    host: String,
    ip: String,
    port: String,
}

/// Where a service is: for each of its SRV records one A and one AAAA of the target, of several the
/// one that `chance` falls on.
pub fn services(zone: &Zone, asked: &str, name: &Name, chance: u64) -> Vec<ServiceAddress> {
    let mut found = Vec::new();
    for rdata in data(zone, name, Type::SRV) {
        let Rdata::Srv { port, target, .. } = rdata else { continue };
        for rtype in [Type::A, Type::AAAA] {
            let addresses = data(zone, target, rtype);
            let at = chance.checked_rem(addresses.len() as u64).unwrap_or_default();
            found.extend(addresses.get(at as usize).map(|address| ServiceAddress {
                service: asked.to_owned(),
                host: target.to_string(),
                ip: address.to_string(),
                port: port.to_string(),
            }));
        }
    }
    found
}

/// A record's data as mesos-dns writes it: an address, or `target.:port`.
fn host(rdata: &Rdata) -> String {
    match rdata {
        Rdata::Srv { port, target, .. } => format!("{target}:{port}"),
        other => other.to_string(),
    }
}

/// Writes the whole zone, the answer of `/v1/axfr`.
pub fn write_axfr(
    out: &mut dyn Write,
    snapshot: &Snapshot,
    config: &Config,
    serial: Serial,
) -> io::Result<()> {
    let (mname, rname) = authority(config);
    let axfr = Axfr {
        ttl: config.rules.ttl.secs(),
        serial: serial.0,
        refresh: config.mesos.poll_interval.as_secs(),
        mname,
        rname,
        domain: domain(&config.rules),
        records: Records {
            a: OfType(&snapshot.zone, Type::A),
            aaaa: OfType(&snapshot.zone, Type::AAAA),
            srv: OfType(&snapshot.zone, Type::SRV),
        },
    };
    serde_json::to_writer(out, &axfr).map_err(io::Error::from)
}

#[derive(Serialize)]
struct Axfr<'z> {
    #[serde(rename = "TTL")]
    ttl: u32,
    #[serde(rename = "Serial")]
    serial: u32,
    #[serde(rename = "RefreshSeconds")]
    refresh: u64,
    #[serde(rename = "Mname")]
    mname: String,
    #[serde(rename = "Rname")]
    rname: String,
    #[serde(rename = "Domain")]
    domain: String,
    #[serde(rename = "Records")]
    records: Records<'z>,
}

#[derive(Serialize)]
struct Records<'z> {
    #[serde(rename = "As")]
    a: OfType<'z>,
    #[serde(rename = "AAAAs")]
    aaaa: OfType<'z>,
    #[serde(rename = "SRVs")]
    srv: OfType<'z>,
}

/// The RRsets of one type, written one by one.
struct OfType<'z>(&'z Zone, Type);

impl Serialize for OfType<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, rrset) in self.0.iter().filter(|(key, _)| key.rtype == self.1) {
            let hosts: Vec<String> = rrset.rdata().iter().map(host).collect();
            map.serialize_entry(&key.name.to_string(), &hosts)?;
        }
        map.end()
    }
}

/// Writes what each task makes, the answer of `/v1/enumerate`.
pub fn write_enumerate(out: &mut dyn Write, snapshot: &Snapshot, rules: &Rules) -> io::Result<()> {
    let mut tasks: BTreeMap<&FrameworkId, Vec<(&TaskKey, &Task)>> = BTreeMap::new();
    for (key, task) in &snapshot.cluster.tasks {
        tasks.entry(&key.framework).or_default().push((key, task));
    }
    let frameworks = Frameworks { snapshot, rules, tasks };
    serde_json::to_writer(out, &Enumeration { frameworks }).map_err(io::Error::from)
}

#[derive(Serialize)]
struct Enumeration<'s> {
    frameworks: Frameworks<'s>,
}

/// All frameworks, written one by one.
struct Frameworks<'s> {
    snapshot: &'s Snapshot,
    rules: &'s Rules,
    tasks: BTreeMap<&'s FrameworkId, Vec<(&'s TaskKey, &'s Task)>>,
}

#[derive(Serialize)]
struct FrameworkTasks {
    tasks: Vec<TaskRecords>,
    name: String,
}

#[derive(Serialize)]
struct TaskRecords {
    name: String,
    id: String,
    records: Vec<TaskRecord>,
}

#[derive(Serialize)]
struct TaskRecord {
    name: String,
    host: String,
    rtype: String,
}

impl Serialize for Frameworks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let cluster = &self.snapshot.cluster;
        let mut memo = Memo::new(self.rules.clone());
        let mut list = serializer.serialize_seq(None)?;
        for (id, framework) in &cluster.frameworks {
            let tasks = self.tasks.get(id).into_iter().flatten().map(|(key, task)| {
                let agent = cluster.agents.get(&key.agent).map(AsRef::as_ref);
                let made = of_task(&mut memo, key, task, agent, Some(framework.as_ref()));
                let record = |(key, rdata): (Key, Rdata)| TaskRecord {
                    name: key.name.to_string(),
                    host: host(&rdata),
                    rtype: key.rtype.to_string(),
                };
                TaskRecords {
                    name: task.name.to_string(),
                    id: key.task.to_string(),
                    records: made.records.into_iter().map(record).collect(),
                }
            });
            let tasks = tasks.collect();
            list.serialize_element(&FrameworkTasks { tasks, name: framework.name.to_string() })?;
        }
        list.end()
    }
}

/// `/v1/config`, under the keys of mesos-dns as far as they say anything here. No secret is in it.
#[derive(Serialize, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigTable {
    refresh_seconds: u64,
    port: u16,
    state_timeout_seconds: u64,
    http_port: u16,
    #[serde(rename = "TTL")]
    ttl: u32,
    #[serde(rename = "SRVRecordDefaultWeight")]
    srv_weight: u16,
    #[serde(rename = "SOARefresh")]
    soa_refresh: u64,
    #[serde(rename = "SOARetry")]
    soa_retry: u64,
    #[serde(rename = "SOAExpire")]
    soa_expire: u64,
    #[serde(rename = "SOAMinttl")]
    soa_minttl: u64,
    #[serde(rename = "SOAMname")]
    soa_mname: String,
    #[serde(rename = "SOARname")]
    soa_rname: String,
    masters: Vec<String>,
    zone_resolvers: BTreeMap<String, Vec<String>>,
    resolvers: Vec<String>,
    #[serde(rename = "IPSources")]
    ip_sources: Vec<&'static str>,
    zk: String,
    domain: String,
    listener: String,
    #[serde(rename = "HTTPListener")]
    http_listener: String,
    dns_on: bool,
    http_on: bool,
    external_on: bool,
    #[serde(rename = "EnforceRFC952")]
    enforce_rfc952: bool,
    enumeration_on: bool,
    #[serde(rename = "MesosHTTPSOn")]
    mesos_https_on: bool,
}

fn domain(rules: &Rules) -> String {
    rules.domain.to_string().trim_end_matches('.').to_owned()
}

/// The SOA's primary and mailbox: the bundled server's, or what it would have by default.
fn authority(config: &Config) -> (String, String) {
    let by_default = format!("ns1.{}", config.rules.domain);
    match &config.server {
        Some(server) => {
            let first = server.name_servers.keys().next().map(Name::to_string);
            (first.unwrap_or(by_default), server.rname.to_string())
        }
        None => (by_default.clone(), format!("root.{by_default}")),
    }
}

/// What a client of mesos-dns may look up of a configuration.
pub fn config_table(config: &Config) -> ConfigTable {
    let (server, http, rules) = (config.server.as_ref(), config.http.as_ref(), &config.rules);
    let secs = |of: fn(&crate::config::Server) -> std::time::Duration| {
        server.map_or(0, |server| of(server).as_secs())
    };
    let (soa_mname, soa_rname) = authority(config);
    let listen = server.and_then(|server| server.listen.first());
    let upstreams = server.into_iter().flat_map(|server| &server.forwarding.upstreams);
    let upstreams = upstreams.map(|(zone, servers)| {
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        (zone.to_string().trim_end_matches('.').to_owned(), servers)
    });
    let mut zone_resolvers: BTreeMap<String, Vec<String>> = upstreams.collect();
    // The root's are for all that is in no other zone.
    let resolvers = zone_resolvers.remove("").unwrap_or_default();
    ConfigTable {
        refresh_seconds: config.mesos.poll_interval.as_secs(),
        port: listen.map_or(0, |listen| listen.port()),
        state_timeout_seconds: config.mesos.timeout.as_secs(),
        http_port: http.map_or(0, |http| http.listen.port()),
        ttl: rules.ttl.secs(),
        srv_weight: rules.srv_weight,
        soa_refresh: secs(|server| server.refresh),
        soa_retry: secs(|server| server.retry),
        soa_expire: secs(|server| server.expire),
        soa_minttl: secs(|server| server.negative_ttl),
        soa_mname,
        soa_rname,
        masters: config.mesos.masters.iter().map(|m| m.endpoint.authority(5050)).collect(),
        external_on: !resolvers.is_empty() || !zone_resolvers.is_empty(),
        zone_resolvers,
        resolvers,
        ip_sources: rules.ip_sources.iter().map(|source| source.word()).collect(),
        zk: config.mesos.ensembles.first().map(ToString::to_string).unwrap_or_default(),
        domain: domain(rules),
        listener: listen.map(|listen| listen.ip().to_string()).unwrap_or_default(),
        http_listener: http.map(|http| http.listen.ip().to_string()).unwrap_or_default(),
        dns_on: server.is_some(),
        http_on: http.is_some(),
        enforce_rfc952: rules.label_rules == LabelRules::Rfc952,
        enumeration_on: true,
        mesos_https_on: config.mesos.masters.iter().any(|m| m.scheme == Scheme::Https),
    }
}
