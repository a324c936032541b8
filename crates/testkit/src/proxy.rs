//! A TCP proxy that is the bad network: put it between two parts and break the line while they talk.
//!
//! The one rule: faults are a value. [`FaultProxy::set`] replaces it, and every connection, old and new, acts on
//! it from its next byte on.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::background::{Task, handle};
use crate::ports;

const CHUNK: usize = 16 * 1024;

/// What is wrong with the line. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Every piece of data arrives this much later, each way.
    pub delay: Duration,
    /// No more than this many bytes a second, each way of each connection.
    pub bytes_per_second: Option<u64>,
    /// Connecting works, and nothing gets through, either way, until that is over. What was sent meanwhile then arrives.
    pub black_hole: bool,
    /// Connecting is refused. Open connections go on.
    pub refuse: bool,
    /// Ends a connection after this many bytes from the client.
    pub cut_request_after: Option<u64>,
    /// Ends a connection after this many bytes from the server.
    pub cut_response_after: Option<u64>,
    /// Ends connections by a reset instead of a close.
    pub by_reset: bool,
}

/// A running proxy; stops with its handle.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    target: SocketAddr,
    faults: watch::Sender<Faults>,
    counts: Arc<Counts>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    listener: Option<Task>,
    /// Changing it ends every connection by a reset; dropping it ends them too.
    reset: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    open: AtomicU64,
    requested: AtomicU64,
    responded: AtomicU64,
}

/// What a connection needs to know.
#[derive(Clone)]
struct Line {
    target: SocketAddr,
    faults: watch::Receiver<Faults>,
    reset: watch::Receiver<()>,
    counts: Arc<Counts>,
}

impl FaultProxy {
    /// Starts one before `target`, on a port of its own, with nothing wrong.
    pub fn start(target: SocketAddr) -> Self {
        let (faults, _) = watch::channel(Faults::default());
        let counts = Arc::default();
        let proxy = Self { address: ports::address(), target, faults, counts, running: Mutex::default() };
        proxy.listen();
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address of a path behind it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Replaces what is wrong.
    pub fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
        let closed = self.running.lock().unwrap().as_ref().is_none_or(|running| running.listener.is_none());
        if faults.refuse {
            self.close();
        } else if closed {
            self.listen();
        }
    }

    /// Refuses connections and resets the open ones: the server's machine is up, its process is dead.
    pub fn kill(&self) {
        self.set(Faults { refuse: true, ..Faults::default() });
        self.reset();
    }

    /// Lets nothing through any more: the server's machine is off, or a firewall drops.
    pub fn black_hole(&self) {
        self.set(Faults { black_hole: true, ..Faults::default() });
    }

    /// Nothing is wrong any more.
    pub fn heal(&self) {
        self.set(Faults::default());
    }

    /// Resets every open connection.
    pub fn reset(&self) {
        if let Some(running) = self.running.lock().unwrap().as_ref() {
            running.reset.send_replace(());
        }
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Bytes forwarded to the server so far.
    pub fn requested_bytes(&self) -> u64 {
        self.counts.requested.load(Ordering::Relaxed)
    }

    /// Bytes forwarded to the client so far.
    pub fn responded_bytes(&self) -> u64 {
        self.counts.responded.load(Ordering::Relaxed)
    }

    fn listen(&self) {
        let listener =
            ports::listen(self.address).unwrap_or_else(|error| panic!("{}: {error}", self.address));
        let _context = handle().enter();
        let listener = TcpListener::from_std(listener).expect("a listener for tokio");
        let mut running = self.running.lock().unwrap();
        let reset = running.take().map_or_else(|| watch::channel(()).0, |running| running.reset);
        let line = Line {
            target: self.target,
            faults: self.faults.subscribe(),
            reset: reset.subscribe(),
            counts: self.counts.clone(),
        };
        *running = Some(Running { listener: Some(Task::spawn(accept(listener, line))), reset });
    }

    fn close(&self) {
        let listener = self.running.lock().unwrap().as_mut().and_then(|running| running.listener.take());
        if let Some(listener) = listener {
            listener.stop();
        }
    }
}

async fn accept(listener: TcpListener, line: Line) {
    while let Ok((client, _)) = listener.accept().await {
        line.counts.connections.fetch_add(1, Ordering::Relaxed);
        let mut line = line.clone();
        line.reset.mark_unchanged();
        // Not a child of this task: connections go on when connecting is refused.
        handle().spawn(line.carry(client));
    }
}

impl Line {
    /// One connection, from accept to end.
    async fn carry(self, mut client: TcpStream) {
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        let mut reset = self.reset.clone();
        let by_reset = tokio::select! {
            end = self.join(&mut client) => end.is_err() && self.faults.borrow().by_reset,
            _ = reset.changed() => true,
        };
        if by_reset {
            let _ = client.set_zero_linger();
        }
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn join(&self, client: &mut TcpStream) -> io::Result<()> {
        passable(&mut self.faults.clone()).await?;
        let mut server = TcpStream::connect(self.target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = pump(
            from_client,
            to_server,
            self.faults.clone(),
            |f| f.cut_request_after,
            &self.counts.requested,
        );
        let back = pump(
            from_server,
            to_client,
            self.faults.clone(),
            |f| f.cut_response_after,
            &self.counts.responded,
        );
        tokio::try_join!(there, back).map(|_| ())
    }
}

/// Carries one direction of a connection until its end; an error ends the other direction too.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Faults>,
    cut_after: fn(&Faults) -> Option<u64>,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut passed = 0;
    loop {
        let read = from.read(&mut buffer).await?;
        let delay = faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        passable(&mut faults).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let now = *faults.borrow();
            let left =
                cut_after(&now).map(|after| usize::try_from(after - passed.min(after)).unwrap_or(usize::MAX));
            // At a limited rate, in steps of a twentieth of a second.
            let step = now.bytes_per_second.map(|rate| usize::try_from(rate / 20).unwrap_or(CHUNK).max(1));
            let length = rest.len().min(left.unwrap_or(CHUNK)).min(step.unwrap_or(CHUNK));
            if let Some(rate) = now.bytes_per_second {
                tokio::time::sleep(Duration::from_secs_f64(length as f64 / rate as f64)).await;
            }
            to.write_all(&rest[..length]).await?;
            passed += length as u64;
            count.fetch_add(length as u64, Ordering::Relaxed);
            rest = &rest[length..];
            if left == Some(length) {
                return Err(io::Error::other("cut, as ordered"));
            }
        }
    }
}

/// Waits while the line is a black hole.
async fn passable(faults: &mut watch::Receiver<Faults>) -> io::Result<()> {
    faults.wait_for(|faults| !faults.black_hole).await.map(|_| ()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
