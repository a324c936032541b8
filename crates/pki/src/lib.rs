//! Certificates and private keys as PEM, and whom to believe.
//!
//! The rule to know: both planes read certificates with these functions, so that the Admin API refuses exactly what a
//! data plane could not show.

mod unchecked;

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, Error, InconsistentKeys, RootCertStore, crypto::CryptoProvider, sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

pub use unchecked::Unchecked;

/// Why a certificate or key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    #[error("the certificate is not PEM with at least one certificate")]
    Certificate,
    #[error("the key is not a PEM private key of a kind we know")]
    Key,
    #[error("the key does not belong to the certificate")]
    Mismatch,
    #[error("version 1 certificates are not supported")]
    Version1,
    #[error("the certificate can't be used: {0}")]
    Unusable(#[source] Error),
}

/// What all our TLS is made of. One for the process: it is long and never changes.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// The certificates of a PEM text, in their order; at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Bad> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| Bad::Certificate)?;
    if certificates.is_empty() { Err(Bad::Certificate) } else { Ok(certificates) }
}

/// The first private key of a PEM text.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Bad> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| Bad::Key)
}

/// A certificate, those that vouch for it, and its key.
pub fn certified_key(cert: &[u8], key: &[u8]) -> Result<CertifiedKey, Bad> {
    let chain = certificates(cert)?;
    let key = provider().key_provider.load_private_key(private_key(key)?).map_err(|_| Bad::Key)?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        // Which key it is can't be told for every kind of key; a mismatch can.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(Error::InconsistentKeys(_)) => Err(Bad::Mismatch),
        Err(error) => Err(bad(error)),
    }
}

/// What is wrong with a certificate.
fn bad(error: Error) -> Bad {
    match error {
        // What is in the armour is no certificate.
        Error::InvalidCertificate(CertificateError::BadEncoding) => Bad::Certificate,
        // X.509 versions 1 and 2 have no extensions, and so no names that count. Only the name of the error tells.
        error if format!("{error:?}").contains("UnsupportedCertVersion") => Bad::Version1,
        other => Bad::Unusable(other),
    }
}

/// Those whom a PEM text says to believe.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, Bad> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(bad)?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_version_1_is_named() {
        // `openssl x509 -req` without extensions.
        let pem = include_bytes!("fixtures/version1.pem");
        let told = [certified_key(pem, pem).map(drop), roots(pem).map(drop)];
        assert!(matches!(told[0], Err(Bad::Version1)), "{told:?}");
    }

    #[test]
    fn what_can_not_be_used_says_why() {
        let made = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let cert = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
            (cert.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let ((cert, key), (_, other)) = (made(), made());
        let read = |cert: &str, key: &str| certified_key(cert.as_bytes(), key.as_bytes());
        assert_eq!(read(&[&*cert, &cert].concat(), &key).unwrap().cert.len(), 2);
        assert!(matches!(read(&cert, &other), Err(Bad::Mismatch)));
        assert!(matches!(read(&cert, "x"), Err(Bad::Key)));
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for cert in ["", "x", empty] {
            assert!(matches!(read(cert, &key), Err(Bad::Certificate)), "{cert}");
            assert!(matches!(roots(cert.as_bytes()), Err(Bad::Certificate)), "{cert}");
        }
    }
}
