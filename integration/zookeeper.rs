//! Following the masters' election in real ZooKeeper.

pub(crate) mod server;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mesozone::cluster::Endpoint;
use mesozone::config::Config;
use mesozone::zookeeper::{Detected, Trouble, follow};
use server::Server;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::instrument::WithSubscriber;
use zeroize::Zeroizing;
use zookeeper_client::{Acls, Client, CreateMode, Error};

/// The timeout of a session that a test waits for to end.
const SHORT: Duration = Duration::from_secs(2);

/// A follower that ends when this is dropped.
struct Following {
    latest: watch::Receiver<Detected>,
    log: Log,
    tasks: JoinSet<std::convert::Infallible>,
}

impl Following {
    /// Follows what a configuration names so.
    fn start(masters: &str, auth: Option<&str>) -> Following {
        let text = format!("[mesos]\nmasters = [{masters:?}]\n");
        let ensemble = Config::parse(&text).unwrap().mesos.ensembles.remove(0);
        let (to, latest) = watch::channel(Detected::default());
        let auth = auth.map(|auth| Zeroizing::new(auth.to_owned()));
        let (log, mut tasks) = (Log::default(), JoinSet::new());
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("mesozone=debug")
            .with_ansi(false)
            .with_writer(move || writer.clone());
        tasks.spawn(follow(ensemble, auth, to).with_subscriber(subscriber.finish()));
        Following { latest, log, tasks }
    }

    fn of(server: &Server) -> Following {
        Following::start(&format!("zk://{}/mesos", server.addr()), None)
    }

    /// Waits for what is claimed.
    async fn until(&mut self, claim: &str, is: impl Fn(&Detected) -> bool) -> Detected {
        let wait = Duration::from_secs(60);
        if let Ok(found) = tokio::time::timeout(wait, self.latest.wait_for(is)).await {
            return found.expect("a follower does not end").clone();
        }
        panic!("not so: {claim}: {:#?}\n{}", *self.latest.borrow(), self.log.text());
    }

    /// Waits until this is who leads and who stands, as ZooKeeper has it now.
    async fn until_masters(&mut self, ports: &[u16]) -> Detected {
        let is = |detected: &Detected| {
            let elected = detected.elected.as_ref().filter(|_| detected.trouble.is_none());
            elected.is_some_and(|elected| {
                let port = |endpoint: &Endpoint| endpoint.port.unwrap();
                let leader = elected.leader.as_ref().map(port);
                let all: Vec<u16> = elected.masters.iter().map(port).collect();
                leader == ports.first().copied() && all == ports
            })
        };
        self.until(&format!("the masters are {ports:?}"), is).await
    }

    async fn until_trouble(&mut self, trouble: Trouble) -> Detected {
        let claim = format!("{trouble:?}");
        self.until(&claim, |detected| detected.trouble.as_ref() == Some(&trouble)).await
    }
}

/// What a follower logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// How many of its lines have both parts.
    fn count(&self, level: &str, part: &str) -> usize {
        let has = |line: &&str| line.contains(level) && line.contains(part);
        self.text().lines().filter(has).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client that changes what is there, by itself in time.
pub(crate) async fn admin(servers: &[Server]) -> Client {
    admin_as(servers, None).await
}

pub(crate) async fn admin_as(servers: &[Server], auth: Option<&str>) -> Client {
    let addresses: Vec<String> = servers.iter().map(|server| server.addr().to_string()).collect();
    let connector = Client::connector().with_session_timeout(Duration::from_secs(10));
    let connector = match auth {
        Some(auth) => connector.with_auth("digest", auth.as_bytes()),
        None => connector,
    };
    connector.connect(&addresses.join(",")).await.expect("a server that answers")
}

pub(crate) async fn make(client: &Client, path: &str, data: &[u8]) {
    let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create(path, data, &open).await.unwrap_or_else(|error| panic!("{path}: {error}"));
}

async fn remove(client: &Client, path: &str) {
    client.delete(path, None).await.unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// What a master of 1.11 says of itself in its node.
fn master_at(port: u16) -> Vec<u8> {
    let address = format!(r#"{{"hostname":"m","ip":"127.0.0.1","port":{port}}}"#);
    format!(r#"{{"address":{address},"pid":"master@127.0.0.1:{port}"}}"#).into_bytes()
}

/// A master that stands for election below a path: it resigns when this is dropped.
pub(crate) async fn stand(servers: &[Server], path: &str, port: u16) -> Client {
    let client = admin(servers).await;
    let node = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
    let prefix = format!("{path}/json.info_");
    client.create(&prefix, &master_at(port), &node).await.unwrap();
    client
}

fn recorded(stage: &str, node: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/mesos/zookeeper");
    let name = format!("{stage}_mesos_{}.bin", node.replace('/', "_"));
    std::fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_nodes_elect_as_they_did() {
    let server = Server::start();
    let client = admin(std::slice::from_ref(&server)).await;
    for parent in ["/mesos", "/mesos/log_replicas"] {
        make(&client, parent, b"").await;
    }
    for number in ["0000000000", "0000000001", "0000000002"] {
        let node = format!("log_replicas/{number}");
        make(&client, &format!("/mesos/{node}"), &recorded("before-failover", &node)).await;
    }
    let mut following = Following::of(&server);
    following.until_masters(&[]).await;
    for number in ["0000000003", "0000000002", "0000000001"] {
        let node = format!("json.info_{number}");
        make(&client, &format!("/mesos/{node}"), &recorded("before-failover", &node)).await;
    }
    following.until_masters(&[25050, 25060, 25070]).await;
    remove(&client, "/mesos/json.info_0000000001").await;
    following.until_masters(&[25060, 25070]).await;
    for node in ["json.info_0000000002", "json.info_0000000003"] {
        let path = format!("/mesos/{node}");
        client.set_data(&path, &recorded("after-failover", node), None).await.unwrap();
    }
    Following::of(&server).until_masters(&[25060, 25070]).await;
    // A master before 0.24: id, ip, port, pid, hostname.
    let old = b"\x0a\x01m\x10\xff\x80\x80\x08\x18\xba\x27\x22\x15master@127.0.0.1:5050\x2a\x01h";
    make(&client, "/mesos/info_0000000000", old).await;
    following.until_masters(&[5050, 25060, 25070]).await;
    // The second is no leader because the first cannot be read.
    client.set_data("/mesos/info_0000000000", b"\xff", None).await.unwrap();
    make(&client, "/mesos/json.info_0000000009", b"{").await;
    let is = |detected: &Detected| {
        detected.elected.as_ref().is_some_and(|elected| elected.unread.len() == 2)
    };
    let elected = following.until("two nodes are unread", is).await.elected.unwrap();
    assert_eq!((elected.leader, elected.masters.len()), (None, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_resigns_is_followed_by_the_next_at_once() {
    let servers = [Server::start()];
    let client = admin(&servers).await;
    make(&client, "/mesos", b"").await;
    let mut following = Following::of(&servers[0]);
    let mut masters = Vec::new();
    for port in [5051, 5052, 5053] {
        masters.push(stand(&servers, "/mesos", port).await);
    }
    following.until_masters(&[5051, 5052, 5053]).await;
    for left in [&[5052, 5053][..], &[5053], &[]] {
        let started = Instant::now();
        drop(masters.remove(0));
        following.until_masters(left).await;
        // The nodes are read without a watch only once a minute.
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
    // Nobody leads, and nothing has ended for that.
    assert!(following.tasks.try_join_next().is_none());
    let _again = stand(&servers, "/mesos", 5054).await;
    following.until_masters(&[5054]).await;
    assert_eq!(following.log.count("WARN", ""), 0, "{}", following.log.text());
    assert_eq!(following.log.count("INFO", "no master leads"), 1, "{}", following.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_come_and_go_meanwhile_confuse_nobody() {
    let servers = [Server::start()];
    let client = admin(&servers).await;
    make(&client, "/mesos", b"").await;
    make(&client, "/mesos/json.info_0000001000", &master_at(5050)).await;
    let mut following = Following::of(&servers[0]);
    following.until_masters(&[5050]).await;
    for number in 0..300 {
        let path = format!("/mesos/json.info_{number:010}");
        make(&client, &path, &master_at(6000 + number)).await;
        remove(&client, &path).await;
    }
    make(&client, "/mesos/json.info_0000002000", &master_at(5051)).await;
    following.until_masters(&[5050, 5051]).await;
    assert_eq!(following.log.count("WARN", ""), 0, "{}", following.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_may_be_down_for_longer_than_a_session() {
    let mut server = Server::start_with(SHORT);
    let client = admin(std::slice::from_ref(&server)).await;
    make(&client, "/mesos", b"").await;
    make(&client, "/mesos/json.info_0000000001", &master_at(5050)).await;
    let mut following = Following::of(&server);
    let before = following.until_masters(&[5050]).await;
    drop(client);
    server.kill();
    let down = following.until_trouble(Trouble::Unreachable).await;
    assert_eq!(down.elected, before.elected);
    let given_up = server.until_the_session_is_given_up();
    tokio::time::timeout(Duration::from_secs(60), given_up).await.expect("a new session");
    server.restart();
    following.until_masters(&[5050]).await;
    assert_eq!(following.log.count("WARN", ""), 1, "{}", following.log.text());
    assert_eq!(following.log.count("INFO", "read again"), 1, "{}", following.log.text());
    assert_eq!(following.log.count("INFO", "127.0.0.1:5050 leads"), 1, "{}", following.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_that_is_down_at_first_is_waited_for() {
    let mut server = Server::start();
    let client = admin(std::slice::from_ref(&server)).await;
    make(&client, "/mesos", b"").await;
    make(&client, "/mesos/json.info_0000000001", &master_at(5050)).await;
    drop(client);
    server.kill();
    let mut following = Following::of(&server);
    assert_eq!(following.until_trouble(Trouble::Unreachable).await.elected, None);
    server.restart();
    following.until_masters(&[5050]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_lost_with_all_that_the_server_knew() {
    let mut server = Server::start_with(SHORT);
    let client = admin(std::slice::from_ref(&server)).await;
    make(&client, "/mesos", b"").await;
    make(&client, "/mesos/json.info_0000000001", &master_at(5050)).await;
    let mut following = Following::of(&server);
    following.until_masters(&[5050]).await;
    drop(client);
    server.kill();
    server.forget();
    server.restart();
    let empty = following.until_trouble(Trouble::Absent).await.elected.unwrap();
    assert_eq!((empty.leader, empty.masters), (None, Vec::new()));
    let client = admin(std::slice::from_ref(&server)).await;
    make(&client, "/mesos", b"").await;
    make(&client, "/mesos/json.info_0000000001", &master_at(5051)).await;
    following.until_masters(&[5051]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_noticed() {
    let server = Server::start();
    let client = admin(std::slice::from_ref(&server)).await;
    make(&client, "/mesos", b"").await;
    make(&client, "/mesos/json.info_0000000001", &master_at(5050)).await;
    let mut following = Following::of(&server);
    following.until_masters(&[5050]).await;
    server.signal("STOP");
    following.until_trouble(Trouble::Unreachable).await;
    server.signal("CONT");
    following.until_masters(&[5050]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_of_three_may_fail_and_two_leave_no_quorum() {
    let mut servers = Server::start_three();
    let client = admin(&servers).await;
    make(&client, "/mesos", b"").await;
    let addresses: Vec<String> = servers.iter().map(|server| server.addr().to_string()).collect();
    let mut following = Following::start(&format!("zk://{}/mesos", addresses.join(",")), None);
    following.until_masters(&[]).await;
    drop(client);
    let mut ports = Vec::new();
    for (at, port) in [5051, 5052, 5053].into_iter().enumerate() {
        servers[at].kill();
        let client = admin(&servers).await;
        // The quorum may have lost its leader, and need a moment to agree on another.
        let path = format!("/mesos/json.info_{at:010}");
        let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
        while let Err(error) = client.create(&path, &master_at(port), &open).await {
            match error {
                Error::ConnectionLoss => {}
                // The reply to the try before was lost.
                Error::NodeExists => break,
                other => panic!("{path}: {other}"),
            }
        }
        ports.push(port);
        following.until_masters(&ports).await;
        servers[at].restart();
    }
    // It was connected to one of them.
    assert_ne!(following.log.count("INFO", "read again"), 0, "{}", following.log.text());
    servers[0].kill();
    servers[1].kill();
    let down = following.until_trouble(Trouble::Unreachable).await;
    assert_eq!(down.elected.unwrap().masters.len(), 3);
    servers[0].restart();
    following.until_masters(&ports).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_for_one_user_are_read_as_that_user() {
    let server = Server::start();
    let client = admin_as(std::slice::from_ref(&server), Some("dns:right")).await;
    let closed = CreateMode::Persistent.with_acls(Acls::creator_all());
    client.create("/mesos", b"", &closed).await.unwrap();
    client.create("/mesos/json.info_0000000001", &master_at(5050), &closed).await.unwrap();
    let masters = format!("zk://{}/mesos", server.addr());
    let mut right = Following::start(&masters, Some("dns:right"));
    let mut wrong = Following::start(&masters, Some("dns:wrong"));
    let mut nobody = Following::start(&masters, None);
    right.until_masters(&[5050]).await;
    assert_eq!(wrong.until_trouble(Trouble::Forbidden).await.elected, None);
    assert_eq!(nobody.until_trouble(Trouble::Anonymous).await.elected, None);
    // The right is given to list the nodes, not to read the one that there is.
    client.set_acl("/mesos", &Acls::anyone_all(), None).await.unwrap();
    for following in [&mut wrong, &mut nobody] {
        let listed = |detected: &Detected| detected.trouble.is_none();
        let elected = following.until("the nodes are listed", listed).await.elected.unwrap();
        assert_eq!((elected.leader, elected.masters.len()), (None, 0));
        assert_eq!(elected.unread[0].fault, "its data may not be read");
        assert_eq!(following.log.count("WARN", "zk_auth_file"), 1, "{}", following.log.text());
        assert!(!following.log.text().contains("wrong"));
    }
    assert_eq!(right.log.count("WARN", ""), 0, "{}", right.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_of_any_depth_is_waited_for() {
    let servers = [Server::start()];
    let mut following =
        Following::start(&format!("zk://{}/sites/one/mesos/", servers[0].addr()), None);
    following.until_trouble(Trouble::Absent).await;
    let client = admin(&servers).await;
    make(&client, "/sites", b"").await;
    make(&client, "/sites/one", b"").await;
    make(&client, "/sites/one/mesos", b"").await;
    following.until_masters(&[]).await;
    let master = stand(&servers, "/sites/one/mesos", 5050).await;
    following.until_masters(&[5050]).await;
    drop(master);
    following.until_masters(&[]).await;
    remove(&client, "/sites/one/mesos").await;
    following.until_trouble(Trouble::Absent).await;
    make(&client, "/sites/one/mesos", b"").await;
    let _master = stand(&servers, "/sites/one/mesos", 5051).await;
    following.until_masters(&[5051]).await;
    assert_eq!(following.log.count("WARN", "no such node"), 2, "{}", following.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_dropped_hangs_up() {
    let server = Server::start();
    let mut following = Following::of(&server);
    following.until_trouble(Trouble::Absent).await;
    assert_eq!(server.connections(), 1);
    drop(following);
    let started = Instant::now();
    while server.connections() != 0 {
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
