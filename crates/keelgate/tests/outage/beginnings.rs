//! The first moments of a node: until it has a configuration nobody is told that there is no such route.

use std::fs;

use serde_json::Value;
use testkit::gateway::{Gateway, SOON};
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

use crate::setup::*;

/// What the first request is answered that is not refused, from the moment on when a node is started.
async fn first_answer(node: &mut Gateway) -> u16 {
    node.spawn();
    let node = &*node;
    eventually(SOON, "an answer", async || match node.get("/ip").await {
        Ok(answer) => Ok(answer.status),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

#[tokio::test]
async fn the_first_answer_is_a_right_one() {
    let upstream = Upstream::start();
    let mut cp = Gateway::control_plane(KEELGATE);
    cp.start().await;
    publish(&cp, &upstream).await;
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp);
    assert_eq!(first_answer(&mut dp).await, 200, "with its control plane");
    kept_on_disk(&dp).await;
    cp.kill9();
    dp.kill9();
    assert_eq!(first_answer(&mut dp).await, 200, "from its disk");
    let mut own = Gateway::traditional(KEELGATE);
    own.start().await;
    // There is a configuration, and nothing in it.
    assert_eq!(own.get("/ip").await.unwrap().status, 404);
    publish(&own, &upstream).await;
    own.serves("/ip").await;
    own.kill9();
    assert_eq!(first_answer(&mut own).await, 200, "from its own store");
}

#[tokio::test]
async fn a_node_that_never_had_a_configuration_says_so() {
    let upstream = Upstream::start();
    let mut cp = Gateway::control_plane(KEELGATE);
    cp.start().await;
    publish(&cp, &upstream).await;
    cp.kill9();
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp);
    assert_eq!(first_answer(&mut dp).await, 503);
    let answer = dp.get("/ip").await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(said["error_msg"].as_str().unwrap().contains("no configuration yet"), "{said}");
    assert!(dp.process().log().contains("no configuration could be had yet"));
    let ready = testkit::http::get(&dp.status_url("/status/ready")).await.unwrap();
    assert_eq!(ready.status, 503);
    cp.start().await;
    eventually(SOON, "the route", async || {
        let status = dp.get("/ip").await.map_err(|error| format!("{error:#}"))?.status;
        assert_ne!(status, 404);
        expect(status == 200, status)
    })
    .await;
}

#[tokio::test]
async fn a_damaged_store_costs_the_admin_api_and_no_request() {
    let upstream = Upstream::start();
    let mut node = Gateway::traditional(KEELGATE);
    node.start().await;
    publish(&node, &upstream).await;
    node.serves("/ip").await;
    kept_on_disk(&node).await;
    node.stop().await;
    let file = node.data_dir().join("store/store.redb");
    let whole = fs::read(&file).unwrap();
    let mut garbage = whole.clone();
    garbage[..4096].fill(0x55);
    for damaged in [vec![], whole[..whole.len() / 3].to_vec(), garbage] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(first_answer(&mut node).await, 200);
        let refused = node.admin(http::Method::GET, "routes", &Value::Null).await;
        assert_eq!(refused.status, 503);
        assert!(refused.text().contains("store.redb"), "{}", refused.text());
        let view = node.config_view().await.unwrap();
        assert!(view["store_error"].as_str().unwrap().contains("store.redb"), "{view}");
        let log = node.process().log();
        assert!(log.contains("store.redb") && log.contains("put a copy of the file back"), "{log}");
        node.stop().await;
    }
    fs::write(&file, whole).unwrap();
    node.start().await;
    assert_eq!(node.admin(http::Method::GET, "routes/ip", &Value::Null).await.status, 200);
    // Without anything to serve meanwhile, it does not begin.
    node.stop().await;
    fs::write(&file, "").unwrap();
    fs::remove_dir_all(node.data_dir().join("last_good")).unwrap();
    node.spawn();
    assert!(!node.process().wait(SOON).await.success());
    assert!(node.process().log().contains("store.redb"));
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_told_once_and_shown() {
    let upstream = Upstream::start();
    let mut cp = Gateway::control_plane(KEELGATE);
    cp.start().await;
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp);
    fs::create_dir_all(dp.data_dir()).unwrap();
    fs::write(dp.data_dir().join("last_good"), "a file where a folder should be").unwrap();
    dp.start().await;
    publish(&cp, &upstream).await;
    dp.serves("/ip").await;
    let view = dp.config_when("the error", |view| view["disk_error"].is_string()).await;
    assert!(view["disk_error"].as_str().unwrap().contains("last_good"), "{view}");
    let log = dp.process().log();
    assert_eq!(log.matches("can't be kept on disk").count(), 1, "{log}");
}

#[tokio::test]
async fn a_reload_and_a_short_cut_are_no_change_of_source() {
    let mut cp = Gateway::control_plane(KEELGATE);
    cp.start().await;
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp);
    dp.start().await;
    dp.source("control_plane").await;
    keelgate(&dp, &["reload"]);
    dp.source("control_plane").await;
    cp.kill9();
    dp.config_when("a cut", |view| view["cp"]["connected"] == false).await;
    cp.start().await;
    dp.config_when("the end of the cut", |view| view["cp"]["connected"] == true).await;
    let log = dp.process().log();
    assert!(!log.contains("the source has changed"), "{log}");
    assert!(log.contains("it can be heard again"), "{log}");
}
