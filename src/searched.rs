//! A name looked up, on the page: its records here and what each target's server answers.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::card::pill;
use crate::health::{Condition, Health};
use crate::name::Name;
use crate::overview::Overview;
use crate::rr::{Rdata, Ttl, Type};
use crate::shown::{Room, Shown, many};
use crate::zone::Key;

/// The most records of one table.
const RECORDS_MAX: usize = 200;

/// What a search for a name found.
#[derive(Clone, Debug)]
pub struct Search {
    /// As it was typed.
    pub asked: String,
    /// The name it was read as; what is wrong with it otherwise.
    pub found: Result<Found, String>,
}

#[derive(Clone, Debug)]
pub struct Found {
    pub name: Name,
    /// The records desired at the name.
    pub here: Vec<Answer>,
    /// By target: what its server answers, or why it does not.
    pub there: Vec<(String, Result<Vec<Answer>, String>)>,
}

/// One record.
pub type Answer = (Type, Ttl, Rdata);

/// The TTLs of one record here and there.
type Sides = (Option<Ttl>, Option<Ttl>);

/// What a search found; it is not asked again by itself, so the time is told.
pub(crate) fn searched(
    overview: &Overview,
    search: &Search,
    time: &str,
    room: &mut Room,
) -> Markup {
    html! {
        section #search aria-labelledby="search-title" {
            @match &search.found {
                Err(why) => {
                    h2 #search-title { "Looked up: " (Shown(&search.asked)) }
                    p.error.now { (Shown(why)) }
                }
                Ok(found) => {
                    h2 #search-title { "Looked up: " (Shown(&found.name)) }
                    p.hint { "Asked at " (time) ". " (summary(found)) }
                    @if found.there.is_empty() && !found.here.is_empty() { (alone(&found.here)) }
                    @for (target, answers) in &found.there {
                        (one(overview, found, target, answers, room))
                    }
                }
            }
        }
    }
}

/// The records of a name that no target has.
fn alone(here: &[Answer]) -> Markup {
    html! {
        ul.lines {
            @for (rtype, ttl, rdata) in here.iter().take(RECORDS_MAX) {
                li { code { (ttl) " " (rtype) " " (Shown(rdata)) } }
            }
        }
    }
}

fn summary(found: &Found) -> Markup {
    let records = many(found.here.len(), "record");
    html! {
        @match found.here.len() {
            0 => "The cluster wants no record at this name.",
            _ => { "The cluster wants " (records) " at this name." }
        }
        @if found.there.is_empty() { " No target publishes a zone that it is in." }
    }
}

fn one(
    overview: &Overview,
    found: &Found,
    target: &str,
    answers: &Result<Vec<Answer>, String>,
    room: &mut Room,
) -> Markup {
    let health = overview.targets.iter().find(|health| health.target == target);
    html! {
        article.card {
            @match answers {
                Err(why) => {
                    header {
                        h3 { (Shown(target)) }
                        p.pills { (pill("wrong", "✕", "no answer")) }
                    }
                    p.error.now { (Shown(why)) }
                }
                Ok(answers) => {
                    @let sides = sides(&found.here, answers);
                    header { h3 { (Shown(target)) } p.pills { (verdict(&sides)) } }
                    @if sides.is_empty() {
                        p { "No record here, and none there." }
                    } @else {
                        (table(&sides, &|rtype, rdata, sides| {
                            why(health?, &found.name, rtype, rdata, sides)
                        }, room))
                    }
                }
            }
        }
    }
}

/// Every record of either side, with its TTLs.
fn sides(here: &[Answer], there: &[Answer]) -> BTreeMap<(Type, Rdata), Sides> {
    let mut sides: BTreeMap<(Type, Rdata), Sides> = BTreeMap::new();
    for (rtype, ttl, rdata) in here {
        sides.entry((*rtype, rdata.clone())).or_default().0 = Some(*ttl);
    }
    for (rtype, ttl, rdata) in there {
        sides.entry((*rtype, rdata.clone())).or_default().1 = Some(*ttl);
    }
    sides
}

fn verdict(sides: &BTreeMap<(Type, Rdata), Sides>) -> Markup {
    let count = |is: fn(&Sides) -> bool| sides.values().filter(|sides| is(sides)).count();
    let missing = count(|sides| sides.1.is_none());
    let extra = count(|sides| sides.0.is_none());
    html! {
        @if missing > 0 { (pill("wrong", "−", format!("{missing} missing there"))) }
        @if extra > 0 { (pill("waits", "+", format!("{extra} extra there"))) }
        @if missing + extra == 0 {
            @if sides.values().all(|(here, there)| here == there) {
                (pill("well", "=", "equal"))
            } @else {
                (pill("waits", "≠", "TTL differs"))
            }
        }
    }
}

/// Tells why a record is on one side only, where that is known.
type Tell<'t> = &'t dyn Fn(Type, &Rdata, &Sides) -> Option<String>;

fn table(sides: &BTreeMap<(Type, Rdata), Sides>, tell: Tell<'_>, room: &mut Room) -> Markup {
    let rows = sides.iter().take(RECORDS_MAX).map(|((rtype, rdata), ttls)| {
        html! {
            tr {
                td { code { (rtype) " " (Shown(rdata)) } }
                td {
                    (difference(ttls))
                    @if let Some(why) = tell(*rtype, rdata, ttls) { span.why { (Shown(why)) } }
                }
            }
        }
    });
    let (rows, more) = room.fit(sides.len(), rows);
    html! {
        @if !sides.is_empty() {
            table {
                thead { tr { th scope="col" { "Record" } th scope="col" { "Here and there" } } }
                tbody { (rows) }
            }
        }
        @if more > 0 { p.more { "and " (more) " more" } }
    }
}

fn difference(sides: &Sides) -> Markup {
    match sides {
        (Some(_), None) => pill("wrong", "−", "missing there"),
        (None, Some(_)) => pill("waits", "+", "extra there"),
        (Some(here), Some(there)) if here != there => html! {
            (pill("waits", "≠", "TTL differs"))
            span.why { (here) " s here, " (there) " s there" }
        },
        _ => pill("well", "=", "equal"),
    }
}

/// Why the server has another record than is desired, as far as the target knows.
fn why(health: &Health, name: &Name, rtype: Type, rdata: &Rdata, sides: &Sides) -> Option<String> {
    let (key, outlook) = (Key { name: name.clone(), rtype }, health.outlook.as_ref()?);
    let withheld = &outlook.withheld;
    let is_it = |(of, data): &(Key, Rdata)| *of == key && data == rdata;
    if sides.0.is_none() {
        if let Some(set) = health.held().iter().find(|set| set.entries.iter().any(is_it)) {
            return Some(match set.id {
                Some(id) => format!("held back: waits for an approval of {id}"),
                None => "held back: waits for an approval".to_owned(),
            });
        }
        if withheld.recovering.iter().any(is_it) {
            return Some("held back: waits for the cluster to be whole".to_owned());
        }
    }
    if sides.0.is_some() == sides.1.is_some() {
        return None;
    }
    if let Some(refused) = withheld.refused.iter().find(|refused| refused.name == *name) {
        return Some(format!("the server refuses this name: {}", refused.rcode));
    }
    if let Some(blocked) = withheld.blocked.iter().find(|blocked| blocked.key == key) {
        return Some(format!("not ours: {}", blocked.why));
    }
    if withheld.cut.iter().any(|cut| cut.key == key) {
        return Some("the RRset is cut: the server takes no more records".to_owned());
    }
    match &health.condition {
        Condition::Failing(_) => Some("the target is failing".to_owned()),
        Condition::StandingBy(_) => Some("another publishes there".to_owned()),
        _ => None,
    }
}
