//! Doors to what parses bytes of others, for `crates/proxy/fuzz` alone.

use bytes::BytesMut;
use http::{HeaderMap, Method, header};

use super::h1::{Framing, Piece, parse};

/// What became of a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Refused,
    /// The bytes end before it does.
    Cut,
    Whole {
        status: u16,
        headers: HeaderMap,
        body: Vec<u8>,
        trailers: HeaderMap,
    },
}

/// Reads a response that comes `step` bytes at a time, to `HEAD` or to `GET`.
///
/// # Panics
/// Where something passes that must not.
pub fn response(wire: &[u8], head: bool, step: usize) -> Read {
    let method = if head { Method::HEAD } else { Method::GET };
    let mut buffer = BytesMut::new();
    let mut pieces = wire.chunks(step);
    let (head, mut framing) = loop {
        match parse(&mut buffer, &method) {
            Ok(Some(parsed)) => break parsed,
            Ok(None) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Read::Cut,
            },
            Err(_) => return Read::Refused,
        }
    };
    assert!(
        !head.headers.contains_key(header::TRANSFER_ENCODING)
            && !head.headers.contains_key(header::CONNECTION)
    );
    for value in head.headers.values() {
        assert!(!value.as_bytes().iter().any(|b| b"\r\n\0".contains(b)), "{value:?}");
    }
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    loop {
        match framing.next(&mut buffer) {
            Ok(Piece::Frame(frame)) => match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            },
            Ok(Piece::End) => break,
            Ok(Piece::More(_)) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None if framing == Framing::Close => break,
                None => return Read::Cut,
            },
            Err(_) => return Read::Refused,
        }
    }
    assert!(!trailers.contains_key(header::CONTENT_LENGTH) && !trailers.contains_key(header::SET_COOKIE));
    Read::Whole { status: head.status.as_u16(), headers: head.headers, body, trailers }
}
