//! Whom ZooKeeper's nodes elect. Each master keeps an ephemeral sequential node below the path of
//! the election, with its `MasterInfo` (`include/mesos/mesos.proto`) in it: `json.info_0000000007`
//! in JSON, `info_0000000007` in protobuf from masters before 0.24. The lowest number leads
//! (`src/master/detector/zookeeper.cpp`).

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::cluster::{Endpoint, Host};
use crate::mesos::Unread;

/// Where a master listens unless it says.
const MASTER_PORT: u16 = 5050;

/// A node by which a master stands for election.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// As ZooKeeper counts, which may go round to negative numbers.
    sequence: i32,
    form: Form,
    /// The last part of its path.
    pub name: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Json,
    Protobuf,
}

impl Candidate {
    fn of(name: String) -> Option<Candidate> {
        let (form, number) = match name.strip_prefix("json.info_") {
            Some(number) => (Form::Json, number),
            None => (Form::Protobuf, name.strip_prefix("info_")?),
        };
        Some(Candidate { sequence: number.parse().ok()?, form, name })
    }
}

/// The candidates among the children of the election's node, the leader's first. What is none,
/// such as `log_replicas`, is left out.
pub fn candidates(children: impl IntoIterator<Item = String>) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = children.into_iter().filter_map(Candidate::of).collect();
    found.sort_by_key(|candidate| candidate.sequence);
    found
}

/// Whom the nodes elect.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Elected {
    /// None while no master stands, and when the first node cannot be read: the second never
    /// leads in its place.
    pub leader: Option<Endpoint>,
    /// Every master whose node could be read, in the order in which they would come to lead.
    pub masters: Vec<Endpoint>,
    /// The nodes that could not be read.
    pub unread: Vec<Unread>,
}

/// Whom the candidates, as [`candidates`] sorts them, elect by the data of their nodes; none where
/// it may not be read.
pub fn elect(nodes: &[(Candidate, Option<Vec<u8>>)]) -> Elected {
    let mut elected = Elected::default();
    for (at, (candidate, data)) in nodes.iter().enumerate() {
        let read = data.as_deref().ok_or("its data may not be read");
        match read.and_then(|data| endpoint(candidate.form, data)) {
            Ok(endpoint) => {
                if at == 0 {
                    elected.leader = Some(endpoint.clone());
                }
                elected.masters.push(endpoint);
            }
            Err(fault) => elected.unread.push(Unread {
                kind: "master",
                id: candidate.name.clone(),
                fault: fault.to_owned(),
            }),
        }
    }
    elected
}

fn endpoint(form: Form, data: &[u8]) -> Result<Endpoint, &'static str> {
    let told = match form {
        Form::Json => from_json(data).ok_or("its data is no JSON object")?,
        Form::Protobuf => from_protobuf(data).ok_or("its data is no protobuf message")?,
    };
    told.endpoint().ok_or("its data has no address")
}

/// What a `MasterInfo` says of where the master is.
#[derive(Default)]
struct Told {
    address_ip: Option<String>,
    address_port: Option<u16>,
    address_hostname: Option<String>,
    pid: Option<String>,
    /// The address's octets, the first in the lowest bits.
    ip: Option<u32>,
    port: Option<u16>,
    hostname: Option<String>,
}

impl Told {
    /// An address before a name: names may be those that we are to publish.
    fn endpoint(&self) -> Option<Endpoint> {
        let port = self.port.unwrap_or(MASTER_PORT);
        let address = self.address_ip.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
        if let Some(address) = address.filter(|address| !address.is_unspecified()) {
            let port = self.address_port.unwrap_or(port);
            return Some(Endpoint::new(Host::Address(address), Some(port)));
        }
        if let Some(endpoint) = self.pid.as_deref().and_then(Endpoint::parse_pid) {
            return Some(endpoint);
        }
        if let Some(ip) = self.ip.filter(|ip| *ip != 0) {
            let address = Ipv4Addr::from(ip.to_le_bytes());
            return Some(Endpoint::new(Host::Address(address.into()), Some(port)));
        }
        let name = self.address_hostname.as_deref().or(self.hostname.as_deref())?;
        Some(Endpoint::new(Host::parse(name)?, Some(self.address_port.unwrap_or(port))))
    }
}

fn from_json(data: &[u8]) -> Option<Told> {
    let info: Value = serde_json::from_slice(data).ok().filter(Value::is_object)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let port = |value: &Value| value.as_u64().and_then(|port| port.try_into().ok());
    let address = &info["address"];
    Some(Told {
        address_ip: text(&address["ip"]),
        address_port: port(&address["port"]),
        address_hostname: text(&address["hostname"]),
        pid: text(&info["pid"]),
        ip: info["ip"].as_u64().and_then(|ip| ip.try_into().ok()),
        port: port(&info["port"]),
        hostname: text(&info["hostname"]),
    })
}

fn from_protobuf(data: &[u8]) -> Option<Told> {
    let mut told = Told::default();
    for (number, field) in fields(data)? {
        match (number, field) {
            (2, Field::Number(ip)) => told.ip = ip.try_into().ok(),
            (3, Field::Number(port)) => told.port = port.try_into().ok(),
            (4, Field::Octets(pid)) => told.pid = text(pid),
            (5, Field::Octets(name)) => told.hostname = text(name),
            (7, Field::Octets(address)) => {
                for (number, field) in fields(address)? {
                    match (number, field) {
                        (1, Field::Octets(name)) => told.address_hostname = text(name),
                        (2, Field::Octets(ip)) => told.address_ip = text(ip),
                        (3, Field::Number(port)) => told.address_port = port.try_into().ok(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(told)
}

fn text(octets: &[u8]) -> Option<String> {
    String::from_utf8(octets.to_vec()).ok()
}

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    /// A string, a message, or a number of fixed length.
    Octets(&'a [u8]),
}

/// The fields of a protobuf message by their numbers; none if it is not well formed.
fn fields(mut rest: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let tag = number(&mut rest)?;
        let length = match tag & 7 {
            0 => {
                found.push((tag >> 3, Field::Number(number(&mut rest)?)));
                continue;
            }
            1 => 8,
            2 => number(&mut rest)?.try_into().ok()?,
            5 => 4,
            _ => return None,
        };
        let (octets, after) = rest.split_at_checked(length)?;
        found.push((tag >> 3, Field::Octets(octets)));
        rest = after;
    }
    Some(found)
}

/// A varint: seven bits an octet, the lowest first, the eighth set on all but the last.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..10 {
        let (&octet, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(octet & 0x7f) << (7 * at);
        if octet < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    macro_rules! recorded {
        ($stage:literal, $node:literal) => {
            (
                $node,
                include_bytes!(concat!(
                    "../integration/fixtures/mesos/zookeeper/",
                    $stage,
                    "_mesos_",
                    $node,
                    ".bin"
                ))
                .as_slice(),
            )
        };
    }

    /// `MasterInfo` as a master of 0.20 marshals it: id, ip, port, pid and hostname.
    const OLD: &[u8] = b"\x0a\x08m-200001\x10\xff\x80\x80\x08\x18\xba\x27\
        \x22\x15master@127.0.0.1:5050\x2a\x0am1.example";

    /// One of 0.23: a version and an address more, and nothing that would do without the address.
    const NEWER: &[u8] = b"\x0a\x01m\x10\x00\x18\xba\x27\x32\x060.23.0\
        \x3a\x17\x0a\x07m2.test\x12\x09127.0.0.2\x18\xbb\x27";

    /// Elects from nodes in the order in which ZooKeeper lists them: none.
    fn elected(nodes: &[(&str, &[u8])]) -> Elected {
        let names = nodes.iter().map(|(name, _)| (*name).to_owned());
        let data = |candidate: Candidate| {
            let found = nodes.iter().find(|(name, _)| *name == candidate.name);
            let data = found.map(|(_, data)| data.to_vec());
            (candidate, data)
        };
        elect(&candidates(names).into_iter().map(data).collect::<Vec<_>>())
    }

    #[track_caller]
    fn check(nodes: &[(&str, &[u8])], leader: Option<&str>, masters: &[&str]) {
        let elected = elected(nodes);
        let place = |endpoint: &Endpoint| endpoint.authority(0);
        assert_eq!(elected.leader.as_ref().map(place).as_deref(), leader);
        assert_eq!(elected.masters.iter().map(place).collect::<Vec<_>>(), masters);
    }

    #[test]
    fn the_recorded_masters_elect_the_one_that_came_first() {
        let before = [
            recorded!("before-failover", "json.info_0000000003"),
            recorded!("before-failover", "json.info_0000000001"),
            recorded!("before-failover", "json.info_0000000002"),
            ("log_replicas", b"".as_slice()),
        ];
        let masters = ["127.0.0.1:25050", "127.0.0.1:25060", "127.0.0.1:25070"];
        check(&before, Some(masters[0]), &masters);
        let after = [
            recorded!("after-failover", "json.info_0000000002"),
            recorded!("after-failover", "json.info_0000000003"),
        ];
        check(&after, Some(masters[1]), &masters[1..]);
    }

    #[test]
    fn the_recorded_log_replicas_are_no_candidates() {
        let replicas = [
            recorded!("before-failover", "log_replicas_0000000000"),
            recorded!("before-failover", "log_replicas_0000000001"),
            recorded!("before-failover", "log_replicas_0000000002"),
            recorded!("after-failover", "log_replicas_0000000001"),
            recorded!("after-failover", "log_replicas_0000000002"),
        ];
        check(&replicas, None, &[]);
        assert_eq!(elected(&replicas), Elected::default());
        // Below their own node they have numbers and nothing else.
        check(&[("0000000001", replicas[1].1)], None, &[]);
    }

    #[test]
    fn masters_before_json_are_read_too() {
        check(&[("info_0000000004", OLD)], Some("127.0.0.1:5050"), &["127.0.0.1:5050"]);
        check(&[("info_0000000004", NEWER)], Some("127.0.0.2:5051"), &["127.0.0.2:5051"]);
        let mixed = [recorded!("after-failover", "json.info_0000000003"), ("info_0000000002", OLD)];
        check(&mixed, Some("127.0.0.1:5050"), &["127.0.0.1:5050", "127.0.0.1:25070"]);
        let without_pid = b"\x0a\x01m\x10\xff\x80\x80\x08\x18\xba\x27".as_slice();
        check(&[("info_1", without_pid)], Some("127.0.0.1:5050"), &["127.0.0.1:5050"]);
    }

    #[track_caller]
    fn check_json(data: &str, expected: Option<&str>) {
        check(&[("json.info_1", data.as_bytes())], expected, expected.as_slice());
    }

    #[test]
    fn an_address_is_taken_from_where_it_is() {
        let all = r#""pid":"master@10.0.0.2:2","ip":16777343,"port":3,"hostname":"m.example""#;
        let address = |ip: &str| format!(r#"{{"address":{{"ip":"{ip}","port":1}},{all}}}"#);
        check_json(&address("10.0.0.1"), Some("10.0.0.1:1"));
        check_json(&address("2001:db8::1"), Some("[2001:db8::1]:1"));
        check_json(&address("0.0.0.0"), Some("10.0.0.2:2"));
        check_json(&address("soon"), Some("10.0.0.2:2"));
        check_json(&format!("{{{all}}}"), Some("10.0.0.2:2"));
        check_json(r#"{"pid":"?","ip":16777343,"port":3}"#, Some("127.0.0.1:3"));
        check_json(r#"{"pid":7,"ip":"x","port":3,"hostname":"m.example"}"#, Some("m.example:3"));
        check_json(r#"{"ip":16777343,"port":70000}"#, Some("127.0.0.1:5050"));
        for nothing in ["{}", "[]", "", "{", r#"{"ip":0,"hostname":""}"#] {
            check_json(nothing, None);
        }
    }

    #[test]
    fn the_second_never_leads_for_a_first_that_cannot_be_read() {
        let second = recorded!("after-failover", "json.info_0000000002");
        let third = recorded!("after-failover", "json.info_0000000003");
        check(
            &[third, second, ("json.info_0000000001", b"{")],
            None,
            &["127.0.0.1:25060", "127.0.0.1:25070"],
        );
        let spoilt = [second, ("json.info_0000000003", b"{".as_slice())];
        check(&spoilt, Some("127.0.0.1:25060"), &["127.0.0.1:25060"]);
        let unread = &elected(&spoilt).unread[0];
        assert_eq!((&*unread.id, unread.kind), ("json.info_0000000003", "master"));
        assert_eq!(unread.fault, "its data is no JSON object");
        let forbidden = elect(&[(candidates(["info_1".to_owned()]).remove(0), None)]);
        assert_eq!((forbidden.leader, forbidden.unread.len()), (None, 1));
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let order = |names: &[&str]| -> Vec<String> {
            let found = candidates(names.iter().map(|name| (*name).to_owned()));
            found.into_iter().map(|candidate| candidate.name).collect()
        };
        let sorted = ["info_-2147483648", "json.info_-000000001", "info_9", "json.info_0000000010"];
        let [a, b, c, d] = sorted;
        assert_eq!(order(&[d, b, c, a]), sorted);
        assert!(
            order(&["json.info_", "json.info_x", "info_99999999999", "x_1", "info"]).is_empty()
        );
    }

    proptest! {
        #[test]
        fn no_octets_panic(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            elected(&[("info_1", &data), ("json.info_2", &data)]);
        }

        #[test]
        fn no_spoilt_octet_panics(at in 0..OLD.len(), octet: u8, length in 0..OLD.len()) {
            let mut data = OLD.to_vec();
            data[at] = octet;
            elected(&[("info_1", &data), ("info_2", &data[..length])]);
        }
    }
}
