//! What the other tests lean on: the peers, their rights and the proxy are what they say.

use crate::peer::{Grant, Peer, Running, Setup, accepts, example, nsupdate, on_every_peer};
use crate::proxy::Proxy;

const APEX: &str = "mesos.\t60\tNS\tns1.mesos.";
const NS1: &str = "ns1.mesos.\t60\tA\t127.0.0.1";

/// Sends an update with mesozone's key.
fn update(server: &Running, zone: &str, script: &str) -> Result<(), String> {
    nsupdate(server.addr(), zone, &server.key_file(), script)
}

#[track_caller]
fn check_permitted(server: &Running, zone: &str, script: &str) {
    let sent = update(server, zone, script);
    assert!(sent.is_ok(), "{script}: {sent:?}\n{}", server.log());
}

/// An update that is refused changes nothing.
#[track_caller]
fn check_refused(server: &Running, zone: &str, script: &str) {
    let before = server.axfr();
    let sent = update(server, zone, script);
    assert!(sent.is_err(), "{script} was accepted\n{}", server.log());
    assert_eq!(server.axfr(), before, "{script}");
}

#[test]
fn every_example_configuration_is_accepted_by_its_server() {
    on_every_peer(|peer| accepts(peer, peer.start(&Setup::default()).dir()));
}

#[test]
fn the_examples_hold_one_zone_and_one_secret() {
    let zone = example("bind/mesos.zone");
    assert_eq!(example("knot/mesos.zone"), zone);
    assert_eq!(example("powerdns/mesos.zone"), zone);
    let key = example("bind/mesozone.key");
    let secret = key.split('"').nth(3).expect("name and secret in quotes");
    assert!(example("knot/knot.conf").contains(secret));
}

#[test]
fn a_new_server_holds_the_zone_of_the_examples() {
    on_every_peer(|peer| {
        let server = peer.start(&Setup::default());
        assert_eq!(server.axfr(), [APEX, NS1]);
        assert_eq!(server.serial(), 1);
        assert_eq!(
            server.query("mesos", "SOA"),
            ["ns1.mesos. hostmaster.mesos. 1 3600 600 86400 10"]
        );
        assert_eq!(server.query("ns1.mesos", "A"), ["127.0.0.1"]);
        assert!(server.query("absent.mesos", "A").is_empty());
    });
}

#[test]
fn the_zone_is_transferred_by_the_right_key_only() {
    on_every_peer(|peer| {
        let server = peer.start(&Setup::default());
        assert_eq!(server.transfer(&server.key_file()), Ok(server.axfr()));
        for key_file in [server.wrong_secret_key_file(), server.unknown_key_file()] {
            assert!(server.transfer(&key_file).is_err(), "{peer:?} {}", key_file.display());
            let sent = nsupdate(server.addr(), "mesos", &key_file, "add a.mesos 60 A 10.0.0.1");
            assert!(sent.is_err(), "{peer:?} {}", key_file.display());
        }
    });
}

#[test]
fn the_key_may_add_and_delete_four_types() {
    on_every_peer(|peer| {
        let server = peer.start(&Setup::default());
        check_permitted(&server, "mesos", "add a.mesos 60 A 10.0.0.1\nadd a.mesos 60 AAAA fd00::1");
        check_permitted(&server, "mesos", "add _a._tcp.mesos 60 SRV 0 1 31000 a.mesos.");
        check_permitted(&server, "mesos", "add mesos 0 TXT \"v=1 Owner\"");
        let records = [
            "_a._tcp.mesos.\t60\tSRV\t0 1 31000 a.mesos.",
            "a.mesos.\t60\tA\t10.0.0.1",
            "a.mesos.\t60\tAAAA\tfd00::1",
            "mesos.\t0\tTXT\t\"v=1 Owner\"",
            APEX,
            NS1,
        ];
        assert_eq!(server.axfr(), records);
        assert!(server.serial() > 1);
        check_permitted(&server, "mesos", "del a.mesos A\ndel _a._tcp.mesos SRV");
        check_permitted(&server, "mesos", "del a.mesos AAAA fd00::1\ndel mesos TXT");
        assert_eq!(server.axfr(), [APEX, NS1]);
    });
}

#[test]
fn the_key_may_change_no_other_type() {
    on_every_peer(|peer| {
        let server = peer.start(&Setup { records: "mail MX 10 ns1", ..Setup::default() });
        for script in [
            "add a.mesos 60 MX 10 ns1.mesos.",
            "add a.mesos 60 CNAME ns1.mesos.",
            "add sub.mesos 60 NS ns1.mesos.",
            "add mesos 60 NS ns2.mesos.",
            "add mesos 60 SOA ns1.mesos. root.mesos. 99 1 1 1 1",
            "del mail.mesos MX",
            "del mail.mesos",
            "add a.mesos 60 A 10.0.0.1\nadd a.mesos 60 MX 10 ns1.mesos.",
        ] {
            check_refused(&server, "mesos", script);
        }
    });
}

#[test]
fn the_grant_follows_a_domain_deeper_than_its_zone() {
    on_every_peer(|peer| {
        let domain = Some("mesos.corp.example");
        let server = peer.start(&Setup { zone: "corp.example", domain, ..Setup::default() });
        check_permitted(&server, "corp.example", "add mesos.corp.example 60 A 10.0.0.1");
        check_permitted(&server, "corp.example", "add a.b.mesos.corp.example 60 A 10.0.0.1");
        check_refused(&server, "corp.example", "add corp.example 60 A 10.0.0.1");
        check_refused(&server, "corp.example", "add other.corp.example 60 A 10.0.0.1");
        check_refused(&server, "corp.example", "add xmesos.corp.example 60 A 10.0.0.1");
    });
}

#[test]
fn a_reverse_zone_takes_ptr_and_txt() {
    on_every_peer(|peer| {
        let zone = "10.in-addr.arpa";
        let server = peer.start(&Setup { zone, ..Setup::default() });
        check_permitted(&server, zone, "add 1.0.0.10.in-addr.arpa 60 PTR a.mesos.");
        check_permitted(&server, zone, "add fence.10.in-addr.arpa 0 TXT x");
        check_refused(&server, zone, "add 1.0.0.10.in-addr.arpa 60 A 10.0.0.1");
    });
}

#[test]
fn a_right_can_be_withheld() {
    on_every_peer(|peer| {
        for (grant, reads, updates) in [
            (Grant::Exact, true, true),
            (Grant::TransferOnly, true, false),
            (Grant::UpdateOnly, false, true),
            (Grant::None, false, false),
        ] {
            let server = peer.start(&Setup { grant, ..Setup::default() });
            let transfer = server.transfer(&server.key_file());
            assert_eq!(transfer.is_ok(), reads, "{peer:?} {grant:?}: {transfer:?}");
            let sent = update(&server, "mesos", "add a.mesos 60 A 10.0.0.1");
            assert_eq!(sent.is_ok(), updates, "{peer:?} {grant:?}: {sent:?}");
            let refusal = if peer == Peer::Knot { "NOTAUTH" } else { "REFUSED" };
            assert_ne!(sent.is_err_and(|output| output.contains(refusal)), updates, "{peer:?}");
        }
    });
}

#[test]
fn another_writer_may_change_everything() {
    on_every_peer(|peer| {
        let records = "old CNAME ns1\nsub NS ns.sub\nns.sub A 10.0.0.9";
        let server = peer.start(&Setup { records, ..Setup::default() });
        server.nsupdate("add a.mesos 300 MX 10 NS1.mesos.\ndel old.mesos CNAME");
        assert_eq!(
            server.axfr(),
            [
                "a.mesos.\t300\tMX\t10 ns1.mesos.",
                APEX,
                "ns.sub.mesos.\t60\tA\t10.0.0.9",
                NS1,
                "sub.mesos.\t60\tNS\tns.sub.mesos.",
            ]
        );
    });
}

#[test]
fn a_zone_outlives_a_stop_and_a_kill() {
    on_every_peer(|peer| {
        let mut server = peer.start(&Setup::default());
        let addr = server.addr();
        server.nsupdate("add a.mesos 60 A 10.0.0.1");
        server.stop();
        server.start();
        server.nsupdate("add b.mesos 60 A 10.0.0.2");
        let (zone, serial) = (server.axfr(), server.serial());
        assert_eq!(zone.len(), 4);
        server.kill();
        server.start();
        assert_eq!((server.axfr(), server.serial(), server.addr()), (zone, serial, addr));
    });
}

#[test]
fn a_server_an_hour_ahead_takes_no_update_by_an_honest_clock() {
    on_every_peer(|peer| {
        for clock in [3600, -3600] {
            let server = peer.start(&Setup { clock, ..Setup::default() });
            assert!(update(&server, "mesos", "add a.mesos 60 A 10.0.0.1").is_err(), "{peer:?}");
            server.nsupdate("add b.mesos 60 A 10.0.0.2");
            assert_eq!(server.query("b.mesos", "A"), ["10.0.0.2"]);
        }
    });
}

#[test]
fn extra_lines_reach_the_configuration() {
    on_every_peer(|peer| {
        let extra = match peer {
            Peer::Bind => "max-records-per-type 2;",
            Peer::Knot => "    zone-max-size: 130",
            Peer::PowerDns => "disable-axfr=yes",
        };
        let server = peer.start(&Setup { extra, ..Setup::default() });
        let three = [1, 2, 3].map(|n| format!("add a.mesos 60 A 10.0.0.{n}\n")).concat();
        match peer {
            Peer::Bind | Peer::Knot => check_refused(&server, "mesos", &three),
            Peer::PowerDns => assert!(server.transfer(&server.key_file()).is_err()),
        }
    });
}

#[test]
fn the_proxy_sees_every_message_and_its_answer() {
    on_every_peer(|peer| {
        let server = peer.start(&Setup::default());
        let proxy = Proxy::to(server.addr());
        let through = |script| nsupdate(proxy.addr(), "mesos", &server.key_file(), script);

        through("add A.mesos 60 A 10.0.0.1").expect("a permitted update");
        let seen = proxy.seen();
        let [update] = seen.as_slice() else { panic!("{peer:?}: {seen:?}") };
        assert_eq!(update.to_string(), "UPDATE SOA mesos.");
        assert_eq!(update.rcode, Some(0));
        assert!((100..200).contains(&update.octets), "{update:?}");
        assert_eq!(server.query("a.mesos", "A"), ["10.0.0.1"]);

        proxy.clear();
        assert!(through("add a.mesos 60 MX 10 ns1.mesos.").is_err());
        let rcodes: Vec<_> = proxy.seen().iter().map(|seen| seen.rcode).collect();
        let refusal = match peer {
            Peer::Bind => 5,
            // NOTAUTH, with BADKEY in a TSIG that signs nothing.
            Peer::Knot => 9,
            // SERVFAIL: an error in updates.lua.
            Peer::PowerDns => 2,
        };
        assert_eq!(rcodes, [Some(refusal)], "{peer:?}");
    });
}
