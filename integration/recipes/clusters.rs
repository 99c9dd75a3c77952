//! Two clusters below one domain: in one zone, and delegated.

use super::{MASTER, answers, bind, dig, lines, on, ours, run, start, zone_file};
use crate::documents::blocks;
use crate::peer::{debian, example, nsupdate};
use crate::running::{Daemon, until};
use crate::simulated::Simulated;
use crate::site::{Site, state};

#[test]
fn two_clusters_in_one_zone_keep_to_their_subdomains() {
    let peer = bind("two-clusters", "example", |bind| {
        zone_file(bind, "mesos.zone", "printer A 10.0.0.7\n");
        example("two-clusters/named.conf.local")
    });
    let site = Site::beside(peer);
    let at = site.peer.addr();
    let clusters = [("east", "1"), ("west", "2")].map(|(name, seed)| {
        let master = Simulated::start(&["--tasks", "10", "--seed", seed]);
        let url = format!("http://{}", master.address);
        let file = format!("two-clusters/{name}.toml");
        let config = ours(&site, &file, &url, &[("10.0.0.53:53", &at.to_string())]);
        (name, master, Daemon::of(&site, &config), config)
    });
    let is_there = |name: &str| dig(at, &["+norecurse", name]).len() > 1;
    for (name, master, _, config) in &clusters {
        start(master, "fresh");
        until("it has its name", || is_there(&format!("fresh.marathon.{name}.mesos")));
        let desired = run(&site, config, &["records", "--format", "tsv"]).exits(0).stdout;
        until("and all others", || answers(&site, at, &desired) == lines(&desired));
        let fence = dig(at, &[&format!("_mesozone.{name}.mesos"), "TXT"]).concat();
        assert!(fence.contains(&format!("owner={name}-mesos")), "{fence}");
    }
    // What is outside of both is nobody's, and stays.
    assert!(is_there("printer.mesos"));
    for (name, other) in [("east", "west"), ("west", "east")] {
        let key = site.peer.dir().join(format!("{name}.key"));
        let intruder = |domain: &str| format!("update add x.{domain}.mesos 60 A 10.9.9.9");
        let refused = nsupdate(at, "mesos", &key, &intruder(other)).unwrap_err();
        assert!(refused.contains("REFUSED"), "{refused}");
    }
    for (name, _, daemon, config) in clusters {
        let (code, log) = daemon.stop();
        assert_eq!(code, 0);
        assert!(!log.iter().any(|line| line.contains("WARN")), "{name}: {log:#?}");
        run(&site, &config, &["diff"]).exits(0);
    }
    // A third, whose domain is above both, leaves theirs alone.
    let changes = [("10.0.0.53:53", at.to_string()), ("\"east.mesos\"", "\"mesos\"".to_owned())];
    let changes = changes.each_ref().map(|(from, to)| (*from, to.as_str()));
    let above = ours(&site, "two-clusters/east.toml", MASTER, &changes);
    let said = on(&site, &above, &state(&[]), &["diff"]).exits(1).stdout;
    assert!(said.contains("- printer.mesos.") && !said.contains("east.mesos."), "{said}");
    assert!(!said.contains("west.mesos."), "{said}");
}

#[test]
fn a_cluster_has_a_delegated_zone_of_its_own() {
    let document = example("two-clusters/README.md");
    let delegation = blocks(&document, "").into_iter().find(|block| block.contains("NS"));
    let delegation = delegation.expect("the lines of the parent");
    let parent = bind("two-clusters", "example", |bind| {
        zone_file(bind, "mesos.zone", &delegation);
        example("two-clusters/named.conf.local")
    });
    let child = bind("two-clusters", "example", |_| example("two-clusters/named.conf.east"));
    let site = Site::beside(child);
    let at = site.peer.addr().to_string();
    let east = "two-clusters/east-delegated.toml";
    let east = ours(&site, east, MASTER, &[("10.1.0.53:53", &at)]);
    let cluster = state(&[("web", &["10.1.0.1"])]);
    on(&site, &east, &cluster, &["sync"]).exits(0);
    let name = "web.marathon.east.mesos";
    assert_eq!(dig(site.peer.addr(), &["+norecurse", name]), ["NOERROR", "10.1.0.1"]);
    // The parent knows where to ask.
    let mut referral = debian("dig");
    let at = parent.addr();
    referral.args([&format!("@{}", at.ip()), "-p", &at.port().to_string(), "+norecurse", name]);
    let said = String::from_utf8(referral.output().unwrap().stdout).unwrap();
    assert!(said.contains("ns1.east.mesos."), "{said}");
    // And what is delegated there is not published there.
    let west = Site::beside(parent);
    let addr = west.peer.addr().to_string();
    let wrong = ours(&west, "two-clusters/east.toml", MASTER, &[("10.0.0.53:53", &addr)]);
    let said = on(&west, &wrong, &cluster, &["diff"]).stdout;
    assert!(said.contains("east.mesos. is delegated"), "{said}");
}
