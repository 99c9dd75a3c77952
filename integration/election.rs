//! Several `run` of one owner, elected in real ZooKeeper, and real name servers. Whose updates a
//! name server took is seen by the proxy that each of them has.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use serde_json::json;
use zookeeper_client::Client;

use crate::asking::Asker;
use crate::peer::{Peer, Setup, claim_port, on_every_peer};
use crate::proxy::{Fault, How, Moment, Proxy, Which};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::Site;
use crate::zookeeper::admin_as;
use crate::zookeeper::server::Server;

/// The timeout of a session that a test waits for to end.
const SESSION: Duration = Duration::from_secs(2);
const NOERROR: u8 = 0;
const NXRRSET: u8 = 8;

/// A name server, masters, and where those stand for election who publish there.
struct Lab {
    site: Site,
    master: Simulated,
    election: String,
    path: String,
    before: Vec<String>,
}

impl Lab {
    fn start(peer: Peer, zookeeper: &Server) -> Lab {
        let path = format!("/sites/{peer:?}/mesozone");
        let site = Site::start(peer, &Setup::default());
        let before = site.peer.axfr();
        let election = format!("zk://{}{path}", zookeeper.addr());
        Lab { site, master: Simulated::start(&["--tasks", "10"]), election, path, before }
    }

    fn candidate(&self) -> Candidate {
        self.candidate_with("")
    }

    /// One more, with these lines in `[ha]`.
    fn candidate_with(&self, ha: &str) -> Candidate {
        let proxy = Proxy::to(self.site.peer.addr());
        let (bundled, claim) = claim_port();
        let election = &self.election;
        let tables = format!(
            "[server]\nlisten = [\"{bundled}\"]\nrate_limit = 0\n[ha]\nelection = {election:?}\n{ha}\n"
        );
        self.site.configure(&proxy.addr().to_string(), self.site.peer.key_file(), "", &tables);
        let master = format!("http://{}", self.master.address);
        self.site.follow(&[master], "poll_interval = \"100ms\"");
        let mut daemon = Daemon::start(&self.site);
        // It has read the file, which the next one changes.
        daemon.says("answering for");
        Candidate { daemon, proxy, bundled, _claim: claim }
    }

    /// The first publishes, the others stand by.
    fn candidates<const COUNT: usize>(&self) -> [Candidate; COUNT] {
        std::array::from_fn(|at| {
            let mut candidate = self.candidate();
            match at {
                0 => candidate.wins(),
                _ => candidate.stands_by(),
            }
            candidate
        })
    }

    /// Starts a task and waits until the name server knows its name.
    #[track_caller]
    fn publishes(&self, task: &str) {
        self.run(task);
        until("the name is there", || self.knows(task));
    }

    fn run(&self, task: &str) {
        self.master.control(json!({"start": {"framework": "marathon", "name": task}}));
    }

    fn knows(&self, task: &str) -> bool {
        !self.site.peer.query(&name_of(task), "A").is_empty()
    }

    fn fence(&self) -> String {
        self.site.peer.query("_mesozone.mesos", "TXT").concat()
    }

    #[track_caller]
    fn until_desired(&self) {
        until("the zone is the desired one", || {
            self.site.published(&self.before) == desired(&self.site)
        });
    }
}

fn name_of(task: &str) -> String {
    format!("{task}.marathon.mesos")
}

struct Candidate {
    daemon: Daemon,
    proxy: Proxy,
    bundled: SocketAddr,
    _claim: UnixListener,
}

impl Candidate {
    #[track_caller]
    fn wins(&mut self) {
        self.daemon.says(": elected");
        self.daemon.says("published");
    }

    #[track_caller]
    fn stands_by(&mut self) {
        self.daemon.says("another mesozone is elected; standing by");
    }

    /// Whether it is elected as it said last; none while it stands anew.
    fn told_last(&mut self) -> Option<bool> {
        let told = |line: &String| match line {
            line if line.contains(": elected") => Some(Some(true)),
            line if line.contains("another mesozone is elected") => Some(Some(false)),
            line if line.contains("somebody removed our node") => Some(None),
            _ => None,
        };
        self.daemon.log().iter().rev().find_map(told).flatten()
    }

    /// The rcodes of its updates.
    fn updates(&self) -> Vec<u8> {
        let updates = self.proxy.seen().into_iter().filter(|seen| seen.opcode == 5);
        updates.filter_map(|seen| seen.rcode).collect()
    }

    /// How many of its updates have changed the zone.
    fn writes(&self) -> usize {
        self.updates().iter().filter(|rcode| **rcode == NOERROR).count()
    }

    /// How long after `since` its first update was taken.
    #[track_caller]
    fn writes_after(&self, since: Instant) -> Duration {
        until("it writes", || self.writes() > 0);
        since.elapsed()
    }

    /// The bundled server has the task's name.
    #[track_caller]
    fn answers(&self, task: &str) {
        let mut asker = Asker::of(self.bundled);
        let question = (name_of(task), RecordType::A);
        until("the bundled server answers", || asker.ask(&question).is_found());
    }
}

/// Exactly one of them writes what comes next; which.
#[track_caller]
fn only_one_writes(lab: &Lab, candidates: &[Candidate], task: &str) -> usize {
    candidates.iter().for_each(|candidate| candidate.proxy.clear());
    lab.publishes(task);
    // Who would write as well has seen the task by the time that its own server answers for it.
    candidates.iter().for_each(|candidate| candidate.answers(task));
    lab.publishes(&format!("{task}-again"));
    let wrote: Vec<usize> =
        (0..candidates.len()).filter(|at| candidates[*at].writes() > 0).collect();
    let [one] = *wrote else { panic!("{wrote:?} wrote") };
    one
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

/// Runs on a client of ZooKeeper.
fn tidy<T>(zookeeper: &Server, auth: Option<&str>, work: impl AsyncFnOnce(Client) -> T) -> T {
    wait(async { work(admin_as(std::slice::from_ref(zookeeper), auth).await).await })
}

/// The nodes of the election, the lowest first.
async fn nodes(client: &Client, path: &str) -> Vec<String> {
    let mut nodes = client.list_children(path).await.unwrap();
    nodes.sort();
    nodes.iter().map(|node| format!("{path}/{node}")).collect()
}

#[test]
fn only_the_winner_publishes_and_all_answer() {
    let zookeeper = Server::start();
    on_every_peer(|peer| {
        let lab = Lab::start(peer, &zookeeper);
        let candidates = lab.candidates::<2>();
        lab.until_desired();
        lab.publishes("fresh");
        candidates.iter().for_each(|candidate| candidate.answers("fresh"));
        assert!(candidates[0].writes() > 0);
        assert_eq!(candidates[1].updates().len(), 0, "it stands by");
        let (client, path) = (&zookeeper, lab.path.clone());
        let told = tidy(client, None, async |client| {
            let nodes = nodes(&client, &path).await;
            assert_eq!(nodes.len(), 2);
            String::from_utf8(client.get_data(&nodes[0]).await.unwrap().0).unwrap()
        });
        let id = candidates[0].daemon.id();
        assert!(told.ends_with(&format!("process {id}, owner mesos")), "{told}");
        for candidate in candidates {
            let (code, log) = candidate.daemon.stop();
            assert_eq!(code, 0);
            assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
        }
    });
}

#[test]
fn a_leader_that_is_killed_is_followed_within_the_session() {
    let zookeeper = Server::start_with(SESSION);
    on_every_peer(|peer| {
        let lab = Lab::start(peer, &zookeeper);
        let [leader, mut standby] = lab.candidates::<2>();
        lab.publishes("before");
        let killed = Instant::now();
        drop(leader);
        lab.run("meanwhile");
        let took = standby.writes_after(killed);
        assert!(took < SESSION + Duration::from_secs(1), "{peer:?}: {took:?}");
        standby.wins();
        until("the name is there", || lab.knows("meanwhile"));
        lab.until_desired();
        let (code, log) = standby.daemon.stop();
        assert_eq!(code, 0);
        assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
    });
}

#[test]
fn a_leader_that_stops_is_followed_at_once() {
    let zookeeper = Server::start();
    on_every_peer(|peer| {
        let lab = Lab::start(peer, &zookeeper);
        let [leader, standby] = lab.candidates::<2>();
        lab.publishes("before");
        leader.proxy.clear();
        let stopped = Instant::now();
        let (code, log) = leader.daemon.stop();
        let took = standby.writes_after(stopped);
        assert_eq!(code, 0);
        assert!(took < Duration::from_millis(1500), "{peer:?}: {took:?}");
        assert_eq!(leader.proxy.seen().iter().filter(|seen| seen.opcode == 5).count(), 1);
        assert!(log.iter().any(|line| line.contains("fence released")), "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
        lab.publishes("after");
        assert_eq!(standby.daemon.stop().0, 0);
        assert!(lab.fence().contains("until=0"), "{}", lab.fence());
    });
}

#[test]
fn a_leader_that_was_paused_changes_nothing_and_stands_by() {
    let zookeeper = Server::start_with(SESSION);
    on_every_peer(|peer| {
        let lab = Lab::start(peer, &zookeeper);
        let [mut paused, mut standby] = lab.candidates::<2>();
        lab.publishes("before");
        until("its burst is verified", || {
            let seen = paused.proxy.seen();
            seen.last().is_some_and(|last| last.opcode == 0 && last.rcode.is_some())
        });
        paused.daemon.signal("STOP");
        paused.proxy.clear();
        standby.wins();
        lab.publishes("meanwhile");
        let fence = lab.fence();
        // It has something to write in the moment in which it goes on.
        lab.run("stale");
        paused.daemon.signal("CONT");
        paused.stands_by();
        until("the name is there", || lab.knows("stale"));
        lab.publishes("after");
        paused.answers("after");
        lab.until_desired();
        assert_eq!(lab.fence(), fence, "nobody else had it meanwhile");
        assert!(paused.updates().iter().all(|rcode| *rcode == NXRRSET), "{:?}", paused.updates());
        let (code, log) = paused.daemon.stop();
        assert_eq!(code, 0, "{log:#?}");
        assert_eq!(
            paused
                .proxy
                .seen()
                .iter()
                .filter(|s| s.rcode == Some(NOERROR) && s.opcode == 5)
                .count(),
            0
        );
        assert_eq!(lab.fence(), fence);
        assert_eq!(standby.daemon.stop().0, 0);
    });
}

#[test]
fn without_zookeeper_the_leader_goes_on_and_nobody_else_begins() {
    on_every_peer(|peer| {
        let mut zookeeper = Server::start_with(SESSION);
        let lab = Lab::start(peer, &zookeeper);
        let mut candidates = lab.candidates::<2>();
        lab.publishes("before");
        zookeeper.kill();
        candidates[0].daemon.says("publishing goes on while the fence is ours");
        candidates[1].daemon.says("no contact with any of its servers; standing by");
        assert_eq!(only_one_writes(&lab, &candidates, "apart"), 0);
        assert_eq!(candidates[1].updates().len(), 0);
        // Who starts now knows of no election, and a sync takes no part in one.
        let mut late = lab.candidate();
        late.daemon.says("no contact with any of its servers; standing by");
        late.daemon.says("state read from");
        late.answers("apart");
        assert_eq!(late.updates().len(), 0);
        drop(late);
        zookeeper.restart();
        candidates[0].daemon.says("standing for election again");
        candidates[1].daemon.says("standing for election again");
        until("one is elected", || {
            candidates.iter_mut().map(|one| one.daemon.count(": elected")).sum::<usize>() == 2
        });
        let winner = only_one_writes(&lab, &candidates, "together");
        let standby = 1 - winner;
        assert_eq!(candidates[standby].updates().len(), 0);
        lab.until_desired();
    });
}

#[test]
fn a_leader_cut_off_does_not_take_the_fence_again() {
    on_every_peer(|peer| {
        let mut zookeeper = Server::start_with(SESSION);
        let lab = Lab::start(peer, &zookeeper);
        let [mut leader] = lab.candidates::<1>();
        zookeeper.kill();
        leader.daemon.says("publishing goes on while the fence is ours");
        lab.publishes("before");
        leader.proxy.clear();
        lab.site.peer.nsupdate("update delete _mesozone.mesos TXT");
        lab.run("apart");
        leader.daemon.says("ZooKeeper does not confirm that we are elected");
        leader.answers("apart");
        assert!(leader.updates().iter().all(|rcode| *rcode == NXRRSET), "{:?}", leader.updates());
        assert_eq!(lab.fence(), "");
        zookeeper.restart();
        leader.wins();
        until("the name is there", || lab.knows("apart"));
    });
}

#[test]
fn a_short_loss_of_zookeeper_changes_nothing() {
    let mut zookeeper = Server::start();
    let lab = Lab::start(Peer::Bind, &zookeeper);
    let mut candidates = lab.candidates::<2>();
    let fence = lab.fence();
    for round in 0..3 {
        zookeeper.kill();
        lab.publishes(&format!("down{round}"));
        zookeeper.restart();
        assert_eq!(only_one_writes(&lab, &candidates, &format!("up{round}")), 0);
    }
    assert_eq!(lab.fence(), fence);
    assert_eq!(candidates[0].daemon.count("WARN"), 0, "{:#?}", candidates[0].daemon.log());
    assert_eq!(candidates[0].daemon.count(": elected"), 1);
}

#[test]
fn any_server_of_zookeeper_may_fail() {
    let mut servers = Server::start_three();
    let addresses: Vec<String> = servers.iter().map(|server| server.addr().to_string()).collect();
    let mut lab = Lab::start(Peer::Bind, &servers[0]);
    lab.election = format!("zk://{}{}", addresses.join(","), lab.path);
    let mut candidates = lab.candidates::<2>();
    for (at, server) in servers.iter_mut().enumerate() {
        server.kill();
        only_one_writes(&lab, &candidates, &format!("without{at}"));
        server.restart();
        only_one_writes(&lab, &candidates, &format!("with{at}"));
    }
    servers[0].kill();
    servers[1].kill();
    until("the quorum is missed", || {
        candidates
            .iter_mut()
            .all(|one| one.daemon.log().iter().any(|line| line.contains("no contact")))
    });
    let leader = only_one_writes(&lab, &candidates, "apart");
    assert_eq!(candidates[1 - leader].updates().len(), 0);
    servers[1].restart();
    for candidate in &mut candidates {
        candidate.daemon.says("standing for election again");
    }
    only_one_writes(&lab, &candidates, "together");
}

#[test]
fn a_node_that_somebody_removes_is_made_anew_and_one_publishes() {
    let zookeeper = Server::start();
    on_every_peer(|peer| {
        let lab = Lab::start(peer, &zookeeper);
        let mut candidates = lab.candidates::<2>();
        for round in 0..4 {
            let (leader, next) = (round % 2, 1 - round % 2);
            candidates.iter().for_each(|candidate| candidate.proxy.clear());
            tidy(&zookeeper, None, async |client| {
                client.delete(&nodes(&client, &lab.path).await[0], None).await.unwrap();
            });
            candidates[leader].daemon.says("somebody removed our node");
            candidates[leader].stands_by();
            candidates[next].wins();
            assert_eq!(only_one_writes(&lab, &candidates, &format!("round{round}")), next);
        }
        // The standby's, and then everything there is.
        tidy(&zookeeper, None, async |client| {
            client.delete(&nodes(&client, &lab.path).await[1], None).await.unwrap();
        });
        candidates[1].daemon.says("somebody removed our node");
        assert_eq!(only_one_writes(&lab, &candidates, "same"), 0);
        tidy(&zookeeper, None, async |client| {
            for node in nodes(&client, &lab.path).await {
                client.delete(&node, None).await.unwrap();
            }
            // Somebody stands again at any time.
            let _ = client.delete(&lab.path, None).await;
        });
        candidates.iter_mut().for_each(|one| drop(one.daemon.says("somebody removed our node")));
        until("one is elected, and the other knows", || {
            let [one, other] = candidates.each_mut().map(Candidate::told_last);
            one.zip(other).is_some_and(|(one, other)| one != other)
        });
        only_one_writes(&lab, &candidates, "last");
    });
}

#[test]
fn only_the_user_of_the_election_may_change_it() {
    let zookeeper = Server::start();
    let lab = Lab::start(Peer::Bind, &zookeeper);
    for name in ["right", "wrong"] {
        std::fs::write(lab.site.path(name), format!("dns:{name}\n")).unwrap();
    }
    let with = |name| {
        let file = lab.site.path(name);
        lab.candidate_with(&format!("election_auth_file = {:?}", file.display().to_string()))
    };
    let mut right = with("right");
    right.wins();
    let (mut wrong, mut nobody) = (with("wrong"), lab.candidate());
    let line = wrong.daemon.says("the user of election_auth_file may not stand for election there");
    assert!(line.contains("standing by") && line.contains(&lab.path), "{line}");
    nobody.daemon.says("give election_auth_file; standing by");
    let path = lab.path.clone();
    for auth in [None, Some("dns:wrong")] {
        tidy(&zookeeper, auth, async |client| {
            let node = nodes(&client, &path).await.remove(0);
            let denied = Some(zookeeper_client::Error::NoAuth);
            assert_eq!(client.delete(&node, None).await.err(), denied);
            assert_eq!(client.set_data(&node, b"", None).await.err(), denied);
            // What the parents were made with.
            assert_eq!(client.delete(&path, None).await.err(), denied);
            assert!(client.get_data(&node).await.is_ok(), "for people to look at");
        });
    }
    let candidates = [right, wrong, nobody];
    assert_eq!(only_one_writes(&lab, &candidates, "fresh"), 0);
    assert!(candidates[1].updates().is_empty() && candidates[2].updates().is_empty());
    let [right, wrong, _nobody] = candidates;
    let (code, log) = wrong.daemon.stop();
    assert_eq!(code, 0);
    assert_eq!(
        log.iter().filter(|line| line.contains("WARN") && line.contains("zk://")).count(),
        1
    );
    assert!(!log.iter().any(|line| line.contains("dns:")), "{log:#?}");
    let mut next = with("right");
    next.stands_by();
    assert_eq!(right.daemon.stop().0, 0);
    next.wins();
}

#[test]
fn of_three_each_has_its_turn() {
    let zookeeper = Server::start_with(SESSION);
    on_every_peer(|peer| {
        let lab = Lab::start(peer, &zookeeper);
        let mut candidates: Vec<Candidate> = lab.candidates::<3>().into();
        for left in [3, 2, 1] {
            let task = format!("of{left}");
            assert_eq!(only_one_writes(&lab, &candidates, &task), 0);
            let leader = candidates.remove(0);
            match left {
                2 => assert_eq!(leader.daemon.stop().0, 0),
                _ => drop(leader),
            }
            if let Some(next) = candidates.first_mut() {
                next.wins();
            }
        }
    });
}

#[test]
fn who_is_elected_no_longer_when_the_zone_is_read_takes_nothing() {
    let zookeeper = Server::start_with(SESSION);
    on_every_peer(|peer| {
        let lab = Lab::start(peer, &zookeeper);
        let [leader, mut second, mut third] = lab.candidates::<3>();
        for standby in [&mut second, &mut third] {
            until("it has read the zone", || standby.daemon.count("zone transferred") > 0);
        }
        // Elected, it asks a name server that does not answer now, and then it is elected no more.
        lab.site.peer.signal("STOP");
        drop(leader);
        second.daemon.says(": elected");
        tidy(&zookeeper, None, async |client| {
            client.delete(&nodes(&client, &lab.path).await[0], None).await.unwrap();
        });
        third.daemon.says(": elected");
        second.stands_by();
        lab.site.peer.signal("CONT");
        third.daemon.says("published");
        second.answers("search");
        assert!(second.updates().iter().all(|rcode| *rcode == NXRRSET), "{:?}", second.updates());
        assert_eq!(only_one_writes(&lab, &[second, third], "fresh"), 1);
    });
}

#[test]
fn a_lost_reply_raises_the_epoch_also_when_nobody_knows_who_is_elected() {
    let zookeeper = Server::start_with(SESSION);
    let lab = Lab::start(Peer::Bind, &zookeeper);
    let [leader, mut second] = lab.candidates::<2>();
    until("it has read the zone", || second.daemon.count("zone transferred") > 0);
    // It takes the fence, does not hear of it, and ZooKeeper is gone when it asks again.
    second.proxy.arm(Which::Update(1), Fault::Break(Moment::Reply, How::Fin));
    lab.run("fresh");
    until("the leader has seen it", || lab.knows("fresh"));
    drop(leader);
    until("its message came", || second.updates() == [NOERROR]);
    zookeeper.signal("STOP");
    let late = second.proxy.seen().len();
    second.daemon.says("well again");
    let asked = second.proxy.seen().split_off(late);
    let update = asked.iter().find(|seen| seen.opcode == 5).expect("the epoch is raised");
    // The fence of before goes and that of now comes, and nothing else.
    assert_eq!(update.records, 2, "{asked:#?}");
    zookeeper.signal("CONT");
    lab.publishes("later");
    lab.until_desired();
    assert_eq!(second.daemon.stop().0, 0);
}

#[test]
fn a_stop_does_not_wait_for_zookeeper() {
    let zookeeper = Server::start();
    let lab = Lab::start(Peer::Bind, &zookeeper);
    let [leader, standby] = lab.candidates::<2>();
    zookeeper.signal("STOP");
    for candidate in [standby, leader] {
        let started = Instant::now();
        assert_eq!(candidate.daemon.stop().0, 0);
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }
    assert!(lab.fence().contains("until=0"), "{}", lab.fence());
    zookeeper.signal("CONT");
}
