//! The way to an upstream that speaks HTTP/2: a stream of a connection that is there, or of a new one.
//!
//! The rule to know: what the node says it did not look at is sent again, whatever it is.

use std::{io::Error, rc::Rc, sync::Arc};

use tokio::{task::yield_now, time::timeout};

use super::{super::forward_head, Exchange, forward::connect};
use crate::{
    engine::{
        h1,
        h2::{Call, Lane, Place},
        link::Link,
    },
    upstream::{Node, Upstream, pool},
};

impl Exchange {
    /// Sends the request to `node`.
    pub(super) async fn call(
        &mut self,
        upstream: &Arc<Upstream>,
        node: &Arc<Node>,
    ) -> Result<h1::Head, h1::Error> {
        let key = self.key(upstream, node);
        let mut fresh = false;
        loop {
            let idle = if fresh { None } else { self.find(&key).await };
            let reused = idle.is_some();
            let lane = match idle {
                Some(lane) => {
                    self.note_reuse();
                    lane
                }
                None => self.dial(upstream, node, &key).await?,
            };
            if let Some(attempt) = self.ctx.attempts.last_mut() {
                attempt.address = Some(lane.address);
            }
            match self.exchange(upstream, node, Rc::clone(&lane)).await {
                Err(error @ h1::Error::Refused(_)) if reused => {
                    lane.retire();
                    self.link = None;
                    if !self.body.rewind() {
                        return Err(error);
                    }
                    fresh = true;
                }
                Err(h1::Error::ReadTimeout) => {
                    // It may be dead without anyone knowing: nobody else should have to wait.
                    lane.retire();
                    return Err(h1::Error::ReadTimeout);
                }
                other => return other,
            }
        }
    }

    async fn exchange(
        &mut self,
        upstream: &Upstream,
        node: &Node,
        lane: Rc<Lane>,
    ) -> Result<h1::Head, h1::Error> {
        let host = upstream.host(&self.ctx, node);
        let head = forward_head::for_stream(&self.ctx, &self.client, host, self.body.length())?;
        let place = Place::take(lane, upstream.keepalive);
        let call = Call::begin(place, head, &self.body, self.client.worker.timers.timer())?;
        let Link::Stream(call) = self.link.insert(Link::Stream(call)) else {
            unreachable!("it was just put there")
        };
        call.exchange(&mut self.body, &self.limits).await
    }

    /// A connection that is there and takes another request, as far as can be told.
    async fn find(&self, key: &pool::Key) -> Option<Rc<Lane>> {
        loop {
            let lane = self.client.worker.lanes.borrow_mut().find(key)?;
            if !lane.is_idle() {
                return Some(lane);
            }
            // Its task may not have been told yet that it was closed: the runtime looks for that first.
            yield_now().await;
            if !lane.is_retired() {
                return Some(lane);
            }
        }
    }

    /// A new connection, or the one that somebody else is just making.
    async fn dial(
        &mut self,
        upstream: &Arc<Upstream>,
        node: &Arc<Node>,
        key: &pool::Key,
    ) -> Result<Rc<Lane>, h1::Error> {
        let worker = &self.client.worker;
        let dial = worker.lanes.borrow_mut().dial(key, || {
            let (upstream, node, key) = (Arc::clone(upstream), Arc::clone(node), key.clone());
            let worker = Rc::clone(worker);
            Box::pin(async move {
                let (stream, address) = connect(&upstream, &node, &key).await.map_err(Rc::new)?;
                let lane = Lane::open(stream, address).await.map_err(Rc::new)?;
                worker.lanes.borrow_mut().add(key, Rc::clone(&lane));
                Ok(lane)
            })
        });
        let lane = match timeout(self.ctx.timeouts().connect, dial).await {
            Ok(Ok(lane)) => lane,
            Ok(Err(error)) => return Err(h1::Error::Connect(again(&error))),
            Err(_) => return Err(h1::Error::ConnectTimeout),
        };
        let elapsed = self.ctx.started.elapsed();
        if let Some(attempt) = self.ctx.attempts.last_mut() {
            attempt.connected = Some(elapsed.saturating_sub(self.attempted));
        }
        Ok(lane)
    }
}

/// The same error for another who waited.
fn again(error: &Error) -> Error {
    match error.raw_os_error() {
        Some(code) => Error::from_raw_os_error(code),
        None => Error::new(error.kind(), error.to_string()),
    }
}
