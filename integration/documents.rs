//! What the documents say is so: configurations are parsed, commands run, output compared.

mod coverage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use mesozone::config::Config;
use serde_json::Value;

use crate::peer::{Peer, Setup, example};
use crate::site::{Site, state};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[track_caller]
fn parse(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What the configuration of all keys says without those that have a default.
const LEAST: &str = r#"
    [mesos]
    masters = ["http://10.0.0.1:5050", "http://10.0.0.2:5050"]
    [[target]]
    name = "bind"
    server = "10.0.0.53"
    tsig_key_file = "/etc/mesozone/bind.key"
    [server]
    listen = ["10.0.0.2:53"]
    [http]
"#;

#[test]
fn the_configuration_of_all_keys_shows_the_defaults() {
    let (all, least) = (parse(&example("mesozone.toml")), parse(LEAST));
    assert_eq!(format!("{all:#?}"), format!("{least:#?}"));
}

#[test]
fn what_the_configuration_of_all_keys_has_commented_out_is_valid() {
    let text = example("mesozone.toml");
    let is_key = |line: &str| line.starts_with("# ") && line.contains(" = ");
    let keys: Vec<&str> = text.lines().filter(|line| is_key(line)).collect();
    assert_eq!(keys.len(), 12, "{keys:?}");
    // Some of them are for an election.
    let text = text.replace("# election = ", "election = ");
    for key in keys {
        let with = text.replace(key, &key[2..]);
        let by_tls = with.replace("\"tcp\"", "\"tls\"").replace("# ca_file", "ca_file");
        parse(if ["# ca_file", "# tls_name"].iter().any(|of_tls| key.starts_with(of_tls)) {
            &by_tls
        } else {
            &with
        });
    }
}

/// The words between backticks in what the parser says of a key it does not know.
fn keys_of(text: &str) -> BTreeSet<String> {
    let error = Config::parse(text).expect_err("an unknown key").to_string();
    let known = error.split("expected ").nth(1).unwrap_or_else(|| panic!("{error}"));
    let known = known.split("did you mean").next().unwrap_or(known);
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_configuration_of_all_keys_has_every_key() {
    let text = example("mesozone.toml");
    let unknown = |table: &str| text.replace(table, &format!("{table}\nunknown = 0\n"));
    let mut keys = keys_of(&format!("unknown = 0\n{text}"));
    for table in ["[mesos]", "[zone]", "[[target]]", "[server]", "[http]", "[ha]"] {
        keys.extend(keys_of(&unknown(table)));
    }
    keys.extend(keys_of(&text.replace("rname = ", "unknown = 0, rname = ")));
    keys.extend(keys_of(&text.replace("include = ", "unknown = 0, include = ")));
    let with = |line: &str| text.replace("[mesos]", &format!("[mesos]\n{line}"));
    keys.extend(keys_of(&with("auth = { unknown = 0 }")));
    keys.extend(keys_of(&with("tls = { unknown = 0 }")));
    assert!(keys.len() > 35, "{keys:?}");
    for key in keys {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        assert!(words.into_iter().any(|word| word == key), "{key} is missing");
    }
}

#[test]
fn every_example_configuration_is_one() {
    let files = tomls(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        parse(&std::fs::read_to_string(&file).unwrap());
    }
}

#[test]
fn the_targets_that_the_examples_describe_are_those_of_tls_and_of_a_reverse_zone() {
    let blocks = blocks(&read("examples/README.md"), "toml");
    let targets = blocks.iter().filter(|block| block.starts_with("[[target]]"));
    let [tls, reverse] = &*targets.collect::<Vec<_>>() else { panic!("two targets") };
    let more = "[zone]\nreverse = [\"10.in-addr.arpa\"]\n";
    let config = parse(&[LEAST, reverse, more].concat());
    let zones: Vec<String> = config.targets.iter().map(|t| t.scope.zone.to_string()).collect();
    assert_eq!(zones, ["mesos.", "10.in-addr.arpa."]);
    let named = LEAST.replace("\"bind\"", "\"other\"");
    assert!(parse(&[&named, &***tls].concat()).targets[1].tls.is_some());
}

fn tomls(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (dirs, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let here = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "toml"));
    here.chain(dirs.iter().flat_map(|dir| tomls(dir))).collect()
}

/// The fenced blocks of a document in this language.
pub(crate) fn blocks(document: &str, language: &str) -> Vec<String> {
    let all = fenced(document).into_iter();
    all.filter(|(its, _)| *its == language).map(|(_, block)| block).collect()
}

/// The fenced blocks of a document, each with its language.
fn fenced(document: &str) -> Vec<(&str, String)> {
    let (mut found, mut inside): (Vec<(&str, String)>, _) = (Vec::new(), None);
    for line in document.lines() {
        match (line.strip_prefix("```"), &mut inside) {
            (Some(language), None) => inside = Some((language, String::new())),
            (Some(_), Some(_)) => found.extend(inside.take()),
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(inside.is_none(), "a block without an end");
    found
}

/// A site as README has it: its configuration, and a printer in the zone.
fn of_readme(readme: &str) -> Site {
    let records = "printer A 10.0.0.7";
    let site = Site::start(Peer::Bind, &Setup { records, ..Setup::default() });
    let [config] = &*blocks(readme, "toml") else { panic!("one configuration") };
    parse(config);
    let changes = [
        (README_SERVER, site.peer.addr().to_string()),
        ("/etc/mesozone/bind.key", site.peer.key_file().display().to_string()),
    ];
    let ours = changes.iter().fold(config.clone(), |config, (from, to)| {
        assert!(config.contains(from), "no {from} in {config}");
        config.replace(from, to)
    });
    std::fs::write(site.config(), ours).unwrap();
    site
}

const README_SERVER: &str = "10.0.0.53:53";

#[test]
fn the_first_contact_of_the_readme_is_what_the_program_prints() {
    let readme = read("README.md");
    let site = of_readme(&readme);
    let cluster = state(&[("search", &["10.1.0.1"])]);
    let printed = |args: &[&str], code| {
        let said = site.with(&cluster, args).exits(code).stdout;
        said.replace(&site.peer.addr().to_string(), README_SERVER)
    };
    let [diff, approve] = &*blocks(&readme, "console") else { panic!("two commands") };
    let command = approve.lines().next().unwrap();
    let id = command.strip_prefix("$ mesozone sync --approve ").unwrap();

    let planned = printed(&["diff"], 1);
    let shown = readme.replace(diff, &format!("$ mesozone diff\n{planned}"));
    assert_eq!(printed(&["sync"], 1), planned, "the same lines");
    printed(&["sync", "--approve", "000000000000"], 1);
    assert_eq!(site.peer.query("printer.mesos", "A"), ["10.0.0.7"]);
    let adopted = printed(&["sync", "--approve", id], 0);
    golden("README.md", &shown.replace(approve, &format!("{command}\n{adopted}")));
    assert!(site.peer.query("printer.mesos", "A").is_empty());
    printed(&["diff"], 0);
}

/// Compares with a committed file; `GOLDEN_UPDATE=always` writes it.
#[track_caller]
pub(crate) fn golden(path: &str, text: &str) {
    if std::env::var_os("GOLDEN_UPDATE").is_some_and(|how| how == "always") {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), text).unwrap();
    }
    let committed = read(path);
    let differs = committed.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(committed == text, "{path}: first difference {differs:#?}\n{text}");
}

#[test]
fn the_zone_of_the_readme_is_that_of_the_examples() {
    let readme = read("README.md");
    let shipped: Vec<String> =
        example("bind/named.conf.local").lines().map(|line| line.trim().to_owned()).collect();
    let zone = blocks(&readme, "").into_iter().find(|block| block.contains("update-policy"));
    for line in zone.expect("BIND's side").lines() {
        assert!(shipped.iter().any(|have| have == line.trim()), "{line}");
    }
}

#[test]
fn what_the_readme_names_is_there() {
    let readme = read("README.md");
    assert!(readme.lines().count() < 205);
    let help = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mesozone")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let every = ["run", "diff", "sync", "records", "check", "approve", "import", "completions"]
        .map(|command| help(&[command, "--help"]))
        .concat();
    for (_, document) in coverage::documents() {
        for option in document.split([' ', '`', '\n']).filter(|word| word.starts_with("--")) {
            // Cargo's, and one of Mesos.
            let is_others = ["--release", "--example", "--", "--help"].contains(&option)
                || option == "--max_operator_event_stream_subscribers";
            let option = option.trim_end_matches(['.', ',', ':']);
            assert!(is_others || every.contains(option), "{option} is no option");
        }
    }
    for command in blocks(&readme, "sh").concat().lines() {
        let program = command.split_whitespace().next().unwrap();
        let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(program).exists();
        assert!(there || program == "mesozone", "{command}");
    }
}

/// The keys of a JSON value, all of its levels.
fn json_keys(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(members) => {
            let below = members.values().flat_map(json_keys);
            members.keys().cloned().chain(below).collect()
        }
        Value::Array(items) => items.iter().flat_map(json_keys).collect(),
        _ => BTreeSet::new(),
    }
}

#[test]
fn json_has_the_shape_that_is_documented() {
    let document = read("examples/json.md");
    let shapes: Vec<Value> =
        blocks(&document, "json").iter().map(|b| serde_json::from_str(b).unwrap()).collect();
    let [records_shape, diff_shape] = &*shapes else { panic!("two shapes") };
    let tables: Vec<&str> = document.split("## `mesozone ").skip(1).collect();
    for (shape, table) in shapes.iter().zip(tables) {
        for key in json_keys(shape) {
            assert!(table.contains(&format!("`{key}`")), "{key} has no explanation");
        }
    }
    let site = of_readme(&read("README.md"));
    let addresses: Vec<String> = (0..120).map(|n| format!("10.1.1.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let crowd =
        state(&[("search", &["10.1.0.1"]), ("crowd", &addresses), ("vip-a", &["10.1.0.2"])]);
    let config = std::fs::read_to_string(site.config()).unwrap();
    let config = config.replace("vip-*.mesos", "vip-*.marathon.mesos");
    std::fs::write(site.config(), config + "rrset_max = 100\n").unwrap();
    let json = |command| -> Value {
        let said = site.with(&crowd, &[command, "--format", "json"]).stdout;
        serde_json::from_str(&said.replace(&site.peer.addr().to_string(), README_SERVER)).unwrap()
    };
    let (records, diff) = (json("records"), json("diff"));
    assert_eq!(json_keys(&records), json_keys(records_shape));
    assert!(records["records"].as_array().unwrap().contains(&records_shape["records"][0]));
    assert_eq!(json_keys(&diff), json_keys(diff_shape));
    // Every entry of the document's lists is in the real ones.
    for (key, shown) in diff_shape["targets"][0].as_object().unwrap() {
        let real = &diff["targets"][0][key];
        match shown {
            Value::Array(shown) => {
                let real = real.as_array().unwrap();
                shown.iter().for_each(|entry| assert!(real.contains(entry), "{entry} {real:#?}"));
            }
            shown => assert_eq!(shown, real, "{key}"),
        }
    }
}
