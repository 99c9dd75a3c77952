//! `run` with the bundled server: what dig sees while a cluster changes, recovers and goes away.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::masters::{Canned, Nobody, answer};
use crate::peer::{Peer, Setup, claim_port};
use crate::running;
use crate::simulated::Simulated;
use crate::site::{Site, state};

const PATIENCE: Duration = Duration::from_secs(20);

/// For the SOA of `mesos`.
const QUESTION: &[u8] = b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x05mesos\0\0\x06\0\x01";

/// `mesozone run` with the bundled server on a port of its own; it ends with the value.
pub(crate) struct Daemon {
    process: Child,
    pub(crate) address: SocketAddr,
    dir: TempDir,
    _claim: UnixListener,
}

impl Daemon {
    #[track_caller]
    fn start(masters: &[String], more: &str) -> Daemon {
        Daemon::with(masters, more, "")
    }

    /// With more lines for `[mesos]` and for `[server]`.
    #[track_caller]
    pub(crate) fn with(masters: &[String], more: &str, server: &str) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let (address, claim) = claim_port();
        let config = dir.path().join("mesozone.toml");
        let text = format!(
            "[mesos]\nmasters = {masters:?}\npoll_interval = \"100ms\"\n{more}\n\
             [zone]\nhold_down = \"0s\"\nreverse = [\"10.in-addr.arpa\"]\n[server]\nlisten = [\"{address}\"]\n{server}\n"
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_mesozone"))
            .arg("--config")
            .args([config.as_os_str(), "run".as_ref()])
            .stdin(Stdio::null())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Daemon { process, address, dir, _claim: claim }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// What dig says of a name: the status, then the addresses in order.
    fn ask(&self, name: &str) -> String {
        let mut dig = Command::new("dig");
        dig.arg(format!("@{}", self.address.ip())).args(["-p", &self.address.port().to_string()]);
        dig.args(["+norecurse", "+tries=1", "+time=2", "+noall", "+comments", "+answer", name]);
        let output = String::from_utf8(dig.output().unwrap().stdout).unwrap();
        let status = output.split_once("status: ").and_then(|(_, rest)| rest.split_once(','));
        let mut addresses: Vec<&str> = output
            .lines()
            .filter(|line| !line.starts_with(';'))
            .filter_map(|line| line.split_whitespace().nth(4))
            .collect();
        addresses.sort_unstable();
        format!("{} {}", status.map_or("none", |(status, _)| status), addresses.join(" "))
            .trim_end()
            .to_owned()
    }

    /// Asks until the answer is as wanted.
    #[track_caller]
    fn until(&mut self, name: &str, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let answer = self.ask(name);
            if wanted(&answer) {
                return answer;
            }
            let ended = self.process.try_wait().unwrap();
            let late = start.elapsed() > PATIENCE;
            assert!(!late && ended.is_none(), "{name}: {answer} ({ended:?})\n{}", self.log());
        }
    }

    /// Waits until its log says so.
    #[track_caller]
    pub(crate) fn says(&self, part: &str) {
        let start = Instant::now();
        while !self.log().contains(part) {
            assert!(start.elapsed() < PATIENCE, "never {part:?}:\n{}", self.log());
            crate::running::between_looks();
        }
    }

    /// Sends the signal and waits for the end.
    #[track_caller]
    fn ends_by(&mut self, signal: &str) -> ExitStatus {
        // The child is not reaped before `wait`, so the id can belong to nobody else.
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let start = Instant::now();
        let status = self.process.wait().unwrap();
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn url(master: &Simulated) -> String {
    format!("http://{}", master.address)
}

fn is_found(answer: &str) -> bool {
    answer.starts_with("NOERROR 1")
}

fn is_missing(answer: &str) -> bool {
    answer == "NXDOMAIN"
}

#[test]
fn a_started_task_is_answered_and_a_killed_one_is_not() {
    let master = Simulated::start(&[]);
    let mut daemon = Daemon::start(&[url(&master)], "");
    daemon.until("search.marathon.mesos", is_found);
    assert_eq!(daemon.ask("fresh.marathon.mesos"), "NXDOMAIN");
    master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 1}}));
    let before = daemon.until("fresh.marathon.mesos", is_found);
    master.control(json!({"move": {"name": "fresh"}}));
    daemon.until("fresh.marathon.mesos", |answer| is_found(answer) && answer != before);
    master.control(json!({"kill": {"name": "fresh"}}));
    daemon.until("fresh.marathon.mesos", is_missing);
    assert!(is_found(&daemon.ask("search.marathon.mesos")));
}

#[test]
fn a_signal_ends_it_well() {
    let master = Simulated::start(&[]);
    for signal in ["-TERM", "-INT"] {
        let mut daemon = Daemon::start(&[url(&master)], "");
        daemon.until("search.marathon.mesos", is_found);
        assert_eq!(daemon.ends_by(signal).code(), Some(0), "{}", daemon.log());
    }
}

#[test]
fn a_signal_ends_it_well_while_no_master_answers() {
    let hangs = Canned::start(|_| {
        // Nobody reads more than the silence.
        std::thread::park();
        Vec::new()
    });
    let mut daemon = Daemon::start(&[format!("http://{}", hangs.address)], "");
    daemon.until("search.marathon.mesos", |answer| answer == "SERVFAIL");
    assert_eq!(daemon.ends_by("-TERM").code(), Some(0), "{}", daemon.log());
}

#[test]
fn without_a_master_a_missing_name_is_a_failure_and_the_process_stays() {
    let nobody = Nobody::claim();
    let mut daemon = Daemon::start(&[format!("http://{}", nobody.address)], "");
    daemon.until("search.marathon.mesos", |answer| answer == "SERVFAIL");
    daemon.says("no master gave the state");
    // As many polls again.
    for _ in 0..20 {
        assert_eq!(daemon.ask("search.marathon.mesos"), "SERVFAIL");
    }
    assert!(daemon.process.try_wait().unwrap().is_none());
    let told = daemon.log().matches("no master gave the state").count();
    assert_eq!(told, 1, "told once:\n{}", daemon.log());
}

#[test]
fn until_a_whole_snapshot_a_missing_name_is_a_failure_and_a_known_one_is_answered() {
    let master = Simulated::start(&["--elected-ago", "60", "--lost-agents", "1"]);
    let mut daemon = Daemon::start(&[url(&master)], "");
    daemon.until("leader.mesos", is_found);
    assert_eq!(daemon.ask("absent.marathon.mesos"), "SERVFAIL");
    master.control(json!({"agents-back": true}));
    daemon.until("absent.marathon.mesos", is_missing);
    assert!(is_found(&daemon.ask("search.marathon.mesos")));
}

#[test]
fn no_query_sees_a_missing_name_through_a_failover() {
    let master = Simulated::start(&["--elected-ago", "60"]);
    let mut daemon = Daemon::start(&[url(&master)], "watch = \"poll\"");
    let whole = daemon.until("search.marathon.mesos", is_found);
    let agents = daemon.ask("slave.mesos");
    let keeps = |daemon: &Daemon| {
        // For longer than a poll takes: what was told may not be published yet.
        for _ in 0..10 {
            assert_eq!(daemon.ask("search.marathon.mesos"), whole, "{}", daemon.log());
            assert_eq!(daemon.ask("slave.mesos"), agents, "{}", daemon.log());
        }
    };
    // Nobody leads, then one with an empty registry, then one whose agents are still away.
    master.control(json!({"stage": "no-leader"}));
    daemon.says("no leader is elected");
    keeps(&daemon);
    master.control(json!({"stage": "recovering"}));
    daemon.says("has not confirmed its registry");
    keeps(&daemon);
    master.control(json!({"lose-agents": 3}));
    master.control(json!({"stage": "running"}));
    daemon.says("agents not back");
    keeps(&daemon);
    master.control(json!({"start": {"framework": "marathon", "name": "fresh"}}));
    master.control(json!({"agents-back": true}));
    daemon.until("fresh.marathon.mesos", is_found);
    keeps(&daemon);
}

#[test]
fn agents_that_stay_away_are_believed_gone_after_the_hold() {
    let master = Simulated::start(&["--elected-ago", "60"]);
    let mut daemon = Daemon::start(&[url(&master)], "failover_hold = \"1s\"");
    daemon.until("search.marathon.mesos", is_found);
    master.control(json!({"lose-agents": 3}));
    daemon.until("search.marathon.mesos", is_missing);
}

#[test]
fn answers_cut_short_change_nothing() {
    let cut = Arc::new(AtomicBool::new(false));
    let is_cut = cut.clone();
    let body = state(&[("web", &["10.1.0.1"]), ("api", &["10.1.0.2"])]).to_string();
    let master = Canned::start(move |_| {
        let sent = if is_cut.load(Ordering::Relaxed) { body.len() / 2 } else { body.len() };
        let length = format!("Content-Length: {}", body.len());
        let date = "Date: Tue, 15 Nov 1994 08:12:31 GMT";
        answer("200 OK", &[date, &length], &body.as_bytes()[..sent])
    });
    let mut daemon = Daemon::start(&[format!("http://{}", master.address)], "watch = \"poll\"");
    daemon.until("web.marathon.mesos", is_found);
    cut.store(true, Ordering::Relaxed);
    daemon.says("broke off");
    for name in ["web.marathon.mesos", "api.marathon.mesos"] {
        assert!(is_found(&daemon.ask(name)), "{name}");
    }
    cut.store(false, Ordering::Relaxed);
    daemon.says("masters answer again");
}

#[test]
fn an_address_that_is_taken_ends_it_with_one_line() {
    let nobody = Nobody::claim();
    let master = format!("http://{}", nobody.address);
    let mut first = Daemon::start(std::slice::from_ref(&master), "");
    first.until("search.marathon.mesos", |answer| answer == "SERVFAIL");
    let output = Command::new(env!("CARGO_BIN_EXE_mesozone"))
        .args(["run", "--config"])
        .arg(first.dir.path().join("mesozone.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains(&format!("cannot listen on {}", first.address)), "{said}");
}

/// What dig says with these words: the status, and the data of the answers in order.
#[track_caller]
fn dig(server: SocketAddr, words: &[&str]) -> String {
    let mut dig = Command::new("dig");
    dig.arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string()]);
    dig.args(["+tries=1", "+time=5", "+noall", "+comments", "+answer"]).args(words);
    String::from_utf8(dig.output().unwrap().stdout).unwrap()
}

#[test]
fn names_elsewhere_are_asked_for_and_ours_are_not() {
    let master = Simulated::start(&[]);
    let records = "web IN A 192.0.2.80\nmany IN TXT \"a text\"\n";
    let upstream = Peer::Bind.start(&Setup { zone: "weave", records, ..Setup::default() });
    let lines = format!("forward_zones = {{ \"weave\" = [\"{}\"] }}", upstream.addr());
    let mut daemon = Daemon::with(&[url(&master)], "", &lines);
    daemon.until("search.marathon.mesos", is_found);
    for transport in ["+notcp", "+tcp"] {
        let told = dig(daemon.address, &[transport, "WEB.weave", "A"]);
        assert!(told.contains("status: NOERROR") && told.contains("192.0.2.80"), "{told}");
        assert!(told.contains("WEB.weave.") && told.contains(" ra"), "{told}");
        let told = dig(daemon.address, &[transport, "no.weave", "A"]);
        assert!(told.contains("status: NXDOMAIN"), "{told}");
        assert!(dig(daemon.address, &[transport, "web.example"]).contains("status: REFUSED"));
        let ours = dig(daemon.address, &[transport, "search.marathon.mesos"]);
        assert!(ours.contains(" aa") && ours.contains(" ra"), "{ours}");
    }
    let lines = format!("{lines}\nfrom = [\"192.0.2.0/24\"]");
    let mut daemon = Daemon::with(&[url(&master)], "", &lines);
    daemon.until("search.marathon.mesos", is_found);
    assert!(dig(daemon.address, &["web.weave"]).contains("status: REFUSED"), "not from here");
}

#[test]
fn a_flood_is_answered_in_part_and_who_shows_a_cookie_is_answered_all_the_same() {
    let master = Simulated::start(&[]);
    let mut daemon = Daemon::with(&[url(&master)], "", "rate_limit = 50");
    daemon.until("search.marathon.mesos", is_found);
    // More than a second's worth at once.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(daemon.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut whole, mut cut, mut reply) = (0, 0, [0; 512]);
    for _ in 0..300 {
        socket.send(QUESTION).unwrap();
    }
    while socket.recv(&mut reply).is_ok() {
        match reply[2] & 2 {
            0 => whole += 1,
            _ => cut += 1,
        }
    }
    assert!((1..200).contains(&whole) && cut > 20 && whole + cut < 300, "{whole} and {cut}");
    // Who comes back over TCP is answered, and so is who has been here before.
    assert!(dig(daemon.address, &["+tcp", "mesos", "SOA"]).contains("status: NOERROR"));
    let told = dig(daemon.address, &["+tcp", "+cookie", "+qr", "mesos", "SOA"]);
    let cookie = told.split("COOKIE: ").last().unwrap().split([' ', '\n']).next().unwrap();
    assert_eq!(cookie.len(), 48, "{told}");
    let cookie = format!("+cookie={cookie}");
    for _ in 0..60 {
        socket.send(QUESTION).unwrap();
        let told = dig(daemon.address, &["+ignore", &cookie, "mesos", "SOA"]);
        assert!(told.contains("status: NOERROR") && !told.contains(" tc"), "{told}");
    }
}

#[test]
fn addresses_lead_back_to_names() {
    let master = Simulated::start(&["--tasks", "30"]);
    let mut daemon = Daemon::start(&[url(&master)], "");
    daemon.until("search.marathon.mesos", is_found);
    let soa = dig(daemon.address, &["10.in-addr.arpa", "SOA"]);
    assert!(soa.contains(" aa") && soa.contains("ns1.mesos."), "{soa}");
    assert!(dig(daemon.address, &["9.9.9.10.in-addr.arpa", "PTR"]).contains("NXDOMAIN"));
    let listed = Command::new(env!("CARGO_BIN_EXE_mesozone"))
        .arg("--config")
        .arg(daemon.dir.path().join("mesozone.toml"))
        .args(["records", "--format", "tsv"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let pointer = listed.lines().find(|line| line.contains("\tPTR\t")).expect("a pointer");
    let [address, _, name] = *pointer.split('\t').collect::<Vec<_>>() else { panic!("{pointer}") };
    assert!(dig(daemon.address, &[address, "PTR"]).contains(name), "{pointer}");
}

#[test]
fn a_flood_keeps_no_task_from_its_name() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = Site::start(Peer::Bind, &Setup::default());
    let (address, _claim) = claim_port();
    site.follow(&[url(&master)], "");
    site.add(&format!("[server]\nlisten = [\"{address}\"]\nrate_limit = 0\n"));
    let mut daemon = running::Daemon::start(&site);
    daemon.says("published");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(address).unwrap();
                while !over.load(Ordering::Relaxed) {
                    // What does not fit into its buffer is lost, as floods are.
                    let _ = socket.send(QUESTION);
                }
            });
        }
        for name in ["one", "two", "three"] {
            master.control(json!({"start": {"framework": "marathon", "name": name, "count": 1}}));
            let name = format!("{name}.marathon.mesos");
            running::until("the name is there", || !site.peer.query(&name, "A").is_empty());
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(daemon.stop().0, 0);
}
