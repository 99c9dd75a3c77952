//! The streams of SUBSCRIBE: who listens, and what each is still to be sent.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::body::{CHUNK, Pieces, Record};
use crate::connection::Link;
use crate::v1;

enum Sent {
    Records(Arc<[Record]>),
    /// The last chunk.
    End,
}

struct Subscriber {
    queue: mpsc::UnboundedSender<Sent>,
    /// How many records of the queue are not yet written.
    backlog: Arc<AtomicUsize>,
    is_silent: watch::Sender<bool>,
    link: Link,
}

pub(crate) struct Subscribers {
    /// The oldest first.
    open: VecDeque<Subscriber>,
    max: usize,
    /// A subscriber more records behind is cut off; a real master would go on until it runs out of
    /// memory (MESOS-7748).
    backlog_max: usize,
}

impl Subscribers {
    pub(crate) fn new(max: usize, backlog_max: usize) -> Subscribers {
        Subscribers { open: VecDeque::new(), max, backlog_max }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// One more; if that is one too many, the oldest is ended in an orderly way.
    pub(crate) fn subscribe(&mut self, link: Link) -> Subscription {
        self.open.retain(|subscriber| !subscriber.queue.is_closed());
        if self.open.len() >= self.max
            && let Some(oldest) = self.open.pop_front()
        {
            // It may be gone by itself.
            let _ = oldest.queue.send(Sent::End);
        }
        let (sender, queue) = mpsc::unbounded_channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let (is_silent, silence) = watch::channel(false);
        let subscription = Subscription { queue, backlog: backlog.clone(), silence };
        self.open.push_back(Subscriber { queue: sender, backlog, is_silent, link });
        subscription
    }

    pub(crate) fn send(&mut self, records: Vec<Record>) {
        let records: Arc<[Record]> = records.into();
        self.open.retain(|subscriber| {
            let backlog = subscriber.backlog.fetch_add(records.len(), Ordering::Relaxed);
            if backlog > self.backlog_max {
                subscriber.link.cut();
                return false;
            }
            subscriber.queue.send(Sent::Records(records.clone())).is_ok()
        });
    }

    /// The open streams say nothing until they are no longer silent; new ones speak.  Answers how
    /// many there are.
    pub(crate) fn silence(&mut self, is_silent: bool) -> usize {
        self.open.retain(|subscriber| subscriber.is_silent.send(is_silent).is_ok());
        self.open.len()
    }

    /// Every stream breaks off behind what it was sent.
    pub(crate) fn break_off(&mut self) {
        self.open.clear();
    }
}

/// The receiving side of one stream.
pub(crate) struct Subscription {
    queue: mpsc::UnboundedReceiver<Sent>,
    backlog: Arc<AtomicUsize>,
    silence: watch::Receiver<bool>,
}

/// The body of a stream: what stands at its beginning, then records and heartbeats, in chunks of
/// at most so many octets.
pub(crate) fn body(
    first: Pieces,
    subscription: Subscription,
    heartbeat: Duration,
    chunk: usize,
) -> impl Stream<Item = io::Result<Bytes>> {
    let first = stream::iter(first.chunks().map(Ok));
    let listening = Listening::new(subscription, heartbeat);
    let rest = stream::unfold(Some(listening), async |listening| listening?.next().await);
    first.chain(rest).flat_map(move |read| match read {
        Ok(octets) => stream::iter(cut(octets, chunk)).left_stream(),
        Err(error) => stream::iter([Err(error)]).right_stream(),
    })
}

fn cut(mut octets: Bytes, size: usize) -> impl Iterator<Item = io::Result<Bytes>> {
    std::iter::from_fn(move || {
        let length = octets.len().min(size);
        (length > 0).then(|| Ok(octets.split_to(length)))
    })
}

struct Listening {
    subscription: Subscription,
    heartbeats: Interval,
    /// Records received and how many of them are written.
    received: Option<(Arc<[Record]>, usize)>,
    has_ended: bool,
}

impl Listening {
    fn new(subscription: Subscription, heartbeat: Duration) -> Listening {
        let mut heartbeats = interval_at(Instant::now() + heartbeat, heartbeat);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Listening { subscription, heartbeats, received: None, has_ended: false }
    }

    /// The next records, as many as are there and fill a chunk; nothing after the end.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Option<Listening>)> {
        let mut chunk = Vec::new();
        while chunk.is_empty() {
            if self.is_silent() {
                if self.subscription.silence.changed().await.is_err() {
                    return Some((Err(gone()), None));
                }
                continue;
            }
            self.write_received(&mut chunk);
            if !chunk.is_empty() {
                break;
            }
            if self.has_ended {
                return None;
            }
            tokio::select! {
                biased;
                _ = self.heartbeats.tick() => Record::from(v1::heartbeat()).write(&mut chunk),
                Ok(()) = self.subscription.silence.changed() => {}
                sent = self.subscription.queue.recv() => match sent {
                    Some(sent) => self.receive(sent),
                    None => return Some((Err(gone()), None)),
                }
            }
        }
        Some((Ok(Bytes::from(chunk)), Some(self)))
    }

    fn is_silent(&mut self) -> bool {
        *self.subscription.silence.borrow_and_update()
    }

    fn receive(&mut self, sent: Sent) {
        match sent {
            Sent::Records(records) => self.received = Some((records, 0)),
            Sent::End => self.has_ended = true,
        }
    }

    fn write_received(&mut self, chunk: &mut Vec<u8>) {
        while chunk.len() < CHUNK {
            if let Some((records, written)) = &mut self.received {
                let Some(record) = records.get(*written) else {
                    self.received = None;
                    continue;
                };
                record.write(chunk);
                *written += 1;
                self.subscription.backlog.fetch_sub(1, Ordering::Relaxed);
            } else if !self.has_ended
                && let Ok(sent) = self.subscription.queue.try_recv()
            {
                self.receive(sent);
            } else {
                break;
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the master is gone")
}
