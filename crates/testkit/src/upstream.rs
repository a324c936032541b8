//! Something to proxy to: a small httpbin that remembers what it was asked and misbehaves on command.
//!
//! | path | answers |
//! |---|---|
//! | `/ip`, `/get`, `/headers`, `/anything…` | what httpbin answers, as JSON |
//! | `/status/N` | status N |
//! | `/delay/S` | as `/get`, after S seconds (fractions too) |
//! | `/bytes/N` | N bytes |
//! | `/stream/N?ms=M` | N lines, chunked, M ms apart |
//! | `/echo` | the request's body, as it arrives |
//! | `/ws` | a WebSocket that echoes |
//!
//! Every answer names its server in `x-upstream`. HTTP/1.1 and HTTP/2 (by ALPN, or by prior knowledge) are spoken
//! on the same port.

mod answer;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::background::{Task, handle};
use crate::ports;

/// Only the newest requests are kept, so that load does not fill the memory.
const REMEMBERED: usize = 10_000;

/// How an upstream treats the requests that come from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// As the path asks.
    #[default]
    Answer,
    /// This status to everything.
    Status(u16),
    /// As the path asks, after a while.
    Slow(Duration),
    /// No answer, ever; the connection stays open.
    Hang,
    /// Closes the connection after this many bytes of a body that promised more; 0: without a byte of an answer.
    Cut(usize),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    /// Empty for `/echo` and `/ws`, which do not wait for it.
    pub body: Bytes,
    /// Which connection of this upstream it came on, from 1.
    pub connection: u64,
}

impl Seen {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A running upstream; stops with its handle.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    running: Mutex<Option<Task>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    behaviour: Mutex<Behaviour>,
    seen: Mutex<VecDeque<Seen>>,
    requests: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    /// Changes when the upstream stops, for connections that are no longer HTTP.
    stopped: watch::Sender<()>,
}

impl Upstream {
    /// Starts one on a port of its own, named after the port.
    pub fn start() -> Self {
        let address = ports::address();
        Self::run(address.port().to_string(), address, None)
    }

    /// Starts one with a name, which it puts into `x-upstream`.
    pub fn named(name: &str) -> Self {
        Self::run(name.to_owned(), ports::address(), None)
    }

    /// Starts one that speaks TLS: see [`crate::certs::Pair::server_config`].
    pub fn tls(config: Arc<rustls::ServerConfig>) -> Self {
        let address = ports::address();
        Self::run(address.port().to_string(), address, Some(config))
    }

    fn run(name: String, address: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let shared = Arc::new(Shared {
            name,
            behaviour: Mutex::default(),
            seen: Mutex::default(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            stopped: watch::channel(()).0,
        });
        let upstream = Self { shared, address, tls, running: Mutex::default() };
        upstream.restart();
        upstream
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `host:port`, as in an upstream's nodes.
    pub fn node(&self) -> String {
        self.address.to_string()
    }

    /// The address of a path on it.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Changes how it treats requests from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// Closes the port and every connection: from now on connecting is refused.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.stop();
        }
        self.shared.stopped.send_replace(());
    }

    /// Opens the same port again.
    pub fn restart(&self) {
        self.stop();
        let listener =
            ports::listen(self.address).unwrap_or_else(|error| panic!("{}: {error}", self.address));
        let _context = handle().enter();
        let listener = TcpListener::from_std(listener).expect("a listener for tokio");
        let acceptor = self.tls.clone().map(TlsAcceptor::from);
        let task = Task::spawn(accept(listener, acceptor, self.shared.clone()));
        *self.running.lock().unwrap() = Some(task);
    }

    /// The newest requests, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().iter().cloned().collect()
    }

    /// The newest request.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.shared.seen.lock().unwrap().back().cloned().expect("the upstream has seen a request")
    }

    /// Forgets the requests seen so far.
    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
    }

    /// How many requests have come since it was made.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many connections were opened to it since it was made.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        connections.spawn(connection(stream, peer, acceptor.clone(), shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let _open = Open::new(shared.clone());
    match acceptor {
        None => serve(stream, peer, number, shared).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, peer, number, shared).await;
            }
        }
    }
}

async fn serve<S>(stream: S, peer: SocketAddr, number: u64, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { shared.answer(request, peer, number).await }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // An error here is a client that went away, or a cut that was ordered.
    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// Counts a connection for as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
