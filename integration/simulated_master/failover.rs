//! The stages of a failover, against the recorded ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::stream::{begin, recorded as recorded_stream, so_far};
use super::{recorded, tasks, timeless};
use crate::simulated::{End, Request, Simulated};

/// What a stage is known by: which lists are empty, and how the frameworks stand.
fn stage(state: &Value) -> Value {
    let is_empty = |list: &Value| list.as_array().unwrap().is_empty();
    let framework = |known: &Value| {
        let standing = json!({"active": known["active"], "connected": known["connected"],
            "recovered": known["recovered"], "registered": known["registered_time"] != 0.0,
            "no tasks": is_empty(&known["tasks"]),
            "no history": is_empty(&known["completed_tasks"]) && is_empty(&known["unreachable_tasks"])});
        (known["name"].as_str().unwrap().to_owned(), standing)
    };
    let frameworks = state["frameworks"].as_array().unwrap();
    let frameworks: BTreeMap<String, Value> = frameworks.iter().map(framework).collect();
    let empty =
        ["slaves", "recovered_slaves", "completed_frameworks"].map(|key| is_empty(&state[key]));
    json!({"empty": empty, "frameworks": frameworks,
        "away": [&state["deactivated_slaves"], &state["unreachable_slaves"]]})
}

#[track_caller]
fn is_at(master: &Simulated, folder: &str) {
    let theirs = recorded(&format!("{folder}/state.json"));
    assert_eq!(stage(&master.get("/state")), stage(&theirs), "{folder}");
    let empty = |slaves: &Value| {
        ["slaves", "recovered_slaves"].map(|key| slaves[key].as_array().unwrap().is_empty())
    };
    let theirs = recorded(&format!("{folder}/slaves.json"));
    assert_eq!(empty(&master.get("/slaves")), empty(&theirs), "{folder}");
    let lists = |state: &Value| -> BTreeMap<String, bool> {
        let groups = state["get_state"].as_object().unwrap().values();
        let lists = groups.flat_map(|group| group.as_object().unwrap());
        lists.map(|(key, list)| (key.clone(), list.as_array().unwrap().is_empty())).collect()
    };
    let theirs = recorded(&format!("{folder}/v1-get_state.json"));
    assert_eq!(lists(&master.call("GET_STATE")), lists(&theirs), "{folder}");
}

#[test]
fn a_new_leader_knows_of_the_cluster_what_a_real_one_knows() {
    let master = Simulated::start(&["--tasks", "60", "--agents", "2", "--elected-ago", "60"]);
    master.control(json!({"kill": {"name": "search"}}));
    master.control(json!({"teardown": "chronos"}));
    let before = master.get("/state");
    master.control(json!({"stage": "down"}));
    master.control(json!({"stage": "recovering", "new-process": true}));
    let recovering = master.get("/state");
    assert_eq!(stage(&recovering), stage(&recorded("11-elected-but-recovering/state.json")));
    assert_eq!(master.send(&Request::call("SUBSCRIBE")).status, "503 Service Unavailable");
    master.control(json!({"stage": "recovered"}));
    is_at(&master, "9a-failover-nobody-back");
    master.control(json!({"frameworks-back": ["marathon"]}));
    is_at(&master, "9b-failover-marathon-back");
    assert_eq!(master.control(json!({"agents-back": 1})), json!({"back": 1}));
    is_at(&master, "9c-failover-one-agent-back");
    assert_eq!(master.control(json!({"agents-back": 1})), json!({"back": 1}));
    is_at(&master, "9d-failover-both-agents-back");
    assert_eq!(master.control(json!({"frameworks-back": true})), json!({"back": ["aurora"]}));
    is_at(&master, "9e-failover-all-back");
    let after = master.get("/state");
    assert_ne!((&after["id"], &after["start_time"]), (&before["id"], &before["start_time"]));
    assert_eq!(after["elected_time"], recovering["elected_time"]);
    assert!(after["elected_time"].as_f64() > before["elected_time"].as_f64());
    assert_eq!(ids(&after), ids(&before));
}

#[test]
fn who_stops_leading_while_it_answers_shows_no_empty_cluster() {
    let master = Simulated::start(&["--tasks", "300"]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..300 {
                master.control(json!({"stage": "no-leader"}));
                master.control(json!({"stage": "running"}));
            }
            over.store(true, Ordering::Release);
        });
        while !over.load(Ordering::Acquire) {
            let answer = master.send(&Request::get("/state"));
            if answer.status == "200 OK" {
                let state: Value = serde_json::from_slice(&answer.body).unwrap();
                assert_ne!(state["slaves"], json!([]));
            }
        }
    });
}

fn ids(state: &Value) -> BTreeSet<(&str, &str)> {
    let tasks = tasks(state).into_iter();
    tasks.map(|task| (task["id"].as_str().unwrap(), task["slave_id"].as_str().unwrap())).collect()
}

/// What the stream tells of agents and frameworks that come back: the kinds of its events, each with
/// the framework by the order of their appearance, and as one where the same comes again.
fn story(records: &[Value]) -> Vec<String> {
    let mut frameworks = vec![];
    let mut story = vec![];
    for record in records {
        let kind = record["type"].as_str().unwrap();
        let part = &record[kind.to_lowercase()];
        let id = match kind {
            "FRAMEWORK_ADDED" | "FRAMEWORK_UPDATED" => &part["framework"]["framework_info"]["id"],
            "TASK_ADDED" => &part["task"]["framework_id"],
            "AGENT_ADDED" => &Value::Null,
            // Health checks went on during the recording.
            _ => continue,
        };
        if !id.is_null() && !frameworks.contains(id) {
            frameworks.push(id.clone());
        }
        let framework = frameworks.iter().position(|known| known == id);
        let recovered = &part["framework"]["recovered"];
        story.push(format!("{kind} {framework:?} {recovered}"));
    }
    story.dedup();
    story
}

#[test]
fn agents_and_frameworks_come_back_in_the_order_of_a_real_master() {
    let options = ["--recovered", "--agents", "2", "--frameworks", "2", "--tasks", "40"];
    let master = Simulated::start(&options);
    let mut events = master.subscribe();
    let first = begin(&mut events);
    let agents = &first["subscribed"]["get_state"]["get_agents"];
    assert_eq!(agents["recovered_agents"].as_array().unwrap().len(), 2);
    for change in [
        json!({"frameworks-back": ["marathon"]}),
        json!({"agents-back": 1}),
        json!({"agents-back": true}),
        json!({"frameworks-back": ["chronos"]}),
    ] {
        master.control(change);
    }
    let ours = so_far(&master, &mut events);
    let theirs = recorded_stream("9-failover-stream/subscribe-json");
    assert_eq!(story(&ours), story(&theirs));
    let tasks = ours.iter().filter(|event| event["type"] == "TASK_ADDED");
    assert_eq!(tasks.count(), 40);
}

#[test]
fn an_unreachable_agent_comes_back_behind_its_tasks_as_in_the_recording() {
    let master = Simulated::start(&["--tasks", "60"]);
    let mut events = master.subscribe();
    begin(&mut events);
    let whole = timeless(master.get("/state"));
    let lost = master.control(json!({"agent-unreachable": 0}))["tasks"].clone();
    let state = master.get("/state");
    let unreachable: BTreeSet<String> = state["frameworks"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|framework| framework["unreachable_tasks"].as_array().unwrap())
        .map(|task| task["id"].as_str().unwrap().to_owned())
        .collect();
    let lost: BTreeSet<String> =
        lost.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    assert_eq!(unreachable, lost);
    assert_eq!(state["slaves"].as_array().unwrap().len(), 2);
    assert_eq!(stage(&state)["away"], stage(&recorded("6-agent-lost/state.json"))["away"]);
    master.control(json!({"agent-back": 0}));
    let told = so_far(&master, &mut events);
    let kinds: Vec<_> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let (before, after) = kinds.split_at(lost.len());
    assert!(before.iter().all(|kind| *kind == "TASK_UPDATED"));
    let (last, tasks) = after.split_last().unwrap();
    assert_eq!((*last, tasks.len()), ("AGENT_ADDED", lost.len()));
    assert!(tasks.iter().all(|kind| *kind == "TASK_ADDED"));
    master.control(json!({"kill": {"name": "mark"}}));
    let mut back = timeless(master.get("/state"));
    back["frameworks"][0]["completed_tasks"] = json!([]);
    assert_eq!(back, whole);
}

#[test]
fn agents_that_never_come_back_leave_without_a_word_and_with_their_tasks() {
    let master = Simulated::start(&["--tasks", "90", "--lost-agents", "1"]);
    let mut events = master.subscribe();
    begin(&mut events);
    let before = master.get("/state");
    assert_eq!(master.control(json!({"agents-gone": true})), json!({"gone": 1}));
    assert!(so_far(&master, &mut events).is_empty());
    let state = master.get("/state");
    assert_eq!(state["recovered_slaves"], json!([]));
    assert_eq!(state["unreachable_slaves"], 1.0);
    assert_eq!(tasks(&state).len(), tasks(&before).len() + 1);
    // Late, but it has not been told to go.
    master.control(json!({"agent-back": 3}));
    assert_eq!(tasks(&master.get("/state")).len(), 91);
}

#[test]
fn a_master_that_is_down_answers_nobody_until_it_is_back() {
    let master = Simulated::start(&[]);
    let mut events = master.subscribe();
    begin(&mut events);
    let mut idle = master.connect(&Request::get("/health"));
    master.control(json!({"stage": "down"}));
    assert_eq!(events.end(), End::Closed);
    for path in ["/state", "/health", "/redirect"] {
        let mut answer = vec![];
        let read = master.connect(&Request::get(path)).read_to_end(&mut answer);
        assert!(read.is_err() || answer.is_empty(), "{path}");
    }
    let mut rest = vec![];
    // It may have been answered before, but has no connection for another request.
    let read = idle.read_to_end(&mut rest);
    assert!(read.is_err() || rest.is_empty() || rest.starts_with(b"HTTP/1.1 200 OK"));
    master.control(json!({"stage": "running"}));
    assert_eq!(tasks(&master.get("/state")).len(), 20);
    let started_down = Simulated::start(&["--down"]);
    let mut answer = vec![];
    let read = started_down.connect(&Request::get("/state")).read_to_end(&mut answer);
    assert!(read.is_err() || answer.is_empty());
    started_down.control(json!({"stage": "running"}));
    assert_eq!(tasks(&started_down.get("/state")).len(), 20);
}

#[test]
fn another_master_takes_the_same_cluster_over() {
    let first = Simulated::start(&["--seed", "5", "--tasks", "80"]);
    let second = Simulated::start(&["--seed", "5", "--tasks", "80", "--leader", &first.address]);
    for change in [
        json!({"start": {"framework": "marathon", "name": "web", "count": 3}}),
        json!({"move": {"name": "web"}}),
        json!({"kill": {"name": "search"}}),
    ] {
        assert_eq!(first.control(change.clone()), second.control(change));
    }
    let before = first.get("/state");
    first.control(json!({"stage": "down"}));
    for change in [
        json!({"stage": "recovering"}),
        json!({"stage": "recovered"}),
        json!({"frameworks-back": true}),
        json!({"agents-back": true}),
    ] {
        second.control(change);
    }
    let after = second.get("/state");
    assert_eq!(ids(&after), ids(&before));
    assert_ne!(after["id"], before["id"]);
    assert!(after["elected_time"].as_f64() > before["elected_time"].as_f64());
    let names = |state: &Value| -> Vec<(String, String)> {
        let frameworks = state["frameworks"].as_array().unwrap().iter();
        let agents = state["slaves"].as_array().unwrap().iter();
        let name = |value: &Value, key| value[key].as_str().unwrap().to_owned();
        let named = frameworks.map(|framework| (name(framework, "id"), name(framework, "name")));
        named.chain(agents.map(|agent| (name(agent, "id"), name(agent, "pid")))).collect()
    };
    assert_eq!(names(&after), names(&before));
    first.control(json!({"leader": second.address}));
    let answer = first.send(&Request::get("/state"));
    let location = format!("//{}/master/state", second.address);
    assert_eq!(answer.headers["location"], location);
}

#[test]
fn only_a_new_leadership_has_a_new_time_and_only_a_new_process_a_new_id() {
    let master = Simulated::start(&["--elected-ago", "60"]);
    let mut last = master.get("/state");
    for (change, is_elected, is_new) in [
        (json!({"lose-agents": 1}), false, false),
        (json!({"stage": "running"}), false, false),
        (json!({"stage": "recovering"}), false, false),
        (json!({"stage": "running"}), false, false),
        (json!({"stage": "recovered"}), true, false),
        (json!({"stage": "running", "new-process": true}), true, true),
        (json!({"stage": "recovering", "new-process": true}), true, true),
        (json!({"stage": "recovered"}), false, false),
    ] {
        master.control(change.clone());
        let state = master.get("/state");
        assert_eq!(state["elected_time"] != last["elected_time"], is_elected, "{change}");
        assert_eq!(state["id"] != last["id"], is_new, "{change}");
        last = state;
    }
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let master = Simulated::start(&[]);
    let before = master.get("/state");
    for change in [
        json!({"agent-back": 0}),
        json!({"agent-unreachable": 9}),
        json!({"teardown": "nobody"}),
        json!({"frameworks-back": ["nobody"]}),
        json!({"new-framework": {"name": "marathon"}}),
        json!({"new-framework": {"name": "batch", "kind": "spark"}}),
        json!({"task-address": {"name": "nobody", "address": "10.0.0.1"}}),
        json!({"kill": {"name": "search"}, "new-process": true}),
        json!({"stage": "away"}),
        json!({"agents-back": false}),
    ] {
        let request = Request {
            method: "POST".to_owned(),
            path: "/control".to_owned(),
            headers: vec![],
            body: change.to_string(),
        };
        assert_eq!(master.send(&request).status, "400 Bad Request", "{change}");
    }
    assert_eq!(master.get("/state"), before);
}
