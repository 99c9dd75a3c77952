//! A master that pretends: it speaks the HTTP API of an Apache Mesos 1.11 master for a cluster that
//! exists only in its memory, for tests, demonstrations and measurements.
//!
//! As on a real one: `/state`, `/slaves`, `/state-summary`, `/redirect` (each also under `/master`),
//! `/version`, `/health`, `/metrics/snapshot` (a few keys), and `POST /api/v1` with `GET_STATE`,
//! `GET_MASTER`, `GET_VERSION`, `GET_HEALTH` and `SUBSCRIBE`, in JSON.  Other calls are refused as
//! unknown, and so is protobuf.
//!
//! # Options
//!
//! | | |
//! |---|---|
//! | `--listen`, `--lifetime` | where, and for how long |
//! | `--tasks`, `--agents`, `--frameworks`, `--seed`, `--scheduler-pids` | the cluster |
//! | `--churn 200/s` | tasks replaced a second, on a leader and on a standby |
//! | `--leader`, `--no-leader`, `--recovering`, `--recovered`, `--down` | the stage it starts in; `running` if none |
//! | `--lost-agents`, `--elected-ago` | how far the failover is, and how long ago |
//! | `--auth`, `--auth-readonly`, `--auth-readwrite` | Basic authentication, in both realms or one |
//! | `--heartbeat`, `--chunk`, `--subscribers-max`, `--backlog-max` | the streams |
//! | `--no-v1`, `--v1-status`, `--serve`, `--cut-body` | other answers than its own |
//!
//! # Control
//!
//! No part of Mesos is `POST /control`, which changes the cluster and answers what it changed, with
//! 400 and a text if it cannot.  What a stream is told of the change is queued for it before the
//! answer.  Its body is one of those below.  A `count` is 1 if absent; agents go by their index, from 0.
//!
//! ## Tasks
//!
//! ```json
//! {"start": {"framework": "marathon", "name": "web", "count": 2}}
//! {"kill": {"name": "web", "count": 1}}
//! {"move": {"name": "web"}}
//! {"health": {"name": "web", "healthy": false, "count": 1}}
//! {"task-address": {"name": "web", "address": "10.9.9.8"}}
//! ```
//!
//! A started task has discovery, two ports named `http` and `admin`, a health check that passes (in
//! a framework of the kind of Marathon) and its agent's address.  A moved one is replaced by another
//! on the next agent.  `health` flips the oldest tasks of the name that say otherwise.  The address
//! is that of the oldest task of the name, and no stream is told.
//!
//! ## Stages of a failover
//!
//! ```json
//! {"stage": "down"}
//! {"stage": "recovering", "new-process": true}
//! {"stage": "recovered"}
//! {"frameworks-back": ["marathon"]}
//! {"frameworks-back": true}
//! {"agents-back": 2}
//! {"agents-back": true}
//! {"agents-gone": true}
//! {"stage": "running"}
//! {"stage": "no-leader"}
//! {"leader": "127.0.0.1:5051"}
//! {"lose-agents": 2}
//! ```
//!
//! A master that is `down` cuts every connection, and each new one at its first request unless that
//! is for `/control`.  One that is `recovering` is elected and has not read the registry: its state
//! is empty.  `recovered` has read it: all agents are in `recovered_slaves`, there is no framework,
//! and what had ended or was unreachable is forgotten.  Then frameworks and agents come back in
//! any order, and agents that are gone leave without an event, their tasks unknown.  `running`
//! leads with the cluster as it stands.  `leader` makes a standby of it.
//!
//! Whoever enters `recovering`, `recovered` or `running` from another stage was elected at that
//! moment, and so was one that has led and is `recovered`.  With `new-process` the stage begins as
//! another process with another `id`.  `lose-agents` makes a shorter failover: so many agents
//! are waited for, the others and all frameworks are back.  It and every stage break the streams off.
//!
//! ## What a stream tells in part or not at all
//!
//! ```json
//! {"new-agent": true}
//! {"agent-unreachable": 0}
//! {"agent-marked-gone": 0}
//! {"agent-leaves": 0}
//! {"agent-disconnected": 0}
//! {"agent-deactivated": 0}
//! {"agent-back": 0}
//! {"agent-address": {"agent": 0, "address": "10.9.9.9"}}
//! {"new-framework": {"name": "batch", "kind": "chronos"}}
//! {"framework-disconnected": "marathon"}
//! {"teardown": "marathon"}
//! {"silence": true}
//! ```
//!
//! An operator marks an agent gone; one that leaves is the only one a stream sees go.  `agent-back`
//! undoes the others, and brings back a single agent after a failover.
//! A kind is `marathon`, `chronos` or `aurora`, and the first if absent.  A disconnected framework
//! is back with `frameworks-back`.  A silent stream stays open without events and heartbeats
//! until `{"silence": false}`, then carries all it held back; streams that begin meanwhile speak.
//!
//! With the same `--seed` and the same requests two masters have the same cluster, so one can stand by
//! for another and take over from it.
#![forbid(unsafe_code)]

mod agent;
mod app;
mod body;
mod cluster;
mod connection;
mod control;
mod framework;
mod http;
mod master;
mod random;
mod resources;
mod roster;
mod state;
mod stream;
mod summary;
mod task;
mod v1;

use std::io::{Write, stdout};
use std::net::{SocketAddr, SocketAddrV4};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use base64::Engine as _;
use clap::Parser;
use tokio::net::TcpListener;

use crate::cluster::{Cluster, Shape};
use crate::connection::Door;
use crate::master::{Manner, Master, Simulation, Stage, now};
use crate::state::Identity;
use crate::stream::Subscribers;

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
    /// Ask for it at /state, /slaves, /state-summary and /metrics/snapshot
    #[arg(long, value_name = "PRINCIPAL:SECRET", conflicts_with = "auth")]
    auth_readonly: Option<String>,
    /// Ask for it at /api/v1
    #[arg(long, value_name = "PRINCIPAL:SECRET", conflicts_with = "auth")]
    auth_readwrite: Option<String>,
    /// Know no /api/v1
    #[arg(long)]
    no_v1: bool,
    /// Answer every call of /api/v1 with this status
    #[arg(long, value_name = "CODE", conflicts_with = "no_v1")]
    v1_status: Option<StatusCode>,
    /// The time between two heartbeats of a stream
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "15")]
    heartbeat: Duration,
    /// The most octets a chunk of a stream has
    #[arg(long, value_name = "OCTETS")]
    chunk: Option<NonZero<usize>>,
    /// The most streams there are; one more ends the oldest
    #[arg(long, value_name = "N", default_value = "1000")]
    subscribers_max: NonZero<usize>,
    /// Cut a stream off whose client is more records behind; the default leaves room for a hundred
    /// thousand tasks coming back at once
    #[arg(long, value_name = "RECORDS", default_value_t = 250_000)]
    backlog_max: usize,
    /// Give every framework the pid of a scheduler with the old driver
    #[arg(long)]
    scheduler_pids: bool,
    /// Stand by, and redirect to this leader
    #[arg(long, value_name = "HOST:PORT", group = "stage")]
    leader: Option<String>,
    /// Know of no leader
    #[arg(long, group = "stage")]
    no_leader: bool,
    /// Be elected, with the registry not yet read
    #[arg(long, group = "stage")]
    recovering: bool,
    /// Be elected, with the registry read, and no agent and no framework back
    #[arg(long, group = "stage")]
    recovered: bool,
    /// Answer nothing but /control
    #[arg(long, group = "stage")]
    down: bool,
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

fn seconds(text: &str) -> Result<Duration, String> {
    let refused = || "a number of seconds above 0, such as 0.2".to_owned();
    let seconds: f64 = text.parse().map_err(|_| refused())?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero()).ok_or_else(refused)
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
    let door = Door::new(listener, master.links.clone());
    let mut out = stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    out.flush()?;
    drop(out);
    tokio::select! {
        served = axum::serve(door, http::routes(master.clone())) => Ok(served?),
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
    if options.scheduler_pids {
        cluster.give_scheduler_pids(options.seed);
    }
    if options.lost_agents > 0 {
        cluster.lose_agents(options.lost_agents, now);
    }
    if options.recovered {
        cluster.fail_over();
    }
    let elected_time = now - f64::from(options.elected_ago);
    let stage = match (options.leader, options.no_leader, options.recovering, options.down) {
        (Some(leader), ..) => Stage::Standby(leader),
        (_, true, ..) => Stage::NoLeader,
        (_, _, true, _) => Stage::Recovering,
        (.., true) => Stage::Down,
        _ => Stage::Leading,
    };
    let simulation = Simulation {
        identity: Identity::new(address, options.seed, elected_time),
        stage,
        cluster,
        version: 0,
        subscribers: Subscribers::new(options.subscribers_max.get(), options.backlog_max),
    };
    let encode = |auth| base64::engine::general_purpose::STANDARD.encode(auth);
    let basic = |auth: Option<String>| auth.map(|auth| format!("Basic {}", encode(auth)));
    let manner = Manner {
        address,
        read_only: basic(options.auth_readonly.or_else(|| options.auth.clone())),
        read_write: basic(options.auth_readwrite.or(options.auth)),
        v1_status: options.no_v1.then_some(StatusCode::NOT_FOUND).or(options.v1_status),
        heartbeat: options.heartbeat,
        chunk: options.chunk.map_or(usize::MAX, NonZero::get),
        recorded: options.serve,
        cut_body: options.cut_body,
    };
    Master::new(simulation, manner)
}

/// Replaces so many tasks a second, for ever.
async fn change(master: &Master, rate: f64) {
    if rate <= 0.0 {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    loop {
        ticks.tick().await;
        master.lock().churn(now());
    }
}

async fn ends(lifetime: Option<u64>) {
    match lifetime {
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}
