//! A connection that has left HTTP: WebSocket and other upgrades, bytes both ways.
//!
//! The rule to know: either side may end its direction alone; the tunnel ends with both directions, or when nothing
//! moves for as long as the upstream may be silent, or when either side does not take what the other sends.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};

use super::{
    client::Client,
    exchange::Exchange,
    h1::Limits,
    io::{Downstream, Upstream},
    pubsub,
};

/// Bytes moved at once.
const BUFFER: usize = 16 * 1024;
/// How often is looked whether the worker has ended, or a direction has got stuck.
const LOOK: Duration = Duration::from_secs(1);

/// What becomes of a connection from a client that has left HTTP.
pub enum Onward {
    Tunnel(Tunnel),
    Messages(pubsub::Session),
}

impl Onward {
    /// Serves it to its end. `early` is what the client had sent already.
    pub async fn run(self, downstream: Downstream, early: Bytes, client: &Client) {
        match self {
            Self::Tunnel(tunnel) => tunnel.run(downstream, early, client).await,
            Self::Messages(session) => session.run(downstream, early, client).await,
        }
    }
}

/// The upstream's end, waiting for the client's.
pub struct Tunnel {
    pub upstream: Upstream,
    /// What the upstream had sent already.
    pub early: Bytes,
    pub limits: Limits,
    /// Ends, and is logged, with the tunnel.
    pub exchange: Box<Exchange>,
}

impl Tunnel {
    /// Moves bytes until both directions have ended.
    async fn run(self, downstream: Downstream, early: Bytes, client: &Client) {
        let Self { upstream, early: answer, limits, mut exchange } = self;
        let (client_read, client_write) = split(downstream);
        let (upstream_read, upstream_write) = split(upstream);
        let moved = Cell::new(Instant::now());
        let (up, down) = (Way::default(), Way::default());
        let both = async {
            let up = up.copy(client_read, upstream_write, early, &moved);
            let down = down.copy(upstream_read, client_write, answer, &moved);
            tokio::join!(up, down);
        };
        let over = async {
            let until = |since: Option<Instant>, limit: Duration| {
                since.map_or(Duration::MAX, |since| limit.saturating_sub(since.elapsed()))
            };
            loop {
                let left = until(Some(moved.get()), limits.read)
                    .min(until(up.blocked.get(), limits.send))
                    .min(until(down.blocked.get(), client.worker.config().timeouts.send));
                if left.is_zero() || client.worker.is_over() {
                    return;
                }
                tokio::time::sleep(left.min(LOOK)).await;
            }
        };
        tokio::select! {
            () = both => {}
            () = over => {}
        }
        exchange.tunnelled(up.count.get(), down.count.get());
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Bytes moved.
    count: Cell<u64>,
    /// Since when the receiver has taken nothing of what waits for it.
    blocked: Cell<Option<Instant>>,
}

impl Way {
    /// Moves it to its end, then says so to the other side.
    async fn copy(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        early: Bytes,
        moved: &Cell<Instant>,
    ) {
        let mut buffer = vec![0; BUFFER];
        if !early.is_empty() && self.write(&mut to, &early, moved).await.is_err() {
            return;
        }
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            moved.set(Instant::now());
            if self.write(&mut to, &buffer[..read], moved).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }

    async fn write(
        &self,
        to: &mut (impl AsyncWrite + Unpin),
        mut bytes: &[u8],
        moved: &Cell<Instant>,
    ) -> std::io::Result<()> {
        while !bytes.is_empty() {
            self.blocked.set(Some(Instant::now()));
            let written = to.write(bytes).await?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
            self.count.set(self.count.get() + written as u64);
            moved.set(Instant::now());
        }
        to.flush().await?;
        self.blocked.set(None);
        Ok(())
    }
}
