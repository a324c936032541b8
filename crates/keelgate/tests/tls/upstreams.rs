//! TLS towards upstreams: who we are, and who they must be.

use serde_json::{Value, json};
use testkit::certs::Ca;
use testkit::upstream::Upstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Node;

fn upstream(port: u16, tls: &Value) -> Value {
    json!({
        "scheme": "https", "type": "roundrobin", "nodes": { format!("localhost:{port}"): 1 },
        "pass_host": "node", "tls": tls,
    })
}

#[tokio::test]
async fn certificates_of_ours_by_value_and_by_id_with_verification_on() {
    let (ca, ours, foreign) = (Ca::new("upstreams"), Ca::new("ours"), Ca::new("foreign"));
    let folder = tempfile::tempdir().unwrap();
    let trusted = ca.write(folder.path(), "trusted");
    let node = Node::with(json!({ "apisix": { "ssl": { "ssl_trusted_certificate": trusted } } })).await;
    let known = Upstream::tls(ca.server(&["localhost"]).server_config_for(&ours));
    let stranger = Upstream::tls(foreign.server(&["localhost"]).server_config_for(&ours));
    let (good, bad) = (ours.client("us"), foreign.client("us"));
    let by_value = |pair: &testkit::certs::Pair, verify: bool| json!({ "client_cert": pair.cert, "client_key": pair.key, "verify": verify });
    node.has(&[
        ("ssls/us", json!({ "type": "client", "cert": good.cert, "key": good.key })),
        ("ssls/them", json!({ "type": "client", "cert": bad.cert, "key": bad.key })),
    ])
    .await;
    let by_id = |id: &str, verify: bool| json!({ "client_cert_id": id, "verify": verify });
    for (name, port, tls, status) in [
        ("by value", known.port(), by_value(&good, true), 200),
        ("by id", known.port(), by_id("us", true), 200),
        ("nothing shown", known.port(), json!({ "verify": true }), 502),
        ("another's, by value", known.port(), by_value(&bad, true), 502),
        ("another's, by id", known.port(), by_id("them", true), 502),
        ("a stranger, verified", stranger.port(), by_id("us", true), 502),
        ("a stranger, not verified", stranger.port(), by_id("us", false), 200),
    ] {
        let route = json!({ "uri": "/ip", "upstream": upstream(port, &tls) });
        node.has(&[("routes/1", route)]).await;
        let answer = node.get("/ip").await.unwrap();
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    // A new certificate under the same id counts for new connections, and the old one's are not used for it.
    node.has(&[
        ("routes/1", json!({ "uri": "/ip", "upstream": upstream(known.port(), &by_id("us", true)) })),
        ("ssls/us", json!({ "type": "client", "cert": bad.cert, "key": bad.key })),
    ])
    .await;
    assert_eq!(node.get("/ip").await.unwrap().status, 502);
    node.has(&[("ssls/us", json!({ "type": "client", "cert": good.cert, "key": good.key }))]).await;
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
    // The key is never told, and never kept in plain text.
    let shown = node.admin(http::Method::GET, "routes/1", &Value::Null).await.text();
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

#[tokio::test]
async fn whoever_is_there_where_the_client_names_no_host() {
    let (node, ca) = (Node::start().await, Ca::new("upstreams"));
    let secure = Upstream::tls(ca.server(&["localhost"]).server_config());
    let mut to = upstream(secure.port(), &json!({}));
    to["pass_host"] = json!("pass");
    node.has(&[("routes/1", json!({ "uri": "/ip", "upstream": to }))]).await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", node.ports().http)).await.unwrap();
    stream.write_all(b"GET /ip HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.lines().next().unwrap().contains(" 200 "), "{answer}");
}
