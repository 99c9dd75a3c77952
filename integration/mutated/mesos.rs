//! What masters and ZooKeeper tell.

use std::time::Duration;

use std::fmt::Debug;

use mesozone::catalog::Catalog;
use mesozone::cluster::{Cluster, TaskKey};
use mesozone::election;
use mesozone::events::{Event, EventReader};
use mesozone::live::Live;
use mesozone::name::NAME_MAX;
use mesozone::recordio::{Part, RecordIo};
use mesozone::records::{IpSource, Rules};
use mesozone::splitter::{Keys, Leads, Splitter};
use mesozone::state::{State, StateError, StateReader};
use mesozone::zone::Zone;
use proptest::prelude::*;
use proptest::sample::Index;
use serde::de::IgnoredAny;

use super::change::{
    Change, JsonChange, changed, changes, json_change, json_changed, pieces, seeded, sizes,
};
use super::files;
use crate::hunting::{Said, hunt};

/// Recorded texts, small ones first.
fn texts(endings: &[&str]) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for ending in endings {
        found.extend(files("integration/fixtures", ending).into_iter().map(|(_, text)| text));
    }
    found.sort_by_key(Vec::len);
    found.dedup();
    found
}

/// Which text, what is changed in its JSON, what in its octets, in which pieces it comes.
type Case = (Index, Vec<JsonChange>, Vec<Change>, Vec<usize>);

fn case() -> impl Strategy<Value = Case> {
    let json = prop_oneof![
        1 => Just(Vec::new()),
        2 => prop::collection::vec(json_change(), 1..4),
    ];
    (any::<Index>(), json, changes(), sizes())
}

/// Of each case the text that it describes.
fn written((at, json, octets, _): &Case, texts: &[Vec<u8>]) -> Vec<u8> {
    let text = at.get(texts);
    let text = match serde_json::from_slice(text) {
        Ok(value) if !json.is_empty() => json_changed(value, json).to_string().into_bytes(),
        _ => text.clone(),
    };
    changed(&text, octets, texts)
}

/// All of a state that can be compared.
fn told(read: &Result<State, StateError>) -> impl PartialEq + Debug + use<> {
    let state = read.as_ref().ok()?;
    let cluster = &state.cluster;
    let mut ended: Vec<TaskKey> = state.ended.iter().cloned().collect();
    ended.sort();
    let tasks: Vec<_> = cluster.tasks.clone().into_iter().collect();
    let agents: Vec<_> = cluster.agents.clone().into_iter().collect();
    let frameworks: Vec<_> = cluster.frameworks.clone().into_iter().collect();
    let recovered: Vec<_> = cluster.recovered.iter().cloned().collect();
    let elected = cluster.elected_time.map(f64::to_bits);
    let leader = (cluster.leader.clone(), cluster.master_id.clone(), elected);
    Some((tasks, agents, frameworks, recovered, ended, state.unread.clone(), leader))
}

fn rules() -> Rules {
    Rules {
        ip_sources: vec![IpSource::Netinfo, IpSource::Docker, IpSource::Mesos, IpSource::Host],
        reverse: ["in-addr.arpa", "ip6.arpa"].map(|zone| zone.parse().expect("a name")).into(),
        ..Rules::of("mesos".parse().expect("a name"))
    }
}

/// Makes the names of a cluster, whatever is in it.
fn named(cluster: Cluster) -> Said {
    let mut catalog = Catalog::new(rules(), Duration::ZERO);
    catalog.update(cluster, Duration::ZERO);
    for (key, _, _) in catalog.zone().records() {
        prop_assert!(key.name.is_within(&rules().domain) && key.name.wire_len() <= NAME_MAX);
    }
    catalog.update(Cluster::default(), Duration::ZERO);
    let is_empty = catalog.zone().is_empty() && catalog.reverse().values().all(Zone::is_empty);
    prop_assert!(is_empty, "a record stays behind its cluster");
    Ok(())
}

fn read(pieces: &[&[u8]]) -> StateReader {
    let mut reader = StateReader::new(Some("dns".into()));
    pieces.iter().for_each(|piece| reader.push(piece));
    reader
}

#[test]
fn a_state_is_read_whole_or_refused_however_it_comes() {
    let texts = texts(&["state.json", "slaves.json", "state-summary.json", "state.txt"]);
    hunt(300, case(), |case| {
        let text = written(&case, &texts);
        let parts = pieces(&text, &case.3);
        let state = read(&[&text]).finish();
        prop_assert_eq!(told(&read(&parts).finish()), told(&state));
        let agents = read(&parts).finish_agents();
        let frameworks = read(&parts).finish_frameworks();
        if state.is_ok() || agents.is_ok() || frameworks.is_ok() {
            prop_assert!(serde_json::from_slice::<IgnoredAny>(&text).is_ok(), "it is no JSON");
        }
        // A task takes at least the octets of an empty one.
        let count = state.as_ref().map_or(0, |state| state.cluster.tasks.len());
        prop_assert!(count <= text.len() / 30);
        state.map_or(Ok(()), |state| named(state.cluster))
    });
}

#[test]
fn a_recorded_state_cut_anywhere_is_refused() {
    let texts = texts(&["state.json"]);
    hunt(200, (any::<Index>(), any::<Index>(), sizes()), |(text, end, sizes)| {
        let text = text.get(&texts).trim_ascii_end();
        let parts = &text[..end.index(text.len())];
        prop_assert!(read(&pieces(parts, &sizes)).finish().is_err());
        prop_assert!(read(&pieces(parts, &sizes)).finish_agents().is_err());
        prop_assert!(read(&pieces(parts, &sizes)).finish_frameworks().is_err());
        Ok(())
    });
}

const KEYS: Keys<usize> = &[
    ("slaves", Leads::List(0, &[])),
    ("frameworks", Leads::List(1, &[("tasks", Leads::List(2, &[("id", Leads::List(3, &[]))]))])),
    ("get_state", Leads::To(&[("get_tasks", Leads::To(&[("tasks", Leads::List(4, &[]))]))])),
];

#[test]
fn a_splitter_hands_out_what_came_and_nothing_twice() {
    let texts = texts(&["state.json", "v1-get_state.json"]);
    hunt(300, case(), |case| {
        let text = written(&case, &texts);
        let split = |parts: &[&[u8]]| {
            let (mut splitter, mut given) = (Splitter::new(KEYS), Vec::new());
            parts.iter().for_each(|part| {
                splitter.push(part, |list, member| given.push((list, member.to_vec())));
            });
            (given, splitter.skeleton())
        };
        let (given, skeleton) = split(&[&text]);
        // A member leaves one octet in its place.
        let members: usize = given.iter().map(|(_, member)| member.len() - 1).sum();
        prop_assert!(skeleton.len() + members <= text.len());
        if serde_json::from_slice::<IgnoredAny>(&text).is_ok() {
            prop_assert_eq!(skeleton.len() + members, text.len());
        }
        prop_assert_eq!(split(&pieces(&text, &case.3)), (given, skeleton));
        Ok(())
    });
}

/// A stream's records: recorded ones, and recorded states framed as one.
fn streams() -> Vec<Vec<u8>> {
    let mut streams = texts(&[".recordio"]);
    let records = texts(&["v1-get_state.json"]);
    let framed = records.iter().map(|record| {
        let record = String::from_utf8_lossy(record);
        let state = record.replacen("\"GET_STATE\"", "\"SUBSCRIBED\"", 1);
        let state = match state.split_once("\"get_state\"") {
            Some((head, state)) => format!("{head}\"subscribed\":{{\"get_state\"{state}}}"),
            None => state,
        };
        format!("{}\n{state}", state.len()).into_bytes()
    });
    streams.extend(framed);
    streams
}

/// The events of a stream, as far as it can be read, each as a word, and the cluster they make.
fn followed(parts: &[&[u8]]) -> (Vec<String>, Cluster) {
    let (mut reader, mut events) = (EventReader::new(Some("dns".into())), Vec::new());
    let (mut live, mut cluster) = (Live::default(), Cluster::default());
    for part in parts {
        let read = reader.push(part, |event| {
            events.push(word(&event));
            match event {
                Event::Subscribed { state, .. } => {
                    live = Live::new(state.waiting);
                    cluster = state.cluster;
                }
                event => drop(live.apply(&mut cluster, event)),
            }
        });
        if read.is_err() {
            break;
        }
    }
    (events, cluster)
}

fn word(event: &Event) -> String {
    match event {
        Event::Subscribed { state, heartbeat } => {
            let cluster = &state.cluster;
            let sizes = (cluster.tasks.len(), cluster.agents.len(), cluster.frameworks.len());
            format!("subscribed {sizes:?} {heartbeat:?} {:?}", state.unread)
        }
        Event::Heartbeat => "heartbeat".to_owned(),
        Event::TaskAdded(told) => format!("task {:?} {:?}", told.key, told.state),
        Event::TaskUpdated(update) => format!("update {} {:?}", update.task, update.state),
        Event::AgentAdded(id, agent) => format!("agent {id:?} {agent:?}"),
        Event::AgentRemoved(id) => format!("no agent {id:?}"),
        Event::Framework(id, framework) => format!("framework {id:?} {framework:?}"),
        Event::FrameworkRemoved(id) => format!("no framework {id:?}"),
        Event::Unread(unread) => format!("unread {unread:?}"),
        Event::Other => "other".to_owned(),
    }
}

#[test]
fn events_are_the_same_in_whatever_pieces_they_come() {
    let streams = streams();
    let case = (any::<Index>(), changes(), sizes(), any::<Index>());
    hunt(200, case, |(stream, octets, sizes, end)| {
        let text = seeded(&streams, &stream, &octets);
        let (events, cluster) = followed(&pieces(&text, &sizes));
        // The octets before an error count, in whatever pieces: compare what both have.
        let (singly, _) = followed(&pieces(&text, &[97]));
        let both = events.len().min(singly.len());
        prop_assert_eq!(&events[..both], &singly[..both]);
        let cut = &text[..end.index(text.len() + 1)];
        let (before, _) = followed(&pieces(cut, &sizes));
        prop_assert!(events.starts_with(&before), "a part of a stream told what the whole did not");
        named(cluster)
    });
}

#[test]
fn framing_gives_each_octet_of_a_record_once() {
    let streams = streams();
    hunt(200, (any::<Index>(), changes(), sizes()), |(stream, octets, sizes)| {
        let text = seeded(&streams, &stream, &octets);
        let framed = |parts: &[&[u8]]| {
            let (mut framing, mut records, mut open) =
                (RecordIo::default(), Vec::new(), Vec::new());
            let read = parts.iter().try_for_each(|part| {
                framing.push(part, |part| match part {
                    Part::Octets(octets) => open.extend_from_slice(octets),
                    Part::End => records.push(std::mem::take(&mut open)),
                })
            });
            (records, open, read.is_ok())
        };
        let (records, open, read) = framed(&[&text]);
        let given: usize = records.iter().map(Vec::len).sum();
        prop_assert!(given + 2 * records.len() + open.len() <= text.len());
        prop_assert_eq!(framed(&pieces(&text, &sizes)), (records, open, read));
        Ok(())
    });
}

/// A `MasterInfo` of 0.23: id, ip, port, pid, hostname, version and address.
const IN_PROTOBUF: &[u8] = b"\x0a\x01m\x10\xff\x80\x80\x08\x18\xba\x27\
    \x22\x15master@127.0.0.1:5050\x2a\x0am1.example\x32\x060.23.0\
    \x3a\x17\x0a\x07m2.test\x12\x09127.0.0.2\x18\xbb\x27";

#[test]
fn nodes_of_an_election_are_read_or_told() {
    let nodes = files("integration/fixtures/mesos/zookeeper", ".bin");
    let mut data: Vec<Vec<u8>> = nodes.iter().map(|(_, data)| data.clone()).collect();
    data.push(IN_PROTOBUF.to_vec());
    let names = ["json.info_0000000001", "info_0000000002", "json.info_-2147483648", "info_9"];
    let node = (0..names.len(), any::<Index>(), changes(), any::<bool>());
    hunt(400, prop::collection::vec(node, 1..4), |nodes| {
        let children = nodes.iter().map(|(name, ..)| names[*name].to_owned());
        let standing = election::candidates(children.chain(["log_replicas".to_owned()]));
        prop_assert_eq!(standing.len(), nodes.len());
        let told = nodes
            .iter()
            .map(|(_, seed, octets, readable)| readable.then(|| seeded(&data, seed, octets)));
        let nodes: Vec<_> = standing.into_iter().zip(told).collect();
        let elected = election::elect(&nodes);
        prop_assert_eq!(elected.masters.len() + elected.unread.len(), nodes.len());
        let first = elected.masters.first();
        prop_assert!(elected.leader.is_none() || elected.leader.as_ref() == first);
        Ok(())
    });
}
