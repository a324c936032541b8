//! The access log: nginx's format language, gathered per worker, written by a thread of its own.
//!
//! The rule to know: no disk ever holds up a worker. Lines go out in blocks; when the writer does not keep up, whole
//! blocks are dropped and counted, never waited for.

use std::{
    borrow::Cow,
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use model::byte_text;

use crate::{ctx::Ctx, vars::Var};

/// APISIX's `nginx_config.http.access_log_format`.
pub const DEFAULT_FORMAT: &str = "$remote_addr - $remote_user [$time_local] $http_host \"$request\" $status \
    $body_bytes_sent $request_time \"$http_referer\" \"$http_user_agent\" $upstream_addr $upstream_status \
    $upstream_response_time \"$upstream_scheme://$upstream_host$upstream_uri\" \"$apisix_request_id\"";

/// Variables that are set for some requests, by the engine or by plugins.
const SET_ON_THE_WAY: [&str; 10] = [
    "original_forwarded",
    "original_x_forwarded_for",
    "original_x_forwarded_host",
    "original_x_forwarded_port",
    "original_x_forwarded_proto",
    "proxy_protocol_addr",
    "proxy_protocol_port",
    "proxy_protocol_server_addr",
    "proxy_protocol_server_port",
    "rate_limiting_info",
];

/// How values are made safe. nginx's `escape=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// `\xXX`; `-` for nothing.
    #[default]
    Default,
    /// As inside a JSON string; nothing for nothing.
    Json,
    None,
}

/// A compiled format.
#[derive(Debug)]
pub struct Format {
    parts: Vec<Part>,
    escape: Escape,
    /// Written out once so much has gathered.
    block: usize,
    reads_response_head: bool,
}

#[derive(Debug)]
enum Part {
    Text(Box<str>),
    Var(Var),
}

impl Format {
    /// `block` is `access_log_buffer`, in bytes.
    pub fn new(text: &str, escape: Escape, block: usize) -> Self {
        let mut parts = Vec::new();
        let mut rest = text.trim_end_matches('\n');
        while let Some(dollar) = rest.find('$') {
            let (before, after) = rest.split_at(dollar);
            let (name, left) = variable(&after[1..]);
            let text = if name.is_empty() { &rest[..=dollar] } else { before };
            if !text.is_empty() {
                parts.push(Part::Text(text.into()));
            }
            if !name.is_empty() {
                parts.push(Part::Var(Var::parse(name)));
            }
            rest = left;
        }
        parts.push(Part::Text(format!("{rest}\n").into()));
        let reads_response_head = text.contains("sent_http_");
        Self { parts, escape, block, reads_response_head }
    }

    /// Names of variables that nothing here ever gives a value.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Var(Var::Other(name)) if !SET_ON_THE_WAY.contains(&&**name) => Some(&**name),
            _ => None,
        })
    }

    /// Whether it shows fields of the response.
    pub fn reads_response_head(&self) -> bool {
        self.reads_response_head
    }

    fn write(&self, out: &mut Vec<u8>, ctx: &Ctx) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Var(var) => {
                    let value = var.read(ctx).unwrap_or(Cow::Borrowed(""));
                    escape(out, &value, self.escape);
                }
            }
        }
    }
}

/// The name at the beginning, of `name` or `{name}`, and what follows it.
fn variable(text: &str) -> (&str, &str) {
    if let Some((name, rest)) = text.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return (name, rest);
    }
    let end = text.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_').unwrap_or(text.len());
    text.split_at(end)
}

fn escape(out: &mut Vec<u8>, value: &str, escape: Escape) {
    let harmless = |b: &u8| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    match escape {
        Escape::Default if value.is_empty() => out.push(b'-'),
        _ if value.bytes().all(|byte| harmless(&byte)) => out.extend_from_slice(value.as_bytes()),
        Escape::None => out.extend_from_slice(&byte_text::write(value)),
        Escape::Default => {
            for byte in &*byte_text::write(value) {
                if harmless(byte) {
                    out.push(*byte);
                } else {
                    let _ = write!(out, "\\x{byte:02X}");
                }
            }
        }
        Escape::Json => {
            for &byte in &*byte_text::write(value) {
                match byte {
                    b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                    b'\n' => out.extend_from_slice(b"\\n"),
                    b'\r' => out.extend_from_slice(b"\\r"),
                    b'\t' => out.extend_from_slice(b"\\t"),
                    0..0x20 => {
                        let _ = write!(out, "\\u{byte:04X}");
                    }
                    _ => out.push(byte),
                }
            }
        }
    }
}

/// The lines of one worker that have not been handed over yet.
#[derive(Default)]
pub struct Buffer {
    lines: Vec<u8>,
    sink: Option<Sink>,
}

impl Buffer {
    /// Hands lines to `sink` from now on.
    pub fn set_sink(&mut self, sink: Option<Sink>) {
        self.flush();
        self.sink = sink;
    }

    /// Adds a request's line.
    pub fn write(&mut self, format: &Format, ctx: &Ctx) {
        format.write(&mut self.lines, ctx);
        if self.lines.len() >= format.block {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let capacity = self.lines.capacity();
        let block = std::mem::replace(&mut self.lines, Vec::with_capacity(capacity));
        if let Some(sink) = &self.sink {
            sink.send(block);
        }
    }
}

/// Where blocks of lines go.
#[derive(Clone)]
pub struct Sink {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Block(Vec<u8>),
    Reopen,
}

impl Sink {
    fn send(&self, block: Vec<u8>) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Block(block)) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Opens the file anew, after it has been moved away (SIGUSR1).
    pub fn reopen(&self) {
        let _ = self.sender.try_send(Message::Reopen);
    }

    /// Blocks that were lost because the file took no more.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// The thread that writes a file. It ends when the last [`Sink`] is gone.
pub struct Writer {
    path: PathBuf,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Opens `path` to append to it.
    pub fn open(path: &Path) -> std::io::Result<(Self, Sink)> {
        let file = open(path)?;
        let (sender, messages) = sync_channel(1024);
        let path = path.to_owned();
        let thread = {
            let path = path.clone();
            std::thread::Builder::new()
                .name("access-log".into())
                .spawn(move || write_all(&path, file, &messages))?
        };
        Ok((Self { path, thread }, Sink { sender, dropped: Arc::default() }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until everything is written. Every [`Sink`] must be gone.
    pub fn finish(self) {
        let _ = self.thread.join();
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_all(path: &Path, mut file: File, messages: &Receiver<Message>) {
    let mut failing = false;
    for message in messages {
        let done = match message {
            Message::Block(block) => file.write_all(&block),
            Message::Reopen => open(path).map(|opened| file = opened),
        };
        if let Err(error) = &done
            && !failing
        {
            tracing::warn!(%error, path = %path.display(), "the access log can't be written");
        }
        failing = done.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_as_nginx_does() {
        let escaped = |value: &str, how| {
            let mut out = Vec::new();
            escape(&mut out, value, how);
            String::from_utf8_lossy(&out).into_owned()
        };
        assert_eq!(escaped("", Escape::Default), "-");
        assert_eq!(escaped("a\"b\\\x01\u{10FFFF}", Escape::Default), "a\\x22b\\x5C\\x01\\xFF");
        assert_eq!(escaped("", Escape::Json), "");
        assert_eq!(escaped("a\"\\\n\u{1}é", Escape::Json), "a\\\"\\\\\\n\\u0001é");
        assert_eq!(escaped("\"", Escape::None), "\"");
    }

    #[test]
    fn a_format_is_texts_and_variables() {
        let texts = |text| {
            let format = Format::new(text, Escape::Default, 0);
            format
                .parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.to_string(),
                    Part::Var(_) => "VAR".to_owned(),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(texts("$a - ${b}c$ d"), ["VAR", " - ", "VAR", "c$", " d\n"]);
        assert!(Format::new("$sent_http_x", Escape::Json, 0).reads_response_head());
        assert!(!Format::new(DEFAULT_FORMAT, Escape::Default, 0).reads_response_head());
        let format = Format::new("$status $statuss $proxy_protocol_addr ${none}", Escape::Default, 0);
        assert_eq!(format.unknown().collect::<Vec<_>>(), ["statuss", "none"]);
        assert_eq!(Format::new(DEFAULT_FORMAT, Escape::Default, 0).unknown().count(), 0);
    }

    #[test]
    fn blocks_reach_the_file_and_a_moved_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (writer, sink) = Writer::open(&path).unwrap();
        let mut buffer = Buffer::default();
        buffer.set_sink(Some(sink.clone()));
        buffer.lines.extend_from_slice(b"one\n");
        buffer.flush();
        let moved = folder.path().join("access.log.1");
        let line = || std::fs::read_to_string(&path).unwrap_or_default();
        while line() != "one\n" {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &moved).unwrap();
        sink.reopen();
        buffer.lines.extend_from_slice(b"two\n");
        buffer.set_sink(None);
        drop(sink);
        writer.finish();
        assert_eq!(line(), "two\n");
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "one\n");
    }
}
