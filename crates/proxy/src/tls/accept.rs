//! The server's side of handshakes.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{Handshake, Offer};
use crate::plan::Plan;

/// Accepts TLS connections by the plan in force. One for all workers.
#[derive(Clone)]
pub struct Acceptor {
    /// `apisix.ssl.fallback_sni`: the name taken where the client says none.
    fallback: Option<Arc<str>>,
    /// For those who look for somebody else: says so.
    nobody: Arc<ServerConfig>,
}

/// A handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// The name the client was looking for, or the fallback.
    pub name: Option<Arc<str>>,
    pub reason: Reason,
}

#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// It went before it said anything, or the connection broke.
    #[error("the client went away: {0}")]
    Gone(#[source] io::Error),
    #[error("the client says no server name, and there is no fallback_sni")]
    Unnamed,
    #[error("no certificate for this name")]
    Unknown,
    #[error("{0}")]
    Tls(#[source] io::Error),
}

impl Acceptor {
    pub fn new(fallback_sni: Option<&str>) -> Result<Self, rustls::Error> {
        let nobody = ServerConfig::builder_with_provider(Arc::clone(pki::provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        let fallback = fallback_sni.map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
        Ok(Self { fallback, nobody: Arc::new(nobody) })
    }

    /// Shakes hands. `plan` is asked once the client has said whom it looks for.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        offer: Offer,
        plan: impl FnOnce() -> Arc<Plan>,
    ) -> Result<(TlsStream<S>, Arc<Handshake>), Failure> {
        let failure = |name: &Option<Arc<str>>, reason| Failure { name: name.clone(), reason };
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await;
        let hello = hello.map_err(|error| failure(&None, Reason::of(error)))?;
        let asked: Option<Arc<str>> = hello
            .client_hello()
            .server_name()
            .map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
        let name = asked.clone().or_else(|| self.fallback.clone());
        let found = name.as_ref().and_then(|name| plan().certificates.find(name).cloned());
        let Some(certificate) = found else {
            let _ = hello.into_stream(Arc::clone(&self.nobody)).await;
            let reason = if name.is_none() { Reason::Unnamed } else { Reason::Unknown };
            return Err(failure(&name, reason));
        };
        let config = Arc::clone(certificate.config(offer));
        let stream = hello.into_stream(config).await.map_err(|error| failure(&name, Reason::of(error)))?;
        let mut handshake = Handshake::new(stream.get_ref().1, name.unwrap_or_default(), certificate);
        handshake.asked = asked;
        Ok((stream, Arc::new(handshake)))
    }
}

impl Reason {
    fn of(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if inner.is_some() { Self::Tls(error) } else { Self::Gone(error) }
    }
}

impl Failure {
    /// Tells the log: what an operator may mend louder than what clients do.
    pub fn log(&self, client: SocketAddr) {
        let name = self.name.as_deref();
        match &self.reason {
            Reason::Gone(_) => tracing::debug!(%client, name, reason = %self, "TLS handshake not finished"),
            Reason::Unnamed | Reason::Unknown => {
                tracing::warn!(%client, name, reason = %self, "TLS handshake refused");
            }
            Reason::Tls(_) => tracing::info!(%client, name, reason = %self, "TLS handshake failed"),
        }
    }
}

/// Has no certificate for anyone.
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl fmt::Debug for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nobody")
    }
}
