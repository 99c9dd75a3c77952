//! The cluster read once, for a command: from a file, or from the masters.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tracing::{info, warn};

use crate::cluster::Numbered;
use crate::config::{Config, Watch as Watching};
use crate::masters::Masters;
use crate::resolve::Resolver;
use crate::snapshot::{Completeness, Snapshot};
use crate::state::{State, StateReader};
use crate::watch::{Reading, Watch};

/// Octets of a saved state read at a time.
const CHUNK: usize = 256 * 1024;

#[derive(Args)]
pub(crate) struct Source {
    /// A saved `/state` answer instead of a master; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
}

/// The snapshot of a saved state, or of what the leading master says now.
pub(crate) async fn snapshot(config: &Config, source: &Source) -> Result<Snapshot> {
    let (state, completeness, masters) = match &source.state {
        Some(path) => {
            let state = read_state(path, config.mesos.task_label.clone())?;
            let completeness = Completeness::of_file(&state.cluster);
            let configured = config.mesos.masters.iter().map(|master| master.endpoint.clone());
            // Nobody is asked whom the elections know, so the masters' names stay as they are.
            let masters = match config.mesos.masters.is_empty() {
                true => Numbered::Untold,
                false => Numbered::Told(configured.collect()),
            };
            (state, completeness, masters)
        }
        None => {
            let masters = Masters::new(&config.mesos)?;
            let whole = masters.read(Watching::Poll).await?;
            info!("state read from {}", whole.leader);
            (whole.state, whole.completeness, Numbered::Told(masters.endpoints()))
        }
    };
    // Who looks once knows no earlier name to hold.
    let mut watch = Watch::new(config.rules.clone(), masters, Duration::ZERO);
    let mut names = watch.host_names();
    names.extend(state.cluster.host_names());
    let hosts = Resolver::default().hosts_of(names).await;
    let (hold_left, events) = (Duration::ZERO, Vec::new());
    let (snapshot, _) = watch.read(Reading { state, completeness, hold_left, hosts, events });
    tell_skipped(&snapshot);
    Ok(snapshot)
}

/// A file, or standard input, and what it is called.
pub(crate) fn open(path: &Path) -> Result<(String, Box<dyn Read>)> {
    if path == Path::new("-") {
        return Ok(("standard input".to_owned(), Box::new(std::io::stdin())));
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).with_context(|| format!("reading {name}"))?;
    Ok((name, Box::new(file)))
}

/// Reads a saved state piece by piece: it may be larger than what it tells.
fn read_state(path: &Path, chooses: Option<Arc<str>>) -> Result<State> {
    let (name, mut from) = open(path)?;
    let about = || format!("reading {name}");
    let (mut reader, mut chunk) = (StateReader::new(chooses), vec![0; CHUNK]);
    loop {
        match from.read(&mut chunk).with_context(about)? {
            0 => return reader.finish().with_context(about),
            length => reader.push(&chunk[..length]),
        }
    }
}

fn tell_skipped(snapshot: &Snapshot) {
    for unread in snapshot.unread.iter() {
        warn!("skipped {} {:?}: {}", unread.kind, unread.id, unread.fault);
    }
    for (subject, skips) in snapshot.skipped.iter() {
        skips.iter().for_each(|skip| info!("{subject}: {skip}"));
    }
    let skipped = snapshot.skipped.len();
    if skipped > 0 {
        warn!(
            "{skipped} tasks, agents or frameworks make fewer records than they would; -v lists why"
        );
    }
    if let Completeness::Recovering(why) = snapshot.completeness {
        warn!("the cluster is recovering ({why}): nothing is removed");
    }
}
