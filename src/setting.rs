//! How single values of the configuration are written: each a text that is read into its type.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::cluster::Endpoint;
use crate::fence::Owner;
use crate::name::Name;
use crate::records::{IpSource, LabelRules, Unhealthy};
use crate::scope::Pattern;

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

pub(crate) struct ServerAddress;

impl Word for ServerAddress {
    type Value = PortedEndpoint;
    fn read(text: &str) -> Result<PortedEndpoint, String> {
        let endpoint = Endpoint::parse(text)
            .ok_or_else(|| format!("{text:?} is no server: write it as 10.0.0.53:53"))?;
        let port = endpoint.port.or(Some(53));
        Ok(PortedEndpoint(Endpoint { port, ..endpoint }))
    }
}

pub(crate) struct PortedEndpoint(pub(crate) Endpoint);

impl Word for Master {
    type Value = Master;
    fn read(text: &str) -> Result<Master, String> {
        let wrong = || format!("{text:?} is no master: write it as http://10.0.0.1:5050");
        if text.starts_with("zk://") {
            return Err(format!(
                "{text:?}: this version finds masters by http:// or https:// only"
            ));
        }
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
