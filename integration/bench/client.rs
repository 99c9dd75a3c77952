//! The programs that publish, each run and timed from the outside.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::names::Load;
use crate::peer::{Peer, Setup};
use crate::site::Site;

/// Names above which octodns is not waited for.
const OCTODNS_MAX: usize = 10_000;
/// A tick of /proc, on every Linux that Debian builds.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Client {
    Mesozone,
    Nsupdate,
    Knsupdate,
    Octodns,
}

pub(crate) struct Sample {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// What mesozone says of its messages.
    pub(crate) note: String,
}

/// Who publishes this to such a server.
pub(crate) fn of(peer: Peer, load: &Load) -> Vec<Client> {
    let mut clients = vec![Client::Mesozone, Client::Nsupdate, Client::Knsupdate];
    if peer == Peer::Bind && load.names <= OCTODNS_MAX && octodns().is_some() {
        clients.push(Client::Octodns);
    }
    clients
}

fn octodns() -> Option<OsString> {
    std::env::var_os("OCTODNS_SYNC")
}

/// Publishes to a fresh server, and fails unless its zone then is the load.
pub(crate) fn measure(client: Client, peer: Peer, load: &Load) -> Sample {
    let site = Site::start(peer, &Setup::default());
    let mut command = command(client, &site, load);
    command.stdin(Stdio::null());
    let (cpu_before, started) = (children_cpu(), Instant::now());
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let wall = started.elapsed();
    let cpu = children_cpu() - cpu_before;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{client:?} to {peer:?}: {} {stderr}", output.status);
    let mut zone = site.peer.axfr();
    zone.retain(|line| !line.contains("\tNS\t") && !line.contains("\tTXT\t"));
    // The server's own name in the example's zone.
    zone.retain(|line| !line.starts_with("ns1.mesos.\t"));
    zone.sort_unstable();
    assert!(zone == load.transferred(), "{client:?} to {peer:?}: another zone than was asked for");
    let note =
        stderr.lines().rev().find_map(|line| Some(line.split_once("zone updated")?.1.trim()));
    Sample { wall, cpu, note: note.unwrap_or_default().to_owned() }
}

fn command(client: Client, site: &Site, load: &Load) -> Command {
    let scripted = |program: &str, key_file: PathBuf| {
        let script = site.path("script");
        std::fs::write(&script, load.script(site.peer.addr())).expect("a script");
        let mut command = Command::new(program);
        command.arg("-v").arg("-k").arg(key_file).arg(script);
        command
    };
    match client {
        Client::Mesozone => {
            let mut command = site.command(&["-vv", "sync", "--state"]);
            command.arg(&load.state);
            command
        }
        Client::Nsupdate => scripted("nsupdate", site.peer.key_file()),
        Client::Knsupdate => {
            // It takes the first line of a key file for the key, also when that is a comment.
            let key = format!("hmac-sha256:mesozone:{}\n", secret(&site.peer.key_file()));
            std::fs::write(site.path("one-line.key"), key).expect("a key file");
            scripted("knsupdate", site.path("one-line.key"))
        }
        Client::Octodns => {
            let mut command = Command::new(octodns().expect("asked for only where it is"));
            let config = octodns_config(site, load);
            command.args(["--doit", "--force", "--config-file"]).arg(config);
            command
        }
    }
}

/// The load as a zone file, from which octodns-bind fills the server.
fn octodns_config(site: &Site, load: &Load) -> PathBuf {
    let shipped = crate::peer::example("bind/mesos.zone");
    let zone = shipped + &load.records.join("\n") + "\n";
    std::fs::write(site.path("mesos.zone"), zone).expect("a zone file");
    let text = format!(
        "providers:\n  \
           config:\n    class: octodns_bind.ZoneFileSource\n    directory: {}\n    \
             file_extension: .zone\n  \
           server:\n    class: octodns_bind.Rfc2136Provider\n    host: {}\n    port: {}\n    \
             key_name: mesozone\n    key_secret: {}\n    key_algorithm: hmac-sha256\n\
         zones:\n  mesos.:\n    sources: [config]\n    targets: [server]\n",
        site.path("").display(),
        site.peer.addr().ip(),
        site.peer.addr().port(),
        secret(&site.peer.key_file()),
    );
    let path = site.path("octodns.yaml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// What stands between the second pair of quotes, the first being around the key's name.
fn secret(key_file: &Path) -> String {
    let text = std::fs::read_to_string(key_file).expect("a key file");
    let secret = text.split("secret").nth(1).and_then(|rest| rest.split('"').nth(1));
    secret.expect("a secret").to_owned()
}

/// CPU time of the children that have ended: `cutime` and `cstime` of proc(5). The servers under
/// test end between two measurements.
fn children_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    // The second field is a name in parentheses, which may have blanks.
    let fields = stat.rsplit_once(')').expect("a name in parentheses").1.split_whitespace();
    let ticks = fields.skip(13).take(2).map(|field| field.parse::<u32>().expect("ticks")).sum();
    TICK * ticks
}
