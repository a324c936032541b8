//! Certificates.

use testkit::certs::Ca;

use super::*;

#[tokio::test]
async fn keys_are_encrypted_and_never_shown() {
    let api = api();
    let (pair, other) = (Ca::new("ca").server(&["test.com"]), Ca::new("ca").server(&["test.com"]));
    let body = json!({ "cert": pair.cert, "key": pair.key, "sni": "test.com", "certs": [other.cert], "keys": [other.key] });
    let put = api.call("PUT /ssls/1", &body).await;
    assert_eq!(put.status, 201, "{}", put.text);
    for text in [put.text, api.stored("ssls/1").await.to_string()] {
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
    api.script(&[
        (
            "GET /ssls/1",
            Value::Null,
            200,
            json!({ "value": { "sni": "test.com", "key": null, "keys": null, "cert": pair.cert } }),
        ),
        ("PATCH /ssls/1", json!({ "sni": "foo.com" }), 200, json!({ "value": { "sni": "foo.com" } })),
        (
            "PATCH /ssls/1/key",
            json!(json!(other.key).to_string()),
            400,
            json!({ "error_msg": "failed to parse key: …" }),
        ),
        ("POST /ssls", body, 201, json!({ "value": { "sni": "test.com" } })),
        ("DELETE /ssls/1", Value::Null, 200, Value::Null),
    ])
    .await;
    let list = api.call("GET /ssls", &Value::Null).await.text;
    assert!(!list.contains("\"key\":\"-") && !list.contains("\"keys\""), "{list}");
}

#[tokio::test]
async fn keys_of_upstreams_are_ciphertext_in_every_answer() {
    let api = api();
    let pair = Ca::new("ca").server(&["test.com"]);
    let key = format!("Bag Attributes\n    localKeyID: 01\n{}", pair.key);
    let upstream = json!({ "nodes": {}, "tls": { "client_cert": pair.cert, "client_key": key } });
    let key_auth = json!({ "key-auth": { "key": "hush" } });
    for (path, conf) in [
        ("/upstreams/1", upstream.clone()),
        ("/services/1", json!({ "upstream": upstream })),
        ("/routes/1", json!({ "uri": "/", "upstream": upstream, "plugins": key_auth })),
    ] {
        let put = api.call(&format!("PUT {path}"), &conf).await;
        assert_eq!(put.status, 201, "{}", put.text);
        let mut shown = api.call(&format!("GET {path}"), &Value::Null).await.json()["value"].take();
        let configs = api.call("GET /configs", &Value::Null).await.text;
        let list = api.call(&format!("GET {}", path.trim_end_matches("/1")), &Value::Null).await.text;
        for text in
            [&shown.to_string(), &configs, &list, &put.text, &api.stored(&path[1..]).await.to_string()]
        {
            assert!(!text.contains("PRIVATE KEY"), "{text}");
        }
        // What is shown can be put back.
        shown.as_object_mut().unwrap().retain(|name, _| !name.ends_with("_time"));
        let before = api.stored(&path[1..]).await["upstream"].clone();
        let put = api.call(&format!("PUT {path}"), &shown).await;
        assert_eq!((put.status, &api.stored(&path[1..]).await["upstream"]), (200, &before), "{}", put.text);
    }
    let shown = api.call("GET /routes/1", &Value::Null).await.json();
    assert_eq!(shown["value"]["plugins"], key_auth);
    let mut foreign = upstream;
    foreign["tls"]["client_key"] = json!("bm90IG91cnM=".repeat(8));
    let refused = error("failed to decrypt previous encrypted key");
    api.script(&[("PUT /upstreams/2", foreign, 400, refused)]).await;
}

#[tokio::test]
async fn what_can_not_be_loaded_is_refused() {
    let pair = Ca::new("ca").server(&["test.com"]);
    let other = Ca::new("ca").server(&["test.com"]);
    let broken = |pem: &str| pem.replace("BEGIN ", "BEGIN A");
    // PEM still, but no key of any kind.
    let garbled = |pem: &str| pem.replacen("\nM", "\nA", 1);
    let ssl = |cert: &str, key: &str| json!({ "cert": cert, "key": key, "sni": "test.com" });
    let mut second = ssl(&pair.cert, &pair.key);
    second["certs"] = json!([broken(&pair.cert)]);
    second["keys"] = json!([pair.key]);
    let secret = "$secret://vault/test/ssl/test.com";
    api()
        .script(&[
            ("PUT /ssls/1", ssl(&broken(&pair.cert), &pair.key), 400, error("failed to parse cert: PEM_read_bio_X509_AUX() failed")),
            ("PUT /ssls/1", ssl(&pair.cert, &broken(&pair.key)), 400, error("failed to parse key: PEM_read_bio_PrivateKey() failed")),
            ("PUT /ssls/1", ssl(&pair.cert, &garbled(&pair.key)), 400, error("failed to parse key: PEM_read_bio_PrivateKey() failed")),
            ("PUT /ssls/1", ssl(&pair.cert, &other.key), 400, json!({ "error_msg": "failed to parse key: …" })),
            ("PUT /ssls/1", second, 400, error("failed to handle cert-key pair[1]: failed to parse cert: PEM_read_bio_X509_AUX() failed")),
            ("PUT /ssls/1", json!({ "sni": "foo.com" }), 400, error("invalid configuration: then clause did not match")),
            ("PUT /ssls/1", json!({ "cert": pair.cert, "key": pair.key }), 400, error("invalid configuration: then clause did not match")),
            ("PUT /ssls/1", json!({ "type": "client", "cert": pair.cert, "key": pair.key }), 201, Value::Null),
            ("PUT /ssls/2", ssl(secret, secret), 201, json!({ "value": { "cert": secret, "key": secret } })),
            ("PUT /ssls/3", ssl("$ENV://CERT", "$env://KEY"), 201, Value::Null),
            ("PUT /upstreams/1", json!({ "nodes": {}, "type": "roundrobin", "tls": { "client_cert_id": "1" } }), 201, Value::Null),
            ("PUT /upstreams/2", json!({ "nodes": {}, "type": "roundrobin", "tls": { "client_cert_id": "2" } }), 400, error("failed to fetch ssl info by ssl id [2], wrong ssl type")),
            ("PUT /upstreams/3", json!({ "nodes": {}, "type": "roundrobin", "tls": { "client_cert": pair.cert, "client_key": broken(&pair.key) } }), 400, error("failed to parse key: PEM_read_bio_PrivateKey() failed")),
        ])
        .await;
}
