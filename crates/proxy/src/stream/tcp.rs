//! One TCP session.
//!
//! The rule to know: a session outlives configurations. Who breaks a connection breaks the other one too: a reset is
//! passed on as a reset, an end as an end.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::StatusCode;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    Port, Protocol, Session, finish,
    metrics::Traffic,
    pump::{Broken, Way},
    way,
};
use crate::{
    ctx::Ctx,
    engine::{
        Listener,
        io::{Downstream, Upstream as Upward},
        proxy_protocol::{self, Addresses},
        worker::Worker,
    },
    status::State,
    tls::{Handshake, Offer},
    upstream::{Node, Scheme, Upstream},
};

/// The name given to nodes where the client gave none. APISIX's.
const NAMELESS: &str = "apisix_backend";

/// Serves a session to its end.
pub async fn serve(
    worker: Rc<Worker>,
    socket: TcpStream,
    peer: SocketAddr,
    (listener, port): (Listener, Port),
) {
    let counted = worker.counters.connection();
    counted.is(State::Writing);
    let _ = socket.set_nodelay(true);
    // Boxed, so that sessions that flow don't carry the room for how they began.
    let Some((mut client, mut ctx)) = Box::pin(begin(&worker, socket, peer, listener)).await else {
        return;
    };
    let active = worker.shared.streams.traffic(worker.id, listener.address).session();
    let status = match Box::pin(open(&mut ctx, port)).await {
        Ok((mut node, idle)) => flow(&worker, &mut ctx, (&mut client, &mut node), (&active.0, idle)).await,
        Err(status) => status,
    };
    drop(active);
    finish(&worker, &mut ctx, status);
}

/// Hears what comes before a session's own bytes: the PROXY header, the TLS handshake. None: it came to nothing,
/// which is in the log.
async fn begin(
    worker: &Rc<Worker>,
    mut socket: TcpStream,
    peer: SocketAddr,
    listener: Listener,
) -> Option<(Downstream, Ctx)> {
    let local = socket.local_addr().unwrap_or(listener.address);
    let limit = worker.config().timeouts.client_header;
    let announced = match listener.proxy_protocol {
        true => timeout(limit, announcement(&mut socket, peer)).await.ok().flatten()?,
        false => None,
    };
    let trusts = |peer: SocketAddr| {
        let peer = peer.ip().to_canonical();
        worker.config().stream.trusted.iter().any(|net| net.contains(&peer))
    };
    let client = announced.filter(|_| trusts(peer)).map_or(peer, |announced| announced.source);
    let (stream, tls) = match listener.tls {
        true => timeout(limit, shake_hands(worker, socket, peer)).await.ok().flatten()?,
        false => (Downstream::Plain(socket), None),
    };
    let session = Session { protocol: Protocol::Tcp, route: None, listener: listener.address };
    let mut ctx = Ctx::of_session(worker.plan(), session, client, local);
    (ctx.peer, ctx.tls) = (peer, tls);
    Some((stream, ctx))
}

/// The PROXY header, which may say nothing of the client. None: it is no header.
async fn announcement(socket: &mut TcpStream, peer: SocketAddr) -> Option<Option<Addresses>> {
    proxy_protocol::read(socket)
        .await
        .inspect_err(|error| {
            tracing::warn!(%peer, %error, "a connection has no header of the PROXY protocol; it is closed");
        })
        .ok()
}

async fn shake_hands(
    worker: &Rc<Worker>,
    socket: TcpStream,
    peer: SocketAddr,
) -> Option<(Downstream, Option<Arc<Handshake>>)> {
    match worker.acceptor().accept(socket, Offer::Stream, || worker.plan()).await {
        Ok((stream, handshake)) => Some((Downstream::Tls(Box::new(stream)), Some(handshake))),
        Err(failure) => {
            failure.log(peer);
            None
        }
    }
}

/// The way to a node, and how long the session may be silent on it.
async fn open(ctx: &mut Ctx, port: Port) -> Result<(Upward, Duration), StatusCode> {
    let upstream = way::admit(ctx).await?;
    let mut header = Vec::new();
    if port.proxy_protocol_to_upstream {
        proxy_protocol::write(&mut header, Some(Addresses { source: ctx.client, destination: ctx.server }));
    }
    let name = ctx.tls.as_ref().map(|tls| Arc::clone(&tls.name));
    let connect = async |node: &Node| connect(&upstream, node, &header, name.as_deref()).await;
    let node = way::reach(ctx, &upstream, connect).await?;
    Ok((node, upstream.session_idle))
}

async fn connect(
    upstream: &Upstream,
    node: &Node,
    header: &[u8],
    name: Option<&str>,
) -> io::Result<(Upward, SocketAddr)> {
    let mut stream = match node.address {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((&*node.host, node.port)).await?,
    };
    let address = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    stream.write_all(header).await?;
    // What a stream is wrapped in is TLS or nothing, whatever kind of HTTP others speak with the same upstream.
    let Some(tls) = upstream.tls.as_ref().filter(|_| upstream.scheme == Scheme::Tls) else {
        return Ok((Upward::Plain(stream), address));
    };
    let name = name.unwrap_or(if tls.verifies { &node.host } else { NAMELESS });
    let name = ServerName::try_from(name.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TlsConnector::from(Arc::clone(&tls.config)).connect(name, stream).await?;
    Ok((Upward::Tls(Box::new(stream)), address))
}

/// How a session ended.
enum End {
    /// Both sides have.
    Closed,
    ClientBroke(io::Error),
    NodeBroke(io::Error),
    /// Nothing moved for too long.
    Silent,
    /// The process waits no longer.
    Over,
}

/// Moves bytes until the session is over; gives its status.
async fn flow(
    worker: &Worker,
    ctx: &mut Ctx,
    (client, node): (&mut Downstream, &mut Upward),
    (traffic, idle): (&Traffic, Duration),
) -> StatusCode {
    let timer = worker.timers.timer();
    timer.arm(Instant::now(), idle);
    let (mut up, mut down) = (Way::default(), Way::default());
    let end = poll_fn(|cx| {
        if timer.poll_fired(cx) {
            return Poll::Ready(End::Silent);
        }
        if worker.is_over() {
            return Poll::Ready(End::Over);
        }
        let before = (up.moved, down.moved);
        let scratch = &mut worker.scratch.borrow_mut();
        let end = match (up.poll(cx, client, node, scratch), down.poll(cx, node, client, scratch)) {
            (Poll::Ready(Err(Broken::Sender(e))), _) | (_, Poll::Ready(Err(Broken::Receiver(e)))) => {
                Poll::Ready(End::ClientBroke(e))
            }
            (Poll::Ready(Err(Broken::Receiver(e))), _) | (_, Poll::Ready(Err(Broken::Sender(e)))) => {
                Poll::Ready(End::NodeBroke(e))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Closed),
            _ => Poll::Pending,
        };
        let moved = (up.moved - before.0, down.moved - before.1);
        if moved != (0, 0) {
            traffic.moved(moved.0, moved.1);
            timer.arm(Instant::now(), idle);
        }
        end
    })
    .await;
    (ctx.transfer.received, ctx.transfer.sent) = (up.moved, down.moved);
    match end {
        End::Closed | End::Over => StatusCode::OK,
        End::ClientBroke(error) => {
            tracing::debug!(%error, client = %ctx.client, "the client of a session broke the connection");
            reset(node.socket());
            StatusCode::BAD_REQUEST
        }
        End::NodeBroke(error) => {
            tracing::debug!(%error, client = %ctx.client, "the node of a session broke the connection");
            reset(client.socket());
            StatusCode::BAD_GATEWAY
        }
        End::Silent => StatusCode::BAD_GATEWAY,
    }
}

/// Has a connection end with a reset when it is dropped.
fn reset(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
