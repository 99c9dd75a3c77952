//! A zone with records of others in it, a `run` that publishes into it through a proxy, and a
//! fault that strikes one of them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::operator::Operator;
use crate::peer::{Peer, Setup};
use crate::proxy::Proxy;
use crate::running::{Daemon, desired};
use crate::simulated::Simulated;
use crate::site::Site;

/// Longer than a reply is awaited.
const PATIENCE: Duration = Duration::from_secs(150);

/// As many as make a dozen messages, with the name that each has.
const TASKS: usize = 180;
const NAME: &str = "a-task-with-a-name-of-many-letters-makes-large-records";

/// What fits a line of what mesozone says.
const SAID_MAX: usize = 70;

/// What others keep in the zone.
const FOREIGN: &str = "\
www IN A 192.0.2.1
www IN AAAA 2001:db8::1
mail IN MX 10 www
note IN TXT \"ours\"
alias IN CNAME www
lab IN NS ns.lab
lab IN NS ns2
ns.lab IN A 192.0.2.53
ns2 IN A 192.0.2.54
";

pub(crate) struct Stage {
    pub(crate) peer: Peer,
    pub(crate) site: Site,
    pub(crate) proxy: Proxy,
    pub(crate) master: Simulated,
    daemon: Option<Daemon>,
    foreign: Vec<String>,
    desired: String,
    /// When the fault was over.
    over_at: Instant,
    /// Messages before it struck.
    seen: usize,
}

/// How a fault ended.
pub(crate) struct Outcome {
    /// The warnings, without time and place.
    pub(crate) said: Vec<String>,
    /// Messages since the fault struck.
    pub(crate) messages: usize,
    /// From the end of the fault until the zone was the desired one.
    pub(crate) zone: Duration,
    /// And until mesozone was well again.
    pub(crate) well: Duration,
    /// Records of others that are not what they were.
    pub(crate) foreign: Vec<String>,
}

impl Stage {
    /// All but the `run`.
    pub(crate) fn set(peer: Peer) -> Stage {
        let master = Simulated::start(&["--tasks", "10"]);
        for n in 0..TASKS {
            let name = format!("{NAME}-{n:03}");
            master.control(json!({"start": {"framework": "marathon", "name": name}}));
        }
        let site = Site::start(peer, &Setup { records: FOREIGN, ..Setup::default() });
        let proxy = Proxy::to(site.peer.addr());
        let server = proxy.addr().to_string();
        site.configure(&server, site.peer.key_file(), "protect = [\"www.mesos\"]", "");
        site.follow(&[format!("http://{}", master.address)], "poll_interval = \"100ms\"");
        let (foreign, desired) = (site.peer.axfr(), desired(&site));
        let over_at = Instant::now();
        Stage { peer, site, proxy, master, daemon: None, foreign, desired, over_at, seen: 0 }
    }

    /// A `run` that has published.
    pub(crate) fn published(peer: Peer) -> Stage {
        let mut stage = Stage::set(peer);
        stage.run();
        stage.until("the zone is published", Stage::is_well);
        stage
    }

    pub(crate) fn run(&mut self) {
        self.daemon = Some(Daemon::start(&self.site));
    }

    pub(crate) fn stop(&mut self) {
        let (code, log) = self.daemon.take().expect("it runs").stop();
        assert_eq!(code, 0, "{log:#?}");
    }

    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("it runs")
    }

    /// BIND starts again with it, so before the `run`.
    pub(crate) fn operator(&mut self) -> Operator {
        Operator::of(self.peer)
    }

    /// How many messages the zone takes.
    pub(crate) fn message_count(&self) -> usize {
        let script = self.site.run(&["diff", "--format", "nsupdate"]).exits(1).stdout;
        script.lines().filter(|line| *line == "send").count()
    }

    pub(crate) fn start_task(&mut self, name: &str) {
        self.master.control(json!({"start": {"framework": "marathon", "name": name}}));
        self.desired = desired(&self.site);
    }

    pub(crate) fn kill_task(&mut self, name: &str) {
        self.master.control(json!({"kill": {"name": name}}));
        self.desired = desired(&self.site);
    }

    /// Others' records that were added since.
    pub(crate) fn others_add(&mut self, script: &str) {
        self.site.peer.nsupdate(script);
        let added = script.lines().filter_map(|line| {
            let fields: Vec<&str> = line.strip_prefix("add ")?.splitn(4, ' ').collect();
            Some(format!("{}.\t{}\t{}\t{}", fields[0], fields[1], fields[2], fields[3]))
        });
        self.foreign.extend(added);
    }

    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Stage) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let peer = self.peer;
            assert!(Instant::now() < deadline, "{peer:?}, never: {what}: {:#?}", self.log());
            crate::running::between_looks();
        }
    }

    fn log(&mut self) -> Vec<String> {
        self.daemon.as_mut().map(|daemon| daemon.log().to_vec()).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn says(&mut self, part: &str) {
        self.until(part, |stage| stage.log().iter().any(|line| line.contains(part)));
    }

    /// The fault begins.
    pub(crate) fn strikes(&mut self) {
        self.seen = self.proxy.seen().len();
        self.over_at = Instant::now();
    }

    /// It is over.
    pub(crate) fn is_over(&mut self) {
        self.over_at = Instant::now();
    }

    pub(crate) fn is_desired(&mut self) -> bool {
        let fence = self.site.peer.query("_mesozone.mesos", "TXT");
        let held = |fence: &str| fence.contains("owner=mesos ") && fence.contains(" until=run");
        matches!(fence.as_slice(), [one] if held(one))
            && self.site.published(&self.foreign) == self.desired
    }

    /// The zone is desired, and the last trouble is told to be over.
    pub(crate) fn is_well(&mut self) -> bool {
        let log = self.log();
        let last = |part: &str| log.iter().rposition(|line| line.contains(part));
        // Where all was carried out, nothing is left to publish.
        last("published").or(last("well again")).is_some()
            && last("WARN target lab, server").is_none_or(|told| last("well again") > Some(told))
            && self.is_desired()
    }

    /// Waits for the end, stops the `run` and looks at what there is.
    pub(crate) fn ends(mut self) -> Outcome {
        self.until("the zone is the desired one", Stage::is_desired);
        let zone = self.over_at.elapsed();
        self.until("all is well", Stage::is_well);
        let (well, messages) = (self.over_at.elapsed(), self.proxy.seen().len() - self.seen);
        let (code, log) = self.daemon.take().expect("it runs").stop();
        assert_eq!(code, 0, "{log:#?}");
        assert_eq!(self.site.published(&self.foreign), self.desired, "a stop changes nothing");
        let fence = self.site.peer.query("_mesozone.mesos", "TXT").concat();
        assert!(fence.contains(" until=0"), "{fence}: {log:#?}");
        let refused: Vec<_> =
            log.iter().filter(|line| line.contains("is tried again in")).collect();
        assert!(refused.is_empty(), "{refused:#?}");
        let now = self.site.peer.axfr();
        let foreign = self.foreign.into_iter().filter(|line| !now.contains(line)).collect();
        let said = log.iter().filter_map(|line| Some(line.split_once(" WARN ")?.1));
        let said: Vec<String> = said.map(without_place).collect();
        assert!(said.iter().collect::<HashSet<_>>().len() == said.len(), "told twice: {said:#?}");
        Outcome { said, messages, zone, well, foreign }
    }
}

impl Outcome {
    /// For a table: seconds until the zone and mesozone were well, messages, records of others,
    /// what was said.
    pub(crate) fn row(&self) -> String {
        let said: Vec<String> = self.said.iter().map(|line| shortened(line)).collect();
        let foreign = match self.foreign.len() {
            0 => "same".to_owned(),
            count => format!("{count} lost"),
        };
        format!(
            "{:>7.2}{:>8.2}{:>10}{foreign:>9}  {}",
            self.zone.as_secs_f64(),
            self.well.as_secs_f64(),
            self.messages,
            if said.is_empty() { "nothing".to_owned() } else { said.join(" | ") },
        )
    }
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(SAID_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

/// A warning without target, server and zone.
fn without_place(warning: &str) -> String {
    let at = warning.find("zone mesos.: ").map_or(0, |at| at + "zone mesos.: ".len());
    warning[at..].to_owned()
}
