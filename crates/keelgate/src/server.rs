//! The HTTP listeners of the control plane and of status: not the proxy's, which the engine has.
//!
//! The rule to know: a listening socket outlives the settings. A reload swaps what is served behind it; connections
//! of before finish what they are at and are closed.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{Extension, Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a connection may finish its request after what it was served by is gone.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long a TLS handshake or a request head may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A peer that vanished without a word is noticed: a watch may be silent for days.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(20));
/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 1024;

/// What is served behind a listener.
#[derive(Clone)]
pub struct Site {
    pub router: Router,
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// One listening socket and what is served behind it.
pub struct Server {
    address: SocketAddr,
    generation: Arc<ArcSwap<Generation>>,
    closed: CancellationToken,
    connections: TaskTracker,
}

struct Generation {
    site: Site,
    over: CancellationToken,
}

impl Server {
    /// Listens; port 0 takes a free one. `beside` another listener of ours on that port, where there is one.
    pub fn bind(address: SocketAddr, beside: bool, site: Site) -> std::io::Result<Self> {
        let socket = listen(address, beside)?;
        let address = socket.local_addr()?;
        let generation = Arc::new(ArcSwap::from_pointee(Generation { site, over: CancellationToken::new() }));
        let server =
            Self { address, generation, closed: CancellationToken::new(), connections: TaskTracker::new() };
        let listener = tokio::net::TcpListener::from_std(socket)?;
        tokio::spawn(accept(
            listener,
            server.generation.clone(),
            server.closed.clone(),
            server.connections.clone(),
        ));
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves something else from now on.
    pub fn replace(&self, site: Site) {
        let old = self.generation.swap(Arc::new(Generation { site, over: CancellationToken::new() }));
        old.over.cancel();
    }

    /// What is served now.
    pub fn router(&self) -> Router {
        self.generation.load().site.router.clone()
    }

    /// Serves another router from now on, with the certificates of before.
    pub fn reroute(&self, router: Router) {
        let tls = self.generation.load().site.tls.clone();
        self.replace(Site { router, tls });
    }

    /// Stops listening, lets connections finish for a moment, closes them.
    pub async fn close(&self) {
        self.closed.cancel();
        self.generation.load().over.cancel();
        self.connections.close();
        let _ = tokio::time::timeout(FAREWELL + Duration::from_secs(1), self.connections.wait()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closed.cancel();
        self.generation.load().over.cancel();
    }
}

/// Our own listeners may overlap while a reload goes from one address to the next; other processes' may not.
fn listen(address: SocketAddr, beside: bool) -> std::io::Result<TcpListener> {
    let socket = |shared: bool| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        std::io::Result::Ok(socket)
    };
    if !beside {
        drop(socket(false)?);
    }
    let socket = socket(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(
    listener: tokio::net::TcpListener,
    generation: Arc<ArcSwap<Generation>>,
    closed: CancellationToken,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
                connections.spawn(greet(stream, peer, generation.load_full()));
            }
            Err(error) => {
                // Out of file descriptors, mostly: the listener itself is sound.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn greet(stream: tokio::net::TcpStream, peer: SocketAddr, generation: Arc<Generation>) {
    match &generation.site.tls {
        // Whoever connects and says nothing is not waited for: hyper counts from the first byte.
        None => tokio::select! {
            said = tokio::time::timeout(HANDSHAKE, stream.readable()) => {
                if matches!(said, Ok(Ok(()))) {
                    converse(stream, peer, &generation).await;
                }
            }
            () = generation.over.cancelled() => {}
        },
        Some(tls) => {
            let handshake = tokio_rustls::TlsAcceptor::from(tls.clone()).accept(stream);
            match tokio::time::timeout(HANDSHAKE, handshake).await {
                Ok(Ok(stream)) => converse(stream, peer, &generation).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS connection came about"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            }
        }
    }
}

async fn converse<S>(stream: S, peer: SocketAddr, generation: &Generation)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    // As `into_make_service_with_connect_info` does for axum's own listeners.
    let service = generation.site.router.clone().layer(Extension(ConnectInfo(peer)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = generation.over.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // A watch never ends by itself: the data plane comes back to what is served now.
    let _ = tokio::time::timeout(FAREWELL, connection).await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    fn plain() -> Site {
        Site { router: Router::new().route("/", get(|| async { "yes" })), tls: None }
    }

    #[tokio::test]
    async fn an_address_of_another_process_is_not_shared() {
        let theirs = Server::bind("127.0.0.1:0".parse().unwrap(), false, plain()).unwrap();
        let error = Server::bind(theirs.address(), false, plain()).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    }
}
