//! What a server refuses for its content costs the name at fault and no other; what it refuses
//! whole costs no name at all.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::peer::{Peer, Setup, nsupdate, on_every_peer};
use crate::proxy::{Proxy, Seen};
use crate::running::{Daemon, desired, proxied, until};
use crate::simulated::Simulated;
use crate::site::{Ran, Site, state};

const FENCE: &str = "_mesozone.mesos.";

/// Tasks `app000` and on, an address each.
fn apps(count: usize) -> Value {
    let names: Vec<String> = (0..count).map(|n| format!("app{n:03}")).collect();
    let addresses: Vec<String> =
        (0..count).map(|n| format!("10.5.{}.{}", n / 250, n % 250 + 1)).collect();
    let addresses: Vec<[&str; 1]> = addresses.iter().map(|address| [address.as_str()]).collect();
    let each = names.iter().zip(&addresses);
    state(&each.map(|(name, address)| (name.as_str(), &address[..])).collect::<Vec<_>>())
}

/// The name of a task of that framework.
fn app(n: usize) -> String {
    format!("app{n:03}.marathon.mesos")
}

/// What is desired, a line each.
fn records(site: &Site, state: &Value) -> String {
    site.with(state, &["records", "--format", "tsv"]).exits(0).stdout
}

/// The names of these lines, and the fence's.
fn names(records: &str) -> Vec<String> {
    let names = records.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned);
    names.chain([FENCE.to_owned()]).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The lines without those of these names.
fn less(records: &str, names: &[&str]) -> String {
    let is_other = |line: &&str| {
        let name = line.split('\t').next().unwrap().trim_end_matches('.');
        !names.contains(&name)
    };
    records.lines().filter(is_other).map(|line| format!("{line}\n")).collect()
}

/// The rcode in words to a message of a name that is not permitted, and no other.
fn denial(peer: Peer) -> &'static str {
    match peer {
        Peer::Bind => "REFUSED",
        Peer::Knot => "NOTAUTH",
        Peer::PowerDns => "SERVFAIL",
    }
}

/// The names that `sync` says are refused, each once.
#[track_caller]
fn refused(ran: &Ran) -> Vec<&str> {
    let lines = ran.stdout.lines().filter_map(|line| line.strip_prefix("refused "));
    let names: Vec<&str> = lines.map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{ran:#?}");
    names.into_iter().map(|name| name.trim_end_matches('.')).collect()
}

fn updates(proxy: &Proxy) -> Vec<Seen> {
    proxy.seen().into_iter().filter(|seen| seen.opcode == 5).collect()
}

#[test]
fn a_message_with_one_name_that_is_not_permitted_is_refused_whole() {
    on_every_peer(|peer| {
        let mut server = peer.start(&Setup::default());
        let others = ["a.mesos.", "b.mesos.", FENCE].map(str::to_owned);
        server.forbid(&["b.mesos"], &others);
        let send = |script| nsupdate(server.addr(), "mesos", &server.key_file(), script);
        let both = "add a.mesos 60 A 10.0.0.1\nadd b.mesos 60 A 10.0.0.2";
        for script in [both, "add b.mesos 60 A 10.0.0.2"] {
            let told = send(script).unwrap_err();
            assert!(told.contains(denial(peer)), "{told}");
        }
        assert!(server.query("a.mesos", "A").is_empty());
        send("add a.mesos 60 A 10.0.0.1").unwrap();
        server.allow(&[]);
        nsupdate(server.addr(), "mesos", &server.key_file(), both).unwrap();
    });
}

#[test]
fn knot_denies_a_name_only_in_messages_of_nothing_else() {
    let mut server = Peer::Knot.start(&Setup::default());
    let deny = "id: denied\n    key: mesozone\n    action: update\n    deny: on\n    \
                update-owner: name\n    update-owner-match: equal\n    \
                update-owner-name: [ b.mesos. ]\n  - id: mesozone-reads\n";
    let list = ("acl: [ admin, ", "acl: [ denied, admin, ");
    server.allow(&[("id: mesozone-reads\n", deny), list]);
    let send = |script| nsupdate(server.addr(), "mesos", &server.key_file(), script);
    assert!(send("add b.mesos 60 A 10.0.0.2").unwrap_err().contains("NOTAUTH"));
    send("add a.mesos 60 A 10.0.0.1\nadd b.mesos 60 A 10.0.0.2").unwrap();
}

#[test]
fn one_forbidden_name_costs_no_other() {
    let all = apps(120);
    on_every_peer(|peer| {
        let mut site = Site::start(peer, &Setup::default());
        let (before, records) = (site.peer.axfr(), records(&site, &all));
        let forbidden = app(60);
        site.peer.forbid(&[&forbidden], &names(&records));
        let ran = site.sync(&all).exits(1);
        assert_eq!(refused(&ran), [&forbidden]);
        let line = ran.one_line();
        let server = site.peer.addr().to_string();
        for part in
            ["WARN", "target lab", "server ", &server, "zone mesos.", &forbidden, denial(peer)]
        {
            assert!(line.contains(part), "no {part:?} in {line:?}");
        }
        assert_eq!(site.published(&before), less(&records, &[&forbidden]));
        let fence = site.peer.query(FENCE, "TXT").concat();
        assert!(fence.contains("until=0"), "{fence}");

        // Nothing else is left to do: a record that is there already shows who is at fault.
        let ran = site.sync(&all).exits(1);
        assert_eq!(refused(&ran), [&forbidden]);
        assert!(ran.one_line().contains(&forbidden));
        assert_eq!(site.published(&before), less(&records, &[&forbidden]));

        site.peer.allow(&[]);
        site.sync(&all).exits(0);
        assert_eq!(site.published(&before), records);
    });
}

#[test]
fn more_forbidden_names_than_are_found_at_once_are_all_found() {
    let all = apps(120);
    let forbidden: Vec<String> = (0..25).map(|n| app(n * 4)).collect();
    let forbidden: Vec<&str> = forbidden.iter().map(String::as_str).collect();
    on_every_peer(|peer| {
        let mut site = Site::start(peer, &Setup::default());
        let (before, records) = (site.peer.axfr(), records(&site, &all));
        site.peer.forbid(&forbidden, &names(&records));
        let ran = site.sync(&all).exits(1);
        assert_eq!(refused(&ran), forbidden);
        assert_eq!(ran.stderr.lines().count(), 25, "{ran:#?}");
        assert_eq!(site.published(&before), less(&records, &forbidden));
        let added = ran.stdout.lines().filter(|line| line.starts_with("+ ")).count();
        assert_eq!(added, records.lines().count(), "what was tried is told, once");
        site.peer.allow(&[]);
        site.sync(&all).exits(0);
        assert_eq!(site.published(&before), records);
    });
}

#[test]
fn a_burst_of_many_messages_loses_nothing_to_the_one_that_is_refused() {
    let all = apps(1_500);
    on_every_peer(|peer| {
        let mut site = Site::start(peer, &Setup::default());
        let (before, records) = (site.peer.axfr(), records(&site, &all));
        // Knot has no room for a list of all names: what is at the domain's top and not granted.
        let forbidden = ["leader.mesos", "slave.mesos"];
        let granted = names(&records).into_iter().filter(|name| {
            !name.ends_with(".marathon.mesos.")
                && !name.ends_with(".slave.mesos.")
                && !forbidden.contains(&name.trim_end_matches('.'))
        });
        let granted: Vec<String> = granted.chain(["marathon.slave.mesos.".to_owned()]).collect();
        match peer {
            Peer::Knot => {
                let granted = format!("[ {} ]", granted.join(", "));
                site.peer.allow(&[("[ mesos. ]", &granted)]);
            }
            _ => site.peer.forbid(&forbidden, &[]),
        }
        let proxy = Proxy::to(site.peer.addr());
        site.configure(&proxy.addr().to_string(), site.peer.key_file(), "", "");
        let ran = site.sync(&all).exits(1);
        let mut told = refused(&ran);
        told.sort_unstable();
        assert_eq!(told, forbidden);
        assert_eq!(site.published(&before), less(&records, &forbidden));
        let refusals = updates(&proxy).iter().filter(|seen| seen.rcode != Some(0)).count();
        // Two messages of at most 500 records and their halves.
        assert!(refusals <= 24, "{:#?}", updates(&proxy));
    });
}

#[test]
fn a_run_goes_on_without_the_name_that_is_refused_and_tries_it_again_alone() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "100"]);
        let (mut site, proxy) = proxied(peer, &master);
        let before = site.peer.axfr();
        let records = desired(&site);
        let forbidden = "search.marathon.mesos";
        site.peer.forbid(&[forbidden], &names(&records));
        let mut daemon = Daemon::start(&site);
        let line = daemon.says("others go on");
        for part in ["WARN", "target lab", "zone mesos.", forbidden, denial(peer)] {
            assert!(line.contains(part), "no {part:?} in {line:?}");
        }
        until("all others are there", || site.published(&before) == less(&records, &[forbidden]));

        // What else changes goes without it.
        proxy.clear();
        let labels =
            records.lines().filter_map(|line| Some(line.split_once(".marathon.mesos.\tA\t")?.0));
        let gone = labels
            .clone()
            .find(|label| *label != "search" && label.chars().all(|c| c.is_ascii_lowercase()));
        let gone = gone.unwrap();
        master.control(json!({"kill": {"name": gone, "count": 1000}}));
        until("another name is gone", || {
            site.peer.query(&format!("{gone}.marathon.mesos"), "A").is_empty()
        });
        // It is tried again by itself, in a message of one name; and once it may be there, it is.
        daemon.says("is still refused");
        let refusals: Vec<Seen> =
            updates(&proxy).into_iter().filter(|seen| seen.rcode != Some(0)).collect();
        let search = records.lines().filter(|line| line.starts_with(forbidden)).count();
        assert!(refusals.iter().all(|seen| seen.records == search), "{refusals:#?} {search}");
        site.peer.allow(&[]);
        daemon.says("the server takes this name now");
        until("it is there", || site.published(&before) == desired(&site));
        let (code, log) = daemon.stop();
        assert_eq!(code, 0);
        let told = log.iter().filter(|line| line.contains("WARN") && line.contains(forbidden));
        assert_eq!(told.count(), 1, "{log:#?}");
    });
}

/// Exit 2 with one line that has these parts, and a zone as it was.
#[track_caller]
fn check_whole(site: &Site, state: &Value, parts: &[&str]) {
    let before = site.peer.axfr();
    let ran = site.sync(state).exits(2);
    for part in parts {
        assert!(ran.one_line().contains(part), "no {part:?} in {ran:#?}");
    }
    assert_eq!(ran.stdout, "", "{ran:#?}");
    let is_fence = |line: &&String| line.starts_with(FENCE);
    let now = site.peer.axfr();
    let others = |zone: &[String]| -> Vec<String> {
        zone.iter().filter(|line| !is_fence(line)).cloned().collect()
    };
    assert_eq!(others(&now), others(&before));
}

#[test]
fn where_the_key_may_change_txt_alone_no_name_is_at_fault() {
    on_every_peer(|peer| {
        let mut site = Site::start(peer, &Setup::default());
        site.sync(&apps(10)).exits(0);
        let change = match peer {
            Peer::Bind => ("A AAAA SRV TXT;", "TXT;"),
            Peer::Knot => ("[ A, AAAA, SRV, TXT ]", "[ TXT ]"),
            Peer::PowerDns => ("[pdns.A] = true, [pdns.AAAA] = true, [pdns.SRV] = true, ", ""),
        };
        site.peer.allow(&[change]);
        let parts =
            ["target lab", "zone mesos.", denial(peer), "it takes the fence", "may change TXT"];
        check_whole(&site, &apps(11), &parts);
        check_whole(&site, &apps(60), &parts);
        site.peer.allow(&[]);
        site.sync(&apps(60)).exits(0);
    });
}

#[test]
fn a_frozen_zone_costs_no_name_and_is_brought_up_to_date_when_it_thaws() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        site.sync(&apps(10)).exits(0);
        let frozen = site.peer.freeze();
        check_whole(&site, &apps(20), &["target lab", "zone mesos.", "updating"]);
        site.peer.thaw(frozen);
        site.sync(&apps(20)).exits(0);
        assert_eq!(site.published(&before), records(&site, &apps(20)));
    });
}

#[test]
fn a_run_waits_for_a_frozen_zone_and_tells_it_once() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "30"]);
        let (site, _proxy) = proxied(peer, &master);
        let before = site.peer.axfr();
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        until("the zone is the desired one", || site.published(&before) == desired(&site));
        let frozen = site.peer.freeze();
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 1}}));
        daemon.says("WARN");
        site.peer.thaw(frozen);
        daemon.says("well again");
        until("the zone is the desired one", || site.published(&before) == desired(&site));
        let (code, log) = daemon.stop();
        assert_eq!(code, 0);
        assert_eq!(log.iter().filter(|line| line.contains("WARN")).count(), 1, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("others go on")), "{log:#?}");
    });
}

#[test]
fn whoever_takes_the_fence_while_names_are_sought_stops_it() {
    let all = apps(120);
    on_every_peer(|peer| {
        let mut site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        let forbidden: Vec<String> = (0..60).map(|n| app(n * 2)).collect();
        let forbidden: Vec<&str> = forbidden.iter().map(String::as_str).collect();
        site.peer.forbid(&forbidden, &names(&records(&site, &all)));
        let proxy = Proxy::to(site.peer.addr());
        site.configure(&proxy.addr().to_string(), site.peer.key_file(), "", "");
        let mut sync = site.command(&["sync", "--state"]);
        sync.arg(site.path("state.json")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let sync = sync.spawn().unwrap();
        let signal = |name: &str| {
            let sent = Command::new("kill").args([name, &sync.id().to_string()]).status();
            assert!(sent.unwrap().success());
        };
        // The fence alone and two parts of the burst.
        until("some are found", || {
            updates(&proxy).iter().filter(|seen| seen.rcode == Some(0)).count() >= 3
        });
        signal("-STOP");
        until("all is answered", || proxy.seen().iter().all(|seen| seen.rcode.is_some()));
        let zone = || -> Vec<String> {
            let zone = site.peer.axfr().into_iter();
            zone.filter(|line| !line.starts_with(FENCE)).collect()
        };
        let reached = zone();
        assert!(reached.len() > before.len(), "half of it is there: {:#?}", updates(&proxy));
        let foreign = "v=1 owner=others instance=1 epoch=1 adopted=yes until=run";
        site.peer.nsupdate(&format!("del {FENCE} TXT\nadd {FENCE} 0 TXT \"{foreign}\""));
        signal("-CONT");
        let ran = Ran::of(sync.wait_with_output().unwrap()).exits(2);
        assert!(ran.one_line().contains("another publisher has taken it"), "{ran:#?}");
        assert_eq!(zone(), reached);
        assert_eq!(site.peer.query(FENCE, "TXT"), [format!("\"{foreign}\"")]);
    });
}

#[test]
fn an_rrset_that_bind_refuses_is_cut_or_set_apart_as_configured() {
    let addresses: Vec<String> = (1..=150).map(|n| format!("10.6.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let all = state(&[("big", &addresses), ("web", &["10.1.0.1"])]);
    for (limit, count) in [("rrset_max = 0", 0), ("rrset_max = \"auto\"", 100)] {
        let site = Site::start(Peer::Bind, &Setup::default());
        let server = site.peer.addr().to_string();
        site.configure(&server, site.peer.key_file(), limit, "");
        let ran = site.sync(&all).exits(if count == 0 { 1 } else { 0 });
        let big = ["big.marathon.mesos"];
        match count {
            0 => assert!(
                refused(&ran).contains(&big[0]) && ran.stderr.contains("SERVFAIL"),
                "{ran:#?}"
            ),
            _ => assert!(ran.stdout.contains("cut big.marathon.mesos. A: 100 of 150"), "{ran:#?}"),
        }
        assert_eq!(site.peer.query("big.marathon.mesos", "A").len(), count);
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.0.1"]);
    }
}

#[test]
fn an_rrset_that_outgrows_bind_in_a_run_is_cut_or_stays_as_configured() {
    for (limit, said, count) in
        [("rrset_max = 0", "others go on", 90), ("rrset_max = \"auto\"", "they are cut", 100)]
    {
        let master = Simulated::start(&["--tasks", "5"]);
        let (site, _proxy) = proxied(Peer::Bind, &master);
        let text = std::fs::read_to_string(site.config()).unwrap();
        std::fs::write(site.config(), text.replace("max_shrink", &format!("{limit}\nmax_shrink")))
            .unwrap();
        let grow = |count: usize| {
            let crowd = json!({"framework": "marathon", "name": "crowd", "count": count});
            master.control(json!({ "start": crowd }));
        };
        // Two ports each.
        grow(45);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        let crowd = || site.peer.query("_crowd._tcp.marathon.mesos", "SRV").len();
        until("ninety are there", || crowd() == 90);
        grow(10);
        daemon.says(said);
        master.control(json!({"start": {"framework": "marathon", "name": "later", "count": 1}}));
        until("others go on", || !site.peer.query("later.marathon.mesos", "A").is_empty());
        until("as many as may be", || crowd() == count);
        assert_eq!(daemon.stop().0, 0);
    }
}

#[test]
fn a_large_change_of_which_a_step_is_refused_is_known_for_what_it_became() {
    let addresses: Vec<String> =
        (0..1_050).map(|n| format!("10.6.{}.{}", n / 250, n % 250 + 1)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let all = state(&[("big", &addresses), ("web", &["10.1.0.1"])]);
    let extra = "max-records-per-type 600;";
    let site = Site::start(Peer::Bind, &Setup { extra, ..Setup::default() });
    let server = site.peer.addr().to_string();
    site.configure(&server, site.peer.key_file(), "rrset_max = 0", "");
    for _ in 0..2 {
        let ran = site.sync(&all).exits(1);
        assert!(refused(&ran).contains(&"big.marathon.mesos"), "{ran:#?}");
        let count = site.peer.query("big.marathon.mesos", "A").len();
        assert!((500..=600).contains(&count), "{count}");
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.0.1"]);
    }
}

#[test]
fn a_large_rrset_beside_a_refused_name_is_not_cut() {
    let addresses: Vec<String> = (1..=150).map(|n| format!("10.6.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let all = state(&[("big", &addresses), ("web", &["10.1.0.1"])]);
    // Its word for what it does not permit is BIND's for what is too large.
    let mut site = Site::start(Peer::PowerDns, &Setup::default());
    site.peer.forbid(&["web.marathon.mesos"], &[]);
    let ran = site.sync(&all).exits(1);
    assert_eq!(refused(&ran), ["web.marathon.mesos"]);
    assert_eq!(site.peer.query("big.marathon.mesos", "A").len(), 150, "{ran:#?}");
}

#[test]
fn check_tells_what_a_run_has_not_published() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "30"]);
        let (mut site, _proxy) = proxied(peer, &master);
        site.peer.forbid(&["leader.mesos"], &names(&desired(&site)));
        let mut daemon = Daemon::start(&site);
        daemon.says("others go on");
        let before = site.peer.axfr();
        // Exit 2 on Knot, which grants a list of names here and not the domain.
        let ran = site.run(&["check"]);
        assert_ne!(ran.code, 0, "{ran:#?}");
        let line = "1 desired record is not in the zone: refused, or not published yet";
        assert!(ran.stdout.contains(line) && ran.stdout.contains("leader.mesos."), "{ran:#?}");
        assert_eq!(site.peer.axfr(), before);
        assert_eq!(daemon.stop().0, 0);
        let ran = site.run(&["check"]);
        assert!(!ran.stdout.contains("not in the zone"), "nobody is to publish it: {ran:#?}");
    });
}

#[test]
fn a_domain_that_is_no_host_name_fails_by_the_name_checks_of_bind_and_works_without() {
    on_every_peer(|peer| {
        let zone = "corp.example";
        let domain = Some("bad_name.corp.example");
        let more = "[zone]\ndomain = \"bad_name.corp.example\"";
        for (extra, well) in [("", peer != Peer::Bind), ("check-names ignore;", true)] {
            if peer != Peer::Bind && !extra.is_empty() {
                continue;
            }
            let site = Site::start(peer, &Setup { zone, domain, extra, ..Setup::default() });
            let server = site.peer.addr().to_string();
            site.configure(&server, site.peer.key_file(), "zone = \"corp.example\"", more);
            if well {
                site.sync(&apps(30)).exits(0);
                site.diff(&apps(30)).exits(0);
            } else {
                let parts = ["target lab", "zone corp.example.", "REFUSED", "name checks"];
                let ran = site.sync(&apps(30)).exits(2);
                let line = ran.one_line();
                assert!(parts.iter().all(|part| line.contains(part)), "{line}");
                assert_eq!(ran.stdout, "");
            }
        }
    });
}

#[test]
fn what_is_below_a_foreign_delegation_is_never_sent() {
    on_every_peer(|peer| {
        let records = "app003.marathon IN NS ns.elsewhere.example.\n";
        let site = Site::start(peer, &Setup { records, ..Setup::default() });
        let proxy = Proxy::to(site.peer.addr());
        site.configure(&proxy.addr().to_string(), site.peer.key_file(), "", "");
        let ran = site.sync(&apps(10)).exits(0);
        let told = ran.stdout.lines().filter(|line| line.starts_with("not ours app003.marathon."));
        assert!(told.count() > 0, "{ran:#?}");
        assert!(updates(&proxy).iter().all(|seen| seen.rcode == Some(0)));
        let sent: usize = updates(&proxy).iter().map(|seen| seen.records).sum();
        let added = ran.stdout.lines().filter(|line| line.starts_with("+ ")).count();
        // The fence is taken with the first and released with the last.
        assert_eq!(sent, added + 2, "{:#?}", updates(&proxy));
        let zone = site.peer.axfr();
        assert!(!zone.iter().any(|line| line.starts_with("app003.marathon.mesos.\t60\tA\t")));
        assert_eq!(site.peer.query(&app(4), "A"), ["10.5.0.5"]);
    });
}
