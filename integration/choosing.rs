//! Names that tasks choose by a label, and tasks and frameworks that have none by choice.

use serde_json::json;

use crate::peer::{Setup, on_every_peer};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::{Site, state};

#[test]
fn names_that_tasks_choose_follow_the_events_of_the_masters() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "20"]);
        let site = Site::start(peer, &Setup::default());
        let (server, key) = (site.peer.addr().to_string(), site.peer.key_file());
        // The label that simulated apps have, each with the value `<app>.apps.example`.
        site.configure(&server, key, "", "[zone]\ntask_label = \"HAPROXY_0_VHOST\"\n");
        site.follow(&[format!("http://{}", master.address)], "");
        let before = site.peer.axfr();
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        until("the zone is the desired one", || site.published(&before) == desired(&site));
        let chosen = || site.peer.query("fresh.apps.example.mesos", "A");
        let start = json!({"framework": "marathon", "name": "fresh", "count": 2});
        master.control(json!({"start": start}));
        until("both have the name that they choose", || chosen().len() == 2);
        assert_eq!(chosen(), site.peer.query("fresh.marathon.mesos", "A"));
        let health = json!({"name": "fresh", "healthy": false, "count": 1});
        master.control(json!({"health": health}));
        until("one that is not well is withheld", || chosen().len() == 1);
        master.control(json!({"kill": {"name": "fresh", "count": 2}}));
        until("nobody has it any more", || chosen().is_empty());
        assert_eq!(daemon.stop().0, 0);
        assert_eq!(site.published(&before), desired(&site));
    });
}

#[test]
fn what_is_left_out_by_choice_leaves_the_zone_and_is_no_fault() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let mut cluster = state(&[("web", &["10.1.1.1"]), ("db", &["10.1.1.2"])]);
        let discovery = json!({"visibility": "EXTERNAL", "name": "web"});
        cluster["frameworks"][0]["tasks"][0]["discovery"] = discovery;
        let names = || {
            ["marathon", "web.marathon", "db.marathon"]
                .map(|name| !site.peer.query(&format!("{name}.mesos"), "A").is_empty())
        };
        let check = |zone: &str, expected: [bool; 3]| {
            let (server, key) = (site.peer.addr().to_string(), site.peer.key_file());
            site.configure(&server, key, "", &format!("[zone]\n{zone}\n"));
            let ran = site.sync(&cluster).exits(0);
            assert_eq!((names(), &*ran.stderr), (expected, ""), "{zone}");
        };
        check("", [true, true, true]);
        check("visibility = [\"CLUSTER\", \"EXTERNAL\"]", [true, true, false]);
        check("visibility = [\"FRAMEWORK\"]", [true, false, false]);
        check("frameworks = { include = [\"MAR*\"] }", [true, true, true]);
        check("frameworks = { exclude = [\"mara*\"] }", [false, false, false]);
        check("frameworks = { include = [\"chronos\"] }", [false, false, false]);
    });
}

#[test]
fn a_domain_below_the_zones_apex_has_the_addresses_of_tasks_that_choose_it() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let server = site.peer.addr().to_string();
        let zone = |more: &str| format!("[zone]\ndomain = \"prod.mesos\"\n{more}\n");
        let key = || site.peer.key_file();
        site.configure(&server, key(), "zone = \"mesos\"\n", &zone("task_label = \"dns\""));
        let mut cluster = state(&[("web", &["10.1.1.1"]), ("db", &["10.1.1.2"])]);
        let tasks = &mut cluster["frameworks"][0]["tasks"];
        tasks[0]["labels"] = json!([{"key": "dns", "value": "prod.mesos.,www"}]);
        tasks[1]["labels"] = json!([{"key": "dns", "value": "www"}]);
        site.sync(&cluster).exits(0);
        assert_eq!(site.peer.query("prod.mesos", "A"), ["10.1.1.1"]);
        assert_eq!(site.peer.query("www.prod.mesos", "A"), ["10.1.1.1", "10.1.1.2"]);
        // Where no task may choose it, it is not ours.
        site.configure(&server, key(), "zone = \"mesos\"\n", &zone(""));
        site.sync(&state(&[])).exits(0);
        assert_eq!(site.peer.query("prod.mesos", "A"), ["10.1.1.1"]);
        site.configure(&server, key(), "zone = \"mesos\"\n", &zone("task_label = \"dns\""));
        site.sync(&state(&[])).exits(0);
        assert_eq!(site.peer.query("prod.mesos", "A"), Vec::<String>::new());
        // The apex of a zone is never ours.
        site.configure(&server, key(), "", "[zone]\ntask_label = \"dns\"\n");
        cluster["frameworks"][0]["tasks"][0]["labels"][0]["value"] = "mesos.".into();
        let shown = site.diff(&cluster).stdout;
        assert!(shown.contains("not ours mesos. A: it is the zone's apex"), "{shown}");
    });
}
