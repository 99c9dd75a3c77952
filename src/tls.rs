//! TLS to one name server, RFC 9103: whom to trust, and in words why a handshake failed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Trust;

/// What both sides have to agree on, RFC 9103, section 7.1.
const ALPN: &[u8] = b"dot";

/// Why TLS to a target cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read ca_file {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    #[error("ca_file {} is no usable PEM", .0.display())]
    Pem(PathBuf, #[source] pem::Error),
    #[error("ca_file {} holds no certificate", .0.display())]
    Empty(PathBuf),
    #[error("ca_file {} holds a certificate that cannot be used", .0.display())]
    Certificate(PathBuf, #[source] rustls::Error),
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

/// Why a server that was reached is not talked to.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the server's certificate is signed by no authority in {}", .0.display())]
    Untrusted(PathBuf),
    #[error("the server's certificate is for {presented}, not for {expected}: see tls_name")]
    OtherName { expected: String, presented: String },
    #[error("the server's certificate is good only until {0}")]
    Expired(String),
    #[error("the server's certificate is good only from {0} on")]
    NotYet(String),
    #[error("the server's certificate is not good: {0}")]
    Certificate(CertificateError),
    #[error("the server speaks no TLS on this port")]
    NoTls,
    #[error("the server speaks no TLS 1.3")]
    Version,
    #[error("the server did not agree to speak DNS (ALPN `dot`) on this port")]
    Protocol,
    // BIND says no more to a client whose version it does not take.
    #[error(
        "the server closed the connection in the handshake: does it speak TLS 1.3 on this port?"
    )]
    Closed,
    #[error("the handshake failed")]
    Other(#[source] io::Error),
}

/// How one target's server proves who it is.
pub struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    ca_file: PathBuf,
}

impl Tls {
    /// Reads whom to trust.
    pub fn new(trust: &Trust) -> Result<Tls, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let roots = authorities(&trust.ca_file)?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Tls {
            connector: TlsConnector::from(Arc::new(config)),
            name: trust.name.clone(),
            ca_file: trust.ca_file.clone(),
        })
    }

    /// The handshake on a new connection.
    pub async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let connected = self.connector.connect(self.name.clone(), stream).await;
        let stream = connected.map_err(|error| self.failure(error))?;
        match stream.get_ref().1.alpn_protocol() == Some(ALPN) {
            true => Ok(stream),
            false => Err(HandshakeError::Protocol),
        }
    }

    fn failure(&self, error: io::Error) -> HandshakeError {
        use rustls::Error as Tls;
        match error.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(Tls::InvalidCertificate(fault)) => self.distrust(fault.clone()),
            Some(Tls::InvalidMessage(_) | Tls::InappropriateMessage { .. }) => {
                HandshakeError::NoTls
            }
            Some(
                Tls::AlertReceived(AlertDescription::ProtocolVersion) | Tls::PeerIncompatible(_),
            ) => HandshakeError::Version,
            Some(
                Tls::AlertReceived(AlertDescription::NoApplicationProtocol)
                | Tls::NoApplicationProtocol,
            ) => HandshakeError::Protocol,
            Some(_) => HandshakeError::Other(error),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    HandshakeError::Closed
                }
                _ => HandshakeError::Other(error),
            },
        }
    }

    fn distrust(&self, fault: CertificateError) -> HandshakeError {
        use CertificateError as Fault;
        match fault {
            Fault::UnknownIssuer | Fault::BadSignature => {
                HandshakeError::Untrusted(self.ca_file.clone())
            }
            Fault::NotValidForNameContext { presented, .. } => HandshakeError::OtherName {
                expected: self.name.to_str().into_owned(),
                presented: match presented.is_empty() {
                    true => "no name at all".to_owned(),
                    false => presented.join(", "),
                },
            },
            Fault::ExpiredContext { not_after, .. } => HandshakeError::Expired(date(not_after)),
            Fault::NotValidYetContext { not_before, .. } => {
                HandshakeError::NotYet(date(not_before))
            }
            fault => HandshakeError::Certificate(fault),
        }
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TrustError> {
    let pem = std::fs::read(path).map_err(|error| TrustError::File(path.into(), error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| TrustError::Pem(path.into(), error))?;
        let added = roots.add(certificate);
        added.map_err(|error| TrustError::Certificate(path.into(), error))?;
    }
    match roots.is_empty() {
        true => Err(TrustError::Empty(path.into())),
        false => Ok(roots),
    }
}

fn date(time: UnixTime) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}
