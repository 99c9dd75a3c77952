//! A server that changes its mind: rights that come and go, and zones that are frozen.

use super::{Peer, Running, debian, shipped};
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

/// A zone in which nothing can be written, until it is thawed.
#[must_use]
pub(crate) struct Frozen {
    /// Who locks the database of PowerDNS.
    lock: Option<Child>,
}

impl Running {
    /// Restarts the server with another policy: each text of it, as it was laid out, replaced by
    /// the one beside it.
    #[track_caller]
    pub(crate) fn allow(&mut self, changes: &[(&str, &str)]) {
        let file = self.dir().join(match self.peer {
            Peer::Bind => "named.conf.local",
            Peer::Knot => "knot.conf",
            Peer::PowerDns => "updates.lua",
        });
        let kept = self.dir().join("policy");
        if !kept.exists() {
            fs::copy(&file, &kept).expect("the policy as it was laid out");
        }
        let text = fs::read_to_string(&kept).expect("the policy as it was laid out");
        self.stop();
        fs::write(&file, shipped::rewrite(text, changes)).expect("a file of ours");
        self.start();
    }

    /// Restarts the server so that its key may change all but these names. Knot asks an `acl` about
    /// a message as a whole, and one that denies a name denies only messages of nothing else: it
    /// is told what is granted, these `others`.
    #[track_caller]
    pub(crate) fn forbid(&mut self, names: &[&str], others: &[String]) {
        match self.peer {
            Peer::Bind => {
                let deny = |name: &&str| format!("deny mesozone name {name}. ANY; ");
                let denied: String = names.iter().map(deny).collect();
                let admin = "grant admin zonesub ANY; ";
                self.allow(&[(admin, &(admin.to_owned() + &denied))]);
            }
            Peer::Knot => {
                let granted: Vec<&str> = others
                    .iter()
                    .map(String::as_str)
                    .filter(|other| !names.contains(&other.trim_end_matches('.')))
                    .collect();
                let granted = format!("[ {} ]", granted.join(", "));
                self.allow(&[("[ mesos. ]", &granted), ("sub-or-equal", "equal")]);
            }
            Peer::PowerDns => {
                let denied: Vec<_> = names.iter().map(|n| format!("[\"{n}.\"] = true")).collect();
                let denied = format!("local denied = {{ {} }}\n", denied.join(", "));
                self.allow(&[
                    ("function updatepolicy", &(denied + "function updatepolicy")),
                    (
                        "types[input:getQType()]",
                        "types[input:getQType()] and not denied[input:getQName():toString()]",
                    ),
                ]);
            }
        }
    }

    /// Has the server write nothing to the zone, by its own command, or by a lock on its database.
    #[track_caller]
    pub(crate) fn freeze(&self) -> Frozen {
        let lock = match self.peer {
            Peer::Bind => {
                self.control(&["freeze", &self.zone]);
                None
            }
            Peer::Knot => {
                self.control(&["zone-freeze", &self.zone]);
                None
            }
            Peer::PowerDns => Some(self.lock()),
        };
        Frozen { lock }
    }

    #[track_caller]
    pub(crate) fn thaw(&self, mut frozen: Frozen) {
        match self.peer {
            Peer::Bind => drop(self.control(&["thaw", &self.zone])),
            Peer::Knot => drop(self.control(&["zone-thaw", &self.zone])),
            Peer::PowerDns => {
                // The end of its input is the end of its transaction.
                drop(frozen.lock.as_mut().and_then(|lock| lock.stdin.take()));
            }
        }
        if let Some(mut lock) = frozen.lock {
            lock.wait().expect("a child of ours");
        }
    }

    /// What the server's own control program says to a command.
    #[track_caller]
    pub(crate) fn control(&self, words: &[&str]) -> String {
        let port = self.addr().port().to_string();
        let (program, first): (&str, &[&str]) = match self.peer {
            Peer::Bind => ("rndc", &["-k", "admin.key", "-s", shipped::CONTROL, "-p", &port]),
            Peer::Knot => ("knotc", &["-c", "knot.conf", "-b", "-f"]),
            Peer::PowerDns => ("pdns_control", &["--config-dir=.", "--socket-dir=."]),
        };
        shipped::run(debian(program).args(first).args(words).current_dir(self.dir()))
    }

    fn lock(&self) -> Child {
        let mut command = Command::new("sqlite3");
        command.args(["-batch", "pdns.sqlite3"]).current_dir(self.dir());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sqlite3");
        let stdin = child.stdin.as_mut().expect("piped above");
        stdin.write_all(b"BEGIN EXCLUSIVE;\nSELECT 'locked';\n").expect("sqlite3 reads");
        stdin.flush().expect("sqlite3 reads");
        let mut word = [0; 7];
        let stdout = child.stdout.as_mut().expect("piped above");
        std::io::Read::read_exact(stdout, &mut word).expect("a word when it has the lock");
        child
    }
}
