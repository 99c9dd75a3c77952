//! ZooKeeper servers under test: Debian's, each a process of its own on loopback.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::peer::claim_port;

const CLASS_PATH: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";

/// A server process. It is killed when this is dropped, and its directory goes with it.
pub(crate) struct Server {
    dir: TempDir,
    addr: SocketAddr,
    _claims: Vec<UnixListener>,
    child: Option<Child>,
}

impl Server {
    /// A server on its own that answers.
    #[track_caller]
    pub(crate) fn start() -> Server {
        Server::start_with(Duration::from_secs(10))
    }

    /// One that grants no session a longer timeout.
    #[track_caller]
    pub(crate) fn start_with(session_max: Duration) -> Server {
        let mut server = Server::lay_out(&[], session_max, claim_port());
        server.restart();
        server
    }

    /// An ensemble of three that answer.
    #[track_caller]
    pub(crate) fn start_three() -> Vec<Server> {
        let mut claims = Vec::new();
        let members = [1, 2, 3].map(|id| {
            let ((quorum, one), (election, other)) = (claim_port(), claim_port());
            claims.push(vec![one, other]);
            format!("server.{id}=127.0.0.1:{}:{}", quorum.port(), election.port())
        });
        let lay_out = |(at, claims): (usize, Vec<UnixListener>)| {
            let mut server = Server::lay_out(&members, Duration::from_secs(2), claim_port());
            fs::create_dir(server.dir.path().join("data")).expect("a new directory");
            fs::write(server.dir.path().join("data/myid"), (at + 1).to_string()).expect("a file");
            server._claims.extend(claims);
            server.spawn();
            server
        };
        let mut servers: Vec<Server> = claims.into_iter().enumerate().map(lay_out).collect();
        servers.iter_mut().for_each(Server::wait_until_it_answers);
        servers
    }

    fn lay_out(
        members: &[String],
        session_max: Duration,
        (addr, claim): (SocketAddr, UnixListener),
    ) -> Server {
        let dir = TempDir::new().expect("a temporary directory");
        let lines = [
            "tickTime=200".to_owned(),
            "minSessionTimeout=400".to_owned(),
            format!("maxSessionTimeout={}", session_max.as_millis()),
            "initLimit=50".to_owned(),
            "syncLimit=25".to_owned(),
            "dataDir=data".to_owned(),
            "clientPortAddress=127.0.0.1".to_owned(),
            format!("clientPort={}", addr.port()),
            "admin.enableServer=false".to_owned(),
            "4lw.commands.whitelist=srvr,mntr".to_owned(),
        ];
        let lines = [&lines, members].concat().join("\n");
        fs::write(dir.path().join("zoo.cfg"), lines).expect("a file in a new directory");
        Server { dir, addr, _claims: vec![claim], child: None }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts the server where it left off, on the same port.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.spawn();
        self.wait_until_it_answers();
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"));
        let log = log.expect("a file for the server's output");
        let mut command = Command::new("java");
        // Quick to start and small; it is to run for seconds.
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx64m", "-cp", CLASS_PATH]);
        command.args(["org.apache.zookeeper.server.quorum.QuorumPeerMain", "zoo.cfg"]);
        command.current_dir(self.dir.path());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("the package zookeeper, and with it java"));
    }

    #[track_caller]
    fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.ask("srvr").contains("Mode: ") {
            let ended = self.child.as_mut().expect("just started").try_wait().expect("our child");
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                panic!("ZooKeeper at {} does not answer ({ended:?}):\n{log}", self.addr);
            }
            // Between two tries; turning meanwhile would take what the server starts with.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The answer to a word of four letters; empty where there is none.
    fn ask(&self, word: &str) -> String {
        let mut answer = String::new();
        let Ok(mut stream) = TcpStream::connect(self.addr) else { return answer };
        let answered = stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .and_then(|()| stream.write_all(word.as_bytes()))
            .and_then(|()| stream.read_to_string(&mut answer));
        if answered.is_err() { String::new() } else { answer }
    }

    /// How many connections it has besides the one that asks.
    #[track_caller]
    pub(crate) fn connections(&self) -> usize {
        let told = self.ask("mntr");
        let count = told.lines().find_map(|line| line.strip_prefix("zk_num_alive_connections\t"));
        let count: usize = count.and_then(|count| count.parse().ok()).expect(&told);
        count - 1
    }

    /// A stop without warning.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("a server that runs");
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }

    /// Sends it a signal, `STOP` or `CONT`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("a server that runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Forgets all nodes and sessions. It is to be down.
    #[track_caller]
    pub(crate) fn forget(&self) {
        assert!(self.child.is_none(), "it runs");
        fs::remove_dir_all(self.dir.path().join("data")).expect("its data");
    }

    /// Answers in place of the server, which is to be down, by hanging up, until a client asks for
    /// a new session: then it has given up the one that it had.
    pub(crate) async fn until_the_session_is_given_up(&self) {
        assert!(self.child.is_none(), "it runs");
        let listener = tokio::net::TcpListener::bind(self.addr).await.expect("a claimed port");
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            // ConnectRequest: length, protocol, last transaction seen, timeout, session, ...
            let mut request = [0; 28];
            if stream.read_exact(&mut request).await.is_ok() && request[20..] == [0; 8] {
                return;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A server that has ended by itself is as good as one that was killed.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}
