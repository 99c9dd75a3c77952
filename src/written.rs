//! The configuration as it is written: TOML with its defaults, made into what is valid. Looks at no
//! file but the text it is given.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::cluster::{Endpoint, Visibility};
use crate::config::{
    Auth, Config, ConfigError, Election, Http, Mesos, RrsetMax, Secret, Server, Target, Tls,
    Transfer, Trust,
};
use crate::fence::{DOMAIN_MAX, Owner};
use crate::forwarding::Forwarding;
use crate::glob::Glob;
use crate::mark::Shrink;
use crate::name::Name;
use crate::network::Network;
use crate::records::{IpSource, LabelRules, Rules, Unhealthy};
use crate::rr::Ttl;
use crate::scope::{Pattern, Scope, Space};
use crate::selection::Selection;
use crate::setting::{
    CertificateName, Clients, Domain, Interval, IpSources, Percentage, ReverseZone, Scheme,
    Secondary, Seconds, ServerAddress, Span, Text, Transport, Upstream, Watch, Way, Word,
};

impl Config {
    /// Reads a configuration.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let raw: Raw = toml::from_str(text)?;
        let zone = raw.zone;
        let reverse: Vec<Name> = zone.reverse.into_iter().map(|zone| zone.0).collect();
        check_apart(&reverse, &zone.domain.0)?;
        let task_label = Some(zone.task_label).filter(|key| !key.is_empty());
        let rules = Rules {
            domain: zone.domain.0,
            ttl: Ttl::from_secs(zone.ttl.0.as_secs() as u32), // Bounded where it is read.
            ip_sources: zone.ip_sources.0,
            label_rules: zone.label_rules.0,
            srv_weight: zone.srv_weight,
            unhealthy: zone.unhealthy.0,
            reverse,
            selection: zone.frameworks.check(zone.visibility)?,
        };
        let (owner, election) = raw.ha.check(&rules.domain)?;
        let mut targets = Vec::with_capacity(raw.target.len());
        let place =
            Place { domain: &rules.domain, owner: &owner, space: space(task_label.as_ref()) };
        for target in raw.target {
            targets.push(target.check(&place, &rules.reverse, zone.hold_down.0)?);
        }
        check_distinct(&targets)?;
        let server =
            raw.server.map(|server| server.check(&rules.domain, &rules.reverse)).transpose()?;
        if election.is_some() && targets.is_empty() {
            return Err(ConfigError::ElectionWithoutTarget);
        }
        let (mesos, hold_down) = (raw.mesos.check(task_label)?, zone.hold_down.0);
        let http = raw.http.map(RawHttp::check).transpose()?;
        Ok(Config { mesos, rules, hold_down, owner, election, targets, server, http })
    }
}

/// Each zone has its own fence, so none may be within another.
fn check_apart(reverse: &[Name], domain: &Name) -> Result<(), ConfigError> {
    let meet = |a: &Name, b: &Name| a.is_within(b) || b.is_within(a);
    for (at, zone) in reverse.iter().enumerate() {
        if let Some(other) = reverse[..at].iter().find(|other| meet(zone, other)) {
            return Err(ConfigError::NestedReverse(other.clone(), zone.clone()));
        }
        if meet(zone, domain) {
            let (reverse, domain) = (zone.clone(), domain.clone());
            return Err(ConfigError::ReverseAndDomain { reverse, domain });
        }
    }
    Ok(())
}

/// What of the domain's zone is ours.
fn space(task_label: Option<&String>) -> Space {
    if task_label.is_some() { Space::Within } else { Space::Below }
}

fn check_distinct(targets: &[Target]) -> Result<(), ConfigError> {
    let mut names = HashSet::new();
    if let Some(twice) = targets.iter().find(|target| !names.insert(&target.name)) {
        return Err(ConfigError::SameName(twice.name.clone()));
    }
    for (at, target) in targets.iter().enumerate() {
        let same = |other: &&Target| {
            other.server == target.server
                && other.scope.zone == target.scope.zone
                && other.update_key == target.update_key
        };
        if let Some(twin) = targets[..at].iter().find(same) {
            return Err(ConfigError::SameTarget(twin.name.clone(), target.name.clone()));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    mesos: RawMesos,
    #[serde(default)]
    zone: RawZone,
    #[serde(default)]
    target: Vec<RawTarget>,
    server: Option<RawServer>,
    http: Option<RawHttp>,
    #[serde(default)]
    ha: RawHa,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMesos {
    masters: Vec<Text<Way>>,
    zk_auth_file: Option<PathBuf>,
    zk_auth_env: Option<String>,
    #[serde(default = "by_stream")]
    watch: Text<Watch>,
    #[serde(default = "every::<10>")]
    poll_interval: Text<Interval>,
    #[serde(default = "every::<300>")]
    reconcile_interval: Text<Interval>,
    #[serde(default = "secs::<600>")]
    failover_hold: Text<Span>,
    #[serde(default = "every::<30>")]
    timeout: Text<Interval>,
    auth: Option<RawAuth>,
    #[serde(default)]
    tls: Tls,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuth {
    principal: Option<String>,
    secret_file: Option<PathBuf>,
    secret_env: Option<String>,
    header_file: Option<PathBuf>,
    header_env: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawZone {
    domain: Text<Domain>,
    ttl: Text<Seconds>,
    ip_sources: IpSources,
    label_rules: Text<LabelRules>,
    srv_weight: u16,
    unhealthy: Text<Unhealthy>,
    hold_down: Text<Span>,
    reverse: Vec<Text<ReverseZone>>,
    task_label: String,
    visibility: Vec<Text<Visibility>>,
    frameworks: RawFrameworks,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawFrameworks {
    include: Option<Vec<Text<Glob>>>,
    exclude: Vec<Text<Glob>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    name: String,
    server: Text<ServerAddress>,
    zone: Option<Text<Domain>>,
    #[serde(default = "by_tcp")]
    transport: Text<Transport>,
    ca_file: Option<PathBuf>,
    tls_name: Option<Text<CertificateName>>,
    tsig_key_file: Option<PathBuf>,
    tsig_key_env: Option<String>,
    transfer_key_file: Option<PathBuf>,
    transfer_key_env: Option<String>,
    #[serde(default)]
    protect: Vec<Text<Pattern>>,
    #[serde(default = "a_fifth")]
    max_shrink: Text<Percentage>,
    #[serde(default = "twenty")]
    max_shrink_floor: usize,
    #[serde(default = "every::<10>")]
    check_interval: Text<Interval>,
    #[serde(default = "millis::<100>")]
    batch_window: Text<Span>,
    #[serde(default)]
    rrset_max: RrsetMax,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawServer {
    listen: Vec<SocketAddr>,
    #[serde(default)]
    ns: BTreeMap<String, Vec<IpAddr>>,
    #[serde(default)]
    soa: RawSoa,
    #[serde(default)]
    forward: Vec<Text<Upstream>>,
    #[serde(default)]
    forward_zones: BTreeMap<String, Vec<Text<Upstream>>>,
    #[serde(default = "private")]
    from: Vec<Text<Clients>>,
    #[serde(default = "a_thousand")]
    rate_limit: u32,
    transfer: Option<RawTransfer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTransfer {
    #[serde(default)]
    secondaries: Vec<Text<Secondary>>,
    tsig_key_file: Option<PathBuf>,
    tsig_key_env: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawSoa {
    rname: Option<Text<Domain>>,
    refresh: Text<Seconds>,
    retry: Text<Seconds>,
    expire: Text<Seconds>,
    negative_ttl: Text<Seconds>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    #[serde(default = "loopback")]
    listen: SocketAddr,
    token_file: Option<PathBuf>,
    token_env: Option<String>,
}

impl RawHttp {
    fn check(self) -> Result<Http, ConfigError> {
        let token = secret(self.token_file, self.token_env).map_err(|()| ConfigError::TwoTokens)?;
        Ok(Http { listen: self.listen, token })
    }
}

/// The port of mesos-dns.
fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 8123).into()
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawHa {
    owner: Option<Text<Owner>>,
    election: Option<Text<Way>>,
    election_auth_file: Option<PathBuf>,
    election_auth_env: Option<String>,
}

impl Default for RawZone {
    fn default() -> RawZone {
        RawZone {
            domain: Text(Domain::default().0),
            ttl: seconds(60),
            ip_sources: IpSources(vec![IpSource::Netinfo, IpSource::Mesos, IpSource::Host]),
            label_rules: Text(LabelRules::Rfc1123),
            srv_weight: 1,
            unhealthy: Text(Unhealthy::Withhold),
            hold_down: Text(Duration::from_secs(30)),
            reverse: Vec::new(),
            task_label: String::new(),
            visibility: Vec::new(),
            frameworks: RawFrameworks::default(),
        }
    }
}

impl Default for RawSoa {
    fn default() -> RawSoa {
        RawSoa {
            rname: None,
            refresh: seconds(60),
            retry: seconds(600),
            expire: seconds(86_400),
            negative_ttl: seconds(10),
        }
    }
}

impl RawMesos {
    fn check(self, task_label: Option<String>) -> Result<Mesos, ConfigError> {
        if self.masters.is_empty() {
            return Err(ConfigError::NoMaster);
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            return Err(ConfigError::HalfCertificate);
        }
        let (mut masters, mut ensembles) = (Vec::new(), Vec::new());
        for way in self.masters {
            match way.0 {
                Way::Master(master) => masters.push(master),
                Way::Ensemble(ensemble) => ensembles.push(ensemble),
                Way::Password => return Err(ConfigError::Password),
            }
        }
        let https = masters.iter().any(|master| master.scheme == Scheme::Https);
        if https && self.tls.ca_file.is_none() {
            return Err(ConfigError::NoCa);
        }
        let zk_auth = secret(self.zk_auth_file, self.zk_auth_env);
        Ok(Mesos {
            masters,
            ensembles,
            zk_auth: zk_auth.map_err(|()| ConfigError::TwoZkAuths)?,
            watch: self.watch.0,
            poll_interval: self.poll_interval.0,
            reconcile_interval: self.reconcile_interval.0,
            failover_hold: self.failover_hold.0,
            timeout: self.timeout.0,
            auth: self.auth.map(RawAuth::check).transpose()?,
            tls: self.tls,
            task_label: task_label.map(Arc::from),
        })
    }
}

/// The one of two places that is given; an error when both are.
fn secret(file: Option<PathBuf>, env: Option<String>) -> Result<Option<Secret>, ()> {
    match (file, env) {
        (Some(_), Some(_)) => Err(()),
        (Some(path), None) => Ok(Some(Secret::File(path))),
        (None, Some(name)) => Ok(Some(Secret::Env(name))),
        (None, None) => Ok(None),
    }
}

impl RawAuth {
    fn check(self) -> Result<Auth, ConfigError> {
        let basic = secret(self.secret_file, self.secret_env).map_err(|()| ConfigError::Auth)?;
        let header = secret(self.header_file, self.header_env).map_err(|()| ConfigError::Auth)?;
        match (self.principal, basic, header) {
            (Some(principal), Some(secret), None) => Ok(Auth::Basic { principal, secret }),
            (None, None, Some(header)) => Ok(Auth::Header(header)),
            _ => Err(ConfigError::Auth),
        }
    }
}

impl RawFrameworks {
    fn check(self, visibility: Vec<Text<Visibility>>) -> Result<Selection, ConfigError> {
        let globs = |texts: Vec<Text<Glob>>| texts.into_iter().map(|glob| glob.0).collect();
        let include: Vec<Glob> = self.include.map_or_else(|| vec![Glob::all()], globs);
        if include.is_empty() {
            return Err(ConfigError::NothingIncluded);
        }
        let visibility = visibility.into_iter().map(|text| text.0).collect();
        Ok(Selection { visibility, include, exclude: globs(self.exclude) })
    }
}

/// What the targets of a configuration have in common.
struct Place<'c> {
    domain: &'c Name,
    owner: &'c Owner,
    space: Space,
}

impl RawTarget {
    /// Whom to trust, where TLS is wanted.
    fn trust(&mut self) -> Result<Option<Trust>, ConfigError> {
        let target = || self.name.clone();
        let name = self.tls_name.take().map(|name| name.0);
        match (self.transport.0, self.ca_file.take()) {
            (Transport::Tcp, None) if name.is_none() => Ok(None),
            (Transport::Tcp, _) => Err(ConfigError::NoTls(target())),
            (Transport::Tls, None) => Err(ConfigError::NoTargetCa(target())),
            (Transport::Tls, Some(ca_file)) => {
                let host = self.server.0.host.to_string();
                let name = name.map_or_else(|| CertificateName::read(&host), Ok);
                let name =
                    name.map_err(|_| ConfigError::NoCertificateName { target: target(), host })?;
                Ok(Some(Trust { ca_file, name }))
            }
        }
    }

    fn check(
        mut self,
        place: &Place<'_>,
        reverse: &[Name],
        hold_down: Duration,
    ) -> Result<Target, ConfigError> {
        let Place { domain, owner, .. } = *place;
        let tls = self.trust()?;
        let port = self.server.0.port.or(Some(self.transport.0.port()));
        let name = self.name;
        let zone = self.zone.map_or_else(|| domain.clone(), |zone| zone.0);
        let space = if reverse.contains(&zone) { Space::Reverse } else { place.space };
        if space != Space::Reverse && !domain.is_within(&zone) {
            let domain = domain.clone();
            return Err(ConfigError::ZoneElsewhere { target: name, zone, domain });
        }
        if space == Space::Reverse && domain.to_string().len() > DOMAIN_MAX {
            return Err(ConfigError::DomainTooLong { target: name, domain: domain.clone() });
        }
        let protect: Vec<Pattern> = self.protect.into_iter().map(|pattern| pattern.0).collect();
        if let Some(outside) = protect.iter().find(|pattern| !pattern.is_within(&zone)) {
            let pattern = outside.to_string();
            return Err(ConfigError::ProtectElsewhere { target: name, pattern, zone });
        }
        let update_key = secret(self.tsig_key_file, self.tsig_key_env).ok().flatten();
        let update_key = update_key.ok_or_else(|| ConfigError::NoKey(name.clone()))?;
        let transfer_key = secret(self.transfer_key_file, self.transfer_key_env)
            .map_err(|()| ConfigError::TwoTransferKeys(name.clone()))?;
        Ok(Target {
            server: Endpoint { port, ..self.server.0 },
            tls,
            scope: Scope { zone, domain: domain.clone(), owner: owner.clone(), protect, space },
            transfer_key: transfer_key.unwrap_or_else(|| update_key.clone()),
            update_key,
            shrink: Shrink { percent_max: self.max_shrink.0, floor: self.max_shrink_floor },
            hold_down,
            check_interval: self.check_interval.0,
            batch_window: self.batch_window.0,
            rrset_max: self.rrset_max,
            name,
        })
    }
}

impl RawHa {
    fn check(self, domain: &Name) -> Result<(Owner, Option<Election>), ConfigError> {
        let owner = self.owner.map_or_else(|| Owner::of_domain(domain), |owner| owner.0);
        let auth = secret(self.election_auth_file, self.election_auth_env);
        let auth = auth.map_err(|()| ConfigError::TwoElectionAuths)?;
        let election = match (self.election.map(|way| way.0), auth) {
            (None, None) => None,
            (None, Some(_)) => return Err(ConfigError::AuthWithoutElection),
            (Some(Way::Ensemble(ensemble)), auth) => Some(Election { ensemble, auth }),
            (Some(Way::Password), _) => return Err(ConfigError::ElectionPassword),
            (Some(Way::Master(_)), _) => return Err(ConfigError::NoEnsemble),
        };
        Ok((owner, election))
    }
}

impl RawServer {
    fn check(self, domain: &Name, reverse: &[Name]) -> Result<Server, ConfigError> {
        if self.listen.is_empty() {
            return Err(ConfigError::NoListen);
        }
        let given = self.ns.into_iter().map(|(name, addresses)| {
            let name: Name = name.parse().map_err(<toml::de::Error as de::Error>::custom)?;
            Ok((name, addresses))
        });
        let mut name_servers: BTreeMap<Name, Vec<IpAddr>> =
            given.collect::<Result<_, ConfigError>>()?;
        let ns1 = domain.child(b"ns1").map_err(<toml::de::Error as de::Error>::custom)?;
        if name_servers.is_empty() {
            let addresses = self.listen.iter().map(SocketAddr::ip);
            let addresses = addresses.filter(|address| !address.is_unspecified()).collect();
            name_servers.insert(ns1.clone(), addresses);
        }
        let ours: Vec<Name> = [domain].into_iter().chain(reverse).cloned().collect();
        let forwarding = forwarding(self.forward, self.forward_zones, self.from, &ours)?;
        if let Some(upstream) = forwarding.own_address(&self.listen) {
            return Err(ConfigError::ForwardToItself(upstream));
        }
        let root = ns1.child(b"root").map_err(<toml::de::Error as de::Error>::custom)?;
        Ok(Server {
            listen: self.listen,
            name_servers,
            rname: self.soa.rname.map_or(root, |rname| rname.0),
            refresh: self.soa.refresh.0,
            retry: self.soa.retry.0,
            expire: self.soa.expire.0,
            negative_ttl: self.soa.negative_ttl.0,
            forwarding,
            rate_limit: NonZeroU32::new(self.rate_limit),
            transfer: self.transfer.map(RawTransfer::check).transpose()?,
        })
    }
}

/// Where other names are asked for, `ours` being the zones that are answered here.
fn forwarding(
    forward: Vec<Text<Upstream>>,
    zones: BTreeMap<String, Vec<Text<Upstream>>>,
    from: Vec<Text<Clients>>,
    ours: &[Name],
) -> Result<Forwarding, ConfigError> {
    let mut upstreams = BTreeMap::new();
    for (zone, servers) in zones {
        let zone: Name = zone.parse().map_err(|error| {
            let wrong = format!("[server] forward_zones: {zone:?} is no domain name: {error}");
            <toml::de::Error as de::Error>::custom(wrong)
        })?;
        let meets = |ours: &&Name| zone.is_within(ours) || ours.is_within(&zone);
        if let Some(ours) = ours.iter().find(meets).cloned() {
            return Err(ConfigError::ForwardedZone { zone, ours });
        }
        if servers.is_empty() {
            return Err(ConfigError::NoUpstream(zone));
        }
        let servers: Vec<SocketAddr> = servers.into_iter().map(|server| server.0).collect();
        if upstreams.insert(zone.clone(), servers).is_some() {
            return Err(ConfigError::ForwardedTwice(zone));
        }
    }
    if !forward.is_empty() {
        let servers = forward.into_iter().map(|server| server.0).collect();
        upstreams.insert(Name::root(), servers);
    }
    let clients: Vec<_> = from.into_iter().flat_map(|networks| networks.0).collect();
    match clients.is_empty() {
        true => Err(ConfigError::NoClients),
        false => Ok(Forwarding { upstreams, clients }),
    }
}

impl RawTransfer {
    fn check(self) -> Result<Transfer, ConfigError> {
        let key = secret(self.tsig_key_file, self.tsig_key_env);
        let key = key.map_err(|()| ConfigError::TwoServerKeys)?;
        let secondaries: Vec<SocketAddr> = self.secondaries.into_iter().map(|at| at.0).collect();
        match secondaries.is_empty() && key.is_none() {
            true => Err(ConfigError::NobodyToTransferTo),
            false => Ok(Transfer { secondaries, key }),
        }
    }
}

impl<'de> Deserialize<'de> for RrsetMax {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RrsetMax, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(usize),
            Text(String),
        }
        match Either::deserialize(from) {
            Ok(Either::Number(0)) => Ok(RrsetMax::Never),
            Ok(Either::Number(max)) => Ok(RrsetMax::At(max)),
            Ok(Either::Text(text)) if text == "auto" => Ok(RrsetMax::Auto),
            _ => Err(de::Error::custom("rrset_max is \"auto\" or a number, 0 to cut nothing")),
        }
    }
}

fn seconds(count: u64) -> Text<Seconds> {
    Text(Duration::from_secs(count))
}

fn secs<const COUNT: u64>() -> Text<Span> {
    Text(Duration::from_secs(COUNT))
}

fn a_fifth() -> Text<Percentage> {
    Text(Some(20))
}

fn private() -> Vec<Text<Clients>> {
    vec![Text(Network::PRIVATE.to_vec())]
}

fn a_thousand() -> u32 {
    1_000
}

fn twenty() -> usize {
    20
}

fn by_tcp() -> Text<Transport> {
    Text(Transport::Tcp)
}

fn by_stream() -> Text<Watch> {
    Text(Watch::Stream)
}

fn every<const COUNT: u64>() -> Text<Interval> {
    Text(Duration::from_secs(COUNT))
}

fn millis<const COUNT: u64>() -> Text<Span> {
    Text(Duration::from_millis(COUNT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[mesos]\nmasters = [\"http://10.0.0.1:5050\"]\n";

    fn target(more: &str) -> String {
        format!(
            "{LEAST}[[target]]\nname = \"bind\"\nserver = \"10.0.0.53\"\ntsig_key_file = \"k\"\n{more}"
        )
    }

    #[track_caller]
    fn check_refused(text: &str, part: &str) {
        let error = Config::parse(text).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn defaults_are_those_of_the_documents() {
        let config = Config::parse(&target("")).unwrap();
        assert_eq!(config.rules.domain.to_string(), "mesos.");
        assert_eq!(config.rules.ttl, Ttl::from_secs(60));
        assert_eq!(config.rules.unhealthy, Unhealthy::Withhold);
        assert_eq!(config.owner.to_string(), "mesos");
        assert_eq!(config.mesos.failover_hold, Duration::from_secs(600));
        let target = &config.targets[0];
        assert_eq!(target.server.port, Some(53));
        assert_eq!(target.scope.zone.to_string(), "mesos.");
        assert_eq!(target.transfer_key, Secret::File("k".into()));
        assert_eq!(target.rrset_max, RrsetMax::Auto);
        assert_eq!(target.shrink, Shrink { percent_max: Some(20), floor: 20 });
        assert_eq!(config.hold_down, Duration::from_secs(30));
        let server =
            Config::parse(&format!("{LEAST}[server]\nlisten = [\"127.0.0.1:53\"]")).unwrap();
        let server = server.server.unwrap();
        assert_eq!(server.rname.to_string(), "root.ns1.mesos.");
        assert_eq!(server.name_servers.keys().next().unwrap().to_string(), "ns1.mesos.");
    }

    fn server(more: &str) -> String {
        format!("{LEAST}[server]\nlisten = [\"10.0.0.2:53\"]\n{more}\n")
    }

    #[test]
    fn other_names_are_refused_or_forwarded() {
        let read = |more: &str| Config::parse(&server(more)).unwrap().server.unwrap();
        let none = read("");
        assert!(none.forwarding.is_off());
        assert_eq!(none.forwarding.clients, Network::PRIVATE);
        assert_eq!(none.rate_limit, NonZeroU32::new(1000));
        assert_eq!(read("rate_limit = 0").rate_limit, None);
        let some = read(
            "forward = [\"10.0.0.3\", \"[2001:db8::3]\", \"10.0.0.2:5353\"]\n\
             forward_zones = { \"Weave\" = [\"172.17.0.1:54\"] }\n\
             from = [\"10.0.0.0/8\", \"any\"]",
        );
        let shown: Vec<String> = some
            .forwarding
            .upstreams
            .iter()
            .map(|(zone, servers)| format!("{zone} {servers:?}"))
            .collect();
        let root = ". [10.0.0.3:53, [2001:db8::3]:53, 10.0.0.2:5353]";
        assert_eq!(shown, [root, "weave. [172.17.0.1:54]"]);
        let from = ["10.0.0.0/8", "0.0.0.0/0", "::/0"];
        assert_eq!(some.forwarding.clients, from.map(|network| network.parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_forwarded_is_told() {
        let refused = |more: &str, part: &str| check_refused(&server(more), part);
        let zone = |zone: &str| format!("forward_zones = {{ \"{zone}\" = [\"10.0.0.3\"] }}");
        refused(&zone("mesos"), "mesos. is the zone mesos., inside it or above it");
        refused(&zone("a.MESOS."), "a.mesos. is the zone mesos., inside it or above it");
        let above = server(&zone("example"))
            .replace("[server]", "[zone]\ndomain = \"m.example\"\n[server]");
        check_refused(&above, "example. is the zone m.example., inside it or above it");
        refused(&zone("."), ". is the zone mesos., inside it or above it");
        refused(&zone("a..b"), "is no domain name");
        refused("forward_zones = { \"a\" = [] }", "a. needs at least one server");
        let twice = "forward_zones = { \"a\" = [\"10.0.0.3\"], \"A\" = [\"10.0.0.4\"] }";
        refused(twice, "a. is there twice");
        refused("forward = [\"10.0.0.2\"]", "10.0.0.2:53 is this server itself");
        refused("forward = [\"::ffff:10.0.0.2\"]", "is this server itself");
        refused("forward_zones = { \"a\" = [\"10.0.0.2:53\"] }", "is this server itself");
        refused("forward = [\"ns.example\"]", "is no address: write it as 10.0.0.2");
        refused("forward = [\"10.0.0.3:0\"]", "is the address of no server");
        refused("forward = [\"0.0.0.0\"]", "is the address of no server");
        refused("from = []", "at least one network");
        refused("from = [\"intern\"]", "or \"private\" or \"any\"");
        refused("from = [\"10.0.0.1/8\"]", "write the network as 10.0.0.0/8");
        refused("rate_limit = -1", "rate_limit");
        let wildcard = |more: &str| server(more).replace("10.0.0.2:53", "0.0.0.0:53");
        check_refused(&wildcard("forward = [\"127.0.0.1\"]"), "is this server itself");
        Config::parse(&wildcard("forward = [\"127.0.0.53\", \"::1\"]")).unwrap();
    }

    #[test]
    fn tls_to_a_target_needs_an_authority_and_has_its_own_port() {
        let by_tls =
            |more: &str| target(&format!("transport = \"tls\"\nca_file = \"ca.pem\"\n{more}"));
        let trust = |text: &str| {
            let target = Config::parse(text).unwrap().targets.remove(0);
            (target.server.port.unwrap(), target.tls.unwrap().name.to_str().into_owned())
        };
        assert_eq!(trust(&by_tls("")), (853, "10.0.0.53".to_owned()));
        let named = by_tls("tls_name = \"ns1.example.\"");
        assert_eq!(trust(&named), (853, "ns1.example".to_owned()));
        let elsewhere = by_tls("").replace("10.0.0.53", "ns2.example:54");
        assert_eq!(trust(&elsewhere), (54, "ns2.example".to_owned()));
        let ipv6 = by_tls("").replace("10.0.0.53", "[2001:db8::53]");
        assert_eq!(trust(&ipv6), (853, "2001:db8::53".to_owned()));
        check_refused(&target("transport = \"tls\""), "needs ca_file");
        check_refused(&target("ca_file = \"ca.pem\""), "are for transport = \"tls\"");
        check_refused(&target("tls_name = \"ns1.example\""), "are for transport = \"tls\"");
        check_refused(&target("transport = \"udp\""), "neither \"tcp\" nor \"tls\"");
        check_refused(&by_tls("tls_name = \"a b\""), "write a host name or an IP address");
        check_refused(&by_tls("").replace("10.0.0.53", "ns 1"), "give tls_name");
    }

    #[test]
    fn transfers_are_for_addresses_or_a_key_or_both() {
        let with = |transfer: &str| {
            format!("{LEAST}[server]\nlisten = [\"127.0.0.1:53\"]\ntransfer = {{ {transfer} }}\n")
        };
        let read = |transfer: &str| {
            let server = Config::parse(&with(transfer)).unwrap().server.unwrap();
            let Transfer { secondaries, key } = server.transfer.unwrap();
            let secondaries: Vec<String> = secondaries.iter().map(ToString::to_string).collect();
            (secondaries.join(" "), key.map(|key| key.to_string()))
        };
        let listed = "secondaries = [\"10.0.0.53\", \"[2001:db8::53]:54\"]";
        assert_eq!(read(listed), ("10.0.0.53:53 [2001:db8::53]:54".to_owned(), None));
        assert_eq!(read("tsig_key_env = \"K\""), (String::new(), Some("$K".to_owned())));
        assert_eq!(read(&format!("{listed}, tsig_key_file = \"k\"")).1, Some("k".to_owned()));
        check_refused(&with(""), "give secondaries");
        check_refused(&with("secondaries = [\"ns2.example\"]"), "write it as 10.0.0.53");
        check_refused(&with("tsig_key_file = \"k\", tsig_key_env = \"K\""), "not both");
    }

    #[test]
    fn masters_are_named_or_found_by_zookeeper() {
        let text = "[mesos]\nmasters = [\"zk://a,b/mesos/\"]\nzk_auth_file = \"zk\"\n";
        let mesos = Config::parse(text).unwrap().mesos;
        assert!(mesos.masters.is_empty());
        assert_eq!(mesos.ensembles[0].to_string(), "zk://a:2181,b:2181/mesos");
        assert_eq!(mesos.zk_auth, Some(Secret::File("zk".into())));
        let mixed = "[mesos]\nmasters = [\"http://10.0.0.1\", \"zk://a/mesos\", \"10.0.0.2\"]\n";
        let mesos = Config::parse(mixed).unwrap().mesos;
        assert_eq!((mesos.masters.len(), mesos.ensembles.len()), (2, 1));
        assert_eq!(mesos.zk_auth, None);
    }

    #[test]
    fn a_password_in_an_ensemble_is_refused_and_not_repeated() {
        let text = "[mesos]\nmasters = [\"zk://dns:hunter2@a:2181/mesos\"]\n";
        check_refused(text, "zk_auth_file");
        assert!(!Config::parse(text).unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn an_election_is_in_zookeeper_and_for_targets() {
        let with = |ha: &str| target(&format!("[ha]\n{ha}\n"));
        let zk = "election = \"zk://a,b:2182/mesozone\"";
        let config = Config::parse(&with(&format!("{zk}\nelection_auth_env = \"E\""))).unwrap();
        let election = config.election.unwrap();
        assert_eq!(election.ensemble.to_string(), "zk://a:2181,b:2182/mesozone");
        assert_eq!(election.auth, Some(Secret::Env("E".to_owned())));
        assert!(Config::parse(&with(zk)).unwrap().election.unwrap().auth.is_none());
        let none = format!("{LEAST}[server]\nlisten = [\"127.0.0.1:53\"]\n[ha]\n{zk}\n");
        check_refused(&none, "no [[target]]");
        check_refused(&with("election_auth_file = \"f\""), "there is none");
        let both = "election_auth_file = \"f\"\nelection_auth_env = \"E\"";
        check_refused(&with(&format!("{zk}\n{both}")), "not both");
        check_refused(&with("election = \"http://a:2181\""), "zk://10.0.0.1:2181");
        check_refused(&with("election = \"zk://a\""), "has no path");
        let password = with("election = \"zk://dns:hunter2@a/mesozone\"");
        check_refused(&password, "election_auth_file");
        assert!(!Config::parse(&password).unwrap_err().to_string().contains("hunter2"));
    }

    fn zone(lines: &str, more: &str) -> String {
        target(&format!("{more}\n[zone]\n{lines}\n"))
    }

    #[test]
    fn a_target_whose_zone_is_a_reverse_zone_publishes_pointers() {
        let reverse = "reverse = [\"10.in-addr.arpa\", \"d.f.ip6.arpa\"]";
        let text =
            zone(reverse, "zone = \"10.IN-ADDR.ARPA.\"\nprotect = [\"1.0.0.10.in-addr.arpa\"]");
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.rules.reverse.len(), 2);
        let scope = &config.targets[0].scope;
        assert_eq!(
            (scope.space, scope.zone.to_string()),
            (Space::Reverse, "10.in-addr.arpa.".into())
        );
        assert_eq!(Config::parse(&zone(reverse, "")).unwrap().targets[0].scope.space, Space::Below);
        check_refused(
            &zone(reverse, "zone = \"168.192.in-addr.arpa\""),
            "nor one of [zone] reverse",
        );
        check_refused(&zone("reverse = [\"mesos\"]", ""), "is no reverse zone");
        check_refused(&zone("reverse = [\"in-addr.arpa\"]", ""), "line 9");
        for nested in
            ["10.in-addr.arpa\", \"1.10.in-addr.arpa", "10.in-addr.arpa\", \"10.in-addr.arpa"]
        {
            check_refused(&zone(&format!("reverse = [\"{nested}\"]"), ""), "within one another");
        }
        let inside = "reverse = [\"10.in-addr.arpa\"]\ndomain = \"m.10.in-addr.arpa\"";
        check_refused(&zone(inside, ""), "and the domain m.10.in-addr.arpa. are within");
        let long =
            format!("{reverse}\ndomain = \"{}\"", ["a".repeat(50), "b".repeat(50)].join("."));
        check_refused(&zone(&long, "zone = \"d.f.ip6.arpa\""), "too long for a fence");
    }

    #[test]
    fn what_has_names_is_chosen_by_visibility_framework_and_label() {
        let config = |lines: &str| Config::parse(&zone(lines, "")).unwrap();
        let chosen = config("task_label = \"dns\"");
        assert_eq!(chosen.mesos.task_label.as_deref(), Some("dns"));
        assert_eq!(chosen.targets[0].scope.space, Space::Within);
        assert_eq!(config("task_label = \"\"").mesos.task_label, None);
        let visible = config("visibility = [\"CLUSTER\", \"EXTERNAL\"]").rules.selection;
        assert_eq!(visible.visibility, [Visibility::Cluster, Visibility::External]);
        let every = config("frameworks = { include = [\"*\"], exclude = [] }").rules.selection;
        assert_eq!(every, config("").rules.selection, "the defaults");
        check_refused(
            &zone("visibility = [\"PUBLIC\"]", ""),
            "none of FRAMEWORK, CLUSTER, EXTERNAL",
        );
        check_refused(&zone("frameworks = { include = [] }", ""), "at least one pattern");
        check_refused(&zone("frameworks = { exclude = [\"dev-?\"] }", ""), "only * stands for");
        check_refused(&zone("frameworks = { exclude = [\"\"] }", ""), "an empty pattern");
        check_refused(&zone("frameworks = { only = [] }", ""), "unknown field");
    }

    #[test]
    fn an_unknown_key_is_told_with_its_place_and_the_nearest_known_one() {
        let text = format!("{LEAST}[zone]\ndomian = \"mesos\"\n");
        check_refused(&text, "line 4, column 1");
        check_refused(&text, "did you mean `domain`?");
    }

    #[test]
    fn bad_values_are_told_where_they_stand() {
        check_refused(&format!("{LEAST}[zone]\nttl = \"soon\"\n"), "line 4");
        check_refused(&format!("{LEAST}[zone]\nttl = \"100ms\"\n"), "whole seconds");
        check_refused(&format!("{LEAST}[zone]\nip_sources = []\n"), "at least one");
        check_refused("[mesos]\nmasters = []\n", "at least one");
        check_refused("[mesos]\nmasters = [\"zk://a\"]\n", "line 2, column 11");
        check_refused("[mesos]\nmasters = [\"zk://a/\"]\n", "has no path");
        check_refused(&format!("{LEAST}zk_auth_file = \"f\"\nzk_auth_env = \"E\"\n"), "not both");
        check_refused("[mesos]\nmasters = [\"ftp://a\"]\n", "http://10.0.0.1:5050");
        check_refused(&target("rrset_max = \"some\""), "rrset_max");
        check_refused(&target("check_interval = \"0s\""), "longer than 0s");
        check_refused(&target("max_shrink = \"101%\""), "is no share");
        check_refused(&target("max_shrink = 20"), "line");
        assert_eq!(
            Config::parse(&target("max_shrink = \"off\"")).unwrap().targets[0].shrink.percent_max,
            None
        );
        check_refused(&target("zone = \"example\""), "neither the domain");
        check_refused(&target("zone = \"10.in-addr.arpa\""), "nor one of [zone] reverse");
        check_refused(&target("protect = [\"ns1.example\"]"), "not inside the zone");
        check_refused(&target("tsig_key_env = \"K\""), "one of them");
        let other = "[[target]]\nname = \"b\"\nserver = \"10.0.0.53:53\"\ntsig_key_file = \"k\"\n";
        check_refused(&target(other), "one server, zone and key");
        check_refused(&target(&other.replace("\"b\"", "\"bind\"")), "two targets");
        check_refused(
            &format!("{LEAST}auth = {{ principal = \"p\" }}\n"),
            "principal and secret_file",
        );
    }
}
