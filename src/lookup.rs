//! What is known of one name: its records here, and what each target answers.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::config::Target;
use crate::connection::Connection;
use crate::name::Name;
use crate::report::chain;
use crate::searched::{Answer, Found, Search};
use crate::snapshot::Snapshot;
use crate::tls::Tls;

/// How long a server may take.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Looks for a name; one that ends in no dot may leave out the domain.
pub(crate) async fn search(
    asked: &str,
    domain: &Name,
    snapshot: Option<&Snapshot>,
    targets: &[Target],
) -> Search {
    let found = match read(asked.trim(), domain, snapshot) {
        Ok(name) => {
            let here = snapshot.map_or_else(Vec::new, |snapshot| desired(snapshot, &name));
            let asked = targets.iter().filter(|target| name.is_within(&target.scope.zone));
            let there = join_all(asked.map(async |target| {
                let answers = timeout(ANSWER_MAX, ask(target, &name)).await;
                let late = || format!("no answer within {} s", ANSWER_MAX.as_secs());
                (target.name.clone(), answers.unwrap_or_else(|_| Err(late())))
            }));
            Ok(Found { here, there: there.await, name })
        }
        Err(why) => Err(why),
    };
    Search { asked: asked.to_owned(), found }
}

/// The name that is meant: as it stands where it is within a zone of ours, else below the domain.
fn read(text: &str, domain: &Name, snapshot: Option<&Snapshot>) -> Result<Name, String> {
    let name: Name =
        text.parse().map_err(|error| format!("{text:?} is no domain name: {error}"))?;
    let reverse = snapshot.into_iter().flat_map(|snapshot| snapshot.reverse.keys());
    let is_ours = [domain].into_iter().chain(reverse).any(|zone| name.is_within(zone));
    if is_ours || text.ends_with('.') {
        return Ok(name);
    }
    format!("{name}{domain}")
        .parse()
        .map_err(|error| format!("{text:?} is no domain name: {error}"))
}

fn desired(snapshot: &Snapshot, name: &Name) -> Vec<Answer> {
    let zones = [&snapshot.zone].into_iter().chain(snapshot.reverse.values());
    let sets = zones.flat_map(|zone| zone.at(name));
    sets.flat_map(|(rtype, set)| {
        set.rdata().iter().map(move |rdata| (rtype, set.ttl(), rdata.clone()))
    })
    .collect()
}

/// What the server of a target answers to whoever asks without a key.
async fn ask(target: &Target, name: &Name) -> Result<Vec<Answer>, String> {
    let tls = target.tls.as_ref().map(Tls::new).transpose().map_err(|error| chain(&error))?;
    let connection = Connection::open(&target.server, tls.as_ref()).await;
    let mut connection = connection.map_err(|error| chain(&error))?;
    let mut answers = Vec::new();
    for rtype in target.scope.space.types() {
        let found = connection.plain(name, *rtype).await.map_err(|error| chain(&error))?;
        answers.extend(found.into_iter().map(|(ttl, rdata)| (*rtype, ttl, rdata)));
    }
    Ok(answers)
}
