//! Listening sockets, kept by the process through every change of configuration.
//!
//! The rule to know: a socket with connections in its queue is never closed. Each address has one socket per worker
//! (the kernel spreads connections over them); when workers go, others take their sockets over, and when an address
//! goes, its queue is emptied first. Until [`Listeners::open`] clients are refused: a bound socket only keeps others away.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    rc::Rc,
    sync::Arc,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::Notify;

use super::{
    client,
    config::{Config, Listener},
    worker::Worker,
};
use crate::stream;

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 4096;

/// The process's listening sockets.
#[derive(Default)]
pub struct Listeners {
    tcp: Sockets<TcpListener>,
    udp: Sockets<UdpSocket>,
}

/// What a worker is to listen on: every socket belongs to one.
#[derive(Default)]
pub struct Assignment {
    pub tcp: Vec<(Listener, Arc<TcpListener>)>,
    pub udp: Vec<(SocketAddr, Arc<UdpSocket>)>,
}

impl Listeners {
    /// Binds what is missing for as many workers. After an error nothing has changed.
    pub fn prepare(&mut self, config: &Config, workers: usize) -> io::Result<()> {
        let tcp = self.tcp.missing(config.listeners.iter().map(|listener| listener.address), workers)?;
        let udp = self.udp.missing(config.stream.udp.iter().copied(), workers)?;
        self.tcp.add(tcp);
        self.udp.add(udp);
        Ok(())
    }

    /// Opens them to clients. `fresh`: none was open before, and others may have come in between.
    pub fn open(&self, fresh: bool) -> io::Result<()> {
        for (address, sockets) in &self.tcp.by_address {
            if let Some(first) = sockets.first().filter(|_| fresh) {
                probe::<TcpListener>(first.local_addr()?)?;
            }
            for socket in sockets {
                SockRef::from(&**socket).listen(BACKLOG).map_err(|e| name(*address, &e))?;
            }
        }
        Ok(())
    }

    /// Lets go of every other address. Its sockets live on until the workers have emptied them.
    pub fn retain(&mut self, config: &Config) {
        self.tcp.retain(|address| config.listeners.iter().any(|listener| listener.address == address));
        self.udp.retain(|address| config.stream.udp.contains(&address));
    }

    /// Which sockets each of `workers` listens on.
    pub fn assign(&self, config: &Config, workers: usize) -> Vec<Assignment> {
        let mut all: Vec<_> = (0..workers).map(|_| Assignment::default()).collect();
        for &listener in &config.listeners {
            for (at, socket) in self.tcp.of(listener.address).iter().enumerate() {
                all[at % workers].tcp.push((listener, Arc::clone(socket)));
            }
        }
        for &address in &config.stream.udp {
            for (at, socket) in self.udp.of(address).iter().enumerate() {
                all[at % workers].udp.push((address, Arc::clone(socket)));
            }
        }
        all
    }

    /// The TCP address that was bound for the one asked for: they differ where port 0 was asked for.
    pub fn bound(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.tcp.of(address).first()?.local_addr().ok()
    }
}

/// Sockets of one kind, by the address that was asked for.
struct Sockets<S> {
    by_address: HashMap<SocketAddr, Vec<Arc<S>>>,
}

impl<S> Default for Sockets<S> {
    fn default() -> Self {
        Self { by_address: HashMap::new() }
    }
}

impl<S: Listens> Sockets<S> {
    fn of(&self, address: SocketAddr) -> &[Arc<S>] {
        self.by_address.get(&address).map_or(&[][..], Vec::as_slice)
    }

    /// What there must be besides what there is.
    fn missing(
        &self,
        addresses: impl Iterator<Item = SocketAddr>,
        workers: usize,
    ) -> io::Result<HashMap<SocketAddr, Vec<Arc<S>>>> {
        let mut fresh: HashMap<_, Vec<Arc<S>>> = HashMap::new();
        for address in addresses {
            let held = self.of(address);
            let bound = match held.first() {
                Some(first) => first.address()?,
                None => probe::<S>(address)?,
            };
            let more = fresh.entry(address).or_default();
            while held.len() + more.len() < workers {
                let bound = more.first().map_or(Ok(bound), |first| first.address())?;
                more.push(Arc::new(S::bind(bound).map_err(|e| name(address, &e))?));
            }
        }
        Ok(fresh)
    }

    fn add(&mut self, fresh: HashMap<SocketAddr, Vec<Arc<S>>>) {
        for (address, mut sockets) in fresh {
            self.by_address.entry(address).or_default().append(&mut sockets);
        }
    }

    fn retain(&mut self, stays: impl Fn(SocketAddr) -> bool) {
        self.by_address.retain(|address, _| stays(*address));
    }
}

/// A kind of socket that several workers can listen on.
trait Listens: Sized {
    /// A socket that shares its address with nobody, as yet without one.
    fn socket(address: SocketAddr) -> io::Result<Socket>;

    /// One of several on this address.
    fn bind(address: SocketAddr) -> io::Result<Self>;

    fn address(&self) -> io::Result<SocketAddr>;
}

impl Listens for TcpListener {
    fn socket(address: SocketAddr) -> io::Result<Socket> {
        let socket = socket(address, Type::STREAM, Protocol::TCP)?;
        socket.set_reuse_address(true)?;
        Ok(socket)
    }

    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = <Self as Listens>::socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

impl Listens for UdpSocket {
    fn socket(address: SocketAddr) -> io::Result<Socket> {
        socket(address, Type::DGRAM, Protocol::UDP)
    }

    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = <Self as Listens>::socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

/// Whether an address can be had now. Changes nothing.
pub fn can_listen(address: SocketAddr) -> io::Result<()> {
    probe::<TcpListener>(address).map(|_| ())
}

/// Sees to it that nobody else listens there: sharing is for our own workers alone. Gives a port for port 0.
fn probe<S: Listens>(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = S::socket(address).map_err(|e| name(address, &e))?;
    socket.bind(&address.into()).map_err(|e| name(address, &e))?;
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn name(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("can't listen on {address}: {error}"))
}

/// Accepts connections until told to stop, then what is left in the queue.
pub async fn accept(worker: Rc<Worker>, socket: TcpListener, listener: Listener, stop: Rc<Notify>) {
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, address = %listener.address, "a socket can't be listened on");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stop.notified() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                serve(&worker, stream, peer, listener);
            }
            Err(error) => pause(&error, listener).await,
        }
    }
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, peer)) = socket.accept() {
        let Ok(stream) = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream))
        else {
            continue;
        };
        serve(&worker, stream, peer, listener);
    }
}

fn serve(worker: &Rc<Worker>, stream: tokio::net::TcpStream, peer: SocketAddr, listener: Listener) {
    let worker = Rc::clone(worker);
    match listener.stream {
        None => tokio::task::spawn_local(client::serve(worker, stream, peer, listener)),
        Some(port) => tokio::task::spawn_local(stream::tcp::serve(worker, stream, peer, (listener, port))),
    };
}

/// Out of descriptors or memory: trying again at once would only burn the processor.
async fn pause(error: &io::Error, listener: Listener) {
    let harmless =
        [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    if !harmless.contains(&error.kind()) {
        tracing::warn!(%error, address = %listener.address, "a connection can't be accepted");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
