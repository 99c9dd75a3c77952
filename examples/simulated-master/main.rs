//! A master that pretends: it speaks the HTTP API of an Apache Mesos 1.11 master for a cluster that
//! exists only in its memory, for tests, demonstrations and measurements.
//!
//! As on a real one: `/state`, `/slaves`, `/redirect` (each also under `/master`), `/version`,
//! `/health`, `/metrics/snapshot` (a few keys), and `POST /api/v1` with `GET_STATE`, `GET_MASTER`,
//! `GET_VERSION`, `GET_HEALTH` and `SUBSCRIBE`, in JSON.  Other calls are refused as unknown, and so is
//! protobuf.
//!
//! No part of Mesos is `POST /control`, which changes the cluster and answers what it changed.  Its
//! body is one of
//!
//! ```json
//! {"start": {"framework": "marathon", "name": "web", "count": 2}}
//! {"kill": {"name": "web", "count": 1}}
//! {"move": {"name": "web"}}
//! {"stage": "recovering"}
//! {"lose-agents": 2}
//! {"agents-back": true}
//! ```
//!
//! `count` is 1 if absent.  A started task has discovery, two ports named `http` and `admin`, a health
//! check that passes and its agent's address.  A moved one is replaced by another on the next agent.  The
//! stages are `running`, `recovering` and `no-leader`; a standby that enters `running` leads, elected at
//! that moment.  Lost agents are those a new leader still waits for.  A new stage and a loss of agents
//! break the streams off, as a failover does.
//!
//! With the same `--seed` two masters have the same cluster, so one can stand by for another.
#![forbid(unsafe_code)]

mod app;
mod body;
mod cluster;
mod control;
mod http;
mod master;
mod random;
mod resources;
mod state;
mod task;
mod v1;

use std::io::{Write, stdout};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use crate::cluster::{Cluster, Shape};
use crate::master::{Master, Simulation, Stage, now};
use crate::random::Random;
use crate::state::Identity;

/// Speaks the API of a Mesos master for a cluster that exists only in its memory.
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 takes a free one, which the first line on stdout names
    #[arg(long, default_value = "127.0.0.1:5050")]
    listen: SocketAddrV4,
    #[arg(long, default_value_t = 20)]
    tasks: usize,
    /// A twentieth of the tasks if absent, and at least 3
    #[arg(long)]
    agents: Option<usize>,
    #[arg(long, default_value_t = 3)]
    frameworks: usize,
    /// Tasks replaced a second, such as 5/s
    #[arg(long, value_parser = rate, default_value = "0/s")]
    churn: f64,
    /// What the cluster and the order of its changes follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ask for HTTP Basic authentication
    #[arg(long, value_name = "PRINCIPAL:SECRET")]
    auth: Option<String>,
    /// Stand by, and redirect to this leader
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["no_leader", "recovering"])]
    leader: Option<String>,
    /// Know of no leader
    #[arg(long, conflicts_with = "recovering")]
    no_leader: bool,
    /// Be elected, with the registry not yet read
    #[arg(long)]
    recovering: bool,
    /// Agents that have not come back since the failover; their tasks are absent
    #[arg(long, value_name = "N", default_value_t = 0)]
    lost_agents: usize,
    /// How long ago the master was elected
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    elected_ago: u32,
    /// Answer with the bodies of a recorded folder (state.json, v1-get_state.json, ...)
    #[arg(long, value_name = "DIR")]
    serve: Option<PathBuf>,
    /// Break every body of /state off halfway
    #[arg(long)]
    cut_body: bool,
    /// End after so long
    #[arg(long, value_name = "SECONDS")]
    lifetime: Option<u64>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.trim_end_matches("/s").parse() {
        Ok(rate) if (0.0..=1e6).contains(&rate) => Ok(rate),
        _ => Err("a number of tasks a second from 0 to 1000000, such as 5/s".to_owned()),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.agents != Some(0), "--agents: a cluster has at least one");
    ensure!(options.frameworks > 0, "--frameworks: a cluster has at least one");
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("listening on {}", options.listen))?;
    let SocketAddr::V4(address) = listener.local_addr()? else { unreachable!("bound to IPv4") };
    let (churn, lifetime) = (options.churn, options.lifetime);
    let master = Arc::new(master(options, address));
    let mut out = stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    out.flush()?;
    drop(out);
    tokio::select! {
        served = axum::serve(listener, http::routes(master.clone())) => Ok(served?),
        () = change(&master, churn) => Ok(()),
        () = ends(lifetime) => Ok(()),
    }
}

fn master(options: Options, address: SocketAddrV4) -> Master {
    let now = now();
    let mut cluster = Cluster::new(
        &Shape {
            tasks: options.tasks,
            agents: options.agents.unwrap_or((options.tasks / 20).max(3)),
            frameworks: options.frameworks,
            seed: options.seed,
        },
        now,
    );
    let elected_time = now - f64::from(options.elected_ago);
    if options.lost_agents > 0 {
        cluster.lose_agents(options.lost_agents, now);
    }
    let identity = Identity {
        id: Random::new(options.seed ^ u64::from(address.port()) << 32).uuid(),
        address,
        start_time: elected_time - 0.05,
        elected_time,
    };
    let stage = match (options.leader, options.no_leader, options.recovering) {
        (Some(leader), ..) => Stage::Standby(leader),
        (None, true, _) => Stage::NoLeader,
        (None, false, true) => Stage::Recovering,
        (None, false, false) => Stage::Leading,
    };
    // A subscriber this many records behind is cut off rather than waited for.
    let events = broadcast::Sender::new(65_536);
    let simulation = Simulation { identity, stage, cluster, version: 0, events };
    let encode = |auth| base64::engine::general_purpose::STANDARD.encode(auth);
    let authorization = options.auth.map(|auth| format!("Basic {}", encode(auth)));
    Master::new(simulation, authorization, options.serve, options.cut_body)
}

/// Replaces so many tasks a second, for ever.
async fn change(master: &Master, rate: f64) {
    if rate <= 0.0 {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    loop {
        ticks.tick().await;
        let mut simulation = master.lock();
        let changes = simulation.cluster.churn(now());
        simulation.publish(&changes);
    }
}

async fn ends(lifetime: Option<u64>) {
    match lifetime {
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}
