//! What is sent to the client after the head.
//!
//! The rule to know: a body from upstream carries its exchange along. With the last frame, or when the client has gone,
//! the exchange ends: the connection goes back to its pool and the log is written, once.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{exchange::Exchange, h1};

/// The body of a response.
pub enum Body {
    Empty,
    /// Of our own making.
    Whole(Bytes),
    Upstream(Box<Exchange>),
}

impl Body {
    pub fn whole(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Whole(bytes) }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = h1::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h1::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let frame = Frame::data(std::mem::take(bytes));
                *self = Self::Empty;
                Poll::Ready(Some(Ok(frame)))
            }
            Self::Upstream(exchange) => {
                let polled = exchange.poll_frame(cx);
                if polled.is_ready() && exchange.is_through() {
                    *self = Self::Empty;
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(exchange) => {
                exchange.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}
