//! An HTTP client that shows a test what happened on the wire: one connection, nothing retried, nothing followed.

pub(crate) mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::stream::poll_fn;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::background::handle;

/// Every call below gives up after this.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A request's body, whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A response, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub version: http::Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    pub async fn collect(response: http::Response<Incoming>) -> Result<Self> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("the body broke off")?.to_bytes();
        Ok(Self { status: head.status.as_u16(), version: head.version, headers: head.headers, body })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The values of a header that may come more than once.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }
}

/// How to connect.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where to connect to, whatever the URL says.
    pub to: Option<SocketAddr>,
    /// HTTP/2: by ALPN over TLS, by prior knowledge without.
    pub http2: bool,
    /// The name asked for in the TLS handshake, if not the URL's host.
    pub sni: Option<String>,
    /// The authority a server's certificate must come from; without it any certificate will do.
    pub ca: Option<String>,
    /// What to show a server that asks for a certificate.
    pub client: Option<crate::certs::Pair>,
    /// Bytes to send before anything else: a header of the PROXY protocol.
    pub before: Vec<u8>,
}

/// One connection, kept alive.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    authority: String,
    scheme: String,
    /// The server's certificate, DER, where there is TLS.
    pub certificate: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

impl Client {
    /// Connects to the host and port of a URL.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, &Options::default()).await
    }

    pub async fn connect_with(url: &str, options: &Options) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("not a URL: {url:?}"))?;
        let host = uri.host().context("a URL without host")?.trim_matches(['[', ']']).to_owned();
        let scheme = uri.scheme_str().unwrap_or("http").to_owned();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let authority = uri.authority().context("a URL without host")?.to_string();
        let opened = Box::pin(async {
            let stream = match options.to {
                Some(address) => TcpStream::connect(address).await,
                None => TcpStream::connect((host.as_str(), port)).await,
            };
            let mut stream = stream.with_context(|| format!("no connection to {authority}"))?;
            stream.set_nodelay(true)?;
            stream.write_all(&options.before).await?;
            if scheme != "https" {
                return Ok((Sender::open(stream, options.http2).await?, None));
            }
            let (stream, certificate) = tls::handshake(stream, &host, options).await?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            anyhow::ensure!(h2 == options.http2, "the server did not agree to HTTP/2");
            Ok((Sender::open(stream, h2).await?, certificate))
        });
        let (sender, certificate) = within(opened).await?;
        Ok(Self { sender, authority, scheme, certificate })
    }

    pub async fn get(&mut self, path: &str) -> Result<Response> {
        self.send(Method::GET, path, &[], "").await
    }

    /// Sends a request on this connection, with the URL's host as `Host` unless the headers have another.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response> {
        let mut request = Request::builder().method(method).uri(path).body(body.into())?;
        for (name, value) in headers {
            let name: HeaderName = name.parse()?;
            request.headers_mut().append(name, HeaderValue::from_str(value)?);
        }
        within(Box::pin(async { Response::collect(self.send_raw(request).await?).await })).await
    }

    /// Sends a request and gives the response before its body.
    pub async fn send_raw(&mut self, request: Request<Bytes>) -> Result<http::Response<Incoming>> {
        self.send_stream(request.map(full)).await
    }

    /// As [`Self::send_raw`], with a body that may still be on its way: see [`streamed`].
    pub async fn send_stream(&mut self, mut request: Request<Body>) -> Result<http::Response<Incoming>> {
        let target = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        match &mut self.sender {
            Sender::H1(sender) => {
                *request.uri_mut() = target.parse()?;
                let host = HeaderValue::from_str(&self.authority)?;
                request.headers_mut().entry(header::HOST).or_insert(host);
                sender.ready().await.context("the connection is closed")?;
                Ok(sender.send_request(request).await?)
            }
            Sender::H2(sender) => {
                let host = request.headers_mut().remove(header::HOST);
                let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or(&self.authority);
                *request.uri_mut() = format!("{}://{authority}{target}", self.scheme).parse()?;
                sender.ready().await.context("the connection is closed")?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }
}

impl Sender {
    async fn open(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, h2: bool) -> Result<Self> {
        let io = TokioIo::new(stream);
        // The connection lives on the background runtime: it outlasts neither its sender nor the process.
        if h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            handle().spawn(connection);
            return Ok(Self::H2(sender));
        }
        let (sender, connection) = http1::Builder::new().preserve_header_case(true).handshake(io).await?;
        handle().spawn(connection.with_upgrades());
        Ok(Self::H1(sender))
    }
}

/// GET on a connection of its own.
pub async fn get(url: &str) -> Result<Response> {
    request(Method::GET, url, &[], "").await
}

/// A request on a connection of its own.
pub async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Response> {
    request_with(&Options::default(), method, url, headers, body).await
}

/// A request on a connection of its own, made as the options say.
pub async fn request_with(
    options: &Options,
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Response> {
    let path = url.parse::<Uri>()?.path_and_query().map_or("/".to_owned(), ToString::to_string);
    Client::connect_with(url, options).await?.send(method, &path, headers, body).await
}

/// A body that is there already.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// A body that is sent piece by piece, and ends when the sender is dropped.
pub fn streamed() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, mut receiver) = mpsc::channel(1);
    let pieces =
        poll_fn(move |context| receiver.poll_recv(context).map(|piece| piece.map(|b| Ok(Frame::data(b)))));
    (sender, StreamBody::new(pieces).boxed_unsync())
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(TIMEOUT, work).await.with_context(|| format!("no answer within {TIMEOUT:?}"))?
}
