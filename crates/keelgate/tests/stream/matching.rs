//! Which route a session finds, and which node it gets.

use std::collections::HashMap;

use serde_json::json;
use testkit::certs::Ca;
use testkit::echo::{Echo, say, say_from, say_tls};
use testkit::http::Options;

use crate::*;

#[tokio::test]
async fn addresses_and_ports_choose() {
    let (one, two, three) = (Echo::tcp(), Echo::tcp(), Echo::tcp());
    let node = Node::start().await;
    let ca = Ca::new("keel");
    let pair = ca.server(&["a.test"]);
    node.has(&[
        ("ssls/1", json!({ "cert": pair.cert, "key": pair.key, "snis": ["a.test"] })),
        ("upstreams/1", to(&[&one])),
        ("services/1", json!({ "upstream": to(&[&two]) })),
        ("stream_routes/1", json!({ "remote_addr": "127.0.0.2", "upstream_id": "1" })),
        ("stream_routes/2", json!({ "remote_addr": "127.0.0.8/29", "service_id": "1" })),
        (
            "stream_routes/3",
            json!({ "server_addr": "127.0.0.1", "server_port": node.tcp.port(), "upstream": to(&[&three]) }),
        ),
    ])
    .await;
    assert_eq!(say_from("127.0.0.2", node.tcp, "a").await.unwrap(), answer(&one, "a"));
    assert_eq!(say_from("127.0.0.9", node.tcp, "b").await.unwrap(), answer(&two, "b"));
    assert_eq!(say_from("127.0.0.3", node.tcp, "c").await.unwrap(), answer(&three, "c"));
    // Nothing is for this one: it ends without a word.
    let other = say_tls(node.tls, "a.test", &Options::default(), "d").await;
    assert_eq!(other.unwrap_or_default(), "");

    node.has(&[("upstreams/1", to(&[&two]))]).await;
    assert_eq!(say_from("127.0.0.2", node.tcp, "a").await.unwrap(), answer(&two, "a"));
    node.delete("stream_routes/1").await;
    node.settled().await;
    assert_eq!(say_from("127.0.0.2", node.tcp, "a").await.unwrap(), answer(&three, "a"));
}

#[tokio::test]
async fn names_choose_over_tls() {
    let (exact, wild, any) = (Echo::tcp(), Echo::tcp(), Echo::tcp());
    let node = Node::start().await;
    let ca = Ca::new("keel");
    let pair = ca.server(&["*.test.com", "*.b.test.com"]);
    node.has(&[
        ("ssls/1", json!({ "cert": pair.cert, "key": pair.key, "snis": ["*.test.com", "*.b.test.com"] })),
        ("stream_routes/1", json!({ "sni": "a.test.com", "upstream": to(&[&exact]) })),
        ("stream_routes/2", json!({ "sni": "*.test.com", "upstream": to(&[&wild]) })),
        ("stream_routes/3", json!({ "upstream": to(&[&any]) })),
    ])
    .await;
    let options = Options { ca: Some(ca.pem()), ..Options::default() };
    let said = async |name| say_tls(node.tls, name, &options, "hello").await.unwrap();
    assert_eq!(said("a.test.com").await, answer(&exact, "hello"));
    assert_eq!(said("A.TEST.com").await, answer(&exact, "hello"));
    assert_eq!(said("b.test.com").await, answer(&wild, "hello"));
    assert_eq!(said("a.b.test.com").await, answer(&wild, "hello"));
    assert_eq!(say(node.tcp, "plain").await.unwrap(), answer(&any, "plain"));
    assert!(say_tls(node.tls, "a.other.com", &options, "hello").await.is_err(), "no certificate");
}

#[tokio::test]
async fn sessions_are_spread_and_dead_nodes_passed_over() {
    let (one, two) = (Echo::tcp(), Echo::tcp());
    let node = Node::start().await;
    node.has(&[("stream_routes/1", json!({ "upstream": to(&[&one, &two]) }))]).await;
    let mut seen: HashMap<String, u32> = HashMap::new();
    for _ in 0..10 {
        *seen.entry(say(node.tcp, "x").await.unwrap()).or_default() += 1;
    }
    assert!(seen.values().all(|times| *times > 0) && seen.len() == 2, "{seen:?}");

    let mut nodes = to(&[&one]);
    nodes["nodes"][format!("127.0.0.1:{}", ports::free())] = json!(100);
    node.has(&[("stream_routes/1", json!({ "upstream": nodes }))]).await;
    for _ in 0..5 {
        assert_eq!(say(node.tcp, "y").await.unwrap(), answer(&one, "y"));
    }
    nodes["retries"] = json!(0);
    node.has(&[("stream_routes/1", json!({ "upstream": nodes }))]).await;
    let mut lost = 0;
    for _ in 0..10 {
        lost += u32::from(say(node.tcp, "z").await.unwrap_or_default().is_empty());
    }
    assert!(lost > 0, "the dead node is not asked");

    let hashed = to_with(&[&one, &two], json!({ "type": "chash", "key": "remote_addr" }));
    node.has(&[("stream_routes/1", json!({ "upstream": hashed }))]).await;
    for host in 2..12 {
        let from = format!("127.0.0.{host}");
        let first = say_from(&from, node.tcp, "h").await.unwrap();
        assert_eq!(say_from(&from, node.tcp, "h").await.unwrap(), first);
    }
}
