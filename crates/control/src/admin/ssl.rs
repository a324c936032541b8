//! Certificates and private keys: what a data plane could not load is refused here.
//!
//! The rule to know: references to secrets and environment variables are not looked into.

use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;

use super::unique::is_reference;

/// Checks every certificate and key of an ssl, in plain text.
pub fn check(conf: &Value) -> Result<(), String> {
    check_pair(conf.get("cert"), conf.get("key"))?;
    if conf.get("type").and_then(Value::as_str) == Some("client") {
        return Ok(());
    }
    let list = |name: &str| conf.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let (certs, keys) = (list("certs"), list("keys"));
    if certs.len() != keys.len() {
        return Err("mismatched number of certs and keys".to_owned());
    }
    for (at, (cert, key)) in certs.iter().zip(keys).enumerate() {
        check_pair(Some(cert), Some(key))
            .map_err(|error| format!("failed to handle cert-key pair[{}]: {error}", at + 1))?;
    }
    check_pair(conf.pointer("/client/ca"), None)
        .map_err(|error| format!("failed to validate client_cert: {error}"))
}

/// Checks the client certificate of an upstream.
pub fn check_upstream(upstream: &Value) -> Result<(), String> {
    check_pair(upstream.pointer("/tls/client_cert"), upstream.pointer("/tls/client_key"))
}

fn check_pair(cert: Option<&Value>, key: Option<&Value>) -> Result<(), String> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let (Some(cert), key) = (text(cert), text(key)) else { return Ok(()) };
    if is_reference(&cert) || key.as_deref().is_some_and(is_reference) {
        return Ok(());
    }
    let chain = parse_cert(&cert).ok_or("failed to parse cert: PEM_read_bio_X509_AUX() failed")?;
    let Some(key) = key else { return Ok(()) };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| "failed to parse key: PEM_read_bio_PrivateKey() failed")?;
    let key = any_supported_type(&key).map_err(|error| format!("failed to parse key: {error}"))?;
    match CertifiedKey::new(chain, key).keys_match() {
        // Which key it is can't be told for every kind of key; a mismatch can.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err("failed to parse key: it is not the key of the certificate".to_owned()),
    }
}

fn parse_cert(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()?;
    let readable = chain.iter().all(|cert| x509_parser::parse_x509_certificate(cert).is_ok());
    (readable && !chain.is_empty()).then_some(chain)
}
