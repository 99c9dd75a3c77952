//! The simulated master against the recorded answers of a real one.

mod failover;
mod stream;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::simulated::{Request, Simulated, json_of, read_head};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/mesos").join(name)
}

fn recorded(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

/// Sends the recorded request and expects the recorded answer: status, headers and, where it is not
/// JSON, body.  `Date` is only checked to be one; the length of JSON differs.
#[track_caller]
fn replays(master: &Simulated, folder: &str, name: &str) {
    let text = fs::read_to_string(fixture(&format!("{folder}/{name}.headers.txt"))).unwrap();
    let (asked, answered) = text.split_once("\n\n").unwrap();
    let mut lines = asked.lines();
    let mut words = lines.next().unwrap().split(' ').skip(3);
    let mut request = Request::get("");
    request.method = words.next().unwrap().to_owned();
    request.path = words.next().unwrap().to_owned();
    for line in lines.map(|line| line.strip_prefix("> ").unwrap()) {
        match line.strip_prefix("body: ") {
            Some(body) => request.body = body.to_owned(),
            None => request.headers.push(line.to_owned()),
        }
    }
    let (status, mut headers) = read_head(&mut format!("{}\n", answered.trim_end()).as_bytes());
    let mut answer = master.send(&request);
    let date = answer.headers.remove("date").unwrap();
    assert!(httpdate::parse_http_date(&date).unwrap() <= SystemTime::now(), "{date}");
    headers.remove("date");
    if headers.get("content-type").is_some_and(|kind| kind == "application/json") {
        headers.remove("content-length");
        answer.headers.remove("content-length");
    }
    assert_eq!((answer.status, answer.headers), (status, headers), "{folder}/{name}");
    if let Ok(body) = fs::read_to_string(fixture(&format!("{folder}/{name}.txt"))) {
        assert_eq!(String::from_utf8_lossy(&answer.body), body, "{folder}/{name}");
    }
}

#[track_caller]
fn replays_all(master: &Simulated, folder: &str) {
    let mut count = 0;
    for file in fs::read_dir(fixture(folder)).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        if let Some(name) = file.strip_suffix(".headers.txt")
            && !is_self_redirect(folder, name)
        {
            replays(master, folder, name);
            count += 1;
        }
    }
    assert!(count > 5, "{folder} has {count} recordings");
}

/// A leader's redirect to itself names its own port, so it cannot be the recorded one.
fn is_self_redirect(folder: &str, name: &str) -> bool {
    name.starts_with("redirect") && !folder.starts_with("4-") && !folder.starts_with("10-")
}

#[test]
fn a_standby_redirects_as_a_real_one_does() {
    replays_all(&Simulated::start(&["--leader", "127.0.0.1:25050"]), "4-non-leader");
}

#[test]
fn a_master_without_a_leader_answers_as_a_real_one_does() {
    replays_all(&Simulated::start(&["--no-leader"]), "10-no-leader");
}

#[test]
fn a_recovering_master_shows_an_empty_state_and_refuses_calls_as_a_real_one_does() {
    let master = Simulated::start(&["--recovering"]);
    replays_all(&master, "11-elected-but-recovering");
    let (ours, theirs) = (master.get("/state"), recorded("11-elected-but-recovering/state.json"));
    for key in ["slaves", "recovered_slaves", "frameworks", "completed_frameworks"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
}

#[test]
fn a_leader_answers_and_refuses_as_a_real_one_does() {
    replays_all(&Simulated::start(&[]), "3-running");
}

#[test]
fn credentials_are_asked_for_as_a_real_master_does() {
    let master = Simulated::start(&["--auth", "dns:s3cret"]);
    for folder in ["12-auth/none", "12-auth/wrong", "12-auth/good"] {
        replays_all(&master, folder);
    }
}

#[test]
fn each_realm_has_its_own_credentials() {
    let master = Simulated::start(&["--auth-readonly", "dns:s3cret", "--auth-readwrite", "dns:x"]);
    let status = |request: Request, credentials: &str| {
        let answer = master.send(&request.with(&format!("Authorization: Basic {credentials}")));
        (answer.status, answer.headers.get("www-authenticate").cloned())
    };
    let ok = ("200 OK".to_owned(), None);
    let refused = |realm: &str| {
        let challenge = format!("Basic realm=\"mesos-master-{realm}\"");
        ("401 Unauthorized".to_owned(), Some(challenge))
    };
    // dns:s3cret, then dns:x.
    for (credentials, read_only, read_write) in [
        ("ZG5zOnMzY3JldA==", ok.clone(), refused("readwrite")),
        ("ZG5zOng=", refused("readonly"), ok.clone()),
    ] {
        for path in ["/state", "/slaves", "/state-summary", "/metrics/snapshot"] {
            assert_eq!(status(Request::get(path), credentials), read_only, "{path}");
        }
        assert_eq!(status(Request::call("GET_STATE"), credentials), read_write);
    }
}

#[test]
fn a_master_without_the_operator_api_has_no_such_page() {
    let master = Simulated::start(&["--no-v1"]);
    let answer = master.send(&Request::call("SUBSCRIBE"));
    let other = master.send(&Request::get("/nowhere"));
    assert_eq!((answer.status, answer.body), (other.status, other.body));
    assert_eq!(master.send(&Request::get("/state")).status, "200 OK");
    let master = Simulated::start(&["--v1-status", "503"]);
    assert_eq!(master.send(&Request::call("GET_STATE")).status, "503 Service Unavailable");
}

#[test]
fn a_leader_redirects_to_itself_even_without_credentials() {
    let master = Simulated::start(&["--auth", "dns:s3cret"]);
    let answer = master.send(&Request::get("/master/redirect"));
    assert_eq!(answer.status, "307 Temporary Redirect");
    assert_eq!(answer.headers["location"], format!("//{}", master.address));
}

#[test]
fn a_call_of_another_content_type_is_refused() {
    let mut call = Request::call("GET_STATE");
    call.headers = vec!["Content-Type: text/xml".to_owned()];
    assert_eq!(Simulated::start(&[]).send(&call).status, "415 Unsupported Media Type");
}

/// Collects `path: type` of all that is in the value, the members of an array merged.  Tasks that
/// ended or are unreachable count as tasks, and frameworks that ended as frameworks: which members
/// they have depends on what they are, not on their end.
fn types(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    found.insert(format!("{path}: {kind}"));
    for (key, member) in value.as_object().into_iter().flatten() {
        let key = key.trim_start_matches("completed_").trim_start_matches("unreachable_");
        types(member, &format!("{path}.{key}"), found);
    }
    for member in value.as_array().into_iter().flatten() {
        types(member, &format!("{path}[]"), found);
    }
}

/// What the recordings have and the simulation has not: the part of the path, and why.
const ABSENT: [(&str, &str); 8] = [
    ("task_added.task.statuses[].message", "no health check says why it failed"),
    ("container_id.parent", "no pods, so no nested containers"),
    ("executors[].labels", "only the executor of a pod had labels"),
    ("executor_info.labels", "only the executor of a pod had labels"),
    ("container_status.network_infos[].groups", "no network has groups"),
    ("container_status.network_infos[].labels", "no network has labels"),
    ("reservations", "no task takes a reserved port"),
    ("check_status", "health checks only, no general checks"),
];

#[track_caller]
fn has_the_types_of(ours: &[Value], theirs: &[&str]) {
    let (mut simulated, mut real) = (BTreeSet::new(), BTreeSet::new());
    ours.iter().for_each(|value| types(value, "", &mut simulated));
    theirs.iter().for_each(|name| types(&recorded(name), "", &mut real));
    let extra: Vec<_> = simulated.difference(&real).collect();
    let missing: Vec<_> = real
        .difference(&simulated)
        .filter(|path| !ABSENT.iter().any(|(part, _)| path.contains(part)))
        .collect();
    assert!(extra.is_empty() && missing.is_empty(), "extra {extra:#?}\nmissing {missing:#?}");
}

/// The folders in which something had ended, was lost or was not back.
const FOLDERS: [&str; 8] = [
    "3-running",
    "5-after-kills-teardown-disconnect",
    "6-agent-lost",
    "8-agent-left-agent-gone",
    "8b-agent-deactivated",
    "9a-failover-nobody-back",
    "9c-failover-one-agent-back",
    "16a-agent-disconnected",
];

#[test]
fn every_answer_has_the_keys_and_types_of_a_real_one() {
    let master = Simulated::start(&["--tasks", "400", "--lost-agents", "2"]);
    for name in ["search", "checkout", "billing"] {
        master.control(json!({"kill": {"name": name}}));
    }
    let paths = ["/state", "/slaves", "/state-summary"];
    let mut ours: Vec<Vec<Value>> = paths.map(|path| vec![master.get(path)]).to_vec();
    let mut in_v1 = vec![master.call("GET_STATE")];
    for change in [
        json!({"teardown": "chronos"}),
        json!({"framework-disconnected": "aurora"}),
        json!({"agent-unreachable": 0}),
        json!({"agent-leaves": 1}),
        json!({"agent-marked-gone": 2}),
        json!({"agent-deactivated": 3}),
        json!({"agent-disconnected": 4}),
        json!({"frameworks-back": true}),
        json!({"stage": "recovered"}),
        json!({"agents-back": 3}),
    ] {
        master.control(change);
        ours.iter_mut().zip(paths).for_each(|(ours, path)| ours.push(master.get(path)));
        in_v1.push(master.call("GET_STATE"));
    }
    ours.push(in_v1);
    for (ours, name) in ours.iter().zip(["state", "slaves", "state-summary", "v1-get_state"]) {
        let names = FOLDERS.map(|folder| format!("{folder}/{name}.json"));
        let theirs: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| fixture(name).exists()).collect();
        assert!(theirs.len() > 2, "{name}");
        has_the_types_of(ours, &theirs);
    }
    has_the_types_of(&[master.get("/version")], &["3-running/version.json"]);
    has_the_types_of(&[master.call("GET_MASTER")], &["3-running/v1-get_master.json"]);
    has_the_types_of(&[master.call("GET_VERSION")], &["3-running/v1-get_version.json"]);
    has_the_types_of(&[master.call("GET_HEALTH")], &["3-running/v1-get_health.json"]);
}

#[test]
fn the_old_driver_gives_a_framework_the_address_of_its_scheduler_but_not_in_v1() {
    let master = Simulated::start(&["--scheduler-pids"]);
    for path in ["/state", "/state-summary"] {
        let pid = &master.get(path)["frameworks"][0]["pid"];
        let (name, address) = pid.as_str().unwrap().split_once('@').unwrap();
        assert!(name.starts_with("scheduler-"), "{name}");
        assert_eq!(address, "10.0.255.1:36000", "{path}");
    }
    let v1 = master.call("GET_STATE");
    let framework = &v1["get_state"]["get_frameworks"]["frameworks"][0];
    assert!(!framework.to_string().contains("scheduler-"), "{framework}");
}

#[test]
fn the_summary_counts_what_the_state_lists() {
    let master = Simulated::start(&["--tasks", "200", "--agents", "8"]);
    master.control(json!({"kill": {"name": "search", "count": 2}}));
    master.control(json!({"agent-unreachable": 0}));
    let (state, summary) = (master.get("/state"), master.get("/state-summary"));
    assert_eq!(summary["slaves"].as_array().unwrap().len(), 7);
    let frameworks = state["frameworks"].as_array().unwrap();
    for (listed, counted) in frameworks.iter().zip(summary["frameworks"].as_array().unwrap()) {
        let all = ["tasks", "unreachable_tasks", "completed_tasks"];
        let tasks = all.iter().flat_map(|key| listed[key].as_array().unwrap());
        let tasks: Vec<_> = tasks.collect();
        for state in ["TASK_RUNNING", "TASK_KILLED", "TASK_LOST", "TASK_UNREACHABLE"] {
            let count = tasks.iter().filter(|task| task["state"] == state).count();
            assert_eq!(counted[state], count, "{state}");
        }
        let agents: BTreeSet<_> = tasks.iter().map(|task| task["slave_id"].to_string()).collect();
        assert_eq!(counted["slave_ids"].as_array().unwrap().len(), agents.len());
    }
}

fn tasks(state: &Value) -> Vec<&Value> {
    let frameworks = state["frameworks"].as_array().unwrap();
    frameworks.iter().flat_map(|framework| framework["tasks"].as_array().unwrap()).collect()
}

fn named<'a>(state: &'a Value, name: &str) -> Vec<&'a Value> {
    tasks(state).into_iter().filter(|task| task["name"] == name).collect()
}

fn address(task: &Value) -> &str {
    let last = task["statuses"].as_array().unwrap().last().unwrap();
    let network = &last["container_status"]["network_infos"][0];
    network["ip_addresses"][0]["ip_address"].as_str().unwrap()
}

#[test]
fn the_mix_of_tasks_is_that_of_a_real_cluster() {
    let state = Simulated::start(&["--tasks", "1000"]).get("/state");
    let tasks = tasks(&state);
    assert_eq!(tasks.len(), 1000);
    let agents: BTreeSet<String> = state["slaves"]
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| agent["pid"].as_str().unwrap())
        .map(|pid| pid.trim_start_matches("slave(1)@").trim_end_matches(":5051").to_owned())
        .collect();
    assert_eq!(agents.len(), 50);
    let own: Vec<_> =
        tasks.iter().map(|task| address(task)).filter(|a| !agents.contains(*a)).collect();
    assert_eq!(own.iter().collect::<BTreeSet<_>>().len(), own.len(), "addresses are unique");
    assert!((350..=450).contains(&own.len()), "{} with an address of their own", own.len());
    let discovered = tasks.iter().filter(|task| task["discovery"].is_object()).count();
    assert!((750..=850).contains(&discovered), "{discovered} with discovery");
}

#[test]
fn search_is_there_in_the_smallest_cluster() {
    let state = Simulated::start(&[]).get("/state");
    let search = named(&state, "search");
    assert_eq!(search.len(), 3);
    let agents: BTreeSet<_> = search.iter().map(|task| address(task)).collect();
    assert_eq!(agents.len(), 3, "one on each agent");
    for task in search {
        let port = &task["discovery"]["ports"]["ports"][0];
        assert_eq!((&port["name"], &port["protocol"]), (&json!("http"), &json!("tcp")));
        assert_eq!(task["statuses"][1]["healthy"], true);
    }
}

/// The state without what depends on the clock and the port.
fn timeless(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        if let Value::Object(members) = value {
            members.retain(|key, _| key != "timestamp" && !key.ends_with("_time"));
            members.values_mut().for_each(strip);
        } else if let Value::Array(members) = value {
            members.iter_mut().for_each(strip);
        }
    }
    for key in ["id", "pid", "leader", "leader_info", "flags"] {
        value.as_object_mut().unwrap().remove(key).unwrap();
    }
    strip(&mut value);
    value
}

#[test]
fn the_same_seed_makes_the_same_cluster() {
    let state =
        |seed| timeless(Simulated::start(&["--seed", seed, "--tasks", "200"]).get("/state"));
    assert_eq!(state("7"), state("7"));
    assert_ne!(state("7"), state("8"));
}

#[test]
fn churn_replaces_tasks_by_others_of_the_same_app() {
    let master = Simulated::start(&["--churn", "200/s"]);
    let names = |state: &Value| {
        let mut names: Vec<_> = tasks(state).iter().map(|task| task["name"].clone()).collect();
        names.sort_by_key(Value::to_string);
        names
    };
    let ids = |state: &Value| -> BTreeSet<String> {
        tasks(state).iter().map(|task| task["id"].to_string()).collect()
    };
    let first = master.get("/state");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let next = master.get("/state");
        assert_eq!(names(&first), names(&next));
        if ids(&first).is_disjoint(&ids(&next)) {
            return;
        }
        assert!(Instant::now() < deadline, "some task is never replaced");
    }
}

#[test]
fn tasks_start_move_and_end_on_request() {
    let master = Simulated::start(&[]);
    let start = json!({"start": {"framework": "marathon", "name": "web", "count": 2}});
    assert_eq!(master.control(start)["started"].as_array().unwrap().len(), 2);
    let state = master.get("/state");
    let before: BTreeSet<_> =
        named(&state, "web").iter().map(|task| task["slave_id"].to_string()).collect();
    assert_eq!(named(&state, "web").len(), 2);
    assert_eq!(named(&state, "web")[0]["discovery"]["ports"]["ports"][0]["name"], "http");
    let moved = master.control(json!({"move": {"name": "web"}}));
    assert_ne!(moved["started"], moved["ended"]);
    let state = master.get("/state");
    let after: BTreeSet<_> =
        named(&state, "web").iter().map(|task| task["slave_id"].to_string()).collect();
    assert_ne!(before, after);
    assert_eq!(
        master.control(json!({"kill": {"name": "web", "count": 9}}))["ended"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert!(named(&master.get("/state"), "web").is_empty());
}

#[test]
fn lost_agents_take_their_tasks_along_and_bring_them_back() {
    let master = Simulated::start(&["--tasks", "100"]);
    let whole = timeless(master.get("/state"));
    assert_eq!(master.control(json!({"lose-agents": 2})), json!({"lost": 2}));
    let state = master.get("/state");
    assert_eq!(state["slaves"].as_array().unwrap().len(), 3);
    assert_eq!(state["recovered_slaves"].as_array().unwrap().len(), 2);
    assert!(tasks(&state).len() < 100);
    let v1 = master.call("GET_STATE");
    let listed = v1["get_state"]["get_tasks"]["tasks"].as_array().unwrap();
    assert_eq!(listed.len(), tasks(&state).len());
    assert_eq!(master.control(json!({"agents-back": true})), json!({"back": 2}));
    assert_eq!(timeless(master.get("/state")), whole);
}

#[test]
fn a_standby_that_enters_running_leads_from_then_on() {
    let master = Simulated::start(&["--leader", "127.0.0.1:1"]);
    assert_eq!(master.send(&Request::get("/state")).status, "307 Temporary Redirect");
    master.control(json!({"stage": "recovering"}));
    assert!(tasks(&master.get("/state")).is_empty());
    master.control(json!({"stage": "running"}));
    let state = master.get("/state");
    assert_eq!(tasks(&state).len(), 20);
    assert!(state["elected_time"].as_f64() > state["slaves"][0]["registered_time"].as_f64());
    master.control(json!({"stage": "no-leader"}));
    assert_eq!(master.send(&Request::get("/state")).status, "503 Service Unavailable");
}

#[test]
fn elected_ago_says_when_the_master_was_elected() {
    let state = Simulated::start(&["--elected-ago", "30"]).get("/state");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let ago = now - state["elected_time"].as_f64().unwrap();
    assert!((30.0..90.0).contains(&ago), "{ago}");
}

#[test]
fn a_body_is_gzipped_for_who_takes_it() {
    let master = Simulated::start(&["--tasks", "300"]);
    let plain = master.send(&Request::get("/state"));
    assert!(!plain.headers.contains_key("content-encoding"));
    for _ in 0..2 {
        let zipped = master.send(&Request::get("/state").with("Accept-Encoding: gzip"));
        assert_eq!(zipped.headers["content-encoding"], "gzip");
        let mut body = Vec::new();
        GzDecoder::new(&zipped.body[..]).read_to_end(&mut body).unwrap();
        assert!(body == plain.body);
    }
    master.control(json!({"kill": {"name": "search"}}));
    let mut zipped = master.send(&Request::get("/state").with("Accept-Encoding: gzip"));
    let mut body = Vec::new();
    GzDecoder::new(&zipped.body[..]).read_to_end(&mut body).unwrap();
    zipped.body = body;
    assert_eq!(named(&json_of(zipped), "search").len(), 2);
    let short = master.send(&Request::get("/version").with("Accept-Encoding: gzip"));
    assert!(!short.headers.contains_key("content-encoding"), "below 1024 octets");
}

#[test]
fn a_cut_body_has_no_last_chunk() {
    let master = Simulated::start(&["--cut-body", "--tasks", "200"]);
    let mut stream = master.connect(&Request::get("/state"));
    let (status, headers) = read_head(&mut stream);
    assert_eq!((status.as_str(), headers["transfer-encoding"].as_str()), ("200 OK", "chunked"));
    let mut body = Vec::new();
    stream.read_to_end(&mut body).unwrap();
    assert!(body.len() > 100_000 && !body.ends_with(b"0\r\n\r\n"));
}

#[test]
fn a_recorded_folder_is_served_as_it_is() {
    let folder = fixture("3-running");
    let master = Simulated::start(&["--serve", folder.to_str().unwrap()]);
    let bodies = [
        (Request::get("/master/state"), "state"),
        (Request::get("/slaves"), "slaves"),
        (Request::call("GET_STATE"), "v1-get_state"),
    ];
    for (request, name) in bodies {
        let recorded = fs::read(folder.join(format!("{name}.json"))).unwrap();
        assert!(master.send(&request).body == recorded, "{name}");
    }
}
