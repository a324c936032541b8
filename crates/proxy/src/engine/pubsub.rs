//! A client that speaks to a messaging system: the gateway's own end of a WebSocket.
//!
//! The rule to know: this is where HTTP has ended, as in a tunnel, and the connection lives by a tunnel's rules. A
//! client may be silent for as long as it likes, as with APISIX: the kernel finds out whether it is still there.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{client::Client, exchange::Exchange, io::Downstream};
use crate::{ctx::RequestHead, pubsub::Commands};

/// Bytes of a command; lua-resty-websocket's `max_payload_len`.
const LARGEST: usize = 65535;
/// How often is looked whether the worker has ended.
const LOOK: Duration = Duration::from_secs(1);

/// What a client that asks for a WebSocket is answered with 101. None: this one does not (RFC 6455, section 4.2.1).
pub fn accept(request: &RequestHead) -> Option<HeaderMap> {
    const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
    let has = |name: HeaderName, wanted: &str| {
        let values = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    let asks = request.method == Method::GET
        && has(header::UPGRADE, "websocket")
        && has(header::CONNECTION, "upgrade")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers.get(KEY).filter(|_| asks)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    // Browsers that offer protocols want one of them chosen.
    let offered = request.headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|offer| offer.to_str().ok());
    if let Some(first) = offered.and_then(|offered| offered.split(',').next()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::try_from(first.trim()).ok()?);
    }
    Some(headers)
}

/// A client that is listened to.
pub struct Session {
    pub commands: Commands,
    /// Ends, and is logged, with the session.
    pub exchange: Box<Exchange>,
}

impl Session {
    /// Answers commands until the client or the worker ends. `early` is what the client had sent already.
    pub async fn run(mut self, downstream: Downstream, early: Bytes, client: &Client) {
        let limits = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(0)
            .max_message_size(Some(LARGEST))
            .max_frame_size(Some(LARGEST));
        let _ = socket2::SockRef::from(downstream.socket()).set_keepalive(true);
        let mut socket =
            WebSocketStream::from_partially_read(downstream, early.into(), Role::Server, Some(limits)).await;
        let (mut received, mut sent) = (0, 0);
        let over = over(client);
        tokio::pin!(over);
        let patience = || client.worker.config().timeouts.send;
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                () = &mut over => break,
            };
            let command = match message {
                Some(Ok(Message::Binary(command))) => command,
                Some(Ok(Message::Close(_))) | None => break,
                // Others command nothing; to pings there was an answer.
                Some(Ok(_)) => continue,
                Some(Err(error)) => {
                    tracing::info!(client = %client.peer, %error, "a WebSocket has ended");
                    break;
                }
            };
            received += command.len() as u64;
            let answer = tokio::select! {
                answer = self.commands.answer(&command) => answer,
                () = &mut over => break,
            };
            let Some(answer) = answer else { continue };
            sent += answer.len() as u64;
            if !matches!(timeout(patience(), socket.send(Message::binary(answer))).await, Ok(Ok(()))) {
                break;
            }
        }
        let _ = timeout(LOOK, futures_util::SinkExt::close(&mut socket)).await;
        self.exchange.tunnelled(received, sent);
    }
}

/// Until the worker ends.
async fn over(client: &Client) {
    while !client.worker.is_over() {
        sleep(LOOK).await;
    }
}
