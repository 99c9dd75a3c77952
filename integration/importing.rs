//! `mesozone import`, from the outside.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mesozone::config::Config;

use crate::documents::golden;
use crate::site::Ran;

const SAMPLES: &str = "integration/fixtures/import";

/// Runs it where there is no configuration of ours.
fn import(file: &str, stdin: &str) -> Ran {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesozone"));
    command.args(["import", file]).current_dir(empty.path()).stdin(Stdio::piped());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    Ran::of(process.wait_with_output().unwrap())
}

#[test]
fn every_sample_becomes_what_is_committed() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join(SAMPLES);
    let files = std::fs::read_dir(samples).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    let mut names = Vec::new();
    for file in files {
        let said = import(file.to_str().unwrap(), "").exits(0);
        assert_eq!(said.stderr, "", "{}", file.display());
        let config = Config::parse(&said.stdout).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        // What mesos-dns answered by DNS, `run` does.
        assert_eq!(config.check_purpose().is_ok(), name != "iam");
        golden(&format!("{SAMPLES}/{name}.toml"), &said.stdout);
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["credentials", "everything", "iam", "minimal", "outside", "sample"]);
}

#[test]
fn a_configuration_may_come_from_standard_input() {
    let said = import("-", r#"{ "Zk": "zk://10.0.0.1/mesos" }"#).exits(0).stdout;
    assert!(said.contains("masters = [\"zk://10.0.0.1:2181/mesos\"]\n"), "{said}");
}

#[track_caller]
fn check_refused(json: &str, message: &str) {
    let said = import("-", json).exits(2);
    assert_eq!((said.one_line(), &*said.stdout), (message, ""));
}

#[test]
fn what_is_wrong_is_told_in_one_line_and_nothing_is_printed() {
    let start = "mesozone: importing standard input";
    let ttl = r#"{ "Masters": ["10.0.0.1:5050"], "ttl": "60" }"#;
    check_refused(ttl, &format!("{start}: TTL: it is a string, and a whole number is wanted"));
    let json = format!("{start}: this is no JSON: EOF while parsing an object at line 1 column 1");
    check_refused("{", &json);
    let master = format!("{start}: Masters: entry 2 is no host:port");
    check_refused(r#"{ "Masters": ["10.0.0.1:5050", "dns:hunter2@10.0.0.2"] }"#, &master);
    let missing = import("nowhere.json", "").exits(2);
    assert!(missing.one_line().starts_with("mesozone: reading nowhere.json: No such file"));
}
