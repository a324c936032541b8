//! Who is let in: by certificate, by key, by role.

use http::Method;
use serde_json::json;
use testkit::certs::Ca;
use testkit::gateway::{ADMIN_KEY, Gateway};
use testkit::http::{Client, Options};

use crate::KEELGATE;

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_are_heard() {
    let (ca, other) = (Ca::new("admins"), Ca::new("strangers"));
    let mut node = Gateway::control_plane(KEELGATE);
    let server = ca.server(&["127.0.0.1"]).write(node.home(), "admin");
    let mtls = json!({
        "admin_ssl_cert": server.cert, "admin_ssl_cert_key": server.key,
        "admin_ssl_ca_cert": ca.write(node.home(), "admins"),
    });
    node.merge_config(json!({ "deployment": { "admin": { "https_admin": true, "admin_api_mtls": mtls } } }));
    node.start().await;
    let url = format!("https://127.0.0.1:{}", node.ports().admin);
    let ask = async |client| {
        let options = Options { ca: Some(ca.pem()), client, ..Options::default() };
        let mut client = Client::connect_with(&url, &options).await?;
        client.send(Method::GET, "/apisix/admin/routes", &[("X-API-KEY", ADMIN_KEY)], "").await
    };
    let answer = ask(Some(ca.client("jane"))).await.unwrap();
    assert_eq!((answer.status, answer.json()), (200, json!({ "list": [], "total": 0 })));
    assert!(answer.header("server").starts_with("APISIX/3."), "{}", answer.header("server"));
    assert!(ask(None).await.is_err(), "nobody asked for a certificate");
    assert!(ask(Some(other.client("mallory"))).await.is_err(), "a stranger's certificate was taken");
}

#[tokio::test]
async fn a_viewer_reads_and_no_more() {
    let keys = json!([
        { "name": "admin", "key": ADMIN_KEY, "role": "admin" },
        { "name": "viewer", "key": "the-viewers-key", "role": "viewer" },
    ]);
    let mut node =
        Gateway::control_plane(KEELGATE).with(json!({ "deployment": { "admin": { "admin_key": keys } } }));
    node.start().await;
    let mut client = Client::connect(&format!("http://127.0.0.1:{}", node.ports().admin)).await.unwrap();
    let body = json!({ "uri": "/", "plugins": {} }).to_string();
    for (method, key, status) in [
        (Method::GET, "the-viewers-key", 200),
        (Method::PUT, "the-viewers-key", 401),
        (Method::GET, "nobodys-key", 401),
        (Method::PUT, ADMIN_KEY, 201),
        (Method::DELETE, "the-viewers-key", 401),
    ] {
        let path = if method == Method::GET { "/apisix/admin/routes" } else { "/apisix/admin/routes/1" };
        let answer = client.send(method.clone(), path, &[("X-API-KEY", key)], body.clone()).await.unwrap();
        assert_eq!(answer.status, status, "{method} {key}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_empty_key_of_an_administrator_is_made() {
    let keys = json!([
        { "name": "admin", "key": "", "role": "admin" },
        { "name": "viewer", "key": "the-viewers-key", "role": "viewer" },
    ]);
    let mut node =
        Gateway::control_plane(KEELGATE).with(json!({ "deployment": { "admin": { "admin_key": keys } } }));
    node.start().await;
    let made = std::fs::read_to_string(node.data_dir().join("admin.key")).unwrap();
    let mut client = Client::connect(&format!("http://127.0.0.1:{}", node.ports().admin)).await.unwrap();
    let body = json!({ "uri": "/", "plugins": {} }).to_string();
    for (key, status) in [("the-viewers-key", 401), ("", 401), (made.trim(), 201)] {
        let headers = [("X-API-KEY", key)];
        let answer =
            client.send(Method::PUT, "/apisix/admin/routes/1", &headers, body.clone()).await.unwrap();
        assert_eq!(answer.status, status, "{key}: {}", answer.text());
    }
}
