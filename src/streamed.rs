//! Answers over HTTP that are too long to be made before they are sent.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Such answers at once: each takes a thread for as long as its client reads.
const LARGE_MAX: usize = 4;
/// Octets of an answer that are sent at a time.
const CHUNK: usize = 64 * 1024;
/// Chunks that are made before the client has read the first.
const CHUNKS_MAX: usize = 4;

/// How long a client may take for one.
const CHUNK_TIME: Duration = Duration::from_secs(30);

/// There is no room for another large answer.
#[derive(Debug, thiserror::Error)]
#[error("too many whole answers are on their way: ask again later")]
pub(crate) struct Busy;

/// Room for large answers.
#[derive(Clone)]
pub(crate) struct Large(Arc<Semaphore>);

impl Default for Large {
    fn default() -> Large {
        Large(Arc::new(Semaphore::new(LARGE_MAX)))
    }
}

impl Large {
    /// A body that `write` makes while it is sent. A failure ends it short of its end, which clients
    /// see.
    pub(crate) fn write(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<Body, Busy> {
        let place = self.0.clone().try_acquire_owned().map_err(|_| Busy)?;
        let ((chunks, made), runtime) = (mpsc::channel(CHUNKS_MAX), Handle::current());
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let mut out = Chunks { chunks, gathered: Vec::with_capacity(CHUNK), runtime };
            if let Err(error) = write(&mut out).and_then(|()| out.flush()) {
                // Where the client is gone, or reads nothing, nobody hears of it.
                let _ = out.chunks.try_send(Err(error));
            }
        });
        Ok(Body::from_stream(stream::unfold(made, |mut made| async move {
            Some((made.recv().await?, made))
        })))
    }
}

/// Gathers what is written, and hands it on in chunks.
struct Chunks {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
    runtime: Handle,
}

impl Write for Chunks {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(octets);
        if self.gathered.len() >= CHUNK {
            self.flush()?;
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.gathered, Vec::with_capacity(CHUNK));
        let send = timeout(CHUNK_TIME, self.chunks.send(Ok(Bytes::from(chunk))));
        match self.runtime.block_on(send) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
