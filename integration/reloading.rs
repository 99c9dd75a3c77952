//! SIGHUP, and what a supervisor and a log collector are told.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::looking::{Looked, with_token};
use crate::peer::{Peer, Setup, claim_port};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::Site;

fn site(master: &Simulated) -> Site {
    let site = Site::start(Peer::Bind, &Setup::default());
    site.follow(&[format!("http://{}", master.address)], "");
    site
}

fn start(master: &Simulated, name: &str) {
    master.control(json!({"start": {"framework": "marathon", "name": name, "count": 1}}));
}

fn change(site: &Site, from: &str, to: &str) {
    let text = fs::read_to_string(site.config()).unwrap();
    assert!(text.contains(from), "no {from} in {text}");
    fs::write(site.config(), text.replace(from, to)).unwrap();
}

fn reload(daemon: &mut Daemon) {
    daemon.signal("HUP");
    daemon.says("the configuration is read again");
}

/// The fence in the zone of a site.
fn fence(peer: &crate::peer::Running) -> String {
    peer.query("_mesozone.mesos", "TXT").concat()
}

#[test]
fn a_key_is_rotated_without_a_restart() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = site(&master);
    let before = site.peer.axfr();
    let mut daemon = Daemon::start(&site);
    until("all is published", || site.published(&before) == desired(&site));
    let (taken, text) = (fence(&site.peer), fs::read_to_string(site.peer.key_file()).unwrap());
    let old = text.split("secret \"").nth(1).unwrap().split('"').next().unwrap();
    let new = "bmV3IHNlY3JldCBvZiB0aGUgc2FtZSBrZXksIDMyIG8=";
    fs::write(site.peer.key_file(), text.replace(old, new)).unwrap();
    site.peer.signal("HUP");
    start(&master, "fresh");
    daemon.says("target lab");
    until("it is refused", || daemon.count("BADSIG") > 0);
    reload(&mut daemon);
    daemon.says("well again");
    until("the rest is published", || site.published(&before) == desired(&site));
    let instance = |fence: &str| {
        fence.split("instance=").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    };
    assert_eq!(instance(&fence(&site.peer)), instance(&taken), "it is the same publisher");
}

#[test]
fn targets_come_and_go_and_the_others_do_not_notice() {
    let master = Simulated::start(&["--tasks", "5"]);
    let (site, other) = (site(&master), Peer::Bind.start(&Setup::default()));
    let before = site.peer.axfr();
    let alone = fs::read_to_string(site.config()).unwrap();
    with_token(&site);
    let http = fs::read_to_string(site.config()).unwrap()[alone.len()..].to_owned();
    let mut looked = Looked::start(&site);
    until("all is published", || site.published(&before) == desired(&site));
    let taken = fence(&site.peer);
    let key = other.key_file();
    let second = format!(
        "[[target]]\nname = \"other\"\nserver = \"{}\"\ntsig_key_file = {key:?}\nmax_shrink = \"off\"\n",
        other.addr()
    );
    fs::write(site.config(), format!("{alone}{second}{http}")).unwrap();
    reload(&mut looked.daemon);
    until("the other has it", || !other.query("leader.mesos", "A").is_empty());
    until("it is told of", || looked.json("/v1/status")["targets"][1]["state"] == "well");
    assert!(looked.metric("target_changes_total{target=\"other\",op=\"add\"}").is_some());
    let others = fence(&other);
    let first = alone.replace("[[target]]", &format!("{second}[[target]]"));
    fs::write(site.config(), format!("{first}{http}")).unwrap();
    reload(&mut looked.daemon);
    until("the order is another", || looked.json("/v1/status")["targets"][0]["name"] == "other");
    start(&master, "between");
    until("both follow", || {
        [&site.peer, &other]
            .iter()
            .all(|peer| !peer.query("between.marathon.mesos", "A").is_empty())
    });
    assert_eq!((fence(&site.peer), fence(&other)), (taken.clone(), others), "nothing began anew");
    fs::write(site.config(), format!("{alone}{http}")).unwrap();
    reload(&mut looked.daemon);
    until("its fence is released", || fence(&other).contains("until=0"));
    assert_eq!(looked.json("/v1/status")["targets"].as_array().unwrap().len(), 1);
    until("it is not counted", || {
        looked.metric("target_changes_total{target=\"other\",op=\"add\"}").is_none()
    });
    start(&master, "fresh");
    until("the first still follows", || !site.peer.query("fresh.marathon.mesos", "A").is_empty());
    assert!(other.query("fresh.marathon.mesos", "A").is_empty());
    assert!(!other.query("leader.mesos", "A").is_empty(), "what is there stays");
    assert_eq!(fence(&site.peer), taken, "nobody took the first's fence");
}

#[test]
fn what_is_wrong_with_a_configuration_is_told_and_the_old_one_goes_on() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = site(&master);
    let before = site.peer.axfr();
    let mut daemon = Daemon::start(&site);
    until("all is published", || site.published(&before) == desired(&site));
    let good = fs::read_to_string(site.config()).unwrap();
    let wrong = [
        ("[[target]]", "[[targte]]", "did you mean `target`"),
        ("tsig_key_file = \"", "tsig_key_file = \"/nowhere", "cannot read"),
        ("[zone]", "[zone]\ndomain = \"other\"\n", "[zone] domain"),
        ("[zone]", "[http]\n[zone]", "[http] listen is read at the start"),
        ("[zone]", "[ha]\nowner = \"other\"\n[zone]", "[ha] owner"),
        ("[zone]", "[server]\nlisten = [\"127.0.0.1:0\"]\n[zone]", "[server] listen"),
    ];
    for (from, to, said) in wrong {
        let text = match said {
            // The domain has to be within the zone.
            "[zone] domain" => good
                .replace("[[target]]", "[[target]]\nzone = \".\"")
                .replace("zone = \".\"", "zone = \"other\""),
            _ => good.clone(),
        };
        fs::write(site.config(), text.replacen(from, to, 1)).unwrap();
        daemon.signal("HUP");
        let line = daemon.says("the configuration stays as it was");
        assert!(line.contains("ERROR"), "{line}");
        until(said, || daemon.log().iter().any(|line| line.contains(said)));
    }
    start(&master, "fresh");
    until("it goes on", || site.published(&before) == desired_by(&site, &good));
    fs::write(site.config(), &good).unwrap();
    reload(&mut daemon);
    assert_eq!(daemon.stop().0, 0);
}

/// What is desired by another configuration than the one in place.
fn desired_by(site: &Site, text: &str) -> String {
    let now = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), text).unwrap();
    let desired = desired(site);
    fs::write(site.config(), now).unwrap();
    desired
}

#[test]
fn other_rules_and_other_masters_take_over_without_a_gap() {
    let master = Simulated::start(&["--tasks", "5"]);
    let next = Simulated::start(&["--tasks", "5", "--seed", "2"]);
    let site = site(&master);
    let before = site.peer.axfr();
    let mut daemon = Daemon::start(&site);
    until("all is published", || site.published(&before) == desired(&site));
    change(&site, "[zone]", "[zone]\nttl = \"7s\"\nsrv_weight = 3");
    reload(&mut daemon);
    until("the weight is another", || site.published(&before) == desired(&site));
    let ttl = || site.peer.axfr().iter().any(|line| line.starts_with("leader.mesos.\t7\t"));
    assert!(ttl(), "{:?}", site.peer.axfr());
    start(&next, "fresh");
    change(&site, &master.address, &next.address);
    reload(&mut daemon);
    until("the other's tasks are there", || site.published(&before) == desired(&site));
    assert!(!site.peer.query("fresh.marathon.mesos", "A").is_empty());
    assert_eq!(daemon.stop().0, 0);
}

#[test]
fn a_reverse_zone_that_is_added_loses_nothing_while_no_master_answers() {
    let master = Simulated::start(&["--tasks", "5"]);
    let reverse = Setup { zone: "10.in-addr.arpa", ..Setup::default() };
    let (site, other) = (site(&master), Peer::Bind.start(&reverse));
    let alone = fs::read_to_string(site.config()).unwrap();
    let key = other.key_file();
    let target = format!(
        "[[target]]\nname = \"reverse\"\nserver = \"{}\"\nzone = \"10.in-addr.arpa\"\ntsig_key_file = {key:?}\n",
        other.addr()
    );
    let with = alone.replace("[zone]", "[zone]\nreverse = [\"10.in-addr.arpa\"]") + &target;
    // A task with an address of its own, so that it has a PTR record.
    start(&master, "own");
    master.control(json!({"task-address": {"name": "own", "address": "10.9.9.8"}}));
    fs::write(site.config(), &with).unwrap();
    let mut daemon = Daemon::start(&site);
    let pointer = || other.query("8.9.9.10.in-addr.arpa", "PTR");
    until("it has a pointer", || !pointer().is_empty());
    until("it has a name", || !site.peer.query("own.marathon.mesos", "A").is_empty());
    fs::write(site.config(), &alone).unwrap();
    reload(&mut daemon);
    until("the reverse zone is let go", || {
        other.query("_mesozone-mesos.10.in-addr.arpa", "TXT").concat().contains("until=0")
    });
    assert!(!pointer().is_empty(), "what is there stays");
    master.control(json!({"stage": "down"}));
    daemon.says("the last snapshot stays");
    fs::write(site.config(), &with).unwrap();
    reload(&mut daemon);
    until("it is taken again", || {
        other.query("_mesozone-mesos.10.in-addr.arpa", "TXT").concat().contains("until=run")
    });
    assert!(!pointer().is_empty(), "nothing was lost by the reload");
    assert_eq!(daemon.stop().0, 0);
    assert!(!pointer().is_empty(), "nor later");
}

#[test]
fn no_answer_is_lost_while_the_configuration_is_read_again() {
    let master = Simulated::start(&["--tasks", "50"]);
    let site = site(&master);
    let (address, _claim) = claim_port();
    site.add(&format!(
        "[server]\nlisten = [\"{address}\"]\nrate_limit = 0\nns = {{ \"ns1.mesos\" = [\"10.9.9.1\"] }}\n"
    ));
    let mut daemon = Daemon::start(&site);
    daemon.says("published");
    fs::write(site.path("queries"), "leader.mesos A\nns1.mesos A\n_leader._tcp.mesos SRV\n")
        .unwrap();
    let dnsperf = |mode: &str| {
        let mut dnsperf = Command::new("dnsperf");
        dnsperf.args(["-s", "127.0.0.1", "-p", &address.port().to_string(), "-m", mode]);
        dnsperf
            .args(["-l", "6", "-Q", "2000", "-c", "4", "-t", "5", "-d"])
            .arg(site.path("queries"));
        dnsperf.stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut asking: Vec<_> = ["udp", "tcp"].iter().map(|mode| dnsperf(mode)).collect();
    let (mut reloads, mut octet) = (0, 1);
    while asking.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        change(&site, &format!("10.9.9.{octet}\""), &format!("10.9.9.{}\"", octet % 200 + 1));
        octet = octet % 200 + 1;
        reload(&mut daemon);
        reloads += 1;
    }
    for child in asking {
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let of = |what: &str| {
            said.lines()
                .find(|line| line.trim_start().starts_with(what))
                .map(str::trim)
                .unwrap_or_default()
                .to_owned()
        };
        assert!(of("Queries lost:").contains(" 0 "), "{said}");
        assert!(
            of("Response codes:").contains("(100.00%)")
                && of("Response codes:").contains("NOERROR"),
            "{said}"
        );
    }
    assert!(reloads > 5, "{reloads}");
    let dig = Command::new("dig")
        .args(["@127.0.0.1", "-p", &address.port().to_string(), "+short", "ns1.mesos"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(dig.stdout).unwrap().trim(), format!("10.9.9.{octet}"));
}

#[test]
fn a_supervisor_is_told_of_start_life_reload_and_stop() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = site(&master);
    let told = UnixDatagram::bind(site.path("notify")).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = site.command(&["run"]);
    command.env("NOTIFY_SOCKET", site.path("notify")).env("WATCHDOG_USEC", "400000");
    let mut process = command.stderr(Stdio::null()).spawn().unwrap();
    let wait = |part: &str| loop {
        let mut said = [0; 512];
        let length = told.recv(&mut said).unwrap_or_else(|error| panic!("never {part}: {error}"));
        let said = String::from_utf8_lossy(&said[..length]).into_owned();
        if said.contains(part) {
            return said;
        }
    };
    let signal = |name: &str| {
        let id = process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    };
    wait("READY=1");
    wait("WATCHDOG=1");
    wait("WATCHDOG=1");
    signal("-HUP");
    assert!(wait("RELOADING=1").contains("MONOTONIC_USEC="));
    wait("READY=1");
    signal("-TERM");
    wait("STOPPING=1");
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

#[test]
fn each_line_of_a_log_in_json_is_an_object() {
    let master = Simulated::start(&["--tasks", "5"]);
    let mut site = site(&master);
    let mut command = site.command(&["run", "--log-format", "json"]);
    let file = fs::File::create(site.path("log")).unwrap();
    let mut process = command.stderr(file).spawn().unwrap();
    let log = site.path("log");
    let says = |part: &str| fs::read_to_string(&log).unwrap().contains(part);
    until("it publishes", || says("published"));
    site.peer.kill();
    start(&master, "fresh");
    until("trouble is told", || says("WARN"));
    let id = process.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
    process.wait().unwrap();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().count() > 3, "{text}");
    for line in text.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(object["timestamp"].is_string() && object["level"].is_string(), "{line}");
        assert!(object["fields"]["message"].is_string(), "{line}");
    }
}
