//! One subscription to a master's events: a body that is read as it comes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use crate::events::{Event, EventError, EventReader};
use crate::state::State;

/// So many heartbeats may fail to come, as the operator API's own description advises.
const HEARTBEATS_MISSED_MAX: u32 = 5;
/// What a master sends that does not say.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A master may say what it will: a stream that is silent for longer is not known to be alive,
/// and none beats quicker.
const HEARTBEATS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// Events as they come.
pub struct Subscription {
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    reader: EventReader,
    /// How long silence is borne.
    patience: Duration,
    heard: Instant,
    /// Events that came and are not yet given.
    ready: Vec<Event>,
    /// Why nothing more comes.
    over: Option<StreamError>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("no event and no heartbeat for {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// As a master ends the oldest stream when there are too many.
    #[error("the master ended it")]
    Ended,
    #[error("it broke off")]
    Broken(#[source] reqwest::Error),
    #[error("it cannot be read")]
    Event(#[from] EventError),
    #[error("it does not begin with the state")]
    Beginning,
}

impl Subscription {
    /// `timeout` limits silence until the first record is whole; of the tasks' labels those of the
    /// key `chooses` are kept.
    pub fn new(response: Response, timeout: Duration, chooses: Option<Arc<str>>) -> Subscription {
        Subscription {
            body: response.bytes_stream().boxed(),
            reader: EventReader::new(chooses),
            patience: timeout,
            heard: Instant::now(),
            ready: Vec::new(),
            over: None,
        }
    }

    /// The state that the stream begins with; its events go on from there.
    pub async fn state(&mut self) -> Result<State, StreamError> {
        let mut events = self.next().await?.into_iter();
        let Some(Event::Subscribed { state, heartbeat }) = events.next() else {
            return Err(StreamError::Beginning);
        };
        let heartbeat = heartbeat.unwrap_or(HEARTBEAT).clamp(HEARTBEATS.0, HEARTBEATS.1);
        self.patience = heartbeat * HEARTBEATS_MISSED_MAX;
        self.ready = events.collect();
        Ok(*state)
    }

    /// The next events, at least one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Vec<Event>, StreamError> {
        while self.ready.is_empty() {
            if let Some(error) = self.over.take() {
                return Err(error);
            }
            self.hear().await?;
        }
        Ok(self.take())
    }

    /// The events that came meanwhile.
    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.ready)
    }

    /// Why it ended while something else was done.
    pub fn over(&self) -> Option<&StreamError> {
        self.over.as_ref()
    }

    /// Does some work, and gathers the events that come until it is done.
    pub async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                heard = self.hear(), if self.over.is_none() => self.over = heard.err(),
            }
        }
    }

    /// Takes the next octets of the stream. Dropping the future loses nothing.
    async fn hear(&mut self) -> Result<(), StreamError> {
        let chunk = timeout_at(self.heard + self.patience, self.body.next()).await;
        let chunk = match chunk {
            Err(_) => return Err(StreamError::Silent(self.patience)),
            Ok(None) => return Err(StreamError::Ended),
            Ok(Some(Err(error))) => return Err(StreamError::Broken(error)),
            Ok(Some(Ok(chunk))) => chunk,
        };
        self.heard = Instant::now();
        let ready = &mut self.ready;
        Ok(self.reader.push(&chunk, |event| ready.push(event))?)
    }
}
