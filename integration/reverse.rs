//! Reverse zones on real name servers: what is ours there, and what never is.

use serde_json::{Value, json};

use crate::peer::{Grant, Peer, Setup, on_every_peer};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::{Ran, Site, state};

const ZONE: &str = "10.in-addr.arpa";
const FENCE: &str = "_mesozone-mesos.10.in-addr.arpa";
const TARGET: &str = "zone = \"10.in-addr.arpa\"\n";
const REVERSE: &str = "[zone]\nreverse = [\"10.in-addr.arpa\"]\n";

/// A reverse zone with these records, and a configuration that publishes into it.
fn site(peer: Peer, records: &str) -> Site {
    let site = Site::start(peer, &Setup { zone: ZONE, records, ..Setup::default() });
    let server = site.peer.addr().to_string();
    site.configure(&server, site.peer.key_file(), TARGET, REVERSE);
    site
}

/// The name at which the PTR records of `10.<rest>` stand, the rest turned around.
fn at(rest: &str) -> String {
    format!("{rest}.{ZONE}")
}

fn pointers(site: &Site, rest: &str) -> Vec<String> {
    site.peer.query(&at(rest), "PTR")
}

/// The names `c.fw.D` that a state gives to the tasks of an app.
fn canonical(site: &Site, state: &Value, app: &str) -> Vec<String> {
    let records = site.with(state, &["records", "--format", "tsv"]).exits(0).stdout;
    let is_its = |name: &&str| name.starts_with(&format!("{app}-")) && !name.contains(".slave.");
    let names = records.lines().filter_map(|line| line.split('\t').next());
    let mut names: Vec<String> = names.filter(is_its).map(str::to_owned).collect();
    names.dedup();
    names
}

/// The desired records of the reverse zone.
fn desired_pointers(site: &Site) -> String {
    let lines = desired(site);
    let ours = lines.lines().filter(|line| line.contains("\tPTR\t"));
    ours.map(|line| format!("{line}\n")).collect()
}

fn fence_now(site: &Site) -> String {
    site.peer.query(FENCE, "TXT").concat()
}

fn fence(owner: &str, domain: &str, epoch: u64, until: &str) -> String {
    format!(
        "v=1 owner={owner} instance=00000000000000aa epoch={epoch} adopted=yes until={until} \
         domain={domain}"
    )
}

fn put(site: &Site, name: &str, text: &str) {
    let delete = format!("update delete {name} TXT\n");
    site.peer.nsupdate(&format!("{delete}update add {name} 0 TXT \"{text}\""));
}

/// Another configuration beside that of a site.
fn other(site: &Site, name: &str, changes: &[(&str, &str)]) -> std::path::PathBuf {
    let text = std::fs::read_to_string(site.config()).unwrap();
    let text = changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "no {from} in {text}");
        text.replace(from, to)
    });
    let path = site.path(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs a command of another configuration on a state.
fn with(site: &Site, config: &std::path::Path, state: &Value, args: &[&str]) -> Ran {
    let file = site.path("other-state.json");
    std::fs::write(&file, state.to_string()).unwrap();
    let args = [args, &["--state", file.to_str().unwrap()]].concat();
    Ran::of(site.command_with(config, &args).output().unwrap())
}

#[test]
fn pointers_follow_tasks_and_agents() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "40"]);
        let site = site(peer, "7.7.7 PTR printer.example.");
        let before = site.peer.axfr();
        let masters = [format!("http://{}", master.address)];
        site.follow(&masters, "watch = \"poll\"\npoll_interval = \"100ms\"");
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        let is_desired = || site.published(&before) == desired_pointers(&site);
        until("the zone is the desired one", is_desired);
        assert!(desired_pointers(&site).lines().count() > 3, "tasks have addresses of their own");
        let fence = fence_now(&site);
        assert!(fence.contains("until=run domain=mesos."), "{fence}");

        master.control(json!({"start": {"framework": "marathon", "name": "fresh"}}));
        until("its agent's address has no pointer", || desired(&site).contains("fresh"));
        assert!(!desired_pointers(&site).contains("fresh"));
        master.control(json!({"task-address": {"name": "fresh", "address": "10.9.9.8"}}));
        until("an address of its own has one", || {
            pointers(&site, "8.9.9").concat().starts_with("fresh-")
        });
        master.control(json!({"agent-address": {"agent": 0, "address": "10.9.9.8"}}));
        until("an agent that has it hides it", || pointers(&site, "8.9.9").is_empty());
        master.control(json!({"agent-address": {"agent": 0, "address": "10.9.9.9"}}));
        until("and shows it when it leaves", || pointers(&site, "8.9.9").len() == 1);
        master.control(json!({"kill": {"name": "fresh"}}));
        until("an ended task has none", || pointers(&site, "8.9.9").is_empty());
        let (code, log) = daemon.stop();
        assert_eq!(code, 0, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
        assert_eq!(site.published(&before), desired_pointers(&site), "a stop removes nothing");
        assert_eq!(pointers(&site, "7.7.7"), ["printer.example."]);
        assert!(fence_now(&site).contains("until=0"), "{log:#?}");
        site.run(&["diff"]).exits(0);
    });
}

#[test]
fn two_owners_share_a_zone_and_an_address_and_touch_nothing_of_each_other() {
    on_every_peer(|peer| {
        let foreign = "1.1.1 300 PTR printer.example.\n9.9.9 PTR old.example.";
        let site = site(peer, foreign);
        let changes =
            [("[zone]", "[zone]\ndomain = \"prod.mesos\""), ("name = \"lab\"", "name = \"prod\"")];
        let prod = other(&site, "prod.toml", &changes);
        let shared: &[&str] = &["10.1.1.1"];
        let (ours, theirs) = (state(&[("web", shared)]), state(&[("db", shared)]));
        site.sync(&ours).exits(0);
        with(&site, &prod, &theirs, &["sync"]).exits(0);
        let now = pointers(&site, "1.1.1");
        assert_eq!(now.len(), 3, "{now:?}");
        assert!(now.iter().any(|target| target.ends_with(".marathon.mesos.")));
        assert!(now.iter().any(|target| target.ends_with(".marathon.prod.mesos.")));
        assert!(now.contains(&"printer.example.".to_owned()));
        let ttls = site.peer.axfr().into_iter().filter(|line| line.starts_with("1.1.1.10."));
        assert!(
            ttls.clone().all(|line| line.contains("\t300\t")),
            "{:?}",
            ttls.collect::<Vec<_>>()
        );

        // Neither has anything to do, whatever the other writes.
        site.diff(&ours).exits(0);
        with(&site, &prod, &theirs, &["diff"]).exits(0);
        let moved = state(&[("db", &["10.1.1.2"])]);
        with(&site, &prod, &moved, &["sync"]).exits(0);
        assert_eq!(pointers(&site, "1.1.1").len(), 2, "one of ours, one foreign");
        let serial = site.peer.serial();
        site.sync(&ours).exits(0);
        assert_eq!(site.peer.serial(), serial, "a second sync only reads");
        site.sync(&state(&[])).exits(0);
        assert_eq!(pointers(&site, "1.1.1"), ["printer.example."]);
        assert_eq!(pointers(&site, "2.1.1").len(), 1, "theirs");
        assert_eq!(pointers(&site, "9.9.9"), ["old.example."]);
        with(&site, &prod, &moved, &["diff"]).exits(0);
        let fences = ["mesos", "prod-mesos"]
            .map(|owner| site.peer.query(&format!("_mesozone-{owner}.{ZONE}"), "TXT").concat());
        assert!(fences[0].contains("owner=mesos") && fences[0].contains("domain=mesos."));
        assert!(fences[1].contains("owner=prod-mesos") && fences[1].contains("domain=prod.mesos."));
    });
}

#[test]
fn a_desired_target_below_the_domain_of_another_fence_is_not_published() {
    on_every_peer(|peer| {
        let site = site(peer, "1.1.1 PTR theirs.prod.mesos.");
        put(&site, &format!("_mesozone-p.{ZONE}"), &fence("p", "prod.mesos.", 3, "run"));
        // A framework of this name makes targets below `prod.mesos`.
        let mut cluster = state(&[("web", &["10.1.1.1"])]);
        cluster["frameworks"][0]["name"] = "prod".into();
        let shown = site.diff(&cluster).exits(0).stdout;
        assert!(shown.contains("not ours 1.1.1.10.in-addr.arpa. PTR: another owner"), "{shown}");
        site.sync(&cluster).exits(0);
        assert_eq!(pointers(&site, "1.1.1"), ["theirs.prod.mesos."]);
    });
}

#[test]
fn one_of_two_pointers_at_an_address_goes_alone() {
    on_every_peer(|peer| {
        let site = site(peer, "");
        let both = state(&[("web", &["10.1.1.1"]), ("db", &["10.1.1.1"])]);
        site.sync(&both).exits(0);
        assert_eq!(pointers(&site, "1.1.1").len(), 2);
        let one = state(&[("web", &["10.1.1.1"])]);
        // Somebody adds one while nobody looks: it is none of ours.
        site.peer.nsupdate(&format!("update add {} 60 PTR printer.example.", at("1.1.1")));
        site.sync(&one).exits(0);
        let mut expected =
            [canonical(&site, &one, "web"), vec!["printer.example.".into()]].concat();
        expected.sort();
        assert_eq!(pointers(&site, "1.1.1"), expected);
        site.sync(&state(&[])).exits(0);
        assert_eq!(pointers(&site, "1.1.1"), ["printer.example."]);
    });
}

#[test]
fn the_ttl_of_an_address_follows_the_records_of_others_and_is_ours_without_them() {
    on_every_peer(|peer| {
        let site = site(peer, "");
        let ttls = || -> Vec<String> {
            let lines = site.peer.axfr().into_iter();
            let here = lines.filter(|line| line.starts_with("1.1.1.10.in-addr"));
            here.map(|line| line.split('\t').nth(1).unwrap().to_owned()).collect()
        };
        let cluster = state(&[("web", &["10.1.1.1"]), ("db", &["10.1.1.1"])]);
        site.sync(&cluster).exits(0);
        assert_eq!(ttls(), ["60", "60"]);
        let name = at("1.1.1");
        site.peer.nsupdate(&format!("update add {name} 900 PTR printer.example."));
        assert_eq!(ttls(), ["900"; 3]);
        let serial = site.peer.serial();
        site.sync(&cluster).exits(0);
        assert_eq!((ttls().len(), site.peer.serial()), (3, serial), "nothing to do");
        site.sync(&state(&[("db", &["10.1.1.1"])])).exits(0);
        assert_eq!(ttls(), ["900"; 2]);
        site.peer.nsupdate(&format!("update delete {name} PTR printer.example."));
        site.sync(&cluster).exits(0);
        assert_eq!(ttls(), ["60"; 2]);
    });
}

#[test]
fn first_contact_removes_no_pointer_until_it_is_approved() {
    on_every_peer(|peer| {
        let site = site(peer, "5.5.5 PTR gone.marathon.mesos.\n6.6.6 PTR printer.example.");
        let cluster = state(&[("web", &["10.1.1.1"])]);
        let said = site.sync(&cluster).exits(1).stdout;
        assert!(said.contains("found there at first contact") || said.contains("found there;"));
        assert!(said.contains("  - 5.5.5.10.in-addr.arpa. PTR gone.marathon.mesos."), "{said}");
        assert!(!said.contains("printer"), "{said}");
        assert_eq!(pointers(&site, "1.1.1").len(), 1, "adding goes on");
        assert_eq!(pointers(&site, "5.5.5"), ["gone.marathon.mesos."]);
        assert!(fence_now(&site).contains("adopted=no"));
        let id = said.split("held ").nth(1).unwrap().split(':').next().unwrap();
        let saved = site.path("plan.json");
        let plan = site.with(&cluster, &["diff", "--format", "json"]).exits(1).stdout;
        std::fs::write(&saved, &plan).unwrap();
        assert!(plan.contains(id), "{plan}");
        site.with(&cluster, &["sync", "--approve", saved.to_str().unwrap()]).exits(0);
        assert_eq!(pointers(&site, "5.5.5"), Vec::<String>::new());
        assert_eq!(pointers(&site, "6.6.6"), ["printer.example."]);
        assert!(fence_now(&site).contains("adopted=yes"));
        site.diff(&cluster).exits(0);
    });
}

#[test]
fn what_others_do_to_pointers_is_put_right_and_theirs_are_left() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "40"]);
        let site = site(peer, "");
        let before = site.peer.axfr();
        site.follow(&[format!("http://{}", master.address)], "");
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        let wanted = desired_pointers(&site);
        let name = wanted.lines().next().unwrap().split('\t').next().unwrap().to_owned();
        site.peer.nsupdate(&format!(
            "update delete {name} PTR\nupdate add {name} 60 PTR printer.example.\n\
             update add {} 60 PTR stray.marathon.mesos.",
            at("3.3.3")
        ));
        daemon.says("somebody else removed 1 records of ours");
        daemon.says("somebody else added 1 records in our space");
        let printer = format!("{name}\tPTR\tprinter.example.\n");
        let is_right = || {
            let now = site.published(&before);
            now.contains(&printer) && now.replace(&printer, "") == wanted
        };
        until("ours are back, the stray is gone, and the printer stays", is_right);
        // The fence as well, though the records are nobody's business.
        site.peer.nsupdate(&format!("update delete {FENCE} TXT"));
        daemon.says("somebody else removed the fence");
        until("it is back", || fence_now(&site).contains("adopted=yes until=run"));
        assert_eq!(daemon.stop().0, 0);
    });
}

#[test]
fn what_another_fence_claims_is_theirs_from_then_on_and_ours_when_it_is_gone() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "20"]);
        let site = site(peer, "");
        site.follow(&[format!("http://{}", master.address)], "");
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        let (name, text) = (format!("_mesozone-p.{ZONE}"), fence("p", "prod.mesos.", 1, "run"));
        let theirs = format!("update add {} 60 PTR x.prod.mesos.", at("3.3.3"));
        site.peer.nsupdate(&format!("update add {name} 0 TXT \"{text}\"\n{theirs}"));
        // Something of ours is written after theirs was read.
        site.peer.nsupdate(&format!("update add {} 60 PTR stray.mesos.", at("4.4.4")));
        until("the stray is gone", || pointers(&site, "4.4.4").is_empty());
        assert_eq!(pointers(&site, "3.3.3"), ["x.prod.mesos."]);
        site.peer.nsupdate(&format!("update delete {name} TXT"));
        daemon.says("are in our space since what kept us from there is gone");
        until("what they left is removed", || pointers(&site, "3.3.3").is_empty());
        let (_, log) = daemon.stop();
        let added = log.iter().filter(|line| line.contains("somebody else added"));
        assert_eq!(added.count(), 1, "the stray alone: {log:#?}");
    });
}

#[test]
fn the_fence_of_a_reverse_zone_is_taken_as_any_other() {
    on_every_peer(|peer| {
        let site = site(peer, "");
        let web = |n: usize| state(&[("web", &[&*format!("10.1.1.{n}")])]);
        let cases = [
            (fence("mesos", "mesos.", 5, "0"), 0, ""),
            (fence("mesos", "mesos.", 7, "1000000000"), 0, ""),
            (fence("mesos", "mesos.", 7, "run"), 2, "sync --take-over mesos"),
            (fence("other", "mesos.", 7, "0"), 2, "belongs to the owner \"other\""),
            (fence("mesos", "prod.mesos.", 7, "0"), 2, "is for other names"),
            (fence("mesos", "mesos.", 7, "0").replace(" domain=mesos.", ""), 2, "other names"),
            ("something".to_owned(), 2, "are not one fence"),
        ];
        for (at, (text, code, part)) in cases.into_iter().enumerate() {
            put(&site, FENCE, &text);
            let ran = site.sync(&web(at + 1)).exits(code);
            assert!(ran.stderr.contains(part), "{text}: {ran:?}");
            assert_eq!(pointers(&site, &format!("{}.1.1", at + 1)).is_empty(), code == 2);
        }
        put(&site, FENCE, &fence("mesos", "prod.mesos.", 7, "run"));
        site.with(&web(1), &["sync", "--take-over", "mesos"]).exits(1);
        let now = fence_now(&site);
        assert!(now.contains("epoch=8 adopted=no until=0 domain=mesos."), "{now}");
    });
}

#[test]
fn two_owners_of_one_domain_stand_by_until_one_takes_over() {
    on_every_peer(|peer| {
        let site = site(peer, "");
        let rival = format!("_mesozone-other.{ZONE}");
        let other =
            other(&site, "other.toml", &[("\n[zone]", "\n[ha]\nowner = \"other\"\n[zone]")]);
        let (theirs, ours) = (state(&[("db", &["10.1.1.1"])]), state(&[("web", &["10.1.1.1"])]));
        with(&site, &other, &theirs, &["sync"]).exits(0);
        let before = site.peer.axfr();
        for args in [&["sync"][..], &["diff"], &["sync", "--take-over", "third"]] {
            let ran = site.with(&ours, args).exits(2);
            assert!(ran.stderr.contains("belongs to the owner \"other\""), "{ran:?}");
        }
        assert_eq!(site.peer.axfr(), before);
        let checked = site.run(&["check"]).stdout;
        assert!(checked.contains(&format!("FAIL  target lab, server {}", site.peer.addr())));
        assert!(checked.contains("another owner publishes here: other, not mesos"), "{checked}");
        // What they adopted is a first contact of ours.
        let said = site.with(&ours, &["sync", "--take-over", "other"]).exits(1).stdout;
        assert!(said.contains("found there"), "{said}");
        assert_eq!(site.peer.query(&rival, "TXT"), Vec::<String>::new());
        assert!(fence_now(&site).contains("adopted=no"));
        assert_eq!(pointers(&site, "1.1.1").len(), 1, "nothing that was there goes");
        let ran = with(&site, &other, &theirs, &["sync"]).exits(2);
        assert!(ran.stderr.contains("belongs to the owner \"mesos\""), "{ran:?}");
    });
}

#[test]
fn a_run_whose_fence_a_rival_replaced_stands_by() {
    on_every_peer(|peer| {
        let master = Simulated::start(&["--tasks", "40"]);
        let site = site(peer, "");
        site.follow(&[format!("http://{}", master.address)], "");
        let rival =
            other(&site, "other.toml", &[("\n[zone]", "\n[ha]\nowner = \"other\"\n[zone]")]);
        let mut daemon = Daemon::start(&site);
        daemon.says("published");
        let web = state(&[("web", &["10.1.1.1"])]);
        with(&site, &rival, &web, &["sync", "--take-over", "mesos"]).exits(1);
        daemon.says("belongs to the owner \"other\"");
        let zone = site.peer.axfr();
        master.control(json!({"start": {"framework": "marathon", "name": "fresh"}}));
        master.control(json!({"task-address": {"name": "fresh", "address": "10.9.9.8"}}));
        until("it is wanted", || desired(&site).contains("10.9.9.8"));
        assert_eq!(daemon.stop().0, 0);
        assert_eq!(site.peer.axfr(), zone, "it wrote nothing");
    });
}

#[test]
fn the_nsupdate_script_makes_the_pointers_that_sync_makes() {
    on_every_peer(|peer| {
        let [scripted, synced] = [(); 2].map(|()| site(peer, "1.1.1 PTR printer.example."));
        let before = state(&[("web", &["10.1.1.1"]), ("db", &["10.1.1.1", "10.1.1.2"])]);
        let after = state(&[("db", &["10.1.1.1", "10.1.1.3"])]);
        for site in [&scripted, &synced] {
            site.sync(&before).exits(0);
        }
        let script = scripted.with(&after, &["diff", "--format", "nsupdate"]).exits(1).stdout;
        scripted.peer.nsupdate(script.trim_end().trim_end_matches("send"));
        synced.sync(&after).exits(0);
        let pointers = |site: &Site| -> Vec<String> {
            site.peer.axfr().into_iter().filter(|line| line.contains("\tPTR\t")).collect()
        };
        assert_eq!(pointers(&scripted), pointers(&synced), "{script}");
        assert!(pointers(&synced).len() == 3, "{script}");
    });
}

#[test]
fn the_rights_that_a_reverse_zone_needs_are_ptr_and_txt() {
    let master = Simulated::start(&[]);
    let masters = [format!("http://{}", master.address)];
    on_every_peer(|peer| {
        let check = |grant: Grant, types: &[&str], code: i32| {
            let setup = Setup { zone: ZONE, grant, types, ..Setup::default() };
            let site = Site::start(peer, &setup);
            let server = site.peer.addr().to_string();
            site.configure(&server, site.peer.key_file(), TARGET, REVERSE);
            site.follow(&masters, "");
            let (zone, said) = (site.peer.axfr(), site.run(&["check"]).stdout);
            assert_eq!(site.peer.axfr(), zone, "{said}");
            let failed = said.lines().filter(|line| line.starts_with("FAIL")).count();
            assert_eq!(failed > 0, code == 2, "{said}");
            said
        };
        let said = check(Grant::Exact, &[], 0);
        let rights = "update of PTR below 10.in-addr.arpa. and TXT at \
                      _mesozone-mesos.10.in-addr.arpa.: allowed";
        assert!(said.contains(rights), "{said}");
        assert!(said.contains("0 PTR records to names at and below mesos."), "{said}");
        let said = check(Grant::Exact, &["TXT"], 2);
        assert!(
            said.contains("FAIL  target lab") && said.contains("to update PTR below"),
            "{said}"
        );
        let said = check(Grant::Exact, &["PTR"], 2);
        assert!(said.contains("to update TXT at _mesozone-mesos.10.in-addr.arpa."), "{said}");
    });
}

#[test]
fn a_right_to_pointers_that_is_missing_is_told_by_sync() {
    on_every_peer(|peer| {
        let setup = Setup { zone: ZONE, types: &["TXT"], ..Setup::default() };
        let site = Site::start(peer, &setup);
        let server = site.peer.addr().to_string();
        site.configure(&server, site.peer.key_file(), TARGET, REVERSE);
        let ran = site.sync(&state(&[("web", &["10.1.1.1"])])).exits(2);
        assert!(ran.one_line().contains("PTR"), "{ran:?}");
    });
}

/// Takes the comment signs from the lines from each beginning to the end beside it.
fn uncommented(text: &str, sign: &str, blocks: &[(&str, &str)]) -> String {
    let mut ends: Option<&str> = None;
    let mut opened = 0;
    let mut line = |line: &str| {
        let Some((indent, rest)) = line.split_once(sign) else { return format!("{line}\n") };
        if let Some((_, end)) = blocks.iter().find(|(begin, _)| rest.starts_with(begin)) {
            (ends, opened) = (Some(*end), opened + 1);
        }
        match ends {
            Some(end) => {
                ends = ends.filter(|_| !rest.starts_with(end));
                format!("{indent}{rest}\n")
            }
            None => format!("{line}\n"),
        }
    };
    let text = text.lines().map(&mut line).collect();
    assert_eq!(opened, blocks.len(), "{text}");
    text
}

/// Gives a server the reverse zone that its example has commented out.
fn add_reverse_zone(peer: Peer, site: &mut Site) {
    let dir = site.peer.dir().to_owned();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let zone = read("mesos.zone").replace("$ORIGIN mesos.", "$ORIGIN 10.in-addr.arpa.");
    site.peer.stop();
    std::fs::write(dir.join("10.zone"), zone).unwrap();
    let uncomment = |name: &str, sign: &str, blocks: &[(&str, &str)]| {
        std::fs::write(dir.join(name), uncommented(&read(name), sign, blocks)).unwrap();
    };
    match peer {
        Peer::Bind => uncomment("named.conf.local", "// ", &[("zone \"10", "};")]),
        Peer::Knot => {
            let blocks =
                [("- id: mesozone-points", "  update-type"), ("- domain: 10", "  journal-max")];
            uncomment("knot.conf", "# ", &blocks);
        }
        Peer::PowerDns => {
            let blocks = [("local reverse", "local pointers"), ("if input", "end")];
            uncomment("updates.lua", "-- ", &blocks);
            let setup = uncommented(
                &read("setup.sh"),
                "# ",
                &[("pdnsutil load-zone 10", "pdnsutil set-meta 10.in-addr.arpa SOA")],
            );
            let (head, _) = setup.split_once("sqlite3 \"$database\"").unwrap();
            let ours = setup
                .lines()
                .filter(|line| line.contains("10.in-addr.arpa"))
                .map(|l| l.to_owned() + "\n");
            std::fs::write(dir.join("reverse.sh"), head.to_owned() + &ours.collect::<String>())
                .unwrap();
            let ran =
                std::process::Command::new("sh").arg(dir.join("reverse.sh")).output().unwrap();
            assert!(ran.status.success(), "{ran:?}");
        }
    }
    site.peer.start();
}

#[test]
fn what_the_examples_have_for_a_reverse_zone_is_what_mesozone_needs_there() {
    on_every_peer(|peer| {
        let mut site = Site::start(peer, &Setup::default());
        add_reverse_zone(peer, &mut site);
        let (server, key) = (site.peer.addr().to_string(), site.peer.key_file());
        let more = format!(
            "[[target]]\nname = \"reverse\"\nserver = \"{server}\"\ntsig_key_file = {key:?}\n{TARGET}\n{REVERSE}"
        );
        site.configure(&server, key, "", &more);
        let cluster = state(&[("web", &["10.1.1.1"]), ("db", &["10.1.1.2"])]);
        let said = site.sync(&cluster).exits(0).stdout;
        assert!(said.contains("target reverse") && said.contains("target lab"), "{said}");
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.1.1"]);
        assert_eq!(pointers(&site, "1.1.1"), canonical(&site, &cluster, "web"));
        site.sync(&state(&[])).exits(0);
        assert!(pointers(&site, "1.1.1").is_empty());
        let chosen = site.with(&cluster, &["diff", "--target", "reverse"]).exits(1).stdout;
        assert!(chosen.contains("2 to add") && !chosen.contains("target lab"), "{chosen}");
        // Nothing else is granted there.
        let refused = crate::peer::nsupdate(
            site.peer.addr(),
            ZONE,
            &site.peer.key_file(),
            &format!("update add {} 60 A 10.1.1.1", at("1.1.1")),
        );
        assert!(refused.is_err(), "{peer:?}");
    });
}

#[test]
fn two_runs_follow_their_clusters_side_by_side() {
    on_every_peer(|peer| {
        let site = site(peer, "3.9.9 PTR printer.example.");
        let before = site.peer.axfr();
        // Of one seed: their tasks have the same addresses.
        let masters = [(); 2].map(|()| Simulated::start(&["--tasks", "60"]));
        let url = |master: &Simulated| format!("http://{}", master.address);
        let poll = "watch = \"poll\"\npoll_interval = \"100ms\"";
        site.follow(&[url(&masters[1])], poll);
        let changes = [("[zone]", "[zone]\ndomain = \"prod.mesos\"")];
        let prod = other(&site, "prod.toml", &changes);
        site.follow(&[url(&masters[0])], poll);
        let mut daemons = [site.config(), prod.clone()].map(|config| Daemon::of(&site, &config));
        let wanted = || -> String {
            let records = [site.config(), prod.clone()].map(|config| {
                let mut command = site.command_with(&config, &["records", "--format", "tsv"]);
                Ran::of(command.output().unwrap()).exits(0).stdout
            });
            let mut lines: Vec<String> = records
                .concat()
                .lines()
                .filter(|line| line.contains("\tPTR\t"))
                .map(|line| format!("{line}\n"))
                .collect();
            lines.sort();
            lines.concat()
        };
        daemons.iter_mut().for_each(|daemon| drop(daemon.says("published")));
        until("both are there", || site.published(&before) == wanted());
        for round in 0..3 {
            for master in &masters {
                let name = format!("fresh{round}");
                master.control(json!({"start": {"framework": "marathon", "name": name}}));
                let address = json!({"name": name, "address": format!("10.9.9.{}", round + 1)});
                master.control(json!({"task-address": address}));
            }
            let count = 2 + usize::from(round == 2);
            let both = || pointers(&site, &format!("{}.9.9", round + 1)).len() == count;
            until("an address has a pointer of each", both);
            masters[round % 2].control(json!({"kill": {"name": format!("fresh{round}")}}));
        }
        until("each has its own", || site.published(&before) == wanted());
        let left = pointers(&site, "3.9.9");
        assert!(left.len() == 2 && left.contains(&"printer.example.".to_owned()), "{left:?}");
        for daemon in daemons {
            let (code, log) = daemon.stop();
            assert_eq!(code, 0, "{log:#?}");
            assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
        }
    });
}

#[test]
fn all_zones_are_printed_in_one_order() {
    let site = site(Peer::Bind, "");
    let cluster = state(&[("web", &["10.1.1.1"])]);
    let printed = |format: &str| site.with(&cluster, &["records", "--format", format]).stdout;
    let names = |text: String| -> Vec<String> {
        text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    };
    let zone = names(printed("zone"));
    assert_eq!(zone[0], "1.1.1.10.in-addr.arpa.", "arpa comes before mesos");
    let (tsv, mut sorted) = (names(printed("tsv")), zone.clone());
    sorted.sort();
    assert_eq!(tsv, sorted);
    let json: Value = serde_json::from_str(&printed("json")).unwrap();
    let listed = json["records"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap());
    assert_eq!(listed.collect::<Vec<_>>(), zone);
    assert_eq!(json["records"][0]["type"], "PTR");
}
