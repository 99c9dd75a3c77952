//! What a server holds, as Debian's own tools see it, and changes by another hand than mesozone's.

use super::{Running, debian, set_clock};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

impl Running {
    /// The zone as the tests' own key may see it: `name<TAB>TTL<TAB>TYPE<TAB>rdata`, sorted,
    /// names in lower case, without the SOA.
    #[track_caller]
    pub(crate) fn axfr(&self) -> Vec<String> {
        self.transfer(&self.admin_key_file()).unwrap_or_else(|output| panic!("{output}"))
    }

    /// The same with any key, or what `dig` says of the failure.
    pub(crate) fn transfer(&self, key_file: &Path) -> Result<Vec<String>, String> {
        let output = self.dig(&["-k", utf8(key_file), &self.zone, "AXFR", "+onesoa"]);
        // A failed transfer, whose exit status is 0, has no SOA.
        let (soa, mut lines): (Vec<_>, Vec<_>) =
            output.lines().filter_map(normalised).partition(|line| line.contains("\tSOA\t"));
        lines.sort();
        if soa.len() == 1 { Ok(lines) } else { Err(output) }
    }

    /// The answers' rdata, sorted.
    #[track_caller]
    pub(crate) fn query(&self, name: &str, rtype: &str) -> Vec<String> {
        let output = self.dig(&[name, rtype]);
        assert!(!output.contains(";;"), "{output}");
        let lines = output.lines().filter_map(normalised);
        let mut rdata: Vec<_> =
            lines.filter_map(|line| line.splitn(4, '\t').nth(3).map(str::to_owned)).collect();
        rdata.sort();
        rdata
    }

    #[track_caller]
    pub(crate) fn serial(&self) -> u32 {
        let soa = self.query(&self.zone, "SOA");
        let serial = soa.first().and_then(|rdata| rdata.split(' ').nth(2));
        serial.and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no serial in {soa:?}"))
    }

    /// Lines of an `nsupdate` script, sent with full rights.
    #[track_caller]
    pub(crate) fn nsupdate(&self, script: &str) {
        let key_file = self.admin_key_file();
        let sent = send(self.addr(), &self.zone, &key_file, script, self.clock);
        sent.unwrap_or_else(|output| panic!("{script}: {output}"));
    }

    fn dig(&self, args: &[&str]) -> String {
        let mut command = debian("dig");
        command.arg(format!("@{}", self.addr().ip())).args(["-p", &self.addr().port().to_string()]);
        command.args(["+tcp", "+norecurse", "+tries=1", "+time=10", "+noall", "+answer"]);
        set_clock(command.args(args), self.clock);
        let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        text(&output)
    }
}

/// Lines of an `nsupdate` script sent over TCP with a key, by an honest clock; or the output of
/// `nsupdate`, which has the rcode.
pub(crate) fn nsupdate(
    server: SocketAddr,
    zone: &str,
    key_file: &Path,
    script: &str,
) -> Result<(), String> {
    send(server, zone, key_file, script, 0)
}

fn send(
    server: SocketAddr,
    zone: &str,
    key_file: &Path,
    script: &str,
    clock: i64,
) -> Result<(), String> {
    let mut command = debian("nsupdate");
    set_clock(command.args(["-v", "-k", utf8(key_file)]), clock);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped above");
    let to = format!("server {} {}\nzone {zone}\n{script}\nsend\n", server.ip(), server.port());
    let written = stdin.write_all(to.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("a child of ours");
    if output.status.success() && written.is_ok() { Ok(()) } else { Err(text(&output)) }
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// A line of `dig`: fields divided by blanks, of which only the last has some of its own.
fn normalised(line: &str) -> Option<String> {
    if line.starts_with(';') || line.is_empty() {
        return None;
    }
    let (name, rest) = field(line);
    let (ttl, rest) = field(rest);
    let (_class, rest) = field(rest);
    let (rtype, rdata) = field(rest);
    let names = ["CNAME", "DNAME", "MX", "NS", "PTR", "SRV"].contains(&rtype);
    let rdata = if names { rdata.to_lowercase() } else { rdata.to_owned() };
    Some(format!("{}\t{ttl}\t{rtype}\t{rdata}", name.to_lowercase()))
}

fn field(line: &str) -> (&str, &str) {
    let (field, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    (field, rest.trim_start())
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
