//! Listening sockets, kept by the process through every change of configuration.
//!
//! The rule to know: a socket with connections in its queue is never closed. Each address has one socket per worker
//! (the kernel spreads connections over them); when workers go, others take their sockets over, and when an address
//! goes, its queue is emptied first.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Notify;

use super::{client, config::Listener, worker::Worker};

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 4096;

/// The process's listening sockets, by the address that was asked for.
#[derive(Default)]
pub struct Listeners {
    by_address: HashMap<SocketAddr, Vec<Arc<TcpListener>>>,
}

/// A socket that a worker is to accept from.
pub struct Assignment {
    pub listener: Listener,
    pub socket: Arc<TcpListener>,
}

impl Listeners {
    /// Binds what is missing for `listeners` on so many workers. After an error nothing has changed.
    pub fn prepare(&mut self, listeners: &[Listener], workers: usize) -> io::Result<()> {
        let mut fresh: HashMap<SocketAddr, Vec<Arc<TcpListener>>> = HashMap::new();
        for listener in listeners {
            let address = listener.address;
            let held = self.by_address.get(&address).map_or(&[][..], Vec::as_slice);
            let bound = match held.first() {
                Some(first) => first.local_addr()?,
                None => probe(address)?,
            };
            let more = fresh.entry(address).or_default();
            while held.len() + more.len() < workers {
                let bound = more.first().map_or(Ok(bound), |first| first.local_addr())?;
                more.push(Arc::new(bind(bound).map_err(|e| name(address, &e))?));
            }
        }
        for (address, mut sockets) in fresh {
            self.by_address.entry(address).or_default().append(&mut sockets);
        }
        Ok(())
    }

    /// Lets go of every other address. Its sockets live on until the workers have emptied them.
    pub fn retain(&mut self, listeners: &[Listener]) {
        self.by_address.retain(|address, _| listeners.iter().any(|listener| listener.address == *address));
    }

    /// Which sockets each of `workers` accepts from: every socket belongs to one.
    pub fn assign(&self, listeners: &[Listener], workers: usize) -> Vec<Vec<Assignment>> {
        let mut all: Vec<Vec<Assignment>> = (0..workers).map(|_| Vec::new()).collect();
        for &listener in listeners {
            let sockets = self.by_address.get(&listener.address).map_or(&[][..], Vec::as_slice);
            for (at, socket) in sockets.iter().enumerate() {
                all[at % workers].push(Assignment { listener, socket: Arc::clone(socket) });
            }
        }
        all
    }

    /// The address that was bound for the one asked for: they differ where port 0 was asked for.
    pub fn bound(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.by_address.get(&address)?.first()?.local_addr().ok()
    }
}

/// Whether an address can be had now. Changes nothing.
pub fn can_listen(address: SocketAddr) -> io::Result<()> {
    probe(address).map(|_| ())
}

/// Sees to it that nobody else listens there: sharing is for our own workers alone. Gives a port for port 0.
fn probe(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = socket(address).map_err(|e| name(address, &e))?;
    socket.bind(&address.into()).map_err(|e| name(address, &e))?;
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
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
                tokio::task::spawn_local(client::serve(Rc::clone(&worker), stream, peer, listener));
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
        tokio::task::spawn_local(client::serve(Rc::clone(&worker), stream, peer, listener));
    }
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
