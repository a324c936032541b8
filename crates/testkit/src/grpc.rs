//! A gRPC server that echoes and misbehaves on command, and a client of it. Both speak through tonic.
//!
//! | method | answers |
//! |---|---|
//! | `Talk` | each note as it comes, as often as it says; the first one alone where the client sends no more |
//! | `Collect` | one note of all that came, once the client has sent the last |
//! | `Refuse` | a status, and no message at all |
//! | `Ignore` | nothing, ever |
//!
//! A note may be an order: `fail CODE`, `wait MS`, `hang`. Unary calls and streams of either side are all calls of `Talk`
//! or `Collect`: on the wire they are the same.

mod client;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::HeaderMap;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::background::{Task, handle};
use crate::ports;

pub use client::{Client, Talk};

/// The service's name, as paths begin with.
pub const SERVICE: &str = "/keel.Notes";

/// A message, either way.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Note {
    #[prost(string, tag = "1")]
    pub text: String,
    /// How often it is echoed.
    #[prost(uint32, tag = "2")]
    pub times: u32,
}

impl Note {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), times: 1 }
    }
}

/// A running server; stops with its handle.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: Arc<Shared>,
    running: Mutex<Option<Task>>,
}

#[derive(Debug)]
struct Shared {
    connections: AtomicU64,
    open: AtomicU64,
    calls: AtomicU64,
    under_way: AtomicU64,
    heads: Mutex<Vec<HeaderMap>>,
    max_streams: Mutex<Option<u32>>,
    /// Changes when connections are to take no further calls.
    farewell: watch::Sender<()>,
}

impl Server {
    pub fn start() -> Self {
        Self::run(None)
    }

    /// One that speaks TLS.
    pub fn tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::run(Some(config))
    }

    fn run(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let shared = Arc::new(Shared {
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            heads: Mutex::default(),
            max_streams: Mutex::default(),
            farewell: watch::channel(()).0,
        });
        let server = Self { address: ports::address(), tls, shared, running: Mutex::default() };
        server.restart();
        server
    }

    /// `host:port`, as in an upstream's nodes.
    pub fn node(&self) -> String {
        self.address.to_string()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and every connection.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.stop();
        }
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

    /// Says GOAWAY on every connection; calls that are under way go on.
    pub fn say_goodbye(&self) {
        self.shared.farewell.send_replace(());
    }

    /// How many calls new connections take at once.
    pub fn limit_streams(&self, max: u32) {
        *self.shared.max_streams.lock().unwrap() = Some(max);
    }

    /// How many connections were opened to it since it was made.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// How many calls have come since it was made.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// How many calls have neither been answered to their end nor been cancelled.
    pub fn under_way(&self) -> u64 {
        self.shared.under_way.load(Ordering::Relaxed)
    }

    /// The head of the newest call, with `:authority` and `:path` by these names.
    #[track_caller]
    pub fn last(&self) -> HeaderMap {
        self.shared.heads.lock().unwrap().last().cloned().expect("a call has come")
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        connections.spawn(connection(stream, acceptor.clone(), shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let _open = Counted::one(shared.clone(), |shared| &shared.open);
    match acceptor {
        None => serve(stream, shared).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, shared).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, shared: Arc<Shared>) {
    let mut farewell = shared.farewell.subscribe();
    let limit = *shared.max_streams.lock().unwrap();
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(request, shared).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    if let Some(limit) = limit {
        builder.max_concurrent_streams(limit);
    }
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // An error here is a client that went away.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = farewell.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer(request: http::Request<Incoming>, shared: Arc<Shared>) -> http::Response<tonic::body::Body> {
    shared.calls.fetch_add(1, Ordering::Relaxed);
    let mut head = request.headers().clone();
    for (name, value) in [
        ("authority", request.uri().authority().map_or("", |authority| authority.as_str())),
        ("path", request.uri().path()),
        ("scheme", request.uri().scheme_str().unwrap_or_default()),
    ] {
        head.insert(name, value.parse().expect("text that came in a head"));
    }
    shared.heads.lock().unwrap().push(head);
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let call = Call { method, under_way: Some(Counted::one(shared, |shared| &shared.under_way)) };
    tonic::server::Grpc::new(ProstCodec::<Note, Note>::default()).streaming(call, request).await
}

/// One call, of whatever method.
struct Call {
    method: String,
    under_way: Option<Counted>,
}

impl Service<Request<Streaming<Note>>> for Call {
    type Response = Response<ReceiverStream<Result<Note, Status>>>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        let (method, under_way) = (self.method.clone(), self.under_way.take());
        Box::pin(async move {
            let notes = request.into_inner();
            let (sender, receiver) = mpsc::channel(1);
            match method.as_str() {
                "Talk" => drop(handle().spawn(talk(notes, sender, under_way))),
                "Collect" => drop(handle().spawn(collect(notes, sender, under_way))),
                "Ignore" => {
                    let _under_way = under_way;
                    return std::future::pending().await;
                }
                "Refuse" => return Err(Status::resource_exhausted("told to")),
                other => return Err(Status::unimplemented(other.to_owned())),
            }
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

type Answers = mpsc::Sender<Result<Note, Status>>;

async fn talk(mut notes: Streaming<Note>, answers: Answers, _under_way: Option<Counted>) {
    loop {
        let note = tokio::select! {
            note = notes.message() => note,
            () = answers.closed() => return,
        };
        let Ok(Some(note)) = note else { return };
        if let Err(status) = obey(&note, &answers).await {
            let _ = answers.send(Err(status)).await;
            return;
        }
        for _ in 0..note.times {
            if answers.send(Ok(note.clone())).await.is_err() {
                return;
            }
        }
    }
}

async fn collect(mut notes: Streaming<Note>, answers: Answers, _under_way: Option<Counted>) {
    let mut all = Note::new("");
    while let Ok(Some(note)) = notes.message().await {
        all.text.push_str(&note.text);
        all.times += 1;
    }
    let _ = answers.send(Ok(all)).await;
}

/// Does what a note orders.
async fn obey(note: &Note, answers: &Answers) -> Result<(), Status> {
    let (order, number) = note.text.split_once(' ').unwrap_or((&note.text, ""));
    match (order, number.parse::<u32>()) {
        ("fail", Ok(code)) => Err(Status::new(Code::from(i32::try_from(code).unwrap_or(2)), "as ordered")),
        ("wait", Ok(ms)) => {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(ms.into())) => Ok(()),
                () = answers.closed() => Err(Status::cancelled("the client has gone")),
            }
        }
        ("hang", _) => {
            answers.closed().await;
            Err(Status::cancelled("the client has gone"))
        }
        _ => Ok(()),
    }
}

/// Counts something for as long as it lives.
struct Counted {
    shared: Arc<Shared>,
    which: fn(&Shared) -> &AtomicU64,
}

impl Counted {
    fn one(shared: Arc<Shared>, which: fn(&Shared) -> &AtomicU64) -> Self {
        which(&shared).fetch_add(1, Ordering::Relaxed);
        Self { shared, which }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.shared).fetch_sub(1, Ordering::Relaxed);
    }
}
