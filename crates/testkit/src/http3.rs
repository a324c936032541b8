//! An HTTP/3 client: one connection over QUIC, nothing retried.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3_quinn::{OpenStreams, RecvStream, SendStream};
use http::{Method, Request};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};
use rustls::RootCertStore;

use crate::background::{Task, handle};
use crate::http::{Response, TIMEOUT};

/// One connection.
pub struct Client {
    sender: SendRequest<OpenStreams, Bytes>,
    name: String,
    driver: Task,
    endpoint: Endpoint,
}

/// A request of which both sides are open.
pub struct Exchange {
    up: RequestStream<SendStream<Bytes>, Bytes>,
    down: RequestStream<RecvStream, Bytes>,
}

impl Client {
    /// Connects, where the certificate is for `name` and from the authority `ca`.
    pub async fn connect(address: SocketAddr, name: &str, ca: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pki::certificates(ca.as_bytes())?);
        let mut tls = rustls::ClientConfig::builder_with_provider(pki::provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let name = name.to_owned();
        // All of it lives on the background runtime.
        let opened = handle().spawn(async move {
            let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
            let connection = endpoint.connect_with(config, address, &name)?.await?;
            let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
            let driver = Task::spawn(async move {
                poll_fn(|cx| driver.poll_close(cx)).await;
            });
            Ok::<_, anyhow::Error>(Self { sender, name, driver, endpoint })
        });
        tokio::time::timeout(TIMEOUT, opened).await.context("no connection in time")??
    }

    pub async fn get(&mut self, path: &str) -> Result<Response> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Sends a request and reads the response to its end.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response> {
        let Exchange { mut up, down } = self.begin(method, path).await?;
        let write = async {
            if !body.is_empty() {
                up.send_data(body).await?;
            }
            Ok(up.finish().await?)
        };
        let both = async { tokio::try_join!(write, read_all(down)) };
        Ok(tokio::time::timeout(TIMEOUT, both).await.context("no answer in time")??.1)
    }

    /// Sends the head of a request.
    pub async fn begin(&mut self, method: Method, path: &str) -> Result<Exchange> {
        let uri = format!("https://{}{path}", self.name);
        let request = Request::builder().method(method).uri(uri).body(())?;
        self.begin_with(request).await
    }

    /// Sends this head of a request as it is, with a target in absolute form.
    pub async fn begin_with(&mut self, request: Request<()>) -> Result<Exchange> {
        let (up, down) = self.sender.send_request(request).await?.split();
        Ok(Exchange { up, down })
    }

    /// Whether the server has ended the connection.
    pub fn is_closed(&self) -> bool {
        self.driver.is_finished() || self.endpoint.open_connections() == 0
    }
}

impl Drop for Client {
    /// Says so to the server, whatever else holds the connection.
    fn drop(&mut self) {
        self.endpoint.close(0_u32.into(), b"");
    }
}

impl Exchange {
    pub async fn write(&mut self, piece: impl Into<Bytes>) -> Result<()> {
        Ok(self.up.send_data(piece.into()).await?)
    }

    /// Ends our side.
    pub async fn end(&mut self) -> Result<()> {
        Ok(self.up.finish().await?)
    }

    /// The head of the answer.
    pub async fn head(&mut self) -> Result<http::Response<()>> {
        Ok(self.down.recv_response().await?)
    }

    /// The next piece of the answer.
    pub async fn read(&mut self) -> Result<Option<Bytes>> {
        piece(&mut self.down).await
    }
}

async fn piece(down: &mut RequestStream<RecvStream, Bytes>) -> Result<Option<Bytes>> {
    Ok(down.recv_data().await?.map(|mut piece| piece.copy_to_bytes(piece.remaining())))
}

async fn read_all(mut down: RequestStream<RecvStream, Bytes>) -> Result<Response> {
    let (head, ()) = down.recv_response().await?.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = piece(&mut down).await? {
        body.extend_from_slice(&piece);
    }
    let (status, version) = (head.status.as_u16(), head.version);
    Ok(Response { status, version, headers: head.headers, body: body.into() })
}
