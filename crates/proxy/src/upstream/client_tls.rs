//! How we speak TLS to nodes.

use std::{hash::Hasher as _, sync::Arc};

use pki::Unchecked;
use rustc_hash::FxHasher;
use rustls::{ClientConfig, RootCertStore, sign::SingleCertAndKey};

use super::Scheme;
use crate::lasting::Lasting;

/// How we speak TLS to nodes. Shared by all upstreams that speak alike.
#[derive(Clone)]
pub struct ClientTls {
    pub config: Arc<ClientConfig>,
    /// Whether nodes' certificates are checked.
    pub verifies: bool,
    /// The same for the same configuration.
    pub fingerprint: u64,
}

/// A certificate chain and its key, both PEM, shown to nodes that ask.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    pub cert: &'a str,
    pub key: &'a str,
}

impl ClientTls {
    /// `roots`: whom nodes' certificates must come from; none: they are not checked, as APISIX does unless
    /// `tls.verify` is on.
    pub fn new(
        scheme: Scheme,
        identity: Option<Identity<'_>>,
        roots: Option<&Arc<RootCertStore>>,
        lasting: &Lasting,
    ) -> Result<Self, String> {
        let mut hasher = FxHasher::default();
        hasher.write_u8(scheme as u8);
        if let Some(Identity { cert, key }) = identity {
            hasher.write(cert.as_bytes());
            hasher.write(key.as_bytes());
        }
        hasher.write_usize(roots.map_or(0, |roots| Arc::as_ptr(roots).addr()));
        let (fingerprint, verifies) = (hasher.finish(), roots.is_some());
        let name = format!("upstream-tls/{fingerprint:016x}");
        if let Some(config) = lasting.get(&name) {
            return Ok(Self { config, verifies, fingerprint });
        }
        let config = configure(scheme, identity, roots)?;
        Ok(Self { config: lasting.get_or(&name, || config), verifies, fingerprint })
    }
}

/// For requests of our own to what is no node. `roots` as in [`ClientTls::new`].
pub fn plain(roots: Option<&Arc<RootCertStore>>) -> Result<ClientConfig, String> {
    configure(Scheme::Https, None, roots)
}

fn configure(
    scheme: Scheme,
    identity: Option<Identity<'_>>,
    roots: Option<&Arc<RootCertStore>>,
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(pki::provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(Arc::clone(roots)),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked::default())),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key }) => {
            let pair = pki::certified_key(cert.as_bytes(), key.as_bytes())
                .map_err(|e| format!("the client certificate of the upstream: {e}"))?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
        }
    };
    config.alpn_protocols = match scheme {
        Scheme::Grpc | Scheme::Grpcs => vec![b"h2".to_vec()],
        Scheme::Http | Scheme::Https => vec![b"http/1.1".to_vec()],
        Scheme::Tcp | Scheme::Tls | Scheme::Udp | Scheme::Kafka => vec![],
    };
    Ok(config)
}
