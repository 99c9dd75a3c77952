//! How single values of the configuration are written: each a text that is read into its type.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::{Deserialize, Deserializer, de};

use crate::cluster::{Endpoint, Visibility};
use crate::fence::Owner;
use crate::glob::Glob;
use crate::name::Name;
use crate::network::Network;
use crate::records::{IpSource, LabelRules, Unhealthy};
use crate::reverse;
use crate::scope::Pattern;

const ZK_PORT: u16 = 2181;

/// One master's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Master {
    pub scheme: Scheme,
    pub endpoint: Endpoint,
}

/// How the cluster is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// By the events of `/api/v1`, and by polls of what they do not tell.
    Stream,
    /// By reading `/state` again and again.
    Poll,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    Http,
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Scheme::Http { "http" } else { "https" })
    }
}

/// A ZooKeeper ensemble, and the node below which the masters stand for election.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ensemble {
    /// At least one; their ports are always there.
    pub servers: Vec<Endpoint>,
    /// `/mesos`: absolute, never the root, no slash at its end.
    pub path: String,
}

impl Ensemble {
    /// `10.0.0.1:2181,[2001:db8::2]:2181`, as clients of ZooKeeper take it.
    pub fn connect_string(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(|at| at.authority(ZK_PORT)).collect();
        servers.join(",")
    }
}

impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zk://{}{}", self.connect_string(), self.path)
    }
}

/// One way to find masters.
#[derive(Debug)]
pub(crate) enum Way {
    Master(Master),
    Ensemble(Ensemble),
    /// An ensemble with a password in it: refused later, where the line is not quoted.
    Password,
}

/// A value that is written as a string and read by [`Word::read`].
pub(crate) struct Text<T: Word>(pub(crate) T::Value);

pub(crate) trait Word {
    type Value;
    fn read(text: &str) -> Result<Self::Value, String>;
}

impl<'de, T: Word> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text<T>, D::Error> {
        let text = String::deserialize(from)?;
        T::read(&text).map(Text).map_err(de::Error::custom)
    }
}

/// "10s", "5m", "100ms", "1d", "0s".
pub(crate) struct Span;

impl Word for Span {
    type Value = Duration;
    fn read(text: &str) -> Result<Duration, String> {
        let wrong = || format!("{text:?} is no duration: write it as 100ms, 10s, 5m, 1h or 1d");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let millis = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
    }
}

/// "20%", or "off" for none.
pub(crate) struct Percentage;

impl Word for Percentage {
    type Value = Option<u32>;
    fn read(text: &str) -> Result<Option<u32>, String> {
        let wrong = || format!("{text:?} is no share: write it as \"20%\", or \"off\"");
        match text.strip_suffix('%') {
            None if text == "off" => Ok(None),
            None => Err(wrong()),
            Some(number) => match number.parse() {
                Ok(percent @ 0..=100) => Ok(Some(percent)),
                _ => Err(wrong()),
            },
        }
    }
}

/// A duration above zero: how often something is done.
pub(crate) struct Interval;

impl Word for Interval {
    type Value = Duration;
    fn read(text: &str) -> Result<Duration, String> {
        match Span::read(text)? {
            Duration::ZERO => Err("an interval is longer than 0s".to_owned()),
            interval => Ok(interval),
        }
    }
}

/// A duration of whole seconds that fits a TTL.
pub(crate) struct Seconds;

impl Word for Seconds {
    type Value = Duration;
    fn read(text: &str) -> Result<Duration, String> {
        let span = Span::read(text)?;
        match span.subsec_nanos() == 0 && span.as_secs() <= i32::MAX as u64 {
            true => Ok(span),
            false => Err(format!("{text:?} is not a number of whole seconds below 2^31")),
        }
    }
}

pub(crate) struct Domain(pub(crate) Name);

impl Default for Domain {
    fn default() -> Domain {
        Domain(Name::root().child(b"mesos").expect("one plain label"))
    }
}

impl Word for Domain {
    type Value = Name;
    fn read(text: &str) -> Result<Name, String> {
        match Name::from_str(text) {
            Ok(name) if name.is_root() => Err("the root is no zone of ours".to_owned()),
            Ok(name) => Ok(name),
            Err(error) => Err(format!("{text:?} is no domain name: {error}")),
        }
    }
}

/// A zone in which addresses have names.
pub(crate) struct ReverseZone;

impl Word for ReverseZone {
    type Value = Name;
    fn read(text: &str) -> Result<Name, String> {
        let name = Domain::read(text)?;
        match reverse::is_zone(&name) {
            true => Ok(name),
            false => Err(format!(
                "{text:?} is no reverse zone: write it as 10.in-addr.arpa, or 8.b.d.0.1.0.0.2.ip6.arpa"
            )),
        }
    }
}

impl Word for Visibility {
    type Value = Visibility;
    fn read(text: &str) -> Result<Visibility, String> {
        Visibility::parse(text)
            .ok_or_else(|| format!("{text:?} is none of FRAMEWORK, CLUSTER, EXTERNAL"))
    }
}

impl Word for Glob {
    type Value = Glob;
    fn read(text: &str) -> Result<Glob, String> {
        Glob::parse(text).map_err(|error| format!("{text:?} is no pattern: {error}"))
    }
}

impl Word for Pattern {
    type Value = Pattern;
    fn read(text: &str) -> Result<Pattern, String> {
        Pattern::parse(text).map_err(|error| format!("{text:?} is no name pattern: {error}"))
    }
}

impl Word for Owner {
    type Value = Owner;
    fn read(text: &str) -> Result<Owner, String> {
        Owner::parse(text).map_err(|error| error.to_string())
    }
}

/// A server that questions are forwarded to: an address, port 53 unless given.
pub(crate) struct Upstream;

impl Word for Upstream {
    type Value = SocketAddr;
    fn read(text: &str) -> Result<SocketAddr, String> {
        let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let bare = address.unwrap_or(text).parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
        match bare.or_else(|_| text.parse()) {
            Ok(at) if at.ip().is_unspecified() || at.ip().is_multicast() || at.port() == 0 => {
                Err(format!("{text:?} is the address of no server"))
            }
            Ok(at) => Ok(at),
            Err(_) => Err(format!(
                "{text:?} is no address: write it as 10.0.0.2, 10.0.0.2:53 or [2001:db8::2]:53"
            )),
        }
    }
}

/// Some networks: one that is written out, "private" or "any".
pub(crate) struct Clients;

impl Word for Clients {
    type Value = Vec<Network>;
    fn read(text: &str) -> Result<Vec<Network>, String> {
        match text {
            "private" => Ok(Network::PRIVATE.to_vec()),
            "any" => Ok(Network::ANY.to_vec()),
            _ => match text.parse() {
                Ok(network) => Ok(vec![network]),
                Err(error) => Err(format!("{error}; or \"private\" or \"any\"")),
            },
        }
    }
}

pub(crate) struct ServerAddress;

impl Word for ServerAddress {
    type Value = Endpoint;
    fn read(text: &str) -> Result<Endpoint, String> {
        Endpoint::parse(text)
            .ok_or_else(|| format!("{text:?} is no server: write it as 10.0.0.53:53"))
    }
}

/// Where a secondary answers: "10.0.0.53", or with another port "10.0.0.53:5353", "[2001:db8::53]:5353".
pub(crate) struct Secondary;

impl Word for Secondary {
    type Value = SocketAddr;
    fn read(text: &str) -> Result<SocketAddr, String> {
        let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        address
            .or_else(|_| text.parse())
            .map_err(|_| format!("{text:?} is no address: write it as 10.0.0.53 or 10.0.0.53:5353"))
    }
}

/// What carries the messages to a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Tcp,
    Tls,
}

impl Transport {
    /// The port that is meant when none is given: RFC 9103, section 7.1.
    pub(crate) fn port(self) -> u16 {
        match self {
            Transport::Tcp => 53,
            Transport::Tls => 853,
        }
    }
}

impl Word for Transport {
    type Value = Transport;
    fn read(text: &str) -> Result<Transport, String> {
        match text {
            "tcp" => Ok(Transport::Tcp),
            "tls" => Ok(Transport::Tls),
            _ => Err(format!("{text:?} is neither \"tcp\" nor \"tls\"")),
        }
    }
}

/// What a certificate is for: a host name or an address.
pub(crate) struct CertificateName;

impl Word for CertificateName {
    type Value = ServerName<'static>;
    fn read(text: &str) -> Result<ServerName<'static>, String> {
        // Names in certificates are without the final dot.
        ServerName::try_from(text.strip_suffix('.').unwrap_or(text).to_owned()).map_err(|_| {
            format!("no certificate is for {text:?}: write a host name or an IP address")
        })
    }
}

impl Word for Way {
    type Value = Way;
    fn read(text: &str) -> Result<Way, String> {
        match text.strip_prefix("zk://") {
            Some(rest) if rest.contains('@') => Ok(Way::Password),
            Some(rest) => ensemble(rest).map(Way::Ensemble),
            None => Master::read(text).map(Way::Master),
        }
    }
}

/// What follows `zk://`.
fn ensemble(rest: &str) -> Result<Ensemble, String> {
    let wrong = |what: &str| {
        format!("\"zk://{rest}\" {what}: write it as zk://10.0.0.1:2181,10.0.0.2:2181/mesos")
    };
    let (servers, path) = rest.split_once('/').unwrap_or((rest, ""));
    let server = |text: &str| {
        // Without brackets the port of an IPv6 address could be its last group.
        let bare_ipv6 = text.matches(':').count() > 1 && !text.starts_with('[');
        let endpoint = Endpoint::parse(text).filter(|_| !bare_ipv6)?;
        let port = endpoint.port.unwrap_or(ZK_PORT);
        let spoilt = endpoint.host.to_string().contains(['?', '#', ' ']) || port == 0;
        (!spoilt).then_some(Endpoint { port: Some(port), ..endpoint })
    };
    let servers: Option<Vec<Endpoint>> = servers.split(',').map(server).collect();
    let servers = servers.ok_or_else(|| wrong("names no servers"))?;
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Err(wrong("has no path"));
    }
    // The names that ZooKeeper refuses.
    let refused = |name: &str| ["", ".", ".."].contains(&name) || name.contains(char::is_control);
    match path.split('/').any(refused) {
        true => Err(wrong("has a path that ZooKeeper does not take")),
        false => Ok(Ensemble { servers, path: format!("/{path}") }),
    }
}

impl Word for Master {
    type Value = Master;
    fn read(text: &str) -> Result<Master, String> {
        let wrong = || format!("{text:?} is no master: write it as http://10.0.0.1:5050");
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(_) => return Err(wrong()),
            None => (Scheme::Http, text),
        };
        let endpoint = Endpoint::parse(rest.trim_end_matches('/')).ok_or_else(wrong)?;
        if endpoint.host.to_string().contains(['/', '@', '?', ' ']) {
            return Err(wrong());
        }
        let port = endpoint.port.or(Some(5050));
        Ok(Master { scheme, endpoint: Endpoint { port, ..endpoint } })
    }
}

impl Word for Watch {
    type Value = Watch;
    fn read(text: &str) -> Result<Watch, String> {
        match text {
            "stream" => Ok(Watch::Stream),
            "poll" => Ok(Watch::Poll),
            _ => Err(format!("{text:?} is neither \"stream\" nor \"poll\"")),
        }
    }
}

impl Word for LabelRules {
    type Value = LabelRules;
    fn read(text: &str) -> Result<LabelRules, String> {
        match text {
            "rfc1123" => Ok(LabelRules::Rfc1123),
            "rfc952" => Ok(LabelRules::Rfc952),
            _ => Err(format!("{text:?} is neither \"rfc1123\" nor \"rfc952\"")),
        }
    }
}

impl Word for Unhealthy {
    type Value = Unhealthy;
    fn read(text: &str) -> Result<Unhealthy, String> {
        match text {
            "withhold" => Ok(Unhealthy::Withhold),
            "publish" => Ok(Unhealthy::Publish),
            _ => Err(format!("{text:?} is neither \"withhold\" nor \"publish\"")),
        }
    }
}

impl Word for IpSource {
    type Value = IpSource;
    fn read(text: &str) -> Result<IpSource, String> {
        match text {
            "netinfo" => Ok(IpSource::Netinfo),
            "docker" => Ok(IpSource::Docker),
            "mesos" => Ok(IpSource::Mesos),
            "host" => Ok(IpSource::Host),
            "auto" => Ok(IpSource::Auto),
            _ => Err(format!("{text:?} is none of netinfo, docker, mesos, host, auto")),
        }
    }
}

/// At least one source, none twice.
pub(crate) struct IpSources(pub(crate) Vec<IpSource>);

impl<'de> Deserialize<'de> for IpSources {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<IpSources, D::Error> {
        let sources = Vec::<Text<IpSource>>::deserialize(from)?;
        let sources: Vec<IpSource> = sources.into_iter().map(|source| source.0).collect();
        let twice = (1..sources.len()).any(|at| sources[..at].contains(&sources[at]));
        match sources.is_empty() || twice {
            true => Err(de::Error::custom("ip_sources needs at least one source, none twice")),
            false => Ok(IpSources(sources)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ensemble(text: &str, expected: Result<&str, &str>) {
        match (Way::read(text), expected) {
            (Ok(Way::Ensemble(read)), Ok(expected)) => assert_eq!(read.to_string(), expected),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (read, _) => panic!("{text}: {read:?}"),
        }
    }

    #[test]
    fn an_ensemble_has_servers_and_a_path() {
        check_ensemble("zk://10.0.0.1:2181/mesos", Ok("zk://10.0.0.1:2181/mesos"));
        check_ensemble("zk://a,b:2182,c/mesos/", Ok("zk://a:2181,b:2182,c:2181/mesos"));
        check_ensemble("zk://a/sites/one/mesos//", Ok("zk://a:2181/sites/one/mesos"));
        check_ensemble("zk://[2001:DB8::1],[::1]:1/m", Ok("zk://[2001:db8::1]:2181,[::1]:1/m"));
        for missing in ["zk://a:2181", "zk://a:2181/", "zk://a,b//"] {
            check_ensemble(missing, Err("has no path"));
        }
        for servers in ["zk:///mesos", "zk://a,,b/mesos", "zk://a:x/mesos", "zk://a:0/mesos"] {
            check_ensemble(servers, Err("names no servers"));
        }
        check_ensemble("zk://2001:db8::1:2181/mesos", Err("names no servers"));
        check_ensemble("zk://[x]:2181/mesos", Err("names no servers"));
        for path in ["zk://a/b//c", "zk://a/../c", "zk://a/b/.", "zk://a/b\u{1}"] {
            check_ensemble(path, Err("does not take"));
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [("0s", 0), ("100ms", 100), ("5m", 300_000), ("1d", 86_400_000)] {
            assert_eq!(Span::read(text), Ok(Duration::from_millis(millis)));
        }
        for bad in ["", "5", "s", "5 s", "-1s", "5y", "99999999999999999999s"] {
            assert!(Span::read(bad).is_err(), "{bad}");
        }
    }
}
