//! What a handshake has settled, and which requests its connection may carry.

use std::sync::Arc;

use rustls::{
    CertificateError, CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
    crypto::SupportedKxGroup,
    pki_types::{CertificateDer, UnixTime},
};

use super::{Certificate, Certificates};

/// What a handshake has settled. Requests of its connection share it.
pub struct Handshake {
    /// The name the client asked for.
    pub asked: Option<Arc<str>>,
    /// The name the certificate was chosen by: that, or the fallback.
    pub name: Arc<str>,
    pub certificate: Arc<Certificate>,
    pub version: Option<ProtocolVersion>,
    pub suite: Option<CipherSuite>,
    pub group: Option<NamedGroup>,
    /// By ALPN.
    pub protocol: Option<Box<[u8]>>,
    pub resumed: bool,
    /// None: it showed no certificate.
    pub client: Option<Peer>,
}

/// The client, by its certificate.
pub struct Peer {
    pub certificate: CertificateDer<'static>,
    /// Whether it is one of those the certificate asks for, or why not.
    pub verified: Result<(), CertificateError>,
}

/// Why a request is not served on its connection.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("client certificate was not present")]
    NotPresent,
    #[error("client certificate verification is not passed: {0}")]
    NotVerified(CertificateError),
    #[error("client certificate verified with SNI {0}, but the host is {1}")]
    AnotherHost(Arc<str>, Box<str>),
}

impl Handshake {
    pub(super) fn new(connection: &ServerConnection, name: Arc<str>, certificate: Arc<Certificate>) -> Self {
        let clients = certificate.clients.as_deref();
        let client = connection.peer_certificates().and_then(<[_]>::split_first).map(|(own, others)| {
            // Otherwise the handshake has seen to it.
            let lenient = clients.filter(|clients| clients.is_lenient());
            let verified = lenient.map_or(Ok(()), |clients| clients.verify(own, others, UnixTime::now()));
            Peer { certificate: own.clone().into_owned(), verified }
        });
        Self {
            asked: None,
            name,
            version: connection.protocol_version(),
            suite: connection.negotiated_cipher_suite().map(|suite| suite.suite()),
            group: connection.negotiated_key_exchange_group().map(SupportedKxGroup::name),
            protocol: connection.alpn_protocol().map(Into::into),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client,
            certificate,
        }
    }

    /// One within QUIC, by what the client asked for and the fallback.
    pub(crate) fn over_quic(
        asked: Option<&str>,
        fallback: Option<&str>,
        certificate: Arc<Certificate>,
    ) -> Self {
        let name = |name: &str| -> Arc<str> { name.trim_end_matches('.').to_ascii_lowercase().into() };
        Self {
            asked: asked.map(name),
            name: asked.or(fallback).map(name).unwrap_or_default(),
            certificate,
            version: Some(ProtocolVersion::TLSv1_3),
            suite: None,
            group: None,
            protocol: Some((*b"h3").into()),
            resumed: false,
            client: None,
        }
    }

    /// Why a request to this host and path may not be served here; `certificates` are those of its plan.
    ///
    /// Who has proved to one name who it is has proved it to no other.
    pub fn refusal(&self, certificates: &Certificates, host: &str, path: &str) -> Option<Refusal> {
        if let Some(clients) = &self.certificate.clients
            && clients.is_lenient()
            && !clients.skips(path)
        {
            match &self.client {
                None => return Some(Refusal::NotPresent),
                Some(Peer { verified: Err(error), .. }) => return Some(Refusal::NotVerified(error.clone())),
                Some(_) => {}
            }
        }
        if !certificates.is_asking() || *self.name == *host {
            return None;
        }
        let asks = certificates.find(host).is_some_and(|certificate| certificate.clients.is_some());
        asks.then(|| Refusal::AnotherHost(Arc::clone(&self.name), host.into()))
    }
}
