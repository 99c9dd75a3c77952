//! The master as a whole: who it is, whether it leads, the cluster it knows, and who listens.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use tokio::sync::broadcast;

use crate::cluster::{Change, Cluster};
use crate::state::Identity;
use crate::v1;

pub(crate) enum Stage {
    /// Another master leads, at this `HOST:PORT`.
    Standby(String),
    NoLeader,
    /// Elected, the registry not read.
    Recovering,
    Leading,
}

/// What goes to every subscriber.
#[derive(Clone)]
pub(crate) enum Event {
    Record(Arc<str>),
    /// The master is gone, or leads no longer.
    Broken,
}

pub(crate) struct Simulation {
    pub(crate) identity: Identity,
    pub(crate) stage: Stage,
    pub(crate) cluster: Cluster,
    /// Counts the changes.
    pub(crate) version: u64,
    pub(crate) events: broadcast::Sender<Event>,
}

pub(crate) struct Master {
    simulation: Mutex<Simulation>,
    /// The last gzipped body of each answer, with the version it was made from.
    pub(crate) zipped: Mutex<HashMap<&'static str, (u64, Bytes)>>,
    pub(crate) address: SocketAddrV4,
    /// The `Authorization` value that is let in; none: everybody.
    pub(crate) authorization: Option<String>,
    pub(crate) recorded: Option<PathBuf>,
    pub(crate) cut_body: bool,
}

impl Master {
    pub(crate) fn new(
        simulation: Simulation,
        authorization: Option<String>,
        recorded: Option<PathBuf>,
        cut_body: bool,
    ) -> Master {
        Master {
            address: simulation.identity.address,
            simulation: Mutex::new(simulation),
            zipped: Mutex::default(),
            authorization,
            recorded,
            cut_body,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Simulation> {
        self.simulation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Simulation {
    /// The cluster, once it is known.
    pub(crate) fn known(&self) -> Option<&Cluster> {
        matches!(self.stage, Stage::Leading).then_some(&self.cluster)
    }

    /// Counts the changes and tells the subscribers.
    pub(crate) fn publish(&mut self, changes: &[Change]) {
        self.version += 1;
        if self.events.receiver_count() > 0 {
            let records = changes.iter().flat_map(v1::records).collect();
            self.send(records);
        }
    }

    pub(crate) fn send(&self, records: Vec<serde_json::Value>) {
        for record in records {
            // Without a receiver nobody is subscribed.
            let _ = self.events.send(Event::Record(record.to_string().into()));
        }
    }

    /// Enters the stage; one that begins to lead was elected just now.
    pub(crate) fn enter(&mut self, stage: Stage, now: f64) {
        let is_elected = |stage: &Stage| matches!(stage, Stage::Leading | Stage::Recovering);
        if is_elected(&stage) && !is_elected(&self.stage) {
            self.identity.elected_time = now;
        }
        self.stage = stage;
        self.break_streams();
    }

    pub(crate) fn break_streams(&mut self) {
        self.version += 1;
        // Without a receiver nobody is subscribed.
        let _ = self.events.send(Event::Broken);
    }
}

/// Seconds since 1970, to the microsecond as Mesos has them.
pub(crate) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as f64 / 1e6
}
