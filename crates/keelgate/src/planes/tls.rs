//! TLS of our own listeners: the Admin API and the configuration API.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::settings::{ServerTls, Settings};

/// Reads certificate, key and, for mTLS, the clients' CA.
pub fn server(tls: &ServerTls) -> anyhow::Result<Arc<ServerConfig>> {
    let certificates = certificates(&tls.cert)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .with_context(|| format!("{}: it holds no private key in PEM", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(file)? {
                roots.add(certificate).with_context(|| format!("{}: it is no CA", file.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .with_context(|| format!("{} and {} don't belong together", tls.cert.display(), tls.key.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whom upstreams' certificates must come from: `apisix.ssl.ssl_trusted_certificate`, or the system's.
pub fn trusted(settings: &Settings) -> anyhow::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    match settings.proxy.as_ref().and_then(|proxy| proxy.trusted_certificate.as_deref()) {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).with_context(|| format!("{}: it is no CA", file.display()))?;
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
        }
    }
    Ok(Arc::new(roots))
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file)
        .with_context(|| format!("{}: it can't be read", file.display()))?
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{}: it is not PEM", file.display()))?;
    if certificates.is_empty() {
        bail!("{}: it holds no certificate", file.display());
    }
    Ok(certificates)
}
