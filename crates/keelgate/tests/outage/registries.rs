//! A registry and the name servers are dead when a data plane is killed and comes back.

use serde_json::json;
use testkit::dns::Dns;
use testkit::gateway::Gateway;
use testkit::load::Plan;
use testkit::registry::{Kind, Registry, SECRET};
use testkit::upstream::Upstream;

use crate::setup::{KEELGATE, kept_on_disk};

#[tokio::test]
async fn endpoints_last_seen_serve_a_restart_without_registry_dns_and_control_plane() {
    let (registry, dns) = (Registry::start(Kind::Consul), Dns::start());
    let (found, named) = (Upstream::start(), Upstream::start());
    registry.set("web", &[found.address()]);
    dns.set("node.test", &["127.0.0.1"], 1);
    // What registries there are is the control plane's to say.
    let consul = json!({ "servers": [format!("http://{}", registry.address())], "token": SECRET });
    let mut cp = Gateway::control_plane(KEELGATE).with(json!({ "discovery": { "consul": consul } }));
    cp.start().await;
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp);
    dp.merge_config(json!({ "apisix": { "dns_resolver": [dns.address()] } }));
    dp.start().await;
    let service = json!({ "service_name": "web", "discovery_type": "consul", "type": "roundrobin" });
    cp.put("routes/found", &json!({ "uri": "/ip", "upstream": service })).await;
    let nodes = json!({ format!("node.test:{}", named.port()): 1 });
    cp.put("routes/named", &json!({ "uri": "/get", "upstream": { "type": "roundrobin", "nodes": nodes } }))
        .await;
    dp.serves("/ip").await;
    dp.serves("/get").await;
    dp.config_when("endpoints on disk", |_| {
        let kept = std::fs::read_to_string(dp.data_dir().join("endpoints.json")).unwrap_or_default();
        kept.contains("\"web\"") && kept.contains("\"node.test\"")
    })
    .await;
    kept_on_disk(&dp).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(dp.data_dir().join("endpoints.json")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    cp.kill9();
    registry.stop();
    dns.stop();
    dp.kill9();
    dp.start().await;
    let loads = [Plan::new(dp.url("/ip")).start(), Plan::new(dp.url("/get")).start()];
    for load in &loads {
        load.more(200).await;
    }

    // All of it comes back, the registry with news, and no request notices.
    let moved = Upstream::start();
    registry.set("web", &[moved.address()]);
    registry.restart();
    dns.restart();
    cp.start().await;
    dp.source("control_plane").await;
    let before = moved.requests();
    testkit::wait::eventually(testkit::gateway::SOON, "traffic where the registry says", async || {
        let now = moved.requests();
        testkit::wait::expect(now > before + 20, now)
    })
    .await;
    for load in loads {
        let report = load.stop().await;
        assert_eq!(report.failed, 0, "{:?}", report.failures);
    }
}
