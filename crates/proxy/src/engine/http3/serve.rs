//! One connection from a client over QUIC, and its requests.

use std::{future::poll_fn, io, net::SocketAddr, pin::Pin, rc::Rc, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use h3::{
    error::Code,
    server::{RequestResolver, RequestStream},
};
use http::{HeaderMap, Response, header};
use http_body::Body as _;
use quinn::{Connecting, crypto::rustls::HandshakeData};
use tokio::{task::JoinSet, time::timeout};

use super::{
    super::{
        body::Body,
        client::Client,
        exchange,
        h1::{Error, Incoming},
        timer::Timer,
        worker::Worker,
    },
    receive::{self, Received},
    tls,
};
use crate::tls::Handshake;

/// For a client to take what was sent last.
const FAREWELL: Duration = Duration::from_secs(1);

type Connection = h3::server::Connection<h3_quinn::Connection, Bytes>;
type Sender = RequestStream<h3_quinn::SendStream<Bytes>, Bytes>;

/// Serves a connection to its end.
pub async fn connection(worker: Rc<Worker>, connecting: Connecting, local: io::Result<SocketAddr>) {
    let (peer, counted) = (connecting.remote_address(), worker.counters.connection());
    let Ok(local) = local else { return };
    let limit = worker.config().timeouts.client_header;
    let connection = match timeout(limit, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(client = %peer, %error, "QUIC handshake not finished");
            return;
        }
        Err(_) => return,
    };
    let Some(handshake) = settled(&worker, &connection) else { return };
    let client = Rc::new(Client::new(worker, (peer, local), Some(handshake), counted));
    let head = client.worker.config().limits.head as u64;
    let connection = h3_quinn::Connection::new(connection);
    match h3::server::builder().max_field_section_size(head).send_grease(false).build(connection).await {
        Ok(connection) => requests(&client, connection).await,
        Err(error) => tracing::debug!(client = %peer, %error, "HTTP/3 does not begin"),
    }
}

/// None: its certificate has gone, or asks for more since.
fn settled(worker: &Worker, connection: &quinn::Connection) -> Option<Arc<Handshake>> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let config = worker.config();
    tls::handshake(&worker.plan(), data.server_name.as_deref(), config.fallback_sni.as_deref())
}

async fn requests(client: &Rc<Client>, mut connection: Connection) {
    // Whoever closes the connection takes its requests along.
    let mut running = JoinSet::new();
    let (mut leaving, timer) = (false, client.worker.timers.timer());
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Ok(Some(request)) => drop(running.spawn_local(serve(Rc::clone(client), request))),
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(client = %client.peer, %error, "connection over QUIC ended");
                    return;
                }
            },
            () = told_to_leave(client, &timer), if !leaving => {
                leaving = true;
                if connection.shutdown(0).await.is_err() {
                    return;
                }
            }
            _ = running.join_next(), if !running.is_empty() => {}
            () = tokio::time::sleep(FAREWELL), if leaving && running.is_empty() => return,
        }
    }
    while running.join_next().await.is_some() {}
}

/// A worker that leaves wakes all timers: this one is for nothing else.
async fn told_to_leave(client: &Client, timer: &Timer) {
    poll_fn(|cx| {
        let _ = timer.poll_fired(cx);
        if client.worker.is_leaving() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn serve(client: Rc<Client>, resolver: RequestResolver<h3_quinn::Connection, Bytes>) {
    let (request, stream) = match resolver.resolve_request().await {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(client = %client.peer, %error, "a request can't be read");
            return;
        }
    };
    let (mut sender, mut receiver) = stream.split();
    if !receive::is_well_formed(request.headers()) {
        tracing::debug!(client = %client.peer, "a request is malformed");
        receiver.stop_sending(Code::H3_MESSAGE_ERROR);
        sender.stop_stream(Code::H3_MESSAGE_ERROR);
        return;
    }
    let (patience, pace) = {
        let timeouts = client.worker.config().timeouts;
        (timeouts.client_body, timeouts.send)
    };
    let Ok(body) = Received::new(receiver, &request, patience).await else {
        sender.stop_stream(Code::H3_REQUEST_INCOMPLETE);
        return;
    };
    let request = request.map(|()| Incoming::Boxed(Box::new(body)));
    let answered = match exchange::serve(client, request).await {
        Ok(response) => answer(&mut sender, response, pace).await,
        Err(_) => Err(()),
    };
    if answered.is_err() {
        sender.stop_stream(Code::H3_INTERNAL_ERROR);
    }
}

/// Sends a response to its end; an error where it broke off, on whichever side.
async fn answer(sender: &mut Sender, response: Response<Body>, pace: Duration) -> Result<(), ()> {
    let (mut head, mut body) = response.into_parts();
    complete(&mut head.headers, &body);
    taken(pace, 0, sender.send_response(Response::from_parts(head, ()))).await?;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_: Error| ())?;
        match frame.into_data() {
            Ok(data) => taken(pace, data.len(), sender.send_data(data)).await?,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                taken(pace, 0, sender.send_trailers(trailers)).await?;
                break;
            }
        }
    }
    taken(pace, 0, sender.finish()).await
}

/// Sends so many bytes; an error where the client does not take each 8 KiB of them in time, or at all.
async fn taken<E>(
    pace: Duration,
    size: usize,
    sending: impl Future<Output = Result<(), E>>,
) -> Result<(), ()> {
    const CHUNK: usize = 8 * 1024;
    let times = u32::try_from(size / CHUNK + 1).unwrap_or(u32::MAX);
    timeout(pace.saturating_mul(times), sending).await.map_err(drop)?.map_err(drop)
}

/// What hyper sees to for the other versions.
fn complete(headers: &mut HeaderMap, body: &Body) {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        headers.entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
}
