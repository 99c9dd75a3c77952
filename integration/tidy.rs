//! Holds the code to its own order: the map in `src/lib.rs`, what pure files may not know, sizes.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// What a pure file may not mention, and what it is.
const IMPURE: [(&str, &str); 12] = [
    ("tokio::", "a runtime"),
    ("tracing::", "a log"),
    ("SystemTime::now", "a clock"),
    ("Instant", "a clock"),
    ("TcpStream", "a socket"),
    ("UdpSocket", "a socket"),
    ("std::fs", "a file"),
    ("std::env", "the environment"),
    ("Mutex", "a lock"),
    ("RwLock", "a lock"),
    ("getrandom", "randomness"),
    ("async fn", "waiting"),
];

struct Source {
    name: String,
    /// Without its tests and comments.
    code: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources() -> Vec<Source> {
    let files = fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let source = |path: PathBuf| {
        let text = read(&path);
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        Source { name, code: code.map(|line| format!("{line}\n")).collect() }
    };
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.map(source).filter(|source| !["lib", "main"].contains(&source.name.as_str())).collect()
}

/// The modules as the map lists them: the pure ones, then the shells.
fn map() -> (Vec<String>, Vec<String>) {
    let text = read(&root().join("src/lib.rs"));
    let (pure, shells) = text.split_once("Then the shells").expect("the map has two parts");
    let listed = |part: &str| {
        let names = part.lines().filter_map(|line| line.strip_prefix("//! - [`")?.split_once('`'));
        names.map(|(name, _)| name.to_owned()).collect()
    };
    (listed(pure), listed(shells))
}

#[test]
fn the_map_lists_every_module_once() {
    let (pure, shells) = map();
    let mut listed = [pure, shells].concat();
    listed.sort();
    let mut there: Vec<String> = sources().into_iter().map(|source| source.name).collect();
    there.sort();
    assert_eq!(listed, there);
}

#[test]
fn a_file_uses_only_files_above_it() {
    let (pure, shells) = map();
    let order = [pure, shells].concat();
    let place = |name: &str| order.iter().position(|listed| listed == name);
    for source in sources() {
        for after in source.code.split("crate::").skip(1) {
            let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
            let used = &after[..end];
            assert!(place(used) < place(&source.name), "{} uses {used}, below it", source.name);
        }
    }
}

#[test]
fn pure_files_know_no_socket_clock_log_lock_or_chance() {
    let (pure, _) = map();
    for source in sources().iter().filter(|source| pure.contains(&source.name)) {
        for (word, what) in IMPURE {
            assert!(!source.code.contains(word), "{} knows {what}: {word}", source.name);
        }
    }
}

#[test]
fn one_sitting_reads_a_file_and_one_look_a_function() {
    for source in sources() {
        let count = source.code.lines().count();
        assert!(count <= LINES_MAX, "{} has {count} lines of code", source.name);
        let mut start = None;
        for (at, line) in source.code.lines().enumerate() {
            let head = line.trim_start();
            let is_head = ["fn ", "pub fn ", "pub(crate) fn ", "async fn ", "pub async fn "];
            if is_head.iter().any(|word| head.starts_with(word)) {
                start = Some((at, line.len() - head.len(), head.to_owned()));
            }
            let Some((from, indent, name)) = &start else { continue };
            if *line == format!("{}}}", " ".repeat(*indent)) {
                let length = at - from + 1;
                assert!(length <= FUNCTION_LINES_MAX, "{}: {name} has {length} lines", source.name);
                start = None;
            }
        }
    }
}
