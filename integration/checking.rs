//! `check` says what is wrong, what to do about it, and changes nothing.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::documents::golden;
use crate::masters::canned::Nobody;
use crate::peer::{Grant, Peer, Setup, on_every_peer};
use crate::running::Daemon;
use crate::simulated::Simulated;
use crate::site::{Ran, Site};
use crate::zookeeper::server::Server;
use crate::zookeeper::{admin, make, stand};

/// A check ends by itself in less, whatever hangs.
const ENDS: Duration = Duration::from_secs(90);

/// Runs the check, and sees that it leaves the zone and its serial as they are.
#[track_caller]
fn check(site: &Site) -> Ran {
    let zone = || (site.peer.axfr(), site.peer.serial());
    let (before, started) = (zone(), Instant::now());
    let ran = site.run(&["check"]);
    assert!(started.elapsed() < ENDS, "{:?}", started.elapsed());
    assert_eq!(zone(), before, "{ran:#?}");
    assert_eq!(ran.stderr, "", "{ran:#?}");
    for line in ran.stdout.lines() {
        let is_level = ["ok    ", "warn  ", "FAIL  "].iter().any(|level| line.starts_with(level));
        let is_told = line.starts_with("ok ") || line.contains("; ");
        assert!(is_level && is_told, "{line}");
    }
    let has = |level: &str| ran.stdout.lines().any(|line| line.starts_with(level));
    let code = if has("FAIL") { 2 } else { i32::from(has("warn")) };
    ran.exits(code)
}

/// The lines of a level, without their zone.
fn lines(ran: &Ran, level: &str) -> Vec<String> {
    let lines = ran.stdout.lines().filter_map(|line| line.strip_prefix(level));
    lines.map(|line| line.trim().rsplit("zone mesos.: ").next().unwrap().to_owned()).collect()
}

#[track_caller]
fn check_fails(ran: &Ran, parts: &[&str]) {
    let failures = lines(ran, "FAIL");
    assert_eq!(failures.len(), parts.len(), "{ran:#?}");
    for (line, part) in failures.iter().zip(parts) {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

#[track_caller]
fn check_warns(ran: &Ran, parts: &[&str]) {
    assert_eq!(lines(ran, "FAIL"), Vec::<String>::new(), "{ran:#?}");
    let warnings = lines(ran, "warn");
    assert_eq!(warnings.len(), parts.len(), "{ran:#?}");
    for (line, part) in warnings.iter().zip(parts) {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

fn url(master: &Simulated) -> String {
    format!("http://{}", master.address)
}

/// A site that follows this master, its space adopted.
fn adopted(peer: Peer, master: &Simulated, setup: &Setup<'_>) -> Site {
    let site = Site::start(peer, setup);
    site.follow(&[url(master)], "");
    site.run(&["sync"]).exits(0);
    site
}

/// The same site with another configuration of its target.
fn reconfigure(site: &Site, master: &Simulated, target: &str, more: &str) {
    let addr = site.peer.addr().to_string();
    site.configure(&addr, site.peer.key_file(), target, more);
    site.follow(&[url(master)], "");
}

#[test]
fn the_lines_of_one_site_are_what_the_golden_file_has() {
    let (master, nobody) = (Simulated::start(&["--tasks", "30"]), Nobody::claim());
    let setup = Setup { records: "printer A 10.0.0.7", ..Setup::default() };
    let site = Site::start(Peer::Bind, &setup);
    let addr = site.peer.addr().to_string();
    let wrong = site.peer.wrong_secret_key_file();
    site.configure(
        &addr,
        site.peer.key_file(),
        "protect = [\"search*.marathon.mesos\"]",
        &format!(
            "[[target]]\nname = \"other\"\nserver = \"{addr}\"\ntsig_key_file = {wrong:?}\n\
             [zone]\nttl = \"5s\"\n"
        ),
    );
    site.follow(&[url(&master), format!("http://{}", nobody.address)], "");
    let said = check(&site).exits(2).stdout;
    let said = said.replace(&site.config().display().to_string(), "/etc/mesozone/mesozone.toml");
    let said = said.replace(&master.address, "10.0.0.1:5050");
    let said = said.replace(&nobody.address.to_string(), "10.0.0.2:5050");
    golden("integration/fixtures/check.txt", &said.replace(&addr, "10.0.0.53:53"));
    let chosen = site.run(&["check", "--target", "lab"]).exits(1).stdout;
    assert!(!chosen.contains("target other"), "{chosen}");
    let unknown = site.run(&["check", "--target", "x"]).exits(2);
    assert!(unknown.one_line().contains("no target is named"), "{unknown:#?}");
}

#[test]
fn where_all_is_well_nothing_is_to_be_done() {
    let master = Simulated::start(&[]);
    on_every_peer(|peer| {
        let site = adopted(peer, &master, &Setup::default());
        let said = check(&site).exits(0).stdout;
        for part in [
            "leads, Mesos 1.11.0",
            "events: ",
            "cluster: complete: 20 tasks on 3 agents",
            "SOA serial",
            "clock: like ours",
            "fence: ours, and no process holds it, epoch 1; the space is adopted",
            "update of A, AAAA, SRV below mesos. and TXT at _mesozone.mesos.: allowed",
            "IXFR: ",
            "transfer: allowed",
        ] {
            assert_eq!(said.matches(part).count(), 1, "{part}: {said}");
        }
        // Of what it answers to IXFR this is all that is certain.
        let knows = said.contains("IXFR: answers with differences");
        assert!(knows != (peer == Peer::PowerDns) || peer == Peer::Bind, "{said}");
    });
}

#[test]
fn each_right_that_is_missing_is_told() {
    let master = Simulated::start(&[]);
    on_every_peer(|peer| {
        for (grant, parts) in [
            (Grant::TransferOnly, vec!["update of A, AAAA, SRV below mesos. and TXT at"]),
            (Grant::UpdateOnly, vec!["transfer: the server answered"]),
            (Grant::None, vec!["update of A, AAAA, SRV", "transfer: the server answered"]),
        ] {
            let site = Site::start(peer, &Setup { grant, ..Setup::default() });
            site.follow(&[url(&master)], "");
            // Knot answers nothing to a key that no acl names.
            let parts = match (peer, grant) {
                (Peer::Knot, Grant::None) => vec!["SOA: the server does not know the key"],
                _ => parts,
            };
            check_fails(&check(&site), &parts);
        }
    });
}

#[test]
fn the_one_type_that_may_not_be_updated_is_told() {
    let master = Simulated::start(&[]);
    on_every_peer(|peer| {
        for denied in ["A", "AAAA", "SRV", "TXT"] {
            let types = ["A", "AAAA", "SRV", "TXT"].map(|rtype| rtype).to_vec();
            let types: Vec<&str> = types.into_iter().filter(|rtype| *rtype != denied).collect();
            let site = Site::start(peer, &Setup { types: &types, ..Setup::default() });
            site.follow(&[url(&master)], "");
            let ran = check(&site);
            let place = if denied == "TXT" { "at _mesozone.mesos." } else { "below mesos." };
            check_fails(&ran, &[&format!("update of {denied} {place}: the server answered")]);
            let granted = lines(&ran, "ok").into_iter().find(|line| line.starts_with("update of"));
            let granted = granted.expect("the others are granted");
            let words: Vec<&str> = granted.split([' ', ',']).collect();
            types.iter().for_each(|rtype| assert!(words.contains(rtype), "{granted}"));
            assert!(!words.contains(&denied), "{granted}");
        }
    });
}

#[test]
fn a_key_that_is_not_taken_is_told_in_words() {
    let master = Simulated::start(&[]);
    on_every_peer(|peer| {
        let site = adopted(peer, &master, &Setup::default());
        let addr = site.peer.addr().to_string();
        let (wrong, unknown) = (site.peer.wrong_secret_key_file(), site.peer.unknown_key_file());
        let said = |key, target: &str| {
            site.configure(&addr, key, target, "");
            site.follow(&[url(&master)], "");
            check(&site)
        };
        let of = |bind, powerdns| if peer == Peer::PowerDns { powerdns } else { bind };
        let another = "it does not know it, or by another secret";
        check_fails(&said(wrong, ""), &[of("SOA: the server has another secret", another)]);
        check_fails(&said(unknown.clone(), ""), &[of("SOA: the server does not know", another)]);
        let reads = format!("transfer_key_file = {:?}", site.peer.key_file());
        let ran = said(unknown, &reads);
        check_fails(&ran, &["update key: the server"]);
        assert!(ran.stdout.contains("transfer: allowed"), "{ran:#?}");
    });
}

#[test]
fn a_clock_that_is_off_is_told_with_its_seconds() {
    let master = Simulated::start(&[]);
    on_every_peer(|peer| {
        for (clock, way) in [
            (120, "ahead of ours"),
            (-90, "behind ours"),
            (3600, "ahead of ours"),
            (-3600, "behind ours"),
        ] {
            let site = Site::start(peer, &Setup { clock, ..Setup::default() });
            site.follow(&[url(&master)], "");
            let ran = check(&site);
            let told = match clock.abs() > 300 {
                true => lines(&ran, "FAIL").remove(0),
                false => lines(&ran, "warn").remove(0),
            };
            assert!(told.contains("clock") && told.contains(way), "{told}");
            let seconds = told.split(' ').find_map(|word| word.parse::<i64>().ok());
            // Of PowerDNS, which tells no time, by halving.
            assert!((seconds.unwrap() - clock.abs()).abs() <= 20, "{peer:?} {clock}: {told}");
        }
    });
}

#[test]
fn a_zone_that_is_not_there_is_told() {
    let master = Simulated::start(&[]);
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        for domain in ["absent", "sub.mesos"] {
            let zone = format!("[zone]\ndomain = {domain:?}");
            reconfigure(&site, &master, &format!("zone = {domain:?}"), &zone);
            let ran = check(&site);
            check_fails(&ran, &["it has no such zone"]);
            assert!(ran.stdout.contains("make the zone there"), "{ran:#?}");
        }
    });
}

#[test]
fn a_server_that_is_not_there_or_hangs_delays_nobody_else() {
    let (master, nobody) = (Simulated::start(&[]), Nobody::claim());
    let hangs = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let site = adopted(Peer::Bind, &master, &Setup::default());
    let target = |name: &str, server: String| {
        let key = site.peer.key_file();
        format!("[[target]]\nname = {name:?}\nserver = {server:?}\ntsig_key_file = {key:?}\n")
    };
    site.add(&target("gone", nobody.address.to_string()));
    site.add(&target("hangs", hangs.local_addr().unwrap().to_string()));
    let ran = check(&site);
    check_fails(&ran, &["SOA: cannot connect", "SOA: no answer within 15 s"]);
    let at = |part: &str| ran.stdout.find(part).unwrap_or_else(|| panic!("no {part}: {ran:#?}"));
    assert!(at("target lab") < at("target gone") && at("target gone") < at("target hangs"));
}

#[test]
fn who_holds_the_fence_is_told() {
    let master = Simulated::start(&[]);
    let rest = "instance=0000000000000001 epoch=1 adopted=no until=run";
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        site.follow(&[url(&master)], "");
        let fence = |text: &str| {
            site.peer.nsupdate(&format!("del _mesozone.mesos TXT\n{text}"));
            check(&site)
        };
        let ours = |until: &str| {
            let rest = rest.replace("until=run", until);
            fence(&format!("add _mesozone.mesos 0 TXT \"v=1 owner=mesos {rest}\""))
        };
        let well = |ran: Ran, part: &str| assert!(ran.stdout.contains(part), "{part}: {ran:#?}");
        well(check(&site).exits(0), "fence: none yet: first contact; `sync` makes it");
        well(ours("until=run"), "fence: held by a `run` (instance 0000000000000001), epoch 1");
        well(ours("until=99999999999"), "fence: held by a `sync` for");
        well(ours("until=1"), "fence: ours, and no process holds it, epoch 1");
        let foreign = format!("add _mesozone.mesos 0 TXT \"v=1 owner=else {rest}\"");
        check_fails(&fence(&foreign), &["`mesozone sync --take-over else`"]);
        let two = format!("{foreign}\nadd _mesozone.mesos 0 TXT \"v=1 owner=mesos {rest}\"");
        check_fails(&fence(&two), &["2 TXT records at _mesozone.mesos., where one has to be"]);
        check_fails(&fence("add _mesozone.mesos 0 TXT hello"), &["is no fence: \"hello\""]);
        // A wildcard is no fence, though it answers for one.
        site.peer.nsupdate("del _mesozone.mesos TXT\nadd *.mesos 60 TXT hello");
        well(check(&site), "fence: none yet");
    });
}

#[test]
fn a_domain_deeper_than_its_zone_is_tried_where_it_is() {
    let master = Simulated::start(&[]);
    on_every_peer(|peer| {
        let domain = Some("mesos.corp.example");
        let site = Site::start(peer, &Setup { zone: "corp.example", domain, ..Setup::default() });
        let zone = "[zone]\ndomain = \"mesos.corp.example\"";
        reconfigure(&site, &master, "zone = \"corp.example\"", zone);
        let said = check(&site).exits(0).stdout;
        let place = "below mesos.corp.example. and TXT at _mesozone.mesos.corp.example.: allowed";
        assert!(said.contains(place), "{said}");
        let elsewhere = "[zone]\ndomain = \"other.corp.example\"";
        reconfigure(&site, &master, "zone = \"corp.example\"", elsewhere);
        check_fails(&check(&site), &["update of A, AAAA, SRV below other.corp.example. and TXT"]);
    });
}

#[test]
fn what_is_held_and_what_is_in_the_way_is_told() {
    let master = Simulated::start(&["--tasks", "30"]);
    on_every_peer(|peer| {
        let records = "printer A 10.0.0.7\nslave CNAME ns1\n\
                       search.marathon 300 NS ns.search.marathon";
        let site = Site::start(peer, &Setup { records, ..Setup::default() });
        let protect = "protect = [\"leader.mesos\", \"master*.mesos\"]";
        reconfigure(&site, &master, protect, "[zone]\nttl = \"5s\"");
        check_warns(
            &check(&site),
            &[
                "negative TTL 10 s is above the records' 5 s",
                "not adopted yet: 1 record found there is held; `mesozone diff` lists all",
                "protect \"leader.mesos\" keeps 1 desired name from being published: leader.mesos.",
                "protect \"master*.mesos\" keeps 2 desired names",
                "1 desired name not published, a foreign CNAME is there: slave.mesos.",
                "not published, search.marathon.mesos. is delegated: search.marathon.mesos.",
            ],
        );
    });
}

#[test]
fn rrsets_that_a_server_may_refuse_are_told() {
    let master = Simulated::start(&["--tasks", "1"]);
    let count = json!({"framework": "marathon", "name": "crowd", "count": 120});
    master.control(json!({ "start": count }));
    let site = Site::start(Peer::Bind, &Setup::default());
    site.follow(&[url(&master)], "");
    let ran = check(&site);
    assert!(lines(&ran, "warn").concat().contains("of more than 100 records: _"), "{ran:#?}");
    reconfigure(&site, &master, "rrset_max = 7", "");
    let ran = check(&site);
    let warnings = lines(&ran, "warn").concat();
    assert!(warnings.contains("published in part: _") && warnings.contains("(7 of "), "{ran:#?}");
    assert!(!warnings.contains("of more than 100"), "{ran:#?}");
}

/// What the check says of these masters, the first part of each line cut.
fn of_masters(masters: &[String], mesos: &str) -> Ran {
    let site = Site::start(Peer::Bind, &Setup::default());
    site.follow(masters, mesos);
    check(&site)
}

#[test]
fn each_master_is_told_as_it_is() {
    let leader = Simulated::start(&[]);
    let standby = Simulated::start(&["--leader", &leader.address]);
    let (lost, nobody) = (Simulated::start(&["--no-leader"]), Nobody::claim());
    let gone = format!("http://{}", nobody.address);
    let follows = format!("follows {}, Mesos 1.11.0", url(&leader));
    let ran = of_masters(&[url(&standby), gone, url(&lost)], "timeout = \"5s\"");
    check_warns(&ran, &["cannot connect: Connection refused", "no leader is elected"]);
    let at = |part: &str| ran.stdout.find(part).unwrap_or_else(|| panic!("no {part}: {ran:#?}"));
    assert!(at(&follows) < at("cannot connect") && at("cannot connect") < at("no leader"));
    // Named by the standby alone.
    at(&format!("master {}: leads", url(&leader)));
}

#[test]
fn where_nobody_leads_the_check_fails() {
    let lost = Simulated::start(&["--no-leader"]);
    let ran = of_masters(&[url(&lost)], "timeout = \"5s\"");
    check_fails(&ran, &["no leader is elected", "cluster: no master that we may ask leads"]);
    assert!(ran.stdout.contains("transfer: allowed"), "{ran:#?}");
    let nobody = Nobody::claim();
    let ran = of_masters(&[format!("http://{}", nobody.address)], "");
    check_fails(&ran, &["cannot connect", "cluster: no master"]);
}

#[test]
fn credentials_that_a_master_refuses_fail_and_events_refused_are_a_warning() {
    let master = Simulated::start(&["--auth", "dns:secret"]);
    let site = Site::start(Peer::Bind, &Setup::default());
    let said = |master: &Simulated, secret: &str| {
        let file = site.path("secret");
        std::fs::write(&file, secret).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let auth = format!("auth = {{ principal = \"dns\", secret_file = {file:?} }}");
        site.follow(&[url(master)], &auth);
        check(&site)
    };
    check_warns(&said(&master, "secret"), &[]);
    check_fails(&said(&master, "wrong"), &["401", "no master that we may ask leads"]);
    let events = |options: &[&str], part: &str| {
        let master = Simulated::start(options);
        let ran = said(&master, "secret");
        let told = lines(&ran, "warn");
        assert_eq!(told.len(), 1, "{ran:#?}");
        assert!(
            told[0].contains(part) && told[0].contains("polls the state every 10 s"),
            "{told:?}"
        );
    };
    events(&["--auth-readwrite", "other:x"], "401");
    events(&["--v1-status", "403"], "403");
    events(&["--no-v1"], "404");
    let polled = Simulated::start(&["--no-v1"]);
    site.follow(&[url(&polled)], "watch = \"poll\"");
    let ran = check(&site);
    check_warns(&ran, &[]);
    assert!(!ran.stdout.contains("events"), "{ran:#?}");
}

#[test]
fn a_cluster_that_recovers_is_told() {
    let master = Simulated::start(&["--lost-agents", "1", "--elected-ago", "5"]);
    let ran = of_masters(&[url(&master)], "");
    check_warns(&ran, &["cluster: recovering (1 agent not back)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_tells_who_is_elected_or_why_not() {
    let servers = [Server::start()];
    let (master, nobody) = (Simulated::start(&[]), Nobody::claim());
    let zk = format!("zk://{}/mesos", servers[0].addr());
    let said = |masters: Vec<String>, mesos: &'static str| {
        tokio::task::spawn_blocking(move || of_masters(&masters, mesos))
    };
    let ran = said(vec![zk.clone()], "timeout = \"5s\"").await.unwrap();
    check_fails(&ran, &["there is no such node", "cluster: no master"]);
    let ran = said(vec![zk.clone(), url(&master)], "timeout = \"5s\"").await.unwrap();
    check_warns(&ran, &["there is no such node"]);
    let client = admin(&servers).await;
    make(&client, "/mesos", b"").await;
    let port = master.address.rsplit(':').next().unwrap().parse().unwrap();
    let _standing = stand(&servers, "/mesos", port).await;
    let ran = said(vec![zk], "").await.unwrap();
    check_warns(&ran, &[]);
    let elected = format!("{} leads, 1 stands for election", master.address);
    assert!(ran.stdout.contains(&elected), "{ran:#?}");
    assert!(ran.stdout.contains(&format!("master {}: leads", url(&master))), "{ran:#?}");
    let dead = format!("zk://{}/mesos", nobody.address);
    let ran = said(vec![dead, url(&master)], "timeout = \"5s\"").await.unwrap();
    check_warns(&ran, &["no contact with any of its servers"]);
}

#[test]
fn where_run_stands_for_election_is_told() {
    let (zookeeper, nobody) = (Server::start(), Nobody::claim());
    let master = Simulated::start(&[]);
    let site = adopted(Peer::Bind, &master, &Setup::default());
    let stands_at = |addr: SocketAddr| {
        let table = format!("[ha]\nelection = \"zk://{addr}/mesozone\"");
        reconfigure(&site, &master, "", &table);
        check(&site)
    };
    let ran = stands_at(zookeeper.addr()).exits(0);
    assert!(ran.stdout.contains("/mesozone: ZooKeeper answers"), "{ran:#?}");
    check_fails(&stands_at(nobody.address), &["/mesozone: no session"]);
}

#[test]
fn listen_addresses_are_free_taken_or_our_own() {
    let master = Simulated::start(&[]);
    let site = adopted(Peer::Bind, &master, &Setup::default());
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = udp.local_addr().unwrap();
    site.add(&format!("[server]\nlisten = [\"{at}\"]\n"));
    check_fails(&check(&site), &["server: cannot listen on"]);
    drop(udp);
    let free = check(&site).exits(0).stdout;
    assert!(free.contains(&format!("server: {at} is free")), "{free}");
    let mut daemon = Daemon::start(&site);
    daemon.says("answering for");
    daemon.says("published");
    let ran = check(&site);
    check_warns(&ran, &["is in use by a mesozone of this configuration"]);
    assert!(ran.stdout.contains("fence: held by a `run`"), "{ran:#?}");
    assert_eq!(daemon.stop().0, 0);
}

#[test]
fn secrets_that_others_can_read_are_warned_of_and_absent_ones_fail() {
    let master = Simulated::start(&[]);
    let site = adopted(Peer::Bind, &master, &Setup::default());
    let key = site.peer.key_file();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    check_warns(&check(&site), &["others can read the secret in"]);
    site.configure(&site.peer.addr().to_string(), site.path("absent"), "", "");
    site.follow(&[url(&master)], "auth = { header_file = \"/absent\" }");
    let ran = check(&site);
    check_fails(&ran, &["[mesos] auth: cannot read /absent", "target lab: cannot read"]);
}

#[test]
fn a_configuration_that_is_none_ends_the_check() {
    let site = Site::start(Peer::Bind, &Setup::default());
    site.add("[ha]\nowmer = \"mesos\"\n");
    let ran = site.run(&["check"]).exits(2);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("did you mean `owner`"), "{ran:#?}");
    assert_eq!(ran.stderr.matches("unknown field").count(), 1, "said once: {ran:#?}");
}
