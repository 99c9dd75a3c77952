//! `run` against real name servers and a simulated master.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::peer::{Peer, Setup, on_every_peer};
use crate::proxy::Proxy;
use crate::simulated::Simulated;
use crate::site::{Ran, Site};

const PATIENCE: Duration = Duration::from_secs(60);

/// A `mesozone run`; it ends with the value.
pub(crate) struct Daemon {
    process: Child,
    lines: Receiver<String>,
    log: Vec<String>,
}

impl Daemon {
    pub(crate) fn start(site: &Site) -> Daemon {
        Daemon::of(site, &site.config())
    }

    /// One with another configuration beside that of a site.
    pub(crate) fn of(site: &Site, config: &std::path::Path) -> Daemon {
        let mut command = site.command_with(config, &["run", "-v"]);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Daemon { process, lines, log: Vec::new() }
    }

    /// Waits for a line of the log that has `part` in it.
    #[track_caller]
    pub(crate) fn says(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.log.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
        panic!("no {part:?} in {:#?}", self.log);
    }

    /// What it has said so far.
    pub(crate) fn log(&mut self) -> &[String] {
        self.log.extend(self.lines.try_iter());
        &self.log
    }

    /// How many lines of the log so far have `part` in them.
    pub(crate) fn count(&mut self, part: &str) -> usize {
        self.log().iter().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal, `STOP` or `CONT`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let args = [format!("-{name}"), self.id().to_string()];
        assert!(std::process::Command::new("kill").args(args).status().unwrap().success());
    }

    /// Asks it to stop and waits for its end.
    pub(crate) fn stop(mut self) -> (i32, Vec<String>) {
        let id = self.process.id().to_string();
        assert!(std::process::Command::new("kill").arg(id).status().unwrap().success());
        let code = self.process.wait().unwrap().code().unwrap_or(-1);
        let mut log = std::mem::take(&mut self.log);
        log.extend(self.lines.iter());
        (code, log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{:#?}", self.log());
        }
    }
}

/// A site whose masters are simulated, polled quickly.
fn site(peer: Peer, master: &Simulated) -> Site {
    let site = Site::start(peer, &Setup::default());
    follow(&site, master);
    site
}

/// The same, with a proxy before the name server.
pub(crate) fn proxied(peer: Peer, master: &Simulated) -> (Site, Proxy) {
    let site = Site::start(peer, &Setup::default());
    let proxy = Proxy::to(site.peer.addr());
    site.configure(&proxy.addr().to_string(), site.peer.key_file(), "", "");
    follow(&site, master);
    (site, proxy)
}

fn follow(site: &Site, master: &Simulated) {
    let text = std::fs::read_to_string(site.config()).unwrap();
    let masters = format!("http://{}\"]\npoll_interval = \"100ms\"", master.address);
    std::fs::write(site.config(), text.replace("http://10.0.0.1:5050\"]", &masters)).unwrap();
}

#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        between_looks();
    }
}

/// A look starts a process: one behind the other they would take the processors from what is
/// waited for.
pub(crate) fn between_looks() {
    std::thread::park_timeout(Duration::from_millis(20));
}

pub(crate) fn desired(site: &Site) -> String {
    site.run(&["records", "--format", "tsv"]).exits(0).stdout
}

#[test]
fn names_follow_tasks() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "30"]);
        let site = site(peer, &master);
        let before = site.peer.axfr();
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        until("the zone is the desired one", || site.published(&before) == desired(&site));
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 2}}));
        until("a new task has its name", || {
            site.peer.query("fresh.marathon.mesos", "A").len() == 2
        });
        master.control(json!({"kill": {"name": "fresh", "count": 2}}));
        until("an ended task has none", || site.peer.query("fresh.marathon.mesos", "A").is_empty());
        let (code, log) = daemon.stop();
        assert_eq!(code, 0, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
        assert_eq!(site.published(&before), desired(&site), "a stop removes nothing");
        let fence = site.peer.query("_mesozone.mesos", "TXT").concat();
        assert!(fence.contains("until=0"), "{fence}");
        site.run(&["diff"]).exits(0);
    });
}

#[test]
fn an_idle_cycle_is_one_soa_query() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "10"]);
        let (site, proxy) = proxied(peer, &master);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        // What verifies the burst is over once the first idle cycle was seen.
        let asked = || proxy.seen().iter().map(ToString::to_string).collect::<Vec<_>>();
        until("the first idle cycle", || {
            asked().iter().filter(|q| *q == "QUERY SOA mesos.").count() > 1
        });
        proxy.clear();
        until("three more cycles", || asked().len() >= 3);
        assert!(asked().iter().all(|question| question == "QUERY SOA mesos."), "{:?}", asked());
        assert_eq!(daemon.stop().0, 0);
    });
}

#[test]
fn what_someone_else_removes_is_put_back() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "10"]);
        let site = site(peer, &master);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        site.peer.nsupdate("update delete search.marathon.mesos A");
        until("it is back", || site.peer.query("search.marathon.mesos", "A").len() >= 3);
        assert_eq!(daemon.stop().0, 0);
    });
}

#[test]
fn a_server_that_comes_back_is_brought_up_to_date() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "10"]);
        let mut site = site(peer, &master);
        let before = site.peer.axfr();
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        site.peer.kill();
        let line = daemon.says("WARN");
        assert!(line.contains("target lab") && line.contains("zone mesos."), "{line}");
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 1}}));
        site.peer.start();
        daemon.says("well again");
        until("the zone is the desired one", || site.published(&before) == desired(&site));
        let (code, log) = daemon.stop();
        assert_eq!(code, 0);
        let warnings = log.iter().filter(|line| line.contains("WARN")).count();
        assert!(warnings <= 3, "said over and over: {log:#?}");
    });
}

#[test]
fn a_sync_beside_a_run_writes_nothing() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "10"]);
        let site = site(peer, &master);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        let serial = site.peer.serial();
        let ran: Ran = site.sync(&crate::site::state(&[("other", &["10.9.9.9"])])).exits(2);
        assert!(ran.one_line().contains("another process of the same owner holds the fence"));
        assert_eq!(site.peer.serial(), serial);
        assert_eq!(daemon.stop().0, 0);
    });
}

#[test]
fn a_newer_run_takes_over_and_the_older_one_stands_by() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "10"]);
        let site = site(peer, &master);
        let mut older = Daemon::start(&site);
        older.says("published");
        let mut newer = Daemon::start(&site);
        newer.says("published");
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 1}}));
        newer.says("published");
        older.says("fence");
        assert_eq!(newer.stop().0, 0);
        older.says("well again");
        master.control(json!({"kill": {"name": "fresh", "count": 1}}));
        until("the older one publishes again", || {
            site.peer.query("fresh.marathon.mesos", "A").is_empty()
        });
        assert_eq!(older.stop().0, 0);
    });
}

#[test]
fn the_address_of_a_name_server_stays_when_its_ns_record_goes() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let records = "@ IN NS ns2\nns2 IN A 192.0.2.54\n";
        let site = Site::start(peer, &Setup { records, ..Setup::default() });
        follow(&site, &master);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        site.peer.nsupdate("update delete mesos NS ns2.mesos.");
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 1}}));
        until("a later task has its name", || {
            !site.peer.query("fresh.marathon.mesos", "A").is_empty()
        });
        assert_eq!(daemon.stop().0, 0);
        assert_eq!(site.peer.query("ns2.mesos", "A"), ["192.0.2.54"]);
    });
}

#[test]
fn a_fence_that_someone_removed_is_put_back_and_the_space_stays_ours() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let site = site(peer, &master);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        site.peer
            .nsupdate("update delete _mesozone.mesos TXT\nupdate delete search.marathon.mesos A");
        until("the fence is back", || {
            let fence = site.peer.query("_mesozone.mesos", "TXT").concat();
            fence.contains("adopted=yes") && fence.contains("until=run")
        });
        until("and so is the name", || !site.peer.query("search.marathon.mesos", "A").is_empty());
        let (code, log) = daemon.stop();
        assert_eq!(code, 0);
        assert!(!log.iter().any(|line| line.contains("are held")), "{log:#?}");
    });
}

#[test]
fn a_stop_releases_the_fence_though_the_server_has_closed_the_connection() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let (site, proxy) = proxied(peer, &master);
        let text = std::fs::read_to_string(site.config()).unwrap();
        std::fs::write(
            site.config(),
            text.replace("check_interval = \"1s\"", "check_interval = \"1h\""),
        )
        .unwrap();
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        let is_over =
            || proxy.seen().last().is_some_and(|last| last.opcode == 0 && last.rcode.is_some());
        until("the burst is verified", is_over);
        proxy.close_all();
        let (code, log) = daemon.stop();
        assert_eq!(code, 0);
        let fence = site.peer.query("_mesozone.mesos", "TXT").concat();
        assert!(fence.contains("until=0"), "{fence} {log:#?}");
    });
}

#[test]
fn a_lost_reply_raises_the_epoch_before_anything_else() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let (site, proxy) = proxied(peer, &master);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        until("the burst is verified", || {
            proxy.seen().iter().any(|seen| seen.to_string() == "QUERY SOA mesos.")
        });
        proxy.clear();
        proxy.lose_next_reply();
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 1}}));
        daemon.says("well again");
        let asked: Vec<String> = proxy.seen().iter().map(ToString::to_string).collect();
        let lost = asked.iter().position(|question| question.starts_with("UPDATE")).unwrap();
        let after: Vec<&str> = asked[lost + 1..].iter().map(String::as_str).take(3).collect();
        let expected = ["QUERY TXT _mesozone.mesos.", "UPDATE SOA mesos.", "QUERY AXFR mesos."];
        assert_eq!(after, expected, "{asked:#?}");
        assert_eq!(daemon.stop().0, 0);
        assert_eq!(site.peer.query("fresh.marathon.mesos", "A").len(), 1);
    });
}
