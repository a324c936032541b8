//! A request, as it is written: head and body together where both are at hand.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

use super::{
    Error, Stream,
    request_body::{Next, RequestBody},
};

/// What is being written on a connection. Its buffer stays with the connection.
#[derive(Default)]
pub struct Sending {
    /// Head or framing, written up to `at`.
    text: Vec<u8>,
    at: usize,
    chunk: Bytes,
    tail: &'static [u8],
    chunked: bool,
    ended: bool,
    blocked: bool,
    moved: bool,
    /// Whether anything was ever written.
    written: bool,
}

impl Sending {
    /// Begins with an empty head, to be written by the caller.
    pub fn begin(&mut self, chunked: bool) -> &mut Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        *self = Self { text, chunked, ..Self::default() };
        &mut self.text
    }

    /// Whether everything has been written.
    pub fn is_sent(&self) -> bool {
        self.ended && !self.is_staged()
    }

    /// Whether the upstream does not take what we have.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether anything was written since the last call.
    pub fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    pub fn has_written(&self) -> bool {
        self.written
    }

    /// Sends no more of it.
    pub fn abandon(&mut self) {
        self.ended = true;
        self.blocked = false;
        self.at = self.text.len();
        self.chunk = Bytes::new();
        self.tail = b"";
    }

    fn is_staged(&self) -> bool {
        self.at < self.text.len() || !self.chunk.is_empty() || !self.tail.is_empty()
    }

    /// Writes until all is sent, the client has no more for now, or the upstream takes no more.
    pub fn poll_send<S: Stream>(
        &mut self,
        io: &mut S,
        body: &mut RequestBody,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        loop {
            if !self.ended && self.chunk.is_empty() && self.tail.is_empty() {
                match body.poll_next(cx)? {
                    Poll::Ready(next) => self.stage(next),
                    Poll::Pending if !self.is_staged() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            while self.is_staged() {
                match self.poll_write(io, cx) {
                    Poll::Ready(Ok(())) => (self.moved, self.written) = (true, true),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::NoAnswer(error))),
                    Poll::Pending => {
                        self.blocked = true;
                        return Poll::Pending;
                    }
                }
            }
            self.blocked = false;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn stage(&mut self, next: Next) {
        if self.at == self.text.len() {
            self.text.clear();
            self.at = 0;
        }
        match next {
            Next::Data(data) if self.chunked && !data.is_empty() => {
                let _ = write!(self.text, "{:x}\r\n", data.len());
                self.chunk = data;
                self.tail = b"\r\n";
            }
            Next::Data(data) => self.chunk = data,
            Next::Trailers(trailers) if self.chunked => {
                self.text.extend_from_slice(b"0\r\n");
                for (name, value) in &trailers {
                    super::write_field(&mut self.text, name.as_str(), value.as_bytes());
                }
                self.tail = b"\r\n";
                self.ended = true;
            }
            Next::Trailers(_) => {}
            Next::End => {
                if self.chunked {
                    self.tail = b"0\r\n\r\n";
                }
                self.ended = true;
            }
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let text = &self.text[self.at..];
        let written = if self.chunk.is_empty() && self.tail.is_empty() {
            ready!(Pin::new(io).poll_write(cx, text))?
        } else {
            let slices = [IoSlice::new(text), IoSlice::new(&self.chunk), IoSlice::new(self.tail)];
            ready!(Pin::new(io).poll_write_vectored(cx, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_text = written.min(text.len());
        self.at += of_text;
        let of_chunk = (written - of_text).min(self.chunk.len());
        self.chunk.advance(of_chunk);
        self.tail = &self.tail[written - of_text - of_chunk..];
        Poll::Ready(Ok(()))
    }
}
