//! The recipes under `examples/` do what they say: each folder's configurations, with the addresses,
//! ports and paths of real servers here, and nothing else changed.

mod hidden;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::documents::blocks;
use crate::peer::{Peer, Running, Setup, claim_port, debian, example, nsupdate};
use crate::running::{Daemon, until};
use crate::simulated::Simulated;
use crate::site::{Ran, Site, state};

/// Replaces each text by the one beside it, and fails where a recipe no longer has it.
#[track_caller]
fn here(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "no {from:?} in:\n{text}");
        text.replace(from, to)
    })
}

/// A BIND with the keys and zone files of a recipe, and this for `named.conf.local`. Whatever the
/// recipe has it refuse, it answers for the zone of the setup.
fn bind(recipe: &str, zone: &str, conf: impl FnOnce(&Running) -> String) -> Running {
    let mut bind = Peer::Bind.start(&Setup { zone, ..Setup::default() });
    bind.stop();
    let dir = bind.dir().to_owned();
    fs::create_dir(dir.join("zones")).unwrap();
    for file in fs::read_dir(folder(recipe)).unwrap().map(|entry| entry.unwrap().path()) {
        let to = match file.extension().and_then(|extension| extension.to_str()) {
            Some("key") => dir.clone(),
            Some("zone") => dir.join("zones"),
            _ => continue,
        };
        let to = to.join(file.file_name().unwrap());
        fs::copy(&file, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o640)).unwrap();
    }
    let places = [("/etc/bind", dir.to_str().unwrap()), ("/var/lib/bind", &utf8(&dir, "zones"))];
    let always = match zone {
        "mesos" => String::new(),
        zone => {
            let file = utf8(&dir, "mesos.zone");
            format!("zone \"{zone}\" {{ type primary; file \"{file}\"; }};\n")
        }
    };
    let text = always + &here(&conf(&bind), &places);
    fs::write(dir.join("named.conf.local"), text).unwrap();
    bind.start();
    bind
}

fn folder(recipe: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(recipe)
}

fn utf8(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_owned()
}

/// The zone of the examples as a file of a server under test.
fn zone_file(bind: &Running, name: &str, more: &str) {
    let text = example("bind/mesos.zone") + more;
    fs::write(bind.dir().join("zones").join(name), text).unwrap();
}

/// Our side of a recipe, as a file of the site: it follows this master, and its keys are those of
/// the server.
#[track_caller]
fn ours(site: &Site, file: &str, master: &str, changes: &[(&str, &str)]) -> PathBuf {
    let text = example(file);
    let masters = text.lines().find(|line| line.starts_with("masters = ")).unwrap();
    let text = here(&text, &[(masters, &format!("masters = [\"{master}\"]"))]);
    let text = text.replace("[[target]]", "[[target]]\ncheck_interval = \"1s\"");
    let text = text.replace("/etc/mesozone", site.peer.dir().to_str().unwrap());
    let text = here(&text, changes);
    let path = site.path(&file.replace('/', "-"));
    fs::write(&path, text).unwrap();
    path
}

/// Runs a command with one of several configurations.
fn run(site: &Site, config: &Path, args: &[&str]) -> Ran {
    Ran::of(site.command_with(config, args).output().unwrap())
}

/// The same on a saved state.
fn on(site: &Site, config: &Path, state: &Value, args: &[&str]) -> Ran {
    let file = site.path("state.json");
    fs::write(&file, state.to_string()).unwrap();
    run(site, config, &[args, &["--state", file.to_str().unwrap()]].concat())
}

/// What `dig` says: the status, then the data of the answers.
fn dig(server: SocketAddr, words: &[&str]) -> Vec<String> {
    let mut dig = debian("dig");
    dig.args([&format!("@{}", server.ip()), "-p", &server.port().to_string()]).args(words);
    let output = dig.args(["+tries=1", "+time=5", "+noall", "+comments", "+answer"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let status = text.split_once("status: ").and_then(|(_, rest)| rest.split_once(','));
    let status = status.map_or("none", |(status, _)| status).to_owned();
    let records = text.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
    let mut data: Vec<String> =
        records.map(|line| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" ")).collect();
    data.sort();
    [vec![status], data].concat()
}

/// What a server answers for each of some records, in the form of `records --format tsv`.
fn answers(site: &Site, server: SocketAddr, records: &str) -> BTreeSet<String> {
    let question = |line: &str| line.rsplit_once('\t').unwrap().0.replace('\t', " ") + "\n";
    let questions: BTreeSet<String> = records.lines().map(question).collect();
    let file = site.path(&format!("questions-{}", server.port()));
    fs::write(&file, questions.into_iter().collect::<String>()).unwrap();
    let mut dig = debian("dig");
    dig.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+tcp"]);
    let output = dig.args(["+noall", "+answer", "-f"]).arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.map(|it| format!("{}\t{}\t{}", it[0], it[3], it[4..].join(" "))).collect()
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn start(master: &Simulated, name: &str) {
    master.control(json!({"start": {"framework": "marathon", "name": name}}));
}

/// Two tasks: one may be seen from outside.
fn visible() -> Value {
    let mut state = state(&[("shop", &["10.1.0.1"]), ("db", &["10.1.0.2"])]);
    let tasks = &mut state["frameworks"][0]["tasks"];
    tasks[0]["discovery"] = json!({"visibility": "EXTERNAL", "name": "shop"});
    tasks[1]["discovery"] = json!({"visibility": "CLUSTER", "name": "db"});
    state
}

/// The recipe's BIND, where 127.0.0.1 is inside and 127.0.0.2 is not.
fn views() -> Site {
    let peer = bind("split-horizon", "mesos", |bind| {
        zone_file(bind, "mesos.inside", "");
        zone_file(bind, "mesos.outside", "");
        here(&example("split-horizon/named.conf.local"), &[("10.0.0.0/8", "127.0.0.1")])
    });
    Site::beside(peer)
}

const MASTER: &str = "http://10.0.0.1:5050";

fn seen(site: &Site, from: &str, name: &str) -> Vec<String> {
    let words: &[&str] = if from == "inside" { &[] } else { &["-b", "127.0.0.2"] };
    dig(site.peer.addr(), &[words, &["+norecurse", name]].concat())
}

#[test]
fn outside_a_split_horizon_only_external_tasks_are_seen() {
    let site = views();
    let at = site.peer.addr().to_string();
    let [inside, outside] = ["inside", "outside"].map(|view| {
        let file = format!("split-horizon/{view}.toml");
        ours(&site, &file, MASTER, &[("10.0.0.53:53", &at)])
    });
    on(&site, &inside, &visible(), &["sync"]).exits(0);
    on(&site, &outside, &visible(), &["sync"]).exits(0);
    let shop = ["NOERROR", "10.1.0.1"];
    assert_eq!(seen(&site, "inside", "shop.marathon.mesos"), shop);
    assert_eq!(seen(&site, "outside", "shop.marathon.mesos"), shop);
    for (name, data) in [
        ("db.marathon.mesos", "10.1.0.2"),
        ("leader.mesos", "10.0.0.1"),
        ("marathon.mesos", "10.0.0.9"),
        ("shop.marathon.slave.mesos", "10.0.1.1"),
    ] {
        assert_eq!(seen(&site, "inside", name), ["NOERROR", data]);
        assert!(seen(&site, "outside", name).len() == 1, "{name}");
    }
    // Each view has a fence of its own, though the owner is one.
    for config in [&inside, &outside] {
        on(&site, config, &visible(), &["diff"]).exits(0);
    }
    // What is not published there is told, since it was asked for.
    let said = on(&site, &outside, &visible(), &["diff"]).stdout;
    assert!(said.contains("not ours leader.mesos. A: protected by \"*.mesos\""), "{said}");
}

#[test]
fn all_that_is_published_outside_a_split_horizon_is_of_external_tasks() {
    let site = views();
    let at = site.peer.addr().to_string();
    let outside = ours(&site, "split-horizon/outside.toml", MASTER, &[("10.0.0.53:53", &at)]);
    on(&site, &outside, &visible(), &["sync"]).exits(0);
    let key = site.peer.dir().join("outside.key");
    let zone = site.peer.transfer(&key).unwrap();
    let ours = zone.iter().filter(|line| !line.contains("ns1") && !line.contains("_mesozone"));
    let names: BTreeSet<&str> = ours.filter_map(|line| line.split('\t').next()).collect();
    assert!(names.iter().all(|name| name.contains("shop")), "{names:?}");
}

#[test]
fn two_processes_publish_into_the_two_views_of_a_split_horizon() {
    let (site, master) = (views(), Simulated::start(&["--tasks", "10"]));
    let (at, url) = (site.peer.addr().to_string(), format!("http://{}", master.address));
    let [commands] = &*blocks(&example("split-horizon/README.md"), "sh") else { panic!("one") };
    let mut daemons = Vec::new();
    for (command, http) in commands.lines().zip(["127.0.0.1:8123", "127.0.0.1:8124"]) {
        let file = command.strip_prefix("mesozone run --config /etc/mesozone/").unwrap();
        let changes = [("10.0.0.53:53", at.as_str()), (http, "127.0.0.1:0")];
        let config = ours(&site, &format!("split-horizon/{file}"), &url, &changes);
        daemons.push(Daemon::of(&site, &config));
    }
    assert_eq!(daemons.len(), 2);
    until("the leader is seen inside", || seen(&site, "inside", "leader.mesos").len() == 2);
    let key = site.peer.dir().join("outside.key");
    let zone = || site.peer.transfer(&key).unwrap().concat();
    until("there is a fence outside", || zone().contains("owner=mesos"));
    start(&master, "fresh");
    let is_inside = || seen(&site, "inside", "fresh.marathon.mesos").len() == 2;
    until("a new task has its name inside", is_inside);
    assert!(!zone().contains("leader") && !zone().contains("fresh"), "{}", zone());
    daemons.into_iter().for_each(|daemon| assert_eq!(daemon.stop().0, 0));
}

#[test]
fn one_process_publishes_into_both_views_of_a_split_horizon() {
    let site = views();
    let at = site.peer.addr().to_string();
    let master = Simulated::start(&["--tasks", "10"]);
    let url = format!("http://{}", master.address);
    let both = ours(&site, "split-horizon/both.toml", &url, &[("10.0.0.53:53", &at)]);
    let mut daemon = Daemon::of(&site, &both);
    daemon.says("published");
    daemon.says("published");
    start(&master, "fresh");
    for from in ["inside", "outside"] {
        until("a new task has its name", || seen(&site, from, "fresh.marathon.mesos").len() == 2);
    }
    until("the leader is seen inside", || seen(&site, "inside", "leader.mesos").len() == 2);
    assert_eq!(seen(&site, "outside", "leader.mesos"), ["NXDOMAIN"]);
    assert_eq!(run(&site, &both, &["check"]).code, 1, "it warns of what is protected");
    assert_eq!(daemon.stop().0, 0);
}

#[test]
fn two_clusters_in_one_zone_keep_to_their_subdomains() {
    let peer = bind("two-clusters", "example", |bind| {
        zone_file(bind, "mesos.zone", "printer A 10.0.0.7\n");
        example("two-clusters/named.conf.local")
    });
    let site = Site::beside(peer);
    let at = site.peer.addr();
    let clusters = ["east", "west"].map(|name| {
        let master = Simulated::start(&["--tasks", "10", "--seed", name_seed(name)]);
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
}

fn name_seed(name: &str) -> &'static str {
    if name == "east" { "1" } else { "2" }
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

#[test]
fn agents_that_answer_locally_answer_alike_and_keep_nothing() {
    let master = Simulated::start(&["--tasks", "20"]);
    let url = format!("http://{}", master.address);
    let elsewhere = Peer::Bind.start(&Setup {
        zone: "example",
        records: "web IN A 192.0.2.80",
        ..Setup::default()
    });
    let site = Site::beside(elsewhere);
    let agents: [_; 3] = std::array::from_fn(|at| {
        let (address, claim) = claim_port();
        let text = format!("[\"{address}\"]");
        let forward = format!("[\"{}\"]", site.peer.addr());
        let changes: [(&str, &str); 2] =
            [("[\"0.0.0.0:53\"]", &text), ("[\"10.0.0.53\", \"10.0.0.54\"]", &forward)];
        let config = ours(&site, "local-agents/mesozone.toml", &url, &changes);
        let own = site.path(&format!("agent-{at}.toml"));
        fs::rename(config, &own).unwrap();
        (address, claim, own)
    });
    let mut daemons: Vec<Daemon> =
        agents.iter().map(|(_, _, config)| Daemon::of(&site, config)).collect();
    start(&master, "fresh");
    let fresh = |at: SocketAddr| dig(at, &["fresh.marathon.mesos"]).len() > 1;
    agents.iter().for_each(|(at, ..)| until("it has its name", || fresh(*at)));
    let desired = run(&site, &agents[0].2, &["records", "--format", "tsv"]).exits(0).stdout;
    for (at, ..) in &agents {
        until("all answers", || answers(&site, *at, &desired) == lines(&desired));
    }
    let apex: BTreeSet<Vec<String>> =
        agents.iter().map(|(at, ..)| dig(*at, &["mesos", "NS"])).collect();
    assert_eq!(apex.len(), 1, "{apex:?}");
    // As a container asks, by the search list of its resolv.conf.
    let conf = example("local-agents/resolv.conf");
    let after = |word: &str| conf.lines().find_map(|line| line.strip_prefix(word)).unwrap();
    let (search, dots) = (after("search "), after("options ndots:"));
    assert!(conf.lines().any(|line| line.starts_with("nameserver 172.17.")));
    let at = agents[1].0;
    let (domain, dots) = (format!("+domain={search}"), format!("+ndots={dots}"));
    assert!(dig(at, &["+search", &domain, &dots, "fresh.marathon"]).len() > 1);
    assert_eq!(dig(at, &["web.example"]), ["NOERROR", "192.0.2.80"]);

    // One that goes and comes back reads the masters again, and has nothing else.
    let mut files = fs::read_dir(site.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(files.all(|name| {
        ["agent-", "questions-"].iter().any(|known| name.to_str().unwrap().starts_with(known))
    }));
    drop(daemons.remove(1));
    assert!(fresh(agents[0].0) && fresh(agents[2].0));
    daemons.push(Daemon::of(&site, &agents[1].2));
    until("all answers again", || answers(&site, at, &desired) == lines(&desired));
}

#[test]
fn the_bundled_server_of_the_examples_answers_and_bind_has_the_zone_from_it() {
    let document = example("README.md");
    let configs = blocks(&document, "toml");
    let server = configs.iter().find(|block| block.contains("[server]")).expect("[server]");
    let plain = blocks(&document, "");
    let secondary = plain.iter().find(|block| block.contains("type secondary")).expect("a zone");
    let (master, (address, _claim)) = (Simulated::start(&["--tasks", "5"]), claim_port());
    let listen = format!("[\"{address}\"]");
    let from = format!("{} port {} key", address.ip(), address.port());
    let bind = bind("hidden-primary", "example", |_| {
        // Where BIND keeps what it has by transfer.
        let here =
            here(secondary, &[("10.0.0.2 key", &from), ("\"mesos.db\"", "\"zones/mesos.db\"")]);
        here + "// /var/lib/bind\n"
    });
    let site = Site::beside(bind);
    let url = format!("masters = [\"http://{}\"]", master.address);
    let text = here(server, &[("[\"10.0.0.2:53\"]", &listen)]);
    let masters = text.lines().find(|line| line.starts_with("masters = ")).unwrap();
    let key = site.peer.dir().join("secondary.key");
    let (at, text) = (site.peer.addr(), here(&text, &[(masters, &url)]));
    let transfer = format!("transfer = {{ secondaries = [\"{at}\"], tsig_key_file = {key:?} }}\n");
    fs::write(site.config(), text + &transfer).unwrap();
    let _daemon = Daemon::start(&site);
    until("the leader has a name", || dig(address, &["leader.mesos"]).len() == 2);
    assert_eq!(dig(address, &["elsewhere.example"]), ["REFUSED"]);
    until("the secondary has it", || dig(at, &["leader.mesos"]).len() == 2);
    start(&master, "fresh");
    until("and is told of changes", || dig(at, &["fresh.marathon.mesos"]).len() > 1);
}
