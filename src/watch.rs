//! From what a master answered to what is published: one snapshot after the other.

use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog::Catalog;
use crate::cluster::Endpoint;
use crate::mesos::State;
use crate::records::Rules;
use crate::resolve::Resolver;
use crate::snapshot::{Completeness, Snapshot};

/// The one writer of snapshots.
pub struct Watch {
    catalog: Catalog,
    masters: Vec<Endpoint>,
    resolver: Resolver,
    complete_once: bool,
}

impl Watch {
    /// `masters` in configured order, for the names that number them.
    pub fn new(rules: Rules, masters: Vec<Endpoint>) -> Watch {
        Watch {
            catalog: Catalog::new(rules),
            masters,
            resolver: Resolver::default(),
            complete_once: false,
        }
    }

    /// Makes the snapshot of a state. While the cluster recovers it only grows.
    pub async fn publish(&mut self, state: State, completeness: Completeness) -> Snapshot {
        let State { mut cluster, ended, unread } = state;
        cluster.masters.clone_from(&self.masters);
        if !completeness.is_complete() {
            cluster.keep(self.catalog.cluster(), &ended);
        }
        cluster.resolve(&self.resolver.hosts_of(&cluster).await);
        tokio::task::block_in_place(|| self.catalog.update(cluster));
        self.complete_once |= completeness.is_complete();
        Snapshot {
            zone: self.catalog.zone().clone(),
            cluster: self.catalog.cluster().clone(),
            skipped: self.catalog.skipped().clone(),
            unread: Arc::from(unread),
            completeness,
            unknown: self.catalog.unknown().clone(),
            complete_once: self.complete_once,
            read_at: SystemTime::now(),
        }
    }
}
