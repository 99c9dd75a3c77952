//! No block of any document is left over: each is run, parsed or compared by a test that is named
//! here, and a document that gets one more fails until it says by whom.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{LEAST, fenced, parse};

/// So many blocks of a language in a document, and the tests that need all of them to be right.
struct Held {
    document: &'static str,
    language: &'static str,
    count: usize,
    by: &'static [&'static str],
}

const fn held(
    document: &'static str,
    language: &'static str,
    count: usize,
    by: &'static [&'static str],
) -> Held {
    Held { document, language, count, by }
}

const README: &str = "README.md";
const EXAMPLES: &str = "examples/README.md";
const MIGRATION: &str = "examples/migration/README.md";
const OPERATIONS: &str = "examples/operations/README.md";

const HELD: [Held; 14] = [
    // `integration/test` is what runs these; `integration/hunt` runs the claims for ten minutes
    // that these try on a few cases.
    held(
        README,
        "sh",
        2,
        &[
            "the_quickstart_shows_what_it_says",
            "what_the_readme_names_is_there",
            "names_follow_tasks",
        ],
    ),
    held(README, "console", 2, &["the_first_contact_of_the_readme_is_what_the_program_prints"]),
    held(README, "toml", 1, &["the_first_contact_of_the_readme_is_what_the_program_prints"]),
    held(README, "", 1, &["the_zone_of_the_readme_is_that_of_the_examples"]),
    held(
        EXAMPLES,
        "toml",
        3,
        &[
            "the_targets_that_the_examples_describe_are_those_of_tls_and_of_a_reverse_zone",
            "the_bundled_server_of_the_examples_answers_and_bind_has_the_zone_from_it",
        ],
    ),
    held(
        EXAMPLES,
        "",
        1,
        &["the_bundled_server_of_the_examples_answers_and_bind_has_the_zone_from_it"],
    ),
    held("examples/json.md", "json", 2, &["json_has_the_shape_that_is_documented"]),
    held(MIGRATION, "sh", 11, &["who_follows_the_guide_changes_no_answer"]),
    held(MIGRATION, "", 2, &["who_follows_the_guide_changes_no_answer"]),
    held(
        OPERATIONS,
        "sh",
        11,
        &[
            "every_section_with_commands_is_played",
            "the_first_look_shows_what_is_held_and_an_approval_lets_it_go",
            "what_was_found_at_first_contact_is_let_go_without_http",
            "a_fence_is_looked_at_and_taken_over_by_the_name_of_its_owner",
            "a_frozen_zone_is_thawed_and_what_waited_is_published",
            "a_key_is_rotated_without_a_refused_message",
            "what_is_protected_from_now_on_stays_and_what_is_not_any_more_is_ours",
            "a_new_primary_is_filled_beside_the_old_one_which_stays_as_it_is",
            "what_was_published_is_removed_and_nothing_else",
        ],
    ),
    held(OPERATIONS, "", 1, &["a_key_is_rotated_without_a_refused_message"]),
    held(
        OPERATIONS,
        "toml",
        1,
        &["a_new_primary_is_filled_beside_the_old_one_which_stays_as_it_is"],
    ),
    held(
        "examples/split-horizon/README.md",
        "sh",
        1,
        &["two_processes_publish_into_the_two_views_of_a_split_horizon"],
    ),
    held("examples/two-clusters/README.md", "", 1, &["a_cluster_has_a_delegated_zone_of_its_own"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder whose names end so.
fn below(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (dirs, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let here = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == extension));
    here.chain(dirs.iter().flat_map(|dir| below(dir, extension))).collect()
}

/// Every document, by its path in the repository.
pub(super) fn documents() -> BTreeMap<String, String> {
    let top = ["README.md", "CHANGELOG.md"].map(|name| root().join(name)).into_iter();
    let others = ["examples", "integration"].map(|dir| below(&root().join(dir), "md"));
    let all = top.chain(others.into_iter().flatten());
    all.map(|path| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    })
    .collect()
}

#[test]
fn no_block_of_a_document_is_left_over() {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (document, text) in documents() {
        for (language, _) in fenced(&text) {
            *counts.entry((document.clone(), language.to_owned())).or_default() += 1;
        }
    }
    for held in &HELD {
        let at = (held.document.to_owned(), held.language.to_owned());
        assert_eq!(counts.remove(&at).unwrap_or(0), held.count, "{at:?}");
    }
    assert!(counts.is_empty(), "held by no test: {counts:?}");
}

#[test]
fn the_tests_that_hold_the_documents_are_there() {
    let sources = below(&root().join("integration"), "rs");
    let sources: String = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    for test in HELD.iter().flat_map(|held| held.by) {
        assert!(sources.contains(&format!("#[test]\nfn {test}()")), "no test {test}");
    }
}

#[test]
fn every_configuration_and_every_json_in_a_document_can_be_read() {
    for (document, text) in documents() {
        for (language, block) in fenced(&text) {
            match language {
                // A part goes with the least that makes a whole.
                "toml" if block.starts_with("[mesos]") => drop(parse(&block)),
                "toml" => {
                    let more = "[zone]\nreverse = [\"10.in-addr.arpa\"]\n";
                    let other = LEAST.replace("\"bind\"", "\"another\"");
                    drop(parse(&[&other, &*block, more].concat()));
                }
                "json" => {
                    let read: Result<Value, _> = serde_json::from_str(&block);
                    assert!(read.is_ok(), "{document}: {read:?}");
                }
                "sh" | "console" | "" => {}
                other => panic!("{document}: what to do with {other:?}?"),
            }
        }
    }
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for (document, text) in documents() {
        let folder = root().join(&document).parent().unwrap().to_owned();
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|link| !link.contains("://")) {
            let (path, to) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() { root().join(&document) } else { folder.join(path) };
            assert!(path.exists(), "{document}: {link}");
            if to.is_empty() {
                continue;
            }
            let target = fs::read_to_string(&path).unwrap();
            let headings = target.lines().filter(|line| line.starts_with('#'));
            let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#')));
            assert!(anchors.any(|anchor| anchor == to), "{document}: {link}");
        }
    }
}
