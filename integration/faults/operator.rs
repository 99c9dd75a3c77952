//! What an operator does to a name server with the server's own tools.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::peer::{Peer, Running, claim_port};
use crate::running::until;

pub(crate) struct Operator {
    peer: Peer,
    /// BIND's control channel.
    port: u16,
    _claim: UnixListener,
    /// Who holds PowerDNS's database.
    lock: Option<Child>,
}

impl Operator {
    /// BIND is given a control channel, and starts again.
    pub(crate) fn of(peer: Peer, server: &mut Running) -> Operator {
        let (addr, claim) = claim_port();
        let port = addr.port();
        if peer == Peer::Bind {
            server.stop();
            let path = server.dir().join("named.conf");
            let text = fs::read_to_string(&path).unwrap();
            let control = format!(
                "controls {{ inet 127.0.0.1 port {port} allow {{ 127.0.0.1; }} keys {{ admin; }}; }}"
            );
            assert!(text.contains("controls { }"), "{text}");
            fs::write(&path, text.replace("controls { }", &control)).unwrap();
            server.start();
        }
        Operator { peer, port, _claim: claim, lock: None }
    }

    #[track_caller]
    fn tool(&self, server: &Running, args: &[&str]) {
        let port = self.port.to_string();
        let (program, first): (&str, &[&str]) = match self.peer {
            Peer::Bind => ("rndc", &["-s", "127.0.0.1", "-p", &port, "-k", "admin.key"]),
            Peer::Knot => ("knotc", &["-c", "knot.conf", "-b", "-f"]),
            Peer::PowerDns => ("pdns_control", &["--config-dir=.", "--socket-dir=."]),
        };
        let mut command = Command::new(Path::new("/usr/sbin").join(program));
        if !Path::new(command.get_program()).exists() {
            command = Command::new(program);
        }
        run(command.args(first).args(args).current_dir(server.dir()));
    }

    /// Nothing is written until [`Operator::thaw`].
    pub(crate) fn freeze(&mut self, server: &Running) {
        match self.peer {
            Peer::Bind => self.tool(server, &["freeze", "mesos"]),
            Peer::Knot => self.tool(server, &["zone-freeze", "mesos"]),
            Peer::PowerDns => {
                let mut sqlite = Command::new("sqlite3");
                sqlite.arg(server.dir().join("pdns.sqlite3"));
                sqlite.stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = sqlite.spawn().unwrap();
                let script = b".timeout 20000\nBEGIN IMMEDIATE;\nSELECT 'locked';\n";
                child.stdin.as_mut().unwrap().write_all(script).unwrap();
                let mut line = String::new();
                BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
                assert_eq!(line, "locked\n");
                self.lock = Some(child);
            }
        }
    }

    pub(crate) fn thaw(&mut self, server: &Running) {
        match self.peer {
            Peer::Bind => self.tool(server, &["thaw", "mesos"]),
            Peer::Knot => self.tool(server, &["zone-thaw", "mesos"]),
            Peer::PowerDns => {
                let mut child = self.lock.take().expect("frozen before");
                child.stdin.take().unwrap().write_all(b"ROLLBACK;\n").unwrap();
                assert!(child.wait().unwrap().success());
            }
        }
    }

    /// Has the server forget what changed. PowerDNS never knows.
    pub(crate) fn forget(&self, server: &Running) {
        match self.peer {
            Peer::Bind => self.tool(server, &["sync", "-clean", "mesos"]),
            Peer::Knot => self.tool(server, &["zone-purge", "mesos", "+journal"]),
            Peer::PowerDns => {}
        }
    }

    /// Keeps a copy of the zone as it is.
    pub(crate) fn save(&self, server: &Running) {
        let dir = server.dir();
        match self.peer {
            Peer::Bind => {
                self.tool(server, &["sync", "mesos"]);
                let serial = format!(" {} ", server.serial());
                // It is written in the background.
                until("the zone is written", || {
                    let text = fs::read_to_string(dir.join("mesos.zone")).unwrap_or_default();
                    text.replace(['\t', '\n'], " ").contains(&serial)
                });
                fs::copy(dir.join("mesos.zone"), dir.join("saved")).unwrap();
            }
            Peer::Knot => {
                fs::create_dir(dir.join("flushed")).unwrap();
                self.tool(server, &["zone-flush", "mesos", "+outdir", "flushed"]);
                fs::copy(dir.join("flushed/mesos.zone"), dir.join("saved")).unwrap();
            }
            Peer::PowerDns => {
                let to = format!(".backup {}", dir.join("saved").display());
                run(Command::new("sqlite3").arg(dir.join("pdns.sqlite3")).arg(to));
            }
        }
    }

    /// Stops the server, puts the copy in place of the zone, and starts it again.
    pub(crate) fn restore(&self, server: &mut Running) {
        server.stop();
        let path = |name: &str| server.dir().join(name);
        let place = match self.peer {
            Peer::Bind => {
                remove(&path("mesos.zone.jnl"));
                path("mesos.zone")
            }
            Peer::Knot => {
                fs::remove_dir_all(path("journal")).unwrap();
                path("mesos.zone")
            }
            Peer::PowerDns => {
                remove(&path("pdns.sqlite3-wal"));
                remove(&path("pdns.sqlite3-shm"));
                path("pdns.sqlite3")
            }
        };
        fs::copy(path("saved"), place).unwrap();
        server.start();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(mut child) = self.lock.take() {
            // It ends by itself once nobody writes to it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A file that may not be there.
fn remove(path: &Path) {
    if path.exists() {
        fs::remove_file(path).unwrap();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(output.status.success(), "{command:?} fails: {output:?}");
}
