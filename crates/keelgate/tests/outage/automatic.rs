//! A data plane with `config_provider: etcd` and `fallback_cp`: nobody does anything by hand, and no request fails.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::firewall::drop_packets;
use testkit::gateway::Gateway;
use testkit::load::Plan;
use testkit::ports;
use testkit::proxy::FaultProxy;
use testkit::upstream::Upstream;

use crate::setup::*;

/// `startup_grace` of these data planes.
const GRACE: Duration = Duration::from_secs(1);
/// What the contract grants beyond it.
const SLACK: Duration = Duration::from_millis(500);

#[tokio::test]
async fn no_request_fails_while_everything_around_a_data_plane_dies_and_returns() {
    let (upstream, mut moto) = (Upstream::start(), storage().await);
    let mut cp = control_plane(&moto);
    cp.start().await;
    publish(&cp, &upstream).await;
    let mut dp = data_plane(&cp, &moto);
    dp.start().await;
    dp.serves("/ip").await;
    backed_up(&cp, &moto, 2).await;
    let load = load(&dp);
    load.more(500).await;

    cp.kill9();
    dp.config_when("the control plane is missed", |view| view["cp"]["connected"] == false).await;
    load.more(500).await;
    cp.start().await;
    dp.config_when("the control plane is back", |view| view["cp"]["connected"] == true).await;
    route(&cp, "get", "/get").await;
    dp.serves("/get").await;

    moto.kill9();
    load.more(500).await;
    cp.kill9();
    load.more(500).await;
    reload_twice(&mut dp, &load).await;

    cp.start().await;
    dp.config_when("the control plane is back", |view| view["cp"]["connected"] == true).await;
    route(&cp, "headers", "/headers").await;
    dp.serves("/headers").await;
    let done = load.requests();
    load.more(5_000_u64.saturating_sub(done)).await;
    load.stop().await.assert_clean(5_000);
}

/// Another port and no access log, then as before; with both of its sources dead.
async fn reload_twice(dp: &mut Gateway, load: &testkit::load::Load) {
    let (own, more) = (dp.ports().http, ports::free());
    let listen = |ports: &[u16]| -> Value {
        ports.iter().map(|port| json!({ "ip": "127.0.0.1", "port": port })).collect()
    };
    dp.merge_config(json!({
        "apisix": { "node_listen": listen(&[own, more]) },
        "nginx_config": { "http": { "enable_access_log": false } },
    }));
    keelgate(dp, &["reload"]);
    let also = Plan::new(format!("http://127.0.0.1:{more}/ip")).kept(2).start();
    also.more(100).await;
    load.more(500).await;
    also.stop().await.assert_clean(100);
    dp.merge_config(json!({ "apisix": { "node_listen": listen(&[own]) }, "nginx_config": null }));
    keelgate(dp, &["reload"]);
    load.more(500).await;
    assert!(testkit::http::get(&format!("http://127.0.0.1:{more}/ip")).await.is_err(), "a port given up");
}

#[tokio::test]
async fn a_new_data_plane_starts_from_the_backup_and_then_from_its_disk() {
    let (upstream, mut moto) = (Upstream::start(), storage().await);
    let mut cp = control_plane(&moto);
    cp.start().await;
    publish(&cp, &upstream).await;
    backed_up(&cp, &moto, 2).await;
    cp.kill9();

    let mut dp = data_plane(&cp, &moto);
    first_answer_in_time(&mut dp).await;
    let view = dp.source("bucket").await;
    assert_eq!((&view["sequence"].is_u64(), &view["cp"]["connected"]), (&true, &Value::Bool(false)));
    metric(&dp, r#"keelgate_config_source{source="bucket"}"#, 1.0).await;
    metric(&dp, r#"keelgate_config_source{source="control_plane"}"#, 0.0).await;
    metric(&dp, "keelgate_cp_connected", 0.0).await;

    moto.kill9();
    dp.stop().await;
    first_answer_in_time(&mut dp).await;
    dp.source("disk").await;
    metric(&dp, r#"keelgate_config_source{source="disk"}"#, 1.0).await;

    let load = load(&dp);
    load.more(100).await;
    cp.start().await;
    dp.source("control_plane").await;
    metric(&dp, r#"keelgate_config_source{source="control_plane"}"#, 1.0).await;
    metric(&dp, "keelgate_cp_connected", 1.0).await;
    route(&cp, "get", "/get").await;
    dp.serves("/get").await;
    load.more(100).await;
    load.stop().await.assert_clean(200);
}

/// Starts a node whose control plane is dead, and measures until it answers.
async fn first_answer_in_time(dp: &mut Gateway) {
    let started = Instant::now();
    dp.spawn();
    dp.serves("/ip").await;
    let took = started.elapsed();
    assert!(took <= GRACE + SLACK, "the first answer took {took:?}");
}

#[tokio::test]
async fn a_node_that_was_killed_starts_from_its_disk() {
    let (upstream, mut moto) = (Upstream::start(), storage().await);
    let mut cp = control_plane(&moto);
    cp.start().await;
    publish(&cp, &upstream).await;
    let mut dp = data_plane(&cp, &moto);
    dp.start().await;
    dp.serves("/ip").await;
    kept_on_disk(&dp).await;
    cp.kill9();
    moto.kill9();
    dp.kill9();
    first_answer_in_time(&mut dp).await;
    dp.source("disk").await;
}

#[tokio::test]
async fn a_control_plane_that_hangs_is_as_good_as_dead() {
    let (upstream, moto) = (Upstream::start(), storage().await);
    let mut cp = control_plane(&moto);
    cp.start().await;
    publish(&cp, &upstream).await;
    backed_up(&cp, &moto, 2).await;
    let line = FaultProxy::start(([127, 0, 0, 1], cp.ports().dp).into());
    let follower = || falling_back(Gateway::data_plane(KEELGATE).follow_hosts(&[&line.url("")]), &moto);
    let mut running = follower();
    running.start().await;
    running.serves("/ip").await;
    let load = load(&running);
    load.more(100).await;

    line.black_hole();
    running.config_when("the control plane is missed", |view| view["cp"]["connected"] == false).await;
    let mut new = follower();
    first_answer_in_time(&mut new).await;
    new.source("bucket").await;
    // What is written now comes by way of the backup.
    route(&cp, "get", "/get").await;
    for dp in [&new, &running] {
        dp.serves("/get").await;
        dp.source("bucket").await;
    }

    line.heal();
    for dp in [&new, &running] {
        dp.source("control_plane").await;
    }
    route(&cp, "headers", "/headers").await;
    for dp in [&new, &running] {
        dp.serves("/headers").await;
    }
    load.more(100).await;
    load.stop().await.assert_clean(500);
}

#[tokio::test]
async fn packets_to_the_control_plane_that_vanish_cost_no_request() {
    let (upstream, moto) = (Upstream::start(), storage().await);
    let mut cp = control_plane(&moto);
    cp.start().await;
    publish(&cp, &upstream).await;
    backed_up(&cp, &moto, 2).await;
    let mut running = data_plane(&cp, &moto);
    running.start().await;
    running.serves("/ip").await;
    let load = load(&running);
    load.more(100).await;

    let dropped = drop_packets(cp.ports().dp);
    running.config_when("the control plane is missed", |view| view["cp"]["connected"] == false).await;
    let mut new = data_plane(&cp, &moto);
    first_answer_in_time(&mut new).await;
    new.source("bucket").await;

    drop(dropped);
    for dp in [&new, &running] {
        dp.config_when("the control plane is back", |view| view["cp"]["connected"] == true).await;
        dp.source("control_plane").await;
    }
    route(&cp, "get", "/get").await;
    for dp in [&new, &running] {
        dp.serves("/get").await;
    }
    load.more(100).await;
    load.stop().await.assert_clean(200);
}
