//! The one exit of every response: what becomes of its head, and which body follows.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};

use super::{Answer, Body, Exchange, UPSTREAM_STATUS, check};
use crate::{
    chain,
    ctx::Ctx,
    engine::link::Link,
    plugin::Phase,
    vars::{Fixed, Var},
};

impl Exchange {
    /// The one exit of every response.
    pub(super) fn respond(mut self: Box<Self>, answer: Answer) -> Response<Body> {
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
        if self.ctx.response.status == StatusCode::NO_CONTENT {
            self.ctx.response.headers.remove(header::CONTENT_LENGTH);
        }
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
        self.given = self.client.flushed();
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = self.ctx.response.status;
        *response.headers_mut() = if self.is_head_needed() {
            self.ctx.response.headers.clone()
        } else {
            std::mem::take(&mut self.ctx.response.headers)
        };
        *response.body_mut() = match body {
            Some(bytes) if self.has_no_body() => {
                if !bytes.is_empty() && response.status() != StatusCode::NO_CONTENT {
                    response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(bytes.len().into());
                }
                Body::Empty
            }
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
        } else if self.ctx.response.status == StatusCode::UPGRADE_REQUIRED
            && headers.contains_key(header::UPGRADE)
            && self.ctx.request.version < Version::HTTP_2
        {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
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

    pub(super) fn has_log_hooks(&self) -> bool {
        !self.ctx.chain.is_empty(Phase::Log) || !self.ctx.plan.global.is_empty(Phase::Log)
    }

    /// Whether the client gets nothing after the head, whatever there is. Over HTTP/1 hyper sees to that for HEAD.
    fn has_no_body(&self) -> bool {
        let Ctx { request, response, .. } = &self.ctx;
        matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || (request.method == Method::HEAD && request.version >= Version::HTTP_2)
    }

    /// The upstream's body, unless it has ended with the head.
    fn stream(mut self: Box<Self>) -> Body {
        let ended = self.link.as_ref().is_none_or(Link::is_end);
        let filters = self.ctx.filters_body();
        if (ended && !filters) || self.has_no_body() {
            if filters {
                self.filter(Bytes::new(), true);
            }
            self.note_end();
            self.release();
            return Body::Empty;
        }
        Body::Upstream(self)
    }
}

/// Whether `Connection` has this token.
fn says(headers: &HeaderMap, token: &[u8]) -> bool {
    let lists = headers.get_all(header::CONNECTION).iter();
    lists.flat_map(|list| check::tokens(list.as_bytes())).any(|one| one.eq_ignore_ascii_case(token))
}
