//! What an operator does to a name server with the server's own tools.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::peer::{Frozen, Peer, Running};
use crate::running::until;

pub(crate) struct Operator {
    peer: Peer,
    frozen: Option<Frozen>,
}

impl Operator {
    pub(crate) fn of(peer: Peer) -> Operator {
        Operator { peer, frozen: None }
    }

    /// Nothing is written until [`Operator::thaw`].
    pub(crate) fn freeze(&mut self, server: &Running) {
        self.frozen = Some(server.freeze());
    }

    pub(crate) fn thaw(&mut self, server: &Running) {
        server.thaw(self.frozen.take().expect("frozen before"));
    }

    /// Has the server forget what changed. PowerDNS never knows.
    pub(crate) fn forget(&self, server: &Running) {
        match self.peer {
            Peer::Bind => drop(server.control(&["sync", "-clean", "mesos"])),
            Peer::Knot => drop(server.control(&["zone-purge", "mesos", "+journal"])),
            Peer::PowerDns => {}
        }
    }

    /// Keeps a copy of the zone as it is.
    pub(crate) fn save(&self, server: &Running) {
        let dir = server.dir();
        match self.peer {
            Peer::Bind => {
                server.control(&["sync", "mesos"]);
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
                server.control(&["zone-flush", "mesos", "+outdir", "flushed"]);
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
