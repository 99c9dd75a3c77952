//! The guide does what it says: its commands are run as they stand, in their order, with a simulated
//! cluster and a real BIND. What serves `mesos` before is mesozone in the place of mesos-dns, from the
//! imported configuration, as the guide has it for sites without BIND.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::documents::blocks;
use crate::peer::{Peer, Setup, claim_port, debian, example};
use crate::running::{Daemon, until};
use crate::simulated::Simulated;
use crate::site::{Ran, Site};

/// What each block of commands ends with: `diff` of the names finds `ns1`.
const ENDINGS: [i32; 11] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

/// Where the guide is followed.
struct Place {
    site: Site,
    master: Simulated,
    /// What is in the guide, and what stands for it here.
    changes: Vec<(String, String)>,
    /// Of what serves `mesos` at first.
    old: SocketAddr,
    _claim: UnixListener,
}

impl Place {
    fn start() -> Place {
        let site = Site::start(Peer::Bind, &Setup { zone: "example", ..Setup::default() });
        let (old, claim) = claim_port();
        let dir = site.peer.dir().display().to_string();
        let control =
            format!("rndc -s 127.0.0.2 -p {} -k {dir}/admin.key", site.peer.addr().port());
        let examples = format!("{}/examples/", env!("CARGO_MANIFEST_DIR"));
        let changes = [
            ("10.0.0.53:53".to_owned(), site.peer.addr().to_string()),
            ("forwarders { 10.0.0.2; }".to_owned(), {
                format!("forwarders {{ {} port {}; }}", old.ip(), old.port())
            }),
            ("curl -s http://10.0.0.2:8123/v1/axfr".to_owned(), "cat axfr.json".to_owned()),
            // Both are on this machine.
            ("0.0.0.0:8123".to_owned(), "127.0.0.1:0".to_owned()),
            ("/etc/mesos-dns/".to_owned(), String::new()),
            ("/etc/bind".to_owned(), dir.clone()),
            ("/var/lib/bind".to_owned(), format!("{dir}/zones")),
            ("/etc/mesozone".to_owned(), format!("{dir}/mesozone")),
            // Here one user runs all.
            ("chown ".to_owned(), "echo ".to_owned()),
            ("rndc ".to_owned(), format!("{control} ")),
            (" examples/".to_owned(), format!(" {examples}")),
        ];
        let master = Simulated::start(&["--scheduler-pids"]);
        Place { site, master, changes: changes.into(), old, _claim: claim }
    }

    fn here(&self, text: &str) -> String {
        self.changes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.path(name)
    }

    /// Runs commands where the files of the guide are.
    #[track_caller]
    fn run(&self, commands: &str) -> Ran {
        let program = Path::new(env!("CARGO_BIN_EXE_mesozone")).parent().unwrap().display();
        let path = format!("{program}:/usr/sbin:{}", std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &self.here(commands)]).env("PATH", path);
        Ran::of(bash.current_dir(self.path("")).env("NO_COLOR", "1").output().unwrap())
    }

    /// The configuration of BIND beside the zone it answers for all the time.
    fn zones(&self, more: &str) {
        let dir = self.site.peer.dir().display().to_string();
        let always = format!("zone \"example\" {{ type primary; file \"{dir}/mesos.zone\"; }};\n");
        fs::write(self.site.peer.dir().join("named.conf.local"), always + &self.here(more))
            .unwrap();
    }

    /// What a client gets for all the names that there are.
    fn answers(&self, names: &Path) -> BTreeSet<String> {
        let mut dig = debian("dig");
        let at = self.site.peer.addr();
        dig.args([&format!("@{}", at.ip()), "-p", &at.port().to_string(), "+tcp", "+noall"]);
        let output = dig.args(["+answer", "-f"]).arg(names).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let answers = text.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
        let fields = answers.map(|line| line.split_whitespace().collect::<Vec<_>>());
        // As `records --format tsv` has it.
        fields.map(|it| format!("{}\t{}\t{}", it[0], it[3], it[4..].join(" "))).collect()
    }
}

/// `/v1/axfr` of a mesos-dns that made these records.
fn axfr(records: &str) -> String {
    let mut all = json!({ "As": {}, "AAAAs": {}, "SRVs": {} });
    for line in records.lines() {
        let [name, rtype, rdata] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let fields: Vec<&str> = rdata.split(' ').collect();
        let value = match fields[..] {
            [_, _, port, target] => format!("{target}:{port}"),
            _ => rdata.to_owned(),
        };
        let names: &mut Map<String, Value> = all[format!("{rtype}s")].as_object_mut().unwrap();
        let values = names.entry(name).or_insert_with(|| json!([]));
        values.as_array_mut().unwrap().push(value.into());
    }
    json!({ "TTL": 60, "Records": all }).to_string()
}

/// What a client has to get, and the questions.
struct Names {
    right: BTreeSet<String>,
    /// In a file, one a line.
    questions: PathBuf,
}

impl Place {
    /// What was there before: BIND, which forwards to what stands for mesos-dns.
    fn before(&mut self, forward: &str) -> (Daemon, Names) {
        let config = json!({
            "Masters": [self.master.address], "Listener": self.old.ip(), "Port": self.old.port(),
            "Resolvers": [], "SOAMname": "ns1.mesos", "RefreshSeconds": 60,
        });
        fs::write(self.path("config.json"), config.to_string()).unwrap();
        let imported = self.run("mesozone import config.json").exits(0).stdout;
        fs::write(self.path("old.toml"), self.here(&imported)).unwrap();
        let mut daemon = Daemon::of(&self.site, &self.path("old.toml"));
        daemon.says("state read from");

        let conf = self.site.peer.dir().join("named.conf");
        let text = fs::read_to_string(&conf).unwrap();
        assert!(text.contains("recursion no;"));
        let recurses = "recursion yes; allow-recursion { any; };";
        self.site.peer.stop();
        fs::write(&conf, text.replace("recursion no;", recurses)).unwrap();
        self.zones(forward);
        fs::create_dir(self.site.peer.dir().join("zones")).unwrap();
        self.site.peer.start();

        let records = self.run("mesozone --config old.toml records --format tsv").exits(0).stdout;
        let told = axfr(&format!("{records}ns1.mesos.\tA\t10.0.0.2\n"));
        fs::write(self.path("axfr.json"), told).unwrap();
        let question = |line: &str| line.rsplit_once('\t').unwrap().0.replace('\t', " ") + "\n";
        let questions: BTreeSet<String> = records.lines().map(question).collect();
        fs::write(self.path("questions"), questions.into_iter().collect::<String>()).unwrap();
        let right = records.lines().map(str::to_owned).collect();
        (daemon, Names { right, questions: self.path("questions") })
    }

    /// Does what the reader of a block does.
    #[track_caller]
    fn follow(&self, block: &str, ending: i32) {
        let said = self.run(block);
        assert_eq!(said.code, ending, "{block}: {said:#?}");
        if block.starts_with("sed -i") {
            // The address that the guide has is BIND's there.
            let imported = fs::read_to_string(self.path("mesozone.toml")).unwrap();
            let quick = "\ncheck_interval = \"1s\"\ntsig_key_file";
            let imported = self.here(&imported).replace("\ntsig_key_file", quick);
            fs::write(self.path("mesozone.toml"), imported).unwrap();
        }
        if block == "diff theirs ours\n" {
            let lines: Vec<&str> = said.stdout.lines().skip(1).collect();
            assert_eq!(lines, ["< ns1.mesos.\tA\t10.0.0.2"]);
        }
    }

    /// Waits until clients get what is right.
    #[track_caller]
    fn answers_right(&self, names: &Names) {
        until("all answers are right", || self.answers(&names.questions) == names.right);
    }
}

#[test]
fn who_follows_the_guide_changes_no_answer() {
    let guide = example("migration/README.md");
    let plain = blocks(&guide, "");
    let [forward, primary] = ["zone \"mesos\"", "include"]
        .map(|start| plain.iter().find(|block| block.starts_with(start)).expect(start));
    let commands = blocks(&guide, "sh");
    assert_eq!(commands.len(), ENDINGS.len(), "{commands:#?}");
    let mut place = Place::start();
    let (_old, names) = place.before(forward);
    assert_eq!(place.answers(&names.questions), names.right);
    let mut run = None;
    for (block, ending) in commands.iter().zip(ENDINGS) {
        if block == "mesozone run\n" {
            let mut daemon = Daemon::of(&place.site, &place.path("mesozone.toml"));
            daemon.says("published");
            run = Some(daemon);
            continue;
        }
        if block.contains("rndc reconfig") {
            place.zones(if block.contains("named-checkconf") { primary } else { forward });
        }
        place.follow(block, ending);
        place.answers_right(&names);
    }
    run.expect("the guide has it run").says("does not know the key");

    // And once more to BIND, from the zone file on.
    fs::remove_file(place.site.peer.dir().join("zones/mesos.zone.jnl")).unwrap();
    place.zones(primary);
    let again =
        ["sed 's", "named-checkconf"].map(|start| commands.iter().find(|b| b.starts_with(start)));
    place.run(&again.map(|block| &**block.expect("a block")).concat()).exits(0);
    place.answers_right(&names);
    place.run("mesozone sync").exits(0);
}

#[test]
fn the_guide_reads_what_a_real_mesos_dns_tells() {
    let case = "integration/fixtures/cases/real-mesos-running";
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join(case);
    let guide = blocks(&example("migration/README.md"), "sh");
    let reads = guide.iter().find(|block| block.contains("/v1/axfr")).unwrap();
    let (_, reads) = reads.split_once('\n').unwrap();
    let told = case.join("axfr.json").display().to_string();
    let reads = reads.replace("curl -s http://10.0.0.2:8123/v1/axfr", &format!("cat {told}"));
    let theirs = tempfile::tempdir().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &reads]).current_dir(theirs.path());
    assert!(bash.status().unwrap().success());
    let theirs = fs::read_to_string(theirs.path().join("theirs")).unwrap();
    assert_eq!(theirs, fs::read_to_string(case.join("mesos-dns.txt")).unwrap());
}
