//! `diff` and `sync` against real name servers.

use serde_json::Value;

use crate::peer::{Grant, Setup, on_every_peer};
use crate::proxy::Proxy;
use crate::site::{Site, state};

fn web() -> Value {
    state(&[("web", &["10.1.0.1"]), ("web", &["10.1.0.2"]), ("db", &["10.1.0.3", "fd00::3"])])
}

#[test]
fn a_cold_publish_makes_the_zone_that_was_shown() {
    on_every_peer(|peer| {
        let site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        let shown = site.diff(&web()).exits(1).stdout;
        assert!(shown.contains("+ web.marathon.mesos. 60 A 10.1.0.1\n"), "{shown}");
        assert_eq!(site.peer.axfr(), before, "a dry run changes nothing");
        let done = site.sync(&web()).exits(0).stdout;
        assert_eq!(done, shown, "sync does what diff showed");
        let records = site.with(&web(), &["records", "--format", "tsv"]).exits(0).stdout;
        assert_eq!(site.published(&before), records);
        assert_eq!(site.peer.query("web.marathon.mesos", "A"), ["10.1.0.1", "10.1.0.2"]);
        site.diff(&web()).exits(0);
    });
}
