//! What an exchange holds of its upstream.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::{h1, h2, io};
use crate::upstream::pool;

/// The way to an upstream, for as long as a request is on it.
#[expect(clippy::large_enum_variant, reason = "HTTP/1.1 is the usual case, and a box less for each request")]
pub enum Link {
    /// A connection that is this request's alone, and where it goes when it is free.
    Own { key: pool::Key, connection: h1::Connection<io::Upstream> },
    /// One stream of a connection of HTTP/2.
    Stream(Box<h2::Call>),
}

impl Link {
    /// The next piece of the response's body; goes on sending the request's.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut h1::RequestBody,
        limits: &h1::Limits,
    ) -> Poll<Option<Result<Frame<Bytes>, h1::Error>>> {
        match self {
            Self::Own { connection, .. } => connection.poll_frame(cx, body, limits),
            Self::Stream(call) => call.poll_frame(cx, limits),
        }
    }

    /// Whether the response has no further frame.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Own { connection, .. } => connection.is_end(),
            Self::Stream(call) => call.is_end(),
        }
    }

    /// The length of what is left of the response's body, where it is known.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Own { connection, .. } => connection.remaining(),
            Self::Stream(_) => None,
        }
    }

    /// Bytes received for this request.
    pub fn received(&self) -> u64 {
        match self {
            Self::Own { connection, .. } => connection.received,
            Self::Stream(call) => call.received,
        }
    }

    /// Whether any of the request may have reached the upstream.
    pub fn has_written(&self) -> bool {
        match self {
            Self::Own { connection, .. } => connection.has_written(),
            Self::Stream(_) => true,
        }
    }
}
