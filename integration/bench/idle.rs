//! What `run` does when neither the cluster nor the zone has changed.

use std::time::{Duration, Instant};

use mesozone::cluster::{Hosts, Numbered};
use mesozone::config::Config;
use mesozone::daemon;
use mesozone::fence::Until;
use mesozone::snapshot::{Completeness, Snapshot};
use mesozone::state;
use mesozone::target::Target;
use mesozone::watch::{Reading, Watch};

use crate::median;
use crate::names::Load;
use crate::peer::{Peer, Setup};
use crate::proxy::Proxy;
use crate::site::Site;

const PASSES: usize = 500;

/// Prints the figures of one server; fails when a pass is more than one question for the SOA.
pub(crate) fn measure(peer: Peer, load: &Load) {
    let site = Site::start(peer, &Setup::default());
    let synced = site.command(&["sync", "--state"]).arg(&load.state).output().expect("mesozone");
    assert!(synced.status.success(), "{synced:?}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (messages, mut passes) = runtime.block_on(async {
        let snapshot = snapshot(load);
        let proxy = Proxy::to(site.peer.addr());
        let mut watched = open(&site, &proxy.addr().to_string());
        watched.read(&snapshot.zone).await.expect("the zone");
        proxy.clear();
        pass(&mut watched, &snapshot).await;
        let messages: Vec<String> = proxy.seen().iter().map(ToString::to_string).collect();

        let mut target = open(&site, &site.peer.addr().to_string());
        target.read(&snapshot.zone).await.expect("the zone");
        let mut passes = Vec::with_capacity(PASSES);
        for _ in 0..PASSES {
            passes.push(pass(&mut target, &snapshot).await);
        }
        (messages, passes)
    });
    assert_eq!(messages, ["QUERY SOA mesos."]);
    passes.sort_unstable();
    let millis = |at: usize| passes[at].as_secs_f64() * 1e3;
    println!(
        "{:<10}{:>8}{:>14}{:>11.3}{:>11.3}{:>11.3}",
        format!("{peer:?}"),
        load.names,
        "1 SOA query",
        median(passes.clone()).as_secs_f64() * 1e3,
        millis(PASSES * 99 / 100),
        millis(PASSES - 1),
    );
}

fn snapshot(load: &Load) -> Snapshot {
    let state = state::parse(&std::fs::read(&load.state).expect("a state")).expect("a state");
    let completeness = Completeness::of_file(&state.cluster);
    let rules = Config::parse("[mesos]\nmasters = [\"http://10.0.0.1:5050\"]\n").expect("valid");
    let masters = rules.mesos.masters.iter().map(|master| master.endpoint.clone()).collect();
    let (hold_left, hosts, events) = (Duration::ZERO, Hosts::new(), Vec::new());
    let reading = Reading { state, completeness, hold_left, hosts, events };
    Watch::new(rules.rules, Numbered::Told(masters), Duration::ZERO).read(reading).0
}

fn open(site: &Site, server: &str) -> Target {
    site.configure(server, site.peer.key_file(), "", "");
    let text = std::fs::read_to_string(site.config()).expect("written just now");
    let config = Config::parse(&text).expect("a valid configuration");
    daemon::targets(&config).expect("a key that can be read").remove(0)
}

/// One pass of `run`, up to where it would send.
async fn pass(target: &mut Target, snapshot: &Snapshot) -> Duration {
    let started = Instant::now();
    target.read(&snapshot.zone).await.expect("the SOA");
    target.may_publish(Until::Run).expect("a fence that is free");
    let plan = target.plan(snapshot, &[]);
    let took = started.elapsed();
    assert!(plan.approved.is_empty() && !plan.withheld.waits(), "a zone that is what it should be");
    took
}
