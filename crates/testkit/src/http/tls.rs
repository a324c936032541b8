//! The client's side of TLS: with an authority it checks, without one it takes any certificate.

use std::sync::Arc;

use anyhow::{Context, Result};
use pki::Unchecked;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Options;

/// Shakes hands, and gives the certificate the server showed.
pub async fn handshake(
    stream: TcpStream,
    host: &str,
    options: &Options,
) -> Result<(TlsStream<TcpStream>, Option<Vec<u8>>)> {
    let name = ServerName::try_from(options.sni.as_deref().unwrap_or(host).to_owned())?;
    let connector = TlsConnector::from(Arc::new(config(options)?));
    let stream = connector.connect(name, stream).await.context("the TLS handshake failed")?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = shown.map(|certificate| certificate.to_vec());
    Ok((stream, certificate))
}

fn config(options: &Options) -> Result<ClientConfig> {
    let builder =
        ClientConfig::builder_with_provider(pki::provider().clone()).with_safe_default_protocol_versions()?;
    let builder = match &options.ca {
        Some(pem) => builder.with_root_certificates(pki::roots(pem.as_bytes())?),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked::default())),
    };
    let mut config = match &options.client {
        Some(pair) => builder.with_client_auth_cert(pair.chain(), pair.private_key())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![if options.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(config)
}
