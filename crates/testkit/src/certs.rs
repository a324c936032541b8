//! A certificate authority for one test, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, PKCS_RSA_SHA256, RsaKeySize,
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
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(authority(name), key).expect("a self-signed certificate"))
    }

    /// An authority that this one vouches for.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::signed_by(authority(name), key, &self.0).expect("a signed certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these names; addresses count as names.
    pub fn server(&self, names: &[&str]) -> Pair {
        self.sign(names, names.first().copied().unwrap_or("server"), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The same with a key of RSA.
    pub fn rsa_server(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        self.sign_for(&params(names, names[0], ExtendedKeyUsagePurpose::ServerAuth), &key)
    }

    /// A server's certificate with a serial number and the URL of an OCSP responder.
    pub fn server_with_responder(&self, names: &[&str], serial: u16, url: &str) -> Pair {
        let mut params = params(names, names[0], ExtendedKeyUsagePurpose::ServerAuth);
        params.serial_number = Some(serial.to_be_bytes().to_vec().into());
        // AuthorityInfoAccess: one access, by OCSP, at a URI.
        let wrap = |tag: u8, parts: &[&[u8]]| {
            let content = parts.concat();
            [&[tag, u8::try_from(content.len()).expect("a short URL")], &*content].concat()
        };
        let ocsp = [6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1];
        let access = wrap(0x30, &[&wrap(0x30, &[&ocsp, &wrap(0x86, &[url.as_bytes()])])]);
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access));
        self.sign_for(&params, &KeyPair::generate().expect("a key"))
    }

    /// A client's certificate with this common name.
    pub fn client(&self, name: &str) -> Pair {
        self.sign(&[], name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Its own certificate and key.
    pub fn pair(&self) -> Pair {
        Pair { cert: self.pem(), key: self.0.key().serialize_pem() }
    }

    /// Writes the authority's certificate to `NAME.pem` in a folder.
    pub fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(format!("{name}.pem"));
        fs::write(&path, self.pem()).expect("the certificate is written");
        path
    }

    fn sign(&self, names: &[&str], common_name: &str, usage: ExtendedKeyUsagePurpose) -> Pair {
        self.sign_for(&params(names, common_name, usage), &KeyPair::generate().expect("a key"))
    }

    fn sign_for(&self, params: &CertificateParams, key: &KeyPair) -> Pair {
        let cert = params.signed_by(key, &self.0).expect("a signed certificate");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn params(names: &[&str], common_name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names for a certificate");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.insert_extended_key_usage(usage);
    params.use_authority_key_identifier_extension = true;
    params
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

    /// The same, with this authority's certificate behind it.
    pub fn followed_by(mut self, ca: &Ca) -> Self {
        self.cert.push_str(&ca.pem());
        self
    }

    /// A server's side of TLS with this pair, speaking h2 and HTTP/1.1.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        self.configure(WebPkiClientVerifier::no_client_auth())
    }

    /// The same, for clients of this authority only.
    pub fn server_config_for(&self, clients: &Ca) -> Arc<rustls::ServerConfig> {
        let roots = pki::roots(clients.pem().as_bytes()).expect("an authority's certificate");
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), pki::provider().clone());
        self.configure(verifier.build().expect("a verifier"))
    }

    fn configure(&self, verifier: Arc<dyn ClientCertVerifier>) -> Arc<rustls::ServerConfig> {
        let mut config = rustls::ServerConfig::builder_with_provider(pki::provider().clone())
            .with_safe_default_protocol_versions()
            .expect("the provider's protocol versions")
            .with_client_cert_verifier(verifier)
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
