//! A target on the page: how it fares, what it holds back, and the form that lets that go.

use std::fmt::Display;

use maud::{Markup, html};

use crate::fence::Adoption;
use crate::health::{Condition, Health, Outlook, age};
use crate::held::{Entry, HeldSet, PlanId, Why};
use crate::name::Name;
use crate::overview::{Approvals, Overview};
use crate::plan::{Change, Withheld};
use crate::report::uncertainty;
use crate::rr::{Rdata, Type};
use crate::shown::{Room, Shown, many, number, span};
use crate::verdict::{place_of_held, place_of_target};
use crate::zone::Key;

/// The most lines of a list of records.
const RECORDS_MAX: usize = 500;
/// The most lines of a list of names with reasons.
const REASONS_MAX: usize = 100;

/// A mark and a word, so that colour alone says nothing.
pub(crate) fn pill(class: &str, mark: &str, word: impl Display) -> Markup {
    html! {
        span class=(format!("pill {class}")) {
            span aria-hidden="true" { (mark) } " " (Shown(word))
        }
    }
}

/// Where to read on where a list ends early.
#[derive(Clone, Copy)]
pub(crate) enum Rest {
    /// All of it is at this path.
    All(&'static str),
    /// More of it is.
    More(&'static str),
    /// None of it is anywhere else.
    Untold,
}

/// A list that opens.
pub(crate) fn list(
    summary: &str,
    lines: impl Iterator<Item = Markup>,
    count: usize,
    rest: Rest,
    room: &mut Room,
) -> Markup {
    let (lines, more) = room.fit(count, lines);
    html! {
        details {
            summary { (Shown(summary)) }
            ul.lines { (lines) }
            @if more > 0 {
                p.more {
                    "and " (number(more)) " more"
                    @match rest {
                        Rest::All(path) => { ": " a href=(path) { (path) } " has all of them" }
                        Rest::More(path) => { ": " a href=(path) { (path) } " has more of them" }
                        Rest::Untold => {}
                    }
                }
            }
        }
    }
}

/// A target and how it fares, `at` the place it has in the configuration.
pub(crate) fn target(overview: &Overview, at: usize, health: &Health, room: &mut Room) -> Markup {
    html! {
        article.card id=(place_of_target(at)) {
            header {
                h3 { (Shown(&health.target)) }
                p.pills { (state(overview, health)) (holding(health)) }
            }
            dl.facts {
                (fact("Server", &health.server))
                (fact("Zone", &health.zone))
                @if let Some(outlook) = &health.outlook { (fact("Serial", outlook.serial)) }
                (fact("Lag", lag(overview, health)))
                (fact("Fence", fence(health)))
                @if let Some(outlook) = &health.outlook {
                    (fact("First contact", adoption(outlook.adoption)))
                    (fact("Changes under way", number(outlook.changes.len())))
                }
                @if health.drift_count > 0 {
                    (fact("Drift", drift(health.drift_count)))
                }
            }
            (last_error(overview, health))
            @if let Some(outlook) = &health.outlook { (lists(outlook, room)) }
        }
    }
}

pub(crate) fn fact(term: &str, value: impl Display) -> Markup {
    html! { div { dt { (term) } dd { (Shown(value)) } } }
}

fn state(overview: &Overview, health: &Health) -> Markup {
    match &health.condition {
        Condition::Starting(_) => pill("quiet", "…", "starting"),
        Condition::Well => pill("well", "✓", "well"),
        Condition::StandingBy(_) => pill("quiet", "‖", "standing by"),
        Condition::Failing(since) => {
            pill("wrong", "✕", format!("failing for {}", span(age(*since, overview.now))))
        }
    }
}

fn holding(health: &Health) -> Markup {
    match health.held_count() + health.recovering_count() {
        0 => html! {},
        count => pill("waits", "!", format!("{} held back", many(count, "record"))),
    }
}

fn lag(overview: &Overview, health: &Health) -> String {
    match &health.condition {
        Condition::StandingBy(_) => "another publishes".to_owned(),
        _ if overview.snapshot.is_none() => "nothing is desired yet".to_owned(),
        _ => match health.lag(overview.told_at(), overview.now) {
            lag if lag.is_zero() => "none".to_owned(),
            lag => span(lag),
        },
    }
}

fn fence(health: &Health) -> String {
    match (&health.condition, health.holds_fence) {
        (Condition::StandingBy(why), _) => format!("standing by: {why}"),
        (_, true) => "ours: this process publishes".to_owned(),
        (_, false) => "not ours".to_owned(),
    }
}

fn adoption(adoption: Adoption) -> &'static str {
    match adoption {
        Adoption::Adopted => "adopted",
        Adoption::FirstContact => "not adopted: nothing found there is removed",
    }
}

fn drift(count: u64) -> String {
    format!("{} changed by others since the start", many(count as usize, "record"))
}

fn last_error(overview: &Overview, health: &Health) -> Markup {
    let (Some(trouble), Some(text)) = (&health.trouble, health.trouble_text()) else {
        return html! {};
    };
    let (class, when) = match health.condition {
        Condition::Failing(_) => ("error now", "Error"),
        Condition::Starting(_) => ("error now", "Error"),
        _ => ("error", "Over now: error"),
    };
    html! {
        p class=(class) {
            b { (when) ", " (span(age(trouble.at, overview.now))) " ago: " }
            bdi { (Shown(text)) }
        }
    }
}

/// What a target changes, and what it leaves and why.
fn lists(outlook: &Outlook, room: &mut Room) -> Markup {
    let Withheld { young, blocked, cut, refused, .. } = &*outlook.withheld;
    let reasons = |count: usize, what: &str| format!("{}: {what}", many(count, "RRset"));
    html! {
        @if !outlook.changes.is_empty() {
            (changes(&format!("{} under way", many(outlook.changes.len(), "change")),
                &outlook.changes, room))
        }
        @if !refused.is_empty() {
            (list(
                &format!("Quarantined: the server refuses {}", many(refused.len(), "name")),
                refused.iter().take(REASONS_MAX).map(|refused| {
                    reason(&refused.name, format!("{}, {}", refused.rcode, tries(refused.tries)))
                }),
                refused.len(), Rest::All("/v1/status"), room,
            ))
        }
        @if !blocked.is_empty() {
            (list(
                &reasons(blocked.len(), "not published, not ours"),
                blocked.iter().take(REASONS_MAX)
                    .map(|blocked| reason(key(&blocked.key), &blocked.why)),
                blocked.len(), Rest::All("/v1/plan"), room,
            ))
        }
        @if !cut.is_empty() {
            (list(
                &reasons(cut.len(), "cut to what the server takes"),
                cut.iter().take(REASONS_MAX).map(|cut| {
                    let (published, desired) = (number(cut.published), number(cut.desired));
                    reason(key(&cut.key), format!("{published} of {desired} records"))
                }),
                cut.len(), Rest::All("/v1/plan"), room,
            ))
        }
        @if !young.is_empty() {
            (records(
                &format!("{} added by others, removed soon", many(young.len(), "record")),
                young, Rest::Untold, room,
            ))
        }
    }
}

fn tries(tries: u32) -> String {
    match tries {
        1 => "tried once".to_owned(),
        tries => format!("tried {tries} times"),
    }
}

fn key(key: &Key) -> String {
    format!("{} {}", key.name, key.rtype)
}

fn reason(what: impl Display, why: impl Display) -> Markup {
    html! { li { code { (Shown(what)) } " " span.why { (Shown(why)) } } }
}

/// A record that goes or comes.
fn sign(class: &str, sign: &str, name: &Name, rtype: Type, rdata: &Rdata) -> Markup {
    let record = format_args!("{name} {rtype} {rdata}");
    html! { li class=(class) { code { (sign) " " (Shown(record)) } } }
}

fn records(summary: &str, entries: &[Entry], rest: Rest, room: &mut Room) -> Markup {
    let line = |(key, rdata): &Entry| sign("del", "-", &key.name, key.rtype, rdata);
    let lines = entries.iter().take(RECORDS_MAX).map(line);
    list(summary, lines, entries.len(), rest, room)
}

fn changes(summary: &str, changes: &[Change], room: &mut Room) -> Markup {
    let lines = |change: &Change| -> Vec<Markup> {
        let Key { name, rtype } = &change.key;
        let gone = change.removed().map(|rdata| sign("del", "-", name, *rtype, rdata));
        let come = change.added().map(|rdata| sign("ins", "+", name, *rtype, rdata));
        gone.chain(come).collect()
    };
    let lines = changes.iter().flat_map(lines).take(RECORDS_MAX);
    let count: usize = changes.iter().map(|c| c.removed().count() + c.added().count()).sum();
    list(summary, lines, count, Rest::All("/v1/plan"), room)
}

/// What a target holds back: each set with its form, and what nobody can let go.
pub(crate) fn held(overview: &Overview, health: &Health, room: &mut Room) -> Markup {
    let Some(Outlook { withheld, completeness, .. }) = &health.outlook else { return html! {} };
    let Withheld { held, recovering, waiting, .. } = &**withheld;
    html! {
        @for set in held { (held_set(overview, health, set, room)) }
        @if !recovering.is_empty() {
            article.card.held {
                h3 {
                    (many(recovering.len(), "record")) " on " (Shown(&health.target))
                    " wait for the cluster"
                }
                p {
                    "Why: " (Shown(uncertainty(*completeness))) ". Nobody can approve these: they are \
                     removed once they are known to be gone."
                }
                (records("The records", recovering, Rest::All("/v1/plan"), room))
            }
        }
        @if !waiting.is_empty() {
            article.card.held {
                h3 {
                    (many(waiting.len(), "change")) " on " (Shown(&health.target))
                    " wait for the adoption"
                }
                p { "They are at names that were found in the zone at first contact." }
                (changes("The changes", waiting, room))
            }
        }
    }
}

fn held_set(overview: &Overview, health: &Health, set: &HeldSet, room: &mut Room) -> Markup {
    let count = many(set.entries.len(), "record");
    let advice = match set.why {
        Why::FirstContact => {
            "They were in the zone before mesozone. Name what shall stay under protect; approving \
             removes the rest and adopts the zone."
        }
        Why::Loss(_) => "They still resolve. Look at the cluster above before you let them go.",
        Why::Behind(_) => {
            "They came later, and get an id once those before them are decided about."
        }
    };
    html! {
        article.card.held id=[set.id.map(place_of_held)] {
            header {
                h3 { (count) " on " (Shown(&health.target)) }
                @if let Some(id) = set.id { p.pills { "plan " code { (id) } } }
            }
            p { "Why: " (Shown(set.why)) ". " (advice) }
            (records("The records that would go", &set.entries, Rest::All("/v1/plan"), room))
            @if let Some(id) = set.id { (approval(overview.approvals, id, set.entries.len())) }
        }
    }
}

fn approval(approvals: Approvals, id: PlanId, count: usize) -> Markup {
    let field = format!("token-{id}");
    let label = match count {
        1 => "Remove this 1 record".to_owned(),
        _ => format!("Remove these {}", many(count, "record")),
    };
    html! {
        @match approvals {
            Approvals::WithToken => {
                form.approve method="post" action=(format!("/v1/plan/{id}/approve")) {
                    label for=(field) { "Token" }
                    input #(field) type="password" name="token" required
                        autocomplete="current-password" autocapitalize="off" spellcheck="false";
                    button type="submit" { (label) }
                }
                p.hint { "Or on the command line: " code { "mesozone approve " (id) } }
            }
            Approvals::Off => {
                p.hint {
                    "Nothing can be approved here: the configuration has no " code { "token_file" }
                    " under " code { "[http]" }
                    ". With one, and a reload, there is a button here, and " code { "mesozone approve " (id) } " works."
                }
            }
        }
    }
}
