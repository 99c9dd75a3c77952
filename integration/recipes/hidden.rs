//! A hidden primary, real secondaries of three kinds, and NOTIFY between them.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::{answers, bind, dig, here, lines, ours, run, start};
use crate::peer::{claim_port, example};
use crate::running::{Daemon, until};
use crate::secondaries::{Kind, Secondary};
use crate::simulated::Simulated;
use crate::site::Site;

/// A secondary as the recipe has it, with the server's own part around it.
fn configuration(kind: Kind, dir: &Path, port: u16, primary: u16) -> String {
    let place = dir.display().to_string();
    let listen = format!("127.0.0.1@{port}");
    match kind {
        Kind::Bind => {
            fs::write(dir.join("secondary.key"), example("hidden-primary/secondary.key")).unwrap();
            let primary = format!("127.0.0.1 port {primary} key");
            let changes = [
                ("/etc/bind", place.as_str()),
                ("/var/cache/bind", &place),
                ("10.0.0.53 key", &primary),
            ];
            let zone = here(&example("hidden-primary/named.conf.secondary"), &changes);
            format!(
                "options {{ directory \"{place}\"; pid-file none; session-keyfile none; \
                 lock-file none; listen-on port {port} {{ 127.0.0.1; }}; \
                 listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; }};\n\
                 controls {{ }};\n{zone}"
            )
        }
        Kind::Knot => {
            let primary = format!("127.0.0.1@{primary}");
            let changes = [
                ("/run/knot", place.as_str()),
                ("/var/lib/knot", &place),
                ("    user: knot:knot\n", ""),
                ("0.0.0.0@53, ::@53", &listen),
                ("10.0.0.53@53", &primary),
                ("target: syslog", "target: stdout"),
            ];
            here(&example("hidden-primary/knot.conf"), &changes)
        }
        Kind::Nsd => {
            let (notify, primary) = ("127.0.0.1 secondary", format!("127.0.0.1@{primary}"));
            let changes = [("10.0.0.53@53", primary.as_str()), ("10.0.0.53 secondary", notify)];
            let zone = here(&example("hidden-primary/nsd.conf"), &changes);
            format!(
                "server:\n\tip-address: {listen}\n\tserver-count: 1\n\tusername: \"\"\n\
                 \tzonesdir: \"{place}\"\n\tdatabase: \"\"\n\tzonelistfile: \"{place}/zone.list\"\n\
                 \txfrdfile: \"{place}/xfrd.state\"\n\txfrdir: \"{place}\"\n\
                 \tpidfile: \"{place}/nsd.pid\"\nremote-control:\n\tcontrol-enable: no\n{zone}"
            )
        }
    }
}

#[test]
fn the_secondaries_of_a_hidden_primary_follow_and_it_answers_nobody_else() {
    let places = [Kind::Bind, Kind::Knot, Kind::Nsd].map(|kind| (kind, claim_port()));
    let told: Vec<String> = places.iter().map(|(_, (at, _))| at.port().to_string()).collect();
    let peer = bind("hidden-primary", "example", |_| {
        let to = |at: usize| format!("127.0.0.1 port {} key", told[at]);
        let changes =
            [("192.0.2.1 key", to(0)), ("192.0.2.2 key", to(1)), ("192.0.2.3 key", to(2))];
        let changes = changes.each_ref().map(|(from, to)| (*from, to.as_str()));
        here(&example("hidden-primary/named.conf.primary"), &changes)
    });
    let site = Site::beside(peer);
    let hidden = site.peer.addr();
    let secondaries = places.map(|(kind, (at, claim))| {
        Secondary::at(kind, (at, claim), |dir| configuration(kind, dir, at.port(), hidden.port()))
    });
    let master = Simulated::start(&["--tasks", "20"]);
    let url = format!("http://{}", master.address);
    let key = site.peer.key_file().display().to_string();
    let places = [("10.0.0.53:53", hidden.to_string()), ("/etc/mesozone/bind.key", key)];
    let file = "hidden-primary/mesozone.toml";
    let copied = site.peer.dir().join("bind.key");
    fs::copy(&places[1].1, copied).unwrap();
    let config = ours(&site, file, &url, &[(places[0].0, &places[0].1)]);
    let mut daemon = Daemon::of(&site, &config);
    daemon.says("published");
    let desired = || run(&site, &config, &["records", "--format", "tsv"]).exits(0).stdout;
    let all = desired();
    for secondary in &secondaries {
        until("all is there", || answers(&site, secondary.address, &all) == lines(&all));
    }
    // The zone's refresh is an hour: what comes now was told by NOTIFY.
    start(&master, "fresh");
    let begun = Instant::now();
    for secondary in &secondaries {
        until("it is there", || dig(secondary.address, &["fresh.marathon.mesos"]).len() > 1);
        eprintln!("a secondary has it after {:?}", begun.elapsed());
        assert!(begun.elapsed().as_secs() < 60);
        let servers = dig(secondary.address, &["mesos", "NS"]);
        assert_eq!(servers, ["NOERROR", "ns1.mesos.", "ns2.mesos.", "ns3.mesos."]);
        assert_eq!(dig(secondary.address, &["ns2.mesos"]), ["NOERROR", "192.0.2.2"]);
    }
    assert_eq!(dig(hidden, &["leader.mesos"]), ["REFUSED"]);
    assert_eq!(dig(hidden, &["mesos", "SOA"]), ["REFUSED"]);
    let checked = run(&site, &config, &["check"]);
    assert!(checked.code < 2, "{checked:#?}");
    assert_eq!(daemon.stop().0, 0);
}
