//! The HTTP listeners of the control plane and of status: not the proxy's, which the engine has.
//!
//! The rule to know: a listening socket outlives the settings. A reload swaps what is served behind it; connections
//! of before finish what they are at, and their next answer, from what is served then, says that it is the last.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{BoxError, Router, body::Body, extract::ConnectInfo};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Version, header};
use http_body_util::BodyExt as _;
use hyper::{
    Request,
    body::{Body as _, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// How long a connection may finish its request after what it was served by is gone.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request's head may be waited for, and each next piece of its body: nginx's `client_header_timeout` and
/// `client_body_timeout`.
const PATIENCE: Duration = Duration::from_secs(60);

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
                let caller = Caller { peer, newest: generation.clone(), closed: closed.clone() };
                connections.spawn(caller.greet(stream));
            }
            Err(error) => {
                // Out of file descriptors, mostly: the listener itself is sound.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Who is at the other end of a connection, and what it may be served.
struct Caller {
    peer: SocketAddr,
    newest: Arc<ArcSwap<Generation>>,
    closed: CancellationToken,
}

impl Caller {
    async fn greet(self, stream: tokio::net::TcpStream) {
        let tls = self.newest.load().site.tls.clone();
        match tls {
            None => self.converse(stream).await,
            Some(tls) => {
                let handshake = tokio_rustls::TlsAcceptor::from(tls).accept(stream);
                match tokio::time::timeout(HANDSHAKE, handshake).await {
                    Ok(Ok(stream)) => self.converse(stream).await,
                    Ok(Err(error)) => {
                        tracing::debug!(peer = %self.peer, %error, "no TLS connection came about");
                    }
                    Err(_) => tracing::debug!(peer = %self.peer, "a TLS handshake took too long"),
                }
            }
        }
    }

    async fn converse<S>(self, stream: S)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let over = self.newest.load().over.clone();
        let (http2, begun) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let (peer, newest, last, seen) = (self.peer, self.newest, over.clone(), http2.clone());
        let asked = begun.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            asked.cancel();
            let mut request = impatient(request);
            let is_http2 = request.version() == Version::HTTP_2;
            seen.store(is_http2, Ordering::Relaxed);
            // As `into_make_service_with_connect_info` does for axum's own listeners.
            request.extensions_mut().insert(ConnectInfo(peer));
            let (answer, last) = (newest.load().site.router.clone().oneshot(request), last.clone());
            async move {
                let mut answer = answer.await?;
                if last.is_cancelled() && !is_http2 {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            // Until it knows what is spoken, hyper waits for ever.
            () = unless(&begun) => return,
            () = over.cancelled() => {}
        }
        // HTTP/2 can say so itself. Closed while it is idle, an HTTP/1.1 connection could cost its client a request.
        if http2.load(Ordering::Relaxed) || self.closed.is_cancelled() {
            connection.as_mut().graceful_shutdown();
        }
        // A watch never ends by itself: the data plane comes back to what is served now.
        tokio::select! {
            _ = tokio::time::timeout(FAREWELL, connection.as_mut()) => return,
            () = self.closed.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ = tokio::time::timeout(FAREWELL, connection).await;
    }
}

/// Comes about when there was no first request in time.
async fn unless(begun: &CancellationToken) {
    if tokio::time::timeout(PATIENCE, begun.cancelled()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// The request with a body that fails when the client is silent for too long. A stream of gRPC may be.
fn impatient(request: Request<Incoming>) -> Request<Body> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return request.map(Body::new);
    }
    request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::from_stream(pieces(body)) })
}

fn pieces(body: Incoming) -> impl Stream<Item = Result<Bytes, BoxError>> {
    futures_util::stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        loop {
            match tokio::time::timeout(PATIENCE, body.frame()).await {
                Err(_) => {
                    let silent = format!("nothing came for {} s", PATIENCE.as_secs());
                    return Some((Err(silent.into()), None));
                }
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some((Err(error.into()), None)),
                Ok(Some(Ok(frame))) => {
                    // Trailers mean nothing here.
                    if let Ok(data) = frame.into_data() {
                        return Some((Ok(data), Some(body)));
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn plain() -> Site {
        Site { router: Router::new().route("/", get(|| async { "yes" })), tls: None }
    }

    /// What comes back on a connection that says this and no more, and how long after.
    async fn silence(address: SocketAddr, said: &str) -> (Duration, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let begun = tokio::time::Instant::now();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        (begun.elapsed(), answer)
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_more_is_let_go() {
        let echo = async |body: Bytes| body;
        let router = Router::new().route("/", get(async || "yes").post(echo));
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), false, Site { router, tls: None }).unwrap();
        for (said, status) in [
            ("", ""),
            ("P", ""),
            ("GET / HTTP/1.1\r\nHost: a\r\n", ""),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{", "400"),
        ] {
            let (waited, answer) = silence(server.address(), said).await;
            let expected = PATIENCE..PATIENCE + Duration::from_secs(5);
            assert!(expected.contains(&waited), "{said:?}: {waited:?} {answer}");
            assert_eq!(answer.split(' ').nth(1).unwrap_or_default(), status, "{said:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn an_address_of_another_process_is_not_shared() {
        let theirs = Server::bind("127.0.0.1:0".parse().unwrap(), false, plain()).unwrap();
        let error = Server::bind(theirs.address(), false, plain()).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    }
}
