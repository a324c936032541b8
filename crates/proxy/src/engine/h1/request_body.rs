//! A request's body, as it is taken from the client.

use std::{
    collections::VecDeque,
    error::Error as _,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body::{Body as _, Frame};

use super::{
    super::timer::{Timer, Timers},
    Error,
    trailers::harmless,
};

/// So much of a body is kept to be sent again to another node.
const KEPT: usize = 64 * 1024;

/// What the client sends after its head.
pub struct RequestBody {
    source: Source,
    /// Bytes the client may still send.
    allowance: u64,
    /// What was taken from the source, until it is too much.
    kept: VecDeque<Bytes>,
    kept_size: usize,
    /// How much may be kept.
    most_kept: usize,
    /// How much of `kept` has been given out since the last rewind.
    given: usize,
    /// Whether `kept` is all that was taken.
    whole: bool,
    /// How long the client may be silent.
    pace: Option<(Timer, Duration)>,
    /// Whether it comes over HTTP/1.
    http1: bool,
    /// Whether fields came after it, over HTTP/1.
    trailed: bool,
    /// Bytes taken from the client.
    pub received: u64,
}

/// A body as the client's connection gives it.
pub enum Incoming {
    Hyper(hyper::body::Incoming),
    /// HTTP/3's.
    Boxed(Box<dyn http_body::Body<Data = Bytes, Error = Error> + Unpin>),
}

enum Source {
    Empty,
    Whole(Bytes),
    Stream(Incoming),
}

/// What comes next of a body.
pub enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl RequestBody {
    /// A body of at most `limit` bytes; zero: of any length.
    /// The client must not be silent for longer than `silence`.
    pub fn new(body: Incoming, version: Version, limit: u64, timers: &Rc<Timers>, silence: Duration) -> Self {
        if body.is_end_stream() {
            return Self::from(Source::Empty, u64::MAX);
        }
        let (source, pace) = (Source::Stream(body), Some((timers.timer(), silence)));
        let http1 = version < Version::HTTP_2;
        Self { pace, http1, ..Self::from(source, if limit == 0 { u64::MAX } else { limit }) }
    }

    /// Whether the client may still be sending it, over HTTP/1.
    pub fn is_open(&self) -> bool {
        self.http1 && matches!(self.source, Source::Stream(_))
    }

    /// Whether nobody has asked for any of it yet.
    pub fn is_untouched(&self) -> bool {
        self.received == 0 && !self.pace.as_ref().is_some_and(|(timer, _)| timer.is_armed())
    }

    /// Whether fields came after it, over HTTP/1. Where those end may be said so that two readers differ: hyper takes
    /// any lines up to an empty one that ends in CRLF, and looks at them only up to one that ends in LF alone.
    pub fn is_trailed(&self) -> bool {
        self.trailed
    }

    /// What the client may still be sending, over HTTP/1.
    pub fn take_open(&mut self) -> Option<Incoming> {
        if !self.is_open() {
            return None;
        }
        match std::mem::replace(&mut self.source, Source::Empty) {
            Source::Stream(body) => Some(body),
            Source::Empty | Source::Whole(_) => None,
        }
    }

    fn from(source: Source, allowance: u64) -> Self {
        Self {
            source,
            allowance,
            kept: VecDeque::new(),
            kept_size: 0,
            most_kept: KEPT,
            given: 0,
            whole: true,
            pace: None,
            http1: false,
            trailed: false,
            received: 0,
        }
    }

    /// Replaces what is left by `body`, which a plugin has read or made.
    pub fn replace(&mut self, body: Bytes) {
        let source = if body.is_empty() { Source::Empty } else { Source::Whole(body) };
        let (received, trailed) = (self.received, self.trailed);
        *self = Self { received, trailed, ..Self::from(source, u64::MAX) };
    }

    /// The length of what [`RequestBody::poll_next`] will give, where it is known before that.
    pub fn length(&self) -> Option<u64> {
        let again: usize = self.kept.iter().skip(self.given).map(Bytes::len).sum();
        Some(again as u64 + self.to_come()?)
    }

    /// The length of what has not been taken yet.
    fn to_come(&self) -> Option<u64> {
        match &self.source {
            Source::Empty => Some(0),
            Source::Whole(body) => Some(body.len() as u64),
            Source::Stream(body) => body.length(),
        }
    }

    /// Whether it is longer than allowed, as far as its length is known.
    pub fn is_too_large(&self) -> bool {
        self.to_come().is_some_and(|length| length > self.allowance)
    }

    /// Takes the body in before anyone asks for it. None where it is longer than `limit`, or than it may be at all:
    /// then what was taken is given out first, as if nothing had happened.
    pub async fn read_ahead(&mut self, limit: u64) -> Result<Option<Bytes>, Error> {
        self.given = 0;
        if self.is_too_large() || self.length().is_some_and(|length| length > limit) {
            return Ok(None);
        }
        self.most_kept = usize::MAX;
        let mut whole = None;
        while self.kept_size as u64 <= limit {
            if !matches!(poll_fn(|cx| self.poll_next(cx)).await?, Next::Data(_)) {
                let chunks = self.kept.make_contiguous();
                whole = Some(if let [one] = chunks { one.clone() } else { chunks.concat().into() });
                break;
            }
        }
        (self.most_kept, self.given) = (KEPT, 0);
        Ok(whole)
    }

    /// Begins again with the first byte, where that is still possible.
    pub fn rewind(&mut self) -> bool {
        self.given = 0;
        self.whole
    }

    /// Takes what is left of it, to be sent apart from the response, however slowly the client sends it.
    pub fn split_off(&mut self) -> Self {
        // How it ends is not learnt here.
        let (received, trailed) = (self.received, self.http1);
        let emptied = Self { received, trailed, ..Self::from(Source::Empty, 0) };
        Self { received: 0, pace: None, ..std::mem::replace(self, emptied) }
    }

    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Error>> {
        if let Some(again) = self.kept.get(self.given) {
            self.given += 1;
            return Poll::Ready(Ok(Next::Data(again.clone())));
        }
        let data = match &mut self.source {
            Source::Empty => return Poll::Ready(Ok(Next::End)),
            Source::Whole(body) => std::mem::take(body),
            Source::Stream(body) => match ready!(paced(self.pace.as_ref(), cx, body))? {
                None => {
                    self.source = Source::Empty;
                    return Poll::Ready(Ok(Next::End));
                }
                Some(frame) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.trailed = self.http1;
                        if self.http1 && trailers.is_empty() {
                            return Poll::Ready(Err(Error::MalformedBody));
                        }
                        return Poll::Ready(Ok(Next::Trailers(harmless(trailers))));
                    }
                },
            },
        };
        if matches!(self.source, Source::Whole(_)) {
            self.source = Source::Empty;
        }
        self.received += data.len() as u64;
        let Some(left) = self.allowance.checked_sub(data.len() as u64) else {
            return Poll::Ready(Err(Error::TooLarge));
        };
        self.allowance = left;
        self.keep(&data);
        Poll::Ready(Ok(Next::Data(data)))
    }

    fn keep(&mut self, data: &Bytes) {
        self.kept_size += data.len();
        if self.kept_size > self.most_kept {
            self.whole = false;
            self.kept.clear();
            self.given = 0;
        } else if self.whole {
            self.kept.push_back(data.clone());
            self.given += 1;
        }
    }
}

impl From<hyper::body::Incoming> for Incoming {
    fn from(body: hyper::body::Incoming) -> Self {
        Self::Hyper(body)
    }
}

impl Incoming {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Hyper(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| Some(frame?.map_err(|error| broken(&error))))
            }
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    /// The length, where it is known.
    fn length(&self) -> Option<u64> {
        match self {
            Self::Hyper(body) => body.size_hint().exact(),
            Self::Boxed(body) => body.size_hint().exact(),
        }
    }
}

/// The next frame, unless the client is silent for too long.
fn paced(
    pace: Option<&(Timer, Duration)>,
    cx: &mut Context<'_>,
    body: &mut Incoming,
) -> Poll<Result<Option<Frame<Bytes>>, Error>> {
    let poll = body.poll_frame(cx);
    if let Some((timer, silence)) = pace {
        if poll.is_ready() {
            timer.disarm();
        } else if timer.poll_fired(cx) {
            return Poll::Ready(Err(Error::BodyTimeout));
        } else if !timer.is_armed() {
            timer.arm(Instant::now(), *silence);
        }
    }
    poll.map(Option::transpose)
}

/// Whether the client went away, or sent what is no body.
fn broken(error: &hyper::Error) -> Error {
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Error::MalformedBody,
        _ => Error::RequestBody,
    }
}
