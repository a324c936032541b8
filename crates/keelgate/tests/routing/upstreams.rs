//! Which node gets a request, what it is told of the client, and what is tried again.

use http::Method;
use serde_json::{Value, json};
use testkit::gateway::SOON;
use testkit::http::{Client, request};
use testkit::ports;
use testkit::upstream::{Behaviour, Upstream};
use testkit::wait::{eventually, expect};

use crate::{Node, to, to_with};

#[tokio::test]
async fn weights_share_out_requests_and_zero_gets_none() {
    let node = Node::start().await;
    let (one, three, none) = (Upstream::start(), Upstream::start(), Upstream::start());
    let nodes = json!({ one.node(): 1, three.node(): 3, none.node(): 0 });
    let upstream = json!({ "type": "roundrobin", "nodes": nodes });
    node.has(&[("routes/r", json!({ "uri": "/ip", "upstream": upstream }))]).await;
    let mut client = Client::connect(&node.url("/")).await.unwrap();
    for _ in 0..80 {
        assert_eq!(client.get("/ip").await.unwrap().status, 200);
    }
    // One connection has one worker, and its turns are exact.
    assert_eq!((one.requests(), three.requests(), none.requests()), (20, 60, 0));
}

#[tokio::test]
async fn the_host_an_upstream_sees() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    let route = |path: &str, more: Value| json!({ "uri": path, "upstream": to_with(&[&upstream], more) });
    let rewrite = json!({ "pass_host": "rewrite", "upstream_host": "inner.test" });
    node.has(&[
        ("routes/pass", route("/anything/pass", json!({}))),
        ("routes/node", route("/anything/node", json!({ "pass_host": "node" }))),
        ("routes/rewrite", route("/anything/rewrite", rewrite.clone())),
    ])
    .await;
    // What pass_host says comes before what a plugin says.
    let with = |name: &str, plugin: Value, more: Value| {
        let mut route = route(&format!("/anything/{name}"), more);
        route["plugins"] = json!({ "proxy-rewrite": plugin });
        (format!("routes/{name}"), route)
    };
    let plugin = json!({ "host": "plugin.test" });
    for (key, route) in [
        with("plugin-pass", plugin.clone(), json!({})),
        with("plugin-node", plugin.clone(), json!({ "pass_host": "node" })),
        with("plugin-rewrite", plugin, rewrite),
        with("header", json!({ "headers": { "set": { "Host": "header.test" } } }), json!({})),
        with("removed", json!({ "headers": { "remove": ["Host"] } }), json!({})),
    ] {
        node.has(&[(&*key, route)]).await;
    }
    let own = upstream.node();
    for (path, expected) in [
        ("pass", "outer.test"),
        ("node", own.as_str()),
        ("rewrite", "inner.test"),
        ("plugin-pass", "plugin.test"),
        ("plugin-node", own.as_str()),
        ("plugin-rewrite", "inner.test"),
        ("header", "outer.test"),
        ("removed", "outer.test"),
    ] {
        let url = node.url(&format!("/anything/{path}"));
        let answer = request(Method::GET, &url, &[("host", "outer.test")], "").await.unwrap();
        assert_eq!((answer.status, upstream.last().header("host")), (200, expected), "{path}");
    }
}

#[tokio::test]
async fn what_the_access_log_tells_of_an_upstream() {
    let format = "$uri $upstream_http_x_upstream|$sent_http_x_upstream|$connection_requests|$request_completion|\
                  $upstream_response_length|$body_bytes_sent";
    let log = json!({ "enable_access_log": true, "access_log_format": format });
    let node = Node::with(json!({ "nginx_config": { "http": log } })).await;
    let upstream = Upstream::named("theirs");
    let changed = json!({ "response-rewrite": {
        "headers": { "set": { "x-upstream": "changed" } },
        "filters": [{ "regex": "k", "scope": "global", "replace": "kk" }],
    } });
    node.has(&[
        ("routes/a", json!({ "uri": "/bytes/*", "upstream": to(&[&upstream]), "plugins": changed })),
        ("routes/b", json!({ "uri": "/none", "plugins": { "key-auth": {} }, "upstream": to(&[&upstream]) })),
    ])
    .await;
    let mut client = Client::connect(&node.url("/")).await.unwrap();
    assert_eq!(client.get("/bytes/5").await.unwrap().status, 200);
    assert_eq!(client.get("/none").await.unwrap().status, 401);
    let file = node.home().join("logs/access.log");
    eventually(SOON, "both lines", async || {
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        expect(
            lines.contains("/bytes/5 theirs|changed|1|OK|5|10") && lines.contains("/none -|-|2|OK|-|"),
            lines,
        )
    })
    .await;
}

#[tokio::test]
async fn what_an_upstream_is_told_of_the_client() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[("routes/r", json!({ "uri": "/anything", "upstream": to(&[&upstream]) }))]).await;
    let port = node.ports().http.to_string();
    let claims = [
        ("host", "shop.test"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-port", "1"),
        // From this machine, it is believed by default.
        ("x-real-ip", "8.8.8.8"),
        ("x-own", "kept"),
        ("connection", "x-hop"),
        ("x-hop", "dropped"),
    ];
    let answer = request(Method::POST, &node.url("/anything?a=1"), &claims, "a body").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = upstream.last();
    for (name, expected) in [
        ("x-forwarded-for", "9.9.9.9, 8.8.8.8"),
        ("x-real-ip", "8.8.8.8"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-port", &port),
        ("x-own", "kept"),
        ("x-hop", ""),
    ] {
        assert_eq!(seen.header(name), expected, "{name}");
    }
    assert_eq!(
        (seen.method, seen.uri.to_string(), &*seen.body),
        (Method::POST, "/anything?a=1".into(), &b"a body"[..])
    );
}

#[tokio::test]
async fn a_node_that_refuses_is_passed_over() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    let dead = format!("127.0.0.1:{}", ports::free());
    let dead_too = format!("127.0.0.1:{}", ports::free());
    let none = json!({ "nodes": { dead.clone(): 1, dead_too: 1 } });
    let half = |retries: Value| json!({ "nodes": { dead.clone(): 1 }, "retries": retries });
    node.has(&[
        ("routes/r", json!({ "uri": "/ip", "upstream": to_with(&[&upstream], half(Value::Null)) })),
        ("routes/none", json!({ "uri": "/headers", "upstream": none })),
        ("routes/once", json!({ "uri": "/get", "upstream": to_with(&[&upstream], half(json!(0))) })),
    ])
    .await;
    let mut once = Vec::new();
    for _ in 0..10 {
        assert_eq!(node.get("/ip").await.unwrap().status, 200);
        once.push(node.get("/get").await.unwrap().status);
    }
    assert!(once.contains(&502) && once.contains(&200), "without retries every other fails: {once:?}");
    let answer = node.get("/headers").await.unwrap();
    assert_eq!((answer.status, answer.header("x-apisix-upstream-status")), (502, "502, 502"));
    let body = "kept for the second try";
    for _ in 0..4 {
        let answer = request(Method::POST, &node.url("/ip"), &[], body).await.unwrap();
        assert_eq!((answer.status, &*upstream.last().body), (200, body.as_bytes()));
    }
}

#[tokio::test]
async fn a_node_that_breaks_off_is_passed_over_unless_the_request_was_no_read() {
    let (node, good, bad) = (Node::start().await, Upstream::start(), Upstream::start());
    bad.behave(Behaviour::Cut(0));
    node.has(&[("routes/r", json!({ "uri": "/anything", "upstream": to(&[&good, &bad]) }))]).await;
    for _ in 0..6 {
        assert_eq!(node.get("/anything").await.unwrap().status, 200);
    }
    let mut posts = Vec::new();
    for _ in 0..6 {
        posts.push(request(Method::POST, &node.url("/anything"), &[], "x").await.unwrap().status);
    }
    assert!(posts.contains(&502), "a POST that may have been acted upon is not sent twice: {posts:?}");
}

#[tokio::test]
async fn connections_to_an_upstream_are_kept() {
    let (node, upstream) = (Node::start().await, Upstream::start());
    node.has(&[("routes/r", json!({ "uri": "/ip", "upstream": to(&[&upstream]) }))]).await;
    let mut client = Client::connect(&node.url("/")).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/ip").await.unwrap().status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    // One that died while it lay idle costs nobody a request.
    upstream.restart();
    assert_eq!(client.get("/ip").await.unwrap().status, 200);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_upstream_over_tls_is_asked_by_its_name() {
    let node = Node::start().await;
    let pair = testkit::certs::Ca::new("upstreams").server(&["inner.test"]);
    let upstream = Upstream::tls(pair.server_config());
    let tls = json!({ "scheme": "https", "pass_host": "rewrite", "upstream_host": "inner.test" });
    node.has(&[("routes/r", json!({ "uri": "/ip", "upstream": to_with(&[&upstream], tls) }))]).await;
    let answer = node.get("/ip").await.unwrap();
    assert_eq!((answer.status, upstream.last().header("host")), (200, "inner.test"), "{}", answer.text());
}
