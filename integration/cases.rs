//! The states of `fixtures/cases`, each with the exact records that the naming rules make of it.
//! Where `MESOZONE_CASES` names a folder of further cases, those run too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesozone::catalog::Catalog;
use mesozone::cluster::{Endpoint, Numbered, Visibility};
use mesozone::glob::Glob;
use mesozone::records::{IpSource, LabelRules, Rules, Unhealthy};
use mesozone::selection::Selection;
use mesozone::state::StateReader;
use mesozone::zone::Zone;

#[derive(serde::Deserialize)]
struct Case {
    domain: String,
    masters: Vec<String>,
    ip_sources: Vec<String>,
    rules: String,
    weight: u16,
    unhealthy: String,
    #[serde(default)]
    reverse: Vec<String>,
    task_label: Option<String>,
    #[serde(default)]
    visibility: Vec<String>,
    /// Globs: those included, those excluded.
    frameworks: Option<(Vec<String>, Vec<String>)>,
}

impl Case {
    fn rules(&self) -> Rules {
        let source = |text: &String| match text.as_str() {
            "netinfo" => IpSource::Netinfo,
            "docker" => IpSource::Docker,
            "mesos" => IpSource::Mesos,
            "host" => IpSource::Host,
            "auto" => IpSource::Auto,
            other => panic!("unknown source {other}"),
        };
        Rules {
            ip_sources: self.ip_sources.iter().map(source).collect(),
            label_rules: match self.rules.as_str() {
                "rfc952" => LabelRules::Rfc952,
                _ => LabelRules::Rfc1123,
            },
            srv_weight: self.weight,
            unhealthy: match self.unhealthy.as_str() {
                "publish" => Unhealthy::Publish,
                _ => Unhealthy::Withhold,
            },
            reverse: self.reverse.iter().map(|zone| zone.parse().unwrap()).collect(),
            selection: self.selection(),
            ..Rules::of(self.domain.parse().unwrap())
        }
    }

    fn selection(&self) -> Selection {
        let globs =
            |texts: &[String]| texts.iter().map(|text| Glob::parse(text).unwrap()).collect();
        let visibility = self.visibility.iter().map(|word| Visibility::parse(word).unwrap());
        let all = Selection { visibility: visibility.collect(), ..Selection::default() };
        match &self.frameworks {
            None => all,
            Some((include, exclude)) => {
                Selection { include: globs(include), exclude: globs(exclude), ..all }
            }
        }
    }
}

fn records_of(folder: &Path) -> Vec<String> {
    let case: Case =
        serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let mut reader = StateReader::new(case.task_label.as_deref().map(Arc::from));
    reader.push(&std::fs::read(folder.join("state.json")).unwrap());
    let mut cluster = reader.finish().unwrap().cluster;
    let masters = case.masters.iter().map(|text| Endpoint::parse(text).unwrap());
    cluster.masters = Numbered::Told(masters.collect());
    cluster.resolve(&[("localhost".into(), vec!["127.0.0.1".parse().unwrap()])].into());
    let mut catalog = Catalog::new(case.rules(), Duration::ZERO);
    catalog.update(cluster, Duration::ZERO);
    let reverse = catalog.reverse();
    let zones = [catalog.zone()].into_iter().chain(reverse.values());
    let mut lines: Vec<String> = zones
        .flat_map(Zone::records)
        .map(|(key, _, rdata)| format!("{}\t{}\t{rdata}", key.name, key.rtype))
        .collect();
    lines.sort();
    lines
}

pub(crate) fn folders() -> Vec<PathBuf> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/cases");
    let further = std::env::var_os("MESOZONE_CASES").map(PathBuf::from);
    let within =
        |root: PathBuf| std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let all = within(shipped).chain(further.into_iter().flat_map(within));
    all.filter(|folder| folder.join("records.txt").exists()).collect()
}

#[test]
fn every_case_makes_exactly_its_records() {
    let folders = folders();
    assert!(folders.len() >= 8, "the shipped cases are missing");
    for folder in folders {
        let expected = std::fs::read_to_string(folder.join("records.txt")).unwrap();
        let expected: Vec<&str> = expected.lines().collect();
        let made = records_of(&folder);
        let missing: Vec<&&str> =
            expected.iter().filter(|line| !made.iter().any(|m| m == *line)).collect();
        let extra: Vec<&String> =
            made.iter().filter(|line| !expected.contains(&line.as_str())).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{}: missing {missing:#?} extra {extra:#?}",
            folder.display()
        );
    }
}
