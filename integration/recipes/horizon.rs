//! A split horizon: one BIND, two views, and what each of them shows.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{MASTER, bind, dig, here, on, ours, run, start, zone_file};
use crate::documents::blocks;
use crate::peer::example;
use crate::running::{Daemon, until};
use crate::simulated::Simulated;
use crate::site::{Site, state};

/// Two tasks: one may be seen from outside.
fn visible() -> Value {
    let mut state = state(&[("shop", &["10.1.0.1"]), ("db", &["10.1.0.2"])]);
    let tasks = &mut state["frameworks"][0]["tasks"];
    tasks[0]["discovery"] = json!({"visibility": "EXTERNAL", "name": "shop"});
    tasks[1]["discovery"] = json!({"visibility": "CLUSTER", "name": "db"});
    state
}

/// The recipe's BIND, where 127.0.0.1 is inside and 127.0.0.2 is not.
fn views() -> Site {
    let peer = bind("split-horizon", "mesos", |bind| {
        zone_file(bind, "mesos.inside", "");
        zone_file(bind, "mesos.outside", "");
        here(&example("split-horizon/named.conf.local"), &[("10.0.0.0/8", "127.0.0.1")])
    });
    Site::beside(peer)
}

fn seen(site: &Site, from: &str, name: &str) -> Vec<String> {
    let words: &[&str] = if from == "inside" { &[] } else { &["-b", "127.0.0.2"] };
    dig(site.peer.addr(), &[words, &["+norecurse", name]].concat())
}

#[test]
fn outside_a_split_horizon_only_external_tasks_are_seen() {
    let site = views();
    let at = site.peer.addr().to_string();
    let [inside, outside] = ["inside", "outside"].map(|view| {
        let file = format!("split-horizon/{view}.toml");
        ours(&site, &file, MASTER, &[("10.0.0.53:53", &at)])
    });
    on(&site, &inside, &visible(), &["sync"]).exits(0);
    on(&site, &outside, &visible(), &["sync"]).exits(0);
    let shop = ["NOERROR", "10.1.0.1"];
    assert_eq!(seen(&site, "inside", "shop.marathon.mesos"), shop);
    assert_eq!(seen(&site, "outside", "shop.marathon.mesos"), shop);
    for (name, data) in [
        ("db.marathon.mesos", "10.1.0.2"),
        ("leader.mesos", "10.0.0.1"),
        ("marathon.mesos", "10.0.0.9"),
        ("shop.marathon.slave.mesos", "10.0.1.1"),
    ] {
        assert_eq!(seen(&site, "inside", name), ["NOERROR", data]);
        assert!(seen(&site, "outside", name).len() == 1, "{name}");
    }
    // Each view has a fence of its own, though the owner is one.
    for config in [&inside, &outside] {
        on(&site, config, &visible(), &["diff"]).exits(0);
    }
    // A command of BIND names the view.
    for command in ["freeze", "thaw"] {
        site.peer.control(&[command, "mesos", "IN", "inside"]);
    }
    // What is not published there is told, since it was asked for.
    let said = on(&site, &outside, &visible(), &["diff"]).stdout;
    assert!(said.contains("not ours leader.mesos. A: protected by \"*.mesos\""), "{said}");
}

#[test]
fn all_that_is_published_outside_a_split_horizon_is_of_external_tasks() {
    let site = views();
    let at = site.peer.addr().to_string();
    let outside = ours(&site, "split-horizon/outside.toml", MASTER, &[("10.0.0.53:53", &at)]);
    on(&site, &outside, &visible(), &["sync"]).exits(0);
    let key = site.peer.dir().join("outside.key");
    let zone = site.peer.transfer(&key).unwrap();
    let ours = zone.iter().filter(|line| !line.contains("ns1") && !line.contains("_mesozone"));
    let names: BTreeSet<&str> = ours.filter_map(|line| line.split('\t').next()).collect();
    assert!(names.iter().all(|name| name.contains("shop")), "{names:?}");
}

#[test]
fn two_processes_publish_into_the_two_views_of_a_split_horizon() {
    let (site, master) = (views(), Simulated::start(&["--tasks", "10"]));
    let (at, url) = (site.peer.addr().to_string(), format!("http://{}", master.address));
    let [commands] = &*blocks(&example("split-horizon/README.md"), "sh") else { panic!("one") };
    let mut daemons = Vec::new();
    for (command, http) in commands.lines().zip(["127.0.0.1:8123", "127.0.0.1:8124"]) {
        let file = command.strip_prefix("mesozone run --config /etc/mesozone/").unwrap();
        let changes = [("10.0.0.53:53", at.as_str()), (http, "127.0.0.1:0")];
        let config = ours(&site, &format!("split-horizon/{file}"), &url, &changes);
        daemons.push(Daemon::of(&site, &config));
    }
    assert_eq!(daemons.len(), 2);
    until("the leader is seen inside", || seen(&site, "inside", "leader.mesos").len() == 2);
    let key = site.peer.dir().join("outside.key");
    let zone = || site.peer.transfer(&key).unwrap().concat();
    until("there is a fence outside", || zone().contains("owner=mesos"));
    start(&master, "fresh");
    let is_inside = || seen(&site, "inside", "fresh.marathon.mesos").len() == 2;
    until("a new task has its name inside", is_inside);
    assert!(!zone().contains("leader") && !zone().contains("fresh"), "{}", zone());
    daemons.into_iter().for_each(|daemon| assert_eq!(daemon.stop().0, 0));
}

#[test]
fn one_process_publishes_into_both_views_of_a_split_horizon() {
    let site = views();
    let at = site.peer.addr().to_string();
    let master = Simulated::start(&["--tasks", "10"]);
    let url = format!("http://{}", master.address);
    let both = ours(&site, "split-horizon/both.toml", &url, &[("10.0.0.53:53", &at)]);
    let mut daemon = Daemon::of(&site, &both);
    daemon.says("published");
    daemon.says("published");
    start(&master, "fresh");
    for from in ["inside", "outside"] {
        until("a new task has its name", || seen(&site, from, "fresh.marathon.mesos").len() == 2);
    }
    until("the leader is seen inside", || seen(&site, "inside", "leader.mesos").len() == 2);
    assert_eq!(seen(&site, "outside", "leader.mesos"), ["NXDOMAIN"]);
    assert_eq!(run(&site, &both, &["check"]).code, 1, "it warns of what is protected");
    assert_eq!(daemon.stop().0, 0);
}
