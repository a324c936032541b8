//! Nodes that are names: what DNS says counts, for as long as it says it, and beyond where it says nothing.

use serde_json::{Value, json};
use testkit::dns::Dns;
use testkit::gateway::SOON;
use testkit::http::request;
use testkit::load::Plan;
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

use crate::Node;

fn asking(dns: &Dns) -> Value {
    json!({ "apisix": { "dns_resolver": [dns.address()], "enable_resolv_search_opt": false } })
}

/// Waits until this many further requests have come to an upstream.
async fn gets(upstream: &Upstream, more: u64) {
    let before = upstream.requests();
    eventually(SOON, "requests at an upstream", async || {
        let now = upstream.requests();
        expect(now >= before + more, format!("{before} then {now}"))
    })
    .await;
}

#[tokio::test]
async fn addresses_that_change_move_the_traffic_and_cost_no_request() {
    let (dns, node_1, node_2) = (Dns::start(), Upstream::start(), Upstream::start());
    dns.set("one.test", &["127.0.0.1"], 1);
    let node = Node::with(asking(&dns)).await;
    let nodes = json!({ format!("one.test:{}", node_1.port()): 1 });
    let pass_host = json!({ "nodes": nodes, "pass_host": "node" });
    node.has(&[("routes/r", json!({ "uri": "/ip", "upstream": pass_host }))]).await;
    assert_eq!(node.get("/ip").await.unwrap().status, 200);
    assert_eq!(node_1.last().header("host"), format!("one.test:{}", node_1.port()));
    // An upstream of fakes is told apart by its port, so a service with ports stands in for addresses that change.
    dns.set_srv("moving.test", &[(1, 1, node_1.port(), "one.test")], 1);
    let discovery = json!({ "discovery": { "dns": { "servers": [dns.address()] } } });
    let mut gateway = Node::with(discovery).await;
    let service = json!({ "service_name": "moving.test", "discovery_type": "dns", "type": "roundrobin" });
    gateway.has(&[("routes/r", json!({ "uri": "/ip", "upstream": service }))]).await;
    let load = Plan::new(gateway.url("/ip")).start();
    gets(&node_1, 20).await;
    dns.set_srv("moving.test", &[(1, 1, node_2.port(), "one.test")], 1);
    gets(&node_2, 20).await;
    // Whoever was asked last is dead: what it said goes on.
    dns.stop();
    gets(&node_2, 500).await;
    let report = load.stop().await;
    assert_eq!(report.failed, 0, "{:?}", report.failures);
    // A restart while it is dead goes by what was kept.
    gateway.gateway.kill9();
    gateway.gateway.start().await;
    gateway.serves("/ip").await;
    // It comes back with news.
    dns.set_srv("moving.test", &[(1, 1, node_1.port(), "one.test")], 1);
    dns.restart();
    eventually(SOON, "news", async || {
        let before = node_1.requests();
        let status =
            gateway.get("/ip").await.map(|answer| answer.status).map_err(|error| error.to_string())?;
        expect(status == 200 && node_1.requests() > before, status)
    })
    .await;
}

#[tokio::test]
async fn a_names_addresses_take_turns_and_names_that_do_not_exist_get_503() {
    let (dns, upstream) = (Dns::start(), Upstream::start());
    dns.set("two.test", &["127.0.0.1", "127.0.0.2"], 60);
    dns.set("six.test", &["::1"], 60);
    let node = Node::with(asking(&dns)).await;
    let to = |host: &str| {
        json!({ "uri": format!("/anything/{host}"), "upstream": {
        "nodes": [{ "host": host, "port": upstream.port(), "weight": 1 }], "retries": 1 } })
    };
    node.has(&[
        ("routes/two", to("two.test")),
        ("routes/none", to("none.test")),
        ("routes/six", to("six.test")),
    ])
    .await;
    // The fake listens on 127.0.0.1 alone: 127.0.0.2 refuses, and the other address is tried.
    for _ in 0..4 {
        assert_eq!(node.get("/anything/two.test").await.unwrap().status, 200);
    }
    assert_eq!(node.get("/anything/none.test").await.unwrap().status, 503);
    // There is a node, and nobody listens at it.
    assert_eq!(node.get("/anything/six.test").await.unwrap().status, 502);
    assert_eq!((dns.asked("two.test"), dns.asked("six.test")), (1, 2), "A, and AAAA where there is none");
    let view = node.config_view().await.unwrap();
    assert_eq!(view["discovery"]["host"]["last_error"], "none.test has no address");
}

#[tokio::test]
async fn dns_as_a_registry_says_ports_weights_and_priorities() {
    let dns = Dns::start();
    let (heavy, light, last) = (Upstream::start(), Upstream::start(), Upstream::start());
    dns.set("a.test", &["127.0.0.1"], 60);
    let servers =
        [(1, 3, heavy.port(), "a.test"), (1, 0, light.port(), "a.test"), (2, 9, last.port(), "a.test")];
    dns.set_srv("_web._tcp.test", &servers, 60);
    let node = Node::with(json!({ "discovery": { "dns": { "servers": [dns.address()] } } })).await;
    let service = |name: &str| json!({ "service_name": name, "discovery_type": "dns", "type": "roundrobin" });
    let with_port = format!("a.test:{}", last.port());
    node.has(&[
        ("routes/srv", json!({ "uri": "/ip", "upstream": service("_web._tcp.test") })),
        ("routes/port", json!({ "uri": "/get", "upstream": service(&with_port) })),
        (
            "routes/unknown",
            json!({ "uri": "/headers", "upstream": { "service_name": "x",
            "discovery_type": "consul", "type": "roundrobin" } }),
        ),
    ])
    .await;
    let mut client = testkit::http::Client::connect(&node.url("/")).await.unwrap();
    for _ in 0..8 {
        assert_eq!(client.get("/ip").await.unwrap().status, 200);
    }
    assert_eq!((heavy.requests(), light.requests(), last.requests()), (6, 2, 0));
    assert_eq!(client.get("/get").await.unwrap().status, 200);
    assert_eq!(last.requests(), 1);
    let refused = request(http::Method::GET, &node.url("/headers"), &[], "").await.unwrap();
    assert_eq!(refused.status, 503, "nobody is asked for services of Consul here");
}

#[tokio::test]
async fn names_may_have_underscores_and_a_target_that_is_gone_costs_only_itself() {
    let (dns, one, two, three) = (Dns::start(), Upstream::start(), Upstream::start(), Upstream::start());
    dns.set("my_node.test", &["127.0.0.1"], 60);
    dns.set("a.test", &["127.0.0.1"], 60);
    let servers = [
        (1, 1, one.port(), "my_node.test"),
        (1, 1, two.port(), "gone.test"),
        (1, 1, three.port(), "127.0.0.1"),
    ];
    dns.set_srv("_web._tcp.my_app.test", &servers, 60);
    dns.set_srv("gone_all.test", &[(1, 1, two.port(), "gone.test")], 60);
    let mut settings = asking(&dns);
    let discovery = json!({ "discovery": { "dns": { "servers": [dns.address()] } } });
    testkit::gateway::merge(&mut settings, discovery);
    let node = Node::with(settings).await;
    let service = |name: &str| json!({ "service_name": name, "discovery_type": "dns", "type": "roundrobin" });
    let named = json!({ "nodes": { format!("my_node.test:{}", one.port()): 1 } });
    node.has(&[
        ("routes/node", json!({ "uri": "/ip", "upstream": named })),
        ("routes/a", json!({ "uri": "/get", "upstream": service(&format!("my_node.test:{}", one.port())) })),
        ("routes/srv", json!({ "uri": "/headers", "upstream": service("_web._tcp.my_app.test") })),
        ("routes/gone", json!({ "uri": "/anything", "upstream": service("gone_all.test") })),
    ])
    .await;
    assert_eq!(node.get("/ip").await.unwrap().status, 200, "a node");
    assert_eq!(node.get("/get").await.unwrap().status, 200, "a service");
    for _ in 0..6 {
        assert_eq!(node.get("/headers").await.unwrap().status, 200, "targets");
    }
    assert_eq!((one.requests(), two.requests(), three.requests()), (5, 0, 3));
    assert_eq!(node.get("/anything").await.unwrap().status, 503);
}
