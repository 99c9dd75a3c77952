//! How much may go at once, and how long a name stays after its last task.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peer::{Peer, Setup, on_every_peer};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::{Site, state};

/// A site at which the limit is what a configuration has that says nothing about it.
fn limited(peer: Peer) -> Site {
    let site = Site::start(peer, &Setup::default());
    let server = site.peer.addr().to_string();
    site.configure(&server, site.peer.key_file(), "max_shrink = \"20%\"", "");
    site
}

/// Tasks of these numbers, each of a name and an address of its own.
fn tasks(numbers: impl IntoIterator<Item = usize>) -> Value {
    let named: Vec<(String, String)> = numbers
        .into_iter()
        .map(|n| (format!("app-{n}"), format!("10.3.{}.{}", n / 200, n % 200 + 1)))
        .collect();
    let addresses: Vec<[&str; 1]> = named.iter().map(|(_, address)| [address.as_str()]).collect();
    let pairs = named.iter().zip(&addresses);
    state(&pairs.map(|((name, _), address)| (name.as_str(), &address[..])).collect::<Vec<_>>())
}

/// The ids that `diff` shows for removals that are held.
fn held_ids(site: &Site, state: &Value) -> Vec<String> {
    let shown = site.with(state, &["diff", "--format", "json"]).exits(1).stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let held = shown["targets"][0]["held"].as_array().unwrap();
    held.iter().filter_map(|set| Some(set["plan_id"].as_str()?.to_owned())).collect()
}

#[test]
fn a_state_that_lost_half_its_tasks_deletes_nothing_until_it_is_approved() {
    on_every_peer(|peer| {
        let site = limited(peer);
        let empty = site.peer.axfr();
        site.sync(&tasks(0..40)).exits(0);
        let before = site.peer.axfr();
        let halved = tasks((0..20).chain([77]));
        let ran = site.sync(&halved).exits(1);
        assert!(ran.stdout.contains("the desired records fell from"), "{ran:?}");
        let now = site.peer.axfr();
        let gone = before.iter().filter(|line| !now.contains(line) && !line.contains("\tTXT\t"));
        assert_eq!(gone.count(), 0, "{peer:?}");
        assert_eq!(site.peer.query("app-77.marathon.mesos", "A"), ["10.3.0.78"], "additions go on");
        let [id] = &*held_ids(&site, &halved) else { panic!("one set") };
        let wrong = site.with(&halved, &["sync", "--approve", "0123456789ab"]).exits(1);
        assert!(wrong.one_line().contains("0123456789ab releases nothing"), "{wrong:?}");
        assert_eq!(site.peer.query("app-30.marathon.mesos", "A").len(), 1);
        let ran = site.with(&halved, &["sync", "--approve", id]).exits(0);
        assert_eq!(ran.stderr, "", "it released something");
        let records = site.with(&halved, &["records", "--format", "tsv"]).exits(0).stdout;
        assert_eq!(site.published(&empty), records);
        site.diff(&halved).exits(0);
    });
}

#[test]
fn a_saved_plan_releases_what_it_lists_and_nothing_else() {
    on_every_peer(|peer| {
        let site = limited(peer);
        site.sync(&tasks(0..40)).exits(0);
        let shown = site.with(&tasks(0..20), &["diff", "--format", "json"]).exits(1).stdout;
        let saved = site.path("plan.json");
        std::fs::write(&saved, shown).unwrap();
        let saved = saved.to_str().unwrap();
        // Task 15 has ended since, and task 25 is back.
        let later = tasks((0..20).filter(|n| *n != 15).chain([25]));
        site.with(&later, &["sync", "--approve", saved]).exits(1);
        let has = |n: usize| !site.peer.query(&format!("app-{n}.marathon.mesos"), "A").is_empty();
        assert!(!has(30), "it is in the plan");
        assert!(has(25), "it is wanted again");
        assert!(has(15), "it is not in the plan");
        let bad = site.with(&later, &["sync", "--approve", "no-such-file"]).exits(2);
        assert!(bad.one_line().contains("neither a plan id nor a file"), "{bad:?}");
    });
}

#[test]
fn few_records_may_go_whatever_their_share_and_off_lifts_the_limit() {
    let site = limited(Peer::Bind);
    site.sync(&tasks(0..2)).exits(0);
    site.sync(&tasks(0..1)).exits(0);
    site.sync(&tasks(0..40)).exits(0);
    site.sync(&tasks(0..1)).exits(1);
    let server = site.peer.addr().to_string();
    site.configure(&server, site.peer.key_file(), "max_shrink = \"off\"", "");
    site.sync(&tasks(0..1)).exits(0);
}

#[test]
fn a_deployment_that_replaces_every_task_is_never_held() {
    on_every_peer(|peer| {
        let site = limited(peer);
        site.sync(&tasks(0..40)).exits(0);
        for from in [10, 20, 30, 40] {
            site.sync(&tasks(from..from + 40)).exits(0);
        }
        site.sync(&tasks(100..140)).exits(0);
        assert_eq!(site.peer.query("app-70.marathon.mesos", "A"), Vec::<String>::new());
        assert_eq!(site.peer.query("app-139.marathon.mesos", "A"), ["10.3.0.140"]);
    });
}

fn control(master: &Simulated, what: &str, name: &str, count: usize) {
    master.control(match what {
        "start" => json!({"start": {"framework": "marathon", "name": name, "count": count}}),
        _ => json!({"kill": {"name": name, "count": count}}),
    });
}

#[test]
fn a_run_holds_what_would_go_at_once_until_it_is_back_or_approved() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let site = limited(peer);
        let before = site.peer.axfr();
        let masters = [format!("http://{}", master.address)];
        site.follow(&masters, "");
        control(&master, "start", "app", 40);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        until("all are there", || site.published(&before) == desired(&site));
        let full = site.published(&before);
        control(&master, "kill", "app", 30);
        let line = daemon.says("removals are held: the desired records fell from");
        assert!(line.contains("mesozone diff") && line.contains("mesozone approve "), "{line}");
        control(&master, "start", "fresh", 1);
        until("additions go on", || !site.peer.query("fresh.marathon.mesos", "A").is_empty());
        let now = site.published(&before);
        assert!(full.lines().all(|line| now.contains(line)), "{peer:?}");
        control(&master, "start", "other", 28);
        daemon.says("nothing is held any more");
        until("the rest goes", || site.published(&before) == desired(&site));
        // The loss is approved by a `sync` while nobody runs.
        control(&master, "kill", "other", 28);
        daemon.says("removals are held");
        assert_eq!(daemon.stop().0, 0);
        let held = site.run(&["diff"]).exits(1).stdout;
        let id = held.split("sync --approve ").nth(1).unwrap().split('`').next().unwrap();
        site.run(&["sync", "--approve", id]).exits(0);
        assert_eq!(site.published(&before), desired(&site));
    });
}

#[test]
fn a_deployment_that_starts_all_before_it_ends_any_is_not_held() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let site = limited(peer);
        let before = site.peer.axfr();
        site.follow(&[format!("http://{}", master.address)], "");
        control(&master, "start", "blue", 40);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        control(&master, "start", "green", 40);
        until("both are there", || site.published(&before) == desired(&site));
        control(&master, "kill", "blue", 40);
        until("the old ones go", || site.peer.query("blue.marathon.mesos", "A").is_empty());
        let (code, log) = daemon.stop();
        assert_eq!(code, 0);
        assert!(!log.iter().any(|line| line.contains("held")), "{log:#?}");
    });
}

#[test]
fn a_name_stays_for_the_hold_down_after_its_last_task() {
    let master = Simulated::start(&["--tasks", "5"]);
    let site = Site::start(Peer::Bind, &Setup::default());
    let server = site.peer.addr().to_string();
    site.configure(&server, site.peer.key_file(), "", "[zone]");
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text.replace("hold_down = \"0s\"", "hold_down = \"3s\""))
        .unwrap();
    site.follow(&[format!("http://{}", master.address)], "");
    control(&master, "start", "app", 2);
    let mut daemon = Daemon::start(&site);
    daemon.says("published");
    let addresses = || site.peer.query("app.marathon.mesos", "A");
    until("both are there", || addresses().len() == 2);
    control(&master, "kill", "app", 1);
    until("an address goes at once", || addresses().len() == 1);
    let killed = Instant::now();
    control(&master, "kill", "app", 1);
    until("the name goes", || addresses().is_empty());
    assert!(killed.elapsed() >= Duration::from_secs(3), "after {:?}", killed.elapsed());
    assert_eq!(daemon.stop().0, 0);
}

#[test]
fn a_loss_while_the_server_is_down_is_held_when_it_is_back() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let mut site = limited(peer);
        let before = site.peer.axfr();
        site.follow(&[format!("http://{}", master.address)], "");
        control(&master, "start", "app", 40);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        until("all are there", || site.published(&before) == desired(&site));
        let full = site.published(&before);
        site.peer.kill();
        daemon.says("WARN");
        control(&master, "kill", "app", 30);
        site.peer.start();
        daemon.says("removals are held: the desired records fell from");
        assert_eq!(site.published(&before), full, "{peer:?}");
        assert_eq!(daemon.stop().0, 0);
    });
}

#[test]
fn who_takes_the_fence_again_holds_what_another_published() {
    on_every_peer(|peer| {
        let (small, large) = (Simulated::start(&["--tasks", "5"]), Simulated::start(&[]));
        let site = limited(peer);
        let before = site.peer.axfr();
        site.follow(&[format!("http://{}", small.address)], "");
        let mut older = Daemon::start(&site);
        older.says("published");
        // Another of the same owner, that sees more of the cluster, takes over and stops.
        control(&large, "start", "app", 40);
        site.follow(&[format!("http://{}", large.address)], "");
        let mut newer = Daemon::start(&site);
        newer.says("published");
        until("all are there", || !site.peer.query("app.marathon.mesos", "A").is_empty());
        older.says("another process of the same owner");
        let full = site.published(&before);
        assert_eq!(newer.stop().0, 0);
        older.says("removals are held: the desired records fell from");
        let now = site.published(&before);
        assert!(full.lines().all(|line| now.contains(line)), "{peer:?}");
        assert_eq!(older.stop().0, 0);
    });
}

#[test]
fn what_is_cut_for_a_server_is_no_loss() {
    let site = limited(Peer::Bind);
    site.sync(&state(&[("old", &["10.1.0.9"])])).exits(0);
    let addresses: Vec<String> = (1..=150).map(|n| format!("10.6.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let ran = site.sync(&state(&[("big", &addresses)])).exits(0);
    assert!(ran.stdout.contains("cut big.marathon.mesos. A: 100 of 150"), "{ran:#?}");
    assert_eq!(site.peer.query("old.marathon.mesos", "A"), Vec::<String>::new());
}
