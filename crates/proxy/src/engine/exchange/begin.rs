//! A request's head, from hyper's into ours, and what is refused before anything is looked up.

use std::{rc::Rc, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
    uri::Authority,
};
use hyper::body::Incoming;

use super::{super::h1::RequestBody, Body, Client, Exchange};
use crate::{
    ctx::{Ctx, RequestHead},
    engine::{h1::Limits, reply},
    upstream,
};

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Exchange {
    /// Takes the request over, or refuses it.
    pub(super) fn begin(client: &Rc<Client>, request: Request<Incoming>) -> Result<Box<Self>, StatusCode> {
        let (mut parts, incoming) = request.into_parts();
        let uri = parts.uri.into_parts();
        let authority = uri.authority.as_ref().map(Authority::as_str);
        let Some(target) = uri.path_and_query.filter(|_| parts.method != Method::CONNECT) else {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        };
        check(&mut parts.headers, parts.version, authority)?;
        forwarded(&mut parts.headers, client);
        let mut head = RequestHead::new(parts.method, target, parts.headers, authority)
            .map_err(|_| StatusCode::BAD_REQUEST)?;
        (head.version, head.scheme) = (parts.version, client.scheme);
        let config = client.worker.config();
        let worker = &client.worker;
        let body =
            RequestBody::new(incoming, config.limits.body, &worker.timers, config.timeouts.client_body);
        let mut ctx = Ctx::new(client.worker.plan(), head, client.peer, client.local);
        ctx.tls.clone_from(&client.tls);
        let timeouts = upstream::Timeouts::default();
        Ok(Box::new(Self {
            ctx,
            client: Rc::clone(client),
            body,
            link: None,
            limits: Limits { send: timeouts.send, read: timeouts.read },
            attempted: Duration::ZERO,
            responded: false,
            through: false,
            upgrade: false,
        }))
    }
}

/// One host, and a body whose end nobody can dispute.
fn check(headers: &mut HeaderMap, version: Version, authority: Option<&str>) -> Result<(), StatusCode> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let named = hosts.next().is_some();
    if hosts.next().is_some() {
        return Err(StatusCode::BAD_REQUEST);
    }
    if !named {
        // HTTP/2 names the host in `:authority`; everything after us looks for `Host`.
        match authority.map(HeaderValue::from_str) {
            Some(Ok(host)) => {
                headers.insert(header::HOST, host);
            }
            None if version < Version::HTTP_11 => {}
            _ => return Err(StatusCode::BAD_REQUEST),
        }
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    Ok(())
}

/// Says how the request reached us. What the client says of that counts only if it is trusted.
fn forwarded(headers: &mut HeaderMap, client: &Client) {
    let config = client.worker.config();
    if !config.trusted.is_empty() {
        let peer = client.peer.ip().to_canonical();
        if config.trusted.iter().any(|net| net.contains(&peer)) {
            let observed = [
                (FORWARDED_PROTO, HeaderValue::from_static(client.scheme)),
                (FORWARDED_HOST, host(headers)),
                (FORWARDED_PORT, port(headers, client)),
            ];
            for (name, value) in observed {
                headers.entry(name).or_insert(value);
            }
            return;
        }
        headers.remove(FORWARDED_FOR);
    }
    let (host, port) = (host(headers), port(headers, client));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    headers.insert(FORWARDED_HOST, host);
    headers.insert(FORWARDED_PORT, port);
    headers.remove(header::FORWARDED);
}

fn host(headers: &HeaderMap) -> HeaderValue {
    headers.get(header::HOST).cloned().unwrap_or(HeaderValue::from_static(""))
}

/// The port in `Host`, or ours.
fn port(headers: &HeaderMap, client: &Client) -> HeaderValue {
    let host = headers.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let digits = host.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, port) = host.split_at(host.len() - digits);
    if port.is_empty() || before.last() != Some(&b':') || port == client.port_text.as_bytes() {
        return client.port_text.clone();
    }
    HeaderValue::from_bytes(port).unwrap_or_else(|_| client.port_text.clone())
}

/// A request that never becomes one.
pub(super) fn refuse(client: &Client, status: StatusCode) -> Response<Body> {
    client.finish(std::time::Instant::now());
    let page = reply::error(status);
    let mut response = Response::new(Body::whole(page.body));
    *response.status_mut() = status;
    *response.headers_mut() = page.headers;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(server) = &client.worker.config().server {
        response.headers_mut().insert(header::SERVER, server.clone());
    }
    response
}
