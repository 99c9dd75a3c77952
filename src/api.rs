//! HTTP for people and programs: the page, the API of mesos-dns, status, plans, approvals, metrics.
//! Nothing writes without the token.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize, Serializer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::approval::{Approved, Token, release, shown};
use crate::config::Config;
use crate::connection::random;
use crate::follow::Heard;
use crate::health::Health;
use crate::keep::Latest;
use crate::kept::AllSeen;
use crate::lookup;
use crate::mesos_dns_http;
use crate::metrics::Metrics;
use crate::name::Name;
use crate::overview::{Approvals, Overview, ServerSeen};
use crate::page::{self, Notice, Search};
use crate::refusal::Refusal;
use crate::report::JSON_VERSION;
use crate::rr::Serial;
use crate::shares::{Failing, Share, Shares};
use crate::snapshot::Snapshot;
use crate::streamed::Large;

/// Connections at once; the next is closed.
const CONNECTIONS_MAX: usize = 256;
/// Of them those of one client network.
const PER_CLIENT_MAX: usize = 128;
/// How long a client may take for the head of a request, the wait for the next one included.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// The longest head.
const HEAD_OCTETS: usize = 16 * 1024;
/// The longest body; a form with a token in it.
const BODY_OCTETS: usize = 8 * 1024;
/// How long a request may take until its answer begins.
const REQUEST_MAX: Duration = Duration::from_secs(20);
/// How long a connection may last, whatever it does.
const CONNECTION_MAX: Duration = Duration::from_secs(5 * 60);
/// Searches at once; the next waits.
const SEARCHES_MAX: usize = 4;
/// The wait after a socket failed.
const PAUSE: Duration = Duration::from_millis(100);

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("page.svg");
/// Nothing but what comes from here, and nothing within the page itself.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Why nothing is heard over HTTP.
#[derive(Debug, thiserror::Error)]
#[error("[http] cannot listen on {address}")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// What a configuration decides, which may be another one later.
#[derive(Clone)]
pub struct Configured {
    pub config: Arc<Config>,
    pub token: Option<Token>,
}

/// Everything that can be looked at.
#[derive(Clone)]
pub struct Sight {
    pub(crate) latest: Latest,
    pub(crate) heard: Heard,
    pub(crate) seen: AllSeen,
    pub(crate) metrics: Metrics,
    /// Where the bundled server listens.
    pub(crate) bound: Option<Vec<SocketAddr>>,
    pub(crate) settings: watch::Receiver<Configured>,
    pub(crate) rooms: Rooms,
}

/// Room for what costs much.
#[derive(Clone)]
pub(crate) struct Rooms {
    searches: Arc<Semaphore>,
    /// For the whole zone and all tasks.
    wholes: Large,
    /// For plans, which are wanted when things go wrong.
    plans: Large,
}

impl Default for Rooms {
    fn default() -> Rooms {
        let searches = Arc::new(Semaphore::new(SEARCHES_MAX));
        Rooms { searches, wholes: Large::default(), plans: Large::default() }
    }
}

impl Sight {
    fn overview(&self) -> Overview {
        let (heard, settings) = (self.heard.borrow().clone(), self.settings.borrow().clone());
        let rules = &settings.config.rules;
        let zones = [&rules.domain].into_iter().chain(&rules.reverse).cloned();
        let server = self.bound.clone().map(|listen| ServerSeen { listen, zones: zones.collect() });
        Overview {
            now: SystemTime::now(),
            heard_ago: heard.at.map(|at| at.elapsed()),
            leader: heard.leader.map(|leader| leader.to_string()),
            streams: heard.streams,
            trouble: heard.trouble.map(|(text, since)| (text.to_string(), since.elapsed())),
            snapshot: self.latest.borrow().clone(),
            targets: self.seen.borrow().iter().map(|seen| seen.health()).collect(),
            server,
            approvals: match settings.token {
                Some(_) => Approvals::WithToken,
                None => Approvals::Off,
            },
        }
    }

    fn config(&self) -> Arc<Config> {
        self.settings.borrow().config.clone()
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, Refusal> {
        self.latest.borrow().clone().ok_or(Refusal::NothingYet)
    }
}

/// Takes the address, so that it is had or not before anything runs.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Answers requests for ever.
pub async fn serve(listener: TcpListener, sight: Sight) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!("HTTP on http://{address}/");
    }
    let (router, places) = (router(sight), Shares::new(CONNECTIONS_MAX, PER_CLIENT_MAX));
    let mut failing = Failing::default();
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                failing.ends("HTTP");
                if let Some(place) = places.take(client.ip(), 0) {
                    tokio::spawn(connection(stream, router.clone(), place));
                }
            }
            Err(error) => {
                failing.tell("HTTP", &error);
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, _place: Share) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        *request.uri_mut() = without_slash(request.uri());
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_OCTETS);
    let served = http.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_MAX, served).await {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

fn router(sight: Sight) -> Router {
    Router::new()
        .route("/", get(show))
        .route("/page.css", get(|| async { typed("text/css; charset=utf-8", STYLE) }))
        .route("/page.js", get(|| async { typed("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/page.svg", get(|| async { typed("image/svg+xml", ICON) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/version", get(|| async { json(&mesos_dns_http::version()) }))
        .route("/v1/config", get(config))
        .route("/v1/hosts/{host}", get(hosts))
        .route("/v1/services/{service}", get(services))
        .route("/v1/enumerate", get(enumerate))
        .route("/v1/axfr", get(axfr))
        .route("/v1/status", get(status))
        .route("/v1/plan", get(plan))
        .route("/v1/plan/{id}/approve", post(approve))
        .fallback(|| async { Refusal::NoPage })
        .method_not_allowed_fallback(|| async { Refusal::Method })
        .with_state(sight)
        .layer(from_fn(limited))
}

/// What holds for every answer.
async fn limited(request: Request, next: Next) -> Response {
    let answered = timeout(REQUEST_MAX, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| Refusal::Late.into_response());
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// mesos-dns takes a slash at the end of a path.
fn without_slash(uri: &Uri) -> Uri {
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty());
    let plain = path.map(|path| match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    });
    plain.and_then(|plain| plain.parse().ok()).unwrap_or_else(|| uri.clone())
}

fn typed(content_type: &'static str, body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, content_type)], body.into()).into_response()
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            typed("application/json", body)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(sight): State<Sight>) -> Response {
    match sight.overview().unready() {
        why if why.is_empty() => "ready\n".into_response(),
        why => (StatusCode::SERVICE_UNAVAILABLE, why.join("; ") + "\n").into_response(),
    }
}

async fn metrics(State(sight): State<Sight>) -> Response {
    let overview = sight.overview();
    let text = tokio::task::block_in_place(|| sight.metrics.text(&overview));
    typed("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
}

async fn config(State(sight): State<Sight>) -> Response {
    json(&mesos_dns_http::config_table(&sight.config()))
}

fn name(text: &str) -> Result<Name, Refusal> {
    text.parse().map_err(|_| Refusal::NoName(text.to_owned()))
}

async fn hosts(State(sight): State<Sight>, Path(host): Path<String>) -> Result<Response, Refusal> {
    Ok(json(&mesos_dns_http::hosts(&sight.snapshot()?.zone, &name(&host)?)))
}

async fn services(
    State(sight): State<Sight>,
    Path(service): Path<String>,
) -> Result<Response, Refusal> {
    let name = name(&service)?;
    Ok(json(&mesos_dns_http::services(&sight.snapshot()?.zone, &service, &name, random())))
}

async fn enumerate(State(sight): State<Sight>) -> Result<Response, Refusal> {
    let (snapshot, config) = (sight.snapshot()?, sight.config());
    let body = sight
        .rooms
        .wholes
        .write(move |out| mesos_dns_http::write_enumerate(out, &snapshot, &config.rules))?;
    Ok(typed("application/json", body))
}

async fn axfr(State(sight): State<Sight>) -> Result<Response, Refusal> {
    let (snapshot, config) = (sight.snapshot()?, sight.config());
    let told = snapshot.told_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let serial = Serial(told.as_secs() as u32); // Unix time, which may go around.
    let body = sight
        .rooms
        .wholes
        .write(move |out| mesos_dns_http::write_axfr(out, &snapshot, &config, serial))?;
    Ok(typed("application/json", body))
}

async fn status(State(sight): State<Sight>) -> Response {
    let overview = sight.overview();
    tokio::task::block_in_place(|| json(&overview.status()))
}

#[derive(Serialize)]
struct Plans {
    version: u32,
    targets: Reports,
}

/// The plan of each target, made when it is written: what is held may be most of a zone.
struct Reports(Vec<Health>);

impl Serialize for Reports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().filter_map(Health::report))
    }
}

async fn plan(State(sight): State<Sight>) -> Result<Response, Refusal> {
    let targets = Reports(sight.overview().targets);
    let body = sight.rooms.plans.write(move |out| {
        serde_json::to_writer(out, &Plans { version: JSON_VERSION, targets })
            .map_err(io::Error::from)
    })?;
    Ok(typed("application/json", body))
}

async fn approve(
    State(sight): State<Sight>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = to_bytes(body, BODY_OCTETS).await.map_err(|_| Refusal::Body);
    let is_form = headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    let approved = match body {
        Ok(body) => {
            let token = sight.settings.borrow().token.clone();
            let targets = sight.seen.borrow().clone();
            release(&id, (token, shown(&headers, &body, is_form)), &targets).await
        }
        Err(refusal) => Err(refusal),
    };
    match (approved, is_form) {
        (Ok(approved), false) => json(&approved),
        (Err(refusal), false) => refusal.into_response(),
        (Ok(Approved { target, removals: count, .. }), true) => typed(
            "text/html; charset=utf-8",
            page(&sight, None, Some(Notice::Approved { target, count })).await,
        ),
        (Err(refusal), true) => {
            let notice = Notice::Refused(refusal.to_string());
            let page = page(&sight, None, Some(notice)).await;
            (refusal.status(), typed("text/html; charset=utf-8", page)).into_response()
        }
    }
}

#[derive(Deserialize)]
struct Asked {
    name: Option<String>,
}

async fn show(State(sight): State<Sight>, Query(asked): Query<Asked>) -> Response {
    let asked = asked.name.filter(|name| !name.trim().is_empty());
    let search = match asked {
        Some(name) => {
            // Each asks every server, which has more to do.
            let _room = sight.rooms.searches.acquire().await;
            let (config, snapshot) = (sight.config(), sight.latest.borrow().clone());
            let (domain, targets) = (&config.rules.domain, &config.targets);
            Some(lookup::search(&name, domain, snapshot.as_deref(), targets).await)
        }
        None => None,
    };
    typed("text/html; charset=utf-8", page(&sight, search, None).await)
}

async fn page(sight: &Sight, search: Option<Search>, notice: Option<Notice>) -> String {
    let overview = sight.overview();
    tokio::task::block_in_place(|| page::page(&overview, search.as_ref(), notice.as_ref()))
}
