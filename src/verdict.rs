//! What is wrong, what waits for somebody, and what to do about it: the first thing that is read
//! at night.

use std::time::Duration;

use crate::fence::Adoption;
use crate::findings::Level;
use crate::health::{Condition, Health, Outlook, age};
use crate::held::{HeldSet, PlanId, Why};
use crate::overview::{Approvals, Overview};
use crate::report::uncertainty;
use crate::shown::{many, number, span};
use crate::snapshot::Completeness;

/// A zone that is behind for longer is told of.
const LAG_MAX: Duration = Duration::from_secs(60);

/// One thing to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Matter {
    /// A failure is wrong now; a warning is held back or late; what is well needs nobody.
    pub level: Level,
    pub text: String,
    /// What to do; empty where there is nothing.
    pub remedy: String,
    /// Where on the page there is more of it.
    pub place: String,
}

/// Where on the page a target is, by its place in the configuration.
pub fn place_of_target(at: usize) -> String {
    format!("target-{at}")
}

/// Where on the page a held set is.
pub fn place_of_held(id: PlanId) -> String {
    format!("held-{id}")
}

/// Everything of which there is something to say, the worst first.
pub fn matters(overview: &Overview) -> Vec<Matter> {
    let mut matters: Vec<Matter> = masters(overview).into_iter().collect();
    for (at, health) in overview.targets.iter().enumerate() {
        let told = trouble(overview, health).into_iter().chain(held(overview, health));
        let told = told.chain(withheld(health)).chain(standing_by(health));
        let place = || place_of_target(at);
        matters.extend(told.map(|matter| match matter.place.is_empty() {
            true => Matter { place: place(), ..matter },
            false => matter,
        }));
    }
    matters.extend(recovering(overview));
    matters.extend(skipped(overview));
    matters.sort_by_key(|matter| std::cmp::Reverse(matter.level));
    matters
}

/// Everything in a few words, as the title of a window has it.
pub fn headline(overview: &Overview, matters: &[Matter]) -> String {
    let count = |level| matters.iter().filter(|matter| matter.level == level).count();
    match (count(Level::Failure), count(Level::Warning)) {
        (0, 0) if overview.snapshot.is_none() => "starting".to_owned(),
        (0, 0) => "all well".to_owned(),
        (wrong, 0) => many(wrong, "problem"),
        (0, 1) => "1 thing waits".to_owned(),
        (0, waiting) => format!("{} things wait", number(waiting)),
        (wrong, waiting) => format!("{}, {} waiting", many(wrong, "problem"), number(waiting)),
    }
}

impl Matter {
    fn new(level: Level, text: String, remedy: impl Into<String>) -> Matter {
        Matter { level, text, remedy: remedy.into(), place: String::new() }
    }

    fn at(self, place: impl Into<String>) -> Matter {
        Matter { place: place.into(), ..self }
    }
}

fn masters(overview: &Overview) -> Option<Matter> {
    let (text, since) = overview.trouble.as_ref()?;
    let (what, remedy) = match overview.snapshot {
        Some(_) => (
            "No master gives its state",
            "Names stay as they were last told. See whether a Mesos master leads; `mesozone check` \
             says what each of them answers.",
        ),
        None => (
            "No master has given its state yet",
            "Nothing is published before one does. `mesozone check` says what each of them answers.",
        ),
    };
    let text = format!("{what}, for {}: {text}", span(*since));
    Some(Matter::new(Level::Failure, text, remedy).at("cluster"))
}

fn trouble(overview: &Overview, health: &Health) -> Option<Matter> {
    let Health { target, server, zone, .. } = health;
    let last = health.trouble_text().map(|text| format!(": {text}"));
    let last = last.unwrap_or_default();
    let remedy = format!(
        "The zone there stays as it is, and mesozone goes on trying. `mesozone check --target \
         {target}` says what is wrong."
    );
    match health.condition {
        Condition::Failing(since) => {
            let since = span(age(since, overview.now));
            let text = format!(
                "Target {target} (zone {zone} on {server}) has been failing for {since}{last}"
            );
            Some(Matter::new(Level::Failure, text, remedy))
        }
        Condition::Starting(_) if overview.snapshot.is_some() => {
            let text =
                format!("Target {target} (zone {zone} on {server}) is not reached yet{last}");
            Some(Matter::new(Level::Warning, text, ""))
        }
        Condition::Well => {
            let lag = health.lag(overview.told_at(), overview.now);
            (lag >= LAG_MAX).then(|| {
                let text = format!("The zone of target {target} is {} behind", span(lag));
                let remedy = "See whether the name server is slow, or down now and then.";
                Matter::new(Level::Warning, text, remedy)
            })
        }
        _ => None,
    }
}

fn held(overview: &Overview, health: &Health) -> impl Iterator<Item = Matter> {
    health.held().iter().filter_map(|set| {
        let id = set.id?;
        let text = format!("{}: {}", held_line(&health.target, set), set.why);
        let remedy = match set.why {
            Why::FirstContact => {
                "They stay until somebody looks. Name what shall stay under `protect`, then approve \
                 the rest."
            }
            _ => {
                "Their names still resolve. Find out first whether the cluster really lost that \
                 much; only then approve."
            }
        };
        let how = match overview.approvals {
            Approvals::WithToken => "",
            Approvals::Off => " Approving needs a `token_file` under `[http]`, and there is none.",
        };
        let matter = Matter::new(Level::Warning, text, format!("{remedy}{how}"));
        Some(matter.at(place_of_held(id)))
    })
}

fn held_line(target: &str, set: &HeldSet) -> String {
    let wait = if set.entries.len() == 1 { "waits" } else { "wait" };
    format!("{} on target {target} {wait} for an approval", many(set.entries.len(), "removal"))
}

fn withheld(health: &Health) -> Vec<Matter> {
    let Some(Outlook { withheld, adoption, completeness, .. }) = &health.outlook else {
        return Vec::new();
    };
    let (target, mut matters) = (&health.target, Vec::new());
    if !withheld.refused.is_empty() {
        let text = format!("Target {target} refuses {}", many(withheld.refused.len(), "name"));
        let remedy = "They stay as they are, and are tried again now and then. The log of the name \
                      server says why it refuses them.";
        matters.push(Matter::new(Level::Warning, text, remedy));
    }
    if completeness.is_complete() && !withheld.recovering.is_empty() {
        let removals = many(withheld.recovering.len(), "removal");
        let text = format!("{removals} on target {target} wait: {}", uncertainty(*completeness));
        let remedy = "They go on by themselves once it can be resolved, or is no longer named.";
        matters.push(Matter::new(Level::Warning, text, remedy));
    }
    if !withheld.blocked.is_empty() {
        let sets = many(withheld.blocked.len(), "desired RRset");
        let text = format!("{sets} are not published on target {target}: not ours there");
        matters.push(Matter::new(Level::Well, text, ""));
    }
    if !withheld.cut.is_empty() {
        let sets = many(withheld.cut.len(), "RRset");
        let text = format!("{sets} are cut on target {target}: its server takes no more of them");
        matters.push(Matter::new(Level::Well, text, ""));
    }
    if *adoption == Adoption::FirstContact && withheld.held.is_empty() {
        let text = format!("The zone of target {target} is not adopted yet: nothing is removed");
        matters.push(Matter::new(Level::Well, text, ""));
    }
    matters
}

fn standing_by(health: &Health) -> Option<Matter> {
    let Condition::StandingBy(why) = &health.condition else { return None };
    let text = format!("Target {} is left to another publisher: {why}", health.target);
    Some(Matter::new(Level::Well, text, ""))
}

fn recovering(overview: &Overview) -> Option<Matter> {
    let snapshot = overview.snapshot.as_ref()?;
    let Completeness::Recovering(why) = snapshot.completeness else { return None };
    let outlooks = overview.targets.iter().filter_map(|health| health.outlook.as_ref());
    let waiting: usize = outlooks.map(|outlook| outlook.withheld.recovering.len()).sum();
    let removals = match waiting {
        0 => "no removal has to wait so far".to_owned(),
        1 => "1 removal waits".to_owned(),
        _ => format!("{} removals wait", number(waiting)),
    };
    let text = format!("The cluster is recovering, {why}: {removals}");
    let remedy = "Nobody has to do anything: new names are published, and removals go on once it \
                  is whole again, or after `failover_hold`.";
    Some(Matter::new(Level::Warning, text, remedy).at("cluster"))
}

fn skipped(overview: &Overview) -> Option<Matter> {
    let count = overview.skipped_count();
    (count > 0).then(|| {
        let text = format!(
            "{} in the state of the cluster make fewer records than they would",
            many(count, "thing")
        );
        Matter::new(Level::Well, text, "").at("skipped")
    })
}
