//! What a master's event stream tells, what it never does, and what becomes of mesozone when the
//! stream is refused, breaks, falls silent or ends.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::asking::{Asker, questions};
use crate::masters::{Canned, answer};
use crate::peer::{Peer, Setup, claim_port, on_every_peer};
use crate::running::{Daemon, desired, proxied, until};
use crate::simulated::Simulated;
use crate::site::Site;

/// Polls and whole readings that no test waits for.
const NEVER: &str = "poll_interval = \"1h\"\nreconcile_interval = \"1h\"";
const OFTEN: &str = "poll_interval = \"100ms\"\nreconcile_interval = \"100ms\"";
/// Agents are polled, and everything is read only once.
const POLLS: &str = "poll_interval = \"100ms\"\nreconcile_interval = \"1h\"";

fn url(master: &Simulated) -> String {
    format!("http://{}", master.address)
}

/// A daemon that has published all, and the zone before it came.
struct Followed {
    site: Site,
    before: Vec<String>,
    daemon: Daemon,
}

impl Followed {
    #[track_caller]
    fn start(peer: Peer, masters: &[String], mesos: &str) -> Followed {
        let site = Site::start(peer, &Setup::default());
        site.follow(masters, mesos);
        let before = site.peer.axfr();
        let daemon = Daemon::start(&site);
        let followed = Followed { site, before, daemon };
        followed.until_desired("at first");
        followed
    }

    fn of(master: &Simulated, mesos: &str) -> Followed {
        Followed::start(Peer::Bind, &[url(master)], mesos)
    }

    fn published(&self) -> String {
        self.site.published(&self.before)
    }

    #[track_caller]
    fn until_desired(&self, after: &str) {
        until(&format!("the zone is the desired one {after}"), || {
            self.published() == desired(&self.site)
        });
    }

    /// Waits until a name has so many addresses.
    #[track_caller]
    fn until_addresses(&self, name: &str, count: usize) {
        until(&format!("{name} has {count} addresses"), || {
            self.site.peer.query(name, "A").len() == count
        });
    }

    /// A task is started and found.
    #[track_caller]
    fn follows(&self, master: &Simulated, name: &str) {
        master.control(json!({"start": {"framework": "marathon", "name": name}}));
        self.until_addresses(&format!("{name}.marathon.mesos"), 1);
    }
}

#[test]
fn names_follow_events() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "20"]);
        let followed = Followed::start(peer, &[url(&master)], NEVER);
        let fresh = "fresh.marathon.mesos";
        let start = json!({"start": {"framework": "marathon", "name": "fresh", "count": 2}});
        master.control(start);
        until("both have their ports", || {
            let srv = followed.site.peer.query("_fresh._tcp.marathon.mesos", "SRV");
            srv.len() == 4 && followed.published() == desired(&followed.site)
        });
        for change in [
            json!({"move": {"name": "fresh"}}),
            json!({"health": {"name": "fresh", "healthy": false}}),
            json!({"health": {"name": "fresh", "healthy": true}}),
        ] {
            let before = followed.published();
            master.control(change.clone());
            until(&format!("{change} is followed"), || {
                let zone = followed.published();
                zone != before && zone == desired(&followed.site)
            });
        }
        master.control(json!({"kill": {"name": "fresh", "count": 2}}));
        followed.until_addresses(fresh, 0);
        master.control(json!({"new-agent": true}));
        followed.until_desired("with another agent");
        master.control(json!({"agent-leaves": 0}));
        followed.until_desired("with an agent less");
        master.control(json!({"teardown": "chronos"}));
        followed.until_desired("with a framework less");
        master.control(json!({"new-framework": {"name": "batch"}}));
        master.control(json!({"start": {"framework": "batch", "name": "fresh"}}));
        followed.until_addresses("fresh.batch.mesos", 1);
        followed.until_desired("with a framework more");
    });
}

/// Plays changes one by one; the zone is that of the state after each.
#[track_caller]
fn check_found(master: &Simulated, mesos: &str, changes: &[Value]) {
    let mut followed = Followed::of(master, mesos);
    for change in changes {
        let before = followed.published();
        master.control(change.clone());
        let wanted = desired(&followed.site);
        let is_silent = change.get("framework-disconnected").is_some();
        assert_eq!(before == wanted, is_silent, "{change} changes names");
        followed.until_desired(&format!("after {change}"));
    }
    let mut log = followed.daemon.log().iter();
    assert!(!log.any(|line| line.contains("WARN")), "{:#?}", followed.daemon.log());
}

#[test]
fn what_no_event_tells_of_agents_is_found_by_polls() {
    let changes = [
        json!({"agent-unreachable": 0}),
        json!({"agent-back": 0}),
        json!({"agent-marked-gone": 1}),
        json!({"agent-address": {"agent": 2, "address": "10.9.9.9"}}),
    ];
    check_found(&Simulated::start(&[]), POLLS, &changes);
}

#[test]
fn what_no_event_tells_is_found_by_reading_all_again() {
    let changes = [
        json!({"task-address": {"name": "search", "address": "10.9.9.8"}}),
        json!({"framework-disconnected": "marathon"}),
        json!({"agent-unreachable": 0}),
        json!({"agent-back": 0}),
        json!({"agent-address": {"agent": 2, "address": "10.9.9.9"}}),
        json!({"agent-marked-gone": 1}),
        json!({"teardown": "chronos"}),
        json!({"start": {"framework": "aurora", "name": "fresh"}}),
    ];
    check_found(&Simulated::start(&[]), OFTEN, &changes);
    check_found(&Simulated::start(&[]), &format!("watch = \"poll\"\n{OFTEN}"), &changes);
}

#[test]
fn schedulers_with_the_old_driver_have_their_ports_in_either_way() {
    for way in ["stream", "poll"] {
        let master = Simulated::start(&["--scheduler-pids"]);
        let followed = Followed::of(&master, &format!("watch = {way:?}\n{POLLS}"));
        let peer = &followed.site.peer;
        assert_eq!(peer.query("marathon.mesos", "A"), ["10.0.255.1"], "{way}");
        let srv = peer.query("_framework._tcp.marathon.mesos", "SRV");
        assert_eq!(srv, ["0 1 36000 marathon.mesos."], "{way}");
        let before = followed.published();
        // Back again, which an event tells without the pid.
        master.control(json!({"framework-disconnected": "marathon"}));
        master.control(json!({"frameworks-back": true}));
        followed.follows(&master, "fresh");
        master.control(json!({"kill": {"name": "fresh"}}));
        until("it is as before", || followed.published() == before);
    }
}

/// A file with what `auth` names.
fn secret(site: &Site, text: &str) -> String {
    let path = site.path("secret");
    let mut options = std::fs::File::options();
    options.create(true).write(true).truncate(true).mode(0o600).open(&path).unwrap();
    std::fs::write(&path, text).unwrap();
    format!("auth = {{ principal = \"dns\", secret_file = {path:?} }}")
}

#[test]
fn a_refused_stream_is_said_once_and_the_state_is_polled() {
    let refusals: [&[&str]; 4] = [
        &["--no-v1"],
        &["--v1-status", "401"],
        &["--v1-status", "403"],
        &["--auth-readonly", "dns:right", "--auth-readwrite", "dns:other"],
    ];
    std::thread::scope(|scope| {
        for options in refusals {
            scope.spawn(move || {
                let master = Simulated::start(options);
                let site = Site::start(Peer::Bind, &Setup::default());
                let auth = secret(&site, "right");
                // The stream is tried again and again.
                site.follow(&[url(&master)], &format!("{OFTEN}\n{auth}"));
                let before = site.peer.axfr();
                let daemon = Daemon::start(&site);
                let mut followed = Followed { site, before, daemon };
                followed.daemon.says("the state is polled instead, every 0.1 s");
                followed.until_desired("at first");
                for name in ["one", "two", "three"] {
                    followed.follows(&master, name);
                }
                let daemon = &mut followed.daemon;
                assert_eq!(daemon.count("refuses the event stream"), 1, "{:#?}", daemon.log());
                assert_eq!(daemon.count("WARN"), 1, "{:#?}", daemon.log());
            });
        }
    });
}

#[test]
fn a_stream_that_opens_up_again_is_used_again() {
    let closed = Simulated::start(&["--no-v1"]);
    let open = Simulated::start(&["--leader", &closed.address]);
    let masters = [url(&closed), url(&open)];
    let lines = "poll_interval = \"1s\"\nreconcile_interval = \"1s\"";
    let mut followed = Followed::start(Peer::Bind, &masters, lines);
    followed.daemon.says("the state is polled instead");
    open.control(json!({"stage": "running"}));
    closed.control(json!({"leader": open.address}));
    followed.daemon.says("the event stream is open to us again");
    followed.follows(&open, "fresh");
    followed.until_desired("of the other master");
}

#[test]
fn one_who_is_pushed_off_subscribes_again_and_loses_nothing() {
    let master = Simulated::start(&["--subscribers-max", "1"]);
    let mut followed = Followed::of(&master, NEVER);
    for name in ["one", "two", "three"] {
        let _rival = master.subscribe();
        // Told to the rival only.
        master.control(json!({"start": {"framework": "marathon", "name": name}}));
        followed.daemon.says("the master ended it; subscribing again");
        followed.until_addresses(&format!("{name}.marathon.mesos"), 1);
    }
    assert_eq!(followed.daemon.count("subscribing again"), 3);
    followed.until_desired("at last");
}

#[test]
fn two_who_push_each_other_off_do_not_storm_the_master() {
    let master = Simulated::start(&["--subscribers-max", "1"]);
    let mut both = [Followed::of(&master, NEVER), Followed::of(&master, NEVER)];
    let started = Instant::now();
    for name in ["one", "two"] {
        master.control(json!({"start": {"framework": "marathon", "name": name}}));
        for followed in &both {
            followed.until_addresses(&format!("{name}.marathon.mesos"), 1);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    for followed in &mut both {
        // Pauses of a quarter, half, one, two, ... seconds.
        let max = 3 + (4.0 * seconds + 1.0).log2().ceil() as usize;
        let count = followed.daemon.count("subscribing again");
        assert!(count <= max, "{count} in {seconds} s: {:#?}", followed.daemon.log());
    }
}

#[test]
fn a_stream_that_falls_silent_is_left_for_another() {
    let master = Simulated::start(&["--heartbeat", "0.1"]);
    let mut followed = Followed::of(&master, NEVER);
    assert_eq!(followed.daemon.count("subscribing again"), 0);
    master.control(json!({"silence": true}));
    master.control(json!({"start": {"framework": "marathon", "name": "fresh"}}));
    followed.daemon.says("no event and no heartbeat for 0.5 s; subscribing again");
    followed.until_addresses("fresh.marathon.mesos", 1);
    followed.follows(&master, "fresher");
    followed.until_desired("in the end");
}

#[test]
fn the_zone_is_the_same_however_the_stream_is_cut_into_chunks() {
    std::thread::scope(|scope| {
        for size in ["1", "7"] {
            scope.spawn(move || {
                let master = Simulated::start(&["--chunk", size]);
                let mut followed = Followed::of(&master, NEVER);
                followed.follows(&master, "fresh");
                master.control(json!({"move": {"name": "search"}}));
                followed.until_desired("after a move");
                assert_eq!(followed.daemon.count("subscribing again"), 0);
            });
        }
    });
}

/// The length of the one call that subscribes: a head does not tell more.
fn subscribes(head: &str) -> bool {
    let call = json!({"type": "SUBSCRIBE"}).to_string();
    head.starts_with("post") && head.contains(&format!("content-length: {}\r\n", call.len()))
}

#[test]
fn a_stream_that_is_cut_in_its_first_record_is_no_smaller_cluster() {
    let simulated = Simulated::start(&[]);
    let record = simulated.subscribe().event().to_string();
    let stream = format!("{}\n{record}", record.len()).into_bytes();
    let about = simulated.call("GET_MASTER").to_string();
    for headers in [vec![], vec!["Content-Length: 10000000"]] {
        let cut = Arc::new(AtomicBool::new(false));
        let (is_cut, stream, about) = (cut.clone(), stream.clone(), about.clone());
        let master = Canned::start(move |head| match head {
            head if subscribes(head) => {
                let part = if is_cut.load(Ordering::Acquire) { 2 } else { 1 };
                answer("200 OK", &headers, &stream[..stream.len() / part])
            }
            head if head.starts_with("post") => answer("200 OK", &[], about.as_bytes()),
            _ => answer("404 Not Found", &[], b""),
        });
        let site = Site::start(Peer::Bind, &Setup::default());
        site.follow(&[format!("http://{}", master.address)], NEVER);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        let zone = site.published(&[]);
        assert!(zone.contains("search.marathon.mesos."), "{zone}");
        cut.store(true, Ordering::Release);
        let trouble = daemon.says("no master gave the state");
        assert!(trouble.contains("the event stream"), "{trouble}");
        // As many tries again.
        let tries = master.heads().len();
        until("it is tried again", || master.heads().len() > tries + 2);
        assert_eq!(site.published(&[]), zone);
        cut.store(false, Ordering::Release);
        daemon.says("masters answer again");
        assert_eq!(site.published(&[]), zone);
    }
}

#[test]
fn a_reading_never_takes_back_what_an_event_told() {
    let master = Simulated::start(&["--tasks", "2000"]);
    let config = "poll_interval = \"50ms\"\nreconcile_interval = \"20ms\"";
    let mut followed = Followed::of(&master, config);
    let before = followed.daemon.count("state read from");
    let mut asker = Asker::of(followed.site.peer.addr());
    let mut questions = Vec::new();
    let readings = |followed: &mut Followed| followed.daemon.count("state read from") - before;
    let mut number = 0;
    while number < 60 || readings(&mut followed) <= 20 {
        number += 1;
        assert!(number < 1_000, "so few readings in so many events");
        let name = format!("late-{number}.marathon.mesos");
        followed.follows(&master, &format!("late-{number}"));
        questions.push((name, RecordType::A));
        for question in questions.iter().rev().take(30) {
            let said = asker.ask(question);
            assert!(said.is_found(), "{question:?}: {said:?}, {:#?}", followed.daemon.log());
        }
    }
}

#[test]
fn a_reading_that_finds_nothing_new_sends_nothing() {
    let master = Simulated::start(&[]);
    let (site, proxy) = proxied(Peer::Bind, &master);
    site.follow(&[url(&master)], "poll_interval = \"50ms\"\nreconcile_interval = \"50ms\"");
    let mut daemon = Daemon::start(&site);
    daemon.says("published");
    let asked = || proxy.seen().iter().map(ToString::to_string).collect::<Vec<_>>();
    until("the first idle cycle", || {
        asked().iter().filter(|question| *question == "QUERY SOA mesos.").count() > 1
    });
    proxy.clear();
    let before = daemon.count("state read from");
    let started = Instant::now();
    until("three more cycles", || asked().len() >= 3);
    let cycles = started.elapsed().as_secs() as usize + 2;
    let readings = daemon.count("state read from") - before;
    assert!(readings >= 6, "{readings}: {:#?}", daemon.log());
    let asked = asked();
    assert!(asked.iter().all(|question| question == "QUERY SOA mesos."), "{asked:?}");
    assert!(asked.len() <= cycles, "one a second: {asked:?}");
}

/// Another target of the site.
fn target(name: &str, server: &str, key: &std::path::Path) -> String {
    let key = key.display();
    format!("[[target]]\nname = {name:?}\nserver = \"{server}\"\ntsig_key_file = \"{key}\"\n")
}

#[test]
fn a_name_server_that_is_stuck_holds_nobody_up() {
    let master = Simulated::start(&[]);
    // Connections are accepted by the kernel, and that is all.
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let site = Site::start(Peer::Bind, &Setup::default());
    let other = Site::start(Peer::Bind, &Setup::default());
    let (bundled, _claim) = claim_port();
    site.follow(&[url(&master)], NEVER);
    let key = site.peer.key_file();
    site.add(&target("deaf", &deaf.local_addr().unwrap().to_string(), &key));
    site.add(&target("other", &other.peer.addr().to_string(), &other.peer.key_file()));
    site.add(&format!("[server]\nlisten = [\"{bundled}\"]\nrate_limit = 0\n"));
    let mut daemon = Daemon::start(&site);
    until("both are published", || {
        [&site, &other].iter().all(|site| !site.peer.query("search.marathon.mesos", "A").is_empty())
    });
    other.peer.signal("STOP");
    let mut asker = Asker::of(bundled);
    for name in ["one", "two", "three"] {
        let started = Instant::now();
        master.control(json!({"start": {"framework": "marathon", "name": name}}));
        let name = format!("{name}.marathon.mesos");
        until("the bundled server knows", || asker.ask(&(name.clone(), RecordType::A)).is_found());
        until("the name server knows", || site.peer.query(&name, "A").len() == 1);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    other.peer.signal("CONT");
    until("who was stuck knows", || other.peer.query("three.marathon.mesos", "A").len() == 1);
    assert!(daemon.runs());
}

#[test]
fn it_waits_for_masters_at_the_start_and_later() {
    for way in ["stream", "poll"] {
        let master = Simulated::start(&["--down"]);
        let site = Site::start(Peer::Bind, &Setup::default());
        let (bundled, _claim) = claim_port();
        site.follow(&[url(&master)], &format!("watch = {way:?}\n{OFTEN}"));
        site.add(&format!("[server]\nlisten = [\"{bundled}\"]\nrate_limit = 0\n"));
        let before = site.peer.axfr();
        let mut daemon = Daemon::start(&site);
        let mut asker = Asker::of(bundled);
        for round in 0..3 {
            let warning = daemon.says("no master gave the state");
            assert!(warning.contains("WARN"), "{warning}");
            // No lines, so questions have to do for waiting a few tries.
            for (question, right) in questions(&site.published(&before)) {
                assert_eq!(asker.ask(&question).rdata, right, "{way} {round}");
            }
            assert!(daemon.runs());
            master.control(json!({"stage": "running"}));
            daemon.says("masters answer again");
            let name = format!("round{round}");
            master.control(json!({"start": {"framework": "marathon", "name": name}}));
            until("it follows again", || site.published(&before) == desired(&site));
            master.control(json!({"stage": "down"}));
        }
    }
}
