use super::*;
use testkit::certs::Ca;

fn ssl(names: &[&str], extra: &serde_json::Value) -> Ssl {
    let pair = Ca::new("test").server(names);
    let mut value = serde_json::json!({ "cert": pair.cert, "key": pair.key, "snis": names });
    for (name, field) in extra.as_object().into_iter().flatten() {
        value[name] = field.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn read(id: &str, names: &[&str]) -> Arc<Certificate> {
    Arc::new(Certificate::read(id, &ssl(names, &serde_json::Value::Null)).unwrap().unwrap())
}

#[test]
fn an_exact_name_wins_and_a_wildcard_is_one_label() {
    let mut certificates = Certificates::default();
    let (exact, wild) = (read("1", &["www.Example.com"]), read("2", &["*.example.com"]));
    certificates.insert(&exact);
    certificates.insert(&wild);
    let find = |c: &Certificates, name| c.find(name).map(|found| found.id.to_string());
    assert_eq!(find(&certificates, "WWW.example.com").as_deref(), Some("1"));
    assert_eq!(find(&certificates, "api.example.com").as_deref(), Some("2"));
    assert_eq!(find(&certificates, "a.b.example.com"), None);
    assert_eq!(find(&certificates, "example.com"), None);
    let before = certificates.clone();
    certificates.remove(&exact);
    assert_eq!(find(&certificates, "www.example.com").as_deref(), Some("2"));
    assert_eq!(find(&before, "www.example.com").as_deref(), Some("1"));
}

#[test]
fn what_can_not_be_used_says_why() {
    let other = Ca::new("other").server(&["a.test"]);
    let error = |extra| Certificate::read("1", &ssl(&["a.test"], &extra)).err().map(|e| e.to_string());
    let message = error(serde_json::json!({ "key": other.key })).unwrap();
    assert!(message.contains("does not belong"), "{message}");
    let message = error(serde_json::json!({ "cert": "x" })).unwrap();
    assert!(message.contains("certificate is not PEM"), "{message}");
    let message = error(serde_json::json!({ "key": "x" })).unwrap();
    assert!(message.contains("key is not a PEM"), "{message}");
    assert!(Certificate::read("1", &ssl(&["a"], &serde_json::json!({ "status": 0 }))).unwrap().is_none());
}
