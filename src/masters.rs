//! Asks the masters over HTTP: any of them, whoever leads.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use futures_util::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, redirect};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{self, Auth, Scheme};
use crate::report::chain;
use crate::secret::{self, SecretError};
use crate::snapshot::{Completeness, Confirmation, Leadership};
use crate::state::{State, StateError, StateReader};

/// A redirect more than this is a loop: a standby names the leader, who answers.
const REDIRECT_MAX: usize = 3;

/// The masters of one cluster.
pub struct Masters {
    client: Client,
    authorization: Option<HeaderValue>,
    configured: Vec<config::Master>,
    failover_hold: Duration,
    /// Who led last: asked first.
    leader: Option<Base>,
    /// The leadership whose registry is known to be read.
    confirmed: Option<Term>,
}

/// Where a master's paths begin.
#[derive(Clone, PartialEq, Eq)]
struct Base {
    scheme: Scheme,
    authority: String,
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// One leadership: the master process, and when it was elected.
type Term = (Box<str>, Option<f64>);

fn term(state: &State) -> Term {
    (state.cluster.master_id.clone(), state.cluster.elected_time)
}

/// The leading master's answer.
pub struct Answer {
    pub state: State,
    pub completeness: Completeness,
    /// Who answered.
    pub leader: String,
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
    #[error("[mesos] auth")]
    Secret(#[from] SecretError),
    #[error("[mesos] auth: the value cannot stand in a header")]
    Header,
}

/// Why one master gave no state.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    #[error("no answer")]
    Http(#[source] reqwest::Error),
    #[error("the answer broke off")]
    Body(#[source] reqwest::Error),
    #[error("it answered {0}{hint}", hint = status_hint(*.0))]
    Status(StatusCode),
    #[error("it redirects to {0:?}, which is no master")]
    Redirect(String),
    #[error("another master answered in its place meanwhile")]
    Changed,
    #[error("masters redirect in a circle")]
    Circle,
    #[error(transparent)]
    State(#[from] StateError),
}

fn status_hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => ": it wants credentials, or other ones, see [mesos] auth",
        StatusCode::FORBIDDEN => ": these credentials may not read the state",
        StatusCode::SERVICE_UNAVAILABLE => ": no leader is elected",
        _ => "",
    }
}

/// Why nobody gave a state: one line for each master.
#[derive(Debug, thiserror::Error)]
#[error("no master gave the state: {}", .0.join("; "))]
pub struct NobodyError(Vec<String>);

impl Masters {
    pub fn new(config: &config::Mesos) -> Result<Masters, SetupError> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls(&config.tls)?)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(config.timeout)
            .read_timeout(config.timeout)
            .gzip(true)
            .user_agent(concat!("mesozone/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Masters {
            client,
            authorization: config.auth.as_ref().map(authorization).transpose()?,
            configured: config.masters.clone(),
            failover_hold: config.failover_hold,
            leader: None,
            confirmed: None,
        })
    }

    /// The leading master's state, from whichever master leads to it.
    pub async fn state(&mut self) -> Result<Answer, NobodyError> {
        let mut bases: Vec<Base> = self.leader.take().into_iter().collect();
        for master in &self.configured {
            let base = Base { scheme: master.scheme, authority: master.endpoint.authority(5050) };
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
        let mut failures = Vec::new();
        for base in bases {
            match self.ask(base.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failures.push(format!("{base}: {}", chain(&error))),
            }
        }
        Err(NobodyError(failures))
    }

    async fn ask(&mut self, mut base: Base) -> Result<Answer, MasterError> {
        for _ in 0..=REDIRECT_MAX {
            let response = self.get(&base, "/master/state").await?;
            match response.status() {
                StatusCode::OK => return self.read(base, response).await,
                StatusCode::TEMPORARY_REDIRECT => base = redirected(&base, &response)?,
                status => return Err(MasterError::Status(status)),
            }
        }
        Err(MasterError::Circle)
    }

    async fn get(&self, base: &Base, path: &str) -> Result<Response, MasterError> {
        let mut request = self.client.get(format!("{base}{path}"));
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        request.send().await.map_err(MasterError::Http)
    }

    async fn read(&mut self, base: Base, response: Response) -> Result<Answer, MasterError> {
        let (mut state, mut elected_for) = read_state(response).await?;
        let young = elected_for.is_none_or(|age| age < self.failover_hold);
        let confirmation = match young {
            false => Confirmation::Unavailable,
            true if self.confirmed.as_ref() == Some(&term(&state)) => Confirmation::Given,
            true => self.confirmation(&base).await,
        };
        // What was answered before the registry was read is confirmed by nothing: ask again.
        let asked = term(&state);
        if confirmation == Confirmation::Given && self.confirmed.as_ref() != Some(&asked) {
            let response = self.get(&base, "/master/state").await?;
            if response.status() != StatusCode::OK {
                return Err(MasterError::Status(response.status()));
            }
            (state, elected_for) = read_state(response).await?;
            if term(&state) != asked {
                return Err(MasterError::Changed);
            }
            self.confirmed = Some(asked);
        }
        let failover_hold = self.failover_hold;
        let leadership = Leadership { elected_for, confirmation, failover_hold };
        let completeness = Completeness::of_answer(&state.cluster, &leadership);
        let leader = base.to_string();
        self.leader = Some(base);
        Ok(Answer { state, completeness, leader })
    }

    /// Whether the leader's registry is read: `/api/v1` answers 503 until then.
    async fn confirmation(&self, base: &Base) -> Confirmation {
        let mut request = self
            .client
            .post(format!("{base}/master/api/v1"))
            .header(CONTENT_TYPE, "application/json")
            .body(r#"{"type":"GET_VERSION"}"#);
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value.clone());
        }
        match request.send().await.map(|response| response.status()) {
            Ok(StatusCode::OK) => Confirmation::Given,
            Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                Confirmation::Unavailable
            }
            Ok(_) | Err(_) => Confirmation::Withheld,
        }
    }
}

/// The state, and for how long its leader has led by its own clock.
async fn read_state(response: Response) -> Result<(State, Option<Duration>), MasterError> {
    let date = date(&response);
    let mut reader = StateReader::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        reader.push(&chunk.map_err(MasterError::Body)?);
    }
    let state = reader.finish()?;
    let elected_for = date.zip(state.cluster.elected_time).map(|(date, elected)| {
        Duration::try_from_secs_f64(date - elected).unwrap_or(Duration::ZERO)
    });
    Ok((state, elected_for))
}

/// Seconds since 1970 by the master's own clock.
fn date(response: &Response) -> Option<f64> {
    let text = response.headers().get(DATE)?.to_str().ok()?;
    let date: SystemTime = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

/// A standby's `Location: //host:port/master/state`: the scheme stays.
fn redirected(base: &Base, response: &Response) -> Result<Base, MasterError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.unwrap_or_default();
    let (scheme, rest) = match location.split_once("//") {
        Some(("", rest)) => (base.scheme, rest),
        Some(("http:", rest)) if base.scheme == Scheme::Http => (Scheme::Http, rest),
        Some(("https:", rest)) => (Scheme::Https, rest),
        _ => return Err(MasterError::Redirect(location.to_owned())),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    match !authority.is_empty() && !authority.contains('@') && path == "master/state" {
        true => Ok(Base { scheme, authority: authority.to_owned() }),
        false => Err(MasterError::Redirect(location.to_owned())),
    }
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
