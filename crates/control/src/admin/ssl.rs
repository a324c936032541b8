//! Certificates and private keys: what a data plane could not load is refused here.
//!
//! The rule to know: references to secrets and environment variables are not looked into.

use model::{Kind, pattern::Pattern};
use serde_json::Value;

use super::unique::is_reference;

/// Checks every certificate and key of an ssl, in plain text.
pub fn check(conf: &Value) -> Result<(), String> {
    check_pair(conf.get("cert"), conf.get("key"))?;
    if conf.get("type").and_then(Value::as_str) == Some("client") {
        return Ok(());
    }
    let (certs, keys) = (list(conf.get("certs")), list(conf.get("keys")));
    if certs.len() != keys.len() {
        return Err("mismatched number of certs and keys".to_owned());
    }
    for (at, (cert, key)) in certs.iter().zip(keys).enumerate() {
        check_pair(Some(cert), Some(key))
            .map_err(|error| format!("failed to handle cert-key pair[{}]: {error}", at + 1))?;
    }
    let protocols = list(conf.get("ssl_protocols"));
    if !protocols.is_empty() && protocols.iter().all(|one| one == "TLSv1.1") {
        return Err("ssl_protocols has none of TLSv1.2, TLSv1.3".to_owned());
    }
    conf.get("client").map_or(Ok(()), check_clients)
}

/// The upstream a resource is or has in it.
pub fn upstream_of(kind: Kind, conf: &Value) -> Option<&Value> {
    if kind == Kind::Upstreams { Some(conf) } else { conf.get("upstream") }
}

/// Checks the client certificate of an upstream, in plain text.
pub fn check_upstream(upstream: &Value) -> Result<(), String> {
    check_pair(upstream.pointer("/tls/client_cert"), upstream.pointer("/tls/client_key"))
}

fn check_clients(client: &Value) -> Result<(), String> {
    if let Some(ca) = plain(client.get("ca")) {
        let roots = pki::roots(ca.as_bytes()).map(drop);
        roots.map_err(|bad| format!("failed to validate client_cert: {}", wording(&bad)))?;
    }
    for regex in list(client.get("skip_mtls_uri_regex")).iter().filter_map(Value::as_str) {
        Pattern::new(regex).map_err(|error| format!("client.skip_mtls_uri_regex: {error}"))?;
    }
    Ok(())
}

fn check_pair(cert: Option<&Value>, key: Option<&Value>) -> Result<(), String> {
    let (Some(cert), Some(key)) = (plain(cert), plain(key)) else { return Ok(()) };
    pki::certified_key(cert.as_bytes(), key.as_bytes()).map(drop).map_err(|bad| match bad {
        // No key of ours has opened it.
        pki::Bad::Key if !model::secrets::is_pem(key) => {
            "failed to decrypt previous encrypted key".to_owned()
        }
        bad => wording(&bad),
    })
}

/// APISIX's, which is OpenSSL's.
fn wording(bad: &pki::Bad) -> String {
    match bad {
        pki::Bad::Certificate => "failed to parse cert: PEM_read_bio_X509_AUX() failed".to_owned(),
        // In the armour of a key is none that we know.
        pki::Bad::Key | pki::Bad::Unusable(rustls::Error::General(_)) => {
            "failed to parse key: PEM_read_bio_PrivateKey() failed".to_owned()
        }
        pki::Bad::Mismatch => "failed to parse key: it is not the key of the certificate".to_owned(),
        pki::Bad::Version1 => "failed to parse cert: version 1 certificates are not supported".to_owned(),
        pki::Bad::Unusable(error) => format!("failed to parse cert: {error}"),
    }
}

/// A text that is what it says.
fn plain(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !is_reference(text))
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
