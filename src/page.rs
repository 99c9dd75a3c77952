//! The page for people: what is wrong, what is held back, and how to act on it.
//!
//! It is whole without JavaScript. With it, `page.js` replaces what is marked `data-live` by that
//! of a later page, element by element; an `id` says which element is which.

use std::time::{Duration, SystemTime};

use maud::{DOCTYPE, Markup, html};

use crate::card::{self, Rest, fact, list, pill};
use crate::findings::Level;
use crate::overview::Overview;
use crate::searched::searched;
pub use crate::searched::{Answer, Found, Search};
use crate::shown::{Room, Shown, many, number, span};
use crate::snapshot::{Completeness, Snapshot};
use crate::verdict::{Matter, headline, matters};

/// So many of what was skipped are listed for each reason.
const SKIPPED_MAX: usize = 100;
/// The most problems told at the top.
const MATTERS_MAX: usize = 100;

/// What was just done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    Approved {
        target: String,
        count: usize,
    },
    /// What could not be done, and why.
    Refused(String),
}

pub fn page(overview: &Overview, search: Option<&Search>, notice: Option<&Notice>) -> String {
    let matters = matters(overview);
    let headline = headline(overview, &matters);
    let (mut room, time) = (Room::default(), time_of_day(overview.now));
    let asked = search.map_or("", |search| &search.asked);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "mesozone: " (headline) }
                link rel="stylesheet" href="/page.css";
                link rel="icon" type="image/svg+xml" href="/page.svg";
                script src="/page.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the state" }
                (bar(asked))
                p #stale hidden { span {} " " b role="alert" {} }
                main #main {
                    @if let Some(notice) = notice { (told(notice)) }
                    div #top data-live { (top(overview, &headline, &matters)) }
                    @if let Some(search) = search {
                        (searched(overview, search, &time, &mut room))
                    }
                    div #rest data-live { (rest(overview, &mut room)) }
                }
                (foot(&time))
            }
        }
    }
    .into_string()
}

fn rest(overview: &Overview, room: &mut Room) -> Markup {
    let targets = overview.targets.iter().enumerate();
    // What may be approved comes before long lists of anything else take the room.
    let held: Vec<Markup> =
        overview.targets.iter().map(|h| card::held(overview, h, room)).collect();
    let is_held = held.iter().any(|markup| !markup.0.is_empty());
    html! {
        (cluster(overview))
        section #targets aria-labelledby="targets-title" {
            h2 #targets-title { "Targets" }
            @if overview.targets.is_empty() { p { "No target is configured." } }
            @for (at, health) in targets { (card::target(overview, at, health, room)) }
        }
        @if is_held {
            section #held aria-labelledby="held-title" {
                h2 #held-title { "Held back" }
                @for markup in &held { (markup) }
            }
        }
        (skipped(overview, room))
        (server(overview))
    }
}

fn bar(asked: &str) -> Markup {
    html! {
        header.bar {
            a.home href="/" { "mesozone" }
            form role="search" method="get" action="/#search" {
                label for="name" { "Look up a name" }
                input #name type="search" name="name" value=(Shown(asked)) required
                    placeholder="search.marathon" autocapitalize="off" autocomplete="off"
                    spellcheck="false";
                button type="submit" { "Look up" }
            }
        }
    }
}

fn told(notice: &Notice) -> Markup {
    match notice {
        Notice::Approved { target, count } => html! {
            p #notice.notice.well role="status" {
                span aria-hidden="true" { "✓ " }
                "Approved: " (many(*count, "record")) " on target " (Shown(target)) " "
                (if *count == 1 { "is" } else { "are" }) " being removed."
            }
        },
        Notice::Refused(why) => html! {
            p #notice.notice.wrong role="alert" {
                span aria-hidden="true" { "✕ " } "Nothing was approved: " (Shown(why))
            }
        },
    }
}

/// All in one sentence, then a line for each problem.
fn top(overview: &Overview, headline: &str, matters: &[Matter]) -> Markup {
    let of = |level| matters.iter().filter(move |matter| matter.level == level);
    let (class, mark) = match matters.iter().map(|matter| matter.level).max() {
        Some(Level::Failure) => ("wrong", "✕"),
        Some(Level::Warning) => ("waits", "!"),
        _ if overview.snapshot.is_none() => ("quiet", "…"),
        _ => ("well", "✓"),
    };
    let problems = of(Level::Failure).chain(of(Level::Warning));
    html! {
        section #verdict class=(class) aria-labelledby="headline" {
            div role="status" {
                h1 #headline {
                    span.mark aria-hidden="true" { (mark) } " " (capital(headline)) "."
                }
            }
            @if class == "well" { p { (all_well(overview)) } }
            @if class == "quiet" { p { "No master has told its state yet." } }
            @if of(Level::Failure).chain(of(Level::Warning)).next().is_some() {
                ol.matters { @for matter in problems.take(MATTERS_MAX) { (line(matter)) } }
            }
            @if of(Level::Well).next().is_some() {
                div.remarks {
                    p { "Good to know:" }
                    ul { @for matter in of(Level::Well).take(MATTERS_MAX) { (line(matter)) } }
                }
            }
        }
    }
}

fn line(matter: &Matter) -> Markup {
    let class = match matter.level {
        Level::Failure => "wrong",
        Level::Warning => "waits",
        Level::Well => "quiet",
    };
    html! {
        li class=(class) {
            @if matter.level == Level::Failure { b { "Wrong: " } }
            @if matter.level == Level::Warning { b { "Waits: " } }
            bdi { (Shown(&matter.text)) } ". "
            a href=(format!("#{}", matter.place)) { "Show it" }
            @if !matter.remedy.is_empty() { span.remedy { (prose(&matter.remedy)) } }
        }
    }
}

/// Text with what one types or configures between backticks.
fn prose(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (Shown(part)) } } @else { (Shown(part)) }
        }
    }
}

fn all_well(overview: &Overview) -> String {
    let left = overview.targets.iter().filter(|health| !health.holds_fence).count();
    let ours = overview.targets.len() - left;
    let records = many(overview.snapshot.as_deref().map_or(0, Snapshot::record_count), "record");
    match (ours, left) {
        (0, 0) => format!("The cluster makes {records}."),
        (_, 0) => format!("The cluster makes {records}, and every target has them."),
        (0, _) => format!("The cluster makes {records}; another process publishes them."),
        _ => format!("The cluster makes {records}; {} left to another.", many(left, "target")),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().collect::<String>() + chars.as_str())
}

fn cluster(overview: &Overview) -> Markup {
    let snapshot = overview.snapshot.as_deref();
    let count = |count: fn(&Snapshot) -> usize| {
        snapshot.map_or_else(|| "–".to_owned(), |snapshot| number(count(snapshot)))
    };
    html! {
        section #cluster aria-labelledby="cluster-title" {
            h2 #cluster-title { "Cluster" }
            div.card {
                p.pills { (believed(overview)) }
                dl.facts.numbers {
                    (fact("Agents", count(|snapshot| snapshot.cluster.agents.len())))
                    (fact("Frameworks", count(|snapshot| snapshot.cluster.frameworks.len())))
                    (fact("Tasks", count(|snapshot| snapshot.cluster.tasks.len())))
                    (fact("Records", count(Snapshot::record_count)))
                }
                dl.facts {
                    (fact("Leading master", overview.leader.as_deref().unwrap_or("none known")))
                    (fact("Watched by", watched(overview)))
                    (fact("Heard", ago(overview.heard_ago)))
                    (fact("Last change", ago(changed(overview))))
                }
                @if let Some((text, since)) = &overview.trouble {
                    p.error.now {
                        b { "Error for " (span(*since)) ": " } bdi { (Shown(text)) }
                    }
                }
            }
        }
    }
}

fn believed(overview: &Overview) -> Markup {
    html! {
        @match overview.snapshot.as_ref().map(|snapshot| snapshot.completeness) {
            None => (pill("quiet", "…", "no state yet")),
            Some(Completeness::Complete) => (pill("well", "✓", "complete")),
            Some(Completeness::Recovering(why)) => {
                (pill("waits", "!", format!("recovering: {why}")))
            }
        }
        @if overview.trouble.is_some() { (pill("wrong", "✕", "no master gives its state")) }
    }
}

fn watched(overview: &Overview) -> &'static str {
    match overview.streams {
        true => "stream: changes as they happen",
        false => "poll: the state now and then",
    }
}

fn changed(overview: &Overview) -> Option<Duration> {
    let told = overview.told_at()?;
    Some(overview.now.duration_since(told).unwrap_or_default())
}

fn ago(span_of: Option<Duration>) -> String {
    span_of.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", span(ago)))
}

fn skipped(overview: &Overview, room: &mut Room) -> Markup {
    let groups = overview.skipped_groups(SKIPPED_MAX);
    html! {
        section #skipped aria-labelledby="skipped-title" {
            h2 #skipped-title { "Skipped" }
            div.card {
                @if overview.snapshot.is_none() {
                    p { "Nothing is known yet." }
                } @else if groups.is_empty() {
                    p { "Nothing: all that runs makes the records it asks for." }
                } @else {
                    p { "These make no record, or fewer than they would." }
                }
                @for (reason, group) in &groups {
                    (list(
                        &format!("{}: {}", reason.replace('-', " "), number(group.count)),
                        group.first.iter().map(|(what, why)| html! {
                            li { bdi { (Shown(what)) } " " span.why { (Shown(why)) } }
                        }),
                        group.count, Rest::More("mesozone records -v"), room,
                    ))
                }
            }
        }
    }
}

fn server(overview: &Overview) -> Markup {
    html! {
        section #server aria-labelledby="server-title" {
            h2 #server-title { "Bundled server" }
            div.card {
                @match &overview.server {
                    None => { p { "Off: the configuration has no " code { "[server]" } "." } }
                    Some(server) => {
                        dl.facts {
                            (fact("Listens on", texts(&server.listen)))
                            (fact("Zones", texts(&server.zones)))
                        }
                    }
                }
            }
        }
    }
}

fn texts(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn foot(time: &str) -> Markup {
    html! {
        footer {
            p #age data-live { "As of " time { (time) } "." }
            p { "mesozone " (env!("CARGO_PKG_VERSION")) }
            nav aria-label="For programs" {
                @for path in ["/v1/status", "/v1/plan", "/metrics", "/healthz", "/readyz"] {
                    a href=(path) { (path) } " "
                }
            }
        }
    }
}

fn time_of_day(now: SystemTime) -> String {
    let secs = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02} UTC", secs / 3_600, secs / 60 % 60, secs % 60)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::cluster::{Cluster, FrameworkId};
    use crate::fence::Adoption;
    use crate::health::{Condition, Health, Outlook, Trouble};
    use crate::held::{Entry, HeldSet, PlanId, Why};
    use crate::mark::Loss;
    use crate::mesos::Unread;
    use crate::name::Name;
    use crate::overview::{Approvals, ServerSeen};
    use crate::plan::{Blocked, Change, Cut, Refused, Withheld};
    use crate::records::{Skip, Subject};
    use crate::rr::{Rdata, Rrset, Serial, Ttl, Type};
    use crate::scope::NotOurs;
    use crate::snapshot::Recovering;
    use crate::wire::Rcode;
    use crate::zone::{Key, Zone};

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn key(text: &str) -> Key {
        Key { name: name(text), rtype: Type::A }
    }

    fn a(n: usize) -> Rdata {
        Rdata::A(std::net::Ipv4Addr::from(0x0a00_0000 + n as u32))
    }

    fn set(data: impl IntoIterator<Item = usize>) -> Option<Rrset> {
        Rrset::new(Ttl::from_secs(60), data.into_iter().map(a).collect())
    }

    fn entries(count: usize) -> Vec<Entry> {
        (0..count).map(|n| (key(&format!("app-{n}.marathon.mesos")), a(n))).collect()
    }

    fn snapshot() -> Snapshot {
        let mut zone = Zone::default();
        zone.set(key("web.marathon.mesos"), set([1, 2]));
        Snapshot {
            domain: "mesos".parse().unwrap(),
            zone,
            reverse: BTreeMap::new(),
            cluster: Cluster::default(),
            skipped: imbl::OrdMap::new(),
            unread: Arc::from([]),
            completeness: Completeness::Complete,
            unknown: Arc::default(),
            complete_once: true,
            read_at: at(90),
            told_at: at(90),
        }
    }

    fn outlook(withheld: Withheld) -> Outlook {
        Outlook {
            serial: Serial(42),
            adoption: Adoption::Adopted,
            completeness: Completeness::Complete,
            changes: Arc::from([]),
            withheld: Arc::new(withheld),
        }
    }

    fn well(withheld: Withheld) -> Health {
        Health {
            condition: Condition::Well,
            holds_fence: true,
            reached: Some(at(90)),
            outlook: Some(outlook(withheld)),
            ..Health::unknown(("bind".into(), "10.0.0.53:53".into(), name("mesos")), at(0))
        }
    }

    fn overview(snapshot: Snapshot, targets: Vec<Health>) -> Overview {
        Overview {
            now: at(100),
            heard_ago: Some(Duration::from_secs(2)),
            leader: Some("http://10.0.0.1:5050".into()),
            streams: true,
            trouble: None,
            snapshot: Some(Arc::new(snapshot)),
            targets,
            server: None,
            approvals: Approvals::WithToken,
        }
    }

    fn of(targets: Vec<Health>) -> Overview {
        overview(snapshot(), targets)
    }

    fn held(count: usize, why: Why) -> (PlanId, Withheld) {
        let entries = entries(count);
        let id = PlanId::of("bind", &name("mesos"), entries.iter());
        let set = HeldSet { id: Some(id), why, entries };
        (id, Withheld { held: vec![set], ..Withheld::default() })
    }

    /// How the text of a trouble begins.
    const WHERE: &str = "target knot, server 10.0.0.53:53, zone mesos.: ";
    const LOSS: Why = Why::Loss(Loss { mark: 400, desired: 200 });

    /// The page as it is read: no markup, one space between words.
    fn read(html: &str) -> String {
        let text = html.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
        let text = text.collect::<Vec<_>>().join(" ");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(overview: &Overview, parts: &[&str]) {
        let html = page(overview, None, None);
        let text = read(&html);
        for part in parts {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        for (open, close) in
            [("<div", "</div>"), ("<section", "</section>"), ("<article", "</article>")]
        {
            assert_eq!(html.matches(open).count(), html.matches(close).count(), "{open}");
        }
        let ids: Vec<&str> =
            html.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let unique: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len(), "{ids:?}");
        for inside in [" style=", " onclick=", "<style", "javascript:"] {
            assert!(!html.contains(inside), "{inside} is not allowed by the policy");
        }
    }

    #[test]
    fn a_cluster_that_is_well_says_so_first() {
        let overview = of(vec![well(Withheld::default())]);
        check(
            &overview,
            &[
                "mesozone: all well",
                "✓ All well. The cluster makes 2 records, and every target has them.",
                "Leading master http://10.0.0.1:5050 Watched by stream: changes as they happen",
                "Heard 2 s ago Last change 10 s ago",
                "bind ✓ well",
                "Server 10.0.0.53:53 Zone mesos. Serial 42 Lag none Fence ours: this process publishes",
                "Bundled server Off",
                "As of 00:01:40 UTC .",
            ],
        );
        assert!(!page(&overview, None, None).contains("Held back"));
    }

    #[test]
    fn what_is_wrong_comes_before_what_waits_and_both_are_counted() {
        let failing = Health {
            target: "knot".into(),
            condition: Condition::Failing(at(40)),
            trouble: Some(Trouble { text: WHERE.to_owned() + "connection refused", at: at(97) }),
            ..well(Withheld::default())
        };
        let (_, withheld) = held(120, LOSS);
        let overview = of(vec![well(withheld), failing]);
        check(
            &overview,
            &[
                "mesozone: 1 problem, 1 waiting",
                "1 problem, 1 waiting. Wrong: Target knot (zone mesos. on 10.0.0.53:53) has been failing \
                 for 1 min: connection refused . Show it The zone there stays as it is",
                "mesozone check --target knot",
                "Waits: 120 removals on target bind wait for an approval: the desired records fell from \
                 400 to 200 .",
                "knot ✕ failing for 1 min",
                "Error, 3 s ago: connection refused",
            ],
        );
    }

    #[test]
    fn no_master_at_all_is_a_problem_and_a_start_is_none() {
        let mut overview = Overview { snapshot: None, heard_ago: None, ..of(Vec::new()) };
        overview.leader = None;
        check(
            &overview,
            &[
                "mesozone: starting",
                "No master has told its state yet.",
                "Leading master none known",
                "Agents – Frameworks",
                "Heard never",
                "No target is configured.",
            ],
        );
        overview.trouble = Some(("no route to host".into(), Duration::from_secs(75)));
        check(
            &overview,
            &[
                "mesozone: 1 problem",
                "No master has given its state yet, for 1 min 15 s: no route to host .",
                "Error for 1 min 15 s: no route to host",
            ],
        );
        overview.snapshot = Some(Arc::new(snapshot()));
        check(&overview, &["No master gives its state, for 1 min 15 s", "Names stay as they were"]);
    }

    #[test]
    fn a_held_set_shows_its_records_and_the_form_that_approves_it() {
        let (id, withheld) = held(3, LOSS);
        let html = page(&of(vec![well(withheld)]), None, None);
        let text = read(&html);
        assert!(text.contains("3 records on bind plan"), "{text}");
        assert!(text.contains("- app-1.marathon.mesos. A 10.0.0.1 - app-2.marathon.mesos. A"));
        assert!(text.contains("Token Remove these 3 records"), "{text}");
        assert!(text.contains(&format!("mesozone approve {id}")), "{text}");
        let form =
            format!("<form class=\"approve\" method=\"post\" action=\"/v1/plan/{id}/approve\">");
        assert!(html.contains(&form), "{html}");
        assert!(html.contains("type=\"password\" name=\"token\""), "{html}");
        assert!(html.contains(&format!("href=\"#held-{id}\"")) && html.contains("id=\"held-"));
    }

    #[test]
    fn without_a_token_the_page_says_what_to_configure_and_has_no_button() {
        let (_, withheld) = held(3, Why::FirstContact);
        let overview = Overview { approvals: Approvals::Off, ..of(vec![well(withheld)]) };
        let html = page(&overview, None, None);
        assert!(!html.contains("method=\"post\""), "{html}");
        check(
            &overview,
            &[
                "Nothing can be approved here: the configuration has no token_file",
                "found there at first contact",
                "approving removes the rest and adopts the zone",
            ],
        );
    }

    #[test]
    fn what_nobody_can_approve_has_no_button() {
        let (id, mut withheld) = held(2, LOSS);
        withheld.held[0].id = None;
        withheld.held[0].why = Why::Behind(id);
        withheld.recovering = entries(5);
        withheld.waiting = vec![Change { key: key("w.mesos"), old: None, new: set([9]) }];
        let recovering = Completeness::Recovering(Recovering::Agents(3));
        let mut health = well(Withheld::default());
        health.outlook = Some(Outlook { completeness: recovering, ..outlook(withheld) });
        let overview = overview(Snapshot { completeness: recovering, ..snapshot() }, vec![health]);
        check(
            &overview,
            &[
                "mesozone: 1 thing waits",
                "The cluster is recovering, 3 agents not back: 5 removals wait .",
                "! recovering: 3 agents not back",
                &format!("Why: {id} is decided about first."),
                "5 records on bind wait for the cluster Why: 3 agents not back.",
                "1 change on bind wait for the adoption",
                "+ w.mesos. A 10.0.0.9",
                "bind ✓ well ! 7 records held back",
            ],
        );
        assert!(!page(&overview, None, None).contains("method=\"post\""));
    }

    #[test]
    fn all_that_a_target_leaves_is_told_with_its_reason() {
        let withheld = Withheld {
            refused: vec![Refused { name: name("bad.mesos"), rcode: Rcode::REFUSED, tries: 2 }],
            blocked: vec![Blocked { key: key("ns1.mesos"), why: NotOurs::Glue }],
            cut: vec![Cut { key: key("big.mesos"), desired: 150, published: 100 }],
            young: entries(1),
            ..Withheld::default()
        };
        let mut health = Health { drift_count: 3, ..well(withheld) };
        let change = Change { key: key("new.mesos"), old: set([1]), new: set([2]) };
        health.outlook.as_mut().unwrap().changes = Arc::from([change]);
        health.outlook.as_mut().unwrap().adoption = Adoption::FirstContact;
        check(
            &of(vec![health]),
            &[
                "mesozone: 1 thing waits",
                "Target bind refuses 1 name .",
                "the server refuses 1 name bad.mesos. REFUSED, tried 2 times",
                "1 RRset: not published, not ours ns1.mesos. A it is the address of a name server",
                "big.mesos. A 100 of 150 records",
                "1 record added by others, removed soon",
                "1 change under way - new.mesos. A 10.0.0.1 + new.mesos. A 10.0.0.2",
                "Drift 3 records changed by others since the start",
                "First contact not adopted: nothing found there is removed",
                "Good to know:",
            ],
        );
    }

    #[test]
    fn a_target_left_to_another_is_no_problem() {
        let why = "another process of the same owner holds the fence";
        let health = Health {
            condition: Condition::StandingBy(why.into()),
            holds_fence: false,
            ..well(Withheld::default())
        };
        let mut late = of(vec![health]);
        check(
            &late,
            &[
                "all well",
                "another process publishes them",
                "‖ standing by",
                "Lag another publishes",
            ],
        );
        late.targets[0] = Health { reached: None, ..well(Withheld::default()) };
        late.now = at(200);
        check(&late, &["1 thing waits", "The zone of target bind is 1 min 50 s behind"]);
        late.targets[0].condition = Condition::Starting(at(40));
        check(&late, &["is not reached yet .", "… starting"]);
    }

    #[test]
    fn what_is_skipped_is_grouped_by_its_reason() {
        let framework =
            |n: usize| Subject::Framework(FrameworkId(format!("f-{n}").as_str().into()));
        let skips = || Arc::from([Skip::NoAddress]);
        let skipped = (0..250).map(|n| (framework(n), skips())).collect();
        let unread = Unread { kind: "task", id: "t1".into(), fault: "no name".into() };
        let snapshot = Snapshot { skipped, unread: Arc::from([unread]), ..snapshot() };
        check(
            &overview(snapshot, vec![well(Withheld::default())]),
            &[
                "all well",
                "251 things in the state of the cluster make fewer records",
                "no address: 250 framework f-0 no address",
                "and 150 more: mesozone records -v has more of them",
                "unread: 1 task t1 no name",
            ],
        );
    }

    #[test]
    fn a_search_says_in_words_how_each_server_differs() {
        let record = |n, ttl| (Type::A, Ttl::from_secs(ttl), a(n));
        let (id, withheld) = held(3, LOSS);
        let mut held = well(withheld);
        held.target = "held".into();
        let overview = of(vec![held, well(Withheld::default())]);
        let found = Found {
            name: name("app-2.marathon.mesos"),
            here: vec![record(1, 60), record(5, 60)],
            there: vec![
                ("held".into(), Ok(vec![record(1, 60), record(2, 60)])),
                ("bind".into(), Ok(vec![record(1, 30), record(5, 60)])),
                ("gone".into(), Err("no answer within 3 s".into())),
            ],
        };
        let search = Search { asked: "app-2.marathon".into(), found: Ok(found) };
        let html = page(&overview, Some(&search), None);
        let text = read(&html);
        for part in [
            "Looked up: app-2.marathon.mesos. Asked at 00:01:40 UTC. The cluster wants 2 records",
            "held − 1 missing there + 1 extra there Record Here and there A 10.0.0.1 = equal",
            &format!("A 10.0.0.2 + extra there held back: waits for an approval of {id}"),
            "A 10.0.0.5 − missing there",
            "≠ TTL differs 60 s here, 30 s there",
            "bind ≠ TTL differs",
            "gone ✕ no answer no answer within 3 s",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(html.contains("value=\"app-2.marathon\""));
        let asked = "a..b\"><script>".to_owned();
        let search = Search { found: Err(format!("{asked:?} is no domain name")), asked };
        let html = page(&overview, Some(&search), None);
        assert!(html.contains("is no domain name") && !html.contains("><script>"), "{html}");
    }

    #[test]
    fn a_notice_says_what_was_done_or_why_not() {
        let overview = of(vec![well(Withheld::default())]);
        let told = |notice| read(&page(&overview, None, Some(&notice)));
        let text = told(Notice::Approved { target: "bind".into(), count: 1 });
        assert!(text.contains("Approved: 1 record on target bind is being removed."), "{text}");
        let text = told(Notice::Refused("wrong token".into()));
        assert!(text.contains("Nothing was approved: wrong token"), "{text}");
    }

    /// What a framework, a master or a server may say to harm whoever reads it.
    const HOSTILE: &str = "<script>alert(1)</script>\" onmouseover=\"x' \u{202e}\u{1b}[31m&lt;";

    #[test]
    fn whatever_others_say_stays_text() {
        let framework = Subject::Framework(FrameworkId(HOSTILE.into()));
        let skipped = [(framework, Arc::from([Skip::EmptyLabel(HOSTILE.into())]))];
        let unread = Unread { kind: "task", id: HOSTILE.into(), fault: HOSTILE.into() };
        let snapshot = Snapshot {
            skipped: skipped.into_iter().collect(),
            unread: Arc::from([unread]),
            ..snapshot()
        };
        let mut health = well(Withheld {
            blocked: vec![Blocked {
                key: Key { name: name(r"<b>\034x.mesos"), rtype: Type::A },
                why: NotOurs::Protected(HOSTILE.into()),
            }],
            ..Withheld::default()
        });
        health.target = HOSTILE.into();
        health.trouble = Some(Trouble { text: HOSTILE.into(), at: at(99) });
        let mut overview = overview(snapshot, vec![health]);
        let standing = Health {
            condition: Condition::StandingBy(HOSTILE.into()),
            ..overview.targets[0].clone()
        };
        let failing =
            Health { condition: Condition::Failing(at(1)), ..overview.targets[0].clone() };
        overview.targets.extend([standing, failing]);
        overview.leader = Some(HOSTILE.into());
        overview.trouble = Some((HOSTILE.into(), Duration::ZERO));
        overview.server = Some(ServerSeen { listen: vec![], zones: vec![name("<i>.mesos")] });
        let there = vec![(HOSTILE.into(), Err(HOSTILE.into()))];
        let found = Found { name: name("<u>.mesos"), here: vec![], there };
        let search = Search { asked: HOSTILE.into(), found: Ok(found) };
        let notice = Notice::Refused(HOSTILE.into());
        let html = page(&overview, Some(&search), Some(&notice));
        let known = page(&of(vec![well(Withheld::default())]), None, None);
        assert_eq!(html.matches("<script").count(), known.matches("<script").count());
        for harm in ["\" onmouseover", "<b>\\", "<i>", "<u>", "\u{202e}", "\u{1b}"] {
            assert!(!html.contains(harm), "{harm:?} in {html}");
        }
        let shown = "&lt;script&gt;alert(1)&lt;/script&gt;&quot; onmouseover=&quot;x' \\u{202e}";
        assert!(html.matches(shown).count() > 10, "{html}");
    }

    #[test]
    fn whatever_is_held_the_page_stays_small_and_quick() {
        let targets = (0..8).map(|n| {
            let (_, mut withheld) = held(20_000 + n, LOSS);
            withheld.recovering = entries(20_000);
            withheld.blocked = entries(5_000)
                .into_iter()
                .map(|(key, _)| Blocked { key, why: NotOurs::Protected("*.mesos".repeat(1_000)) })
                .collect();
            let mut health = well(withheld);
            health.target = format!("target-{n}");
            health.condition = Condition::Failing(at(1));
            health.trouble = Some(Trouble { text: "<".repeat(100_000), at: at(2) });
            health
        });
        let framework =
            |n: usize| Subject::Framework(FrameworkId(format!("f-{n}").as_str().into()));
        let skip = Skip::EmptyLabel("\"".repeat(100));
        let skipped = (0..100_000).map(|n| (framework(n), Arc::from([skip.clone()]))).collect();
        let overview = overview(Snapshot { skipped, ..snapshot() }, targets.collect());
        let html = page(&overview, None, None);
        assert!(html.len() < 300_000, "{} octets", html.len());
        assert!(read(&html).contains("more: /v1/plan has all of them"));
        assert_eq!(html.matches("method=\"post\"").count(), 8, "every set has its form");
    }

    /// The colours that a block of the style sheet names, as relative luminances (WCAG 2.2).
    fn colours(block: &str) -> BTreeMap<&str, f64> {
        let luminance = |hex: &str| {
            let wide = if hex.len() == 3 { 1 } else { 2 };
            let channel = |at: usize| {
                let value = u8::from_str_radix(&hex[at * wide..][..wide], 16).unwrap();
                let value = f64::from(value) / if wide == 1 { 15.0 } else { 255.0 };
                if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(0) + 0.7152 * channel(1) + 0.0722 * channel(2)
        };
        let lines = block.lines().filter_map(|line| line.trim().strip_prefix("--"));
        let pairs = lines.filter_map(|line| line.trim_end_matches(';').split_once(": #"));
        pairs.map(|(name, hex)| (name, luminance(hex))).collect()
    }

    #[test]
    fn text_stands_out_from_its_ground_by_day_and_by_night() {
        let mut blocks = include_str!("page.css").split(":root {").skip(1);
        for block in [blocks.next().unwrap(), blocks.next().unwrap()] {
            let colours = colours(block.split('}').next().unwrap());
            let mut pairs = vec![("card", "wrong"), ("ground", "wrong"), ("text", "quiet-ground")];
            for text in ["text", "faint", "link", "well", "waits", "wrong"] {
                pairs.extend([(text, "card"), (text, "ground")]);
            }
            for ground in ["well-ground", "waits-ground", "wrong-ground"] {
                let own = ground.split('-').next().unwrap();
                pairs.extend([(own, ground), ("text", ground), ("link", ground)]);
            }
            for (text, ground) in pairs {
                let (a, b) = (colours[text], colours[ground]);
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
            }
        }
    }
}
