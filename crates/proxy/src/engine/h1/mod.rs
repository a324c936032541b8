//! HTTP/1.1 towards an upstream: one connection, driven by the task of the request that uses it.
//!
//! The rule to know: the request head is written straight from the [`crate::ctx::Ctx`], which stays as it was, so that
//! a request can be written again to another node and the log still knows it. Why not hyper's client: it takes the
//! headers away, and a connection of it is a task of its own with two channels in between (ADR on the engine).

mod chunked;
mod long;
mod receive;
mod request_body;
mod send;
mod trailers;

use long::Long;
pub use receive::{Framing, Head};
#[cfg(fuzzing)]
pub use receive::{Piece, parse};
pub use request_body::{Incoming, Next, RequestBody};
use send::Sending;

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::Method;
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::timer::Timer;

/// What a connection runs over: TCP or TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// How much is read at once: little for the head, more once a body turns out to be long.
const FIRST_READ: usize = 8 * 1024;
const LONG_READ: usize = long::SIZE;

/// Why an exchange with an upstream failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the upstream can't be connected to: {0}")]
    Connect(#[source] io::Error),
    #[error("the upstream did not accept the connection in time")]
    ConnectTimeout,
    /// Closed or broken before a byte of the response: the request may be sent again if nothing forbids it.
    #[error("the upstream closed the connection before it answered: {0}")]
    NoAnswer(#[source] io::Error),
    /// Closed or broken within the response.
    #[error("the upstream broke off its response: {0}")]
    Broken(#[source] io::Error),
    #[error("the upstream's response is not HTTP: {0}")]
    Malformed(&'static str),
    #[error("the upstream did not answer in time")]
    ReadTimeout,
    #[error("the upstream did not take the request in time")]
    SendTimeout,
    /// It was not taken up at all, so that anyone may be asked again.
    #[error("the upstream did not take the request: {0}")]
    Refused(#[source] h2::Error),
    /// The upstream ended this request, not the connection.
    #[error("the upstream ended the request: {0}")]
    Reset(#[source] h2::Error),
    #[error("HTTP/2 can't carry the request's {0}")]
    Unsendable(&'static str),
    /// The client's body failed, not the upstream.
    #[error("the request body broke off")]
    RequestBody,
    /// The client's body is not coded as it says.
    #[error("the request body is not chunked as it says")]
    MalformedBody,
    /// The client stopped sending its body.
    #[error("the client did not send its request body in time")]
    BodyTimeout,
    /// The client's body is longer than allowed.
    #[error("the request body is too large")]
    TooLarge,
}

/// What a body went on with.
enum More {
    /// A piece of it, by itself.
    Long(Bytes),
    /// Something that is to be looked at.
    Filled,
    End,
}

/// A connection to an upstream.
pub struct Connection<S> {
    io: S,
    read: BytesMut,
    timer: Timer,
    out: Sending,
    framing: Framing,
    /// Whether another request may follow this one: not before the head of its response has said so. Of a client that
    /// left earlier, the response is still to come.
    keep_alive: bool,
    /// Requests that were sent over it.
    pub requests: u64,
    /// Bytes received for the current request.
    pub received: u64,
}

impl<S: Stream> Connection<S> {
    pub fn new(io: S, timer: Timer) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            timer,
            out: Sending::default(),
            framing: Framing::Empty,
            keep_alive: false,
            requests: 0,
            received: 0,
        }
    }

    /// Whether it is still open and silent, as an idle connection is.
    pub fn is_usable(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.read.is_empty() && Pin::new(&mut self.io).poll_read(&mut cx, &mut buffer).is_pending()
    }

    /// Begins a request: the caller writes its head.
    pub fn begin(&mut self, chunked: bool) -> &mut Vec<u8> {
        self.requests += 1;
        self.received = 0;
        self.keep_alive = false;
        self.timer.disarm();
        self.out.begin(chunked)
    }

    /// Sends what [`Connection::begin`] began and gives the head of the response, while the rest of the request's
    /// body may still be on its way: [`Connection::poll_frame`] goes on sending it.
    pub async fn exchange(
        &mut self,
        body: &mut RequestBody,
        method: &Method,
        limits: &Limits,
    ) -> Result<Head, Error> {
        poll_fn(|cx| self.poll_exchange(cx, body, method, limits)).await
    }

    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RequestBody,
        method: &Method,
        limits: &Limits,
    ) -> Poll<Result<Head, Error>> {
        let sent = self.out.poll_send(&mut self.io, body, cx);
        // An upstream that refuses a body early closes its end: what it said comes before our failed write.
        let failed = match sent {
            Poll::Ready(Err(Error::NoAnswer(error))) => Some(error),
            Poll::Ready(Err(other)) => return Poll::Ready(Err(other)),
            _ => None,
        };
        loop {
            if let Some((head, framing)) = receive::parse(&mut self.read, method)? {
                self.keep_alive = head.keep_alive && framing != Framing::Close;
                self.framing = framing;
                self.timer.disarm();
                return Poll::Ready(Ok(head));
            }
            match self.poll_fill(cx, FIRST_READ) {
                Poll::Ready(Ok(0)) => {
                    let end = failed.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Err(self.broken(end)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                Poll::Pending => break,
            }
        }
        if let Some(error) = failed {
            return Poll::Ready(Err(self.broken(error)));
        }
        self.wait(cx, limits)
    }

    /// Arms the timer for what is waited for: the upstream to read, or to answer. Nothing, while the client sends.
    fn wait<T>(&mut self, cx: &Context<'_>, limits: &Limits) -> Poll<Result<T, Error>> {
        let (after, error) = if self.out.is_blocked() {
            (limits.send, Error::SendTimeout)
        } else if self.out.is_sent() {
            (limits.read, Error::ReadTimeout)
        } else {
            self.timer.disarm();
            return Poll::Pending;
        };
        // Asked in any case: what has moved before the first wait must not count as moved after it.
        let moved = self.out.has_moved();
        if moved || !self.timer.is_armed() {
            self.timer.arm(Instant::now(), after);
        }
        if self.timer.poll_fired(cx) { Poll::Ready(Err(error)) } else { Poll::Pending }
    }

    /// The next piece of the response's body; goes on sending the request's.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RequestBody,
        limits: &Limits,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.out.is_sent() && matches!(self.out.poll_send(&mut self.io, body, cx), Poll::Ready(Err(_))) {
            // The upstream has answered: that it reads no further is its right, but the connection is spent.
            self.out.abandon();
            self.keep_alive = false;
        }
        loop {
            match self.framing.next(&mut self.read) {
                Ok(receive::Piece::Frame(frame)) => {
                    self.timer.disarm();
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(receive::Piece::End) => {
                    self.timer.disarm();
                    return Poll::Ready(None);
                }
                Ok(receive::Piece::More(hint)) => match self.poll_more(cx, hint) {
                    Poll::Ready(Ok(More::Long(data))) => {
                        self.timer.disarm();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Poll::Ready(Ok(More::Filled)) => {}
                    Poll::Ready(Ok(More::End)) if self.framing == Framing::Close => {
                        self.framing = Framing::Empty;
                    }
                    Poll::Ready(Ok(More::End)) => {
                        return Poll::Ready(Some(Err(Error::Broken(io::ErrorKind::UnexpectedEof.into()))));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(Error::Broken(error)))),
                    Poll::Pending => break,
                },
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        if !self.timer.is_armed() {
            self.timer.arm(Instant::now(), limits.read);
        }
        if self.timer.poll_fired(cx) { Poll::Ready(Some(Err(Error::ReadTimeout))) } else { Poll::Pending }
    }

    /// Whether the response has no further frame.
    pub fn is_end(&self) -> bool {
        self.framing.is_end()
    }

    /// The length of what is left of the response's body, where it is known.
    pub fn remaining(&self) -> Option<u64> {
        self.framing.remaining()
    }

    /// Whether any of the request has been given to the kernel.
    pub fn has_written(&self) -> bool {
        self.out.has_written()
    }

    pub fn stream(&self) -> &S {
        &self.io
    }

    /// Whether another request may use it, now that this one is through.
    pub fn is_reusable(&self) -> bool {
        self.keep_alive && self.framing.is_end() && self.out.is_sent() && self.read.is_empty()
    }

    /// The stream itself with what was read ahead, after a switch of protocols.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.io, self.read.freeze())
    }

    /// Reads what a body goes on with: `hint` bytes more would be useful.
    fn poll_more(&mut self, cx: &mut Context<'_>, hint: usize) -> Poll<io::Result<More>> {
        if hint <= FIRST_READ || !self.framing.is_plain() {
            let read = ready!(self.poll_fill(cx, hint.clamp(FIRST_READ, LONG_READ)))?;
            return Poll::Ready(Ok(if read == 0 { More::End } else { More::Filled }));
        }
        let mut long = Long::take();
        let mut room = ReadBuf::new(long.room(hint));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        if read == 0 {
            return Poll::Ready(Ok(More::End));
        }
        self.received += read as u64;
        self.framing.pass(read);
        Poll::Ready(Ok(More::Long(long.into_bytes(read))))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<usize>> {
        self.read.reserve(size);
        let read = ready!(pin!(self.io.read_buf(&mut self.read)).poll(cx))?;
        self.received += read as u64;
        Poll::Ready(Ok(read))
    }

    fn broken(&self, error: io::Error) -> Error {
        if self.received == 0 { Error::NoAnswer(error) } else { Error::Broken(error) }
    }
}

/// How long an upstream may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub send: Duration,
    pub read: Duration,
}

/// One header field with its line end.
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
