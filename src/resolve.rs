//! Addresses of the host names that stand in a cluster's pids, by the system's resolver.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::cluster::Hosts;

/// What all look-ups of one reading may take together: a dead resolver holds up nothing longer.
const LOOKUPS_LIMIT: Duration = Duration::from_secs(5);
/// How long an answer, or the lack of one, is good.
const LOOKUP_AGE: Duration = Duration::from_secs(60);
/// How long an answer nobody asked for again is kept.
const KNOWN_AGE: Duration = Duration::from_secs(3600);
const LOOKUPS_AT_ONCE: usize = 32;

/// Names looked up before.
#[derive(Default)]
pub struct Resolver {
    known: Mutex<BTreeMap<Arc<str>, Known>>,
}

struct Known {
    addresses: Vec<IpAddr>,
    looked_up: Instant,
}

impl Resolver {
    /// The addresses of these host names. One that cannot be resolved now keeps those it had.
    pub async fn hosts_of(&self, names: BTreeSet<Arc<str>>) -> Hosts {
        let now = Instant::now();
        let due: Vec<Arc<str>> = {
            let mut known = self.known();
            known.retain(|_, known| now - known.looked_up < KNOWN_AGE);
            let fresh = |known: &Known| now - known.looked_up < LOOKUP_AGE;
            names.iter().filter(|name| !known.get(*name).is_some_and(fresh)).cloned().collect()
        };
        let lookups = due.into_iter().map(|name| look_up(name, now + LOOKUPS_LIMIT));
        let found: Vec<(Arc<str>, Vec<IpAddr>)> =
            stream::iter(lookups).buffer_unordered(LOOKUPS_AT_ONCE).collect().await;
        let mut known = self.known();
        for (name, addresses) in found {
            let known = known.entry(name);
            let known = known.or_insert(Known { addresses: Vec::new(), looked_up: now });
            known.looked_up = Instant::now();
            if !addresses.is_empty() {
                known.addresses = addresses;
            }
        }
        let of = |name: Arc<str>| known.get(&name).map(|known| (name, known.addresses.clone()));
        names.into_iter().filter_map(of).collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(name: Arc<str>, deadline: Instant) -> (Arc<str>, Vec<IpAddr>) {
    // Once asked, the system's resolver cannot be stopped; so it is not asked when it is too late.
    if Instant::now() >= deadline {
        debug!("looking up {name}: no time left");
        return (name, Vec::new());
    }
    let found = timeout_at(deadline, tokio::net::lookup_host((name.to_string(), 0))).await;
    let mut addresses: Vec<IpAddr> = match found {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
        Ok(Err(error)) => {
            debug!("looking up {name}: {error}");
            Vec::new()
        }
        Err(_) => {
            debug!("looking up {name}: no answer in time");
            Vec::new()
        }
    };
    addresses.sort_unstable();
    addresses.dedup();
    (name, addresses)
}
