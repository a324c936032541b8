//! HTTP/3 from clients, over QUIC. Experimental, as in APISIX.
//!
//! The rule to know: the packets of a connection come to one socket, so one worker serves all of HTTP/3: the first,
//! which stays as long as the process does. Socket, endpoint and connections outlive every reload.

mod receive;
mod serve;
mod tls;

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    rc::Rc,
    sync::Arc,
};

use quinn::{Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use tokio::{sync::Notify, task::spawn_local};

use super::{config::Config, worker::Worker};

/// Requests at once on one connection, and what is kept of a request's body until somebody takes it: as with HTTP/2.
const STREAMS: u32 = 128;
const STREAM_WINDOW: u32 = 128 * 1024;
/// What is kept of all responses of a connection until the client has them.
const SEND_WINDOW: u64 = 4 << 20;
/// Beyond so many connections, whoever wants another must show first that its address is its own.
const UNPROVEN: usize = 1000;

/// The process's sockets, by the address that was asked for.
#[derive(Default)]
pub struct Sockets {
    by_address: HashMap<SocketAddr, Arc<UdpSocket>>,
}

impl Sockets {
    /// Binds what is missing. After an error nothing has changed.
    pub fn prepare(&mut self, addresses: &[SocketAddr]) -> io::Result<()> {
        let mut fresh = HashMap::new();
        for address in addresses {
            if !self.by_address.contains_key(address) {
                let socket = UdpSocket::bind(address).map_err(|error| {
                    io::Error::new(error.kind(), format!("can't listen on {address} for QUIC: {error}"))
                })?;
                fresh.insert(*address, Arc::new(socket));
            }
        }
        self.by_address.extend(fresh);
        Ok(())
    }

    /// Lets go of every other address.
    pub fn retain(&mut self, addresses: &[SocketAddr]) {
        self.by_address.retain(|address, _| addresses.contains(address));
    }

    /// All of them, for the worker that serves them.
    pub fn all(&self) -> Vec<(SocketAddr, Arc<UdpSocket>)> {
        self.by_address.iter().map(|(address, socket)| (*address, Arc::clone(socket))).collect()
    }
}

/// What a worker listens with.
#[derive(Default)]
pub struct Endpoints {
    open: HashMap<SocketAddr, (Endpoint, Rc<Notify>)>,
}

impl Endpoints {
    /// Takes connections at these sockets and no others. Connections that are open go on.
    pub fn change(&mut self, worker: &Rc<Worker>, sockets: Vec<(SocketAddr, Arc<UdpSocket>)>) {
        self.open.retain(|address, (endpoint, stop)| {
            let stays = sockets.iter().any(|(wanted, _)| wanted == address);
            if !stays {
                endpoint.set_server_config(None);
                stop.notify_one();
            }
            stays
        });
        for (address, socket) in sockets {
            let config = match server_config(worker) {
                Ok(config) => config,
                Err(error) => {
                    tracing::error!(error, %address, "HTTP/3 can't be offered");
                    continue;
                }
            };
            match self.open.get(&address) {
                Some((endpoint, _)) => endpoint.set_server_config(Some(config)),
                None => match open(&socket, config) {
                    Ok(endpoint) => {
                        let stop = Rc::new(Notify::new());
                        spawn_local(accept(Rc::clone(worker), endpoint.clone(), Rc::clone(&stop)));
                        self.open.insert(address, (endpoint, stop));
                    }
                    Err(error) => tracing::error!(%error, %address, "HTTP/3 can't be offered"),
                },
            }
        }
    }
}

fn open(socket: &UdpSocket, config: quinn::ServerConfig) -> io::Result<Endpoint> {
    let (socket, runtime) = (socket.try_clone()?, Arc::new(TokioRuntime));
    Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)
}

fn server_config(worker: &Worker) -> Result<quinn::ServerConfig, String> {
    let Config { timeouts, fallback_sni, .. } = &*worker.config();
    let plan = Arc::clone(&worker.shared.plan);
    let mut config = quinn::ServerConfig::with_crypto(tls::crypto(plan, fallback_sni.as_deref())?);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(VarInt::from_u32(8))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window((STREAMS * STREAM_WINDOW).into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(timeouts.keepalive).ok());
    // Who a client is, is decided once: a connection that moves begins anew.
    config.transport_config(Arc::new(transport)).migration(false);
    Ok(config)
}

/// Accepts connections until told to stop, and keeps the socket for those that are open then.
async fn accept(worker: Rc<Worker>, endpoint: Endpoint, stop: Rc<Notify>) {
    loop {
        let incoming = tokio::select! {
            Some(incoming) = endpoint.accept() => incoming,
            () = stop.notified() => break,
            else => break,
        };
        let crowded = endpoint.open_connections() > UNPROVEN;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        match incoming.accept() {
            Ok(connecting) => {
                spawn_local(serve::connection(Rc::clone(&worker), connecting, endpoint.local_addr()));
            }
            Err(error) => tracing::debug!(%error, "a QUIC connection can't be accepted"),
        }
    }
    endpoint.wait_idle().await;
}
