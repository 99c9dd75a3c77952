//! From mesos-dns to mesozone: the names that a site has before and after.

mod guide;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mesozone::cluster::Endpoint;
use mesozone::label::Label;
use mesozone::records::LabelRules;
use serde_json::{Value, json};

use crate::asking::{ask_over, questions};
use crate::cases::folders;
use crate::peer::{Peer, Setup, example};
use crate::server::connect;
use crate::site::Site;

/// A record as `records --format tsv` prints it, in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Record {
    name: String,
    rtype: String,
    rdata: String,
}

impl Record {
    fn all(lines: &str) -> BTreeSet<Record> {
        let record = |line: &str| {
            let [name, rtype, rdata] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            Record {
                name: name.to_lowercase(),
                rtype: rtype.to_owned(),
                rdata: rdata.to_lowercase(),
            }
        };
        lines.lines().map(record).collect()
    }

    /// Its name, and that at which it points.
    fn names(&self) -> impl Iterator<Item = &str> {
        let target = self.rdata.split(' ').nth(3);
        [&*self.name].into_iter().chain(target)
    }

    fn labels(&self) -> impl Iterator<Item = &str> {
        self.names().flat_map(|name| name.trim_end_matches('.').split('.'))
    }

    /// Whether it is one of a task's, by its own name.
    fn is_of(&self, tasks: &BTreeSet<String>) -> bool {
        let name = self.name.strip_prefix('_').unwrap_or(&self.name);
        name.split_once('.').is_some_and(|(label, _)| tasks.contains(label))
    }

    /// Priority, weight and port, or the address.
    fn value(&self) -> &str {
        self.rdata.rsplit_once(' ').map_or(&self.rdata, |(value, _)| value)
    }
}

/// What mesos-dns made of a state and BIND does not say after `sync`, and the other way round.
struct Compared {
    gone: BTreeSet<Record>,
    new: BTreeSet<Record>,
    odd: Odd,
}

/// What in a state mesos-dns and we take differently.
#[derive(Default)]
struct Odd {
    /// Discovery names that are no label as they stand, in lower case.
    raw: BTreeSet<String>,
    /// Tasks whose ports have a range of three numbers.
    ranges: BTreeSet<String>,
    /// Tasks on an agent without an id.
    astray: BTreeSet<String>,
    /// Frameworks with a name of the cluster, each with the address of its scheduler.
    captors: BTreeSet<(String, String)>,
}

/// A reason, the records of mesos-dns that go for it, and those that come for it.
struct Difference {
    reason: &'static str,
    /// As the guide has it.
    told: &'static str,
    gone: fn(&Record, &Compared) -> bool,
    new: fn(&Record, &Compared) -> bool,
}

fn nothing(_: &Record, _: &Compared) -> bool {
    false
}

/// In what the names may differ. All else has to be equal, and each of these has to occur.
const PERMITTED: [Difference; 10] = [
    Difference {
        reason: "a discovery name makes records once, as a label; mesos-dns makes them twice, once as \
                 it is spelled",
        told: "discovery names as they are spelled",
        gone: |record, compared| record.names().any(|name| is_raw(name, &compared.odd.raw)),
        new: nothing,
    },
    Difference {
        reason: "a name of which nothing is left as a label has no records; mesos-dns gives it an \
                 empty label, for which nobody can ask",
        told: "names with an empty label",
        gone: |record, _| {
            let is_empty = |label: &str| label.is_empty() || label == "_" || label.starts_with('-');
            record.labels().any(is_empty)
        },
        new: nothing,
    },
    Difference {
        reason: "a task on an agent without an id has no records: Mesos has no such agent",
        told: "a task on an agent without an id",
        gone: |record, compared| record.is_of(&compared.odd.astray),
        new: nothing,
    },
    Difference {
        reason: "a range of ports that is none is skipped; mesos-dns takes the first two numbers of it",
        told: "a port range such as `[1-2-3]`",
        gone: |record, compared| record.rtype == "SRV" && record.is_of(&compared.odd.ranges),
        new: nothing,
    },
    Difference {
        reason: "a label has at most 63 octets; mesos-dns does not answer at all for others",
        told: "labels of more than 63 characters",
        gone: |record, _| record.labels().any(|label| label.len() > 63),
        new: |record, compared| compared.replaces(record, |label| label.len() > 63),
    },
    Difference {
        reason: "a label never ends in a dash, as that of no host does",
        told: "labels that end in `-`",
        gone: |record, _| record.labels().any(|label| label.ends_with('-')),
        new: |record, compared| compared.replaces(record, |label| label.ends_with('-')),
    },
    Difference {
        reason: "`tcp,udp` is two protocols; mesos-dns makes one label of it",
        told: "`_tcpudp`, `_udptcp`",
        gone: |record, _| record.labels().any(is_merged),
        new: |record, compared| compared.replaces(record, is_merged),
    },
    Difference {
        reason: "a port out of range makes no record; mesos-dns gives another port",
        told: "SRV records with a port below 1 or above 65535",
        gone: |record, _| {
            let port = record.rdata.split(' ').nth(2);
            port.is_some_and(|port| !(1..=65535).contains(&port.parse::<i64>().unwrap()))
        },
        new: nothing,
    },
    Difference {
        reason: "a framework with a name of the cluster does not have that name",
        told: "a framework called `leader`",
        gone: |record, compared| {
            let captured = |(name, address): &(String, String)| {
                record.name == format!("_framework._tcp.{name}.mesos.")
                    || record.name == format!("{name}.mesos.") && record.rdata == *address
            };
            compared.odd.captors.iter().any(captured)
        },
        new: nothing,
    },
    Difference {
        reason: "the name server's own address is the business of who serves the zone",
        told: "`ns1.mesos`",
        gone: |record, _| record.name == "ns1.mesos.",
        new: |record, _| record.name == "ns1.mesos.",
    },
];

const MERGED: [&str; 2] = ["_tcpudp", "_udptcp"];

/// Whether a name begins with a discovery name as it is spelled.
fn is_raw(name: &str, raw: &BTreeSet<String>) -> bool {
    let own = name.strip_prefix('_').unwrap_or(name);
    let after_port = name.split_once("._").map_or(own, |(_, rest)| rest);
    raw.iter().any(|raw| {
        let begins =
            |name: &str| name.strip_prefix(&**raw).is_some_and(|rest| rest.starts_with(['.', '-']));
        begins(name) || begins(own) || begins(after_port)
    })
}

fn is_merged(label: &str) -> bool {
    MERGED.contains(&label)
}

fn is_no_label(label: &str) -> bool {
    label.len() > 63 || label.ends_with('-')
}

/// Whether a record of mesos-dns is another with labels that can be asked for: each is the same, or one
/// of two protocols, or what was no label less one run of its octets.
fn becomes(from: &Record, to: &Record) -> bool {
    let is_one = |label: &str| ["_tcp", "_udp"].contains(&label);
    let fits = |(from, to): (&str, &str)| {
        let lacks = |at: usize| from.starts_with(&to[..at]) && from.ends_with(&to[at..]);
        from == to
            || is_merged(from) && is_one(to)
            || is_no_label(from) && (0..=to.len()).any(lacks)
    };
    (&from.rtype, from.value()) == (&to.rtype, to.value())
        && from.labels().count() == to.labels().count()
        && from.labels().zip(to.labels()).all(fits)
}

impl Compared {
    /// Whether it comes for one that goes and has such a label.
    fn replaces(&self, new: &Record, such: fn(&str) -> bool) -> bool {
        self.gone.iter().any(|gone| gone.labels().any(such) && becomes(gone, new))
    }

    /// The reasons for a difference, by their place.
    fn reasons(&self) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        let mut unexplained = Vec::new();
        let gone = self.gone.iter().map(|record| (record, true));
        for (record, is_gone) in gone.chain(self.new.iter().map(|record| (record, false))) {
            let explains = |it: &Difference| if is_gone { it.gone } else { it.new }(record, self);
            let reasons: Vec<usize> =
                (0..PERMITTED.len()).filter(|at| explains(&PERMITTED[*at])).collect();
            if reasons.is_empty() {
                unexplained.push(if is_gone { ("gone", record) } else { ("new", record) });
            }
            all.extend(reasons);
        }
        assert!(unexplained.is_empty(), "{} {unexplained:?}", unexplained.len());
        all
    }
}

/// A case, and the mesos-dns that ran on it.
struct Case {
    folder: PathBuf,
    settings: Value,
    /// As mesos-dns was shown it.
    state: String,
    records: String,
}

impl Case {
    fn of(folder: &Path) -> Option<Case> {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        // Only the health of two tasks is another there, at which mesos-dns does not look.
        let unhealthy = || {
            let same = folder.ends_with("real-mesos-two-unhealthy");
            let other = folder.with_file_name("real-mesos-running/mesos-dns.txt");
            same.then(|| std::fs::read_to_string(other).unwrap())
        };
        let records = read("mesos-dns.txt").or_else(unhealthy)?;
        let state = read("state.json").unwrap();
        // What was recorded at 25050 was shown to mesos-dns at its port; and what `localhost` is
        // differs from machine to machine.
        let state = state.replace("master@127.0.0.1:25050", "master@127.0.0.1:5050");
        let state = state.replace("@localhost:", "@127.0.0.1:");
        let settings = serde_json::from_str(&read("case.json").unwrap()).unwrap();
        Some(Case { folder: folder.to_owned(), settings, state, records })
    }

    /// The configuration of mesos-dns.
    fn config(&self) -> String {
        let case = &self.settings;
        json!({
            "Domain": case["domain"], "Masters": case["masters"], "IPSources": case["ip_sources"],
            "EnforceRFC952": case["rules"] == "rfc952", "SRVRecordDefaultWeight": case["weight"],
        })
        .to_string()
    }

    fn odd(&self) -> Odd {
        let rules = match self.settings["rules"] == "rfc952" {
            true => LabelRules::Rfc952,
            false => LabelRules::Rfc1123,
        };
        let label =
            |text: &str| String::from_utf8(Label::of(text, rules).as_bytes().into()).unwrap();
        let state: Value = serde_json::from_str(&self.state).unwrap();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut odd = Odd::default();
        for framework in list(&state["frameworks"]) {
            let name = label(framework["name"].as_str().unwrap_or_default());
            let scheduler = Endpoint::parse_pid(framework["pid"].as_str().unwrap_or_default());
            if let (true, Some(scheduler)) = (["slave", "leader"].contains(&&*name), scheduler) {
                odd.captors.insert((name, scheduler.host.to_string()));
            }
        }
        for task in list(&state["frameworks"]).iter().flat_map(|f| list(&f["tasks"])) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let discovery = text(&task["discovery"]["name"]);
            if label(&discovery) != discovery {
                // As the recording writes it.
                odd.raw.insert(discovery.to_lowercase().replace('\t', "\\009"));
            }
            let name = label(&text(&task["name"]));
            let ports = text(&task["resources"]["ports"]);
            if ports.split(',').any(|range| range.matches('-').count() > 1) {
                odd.ranges.insert(name.clone());
            }
            if text(&task["slave_id"]).is_empty() {
                odd.astray.insert(name);
            }
        }
        odd
    }

    /// Imports the configuration, publishes into a new BIND, and compares what it says.
    fn compare(&self) -> Compared {
        let many = "max-records-per-type 0;";
        let site = Site::start(Peer::Bind, &Setup { extra: many, ..Setup::default() });
        // Not the address that mesos-dns told as its own.
        let own = "update delete ns1.mesos A\nupdate add ns1.mesos 60 A 10.0.0.53";
        site.peer.nsupdate(own);
        let (old, state) = (site.path("config.json"), site.path("state.json"));
        std::fs::write(&old, self.config()).unwrap();
        std::fs::write(&state, &self.state).unwrap();
        let imported = site.run(&["import", old.to_str().unwrap()]).exits(0).stdout;
        std::fs::write(site.config(), published(&imported, &site)).unwrap();
        let said = site.run(&["sync", "--state", state.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{}: {said:#?}", self.folder.display());
        let before = Record::all(&self.records);
        let after = Record::all(&site.published(&[]));
        let gone: BTreeSet<Record> = before.difference(&after).cloned().collect();
        let new = after.difference(&before).cloned().collect();
        let kept = before
            .difference(&gone)
            .map(|record| format!("{}\t{}\t{}\n", record.name, record.rtype, record.rdata));
        let mut connection = connect(site.peer.addr());
        for (question, right) in questions(&kept.collect::<String>()) {
            let said = ask_over(&mut connection, &question);
            // What has come beside it is among the new.
            let all = right.iter().all(|rdata| said.rdata.contains(rdata));
            assert!(said.is_found() && all, "{question:?}: {said:?}, and {right:?} is right");
        }
        Compared { gone, new, odd: self.odd() }
    }
}

/// The imported configuration with the target that is ready in it, and without the server.
#[track_caller]
fn published(imported: &str, site: &Site) -> String {
    let (before, after) = imported.split_once("#[[target]]").expect("a target");
    let (block, _) = after.split_once("\n\n").expect("its end");
    let block = block.replace("\n#", "\n").replace("10.0.0.53:53", &site.peer.addr().to_string());
    let key = site.peer.key_file().display().to_string();
    format!("{before}[[target]]{}\n", block.replace("/etc/mesozone/bind.key", &key))
}

#[test]
fn every_name_of_mesos_dns_is_the_same_but_for_reasons_that_are_told() {
    let mut occur = BTreeSet::new();
    let cases: Vec<Case> = folders().iter().filter_map(|folder| Case::of(folder)).collect();
    assert!(cases.len() >= 9, "the shipped cases are missing");
    for case in cases {
        occur.extend(case.compare().reasons());
    }
    let never = (0..PERMITTED.len()).filter(|at| !occur.contains(at));
    let never: Vec<&str> = never.map(|at| PERMITTED[at].reason).collect();
    assert!(never.is_empty(), "{never:#?}");
}

#[test]
fn the_guide_tells_every_reason_and_no_other() {
    let guide = example("migration/README.md");
    let (_, table) = guide.split_once("|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let told: Vec<&str> = rows.map(|row| row.split(" | ").next().unwrap()).collect();
    assert_eq!(told.len(), PERMITTED.len(), "{told:#?}");
    for difference in &PERMITTED {
        let tells = |row: &&str| row.contains(difference.told);
        assert!(told.iter().any(tells), "{} is not told: {told:#?}", difference.reason);
    }
}

#[test]
fn a_zone_file_with_many_agents_is_loaded_as_the_guide_has_it() {
    let guide = example("migration/README.md");
    let limit = guide.lines().find(|line| line.contains("max-records-per-type 0;")).unwrap();
    let agents: String = (0..150).map(|n| format!("slave A 10.3.0.{n}\n")).collect();
    let bind = Peer::Bind.start(&Setup { records: &agents, extra: limit, ..Setup::default() });
    assert_eq!(bind.query("slave.mesos", "A").len(), 150);
}
