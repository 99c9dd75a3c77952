//! What was seen of masters, the cluster and name servers, into findings.

use std::collections::BTreeMap;

use crate::config::RrsetMax;
use crate::cut::RECORD_MAX_OF_BIND;
use crate::fence::{Adoption, Fence, Found, Owner, Until};
use crate::findings::{Finding, count, some};
use crate::held::Why;
use crate::name::Name;
use crate::plan::Plan;
use crate::probe::Skew;
use crate::reading::View;
use crate::rr::{Rdata, Ttl, Type};
use crate::scope::{Foreign, NotOurs, Scope, Space};
use crate::snapshot::{Completeness, Snapshot};
use crate::wire::{Rcode, Soa};
use crate::zone::{Key, Zone};

/// What a master is to who asks it for the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    Leads,
    /// It sends those who ask to this one.
    Follows(String),
    /// It wants other credentials.
    Barred(String),
    /// It gave no use to make of.
    Failed(String),
}

/// Whether the cluster could be read from any master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cluster {
    Read,
    Unread,
}

/// One master, as it answered.
pub fn master(
    address: &str,
    standing: &Standing,
    version: Option<&str>,
    cluster: Cluster,
) -> Finding {
    let about = format!("master {address}");
    let version = version.map_or("version not told".to_owned(), |text| format!("Mesos {text}"));
    match (standing, cluster) {
        (Standing::Leads, _) => Finding::well(about, format!("leads, {version}")),
        (Standing::Follows(leader), _) => {
            Finding::well(about, format!("follows {leader}, {version}"))
        }
        (Standing::Barred(words), _) => {
            let remedy = "correct [mesos] auth, or let this principal read the state";
            Finding::failure(about, words, remedy)
        }
        (Standing::Failed(words), Cluster::Read) => {
            let remedy = "the others serve meanwhile; start it, or take it out of [mesos] masters";
            Finding::warning(about, words, remedy)
        }
        (Standing::Failed(words), Cluster::Unread) => {
            let remedy = "see that it runs, that this address reaches it, and that one is elected";
            Finding::failure(about, words, remedy)
        }
    }
}

/// What was read of the cluster.
pub fn cluster(snapshot: &Snapshot) -> Vec<Finding> {
    let (tasks, agents) = (snapshot.cluster.tasks.len(), snapshot.cluster.agents.len());
    let size = format!(
        "{} on {}, {}",
        count(tasks, "task", "tasks"),
        count(agents, "agent", "agents"),
        count(snapshot.record_count(), "record", "records")
    );
    let mut found = vec![match snapshot.completeness {
        Completeness::Complete => Finding::well("cluster", format!("complete: {size}")),
        Completeness::Recovering(why) => Finding::warning(
            "cluster",
            format!("recovering ({why}): {size}"),
            "nothing is removed until it is complete, or [mesos] failover_hold has passed; see to \
             agents that do not come back",
        ),
    }];
    if !snapshot.skipped.is_empty() {
        let number = snapshot.skipped.len();
        let subjects = count(number, "task, agent or framework", "tasks, agents or frameworks");
        let text = format!(
            "{subjects} with fewer records than there might be; `mesozone records -v` tells why"
        );
        found.push(Finding::well("cluster", text));
    }
    if let Some(first) = snapshot.unread.first() {
        let things = count(snapshot.unread.len(), "thing", "things");
        found.push(Finding::warning(
            "cluster",
            format!(
                "{things} in the state cannot be read and have no records, the first: {} {:?}: {}",
                first.kind, first.id, first.fault
            ),
            "look at it in the master's /state",
        ));
    }
    found
}

/// Why a name server does not answer as it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Nobody answers there.
    Unreachable(String),
    /// It is not authoritative for the zone.
    NoZone(String),
    /// It takes no signature by this key.
    Key(String),
    /// Clocks differ by more than a signature bears.
    Clock(String),
    Other(String),
}

impl Trouble {
    fn finding(&self, about: &str, step: &str) -> Finding {
        let (words, remedy) = match self {
            Trouble::Unreachable(words) => {
                (words, "see that the name server runs and that its TCP port is open to us")
            }
            Trouble::NoZone(words) => {
                (words, "make the zone there, or correct `server` and `zone` of the target")
            }
            Trouble::Key(words) => {
                (words, "give both sides one key: the same name, algorithm and secret")
            }
            Trouble::Clock(words) => {
                (words, "set both clocks by NTP: signatures are good for 300 s")
            }
            Trouble::Other(words) => (words, "the server's log may say why"),
        };
        Finding::failure(about, format!("{step}: {words}"), remedy)
    }
}

/// Whether a key may update a type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Right {
    Granted,
    /// By the answer with this code.
    Denied(Rcode),
    /// By an answer that names the key as bad, though it is good: Knot's word for that.
    DeniedKey,
    Unknown(String),
}

impl Right {
    fn words(&self) -> String {
        match self {
            Right::Granted => "allowed".to_owned(),
            Right::Denied(Rcode::REFUSED) => "the server answered REFUSED: its policy does not \
                allow it, it is a secondary, or the zone is frozen"
                .to_owned(),
            Right::Denied(Rcode::NOTAUTH) => "the server answered NOTAUTH: it is not the zone's \
                primary, or does not allow it"
                .to_owned(),
            Right::Denied(Rcode::SERVFAIL) => "the server answered SERVFAIL, as PowerDNS does \
                where its policy script forbids it"
                .to_owned(),
            Right::Denied(rcode) => format!("the server answered {rcode}"),
            Right::DeniedKey => "the server answered NOTAUTH (BADKEY), as Knot does where its acl \
                does not allow it"
                .to_owned(),
            Right::Unknown(words) => words.clone(),
        }
    }
}

/// How a server tells what changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Differences {
    Told,
    Whole,
    None,
}

/// What a name server answered.
#[derive(Clone, Debug)]
pub struct Inspected {
    pub soa: Soa,
    pub skew: Skew,
    /// The keys of reading and writing, where there are two and the second is not taken.
    pub update_key: Option<Trouble>,
    pub fence: Result<Found, Trouble>,
    /// None while the key that they need is not taken.
    pub rights: Vec<(Type, Right)>,
    pub differences: Option<Differences>,
}

/// Where a target stands.
pub struct About<'a> {
    pub target: &'a str,
    pub server: String,
    pub scope: &'a Scope,
    /// The name of the key that updates.
    pub update_key: &'a Name,
    pub fence: &'a Name,
    pub ttl: Ttl,
    pub rrset_max: RrsetMax,
}

impl About<'_> {
    fn text(&self) -> String {
        format!("target {}, server {}, zone {}", self.target, self.server, self.scope.zone)
    }
}

/// A name server that does not answer for the zone.
pub fn no_server(about: &About<'_>, trouble: &Trouble) -> Finding {
    trouble.finding(&about.text(), "SOA")
}

/// A transfer that did not come.
pub fn no_transfer(about: &About<'_>, words: &str) -> Finding {
    let remedy = "allow the transfer key to transfer the zone: nothing is published without";
    Finding::failure(about.text(), format!("transfer: {words}"), remedy)
}

/// What the name server itself is like.
pub fn inspected(about: &About<'_>, seen: &Inspected, now: u64) -> Vec<Finding> {
    let mut found = soa(about, &seen.soa);
    found.push(clock(about, seen.skew));
    found.push(match &seen.fence {
        Ok(fence) => fence_found(about, fence, now),
        Err(trouble) => trouble.finding(&about.text(), "fence"),
    });
    match &seen.update_key {
        Some(trouble) => found.push(trouble.finding(&about.text(), "update key")),
        None => found.extend(rights(about, &seen.rights)),
    }
    let differences = seen.differences.as_ref().map(|differences| match differences {
        Differences::Told => "IXFR: answers with differences",
        Differences::Whole => {
            "IXFR: answers with the whole zone; it keeps no differences, or none since the last \
             serial"
        }
        Differences::None => "IXFR: not answered; the whole zone is read instead",
    });
    found.extend(differences.map(|text| Finding::well(about.text(), text)));
    found
}

fn soa(about: &About<'_>, soa: &Soa) -> Vec<Finding> {
    let (serial, primary, negative) = (soa.serial, &soa.primary, soa.negative_ttl());
    let text = format!("SOA serial {serial}, primary {primary}, negative TTL {negative} s");
    let mut found = vec![Finding::well(about.text(), text)];
    if negative.secs() > about.ttl.secs() {
        found.push(Finding::warning(
            about.text(),
            format!(
                "negative TTL {negative} s is above the records' {} s: a resolver that asked too \
                 early knows nothing of a new name for so long",
                about.ttl
            ),
            format!("lower the minimum of the zone's SOA to {} s or less", about.ttl),
        ));
    }
    found
}

fn clock(about: &About<'_>, skew: Skew) -> Finding {
    let seconds = skew.seconds();
    let nearly = if skew == Skew::exactly(seconds) { "" } else { "about " };
    let way = if seconds < 0 { "behind" } else { "ahead of" };
    match skew.is_small() {
        true => Finding::well(about.text(), "clock: like ours"),
        false => Finding::warning(
            about.text(),
            format!("clock: {nearly}{} s {way} ours", seconds.abs()),
            "set both clocks by NTP: beyond 300 s every signature is refused",
        ),
    }
}

fn fence_found(about: &About<'_>, found: &Found, now: u64) -> Finding {
    let (text, name, owner) = (about.text(), about.fence, &about.scope.owner);
    match found {
        Found::Absent => Finding::well(
            text,
            "fence: none yet: first contact; `sync` makes it, adds what is missing, and holds what \
             it would remove",
        ),
        Found::Fence(fence) if fence.owner == *owner => {
            Finding::well(text, format!("fence: {}", held(fence, now)))
        }
        Found::Fence(fence) => other_owner(about, &fence.owner, ""),
        Found::Other(records) => Finding::failure(
            text,
            match records.len() {
                1 => format!("fence: the TXT record at {name} is no fence: {}", shown(&records[0])),
                number => format!("fence: {number} TXT records at {name}, where one has to be"),
            },
            format!("see who put them there, and delete them: `update delete {name} TXT`"),
        ),
    }
}

fn other_owner(about: &About<'_>, theirs: &Owner, place: &str) -> Finding {
    let ours = &about.scope.owner;
    Finding::failure(
        about.text(),
        format!("fence: another owner publishes here: {theirs}, not {ours}{place}"),
        format!(
            "give this configuration another domain or [ha] owner; if that one is gone for good: \
             `mesozone sync --take-over {theirs}`"
        ),
    )
}

/// TXT data of one character-string as its text.
fn shown(rdata: &Rdata) -> String {
    match rdata {
        Rdata::Other(octets) => match octets.split_first() {
            Some((length, text)) if usize::from(*length) == text.len() => {
                format!("{:?}", String::from_utf8_lossy(text))
            }
            _ => rdata.to_string(),
        },
        _ => rdata.to_string(),
    }
}

fn held(fence: &Fence, now: u64) -> String {
    let Fence { epoch, instance, .. } = fence;
    let adopted = match fence.adoption {
        Adoption::Adopted => "adopted",
        Adoption::FirstContact => "not adopted yet",
    };
    match fence.until {
        Until::Run => {
            format!(
                "held by a `run` (instance {:016x}), epoch {epoch}; the space is {adopted}",
                instance.0
            )
        }
        Until::Time(time) if time >= now => {
            format!(
                "held by a `sync` for {} s more, epoch {epoch}; the space is {adopted}",
                time - now
            )
        }
        Until::Time(_) | Until::Released => {
            format!("ours, and no process holds it, epoch {epoch}; the space is {adopted}")
        }
    }
}

/// One line if all are granted, else one for each way in which some are not.
fn rights(about: &About<'_>, rights: &[(Type, Right)]) -> Vec<Finding> {
    let mut each: Vec<(&Right, Vec<Type>)> = Vec::new();
    for (rtype, right) in rights {
        match each.iter_mut().find(|(seen, _)| *seen == right) {
            Some((_, types)) => types.push(*rtype),
            None => each.push((right, vec![*rtype])),
        }
    }
    let finding = |(right, types): &(&Right, Vec<Type>)| {
        let (place, key) = (place(about, types), about.update_key);
        let text = format!("update of {place}: {}", right.words());
        match right {
            Right::Granted => Finding::well(about.text(), text),
            Right::Denied(Rcode::NOTIMP) => Finding::failure(
                about.text(),
                text + ": it does no dynamic updates",
                "publish to its primary; or make it a secondary of one that does",
            ),
            Right::Unknown(_) => {
                Finding::failure(about.text(), text, "the server's log may say why")
            }
            Right::Denied(_) | Right::DeniedKey => Finding::failure(
                about.text(),
                text,
                format!("allow the key {key} to update {place}"),
            ),
        }
    };
    each.iter().map(finding).collect()
}

/// `A, AAAA, SRV below mesos. and TXT at _mesozone.mesos.`, or `PTR below 10.in-addr.arpa. and ...`
fn place(about: &About<'_>, types: &[Type]) -> String {
    let below = types.iter().filter(|rtype| **rtype != Type::TXT).map(Type::to_string);
    let below = below.collect::<Vec<_>>().join(", ");
    let mut places = Vec::new();
    if !below.is_empty() {
        let Scope { zone, domain, space, .. } = about.scope;
        let parent = if *space == Space::Reverse { zone } else { domain };
        places.push(format!("{below} below {parent}"));
    }
    if types.contains(&Type::TXT) {
        places.push(format!("TXT at {}", about.fence));
    }
    places.join(" and ")
}

/// What a transfer told, beside what is desired, if that is known.
pub fn transferred(about: &About<'_>, view: &View, plan: Option<&Plan>) -> Vec<Finding> {
    let records = view.current.record_count();
    let domain = &about.scope.domain;
    let text = match about.scope.space {
        Space::Below | Space::Within => {
            let records = count(records, "A, AAAA or SRV record", "A, AAAA and SRV records");
            format!("transfer: allowed; {records} below {domain}")
        }
        Space::Reverse => {
            let records = count(records, "PTR record", "PTR records");
            format!("transfer: allowed; {records} to names at and below {domain}")
        }
    };
    let is_kept = matches!(&view.fence, Found::Fence(fence)
        if fence.owner == about.scope.owner && fence.until == Until::Run);
    let mut found = vec![Finding::well(about.text(), text)];
    for (name, rival) in view.foreign.rivals() {
        found.push(other_owner(about, &rival.owner, &format!(", by the fence at {name}")));
    }
    let Some(plan) = plan else { return found };
    for held in &plan.withheld.held {
        let number = held.entries.len();
        let text = match held.why {
            Why::FirstContact => {
                let them = count(number, "record found there is", "records found there are");
                format!("not adopted yet: {them} held")
            }
            why => format!("{} held: {why}", count(number, "removal is", "removals are")),
        };
        let approve = held
            .id
            .map_or_else(String::new, |id| format!(", `mesozone sync --approve {id}` removes all"));
        let approve = match is_kept {
            true => ", the log of the `run` that holds the fence has its id: `mesozone approve ID`"
                .into(),
            false => approve,
        };
        found.push(Finding::warning(
            about.text(),
            text,
            format!("`mesozone diff` lists all{approve}"),
        ));
    }
    let missing = plan.approved.changes().iter().filter(|change| change.added().next().is_some());
    let missing: Vec<(&Key, usize)> = missing.map(|c| (&c.key, c.added().count())).collect();
    if is_kept && !missing.is_empty() {
        let number: usize = missing.iter().map(|(_, count)| count).sum();
        let them = count(number, "desired record is", "desired records are");
        let each = missing.iter().map(|(key, _)| format!("{} {}", key.name, key.rtype));
        found.push(Finding::warning(
            about.text(),
            format!("{them} not in the zone: refused, or not published yet: {}", some(each)),
            "the log of the `run` that holds the fence tells which names are refused, and why",
        ));
    }
    if !plan.withheld.cut.is_empty() {
        let each = plan.withheld.cut.iter().map(|cut| {
            let Key { name, rtype } = &cut.key;
            format!("{name} {rtype} ({} of {})", cut.published, cut.desired)
        });
        found.push(Finding::warning(
            about.text(),
            format!("{} published in part: {}", rrsets(plan.withheld.cut.len()), some(each)),
            "give the tasks several names, or see `rrset_max`",
        ));
    }
    found
}

/// What of the desired zone meets an obstacle there.
pub fn desired(about: &About<'_>, zone: &Zone, foreign: &Foreign) -> Vec<Finding> {
    let mut barred: BTreeMap<String, Vec<&Key>> = BTreeMap::new();
    let mut protected: BTreeMap<String, Vec<&Key>> = BTreeMap::new();
    let mut large = Vec::new();
    for (key, set) in zone.iter() {
        match about.scope.check(key, foreign) {
            Ok(()) if set.rdata().len() > RECORD_MAX_OF_BIND => {
                large.push(format!("{} {} ({})", key.name, key.rtype, set.rdata().len()));
            }
            Ok(()) => {
                if let (_, Some((_, why))) = about.scope.share(set, foreign) {
                    barred.entry(why.to_string()).or_default().push(key);
                }
            }
            Err(NotOurs::Protected(pattern)) => protected.entry(pattern).or_default().push(key),
            Err(why) => barred.entry(why.to_string()).or_default().push(key),
        }
    }
    let mut found = Vec::new();
    for (pattern, keys) in &protected {
        let (number, names) = names(keys);
        let text = format!(
            "protect {pattern:?} keeps {} from being published: {}",
            count(number, "desired name", "desired names"),
            some(names)
        );
        let remedy = "narrow the pattern, if they should be";
        found.push(Finding::warning(about.text(), text, remedy));
    }
    for (why, keys) in &barred {
        let (number, names) = names(keys);
        let text = format!(
            "{} not published, {why}: {}",
            count(number, "desired name", "desired names"),
            some(names)
        );
        let remedy = "remove what is in the way, if they should be";
        found.push(Finding::warning(about.text(), text, remedy));
    }
    let cuts_below = matches!(about.rrset_max, RrsetMax::At(max) if max <= RECORD_MAX_OF_BIND);
    if !large.is_empty() && !cuts_below {
        let (number, which) = (rrsets(large.len()), some(large));
        let text = format!("{number} of more than {RECORD_MAX_OF_BIND} records: {which}");
        let remedy = "BIND takes no more unless max-records-per-type says so; then they are cut";
        found.push(Finding::warning(about.text(), text, remedy));
    }
    found
}

fn rrsets(number: usize) -> String {
    count(number, "RRset", "RRsets")
}

/// The names of some RRsets, each once, and their number.
fn names<'k>(keys: &[&'k Key]) -> (usize, Vec<&'k Name>) {
    let mut names: Vec<&Name> = keys.iter().map(|key| &key.name).collect();
    names.dedup();
    (names.len(), names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Instance;
    use crate::findings;
    use crate::report::Style;
    use crate::rr::{Rrset, Serial};

    fn scope(protect: &[&str]) -> Scope {
        let domain: Name = "mesos".parse().unwrap();
        let owner = Owner::of_domain(&domain);
        let protect = protect.iter().map(|text| crate::scope::Pattern::parse(text).unwrap());
        Scope {
            zone: domain.clone(),
            domain,
            owner,
            protect: protect.collect(),
            space: Space::Below,
        }
    }

    /// The lines that something has to say, without what they are about.
    fn told(protect: &[&str], find: impl FnOnce(&About<'_>) -> Vec<Finding>) -> String {
        let scope = scope(protect);
        let [key, fence] = ["k", "_mesozone.mesos"].map(|text| text.parse().unwrap());
        let about = About {
            target: "t",
            server: "s".to_owned(),
            scope: &scope,
            update_key: &key,
            fence: &fence,
            ttl: Ttl::from_secs(60),
            rrset_max: RrsetMax::Auto,
        };
        let lines = findings::text(&find(&about), Style::Plain);
        lines.replace("target t, server s, zone mesos.: ", "")
    }

    #[track_caller]
    fn check_rights(denied: &[(Type, Right)], expected: &str) {
        let each = crate::probe::types(Space::Below).into_iter().map(|rtype| {
            let right = denied.iter().find(|(denied, _)| *denied == rtype);
            (rtype, right.map_or(Right::Granted, |(_, right)| right.clone()))
        });
        let each: Vec<(Type, Right)> = each.collect();
        assert_eq!(told(&[], |about| rights(about, &each)), expected);
    }

    #[test]
    fn rights_are_one_line_until_they_differ() {
        check_rights(
            &[],
            "ok    update of A, AAAA, SRV below mesos. and TXT at _mesozone.mesos.: allowed\n",
        );
        check_rights(
            &[(Type::SRV, Right::Denied(Rcode::REFUSED)), (Type::TXT, Right::DeniedKey)],
            "ok    update of A, AAAA below mesos.: allowed\n\
             FAIL  update of SRV below mesos.: the server answered REFUSED: its policy does not \
             allow it, it is a secondary, or the zone is frozen; allow the key k. to update SRV \
             below mesos.\n\
             FAIL  update of TXT at _mesozone.mesos.: the server answered NOTAUTH (BADKEY), as Knot \
             does where its acl does not allow it; allow the key k. to update TXT at \
             _mesozone.mesos.\n",
        );
        check_rights(
            &[Type::A, Type::AAAA, Type::SRV, Type::TXT]
                .map(|rtype| (rtype, Right::Denied(Rcode::NOTIMP))),
            "FAIL  update of A, AAAA, SRV below mesos. and TXT at _mesozone.mesos.: the server \
             answered NOTIMP: it does no dynamic updates; publish to its primary; or make it a \
             secondary of one that does\n",
        );
    }

    #[track_caller]
    fn check_fence(owner: &str, until: Until, expected: &str) {
        let fence = Fence {
            owner: Owner::parse(owner).unwrap(),
            instance: Instance(10),
            epoch: 3,
            adoption: Adoption::Adopted,
            until,
            domain: None,
        };
        let found = Found::Fence(fence);
        let line = told(&[], |about| vec![fence_found(about, &found, 1_000)]);
        assert_eq!(line.trim_end(), expected);
    }

    #[test]
    fn a_fence_says_who_has_it() {
        check_fence(
            "mesos",
            Until::Released,
            "ok    fence: ours, and no process holds it, epoch 3; the space is adopted",
        );
        check_fence(
            "mesos",
            Until::Time(999),
            "ok    fence: ours, and no process holds it, epoch 3; the space is adopted",
        );
        check_fence(
            "mesos",
            Until::Time(1_030),
            "ok    fence: held by a `sync` for 30 s more, epoch 3; the space is adopted",
        );
        check_fence(
            "mesos",
            Until::Run,
            "ok    fence: held by a `run` (instance 000000000000000a), epoch 3; the space is adopted",
        );
        check_fence(
            "other",
            Until::Released,
            "FAIL  fence: another owner publishes here: other, not mesos; give this configuration \
             another domain or [ha] owner; if that one is gone for good: `mesozone sync \
             --take-over other`",
        );
    }

    #[test]
    fn a_master_that_is_down_is_a_failure_only_where_none_can_be_read() {
        let level = |standing, cluster| master("m", &standing, None, cluster).level;
        let down = || Standing::Failed("no".to_owned());
        let barred = || Standing::Barred("401".to_owned());
        use crate::findings::Level::{Failure, Warning, Well};
        assert_eq!(level(down(), Cluster::Read), Warning);
        assert_eq!(level(down(), Cluster::Unread), Failure);
        assert_eq!(level(barred(), Cluster::Read), Failure);
        assert_eq!(level(Standing::Leads, Cluster::Read), Well);
    }

    #[test]
    fn a_clock_is_warned_of_from_a_minute_on() {
        let line = |skew| told(&[], |about| vec![clock(about, skew)]);
        assert_eq!(line(Skew::exactly(-59)), "ok    clock: like ours\n");
        assert!(line(Skew::exactly(60)).starts_with("warn  clock: 60 s ahead of ours;"));
        let about = line(Skew { least: -100, most: -80 });
        assert!(about.starts_with("warn  clock: about 90 s behind ours;"), "{about}");
    }

    #[test]
    fn a_negative_ttl_above_the_records_is_warned_of() {
        let lines = |minimum, ttl| {
            let [minimum, ttl] = [minimum, ttl].map(Ttl::from_secs);
            let name: Name = "ns.mesos".parse().unwrap();
            let (primary, responsible) = (name.clone(), name);
            let seen = Soa { primary, responsible, serial: Serial(1), minimum, ttl };
            told(&[], |about| soa(about, &seen)).lines().count()
        };
        assert_eq!((lines(60, 3600), lines(3600, 60), lines(61, 61)), (1, 1, 2));
    }

    #[test]
    fn what_is_in_the_way_of_desired_names_is_listed_with_them() {
        let set = |count: u32| {
            let data = (0..count).map(|n| Rdata::A((0x0a00_0000 + n).into())).collect();
            Rrset::new(Ttl::from_secs(60), data).unwrap()
        };
        let sizes = [("a.mesos", 1), ("b.mesos", 101), ("vip-1.mesos", 1), ("vip-2.mesos", 1)];
        let key = |text: &str| Key { name: text.parse().unwrap(), rtype: Type::A };
        let zone: Zone = sizes.iter().map(|(name, count)| (key(name), set(*count))).collect();
        let lines = told(&["vip-*.mesos"], |about| desired(about, &zone, &Foreign::default()));
        assert_eq!(
            lines,
            "warn  protect \"vip-*.mesos\" keeps 2 desired names from being published: \
             vip-1.mesos., vip-2.mesos.; narrow the pattern, if they should be\n\
             warn  1 RRset of more than 100 records: b.mesos. A (101); BIND takes no more unless \
             max-records-per-type says so; then they are cut\n"
        );
    }
}
