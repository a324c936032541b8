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
mod log;

pub(super) use begin::farewell;

use std::{
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Frame;

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
    plugin::{Flow, Phase, Reply},
    pubsub::Commands,
    upstream::Scheme,
    vars::{Fixed, Var},
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
            return Ok(self.own(reply::error(lacks.unwrap_or(StatusCode::SERVICE_UNAVAILABLE))));
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

    /// The one exit of every response.
    fn respond(mut self: Box<Self>, answer: Answer) -> Response<Body> {
        self.gateway_headers();
        chain::header_filter(&mut self.ctx);
        if self.body.is_open() || self.body.is_trailed() {
            self.part();
        }
        // An upstream's answer has the upstream's `Date`, or none: as with nginx's `proxy_pass_header Date`.
        if matches!(answer, Answer::Own(_)) {
            self.ctx.response.headers.entry(header::DATE).or_insert_with(|| self.client.worker.date());
        }
        let filters = self.ctx.filters_body();
        let body = match answer {
            Answer::Own(mut bytes) if filters => {
                chain::body_filter(&mut self.ctx, &mut bytes, true);
                self.ctx.response.headers.remove(header::CONTENT_LENGTH);
                Some(bytes)
            }
            Answer::Own(bytes) => Some(bytes),
            Answer::Upstream => {
                if filters {
                    self.ctx.response.headers.remove(header::CONTENT_LENGTH);
                }
                None
            }
        };
        self.responded = true;
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = self.ctx.response.status;
        *response.headers_mut() = if self.is_head_needed() {
            self.ctx.response.headers.clone()
        } else {
            std::mem::take(&mut self.ctx.response.headers)
        };
        *response.body_mut() = match body {
            Some(bytes) => {
                self.ctx.transfer.body_sent = bytes.len() as u64;
                Body::whole(bytes)
            }
            None if response.status() == StatusCode::SWITCHING_PROTOCOLS => self.open_tunnel(),
            None => self.stream(),
        };
        response
    }

    /// `Server` is ours on every response; the upstream's own status shows where it failed.
    fn gateway_headers(&mut self) {
        let config = self.client.worker.config();
        let headers = &mut self.ctx.response.headers;
        for (name, value) in &self.ctx.preset {
            headers.append(name, value.clone());
        }
        if let Some(server) = &config.server {
            headers.insert(header::SERVER, server.clone());
        }
        if self.ctx.response.status == StatusCode::SWITCHING_PROTOCOLS {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        } else if (self.client.worker.is_leaving() || config.timeouts.keepalive.is_zero())
            && self.ctx.request.version < Version::HTTP_2
        {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let upstream = self.ctx.attempts.last().and_then(|attempt| attempt.status.or(attempt.failure));
        if upstream.is_some_and(|status| config.show_upstream_status || status.is_server_error())
            && let Some(Ok(all)) =
                Var::Fixed(Fixed::UpstreamStatus).read(&self.ctx).map(|all| HeaderValue::from_str(&all))
        {
            self.ctx.response.headers.insert(UPSTREAM_STATUS, all);
        }
    }

    /// Decides what becomes of a connection over HTTP/1 whose request has not been read to its end, or ended in doubt.
    #[cold]
    fn part(&mut self) {
        let (request, response) = (&self.ctx.request, &mut self.ctx.response);
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        // Who waits to be told whether to send a body may not send it now, and neither of us could know.
        let waits = request.headers.contains_key(header::EXPECT) && self.body.is_untouched();
        if waits || self.body.is_trailed() {
            response.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let asked = match request.version {
            Version::HTTP_11 => !says(&request.headers, b"close"),
            _ => says(&request.headers, b"keep-alive"),
        };
        self.stays = asked && !says(&response.headers, b"close");
    }

    /// Whether the log phase looks at the response's headers.
    fn is_head_needed(&self) -> bool {
        self.has_log_hooks()
            || self.client.worker.config().access_log.as_ref().is_some_and(|log| log.reads_response_head())
    }

    fn has_log_hooks(&self) -> bool {
        !self.ctx.chain.is_empty(Phase::Log) || !self.ctx.plan.global.is_empty(Phase::Log)
    }

    /// The upstream's body, unless it has ended with the head.
    fn stream(mut self: Box<Self>) -> Body {
        let ended = self.link.as_ref().is_none_or(Link::is_end);
        if ended && !self.ctx.filters_body() {
            self.release();
            return Body::Empty;
        }
        Body::Upstream(self)
    }

    /// The next frame of the upstream's body.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h1::Error>>> {
        loop {
            let Some(link) = &mut self.link else {
                self.through = true;
                return Poll::Ready(self.trailers().map(Ok));
            };
            let polled = match link.poll_frame(cx, &mut self.body, &self.limits) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(polled) => polled,
            };
            let last = !matches!(polled, Some(Ok(_))) || link.is_end();
            if last {
                self.through = true;
                self.note_end();
                self.release();
            }
            let frame = match polled {
                Some(Err(error)) => {
                    tracing::warn!(%error, route = self.ctx.route_id(), "response broke off");
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => self.pass(frame, last),
                None if self.ctx.filters_body() => self.filter(Bytes::new(), last),
                None => None,
            };
            if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
                self.ctx.transfer.body_sent += data.len() as u64;
            }
            if frame.is_some() || last {
                return Poll::Ready(frame.map(Ok));
            }
        }
    }

    /// What the client gets of a frame.
    fn pass(&mut self, frame: Frame<Bytes>, last: bool) -> Option<Frame<Bytes>> {
        match frame.into_data() {
            Ok(data) if self.ctx.filters_body() => self.filter(data, last),
            Ok(data) => Some(Frame::data(data)),
            Err(frame) => {
                self.ctx.response.trailers = frame.into_trailers().ok().map(Box::new);
                let held = if self.ctx.filters_body() { self.filter(Bytes::new(), true) } else { None };
                // What plugins have held back comes first.
                self.through = held.is_none();
                held.or_else(|| self.trailers())
            }
        }
    }

    /// Lets plugins change a piece of the body.
    fn filter(&mut self, mut data: Bytes, last: bool) -> Option<Frame<Bytes>> {
        chain::body_filter(&mut self.ctx, &mut data, last);
        (!data.is_empty()).then(|| Frame::data(data))
    }

    /// The trailers, which stay for the log.
    fn trailers(&self) -> Option<Frame<Bytes>> {
        self.ctx.response.trailers.as_deref().map(|trailers| Frame::trailers(trailers.clone()))
    }

    /// Whether nothing more comes.
    pub(super) fn is_through(&self) -> bool {
        self.through
    }

    /// The length of the body that is left, where it is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        if self.ctx.filters_body() { None } else { self.link.as_ref()?.remaining() }
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

    /// Whether the client speaks HTTP/1.1 or later, so that trailers and upgrades make sense.
    fn is_modern(&self) -> bool {
        self.ctx.request.version >= Version::HTTP_11
    }
}

/// Whether `Connection` has this token.
fn says(headers: &HeaderMap, token: &[u8]) -> bool {
    let lists = headers.get_all(header::CONNECTION).iter();
    lists.flat_map(|list| check::tokens(list.as_bytes())).any(|one| one.eq_ignore_ascii_case(token))
}
