//! What is kept encrypted, and certificates.

use model::{instance::DataEncryption, secrets::Keyring};
use testkit::certs::Ca;

use super::*;

fn keyring() -> Keyring {
    let settings = json!({"enable_encrypt_fields": true, "keyring": ["qeddd145sfvddff3"]});
    Keyring::new(&serde_json::from_value::<DataEncryption>(settings).unwrap()).unwrap()
}

#[test]
fn secret_fields_are_decrypted() {
    let mut lab = Lab { keyring: keyring(), ..Lab::default() };
    let secret = keyring().encrypt("one");
    assert_ne!(secret, "one");
    lab.change(&[
        ("consumers/jack", json!({"username": "jack", "plugins": {"auth": {"key": secret}}})),
        ("consumers/rose", json!({"username": "rose", "plugins": {"auth": {"key": "plain"}}})),
    ]);
    assert!(lab.plan.consumers.by_key("auth", "one").is_some());
    assert!(lab.plan.consumers.by_key("auth", "plain").is_some());
}

#[test]
fn certificates_are_found_by_name_until_they_go() {
    let ca = Ca::new("test");
    let (one, two) = (ca.server(&["a.com"]), ca.server(&["b.com"]));
    let ssl = |pair: &testkit::certs::Pair, status: u8| {
        let key = keyring().encrypt(&pair.key);
        json!({"cert": pair.cert, "key": key, "snis": ["a.com", "*.a.com"], "status": status})
    };
    let mut lab = Lab { keyring: keyring(), ..Lab::default() };
    lab.change(&[
        ("ssls/1", ssl(&one, 1)),
        ("ssls/2", json!({"cert": one.cert, "key": two.key, "sni": "b.com"})),
        ("routes/1", json!({"uri": "/1", "upstream": to(1)})),
    ]);
    assert_eq!(lab.refused(), ["ssls/2: the key does not belong to the certificate"]);
    assert!(
        lab.plan.certificates.find("www.a.com").is_some() && lab.plan.certificates.find("b.com").is_none()
    );
    lab.change(&[("ssls/1", ssl(&one, 0))]);
    assert!(lab.plan.certificates.is_empty());
}

#[test]
fn upstreams_that_speak_alike_share_how_they_do() {
    let ca = Ca::new("test");
    let pair = ca.client("gateway");
    let https = |tls: Value| json!({"upstream": {"scheme": "https", "nodes": {"10.0.0.1": 1, "10.0.0.2": 1}, "tls": tls}, "uri": "/"});
    let lab = Lab::with(&[
        ("ssls/c", json!({"type": "client", "cert": pair.cert, "key": pair.key})),
        ("routes/1", https(json!({}))),
        ("routes/2", https(json!({"verify": false}))),
        ("routes/3", https(json!({"client_cert_id": "c"}))),
        ("routes/4", https(json!({"client_cert": pair.cert, "client_key": pair.key}))),
        ("routes/5", https(json!({"verify": true}))),
        ("routes/6", https(json!({"client_cert_id": "none"}))),
        ("routes/7", https(json!({"client_cert": "no", "client_key": "PEM"}))),
    ]);
    assert_eq!(lab.report.rejected.len(), 2, "{:?}", lab.refused());
    let upstream = |id: &str| lab.plan.route(id).unwrap().upstream.clone().unwrap();
    let alike = |a: &str, b: &str| {
        let (a, b) = (upstream(a), upstream(b));
        let same = Arc::ptr_eq(&a.tls.as_ref().unwrap().config, &b.tls.as_ref().unwrap().config);
        assert_eq!(same, a.fingerprint == b.fingerprint);
        same
    };
    assert!(alike("1", "2") && alike("3", "4"));
    assert!(!alike("1", "3") && !alike("1", "5") && !alike("3", "5"));
    assert_eq!(upstream("1").nodes.current().nodes[0].port, 443);
}
