//! The master as a whole: who it is, whether it leads, the cluster it knows, and who listens.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::http::StatusCode;

use crate::body::Record;
use crate::cluster::{Change, Cluster};
use crate::connection::Links;
use crate::state::Identity;
use crate::stream::Subscribers;
use crate::v1;

pub(crate) enum Stage {
    /// No process: nothing is answered but `POST /control`.
    Down,
    /// Another master leads, at this `HOST:PORT`.
    Standby(String),
    NoLeader,
    /// Elected, the registry not read.
    Recovering,
    Leading,
}

impl Stage {
    pub(crate) fn is_elected(&self) -> bool {
        matches!(self, Stage::Recovering | Stage::Leading)
    }
}

pub(crate) struct Simulation {
    pub(crate) identity: Identity,
    pub(crate) stage: Stage,
    pub(crate) cluster: Cluster,
    /// Counts the changes.
    pub(crate) version: u64,
    pub(crate) subscribers: Subscribers,
}

/// What does not change while the process runs.
pub(crate) struct Manner {
    pub(crate) address: SocketAddrV4,
    /// The `Authorization` value each realm lets in; none: everybody.
    pub(crate) read_only: Option<String>,
    pub(crate) read_write: Option<String>,
    /// What every call of /api/v1 is answered with, if it is not looked at.
    pub(crate) v1_status: Option<StatusCode>,
    pub(crate) heartbeat: Duration,
    /// The most octets a chunk of a stream has.
    pub(crate) chunk: usize,
    pub(crate) recorded: Option<PathBuf>,
    pub(crate) cut_body: bool,
}

pub(crate) struct Master {
    simulation: Mutex<Simulation>,
    /// The last gzipped body of each answer, with the version it was made from.
    pub(crate) zipped: Mutex<HashMap<&'static str, (u64, Bytes)>>,
    pub(crate) manner: Manner,
    pub(crate) links: Links,
}

impl Master {
    pub(crate) fn new(simulation: Simulation, manner: Manner) -> Master {
        Master {
            simulation: Mutex::new(simulation),
            zipped: Mutex::default(),
            manner,
            links: Links::default(),
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

    /// Replaces a task, where tasks start: on a leader, and on a standby that is to follow it.
    pub(crate) fn churn(&mut self, now: f64) {
        if matches!(self.stage, Stage::Leading | Stage::Standby(_)) {
            let changes = self.cluster.churn(now);
            self.publish(&changes);
        }
    }

    /// Counts the changes and tells the subscribers.
    pub(crate) fn publish(&mut self, changes: &[Change]) {
        self.version += 1;
        if changes.is_empty() || self.subscribers.is_empty() {
            return;
        }
        let records = changes.iter().flat_map(|change| v1::records(change, &self.cluster));
        let records: Vec<Record> = records.collect();
        self.subscribers.send(records);
    }

    /// Enters the stage; the streams break off.
    pub(crate) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.break_streams();
    }

    pub(crate) fn break_streams(&mut self) {
        self.version += 1;
        self.subscribers.break_off();
    }
}

/// Seconds since 1970, to the microsecond as Mesos has them.
pub(crate) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as f64 / 1e6
}
