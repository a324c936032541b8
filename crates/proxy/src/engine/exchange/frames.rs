//! The upstream's body on its way to the client.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::Version;
use http_body::Frame;

use super::Exchange;
use crate::{
    chain,
    engine::{client::Step, h1},
};

impl Exchange {
    /// The next frame of the upstream's body.
    pub(in crate::engine) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h1::Error>>> {
        loop {
            let Some(link) = &mut self.link else {
                if self.broken.is_some() {
                    return self.break_off(cx);
                }
                self.through = true;
                return Poll::Ready(self.trailers().map(Ok));
            };
            let polled = match link.poll_frame(cx, &mut self.body, &self.limits) {
                Poll::Pending => {
                    self.client.step(Step::Waits);
                    return Poll::Pending;
                }
                Poll::Ready(polled) => polled,
            };
            let last = !matches!(polled, Some(Ok(_))) || link.is_end();
            if last {
                self.through = true;
                self.note_end();
                self.release();
            }
            let frame = match polled {
                Some(Err(error)) => {
                    tracing::warn!(%error, route = self.ctx.route_id(), "response broke off");
                    self.broken = Some(Box::new(error));
                    return self.break_off(cx);
                }
                Some(Ok(frame)) => self.pass(frame, last),
                None if self.ctx.filters_body() => self.filter(Bytes::new(), last),
                None => None,
            };
            if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
                self.ctx.transfer.body_sent += data.len() as u64;
                self.given = self.client.flushed();
                self.client.step(Step::Gives { before: std::mem::replace(&mut self.piece, data.len()) });
            }
            if frame.is_some() || last {
                return Poll::Ready(frame.map(Ok));
            }
        }
    }

    /// Breaks the response off once all that was given of it has gone out: hyper throws away what waits behind an error.
    fn break_off(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h1::Error>>> {
        // HTTP/3 has sent it.
        if self.ctx.request.version != Version::HTTP_3 && self.client.flushed() == self.given {
            self.client.wake_when_flushed(cx);
            self.client.step(Step::Waits);
            return Poll::Pending;
        }
        Poll::Ready(self.broken.take().map(|error| Err(*error)))
    }

    /// What the client gets of a frame.
    fn pass(&mut self, frame: Frame<Bytes>, last: bool) -> Option<Frame<Bytes>> {
        match frame.into_data() {
            Ok(data) if self.ctx.filters_body() => self.filter(data, last),
            Ok(data) => Some(Frame::data(data)),
            Err(frame) => {
                self.ctx.response.trailers = frame.into_trailers().ok().map(Box::new);
                let held = if self.ctx.filters_body() { self.filter(Bytes::new(), true) } else { None };
                // What plugins have held back comes first.
                self.through = held.is_none();
                held.or_else(|| self.trailers())
            }
        }
    }

    /// Lets plugins change a piece of the body.
    pub(super) fn filter(&mut self, mut data: Bytes, last: bool) -> Option<Frame<Bytes>> {
        if let Some(attempt) = self.ctx.attempts.last_mut() {
            attempt.filtered += data.len() as u64;
        }
        chain::body_filter(&mut self.ctx, &mut data, last);
        (!data.is_empty()).then(|| Frame::data(data))
    }

    /// The trailers, which stay for the log.
    fn trailers(&self) -> Option<Frame<Bytes>> {
        self.ctx.response.trailers.as_deref().map(|trailers| Frame::trailers(trailers.clone()))
    }

    /// Whether nothing more comes.
    pub(in crate::engine) fn is_through(&self) -> bool {
        self.through
    }

    /// The length of the body that is left, where it is known.
    pub(in crate::engine) fn remaining(&self) -> Option<u64> {
        if self.ctx.filters_body() { None } else { self.link.as_ref()?.remaining() }
    }
}
