//! What others change in our space is found by the next pass and counted.

use std::time::Duration;

use mesozone::cluster::{Hosts, Numbered};
use mesozone::config::Config;
use mesozone::daemon;
use mesozone::pass::{Order, Passed};
use mesozone::snapshot::{Completeness, Snapshot};
use mesozone::state;
use mesozone::target::Target;
use mesozone::watch::{Reading, Watch};
use tokio::sync::watch;

use crate::peer::{Setup, on_every_peer};
use crate::proxy::Proxy;
use crate::site::Site;

fn snapshot(config: &Config) -> Snapshot {
    let tasks = crate::site::state(&[("web", &["10.1.0.1"]), ("db", &["10.1.0.2"])]);
    let state = state::parse(tasks.to_string().as_bytes()).unwrap();
    let completeness = Completeness::of_file(&state.cluster);
    let masters = config.mesos.masters.iter().map(|master| master.endpoint.clone()).collect();
    let (hold_left, hosts, events) = (Duration::ZERO, Hosts::new(), Vec::new());
    let reading = Reading { state, completeness, hold_left, hosts, events };
    let masters = Numbered::Told(masters);
    Watch::new(config.rules.clone(), masters, Duration::ZERO).read(reading).0
}

#[test]
fn what_others_change_is_found_by_the_next_pass_and_counted() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let proxy = Proxy::to(site.peer.addr());
        site.configure(&proxy.addr().to_string(), site.peer.key_file(), "", "");
        let config = Config::parse(&std::fs::read_to_string(site.config()).unwrap()).unwrap();
        let snapshot = snapshot(&config);
        let mut target = daemon::targets(&config).unwrap().remove(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_stop, stop) = watch::channel(false);
        let pass = |target: &mut Target| {
            let order = Order::run(&stop);
            let mut tell = |_: &Target, _: &_| {};
            let passed = runtime.block_on(target.pass(&snapshot, &order, &mut tell));
            assert_eq!(passed.unwrap(), Passed::Done);
            target.drift_count()
        };
        assert_eq!(pass(&mut target), 0);
        let before = site.peer.axfr();
        let mut check = |script: &str, count: u64| {
            site.peer.nsupdate(script);
            proxy.clear();
            assert_eq!(pass(&mut target), count, "{peer:?}: {script}");
            let asked = proxy.seen().iter().map(|seen| seen.to_string()).collect::<Vec<_>>();
            assert_eq!(asked[..2], ["QUERY SOA mesos.", "QUERY IXFR mesos."]);
        };
        check("add other.mesos 60 TXT \"theirs\"", 0);
        check("delete web.marathon.mesos A", 1);
        check("delete db.marathon.mesos A\nadd db.marathon.mesos 60 A 192.0.2.1", 3);
        check("add stray.mesos 60 AAAA 2001:db8::1", 4);
        check("delete _mesozone.mesos TXT\ndelete web.marathon.mesos A", 6);
        check("delete other.mesos TXT", 6);
        // The fence is another.
        let ours = |zone: Vec<String>| -> Vec<String> {
            zone.into_iter().filter(|line| !line.contains("\tTXT\t")).collect()
        };
        assert_eq!(ours(site.peer.axfr()), ours(before));
    });
}
