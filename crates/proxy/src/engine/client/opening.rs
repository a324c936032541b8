//! What comes before HTTP: a load balancer's word, the TLS handshake.

use std::{net::SocketAddr, sync::Arc};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::server::TlsStream;

use super::{
    super::{
        exchange::farewell,
        io::Downstream,
        proxy_protocol::{self, Addresses},
        reply,
        worker::Worker,
    },
    Client,
    http1::close,
};
use crate::tls::{Handshake, Offer};

/// Whether the first byte of a connection is none of TLS, looked at without reading it: as nginx looks.
pub(super) async fn speaks_plainly(worker: &Worker, stream: &TcpStream) -> bool {
    const HANDSHAKE: u8 = 0x16;
    let mut first = [0];
    let looked = timeout(worker.config().timeouts.client_header, stream.peek(&mut first)).await;
    matches!(looked, Ok(Ok(1))) && first[0] != HANDSHAKE && first[0].is_ascii()
}

/// nginx's answer to HTTP where TLS is spoken.
pub(super) async fn refuse_plain(stream: TcpStream, client: &Client) {
    let reply = reply::plain_to_tls();
    tracing::info!(client = %client.peer, "HTTP without TLS on a port for TLS");
    client.log_refused(reply.status, reply.body.len());
    let mut headers = reply.headers;
    headers.extend(farewell(&client.worker.config()));
    let last = reply::on_the_wire(reply.status, &headers, &reply.body);
    close(Downstream::Plain(stream), client, &last).await;
}

/// None: the handshake came to nothing, which is in the log.
pub(super) async fn shake_hands(
    worker: &Worker,
    stream: TcpStream,
    peer: SocketAddr,
    http2: bool,
) -> Option<(TlsStream<TcpStream>, Arc<Handshake>)> {
    let limit = worker.config().timeouts.client_header;
    let offer = if http2 { Offer::Http2 } else { Offer::Http1 };
    let acceptor = worker.acceptor();
    match timeout(limit, Box::pin(acceptor.accept(stream, offer, || worker.plan()))).await {
        Ok(Ok(accepted)) => Some(accepted),
        Ok(Err(failure)) => {
            failure.log(peer);
            None
        }
        Err(_) => None,
    }
}

/// What the load balancer in front of us says, which it must do at once.
pub(super) async fn announcement(
    worker: &Worker,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Result<Option<Addresses>, ()> {
    let limit = worker.config().timeouts.client_header;
    match timeout(limit, proxy_protocol::read(stream)).await {
        Ok(Ok(announced)) => return Ok(announced),
        Ok(Err(error)) => {
            tracing::warn!(%peer, %error, "a connection has no header of the PROXY protocol; it is closed");
        }
        Err(_) => {
            tracing::warn!(%peer, "no header of the PROXY protocol came in time; the connection is closed");
        }
    }
    Err(())
}
