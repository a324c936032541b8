use testkit::certs::Ca;

use super::*;
use crate::lasting::Lasting;
use model::resource::Ssl;
use serde_json::{Value, json};

fn ssl(names: &[&str], extra: &Value) -> Ssl {
    let pair = Ca::new("test").server(names);
    let mut value = json!({ "cert": pair.cert, "key": pair.key, "snis": names });
    for (name, field) in extra.as_object().into_iter().flatten() {
        value[name] = field.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn read(id: &str, names: &[&str], extra: &Value) -> Result<Option<Certificate>, BadCertificate> {
    Certificate::read(id, &ssl(names, extra), &Settings::default(), &Lasting::default())
}

fn certificate(id: &str, names: &[&str]) -> Arc<Certificate> {
    Arc::new(read(id, names, &Value::Null).unwrap().unwrap())
}

fn found(certificates: &Certificates, name: &str) -> String {
    certificates.find(name).map(|found| found.id.to_string()).unwrap_or_default()
}

#[test]
fn names_as_apisix_matches_them() {
    let mut certificates = Certificates::default();
    for (id, names) in [
        ("exact", &["WWW.example.com", "dot.test."][..]),
        ("wild", &["*.example.com"]),
        ("deeper", &["*.a.example.com"]),
        ("part", &["*shop.test"]),
    ] {
        certificates.insert(&certificate(id, names));
    }
    let table = [
        ("www.example.com", "exact"),
        ("dot.test", "exact"),
        ("api.example.com", "wild"),
        ("example.com", ""),
        ("a.b.example.com", ""),
        ("x.a.example.com", "deeper"),
        ("shop.test", "part"),
        ("myshop.test", "part"),
        ("my.shop.test", ""),
        ("localhost", ""),
    ];
    for (name, id) in table {
        assert_eq!(found(&certificates, name), id, "{name}");
    }
    certificates.insert(&certificate("all", &["*"]));
    for (name, id) in table {
        assert_eq!(found(&certificates, name), if id.is_empty() { "all" } else { id }, "{name}");
    }
}

#[test]
fn the_smallest_id_of_a_name_and_the_next_when_it_goes() {
    let mut certificates = Certificates::default();
    let (one, two) = (certificate("1", &["a.test"]), certificate("2", &["a.test"]));
    certificates.insert(&two);
    certificates.insert(&one);
    let before = certificates.clone();
    // As a compile changes one: the new one comes before the old one goes.
    let again = certificate("1", &["a.test", "b.test"]);
    certificates.insert(&again);
    certificates.remove(&one);
    assert!(Arc::ptr_eq(certificates.find("b.test").unwrap(), certificates.find("a.test").unwrap()));
    certificates.remove(&again);
    assert_eq!((found(&certificates, "a.test"), found(&certificates, "b.test")), ("2".into(), String::new()));
    certificates.remove(&two);
    assert!(certificates.is_empty() && found(&before, "a.test") == "1");
}

#[test]
fn what_can_not_be_used_says_why() {
    let other = Ca::new("other").server(&["a.test"]);
    let ca = Ca::new("ca").pem();
    for (extra, reason) in [
        (json!({ "key": other.key }), "does not belong"),
        (json!({ "cert": "x" }), "certificate is not PEM"),
        (json!({ "key": "x" }), "key is not a PEM"),
        (json!({ "certs": [other.cert], "keys": ["x"] }), "cert-key pair[1]: the key is not"),
        (json!({ "client": { "ca": "x" } }), "client.ca: the certificate is not PEM"),
        (json!({ "client": { "ca": ca, "skip_mtls_uri_regex": ["("] } }), "client.skip_mtls_uri_regex: "),
        (json!({ "ssl_protocols": ["TLSv1.1"] }), "none of TLSv1.2, TLSv1.3"),
    ] {
        let error = read("1", &["a.test"], &extra).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(read("1", &["a"], &json!({ "status": 0 })).unwrap().is_none());
    let suites = Settings { tls13: false, provider: Ciphers::default().provider(), ..Settings::default() };
    let error = Certificate::read("1", &ssl(&["a"], &Value::Null), &suites, &Lasting::default());
    assert!(error.is_err(), "a version without a cipher suite");
}
