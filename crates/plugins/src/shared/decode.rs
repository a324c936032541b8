//! Bodies that an upstream compressed.

use std::io::{ErrorKind, Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    Deflate,
    Brotli,
}

impl Encoding {
    /// What `Content-Encoding` names; none for what we can't read.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"br" => Some(Self::Brotli),
            _ => None,
        }
    }

    /// The body as it was before it was compressed, cut off at `limit` bytes. Of one that is cut off itself: what is
    /// there.
    pub fn decode(self, body: &[u8], limit: usize) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Gzip => read(MultiGzDecoder::new(body), limit),
            // Both go by this name: with zlib's head, as is right, and without.
            Self::Deflate => {
                read(ZlibDecoder::new(body), limit).or_else(|_| read(DeflateDecoder::new(body), limit))
            }
            Self::Brotli => read(brotli_decompressor::Decompressor::new(body, 4096), limit),
        }
    }
}

fn read(from: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match from.take(limit as u64).read_to_end(&mut body) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof || body.is_empty() => Err(error),
        _ => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;

    const TEXT: &[u8] = b"hello world hello world hello world\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_compressed_is_read_again() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(TEXT).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(TEXT).unwrap();
        // One block that is not compressed, and the end.
        let brotli = [&[0x30, 0x02, 0x10], TEXT, &[0x03]].concat();
        let (zlib, raw) = (zlib.finish().unwrap(), raw.finish().unwrap());
        for (name, body) in [("GZIP", gzip(TEXT)), ("deflate", zlib), ("deflate", raw), ("br", brotli)] {
            let encoding = Encoding::named(name.as_bytes()).unwrap();
            assert_eq!(encoding.decode(&body, 100).unwrap(), TEXT, "{name}");
            assert_eq!(encoding.decode(&body, 5).unwrap(), b"hello", "{name}");
            assert!(encoding.decode(b"no such thing", 100).is_err(), "{name}");
        }
        assert_eq!(Encoding::named(b"zstd"), None);
    }

    #[test]
    fn a_body_that_is_cut_off_gives_what_is_there() {
        let text: Vec<u8> =
            (0..20_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let whole = gzip(&text);
        let read = Encoding::Gzip.decode(&whole[..whole.len() / 2], usize::MAX).unwrap();
        assert!(!read.is_empty() && text.starts_with(&read));
    }
}
