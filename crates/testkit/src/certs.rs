//! A certificate authority for one test, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

/// A certificate authority.
#[derive(Debug)]
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// A pair in files, `NAME.pem` and `NAME.key`.
#[derive(Debug, Clone)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a self-signed certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these names; addresses count as names.
    pub fn server(&self, names: &[&str]) -> Pair {
        self.sign(names, names.first().copied().unwrap_or("server"), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate with this common name.
    pub fn client(&self, name: &str) -> Pair {
        self.sign(&[], name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Writes the authority's certificate to `NAME.pem` in a folder.
    pub fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(format!("{name}.pem"));
        fs::write(&path, self.pem()).expect("the certificate is written");
        path
    }

    fn sign(&self, names: &[&str], common_name: &str, usage: ExtendedKeyUsagePurpose) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names for a certificate");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.insert_extended_key_usage(usage);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a signed certificate");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes both to a folder.
    pub fn write(&self, directory: &Path, name: &str) -> Files {
        let files =
            Files { cert: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
        fs::write(&files.cert, &self.cert).expect("the certificate is written");
        fs::write(&files.key, &self.key).expect("the key is written");
        files
    }

    /// A server's side of TLS with this pair, speaking h2 and HTTP/1.1.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        self.config(Arc::new(rustls::server::NoClientAuth))
    }

    /// The same, for clients that show a certificate of this authority.
    pub fn server_config_for(&self, clients: &Ca) -> Arc<rustls::ServerConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let authority = pki::certificates(clients.pem().as_bytes()).expect("a certificate in PEM");
        roots.add_parsable_certificates(authority);
        let provider = pki::provider().clone();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        self.config(verifier.expect("a verifier of clients"))
    }

    fn config(&self, clients: Arc<dyn ClientCertVerifier>) -> Arc<rustls::ServerConfig> {
        let mut config = rustls::ServerConfig::builder_with_provider(pki::provider().clone())
            .with_safe_default_protocol_versions()
            .expect("the provider's protocol versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(self.chain(), self.private_key())
            .expect("a certificate that fits its key");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        pki::certificates(self.cert.as_bytes()).expect("certificates in PEM")
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        pki::private_key(self.key.as_bytes()).expect("a key in PEM")
    }
}
