//! Answering over TCP, RFC 7766: as many queries as a client sends, answered in their order, to as
//! many clients as there is room for.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::answer::Transport;
use crate::answering::{Answering, Chance, Current, Outcome};
use crate::connection::now;
use crate::metrics::Counts;
use crate::outgoing::Outgoing;
use crate::shares::{Failing, Shares};

/// Connections at once, over all addresses; the next is closed.
const CONNECTIONS_MAX: usize = 1024;
/// Of them those of one client network, so that it leaves room for others.
const PER_CLIENT_MAX: usize = 128;
/// Those that only secondaries can have.
const KEPT: usize = 32;
/// How long a connection may take to send its next query.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a connection may take to read an answer.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How long a transfer may take, the wait for its turn included. One that always reads a little in
/// time would otherwise keep others from theirs.
const TRANSFER_MAX: Duration = Duration::from_secs(15 * 60);
/// The wait after a socket failed, lest one that fails for long takes a whole core.
const PAUSE: Duration = Duration::from_millis(100);

/// Room for connections.
pub(crate) fn places() -> Arc<Shares> {
    Shares::new(CONNECTIONS_MAX, PER_CLIENT_MAX)
}

/// Accepts connections for ever.
pub(crate) async fn accept(listener: TcpListener, current: Arc<Current>, places: Arc<Shares>) {
    let (mut open, mut failing) = (JoinSet::new(), Failing::default());
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                failing.tell("TCP", &error);
                sleep(PAUSE).await;
                continue;
            }
        };
        failing.ends("TCP");
        while open.try_join_next().is_some() {}
        let kept = if current.load().is_secondary(client.ip()) { 0 } else { KEPT };
        let Some(place) = places.take(client.ip(), kept) else { continue };
        let current = current.clone();
        open.spawn(async move {
            if let Err(error) = serve(stream, client.ip(), &current).await {
                tracing::debug!(%client, %error, "connection ended");
            }
            drop(place);
        });
    }
}

/// Answers the queries of a connection until it has no more, or is too slow, or sends what no
/// server answers. Answers to queries that came together leave together.
async fn serve(mut stream: TcpStream, client: IpAddr, current: &Current) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, writing) = stream.split();
    let (mut reading, mut writing) = (BufReader::new(reading), BufWriter::new(writing));
    let (mut chance, mut reply, mut counts) = (Chance::new(), Vec::new(), Counts::default());
    while let Some(request) = timeout(IDLE_MAX, read_message(&mut reading)).await?? {
        let answering = current.load_full();
        let asked = (client, Transport::Tcp, answering.moment());
        let served = answering.served();
        let outcome = answering.answer(&served, &request, asked, &mut chance, &mut reply);
        drop(served);
        match outcome {
            Outcome::Silence => {
                counts.silence();
                counts.add_to(&answering.metrics.queries);
                break;
            }
            Outcome::Answer => {}
            Outcome::Forward(errand) => {
                // Nobody waits for an answer behind another that takes seconds.
                timeout(WRITE_MAX, writing.flush()).await??;
                reply = match answering.forwarder.hold(errand, client) {
                    Ok(held) => answering.forwarder.carry(held).await,
                    Err(failed) => failed,
                };
            }
            Outcome::Transfer(outgoing) => {
                timeout(TRANSFER_MAX, transfer(&mut writing, outgoing, &answering)).await??;
                continue;
            }
        }
        counts.answer(&reply);
        counts.add_to(&answering.metrics.queries);
        timeout(WRITE_MAX, write_message(&mut writing, &reply)).await??;
        if !has_message(reading.buffer()) {
            timeout(WRITE_MAX, writing.flush()).await??;
        }
    }
    timeout(WRITE_MAX, writing.flush()).await?
}

/// Sends an answer as it is made. Nothing waits beside it: a client that reads slowly costs one
/// message and its place, and those not for long.
async fn transfer(
    writing: &mut (impl AsyncWriteExt + Unpin),
    mut outgoing: Outgoing<'_>,
    answering: &Answering,
) -> io::Result<()> {
    let place = match outgoing.is_transfer() {
        true => Some(answering.transfers.acquire().await.map_err(io::Error::other)?),
        false => None,
    };
    timeout(WRITE_MAX, writing.flush()).await??;
    while let Some(message) = outgoing.next_message(now()) {
        let length = message.len() as u16; // At most MESSAGE_MAX.
        let framed = [&length.to_be_bytes(), message.as_slice()].concat();
        timeout(WRITE_MAX, writing.write_all(&framed)).await??;
    }
    timeout(WRITE_MAX, writing.flush()).await??;
    if place.is_some() {
        answering.metrics.transfers.inc();
    }
    Ok(())
}

/// Whether a whole message has come, so that its answer can leave with the one before.
fn has_message(came: &[u8]) -> bool {
    came.split_first_chunk()
        .is_some_and(|(length, message)| message.len() >= usize::from(u16::from_be_bytes(*length)))
}

/// The next message behind its length, RFC 1035, section 4.2.2; none at the stream's end.
async fn read_message(reading: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<Vec<u8>>> {
    if reading.fill_buf().await?.is_empty() {
        return Ok(None);
    }
    let mut message = vec![0; usize::from(reading.read_u16().await?)];
    reading.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write_message(
    writing: &mut (impl AsyncWriteExt + Unpin),
    message: &[u8],
) -> io::Result<()> {
    writing.write_u16(message.len() as u16).await?; // At most MESSAGE_MAX.
    writing.write_all(message).await
}
