//! The request's head as the upstream gets it.
//!
//! The rule to know: nothing is changed in the [`Ctx`]. Fields that speak of the client's connection, and those we
//! know better, are passed over while the others are written.

mod stream;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use model::byte_text;
use percent_encoding::AsciiSet;

pub use stream::for_stream;

use super::{
    client::Client,
    h1::{RequestBody, write_field},
};
use crate::ctx::Ctx;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What can't stand in a target. `%` stays: what is encoded already is not encoded twice.
const UNSAFE: &AsciiSet = &percent_encoding::CONTROLS.add(b' ');

/// How the upstream learns where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Nothing,
    Length(u64),
    Chunked,
}

impl Framing {
    pub fn of(body: &RequestBody) -> Self {
        match body.length() {
            Some(0) => Self::Nothing,
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        }
    }

    pub fn is_chunked(self) -> bool {
        self == Self::Chunked
    }
}

/// The name in the node's certificate: `Host` without its port.
pub fn server_name(host: &[u8]) -> Arc<str> {
    let text = String::from_utf8_lossy(host);
    let name = match text.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') || name.ends_with(']') => name,
        _ => &text,
    };
    name.trim_matches(['[', ']']).into()
}

/// Writes the head.
pub fn write(out: &mut Vec<u8>, ctx: &Ctx, client: &Client, host: &[u8], framing: Framing, upgrade: bool) {
    let request = &ctx.request;
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    match &request.upstream_target {
        None => out.extend_from_slice(request.target().as_bytes()),
        Some(target) => write_target(out, target),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_field(out, "host", host);
    let had = write_fields(out, &request.headers, request.version);
    write_addresses(out, ctx, client, had.forwarded_for);
    match framing {
        Framing::Nothing if had.length => out.extend_from_slice(b"content-length: 0\r\n"),
        Framing::Nothing => {}
        Framing::Length(length) => {
            write_field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    if upgrade {
        out.extend_from_slice(b"upgrade: websocket\r\nconnection: upgrade\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a target that a plugin made: nothing in it may end the line or pass for a part of it.
fn write_target(out: &mut Vec<u8>, target: &str) {
    for part in percent_encoding::percent_encode(&byte_text::write(target), UNSAFE) {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Fields that were passed over.
#[derive(Default)]
struct Had {
    length: bool,
    forwarded_for: bool,
}

/// Writes the client's own fields.
fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap, version: Version) -> Had {
    let mut had = Had::default();
    for (name, value) in headers {
        match *name {
            header::CONTENT_LENGTH => had.length = true,
            // Clients of HTTP/2 and later send cookies in crumbs, which HTTP/1.1 has no name for.
            header::COOKIE if version >= Version::HTTP_2 => {}
            _ if *name == FORWARDED_FOR => had.forwarded_for = true,
            _ if is_ours(name) => {}
            _ => write_field(out, name.as_str(), value.as_bytes()),
        }
    }
    if version >= Version::HTTP_2 {
        write_joined(out, "cookie", b"; ", headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes));
    }
    had
}

/// Whether a field speaks of the client's connection alone, or of what we know better.
fn is_ours(name: &HeaderName) -> bool {
    match *name {
        header::HOST
        | header::CONNECTION
        | header::UPGRADE
        | header::TRANSFER_ENCODING
        | header::TE
        | header::EXPECT => true,
        _ => {
            *name == FORWARDED_FOR
                || *name == REAL_IP
                || *name == KEEP_ALIVE
                || *name == PROXY_CONNECTION
                || *name == HTTP2_SETTINGS
        }
    }
}

/// `X-Real-IP`, and `X-Forwarded-For` with the client at its end.
fn write_addresses(out: &mut Vec<u8>, ctx: &Ctx, client: &Client, had_forwarded_for: bool) {
    let own;
    let address = if ctx.client == client.peer {
        client.peer_text.as_bytes()
    } else {
        own = ctx.client.ip().to_canonical().to_string();
        own.as_bytes()
    };
    write_field(out, "x-real-ip", address);
    if !had_forwarded_for {
        return write_field(out, "x-forwarded-for", address);
    }
    let before = ctx.request.headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    write_joined(out, "x-forwarded-for", b", ", before.chain([address]));
}

fn write_joined<'a>(out: &mut Vec<u8>, name: &str, by: &[u8], values: impl Iterator<Item = &'a [u8]>) {
    let mut first = true;
    for value in values {
        if std::mem::take(&mut first) {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
        } else {
            out.extend_from_slice(by);
        }
        out.extend_from_slice(value);
    }
    if !first {
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_made_by_a_plugin_stays_one_word() {
        let mut out = Vec::new();
        write_target(&mut out, "/a b\r\nHost: x/%20/\u{e9}?c=d&e\u{10FFFF}");
        assert_eq!(out, b"/a%20b%0D%0AHost:%20x/%20/%C3%A9?c=d&e%FF");
    }

    #[test]
    fn a_certificate_names_the_host_without_its_port() {
        for (host, name) in
            [("a.test", "a.test"), ("a.test:443", "a.test"), ("[::1]:443", "::1"), ("[::1]", "::1")]
        {
            assert_eq!(&*server_name(host.as_bytes()), name);
        }
    }
}
