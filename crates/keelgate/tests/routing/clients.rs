//! Who the client is, as `config.yaml` says whom to believe.

use std::time::Duration;

use ::http::Method;
use serde_json::json;
use testkit::{
    gateway::SOON,
    http,
    upstream::Upstream,
    wait::{eventually, expect},
};

use crate::{Node, to};

#[tokio::test]
async fn a_proxy_on_this_machine_names_its_client_unless_the_file_says_otherwise() {
    let upstream = Upstream::start();
    let mut node = Node::start().await;
    let route = json!({ "uri": "/*", "upstream": to(&[&upstream]) });
    node.has(&[("routes/1", route)]).await;
    let seen = async |node: &Node, path: &str, name: &str, value: &str| {
        let answer = http::request(Method::GET, &node.url(path), &[(name, value)], "").await.unwrap();
        assert_eq!(answer.status, 200);
        upstream.last().header("x-real-ip").to_owned()
    };
    assert_eq!(seen(&node, "/get", "x-real-ip", "10.1.2.3").await, "10.1.2.3");
    assert_eq!(seen(&node, "/get", "x-forwarded-for", "10.1.2.3").await, "127.0.0.1");
    let forwarded = json!({ "nginx_config": { "http": { "real_ip_header": "X-Forwarded-For" } } });
    node.gateway.merge_config(forwarded);
    node.gateway.reload();
    eventually(SOON, "the new setting", async || {
        let client = seen(&node, "/get", "x-forwarded-for", "9.9.9.9, 10.1.2.3").await;
        expect(client == "10.1.2.3", client)
    })
    .await;
    assert_eq!(seen(&node, "/get", "x-real-ip", "10.1.2.3").await, "127.0.0.1");
}

#[tokio::test]
async fn a_load_balancer_has_its_own_listener() {
    let upstream = Upstream::start();
    let port = testkit::ports::free();
    let node = Node::with(json!({
        "apisix": { "proxy_protocol": { "listen_http_port": port } },
        "nginx_config": { "http": { "real_ip_header": "proxy_protocol", "client_header_timeout": "1s" } },
    }))
    .await;
    node.has(&[("routes/1", json!({ "uri": "/*", "upstream": to(&[&upstream]) }))]).await;
    let before = b"PROXY TCP4 10.1.2.3 10.0.0.1 4000 80\r\n".to_vec();
    let options = http::Options { before, ..http::Options::default() };
    let url = format!("http://127.0.0.1:{port}/");
    let mut client = http::Client::connect_with(&url, &options).await.unwrap();
    assert_eq!(client.get("/get").await.unwrap().status, 200);
    assert_eq!(upstream.last().header("x-real-ip"), "10.1.2.3");
    // Without a header there is nobody to serve.
    let unannounced = tokio::time::timeout(Duration::from_secs(20), http::get(&format!("{url}get"))).await;
    assert!(unannounced.unwrap().is_err());
}
