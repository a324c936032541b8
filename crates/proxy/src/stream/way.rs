//! From a session that has begun to the node it is passed on to.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use http::StatusCode;
use tokio::time::timeout;

use crate::{
    chain,
    ctx::{Attempt, Ctx},
    plugin::Flow,
    upstream::{Node, Upstream},
};

/// Finds the session's route and asks its plugins. An error is the status the session ends with.
pub(super) async fn admit(ctx: &mut Ctx) -> Result<Arc<Upstream>, StatusCode> {
    if !ctx.find_stream_route() {
        tracing::info!(client = %ctx.client, server = %ctx.server, "no stream route for this session");
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    if let Flow::Reply(reply) = chain::preread(ctx).await {
        return Err(rejected(reply.status));
    }
    ctx.upstream.clone().ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// What nginx's streams know of a plugin's status.
fn rejected(status: StatusCode) -> StatusCode {
    match status.as_u16() {
        400 | 403 | 502 | 503 => status,
        401..500 => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Tries nodes until `connect` has reached one. An error is the status the session ends with.
pub(super) async fn reach<T>(
    ctx: &mut Ctx,
    upstream: &Upstream,
    mut connect: impl AsyncFnMut(&Node) -> io::Result<(T, SocketAddr)>,
) -> Result<T, StatusCode> {
    let began = Instant::now();
    let nodes = upstream.nodes.settled().await;
    let mut left = upstream.retries(&nodes);
    loop {
        let Some(chosen) = nodes.pick(ctx) else {
            tracing::warn!(upstream = &*upstream.name, "no node is left to try");
            return Err(StatusCode::BAD_GATEWAY);
        };
        let node = Arc::clone(&chosen.node);
        let mut attempt = Attempt::new(chosen);
        let started = Instant::now();
        let reached = timeout(upstream.timeouts.connect, connect(&node)).await;
        let (error, status) = match reached {
            Ok(Ok((reached, address))) => {
                attempt.address = Some(address);
                attempt.connected = Some(started.elapsed());
                ctx.attempts.push(attempt);
                return Ok(reached);
            }
            Ok(Err(error)) => (error, StatusCode::BAD_GATEWAY),
            Err(_) => (io::ErrorKind::TimedOut.into(), StatusCode::GATEWAY_TIMEOUT),
        };
        attempt.finished = Some(started.elapsed());
        attempt.fail(status);
        ctx.attempts.push(attempt);
        tracing::warn!(%error, client = %ctx.client, node = &*node.label, "a node can't be reached");
        let late = !upstream.retry_timeout.is_zero() && began.elapsed() > upstream.retry_timeout;
        if left == 0 || late {
            return Err(StatusCode::BAD_GATEWAY);
        }
        left -= 1;
    }
}
