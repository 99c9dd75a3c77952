//! mesozone and its name server on hosts apart: partitions, losses, slow and long links.

mod link;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::apart::link::{Link, Quality};
use crate::peer::{Peer, Setup, on_every_peer};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::Site;

/// A name server on one host; a simulated master, and mesozone, on another.
struct Apart {
    // Ends first: what runs on the hosts.
    site: Site,
    master: Simulated,
    link: Link,
    before: Vec<String>,
}

impl Apart {
    fn start(peer: Peer, quality: Quality, tasks: usize) -> Apart {
        let link = Link::new(Quality::default());
        let records = "printer A 192.0.2.77\nmail MX 10 ns1\nsub NS ns.sub\nns.sub A 192.0.2.78";
        let mut site = link.far.run(|| Site::start(peer, &Setup { records, ..Setup::default() }));
        let port = site.peer.addr().port();
        site.peer.stop();
        let (file, from, to) = match peer {
            Peer::Bind => ("named.conf", "{ 127.0.0.1; }", "{ 127.0.0.1; ADDRESS; }"),
            Peer::Knot => ("knot.conf", "listen: [ 127", "listen: [ ADDRESS@PORT, 127"),
            Peer::PowerDns => ("pdns.conf", "local-address=", "local-address=ADDRESS,"),
        };
        let address = link.far.address.to_string();
        let to = to.replace("ADDRESS", &address).replace("PORT", &port.to_string());
        let file = site.peer.dir().join(file);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&file, text.replacen(from, &to, 1)).unwrap();
        link.far.run(|| site.peer.start());
        let server = format!("{address}:{port}");
        let protect = "protect = [\"printer.mesos\"]";
        site.configure(&server, site.peer.key_file(), protect, "");
        let master = link.near.run(|| Simulated::start(&["--tasks", &tasks.to_string()]));
        site.follow(&[format!("http://{}", master.address)], "");
        let before = link.far.run(|| site.peer.axfr());
        link.change(|now| *now = quality);
        Apart { site, master, link, before }
    }

    fn run(&self) -> Daemon {
        self.link.near.run(|| Daemon::start(&self.site))
    }

    fn start_task(&self, name: &str) {
        let task = json!({"framework": "marathon", "name": name, "count": 1});
        self.link.near.run(|| self.master.control(json!({"start": task})));
    }

    fn kill_task(&self, name: &str) {
        let task = json!({"name": name, "count": 1});
        self.link.near.run(|| self.master.control(json!({"kill": task})));
    }

    fn addresses(&self, name: &str) -> usize {
        let name = format!("{name}.marathon.mesos");
        self.link.far.run(|| self.site.peer.query(&name, "A").len())
    }

    fn serial(&self) -> u32 {
        self.link.far.run(|| self.site.peer.serial())
    }

    /// Waits for the zone to be as desired, and all that was foreign in it as it was.
    #[track_caller]
    fn converges(&self) {
        let desired = self.link.near.run(|| desired(&self.site));
        assert!(desired.lines().count() > 20);
        until("the zone is the desired one", || {
            self.link.far.run(|| self.site.published(&self.before)) == desired
        });
        let zone = self.link.far.run(|| self.site.peer.axfr());
        let lost = self.before.iter().filter(|line| !zone.contains(line));
        assert_eq!(lost.collect::<Vec<_>>(), Vec::<&String>::new());
    }

    /// How long a new task takes to have its name, and an ended one to lose it.
    fn change(&self, name: &str) -> Duration {
        let started = Instant::now();
        self.start_task(name);
        until("a new task has its name", || self.addresses(name) == 1);
        let took = started.elapsed();
        self.kill_task(name);
        until("an ended task has none", || self.addresses(name) == 0);
        took
    }
}

#[track_caller]
fn stops_well(daemon: Daemon) -> Vec<String> {
    let (code, log) = daemon.stop();
    assert_eq!(code, 0, "{log:#?}");
    log
}

fn warnings(log: &[String]) -> Vec<&String> {
    log.iter().filter(|line| line.contains("WARN")).collect()
}

#[test]
fn a_short_partition_in_a_cold_publish_costs_only_its_time() {
    on_every_peer(|peer| {
        // Slow enough to be still under way.
        let apart = Apart::start(peer, Quality { rate: 50_000, ..Quality::default() }, 400);
        let serial = apart.serial();
        let mut daemon = apart.run();
        until("the first names are there", || apart.serial() > serial + 1);
        apart.link.change(|now| now.cut = true);
        let dropped = apart.link.dropped();
        until("packets are lost over and over", || apart.link.dropped() > dropped + 6);
        assert_eq!(daemon.count("published"), 0, "still under way");
        apart.start_task("fresh");
        apart.link.change(|now| now.cut = false);
        daemon.says("published");
        until("a task of meanwhile has its name", || apart.addresses("fresh") == 1);
        apart.converges();
        let log = stops_well(daemon);
        assert_eq!(warnings(&log), Vec::<&String>::new(), "{peer:?}");
    });
}

#[test]
fn a_long_partition_in_a_cold_publish_is_told_once_and_healed() {
    let apart = Apart::start(Peer::Bind, Quality { rate: 50_000, ..Quality::default() }, 400);
    let serial = apart.serial();
    let mut daemon = apart.run();
    until("the first names are there", || apart.serial() > serial + 1);
    apart.link.change(|now| now.cut = true);
    daemon.says("WARN");
    daemon.says("connecting");
    apart.start_task("fresh");
    apart.link.change(|now| *now = Quality::default());
    daemon.says("well again");
    apart.converges();
    assert_eq!(apart.addresses("fresh"), 1);
    let log = stops_well(daemon);
    assert!(warnings(&log).len() <= 3, "{log:#?}");
}

#[test]
fn a_partition_of_more_than_a_minute_is_told_once_and_over_in_seconds() {
    let apart = Apart::start(Peer::Bind, Quality::default(), 30);
    let mut daemon = apart.run();
    daemon.says("published");
    apart.converges();
    apart.link.change(|now| now.cut = true);
    let cut_at = Instant::now();
    let line = daemon.says("WARN");
    assert!(line.contains("no connection within 10 s"), "{line}");
    assert!(cut_at.elapsed() < Duration::from_secs(45), "{:?}", cut_at.elapsed());
    apart.start_task("fresh");
    until("more than a minute has passed", || cut_at.elapsed() > Duration::from_secs(65));
    apart.link.change(|now| now.cut = false);
    let healed_at = Instant::now();
    daemon.says("well again");
    until("a task of meanwhile has its name", || apart.addresses("fresh") == 1);
    let took = healed_at.elapsed();
    eprintln!("healed after {took:?}");
    assert!(took < Duration::from_secs(25), "{took:?}");
    apart.converges();
    let log = stops_well(daemon);
    assert_eq!(warnings(&log).len(), 1, "{log:#?}");
}

/// A whole publish of some two thousand names and one change, by such a link; the times are for
/// who reads them.
#[track_caller]
fn check_link(what: &str, quality: Quality) {
    let apart = Apart::start(Peer::Bind, quality, 200);
    let started = Instant::now();
    let mut daemon = apart.run();
    daemon.says("published");
    let (cold, octets) = (started.elapsed(), apart.link.passed_octets());
    apart.converges();
    let change = apart.change("fresh");
    let records = apart.link.near.run(|| desired(&apart.site)).lines().count();
    eprintln!("{what}: {records} records in {cold:?}, {octets} octets; one change in {change:?}");
    let log = stops_well(daemon);
    assert_eq!(warnings(&log), Vec::<&String>::new());
    let fence = apart.link.far.run(|| apart.site.peer.query("_mesozone.mesos", "TXT")).concat();
    assert!(fence.contains("until=0"), "{fence}");
}

#[test]
fn a_link_that_loses_a_tenth_is_made_up_for() {
    check_link("10 % lost", Quality { loss: 10, ..Quality::default() });
}

#[test]
fn a_slow_link_carries_it() {
    check_link("1 Mbit/s", Quality { rate: 125_000, ..Quality::default() });
}

#[test]
fn a_long_link_costs_a_few_round_trips() {
    let delay = Duration::from_millis(50);
    check_link("50 ms each way", Quality { delay, ..Quality::default() });
}
