//! The troubles of the guide, one by one, with a real BIND and a `run` that meets them.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::commands;
use crate::peer::{Peer, Setup, claim_port, example};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::{Ran, Site, state};

/// A site with a `run`, its API and an operator's shell.
pub(super) struct Night {
    pub(super) site: Site,
    pub(super) master: Simulated,
    pub(super) daemon: Option<Daemon>,
    pub(super) before: Vec<String>,
    http: SocketAddr,
    _claim: UnixListener,
}

impl Night {
    /// All is published, by a target with these lines more.
    pub(super) fn start(target: &str) -> Night {
        let mut night = Night::of(&Setup::default(), target);
        night.run();
        until("all is published", || night.is_right());
        night
    }

    /// Nothing runs yet.
    pub(super) fn of(setup: &Setup<'_>, target: &str) -> Night {
        let master = Simulated::start(&["--tasks", "5"]);
        master.control(json!({"start": {"framework": "marathon", "name": "app", "count": 40}}));
        let site = Site::start(Peer::Bind, setup);
        let (http, claim) = claim_port();
        let ours = site.peer.dir().join("mesozone");
        fs::create_dir(&ours).unwrap();
        fs::copy(site.peer.key_file(), ours.join("bind.key")).unwrap();
        let token = ours.join("token");
        fs::write(&token, "a token of the night\n").unwrap();
        fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
        let more = format!("[http]\nlisten = \"{http}\"\ntoken_file = {token:?}\n");
        site.configure(&site.peer.addr().to_string(), ours.join("bind.key"), target, &more);
        site.follow(&[format!("http://{}", master.address)], "");
        let before = site.peer.axfr();
        Night { site, master, daemon: None, before, http, _claim: claim }
    }

    pub(super) fn run(&mut self) {
        let mut daemon = Daemon::start(&self.site);
        daemon.says("HTTP on");
        self.daemon = Some(daemon);
    }

    pub(super) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a run")
    }

    /// Asks `run` to stop, and waits for its end.
    pub(super) fn stop(&mut self) {
        let (code, log) = self.daemon.take().expect("a run").stop();
        assert_eq!(code, 0, "{log:#?}");
    }

    pub(super) fn is_right(&self) -> bool {
        self.site.published(&self.before) == desired(&self.site)
    }

    pub(super) fn start_task(&self, name: &str) {
        self.master.control(json!({"start": {"framework": "marathon", "name": name}}));
    }

    pub(super) fn has(&self, name: &str) -> bool {
        !self.site.peer.query(&format!("{name}.marathon.mesos"), "A").is_empty()
    }

    pub(super) fn json(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.http);
        let output = Command::new("curl").args(["-s", &url]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn target(&self) -> Value {
        self.json("/v1/status")["targets"][0].clone()
    }

    /// Runs the commands of the guide, with the ports and places of here for its own.
    #[track_caller]
    pub(super) fn types(&self, commands: &str, more: &[(&str, &str)]) -> Ran {
        let (dir, at) = (self.site.peer.dir().display().to_string(), self.site.peer.addr());
        let (ip, port) = (at.ip(), at.port());
        let id = self.daemon.as_ref().map_or(0, Daemon::id);
        let changes = [
            ("http://127.0.0.1:8123", format!("http://{}", self.http)),
            ("@10.0.0.53", format!("@{ip} -p {port}")),
            ("server 10.0.0.53", format!("server {ip} {port}")),
            ("rndc ", format!("rndc -s 127.0.0.2 -p {port} -k {dir}/admin.key ")),
            ("/etc/bind", dir.clone()),
            ("/etc/mesozone", format!("{dir}/mesozone")),
            // Here one user runs all.
            ("chown ", "echo ".to_owned()),
            ("pidof mesozone", format!("echo {id}")),
        ];
        let text =
            changes.iter().fold(commands.to_owned(), |text, (from, to)| text.replace(from, to));
        let text = more.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "no {from:?} in {text}");
            text.replace(from, to)
        });
        // Of these 1 says that there is something to do, or to read.
        let looks = ["mesozone check", "mesozone diff"];
        let line = |line: &str| match looks.iter().any(|look| line.starts_with(look)) {
            true => format!("{line} || [ $? = 1 ]\n"),
            false => format!("{line}\n"),
        };
        let text: String = text.lines().map(line).collect();
        let program = Path::new(env!("CARGO_BIN_EXE_mesozone")).parent().unwrap().display();
        let path = format!("{program}:/usr/sbin:{}", std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &text]).env("PATH", path).env("NO_COLOR", "1");
        Ran::of(bash.current_dir(self.site.path("")).output().unwrap())
    }

    /// Changes the configuration in place.
    pub(super) fn reconfigure(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.site.config()).unwrap();
        assert!(text.contains(from), "no {from} in {text}");
        fs::write(self.site.config(), text.replacen(from, to, 1)).unwrap();
    }

    pub(super) fn fence(&self) -> String {
        self.site.peer.query("_mesozone.mesos", "TXT").concat()
    }
}

#[test]
fn the_first_look_shows_what_is_held_and_an_approval_lets_it_go() {
    let mut night = Night::start("max_shrink = \"20%\"");
    let [look] = &*commands("What to look at first") else { panic!("one block") };
    let said = night.types(look, &[]).exits(0).stdout;
    assert!(said.starts_with("ready\n") && said.contains("\"state\": \"well\""), "{said}");
    // The one warning that the guide names.
    let warnings = said.lines().filter(|line| line.starts_with("warn") || line.starts_with("FAIL"));
    assert!(warnings.clone().all(|line| line.contains("the address is in use")), "{said}");
    assert_eq!(warnings.count(), 1, "{said}");
    night.master.control(json!({"kill": {"name": "app", "count": 30}}));
    night.daemon().says("lets them go");
    until("the status has it", || night.target()["held_records"].as_u64() > Some(0));
    let id = night.target()["held"][0]["plan_id"].as_str().unwrap().to_owned();
    let said = night.types(look, &[]).exits(0).stdout;
    assert!(said.contains(&id) && said.contains("the desired records fell from"), "{said}");
    let [by_run, _] = &*commands("Held removals") else { panic!("two blocks") };
    night.types(by_run, &[("ID", &id)]).exits(0);
    until("it is gone", || night.is_right());
    night.daemon().says("nothing is held any more");
}

#[test]
fn what_was_found_at_first_contact_is_let_go_without_http() {
    let setup =
        Setup { records: "printer A 10.0.0.7\nold.marathon A 10.0.0.8", ..Setup::default() };
    let mut night = Night::of(&setup, "");
    night.run();
    night.daemon().says("found there at first contact");
    night.stop();
    let [_, by_sync] = &*commands("Held removals") else { panic!("two blocks") };
    // What is to stay is protected, and the id is another one then.
    let first = night.types("mesozone diff\n", &[]).exits(0).stdout;
    night.reconfigure("max_shrink", "protect = [\"printer.mesos\"]\nmax_shrink");
    let shown = night.types("mesozone diff\n", &[]).exits(0).stdout;
    let id = |text: &str| text.split("--approve ").nth(1).unwrap()[..12].to_owned();
    assert_ne!(id(&first), id(&shown));
    night.types(by_sync, &[("ID", &id(&shown))]).exits(0);
    assert!(!night.has("old"));
    assert_eq!(night.site.peer.query("printer.mesos", "A"), ["10.0.0.7"]);
    assert!(night.fence().contains("adopted=yes"));
}

#[test]
fn a_frozen_zone_is_thawed_and_what_waited_is_published() {
    let mut night = Night::start("");
    let _frozen = night.site.peer.freeze();
    night.start_task("fresh");
    night.daemon().says("and to a change of the fence alone");
    until("the status has it", || night.target()["state"] == "failing");
    assert_eq!(night.target()["quarantined"], json!([]), "no name is set apart");
    let [thaw] = &*commands("BIND is frozen") else { panic!("one block") };
    night.types(thaw, &[]).exits(0);
    night.daemon().says("well again");
    until("it is there", || night.has("fresh"));
}

#[test]
fn a_zone_restored_from_a_backup_becomes_right_by_itself() {
    for is_at_work in [true, false] {
        let mut night = Night::start("");
        let dir = night.site.peer.dir().to_owned();
        let files = ["mesos.zone", "mesos.zone.jnl"];
        night.site.peer.stop();
        let backup = |file: &str| dir.join(format!("{file}.backup"));
        for file in files {
            fs::copy(dir.join(file), backup(file)).unwrap();
        }
        night.site.peer.start();
        night.start_task("fresh");
        until("it is there", || night.has("fresh"));
        let epoch_of = |fence: String| -> u64 {
            let epoch = fence.split("epoch=").nth(1).unwrap();
            epoch.split(' ').next().unwrap().parse().unwrap()
        };
        let epoch = epoch_of(night.fence());
        if !is_at_work {
            night.stop();
        }
        night.site.peer.stop();
        for file in files {
            fs::copy(backup(file), dir.join(file)).unwrap();
        }
        night.site.peer.start();
        if !is_at_work {
            assert!(!night.has("fresh"), "it is the backup");
            night.run();
        }
        until("all is there again", || night.has("fresh") && night.is_right());
        assert!(epoch_of(night.fence()) >= epoch, "{}", night.fence());

        // The serial is raised by hand, for the secondaries.
        let high = 4_000;
        night.types("rndc freeze mesos\n", &[]).exits(0);
        // BIND writes the file after it has answered.
        let written = || fs::read_to_string(dir.join("mesos.zone")).unwrap();
        let serial = format!("{} ", night.site.peer.serial());
        let is_serial = |line: &&str| line.contains("; serial") && line.trim().starts_with(&serial);
        until("the file has the serial", || written().lines().any(|line| is_serial(&line)));
        let zone = written();
        let line = zone.lines().find(is_serial).unwrap();
        fs::write(dir.join("mesos.zone"), zone.replace(line, &format!("\t{high} ; serial")))
            .unwrap();
        night.types("rndc thaw mesos\n", &[]).exits(0);
        night.start_task("later");
        until("it goes on from there", || night.has("later") && night.site.peer.serial() > high);
    }
}

#[test]
fn a_fence_is_looked_at_and_taken_over_by_the_name_of_its_owner() {
    let night = Night::of(&Setup::default(), "");
    let theirs = "v=1 owner=other instance=00000000000000aa epoch=7 adopted=yes until=run";
    night.site.peer.nsupdate(&format!("update add _mesozone.mesos 0 TXT \"{theirs}\""));
    let [look, take] = &*commands("The fence") else { panic!("two blocks") };
    assert_eq!(night.types(look, &[]).exits(0).stdout.trim(), format!("\"{theirs}\""));
    let refused = night.types("mesozone sync\n", &[]).exits(2).stderr;
    assert!(refused.contains("the fence belongs to the owner \"other\""), "{refused}");
    night.types(take, &[]).exits(0);
    assert!(night.fence().contains("owner=mesos") && night.fence().contains("epoch=8"));
}

#[test]
fn who_stands_by_for_a_run_that_was_killed_publishes_once_restarted() {
    let mut night = Night::start("");
    // The newer takes the fence, and dies with it.
    let text = fs::read_to_string(night.site.config()).unwrap();
    let (before, _) = text.split_once("[http]").unwrap();
    fs::write(night.site.path("newer.toml"), before).unwrap();
    let mut newer = Daemon::of(&night.site, &night.site.path("newer.toml"));
    newer.says("published");
    until("the older stands by", || night.target()["state"] == "standing-by");
    drop(newer);
    night.start_task("fresh");
    assert_eq!(night.target()["state"], "standing-by");
    night.stop();
    night.run();
    until("it publishes", || night.has("fresh"));
}

#[test]
fn a_cut_rrset_is_whole_once_both_limits_are_raised() {
    let addresses: Vec<String> = (1..=150).map(|n| format!("10.6.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let crowd = state(&[("crowd", &addresses)]);
    let mut night = Night::of(&Setup::default(), "");
    let said = night.site.sync(&crowd).exits(0).stdout;
    assert!(said.contains("cut crowd.marathon.mesos. A: 100 of 150"), "{said}");
    let zone = "zone \"mesos\" {";
    night.site.peer.allow(&[(zone, &format!("{zone}\n\tmax-records-per-type 0;"))]);
    night.site.sync(&crowd).exits(0);
    assert_eq!(night.site.peer.query("crowd.marathon.mesos", "A").len(), 100, "not by itself");
    night.reconfigure("max_shrink", "rrset_max = 0\nmax_shrink");
    night.site.sync(&crowd).exits(0);
    assert_eq!(night.site.peer.query("crowd.marathon.mesos", "A").len(), 150);
}

/// Kept in step with the guide's own words.
#[test]
fn the_defaults_that_the_guide_names_are_those_of_the_configuration() {
    let all = example("mesozone.toml");
    for default in ["failover_hold = \"10m\"", "hold_down = \"30s\"", "check_interval = \"10s\""] {
        assert!(all.contains(default), "{default}");
    }
}
