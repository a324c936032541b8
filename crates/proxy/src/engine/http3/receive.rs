//! A request's body from a QUIC stream.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use h3::server::RequestStream;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body::{Frame, SizeHint};
use tokio::time::timeout;

use super::super::{
    forward_head::{KEEP_ALIVE, PROXY_CONNECTION},
    h1::Error,
};

type Stream = RequestStream<h3_quinn::RecvStream, Bytes>;

/// Whether the fields of a request may stand there: RFC 9114, sections 4.1.2 and 4.2.
pub fn is_well_formed(headers: &HeaderMap) -> bool {
    let is_number =
        |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next();
    let one_length = first.is_none_or(is_number) && lengths.all(|other| Some(other) == first);
    let of_connections =
        [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, KEEP_ALIVE, PROXY_CONNECTION];
    one_length
        && !of_connections.iter().any(|name| headers.contains_key(name))
        && headers.get_all(header::TE).iter().all(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// A body on its way.
pub struct Received {
    stream: Stream,
    /// The first piece, where it was waited for.
    first: Option<Bytes>,
    /// Where the head says it.
    length: Option<u64>,
    /// Whether the data has ended, so that only trailers may come.
    data_ended: bool,
    ended: bool,
}

impl Received {
    /// The body of this request. One that is not said to have any is waited for: it ends with the head, as a rule.
    pub async fn new(stream: Stream, request: &Request<()>, patience: Duration) -> Result<Self, Error> {
        let length = request.headers().get(header::CONTENT_LENGTH).map(|length| {
            let length = length.to_str().ok().and_then(|length| length.parse().ok());
            length.ok_or(Error::RequestBody)
        });
        let length = length.transpose()?;
        let ended = length == Some(0);
        let mut received = Self { stream, first: None, length, data_ended: ended, ended };
        let unsaid =
            length.is_none() && !matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        if unsaid {
            let first = poll_fn(|cx| received.poll_data(cx));
            received.first = timeout(patience, first).await.map_err(|_| Error::BodyTimeout)??;
            received.ended = received.first.is_none();
        }
        Ok(received)
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        let data = ready!(self.stream.poll_recv_data(cx)).map_err(|_| Error::RequestBody)?;
        Poll::Ready(Ok(data.map(|mut data| data.copy_to_bytes(data.remaining()))))
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, Error>> {
        let trailers = ready!(self.stream.poll_recv_trailers(cx)).map_err(|_| Error::RequestBody)?;
        self.ended = true;
        Poll::Ready(Ok(trailers))
    }

    /// Counts a piece against the length in the head: RFC 9114, section 4.1.2.
    fn count(&mut self, data: &Bytes) -> Result<(), Error> {
        if let Some(left) = &mut self.length {
            *left = left.checked_sub(data.len() as u64).ok_or(Error::RequestBody)?;
        }
        Ok(())
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if !self.data_ended {
            match ready!(self.poll_data(cx)) {
                Ok(Some(data)) => return Poll::Ready(Some(self.count(&data).map(|()| Frame::data(data)))),
                Ok(None) if self.length.is_some_and(|left| left > 0) => {
                    return Poll::Ready(Some(Err(Error::RequestBody)));
                }
                Ok(None) => self.data_ended = true,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.poll_trailers(cx));
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.first.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
