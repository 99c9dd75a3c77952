//! What the streams of the simulated master carry, and how, against the recorded ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ABSENT, fixture, tasks, types};
use crate::simulated::{End, Events, Simulated};

/// The records of a recorded stream.
pub(super) fn recorded(name: &str) -> Vec<Value> {
    let octets = fs::read(fixture(&format!("{name}.recordio"))).unwrap();
    let (mut rest, mut records) = (&octets[..], vec![]);
    while let Some(end) = rest.iter().position(|&octet| octet == b'\n') {
        let length: usize = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
        let (record, after) = rest[end + 1..].split_at(length);
        records.push(serde_json::from_slice(record).unwrap());
        rest = after;
    }
    records
}

/// How a recorded stream ended.
fn recorded_end(name: &str) -> End {
    let times = fs::read_to_string(fixture(&format!("{name}.times.jsonl"))).unwrap();
    let last: Value = serde_json::from_str(times.lines().last().unwrap()).unwrap();
    match last["end"].as_str().unwrap() {
        "ended" => End::Ended,
        "closed" => End::Closed,
        other => panic!("{other}"),
    }
}

/// Starts a task and answers what came before the stream told of it, heartbeats left out.
#[track_caller]
pub(super) fn so_far(master: &Simulated, events: &mut Events) -> Vec<Value> {
    let start = json!({"start": {"framework": "marathon", "name": "mark"}});
    let started = master.control(start)["started"][0].clone();
    let mut before = vec![];
    loop {
        let event = events.event();
        if event["task_added"]["task"]["task_id"]["value"] == started {
            let updates = [(); 3].map(|()| events.event()["type"].clone());
            assert_eq!(updates, ["TASK_UPDATED"; 3]);
            return before;
        }
        before.push(event);
    }
}

/// The state at its beginning and the heartbeat behind it.
#[track_caller]
pub(super) fn begin(events: &mut Events) -> Value {
    let first = events.next().unwrap();
    assert_eq!(first["type"], "SUBSCRIBED");
    assert_eq!(events.next().unwrap(), json!({"type": "HEARTBEAT"}));
    first
}

#[test]
fn a_stream_begins_with_the_state_and_carries_each_change() {
    let master = Simulated::start(&[]);
    let mut events = master.subscribe();
    let first = begin(&mut events);
    assert_eq!(first["subscribed"]["get_state"], master.call("GET_STATE")["get_state"]);
    assert_eq!(first["subscribed"]["heartbeat_interval_seconds"], 15.0);
    master.control(json!({"start": {"framework": "marathon", "name": "web"}}));
    let added = events.event();
    assert_eq!(added["task_added"]["task"]["state"], "TASK_STAGING");
    assert_eq!(events.event()["task_updated"]["state"], "TASK_STARTING");
    let running = events.event();
    let status = &running["task_updated"]["status"];
    assert_eq!(status["task_id"], added["task_added"]["task"]["task_id"]);
    assert_eq!((&status["state"], status.get("healthy")), (&json!("TASK_RUNNING"), None));
    assert_eq!(events.event()["task_updated"]["status"]["healthy"], true);
    master.control(json!({"kill": {"name": "web"}}));
    assert_eq!(events.event()["task_updated"]["state"], "TASK_KILLED");
    master.control(json!({"stage": "no-leader"}));
    assert_eq!(
        (events.next(), recorded_end("2-stream/subscribe-json")),
        (Err(End::Closed), End::Closed)
    );
}

/// Every change that a stream tells of, of each kind that was recorded.
const TOLD: [&str; 12] = [
    r#"{"start": {"framework": "marathon", "name": "web", "count": 2}}"#,
    r#"{"health": {"name": "web", "healthy": false}}"#,
    r#"{"kill": {"name": "web"}}"#,
    r#"{"move": {"name": "checkout"}}"#,
    r#"{"agent-unreachable": 0}"#,
    r#"{"agent-back": 0}"#,
    r#"{"agent-leaves": 1}"#,
    r#"{"agent-marked-gone": 2}"#,
    r#"{"new-agent": true}"#,
    r#"{"framework-disconnected": "aurora"}"#,
    r#"{"frameworks-back": ["aurora"]}"#,
    r#"{"teardown": "chronos"}"#,
];

fn event_types<'a>(records: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // The state a stream begins with is compared with GET_STATE.
    let events = records.into_iter().filter(|record| record["type"] != "SUBSCRIBED");
    events.for_each(|event| types(event, "", &mut found));
    found
}

#[test]
fn every_event_has_the_keys_and_types_of_a_real_one() {
    let options = ["--tasks", "400", "--heartbeat", "0.01"];
    let master = Simulated::start(&options);
    let mut ours = vec![];
    let mut events = master.subscribe();
    TOLD.iter().for_each(|change| drop(master.control(serde_json::from_str(change).unwrap())));
    master.control(json!({"new-framework": {"name": "batch"}}));
    ours.extend(so_far(&master, &mut events));
    master.control(json!({"stage": "recovered"}));
    let mut events = master.subscribe();
    for change in [json!({"agents-back": 9}), json!({"frameworks-back": ["marathon"]})] {
        master.control(change);
    }
    master.control(json!({"agents-back": true}));
    ours.extend(so_far(&master, &mut events));
    ours.push(json!({"type": "HEARTBEAT"}));
    let theirs: Vec<Value> = ["2-stream/subscribe-json", "9-failover-stream/subscribe-json"]
        .iter()
        .flat_map(|name| recorded(name))
        .collect();
    let (simulated, real) = (event_types(&ours), event_types(&theirs));
    let extra: Vec<_> = simulated.difference(&real).collect();
    let missing: Vec<_> = real
        .difference(&simulated)
        .filter(|path| !ABSENT.iter().any(|(part, _)| path.contains(part)))
        .collect();
    assert!(extra.is_empty() && missing.is_empty(), "extra {extra:#?}\nmissing {missing:#?}");
    let kinds = |records: &[Value]| -> BTreeSet<String> {
        records.iter().map(|record| record["type"].to_string()).collect()
    };
    assert_eq!(&kinds(&ours) | &["\"SUBSCRIBED\"".to_owned()].into(), kinds(&theirs));
}

/// State, reason and source of each last status of a task, as `agent` and `framework` made them.
fn updates(records: &[Value]) -> BTreeSet<String> {
    let updates = records.iter().filter(|record| record["type"] == "TASK_UPDATED");
    let by_master = updates
        .map(|update| &update["task_updated"])
        .filter(|update| update["status"]["source"] == "SOURCE_MASTER");
    by_master.map(|update| format!("{} {}", update["state"], update["status"]["reason"])).collect()
}

#[test]
fn a_master_makes_the_statuses_a_real_one_makes() {
    let master = Simulated::start(&["--tasks", "100"]);
    let mut events = master.subscribe();
    begin(&mut events);
    TOLD.iter().for_each(|change| drop(master.control(serde_json::from_str(change).unwrap())));
    let ours = updates(&so_far(&master, &mut events));
    let theirs = updates(&recorded("2-stream/subscribe-json"));
    let missing: Vec<_> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // On an agent marked gone there was no task of a framework that knows nothing of partitions.
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert_eq!(extra, [r#""TASK_LOST" "REASON_AGENT_REMOVED_BY_OPERATOR""#]);
}

/// The running tasks of a consumer that follows the stream and nothing else.
fn follow(tasks: &mut BTreeMap<String, String>, event: &Value) {
    let id = |value: &Value| value["value"].as_str().unwrap().to_owned();
    let get_state = &event["subscribed"]["get_state"]["get_tasks"]["tasks"];
    let added = get_state.as_array().into_iter().flatten();
    let added = added.chain(event["task_added"].get("task"));
    for task in added {
        tasks.insert(id(&task["task_id"]), task["state"].as_str().unwrap().to_owned());
    }
    if let Some(update) = event.get("task_updated") {
        let state = update["state"].as_str().unwrap();
        tasks.insert(id(&update["status"]["task_id"]), state.to_owned());
    }
}

#[test]
fn who_follows_a_stream_knows_the_tasks_that_run() {
    let master = Simulated::start(&["--tasks", "200"]);
    let mut events = master.subscribe();
    let mut known = BTreeMap::new();
    follow(&mut known, &begin(&mut events));
    for change in TOLD {
        master.control(serde_json::from_str(change).unwrap());
    }
    for name in ["search", "cart.core", "ChronosTask:search", "www-data/prod/search", "billing"] {
        master.control(json!({"move": {"name": name}}));
    }
    so_far(&master, &mut events).iter().for_each(|event| follow(&mut known, event));
    master.control(json!({"kill": {"name": "mark"}}));
    let running = known.into_iter().filter(|(_, state)| state == "TASK_RUNNING").map(|(id, _)| id);
    let running: BTreeSet<String> = running.collect();
    let state = master.get("/state");
    let listed = tasks(&state).into_iter().map(|task| task["id"].as_str().unwrap().to_owned());
    assert_eq!(running, listed.collect());
}

#[test]
fn a_stream_does_not_tell_what_a_real_one_does_not() {
    let master = Simulated::start(&["--tasks", "100", "--lost-agents", "1"]);
    let mut events = master.subscribe();
    begin(&mut events);
    let before = master.get("/state");
    for change in [
        json!({"agent-disconnected": 0}),
        json!({"agent-back": 0}),
        json!({"agent-deactivated": 1}),
        json!({"agent-address": {"agent": 2, "address": "10.9.9.9"}}),
        json!({"task-address": {"name": "search", "address": "10.9.9.8"}}),
        json!({"framework-disconnected": "aurora"}),
        json!({"agents-gone": true}),
    ] {
        master.control(change);
    }
    assert!(so_far(&master, &mut events).is_empty());
    let state = master.get("/state");
    assert_eq!(state["slaves"][2]["pid"], "slave(1)@10.9.9.9:5051");
    let slave =
        |index: usize| (&state["slaves"][index]["active"], &state["slaves"][index]["deactivated"]);
    assert_eq!(slave(0), (&json!(true), &json!(false)));
    assert_eq!(slave(1), (&json!(false), &json!(true)));
    let addresses = |state: &Value| -> Vec<String> {
        super::named(state, "search").iter().map(|task| super::address(task).to_owned()).collect()
    };
    assert_eq!(addresses(&state).iter().filter(|address| *address == "10.9.9.8").count(), 1);
    assert_eq!(addresses(&before).len(), addresses(&state).len());
    assert_eq!(state["recovered_slaves"], json!([]));
    assert_eq!(state["unreachable_slaves"], 1.0);
    assert_eq!(recorded("16-agent-restart/subscribe-json").len(), 3, "a state, two heartbeats");
}

#[test]
fn chunks_are_cut_anywhere_and_may_hold_several_records() {
    let whole = Simulated::start(&["--tasks", "50"]);
    let cut = Simulated::start(&["--tasks", "50", "--chunk", "7"]);
    let start = json!({"start": {"framework": "marathon", "name": "web", "count": 50}});
    let [whole, cut] = [whole, cut].map(|master| {
        let mut events = master.subscribe();
        begin(&mut events);
        events.chunks.clear();
        master.control(start.clone());
        let records = (0..200).map(|_| events.event()).count();
        (records, events.chunks)
    });
    assert!(whole.0 == 200 && whole.1.len() < 200, "{} chunks", whole.1.len());
    assert!(cut.0 == 200 && cut.1.iter().all(|&length| length <= 7));
}

#[test]
fn heartbeats_come_as_often_as_they_are_announced() {
    let master = Simulated::start(&["--heartbeat", "0.05", "--churn", "100/s"]);
    let mut events = master.subscribe();
    let first = begin(&mut events);
    assert_eq!(first["subscribed"]["heartbeat_interval_seconds"], 0.05);
    let begun = std::time::Instant::now();
    let mut heartbeats = 0;
    while heartbeats < 10 {
        heartbeats += usize::from(events.next().unwrap()["type"] == "HEARTBEAT");
    }
    assert!(begun.elapsed() > Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[test]
fn one_stream_too_many_ends_the_oldest_as_a_real_master_does() {
    let master = Simulated::start(&["--subscribers-max", "2"]);
    let mut streams = [(); 4].map(|()| master.subscribe());
    streams.iter_mut().for_each(|events| drop(begin(events)));
    assert_eq!([streams[0].end(), streams[1].end()], [End::Ended, End::Ended]);
    master.control(json!({"kill": {"name": "search"}}));
    for events in &mut streams[2..] {
        assert_eq!(events.event()["type"], "TASK_UPDATED");
    }
    master.control(json!({"stage": "down"}));
    let ends = streams.map(|mut events| events.end());
    assert_eq!(ends[2..], [End::Closed, End::Closed]);
    for (index, end) in [End::Ended, End::Ended, End::Closed, End::Closed].into_iter().enumerate() {
        assert_eq!(recorded_end(&format!("13-subscriber-limit/stream-{index}")), end);
    }
}

#[test]
fn who_reads_too_slowly_is_cut_off() {
    let master = Simulated::start(&["--backlog-max", "1000"]);
    let mut slow = master.subscribe();
    // More than the kernel and the HTTP library keep for one connection.
    let start = json!({"start": {"framework": "marathon", "name": "web", "count": 300}});
    for _ in 0..30 {
        master.control(start.clone());
    }
    assert_eq!(slow.end(), End::Closed);
    let mut events = master.subscribe();
    begin(&mut events);
    assert!(so_far(&master, &mut events).is_empty());
}

#[test]
fn a_silent_stream_stays_open_and_says_nothing() {
    let master = Simulated::start(&["--heartbeat", "0.02"]);
    let mut events = master.subscribe();
    begin(&mut events);
    assert_eq!(master.control(json!({"silence": true})), json!({"streams": 1}));
    // What was on its way may still arrive.
    while !events.is_quiet(Duration::from_millis(300)) {
        assert_eq!(events.next().unwrap()["type"], "HEARTBEAT");
    }
    let start = json!({"start": {"framework": "marathon", "name": "held"}});
    let started = master.control(start)["started"][0].clone();
    assert!(events.is_quiet(Duration::from_millis(300)));
    let mut another = master.subscribe();
    begin(&mut another);
    assert_eq!(another.next().unwrap()["type"], "HEARTBEAT");
    master.control(json!({"silence": false}));
    assert_eq!(events.event()["task_added"]["task"]["task_id"]["value"], started);
}
