//! A master that says what a test tells it to, octet for octet, over TCP or TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// Listens until the test binary ends; each connection is for one request.
pub(crate) struct Canned {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    /// Answers what `respond` makes of a request's head.
    pub(crate) fn start(respond: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Canned {
        Canned::accept(move |stream, heads| {
            exchange(&mut BufReader::new(stream), heads, &respond);
        })
    }

    /// The same over TLS. A failed handshake is no request.
    pub(crate) fn start_tls(
        config: ServerConfig,
        respond: impl Fn(&str) -> Vec<u8> + Send + 'static,
    ) -> Canned {
        let config = Arc::new(config);
        Canned::accept(move |stream, heads| {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut tls = BufReader::new(StreamOwned::new(session, stream));
            exchange(&mut tls, heads, &respond);
            let mut tls = tls.into_inner();
            tls.conn.send_close_notify();
            // The client may have hung up on us, as it does on a certificate it does not trust.
            let _ = tls.flush();
        })
    }

    fn accept(serve: impl Fn(TcpStream, &Mutex<Vec<String>>) + Send + 'static) -> Canned {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = heads.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                serve(stream, &kept);
            }
        });
        Canned { address, heads }
    }

    /// The heads of the requests so far, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn exchange(
    stream: &mut BufReader<impl Read + Write>,
    heads: &Mutex<Vec<String>>,
    respond: impl Fn(&str) -> Vec<u8>,
) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        match stream.read_line(&mut head) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    // A connection closed on unread octets is reset, and the answer lost.
    stream.read_exact(&mut vec![0; length.map_or(0, |text| text.parse().unwrap())]).unwrap();
    heads.lock().unwrap().push(head.clone());
    // A client that has read enough may be gone.
    let _ = stream.get_mut().write_all(&respond(&head)).and_then(|()| stream.get_mut().flush());
}

/// An answer with these header lines, and no length but what they say.
pub(crate) fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// An address where nobody listens, and that nobody else is given meanwhile.
pub(crate) struct Nobody {
    pub(crate) address: SocketAddr,
    _connected: (TcpListener, TcpStream),
}

impl Nobody {
    pub(crate) fn claim() -> Nobody {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = stream.local_addr().unwrap();
        Nobody { address, _connected: (listener, stream) }
    }
}

/// A certificate authority and what it signed, made by `openssl`.
pub(crate) struct Authority {
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let authority = Authority { dir: tempfile::tempdir().unwrap() };
        authority.request("ca", &["-subj", "/CN=authority", "-addext", "keyUsage=keyCertSign"]);
        authority
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `NAME.pem` and `NAME.key` for 127.0.0.1, signed by this authority.
    pub(crate) fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        self.sign_for(name, "IP:127.0.0.1", "+0")
    }

    /// The same for another name, by a clock that is so far ahead: `+10d`, `-3d`.
    pub(crate) fn sign_for(&self, name: &str, subject: &str, clock: &str) -> (PathBuf, PathBuf) {
        let [ca, key] = ["ca.pem", "ca.key"].map(|name| self.path(name));
        let [ca, key] = [&ca, &key].map(|path| path.to_str().unwrap());
        self.request_at(
            clock,
            name,
            &[
                "-subj",
                "/CN=server",
                "-CA",
                ca,
                "-CAkey",
                key,
                "-addext",
                &format!("subjectAltName={subject}"),
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ],
        );
        (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
    }

    #[track_caller]
    fn request(&self, name: &str, more: &[&str]) {
        self.request_at("+0", name, more);
    }

    #[track_caller]
    fn request_at(&self, clock: &str, name: &str, more: &[&str]) {
        let mut openssl = Command::new("faketime");
        openssl.args(["-f", clock, "openssl"]);
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-nodes", "-days", "2", "-keyout", &format!("{name}.key")]);
        openssl.args(["-out", &format!("{name}.pem")]).args(more).current_dir(self.dir.path());
        let output = openssl.output().unwrap_or_else(|e| panic!("cannot run {openssl:?}: {e}"));
        assert!(output.status.success(), "{openssl:?}: {output:?}");
    }

    /// A server with a certificate of this authority's.
    pub(crate) fn server(&self) -> ServerConfig {
        let (certificate, key) = self.sign("server");
        let config = ServerConfig::builder_with_provider(provider());
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        config.with_single_cert(vec![pem(&certificate)], private(&key)).unwrap()
    }

    /// The same, which asks its clients for a certificate of this authority's.
    pub(crate) fn server_that_asks(&self) -> ServerConfig {
        let (certificate, key) = self.sign("server");
        let mut roots = RootCertStore::empty();
        roots.add(pem(&self.path("ca.pem"))).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let config = ServerConfig::builder_with_provider(provider());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_client_cert_verifier(verifier.build().unwrap());
        config.with_single_cert(vec![pem(&certificate)], private(&key)).unwrap()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn pem(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn private(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).unwrap()
}
