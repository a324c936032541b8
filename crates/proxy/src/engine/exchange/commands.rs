//! The way to a messaging system: not a request sent on, but a client that is listened to.

use std::sync::Arc;

use http::{StatusCode, Version};

use super::{Answer, Exchange};
use crate::{
    engine::{pubsub, reply},
    pubsub::{Brokers, Commands},
    upstream::Upstream,
};

impl Exchange {
    /// The answer with which HTTP ends and the client may command, if it asks for that.
    pub(super) async fn commands(&mut self, upstream: &Arc<Upstream>) -> Answer {
        let request = Some(&self.ctx.request).filter(|request| request.version == Version::HTTP_11);
        let Some(headers) = request.and_then(pubsub::accept) else {
            tracing::info!(client = %self.ctx.client, route = self.ctx.route_id(), "no WebSocket is asked for");
            return self.own(reply::error(StatusCode::BAD_REQUEST));
        };
        let nodes = upstream.nodes.settled().await;
        let mut addresses: Vec<String> = nodes.nodes.iter().map(|node| node.authority.to_string()).collect();
        addresses.dedup();
        if addresses.is_empty() {
            tracing::warn!(upstream = &*upstream.name, "no broker is known");
            return self.own(reply::error(StatusCode::SERVICE_UNAVAILABLE));
        }
        let tls = upstream.tls.as_ref().map(|tls| Arc::clone(&tls.config));
        let brokers = Brokers { addresses, tls, sasl: self.ctx.sasl.take().map(|sasl| *sasl) };
        self.commands = Some(Box::new(Commands::new(brokers, self.ctx.timeouts().read)));
        self.ctx.response.status = StatusCode::SWITCHING_PROTOCOLS;
        self.ctx.response.headers = headers;
        Answer::Upstream
    }
}
