//! Clients of HTTP/2 that make work and want no answer: others are served meanwhile, and memory does not grow.
//!
//! The rule to know: a flood ends when its connection does, or when the gateway takes no more of it.

use std::time::Duration;

use serde_json::json;
use testkit::http::get;
use testkit::upstream::Upstream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{Node, to};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Method GET, scheme http, path /, authority a: RFC 7541.
const HEAD: &[u8] = b"\x82\x86\x84\x41\x01a";
/// What a node may need more for any of them. A connection's buffers and windows are far less.
const LITTLE: u64 = 32 << 20;

/// RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Sends `piece` after `piece`, as many as there are, reading nothing. Says how many bytes were taken.
async fn flood(node: &Node, mut piece: impl FnMut(u32) -> Vec<u8>, pieces: u32) -> usize {
    /// A gateway that takes nothing for so long takes no more.
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut stream = TcpStream::connect(("127.0.0.1", node.ports().http)).await.unwrap();
    let mut taken = 0;
    let mut batch = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    batch.extend(frame(SETTINGS, 0, 0, &[]));
    for number in 0..pieces {
        batch.extend(piece(number));
        if batch.len() < 64 << 10 && number + 1 < pieces {
            continue;
        }
        match timeout(PATIENCE, stream.write_all(&batch)).await {
            Ok(Ok(())) => taken += batch.len(),
            Ok(Err(_)) | Err(_) => break,
        }
        batch.clear();
    }
    assert_eq!(get(&node.url("/ip")).await.unwrap().status, 200);
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_notices() {
    let upstream = Upstream::start();
    let mut node = Node::with(json!({ "nginx_config": { "worker_processes": 1 } })).await;
    node.has(&[("routes/1", json!({ "uri": "/*", "upstream": to(&[&upstream]) }))]).await;
    assert_eq!(get(&node.url("/ip")).await.unwrap().status, 200);
    let before = node.gateway.process().resident_bytes();

    let reset = |number: u32| {
        let stream = 2 * number + 1;
        let mut piece = frame(HEADERS, END_HEADERS | END_STREAM, stream, HEAD);
        piece.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        piece
    };
    let taken = flood(&node, reset, 200_000).await;
    assert!(taken < 8 << 20, "{taken} bytes of requests that are taken back");
    flood(&node, |_| frame(SETTINGS, 0, 0, &[]), 500_000).await;
    flood(&node, |_| frame(PING, 0, 0, b"12345678"), 500_000).await;
    // A head without end: of fields that are kept, and of nothing at all.
    let field = [b"\x00\x04name\x7f\x80\x01".as_slice(), &[b'x'; 255]].concat().repeat(32);
    let endless = |number: u32| match number {
        0 => frame(HEADERS, END_STREAM, 1, HEAD),
        _ => frame(CONTINUATION, 0, 1, &field),
    };
    let taken = flood(&node, endless, 20_000).await;
    assert!(taken < 8 << 20, "{taken} bytes of one head");
    let hollow = |number: u32| match number {
        0 => frame(HEADERS, END_STREAM, 1, HEAD),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    let taken = flood(&node, hollow, 500_000).await;
    assert!(taken < 4 << 20, "{taken} bytes of nothing");
    // A body of empty pieces.
    let empty = |number: u32| match number {
        0 => frame(HEADERS, END_HEADERS, 1, HEAD),
        _ => frame(DATA, 0, 1, &[]),
    };
    flood(&node, empty, 500_000).await;

    let grown = node.gateway.process().resident_bytes().saturating_sub(before);
    assert!(grown < LITTLE, "{grown} bytes more than before");
}

#[tokio::test]
async fn who_floods_is_told_why() {
    let mut node = Node::start().await;
    let mut stream = TcpStream::connect(("127.0.0.1", node.ports().http)).await.unwrap();
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    all.extend(frame(SETTINGS, 0, 0, &[]));
    for number in 0..5_000 {
        all.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, HEAD));
        all.extend(frame(RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes()));
    }
    let _ = stream.write_all(&all).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // GOAWAY with ENHANCE_YOUR_CALM: RFC 9113, section 7.
    let calm = answer.windows(17).any(|at| at[3] == 7 && at[13..17] == 11_u32.to_be_bytes());
    assert!(calm, "{answer:?}");
    assert!(node.gateway.process().exited().is_none());
}
