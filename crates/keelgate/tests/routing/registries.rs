//! Services that a registry knows: its instances are nodes, as they come and go.

use std::net::SocketAddr;

use serde_json::{Value, json};
use testkit::gateway::SOON;
use testkit::load::Plan;
use testkit::registry::{Kind, Registry, SECRET};
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

use crate::Node;

/// What a story about a registry needs: how it is configured, and how a service of it is named.
struct Story {
    kind: Kind,
    name: &'static str,
    /// In the registry.
    service: &'static str,
    conf: Value,
    upstream: Value,
}

impl Story {
    fn new(kind: Kind, registry: SocketAddr) -> Self {
        let url = format!("http://{registry}");
        let with_password = format!("http://user:{SECRET}@{registry}");
        let consul = json!({ "servers": [url], "token": SECRET, "timeout": { "wait": 2 } });
        let (name, service, conf, upstream) = match kind {
            Kind::Consul => ("consul", "web", consul, json!({ "service_name": "web" })),
            Kind::ConsulKv => {
                let service = format!("{url}/v1/kv/upstreams/web/");
                ("consul_kv", "web", consul, json!({ "service_name": service }))
            }
            Kind::Eureka => {
                let conf = json!({ "host": [with_password], "prefix": "/eureka", "fetch_interval": 1 });
                ("eureka", "WEB", conf, json!({ "service_name": "WEB" }))
            }
            Kind::Nacos => {
                let conf = json!({ "host": [with_password], "fetch_interval": 1 });
                let args = json!({ "namespace_id": "n", "group_name": "g" });
                ("nacos", "n/g/web", conf, json!({ "service_name": "web", "discovery_args": args }))
            }
            Kind::Kubernetes => {
                let port = registry.port().to_string();
                let service = json!({ "schema": "http", "host": "127.0.0.1", "port": port });
                let conf = json!({ "service": service, "client": { "token": SECRET } });
                ("kubernetes", "default/web", conf, json!({ "service_name": "default/web:http" }))
            }
        };
        Self { kind, name, service, conf, upstream }
    }

    /// Instances come and go under load; the registry dies, talks nonsense, and the process is killed meanwhile.
    async fn play(kind: Kind) {
        let (registry, one, two) = (Registry::start(kind), Upstream::start(), Upstream::start());
        let story = Self::new(kind, registry.address());
        let (name, service) = (story.name, story.service);
        registry.set(service, &[one.address()]);
        // A registry without anything is not one that has forgotten a service.
        registry.set(if kind == Kind::Kubernetes { "default/other" } else { "other" }, &[two.address()]);
        let mut node = Node::with(json!({ "discovery": { name: story.conf } })).await;
        let mut upstream = story.upstream;
        testkit::gateway::merge(&mut upstream, json!({ "discovery_type": name, "type": "roundrobin" }));
        node.has(&[("routes/r", json!({ "uri": "/ip", "upstream": upstream }))]).await;
        // The first request waits for the first answer: it does not fail.
        assert_eq!(node.get("/ip").await.unwrap().status, 200, "{name}");
        assert_eq!(one.requests(), 1);
        let load = Plan::new(node.url("/ip")).start();
        registry.set(service, &[two.address()]);
        served_by(&two).await;
        registry.set(service, &[one.address(), two.address()]);
        served_by(&one).await;
        let dump =
            testkit::http::get(&node.control_url(&format!("/v1/discovery/{name}/dump"))).await.unwrap();
        assert!(dump.text().contains(&one.port().to_string()), "{name}: {}", dump.text());
        assert!(!dump.text().contains(SECRET), "{name}: {}", dump.text());
        registry.babble("<html>login</html>");
        registry.restart();
        node.config_when("the error", |view| !view["discovery"][name]["last_error"].is_null()).await;
        registry.stop();
        served_by(&one).await;
        let report = load.stop().await;
        assert_eq!(report.failed, 0, "{name}: {:?}", report.failures);
        if kind == Kind::Consul {
            eventually(SOON, "both endpoints on disk", async || {
                let kept =
                    std::fs::read_to_string(node.data_dir().join("endpoints.json")).unwrap_or_default();
                let both = [&one, &two].iter().all(|at| kept.contains(&at.port().to_string()));
                expect(both, &kept)
            })
            .await;
            node.gateway.kill9();
            node.gateway.start().await;
            assert_eq!(node.get("/ip").await.unwrap().status, 200, "{name}: after a restart without it");
        }
        assert_eq!(story.kind, kind);
    }
}

async fn served_by(upstream: &Upstream) {
    let before = upstream.requests();
    eventually(SOON, "requests at an upstream", async || {
        let now = upstream.requests();
        expect(now >= before + 10, format!("{before} then {now}"))
    })
    .await;
}

#[tokio::test]
async fn consul() {
    Story::play(Kind::Consul).await;
}

#[tokio::test]
async fn consul_kv() {
    Story::play(Kind::ConsulKv).await;
}

#[tokio::test]
async fn eureka() {
    Story::play(Kind::Eureka).await;
}

#[tokio::test]
async fn nacos() {
    Story::play(Kind::Nacos).await;
}

#[tokio::test]
async fn kubernetes() {
    Story::play(Kind::Kubernetes).await;
}

#[tokio::test]
async fn a_watch_that_is_cut_is_taken_up_again_without_a_word() {
    let (registry, one, two) = (Registry::start(Kind::Kubernetes), Upstream::start(), Upstream::start());
    let story = Story::new(Kind::Kubernetes, registry.address());
    registry.set(story.service, &[one.address()]);
    let mut node = Node::with(json!({ "discovery": { "kubernetes": story.conf } })).await;
    let mut upstream = story.upstream;
    testkit::gateway::merge(&mut upstream, json!({ "discovery_type": "kubernetes", "type": "roundrobin" }));
    node.has(&[("routes/r", json!({ "uri": "/ip", "upstream": upstream }))]).await;
    node.serves("/ip").await;
    let watched = || registry.requests().iter().filter(|request| request.contains("watch=true")).count();
    for cut in 1..4 {
        eventually(SOON, "a watch", async || expect(watched() >= cut, watched())).await;
        registry.restart();
    }
    registry.set(story.service, &[two.address()]);
    eventually(SOON, "requests at the other", async || {
        let status = node.get("/ip").await.map_err(|error| error.to_string())?.status;
        expect(status == 200 && two.requests() > 0, status)
    })
    .await;
    let log = node.gateway.process().log();
    assert!(!log.contains("a registry can't be heard"), "{log}");
}

#[tokio::test]
async fn a_service_that_is_gone_has_no_nodes_and_a_default_where_there_is_one() {
    let (registry, one, fallback) = (Registry::start(Kind::Consul), Upstream::start(), Upstream::start());
    registry.set("web", &[one.address()]);
    let address = format!("http://{}", registry.address());
    let conf = json!({ "servers": [address], "token": SECRET, "dump": { "path": "consul.dump" } });
    let mut node = Node::with(json!({ "discovery": { "consul": conf } })).await;
    let upstream = json!({ "service_name": "web", "discovery_type": "consul", "type": "roundrobin" });
    node.has(&[("routes/r", json!({ "uri": "/ip", "upstream": upstream }))]).await;
    node.serves("/ip").await;
    let dump = testkit::http::get(&node.control_url("/v1/discovery/consul/show_dump_file")).await.unwrap();
    assert_eq!(dump.status, 200, "{}", dump.text());
    let dump: Value = serde_json::from_str(&dump.text()).unwrap();
    assert_eq!(dump["services"]["web"][0]["port"], one.port());
    registry.set("web", &[]);
    eventually(SOON, "no nodes", async || {
        let status = node.get("/ip").await.map_err(|error| error.to_string())?.status;
        expect(status == 503, status)
    })
    .await;
    let default = json!({ "host": "127.0.0.1", "port": fallback.port() });
    node.gateway.merge_config(json!({ "discovery": { "consul": { "default_service": default } } }));
    node.gateway.reload();
    node.serves("/ip").await;
    assert_eq!(fallback.requests(), 1);
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused_with_its_key() {
    let mut node = Node::start().await;
    node.gateway.merge_config(json!({ "discovery": { "consul": { "servers": ["https://c:8500"] } } }));
    let checked = node.gateway.command(&["test"]);
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{told}");
    assert!(told.contains("discovery.consul.servers: only support consul http"), "{told}");
    node.gateway.merge_config(json!({ "discovery": null, "apisix": { "dns_resolver": ["nowhere"] } }));
    let checked = node.gateway.command(&["test"]);
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(told.contains("apisix.dns_resolver: `nowhere` is no address"), "{told}");
}
