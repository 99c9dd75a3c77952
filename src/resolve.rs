//! Addresses of the host names that stand in a cluster's pids, by the system's resolver.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::cluster::{Cluster, Hosts};

const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
const LOOKUPS_AT_ONCE: usize = 32;

/// Looks up every host name of the cluster. One that cannot be resolved now keeps the addresses
/// it had.
pub async fn hosts_of(cluster: &Cluster, known: &Hosts) -> Hosts {
    let lookups = cluster.host_names().into_iter().map(|name| async move {
        let found = timeout(LOOKUP_LIMIT, tokio::net::lookup_host((name.to_string(), 0))).await;
        let addresses = match found {
            Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
            Ok(Err(error)) => {
                debug!("looking up {name}: {error}");
                Vec::new()
            }
            Err(_) => {
                warn!("looking up {name}: no answer within {} s", LOOKUP_LIMIT.as_secs());
                Vec::new()
            }
        };
        (name, addresses)
    });
    let found: Vec<(Arc<str>, Vec<_>)> =
        stream::iter(lookups).buffer_unordered(LOOKUPS_AT_ONCE).collect().await;
    let kept = |(name, mut addresses): (Arc<str>, Vec<_>)| {
        if addresses.is_empty() {
            addresses = known.get(&name).cloned().unwrap_or_default();
        }
        addresses.sort_unstable();
        addresses.dedup();
        (name, addresses)
    };
    found.into_iter().map(kept).collect()
}
