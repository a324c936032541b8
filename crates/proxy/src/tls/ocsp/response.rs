//! Whether an answer is one to show.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::{
    Certificate,
    der::{Decode as _, Encode as _},
};
use x509_ocsp::{BasicOcspResponse, CertId, CertStatus, OcspResponse, OcspResponseStatus, SingleResponse};

/// How far clocks may differ.
const SKEW: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum Bad {
    #[error("the OCSP response is malformed: {0}")]
    Malformed(#[from] x509_cert::der::Error),
    #[error("the OCSP responder refuses: {0:?}")]
    Refused(OcspResponseStatus),
    #[error("the OCSP response is about other certificates")]
    AnotherCertificate,
    #[error("the OCSP response is out of date")]
    OutOfDate,
    #[error("the OCSP response is signed by somebody else than the issuer")]
    Signature,
    #[error("the certificate is {0}")]
    NotGood(&'static str),
}

impl Bad {
    /// Whether there is nothing to show at all.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::Refused(_))
    }
}

/// Until when it is good; none where it does not say.
pub fn check(
    response: &[u8],
    id: &CertId,
    issuer: &[u8],
    now: SystemTime,
) -> Result<Option<SystemTime>, Bad> {
    let response = OcspResponse::from_der(response)?;
    let bytes = match (response.response_status, response.response_bytes) {
        (OcspResponseStatus::Successful, Some(bytes)) => bytes,
        (status, _) => return Err(Bad::Refused(status)),
    };
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes())?;
    let mut about = basic.tbs_response_data.responses.iter();
    let one = about.find(|one| is_about(one, id)).ok_or(Bad::AnotherCertificate)?;
    if !is_signed(&basic, issuer, now)? {
        return Err(Bad::Signature);
    }
    match one.cert_status {
        CertStatus::Good(_) => {}
        CertStatus::Revoked(_) => return Err(Bad::NotGood("revoked")),
        CertStatus::Unknown(_) => return Err(Bad::NotGood("unknown")),
    }
    let until = one.next_update.map(|time| time.0.to_system_time());
    if one.this_update.0.to_system_time() > now + SKEW || until.is_some_and(|until| until <= now) {
        return Err(Bad::OutOfDate);
    }
    Ok(until)
}

fn is_about(one: &SingleResponse, id: &CertId) -> bool {
    one.cert_id.serial_number == id.serial_number
        && one.cert_id.issuer_key_hash == id.issuer_key_hash
        && one.cert_id.issuer_name_hash == id.issuer_name_hash
}

/// By the issuer, or by one whom it has appointed.
fn is_signed(basic: &BasicOcspResponse, issuer: &[u8], now: SystemTime) -> Result<bool, Bad> {
    let signed = basic.tbs_response_data.to_der()?;
    let algorithm = basic.signature_algorithm.to_der()?;
    let by = |signer: &[u8]| verifies(signer, &algorithm, &signed, basic.signature.raw_bytes());
    if by(issuer) {
        return Ok(true);
    }
    for deputy in basic.certs.iter().flatten().map(Certificate::to_der) {
        let deputy = deputy?;
        if is_appointed(&deputy, issuer, now) && by(&deputy) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a certificate of the issuer's may answer in its place.
fn is_appointed(deputy: &[u8], issuer: &[u8], now: SystemTime) -> bool {
    /// `id-kp-OCSPSigning`.
    const OCSP_SIGNING: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 9];
    let (deputy, issuer) = (CertificateDer::from(deputy), CertificateDer::from(issuer));
    let (Ok(deputy), Ok(anchor)) = (EndEntityCert::try_from(&deputy), anchor_from_trusted_cert(&issuer))
    else {
        return false;
    };
    let algorithms = pki::provider().signature_verification_algorithms.all;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let usage = KeyUsage::required(OCSP_SIGNING);
    let now = UnixTime::since_unix_epoch(since);
    deputy.verify_for_usage(algorithms, &[anchor], &[], now, usage, None, None).is_ok()
}

/// Whether a signature is of the key in a certificate. `algorithm` as DER.
fn verifies(signer: &[u8], algorithm: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    let signer = CertificateDer::from(signer);
    let Ok(signer) = EndEntityCert::try_from(&signer) else { return false };
    // Without the two bytes around it, as rustls names algorithms.
    let algorithm = algorithm.get(2..).unwrap_or_default();
    let all = pki::provider().signature_verification_algorithms.all.iter();
    all.filter(|one| one.signature_alg_id().as_ref() == algorithm)
        .any(|one| signer.verify_signature(*one, signed, signature).is_ok())
}
