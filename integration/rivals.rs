//! Several publishers and one zone: the fence decides, on the name server, who may write.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::peer::{Peer, Setup, on_every_peer};
use crate::proxy::{Fault, How, Moment, Proxy, Which};
use crate::running::{Daemon, desired, proxied, until};
use crate::simulated::Simulated;
use crate::site::{Site, state};

/// A fence as another process would have left it.
fn fence(owner: &str, epoch: u64, adopted: &str, until: &str) -> String {
    format!(
        "v=1 owner={owner} instance=00000000000000aa epoch={epoch} adopted={adopted} until={until}"
    )
}

fn put(site: &Site, texts: &[&str]) {
    let delete = "update delete _mesozone.mesos TXT\n".to_owned();
    let add = texts.iter().map(|text| format!("update add _mesozone.mesos 0 TXT \"{text}\"\n"));
    site.peer.nsupdate(&(delete + &add.collect::<String>()));
}

fn fence_now(site: &Site) -> String {
    site.peer.query("_mesozone.mesos", "TXT").concat()
}

fn web() -> serde_json::Value {
    state(&[("web", &["10.1.0.1"])])
}

#[test]
fn each_state_of_the_fence_is_met_as_documented() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let far = "4102444800";
        let cases: [(&[&str], i32, &str); 8] = [
            (&[&fence("mesos", 5, "yes", "0")], 0, ""),
            (&[&fence("mesos", 7, "yes", "1000000000")], 0, ""),
            (&[&fence("mesos", 7, "yes", far)], 2, "another process of the same owner"),
            (&[&fence("mesos", 7, "yes", "run")], 2, "sync --take-over mesos"),
            (&[&fence("other", 7, "yes", "0")], 2, "belongs to the owner \"other\""),
            (&[&fence("other", 7, "yes", "run")], 2, "sync --take-over other"),
            (&["spf1 -all"], 2, "are not one fence"),
            (&[&fence("mesos", 7, "yes", "0"), "second"], 2, "are not one fence"),
        ];
        for (at, (texts, code, part)) in cases.into_iter().enumerate() {
            put(&site, texts);
            let (serial, before) = (site.peer.serial(), fence_now(&site));
            // Something to write each time.
            let address = format!("10.1.1.{at}");
            let ran = site.sync(&state(&[("web", &[address.as_str()])])).exits(code);
            assert!(ran.stderr.contains(part), "{texts:?}: {ran:?}");
            if code == 2 {
                assert_eq!((site.peer.serial(), fence_now(&site)), (serial, before), "{texts:?}");
                assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
            } else {
                assert_eq!(site.peer.query("web.marathon.mesos", "A"), [address]);
            }
        }
    });
}

#[test]
fn a_take_over_needs_the_name_of_the_owner_and_adopts_nothing() {
    on_every_peer(|peer| {
        let records = "theirs IN A 192.0.2.9\n";
        let site = Site::start(peer, &Setup { records, ..Setup::default() });
        put(&site, &[&fence("other", 7, "yes", "run")]);
        let before = site.peer.axfr();
        let wrong = site.with(&web(), &["sync", "--take-over", "another"]).exits(2);
        assert!(wrong.one_line().contains("not to \"another\", as --take-over says"), "{wrong:?}");
        site.diff(&web()).exits(2);
        assert_eq!(site.peer.axfr(), before);
        site.with(&web(), &["sync", "--take-over", "other"]).exits(1);
        assert_eq!(site.peer.query("theirs.mesos", "A"), ["192.0.2.9"]);
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.0.1"]);
        let now = fence_now(&site);
        assert!(now.contains("owner=mesos") && now.contains("adopted=no"), "{now}");
        assert!(now.contains("epoch=8") && now.contains("until=0"), "{now}");
        let held = site.diff(&web()).exits(1).stdout;
        assert!(held.contains("found there"), "{held}");
    });
}

#[test]
fn the_fence_of_a_run_that_died_is_taken_over_by_its_own_name() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let site = Site::start(peer, &Setup::default());
        site.follow(&[format!("http://{}", master.address)], "");
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        drop(daemon);
        let ran = site.sync(&web()).exits(2);
        assert!(ran.one_line().contains("sync --take-over mesos"), "{ran:?}");
        site.with(&web(), &["sync", "--take-over", "mesos"]).exits(0);
        assert!(fence_now(&site).contains("adopted=yes"), "our own space stays adopted");
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.0.1"]);
    });
}

#[test]
fn a_take_over_with_nothing_to_write_takes_the_fence_all_the_same() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        site.sync(&web()).exits(0);
        put(&site, &[&fence("mesos", 7, "yes", "run")]);
        site.with(&web(), &["sync", "--take-over", "mesos"]).exits(0);
        let now = fence_now(&site);
        assert!(now.contains("epoch=8") && now.contains("until=0"), "{now}");
    });
}

#[test]
fn a_run_stands_by_for_a_foreign_owner_and_serves_on() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let site = Site::start(peer, &Setup::default());
        site.follow(&[format!("http://{}", master.address)], "");
        put(&site, &[&fence("other", 7, "yes", "run")]);
        let before = site.peer.axfr();
        let mut daemon = Daemon::start(&site);
        daemon.says("belongs to the owner \"other\"");
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 1}}));
        put(&site, &[&fence("other", 7, "yes", "run"), "more"]);
        daemon.says("are not one fence");
        put(&site, &[&fence("other", 7, "yes", "run")]);
        assert_eq!(site.peer.axfr(), before);
        site.peer.nsupdate("update delete _mesozone.mesos TXT");
        until("it publishes once the fence is gone", || {
            !site.peer.query("fresh.marathon.mesos", "A").is_empty()
        });
        assert_eq!(daemon.stop().0, 0);
    });
}

#[test]
fn a_zone_restored_from_before_is_taken_again_by_who_held_it() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        site.follow(&[format!("http://{}", master.address)], "");
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        put(&site, &[&fence("mesos", 0, "no", "run")]);
        site.peer.nsupdate("update delete search.marathon.mesos A");
        until("it is back", || !site.peer.query("search.marathon.mesos", "A").is_empty());
        until("the zone is the desired one", || site.published(&before) == desired(&site));
        assert_eq!(daemon.stop().0, 0);
        assert!(!fence_now(&site).contains("instance=00000000000000aa"));
    });
}

#[test]
fn a_publisher_paused_in_the_middle_of_a_burst_writes_nothing_once_another_took_over() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "1500"]);
        let (site, proxy) = proxied(peer, &master);
        let before = site.peer.axfr();
        // Its third message waits on its way, and it for the answer.
        proxy.arm(Which::Update(3), Fault::Hold);
        let stale = Daemon::start(&site);
        until("it is in the middle", || proxy.seen().iter().filter(|m| m.opcode == 5).count() >= 3);
        stale.signal("STOP");
        let sent = proxy.seen().len();
        let server = site.peer.addr().to_string();
        site.configure(&server, site.peer.key_file(), "", "");
        site.follow(&[format!("http://{}", master.address)], "");
        let mut newer = Daemon::start(&site);
        newer.says("published");
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 1}}));
        until("the newer one publishes on", || {
            !site.peer.query("fresh.marathon.mesos", "A").is_empty()
        });
        until("and is done", || site.published(&before) == desired(&site));
        let (zone, serial) = (site.peer.axfr(), site.peer.serial());
        let late = proxy.deliver();
        assert!(late.iter().all(|rcode| *rcode != Some(0)), "{late:?}");
        stale.signal("CONT");
        let mut stale = stale;
        stale.says("another process of the same owner holds the fence");
        let after: Vec<_> =
            proxy.seen()[sent..].iter().filter(|m| m.opcode == 5).cloned().collect();
        assert!(after.iter().all(|message| message.rcode != Some(0)), "{after:?}");
        assert_eq!((site.peer.axfr(), site.peer.serial()), (zone, serial), "{peer:?}");
        assert_eq!(newer.stop().0, 0);
        assert_eq!(stale.stop().0, 0);
    });
}

#[test]
fn a_delayed_message_of_our_own_changes_nothing_behind_a_newer_one() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "5"]);
        let (site, proxy) = proxied(peer, &master);
        let before = site.peer.axfr();
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        until("the burst is verified", || {
            proxy.seen().last().is_some_and(|m| m.opcode == 0 && m.rcode.is_some())
        });
        proxy.clear();
        proxy.arm(Which::Update(1), Fault::Hold);
        master.control(json!({"start": {"framework": "marathon", "name": "late", "count": 1}}));
        until("its message is held", || proxy.seen().iter().any(|m| m.opcode == 5));
        // The connection breaks, the task ends, and everything else goes on.
        proxy.close_all();
        master.control(json!({"kill": {"name": "late", "count": 1}}));
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 1}}));
        daemon.says("well again");
        until("the zone is the desired one", || site.published(&before) == desired(&site));
        let late = proxy.deliver();
        assert!(!late.is_empty() && late.iter().all(|rcode| *rcode != Some(0)), "{late:?}");
        assert_eq!(site.published(&before), desired(&site));
        assert_eq!(site.peer.query("late.marathon.mesos", "A"), Vec::<String>::new());
        assert_eq!(daemon.stop().0, 0);
    });
}

#[test]
fn what_another_owner_leaves_behind_is_held() {
    on_every_peer(|peer| {
        let names = (1..=60).map(|n| format!("n{n}.b IN A 192.0.2.{n}\n"));
        let records = names.collect::<String>();
        let site = Site::start(peer, &Setup { records: &records, ..Setup::default() });
        let (server, master) = (site.peer.addr().to_string(), Simulated::start(&["--tasks", "5"]));
        site.configure(&server, site.peer.key_file(), "max_shrink = \"20%\"", "");
        site.follow(&[format!("http://{}", master.address)], "");
        let theirs = fence("b", 3, "yes", "run");
        site.peer.nsupdate(&format!("update add _mesozone.b.mesos 0 TXT \"{theirs}\"\n"));
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        site.peer.nsupdate("update delete _mesozone.b.mesos TXT");
        daemon.says("60 records, first n1.b.mesos. A, are in our space");
        daemon.says("60 removals are held");
        assert_eq!(site.peer.query("n60.b.mesos", "A"), ["192.0.2.60"]);
        site.peer.nsupdate(&format!("update add _mesozone.b.mesos 0 TXT \"{theirs}\"\n"));
        daemon.says("nothing is held any more");
        assert_eq!(daemon.stop().0, 0);
        assert_eq!(site.peer.query("n60.b.mesos", "A"), ["192.0.2.60"]);
    });
}

#[test]
fn who_takes_the_fence_without_hearing_a_master_removes_nothing() {
    on_every_peer(|peer| {
        let (small, large) = (Simulated::start(&["--tasks", "5"]), Simulated::start(&[]));
        let site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        let quick = "poll_interval = \"100ms\"\ntimeout = \"1s\"";
        site.follow(&[format!("http://{}", small.address)], quick);
        let mut older = Daemon::start(&site);
        older.says("published");
        large.control(json!({"start": {"framework": "marathon", "name": "app", "count": 3}}));
        site.follow(&[format!("http://{}", large.address)], quick);
        let mut newer = Daemon::start(&site);
        newer.says("published");
        older.says("another process of the same owner");
        // Its masters are gone for longer than they may be silent.
        small.control(json!({"stage": "down"}));
        older.says("the last snapshot stays");
        let (silent, long) = (Instant::now(), Duration::from_secs(3));
        until("the masters count as silent", || silent.elapsed() > long);
        assert_eq!(newer.stop().0, 0);
        older.says("published");
        assert!(!site.peer.query("app.marathon.mesos", "A").is_empty(), "{peer:?}");
        small.control(json!({"stage": "running"}));
        until("it goes once a master is heard", || {
            site.peer.query("app.marathon.mesos", "A").is_empty()
        });
        site.follow(&[format!("http://{}", small.address)], quick);
        until("the zone is the desired one", || site.published(&before) == desired(&site));
        assert_eq!(older.stop().0, 0);
    });
}

/// A `run` that has just lost the first message it sent, in a zone with these records.
fn losing_its_first_message(peer: Peer, records: &str) -> (Site, Daemon, (Proxy, Simulated)) {
    let site = Site::start(peer, &Setup { records, ..Setup::default() });
    let (proxy, master) = (Proxy::to(site.peer.addr()), Simulated::start(&["--tasks", "5"]));
    site.configure(&proxy.addr().to_string(), site.peer.key_file(), "", "");
    site.follow(&[format!("http://{}", master.address)], "");
    proxy.arm(Which::Update(1), Fault::Break(Moment::Before, How::Fin));
    let daemon = Daemon::start(&site);
    until("the message is lost", || proxy.armed() == 0);
    (site, daemon, (proxy, master))
}

#[test]
fn what_others_wrote_while_a_first_message_was_lost_stays_theirs() {
    on_every_peer(|peer| {
        let (site, mut daemon, _others) = losing_its_first_message(peer, "theirs IN A 192.0.2.9\n");
        daemon.signal("STOP");
        site.peer.nsupdate("update add search.marathon.mesos 60 A 192.0.2.77");
        daemon.signal("CONT");
        daemon.says("published");
        until("the others are made", || !site.peer.query("leader.mesos", "A").is_empty());
        assert_eq!(site.peer.query("search.marathon.mesos", "A"), ["192.0.2.77"], "{peer:?}");
        assert_eq!(daemon.stop().0, 0);
        assert_eq!(site.peer.query("search.marathon.mesos", "A"), ["192.0.2.77"], "{peer:?}");
    });
}

#[test]
fn a_wildcard_is_no_fence_also_after_a_lost_message() {
    on_every_peer(|peer| {
        let (site, mut daemon, _others) =
            losing_its_first_message(peer, "* IN TXT \"v=spf1 -all\"\n");
        daemon.says("well again");
        assert!(fence_now(&site).contains("until=run"), "{}", fence_now(&site));
        assert_eq!(daemon.stop().0, 0);
    });
}
