//! Certificates towards clients, chosen by the name they ask for.
//!
//! The rule to know: the handshake reads the plan that is in force when it begins. Certificates are part of the plan,
//! so a certificate and the routes that came with it change together.

use std::{fmt, sync::Arc};

use model::resource::{Ssl, SslType};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use smallvec::SmallVec;
use tokio_rustls::TlsAcceptor;

use crate::engine::PlanCell;

/// The certificates of one `ssls` resource and the names they stand for.
pub struct Certificate {
    /// The resource's id.
    pub id: Arc<str>,
    /// Lower case; `*.` in front stands for exactly one more label.
    pub names: Vec<Arc<str>>,
    /// At least one; several where the same names have keys of several algorithms.
    pub keys: SmallVec<[Arc<CertifiedKey>; 1]>,
}

/// Why an `ssls` resource can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    #[error("the certificate is not PEM with at least one certificate")]
    NoCertificate,
    #[error("the key is not a PEM private key")]
    NoKey,
    #[error("the key does not belong to the certificate")]
    Mismatch,
    #[error("the certificate or key can't be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Certificate {
    /// Reads an enabled server certificate whose secret fields are decrypted; `None` for what is shown to upstreams
    /// or switched off.
    pub fn read(id: &str, ssl: &Ssl) -> Result<Option<Self>, BadCertificate> {
        if ssl.kind != SslType::Server || !ssl.status.is_on() {
            return Ok(None);
        }
        let provider = aws_lc_rs::default_provider();
        let keys = ssl
            .pairs()
            .map(|(cert, key)| certified_key(cert, key.reveal(), &provider))
            .collect::<Result<_, _>>()?;
        let names = ssl.snis().map(|name| name.to_ascii_lowercase().into()).collect();
        Ok(Some(Self { id: id.into(), names, keys }))
    }
}

/// A certificate chain with its key, both PEM.
pub fn certified_key(
    cert: &str,
    key: &str,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, BadCertificate> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| BadCertificate::NoCertificate)?;
    if chain.is_empty() {
        return Err(BadCertificate::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| BadCertificate::NoKey)?;
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(key) => Ok(Arc::new(key)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(BadCertificate::Mismatch),
        Err(other) => Err(other.into()),
    }
}

/// All certificates of a plan, by name. Cloning shares; changing one of many is cheap.
#[derive(Clone, Default)]
pub struct Certificates {
    /// By name as configured: `example.com`, `*.example.com`.
    by_name: imbl::HashMap<Arc<str>, SmallVec<[Arc<Certificate>; 1]>>,
}

impl Certificates {
    /// Adds it for all its names. Among several for one name, the one added last is shown.
    pub fn insert(&mut self, certificate: &Arc<Certificate>) {
        for name in &certificate.names {
            self.by_name.entry(name.clone()).or_default().push(certificate.clone());
        }
    }

    /// Takes out what [`Certificates::insert`] added.
    pub fn remove(&mut self, certificate: &Arc<Certificate>) {
        for name in &certificate.names {
            let Some(mut held) = self.by_name.remove(name) else { continue };
            held.retain(|other| !Arc::ptr_eq(other, certificate));
            if !held.is_empty() {
                self.by_name.insert(name.clone(), held);
            }
        }
    }

    /// The certificate for a server name: the exact name before a wildcard one label up.
    pub fn find(&self, name: &str) -> Option<&Arc<Certificate>> {
        let lower;
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        self.by_name.get(name).or_else(|| self.by_name.get(&*wildcard(name)?)).and_then(|held| held.last())
    }

    /// What to show for this handshake; `fallback` is the name taken where the client names none
    /// (`apisix.ssl.fallback_sni`). `None` ends the handshake.
    pub fn resolve(&self, hello: &ClientHello<'_>, fallback: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let certificate = self.find(hello.server_name().or(fallback)?)?;
        // The first key the client can verify; none fits: the first, and the client says so.
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        certificate.keys.iter().find(fits).or_else(|| certificate.keys.first()).cloned()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// `*.example.com` for `www.example.com`.
fn wildcard(name: &str) -> Option<String> {
    let (_, rest) = name.split_once('.')?;
    Some(format!("*.{rest}"))
}

/// `apisix.ssl`, as far as handshakes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub tls12: bool,
    pub tls13: bool,
    /// The name taken where the client names none.
    pub fallback_sni: Option<Arc<str>>,
    /// Resumption by tickets rather than by what we remember.
    pub tickets: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tls12: true, tls13: true, fallback_sni: None, tickets: false }
    }
}

/// Accepts TLS connections by the plan in force. Shared by all workers, so that a session is resumed on any.
#[derive(Clone)]
pub struct Acceptor {
    http1: TlsAcceptor,
    http2: TlsAcceptor,
}

impl Acceptor {
    pub fn new(settings: &Settings, plan: PlanCell) -> Result<Self, rustls::Error> {
        /// Sessions remembered; each takes some 200 bytes.
        const SESSIONS: usize = 20_480;
        let versions: &[_] = match (settings.tls12, settings.tls13) {
            (true, true) => &[&TLS13, &TLS12],
            (true, false) => &[&TLS12],
            (false, _) => &[&TLS13],
        };
        let resolver = Resolver { plan, fallback: settings.fallback_sni.clone() };
        // Verification of client certificates, which `ssls` may ask for by name, is chosen here.
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        if settings.tickets {
            config.ticketer = aws_lc_rs::Ticketer::new()?;
        } else {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        }
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = Arc::new(config.clone()).into();
        config.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Self { http1, http2: Arc::new(config).into() })
    }

    /// The one that offers HTTP/2, or the other.
    pub fn get(&self, http2: bool) -> &TlsAcceptor {
        if http2 { &self.http2 } else { &self.http1 }
    }
}

/// Finds certificates in the plan in force.
struct Resolver {
    plan: PlanCell,
    fallback: Option<Arc<str>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.plan.load().certificates.resolve(&hello, self.fallback.as_deref());
        if found.is_none() {
            tracing::debug!(name = hello.server_name(), "no certificate for this name");
        }
        found
    }
}

#[cfg(test)]
mod tests;
