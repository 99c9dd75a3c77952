//! The masters over HTTP: found whoever leads, believed only when whole, and every trouble told in
//! one line.

mod canned;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use crate::masters::canned::{Authority, Canned, Nobody, answer};

use crate::peer::{Setup, on_every_peer};
use crate::simulated::Simulated;
use crate::site::{Ran, Site, state};

const SECRET: &str = "a-secret-nobody-prints";
/// Long after the `elected_time` of [`state`].
const DATE: &str = "Date: Tue, 15 Nov 1994 08:12:31 GMT";

/// A configuration that reads from masters, and has no target.
struct Reader {
    dir: TempDir,
}

impl Reader {
    /// `mesos`: more lines for the table.
    fn of(masters: &[String], mesos: &str) -> Reader {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[mesos]\nmasters = {masters:?}\ntimeout = \"10s\"\n{mesos}\n");
        std::fs::write(dir.path().join("mesozone.toml"), text).unwrap();
        Reader { dir }
    }

    fn run(&self, format: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesozone"));
        command.arg("--config").arg(self.dir.path().join("mesozone.toml"));
        command.args(["records", "--format", format]).stdin(Stdio::null());
        Ran::of(command.output().unwrap())
    }

    /// The records as sorted lines.
    #[track_caller]
    fn records(&self) -> String {
        self.run("tsv").exits(0).stdout
    }

    #[track_caller]
    fn is_complete(&self) -> bool {
        let records: Value = serde_json::from_str(&self.run("json").exits(0).stdout).unwrap();
        records["complete"].as_bool().unwrap()
    }

    /// The one line that says why there are no records.
    #[track_caller]
    fn trouble(&self) -> String {
        let ran = self.run("tsv").exits(2);
        assert_eq!(ran.stdout, "");
        ran.one_line().to_owned()
    }
}

fn http(address: impl std::fmt::Display) -> String {
    format!("http://{address}")
}

/// A file that only its owner reads.
fn secret(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("secret");
    let mut options = std::fs::File::options();
    options.create_new(true).write(true).mode(0o600).open(&path).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

/// The lines that log in as `dns` by HTTP Basic, and the directory of the secret.
fn basic(text: &str) -> (String, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = secret(&dir, text);
    (format!("auth = {{ principal = \"dns\", secret_file = {file:?} }}"), dir)
}

/// What a master answers that has led for long.
fn whole(state: &Value) -> Vec<u8> {
    let body = state.to_string();
    answer("200 OK", &[DATE, &format!("Content-Length: {}", body.len())], body.as_bytes())
}

fn web() -> Value {
    state(&[("web", &["10.1.0.1"]), ("web", &["10.1.0.2"])])
}

#[track_caller]
fn check_trouble(answered: Vec<u8>, parts: &[&str]) {
    let master = Canned::start(move |_| answered.clone());
    let line = Reader::of(&[http(master.address)], "").trouble();
    for part in [&[&*http(master.address)], parts].concat() {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

#[test]
fn the_leader_is_found_however_many_masters_are_down() {
    let nobody = Nobody::claim();
    let leader = Simulated::start(&[]);
    let standby = Simulated::start(&["--leader", &leader.address]);
    let hangs_up = Canned::start(|_| Vec::new());
    let direct = Reader::of(&[http(&leader.address)], "").records();
    assert!(direct.contains("search.marathon.mesos.\tA\t"), "{direct}");
    let masters = [http(nobody.address), http(hangs_up.address), http(&standby.address)];
    let through = Reader::of(&masters, "").records();
    // The masters have names by the order in which they are configured.
    let tasks = |records: &str| -> Vec<String> {
        let lines = records.lines().filter(|line| !line.starts_with("master"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(tasks(&through), tasks(&direct));
    assert_eq!(hangs_up.heads().len(), 1);
}

#[test]
fn with_every_master_down_each_is_named() {
    let (one, two) = (Nobody::claim(), Nobody::claim());
    let line = Reader::of(&[http(one.address), http(two.address)], "").trouble();
    for part in [&*http(one.address), &*http(two.address), "refused"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_standby_leads_to_the_leader_and_credentials_go_along() {
    let auth = ["--auth", &format!("dns:{SECRET}")];
    let leader = Simulated::start(&auth);
    let standby = Simulated::start(&[&auth[..], &["--leader", &leader.address]].concat());
    let (lines, _dir) = basic(&format!("{SECRET}\n"));
    let records = Reader::of(&[http(&standby.address)], &lines).records();
    assert!(records.contains("search.marathon.mesos.\tA\t"), "{records}");
}

#[test]
fn wrong_or_missing_credentials_are_one_clear_line() {
    let master = Simulated::start(&["--auth", "dns:another"]);
    let (lines, _dir) = basic(SECRET);
    for lines in [&*lines, ""] {
        let line = Reader::of(&[http(&master.address)], lines).trouble();
        assert!(line.contains(&*http(&master.address)) && line.contains("401"), "{line}");
        assert!(line.contains("[mesos] auth"), "{line}");
        assert!(!line.contains(SECRET), "{line}");
    }
    check_trouble(answer("403 Forbidden", &[], b""), &["403", "may not read"]);
}

#[test]
fn a_header_file_is_sent_verbatim_and_a_secret_without_its_line_end() {
    let master = Canned::start(|_| whole(&web()));
    let dir = tempfile::tempdir().unwrap();
    let file = secret(&dir, "Token abc=.DEF \t\"x\"\n");
    let lines = format!("auth = {{ header_file = {file:?} }}");
    Reader::of(&[http(master.address)], &lines).records();
    let (lines, _dir) = basic("open sesame\r\n");
    Reader::of(&[http(master.address)], &lines).records();
    let heads = master.heads();
    assert!(heads[0].contains("\r\nauthorization: token abc=.def \t\"x\"\r\n"), "{heads:?}");
    // dns:open sesame
    assert!(heads[1].contains("\r\nauthorization: basic zg5zom9wzw4gc2vzyw1l\r\n"), "{heads:?}");
}

#[test]
fn a_secret_that_is_not_there_is_one_line_and_no_request() {
    let master = Canned::start(|_| whole(&web()));
    let lines = "auth = { principal = \"dns\", secret_file = \"/nowhere/secret\" }";
    let line = Reader::of(&[http(master.address)], lines).trouble();
    assert!(line.contains("/nowhere/secret"), "{line}");
    assert_eq!(master.heads(), [""; 0]);
}

#[test]
fn tls_trusts_the_configured_authority_and_no_other() {
    let (ours, another) = (Authority::new(), Authority::new());
    let master = Canned::start_tls(ours.server(), |_| whole(&web()));
    let url = format!("https://{}", master.address);
    let trusting = |authority: &Authority| {
        let file = authority.path("ca.pem");
        Reader::of(std::slice::from_ref(&url), &format!("tls = {{ ca_file = {file:?} }}"))
    };
    let line = trusting(&another).trouble();
    assert!(line.contains(&url) && line.contains("certificate"), "{line}");
    assert_eq!(master.heads(), [""; 0]);
    let records = trusting(&ours).records();
    assert!(records.contains("web.marathon.mesos.\tA\t10.1.0.1\n"), "{records}");
}

#[test]
fn a_client_certificate_is_shown_to_a_master_that_asks_for_one() {
    let authority = Authority::new();
    let master = Canned::start_tls(authority.server_that_asks(), |_| whole(&web()));
    let (certificate, key) = authority.sign("client");
    let ca = authority.path("ca.pem");
    let masters = [format!("https://{}", master.address)];
    let lines =
        format!("tls = {{ ca_file = {ca:?}, cert_file = {certificate:?}, key_file = {key:?} }}");
    let records = Reader::of(&masters, &lines).records();
    assert!(records.contains("web.marathon.mesos.\tA\t10.1.0.1\n"), "{records}");
    let line = Reader::of(&masters, &format!("tls = {{ ca_file = {ca:?} }}")).trouble();
    assert!(line.contains(&masters[0]), "{line}");
}

#[test]
fn a_redirect_never_leaves_tls() {
    let authority = Authority::new();
    let plain = Canned::start(|_| whole(&web()));
    let to = format!("Location: http://{}/master/state", plain.address);
    let redirect = move |_: &str| answer("307 Temporary Redirect", &[&to], b"");
    let master = Canned::start_tls(authority.server(), redirect);
    let lines = format!("tls = {{ ca_file = {:?} }}", authority.path("ca.pem"));
    let line = Reader::of(&[format!("https://{}", master.address)], &lines).trouble();
    assert!(line.contains("redirects to"), "{line}");
    assert_eq!(plain.heads(), [""; 0]);
}

fn gzip(body: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_zipped_answer_makes_the_same_records() {
    let zipped = gzip(&web().to_string());
    let length = format!("Content-Length: {}", zipped.len());
    let headers = [DATE, "Content-Encoding: gzip", &length];
    let zipped = answer("200 OK", &headers, &zipped);
    let master = Canned::start(move |_| zipped.clone());
    let plain = Canned::start(|_| whole(&web()));
    let records = |master: &Canned| {
        let records = Reader::of(&[http(master.address)], "").records();
        records.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(records(&master), records(&plain));
    assert!(master.heads()[0].contains("\r\naccept-encoding: gzip\r\n"), "{:?}", master.heads());
}

#[test]
fn a_status_that_is_no_answer_is_one_line() {
    check_trouble(answer("404 Not Found", &[], b"404 Not Found."), &["404 Not Found"]);
    check_trouble(answer("500 Internal Server Error", &[], b"{}"), &["500 Internal"]);
    check_trouble(answer("503 Service Unavailable", &[], b""), &["503 Service Unavailable"]);
    check_trouble(answer("204 No Content", &[], b""), &["204"]);
    check_trouble(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), &["no answer"]);
    let nobody_leads = Simulated::start(&["--no-leader"]);
    let line = Reader::of(&[http(&nobody_leads.address)], "").trouble();
    assert!(line.contains("503") && line.contains("no leader is elected"), "{line}");
}

#[test]
fn a_body_cut_short_is_an_error_and_never_a_smaller_cluster() {
    let body = web().to_string();
    let half = &body[..body.len() / 2];
    let length = format!("Content-Length: {}", body.len());
    check_trouble(answer("200 OK", &[DATE, &length], half.as_bytes()), &["broke off"]);
    let chunk = format!("{:x}\r\n{half}\r\n", half.len());
    let chunked = [DATE, "Transfer-Encoding: chunked"];
    check_trouble(answer("200 OK", &chunked, chunk.as_bytes()), &["broke off"]);
    let zipped = gzip(&body);
    let headers = [DATE, "Content-Encoding: gzip"];
    let cut = answer("200 OK", &headers, &zipped[..zipped.len() / 2]);
    check_trouble(cut, &["broke off"]);
    // Without a length only the JSON can tell.
    check_trouble(answer("200 OK", &[DATE], half.as_bytes()), &[]);
    check_trouble(answer("200 OK", &[DATE], b""), &[]);
    let master = Simulated::start(&["--cut-body"]);
    let line = Reader::of(&[http(&master.address)], "").trouble();
    assert!(line.contains("broke off"), "{line}");
}

#[test]
fn an_answer_that_is_no_state_is_one_line() {
    check_trouble(answer("200 OK", &[DATE], b"<html>\nSign in\n</html>\n"), &[]);
    check_trouble(answer("200 OK", &[DATE], b"[]"), &[]);
    check_trouble(answer("200 OK", &[DATE], b"{}"), &[]);
}

#[test]
fn masters_that_redirect_in_a_circle_are_left() {
    let next: Arc<OnceLock<String>> = Arc::default();
    let known = next.clone();
    let back = Canned::start(move |_| {
        let location = format!("Location: //{}/master/state", known.get().unwrap());
        answer("307 Temporary Redirect", &[&location], b"")
    });
    let standby = Simulated::start(&["--leader", &back.address.to_string()]);
    next.set(standby.address.clone()).unwrap();
    let line = Reader::of(&[http(&standby.address)], "").trouble();
    assert!(line.contains("circle"), "{line}");
    assert!(back.heads().len() < 5, "{}", back.heads().len());
    let leader = Simulated::start(&[]);
    let masters = [http(back.address), http(&leader.address)];
    let records = Reader::of(&masters, "").records();
    assert!(records.contains("search.marathon.mesos.\tA\t"), "{records}");
}

#[test]
fn a_redirect_to_what_is_no_master_is_refused_and_sees_no_credentials() {
    let elsewhere = Canned::start(|_| whole(&web()));
    let (lines, _dir) = basic(SECRET);
    let to = elsewhere.address;
    for location in [
        format!("//{to}/"),
        format!("//{to}/login?then=/master/state"),
        format!("//{to}/evil/master/state"),
        format!("//{to}/master/state?x"),
        format!("//{to}/master/state/../../evil"),
        format!("http://dns:x@{to}/master/state"),
        format!("ftp://{to}/master/state"),
        "/master/state".to_owned(),
        "///master/state".to_owned(),
        String::new(),
    ] {
        let header = format!("Location: {location}");
        let master = Canned::start(move |_| answer("307 Temporary Redirect", &[&header], b""));
        let line = Reader::of(&[http(master.address)], &lines).trouble();
        assert!(line.contains(&format!("redirects to {location:?}")), "{line}");
        assert!(!line.contains(SECRET), "{line}");
    }
    assert_eq!(elsewhere.heads(), [""; 0]);
}

#[test]
fn host_names_are_resolved_and_one_that_cannot_be_costs_only_its_own_records() {
    let mut named = web();
    named["slaves"][0]["pid"] = json!("slave(1)@localhost:5051");
    named["slaves"][1]["pid"] = json!("slave(1)@absent.invalid:5051");
    named["frameworks"][0]["pid"] = json!("scheduler(1)@also-absent.invalid:9000");
    let master = Canned::start(move |_| whole(&named));
    let reader = Reader::of(&[http(master.address)], "");
    let start = Instant::now();
    let ran = reader.run("tsv").exits(0);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let has = |line: &str| ran.stdout.lines().any(|have| have == line);
    assert!(has("slave.mesos.\tA\t127.0.0.1"), "{}", ran.stdout);
    for own in ["10.1.0.1", "10.1.0.2"] {
        assert!(has(&format!("web.marathon.mesos.\tA\t{own}")), "{}", ran.stdout);
    }
    assert!(!ran.stdout.lines().any(|line| line.starts_with("marathon.mesos.")), "{}", ran.stdout);
    assert!(ran.one_line().contains("fewer records"), "{ran:?}");
}

/// Whether the state of a master started with these options is believed where something is
/// missing from it.
#[track_caller]
fn check_complete(options: &[&str], failover_hold: &str, expected: bool) {
    let master = Simulated::start(options);
    let lines = format!("failover_hold = \"{failover_hold}\"");
    let complete = Reader::of(&[http(&master.address)], &lines).is_complete();
    assert_eq!(complete, expected, "{options:?} {failover_hold}");
}

#[test]
fn a_young_leader_is_believed_once_its_registry_is_read_and_every_agent_is_back() {
    check_complete(&["--elected-ago", "60"], "10m", true);
    check_complete(&["--elected-ago", "60", "--recovering"], "10m", false);
    check_complete(&["--elected-ago", "60", "--lost-agents", "1"], "10m", false);
    check_complete(&["--elected-ago", "60", "--recovering"], "1s", true);
    check_complete(&["--elected-ago", "60", "--lost-agents", "1"], "1s", true);
}

#[test]
fn an_old_leader_is_believed_without_being_asked_again() {
    let ask = |date: &'static str| {
        let body = web().to_string();
        let master = Canned::start(move |head| match head.starts_with("get") {
            true => answer("200 OK", &[date], body.as_bytes()),
            false => answer("503 Service Unavailable", &[], b""),
        });
        let complete = Reader::of(&[http(master.address)], "").is_complete();
        let asked: Vec<String> = master.heads().iter().map(|head| first_word(head)).collect();
        (complete, asked)
    };
    assert_eq!(ask(DATE), (true, vec!["get".to_owned()]));
    // Elected at second 1, and it is second 500 there.
    let young = "Date: Thu, 01 Jan 1970 00:08:20 GMT";
    assert_eq!(ask(young), (false, vec!["get".to_owned(), "post".to_owned()]));
    check_complete(&["--elected-ago", "3600", "--lost-agents", "1"], "10m", true);
}

fn first_word(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn sync_removes_nothing_while_the_cluster_recovers() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let master = Simulated::start(&["--elected-ago", "60"]);
        let text = std::fs::read_to_string(site.config()).unwrap();
        let text = text.replace("http://10.0.0.1:5050", &http(&master.address));
        std::fs::write(site.config(), &text).unwrap();
        site.run(&["sync"]).exits(0);
        let zone = site.peer.axfr();
        assert!(zone.iter().any(|line| line.starts_with("search.marathon.mesos.\t")), "{zone:?}");

        master.control(json!({"lose-agents": 2}));
        let held = site.run(&["sync"]).exits(1);
        assert!(held.stdout.contains("held: 2 agents not back"), "{held:?}");
        assert_eq!(site.peer.axfr(), zone);

        master.control(json!({"stage": "recovering"}));
        let held = site.run(&["sync"]).exits(1);
        assert!(held.stdout.contains("has not confirmed its registry"), "{held:?}");
        assert_eq!(site.peer.axfr(), zone);

        master.control(json!({"stage": "running"}));
        let believed = text.replace("[mesos]", "[mesos]\nfailover_hold = \"1s\"");
        std::fs::write(site.config(), believed).unwrap();
        site.run(&["sync"]).exits(0);
        assert!(site.peer.axfr().len() < zone.len());
    });
}

#[test]
fn a_state_from_before_its_leaders_registry_was_read_is_not_believed() {
    let whole = web();
    let mut empty = whole.clone();
    empty["slaves"] = json!([]);
    empty["frameworks"] = json!([]);
    let states = [empty.to_string(), whole.to_string()];
    // The registry is read between the first state and the question that confirms it.
    let read = std::sync::atomic::AtomicUsize::new(0);
    let young = "Date: Thu, 01 Jan 1970 00:08:20 GMT";
    let master = Canned::start(move |head| {
        let confirms = head.starts_with("post");
        let before = read.fetch_max(usize::from(confirms), std::sync::atomic::Ordering::SeqCst);
        let body = if confirms { "{}" } else { &states[before] };
        answer("200 OK", &[young], body.as_bytes())
    });
    let reader = Reader::of(&[http(master.address)], "");
    assert!(reader.records().contains("marathon.mesos."), "the empty state was believed");
    assert_eq!(master.heads().len(), 3, "state, confirmation, state");
}
