//! HTTP/2 connections to upstream nodes, of one worker, each shared by many requests.
//!
//! The rule to know: a connection leaves the pool when it takes no more requests (its node said so, it is used up, or
//! somebody waited in vain on it) and is closed by the last request on it. Whoever needs one while another is being
//! made waits for that.

use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Instant};

use bytes::Bytes;
use futures_util::future::{FutureExt as _, LocalBoxFuture, Shared, WeakShared};
use h2::client::{Builder, SendRequest};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::task::spawn_local;

use super::super::io::Upstream as Stream;
use crate::upstream::{Keepalive, pool::Key};

/// What a node may send on one stream before it is taken: it is all that is kept of a stream nobody reads.
const STREAM_WINDOW: u32 = 128 * 1024;
/// As much as there is: one stream that nobody reads must not hold up the others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// So much of a stream is kept until the socket takes it.
const SEND_BUFFER: usize = 64 * 1024;
/// The longest head and trailers of an answer.
const MAX_HEAD: u32 = 64 * 1024;

/// A connection that is being made, and what comes of it for all who wait.
pub type Dial = Shared<LocalBoxFuture<'static, Result<Rc<Lane>, Rc<io::Error>>>>;
type WeakDial = WeakShared<LocalBoxFuture<'static, Result<Rc<Lane>, Rc<io::Error>>>>;

/// One connection.
pub struct Lane {
    sender: SendRequest<Bytes>,
    pub address: SocketAddr,
    streams: Cell<usize>,
    /// Streams it has had, those that are open included.
    opened: Cell<u64>,
    /// As the last upstream that used it has it.
    keepalive: Cell<Keepalive>,
    idle_since: Cell<Instant>,
    retired: Cell<bool>,
}

impl Lane {
    /// Speaks HTTP/2 on a stream that has just been connected.
    pub async fn open(stream: Stream, address: SocketAddr) -> io::Result<Rc<Self>> {
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEAD)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        let lane = Rc::new(Self {
            sender,
            address,
            streams: Cell::new(0),
            opened: Cell::new(0),
            keepalive: Cell::new(Keepalive::default()),
            idle_since: Cell::new(Instant::now()),
            retired: Cell::new(false),
        });
        // It must not hold the lane: the connection ends when nobody else does.
        let held = Rc::downgrade(&lane);
        spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %address, "connection to an upstream ended");
            }
            if let Some(lane) = held.upgrade() {
                lane.retire();
            }
        });
        Ok(lane)
    }

    /// Takes no more requests; those on it go on.
    pub fn retire(&self) {
        self.retired.set(true);
    }

    pub fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// Whether nobody uses it now.
    pub fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    fn has_room(&self) -> bool {
        !self.is_retired() && self.streams.get() < self.sender.current_max_send_streams()
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.is_idle() && now.duration_since(self.idle_since.get()) >= self.keepalive.get().idle_timeout
    }
}

/// One stream's place on a lane.
pub struct Place(Rc<Lane>);

impl Place {
    pub fn take(lane: Rc<Lane>, keepalive: Keepalive) -> Self {
        lane.streams.set(lane.streams.get() + 1);
        lane.opened.set(lane.opened.get() + 1);
        lane.keepalive.set(keepalive);
        if lane.opened.get() >= keepalive.requests {
            lane.retire();
        }
        Self(lane)
    }

    /// What opens the stream.
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.0.sender.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.idle_since.set(Instant::now());
    }
}

/// All lanes of a worker.
#[derive(Default)]
pub struct Lanes {
    nodes: FxHashMap<Key, Node>,
}

#[derive(Default)]
struct Node {
    open: SmallVec<[Rc<Lane>; 1]>,
    dial: Option<WeakDial>,
}

impl Lanes {
    /// A lane with room for another request.
    pub fn find(&mut self, key: &Key) -> Option<Rc<Lane>> {
        let node = self.nodes.get_mut(key)?;
        node.open.retain(|lane| !lane.is_retired());
        node.open.iter().find(|lane| lane.has_room()).map(Rc::clone)
    }

    /// The lane that is being made, or else one that `connect` makes.
    pub fn dial(
        &mut self,
        key: &Key,
        connect: impl FnOnce() -> LocalBoxFuture<'static, Result<Rc<Lane>, Rc<io::Error>>>,
    ) -> Dial {
        let node = self.nodes.entry(key.clone()).or_default();
        // One that has been made is in the pool.
        let under_way = node.dial.as_ref().and_then(WeakShared::upgrade).filter(|dial| dial.peek().is_none());
        under_way.unwrap_or_else(|| {
            let dial = connect().shared();
            node.dial = dial.downgrade();
            dial
        })
    }

    pub fn add(&mut self, key: Key, lane: Rc<Lane>) {
        self.nodes.entry(key).or_default().open.push(lane);
    }

    /// Drops what nobody has used for long, or will use again.
    pub fn sweep(&mut self, now: Instant) {
        self.nodes.retain(|_, node| {
            let mut idle = 0;
            node.open.retain(|lane| {
                idle += usize::from(lane.is_idle());
                let spare = lane.is_idle() && idle > lane.keepalive.get().size;
                !lane.is_retired() && !lane.is_expired(now) && !spare
            });
            !node.open.is_empty() || node.dial.as_ref().is_some_and(|dial| dial.upgrade().is_some())
        });
    }
}
