//! HTTP/2 towards an upstream: one request on one stream of a connection that it shares with others.
//!
//! The rule to know: a connection is a task of its own, a request is not. It is sent and received from where its
//! exchange is polled, and what is not taken off its stream the node may not send. Only where an answer begins before
//! the request has ended do the two directions part, so that neither waits for the other.

mod lane;
mod upload;

pub use lane::{Lane, Lanes, Place};
use upload::{Upload, Uploading};

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, client::ResponseFuture};
use http::{HeaderMap, Request};
use http_body::Frame;

use super::{
    h1::{Error, Head, Limits, RequestBody},
    timer::Timer,
};

/// One request on its stream.
pub struct Call {
    answer: ResponseFuture,
    /// Until the answer begins.
    upload: Option<Upload>,
    /// What of the request is still to be sent once the answer has begun.
    uploading: Option<Uploading>,
    /// Once the answer has begun.
    download: Option<RecvStream>,
    /// Whether nothing more comes.
    ended: bool,
    timer: Timer,
    /// Bytes received, heads without their compression.
    pub received: u64,
    // The last field: its place is free once the streams are gone.
    _place: Place,
}

impl Call {
    /// Opens a stream with this head, which is all of the request where it has no `body`.
    pub fn begin(
        place: Place,
        head: Request<()>,
        body: &RequestBody,
        timer: Timer,
    ) -> Result<Box<Self>, Error> {
        let ended = body.length() == Some(0);
        // Whatever stands in the way of a new stream, nothing of this one was sent.
        let (answer, stream) = place.sender().send_request(head, ended).map_err(Error::Refused)?;
        let upload = (!ended).then(|| Upload::new(stream));
        Ok(Box::new(Self {
            answer,
            upload,
            uploading: None,
            download: None,
            ended: false,
            timer,
            received: 0,
            _place: place,
        }))
    }

    /// Sends the request until its answer begins; what is left of it then is sent while the answer is received.
    pub async fn exchange(&mut self, body: &mut RequestBody, limits: &Limits) -> Result<Head, Error> {
        let head = poll_fn(|cx| self.poll_head(cx, body, limits)).await?;
        if let Some(upload) = self.upload.take() {
            self.uploading = Some(upload.spawn(body.split_off(), self.timer.another(), limits.send));
        }
        Ok(head)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RequestBody,
        limits: &Limits,
    ) -> Poll<Result<Head, Error>> {
        if let Some(upload) = &mut self.upload
            && upload.poll(cx, body)?.is_ready()
        {
            self.upload = None;
            self.timer.disarm();
        }
        if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(cx) {
            self.timer.disarm();
            let (head, download) = answer.map_err(unanswered)?.into_parts();
            self.ended = download.is_end_stream();
            self.received += size(&head.headers);
            self.download = Some(download);
            return Poll::Ready(Ok(Head::new(head.status, head.headers)));
        }
        let late = match &mut self.upload {
            None => self.timer.poll_late(cx, limits.read, false).then_some(Error::ReadTimeout),
            Some(upload) => upload.is_late(cx, &self.timer, limits.send).then_some(Error::SendTimeout),
        };
        late.map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    }

    /// The next piece of the answer.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(download) = self.download.as_mut().filter(|_| !self.ended) else { return Poll::Ready(None) };
        let polled = match download.poll_data(cx) {
            Poll::Ready(Some(Ok(data))) => {
                // It is not asked for before the client can take it: so the node may send as much again.
                let _ = download.flow_control().release_capacity(data.len());
                self.received += data.len() as u64;
                self.ended = download.is_end_stream();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(broken(error)))),
            Poll::Ready(None) => download.poll_trailers(cx).map(|trailers| {
                self.ended = true;
                let trailers = trailers.map_err(broken).transpose()?;
                Some(trailers.map(|trailers| {
                    self.received += size(&trailers);
                    Frame::trailers(trailers)
                }))
            }),
            Poll::Pending => Poll::Pending,
        };
        if polled.is_ready() {
            self.timer.disarm();
        } else if self.timer.poll_late(cx, limits.read, false) {
            return Poll::Ready(Some(Err(Error::ReadTimeout)));
        }
        polled
    }

    /// Whether the answer has no further frame.
    pub fn is_end(&self) -> bool {
        self.ended
    }

    /// Bytes of the request's body that were taken from the client since the answer began.
    pub fn uploaded(&self) -> u64 {
        self.uploading.as_ref().map_or(0, Uploading::received)
    }
}

/// What an error means before any of the answer has come.
fn unanswered(error: h2::Error) -> Error {
    // A GOAWAY reaches only streams that the node says it did not look at.
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        Error::Refused(error)
    } else if error.is_reset() {
        Error::Reset(error)
    } else {
        Error::NoAnswer(into_io(error))
    }
}

/// What an error means within the answer.
fn broken(error: h2::Error) -> Error {
    if error.is_reset() { Error::Reset(error) } else { Error::Broken(into_io(error)) }
}

fn into_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::other(error)
    }
}

fn size(fields: &HeaderMap) -> u64 {
    fields.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}
