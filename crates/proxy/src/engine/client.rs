//! One connection from a client: TLS, HTTP/1.1 or HTTP/2, its deadline, and its end.
//!
//! The rule to know: a connection outlives configurations. It serves each request by the plan in force when the
//! request comes; only when its worker leaves does it say `Connection: close` (GOAWAY) and end. While the process goes
//! on, an idle connection is never closed under a client that may just be sending.

mod http1;
mod http2;
mod opening;
mod rest;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode, Version};
use tokio::net::TcpStream;

use opening::{announcement, refuse_plain, shake_hands, speaks_plainly};
use rest::Rest;

use super::{
    config::Listener,
    exchange::farewell,
    io::{Downstream, Watched},
    proxy_protocol::Addresses,
    reply,
    timer::Timer,
    tunnel::Onward,
    worker::Worker,
};
use crate::{
    ctx::Ctx,
    status::{Connection, State},
    tls::Handshake,
};

/// What requests of one connection have in common.
pub struct Client {
    pub worker: Rc<Worker>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub scheme: &'static str,
    /// What the TLS handshake has settled; none without TLS.
    pub tls: Option<Arc<Handshake>>,
    /// The peer's address, as `X-Real-IP` has it.
    pub peer_text: HeaderValue,
    /// Our port, as `X-Forwarded-Port` has it.
    pub port_text: HeaderValue,
    /// What a load balancer in front of us says of the connection.
    pub announced: Option<Addresses>,
    /// Set by a request that ends HTTP on this connection.
    pub onward: RefCell<Option<Onward>>,
    /// For as long as the client must do something.
    pub timer: Timer,
    http2: Cell<bool>,
    /// Requests on their way; beyond one only with HTTP/2.
    active: Cell<u32>,
    /// Counts the connections of the process.
    serial: u64,
    /// Requests that have come.
    begun: Cell<u32>,
    /// Those of them that the client took back at once.
    given_up: Cell<u32>,
    /// Whether it was told to send no more requests over this connection. Only with HTTP/2.
    closing: Cell<bool>,
    /// Whether part of a head was read since the last request.
    in_head: Cell<bool>,
    /// When that was, until the request has begun.
    head_read: Cell<Option<Instant>>,
    /// Whether the client does not take what we write.
    blocked: Cell<bool>,
    /// How often everything written has gone out.
    flushed: Cell<u32>,
    /// Who waits for that.
    waiting: RefCell<Vec<Waker>>,
    /// What the last response did that was asked for its body. Only with HTTP/2.
    step: Cell<Step>,
    /// What will be written next.
    next: Cell<Words>,
    /// The status of that word, which is kept back and said as we say it.
    unreadable: Cell<Option<StatusCode>>,
    /// Of a body whose request has been answered. Only with HTTP/1.
    rest: RefCell<Option<Box<Rest>>>,
    /// Whether nobody knows where another request would begin. Only with HTTP/1.
    spent: Cell<bool>,
    counted: Connection,
}

/// Connections that have come.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// What is written to a client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// All answers have gone out: what is written is hyper's own word on a head it can't read.
    Hypers,
    /// The head of an answer to an HTTP/1.0 client, which is written anew: see [`super::old_head`].
    OldHead,
    Answer,
}

/// What a response does when it is asked for the next piece of its body.
#[derive(Clone, Copy)]
pub enum Step {
    None,
    /// It has none yet.
    Waits,
    /// It gives one, after another of so many bytes.
    Gives {
        before: usize,
    },
}

impl Client {
    /// A connection between the peer and our own address.
    pub fn new(
        worker: Rc<Worker>,
        (peer, local): (SocketAddr, SocketAddr),
        tls: Option<Arc<Handshake>>,
        counted: Connection,
    ) -> Self {
        let text = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        let http2 = tls.as_ref().is_some_and(|tls| tls.protocol.as_deref() == Some(b"h2"));
        Self {
            peer,
            local,
            scheme: if tls.is_some() { "https" } else { "http" },
            tls,
            peer_text: text(peer.ip().to_canonical().to_string()),
            port_text: text(local.port().to_string()),
            announced: None,
            onward: RefCell::new(None),
            timer: worker.timers.timer(),
            http2: Cell::new(http2),
            active: Cell::new(0),
            serial: CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1,
            begun: Cell::new(0),
            given_up: Cell::new(0),
            closing: Cell::new(false),
            in_head: Cell::new(false),
            head_read: Cell::new(None),
            blocked: Cell::new(false),
            flushed: Cell::new(0),
            waiting: RefCell::default(),
            step: Cell::new(Step::None),
            next: Cell::new(Words::Hypers),
            unreadable: Cell::new(None),
            rest: RefCell::new(None),
            spent: Cell::new(false),
            counted,
            worker,
        }
    }

    /// A request's head has been read.
    pub fn begin(&self, version: Version) {
        if self.has_rest() {
            self.end_rest();
        }
        self.active.set(self.active.get() + 1);
        self.begun.set(self.begun.get().wrapping_add(1));
        self.in_head.set(false);
        // Behind an answer that has not all gone out yet nobody knows where the next one begins.
        let old = version == Version::HTTP_10 && self.next.get() == Words::Hypers;
        self.next.set(if old { Words::OldHead } else { Words::Answer });
        self.timer.disarm();
        self.counted.is(State::Writing);
    }

    /// Which connection since the process began, and which request of it came last.
    pub fn counted(&self) -> (u64, u32) {
        (self.serial, self.begun.get())
    }

    /// When the request that has just begun began to arrive, where that is known: nginx counts from there.
    pub fn began(&self) -> Instant {
        self.head_read.take().unwrap_or_else(Instant::now)
    }

    /// A request has been answered, as far as we are concerned.
    pub fn finish(&self, now: Instant) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.active.get() == 0 {
            if self.has_rest() {
                self.timer.disarm();
            } else {
                self.timer.arm(now, self.patience());
            }
            self.counted.is(State::Waiting);
        }
    }

    /// How long nothing need happen between two requests.
    fn patience(&self) -> Duration {
        /// For a client to take note of our last words.
        const FAREWELL: Duration = Duration::from_secs(1);
        if self.closing.get() { FAREWELL } else { self.worker.config().timeouts.keepalive }
    }

    /// Something was read: between requests, the beginning of a head.
    pub fn has_read(&self) {
        if self.active.get() == 0 && !self.in_head.get() && !self.http2.get() && !self.has_rest() {
            self.in_head.set(true);
            self.counted.is(State::Reading);
            let now = Instant::now();
            self.head_read.set(Some(now));
            self.timer.arm(now, self.worker.config().timeouts.client_header);
        }
    }

    /// Something was written, or could not be.
    pub fn has_written(&self, done: bool) {
        if !done {
            self.blocked.set(true);
            self.timer.arm(Instant::now(), self.worker.config().timeouts.send);
        } else if self.blocked.replace(false) {
            if self.active.get() > 0 {
                self.timer.disarm();
            } else {
                self.timer.arm(Instant::now(), self.patience());
            }
        }
    }
}

impl Client {
    /// Everything written before has gone out.
    pub fn has_flushed(&self) {
        self.flushed.set(self.flushed.get().wrapping_add(1));
        if !self.waiting.borrow().is_empty() {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
        if self.active.get() == 0 {
            self.next.set(Words::Hypers);
        }
    }

    /// How often everything written has gone out.
    pub fn flushed(&self) -> u32 {
        self.flushed.get()
    }

    /// Wakes the task the next time.
    pub fn wake_when_flushed(&self, cx: &Context<'_>) {
        self.waiting.borrow_mut().push(cx.waker().clone());
    }

    /// A response was asked for the next piece of its body.
    pub fn step(&self, step: Step) {
        self.step.set(step);
    }

    /// Whether `words` are hyper's own, to be said as we say it instead.
    pub fn keeps_back(&self, words: &[u8]) -> bool {
        if self.next.get() != Words::Hypers || self.http2.get() {
            return false;
        }
        let status = words.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
        let status = status.and_then(|status| StatusCode::from_bytes(status).ok());
        self.unreadable.set(status.or(Some(StatusCode::BAD_REQUEST)));
        true
    }

    /// Whether the head of an answer to an HTTP/1.0 client comes now.
    pub fn begins_old_head(&self) -> bool {
        self.next.get() == Words::OldHead
    }

    /// The head of an answer has gone out.
    pub fn has_sent_head(&self) {
        self.next.set(Words::Answer);
    }

    /// Whether such words wait to be said.
    pub fn has_kept_back(&self) -> bool {
        self.unreadable.get().is_some()
    }

    /// Tells plugins and the log what the load balancer says.
    pub fn announce(&self, ctx: &mut Ctx) {
        let Some(Addresses { source, destination }) = self.announced else { return };
        ctx.set_var("proxy_protocol_addr", source.ip().to_string());
        ctx.set_var("proxy_protocol_port", source.port().to_string());
        ctx.set_var("proxy_protocol_server_addr", destination.ip().to_string());
        ctx.set_var("proxy_protocol_server_port", destination.port().to_string());
    }

    /// A head that is refused is in the access log as in nginx's, without what is not known of it.
    pub fn log_refused(&self, status: StatusCode, body: usize) {
        let Some(format) = self.worker.config().access_log.clone() else { return };
        let mut ctx = Ctx::refused(self.worker.plan(), status, self.peer, self.local);
        ctx.transfer.body_sent = body as u64;
        ctx.connection = self.counted();
        self.worker.log.borrow_mut().write(&format, &ctx);
    }

    /// The answer to a head that can't be read.
    fn unreadable(&self) -> Option<Vec<u8>> {
        let config = self.worker.config();
        let reply = match self.unreadable.take()? {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => reply::head_too_large(),
            other => reply::error(other),
        };
        tracing::info!(client = %self.peer, status = reply.status.as_u16(), "a request can't be read");
        self.log_refused(reply.status, reply.body.len());
        let mut headers = reply.headers;
        headers.extend(farewell(&config));
        Some(reply::on_the_wire(reply.status, &headers, &reply.body))
    }
}

/// Serves a connection to its end.
pub async fn serve(worker: Rc<Worker>, mut stream: TcpStream, peer: SocketAddr, listener: Listener) {
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(listener.address);
    let counted = worker.counters.connection();
    let mut announced = None;
    if listener.proxy_protocol {
        // Boxed, so that other connections don't carry the room for it.
        match Box::pin(announcement(&worker, &mut stream, peer)).await {
            Ok(addresses) => announced = addresses,
            Err(()) => return,
        }
    }
    let mut tls = None;
    let stream = if listener.tls {
        if speaks_plainly(&worker, &stream).await {
            let client = Client::new(worker, (peer, local), None, counted);
            return Box::pin(refuse_plain(stream, &client)).await;
        }
        let Some((stream, handshake)) = shake_hands(&worker, stream, peer, listener.http2).await else {
            return;
        };
        tls = Some(handshake);
        Downstream::Tls(Box::new(stream))
    } else {
        Downstream::Plain(stream)
    };
    let client = Rc::new(Client { announced, ..Client::new(worker, (peer, local), tls, counted) });
    client.timer.arm(Instant::now(), client.worker.config().timeouts.client_header);
    if let Some(plain) = stream.plain().filter(|_| listener.http2) {
        match http2::begins_with_preface(&client, plain).await {
            Some(http2) => client.http2.set(http2),
            None => return,
        }
    }
    let stream = Watched::new(stream, Rc::clone(&client));
    if client.http2.get() {
        // Boxed, so that idle HTTP/1.1 connections don't carry the room for what they are not.
        Box::pin(http2::serve(client, stream)).await;
    } else {
        http1::serve(client, stream).await;
    }
}
