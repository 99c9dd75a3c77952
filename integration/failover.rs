//! Failover without loss: the recorded stages, played by simulated masters, against daemons that
//! know the cluster, daemons that do not, and `sync` as from cron.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::asking::{Asker, Judge, Said, Watcher, exactly, without_denial};
use crate::peer::{Peer, Setup, claim_port, on_every_peer};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::Site;
use crate::zookeeper::server::Server;
use crate::zookeeper::{admin, make, stand};

const WAYS: [&str; 2] = ["stream", "poll"];
const AGENTS: usize = 3;
/// So many times everything is asked at a stage: for longer than mesozone takes to see it.
const ROUNDS: usize = 60;

/// A name server, the bundled server beside it, and masters that are asked quickly.
struct Lab {
    site: Site,
    /// The zone before mesozone came.
    before: Vec<String>,
    bundled: SocketAddr,
    _claim: UnixListener,
}

impl Lab {
    fn start(peer: Peer, masters: &[String], way: &str, mesos: &str) -> Lab {
        let site = Site::start(peer, &Setup::default());
        let (bundled, claim) = claim_port();
        let lines = "poll_interval = \"100ms\"\nreconcile_interval = \"200ms\"";
        site.follow(masters, &format!("watch = {way:?}\n{lines}\n{mesos}"));
        site.add(&format!("[server]\nlisten = [\"{bundled}\"]\nrate_limit = 0\n"));
        let before = site.peer.axfr();
        Lab { site, before, bundled, _claim: claim }
    }

    fn published(&self) -> String {
        self.site.published(&self.before)
    }

    #[track_caller]
    fn until_desired(&self) {
        until("the zone is the desired one", || self.published() == desired(&self.site));
    }

    /// What the bundled server says of a name's addresses.
    fn bundled(&self, name: &str) -> Said {
        Asker::of(self.bundled).ask(&(name.to_owned(), RecordType::A))
    }

    /// Both name servers are asked, and wrong is what is not exact.
    fn watch(&self, records: &str) -> Watcher {
        Watcher::start(records, vec![(self.site.peer.addr(), exactly), (self.bundled, exactly)])
    }

    #[track_caller]
    fn check_nothing_is_deleted(&self, records: &str, stage: &Value) {
        let zone = self.published();
        let zone: BTreeSet<&str> = zone.lines().collect();
        let gone: Vec<&str> = records.lines().filter(|line| !zone.contains(line)).collect();
        assert!(gone.is_empty(), "{stage}: deleted: {gone:#?}");
    }
}

fn master() -> Simulated {
    master_with(&[])
}

fn master_with(options: &[&str]) -> Simulated {
    let agents = AGENTS.to_string();
    Simulated::start(&[&["--tasks", "30", "--agents", &agents], options].concat())
}

fn url(master: &Simulated) -> String {
    format!("http://{}", master.address)
}

/// A failover in the order of the recordings 11 and 9a to 9e.
fn stages() -> Vec<Value> {
    let mut stages = vec![
        json!({"stage": "down"}),
        json!({"stage": "recovering", "new-process": true}),
        json!({"stage": "recovered"}),
        json!({"frameworks-back": ["marathon"]}),
    ];
    stages.extend((0..AGENTS).map(|_| json!({"agents-back": 1})));
    stages.push(json!({"frameworks-back": true}));
    stages
}

/// What a daemon without memory says of the leader at the first of the stages.
fn said_cold(way: &str, stage: usize) -> &'static str {
    match (stage, way) {
        (0, _) | (1, "stream") => "nothing was read yet",
        (1, _) => "has not confirmed its registry; nothing is removed",
        (2..6, _) => "not back; nothing is removed",
        _ => "state read from",
    }
}

/// The names of leader and masters are others once another leads.
fn of_tasks(records: &str) -> String {
    let masters = |line: &&str| line.contains("master") || line.contains("leader");
    records.lines().filter(|line| !masters(line)).map(|line| format!("{line}\n")).collect()
}

#[track_caller]
fn check_a_warm_daemon(peer: Peer, way: &str, options: &[&str], stages: &[Value]) {
    let master = master_with(options);
    let lab = Lab::start(peer, &[url(&master)], way, "");
    let mut daemon = Daemon::start(&lab.site);
    lab.until_desired();
    let records = lab.published();
    let watcher = lab.watch(&records);
    watcher.rounds(2);
    for stage in stages {
        master.control(stage.clone());
        watcher.rounds(ROUNDS);
        lab.check_nothing_is_deleted(&records, stage);
    }
    lab.until_desired();
    assert_eq!(lab.published(), records, "{way}");
    watcher.rounds(ROUNDS);
    let log = daemon.log().to_vec();
    let wrong = watcher.stop();
    assert!(wrong.is_empty(), "{way}: {} wrong: {:#?}\n{log:#?}", wrong.len(), &wrong[..1]);
    assert!(log.iter().any(|line| line.contains("not back; nothing is removed")), "{log:#?}");
    assert_eq!(daemon.stop().0, 0);
}

#[test]
fn a_warm_daemon_misses_no_name_through_a_failover_by_stream() {
    check_a_warm_daemon(Peer::Bind, "stream", &[], &stages());
}

#[test]
fn a_warm_daemon_misses_no_name_through_a_failover_by_polls() {
    check_a_warm_daemon(Peer::Bind, "poll", &[], &stages());
}

#[test]
fn schedulers_keep_their_names_through_a_failover() {
    for way in WAYS {
        check_a_warm_daemon(Peer::Bind, way, &["--scheduler-pids"], &stages());
    }
}

#[test]
fn a_failover_that_loses_agents_only_misses_no_name() {
    let stages = [
        json!({"lose-agents": 2}),
        json!({"agents-back": 1}),
        json!({"lose-agents": 3}),
        json!({"agents-back": true}),
    ];
    for way in WAYS {
        check_a_warm_daemon(Peer::Bind, way, &["--elected-ago", "60"], &stages);
    }
}

#[test]
fn every_name_server_keeps_every_record_through_a_failover() {
    on_every_peer(|peer| {
        let master = master();
        let lab = Lab::start(peer, &[url(&master)], "stream", "");
        let mut daemon = Daemon::start(&lab.site);
        lab.until_desired();
        let records = lab.published();
        let bundled = Watcher::start(&records, vec![(lab.bundled, exactly)]);
        for stage in stages() {
            master.control(stage.clone());
            bundled.rounds(ROUNDS);
            lab.check_nothing_is_deleted(&records, &stage);
        }
        lab.until_desired();
        assert_eq!(lab.published(), records);
        assert_eq!(bundled.stop(), [""; 0], "{:#?}", daemon.log());
    });
}

/// A zone that is published and adopted, as an earlier process left it.
#[track_caller]
fn published_before(lab: &Lab) -> String {
    lab.site.run(&["sync"]).exits(0);
    let records = lab.published();
    assert_eq!(records, desired(&lab.site));
    records
}

#[track_caller]
fn check_cold_daemons(way: &str) {
    let master = master();
    let lab = Lab::start(Peer::Bind, &[url(&master)], way, "");
    let records = published_before(&lab);
    let servers = vec![(lab.site.peer.addr(), exactly as Judge), (lab.bundled, without_denial)];
    let watcher = Watcher::start(&records, servers);
    for (at, stage) in stages().into_iter().enumerate() {
        let fence = lab.site.peer.query("_mesozone.mesos", "TXT");
        master.control(stage.clone());
        let mut daemon = Daemon::start(&lab.site);
        daemon.says(said_cold(way, at));
        if said_cold(way, at) != "nothing was read yet" {
            until("it publishes", || lab.site.peer.query("_mesozone.mesos", "TXT") != fence);
        }
        watcher.rounds(ROUNDS / 3);
        lab.check_nothing_is_deleted(&records, &stage);
        let absent = lab.bundled("absent.marathon.mesos");
        assert_eq!(absent.is_denied(), at >= 6, "{stage}: {absent:?} {:#?}", daemon.log());
        if at == 7 {
            lab.until_desired();
        }
    }
    assert_eq!(lab.published(), records);
    let wrong = watcher.stop();
    assert!(wrong.is_empty(), "{way}: {} wrong: {:#?}", wrong.len(), &wrong[..1]);
}

#[test]
fn a_daemon_started_at_any_stage_deletes_and_denies_nothing_by_stream() {
    check_cold_daemons("stream");
}

#[test]
fn a_daemon_started_at_any_stage_deletes_and_denies_nothing_by_polls() {
    check_cold_daemons("poll");
}

#[test]
fn a_daemon_started_in_the_middle_lives_through_the_rest() {
    for way in WAYS {
        let master = master();
        let lab = Lab::start(Peer::Bind, &[url(&master)], way, "");
        let records = published_before(&lab);
        let servers = vec![(lab.site.peer.addr(), exactly as Judge), (lab.bundled, without_denial)];
        let watcher = Watcher::start(&records, servers);
        let stages = stages();
        for stage in &stages[..5] {
            master.control(stage.clone());
        }
        let mut daemon = Daemon::start(&lab.site);
        daemon.says("2 agents not back; nothing is removed");
        for stage in &stages[5..] {
            watcher.rounds(ROUNDS / 2);
            lab.check_nothing_is_deleted(&records, stage);
            master.control(stage.clone());
        }
        lab.until_desired();
        until("who knows all denies", || lab.bundled("absent.marathon.mesos").is_denied());
        assert_eq!(lab.published(), records);
        let wrong = watcher.stop();
        assert!(wrong.is_empty(), "{way}: {} wrong: {:#?}", wrong.len(), &wrong[..1]);
    }
}

#[test]
fn a_sync_at_any_stage_removes_nothing_and_says_what_is_held() {
    on_every_peer(|peer| {
        let master = master();
        let lab = Lab::start(peer, &[url(&master)], "stream", "");
        let records = published_before(&lab);
        for (at, stage) in stages().into_iter().enumerate() {
            master.control(stage.clone());
            let ran = lab.site.run(&["sync"]);
            let (code, said) = match at {
                0 => (2, "no master gave the state"),
                1 => (1, "held: the leading master has not confirmed its registry"),
                2 | 3 => (1, "held: 3 agents not back"),
                4 => (1, "held: 2 agents not back"),
                5 => (1, "held: 1 agent not back"),
                _ => (0, ""),
            };
            let ran = ran.exits(code);
            assert!((ran.stdout.clone() + &ran.stderr).contains(said), "{stage}: {ran:#?}");
            assert_eq!(lab.published(), records, "{stage}");
            if at == 5 {
                let new = json!({"start": {"framework": "marathon", "name": "fresh"}});
                master.control(new);
                lab.site.run(&["sync"]).exits(1);
                lab.check_nothing_is_deleted(&records, &stage);
                assert_eq!(lab.site.peer.query("fresh.marathon.mesos", "A").len(), 1, "{stage}");
                master.control(json!({"kill": {"name": "fresh"}}));
                lab.site.run(&["sync"]).exits(1);
                assert_eq!(lab.site.peer.query("fresh.marathon.mesos", "A").len(), 1, "{stage}");
                master.control(json!({"agents-back": true}));
                lab.site.run(&["sync"]).exits(0);
            }
        }
    });
}

#[test]
fn a_sync_keeps_schedulers_that_have_not_subscribed_to_the_new_leader() {
    let master = master_with(&["--scheduler-pids"]);
    let lab = Lab::start(Peer::Bind, &[url(&master)], "stream", "");
    let records = published_before(&lab);
    assert!(records.contains("_framework._tcp.chronos.mesos."), "{records}");
    master.control(json!({"stage": "recovered"}));
    master.control(json!({"agents-back": true}));
    lab.site.run(&["sync"]).exits(1);
    assert_eq!(lab.published(), records);
    master.control(json!({"frameworks-back": true}));
    lab.site.run(&["sync"]).exits(0);
    assert_eq!(lab.published(), records);
}

/// Starts tasks until one runs on the agent that is the first to be back, and gives its name.
fn task_of_the_first_agent(master: &Simulated) -> String {
    for number in 0..100 {
        let name = format!("early{number}");
        master.control(json!({"start": {"framework": "marathon", "name": name}}));
        let state = master.get("/state");
        let tasks = state["frameworks"][0]["tasks"].as_array().unwrap();
        let task = tasks.iter().find(|task| task["name"] == name.as_str()).unwrap();
        if task["slave_id"] == state["slaves"][0]["id"] {
            return name;
        }
    }
    panic!("no task on the first agent");
}

#[test]
fn while_recovering_new_tasks_are_added_and_ended_ones_leave_the_name_server_last() {
    for way in WAYS {
        let master = master();
        let name = task_of_the_first_agent(&master);
        let early = format!("{name}.marathon.mesos");
        let lab = Lab::start(Peer::Bind, &[url(&master)], way, "");
        let _daemon = Daemon::start(&lab.site);
        lab.until_desired();
        let records = lab.published();
        let lost = master.control(json!({"stage": "recovered"}));
        master.control(json!({"frameworks-back": ["marathon"]}));
        master.control(json!({"agents-back": 1}));
        master.control(json!({"start": {"framework": "marathon", "name": "fresh"}}));
        until("a task of the new leader has its name", || {
            lab.site.peer.query("fresh.marathon.mesos", "A").len() == 1
        });
        for ended in [&*name, "fresh"] {
            master.control(json!({"kill": {"name": ended}}));
            let full = format!("{ended}.marathon.mesos");
            until("the bundled server forgets it", || lab.bundled(&full).is_denied());
        }
        let watcher = Watcher::start(&records, vec![(lab.site.peer.addr(), exactly)]);
        watcher.rounds(ROUNDS);
        for held in [&*early, "fresh.marathon.mesos"] {
            assert_eq!(lab.site.peer.query(held, "A").len(), 1, "{way} {held}");
        }
        lab.check_nothing_is_deleted(&records, &lost);
        assert_eq!(watcher.stop(), [""; 0]);
        master.control(json!({"agents-back": true}));
        until("recovery is over", || lab.site.peer.query(&early, "A").is_empty());
        lab.until_desired();
    }
}

#[test]
fn agents_that_never_come_back_leave_when_the_hold_ends_and_not_before() {
    for way in WAYS {
        let master = master();
        let lab = Lab::start(Peer::Bind, &[url(&master)], way, "failover_hold = \"3s\"");
        let mut daemon = Daemon::start(&lab.site);
        lab.until_desired();
        let records = lab.published();
        let elected = Instant::now();
        let stage = master.control(json!({"stage": "recovered"}));
        master.control(json!({"agents-back": 2}));
        master.control(json!({"frameworks-back": true}));
        daemon.says("1 agent not back; nothing is removed");
        let mut zone = lab.published();
        while zone == records {
            assert!(elected.elapsed() < Duration::from_secs(30), "{stage}: {:#?}", daemon.log());
            zone = lab.published();
        }
        assert!(elected.elapsed() >= Duration::from_secs(3), "{way}: {:?}", elected.elapsed());
        lab.until_desired();
        assert!(lab.published().len() < records.len());
    }
}

#[test]
fn agents_that_leave_the_registry_without_an_event_leave_the_zone() {
    for way in WAYS {
        let master = master();
        let lab = Lab::start(Peer::Bind, &[url(&master)], way, "");
        let mut daemon = Daemon::start(&lab.site);
        lab.until_desired();
        let records = lab.published();
        let stage = master.control(json!({"stage": "recovered"}));
        master.control(json!({"agents-back": 2}));
        master.control(json!({"frameworks-back": true}));
        daemon.says("1 agent not back; nothing is removed");
        let watcher = lab.watch(&records);
        watcher.rounds(ROUNDS);
        lab.check_nothing_is_deleted(&records, &stage);
        assert_eq!(watcher.stop(), [""; 0], "{way}");
        master.control(json!({"agents-gone": true}));
        until("what ran there is gone", || lab.published() != records);
        lab.until_desired();
        assert!(lab.published().len() < records.len());
    }
}

/// The leader dies, and the standby goes through the stages of a new leader.
fn take_over(lab: &Lab, standby: &Simulated, records: &str, watcher: &Watcher) {
    // For a while it still sends everybody to the dead leader.
    watcher.rounds(ROUNDS / 2);
    for stage in stages().into_iter().skip(1) {
        let stage = match stage["stage"].as_str() {
            Some(name) => json!({"stage": name}),
            None => stage,
        };
        standby.control(stage.clone());
        watcher.rounds(ROUNDS / 2);
        lab.check_nothing_is_deleted(records, &stage);
    }
    lab.until_desired();
}

#[test]
fn a_standby_takes_over_from_a_dead_leader_without_loss() {
    for way in WAYS {
        let leader = master();
        let standby = master_with(&["--leader", &leader.address]);
        let lab = Lab::start(Peer::Bind, &[url(&leader), url(&standby)], way, "");
        let mut daemon = Daemon::start(&lab.site);
        lab.until_desired();
        let records = of_tasks(&lab.published());
        let watcher = lab.watch(&records);
        drop(leader);
        take_over(&lab, &standby, &records, &watcher);
        let wrong = watcher.stop();
        assert!(wrong.is_empty(), "{way}: {:#?} {:#?}", &wrong[..1], daemon.log());
        let srv = lab.site.peer.query("_leader._tcp.mesos", "SRV");
        assert!(srv.concat().contains(&port(&standby).to_string()), "{srv:?}");
    }
}

fn port(master: &Simulated) -> u16 {
    master.address.rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_elected_in_zookeeper_takes_over_without_loss() {
    let servers = [Server::start()];
    let client = admin(&servers).await;
    make(&client, "/mesos", b"").await;
    let zk = format!("zk://{}/mesos", servers[0].addr());
    for way in WAYS {
        let leader = master();
        let standby = master_with(&["--leader", &leader.address]);
        let first = stand(&servers, "/mesos", port(&leader)).await;
        let _second = stand(&servers, "/mesos", port(&standby)).await;
        let lab = Lab::start(Peer::Bind, std::slice::from_ref(&zk), way, "");
        let mut daemon = Daemon::start(&lab.site);
        lab.until_desired();
        let records = of_tasks(&lab.published());
        let watcher = lab.watch(&records);
        drop(leader);
        watcher.rounds(ROUNDS / 2);
        drop(first);
        take_over(&lab, &standby, &records, &watcher);
        let wrong = watcher.stop();
        assert!(wrong.is_empty(), "{way}: {:#?} {:#?}", &wrong[..1], daemon.log());
        let srv = lab.site.peer.query("_leader._tcp.mesos", "SRV");
        assert!(srv.concat().contains(&port(&standby).to_string()), "{srv:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_zookeeper_gone_the_masters_that_are_configured_are_asked() {
    let mut servers = [Server::start()];
    let client = admin(&servers).await;
    make(&client, "/mesos", b"").await;
    let zk = format!("zk://{}/mesos", servers[0].addr());
    let leader = master();
    let standby = master_with(&["--leader", &leader.address]);
    let _first = stand(&servers, "/mesos", port(&leader)).await;
    let _second = stand(&servers, "/mesos", port(&standby)).await;
    let masters = [zk, url(&standby)];
    let labs = WAYS.map(|way| Lab::start(Peer::Bind, &masters, way, ""));
    let mut daemons = labs.each_ref().map(|lab| Daemon::start(&lab.site));
    labs.iter().for_each(Lab::until_desired);
    drop(client);
    servers[0].kill();
    for daemon in &mut daemons {
        daemon.says("WARN");
    }
    master_starts(&leader, "fresh", &labs);
    drop(leader);
    for stage in ["recovered", "running"] {
        standby.control(json!({"stage": stage}));
    }
    standby.control(json!({"frameworks-back": true}));
    standby.control(json!({"agents-back": true}));
    // The standby has never heard of `fresh`.
    labs.iter().for_each(Lab::until_desired);
    master_starts(&standby, "fresher", &labs);
    daemons.iter_mut().for_each(|daemon| assert!(daemon.runs()));
    drop(daemons);
    // A process that begins without ZooKeeper does not need it either.
    let [_, other] = &labs;
    let mut late = Daemon::start(&other.site);
    late.says("state read from");
    until("it knows all", || other.bundled("absent.marathon.mesos").is_denied());
    assert!(other.bundled("fresher.marathon.mesos").is_found());
}

#[track_caller]
fn master_starts(master: &Simulated, name: &str, labs: &[Lab]) {
    master.control(json!({"start": {"framework": "marathon", "name": name}}));
    for lab in labs {
        until("it has its name", || {
            lab.site.peer.query(&format!("{name}.marathon.mesos"), "A").len() == 1
        });
    }
}
