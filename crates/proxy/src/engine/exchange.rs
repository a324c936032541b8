//! One request from its head to its log.
//!
//! The rule to know: there is one exit. Whatever answers, a plugin, an upstream or an error, the response goes through
//! [`Exchange::respond`], and whatever becomes of it, the exchange is dropped once, and dropping it writes the log.

mod begin;
mod call;
mod check;
mod commands;
mod forward;
mod forwarded;
mod frames;
mod log;
mod respond;

pub(super) use begin::farewell;

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};

use super::{
    body::Body,
    client::Client,
    h1::{self, RequestBody},
    link::Link,
    reply,
};
use crate::{
    chain,
    ctx::Ctx,
    plugin::{Flow, Reply},
    pubsub::Commands,
    upstream::Scheme,
};

const UPSTREAM_STATUS: HeaderName = HeaderName::from_static("x-apisix-upstream-status");

/// One request on its way through the engine.
pub struct Exchange {
    pub(super) ctx: Ctx,
    client: Rc<Client>,
    body: RequestBody,
    link: Option<Link>,
    limits: h1::Limits,
    /// When the current attempt began, counted from the request's start.
    attempted: Duration,
    /// Whether a response was given to the client's connection.
    responded: bool,
    /// Whether the client's connection takes another request once the rest of this one's body has been read.
    stays: bool,
    /// Whether the last frame has gone by.
    through: bool,
    /// Whether `Upgrade` goes to the upstream.
    upgrade: bool,
    /// Why the upstream's body broke off, until what came before has gone out.
    broken: Option<Box<h1::Error>>,
    /// How often everything had gone out to the client when the last piece was given.
    given: u32,
    /// Bytes of that piece.
    piece: usize,
    /// Whoever answers the client once HTTP has ended, where the upstream is a messaging system.
    commands: Option<Box<Commands>>,
}

/// Where a response's body comes from.
enum Answer {
    Own(Bytes),
    /// An upstream, or nowhere: HTTP ends with the head.
    Upstream,
}

/// What a client is told where the node, or the way to it, is at fault.
fn gateway_status(error: &h1::Error) -> Option<StatusCode> {
    match error {
        h1::Error::Connect(_)
        | h1::Error::NoAnswer(_)
        | h1::Error::Refused(_)
        | h1::Error::Reset(_)
        | h1::Error::Broken(_)
        | h1::Error::Malformed(_) => Some(StatusCode::BAD_GATEWAY),
        h1::Error::ConnectTimeout | h1::Error::ReadTimeout | h1::Error::SendTimeout => {
            Some(StatusCode::GATEWAY_TIMEOUT)
        }
        h1::Error::Unsendable(_)
        | h1::Error::TooLarge
        | h1::Error::BodyTimeout
        | h1::Error::MalformedBody
        | h1::Error::RequestBody => None,
    }
}

/// Serves one request. An error ends the connection.
pub async fn serve<B: Into<h1::Incoming>>(
    client: Rc<Client>,
    request: Request<B>,
) -> Result<Response<Body>, h1::Error> {
    client.begin(request.version());
    client.worker.counters.request();
    let mut exchange = match Exchange::begin(&client, request) {
        Ok(exchange) => exchange,
        Err(refusal) => return Ok(begin::refuse(&client, refusal)),
    };
    let answer = match exchange.answer().await {
        Ok(answer) => answer,
        Err(error) => exchange.fail(error)?,
    };
    Ok(exchange.respond(answer))
}

impl Exchange {
    /// Finds out what to answer: `ctx.response` and where its body comes from.
    async fn answer(&mut self) -> Result<Answer, h1::Error> {
        if let Some(tls) = &self.ctx.tls
            && let Some(refusal) =
                tls.refusal(&self.ctx.plan.certificates, self.ctx.request.host(), self.ctx.request.path())
        {
            tracing::warn!(client = %self.ctx.client, %refusal, "request refused");
            return Ok(self.own(reply::error(StatusCode::BAD_REQUEST)));
        }
        let mut matched = self.ctx.find_route();
        while let Some(limit) = self.ctx.inquiry.wanted() {
            // Boxed: it is rare, and every request would have to carry the room for it.
            let read = Box::pin(self.body.read_ahead(limit)).await?;
            self.ctx.inquiry.tried(limit);
            self.ctx.body = read;
            matched = self.ctx.find_route();
        }
        if let Flow::Reply(reply) = chain::on_request(&mut self.ctx).await {
            return Ok(self.own(reply));
        }
        if !matched {
            let configured = self.ctx.plan.is_configured;
            return Ok(self.own(if configured { reply::no_route() } else { reply::no_configuration() }));
        }
        if let Some(body) = self.ctx.body.clone() {
            self.body.replace(body);
        }
        if self.body.is_too_large() {
            return Ok(self.last(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let Some(upstream) = self.ctx.upstream.clone() else {
            let lacks = self.ctx.route.as_ref().and_then(|route| route.lacks);
            return Ok(self.own(match lacks {
                Some(StatusCode::NOT_FOUND) => reply::no_route(),
                lacks => reply::error(lacks.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)),
            }));
        };
        if upstream.scheme == Scheme::Kafka {
            // Boxed: it is rare, and every request would have to carry the room for it.
            return Ok(Box::pin(self.commands(&upstream)).await);
        }
        self.forward(&upstream).await
    }

    /// An answer of the gateway's own.
    fn own(&mut self, reply: Reply) -> Answer {
        let reply = reply::complete(reply);
        self.ctx.response.status = reply.status;
        self.ctx.response.headers = reply.headers;
        Answer::Own(reply.body)
    }

    /// An error of the client's, after which its connection is of no use: nobody reads what it still sends.
    fn last(&mut self, status: StatusCode) -> Answer {
        let client = self.ctx.client;
        tracing::info!(%client, status = status.as_u16(), route = self.ctx.route_id(), "request refused");
        let answer = self.own(reply::error(status));
        if self.ctx.request.version < Version::HTTP_2 {
            self.ctx.response.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// What the client gets for a failure; an error where it can be given nothing.
    fn fail(&mut self, error: h1::Error) -> Result<Answer, h1::Error> {
        self.link = None;
        let status = match (gateway_status(&error), &error) {
            (Some(status), _) => status,
            (None, h1::Error::Unsendable(_)) => StatusCode::BAD_REQUEST,
            (None, h1::Error::TooLarge) => return Ok(self.last(StatusCode::PAYLOAD_TOO_LARGE)),
            (None, h1::Error::BodyTimeout) => return Ok(self.last(StatusCode::REQUEST_TIMEOUT)),
            (None, h1::Error::MalformedBody) => return Ok(self.last(StatusCode::BAD_REQUEST)),
            (None, _) => return Err(error),
        };
        let node = self.ctx.node().map(|node| &*node.label);
        tracing::warn!(%error, node, route = self.ctx.route_id(), "request failed");
        Ok(self.own(reply::error(status)))
    }

    /// Gives the upstream's connection back to the pool, if another request may use it.
    fn release(&mut self) {
        let Some(Link::Own { key, connection }) = self.link.take() else { return };
        let Some(upstream) = &self.ctx.upstream else { return };
        if connection.is_reusable() && connection.requests < upstream.keepalive.requests {
            // Its end was just noted, unless it ended with its head.
            let ended = self.ctx.attempts.last().and_then(|attempt| attempt.finished);
            let now = ended.map_or_else(Instant::now, |ended| self.ctx.started + self.attempted + ended);
            self.client.worker.pool.borrow_mut().put(key, connection, now, &upstream.keepalive);
        }
    }
}
