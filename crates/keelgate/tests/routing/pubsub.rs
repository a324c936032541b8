//! Kafka behind a WebSocket.

use serde_json::{Value, json};
use testkit::certs::Ca;
use testkit::gateway::SOON;
use testkit::pubsub::Pubsub;
use testkit::servers::Kafka;
use testkit::wait::eventually;
use testkit::ws::Opcode;

use crate::Node;

/// The end and the beginning of a partition, as times.
const END: i64 = -1;
const BEGINNING: i64 = -2;

fn cluster(port: u16, more: Value) -> Value {
    let mut upstream =
        json!({ "nodes": { format!("127.0.0.1:{port}"): 1 }, "type": "none", "scheme": "kafka" });
    testkit::gateway::merge(&mut upstream, more);
    upstream
}

#[tokio::test]
async fn messages_are_fetched_over_a_websocket_that_outlives_broker_and_reload() {
    let mut kafka = Kafka::start(&Ca::new("kafka").server(&["127.0.0.1"])).await;
    let mut node = Node::start().await;
    node.has(&[("routes/k", json!({ "uri": "/kafka", "upstream": cluster(kafka.port, json!({})) }))]).await;

    let plain = node.get("/kafka").await.unwrap();
    assert_eq!(plain.status, 400, "a WebSocket is what there is");

    let mut client = Pubsub::connect(&node.url("/kafka")).await.unwrap();
    assert_eq!(client.offset("messages", BEGINNING).await.unwrap(), 0);
    assert_eq!(client.offset("messages", END).await.unwrap(), 3);
    let messages = client.fetch("messages", 1).await.unwrap();
    let seen: Vec<_> = messages.iter().map(|message| (message.offset, &*message.value)).collect();
    assert_eq!(seen, [(1, &b"message 2"[..]), (2, &b"message 3"[..])]);
    assert_eq!((messages[0].timestamp, &*messages[0].key), (2000, &b"key"[..]));
    assert!(client.fetch("messages", 3).await.unwrap().is_empty(), "the fourth has not come yet");
    let error = client.fetch("messages", 99).await.unwrap_err().to_string();
    assert_eq!(error, "failed to fetch message, topic: messages, partition: 0, err: OFFSET_OUT_OF_RANGE");

    // What is no command gets no answer, or an error; the next one is answered.
    client.send(Opcode::Text, b"hello").await.unwrap();
    client.send(Opcode::Ping, b"there?").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), (Opcode::Pong, b"there?".to_vec()));
    client.send(Opcode::Binary, b"\xff").await.unwrap();
    assert_eq!(client.recv().await.unwrap().0, Opcode::Binary);
    node.gateway.reload();
    node.settled().await;
    assert_eq!(client.offset("messages", END).await.unwrap(), 3);

    kafka.kill9();
    let error = eventually(SOON, "the broker's death to be told", async || {
        client.offset("messages", END).await.err().ok_or_else(|| anyhow::anyhow!("it still answers"))
    });
    let error = error.await.to_string();
    assert!(error.starts_with("failed to list offset, topic: messages, partition: 0, err: "), "{error}");
    client.send(Opcode::Close, b"").await.unwrap();
    assert_eq!(client.recv().await.unwrap().0, Opcode::Close);
}

#[tokio::test]
async fn brokers_may_want_tls_and_a_password() {
    let kafka = Kafka::start(&Ca::new("kafka").server(&["127.0.0.1"])).await;
    let node = Node::start().await;
    let plugin =
        |password| json!({ "kafka-proxy": { "sasl": { "username": Kafka::USER, "password": password } } });
    let encrypted = cluster(kafka.door, json!({ "tls": { "verify": false } }));
    node.has(&[
        ("routes/r", json!({ "uri": "/right", "upstream": encrypted, "plugins": plugin(Kafka::PASSWORD) })),
        ("routes/w", json!({ "uri": "/wrong", "upstream": encrypted, "plugins": plugin("guess") })),
        (
            "routes/u",
            json!({
                "uri": "/unknown", "upstream": cluster(kafka.door, json!({ "tls": { "verify": true } })),
                "plugins": plugin(Kafka::PASSWORD)
            }),
        ),
    ])
    .await;
    let offset = async |path| {
        let mut client = Pubsub::connect(&node.url(path)).await.unwrap();
        client.offset("messages", END).await
    };
    assert_eq!(offset("/right").await.unwrap(), 3);
    let error = offset("/wrong").await.unwrap_err().to_string();
    assert!(error.contains("SaslAuthenticationFailed") && !error.contains("guess"), "{error}");
    let error = offset("/unknown").await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}
