//! One `ssls` resource, ready for handshakes.

use std::{fmt, sync::Arc};

use model::resource::{Ssl, SslType};
use rustls::{
    ServerConfig, SignatureAlgorithm, SupportedProtocolVersion,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use smallvec::SmallVec;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

use super::{Clients, Settings, Staple, resumption};
use crate::lasting::Lasting;

/// The certificates of one `ssls` resource and the names they stand for.
pub struct Certificate {
    /// The resource's id.
    pub id: Arc<str>,
    /// Lower case; a `*` in front stands for what is in one label.
    pub names: Vec<Arc<str>>,
    /// Whom clients must be; none: they are not asked.
    pub clients: Option<Arc<Clients>>,
    tls13: bool,
    /// By [`Offer`].
    configs: [Arc<ServerConfig>; 3],
    keys: Arc<Keys>,
}

/// What is spoken over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 before HTTP/1.1.
    Http2,
    /// Whatever it is: nothing is agreed on, and a client without the certificate it needs is turned away.
    Stream,
}

/// Why an `ssls` resource can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    #[error(transparent)]
    Pair(#[from] pki::Bad),
    #[error("cert-key pair[{0}]: {1}")]
    Further(usize, #[source] pki::Bad),
    #[error("client.ca: {0}")]
    Ca(#[source] pki::Bad),
    #[error("client.skip_mtls_uri_regex: {0}")]
    Skip(String),
    #[error("ssl_protocols has none of TLSv1.2, TLSv1.3")]
    Protocols,
    #[error("no handshake is possible with it: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Certificate {
    /// Reads an enabled server certificate whose secret fields are decrypted; `None` for what is shown to upstreams
    /// or switched off.
    pub fn read(
        id: &str,
        ssl: &Ssl,
        settings: &Settings,
        lasting: &Lasting,
    ) -> Result<Option<Self>, BadCertificate> {
        if ssl.kind != SslType::Server || !ssl.status.is_on() {
            return Ok(None);
        }
        let keys = Arc::new(Keys::read(id, ssl, lasting)?);
        let clients = ssl.client.as_ref().map(Clients::read).transpose()?.map(Arc::new);
        let versions = versions(id, ssl, settings)?;
        let make = |clients: Option<Arc<Clients>>| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&settings.provider))
                .with_protocol_versions(&versions)?;
            let sessions = resumption::Kept::new(clients.as_deref(), settings, lasting)?;
            let mut config = match clients {
                Some(clients) => builder.with_client_cert_verifier(clients),
                None => builder.with_no_client_auth(),
            }
            .with_cert_resolver(Arc::clone(&keys) as _);
            // nginx's `ssl_prefer_server_ciphers`.
            config.ignore_client_order = true;
            sessions.give(&mut config);
            Ok::<_, rustls::Error>(config)
        };
        let stream = make(clients.as_deref().map(|clients| Arc::new(clients.strict())))?;
        let lenient = clients.as_ref().is_some_and(|clients| clients.is_lenient());
        let mut http = if lenient { make(clients.clone())? } else { stream.clone() };
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = Arc::new(http.clone());
        http.alpn_protocols.insert(0, b"h2".to_vec());
        let names = ssl.snis().map(|name| name.trim_end_matches('.').to_ascii_lowercase().into()).collect();
        let configs = [http1, Arc::new(http), Arc::new(stream)];
        let tls13 = versions.contains(&&TLS13);
        Ok(Some(Self { id: id.into(), names, clients, tls13, configs, keys }))
    }

    /// Whether all it asks of a connection can be had over QUIC.
    pub fn is_for_quic(&self) -> bool {
        self.tls13 && self.clients.is_none()
    }

    /// How a handshake goes on from here.
    pub fn config(&self, offer: Offer) -> &Arc<ServerConfig> {
        &self.configs[offer as usize]
    }

    /// What its issuers have to be asked for.
    pub fn staples(&self) -> impl Iterator<Item = &Arc<Staple>> {
        self.keys.0.iter().filter_map(|shown| shown.staple.as_ref())
    }
}

/// The certificate's own versions, or else the process's.
fn versions(
    id: &str,
    ssl: &Ssl,
    settings: &Settings,
) -> Result<SmallVec<[&'static SupportedProtocolVersion; 2]>, BadCertificate> {
    let own = |version: &str| ssl.ssl_protocols.iter().any(|known| **known == *version);
    let (tls12, tls13) = match &*ssl.ssl_protocols {
        [] => (settings.tls12, settings.tls13),
        _ => (own("TLSv1.2"), own("TLSv1.3")),
    };
    if own("TLSv1.1") {
        tracing::warn!(ssl = id, "TLSv1.1 is not spoken; clients need TLSv1.2 or TLSv1.3");
    }
    let versions: SmallVec<_> =
        [(tls13, &TLS13), (tls12, &TLS12)].into_iter().filter(|(on, _)| *on).map(|(_, v)| v).collect();
    if versions.is_empty() { Err(BadCertificate::Protocols) } else { Ok(versions) }
}

/// The pairs of one resource: at least one; several where the same names have keys of several algorithms.
struct Keys(SmallVec<[Shown; 1]>);

/// What a client gets to see.
struct Shown {
    key: Arc<CertifiedKey>,
    /// The issuer's word on it, where that is to be shown too.
    staple: Option<Arc<Staple>>,
}

impl Keys {
    fn read(id: &str, ssl: &Ssl, lasting: &Lasting) -> Result<Self, BadCertificate> {
        let stapling = ssl.ocsp_stapling.as_ref().filter(|stapling| stapling.enabled);
        let mut keys = SmallVec::new();
        for (at, (cert, key)) in ssl.pairs().enumerate() {
            let key =
                pki::certified_key(cert.as_bytes(), key.reveal().as_bytes()).map_err(|bad| match at {
                    0 => BadCertificate::Pair(bad),
                    at => BadCertificate::Further(at, bad),
                })?;
            warn_if_expired(id, &key);
            let key = Arc::new(key);
            let staple = stapling.and_then(|conf| {
                let staple = Staple::new(&key, conf, lasting);
                staple
                    .inspect_err(|reason| tracing::warn!(ssl = id, reason, "no OCSP response to staple"))
                    .ok()
            });
            keys.push(Shown { key, staple });
        }
        // RSA costs most: it is for clients that can't do otherwise.
        keys.sort_by_key(|shown: &Shown| shown.key.key.algorithm() == SignatureAlgorithm::RSA);
        Ok(Self(keys))
    }
}

/// It is shown all the same: some clients don't mind, and none is better off without.
fn warn_if_expired(id: &str, key: &CertifiedKey) {
    let Some(Ok((_, certificate))) = key.cert.first().map(|der| X509Certificate::from_der(der)) else {
        return;
    };
    if certificate.validity().not_after < ASN1Time::now() {
        let since = certificate.validity().not_after;
        tracing::warn!(ssl = id, %since, "the certificate has expired");
    }
}

impl ResolvesServerCert for Keys {
    /// The first key the client can verify; none fits: the first, and the client says so.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |shown: &&Shown| shown.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let shown = self.0.iter().find(fits).or_else(|| self.0.first())?;
        let stapled = shown.staple.as_ref().and_then(|staple| staple.show());
        Some(stapled.unwrap_or_else(|| Arc::clone(&shown.key)))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}
