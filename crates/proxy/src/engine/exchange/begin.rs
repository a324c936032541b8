//! A request's head, from hyper's into ours, and the answer to one that never becomes a request.

use std::{borrow::Cow, rc::Rc, time::Duration};

use http::{HeaderName, HeaderValue, Request, Response, header, uri::Authority};
use model::byte_text;

use super::{
    super::h1::{Incoming, RequestBody},
    Body, Client, Exchange,
    check::{self, Refusal},
    forwarded,
};
use crate::{
    ctx::{Ctx, RequestHead, host_name},
    engine::{config::Config, h1::Limits},
    upstream,
};

impl Exchange {
    /// Takes the request over, or refuses it.
    pub(super) fn begin<B: Into<Incoming>>(
        client: &Rc<Client>,
        request: Request<B>,
    ) -> Result<Box<Self>, Refusal> {
        if client.is_spent() {
            return Err(Refusal::BAD_REQUEST);
        }
        let (mut parts, incoming) = request.into_parts();
        let uri = parts.uri.into_parts();
        let authority = uri.authority.as_ref().map(Authority::as_str);
        let target = check::target(&parts.method, uri.path_and_query, authority)?;
        let config = client.worker.config();
        let worker = &client.worker;
        let seen = check::head(&mut parts.headers, parts.version, (&target, authority), &config)?;
        let host = parts.headers.get(header::HOST).cloned();
        let real = config.real_ip.as_ref();
        let real = real.and_then(|r| r.client(client.peer, &parts.headers, client.announced.as_ref()));
        let named = authority.map(Cow::Borrowed);
        let named = named.or_else(|| Some(text(host.as_ref()?))).unwrap_or_default();
        let name = host_name(&named);
        let told = forwarded::tell(&mut parts.headers, host, seen.has_forwarded, client, &config);
        let mut head =
            RequestHead::to(name, parts.method, target, parts.headers).map_err(|_| Refusal::BAD_REQUEST)?;
        let plan = worker.plan();
        head.apply(plan.routing.paths).map_err(|_| Refusal::BAD_REQUEST)?;
        (head.version, head.scheme) = (parts.version, client.scheme);
        let body = RequestBody::new(
            incoming.into(),
            parts.version,
            config.limits.body,
            &worker.timers,
            config.timeouts.client_body,
        );
        let mut ctx = Ctx::begun(client.began(), plan, head, real.unwrap_or(client.peer), client.local);
        ctx.peer = client.peer;
        ctx.connection = client.counted();
        ctx.tls.clone_from(&client.tls);
        told.remember(&mut ctx);
        client.announce(&mut ctx);
        let timeouts = upstream::Timeouts::default();
        Ok(Box::new(Self {
            ctx,
            client: Rc::clone(client),
            body,
            link: None,
            limits: Limits { send: timeouts.send, read: timeouts.read },
            attempted: Duration::ZERO,
            responded: false,
            stays: false,
            through: false,
            upgrade: false,
            broken: None,
            given: 0,
            piece: 0,
            commands: None,
        }))
    }
}

/// A host as a text. Nearly every one is of ASCII, which is seen sooner than that it is UTF-8.
fn text(host: &HeaderValue) -> Cow<'_, str> {
    host.to_str().map_or_else(|_| byte_text::read(host.as_bytes()), Cow::Borrowed)
}

/// The answer to a request that never becomes one. It is the connection's last.
pub(super) fn refuse(client: &Client, refusal: Refusal) -> Response<Body> {
    let reply = refusal.reply();
    client.log_refused(reply.status, reply.body.len());
    client.finish(std::time::Instant::now());
    let mut response = Response::new(Body::whole(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response.headers_mut().insert(header::DATE, client.worker.date());
    response.headers_mut().extend(farewell(&client.worker.config()));
    response
}

/// What we say of ourselves and of the connection, with its last answer.
pub(in crate::engine) fn farewell(config: &Config) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let server = config.server.clone().map(|server| (header::SERVER, server));
    server.into_iter().chain([(header::CONNECTION, HeaderValue::from_static("close"))])
}
