//! The configuration of mesos-dns, read as mesos-dns reads it (Go's `encoding/json`): one object,
//! its keys in any case, the last of several counts, `null` is nothing. Keys that it does not know
//! are passed over, and kept here by name.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// What a file says; `None` where it says nothing, and the default of mesos-dns counts.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MesosDns {
    pub refresh_seconds: Option<i64>,
    pub port: Option<i64>,
    pub timeout: Option<i64>,
    pub state_timeout_seconds: Option<i64>,
    pub zk_detection_timeout: Option<i64>,
    pub http_port: Option<i64>,
    pub ttl: Option<i32>,
    pub srv_record_default_weight: Option<u16>,
    pub soa_serial: Option<u32>,
    pub soa_refresh: Option<u32>,
    pub soa_retry: Option<u32>,
    pub soa_expire: Option<u32>,
    pub soa_min_ttl: Option<u32>,
    pub soa_mname: Option<String>,
    pub soa_rname: Option<String>,
    pub masters: Option<Vec<String>>,
    pub zone_resolvers: BTreeMap<String, Vec<String>>,
    pub resolvers: Option<Vec<String>>,
    pub ip_sources: Option<Vec<String>>,
    pub zk: Option<String>,
    pub domain: Option<String>,
    pub file: Option<String>,
    pub listener: Option<String>,
    pub http_listener: Option<String>,
    pub recurse_on: Option<bool>,
    pub dns_on: Option<bool>,
    pub http_on: Option<bool>,
    pub external_on: Option<bool>,
    pub enforce_rfc952: Option<bool>,
    pub set_truncate_bit: Option<bool>,
    pub enumeration_on: Option<bool>,
    pub mesos_https_on: Option<bool>,
    pub ca_cert_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    pub mesos_credentials: Option<Credentials>,
    pub iam_config_file: Option<String>,
    pub mesos_authentication: Option<String>,
    /// The keys that mesos-dns passes over, as they are spelled.
    pub unknown: Vec<String>,
}

/// `MesosCredentials`; what is not told is empty.
#[derive(Clone, PartialEq, Default)]
pub struct Credentials {
    pub principal: String,
    pub secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// Why a file is no configuration of mesos-dns. Values are not repeated: some are secrets.
#[derive(Debug, thiserror::Error)]
pub enum MesosDnsError {
    #[error("this is no JSON")]
    Json(#[source] serde_json::Error),
    #[error("this is no configuration of mesos-dns: {0}, and one JSON object is wanted")]
    NoObject(&'static str),
    #[error("{key}: it is {is}, and {wanted} is wanted")]
    Type { key: &'static str, is: &'static str, wanted: &'static str },
    #[error("{key}: the number is too small or too large")]
    Range { key: &'static str },
    #[error("{key}: {why}")]
    Refused { key: &'static str, why: String },
    #[error(
        "neither Masters nor Zk says where the masters are: mesos-dns does not start with this"
    )]
    NoMaster,
    #[error("DnsOn and HttpOn are both false: mesos-dns does not start with this")]
    NothingOn,
}

/// A value of the right type that mesos-dns does not start with.
pub(crate) fn wrong(key: &'static str, why: impl Into<String>) -> MesosDnsError {
    MesosDnsError::Refused { key, why: why.into() }
}

impl MesosDns {
    pub fn parse(json: &str) -> Result<MesosDns, MesosDnsError> {
        let whole: Value = serde_json::from_str(json).map_err(MesosDnsError::Json)?;
        if !whole.is_object() {
            return Err(MesosDnsError::NoObject(kind(&whole)));
        }
        // Once more for the order, which tells the last of several keys.
        let mut object: Object = serde_json::from_str(json).map_err(MesosDnsError::Json)?;
        Ok(MesosDns {
            refresh_seconds: object.number("RefreshSeconds")?,
            port: object.number("Port")?,
            timeout: object.number("Timeout")?,
            state_timeout_seconds: object.number("StateTimeoutSeconds")?,
            zk_detection_timeout: object.number("ZkDetectionTimeout")?,
            http_port: object.number("HttpPort")?,
            ttl: object.number("TTL")?,
            srv_record_default_weight: object.number("SRVRecordDefaultWeight")?,
            soa_serial: object.number("SOASerial")?,
            soa_refresh: object.number("SOARefresh")?,
            soa_retry: object.number("SOARetry")?,
            soa_expire: object.number("SOAExpire")?,
            soa_min_ttl: object.number("SOAMinttl")?,
            soa_mname: object.text("SOAMname")?,
            soa_rname: object.text("SOARname")?,
            masters: object.texts("Masters")?,
            zone_resolvers: object.lists("ZoneResolvers")?,
            resolvers: object.texts("Resolvers")?,
            ip_sources: object.texts("IPSources")?,
            zk: object.text("Zk")?,
            domain: object.text("Domain")?,
            file: object.text("File")?,
            listener: object.text("Listener")?,
            http_listener: object.text("HTTPListener")?,
            recurse_on: object.flag("RecurseOn")?,
            dns_on: object.flag("DnsOn")?,
            http_on: object.flag("HttpOn")?,
            external_on: object.flag("ExternalOn")?,
            enforce_rfc952: object.flag("EnforceRFC952")?,
            set_truncate_bit: object.flag("SetTruncateBit")?,
            enumeration_on: object.flag("EnumerationOn")?,
            mesos_https_on: object.flag("MesosHTTPSOn")?,
            ca_cert_file: object.text("CACertFile")?,
            cert_file: object.text("CertFile")?,
            key_file: object.text("KeyFile")?,
            mesos_credentials: object.credentials()?,
            iam_config_file: object.text("IAMConfigFile")?,
            mesos_authentication: object.text("MesosAuthentication")?,
            unknown: object.0.into_iter().map(|(key, _)| key).collect(),
        })
    }
}

/// The members of an object in their order.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object, D::Error> {
        struct Members;
        impl<'de> de::Visitor<'de> for Members {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        from.deserialize_map(Members)
    }
}

impl Object {
    /// All values of a key, the last one first; they are gone then.
    fn take(&mut self, key: &str) -> impl Iterator<Item = Value> + use<> {
        let is_key = |(spelled, _): &mut (String, Value)| spelled.eq_ignore_ascii_case(key);
        let taken: Vec<Value> = self.0.extract_if(.., is_key).map(|(_, value)| value).collect();
        taken.into_iter().rev()
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        wanted: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, MesosDnsError> {
        let mut said = self.take(key).filter(|value| !value.is_null());
        let Some(value) = said.next() else { return Ok(None) };
        let wrong = || MesosDnsError::Type { key, is: kind(&value), wanted };
        read(&value).ok_or_else(wrong).map(Some)
    }

    fn number<N: TryFrom<i64>>(&mut self, key: &'static str) -> Result<Option<N>, MesosDnsError> {
        let whole = |value: &Value| match value.is_u64() || value.is_i64() {
            true => Some(value.as_i64()),
            false => None,
        };
        let number = self.value(key, "a whole number", whole)?;
        let in_range = |number: Option<i64>| N::try_from(number?).ok();
        number.map(|it| in_range(it).ok_or(MesosDnsError::Range { key })).transpose()
    }

    fn flag(&mut self, key: &'static str) -> Result<Option<bool>, MesosDnsError> {
        self.value(key, "true or false", Value::as_bool)
    }

    fn text(&mut self, key: &'static str) -> Result<Option<String>, MesosDnsError> {
        self.value(key, "a string", text)
    }

    /// A list; `null` empties what was said before it.
    fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, MesosDnsError> {
        let Some(value) = self.take(key).next() else { return Ok(None) };
        let wrong = || MesosDnsError::Type { key, is: kind(&value), wanted: "a list of strings" };
        texts(&value).ok_or_else(wrong).map(Some)
    }

    fn lists(&mut self, key: &'static str) -> Result<BTreeMap<String, Vec<String>>, MesosDnsError> {
        let lists = |value: &Value| {
            let members = value.as_object()?.iter();
            members.map(|(name, list)| Some((name.clone(), texts(list)?))).collect()
        };
        let wanted = "an object with a list of strings for each zone";
        Ok(self.value(key, wanted, lists)?.unwrap_or_default())
    }

    fn credentials(&mut self) -> Result<Option<Credentials>, MesosDnsError> {
        let credentials = |value: &Value| {
            let (mut principal, mut secret) = (String::new(), String::new());
            for (name, value) in value.as_object()?.iter().filter(|(_, value)| !value.is_null()) {
                match name.to_ascii_lowercase().as_str() {
                    "principal" => principal = text(value)?,
                    "secret" => secret = text(value)?,
                    _ => {}
                }
            }
            Some(Credentials { principal, secret })
        };
        let wanted = "an object with the strings Principal and Secret";
        self.value("MesosCredentials", wanted, credentials)
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(text).collect(),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction or an exponent",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Every key of mesos-dns.
#[cfg(test)]
pub(crate) const KEYS: [&str; 38] = [
    "RefreshSeconds",
    "Port",
    "Timeout",
    "StateTimeoutSeconds",
    "ZkDetectionTimeout",
    "HttpPort",
    "TTL",
    "SRVRecordDefaultWeight",
    "SOASerial",
    "SOARefresh",
    "SOARetry",
    "SOAExpire",
    "SOAMinttl",
    "SOAMname",
    "SOARname",
    "Masters",
    "ZoneResolvers",
    "Resolvers",
    "IPSources",
    "Zk",
    "Domain",
    "File",
    "Listener",
    "HTTPListener",
    "RecurseOn",
    "DnsOn",
    "HttpOn",
    "ExternalOn",
    "EnforceRFC952",
    "SetTruncateBit",
    "EnumerationOn",
    "MesosHTTPSOn",
    "CACertFile",
    "CertFile",
    "KeyFile",
    "IAMConfigFile",
    "MesosAuthentication",
    "MesosCredentials",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(json: &str) -> MesosDns {
        MesosDns::parse(json).unwrap()
    }

    #[track_caller]
    fn check_refused(json: &str, message: &str) {
        assert_eq!(MesosDns::parse(json).unwrap_err().to_string(), message);
    }

    #[test]
    fn keys_count_in_any_case_and_the_last_of_several_counts() {
        let read = read(r#"{ "ttl": 1, "TTL": 2, "Ttl": 3, "tTl": null, "tl": 4 }"#);
        assert_eq!((read.ttl, read.unknown), (Some(3), vec!["tl".to_owned()]));
    }

    #[test]
    fn null_says_nothing_but_empties_a_list() {
        let read = read(r#"{ "Resolvers": ["10.0.0.1"], "resolvers": null, "Zk": null }"#);
        assert_eq!((read.resolvers, read.zk), (Some(Vec::new()), None));
    }

    #[test]
    fn a_value_of_another_type_is_told_by_its_key_and_not_repeated() {
        for key in KEYS {
            let error = MesosDns::parse(&format!("{{ \"{key}\": [[\"hunter2\"]] }}")).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with(&format!("{key}: it is a list, and ")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let number = "Port: it is a string, and a whole number is wanted";
        check_refused(r#"{ "port": "53" }"#, number);
        let fraction = "Port: it is a number with a fraction or an exponent, and a whole number is \
                        wanted";
        check_refused(r#"{ "port": 53.0 }"#, fraction);
        let range = "TTL: the number is too small or too large";
        check_refused(r#"{ "TTL": 2147483648 }"#, range);
        check_refused(r#"{ "TTL": 18446744073709551615 }"#, range);
    }

    #[test]
    fn what_is_no_object_is_told() {
        check_refused("{", "this is no JSON");
        let list = "this is no configuration of mesos-dns: a list, and one JSON object is wanted";
        check_refused("[]", list);
    }

    #[test]
    fn a_secret_is_not_in_what_is_logged() {
        let read = read(r#"{ "MesosCredentials": { "principal": "p", "SECRET": "hunter2" } }"#);
        assert_eq!(read.mesos_credentials.as_ref().unwrap().secret, "hunter2");
        assert!(!format!("{read:?}").contains("hunter2"));
    }
}
