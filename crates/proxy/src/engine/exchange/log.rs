//! The end of an exchange: what is counted and written, whatever became of it.

use std::time::Instant;

use http::StatusCode;

use super::{
    super::{
        pubsub,
        tunnel::{Onward, Tunnel},
    },
    Body, Exchange,
};
use crate::{
    chain,
    ctx::length_of,
    engine::link::Link,
    metrics::{Counting, Sample},
};

/// nginx's status for a client that went away before it was answered.
const CLIENT_GONE: u16 = 499;

impl Exchange {
    /// The last byte of the upstream's response has come.
    pub(super) fn note_end(&mut self) {
        let received = self.link.as_ref().map_or(0, Link::received);
        if let Some(Link::Stream(call)) = &self.link {
            self.body.received += call.uploaded();
        }
        let elapsed = self.ctx.started.elapsed();
        if let Some(attempt) = self.ctx.attempts.last_mut() {
            attempt.received = received;
            attempt.finished = Some(elapsed.saturating_sub(self.attempted));
        }
    }

    /// Leaves HTTP: hyper gives the client's stream back once the head is written.
    pub(super) fn open_tunnel(mut self: Box<Self>) -> Body {
        let client = std::rc::Rc::clone(&self.client);
        if let Some(Link::Own { connection, .. }) = self.link.take() {
            let (upstream, early) = connection.into_parts();
            let limits = self.limits;
            let tunnel = Tunnel { upstream, early, limits, exchange: self };
            client.onward.replace(Some(Onward::Tunnel(tunnel)));
        } else if let Some(commands) = self.commands.take() {
            let session = pubsub::Session { commands: *commands, exchange: self };
            client.onward.replace(Some(Onward::Messages(session)));
        }
        Body::Empty
    }

    /// What came after HTTP has ended after so many bytes.
    pub(in crate::engine) fn tunnelled(&mut self, received: u64, sent: u64) {
        self.ctx.transfer.body_sent = sent;
        self.body.received += received;
        self.note_end();
    }

    fn finish(&mut self) {
        if !self.responded {
            self.client.gives_up(self.ctx.started);
            self.ctx.response.status = StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST);
        }
        self.ctx.transfer.completed = self.responded && self.link.is_none();
        if self.link.is_some() {
            self.note_end();
            self.release();
        }
        let status = self.ctx.response.status;
        if let Some(attempt) = self.ctx.attempts.last_mut() {
            attempt.finish(status);
        }
        let log = self.client.worker.config().access_log.clone();
        if log.is_some() || self.ctx.counted().is_some() || self.has_log_hooks() {
            self.sum_up();
        }
        chain::log(&self.ctx);
        if let Some(how) = self.ctx.counted() {
            self.count(how);
        }
        if let Some(format) = log {
            self.client.worker.log.borrow_mut().write(&format, &self.ctx);
        }
    }

    /// The client's connection goes on behind the body of this request.
    #[cold]
    fn let_stay(&mut self) {
        if self.body.is_trailed() {
            self.client.spend();
        } else if let Some(body) = self.body.take_open() {
            self.client.read_on(body);
        }
    }

    /// What went over the client's connection, heads included.
    fn sum_up(&mut self) {
        let request = self.ctx.request.length();
        let transfer = &mut self.ctx.transfer;
        transfer.received = request + self.body.received;
        transfer.sent = length_of(&self.ctx.response.headers) + 64 + transfer.body_sent;
    }

    /// Counts the request in the metrics of its route.
    fn count(&self, how: Counting) {
        let ctx = &self.ctx;
        let labels = how.labels(ctx);
        let sample = Sample {
            request: ctx.started.elapsed(),
            upstream: ctx.attempts.last().and_then(|attempt| attempt.finished),
            ingress: ctx.transfer.received,
            egress: ctx.transfer.sent,
        };
        let worker = &self.client.worker;
        let metrics = &worker.shared.metrics;
        let route = ctx.route.as_ref().map_or(&metrics.unrouted, |route| &route.metrics);
        route.count(metrics, worker.id, &labels, &sample);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish();
        if self.stays {
            self.let_stay();
        }
        self.client.finish(Instant::now());
    }
}
