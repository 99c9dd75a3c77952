//! Asks the masters: any of them, whoever leads.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::header::{DATE, LOCATION};
use reqwest::{Response, StatusCode};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cluster::{Cluster, Endpoint};
use crate::config::{self, Scheme, Watch};
use crate::election::Elected;
use crate::http::{Http, SetupError};
use crate::live;
use crate::mesos;
use crate::report::chain;
use crate::secret;
use crate::snapshot::{Completeness, Confirmation, Leadership};
use crate::state::{State, StateError, StateReader};
use crate::stream::{StreamError, Subscription};
use crate::zookeeper::{self, Detected};

/// A redirect more than this is a loop: a standby names the leader, who answers.
const REDIRECT_MAX: usize = 3;
/// After so long without an answer the next master is asked as well.
const SILENCE: Duration = Duration::from_secs(2);
const STATE: &str = "/master/state";
const CALLS: &str = "/master/api/v1";

/// The masters of one cluster. Dropping it ends what follows their election.
pub struct Masters {
    http: Http,
    configured: Vec<config::Master>,
    elections: Vec<Election>,
    /// Of masters that an election tells of: it tells addresses only.
    elected_scheme: Scheme,
    _following: JoinSet<Infallible>,
    failover_hold: Duration,
    timeout: Duration,
    /// The key of the label by which tasks choose names.
    chooses: Option<Arc<str>>,
    known: Mutex<Known>,
}

/// What earlier answers told.
#[derive(Default)]
struct Known {
    /// Who led last: asked first.
    leader: Option<Base>,
    /// The leadership whose registry is known to be read.
    confirmed: Option<Term>,
    /// The leadership seen last, and when it was seen first.
    seen: Option<(Term, Instant)>,
}

/// One ensemble, and what is known of the election there.
struct Election {
    ensemble: config::Ensemble,
    detected: watch::Receiver<Detected>,
}

/// Where a master's paths begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
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

fn term(cluster: &Cluster) -> Term {
    (cluster.master_id.clone(), cluster.elected_time)
}

/// All that the leading master knows.
pub struct Whole {
    pub state: State,
    pub completeness: Completeness,
    /// Who answered.
    pub leader: Base,
    /// For how long what an earlier leader knew is still waited for.
    pub hold_left: Duration,
    /// The events that go on from this state.
    pub subscription: Option<Subscription>,
}

/// What a master is, by its answer to who wants the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    Leads,
    /// It sends those who ask there.
    Follows(Base),
}

/// Why one master gave no state.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    #[error("no answer")]
    Http(#[source] reqwest::Error),
    #[error("no answer in time")]
    Late,
    #[error("the answer broke off")]
    Body(#[source] reqwest::Error),
    #[error("it answered {0}{hint}", hint = status_hint(*.0))]
    Status(StatusCode),
    #[error("it refuses the event stream: it answered {0}{hint}", hint = status_hint(*.0))]
    Refused(StatusCode),
    #[error("it answers with no event stream")]
    NoStream(#[source] StreamError),
    #[error("it redirects to {0:?}, which is no master")]
    Redirect(String),
    #[error("another master answered in its place meanwhile")]
    Changed,
    #[error("masters redirect in a circle")]
    Circle,
    #[error(transparent)]
    State(#[from] StateError),
    #[error("it does not say who it is")]
    Leader(#[source] serde_json::Error),
    #[error("it does not say its version")]
    Version(#[source] serde_json::Error),
    #[error("the event stream")]
    Stream(#[from] StreamError),
}

/// Whether the operator API is not there for us, however often it is asked.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED
}

fn status_hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => ": it wants credentials, or other ones, see [mesos] auth",
        StatusCode::FORBIDDEN => ": these credentials may not read the state",
        StatusCode::SERVICE_UNAVAILABLE => ": no leader is elected, or its registry is not read",
        _ => "",
    }
}

/// Why nobody gave a state.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// One line for each master.
    #[error("no master gave the state: {}", .0.join("; "))]
    Nobody(Vec<String>),
    /// The leading master lets nobody, or not us, subscribe.
    #[error("{0}")]
    Refused(Base, #[source] MasterError),
}

impl ReadError {
    /// The stream that was to go on from the state ended before it caught up with another.
    pub fn behind(leader: &Base, error: &StreamError) -> ReadError {
        let error = chain(error);
        ReadError::Nobody(vec![format!("{leader}: the event stream ended at once: {error}")])
    }

    fn nobody(base: &Base, error: &MasterError) -> ReadError {
        ReadError::Nobody(vec![format!("{base}: {}", chain(error))])
    }
}

impl Masters {
    /// Begins to follow the elections, which takes a runtime.
    pub fn new(config: &config::Mesos) -> Result<Masters, SetupError> {
        let auth = config.zk_auth.as_ref().map(secret::pair).transpose();
        let auth = auth.map_err(SetupError::Election)?;
        let mut following = JoinSet::new();
        let elections = config.ensembles.iter().map(|ensemble| {
            let (sender, detected) = watch::channel(Detected::default());
            following.spawn(zookeeper::follow(ensemble.clone(), auth.clone(), sender));
            Election { ensemble: ensemble.clone(), detected }
        });
        Ok(Masters {
            http: Http::new(config)?,
            configured: config.masters.clone(),
            elections: elections.collect(),
            elected_scheme: match config.tls.ca_file {
                Some(_) => Scheme::Https,
                None => Scheme::Http,
            },
            _following: following,
            failover_hold: config.failover_hold,
            timeout: config.timeout,
            chooses: config.task_label.clone(),
            known: Mutex::default(),
        })
    }

    /// Every known master in the order of the names that number them: as configured, else as they
    /// would come to lead.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        match self.configured.is_empty() {
            false => self.configured.iter().map(|master| master.endpoint.clone()).collect(),
            true => self.elected().into_iter().flat_map(|(_, elected)| elected.masters).collect(),
        }
    }

    /// Who leads by an election that is known as it is now.
    pub fn elected_leader(&self) -> Option<Base> {
        let current = |(trouble, elected): (bool, Elected)| (!trouble).then_some(elected.leader);
        let leader = self.elected().into_iter().find_map(current).flatten()?;
        Some(Base { scheme: self.elected_scheme, authority: leader.authority(5050) })
    }

    /// What the elections told last, and whether they are in trouble since.
    fn elected(&self) -> Vec<(bool, Elected)> {
        let each = self.elections.iter().filter_map(|election| {
            let detected = election.detected.borrow();
            Some((detected.trouble.is_some(), detected.elected.clone()?))
        });
        each.collect()
    }

    /// Each changes whenever its election tells something new.
    pub fn elections(&self) -> Vec<watch::Receiver<Detected>> {
        self.elections.iter().map(|election| election.detected.clone()).collect()
    }

    /// Every master that may know who leads, the likeliest first, after the elections were given
    /// the time to tell; and why some tell nothing.
    async fn bases(&self) -> (VecDeque<Base>, Vec<String>) {
        let told = |detected: &Detected| detected.elected.is_some() || detected.trouble.is_some();
        let mut failures = Vec::new();
        for election in &self.elections {
            let mut detected = election.detected.clone();
            // What it does not tell in time, it tells too late for this reading.
            let _ = timeout(self.timeout, detected.wait_for(told)).await;
            let detected = election.detected.borrow();
            match (&detected.trouble, &detected.elected) {
                (Some(trouble), _) => {
                    failures.push(format!("{}: {}", election.ensemble, chain(trouble)));
                }
                (None, Some(elected)) if elected.leader.is_some() => {}
                (None, _) => failures.push(format!("{}: no master leads", election.ensemble)),
            }
        }
        let base =
            |scheme, endpoint: &Endpoint| Base { scheme, authority: endpoint.authority(5050) };
        let elected = self.elected().into_iter().flat_map(|(_, elected)| elected.masters);
        let elected = elected.map(|master| base(self.elected_scheme, &master));
        let configured = self.configured.iter().map(|m| base(m.scheme, &m.endpoint));
        let (leader, last) = (self.elected_leader(), self.known().leader.clone());
        let mut bases = VecDeque::new();
        for base in leader.into_iter().chain(last).chain(elected).chain(configured) {
            if !bases.contains(&base) {
                bases.push_back(base);
            }
        }
        (bases, failures)
    }

    /// Every master named or elected, after the elections were given the time to tell.
    pub async fn everyone(&self) -> Vec<Base> {
        let mut everyone: Vec<Base> = self.bases().await.0.into();
        let place = |base: &Base| {
            let is = |m: &config::Master| (m.scheme, m.endpoint.authority(5050));
            self.configured.iter().position(|m| is(m) == (base.scheme, base.authority.clone()))
        };
        everyone.sort_by_key(|base| place(base).unwrap_or(usize::MAX));
        everyone
    }

    /// What this master is.
    pub async fn role(&self, base: &Base) -> Result<Role, MasterError> {
        let url = format!("{base}{STATE}");
        let response = self.http.get(&url).await.map_err(MasterError::Http)?;
        match response.status() {
            StatusCode::OK => Ok(Role::Leads),
            StatusCode::TEMPORARY_REDIRECT => redirected(base, STATE, &response).map(Role::Follows),
            status => Err(MasterError::Status(status)),
        }
    }

    /// This master's version.
    pub async fn version(&self, base: &Base) -> Result<String, MasterError> {
        let body = self.get(base, "/version").await?.bytes().await.map_err(MasterError::Body)?;
        mesos::version(&body).map_err(MasterError::Version)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that the leading master knows, from whichever master leads to it; by stream with the
    /// events that follow.
    pub async fn read(&self, by: Watch) -> Result<Whole, ReadError> {
        let (leader, response) = match by {
            Watch::Stream => self.lead(CALLS).await?,
            Watch::Poll => self.lead(STATE).await?,
        };
        let read = match by {
            Watch::Stream => self.subscribed(&leader, response).await,
            Watch::Poll => self.polled(&leader, response).await,
        };
        match read {
            Ok(whole) => {
                self.known().leader = Some(leader);
                Ok(whole)
            }
            Err(refused @ (MasterError::Refused(_) | MasterError::NoStream(_))) => {
                Err(ReadError::Refused(leader, refused))
            }
            Err(error) => Err(ReadError::nobody(&leader, &error)),
        }
    }

    /// The leading master's answer at this path, and who it is. Masters are asked in turn, the
    /// next one as soon as one has failed or been silent for a while.
    async fn lead(&self, path: &str) -> Result<(Base, Response), ReadError> {
        let (mut bases, mut failures) = self.bases().await;
        let (mut asked, mut refused) = (FuturesUnordered::new(), None);
        loop {
            match bases.pop_front() {
                Some(base) => asked.push(async { (base.clone(), self.ask(base, path).await) }),
                None if asked.is_empty() => {
                    return Err(match refused {
                        Some((base, error)) => ReadError::Refused(base, error),
                        None => ReadError::Nobody(failures),
                    });
                }
                None => {}
            }
            let answer = match bases.is_empty() {
                true => Ok(asked.next().await),
                false => timeout(SILENCE, asked.next()).await,
            };
            match answer {
                Ok(Some((_, Ok(leading)))) => return Ok(leading),
                Ok(Some((base, Err(error @ MasterError::Refused(_))))) => {
                    refused = refused.or(Some((base, error)));
                }
                Ok(Some((base, Err(error)))) => {
                    failures.push(format!("{base}: {}", chain(&error)));
                }
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// What this master, or the one it redirects to, answers at this path.
    async fn ask(&self, mut base: Base, path: &str) -> Result<(Base, Response), MasterError> {
        for _ in 0..=REDIRECT_MAX {
            let url = format!("{base}{path}");
            let asked = match path {
                CALLS => timeout(self.timeout, self.http.stream(&url, "SUBSCRIBE")).await,
                _ => Ok(self.http.get(&url).await),
            };
            let response = asked.map_err(|_| MasterError::Late)?.map_err(MasterError::Http)?;
            match response.status() {
                StatusCode::OK => return Ok((base, response)),
                StatusCode::TEMPORARY_REDIRECT => base = redirected(&base, path, &response)?,
                StatusCode::SERVICE_UNAVAILABLE => {
                    return Err(MasterError::Status(StatusCode::SERVICE_UNAVAILABLE));
                }
                status if path == CALLS && is_refusal(status) => {
                    return Err(MasterError::Refused(status));
                }
                status => return Err(MasterError::Status(status)),
            }
        }
        Err(MasterError::Circle)
    }

    async fn polled(&self, leader: &Base, response: Response) -> Result<Whole, MasterError> {
        let (mut state, mut elected_for) = self.read_state(response).await?;
        let asked = term(&state.cluster);
        let confirmed = self.known().confirmed.as_ref() == Some(&asked);
        let confirmation = match elected_for >= self.failover_hold {
            true => Confirmation::Unavailable,
            false if confirmed => Confirmation::Given,
            false => self.confirmation(leader).await,
        };
        // What was answered before the registry was read is confirmed by nothing: ask again.
        if confirmation == Confirmation::Given && !confirmed {
            (state, elected_for) = self.read_state(self.get(leader, STATE).await?).await?;
            if term(&state.cluster) != asked {
                return Err(MasterError::Changed);
            }
            self.known().confirmed = Some(asked);
        }
        Ok(self.whole(state, leader.clone(), (elected_for, confirmation), None))
    }

    async fn subscribed(&self, leader: &Base, response: Response) -> Result<Whole, MasterError> {
        let mut subscription = Subscription::new(response, self.timeout, self.chooses.clone());
        let mut state = subscription.state().await.map_err(|error| match error {
            StreamError::Beginning | StreamError::Event(_) => MasterError::NoStream(error),
            error => MasterError::Stream(error),
        })?;
        let told = async { tokio::try_join!(self.leading(leader), self.frameworks(leader)) };
        let (about, frameworks) = subscription.meanwhile(told).await?;
        let (date, about) = about;
        state.cluster.master_id = about.id;
        state.cluster.elected_time = about.elected_time;
        state.cluster.leader = about.endpoint;
        if let Some(frameworks) = frameworks {
            live::schedulers(&mut state.cluster, &frameworks.cluster);
        }
        let elected_for = self.elected_for(date, &state.cluster);
        // A stream begins only after the registry was read.
        self.known().confirmed = Some(term(&state.cluster));
        let judged = (elected_for, Confirmation::Given);
        Ok(self.whole(state, leader.clone(), judged, Some(subscription)))
    }

    fn whole(
        &self,
        state: State,
        leader: Base,
        (elected_for, confirmation): (Duration, Confirmation),
        subscription: Option<Subscription>,
    ) -> Whole {
        let failover_hold = self.failover_hold;
        let leadership = Leadership { elected_for: Some(elected_for), confirmation, failover_hold };
        let completeness = Completeness::of_answer(&state.cluster, &leadership);
        let hold_left = failover_hold.saturating_sub(elected_for);
        Whole { state, completeness, leader, hold_left, subscription }
    }

    /// The agents that the leader has registered, and those it waits for.
    pub async fn agents(&self, leader: &Base) -> Result<State, MasterError> {
        let reader = read_body(self.get(leader, "/master/slaves").await?, None).await?;
        Ok(reader.finish_agents()?)
    }

    /// The frameworks with what the operator API leaves out; none where we may not read them.
    pub async fn frameworks(&self, leader: &Base) -> Result<Option<State>, MasterError> {
        let response = match self.get(leader, "/master/state-summary").await {
            Err(MasterError::Status(status)) if status.is_client_error() => return Ok(None),
            response => response?,
        };
        Ok(Some(read_body(response, None).await?.finish_frameworks()?))
    }

    async fn get(&self, base: &Base, path: &str) -> Result<Response, MasterError> {
        let response = self.http.get(&format!("{base}{path}")).await.map_err(MasterError::Http)?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(MasterError::Status(status)),
        }
    }

    async fn call(&self, base: &Base, kind: &str) -> Result<Response, MasterError> {
        let url = format!("{base}{CALLS}");
        self.http.call(&url, kind).await.map_err(MasterError::Http)
    }

    /// The leader about itself, and its clock.
    async fn leading(&self, base: &Base) -> Result<(Option<f64>, mesos::Leader), MasterError> {
        let response = self.call(base, "GET_MASTER").await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::TEMPORARY_REDIRECT => return Err(MasterError::Changed),
            status if is_refusal(status) => return Err(MasterError::Refused(status)),
            status => return Err(MasterError::Status(status)),
        }
        let date = date(&response);
        let body = response.bytes().await.map_err(MasterError::Body)?;
        Ok((date, mesos::master_v1(&body).map_err(MasterError::Leader)?))
    }

    /// Whether the leader's registry is read: `/api/v1` answers 503 until then.
    async fn confirmation(&self, base: &Base) -> Confirmation {
        match self.call(base, "GET_VERSION").await.map(|response| response.status()) {
            Ok(StatusCode::OK) => Confirmation::Given,
            Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                Confirmation::Unavailable
            }
            Ok(_) | Err(_) => Confirmation::Withheld,
        }
    }

    /// The state, and for how long its leader has led.
    async fn read_state(&self, response: Response) -> Result<(State, Duration), MasterError> {
        let date = date(&response);
        let state = read_body(response, self.chooses.clone()).await?.finish()?;
        let elected_for = self.elected_for(date, &state.cluster);
        Ok((state, elected_for))
    }

    /// By the leader's own clock; where it tells no times, since this process first saw it lead.
    fn elected_for(&self, date: Option<f64>, cluster: &Cluster) -> Duration {
        let told = date.zip(cluster.elected_time).map(|(date, elected)| {
            Duration::try_from_secs_f64(date - elected).unwrap_or(Duration::ZERO)
        });
        let mut known = self.known();
        let term = term(cluster);
        let since = match &known.seen {
            Some((seen, since)) if *seen == term => *since,
            _ => Instant::now(),
        };
        known.seen = Some((term, since));
        told.unwrap_or_else(|| since.elapsed())
    }
}

/// A body, read as it arrives.
async fn read_body(
    response: Response,
    chooses: Option<Arc<str>>,
) -> Result<StateReader, MasterError> {
    let mut reader = StateReader::new(chooses);
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        reader.push(&chunk.map_err(MasterError::Body)?);
    }
    Ok(reader)
}

/// Seconds since 1970 by the master's own clock.
fn date(response: &Response) -> Option<f64> {
    let text = response.headers().get(DATE)?.to_str().ok()?;
    let date: SystemTime = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

/// A standby's `Location: //host:port` and the same path: the scheme stays.
fn redirected(base: &Base, path: &str, response: &Response) -> Result<Base, MasterError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.unwrap_or_default();
    let (scheme, rest) = match location.split_once("//") {
        Some(("", rest)) => (base.scheme, rest),
        Some(("http:", rest)) if base.scheme == Scheme::Http => (Scheme::Http, rest),
        Some(("https:", rest)) => (Scheme::Https, rest),
        _ => return Err(MasterError::Redirect(location.to_owned())),
    };
    let authority = rest.strip_suffix(path).unwrap_or_default();
    match !authority.is_empty() && !authority.contains(['@', '/']) {
        true => Ok(Base { scheme, authority: authority.to_owned() }),
        false => Err(MasterError::Redirect(location.to_owned())),
    }
}
