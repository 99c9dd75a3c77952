//! Which answer a request gets, in the order a real master decides it.

use std::convert::Infallible;
use std::io::{self, Read};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;
use futures_util::{StreamExt, stream};
use serde::Deserialize;

use crate::body::{Pieces, Record};
use crate::connection::Link;
use crate::control::{self, Control};
use crate::master::{Master, Stage, now};
use crate::state::Identity;
use crate::stream::body;
use crate::{state, summary, v1};

/// A real master zips answers from this length on.
const GZIP_MIN: usize = 1024;
/// More than any call has.
const REQUEST_MAX: usize = 1024 * 1024;

/// The two realms of a master.
enum Realm {
    ReadOnly,
    ReadWrite,
}

pub(crate) fn routes(master: Arc<Master>) -> IntoMakeServiceWithConnectInfo<Router, Link> {
    Router::new().fallback(answer).with_state(master).into_make_service_with_connect_info()
}

async fn answer(
    State(master): State<Arc<Master>>,
    ConnectInfo(link): ConnectInfo<Link>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    if matches!(master.lock().stage, Stage::Down) && head.uri.path() != "/control" {
        link.cut();
        return std::future::pending().await;
    }
    let Ok(body) = to_bytes(body, REQUEST_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let answered = match head.uri.path() {
        "/health" | "/master/health" => Ok(StatusCode::OK.into_response()),
        "/version" => send(&master, &head, "version", || state::version().into()).await,
        "/redirect" | "/master/redirect" => master.redirect(""),
        "/state" | "/master/state" => read(&master, &head, "state").await,
        "/slaves" | "/master/slaves" => read(&master, &head, "slaves").await,
        "/state-summary" | "/master/state-summary" => read(&master, &head, "state-summary").await,
        "/metrics/snapshot" => metrics(&master, &head).await,
        "/api/v1" | "/master/api/v1" => call(&master, &head, &body, link).await,
        "/control" => change(&master, &head, &body, &link),
        _ => Err(not_found()),
    };
    answered.unwrap_or_else(|refused| refused)
}

impl Master {
    #[expect(clippy::result_large_err, reason = "an answer either way")]
    fn authenticate(&self, head: &Parts, realm: Realm) -> Result<(), Response> {
        let expected = match realm {
            Realm::ReadOnly => &self.manner.read_only,
            Realm::ReadWrite => &self.manner.read_write,
        };
        let Some(expected) = expected else { return Ok(()) };
        let given = head.headers.get(header::AUTHORIZATION);
        if given.is_some_and(|given| given.as_bytes() == expected.as_bytes()) {
            return Ok(());
        }
        let realm = match realm {
            Realm::ReadOnly => r#"Basic realm="mesos-master-readonly""#,
            Realm::ReadWrite => r#"Basic realm="mesos-master-readwrite""#,
        };
        let challenge = [(header::WWW_AUTHENTICATE, realm)];
        Err((StatusCode::UNAUTHORIZED, challenge, "401 Unauthorized.").into_response())
    }

    /// Goes on only on the leader; another sends the client to the same path there.
    #[expect(clippy::result_large_err, reason = "an answer either way")]
    fn leading(&self, head: &Parts) -> Result<(), Response> {
        if self.lock().stage.is_elected() {
            return Ok(());
        }
        let asked = head.uri.path_and_query().map_or("", |asked| asked.as_str());
        let path = asked.strip_prefix("/master/").unwrap_or(asked.trim_start_matches('/'));
        self.redirect(&format!("/master/{path}")).and_then(Err)
    }

    /// Who it is while it leads, and whether it knows the cluster.
    fn leader(&self) -> Option<(Identity, bool)> {
        let simulation = self.lock();
        let known = (simulation.identity.clone(), simulation.known().is_some());
        simulation.stage.is_elected().then_some(known)
    }

    /// To the leader, this one included.
    #[expect(clippy::result_large_err, reason = "an answer either way")]
    fn redirect(&self, path: &str) -> Result<Response, Response> {
        let leader = match &self.lock().stage {
            Stage::Standby(leader) => leader.clone(),
            Stage::Down | Stage::NoLeader => return Err(unavailable("No leader elected")),
            Stage::Recovering | Stage::Leading => self.manner.address.to_string(),
        };
        let location = [(header::LOCATION, format!("//{leader}{path}"))];
        Ok((StatusCode::TEMPORARY_REDIRECT, location, Body::empty()).into_response())
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 Not Found.").into_response()
}

fn unavailable(text: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// /state, /slaves and /state-summary.
async fn read(
    master: &Arc<Master>,
    head: &Parts,
    name: &'static str,
) -> Result<Response, Response> {
    master.authenticate(head, Realm::ReadOnly)?;
    master.leading(head)?;
    let leader = master.leader().ok_or_else(|| unavailable("No leader elected"))?;
    let (simulated, (identity, knows)) = (master.clone(), leader);
    send(master, head, name, move || {
        let simulation = simulated.lock();
        // Whoever has stopped leading meanwhile answers as it led, not with a cluster of nothing.
        let known = knows.then_some(&simulation.cluster);
        match name {
            "state" => state::state(&identity, known),
            "slaves" => state::slaves(known),
            _ => summary::summary(&identity, known).into(),
        }
    })
    .await
}

async fn metrics(master: &Arc<Master>, head: &Parts) -> Result<Response, Response> {
    master.authenticate(head, Realm::ReadOnly)?;
    let simulated = master.clone();
    send(master, head, "metrics-snapshot", move || {
        let simulation = simulated.lock();
        let known = simulation.known();
        state::metrics(simulation.stage.is_elected(), known.is_some(), known).into()
    })
    .await
}

#[derive(Deserialize)]
struct Call {
    #[serde(rename = "type")]
    name: String,
}

async fn call(
    master: &Arc<Master>,
    head: &Parts,
    body: &[u8],
    link: Link,
) -> Result<Response, Response> {
    match master.manner.v1_status {
        Some(StatusCode::NOT_FOUND) => return Err(not_found()),
        Some(status) => return Err((status, format!("{status}.")).into_response()),
        None => {}
    }
    master.authenticate(head, Realm::ReadWrite)?;
    master.leading(head)?;
    if matches!(master.lock().stage, Stage::Recovering) {
        return Err(unavailable("Master has not finished recovery"));
    }
    let call = accepted(head, body)?;
    let simulated = master.clone();
    match call.name.as_str() {
        "GET_HEALTH" => send(master, head, "v1-get_health", || v1::health().into()).await,
        "GET_VERSION" => send(master, head, "v1-get_version", || v1::version().into()).await,
        "GET_MASTER" => {
            send(master, head, "v1-get_master", move || {
                v1::master(&simulated.lock().identity).into()
            })
            .await
        }
        "GET_STATE" => {
            send(master, head, "v1-get_state", move || v1::state(&simulated.lock().cluster)).await
        }
        "SUBSCRIBE" => subscribe(master, link).await,
        _ => {
            let text = "Failed to validate master::Call: Expecting 'type' to be present";
            Err((StatusCode::BAD_REQUEST, text).into_response())
        }
    }
}

/// The call, if it is one a master would look at: a POST, of JSON, to be answered in JSON.
#[expect(clippy::result_large_err, reason = "an answer either way")]
fn accepted(head: &Parts, body: &[u8]) -> Result<Call, Response> {
    if head.method != Method::POST {
        let text = format!(
            "405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{}'.",
            head.method
        );
        let allow = [(header::ALLOW, "POST")];
        return Err((StatusCode::METHOD_NOT_ALLOWED, allow, text).into_response());
    }
    let refused = |status: StatusCode, text: &str| Err((status, text.to_owned()).into_response());
    match value(&head.headers, header::CONTENT_TYPE) {
        None => return refused(StatusCode::BAD_REQUEST, "Expecting 'Content-Type' to be present"),
        Some("application/json") => {}
        Some(_) => {
            let text = "Expecting 'Content-Type' of application/json or application/x-protobuf";
            return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        }
    }
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        let text = "Failed to parse body into JSON: syntax error at line 1 near: ";
        return refused(StatusCode::BAD_REQUEST, text);
    };
    let Ok(call) = serde_json::from_value(json) else {
        let text = "Failed to validate master::Call: Expecting 'type' to be present";
        return refused(StatusCode::BAD_REQUEST, text);
    };
    let accept = value(&head.headers, header::ACCEPT).unwrap_or("*/*");
    if !["application/json", "application/*", "*/*"].iter().any(|kind| accept.contains(kind)) {
        let text = "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'";
        return refused(StatusCode::NOT_ACCEPTABLE, text);
    }
    Ok(call)
}

fn value(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Sends what `simulate` makes, or the recorded file of that name; zipped for who takes it.
async fn send(
    master: &Arc<Master>,
    head: &Parts,
    name: &'static str,
    simulate: impl FnOnce() -> Pieces + Send + 'static,
) -> Result<Response, Response> {
    let accepts_gzip =
        value(&head.headers, header::ACCEPT_ENCODING).is_some_and(|list| list.contains("gzip"));
    let master = master.clone();
    let task = tokio::task::spawn_blocking(move || {
        let version = master.lock().version;
        let body = match &master.manner.recorded {
            Some(folder) => recorded(folder, name)?,
            None => simulate(),
        };
        let is_cut = master.manner.cut_body && name == "state";
        if is_cut || !accepts_gzip || body.len() < GZIP_MIN {
            return Ok(if is_cut { broken_off(body) } else { plain(body) });
        }
        zipped(&master, name, version, &body)
    });
    let answered = task.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    answered.map_err(|error| (StatusCode::NOT_FOUND, format!("{name}: {error}")).into_response())
}

/// `NAME.json` or `NAME.json.gz` of the folder.
fn recorded(folder: &std::path::Path, name: &str) -> io::Result<Pieces> {
    let plain = folder.join(format!("{name}.json"));
    if plain.exists() {
        return Ok(std::fs::read_to_string(plain)?.into());
    }
    let mut text = String::new();
    let file = std::fs::File::open(folder.join(format!("{name}.json.gz")))?;
    GzDecoder::new(file).read_to_string(&mut text)?;
    Ok(text.into())
}

const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

fn plain(body: Pieces) -> Response {
    let length = (header::CONTENT_LENGTH, body.len().to_string());
    let chunks = stream::iter(body.chunks().map(Ok::<_, Infallible>));
    ([JSON], [length], Body::from_stream(chunks)).into_response()
}

/// Half the body, then the connection is closed without the last chunk.
fn broken_off(body: Pieces) -> Response {
    let halfway = stream::once(async {
        // What came before has to be on its way, or the connection ends without even a status.
        tokio::task::yield_now().await;
        Err(io::Error::other("the body is cut off here"))
    });
    let chunks = stream::iter(body.first_half().map(Ok)).chain(halfway);
    ([JSON], Body::from_stream(chunks)).into_response()
}

fn zipped(
    master: &Master,
    name: &'static str,
    version: u64,
    body: &Pieces,
) -> io::Result<Response> {
    let answer =
        |zipped: Bytes| ([JSON], [(header::CONTENT_ENCODING, "gzip")], zipped).into_response();
    let cache = || master.zipped.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if master.manner.recorded.is_none()
        && let Some((made_from, bytes)) = cache().get(name)
        && *made_from == version
    {
        return Ok(answer(bytes.clone()));
    }
    let bytes = Bytes::from(body.gzip()?);
    cache().insert(name, (version, bytes.clone()));
    Ok(answer(bytes))
}

/// A stream of events, each behind its length in decimal.  The state it begins with and the events
/// that follow are taken at one moment.
async fn subscribe(master: &Arc<Master>, link: Link) -> Result<Response, Response> {
    let heartbeat = master.manner.heartbeat;
    let simulated = master.clone();
    let task = tokio::task::spawn_blocking(move || {
        let (subscribed, subscription) = {
            let mut simulation = simulated.lock();
            let subscribed = v1::subscribed(&simulation.cluster, heartbeat);
            (subscribed, simulation.subscribers.subscribe(link))
        };
        let mut first = Pieces::default();
        first.text(&format!("{}\n", subscribed.len()));
        first.append(subscribed);
        let mut second = Vec::new();
        Record::from(v1::heartbeat()).write(&mut second);
        first.text(&String::from_utf8_lossy(&second));
        (first, subscription)
    });
    let (first, subscription) = task
        .await
        .map_err(|panic| (StatusCode::INTERNAL_SERVER_ERROR, panic.to_string()).into_response())?;
    let events = body(first, subscription, heartbeat, master.manner.chunk);
    Ok(([JSON], Body::from_stream(events)).into_response())
}

#[expect(clippy::result_large_err, reason = "an answer either way")]
fn change(master: &Master, head: &Parts, body: &[u8], link: &Link) -> Result<Response, Response> {
    if head.method != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED.into_response());
    }
    let refused = |text: String| (StatusCode::BAD_REQUEST, text).into_response();
    let asked = Control::parse(body).map_err(|error| refused(error.to_string()))?;
    let is_down = asked.is_down();
    let changed = control::apply(&mut master.lock(), asked, now()).map_err(refused)?;
    if is_down {
        master.links.cut_all_but(link);
    }
    Ok(plain(changed.into()))
}
