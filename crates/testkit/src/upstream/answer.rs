//! What the upstream answers to a path.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};

use super::{Behaviour, REMEMBERED, Seen, Shared};
use crate::background::handle;
use crate::ws;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a cut answer promises, more than it is ever cut after.
const PROMISED: usize = 1 << 30;

impl Shared {
    /// An error closes the connection without an answer.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        connection: u64,
    ) -> io::Result<Response<Body>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let behaviour = *self.behaviour.lock().unwrap();
        let mut response = match behaviour {
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Cut(0) => {
                self.remember(request, connection).await?;
                return Err(io::Error::other("cut, as ordered"));
            }
            Behaviour::Cut(after) => {
                self.remember(request, connection).await?;
                cut(after)
            }
            Behaviour::Status(status) => {
                self.remember(request, connection).await?;
                reply(status, "text/plain", "")
            }
            Behaviour::Slow(pause) => {
                tokio::time::sleep(pause).await;
                self.by_path(request, peer, connection).await?
            }
            Behaviour::Answer => self.by_path(request, peer, connection).await?,
        };
        let name = HeaderValue::from_str(&self.name).map_err(io::Error::other)?;
        response.headers_mut().insert("x-upstream", name);
        Ok(response)
    }

    async fn by_path(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        connection: u64,
    ) -> io::Result<Response<Body>> {
        let path = request.uri().path().to_owned();
        let (first, rest) =
            path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        if first == "echo" || first == "ws" {
            self.keep(seen(&request, Bytes::new(), connection));
            return Ok(if first == "ws" { self.upgrade(&mut request) } else { echo(request) });
        }
        let seen = self.remember(request, connection).await?;
        Ok(match first {
            "ip" => json_reply(&json!({ "origin": origin(&seen.headers, peer) })),
            "headers" => json_reply(&json!({ "headers": names_as_sent(&seen.headers) })),
            "get" => json_reply(&Value::Object(basics(&seen, peer))),
            "anything" => json_reply(&anything(&seen, peer)),
            "status" => reply(rest.parse().unwrap_or(400), "text/html; charset=utf-8", ""),
            "delay" => {
                tokio::time::sleep(Duration::from_secs_f64(rest.parse().unwrap_or(0.0))).await;
                json_reply(&Value::Object(basics(&seen, peer)))
            }
            "bytes" => reply(200, "application/octet-stream", vec![b'k'; rest.parse().unwrap_or(0)]),
            "stream" => lines(rest.parse().unwrap_or(10), pause(&seen)),
            _ => reply(404, "text/plain", "no such path on the test upstream\n"),
        })
    }

    fn upgrade(&self, request: &mut Request<Incoming>) -> Response<Body> {
        let Some(key) = ws::requested(request.headers()) else {
            return reply(426, "text/plain", "a WebSocket only\n");
        };
        let accept = ws::accept_key(key);
        let upgraded = hyper::upgrade::on(request);
        let mut stopped = self.stopped.subscribe();
        handle().spawn(async move {
            let Ok(stream) = upgraded.await else { return };
            tokio::select! {
                _ = ws::Socket::server(TokioIo::new(stream)).echo() => {}
                _ = stopped.changed() => {}
            }
        });
        let mut response = reply(101, "", "");
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    }

    async fn remember(&self, request: Request<Incoming>, connection: u64) -> io::Result<Seen> {
        let mut seen = seen(&request, Bytes::new(), connection);
        seen.body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        self.keep(seen.clone());
        Ok(seen)
    }

    fn keep(&self, seen: Seen) {
        let mut kept = self.seen.lock().unwrap();
        if kept.len() == REMEMBERED {
            kept.pop_front();
        }
        kept.push_back(seen);
    }
}

fn seen(request: &Request<Incoming>, body: Bytes, connection: u64) -> Seen {
    Seen {
        method: request.method().clone(),
        uri: request.uri().clone(),
        version: request.version(),
        headers: request.headers().clone(),
        body,
        connection,
    }
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().map_err(io::Error::other).boxed_unsync());
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

fn cut(after: usize) -> Response<Body> {
    let part = stream::iter([
        Ok(Frame::data(Bytes::from(vec![b'k'; after]))),
        Err(io::Error::other("cut, as ordered")),
    ]);
    // Let the part reach the wire before the error takes the connection down.
    let part = part.then(|frame| async {
        if frame.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        frame
    });
    let mut response = Response::new(StreamBody::new(part).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(PROMISED));
    response
}

fn lines(count: usize, pause: Duration) -> Response<Body> {
    let lines = stream::iter(0..count).then(move |number| async move {
        if number > 0 {
            tokio::time::sleep(pause).await;
        }
        Ok(Frame::data(Bytes::from(format!("line {number}\n"))))
    });
    Response::new(StreamBody::new(lines).boxed_unsync())
}

fn json_reply(value: &Value) -> Response<Body> {
    reply(200, "application/json", format!("{value:#}\n"))
}

fn reply(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn anything(seen: &Seen, peer: SocketAddr) -> Value {
    let mut answer = basics(seen, peer);
    let data = String::from_utf8_lossy(&seen.body).into_owned();
    answer.insert("method".into(), seen.method.as_str().into());
    answer.insert("json".into(), serde_json::from_str(&data).unwrap_or(Value::Null));
    answer.insert("data".into(), data.into());
    Value::Object(answer)
}

fn basics(seen: &Seen, peer: SocketAddr) -> Map<String, Value> {
    let args = form_urlencoded::parse(seen.uri.query().unwrap_or_default().as_bytes());
    let args: Map<String, Value> = args.map(|(name, value)| (name.into_owned(), value.into())).collect();
    let host = seen.uri.host().unwrap_or_else(|| seen.header("host"));
    let path = seen.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut answer = Map::new();
    answer.insert("args".into(), args.into());
    answer.insert("headers".into(), names_as_sent(&seen.headers));
    answer.insert("origin".into(), origin(&seen.headers, peer).into());
    answer.insert("url".into(), format!("http://{host}{path}").into());
    answer
}

/// Headers as an object, their names written as httpbin writes them; repeated ones joined.
fn names_as_sent(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        object.insert(title_case(name.as_str()), values.join(",").into());
    }
    object.into()
}

fn title_case(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

fn origin(headers: &HeaderMap, peer: SocketAddr) -> String {
    let forwarded = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    forwarded.map_or_else(|| peer.ip().to_string(), str::to_owned)
}

fn pause(seen: &Seen) -> Duration {
    let query = seen.uri.query().unwrap_or_default();
    let ms = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "ms");
    Duration::from_millis(ms.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
}
