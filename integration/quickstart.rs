//! The quickstart does what it says: the lines it prints are run as they stand.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::simulated::builds_here;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running quickstart; it ends with the value.
struct Quickstart {
    process: Child,
    stdout: BufReader<ChildStdout>,
    /// What it printed to be copied.
    lines: Vec<String>,
    /// Where the page is.
    page: String,
}

impl Quickstart {
    #[track_caller]
    fn start(seconds: &str) -> Quickstart {
        let mut command = Command::new("examples/quickstart");
        builds_here(&mut command).args(["--seconds", seconds]).stdin(Stdio::null());
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let (mut lines, mut page) = (Vec::new(), String::new());
        let mut line = String::new();
        while stdout.read_line(&mut line).unwrap() > 0 && !line.starts_with("Ctrl-C") {
            if let Some((_, address)) = line.split_once("for people: ") {
                page = address.trim_end().to_owned();
            }
            lines.extend(line.strip_prefix("  ").map(|line| line.trim_end().to_owned()));
            line.clear();
        }
        Quickstart { process, stdout, lines, page }
    }

    /// Waits for the end, and that nobody is left who could print.
    #[track_caller]
    fn ends_well(&mut self) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!((self.process.wait().unwrap().code(), &*rest), (Some(0), ""));
        let config = self.lines[1].split(' ').find(|word| word.ends_with(".toml")).unwrap();
        assert!(!Path::new(config).exists(), "{config}");
        let port = self.lines[0].split(' ').nth(3).unwrap().parse().unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "{port} is still open");
    }

    fn signal(&self, signal: &str) {
        // The child is not reaped before `wait`, so the id can belong to nobody else.
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        // It cleans up after itself, unless it has ended already.
        if let Ok(None) = self.process.try_wait() {
            self.signal("-TERM");
            // Nobody is left to tell of a failure.
            let _ = self.process.wait();
        }
    }
}

fn bash(line: &str) -> String {
    let mut command = Command::new("bash");
    let output = builds_here(&mut command).args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_quickstart_shows_what_it_says() {
    let mut quickstart = Quickstart::start("120");
    let [dig, records, start, hello] = &*quickstart.lines.clone() else {
        panic!("four lines: {:?}", quickstart.lines)
    };
    assert!(bash(&format!("curl -s {}", quickstart.page)).contains("All well"));
    assert!(bash(dig).contains("search.marathon.mesos.\t60\tIN\tA\t"));
    assert!(bash(records).contains("search.marathon.mesos.\t60\tIN\tA\t"));
    assert!(bash(start).contains("started"));
    let begun = Instant::now();
    while bash(hello).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{hello}");
    }
    quickstart.signal("-INT");
    quickstart.ends_well();
}

#[test]
fn two_quickstarts_run_side_by_side_and_end_by_themselves() {
    let mut both = [Quickstart::start("6"), Quickstart::start("6")];
    assert_ne!(both[0].lines[0], both[1].lines[0]);
    both.iter().for_each(|one| assert!(bash(&one.lines[0]).contains("NOERROR")));
    both.iter_mut().for_each(Quickstart::ends_well);
}
