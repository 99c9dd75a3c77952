//! The files of `examples/`, with the paths, names and rights of one server under test.

use super::{Peer, Setup, debian};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const ADMIN_SECRET: &str = "b25seS10aGUtdGVzdHMtaGF2ZS10aGlzLXNlY3JldCE=";
/// Where BIND is controlled: beside its own address, so that the claim to its port is one to this.
pub(super) const CONTROL: &str = "127.0.0.2";
const WRONG_SECRET: &str = "dGhpcy1pcy1ub3QtdGhlLXNlY3JldC1pdC1rbm93cyE=";

/// A file under `examples/`.
pub(crate) fn example(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Replaces each text by the one beside it, and fails where an example no longer has it.
#[track_caller]
pub(super) fn rewrite(text: String, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "no {from:?} in:\n{text}");
        text.replace(from, to)
    })
}

/// One server's files in one directory.
struct Layout<'a> {
    setup: &'a Setup<'a>,
    dir: &'a Path,
    addr: SocketAddr,
}

pub(super) fn lay_out(peer: Peer, setup: &Setup, dir: &Path, addr: SocketAddr) {
    let layout = Layout { setup, dir, addr };
    layout.keys();
    match peer {
        Peer::Bind => layout.bind(),
        Peer::Knot => layout.knot(),
        Peer::PowerDns => layout.powerdns(),
    }
}

impl Layout<'_> {
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if name.ends_with(".key") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        path
    }

    fn path(&self) -> &str {
        self.dir.to_str().expect("a path in UTF-8")
    }

    fn keys(&self) {
        let key = |name: &str, secret: &str| {
            format!("key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n")
        };
        let algorithm = format!("algorithm {};", self.setup.algorithm);
        let own = rewrite(example("bind/mesozone.key"), &[("algorithm hmac-sha256;", &algorithm)]);
        self.write("mesozone.key", &own);
        self.write("wrong-secret.key", &key("mesozone", WRONG_SECRET));
        self.write("unknown.key", &key("stranger", WRONG_SECRET));
        self.write("admin.key", &key("admin", ADMIN_SECRET));
    }

    fn zone_file(&self, shipped: &str) {
        let origin = format!("$ORIGIN {}.", self.setup.zone);
        let zone = rewrite(example(shipped), &[("$ORIGIN mesos.", &origin)]);
        self.write("mesos.zone", &(zone + self.setup.records + "\n"));
    }

    /// What the test grants, what the examples grant in the domain's zone, or what belongs to a
    /// reverse zone.
    fn types(&self) -> &[&str] {
        if !self.setup.types.is_empty() {
            self.setup.types
        } else if self.setup.zone.ends_with(".arpa") {
            &["PTR", "TXT"]
        } else {
            &["A", "AAAA", "SRV", "TXT"]
        }
    }

    fn bind(&self) {
        let Setup { zone, extra, grant, .. } = self.setup;
        let readers = if grant.transfer() { "key mesozone; key admin;" } else { "key admin;" };
        let verb = if grant.update() { "grant" } else { "deny" };
        let (domain, types) = (self.setup.domain(), self.types().join(" "));
        let local = rewrite(
            example("bind/named.conf.local"),
            &[
                ("/etc/bind", self.path()),
                ("/var/lib/bind", self.path()),
                ("zone \"mesos\" {", &format!("zone \"{zone}\" {{\n{extra}")),
                ("allow-transfer { key mesozone; }", &format!("allow-transfer {{ {readers} }}")),
                (
                    "{ grant mesozone subdomain mesos. A AAAA SRV TXT; }",
                    &format!(
                        "{{ grant admin zonesub ANY; {verb} mesozone subdomain {domain}. {types}; }}"
                    ),
                ),
            ],
        );
        self.write("named.conf.local", &local);
        self.zone_file("bind/mesos.zone");
        let (ip, port, dir) = (self.addr.ip(), self.addr.port(), self.path());
        self.write(
            "named.conf",
            &format!(
                "options {{
                     directory \"{dir}\"; pid-file none; lock-file none;
                     session-keyfile \"{dir}/session.key\";
                     listen-on port {port} {{ {ip}; }};
                     recursion no; notify no; dnssec-validation no;
                 }};
                 controls {{ inet {CONTROL} port {port} allow {{ 127.0.0.0/8; }} keys {{ admin; }}; }};
                 include \"{dir}/admin.key\";
                 include \"{dir}/named.conf.local\";\n"
            ),
        );
    }

    fn knot(&self) {
        let Setup { zone, extra, grant, .. } = self.setup;
        let mut acl = vec!["admin"];
        acl.extend(grant.transfer().then_some("mesozone-reads"));
        acl.extend(grant.update().then_some("mesozone-updates"));
        let admin = format!(
            "key:\n  - id: admin\n    algorithm: hmac-sha256\n    secret: {ADMIN_SECRET}\n\
             acl:\n  - id: admin\n    key: admin\n    action: [ transfer, update ]\n\nacl:"
        );
        let conf = rewrite(
            example("knot/knot.conf"),
            &[
                ("algorithm: hmac-sha256", &format!("algorithm: {}", self.setup.algorithm)),
                ("\nacl:", &format!("\n{admin}")),
                ("/run/knot", self.path()),
                ("/var/lib/knot", self.path()),
                ("    user: knot:knot\n", ""),
                ("0.0.0.0@53, ::@53", &format!("{}@{}", self.addr.ip(), self.addr.port())),
                ("target: syslog", "target: stdout"),
                ("[ A, AAAA, SRV, TXT ]", &format!("[ {} ]", self.types().join(", "))),
                ("[ mesos. ]", &format!("[ {}. ]", self.setup.domain())),
                ("domain: mesos\n", &format!("domain: {zone}\n{extra}\n")),
                (
                    "acl: [ mesozone-reads, mesozone-updates ]",
                    &format!("acl: [ {} ]", acl.join(", ")),
                ),
            ],
        );
        self.write("knot.conf", &conf);
        self.zone_file("knot/mesos.zone");
    }

    fn powerdns(&self) {
        let Setup { zone, extra, grant, .. } = self.setup;
        let (ip, port, dir) = (self.addr.ip(), self.addr.port(), self.path());
        // Without the right to update, PowerDNS refuses by itself; updates.lua can only fail.
        let policy = format!("lua-dnsupdate-policy-script={dir}/updates.lua");
        let conf = rewrite(
            example("powerdns/pdns.conf"),
            &[
                ("/var/lib/powerdns", dir),
                ("/etc/powerdns", dir),
                (&policy, if grant.update() { &policy } else { "" }),
            ],
        );
        let local = format!(
            "local-address={ip}\nlocal-port={port}\nsocket-dir={dir}\nloglevel=5\n{extra}\n"
        );
        self.write("pdns.conf", &(conf + &local));

        let types: Vec<_> = self.types().iter().map(|t| format!("[pdns.{t}] = true")).collect();
        let policy = rewrite(
            example("powerdns/updates.lua"),
            &[
                ("\"mesos.\"", &format!("\"{}.\"", self.setup.domain())),
                (
                    "[pdns.A] = true, [pdns.AAAA] = true, [pdns.SRV] = true, [pdns.TXT] = true",
                    &types.join(", "),
                ),
                (
                    "function updatepolicy(input)\n",
                    "function updatepolicy(input)\n\
                     if input:getTsigName():toString() == \"admin.\" then return true end\n",
                ),
            ],
        );
        self.write("updates.lua", &policy);

        let holders = |granted| if granted { "mesozone admin" } else { "admin" };
        let setup = rewrite(
            example("powerdns/setup.sh"),
            &[
                ("/etc/mesozone/powerdns.key", &format!("{dir}/mesozone.key")),
                (
                    "import-tsig-key mesozone hmac-sha256",
                    &format!("import-tsig-key mesozone {}", self.setup.algorithm),
                ),
                ("/var/lib/powerdns", dir),
                ("/etc/powerdns", dir),
                ("load-zone mesos ", &format!("load-zone {zone} ")),
                ("set-kind mesos ", &format!("set-kind {zone} ")),
                ("set-meta mesos ", &format!("set-meta {zone} ")),
                ("AXFR mesozone", &format!("AXFR {}", holders(grant.transfer()))),
                ("DNSUPDATE mesozone", &format!("DNSUPDATE {}", holders(grant.update()))),
            ],
        );
        let import = format!("pdnsutil import-tsig-key admin hmac-sha256 {ADMIN_SECRET}\n");
        let script = self.write("setup.sh", &(setup + &import));
        self.zone_file("powerdns/mesos.zone");
        run(Command::new("sh").arg(script));
    }
}

/// Has the server's own checker read the laid out configuration.
#[track_caller]
pub(crate) fn accepts(peer: Peer, dir: &Path) {
    let (program, args): (&str, &[&str]) = match peer {
        Peer::Bind => ("named-checkconf", &["-z", "named.conf"]),
        Peer::Knot => ("knotc", &["-c", "knot.conf", "conf-check"]),
        Peer::PowerDns => ("pdns_server", &["--config-dir=.", "--config=check"]),
    };
    run(debian(program).args(args).current_dir(dir));
}

#[track_caller]
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(output.status.success(), "{command:?} fails: {output:?}");
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}
