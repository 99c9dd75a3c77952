//! A simulated master for a test to talk to, and just enough HTTP to see what it really sends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

/// Longer than an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running simulated master; it ends with the value.
pub(crate) struct Simulated {
    process: Child,
    pub(crate) address: String,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Simulated {
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Simulated {
        let mut process = Command::new(built())
            .args(["--listen", "127.0.0.1:0", "--lifetime", "600"])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Simulated { process, address }
    }

    pub(crate) fn connect(&self, request: &Request) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            request.method, request.path, self.address
        )
        .unwrap();
        for header in &request.headers {
            write!(stream, "{header}\r\n").unwrap();
        }
        write!(stream, "Content-Length: {}\r\n\r\n{}", request.body.len(), request.body).unwrap();
        BufReader::new(stream)
    }

    pub(crate) fn send(&self, request: &Request) -> Answer {
        let mut stream = self.connect(request);
        let (status, headers) = read_head(&mut stream);
        let length = headers["content-length"].parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        Answer { status, headers, body }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        json_of(self.send(&Request::get(path)))
    }

    pub(crate) fn call(&self, name: &str) -> Value {
        json_of(self.send(&Request::call(name)))
    }

    /// A stream of events, from its first record on.
    #[track_caller]
    pub(crate) fn subscribe(&self) -> Events {
        let mut stream = self.connect(&Request::call("SUBSCRIBE"));
        let (status, headers) = read_head(&mut stream);
        assert_eq!((status.as_str(), headers["transfer-encoding"].as_str()), ("200 OK", "chunked"));
        Events { stream, unread: vec![], chunks: vec![] }
    }

    pub(crate) fn control(&self, body: Value) -> Value {
        let body = body.to_string();
        let path = "/control".to_owned();
        json_of(self.send(&Request { method: "POST".to_owned(), path, headers: vec![], body }))
    }
}

/// A stream of events, as it is read.
pub(crate) struct Events {
    stream: BufReader<TcpStream>,
    unread: Vec<u8>,
    /// The lengths of the chunks so far.
    pub(crate) chunks: Vec<usize>,
}

/// How a stream ended.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// With a last chunk.
    Ended,
    /// The connection closed without one.
    Closed,
}

impl Events {
    /// The next record, however the chunks lie about it.
    pub(crate) fn next(&mut self) -> Result<Value, End> {
        loop {
            if let Some(end) = self.unread.iter().position(|&octet| octet == b'\n') {
                let length = std::str::from_utf8(&self.unread[..end]).unwrap();
                let length: usize = length.parse().unwrap();
                if self.unread.len() > end + length {
                    let record = serde_json::from_slice(&self.unread[end + 1..=end + length]);
                    self.unread.drain(..=end + length);
                    return Ok(record.unwrap());
                }
            }
            self.read_chunk()?;
        }
    }

    fn read_chunk(&mut self) -> Result<(), End> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(closed)?;
        if !line.ends_with('\n') {
            return Err(End::Closed);
        }
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk).map_err(closed)?;
        assert!(chunk.ends_with(b"\r\n"));
        if length == 0 {
            return Err(End::Ended);
        }
        self.chunks.push(length);
        self.unread.extend_from_slice(&chunk[..length]);
        Ok(())
    }

    /// The next record that is no heartbeat.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Value {
        loop {
            match self.next() {
                Ok(record) if record["type"] == "HEARTBEAT" => {}
                Ok(record) => return record,
                Err(end) => panic!("the stream is over: {end:?}"),
            }
        }
    }

    /// How the stream ends, once all that is still to come has been read.
    pub(crate) fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.next() {
                return end;
            }
        }
    }

    /// Whether nothing is left to read and nothing at all comes for so long.
    pub(crate) fn is_quiet(&mut self, time: Duration) -> bool {
        if !self.unread.is_empty() || !self.stream.buffer().is_empty() {
            return false;
        }
        self.stream.get_ref().set_read_timeout(Some(time)).unwrap();
        let read = self.stream.get_ref().peek(&mut [0]);
        self.stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        read.is_err()
    }
}

/// A connection that ends within a chunk; one on which nothing comes is still open.
#[track_caller]
fn closed(error: std::io::Error) -> End {
    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the stream stands still");
    End::Closed
}

impl Drop for Simulated {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn get(path: &str) -> Request {
        let (method, path) = ("GET".to_owned(), path.to_owned());
        Request { method, path, headers: vec![], body: String::new() }
    }

    pub(crate) fn call(name: &str) -> Request {
        Request {
            method: "POST".to_owned(),
            path: "/api/v1".to_owned(),
            headers: vec![
                "Content-Type: application/json".to_owned(),
                "Accept: application/json".to_owned(),
            ],
            body: json!({"type": name}).to_string(),
        }
    }

    pub(crate) fn with(mut self, header: &str) -> Request {
        self.headers.push(header.to_owned());
        self
    }
}

/// The example, built in the profile of this test: cargo builds it by itself only where no single
/// target was asked for.
fn built() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let profile = profile();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", "simulated-master"]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = builds_here(&mut cargo).status().unwrap();
        assert!(status.success(), "building the simulated master: {status}");
        profile.join("examples/simulated-master")
    });
    &BUILT
}

/// Where cargo put the programs that belong to this test.
fn profile() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

/// Has a command that runs cargo start in the project, and find what is built already.
pub(crate) fn builds_here(command: &mut Command) -> &mut Command {
    // Build scripts look at what cargo told this test about its own package, and run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.env("CARGO_TARGET_DIR", profile().parent().unwrap());
    command.current_dir(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read_head(stream: &mut impl BufRead) -> (String, BTreeMap<String, String>) {
    let mut lines = stream.lines().map(Result::unwrap);
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap().to_owned();
    (status, lines.take_while(|line| !line.is_empty()).map(|line| header(&line)).collect())
}

fn header(line: &str) -> (String, String) {
    let (name, value) = line.split_once(": ").unwrap();
    (name.to_lowercase(), value.to_owned())
}

#[track_caller]
pub(crate) fn json_of(answer: Answer) -> Value {
    assert_eq!(answer.status, "200 OK", "{}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).unwrap()
}
