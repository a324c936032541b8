//! The streams under HTTP: plain or TLS, to clients and to upstreams.
//!
//! The rule to know: a client's stream tells its connection what it sees, and so sets the connection's deadline.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use super::{client::Client, old_head::OldHead};

/// TCP or TLS over it; `T` is the side we are on.
pub enum Stream<T> {
    Plain(TcpStream),
    Tls(Box<T>),
}

/// A stream from a client.
pub type Downstream = Stream<server::TlsStream<TcpStream>>;
/// A stream to an upstream.
pub type Upstream = Stream<client::TlsStream<TcpStream>>;

impl<T> Stream<T> {
    /// The TCP stream, where nothing lies over it.
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }
}

impl Downstream {
    /// The socket under it all.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl Upstream {
    /// The socket under it all.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A client's stream that keeps its connection's deadline.
pub struct Watched {
    pub stream: Downstream,
    pub client: Rc<Client>,
    /// What is to be written instead of the head that hyper writes.
    old: Option<Box<OldHead>>,
}

impl Watched {
    pub fn new(stream: Downstream, client: Rc<Client>) -> Self {
        Self { stream, client, old: None }
    }

    /// The head of an answer to an HTTP/1.0 client, and what comes with it.
    #[cold]
    fn poll_old_head(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let first = bufs.first().map_or(&[][..], |buf| buf);
        if self.old.is_none() {
            self.old = OldHead::instead_of(first).map(Box::new);
        }
        let poll = match &mut self.old {
            Some(old) => old.poll_write(&mut self.stream, cx, bufs),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        if poll.is_ready() {
            self.old = None;
            self.client.has_sent_head();
        }
        self.client.has_written(poll.is_ready());
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_read(cx, buf);
        if poll.is_ready() {
            this.client.has_read();
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.client.keeps_back(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        if this.client.begins_old_head() {
            return this.poll_old_head(cx, &[IoSlice::new(buf)]);
        }
        let poll = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.client.has_written(poll.is_ready());
        poll
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.client.keeps_back(bufs.first().map_or(&[], |buf| buf)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        if this.client.begins_old_head() {
            return this.poll_old_head(cx, bufs);
        }
        let poll = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.client.has_written(poll.is_ready());
        poll
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_flush(cx);
        if poll.is_ready() {
            this.client.has_flushed();
        }
        poll
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // There is something to be said yet.
        if this.client.has_kept_back() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
