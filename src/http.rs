//! The HTTP clients that ask the masters: TLS, credentials, time limits.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, redirect};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{self, Auth};
use crate::secret::{self, SecretError};

/// How long a running process may take to answer.
const POST_MAX: Duration = Duration::from_secs(30);

/// How requests reach a master. Redirects are not followed: credentials go to masters only.
pub struct Http {
    client: Client,
    /// Without a limit on silence, which a stream has of its own.
    stream_client: Client,
    authorization: Option<HeaderValue>,
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("reading {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    #[error("{} holds no usable PEM", .0.display())]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("TLS to the masters")]
    Tls(#[from] rustls::Error),
    #[error("TLS to the masters: the client certificate")]
    Http(#[from] reqwest::Error),
    #[error("asking the running process")]
    Post(#[source] reqwest::Error),
    #[error("[mesos] auth")]
    Secret(#[from] SecretError),
    #[error("[mesos] zk_auth")]
    Election(#[source] SecretError),
    #[error("[mesos] auth: the value cannot stand in a header")]
    Header,
}

/// Asks a running process for what only who shows the token may have. Answers the status and what
/// was said.
pub async fn post(url: &str, token: &str) -> Result<(StatusCode, String), SetupError> {
    let tls = tls(&config::Tls::default())?;
    let client = Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(POST_MAX);
    let response = client.build()?.post(url).bearer_auth(token).send().await;
    let response = response.map_err(SetupError::Post)?;
    let status = response.status();
    Ok((status, response.text().await.map_err(SetupError::Post)?))
}

impl Http {
    pub fn new(config: &config::Mesos) -> Result<Http, SetupError> {
        let tls = tls(&config.tls)?;
        let builder = || -> ClientBuilder {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .no_proxy()
                .redirect(redirect::Policy::none())
                .connect_timeout(config.timeout)
                .tcp_nodelay(true)
                .gzip(true)
                .user_agent(concat!("mesozone/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Http {
            client: builder().read_timeout(config.timeout).build()?,
            stream_client: builder().build()?,
            authorization: config.auth.as_ref().map(authorization).transpose()?,
        })
    }

    pub async fn get(&self, url: &str) -> reqwest::Result<Response> {
        self.authorized(self.client.get(url)).send().await
    }

    /// Makes a call of `/api/v1`.
    pub async fn call(&self, url: &str, kind: &str) -> reqwest::Result<Response> {
        self.authorized(call(self.client.post(url), kind)).send().await
    }

    /// The same, for an answer that goes on and on: nothing limits how long it is silent.
    pub async fn stream(&self, url: &str, kind: &str) -> reqwest::Result<Response> {
        self.authorized(call(self.stream_client.post(url), kind)).send().await
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }
}

fn call(request: RequestBuilder, kind: &str) -> RequestBuilder {
    let body = format!("{{\"type\":\"{kind}\"}}");
    let json = "application/json";
    request.header(CONTENT_TYPE, json).header(reqwest::header::ACCEPT, json).body(body)
}

fn authorization(auth: &Auth) -> Result<HeaderValue, SetupError> {
    let text = match auth {
        Auth::Header(header) => secret::read(header)?,
        Auth::Basic { principal, secret } => {
            let pair = zeroize::Zeroizing::new(format!("{principal}:{}", *secret::read(secret)?));
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair.as_bytes());
            zeroize::Zeroizing::new(format!("Basic {encoded}"))
        }
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| SetupError::Header)?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(config: &config::Tls) -> Result<rustls::ClientConfig, SetupError> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let mut roots = rustls::RootCertStore::empty();
    for certificate in
        config.ca_file.iter().map(certificates).collect::<Result<Vec<_>, _>>()?.concat()
    {
        roots.add(certificate)?;
    }
    let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    match (&config.cert_file, &config.key_file) {
        (Some(certificate), Some(key)) => {
            let private = PrivateKeyDer::from_pem_slice(&file(key)?);
            let private = private.map_err(|error| SetupError::Pem(key.clone(), error))?;
            Ok(builder.with_client_auth_cert(certificates(certificate)?, private)?)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let pem = file(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    read.map_err(|error| SetupError::Pem(path.clone(), error))
}

fn file(path: &PathBuf) -> Result<Vec<u8>, SetupError> {
    std::fs::read(path).map_err(|error| SetupError::File(path.clone(), error))
}
