//! A response, as it is read: its head, and where its body ends.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use smallvec::SmallVec;

use super::{
    super::forward_head::{KEEP_ALIVE, PROXY_CONNECTION},
    Error,
    chunked::{Chunked, Step},
};

/// No head is longer, and none has more fields.
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;

/// The head of a response, without the fields that speak of the connection alone.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub(super) keep_alive: bool,
}

impl Head {
    /// One that was received otherwise than by HTTP/1.
    pub fn new(status: StatusCode, mut headers: HeaderMap) -> Self {
        let ours: SmallVec<[HeaderName; 2]> =
            headers.keys().filter(|name| is_for_gateway(name)).cloned().collect();
        for name in ours {
            headers.remove(name);
        }
        Self { status, headers, keep_alive: true }
    }
}

/// Whether `Upgrade` belongs to a response: RFC 9110, section 7.8.
fn speaks_of_upgrades(status: StatusCode) -> bool {
    matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED)
}

/// What an upstream says to nginx alone, and nginx does not pass on: the default of `proxy_hide_header`.
fn is_for_gateway(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-accel-buffering"
            | "x-accel-charset"
            | "x-accel-expires"
            | "x-accel-limit-rate"
            | "x-accel-redirect"
            | "x-pad"
    )
}

/// Where a response's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked(Chunked),
    /// With the connection.
    Close,
}

/// What a body goes on with.
pub enum Piece {
    Frame(Frame<Bytes>),
    End,
    /// So many bytes more would be useful.
    More(usize),
}

impl Framing {
    /// Takes the next piece from the front of `buffer`.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Error> {
        match self {
            Self::Empty | Self::Length(0) => Ok(Piece::End),
            Self::Length(left) if buffer.is_empty() => {
                Ok(Piece::More(usize::try_from(*left).unwrap_or(usize::MAX)))
            }
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= take as u64;
                Ok(Piece::Frame(Frame::data(buffer.split_to(take).freeze())))
            }
            Self::Chunked(chunked) => Ok(match chunked.next(buffer)? {
                Step::Data(data) => Piece::Frame(Frame::data(data)),
                Step::Trailers(trailers) => Piece::Frame(Frame::trailers(trailers)),
                Step::End => Piece::End,
                Step::More(hint) => Piece::More(hint),
            }),
            Self::Close if buffer.is_empty() => Ok(Piece::More(usize::MAX)),
            Self::Close => Ok(Piece::Frame(Frame::data(buffer.split().freeze()))),
        }
    }

    /// Whether everything on the wire is the body itself, up to its end.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Length(_) | Self::Close)
    }

    /// So many bytes of a plain body went by, which are no more than were left of it.
    pub fn pass(&mut self, read: usize) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(read as u64);
        }
    }

    pub fn is_end(&self) -> bool {
        matches!(self, Self::Empty | Self::Length(0) | Self::Chunked(Chunked::Done))
    }

    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::Close => None,
        }
    }
}

/// Takes a head from the front of `buffer`, once it is there as a whole; passes over interim responses.
pub fn parse(buffer: &mut BytesMut, method: &Method) -> Result<Option<(Head, Framing)>, Error> {
    loop {
        let Some((head, framing)) = parse_one(buffer, method)? else { return Ok(None) };
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Some((head, framing)));
        }
    }
}

fn parse_one(buffer: &mut BytesMut, method: &Method) -> Result<Option<(Head, Framing)>, Error> {
    const BEGINNING: &[u8] = b"HTTP/1.";
    // The parser passes over empty lines before it; here they would be somebody's left over bytes.
    let begun = buffer.len().min(BEGINNING.len());
    if buffer[..begun] != BEGINNING[..begun] {
        return Err(Error::Malformed("its head is not one"));
    }
    if begun < BEGINNING.len() {
        return Ok(None);
    }
    let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut again = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let strict = httparse::ParserConfig::default();
    let mut parsed = strict.parse_response_with_uninit_headers(&mut response, buffer, &mut slots);
    let spaced = matches!(parsed, Err(httparse::Error::HeaderName));
    if spaced {
        // RFC 9112, section 5.1: a proxy takes the space before a colon away.
        let mut lenient = httparse::ParserConfig::default();
        lenient.allow_spaces_after_header_name_in_responses(true);
        response = httparse::Response::new(&mut []);
        parsed = lenient.parse_response_with_uninit_headers(&mut response, buffer, &mut again);
    }
    let end = match parsed {
        Ok(httparse::Status::Complete(end)) if end <= MAX_HEAD => end,
        Ok(httparse::Status::Complete(_)) => return Err(Error::Malformed("its head is too long")),
        Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Error::Malformed("its head is too long")),
        Err(_) => return Err(Error::Malformed("its head is not one")),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Error::Malformed("its status is not one"))?;
    let mut fields = Fields::new(status, response.version == Some(1), response.headers.len());
    // Names and values become slices of the buffer, so they are noted by place before the head is split off.
    let start = buffer.as_ptr().addr();
    let place = |bytes: &[u8]| {
        let from = bytes.as_ptr().addr() - start;
        from..from + bytes.len()
    };
    let places: SmallVec<[_; 32]> =
        response.headers.iter().map(|field| (place(field.name.as_bytes()), place(field.value))).collect();
    let head = buffer.split_to(end).freeze();
    for (place, value) in places {
        let written = &head[place.clone()];
        let name = HeaderName::from_bytes(written).map_err(|_| Fields::MALFORMED)?;
        let frames = || matches!(name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING);
        if spaced && head.get(place.end) != Some(&b':') && frames() {
            return Err(Fields::MALFORMED);
        }
        // All of these begin with an x, which most don't.
        if matches!(written, [b'x' | b'X', ..]) && is_for_gateway(&name) {
            continue;
        }
        fields.add(name, head.slice(value))?;
    }
    fields.finish(method).map(Some)
}

/// Fields on their way from the wire into a [`Head`].
struct Fields {
    head: Head,
    length: Option<u64>,
    chunked: bool,
    /// Lists in `Connection` with fields that go no further either.
    named: SmallVec<[HeaderValue; 1]>,
}

impl Fields {
    const MALFORMED: Error = Error::Malformed("a header field is not one");

    fn new(status: StatusCode, keep_alive: bool, count: usize) -> Self {
        let headers = HeaderMap::with_capacity(count + 2);
        Self {
            head: Head { status, headers, keep_alive },
            length: None,
            chunked: false,
            named: SmallVec::new(),
        }
    }

    fn add(&mut self, name: HeaderName, value: Bytes) -> Result<(), Error> {
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Self::MALFORMED)?;
        match name {
            header::CONTENT_LENGTH => return self.add_length(value),
            header::TRANSFER_ENCODING => return self.add_encoding(&value),
            header::CONNECTION => {
                self.add_connection(&value);
                return Ok(());
            }
            header::UPGRADE if !speaks_of_upgrades(self.head.status) => return Ok(()),
            _ if name == KEEP_ALIVE || name == PROXY_CONNECTION => return Ok(()),
            _ => {}
        }
        self.head.headers.try_append(name, value).map_err(|_| Self::MALFORMED)?;
        Ok(())
    }

    fn add_length(&mut self, value: HeaderValue) -> Result<(), Error> {
        let text = value.as_bytes();
        let length = (!text.is_empty() && text.len() < 20 && text.iter().all(u8::is_ascii_digit))
            .then(|| text.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0')))
            .ok_or(Error::Malformed("its length is not a number"))?;
        if self.length.is_some_and(|before| before != length) {
            return Err(Error::Malformed("it has two lengths"));
        }
        self.length = Some(length);
        self.head.headers.insert(header::CONTENT_LENGTH, value);
        Ok(())
    }

    fn add_encoding(&mut self, value: &HeaderValue) -> Result<(), Error> {
        if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Error::Malformed("its transfer coding is not known"));
        }
        self.chunked = true;
        Ok(())
    }

    fn add_connection(&mut self, value: &HeaderValue) {
        let mut names = false;
        for token in value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                self.head.keep_alive = false;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.head.keep_alive = true;
            } else if !token.is_empty() && !token.eq_ignore_ascii_case(b"upgrade") {
                names = true;
            }
        }
        if names {
            self.named.push(value.clone());
        }
    }

    /// RFC 9112, section 6.3.
    fn finish(mut self, method: &Method) -> Result<(Head, Framing), Error> {
        for list in std::mem::take(&mut self.named) {
            for token in list.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                if let Ok(name) = HeaderName::from_bytes(token) {
                    self.head.headers.remove(name);
                }
            }
        }
        let status = self.head.status;
        if self.chunked && self.length.is_some() {
            return Err(Error::Malformed("it has a length and a transfer coding"));
        }
        let framing = if status.is_informational() || status == StatusCode::NO_CONTENT {
            // Neither has a body. Who announces one may send it too, as the answer to the next request.
            self.head.keep_alive &= !self.chunked && self.length.unwrap_or_default() == 0;
            self.head.headers.remove(header::CONTENT_LENGTH);
            Framing::Empty
        } else if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            Framing::Empty
        } else if self.chunked {
            Framing::Chunked(Chunked::Size)
        } else {
            self.length.map_or(Framing::Close, Framing::Length)
        };
        Ok((self.head, framing))
    }
}

#[cfg(test)]
mod tests;
