//! UDP sessions: the datagrams of one client to one of our addresses, and the answers to them.
//!
//! The rule to know: nobody says when a session ends, so it ends when it has been silent, or when there are too many and
//! it was not used since others were. Datagrams are passed on or dropped, never kept waiting.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::StatusCode;
use tokio::{
    io::ReadBuf,
    net::{UdpSocket, lookup_host},
    sync::Notify,
    task::spawn_local,
};

use super::{
    Protocol, Session,
    datagrams::{self, Arrived, Socket},
    finish,
    metrics::Traffic,
    way,
};
use crate::{
    ctx::Ctx,
    engine::{timer::Timer, worker::Worker},
    upstream::{Node, Scheme},
};

/// Sessions of one listening address on one worker. Each holds a socket towards its node.
pub const MOST_SESSIONS: usize = 10_000;
/// Datagrams kept while the way to a node is found.
const MOST_WAITING: usize = 16;

/// A listening address on one worker.
struct Port {
    worker: Rc<Worker>,
    socket: Socket,
    listener: SocketAddr,
    traffic: Arc<Traffic>,
    sessions: RefCell<Sessions>,
}

/// The client, and our address it sends to.
type Ends = (SocketAddr, SocketAddr);

#[derive(Default)]
struct Sessions {
    by_ends: HashMap<Ends, Rc<Flow>>,
    /// In the order in which they were last found unused, or began.
    queue: VecDeque<Rc<Flow>>,
}

/// What a session shares with whoever receives its client's datagrams.
struct Flow {
    ends: Ends,
    /// The way to the node, once it is found.
    node: RefCell<Option<Rc<UdpSocket>>>,
    waiting: RefCell<Vec<Box<[u8]>>>,
    received: Cell<u64>,
    /// Since it was last looked at.
    used: Cell<bool>,
    /// Whether it must give way to others.
    gone: Cell<bool>,
    idle: Cell<Duration>,
    timer: Timer,
}

/// Receives datagrams until told to stop. Sessions go on.
pub async fn receive(
    worker: Rc<Worker>,
    socket: std::net::UdpSocket,
    listener: SocketAddr,
    stop: Rc<Notify>,
) {
    let socket = match Socket::new(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, address = %listener, "a UDP socket can't be listened on");
            return;
        }
    };
    let traffic = worker.shared.streams.traffic(worker.id, listener);
    let port = Rc::new(Port { worker, socket, listener, traffic, sessions: RefCell::default() });
    let mut space = datagrams::space();
    loop {
        tokio::select! {
            ready = port.socket.readable() => if ready.is_err() { return },
            () = stop.notified() => break,
        }
        port.take_all(&mut space);
        // Whoever has much to receive lets others have their turn.
        tokio::task::yield_now().await;
    }
    port.take_all(&mut space);
}

impl Port {
    /// Takes what has arrived, up to a number that leaves others their turn.
    fn take_all(self: &Rc<Self>, space: &mut [u8]) {
        const TURN: usize = 64;
        let mut scratch = self.worker.scratch.borrow_mut();
        for _ in 0..TURN {
            match self.socket.try_receive(&mut scratch, space) {
                Ok(arrived) => self.take(&scratch[..arrived.length], arrived),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, address = %self.listener, "a datagram can't be received");
                }
            }
        }
    }

    fn take(self: &Rc<Self>, datagram: &[u8], arrived: Arrived) {
        let ends = (arrived.from, arrived.to);
        let known = self.sessions.borrow().by_ends.get(&ends).map(Rc::clone);
        let flow = known.unwrap_or_else(|| self.begin(ends));
        flow.take(datagram, &self.traffic);
    }

    fn begin(self: &Rc<Self>, ends: Ends) -> Rc<Flow> {
        let flow = Rc::new(Flow {
            ends,
            node: RefCell::default(),
            waiting: RefCell::default(),
            received: Cell::new(0),
            used: Cell::new(true),
            gone: Cell::new(false),
            idle: Cell::new(Duration::MAX),
            timer: self.worker.timers.timer(),
        });
        self.sessions.borrow_mut().insert(&flow);
        spawn_local(serve(Rc::clone(self), Rc::clone(&flow)));
        flow
    }
}

impl Sessions {
    /// Adds a session; of too many one that was not used lately goes.
    fn insert(&mut self, flow: &Rc<Flow>) {
        while self.by_ends.len() >= MOST_SESSIONS {
            let Some(oldest) = self.queue.pop_front() else { break };
            if oldest.gone.get() {
                continue;
            }
            if oldest.used.replace(false) {
                self.queue.push_back(oldest);
                continue;
            }
            self.by_ends.remove(&oldest.ends);
            oldest.leave();
        }
        self.by_ends.insert(flow.ends, Rc::clone(flow));
        self.queue.push_back(Rc::clone(flow));
    }

    fn remove(&mut self, flow: &Rc<Flow>) {
        flow.gone.set(true);
        if self.by_ends.get(&flow.ends).is_some_and(|held| Rc::ptr_eq(held, flow)) {
            self.by_ends.remove(&flow.ends);
        }
        // Those that are gone are taken out of the queue when there are many.
        if self.queue.len() > 2 * self.by_ends.len() + 64 {
            self.queue.retain(|flow| !flow.gone.get());
        }
    }
}

impl Flow {
    /// A datagram from the client.
    fn take(&self, datagram: &[u8], traffic: &Traffic) {
        self.used.set(true);
        self.timer.arm(Instant::now(), self.idle.get());
        self.received.set(self.received.get() + datagram.len() as u64);
        if let Some(node) = &*self.node.borrow() {
            if node.try_send(datagram).is_ok() {
                traffic.moved(datagram.len() as u64, 0);
            }
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < MOST_WAITING {
            waiting.push(datagram.into());
        }
    }

    fn leave(&self) {
        self.gone.set(true);
        self.timer.arm(Instant::now(), Duration::ZERO);
    }
}

/// Serves one session to its end.
async fn serve(port: Rc<Port>, flow: Rc<Flow>) {
    let worker = &port.worker;
    let _counted = worker.counters.connection();
    let session = Session { protocol: Protocol::Udp, route: None, listener: port.listener };
    let mut ctx = Ctx::of_session(worker.plan(), session, flow.ends.0, flow.ends.1);
    let active = port.traffic.session();
    let status = match open(&mut ctx, &flow).await {
        Ok(node) => {
            let (sent, status) = answers(&port, &flow, &node).await;
            ctx.transfer.sent = sent;
            status
        }
        Err(status) => status,
    };
    port.sessions.borrow_mut().remove(&flow);
    ctx.transfer.received = flow.received.get();
    drop(active);
    finish(worker, &mut ctx, status);
}

/// Finds the way to a node and lets go what waited for it.
async fn open(ctx: &mut Ctx, flow: &Flow) -> Result<Rc<UdpSocket>, StatusCode> {
    let upstream = way::admit(ctx).await?;
    if upstream.scheme == Scheme::Tls {
        tracing::warn!(upstream = &*upstream.name, "an upstream of scheme tls can't be spoken to over UDP");
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let node = Rc::new(way::reach(ctx, &upstream, connect).await?);
    for datagram in flow.waiting.take() {
        let _ = node.try_send(&datagram);
    }
    flow.idle.set(upstream.session_idle);
    flow.timer.arm(Instant::now(), upstream.session_idle);
    flow.node.replace(Some(Rc::clone(&node)));
    Ok(node)
}

async fn connect(node: &Node) -> io::Result<(UdpSocket, SocketAddr)> {
    let address = match node.address {
        Some(address) => address,
        None => {
            let mut found = lookup_host((&*node.host, node.port)).await?;
            found.next().ok_or(io::ErrorKind::AddrNotAvailable)?
        }
    };
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    // Not known before it is waited for, and what is sent with `try_send` meanwhile is dropped.
    socket.writable().await?;
    Ok((socket, address))
}

/// Passes answers on until the session is over; gives how many bytes went to the client, and the session's status.
async fn answers(port: &Port, flow: &Flow, node: &UdpSocket) -> (u64, StatusCode) {
    let (client, own) = (flow.ends.0, flow.ends.1.ip());
    let mut sent = 0;
    let status = poll_fn(|cx| {
        loop {
            if flow.timer.poll_fired(cx) || flow.gone.get() || port.worker.is_stopping() {
                return Poll::Ready(StatusCode::OK);
            }
            let mut scratch = port.worker.scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            match node.poll_recv(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, %client, "the node of a UDP session is not there");
                    return Poll::Ready(StatusCode::BAD_GATEWAY);
                }
                Poll::Ready(Ok(())) => {
                    let length = buffer.filled().len() as u64;
                    if port.socket.try_send(buffer.filled(), own, client).is_ok() {
                        sent += length;
                        port.traffic.moved(0, length);
                    }
                    flow.used.set(true);
                    flow.timer.arm(Instant::now(), flow.idle.get());
                }
            }
        }
    })
    .await;
    (sent, status)
}
