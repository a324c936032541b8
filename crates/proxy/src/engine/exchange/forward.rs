//! The way to an upstream: which node, over which connection, and what is tried again.
//!
//! The rule to know: a request is sent again only if no byte of a response has come and the client's body is still at
//! hand; to another node after a failure, to the same one if a connection that lay idle turned out to be dead.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, StatusCode, Version, header};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{super::forward_head, Answer, Exchange, check};
use crate::{
    chain,
    ctx::Attempt,
    engine::{h1, io, link::Link, reply},
    plugin::Flow,
    upstream::{Node, Upstream, pool},
    vars,
};

impl Exchange {
    /// Sends the request to nodes of `upstream` until one answers.
    pub(super) async fn forward(&mut self, upstream: &Arc<Upstream>) -> Result<Answer, h1::Error> {
        let timeouts = self.ctx.timeouts();
        self.limits = h1::Limits { send: timeouts.send, read: timeouts.read };
        self.upgrade = self.wants_upgrade();
        let mut began = None;
        let nodes = upstream.nodes.settled().await;
        let mut left = upstream.retries(&nodes);
        let mut again = false;
        loop {
            let Some(chosen) = nodes.pick(&self.ctx) else {
                tracing::warn!(upstream = &*upstream.name, "no node is left to try");
                let status = if nodes.nodes.is_empty() {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::BAD_GATEWAY
                };
                return Ok(self.own(reply::error(status)));
            };
            let node = Arc::clone(&chosen.node);
            self.ctx.attempts.push(Attempt::new(chosen));
            self.attempted = self.ctx.started.elapsed();
            let began = *began.get_or_insert(self.attempted);
            if !again && let Flow::Reply(reply) = chain::before_proxy(&mut self.ctx).await {
                self.ctx.attempts.pop();
                return Ok(self.own(reply));
            }
            let mut answer = if upstream.scheme.is_http2() {
                // Boxed, so that requests over HTTP/1.1 don't carry the room for it.
                Box::pin(self.call(upstream, &node)).await
            } else {
                self.attempt(upstream, &node).await
            };
            if answer.as_ref().is_ok_and(|head| !self.accepts(head)) {
                answer = Err(h1::Error::Malformed("it switches to a protocol that was not asked for"));
            }
            match answer {
                Ok(head) => return Ok(self.received(head)),
                Err(error) => {
                    self.note_failure(&error);
                    if left == 0 || !self.may_retry(&error) {
                        return Err(error);
                    }
                    if !upstream.retry_timeout.is_zero()
                        && self.ctx.started.elapsed() > began + upstream.retry_timeout
                    {
                        tracing::warn!(%error, node = &*node.label, "no time is left for another node");
                        return Ok(self.own(reply::error(StatusCode::BAD_GATEWAY)));
                    }
                    tracing::debug!(%error, node = &*node.label, "trying another node");
                    self.link = None;
                    left -= 1;
                    again = true;
                }
            }
        }
    }

    /// Protocols are switched where that was asked for, and to nothing else.
    fn accepts(&self, head: &h1::Head) -> bool {
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            return true;
        }
        let mut chosen = head.headers.get_all(header::UPGRADE).iter();
        let websocket = chosen.next().is_some_and(|chosen| is_websocket(chosen.as_bytes()));
        self.upgrade && websocket && chosen.next().is_none()
    }

    /// The upstream's head becomes the response's.
    fn received(&mut self, head: h1::Head) -> Answer {
        let elapsed = self.ctx.started.elapsed();
        if let Some(attempt) = self.ctx.attempts.last_mut() {
            attempt.status = Some(head.status);
            attempt.header = Some(elapsed.saturating_sub(self.attempted));
        }
        self.ctx.response.status = head.status;
        if vars::asks_for_upstream_headers() {
            self.ctx.response.of_upstream = Some(Box::new(head.headers.clone()));
        }
        self.ctx.response.headers = head.headers;
        Answer::Upstream
    }

    /// Sends the request to `node`.
    async fn attempt(&mut self, upstream: &Upstream, node: &Arc<Node>) -> Result<h1::Head, h1::Error> {
        let key = self.key(upstream, node);
        let mut fresh = false;
        loop {
            let idle = if fresh { None } else { self.idle(&key) };
            let reused = idle.is_some();
            let connection = match idle {
                Some(connection) => {
                    self.note_reuse();
                    connection
                }
                None => self.connect(upstream, node, &key).await?,
            };
            let link = self.link.insert(Link::Own { key: key.clone(), connection });
            let Link::Own { connection, .. } = link else { unreachable!("it was just put there") };
            let framing = forward_head::Framing::of(&self.body);
            let host = upstream.host(&self.ctx, node);
            let out = connection.begin(framing.is_chunked());
            forward_head::write(out, &self.ctx, &self.client, host, framing, self.upgrade);
            let head_sent = out.len() as u64;
            if let Some(attempt) = self.ctx.attempts.last_mut() {
                attempt.head_sent = head_sent;
            }
            match connection.exchange(&mut self.body, &self.ctx.request.method, &self.limits).await {
                Ok(head) => return Ok(head),
                // It was closed while it lay idle: that is not the node's failure.
                Err(error @ h1::Error::NoAnswer(_)) if reused => {
                    let harmless = is_idempotent(&self.ctx.request.method) || !connection.has_written();
                    if !harmless || !self.body.rewind() {
                        return Err(error);
                    }
                    self.link = None;
                    fresh = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// As nginx has it: no time was taken to connect.
    pub(super) fn note_reuse(&mut self) {
        if let Some(attempt) = self.ctx.attempts.last_mut() {
            attempt.connected = Some(Duration::ZERO);
        }
    }

    /// What a connection to `node` must have in common with another to stand in for it.
    pub(super) fn key(&self, upstream: &Upstream, node: &Node) -> pool::Key {
        let name = |_| forward_head::server_name(upstream.host(&self.ctx, node));
        pool::Key {
            fingerprint: upstream.fingerprint,
            label: Arc::clone(&node.label),
            server_name: upstream.tls.as_ref().map(name),
        }
    }

    /// An idle connection that is still open, as far as can be told.
    fn idle(&self, key: &pool::Key) -> Option<h1::Connection<io::Upstream>> {
        // Whoever may not send twice looks twice: the kernel may know of an end that the runtime has not seen yet.
        let careful = !is_idempotent(&self.ctx.request.method);
        let now = self.ctx.started + self.attempted;
        self.client.worker.pool.borrow_mut().take(key, now, |connection| {
            connection.is_usable() && !(careful && is_at_end(connection.stream()))
        })
    }

    pub(super) async fn connect(
        &mut self,
        upstream: &Upstream,
        node: &Node,
        key: &pool::Key,
    ) -> Result<h1::Connection<io::Upstream>, h1::Error> {
        // Boxed: it is rare, and every connection from a client would have to carry the room for it.
        let connecting = Box::pin(connect(upstream, node, key));
        let (stream, address) = match timeout(self.ctx.timeouts().connect, connecting).await {
            Ok(connected) => connected.map_err(h1::Error::Connect)?,
            Err(_) => return Err(h1::Error::ConnectTimeout),
        };
        let elapsed = self.ctx.started.elapsed();
        if let Some(attempt) = self.ctx.attempts.last_mut() {
            attempt.address = Some(address);
            attempt.connected = Some(elapsed.saturating_sub(self.attempted));
        }
        Ok(h1::Connection::new(stream, self.client.worker.timers.timer()))
    }

    /// The attempt came to nothing; if that was the node's doing, it is remembered.
    fn note_failure(&mut self, error: &h1::Error) {
        self.note_end();
        if let (Some(status), Some(attempt)) = (super::gateway_status(error), self.ctx.attempts.last_mut()) {
            attempt.fail(status);
        }
    }

    /// nginx's `proxy_next_upstream error timeout`: another node, unless the request may have been acted upon.
    fn may_retry(&mut self, error: &h1::Error) -> bool {
        match error {
            h1::Error::Connect(_) | h1::Error::ConnectTimeout => true,
            h1::Error::Refused(_) => self.body.rewind(),
            h1::Error::NoAnswer(_)
            | h1::Error::Reset(_)
            | h1::Error::Broken(_)
            | h1::Error::ReadTimeout
            | h1::Error::SendTimeout => {
                let written = self.link.as_ref().is_some_and(Link::has_written);
                (is_idempotent(&self.ctx.request.method) || !written) && self.body.rewind()
            }
            h1::Error::Malformed(_)
            | h1::Error::Unsendable(_)
            | h1::Error::RequestBody
            | h1::Error::MalformedBody
            | h1::Error::BodyTimeout
            | h1::Error::TooLarge => false,
        }
    }

    /// Whether the client asks for a WebSocket, and may have one. What else it would take is not passed on: most of it
    /// would speak HTTP past us.
    fn wants_upgrade(&self) -> bool {
        if self.ctx.request.version != Version::HTTP_11
            || !self.ctx.route.as_ref().is_some_and(|route| route.websocket)
        {
            return false;
        }
        let lists = self.ctx.request.headers.get_all(header::UPGRADE).iter();
        lists.flat_map(|list| check::tokens(list.as_bytes())).any(is_websocket)
    }
}

pub(super) async fn connect(
    upstream: &Upstream,
    node: &Node,
    key: &pool::Key,
) -> Result<(io::Upstream, SocketAddr), std::io::Error> {
    let unknown = || std::io::Error::new(ErrorKind::AddrNotAvailable, "its address is not known");
    let stream = TcpStream::connect(node.address.ok_or_else(unknown)?).await?;
    let address = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    if upstream.scheme.is_http2() {
        // Streams may be silent for long: the kernel finds out whether the other side is still there.
        socket2::SockRef::from(&stream).set_keepalive(true)?;
    }
    let Some(tls) = &upstream.tls else { return Ok((io::Upstream::Plain(stream), address)) };
    // A `Host` that names no server says nothing of whom we look for: whoever is there.
    let asked = key.server_name.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let name = match asked {
        Some(name) => name,
        None => ServerName::from(address.ip()),
    };
    let stream = TlsConnector::from(Arc::clone(&tls.config)).connect(name, stream).await?;
    Ok((io::Upstream::Tls(Box::new(stream)), address))
}

/// Whether the other side is known to have closed, or to have said something unasked.
fn is_at_end(stream: &io::Upstream) -> bool {
    let Some(stream) = stream.plain() else { return false };
    let mut byte = [std::mem::MaybeUninit::uninit()];
    !matches!(socket2::SockRef::from(stream).peek(&mut byte), Err(e) if e.kind() == ErrorKind::WouldBlock)
}

/// nginx's `proxy_next_upstream` without `non_idempotent`: all but these.
fn is_idempotent(method: &Method) -> bool {
    !matches!(*method, Method::POST | Method::PATCH) && method.as_str() != "LOCK"
}

fn is_websocket(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"websocket")
}
