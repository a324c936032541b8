//! The head of an answer to an HTTP/1.0 client, as nginx writes it.
//!
//! The rule to know: hyper answers such a client in HTTP/1.0 and says nothing of a connection that it closes. nginx
//! answers everyone in HTTP/1.1 (RFC 9110, section 6.2: a server says the highest version it knows) and always says
//! what becomes of the connection, and the programs that still speak HTTP/1.0 read heads by the letter. So for them
//! alone the head is written again: nginx's version, order and spelling. HTTP/1.1 is never looked at here.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use super::io::Downstream;

/// nginx writes these before all others, in this order.
const FIRST: [&[u8]; 4] = [b"date", b"content-type", b"content-length", b"last-modified"];

/// A head on its way, instead of one that hyper wrote.
pub struct OldHead {
    /// How much of hyper's it stands for.
    instead_of: usize,
    text: Vec<u8>,
    written: usize,
}

impl OldHead {
    /// None: `words` do not begin with the head of an answer in HTTP/1.0.
    pub fn instead_of(words: &[u8]) -> Option<Self> {
        let end = words.windows(4).position(|end| end == b"\r\n\r\n")?;
        let mut lines = words[..end].split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let status = lines.next()?.strip_prefix(b"HTTP/1.0 ")?;
        let fields: Vec<(&[u8], &[u8])> = lines.filter_map(field).collect();
        let mut text = Vec::with_capacity(end + 32);
        text.extend_from_slice(b"HTTP/1.1 ");
        text.extend_from_slice(status);
        text.extend_from_slice(b"\r\n");
        for name in FIRST {
            fields.iter().filter(|field| field.0 == name).for_each(|field| write(&mut text, *field));
        }
        write(&mut text, (b"connection", connection(status, &fields)));
        for field in fields.iter().filter(|field| field.0 != b"connection" && !FIRST.contains(&field.0)) {
            write(&mut text, *field);
        }
        text.extend_from_slice(b"\r\n");
        Some(Self { instead_of: end + 4, text, written: 0 })
    }

    /// Writes it and what follows in `bufs`, which begin with the head that it stands for. Ready once it is out, with
    /// how much of `bufs` is.
    pub fn poll_write(
        &mut self,
        stream: &mut Downstream,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let ours = &self.text[self.written..];
            let first = bufs.first().map_or(&[][..], |buf| &buf[self.instead_of..]);
            let all: Vec<IoSlice<'_>> = [ours, first]
                .into_iter()
                .map(IoSlice::new)
                .chain(bufs.iter().skip(1).map(|buf| IoSlice::new(buf)))
                .collect();
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &all))?;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            if let Some(more) = written.checked_sub(ours.len()) {
                return Poll::Ready(Ok(self.instead_of + more));
            }
            self.written += written;
        }
    }
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii_start()))
}

/// What becomes of the connection: it is closed, unless hyper says that it stays or changes hands. A body that ends
/// with the connection is none after which it stays.
fn connection<'a>(status: &[u8], fields: &[(&'a [u8], &'a [u8])]) -> &'a [u8] {
    let value = |name| fields.iter().find(|field| field.0 == name).map(|field| field.1);
    let bodiless = status.starts_with(b"204") || status.starts_with(b"304");
    let bounded = bodiless || value(b"content-length".as_slice()).is_some();
    let keeps = |said: &&[u8]| match *said {
        said if said.eq_ignore_ascii_case(b"keep-alive") => bounded,
        _ => status.starts_with(b"101"),
    };
    value(b"connection".as_slice()).filter(keeps).unwrap_or(b"close")
}

/// A field with each word of its name begun in upper case.
fn write(text: &mut Vec<u8>, (name, value): (&[u8], &[u8])) {
    let mut before = b'-';
    for &byte in name {
        text.push(if before == b'-' { byte.to_ascii_uppercase() } else { byte });
        before = byte;
    }
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(head: &str) -> Option<String> {
        OldHead::instead_of(head.as_bytes()).map(|old| String::from_utf8(old.text).unwrap())
    }

    #[test]
    fn a_head_is_as_nginx_writes_it() {
        let head = "HTTP/1.0 200 OK\r\nx-one: a: b\r\nserver: us\r\ncontent-length: 3\r\ncontent-type: text/plain\r\n\
                    date: now\r\n\r\nabc";
        let ours = "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\
                    Connection: close\r\nX-One: a: b\r\nServer: us\r\n\r\n";
        assert_eq!(rewritten(head).as_deref(), Some(ours));
        assert_eq!(OldHead::instead_of(head.as_bytes()).unwrap().instead_of, head.len() - 3);
    }

    #[test]
    fn what_becomes_of_the_connection_is_said() {
        let said = |line| rewritten(&format!("HTTP/1.0 200 OK\r\n{line}\r\n\r\n")).unwrap();
        assert!(
            said("content-length: 0\r\nconnection: keep-alive").contains("\r\nConnection: keep-alive\r\n")
        );
        assert!(said("connection: keep-alive").contains("\r\nConnection: close\r\n"));
        assert!(said("connection: close, keep-alive").contains("\r\nConnection: close\r\n"));
        assert!(said("x: y").contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn anything_else_is_left_alone() {
        for words in ["", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nx: y\r\n", "a body\r\n\r\n"] {
            assert_eq!(rewritten(words), None, "{words:?}");
        }
    }
}
