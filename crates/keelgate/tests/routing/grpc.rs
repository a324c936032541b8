//! gRPC through the gateway as it is configured by default.

use serde_json::{Value, json};
use testkit::certs::Ca;
use testkit::grpc::{Client, Server};
use testkit::upstream::Upstream;

use crate::{Node, to};

/// A route for the notes, to this server.
fn notes(server: &Server, more: Value) -> Value {
    let mut upstream = json!({ "type": "roundrobin", "scheme": "grpc", "nodes": { server.node(): 1 } });
    testkit::gateway::merge(&mut upstream, more);
    json!({ "uri": "/keel.Notes/*", "upstream": upstream })
}

#[tokio::test]
async fn calls_go_through_on_both_ports_and_plugins_see_them() {
    let (node, server, upstream, ca) =
        (Node::start().await, Server::start(), Upstream::start(), Ca::new("keel"));
    let pair = ca.server(&["notes.test"]);
    let mut route = notes(&server, json!({}));
    route["plugins"] = json!({
        "key-auth": {},
        "response-rewrite": { "headers": { "set": { "x-status": "$upstream_status" } } },
    });
    node.has(&[
        ("consumers", json!({ "username": "jack", "plugins": { "key-auth": { "key": "jacks" } } })),
        ("ssls/1", json!({ "cert": pair.cert, "key": pair.key, "snis": ["notes.test"] })),
        ("routes/notes", route),
        ("routes/rest", json!({ "uri": "/ip", "upstream": to(&[&upstream]) })),
    ])
    .await;
    let plain = Client::connect(&node.url("")).await.unwrap();
    let tls = Client::connect_tls(&node.tls_url(""), "notes.test", &ca.pem()).await.unwrap();
    for client in [plain, tls] {
        let answer = client.say_with("hello", &[("apikey", "jacks")]).await.unwrap();
        assert_eq!(answer.metadata().get("x-status").unwrap(), "200");
        assert_eq!(answer.into_inner().text, "hello");
        assert_eq!(server.last()["x-consumer-username"], "jack");
        let calls = server.calls();
        let refused = client.say("hello").await.unwrap_err();
        assert!(refused.message().contains("401"), "{refused:?}");
        assert_eq!(server.calls(), calls);
    }
    // The same port serves clients of HTTP/1.1.
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_server_may_ask_for_our_certificate() {
    let (node, ca) = (Node::start().await, Ca::new("keel"));
    let server = Server::tls(ca.server(&["127.0.0.1"]).server_config_for(&ca));
    let pair = ca.client("gateway");
    let tls = json!({ "client_cert": pair.cert, "client_key": pair.key });
    node.has(&[("routes/notes", notes(&server, json!({ "scheme": "grpcs", "tls": tls })))]).await;
    let client = Client::connect(&node.url("")).await.unwrap();
    assert_eq!(client.say("hello").await.unwrap(), "hello");
    let mut talk = client.talk("one").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "one");
    assert_eq!(talk.say("two").await.unwrap(), "two");
    node.has(&[("routes/notes", notes(&server, json!({ "scheme": "grpcs" })))]).await;
    let refused = client.say("hello").await.unwrap_err();
    assert!(refused.message().contains("502"), "{refused:?}");
    assert_eq!(talk.say("three").await.unwrap(), "three", "what is under way goes on");
}
