//! Nodes that die get no requests until they are back, and what is known of them outlives changes around them.

use serde_json::{Value, json};
use testkit::{
    certs::Ca,
    gateway::SOON,
    http::get,
    upstream::{Behaviour, Upstream},
    wait::{eventually, expect},
};

use crate::{Node, to_with};

/// How many requests the node got that were not checks.
fn served(upstream: &Upstream) -> usize {
    upstream.seen().iter().filter(|seen| seen.uri.path() == "/ip").count()
}

fn route(nodes: &[&Upstream], more: &Value) -> Value {
    json!({ "uri": "/ip", "upstream": to_with(nodes, json!({ "retries": 0, "checks": more })) })
}

/// What the control API says of a node; null where it is not checked.
async fn state(node: &Node, of: &str, upstream: &Upstream) -> Value {
    let answer = get(&node.control_url(&format!("/v1/healthcheck/{of}"))).await.unwrap();
    let view: Value = serde_json::from_slice(&answer.body).unwrap();
    let nodes = view["nodes"].as_array().cloned().unwrap_or_default();
    let found = nodes.into_iter().find(|node| node["port"] == upstream.port());
    found.map_or(Value::Null, |node| node["status"].clone())
}

async fn becomes(node: &Node, of: &str, upstream: &Upstream, expected: &str) {
    eventually(SOON, format!("{of}: {expected}"), async || {
        let state = state(node, of, upstream).await;
        expect(state == expected, state)
    })
    .await;
}

#[tokio::test]
async fn a_node_that_dies_gets_no_requests_until_it_is_back() {
    let (node, good, bad) = (Node::start().await, Upstream::start(), Upstream::start());
    let checks = json!({ "active": {
        "http_path": "/status/200",
        "healthy": { "interval": 1, "successes": 1 },
        "unhealthy": { "interval": 1, "tcp_failures": 1 },
    } });
    node.has(&[("routes/r", route(&[&good, &bad], &checks))]).await;
    assert_eq!(state(&node, "routes/r", &bad).await, Value::Null, "checks begin with the first request");
    assert_eq!(node.get("/ip").await.unwrap().status, 200);

    bad.stop();
    becomes(&node, "routes/r", &bad, "unhealthy").await;
    let before = served(&good);
    for _ in 0..20 {
        assert_eq!(node.get("/ip").await.unwrap().status, 200);
    }
    assert_eq!(served(&good), before + 20);
    let metrics = format!("http://127.0.0.1:{}/apisix/prometheus/metrics", node.ports().prometheus);
    let line = format!(
        "apisix_upstream_status{{name=\"/apisix/routes/r\",ip=\"127.0.0.1\",port=\"{}\"}} 0",
        bad.port()
    );
    let page = get(&metrics).await.unwrap();
    assert!(page.text().contains(&line), "{}", page.text());

    bad.restart();
    becomes(&node, "routes/r", &bad, "healthy").await;
    let before = (served(&good), served(&bad));
    for _ in 0..20 {
        assert_eq!(node.get("/ip").await.unwrap().status, 200);
    }
    assert_eq!((served(&good), served(&bad)), (before.0 + 10, before.1 + 10));
}

/// Nobody asks the node again for a while: only what is remembered keeps requests from it.
#[tokio::test]
async fn what_is_known_of_a_node_survives_other_changes_and_a_reload() {
    let (mut node, good, bad) = (Node::start().await, Upstream::start(), Upstream::start());
    let checks = json!({
        "active": { "healthy": { "interval": 3600 }, "unhealthy": { "interval": 3600 } },
        "passive": { "unhealthy": { "http_statuses": [503], "http_failures": 1 } },
    });
    node.has(&[("routes/r", route(&[&good, &bad], &checks))]).await;
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
    bad.behave(Behaviour::Status(503));
    eventually(SOON, "a request that meets the bad node", async || {
        let status = node.get("/ip").await.unwrap().status;
        expect(status == 503, status)
    })
    .await;
    bad.behave(Behaviour::Answer);

    let untouched = served(&bad);
    let all_good = async |node: &Node, when: &str| {
        for _ in 0..10 {
            assert_eq!(node.get("/ip").await.unwrap().status, 200, "{when}");
        }
        assert_eq!(served(&bad), untouched, "{when}");
        assert_eq!(state(node, "routes/r", &bad).await, "unhealthy", "{when}");
    };
    all_good(&node, "after the failure").await;
    node.has(&[("routes/other", json!({ "uri": "/get", "upstream": to_with(&[&good], json!({})) }))]).await;
    all_good(&node, "after another route came").await;
    node.gateway.merge_config(json!({ "apisix": { "show_upstream_status_in_response_header": true } }));
    node.gateway.reload();
    eventually(SOON, "the new settings", async || {
        let answer = node.get("/ip").await.unwrap();
        expect(!answer.header("x-apisix-upstream-status").is_empty(), answer.status)
    })
    .await;
    all_good(&node, "after a reload").await;
    let less = json!({ "passive": { "unhealthy": { "http_statuses": [500], "http_failures": 1 } } });
    let mut changed = checks.clone();
    testkit::gateway::merge(&mut changed, less);
    node.has(&[("routes/r", route(&[&good, &bad], &changed))]).await;
    all_good(&node, "after other checks").await;
}

#[tokio::test]
async fn checks_end_with_their_upstream() {
    let (node, stays, goes) = (Node::start().await, Upstream::start(), Upstream::start());
    let checks = json!({ "active": { "type": "tcp", "healthy": { "interval": 1 } } });
    let to = |upstream: &Upstream, path: &str| json!({ "uri": path, "upstream": to_with(&[upstream], json!({ "checks": checks })) });
    node.has(&[("routes/stays", to(&stays, "/get")), ("routes/goes", to(&goes, "/ip"))]).await;
    assert_eq!((node.get("/get").await.unwrap().status, node.get("/ip").await.unwrap().status), (200, 200));
    let more = async |upstream: &Upstream, count: u64| {
        let target = upstream.connections() + count;
        eventually(SOON, "further checks", async || {
            expect(upstream.connections() >= target, upstream.connections())
        })
        .await;
    };
    more(&goes, 2).await;
    node.delete("routes/goes").await;
    node.settled().await;
    let listed = get(&node.control_url("/v1/healthcheck")).await.unwrap();
    let listed: Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    // One that was on its way may still come.
    more(&stays, 1).await;
    let last = goes.connections();
    more(&stays, 2).await;
    assert_eq!(goes.connections(), last);
}

#[tokio::test]
async fn checks_over_tls_believe_only_whom_they_are_told_to() {
    let node = Node::start().await;
    let upstream = Upstream::tls(Ca::new("unknown").server(&["127.0.0.1"]).server_config());
    let checks = |verify: bool| {
        json!({ "active": {
            "type": "https",
            "http_path": "/status/204",
            "https_verify_certificate": verify,
            "healthy": { "interval": 1, "http_statuses": [204], "successes": 1 },
            "unhealthy": { "interval": 1, "tcp_failures": 1, "timeouts": 1 },
        } })
    };
    let route = |verify| {
        let more = json!({ "scheme": "https", "checks": checks(verify) });
        json!({ "uri": "/ip", "upstream": to_with(&[&upstream], more) })
    };
    node.has(&[("routes/r", route(true))]).await;
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
    becomes(&node, "routes/r", &upstream, "unhealthy").await;
    assert_eq!(node.get("/ip").await.unwrap().status, 200, "where all are down, all are used");
    node.has(&[("routes/r", route(false))]).await;
    becomes(&node, "routes/r", &upstream, "healthy").await;
}

#[tokio::test]
async fn a_client_that_breaks_off_says_nothing_of_the_node() {
    let log = json!({ "enable_access_log": true, "access_log_format": "$request_uri $status" });
    let node = Node::with(json!({ "nginx_config": { "http": log } })).await;
    let upstream = Upstream::start();
    let checks = json!({
        "active": { "healthy": { "interval": 3600 }, "unhealthy": { "interval": 3600 } },
        "passive": { "unhealthy": {
            "http_statuses": [500, 502, 503, 504], "http_failures": 1, "tcp_failures": 1, "timeouts": 1,
        } },
    });
    let route = json!({ "uri": "/*", "upstream": to_with(&[&upstream], json!({ "checks": checks })) });
    node.has(&[("routes/r", route)]).await;
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
    let url = node.url("/delay/60");
    let request = tokio::spawn(async move { get(&url).await });
    eventually(SOON, "the request at the node", async || {
        let seen = upstream.seen();
        expect(seen.iter().any(|seen| seen.uri.path() == "/delay/60"), seen.len())
    })
    .await;
    request.abort();
    let file = node.home().join("logs/access.log");
    eventually(SOON, "the request's end", async || {
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        expect(lines.contains("/delay/60 499"), lines)
    })
    .await;
    assert_eq!(state(&node, "routes/r", &upstream).await, "healthy");
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
}
