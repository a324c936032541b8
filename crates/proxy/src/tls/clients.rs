//! What a certificate's `client` asks of those who connect: APISIX's mTLS.
//!
//! The rule to know: where some URIs need no certificate, the handshake takes whatever comes, and each request is
//! looked at; otherwise the handshake decides.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use model::{pattern::Pattern, resource::ClientVerification};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

use super::BadCertificate;

/// Whom clients must be.
#[derive(Clone, Debug)]
pub struct Clients {
    roots: Arc<RootCertStore>,
    trusted: Arc<[CertificateDer<'static>]>,
    hints: Arc<[DistinguishedName]>,
    /// How many certificates may stand between theirs and the authority's.
    depth: u32,
    /// Requests to these need no certificate.
    skip: Arc<[Pattern]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Clients {
    pub fn read(conf: &ClientVerification) -> Result<Self, BadCertificate> {
        let roots = pki::roots(conf.ca.as_bytes()).map_err(BadCertificate::Ca)?;
        let skip = conf.skip_mtls_uri_regex.iter().map(|regex| Pattern::new(regex));
        Ok(Self {
            hints: roots.subjects().into(),
            roots: Arc::new(roots),
            trusted: pki::certificates(conf.ca.as_bytes()).map_err(BadCertificate::Ca)?.into(),
            depth: conf.depth,
            skip: skip.collect::<Result<_, _>>().map_err(BadCertificate::Skip)?,
            algorithms: pki::provider().signature_verification_algorithms,
        })
    }

    /// The same without exceptions.
    pub fn strict(&self) -> Self {
        Self { skip: Arc::default(), ..self.clone() }
    }

    /// Whether there are exceptions.
    pub fn is_lenient(&self) -> bool {
        !self.skip.is_empty()
    }

    /// Whether requests to this path need no certificate.
    pub fn skips(&self, path: &str) -> bool {
        self.skip.iter().any(|pattern| pattern.is_match(path))
    }

    /// What sessions must have in common with these to be resumed.
    pub fn terms(&self) -> String {
        let mut digest = Context::new(&SHA256);
        digest.update(&[u8::from(self.is_lenient())]);
        digest.update(&self.depth.to_be_bytes());
        self.trusted.iter().for_each(|certificate| digest.update(certificate));
        hex::encode(digest.finish())
    }

    /// Whether a certificate, with those the client sent along, is one of theirs.
    pub fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(plain)?;
        let short = |path: &VerifiedPath<'_>| {
            let between = path.intermediate_certificates().count();
            let fits = u32::try_from(between).is_ok_and(|between| between <= self.depth);
            if fits { Ok(()) } else { Err(webpki::Error::MaximumPathDepthExceeded) }
        };
        let path = certificate.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            intermediates,
            now,
            KeyUsage::client_auth(),
            None,
            Some(&short),
        );
        match path {
            Ok(_) => Ok(()),
            // Self-signed, and named by us in person.
            Err(webpki::Error::CaUsedAsEndEntity) if self.trusted.contains(end_entity) => {
                is_valid(end_entity, now)
            }
            Err(error) => Err(plain(error)),
        }
    }
}

fn is_valid(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    match now {
        Some(now) if certificate.validity().not_after < now => Err(CertificateError::Expired),
        Some(now) if certificate.validity().is_valid_at(now) => Ok(()),
        _ => Err(CertificateError::NotValidYet),
    }
}

/// As TLS has alerts for.
fn plain(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::BadDer => CertificateError::BadEncoding,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        !self.is_lenient()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if !self.is_lenient() {
            self.verify(end_entity, intermediates, now)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
