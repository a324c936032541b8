//! A connection that has left HTTP: WebSocket and other upgrades, bytes both ways.
//!
//! The rule to know: either side may end its direction alone; the tunnel ends with both directions, or when nothing
//! moves for as long as the upstream may be silent.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};

use super::{
    client::Client,
    exchange::Exchange,
    io::{Downstream, Upstream},
};

/// Bytes moved at once.
const BUFFER: usize = 16 * 1024;

/// The upstream's end, waiting for the client's.
pub struct Tunnel {
    pub upstream: Upstream,
    /// What the upstream had sent already.
    pub early: Bytes,
    pub silence: Duration,
    /// Ends, and is logged, with the tunnel.
    pub exchange: Box<Exchange>,
}

impl Tunnel {
    /// Moves bytes until both directions have ended. `early` is what the client had sent already.
    pub async fn run(self, downstream: Downstream, early: Bytes, client: &Client) {
        let Self { upstream, early: answer, silence, mut exchange } = self;
        let (client_read, client_write) = split(downstream);
        let (upstream_read, upstream_write) = split(upstream);
        let moved = Cell::new(Instant::now());
        let received = Cell::new(0);
        let sent = Cell::new(0);
        let both = async {
            let up = copy(client_read, upstream_write, early, &received, &moved);
            let down = copy(upstream_read, client_write, answer, &sent, &moved);
            tokio::join!(up, down);
        };
        let silent = async {
            loop {
                let idle = moved.get().elapsed();
                if idle >= silence || client.worker.is_over() {
                    return;
                }
                tokio::time::sleep((silence - idle).min(Duration::from_secs(1))).await;
            }
        };
        tokio::select! {
            () = both => {}
            () = silent => {}
        }
        exchange.tunnelled(received.get(), sent.get());
    }
}

/// Moves one direction to its end, then says so to the other side.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    early: Bytes,
    count: &Cell<u64>,
    moved: &Cell<Instant>,
) {
    let mut buffer = vec![0; BUFFER];
    let note = |bytes: usize| {
        count.set(count.get() + bytes as u64);
        moved.set(Instant::now());
    };
    if !early.is_empty() {
        if to.write_all(&early).await.is_err() || to.flush().await.is_err() {
            return;
        }
        note(early.len());
    }
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..read]).await.is_err() || to.flush().await.is_err() {
            return;
        }
        note(read);
    }
    let _ = to.shutdown().await;
}
