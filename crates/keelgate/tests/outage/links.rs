//! The ways to a control plane: over mTLS, to one of several on a shared etcd, to an etcd without any.

use http::Method;
use serde_json::{Value, json};
use testkit::certs::Ca;
use testkit::gateway::Gateway;
use testkit::servers::Etcd;
use testkit::upstream::Upstream;

use crate::setup::*;

#[tokio::test]
async fn both_ends_show_certificates_where_they_are_told_to() {
    let (upstream, ca, other) = (Upstream::start(), Ca::new("keel"), Ca::new("other"));
    let mut cp = Gateway::control_plane(KEELGATE);
    let folder = cp.home().to_owned();
    let server = ca.server(&["127.0.0.1", "cp.test"]).write(&folder, "server");
    let (good, bad) = (ca.client("dp").write(&folder, "good"), other.client("dp").write(&folder, "bad"));
    let authority = ca.write(&folder, "ca");
    let listen = json!({ "cert": server.cert, "key": server.key, "client_ca": authority });
    cp.merge_config(json!({ "keelgate": { "dp_listen": listen } }));
    cp.start().await;
    publish(&cp, &upstream).await;
    let host = format!("https://127.0.0.1:{}", cp.ports().dp_tls);
    let follower = |trusted: &std::path::Path, client: Option<&testkit::certs::Files>| {
        let mut tls = json!({ "verify": true });
        if let Some(client) = client {
            tls = json!({ "verify": true, "cert": client.cert, "key": client.key });
        }
        Gateway::data_plane(KEELGATE).follow_hosts(&[&host]).with(json!({
            "apisix": { "ssl": { "ssl_trusted_certificate": trusted } },
            "deployment": { "etcd": { "tls": tls } },
        }))
    };
    let mut dp = follower(&authority, Some(&good));
    dp.start().await;
    dp.serves("/ip").await;
    route(&cp, "get", "/get").await;
    dp.serves("/get").await;

    let stranger = other.write(&folder, "other");
    for mut refused in
        [follower(&authority, Some(&bad)), follower(&authority, None), follower(&stranger, Some(&good))]
    {
        refused.spawn();
        let told = |view: &Value| {
            let why = view["cp"]["last_error"].as_str().unwrap_or_default().to_ascii_lowercase();
            why.contains("certificate") || why.contains("unknownca") || why.contains("unknownissuer")
        };
        let view = refused.config_when("a word on certificates", told).await;
        assert_eq!((&view["source"], &view["cp"]["connected"]), (&json!("none"), &json!(false)), "{view}");
    }
}

#[tokio::test]
async fn one_of_two_control_planes_on_an_etcd_is_enough() {
    let (upstream, moto, mut etcd) = (Upstream::start(), storage().await, Etcd::single().await);
    let control_plane = || {
        let s3 = aws_s3(&moto.client("root"));
        let fallback = json!({ "aws_s3": s3, "on_change": true, "debounce": "50ms" });
        let cp = Gateway::new(KEELGATE, "control_plane", "etcd").follow_hosts(&[&etcd.endpoint(0)]);
        cp.with(json!({ "fallback_cp": fallback }))
    };
    let mut cps = [control_plane(), control_plane()];
    for cp in &mut cps {
        cp.start().await;
    }
    publish(&cps[0], &upstream).await;
    let hosts = [&cps[0], &cps[1]].map(|cp| format!("http://127.0.0.1:{}", cp.ports().dp));
    let mut dp = falling_back(Gateway::data_plane(KEELGATE).follow_hosts(&[&hosts[0], &hosts[1]]), &moto);
    dp.start().await;
    dp.serves("/ip").await;
    let load = load(&dp);
    route(&cps[1], "get", "/get").await;
    dp.serves("/get").await;
    backed_up(&cps[0], &moto, 3).await;
    backed_up(&cps[1], &moto, 3).await;
    for (dead, alive, uri) in [(0, 1, "/headers"), (1, 0, "/anything")] {
        cps[dead].kill9();
        route(&cps[alive], uri.trim_start_matches('/'), uri).await;
        dp.serves(uri).await;
        dp.source("control_plane").await;
        cps[dead].start().await;
    }
    backed_up(&cps[0], &moto, 5).await;
    // Their own settings differ, and each has said its own; they don't take turns for ever.
    let publish_twice = async || {
        cps.iter().for_each(|cp| drop(keelgate(cp, &["backup", "now"])));
        manifest(&moto).await["sequence"].clone()
    };
    assert_eq!(publish_twice().await, publish_twice().await);

    etcd.kill9(0);
    let refused = cps[0]
        .admin(Method::PUT, "routes/late", &json!({ "uri": "/bytes/1", "service_id": "httpbin" }))
        .await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    load.more(100).await;
    etcd.restart(0).await;
    testkit::wait::eventually(testkit::gateway::SOON, "writes are taken again", async || {
        let body = json!({ "uri": "/bytes/1", "service_id": "httpbin" });
        let answer = cps[0].admin(Method::PUT, "routes/late", &body).await;
        testkit::wait::expect(answer.status < 300, answer.text())
    })
    .await;
    dp.serves("/bytes/1").await;
    assert_eq!(dp.config_view().await.unwrap()["held"], Value::Null);
    load.more(100).await;
    load.stop().await.assert_clean(300);
}

#[tokio::test]
async fn apisixs_own_way_a_traditional_node_on_an_etcd() {
    let (upstream, mut etcd) = (Upstream::start(), Etcd::single().await);
    let mut node = Gateway::new(KEELGATE, "traditional", "etcd").follow_hosts(&[&etcd.endpoint(0)]);
    node.merge_config(json!({ "keelgate": null }));
    node.start().await;
    // Ready is about serving: its Admin API may still be on its way to the etcd.
    node.config_when("the store", |view| view["data_planes"].is_array()).await;
    publish(&node, &upstream).await;
    node.serves("/ip").await;
    let own = etcd.ctl(&["get", "/apisix/routes/ip", "--print-value-only"]);
    assert_eq!(serde_json::from_str::<Value>(&own).unwrap()["uri"], "/ip");
    // What APISIX's own Admin API or a script has written.
    etcd.ctl(&["put", "/apisix/routes/get", r#"{"id":"get","uri":"/get","service_id":"httpbin"}"#]);
    node.serves("/get").await;
    kept_on_disk(&node).await;
    let load = load(&node);
    etcd.kill9(0);
    node.config_when("the etcd is missed", |view| view["cp"]["connected"] == false).await;
    load.more(100).await;
    load.stop().await.assert_clean(100);
    node.kill9();
    node.start().await;
    node.serves("/ip").await;
    node.source("disk").await;
    etcd.restart(0).await;
    node.source("control_plane").await;
    node.config_when("writes", |view| view["data_planes"].is_array() && view["store_error"].is_null()).await;
    route(&node, "headers", "/headers").await;
    node.serves("/headers").await;
}
