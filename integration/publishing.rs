//! `diff` and `sync` against real name servers.

use serde_json::{Value, json};

use crate::peer::{Grant, Peer, Setup, nsupdate, on_every_peer};
use crate::proxy::Proxy;
use crate::site::{Site, state};

fn web() -> Value {
    state(&[("web", &["10.1.0.1"]), ("web", &["10.1.0.2"]), ("db", &["10.1.0.3", "fd00::3"])])
}

#[test]
fn a_cold_publish_makes_the_zone_that_was_shown() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        let shown = site.diff(&web()).exits(1).stdout;
        assert!(shown.contains("+ web.marathon.mesos. 60 A 10.1.0.1\n"), "{shown}");
        assert_eq!(site.peer.axfr(), before, "a dry run changes nothing");
        let done = site.sync(&web()).exits(0).stdout;
        assert_eq!(done, shown, "sync does what diff showed");
        let records = site.with(&web(), &["records", "--format", "tsv"]).exits(0).stdout;
        assert_eq!(site.published(&before), records);
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.0.1", "10.1.0.2"]);
        site.diff(&web()).exits(0);
    });
}

#[test]
fn tasks_come_move_and_end() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        let stages = [
            state(&[("web", &["10.1.0.1"])]),
            state(&[("web", &["10.1.0.1"]), ("web", &["10.1.0.2"]), ("new", &["10.1.0.9"])]),
            state(&[("web", &["10.1.7.7"]), ("web", &["10.1.0.2"])]),
            state(&[("web", &["fd00::1"])]),
            state(&[]),
            web(),
        ];
        for stage in stages {
            site.sync(&stage).exits(0);
            let records = site.with(&stage, &["records", "--format", "tsv"]).exits(0).stdout;
            assert_eq!(site.published(&before), records);
        }
    });
}

#[test]
fn a_changed_ttl_reaches_the_zone() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        site.sync(&web()).exits(0);
        let server = site.peer.addr().to_string();
        site.configure(&server, site.peer.key_file(), "", "[zone]\nttl = \"7s\"");
        site.sync(&web()).exits(0);
        let ttls = site.peer.axfr().into_iter().filter(|line| !before.contains(line));
        let others: Vec<String> =
            ttls.filter(|line| !line.contains("\tTXT\t") && !line.contains("\t7\t")).collect();
        assert_eq!(others, Vec::<String>::new());
        site.diff(&web()).exits(0);
    });
}

#[test]
fn a_foreign_cname_blocks_its_name_and_nothing_else() {
    on_every_peer(|peer| {
        let records = "web.marathon IN CNAME elsewhere.example.\n";
        let site = Site::start(peer, &Setup { records, ..Setup::default() });
        let done = site.sync(&web()).exits(0);
        let line = "not ours web.marathon.mesos. A: a foreign CNAME is there";
        assert!(done.stdout.contains(line), "{done:?}");
        assert_eq!(site.peer.query("db.marathon.mesos", "A"), ["10.1.0.3"]);
        let serial = site.peer.serial();
        let again = site.sync(&web()).exits(0);
        assert!(again.stdout.contains("0 to add, 0 to remove") && again.stdout.contains(line));
        assert_eq!(site.peer.serial(), serial, "it is not tried again");
        site.peer.nsupdate("update delete web.marathon.mesos CNAME");
        site.sync(&web()).exits(0);
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.0.1", "10.1.0.2"]);
    });
}

#[test]
fn a_name_of_five_thousand_addresses_is_published_as_far_as_it_can_be_answered() {
    let addresses: Vec<String> =
        (0..5_000).map(|n| format!("10.2.{}.{}", n / 250, n % 250 + 1)).collect();
    // One task with all of them, so that no server has five thousand names to make as well.
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let (large, smaller) = (state(&[("big", &all)]), state(&[("big", &all[..4_999])]));
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        let published = || {
            let all = site.published(&before);
            all.lines().filter(|line| line.starts_with("big.marathon.mesos.\tA\t")).count()
        };
        let expected = if peer == Peer::Bind { 100 } else { 3_750 };
        let done = site.sync(&large).exits(0);
        let cut = format!("cut big.marathon.mesos. A: {expected} of 5000 records\n");
        assert!(done.stdout.contains(&cut), "no {cut:?}");
        assert_eq!(published(), expected);
        site.diff(&large).exits(0);
        site.sync(&smaller).exits(0);
        assert_eq!(published(), expected);
    });
}

/// What an operator keeps in the zone beside us.
const MANUAL: &str = "\
www IN A 192.0.2.1
www IN AAAA 2001:db8::1
mail IN MX 10 www
note IN TXT \"ours\"
alias IN CNAME www
lab IN NS ns.lab
lab IN NS ns2
ns.lab IN A 192.0.2.53
ns2 IN A 192.0.2.54
vip-1 IN A 192.0.2.99
";

#[test]
fn what_is_not_ours_stays_in_the_first_run_and_in_the_third() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup { records: MANUAL, ..Setup::default() });
        let server = site.peer.addr().to_string();
        let protect = "protect = [\"www.mesos\", \"vip-*.mesos\"]";
        site.configure(&server, site.peer.key_file(), protect, "");
        let before = site.peer.axfr();
        for stage in [web(), state(&[]), web()] {
            site.sync(&stage).exits(0);
            let now = site.peer.axfr();
            let gone: Vec<&String> = before.iter().filter(|line| !now.contains(line)).collect();
            assert!(gone.is_empty(), "{gone:?}");
        }
    });
}

#[test]
fn first_contact_deletes_and_replaces_nothing_until_it_is_approved() {
    on_every_peer(|peer| {
        let records = "old IN A 192.0.2.9\nweb.marathon IN A 192.0.2.8\n";
        let site = Site::start(peer, &Setup { records, ..Setup::default() });
        let before = site.peer.axfr();
        for _ in 0..2 {
            let held = site.sync(&web()).exits(1).stdout;
            assert!(held.contains("2 records found there"), "{held}");
            assert_eq!(site.peer.query("db.marathon.mesos", "A"), ["10.1.0.3"]);
            let now = site.peer.axfr();
            assert!(before.iter().all(|line| now.contains(line)));
            assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["192.0.2.8"]);
        }
        let shown: Value =
            serde_json::from_str(&site.with(&web(), &["diff", "--format", "json"]).exits(1).stdout)
                .unwrap();
        let id = shown["targets"][0]["held"][0]["plan_id"].as_str().unwrap().to_owned();
        site.with(&web(), &["sync", "--approve", "0123456789ab"]).exits(1);
        assert_eq!(site.peer.query("old.mesos", "A"), ["192.0.2.9"]);
        site.with(&web(), &["sync", "--approve", &id]).exits(0);
        assert_eq!(site.peer.query("old.mesos", "A"), Vec::<String>::new());
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.0.1", "10.1.0.2"]);
        site.peer.nsupdate("update add later.mesos 60 A 192.0.2.7");
        site.sync(&web()).exits(0);
        let later = site.peer.query("later.mesos", "A");
        assert_eq!(later, Vec::<String>::new(), "the fence remembers that the space is ours");
    });
}

#[test]
fn nothing_is_removed_while_agents_are_missing() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        site.sync(&web()).exits(0);
        let before = site.peer.axfr();
        let mut failed_over = state(&[("more", &["10.1.0.7"])]);
        failed_over["recovered_slaves"] = serde_json::json!([{"id": "x-S9"}]);
        let held = site.sync(&failed_over).exits(1);
        assert!(held.stdout.contains("held: 1 agent not back"), "{held:?}");
        let now = site.peer.axfr();
        let gone = before.iter().filter(|line| !now.contains(line) && !line.contains("\tTXT\t"));
        assert_eq!(gone.count(), 0);
        assert_eq!(site.peer.query("more.marathon.mesos", "A"), ["10.1.0.7"]);
        let shown = site.with(&failed_over, &["diff", "--format", "json"]).exits(1).stdout;
        assert!(shown.contains("\"plan_id\": null"), "{shown}");
    });
}

#[test]
fn the_nsupdate_script_makes_the_zone_that_sync_makes() {
    on_every_peer(|peer| {
        let stages = [web(), state(&[("web", &["10.1.0.1"]), ("x", &["10.1.0.5"])])];
        let (scripted, synced) =
            (Site::start(peer, &Setup::default()), Site::start(peer, &Setup::default()));
        for stage in stages {
            let script = scripted.with(&stage, &["diff", "--format", "nsupdate"]).exits(1).stdout;
            let head: Vec<&str> = script.lines().filter(|line| !line.starts_with(';')).collect();
            assert!(head[0].starts_with("server ") && head[1] == "zone mesos.", "{script}");
            assert!(head[2].starts_with("prereq "), "{script}");
            assert!(!script.contains("secret"));
            let (addr, key) = (scripted.peer.addr(), scripted.peer.key_file());
            nsupdate(addr, "mesos", &key, &script).unwrap();
            synced.sync(&stage).exits(0);
            let ours = |site: &Site| {
                let mut zone = site.peer.axfr();
                zone.retain(|line| !line.starts_with("_mesozone."));
                zone
            };
            assert_eq!(ours(&scripted), ours(&synced));
            // The same space with the fence of a first sync.
            scripted.sync(&stage).exits(0);
        }
    });
}

#[test]
fn a_second_sync_only_reads() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        site.sync(&web()).exits(0);
        let proxy = Proxy::to(site.peer.addr());
        site.configure(&proxy.addr().to_string(), site.peer.key_file(), "", "");
        let (serial, zone) = (site.peer.serial(), site.peer.axfr());
        site.sync(&web()).exits(0);
        let seen: Vec<String> = proxy.seen().iter().map(ToString::to_string).collect();
        assert_eq!(seen, ["QUERY AXFR mesos."]);
        assert_eq!((site.peer.serial(), site.peer.axfr()), (serial, zone));
    });
}

#[test]
fn a_domain_may_be_deeper_than_its_zone() {
    on_every_peer(|peer| {
        let records = "www IN A 192.0.2.1\nprod IN TXT \"x\"\n";
        let zone = "corp.example";
        let domain = Some("prod.corp.example");
        let site = Site::start(peer, &Setup { zone, domain, records, ..Setup::default() });
        let server = site.peer.addr().to_string();
        let more = "[zone]\ndomain = \"prod.corp.example\"";
        site.configure(&server, site.peer.key_file(), "zone = \"corp.example\"", more);
        let before = site.peer.axfr();
        for stage in [web(), state(&[]), web()] {
            site.sync(&stage).exits(0);
            let now = site.peer.axfr();
            assert!(before.iter().all(|line| now.contains(line)), "{now:?}");
        }
        let web = site.peer.query("web.marathon.prod.corp.example", "A");
        assert_eq!(web, ["10.1.0.1", "10.1.0.2"]);
        assert_eq!(site.peer.query("_mesozone.prod.corp.example", "TXT").len(), 1);
    });
}

#[test]
fn one_target_in_trouble_costs_no_other() {
    let (bind, knot) =
        (Peer::Bind.start(&Setup::default()), Site::start(Peer::Knot, &Setup::default()));
    let mut gone = Peer::PowerDns.start(&Setup::default());
    let target = |name: &str, addr: std::net::SocketAddr, key: std::path::PathBuf| {
        let key = key.display();
        format!("[[target]]\nname = \"{name}\"\nserver = \"{addr}\"\ntsig_key_file = \"{key}\"\n")
    };
    let more = target("gone", gone.addr(), gone.key_file())
        + &target("bind", bind.addr(), bind.key_file());
    gone.stop();
    let server = knot.peer.addr().to_string();
    knot.configure(&server, knot.peer.key_file(), "", &more);
    let ran = knot.sync(&web()).exits(2);
    assert!(ran.one_line().contains("target gone"), "{ran:?}");
    let expected = ["10.1.0.1", "10.1.0.2"];
    assert_eq!(bind.query("web.marathon.mesos", "A"), expected);
    assert_eq!(knot.peer.query("web.marathon.mesos", "A"), expected);
    knot.with(&web(), &["diff", "--target", "bind"]).exits(0);
    let unknown = knot.with(&web(), &["diff", "--target", "nobody"]).exits(2);
    assert!(unknown.one_line().contains("there are: lab, gone, bind"), "{unknown:?}");
}

/// What every refusal has: exit 2, one line with target, server, zone and this step, and a zone
/// as it was.
#[track_caller]
fn check_refused(site: &Site, step: &str, cause: &str) {
    let before = site.peer.axfr();
    let ran = site.sync(&web()).exits(2);
    let line = ran.one_line();
    let server = site.peer.addr().to_string();
    for part in ["target lab", "server ", &server, "zone mesos.", step, cause] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    assert_eq!(site.peer.axfr(), before);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_wrong_secret_is_told() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let server = site.peer.addr().to_string();
        site.configure(&server, site.peer.wrong_secret_key_file(), "", "");
        // PowerDNS answers without a word about the key.
        let cause = if peer == Peer::PowerDns { "without a signature" } else { "BADSIG" };
        check_refused(&site, "transferring the zone", cause);
    });
}

#[test]
fn an_unknown_key_is_told() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let server = site.peer.addr().to_string();
        site.configure(&server, site.peer.unknown_key_file(), "", "");
        let cause = if peer == Peer::PowerDns { "without a signature" } else { "BADKEY" };
        check_refused(&site, "transferring the zone", cause);
    });
}

#[test]
fn clocks_apart_are_told_with_their_distance() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup { clock: 600, ..Setup::default() });
        let before = site.peer.serial();
        let line = site.sync(&web()).exits(2).one_line().to_owned();
        let words = match peer {
            Peer::PowerDns => "without a signature",
            Peer::Bind | Peer::Knot => "s ahead of ours",
        };
        assert!(line.contains("transferring the zone") && line.contains(words), "{line}");
        assert_eq!(site.peer.serial(), before);
    });
}

#[test]
fn a_refused_transfer_is_told() {
    on_every_peer(|peer| {
        let grant = Grant::UpdateOnly;
        let site = Site::start(peer, &Setup { grant, ..Setup::default() });
        check_refused(&site, "transferring the zone", "");
    });
}

#[test]
fn a_refused_update_is_told() {
    on_every_peer(|peer| {
        let grant = Grant::TransferOnly;
        let site = Site::start(peer, &Setup { grant, ..Setup::default() });
        check_refused(&site, "updating", "");
    });
}

#[test]
fn a_zone_that_is_not_there_is_told() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup { zone: "other", ..Setup::default() });
        let serial = site.peer.serial();
        let line = site.sync(&web()).exits(2).one_line().to_owned();
        assert!(line.contains("zone mesos.") && line.contains("transferring the zone"), "{line}");
        assert_eq!(site.peer.serial(), serial);
    });
}

#[test]
fn a_server_that_is_down_is_told() {
    on_every_peer(|peer| {
        let mut site = Site::start(peer, &Setup::default());
        site.peer.stop();
        let line = site.sync(&web()).exits(2).one_line().to_owned();
        assert!(line.contains("connecting") && line.contains("refused"), "{line}");
        site.peer.start();
        site.sync(&web()).exits(0);
    });
}

#[test]
fn every_algorithm_signs_updates_and_transfers_of_many_messages() {
    let names: Vec<String> = (0..400).map(|n| format!("app{n}")).collect();
    let tasks: Vec<(&str, &[&str])> =
        names.iter().map(|name| (&**name, &["10.3.0.1"][..])).collect();
    let many = state(&tasks);
    on_every_peer(|peer| {
        let whole = ["hmac-sha1", "hmac-sha224", "hmac-sha384", "hmac-sha512"];
        // Only BIND has names for MACs cut short.
        let cut = ["hmac-sha256-128", "hmac-sha1-80", "hmac-sha512-256"];
        let cut = if peer == Peer::Bind { &cut[..] } else { &[] };
        for algorithm in whole.iter().chain(cut) {
            let site = Site::start(peer, &Setup { algorithm, ..Setup::default() });
            site.sync(&many).exits(0);
            site.diff(&many).exits(0);
        }
    });
}

#[test]
fn an_rrset_that_only_grows_never_exceeds_what_the_server_takes() {
    let all: Vec<String> =
        (0..5_000).map(|n| format!("10.2.{}.{}", n / 250, n % 250 + 1)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    // PowerDNS takes a minute for such an RRset and has no limit to exceed.
    for (peer, count) in [(Peer::Bind, 150), (Peer::Knot, 4_000)] {
        let site = Site::start(peer, &Setup::default());
        site.sync(&state(&[("big", &all[..count])])).exits(0);
        let mut recovering = state(&[("big", &all[100..count + 100]), ("more", &["10.9.9.9"])]);
        recovering["recovered_slaves"] = serde_json::json!([{"id": "x-S9"}]);
        for _ in 0..2 {
            site.sync(&recovering).exits(1);
            assert_eq!(site.peer.query("more.marathon.mesos", "A"), ["10.9.9.9"]);
        }
        site.sync(&state(&[("big", &all[100..count + 100])])).exits(0);
    }
}

#[test]
fn a_sync_that_lost_a_reply_blocks_nobody() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let proxy = Proxy::to(site.peer.addr());
        site.configure(&proxy.addr().to_string(), site.peer.key_file(), "", "");
        let before = site.peer.axfr();
        proxy.lose_next_reply();
        let line = site.sync(&web()).exits(2).one_line().to_owned();
        assert!(line.contains("updating: the server closed the connection"), "{line}");
        site.sync(&web()).exits(0);
        let records = site.with(&web(), &["records", "--format", "tsv"]).exits(0).stdout;
        assert_eq!(site.published(&before), records);
    });
}

#[test]
fn what_a_host_name_had_stays_while_it_cannot_be_resolved() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let mut by_name = web();
        by_name["frameworks"][0]["pid"] = Value::Null;
        by_name["frameworks"][0]["hostname"] = "localhost".into();
        site.sync(&by_name).exits(0);
        assert_eq!(site.peer.query("marathon.mesos", "A"), ["127.0.0.1"]);
        by_name["frameworks"][0]["hostname"] = "no-such-host.invalid".into();
        by_name["frameworks"][0]["tasks"] = serde_json::json!([]);
        let held = site.sync(&by_name).exits(1);
        assert!(held.stdout.contains("a host name of the cluster cannot be resolved"), "{held:?}");
        assert_eq!(site.peer.query("marathon.mesos", "A"), ["127.0.0.1"]);
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), Vec::<String>::new());
    });
}

#[test]
fn what_waits_for_agents_to_come_back_ends_a_sync_with_1() {
    let records = "web.marathon IN A 10.1.0.1\n";
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup { records, ..Setup::default() });
        let mut recovering = state(&[("web", &["10.1.0.1", "10.1.0.2"]), ("new", &["10.1.0.3"])]);
        recovering["recovered_slaves"] =
            json!([{"id": "x-S9", "pid": "slave(1)@10.0.1.9:5051", "hostname": "nine"}]);
        site.sync(&recovering).exits(1);
        assert_eq!(site.peer.query("new.marathon.mesos", "A"), ["10.1.0.3"]);
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.0.1"], "not adopted yet");
        let whole = state(&[("web", &["10.1.0.1", "10.1.0.2"]), ("new", &["10.1.0.3"])]);
        site.sync(&whole).exits(0);
        assert_eq!(site.peer.query("web.marathon.mesos", "A").len(), 2);
    });
}
