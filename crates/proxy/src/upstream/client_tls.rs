//! How we speak TLS to nodes.

use std::{hash::Hasher as _, sync::Arc};

use rustc_hash::FxHasher;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::Scheme;
use crate::lasting::Lasting;

/// How we speak TLS to nodes. Shared by all upstreams that speak alike.
#[derive(Clone)]
pub struct ClientTls {
    pub config: Arc<ClientConfig>,
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
    /// `roots`: whom nodes' certificates must come from; none: they are not checked.
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
        let fingerprint = hasher.finish();
        let name = format!("upstream-tls/{fingerprint:016x}");
        if let Some(config) = lasting.get(&name) {
            return Ok(Self { config, fingerprint });
        }
        let config = configure(scheme, identity, roots)?;
        Ok(Self { config: lasting.get_or(&name, || config), fingerprint })
    }
}

fn configure(
    scheme: Scheme,
    identity: Option<Identity<'_>>,
    roots: Option<&Arc<RootCertStore>>,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(Arc::clone(roots)),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked::new(&provider))),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key }) => {
            let chain = CertificateDer::pem_slice_iter(cert.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| "the client certificate is not PEM")?;
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "the client key is not PEM")?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| format!("the client certificate can't be used: {e}"))?
        }
    };
    config.alpn_protocols = match scheme {
        Scheme::Grpc | Scheme::Grpcs => vec![b"h2".to_vec()],
        Scheme::Http | Scheme::Https => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

/// Takes any certificate, as APISIX does unless `tls.verify` is on. That the node holds its key is still proven.
#[derive(Debug)]
struct Unchecked(WebPkiSupportedAlgorithms);

impl Unchecked {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
