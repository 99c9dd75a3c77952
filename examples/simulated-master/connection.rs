//! Connections that end without an answer, as those of a process that was killed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The switch of one connection.
#[derive(Default)]
struct Switch {
    is_cut: AtomicBool,
    /// Whoever serves the connection always waits for the client to send or to close as well.
    reader: AtomicWaker,
}

/// One connection, as those see it who may cut it.
#[derive(Clone)]
pub(crate) struct Link(Arc<Switch>);

impl Link {
    pub(crate) fn cut(&self) {
        self.0.is_cut.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    fn check(&self) -> io::Result<()> {
        match self.0.is_cut.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

/// Every open connection.
#[derive(Clone, Default)]
pub(crate) struct Links(Arc<Mutex<Vec<Weak<Switch>>>>);

impl Links {
    fn open(&self) -> Link {
        let link = Link(Arc::default());
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&link.0));
        link
    }

    pub(crate) fn cut_all_but(&self, spared: &Link) {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = links.iter().filter_map(Weak::upgrade);
        open.filter(|switch| !Arc::ptr_eq(switch, &spared.0)).for_each(|open| Link(open).cut());
    }
}

/// Where connections come in.
pub(crate) struct Door {
    listener: TcpListener,
    links: Links,
}

impl Door {
    pub(crate) fn new(listener: TcpListener, links: Links) -> Door {
        Door { listener, links }
    }
}

impl Listener for Door {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        loop {
            // An event is not to wait for the acknowledgement of the one before.
            let accepted = self.listener.accept().await;
            match accepted
                .and_then(|(stream, peer)| stream.set_nodelay(true).map(|()| (stream, peer)))
            {
                Ok((stream, peer)) => return (Wire { stream, link: self.links.open() }, peer),
                // The client is gone already, or there are too many connections.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Door>> for Link {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Link {
        stream.io().link.clone()
    }
}

/// A connection that fails once it is cut.
pub(crate) struct Wire {
    stream: TcpStream,
    link: Link,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.link.0.reader.register(context.waker());
        self.link.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.link.check()?;
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.link.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
