//! Zones that their server signs: what mesozone publishes is signed, what the signer does is no
//! drift and costs little, and no record of DNSSEC is touched.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::peer::{Peer, Running, Setup, example};
use crate::proxy::Proxy;
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::{Site, state};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Denial {
    Nsec,
    Nsec3,
}

const SIGNERS: [Peer; 2] = [Peer::Bind, Peer::Knot];

/// A site whose zone is signed.
struct Signed {
    site: Site,
    peer: Peer,
}

/// The line of the examples that has this server sign, without its comment sign.
fn shipped(peer: Peer) -> String {
    let (file, comment) = match peer {
        Peer::Bind => ("bind/named.conf.local", "// dnssec"),
        _ => ("knot/knot.conf", "# dnssec"),
    };
    let text = example(file);
    let line = text.lines().find_map(|line| line.trim().strip_prefix(comment));
    let line = line.unwrap_or_else(|| panic!("no {comment} in {file}"));
    if peer == Peer::Bind { format!("dnssec{line}") } else { format!("    dnssec{line}") }
}

impl Signed {
    /// Started unsigned, and signed from its second start on.
    fn start(peer: Peer, denial: Denial) -> Signed {
        let mut site = Site::start(peer, &Setup::default());
        site.peer.stop();
        let line = shipped(peer);
        let (file, zone) = match peer {
            Peer::Bind => ("named.conf.local", "zone \"mesos\" {\n"),
            _ => ("knot.conf", "domain: mesos\n"),
        };
        let (line, policy) = match (peer, denial) {
            (_, Denial::Nsec) => (line, ""),
            (Peer::Bind, Denial::Nsec3) => {
                (line.replace("default", "three"), "dnssec-policy three { nsec3param; };\n")
            }
            (_, Denial::Nsec3) => (
                format!("{line}\n    dnssec-policy: three"),
                "policy:\n  - id: three\n    nsec3: on\n\n",
            ),
        };
        let before = if peer == Peer::Bind { zone } else { "zone:\n" };
        edit(&site.peer.dir().join(file), before, &format!("{policy}{before}"));
        edit(&site.peer.dir().join(file), zone, &format!("{zone}{line}\n"));
        site.peer.start();
        let signed = Signed { site, peer };
        let ends = if denial == Denial::Nsec { "NSEC" } else { "NSEC3" };
        until("the zone is signed", || {
            let zone = signed.zone();
            zone.contains("\tRRSIG\tNS ") && zone.contains(&format!("\tRRSIG\t{ends} "))
        });
        signed
    }

    /// BIND rolls its key, once; Knot signs everything anew.
    fn sign_again(&self) {
        let before = self.site.peer.serial();
        match self.peer {
            Peer::Bind => {
                let keys = self.site.peer.control(&["dnssec", "-status", "mesos"]);
                let key = keys.split("key: ").nth(1).and_then(|rest| rest.split(' ').next());
                self.site.peer.control(&["dnssec", "-rollover", "-key", key.unwrap(), "mesos"]);
            }
            _ => drop(self.site.peer.control(&["zone-sign", "mesos"])),
        }
        until("the signer has moved the serial", || self.site.peer.serial() != before);
    }

    fn zone(&self) -> String {
        dig(&self.site.peer, &["-k", "admin.key", "mesos", "AXFR", "+onesoa"])
    }

    /// The lines of these types.
    fn of_types(&self, types: &[&str]) -> Vec<String> {
        let zone = self.zone();
        let is_one = |line: &&str| line.split('\t').any(|field| types.contains(&field));
        let mut lines: Vec<String> = zone.lines().filter(is_one).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// The whole zone is one that validates, and so do answers from it.
    #[track_caller]
    fn validates(&self, name: &str) {
        let dir = self.site.peer.dir();
        // BIND signs with a new key step by step.
        until("the whole zone validates", || {
            std::fs::write(dir.join("dump"), self.zone()).unwrap();
            let mut verify = Command::new("/usr/bin/dnssec-verify");
            let verify = verify.args(["-q", "-o", "mesos", "-z", "dump"]).current_dir(dir);
            verify.output().unwrap().status.success()
        });
        let key = dig(&self.site.peer, &["mesos", "DNSKEY"]);
        let keys = key.lines().filter_map(|line| line.split_once("DNSKEY\t"));
        let anchor = |(_, key): (&str, &str)| {
            let fields: Vec<&str> = key.splitn(4, ' ').collect();
            let [flags, protocol, algorithm, key] = fields[..] else { panic!("{key}") };
            format!("mesos. static-key {flags} {protocol} {algorithm} \"{key}\";\n")
        };
        let anchors: String = keys.map(anchor).collect();
        std::fs::write(dir.join("anchors"), format!("trust-anchors {{\n{anchors}}};\n")).unwrap();
        let delv = |name: &str| {
            let (addr, mut delv) = (self.site.peer.addr(), Command::new("/usr/bin/delv"));
            delv.arg(format!("@{}", addr.ip())).args(["-p", &addr.port().to_string()]);
            said(delv.args(["-a", "anchors", "+root=mesos", name, "A"]).current_dir(dir))
        };
        let answer = delv(name);
        assert!(answer.contains("; fully validated"), "{answer}");
        let answer = delv("absent.marathon.mesos");
        assert!(answer.contains("; negative response, fully validated"), "{answer}");
    }
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "no {from:?} in {text}");
    std::fs::write(file, text.replacen(from, to, 1)).unwrap();
}

/// What a command prints, which succeeds.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn dig(server: &Running, args: &[&str]) -> String {
    let (addr, mut dig) = (server.addr(), Command::new("/usr/bin/dig"));
    dig.arg(format!("@{}", addr.ip())).args(["-p", &addr.port().to_string()]);
    dig.args(["+tcp", "+norecurse", "+tries=1", "+noall", "+answer", "+nosplit"]).args(args);
    let text = said(dig.current_dir(server.dir()));
    // Columns are made with tabs, and with a blank where a field is longer.
    let lines = text.lines().map(|line| {
        let (mut fields, mut rest) = (String::new(), line);
        for _ in 0..4 {
            let (field, after) = rest.split_once(['\t', ' ']).unwrap_or((rest, ""));
            (fields, rest) = (fields + field + "\t", after.trim_start());
        }
        fields + rest + "\n"
    });
    lines.collect()
}

/// Runs the claim on every server that signs.
#[track_caller]
fn on_every_signer(denial: Denial, claim: impl Fn(&Signed) + Sync) {
    std::thread::scope(|scope| {
        let claim = &claim;
        let threads = SIGNERS.map(|peer| scope.spawn(move || claim(&Signed::start(peer, denial))));
        let failed = threads.map(|thread| thread.join().is_err());
        assert_eq!(failed, [false; 2], "on {SIGNERS:?}");
    });
}

const OF_DNSSEC: [&str; 5] = ["DNSKEY", "CDS", "CDNSKEY", "NSEC3PARAM", "TYPE65534"];

#[track_caller]
fn check_sync(denial: Denial) {
    on_every_signer(denial, |signed| {
        let site = &signed.site;
        let before = site.peer.axfr();
        let keys = signed.of_types(&OF_DNSSEC);
        assert!(keys.iter().any(|line| line.contains("DNSKEY")), "{keys:?}");
        let first = state(&[("web", &["10.1.0.1"]), ("web", &["10.1.0.2"]), ("db", &["10.1.0.3"])]);
        let wanted = |state| site.with(state, &["records", "--format", "tsv"]).exits(0).stdout;
        site.sync(&first).exits(0);
        assert_eq!(site.published(&before), wanted(&first));
        signed.validates("web.marathon.mesos");
        let serial = site.peer.serial();
        site.sync(&first).exits(0);
        site.diff(&first).exits(0);
        assert_eq!(site.peer.serial(), serial, "a second sync writes nothing");
        let second = state(&[("web", &["10.1.0.9"]), ("new", &["10.1.0.4"])]);
        site.sync(&second).exits(0);
        assert_eq!(site.published(&before), wanted(&second));
        signed.validates("new.marathon.mesos");
        assert_eq!(signed.of_types(&OF_DNSSEC), keys);
        signed.sign_again();
        site.diff(&second).exits(0);
        site.sync(&state(&[])).exits(0);
        assert_eq!(site.published(&before), wanted(&state(&[])));
        signed.validates("leader.mesos");
    });
}

#[test]
fn a_signed_zone_is_synced_and_what_is_published_validates() {
    check_sync(Denial::Nsec);
}

#[test]
fn so_is_one_signed_with_nsec3() {
    check_sync(Denial::Nsec3);
}

#[test]
fn run_follows_tasks_in_a_signed_zone() {
    on_every_signer(Denial::Nsec, |signed| {
        let site = &signed.site;
        let before = site.peer.axfr();
        let master = Simulated::start(&["--tasks", "30"]);
        site.follow(&[format!("http://{}", master.address)], "");
        let mut daemon = Daemon::start(site);
        daemon.says("published");
        until("the zone is the desired one", || site.published(&before) == desired(site));
        for name in ["one", "two", "three"] {
            let there = || site.peer.query(&format!("{name}.marathon.mesos"), "A").len();
            let start = json!({"start": {"framework": "marathon", "name": name, "count": 2}});
            master.control(start);
            until("a new task has its name", || there() > 0);
            signed.validates(&format!("{name}.marathon.mesos"));
            if name == "two" {
                signed.sign_again();
            }
            master.control(json!({"kill": {"name": name, "count": 2}}));
            until("an ended task has none", || there() == 0);
        }
        until("the zone is the desired one", || site.published(&before) == desired(site));
        let (code, log) = daemon.stop();
        assert_eq!(code, 0, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
        signed.validates("leader.mesos");
    });
}

#[test]
fn what_the_signer_does_costs_an_incremental_transfer_and_no_update() {
    on_every_signer(Denial::Nsec, |signed| {
        let site = &signed.site;
        let proxy = Proxy::to(site.peer.addr());
        site.configure(&proxy.addr().to_string(), site.peer.key_file(), "", "");
        let master = Simulated::start(&["--tasks", "30"]);
        site.follow(&[format!("http://{}", master.address)], "");
        let mut daemon = Daemon::start(site);
        daemon.says("published");
        let asked = || proxy.seen().iter().map(ToString::to_string).collect::<Vec<_>>();
        let count = |question: &str| asked().iter().filter(|asked| *asked == question).count();
        until("an idle cycle", || count("QUERY SOA mesos.") > 1);
        proxy.clear();
        signed.sign_again();
        until("the difference is read", || count("QUERY IXFR mesos.") > 0);
        let idle = count("QUERY SOA mesos.");
        until("three idle cycles", || count("QUERY SOA mesos.") > idle + 2);
        let others = asked().into_iter().filter(|question| {
            !["QUERY SOA mesos.", "QUERY IXFR mesos."].contains(&question.as_str())
        });
        assert_eq!(others.collect::<Vec<_>>(), [""; 0]);
        let (code, log) = daemon.stop();
        assert_eq!(code, 0, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
    });
}

#[test]
fn a_zone_may_be_signed_while_run_publishes_into_it() {
    for peer in SIGNERS {
        let mut site = Site::start(peer, &Setup::default());
        let master = Simulated::start(&["--tasks", "10"]);
        site.follow(&[format!("http://{}", master.address)], "");
        let before = site.peer.axfr();
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        site.peer.stop();
        let (file, zone) = match peer {
            Peer::Bind => ("named.conf.local", "zone \"mesos\" {\n"),
            _ => ("knot.conf", "domain: mesos\n"),
        };
        edit(&site.peer.dir().join(file), zone, &format!("{zone}{}\n", shipped(peer)));
        site.peer.start();
        until("the zone is signed", || !site.peer.query("mesos", "DNSKEY").is_empty());
        master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 2}}));
        until("a new task has its name", || {
            !site.peer.query("fresh.marathon.mesos", "A").is_empty()
        });
        until("the zone is the desired one", || site.published(&before) == desired(&site));
        let (code, log) = daemon.stop();
        assert_eq!(code, 0, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("somebody else")), "{log:#?}");
    }
}
