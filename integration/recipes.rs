//! The recipes under `examples/` do what they say: each folder's configurations, with the addresses,
//! ports and paths of real servers here, and nothing else changed.

mod clusters;
mod hidden;
mod horizon;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::documents::blocks;
use crate::peer::{Peer, Running, Setup, claim_port, debian, example};
use crate::running::{Daemon, until};
use crate::simulated::Simulated;
use crate::site::{Ran, Site};
use crate::zookeeper::server::Server;

/// For what is read from a saved state.
const MASTER: &str = "http://10.0.0.1:5050";

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
    // Cut off from all masters they still say what they know.
    drop(master);
    agents.iter().for_each(|(at, ..)| assert!(fresh(*at)));
}

#[test]
fn of_two_with_an_election_one_publishes_and_the_other_follows_it() {
    let (zookeeper, master) = (Server::start(), Simulated::start(&["--tasks", "10"]));
    let site = Site::beside(Peer::Bind.start(&Setup::default()));
    let key = site.peer.key_file().display().to_string();
    let (at, url) = (site.peer.addr().to_string(), format!("http://{}", master.address));
    let ensemble = zookeeper.addr().to_string();
    let key_there = site.peer.dir().join("bind.key").display().to_string();
    let changes = [
        ("10.0.0.53:53", at.as_str()),
        ("10.0.0.1:2181,10.0.0.2:2181,10.0.0.3:2181", &ensemble),
        (&*key_there, &key),
        // Here both are on one machine.
        ("[http]", "[http]\nlisten = \"127.0.0.1:0\""),
    ];
    let config = ours(&site, "election.toml", &url, &changes);
    let mut first = Daemon::of(&site, &config);
    first.says(": elected");
    first.says("published");
    let mut second = Daemon::of(&site, &config);
    second.says("another mesozone is elected; standing by");
    assert_eq!(first.stop().0, 0);
    start(&master, "fresh");
    second.says(": elected");
    until("the second publishes", || dig(site.peer.addr(), &["fresh.marathon.mesos"]).len() > 1);
    assert_eq!(second.stop().0, 0);
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
