//! What is told over HTTP: the API of mesos-dns, health, status, plans and approvals, metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::masters::{Canned, answer};
use crate::peer::{Peer, Setup};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::Site;

const TOKEN: &str = "correct-horse-battery-staple";

/// A `mesozone run` that can be looked at.
pub(crate) struct Looked {
    pub(crate) daemon: Daemon,
    pub(crate) address: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answered {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Adds `[http]` with a token to a site's configuration.
pub(crate) fn with_token(site: &Site) {
    let path = site.path("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    site.add(&format!("[http]\nlisten = \"127.0.0.1:0\"\ntoken_file = {path:?}\n"));
}

impl Looked {
    #[track_caller]
    pub(crate) fn start(site: &Site) -> Looked {
        let mut daemon = Daemon::start(site);
        let line = daemon.says("HTTP on http://");
        let address = line.split("http://").nth(1).unwrap().trim_end_matches('/').to_owned();
        Looked { daemon, address }
    }

    /// Sends what `curl` makes of this.
    #[track_caller]
    pub(crate) fn curl(&self, path: &str, options: &[&str]) -> Answered {
        let url = format!("http://{}{path}", self.address);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--max-time", "60", "--globoff"]);
        let output = curl.args(options).arg(url).output().unwrap();
        assert!(output.status.success(), "{path}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answered { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answered {
        self.curl(path, &[])
    }

    #[track_caller]
    pub(crate) fn json(&self, path: &str) -> Value {
        let answered = self.get(path);
        assert_eq!(answered.status, 200, "{path}: {answered:?}");
        answered.json()
    }

    /// The target in `/v1/status`.
    pub(crate) fn target(&self) -> Value {
        self.json("/v1/status")["targets"][0].clone()
    }

    /// The value of a metric, with its labels as they are written.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").body;
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let (_, value) = lines.find(|(series, _)| *series == format!("mesozone_{name}"))?;
        Some(value.parse().unwrap())
    }

    fn approve(&self, id: &str, options: &[&str]) -> Answered {
        self.curl(&format!("/v1/plan/{id}/approve"), &[&["--request", "POST"], options].concat())
    }
}

/// A site whose simulated master has forty tasks of `app` and five more.
fn site_of_forty(master: &Simulated, target: &str) -> Site {
    let site = Site::start(Peer::Bind, &Setup::default());
    site.configure(&site.peer.addr().to_string(), site.peer.key_file(), target, "");
    site.follow(&[format!("http://{}", master.address)], "");
    with_token(&site);
    start(master, 40);
    site
}

fn start(master: &Simulated, count: usize) {
    master.control(json!({"start": {"framework": "marathon", "name": "app", "count": count}}));
}

fn kill(master: &Simulated, count: usize) {
    master.control(json!({"kill": {"name": "app", "count": count}}));
}

/// The bodies that mesos-dns answered, by path.
fn recorded(folder: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder.join("mesos-dns-http.txt")).unwrap();
    let exchange = |part: &str| {
        let (path, rest) = part.split_once('\n').unwrap();
        let body = rest.split_once("\n\n").unwrap().1;
        (path.to_owned(), body.split("\n<<<").next().unwrap().to_owned())
    };
    text.split(">>> GET ").skip(1).map(exchange).collect()
}

fn case() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/cases/real-mesos-running")
}

/// A `run` that reads the recorded state of that case.
fn recorded_cluster() -> (Site, Looked) {
    let state = std::fs::read_to_string(case().join("state.json")).unwrap();
    let master = Canned::start(move |_| {
        let length = format!("Content-Length: {}", state.len());
        let date = "Date: Thu, 26 Nov 2026 12:00:00 GMT";
        answer("200 OK", &[date, &length], state.as_bytes())
    });
    let site = Site::start(Peer::Bind, &Setup::default());
    let settings: Value =
        serde_json::from_slice(&std::fs::read(case().join("case.json")).unwrap()).unwrap();
    // The first is asked; the others number `masterN`, as they did when this was recorded.
    let masters: Vec<&str> =
        settings["masters"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    let mut asked = vec![format!("http://{}", master.address)];
    asked.extend(masters[1..].iter().map(|master| format!("http://{master}")));
    site.follow(&asked, "watch = \"poll\"\nfailover_hold = \"0s\"");
    with_token(&site);
    let mut looked = Looked::start(&site);
    looked.daemon.says("state read from");
    (site, looked)
}

/// A list in an order of its own.
fn sorted(value: &Value) -> Vec<String> {
    let mut all: Vec<String> = value.as_array().unwrap().iter().map(Value::to_string).collect();
    all.sort();
    all
}

#[test]
fn the_api_of_mesos_dns_answers_as_it_did_less_its_faults() {
    let (_site, looked) = recorded_cluster();
    let (mut compared, mut empty) = (0, 0);
    for (path, body) in recorded(&case()) {
        let looks_up = path.starts_with("/v1/hosts/") || path.starts_with("/v1/services/");
        if !looks_up || path.ends_with("/ports") {
            continue;
        }
        let theirs: Value = serde_json::from_str(&body).unwrap();
        let ours = looked.json(&path);
        // Nothing found was one element of empty texts.
        if theirs[0].as_object().unwrap().values().all(|value| value == "") {
            assert_eq!(ours, json!([]), "{path}");
            empty += 1;
            continue;
        }
        // The state was saved from a master on another port.
        let theirs = serde_json::from_str(&body.replace("\"5050\"", "\"25050\"")).unwrap();
        // Of several addresses of one target one was chosen by chance.
        assert_eq!(sorted(&ours), sorted(&theirs), "{path}");
        compared += 1;
    }
    assert!((compared, empty) >= (9, 2), "{compared} compared, {empty} found nothing");
    assert_eq!(looked.json("/v1/version")["Service"], "mesozone");
    assert_eq!(looked.json("/v1/version/"), looked.json("/v1/version"));
    for path in ["/v1/nothing", "/nothing", "/v1/hosts/web.marathon.mesos/ports"] {
        let answered = looked.get(path);
        assert_eq!((answered.status, answered.body.trim()), (404, "404: Page Not Found"), "{path}");
    }
    let posted = looked.curl("/v1/version", &["--request", "POST"]);
    assert_eq!((posted.status, posted.body.trim()), (405, "405: Method Not Allowed"));
    assert_eq!(looked.get("/v1/hosts/a..b").status, 400);
}

#[test]
fn the_whole_zone_is_told_in_the_shape_of_mesos_dns() {
    let (_site, looked) = recorded_cluster();
    let (ours, theirs) = (looked.json("/v1/axfr"), recorded(&case())["/v1/axfr"].clone());
    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&ours), keys(&theirs));
    for key in ["TTL", "Mname", "Rname", "Domain"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    // Exactly the records of the case, which others compare with those of mesos-dns.
    let mut lines = BTreeSet::new();
    for (part, rtype) in [("As", "A"), ("AAAAs", "AAAA"), ("SRVs", "SRV")] {
        for (name, hosts) in ours["Records"][part].as_object().unwrap() {
            for host in hosts.as_array().unwrap() {
                let host = host.as_str().unwrap();
                lines.insert(match (rtype, host.rsplit_once(':')) {
                    ("SRV", Some((target, port))) => format!("{name}\tSRV\t0 1 {port} {target}"),
                    _ => format!("{name}\t{rtype}\t{host}"),
                });
            }
        }
    }
    let expected = std::fs::read_to_string(case().join("records.txt")).unwrap();
    let is_master = |line: &str| line.starts_with("master");
    let expected: BTreeSet<String> = expected.lines().map(str::to_owned).collect();
    // The masters of the recording listened where nobody does here.
    let differ: Vec<&String> =
        lines.symmetric_difference(&expected).filter(|line| !is_master(line)).collect();
    assert!(differ.is_empty(), "{differ:?}");
    let same = |part: &str| {
        let ours = ours["Records"][part].as_object().unwrap();
        let theirs = theirs["Records"][part].as_object().unwrap();
        ours.iter()
            .filter(|(name, hosts)| theirs.get(*name).is_some_and(|t| sorted(t) == sorted(hosts)))
            .count()
    };
    assert!(same("As") > 60 && same("SRVs") > 40, "{} and {}", same("As"), same("SRVs"));
}

#[test]
fn each_task_is_listed_with_all_that_it_makes() {
    let (_site, looked) = recorded_cluster();
    let theirs: Value = serde_json::from_str(&recorded(&case())["/v1/enumerate"]).unwrap();
    let ours = looked.json("/v1/enumerate");
    let tasks = |list: &Value| -> BTreeMap<String, (Value, BTreeSet<String>)> {
        let frameworks = list["frameworks"].as_array().unwrap().iter();
        let tasks = frameworks.flat_map(|framework| {
            let name = &framework["name"];
            framework["tasks"].as_array().unwrap().iter().map(move |task| (name.clone(), task))
        });
        let records = |task: &Value| -> BTreeSet<String> {
            task["records"].as_array().into_iter().flatten().map(Value::to_string).collect()
        };
        let of = |(framework, task): (Value, &Value)| {
            let about = json!([framework, task["name"]]);
            (task["id"].as_str().unwrap().to_owned(), (about, records(task)))
        };
        tasks.map(of).collect()
    };
    let (ours, theirs) = (tasks(&ours), tasks(&theirs));
    assert!(theirs.len() > 10, "{}", theirs.len());
    let mut whole = 0;
    for (id, (about, records)) in &theirs {
        let (our_about, our_records) = &ours[id];
        assert_eq!(our_about, about, "{id}");
        // Raw discovery names and labels that end in dashes are among theirs.
        whole += usize::from(records.is_subset(our_records));
        assert!(!our_records.is_empty() || id.starts_with("odd."), "{id}");
    }
    assert!(whole * 2 > theirs.len(), "{whole} of {}", theirs.len());
}

#[test]
fn no_answer_holds_a_secret_and_no_browser_runs_what_is_not_from_here() {
    let (site, looked) = recorded_cluster();
    let key = std::fs::read_to_string(site.peer.key_file()).unwrap();
    let secret = key.split("secret \"").nth(1).unwrap().split('"').next().unwrap();
    let paths = [
        "/",
        "/?name=web.marathon",
        "/page.css",
        "/page.svg",
        "/page.js",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/version",
        "/v1/config",
        "/v1/status",
        "/v1/plan",
        "/v1/axfr",
        "/v1/enumerate",
        "/v1/hosts/leader.mesos",
    ];
    for path in paths {
        let answered = looked.get(path);
        assert!(!answered.body.contains(secret) && !answered.body.contains(TOKEN), "{path}");
        let policy = "content-security-policy: default-src 'none'";
        assert!(answered.head.contains(policy), "{path}: {}", answered.head);
        assert!(answered.head.contains("x-content-type-options: nosniff"), "{path}");
    }
    let config = looked.json("/v1/config");
    assert_eq!(
        (&config["Domain"], &config["TTL"], &config["HTTPOn"]),
        (&json!("mesos"), &json!(60), &Value::Null)
    );
    assert_eq!((&config["HttpOn"], &config["DnsOn"]), (&json!(true), &json!(false)));
}

#[test]
fn what_is_told_of_a_target_is_so_while_its_server_is_down_and_back() {
    let master = Simulated::start(&["--tasks", "5"]);
    let mut site = site_of_forty(&master, "");
    let before = site.peer.axfr();
    let mut looked = Looked::start(&site);
    until("all is published", || site.published(&before) == desired(&site));
    until("it says that it is well", || looked.target()["state"] == "well");
    let target = looked.target();
    assert_eq!(target["lag_seconds"], 0.0, "{target}");
    assert_eq!((&target["fence_held"], &target["adopted"]), (&json!(true), &json!(true)));
    until("the serial is told", || looked.target()["serial"] == json!(site.peer.serial()));
    let status = looked.json("/v1/status");
    assert_eq!((&status["ready"], &status["mesos"]["tasks"]), (&json!(true), &json!(45)));
    assert_eq!(looked.get("/readyz").status, 200);
    assert_eq!(looked.metric("target_up{target=\"lab\"}"), Some(1.0));
    assert_eq!(looked.metric("stream_connected"), Some(1.0));
    assert_eq!(looked.metric("events_total{type=\"subscribed\"}"), Some(1.0));
    site.peer.kill();
    kill(&master, 3);
    until("its trouble is told", || looked.target()["state"] == "failing");
    until("it lags", || looked.target()["lag_seconds"].as_f64().unwrap() > 0.0);
    let target = looked.target();
    assert!(target["last_error"].as_str().unwrap().contains("lab"), "{target}");
    assert_eq!(looked.metric("target_up{target=\"lab\"}"), Some(0.0));
    assert_eq!(looked.get("/readyz").status, 200, "a short trouble is none");
    site.peer.start();
    until("it is well again", || looked.target()["state"] == "well");
    until("the rest is published", || site.published(&before) == desired(&site));
    // One line when it went down, one when it is back.
    let log = looked.daemon.log().to_vec();
    let of_target = |level: &str| {
        log.iter().filter(|line| line.contains(level) && line.contains("target lab")).count()
    };
    assert_eq!(of_target(" WARN "), 1, "{log:#?}");
    assert_eq!(log.iter().filter(|line| line.contains("well again")).count(), 1, "{log:#?}");
}

#[test]
fn what_is_held_is_let_go_by_who_shows_the_token_and_by_nobody_else() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = site_of_forty(&master, "max_shrink = \"20%\"");
    let before = site.peer.axfr();
    let mut looked = Looked::start(&site);
    until("all is published", || site.published(&before) == desired(&site));
    kill(&master, 30);
    looked.daemon.says("removals are held");
    until("the plan shows it", || {
        looked.json("/v1/plan")["targets"][0]["held"][0]["plan_id"].is_string()
    });
    let held = looked.json("/v1/plan")["targets"][0]["held"][0].clone();
    let (id, count) =
        (held["plan_id"].as_str().unwrap(), held["records"].as_array().unwrap().len());
    assert_eq!(looked.metric("target_held{target=\"lab\"}"), Some(count as f64));
    let full = site.published(&before);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for options in [
        vec![],
        vec!["--header", "Authorization: Bearer wrong"],
        vec!["--data", "token=wrong"],
        vec!["--user", TOKEN],
    ] {
        let refused = looked.approve(id, &options);
        assert_eq!(refused.status, 401, "{options:?}: {refused:?}");
    }
    assert_eq!(looked.get(&format!("/v1/plan/{id}/approve")).status, 405);
    assert_eq!(looked.approve("0123456789ab", &["--header", &bearer]).status, 404);
    assert_eq!(looked.approve("nonsense", &["--header", &bearer]).status, 400);
    let wrong = looked.get(&format!("/v1/plan/{id}/approve"));
    assert!(wrong.head.contains("allow: post"), "{wrong:?}");
    let long = "x".repeat(20_000);
    assert_eq!(looked.approve(id, &["--header", &bearer, "--data", &long]).status, 400);
    assert_eq!(site.published(&before), full, "nothing went");
    let approved = looked.approve(id, &["--header", &bearer]);
    assert_eq!(approved.json(), json!({"approved": id, "target": "lab", "removals": count}));
    until("it goes", || site.published(&before) == desired(&site));
    until("nothing is held", || looked.metric("target_held{target=\"lab\"}") == Some(0.0));
    assert_eq!(looked.approve(id, &["--header", &bearer]).status, 404, "it is spent");
}

#[test]
fn the_command_line_lets_go_what_a_run_holds() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = site_of_forty(&master, "max_shrink = \"20%\"");
    let before = site.peer.axfr();
    let mut looked = Looked::start(&site);
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.path("asking.toml"), text.replace("127.0.0.1:0", &looked.address)).unwrap();
    let approve = |config: &str, id: &str| {
        crate::site::Ran::of(
            site.command_with(&site.path(config), &["approve", id]).output().unwrap(),
        )
    };
    until("all is published", || site.published(&before) == desired(&site));
    kill(&master, 30);
    let line = looked.daemon.says("lets them go");
    let id = line.split("mesozone approve ").nth(1).unwrap().split('`').next().unwrap();
    let none = approve("asking.toml", "0123456789ab").exits(1);
    assert!(none.one_line().contains("nothing is held by the id 0123456789ab"), "{none:?}");
    let ran = approve("asking.toml", id).exits(0);
    assert!(ran.stdout.contains("\"target\": \"lab\"") && ran.stderr.is_empty(), "{ran:?}");
    until("it goes", || site.published(&before) == desired(&site));
    std::fs::write(site.path("token"), "another").unwrap();
    let wrong = approve("asking.toml", id).exits(2);
    assert!(wrong.one_line().contains("wrong token"), "{wrong:?}");
    let bare = text.split("[http]").next().unwrap().to_owned();
    std::fs::write(site.path("bare.toml"), &bare).unwrap();
    assert!(approve("bare.toml", id).exits(2).one_line().contains("no [http]"));
    std::fs::write(site.path("mute.toml"), bare + "[http]\n").unwrap();
    assert!(approve("mute.toml", id).exits(2).one_line().contains("token_file"));
    drop(looked);
    let gone = approve("asking.toml", id).exits(2);
    assert!(gone.one_line().contains("is `mesozone run` at work on 127.0.0.1"), "{gone:?}");
    approve("asking.toml", "nonsense").exits(2);
}

#[test]
fn who_stands_by_holds_nothing_and_approves_nothing() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = site_of_forty(&master, "max_shrink = \"20%\"");
    let before = site.peer.axfr();
    let mut first = Looked::start(&site);
    until("all is published", || site.published(&before) == desired(&site));
    kill(&master, 30);
    let line = first.daemon.says("lets them go");
    let id = line.split("mesozone approve ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    // The newest takes the fence.
    let second = Looked::start(&site);
    until("the first stands by", || first.target()["state"] == "standing-by");
    assert_eq!(first.target()["held"], json!([]));
    assert_eq!(first.metric("target_held{target=\"lab\"}"), Some(0.0));
    assert_eq!(first.metric("target_up{target=\"lab\"}"), Some(1.0));
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(first.approve(&id, &["--header", &bearer]).status, 404);
    until("the second holds them", || second.target()["held_records"].as_u64() > Some(0));
    let full = site.published(&before);
    drop(second);
    start(&master, 1);
    assert!(full.lines().all(|line| site.published(&before).contains(line)), "nothing went");
}

#[test]
fn a_token_of_nothing_is_none() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = site_of_forty(&master, "");
    std::fs::write(site.path("token"), "  \n").unwrap();
    let ran = site.run(&["run"]).exits(2);
    assert!(
        ran.one_line().contains("[http] token_file") && ran.stderr.contains("is empty"),
        "{ran:?}"
    );
    let checked = site.run(&["check"]).exits(2);
    assert!(checked.stdout.contains("FAIL  [http] token: "), "{checked:?}");
    for text in ["sésame", "two\nlines"] {
        std::fs::write(site.path("token"), text).unwrap();
        let ran = site.run(&["run"]).exits(2);
        assert!(ran.one_line().contains("visible ASCII"), "{ran:?}");
    }
}

#[test]
fn whoever_sends_too_much_or_too_slowly_is_cut_off() {
    let (_site, looked) = recorded_cluster();
    let long = format!("X-Long: {}", "x".repeat(40_000));
    let answered = looked.curl("/healthz", &["--header", &long]);
    assert!((400..500).contains(&answered.status), "{answered:?}");
    let mut slow = TcpStream::connect(&looked.address).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut rest = Vec::new();
    // It is closed, though nothing else is sent; what is answered does not matter.
    let _ = slow.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"), "{rest:?}");
    // One client has no room for as many as it likes.
    let many: Vec<TcpStream> =
        (0..300).map_while(|_| TcpStream::connect(&looked.address).ok()).collect();
    let mut last = many.last().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut octet = [0];
    assert!(matches!(last.read(&mut octet), Ok(0) | Err(_)), "it is closed at once");
    drop(many);
    until("others are answered", || {
        let answer = Command::new("curl")
            .args(["--silent", &format!("http://{}/healthz", looked.address)])
            .output()
            .unwrap();
        answer.stdout == b"ok\n"
    });
}

/// The names in the table of a document, and their labels.
fn table(document: &str) -> BTreeSet<(String, String)> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `mesozone_"));
    rows.map(|row| {
        let series = row.split('`').next().unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        (name.to_owned(), labels.trim_end_matches('}').to_owned())
    })
    .collect()
}

/// The names of an exposition as queries write them, and their labels.
fn exposed(text: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut types = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE mesozone_")) {
        let (name, kind) = line.split_once(' ').unwrap();
        types.insert(name.to_owned(), kind.to_owned());
    }
    for (name, kind) in &types {
        let sample = if kind == "counter" { format!("{name}_total") } else { name.clone() };
        let series = text.lines().filter_map(|line| line.strip_prefix("mesozone_"));
        let mut labels: Vec<String> = series
            .filter_map(|line| {
                let (series, _) = line.rsplit_once(' ')?;
                let (of, labels) = series.split_once('{').unwrap_or((series, ""));
                let of = if kind == "histogram" { of.strip_suffix("_bucket")? } else { of };
                (of == sample).then(|| labels.trim_end_matches('}').to_owned())
            })
            .map(|labels| {
                let names = labels.split(',').filter_map(|label| label.split_once('='));
                names
                    .map(|(name, _)| name)
                    .filter(|name| *name != "le")
                    .collect::<Vec<_>>()
                    .join(",")
            })
            .collect();
        labels.sort();
        labels.dedup();
        assert!(labels.len() <= 1, "{name}: {labels:?}");
        found.insert((sample, labels.pop().unwrap_or_default()));
    }
    found
}

#[test]
fn the_table_of_metrics_is_what_is_told_and_the_alarms_use_nothing_else() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = site_of_forty(&master, "");
    let before = site.peer.axfr();
    let (address, _claim) = crate::peer::claim_port();
    site.add(&format!("[server]\nlisten = [\"{address}\"]\n"));
    let mut looked = Looked::start(&site);
    until("all is published", || site.published(&before) == desired(&site));
    looked.daemon.says("published");
    let dig = Command::new("dig")
        .args(["@127.0.0.1", "-p", &address.port().to_string(), "app.marathon.mesos"])
        .output()
        .unwrap();
    assert!(dig.status.success());
    until("the query is counted", || looked.metric("queries_total{rcode=\"NOERROR\"}") > Some(0.0));
    assert!(looked.metric("publish_seconds_count{target=\"lab\"}") > Some(0.0));
    assert!(looked.metric("target_changes_total{target=\"lab\",op=\"add\"}") > Some(40.0));
    let text = looked.get("/metrics");
    assert!(text.head.contains("openmetrics-text"), "{}", text.head);
    let exposed = exposed(&text.body);
    let document = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring/README.md"),
    )
    .unwrap();
    let names = |all: &BTreeSet<(String, String)>| -> BTreeSet<String> {
        all.iter().map(|(name, _)| name.clone()).collect()
    };
    let table = table(&document);
    assert_eq!(names(&table), names(&exposed));
    for (name, labels) in &table {
        let told = &exposed.iter().find(|(of, _)| of == name).unwrap().1;
        assert!(told.is_empty() || told == labels, "{name}: {labels} in the table, {told} told");
    }
    let alarms = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring/alerts.yml"),
    )
    .unwrap();
    let used = alarms.split("mesozone_").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest[..end].to_owned()
    });
    let used: BTreeSet<String> =
        used.map(|name| name.trim_end_matches("_bucket").to_owned()).collect();
    assert!(used.len() > 5, "{used:?}");
    assert!(used.is_subset(&names(&table)), "{used:?}");
}
