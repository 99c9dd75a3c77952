//! TLS to name servers: all that mesozone asks and says goes through it, and whatever is wrong with
//! the server's side of it is told in words.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use crate::masters::{Authority, Canned, answer};
use crate::peer::{Peer, Setup, claim_port, example};
use crate::running::{Daemon, desired, until};
use crate::simulated::Simulated;
use crate::site::{Site, state};

/// BIND with the shipped configuration for TLS, and a site that knows no other way to it.
struct Secure {
    site: Site,
    addr: SocketAddr,
    authority: Authority,
    ca_file: PathBuf,
    _claim: UnixListener,
}

impl Secure {
    fn start() -> Secure {
        Secure::of(Authority::new(), &[])
    }

    fn of(authority: Authority, changes: &[(&str, &str)]) -> Secure {
        let signed = authority.sign("server");
        Secure::with(authority, signed, changes)
    }

    /// With this certificate, and other lines in the shipped configuration.
    fn with(
        authority: Authority,
        (certificate, key): (PathBuf, PathBuf),
        changes: &[(&str, &str)],
    ) -> Secure {
        let mut site = Site::start(Peer::Bind, &Setup::default());
        site.peer.stop();
        let (addr, claim) = claim_port();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let dir = path(site.peer.dir());
        let (port, plain) = (addr.port(), site.peer.addr().port());
        let plain = format!("listen-on port {plain} {{ 127.0.0.1; }}");
        let directory = format!(
            "directory \"{dir}\"; pid-file none; lock-file none; recursion no; notify no;
             dnssec-validation no; session-keyfile \"{dir}/session.key\""
        );
        let ours = [
            ("/etc/bind/ns1.pem", &*path(&certificate)),
            ("/etc/bind/ns1.key", &*path(&key)),
            ("directory \"/var/cache/bind\"", &*directory),
            ("listen-on { any; }", &*plain),
            (
                "port 853 tls mesozone { any; }",
                &format!("port {port} tls mesozone {{ 127.0.0.1; }}"),
            ),
        ];
        let shipped = example("bind/named.conf.tls");
        let conf = ours.iter().chain(changes).fold(shipped, |conf, (from, to)| {
            assert!(conf.contains(from), "no {from:?} in {conf}");
            conf.replace(from, to)
        });
        let file = site.peer.dir().join("named.conf");
        let plain = std::fs::read_to_string(&file).unwrap();
        let (_, rest) = plain.split_once("controls").unwrap();
        std::fs::write(&file, format!("{conf}\ncontrols{rest}")).unwrap();
        site.peer.start();
        let ca_file = authority.path("ca.pem");
        let secure = Secure { site, addr, authority, ca_file, _claim: claim };
        secure.configure(addr, "");
        secure
    }

    /// The target at this address, with more lines.
    fn configure(&self, addr: SocketAddr, more: &str) {
        let lines = format!("transport = \"tls\"\nca_file = {:?}\n{more}", self.ca_file);
        self.site.configure(&addr.to_string(), self.site.peer.key_file(), &lines, "");
    }

    /// The one line that says why nothing can be read.
    #[track_caller]
    fn trouble(&self) -> String {
        let line = self.site.diff(&web()).exits(2).one_line().to_owned();
        let server = format!("target lab, server {}", self.addr);
        assert!(line.contains(&server) && line.contains("zone mesos.: connecting: "), "{line}");
        line
    }
}

fn web() -> serde_json::Value {
    state(&[("web", &["10.1.0.1"]), ("web", &["10.1.0.2"])])
}

/// Passes octets on, and keeps them: those from the client, then those to it, by connection.
struct Tap {
    addr: SocketAddr,
    seen: Arc<Mutex<[Vec<Vec<u8>>; 2]>>,
}

impl Tap {
    /// Until the test binary ends, or its connections do.
    fn before(server: SocketAddr) -> Tap {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let tap = Tap { addr, seen: Arc::default() };
        let seen = tap.seen.clone();
        thread::spawn(move || {
            for (at, client) in listener.incoming().enumerate() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (way, (from, to)) in [(client, server), back].into_iter().enumerate() {
                    seen.lock().unwrap()[way].push(Vec::new());
                    let seen = seen.clone();
                    let note = move |octets: &[u8]| {
                        seen.lock().unwrap()[way][at].extend_from_slice(octets);
                    };
                    thread::spawn(move || pass(from, to, note));
                }
            }
        });
        tap
    }

    fn seen(&self) -> [Vec<Vec<u8>>; 2] {
        self.seen.lock().unwrap().clone()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, note: impl Fn(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    let mut step = || -> io::Result<bool> {
        let length = from.read(&mut buffer)?;
        note(&buffer[..length]);
        to.write_all(&buffer[..length])?;
        Ok(length > 0)
    };
    while step().is_ok_and(|more| more) {}
    // An end that is closed already is what is wanted.
    let _ = to.shutdown(Shutdown::Both);
}

/// How many TLS records, and nothing else, these octets are.
#[track_caller]
fn records(mut octets: &[u8]) -> usize {
    let mut count = 0;
    while let [kind, 3, 1 | 3, high, low, rest @ ..] = octets {
        assert!((20..=23).contains(kind), "a record of type {kind}");
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        assert!(length <= 16 * 1024 + 256, "a record of {length} octets");
        octets = rest.get(length..).unwrap_or_default();
        count += 1;
    }
    assert!(octets.is_empty(), "no TLS: {:?}", &octets[..octets.len().min(40)]);
    count
}

#[test]
fn a_zone_is_compared_and_changed_over_tls() {
    let secure = Secure::start();
    let site = &secure.site;
    let before = site.peer.axfr();
    assert_eq!(site.diff(&web()).exits(1).stderr, "");
    site.sync(&web()).exits(0);
    assert_eq!(site.published(&before), site.with(&web(), &["records", "--format", "tsv"]).stdout);
    site.diff(&web()).exits(0);
    site.sync(&state(&[])).exits(0);
    assert!(site.peer.query("web.marathon.mesos", "A").is_empty());
}

#[test]
fn run_follows_tasks_over_tls_by_differences() {
    let secure = Secure::start();
    let site = &secure.site;
    let before = site.peer.axfr();
    let master = Simulated::start(&["--tasks", "30"]);
    site.follow(&[format!("http://{}", master.address)], "");
    let mut daemon = Daemon::start(site);
    daemon.says("published");
    until("the zone is the desired one", || site.published(&before) == desired(site));
    master.control(json!({"start": {"framework": "marathon", "name": "fresh", "count": 2}}));
    until("a new task has its name", || site.peer.query("fresh.marathon.mesos", "A").len() == 2);
    site.peer.nsupdate("update delete fresh.marathon.mesos A");
    until("what another removed is back", || {
        site.peer.query("fresh.marathon.mesos", "A").len() == 2
    });
    master.control(json!({"kill": {"name": "fresh", "count": 2}}));
    until("an ended task has none", || site.peer.query("fresh.marathon.mesos", "A").is_empty());
    let (code, log) = daemon.stop();
    assert_eq!(code, 0, "{log:#?}");
    let mut warned = log.iter().filter(|line| line.contains("WARN"));
    assert!(warned.all(|line| line.contains("somebody else removed 2 records")), "{log:#?}");
    let log = site.peer.log();
    let transfers = |kind: &str| log.matches(&format!("{kind} started")).count();
    assert_eq!(transfers("AXFR"), 1 + 2, "ours, and those of the test: {log}");
    assert!(transfers("IXFR") >= 3, "{log}");
}

#[test]
fn nothing_goes_in_clear() {
    let secure = Secure::start();
    let tap = Tap::before(secure.addr);
    secure.configure(tap.addr, "");
    secure.site.sync(&web()).exits(0);
    let [asked, answered] = tap.seen();
    assert_eq!((asked.len(), answered.len()), (1, 1), "one connection for everything");
    for octets in [&asked[0], &answered[0]] {
        assert!(records(octets) > 5);
        let clear = |word: &str| octets.windows(word.len()).any(|at| at == word.as_bytes());
        assert!(!["mesos", "web", "marathon", "mesozone"].into_iter().any(clear));
    }
    assert_eq!(secure.site.peer.query("web.marathon.mesos", "A").len(), 2);
}

#[test]
fn a_connection_that_the_server_has_closed_is_no_trouble() {
    // Half a second, and the zone is asked for each second.
    let impatient = [("options {", "options {\n\ttcp-idle-timeout 5;")];
    let secure = Secure::of(Authority::new(), &impatient);
    let tap = Tap::before(secure.addr);
    secure.configure(tap.addr, "");
    let master = Simulated::start(&["--tasks", "5"]);
    secure.site.follow(&[format!("http://{}", master.address)], "");
    let mut daemon = Daemon::start(&secure.site);
    daemon.says("published");
    until("another connection, and one more", || tap.seen()[0].len() > 2);
    let (code, log) = daemon.stop();
    assert_eq!(code, 0);
    assert!(!log.iter().any(|line| line.contains("WARN")), "{log:#?}");
}

#[test]
fn a_zone_can_be_kept_from_being_read_in_clear() {
    let secure = Secure::start();
    let Secure { site, addr, .. } = &secure;
    let file = site.peer.dir().join("named.conf.local");
    let shipped = example("bind/named.conf.tls");
    let line = shipped.lines().find_map(|line| line.strip_prefix("//\tallow-transfer "));
    let line = line.unwrap().replace("853", &addr.port().to_string());
    let text = std::fs::read_to_string(&file).unwrap();
    let open = "allow-transfer { key mesozone; key admin; };";
    assert!(text.contains(open));
    std::fs::write(&file, text.replace(open, &format!("allow-transfer {line}"))).unwrap();
    let mut secure = secure;
    secure.site.peer.stop();
    secure.site.peer.start();
    let site = &secure.site;
    site.sync(&web()).exits(0);
    assert!(site.peer.transfer(&site.peer.key_file()).is_err());
    site.configure(&site.peer.addr().to_string(), site.peer.key_file(), "", "");
    assert!(site.diff(&web()).exits(2).one_line().contains("REFUSED"));
}

#[test]
fn a_certificate_of_another_authority_is_not_trusted() {
    let another = Authority::new();
    let mut secure = Secure::start();
    secure.ca_file = another.path("ca.pem");
    secure.configure(secure.addr, "");
    let line = secure.trouble();
    let expected = format!("signed by no authority in {}", secure.ca_file.display());
    assert!(line.contains(&expected), "{line}");
    // One file may name several.
    let both =
        [&secure.authority, &another].map(|a| std::fs::read_to_string(a.path("ca.pem")).unwrap());
    std::fs::write(&secure.ca_file, both.concat()).unwrap();
    secure.site.sync(&web()).exits(0);
}

#[test]
fn a_certificate_has_to_be_for_the_configured_name() {
    let authority = Authority::new();
    let certificate = authority.sign_for("named", "DNS:ns1.example,DNS:ns2.example", "+0");
    let secure = Secure::with(authority, certificate, &[]);
    let line = secure.trouble();
    assert!(line.contains("ns1.example") && line.contains("not for 127.0.0.1"), "{line}");
    secure.configure(secure.addr, "tls_name = \"ns3.example\"");
    let line = secure.trouble();
    assert!(line.contains("ns2.example") && line.contains("not for ns3.example"), "{line}");
    secure.configure(secure.addr, "tls_name = \"NS2.example.\"");
    secure.site.sync(&web()).exits(0);
}

#[test]
fn a_certificate_has_to_be_good_now() {
    // Each is good for two days.
    for (clock, word) in [("-10d", "only until"), ("+10d", "only from")] {
        let authority = Authority::new();
        let certificate = authority.sign_for("stale", "IP:127.0.0.1", clock);
        let line = Secure::with(authority, certificate, &[]).trouble();
        assert!(line.contains(word) && line.contains("GMT"), "{line}");
    }
}

#[test]
fn an_authoritys_own_certificate_is_no_servers() {
    let authority = Authority::new();
    let own = (authority.path("ca.pem"), authority.path("ca.key"));
    let line = Secure::with(authority, own, &[]).trouble();
    assert!(line.contains("certificate is not good"), "{line}");
}

#[test]
fn a_server_that_knows_only_tls_1_2_is_refused() {
    let old = [("protocols { TLSv1.3; };", "protocols { TLSv1.2; };")];
    let secure = Secure::of(Authority::new(), &old);
    let line = secure.trouble();
    assert!(line.contains("does it speak TLS 1.3 on this port?"), "{line}");
}

#[test]
fn a_server_that_wants_our_certificate_is_not_talked_to() {
    let authority = Authority::new();
    let ca = format!("ca-file {:?};", authority.path("ca.pem"));
    let asks = [("protocols { TLSv1.3; };", &*ca)];
    let secure = Secure::of(authority, &asks);
    let ran = secure.site.diff(&web()).exits(2);
    assert!(ran.one_line().contains("the server closed the connection"), "{ran:?}");
}

#[test]
fn a_port_without_tls_is_told() {
    let mut secure = Secure::start();
    // BIND waits for the rest of what it takes for a message.
    secure.addr = secure.site.peer.addr();
    secure.configure(secure.addr, "");
    let line = secure.trouble();
    assert!(line.contains("does the server speak TLS on this port?"), "{line}");
    let greets = listener(|stream| {
        stream.write_all(b"220 mail.example ESMTP\r\n")?;
        stream.read(&mut [0; 1024]).map(drop)
    });
    secure.addr = greets;
    secure.configure(greets, "");
    let line = secure.trouble();
    assert!(line.contains("speaks no TLS on this port"), "{line}");
    let closes = listener(|stream| stream.read(&mut [0; 1024]).map(drop));
    secure.addr = closes;
    secure.configure(closes, "");
    let line = secure.trouble();
    assert!(line.contains("closed the connection in the handshake"), "{line}");
    assert_eq!(secure.site.peer.serial(), 1);
}

/// Listens until the test binary ends, and closes each connection after `serve`.
fn listener(serve: impl Fn(&mut TcpStream) -> io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A client may have hung up.
            let _ = stream.and_then(|mut stream| serve(&mut stream));
        }
    });
    addr
}

#[test]
fn a_server_of_another_protocol_is_refused() {
    let mut secure = Secure::start();
    let web_server = Canned::start_tls(secure.authority.server(), |_| answer("200 OK", &[], b""));
    secure.addr = web_server.address;
    secure.configure(secure.addr, "");
    let line = secure.trouble();
    assert!(line.contains("did not agree to speak DNS"), "{line}");
    assert_eq!(web_server.heads(), [""; 0]);
}

#[test]
fn an_authority_that_cannot_be_read_stops_every_command_at_its_start() {
    let mut secure = Secure::start();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (path, word) in [
        (dir.path().join("absent.pem"), "cannot read ca_file"),
        (file("empty.pem", ""), "holds no certificate"),
        (secure.authority.path("ca.key"), "holds no certificate"),
        (file("broken.pem", broken), "is no usable PEM"),
        (file("other.pem", no_certificate), "cannot be used"),
    ] {
        secure.ca_file = path;
        secure.configure(secure.addr, "");
        for ran in [secure.site.diff(&web()), secure.site.run(&["run"])] {
            let ran = ran.exits(2);
            let line = ran.one_line();
            assert!(line.contains("target \"lab\"") && line.contains(word), "{line}");
            assert!(line.contains(secure.ca_file.to_str().unwrap()), "{line}");
        }
    }
}

#[test]
fn messages_are_signed_inside_tls_too() {
    let secure = Secure::start();
    let Secure { site, ca_file, addr, .. } = &secure;
    for (key, word) in
        [(site.peer.wrong_secret_key_file(), "BADSIG"), (site.peer.unknown_key_file(), "BADKEY")]
    {
        let lines = format!("transport = \"tls\"\nca_file = {ca_file:?}\n");
        site.configure(&addr.to_string(), key, &lines, "");
        let ran = site.diff(&web()).exits(2);
        assert!(ran.one_line().contains(word), "{ran:?}");
    }
}
