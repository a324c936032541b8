//! The chunked coding, as it is read.
//!
//! The rule to know: strict. What two parties could read differently ends the exchange.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Error, trailers::harmless};

/// No size line with its extensions is longer.
const MAX_LINE: usize = 4 * 1024;
/// No trailers together are longer.
const MAX_TRAILERS: usize = 16 * 1024;

/// Where in the coding we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunked {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// What came next.
pub enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// So many bytes more would be useful.
    More(usize),
}

impl Chunked {
    /// Takes the next piece from the front of `buffer`.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Step, Error> {
        loop {
            match *self {
                Self::Size => {
                    let Some((end, size)) = size(buffer)? else { return Ok(Step::More(0)) };
                    let _ = buffer.split_to(end);
                    *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                }
                Self::Data(_) if buffer.is_empty() => return Ok(Step::More(usize::MAX)),
                Self::Data(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let left = left - take as u64;
                    *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                    return Ok(Step::Data(buffer.split_to(take).freeze()));
                }
                Self::DataEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        let _ = buffer.split_to(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(Error::Malformed("a chunk is longer than its size")),
                    None => return Ok(Step::More(0)),
                },
                Self::Trailers => {
                    let Some(trailers) = trailers(buffer)? else { return Ok(Step::More(0)) };
                    *self = Self::Done;
                    let trailers = harmless(trailers);
                    return Ok(if trailers.is_empty() { Step::End } else { Step::Trailers(trailers) });
                }
                Self::Done => return Ok(Step::End),
            }
        }
    }
}

/// A size with its line, extensions passed over: where the line ends, and the size. None: more is needed.
fn size(buffer: &[u8]) -> Result<Option<(usize, u64)>, Error> {
    const MALFORMED: Error = Error::Malformed("a chunk's size is not a number");
    let digits = buffer.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits > 16 || (digits == 0 && !buffer.is_empty()) {
        return Err(MALFORMED);
    }
    let Some(end) = buffer.iter().position(|&b| b == b'\n') else {
        return if buffer.len() < MAX_LINE { Ok(None) } else { Err(MALFORMED) };
    };
    let extensions = buffer[digits..end].strip_suffix(b"\r").ok_or(MALFORMED)?;
    let are_some = matches!(extensions.trim_ascii_start(), [] | [b';', ..]);
    let is_text = extensions.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f));
    if end >= MAX_LINE || !are_some || !is_text {
        return Err(MALFORMED);
    }
    let fold =
        |size: u64, &digit: &u8| size << 4 | u64::from((digit as char).to_digit(16).unwrap_or_default());
    Ok(Some((end + 1, buffer[..digits].iter().fold(0, fold))))
}

fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, Error> {
    const MALFORMED: Error = Error::Malformed("the trailers are not header fields");
    if buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; 32];
    match httparse::parse_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete((end, fields))) => {
            // The parser takes a bare line feed too, and so might somebody before the end of the line.
            if buffer[..end].split_inclusive(|&b| b == b'\n').any(|line| !line.ends_with(b"\r\n")) {
                return Err(MALFORMED);
            }
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| MALFORMED)?;
                trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| MALFORMED)?);
            }
            let _ = buffer.split_to(end);
            Ok(Some(trailers))
        }
        Ok(httparse::Status::Partial) if buffer.len() < MAX_TRAILERS => Ok(None),
        _ => Err(MALFORMED),
    }
}
